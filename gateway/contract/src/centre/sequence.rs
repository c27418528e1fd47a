//! One gateway's journal as it arrives: numbers and hashes, in any order, put together again.
//!
//! Owns the *strands*: runs of consecutive events of which each carries the hash of the one before. An event joins the strands that its
//! two hashes fit, and begins a strand of its own where they fit none. Everything else is read off the strands ([`super::journals`]): a
//! gap is what no strand covers, a break is two strands that touch and do not fit, a second journal is two strands that cover the same
//! number. So the result does not depend on the order of arrival, and lanes may overtake each other. Memory is bounded for any input: by
//! the number of strands, and by how many events are remembered for comparing copies. It refuses to judge.

use std::collections::{BTreeMap, VecDeque};

use crate::chain;
use crate::event::Event;
use crate::state::Statement;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Events remembered for comparing copies, unless told otherwise: 100 KB a gateway.
pub const REMEMBERED: usize = 1024;
/// Strands kept; above it the two oldest become one with a hole in it.
const STRANDS_MAX: usize = 1024;
/// Statements whose last event has not come yet.
const STATEMENTS_WAITING: usize = 8;
/// Altered copies, wrong heads and steps back that are told one by one; all are counted.
pub(super) const TOLD_MAX: usize = 16;

/// A SHA-256; hex outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From hex. What is no hash stands for itself: it fits nothing but its own text.
    fn of_text(text: &str) -> Self {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Self(bytes),
            Err(_) => Self(Sha256::digest(text.as_bytes()).into()),
        }
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (text, mut bytes) = (String::deserialize(deserializer)?, [0; 32]);
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| de::Error::custom("a hash is 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

/// A run of consecutive events that fit each other by hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strand {
    /// First sequence.
    pub first: u64,
    /// Last sequence.
    pub last: u64,
    /// `prevhash` of the first event.
    pub prev: Hash,
    /// Hash of the last event.
    pub head: Hash,
    /// When the first of its events came.
    pub arrived_at: Timestamp,
    /// When its first event was journaled by the gateway.
    pub first_recorded_at: Timestamp,
    /// When its last event was journaled by the gateway.
    pub last_recorded_at: Timestamp,
    /// Events between first and last that had not come when older strands were put together to bound memory.
    #[serde(default)]
    pub holes: u64,
}

/// What an arriving event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Not seen before.
    New,
    /// A copy of one that was seen, alike in all that is hashed.
    Duplicate,
    /// Its number was seen too long ago to compare: kept once more, so that nothing can be lost by it.
    Again,
    /// The id of an event that was seen, with other content: the gateway (or somebody in between) contradicts itself. Not received.
    Conflict,
}

/// A copy that says something else than the first one with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Altered {
    /// Its sequence.
    pub sequence: u64,
    /// Its id.
    pub id: String,
    /// When it came.
    pub at: Timestamp,
}

/// A statement that contradicts what was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrongHead {
    /// The sequence it is about.
    pub sequence: u64,
    /// The hash the gateway stated for it.
    pub stated: Hash,
    /// When it came.
    pub at: Timestamp,
}

/// A statement of fewer events than an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WentBack {
    /// The events the gateway had stated before.
    pub from: u64,
    /// The events it states now.
    pub to: u64,
    /// The highest sequence that had been received by then.
    pub received: u64,
    /// When it came.
    pub at: Timestamp,
}

#[derive(Debug, Clone)]
struct Seen {
    /// First bytes of the id's SHA-256: enough to compare, small to keep.
    id: [u8; 8],
    hash: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    head: Hash,
    at: Timestamp,
}

/// What arrived of one gateway's journal. Serialised it is a checkpoint: everything but the memory for comparing copies.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SequenceLedger {
    strands: Vec<Strand>,
    #[serde(skip)]
    recent: BTreeMap<u64, Vec<Seen>>,
    #[serde(skip)]
    order: VecDeque<u64>,
    #[serde(skip)]
    remembered: Option<usize>,
    /// Hashes of the events number 1: each is the birth of a journal.
    births: Vec<Hash>,
    received: u64,
    duplicates: u64,
    again: u64,
    conflicts: u64,
    chain_links: u64,
    false_births: u64,
    altered: Vec<Altered>,
    wrong_heads: Vec<WrongHead>,
    went_back: Vec<WentBack>,
    waiting: BTreeMap<u64, Waiting>,
    /// The gateway's own word, as last said: events 1 to this number exist.
    stated: u64,
    /// When the gateway said so, by its clock.
    said_at: Option<Timestamp>,
    /// In which of its runs, and as which of that run's statements.
    said_in: Option<(u64, u64)>,
    /// When the desk first heard of `stated`.
    stated_at: Option<Timestamp>,
    /// The last event whose hash a statement confirmed.
    confirmed: Option<u64>,
}

impl SequenceLedger {
    /// A ledger that remembers this many events for comparing copies.
    #[must_use]
    pub fn remembering(events: usize) -> Self {
        Self { remembered: Some(events), ..Self::default() }
    }

