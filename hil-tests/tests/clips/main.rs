//! Real footage through detector, tracker and rules in stream time, as it is and spoiled.
//! Goal: on each clip exactly the vehicles that stand too long are told, once each, at the right time, and nothing else; and spoiling the pictures
//! (noise, dusk, a shaken camera, another framing, pictures out of order) costs at most one in twenty. Method: whole clips through the worker's own
//! pipeline, its tracks to the engine, every picture the rules ask for made for real; `GENGFU_VARIANTS` says how many spoiled copies of each clip.

mod variant;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use gengfu_alarm::observation::{Camera, What};
use gengfu_alarm::rules::{DeviceClass, DeviceRule, Rules, Timing, ZoneKind, ZoneRule};
use gengfu_alarm::{CodeTable, Engine, Observation, Output};
use gengfu_contract::event::{ClockQuality, EventType, EvidenceRef};
use gengfu_contract::slug::Slug;
use gengfu_vision::decode::{CaptureConfig, DecodeMode};
use gengfu_vision::detect::ModelConfig;
use gengfu_vision::geometry::Point;
use gengfu_vision::manifest::Manifest;
use gengfu_vision::picture::VideoFrame;
use gengfu_vision::pipeline::{FrameResult, Pipeline, analyse_clip};
use gengfu_vision::protocol::WorkerConfig;
use gengfu_vision::source::SourceUrl;
use gengfu_vision::zone::Zone;
use hil_tests::clip::{repository, vtest};
use hil_tests::skip::{self, Need, need};
use hil_tests::{Result, RigError};
use jiff::Timestamp;
use variant::{Margins, Variant};

/// Wall time of stream time nought.
const START_MS: i64 = 1_700_000_000_000;
/// How long a vehicle may stand, in every clip here.
const LIMIT: Duration = Duration::from_secs(10);
/// A vehicle is the expected one when its middle lies this near, as a share of the picture.
const NEAR: f32 = 0.06;

/// One clip and what is to be seen on it.
#[derive(Debug, Clone)]
struct Footage {
    name: &'static str,
    path: PathBuf,
    zone: &'static [[f32; 2]],
    /// Middles of the vehicles that stand too long.
    parked: &'static [[f32; 2]],
    /// What may be cut off without cutting into them.
    margins: Margins,
}

fn on_vtest() -> Footage {
    Footage {
        name: "vtest",
        path: vtest(),
        zone: &[[0.83, 0.155], [0.90, 0.135], [0.999, 0.125], [0.999, 0.20], [0.86, 0.21], [0.83, 0.19]],
        parked: &[[688.0 / 768.0, 69.5 / 576.0], [748.5 / 768.0, 72.0 / 576.0]],
        margins: Margins { left: 0.12, top: 0.02, right: 0.0, bottom: 0.12 },
    }
}

fn in_the_lane() -> Footage {
    Footage {
        name: "parking_lane",
        path: repository().join("../shared/data/video/parking_lane.mp4"),
        zone: &[[0.36, 0.52], [0.56, 0.52], [0.56, 0.66], [0.36, 0.66]],
        parked: &[[0.475, 0.50]],
        margins: Margins { left: 0.10, top: 0.10, right: 0.10, bottom: 0.10 },
    }
}

fn main() -> ExitCode {
    let fetched = repository().join("target/gengfu");
    let model = || need::all([need::file(&fetched.join("models/yolox_nano.onnx")), need::file(&library())]);
    let needs = |footage: &Footage| need::all([need::tool("ffmpeg"), model(), optional(&footage.path)]);
    let (lane, street) = (in_the_lane(), on_vtest());
    skip::main(vec![
        skip::test(
            "the_car_in_the_lane_is_told_once_at_its_limit_and_the_kiosk_never",
            needs(&lane),
            parked_in_the_lane,
        ),
        skip::test(
            "the_van_and_the_car_of_vtest_are_told_once_each_and_nobody_else_is",
            needs(&street),
            parked_on_vtest,
        ),
        skip::test("spoiled_copies_of_vtest_keep_precision_and_recall", needs(&street), || spoiled(&on_vtest())),
        skip::test("spoiled_copies_of_the_lane_keep_precision_and_recall", needs(&lane), || spoiled(&in_the_lane())),
    ])
}

fn library() -> PathBuf {
    let fetched = || repository().join("target/gengfu/onnxruntime/libonnxruntime.so");
    std::env::var_os("ORT_DYLIB_PATH").map_or_else(fetched, PathBuf::from)
}

fn optional(path: &Path) -> Need {
    let is_shared = path.starts_with(repository().join("../shared"));
    need::file(path).map_err(|why| if is_shared { format!("{why}: {}", skip::OPTIONAL) } else { why })
}

/// One alarm of a clip; times are stream time.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    raised_ms: i64,
    cleared_ms: Option<i64>,
    /// Middle of the vehicle when its limit was over.
    at: [f32; 2],
    pictures: usize,
}

