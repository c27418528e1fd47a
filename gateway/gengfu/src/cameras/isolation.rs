//! Which cameras share a worker after one has ended. Pure.
//!
//! Owns the memory of crashes and the rule: fellows go on together and soon, whoever is to blame goes on alone. Refuses to give a camera up: an
//! isolated one is tried again for ever, at growing intervals.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::slug::Slug;

/// First pause before a worker is started again; doubled each time up to [`RESTART_MAX`], forgotten after [`STEADY`].
const RESTART_MIN: Duration = Duration::from_millis(500);
/// Longest such pause: a camera is never given up.
const RESTART_MAX: Duration = Duration::from_secs(15);
/// A worker that lived this long was well.
const STEADY: Duration = Duration::from_secs(60);
/// So many crashes with one camera in hand within [`MEMORY`], and it goes on alone.
const CRASHES: usize = 2;
/// So many ends of a worker within [`MEMORY`] that nobody is to blame for, and its cameras are divided.
const ENDS: usize = 3;
/// How long an end counts.
const MEMORY: Duration = Duration::from_secs(600);

/// Who is to blame for the end of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Blame {
    /// This camera was in hand when it crashed.
    Camera(Slug),
    /// This camera cannot be worked with: the worker said so.
    Unfit(Slug),
    /// Nobody knows: it was killed, or takes too much.
    Unknown,
    /// No camera: the program is absent or of another version.
    Program,
}

/// Cameras that shall share a worker from `wait` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub cameras: Vec<Slug>,
    pub wait: Duration,
}

/// The memory of one group of cameras.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    crashes: BTreeMap<Slug, Vec<Duration>>,
    /// Ends nobody was to blame for, by the first camera of the worker.
    ends: BTreeMap<Slug, Vec<Duration>>,
    pauses: BTreeMap<Slug, Duration>,
}

impl Isolation {
    /// What follows the end of a worker with these cameras that lived for `lived`; `now` is since any fixed moment.
    pub(super) fn after(&mut self, cameras: &[Slug], blame: &Blame, lived: Duration, now: Duration) -> Vec<Next> {
        let Some(first) = cameras.first() else { return Vec::new() };
        if lived >= STEADY {
            self.pauses.remove(first);
        }
        let shared = cameras.len() > 1;
        if let Blame::Camera(guilty) | Blame::Unfit(guilty) = blame
            && shared
            && cameras.contains(guilty)
        {
            let crashes = remember(self.crashes.entry(guilty.clone()).or_default(), now);
            if crashes >= CRASHES || matches!(blame, Blame::Unfit(_)) {
                let fellows: Vec<Slug> = cameras.iter().filter(|c| *c != guilty).cloned().collect();
                // The fellows did nothing; they do not wait.
                let fellows = Next { cameras: fellows, wait: RESTART_MIN };
                return vec![fellows, Next { cameras: vec![guilty.clone()], wait: self.pause(guilty) }];
            }
        }
        if shared && *blame == Blame::Unknown && remember(self.ends.entry(first.clone()).or_default(), now) >= ENDS {
            self.ends.remove(first);
            let (one, other) = cameras.split_at(cameras.len() / 2);
            let half = |cameras: &[Slug]| Next { cameras: cameras.to_vec(), wait: RESTART_MIN };
            return vec![half(one), half(other)];
        }
        vec![Next { cameras: cameras.to_vec(), wait: self.pause(first) }]
    }

    fn pause(&mut self, camera: &Slug) -> Duration {
        let pause = self.pauses.entry(camera.clone()).or_insert(RESTART_MIN);
        let wait = *pause;
        *pause = (wait * 2).min(RESTART_MAX);
        wait
    }
}

/// Adds an end and counts those that still matter.
fn remember(ends: &mut Vec<Duration>, now: Duration) -> usize {
    ends.retain(|end| now.saturating_sub(*end) < MEMORY);
    ends.push(now);
    ends.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Slug> {
        (1..=count).map(|n| Slug::new(format!("cam-{n}")).unwrap()).collect()
    }

    fn groups(next: &[Next]) -> Vec<usize> {
        next.iter().map(|n| n.cameras.len()).collect()
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_camera_that_crashes_its_worker_twice_goes_on_alone_and_its_fellows_at_once() {
        let (cameras, mut isolation, now) = (names(8), Isolation::default(), Duration::ZERO);
        let blame = Blame::Camera(cameras[3].clone());
        assert_eq!(groups(&isolation.after(&cameras, &blame, SOON, now)), [8], "once can happen");
        let next = isolation.after(&cameras, &blame, SOON, now + SOON);
        assert_eq!(groups(&next), [7, 1]);
        assert!(next[0].wait <= Duration::from_secs(2) && !next[0].cameras.contains(&cameras[3]));
        let waits: Vec<u64> =
            (0..8).map(|_| isolation.after(&cameras[3..4], &blame, SOON, now + SOON)[0].wait.as_secs()).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1]) && waits[7] == 15, "never given up: {waits:?}");
        let steady = isolation.after(&cameras[3..4], &blame, STEADY, now + STEADY);
        assert_eq!(steady[0].wait, RESTART_MIN, "a good hour is believed");
    }

    #[test]
    fn crashes_long_ago_do_not_count() {
        let (cameras, mut isolation) = (names(4), Isolation::default());
        let blame = Blame::Camera(cameras[0].clone());
        for n in 0..10 {
            let next = isolation.after(&cameras, &blame, MEMORY, MEMORY * n);
            assert_eq!((groups(&next), next[0].wait), (vec![4], RESTART_MIN));
        }
    }

    #[test]
    fn a_camera_that_cannot_be_worked_with_is_taken_out_at_once() {
        let (cameras, mut isolation) = (names(3), Isolation::default());
        let next = isolation.after(&cameras, &Blame::Unfit(cameras[1].clone()), SOON, Duration::ZERO);
        assert_eq!(groups(&next), [2, 1]);
    }

    #[test]
    fn an_unknown_culprit_is_found_by_dividing() {
        let (cameras, mut isolation, mut now) = (names(8), Isolation::default(), Duration::ZERO);
        let guilty = cameras[5].clone();
        let (mut together, mut ends) = (cameras, 0);
        while together.len() > 1 {
            now += SOON;
            ends += 1;
            let next = isolation.after(&together, &Blame::Unknown, SOON, now);
            together = next.into_iter().find(|n| n.cameras.contains(&guilty)).unwrap().cameras;
            assert!(ends < 20);
        }
        assert_eq!((together, ends), (vec![guilty], 9));
    }

    #[test]
    fn a_missing_program_divides_nobody() {
        let (cameras, mut isolation) = (names(8), Isolation::default());
        for _ in 0..10 {
            assert_eq!(groups(&isolation.after(&cameras, &Blame::Program, SOON, Duration::ZERO)), [8]);
        }
    }
}
