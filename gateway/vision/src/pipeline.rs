//! One picture in, tracks out: gate, detector, tracker and zones in order. Owns what a worker and a replay have in common; refuses
//! threads, clocks and retries, so the same input gives the same output.

use std::sync::{Arc, Mutex, PoisonError};

use crate::decode::Capture;
use crate::detect::{DetectError, Detector, Kind, Look, ModelConfig};
use crate::gate::Gate;
use crate::geometry::BBox;
use crate::grey::{self, GreyGrid};
use crate::picture::{Scaler, VideoFrame};
use crate::protocol::{TrackView, TracksMessage, WorkerConfig};
use crate::source::{SourceError, Watchdog};
use crate::still::{self, Annotation, Still};
use crate::track::{Track, Tracker, TrackerConfig};

/// When a picture was taken, on two lines: one for people and other machines, one that never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall time, ms since the Unix epoch.
    pub at_ms: i64,
    /// Time the tracker reckons in; never runs backwards.
    pub stream_ms: i64,
}

/// What came of one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameResult {
    /// The tracks now.
    pub tracks: TracksMessage,
    /// The tracks that left.
    pub ended: Vec<TrackView>,
    /// The picture as a whole, for the camera's health.
    pub look: Look,
}

/// A detector that several cameras use in turn.
pub type SharedDetector = Arc<Mutex<Detector>>;

/// The detectors of a process: one for each model, however many cameras use it.
#[derive(Default)]
pub struct Detectors {
    loaded: Vec<(ModelConfig, SharedDetector)>,
}

impl Detectors {
    /// The detector of this model, loaded if no camera had it yet.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn get(&mut self, model: &ModelConfig) -> Result<SharedDetector, DetectError> {
        if let Some((_, detector)) = self.loaded.iter().find(|(loaded, _)| loaded == model) {
            return Ok(Arc::clone(detector));
        }
        let detector = Arc::new(Mutex::new(Detector::new(model)?));
        self.loaded.push((model.clone(), Arc::clone(&detector)));
        Ok(detector)
    }
}

/// Gate, tracker and zones of one camera, and the detector it shares.
pub struct Pipeline {
    config: WorkerConfig,
    detector: SharedDetector,
    gate: Option<Gate>,
    tracker: Tracker,
    scaler: Scaler,
    frame: u64,
}

