//! One connection's life: greet, pump, say goodbye.
//!
//! Owns the order of what is published: life safety first, then answers to commands, then the board, then everything else. It never
//! awaits anything but the next event: publishing takes a place in a bounded channel whose size it respects, a picture is
//! read beside the loop. (A receipt is entered in the outbox in the loop: that waits at most for a commit under way, during which nothing new
//! can be there to send.) What it held when it ends is given back by whoever owns it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use gengfu_contract::command::{Reply, VERBS};
use gengfu_contract::state::{DispatchStatus, Presence};
use gengfu_outbox::ItemKey;
use jiff::Timestamp;
use metrics::counter;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, info, warn};

use super::backoff::{between, later};
use super::commands::{self, Verdict};
use super::connection::{Arrived, Connection, Lost, Message, NotTaken, Signal, Subscription};
use super::copies::EvidenceFault;
use super::delivery::{Body, Publication};
use super::ledger::Ledger;
use super::mqtt::Pump;

/// Postings of the board, and answers to commands, that may each be on the wire at one time.
pub(super) const SMALL_MAX: usize = 16;
/// Room for a packet's head beside topic and body.
const HEAD_BYTES: usize = 256;
/// After a fault of the store the next try comes after this.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long a broker may take to see our DISCONNECT.
const DISCONNECT_WITHIN: Duration = Duration::from_millis(500);

/// Why a session ended.
pub(super) enum End {
    Shutdown,
    Lost(Lost),
}

/// What a message on the wire stands for.
enum Ticket {
    Item(ItemKey),
    Posting { topic: String, generation: u64 },
    Reply(Reply),
    Presence,
}

type Loading = Pin<Box<dyn Future<Output = (Publication, Result<Vec<u8>, EvidenceFault>)> + Send>>;

