//! Spots: one vehicle standing at one place of a zone, over time.
//!
//! Owns what is remembered of it, what of that survives a restart, and the question "is this track that vehicle?". Refuses
//! to decide what a spot means: `rule::parking` does.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::event::{ClockQuality, EvidenceRef};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::book::Subject;
use crate::observation::{Scene, Track, TrackKind};
use crate::place::{Bbox, is_near};
use crate::places::{Placed, Places};
use crate::rules::Timing;
use crate::time::{ms, ms_between, shifted};

/// A spot that waits for its limit is written down at most this often.
const NOTE_EVERY_MS: i64 = 10_000;

/// No vehicle is replaced by another at the same place within this time; a track number is, when two tracks cross.
const SWAP_MAX_MS: i64 = 2_500;

/// A worker tells a track's times relative to the present picture, whose own time wavers with the network and the decoder:
/// two births this near are one.
const BIRTH_DRIFT_MS: i64 = 2_000;

fn is_same_birth(a: Timestamp, b: Timestamp) -> bool {
    ms_between(a, b).abs() <= BIRTH_DRIFT_MS
}

/// A picture this much older than the one before came late; older still, and the clock was set back.
const LATE_PICTURE_MS: i64 = 2_000;

/// What a spot has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Stands, not yet over the limit.
    Waiting,
    /// Over the limit; its picture is being taken.
    Asked { alarm_id: String, over_at: Timestamp, clock: ClockQuality, deadline: Timestamp },
    /// Its alarm is raised.
    Raised { alarm_id: String },
    /// Its alarm is cleared; it may come back for a moment more.
    Cleared { alarm_id: String, cleared_at: Timestamp },
}

/// One vehicle at one place of a zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spot {
    pub serial: u64,
    pub camera: Slug,
    pub zone: Slug,
    pub kind: AlarmKind,
    pub vehicle: TrackKind,
    /// Where it stands.
    pub bbox: Bbox,
    /// The track it was last.
    pub track: u64,
    /// When that track began.
    pub track_born_at: Timestamp,
    /// 0 to 1.
    pub score: f32,
    pub standing_since: Timestamp,
    /// When it was last seen, as written down; may be a little old.
    pub noted_at: Timestamp,
    pub stage: Stage,
    /// The id its pictures were taken under, and the alarm's, should there be one; `None` before the first picture.
    #[serde(default)]
    pub alarm_id: Option<String>,
    /// Pictures taken before the alarm.
    #[serde(default)]
    pub stills: Vec<EvidenceRef>,
    /// Its warning was given.
    #[serde(default)]
    pub is_warned: bool,
    /// When it was last truly seen; after a restart as far as that is known.
    #[serde(skip)]
    pub last_seen_at: Timestamp,
    /// Watched time without it, in milliseconds. Begins anew after a restart: what nobody watched is no absence.
    #[serde(skip)]
    pub absent_ms: i64,
}

impl Spot {
    pub fn subject(&self) -> Subject {
        let zone = Some(self.zone.clone());
        Subject { device: self.camera.clone(), kind: self.kind, test: false, zone, spot: Some(self.serial) }
    }

    /// True while a vehicle is believed to stand there.
    pub fn is_live(&self) -> bool {
        !matches!(self.stage, Stage::Cleared { .. })
    }

    /// True once it is over its limit and has not left.
    pub fn is_over_limit(&self) -> bool {
        matches!(self.stage, Stage::Raised { .. } | Stage::Asked { .. })
    }

    /// True when `track` carries on the very track this vehicle was. Numbers begin anew with a worker, so one that began at
    /// another time is another.
    pub fn is_own_track(&self, track: &Track) -> bool {
        track.id == self.track && is_same_birth(track.first_seen_at, self.track_born_at)
    }

    /// True when what is written down of the track has drifted from what the camera says now.
    pub fn wants_birth(&self, track: &Track) -> bool {
        ms_between(self.track_born_at, track.first_seen_at).abs() > BIRTH_DRIFT_MS / 2
    }

    /// True when `track`, near this place in the picture of `at`, can be this vehicle: its own track; or one born here (out of
    /// occlusion, or from a new worker: a track that was born elsewhere drove here and is another vehicle); or, for one over
    /// its limit, any track that is here so soon after that only the numbers can have been swapped.
    ///
    /// `elsewhere`: its own track is seen at another place now. One under its limit has then moved on, and who is
    /// here is the next of
    /// a queue and must begin at nought; of one over its limit a passing car took the number.
    pub fn can_be(&self, track: &Track, birth: Option<Bbox>, at: Timestamp, elsewhere: bool) -> bool {
        let born_here = birth.is_none_or(|birth| is_near(self.bbox, birth));
        let swapped = self.is_over_limit() && ms_between(self.last_seen_at, at) <= SWAP_MAX_MS;
        self.is_own_track(track) || swapped || (born_here && (self.is_over_limit() || !elsewhere))
    }

