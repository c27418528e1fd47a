//! How long a PUBACK is waited for.
//!
//! Owns the estimate: as TCP's time-out follows the line (RFC 6298), the time after which a connection counts as dead follows what the broker's answers took.
//! A broker that is merely slow must not be met by gateways that all connect anew and send everything again: that is what overloads it for good. It
//! refuses to know messages and packet ids, to read a clock, and to give up below the floor or above the cap that the caller names.
//!
//! What differs from TCP. A PUBACK names one message of one connection, so Karn's ambiguity (which copy was answered?) does not arise. What does arise is the
//! other half of his rule: messages that were given up give no sample, so a broker whose every answer comes too late would look as quick as before. Hence each
//! time-out doubles the patience, and that is kept for [`KEPT`] and then taken back step by step, not with the first quick answer. And there may be
//! sixty answers a second where TCP has one sample a round trip: of each second only the slowest counts, or a pause of a cluster that elects a leader would be
//! forgotten within the next quarter of a second.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff::between;

/// One sample for so long: the slowest answer of it.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The least that is added to the smoothed time (RFC 6298 calls it the clock's granularity).
const MARGIN_MIN: Duration = Duration::from_millis(100);
/// A doubled patience is halved again after so long without another time-out.
const KEPT: Duration = Duration::from_secs(120);
/// Doublings at most.
const DOUBLINGS_MAX: u32 = 6;

/// The estimate for one broker. Times are steady: nobody sets their clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience {
    /// SRTT and RTTVAR of RFC 6298.
    smoothed: Option<(Duration, Duration)>,
    /// The second under way: its begin and its slowest answer.
    second: Option<(Timestamp, Duration)>,
    doublings: u32,
    timed_out_at: Option<Timestamp>,
}

impl Patience {
    /// An answer came after this time.
    pub fn answered(&mut self, waited: Duration, now: Timestamp) {
        match &mut self.second {
            Some((began, slowest)) if *began <= now && between(*began, now) < SAMPLE_EVERY => {
                *slowest = (*slowest).max(waited);
            }
            second => {
                let slowest = second.replace((now, waited)).map(|(_, slowest)| slowest);
                self.sample(slowest.unwrap_or(waited));
            }
        }
    }

    /// A connection was given up for want of an answer.
    pub fn timed_out(&mut self, now: Timestamp) {
        self.doublings = self.doublings_left(now).saturating_add(1).min(DOUBLINGS_MAX);
        self.timed_out_at = Some(now);
    }

    /// How long to wait for an answer now: at least `floor`, at most `cap`.
    pub fn wait(&self, floor: Duration, cap: Duration, now: Timestamp) -> Duration {
        let usual = self.smoothed.map_or(Duration::ZERO, |(mean, spread)| mean + (4 * spread).max(MARGIN_MIN));
        usual.max(floor).saturating_mul(1 << self.doublings_left(now)).min(cap.max(floor))
    }

