//! The board: simulated pins, or lines of a GPIO chip, and the node that is built on them.
//!
//! Owns which pin is which sensor's. Refuses to mix: a node with GPIO lines has no simulated sensors, so that nobody takes one for a real one.

use std::sync::Arc;

use embedded_hal::digital::{Error, ErrorKind, ErrorType, InputPin, OutputPin};
use gengfu_node::battery::Limits;
use gengfu_node::contact::Contact;
use gengfu_node::heat::NoThermometer;
use gengfu_node::input::Input;
use gengfu_node::node::SENSORS_MAX;
use gengfu_node::smoke::{Lines, Smoke};
use gengfu_node::sos::Sos;
use gengfu_node::tamper::Tamper;
use gengfu_node::{Board, Identity, Node, Parts, Sensor, SetupError, Timing, Wiring};
use gengfu_wire::FirmwareVersion;
use gpiocdev::Request;

use crate::gpio::{self, GpioError, GpioLine, LineKind, LinePin};
use crate::handle::{Options, StartError};
use crate::pins::{SimBattery, SimPin, SimSounder};
use crate::process::Seen;

/// The board.
pub(crate) struct LinuxBoard;

impl Board for LinuxBoard {
    type Pin = Pin;
    type Gauge = SimBattery;
    type Output = Output;
    type Thermometer = NoThermometer;
    type Watch = Seen;
}

/// An input.
pub(crate) enum Pin {
    Sim(SimPin),
    Line(LinePin<Request>),
}

/// An output.
pub(crate) enum Output {
    Sim(SimSounder),
    Line(LinePin<Request>),
}

/// A pin that was not read or set.
#[derive(Debug)]
pub(crate) struct PinError;

impl Error for PinError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl ErrorType for Pin {
    type Error = PinError;
}

impl InputPin for Pin {
    fn is_high(&mut self) -> Result<bool, PinError> {
        match self {
            Pin::Sim(pin) => pin.is_high().map_err(|_| PinError),
            Pin::Line(line) => line.is_high().map_err(|_| PinError),
        }
    }

    fn is_low(&mut self) -> Result<bool, PinError> {
        self.is_high().map(|high| !high)
    }
}

impl ErrorType for Output {
    type Error = PinError;
}

impl OutputPin for Output {
    fn set_low(&mut self) -> Result<(), PinError> {
        match self {
            Output::Sim(sounder) => sounder.set_low().map_err(|_| PinError),
            Output::Line(line) => line.set_low().map_err(|_| PinError),
        }
    }

    fn set_high(&mut self) -> Result<(), PinError> {
        match self {
            Output::Sim(sounder) => sounder.set_high().map_err(|_| PinError),
            Output::Line(line) => line.set_high().map_err(|_| PinError),
        }
    }
}

/// Everything that can be moved from outside, high means so: open, smoke, pressed; and the lines of a GPIO chip, which stay open over a
/// reboot of the node.
pub(crate) struct Pins {
    pub(crate) contact: SimPin,
    pub(crate) smoke: SimPin,
    pub(crate) test: SimPin,
    pub(crate) hush: SimPin,
    pub(crate) fault: SimPin,
    pub(crate) sos: SimPin,
    pub(crate) tamper: SimPin,
    pub(crate) battery: SimBattery,
    pub(crate) sounder: SimSounder,
    lines: Vec<(GpioLine, Arc<Request>)>,
}

impl Pins {
    /// Pins at rest, and the GPIO lines of `options`.
    ///
    /// # Errors
    /// [`GpioError`] for the first line that cannot be had.
    pub(crate) fn new(options: &Options) -> Result<Self, GpioError> {
        let lines = options.gpio.iter().map(|line| gpio::open(line).map(|request| (line.clone(), request)));
        Ok(Self {
            contact: SimPin::default(),
            smoke: SimPin::default(),
            test: SimPin::default(),
            hush: SimPin::default(),
            fault: SimPin::default(),
            sos: SimPin::default(),
            tamper: SimPin::default(),
            battery: SimBattery::new(options.battery_mv.unwrap_or_default()),
            sounder: SimSounder::default(),
            lines: lines.collect::<Result<_, _>>()?,
        })
    }

    /// False for a node with GPIO lines.
    pub(crate) fn are_simulated(&self) -> bool {
        self.lines.is_empty()
    }

    fn simulated(&self, options: &Options) -> Vec<(u8, Sensor<LinuxBoard>)> {
        let input = |pin: &SimPin| Input::active_high(Pin::Sim(pin.clone()));
        let lines = Lines {
            alarm: input(&self.smoke),
            fault: Some(input(&self.fault)),
            test: Some(input(&self.test)),
            hush: Some(input(&self.hush)),
        };
        let all = [
            options.contact.zip(Some(Sensor::Contact(Contact::new(input(&self.contact), options.debounce_ms)))),
            options.smoke.zip(Some(Sensor::Smoke(Smoke::new(lines)))),
            options.sos.zip(Some(Sensor::Sos(Sos::new(input(&self.sos))))),
            options.tamper.zip(Some(Sensor::Tamper(Tamper::new(input(&self.tamper))))),
        ];
        all.into_iter().flatten().collect()
    }

