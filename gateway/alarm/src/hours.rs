//! When a zone's rule holds: weekly hours in the site's time zone.
//!
//! Owns the question "since when has it been forbidden without a break?", which is what a limit is counted from: who stood there
//! before the hours began has done nothing wrong until then. Refuses to know what is forbidden, and which time zone it is.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Hours that touch for longer than this are no different from "always".
const ALWAYS: SignedDuration = SignedDuration::from_hours(8 * 24);
/// At most so many windows are joined: a week of hours.
const JOINED_MAX: usize = 24 * 8;

/// From one time of day to another, on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days it begins on.
    pub days: Vec<Weekday>,
    /// Local time it begins at.
    pub begins: Time,
    /// Local time it ends at, exclusive. Not later than `begins`: on the next day, so `00:00` is midnight at the end of the day,
    /// and equal times are a whole day.
    pub ends: Time,
}

impl Window {
    /// Begin and end of the window that begins on `date`, if one does.
    fn on(&self, zone: &TimeZone, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&date.weekday()) {
            return None;
        }
        let last = if self.ends > self.begins { date } else { date.tomorrow().ok()? };
        let at = |date: Date, time| zone.to_timestamp(date.to_datetime(time)).ok();
        Some((at(date, self.begins)?, at(last, self.ends)?))
    }
}

/// The weekly hours of a zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hours {
    windows: Vec<Window>,
}

impl Hours {
    /// Day and night.
    #[must_use]
    pub fn always() -> Self {
        Self::default()
    }

    /// In any of these windows; none means always.
    #[must_use]
    pub fn of(windows: Vec<Window>) -> Self {
        Self { windows }
    }

    /// Since when the rule has held without a break; `None` when it does not hold at `at`.
    #[must_use]
    pub fn held_since(&self, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
        if self.windows.is_empty() {
            return Some(Timestamp::MIN);
        }
        let mut since = self.begin_of(zone, at)?;
        for _ in 0..JOINED_MAX {
            if at.duration_since(since) > ALWAYS {
                return Some(Timestamp::MIN);
            }
            let before = since.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            match self.begin_of(zone, before) {
                Some(earlier) => since = earlier,
                None => break,
            }
        }
        Some(since)
    }

    /// When the window began that holds at `at`; of several the earliest.
    fn begin_of(&self, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
        let today = zone.to_datetime(at).date();
        let days = [Some(today), today.yesterday().ok()];
        let spans = days.into_iter().flatten().flat_map(|date| self.windows.iter().map(move |w| w.on(zone, date)));
        spans.flatten().filter(|(begins, ends)| *begins <= at && at < *ends).map(|(begins, _)| begins).min()
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::time;
    use jiff::tz::offset;

    use super::*;

    const WORKDAYS: [Weekday; 5] =
        [Weekday::Monday, Weekday::Tuesday, Weekday::Wednesday, Weekday::Thursday, Weekday::Friday];

    fn window(days: &[Weekday], begins: i8, ends: i8) -> Window {
        Window { days: days.to_vec(), begins: time(begins, 0, 0, 0), ends: time(ends, 0, 0, 0) }
    }

    /// China's time, all year: 2026-11-23 is a Monday.
    fn since(hours: &Hours, at: &str) -> Option<String> {
        let zone = TimeZone::fixed(offset(8));
        let at: Timestamp = format!("{at}+08:00").parse().unwrap();
        hours
            .held_since(&zone, at)
            .map(|since| if since == Timestamp::MIN { "always".into() } else { zone.to_datetime(since).to_string() })
    }

    #[test]
    fn no_hours_are_always() {
        assert_eq!(since(&Hours::always(), "2026-11-23T03:00:00").as_deref(), Some("always"));
    }

    #[test]
    fn a_rule_holds_from_its_first_instant_and_no_longer_at_its_last() {
        let hours = Hours::of(vec![window(&WORKDAYS, 7, 20)]);
        for (at, expected) in [
            ("2026-11-23T06:59:59.999", None),
            ("2026-11-23T07:00:00", Some("2026-11-23T07:00:00")),
            ("2026-11-23T19:59:59.999", Some("2026-11-23T07:00:00")),
            ("2026-11-23T20:00:00", None),
            ("2026-11-22T12:00:00", None),
        ] {
            assert_eq!(since(&hours, at).as_deref(), expected, "{at}");
        }
    }

    #[test]
    fn midnight_belongs_to_the_night_that_began_the_evening_before() {
        let friday = Hours::of(vec![window(&[Weekday::Friday], 22, 6)]);
        for (at, expected) in [
            ("2026-11-27T21:59:59", None),
            ("2026-11-28T00:00:00", Some("2026-11-27T22:00:00")),
            ("2026-11-28T05:59:59", Some("2026-11-27T22:00:00")),
            ("2026-11-28T06:00:00", None),
            ("2026-11-28T23:00:00", None),
        ] {
            assert_eq!(since(&friday, at).as_deref(), expected, "{at}");
        }
    }

    #[test]
    fn hours_that_touch_are_one_also_over_midnight_and_a_whole_week_is_always() {
        let day = Hours::of(vec![window(&WORKDAYS, 0, 0)]);
        assert_eq!(since(&day, "2026-11-25T12:00:00").as_deref(), Some("2026-11-23T00:00:00"));
        let halves = Hours::of(vec![window(&WORKDAYS, 7, 12), window(&WORKDAYS, 12, 20)]);
        assert_eq!(since(&halves, "2026-11-25T13:00:00").as_deref(), Some("2026-11-25T07:00:00"));
        let all = [WORKDAYS.as_slice(), &[Weekday::Saturday, Weekday::Sunday]].concat();
        let week = Hours::of(vec![window(&all, 0, 12), window(&all, 12, 0)]);
        assert_eq!(since(&week, "2026-11-25T13:00:00").as_deref(), Some("always"));
    }
}
