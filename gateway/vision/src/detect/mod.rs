//! From a picture to boxes: pre-processing, one call to ONNX Runtime, decoding, suppression of doubles. Owns the session
//! and its buffers, which are reused from call to call; refuses a model that is not the one the manifest describes.

mod decoder;
mod nms;
mod prepare;

use std::path::{Path, PathBuf};

use ffmpeg_next::format::Pixel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Tensor, TensorElementType, ValueType};
use serde::{Deserialize, Serialize};

use crate::clock::Stopwatch;
use crate::geometry::BBox;
use crate::manifest::{Decoder, ModelEntry, ModelFileError};
use crate::picture::{PictureError, Scaler, VideoFrame};
use crate::runtime::{self, RuntimeError};
pub(crate) use nms::nested;
pub use nms::suppress;
pub use prepare::Look;
use prepare::{PADDING, letterbox, look_of, to_planes};

/// What a detected thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A passenger car.
    Car,
    /// A lorry or van.
    Truck,
    /// A bus or coach.
    Bus,
    /// A motorcycle, scooter or e-bike.
    Motorcycle,
    /// A bicycle.
    Bicycle,
    /// A human being.
    Person,
    /// Litter on the ground: bags, piles.
    Garbage,
    /// A bin that is as it should be.
    GarbageBin,
    /// A bin that overflows.
    Overflow,
}

/// Kinds that a detector may confuse for one another while it is the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Car, truck, bus.
    Vehicle,
    /// Motorcycle, bicycle.
    TwoWheeler,
    /// Person.
    Person,
    /// Garbage.
    Litter,
    /// Bins, overflowing or not.
    Bin,
}

impl Kind {
    /// Every kind, in the order of [`Kind::index`].
    pub const ALL: [Self; 9] = [
        Self::Car,
        Self::Truck,
        Self::Bus,
        Self::Motorcycle,
        Self::Bicycle,
        Self::Person,
        Self::Garbage,
        Self::GarbageBin,
        Self::Overflow,
    ];

    /// Position in [`Kind::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used on the wire and in the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Car => "car",
            Self::Truck => "truck",
            Self::Bus => "bus",
            Self::Motorcycle => "motorcycle",
            Self::Bicycle => "bicycle",
            Self::Person => "person",
            Self::Garbage => "garbage",
            Self::GarbageBin => "garbage_bin",
            Self::Overflow => "overflow",
        }
    }

    /// The group a kind belongs to.
    #[must_use]
    pub fn group(self) -> Group {
        match self {
            Self::Car | Self::Truck | Self::Bus => Group::Vehicle,
            Self::Motorcycle | Self::Bicycle => Group::TwoWheeler,
            Self::Person => Group::Person,
            Self::Garbage => Group::Litter,
            Self::GarbageBin | Self::Overflow => Group::Bin,
        }
    }
}

/// A thing seen in one picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// What it is.
    pub kind: Kind,
    /// How sure the model is, 0..1.
    pub score: f32,
    /// Where it is.
    pub bbox: BBox,
}

/// Which model to load and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The model file.
    pub path: PathBuf,
    /// Its entry of the manifest.
    pub entry: ModelEntry,
    /// The ONNX Runtime library, found by [`runtime::find`].
    pub runtime: PathBuf,
    /// Threads for one inference, 1..64. One is right where there are more cameras than cores.
    pub threads: usize,
}

/// Why a detector could not start or run.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// ONNX Runtime is missing or unusable.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The file is missing or not the one of the manifest.
    #[error(transparent)]
    File(#[from] ModelFileError),
    /// The file is the right one but the manifest describes another shape.
    #[error("model {name}: the manifest says {wanted}, the file has {found}; correct the manifest's entry")]
    Shape {
        /// The model.
        name: String,
        /// From the manifest.
        wanted: String,
        /// From the file.
        found: String,
    },
    /// ONNX Runtime could not load the model or failed while running it.
    #[error("model {name}: {cause}")]
    Run {
        /// The model.
        name: String,
        /// What ONNX Runtime said.
        cause: String,
    },
    /// The picture could not be scaled to the model's input.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

/// How long the parts of the last detection took, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Scaling and turning into planes of floats.
    pub prepare_us: u64,
    /// ONNX Runtime's own run call.
    pub run_us: u64,
    /// Decoding and suppression.
    pub decode_us: u64,
}

