//! What goes to the broker next, and when an item counts as delivered.
//!
//! Owns the delivery's states (JOURNALED → SENT → BROKER_ACKED → RECEIVED), the window, and every timer of sending again. A PUBACK is
//! not a delivery: an item leaves the outbox only by the centre's receipt. It does no I/O but the outbox's, reads no clock and draws
//! no randomness of its own, so that a whole outage runs in a test in microseconds. It refuses to know MQTT: packet ids are
//! [`super::ledger`]'s, connections [`super::session`]'s.
//!
//! An item that must be sent again is released to the outbox and taken from there anew. So there is one order, the outbox's
//! (highest lane first, in order within a lane), and no second copy of anybody's bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use gengfu_contract::state::Presence;
use gengfu_contract::topic::Topics;
use gengfu_outbox::{Item, ItemKey, Lane, Outbox, OutboxError, Receipt, Stage};
use jiff::{SignedDuration, Timestamp};
use metrics::counter;
use tracing::{info, warn};

use super::backoff::{Backoff, Jitter, later};
use super::copies::{EvidenceItem, event_copy};
use super::latency::ClockSteps;
use super::pace::Pace;

/// An item lost on the wire this often in a row is suspected of killing the connection (too large for the broker, say) and waits
/// a little before the next try, so that others get through.
const SUSPECT_AFTER_LOSSES: u32 = 3;
/// Longest pause of a suspect.
const HELD_MAX: Duration = Duration::from_secs(30);
/// The same for life safety, which may well be innocent.
const LIFE_SAFETY_HELD_MAX: Duration = Duration::from_secs(2);
/// A connection begins without the items that are suspected of ending connections, for so long: long enough to count as one that lasted.
const SPARED: Duration = Duration::from_secs(3);
/// Then they go one after the other, so far apart that it shows which one it is.
const SUSPECTS_APART: Duration = Duration::from_secs(1);
/// Overdue items sent again at once to see what becomes of them.
const PROBES_MAX: usize = 8;
/// Past fates of items are kept at most for this many of the bounded lanes.
const HISTORY_MAX: usize = 8192;

/// The bounds and times of delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Items on the way to the broker at one time.
    pub window: usize,
    /// Of these, places that only life-safety items may take.
    pub life_safety_reserve: usize,
    /// Items of the other lanes sent and not yet received by the centre; when so many wait, no more are sent.
    pub unreceived_max: usize,
    /// The same while the centre has said that it is away: enough to notice that it is back.
    pub unreceived_max_centre_away: usize,
    /// An event sensed longer ago than this is sent as `historical`.
    pub historical_after: Duration,
    /// Items a second that leave while a backlog waits, life safety not counted; 0: no limit.
    pub backlog_per_s: u32,
    /// No receipt for a life-safety item in this time: sent again.
    pub receipt_life_safety: Backoff,
    /// No receipt for another item in this time: sent again.
    pub receipt_other: Backoff,
    /// The broker refused a life-safety item: tried again after this time.
    pub refused_life_safety: Backoff,
    /// The broker refused another item.
    pub refused_other: Backoff,
    /// The broker took a life-safety event and nobody is subscribed to it: sent again after this time, or when the centre says that it is there.
    pub unheard_life_safety: Backoff,
    /// The same for another event.
    pub unheard_other: Backoff,
}

impl Default for Limits {
    /// A window of 64 with 16 places reserved; receipts awaited 10 s (life safety) and 60 s.
    fn default() -> Self {
        let seconds =
            |base, ceiling| Backoff { base: Duration::from_secs(base), ceiling: Duration::from_secs(ceiling) };
        Self {
            window: 64,
            life_safety_reserve: 16,
            unreceived_max: 1024,
            unreceived_max_centre_away: 8,
            historical_after: Duration::from_secs(30),
            backlog_per_s: 300,
            receipt_life_safety: seconds(10, 60),
            receipt_other: seconds(60, 900),
            refused_life_safety: seconds(1, 10),
            refused_other: seconds(10, 300),
            unheard_life_safety: seconds(1, 10),
            unheard_other: seconds(5, 60),
        }
    }
}

