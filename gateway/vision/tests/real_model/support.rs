//! What the tests with the real parts need: where the parts are, a configuration, and a worker process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use gengfu_vision::decode::{CaptureConfig, DecodeMode};
use gengfu_vision::detect::ModelConfig;
use gengfu_vision::manifest::{Decoder, Manifest, ModelEntry};
use gengfu_vision::protocol::{ParentMessage, StillRequest, WorkerConfig, WorkerLine, WorkerMessage, WorkerSetup};
use gengfu_vision::sandbox::Limits;
use gengfu_vision::source::SourceUrl;
use gengfu_vision::zone::Zone;

/// Set for a process that shall be a worker instead of a test runner.
pub const WORKER_VARIABLE: &str = "GENGFU_VISION_TEST_WORKER";

/// Why a test cannot run here.
pub type Skip = String;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn existing(path: PathBuf, remedy: &str) -> Result<PathBuf, Skip> {
    if path.is_file() { Ok(path) } else { Err(format!("{} is absent: {remedy}", path.display())) }
}

pub fn library() -> Result<PathBuf, Skip> {
    let fallback = || root().join("target/gengfu/onnxruntime/libonnxruntime.so");
    existing(std::env::var_os("ORT_DYLIB_PATH").map_or_else(fallback, PathBuf::from), "run scripts/fetch-models.sh")
}

pub fn yolox() -> Result<ModelConfig, Skip> {
    let manifest = Manifest::load(&root().join("models/manifest.toml")).unwrap_or_else(|f| panic!("{f}"));
    let entry = manifest.model("yolox_nano").expect("the default model is in the manifest").clone();
    let fallback = || root().join("target/gengfu/models");
    let folder = std::env::var_os("GENGFU_MODELS_DIR").map_or_else(fallback, PathBuf::from);
    let path = existing(folder.join(&entry.file), "run scripts/fetch-models.sh")?;
    Ok(ModelConfig { path, entry, runtime: library()?, threads: 1 })
}

/// How the reason of a test ends whose data set-up does not fetch.
pub const OPTIONAL: &str = "the data folder beside the repository is optional";

pub fn shared(path: &str) -> Result<PathBuf, Skip> {
    existing(root().join("../shared/data").join(path), OPTIONAL)
}

/// As [`shared`], for a folder.
pub fn shared_folder(path: &str) -> Result<PathBuf, Skip> {
    let folder = root().join("../shared/data").join(path);
    if folder.is_dir() { Ok(folder) } else { Err(format!("{} is absent: {OPTIONAL}", folder.display())) }
}

/// A model that is committed here.
pub fn own(name: &str) -> Result<ModelConfig, Skip> {
    let manifest = Manifest::load(&root().join("models/manifest.toml")).unwrap_or_else(|f| panic!("{f}"));
    let entry = manifest.model(name).expect("our own models are in the manifest").clone();
    Ok(ModelConfig { path: root().join("models").join(&entry.file), entry, runtime: library()?, threads: 1 })
}

pub fn nanodet(width: u32, height: u32) -> Result<ModelConfig, Skip> {
    let (file, sha256) = match width {
        416 => ("nanodet_plus_m_coco_416x416.onnx", "9d77f7d41c8cdaa0c309cb12e218866e44a7a0366d50bce4db06b19b30771bbb"),
        _ => ("nanodet_plus_m_coco_640x384.onnx", "2b044157c1443337f2f89f35f93fedc36cb6f5b330c5c86392fbe6c18282209b"),
    };
    let base = yolox()?;
    let entry = ModelEntry {
        name: "nanodet_plus_m".to_owned(),
        file: file.to_owned(),
        sha256: sha256.to_owned(),
        decoder: Decoder::NanodetPlus,
        input: gengfu_vision::manifest::Input { name: "data".to_owned(), width, height },
        score_threshold: 0.40,
        ..base.entry
    };
    Ok(ModelConfig { path: shared(&format!("models/{file}"))?, entry, ..base })
}

