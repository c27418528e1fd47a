//! From a picture to boxes: pre-processing, one call to ONNX Runtime, decoding, suppression of doubles. Owns the session
//! and its buffers, which are reused from call to call; refuses a model that is not the one the manifest describes.

mod decoder;
mod nms;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ffmpeg_next::format::Pixel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Tensor, TensorElementType, ValueType};
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::manifest::{Decoder, ModelEntry, ModelFileError};
use crate::picture::{PictureError, Scaler, VideoFrame};
use crate::runtime::{self, RuntimeError};
pub(crate) use nms::nested;
pub use nms::suppress;

/// What a detected thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
}

impl Kind {
    /// Every kind, in the order of [`Kind::index`].
    pub const ALL: [Self; 6] = [Self::Car, Self::Truck, Self::Bus, Self::Motorcycle, Self::Bicycle, Self::Person];

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
        }
    }

    /// The group a kind belongs to.
    #[must_use]
    pub fn group(self) -> Group {
        match self {
            Self::Car | Self::Truck | Self::Bus => Group::Vehicle,
            Self::Motorcycle | Self::Bicycle => Group::TwoWheeler,
            Self::Person => Group::Person,
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

/// What a scaled picture looks like as a whole; made on the way to the detector because the pixels pass by there anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Mean of all colour values, 0..255.
    pub mean: u8,
    /// The brightest colour value among all but the brightest half per cent.
    pub bright: u8,
    /// Equal for equal pictures, and practically only for those (FNV-1a, 64 bits).
    pub fingerprint: u64,
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

    /// Things in the picture with at least `score_min`, doubles suppressed, highest score first.
    ///
    /// # Errors
    /// A picture that cannot be scaled, or a failure inside ONNX Runtime.
    pub fn detect(&mut self, frame: &VideoFrame, score_min: f32) -> Result<Vec<Detection>, DetectError> {
        let begun = Instant::now();
        let region = self.prepare(frame)?;
        let prepared = Instant::now();
        let candidates = &mut self.candidates;
        candidates.clear();
        let outputs = self
            .session
            .run_with_options(ort::inputs![&self.input], &self.options)
            .map_err(|e| DetectError::Run { name: self.entry.name.clone(), cause: e.to_string() })?;
        let ran = Instant::now();
        let (_, values) = outputs[0]
            .try_extract_tensor::<f32>()
            .map_err(|e| DetectError::Run { name: self.entry.name.clone(), cause: e.to_string() })?;
        decoder::decode(&self.entry, values, score_min, region, candidates);
        suppress(candidates, self.entry.nms_iou);
        let micros = |from: Instant, to: Instant| u64::try_from((to - from).as_micros()).unwrap_or(u64::MAX);
        self.timing = Timing {
            prepare_us: micros(begun, prepared),
            run_us: micros(prepared, ran),
            decode_us: micros(ran, Instant::now()),
        };
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

/// Grey that YOLOX was trained with around letterboxed pictures.
const PADDING: f32 = 114.0;

/// Largest size of the picture's shape that fits the input.
fn letterbox(width: u32, height: u32, input_w: u32, input_h: u32) -> (u32, u32) {
    let scale = (f64::from(input_w) / f64::from(width)).min(f64::from(input_h) / f64::from(height));
    let side = |length: u32, max: u32| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounded, positive and bounded by max"
        )]
        let scaled = (f64::from(length) * scale).round() as u32;
        scaled.clamp(1, max)
    };
    (side(width, input_w), side(height, input_h))
}

