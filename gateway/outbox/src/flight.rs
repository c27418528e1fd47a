//! What is known in memory only: which items are in flight, how often and when they were sent, where the backlog ends,
//! and which items the batch being built is about to drop. Losing it (a restart) only means that everything not received is sent again. Refuses
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
    /// How many of them there are per lane.
    taken_of: [u64; 7],
    doomed: BTreeSet<ItemKey>,
    unreadable: BTreeSet<ItemKey>,
    /// Items up to this position are backlog, later ones are live.
    boundary: (u64, u32),
    /// Per lane, no item of the backlog before this position is free to be taken. Beyond the boundary: none at all.
    cursor: [(u64, u32); 7],
    /// Per lane, no live item before this position is free to be taken.
    live: [(u64, u32); 7],
    times: HashMap<ItemKey, StageTimes>,
}

impl Flight {
    /// Nothing in flight; all that is there is backlog.
    pub fn opened(head: HeadRecord) -> Flight {
        let mut flight = Flight { boundary: head.position(), ..Flight::default() };
        flight.reopened(head);
        flight
    }

    /// Starts over after the store was (re)opened. What is in flight stays so: its sender still waits for the receipt.
    pub fn reopened(&mut self, head: HeadRecord) {
        self.boundary = self.boundary.min(head.position());
        self.head = head;
        self.cursor = [(0, 0); 7];
        self.live = [after(self.boundary); 7];
        self.doomed.clear();
        self.unreadable.clear();
    }

    /// Everything appended so far is backlog from now on.
    pub fn mark_backlog(&mut self) {
        let boundary = self.head.position();
        for (cursor, live) in self.cursor.iter_mut().zip(&mut self.live) {
            if *cursor > self.boundary {
                *cursor = *live;
            }
            *live = after(boundary);
        }
        self.boundary = boundary;
    }

    pub fn boundary(&self) -> (u64, u32) {
        self.boundary
    }

    pub fn is_backlog(&self, key: ItemKey) -> bool {
        key.position() <= self.boundary
    }

    /// Where the lane's backlog is to be searched from; beyond the boundary when none of it is free.
    pub fn cursor(&self, lane: Lane) -> (u64, u32) {
        self.cursor[lane.index()]
    }

    /// Where the lane's live items are to be searched from.
    pub fn live(&self, lane: Lane) -> (u64, u32) {
        self.live[lane.index()]
    }

    /// Notes that no item of the lane on this side of the boundary, up to and including `key`, is free.
    pub fn pass(&mut self, key: ItemKey) {
        let next = after(key.position());
        if self.is_backlog(key) {
            self.cursor[key.lane.index()] = next;
        } else {
            self.live[key.lane.index()] = next;
        }
    }

    /// Notes that nothing of the lane's backlog is free.
    pub fn pass_backlog(&mut self, lane: Lane) {
        self.cursor[lane.index()] = after(self.boundary);
    }

    /// True when the item may be handed out or dropped.
    pub fn is_free(&self, key: ItemKey) -> bool {
        !self.taken.contains(&key) && !self.doomed.contains(&key) && !self.unreadable.contains(&key)
    }

    /// Puts the item in flight; returns how often it was taken, this time included.
    pub fn take(&mut self, key: ItemKey) -> u32 {
        self.taken_of[key.lane.index()] += u64::from(self.taken.insert(key));
        let times = self.times.entry(key).or_default();
        times.attempts = times.attempts.saturating_add(1);
        times.attempts
    }

    pub fn release(&mut self, key: ItemKey) {
        if self.untake(key) {
            self.rewind(key);
        }
    }

    fn untake(&mut self, key: ItemKey) -> bool {
        let was_taken = self.taken.remove(&key);
        self.taken_of[key.lane.index()] -= u64::from(was_taken);
        was_taken
    }

    pub fn release_all(&mut self) {
        self.taken_of = [0; 7];
        for key in std::mem::take(&mut self.taken) {
            self.rewind(key);
        }
    }

    /// Forgets an item that is received or dropped.
    pub fn forget(&mut self, key: ItemKey) {
        self.untake(key);
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

    /// Per lane, how many items are pending and not in flight.
    pub fn waiting(&self) -> [u64; 7] {
        Lane::ALL.map(|lane| self.head.pending[lane.index()].saturating_sub(self.in_flight(lane)))
    }

    pub fn in_flight(&self, lane: Lane) -> u64 {
        self.taken_of[lane.index()]
    }

    fn rewind(&mut self, key: ItemKey) {
        let side = if self.is_backlog(key) { &mut self.cursor } else { &mut self.live };
        let cursor = &mut side[key.lane.index()];
        *cursor = (*cursor).min(key.position());
    }
}

/// The next position. A sub never reaches its end: that would be four thousand million attachments after one event.
fn after((sequence, sub): (u64, u32)) -> (u64, u32) {
    (sequence, sub.saturating_add(1))
}