impl Limits {
    /// How long the receipt of an item is waited for.
    fn receipt(&self, key: ItemKey) -> Backoff {
        if key.lane().is_life_safety() { self.receipt_life_safety } else { self.receipt_other }
    }
}

/// Something to publish now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The item.
    pub key: ItemKey,
    /// Its id, which the receipt will name.
    pub id: String,
    /// Full topic name.
    pub topic: String,
    /// What to send.
    pub body: Body,
}

/// The body of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// These bytes.
    Event(Vec<u8>),
    /// The file this names; to be loaded, then sent or [`Delivery::abandoned`].
    Evidence(EvidenceItem),
}

/// What the centre's receipt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The item's id.
    pub id: String,
    /// It travels in a life-safety lane.
    pub life_safety: bool,
    /// Its number in the journal; absent for a picture.
    pub sequence: Option<u64>,
    /// From sensed to this receipt; absent when the item is a picture, and where it cannot be known (see [`super::latency`]).
    pub latency: Option<Duration>,
}

/// Counts for the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// On the way to the broker.
    pub in_flight: usize,
    /// Acknowledged by the broker, not received by the centre.
    pub awaiting_receipt: usize,
    /// Refused by the broker or suspected of making it hang up, and not taken by it so far.
    pub held: usize,
    /// Given up since the start: pictures whose file is gone or was changed.
    pub abandoned: u64,
    /// Items whose receipt did not come in time and still has not come.
    pub overdue: usize,
    /// Of these, life safety: the box should say "transmission failed".
    pub overdue_life_safety: usize,
    /// What was sent after one of the overdue items was received.
    pub overtaken: bool,
    /// The broker has said that nobody is subscribed to our events.
    pub nobody_subscribed: bool,
}

/// How many items may be taken.
#[derive(Debug, Default)]
struct Room {
    life_safety: usize,
    /// Of the other lanes, live ones.
    other: usize,
    /// Of the other lanes, whatever their age: less than `other` while a backlog leaves at its pace.
    paced: usize,
    evidence: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    BrokerAcked,
    /// In flight for the outbox, but not on the wire: refused or suspected, until `due_at`.
    Held,
}

#[derive(Debug)]
struct Entry {
    id: String,
    alarm: Option<String>,
    state: State,
    sensed_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
    /// When it was sent, as a number: the lowest of those on the wire went first.
    turn: u64,
}

/// What happened to an item before; outlives its being released.
#[derive(Debug, Default, Clone)]
struct Past {
    sent: u32,
    timeouts: u32,
    refusals: u32,
    losses: u32,
    hold_until: Option<Timestamp>,
    /// Until when this connection goes on without it.
    spared_until: Option<Timestamp>,
    /// PUBACKs in a row that said nobody is subscribed, and since when its receipt is awaited all the same.
    unheard: u32,
    unheard_since: Option<Timestamp>,
    /// When it was last sent, as a number.
    turn: u64,
}

/// The state of all deliveries under way.
pub struct Delivery {
    outbox: Outbox,
    topics: Topics,
    limits: Limits,
    /// The window of this connection; the broker may allow less than ours.
    window: usize,
    jitter: Jitter,
    entries: BTreeMap<ItemKey, Entry>,
    past: HashMap<ItemKey, Past>,
    due: BTreeSet<(Timestamp, ItemKey)>,
    /// Items sent so far.
    turns: u64,
    sent_life_safety: usize,
    sent_other: usize,
    sent_evidence: usize,
    awaiting: usize,
    entries_other: usize,
    abandoned: u64,
    centre: Option<Presence>,
    /// The broker's last PUBACK for an event said so.
    nobody_subscribed: bool,
    /// The latest turn whose item was received.
    received_turn: u64,
    /// This connection began without any suspect.
    spared: bool,
    steps: ClockSteps,
    pace: Pace,
    /// The latest time seen, to notice a clock that was set back.
    seen_at: Option<Timestamp>,
}

