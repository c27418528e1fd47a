//! What is remembered of one home: how long its door has stayed closed, and how much of that time was watched.
//!
//! Owns the clock of a home. It runs on covered time only: the time between two signs of life of the sensor, when they lie
//! no further apart than its supervision interval, and while nothing hides the door's movements. What lies after the
//! last sign of life is not covered until the next one proves it, so that a dead sensor stops the clock by itself.
//! Refuses judgement and words: `rule::care` and `rule::night` read and write these memories.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::CareLevel;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::coverage::Coverage;
use crate::rhythm::Rhythm;
use crate::time::{ms_between, shifted};

/// Watched stretches kept per home. More holes than this in one gap lose the oldest stretch, which delays an alarm.
const STRETCHES_MAX: usize = 64;

/// Why somebody's clock is stopped, or was set to nought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// The person is away (hospital, family): nobody is expected to open the door. At most 90 days at a time.
    Absence,
    /// Somebody is with the person, or was just now. At most 24 h at a time.
    Visit,
    /// The person answered a call and is well. At most 24 h at a time.
    Call,
}

/// A stop of a home's clock. When it ends, the clock begins at nought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Why.
    pub kind: PauseKind,
    /// When it ends by itself. May be the time of the command: then it only sets the clock to nought.
    pub until: Timestamp,
    /// Who said so; opaque.
    pub operator: String,
}

/// What set the clock to nought last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Began {
    /// The gateway began to watch.
    Watching,
    /// The door was opened or closed.
    Door,
    /// A pause ended.
    Pause,
    /// The person answered a call.
    Call,
}

/// One home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Home {
    /// Since when nobody opened the door.
    pub since: Timestamp,
    pub began: Began,
    /// Begin of the gap that may be learned from: the last movement of the door, when all since was ordinary life. An answered
    /// call sets the clock to nought and does not end the gap, or long gaps would never be learned.
    #[serde(default)]
    pub gap_from: Option<Timestamp>,
    /// Last known state of the door.
    pub open: Option<bool>,
    /// Watched stretches that are over.
    pub stretches: VecDeque<(Timestamp, Timestamp)>,
    /// Begin of the stretch that goes on to the sensor's last sign of life.
    pub watched_from: Option<Timestamp>,
    /// What has been told of this gap.
    pub level: Option<CareLevel>,
    pub pause: Option<Pause>,
    #[serde(default)]
    pub night: Night,
    #[serde(default)]
    pub coverage: Coverage,
}

/// The present night.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Night {
    /// Date of the evening of the night being counted.
    pub date: Option<Date>,
    pub openings: u32,
    /// Opened and closed in the night, and not opened since: (opened, closed).
    pub passage: Option<(Timestamp, Timestamp)>,
    /// When the door was opened in the night and is open.
    pub opened_at: Option<Timestamp>,
    /// The last passage may have been an exit.
    pub away: bool,
    /// False when a part of this night was not watched.
    pub whole: bool,
}