    /// Takes an event as it arrived.
    pub fn take(&mut self, event: &Event, now: Timestamp) -> Arrival {
        // Data that has no JSON form cannot have come out of JSON.
        let hash = Hash(chain::canonical(event).map(|bytes| chain::hash(&bytes)).unwrap_or_default());
        let prev = Hash::of_text(&event.prevhash);
        let (sequence, id) = (event.sequence, short(&event.id));
        let seen = self.recent.get(&sequence).map_or(&[][..], Vec::as_slice);
        let (copy, altered, known) =
            (seen.iter().any(|s| s.hash == hash), seen.iter().any(|s| s.id == id), !seen.is_empty());
        if copy || (sequence == 1 && self.births.contains(&hash)) {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        let before = self.strands.iter().position(|s| s.last.checked_add(1) == Some(sequence) && s.head == prev);
        let after = self.strands.iter().position(|s| sequence.checked_add(1) == Some(s.first) && s.prev == hash);
        if altered {
            self.conflicts += 1;
            if self.altered.len() < TOLD_MAX {
                self.altered.push(Altered { sequence, id: event.id.clone(), at: now });
            }
            // The chain goes on from this one: then it is the other copy that was altered, and this one must be kept.
            let Some(after) = after else { return Arrival::Conflict };
            return self.replace(event, hash, prev, after, now);
        }
        let covered = self.strands.iter().any(|s| (s.first..=s.last).contains(&sequence));
        if before.is_none() && after.is_none() && covered && !known && sequence != 1 {
            self.again += 1;
            return Arrival::Again;
        }
        self.received += 1;
        self.join(event, hash, prev, before, after, now);
        self.remember(sequence, Seen { id, hash });
        self.check_waiting(sequence);
        Arrival::New
    }

    /// The genuine copy of an event of which an altered one came first: the strand that ends with the altered one is cut back.
    fn replace(&mut self, event: &Event, hash: Hash, prev: Hash, after: usize, now: Timestamp) -> Arrival {
        let sequence = event.sequence;
        let fits = sequence.checked_sub(1).is_some_and(|before| self.has(before, prev));
        let before = self.strands.iter().position(|s| s.last == sequence && s.first < sequence && fits);
        if let Some(before) = before.map(|at| &mut self.strands[at]) {
            (before.last, before.head) = (sequence - 1, prev);
            before.last_recorded_at = event.recordedtime;
        }
        self.join(event, hash, prev, before, Some(after), now);
        self.strands.retain(|s| (s.first, s.last) != (sequence, sequence) || s.head == hash);
        self.remember(sequence, Seen { id: short(&event.id), hash });
        self.check_waiting(sequence);
        Arrival::New
    }

    fn join(
        &mut self,
        event: &Event,
        hash: Hash,
        prev: Hash,
        before: Option<usize>,
        after: Option<usize>,
        now: Timestamp,
    ) {
        let mut strand = Strand {
            first: event.sequence,
            last: event.sequence,
            prev,
            head: hash,
            arrived_at: now,
            first_recorded_at: event.recordedtime,
            last_recorded_at: event.recordedtime,
            holes: 0,
        };
        if event.sequence == 1 {
            if prev == Hash(chain::GENESIS) {
                self.chain_links += 1
            } else {
                self.false_births += 1
            }
            if self.births.len() < TOLD_MAX {
                self.births.push(hash);
            }
        }
        // The higher index first, so that the other stays right.
        let mut taken: Vec<usize> = [before, after].into_iter().flatten().collect();
        taken.sort_unstable_by(|a, b| b.cmp(a));
        let (earlier, later) = (before.map(|at| self.strands[at].clone()), after.map(|at| self.strands[at].clone()));
        for at in taken {
            self.strands.swap_remove(at);
        }
        for neighbour in [&earlier, &later].into_iter().flatten() {
            self.chain_links += 1;
            strand.holes += neighbour.holes;
            strand.arrived_at = strand.arrived_at.min(neighbour.arrived_at);
        }
        if let Some(earlier) = earlier {
            (strand.first, strand.prev) = (earlier.first, earlier.prev);
            strand.first_recorded_at = earlier.first_recorded_at;
        }
        if let Some(later) = later {
            (strand.last, strand.head) = (later.last, later.head);
            strand.last_recorded_at = later.last_recorded_at;
        }
        self.strands.push(strand);
        if self.strands.len() > STRANDS_MAX {
            self.put_oldest_together();
        }
    }

    /// Bounds the memory: the two lowest strands become one, and what is between them a number.
    fn put_oldest_together(&mut self) {
        self.strands.sort_unstable_by_key(|s| (s.first, s.last));
        let second = self.strands.remove(1);
        let first = &mut self.strands[0];
        first.holes += second.holes + second.first.saturating_sub(first.last.saturating_add(1));
        first.arrived_at = first.arrived_at.min(second.arrived_at);
        if second.last > first.last {
            (first.last, first.head) = (second.last, second.head);
            first.last_recorded_at = second.last_recorded_at;
        }
    }

    fn remember(&mut self, sequence: u64, seen: Seen) {
        self.recent.entry(sequence).or_default().push(seen);
        self.order.push_back(sequence);
        while self.order.len() > self.remembered.unwrap_or(REMEMBERED) {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(seen) = self.recent.get_mut(&oldest) {
                seen.remove(0);
                if seen.is_empty() {
                    self.recent.remove(&oldest);
                }
            }
        }
    }

    /// Takes the gateway's statement.
    pub fn state(&mut self, statement: &Statement, now: Timestamp) {
        let (sequence, head) = (statement.sequence, Hash::of_text(&statement.head));
        // One of before, that a broker held back or brings again. By its time alone a new one looks old when the clock was set back, but that one states no less.
        let said_in = statement.boot.zip(statement.number);
        let is_old = match said_in.zip(self.said_in) {
            Some((new, last)) => new <= last,
            None => self.said_at.is_some_and(|said_at| statement.at < said_at),
        };
        if sequence < self.stated && is_old {
            return;
        }
        if sequence < self.stated && self.went_back.len() < TOLD_MAX {
            let received = self.strands.iter().map(|s| s.last).max().unwrap_or(0);
            self.went_back.push(WentBack { from: self.stated, to: sequence, received, at: now });
        }
        if sequence != self.stated {
            (self.stated, self.stated_at) = (sequence, Some(now));
        }
        self.said_at = self.said_at.max(Some(statement.at));
        self.said_in = self.said_in.max(said_in);
        if sequence > 0 && !statement.head.is_empty() {
            self.waiting.insert(sequence, Waiting { head, at: now });
            self.check_waiting(sequence);
            while self.waiting.len() > STATEMENTS_WAITING {
                self.waiting.pop_first();
            }
        }
    }

    /// Compares a statement with its event, when both are here.
    fn check_waiting(&mut self, sequence: u64) {
        let Some(waiting) = self.waiting.get(&sequence) else { return };
        let stated = waiting.head;
        let fits = self.recent.get(&sequence).is_some_and(|seen| seen.iter().any(|s| s.hash == stated))
            || self.strands.iter().any(|s| s.last == sequence && s.head == stated);
        let is_known = self.recent.contains_key(&sequence) || self.strands.iter().any(|s| s.last == sequence);
        if !is_known {
            return;
        }
        let told = WrongHead { sequence, stated, at: waiting.at };
        if fits {
            self.waiting.remove(&sequence);
            self.confirmed = Some(sequence);
            self.wrong_heads.retain(|wrong| (wrong.sequence, wrong.stated) != (sequence, stated));
        } else if self.wrong_heads.len() < TOLD_MAX
            && !self.wrong_heads.iter().any(|w| (w.sequence, w.stated) == (sequence, stated))
        {
            // It stays in waiting: the event it means may still come, of another journal.
            self.wrong_heads.push(told);
        }
    }

    /// The hash of an event that is remembered, or that ends a strand, if it is `hash`.
    pub(super) fn has(&self, sequence: u64, hash: Hash) -> bool {
        self.recent.get(&sequence).is_some_and(|seen| seen.iter().any(|s| s.hash == hash))
            || self.strands.iter().any(|s| s.last == sequence && s.head == hash)
    }

    /// The strands, in no order.
    #[must_use]
    pub fn strands(&self) -> &[Strand] {
        &self.strands
    }

    /// Events 1 to this exist, as the gateway last stated, and when the desk first heard of it.
    #[must_use]
    pub fn stated(&self) -> (u64, Option<Timestamp>) {
        (self.stated, self.stated_at)
    }

    /// The last event whose hash a statement confirmed.
    #[must_use]
    pub fn confirmed(&self) -> Option<u64> {
        self.confirmed
    }

    /// Distinct events received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Further copies of them.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Copies too old to compare.
    #[must_use]
    pub fn again(&self) -> u64 {
        self.again
    }

    /// Copies that contradict each other.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// Links of the chain that were checked and hold.
    #[must_use]
    pub fn chain_links(&self) -> u64 {
        self.chain_links
    }

    /// Events number 1 whose `prevhash` is not the chain's beginning.
    #[must_use]
    pub fn false_births(&self) -> u64 {
        self.false_births
    }

    /// Altered copies; the first 16.
    #[must_use]
    pub fn altered(&self) -> &[Altered] {
        &self.altered
    }

    /// Statements whose hash is not that of the event received; the first 16.
    #[must_use]
    pub fn wrong_heads(&self) -> &[WrongHead] {
        &self.wrong_heads
    }

    /// Statements of fewer events than before; the first 16.
    #[must_use]
    pub fn went_back(&self) -> &[WentBack] {
        &self.went_back
    }

    /// The proof as it stands.
    #[must_use]
    pub fn proof(&self) -> super::journals::Proof {
        super::journals::Proof::of(self)
    }
}

fn short(id: &str) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&Sha256::digest(id.as_bytes())[..8]);
    out
}

#[cfg(test)]
mod tests;