impl Delivery {
    /// Deliveries from `outbox` to `topics`. `seed` decides the jitter.
    #[must_use]
    pub fn new(outbox: Outbox, topics: Topics, limits: Limits, seed: u64) -> Self {
        let steps = ClockSteps::since(outbox.opened_at());
        Self {
            outbox,
            topics,
            steps,
            window: limits.window,
            pace: Pace::new(limits.backlog_per_s),
            limits,
            jitter: Jitter::new(seed),
            entries: BTreeMap::new(),
            past: HashMap::new(),
            due: BTreeSet::new(),
            turns: 0,
            sent_life_safety: 0,
            sent_other: 0,
            sent_evidence: 0,
            awaiting: 0,
            entries_other: 0,
            abandoned: 0,
            centre: None,
            nobody_subscribed: false,
            received_turn: 0,
            spared: false,
            seen_at: None,
        }
    }

    /// Both clocks: the time of day, which somebody may set, and the steady one. To be told before [`Self::received`], and often.
    pub fn clocks(&mut self, now: Timestamp, uptime: SignedDuration) {
        self.steps.read(now, uptime, self.outbox.head().sequence);
    }

    /// A connection stands; the broker takes at most `receive_max` messages at a time. What gathered until now is backlog: what happens from now on
    /// does not wait behind it.
    pub fn connected(&mut self, receive_max: Option<u16>) {
        self.outbox.mark_backlog();
        self.window = self.limits.window.min(receive_max.map_or(usize::MAX, usize::from)).max(1);
    }

    /// A connection begins without the items that are suspected of ending connections: so it lasts long enough for all others to pass, and for a person
    /// to see what is wrong. Then they go one after the other, the one that was sent last behind the others, so that the guilty one does not
    /// take the innocent with it. Every other connection the first of them goes at once: on a line that flaps none lasts.
    pub fn spare_suspects(&mut self, now: Timestamp) {
        let suspects = self.past.iter_mut().filter(|(_, past)| past.losses >= SUSPECT_AFTER_LOSSES);
        let mut suspects: Vec<_> = suspects.collect();
        if suspects.is_empty() {
            return;
        }
        suspects.sort_by_key(|(key, past)| (!key.lane().is_life_safety(), past.turn));
        self.spared = !self.spared;
        let at_once = u32::from(!self.spared);
        for ((_, past), n) in suspects.into_iter().zip(0_u32..) {
            let until = |n| later(now, (SPARED + SUSPECTS_APART * n).min(HELD_MAX));
            past.spared_until = n.checked_sub(at_once).map(until);
        }
    }

    /// What to publish now, most urgent first; all of it counts as SENT from here on. Call it after every event and at
    /// [`Self::next_deadline`].
    ///
    /// # Errors
    /// The outbox cannot be read; nothing was taken.
    pub fn take(&mut self, now: Timestamp) -> Result<Vec<Publication>, OutboxError> {
        self.notice_clock(now);
        self.expire(now);
        let Room { life_safety, other, paced, evidence } = self.room(now);
        let mut items = Vec::new();
        let live_first = paced < other;
        if live_first {
            // What happens now leaves at once; what gathered leaves at its pace.
            items = self.outbox.take_live(life_safety + other)?;
        }
        let urgent = items.iter().filter(|item| item.lane.is_life_safety()).count();
        let (urgent_left, other_left) =
            (life_safety.saturating_sub(urgent), other.saturating_sub(items.len() - urgent));
        let rest = urgent_left + paced.min(other_left) + evidence;
        if rest > 0 {
            match self.outbox.take(rest) {
                Ok(more) => {
                    self.pace.took(more.iter().filter(|item| !item.lane.is_life_safety()).count());
                    items.extend(more);
                }
                Err(fault) => {
                    items.iter().for_each(|item| self.outbox.release(item.key));
                    return Err(fault);
                }
            }
        }
        Ok(items.into_iter().filter_map(|item| self.send(item, now)).collect())
    }

