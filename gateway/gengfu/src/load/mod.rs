//! Load mode: many simulated gateways in one process, to measure a broker and a centre.
//!
//! Owns the run: a desk (the reference centre) on the same broker, gateways with the real uplink and delivery over real outboxes, seeded alarms at a total rate,
//! power cuts of the whole city, and the judgement at the end: does the desk have every event of every gateway, chained, and every gateway every
//! receipt. It is beside `app` and `demo` a place that starts tasks. It refuses to simulate what it measures: broker, network, client library, uplink
//! and desk are the real ones; only sensors and rules are invented. Alarms are marked CAP `Test`.

mod gateway;
mod order;
mod tally;
mod traffic;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;
use gengfu_contract::topic::Topics;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::desk::{self, DeskConfig, DeskError, DeskEvent, DeskModel, DeskParts};
use crate::uplink::backoff::{between, later};
use crate::uplink::connection::{Connection, Message, Signal};
use crate::uplink::options::SessionOptions;
use crate::uplink::{BrokerConfig, EvidenceItem};

use gateway::{Common, Ended, Gateway};
use order::Order;
use tally::Tally;
pub use tally::{Figures, GatewayFault, Report};

/// Lines of the desk that wait to be judged for order.
const DESK_LINES: usize = 16_384;
/// How long the desk may take to connect before a run is given up.
const DESK_WITHIN: Duration = Duration::from_secs(60);
/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A gateway at rest states its last sequence within 5 s; the desk waits a little longer for it.
const STATED_WITHIN: Duration = Duration::from_secs(15);
/// Faults told at most.
const FAULTS_TOLD: usize = 50;
/// Retained topics emptied at one time at the end.
const EMPTYING_MAX: usize = 256;

/// What is to be simulated.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The broker (or its nodes); the client id is replaced by each gateway's own.
    pub broker: BrokerConfig,
    /// The site; all gateways belong to it. It should be one that nobody works with.
    pub site: Slug,
    /// How many gateways.
    pub gateways: usize,
    /// Alarms a second, all gateways together. Every alarm is three events: the observation, raised, over.
    pub rate: f64,
    /// How long alarms come.
    pub lasts: Duration,
    /// Decides which alarms come where and when, and every jitter of a power cut.
    pub seed: u64,
    /// Of 100 alarms of a camera, so many have a picture.
    pub pictures_percent: u32,
    /// Size of a picture.
    pub picture_bytes: usize,
    /// The power of all gateways fails this often.
    pub cut_every: Option<Duration>,
    /// Gateways start, and come back after a power cut, spread over this.
    pub jitter: Duration,
    /// After the last alarm, how long receipts are waited for.
    pub settle_within: Duration,
    /// Outboxes, the desk's journal and pictures; should be empty.
    pub folder: PathBuf,
}

impl LoadPlan {
    /// The broker as gateway number `index` sees it.
    fn broker_of(&self, _index: usize, name: &str) -> BrokerConfig {
        BrokerConfig { client_id: format!("gengfu-{}-{name}", self.site), ..self.broker.clone() }
    }
}

