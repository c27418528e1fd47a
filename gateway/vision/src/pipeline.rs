//! One picture in, tracks out: detector, tracker and zones in order. Owns what a worker and a replay have in common; refuses
//! threads, clocks and retries, so the same input gives the same output.

use crate::decode::Capture;
use crate::detect::{DetectError, Detector, Kind, Look};
use crate::geometry::BBox;
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

/// Detector, tracker and zones of one camera.
pub struct Pipeline {
    config: WorkerConfig,
    detector: Detector,
    tracker: Tracker,
    scaler: Scaler,
    frame: u64,
}

impl Pipeline {
    /// Loads the detector.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn new(config: &WorkerConfig) -> Result<Self, DetectError> {
        let detector = Detector::new(&config.model)?;
        let tracker =
            Tracker::new(TrackerConfig { birth_score: config.model.entry.score_threshold, ..TrackerConfig::default() });
        Ok(Self { config: config.clone(), detector, tracker, scaler: Scaler::default(), frame: 0 })
    }

    /// Analyses one picture.
    ///
    /// # Errors
    /// A picture that cannot be scaled, or a failure inside ONNX Runtime; the tracks are unchanged then.
    pub fn analyse(&mut self, frame: &VideoFrame, moment: Moment) -> Result<FrameResult, DetectError> {
        let seen = self.detector.detect(frame, self.config.model.entry.keep_threshold)?;
        let ended = self.tracker.update(moment.stream_ms, &seen);
        let tracks = TracksMessage {
            at_ms: moment.at_ms,
            pts_ms: frame.pts_ms,
            frame: self.frame,
            tracks: self.tracker.tracks().map(|t| self.view(t, moment)).collect(),
            inference_us: self.detector.timing().total_us(),
            decode_us: frame.decode_us,
        };
        self.frame += 1;
        let ended = ended.iter().map(|t| self.view(t, moment)).collect();
        Ok(FrameResult { tracks, ended, look: self.detector.look() })
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
        let still = still::make(&mut self.detector, &mut self.scaler, frame, &annotation)?;
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
