//! Digital pins.
//!
//! Owns direction, pull-ups and levels of single pins. Refuses debouncing and polarity: those are the node's.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, InputPin, OutputPin};

use crate::regs::GpioPort;

/// One pin: its port and its bit.
#[derive(Clone, Copy)]
struct Place {
    port: GpioPort,
    mask: u8,
}

impl Place {
    fn new(port: GpioPort, bit: u8) -> Self {
        assert!(bit < 8, "a port has eight pins");
        Self { port, mask: 1 << bit }
    }

    fn is_high(self) -> bool {
        self.port.data(self.mask).read() != 0
    }
}

/// An input with the chip's pull-up (about 50 to 110 kOhm).
pub struct Input(Place);

impl Input {
    /// Makes `bit` of `port` an input.
    pub fn new(port: GpioPort, bit: u8) -> Self {
        let place = Place::new(port, bit);
        let (block, mask) = (port.block(), u32::from(place.mask));
        block.at(0x400).clear(mask);
        block.at(0x510).set(mask);
        block.at(0x51c).set(mask);
        Self(place)
    }

    /// As [`Input::new`], with the chip's pull-down (about 55 to 180 kOhm).
    pub fn pulled_down(port: GpioPort, bit: u8) -> Self {
        let place = Place::new(port, bit);
        let (block, mask) = (port.block(), u32::from(place.mask));
        block.at(0x400).clear(mask);
        block.at(0x514).set(mask);
        block.at(0x51c).set(mask);
        Self(place)
    }

    /// Its level now.
    pub fn level(&self) -> bool {
        self.0.is_high()
    }
}

impl ErrorType for Input {
    type Error = Infallible;
}

impl InputPin for Input {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.is_high())
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.is_high())
    }
}

/// An output, 8 mA.
pub struct Output(Place);

impl Output {
    /// Makes `bit` of `port` an output at low.
    pub fn new(port: GpioPort, bit: u8) -> Self {
        let place = Place::new(port, bit);
        let (block, mask) = (port.block(), u32::from(place.mask));
        block.at(0x508).set(mask);
        port.data(place.mask).write(0);
        block.at(0x400).set(mask);
        block.at(0x51c).set(mask);
        Self(place)
    }
}

impl ErrorType for Output {
    type Error = Infallible;
}

impl OutputPin for Output {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.port.data(self.0.mask).write(0);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.port.data(self.0.mask).write(u32::from(self.0.mask));
        Ok(())
    }
}
