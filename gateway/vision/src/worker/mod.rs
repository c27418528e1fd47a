//! The body of `gengfu-camera-worker`: one camera in one process. Owns the threads (reader of commands, capture, analysis) and
//! the state told to the gateway; refuses to outlive its input: when the gateway goes, the worker goes.

mod capture;
mod mailbox;

use std::io::{BufRead, Read as _, Write};
use std::process::ExitCode;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::health::{Health, HealthConfig, Trouble};
use crate::pipeline::{FrameResult, Pipeline};
use crate::protocol::{
    CameraState, ErrorKind, Heartbeat, Jpeg, ParentMessage, StillOutcome, StillRequest, VERSION, WorkerConfig,
    WorkerMessage,
};
use crate::sandbox;
use crate::source::Watchdog;
use capture::CaptureLoop;
use mailbox::{Arrived, Mailbox, SourceEvent};

/// Longest line accepted from the gateway, bytes.
const LINE_MAX: u64 = 1024 * 1024;
/// Time between heartbeats, ms.
const HEARTBEAT_MS: i64 = 1000;
/// The reason of a still that shows how a track came.
const ARRIVAL: &str = "arrival";
/// Pictures in a row the detector may fail on before the worker gives up.
const DETECTOR_FAILURES_MAX: u32 = 3;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerExit {
    /// It was told to stop, or its input ended: exit code 0.
    Stopped,
    /// It could not work; the reason was sent as a fatal `state`: exit code 2.
    Fatal,
}

impl From<WorkerExit> for ExitCode {
    fn from(exit: WorkerExit) -> Self {
        match exit {
            WorkerExit::Stopped => Self::SUCCESS,
            WorkerExit::Fatal => Self::from(2),
        }
    }
}

/// Runs a worker on the process's own streams: enters the sandbox, then analyses until told to stop. See [`crate::protocol`].
pub fn run(input: impl BufRead + Send + 'static, output: impl Write + Send) -> WorkerExit {
    serve(input, output, &SystemClock::new(), true)
}

/// As [`run`], but with a clock of the caller's choice and without the sandbox: for tests, and where a process shall go on
/// living afterwards.
pub fn run_with(input: impl BufRead + Send + 'static, output: impl Write + Send, clock: &dyn Clock) -> WorkerExit {
    serve(input, output, clock, false)
}

fn serve(
    mut input: impl BufRead + Send + 'static,
    output: impl Write + Send,
    clock: &dyn Clock,
    sandboxed: bool,
) -> WorkerExit {
    let mut link = Link { output, broken: false };
    let config = match read_config(&mut input) {
        Ok(Some(config)) => config,
        Ok(None) => return WorkerExit::Stopped,
        Err(message) => return link.fatal(clock, ErrorKind::Config, message),
    };
    if sandboxed && let Err(error) = sandbox::enter(&config.limits) {
        return link.fatal(clock, ErrorKind::Sandbox, error.to_string());
    }
    link.send(&WorkerMessage::Hello {
        version: VERSION,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        camera: config.camera.clone(),
    });
    let pipeline = match Pipeline::new(&config) {
        Ok(pipeline) => pipeline,
        Err(error) => return link.fatal(clock, ErrorKind::Detector, error.to_string()),
    };
    sandbox::release_freed_memory();
    let (mailbox, watchdog) = (Arc::new(Mailbox::default()), Watchdog::new());
    let start_at_ms = config.start_at_ms.unwrap_or_else(|| clock.wall_ms());
    // Not scoped: it may wait for the gateway's next line forever, and the worker must be able to end before that.
    let reader = Arc::clone(&mailbox);
    std::thread::spawn(move || read_commands(input, &reader));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop { mailbox: &mailbox, watchdog: &watchdog };
        let capture =
            CaptureLoop { config: &config, clock, mailbox: &mailbox, watchdog: watchdog.clone(), start_at_ms };
        scope.spawn(move || capture.run());
        Analysis::new(&config, pipeline, clock, link).run(&mailbox)
    })
}

/// Ends the capture thread when the analysis ends, also by a panic: a worker that hangs is worse than one that dies.
struct StopOnDrop<'a> {
    mailbox: &'a Mailbox,
    watchdog: &'a Watchdog,
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.watchdog.stop();
        self.mailbox.stop();
    }
}

/// The configuration, `None` if the input ended before it, or what is wrong.
fn read_config(input: &mut impl BufRead) -> Result<Option<WorkerConfig>, String> {
    let Some(line) = read_line(input)? else { return Ok(None) };
    let message: ParentMessage = serde_json::from_str(&line)
        .map_err(|e| format!("the first line is no configuration: {e}; send {{\"type\":\"config\",…}}"))?;
    let config = match message {
        ParentMessage::Config(config) => *config,
        ParentMessage::Shutdown => return Ok(None),
        ParentMessage::Still(_) => {
            return Err("the first line must be the configuration; send {\"type\":\"config\",…} first".to_owned());
        }
    };
    let faults = config.faults();
    if faults.is_empty() {
        Ok(Some(config))
    } else {
        Err(format!("the configuration has faults: {}", faults.join("; ")))
    }
}