    /// How many items of each sort may be taken.
    fn room(&mut self, now: Timestamp) -> Room {
        let free = self.window.saturating_sub(self.sent_life_safety + self.sent_other);
        if free == 0 {
            // The next PUBACK asks again, not the clock.
            self.pace.rest();
            return Room::default();
        }
        let lanes = self.outbox.waiting();
        let waiting = |wanted: &dyn Fn(Lane) -> bool| -> usize {
            let count = Lane::ALL.iter().filter(|lane| wanted(**lane)).map(|lane| lanes[lane.index()]).sum::<u64>();
            usize::try_from(count).unwrap_or(usize::MAX)
        };
        let life_safety = waiting(&Lane::is_life_safety).min(free);
        // A broker that allows next to nothing leaves no room for a reserve.
        let reserve = self.limits.life_safety_reserve.min(self.window / 2);
        let in_vain = self.centre_is_away() || self.nobody_subscribed;
        let unreceived_max = if in_vain { self.limits.unreceived_max_centre_away } else { self.limits.unreceived_max };
        let room = (self.window - reserve)
            .saturating_sub(self.sent_other)
            .min(free - life_safety)
            .min(unreceived_max.saturating_sub(self.entries_other));
        let others = waiting(&|lane| !lane.is_life_safety() && lane != Lane::Evidence);
        let (paced, other) = (self.pace.allows(now, others).min(room), others.min(room));
        // A picture is large: one at a time, and none while an item of life safety is on the same line.
        let quiet = life_safety == 0 && self.sent_life_safety == 0;
        let evidence =
            if quiet && self.sent_evidence == 0 { waiting(&|lane| lane == Lane::Evidence).min(1) } else { 0 };
        Room { life_safety, other, paced, evidence: evidence.min(room - paced) }
    }

    fn send(&mut self, item: Item, now: Timestamp) -> Option<Publication> {
        let key = item.key;
        if key.lane() == Lane::Evidence && (self.sent_evidence > 0 || self.sent_life_safety > 0) {
            // It came with what is live; its turn is later.
            self.outbox.release(key);
            return None;
        }
        let held_until = self.past.get(&key).and_then(|past| past.hold_until.max(past.spared_until));
        let held_until = held_until.filter(|until| *until > now);
        if let Some(until) = held_until {
            let held =
                Entry { id: item.id, alarm: None, state: State::Held, sensed_at: None, due_at: Some(until), turn: 0 };
            self.insert(key, held);
            return None;
        }
        let past = self.past.entry(key).or_default();
        past.sent = past.sent.saturating_add(1);
        (past.hold_until, past.spared_until) = (None, None);
        let attempt = past.sent;
        let (topic, body, alarm, sensed_at) = if item.sequence.is_some() {
            let copy = event_copy(&item.bytes, now, attempt, self.limits.historical_after);
            (self.topics.event(), Body::Event(copy.body), copy.alarm, copy.sensed_at)
        } else {
            match EvidenceItem::parse(&item.bytes) {
                Ok(picture) => {
                    let topic = self.topics.evidence(&picture.alarm_id, picture.n);
                    let alarm = Some(picture.alarm_id.clone());
                    (topic, Body::Evidence(picture), alarm, None)
                }
                Err(fault) => {
                    self.give_up(key, &item.id, &fault.to_string(), now);
                    return None;
                }
            }
        };
        let lane = item.lane.as_str();
        if item.sequence.is_none() {
            // A picture is still to be loaded, and may go in parts.
            info!(hop = "sent", id = %item.id, alarm = alarm.as_deref(), lane, attempt);
        }
        counter!("gengfu_uplink_sent_total", "lane" => lane).increment(1);
        self.outbox.mark(key, Stage::Sent, now.as_millisecond());
        self.turns += 1;
        let turn = self.turns;
        self.past.entry(key).or_default().turn = turn;
        self.insert(key, Entry { id: item.id.clone(), alarm, state: State::Sent, sensed_at, due_at: None, turn });
        Some(Publication { key, id: item.id, topic, body })
    }

