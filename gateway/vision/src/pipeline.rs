//! One picture in, tracks out: detector, tracker and zones in order. Owns what a worker and a replay have in common; refuses
//! threads, clocks and retries, so the same input gives the same output.

use crate::arrival::Arrivals;
use crate::decode::Capture;
use crate::detect::{DetectError, Detector, Kind, Look, suppress};
use crate::geometry::BBox;
use crate::picture::{PictureError, Scaler, VideoFrame};
use crate::protocol::{TrackView, TracksMessage, WorkerConfig};
use crate::source::{SourceError, Watchdog};
use crate::still::{self, Annotation, Still};
use crate::track::{Clarity, Track, Tracker, TrackerConfig};

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
    second: Option<Detector>,
    tracker: Tracker,
    clarity: Clarity,
    scaler: Scaler,
    arrivals: Arrivals,
    frame: u64,
}

impl Pipeline {
    /// Loads the detector.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn new(config: &WorkerConfig) -> Result<Self, DetectError> {
        let detector = Detector::new(&config.model)?;
        let second = config.second_model.as_ref().map(Detector::new).transpose()?;
        let tracker =
            Tracker::new(TrackerConfig { birth_score: config.model.entry.score_threshold, ..TrackerConfig::default() });
        let clarity = Clarity::default();
        Ok(Self {
            config: config.clone(),
            detector,
            second,
            tracker,
            clarity,
            scaler: Scaler::default(),
            arrivals: Arrivals::default(),
            frame: 0,
        })
    }

    /// Analyses one picture.
    ///
    /// # Errors
    /// A picture that cannot be scaled, or a failure inside ONNX Runtime; the tracks are unchanged then.
    pub fn analyse(&mut self, frame: &VideoFrame, moment: Moment) -> Result<FrameResult, DetectError> {
        let mut seen = self.detector.detect(frame, self.config.model.entry.keep_threshold)?;
        let mut inference_us = self.detector.timing().total_us();
        if let Some(second) = &mut self.second {
            let keep = second.entry().keep_threshold;
            seen.extend(second.detect(frame, keep)?);
            suppress(&mut seen, self.config.model.entry.nms_iou);
            inference_us += second.timing().total_us();
        }
        let ended = self.tracker.update(moment.stream_ms, &seen);
        let look = self.detector.look();
        let unclear = self.clarity.is_disturbed(moment.stream_ms, look.mean, self.tracker.tracks());
        let tracks = TracksMessage {
            at_ms: moment.at_ms,
            pts_ms: frame.pts_ms,
            frame: self.frame,
            tracks: self.tracker.tracks().map(|t| self.view(t, moment)).collect(),
            unclear,
            inference_us,
            decode_us: frame.decode_us,
        };
        self.frame += 1;
        if let Err(error) = self.remember_arrivals(frame, &tracks) {
            // The alarm will show a later picture instead; the tracks are right all the same.
            eprintln!("camera-worker: an arrival is not remembered: {error}");
        }
        let ended = ended.iter().map(|t| self.view(t, moment)).collect();
        Ok(FrameResult { tracks, ended, look })
    }

    /// Keeps a picture of what has just come to stand in a zone.
    fn remember_arrivals(&mut self, frame: &VideoFrame, message: &TracksMessage) -> Result<(), PictureError> {
        let matters = |track: &&TrackView| track.stationary_since_ms.is_some() && !track.zones.is_empty();
        let standing: Vec<_> = message.tracks.iter().filter(matters).map(|track| (track.id, track.bbox)).collect();
        let people = self.people();
        self.arrivals.look(&mut self.scaler, frame, message.at_ms, &standing, &people)
    }

    fn people(&self) -> Vec<BBox> {
        self.tracker.all_tracks().filter(|t| t.kind() == Kind::Person).map(Track::bbox).collect()
    }

    /// A still of the moment at which a track came to stand, and that moment's wall time; `None` when it is not remembered.
    ///
    /// # Errors
    /// As [`still::finish`].
    pub fn arrival(&mut self, track: u64) -> Result<Option<(Still, i64)>, DetectError> {
        let Some(kept) = self.arrivals.of(track) else { return Ok(None) };
        let annotation = Annotation {
            highlight: Some(kept.bbox),
            zones: &self.config.zones,
            masks: &self.config.masks,
            people: &kept.people,
            camera: &self.config.camera,
            taken_at_ms: kept.at_ms,
        };
        let still = still::finish(&mut self.detector, kept.picture()?, &annotation)?;
        Ok(Some((still, kept.at_ms)))
    }

    /// Makes a still of a picture that was analysed, people in it unrecognisable, and says whether the wanted track is known.
    ///
    /// # Errors
    /// As [`still::make`].
    pub fn still(&mut self, frame: &VideoFrame, at_ms: i64, track: Option<u64>) -> Result<(Still, bool), DetectError> {
        let highlight = self.tracker.tracks().find(|t| Some(t.id()) == track).map(Track::bbox);
        let people = self.people();
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