impl Home {
    /// A home that begins to be watched.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            began: Began::Watching,
            gap_from: None,
            open: None,
            stretches: VecDeque::new(),
            watched_from: None,
            level: None,
            pause: None,
            night: Night::default(),
            coverage: Coverage::new(now),
        }
    }

    /// The sensor gave a sign of life at `now`, the last before at `heard_before`; `faulty`: it is not believed. A door that
    /// stands open hides who passes. True when something to keep changed.
    pub fn heard(&mut self, now: Timestamp, heard_before: Timestamp, limit: Duration, faulty: bool) -> bool {
        let hidden = faulty || self.open == Some(true);
        let lapsed = ms_between(heard_before, now) > i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        match self.watched_from {
            Some(from) if hidden || lapsed => {
                // A passage is what a night is made of, and no hole in it.
                self.night.whole &= !(lapsed || faulty);
                self.stretches.push_back((from, heard_before));
                if self.stretches.len() > STRETCHES_MAX {
                    self.stretches.pop_front();
                }
                self.watched_from = (!hidden).then_some(now);
                match (hidden, lapsed) {
                    (false, _) => self.coverage.sees(heard_before, now),
                    (true, true) => self.coverage.goes_blind(heard_before),
                    (true, false) => self.coverage.goes_blind(now),
                }
                true
            }
            None if !hidden => {
                self.watched_from = Some(now);
                self.coverage.sees(now, now);
                true
            }
            _ => false,
        }
    }

    /// What was watched until now may hide an opening.
    pub fn distrust(&mut self, now: Timestamp) {
        self.stretches.clear();
        self.watched_from = self.watched_from.map(|_| now);
        self.night.whole = false;
    }

    /// The clock begins at nought, at `at`.
    pub fn begin(&mut self, at: Timestamp, began: Began) {
        (self.since, self.began) = (at, began);
        match began {
            Began::Door => self.gap_from = Some(at),
            Began::Call => {}
            Began::Watching | Began::Pause => self.gap_from = None,
        }
        let needed_from = self.gap_from.map_or(at, |gap_from| gap_from.min(at));
        self.stretches.retain(|(_, to)| *to > needed_from);
    }

    /// Covered milliseconds from the clock's nought to `to`, when the last sign of life was at `heard_at`.
    pub fn covered_ms(&self, to: Timestamp, heard_at: Timestamp) -> i64 {
        self.covered_between_ms(self.since, to, heard_at)
    }

    /// Covered milliseconds between two times.
    pub fn covered_between_ms(&self, from: Timestamp, to: Timestamp, heard_at: Timestamp) -> i64 {
        let running = self.watched_from.map(|watched_from| (watched_from, heard_at));
        let overlap = |(begin, end): (Timestamp, Timestamp)| ms_between(begin.max(from), end.min(to)).max(0);
        self.stretches.iter().copied().chain(running).map(overlap).sum()
    }

    fn rein(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.gap_from = None;
        self.watched_from = self.watched_from.map(|at| at.min(now));
        self.stretches.iter_mut().for_each(|(from, to)| (*from, *to) = ((*from).min(now), (*to).min(now)));
        self.night.passage = None;
        self.night.opened_at = self.night.opened_at.map(|at| at.min(now));
        self.coverage.rein(now);
    }

    fn shift(&mut self, by: SignedDuration) {
        self.since = shifted(self.since, by);
        self.gap_from = self.gap_from.map(|at| shifted(at, by));
        self.watched_from = self.watched_from.map(|at| shifted(at, by));
        self.stretches.iter_mut().for_each(|(from, to)| (*from, *to) = (shifted(*from, by), shifted(*to, by)));
        self.night.passage = self.night.passage.map(|(from, to)| (shifted(from, by), shifted(to, by)));
        self.night.opened_at = self.night.opened_at.map(|at| shifted(at, by));
        self.coverage.shift(by);
    }

    fn is_ahead_of(&self, now: Timestamp) -> bool {
        self.since > now
            || self.watched_from.is_some_and(|at| at > now)
            || self.night.opened_at.is_some_and(|at| at > now)
    }
}

/// All homes with a care rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Homes {
    pub homes: BTreeMap<Slug, Home>,
    pub rhythms: BTreeMap<Slug, Rhythm>,
    dirty_homes: BTreeSet<Slug>,
    dirty_rhythms: BTreeSet<Slug>,
}

impl Homes {
    /// Notes that a home's memory must be written down.
    pub fn changed(&mut self, door: &Slug) {
        self.dirty_homes.insert(door.clone());
    }

    /// The same for its rhythm.
    pub fn learned(&mut self, door: &Slug) {
        self.dirty_rhythms.insert(door.clone());
    }

    pub fn take_dirty_homes(&mut self) -> BTreeSet<Slug> {
        std::mem::take(&mut self.dirty_homes)
    }

    pub fn take_dirty_rhythms(&mut self) -> BTreeSet<Slug> {
        std::mem::take(&mut self.dirty_rhythms)
    }

    /// After a clock that was set back.
    pub fn rein(&mut self, now: Timestamp) {
        for (door, home) in self.homes.iter_mut().filter(|(_, home)| home.is_ahead_of(now)) {
            home.rein(now);
            self.dirty_homes.insert(door.clone());
        }
    }

    /// The clock was set, and said so. A pause's end was told by a human and stays.
    pub fn shift(&mut self, by: SignedDuration) {
        for (door, home) in &mut self.homes {
            home.shift(by);
            self.dirty_homes.insert(door.clone());
        }
    }
}
