//! Cameras: each in a worker process of its own.
//!
//! Owns the supervision of the workers (start, watch, end, start again) and the translation of their words into observations. A worker that crashes, hangs, lies or
//! eats memory is ended and reported as the camera's fault; nothing here can make a sensor wait. Scenes that the decider has no room for are shed and counted.

pub mod snapshots;
mod stills;
mod translate;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::observation::{Camera, Observation, What};
use gengfu_alarm::output::NeedStill;
use gengfu_contract::event::EvidenceRef;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use gengfu_vision::protocol::WorkerConfig;
use jiff::Timestamp;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::evidence::Pictures;
pub(crate) use translate::kind;
pub use translate::scene;
use worker::{Ended, Session};

/// First pause before a worker is started again; doubled each time up to [`RESTART_MAX`], forgotten after [`STEADY`].
const RESTART_MIN: Duration = Duration::from_millis(500);
/// Longest such pause: a camera is never given up.
const RESTART_MAX: Duration = Duration::from_secs(15);
/// A worker that lived this long was well.
const STEADY: Duration = Duration::from_secs(60);

/// One camera to watch.
#[derive(Debug, Clone)]
pub struct CameraTask {
    /// The camera's device name.
    pub camera: Slug,
    /// First line to the worker.
    pub worker: WorkerConfig,
    /// The program that is the worker: [`worker_program`].
    pub program: PathBuf,
    /// Where its pictures go.
    pub pictures: Pictures,
    /// A worker whose resident memory grows beyond this is ended.
    pub memory_max_bytes: u64,
}

/// The worker's program: it lies beside this one.
///
/// # Errors
/// When the operating system does not tell where this program lies.
pub fn worker_program() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("gengfu-camera-worker"))
}

/// Where a camera's words go.
#[derive(Clone)]
pub struct Outlets {
    /// To the decider.
    pub seen: mpsc::Sender<Observation>,
    /// For `status`.
    pub status: watch::Sender<CameraStatus>,
}

/// What `status` shows of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraStatus {
    /// The camera.
    pub camera: Slug,
    /// Its address, without credentials.
    pub source: String,
    /// "streaming", or what is wrong.
    pub state: String,
    /// What to do about it; empty while streaming.
    pub remedy: String,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// When the last picture was analysed.
    pub last_picture_at: Option<Timestamp>,
    /// Pictures analysed per second.
    pub frames_per_s: f32,
    /// Detector's time for the last picture, microseconds.
    pub inference_us: u64,
    /// Things followed in the last picture.
    pub tracks: usize,
    /// Pictures skipped by the worker, and scenes the decider had no room for.
    pub shed: u64,
    /// Starts of the worker.
    pub worker_starts: u64,
    /// Its process.
    pub worker_pid: Option<u32>,
    /// Its resident memory.
    pub worker_memory_bytes: u64,
}

impl CameraStatus {
    /// A camera that was not heard yet.
    #[must_use]
    pub fn starting(camera: Slug, source: String, now: Timestamp) -> Self {
        Self {
            camera,
            source,
            state: "starting".to_owned(),
            remedy: "wait a few seconds for the first picture".to_owned(),
            since: now,
            last_picture_at: None,
            frames_per_s: 0.0,
            inference_us: 0,
            tracks: 0,
            shed: 0,
            worker_starts: 0,
            worker_pid: None,
            worker_memory_bytes: 0,
        }
    }

    /// Pictures arrive and show something.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.state == "streaming"
    }

    fn enter(&mut self, state: &str, remedy: &str, now: Timestamp) {
        if self.state != state {
            state.clone_into(&mut self.state);
            self.since = now;
        }
        remedy.clone_into(&mut self.remedy);
    }
}

/// A picture that somebody waits for.
#[derive(Debug)]
pub enum Wanted {
    /// A rule.
    Alarm(NeedStill),
    /// The centre.
    Shot(Shot),
}

/// A picture of now.
#[derive(Debug)]
pub struct Shot {
    /// The command that asks for it.
    pub cmd_id: String,
    /// Where it, or why there is none, goes. Nobody listens there any more when it comes too late; then it is removed.
    pub answer: oneshot::Sender<Result<EvidenceRef, Text>>,
}

/// Hands each picture that a rule wants to its camera.
pub async fn route(mut stills: mpsc::Receiver<NeedStill>, cameras: BTreeMap<Slug, mpsc::Sender<Wanted>>) {
    while let Some(need) = stills.recv().await {
        // A camera whose channel is full is stuck; the rule's deadline raises the alarm without a picture.
        match cameras.get(&need.camera).map(|camera| camera.try_send(Wanted::Alarm(need.clone()))) {
            Some(Ok(())) => {}
            _ => metrics::counter!("gengfu_stills_shed_total").increment(1),
        }
    }
}

/// A camera that cannot even be started: shown, and told to the decider.
#[must_use]
pub fn cannot_start(camera: &Slug, why: &str, status: &watch::Sender<CameraStatus>, clock: &dyn Clock) -> Observation {
    let now = clock.now();
    tracing::error!(%camera, "cannot start: {why}");
    status.send_modify(|s| {
        s.enter(why, "correct it (`gengfu check` lists what is lacking), then restart the gateway", now)
    });
    let fault = Camera::Fault { reason: "configuration".to_owned(), detail: why.to_owned() };
    translate::observation(camera, now, clock.quality(), What::Camera(fault))
}

/// Watches one camera until shutdown.
pub async fn watch_camera(
    task: CameraTask,
    outlets: Outlets,
    mut stills: mpsc::Receiver<Wanted>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    let mut pause = RESTART_MIN;
    while !shutdown.is_cancelled() {
        let started = tokio::time::Instant::now();
        outlets.status.send_modify(|s| s.worker_starts += 1);
        metrics::counter!("gengfu_camera_worker_starts_total").increment(1);
        let ended = match Session::start(&task, &outlets, clock.clone()).await {
            Ok(mut session) => session.run(&mut stills, &shutdown).await,
            Err(error) => Ended::Failed(format!(
                "{} cannot be started: {error}; install it beside gengfu",
                task.program.display()
            )),
        };
        let Ended::Failed(reason) = ended else { break };
        let now = clock.now();
        tracing::warn!(camera = %task.camera, "{reason}");
        outlets.status.send_modify(|s| {
            s.enter(
                &reason,
                "the worker is started again by itself; if this repeats, see the log (journalctl -u gengfu)",
                now,
            );
            s.worker_pid = None;
            s.worker_memory_bytes = 0;
            s.frames_per_s = 0.0;
        });
        let fault = Camera::Fault { reason: "worker".to_owned(), detail: reason };
        let observation = translate::observation(&task.camera, now, clock.quality(), What::Camera(fault));
        if outlets.seen.send(observation).await.is_err() {
            break;
        }
        pause = if started.elapsed() >= STEADY { RESTART_MIN } else { pause };
        // Jitter: many cameras behind one switch must not all come back in the same instant.
        let wait = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        pause = (pause * 2).min(RESTART_MAX);
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
