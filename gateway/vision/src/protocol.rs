//! What the gateway and a camera worker say to each other: one JSON object per line, the gateway on the worker's standard
//! input, the worker on its standard output. Owns the words and the check of a configuration; refuses anything that would
//! need two numbers agreed elsewhere.
//!
//! 1. The gateway's first line SHALL be `config`, with every camera of this worker. The worker answers `hello`, then a `state` for
//!    each camera. Every line of the worker names the camera it speaks of ([`WorkerLine`]), but `hello` and a `state` that
//!    concern the worker as a whole.
//! 2. The worker SHALL send `tracks` for every analysed picture, and `tracks_ended` for tracks that left. A picture in which nothing
//!    changed where it matters is analysed without the detector: `looked` is false and the tracks stand as they were.
//! 3. The worker SHALL send `heartbeat` for each camera every second, also without pictures: silence means it hangs.
//! 4. `still` SHALL be answered by one `still` with the same `request_id`, with a picture or the reason why not.
//! 5. On `shutdown` or the end of its input the worker SHALL exit. After a fault it cannot work with (configuration, model,
//!    library, a camera whose reading hangs) it sends `state` with `fatal: true` for each camera to blame and exits with code 2.
//! 6. All `*_at_ms`, `at_ms` and `*_ms` of tracks are wall time, ms since the Unix epoch, as of the message's `at_ms`: durations
//!    inside one message are true even if the wall clock was set in between.
//! 7. Track numbers are unique within one run of a worker, never reused in it; a new worker starts again at 1.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::decode::CaptureConfig;
use crate::detect::{Kind, ModelConfig};
use crate::geometry::{BBox, Point};
use crate::health::Trouble;
use crate::sandbox::{Confinement, Limits};
use crate::thrift::Effort;
use crate::zone::{Zone, polygon_fault};

/// Version of this protocol; a worker refuses a configuration of another.
pub const VERSION: u32 = 3;

/// Everything a worker needs to know, in one line: its cameras and what it gives up. Cameras with an equal [`WorkerConfig::model`]
/// share one detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSetup {
    /// [`VERSION`].
    pub version: u32,
    /// What the worker gives up before it starts.
    #[serde(default)]
    pub limits: Limits,
    /// The cameras, at least one, each with a slug of its own.
    pub cameras: Vec<WorkerConfig>,
}

/// Most cameras one worker takes: more would be lost at once with it.
pub const CAMERAS_MAX: usize = 64;

impl WorkerSetup {
    /// A worker of this version for these cameras.
    #[must_use]
    pub fn new(limits: Limits, cameras: Vec<WorkerConfig>) -> Self {
        Self { version: VERSION, limits, cameras }
    }

    /// What is wrong with the whole, if anything: what is wrong and what to do.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.version != VERSION {
            return Some(format!(
                "version: is {}, this worker speaks {VERSION}; install gateway and worker from one build",
                self.version
            ));
        }
        if !(1..=CAMERAS_MAX).contains(&self.cameras.len()) {
            return Some(format!("cameras: are {}; give a worker 1 to {CAMERAS_MAX}", self.cameras.len()));
        }
        let twice = |(i, c): (usize, &WorkerConfig)| self.cameras[..i].iter().any(|other| other.camera == c.camera);
        let double = self.cameras.iter().enumerate().find(|&place| twice(place));
        double
            .map(|(_, camera)| format!("cameras: \"{}\" is there twice; give each camera its own slug", camera.camera))
    }
}

