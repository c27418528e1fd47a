//! The proof read off one gateway's strands: its journals, gaps, breaks.
//!
//! Owns the grouping of strands into journals and the naming of what is wrong between them. A gateway has one journal for life; a second
//! one means that the box was replaced, or its disk set back. It refuses to say whether a missing event may still come: that needs the
//! gateway's statement, which the reader of it knows.

use jiff::Timestamp;
use serde::Serialize;

use super::sequence::{SequenceLedger, Strand};

/// Missing ranges told at most.
const RANGES_TOLD: usize = 16;

/// One journal of a gateway, as far as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalView {
    /// First sequence received of it.
    pub first: u64,
    /// Last sequence received of it.
    pub last: u64,
    /// When the first of its events came.
    pub since: Timestamp,
    /// How it begins.
    pub root: Root,
}

/// How a journal begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// With event 1.
    Birth,
    /// It continues an older journal after this sequence: the disk was set back to that state.
    Fork {
        /// Last event that both have.
        after: u64,
    },
    /// Its beginning was not received.
    Unknown,
}

/// Events that were not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// First missing.
    pub first: u64,
    /// Last missing.
    pub last: u64,
    /// Of which journal, oldest first from 0.
    pub journal: usize,
    /// Since when the desk knows that they exist.
    pub since: Timestamp,
    /// The gateway journaled the event after the gap at this time, so the missing ones not later; absent at the end.
    pub recorded_before: Option<Timestamp>,
}

impl Gap {
    /// How many events.
    #[must_use]
    pub fn events(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
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
    /// Copies too old to compare, kept once more.
    pub again: u64,
    /// Copies that contradict each other.
    pub conflicts: u64,
    /// Ranges not received between the first and the last received or stated sequence; the first 16.
    pub missing: Vec<(u64, u64)>,
    /// The same ranges, with all that is known of them.
    pub gaps: Vec<Gap>,
    /// All events not received, those of ranges not told too.
    pub missing_events: u64,
    /// Events whose predecessor was received too and whose `prevhash` is its hash.
    pub chain_links: u64,
    /// Events whose `prevhash` is not the hash of their predecessor.
    pub chain_breaks: Vec<u64>,
    /// The last event whose hash the gateway's statement confirmed.
    pub confirmed: Option<u64>,
    /// Statements whose hash is not that of the event received.
    pub wrong_heads: Vec<u64>,
    /// The gateway's journals, oldest first; more than one is a finding.
    pub journals: Vec<JournalView>,
}

impl Proof {
    /// Reads the proof off the strands.
    #[must_use]
    pub fn of(ledger: &SequenceLedger) -> Self {
        let journals = group(ledger.strands());
        let (mut gaps, mut chain_breaks) = (Vec::new(), Vec::new());
        let mut missing_events: u64 = ledger.strands().iter().map(|s| s.holes).sum();
        for (index, strands) in journals.iter().enumerate() {
            for pair in strands.windows(2) {
                let (before, after) = (&pair[0], &pair[1]);
                match before.last.checked_add(1) {
                    Some(next) if next < after.first => gaps.push(Gap {
                        first: next,
                        last: after.first - 1,
                        journal: index,
                        since: noticed(strands, next),
                        recorded_before: Some(after.first_recorded_at),
                    }),
                    // They touch and do not fit, or the ledger would have joined them.
                    _ => chain_breaks.push(after.first),
                }
            }
        }
        gaps.extend(tail(ledger, &journals));
        missing_events = gaps.iter().fold(missing_events, |sum, gap| sum.saturating_add(gap.events()));
        gaps.sort_by_key(|gap| (gap.first, gap.journal));
        gaps.truncate(RANGES_TOLD);
        chain_breaks.sort_unstable();
        if ledger.false_births() > 0 {
            chain_breaks.insert(0, 1);
        }
        chain_breaks.truncate(RANGES_TOLD);
        Self {
            first: ledger.strands().iter().map(|s| s.first).min(),
            last: ledger.strands().iter().map(|s| s.last).max(),
            stated: ledger.stated().0,
            received: ledger.received(),
            duplicates: ledger.duplicates(),
            again: ledger.again(),
            conflicts: ledger.conflicts(),
            missing: gaps.iter().map(|gap| (gap.first, gap.last)).collect(),
            gaps,
            missing_events,
            chain_links: ledger.chain_links(),
            chain_breaks,
            confirmed: ledger.confirmed(),
            wrong_heads: ledger.wrong_heads().iter().map(|wrong| wrong.sequence).collect(),
            journals: views(ledger, &journals),
        }
    }

    /// Everything from the first to the last known event is here, of one journal, and the chain holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing_events == 0
            && self.conflicts == 0
            && self.chain_breaks.is_empty()
            && self.wrong_heads.is_empty()
            && self.journals.len() <= 1
    }

