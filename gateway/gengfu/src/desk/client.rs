//! The desk's connection: subscribe, take, store, receipt, order.
//!
//! Owns the order that makes a receipt true: the event is taken, journaled and synced (when there is a journal), the picture is on
//! disk; only then the receipt is published. It reconnects for ever. What it cannot store it does not receive, and the gateway
//! sends it again. What goes out is in [`super::outgoing`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use gengfu_contract::slug::Slug;
use gengfu_contract::state::{DispatchStatus, Presence};
use gengfu_contract::topic::{ROOT, dispatch_status};
use gengfu_contract::words::Condition;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::evidence;
use super::journal::{FILE_BYTES, Journal, JournalError, Record, What};
use super::model::{DeskEvent, DeskModel, Taken};
pub use super::orders::{AlarmOrder, Order};
use super::outgoing::{json, no_place};
use super::receipts::Receipts;
use crate::clock::Clock;
use crate::uplink::backoff::{Backoff, Jitter, between, later};
use crate::uplink::connection::{Connection, Lost, Message, Signal, Subscription};
use crate::uplink::ledger::Ledger;
use crate::uplink::options::SessionOptions;
use crate::uplink::{BrokerConfig, OpenError};

/// Waits between attempts to connect.
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(200), ceiling: Duration::from_secs(5) };
/// Messages on the wire; above it receipts gather.
pub(super) const ON_WIRE_MAX: usize = 64;
/// A message without PUBACK for this long: the connection is dead.
const PUBACK_WITHIN: Duration = Duration::from_secs(10);
/// Largest picture taken.
const INCOMING_BYTES_MAX: u32 = 16 << 20;
/// The broker keeps events for the desk this long while it is away. (The gateway would send them again anyway.)
const SESSION_EXPIRY: Duration = Duration::from_secs(3600);
/// What has already arrived is taken before anything is sent, up to so many messages: one sync then stands for all of them.
const BURST_MAX: usize = 256;
/// How often it is looked what time alone changes.
const TICK: Duration = Duration::from_secs(1);
/// Orders that wait for their time.
pub(super) const PLANNED_MAX: usize = 4096;

/// Settings of the desk.
#[derive(Debug, Clone)]
pub struct DeskConfig {
    /// Which broker, and as whom.
    pub broker: BrokerConfig,
    /// The site it serves.
    pub site: Slug,
    /// Its name; part of its command ids and of the operator's name in automatic acknowledgements.
    pub name: Slug,
    /// Acknowledge every alarm after this long, as a person would. Off: only on orders.
    pub auto_ack_after: Option<Duration>,
    /// Reset an alarm that is clear and acknowledged but latched after this long. Off: only on orders.
    pub auto_reset_after: Option<Duration>,
    /// Where pictures are written.
    pub evidence_dir: PathBuf,
    /// Keep every event in this file before receiving it.
    pub journal: Option<PathBuf>,
    /// Set the journal's file aside when it is larger, in bytes.
    pub journal_file_bytes: u64,
    /// Share events and pictures with other desks of this group (MQTT shared subscription). Each then has only a part of the proof.
    pub share: Option<Slug>,
    /// Do not send receipts until a person orders it. For trials of what a gateway does without them.
    pub holds_receipts: bool,
}

impl DeskConfig {
    /// A desk that receives by itself, acknowledges on orders only, writes pictures here and keeps no journal.
    #[must_use]
    pub fn new(broker: BrokerConfig, site: Slug, name: Slug, evidence_dir: PathBuf) -> Self {
        Self {
            broker,
            site,
            name,
            auto_ack_after: None,
            auto_reset_after: None,
            evidence_dir,
            journal: None,
            journal_file_bytes: FILE_BYTES,
            share: None,
            holds_receipts: false,
        }
    }
}

/// What the desk is joined to.
pub struct DeskParts {
    /// What it knows; shared with whoever shows or checks it.
    pub model: Arc<Mutex<DeskModel>>,
    /// What happens, to show. When it is full lines are dropped and counted, the model has everything.
    pub events: mpsc::Sender<DeskEvent>,
    /// What people order.
    pub orders: mpsc::Receiver<Order>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ends [`run`].
    pub shutdown: CancellationToken,
}

