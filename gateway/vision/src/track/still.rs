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
    /// `tolerance` × size of the median, and the first and the last half of the window agree to half of that.
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
        let drift = distance(median(early)?.centre(), median(late)?.centre());
        let ninth = strays[(strays.len() - 1) * 9 / 10];
        (ninth <= allowed && drift <= allowed / 2.0).then_some((place, first.at_ms))
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
