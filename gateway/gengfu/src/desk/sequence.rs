//! Proof that nothing is missing: one gateway's numbers and hashes, checked as they arrive.
//!
//! Owns three questions: which sequences have come, were copies of one event alike, and does each event carry the hash of the one
//! before it. Events of different lanes overtake each other, so all of it works in any order of arrival. It refuses to call
//! something missing that may still be on its way: that is told from the gateway's statement.

use std::collections::BTreeMap;

use gengfu_contract::chain;
use gengfu_contract::event::Event;
use serde::Serialize;

/// Events remembered for comparing copies and hashes. Older copies are still recognised as duplicates by their sequence.
const REMEMBERED: usize = 65_536;
/// Missing ranges told at most.
const RANGES_TOLD: usize = 16;

/// What arrived of one gateway's journal.
#[derive(Debug, Clone, Default)]
pub struct SequenceLedger {
    /// Received ranges: first sequence to last.
    ranges: BTreeMap<u64, u64>,
    recent: BTreeMap<u64, Seen>,
    received: u64,
    duplicates: u64,
    conflicts: u64,
    chain_links: u64,
    chain_breaks: Vec<u64>,
    /// The gateway's own word: events 1 to this number exist.
    stated: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    id: String,
    hash: [u8; 32],
    prev_hash: String,
}

/// What an arriving event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Not seen before.
    New,
    /// A copy of one that was seen, alike in all that is hashed.
    Duplicate,
    /// The sequence of another event, or the same event with other content: the gateway (or somebody in between) contradicts itself.
    Conflict,
}

/// The proof in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// First sequence received; absent before the first event. Above 1 when another desk took the ones before.
    pub first: Option<u64>,
    /// Last sequence received.
    pub last: Option<u64>,
    /// Events 1 to this exist, as the gateway states.
    pub stated: u64,
    /// Distinct events received.
    pub received: u64,
    /// Further copies of them.
    pub duplicates: u64,
    /// Copies that contradict each other.
    pub conflicts: u64,
    /// Ranges not received between the first and the last received or stated sequence; the first 16.
    pub missing: Vec<(u64, u64)>,
    /// Events whose predecessor was received too and whose `prevhash` is its hash.
    pub chain_links: u64,
    /// Events whose `prevhash` is not the hash of their predecessor.
    pub chain_breaks: Vec<u64>,
}

impl Proof {
    /// Everything from the first to the last known event is here, and the chain holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.conflicts == 0 && self.chain_breaks.is_empty()
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(first), Some(last)) = (self.first, self.last) else { return f.write_str("nothing received yet") };
        write!(f, "received {first}…{last}, ")?;
        match self.missing.as_slice() {
            [] => f.write_str("nothing missing, ")?,
            missing => {
                let text = |(a, b): &(u64, u64)| if a == b { a.to_string() } else { format!("{a}…{b}") };
                write!(f, "missing {}, ", missing.iter().map(text).collect::<Vec<_>>().join(" "))?;
            }
        }
        match self.chain_breaks.as_slice() {
            [] => f.write_str("chain ok")?,
            breaks => write!(f, "CHAIN BROKEN at {breaks:?}")?,
        }
        if self.conflicts > 0 {
            write!(f, ", {} CONFLICTS", self.conflicts)?;
        }
        write!(f, ", {} duplicates", self.duplicates)
    }
}

