//! What is usual in one home: in which hours of which weekday its door is opened, and how often in a night.
//!
//! Owns a profile of fixed size that forgets slowly: for every hour of the week the share of times in which somebody
//! opened the door, and whether a home that has been quiet for long opens less than its hours promise (illness, bad weather).
//! From these comes the chance that a gap which begins now is still running after so many hours, and from that the first level:
//! the hour after which waiting on spares hardly any needless call. Refuses what nobody watched (a gap with a hole in its
//! coverage) and what was no ordinary life: the caller learns neither. Counts in whole numbers, so that every machine agrees.

use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use serde::{Deserialize, Serialize};

use crate::policy::NotOpened;

/// Days with at least one learned gap before a level may come sooner than the policy's.
pub(crate) const DAYS_MIN: u32 = 14;
/// Days before what was learned may make it come later.
const DAYS_TO_LENGTHEN: u32 = 3;
/// No learned first level is shorter.
pub(crate) const FIRST_MIN: Duration = Duration::from_secs(12 * 3600);
/// What a needless call weighs in hours of waiting: one more hour is waited when it spares a call with a chance of one in
/// so many, or when an hour further on does.
/// Chosen on the simulated district (`docs/district-year.md`): more calls less and finds later.
const WAIT_WORTH_HOURS: u64 = 6000;
/// An hour of one weekday is judged by its own count beside this many days of that hour on all weekdays.
const POOL_DAYS: u64 = 30;
/// A cell that has been watched for this many days halves its counts: old habits fade.
const CELL_DAYS_MAX: u32 = 60;
/// A gap is long from here on; short ones say nothing about how a quiet time goes on.
const LONG_HOURS: i64 = 18;
/// Before anything long was seen: so many openings were expected in long gaps, and [`LONG_PRIOR_PPM`] of them came.
const LONG_PRIOR_OPENINGS: u64 = 10;
const LONG_PRIOR_PPM: u64 = 600_000;
/// When so many openings were expected in long gaps, both counts are halved.
const LONG_OPENINGS_MAX: u64 = 100;
/// Hours of a gap that are looked at; a longer one tells nothing more.
const GAP_HOURS_MAX: i64 = 24 * 14;
/// Openings in a night that are told apart.
const NIGHT_BINS: usize = 13;
const NIGHTS_MAX: u32 = 1000;
/// Nobody opens the door in an hour for certain, in millionths.
const CHANCE_MAX_PPM: u64 = 995_000;
const MILLION: u64 = 1_000_000;
const HOURS_OF_WEEK: usize = 7 * 24;

/// One home's habits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rhythm {
    /// Days on which a gap was learned.
    pub learned_days: u32,
    last_day: Option<Date>,
    longest_gap_ms: i64,
    /// By hour of the week, from Monday 0:00.
    hours: Vec<Cell>,
    /// Openings that the hours promised in long gaps, in millionths, and those that came.
    long_expected_ppm: u64,
    long_seen: u64,
    /// Nights by number of openings.
    nights: Row,
}

/// One hour of the week: days on which the door had not moved yet in the running gap when it began, and how often it was opened
/// in it then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cell(u32, u32);

/// Counts per bin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Row(Vec<u16>);

/// A first level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct First {
    pub limit: Duration,
    /// True when the home's rhythm chose it; before that it is the policy's, or later by what was seen.
    pub learned: bool,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            learned_days: 0,
            last_day: None,
            longest_gap_ms: 0,
            hours: vec![Cell::default(); HOURS_OF_WEEK],
            long_expected_ppm: 0,
            long_seen: 0,
            nights: Row::default(),
        }
    }
}

