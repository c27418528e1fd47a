//! The only place of this crate where time is read. Owns the two clocks a worker needs; refuses to be used by the
//! rules themselves, which take time as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the edge of the crate that owns its clocks")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where a worker gets its time from.
pub trait Clock: Send + Sync {
    /// Wall time, milliseconds since the Unix epoch. May jump when the box is synchronised.
    fn wall_ms(&self) -> i64;
    /// Milliseconds since an arbitrary start; never runs backwards.
    fn mono_ms(&self) -> i64;
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic reading starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    fn mono_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// How long something took, for figures that are only shown.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins to measure.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the start or the last lap; begins anew.
    pub fn lap_us(&mut self) -> u64 {
        let us = self.us();
        *self = Self::start();
        us
    }
}

/// Calendar fields of a wall time in UTC, for the text burned into a still: `2026-03-04 05:06:07Z`.
///
/// The conversion from days to a civil date is the usual one for the proleptic Gregorian calendar (400-year eras
/// beginning on 1 March).
#[must_use]
pub fn utc_text(wall_ms: i64) -> String {
    let seconds = wall_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_text_knows_leap_days_and_the_epoch() {
        assert_eq!(utc_text(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc_text(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc_text(1_709_251_199_000), "2024-02-29 23:59:59Z");
        assert_eq!(utc_text(1_767_225_599_999), "2025-12-31 23:59:59Z");
        assert_eq!(utc_text(-1), "1969-12-31 23:59:59Z");
    }
}
