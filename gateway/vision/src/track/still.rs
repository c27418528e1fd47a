//! Does a thing stand still? Owns the sliding window of where it was seen and the two questions asked of it; refuses to decide
//! from single pictures: both answers rest on medians, so one wavering box changes nothing.

use std::collections::VecDeque;

use crate::geometry::{BBox, Point, distance};

/// Where a thing was at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub at_ms: i64,
    pub bbox: BBox,
}

/// The samples of the window, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

/// However slow the camera, this many samples are kept and needed.
const SAMPLES_MIN: usize = 3;
/// Share of the tolerance for standing within which a thing is no longer rolling.
const ROLL: f32 = 0.3;
/// However fast the camera, no more are kept.
const SAMPLES_MAX: usize = 256;

impl History {
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Drops what is older, but keeps enough samples to judge by.
    pub fn forget_before(&mut self, at_ms: i64) {
        while self.samples.len() > SAMPLES_MIN && self.samples.get(1).is_some_and(|s| s.at_ms <= at_ms) {
            self.samples.pop_front();
        }
    }

    /// The median place and since when, if the thing stood through the whole window: nine in ten centres lie within
    /// `tolerance` × size of the median, and the first and the last half of the window agree to half of that. "Since" is when it
    /// came to rest inside the window, see [`came_to_rest`].
    pub fn standing(&self, window_ms: i64, tolerance: f32) -> Option<(BBox, i64)> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        if self.samples.len() < SAMPLES_MIN || last.at_ms - first.at_ms < window_ms {
            return None;
        }
        let all: Vec<BBox> = self.samples.iter().map(|s| s.bbox).collect();
        let place = median(&all)?;
        let allowed = tolerance * place.size();
        let mut strays: Vec<f32> = all.iter().map(|b| distance(b.centre(), place.centre())).collect();
        strays.sort_by(f32::total_cmp);
        let (early, late) = all.split_at(all.len() / 2);
        let rest = median(late)?.centre();
        let drift = distance(median(early)?.centre(), rest);
        let stands = ninth_tenth(&strays) <= allowed && drift <= allowed / 2.0;
        stands.then(|| (place, self.came_to_rest(rest, late, allowed).unwrap_or(first.at_ms)))
    }

    /// When it came to rest, inside a window in which it stands. A vehicle that rolls its last half metre lies within the tolerance
    /// before it stops: what counts is the first sample from which on nine in ten lie as near to the place of the last half as
    /// those waver there themselves, or within [`ROLL`] of what is allowed.
    fn came_to_rest(&self, rest: Point, late: &[BBox], allowed: f32) -> Option<i64> {
        let mut wavering: Vec<f32> = late.iter().map(|b| distance(b.centre(), rest)).collect();
        wavering.sort_by(f32::total_cmp);
        let near = ninth_tenth(&wavering).clamp(ROLL * allowed, allowed);
        let is_near: Vec<bool> = self.samples.iter().map(|s| distance(s.bbox.centre(), rest) <= near).collect();
        let at_rest = |from: usize| {
            let after = &is_near[from..];
            is_near[from] && after.iter().filter(|near| **near).count() * 10 >= after.len() * 9
        };
        (0..is_near.len()).find(|from| at_rest(*from)).map(|from| self.samples[from].at_ms)
    }

    /// Has the thing left its place? Judged by the median of the newest samples (a second's worth, three at least), so that
    /// one bad box does not end an hour of standing.
    pub fn has_left(&self, place: &BBox, tolerance: f32) -> bool {
        let Some(newest) = self.samples.back() else { return false };
        let recent: Vec<BBox> = self
            .samples
            .iter()
            .rev()
            .enumerate()
            .take_while(|(i, s)| *i < SAMPLES_MIN || s.at_ms > newest.at_ms - 1000)
            .map(|(_, s)| s.bbox)
            .collect();
        median(&recent).is_some_and(|now| distance(now.centre(), place.centre()) > tolerance * place.size())
    }
}

/// What nine in ten of some sorted values do not exceed.
fn ninth_tenth(sorted: &[f32]) -> f32 {
    sorted.get(sorted.len().saturating_sub(1) * 9 / 10).copied().unwrap_or(0.0)
}

/// Median of centres and sides, each on its own.
fn median(boxes: &[BBox]) -> Option<BBox> {
    if boxes.is_empty() {
        return None;
    }
    let middle = |value: fn(&BBox) -> f32| {
        let mut values: Vec<f32> = boxes.iter().map(value).collect();
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    };
    let centre = Point { x: middle(|b| b.centre().x), y: middle(|b| b.centre().y) };
    Some(BBox::from_centre(centre.x, centre.y, middle(|b| b.w), middle(|b| b.h)))
}
