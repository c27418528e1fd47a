//! One run of one camera worker.
//!
//! Owns the child process and the conversation with it about all its cameras. Ends it when it is silent, too large or does not speak the protocol; a child that was
//! ended leaves nothing behind (it is killed when this is dropped, and when the gateway dies). Refuses to judge who shares a worker next ([`super::isolation`]).

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::SinkExt;
use gengfu_alarm::observation::What;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use gengfu_vision::protocol::{
    CameraState, ParentMessage, StillOutcome, StillRequest, TracksMessage, VERSION, WorkerLine, WorkerMessage,
    WorkerSetup,
};
use gengfu_vision::worker::LastWord;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};
use tokio_util::sync::CancellationToken;

use super::isolation::Blame;
use super::ladder::{Rung, effort};
use super::stills::{self, Whose};
use super::{Member, Shot, Wanted, Workers, snapshots, translate};
use crate::clock::Clock;

/// A worker says something every second; one that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(10);
/// Loading the detector can take this long on a small box.
const FIRST_WORD: Duration = Duration::from_secs(30);
/// Time to end by itself when asked.
const GOODBYE: Duration = Duration::from_secs(2);
/// What the kernel ends a worker with that tries a forbidden system call.
const SIGSYS: i32 = 31;
/// Longest line a worker may send.
const LINE_MAX_BYTES: usize = 1 << 20;

/// How a run ended.
pub(super) enum Ended {
    /// We were asked to stop.
    Shutdown,
    /// The worker is gone or was ended: why, and who is to blame.
    Failed(String, Blame),
}

pub(super) struct Session<'a> {
    members: &'a mut Vec<Member>,
    workers: &'a Workers,
    clock: Arc<dyn Clock>,
    child: Child,
    to_worker: FramedWrite<ChildStdin, LinesCodec>,
    from_worker: FramedRead<ChildStdout, LinesCodec>,
    stderr: tokio::io::Lines<BufReader<ChildStderr>>,
    wanted: BTreeMap<u64, (usize, Wanted)>,
    next_request: u64,
    /// Scenes the decider had no room for, by camera.
    scenes_shed: Vec<u64>,
    /// The worker's own word on what ended it.
    last_word: Option<LastWord>,
    unfit: Option<Blame>,
    wrong_version: bool,
}

impl<'a> Session<'a> {
    pub(super) async fn start(
        members: &'a mut Vec<Member>,
        workers: &'a Workers,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let mut child = Command::new(&workers.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let gone = || std::io::Error::other("the worker has no standard streams");
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let scenes_shed = vec![0; members.len()];
        for member in members.iter() {
            let fellows = members.len() - 1;
            member.outlets.status.send_modify(|s| (s.worker_pid, s.worker_fellows) = (child.id(), fellows));
        }
        let mut session = Self {
            members,
            workers,
            clock,
            child,
            to_worker: FramedWrite::new(stdin, LinesCodec::new()),
            from_worker: FramedRead::new(stdout, LinesCodec::new_with_max_length(LINE_MAX_BYTES)),
            stderr: BufReader::new(stderr).lines(),
            wanted: BTreeMap::new(),
            next_request: 1,
            scenes_shed,
            last_word: None,
            unfit: None,
            wrong_version: false,
        };
        let cameras = session.members.iter().map(|member| member.task.worker.clone()).collect();
        let setup = WorkerSetup::new(workers.limits(session.members.len()), cameras);
        session.tell(&ParentMessage::Config(Box::new(setup))).await?;
        Ok(session)
    }