/// Why the desk cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// An option or certificate.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its folder for pictures.
    #[error("cannot create {path} for pictures: {source}; choose another folder")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Runs the desk until shutdown.
///
/// # Errors
/// [`DeskError`] when it cannot begin. Once it runs, faults are events, and it goes on.
pub async fn run(config: DeskConfig, parts: DeskParts) -> Result<(), DeskError> {
    let mut desk = Desk::new(config, parts)?;
    Connection::open(&desk.config.broker, &desk.session_options())?;
    let mut jitter = Jitter::new(desk.started_ms.unsigned_abs());
    let mut failures = 0;
    while !desk.parts.shutdown.is_cancelled() {
        let connects = desk.connects;
        match desk.connection().await {
            Ok(()) => break,
            Err(lost) => {
                failures = if desk.connects > connects { 1 } else { failures + 1 };
                let wait = jitter.stretch(RECONNECT.wait(failures));
                debug!(reason = %lost.reason, wait_ms = wait.as_millis(), "the desk is offline");
                desk.model().connection(None);
                desk.tell(DeskEvent::Disconnected { reason: lost.reason, remedy: lost.remedy });
                desk.tick();
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = desk.parts.shutdown.cancelled() => {}
                }
            }
        }
    }
    desk.sync_journal();
    Ok(())
}

pub(super) struct Desk {
    pub(super) config: DeskConfig,
    pub(super) parts: DeskParts,
    pub(super) journal: Option<Journal>,
    pub(super) receipts: Receipts,
    /// Orders the timers and people gave, in the order of their time.
    pub(super) planned: BTreeMap<(Timestamp, u64), Order>,
    pub(super) plans: u64,
    pub(super) started_ms: i64,
    pub(super) commands: u64,
    connects: u64,
    untold: u64,
    orders_ended: bool,
    tick_at: Timestamp,
}

impl Desk {
    fn new(config: DeskConfig, parts: DeskParts) -> Result<Self, DeskError> {
        std::fs::create_dir_all(&config.evidence_dir)
            .map_err(|source| DeskError::Folder { path: config.evidence_dir.clone(), source })?;
        let model = parts.model.clone();
        if config.share.is_some() {
            lock(&model).share();
        }
        let journal = match &config.journal {
            None => None,
            Some(path) => {
                let mut model = lock(&model);
                let (journal, unread) = Journal::open(path, config.journal_file_bytes, |record| model.restore(record))?;
                if unread > 0 {
                    warn!(unread, path = %path.display(), "the end of the desk's journal was torn; it was not received for");
                }
                Some(journal)
            }
        };
        let now = parts.clock.now();
        let mut receipts = Receipts::default();
        receipts.hold(config.holds_receipts);
        Ok(Self {
            config,
            parts,
            journal,
            receipts,
            planned: BTreeMap::new(),
            plans: 0,
            started_ms: now.as_millisecond(),
            commands: 0,
            connects: 0,
            untold: 0,
            orders_ended: false,
            tick_at: now,
        })
    }

    fn session_options(&self) -> SessionOptions {
        SessionOptions {
            session_expiry: SESSION_EXPIRY,
            will: Some(self.presence(Presence::Offline)),
            on_wire_max: 1024,
            channel_messages: ON_WIRE_MAX + 8,
            incoming_bytes_max: INCOMING_BYTES_MAX,
        }
    }

    pub(super) fn presence(&self, state: Presence) -> Message {
        let status = DispatchStatus { state, at: self.parts.clock.now() };
        Message { retain: true, ..json(dispatch_status(&self.config.site), &status) }
    }

    /// Everything gateways publish; not our own commands. What only one desk needs is shared, but for pictures in parts, which only
    /// a desk that gets all of them can put together.
    fn subscriptions(&self) -> Vec<Subscription> {
        let shared = ["event", "evidence/+/+"];
        let every = ["status", "statement", "alarm/+", "device/+", "evidence/+/+/+/+", "reply/+"];
        let share = self.config.share.as_ref().map(|group| format!("$share/{group}/")).unwrap_or_default();
        let filter = |share: &str, below: &str| format!("{share}{ROOT}/{}/+/{below}", self.config.site);
        let shared = shared.into_iter().map(|below| filter(&share, below));
        let every = every.into_iter().map(|below| filter("", below));
        shared.chain(every).map(|filter| Subscription { filter, not_own: false, at_most_once: false }).collect()
    }