pub(super) struct Session {
    connection: Connection,
    ledger: Ledger<Ticket>,
    postings: usize,
    replies: usize,
    packet_bytes_max: usize,
    loading: Option<Loading>,
    store_retry_at: Option<Timestamp>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            ledger: Ledger::default(),
            postings: 0,
            replies: 0,
            packet_bytes_max: usize::MAX,
            loading: None,
            store_retry_at: None,
        }
    }

    pub(super) async fn run(&mut self, pump: &mut Pump) -> End {
        match self.greet(pump).await {
            Ok(true) => {}
            Ok(false) => return End::Shutdown,
            Err(lost) => return End::Lost(lost),
        }
        match self.pump(pump).await {
            Ok(()) => {
                self.goodbye(pump).await;
                End::Shutdown
            }
            Err(lost) => End::Lost(lost),
        }
    }

    /// Waits for the broker's answer, then subscribes and says that we are here. False at shutdown.
    async fn greet(&mut self, pump: &mut Pump) -> Result<bool, Lost> {
        let signal = loop {
            tokio::select! {
                signal = self.connection.next() => break signal?,
                () = pump.parts.shutdown.cancelled() => return Ok(false),
                reply = pump.parts.replies.recv(), if !pump.replies_ended => pump.take_reply(reply),
            }
        };
        let Signal::Connected { session_present, receive_max, packet_bytes_max } = signal else {
            return Err(Lost::new(format!("{signal:?} where a CONNACK was due"), "check what listens on that port"));
        };
        let now = pump.now();
        info!(broker = %pump.status.broker, protocol = %pump.status.protocol, session_present, "the uplink is online");
        self.packet_bytes_max = packet_bytes_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        pump.delivery.connected(receive_max);
        pump.online(now);
        let subscription = |filter, not_own| Subscription { filter, not_own };
        let wanted = [
            subscription(pump.topics.command_filter(), false),
            subscription(pump.topics.dispatch_status(), false),
            // Our own retained alarms: those that are over are emptied.
            subscription(pump.topics.alarm("+"), true),
        ];
        self.connection.subscribe(&wanted).map_err(no_place)?;
        self.publish(Ticket::Presence, pump.presence(Presence::Online), now)?;
        Ok(true)
    }

    /// Pumps until shutdown.
    async fn pump(&mut self, pump: &mut Pump) -> Result<(), Lost> {
        let mut changed = true;
        loop {
            let now = pump.now();
            if std::mem::replace(&mut changed, true) {
                self.fill(pump, now)?;
            }
            pump.refresh_status(now, false);
            let puback_due = self.ledger.deadline(pump.config.puback_timeout);
            if puback_due.is_some_and(|due| due <= now) {
                let reason = format!("no PUBACK within {} s", pump.config.puback_timeout.as_secs());
                return Err(Lost::new(reason, "check the network and the broker's load; the gateway connects anew"));
            }
            let deadline = [
                puback_due,
                pump.delivery.next_deadline(),
                pump.status_deadline(),
                pump.statement_deadline(),
                self.store_retry_at,
            ];
            let wait = deadline.into_iter().flatten().min().map(|at| between(now, at));
            tokio::select! {
                () = pump.parts.shutdown.cancelled() => return Ok(()),
                signal = self.connection.next() => {
                    let (now, signal) = (pump.now(), signal?);
                    // These make no room for anything.
                    changed = !matches!(signal, Signal::Published(_) | Signal::Other);
                    self.handle(pump, signal, now)?;
                }
                () = pump.parts.wake.notified() => {}
                () = pump.parts.board.changed() => {}
                reply = pump.parts.replies.recv(), if !pump.replies_ended => pump.take_reply(reply),
                loaded = load(&mut self.loading) => self.loaded(pump, loaded)?,
                () = sleep(wait) => {}
            }
        }
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
        while self.replies < SMALL_MAX
            && let Some(reply) = pump.replies.pop_front()
        {
            let message = pump.json(pump.topics.reply(&reply.cmd_id), &reply, false);
            self.publish(Ticket::Reply(reply), message, now)?;
            self.replies += 1;
        }
        pump.state_what_was_sent(now);
        while self.postings < SMALL_MAX
            && let Some(posting) = pump.parts.board.next()
        {
            let message = Message {
                topic: posting.topic.clone(),
                content_type: (!posting.payload.is_empty()).then_some("application/json"),
                payload: posting.payload,
                retain: true,
                ..Message::default()
            };
            self.publish(Ticket::Posting { topic: posting.topic, generation: posting.generation }, message, now)?;
            self.postings += 1;
        }
        for publication in later_ones {
            self.publish_item(pump, publication, now)?;
        }
        Ok(())
    }

    fn take(&mut self, pump: &mut Pump, now: Timestamp) -> Vec<Publication> {
        if self.store_retry_at.is_some_and(|at| now < at) {
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
        self.store_retry_at = Some(later(now, STORE_RETRY));
        pump.refresh_status(now, true);
    }

    fn publish_item(&mut self, pump: &mut Pump, publication: Publication, now: Timestamp) -> Result<(), Lost> {
        let Publication { key, id, topic, body } = publication;
        match body {
            Body::Event(payload) => self.publish_bytes(pump, key, topic, payload, "application/cloudevents+json", now),
            Body::Evidence(item) => {
                // Delivery gives one picture at a time.
                self.loading = Some(Box::pin(async move {
                    let picture = item.load().await;
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
        match picture {
            Ok(bytes) => self.publish_bytes(pump, publication.key, publication.topic, bytes, "image/jpeg", now),
            Err(fault) => {
                pump.delivery.abandoned(publication.key, &fault.to_string(), now);
                Ok(())
            }
        }
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
        let bytes = payload.len() + topic.len() + HEAD_BYTES;
        if bytes > self.packet_bytes_max {
            let reason = format!("{bytes} bytes, the broker takes at most {}", self.packet_bytes_max);
            refuse(pump, key, &topic, &reason, now);
            return Ok(());
        }
        let message = Message { topic, payload, content_type: Some(content_type), ..Message::default() };
        self.publish(Ticket::Item(key), message, now)
    }

    fn publish(&mut self, ticket: Ticket, message: Message, now: Timestamp) -> Result<(), Lost> {
        self.connection.publish(message).map_err(no_place)?;
        self.ledger.handed(ticket, now);
        Ok(())
    }

    fn handle(&mut self, pump: &mut Pump, signal: Signal, now: Timestamp) -> Result<(), Lost> {
        match signal {
            Signal::Published(packet_id) => {
                if !self.ledger.published(packet_id, now) {
                    let reason = format!("packet id {packet_id} stands for nothing or is in use");
                    return Err(Lost::new(reason, "the gateway connects anew"));
                }
            }
            Signal::Acked { packet_id, refusal } => {
                if let Some(ticket) = self.ledger.acked(packet_id) {
                    self.acked(pump, ticket, refusal, now);
                }
            }
            Signal::Subscribed(refusals) => {
                pump.not_listening = refusals.iter().take(2).flatten().next().cloned();
                if let Some(Some(reason)) = refusals.get(2) {
                    warn!(
                        reason,
                        "the broker does not let us read our own alarms; retained ones that are over stay there"
                    );
                }
                pump.refresh_status(now, true);
            }
            Signal::Message(arrived) => self.route(pump, &arrived, now),
            Signal::Connected { .. } | Signal::Disconnected | Signal::Other => {}
        }
        Ok(())
    }

    fn acked(&mut self, pump: &mut Pump, ticket: Ticket, refusal: Option<String>, now: Timestamp) {
        pump.status.last_puback_at = Some(now);
        match (ticket, refusal) {
            (Ticket::Item(key), None) => pump.delivery.broker_acked(key, now),
            (Ticket::Item(key), Some(reason)) => {
                let topic = if key.sequence().is_some() { pump.topics.event() } else { pump.topics.evidence("+", 0) };
                refuse(pump, key, &topic, &reason, now);
            }
            (Ticket::Posting { topic, generation }, refusal) => {
                self.postings -= 1;
                pump.parts.board.confirmed(&topic, generation);
                refusal.into_iter().for_each(|reason| note_refusal(pump, &topic, &reason, now));
            }
            (Ticket::Reply(reply), refusal) => {
                self.replies -= 1;
                let topic = pump.topics.reply(&reply.cmd_id);
                refusal.into_iter().for_each(|reason| note_refusal(pump, &topic, &reason, now));
            }
            (Ticket::Presence, refusal) => {
                let topic = pump.topics.status();
                refusal.into_iter().for_each(|reason| note_refusal(pump, &topic, &reason, now));
            }
        }
    }

    fn route(&mut self, pump: &mut Pump, arrived: &Arrived, now: Timestamp) {
        if let Some((verb, cmd_id)) = pump.topics.parse_command(&arrived.topic) {
            let (verb, cmd_id) = (verb.to_owned(), cmd_id.to_owned());
            self.command(pump, &verb, &cmd_id, arrived, now);
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
        let verdict = commands::read(verb, cmd_id, &arrived.payload, arrived.retained, now);
        let known = if VERBS.contains(&verb) { verb.to_owned() } else { "unknown".to_owned() };
        counter!("gengfu_uplink_commands_total", "verb" => known).increment(1);
        match verdict {
            Verdict::Receipt(receipt) => match pump.delivery.received(&receipt.ids, now) {
                Ok(delivered) => {
                    pump.status.last_receipt_at = Some(now);
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
        let now = pump.now();
        let farewell = pump.presence(Presence::Offline);
        let patience = pump.config.goodbye;
        let last_words = async {
            self.publish(Ticket::Presence, farewell, now)?;
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

    /// Answers that were handed over and not acknowledged.
    pub(super) fn unsent_replies(&self) -> Vec<Reply> {
        let reply = |ticket: &Ticket| if let Ticket::Reply(reply) = ticket { Some(reply.clone()) } else { None };
        self.ledger.tickets().filter_map(reply).collect()
    }
}

fn refuse(pump: &mut Pump, key: ItemKey, topic: &str, reason: &str, now: Timestamp) {
    pump.delivery.refused(key, reason, now);
    note_refusal(pump, topic, reason, now);
}

fn note_refusal(pump: &mut Pump, topic: &str, reason: &str, now: Timestamp) {
    warn!(topic, reason, "the broker refused a message");
    pump.status.refused += 1;
    pump.status.last_refusal = Some(format!("{topic}: {reason}"));
    pump.refresh_status(now, true);
}

/// The channel is sized for everything that may be outstanding; when it is full all the same, the account is wrong.
fn no_place(_: NotTaken) -> Lost {
    Lost::new("the MQTT client takes no more messages", "the gateway connects anew; please report it if it repeats")
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