impl Timing {
    /// The whole call.
    #[must_use]
    pub fn total_us(&self) -> u64 {
        self.prepare_us + self.run_us + self.decode_us
    }
}

/// A loaded model.
pub struct Detector {
    entry: ModelEntry,
    session: Session,
    options: RunOptions<HasSelectedOutputs>,
    input: Tensor<f32>,
    scaler: Scaler,
    /// Size in input pixels of the region the last picture was scaled to: what lies outside is padding.
    filled: (u32, u32),
    /// Mean brightness and fingerprint of the last scaled picture, for the camera's health.
    look: Look,
    timing: Timing,
    candidates: Vec<Detection>,
}

impl Detector {
    /// Loads the library if that has not happened, checks the model against its manifest entry and prepares the buffers.
    ///
    /// # Errors
    /// Missing library, missing or wrong file, wrong shapes, or a model ONNX Runtime does not load.
    pub fn new(config: &ModelConfig) -> Result<Self, DetectError> {
        let entry = config.entry.clone();
        let bytes = entry.read(&config.path)?;
        let environment = runtime::environment(&config.runtime)?;
        let name = entry.name.clone();
        let failed = move |cause: String| DetectError::Run { name: name.clone(), cause };
        let session = open_session(&environment, &bytes, config.threads.clamp(1, 64)).map_err(failed.clone())?;
        check_shapes(&session, &entry)?;
        let (options, input) = buffers(&session, &entry).map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            entry,
            session,
            options,
            input,
            scaler: Scaler::default(),
            filled: (0, 0),
            look: Look::default(),
            timing: Timing::default(),
            candidates: Vec::new(),
        })
    }

    /// The manifest entry the model was loaded by.
    #[must_use]
    pub fn entry(&self) -> &ModelEntry {
        &self.entry
    }

    /// Things in the picture with at least `score_min`, doubles suppressed as the manifest's `nms` says, highest score first.
    ///
    /// # Errors
    /// A picture that cannot be scaled, or a failure inside ONNX Runtime.
    pub fn detect(&mut self, frame: &VideoFrame, score_min: f32) -> Result<Vec<Detection>, DetectError> {
        let mut stopwatch = Stopwatch::start();
        let region = self.prepare(frame)?;
        let prepare_us = stopwatch.lap_us();
        let candidates = &mut self.candidates;
        candidates.clear();
        let outputs = self
            .session
            .run_with_options(ort::inputs![&self.input], &self.options)
            .map_err(|e| DetectError::Run { name: self.entry.name.clone(), cause: e.to_string() })?;
        let run_us = stopwatch.lap_us();
        let (_, values) = outputs[0]
            .try_extract_tensor::<f32>()
            .map_err(|e| DetectError::Run { name: self.entry.name.clone(), cause: e.to_string() })?;
        decoder::decode(&self.entry, values, score_min, region, candidates);
        suppress(candidates, self.entry.nms, self.entry.nms_iou);
        self.timing = Timing { prepare_us, run_us, decode_us: stopwatch.us() };
        Ok(candidates.clone())
    }

    /// Times of the last [`Detector::detect`].
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The look of the last picture given to [`Detector::detect`].
    #[must_use]
    pub fn look(&self) -> Look {
        self.look
    }

    /// ONNX Runtime's run call alone on whatever the input buffer holds: the yardstick of the bench.
    ///
    /// # Errors
    /// A failure inside ONNX Runtime.
    pub fn run_only(&mut self) -> Result<(), DetectError> {
        self.session
            .run_with_options(ort::inputs![&self.input], &self.options)
            .map(|_| ())
            .map_err(|e| DetectError::Run { name: self.entry.name.clone(), cause: e.to_string() })
    }

    /// Scales the picture into the input tensor. Returns the size in input pixels that the whole picture took.
    fn prepare(&mut self, frame: &VideoFrame) -> Result<(f32, f32), PictureError> {
        let (input_w, input_h) = (self.entry.input.width, self.entry.input.height);
        let (w, h) = match self.entry.decoder {
            Decoder::NanodetPlus => (input_w, input_h),
            Decoder::Yolox => letterbox(frame.width(), frame.height(), input_w, input_h),
        };
        let scaled = self.scaler.scale(frame, Pixel::BGR24, w, h)?;
        let (_, tensor) = self.input.extract_tensor_mut();
        if self.filled != (w, h) {
            tensor.fill(PADDING);
            self.filled = (w, h);
        }
        let (stride, plane) = (scaled.stride(0), input_w as usize * input_h as usize);
        let rows = scaled.data(0).chunks(stride).take(h as usize).map(|row| &row[..w as usize * 3]);
        self.look = look_of(rows.clone());
        let (blue, rest) = tensor.split_at_mut(plane);
        let (green, red) = rest.split_at_mut(plane);
        let planes = [blue, green, red];
        to_planes(rows, input_w as usize, planes, self.entry.decoder);
        Ok((w as f32, h as f32))
    }
}

