//! What is known in memory only: which items are in flight, how often and when they were sent, and which the batch
//! being built is about to drop. Losing it (a restart) only means that everything not received is sent again. Refuses
//! to touch the disk.

use std::collections::{BTreeSet, HashMap};

use crate::{
    ItemKey, Lane, Stage,
    layout::{HeadRecord, StageTimes},
};

/// The memory side of delivery.
#[derive(Default)]
pub(crate) struct Flight {
    /// The head as readers may see it: never ahead of what is synced.
    pub head: HeadRecord,
    taken: BTreeSet<ItemKey>,
    doomed: BTreeSet<ItemKey>,
    unreadable: BTreeSet<ItemKey>,
    /// Per lane, no item before this position is free to be taken.
    cursor: [(u64, u32); 7],
    times: HashMap<ItemKey, StageTimes>,
}

impl Flight {
    /// Starts over after the store was (re)opened. What is in flight stays so: its sender still waits for the receipt.
    pub fn reopened(&mut self, head: HeadRecord) {
        self.head = head;
        self.cursor = [(0, 0); 7];
        self.doomed.clear();
        self.unreadable.clear();
    }

    pub fn cursor(&self, lane: Lane) -> (u64, u32) {
        self.cursor[lane.index()]
    }

    /// Notes that no item of the lane up to and including `key` is free.
    pub fn pass(&mut self, key: ItemKey) {
        // A sub never reaches its end: that would be four thousand million attachments after one event.
        self.cursor[key.lane.index()] = (key.sequence, key.sub.saturating_add(1));
    }

    /// True when the item may be handed out or dropped.
    pub fn is_free(&self, key: ItemKey) -> bool {
        !self.taken.contains(&key) && !self.doomed.contains(&key) && !self.unreadable.contains(&key)
    }

    /// Puts the item in flight; returns how often it was taken, this time included.
    pub fn take(&mut self, key: ItemKey) -> u32 {
        self.taken.insert(key);
        let times = self.times.entry(key).or_default();
        times.attempts = times.attempts.saturating_add(1);
        times.attempts
    }

    pub fn release(&mut self, key: ItemKey) {
        if self.taken.remove(&key) {
            self.rewind(key);
        }
    }

    pub fn release_all(&mut self) {
        for key in std::mem::take(&mut self.taken) {
            self.rewind(key);
        }
    }

    /// Forgets an item that is received or dropped.
    pub fn forget(&mut self, key: ItemKey) {
        self.taken.remove(&key);
        self.doomed.remove(&key);
        self.times.remove(&key);
    }

    /// Keeps the item from being taken while a batch that drops it is open.
    pub fn doom(&mut self, key: ItemKey) {
        self.doomed.insert(key);
    }

    /// The batch that would have dropped the item was abandoned.
    pub fn spare(&mut self, key: ItemKey) {
        if self.doomed.remove(&key) {
            self.rewind(key);
        }
    }

    pub fn set_unreadable(&mut self, key: ItemKey) {
        self.unreadable.insert(key);
    }

    pub fn unreadable(&self) -> u64 {
        self.unreadable.len() as u64
    }

    /// Notes a stage's time of an item taken before; of any other it is ignored (a PUBACK may come after the receipt).
    pub fn mark(&mut self, key: ItemKey, stage: Stage, at_ms: i64) {
        if let Some(times) = self.times.get_mut(&key) {
            match stage {
                Stage::Sent => times.sent_at_ms = Some(at_ms),
                Stage::BrokerAcked => times.broker_acked_at_ms = Some(at_ms),
            }
        }
    }

    pub fn times(&self, key: ItemKey) -> StageTimes {
        self.times.get(&key).copied().unwrap_or_default()
    }

    pub fn in_flight(&self, lane: Lane) -> u64 {
        let all = ItemKey { lane, sequence: 0, sub: 0 }..=ItemKey { lane, sequence: u64::MAX, sub: u32::MAX };
        self.taken.range(all).count() as u64
    }

    fn rewind(&mut self, key: ItemKey) {
        let cursor = &mut self.cursor[key.lane.index()];
        *cursor = (*cursor).min(key.position());
    }
}
