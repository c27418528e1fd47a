//! How long to wait before trying again, and the randomness that keeps a thousand gateways from doing it together.
//!
//! Owns the arithmetic: doubling, a ceiling, jitter. Refuses to know time or what is tried; the seed is an argument, so a
//! simulation repeats exactly.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `at` moved by `by` into the future; the end of time when that overflows.
#[must_use]
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Time from `from` until `to`; zero when `to` is not after `from`.
#[must_use]
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A seeded source of jitter (`SplitMix64`, Steele et al., OOPSLA 2014). Not for secrets.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `wait` made longer by up to a quarter. Never shorter: a promised minimum stays one.
    pub fn stretch(&mut self, wait: Duration) -> Duration {
        let quarter = u64::try_from(wait.as_millis() / 4).unwrap_or(u64::MAX - 1);
        wait.saturating_add(Duration::from_millis(self.next_u64() % (quarter + 1)))
    }
}

/// A wait that doubles with each failure up to a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub base: Duration,
    /// The longest wait, before jitter.
    pub ceiling: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (0 and 1 give the base), before jitter.
    #[must_use]
    pub fn wait(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.base.saturating_mul(1 << doublings).min(self.ceiling.max(self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling() {
        let backoff = Backoff { base: Duration::from_millis(200), ceiling: Duration::from_secs(10) };
        let waits: Vec<_> = (0..9).map(|n| backoff.wait(n).as_millis()).collect();
        assert_eq!(waits, [200, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.wait(u32::MAX).as_secs(), 10);
    }

    #[test]
    fn jitter_adds_at_most_a_quarter_and_repeats_with_its_seed() {
        let (mut a, mut b) = (Jitter::new(7), Jitter::new(7));
        let wait = Duration::from_secs(10);
        for _ in 0..1000 {
            let stretched = a.stretch(wait);
            assert_eq!(stretched, b.stretch(wait));
            assert!(stretched >= wait && stretched <= Duration::from_millis(12_500), "{stretched:?}");
        }
        assert_eq!(Jitter::new(1).stretch(Duration::ZERO), Duration::ZERO);
    }
}
