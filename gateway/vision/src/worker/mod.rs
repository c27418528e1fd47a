//! The body of `gengfu-camera-worker`: some cameras in one process, one detector for all of them. Owns the threads (reader of commands, a
//! capture for each camera, one analysis) and what is told to the gateway; refuses to outlive its input: when the gateway goes,
//! the worker goes. One camera's state is in `camera.rs`.

mod camera;
mod capture;
mod crash;
mod mailbox;

use std::io::{BufRead, Read as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::pipeline::{Detectors, Pipeline};
use crate::protocol::{
    CameraState, ErrorKind, ParentMessage, StillOutcome, VERSION, WorkerConfig, WorkerLine, WorkerMessage, WorkerSetup,
};
use crate::sandbox::{self, Confinement};
use crate::source::Watchdog;
use crate::thrift::Thrift;
use camera::Camera;
use capture::CaptureLoop;
pub use crash::{LastWord, tell_last_word};
use mailbox::{CameraWork, Mailbox};

/// Longest line accepted from the gateway, bytes.
const LINE_MAX: u64 = 4 * 1024 * 1024;
/// Time between heartbeats, ms.
const HEARTBEAT_MS: i64 = 1000;
/// A read, or the decoding of what it gave, that is this much later than it may be does not come back, ms.
const STUCK_MS: u64 = 5000;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerExit {
    /// It was told to stop, or its input ended: exit code 0.
    Stopped,
    /// It could not work; the reason was sent as a fatal `state`: exit code 2.
    Fatal,
}

/// Exit code of a worker that could not work.
const FATAL_CODE: u8 = 2;

impl From<WorkerExit> for ExitCode {
    fn from(exit: WorkerExit) -> Self {
        match exit {
            WorkerExit::Stopped => Self::SUCCESS,
            WorkerExit::Fatal => Self::from(FATAL_CODE),
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
    let setup = match read_setup(&mut input) {
        Ok(Some(setup)) => setup,
        Ok(None) => return WorkerExit::Stopped,
        Err(message) => return link.fatal(clock, None, ErrorKind::Config, message),
    };
    let faulty = setup.cameras.iter().map(|config| (config, config.faults())).filter(|(_, faults)| !faults.is_empty());
    let faulty = faulty.map(|(config, faults)| {
        let message = format!("the configuration has faults: {}", faults.join("; "));
        link.fatal(clock, Some(&config.camera), ErrorKind::Config, message)
    });
    if let Some(exit) = faulty.last() {
        return exit;
    }
    let mut confinement = Confinement::default();
    if sandboxed {
        match sandbox::enter(&setup.limits, &readable(&setup.cameras)) {
            Ok(entered) => confinement = entered,
            Err(error) => return link.fatal(clock, None, ErrorKind::Sandbox, error.to_string()),
        }
        crash::tell_last_word();
    }
    let software = env!("CARGO_PKG_VERSION").to_owned();
    link.send(None, WorkerMessage::Hello { version: VERSION, software, confinement });
    let mut detectors = Detectors::default();
    let mut pipelines = Vec::new();
    for config in &setup.cameras {
        match Pipeline::sharing(config, &mut detectors) {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(error) => return link.fatal(clock, Some(&config.camera), ErrorKind::Detector, error.to_string()),
        }
    }
    sandbox::release_freed_memory();
    watch(&setup.cameras, pipelines, input, link, clock)
}

/// What a worker must open after it was confined: models, the inference library, and files that stand in for cameras. Of a file
/// that is not there yet, its folder.
fn readable(cameras: &[WorkerConfig]) -> Vec<PathBuf> {
    let models = cameras.iter().flat_map(|c| [Some(&c.model), c.second_model.as_ref()]).flatten();
    let models = models.flat_map(|model| [model.path.clone(), model.runtime.clone()]);
    let files = cameras.iter().filter(|c| !c.capture.url.is_live()).map(|c| {
        let file = PathBuf::from(c.capture.url.reveal());
        let folder = file.parent().filter(|_| !file.exists()).map(PathBuf::from);
        folder.unwrap_or(file)
    });
    models.chain(files).collect()
}

/// Starts the threads and analyses until told to stop.
fn watch(
    configs: &[WorkerConfig],
    pipelines: Vec<Pipeline>,
    input: impl BufRead + Send + 'static,
    link: Link<impl Write>,
    clock: &dyn Clock,
) -> WorkerExit {
    let mailbox = Arc::new(Mailbox::new(configs.len()));
    // Not scoped: it may wait for the gateway's next line forever, and the worker must be able to end before that.
    let reader = Arc::clone(&mailbox);
    std::thread::spawn(move || read_commands(input, &reader));
    let watchdogs: Vec<Watchdog> = configs.iter().map(|_| Watchdog::new()).collect();
    std::thread::scope(|scope| {
        let _stop = StopOnDrop { mailbox: &mailbox, watchdogs: &watchdogs };
        let mut cameras = Vec::new();
        for (number, ((config, pipeline), watchdog)) in configs.iter().zip(pipelines).zip(&watchdogs).enumerate() {
            let thrift = Arc::new(Thrift::default());
            let capture = CaptureLoop {
                camera: number,
                config,
                thrift: Arc::clone(&thrift),
                clock,
                mailbox: &mailbox,
                watchdog: watchdog.clone(),
                start_at_ms: config.start_at_ms.unwrap_or_else(|| clock.wall_ms()),
            };
            scope.spawn(move || {
                crash::reading(number);
                capture.run();
            });
            cameras.push(Camera::new(config, pipeline, thrift, watchdog.clone(), clock));
        }
        let (exit, stuck) = Analysis { cameras, clock, link, beat_ms: clock.mono_ms() }.run(&mailbox);
        if stuck {
            // That thread does not come back, and the scope would wait for it; so might what libraries do at an orderly exit.
            // Everything was said and flushed.
            // SAFETY: _exit takes a plain integer and ends the process.
            unsafe { libc::_exit(FATAL_CODE.into()) };
        }
        exit
    })
}

/// Ends the capture threads when the analysis ends, also by a panic: a worker that hangs is worse than one that dies.
struct StopOnDrop<'a> {
    mailbox: &'a Mailbox,
    watchdogs: &'a [Watchdog],
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.watchdogs.iter().for_each(Watchdog::stop);
        self.mailbox.stop();
    }
}

/// The configuration, `None` if the input ended before it, or what is wrong.
fn read_setup(input: &mut impl BufRead) -> Result<Option<WorkerSetup>, String> {
    let Some(line) = read_line(input)? else { return Ok(None) };
    let message: ParentMessage = serde_json::from_str(&line)
        .map_err(|e| format!("the first line is no configuration: {e}; send {{\"type\":\"config\",…}}"))?;
    match message {
        ParentMessage::Config(setup) => match setup.fault() {
            None => Ok(Some(*setup)),
            Some(fault) => Err(format!("the configuration has faults: {fault}")),
        },
        ParentMessage::Shutdown => Ok(None),
        ParentMessage::Still(_) | ParentMessage::Effort { .. } => {
            Err("the first line must be the configuration; send {\"type\":\"config\",…} first".to_owned())
        }
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
    fn send(&mut self, camera: Option<&str>, message: WorkerMessage) {
        let line = WorkerLine { camera: camera.map(str::to_owned), message };
        let mut line = serde_json::to_vec(&line).expect("messages hold only text keys and finite numbers");
        line.push(b'\n');
        // A broken pipe means that the gateway is gone: the analysis loop ends at once.
        self.broken |= self.output.write_all(&line).and_then(|()| self.output.flush()).is_err();
    }

    fn fatal(&mut self, clock: &dyn Clock, camera: Option<&str>, kind: ErrorKind, message: String) -> WorkerExit {
        let state = CameraState::Error { kind, message, fatal: true, retry_in_ms: None };
        self.send(camera, WorkerMessage::State { at_ms: clock.wall_ms(), state });
        WorkerExit::Fatal
    }
}

/// The analysis thread's state.
struct Analysis<'a, W> {
    cameras: Vec<Camera<'a>>,
    clock: &'a dyn Clock,
    link: Link<W>,
    beat_ms: i64,
}

impl<W: Write> Analysis<'_, W> {
    /// Analyses until told to stop. True: a capture thread is stuck, so nobody may wait for it.
    fn run(mut self, mailbox: &Mailbox) -> (WorkerExit, bool) {
        loop {
            let until_beat_ms = (self.beat_ms + HEARTBEAT_MS - self.clock.mono_ms()).clamp(0, HEARTBEAT_MS);
            let work = mailbox.take(u64::try_from(until_beat_ms).unwrap_or(0));
            if let Some((number, work)) = work.camera {
                crash::analysing(Some(number));
                let exit = self.camera(number, work);
                crash::analysing(None);
                if let Some(exit) = exit {
                    return (exit, false);
                }
            }
            for command in work.commands {
                if self.obey(command) {
                    return (WorkerExit::Stopped, false);
                }
            }
            if let Some(exit) = self.heartbeat(mailbox) {
                return (exit, true);
            }
            if work.input_ended || self.link.broken {
                return (WorkerExit::Stopped, false);
            }
        }
    }

    /// What one camera has: its source's events, then its picture, then the stills that waited for it.
    fn camera(&mut self, number: usize, work: CameraWork) -> Option<WorkerExit> {
        let (camera, clock) = (&mut self.cameras[number], self.clock);
        let name = &camera.config.camera;
        for event in work.events {
            camera.source_changed(event, clock).into_iter().for_each(|m| self.link.send(Some(name), m));
        }
        if let Some(arrived) = work.frame {
            match camera.picture(arrived, clock) {
                Ok(messages) => messages.into_iter().for_each(|m| self.link.send(Some(name), m)),
                Err(message) => return Some(self.link.fatal(clock, Some(name), ErrorKind::Detector, message)),
            }
        }
        camera.state(clock).into_iter().for_each(|m| self.link.send(Some(name), m));
        camera.stills(clock).into_iter().for_each(|m| self.link.send(Some(name), m));
        None
    }

    /// True: it is to stop.
    fn obey(&mut self, command: ParentMessage) -> bool {
        match command {
            ParentMessage::Still(request) => {
                let Some(camera) = self.cameras.iter_mut().find(|c| c.config.camera == request.camera) else {
                    let message = format!("no camera \"{}\" in this worker", request.camera);
                    let (request_id, outcome) = (request.request_id, StillOutcome::Failed { message });
                    let answer = WorkerMessage::Still { request_id, reason: request.reason, outcome };
                    self.link.send(Some(&request.camera), answer);
                    return false;
                };
                let name = &camera.config.camera;
                camera.still_wanted(request, self.clock);
                camera.stills(self.clock).into_iter().for_each(|m| self.link.send(Some(name), m));
            }
            ParentMessage::Effort { camera, effort } => {
                if let Some(camera) = self.cameras.iter().find(|c| c.config.camera == camera) {
                    camera.spend(effort);
                }
            }
            ParentMessage::Shutdown => return true,
            ParentMessage::Config(_) => {}
        }
        false
    }

    /// Once a second: states that come with time, signs of life, and whether every camera's thread still moves.
    fn heartbeat(&mut self, mailbox: &Mailbox) -> Option<WorkerExit> {
        let passed_ms = self.clock.mono_ms() - self.beat_ms;
        if passed_ms < HEARTBEAT_MS {
            return None;
        }
        self.beat_ms += passed_ms;
        // What the last second's pictures left free goes back: 10 to 30 MiB per camera, for a few ms of work (measured).
        sandbox::release_freed_memory();
        let (rss_bytes, cpu_ms) = (sandbox::resident_bytes(), sandbox::cpu_ms());
        for (number, camera) in self.cameras.iter_mut().enumerate() {
            let name = &camera.config.camera;
            if camera.is_stuck(STUCK_MS) {
                let message =
                    "reading or decoding its stream does not come back; it is tried again in a worker of its own, \
                               if this repeats check the camera's encoder settings"
                        .to_owned();
                return Some(self.link.fatal(self.clock, Some(name), ErrorKind::Stuck, message));
            }
            camera.state(self.clock).into_iter().for_each(|m| self.link.send(Some(name), m));
            camera.stills(self.clock).into_iter().for_each(|m| self.link.send(Some(name), m));
            let beat = camera.heartbeat(self.clock, passed_ms, mailbox.shed(number));
            self.link
                .send(Some(name), WorkerMessage::Heartbeat(crate::protocol::Heartbeat { rss_bytes, cpu_ms, ..beat }));
        }
        None
    }
}