/// The engine beside a clip.
struct Judge {
    engine: Engine,
    camera: Slug,
    asked: BTreeMap<String, [f32; 2]>,
    told: BTreeMap<String, Told>,
    discarded: usize,
}

impl Judge {
    fn new(camera: &Slug, zone: &Slug) -> Self {
        let device = DeviceRule { class: DeviceClass::Camera, ..DeviceRule::default() };
        let mut rule = ZoneRule::new(ZoneKind::IllegalParking, LIMIT);
        rule.classes.retain(|class| *class != gengfu_alarm::observation::TrackKind::Motorcycle);
        let rules = Rules {
            gateway: camera.clone(),
            devices: [(camera.clone(), device)].into(),
            zones: [((camera.clone(), zone.clone()), rule)].into(),
            codes: CodeTable::default(),
            timing: Timing::default(),
        };
        let (asked, told) = (BTreeMap::new(), BTreeMap::new());
        let mut judge = Self { engine: Engine::new(rules), camera: camera.clone(), asked, told, discarded: 0 };
        judge.see(at(0), What::Camera(Camera::Streaming));
        judge
    }

    fn see(&mut self, now: Timestamp, what: What) -> Vec<Output> {
        let (device, clock) = (self.camera.clone(), ClockQuality::Synced);
        self.engine.observe(now, &Observation { device, sensed_at: now, clock, origin: None, what })
    }

    /// One analysed picture, and every still the rules ask for because of it.
    fn look(&mut self, result: &FrameResult, frame: &VideoFrame, pipeline: &mut Pipeline) {
        let now = at(result.tracks.pts_ms);
        let mut outputs = self.see(now, What::Scene(gengfu::cameras::scene(&result.tracks, now)));
        outputs.extend(self.engine.tick(now));
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                outputs.extend(self.carry_out(output, now, result, frame, pipeline));
            }
        }
    }

    fn carry_out(
        &mut self,
        output: Output,
        now: Timestamp,
        result: &FrameResult,
        frame: &VideoFrame,
        pipeline: &mut Pipeline,
    ) -> Vec<Output> {
        match output {
            Output::NeedStill(need) => {
                if let Some(track) = result.tracks.tracks.iter().find(|track| track.id == need.track) {
                    let middle = track.bbox.centre();
                    self.asked.insert(need.alarm_id.clone(), [middle.x, middle.y]);
                }
                let still = pipeline.still(frame, result.tracks.at_ms, Some(need.track));
                let result = still.map_err(|error| error.to_string()).map(|(still, _)| EvidenceRef {
                    n: need.n,
                    sha256: still.sha256,
                    bytes: still.jpeg.len() as u64,
                    media_type: "image/jpeg".to_owned(),
                    taken_at: now,
                    caption: need.caption,
                });
                self.see(now, What::Still { alarm_id: need.alarm_id, result })
            }
            Output::Alarm(transition) => {
                let (id, now_ms) = (transition.alarm.alarm_id.clone(), stream_ms(now));
                let at = self.asked.get(&id).copied().unwrap_or_default();
                let told = self.told.entry(id).or_insert(Told { raised_ms: now_ms, cleared_ms: None, at, pictures: 0 });
                told.pictures = transition.alarm.evidence.len();
                match transition.event_type {
                    EventType::AlarmCleared => told.cleared_ms = Some(now_ms),
                    EventType::AlarmRaised => told.cleared_ms = None,
                    _ => {}
                }
                Vec::new()
            }
            Output::DiscardStills(_) => {
                self.discarded += 1;
                Vec::new()
            }
            Output::Warning(_) => Vec::new(),
        }
    }
}

fn at(stream_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(START_MS + stream_ms).expect("a clip lasts minutes")
}

fn stream_ms(at: Timestamp) -> i64 {
    at.as_millisecond() - START_MS
}

fn config(clip: &Path, zone: &[[f32; 2]]) -> Result<WorkerConfig> {
    let failed = |what: &str, why: String| RigError::failed(what.to_owned(), why);
    let manifest = Manifest::load(&repository().join("models/manifest.toml"))
        .map_err(|faults| failed("read the model manifest", faults.to_string()))?;
    // `GENGFU_MODEL` compares another model of the manifest on the same clips.
    let name = std::env::var("GENGFU_MODEL").unwrap_or_else(|_| "yolox_nano".to_owned());
    let unknown = || failed("choose the model GENGFU_MODEL", format!("the manifest has no {name}"));
    let entry = manifest.model(&name).ok_or_else(unknown)?.clone();
    let path = repository().join("target/gengfu/models").join(&entry.file);
    Ok(WorkerConfig {
        camera: "cam".to_owned(),
        capture: CaptureConfig {
            decode: DecodeMode::EveryFrame,
            fps_max: 5.0,
            silence_ms: 3000,
            ..CaptureConfig::new(SourceUrl::new(clip.display().to_string()))
        },
        reference: None,
        paced: false,
        start_at_ms: Some(START_MS),
        model: ModelConfig { path, entry, runtime: library(), threads: 1 },
        second_model: None,
        zones: vec![Zone { id: "zone".to_owned(), polygon: zone.iter().copied().map(Point::from).collect() }],
        masks: Vec::new(),
        change_gate: true,
    })
}

