//! A heat detector: a thermometer and the judgement that there is a fire.
//!
//! Owns two rules and the faults of the thermometer. *Fixed*: from [`FIXED_MC`] on, in [`IN_A_ROW`] samples, it is an alarm (static response
//! of class A2: 54 to 70 °C; EN 54-5, GB 4716). *Rise*: [`RISE_MC`] more than the least of the last 90 s, that is 8 K a minute, the common
//! threshold of rate-of-rise heads; and not below [`RISE_FROM_MC`], so that a cold kitchen which is heated is none. Refuses to
//! be called a smoke alarm's replacement: a smouldering fire makes smoke long before heat. On the wire its alarm is that of a fire head
//! ([`EventKind::SmokeAlarm`]): a gateway does with both the same, and the device's name tells which it is.

use gengfu_wire::{EventKind, Level};

/// Measures a temperature.
pub trait Thermometer {
    /// Thousandths of a degree Celsius now; `None` when it could not be measured.
    fn millicelsius(&mut self) -> Option<i32>;
}

/// A board without a thermometer. It cannot be made: such a board has no [`Heat`].
#[derive(Debug, Clone, Copy)]
pub enum NoThermometer {}

impl Thermometer for NoThermometer {
    fn millicelsius(&mut self) -> Option<i32> {
        match *self {}
    }
}

/// Time between two samples, in milliseconds.
pub const SAMPLE_MS: u64 = 1_000;
/// So many samples in a row must say so: a fire for an alarm, no answer for a fault, an answer for its end.
pub const IN_A_ROW: u8 = 3;
/// An alarm from this temperature on, in thousandths of a degree.
pub const FIXED_MC: i32 = 57_000;
/// The alarm ends below this (and without a rise), in thousandths of a degree.
pub const CLEAR_BELOW_MC: i32 = 50_000;
/// So much more than the least of [`RISE_MS`] is a fire's rise, in thousandths of a degree.
pub const RISE_MC: i32 = 12_000;
/// What is looked back, in milliseconds.
pub const RISE_MS: u64 = 90_000;
/// A rise counts from this temperature on, in thousandths of a degree.
pub const RISE_FROM_MC: i32 = 35_000;
/// A test that the gateway asked for lasts this long, in milliseconds.
pub const TEST_MS: u64 = 5_000;

/// Every so often a sample is remembered, in milliseconds.
const REMEMBER_MS: u64 = 15_000;
/// So many remembered samples lie within [`RISE_MS`].
const REMEMBERED: usize = (RISE_MS / REMEMBER_MS) as usize;

/// A heat detector.
#[derive(Debug)]
pub struct Heat<T> {
    thermometer: T,
    sample_at_ms: u64,
    /// Oldest first, in thousandths of a degree.
    past: heapless::Deque<i32, REMEMBERED>,
    remember_at_ms: u64,
    /// Samples in a row that say other than what was told.
    other: u8,
    is_hot: Option<bool>,
    unanswered: u8,
    answered: u8,
    is_faulty: bool,
    test_until_ms: u64,
    told: Option<Level>,
}

impl<T: Thermometer> Heat<T> {
    /// A detector that samples at the first poll.
    pub fn new(thermometer: T) -> Self {
        Self {
            thermometer,
            sample_at_ms: 0,
            past: heapless::Deque::new(),
            remember_at_ms: 0,
            other: 0,
            is_hot: None,
            unanswered: 0,
            answered: 0,
            is_faulty: false,
            test_until_ms: 0,
            told: None,
        }
    }

    /// A drill of the road from here on. Heat is an alarm also while it runs: no test makes heat. False when the thermometer is at
    /// fault, so that nobody takes a dead detector for a tested one.
    pub fn begin_test(&mut self, now_ms: u64) -> bool {
        if self.is_faulty || self.is_hot.is_none() {
            return false;
        }
        self.test_until_ms = now_ms.saturating_add(TEST_MS);
        true
    }

    /// Samples when it is time; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let mut fault = None;
        if now_ms >= self.sample_at_ms {
            self.sample_at_ms = now_ms.saturating_add(SAMPLE_MS);
            fault = self.sample(now_ms);
        }
        fault.or_else(|| self.edge(now_ms))
    }

    fn sample(&mut self, now_ms: u64) -> Option<EventKind> {
        let Some(now_mc) = self.thermometer.millicelsius() else {
            self.answered = 0;
            self.unanswered = self.unanswered.saturating_add(1);
            // An alarm stays: a sensor that burns is no proof that the fire is out.
            let is_news = self.unanswered >= IN_A_ROW && !self.is_faulty;
            self.is_faulty |= is_news;
            return is_news.then_some(EventKind::FaultRaised);
        };
        self.unanswered = 0;
        self.judge(now_ms, now_mc);
        self.answered = self.answered.saturating_add(1);
        let is_news = self.answered >= IN_A_ROW && self.is_faulty;
        self.is_faulty &= !is_news;
        is_news.then_some(EventKind::FaultCleared)
    }

    fn judge(&mut self, now_ms: u64, now_mc: i32) {
        let least_mc = self.past.iter().copied().min().unwrap_or(now_mc);
        let rises = now_mc >= RISE_FROM_MC && now_mc.saturating_sub(least_mc) >= RISE_MC;
        let was_hot = self.is_hot == Some(true);
        let is_hot = rises || now_mc >= if was_hot { CLEAR_BELOW_MC } else { FIXED_MC };
        if self.is_hot == Some(is_hot) {
            self.other = 0;
        } else {
            self.other += 1;
            if self.other >= IN_A_ROW {
                (self.is_hot, self.other) = (Some(is_hot), 0);
            }
        }
        if now_ms >= self.remember_at_ms {
            self.remember_at_ms = now_ms.saturating_add(REMEMBER_MS);
            if self.past.is_full() {
                self.past.pop_front();
            }
            self.past.push_back(now_mc).unwrap_or_else(|_| unreachable!("one was just removed"));
        }
    }

    fn edge(&mut self, now_ms: u64) -> Option<EventKind> {
        let level = match self.is_hot? {
            true => Level::SmokeAlarm,
            false if now_ms < self.test_until_ms => Level::SmokeTest,
            false => Level::SmokeClear,
        };
        let before = self.told.replace(level);
        let is_news = before.map_or(level != Level::SmokeClear, |before| before != level);
        is_news.then(|| level.edge())
    }

    /// The level last told.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.told
    }

    /// Whether the thermometer did not answer, [`IN_A_ROW`] times.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.is_faulty
    }

    /// When to look again at the latest.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        let test_end = (self.told == Some(Level::SmokeTest)).then_some(self.test_until_ms);
        Some(test_end.map_or(self.sample_at_ms, |end| end.min(self.sample_at_ms)))
    }
}
