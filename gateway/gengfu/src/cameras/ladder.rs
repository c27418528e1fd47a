//! What cameras give up when the box is short of time, in which order, and when they get it back. Pure: load and time are arguments.
//!
//! Owns the ladder. Each rung keeps what the ones before gave up:
//!
//! 1. cameras with litter and bin zones only are looked at every ten seconds,
//! 2. key frames only, on every camera that has them often enough,
//! 3. cameras with parking zones every six seconds,
//! 4. cameras in turn: one after the other, each every ten to twenty seconds.
//!
//! Refuses to touch stills (a picture for an open alarm jumps every turn) and sensors, which know nothing of cameras. Up a rung after ten
//! seconds of overload, down after a quiet minute; a rung that had to be taken again soon after is left later and later.

use std::fmt;
use std::time::Duration;

use gengfu_vision::thrift::Effort;
use serde::{Deserialize, Serialize};

/// Overload must last this long before the next rung is taken.
const UP_AFTER: Duration = Duration::from_secs(10);
/// Quiet must last this long before a rung is left.
const DOWN_AFTER: Duration = Duration::from_secs(60);
/// The longest such quiet, after rungs that had to be taken again.
const DOWN_AFTER_MAX: Duration = Duration::from_secs(960);
/// A rung that is taken again within this was left too early.
const AGAIN_WITHIN: Duration = Duration::from_secs(300);

/// How far up the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Nothing is given up.
    #[default]
    Whole,
    /// Litter and bins are looked at less often.
    LitterSeldom,
    /// And key frames only.
    KeyFrames,
    /// And parking zones are looked at less often.
    ParkingSeldom,
    /// And cameras come in turn.
    InTurn,
}

impl Rung {
    /// All, in order.
    pub const ALL: [Self; 5] = [Self::Whole, Self::LitterSeldom, Self::KeyFrames, Self::ParkingSeldom, Self::InTurn];

    /// 0 to 4.
    #[must_use]
    pub fn level(self) -> u8 {
        self as u8
    }

    /// In words, Chinese and English.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Whole => ("摄像机全量分析", "cameras are watched in full"),
            Self::LitterSeldom => ("暴露垃圾和垃圾箱区域降低检测频率", "litter and bins are looked at every 10 s"),
            Self::KeyFrames => ("只解码关键帧", "only key frames are decoded"),
            Self::ParkingSeldom => ("停车区域降低检测频率", "parking zones are looked at every 6 s"),
            Self::InTurn => ("摄像机轮流分析", "cameras are watched in turn, each every 10 to 20 s"),
        }
    }

    fn next(self, up: bool) -> Self {
        let level = usize::from(self.level());
        let to = if up { (level + 1).min(Self::ALL.len() - 1) } else { level.saturating_sub(1) };
        Self::ALL[to]
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().1)
    }
}

/// What a camera is for; decides how soon it gives something up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// At least one zone where vehicles must not stand, or no zone at all yet.
    Parking,
    /// Litter and bin zones only: minutes matter there, not seconds.
    Litter,
}

/// What a camera with this duty may spend on this rung; it is number `place` (from 0) of `of` on the box.
#[must_use]
pub fn effort(rung: Rung, duty: Duty, place: usize, of: usize) -> Effort {
    let seconds = |count: usize| u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(1000);
    let every_ms = match (rung, duty) {
        (Rung::Whole, _) | (Rung::LitterSeldom | Rung::KeyFrames, Duty::Parking) => 0,
        (Rung::LitterSeldom | Rung::KeyFrames, Duty::Litter) => 10_000,
        (Rung::ParkingSeldom, Duty::Parking) => 6_000,
        (Rung::ParkingSeldom, Duty::Litter) => 20_000,
        (Rung::InTurn, Duty::Parking) => seconds(of).clamp(10_000, 20_000),
        (Rung::InTurn, Duty::Litter) => 30_000,
    };
    // Evenly over the interval, so that they come one after the other.
    let first_after_ms = every_ms.saturating_mul(place as u64) / (of.max(1) as u64);
    Effort { key_frames_only: rung >= Rung::KeyFrames, every_ms, first_after_ms }
}

/// What the last second was like.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// The longest a picture of any camera waited for its result, ms.
    pub lag_ms: u64,
    /// Share of the wanted pictures that were replaced by newer ones before anybody looked, 0..1.
    pub shed_share: f64,
    /// Share of the box's processors that the camera workers took, 0..1.
    pub cpu_share: f64,
}

/// What counts as too much; a half of each counts as quiet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Pictures that wait longer are late.
    pub lag_ms: u64,
    /// More replaced pictures than this are too many.
    pub shed_share: f64,
    /// More of the processors than this and the rest of the box has too little.
    pub cpu_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lag_ms: 1500, shed_share: 0.2, cpu_share: 0.7 }
    }
}

impl Limits {
    /// What is too much, in words; nothing if all is well.
    fn excess(&self, load: &Load) -> Option<String> {
        if load.lag_ms > self.lag_ms {
            Some(format!("pictures wait {} ms for their result", load.lag_ms))
        } else if load.shed_share > self.shed_share {
            Some(format!("{:.0} % of the pictures are replaced before anybody looks", load.shed_share * 100.0))
        } else if load.cpu_share > self.cpu_share {
            Some(format!("cameras take {:.0} % of the processors", load.cpu_share * 100.0))
        } else {
            None
        }
    }

    fn is_quiet(&self, load: &Load) -> bool {
        load.lag_ms <= self.lag_ms / 2
            && load.shed_share <= self.shed_share / 2.0
            && load.cpu_share <= self.cpu_share / 2.0
    }
}

/// The ladder of one box. Times are since any fixed moment.
#[derive(Debug)]
pub struct Ladder {
    limits: Limits,
    rung: Rung,
    /// Since when it is too much, or quiet.
    over_since: Option<Duration>,
    quiet_since: Option<Duration>,
    left_at: Option<Duration>,
    down_after: Duration,
}

impl Ladder {
    /// At its foot.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let down_after = DOWN_AFTER;
        Self { limits, rung: Rung::Whole, over_since: None, quiet_since: None, left_at: None, down_after }
    }

    /// Takes in one measurement; returns the new rung and why, if it changed.
    pub fn measured(&mut self, now: Duration, load: &Load) -> Option<(Rung, String)> {
        let excess = self.limits.excess(load);
        let quiet = self.limits.is_quiet(load);
        self.over_since = excess.as_ref().map(|_| self.over_since.unwrap_or(now));
        self.quiet_since = quiet.then(|| self.quiet_since.unwrap_or(now));
        let lasted = |since: Option<Duration>, limit| since.is_some_and(|since| now.saturating_sub(since) >= limit);
        let before = self.rung;
        if lasted(self.over_since, UP_AFTER) {
            self.rung = before.next(true);
            self.over_since = None;
            let again = self.left_at.take().is_some_and(|left| now.saturating_sub(left) < AGAIN_WITHIN);
            self.down_after = if again { (self.down_after * 2).min(DOWN_AFTER_MAX) } else { self.down_after };
        } else if lasted(self.quiet_since, self.down_after) {
            self.rung = before.next(false);
            self.quiet_since = None;
            self.left_at = Some(now);
            if self.rung == Rung::Whole && self.down_after == DOWN_AFTER_MAX {
                self.down_after = DOWN_AFTER;
            }
        }
        let why = excess.unwrap_or_else(|| "there is time again".to_owned());
        (self.rung != before).then_some((self.rung, why))
    }
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