    /// What the breaks tell: events that were changed after the gateway hashed them, and breaks of which it cannot be told on which side
    /// the change is. An event that fits neither neighbour was changed together with its link; one whose link holds and to which
    /// the next does not fit was changed itself, unless that next one is the last and nothing vouches for it.
    #[must_use]
    pub fn changed(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut changed, mut either): (Vec<u64>, Vec<u64>) = Default::default();
        for &at in self.chain_breaks.iter().filter(|&&at| at > 1) {
            let next = at.saturating_add(1);
            let is_end = self.last == Some(at) && self.confirmed != Some(at)
                || self.missing.iter().any(|(first, _)| next == *first);
            if self.chain_breaks.contains(&next) {
                changed.push(at);
            } else if changed.last() == Some(&(at - 1)) {
                // Told already.
            } else if is_end {
                either.push(at);
            } else {
                changed.push(at - 1);
            }
        }
        (changed, either)
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
        if !self.wrong_heads.is_empty() {
            write!(f, ", WRONG HEAD at {:?}", self.wrong_heads)?;
        }
        if self.journals.len() > 1 {
            write!(f, ", {} JOURNALS", self.journals.len())?;
        }
        if self.conflicts > 0 {
            write!(f, ", {} CONFLICTS", self.conflicts)?;
        }
        write!(f, ", {} duplicates", self.duplicates)
    }
}

/// Strands that do not overlap are of one journal; one that overlaps is of the next. In the order of arrival, so that the oldest journal
/// is the first.
fn group(strands: &[Strand]) -> Vec<Vec<&Strand>> {
    let mut by_arrival: Vec<&Strand> = strands.iter().collect();
    // Almost always there is one journal, of many strands while lanes overtake each other: then it is simply in order.
    by_arrival.sort_unstable_by_key(|s| s.first);
    if by_arrival.windows(2).all(|pair| pair[0].last < pair[1].first) {
        return if by_arrival.is_empty() { Vec::new() } else { vec![by_arrival] };
    }
    by_arrival.sort_by_key(|s| (s.arrived_at, s.first));
    let mut journals: Vec<Vec<&Strand>> = Vec::new();
    for strand in by_arrival {
        let free = |journal: &Vec<&Strand>| journal.iter().all(|s| s.last < strand.first || strand.last < s.first);
        // The journal that was written to last before this strand is the one it goes on.
        let alive =
            |journal: &Vec<&Strand>| journal.iter().filter(|s| s.last < strand.first).map(|s| s.last_recorded_at).max();
        let home = (0..journals.len()).filter(|&at| free(&journals[at])).max_by_key(|&at| (alive(&journals[at]), at));
        match home {
            Some(at) => journals[at].push(strand),
            None => journals.push(vec![strand]),
        }
    }
    journals.iter_mut().for_each(|journal| journal.sort_unstable_by_key(|s| s.first));
    journals
}

/// The desk knows of a missing number since the first event above it came.
fn noticed(strands: &[&Strand], missing: u64) -> Timestamp {
    strands.iter().filter(|s| s.last > missing).map(|s| s.arrived_at).min().unwrap_or(Timestamp::MAX)
}

/// What was stated and did not come: at the end of the newest journal, and of older ones when the gateway went back.
fn tail(ledger: &SequenceLedger, journals: &[Vec<&Strand>]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let (stated, stated_at) = ledger.stated();
    let newest = journals.len().saturating_sub(1);
    let last = journals.last().and_then(|journal| journal.last()).map(|s| s.last);
    if let (Some(last), Some(since)) = (last, stated_at)
        && stated > last
    {
        gaps.push(Gap { first: last + 1, last: stated, journal: newest, since, recorded_before: None });
    }
    for back in ledger.went_back().iter().filter(|back| back.from > back.received && back.received > 0) {
        let (first, last) = (back.received + 1, back.from);
        gaps.push(Gap { first, last, journal: 0, since: back.at, recorded_before: None });
    }
    gaps
}

fn views(ledger: &SequenceLedger, journals: &[Vec<&Strand>]) -> Vec<JournalView> {
    let view = |strands: &Vec<&Strand>| {
        let (first, last) = (strands.first()?, strands.last()?);
        let root = match first.first.checked_sub(1) {
            Some(0) => Root::Birth,
            Some(after) if journals.len() > 1 && ledger.has(after, first.prev) => Root::Fork { after },
            _ => Root::Unknown,
        };
        let since = strands.iter().map(|s| s.arrived_at).min()?;
        Some(JournalView { first: first.first, last: last.last, since, root })
    };
    journals.iter().filter_map(view).collect()
}