/// One camera's part of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The camera's slug; drawn into stills.
    pub camera: String,
    /// Where pictures come from and how many are wanted.
    pub capture: CaptureConfig,
    /// Hold a file back to the speed of its time stamps (a stand-in for a camera). Without it a file is analysed as fast as
    /// possible, no picture is skipped, and `at_ms` = `start_at_ms` + stream time: the same input gives the same output.
    /// Cameras are always paced.
    #[serde(default = "yes")]
    pub paced: bool,
    /// Wall time of stream time zero when not paced, ms since the Unix epoch; the current time if absent.
    #[serde(default)]
    pub start_at_ms: Option<i64>,
    /// The detector; it must know people, because stills are blurred by it.
    pub model: ModelConfig,
    /// A second detector on the same pictures, as for litter beside one for the street.
    #[serde(default)]
    pub second_model: Option<ModelConfig>,
    /// Zones that tracks are tested against.
    #[serde(default)]
    pub zones: Vec<Zone>,
    /// Where the reference view is kept, for telling a camera that was moved or covered; without it, it is learned anew at each start.
    #[serde(default)]
    pub reference: Option<PathBuf>,
    /// Regions blackened in every still.
    #[serde(default)]
    pub masks: Vec<Vec<Point>>,
    /// Spare the detector a picture in which nothing changed in or near a zone ([`crate::gate`]). Stills are never spared.
    #[serde(default = "yes")]
    pub change_gate: bool,
}

fn yes() -> bool {
    true
}

impl WorkerConfig {
    /// Every fault of the configuration: key path, then what is wrong and what to do.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let slug =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !slug(&self.camera) {
            faults.push("camera: must be letters, digits, '-', '_' or '.'; use the camera's slug".to_owned());
        }
        faults.extend(self.capture.faults().into_iter().map(|fault| format!("capture.{fault}")));
        if !(1..=64).contains(&self.model.threads) {
            faults.push("model.threads: must be from 1 to 64".to_owned());
        }
        if !self.model.entry.knows(Kind::Person) {
            let name = &self.model.entry.name;
            faults
                .push(format!("model: \"{name}\" does not know people, who must be blurred; name one that does first"));
        }
        for (i, zone) in self.zones.iter().enumerate() {
            faults.extend(polygon_fault(&zone.polygon).map(|f| format!("zones[{i}].polygon: {f}")));
            if zone.id.is_empty() || self.zones.iter().take(i).any(|z| z.id == zone.id) {
                faults.push(format!("zones[{i}].id: \"{}\" is empty or taken; give every zone its own name", zone.id));
            }
        }
        faults.extend(
            self.masks.iter().enumerate().filter_map(|(i, m)| polygon_fault(m).map(|f| format!("masks[{i}]: {f}"))),
        );
        faults
    }

    /// Is the source held to the clock? Cameras always are.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.paced || self.capture.url.is_live()
    }
}

/// Gateway → worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ParentMessage {
    /// The first line.
    Config(Box<WorkerSetup>),
    /// Make a still of the newest picture.
    Still(StillRequest),
    /// How much to spend on a camera from now on; replaces what was said before.
    Effort {
        /// The camera's slug.
        camera: String,
        /// How much.
        #[serde(flatten)]
        effort: Effort,
    },
    /// Stop.
    Shutdown,
}

/// A wanted still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StillRequest {
    /// Number of the gateway's choice, repeated in the answer.
    pub request_id: u64,
    /// The camera's slug.
    pub camera: String,
    /// The track to highlight, if any.
    #[serde(default)]
    pub track: Option<u64>,
    /// What it is for, repeated in the answer: `arrival`, `past_limit`, `overview`, `cleared`, `snapshot`… With `arrival` the picture
    /// is of the moment at which the track came to stand, as far as that is remembered; else it is the newest. With `test` everything
    /// that is followed is marked and named in it, and the zones too.
    pub reason: String,
}

/// A line of the worker: of which camera it speaks, and what it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerLine {
    /// The camera's slug; absent where the worker as a whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// What it says.
    #[serde(flatten)]
    pub message: WorkerMessage,
}

