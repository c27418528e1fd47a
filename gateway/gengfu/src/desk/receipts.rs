//! Receipts that are owed: gathered for a moment, so that a flood of events does not become a flood of receipts.
//!
//! Owns when they go: life safety at once, others after 20 ms or 100 of them. Refuses to know whether the events are stored: whoever
//! adds one has seen to that, or does before the receipts leave.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use super::model::ReceiptDue;
use crate::uplink::backoff::later;

/// Ids in one receipt at most.
const IDS_MAX: usize = 100;
/// The oldest waits at most this long.
const GATHER: Duration = Duration::from_millis(20);

/// Receipts owed, by gateway.
#[derive(Debug, Default)]
pub struct Receipts {
    owed: BTreeMap<Slug, Vec<String>>,
    due_at: Option<Timestamp>,
}

impl Receipts {
    /// Owes another.
    pub fn add(&mut self, receipt: ReceiptDue, now: Timestamp) {
        let ids = self.owed.entry(receipt.gateway).or_default();
        ids.push(receipt.id);
        let due_at = if receipt.at_once || ids.len() >= IDS_MAX { now } else { later(now, GATHER) };
        self.due_at = Some(self.due_at.map_or(due_at, |at| at.min(due_at)));
    }

    /// When they must go.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.due_at
    }

    /// What must go now, in receipts of at most 100 ids; empty when it is not time.
    pub fn take(&mut self, now: Timestamp) -> Vec<(Slug, Vec<String>)> {
        if self.due_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.due_at = None;
        let owed = std::mem::take(&mut self.owed);
        owed.into_iter()
            .flat_map(|(gateway, ids)| {
                ids.chunks(IDS_MAX).map(|chunk| (gateway.clone(), chunk.to_vec())).collect::<Vec<_>>()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    fn due(id: usize, at_once: bool) -> ReceiptDue {
        ReceiptDue { gateway: Slug::new("g").unwrap(), id: id.to_string(), at_once }
    }

    #[test]
    fn ordinary_receipts_are_gathered_for_20_ms() {
        let mut receipts = Receipts::default();
        receipts.add(due(1, false), at(0));
        receipts.add(due(2, false), later(at(0), Duration::from_millis(15)));
        assert_eq!(receipts.deadline(), Some(later(at(0), GATHER)));
        assert!(receipts.take(at(0)).is_empty());
        assert_eq!(receipts.take(later(at(0), GATHER)), [(Slug::new("g").unwrap(), vec!["1".into(), "2".into()])]);
        assert_eq!(receipts.deadline(), None);
    }

    #[test]
    fn life_safety_goes_at_once_and_takes_the_others_along() {
        let mut receipts = Receipts::default();
        receipts.add(due(1, false), at(0));
        receipts.add(due(2, true), at(0));
        assert_eq!(receipts.take(at(0))[0].1, ["1", "2"]);
    }

    #[test]
    fn a_hundred_go_at_once_and_more_than_a_hundred_are_split() {
        let mut receipts = Receipts::default();
        (0..150).for_each(|id| receipts.add(due(id, false), at(0)));
        let sizes: Vec<_> = receipts.take(at(0)).iter().map(|(_, ids)| ids.len()).collect();
        assert_eq!(sizes, [100, 50]);
    }
}
