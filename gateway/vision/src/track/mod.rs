//! From detections to things over time, with stable numbers and an honest "standing here since". Owns association, births,
//! ends and stationarity; refuses clocks (time is an argument) and refuses zones and rules.
//!
//! Association is greedy by overlap in two rounds, clear detections first, faint ones only to continue what exists (the idea
//! of Zhang et al., "ByteTrack", arXiv 2110.06864). A standing thing is remembered at its place ("anchor") for
//! [`TrackerConfig::coast_still_ms`] of *watched* time while nothing is seen of it, so a bus that passes in front does not
//! end it; time during which the camera gave no pictures does not count, because nothing was watched.

mod clarity;
mod matching;
mod still;

use crate::detect::{Detection, Group, Kind, nested};
use crate::geometry::BBox;
pub use clarity::Clarity;
use matching::best_pairs;
use still::{History, Sample};

/// The tracker's settings; the defaults hold for street cameras from one picture every four seconds to thirty per second.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackerConfig {
    /// Score from which a detection may start a track, by [`Kind::index`]; fainter ones only continue tracks.
    pub birth_scores: [f32; Kind::ALL.len()],
    /// Times a thing must be seen before it is reported.
    pub confirm_hits: u32,
    /// Length of the window in which a thing must not move to count as standing, ms.
    pub window_ms: i64,
    /// How far the centre may stray inside the window, as a share of the box's size.
    pub still_tolerance: f32,
    /// How far from its anchor a standing thing may be seen before it counts as moved, as a share of its size.
    pub moved_tolerance: f32,
    /// Watched time a moving thing may be unseen before it has left, ms.
    pub coast_moving_ms: i64,
    /// Watched time a standing thing may be unseen before it has left, ms.
    pub coast_still_ms: i64,
    /// A pause of the camera longer than this ends every track, ms: too much can have happened unseen.
    pub gap_max_ms: i64,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            birth_scores: [0.35; Kind::ALL.len()],
            confirm_hits: 3,
            window_ms: 3000,
            still_tolerance: 0.10,
            moved_tolerance: 0.35,
            coast_moving_ms: 2000,
            coast_still_ms: 15_000,
            gap_max_ms: 60_000,
        }
    }
}

impl TrackerConfig {
    /// May this detection start a track?
    #[must_use]
    pub fn may_begin(&self, seen: &Detection) -> bool {
        seen.score >= self.birth_scores[seen.kind.index()]
    }
}

/// A standing thing's place.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Anchor {
    bbox: BBox,
    since_ms: i64,
}

/// One thing over time. All times are on the line that [`Tracker::update`] was given.
#[derive(Debug, Clone)]
pub struct Track {
    id: u64,
    votes: [f32; Kind::ALL.len()],
    score: f32,
    last_box: BBox,
    velocity: (f32, f32),
    history: History,
    first_seen_ms: i64,
    last_seen_ms: i64,
    unseen_ms: i64,
    hits: u32,
    anchor: Option<Anchor>,
    /// Has it moved by more than its own size since it was first seen? Then it drove here and is no other thing's ghost.
    travelled: bool,
    first_box: BBox,
}

impl Track {
    fn born(id: u64, now_ms: i64, seen: &Detection) -> Self {
        let mut votes = [0.0; Kind::ALL.len()];
        votes[seen.kind.index()] = seen.score;
        let mut history = History::default();
        history.push(Sample { at_ms: now_ms, bbox: seen.bbox });
        Self {
            id,
            votes,
            history,
            score: seen.score,
            last_box: seen.bbox,
            velocity: (0.0, 0.0),
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
            unseen_ms: 0,
            hits: 1,
            anchor: None,
            travelled: false,
            first_box: seen.bbox,
        }
    }