/// Worker → gateway, as part of a [`WorkerLine`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkerMessage {
    /// The configuration was understood and the worker confined itself.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Version of this software.
        software: String,
        /// What the kernel enforces from now on.
        confinement: Confinement,
    },
    /// The camera's state changed.
    State {
        /// When.
        at_ms: i64,
        /// To what.
        #[serde(flatten)]
        state: CameraState,
    },
    /// One picture was analysed.
    Tracks(TracksMessage),
    /// Tracks left; each is told once, as it was last.
    TracksEnded {
        /// When this was decided.
        at_ms: i64,
        /// What left.
        tracks: Vec<TrackView>,
    },
    /// Answer to [`ParentMessage::Still`].
    Still {
        /// From the request.
        request_id: u64,
        /// From the request.
        reason: String,
        /// The picture, or why there is none.
        #[serde(flatten)]
        outcome: StillOutcome,
    },
    /// The worker lives.
    Heartbeat(Heartbeat),
}

/// What state a camera is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CameraState {
    /// Opening the stream.
    Connecting,
    /// Pictures flow.
    Streaming,
    /// A file was played to its end.
    Ended,
    /// The stream broke or cannot be opened.
    Error {
        /// What went wrong, for a program.
        kind: ErrorKind,
        /// What went wrong and what to do, for a person; never holds credentials.
        message: String,
        /// True: the worker gives up and exits; false: it tries again.
        fatal: bool,
        /// When it tries again, milliseconds from now, if it does.
        #[serde(default)]
        retry_in_ms: Option<u64>,
    },
    /// Connected, but no picture for ten seconds.
    NoFrames,
    /// The same picture over and over.
    Frozen,
    /// Too dark to see anything.
    Dark,
    /// Most of the picture is white.
    BlownOut,
    /// Something plain is before the lens.
    Covered,
    /// The view is another than the one the zones were drawn in.
    Moved,
    /// The lens is out of focus or dirty.
    Defocused,
}

impl From<Trouble> for CameraState {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoFrames => Self::NoFrames,
            Trouble::Frozen => Self::Frozen,
            Trouble::Dark => Self::Dark,
            Trouble::BlownOut => Self::BlownOut,
            Trouble::Covered => Self::Covered,
            Trouble::Moved => Self::Moved,
            Trouble::Defocused => Self::Defocused,
        }
    }
}

/// Sorts of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The stream cannot be opened.
    Open,
    /// It has no usable video.
    NoVideo,
    /// The camera closed it, or the connection broke.
    Closed,
    /// Nothing arrives any more.
    Silence,
    /// What arrives makes no sense.
    Corrupt,
    /// The detector does not work: library, model file, or a failure while running.
    Detector,
    /// The configuration is wrong.
    Config,
    /// The kernel refused the sandbox.
    Sandbox,
    /// Reading or decoding this camera's stream does not come back; the worker ends, because a thread cannot be ended.
    Stuck,
}

/// The tracks after one picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracksMessage {
    /// Wall time of the picture.
    pub at_ms: i64,
    /// Stream time of the picture, from zero.
    pub pts_ms: i64,
    /// Number of the analysed picture, from zero.
    pub frame: u64,
    /// Every confirmed track.
    pub tracks: Vec<TrackView>,
    /// True while the view is disturbed (headlights, a shaken camera): what is not seen in such a picture may be there.
    #[serde(default)]
    pub unclear: bool,
    /// The whole detector call, microseconds.
    pub inference_us: u64,
    /// Reading and decoding since the picture before, microseconds.
    pub decode_us: u64,
    /// Did the detector look at this picture? If not, nothing had changed where it matters, and the tracks stand as they were.
    #[serde(default = "yes")]
    pub looked: bool,
}

/// A track as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackView {
    /// Number, see rule 7.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// Smoothed score, 0..1.
    pub score: f32,
    /// Where it is.
    pub bbox: BBox,
    /// The zones it stands in.
    pub zones: Vec<String>,
    /// When it was first seen.
    pub first_seen_ms: i64,
    /// Since when it stands still, if it does.
    pub stationary_since_ms: Option<i64>,
    /// When it was last seen.
    pub last_seen_ms: i64,
    /// True: not seen in this picture, only remembered.
    pub coasting: bool,
}

