//! What was answered to which command.
//!
//! Owns the answers across restarts: each is stored in the same batch as the effect of its command, so that a command is carried out
//! once, whenever the power goes and however often the centre repeats it. Bounded by count and by age; a command that is older than what was
//! forgotten is refused, because nobody can tell any more whether it was carried out. Refuses to know what a command means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gengfu_contract::command::{Outcome, Reply};
use gengfu_outbox::{Batch, Outbox, OutboxError};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const PREFIX: &[u8] = b"cmd/";
/// Not under the prefix: an id may be anything.
const FLOOR_KEY: &[u8] = b"commands/forgotten";
/// Answers kept.
pub const COUNT_MAX: usize = 2_048;
/// How long an answer is kept; a command issued longer ago is refused.
pub const AGE_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// One command that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    /// Of verb and body.
    pub digest: String,
    /// The last word so far; without data, which a query gives anew. A snapshot's data is kept: its picture is not taken anew.
    pub reply: Reply,
    pub verb: String,
    pub operator: String,
    pub issued_at: Timestamp,
    pub arrived_at: Timestamp,
}

/// Whether a command came before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Never,
    /// The same: this was answered.
    Same(Box<Answered>),
    /// The same, and it is being carried out.
    InHand(Box<Answered>),
    /// Another command had this id.
    Other,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: BTreeMap<String, Answered>,
    /// Oldest first.
    order: VecDeque<String>,
    /// The newest time of issue among what was forgotten.
    floor: Option<Timestamp>,
    /// Accepted since this start, and not yet carried out.
    in_hand: BTreeSet<String>,
}

impl Memory {
    /// As the store has it. An entry that cannot be read is forgotten.
    pub fn restore(outbox: &Outbox) -> Result<Self, OutboxError> {
        let mut memory = Memory::default();
        let mut ids = Vec::new();
        for (key, value) in outbox.scan(PREFIX)? {
            let Some(id) = key.strip_prefix(PREFIX).and_then(|id| std::str::from_utf8(id).ok()) else { continue };
            match serde_json::from_slice::<Answered>(&value) {
                Ok(answered) => {
                    ids.push((answered.arrived_at, id.to_owned()));
                    memory.known.insert(id.to_owned(), answered);
                }
                Err(error) => tracing::warn!(cmd = id, %error, "a stored answer cannot be read; forgotten"),
            }
        }
        ids.sort();
        memory.order = ids.into_iter().map(|(_, id)| id).collect();
        memory.floor = outbox.get(FLOOR_KEY)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(memory)
    }

    /// Whether this command came before.
    pub fn seen(&self, cmd_id: &str, digest: &[u8; 32]) -> Seen {
        match self.known.get(cmd_id) {
            None => Seen::Never,
            Some(answered) if answered.digest != hex::encode(digest) => Seen::Other,
            Some(answered) if self.in_hand.contains(cmd_id) => Seen::InHand(Box::new(answered.clone())),
            Some(answered) => Seen::Same(Box::new(answered.clone())),
        }
    }

    /// True when a command issued then may have been carried out and forgotten.
    pub fn is_forgotten(&self, issued_at: Timestamp) -> bool {
        self.floor.is_some_and(|floor| issued_at <= floor)
    }

    /// Keeps an answer, in the batch of its effect, and forgets what is too much or too old.
    pub fn keep(&mut self, now: Timestamp, batch: &mut Batch, answered: Answered) {
        let id = answered.reply.cmd_id.clone();
        if answered.reply.outcome == Outcome::Accepted {
            self.in_hand.insert(id.clone());
        }
        put(batch, &id, &answered);
        if self.known.insert(id.clone(), answered).is_none() {
            self.order.push_back(id);
        }
        let mut forgotten = None;
        while self.order.len() > COUNT_MAX || self.oldest().is_some_and(|at| now.duration_since(at) > AGE_MAX) {
            let Some(oldest) = self.order.pop_front() else { break };
            batch.delete(&key(&oldest));
            self.in_hand.remove(&oldest);
            // A centre's clock that is ahead must not make all that follows look old.
            let gone = self.known.remove(&oldest).map(|gone| gone.issued_at.min(gone.arrived_at));
            forgotten = forgotten.max(gone);
        }
        if forgotten > self.floor {
            self.floor = forgotten;
            batch.put(FLOOR_KEY, &serde_json::to_vec(&self.floor).expect("a time has a JSON form"));
        }
    }

    /// The last word on a command that was accepted. Gives what was kept, or `None` for one that is not known or has its last word.
    pub fn last_word(&mut self, batch: &mut Batch, reply: &Reply) -> Option<Answered> {
        let answered = self.known.get_mut(&reply.cmd_id).filter(|known| known.reply.outcome == Outcome::Accepted)?;
        let data = reply.data.clone().filter(|_| answered.verb == "snapshot");
        answered.reply = Reply { data, part: None, parts: None, ..reply.clone() };
        let answered = answered.clone();
        put(batch, &reply.cmd_id, &answered);
        self.in_hand.remove(&reply.cmd_id);
        Some(answered)
    }

    /// Nobody carries it out: a repetition is carried out anew.
    pub fn not_in_hand(&mut self, cmd_id: &str) {
        self.in_hand.remove(cmd_id);
    }

    /// The batch was refused by the disk: back to what the disk has. What is in hand stays so.
    pub fn fall_back(&mut self, outbox: &Outbox) -> Result<(), OutboxError> {
        let in_hand = std::mem::take(&mut self.in_hand);
        *self = Self::restore(outbox)?;
        self.in_hand = in_hand.into_iter().filter(|id| self.known.contains_key(id)).collect();
        Ok(())
    }

    /// Forgets everything, for a store that cannot be read: better to answer "repeat it" than what never happened.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.order.front().and_then(|id| self.known.get(id)).map(|answered| answered.arrived_at)
    }
}

/// Whether a command was accepted and has no last word in the store yet.
///
/// # Errors
/// When the store cannot be read.
pub fn owes_last_word(outbox: &Outbox, cmd_id: &str) -> Result<bool, OutboxError> {
    let known = outbox.get(&key(cmd_id))?.and_then(|bytes| serde_json::from_slice::<Answered>(&bytes).ok());
    Ok(known.is_some_and(|answered| answered.reply.outcome == Outcome::Accepted))
}

fn key(cmd_id: &str) -> Vec<u8> {
    [PREFIX, cmd_id.as_bytes()].concat()
}

fn put(batch: &mut Batch, cmd_id: &str, answered: &Answered) {
    batch.put(&key(cmd_id), &serde_json::to_vec(answered).expect("an answer has text keys only"));
}
