//! Is the camera any good as a sensor right now? Owns the signs of trouble and how long each must last: no pictures, the same picture
//! over and over, darkness, glare, a covered, moved or blurred lens. Refuses clocks (time is an argument) and refuses to guess: what
//! cannot be told in this light changes nothing.
//!
//! The last three are told by comparing with a [`reference`] that is learned in the first good minute and kept on disk. A street changes:
//! a bus fills half the view, lamps go on, snow falls. So what is compared is where edges run, whichever side is the lighter one; a sign
//! must show in most of the view; and a look that is still plainly the same view, only different, is learned as another look of it.

pub mod latch;
pub mod reference;
pub mod store;
pub mod view;

use std::path::{Path, PathBuf};

use latch::{Latch, Sign};
use reference::{Comparison, Learner, Reference};
use view::View;

use crate::detect::Look;
use crate::picture::{Scaler, VideoFrame};

/// What is wrong with the pictures, the gravest first.
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
    /// Most of the picture is white: the exposure failed, or a lamp shines into the lens.
    BlownOut,
    /// Most of what belongs to the view cannot be seen, and what is there instead is plain: a hand, a bag, tape, a parked lorry's side.
    Covered,
    /// The view is another than the one the zones were drawn in.
    Moved,
    /// The view is the right one, but fine detail is gone nearly everywhere: out of focus, grease, spider's web, thick fog.
    Defocused,
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
    /// Glare for this long counts: longer than headlights shine, ms.
    pub blown_ms: i64,
    /// A covered view for this long counts: longer than a lorry that turns, ms.
    pub covered_ms: i64,
    /// Another view for this long counts: longer than a gust shakes the pole, ms.
    pub moved_ms: i64,
    /// A blurred view for this long counts, ms.
    pub defocused_ms: i64,
    /// A sign must be gone for this long before its trouble is over, ms.
    pub release_ms: i64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            no_frames_ms: 10_000,
            frozen_ms: 20_000,
            dark_ms: 10_000,
            dark_mean_max: 18,
            dark_bright_max: 50,
            blown_ms: 20_000,
            covered_ms: 20_000,
            moved_ms: 30_000,
            defocused_ms: 60_000,
            release_ms: 5000,
        }
    }
}

/// Share of white samples from which a picture is blown out, and below which it is not.
const BLOWN_BAD: f32 = 0.60;
const BLOWN_GOOD: f32 = 0.45;
/// Share of blocks that show nothing where something belongs: bad, and good. A bus takes half of a view.
const BLANK_BAD: f32 = 0.70;
const BLANK_GOOD: f32 = 0.55;
/// Share of blocks that show something else: from here on it may be another view.
const REPLACED_BAD: f32 = 0.55;
/// Agreement with the reference: below, it may be another view; from the second on, it certainly is the right one.
const OTHER_VIEW: f32 = 0.22;
const RIGHT_VIEW: f32 = 0.35;
/// A shifted view agrees this well somewhere else, and this much better than here.
const SHIFTED_AGREEMENT: f32 = 0.45;
const SHIFTED_BETTER: f32 = 0.15;
/// Shifts below this (cells: 1/128 of the width) are a pole in the wind.
const SHIFTED_CELLS: i32 = 3;
/// Share of blocks that lost their fineness: bad, and good.
const SMEARED_BAD: f32 = 0.80;
const SMEARED_GOOD: f32 = 0.55;
/// Share of plain edges under which a picture has no structure: wall, fog, cover.
const PLAIN: f32 = 0.012;
/// Between two measurements of views, ms: troubles last much longer, and a picture of 1080p costs a millisecond.
const VIEW_EVERY_MS: i64 = 500;

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
    dark: Latch,
    is_dark: bool,
    blown: Latch,
    covered: Latch,
    moved: Latch,
    defocused: Latch,
    reference: Reference,
    learner: Learner,
    viewed_ms: Option<i64>,
    changed: bool,
}

impl Health {
    /// Begins to watch at `now_ms`.
    #[must_use]
    pub fn new(config: HealthConfig, now_ms: i64) -> Self {
        let latch = |hold_ms| Latch::new(hold_ms, config.release_ms);
        Self {
            last_frame_ms: now_ms,
            pictures: 0,
            interval_ms: 0,
            last_fingerprint: None,
            frozen_since_ms: None,
            equal_pictures: 0,
            dark: Latch::new(config.dark_ms, 0),
            is_dark: false,
            blown: latch(config.blown_ms),
            covered: latch(config.covered_ms),
            moved: latch(config.moved_ms),
            defocused: latch(config.defocused_ms),
            reference: Reference::default(),
            learner: Learner::default(),
            viewed_ms: None,
            changed: false,
            config,
        }
    }