/// Every alarm of a clip, in the order of their raising.
fn told_of(clip: &Path, zone: &[[f32; 2]]) -> Result<Vec<Told>> {
    let slug = |name: &str| Slug::new(name).expect("a constant that is a slug");
    let mut judge = Judge::new(&slug("cam"), &slug("zone"));
    analyse_clip(&config(clip, zone)?, |result, frame, pipeline| judge.look(result, frame, pipeline))
        .map_err(|e| RigError::failed(format!("analyse {}", clip.display()), e))?;
    let mut told: Vec<Told> = judge.told.into_values().collect();
    told.sort_by_key(|told| told.raised_ms);
    Ok(told)
}

fn is_near(a: [f32; 2], b: [f32; 2]) -> bool {
    (a[0] - b[0]).abs() <= NEAR && (a[1] - b[1]).abs() <= NEAR
}

fn parked_in_the_lane() -> Result<()> {
    let footage = in_the_lane();
    let told = told_of(&footage.path, footage.zone)?;
    println!("{told:?}");
    // It stops at about picture 170 and leaves at about 540, of 607, 29.66 a second.
    let (arrived_ms, left_ms) = (5_730, 18_210);
    assert_eq!(told.len(), 1, "one car, no kiosk: {told:?}");
    let one = &told[0];
    assert!(is_near(one.at, footage.parked[0]), "{one:?}");
    let limit_ms = arrived_ms + 10_000;
    // A picture "at about" which it stops is known to within some pictures, and five a second are looked at.
    assert!((limit_ms - 250..=limit_ms + 2_000).contains(&one.raised_ms), "{one:?}");
    let cleared_ms = one.cleared_ms.expect("it has left before the clip ends");
    assert!((left_ms..=left_ms + 3_000).contains(&cleared_ms), "{one:?}");
    assert!(one.pictures >= 3, "arrival, past the limit, overview: {one:?}");
    Ok(())
}

fn parked_on_vtest() -> Result<()> {
    let footage = on_vtest();
    let told = told_of(&footage.path, footage.zone)?;
    println!("{told:?}");
    assert_eq!(told.len(), 2, "the van and the car: {told:?}");
    for parked in footage.parked {
        assert!(told.iter().any(|one| is_near(one.at, *parked)), "{parked:?} is not told: {told:?}");
    }
    for one in &told {
        assert!(
            (10_000..=12_000).contains(&one.raised_ms) && one.cleared_ms.is_none(),
            "they stand all the time: {one:?}"
        );
    }
    Ok(())
}

/// Right, wrong and missing alarms.
#[derive(Debug, Default, Clone, Copy)]
struct Score {
    right: u32,
    wrong: u32,
    missing: u32,
}

impl Score {
    fn of(told: &[Told], parked: &[[f32; 2]]) -> Self {
        let found = parked.iter().filter(|place| told.iter().any(|one| is_near(one.at, **place)));
        let right = u32::try_from(found.count()).unwrap_or(0);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { right, wrong: count(told.len()) - right, missing: count(parked.len()) - right }
    }

    fn precision(self) -> f64 {
        f64::from(self.right) / f64::from((self.right + self.wrong).max(1))
    }

    fn recall(self) -> f64 {
        f64::from(self.right) / f64::from((self.right + self.missing).max(1))
    }
}

fn spoiled(footage: &Footage) -> Result<()> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (variants, first) = (number("GENGFU_VARIANTS", 3), number("GENGFU_SEED", 1));
    let mut all = Score::default();
    for seed in first..first + variants {
        let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
        let variant = Variant::of(seed, footage.margins);
        let clip = variant.make(dir.path(), &footage.path)?;
        let zone: Vec<[f32; 2]> = footage.zone.iter().map(|point| variant.place(*point)).collect();
        let parked: Vec<[f32; 2]> = footage.parked.iter().map(|point| variant.place(*point)).collect();
        let told = told_of(&clip, &zone)?;
        let score = Score::of(&told, &parked);
        if score.wrong + score.missing > 0 {
            println!("{} seed {seed}: {score:?}; {variant:?}; {told:?}", footage.name);
        }
        all.right += score.right;
        all.wrong += score.wrong;
        all.missing += score.missing;
    }
    let (precision, recall) = (all.precision(), all.recall());
    println!(
        "{}: {variants} variants from seed {first}: precision {precision:.3}, recall {recall:.3}, {all:?}",
        footage.name
    );
    assert!(
        precision >= 0.95 && recall >= 0.95,
        "{}: seeds {first} to {}: {all:?}",
        footage.name,
        first + variants - 1
    );
    Ok(())
}
