//! What happens to the simulated gateways, and when.
//!
//! Owns the seeded choice of the next alarm: how long until it comes, its kind, how long it lasts, whether it has a picture. The same seed gives the
//! same alarms for a gateway, whatever the others do. Refuses to know time, outboxes and brokers.

use std::time::Duration;

use gengfu_contract::words::AlarmKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often each kind comes, out of 100 alarms. Not what a district really sees (life safety is rare there), but every lane is under load.
const MIX: [(AlarmKind, u32); 9] = [
    (AlarmKind::Smoke, 5),
    (AlarmKind::Sos, 5),
    (AlarmKind::SensorLost, 10),
    (AlarmKind::LowBattery, 10),
    (AlarmKind::DoorLeftOpen, 25),
    (AlarmKind::NotOpened, 5),
    (AlarmKind::NightExit, 5),
    (AlarmKind::IllegalParking, 25),
    (AlarmKind::FireLaneBlocked, 10),
];
/// An alarm lasts between these.
const LASTS_MS: std::ops::Range<u64> = 2_000..10_000;

/// The next alarm of one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) kind: AlarmKind,
    pub(super) lasts: Duration,
    pub(super) has_picture: bool,
}

/// The alarms of one gateway, without end.
#[derive(Debug)]
pub(super) struct Traffic {
    random: StdRng,
    /// Alarms a second of this gateway, on average.
    rate: f64,
    /// Of 100 alarms of a camera, so many have a picture.
    pictures_percent: u32,
}

impl Traffic {
    /// The alarms of gateway number `index` in the run of `seed`.
    pub(super) fn new(seed: u64, index: usize, rate: f64, pictures_percent: u32) -> Self {
        // Neighbouring seeds of neighbouring gateways must not meet.
        let own = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self { random: StdRng::seed_from_u64(own), rate, pictures_percent }
    }

    /// How long until the next alarm: exponential, as independent happenings are; at most an hour, which also stands for "never".
    pub(super) fn gap(&mut self) -> Duration {
        let seconds = -f64::ln(1.0 - self.random.random::<f64>()) / self.rate;
        Duration::from_secs_f64(if seconds.is_finite() { seconds.min(3600.0) } else { 3600.0 })
    }

    /// A time in `0..span`, for a return after a power cut.
    pub(super) fn within(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.random.random::<f64>())
    }

    /// The next alarm.
    pub(super) fn alarm(&mut self) -> Alarm {
        let mut left = self.random.random_range(0..MIX.iter().map(|(_, weight)| weight).sum::<u32>());
        let mut kind = AlarmKind::Smoke;
        for (candidate, weight) in MIX {
            kind = candidate;
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        let lasts = Duration::from_millis(self.random.random_range(LASTS_MS));
        let is_scene = matches!(kind, AlarmKind::IllegalParking | AlarmKind::FireLaneBlocked);
        // Drawn for every kind, so that another share of pictures changes nothing else.
        let drawn = self.random.random_range(0..100) < self.pictures_percent;
        Alarm { kind, lasts, has_picture: is_scene && drawn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_gateway_or_seed_differs() {
        let alarms = |seed, index| {
            let mut traffic = Traffic::new(seed, index, 2.0, 50);
            (0..50).map(|_| (traffic.gap(), traffic.alarm())).collect::<Vec<_>>()
        };
        assert_eq!(alarms(7, 3), alarms(7, 3));
        assert_ne!(alarms(7, 3), alarms(7, 4));
        assert_ne!(alarms(7, 3), alarms(8, 3));
    }

    #[test]
    fn the_rate_and_the_mix_are_what_was_asked_for() {
        let mut traffic = Traffic::new(1, 0, 4.0, 100);
        let gaps: Duration = (0..20_000).map(|_| traffic.gap()).sum();
        assert!((4_800.0..5_200.0).contains(&gaps.as_secs_f64()), "20,000 alarms at 4 a second took {gaps:?}");
        let alarms: Vec<_> = (0..20_000).map(|_| traffic.alarm()).collect();
        for (kind, weight) in MIX {
            let share = alarms.iter().filter(|alarm| alarm.kind == kind).count() / 200;
            assert!(share.abs_diff(weight as usize) <= 1, "{kind}: {share} of 100, {weight} expected");
        }
        assert!(alarms.iter().all(|a| a.has_picture == (a.kind.lane() == gengfu_contract::words::Lane::City)));
    }

    #[test]
    fn no_rate_is_no_alarm_and_no_panic() {
        assert_eq!(Traffic::new(1, 0, 0.0, 0).gap(), Duration::from_secs(3600));
    }
}
