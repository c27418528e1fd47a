//! The list of models: `models/manifest.toml`. Owns its format and its checks, and reports *all* faults at once with
//! key path and remedy; refuses unknown keys, and refuses a model file whose SHA-256 is not the one written down.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use crate::detect::Kind;

/// How a model's numbers become boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decoder {
    /// YOLOX: BGR 0..255, letterbox to the top left with 114, centre and log size per grid cell, objectness × class.
    /// Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430.
    #[serde(rename = "yolox")]
    Yolox,
    /// NanoDet-Plus: BGR normalised by the ImageNet mean and deviation, resized to the input without letterbox, four
    /// distances as distributions over eight bins. Source: RangiLyu, NanoDet-Plus (2021); Li et al., arXiv 2006.04388.
    #[serde(rename = "nanodet-plus")]
    NanodetPlus,
}

impl Decoder {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "yolox" => Some(Self::Yolox),
            "nanodet-plus" => Some(Self::NanodetPlus),
            _ => None,
        }
    }

    /// The grid strides in pixels, in the order of the output rows.
    #[must_use]
    pub fn strides(self) -> &'static [usize] {
        match self {
            Self::Yolox => &[8, 16, 32],
            Self::NanodetPlus => &[8, 16, 32, 64],
        }
    }
}

/// Among which boxes of one model doubles are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NmsScope {
    /// Within each class: an overflowing bin may be told as a bin as well. What average precision per class is measured with.
    #[serde(rename = "per-class")]
    PerClass,
    /// Within each [`crate::detect::Group`]: a van that is "car" and "truck" at once is told once.
    #[serde(rename = "across-classes")]
    AcrossClasses,
}

impl NmsScope {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "per-class" => Some(Self::PerClass),
            "across-classes" => Some(Self::AcrossClasses),
            _ => None,
        }
    }
}

/// The input tensor: always NCHW, three channels in the order blue, green, red, 32-bit float.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Name of the tensor in the model.
    pub name: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Which of the model's class numbers mean which kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Our word.
    pub kind: Kind,
    /// The model's class number.
    pub class: usize,
}

/// One model, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// Name used in configurations.
    pub name: String,
    /// File name inside the models folder.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// SPDX licence expression of the weights.
    pub licence: String,
    /// Where the weights come from, for the model card.
    pub source: String,
    /// How the numbers become boxes.
    pub decoder: Decoder,
    /// The input tensor.
    pub input: Input,
    /// Name of the output tensor.
    pub output: String,
    /// Number of classes of the model.
    pub classes: usize,
    /// Wanted classes; others are ignored.
    pub labels: Vec<Label>,
    /// Score from which a detection may start a track, 0..1.
    pub score_threshold: f32,
    /// Score from which a detection may continue a track that exists, 0..1, not above `score_threshold`.
    pub keep_threshold: f32,
    /// Score from which a person is blurred in a still, 0..1, lower than both: a needless blur costs little.
    pub privacy_threshold: f32,
    /// Among which boxes doubles are looked for. However many opinions a model has on a place, the tracker is given one
    /// ([`crate::pipeline`]).
    pub nms: NmsScope,
    /// Overlap (IoU) above which two boxes are the same thing.
    pub nms_iou: f32,
}

impl ModelEntry {
    /// True when the model tells things of this kind.
    #[must_use]
    pub fn knows(&self, kind: Kind) -> bool {
        self.labels.iter().any(|label| label.kind == kind)
    }

    /// Number of rows of the output: one per grid cell over all strides.
    #[must_use]
    pub fn output_rows(&self) -> usize {
        let cells = |side: u32, stride: usize| (side as usize).div_ceil(stride);
        let strides = self.decoder.strides().iter();
        strides.map(|&s| cells(self.input.width, s) * cells(self.input.height, s)).sum()
    }

    /// Number of numbers per output row.
    #[must_use]
    pub fn output_columns(&self) -> usize {
        match self.decoder {
            Decoder::Yolox => 5 + self.classes,
            Decoder::NanodetPlus => self.classes + 32,
        }
    }

    /// Reads the model file and compares its hash with the manifest.
    ///
    /// # Errors
    /// The file is missing, unreadable, or not the one written down.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, ModelFileError> {
        let bytes = std::fs::read(path)
            .map_err(|cause| ModelFileError::Unreadable { path: path.display().to_string(), cause })?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found == self.sha256 {
            Ok(bytes)
        } else {
            Err(ModelFileError::WrongHash { path: path.display().to_string(), wanted: self.sha256.clone(), found })
        }
    }
}

/// Why a model file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// No such file, or no right to read it.
    #[error("model file {path} cannot be read: {cause}; run scripts/fetch-models.sh")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not the one in the manifest.
    #[error(
        "model file {path} has SHA-256 {found}, the manifest says {wanted}; fetch it again, or correct the manifest if the new file is meant"
    )]
    WrongHash {
        /// The file.
        path: String,
        /// The manifest's hash.
        wanted: String,
        /// The file's hash.
        found: String,
    },
}

