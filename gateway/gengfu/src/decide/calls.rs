//! Whether the centre has the event that asks its people.
//!
//! Owns which event of each alarm asks for a human, and looks for its receipt in the store; the engine counts a human's time from there.
//! Refuses to count itself.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_alarm::Engine;
use gengfu_alarm::output::Transition;
use gengfu_outbox::{Batch, Outbox, OutboxError, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

const PREFIX: &[u8] = b"call/";
/// Receipts are looked for this often while one is awaited.
const LOOK_EVERY: SignedDuration = SignedDuration::from_millis(500);
/// Events looked up at one time; after a long outage the others have their turn at the next.
const LOOKS_MAX: usize = 128;

/// The event that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asking {
    event: String,
    rev: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By alarm.
    awaited: BTreeMap<String, Asking>,
    /// Alarms whose entry differs from the store's.
    dirty: BTreeSet<String>,
    /// Of the batch that is being made: the store does not know them yet.
    fresh: BTreeSet<String>,
    looked_at: Option<Timestamp>,
    /// Where the next look goes on.
    after: Option<String>,
}

impl Calls {
    /// As the store has it.
    pub fn restore(outbox: &Outbox) -> Result<Self, OutboxError> {
        let entries = outbox.scan(PREFIX)?.into_iter().filter_map(|(key, value)| {
            let alarm = String::from_utf8(key.strip_prefix(PREFIX)?.to_vec()).ok()?;
            Some((alarm, serde_json::from_slice(&value).ok()?))
        });
        Ok(Self { awaited: entries.collect(), ..Self::default() })
    }

    /// A transition was appended under this event id.
    pub fn appended(&mut self, engine: &Engine, transition: &Transition, event: &str) {
        let alarm = &transition.alarm;
        if engine.asks(&alarm.alarm_id) == Some(alarm.rev) {
            self.awaited.insert(alarm.alarm_id.clone(), Asking { event: event.to_owned(), rev: alarm.rev });
            self.dirty.insert(alarm.alarm_id.clone());
            self.fresh.insert(alarm.alarm_id.clone());
        }
    }

    /// Looks for receipts and tells the engine.
    pub fn look(&mut self, now: Timestamp, engine: &mut Engine, outbox: &Outbox) {
        if self.looked_at.is_some_and(|at| at <= now && now < at + LOOK_EVERY) {
            return;
        }
        self.looked_at = Some(now);
        let from = self.after.take();
        let rest = self.awaited.iter().filter(|(alarm, _)| from.as_ref().is_none_or(|from| *alarm > from));
        let looked: Vec<(String, Asking)> =
            rest.take(LOOKS_MAX).map(|(id, asking)| (id.clone(), asking.clone())).collect();
        if looked.len() == LOOKS_MAX {
            self.after = looked.last().map(|(alarm, _)| alarm.clone());
        }
        for (alarm, asking) in looked {
            if self.fresh.contains(&alarm) {
                continue;
            }
            if engine.asks(&alarm) == Some(asking.rev) {
                let Some(at) = received_at(outbox, &asking.event, now) else { continue };
                engine.received(now, &alarm, asking.rev, at);
            }
            self.awaited.remove(&alarm);
            self.dirty.insert(alarm);
        }
        // One whose event is not known (its entry was lost) must not wait for ever.
        let lost: Vec<(String, u32)> = engine
            .asking()
            .filter(|asking| !self.awaited.contains_key(asking.alarm_id))
            .map(|asking| (asking.alarm_id.to_owned(), asking.rev))
            .collect();
        for (alarm, rev) in lost {
            engine.received(now, &alarm, rev, now);
        }
    }

    /// Puts what changed into the batch.
    pub fn put(&self, batch: &mut Batch) {
        for alarm in &self.dirty {
            let key = [PREFIX, alarm.as_bytes()].concat();
            match self.awaited.get(alarm) {
                Some(asking) => {
                    batch.put(&key, &serde_json::to_vec(asking).expect("text and a number have a JSON form"))
                }
                None => batch.delete(&key),
            }
        }
    }

    /// The batch is durable.
    pub fn committed(&mut self) {
        self.dirty.clear();
        self.fresh.clear();
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Timestamp> {
        (!self.awaited.is_empty()).then(|| self.looked_at.map_or(Timestamp::MIN, |at| at + LOOK_EVERY))
    }

    /// The clock was set.
    pub fn clock_stepped(&mut self) {
        self.looked_at = None;
    }
}

/// When the centre received an event; `None`: not yet. One that was received long ago is pruned, and one that was dropped at its lane's bound is
/// on the retained board: both count as received now.
pub(super) fn received_at(outbox: &Outbox, event: &str, now: Timestamp) -> Option<Timestamp> {
    match outbox.lookup(event) {
        Ok(Some(at)) if at.outcome == Outcome::Pending => None,
        Ok(Some(_)) => {
            let times = outbox.trace(event).ok().flatten();
            let at = times.and_then(|record| record.received_at_ms).and_then(|ms| Timestamp::from_millisecond(ms).ok());
            Some(at.unwrap_or(now))
        }
        Ok(None) => Some(now),
        // What cannot be read still counts as waiting.
        Err(_) => None,
    }
}
