//! The battery.
//!
//! Owns when to measure and when it counts as low. Refuses to guess remaining life: that needs the cell's history, which the
//! gateway has. GB 20517-2025 asks for a check at least every 24 h; this measures every hour, and the heartbeat carries it.

use gengfu_wire::{Battery, EventKind};

/// Measures the battery under load.
pub trait BatteryGauge {
    /// Millivolts now; `None` when it could not be measured.
    fn millivolts(&mut self) -> Option<u16>;
}

/// A board without a gauge.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGauge;

impl BatteryGauge for NoGauge {
    fn millivolts(&mut self) -> Option<u16> {
        None
    }
}

/// Limits of a cell, from its datasheet.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Low below this, in millivolts.
    pub low_below_mv: u16,
    /// No longer low from this on, in millivolts; above the other, so that a cell at its limit does not flicker.
    pub good_from_mv: u16,
    /// Time between measurements, in milliseconds.
    pub every_ms: u64,
}

impl Default for Limits {
    /// Two alkaline cells or one lithium primary cell.
    fn default() -> Self {
        Self { low_below_mv: 2_600, good_from_mv: 2_750, every_ms: 3_600_000 }
    }
}

/// Watches a battery.
#[derive(Debug)]
pub struct BatteryWatch<G> {
    gauge: G,
    limits: Limits,
    last: Option<Battery>,
    measure_at_ms: u64,
}

impl<G: BatteryGauge> BatteryWatch<G> {
    /// Measures at the first poll.
    pub fn new(gauge: G, limits: Limits) -> Self {
        Self { gauge, limits, last: None, measure_at_ms: 0 }
    }

    /// Measures when it is time; gives an event when the battery became low or is so no longer.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        if now_ms < self.measure_at_ms {
            return None;
        }
        self.measure_at_ms = now_ms.saturating_add(self.limits.every_ms);
        let millivolts = self.gauge.millivolts()?;
        let was_low = self.last.is_some_and(|last| last.low);
        let limit = if was_low { self.limits.good_from_mv } else { self.limits.low_below_mv };
        let battery = Battery { millivolts, low: millivolts < limit };
        self.last = Some(battery);
        (battery.low != was_low).then_some(EventKind::Battery(battery))
    }

    /// Measures at the next poll.
    pub fn measure_now(&mut self) {
        self.measure_at_ms = 0;
    }

    /// The last measurement.
    #[must_use]
    pub fn last(&self) -> Option<Battery> {
        self.last
    }

    /// When the next measurement is due.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        Some(self.measure_at_ms)
    }
}