    /// One connection, until it is lost or shutdown.
    async fn connection(&mut self) -> Result<(), Lost> {
        let mut connection = Connection::open(&self.config.broker, &self.session_options())
            .map_err(|fault| Lost::new(fault.to_string(), "the desk tries again by itself"))?;
        let mut ledger = Ledger::default();
        let connects = self.connects;
        loop {
            let now = self.parts.clock.now();
            if ledger.deadline(PUBACK_WITHIN).is_some_and(|due| due <= now) {
                return Err(Lost::new("no PUBACK in time", "check the network and the broker"));
            }
            // Before the broker's answer nothing can go: receipts and orders wait, and so do their deadlines.
            let online = self.connects > connects;
            if online {
                self.send_due(&connection, &mut ledger, now)?;
            }
            if self.tick_at <= now {
                self.tick();
            }
            let planned = self.planned.first_key_value().map(|((at, _), _)| *at);
            let due = [self.receipts.deadline(), planned].into_iter().flatten().filter(|_| online);
            let deadline = due.chain(ledger.deadline(PUBACK_WITHIN)).fold(self.tick_at, Timestamp::min);
            // A full wire is not emptied by waiting for the clock.
            let wait = between(now, deadline).max(Duration::from_millis(1));
            tokio::select! {
                signal = connection.next() => {
                    self.handle(&mut connection, &mut ledger, signal?).await?;
                    for _ in 1..BURST_MAX {
                        let Some(signal) = connection.next().now_or_never() else { break };
                        self.handle(&mut connection, &mut ledger, signal?).await?;
                    }
                },
                order = self.parts.orders.recv(), if !self.orders_ended => match order {
                    Some(order) => self.order(order, now),
                    None => self.orders_ended = true,
                },
                () = tokio::time::sleep(wait) => {}
                () = self.parts.shutdown.cancelled() => {
                    self.goodbye(&mut connection, &mut ledger).await;
                    return Ok(());
                }
            }
        }
    }

    async fn handle(
        &mut self,
        connection: &mut Connection,
        ledger: &mut Ledger<()>,
        signal: Signal,
    ) -> Result<(), Lost> {
        let now = self.parts.clock.now();
        match signal {
            Signal::Connected { session_present, .. } => {
                self.connects += 1;
                let broker = format!("{}:{}", self.config.broker.host, self.config.broker.port);
                info!(%broker, session_present, "the desk is online");
                self.model().connection(Some(now));
                connection.subscribe(&self.subscriptions()).map_err(no_place)?;
                self.publish(connection, ledger, self.presence(Presence::Online), now)?;
                self.tell(DeskEvent::Connected { broker });
            }
            Signal::Subscribed(refusals) => {
                if let Some(reason) = refusals.into_iter().flatten().next() {
                    let place = format!("{ROOT}/{}/#", self.config.site);
                    let reason =
                        format!("the broker refuses a subscription ({reason}); allow this user to read the site");
                    self.tell(DeskEvent::Fault { place, reason });
                }
            }
            Signal::Published(packet_id) => {
                if ledger.published(packet_id, now).is_none() {
                    return Err(Lost::new("packet ids do not fit", "the desk connects anew"));
                }
            }
            Signal::Acked { packet_id, refusal, .. } => {
                ledger.acked(packet_id);
                if let Some(reason) = refusal {
                    let reason =
                        format!("the broker refused a command ({}); allow this user to write cmd/#", reason.text);
                    self.tell(DeskEvent::Fault { place: "publish".into(), reason });
                }
            }
            Signal::Message(arrived) => {
                let taken = self.model().take_message(&arrived.topic, &arrived.payload, arrived.retained, now);
                self.store(&arrived.topic, taken, now).await;
            }
            Signal::RefusedOldest(_) | Signal::Disconnected | Signal::Other => {}
        }
        Ok(())
    }

