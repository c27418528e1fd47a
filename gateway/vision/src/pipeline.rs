//! One picture in, tracks out: gate, detector, tracker and zones in order. Owns what a worker and a replay have in common; refuses
//! threads, clocks and retries, so the same input gives the same output.

use std::sync::{Arc, Mutex, PoisonError};

use crate::arrival::Arrivals;
use crate::decode::Capture;
use crate::detect::{DetectError, Detection, Detector, Kind, Look, ModelConfig, suppress};
use crate::gate::Gate;
use crate::geometry::BBox;
use crate::grey::{self, GreyGrid};
use crate::manifest::NmsScope;
use crate::picture::{PictureError, Scaler, VideoFrame};
use crate::protocol::{TrackView, TracksMessage, WorkerConfig};
use crate::source::{SourceError, Watchdog};
use crate::still::{self, Annotation, Mark, Still};
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

/// Overlap (IoU) above which what two models, or two classes of one group, see is followed as one thing.
const ONE_THING: f32 = 0.45;

/// After what stood in or near a zone has moved off every picture is looked at for so long, ms of stream time: it is to be seen driving out, until
/// the rules know that it left.
const AFTERMATH_MS: i64 = 3000;

/// From which score each kind may start a track: its model's, and the first one's where both know it.
fn birth_scores(config: &WorkerConfig) -> [f32; Kind::ALL.len()] {
    let (first, second) = (&config.model.entry, config.second_model.as_ref().map(|model| &model.entry));
    Kind::ALL.map(|kind| match second {
        Some(second) if !first.knows(kind) && second.knows(kind) => second.score_threshold,
        _ => first.score_threshold,
    })
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
    second: Option<SharedDetector>,
    gate: Option<Gate>,
    /// How many things stood where the gate watches, and until when every picture is looked at because one moved off.
    standing: usize,
    look_until_ms: i64,
    tracker: Tracker,
    clarity: Clarity,
    scaler: Scaler,
    arrivals: Arrivals,
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
        let second = config.second_model.as_ref().map(|model| detectors.get(model)).transpose()?;
        let tracker = Tracker::new(TrackerConfig { birth_scores: birth_scores(config), ..TrackerConfig::default() });
        let gate = config.change_gate.then(|| Gate::new(&config.zones));
        Ok(Self {
            config: config.clone(),
            detector,
            second,
            gate,
            standing: 0,
            look_until_ms: i64::MIN,
            tracker,
            clarity: Clarity::default(),
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
        let (grid, look) = grey::grid(&mut self.scaler, frame)?;
        let looked = self.needs_a_look(moment.stream_ms, &grid);
        let (mut inference_us, mut ended) = (0, Vec::new());
        if looked {
            let seen;
            (seen, inference_us) = self.detect(frame)?;
            ended = self.tracker.update(moment.stream_ms, &seen);
            if let Some(gate) = &mut self.gate {
                gate.looked(moment.stream_ms, grid);
            }
        } else if let Some(gate) = &self.gate {
            self.tracker.hold(moment.stream_ms, |bbox| gate.unchanged_under(bbox));
        }
        let unclear = self.clarity.is_disturbed(moment.stream_ms, look.mean, self.tracker.tracks());
        let tracks = TracksMessage {
            at_ms: moment.at_ms,
            pts_ms: frame.pts_ms,
            frame: self.frame,
            tracks: self.tracker.tracks().map(|t| self.view(t, moment)).collect(),
            unclear,
            inference_us,
            decode_us: frame.decode_us,
            looked,
        };
        self.frame += 1;
        if let Err(error) = self.remember_arrivals(frame, &tracks) {
            // The alarm will show a later picture instead; the tracks are right all the same.
            eprintln!("camera-worker: an arrival is not remembered: {error}");
        }
        let ended = ended.iter().map(|t| self.view(t, moment)).collect();
        Ok(FrameResult { tracks, ended, look })
    }

    /// What every detector sees, each thing once, and the time they took, microseconds.
    fn detect(&self, frame: &VideoFrame) -> Result<(Vec<Detection>, u64), DetectError> {
        // A thread that panicked while it had a detector left no half-written picture behind: each call begins anew.
        let look = |shared: &SharedDetector| {
            let mut detector = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let keep = detector.entry().keep_threshold;
            let seen = detector.detect(frame, keep)?;
            Ok::<_, DetectError>((seen, detector.timing().total_us()))
        };
        let (mut seen, mut inference_us) = look(&self.detector)?;
        if let Some(second) = &self.second {
            let (more, more_us) = look(second)?;
            seen.extend(more);
            inference_us += more_us;
        }
        // A model that tells every opinion, or a second model, may name one thing twice; what is followed is one thing.
        let first = &self.config.model.entry;
        if self.second.is_some() || first.nms != NmsScope::AcrossClasses {
            suppress(&mut seen, NmsScope::AcrossClasses, ONE_THING);
        }
        Ok((seen, inference_us))
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
            marks: None,
            zones: &self.config.zones,
            masks: &self.config.masks,
            people: &kept.people,
            camera: &self.config.camera,
            taken_at_ms: kept.at_ms,
        };
        let mut detector = self.detector.lock().unwrap_or_else(PoisonError::into_inner);
        let still = still::finish(&mut detector, kept.picture()?, &annotation)?;
        Ok(Some((still, kept.at_ms)))
    }

    /// Something changed where it matters, too much time has passed, or something there is not settled: what just came, moves, or
    /// was not seen in the last picture is looked at in every picture until it stands or is gone; what stood, for [`AFTERMATH_MS`] more.
    fn needs_a_look(&mut self, now_ms: i64, grid: &GreyGrid) -> bool {
        let Some(gate) = &mut self.gate else { return true };
        let due = gate.is_due(now_ms, grid);
        let stands = |track: &&Track| track.stationary_since_ms().is_some() && track.kind() != Kind::Person;
        let standing = self.tracker.tracks().filter(stands).filter(|track| gate.watches(&track.bbox())).count();
        if std::mem::replace(&mut self.standing, standing) > standing {
            self.look_until_ms = now_ms + AFTERMATH_MS;
        }
        // Stream time that jumped back must not leave it open for ever.
        self.look_until_ms = self.look_until_ms.min(now_ms + AFTERMATH_MS);
        due || now_ms < self.look_until_ms || !self.tracker.is_settled(|bbox| gate.watches(bbox))
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
            marks: None,
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

    /// A still that shows what the camera sees: everything that is followed marked and named, and the zones named. For the person who
    /// sets the camera up.
    ///
    /// # Errors
    /// As [`still::make`].
    pub fn test_still(&mut self, frame: &VideoFrame, moment: Moment) -> Result<Still, DetectError> {
        let marks: Vec<Mark> =
            self.tracker.tracks().map(|track| Mark::of(&self.view(track, moment), moment.at_ms)).collect();
        let annotation = Annotation {
            highlight: None,
            marks: Some(&marks),
            zones: &self.config.zones,
            masks: &self.config.masks,
            people: &self.people(),
            camera: &self.config.camera,
            taken_at_ms: moment.at_ms,
        };
        let mut detector = self.detector.lock().unwrap_or_else(PoisonError::into_inner);
        still::make(&mut detector, &mut self.scaler, frame, &annotation)
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
