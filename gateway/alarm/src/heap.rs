//! Heaps: litter, or a bin that overflows, at one place of a zone, over time.
//!
//! Owns what is remembered of a heap, what of that survives a restart, and the tally of looks. A detector flickers on litter, and tracks come
//! and go with it, so a heap is its place and not a track. Refuses to decide what a heap means: `rule::litter` does.

use std::time::Duration;

use gengfu_contract::event::{ClockQuality, EvidenceRef};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::book::Subject;
use crate::place::{Bbox, around};
use crate::places::{Placed, Places};
use crate::time::{ms, ms_between, shifted};

/// A tally is written down at most this often.
const NOTE_EVERY_MS: i64 = 10_000;
/// A heap grows at most to this many times the area it was first seen with: a row of bags along a street is not one heap.
const GROWTH_MAX: f32 = 4.0;
/// Share of looks, in tenths, in which a heap must be seen.
const SEEN_TENTHS: i64 = 6;
/// A look with the heap in it takes this many looks without it back: what is seen in a fifth of all looks is never gone.
const SEEN_WEIGHT: i64 = 4;

/// What a heap has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeapStage {
    /// Lies there, not yet over the limit.
    Gathering,
    /// Over the limit; its picture is being taken.
    Asked { alarm_id: String, over_at: Timestamp, clock: ClockQuality, deadline: Timestamp },
    /// Its alarm is raised.
    Raised { alarm_id: String },
    /// Gone; the picture after it is being taken.
    Clearing { alarm_id: String, gone_at: Timestamp, clock: ClockQuality, deadline: Timestamp },
    /// Its alarm is cleared; it may come back for a while more.
    Cleared { alarm_id: String, cleared_at: Timestamp },
}

/// Watched time, by what it showed, in milliseconds. Time in which nobody could tell (hidden, somebody near, a disturbed picture) is
/// in none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// In which it could be seen.
    pub looked_ms: i64,
    /// In which it was.
    pub seen_ms: i64,
    /// In which it was seen as an overflowing bin.
    pub overflow_ms: i64,
    /// By which the looks without it outweigh those with it, lately; never below nought.
    pub absent_ms: i64,
}

impl Tally {
    /// A look that shows it.
    pub fn see(&mut self, credit_ms: i64, overflows: bool) {
        self.looked_ms += credit_ms;
        self.seen_ms += credit_ms;
        self.overflow_ms += if overflows { credit_ms } else { 0 };
        self.absent_ms = (self.absent_ms - SEEN_WEIGHT * credit_ms).max(0);
    }

    /// A look that would have shown it.
    pub fn miss(&mut self, credit_ms: i64) {
        self.looked_ms += credit_ms;
        self.absent_ms += credit_ms;
    }

    /// True when it was looked at for `limit` and seen in enough of it.
    pub fn has_lain(&self, limit: Duration) -> bool {
        self.looked_ms >= span_ms(limit) && self.is_steady()
    }

    /// True when it is seen in enough looks to be no flicker.
    pub fn is_steady(&self) -> bool {
        self.looked_ms > 0 && self.seen_ms * 10 >= self.looked_ms * SEEN_TENTHS
    }

    /// Percent of looks with it.
    pub fn seen_percent(&self) -> i64 {
        if self.looked_ms > 0 { self.seen_ms * 100 / self.looked_ms } else { 0 }
    }

    /// True when it is mostly an overflowing bin.
    pub fn overflows(&self) -> bool {
        self.seen_ms > 0 && self.overflow_ms * 2 >= self.seen_ms
    }

    /// Gives the last `limit` more weight than what lies further back.
    pub fn fade(&mut self, limit: Duration) {
        if self.looked_ms >= 2 * span_ms(limit).max(1) {
            self.looked_ms /= 2;
            self.seen_ms /= 2;
            self.overflow_ms /= 2;
        }
    }
}

fn span_ms(span: Duration) -> i64 {
    i64::try_from(ms(span)).unwrap_or(i64::MAX / 4)
}