    /// An event was written to the broker. Told here and not before: writing the log would be in its way.
    pub fn written(&self, key: ItemKey) {
        let Some(entry) = self.entries.get(&key).filter(|_| key.sequence().is_some()) else { return };
        let attempt = self.past.get(&key).map(|past| past.sent);
        let lane = key.lane().as_str();
        info!(hop = "sent", id = %entry.id, alarm = entry.alarm.as_deref(), lane, attempt, sequence = key.sequence());
    }

    /// The broker's PUBACK for an item. A second one, or one after the receipt, changes nothing; then it gives false.
    pub fn broker_acked(&mut self, key: ItemKey, now: Timestamp) -> bool {
        if !self.taken_by_broker(key, "broker_acked", now) {
            return false;
        }
        self.nobody_subscribed &= key.sequence().is_none();
        let past = self.past.entry(key).or_default();
        (past.refusals, past.unheard, past.unheard_since) = (0, 0, None);
        let wait = self.limits.receipt(key).wait(past.timeouts.saturating_add(1));
        // The first timeout is the promised one; only repetitions are spread.
        let wait = if past.timeouts == 0 { wait } else { self.jitter.stretch(wait) };
        self.change(key, State::BrokerAcked, later(now, wait));
        true
    }

    /// The broker's PUBACK for an event to which nobody is subscribed (MQTT 5 reason 0x10): the broker has it no more. It is sent again when the centre says
    /// that it is there, or with growing pauses; its receipt becomes overdue when it would have anyway.
    pub fn broker_acked_unheard(&mut self, key: ItemKey, now: Timestamp) -> bool {
        if !self.taken_by_broker(key, "unheard", now) {
            return false;
        }
        self.nobody_subscribed = true;
        let past = self.past.entry(key).or_default();
        past.refusals = 0;
        past.unheard = past.unheard.saturating_add(1);
        let overdue_at = later(
            *past.unheard_since.get_or_insert(now),
            self.limits.receipt(key).wait(past.timeouts.saturating_add(1)),
        );
        let pause =
            if key.lane().is_life_safety() { self.limits.unheard_life_safety } else { self.limits.unheard_other };
        let again_at = later(now, self.jitter.stretch(pause.wait(past.unheard)));
        self.change(key, State::BrokerAcked, if overdue_at > now { again_at.min(overdue_at) } else { again_at });
        true
    }

    /// Notes a PUBACK that was awaited. False for any other.
    fn taken_by_broker(&mut self, key: ItemKey, hop: &str, now: Timestamp) -> bool {
        self.notice_clock(now);
        let Some(entry) = self.entries.get(&key).filter(|entry| entry.state == State::Sent) else { return false };
        info!(hop, id = %entry.id, alarm = entry.alarm.as_deref(), lane = key.lane().as_str());
        counter!("gengfu_uplink_broker_acked_total", "lane" => key.lane().as_str()).increment(1);
        self.outbox.mark(key, Stage::BrokerAcked, now.as_millisecond());
        true
    }

    /// The broker refused an item (MQTT 5 reason code 128 or above). It is kept and tried again later.
    pub fn refused(&mut self, key: ItemKey, reason: &str, now: Timestamp) {
        self.notice_clock(now);
        let Some(entry) = self.entries.get(&key).filter(|entry| entry.state == State::Sent) else { return };
        warn!(hop = "refused", id = %entry.id, alarm = entry.alarm.as_deref(), lane = key.lane().as_str(), reason);
        counter!("gengfu_uplink_refused_total", "lane" => key.lane().as_str()).increment(1);
        let past = self.past.entry(key).or_default();
        past.refusals = past.refusals.saturating_add(1);
        let patience =
            if key.lane().is_life_safety() { self.limits.refused_life_safety } else { self.limits.refused_other };
        let until = later(now, self.jitter.stretch(patience.wait(past.refusals)));
        // Some brokers close the connection after a refusal (mosquitto 2.0.11): a new one must not begin with the same message.
        past.hold_until = Some(until);
        self.change(key, State::Held, until);
    }