/// Runs a load until its time is over or `stop`, then waits for what is under way, judges and cleans up. `tell` is given a line of progress
/// every 10 s. It needs a multi-threaded tokio runtime.
///
/// # Errors
/// When the folder cannot be used, the broker is not there at the start, or an outbox fails.
pub async fn run(
    plan: LoadPlan,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    mut tell: impl FnMut(String),
) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&plan.folder).with_context(|| format!("create {}", plan.folder.display()))?;
    let picture = make_picture(&plan.folder, plan.picture_bytes)?;
    // Another run's retained messages and queued events must not be taken for this one's.
    let tag = format!("{:x}", clock.now().as_second());
    let mut centre = Centre::start(&plan, &tag, clock.clone())?;
    centre.connected().await?;
    let common = Arc::new(Common {
        plan,
        clock: clock.clone(),
        tally: Mutex::new(Tally::default()),
        pending: AtomicU64::new(0),
        open: AtomicU64::new(0),
        online: AtomicU64::new(0),
        picture,
    });
    let (quiet, end) = (CancellationToken::new(), CancellationToken::new());
    let (cut, cuts) = watch::channel(0_u64);
    let mut lives = JoinSet::new();
    for index in 1..=common.plan.gateways {
        let gateway = Gateway::new(common.clone(), &tag, index)?;
        lives.spawn(gateway.live(cuts.clone(), quiet.clone(), end.clone()));
    }
    let began_at = clock.now();
    let watched = watch_over(&common, &cut, &stop, &mut lives, &mut tell).await;
    quiet.cancel();
    let quiet_at = clock.now();
    watched?;
    tell("no more alarms; waiting for the receipts of what is under way".to_owned());
    settle(&common, &mut lives).await?;
    let settled_after_ms = u64::try_from(between(quiet_at, clock.now()).as_millis()).unwrap_or(u64::MAX);
    centre.has_statements(&common, &tag).await;
    end.cancel();
    let mut ended = Vec::new();
    while let Some(life) = lives.join_next().await {
        ended.push(life.context("a gateway panicked")??);
    }
    let mut report = judge(&common, &ended, &centre, between(began_at, quiet_at), settled_after_ms);
    report.storms = *cut.borrow();
    centre.stop().await?;
    if let Err(reason) = empty_retained(&common.plan, &tag, clock.as_ref()).await {
        tell(format!("retained messages of this run may be left at the broker: {reason:#}"));
    }
    Ok(report)
}

/// The reference desk and what it tells.
struct Centre {
    model: Arc<Mutex<DeskModel>>,
    order: Arc<Mutex<Order>>,
    online: watch::Receiver<Option<Result<(), String>>>,
    shutdown: CancellationToken,
    desk: JoinHandle<Result<(), DeskError>>,
}

impl Centre {
    fn start(plan: &LoadPlan, tag: &str, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let model = Arc::new(Mutex::new(DeskModel::new(plan.site.clone())));
        let order = Arc::new(Mutex::new(Order::default()));
        let shutdown = CancellationToken::new();
        let (told, mut lines) = mpsc::channel(DESK_LINES);
        let (_, orders) = mpsc::channel(1);
        let (say_online, online) = watch::channel(None);
        let config = DeskConfig {
            broker: BrokerConfig { client_id: format!("gengfu-{}-load-desk-{tag}", plan.site), ..plan.broker.clone() },
            site: plan.site.clone(),
            name: Slug::new(format!("load-desk-{tag}")).context("name the desk")?,
            auto_ack_after: None,
            auto_reset_after: None,
            evidence_dir: plan.folder.join("pictures"),
            journal: Some(plan.folder.join("desk.jsonl")),
        };
        let parts = DeskParts { model: model.clone(), events: told, orders, clock, shutdown: shutdown.clone() };
        let desk = tokio::spawn(desk::run(config, parts));
        let judged = order.clone();
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                match &line {
                    DeskEvent::Connected { .. } => drop(say_online.send(Some(Ok(())))),
                    DeskEvent::Disconnected { reason, remedy } => {
                        drop(say_online.send(Some(Err(format!("{reason}; {remedy}")))));
                    }
                    line => lock(&judged).take(line),
                }
            }
        });
        Ok(Self { model, order, online, shutdown, desk })
    }

    /// Waits until the desk listens: a broker that is not there is told at once, not after the run.
    async fn connected(&mut self) -> anyhow::Result<()> {
        let is_online = async { self.online.wait_for(|state| matches!(state, Some(Ok(())))).await.is_ok() };
        if tokio::time::timeout(DESK_WITHIN, is_online).await == Ok(true) {
            return Ok(());
        }
        let last = self.online.borrow().clone().and_then(Result::err);
        anyhow::bail!(
            "the desk has no connection: {}",
            last.unwrap_or_else(|| "the broker does not answer; check --broker".into())
        )
    }

    /// Waits until every gateway's statement has come; one that has not is judged by its outbox all the same.
    async fn has_statements(&self, common: &Common, tag: &str) {
        let until = later(common.clock.now(), STATED_WITHIN);
        let all_stated = || {
            let model = lock(&self.model);
            (1..=common.plan.gateways).all(|index| {
                model.proof(&gateway::name(tag, index)).is_some_and(|proof| Some(proof.stated) == proof.last)
            })
        };
        while common.clock.now() < until && !all_stated() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.desk.await.context("the desk panicked")?.context("the desk")
    }
}

