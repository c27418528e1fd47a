//! One run of one camera worker.
//!
//! Owns the child process and the conversation with it. Ends it when it is silent, too large or does not speak the protocol; a child that was ended leaves
//! nothing behind (it is killed when this is dropped, and when the gateway dies).

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use gengfu_alarm::observation::What;
use gengfu_contract::words::Text;
use gengfu_vision::protocol::{ParentMessage, StillOutcome, StillRequest, VERSION, WorkerMessage};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};
use tokio_util::sync::CancellationToken;

use super::stills::{self, Whose};
use super::{CameraTask, Outlets, Shot, Wanted, snapshots, translate};
use crate::clock::Clock;

/// A worker says something every second; one that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(10);
/// Loading the detector can take this long on a small box.
const FIRST_WORD: Duration = Duration::from_secs(30);
/// Time to end by itself when asked.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest line a worker may send.
const LINE_MAX_BYTES: usize = 1 << 20;

/// How a run ended.
pub(super) enum Ended {
    /// We were asked to stop.
    Shutdown,
    /// The worker is gone or was ended; the text says why.
    Failed(String),
}

pub(super) struct Session<'a> {
    task: &'a CameraTask,
    outlets: &'a Outlets,
    clock: Arc<dyn Clock>,
    child: Child,
    to_worker: FramedWrite<ChildStdin, LinesCodec>,
    from_worker: FramedRead<ChildStdout, LinesCodec>,
    stderr: tokio::io::Lines<BufReader<ChildStderr>>,
    wanted: BTreeMap<u64, Wanted>,
    next_request: u64,
    scenes_shed: u64,
}

impl<'a> Session<'a> {
    pub(super) async fn start(
        task: &'a CameraTask,
        outlets: &'a Outlets,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let mut child = Command::new(&task.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let gone = || std::io::Error::other("the worker has no standard streams");
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        outlets.status.send_modify(|s| s.worker_pid = child.id());
        let mut session = Self {
            task,
            outlets,
            clock,
            child,
            to_worker: FramedWrite::new(stdin, LinesCodec::new()),
            from_worker: FramedRead::new(stdout, LinesCodec::new_with_max_length(LINE_MAX_BYTES)),
            stderr: BufReader::new(stderr).lines(),
            wanted: BTreeMap::new(),
            next_request: 1,
            scenes_shed: 0,
        };
        session.tell(&ParentMessage::Config(Box::new(task.worker.clone()))).await?;
        Ok(session)
    }

    async fn tell(&mut self, message: &ParentMessage) -> std::io::Result<()> {
        let line = serde_json::to_string(message)?;
        self.to_worker.send(line).await.map_err(|error| std::io::Error::other(error.to_string()))
    }