    /// Number of the track, unique within its tracker, never reused.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it was most often and most surely seen as.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::ALL
            .into_iter()
            .max_by(|a, b| self.votes[a.index()].total_cmp(&self.votes[b.index()]))
            .unwrap_or(Kind::Car)
    }

    /// Smoothed score, 0..1.
    #[must_use]
    pub fn score(&self) -> f32 {
        self.score
    }

    /// Where it is: for a standing thing the median of its place, otherwise where it was seen last.
    #[must_use]
    pub fn bbox(&self) -> BBox {
        self.anchor.map_or(self.last_box, |a| a.bbox)
    }

    /// When it was seen first.
    #[must_use]
    pub fn first_seen_ms(&self) -> i64 {
        self.first_seen_ms
    }

    /// When it was seen last.
    #[must_use]
    pub fn last_seen_ms(&self) -> i64 {
        self.last_seen_ms
    }

    /// Since when it stands still, if it does.
    #[must_use]
    pub fn stationary_since_ms(&self) -> Option<i64> {
        self.anchor.map(|a| a.since_ms)
    }

    /// Is it only remembered, not seen in the last picture?
    #[must_use]
    pub fn is_coasting(&self) -> bool {
        self.unseen_ms > 0
    }

    /// Is there nothing open about it: seen in the last picture, sure, and standing? A thing that is not settled needs a look.
    #[must_use]
    pub fn is_settled(&self, config: &TrackerConfig) -> bool {
        self.anchor.is_some() && !self.is_coasting() && self.hits >= config.confirm_hits
    }

    fn predicted(&self, now_ms: i64) -> BBox {
        if let Some(anchor) = &self.anchor {
            return anchor.bbox;
        }
        // No further than two seconds: a straight line is no longer true after that.
        let ahead = (now_ms - self.last_seen_ms).min(2000) as f32;
        self.last_box.moved(self.velocity.0 * ahead, self.velocity.1 * ahead)
    }

    fn see(&mut self, now_ms: i64, seen: &Detection, config: &TrackerConfig) {
        for vote in &mut self.votes {
            *vote *= 0.98;
        }
        self.votes[seen.kind.index()] += seen.score;
        self.score = 0.8 * self.score + 0.2 * seen.score;
        let elapsed = (now_ms - self.last_seen_ms) as f32;
        if elapsed > 0.0 {
            let (from, to) = (self.last_box.centre(), seen.bbox.centre());
            let measured = ((to.x - from.x) / elapsed, (to.y - from.y) / elapsed);
            let trust = if self.hits == 1 { 1.0 } else { 0.4 };
            self.velocity.0 += trust * (measured.0 - self.velocity.0);
            self.velocity.1 += trust * (measured.1 - self.velocity.1);
        }
        self.last_seen_ms = now_ms;
        self.unseen_ms = 0;
        self.hits = self.hits.saturating_add(1);
        self.last_box = seen.bbox;
        let moved = crate::geometry::distance(self.first_box.centre(), seen.bbox.centre());
        self.travelled |= moved > self.first_box.size().max(seen.bbox.size());
        self.judge_stillness(now_ms, seen.bbox, config);
    }

    fn judge_stillness(&mut self, now_ms: i64, bbox: BBox, config: &TrackerConfig) {
        if let Some(anchor) = self.anchor {
            // A half-hidden vehicle shows a part of its place, and a detector at times draws a box around it and the wall
            // behind: neither says anything about motion.
            let part = bbox.share_inside(&anchor.bbox) > 0.8 && bbox.area() < 0.8 * anchor.bbox.area();
            let swallowed = nested(&bbox, &anchor.bbox) && bbox.area() > 1.25 * anchor.bbox.area();
            if part || swallowed {
                return;
            }
        }
        self.history.push(Sample { at_ms: now_ms, bbox });
        self.history.forget_before(now_ms - config.window_ms);
        match self.anchor {
            None => {
                if let Some((bbox, since_ms)) = self.history.standing(config.window_ms, config.still_tolerance) {
                    self.anchor = Some(Anchor { bbox, since_ms });
                    self.velocity = (0.0, 0.0);
                }
            }
            Some(anchor) => {
                if self.history.has_left(&anchor.bbox, config.moved_tolerance) {
                    self.anchor = None;
                    self.history.forget_before(now_ms - 1000);
                }
            }
        }
    }

    fn may_be_unseen_ms(&self, config: &TrackerConfig, interval_ms: i64) -> i64 {
        let limit = match (self.anchor, self.hits >= config.confirm_hits) {
            (Some(_), _) => config.coast_still_ms,
            (None, true) => config.coast_moving_ms,
            (None, false) => config.coast_moving_ms / 2,
        };
        // With one picture every few seconds, two misses must not be the end.
        limit.max(interval_ms * 5 / 2)
    }
}

/// Everything seen so far that has not left.
#[derive(Debug, Clone)]
pub struct Tracker {
    config: TrackerConfig,
    tracks: Vec<Track>,
    next_id: u64,
    last_ms: Option<i64>,
    interval_ms: i64,
}

impl Tracker {
    /// A tracker that has seen nothing; numbers start at 1.
    #[must_use]
    pub fn new(config: TrackerConfig) -> Self {
        Self { config, tracks: Vec::new(), next_id: 1, last_ms: None, interval_ms: 0 }
    }

    /// Takes in one picture's detections. `now_ms` is the picture's time; a time before the last one counts as the last one.
    /// Returns the confirmed tracks that ended.
    pub fn update(&mut self, now_ms: i64, seen: &[Detection]) -> Vec<Track> {
        let now_ms = self.last_ms.map_or(now_ms, |last| last.max(now_ms));
        let pause_ms = self.last_ms.map_or(0, |last| now_ms - last);
        self.last_ms = Some(now_ms);
        let mut ended = Vec::new();
        if pause_ms > self.config.gap_max_ms {
            ended.append(&mut self.tracks);
        }
        self.learn_interval(pause_ms);
        // Of a pause only so much was watched.
        let watched_ms = pause_ms.min((self.interval_ms * 3).max(1000)).max(1);
        let free = self.associate(now_ms, watched_ms, seen);
        self.end_the_lost(&mut ended);
        self.give_birth(now_ms, seen, &free);
        self.merge_doubles(&mut ended);
        ended.retain(|t| t.hits >= self.config.confirm_hits);
        ended
    }

