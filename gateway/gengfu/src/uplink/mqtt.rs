//! The uplink's task: connect, pump, connect again, until shutdown.
//!
//! Owns what outlives a connection: deliveries, commands, answers not yet sent, the status. It refuses to give up: whatever goes wrong
//! becomes a state with a remedy and another try.

use std::collections::VecDeque;
use std::time::Duration;

use gengfu_contract::command::Reply;
use gengfu_contract::state::{GatewayStatus, Presence, Statement};
use gengfu_contract::topic::Topics;
use gengfu_contract::words::Lane;
use gengfu_contract::{CONTRACT_VERSION, chain};
use gengfu_outbox::OutboxError;
use jiff::Timestamp;
use metrics::{counter, gauge};
use tracing::{info, warn};

use crate::config::Protocol;

use super::advice::{Advice, Cause, text};
use super::backoff::{Backoff, Jitter, between};
use super::brokers::{Address, Brokers, Switch};
use super::connection::{Connection, Lost, Message, Refusal, Signal};
use super::delivery::{Delivered, Delivery};
use super::holds::Holds;
use super::latency::Latencies;
use super::missing::{Missing, Readable, Receipts};
use super::options::{BrokerConfig, SessionOptions};
use super::patience::Patience;
use super::respond::Wishes;
use super::session::{End, Session, Suspect, puback_patience};
use super::sizes::Sizes;
use super::status::{Known, LinkState, UplinkStatus};
use super::{UplinkConfig, UplinkParts};

/// Waits between attempts to connect.
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(200), ceiling: Duration::from_secs(10) };
/// After a message that was refused by ending the connection: it is known which one, and not sent again.
const RECONNECT_AFTER_REFUSAL: Duration = Duration::from_millis(400);
/// So many failures in a row still lead to another broker without a growing pause.
const SWITCHES_AT_ONCE: u32 = 12;
/// A connection that lasted this long was a success; a shorter one counts as another failure.
const LASTING: Duration = Duration::from_secs(2);
/// Answers kept while there is no connection; above it the oldest go (the centre asks again).
const REPLIES_MAX: usize = 256;
/// Messages that are neither items nor postings and must always find a place: status, goodbye.
const SPARE_MESSAGES: usize = 8;
/// Largest command accepted from the broker: a configuration of the largest size fits, in base64.
const COMMAND_BYTES_MAX: u32 = 1 << 20;
/// The status is renewed at most this often when only figures change.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// While receipts are missing, the status is renewed this often.
const MISSING_EVERY: Duration = Duration::from_secs(1);
/// A statement that everything is delivered goes out at most this often.
const STATEMENT_AT_REST_EVERY: Duration = Duration::from_secs(5);

/// What outlives a connection.
pub(super) struct Pump {
    pub(super) config: UplinkConfig,
    pub(super) parts: UplinkParts,
    pub(super) topics: Topics,
    pub(super) delivery: Delivery,
    pub(super) wishes: Wishes,
    pub(super) brokers: Brokers,
    pub(super) holds: Holds,
    /// What is known about the receipts of this connection.
    pub(super) receipts: Receipts,
    /// What the broker refuses now besides items, and where; until something is taken there.
    pub(super) refused: Option<(String, Refusal)>,
    /// Why items are held, where the broker told.
    pub(super) item_refused: Option<(String, Refusal)>,
    /// What is missing, as of the last look at the figures.
    pub(super) missing: Missing,
    /// Whether this broker lets us read our own events.
    pub(super) readable: Readable,
    /// How long this broker's PUBACKs are waited for.
    pub(super) puback: Patience,
    /// What this broker refused as too large.
    pub(super) sizes: Sizes,
    /// The broker accepted the connection under way.
    accepted: bool,
    /// Answers to send.
    pub(super) replies: VecDeque<Reply>,
    /// The core has hung up; no more answers will come.
    pub(super) replies_ended: bool,
    pub(super) latencies: Latencies,
    pub(super) status: UplinkStatus,
    pub(super) store_fault: Option<String>,
    pub(super) not_listening: Option<String>,
    status_shown_at: Option<Timestamp>,
    status_stale: bool,
    stated: Option<(Timestamp, u64)>,
    /// Statements made in this run.
    statements: u64,
}