/// The ONNX Runtime library the project is tested with; the fetch script checks it, a running gateway only prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEntry {
    /// Version, like `1.31.1`.
    pub version: String,
    /// SHA-256 of the x86_64 library.
    pub sha256_x86_64: String,
}

/// A checked manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The library.
    pub runtime: RuntimeEntry,
    /// The models, at least one, names unique.
    pub models: Vec<ModelEntry>,
}

/// One fault of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, like `model[0].input.width`.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// Every fault found in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fault(s) in the model manifest", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {}: {}", fault.key, fault.text))
    }
}

impl Manifest {
    /// Reads and checks a manifest file.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            Faults(vec![Fault {
                key: path.display().to_string(),
                text: format!("cannot be read: {cause}; give the path of models/manifest.toml"),
            }])
        })?;
        Self::parse(&text)
    }

    /// Checks the text of a manifest.
    ///
    /// # Errors
    /// All faults at once.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        let table: Table = text.parse().map_err(|cause: toml::de::Error| {
            Faults(vec![Fault {
                key: "(file)".into(),
                text: format!("is not TOML: {}; correct it there", cause.to_string().trim().replace('\n', " ")),
            }])
        })?;
        let mut faults = Vec::new();
        let mut root = Section::new(String::new(), Some(&table), &mut faults);
        let runtime_table = root.table("runtime");
        let models = root.tables("model");
        root.finish();
        let runtime = read_runtime(runtime_table, &mut faults);
        let models: Vec<_> =
            models.into_iter().enumerate().map(|(i, t)| read_model(format!("model[{i}]"), t, &mut faults)).collect();
        for (i, model) in models.iter().enumerate() {
            if models.iter().take(i).any(|earlier| earlier.name == model.name) && !model.name.is_empty() {
                faults.push(Fault {
                    key: format!("model[{i}].name"),
                    text: format!("\"{}\" is taken; give every model its own name", model.name),
                });
            }
        }
        // One model of a camera must know people; another beside it, for litter, need not.
        if !models.is_empty() && !models.iter().any(|model| model.knows(Kind::Person)) {
            let text = "is missing; without it people could not be blurred: at least one model must know them";
            faults.push(Fault { key: "model[0].labels.person".to_owned(), text: text.to_owned() });
        }
        if faults.is_empty() { Ok(Self { runtime, models }) } else { Err(Faults(faults)) }
    }

    /// The model of that name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&ModelEntry> {
        self.models.iter().find(|m| m.name == name)
    }
}

fn read_runtime(table: Option<&Table>, faults: &mut Vec<Fault>) -> RuntimeEntry {
    let mut section = Section::new("runtime".into(), table, faults);
    let runtime = RuntimeEntry { version: section.text("version"), sha256_x86_64: section.sha256("sha256_x86_64") };
    section.finish();
    runtime
}

fn read_model(path: String, table: &Table, faults: &mut Vec<Fault>) -> ModelEntry {
    let mut section = Section::new(path.clone(), Some(table), faults);
    let (name, file, sha256) = (section.text("name"), section.text("file"), section.sha256("sha256"));
    if file.contains(['/', '\\']) || file.starts_with('.') {
        section.fault("file", "must be a plain file name inside the models folder");
    }
    let (licence, source, output) = (section.text("licence"), section.text("source"), section.text("output"));
    let decoder_text = section.text("decoder");
    let decoder = Decoder::from_text(&decoder_text).unwrap_or_else(|| {
        if !decoder_text.is_empty() {
            section.fault("decoder", "is unknown; use \"yolox\" or \"nanodet-plus\"");
        }
        Decoder::Yolox
    });
    let classes = section.whole("classes", 1, 10_000);
    let score_threshold = section.share("score_threshold");
    let keep_threshold = section.share("keep_threshold");
    let privacy_threshold = section.share("privacy_threshold");
    let nms_text = section.text("nms");
    let nms = NmsScope::from_text(&nms_text).unwrap_or_else(|| {
        if !nms_text.is_empty() {
            section.fault("nms", "is unknown; use \"per-class\" or \"across-classes\"");
        }
        NmsScope::AcrossClasses
    });
    let nms_iou = section.share("nms_iou");
    if keep_threshold > score_threshold {
        section.fault("keep_threshold", "must not be above score_threshold; lower it");
    }
    if privacy_threshold > keep_threshold {
        section.fault(
            "privacy_threshold",
            "must not be above keep_threshold: people are blurred on less evidence than they are counted; lower it",
        );
    }
    let (input_table, labels_table) = (section.table("input"), section.table("labels"));
    section.finish();
    let input = read_input(format!("{path}.input"), input_table, faults);
    let has_labels = labels_table.is_some();
    let labels = read_labels(format!("{path}.labels"), labels_table, classes, faults);
    if has_labels && labels.is_empty() {
        let names = Kind::ALL.map(Kind::as_str).join(", ");
        faults.push(Fault {
            key: format!("{path}.labels"),
            text: format!("names no class; give at least one of {names}"),
        });
    }
    ModelEntry {
        name,
        file,
        sha256,
        licence,
        source,
        decoder,
        input,
        output,
        classes,
        labels,
        score_threshold,
        keep_threshold,
        privacy_threshold,
        nms,
        nms_iou,
    }
}