/// How a still went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StillOutcome {
    /// Here it is. It was never on a disk: the gateway seals it before it writes.
    Taken {
        /// The picture.
        jpeg: Jpeg,
        /// SHA-256 of the picture, lower-case hexadecimal.
        sha256: String,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Wall time of the picture.
        taken_at_ms: i64,
        /// How many people were made unrecognisable.
        people_blurred: usize,
        /// Was the wanted track there to be highlighted?
        track_found: bool,
    },
    /// There is none.
    Failed {
        /// Why, and what to do.
        message: String,
    },
}

/// A JPEG; base64 (RFC 4648, with padding) on the wire. Prints its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Jpeg(pub Vec<u8>);

impl std::fmt::Debug for Jpeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jpeg({} bytes)", self.0.len())
    }
}

impl Serialize for Jpeg {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Jpeg {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Signs of life of one camera, once a second. Memory and processor time are the whole worker's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When.
    pub at_ms: i64,
    /// Pictures analysed per second since the last heartbeat.
    pub frames_per_s: f32,
    /// Pictures analysed since the start.
    pub analysed: u64,
    /// Wanted pictures that were skipped because a newer one was there already.
    pub shed: u64,
    /// Packets the decoder refused since the stream was opened.
    pub decode_errors: u64,
    /// Of the analysed pictures, those the detector looked at.
    #[serde(default)]
    pub looked: u64,
    /// The longest a picture waited from its arrival to its result since the last heartbeat, ms.
    #[serde(default)]
    pub lag_ms: u64,
    /// Resident memory of the worker, bytes.
    pub rss_bytes: u64,
    /// Processor time the worker has taken since its start, ms.
    #[serde(default)]
    pub cpu_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_documented_shape() {
        let line = |m: &WorkerMessage| serde_json::to_string(m).unwrap();
        let message = WorkerMessage::State { at_ms: 5, state: CameraState::Dark };
        let state = WorkerLine { camera: Some("east".to_owned()), message };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, r#"{"camera":"east","type":"state","at_ms":5,"state":"dark"}"#);
        assert_eq!(serde_json::from_str::<WorkerLine>(&text).unwrap(), state);
        let effort = r#"{"type":"effort","camera":"east","key_frames_only":true,"every_ms":6000,"first_after_ms":0}"#;
        let ParentMessage::Effort { camera, effort } = serde_json::from_str(effort).unwrap() else {
            panic!("{effort}")
        };
        assert!(camera == "east" && effort.key_frames_only && effort.every_ms == 6000);
        let still = WorkerMessage::Still {
            request_id: 7,
            reason: "arrival".into(),
            outcome: StillOutcome::Failed { message: "no picture yet".into() },
        };
        assert_eq!(
            line(&still),
            r#"{"type":"still","request_id":7,"reason":"arrival","outcome":"failed","message":"no picture yet"}"#
        );
        assert_eq!(serde_json::from_str::<WorkerMessage>(&line(&still)).unwrap(), still);
        assert_eq!(serde_json::from_str::<ParentMessage>(r#"{"type":"shutdown"}"#).unwrap(), ParentMessage::Shutdown);
    }

    #[test]
    fn a_picture_travels_whole_and_prints_its_size_only() {
        let jpeg = Jpeg((0..=255).collect());
        let text = serde_json::to_string(&jpeg).unwrap();
        assert_eq!(serde_json::from_str::<Jpeg>(&text).unwrap(), jpeg);
        assert_eq!(format!("{jpeg:?}"), "Jpeg(256 bytes)");
        assert!(serde_json::from_str::<Jpeg>("\"AA=A\"").is_err());
    }

    #[test]
    fn an_unknown_key_in_a_request_is_refused() {
        let text = r#"{"type":"still","request_id":1,"camera":"east","reason":"x","size":3}"#;
        assert!(serde_json::from_str::<ParentMessage>(text).unwrap_err().to_string().contains("size"));
    }
}
