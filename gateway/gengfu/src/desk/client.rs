//! The desk's connection: subscribe, take, store, receipt, acknowledge.
//!
//! Owns the order that makes a receipt true: the event is taken, journaled and synced (when there is a journal), the picture is on
//! disk; only then the receipt is published. It reconnects for ever. What it cannot store it does not receive, and the gateway
//! sends it again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gengfu_contract::command::{AlarmCommand, Receipt};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::{DispatchStatus, Presence};
use gengfu_contract::topic::{ROOT, Topics, dispatch_status, parse_up};
use gengfu_contract::words::Condition;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::journal::{Journal, JournalError, Line};
use super::model::{DeskEvent, DeskModel, Picture, Taken};
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
const ON_WIRE_MAX: usize = 64;
/// A message without PUBACK for this long: the connection is dead.
const PUBACK_WITHIN: Duration = Duration::from_secs(10);
/// Largest picture taken.
const INCOMING_BYTES_MAX: u32 = 16 << 20;
/// The broker keeps events for the desk this long while it is away. (The gateway would send them again anyway.)
const SESSION_EXPIRY: Duration = Duration::from_secs(3600);
/// How long the broker may take to see us go.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

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

/// What a person at the desk orders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// I have seen this alarm.
    Ack(AlarmOrder),
    /// End this latched alarm; its cause is gone.
    Reset(AlarmOrder),
}

/// About which alarm, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmOrder {
    /// Whose alarm.
    pub gateway: Slug,
    /// Which.
    pub alarm_id: String,
    /// Who orders it.
    pub operator: String,
}

impl Order {
    fn parts(&self) -> (&'static str, &AlarmOrder) {
        match self {
            Order::Ack(order) => ("ack", order),
            Order::Reset(order) => ("reset", order),
        }
    }
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
                desk.tell(DeskEvent::Disconnected { reason: lost.reason, remedy: lost.remedy });
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = desk.parts.shutdown.cancelled() => {}
                }
            }
        }
    }
    Ok(())
}

struct Desk {
    config: DeskConfig,
    parts: DeskParts,
    journal: Option<Journal>,
    receipts: Receipts,
    /// Orders the timers will give.
    planned: BTreeSet<(Timestamp, Order)>,
    started_ms: i64,
    commands: u64,
    connects: u64,
    untold: u64,
    orders_ended: bool,
}