/// Runs the uplink until `parts.shutdown`. It needs a tokio runtime with time and network, spawns nothing, and returns after the broker
/// was told that the gateway is offline (or could not be told in time). Faults of network, broker and store are states, not ends.
///
/// # Errors
/// [`super::OpenError`] when an option is out of range. A missing or faulty certificate is a state: it may be mended while the gateway runs, and
/// what sounds on site must not wait for it.
pub async fn run(config: UplinkConfig, parts: UplinkParts) -> Result<(), super::OpenError> {
    let mut pump = Pump::new(config, parts);
    match Connection::open(&pump.broker(pump.brokers.current()), &pump.session_options()) {
        Ok(_) | Err(super::OpenError::Tls(_)) => {}
        Err(fault) => return Err(fault),
    }
    let mut attempts = Attempts::new(&pump);
    while !pump.parts.shutdown.is_cancelled() {
        match attempts.one(&mut pump).await {
            Next::Stop => break,
            Next::AtOnce => {}
            Next::After(wait) => pump.wait(wait).await,
        }
    }
    let now = pump.now();
    pump.status.enter(LinkState::Stopped, now, None);
    pump.show_status(now);
    info!("the uplink has stopped");
    Ok(())
}

/// What comes after a connection.
pub(super) enum Next {
    /// Nothing: shutdown.
    Stop,
    /// Another connection.
    AtOnce,
    /// Another connection after this pause.
    After(Duration),
}

/// One connection after the other, and the account of those that failed.
pub(super) struct Attempts {
    jitter: Jitter,
    failures: u32,
    proven: Option<(Connection, Signal)>,
}

impl Attempts {
    pub(super) fn new(pump: &Pump) -> Self {
        Self { jitter: Jitter::new(pump.seed()), failures: 0, proven: None }
    }

    /// One connection from its beginning to its end.
    pub(super) async fn one(&mut self, pump: &mut Pump) -> Next {
        let began_at = pump.now();
        let lost = match pump.connect_and_pump(self.proven.take()).await {
            End::Shutdown => return Next::Stop,
            End::Lost(lost) => lost,
            End::WithoutReceipts(switch) => {
                pump.switched(&switch);
                return Next::AtOnce;
            }
            End::Return(connection, connected) => {
                let now = pump.now();
                pump.brokers.returned(now).iter().for_each(|switch| pump.switched(switch));
                self.proven = Some((*connection, connected));
                return Next::AtOnce;
            }
        };
        let now = pump.now();
        let lasted = pump.status.state != LinkState::Offline && between(began_at, now) >= LASTING;
        self.failures = if lasted { 1 } else { self.failures.saturating_add(1) };
        if lost.cause == Cause::CertificateRenewed {
            // Nobody's failure: the same broker, at once.
            info!("the uplink connects anew with the renewed certificate");
            pump.offline(&lost, now);
            return Next::AtOnce;
        }
        let switch = pump.brokers.failed(lost.cause == Cause::NoPuback, now);
        // Another broker is tried at once, but not for ever: when all are away the pauses grow.
        let is_quick = switch.is_some() && self.failures < SWITCHES_AT_ONCE;
        let wait = if is_quick { RECONNECT.base } else { RECONNECT.wait(self.failures) };
        let wait = if lost.refused.is_some() { wait.min(RECONNECT_AFTER_REFUSAL) } else { wait };
        let wait = self.jitter.stretch(wait);
        warn!(reason = %lost.reason, remedy = %lost.remedy, wait_ms = wait.as_millis(), "the uplink is offline");
        pump.offline(&lost, now);
        switch.iter().for_each(|switch| pump.switched(switch));
        Next::After(wait)
    }
}

