//! How much of the last week a home was watched.
//!
//! Owns the holes: times in which an opening of the door would not have been noticed, because its sensor was silent beyond its
//! interval, faulty, or its door stood open. Refuses to judge: the clock of the home (`home`) counts for itself; this is the figure for people.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::time::{ms_between, shifted};

/// The figure is of the last week.
const WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Holes kept. Of more in one week the oldest is forgotten, which makes the figure better than it was.
const HOLES_MAX: usize = 64;

/// The holes of one home.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Coverage {
    /// When watching began.
    from: Option<Timestamp>,
    holes: VecDeque<(Timestamp, Timestamp)>,
    /// Begin of the hole that goes on.
    blind_from: Option<Timestamp>,
}

impl Coverage {
    pub fn new(now: Timestamp) -> Self {
        Self { from: Some(now), ..Self::default() }
    }

    /// From here on nothing would be noticed.
    pub fn goes_blind(&mut self, at: Timestamp) {
        self.blind_from.get_or_insert(at);
    }

    /// The sensor sees; it had not since `before`, or since it went blind.
    pub fn sees(&mut self, before: Timestamp, now: Timestamp) {
        let began = self.blind_from.take().map_or(before, |at| at.min(before));
        if began < now {
            self.holes.push_back((began, now));
        }
        let old = shifted(now, -WINDOW);
        self.holes.retain(|(_, to)| *to > old);
        if self.holes.len() > HOLES_MAX {
            self.holes.pop_front();
        }
    }

    /// Watched share of the last week, or of the time since watching began, in whole per cent, rounded down. What lies
    /// after the last sign of life is not watched. `None` when there is no time to speak of.
    pub fn percent(&self, now: Timestamp, heard_at: Timestamp) -> Option<u8> {
        let began = self.from?.max(shifted(now, -WINDOW));
        let whole = Some(ms_between(began, now)).filter(|whole| *whole > 0)?;
        let running = (self.blind_from.unwrap_or(heard_at).min(heard_at), now);
        let overlap = |(from, to): (Timestamp, Timestamp)| ms_between(from.max(began), to.min(now)).max(0);
        let blind: i64 = self.holes.iter().copied().chain([running]).map(overlap).sum();
        let percent = (whole - blind).max(0).checked_mul(100)?.checked_div(whole)?;
        u8::try_from(percent).ok()
    }

    pub fn rein(&mut self, now: Timestamp) {
        self.from = self.from.map(|at| at.min(now));
        self.blind_from = self.blind_from.map(|at| at.min(now));
        self.holes.iter_mut().for_each(|(from, to)| (*from, *to) = ((*from).min(now), (*to).min(now)));
    }

    pub fn shift(&mut self, by: SignedDuration) {
        self.from = self.from.map(|at| shifted(at, by));
        self.blind_from = self.blind_from.map(|at| shifted(at, by));
        self.holes.iter_mut().for_each(|(from, to)| (*from, *to) = (shifted(*from, by), shifted(*to, by)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::at;

    const HOUR: f64 = 3600.0;

    #[test]
    fn holes_of_the_last_week_count_and_older_ones_are_forgotten() {
        let mut coverage = Coverage::new(at(0.0));
        assert_eq!(coverage.percent(at(0.0), at(0.0)), None);
        assert_eq!(coverage.percent(at(10.0 * HOUR), at(10.0 * HOUR)), Some(100));
        coverage.sees(at(10.0 * HOUR), at(20.0 * HOUR));
        assert_eq!(coverage.percent(at(40.0 * HOUR), at(40.0 * HOUR)), Some(75));
        assert_eq!(coverage.percent(at(40.0 * HOUR), at(30.0 * HOUR)), Some(50), "silence is not watched");
        coverage.goes_blind(at(40.0 * HOUR));
        coverage.goes_blind(at(45.0 * HOUR));
        assert_eq!(coverage.percent(at(50.0 * HOUR), at(50.0 * HOUR)), Some(60));
        coverage.sees(at(50.0 * HOUR), at(50.0 * HOUR));
        assert_eq!(coverage.percent(at(50.0 * HOUR), at(50.0 * HOUR)), Some(60));
        let later = at(16.0 * 24.0 * HOUR);
        assert_eq!(coverage.percent(later, later), Some(100));
        coverage.sees(later, later);
        assert!(coverage.holes.is_empty());
    }

    #[test]
    fn a_set_clock_leaves_a_figure_between_nought_and_a_hundred() {
        let mut coverage = Coverage::new(at(100.0 * HOUR));
        coverage.sees(at(110.0 * HOUR), at(120.0 * HOUR));
        coverage.rein(at(50.0 * HOUR));
        assert_eq!(coverage.percent(at(60.0 * HOUR), at(60.0 * HOUR)), Some(100));
        coverage.shift(SignedDuration::from_hours(1000));
        assert_eq!(coverage.percent(at(60.0 * HOUR), at(60.0 * HOUR)), None, "not begun yet");
        for n in 0..200 {
            let from = 1100.0 + f64::from(n) / 10.0;
            coverage.sees(at(from * HOUR), at((from + 0.05) * HOUR));
        }
        assert_eq!(coverage.holes.len(), HOLES_MAX);
    }
}