    /// The smoothed time of the slowest answer of a second; absent before the first.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, _)| mean)
    }

    fn doublings_left(&self, now: Timestamp) -> u32 {
        let kept = self.timed_out_at.map_or(0, |at| between(at, now).as_secs() / KEPT.as_secs());
        self.doublings.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX))
    }

    /// RFC 6298, 2.2 and 2.3.
    fn sample(&mut self, waited: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (waited, waited / 2),
            Some((mean, spread)) => ((7 * mean + waited) / 8, (3 * spread + mean.abs_diff(waited)) / 4),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const FLOOR: Duration = Duration::from_secs(3);
    const CAP: Duration = Duration::from_secs(20);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// So many answers in the second, each after `waited`.
    fn second(patience: &mut Patience, second: i64, answers: i64, waited: Duration) {
        for n in 0..answers {
            patience.answered(waited, at(second) + jiff::SignedDuration::from_millis(1000 * n / answers));
        }
    }

    #[test]
    fn a_quick_broker_is_given_up_at_the_floor_and_nothing_is_below_it() {
        let mut patience = Patience::default();
        assert_eq!(patience.wait(FLOOR, CAP, at(0)), FLOOR, "before the first answer");
        (0..60).for_each(|n| second(&mut patience, n, 20, ms(30)));
        assert_eq!(patience.wait(FLOOR, CAP, at(60)), FLOOR);
        assert_eq!(patience.smoothed(), Some(ms(30)));
    }

    #[test]
    fn a_broker_that_takes_seconds_is_waited_for_and_never_beyond_the_cap() {
        let mut patience = Patience::default();
        (0..30).for_each(|n| second(&mut patience, n, 10, ms(if n % 3 == 0 { 6_000 } else { 1_500 })));
        let wait = patience.wait(FLOOR, CAP, at(30));
        assert!(wait > ms(6_000) && wait < CAP, "slower than its slow answers: {wait:?}");
        (30..60).for_each(|n| second(&mut patience, n, 10, ms(40_000)));
        assert_eq!(patience.wait(FLOOR, CAP, at(60)), CAP);
        (60..100).for_each(|n| second(&mut patience, n, 10, ms(30)));
        assert_eq!(patience.wait(FLOOR, CAP, at(100)), FLOOR, "and it is forgiven");
    }

    #[test]
    fn of_a_second_the_slowest_answer_counts_however_many_quick_ones_there_are() {
        let mut patience = Patience::default();
        (0..10).for_each(|n| second(&mut patience, n, 60, ms(20)));
        patience.answered(ms(5_000), at(10));
        for n in 1..60 {
            patience.answered(ms(20), at(10) + jiff::SignedDuration::from_millis(n * 16));
        }
        second(&mut patience, 11, 1, ms(20));
        assert!(patience.wait(FLOOR, CAP, at(11)) > ms(5_000));
    }

    #[test]
    fn each_time_out_doubles_it_and_quick_answers_do_not_take_that_back_at_once() {
        let mut patience = Patience::default();
        second(&mut patience, 0, 10, ms(30));
        patience.timed_out(at(3));
        assert_eq!(patience.wait(FLOOR, CAP, at(4)), 2 * FLOOR);
        (4..40).for_each(|n| second(&mut patience, n, 10, ms(30)));
        assert_eq!(patience.wait(FLOOR, CAP, at(40)), 2 * FLOOR);
        patience.timed_out(at(40));
        assert_eq!(patience.wait(FLOOR, CAP, at(41)), 4 * FLOOR);
        patience.timed_out(at(50));
        assert_eq!(patience.wait(FLOOR, CAP, at(51)), CAP);
        assert_eq!(patience.wait(FLOOR, CAP, at(50 + 120)), 4 * FLOOR);
        assert_eq!(patience.wait(FLOOR, CAP, at(50 + 360)), FLOOR);
    }

    /// A cluster that pauses for 4 to 9 s every 30 s, as one that elects leaders does: how often a gateway gives up within ten minutes.
    #[test]
    fn a_cluster_that_pauses_every_half_minute_makes_no_storm_of_connections() {
        let (mut patience, mut given_up) = (Patience::default(), 0);
        for pause in 0..20_i64 {
            let began = 30 * pause;
            (began..began + 20).for_each(|n| second(&mut patience, n, 20, ms(50)));
            let (stalled_at, lasts) = (began + 20, Duration::from_secs(4 + u64::try_from(pause % 6).unwrap()));
            let mut waited = Duration::ZERO;
            loop {
                let now = at(stalled_at) + jiff::SignedDuration::try_from(waited).unwrap();
                let wait = patience.wait(FLOOR, CAP, now);
                if waited + wait >= lasts {
                    patience.answered(lasts - waited, at(stalled_at) + jiff::SignedDuration::try_from(lasts).unwrap());
                    break;
                }
                waited += wait;
                patience.timed_out(at(stalled_at) + jiff::SignedDuration::try_from(waited).unwrap());
                given_up += 1;
            }
        }
        let fixed: u32 = (0..20).map(|pause| (4 + pause % 6) / 3).sum();
        assert!(5 * given_up <= fixed, "{given_up} times, with a fixed time {fixed}");
    }

    #[test]
    fn a_steady_clock_that_begins_anew_does_no_harm() {
        let mut patience = Patience::default();
        patience.answered(ms(30), at(1_000));
        patience.timed_out(at(1_000));
        patience.answered(ms(30), at(0));
        assert_eq!(patience.wait(FLOOR, CAP, at(0)), 2 * FLOOR);
    }
}