    /// Compares with this reference from now on.
    pub fn refer_to(&mut self, reference: Reference) {
        self.reference = reference;
    }

    /// Forgets the reference: the view as it is now is the right one and is learned anew.
    pub fn forget_reference(&mut self) {
        let latch = |hold_ms| Latch::new(hold_ms, self.config.release_ms);
        self.covered = latch(self.config.covered_ms);
        self.moved = latch(self.config.moved_ms);
        self.defocused = latch(self.config.defocused_ms);
        self.reference = Reference::default();
        self.learner = Learner::default();
        self.changed = false;
    }

    /// The reference, if it changed since this was last asked: to be kept on disk.
    pub fn take_changed(&mut self) -> Option<&Reference> {
        std::mem::take(&mut self.changed).then_some(&self.reference)
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
        self.is_dark = look.mean <= self.config.dark_mean_max && look.bright <= self.config.dark_bright_max;
        self.dark.look(now_ms, if self.is_dark { Sign::Bad } else { Sign::Good });
    }

    /// Is it time to measure a view again?
    #[must_use]
    pub fn wants_view(&self, now_ms: i64) -> bool {
        self.viewed_ms.is_none_or(|last| !(0..VIEW_EVERY_MS).contains(&(now_ms - last)))
    }

    /// Takes in a measured view; call after [`Health::picture`] of the same picture.
    pub fn view(&mut self, now_ms: i64, view: &View) {
        self.viewed_ms = Some(now_ms);
        let blown = Sign::above(view.blown, BLOWN_GOOD, BLOWN_BAD);
        self.blown.look(now_ms, blown);
        // In the dark and in glare nobody can say where the camera looks.
        if self.is_dark || blown != Sign::Good {
            return;
        }
        let Some(seen) = self.reference.compare(view) else {
            self.covered.look(now_ms, Sign::above(PLAIN - view.structure, 0.0, PLAIN / 2.0));
            self.learn(now_ms, view);
            return;
        };
        let signs = signs_of(&seen);
        self.covered.look(now_ms, signs.covered);
        self.moved.look(now_ms, signs.moved);
        self.defocused.look(now_ms, signs.defocused);
        self.learn_another_look(now_ms, view, &seen, &signs);
    }

    fn learn(&mut self, now_ms: i64, view: &View) {
        self.learner.see(now_ms, view);
        if self.learner.is_ripe(now_ms)
            && let Some(aspect) = std::mem::take(&mut self.learner).aspect()
        {
            self.reference.add(aspect);
            self.changed = true;
        }
    }

    /// The same view in a light that no look of it knows yet: learned while it is still plainly the same.
    fn learn_another_look(&mut self, now_ms: i64, view: &View, seen: &Comparison, signs: &Signs) {
        let fades = (RIGHT_VIEW..reference::SURE).contains(&seen.agreement);
        let in_place = (seen.best.1, seen.best.2) == (0, 0);
        let all_well = [signs.covered, signs.moved, signs.defocused].iter().all(|sign| *sign != Sign::Bad);
        if fades && in_place && all_well && seen.replaced + seen.blank < 0.4 {
            self.learn(now_ms, view);
        } else if seen.agreement >= reference::SURE || !in_place {
            self.learner = Learner::default();
        }
    }

    /// Begins anew after a reconnection: how pictures came before says nothing about the new stream. What is wrong with the lens stays.
    pub fn reconnected(&mut self, now_ms: i64) {
        self.last_frame_ms = now_ms;
        self.pictures = 0;
        self.interval_ms = 0;
        self.last_fingerprint = None;
        self.frozen_since_ms = None;
        self.equal_pictures = 0;
    }

    /// Can what the last picture shows be believed? False from the first doubtful picture on, long before it is a trouble: a hand before
    /// the lens must not make a parked car "gone".
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        !self.is_dark && ![&self.dark, &self.blown, &self.covered, &self.moved].iter().any(|latch| latch.is_doubtful())
    }

    /// The gravest trouble now, if any.
    #[must_use]
    pub fn trouble(&self, now_ms: i64) -> Option<Trouble> {
        let lasted = |since: Option<i64>, limit: i64| since.is_some_and(|since| self.last_frame_ms - since >= limit);
        let silent = now_ms - self.last_frame_ms >= self.config.no_frames_ms.max(self.interval_ms * 3);
        let frozen = lasted(self.frozen_since_ms, self.config.frozen_ms) && self.equal_pictures >= 3;
        let signs = [
            (silent, Trouble::NoFrames),
            (frozen, Trouble::Frozen),
            (self.dark.is_on(), Trouble::Dark),
            (self.blown.is_on(), Trouble::BlownOut),
            (self.covered.is_on(), Trouble::Covered),
            (self.moved.is_on(), Trouble::Moved),
            (self.defocused.is_on(), Trouble::Defocused),
        ];
        signs.into_iter().find(|(on, _)| *on).map(|(_, trouble)| trouble)
    }
}