/// Lets the alarms come: power cuts, progress, and an early end.
async fn watch_over(
    common: &Arc<Common>,
    cut: &watch::Sender<u64>,
    stop: &CancellationToken,
    lives: &mut JoinSet<anyhow::Result<Ended>>,
    tell: &mut impl FnMut(String),
) -> anyhow::Result<()> {
    let began_at = common.clock.now();
    let ends_at = later(began_at, common.plan.lasts);
    let mut tell_at = later(began_at, TELL_EVERY);
    let mut cut_at = common.plan.cut_every.map(|every| later(began_at, every));
    loop {
        let now = common.clock.now();
        if now >= ends_at || stop.is_cancelled() {
            return Ok(());
        }
        if let (Some(at), Some(every)) = (cut_at, common.plan.cut_every)
            && at <= now
        {
            cut.send_modify(|cuts| *cuts += 1);
            cut_at = Some(later(at, every));
        }
        if tell_at <= now {
            tell(progress(common, between(began_at, now)));
            tell_at = later(tell_at, TELL_EVERY);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
            // None leaves before the end but by a fault.
            Some(life) = lives.join_next() => { life.context("a gateway panicked")??; }
        }
    }
}

fn progress(common: &Common, passed: Duration) -> String {
    let all = common.tally(|tally| (tally.alarms, tally.events, tally.received, tally.all().figures()));
    let (alarms, events, received, latency) = all;
    format!(
        "{:>5} s  online {}/{}  alarms {alarms}  events {events}  received {received}  pending {}  p50 {} ms  p99 {} ms  max {} ms",
        passed.as_secs(),
        common.online.load(Ordering::Relaxed),
        common.plan.gateways,
        common.pending.load(Ordering::Relaxed),
        latency.p50_ms,
        latency.p99_ms,
        latency.max_ms,
    )
}

/// Waits until all alarms are over and every item has its receipt, at most as long as the plan says.
async fn settle(common: &Arc<Common>, lives: &mut JoinSet<anyhow::Result<Ended>>) -> anyhow::Result<()> {
    let until = later(common.clock.now(), common.plan.settle_within);
    let is_settled =
        || common.open.load(Ordering::Relaxed) == 0 && common.pending.load(Ordering::Relaxed) == 0;
    while common.clock.now() < until && !is_settled() {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(life) = lives.join_next() => { life.context("a gateway panicked")??; }
        }
    }
    Ok(())
}

fn judge(common: &Common, ended: &[Ended], centre: &Centre, lasted: Duration, settled_after_ms: u64) -> Report {
    let model = lock(&centre.model);
    let mut faults: Vec<GatewayFault> = ended
        .iter()
        .flat_map(|end| {
            let gateway = end.name.clone();
            faults_of(end, &model).into_iter().map(move |fault| GatewayFault { gateway: gateway.clone(), fault })
        })
        .collect();
    let ours = |name: &Slug| ended.iter().any(|end| end.name == *name);
    let others = model.gateways().iter().filter(|(name, view)| !ours(name) && view.sequences.proof().first.is_some());
    let others = others.map(|(name, view)| (name.clone(), view.sequences.proof())).collect();
    let duplicates = model.gateways().values().map(|view| view.sequences.proof().duplicates).sum();
    let order = lock(&centre.order);
    let complete = faults.is_empty();
    faults.truncate(FAULTS_TOLD);
    common.tally(|tally| Report {
        complete,
        seed: common.plan.seed,
        gateways: common.plan.gateways,
        seconds: lasted.as_secs(),
        settled_after_ms,
        alarms: tally.alarms,
        events: tally.events,
        pictures: tally.pictures,
        sent: tally.sent,
        received: tally.received,
        untimed: tally.untimed,
        pending: ended.iter().map(|end| end.pending).sum(),
        connects: ended.iter().map(|end| end.connects).sum(),
        boots: ended.iter().map(|end| end.boots).sum(),
        storms: 0,
        slowest_connect_ms: ended.iter().map(|end| end.slowest_connect_ms).max().unwrap_or_default(),
        latency: tally.all().figures(),
        latency_life_safety: tally.life_safety().figures(),
        lanes: tally.lanes.iter().map(|(lane, of)| (*lane, of.figures())).collect(),
        duplicates,
        out_of_order: order.out_of_order,
        malformed: model.malformed().0,
        unjudged: order.unjudged,
        faults,
        others,
        memory_peak_kib: memory_peak_kib(),
    })
}

