//! How long a picture stays. Pure.
//!
//! Owns the end of every picture: of those that no alarm ever named, of those whose alarm is closed long enough, of those that are too old whatever their alarm
//! does, and of the oldest when they take too much room. Refuses to ask whether a picture was delivered: the limit is a promise to the people in it, and
//! the uplink says when it had to give one up.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// No picture is older than this on the box (mission, row 8: 30 days at most), whatever the configuration says.
pub const AGE_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What is known of a picture; it lies beside it, and nobody can be recognised by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Alarm or command.
    pub id: String,
    /// Number of the picture.
    pub n: u32,
    /// SHA-256 of the plain picture, hex.
    pub sha256: String,
    /// Size of the plain picture.
    pub bytes: u64,
    /// The camera, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// What it shows.
    pub caption: String,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// When it came to lie here.
    pub stored_at: Timestamp,
    /// Since when an event names it; absent: a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// Since when its alarm is over, or its command answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
}

/// How long and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// After its alarm is over.
    pub keep: Duration,
    /// A candidate that no event names waits so long for one.
    pub candidate: Duration,
    /// All pictures together.
    pub bytes_max: u64,
}

/// Why a picture ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// No event named it in time.
    Unconfirmed,
    /// Its alarm has been over for as long as the configuration says.
    Kept,
    /// It is as old as a picture may get.
    Age,
    /// There was no room for all.
    Room,
}

impl Why {
    /// For metrics and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Unconfirmed => "unconfirmed",
            Why::Kept => "kept",
            Why::Age => "age",
            Why::Room => "room",
        }
    }
}

/// Which pictures end at `now`, and why.
#[must_use]
pub fn ended<'a>(entries: &'a [Entry], policy: &Policy, now: Timestamp) -> Vec<(&'a Entry, Why)> {
    let past = |since: Timestamp, keep: Duration| {
        now.duration_since(since) >= SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX)
    };
    let why = |entry: &Entry| {
        if past(entry.taken_at, AGE_MAX) {
            return Some(Why::Age);
        }
        if entry.confirmed_at.is_none() {
            return past(entry.stored_at, policy.candidate).then_some(Why::Unconfirmed);
        }
        entry.closed_at.is_some_and(|at| past(at, policy.keep)).then_some(Why::Kept)
    };
    let mut ended = Vec::new();
    let mut staying = Vec::new();
    for entry in entries {
        match why(entry) {
            Some(why) => ended.push((entry, why)),
            None => staying.push(entry),
        }
    }
    // Oldest confirmed first; a candidate is of an alarm that may be raised in a moment.
    staying.sort_by_key(|entry| (entry.confirmed_at.is_none(), entry.taken_at, &entry.id, entry.n));
    let mut bytes: u64 = staying.iter().map(|entry| entry.bytes).sum();
    for entry in staying {
        if bytes <= policy.bytes_max {
            break;
        }
        bytes -= entry.bytes;
        ended.push((entry, Why::Room));
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn entry(n: u32, taken: i64, confirmed: bool, closed: Option<i64>) -> Entry {
        Entry {
            id: "A".into(),
            n,
            sha256: String::new(),
            bytes: 100,
            camera: None,
            caption: String::new(),
            taken_at: at(taken),
            stored_at: at(taken),
            confirmed_at: confirmed.then(|| at(taken)),
            closed_at: closed.map(at),
        }
    }

    fn policy() -> Policy {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Policy { keep: days(7), candidate: Duration::from_secs(600), bytes_max: 1_000 }
    }

    fn of(entries: &[Entry], now: i64) -> Vec<(u32, Why)> {
        ended(entries, &policy(), at(now)).into_iter().map(|(entry, why)| (entry.n, why)).collect()
    }

    #[test]
    fn a_picture_ends_after_its_alarm_is_over_and_not_before() {
        let open = [entry(1, 0, true, None)];
        assert_eq!(of(&open, 29 * DAY), [], "its alarm is open");
        assert_eq!(of(&open, 30 * DAY), [(1, Why::Age)], "and yet no picture is older than that");
        let closed = [entry(1, 0, true, Some(3 * DAY))];
        assert_eq!(of(&closed, 10 * DAY - 1), []);
        assert_eq!(of(&closed, 10 * DAY), [(1, Why::Kept)]);
        let late = [entry(1, 0, true, Some(28 * DAY))];
        assert_eq!(of(&late, 30 * DAY), [(1, Why::Age)]);
    }

    #[test]
    fn a_candidate_that_nobody_names_ends_soon() {
        let candidate = [entry(1, 0, false, None)];
        assert_eq!(of(&candidate, 599), []);
        assert_eq!(of(&candidate, 600), [(1, Why::Unconfirmed)]);
    }

    #[test]
    fn the_oldest_confirmed_ones_make_room_and_no_more_of_them_than_needed() {
        let mut entries: Vec<Entry> = (0..12).map(|n| entry(n, 100 - i64::from(n), true, None)).collect();
        entries.push(entry(99, 0, false, None));
        assert_eq!(of(&entries, 101), [(11, Why::Room), (10, Why::Room), (9, Why::Room)]);
        // A clock that was set back ends nothing.
        assert_eq!(of(&entries[..10], -DAY), []);
    }
}