    async fn tell(&mut self, message: &ParentMessage) -> std::io::Result<()> {
        let line = serde_json::to_string(message)?;
        self.to_worker.send(line).await.map_err(|error| std::io::Error::other(error.to_string()))
    }

    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Ended {
        let mut deadline = tokio::time::Instant::now() + FIRST_WORD;
        let mut stderr_open = true;
        let mut shedding = self.workers.shedding.clone();
        let rung = shedding.borrow_and_update().rung;
        if rung != Rung::Whole
            && let Err(error) = self.spend(rung).await
        {
            return self.end(&format!("the camera worker does not listen: {error}")).await;
        }
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
                    Ok(Some(line)) => self.grumbled(&line),
                    _ => stderr_open = false,
                },
                (camera, wanted) = next_still(self.members) => {
                    if let Err(error) = self.ask(camera, wanted).await {
                        return self.end(&format!("the camera worker does not listen: {error}")).await;
                    }
                }
                Ok(()) = shedding.changed() => {
                    let rung = shedding.borrow_and_update().rung;
                    if let Err(error) = self.spend(rung).await {
                        return self.end(&format!("the camera worker does not listen: {error}")).await;
                    }
                }
                () = tokio::time::sleep_until(deadline) => return self.end("the camera worker hangs: it said nothing").await,
            }
        }
    }

    /// Tells every camera what it may spend.
    async fn spend(&mut self, rung: Rung) -> std::io::Result<()> {
        let all = self.members.iter().map(|member| {
            let task = &member.task;
            let effort = effort(rung, task.duty, task.place, task.of);
            ParentMessage::Effort { camera: task.camera.to_string(), effort }
        });
        for message in all.collect::<Vec<_>>() {
            let told = tokio::time::timeout(SILENCE, self.tell(&message)).await;
            told.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
        }
        Ok(())
    }

    /// A line of the worker's standard error.
    fn grumbled(&mut self, line: &str) {
        match LastWord::parse(line) {
            Some(word) => self.last_word = Some(word),
            None => tracing::warn!(worker = self.child.id(), "worker: {line}"),
        }
    }

    async fn ask(&mut self, camera: usize, wanted: Wanted) -> std::io::Result<()> {
        let (track, reason) = match &wanted {
            Wanted::Alarm(need) => (Some(need.track), need.role.as_str().to_owned()),
            // It waited for a worker longer than its asker does.
            Wanted::Shot(shot) if shot.answer.is_closed() => return Ok(()),
            Wanted::Shot(_) => (None, snapshots::CAPTION.to_owned()),
        };
        let request_id = self.next_request;
        self.next_request += 1;
        let request = StillRequest { request_id, camera: self.members[camera].task.camera.to_string(), track, reason };
        self.wanted.insert(request_id, (camera, wanted));
        let told = tokio::time::timeout(SILENCE, self.tell(&ParentMessage::Still(request))).await;
        told.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    async fn heard(&mut self, line: &str) -> Result<(), String> {
        let WorkerLine { camera, message } = serde_json::from_str(line)
            .map_err(|error| format!("the camera worker does not speak the protocol: {error}"))?;
        let camera = camera.map(|name| {
            let place = self.members.iter().position(|member| member.task.camera.as_str() == name);
            place.ok_or_else(|| format!("the camera worker speaks of a camera \"{name}\" that it was not given"))
        });
        match (camera.transpose()?, message) {
            (_, WorkerMessage::Hello { version, .. }) if version != VERSION => {
                self.wrong_version = true;
                Err(format!(
                    "the camera worker speaks protocol {version}, this gateway {VERSION}; install both from one package"
                ))
            }
            (_, WorkerMessage::Hello { confinement, .. }) => {
                if !(confinement.files && confinement.calls) {
                    tracing::warn!("camera worker: {confinement}");
                }
                for member in self.members.iter() {
                    member.outlets.status.send_modify(|s| s.confinement = confinement.to_string());
                }
                Ok(())
            }
            (Some(camera), message) => self.heard_of(camera, message).await,
            // A fault of the worker as a whole; it ends now, and its text is the reason.
            (None, WorkerMessage::State { state: CameraState::Error { message, .. }, .. }) => Err(message),
            (None, _) => Err("the camera worker does not say which camera it means".to_owned()),
        }
    }

    async fn heard_of(&mut self, camera: usize, message: WorkerMessage) -> Result<(), String> {
        let now = self.clock.now();
        let member = &self.members[camera];
        match message {
            WorkerMessage::Hello { .. } | WorkerMessage::TracksEnded { .. } => {}
            WorkerMessage::State { at_ms, state } => {
                let (text, remedy, seen) = translate::state(&state);
                tracing::info!(camera = %member.task.camera, state = %text, "camera");
                member.outlets.status.send_modify(|s| s.enter(&text, remedy, now));
                if let CameraState::Error { fatal: true, .. } = state {
                    self.unfit = Some(Blame::Unfit(member.task.camera.clone()));
                }
                if let Some(seen) = seen {
                    self.see(camera, translate::time(at_ms, now), What::Camera(seen)).await;
                }
            }
            WorkerMessage::Tracks(tracks) => self.tracks(camera, &tracks, now),
            WorkerMessage::Still { request_id, outcome, .. } => self.still(request_id, outcome, now).await,
            WorkerMessage::Heartbeat(beat) => {
                let shed = beat.shed + self.scenes_shed[camera];
                member.outlets.status.send_modify(|s| {
                    s.frames_per_s = beat.frames_per_s;
                    s.worker_memory_bytes = beat.rss_bytes;
                    (s.shed, s.replaced) = (shed, beat.shed);
                    (s.analysed, s.looked, s.lag_ms) = (beat.analysed, beat.looked, beat.lag_ms);
                    s.worker_cpu_ms = beat.cpu_ms;
                });
                if beat.rss_bytes > self.workers.memory_max_bytes {
                    let (has, may) = (beat.rss_bytes >> 20, self.workers.memory_max_bytes >> 20);
                    return Err(format!("the camera worker takes {has} MiB, more than the {may} MiB it may have"));
                }
            }
        }
        Ok(())
    }

    fn tracks(&mut self, camera: usize, tracks: &TracksMessage, now: jiff::Timestamp) {
        let member = &self.members[camera];
        let name = || member.task.camera.to_string();
        metrics::counter!("gengfu_camera_scenes_total", "camera" => name()).increment(1);
        metrics::counter!("gengfu_camera_looks_total", "camera" => name()).increment(u64::from(tracks.looked));
        let at = translate::time(tracks.at_ms, now);
        let scene = What::Scene(translate::scene(tracks, now));
        let seen = translate::observation(&member.task.camera, at, self.clock.quality(), scene);
        // Never wait with a scene: the next one says more.
        if member.outlets.seen.try_send(seen).is_err() {
            self.scenes_shed[camera] += 1;
            metrics::counter!("gengfu_camera_scenes_shed_total", "camera" => name()).increment(1);
        }
        member.outlets.status.send_modify(|s| {
            s.last_picture_at = Some(at);
            if tracks.looked {
                s.inference_us = tracks.inference_us;
            }
            s.tracks = tracks.tracks.len();
        });
    }

    async fn still(&mut self, request_id: u64, outcome: StillOutcome, now: jiff::Timestamp) {
        let Some((camera, wanted)) = self.wanted.remove(&request_id) else { return };
        let (pictures, name) = (&self.workers.pictures, &self.members[camera].task.camera);
        match wanted {
            Wanted::Alarm(need) => {
                let whose = Whose { id: &need.alarm_id, n: need.n, caption: &need.caption };
                let result = stills::keep(pictures, name, whose, outcome, now).await;
                if let Err(message) = &result {
                    tracing::warn!(camera = %name, alarm = %need.alarm_id, "no picture: {message}");
                }
                self.see(camera, now, What::Still { alarm_id: need.alarm_id, result }).await;
            }
            Wanted::Shot(Shot { answer, .. }) if answer.is_closed() => {}
            Wanted::Shot(Shot { cmd_id, answer }) => {
                let whose = Whose { id: &cmd_id, n: snapshots::N, caption: snapshots::CAPTION };
                let result = stills::keep(pictures, name, whose, outcome, now).await;
                if let Err(Ok(_)) = answer.send(result.map_err(|why| snapshots::no_picture(&why))) {
                    tracing::warn!(camera = %name, cmd = %cmd_id, "a snapshot came too late; removed");
                    pictures.discard(&cmd_id);
                }
            }
        }
    }

    async fn see(&self, camera: usize, at: jiff::Timestamp, what: What) {
        let member = &self.members[camera];
        let seen = translate::observation(&member.task.camera, at, self.clock.quality(), what);
        // The decider is gone only at shutdown.
        let _ = member.outlets.seen.send(seen).await;
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
        // What it still had to say lies in the pipe.
        while let Ok(Ok(Some(line))) = tokio::time::timeout(Duration::from_millis(100), self.stderr.next_line()).await {
            self.grumbled(&line);
        }
        let now = self.clock.now();
        for (camera, wanted) in std::mem::take(&mut self.wanted).into_values() {
            match wanted {
                Wanted::Alarm(need) => {
                    let result = Err("the camera worker ended before it had a picture".to_owned());
                    self.see(camera, now, What::Still { alarm_id: need.alarm_id, result }).await;
                }
                Wanted::Shot(shot) => {
                    // Whoever waited may have gone.
                    let _ = shot.answer.send(Err(worker_ended()));
                }
            }
        }
        let sandbox = status.as_ref().is_ok_and(|status| status.signal() == Some(SIGSYS));
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let (word, guilty) = self.last_words(sandbox);
        let blame = match (self.wrong_version, self.unfit.take(), guilty) {
            (true, ..) => Blame::Program,
            (_, Some(unfit), _) => unfit,
            (_, None, Some(guilty)) => Blame::Camera(guilty),
            (_, None, None) => Blame::Unknown,
        };
        Ended::Failed(format!("{reason} ({how}){word}"), blame)
    }

    /// What the worker itself said of its end, and the camera it had in hand.
    fn last_words(&self, sandbox: bool) -> (String, Option<Slug>) {
        let Some(word) = self.last_word else {
            let text = if sandbox { "; its sandbox stopped it: it tried a forbidden system call" } else { "" };
            return (text.to_owned(), None);
        };
        let camera = word.camera.and_then(|place| self.members.get(place)).map(|member| member.task.camera.clone());
        let hand = camera.as_ref().map_or_else(String::new, |camera| format!(" while it had {camera} in hand"));
        let text = match word.call {
            Some(call) => format!("; its sandbox stopped it: system call {call} is forbidden to it{hand}"),
            None => format!("; it crashed with signal {}{hand}", word.signal),
        };
        (text, camera)
    }
}

fn worker_ended() -> Text {
    Text {
        zh: "摄像机处理进程在取得画面前退出，正在自动重启；请稍后换新编号重试".into(),
        en: "the camera's worker ended before it had a picture and is being started again: try again with a new id"
            .into(),
    }
}

/// The next picture that somebody wants of any of these cameras; never, if nobody can ask any more.
async fn next_still(members: &mut [Member]) -> (usize, Wanted) {
    std::future::poll_fn(|context| {
        for (camera, member) in members.iter_mut().enumerate() {
            if let std::task::Poll::Ready(Some(wanted)) = member.stills.poll_recv(context) {
                return std::task::Poll::Ready((camera, wanted));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
