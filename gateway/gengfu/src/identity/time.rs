//! Which time a broker's certificate is checked against.
//!
//! Owns the rule for clocks that are not set (decision 0005): a synchronised clock is believed to the second. Without one the gateway knows
//! only that it is *at least* as late as when it was built, or as when its clock was last right. Then a certificate is refused only if it had
//! ended by that time, and "not yet valid" is never held against it. Chain, name and revocation are checked always. Refuses to let an unset
//! clock keep an alarm from going out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gengfu_contract::event::ClockQuality;
use jiff::{SignedDuration, Timestamp};

use super::folder::{Folder, RealFolder};
use crate::clock::Clock;

/// How often the time is written down while the clock is right: a box that was off knows this much less.
const REMEMBER_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// The file.
const FILE: &str = "last-time";

/// When this program was built, Unix seconds (`SOURCE_DATE_EPOCH` where the build sets it).
const BUILT_AT_S: &str = env!("GENGFU_BUILT_AT_S");

/// What is known of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It is so late.
    Known(Timestamp),
    /// It is so late or later.
    AtLeast(Timestamp),
}

impl Reading {
    /// The time, or the earliest it can be.
    #[must_use]
    pub fn earliest(self) -> Timestamp {
        match self {
            Reading::Known(at) | Reading::AtLeast(at) => at,
        }
    }
}

/// The time as far as it can be trusted. Clones share what they know.
#[derive(Clone)]
pub struct TrustedTime {
    clock: Arc<dyn Clock>,
    always_known: bool,
    anchor: Arc<Mutex<Anchor>>,
    folder: Option<PathBuf>,
}

impl std::fmt::Debug for TrustedTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TrustedTime").field(&self.reading()).finish()
    }
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    /// It was so late,
    at: Timestamp,
    /// when the uptime was this.
    uptime: SignedDuration,
    written_at: Option<Timestamp>,
}