impl Pipeline {
    /// Loads a detector of its own.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn new(config: &WorkerConfig) -> Result<Self, DetectError> {
        Self::sharing(config, &mut Detectors::default())
    }

    /// Takes its detector from those of the process.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn sharing(config: &WorkerConfig, detectors: &mut Detectors) -> Result<Self, DetectError> {
        let detector = detectors.get(&config.model)?;
        let tracker =
            Tracker::new(TrackerConfig { birth_score: config.model.entry.score_threshold, ..TrackerConfig::default() });
        let gate = config.change_gate.then(|| Gate::new(&config.zones));
        Ok(Self { config: config.clone(), detector, gate, tracker, scaler: Scaler::default(), frame: 0 })
    }

    /// Analyses one picture.
    ///
    /// # Errors
    /// A picture that cannot be scaled, or a failure inside ONNX Runtime; the tracks are unchanged then.
    pub fn analyse(&mut self, frame: &VideoFrame, moment: Moment) -> Result<FrameResult, DetectError> {
        let (grid, look) = grey::grid(&mut self.scaler, frame)?;
        let looked = self.needs_a_look(moment.stream_ms, &grid);
        let (mut inference_us, mut ended) = (0, Vec::new());
        if looked {
            let seen = {
                // A thread that panicked while it had the detector left no half-written picture behind: each call begins anew.
                let mut detector = self.detector.lock().unwrap_or_else(PoisonError::into_inner);
                let seen = detector.detect(frame, self.config.model.entry.keep_threshold)?;
                inference_us = detector.timing().total_us();
                seen
            };
            ended = self.tracker.update(moment.stream_ms, &seen);
            if let Some(gate) = &mut self.gate {
                gate.looked(moment.stream_ms, grid);
            }
        } else if let Some(gate) = &self.gate {
            self.tracker.hold(moment.stream_ms, |bbox| gate.unchanged_under(bbox));
        }
        let tracks = TracksMessage {
            at_ms: moment.at_ms,
            pts_ms: frame.pts_ms,
            frame: self.frame,
            tracks: self.tracker.tracks().map(|t| self.view(t, moment)).collect(),
            inference_us,
            decode_us: frame.decode_us,
            looked,
        };
        self.frame += 1;
        let ended = ended.iter().map(|t| self.view(t, moment)).collect();
        Ok(FrameResult { tracks, ended, look })
    }

    /// Something changed where it matters, too much time has passed, or something there is not settled: what just came, moves, or
    /// was not seen in the last picture is looked at in every picture until it stands or is gone.
    fn needs_a_look(&mut self, now_ms: i64, grid: &GreyGrid) -> bool {
        let Some(gate) = &mut self.gate else { return true };
        let due = gate.is_due(now_ms, grid);
        due || !self.tracker.is_settled(|bbox| gate.watches(bbox))
    }

    /// Makes a still of a picture that was analysed, people in it unrecognisable, and says whether the wanted track is known.
    ///
    /// # Errors
    /// As [`still::make`].
    pub fn still(&mut self, frame: &VideoFrame, at_ms: i64, track: Option<u64>) -> Result<(Still, bool), DetectError> {
        let highlight = self.tracker.tracks().find(|t| Some(t.id()) == track).map(Track::bbox);
        let people: Vec<BBox> =
            self.tracker.all_tracks().filter(|t| t.kind() == Kind::Person).map(Track::bbox).collect();
        let annotation = Annotation {
            highlight,
            zones: &self.config.zones,
            masks: &self.config.masks,
            people: &people,
            camera: &self.config.camera,
            taken_at_ms: at_ms,
        };
        let mut detector = self.detector.lock().unwrap_or_else(PoisonError::into_inner);
        let still = still::make(&mut detector, &mut self.scaler, frame, &annotation)?;
        Ok((still, highlight.is_some()))
    }

    /// The track's times as wall times as of this moment.
    fn view(&self, track: &Track, moment: Moment) -> TrackView {
        let wall = |stream_ms: i64| moment.at_ms - (moment.stream_ms - stream_ms);
        let bbox = track.bbox();
        TrackView {
            id: track.id(),
            kind: track.kind(),
            score: track.score(),
            bbox,
            zones: self.config.zones.iter().filter(|z| z.contains(&bbox)).map(|z| z.id.clone()).collect(),
            first_seen_ms: wall(track.first_seen_ms()),
            stationary_since_ms: track.stationary_since_ms().map(wall),
            last_seen_ms: wall(track.last_seen_ms()),
            coasting: track.is_coasting(),
        }
    }
}

/// Why a clip could not be analysed to its end.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The detector.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The configuration.
    #[error("the configuration has faults: {0}")]
    Config(String),
}

/// Analyses a file from beginning to end (once, even if the configuration loops it) as fast as possible: for tests and replay.
/// `on_frame` also gets the picture's pipeline, to make stills. Returns the number of pictures analysed.
///
/// # Errors
/// A faulty configuration, a file that cannot be read, or a detector that fails.
pub fn analyse_clip(
    config: &WorkerConfig,
    mut on_frame: impl FnMut(&FrameResult, &VideoFrame, &mut Pipeline),
) -> Result<u64, ClipError> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(ClipError::Config(faults.join("; ")));
    }
    let mut pipeline = Pipeline::new(config)?;
    let mut capture_config = config.capture.clone();
    capture_config.looped = false;
    let mut capture = Capture::open(&capture_config, 0, Watchdog::new())?;
    while let Some(frame) = capture.next_frame()? {
        let moment = Moment { at_ms: config.start_at_ms.unwrap_or(0) + frame.pts_ms, stream_ms: frame.pts_ms };
        let result = pipeline.analyse(&frame, moment)?;
        on_frame(&result, &frame, &mut pipeline);
    }
    Ok(pipeline.frame)
}
