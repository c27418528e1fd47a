//! The box's own lamp and sounder.
//!
//! Owns the GPIO lines (Linux character device, v2) and the rhythm in which they speak. Refuses to decide when: it is told a [`Pattern`] for each and
//! keeps to it until told another. A line that cannot be had is said once with its remedy, and asked for again; nothing else suffers.

use std::collections::BTreeMap;
use std::time::Duration;

use gpiocdev::line::Value;
use gpiocdev::request::Request;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Line;

/// Everything below is a multiple of it.
const BEAT: Duration = Duration::from_millis(250);
/// A line that could not be had is asked for again this often, in beats.
const RETRY_BEATS: u64 = 120;

/// What an output does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Nothing.
    #[default]
    Off,
    /// On without a pause: there is an alarm here.
    Alarm,
    /// One second in two: "transmission failed". Unlike [`Pattern::Alarm`] to the eye and to the ear.
    TransmissionFailed,
}

impl Pattern {
    /// Whether the output is on in this beat.
    #[must_use]
    pub fn is_on(self, beat: u64) -> bool {
        match self {
            Pattern::Off => false,
            Pattern::Alarm => true,
            Pattern::TransmissionFailed => beat % 8 < 4,
        }
    }
}

/// Which output of the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Output {
    /// The lamp.
    Lamp,
    /// The sounder.
    Sounder,
}

/// A line that is set. The kernel's, or another in tests.
pub trait Drive {
    /// Makes the line active or not.
    ///
    /// # Errors
    /// What the kernel says.
    fn set(&mut self, active: bool) -> Result<(), String>;
}

struct Gpio {
    request: Request,
    offset: u32,
}

impl Drive for Gpio {
    fn set(&mut self, active: bool) -> Result<(), String> {
        let value = if active { Value::Active } else { Value::Inactive };
        self.request.set_value(self.offset, value).map(|_| ()).map_err(|error| error.to_string())
    }
}

/// Takes a line of a chip as an output, inactive at first.
///
/// # Errors
/// Why not, and what to do.
pub fn open(line: &Line) -> Result<Box<dyn Drive + Send>, String> {
    let mut builder = Request::builder();
    builder.on_chip(&line.chip).with_consumer("gengfu").with_line(line.line).as_output(Value::Inactive);
    if line.active_low {
        builder.as_active_low();
    }
    let request = builder.request().map_err(|error| {
        format!(
            "{} line {}: {error}; is the chip there (gpiodetect), the line free (gpioinfo), and may this user open it (group gpio)?",
            line.chip.display(),
            line.line
        )
    })?;
    Ok(Box::new(Gpio { request, offset: line.line }))
}

type Opener = Box<dyn Fn(&Line) -> Result<Box<dyn Drive + Send>, String> + Send>;

/// Lines with what they shall do.
pub struct Outputs {
    lines: BTreeMap<Output, Line>,
    open: Opener,
    driven: BTreeMap<Output, (Box<dyn Drive + Send>, bool)>,
    beat: u64,
}

impl Outputs {
    /// The box's lines, opened by `open` when they are first needed to be known as inactive.
    #[must_use]
    pub fn new(lines: BTreeMap<Output, Line>, open: Opener) -> Self {
        Self { lines, open, driven: BTreeMap::new(), beat: 0 }
    }

    /// One beat of 250 ms: every line is as its pattern says.
    pub fn beat(&mut self, wanted: &BTreeMap<Output, Pattern>) {
        let is_retry = self.beat.is_multiple_of(RETRY_BEATS);
        for (output, line) in &self.lines {
            if !self.driven.contains_key(output) && is_retry {
                match (self.open)(line) {
                    Ok(drive) => drop(self.driven.insert(*output, (drive, false))),
                    Err(error) => tracing::error!(?output, "an output of the box cannot be used: {error}"),
                }
            }
            let on = wanted.get(output).copied().unwrap_or_default().is_on(self.beat);
            if let Some((drive, is_on)) = self.driven.get_mut(output)
                && on != *is_on
            {
                match drive.set(on) {
                    Ok(()) => *is_on = on,
                    Err(error) => {
                        tracing::error!(?output, %error, "an output of the box does not obey");
                        self.driven.remove(output);
                    }
                }
            }
        }
        self.beat = self.beat.wrapping_add(1);
    }
}

/// Keeps the lines to `wanted` until `stop`; then all are off.
pub async fn run(mut outputs: Outputs, wanted: watch::Receiver<BTreeMap<Output, Pattern>>, stop: CancellationToken) {
    while tokio::time::timeout(BEAT, stop.cancelled()).await.is_err() {
        let now = wanted.borrow().clone();
        outputs.beat(&now);
    }
    outputs.beat(&BTreeMap::new());
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Bulb(Arc<Mutex<(Vec<bool>, bool)>>);

    impl Drive for Bulb {
        fn set(&mut self, active: bool) -> Result<(), String> {
            let mut bulb = self.0.lock().unwrap();
            if bulb.1 {
                return Err("burnt out".into());
            }
            bulb.0.push(active);
            Ok(())
        }
    }

    fn line() -> Line {
        Line { chip: "/dev/gpiochip-none".into(), line: 3, active_low: false }
    }

    fn outputs(bulb: &Bulb) -> Outputs {
        let bulb = bulb.clone();
        Outputs::new([(Output::Lamp, line())].into(), Box::new(move |_| Ok(Box::new(bulb.clone()))))
    }

    #[test]
    fn failed_transmission_blinks_once_in_two_seconds_and_an_alarm_does_not_blink() {
        let (bulb, steady) = (Bulb::default(), Bulb::default());
        let mut lamp = outputs(&bulb);
        let mut other = outputs(&steady);
        for _ in 0..16 {
            lamp.beat(&[(Output::Lamp, Pattern::TransmissionFailed)].into());
            other.beat(&[(Output::Lamp, Pattern::Alarm)].into());
        }
        lamp.beat(&BTreeMap::new());
        assert_eq!(bulb.0.lock().unwrap().0, [true, false, true, false], "on at 0 and 2 s, off at 1 and 3 s");
        assert_eq!(steady.0.lock().unwrap().0, [true]);
    }

    #[test]
    fn a_line_that_does_not_obey_is_taken_anew_later() {
        let bulb = Bulb::default();
        let mut lamp = outputs(&bulb);
        bulb.0.lock().unwrap().1 = true;
        let wanted = [(Output::Lamp, Pattern::Alarm)].into();
        lamp.beat(&wanted);
        bulb.0.lock().unwrap().1 = false;
        (0..RETRY_BEATS).for_each(|_| lamp.beat(&wanted));
        assert_eq!(bulb.0.lock().unwrap().0, [true]);
    }

    #[test]
    fn a_chip_that_is_not_there_is_told_with_what_to_do() {
        let error = open(&line()).err().expect("there is no such chip");
        assert!(error.contains("gpiochip-none") && error.contains("gpiodetect"), "{error}");
    }
}