impl Pump {
    pub(super) fn new(config: UplinkConfig, parts: UplinkParts) -> Self {
        let topics = Topics::new(&config.identity.site, &config.identity.gateway);
        let now = parts.clock.now();
        let seed = u64::try_from(now.as_nanosecond() & i128::from(i64::MAX)).unwrap_or(0);
        let delivery = Delivery::new(parts.outbox.clone(), topics.clone(), config.limits.clone(), seed);
        let preferred = Address { host: config.broker.host.clone(), port: config.broker.port };
        let brokers = Brokers::new(preferred, &config.other_brokers, config.switch, now);
        let mut status = UplinkStatus::starting(&config.broker, now);
        status.brokers = brokers.status();
        Self {
            config,
            parts,
            topics,
            delivery,
            wishes: Wishes::default(),
            brokers,
            holds: Holds::default(),
            receipts: Receipts::default(),
            refused: None,
            item_refused: None,
            missing: Missing::default(),
            readable: Readable::default(),
            puback: Patience::default(),
            sizes: Sizes::default(),
            accepted: false,
            replies: VecDeque::new(),
            replies_ended: false,
            latencies: Latencies::default(),
            status,
            store_fault: None,
            not_listening: None,
            status_shown_at: None,
            status_stale: false,
            stated: None,
            statements: 0,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// Now, on a clock that nobody sets: for what is measured within one run. Its date means nothing.
    pub(super) fn steady(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH.saturating_add(self.parts.clock.uptime()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// How to reach a broker of the list: all else is the same for each.
    pub(super) fn broker(&self, address: &Address) -> BrokerConfig {
        BrokerConfig { host: address.host.clone(), port: address.port, ..self.config.broker.clone() }
    }

    /// Differs between gateways, and between starts of one.
    fn seed(&self) -> u64 {
        let name = self.config.broker.client_id.bytes();
        let start = u64::try_from(self.now().as_millisecond()).unwrap_or(0);
        name.fold(start, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte))
    }

    pub(super) fn session_options(&self) -> SessionOptions {
        let window = self.config.limits.window;
        SessionOptions {
            session_expiry: self.config.session_expiry,
            will: Some(self.presence(Presence::Offline)),
            // Packet ids come round after this many; far above the window, so that an id still in use is never met.
            on_wire_max: u16::try_from(window.saturating_mul(8).clamp(1024, 16_384)).unwrap_or(1024),
            channel_messages: window + 2 * super::session::SMALL_MAX + SPARE_MESSAGES,
            incoming_bytes_max: COMMAND_BYTES_MAX,
        }
    }

    /// The gateway's status message.
    pub(super) fn presence(&self, state: Presence) -> Message {
        let status = GatewayStatus {
            state,
            boot: self.config.identity.boot,
            version: self.config.identity.version.clone(),
            contract: CONTRACT_VERSION.to_owned(),
            clock: self.parts.clock.quality(),
            at: self.now(),
            problems: Vec::new(),
        };
        self.json(self.topics.status(), &status, true)
    }

    pub(super) fn json(&self, topic: String, body: &impl serde::Serialize, retain: bool) -> Message {
        let payload = serde_json::to_vec(body).expect("the contract's bodies have only string keys and finite numbers");
        Message { topic, payload, retain, content_type: Some("application/json"), ..Message::default() }
    }

    /// One connection, the `proven` one if there is one, from greeting to end.
    async fn connect_and_pump(&mut self, proven: Option<(Connection, Signal)>) -> End {
        self.accepted = false;
        let mut session = match proven {
            Some((connection, connected)) => Session::proven(connection, connected),
            None => match Connection::open(&self.broker(self.brokers.current()), &self.session_options()) {
                Ok(connection) => Session::new(connection),
                Err(fault) => return End::Lost(Lost::of(Cause::OwnSettings, &fault.to_string())),
            },
        };
        let end = session.run(self).await;
        let now = self.now();
        // Answers on the wire may not have arrived; they go again, in their order.
        for reply in session.unsent_replies().into_iter().rev() {
            self.replies.push_front(reply);
        }
        match &end {
            End::Lost(lost) if lost.refused.is_none() && lost.cause != Cause::CertificateRenewed => {
                self.sizes.forget();
                self.suspect(&session, lost, now);
            }
            // Left in order, or it is known why.
            _ => self.delivery.left(now),
        }
        gauge!("gengfu_uplink_connected").set(0.0);
        end
    }

    /// A connection was lost, and it may be for one of the messages on it.
    fn suspect(&mut self, session: &Session, lost: &Lost, now: Timestamp) {
        match session.hung_up_after(lost, now) {
            Some(Suspect::Item(key)) => self.delivery.lost_after_puback(key, now),
            Some(Suspect::Topic(topic)) => self.holds.lost(&topic, now),
            None => {}
        }
        session.unsent_topics(&self.topics).iter().for_each(|topic| self.holds.lost(topic, now));
        if lost.cause.is_refusal() {
            // An MQTT 5 broker that hangs up on a message says why; which one it was, the account of losses finds out.
            let refusal = Refusal { cause: lost.cause, text: lost.reason.clone() };
            self.item_refused = Some((self.topics.event(), refusal));
        }
        self.delivery.lost(now);
    }

    /// Waits before the next attempt, taking in answers meanwhile so that the core never waits.
    async fn wait(&mut self, wait: Duration) {
        let sleep = tokio::time::sleep(wait);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return,
                () = self.parts.shutdown.cancelled() => return,
                reply = self.parts.replies.recv(), if !self.replies_ended => self.take_reply(reply),
            }
        }
    }

    /// An answer of the core.
    pub(super) fn take_reply(&mut self, reply: Option<Reply>) {
        let Some(reply) = reply else {
            self.replies_ended = true;
            return;
        };
        self.queue_reply(reply);
    }

    pub(super) fn queue_reply(&mut self, reply: Reply) {
        if self.replies.len() >= REPLIES_MAX
            && let Some(dropped) = self.replies.pop_front()
        {
            warn!(cmd_id = %dropped.cmd_id, "too many answers wait for the connection; the oldest is dropped");
        }
        self.replies.push_back(reply);
    }

    pub(super) fn online(&mut self, now: Timestamp) {
        self.accepted = true;
        self.status.connects += 1;
        counter!("gengfu_uplink_connects_total").increment(1);
        gauge!("gengfu_uplink_connected").set(1.0);
        (self.not_listening, self.status.centre, self.refused) = (None, None, None);
        self.status.listening = false;
        self.receipts = Receipts::connected(self.config.broker.protocol == Protocol::Mqtt5, now);
        self.parts.board.reconnected();
        self.stated = None;
        self.status.enter(LinkState::Online, now, None);
        self.refresh_status(now, true);
    }

    fn offline(&mut self, lost: &Lost, now: Timestamp) {
        self.status.count(self.delivery.figures());
        self.status.centre = None;
        self.status.listening = false;
        let abrupt = matches!(lost.cause, Cause::BrokerUnreachable | Cause::BrokerEnded);
        // It let us in, and ends connection after connection: not the network's fault.
        let hung_up = self.accepted && abrupt && self.status.held > 0;
        let hung_up = hung_up.then(|| {
            let detail = format!("{}: {} item(s); {}", self.topics.event(), self.status.held, lost.reason);
            Lost::of(Cause::BrokerHangsUp, &detail)
        });
        let lost = hung_up.as_ref().unwrap_or(lost);
        let zh = |of: fn(&(String, String)) -> &String, en: &String| {
            lost.zh.as_ref().map_or_else(|| en.clone(), |zh| of(zh).clone())
        };
        let problem = text(zh(|zh| &zh.0, &lost.reason), lost.reason.clone());
        let remedy = text(zh(|zh| &zh.1, &lost.remedy), lost.remedy.clone());
        self.status.enter(LinkState::Offline, now, Some(Advice { cause: lost.cause, problem, remedy }));
        self.show_status(now);
    }

    /// Another broker is used from now on.
    fn switched(&mut self, switch: &Switch) {
        warn!(from = %switch.from, to = %switch.to, why = %switch.why.text().en, "the uplink changes to another broker");
        counter!("gengfu_uplink_switches_total").increment(1);
        self.status.broker.clone_from(&switch.to);
        self.status.broker_since = switch.at;
        self.status.switched = Some(switch.clone());
        (self.readable, self.puback, self.sizes) = (Readable::default(), Patience::default(), Sizes::default());
        self.status.brokers = self.brokers.status();
        // Until it answers, all that is known is that this one is tried. Why there is no connection stays told, if that is the reason.
        self.status.centre = None;
        if self.status.state != LinkState::Offline {
            self.status.enter(LinkState::Connecting, switch.at, None);
        }
        self.show_status(switch.at);
    }

    /// Enters the centre's receipt for these ids.
    pub(super) fn received(&mut self, ids: &[String], now: Timestamp) -> Result<Vec<Delivered>, OutboxError> {
        self.delivery.clocks(now, self.parts.clock.uptime());
        self.delivery.received(ids, now)
    }

    /// The centre's receipt came.
    pub(super) fn receipt_came(&mut self, delivered: &[Delivered], now: Timestamp) {
        self.status.last_receipt_at = Some(now);
        let sequences: Vec<u64> = delivered.iter().filter_map(|delivered| delivered.sequence).collect();
        self.receipts.receipt(&sequences, &mut self.readable, now);
        self.brokers.receipt();
        // It answers, whatever its presence says.
        self.status.centre = self.status.centre.map(|_| Presence::Online);
    }

    /// Goes to another broker when this one leads to no receipts.
    pub(super) fn without_receipts(&mut self, now: Timestamp) -> Option<Switch> {
        if self.status.overdue == 0 || self.status.state != LinkState::NoReceipts {
            return None;
        }
        self.brokers.without_receipts(self.receipts.silent_for(now), now)
    }

    /// Nothing is under way or waits: a good moment to change brokers.
    pub(super) fn is_quiet(&self) -> bool {
        self.delivery.is_idle() && self.replies.is_empty() && self.parts.outbox.waiting().iter().all(|n| *n == 0)
    }

    /// Renews the status if it is due, or at once when something important happened.
    pub(super) fn refresh_status(&mut self, now: Timestamp, at_once: bool) {
        let due = self.status_shown_at.is_none_or(|at| now < at || between(at, now) >= STATUS_EVERY);
        if !due && !at_once {
            self.status_stale = true;
            return;
        }
        let figures = self.delivery.figures();
        self.status.count(figures);
        let (overdue, overtaken, unheard) = (figures.overdue, figures.overtaken, figures.nobody_subscribed);
        self.missing = Missing { overdue, overtaken, unheard };
        if figures.held == 0 {
            self.item_refused = None;
        }
        self.status.latency = self.latencies.figures();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (urgent, usual) = puback_patience(self);
        self.status.puback_ms = self.puback.smoothed().map(ms);
        self.status.puback_patience_ms = Some((ms(urgent), ms(usual)));
        let event_topic = self.topics.event();
        let known = Known {
            store_fault: self.store_fault.as_deref(),
            not_listening: self.not_listening.as_deref(),
            item_refused: self.item_refused.as_ref().map(|(topic, refusal)| (topic.as_str(), refusal)),
            refused: self.refused.as_ref().map(|(topic, refusal)| (topic.as_str(), refusal)),
            nobody_subscribed: figures.nobody_subscribed,
            why_no_receipts: self.receipts.cause(self.status.centre, self.missing, self.readable, now),
            away_from_preferred: self.brokers.last_switch().filter(|_| !self.brokers.is_preferred()),
            event_topic: &event_topic,
        };
        self.status.judge(now, &known);
        self.show_status(now);
    }

    /// When the status has to be renewed though nothing else happens.
    pub(super) fn status_deadline(&self) -> Option<Timestamp> {
        let stale = self.status_stale;
        // While receipts are missing, why and whether another broker is due may change with time alone.
        let every = if stale { Some(STATUS_EVERY) } else { (self.status.overdue > 0).then_some(MISSING_EVERY) };
        every.map(|every| super::backoff::later(self.status_shown_at.unwrap_or(Timestamp::MIN), every))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of items are far below 2^52")]
    fn show_status(&mut self, now: Timestamp) {
        gauge!("gengfu_uplink_in_flight").set(self.status.in_flight as f64);
        gauge!("gengfu_uplink_awaiting_receipt").set(self.status.awaiting_receipt as f64);
        gauge!("gengfu_uplink_overdue_life_safety").set(self.status.overdue_life_safety as f64);
        self.status_shown_at = Some(now);
        self.status_stale = false;
        let status = self.status.clone();
        self.parts.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
    }

    /// Puts the statement on the board when it is due: regularly, and soon after everything was delivered.
    pub(super) fn state_what_was_sent(&mut self, now: Timestamp) {
        let due = match self.stated {
            None => true,
            Some((at, _)) if now < at || between(at, now) >= self.config.statement_every => true,
            Some((at, sequence)) => {
                between(at, now) >= STATEMENT_AT_REST_EVERY
                    && sequence != self.parts.outbox.head().sequence
                    && self.delivery.is_idle()
            }
        };
        if !due {
            return;
        }
        let stats = self.parts.outbox.stats();
        self.stated = Some((now, stats.head.sequence));
        self.statements += 1;
        let per_lane = |of: &dyn Fn(&gengfu_outbox::LaneStats) -> u64| {
            Lane::ALL.iter().zip(&stats.lanes).map(|(lane, l)| (*lane, of(l))).filter(|(_, n)| *n > 0).collect()
        };
        let oldest = stats.lanes.iter().filter_map(|l| l.oldest_appended_at_ms).min();
        let statement = Statement {
            sequence: stats.head.sequence,
            head: hex::encode(if stats.head.sequence == 0 { chain::GENESIS } else { stats.head.hash }),
            pending: per_lane(&|l| l.pending),
            oldest_pending_at: oldest.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            dropped: per_lane(&|l| l.dropped),
            abandoned: per_lane(&|l| l.abandoned),
            at: now,
            boot: Some(self.config.identity.boot),
            number: Some(self.statements),
        };
        let message = self.json(self.topics.statement(), &statement, true);
        self.parts.board.set(&message.topic, Some(message.payload));
    }

    /// When the next statement may be due.
    pub(super) fn statement_deadline(&self) -> Option<Timestamp> {
        let (at, sequence) = self.stated?;
        let at_rest = sequence == self.parts.outbox.head().sequence;
        let wait = if at_rest { self.config.statement_every } else { STATEMENT_AT_REST_EVERY };
        let due_at = super::backoff::later(at, wait);
        // Not at rest and overdue: the next receipt decides, not the clock.
        let regular = super::backoff::later(at, self.config.statement_every);
        Some(if due_at <= self.now() { regular } else { due_at })
    }
}
