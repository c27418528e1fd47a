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
/// Ids owed to one gateway while receipts are held; it sends again what is forgotten.
const HELD_MAX: usize = 10_000;
/// The oldest waits at most this long.
const GATHER: Duration = Duration::from_millis(20);

/// Receipts owed, by gateway.
#[derive(Debug, Default)]
pub struct Receipts {
    owed: BTreeMap<Slug, Vec<String>>,
    due_at: Option<Timestamp>,
    /// They wait for an order.
    is_held: bool,
    /// And the order came.
    is_released: bool,
}

impl Receipts {
    /// Owes another.
    pub fn add(&mut self, receipt: ReceiptDue, now: Timestamp) {
        let ids = self.owed.entry(receipt.gateway).or_default();
        if self.is_held && (ids.len() >= HELD_MAX || ids.contains(&receipt.id)) {
            return;
        }
        ids.push(receipt.id);
        let due_at = if receipt.at_once || ids.len() >= IDS_MAX { now } else { later(now, GATHER) };
        self.due_at = Some(self.due_at.map_or(due_at, |at| at.min(due_at)));
    }

    /// When they must go.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.due_at.filter(|_| !self.is_held || self.is_released)
    }

    /// Holds receipts back until [`Self::release`], or no longer.
    pub fn hold(&mut self, holds: bool) {
        self.is_held = holds;
    }

    /// What is held must go at `now`; what comes later is held again.
    pub fn release(&mut self, now: Timestamp) {
        self.is_released = true;
        self.due_at = self.due_at.map(|at| at.min(now));
    }

    /// Forgets what is owed: it is not stored after all, and will come again.
    pub fn forget(&mut self) {
        self.owed.clear();
        self.due_at = None;
    }

    /// Ids owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.values().map(Vec::len).sum()
    }

    /// What must go now, in at most `messages_max` receipts of at most 100 ids; empty when it is not time. What finds no room stays due.
    pub fn take(&mut self, now: Timestamp, messages_max: usize) -> Vec<(Slug, Vec<String>)> {
        let mut taken = Vec::new();
        if self.deadline().is_none_or(|at| now < at) {
            return taken;
        }
        while taken.len() < messages_max {
            let Some(mut entry) = self.owed.first_entry() else { break };
            let count = entry.get().len().min(IDS_MAX);
            let rest = entry.get_mut().split_off(count);
            let ids = std::mem::replace(entry.get_mut(), rest);
            taken.push((entry.key().clone(), ids));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        if self.owed.is_empty() {
            (self.due_at, self.is_released) = (None, false);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gengfu_contract::testing::at;

    fn due(id: usize, at_once: bool) -> ReceiptDue {
        ReceiptDue { gateway: Slug::new("g").unwrap(), id: id.to_string(), at_once }
    }

    #[test]
    fn ordinary_receipts_are_gathered_for_20_ms() {
        let mut receipts = Receipts::default();
        receipts.add(due(1, false), at(0));
        receipts.add(due(2, false), later(at(0), Duration::from_millis(15)));
        assert_eq!(receipts.deadline(), Some(later(at(0), GATHER)));
        assert!(receipts.take(at(0), 9).is_empty());
        assert_eq!(receipts.take(later(at(0), GATHER), 9), [(Slug::new("g").unwrap(), vec!["1".into(), "2".into()])]);
        assert_eq!(receipts.deadline(), None);
    }

    #[test]
    fn life_safety_goes_at_once_and_takes_the_others_along() {
        let mut receipts = Receipts::default();
        receipts.add(due(1, false), at(0));
        receipts.add(due(2, true), at(0));
        assert_eq!(receipts.take(at(0), 9)[0].1, ["1", "2"]);
    }

    #[test]
    fn a_hundred_go_at_once_and_more_than_a_hundred_are_split() {
        let mut receipts = Receipts::default();
        (0..150).for_each(|id| receipts.add(due(id, false), at(0)));
        let sizes: Vec<_> = receipts.take(at(0), 9).iter().map(|(_, ids)| ids.len()).collect();
        assert_eq!(sizes, [100, 50]);
    }

    #[test]
    fn a_thousand_gateways_are_served_in_turns_of_what_the_wire_takes() {
        let mut receipts = Receipts::default();
        for n in 0..1000 {
            receipts.add(
                ReceiptDue { gateway: Slug::new(format!("g-{n}")).unwrap(), id: "1".into(), at_once: true },
                at(0),
            );
        }
        let mut served = std::collections::BTreeSet::new();
        while receipts.deadline().is_some() {
            let taken = receipts.take(at(0), 64);
            assert!((1..=64).contains(&taken.len()));
            served.extend(taken.into_iter().map(|(gateway, _)| gateway));
        }
        assert_eq!((served.len(), receipts.owed()), (1000, 0));
    }

    #[test]
    fn held_receipts_go_when_it_is_ordered_and_later_ones_are_held_again() {
        let mut receipts = Receipts::default();
        receipts.hold(true);
        receipts.add(due(1, true), at(0));
        receipts.add(due(1, true), at(1));
        assert_eq!((receipts.deadline(), receipts.owed()), (None, 1));
        assert!(receipts.take(at(9), 9).is_empty());
        receipts.release(at(9));
        assert_eq!(receipts.take(at(9), 9)[0].1, ["1"]);
        receipts.add(due(2, true), at(10));
        assert!(receipts.take(at(10), 9).is_empty());
        receipts.hold(false);
        assert_eq!(receipts.take(at(11), 9).len(), 1);
    }
}