fn read_line(input: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = String::new();
    match input.take(LINE_MAX).read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) if line.len() as u64 >= LINE_MAX => Err(format!("a line is longer than {LINE_MAX} bytes")),
        Ok(_) => Ok(Some(line)),
        Err(error) => Err(format!("the input cannot be read: {error}")),
    }
}

fn read_commands(mut input: impl BufRead, mailbox: &Mailbox) {
    loop {
        match read_line(&mut input) {
            Ok(Some(line)) if line.trim().is_empty() => {}
            Ok(Some(line)) => match serde_json::from_str::<ParentMessage>(&line) {
                Ok(ParentMessage::Config(_)) => {
                    eprintln!("camera-worker: a second configuration was ignored; start another worker")
                }
                Ok(command) => {
                    let last = command == ParentMessage::Shutdown;
                    mailbox.command(command);
                    if last {
                        return;
                    }
                }
                // Only the place is shown: the line itself may hold what must not be in a log.
                Err(error) => eprintln!("camera-worker: a command was refused: {error}"),
            },
            Ok(None) => return mailbox.end_input(),
            Err(error) => {
                eprintln!("camera-worker: {error}");
                return mailbox.end_input();
            }
        }
    }
}

/// The way to the gateway.
struct Link<W> {
    output: W,
    broken: bool,
}

impl<W: Write> Link<W> {
    fn send(&mut self, message: &WorkerMessage) {
        let mut line = serde_json::to_vec(message).expect("messages hold only text keys and finite numbers");
        line.push(b'\n');
        // A broken pipe means that the gateway is gone: the analysis loop ends at once.
        self.broken |= self.output.write_all(&line).and_then(|()| self.output.flush()).is_err();
    }

    fn fatal(&mut self, clock: &dyn Clock, kind: ErrorKind, message: String) -> WorkerExit {
        let state = CameraState::Error { kind, message, fatal: true, retry_in_ms: None };
        self.send(&WorkerMessage::State { at_ms: clock.wall_ms(), state });
        WorkerExit::Fatal
    }
}

/// The analysis thread's state.
struct Analysis<'a, W> {
    config: &'a WorkerConfig,
    pipeline: Pipeline,
    clock: &'a dyn Clock,
    link: Link<W>,
    /// What the source is doing, and what was told about the camera.
    source: CameraState,
    told: Option<CameraState>,
    health: Health,
    newest: Option<Arrived>,
    failures: u32,
    beat_ms: i64,
    analysed: u64,
    analysed_at_beat: u64,
    decode_errors: u64,
}

impl<'a, W: Write> Analysis<'a, W> {
    fn new(config: &'a WorkerConfig, pipeline: Pipeline, clock: &'a dyn Clock, link: Link<W>) -> Self {
        Self {
            config,
            pipeline,
            clock,
            link,
            source: CameraState::Connecting,
            told: None,
            health: Health::new(HealthConfig::default(), if config.is_paced() { clock.mono_ms() } else { 0 }),
            newest: None,
            failures: 0,
            beat_ms: clock.mono_ms(),
            analysed: 0,
            analysed_at_beat: 0,
            decode_errors: 0,
        }
    }

    fn run(mut self, mailbox: &Mailbox) -> WorkerExit {
        loop {
            let until_beat_ms = (self.beat_ms + HEARTBEAT_MS - self.clock.mono_ms()).clamp(0, HEARTBEAT_MS);
            let work = mailbox.take(u64::try_from(until_beat_ms).unwrap_or(0));
            for event in work.events {
                self.source_changed(event);
            }
            if let Some(arrived) = work.frame
                && let Some(exit) = self.picture(arrived)
            {
                return exit;
            }
            self.tell_state();
            for command in work.commands {
                match command {
                    ParentMessage::Still(request) => self.still(request),
                    ParentMessage::Shutdown => return WorkerExit::Stopped,
                    ParentMessage::Config(_) => {}
                }
            }
            self.heartbeat(work.shed);
            if work.input_ended || self.link.broken {
                return WorkerExit::Stopped;
            }
        }
    }

    fn source_changed(&mut self, event: SourceEvent) {
        self.source = match event {
            // While it is tried again and again the last error stays the state: it says more than "connecting".
            SourceEvent::Connecting if matches!(self.source, CameraState::Error { .. }) => return,
            SourceEvent::Connecting => CameraState::Connecting,
            SourceEvent::Streaming => {
                if self.config.is_paced() {
                    self.health.reconnected(self.clock.mono_ms());
                }
                CameraState::Streaming
            }
            SourceEvent::Ended => CameraState::Ended,
            SourceEvent::Failed { kind, message, retry_in_ms } => {
                CameraState::Error { kind, message, fatal: false, retry_in_ms: Some(retry_in_ms) }
            }
        };
        self.tell_state();
    }

