//! One connection's life: greet, pump, say goodbye.
//!
//! Owns the order of what is published: life safety first, then answers to commands, then the board, then everything else. It never
//! awaits anything but the next event: publishing takes a place in a bounded channel whose size it respects, a picture is
//! read beside the loop. (A receipt is entered in the outbox in the loop: that waits at most for a commit under way, during which nothing new
//! can be there to send.) What it held when it ends is given back by whoever owns it. What an answer of the broker means is
//! [`answers`]', the watch over our own topics is [`watch`]'s.

mod answers;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use gengfu_contract::command::{Outcome, Reply, VERBS};
use gengfu_contract::state::{DispatchStatus, Presence};
use gengfu_outbox::ItemKey;
use jiff::Timestamp;
use metrics::counter;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, info, warn};

use super::advice::Cause;
use super::backoff::{between, later};
use super::brokers::Switch;
use super::commands::{self, Verdict};
use super::connection::{Arrived, Connection, Lost, Message, NotTaken, Refusal, Signal, Subscription};
use super::copies::{EvidenceFault, EvidenceItem};
use super::delivery::{Body, Publication};
use super::ledger::Ledger;
use super::mqtt::Pump;
use super::parts::Parts;
use crate::config::Protocol;

/// Postings of the board, and answers to commands, that may each be on the wire at one time.
pub(super) const SMALL_MAX: usize = 16;
/// Room for a packet's head beside topic and body.
const HEAD_BYTES: usize = 256;
/// A broker that hangs up on what it has just acknowledged does so at once.
const HANGS_UP_WITHIN: Duration = Duration::from_secs(1);
/// What the numbers of a part add to its picture's topic.
const PART_TOPIC_BYTES: usize = 24;
/// After a fault of the store the next try comes after this.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// An answer that nobody fetched is of no use after this (MQTT 5).
const REPLY_EXPIRY: Duration = Duration::from_secs(3600);
/// A copy of a telemetry event that nobody fetched: the outbox has it, and sends it again.
const TELEMETRY_EXPIRY: Duration = Duration::from_secs(86_400);
/// Signals handled before it is looked what may go: what is already here is taken in one go.
const SIGNALS_AT_ONCE: usize = 64;
/// How long a broker may take to see our DISCONNECT.
const DISCONNECT_WITHIN: Duration = Duration::from_millis(500);

/// Why a session ended.
pub(super) enum End {
    Shutdown,
    Lost(Lost),
    /// Left in order, for a broker that may lead to receipts.
    WithoutReceipts(Switch),
    /// Left in order: the preferred broker has answered on this connection.
    Return(Box<Connection>, Signal),
}

/// What the broker acknowledged last before it hung up.
#[derive(Debug, Clone)]
pub(super) enum Suspect {
    Item(ItemKey),
    Topic(String),
}

/// Why the pump ended, short of a loss.
enum Leave {
    Shutdown,
    WithoutReceipts(Switch),
    Return(Signal),
}

/// A life-safety item without PUBACK for this long: the connection is made anew. Two of these and a reconnect are within the 10 s of
/// GB 26875.1.
const LIFE_SAFETY_PUBACK: Duration = Duration::from_secs(3);
/// With a broker that has been slow a PUBACK is waited for longer, so many times [`super::UplinkConfig::puback_timeout`] at most: one that never
/// comes must be found out within a minute (EN 50136: a lost path is reported within 90 s).
const PUBACK_MOST: u32 = 6;
/// The same for life safety. To connect anew brings nothing while a broker is slow; on site it sounds after 10 s whatever is waited for here.
const LIFE_SAFETY_PUBACK_MOST: u32 = 2;
/// A picture for a broker that refused something as too large goes in parts of this fraction of that.
const PARTS_BELOW: usize = 2;

/// A message on the wire.
struct Sent {
    ticket: Ticket,
    /// Its size, with its topic and what a head takes at most.
    bytes: usize,
}

/// What a message on the wire stands for.
enum Ticket {
    Item(ItemKey),
    /// A part of the picture under way.
    Part(ItemKey),
    Posting {
        topic: String,
        generation: u64,
    },
    Reply(Reply),
    /// An answer's copy for a response topic.
    Copy(String),
    Presence,
}

type Loading = Pin<Box<dyn Future<Output = (Publication, Result<Vec<u8>, EvidenceFault>)> + Send>>;

