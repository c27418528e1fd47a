//! Which detection continues which track. Owns the measure of "could be the same thing" and the greedy choice; refuses
//! state: it looks at tracks and detections and returns pairs.

use super::Track;
use crate::detect::Detection;
use crate::geometry::{BBox, distance};

/// Overlap from which two boxes can be one thing.
const IOU_MIN: f32 = 0.25;
/// How much less a track that was not seen in the picture before counts.
const REMEMBERED: f32 = 0.5;

/// Pairs of (track, detection), each at most once, best first. Only the tracks in `lost` and the detections in `round` take part.
pub(super) fn best_pairs(
    tracks: &[Track],
    lost: &[usize],
    seen: &[Detection],
    round: &[usize],
    now_ms: i64,
) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for &t in lost {
        let track = &tracks[t];
        let (group, predicted) = (track.kind().group(), track.predicted(now_ms));
        for &d in round {
            if seen[d].kind.group() != group {
                continue;
            }
            if let Some(likeness) = likeness(track, &predicted, &seen[d].bbox, now_ms) {
                // What was seen a moment ago comes before what is only remembered: a car that drives into a place that
                // was just left must not be taken for the one that left.
                let trust = if track.is_coasting() { REMEMBERED } else { 1.0 };
                all.push((likeness * trust, t, d));
            }
        }
    }
    // Ties by position, so that equal input gives equal output.
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (_, t, d) in all {
        if !pairs.iter().any(|&(pt, pd)| pt == t || pd == d) {
            pairs.push((t, d));
        }
    }
    pairs
}

/// How likely a box is the track's next: IoU, or less for weaker evidence; `None` if it cannot be.
fn likeness(track: &Track, predicted: &BBox, seen: &BBox, now_ms: i64) -> Option<f32> {
    let overlap = predicted.iou(seen).max(track.last_box.iou(seen));
    if overlap >= IOU_MIN {
        return Some(overlap);
    }
    if track.anchor.is_some() {
        // A part of a standing thing, the rest hidden.
        let part = seen.share_inside(predicted) > 0.7 && seen.area() > 0.25 * predicted.area();
        return part.then_some(IOU_MIN);
    }
    // A moving thing between pictures that lie far apart: near enough and of similar size.
    let ratio = seen.area() / predicted.area().max(f32::EPSILON);
    let reach = 0.5 + 0.5 * ((now_ms - track.last_seen_ms) as f32 / 1000.0).min(1.0);
    let apart = distance(predicted.centre(), seen.centre()) / predicted.size().max(f32::EPSILON);
    ((0.4..=2.5).contains(&ratio) && apart < reach).then_some(IOU_MIN * (1.0 - apart / 2.0))
}