    /// Is every track that `matters` settled ([`Track::is_settled`])?
    #[must_use]
    pub fn is_settled(&self, matters: impl Fn(&BBox) -> bool) -> bool {
        self.tracks.iter().all(|t| t.is_settled(&self.config) || !matters(&t.bbox()))
    }

    /// Takes in a picture that nobody looked at because it showed nothing new: what was seen in the last one, and stands where
    /// `unchanged` says that the picture is as it was, is there still. Nothing else is known, so nothing else changes.
    pub fn hold(&mut self, now_ms: i64, unchanged: impl Fn(&BBox) -> bool) {
        let now_ms = self.last_ms.map_or(now_ms, |last| last.max(now_ms));
        let pause_ms = self.last_ms.map_or(0, |last| now_ms - last);
        self.last_ms = Some(now_ms);
        self.learn_interval(pause_ms);
        for track in self.tracks.iter_mut().filter(|t| !t.is_coasting()) {
            if unchanged(&track.last_box) {
                track.last_seen_ms = now_ms;
            }
        }
    }

    /// The confirmed tracks, oldest first.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|t| t.hits >= self.config.confirm_hits)
    }

    /// Every track, unconfirmed ones too: what privacy looks at.
    pub fn all_tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter()
    }

    fn learn_interval(&mut self, pause_ms: i64) {
        if pause_ms == 0 {
            return;
        }
        let pause_ms = pause_ms.min(5000);
        self.interval_ms = if self.interval_ms == 0 { pause_ms } else { (self.interval_ms * 7 + pause_ms) / 8 };
    }

    /// Continues tracks; returns which detections found none.
    fn associate(&mut self, now_ms: i64, watched_ms: i64, seen: &[Detection]) -> Vec<usize> {
        let mut lost: Vec<usize> = (0..self.tracks.len()).collect();
        let (clear, faint): (Vec<usize>, Vec<usize>) = (0..seen.len()).partition(|&i| self.config.may_begin(&seen[i]));
        let mut free = clear.clone();
        for round in [clear, faint] {
            let pairs = best_pairs(&self.tracks, &lost, seen, &round, now_ms);
            for (track, detection) in pairs {
                self.tracks[track].see(now_ms, &seen[detection], &self.config);
                lost.retain(|&t| t != track);
                free.retain(|&d| d != detection);
            }
        }
        for track in lost {
            self.tracks[track].unseen_ms += watched_ms;
        }
        free
    }

    fn end_the_lost(&mut self, ended: &mut Vec<Track>) {
        let (config, interval_ms) = (self.config.clone(), self.interval_ms);
        ended.extend(self.tracks.extract_if(.., |t| t.unseen_ms > t.may_be_unseen_ms(&config, interval_ms)));
    }

    fn give_birth(&mut self, now_ms: i64, seen: &[Detection], free: &[usize]) {
        for &place in free {
            let detection = &seen[place];
            let group = detection.kind.group();
            let taken = self.tracks.iter().filter(|t| t.kind().group() == group).any(|t| {
                let same_place = !t.is_coasting() && t.last_box.iou(&detection.bbox) > 0.5;
                // On the ground where a vehicle stands no second one can stand.
                let same_ground = group == Group::Vehicle && t.anchor.is_some_and(|a| nested(&a.bbox, &detection.bbox));
                same_place || same_ground
            });
            if !taken {
                self.tracks.push(Track::born(self.next_id, now_ms, detection));
                self.next_id += 1;
            }
        }
    }

    /// Two standing tracks of one group at one place are one thing, found again after it was lost sight of; unless the newer
    /// one demonstrably drove there: then the older one's place was taken, and it is over.
    fn merge_doubles(&mut self, ended: &mut Vec<Track>) {
        let mut place = 1;
        while place < self.tracks.len() {
            let newer = &self.tracks[place];
            let double = self.tracks[..place].iter().position(|older| {
                older.anchor.is_some()
                    && newer.anchor.is_some()
                    && older.is_coasting()
                    && older.kind().group() == newer.kind().group()
                    && older.bbox().iou(&newer.bbox()) > 0.6
            });
            match double {
                None => place += 1,
                Some(older) if self.tracks[place].travelled => {
                    ended.push(self.tracks.remove(older));
                }
                Some(older) => {
                    let newer = self.tracks.remove(place);
                    let older = &mut self.tracks[older];
                    older.last_box = newer.last_box;
                    older.last_seen_ms = newer.last_seen_ms;
                    older.unseen_ms = newer.unseen_ms;
                    older.score = newer.score;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
