//! The box's measurements for the ladder, and the announcement of where it stands.
//!
//! Owns the sums over all cameras once a second. Refuses to decide ([`super::ladder`]) and to act: workers read the announced rung themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::CameraStatus;
use super::ladder::{Ladder, Limits, Load, Rung};
use crate::clock::Clock;

const EVERY: Duration = Duration::from_secs(1);
/// Shares are of so many of the last measurements together: workers report now and then, and one second may hold no report and the next two.
const TOGETHER: usize = 5;

/// What cameras give up now; shown in `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Shedding {
    /// How far up the ladder.
    pub rung: Rung,
    /// Since when; absent while it never left the ground.
    pub since: Option<Timestamp>,
    /// What was measured when it changed.
    pub why: String,
    /// Share of the box's processors that the camera workers took in the last five seconds, 0..1.
    pub cpu_share: f64,
    /// The longest a picture waited for its result in the last second, ms.
    pub lag_ms: u64,
}

/// What was counted until some second.
#[derive(Debug, Default)]
struct Counts {
    analysed: u64,
    shed: u64,
    cpu_ms: BTreeMap<u32, u64>,
}

/// Measures until shutdown, announces where the ladder stands.
pub async fn run(
    cameras: Vec<watch::Receiver<CameraStatus>>,
    announced: watch::Sender<Shedding>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (begun, mut ladder, mut before) = (Instant::now(), Ladder::new(Limits::default()), VecDeque::new());
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        let now: Vec<CameraStatus> = cameras.iter().map(|camera| camera.borrow().clone()).collect();
        let load = load(&now, &mut before, cores);
        let change = ladder.measured(begun.elapsed(), &load);
        if let Some((rung, why)) = &change {
            tracing::warn!(level = rung.level(), "cameras: {rung}, because {why}");
            metrics::counter!("gengfu_camera_shedding_changes_total").increment(1);
        }
        announced.send_if_modified(|told| {
            (told.cpu_share, told.lag_ms) = (load.cpu_share, load.lag_ms);
            let changed = change.is_some();
            if let Some((rung, why)) = change {
                (told.rung, told.why, told.since) = (rung, why, Some(clock.now()));
            }
            metrics::gauge!("gengfu_camera_shedding_level").set(f64::from(told.rung.level()));
            metrics::gauge!("gengfu_camera_cpu_share").set(told.cpu_share);
            // Only the rung is news to the workers; the figures are for whoever asks.
            changed
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a second and milliseconds of a second")]
fn load(now: &[CameraStatus], before: &mut VecDeque<Counts>, cores: usize) -> Load {
    let analysed: u64 = now.iter().map(|c| c.analysed).sum();
    let shed: u64 = now.iter().map(|c| c.replaced).sum();
    let cpu_ms: BTreeMap<u32, u64> = now.iter().filter_map(|c| Some((c.worker_pid?, c.worker_cpu_ms))).collect();
    let seconds = before.len().max(1);
    let known_nothing = Counts { analysed, shed, cpu_ms: BTreeMap::new() };
    let then = before.front().unwrap_or(&known_nothing);
    // A new worker counts from zero again: then nothing is known of these seconds.
    let (seen, lost) = (analysed.saturating_sub(then.analysed), shed.saturating_sub(then.shed));
    let spent: u64 =
        cpu_ms.iter().filter_map(|(pid, ms)| then.cpu_ms.get(pid).map(|then| ms.saturating_sub(*then))).sum();
    before.push_back(Counts { analysed, shed, cpu_ms });
    if before.len() > TOGETHER {
        before.pop_front();
    }
    let wanted = (seen + lost) as f64;
    let all_ms = EVERY.as_millis() as f64 * (cores * seconds) as f64;
    Load {
        lag_ms: now.iter().filter(|c| c.worker_pid.is_some()).map(|c| c.lag_ms).max().unwrap_or(0),
        shed_share: if wanted > 0.0 { lost as f64 / wanted } else { 0.0 },
        cpu_share: (spent as f64 / all_ms).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gengfu_contract::slug::Slug;

    #[test]
    fn a_second_of_the_box_is_summed_and_a_shared_worker_counts_once() {
        let camera = |n: u32, pid: u32, analysed: u64, replaced: u64, cpu: u64, lag: u64| CameraStatus {
            worker_pid: Some(pid),
            analysed,
            replaced,
            worker_cpu_ms: cpu,
            lag_ms: lag,
            ..CameraStatus::starting(Slug::new(format!("c-{n}")).unwrap(), String::new(), Timestamp::UNIX_EPOCH)
        };
        let mut before = VecDeque::new();
        let first = [camera(1, 7, 10, 0, 1000, 5), camera(2, 7, 10, 0, 1000, 5), camera(3, 9, 10, 5, 500, 5)];
        load(&first, &mut before, 2);
        let second = [camera(1, 7, 13, 0, 1800, 30), camera(2, 7, 13, 0, 1800, 900), camera(3, 9, 10, 7, 700, 20)];
        let found = load(&second, &mut before, 2);
        assert_eq!(found, Load { lag_ms: 900, shed_share: 0.25, cpu_share: 0.5 });
        let restarted = [camera(1, 8, 1, 0, 90, 0)];
        assert_eq!(load(&restarted, &mut before, 2).shed_share, 0.0, "a new worker counts anew");
    }

    #[test]
    fn a_worker_that_reports_every_other_second_is_as_busy_in_the_seconds_without_a_report() {
        let camera = |second: u64| CameraStatus {
            worker_pid: Some(7),
            analysed: 6 * (second / 2),
            replaced: 4 * (second / 2),
            worker_cpu_ms: 3600 * (second / 2),
            ..CameraStatus::starting(Slug::new("c").unwrap(), String::new(), Timestamp::UNIX_EPOCH)
        };
        let mut before = VecDeque::new();
        let found: Vec<Load> = (0..20).map(|second| load(&[camera(second)], &mut before, 2)).collect();
        let limits = Limits::default();
        for one in &found[4..] {
            assert!(one.shed_share > limits.shed_share && one.cpu_share > limits.cpu_share, "{one:?}");
        }
    }
}
