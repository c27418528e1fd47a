//! Lines of a GPIO character device: what an installer writes about one, and the line itself as a pin.
//!
//! Owns the form of `--gpio`, opening with an error that names the line and the remedy, and the wrapper that makes `embedded-hal` pins of
//! lines. Refuses sysfs, numbers that are unique in the system, and edge events: the node looks at its pins every few milliseconds.
//!
//! ```text
//! /dev/gpiochip0:17=contact:1:active-low
//! CHIP          :LINE=KIND[:CHANNEL][:OPTION]...
//! ```

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use embedded_hal::digital::{Error, ErrorKind, ErrorType, InputPin, OutputPin};
use gengfu_wire::{CHANNEL_MAX, NODE_CHANNEL};
use gpiocdev::Request;
use gpiocdev::chip::Chip;
use gpiocdev::line::{Bias, Value};

/// What the kernel shows as user of a line (`gpioinfo`).
const CONSUMER: &str = "gengfu-node";

/// What hangs on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// A door contact; active when open.
    Contact,
    /// A smoke head's alarm output.
    Smoke,
    /// A smoke head's fault output.
    SmokeFault,
    /// A smoke head's test button.
    SmokeTest,
    /// A smoke head's hush button.
    SmokeHush,
    /// Output: a smoke head's test input.
    SmokeDrive,
    /// An emergency button.
    Sos,
    /// The lid's switch; active when open. Its channel is 0.
    Tamper,
    /// Output: the sounder. It has no channel.
    Sounder,
}

/// Every kind and its word.
const KINDS: [(&str, LineKind); 9] = [
    ("contact", LineKind::Contact),
    ("smoke", LineKind::Smoke),
    ("smoke-fault", LineKind::SmokeFault),
    ("smoke-test", LineKind::SmokeTest),
    ("smoke-hush", LineKind::SmokeHush),
    ("smoke-drive", LineKind::SmokeDrive),
    ("sos", LineKind::Sos),
    ("tamper", LineKind::Tamper),
    ("sounder", LineKind::Sounder),
];

impl LineKind {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// True for what the node drives.
    #[must_use]
    pub fn is_output(self) -> bool {
        matches!(self, LineKind::SmokeDrive | LineKind::Sounder)
    }

    fn has_channel(self) -> bool {
        !matches!(self, LineKind::Tamper | LineKind::Sounder)
    }
}

/// One line and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpioLine {
    /// As in `/dev/gpiochip0`.
    pub chip: PathBuf,
    /// Number of the line on that chip.
    pub line: u32,
    /// What it is.
    pub kind: LineKind,
    /// The node's channel, 1 to [`CHANNEL_MAX`]; [`NODE_CHANNEL`] for the lid and the sounder.
    pub channel: u8,
    /// Low means so.
    pub active_low: bool,
    /// The chip's own resistor; `None` leaves it as it is.
    pub bias: Option<Bias>,
}

