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
use jiff::Timestamp;
use metrics::{counter, gauge};
use tracing::{info, warn};

use super::backoff::{Backoff, Jitter, between};
use super::connection::{Connection, Lost, Message};
use super::delivery::Delivery;
use super::options::SessionOptions;
use super::session::{End, Session};
use super::status::{Latencies, LinkState, UplinkStatus};
use super::{UplinkConfig, UplinkParts};

/// Waits between attempts to connect.
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(200), ceiling: Duration::from_secs(10) };
/// A connection that lasted this long was a success; a shorter one counts as another failure.
const LASTING: Duration = Duration::from_secs(2);
/// Answers kept while there is no connection; above it the oldest go (the centre asks again).
const REPLIES_MAX: usize = 256;
/// Messages that are neither items nor postings and must always find a place: status, goodbye.
const SPARE_MESSAGES: usize = 8;
/// Largest command accepted from the broker.
const COMMAND_BYTES_MAX: u32 = 256 << 10;
/// The status is renewed at most this often when only figures change.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// A statement that everything is delivered goes out at most this often.
const STATEMENT_AT_REST_EVERY: Duration = Duration::from_secs(5);

/// What outlives a connection.
pub(super) struct Pump {
    pub(super) config: UplinkConfig,
    pub(super) parts: UplinkParts,
    pub(super) topics: Topics,
    pub(super) delivery: Delivery,
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
}

/// Runs the uplink until `parts.shutdown`. It needs a tokio runtime with time and network, spawns nothing, and returns after the broker
/// was told that the gateway is offline (or could not be told in time). Faults of network, broker and store are states, not ends.
///
/// # Errors
/// [`super::OpenError`] when an option is out of range or a certificate file is missing at the start. Later a missing file is a state.
pub async fn run(config: UplinkConfig, parts: UplinkParts) -> Result<(), super::OpenError> {
    let mut pump = Pump::new(config, parts);
    Connection::open(&pump.config.broker, &pump.session_options())?;
    let mut jitter = Jitter::new(pump.seed());
    let mut failures = 0_u32;
    while !pump.parts.shutdown.is_cancelled() {
        let began_at = pump.now();
        let lost = match pump.connect_and_pump().await {
            End::Shutdown => break,
            End::Lost(lost) => lost,
        };
        let now = pump.now();
        let lasted = pump.status.state != LinkState::Offline && between(began_at, now) >= LASTING;
        failures = if lasted { 1 } else { failures.saturating_add(1) };
        let wait = jitter.stretch(RECONNECT.wait(failures));
        warn!(reason = %lost.reason, remedy = %lost.remedy, wait_ms = wait.as_millis(), "the uplink is offline");
        pump.offline(&lost, now);
        pump.wait(wait).await;
    }
    let now = pump.now();
    pump.status.enter(LinkState::Stopped, now, None, None);
    pump.show_status(now);
    info!("the uplink has stopped");
    Ok(())
}

impl Pump {
    fn new(config: UplinkConfig, parts: UplinkParts) -> Self {
        let topics = Topics::new(&config.identity.site, &config.identity.gateway);
        let now = parts.clock.now();
        let seed = u64::try_from(now.as_nanosecond() & i128::from(i64::MAX)).unwrap_or(0);
        let delivery = Delivery::new(parts.outbox.clone(), topics.clone(), config.limits.clone(), seed);
        let status = UplinkStatus::starting(&config.broker, now);
        Self {
            config,
            parts,
            topics,
            delivery,
            replies: VecDeque::new(),
            replies_ended: false,
            latencies: Latencies::default(),
            status,
            store_fault: None,
            not_listening: None,
            status_shown_at: None,
            status_stale: false,
            stated: None,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
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

    async fn connect_and_pump(&mut self) -> End {
        let connection = match Connection::open(&self.config.broker, &self.session_options()) {
            Ok(connection) => connection,
            Err(fault) => return End::Lost(Lost::new(fault.to_string(), "the gateway tries again by itself")),
        };
        let mut session = Session::new(connection);
        let end = session.run(self).await;
        let now = self.now();
        // Answers on the wire may not have arrived; they go again, in their order.
        for reply in session.unsent_replies().into_iter().rev() {
            self.replies.push_front(reply);
        }
        self.delivery.lost(now);
        gauge!("gengfu_uplink_connected").set(0.0);
        end
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
        self.status.connects += 1;
        counter!("gengfu_uplink_connects_total").increment(1);
        gauge!("gengfu_uplink_connected").set(1.0);
        (self.not_listening, self.status.centre) = (None, None);
        self.parts.board.reconnected();
        self.stated = None;
        self.status.enter(LinkState::Online, now, None, None);
        self.refresh_status(now, true);
    }

    fn offline(&mut self, lost: &Lost, now: Timestamp) {
        self.status.count(self.delivery.figures());
        self.status.centre = None;
        self.status.enter(LinkState::Offline, now, Some(lost.reason.clone()), Some(lost.remedy.clone()));
        self.show_status(now);
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
        self.status.latency = self.latencies.figures();
        self.status.judge(now, self.store_fault.as_deref(), self.not_listening.as_deref());
        self.show_status(now);
    }

    /// When the status has to be renewed though nothing else happens.
    pub(super) fn status_deadline(&self) -> Option<Timestamp> {
        self.status_stale.then(|| super::backoff::later(self.status_shown_at.unwrap_or(Timestamp::MIN), STATUS_EVERY))
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
            at: now,
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
