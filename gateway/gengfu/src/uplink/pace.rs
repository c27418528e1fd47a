//! How fast a backlog goes out.
//!
//! Owns the rate at which items that are no life safety leave while many wait: after an outage a gateway must neither stand in the way of its own next
//! smoke alarm (each receipt is written to the disk that the alarm needs) nor, together with a thousand others, flood the broker and the centre. Refuses
//! to touch life safety, and what is so little that it is no backlog. `now` is an argument.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// As many waiting items are no backlog yet: a building's burst.
pub const BACKLOG_FROM: usize = 256;
/// Items that may go at once after a pause.
const BURST: u32 = 16;

/// The pace of a backlog. See the module.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Time that one item costs; zero: no limit.
    item: Duration,
    /// Items that may go now are counted back from here: one for each `item` of time that has passed since, at most [`BURST`].
    since: Option<Timestamp>,
    /// Something waits for the next item's time.
    waits: bool,
}

impl Pace {
    /// So many items a second; 0: no limit.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { item: Duration::from_secs(1).checked_div(per_second).unwrap_or_default(), since: None, waits: false }
    }

    /// How many items may go now, of `waiting`.
    pub fn allows(&mut self, now: Timestamp, waiting: usize) -> usize {
        self.waits = false;
        if self.item.is_zero() || waiting <= BACKLOG_FROM {
            return waiting;
        }
        let earliest = now.checked_sub(self.item * BURST).unwrap_or(now);
        // A clock that was set back begins anew.
        let since = self.since.filter(|at| *at <= now).map_or(earliest, |at| at.max(earliest));
        self.since = Some(since);
        let passed = now.duration_since(since).unsigned_abs();
        let allowed = passed.as_nanos().checked_div(self.item.as_nanos()).unwrap_or(0);
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).min(waiting);
        self.waits = allowed == 0;
        allowed
    }

    /// So many went.
    pub fn took(&mut self, items: usize) {
        let spent = self.item * u32::try_from(items).unwrap_or(u32::MAX);
        self.since = self.since.and_then(|at| at.checked_add(SignedDuration::try_from(spent).ok()?).ok());
        self.waits = items > 0 || self.waits;
    }

    /// Nothing can go for another reason.
    pub fn rest(&mut self) {
        self.waits = false;
    }

    /// When the next item may go, if one waits for that.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.since.filter(|_| self.waits).and_then(|at| at.checked_add(self.item).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const MANY: usize = 100_000;

    fn ms(ms: i64) -> Timestamp {
        at(0) + SignedDuration::from_millis(ms)
    }

    /// Takes what is allowed every `step_ms` until `end_ms`.
    fn taken(pace: &mut Pace, step_ms: i64, end_ms: i64) -> usize {
        let mut sum = 0;
        for now in (0..end_ms).step_by(usize::try_from(step_ms).unwrap()) {
            let items = pace.allows(ms(now), MANY - sum);
            pace.took(items);
            sum += items;
        }
        sum
    }

    #[test]
    fn a_backlog_keeps_its_rate_however_often_it_is_asked() {
        for step_ms in [1, 7, 40] {
            let sum = taken(&mut Pace::new(200), step_ms, 10_000);
            assert!((1_980..=2_020).contains(&sum), "{sum} in 10 s, asked every {step_ms} ms");
        }
    }

    #[test]
    fn a_burst_is_no_backlog_and_goes_at_once() {
        let mut pace = Pace::new(10);
        assert_eq!(pace.allows(ms(0), BACKLOG_FROM), BACKLOG_FROM);
        assert_eq!(pace.next_at(), None);
        assert_eq!(Pace::new(0).allows(ms(0), MANY), MANY, "0 is no limit");
    }

    #[test]
    fn it_says_when_the_next_may_go_and_a_clock_set_back_stops_nothing() {
        let mut pace = Pace::new(100);
        let first = pace.allows(ms(1_000), MANY);
        assert_eq!(first, BURST as usize);
        pace.took(first);
        assert_eq!(pace.allows(ms(1_000), MANY), 0);
        assert_eq!(pace.next_at(), Some(ms(1_010)));
        assert_eq!(pace.allows(ms(1_010), MANY), 1);
        assert!(pace.allows(at(-3_600), MANY) > 0);
    }
}