    /// Stores what came; then, and only then, a receipt is owed.
    async fn store(&mut self, topic: &str, taken: Taken, now: Timestamp) {
        let Taken { events, receipts, journal, picture } = taken;
        journal.into_iter().for_each(|record| self.append(&record));
        for event in events {
            self.plan(&event, now);
            self.tell(event);
        }
        if let Some(picture) = picture {
            match evidence::write(&self.config.evidence_dir, &picture).await {
                Ok(path) => {
                    let (alarm_id, n, sha256) = (picture.alarm_id.clone(), picture.n, picture.sha256.clone());
                    let bytes = picture.bytes.len() as u64;
                    let what = What::Picture { alarm_id, n, sha256, bytes, path: path.clone() };
                    self.append(&Record { gateway: picture.gateway.clone(), received_at: now, what });
                    let event = self.model().picture_written(&picture, path);
                    self.tell(event);
                }
                Err(fault) => {
                    let reason =
                        format!("the picture cannot be written: {fault}; check {}", self.config.evidence_dir.display());
                    self.tell(DeskEvent::Fault { place: topic.to_owned(), reason });
                    return;
                }
            }
        }
        receipts.into_iter().for_each(|receipt| self.receipts.add(receipt, now));
    }

    fn append(&mut self, record: &Record) {
        if let Some(journal) = &mut self.journal {
            journal.append(record);
        }
    }

    /// Writes what is due to the journal; false when the disk refuses.
    pub(super) fn sync_journal(&mut self) -> bool {
        let Some(journal) = &mut self.journal else { return true };
        let mut synced = journal.sync();
        if synced.is_ok() && journal.is_full() {
            let model = lock(&self.parts.model);
            let what = What::Checkpoint(Box::new(model.checkpoint()));
            drop(model);
            let received_at = self.parts.clock.now();
            synced = journal.rotate(&Record { gateway: self.config.site.clone(), received_at, what });
        }
        let Err(fault) = synced else { return true };
        let place = self.config.journal.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let reason = format!("{fault}; nothing is received until the disk takes it: make room, or check the disk");
        self.tell(DeskEvent::Fault { place, reason });
        false
    }

    /// What time alone changes.
    fn tick(&mut self) {
        let now = self.parts.clock.now();
        self.tick_at = later(now, TICK);
        let told = self.model().tick(now);
        told.into_iter().for_each(|event| self.tell(event));
        self.sync_journal();
    }

    /// Plans what a person would do about an alarm.
    fn plan(&mut self, event: &DeskEvent, now: Timestamp) {
        let DeskEvent::Alarm { gateway, alarm, .. } = event else { return };
        let operator = format!("auto-{}", self.config.name);
        let order = AlarmOrder { gateway: gateway.clone(), alarm_id: alarm.alarm_id.clone(), operator };
        let planned = match alarm.condition {
            Condition::ActiveUnack | Condition::ClearedUnack => {
                self.config.auto_ack_after.map(|after| (later(now, after), Order::Ack(order)))
            }
            Condition::ClearedLatched => {
                self.config.auto_reset_after.map(|after| (later(now, after), Order::Reset(order)))
            }
            Condition::ActiveAck | Condition::Normal | Condition::Unknown => None,
        };
        // The earliest plan for an alarm stands.
        if let Some((at, order)) = planned
            && !self.planned.values().any(|known| *known == order)
        {
            self.order(order, at);
        }
    }

    pub(super) fn tell(&mut self, event: DeskEvent) {
        if self.untold > 0 {
            let reason = format!("{} lines were not shown, the reader was too slow", self.untold);
            if self.parts.events.try_send(DeskEvent::Fault { place: "desk".into(), reason }).is_ok() {
                self.untold = 0;
            }
        }
        if self.parts.events.try_send(event).is_err() && !self.parts.events.is_closed() {
            self.untold += 1;
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, DeskModel> {
        lock(&self.parts.model)
    }
}

fn lock(model: &Mutex<DeskModel>) -> MutexGuard<'_, DeskModel> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}
