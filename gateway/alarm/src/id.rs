//! Alarm ids: a ULID whose randomness is a hash, so that a replay of the same observations gives the same ids.
//!
//! Owns the recipe: 48 bits of milliseconds of the decision, 80 bits from SHA-256 of (gateway, device, zone, kind,
//! time, counter), each text ended by a zero byte. Refuses any other source of chance.

use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use ulid::Ulid;

/// The id of an alarm decided at `at`; `counter` sets apart what is alike in all else.
pub(crate) fn alarm_id(
    gateway: &Slug,
    device: &Slug,
    zone: Option<&Slug>,
    kind: AlarmKind,
    at: Timestamp,
    counter: u64,
) -> String {
    let mut hash = Sha256::new();
    for text in [gateway.as_str(), device.as_str(), zone.map_or("", Slug::as_str), kind.as_str()] {
        hash.update(text);
        hash.update([0]);
    }
    hash.update(at.as_nanosecond().to_be_bytes());
    hash.update(counter.to_be_bytes());
    let digest = hash.finalize();
    let random = digest.iter().take(10).fold(0u128, |all, byte| all << 8 | u128::from(*byte));
    Ulid::from_parts(u64::try_from(at.as_millisecond()).unwrap_or(0), random).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_repeat_in_a_replay_and_differ_in_every_part() {
        let slug = |name: &str| Slug::new(name).unwrap();
        let at: Timestamp = "2026-11-22T08:00:00Z".parse().unwrap();
        let later = at + jiff::SignedDuration::from_millis(1);
        let (gw, dev, zone) = (slug("gw"), slug("cam"), slug("z"));
        let id = alarm_id(&gw, &dev, Some(&zone), AlarmKind::IllegalParking, at, 1);
        assert_eq!(id, alarm_id(&gw, &dev, Some(&zone), AlarmKind::IllegalParking, at, 1));
        assert!(id < alarm_id(&gw, &dev, Some(&zone), AlarmKind::IllegalParking, later, 1));
        for other in [
            alarm_id(&dev, &gw, Some(&zone), AlarmKind::IllegalParking, at, 1),
            alarm_id(&gw, &dev, None, AlarmKind::IllegalParking, at, 1),
            alarm_id(&gw, &dev, Some(&zone), AlarmKind::FireLaneBlocked, at, 1),
            alarm_id(&gw, &dev, Some(&zone), AlarmKind::IllegalParking, at, 2),
        ] {
            assert_eq!(other.len(), 26);
            assert_ne!(other, id);
            assert_eq!(other[..10], id[..10], "the time part is the same");
        }
        assert_eq!(alarm_id(&gw, &dev, None, AlarmKind::Smoke, Timestamp::MIN, 0).len(), 26);
    }
}
