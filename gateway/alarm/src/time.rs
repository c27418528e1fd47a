//! Arithmetic on points in time that never panics, and durations as people say them. Owns saturation at the ends of
//! the calendar, so that a mad clock or limit cannot stop an alarm; refuses to read a clock.

use std::time::Duration;

use gengfu_contract::words::Text;
use jiff::{SignedDuration, Timestamp};

/// `at` plus `by`, at most the end of the calendar.
pub(crate) fn after(at: Timestamp, by: Duration) -> Timestamp {
    shifted(at, SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX))
}

/// `at` moved by `by`, within the calendar.
pub(crate) fn shifted(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// Milliseconds from `from` to `to`; negative when `to` is earlier.
pub(crate) fn ms_between(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.duration_since(from).as_millis()).unwrap_or(i64::MAX)
}

/// True when at least `span` lies between `from` and `to`.
pub(crate) fn has_lasted(from: Timestamp, to: Timestamp, span: Duration) -> bool {
    to >= after(from, span)
}

/// A duration in milliseconds, as an input of an explanation.
pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as people say it, to the second.
pub(crate) fn spoken(ms: i64) -> Text {
    let seconds = ms.max(0) / 1000;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = [(h, "小时", "h"), (m, "分", "min"), (s, "秒", "s")];
    let shown: Vec<_> = parts.into_iter().filter(|(n, ..)| *n > 0).collect();
    if shown.is_empty() {
        return Text { zh: "0 秒".into(), en: "0 s".into() };
    }
    let join = |word: fn(&(i64, &str, &str)) -> String| shown.iter().map(word).collect::<Vec<_>>().join(" ");
    Text { zh: join(|(n, zh, _)| format!("{n} {zh}")), en: join(|(n, _, en)| format!("{n} {en}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        let now: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        assert_eq!(after(now, Duration::MAX), Timestamp::MAX);
        assert_eq!(shifted(Timestamp::MIN, SignedDuration::from_secs(-1)), Timestamp::MIN);
        assert!(ms_between(Timestamp::MIN, Timestamp::MAX) > 0);
        assert!(has_lasted(now, after(now, Duration::from_millis(5)), Duration::from_millis(5)));
        assert!(!has_lasted(now, after(now, Duration::from_millis(4)), Duration::from_millis(5)));
    }

    #[test]
    fn durations_are_said_in_both_languages() {
        assert_eq!(spoken(3_725_999).en, "1 h 2 min 5 s");
        assert_eq!(spoken(60_000).zh, "1 分");
        assert_eq!(spoken(-5).en, "0 s");
    }
}
