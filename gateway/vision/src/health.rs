//! Is the camera any good as a sensor right now? Owns three simple signs of trouble: no pictures, the same picture over and
//! over, darkness. Refuses clocks (time is an argument); moved or smeared lenses come with a later issue.

use crate::detect::Look;

/// What is wrong with the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Connected, but no picture arrived for [`HealthConfig::no_frames_ms`].
    NoFrames,
    /// Every picture for [`HealthConfig::frozen_ms`] was equal to the last bit. A real sensor's noise makes no two pictures
    /// equal, so this is an encoder or network recorder repeating itself.
    Frozen,
    /// Mean and bright values stayed low for [`HealthConfig::dark_ms`]: lens covered, or no light and no infra-red lamp. Vehicles
    /// cannot be seen then, so the rules must not take silence for an empty street.
    Dark,
}

/// Limits; the defaults are what the worker uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Without a picture for this long (and for three times the usual pause between pictures) the camera counts as silent, ms.
    pub no_frames_ms: i64,
    /// Equal pictures for this long count as frozen, ms.
    pub frozen_ms: i64,
    /// Dark pictures for this long count as dark, ms.
    pub dark_ms: i64,
    /// Mean colour value up to which a picture is dark, 0..255.
    pub dark_mean_max: u8,
    /// Bright end of the histogram up to which a picture is dark, 0..255: one lit window is enough to not be dark.
    pub dark_bright_max: u8,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { no_frames_ms: 10_000, frozen_ms: 20_000, dark_ms: 10_000, dark_mean_max: 18, dark_bright_max: 50 }
    }
}

/// The signs, over time.
#[derive(Debug, Clone)]
pub struct Health {
    config: HealthConfig,
    last_frame_ms: i64,
    pictures: u64,
    interval_ms: i64,
    last_fingerprint: Option<u64>,
    frozen_since_ms: Option<i64>,
    equal_pictures: u32,
    dark_since_ms: Option<i64>,
}

impl Health {
    /// Begins to watch at `now_ms`.
    #[must_use]
    pub fn new(config: HealthConfig, now_ms: i64) -> Self {
        Self {
            config,
            last_frame_ms: now_ms,
            pictures: 0,
            interval_ms: 0,
            last_fingerprint: None,
            frozen_since_ms: None,
            equal_pictures: 0,
            dark_since_ms: None,
        }
    }

    /// Takes in a picture's look.
    pub fn picture(&mut self, now_ms: i64, look: Look) {
        let previous_ms = std::mem::replace(&mut self.last_frame_ms, now_ms);
        if self.pictures > 0 {
            let pause_ms = now_ms - previous_ms;
            self.interval_ms = if self.pictures == 1 { pause_ms } else { (self.interval_ms * 7 + pause_ms) / 8 };
        }
        self.pictures += 1;
        if self.last_fingerprint.replace(look.fingerprint) == Some(look.fingerprint) {
            self.frozen_since_ms.get_or_insert(previous_ms);
            self.equal_pictures += 1;
        } else {
            self.frozen_since_ms = None;
            self.equal_pictures = 0;
        }
        if look.mean <= self.config.dark_mean_max && look.bright <= self.config.dark_bright_max {
            self.dark_since_ms.get_or_insert(now_ms);
        } else {
            self.dark_since_ms = None;
        }
    }

    /// Begins anew after a reconnection: what was before says nothing about the new stream.
    pub fn reconnected(&mut self, now_ms: i64) {
        *self = Self::new(self.config.clone(), now_ms);
    }

    /// The gravest trouble now, if any: no pictures, then frozen, then dark.
    #[must_use]
    pub fn trouble(&self, now_ms: i64) -> Option<Trouble> {
        let lasted = |since: Option<i64>, limit: i64| since.is_some_and(|since| self.last_frame_ms - since >= limit);
        if now_ms - self.last_frame_ms >= self.config.no_frames_ms.max(self.interval_ms * 3) {
            Some(Trouble::NoFrames)
        } else if lasted(self.frozen_since_ms, self.config.frozen_ms) && self.equal_pictures >= 3 {
            Some(Trouble::Frozen)
        } else if lasted(self.dark_since_ms, self.config.dark_ms) {
            Some(Trouble::Dark)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(mean: u8, fingerprint: u64) -> Look {
        Look { mean, bright: mean, fingerprint }
    }

    fn fed(pictures: impl Iterator<Item = (i64, Look)>) -> Vec<(i64, Option<Trouble>)> {
        let mut health = Health::new(HealthConfig::default(), 0);
        let mut changes = vec![(0, None)];
        for (now_ms, look) in pictures {
            health.picture(now_ms, look);
            let trouble = health.trouble(now_ms);
            if changes.last().is_some_and(|c| c.1 != trouble) {
                changes.push((now_ms, trouble));
            }
        }
        changes
    }

    #[test]
    fn equal_pictures_become_frozen_and_one_new_picture_ends_it() {
        let changes = fed((0..400).map(|i: i64| (i * 100, look(90, if i < 300 { 1 } else { i.unsigned_abs() }))));
        assert_eq!(changes, [(0, None), (20_000, Some(Trouble::Frozen)), (30_000, None)]);
    }

    #[test]
    fn darkness_must_last() {
        let changes = fed((0..400).map(|i: i64| {
            let dark = (50..60).contains(&i) || (100..300).contains(&i);
            (i * 100, look(if dark { 5 } else { 90 }, i.unsigned_abs()))
        }));
        assert_eq!(changes, [(0, None), (20_000, Some(Trouble::Dark)), (30_000, None)]);
    }

    #[test]
    fn a_camera_with_rare_key_frames_is_not_silent_between_them() {
        let mut health = Health::new(HealthConfig::default(), 0);
        for i in 0..5 {
            health.picture(i * 25_000, look(90, i.unsigned_abs()));
        }
        assert_eq!(health.trouble(124_000), None);
        assert_eq!(health.trouble(175_000), Some(Trouble::NoFrames));
    }

    #[test]
    fn silence_is_noticed_without_a_picture() {
        let mut health = Health::new(HealthConfig::default(), 1000);
        assert_eq!(health.trouble(10_999), None);
        assert_eq!(health.trouble(11_000), Some(Trouble::NoFrames));
        health.picture(12_000, look(90, 1));
        assert_eq!(health.trouble(12_000), None);
        health.reconnected(40_000);
        assert_eq!(health.trouble(41_000), None);
    }
}