impl Rhythm {
    /// Takes in a gap from `began` to `ended`, local time, that was fully covered and lasted `gap_ms`.
    pub fn learn(&mut self, began: DateTime, ended: DateTime, gap_ms: i64) {
        self.longest_gap_ms = self.longest_gap_ms.max(gap_ms);
        if self.last_day != Some(ended.date()) {
            self.last_day = Some(ended.date());
            self.learned_days = self.learned_days.saturating_add(1);
        }
        let chances = self.chances();
        let last = hours_apart(began, ended);
        // Not the hour in which it began: a door that moves twice in an hour moved in that hour.
        let first = last.saturating_sub(GAP_HOURS_MAX).max(1);
        for n in first..=last {
            let index = hour_of_week(began, n);
            if n >= LONG_HOURS {
                self.long_expected_ppm += chances.get(index).copied().unwrap_or(0);
                self.long_seen += u64::from(n == last);
            }
            if let Some(cell) = self.hours.get_mut(index) {
                cell.count(n == last);
            }
        }
        if self.long_expected_ppm > LONG_OPENINGS_MAX * MILLION {
            (self.long_expected_ppm, self.long_seen) = (self.long_expected_ppm / 2, self.long_seen / 2);
        }
    }

    /// The first level for a gap that begins at `began`, within the limits: see the module's head. Fewer than 14 learned
    /// days may only put it later than the policy's, by what was seen: a quarter longer than the longest gap.
    pub fn first_level(&self, began: DateTime, limits: &NotOpened) -> First {
        let policy = First { limit: limits.yellow, learned: false };
        if self.learned_days < DAYS_TO_LENGTHEN {
            return policy;
        }
        let worth = self.worth_waiting(began, limits);
        if self.learned_days < DAYS_MIN {
            let seen = Duration::from_millis(u64::try_from(self.longest_gap_ms).unwrap_or(0).saturating_mul(5) / 4);
            let limit = worth.max(seen).min(limits.longest_first).max(limits.yellow);
            return First { limit, learned: false };
        }
        First { limit: worth, learned: true }
    }

    /// The limit L, in whole hours, at which L + 6000 h × P(the gap lasts longer than L) is least.
    fn worth_waiting(&self, began: DateTime, limits: &NotOpened) -> Duration {
        let chances = self.chances();
        let (minute, long_ppm) = (u64::from(began.minute().unsigned_abs()), self.long_ppm());
        // Not `clamp`: limits shorter than 12 h are a person's own, and hold.
        let shortest = FIRST_MIN.min(limits.longest_first);
        let hours_max = i64::try_from(limits.longest_first.as_secs() / 3600).unwrap_or(0).min(GAP_HOURS_MAX);
        let mut running_ppb: u64 = 1_000 * MILLION;
        let mut best = (u64::MAX, limits.longest_first);
        for n in 0..=hours_max {
            let limit = Duration::from_secs(u64::try_from(n).unwrap_or(0) * 3600);
            // In hours × 10⁹.
            let cost = u64::try_from(n).unwrap_or(0) * 1_000 * MILLION + WAIT_WORTH_HOURS * running_ppb;
            if limit >= shortest && cost < best.0 {
                best = (cost, limit);
            }
            let chance = |m: i64| {
                let of_hour = chances.get(hour_of_week(began, m)).copied().unwrap_or(0);
                let here = if n >= LONG_HOURS { of_hour * long_ppm / MILLION } else { of_hour };
                here.min(CHANCE_MAX_PPM)
            };
            // The hour from `began` + n: the rest of one hour of the clock, and the first minutes of the next.
            let closed_until = |m: i64, minute: u64| MILLION - chance(m) * minute / 60;
            running_ppb = running_ppb * closed_until(n, 60) / closed_until(n, minute);
            running_ppb = running_ppb * closed_until(n + 1, minute) / MILLION;
        }
        best.1.max(shortest).min(limits.longest_first)
    }

    /// By hour of the week: the chance, in millionths, that a closed door is opened in it.
    fn chances(&self) -> Vec<u64> {
        let sum = |hour: usize| {
            let cells = self.hours.iter().skip(hour).step_by(24);
            cells.fold((1, 0), |(days, openings), cell| (days + u64::from(cell.0), openings + u64::from(cell.1)))
        };
        let pooled: Vec<u64> = (0..24).map(sum).map(|(days, openings)| openings * MILLION / days).collect();
        let own = |(n, cell): (usize, &Cell)| {
            let pool = pooled.get(n % 24).copied().unwrap_or(0);
            (u64::from(cell.1) * MILLION + POOL_DAYS * pool) / (u64::from(cell.0) + POOL_DAYS)
        };
        self.hours.iter().enumerate().map(own).map(|chance| chance.min(MILLION)).collect()
    }

