//! Cameras: some in each worker process.
//!
//! Owns the supervision of the workers (start, watch, end, start again), who shares one, and the translation of their words into observations. A worker that crashes,
//! hangs, lies or eats memory is ended and reported as its cameras' fault; nothing here can make a sensor wait. Scenes that the decider has no room for are shed and
//! counted; what the cameras give up when the box is short of time stands in [`ladder`].

mod isolation;
pub mod ladder;
pub mod shedding;
pub mod snapshots;
mod stills;
mod translate;
pub mod trial;
pub mod views;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gengfu_alarm::observation::{Camera, Observation, What};
use gengfu_alarm::output::NeedStill;
use gengfu_contract::event::EvidenceRef;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use gengfu_vision::protocol::{CAMERAS_MAX, WorkerConfig};
use gengfu_vision::sandbox::Limits;
use jiff::Timestamp;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::evidence::Pictures;
use isolation::{Blame, Isolation, Next};
use ladder::Duty;
use shedding::Shedding;
pub(crate) use translate::kind;
pub use translate::scene;
use worker::{Ended, Session};

/// Address space of a worker without cameras, bytes: libraries and detector map far more than they touch.
const ADDRESS_SPACE: u64 = 1536 << 20;
/// And for each of its cameras: threads, decoder, pictures.
const ADDRESS_SPACE_PER_CAMERA: u64 = 192 << 20;

/// One camera to watch.
#[derive(Debug, Clone)]
pub struct CameraTask {
    /// The camera's device name.
    pub camera: Slug,
    /// Its part of the first line to the worker.
    pub worker: WorkerConfig,
    /// What it is for: decides when it gives something up.
    pub duty: Duty,
    /// Its number on this box, from 0.
    pub place: usize,
    /// How many cameras the box has.
    pub of: usize,
}

/// What all workers have in common.
#[derive(Debug, Clone)]
pub struct Workers {
    /// The program that is the worker: [`worker_program`].
    pub program: PathBuf,
    /// Where its pictures go.
    pub pictures: Pictures,
    /// Folder of the reference views; exists.
    pub views_dir: PathBuf,
    /// A worker whose resident memory grows beyond this is ended.
    pub memory_max_bytes: u64,
    /// What the box gives up now.
    pub shedding: watch::Receiver<Shedding>,
}

impl Workers {
    fn limits(&self, cameras: usize) -> Limits {
        // The reference views are the one thing a worker writes; no picture can be made of them.
        Limits { writable: vec![self.views_dir.clone()], ..limits(cameras) }
    }
}

/// What a worker with so many cameras may take; it may write nothing.
fn limits(cameras: usize) -> Limits {
    let address_space = ADDRESS_SPACE + ADDRESS_SPACE_PER_CAMERA * cameras as u64;
    Limits { address_space_max_bytes: Some(address_space), ..Limits::default() }
}

/// A camera with its ends of the channels; it moves with them from worker to worker.
#[derive(Debug)]
pub struct Member {
    /// What is watched.
    pub task: CameraTask,
    /// Where its words go.
    pub outlets: Outlets,
    /// Pictures that somebody wants of it.
    pub stills: mpsc::Receiver<Wanted>,
}

/// Who shares a worker at first: cameras with the same model, at most `per_worker` together, in even groups.
#[must_use]
pub fn groups(members: Vec<Member>, per_worker: usize) -> Vec<Vec<Member>> {
    let per_worker = per_worker.clamp(1, CAMERAS_MAX);
    let mut by_model: Vec<VecDeque<Member>> = Vec::new();
    for member in members {
        let same = |group: &&mut VecDeque<Member>| group[0].task.worker.model == member.task.worker.model;
        match by_model.iter_mut().find(same) {
            Some(group) => group.push_back(member),
            None => by_model.push(VecDeque::from([member])),
        }
    }
    let mut groups = Vec::new();
    for mut same in by_model {
        let mut workers = same.len().div_ceil(per_worker);
        while workers > 0 {
            let count = same.len().div_ceil(workers);
            groups.push(same.drain(..count).collect());
            workers -= 1;
        }
    }
    groups
}

/// The worker's program: it lies beside this one.
///
/// # Errors
/// When the operating system does not tell where this program lies.
pub fn worker_program() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("gengfu-camera-worker"))
}