/// One heap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heap {
    pub serial: u64,
    pub camera: Slug,
    pub zone: Slug,
    /// What its alarm is, or would be by what was seen so far.
    pub kind: AlarmKind,
    /// Where it was first seen.
    pub origin: Bbox,
    /// Where it lies by now.
    pub bbox: Bbox,
    pub began_at: Timestamp,
    /// 0 to 1.
    pub score: f32,
    /// The id its pictures were taken under, and the alarm's, should there be one.
    pub alarm_id: Option<String>,
    /// Pictures taken before the alarm.
    pub stills: Vec<EvidenceRef>,
    /// After-pictures asked for so far.
    pub after_pictures: u32,
    pub stage: HeapStage,
    /// The tally and the time of the last look, as written down; may be a little old.
    pub noted: Tally,
    pub noted_at: Timestamp,
    #[serde(skip)]
    pub tally: Tally,
    #[serde(skip)]
    pub looked_at: Timestamp,
}

/// All heaps of all cameras.
pub(crate) type Heaps = Places<Heap>;

impl Heap {
    pub fn subject(&self) -> Subject {
        let zone = Some(self.zone.clone());
        Subject { device: self.camera.clone(), kind: self.kind, test: false, zone, spot: Some(self.serial) }
    }

    /// True while it is believed to lie there.
    pub fn is_live(&self) -> bool {
        !matches!(self.stage, HeapStage::Cleared { .. })
    }

    /// True when the tally was written down so long ago that it should be again.
    pub fn wants_note(&self) -> bool {
        ms_between(self.noted_at, self.looked_at) >= NOTE_EVERY_MS
    }

    /// The box it would have with `seen` in it; `None` when it does not grow by that, or would grow beyond one heap.
    pub fn grown_by(&self, seen: Bbox) -> Option<Bbox> {
        let area = |b: Bbox| b[2] * b[3];
        let grown = around(self.bbox, seen);
        let grows = area(grown) > 1.1 * area(self.bbox) && area(grown) <= GROWTH_MAX * area(self.origin);
        grows.then_some(grown)
    }
}

impl Placed for Heap {
    fn serial(&self) -> u64 {
        self.serial
    }

    fn camera(&self) -> &Slug {
        &self.camera
    }

    fn zone(&self) -> &Slug {
        &self.zone
    }

    fn deadline(&self) -> Option<Timestamp> {
        match &self.stage {
            HeapStage::Asked { deadline, .. } | HeapStage::Clearing { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    fn set_deadline(&mut self, to: Timestamp) {
        if let HeapStage::Asked { deadline, .. } | HeapStage::Clearing { deadline, .. } = &mut self.stage {
            *deadline = to;
        }
    }

    fn note(&mut self) {
        (self.noted, self.noted_at) = (self.tally, self.looked_at);
    }

    fn recall(&mut self) {
        (self.tally, self.looked_at) = (self.noted, self.noted_at);
    }

    fn shift(&mut self, by: SignedDuration) {
        self.began_at = shifted(self.began_at, by);
        self.noted_at = shifted(self.noted_at, by);
        self.looked_at = shifted(self.looked_at, by);
        if let HeapStage::Cleared { cleared_at, .. } = &mut self.stage {
            *cleared_at = shifted(*cleared_at, by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flicker_is_forgiven_up_to_two_looks_in_five_and_rarer_sightings_are_no_heap() {
        let limit = Duration::from_secs(300);
        for (misses_in_ten, lain) in [(0, true), (3, true), (4, true), (5, false), (9, false)] {
            let mut tally = Tally::default();
            for look in 0..150 {
                if look % 10 < misses_in_ten { tally.miss(2000) } else { tally.see(2000, false) }
            }
            assert_eq!(tally.has_lain(limit), lain, "{misses_in_ten} of ten looks missed: {tally:?}");
        }
    }

    #[test]
    fn what_is_seen_in_every_fifth_look_is_never_gone() {
        let mut tally = Tally::default();
        for look in 0..1000 {
            if look % 5 == 4 {
                tally.see(2000, false)
            } else {
                tally.miss(2000)
            }
            assert!(tally.absent_ms <= 8000, "{tally:?}");
        }
    }

    #[test]
    fn old_looks_count_less_and_never_make_a_limit_shorter() {
        let limit = Duration::from_secs(300);
        let mut tally = Tally::default();
        for _ in 0..10_000 {
            tally.miss(2000);
            tally.fade(limit);
        }
        assert!(!tally.has_lain(limit));
        for look in 0..450 {
            tally.see(2000, false);
            tally.fade(limit);
            assert!(look > 150 || !tally.has_lain(limit), "after {look} looks of 2 s");
        }
        assert!(tally.has_lain(limit), "{tally:?}");
    }
}
