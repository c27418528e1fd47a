//! The box's own lamp and sounder, and when they speak, from text to checked values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::{SECOND, path};
use super::reader::{Faults, Section};

/// `[annunciation]`: what is done on the spot when the centre does not confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annunciation {
    /// A life-safety alarm without the centre's receipt for this long is told on the spot (GB 26875.1: 10 s).
    pub receipt_within: Duration,
    /// Somebody on site silenced the sounders: they stay silent this long, unless something new happens.
    pub silence_for: Duration,
    /// Sound the nodes of the dwelling at once when smoke is sensed, whether the centre confirms or not.
    pub sound_at_once: bool,
    /// The box's own lamp "transmission failed".
    pub lamp: Option<Line>,
    /// The box's own sounder.
    pub sounder: Option<Line>,
}

/// One line of a GPIO chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The chip's character device.
    pub chip: PathBuf,
    /// The line's offset.
    pub line: u32,
    /// Low means on.
    pub active_low: bool,
}

impl Default for Annunciation {
    fn default() -> Self {
        Self { receipt_within: 10 * SECOND, silence_for: 600 * SECOND, sound_at_once: false, lamp: None, sounder: None }
    }
}

pub(super) fn annunciation(f: &mut Faults, section: Option<Section>, base: &Path) -> Annunciation {
    let mut it = Annunciation::default();
    let Some(mut s) = section else { return it };
    it.receipt_within = s.duration(f, "receipt_within", SECOND..=60 * SECOND).unwrap_or(it.receipt_within);
    it.silence_for = s.duration(f, "silence_for", 60 * SECOND..=3600 * SECOND).unwrap_or(it.silence_for);
    it.sound_at_once = s.flag(f, "sound_at_once", it.sound_at_once);
    it.lamp = s.section(f, "lamp").and_then(|l| line(f, l, base));
    it.sounder = s.section(f, "sounder").and_then(|l| line(f, l, base));
    s.finish(f);
    it
}

fn line(f: &mut Faults, mut s: Section, base: &Path) -> Option<Line> {
    let chip = path(f, &mut s, "chip", base);
    let chip = s.required(f, "chip", chip, "\"/dev/gpiochip0\"");
    let line = s.integer(f, "line", 0..=1023).and_then(|n| u32::try_from(n).ok());
    let line = s.required(f, "line", line, "17");
    let active_low = s.flag(f, "active_low", false);
    s.finish(f);
    Some(Line { chip: chip?, line: line?, active_low })
}