fn read_input(path: String, table: Option<&Table>, faults: &mut Vec<Fault>) -> Input {
    let mut section = Section::new(path, table, faults);
    let (name, layout) = (section.text("name"), section.text("layout"));
    if !layout.is_empty() && layout != "nchw-bgr-f32" {
        section.fault("layout", "is not supported; only \"nchw-bgr-f32\" is");
    }
    let mut side = |key| u32::try_from(section.whole(key, 32, 4096)).unwrap_or(32);
    let (width, height) = (side("width"), side("height"));
    if width % 32 != 0 || height % 32 != 0 {
        section.fault("width", "and height must be multiples of 32, the coarsest common grid");
    }
    section.finish();
    Input { name, width, height }
}

fn read_labels(path: String, table: Option<&Table>, classes: usize, faults: &mut Vec<Fault>) -> Vec<Label> {
    let mut section = Section::new(path, table, faults);
    let mut labels: Vec<Label> = Vec::new();
    for kind in Kind::ALL {
        for class in section.optional_wholes(kind.as_str()) {
            if class >= classes {
                section.fault(kind.as_str(), "names a class number the model does not have; numbers start at 0");
            } else if labels.iter().any(|l| l.class == class) {
                section.fault(kind.as_str(), "names a class number that another kind has; list each once");
            } else {
                labels.push(Label { kind, class });
            }
        }
    }
    section.finish();
    labels
}

/// Walks one table, taking keys and noting faults; what nobody took at the end is an unknown key.
struct Section<'t, 'f> {
    path: String,
    table: Option<&'t Table>,
    taken: Vec<String>,
    faults: &'f mut Vec<Fault>,
}

impl<'t, 'f> Section<'t, 'f> {
    fn new(path: String, table: Option<&'t Table>, faults: &'f mut Vec<Fault>) -> Self {
        Self { path, table, taken: Vec::new(), faults }
    }

    fn fault(&mut self, key: &str, text: &str) {
        let key = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.faults.push(Fault { key, text: text.to_owned() });
    }

    fn take(&mut self, key: &str) -> Option<&'t Value> {
        self.taken.push(key.to_owned());
        self.table?.get(key)
    }

    fn required(&mut self, key: &str) -> Option<&'t Value> {
        let value = self.take(key);
        // A table that is missing as a whole was reported by whoever asked for it.
        if value.is_none() && self.table.is_some() {
            self.fault(key, "is missing; add it (models/README.md explains every key)");
        }
        value
    }

    fn text(&mut self, key: &str) -> String {
        match self.required(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
            Some(_) => {
                self.fault(key, "must be a text that is not empty, in quotes");
                String::new()
            }
            None => String::new(),
        }
    }

    fn sha256(&mut self, key: &str) -> String {
        let text = self.text(key);
        let valid = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !text.is_empty() && !valid {
            self.fault(key, "must be 64 lower-case hexadecimal digits, as sha256sum prints them");
        }
        text
    }

    fn whole(&mut self, key: &str, min: usize, max: usize) -> usize {
        let Some(value) = self.required(key) else { return min };
        match value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| (min..=max).contains(n)) {
            Some(n) => n,
            None => {
                self.fault(key, &format!("must be a whole number from {min} to {max}"));
                min
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a threshold needs no more than single precision")]
    fn share(&mut self, key: &str) -> f32 {
        let Some(value) = self.required(key) else { return 0.0 };
        match value.as_float().filter(|x| *x > 0.0 && *x < 1.0) {
            Some(x) => x as f32,
            None => {
                self.fault(key, "must be a number between 0 and 1, like 0.35");
                0.0
            }
        }
    }

    fn optional_wholes(&mut self, key: &str) -> Vec<usize> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let numbers: Option<Vec<usize>> = value
            .as_array()
            .and_then(|list| list.iter().map(|v| v.as_integer().and_then(|n| usize::try_from(n).ok())).collect());
        numbers.unwrap_or_else(|| {
            self.fault(key, "must be a list of class numbers, like [2]");
            Vec::new()
        })
    }

    fn table(&mut self, key: &str) -> Option<&'t Table> {
        let value = self.required(key)?;
        if value.as_table().is_none() {
            self.fault(key, "must be a table");
        }
        value.as_table()
    }

    fn tables(&mut self, key: &str) -> Vec<&'t Table> {
        let tables: Option<Vec<&Table>> = self
            .required(key)
            .map(|v| v.as_array().map(|l| l.iter().filter_map(Value::as_table).collect()).unwrap_or_default());
        if tables.as_ref().is_some_and(Vec::is_empty) {
            self.fault(key, "must be at least one [[model]] table");
        }
        tables.unwrap_or_default()
    }

    fn finish(mut self) {
        let unknown: Vec<String> =
            self.table.into_iter().flat_map(Table::keys).filter(|k| !self.taken.contains(k)).cloned().collect();
        for key in unknown {
            let known = self.taken.join(", ");
            self.fault(&key, &format!("is not a known key; known here: {known}"));
        }
    }
}

#[cfg(test)]
mod tests;