    /// The centre's receipt: the only end of a delivery. Ids it was given before, or that are unknown, are no error.
    ///
    /// # Errors
    /// The outbox cannot be written; the items will be sent again.
    pub fn received(&mut self, ids: &[String], now: Timestamp) -> Result<Vec<Delivered>, OutboxError> {
        self.notice_clock(now);
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut delivered = Vec::new();
        for answer in self.outbox.received(&names, now.as_millisecond())? {
            let id = answer.id;
            let key = match answer.receipt {
                Receipt::First(key) => key,
                Receipt::Repeated(key) | Receipt::AfterDrop(key) => {
                    self.forget(key);
                    continue;
                }
                Receipt::Unknown => {
                    warn!(%id, "receipt for an id this gateway does not know");
                    counter!("gengfu_uplink_unknown_receipts_total").increment(1);
                    continue;
                }
            };
            let turn = self.past.get(&key).map_or(0, |past| past.turn);
            self.received_turn = self.received_turn.max(turn);
            let entry = self.forget(key);
            let sensed = entry.as_ref().and_then(|e| e.sensed_at).zip(key.sequence());
            let latency = sensed.and_then(|(sensed_at, sequence)| self.steps.latency(sequence, sensed_at, now));
            let alarm = entry.as_ref().and_then(|e| e.alarm.as_deref());
            let (lane, latency_ms) = (key.lane().as_str(), latency.map(|l| l.as_millis()));
            info!(hop = "received", %id, alarm, lane, latency_ms);
            counter!("gengfu_uplink_received_total", "lane" => lane).increment(1);
            if let Some(latency) = latency {
                metrics::histogram!("gengfu_uplink_receipt_latency_seconds", "lane" => lane).record(latency);
            }
            let (life_safety, sequence) = (key.lane().is_life_safety(), key.sequence());
            delivered.push(Delivered { id, life_safety, sequence, latency });
        }
        if !delivered.is_empty() {
            self.nobody_subscribed = false;
            // It answers, whatever its presence says.
            self.centre = self.centre.map(|_| Presence::Online);
        }
        Ok(delivered)
    }

    /// A picture cannot be sent, now or ever: the item ends, and the log says why.
    pub fn abandoned(&mut self, key: ItemKey, reason: &str, now: Timestamp) {
        if let Some(entry) = self.forget(key) {
            self.give_up(key, &entry.id, reason, now);
        }
    }

    fn give_up(&mut self, key: ItemKey, id: &str, reason: &str, now: Timestamp) {
        warn!(hop = "abandoned", id, lane = key.lane().as_str(), reason);
        counter!("gengfu_uplink_abandoned_total", "lane" => key.lane().as_str()).increment(1);
        self.past.remove(&key);
        self.abandoned += 1;
        if let Err(fault) = self.outbox.abandon(key, reason, now.as_millisecond()) {
            warn!(id, %fault, "an item that cannot be sent stays in the outbox; it is tried again after a restart");
        }
    }

    /// The connection ended right after the broker's PUBACK for this item: it may have ended it, as well as the first one without an answer. (mosquitto
    /// 2.0 with `max_queued_messages 0` acknowledges what its ACL refuses, and hangs up.) To be told before [`Self::lost`].
    pub fn lost_after_puback(&mut self, key: ItemKey, now: Timestamp) {
        if self.entries.get(&key).is_some_and(|entry| entry.state == State::BrokerAcked) {
            self.blame(key, now);
        }
    }