/// Spreads packed BGR rows over three planes of floats, as the decoder's model wants them.
fn to_planes<'r>(rows: impl Iterator<Item = &'r [u8]>, row_length: usize, planes: [&mut [f32]; 3], decoder: Decoder) {
    // Per channel: value × scale + offset.
    let [b, g, r] = match decoder {
        Decoder::Yolox => [(1.0, 0.0); 3],
        // (x − mean) / deviation of ImageNet in BGR order, as NanoDet's training configuration has them.
        Decoder::NanodetPlus => [(103.53, 57.375), (116.28, 57.12), (123.675, 58.395)]
            .map(|(mean, dev): (f32, f32)| (1.0 / dev, -mean / dev)),
    };
    let [blue, green, red] = planes;
    let lines =
        blue.chunks_exact_mut(row_length).zip(green.chunks_exact_mut(row_length)).zip(red.chunks_exact_mut(row_length));
    for (row, ((blue, green), red)) in rows.zip(lines) {
        for (pixel, ((to_b, to_g), to_r)) in
            row.chunks_exact(3).zip(blue.iter_mut().zip(green.iter_mut()).zip(red.iter_mut()))
        {
            *to_b = f32::from(pixel[0]) * b.0 + b.1;
            *to_g = f32::from(pixel[1]) * g.0 + g.1;
            *to_r = f32::from(pixel[2]) * r.0 + r.1;
        }
    }
}

fn look_of<'r>(rows: impl Iterator<Item = &'r [u8]>) -> Look {
    let mut histogram = [0_u32; 256];
    let mut fingerprint = 0xcbf2_9ce4_8422_2325_u64;
    for row in rows {
        // Eight bytes at a time for the fingerprint; every 7th value is plenty for brightness.
        for word in row.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            fingerprint = (fingerprint ^ u64::from_le_bytes(bytes)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        for &value in row.iter().step_by(7) {
            histogram[usize::from(value)] += 1;
        }
    }
    let count: u64 = histogram.iter().map(|&n| u64::from(n)).sum::<u64>().max(1);
    let sum: u64 = histogram.iter().zip(0_u64..).map(|(&n, value)| u64::from(n) * value).sum();
    let mut above = 0;
    let bright = (0..=255_u8).rev().find(|&v| {
        above += u64::from(histogram[usize::from(v)]);
        above * 200 > count
    });
    Look { mean: u8::try_from(sum / count).unwrap_or(u8::MAX), bright: bright.unwrap_or(0), fingerprint }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letterbox_keeps_the_shape() {
        assert_eq!(letterbox(768, 576, 416, 416), (416, 312));
        assert_eq!(letterbox(1920, 1080, 416, 416), (416, 234));
        assert_eq!(letterbox(100, 1000, 416, 416), (42, 416));
        assert_eq!(letterbox(16_000, 1, 416, 416), (416, 1));
    }

    #[test]
    fn looks_tell_dark_from_light_and_equal_from_different() {
        let dark = vec![[3_u8; 300]; 40];
        let mut other = dark.clone();
        other[7][11] = 4;
        let look = |rows: &[[u8; 300]]| look_of(rows.iter().map(<[u8; 300]>::as_slice));
        assert_eq!((look(&dark).mean, look(&dark).bright), (3, 3));
        assert_eq!(look(&dark).fingerprint, look(&dark.clone()).fingerprint);
        assert_ne!(look(&dark).fingerprint, look(&other).fingerprint);
        // A lamp that fills two per cent of a night picture is light enough to see by.
        let mut lamp = vec![[3_u8; 300]; 100];
        lamp[0] = [250; 300];
        lamp[1] = [250; 300];
        assert_eq!(look(&lamp).bright, 250);
    }

    #[test]
    fn planes_are_blue_green_red_and_normalised_for_nanodet() {
        let row = [10_u8, 20, 30, 40, 50, 60];
        let plain = |decoder| {
            let (mut b, mut g, mut r) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            to_planes(std::iter::once(row.as_slice()), 2, [&mut b, &mut g, &mut r], decoder);
            [b, g, r]
        };
        assert_eq!(plain(Decoder::Yolox), [[10.0, 40.0], [20.0, 50.0], [30.0, 60.0]]);
        let nanodet = plain(Decoder::NanodetPlus);
        assert!((nanodet[0][0] - (10.0 - 103.53) / 57.375).abs() < 1e-5);
        assert!((nanodet[2][1] - (60.0 - 123.675) / 58.395).abs() < 1e-5);
    }
}
