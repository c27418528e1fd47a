//! All remembered places of one sort, of all cameras: where vehicles stand, where litter lies.
//!
//! Owns their numbers, which of them must be written down, and what a step of the clock does to them. Refuses to know what a
//! place means.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::slug::Slug;
use jiff::{SignedDuration, Timestamp};

use crate::time::shifted;

/// One thing at one place of a zone, over time.
pub(crate) trait Placed {
    fn serial(&self) -> u64;
    fn camera(&self) -> &Slug;
    fn zone(&self) -> &Slug;
    /// Until when its alarm waits for a picture.
    fn deadline(&self) -> Option<Timestamp>;
    fn set_deadline(&mut self, to: Timestamp);
    /// Takes what is known as what is written down.
    fn note(&mut self);
    /// Takes what is written down as what is known: a restart.
    fn recall(&mut self);
    /// Moves its times by a step of its camera's clock, so that no time is won or lost.
    fn shift(&mut self, by: SignedDuration);
}

#[derive(Debug, Clone)]
pub(crate) struct Places<T> {
    places: BTreeMap<u64, T>,
    dirty: BTreeSet<u64>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), dirty: BTreeSet::new() }
    }
}

impl<T: Placed> Places<T> {
    pub fn insert(&mut self, place: T) {
        self.dirty.insert(place.serial());
        self.places.insert(place.serial(), place);
    }

    /// Takes back what was written down.
    pub fn take_back(&mut self, mut place: T) {
        place.recall();
        self.places.insert(place.serial(), place);
    }

    pub fn remove(&mut self, serial: u64) {
        self.dirty.insert(serial);
        self.places.remove(&serial);
    }

    pub fn get(&self, serial: u64) -> Option<&T> {
        self.places.get(&serial)
    }

    /// For what need not survive a restart; else follow with [`Places::write`].
    pub fn get_mut(&mut self, serial: u64) -> Option<&mut T> {
        self.places.get_mut(&serial)
    }

    /// Changes a place and notes that it must be written down.
    pub fn write(&mut self, serial: u64, change: impl FnOnce(&mut T)) {
        if let Some(place) = self.places.get_mut(&serial) {
            change(place);
            place.note();
            self.dirty.insert(serial);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.values()
    }

    /// Numbers of the places of one zone.
    pub fn of_zone(&self, camera: &Slug, zone: &Slug) -> Vec<u64> {
        let of_zone = self.iter().filter(|place| place.camera() == camera && place.zone() == zone);
        of_zone.map(Placed::serial).collect()
    }

    /// Moves the times of one camera's places by a step of its clock.
    pub fn shift(&mut self, camera: &Slug, by: SignedDuration) {
        for place in self.places.values_mut().filter(|place| place.camera() == camera) {
            place.shift(by);
            self.dirty.insert(place.serial());
        }
    }

    /// When the next picture's deadline is.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.iter().filter_map(Placed::deadline).min()
    }

    /// Brings in deadlines that a clock set back has left too far ahead.
    pub fn rein_deadlines(&mut self, latest: Timestamp) {
        self.move_deadlines(|deadline| deadline.min(latest));
    }

    /// Moves deadlines by the step the clock made.
    pub fn shift_deadlines(&mut self, by: SignedDuration) {
        self.move_deadlines(|deadline| shifted(deadline, by));
    }

    fn move_deadlines(&mut self, to: impl Fn(Timestamp) -> Timestamp) {
        for place in self.places.values_mut() {
            let Some(deadline) = place.deadline() else { continue };
            let moved = to(deadline);
            if moved != deadline {
                place.set_deadline(moved);
                self.dirty.insert(place.serial());
            }
        }
    }

    /// Numbers that changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.dirty)
    }

    /// What a restart does to everything that is not written down.
    #[cfg(test)]
    pub fn forget_unwritten(&mut self) {
        self.places.values_mut().for_each(Placed::recall);
    }
}
