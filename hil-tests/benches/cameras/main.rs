//! How many 1080p cameras a core watches, each able to raise a parking alarm after 60 s, beside the usual way of doing it. Both sides read
//! the same clip (H.264, 25 pictures a second, a key frame every 2 s) in one run on one machine. Goals: ten times the cameras, at
//! most 40 MiB a camera, a picture's result within 300 ms.
//!
//! `make bench`, or `cargo bench -p hil-tests --bench cameras` after `cargo build --release -p gengfu`. `GENGFU_BENCH_CAMERAS` is the number of
//! cameras of the worker (default 8). The peer needs scripts/bench-peer.sh; without it ours is told alone.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use gengfu_vision::decode::{CaptureConfig, DecodeMode};
use gengfu_vision::detect::ModelConfig;
use gengfu_vision::manifest::Manifest;
use gengfu_vision::protocol::{
    ParentMessage, StillOutcome, StillRequest, WorkerConfig, WorkerLine, WorkerMessage, WorkerSetup,
};
use gengfu_vision::sandbox::Limits;
use gengfu_vision::source::SourceUrl;
use gengfu_vision::zone::Zone;
use hil_tests::site::CameraPlan;
use hil_tests::{Result, RigError, clip, gateway};

/// A vehicle must stand this long; so long each camera is watched at least.
const LIMIT_MS: i64 = 60_000;
/// Seconds of stream the peer is given.
const PEER_S: u32 = 20;
/// Nothing takes longer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cameras: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    if let Err(why) = CameraPlan::need() {
        println!("cameras: skipped, because {why}");
        return Ok(());
    }
    let clip = clip::street_camera(79)?;
    let model = model()?;
    let count = std::env::var("GENGFU_BENCH_CAMERAS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let ours = watch(&clip, &model, count)?;
    println!(
        "{count} cameras 1080p25 in one worker, each with two vehicles told as standing for {} s:",
        LIMIT_MS / 1000
    );
    println!(
        "  {:.4} core a camera, that is {:.0} cameras a core; {:.0} % of {} pictures were looked at by the detector",
        ours.core,
        1.0 / ours.core,
        ours.looked * 100.0,
        ours.pictures
    );
    let goal = |met: bool| if met { "met" } else { "NOT met" };
    println!("  {:.1} MiB resident a camera (goal 40: {})", ours.mib, goal(ours.mib <= 40.0));
    println!(
        "  picture to result: {} ms at most in half of the seconds, {} ms in 99 of 100 (goal 300: {}); a still with its tiles {} ms",
        ours.lag_ms.0,
        ours.lag_ms.1,
        goal(ours.lag_ms.1 <= 300),
        ours.still_ms
    );
    match peer(&clip, &model.path) {
        Ok(core) => {
            let ratio = core / ours.core;
            println!("  ffmpeg and Python, five pictures a second: {core:.4} core a camera");
            println!("  ratio {ratio:.1} (goal 10: {})", goal(ratio >= 10.0));
        }
        Err(why) => println!("  the peer was not measured, because {why}"),
    }
    Ok(())
}

fn model() -> Result<ModelConfig> {
    let root = Path::new(clip::repository());
    let fail = |e: &dyn std::fmt::Display| RigError::failed("read the model manifest", e.to_string());
    let manifest = Manifest::load(&root.join("models/manifest.toml")).map_err(|e| fail(&e))?;
    let entry = manifest.model("yolox_nano").ok_or_else(|| fail(&"it has no yolox_nano"))?.clone();
    let path = root.join("target/gengfu/models").join(&entry.file);
    Ok(ModelConfig { path, entry, runtime: root.join("target/gengfu/onnxruntime/libonnxruntime.so"), threads: 1 })
}

fn camera(n: usize, file: &Path, model: &ModelConfig) -> WorkerConfig {
    let polygon = [[0.83, 0.155], [0.90, 0.135], [0.999, 0.125], [0.999, 0.20], [0.86, 0.21], [0.83, 0.19]];
    WorkerConfig {
        camera: format!("cam-{n}"),
        capture: CaptureConfig {
            decode: DecodeMode::KeyFrames,
            looped: true,
            silence_ms: 10_000,
            ..CaptureConfig::new(SourceUrl::new(file.display().to_string()))
        },
        reference: None,
        paced: true,
        start_at_ms: None,
        model: model.clone(),
        second_model: None,
        zones: vec![Zone { id: "kerb".to_owned(), polygon: polygon.map(Into::into).to_vec() }],
        masks: Vec::new(),
        change_gate: true,
    }
}

/// What the worker's cameras cost.
#[derive(Debug, Default)]
struct Found {
    core: f64,
    looked: f64,
    pictures: u64,
    mib: f64,
    /// The worst of a second: in the median second, in 99 of 100.
    lag_ms: (u64, u64),
    still_ms: u128,
}

