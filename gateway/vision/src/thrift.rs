//! How much is spent on a camera when the box is short of time. Owns the wish of the gateway and its way, without a lock, to the
//! thread that reads the camera; refuses to decide when thrift is due: the gateway measures the whole box.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// How much to spend on a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Effort {
    /// Decode key frames only, whatever the camera's configuration says; where key frames come often enough
    /// ([`KEY_FRAMES_WITHIN_MS`]).
    pub key_frames_only: bool,
    /// Take a picture at most this often, ms of stream time; 0: as often as configured.
    pub every_ms: u64,
    /// Wait this long with the first one, ms of stream time, so that the cameras of a box come in turn and not all at once.
    pub first_after_ms: u64,
}

/// A camera whose key frames are further apart keeps its full decoding: with one picture every half a minute nothing that stands
/// for a minute would be noticed in time.
pub const KEY_FRAMES_WITHIN_MS: u64 = 4000;

/// The wish, as the reading thread sees it. One writer, one reader; each value stands on its own, so none can be half changed.
#[derive(Debug, Default)]
pub struct Thrift {
    key_frames_only: AtomicBool,
    every_ms: AtomicU64,
    /// Grows with each new effort, so that the reader notices a new turn.
    changes: AtomicU64,
    first_after_ms: AtomicU64,
    hurry: AtomicBool,
}

impl Thrift {
    /// From now on.
    pub fn set(&self, effort: Effort) {
        self.key_frames_only.store(effort.key_frames_only, Ordering::Relaxed);
        self.every_ms.store(effort.every_ms, Ordering::Relaxed);
        self.first_after_ms.store(effort.first_after_ms, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Somebody waits for a picture: the next one is taken whatever the turn.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Is less taken than configured?
    #[must_use]
    pub fn is_saving(&self) -> bool {
        self.every_ms.load(Ordering::Relaxed) > 0
    }
}

/// The reading thread's side: which packets and pictures are wanted.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    seen: u64,
    due_ms: i64,
    last_key_ms: Option<i64>,
    key_interval_ms: Option<i64>,
    was_key_only: bool,
}

impl Turns {
    /// Are only key frames decoded now? `ms`: stream time of the packet, `key`: is it a key frame? Answers `None` for a packet
    /// that no decoder can use: after a stretch of key frames only, everything up to the next key frame refers to pictures
    /// that were never decoded.
    pub fn key_only(&mut self, thrift: &Thrift, ms: Option<i64>, key: bool) -> Option<bool> {
        if let (true, Some(ms)) = (key, ms) {
            let interval_ms = self.last_key_ms.replace(ms).map(|last| ms - last);
            self.key_interval_ms = interval_ms.filter(|&ms| ms > 0).or(self.key_interval_ms);
        }
        let often = self.key_interval_ms.is_some_and(|ms| ms.unsigned_abs() <= KEY_FRAMES_WITHIN_MS);
        let wanted = often && thrift.key_frames_only.load(Ordering::Relaxed);
        if self.was_key_only && !wanted && !key {
            return None;
        }
        self.was_key_only = wanted;
        Some(wanted)
    }

    /// Is a picture of this time wanted? Call only for pictures that would be handed on.
    pub fn wants(&mut self, thrift: &Thrift, ms: i64) -> bool {
        let changes = thrift.changes.load(Ordering::Acquire);
        if changes != self.seen {
            self.seen = changes;
            self.due_ms = ms.saturating_add(signed(thrift.first_after_ms.load(Ordering::Relaxed)));
        }
        let every_ms = signed(thrift.every_ms.load(Ordering::Relaxed));
        if thrift.hurry.swap(false, Ordering::Relaxed) || every_ms == 0 {
            self.due_ms = ms.saturating_add(every_ms);
            return true;
        }
        // A file that begins again, or a clock that was set, must not silence the camera.
        if ms < self.due_ms && self.due_ms - ms <= every_ms.max(signed(thrift.first_after_ms.load(Ordering::Relaxed))) {
            return false;
        }
        self.due_ms = ms.saturating_add(every_ms);
        true
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(thrift: &Thrift, turns: &mut Turns, times: impl Iterator<Item = i64>) -> Vec<i64> {
        times.filter(|&ms| turns.wants(thrift, ms)).collect()
    }

    #[test]
    fn without_thrift_every_picture_is_wanted() {
        let all: Vec<i64> = (0..20).map(|i| i * 40).collect();
        assert_eq!(taken(&Thrift::default(), &mut Turns::default(), all.iter().copied()), all);
    }

    #[test]
    fn pictures_come_in_turn_and_hurry_jumps_the_turn() {
        let (thrift, mut turns) = (Thrift::default(), Turns::default());
        thrift.set(Effort { key_frames_only: false, every_ms: 6000, first_after_ms: 4000 });
        assert_eq!(taken(&thrift, &mut turns, (0..10).map(|i| i * 2000)), [4000, 10_000, 16_000]);
        assert!(!turns.wants(&thrift, 20_000));
        thrift.hurry();
        assert_eq!(taken(&thrift, &mut turns, [20_500, 22_000, 26_500].into_iter()), [20_500, 26_500]);
        thrift.set(Effort::default());
        assert_eq!(taken(&thrift, &mut turns, [27_000, 27_040].into_iter()), [27_000, 27_040]);
    }

    #[test]
    fn stream_time_that_jumps_back_does_not_silence_the_camera() {
        let (thrift, mut turns) = (Thrift::default(), Turns::default());
        thrift.set(Effort { key_frames_only: true, every_ms: 10_000, first_after_ms: 0 });
        assert!(turns.wants(&thrift, 5_000_000));
        assert!(turns.wants(&thrift, 0));
        assert!(!turns.wants(&thrift, 9_000));
    }

    #[test]
    fn rare_key_frames_are_never_all_there_is_and_the_way_back_begins_at_one() {
        let (thrift, mut turns) = (Thrift::default(), Turns::default());
        thrift.set(Effort { key_frames_only: true, ..Effort::default() });
        assert_eq!(turns.key_only(&thrift, Some(0), true), Some(false), "the interval is not known yet");
        assert_eq!(turns.key_only(&thrift, Some(25_000), true), Some(false), "one in 25 s is too rare");
        assert_eq!(turns.key_only(&thrift, Some(27_000), true), Some(true));
        assert_eq!(turns.key_only(&thrift, Some(27_040), false), Some(true), "the caller skips it");
        thrift.set(Effort::default());
        assert_eq!(turns.key_only(&thrift, Some(27_080), false), None);
        assert_eq!(turns.key_only(&thrift, Some(29_000), true), Some(false));
        assert_eq!(turns.key_only(&thrift, Some(29_040), false), Some(false));
    }
}
