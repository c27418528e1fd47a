//! A camera on trial: what would it see?
//!
//! Owns one run of a worker of its own for one camera, for some seconds, beside a running gateway or without one, and what came of it. Whoever sets a camera up
//! asks this. Nothing of it reaches the decider; the picture, blurred and masked as every other, is handed to whoever asked, and to nobody else.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::SinkExt;
use gengfu_vision::protocol::{
    CameraState, Heartbeat, ParentMessage, StillOutcome, StillRequest, TrackView, TracksMessage, VERSION, WorkerConfig,
    WorkerLine, WorkerMessage, WorkerSetup,
};
use serde::Serialize;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};

use super::translate;

/// A worker loads its models, and a camera is reached, within this.
const FIRST_PICTURE: Duration = Duration::from_secs(30);
/// A picture is made within this once it is asked for; people are looked for in many parts of it.
const PICTURE: Duration = Duration::from_secs(20);
/// Time to end by itself when asked.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest line a worker may send: a picture in it.
const LINE_MAX_BYTES: usize = 1 << 20;
/// What the worker is told the picture is for: everything is marked and named in it.
const REASON: &str = "test";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The camera.
    pub camera: String,
    /// Its address, without credentials.
    pub source: String,
    /// The models that looked.
    pub models: Vec<String>,
    /// "streaming", or what is wrong.
    pub state: String,
    /// What to do about it; empty while streaming.
    pub remedy: String,
    /// Pictures analysed, and those of them that the detector looked at.
    pub pictures: u64,
    /// See `pictures`.
    pub looked: u64,
    /// The detector's time for the last picture it looked at, ms.
    pub detector_ms: f64,
    /// Resident memory of the worker, MiB.
    pub memory_mib: u64,
    /// What the kernel enforced on the worker, in words.
    pub confinement: String,
    /// What is in the last picture.
    pub seen: Vec<Seen>,
}

impl Trial {
    /// Pictures came, and nothing is wrong with them.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.pictures > 0 && self.remedy.is_empty()
    }
}

/// One thing in the picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// What: `car`, `garbage`…
    pub kind: &'static str,
    /// How surely, 0..1.
    pub score: f32,
    /// The zones it stands in.
    pub zones: Vec<String>,
    /// For how long it has stood, s; `None`: it moves, or was not seen for long enough.
    pub still_s: Option<i64>,
    /// x, y, width, height as parts of the picture, from the top left.
    pub bbox: [f32; 4],
}

/// The picture at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestPicture {
    /// JPEG with zones and everything followed marked; people blurred, masks burned in.
    pub jpeg: Vec<u8>,
    /// How many people were made unrecognisable.
    pub people_blurred: usize,
}

/// Watches a camera for `lasts` from its first picture on, with a worker `program` of its own, and takes a picture at the end if wanted.
///
/// # Errors
/// A worker that does not start, does not speak the protocol, or ends; a picture that is wanted and cannot be made.
pub async fn watch(
    program: &Path,
    camera: WorkerConfig,
    lasts: Duration,
    wants_picture: bool,
) -> anyhow::Result<(Trial, Option<TestPicture>)> {
    let mut talk = Talk::start(program, &camera).await?;
    let mut trial = begun(&camera);
    let mut until = Instant::now() + FIRST_PICTURE;
    while let Ok(message) = timeout_at(until, talk.next()).await {
        match message? {
            WorkerMessage::Tracks(tracks) => {
                if trial.pictures == 0 {
                    until = Instant::now() + lasts;
                }
                trial.picture(&tracks);
            }
            WorkerMessage::State { state, .. } => {
                // A clip that was played to its end has shown what it has.
                if state == CameraState::Ended && trial.pictures > 0 {
                    break;
                }
                let (text, remedy, _) = translate::state(&state);
                (trial.state, trial.remedy) = (text, remedy.to_owned());
                if matches!(state, CameraState::Error { fatal: true, .. }) {
                    return Ok((trial, None));
                }
            }
            WorkerMessage::Hello { version, .. } if version != VERSION => {
                bail!(
                    "the camera worker speaks protocol {version}, this program {VERSION}; install both from one package"
                )
            }
            WorkerMessage::Hello { confinement, .. } => trial.confinement = confinement.to_string(),
            WorkerMessage::Heartbeat(Heartbeat { rss_bytes, .. }) => trial.memory_mib = rss_bytes >> 20,
            WorkerMessage::TracksEnded { .. } | WorkerMessage::Still { .. } => {}
        }
    }
    let picture = if wants_picture && trial.pictures > 0 { Some(talk.picture(&camera).await?) } else { None };
    talk.end().await;
    Ok((trial, picture))
}