fn faults_of(end: &Ended, model: &DeskModel) -> Vec<String> {
    let mut faults = Vec::new();
    if end.pending > 0 {
        faults.push(format!("{} items without a receipt", end.pending));
    }
    if end.dropped > 0 {
        faults.push(format!("{} items dropped at a lane's bound", end.dropped));
    }
    match model.proof(&end.name) {
        None => faults.push(format!("the desk has nothing of its {} events", end.sequence)),
        Some(proof) => {
            let is_whole = proof.holds()
                && (proof.first, proof.last) == (Some(1), Some(end.sequence))
                && (proof.received, proof.chain_links) == (end.sequence, end.sequence);
            if !is_whole {
                faults.push(format!("journaled 1…{}, the desk: {proof}", end.sequence));
            }
        }
    }
    faults
}

/// A file that stands for every picture: its bytes are of no picture, only of its size.
fn make_picture(folder: &Path, bytes: usize) -> anyhow::Result<EvidenceItem> {
    let path = folder.join("picture.jpg");
    // Not compressible, as a JPEG is not.
    let mut body = Vec::with_capacity(bytes + 32);
    let mut block = Sha256::digest(b"picture");
    while body.len() < bytes {
        body.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    body.truncate(bytes);
    std::fs::write(&path, &body).with_context(|| format!("write {}", path.display()))?;
    Ok(EvidenceItem {
        alarm_id: String::new(),
        n: 1,
        sha256: hex::encode(Sha256::digest(&body)),
        path,
        bytes: body.len() as u64,
    })
}

/// Empties what this run's gateways left at the broker for later subscribers.
async fn empty_retained(plan: &LoadPlan, tag: &str, clock: &dyn Clock) -> anyhow::Result<()> {
    let names = (1..=plan.gateways).map(|index| gateway::name(tag, index));
    let topics: Vec<String> = names
        .flat_map(|name| {
            let topics = Topics::new(&plan.site, &name);
            [topics.status(), topics.statement()]
        })
        .collect();
    let session = SessionOptions {
        session_expiry: Duration::ZERO,
        will: None,
        on_wire_max: 1024,
        channel_messages: EMPTYING_MAX,
        incoming_bytes_max: 1 << 16,
    };
    let broker = BrokerConfig { client_id: format!("gengfu-{}-load-end-{tag}", plan.site), ..plan.broker.clone() };
    let mut connection = Connection::open(&broker, &session)?;
    let until = later(clock.now(), DESK_WITHIN);
    let left = |now: Timestamp| between(now, until);
    for some in topics.chunks(EMPTYING_MAX / 2) {
        for topic in some {
            let message = Message { topic: topic.clone(), retain: true, ..Message::default() };
            connection.publish(message).context("hand over")?;
        }
        let mut acked = 0;
        while acked < some.len() {
            let signal = tokio::time::timeout(left(clock.now()), connection.next()).await.context("no PUBACK in time")??;
            acked += usize::from(matches!(signal, Signal::Acked { .. }));
        }
    }
    connection.disconnect().context("say goodbye")?;
    while tokio::time::timeout(left(clock.now()), connection.next()).await.context("no goodbye")?? != Signal::Disconnected {}
    Ok(())
}

/// The kernel's high-water mark of this process's memory (proc(5), `VmHWM`); 0 where there is none.
fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or_default()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