/// When this program was built.
#[must_use]
pub fn built_at() -> Timestamp {
    BUILT_AT_S.parse().ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl TrustedTime {
    /// Believes the clock whatever it says of itself: for the command line and the centre's desk, where a person sees the error.
    #[must_use]
    pub fn of_clock(clock: Arc<dyn Clock>) -> Self {
        Self::starting(clock, true, None, Timestamp::UNIX_EPOCH)
    }

    /// The rule of this module with nothing remembered: for brokers on the same site.
    #[must_use]
    pub fn since_build(clock: Arc<dyn Clock>) -> Self {
        Self::starting(clock, false, None, built_at())
    }

    /// The rule of this module. What was last known is kept in `folder`; a file there that cannot be read counts as none.
    #[must_use]
    pub fn remembered(clock: Arc<dyn Clock>, folder: &Path) -> Self {
        let kept = std::fs::read_to_string(folder.join(FILE)).ok().and_then(|text| text.trim().parse().ok());
        let floor = kept.unwrap_or(Timestamp::MIN).max(built_at());
        Self::starting(clock, false, Some(folder.to_owned()), floor)
    }

    fn starting(clock: Arc<dyn Clock>, always_known: bool, folder: Option<PathBuf>, floor: Timestamp) -> Self {
        let anchor = Anchor { at: floor, uptime: clock.uptime(), written_at: None };
        Self { clock, always_known, anchor: Arc::new(Mutex::new(anchor)), folder }
    }

    /// What is known now.
    #[must_use]
    pub fn reading(&self) -> Reading {
        if self.always_known {
            return Reading::Known(self.clock.now());
        }
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let mut anchor = self.anchor();
        if self.clock.quality() == ClockQuality::Synced {
            (anchor.at, anchor.uptime) = (now, uptime);
            return Reading::Known(now);
        }
        let passed = (uptime - anchor.uptime).max(SignedDuration::ZERO);
        Reading::AtLeast(anchor.at.saturating_add(passed).unwrap_or(anchor.at))
    }

    /// Writes the time down when it is known and that is due.
    ///
    /// # Errors
    /// The disk's; the next call tries again.
    pub fn remember(&self) -> std::io::Result<()> {
        let (Some(folder), Reading::Known(now)) = (&self.folder, self.reading()) else { return Ok(()) };
        let due = self.anchor().written_at.is_none_or(|at| now.duration_since(at).abs() >= REMEMBER_EVERY);
        if due {
            RealFolder::open(folder)?.replace(FILE, format!("{now}\n").as_bytes())?;
            self.anchor().written_at = Some(now);
        }
        Ok(())
    }

    fn anchor(&self) -> MutexGuard<'_, Anchor> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A clock that says of itself what the test wants.
    pub(crate) struct Wall {
        pub now: Mutex<Timestamp>,
        pub synced: Mutex<bool>,
        pub uptime_s: Mutex<i64>,
    }

    impl Wall {
        pub(crate) fn at(now: &str, synced: bool) -> Arc<Self> {
            let now = Mutex::new(now.parse().unwrap());
            Arc::new(Self { now, synced: Mutex::new(synced), uptime_s: Mutex::new(0) })
        }

        pub(crate) fn pass(&self, seconds: i64) {
            *self.uptime_s.lock().unwrap() += seconds;
            let mut now = self.now.lock().unwrap();
            *now = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        }
    }

    impl Clock for Wall {
        fn now(&self) -> Timestamp {
            *self.now.lock().unwrap()
        }
        fn quality(&self) -> ClockQuality {
            if *self.synced.lock().unwrap() { ClockQuality::Synced } else { ClockQuality::Unsynced }
        }
        fn uptime(&self) -> SignedDuration {
            SignedDuration::from_secs(*self.uptime_s.lock().unwrap())
        }
    }

    #[test]
    fn an_unset_clock_is_at_least_as_late_as_the_build_and_goes_on_with_the_uptime() {
        let dir = tempfile::tempdir().unwrap();
        let wall = Wall::at("1970-01-01T00:00:10Z", false);
        let time = TrustedTime::remembered(wall.clone(), dir.path());
        assert!(built_at() > "2025-01-01T00:00:00Z".parse().unwrap(), "the build says when it was");
        assert_eq!(time.reading(), Reading::AtLeast(built_at()));
        wall.pass(3600);
        assert_eq!(time.reading(), Reading::AtLeast(built_at() + SignedDuration::from_hours(1)));
    }

    #[test]
    fn the_last_right_time_survives_a_restart_and_a_clock_that_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let right: Timestamp = "2040-05-01T00:00:00Z".parse().unwrap();
        let wall = Wall::at("2040-05-01T00:00:00Z", true);
        let time = TrustedTime::remembered(wall.clone(), dir.path());
        time.remember().unwrap();
        assert_eq!(time.reading(), Reading::Known(right));
        *wall.synced.lock().unwrap() = false;
        *wall.now.lock().unwrap() = Timestamp::UNIX_EPOCH;
        wall.pass(60);
        assert_eq!(time.reading(), Reading::AtLeast(right + SignedDuration::from_secs(60)));
        let after = TrustedTime::remembered(Wall::at("1970-01-01T00:00:00Z", false), dir.path());
        assert_eq!(after.reading(), Reading::AtLeast(right));
        std::fs::write(dir.path().join(FILE), "rubbish").unwrap();
        let after = TrustedTime::remembered(Wall::at("1970-01-01T00:00:00Z", false), dir.path());
        assert_eq!(after.reading(), Reading::AtLeast(built_at()));
    }

    #[test]
    fn the_disk_is_written_once_an_hour_and_never_by_an_unset_clock() {
        let dir = tempfile::tempdir().unwrap();
        let wall = Wall::at("2040-05-01T00:00:00Z", false);
        let time = TrustedTime::remembered(wall.clone(), dir.path());
        let kept = || std::fs::read_to_string(dir.path().join(FILE)).ok();
        time.remember().unwrap();
        assert_eq!(kept(), None);
        *wall.synced.lock().unwrap() = true;
        time.remember().unwrap();
        let first = kept().unwrap();
        wall.pass(1800);
        time.remember().unwrap();
        assert_eq!(kept().unwrap(), first);
        wall.pass(1800);
        time.remember().unwrap();
        assert_ne!(kept().unwrap(), first);
    }
}