impl Desk {
    fn new(config: DeskConfig, parts: DeskParts) -> Result<Self, DeskError> {
        std::fs::create_dir_all(&config.evidence_dir)
            .map_err(|source| DeskError::Folder { path: config.evidence_dir.clone(), source })?;
        let model = parts.model.clone();
        let journal = match &config.journal {
            None => None,
            Some(path) => {
                let mut model = lock(&model);
                let site = config.site.clone();
                let replay = |line: Line| {
                    let topic = Topics::new(&site, &line.gateway).event();
                    let body = serde_json::to_vec(&line.event).unwrap_or_default();
                    model.take(&topic, &body, line.received_at);
                };
                let (journal, unread) = Journal::open(path, replay)?;
                if unread > 0 {
                    warn!(unread, path = %path.display(), "the end of the desk's journal was torn; it was not received for");
                }
                Some(journal)
            }
        };
        let started_ms = parts.clock.now().as_millisecond();
        Ok(Self {
            config,
            parts,
            journal,
            receipts: Receipts::default(),
            planned: BTreeSet::new(),
            started_ms,
            commands: 0,
            connects: 0,
            untold: 0,
            orders_ended: false,
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

    fn presence(&self, state: Presence) -> Message {
        let status = DispatchStatus { state, at: self.parts.clock.now() };
        Message { retain: true, ..json(dispatch_status(&self.config.site), &status) }
    }

    /// Everything gateways publish; not our own commands.
    fn subscriptions(&self) -> Vec<Subscription> {
        ["status", "event", "statement", "alarm/+", "device/+", "evidence/+/+", "reply/+"]
            .map(|below| Subscription { filter: format!("{ROOT}/{}/+/{below}", self.config.site), not_own: false })
            .to_vec()
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
            let planned = self.planned.first().map(|(at, _)| *at);
            let due = [self.receipts.deadline(), planned].into_iter().flatten().filter(|_| online);
            let deadline = due.chain(ledger.deadline(PUBACK_WITHIN));
            // A full wire is not emptied by waiting for the clock.
            let wait = deadline.min().map(|at| between(now, at).max(Duration::from_millis(1)));
            tokio::select! {
                signal = connection.next() => self.handle(&mut connection, &mut ledger, signal?).await?,
                order = self.parts.orders.recv(), if !self.orders_ended => match order {
                    Some(order) => { self.planned.insert((now, order)); }
                    None => self.orders_ended = true,
                },
                () = async { tokio::time::sleep(wait.unwrap_or_default()).await }, if wait.is_some() => {}
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
                if !ledger.published(packet_id, now) {
                    return Err(Lost::new("packet ids do not fit", "the desk connects anew"));
                }
            }
            Signal::Acked { packet_id, refusal } => {
                ledger.acked(packet_id);
                if let Some(reason) = refusal {
                    let reason = format!("the broker refused a command ({reason}); allow this user to write cmd/#");
                    self.tell(DeskEvent::Fault { place: "publish".into(), reason });
                }
            }
            Signal::Message(arrived) => {
                let taken = self.model().take(&arrived.topic, &arrived.payload, now);
                self.store(&arrived.topic, taken, &arrived.payload, now).await;
            }
            Signal::Disconnected | Signal::Other => {}
        }
        Ok(())
    }

    /// Stores what came; then, and only then, a receipt is owed.
    async fn store(&mut self, topic: &str, taken: Taken, body: &[u8], now: Timestamp) {
        let Taken { events, receipt, journal, picture } = taken;
        if let (Some(file), Some(event), Some((gateway, _))) =
            (&mut self.journal, journal, parse_up(&self.config.site, topic))
        {
            file.append(&Line { gateway, received_at: now, event });
        }
        for event in events {
            self.plan(&event, now);
            self.tell(event);
        }
        if let Some(picture) = picture {
            match self.write(&picture, body).await {
                Ok(path) => {
                    let event = self.model().picture_written(picture, path);
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
        if let Some(receipt) = receipt {
            self.receipts.add(receipt, now);
        }
    }

    async fn write(&self, picture: &Picture, body: &[u8]) -> std::io::Result<String> {
        use tokio::io::AsyncWriteExt;
        let path = self.config.evidence_dir.join(picture.file_name());
        let unfinished = path.with_extension("part");
        let mut file = tokio::fs::File::create(&unfinished).await?;
        file.write_all(body).await?;
        file.sync_all().await?;
        tokio::fs::rename(&unfinished, &path).await?;
        Ok(path.display().to_string())
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
            && !self.planned.iter().any(|(_, known)| *known == order)
        {
            self.planned.insert((at, order));
        }
    }

    fn send_due(&mut self, connection: &Connection, ledger: &mut Ledger<()>, now: Timestamp) -> Result<(), Lost> {
        if ledger.outstanding() >= ON_WIRE_MAX {
            return Ok(());
        }
        self.send_receipts(connection, ledger, now)?;
        while let Some((_, order)) = self.planned.first().filter(|(at, _)| *at <= now).cloned() {
            if ledger.outstanding() >= ON_WIRE_MAX {
                break;
            }
            self.planned.pop_first();
            if self.still_wanted(&order) {
                self.send_order(connection, ledger, &order, now)?;
            }
        }
        Ok(())
    }

    fn send_receipts(&mut self, connection: &Connection, ledger: &mut Ledger<()>, now: Timestamp) -> Result<(), Lost> {
        if self.receipts.deadline().is_none_or(|at| now < at) {
            return Ok(());
        }
        if let Some(Err(fault)) = self.journal.as_mut().map(Journal::sync) {
            let place = self.config.journal.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
            self.tell(DeskEvent::Fault {
                place,
                reason: format!("{fault}; nothing is received until the disk takes it"),
            });
            // The events are not ours yet. The gateway sends them again.
            self.receipts = Receipts::default();
            return Ok(());
        }
        for (gateway, ids) in self.receipts.take(now) {
            let count = ids.len();
            let message = self.command(&gateway, "receipt", &Receipt { ids, received_at: now });
            self.publish(connection, ledger, message, now)?;
            self.model().receipts_sent(count);
            let about = format!("{count} ids");
            self.tell(DeskEvent::Sent { gateway, verb: "receipt".into(), about });
        }
        Ok(())
    }

    fn send_order(
        &mut self,
        connection: &Connection,
        ledger: &mut Ledger<()>,
        order: &Order,
        now: Timestamp,
    ) -> Result<(), Lost> {
        let (verb, AlarmOrder { gateway, alarm_id, operator }) = order.parts();
        let body = AlarmCommand {
            alarm_id: alarm_id.clone(),
            operator: operator.clone(),
            issued_at: now,
            expires_at: Some(later(now, Duration::from_secs(3600))),
        };
        let message = self.command(gateway, verb, &body);
        self.publish(connection, ledger, message, now)?;
        self.tell(DeskEvent::Sent { gateway: gateway.clone(), verb: verb.to_owned(), about: alarm_id.clone() });
        Ok(())
    }

    /// The alarm is still in the condition the order is about.
    fn still_wanted(&self, order: &Order) -> bool {
        let (_, about) = order.parts();
        let model = self.model();
        let alarm = model.gateways().get(&about.gateway).and_then(|view| view.alarms.get(&about.alarm_id));
        // What a person orders about an alarm this desk does not know is the gateway's to judge.
        let Some(alarm) = alarm else { return true };
        match order {
            Order::Ack(_) => {
                matches!(alarm.alarm.condition, Condition::ActiveUnack | Condition::ClearedUnack | Condition::Unknown)
            }
            Order::Reset(_) => alarm.alarm.condition.is_open(),
        }
    }

    fn command(&mut self, gateway: &Slug, verb: &str, body: &impl serde::Serialize) -> Message {
        self.commands += 1;
        let cmd_id = format!("{}-{:x}-{}", self.config.name, self.started_ms, self.commands);
        let topics = Topics::new(&self.config.site, gateway);
        let response_topic = (verb != "receipt").then(|| topics.reply(&cmd_id));
        Message { response_topic, ..json(topics.command(verb, &cmd_id), body) }
    }

    fn publish(
        &self,
        connection: &Connection,
        ledger: &mut Ledger<()>,
        message: Message,
        now: Timestamp,
    ) -> Result<(), Lost> {
        connection.publish(message).map_err(no_place)?;
        ledger.handed((), now);
        Ok(())
    }

    /// Says that we go, and goes.
    async fn goodbye(&mut self, connection: &mut Connection, ledger: &mut Ledger<()>) {
        let now = self.parts.clock.now();
        let farewell = self.presence(Presence::Offline);
        let leave = async {
            // What is owed and stored may still be said.
            self.send_receipts(connection, ledger, later(now, GOODBYE_WITHIN))?;
            self.publish(connection, ledger, farewell, now)?;
            while ledger.outstanding() > 0 {
                match connection.next().await? {
                    Signal::Published(packet_id) => {
                        let _known = ledger.published(packet_id, now);
                    }
                    Signal::Acked { packet_id, .. } => {
                        ledger.acked(packet_id);
                    }
                    _ => {}
                }
            }
            connection.disconnect().map_err(no_place)?;
            while connection.next().await? != Signal::Disconnected {}
            Ok::<(), Lost>(())
        };
        if !matches!(tokio::time::timeout(GOODBYE_WITHIN, leave).await, Ok(Ok(()))) {
            debug!("the broker did not see the desk go; it publishes the desk's will, which says the same");
        }
    }

    fn tell(&mut self, event: DeskEvent) {
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

    fn model(&self) -> MutexGuard<'_, DeskModel> {
        lock(&self.parts.model)
    }
}

fn lock(model: &Mutex<DeskModel>) -> MutexGuard<'_, DeskModel> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json(topic: String, body: &impl serde::Serialize) -> Message {
    let payload = serde_json::to_vec(body).expect("the contract's bodies have only string keys and finite numbers");
    Message { topic, payload, content_type: Some("application/json"), ..Message::default() }
}

fn no_place(_: crate::uplink::connection::NotTaken) -> Lost {
    Lost::new("the MQTT client takes no more messages", "the desk connects anew")
}