impl SequenceLedger {
    /// Takes an event as it arrived.
    pub fn take(&mut self, event: &Event) -> Arrival {
        // Data that has no JSON form cannot have come out of JSON.
        let hash = chain::canonical(event).map(|bytes| chain::hash(&bytes)).unwrap_or_default();
        if self.contains(event.sequence) {
            let alike = self.recent.get(&event.sequence).is_none_or(|seen| seen.id == event.id && seen.hash == hash);
            return if alike {
                self.duplicates += 1;
                Arrival::Duplicate
            } else {
                self.conflicts += 1;
                Arrival::Conflict
            };
        }
        self.received += 1;
        self.add(event.sequence);
        self.check_links(event, &hash);
        let seen = Seen { id: event.id.clone(), hash, prev_hash: event.prevhash.clone() };
        self.recent.insert(event.sequence, seen);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_first();
        }
        Arrival::New
    }

    /// The gateway states that events 1 to `sequence` exist.
    pub fn state(&mut self, sequence: u64) {
        self.stated = self.stated.max(sequence);
    }

    /// The proof as it stands.
    #[must_use]
    pub fn proof(&self) -> Proof {
        let first = self.ranges.keys().next().copied();
        let last = self.ranges.values().next_back().copied();
        let mut missing = Vec::new();
        let mut next = first.unwrap_or(1);
        for (from, to) in &self.ranges {
            if *from > next {
                missing.push((next, from - 1));
            }
            next = to.saturating_add(1);
        }
        if first.is_some() && self.stated >= next {
            missing.push((next, self.stated));
        }
        missing.truncate(RANGES_TOLD);
        Proof {
            first,
            last,
            stated: self.stated,
            received: self.received,
            duplicates: self.duplicates,
            conflicts: self.conflicts,
            missing,
            chain_links: self.chain_links,
            chain_breaks: self.chain_breaks.clone(),
        }
    }

    fn contains(&self, sequence: u64) -> bool {
        self.ranges.range(..=sequence).next_back().is_some_and(|(_, to)| *to >= sequence)
    }

    fn add(&mut self, sequence: u64) {
        let before = self.ranges.range(..sequence).next_back().map(|(from, to)| (*from, *to));
        let from = match before {
            Some((from, to)) if to.checked_add(1) == Some(sequence) => from,
            _ => sequence,
        };
        let after = sequence.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(from, after.unwrap_or(sequence));
    }

    fn check_links(&mut self, event: &Event, hash: &[u8; 32]) {
        let sequence = event.sequence;
        if sequence == 1 {
            self.judge(1, event.prevhash.eq_ignore_ascii_case(&hex::encode(chain::GENESIS)));
        } else if let Some(before) = sequence.checked_sub(1).and_then(|before| self.recent.get(&before)) {
            let holds = event.prevhash.eq_ignore_ascii_case(&hex::encode(before.hash));
            self.judge(sequence, holds);
        }
        if let Some(after) = sequence.checked_add(1).and_then(|after| self.recent.get(&after)) {
            let holds = after.prev_hash.eq_ignore_ascii_case(&hex::encode(hash));
            self.judge(sequence.saturating_add(1), holds);
        }
    }

    fn judge(&mut self, sequence: u64, holds: bool) {
        if holds {
            self.chain_links += 1;
        } else if self.chain_breaks.len() < RANGES_TOLD {
            self.chain_breaks.push(sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::chain_of;
    use super::*;

    #[test]
    fn in_any_order_of_arrival_the_proof_is_the_same() {
        let events = chain_of(6);
        let mut ledger = SequenceLedger::default();
        for index in [4, 0, 5, 2, 1, 3] {
            assert_eq!(ledger.take(&events[index]), Arrival::New);
        }
        let proof = ledger.proof();
        assert!(proof.holds());
        assert_eq!((proof.first, proof.last, proof.received, proof.chain_links), (Some(1), Some(6), 6, 6));
        assert_eq!(proof.to_string(), "received 1…6, nothing missing, chain ok, 0 duplicates");
    }

    #[test]
    fn a_gap_is_named_and_the_statement_shows_what_is_missing_at_the_end() {
        let events = chain_of(6);
        let mut ledger = SequenceLedger::default();
        for index in [0, 1, 4] {
            ledger.take(&events[index]);
        }
        assert_eq!(ledger.proof().missing, [(3, 4)]);
        ledger.state(6);
        assert_eq!(ledger.proof().missing, [(3, 4), (6, 6)]);
        assert_eq!(ledger.proof().to_string(), "received 1…5, missing 3…4 6, chain ok, 0 duplicates");
    }

    #[test]
    fn copies_are_counted_and_a_copy_that_differs_is_a_conflict() {
        let events = chain_of(2);
        let mut ledger = SequenceLedger::default();
        ledger.take(&events[0]);
        let mut copy = events[0].clone();
        copy.attempt = Some(2);
        assert_eq!(ledger.take(&copy), Arrival::Duplicate);
        copy.id = "another".into();
        assert_eq!(ledger.take(&copy), Arrival::Conflict);
        let proof = ledger.proof();
        assert_eq!((proof.received, proof.duplicates, proof.conflicts), (1, 1, 1));
        assert!(!proof.holds());
    }

    #[test]
    fn a_changed_event_breaks_the_chain_whichever_side_arrives_first() {
        for order in [[0, 1, 2], [2, 1, 0]] {
            let mut events = chain_of(3);
            events[1].data["what"] = "door.closed".into();
            let mut ledger = SequenceLedger::default();
            for index in order {
                ledger.take(&events[index]);
            }
            assert_eq!(ledger.proof().chain_breaks, [3]);
        }
    }

    #[test]
    fn a_desk_that_starts_late_begins_where_it_began() {
        let events = chain_of(5);
        let mut ledger = SequenceLedger::default();
        ledger.take(&events[3]);
        ledger.take(&events[4]);
        let proof = ledger.proof();
        assert!(proof.holds());
        assert_eq!((proof.first, proof.chain_links), (Some(4), 1));
    }

    #[test]
    fn extreme_sequences_do_not_overflow() {
        let mut ledger = SequenceLedger::default();
        for sequence in [u64::MAX, 0, u64::MAX - 1] {
            let mut event = chain_of(1).remove(0);
            event.sequence = sequence;
            assert_eq!(ledger.take(&event), Arrival::New);
        }
        assert_eq!(ledger.proof().missing, [(1, u64::MAX - 2)]);
    }
}