    /// True when a waiting spot's note is old.
    pub fn wants_note(&self) -> bool {
        ms_between(self.noted_at, self.last_seen_at) >= NOTE_EVERY_MS
    }

    /// True when its camera was blind for so long that a vehicle at its place may be another.
    pub fn is_forgotten(&self, at: Timestamp, window: Duration) -> bool {
        let window_ms = i64::try_from(ms(window)).unwrap_or(i64::MAX);
        ms_between(self.noted_at, at) > window_ms.saturating_add(NOTE_EVERY_MS)
    }
}

impl Placed for Spot {
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
            Stage::Asked { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    fn set_deadline(&mut self, to: Timestamp) {
        if let Stage::Asked { deadline, .. } = &mut self.stage {
            *deadline = to;
        }
    }

    fn note(&mut self) {
        self.noted_at = self.last_seen_at;
    }

    fn recall(&mut self) {
        self.last_seen_at = self.noted_at;
        self.absent_ms = 0;
    }

    fn shift(&mut self, by: SignedDuration) {
        self.standing_since = shifted(self.standing_since, by);
        self.noted_at = shifted(self.noted_at, by);
        self.last_seen_at = shifted(self.last_seen_at, by);
        self.track_born_at = shifted(self.track_born_at, by);
        if let Stage::Cleared { cleared_at, .. } = &mut self.stage {
            *cleared_at = shifted(*cleared_at, by);
        }
    }
}

/// All spots of all cameras.
pub(crate) type Spots = Places<Spot>;

/// What one camera has shown lately. Nothing of it survives a restart.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    last_picture_at: Option<Timestamp>,
    /// Standing times before this are not believed: nobody watched, or the clock was set.
    watched_from: Option<Timestamp>,
    /// When and where each track was first seen, by number.
    births: BTreeMap<u64, (Timestamp, Bbox)>,
}

/// What a new picture means for time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watched {
    /// How much of the time since the picture before counts as watched.
    pub credit_ms: i64,
    /// The same for litter.
    pub waste_credit_ms: i64,
    /// The clock was set back by this (negative).
    pub step: Option<SignedDuration>,
}

impl Watched {
    /// As a picture that proves no absence, and no time.
    pub fn unclear(self) -> Self {
        Self { credit_ms: 0, waste_credit_ms: 0, ..self }
    }
}

impl View {
    /// Takes the next picture's time; `None` for one that came late or twice and must be ignored.
    pub fn advance(&mut self, at: Timestamp, timing: &Timing) -> Option<Watched> {
        let gap_ms = self.last_picture_at.map_or(0, |last| ms_between(last, at));
        if self.last_picture_at.is_some() && (-LATE_PICTURE_MS..=0).contains(&gap_ms) {
            return None;
        }
        let limit = |span: Duration| i64::try_from(ms(span)).unwrap_or(i64::MAX);
        if gap_ms > limit(timing.continue_window) {
            self.watched_from = Some(at);
        }
        self.last_picture_at = Some(at);
        let step = (gap_ms < 0).then(|| SignedDuration::from_millis(gap_ms));
        if let Some(step) = step {
            self.watched_from = self.watched_from.map(|from| shifted(from, step));
            for (born_at, _) in self.births.values_mut() {
                *born_at = shifted(*born_at, step);
            }
        }
        let credit = |longest| gap_ms.clamp(0, limit(longest));
        let (credit_ms, waste_credit_ms) = (credit(timing.picture_gap_max), credit(timing.waste_gap_max));
        Some(Watched { credit_ms, waste_credit_ms, step })
    }

    /// Remembers where tracks were first seen, and forgets those that are gone.
    pub fn remember_births(&mut self, scene: &Scene) {
        let mut before = std::mem::take(&mut self.births);
        for track in &scene.tracks {
            let known = before.remove(&track.id).filter(|(born_at, _)| is_same_birth(*born_at, track.first_seen_at));
            let place = known.map_or(track.bbox, |(_, place)| place);
            self.births.insert(track.id, (track.first_seen_at, place));
        }
    }

    /// Where a track of the present picture was first seen.
    pub fn birth(&self, track: &Track) -> Option<Bbox> {
        self.births.get(&track.id).map(|(_, place)| *place)
    }

    /// Since when a track can be believed to stand, in the picture of `at`.
    pub fn believed(&self, stationary_since: Timestamp, at: Timestamp) -> Timestamp {
        self.watched_from.map_or(stationary_since, |from| stationary_since.max(from)).min(at)
    }

    /// The stream was interrupted: the time until its next picture is not watched.
    pub fn interrupt(&mut self) {
        self.last_picture_at = None;
    }
}