fn open_session(environment: &ort::environment::Environment, bytes: &[u8], threads: usize) -> Result<Session, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    Session::builder(environment)
        .map_err(|e| text(&e))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|e| text(&e))?
        .with_intra_threads(threads)
        .map_err(|e| text(&e))?
        .with_inter_threads(1)
        .map_err(|e| text(&e))?
        // Without an arena of its own the runtime's memory can be given back between pictures; no slower (measured).
        .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])
        .map_err(|e| text(&e))?
        // A camera's frames leave pauses: a pool that spins through them burns the core the next camera needs.
        .with_intra_op_spinning(false)
        .map_err(|e| text(&e))?
        .commit_from_memory(bytes)
        .map_err(|e| text(&e))
}

fn check_shapes(session: &Session, entry: &ModelEntry) -> Result<(), DetectError> {
    let describe = |list: &[ort::value::Outlet]| {
        let all: Vec<String> = list.iter().map(|o| format!("{} {:?}", o.name(), shape_of(o.dtype()))).collect();
        all.join(", ")
    };
    let (w, h) = (i64::from(entry.input.width), i64::from(entry.input.height));
    let rows = i64::try_from(entry.output_rows()).unwrap_or(i64::MAX);
    let columns = i64::try_from(entry.output_columns()).unwrap_or(i64::MAX);
    let check = |what: &str, list: &[ort::value::Outlet], name: &str, shape: Vec<i64>| {
        if list.len() == 1 && list[0].name() == name && shape_of(list[0].dtype()).as_deref() == Some(&shape) {
            return Ok(());
        }
        Err(DetectError::Shape {
            name: entry.name.clone(),
            wanted: format!("{what} {name} {shape:?}"),
            found: format!("{what} {}", describe(list)),
        })
    };
    check("input", session.inputs(), &entry.input.name, vec![1, 3, h, w])?;
    check("output", session.outputs(), &entry.output, vec![1, rows, columns])
}

fn shape_of(value: &ValueType) -> Option<Vec<i64>> {
    match value {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => Some(shape.iter().copied().collect()),
        _ => None,
    }
}

fn buffers(session: &Session, entry: &ModelEntry) -> ort::Result<(RunOptions<HasSelectedOutputs>, Tensor<f32>)> {
    let (w, h) = (entry.input.width as usize, entry.input.height as usize);
    let input = Tensor::from_array(([1_usize, 3, h, w], vec![0_f32; 3 * w * h]))?;
    let output = Tensor::<f32>::new(session.allocator(), [1_usize, entry.output_rows(), entry.output_columns()])?;
    let selector = OutputSelector::default().preallocate(entry.output.as_str(), output);
    Ok((RunOptions::new()?.with_outputs(selector), input))
}

/// Loads a model only to check it: what `gengfu check` does.
///
/// # Errors
/// As [`Detector::new`].
pub fn check_model(path: &Path, entry: &ModelEntry, runtime: &Path) -> Result<(), DetectError> {
    let config =
        ModelConfig { path: path.to_path_buf(), entry: entry.clone(), runtime: runtime.to_path_buf(), threads: 1 };
    Detector::new(&config).map(|_| ())
}
