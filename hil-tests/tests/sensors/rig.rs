//! Modbus units (pymodbus) on a pseudo-terminal or TCP, and a sensor task with this test as its decider. Owns the rig of these tests; the
//! assertions are theirs.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gengfu::clock::{Clock, SystemClock};
use gengfu::link::LinkBatch;
use gengfu::sensors::plan::{Plan, resolve};
use gengfu::sensors::{SensorStats, config, modbus, mqtt};
use gengfu_alarm::observation::What;
use hil_tests::clip::repository;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; nothing waits this long when it works.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository's folder of profiles.
pub fn profiles() -> PathBuf {
    repository().join("config/profiles").canonicalize().unwrap()
}

/// What a device says, as its project documents it.
pub fn payload(file: &str) -> Vec<u8> {
    std::fs::read(here().join("payloads").join(file)).unwrap()
}

/// The folder of these tests.
fn here() -> PathBuf {
    repository().join("hil-tests/tests/sensors")
}

/// A Python that has pymodbus: `GENGFU_PYTHON`, the one that `make setup` makes, or the system's.
pub fn pymodbus() -> Result<PathBuf, String> {
    let made = repository().join("target/gengfu/python/bin/python3");
    let candidates = [std::env::var_os("GENGFU_PYTHON").map(PathBuf::from), Some(made), Some("python3".into())];
    let has_it = |python: &PathBuf| {
        let probe = "import pymodbus.simulator, serial; assert pymodbus.__version__ >= '3.16'";
        let run = Command::new(python).args(["-c", probe]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().flatten().find(has_it);
    found.ok_or_else(|| "pymodbus is not installed (make setup installs it)".to_owned())
}

/// pymodbus with some units; see `modbus_server.py`.
pub struct ModbusServer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl ModbusServer {
    pub fn start(python: &Path, kind: &str, place: &str, units: &str) -> Self {
        let script = here().join("modbus_server.py");
        let mut command = Command::new(python);
        command.arg(script).args([kind, place, units]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, stdin, stdout };
        server.line("ready");
        server
    }

    pub fn tell(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
        self.line("ok");
    }

    fn line(&mut self, wanted: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted, "the Modbus server's answer");
    }
}

impl Drop for ModbusServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two serial ports joined by a cable. Dropping it hangs both up.
pub struct NullModem {
    pub ours: PathBuf,
    pub theirs: PathBuf,
    /// Kept open, so that a program that goes is silence and not a hang-up.
    _far: [OwnedFd; 2],
}

impl NullModem {
    pub fn new() -> Self {
        let ((near_a, far_a, ours), (near_b, far_b, theirs)) = (open_pty(), open_pty());
        for (from, to) in [(&near_a, &near_b), (&near_b, &near_a)] {
            let (mut from, mut to) = (File::from(from.try_clone().unwrap()), File::from(to.try_clone().unwrap()));
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 512];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if to.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
        Self { ours, theirs, _far: [far_a, far_b] }
    }
}

fn open_pty() -> (OwnedFd, OwnedFd, PathBuf) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let path = PathBuf::from(ptsname(&near, Vec::new()).unwrap().into_string().unwrap());
    let far = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut settings = tcgetattr(&far).unwrap();
    settings.make_raw();
    tcsetattr(&far, OptionalActions::Now, &settings).unwrap();
    (near, far, path)
}

/// The plan of a text with `[[modbus]]` or `[[device_broker]]`, on the repository's profiles.
pub fn plan(text: &str) -> Plan {
    let text = format!("profiles = {:?}\n{text}", profiles().display().to_string());
    let config = config::parse(&text, Path::new("/")).unwrap_or_else(|faults| panic!("{faults:#?}"));
    resolve(&config).unwrap_or_else(|lacks| panic!("{lacks:#?}"))
}

/// A line or a broker at work, with this test as the decider.
pub struct Sensors {
    pub batches: mpsc::Receiver<LinkBatch>,
    pub stats: watch::Receiver<SensorStats>,
    pub saved: Option<Vec<u8>>,
    pub seen: VecDeque<(String, What)>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Sensors {
    /// The first line of a plan, or else its first broker.
    pub fn start(plan: &Plan, saved: Option<Vec<u8>>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (batches_in, batches) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let name = plan.lines.first().map_or_else(|| plan.brokers[0].config.name.clone(), |line| line.name.clone());
        let (stats_in, stats) = watch::channel(SensorStats::starting(name, String::new(), [], clock.now()));
        let task = match plan.lines.first() {
            Some(line) => {
                tokio::spawn(modbus::run(line.clone(), saved.clone(), clock, batches_in, stats_in, stop.clone()))
            }
            None => {
                let broker = plan.brokers[0].clone();
                tokio::spawn(mqtt::run(broker, saved.clone(), clock, batches_in, stats_in, stop.clone()))
            }
        };
        Self { batches, stats, saved, seen: VecDeque::new(), stop, task }
    }

    pub async fn batch(&mut self) -> LinkBatch {
        tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("a batch comes").expect("the task runs")
    }

    /// Stores batches until one has this observation; what follows it is kept for the next call. Returns what came before it.
    pub async fn until(&mut self, device: &str, fits: impl Fn(&What) -> bool) -> Vec<(String, What)> {
        let mut before = Vec::new();
        let found = tokio::time::timeout(PATIENCE, self.look(device, fits, &mut before)).await;
        assert!(found.is_ok(), "waited in vain for {device}; seen: {before:?}");
        before
    }

    async fn look(&mut self, device: &str, fits: impl Fn(&What) -> bool, before: &mut Vec<(String, What)>) {
        loop {
            while let Some((name, what)) = self.seen.pop_front() {
                if name == device && fits(&what) {
                    return;
                }
                before.push((name, what));
            }
            let batch = self.batch().await;
            self.saved = Some(batch.cursor.1);
            self.seen.extend(batch.observations.into_iter().map(|seen| (seen.device.to_string(), seen.what)));
            let _ = batch.done.send(Ok(()));
        }
    }

    pub async fn status(&mut self, fits: impl FnMut(&SensorStats) -> bool) -> SensorStats {
        let wait = tokio::time::timeout(PATIENCE, self.stats.wait_for(fits));
        let found = wait.await.map(|found| found.map(|stats| stats.clone()));
        found.unwrap_or_else(|_| panic!("waited in vain")).unwrap()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}