    /// The connection is gone, and nobody knows why: everything not received goes back to the outbox, its order kept, and the item that may have ended
    /// it is remembered.
    pub fn lost(&mut self, now: Timestamp) {
        self.notice_clock(now);
        // A broker answers in order, so of all items on the wire only the one that went first can have ended the connection.
        let sent = self.entries.iter().filter(|(_, entry)| entry.state == State::Sent);
        if let Some(key) = sent.min_by_key(|(_, entry)| entry.turn).map(|(key, _)| *key) {
            self.blame(key, now);
        }
        self.left(now);
    }

    /// The connection is over, for a reason that is no item's: as [`Self::lost`], and nobody is suspected.
    pub fn left(&mut self, now: Timestamp) {
        self.notice_clock(now);
        for key in self.entries.keys() {
            let past = self.past.entry(*key).or_default();
            past.timeouts = past.timeouts.min(1);
            (past.unheard, past.unheard_since) = (0, None);
        }
        self.nobody_subscribed = false;
        self.outbox.release_all();
        self.entries.clear();
        self.due.clear();
        (self.sent_life_safety, self.sent_other, self.sent_evidence) = (0, 0, 0);
        (self.awaiting, self.entries_other) = (0, 0);
        self.centre = None;
        if self.past.len() > HISTORY_MAX {
            self.past.retain(|key, _| key.lane().is_life_safety());
        }
    }

    /// This item may have ended the connection. On a line that flaps it is innocent: life safety is never held for long.
    fn blame(&mut self, key: ItemKey, now: Timestamp) {
        let past = self.past.entry(key).or_default();
        past.losses = past.losses.saturating_add(1);
        if past.losses >= SUSPECT_AFTER_LOSSES {
            let ceiling = if key.lane().is_life_safety() { LIFE_SAFETY_HELD_MAX } else { HELD_MAX };
            let again = Backoff { ceiling, ..self.limits.refused_life_safety };
            past.hold_until = Some(later(now, again.wait(past.losses - SUSPECT_AFTER_LOSSES + 1)));
        }
    }