/// vtest.avi of Debian's opencv-doc: as set-up put it, or as the package ships it, unpacked if that is compressed.
pub fn vtest(folder: &Path) -> Result<PathBuf, Skip> {
    let fetched = root().join("target/gengfu/media/vtest.avi");
    if fetched.is_file() {
        return Ok(fetched);
    }
    let plain = PathBuf::from("/usr/share/doc/opencv-doc/examples/data/vtest.avi");
    let packed = plain.with_extension("avi.gz");
    if plain.is_file() || !packed.is_file() {
        return existing(plain, "apt-get install opencv-doc");
    }
    let unpacked = folder.join("vtest.avi");
    let output = Command::new("gzip").arg("-dc").arg(&packed).output().map_err(|e| e.to_string())?;
    std::fs::write(&unpacked, output.stdout).map_err(|e| e.to_string())?;
    Ok(unpacked)
}

/// The ground in front of the van and the car, at the top right of vtest.avi.
pub fn vtest_zone() -> Zone {
    let polygon = [[0.83, 0.155], [0.90, 0.135], [0.999, 0.125], [0.999, 0.20], [0.86, 0.21], [0.83, 0.19]];
    Zone { id: "yellow_lines".to_owned(), polygon: polygon.map(Into::into).to_vec() }
}

pub fn config(url: &str, model: ModelConfig) -> WorkerConfig {
    WorkerConfig {
        camera: "cam-test".to_owned(),
        capture: CaptureConfig {
            decode: DecodeMode::EveryFrame,
            fps_max: 5.0,
            silence_ms: 3000,
            ..CaptureConfig::new(SourceUrl::new(url))
        },
        paced: false,
        reference: None,
        start_at_ms: Some(1_700_000_000_000),
        model,
        second_model: None,
        zones: vec![vtest_zone()],
        masks: Vec::new(),
        // What is tested here is the detector and what follows it; the gate has tests of its own.
        change_gate: false,
    }
}

/// A worker in a process of its own: this very test binary, started as `gengfu-camera-worker` would be.
pub struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    requests: u64,
}

impl Worker {
    pub fn start(config: &WorkerConfig) -> Self {
        let folder = std::env::temp_dir();
        Self::start_all(std::slice::from_ref(config), &folder)
    }

    /// A worker for several cameras, whose stills go to `folder`.
    pub fn start_all(cameras: &[WorkerConfig], folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(WORKER_VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = sync_channel(1024);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stdin = child.stdin.take();
        let mut worker = Self { child, stdin, lines, requests: 0 };
        let limits = Limits { writable: vec![folder.to_owned()], ..Limits::default() };
        worker.tell(&ParentMessage::Config(Box::new(WorkerSetup::new(limits, cameras.to_vec()))));
        worker
    }

    pub fn tell(&mut self, message: &ParentMessage) {
        let line = serde_json::to_string(message).unwrap();
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    pub fn ask_still(&mut self, track: Option<u64>) -> u64 {
        self.requests += 1;
        let request =
            StillRequest { request_id: self.requests, camera: "cam-test".to_owned(), track, reason: "overview".into() };
        self.tell(&ParentMessage::Still(request));
        self.requests
    }

    /// The next message; fails the test if none comes in a time that only a hang can need.
    pub fn next(&mut self) -> WorkerMessage {
        self.next_line().message
    }

    /// As [`Worker::next`], with the camera it speaks of.
    pub fn next_line(&mut self) -> WorkerLine {
        let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("the worker speaks at least once a minute");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line}"))
    }

    /// Reads on until a message is wanted; returns what `wanted` made of it.
    pub fn until<T>(&mut self, mut wanted: impl FnMut(WorkerMessage) -> Option<T>) -> T {
        for _ in 0..100_000 {
            if let Some(found) = wanted(self.next()) {
                return found;
            }
        }
        panic!("100,000 messages without the wanted one");
    }

    /// Every message until the worker closes its output.
    pub fn rest(&mut self) -> Vec<WorkerMessage> {
        let mut all = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(60)) {
            all.push(serde_json::from_str::<WorkerLine>(&line).unwrap().message);
        }
        all
    }

    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
