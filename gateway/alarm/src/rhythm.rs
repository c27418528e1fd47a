//! What is usual in one home: how long its door stays closed, by weekday and hour, and how often it is opened in a night.
//!
//! Owns a small histogram per weekday and per three hours of the day, of fixed size, that forgets slowly. Refuses what
//! nobody watched (a gap with a hole in its coverage) and what was no ordinary life: the caller learns neither.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Serialize};

use crate::policy::NotOpened;

/// Days with at least one learned gap before anything is concluded.
pub(crate) const DAYS_MIN: u32 = 14;
/// No learned first level is shorter.
pub(crate) const FIRST_MIN: Duration = Duration::from_secs(12 * 3600);
/// Gaps a weekday or an hour must have to be judged by its own. Below 200 of them its 0.995 quantile is the longest gap so
/// far, which is the careful side; the whole week would say less, because short gaps by day outnumber the nights.
const ROW_MIN: u32 = 20;
/// When a row holds this many, all its counts are halved: old habits fade.
const ROW_MAX: u32 = 1000;
/// Bins: the first ends at 2 h, every further one 8 % later; the last is open.
const BINS: usize = 48;
/// Openings in a night that are told apart.
const NIGHT_BINS: usize = 13;

/// One home's habits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rhythm {
    /// Days on which a gap was learned.
    pub days: u32,
    last_day: Option<Date>,
    all: Row,
    weekdays: Vec<Row>,
    hours: Vec<Row>,
    /// Nights by number of openings.
    nights: Row,
}

/// Counts per bin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Row(Vec<u16>);

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            days: 0,
            last_day: None,
            all: Row::default(),
            weekdays: vec![Row::default(); 7],
            hours: vec![Row::default(); 8],
            nights: Row::default(),
        }
    }
}

impl Rhythm {
    /// Takes in a gap that began at `began`, local time, and was fully covered.
    pub fn learn(&mut self, began: DateTime, ended_on: Date, gap_ms: i64) {
        let bin = bin_of(gap_ms);
        self.all.count(bin, BINS);
        let (weekday, hours) = cells(began);
        for row in [self.weekdays.get_mut(weekday), self.hours.get_mut(hours)].into_iter().flatten() {
            row.count(bin, BINS);
        }
        if self.last_day != Some(ended_on) {
            self.last_day = Some(ended_on);
            self.days = self.days.saturating_add(1);
        }
    }

    /// The first level for a gap that begins at `began`: 0.995 quantile × 1.25, between 12 h and the latest that the limits
    /// allow; `None` before enough was learned. The weekday and the hour both have a say, and the longer one counts; one
    /// with too few gaps of its own speaks for the whole week.
    pub fn first_level(&self, began: DateTime, limits: &NotOpened) -> Option<Duration> {
        if self.days < DAYS_MIN {
            return None;
        }
        let (weekday, hours) = cells(began);
        let own = |rows: &[Row], n: usize| {
            let row = rows.get(n).filter(|row| row.total() >= ROW_MIN).unwrap_or(&self.all);
            row.quantile(995).map(bin_end_ms)
        };
        let quantile_ms = own(&self.weekdays, weekday).max(own(&self.hours, hours))?;
        let wanted = Duration::from_millis(quantile_ms.saturating_mul(5) / 4);
        // Not `clamp`: limits shorter than 12 h are a person's own, and hold.
        Some(wanted.max(FIRST_MIN).min(limits.longest_first))
    }

    /// Takes in a whole watched night.
    pub fn learn_night(&mut self, openings: u32) {
        let bin = usize::try_from(openings).unwrap_or(NIGHT_BINS).min(NIGHT_BINS - 1);
        self.nights.count(bin, NIGHT_BINS);
    }

    /// Whole nights learned, for tests.
    #[cfg(test)]
    pub fn nights_learned(&self) -> u32 {
        self.nights.total()
    }

    /// So many openings in one night are unusual; `None` before enough nights were watched.
    pub fn unusual_openings(&self) -> Option<u32> {
        if self.nights.total() < DAYS_MIN {
            return None;
        }
        self.nights.quantile(990).and_then(|most| u32::try_from(most + 1).ok())
    }
}

