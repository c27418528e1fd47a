//! What the camera side costs, measured beside what cannot be avoided: the detect call beside ONNX Runtime's own run, key frames
//! beside every frame, and the memory of a worker on a 1080p camera. Ratios matter; absolute times depend on the machine.
//!
//! Needs scripts/fetch-models.sh, opencv-doc and the ffmpeg program; says what is missing.

#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gengfu_vision::clock::Stopwatch;
use gengfu_vision::decode::{Capture, CaptureConfig, DecodeMode};
use gengfu_vision::detect::{Detector, ModelConfig};
use gengfu_vision::manifest::Manifest;
use gengfu_vision::pipeline::analyse_clip;
use gengfu_vision::protocol::{ParentMessage, VERSION, WorkerConfig, WorkerMessage};
use gengfu_vision::sandbox::Limits;
use gengfu_vision::source::{SourceUrl, Transport, Watchdog};

type Failure = Box<dyn std::error::Error>;

const WORKER_VARIABLE: &str = "GENGFU_VISION_BENCH_WORKER";
const VTEST: &str = "/usr/share/doc/opencv-doc/examples/data/vtest.avi";
/// Length of the 1080p clip, seconds of stream.
const CLIP_S: u32 = 30;

fn main() -> Result<(), Failure> {
    if std::env::var_os(WORKER_VARIABLE).is_some() {
        gengfu_vision::worker::run(BufReader::new(std::io::stdin()), std::io::stdout());
        return Ok(());
    }
    let model = match model() {
        Ok(model) if Path::new(VTEST).is_file() => model,
        Ok(_) => return skipped(&format!("{VTEST} is absent; apt-get install opencv-doc")),
        Err(why) => return skipped(&why.to_string()),
    };
    for threads in [1, 2] {
        detect_beside_run(&ModelConfig { threads, ..model.clone() })?;
    }
    let folder = tempfile::tempdir()?;
    let clip = match camera_clip(folder.path()) {
        Ok(clip) => clip,
        Err(why) => return skipped(&why.to_string()),
    };
    for mode in [DecodeMode::KeyFrames, DecodeMode::EveryFrame] {
        cost_of_a_camera(&clip, &model, mode)?;
        memory_of_a_worker(&clip, &model, mode)?;
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "ends main, which can fail")]
fn skipped(why: &str) -> Result<(), Failure> {
    println!("vision: skipped, because {why}");
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model() -> Result<ModelConfig, Failure> {
    let manifest = Manifest::load(&root().join("models/manifest.toml"))?;
    let entry = manifest.model("yolox_nano").ok_or("the manifest has no yolox_nano")?.clone();
    let place =
        |variable, fallback: &str| std::env::var_os(variable).map_or_else(|| root().join(fallback), PathBuf::from);
    let path = place("GENGFU_MODELS_DIR", "target/gengfu/models").join(&entry.file);
    let runtime = place("ORT_DYLIB_PATH", "target/gengfu/onnxruntime/libonnxruntime.so");
    for file in [&path, &runtime] {
        if !file.is_file() {
            return Err(format!("{} is absent; run scripts/fetch-models.sh", file.display()).into());
        }
    }
    Ok(ModelConfig { path, entry, runtime, threads: 1 })
}

fn capture(url: &Path, decode: DecodeMode) -> Result<CaptureConfig, Failure> {
    let url = SourceUrl::new(url.to_str().ok_or("the path is not UTF-8")?);
    Ok(CaptureConfig { url, transport: Transport::Tcp, decode, fps_max: 5.0, looped: false, silence_ms: 8000 })
}

fn config(url: &Path, model: &ModelConfig, decode: DecodeMode) -> Result<WorkerConfig, Failure> {
    Ok(WorkerConfig {
        version: VERSION,
        camera: "bench".to_owned(),
        capture: capture(url, decode)?,
        paced: false,
        start_at_ms: Some(0),
        model: model.clone(),
        second_model: None,
        zones: Vec::new(),
        masks: Vec::new(),
        limits: Limits::default(),
    })
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Processor time of this process so far, microseconds: unlike wall time it does not count what other processes take.
#[expect(clippy::cast_sign_loss, reason = "a processor clock begins at zero")]
fn cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Interleaved, so that both sides see the same noise.
fn detect_beside_run(model: &ModelConfig) -> Result<(), Failure> {
    let mut detector = Detector::new(model)?;
    let mut source = Capture::open(&capture(Path::new(VTEST), DecodeMode::EveryFrame)?, 0, Watchdog::new())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut ours_cpu, mut theirs_cpu) = (Vec::new(), Vec::new());
    let (mut prepare, mut decode) = (Vec::new(), Vec::new());
    for round in 0..220 {
        let Some(frame) = source.next_frame()? else { break };
        let (mut stopwatch, cpu) = (Stopwatch::start(), cpu_us());
        detector.detect(&frame, model.entry.keep_threshold)?;
        let (detect_us, detect_cpu) = (stopwatch.lap_us(), cpu_us());
        detector.run_only()?;
        let run_us = stopwatch.us();
        if round >= 20 {
            ours.push(detect_us);
            theirs.push(run_us);
            ours_cpu.push(detect_cpu - cpu);
            theirs_cpu.push(cpu_us() - detect_cpu);
            prepare.push(detector.timing().prepare_us);
            decode.push(detector.timing().decode_us);
        }
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let cpu_ratio = median(&mut ours_cpu) as f64 / median(&mut theirs_cpu) as f64;
    println!(
        "vision: detect 768x576, {} thread(s): {ours} us beside ONNX Runtime's own {theirs} us, ratio {:.3} (goal 1.10), by processor time {cpu_ratio:.3}; prepare {} us, decode {} us",
        model.threads,
        ours as f64 / theirs as f64,
        median(&mut prepare),
        median(&mut decode)
    );
    Ok(())
}

/// A stand-in for a street camera: 1080p H.264, 25 pictures a second, a key frame every two seconds.
fn camera_clip(folder: &Path) -> Result<PathBuf, Failure> {
    let clip = folder.join("camera.mp4");
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-t", &CLIP_S.to_string(), "-i", VTEST, "-vf", "scale=1920:1080,fps=25"])
        .args(["-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-b:v", "4M"])
        .arg(&clip)
        .status()
        .map_err(|e| format!("the ffmpeg program does not start: {e}; apt-get install ffmpeg"))?;
    if status.success() { Ok(clip) } else { Err("ffmpeg could not make the 1080p clip".into()) }
}

fn cost_of_a_camera(clip: &Path, model: &ModelConfig, mode: DecodeMode) -> Result<(), Failure> {
    let config = config(clip, model, mode)?;
    let (mut decode_us, mut detect_us) = (0, 0);
    // From the first picture on: loading the model is paid once, not per second.
    let mut begun = None;
    let pictures = analyse_clip(&config, |result, _, _| {
        begun.get_or_insert_with(cpu_us);
        decode_us += result.tracks.decode_us;
        detect_us += result.tracks.inference_us;
    })?;
    let watched_s = f64::from(CLIP_S) * (pictures.max(2) - 1) as f64 / pictures.max(2) as f64;
    let busy = cpu_us().saturating_sub(begun.unwrap_or_default()) as f64 / 1e6 / watched_s;
    println!(
        "vision: 1080p25 {mode:?}: {busy:.4} core per camera at 5 pictures/s at most, {pictures} pictures, decode {} us and detect {} us each",
        decode_us / pictures.max(1),
        detect_us / pictures.max(1)
    );
    Ok(())
}

fn memory_of_a_worker(clip: &Path, model: &ModelConfig, mode: DecodeMode) -> Result<(), Failure> {
    let mut config = config(clip, model, mode)?;
    (config.capture.looped, config.paced) = (true, true);
    let mut child = Command::new(std::env::current_exe()?)
        .env(WORKER_VARIABLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no input")?;
    writeln!(stdin, "{}", serde_json::to_string(&ParentMessage::Config(Box::new(config)))?)?;
    let mut rss_bytes = 0;
    let mut beats = 0;
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        if let WorkerMessage::Heartbeat(beat) = serde_json::from_str(&line?)? {
            (rss_bytes, beats) = (beat.rss_bytes, beats + 1);
            if beats == 6 {
                break;
            }
        }
    }
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id())).unwrap_or_default();
    let kib = |key: &str| -> u64 {
        let line = smaps.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    println!(
        "vision: worker on 1080p25 {mode:?}: {:.1} MiB resident, of it {:.1} MiB its own (the rest are library pages that all workers share; goal 40 MiB)",
        rss_bytes as f64 / 1_048_576.0,
        kib("Private_Dirty:") as f64 / 1024.0
    );
    writeln!(stdin, "{}", serde_json::to_string(&ParentMessage::Shutdown)?)?;
    drop(stdin);
    // It may be waiting to write what nobody reads any more.
    child.kill()?;
    child.wait()?;
    Ok(())
}