/// Where a camera's words go.
#[derive(Debug, Clone)]
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
    /// Pictures the worker analysed since its start, and those of them that the detector looked at.
    #[serde(default)]
    pub analysed: u64,
    /// See `analysed`.
    #[serde(default)]
    pub looked: u64,
    /// Pictures replaced by newer ones before the worker came to them, since its start.
    #[serde(default)]
    pub replaced: u64,
    /// The longest a picture waited for its result in the last second, ms.
    #[serde(default)]
    pub lag_ms: u64,
    /// Starts of its worker.
    pub worker_starts: u64,
    /// Its worker's process, which it may share.
    pub worker_pid: Option<u32>,
    /// With so many other cameras.
    #[serde(default)]
    pub worker_fellows: usize,
    /// Resident memory of the worker.
    pub worker_memory_bytes: u64,
    /// Processor time of the worker since its start, ms.
    #[serde(default)]
    pub worker_cpu_ms: u64,
    /// What the kernel enforces on the worker, in words.
    #[serde(default)]
    pub confinement: String,
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
            analysed: 0,
            looked: 0,
            replaced: 0,
            lag_ms: 0,
            worker_starts: 0,
            worker_pid: None,
            worker_fellows: 0,
            worker_memory_bytes: 0,
            worker_cpu_ms: 0,
            confinement: String::new(),
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

/// Watches the cameras of a group until shutdown: in one worker, and in more when some of them cannot live together.
pub async fn watch_group(members: Vec<Member>, workers: Workers, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    let begun = tokio::time::Instant::now();
    let mut isolation = Isolation::default();
    let mut lives = FuturesUnordered::new();
    lives.push(live(members, Duration::ZERO, &workers, clock.clone(), &shutdown));
    while let Some(life) = lives.next().await {
        let Some((reason, blame)) = life.ended else { continue };
        if !tell_of_the_end(&life.members, &reason, &blame, clock.as_ref()).await {
            return;
        }
        let names: Vec<Slug> = life.members.iter().map(|member| member.task.camera.clone()).collect();
        let mut members = life.members;
        for Next { cameras, wait } in isolation.after(&names, &blame, life.lived, begun.elapsed()) {
            let together = members.extract_if(.., |member| cameras.contains(&member.task.camera)).collect();
            lives.push(live(together, wait, &workers, clock.clone(), &shutdown));
        }
    }
}

/// What became of one worker.
struct Life {
    members: Vec<Member>,
    lived: Duration,
    /// Why it ended; nothing at shutdown.
    ended: Option<(String, Blame)>,
}

/// One run of a worker with these cameras, after a pause.
async fn live(
    mut members: Vec<Member>,
    wait: Duration,
    workers: &Workers,
    clock: Arc<dyn Clock>,
    shutdown: &CancellationToken,
) -> Life {
    // Jitter: many cameras behind one switch must not all come back in the same instant.
    let wait = wait.mul_f64(rand::rng().random_range(0.5..1.0));
    let waited = tokio::time::timeout(wait, shutdown.cancelled()).await;
    if waited.is_ok() {
        return Life { members, lived: Duration::ZERO, ended: None };
    }
    let started = tokio::time::Instant::now();
    for member in &members {
        member.outlets.status.send_modify(|s| s.worker_starts += 1);
    }
    metrics::counter!("gengfu_camera_worker_starts_total").increment(1);
    let ended = match Session::start(&mut members, workers, clock).await {
        Ok(mut session) => session.run(shutdown).await,
        Err(error) => {
            let program = workers.program.display();
            Ended::Failed(format!("{program} cannot be started: {error}; install it beside gengfu"), Blame::Program)
        }
    };
    let ended = match ended {
        Ended::Shutdown => None,
        Ended::Failed(reason, blame) => Some((reason, blame)),
    };
    Life { members, lived: started.elapsed(), ended }
}

/// Shows and reports the end of a worker for each of its cameras. False when nobody listens any more.
async fn tell_of_the_end(members: &[Member], reason: &str, blame: &Blame, clock: &dyn Clock) -> bool {
    let now = clock.now();
    let cameras: Vec<&str> = members.iter().map(|member| member.task.camera.as_str()).collect();
    tracing::warn!(cameras = cameras.join(" "), "{reason}");
    for member in members {
        // What the worker said of a camera it cannot work with says more than that the worker ended.
        let guilty = matches!(blame, Blame::Unfit(unfit) if *unfit == member.task.camera);
        member.outlets.status.send_modify(|s| {
            if !guilty {
                s.enter(
                    reason,
                    "the worker is started again by itself; if this repeats, see the log (journalctl -u gengfu)",
                    now,
                );
            }
            s.worker_pid = None;
            s.worker_memory_bytes = 0;
            s.frames_per_s = 0.0;
        });
        if guilty {
            continue;
        }
        let fault = Camera::Fault { reason: "worker".to_owned(), detail: reason.to_owned() };
        let observation = translate::observation(&member.task.camera, now, clock.quality(), What::Camera(fault));
        if member.outlets.seen.send(observation).await.is_err() {
            return false;
        }
    }
    true
}