fn begun(camera: &WorkerConfig) -> Trial {
    let models = [Some(&camera.model), camera.second_model.as_ref()].into_iter().flatten();
    let (state, remedy, _) = translate::state(&CameraState::Connecting);
    Trial {
        camera: camera.camera.clone(),
        source: camera.capture.url.to_string(),
        models: models.map(|model| model.entry.name.clone()).collect(),
        state,
        remedy: remedy.to_owned(),
        pictures: 0,
        looked: 0,
        detector_ms: 0.0,
        memory_mib: 0,
        confinement: String::new(),
        seen: Vec::new(),
    }
}

impl Trial {
    fn picture(&mut self, tracks: &TracksMessage) {
        self.pictures += 1;
        if tracks.looked {
            self.looked += 1;
            self.detector_ms = f64::from(u32::try_from(tracks.inference_us).unwrap_or(u32::MAX)) / 1000.0;
        }
        let seen = |track: &TrackView| Seen {
            kind: track.kind.as_str(),
            score: track.score,
            zones: track.zones.clone(),
            still_s: track.stationary_since_ms.map(|since| (tracks.at_ms - since).max(0) / 1000),
            bbox: track.bbox.into(),
        };
        self.seen = tracks.tracks.iter().filter(|track| !track.coasting).map(seen).collect();
    }
}

/// The worker and the way to it and back.
struct Talk {
    child: Child,
    to_worker: FramedWrite<ChildStdin, LinesCodec>,
    from_worker: FramedRead<ChildStdout, LinesCodec>,
}

impl Talk {
    async fn start(program: &Path, camera: &WorkerConfig) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it grumbles is for whoever stands here.
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}; install it beside gengfu", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut talk = Self {
            child,
            to_worker: FramedWrite::new(stdin.context("the worker has no input")?, LinesCodec::new()),
            from_worker: FramedRead::new(
                stdout.context("the worker has no output")?,
                LinesCodec::new_with_max_length(LINE_MAX_BYTES),
            ),
        };
        let setup = WorkerSetup::new(super::limits(1), vec![camera.clone()]);
        talk.tell(&ParentMessage::Config(Box::new(setup))).await?;
        Ok(talk)
    }

    async fn tell(&mut self, message: &ParentMessage) -> anyhow::Result<()> {
        self.to_worker.send(serde_json::to_string(message)?).await.context("the camera worker does not listen")
    }

    async fn next(&mut self) -> anyhow::Result<WorkerMessage> {
        let Some(line) = self.from_worker.next().await else {
            let status = self.child.wait().await?;
            bail!("the camera worker ended ({status}); its last words are above");
        };
        let line = line.context("the camera worker does not speak the protocol")?;
        let line: WorkerLine = serde_json::from_str(&line).context("the camera worker does not speak the protocol")?;
        Ok(line.message)
    }

    async fn picture(&mut self, camera: &WorkerConfig) -> anyhow::Result<TestPicture> {
        let reason = REASON.to_owned();
        let request = StillRequest { request_id: 1, camera: camera.camera.clone(), track: None, reason };
        self.tell(&ParentMessage::Still(request)).await?;
        let answer = async {
            loop {
                if let WorkerMessage::Still { outcome, .. } = self.next().await? {
                    return anyhow::Ok(outcome);
                }
            }
        };
        match timeout(PICTURE, answer).await.context("the camera worker made no picture in time; try again")?? {
            StillOutcome::Taken { jpeg, people_blurred, .. } => Ok(TestPicture { jpeg: jpeg.0, people_blurred }),
            StillOutcome::Failed { message } => bail!("no picture: {message}"),
        }
    }

    async fn end(mut self) {
        // It is killed when this is dropped, should it not go by itself.
        if self.tell(&ParentMessage::Shutdown).await.is_ok() {
            let _ = timeout(GOODBYE, self.child.wait()).await;
        }
    }
}
