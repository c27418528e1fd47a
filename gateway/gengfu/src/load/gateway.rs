//! One simulated gateway: a real outbox and the real uplink, with invented alarms.
//!
//! Owns what a gateway's core does around them: journal first, then wake the uplink; the retained snapshots; power off and on again. It refuses to look
//! at the wire: whether an event was received it reads from its outbox, as `gengfu trace` does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use gengfu_alarm::observation::{Observation, What};
use gengfu_alarm::output::Transition;
use gengfu_contract::CONTRACT_VERSION;
use gengfu_contract::event::{AlarmData, EventType, GatewayData};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::AlarmSnapshot;
use gengfu_contract::topic::Topics;
use gengfu_contract::words::{Condition, Lane};
use gengfu_outbox::sim::Kept;
use gengfu_outbox::{Batch, Options, Outbox, Outcome, SimDisk};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::LoadPlan;
use super::tally::Tally;
use super::traffic::{Alarm, Traffic};
use crate::clock::Clock;
use crate::decide::events::{Author, Draft};
use crate::uplink::backoff::{between, later};
use crate::uplink::{self, Board, EvidenceItem, Identity, UplinkConfig, UplinkParts, UplinkStatus};

/// How often a gateway asks its outbox what was received.
const ACCOUNT_EVERY: Duration = Duration::from_millis(500);
/// Items asked about at most each time.
const ACCOUNT_ITEMS: usize = 256;
/// Settled events an outbox keeps: enough to be asked about.
const JOURNAL_KEEP: u64 = 2_000;
/// The least that sled takes.
const CACHE_BYTES: u64 = 256 * 1024;
/// At shutdown, how long PUBACKs are awaited.
const GOODBYE: Duration = Duration::from_secs(5);

/// What all simulated gateways share.
pub(super) struct Common {
    pub(super) plan: LoadPlan,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tally: Mutex<Tally>,
    /// Items without a receipt, as the outboxes say.
    pub(super) pending: AtomicU64,
    /// Alarms that are not over.
    pub(super) open: AtomicU64,
    /// Gateways whose connection stands.
    pub(super) online: AtomicU64,
    /// The picture of every alarm that has one; alarm and number are filled in.
    pub(super) picture: EvidenceItem,
}