/// The worker's process; ended with the bench.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(clip: &Path, model: &ModelConfig, count: usize) -> Result<Found> {
    let doing = "watch cameras";
    let fail = |e: std::io::Error| RigError::failed(doing, e);
    let folder = tempfile::tempdir().map_err(fail)?;
    let mut cameras = Vec::new();
    for n in 1..=count {
        let own = folder.path().join(format!("cam-{n}.mkv"));
        std::os::unix::fs::symlink(clip, &own).map_err(fail)?;
        cameras.push(camera(n, &own, model));
    }
    let program = gateway::binary()?.with_file_name("gengfu-camera-worker");
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(fail)?;
    let pipes = (child.stdin.take(), child.stdout.take());
    let worker = Worker(child);
    let (Some(mut input), Some(output)) = pipes else { return Err(RigError::failed(doing, "no pipes")) };
    let limits = Limits { address_space_max_bytes: None, ..Limits::default() };
    let mut tell = |message: &ParentMessage| -> Result<()> {
        let line = serde_json::to_string(message).map_err(|e| RigError::failed(doing, e))?;
        writeln!(input, "{line}").map_err(fail)
    };
    tell(&ParentMessage::Config(Box::new(WorkerSetup::new(limits, cameras))))?;
    let mut tally = Tally::default();
    let (begun, mut asked) = (Instant::now(), None);
    let mut found = Found::default();
    for line in BufReader::new(output).lines() {
        if begun.elapsed() > PATIENCE {
            return Err(RigError::failed(doing, format!("{:?} stood long enough only", tally.stood)));
        }
        let line: WorkerLine = serde_json::from_str(&line.map_err(fail)?).map_err(|e| RigError::failed(doing, e))?;
        if let WorkerMessage::Still { outcome, .. } = &line.message {
            if let StillOutcome::Failed { message } = outcome {
                return Err(RigError::failed(doing, message));
            }
            found.still_ms = asked.map_or(0, |asked: Instant| asked.elapsed().as_millis());
            break;
        }
        if tally.heard(line, worker.0.id()) == count && asked.is_none() {
            tally.finish(count, &mut found);
            asked = Some(Instant::now());
            tell(&ParentMessage::Still(StillRequest {
                request_id: 1,
                camera: "cam-1".to_owned(),
                track: None,
                reason: "bench".to_owned(),
            }))?;
        }
    }
    Ok(found)
}

/// What the worker said.
#[derive(Debug, Default)]
struct Tally {
    /// Cameras with a vehicle that stood for the limit.
    stood: BTreeMap<String, ()>,
    /// First heartbeat after all cameras gave a picture: from then on processor time counts, loading is paid once.
    first: Option<(i64, u64)>,
    last: (i64, u64),
    seen: BTreeMap<String, (u64, u64)>,
    lag_ms: Vec<u64>,
    rss_bytes: u64,
}

impl Tally {
    /// Returns how many cameras had a vehicle stand for the limit.
    fn heard(&mut self, line: WorkerLine, _pid: u32) -> usize {
        let Some(camera) = line.camera else { return 0 };
        match line.message {
            WorkerMessage::Tracks(t) => {
                let long = |since: i64| t.at_ms - since >= LIMIT_MS;
                let parked = t.tracks.iter().any(|t| !t.zones.is_empty() && t.stationary_since_ms.is_some_and(long));
                if parked {
                    self.stood.insert(camera, ());
                }
            }
            WorkerMessage::Heartbeat(beat) => {
                self.seen.insert(camera, (beat.analysed, beat.looked));
                self.last = (beat.at_ms, beat.cpu_ms);
                if self.seen.values().all(|(analysed, _)| *analysed > 0) && self.first.is_none() {
                    self.first = Some(self.last);
                }
                if self.first.is_some() {
                    self.lag_ms.push(beat.lag_ms);
                }
                self.rss_bytes = self.rss_bytes.max(beat.rss_bytes);
            }
            _ => {}
        }
        self.stood.len()
    }

    fn finish(&mut self, count: usize, found: &mut Found) {
        let first = self.first.unwrap_or_default();
        let (passed_ms, spent_ms) = ((self.last.0 - first.0).max(1), self.last.1 - first.1);
        found.core = spent_ms as f64 / passed_ms as f64 / count as f64;
        let (pictures, looks) = self.seen.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (found.pictures, found.looked) = (pictures, looks as f64 / pictures.max(1) as f64);
        found.mib = self.rss_bytes as f64 / 1_048_576.0 / count as f64;
        // Seconds without a picture of a camera say nothing.
        self.lag_ms.retain(|ms| *ms > 0);
        self.lag_ms.sort_unstable();
        let at = |share: usize| self.lag_ms.get(self.lag_ms.len() * share / 100).copied().unwrap_or(0);
        found.lag_ms = (at(50), at(99));
    }
}

/// Cores the usual way takes for a camera.
fn peer(clip: &Path, model: &Path) -> std::result::Result<f64, String> {
    let python: PathBuf = Path::new(clip::repository()).join("target/gengfu/peer/bin/python");
    if !python.is_file() {
        return Err("scripts/bench-peer.sh was not run".to_owned());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cameras/peer.py");
    let output = Command::new(python).arg(script).arg(clip).arg(model).arg(PEER_S.to_string()).output();
    let output = output.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value: serde_json::Value = serde_json::from_str(text.trim())
        .map_err(|e| format!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    value["core"].as_f64().ok_or_else(|| format!("no figure in {text}"))
}