pub(super) struct Session {
    connection: Connection,
    /// The broker's CONNACK, when it came before this session began.
    connected: Option<Signal>,
    /// A connection to the preferred broker, while it is looked at from another one.
    probe: Option<Connection>,
    /// What the broker acknowledged last, and when.
    acked_last: Option<(Timestamp, Suspect)>,
    /// It is still to be said that we are here.
    presence_due: bool,
    /// The answer to the first subscription has come.
    subscribed: bool,
    /// Own retained topics are read until then.
    own_until: Option<Timestamp>,
    /// Postings, and answers, that may each be on the wire at one time: little, where the broker allows little.
    small_max: usize,
    ledger: Ledger<Sent>,
    postings: usize,
    replies: usize,
    packet_bytes_max: usize,
    loading: Option<Loading>,
    /// A picture that goes in parts.
    parts: Option<(Parts, EvidenceItem)>,
    /// Steady time: with the wall clock set back by an hour nothing would be sent for that hour.
    store_retry_at: Option<Timestamp>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            connected: None,
            probe: None,
            acked_last: None,
            presence_due: true,
            subscribed: false,
            own_until: None,
            small_max: SMALL_MAX,
            ledger: Ledger::default(),
            postings: 0,
            replies: 0,
            packet_bytes_max: usize::MAX,
            loading: None,
            parts: None,
            store_retry_at: None,
        }
    }

    /// On a connection that the broker has already accepted.
    pub(super) fn proven(connection: Connection, connected: Signal) -> Self {
        Self { connected: Some(connected), ..Self::new(connection) }
    }

    pub(super) async fn run(&mut self, pump: &mut Pump) -> End {
        match self.greet(pump).await {
            Ok(true) => {}
            Ok(false) => return End::Shutdown,
            Err(lost) => return End::Lost(lost),
        }
        let leave = match self.pump(pump).await {
            Ok(leave) => leave,
            Err(lost) => return End::Lost(lost),
        };
        self.goodbye(pump).await;
        match (leave, self.probe.take()) {
            (Leave::WithoutReceipts(switch), _) => End::WithoutReceipts(switch),
            (Leave::Return(connected), Some(probe)) => End::Return(Box::new(probe), connected),
            (Leave::Return(_), None) | (Leave::Shutdown, _) => End::Shutdown,
        }
    }

    /// Waits for the broker's answer, then subscribes and says that we are here. False at shutdown.
    async fn greet(&mut self, pump: &mut Pump) -> Result<bool, Lost> {
        let signal = loop {
            if let Some(connected) = self.connected.take() {
                break connected;
            }
            tokio::select! {
                biased;
                signal = self.connection.next() => break signal?,
                () = pump.parts.shutdown.cancelled() => return Ok(false),
                reply = pump.parts.replies.recv(), if !pump.replies_ended => pump.take_reply(reply),
            }
        };
        let Signal::Connected { session_present, receive_max, packet_bytes_max } = signal else {
            let detail = format!("{signal:?} where a CONNACK was due; check what listens on that port");
            return Err(Lost::of(Cause::BrokerUnreachable, &detail));
        };
        let now = pump.now();
        info!(broker = %pump.status.broker, protocol = %pump.status.protocol, session_present, "the uplink is online");
        let packet_bytes_max = packet_bytes_max.or(pump.config.packet_bytes_max);
        self.packet_bytes_max = packet_bytes_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        // A fire must not stand behind sixteen postings on a broker that takes one message at a time.
        self.small_max = receive_max.map_or(SMALL_MAX, |max| SMALL_MAX.min(usize::from(max / 4).max(1)));
        pump.delivery.connected(receive_max);
        pump.delivery.spare_suspects(now);
        pump.online(now);
        // Retained state repairs itself with the next connection: QoS 0 is enough, and costs a clustered broker far less.
        let state = |filter, not_own| Subscription { filter, not_own, at_most_once: true };
        let [alarms, devices] = watch::own_retained(pump);
        let wanted = [
            Subscription { filter: pump.topics.command_filter(), not_own: false, at_most_once: false },
            state(pump.topics.dispatch_status(), false),
            // What we left there: alarms that are over and devices that are no more are emptied.
            state(alarms, true),
            state(devices, true),
        ];
        self.connection.subscribe(&wanted).map_err(no_place)?;
        if session_present && pump.config.broker.protocol == Protocol::Mqtt311 {
            // An earlier connection may have watched its own events, and the broker remembers.
            self.end_watch(pump)?;
        }
        self.say_we_are_here(pump, now)?;
        Ok(true)
    }

    fn say_we_are_here(&mut self, pump: &Pump, now: Timestamp) -> Result<(), Lost> {
        if self.presence_due && !pump.holds.is_held(&pump.topics.status(), now) {
            self.publish(pump, Ticket::Presence, pump.presence(Presence::Online))?;
            self.presence_due = false;
        }
        Ok(())
    }

    /// What the broker probably hung up on: what it acknowledged right before. (Some acknowledge what they refuse, and hang up.)
    pub(super) fn hung_up_after(&self, lost: &Lost, now: Timestamp) -> Option<Suspect> {
        let (at, suspect) = self.acked_last.as_ref()?;
        let abrupt = matches!(lost.cause, Cause::BrokerUnreachable | Cause::BrokerEnded);
        (abrupt && between(*at, now) <= HANGS_UP_WITHIN).then(|| suspect.clone())
    }

    /// When (steady time) the connection counts as dead for want of a PUBACK, and how long that one was waited for. Life safety waits less long: one
    /// lost PUBACK may block the client altogether (it numbers messages round a small window and stops before an id in use).
    fn puback_due(&self, pump: &Pump) -> Option<(Timestamp, Duration)> {
        let (urgent, limit) = puback_patience(pump);
        let is_urgent = |sent: &Sent| matches!(sent.ticket, Ticket::Item(key) if key.lane().is_life_safety());
        let all = self.ledger.deadline(limit).map(|due| (due, limit));
        all.into_iter().chain(self.ledger.deadline_of(urgent, is_urgent).map(|due| (due, urgent))).min()
    }

    /// Pumps until there is a reason to leave.
    async fn pump(&mut self, pump: &mut Pump) -> Result<Leave, Lost> {
        let mut changed = true;
        loop {
            let (now, steady) = (pump.now(), pump.steady());
            pump.delivery.clocks(now, pump.parts.clock.uptime());
            if std::mem::replace(&mut changed, true) {
                self.fill(pump, now)?;
                // The client writes when it is asked for news, and not before: an alarm goes out before anything else is looked at.
                let first = self.connection.next().now_or_never();
                if first.map(|signal| self.take_signals(pump, signal?)).transpose()? == Some(true) {
                    self.fill(pump, now)?;
                }
            }
            pump.refresh_status(now, false);
            let puback_due = self.puback_due(pump);
            if let Some((due, within)) = puback_due
                && due <= steady
            {
                pump.puback.timed_out(steady);
                return Err(Lost::of(Cause::NoPuback, &format!("no PUBACK within {} s", within.as_secs())));
            }
            if let Some(switch) = pump.without_receipts(now) {
                return Ok(Leave::WithoutReceipts(switch));
            }
            self.watch_own(pump, now)?;
            self.look_at_preferred(pump, now);
            let deadline = [
                pump.delivery.next_deadline(),
                pump.status_deadline(),
                pump.statement_deadline(),
                pump.receipts.next_deadline(pump.missing, now).filter(|at| *at > now),
                pump.holds.next_deadline(now),
                pump.brokers.return_at().filter(|at| *at > now),
                self.own_until,
            ];
            let wait = deadline.into_iter().flatten().min().map(|at| between(now, at));
            let puback_wait = puback_due.map(|(due, _)| between(steady, due));
            let store_wait = self.store_retry_at.map(|at| between(steady, at));
            let wait = wait.into_iter().chain(puback_wait).chain(store_wait).min();
            tokio::select! {
                // In this order, so that a simulated life replays. The broker last but for time: all before it come to rest by themselves.
                biased;
                () = pump.parts.shutdown.cancelled() => return Ok(Leave::Shutdown),
                () = pump.parts.wake.notified() => {}
                () = pump.parts.board.changed() => {}
                reply = pump.parts.replies.recv(), if !pump.replies_ended => pump.take_reply(reply),
                loaded = load(&mut self.loading) => self.loaded(pump, loaded)?,
                answer = probed(&mut self.probe) => if let Some(connected) = self.probe_answered(pump, answer) {
                    return Ok(Leave::Return(connected));
                },
                signal = self.connection.next() => changed = self.take_signals(pump, signal?)?,
                () = sleep(wait) => {}
            }
        }
    }

    /// Handles this signal and all that are already here. False when none of them makes room for anything.
    fn take_signals(&mut self, pump: &mut Pump, first: Signal) -> Result<bool, Lost> {
        let (mut signal, mut changed) = (first, false);
        for count in 1_usize.. {
            changed |= !matches!(signal, Signal::Published(_) | Signal::Other);
            let now = pump.now();
            self.handle(pump, signal, now)?;
            if count == SIGNALS_AT_ONCE {
                break;
            }
            match self.connection.next().now_or_never() {
                Some(next) => signal = next?,
                None => break,
            }
        }
        Ok(changed)
    }

    /// From another broker: whether the preferred one is back.
    fn look_at_preferred(&mut self, pump: &mut Pump, now: Timestamp) {
        pump.brokers.notice_clock(now);
        if self.probe.is_some() || pump.brokers.return_at().is_none_or(|at| now < at) || !pump.is_quiet() {
            return;
        }
        let preferred = pump.broker(pump.brokers.preferred());
        match Connection::open(&preferred, &pump.session_options()) {
            Ok(probe) => self.probe = Some(probe),
            Err(fault) => {
                warn!(%fault, "the preferred broker cannot be looked at");
                pump.brokers.return_is_vain(now);
            }
        }
    }

    /// The preferred broker answered, or does not. Gives its CONNACK when it is to be used from now on.
    fn probe_answered(&mut self, pump: &mut Pump, answer: Result<Signal, Lost>) -> Option<Signal> {
        let now = pump.now();
        match answer {
            Ok(connected @ Signal::Connected { .. }) if pump.is_quiet() => return Some(connected),
            Ok(_) => debug!("the preferred broker answers, and something is under way: later"),
            Err(lost) => info!(reason = %lost.reason, "the preferred broker does not answer yet"),
        }
        self.probe = None;
        pump.brokers.return_is_vain(now);
        None
    }

    /// Hands over what may go now.
    fn fill(&mut self, pump: &mut Pump, now: Timestamp) -> Result<(), Lost> {
        let mut later_ones = Vec::new();
        for publication in self.take(pump, now) {
            if publication.key.lane().is_life_safety() {
                self.publish_item(pump, publication, now)?;
            } else {
                later_ones.push(publication);
            }
        }
        self.say_we_are_here(pump, now)?;
        while self.replies < self.small_max
            && let Some(reply) = pump.replies.pop_front()
        {
            self.answer(pump, reply, now)?;
        }
        pump.state_what_was_sent(now);
        while self.postings < self.small_max
            && let Some(posting) = pump.parts.board.next(|topic| !pump.holds.is_held(topic, now))
        {
            let message = Message {
                topic: posting.topic.clone(),
                content_type: (!posting.payload.is_empty()).then_some("application/json"),
                payload: posting.payload,
                retain: true,
                ..Message::default()
            };
            if size(&message) > self.bytes_max(pump) {
                pump.parts.board.refused(&posting.topic);
                refuse_topic(pump, &posting.topic, self.too_large(pump, size(&message)), now);
                continue;
            }
            self.publish(pump, Ticket::Posting { topic: posting.topic, generation: posting.generation }, message)?;
            self.postings += 1;
        }
        for publication in later_ones {
            self.publish_item(pump, publication, now)?;
        }
        self.publish_parts(pump)
    }

    /// Hands over the next parts of a picture.
    fn publish_parts(&mut self, pump: &Pump) -> Result<(), Lost> {
        while let Some((parts, item)) = &mut self.parts
            && let Some((part, of, payload)) = parts.next()
        {
            let (key, topic) = (parts.key, pump.topics.evidence_part(&item.alarm_id, item.n, part, of));
            let content_type = Some("application/octet-stream");
            self.publish(pump, Ticket::Part(key), Message { topic, payload, content_type, ..Message::default() })?;
        }
        Ok(())
    }

    /// Publishes an answer where the contract says, and a copy where the asker wishes.
    fn answer(&mut self, pump: &mut Pump, reply: Reply, now: Timestamp) -> Result<(), Lost> {
        let wish = pump.wishes.of(&reply.cmd_id);
        let mut message = pump.json(pump.topics.reply(&reply.cmd_id), &reply, false);
        let most = self.bytes_max(pump);
        if size(&message) > most {
            let bytes = message.payload.len();
            let why = super::advice::text(
                format!("应答 {bytes} 字节，超过服务器上限 {most} 字节"),
                format!("the answer has {bytes} bytes, the broker takes at most {most}; ask for less at a time"),
            );
            let short = Reply::new(&reply.cmd_id, Outcome::Refused, Some(why), now);
            message = pump.json(message.topic, &short, false);
        }
        if pump.holds.is_held(&message.topic, now) {
            warn!(cmd_id = %reply.cmd_id, "the broker does not take this answer; the centre repeats its command");
            return Ok(());
        }
        (message.expiry, message.correlation) = (Some(REPLY_EXPIRY), wish.correlation);
        if let Some(topic) = wish.topic.filter(|topic| *topic != message.topic && !pump.holds.is_held(topic, now)) {
            let copy = Message { topic: topic.clone(), ..message.clone() };
            self.publish(pump, Ticket::Copy(topic), copy)?;
            self.replies += 1;
        }
        self.publish(pump, Ticket::Reply(reply), message)?;
        self.replies += 1;
        Ok(())
    }

    fn take(&mut self, pump: &mut Pump, now: Timestamp) -> Vec<Publication> {
        if self.store_retry_at.is_some_and(|at| pump.steady() < at) {
            return Vec::new();
        }
        match pump.delivery.take(now) {
            Ok(publications) => {
                if self.store_retry_at.take().is_some() {
                    pump.store_fault = None;
                    pump.refresh_status(now, true);
                }
                publications
            }
            Err(fault) => {
                self.store_fault(pump, &fault, now);
                Vec::new()
            }
        }
    }

    fn store_fault(&mut self, pump: &mut Pump, fault: &gengfu_outbox::OutboxError, now: Timestamp) {
        warn!(%fault, "the uplink cannot use the outbox");
        pump.store_fault = Some(fault.to_string());
        self.store_retry_at = Some(later(pump.steady(), STORE_RETRY));
        pump.refresh_status(now, true);
    }

    fn publish_item(&mut self, pump: &mut Pump, publication: Publication, now: Timestamp) -> Result<(), Lost> {
        let Publication { key, id, topic, body } = publication;
        match body {
            Body::Event(payload) => self.publish_bytes(pump, key, topic, payload, "application/cloudevents+json", now),
            Body::Evidence(item) => {
                // Delivery gives one picture at a time.
                let from = pump.config.pictures.clone();
                self.loading = Some(Box::pin(async move {
                    let picture = item.load(&from).await;
                    (Publication { key, id, topic, body: Body::Evidence(item) }, picture)
                }));
                Ok(())
            }
        }
    }

    fn loaded(
        &mut self,
        pump: &mut Pump,
        (publication, picture): (Publication, Result<Vec<u8>, EvidenceFault>),
    ) -> Result<(), Lost> {
        let now = pump.now();
        let Publication { key, topic, body, .. } = publication;
        match (picture, body) {
            (Ok(bytes), Body::Evidence(item)) if bytes.len() + topic.len() + HEAD_BYTES > self.bytes_max(pump) => {
                // Of a bound that was only met, not told, the half is surely taken soon.
                let most = self.packet_bytes_max.min(pump.sizes.limit(pump.steady()) / PARTS_BELOW);
                let part_max = most.saturating_sub(topic.len() + PART_TOPIC_BYTES + HEAD_BYTES);
                match Parts::new(key, &bytes, part_max) {
                    Some(parts) => self.parts = Some((parts, item)),
                    None => refuse_item(pump, key, &topic, self.too_large(pump, bytes.len()), now),
                }
                self.publish_parts(pump)
            }
            (Ok(bytes), _) => self.publish_bytes(pump, key, topic, bytes, "image/jpeg", now),
            (Err(fault), _) => {
                pump.delivery.abandoned(key, &fault.to_string(), now);
                Ok(())
            }
        }
    }

    /// The largest message worth sending, bytes: what the broker said, or what it refused.
    fn bytes_max(&self, pump: &Pump) -> usize {
        self.packet_bytes_max.min(pump.sizes.limit(pump.steady()))
    }

    fn too_large(&self, pump: &Pump, bytes: usize) -> Refusal {
        let text = format!("{bytes} bytes, the broker takes at most {}", self.bytes_max(pump));
        Refusal { cause: Cause::PacketTooLarge, text }
    }

    fn publish_bytes(
        &mut self,
        pump: &mut Pump,
        key: ItemKey,
        topic: String,
        payload: Vec<u8>,
        content_type: &'static str,
        now: Timestamp,
    ) -> Result<(), Lost> {
        let expiry = (key.lane() == gengfu_outbox::Lane::Telemetry).then_some(TELEMETRY_EXPIRY);
        let message = Message { topic, payload, content_type: Some(content_type), expiry, ..Message::default() };
        if size(&message) > self.bytes_max(pump) {
            refuse_item(pump, key, &message.topic, self.too_large(pump, size(&message)), now);
            return Ok(());
        }
        self.publish(pump, Ticket::Item(key), message)
    }

    fn publish(&mut self, pump: &Pump, ticket: Ticket, message: Message) -> Result<(), Lost> {
        let bytes = size(&message);
        self.connection.publish(message).map_err(no_place)?;
        self.ledger.handed(Sent { ticket, bytes }, pump.steady());
        Ok(())
    }

    fn route(&mut self, pump: &mut Pump, arrived: &Arrived, now: Timestamp) {
        if let Some((verb, cmd_id)) = pump.topics.parse_command(&arrived.topic) {
            let (verb, cmd_id) = (verb.to_owned(), cmd_id.to_owned());
            self.command(pump, &verb, &cmd_id, arrived, now);
        } else if self.is_own_echo(pump, arrived, now) {
            debug!(topic = %arrived.topic, "a copy of our own came back");
        } else if arrived.topic == pump.topics.dispatch_status() {
            match serde_json::from_slice::<DispatchStatus>(&arrived.payload) {
                Ok(status) => {
                    info!(state = ?status.state, "presence of the dispatch centre");
                    pump.status.centre = Some(status.state);
                    pump.delivery.centre(status.state, now);
                    pump.refresh_status(now, true);
                }
                Err(fault) => debug!(%fault, "dispatch/status not understood"),
            }
        } else if arrived.retained && !arrived.payload.is_empty() {
            pump.parts.board.seen_retained(&arrived.topic);
        }
    }

    fn command(&mut self, pump: &mut Pump, verb: &str, cmd_id: &str, arrived: &Arrived, now: Timestamp) {
        let own = [pump.topics.reply(""), pump.topics.dispatch_status().trim_end_matches("status").to_owned()];
        if let Some(topic) = pump.wishes.note(cmd_id, arrived, &own) {
            warn!(
                verb,
                cmd_id, topic, "a response topic outside this gateway's reply/ and the site's dispatch/ is not used"
            );
        }
        let verdict = commands::read(verb, cmd_id, &arrived.payload, arrived.retained, now);
        let known = if VERBS.contains(&verb) { verb.to_owned() } else { "unknown".to_owned() };
        counter!("gengfu_uplink_commands_total", "verb" => known).increment(1);
        match verdict {
            Verdict::Receipt(receipt) => match pump.received(&receipt.ids, now) {
                Ok(delivered) => {
                    pump.receipt_came(&delivered, now);
                    let latencies = delivered.iter().filter(|d| d.life_safety).filter_map(|d| d.latency);
                    latencies.for_each(|latency| pump.latencies.add(latency));
                }
                Err(fault) => self.store_fault(pump, &fault, now),
            },
            Verdict::Forward(request) => {
                info!(verb, cmd_id, "command");
                match pump.parts.commands.try_send(*request) {
                    Ok(()) => {}
                    Err(TrySendError::Full(request) | TrySendError::Closed(request)) => {
                        warn!(verb, cmd_id, "the core takes no more commands; refused");
                        let reply = commands::not_taken(&request.cmd_id, now);
                        pump.queue_reply(reply);
                    }
                }
            }
            Verdict::Answer(reply) => {
                info!(verb, cmd_id, outcome = ?reply.outcome, "command answered without the core");
                pump.queue_reply(reply);
            }
            Verdict::Ignore(reason) => info!(verb, cmd_id, reason, "command ignored"),
        }
    }

    /// Says that we go offline, gives what is on the way a moment to arrive, and disconnects.
    async fn goodbye(&mut self, pump: &mut Pump) {
        let farewell = pump.presence(Presence::Offline);
        let patience = pump.config.goodbye;
        let last_words = async {
            self.publish(pump, Ticket::Presence, farewell)?;
            while self.ledger.outstanding() > 0 {
                let signal = self.connection.next().await?;
                let now = pump.now();
                self.handle(pump, signal, now)?;
            }
            Ok::<(), Lost>(())
        };
        match tokio::time::timeout(patience, last_words).await {
            Ok(Ok(())) => {}
            Ok(Err(lost)) => return warn!(reason = %lost.reason, "the connection was lost while saying goodbye"),
            Err(_) => {
                info!("some PUBACKs did not come before the goodbye; those items are sent again at the next start")
            }
        }
        let bye = async {
            self.connection.disconnect().map_err(no_place)?;
            while self.connection.next().await? != Signal::Disconnected {}
            Ok::<(), Lost>(())
        };
        if !matches!(tokio::time::timeout(DISCONNECT_WITHIN, bye).await, Ok(Ok(()))) {
            debug!("the broker did not see our DISCONNECT; it publishes our will, which says the same");
        }
    }

    /// Topics of what is no item and was handed over and not acknowledged.
    pub(super) fn unsent_topics(&self, topics: &gengfu_contract::topic::Topics) -> Vec<String> {
        let topic = |ticket: &Ticket| match ticket {
            Ticket::Item(_) | Ticket::Part(_) => None,
            Ticket::Posting { topic, .. } | Ticket::Copy(topic) => Some(topic.clone()),
            Ticket::Reply(reply) => Some(topics.reply(&reply.cmd_id)),
            Ticket::Presence => Some(topics.status()),
        };
        self.ledger.tickets().map(|sent| &sent.ticket).filter_map(topic).collect()
    }

    /// Answers that were handed over and not acknowledged.
    pub(super) fn unsent_replies(&self) -> Vec<Reply> {
        let reply = |ticket: &Ticket| if let Ticket::Reply(reply) = ticket { Some(reply.clone()) } else { None };
        self.ledger.tickets().map(|sent| &sent.ticket).filter_map(reply).collect()
    }
}