    pub(super) async fn run(&mut self, stills: &mut mpsc::Receiver<Wanted>, shutdown: &CancellationToken) -> Ended {
        let mut deadline = tokio::time::Instant::now() + FIRST_WORD;
        let mut stderr_open = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return self.say_goodbye().await,
                line = self.from_worker.next() => match line {
                    Some(Ok(line)) => {
                        if let Err(reason) = self.heard(&line).await {
                            return self.end(&reason).await;
                        }
                        // A disk that was slow to take a picture is not the worker's silence.
                        deadline = tokio::time::Instant::now() + SILENCE;
                    }
                    Some(Err(error)) => return self.end(&format!("the camera worker does not speak the protocol: {error}")).await,
                    None => return self.end("the camera worker ended").await,
                },
                line = self.stderr.next_line(), if stderr_open => match line {
                    Ok(Some(line)) => tracing::warn!(camera = %self.task.camera, "worker: {line}"),
                    _ => stderr_open = false,
                },
                Some(wanted) = stills.recv() => {
                    if let Err(error) = self.ask(wanted).await {
                        return self.end(&format!("the camera worker does not listen: {error}")).await;
                    }
                }
                () = tokio::time::sleep_until(deadline) => return self.end("the camera worker hangs: it said nothing").await,
            }
        }
    }

    async fn ask(&mut self, wanted: Wanted) -> std::io::Result<()> {
        let (track, reason) = match &wanted {
            Wanted::Alarm(need) => (Some(need.track), need.role.as_str().to_owned()),
            // It waited for a worker longer than its asker does.
            Wanted::Shot(shot) if shot.answer.is_closed() => return Ok(()),
            Wanted::Shot(_) => (None, snapshots::CAPTION.to_owned()),
        };
        let request_id = self.next_request;
        self.next_request += 1;
        let request = StillRequest { request_id, track, reason };
        self.wanted.insert(request_id, wanted);
        let told = tokio::time::timeout(SILENCE, self.tell(&ParentMessage::Still(request))).await;
        told.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    async fn heard(&mut self, line: &str) -> Result<(), String> {
        let message: WorkerMessage = serde_json::from_str(line)
            .map_err(|error| format!("the camera worker does not speak the protocol: {error}"))?;
        let now = self.clock.now();
        match message {
            WorkerMessage::Hello { version, .. } if version != VERSION => {
                return Err(format!(
                    "the camera worker speaks protocol {version}, this gateway {VERSION}; install both from one package"
                ));
            }
            WorkerMessage::Hello { .. } | WorkerMessage::TracksEnded { .. } => {}
            WorkerMessage::State { at_ms, state } => {
                let (text, remedy, camera) = translate::state(&state);
                tracing::info!(camera = %self.task.camera, state = %text, "camera");
                self.outlets.status.send_modify(|s| s.enter(&text, remedy, now));
                if let Some(camera) = camera {
                    self.see(translate::time(at_ms, now), What::Camera(camera)).await;
                }
            }
            WorkerMessage::Tracks(tracks) => {
                metrics::counter!("gengfu_camera_scenes_total", "camera" => self.task.camera.to_string()).increment(1);
                let at = translate::time(tracks.at_ms, now);
                let scene = What::Scene(translate::scene(&tracks, now));
                let seen = translate::observation(&self.task.camera, at, self.clock.quality(), scene);
                // Never wait with a scene: the next one says more.
                if self.outlets.seen.try_send(seen).is_err() {
                    self.scenes_shed += 1;
                    metrics::counter!("gengfu_camera_scenes_shed_total", "camera" => self.task.camera.to_string())
                        .increment(1);
                }
                self.outlets.status.send_modify(|s| {
                    s.last_picture_at = Some(at);
                    s.inference_us = tracks.inference_us;
                    s.tracks = tracks.tracks.len();
                });
            }
            WorkerMessage::Still { request_id, outcome, .. } => self.still(request_id, outcome, now).await,
            WorkerMessage::Heartbeat(beat) => {
                let shed = beat.shed + self.scenes_shed;
                self.outlets.status.send_modify(|s| {
                    s.frames_per_s = beat.frames_per_s;
                    s.worker_memory_bytes = beat.rss_bytes;
                    s.shed = shed;
                });
                if beat.rss_bytes > self.task.memory_max_bytes {
                    let (has, may) = (beat.rss_bytes >> 20, self.task.memory_max_bytes >> 20);
                    return Err(format!("the camera worker takes {has} MiB, more than the {may} MiB it may have"));
                }
            }
        }
        Ok(())
    }

    async fn still(&mut self, request_id: u64, outcome: StillOutcome, now: jiff::Timestamp) {
        let (pictures, camera) = (&self.task.pictures, &self.task.camera);
        match self.wanted.remove(&request_id) {
            Some(Wanted::Alarm(need)) => {
                let whose = Whose { id: &need.alarm_id, n: need.n, caption: &need.caption };
                let result = stills::keep(pictures, camera, whose, outcome, now).await;
                if let Err(message) = &result {
                    tracing::warn!(%camera, alarm = %need.alarm_id, "no picture: {message}");
                }
                self.see(now, What::Still { alarm_id: need.alarm_id, result }).await;
            }
            Some(Wanted::Shot(Shot { answer, .. })) if answer.is_closed() => {}
            Some(Wanted::Shot(Shot { cmd_id, answer })) => {
                let whose = Whose { id: &cmd_id, n: snapshots::N, caption: snapshots::CAPTION };
                let result = stills::keep(pictures, camera, whose, outcome, now).await;
                if let Err(Ok(_)) = answer.send(result.map_err(|why| snapshots::no_picture(&why))) {
                    tracing::warn!(%camera, cmd = %cmd_id, "a snapshot came too late; removed");
                    pictures.discard(&cmd_id);
                }
            }
            None => {}
        }
    }

    async fn see(&self, at: jiff::Timestamp, what: What) {
        let seen = translate::observation(&self.task.camera, at, self.clock.quality(), what);
        // The decider is gone only at shutdown.
        let _ = self.outlets.seen.send(seen).await;
    }

    async fn say_goodbye(&mut self) -> Ended {
        if self.tell(&ParentMessage::Shutdown).await.is_ok() {
            let _ = tokio::time::timeout(GOODBYE, self.child.wait()).await;
        }
        let _ = self.child.kill().await;
        Ended::Shutdown
    }

    /// Makes sure the child is gone; rules that wait for a picture are told that there is none.
    async fn end(&mut self, reason: &str) -> Ended {
        let _ = tokio::time::timeout(Duration::from_millis(200), self.child.wait()).await;
        let _ = self.child.start_kill();
        let status = self.child.wait().await;
        let now = self.clock.now();
        for wanted in std::mem::take(&mut self.wanted).into_values() {
            match wanted {
                Wanted::Alarm(need) => {
                    let result = Err("the camera worker ended before it had a picture".to_owned());
                    self.see(now, What::Still { alarm_id: need.alarm_id, result }).await;
                }
                Wanted::Shot(shot) => {
                    // Whoever waited may have gone.
                    let _ = shot.answer.send(Err(worker_ended()));
                }
            }
        }
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Ended::Failed(format!("{reason} ({how})"))
    }
}

fn worker_ended() -> Text {
    Text {
        zh: "摄像机处理进程在取得画面前退出，正在自动重启；请稍后换新编号重试".into(),
        en: "the camera's worker ended before it had a picture and is being started again: try again with a new id"
            .into(),
    }
}