impl Row {
    fn count(&mut self, bin: usize, bins: usize) {
        self.0.resize(bins, 0);
        if let Some(count) = self.0.get_mut(bin) {
            *count = count.saturating_add(1);
        }
        if self.total() >= ROW_MAX {
            self.0.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn total(&self) -> u32 {
        self.0.iter().map(|count| u32::from(*count)).sum()
    }

    /// The bin of the nearest-rank quantile, in thousandths.
    fn quantile(&self, thousandths: u32) -> Option<usize> {
        let rank = (self.total() * thousandths).div_ceil(1000);
        let mut seen = 0;
        self.0.iter().position(|count| {
            seen += u32::from(*count);
            *count > 0 && seen >= rank
        })
    }
}

/// Weekday from Monday, and three-hour block of the day.
fn cells(began: DateTime) -> (usize, usize) {
    let weekday = usize::from(began.weekday().to_monday_zero_offset().unsigned_abs());
    (weekday, usize::from(began.hour().unsigned_abs()) / 3)
}

/// End of a bin: 2 h × 1.08^n, in whole milliseconds by whole-number steps, so that every machine agrees.
fn bin_end_ms(bin: usize) -> u64 {
    (0..bin).fold(2 * 3_600_000, |end: u64, _| end + end * 8 / 100)
}

fn bin_of(gap_ms: i64) -> usize {
    let gap_ms = u64::try_from(gap_ms).unwrap_or(0);
    (0..BINS - 1).find(|bin| gap_ms <= bin_end_ms(*bin)).unwrap_or(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RiskTier;

    const HOUR_MS: i64 = 3_600_000;

    fn day(n: i8) -> DateTime {
        jiff::civil::date(2026, 6, n).at(8, 0, 0, 0)
    }

    fn limits() -> NotOpened {
        NotOpened::of(RiskTier::Standard)
    }

    fn hours(rhythm: &Rhythm, began: DateTime) -> f64 {
        rhythm.first_level(began, &limits()).unwrap().as_secs_f64() / 3600.0
    }

    #[test]
    fn nothing_is_concluded_before_fourteen_days_and_never_less_than_twelve_hours() {
        let mut rhythm = Rhythm::default();
        for n in 1..=14 {
            assert_eq!(rhythm.first_level(day(1), &limits()), None);
            rhythm.learn(day(n), day(n).date(), HOUR_MS);
            rhythm.learn(day(n), day(n).date(), 2 * HOUR_MS);
        }
        assert_eq!(rhythm.first_level(day(1), &limits()), Some(FIRST_MIN));
    }

    #[test]
    fn a_long_gap_lengthens_the_limit_up_to_what_the_policy_allows() {
        let mut rhythm = Rhythm::default();
        for n in 1..=14 {
            rhythm.learn(day(n), day(n).date(), 20 * HOUR_MS);
        }
        let learned = hours(&rhythm, day(1));
        assert!((25.0..27.0).contains(&learned), "20 h × 1.25, at most one bin more: {learned}");
        rhythm.learn(day(15), day(15).date(), 1000 * HOUR_MS);
        assert_eq!(rhythm.first_level(day(1), &limits()), Some(limits().longest_first));
    }

    #[test]
    fn an_hour_with_enough_gaps_of_its_own_is_judged_by_them() {
        let mut rhythm = Rhythm::default();
        let evening = |n: i8| jiff::civil::date(2026, 6, n).at(19, 0, 0, 0);
        for n in 0..210 {
            let date = i8::try_from(n % 28 + 1).unwrap();
            rhythm.learn(day(date), day(date).date(), 9 * HOUR_MS);
            rhythm.learn(evening(date), day(date).date(), 16 * HOUR_MS);
        }
        // The weekday had evenings too, and the longer of the two counts.
        assert!(hours(&rhythm, day(1)) >= 20.0);
        for n in 0..20_000 {
            let date = i8::try_from(n % 28 + 1).unwrap();
            rhythm.learn(day(date), day(date).date(), 9 * HOUR_MS);
        }
        assert_eq!(rhythm.first_level(day(1), &limits()), Some(FIRST_MIN), "old habits fade");
        assert!(rhythm.all.total() < ROW_MAX);
    }

    #[test]
    fn unusual_is_more_than_nearly_all_nights_had() {
        let mut rhythm = Rhythm::default();
        for n in 0..13 {
            assert_eq!(rhythm.unusual_openings(), None);
            rhythm.learn_night(n % 3);
        }
        rhythm.learn_night(0);
        assert_eq!(rhythm.unusual_openings(), Some(3));
        rhythm.learn_night(u32::MAX);
        assert_eq!(rhythm.unusual_openings(), Some(13));
    }

    #[test]
    fn bins_grow_and_reach_beyond_the_longest_limit() {
        assert!((1..BINS).all(|bin| bin_end_ms(bin) > bin_end_ms(bin - 1)));
        assert!(bin_end_ms(BINS - 2) > 57 * 3_600_000, "{}", bin_end_ms(BINS - 2));
        assert_eq!((bin_of(-5), bin_of(i64::MAX)), (0, BINS - 1));
    }
}
