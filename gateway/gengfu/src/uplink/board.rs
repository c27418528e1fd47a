//! The retained state board: what a centre that starts late sees at once.
//!
//! Owns the last wanted value of every retained topic (open alarms, devices, the statement) and which of them the broker has not
//! confirmed. The newest value wins, so it is bounded by the number of topics and never needs a queue. It refuses to be
//! a journal: a value that was replaced before it was sent is gone, the events tell the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The board; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<String, Slot>,
    /// Topics to publish. In text order, so `…/alarm/…` goes before `…/device/…` and `…/statement`.
    dirty: BTreeSet<String>,
    /// Grows with every change.
    generation: u64,
    /// The core has put everything on the board that it restored from disk.
    complete: bool,
    /// Retained topics the broker showed us before that.
    seen_early: BTreeSet<String>,
}

#[derive(Debug)]
struct Slot {
    value: Option<Vec<u8>>,
    generation: u64,
    in_flight: bool,
}

/// A value to publish, retained. An empty payload removes what the broker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Full topic name.
    pub topic: String,
    /// The value.
    pub payload: Vec<u8>,
    /// Which change of the topic this is, for [`Board::confirmed`].
    pub generation: u64,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants `topic` to hold `value`; `None` empties it. Returns at once; the same value again does nothing.
    pub fn set(&self, topic: &str, value: Option<Vec<u8>>) {
        let mut state = self.lock();
        if state.slots.get(topic).is_some_and(|slot| slot.value == value) {
            return;
        }
        state.put(topic, value);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Says that every alarm which is still open, and every device, stands on the board. Until then a retained topic that the board does not know is
    /// left alone: it may be one that the core has not restored yet.
    pub fn complete(&self) {
        let mut state = self.lock();
        state.complete = true;
        for topic in std::mem::take(&mut state.seen_early) {
            state.empty_unless_wanted(&topic);
        }
        drop(state);
        self.inner.changed.notify_one();
    }

    /// The value wanted for `topic`.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<Vec<u8>> {
        self.lock().slots.get(topic)?.value.clone()
    }

    /// The topics that begin with `prefix` and hold something.
    #[must_use]
    pub fn held(&self, prefix: &str) -> Vec<String> {
        let inner = self.lock();
        let slots = inner.slots.iter().filter(|(topic, slot)| topic.starts_with(prefix) && slot.value.is_some());
        slots.map(|(topic, _)| topic.clone()).collect()
    }

    /// Resolves when something was changed since the last call.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// The next value to publish whose topic `may_go`, marked as on its way. Only one change of a topic is on its way at a time, so none can overtake another.
    pub(crate) fn next(&self, may_go: impl Fn(&str) -> bool) -> Option<Posting> {
        let mut state = self.lock();
        let is_free = |topic: &&String| state.slots.get(*topic).is_some_and(|s| !s.in_flight) && may_go(topic);
        let topic = state.dirty.iter().find(is_free)?.clone();
        state.dirty.remove(&topic);
        let slot = state.slots.get_mut(&topic)?;
        slot.in_flight = true;
        Some(Posting { payload: slot.value.clone().unwrap_or_default(), generation: slot.generation, topic })
    }

    /// The broker refused a posting: it is due again, when its topic may go.
    pub(crate) fn refused(&self, topic: &str) {
        let mut state = self.lock();
        if let Some(slot) = state.slots.get_mut(topic) {
            slot.in_flight = false;
            state.dirty.insert(topic.to_owned());
        }
    }

    /// The broker took a posting.
    pub(crate) fn confirmed(&self, topic: &str, generation: u64) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(topic) else { return };
        slot.in_flight = false;
        let gone = slot.generation == generation && slot.value.is_none();
        if gone {
            state.slots.remove(topic);
        }
    }

    /// A new connection: the broker may have forgotten everything, so everything is due again.
    pub(crate) fn reconnected(&self) {
        let mut state = self.lock();
        for slot in state.slots.values_mut() {
            slot.in_flight = false;
        }
        state.dirty = state.slots.keys().cloned().collect();
    }

    /// The broker holds a value under `topic`, one of this gateway's alarms or devices. If that alarm is not open, or there is no such device any more, it is
    /// emptied.
    pub(crate) fn seen_retained(&self, topic: &str) {
        let mut state = self.lock();
        if state.complete {
            state.empty_unless_wanted(topic);
            drop(state);
            self.inner.changed.notify_one();
        } else {
            state.seen_early.insert(topic.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, topic: &str, value: Option<Vec<u8>>) {
        self.generation += 1;
        let generation = self.generation;
        let slot = self.slots.entry(topic.to_owned()).or_insert(Slot { value: None, generation, in_flight: false });
        slot.value = value;
        slot.generation = generation;
        self.dirty.insert(topic.to_owned());
    }

    fn empty_unless_wanted(&mut self, topic: &str) {
        if !self.slots.contains_key(topic) {
            self.put(topic, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(board: &Board) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Some(posting) = board.next(|_| true) {
            board.confirmed(&posting.topic, posting.generation);
            all.push((posting.topic, String::from_utf8(posting.payload).unwrap()));
        }
        all
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(t, v)| ((*t).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn alarms_go_before_devices_and_the_newest_value_wins() {
        let board = Board::new();
        board.set("g/device/d", Some(b"1".to_vec()));
        board.set("g/alarm/a", Some(b"1".to_vec()));
        board.set("g/alarm/a", Some(b"2".to_vec()));
        assert_eq!(drain(&board), pairs(&[("g/alarm/a", "2"), ("g/device/d", "1")]));
        board.set("g/alarm/a", Some(b"2".to_vec()));
        assert_eq!(drain(&board), [], "the same value is not sent twice");
    }

    #[test]
    fn a_change_made_while_the_last_one_is_on_its_way_waits_and_then_goes() {
        let board = Board::new();
        board.set("g/alarm/a", Some(b"1".to_vec()));
        let first = board.next(|_| true).unwrap();
        board.set("g/alarm/a", None);
        assert_eq!(board.next(|_| true), None);
        board.confirmed(&first.topic, first.generation);
        assert_eq!(drain(&board), pairs(&[("g/alarm/a", "")]));
        board.reconnected();
        assert_eq!(drain(&board), [], "an emptied topic is forgotten");
    }

    #[test]
    fn everything_goes_again_after_a_reconnect_also_what_was_on_its_way() {
        let board = Board::new();
        board.set("g/alarm/a", Some(b"1".to_vec()));
        board.set("g/device/d", Some(b"1".to_vec()));
        let _lost = board.next(|_| true).unwrap();
        board.reconnected();
        assert_eq!(drain(&board), pairs(&[("g/alarm/a", "1"), ("g/device/d", "1")]));
    }

    #[test]
    fn a_retained_alarm_that_is_not_open_is_emptied_but_not_before_the_core_has_restored_its_own() {
        let board = Board::new();
        board.seen_retained("g/alarm/old");
        board.seen_retained("g/alarm/open");
        assert_eq!(drain(&board), []);
        board.set("g/alarm/open", Some(b"1".to_vec()));
        board.complete();
        assert_eq!(drain(&board), pairs(&[("g/alarm/old", ""), ("g/alarm/open", "1")]));
        board.seen_retained("g/alarm/open");
        board.seen_retained("g/alarm/older");
        assert_eq!(drain(&board), pairs(&[("g/alarm/older", "")]));
    }

    #[test]
    fn a_refused_posting_is_due_again_and_does_not_stand_in_the_way_of_others() {
        let board = Board::new();
        board.set("g/alarm/a", Some(b"1".to_vec()));
        board.set("g/device/d", Some(b"1".to_vec()));
        let refused = board.next(|_| true).unwrap();
        board.refused(&refused.topic);
        let held = refused.topic.clone();
        assert_eq!(board.next(|topic| topic != held).unwrap().topic, "g/device/d");
        assert_eq!(board.next(|topic| topic != held), None);
        assert_eq!(board.next(|_| true).unwrap().topic, held);
    }

    #[test]
    fn a_device_that_is_no_longer_configured_is_emptied() {
        let board = Board::new();
        board.set("g/device/door-1", Some(b"1".to_vec()));
        board.complete();
        drain(&board);
        board.seen_retained("g/device/door-1");
        board.seen_retained("g/device/door-of-last-year");
        assert_eq!(drain(&board), pairs(&[("g/device/door-of-last-year", "")]));
    }
}