/// What one comparison says.
struct Signs {
    covered: Sign,
    moved: Sign,
    defocused: Sign,
}

fn signs_of(seen: &Comparison) -> Signs {
    let (_, dx, dy) = seen.best;
    let shifted = (dx.abs() >= SHIFTED_CELLS || dy.abs() >= SHIFTED_CELLS)
        && seen.best.0 >= SHIFTED_AGREEMENT
        && seen.best.0 - seen.agreement >= SHIFTED_BETTER;
    let moved = if shifted || (seen.agreement < OTHER_VIEW && seen.replaced >= REPLACED_BAD) {
        Sign::Bad
    } else if seen.agreement >= RIGHT_VIEW {
        Sign::Good
    } else {
        Sign::Unsure
    };
    let covered = Sign::above(seen.blank, BLANK_GOOD, BLANK_BAD);
    // Only in the right view does fineness mean anything.
    let defocused = match seen.smeared {
        Some(share) if seen.agreement >= OTHER_VIEW && !shifted => Sign::above(share, SMEARED_GOOD, SMEARED_BAD),
        _ => Sign::Unsure,
    };
    Signs { covered, moved, defocused }
}

/// The health of one camera with its pictures and its reference on disk: what a worker holds.
pub struct Watch {
    health: Health,
    scaler: Scaler,
    file: Option<PathBuf>,
    /// The file is there, as far as this knows, and when that was last looked at.
    is_kept: bool,
    checked_ms: i64,
}

/// Between two looks whether the file is still there, ms.
const CHECK_EVERY_MS: i64 = 5000;

impl Watch {
    /// Begins to watch at `now_ms`; the reference is read from `file` and kept there, until somebody removes it. A file that cannot be used is told on the standard
    /// error and learned anew.
    #[must_use]
    pub fn new(file: Option<&Path>, now_ms: i64) -> Self {
        let mut health = Health::new(HealthConfig::default(), now_ms);
        let mut is_kept = false;
        match file.map(store::load) {
            Some(Ok(Some(reference))) => {
                health.refer_to(reference);
                is_kept = true;
            }
            Some(Err(error)) => eprintln!("camera-worker: {error}"),
            _ => {}
        }
        Self { health, scaler: Scaler::default(), file: file.map(Path::to_path_buf), is_kept, checked_ms: now_ms }
    }

    /// Takes in a picture and its look.
    pub fn picture(&mut self, now_ms: i64, frame: &VideoFrame, look: Look) {
        self.health.picture(now_ms, look);
        if !self.health.wants_view(now_ms) {
            return;
        }
        match View::of(&mut self.scaler, frame) {
            Ok(view) => self.health.view(now_ms, &view),
            Err(error) => eprintln!("camera-worker: a view was not measured: {error}"),
        }
        self.keep(now_ms);
    }

    /// Keeps what was learned. A file that somebody removed says that the view as it is now is the right one: it is learned anew.
    fn keep(&mut self, now_ms: i64) {
        let Some(file) = self.file.as_deref() else { return };
        if self.is_kept && now_ms - self.checked_ms >= CHECK_EVERY_MS {
            self.checked_ms = now_ms;
            if matches!(file.try_exists(), Ok(false)) {
                self.health.forget_reference();
                self.is_kept = false;
            }
        }
        let Some(reference) = self.health.take_changed() else { return };
        match store::save(file, reference) {
            Ok(()) => self.is_kept = true,
            Err(error) => eprintln!("camera-worker: {error}"),
        }
    }

    /// As [`Health::reconnected`].
    pub fn reconnected(&mut self, now_ms: i64) {
        self.health.reconnected(now_ms);
    }

    /// As [`Health::is_trusted`].
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.health.is_trusted()
    }

    /// As [`Health::trouble`].
    #[must_use]
    pub fn trouble(&self, now_ms: i64) -> Option<Trouble> {
        self.health.trouble(now_ms)
    }
}

#[cfg(test)]
mod tests;
