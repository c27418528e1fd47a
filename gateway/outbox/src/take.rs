//! Choosing what is sent next. Owns the order: lanes, live before backlog, and no item of a group before an earlier one of it;
//! refuses to know why an item waits. Holds nothing per item of a backlog: groups are looked up in the store.

use crate::{
    Item, ItemKey, Lane, OutboxError,
    flight::Flight,
    layout::{PendingRecord, group_prefix, parse_group_key, parse_pending_key, pending_at},
    settle::read_record,
    store::Store,
};

/// How many items of its group's backlog a live item brings with it in one `take`. Bounds how long one long story may hold up
/// what else is live.
pub(crate) const STORY_MAX: usize = 16;

/// One `take` under way.
pub(crate) struct Taking<'a> {
    pub store: &'a Store,
    pub flight: &'a mut Flight,
    pub limit: usize,
    /// How many items of each lane wait, at most: where none is left there is nothing to look for.
    pub waiting: [u64; 7],
    pub items: Vec<Item>,
}

impl Taking<'_> {
    /// Takes from one lane.
    pub fn lane(&mut self, lane: Lane, with_backlog: bool) -> Result<(), OutboxError> {
        if !self.is_done(lane) {
            self.live(lane)?;
        }
        if with_backlog && !self.is_done(lane) {
            self.backlog(lane)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.limit
    }

    fn is_done(&self, lane: Lane) -> bool {
        self.is_full() || self.waiting[lane.index()] == 0
    }

    fn live(&mut self, lane: Lane) -> Result<(), OutboxError> {
        let durable = self.flight.head.position();
        let prefix = [pending_at(lane, (0, 0))[0], lane as u8];
        // While every item so far is in flight, the next search may begin behind it. Few stay behind: each of them has just
        // brought a full share of its story.
        let mut all_passed = true;
        for entry in self.store.range(&pending_at(lane, self.flight.live(lane)), &prefix) {
            let (raw, value) = entry?;
            let Some(key) = parse_pending_key(&raw) else { continue };
            if key.position() > durable || self.is_full() {
                break;
            }
            if self.flight.is_free(key) {
                let group = PendingRecord::decode(&value).map_or(0, |pending| pending.group);
                if !self.story_before(key, group)? || self.is_full() {
                    all_passed = false;
                    continue;
                }
                self.item(key)?;
            }
            if all_passed {
                self.flight.pass(key);
            }
            if self.is_done(lane) {
                break;
            }
        }
        Ok(())
    }

    fn backlog(&mut self, lane: Lane) -> Result<(), OutboxError> {
        let last = self.flight.boundary().min(self.flight.head.position());
        if self.flight.cursor(lane) > last {
            return Ok(());
        }
        let prefix = [pending_at(lane, (0, 0))[0], lane as u8];
        for entry in self.store.range(&pending_at(lane, self.flight.cursor(lane)), &prefix) {
            let (raw, _) = entry?;
            let Some(key) = parse_pending_key(&raw) else { continue };
            if key.position() > last {
                break;
            }
            if self.is_full() {
                return Ok(());
            }
            if self.flight.is_free(key) {
                self.item(key)?;
            }
            self.flight.pass(key);
            if self.is_done(lane) {
                return Ok(());
            }
        }
        self.flight.pass_backlog(lane);
        Ok(())
    }

    /// Takes the waiting items of the group before `key`, oldest first. `false` when some are left.
    fn story_before(&mut self, key: ItemKey, group: u64) -> Result<bool, OutboxError> {
        // Of a lane in which one item waits, that is this one.
        if group == 0 || self.waiting[key.lane.index()] == 1 {
            return Ok(true);
        }
        let prefix = group_prefix(key.lane, group);
        let mut brought = 0;
        for entry in self.store.range(&prefix, &prefix) {
            let (raw, _) = entry?;
            let Some(earlier) = parse_group_key(&raw) else { continue };
            if earlier >= key {
                break;
            }
            if !self.flight.is_free(earlier) {
                continue;
            }
            // The share is of the backlog. What is live and waited for the end of the story goes with it: were it left, what
            // is live of other groups would overtake it though nothing is in its way any more.
            if (brought >= STORY_MAX && self.flight.is_backlog(earlier)) || self.is_full() {
                return Ok(false);
            }
            self.item(earlier)?;
            brought += 1;
        }
        Ok(true)
    }

    /// Takes one free item.
    fn item(&mut self, key: ItemKey) -> Result<(), OutboxError> {
        match read_record(self.store, key.position()) {
            Ok(Some((header, bytes))) => {
                let waiting = &mut self.waiting[key.lane.index()];
                *waiting = waiting.saturating_sub(1);
                self.items.push(Item {
                    key,
                    lane: key.lane,
                    id: header.id,
                    sequence: key.sequence(),
                    appended_at_ms: header.at_ms,
                    bytes,
                    attempts: self.flight.take(key),
                    is_backlog: self.flight.is_backlog(key),
                });
            }
            Ok(None) | Err(OutboxError::Damaged { .. }) => self.flight.set_unreadable(key),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }
}