    /// The centre's presence, as it says itself. When it comes back, what it has not received is sent again at once; what nobody heard, also when it
    /// says again that it is there: it may have come anew without our having seen it go.
    pub fn centre(&mut self, presence: Presence, now: Timestamp) {
        self.notice_clock(now);
        let was_away = self.centre_is_away();
        self.centre = Some(presence);
        if self.centre_is_away() {
            return;
        }
        let unheard = |key: &ItemKey| self.past.get(key).is_some_and(|past| past.unheard > 0);
        let waiting =
            self.entries.iter().filter(|(key, e)| e.state == State::BrokerAcked && (was_away || unheard(key)));
        for key in waiting.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.past.entry(key).or_default().unheard = 0;
            self.remove(key);
            self.outbox.release(key);
        }
    }

    /// Sends a few of the overdue items again now: something watches what becomes of them.
    pub fn probe(&mut self) {
        let is_overdue = |key: &ItemKey| self.past.get(key).is_some_and(|past| past.timeouts > 0);
        let waiting = self.entries.iter().filter(|(key, e)| e.state == State::BrokerAcked && is_overdue(key));
        for key in waiting.map(|(key, _)| *key).take(PROBES_MAX).collect::<Vec<_>>() {
            self.remove(key);
            self.outbox.release(key);
        }
    }

    /// The centre has said that it is away, and nothing since suggests otherwise.
    #[must_use]
    pub fn centre_is_away(&self) -> bool {
        self.centre == Some(Presence::Offline)
    }

    /// When [`Self::take`] has something to do though nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [self.due.first().map(|(at, _)| *at), self.pace.next_at()].into_iter().flatten().min()
    }

    /// Nothing is under way: all that was sent was received.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.past.is_empty()
    }

    /// Counts for the status.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let held = self.past.values().filter(|p| p.refusals > 0 || p.losses >= SUSPECT_AFTER_LOSSES).count();
        let overdue = || self.past.iter().filter(|(_, past)| past.timeouts > 0);
        let overtaken = |past: &Past| past.turn > 0 && past.turn < self.received_turn;
        Figures {
            in_flight: self.sent_life_safety + self.sent_other,
            awaiting_receipt: self.awaiting,
            held,
            abandoned: self.abandoned,
            overdue: overdue().count(),
            overdue_life_safety: overdue().filter(|(key, _)| key.lane().is_life_safety()).count(),
            overtaken: overdue().any(|(_, past)| overtaken(past)),
            nobody_subscribed: self.nobody_subscribed,
        }
    }

    /// Releases what is due: no receipt in time, or held long enough.
    fn expire(&mut self, now: Timestamp) {
        while let Some((at, key)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, key));
            let Some(entry) = self.remove(key) else { continue };
            let past = self.past.entry(key).or_default();
            // What nobody heard goes again before its receipt is overdue.
            let patience = self.limits.receipt(key).wait(past.timeouts.saturating_add(1));
            let overdue_at = past.unheard_since.map_or(at, |since| later(since, patience));
            if entry.state == State::BrokerAcked && overdue_at <= now {
                past.unheard_since = past.unheard_since.map(|_| now);
                // The connection has outlived its acknowledgement by long.
                past.losses = 0;
                past.timeouts = past.timeouts.saturating_add(1);
                warn!(hop = "overdue", id = %entry.id, alarm = entry.alarm.as_deref(), lane = key.lane().as_str(),
                    timeouts = past.timeouts, "no receipt from the dispatch centre in time; sent again");
                counter!("gengfu_uplink_overdue_total", "lane" => key.lane().as_str()).increment(1);
            }
            self.outbox.release(key);
        }
    }

    /// A clock set back would stretch every timer by the step: they move with it. (Set forward, they are only early.)
    fn notice_clock(&mut self, now: Timestamp) {
        if let Some(seen_at) = self.seen_at.filter(|seen_at| now < *seen_at) {
            let step = seen_at.duration_since(now);
            let moved = |at: Timestamp| at.checked_sub(step).unwrap_or(Timestamp::MIN);
            self.due = self.due.iter().map(|(at, key)| (moved(*at), *key)).collect();
            self.entries.values_mut().for_each(|e| e.due_at = e.due_at.map(moved));
            for past in self.past.values_mut() {
                past.hold_until = past.hold_until.map(moved);
                past.spared_until = past.spared_until.map(moved);
                past.unheard_since = past.unheard_since.map(moved);
            }
        }
        self.seen_at = Some(now);
    }

    fn insert(&mut self, key: ItemKey, entry: Entry) {
        self.count(key, entry.state, true);
        if let Some(at) = entry.due_at {
            self.due.insert((at, key));
        }
        self.entries.insert(key, entry);
        self.entries_other += usize::from(!key.lane().is_life_safety());
    }

    fn remove(&mut self, key: ItemKey) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.count(key, entry.state, false);
        self.entries_other -= usize::from(!key.lane().is_life_safety());
        if let Some(at) = entry.due_at {
            self.due.remove(&(at, key));
        }
        Some(entry)
    }

    fn forget(&mut self, key: ItemKey) -> Option<Entry> {
        self.past.remove(&key);
        self.remove(key)
    }

    fn change(&mut self, key: ItemKey, state: State, due_at: Timestamp) {
        if let Some(entry) = self.remove(key) {
            self.insert(key, Entry { state, due_at: Some(due_at), ..entry });
        }
    }

    fn count(&mut self, key: ItemKey, state: State, more: bool) {
        let bump = |count: &mut usize| if more { *count += 1 } else { *count -= 1 };
        if state == State::BrokerAcked {
            bump(&mut self.awaiting);
        }
        if state != State::Sent {
            return;
        }
        if key.lane().is_life_safety() {
            bump(&mut self.sent_life_safety);
        } else {
            bump(&mut self.sent_other);
        }
        if key.lane() == Lane::Evidence {
            bump(&mut self.sent_evidence);
        }
    }
}

#[cfg(test)]
mod tests;
