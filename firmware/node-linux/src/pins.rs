//! Simulated pins, gauge and sounder.
//!
//! Owns levels that another thread may move while the node reads them. Refuses bounce of its own: a test that wants bounce moves the pin.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use embedded_hal::digital::{Error, ErrorKind, ErrorType, InputPin, OutputPin};
use gengfu_node::battery::BatteryGauge;

/// An input pin; clones share its level.
#[derive(Debug, Clone, Default)]
pub struct SimPin {
    high: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

/// A simulated pin that was told not to answer.
#[derive(Debug, Clone, Copy)]
pub struct PinBroken;

impl Error for PinBroken {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl SimPin {
    /// Moves the level.
    pub fn set(&self, high: bool) {
        self.high.store(high, Ordering::Release);
    }

    /// The level.
    #[must_use]
    pub fn get(&self) -> bool {
        self.high.load(Ordering::Acquire)
    }

    /// Makes reading fail, as an expander that does not answer.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Release);
    }
}

impl ErrorType for SimPin {
    type Error = PinBroken;
}

impl InputPin for SimPin {
    fn is_high(&mut self) -> Result<bool, PinBroken> {
        if self.broken.load(Ordering::Acquire) { Err(PinBroken) } else { Ok(self.get()) }
    }

    fn is_low(&mut self) -> Result<bool, PinBroken> {
        self.is_high().map(|high| !high)
    }
}

/// A battery; clones share it.
#[derive(Debug, Clone)]
pub struct SimBattery(Arc<AtomicU16>);

impl SimBattery {
    /// A battery at so many millivolts.
    #[must_use]
    pub fn new(millivolts: u16) -> Self {
        Self(Arc::new(AtomicU16::new(millivolts)))
    }

    /// Changes it.
    pub fn set(&self, millivolts: u16) {
        self.0.store(millivolts, Ordering::Release);
    }
}

impl BatteryGauge for SimBattery {
    fn millivolts(&mut self) -> Option<u16> {
        Some(self.0.load(Ordering::Acquire))
    }
}

/// A sounder; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimSounder(Arc<AtomicBool>);

impl SimSounder {
    /// Whether it sounds.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl ErrorType for SimSounder {
    type Error = Infallible;
}

impl OutputPin for SimSounder {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.store(false, Ordering::Release);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Release);
        Ok(())
    }
}
