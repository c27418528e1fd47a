//! Is the view disturbed for a moment? Owns two signs of it: the whole picture is suddenly much brighter or darker (headlights, an
//! exposure that hunts), and nearly everything that stood is lost in one picture (a shaken camera, a downpour); refuses to last: after
//! [`DISTURBED_MAX_MS`] the new view is the view, and what is missing in it is gone. Lasting trouble is `health`'s.

use super::Track;

/// A disturbance never lasts longer.
const DISTURBED_MAX_MS: i64 = 20_000;
/// How fast the usual brightness follows the picture's, ms.
const SETTLE_MS: f32 = 30_000.0;
/// A jump is at least this much of the scale of 255, and at least this share of the usual brightness.
const JUMP_MIN: f32 = 25.0;
const JUMP_SHARE: f32 = 0.25;
/// Fewer standing things than this may well leave together.
const STANDING_MIN: usize = 3;

/// The judge of one camera's pictures.
#[derive(Debug, Clone, Default)]
pub struct Clarity {
    /// The usual brightness, 0..255, and when it was last looked at.
    usual: Option<(f32, i64)>,
    /// How many standing things were seen in the picture before.
    seen_before: usize,
    /// Since when it is dazzled.
    dazzled_since: Option<i64>,
    /// Since when most of what stood is lost, and how much was seen until then.
    lost_since: Option<(i64, usize)>,
}

impl Clarity {
    /// Takes the next picture: its time on the tracker's line, its mean brightness, and the tracks after it.
    pub fn is_disturbed<'t>(&mut self, now_ms: i64, mean: u8, tracks: impl Iterator<Item = &'t Track>) -> bool {
        let seen = tracks.filter(|track| track.stationary_since_ms().is_some() && !track.is_coasting()).count();
        let dazzled = self.is_dazzled(now_ms, f32::from(mean));
        let lost = self.has_lost_most(now_ms, seen);
        dazzled || lost
    }

    fn is_dazzled(&mut self, now_ms: i64, mean: f32) -> bool {
        let (usual, at_ms) = *self.usual.get_or_insert((mean, now_ms));
        let jumped = (mean - usual).abs() > JUMP_MIN.max(JUMP_SHARE * usual);
        if jumped {
            let since_ms = *self.dazzled_since.get_or_insert(now_ms);
            if now_ms - since_ms < DISTURBED_MAX_MS {
                self.usual = Some((usual, now_ms));
                return true;
            }
            self.usual = Some((mean, now_ms));
        } else {
            let share = ((now_ms - at_ms).max(0) as f32 / SETTLE_MS).min(1.0);
            self.usual = Some((usual + share * (mean - usual), now_ms));
        }
        self.dazzled_since = None;
        false
    }

    fn has_lost_most(&mut self, now_ms: i64, seen: usize) -> bool {
        let before = std::mem::replace(&mut self.seen_before, seen);
        if self.lost_since.is_none() && before >= STANDING_MIN && seen * 3 <= before {
            self.lost_since = Some((now_ms, before));
        }
        if let Some((since_ms, before)) = self.lost_since
            && (seen * 3 > before || now_ms - since_ms >= DISTURBED_MAX_MS)
        {
            self.lost_since = None;
        }
        self.lost_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Detection, Kind};
    use crate::geometry::BBox;
    use crate::track::{Tracker, TrackerConfig};

    fn row_of_cars(count: usize) -> Vec<Detection> {
        let car = |n: usize| Detection {
            kind: Kind::Car,
            score: 0.8,
            bbox: BBox::from_centre(0.1 + 0.18 * n as f32, 0.5, 0.12, 0.1),
        };
        (0..count).map(car).collect()
    }

    /// Times at which the view was disturbed, one picture each 200 ms; `scene` gives brightness and detections.
    fn disturbed(until_ms: i64, scene: impl Fn(i64) -> (u8, Vec<Detection>)) -> Vec<i64> {
        let (mut tracker, mut clarity) = (Tracker::new(TrackerConfig::default()), Clarity::default());
        let mut times = Vec::new();
        for now_ms in (0..until_ms).step_by(200) {
            let (mean, seen) = scene(now_ms);
            tracker.update(now_ms, &seen);
            if clarity.is_disturbed(now_ms, mean, tracker.tracks()) {
                times.push(now_ms);
            }
        }
        times
    }

    #[test]
    fn headlights_disturb_as_long_as_they_shine_and_dusk_and_a_new_lamp_do_not_for_ever() {
        let headlights = disturbed(60_000, |now| (if (30_000..36_000).contains(&now) { 150 } else { 60 }, vec![]));
        assert_eq!((headlights.first(), headlights.last(), headlights.len()), (Some(&30_000), Some(&35_800), 30));
        let dusk = disturbed(3_600_000, |now| (u8::try_from(150 - now / 30_000).unwrap(), vec![]));
        assert!(dusk.is_empty(), "{dusk:?}");
        let lamp = disturbed(120_000, |now| (if now < 30_000 { 40 } else { 120 }, vec![]));
        assert_eq!((lamp.first(), lamp.last()), (Some(&30_000), Some(&49_800)));
    }

    #[test]
    fn a_row_of_cars_lost_at_once_is_a_disturbance_and_cars_that_leave_one_by_one_or_a_pair_are_not() {
        let gone = disturbed(60_000, |now| (80, row_of_cars(if (20_000..26_000).contains(&now) { 0 } else { 5 })));
        assert_eq!((gone.first(), gone.last()), (Some(&20_000), Some(&25_800)));
        let for_good = disturbed(90_000, |now| (80, row_of_cars(if now < 20_000 { 5 } else { 0 })));
        assert_eq!((for_good.first(), for_good.last()), (Some(&20_000), Some(&39_800)));
        let leaving = disturbed(90_000, |now| (80, row_of_cars(5 - usize::try_from((now / 15_000).min(5)).unwrap())));
        assert!(leaving.is_empty(), "{leaving:?}");
        let pair = disturbed(60_000, |now| (80, row_of_cars(if now < 20_000 { 2 } else { 0 })));
        assert!(pair.is_empty(), "{pair:?}");
    }
}