impl std::fmt::Display for GpioLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}={}", self.chip.display(), self.line, self.kind.word())
    }
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum GpioError {
    /// It cannot be read.
    #[error("GPIO line \"{text}\": {what}; expected CHIP:LINE=KIND[:CHANNEL][:OPTION], as in {EXAMPLE}")]
    Form {
        /// The whole of it.
        text: String,
        /// What.
        what: String,
    },
    /// The chip or the line cannot be had.
    #[error("GPIO line {line}: {why}; {remedy}")]
    Open {
        /// Chip, line, kind.
        line: String,
        /// What came back.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Lines that do not fit together.
    #[error("GPIO line {line}: {what}")]
    Together {
        /// Chip, line, kind.
        line: String,
        /// What does not fit, and what would.
        what: String,
    },
}

const EXAMPLE: &str = "/dev/gpiochip0:17=contact:1:active-low";

impl FromStr for GpioLine {
    type Err = GpioError;

    fn from_str(text: &str) -> Result<Self, GpioError> {
        let wrong = |what: String| GpioError::Form { text: text.to_owned(), what };
        let (place, what) = text.split_once('=').ok_or_else(|| wrong("no \"=\"".into()))?;
        let (chip, line) = place.rsplit_once(':').ok_or_else(|| wrong("no \":\" between chip and line".into()))?;
        if chip.is_empty() {
            return Err(wrong("no chip".into()));
        }
        let line = line.parse().map_err(|_| wrong(format!("\"{line}\" is no line number")))?;
        let mut words = what.split(':').peekable();
        let word = words.next().unwrap_or_default();
        let kinds = || KINDS.map(|(word, _)| word).join(", ");
        let (_, kind) = *KINDS
            .iter()
            .find(|(it, _)| *it == word)
            .ok_or_else(|| wrong(format!("\"{word}\" is none of {}", kinds())))?;
        let mut channel = NODE_CHANNEL;
        if kind.has_channel() {
            let number = words.next().and_then(|it| it.parse().ok()).filter(|it| (1..=CHANNEL_MAX).contains(it));
            channel = number.ok_or_else(|| wrong(format!("a {word} needs its channel, 1 to {CHANNEL_MAX}")))?;
        }
        let mut this = GpioLine { chip: chip.into(), line, kind, channel, active_low: false, bias: None };
        for option in words {
            match option {
                "active-low" => this.active_low = true,
                "active-high" => this.active_low = false,
                "pull-up" => this.bias = Some(Bias::PullUp),
                "pull-down" => this.bias = Some(Bias::PullDown),
                "no-pull" => this.bias = Some(Bias::Disabled),
                other => {
                    let known = "active-low, active-high, pull-up, pull-down, no-pull";
                    return Err(wrong(format!("option \"{other}\" is none of {known}")));
                }
            }
        }
        Ok(this)
    }
}

/// One line's level. The kernel's, or a test's.
pub trait LineLevel {
    /// Whether the line is high.
    ///
    /// # Errors
    /// The kernel's: the chip is gone (an adapter that was pulled).
    fn is_high(&self) -> io::Result<bool>;

    /// Drives the line; `true` is active.
    ///
    /// # Errors
    /// As above.
    fn drive(&self, active: bool) -> io::Result<()>;
}

impl LineLevel for Request {
    fn is_high(&self) -> io::Result<bool> {
        self.lone_value().map(|value| value == Value::Active).map_err(io::Error::other)
    }

    fn drive(&self, active: bool) -> io::Result<()> {
        let value = if active { Value::Active } else { Value::Inactive };
        self.set_lone_value(value).map_err(io::Error::other)
    }
}

/// A line as a pin. Clones share it.
#[derive(Debug)]
pub struct LinePin<L>(Arc<L>);

impl<L> LinePin<L> {
    /// A pin of this line.
    pub fn new(line: Arc<L>) -> Self {
        Self(line)
    }
}

/// The kernel did not give or take a level.
#[derive(Debug)]
pub struct LineError(pub io::Error);

impl Error for LineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl<L> ErrorType for LinePin<L> {
    type Error = LineError;
}

impl<L: LineLevel> InputPin for LinePin<L> {
    fn is_high(&mut self) -> Result<bool, LineError> {
        self.0.is_high().map_err(LineError)
    }

    fn is_low(&mut self) -> Result<bool, LineError> {
        self.is_high().map(|high| !high)
    }
}

impl<L: LineLevel> OutputPin for LinePin<L> {
    fn set_low(&mut self) -> Result<(), LineError> {
        self.0.drive(false).map_err(LineError)
    }

    fn set_high(&mut self) -> Result<(), LineError> {
        self.0.drive(true).map_err(LineError)
    }
}

/// Takes the line from the kernel. An output begins inactive. Polarity of an input is left to the node, that of an output is the kernel's.
///
/// # Errors
/// [`GpioError::Open`].
pub fn open(line: &GpioLine) -> Result<Arc<Request>, GpioError> {
    let fail = |why: String, remedy: &'static str| GpioError::Open { line: line.to_string(), why, remedy };
    // The kernel's own words for a device that is not there or not ours.
    std::fs::OpenOptions::new().read(true).write(true).open(&line.chip).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "list the chips with `gpiodetect`; on a Raspberry Pi it is /dev/gpiochip0",
            io::ErrorKind::PermissionDenied => "put the user into the group gpio, and log in again",
            _ => "check the path with `gpiodetect`",
        };
        fail(error.to_string(), remedy)
    })?;
    let no_chip = |error: gpiocdev::Error| fail(error.to_string(), "give a GPIO character device, as /dev/gpiochip0");
    let chip = Chip::from_path(&line.chip).map_err(no_chip)?;
    let lines = chip.info().map_err(no_chip)?.num_lines;
    if line.line >= lines {
        return Err(fail(format!("the chip has {lines} lines"), "list them with `gpioinfo`; lines count from 0"));
    }
    if let Some(user) = chip.line_info(line.line).ok().filter(|info| info.used).map(|info| info.consumer) {
        return Err(fail(
            format!("in use by \"{user}\""),
            "free the line (stop that program or its overlay), or take another",
        ));
    }
    let mut builder = Request::builder();
    builder.on_chip(&line.chip).with_consumer(CONSUMER).with_line(line.line);
    if line.kind.is_output() {
        builder.as_output(Value::Inactive);
        if line.active_low {
            builder.as_active_low();
        }
    } else {
        builder.as_input();
    }
    builder.with_bias(line.bias);
    let request = builder.request();
    request.map(Arc::new).map_err(|error| fail(error.to_string(), "the chip may not know this pull: try without"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn parse(text: &str) -> Result<GpioLine, String> {
        text.parse().map_err(|error: GpioError| error.to_string())
    }

    #[test]
    fn a_line_is_read_with_its_kind_channel_polarity_and_pull() {
        let line = |line, kind, channel, active_low, bias| {
            Ok(GpioLine { chip: "/dev/gpiochip0".into(), line, kind, channel, active_low, bias })
        };
        assert_eq!(parse(EXAMPLE), line(17, LineKind::Contact, 1, true, None));
        let smoke = "/dev/gpiochip0:4=smoke:2:active-high:pull-up";
        assert_eq!(parse(smoke), line(4, LineKind::Smoke, 2, false, Some(Bias::PullUp)));
        assert_eq!(parse("/dev/gpiochip0:5=tamper"), line(5, LineKind::Tamper, 0, false, None));
        let sounder = "/dev/gpiochip0:6=sounder:active-low";
        assert_eq!(parse(sounder), line(6, LineKind::Sounder, 0, true, None));
        for (word, kind) in KINDS {
            let text = format!("c:1={word}{}", if kind.has_channel() { ":3" } else { "" });
            assert_eq!(parse(&text).unwrap().kind, kind);
            assert_eq!(kind.word(), word);
        }
        // A chip by its path on the bus, which survives other chips: it has colons.
        let by_path = parse("/dev/by:path:1:17=sos:3").unwrap();
        assert_eq!((by_path.chip, by_path.line), ("/dev/by:path:1".into(), 17));
    }

    #[test]
    fn a_wrong_line_is_named_with_what_would_be_right() {
        for (text, what) in [
            ("17", "no \"=\""),
            ("17=contact:1", "no \":\" between chip and line"),
            (":17=contact:1", "no chip"),
            ("/dev/gpiochip0:x=contact:1", "\"x\" is no line number"),
            ("/dev/gpiochip0:17=window:1", "\"window\" is none of contact, smoke, "),
            ("/dev/gpiochip0:17=contact", "a contact needs its channel, 1 to 32"),
            ("/dev/gpiochip0:17=contact:0", "a contact needs its channel, 1 to 32"),
            ("/dev/gpiochip0:17=contact:33", "a contact needs its channel, 1 to 32"),
            ("/dev/gpiochip0:17=tamper:1", "option \"1\" is none of active-low, "),
            ("/dev/gpiochip0:17=sos:3:activelow", "option \"activelow\" is none of active-low, "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("GPIO line \"{text}\": {what}")), "{error}");
            assert!(error.ends_with(EXAMPLE), "{error}");
        }
    }

    #[test]
    fn a_chip_that_is_missing_or_none_is_told_with_the_remedy() {
        let missing = open(&"/nonexistent/gpiochip0:17=contact:1".parse().unwrap()).unwrap_err().to_string();
        assert!(missing.starts_with("GPIO line /nonexistent/gpiochip0:17=contact: No such file"), "{missing}");
        assert!(missing.contains("gpiodetect"), "{missing}");
        let none = open(&"/dev/null:17=contact:1".parse().unwrap()).unwrap_err().to_string();
        assert!(none.contains("not a GPIO character device"), "{none}");
    }

    /// A line at the level of what the kernel answers.
    #[derive(Default)]
    struct Fake {
        high: Mutex<Option<bool>>,
    }

    impl LineLevel for Fake {
        fn is_high(&self) -> io::Result<bool> {
            self.high.lock().unwrap().ok_or_else(|| io::Error::from_raw_os_error(19))
        }

        fn drive(&self, active: bool) -> io::Result<()> {
            let mut high = self.high.lock().unwrap();
            *high = Some(active);
            Ok(())
        }
    }

    #[test]
    fn a_pin_is_its_line_and_a_chip_that_is_gone_is_an_error() {
        let line = Arc::new(Fake::default());
        let mut pin = LinePin::new(Arc::clone(&line));
        assert!(pin.is_high().is_err() && pin.is_low().is_err());
        pin.set_high().unwrap();
        assert!(pin.is_high().unwrap() && !pin.is_low().unwrap());
        pin.set_low().unwrap();
        assert!(pin.is_low().unwrap());
        *line.high.lock().unwrap() = None;
        assert!(pin.is_high().is_err());
    }
}