/// What a message takes on the wire, at most.
fn size(message: &Message) -> usize {
    message.payload.len() + message.topic.len() + HEAD_BYTES
}

/// How long a PUBACK is waited for now: for life safety, and else.
pub(super) fn puback_patience(pump: &Pump) -> (Duration, Duration) {
    let (limit, steady) = (pump.config.puback_timeout, pump.steady());
    let urgent = pump.puback.wait(limit.min(LIFE_SAFETY_PUBACK), limit * LIFE_SAFETY_PUBACK_MOST, steady);
    (urgent, pump.puback.wait(limit, limit * PUBACK_MOST, steady))
}

/// A topic of what is no item is not taken now.
fn refuse_topic(pump: &mut Pump, topic: &str, refusal: Refusal, now: Timestamp) {
    pump.holds.refused(topic, now);
    note_refusal(pump, topic, &refusal, now);
    pump.refused = Some((topic.to_owned(), refusal));
}

fn refuse_item(pump: &mut Pump, key: ItemKey, topic: &str, refusal: Refusal, now: Timestamp) {
    pump.delivery.refused(key, &refusal.text, now);
    pump.item_refused = Some((topic.to_owned(), refusal.clone()));
    note_refusal(pump, topic, &refusal, now);
}

fn note_refusal(pump: &mut Pump, topic: &str, refusal: &Refusal, now: Timestamp) {
    warn!(topic, reason = %refusal, "the broker refused a message");
    pump.status.refused += 1;
    pump.status.last_refusal = Some(format!("{topic}: {refusal}"));
    pump.refresh_status(now, true);
}

/// The channel is sized for everything that may be outstanding; when it is full all the same, the account is wrong.
fn no_place(_: NotTaken) -> Lost {
    Lost::of(Cause::OwnFault, "the MQTT client takes no more messages")
}

/// Resolves with what the preferred broker says; never when it is not looked at.
async fn probed(probe: &mut Option<Connection>) -> Result<Signal, Lost> {
    match probe {
        Some(connection) => connection.next().await,
        None => std::future::pending().await,
    }
}

/// Resolves with the picture under way; never when there is none.
async fn load(loading: &mut Option<Loading>) -> (Publication, Result<Vec<u8>, EvidenceFault>) {
    match loading {
        Some(future) => {
            let loaded = future.await;
            *loading = None;
            loaded
        }
        None => std::future::pending().await,
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