    /// The lines' sensors. A smoke head's other lines are found by its channel.
    fn wired(&self, options: &Options) -> Vec<(u8, Sensor<LinuxBoard>)> {
        let input = |(line, request): &(GpioLine, Arc<Request>)| {
            let pin = Pin::Line(LinePin::new(Arc::clone(request)));
            if line.active_low { Input::active_low(pin) } else { Input::active_high(pin) }
        };
        let of = |kind, channel| self.lines.iter().find(|(line, _)| line.kind == kind && line.channel == channel);
        let sensor = |it: &(GpioLine, Arc<Request>)| {
            let channel = it.0.channel;
            let sensor = match it.0.kind {
                LineKind::Contact => Sensor::Contact(Contact::new(input(it), options.debounce_ms)),
                LineKind::Sos => Sensor::Sos(Sos::new(input(it))),
                LineKind::Tamper => Sensor::Tamper(Tamper::new(input(it))),
                LineKind::Smoke => {
                    let lines = Lines {
                        alarm: input(it),
                        fault: of(LineKind::SmokeFault, channel).map(input),
                        test: of(LineKind::SmokeTest, channel).map(input),
                        hush: of(LineKind::SmokeHush, channel).map(input),
                    };
                    let head = Smoke::new(lines);
                    Sensor::Smoke(match of(LineKind::SmokeDrive, channel) {
                        Some((_, request)) => head.with_test_input(Output::Line(LinePin::new(Arc::clone(request)))),
                        None => head,
                    })
                }
                _ => return None,
            };
            Some((channel, sensor))
        };
        self.lines.iter().filter_map(sensor).collect()
    }

    fn sounder(&self) -> Option<Output> {
        if self.are_simulated() {
            return Some(Output::Sim(self.sounder.clone()));
        }
        let line = self.lines.iter().find(|(line, _)| line.kind == LineKind::Sounder);
        line.map(|(_, request)| Output::Line(LinePin::new(Arc::clone(request))))
    }
}

/// Checks that the lines make sensors together.
///
/// # Errors
/// [`GpioError::Together`] for a line of a head that is not there, a second line of one kind and channel, or one sensor too many.
pub(crate) fn check(lines: &[GpioLine]) -> Result<(), GpioError> {
    let mut sensors = 0;
    for (index, line) in lines.iter().enumerate() {
        let wrong = |what: String| GpioError::Together { line: line.to_string(), what };
        let before = &lines[..index];
        if before.iter().any(|it| (&it.chip, it.line) == (&line.chip, line.line)) {
            return Err(wrong("the line is given twice; give each line one kind".into()));
        }
        if before.iter().any(|it| (it.kind, it.channel) == (line.kind, line.channel)) {
            return Err(wrong(format!("channel {} has one already; give it a channel of its own", line.channel)));
        }
        let is_heads = matches!(
            line.kind,
            LineKind::SmokeFault | LineKind::SmokeTest | LineKind::SmokeHush | LineKind::SmokeDrive
        );
        let has_head = lines.iter().any(|it| it.kind == LineKind::Smoke && it.channel == line.channel);
        if is_heads && !has_head {
            return Err(wrong(format!("channel {0} has no smoke line; give ...=smoke:{0} too", line.channel)));
        }
        sensors += usize::from(!is_heads && line.kind != LineKind::Sounder);
        if sensors > SENSORS_MAX {
            return Err(wrong(format!("one more than the {SENSORS_MAX} sensors of a node; run a second node")));
        }
    }
    Ok(())
}

/// Builds the node at a boot.
pub(crate) fn build(
    options: &Options,
    wiring: Wiring,
    pins: &Pins,
    watch: Seen,
) -> Result<Node<LinuxBoard>, StartError> {
    let sensors = if pins.are_simulated() { pins.simulated(options) } else { pins.wired(options) };
    let parts = Parts {
        identity: Identity {
            uid: options.uid,
            boot: options.boot.map_or_else(random_boot, Ok)?,
            firmware: FirmwareVersion { major: 0, minor: 1, patch: 0 },
            wiring,
        },
        timing: Timing { heartbeat_ms: options.heartbeat_ms, battery: Limits::default() },
        sensors: sensors.into_iter().collect(),
        gauge: options.battery_mv.filter(|_| pins.are_simulated()).map(|_| pins.battery.clone()),
        sounder: pins.sounder(),
        watch,
    };
    Node::new(parts).map_err(|error| match error {
        SetupError::ChannelTwice(channel) | SetupError::ChannelRange(channel) => StartError::Channels(channel),
    })
}

/// A boot id from the operating system's randomness.
fn random_boot() -> Result<u32, StartError> {
    let mut bytes = [0_u8; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(std::io::Error::from)?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(lines: &[&str]) -> Result<(), String> {
        let lines: Vec<GpioLine> = lines.iter().map(|line| line.parse().unwrap()).collect();
        check(&lines).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_that_make_sensors_together_are_taken() {
        let all =
            ["c:1=smoke:2", "c:2=smoke-fault:2", "c:3=smoke-drive:2", "c:4=contact:1", "c:5=tamper", "c:6=sounder"];
        assert_eq!(check_all(&all), Ok(()));
    }

    #[test]
    fn lines_that_do_not_fit_are_named_with_the_remedy() {
        for (lines, what) in [
            (&["c:1=contact:1", "c:1=sos:3"][..], "c:1=sos: the line is given twice"),
            (&["c:1=contact:1", "c:2=contact:1"], "c:2=contact: channel 1 has one already"),
            (&["c:1=smoke:2", "c:2=smoke-test:3"], "c:2=smoke-test: channel 3 has no smoke line; give ...=smoke:3"),
        ] {
            let error = check_all(lines).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let many: Vec<String> = (0..17).map(|n| format!("c:{n}=contact:{}", n + 1)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(check_all(&many).unwrap_err().contains("16 sensors"));
        assert_eq!(check_all(&many[..16]), Ok(()));
    }
}