    /// Tells the camera's state if it changed: trouble with the pictures shows only while the source is streaming.
    fn tell_state(&mut self) {
        let now_ms = match (&self.newest, self.config.is_paced()) {
            (_, true) => self.clock.mono_ms(),
            (Some(newest), false) => newest.moment.stream_ms,
            (None, false) => 0,
        };
        let state = match (&self.source, self.health.trouble(now_ms)) {
            (CameraState::Streaming, Some(Trouble::NoFrames)) => CameraState::NoFrames,
            (CameraState::Streaming, Some(Trouble::Frozen)) => CameraState::Frozen,
            (CameraState::Streaming, Some(Trouble::Dark)) => CameraState::Dark,
            (state, _) => state.clone(),
        };
        if self.told.as_ref() != Some(&state) {
            self.told = Some(state.clone());
            let at_ms = self.now_wall_ms();
            self.link.send(&WorkerMessage::State { at_ms, state });
        }
    }

    /// The wall time now: of the last picture where time is simulated.
    fn now_wall_ms(&self) -> i64 {
        match (&self.newest, self.config.is_paced()) {
            (Some(newest), false) => newest.moment.at_ms,
            (None, false) => self.config.start_at_ms.unwrap_or_else(|| self.clock.wall_ms()),
            (_, true) => self.clock.wall_ms(),
        }
    }

    fn picture(&mut self, arrived: Arrived) -> Option<WorkerExit> {
        match self.pipeline.analyse(&arrived.frame, arrived.moment) {
            Ok(FrameResult { tracks, ended, look }) => {
                self.failures = 0;
                self.analysed += 1;
                self.decode_errors = arrived.decode_errors;
                self.health.picture(arrived.moment.stream_ms, look);
                let at_ms = tracks.at_ms;
                self.newest = Some(arrived);
                self.link.send(&WorkerMessage::Tracks(tracks));
                if !ended.is_empty() {
                    self.link.send(&WorkerMessage::TracksEnded { at_ms, tracks: ended });
                }
                None
            }
            Err(error) => {
                self.failures += 1;
                if self.failures >= DETECTOR_FAILURES_MAX {
                    return Some(self.link.fatal(self.clock, ErrorKind::Detector, error.to_string()));
                }
                eprintln!("camera-worker: a picture was skipped: {error}");
                None
            }
        }
    }

    fn still(&mut self, request: StillRequest) {
        let outcome = self.take_still(&request).unwrap_or_else(|message| StillOutcome::Failed { message });
        self.link.send(&WorkerMessage::Still { request_id: request.request_id, reason: request.reason, outcome });
    }

    fn take_still(&mut self, request: &StillRequest) -> Result<StillOutcome, String> {
        let newest = self.newest.as_ref().ok_or("there is no picture yet; ask again when the camera streams")?;
        let track = request.track.filter(|_| request.reason == ARRIVAL);
        let remembered = track.map(|track| self.pipeline.arrival(track)).transpose().map_err(|e| e.to_string())?;
        let (still, taken_at_ms, track_found) = match remembered.flatten() {
            Some((still, taken_at_ms)) => (still, taken_at_ms, true),
            None => {
                let at_ms = newest.moment.at_ms;
                let made = self.pipeline.still(&newest.frame, at_ms, request.track).map_err(|e| e.to_string())?;
                (made.0, at_ms, made.1)
            }
        };
        Ok(StillOutcome::Taken {
            jpeg: Jpeg(still.jpeg),
            sha256: still.sha256,
            width: still.width,
            height: still.height,
            taken_at_ms,
            people_blurred: still.people_blurred,
            track_found,
        })
    }

    fn heartbeat(&mut self, shed: u64) {
        let passed_ms = self.clock.mono_ms() - self.beat_ms;
        if passed_ms < HEARTBEAT_MS {
            return;
        }
        self.beat_ms += passed_ms;
        // What the last second's pictures left free goes back: 10 to 30 MiB per camera, for a few ms of work (measured).
        sandbox::release_freed_memory();
        let pictures = self.analysed - std::mem::replace(&mut self.analysed_at_beat, self.analysed);
        self.link.send(&WorkerMessage::Heartbeat(Heartbeat {
            at_ms: self.clock.wall_ms(),
            frames_per_s: pictures as f32 * 1000.0 / passed_ms as f32,
            analysed: self.analysed,
            shed,
            decode_errors: self.decode_errors,
            rss_bytes: sandbox::resident_bytes(),
        }));
    }
}
