//! What the decider has not taken yet.
//!
//! Owns the observations of one line or broker until they are durable, and their numbers, so that whoever must be answered (a broker
//! that waits for a PUBACK) knows when. Refuses to grow without bound: when the disk refuses for long, levels that were followed by newer ones of
//! the same device are merged, and counted; smoke and emergency calls are never merged away.

use std::collections::{BTreeSet, VecDeque};

use gengfu_alarm::observation::{Observation, Smoke, What};
use gengfu_contract::slug::Slug;

/// Above this many, older levels are merged into newer ones.
const WAITING_MAX: usize = 2048;
/// Most observations of one batch.
const BATCH_MAX: usize = 256;

/// The queue.
#[derive(Debug, Clone, Default)]
pub struct Outgoing {
    waiting: VecDeque<(u64, Observation)>,
    in_flight: Option<Vec<(u64, Observation)>>,
    last: u64,
    committed_to: u64,
    merged: u64,
    /// Merging is tried again above this; it grows when nothing could be merged.
    merge_above: usize,
}

impl Outgoing {
    /// Takes an observation. A heartbeat behind another one of the same device says nothing new.
    pub fn push(&mut self, seen: Observation) {
        let is_beat = seen.what == What::Heartbeat;
        if is_beat && self.waiting.iter().any(|(_, other)| other.device == seen.device) {
            return;
        }
        self.last += 1;
        self.waiting.push_back((self.last, seen));
        if self.waiting.len() > self.merge_above.max(WAITING_MAX) {
            self.merge();
            self.merge_above = self.waiting.len() + WAITING_MAX / 2;
        }
    }

    /// Number of the newest observation; see [`Self::is_settled`].
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether everything up to this number is durable.
    #[must_use]
    pub fn is_settled(&self, number: u64) -> bool {
        number <= self.committed_to || (self.waiting.is_empty() && self.in_flight.is_none())
    }

    /// Whether a batch can be taken now.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        self.in_flight.is_none() && !self.waiting.is_empty()
    }

    /// The next batch, and whether it is all there is. `None` while one is on its way.
    pub fn take(&mut self) -> Option<(Vec<Observation>, bool)> {
        if !self.has_batch() {
            return None;
        }
        let count = self.waiting.len().min(BATCH_MAX);
        let batch: Vec<_> = self.waiting.drain(..count).collect();
        let observations = batch.iter().map(|(_, seen)| seen.clone()).collect();
        self.in_flight = Some(batch);
        Some((observations, self.waiting.is_empty()))
    }

    /// The batch is durable.
    pub fn committed(&mut self) {
        if let Some((number, _)) = self.in_flight.take().and_then(|batch| batch.last().cloned()) {
            self.committed_to = self.committed_to.max(number);
        }
    }

    /// The batch is not durable; it goes first again.
    pub fn failed(&mut self) {
        for entry in self.in_flight.take().into_iter().flatten().rev() {
            self.waiting.push_front(entry);
        }
    }

    /// Observations merged away since the start.
    #[must_use]
    pub fn merged(&self) -> u64 {
        self.merged
    }

    fn merge(&mut self) {
        let mut newer: BTreeSet<(Slug, &'static str)> = BTreeSet::new();
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        for (number, seen) in std::mem::take(&mut self.waiting).into_iter().rev() {
            let is_newest = newer.insert((seen.device.clone(), word(&seen.what)));
            if is_newest || matches!(seen.what, What::SosPressed) {
                kept.push_front((number, seen));
            } else {
                self.merged += 1;
            }
        }
        self.waiting = kept;
    }
}

/// What replaces each other. Each state of a head is a word of its own: an alarm that is over was an alarm.
fn word(what: &What) -> &'static str {
    match what {
        What::Door { .. } => "door",
        What::Smoke(Smoke::Alarm) => "alarm",
        What::Smoke(Smoke::Hushed) => "hushed",
        What::Smoke(Smoke::Test) => "test",
        What::Smoke(Smoke::Clear) => "clear",
        What::SosPressed => "sos",
        What::Tamper(_) => "tamper",
        What::Battery { .. } => "battery",
        What::DeviceFault(_) => "fault",
        What::Contaminated(_) => "contaminated",
        What::EndOfLife(_) => "end_of_life",
        What::Link(_) => "link",
        What::Heartbeat => "heartbeat",
        What::EventsLost { .. } | What::Scene(_) | What::Camera(_) | What::Still { .. } => "other",
    }
}

#[cfg(test)]
mod tests {
    use gengfu_contract::event::ClockQuality;
    use jiff::Timestamp;

    use super::*;

    fn seen(device: &str, what: What) -> Observation {
        let sensed_at = Timestamp::UNIX_EPOCH;
        let device = Slug::new(device).unwrap();
        Observation { device, sensed_at, clock: ClockQuality::Synced, origin: None, what }
    }

    #[test]
    fn a_refused_batch_goes_first_again_and_is_settled_only_when_durable() {
        let mut out = Outgoing::default();
        out.push(seen("a", What::SosPressed));
        let first = out.last();
        let (batch, all) = out.take().unwrap();
        assert!(all && !out.is_settled(first));
        out.push(seen("b", What::Tamper(true)));
        assert!(out.take().is_none(), "one at a time");
        out.failed();
        let (again, all) = out.take().unwrap();
        assert_eq!((again[0].clone(), again.len(), all), (batch[0].clone(), 2, true));
        out.committed();
        assert!(out.is_settled(first) && out.is_settled(out.last()));
    }

    #[test]
    fn heartbeats_do_not_pile_up() {
        let mut out = Outgoing::default();
        for _ in 0..3 {
            out.push(seen("a", What::Heartbeat));
        }
        assert_eq!(out.take().unwrap().0.len(), 1);
    }

    #[test]
    fn while_the_disk_refuses_levels_merge_and_no_alarm_is_lost() {
        let mut out = Outgoing::default();
        out.push(seen("head", What::Smoke(Smoke::Alarm)));
        out.push(seen("head", What::Smoke(Smoke::Clear)));
        out.push(seen("sos", What::SosPressed));
        out.push(seen("sos", What::SosPressed));
        for n in 0..20_000 {
            out.push(seen("door", What::Door { open: n % 2 == 0, repaired: false }));
        }
        assert!(out.waiting.len() < 4 * WAITING_MAX, "{}", out.waiting.len());
        assert!(out.merged() > 10_000);
        let kept: Vec<_> = out.waiting.iter().take(4).map(|(_, seen)| seen.what.clone()).collect();
        let (alarm, clear) = (What::Smoke(Smoke::Alarm), What::Smoke(Smoke::Clear));
        assert_eq!(kept, [alarm, clear, What::SosPressed, What::SosPressed]);
        assert_eq!(out.waiting.back().unwrap().1.what, What::Door { open: false, repaired: false });
    }
}