    /// How much of what the hours promise comes true in a gap that is long already, in millionths.
    fn long_ppm(&self) -> u64 {
        let seen = self.long_seen * MILLION + LONG_PRIOR_OPENINGS * LONG_PRIOR_PPM;
        let expected = self.long_expected_ppm + LONG_PRIOR_OPENINGS * MILLION;
        (seen * 1000 / (expected / 1000).max(1)).min(2 * MILLION)
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

impl Cell {
    fn count(&mut self, opened: bool) {
        if self.0 >= CELL_DAYS_MAX {
            (self.0, self.1) = (self.0 / 2, self.1 / 2);
        }
        (self.0, self.1) = (self.0 + 1, self.1 + u32::from(opened));
    }
}

impl Row {
    fn count(&mut self, bin: usize, bins: usize) {
        self.0.resize(bins, 0);
        if let Some(count) = self.0.get_mut(bin) {
            *count = count.saturating_add(1);
        }
        if self.total() >= NIGHTS_MAX {
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

/// Index of the hour of the clock `n` hours after the one in which `began` lies.
fn hour_of_week(began: DateTime, n: i64) -> usize {
    let weekday = i64::from(began.weekday().to_monday_zero_offset());
    let hours = i64::try_from(HOURS_OF_WEEK).unwrap_or(i64::MAX);
    usize::try_from((weekday * 24 + i64::from(began.hour()) + n).rem_euclid(hours)).unwrap_or(0)
}

/// Whole hours of the clock from the one in which `from` lies to that of `to`.
fn hours_apart(from: DateTime, to: DateTime) -> i64 {
    let whole = |at: DateTime| {
        at.date().to_datetime(jiff::civil::Time::midnight()).saturating_add(i64::from(at.hour()).hours())
    };
    whole(from).until((jiff::Unit::Hour, whole(to))).map_or(0, |span| i64::from(span.get_hours()).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RiskTier;

    fn at(day: i64, hour: i8, minute: i8) -> DateTime {
        jiff::civil::date(2026, 6, 1).at(hour, minute, 0, 0).saturating_add(day.days())
    }

    fn limits() -> NotOpened {
        NotOpened::of(RiskTier::Standard)
    }

    fn gap_ms(began: DateTime, ended: DateTime) -> i64 {
        let span = ended.duration_since(began);
        i64::try_from(span.as_millis()).unwrap()
    }

    /// A home that opens its door at these hours on every one of `days`, but for those skipped.
    fn home(days: i64, hours: &[i8], skip: impl Fn(i64) -> bool) -> Rhythm {
        let mut rhythm = Rhythm::default();
        let mut last = None;
        for day in (0..days).filter(|day| !skip(*day)) {
            for hour in hours {
                let now = at(day, *hour, 15);
                if let Some(last) = last {
                    rhythm.learn(last, now, gap_ms(last, now));
                }
                last = Some(now);
            }
        }
        rhythm
    }

    fn hours_of(rhythm: &Rhythm, began: DateTime) -> u64 {
        let first = rhythm.first_level(began, &limits());
        assert!(first.learned);
        first.limit.as_secs() / 3600
    }

    #[test]
    fn before_fourteen_days_what_was_seen_only_puts_the_first_level_later() {
        for days in 0..14 {
            let first = home(days, &[8, 19], |_| false).first_level(at(20, 8, 0), &limits());
            assert!(!first.learned && first.limit >= limits().yellow, "{days} days: {first:?}");
        }
        let quiet = home(8, &[9], |day| day % 2 == 1).first_level(at(20, 9, 0), &limits());
        assert_eq!(
            quiet,
            First { limit: limits().longest_first, learned: false },
            "48 h were usual: the latest there is"
        );
        let young = home(2, &[8, 19], |_| false).first_level(at(20, 8, 0), &limits());
        assert_eq!(young, First { limit: limits().yellow, learned: false });
    }

    #[test]
    fn a_home_that_never_misses_its_hours_is_asked_after_just_past_one_of_them() {
        let rhythm = home(90, &[8, 19], |_| false);
        for hour in [19, 8] {
            let began = at(91, hour, 15);
            let told = began.saturating_add(i64::try_from(hours_of(&rhythm, began)).unwrap().hours());
            assert!([9, 20].contains(&told.hour()) && hours_of(&rhythm, began) < 40, "from {began}: {told}");
        }
    }

    #[test]
    fn nobody_is_asked_after_in_the_hours_in_which_this_home_never_opens() {
        // One day in five is quiet: the first level must wait for the next morning, or come before the night.
        let rhythm = home(180, &[8, 19], |day| day % 5 == 3);
        for hour in 0..24 {
            let began = at(200, hour, 15);
            let told = began.saturating_add(i64::try_from(hours_of(&rhythm, began)).unwrap().hours());
            let asleep = (22..24).contains(&told.hour()) || (0..8).contains(&told.hour());
            let at_an_end = hours_of(&rhythm, began) == 12 || hours_of(&rhythm, began) == 46;
            assert!(!asleep || at_an_end, "{began}: told at {told}");
        }
    }

    #[test]
    fn a_home_with_quiet_days_is_asked_after_later_than_one_without() {
        let began = at(200, 19, 15);
        let (busy, quiet) = (home(120, &[8, 19], |_| false), home(120, &[8, 19], |day| day % 6 == 2));
        let (busy, quiet) = (hours_of(&busy, began), hours_of(&quiet, began));
        assert!(busy < quiet, "{busy} h and {quiet} h");
        let rare = home(300, &[10], |day| day % 3 != 0);
        assert!(hours_of(&rare, began) >= 38, "it waits for the third morning");
        let own = NotOpened { longest_first: Duration::from_secs(6 * 3600), ..limits() };
        assert_eq!(rare.first_level(began, &own).limit, own.longest_first, "a person's own limits hold");
    }

    #[test]
    fn weekdays_differ_when_a_home_does() {
        // A helper at ten from Monday to Friday, and nobody at weekends. 1 June 2026 is a Monday.
        let rhythm = home(364, &[10], |day| day % 7 >= 5);
        let chance = |weekday: usize| rhythm.chances()[weekday * 24 + 10];
        assert!((0..5).all(|weekday| chance(weekday) > 850_000), "{:?}", rhythm.chances());
        assert!((5..7).all(|weekday| chance(weekday) < 300_000), "{:?}", rhythm.chances());
    }

    #[test]
    fn old_habits_fade_and_counts_stay_bounded() {
        let mut rhythm = home(600, &[10], |_| false);
        let before = hours_of(&rhythm, at(700, 10, 15));
        let mut last = at(700, 8, 0);
        for day in 701..2200 {
            for hour in [8, 12, 16, 20] {
                let now = at(day, hour, 0);
                rhythm.learn(last, now, gap_ms(last, now));
                last = now;
            }
        }
        assert!(hours_of(&rhythm, at(2300, 10, 15)) < before, "once a day, then four times");
        assert!(rhythm.hours.iter().all(|cell| cell.0 <= CELL_DAYS_MAX && cell.1 <= cell.0));
        assert!(rhythm.long_expected_ppm <= (LONG_OPENINGS_MAX + 24 * 14) * MILLION);
    }

    #[test]
    fn absurd_gaps_and_empty_memories_are_harmless() {
        let mut rhythm = Rhythm::default();
        for _ in 0..20 {
            rhythm.learn(DateTime::MIN, DateTime::MAX, i64::MAX);
            rhythm.learn(DateTime::MAX, DateTime::MIN, i64::MIN);
            rhythm.learn(at(1, 23, 59), at(2, 0, 0), 60_000);
        }
        let first = rhythm.first_level(DateTime::MAX, &limits()).limit;
        assert!((FIRST_MIN..=limits().longest_first).contains(&first));
        let damaged: Rhythm = serde_json::from_str("{\"learned_days\":99,\"hours\":[]}").unwrap();
        assert!(damaged.first_level(at(1, 1, 1), &limits()).limit >= FIRST_MIN);
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
}