impl Common {
    pub(super) fn tally<R>(&self, change: impl FnOnce(&mut Tally) -> R) -> R {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Gateway number `index` of `site`.
pub(super) fn name(tag: &str, index: usize) -> Slug {
    Slug::new(format!("load-{tag}-{index:04}")).expect("lower-case letters, digits and hyphens are a name")
}

/// How a gateway ended.
pub(super) struct Ended {
    pub(super) name: Slug,
    /// Last sequence of its journal.
    pub(super) sequence: u64,
    /// Items without a receipt.
    pub(super) pending: u64,
    /// Items its outbox gave up, counted for good.
    pub(super) dropped: u64,
    pub(super) connects: u64,
    pub(super) boots: u64,
    pub(super) slowest_connect_ms: u64,
}

struct OpenAlarm {
    ends_at: Timestamp,
    data: AlarmData,
}

/// The uplink's task and our ends of it.
struct Link {
    task: JoinHandle<Result<(), uplink::OpenError>>,
    wake: Arc<Notify>,
    board: Board,
    status: watch::Receiver<UplinkStatus>,
    shutdown: CancellationToken,
    began_at: Timestamp,
    is_counted: bool,
}

pub(super) struct Gateway {
    common: Arc<Common>,
    index: usize,
    name: Slug,
    topics: Topics,
    author: Author,
    options: Options,
    outbox: Outbox,
    /// Items without a receipt, as told to the others.
    pending: u64,
    traffic: Traffic,
    boot: u64,
    alarms: u64,
    /// Alarms under way; they end in any order.
    open: Vec<OpenAlarm>,
    /// Items not yet known to be received.
    waiting: VecDeque<(String, Lane)>,
    connects: u64,
    slowest_connect_ms: u64,
}

impl Gateway {
    pub(super) fn new(common: Arc<Common>, tag: &str, index: usize) -> anyhow::Result<Self> {
        let plan = &common.plan;
        let name = name(tag, index);
        let mut options = if plan.on_disk {
            Options::new(plan.folder.join("outbox").join(name.as_str()))
        } else {
            Options::simulated(&SimDisk::new(plan.seed.wrapping_add(index as u64)))
        };
        (options.cache_bytes, options.journal_keep) = (CACHE_BYTES, JOURNAL_KEEP);
        let outbox = Outbox::open(options.clone()).with_context(|| format!("open the outbox of {name}"))?;
        #[expect(clippy::cast_precision_loss, reason = "far fewer gateways than 2^52")]
        let rate = plan.rate / plan.gateways as f64;
        Ok(Self {
            topics: Topics::new(&plan.site, &name),
            author: Author::new(&plan.site, &name),
            traffic: Traffic::new(plan.seed, index, rate, plan.pictures_percent),
            common,
            index,
            name,
            options,
            outbox,
            pending: 0,
            boot: 0,
            alarms: 0,
            open: Vec::new(),
            waiting: VecDeque::new(),
            connects: 0,
            slowest_connect_ms: 0,
        })
    }

    /// Lives until `end`. Alarms come until `quiet`; at every change of `cuts` the power fails.
    pub(super) async fn live(
        mut self,
        mut cuts: watch::Receiver<u64>,
        quiet: CancellationToken,
        end: CancellationToken,
    ) -> anyhow::Result<Ended> {
        tokio::time::sleep(self.traffic.within(self.common.plan.jitter)).await;
        let mut link = self.power_on()?;
        let mut next_at = later(self.now(), self.traffic.gap());
        let mut account_at = self.now();
        loop {
            let now = self.now();
            let is_quiet = quiet.is_cancelled();
            if !is_quiet && next_at <= now {
                self.raise(&link, now)?;
                next_at = later(next_at, self.traffic.gap());
            }
            self.end_alarms(&link, now)?;
            if account_at <= now {
                self.account()?;
                account_at = later(now, ACCOUNT_EVERY);
            }
            let ends_at = self.open.iter().map(|alarm| alarm.ends_at).min();
            let due = [Some(account_at), ends_at, Some(next_at).filter(|_| !is_quiet)].into_iter().flatten().min();
            let wait = due.map_or(ACCOUNT_EVERY, |at| between(now, at));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = quiet.cancelled(), if !is_quiet => {}
                () = end.cancelled() => break,
                changed = link.status.changed(), if !link.is_counted => {
                    if changed.is_ok() { self.note_connect(&mut link) }
                }
                cut = cuts.changed(), if !is_quiet => {
                    if cut.is_ok() {
                        link = self.power_cut(link).await?;
                        next_at = later(self.now(), self.traffic.gap());
                    }
                }
            }
        }
        self.leave(link).await
    }

    fn now(&self) -> Timestamp {
        self.common.clock.now()
    }

    /// Starts as a gateway does: a started event, its open alarms on the board, the uplink.
    fn power_on(&mut self) -> anyhow::Result<Link> {
        let now = self.now();
        self.boot += 1;
        let data = GatewayData {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            contract: CONTRACT_VERSION.to_owned(),
            boot: self.boot,
            clock: self.common.clock.quality(),
        };
        self.commit(|gateway, batch| {
            let draft = gateway.author.started(now, &batch.position(), &data);
            Ok(vec![append(&gateway.author, batch, draft, now)?])
        })?;
        let board = Board::new();
        for alarm in &self.open {
            board.set(&self.topics.alarm(&alarm.data.alarm_id), Some(snapshot(0, &alarm.data)));
        }
        board.complete();
        let plan = &self.common.plan;
        let identity =
            Identity { site: plan.site.clone(), gateway: self.name.clone(), boot: self.boot, version: data.version };
        let (broker, others) = plan.brokers_of(self.index, self.name.as_str());
        let mut config = UplinkConfig::new(broker, identity);
        config.other_brokers = others;
        config.goodbye = GOODBYE;
        // Nobody carries out commands here: the uplink answers them "refused" by itself, and takes receipts all the same.
        let (commands, _) = mpsc::channel(1);
        let (_, replies) = mpsc::channel(1);
        let (shown, status) = watch::channel(UplinkStatus::starting(&config.broker, now));
        let (wake, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
        let parts = UplinkParts {
            outbox: self.outbox.clone(),
            board: board.clone(),
            clock: self.common.clock.clone(),
            wake: wake.clone(),
            commands,
            replies,
            status: shown,
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(uplink::run(config, parts));
        Ok(Link { task, wake, board, status, shutdown, began_at: now, is_counted: false })
    }

    fn note_connect(&mut self, link: &mut Link) {
        if link.status.borrow_and_update().connects > 0 {
            link.is_counted = true;
            self.common.online.fetch_add(1, Ordering::Relaxed);
            let took_ms = u64::try_from(between(link.began_at, self.now()).as_millis()).unwrap_or(u64::MAX);
            self.slowest_connect_ms = self.slowest_connect_ms.max(took_ms);
        }
    }

    /// The power fails: the connection breaks without a word. It comes back after a while, for every gateway another.
    async fn power_cut(&mut self, link: Link) -> anyhow::Result<Link> {
        self.close_account(&link);
        link.task.abort();
        // Cancelled, as it was just told to be.
        let _ = link.task.await;
        match &self.options.simulated {
            // What was not synced is gone with the power, as receipts may be: those items are sent again.
            Some(disk) => {
                disk.cut_power(Kept::Nothing);
                self.outbox = Outbox::open(self.options.clone()).with_context(|| format!("reopen {}", self.name))?;
            }
            None => self.outbox.release_all(),
        }
        tokio::time::sleep(self.traffic.within(self.common.plan.jitter)).await;
        self.power_on()
    }

    fn close_account(&mut self, link: &Link) {
        self.connects += link.status.borrow().connects;
        if link.is_counted {
            self.common.online.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn leave(mut self, link: Link) -> anyhow::Result<Ended> {
        self.account()?;
        link.shutdown.cancel();
        self.close_account(&link);
        link.task.await.context("the uplink panicked")?.with_context(|| format!("the uplink of {}", self.name))?;
        let stats = self.outbox.stats();
        Ok(Ended {
            sequence: stats.head.sequence,
            pending: stats.lanes.iter().map(|lane| lane.pending).sum(),
            dropped: stats.lanes.iter().map(|lane| lane.dropped).sum(),
            connects: self.connects,
            boots: self.boot,
            slowest_connect_ms: self.slowest_connect_ms,
            name: self.name,
        })
    }

    /// Something happens: the observation, the alarm it becomes and its picture are journaled in one batch; then the uplink is woken.
    fn raise(&mut self, link: &Link, now: Timestamp) -> anyhow::Result<()> {
        let alarm = self.traffic.alarm();
        self.alarms += 1;
        let unique = u128::from(self.alarms) << 24 | self.index as u128;
        let alarm_id = Ulid::from_parts(u64::try_from(now.as_millisecond()).unwrap_or(0), unique).to_string();
        let picture =
            alarm.has_picture.then(|| EvidenceItem { alarm_id: alarm_id.clone(), n: 1, ..self.common.picture.clone() });
        let data = invent(&self.name, &alarm, &alarm_id, picture.as_ref(), now, self.common.clock.as_ref());
        let seen = Observation {
            device: data.device.clone(),
            sensed_at: now,
            clock: data.clock,
            origin: None,
            what: What::Door { open: true, repaired: false },
        };
        self.commit(|gateway, batch| {
            let mut items = Vec::new();
            if let Some(draft) = gateway.author.observed(now, &batch.position(), &seen) {
                items.push(append(&gateway.author, batch, draft, now)?);
            }
            if let Some(picture) = &picture {
                let body = serde_json::to_vec(picture).context("write down the picture")?;
                batch.attach(gengfu_outbox::Lane::Evidence, &picture.id(), now.as_millisecond(), &body)?;
                items.push((picture.id(), Lane::Evidence));
            }
            items.push(gateway.transition(batch, EventType::AlarmRaised, &data, now)?);
            Ok(items)
        })?;
        link.board.set(&self.topics.alarm(&alarm_id), Some(snapshot(self.outbox.head().sequence, &data)));
        link.wake.notify_one();
        self.open.push(OpenAlarm { ends_at: later(now, alarm.lasts), data });
        self.common.open.fetch_add(1, Ordering::Relaxed);
        self.common.tally(|tally| {
            tally.alarms += 1;
            tally.pictures += u64::from(picture.is_some());
        });
        Ok(())
    }

    fn end_alarms(&mut self, link: &Link, now: Timestamp) -> anyhow::Result<()> {
        while let Some(at) = self.open.iter().position(|alarm| alarm.ends_at <= now) {
            let mut data = self.open.swap_remove(at).data;
            data.condition = Condition::Normal;
            data.rev += 1;
            self.commit(|gateway, batch| Ok(vec![gateway.transition(batch, EventType::AlarmOver, &data, now)?]))?;
            link.board.set(&self.topics.alarm(&data.alarm_id), None);
            link.wake.notify_one();
            self.common.open.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn transition(
        &self,
        batch: &mut Batch<'_>,
        event_type: EventType,
        data: &AlarmData,
        now: Timestamp,
    ) -> anyhow::Result<(String, Lane)> {
        let transition = Transition { event_type, lane: data.kind.lane(), sensed_at: now, alarm: data.clone() };
        let draft = self.author.transition(now, &batch.position(), &transition);
        append(&self.author, batch, draft, now)
    }

    /// One batch, one sync; what it holds is waited for from then on.
    fn commit(
        &mut self,
        fill: impl FnOnce(&Self, &mut Batch<'_>) -> anyhow::Result<Vec<(String, Lane)>>,
    ) -> anyhow::Result<()> {
        let items = {
            let mut batch = self.outbox.batch();
            let items = fill(self, &mut batch)?;
            batch.commit().with_context(|| format!("the outbox of {}", self.name))?;
            items
        };
        let events = items.iter().filter(|(_, lane)| *lane != Lane::Evidence).count();
        self.common.tally(|tally| tally.events += events as u64);
        self.waiting.extend(items);
        self.show_pending();
        Ok(())
    }

    /// Asks the outbox which items have their receipt by now, and since when.
    fn account(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.waiting.len().min(ACCOUNT_ITEMS) {
            let Some((id, lane)) = self.waiting.pop_front() else { break };
            let record = self.outbox.trace(&id).with_context(|| format!("ask the outbox of {}", self.name))?;
            if record.as_ref().is_some_and(|record| record.outcome == Outcome::Pending) {
                self.waiting.push_back((id, lane));
                continue;
            }
            let sent = record.as_ref().map_or(1, |record| u64::from(record.attempts));
            let latency = record.and_then(|record| record.received_at_ms?.checked_sub(record.appended_at_ms));
            self.common.tally(|tally| {
                tally.sent += sent;
                tally.received += 1;
                match latency.and_then(|ms| u64::try_from(ms).ok()) {
                    Some(ms) => tally.lanes.entry(lane).or_default().add(ms),
                    None => tally.untimed += 1,
                }
            });
        }
        self.show_pending();
        Ok(())
    }

    fn show_pending(&mut self) {
        let pending = self.outbox.stats().lanes.iter().map(|lane| lane.pending).sum::<u64>();
        // Adding first: the sum of all never passes through zero while something is pending.
        self.common.pending.fetch_add(pending, Ordering::Relaxed);
        self.common.pending.fetch_sub(self.pending, Ordering::Relaxed);
        self.pending = pending;
    }
}

fn append(author: &Author, batch: &mut Batch<'_>, draft: Draft, now: Timestamp) -> anyhow::Result<(String, Lane)> {
    let (id, lane) = (draft.id.clone(), draft.lane);
    batch.append(outbox_lane(lane), &id, now.as_millisecond(), |place| author.journal(now, &place, draft))?;
    Ok((id, lane))
}

/// The outbox's name of a lane; both lists are in order of delivery.
fn outbox_lane(lane: Lane) -> gengfu_outbox::Lane {
    gengfu_outbox::Lane::ALL[lane as usize]
}

fn snapshot(sequence: u64, alarm: &AlarmData) -> Vec<u8> {
    let snapshot = AlarmSnapshot { sequence, alarm: alarm.clone() };
    serde_json::to_vec(&snapshot).expect("the contract's bodies have only string keys and finite numbers")
}

/// An alarm with everything a real one carries, written as it stands on the wire.
fn invent(
    gateway: &Slug,
    alarm: &Alarm,
    alarm_id: &str,
    picture: Option<&EvidenceItem>,
    now: Timestamp,
    clock: &dyn Clock,
) -> AlarmData {
    let Alarm { kind, lasts, .. } = alarm;
    let evidence: Vec<_> = picture
        .iter()
        .map(|picture| {
            json!({
                "n": picture.n, "sha256": picture.sha256, "bytes": picture.bytes, "media_type": "image/jpeg",
                "taken_at": now, "caption": "load"
            })
        })
        .collect();
    let text = json!({
        "zh": format!("压力测试：模拟报警，持续 {} ms", lasts.as_millis()),
        "en": format!("load mode: a simulated alarm that lasts {} ms", lasts.as_millis()),
    });
    let mut cap = json!(kind.cap());
    // Nobody is to be sent: CAP 1.2, status Test.
    cap["status"] = json!("Test");
    let alarm = json!({
        "alarm_id": alarm_id, "rev": 1, "kind": kind, "condition": Condition::ActiveUnack, "title": kind.title(), "cap": cap,
        "device": format!("sensor-{}", kind.as_str().replace('_', "-")),
        "location": {"division": "440402", "grid": "440402001001007", "text": format!("{gateway} 7号楼 Block 7")},
        "subject_ref": format!("home-{alarm_id}"), "confidence": 0.9,
        "explanation": {"rule": "load.simulated", "text": text, "inputs": {"lasts_ms": u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)}},
        "since": now, "decided_at": now, "clock": clock.quality(), "escalation": 0, "evidence": evidence,
    });
    serde_json::from_value(alarm).expect("a test reads an alarm of every kind")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use gengfu_contract::words::AlarmKind;

    #[test]
    fn an_invented_alarm_of_every_kind_is_one_of_the_contract_and_marked_as_a_test() {
        let picture = EvidenceItem { alarm_id: "A".into(), n: 1, sha256: "00".into(), path: "p".into(), bytes: 3 };
        for kind in AlarmKind::ALL {
            let alarm = Alarm { kind: *kind, lasts: Duration::from_secs(2), has_picture: true };
            let data = invent(&name("t", 1), &alarm, "A", Some(&picture), Timestamp::UNIX_EPOCH, &SystemClock);
            assert_eq!((data.kind, data.evidence.len()), (*kind, 1));
            assert_eq!(data.cap.status.as_str(), "Test");
        }
    }

    #[test]
    fn lanes_of_contract_and_outbox_have_the_same_names() {
        for lane in Lane::ALL {
            assert_eq!(outbox_lane(*lane).as_str(), lane.as_str());
        }
    }
}
