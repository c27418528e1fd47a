//! Prints AP and AP50 per class of the committed models on the validation folders, measured through the gateway's own detector with the
//! manifest's thresholds and suppression of doubles: `make evaluate`. `python -m train evaluate` measures the same in another way, and
//! foreign models too.
//!
//!     cargo run -p gengfu-vision --example evaluate -- [DATA] [MODEL…]      DATA holds litter/valid and street; default ../shared/data

#![allow(missing_docs)]

mod folders;
mod score;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use folders::{Failure, LITTER, STREET};
use gengfu_vision::detect::{Kind, ModelConfig};
use gengfu_vision::manifest::Manifest;

/// What is measured unless models are named.
const OURS: [&str; 2] = ["nanodet_litter", "nanodet_street"];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let named: Vec<String> = arguments.collect();
    let models = if named.is_empty() { OURS.map(str::to_owned).to_vec() } else { named };
    for model in models {
        if let Err(why) = evaluate(&data, &model) {
            eprintln!("evaluate: {model}: {why}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The model of that name with the library, from where the scripts put them.
fn model(name: &str) -> Result<ModelConfig, Failure> {
    let manifest = Manifest::load(&root().join("models/manifest.toml")).map_err(|faults| faults.to_string())?;
    let entry = manifest.model(name).ok_or("the manifest has no such model")?.clone();
    let place =
        |variable, fallback: &str| std::env::var_os(variable).map_or_else(|| root().join(fallback), PathBuf::from);
    let committed = root().join("models").join(&entry.file);
    let fetched = place("GENGFU_MODELS_DIR", "target/gengfu/models").join(&entry.file);
    let runtime = place("ORT_DYLIB_PATH", "target/gengfu/onnxruntime/libonnxruntime.so");
    if !runtime.is_file() {
        return Err(format!("{} is absent; run scripts/fetch-models.sh", runtime.display()));
    }
    Ok(ModelConfig { path: if committed.is_file() { committed } else { fetched }, entry, runtime, threads: 1 })
}

fn evaluate(data: &Path, name: &str) -> Result<(), Failure> {
    let model = model(name)?;
    let is_litter = model.entry.knows(Kind::Garbage);
    let (folder, kinds) = if is_litter { ("litter/valid", &LITTER[..]) } else { ("street", &STREET[..]) };
    let pictures = if is_litter { folders::litter(&data.join(folder)) } else { folders::street(&data.join(folder)) }?;
    let (count, threshold) = (pictures.len(), model.entry.score_threshold);
    let judged = folders::detect(&model, pictures)?;
    println!("{name} on {count} pictures of {folder}; precision and recall at its threshold {threshold}");
    let figures = score::figures(&judged, kinds);
    for one in &figures {
        let (precision, recall) = score::precision_recall(&judged, one.kind, threshold);
        let (ap, ap50) = one.ap_ap50.unwrap_or((f64::NAN, f64::NAN));
        println!("  {:12} AP {ap:.4}  AP50 {ap50:.4}  precision {precision:.3}  recall {recall:.3}", one.kind.as_str());
    }
    let (ap, ap50) = score::means(&figures);
    println!("  {:12} AP {ap:.4}  AP50 {ap50:.4}", "mean");
    if is_litter {
        false_alarms(data, &model)?;
    }
    Ok(())
}

/// What the litter model reports on pictures of streets, where hardly any litter is.
fn false_alarms(data: &Path, model: &ModelConfig) -> Result<(), Failure> {
    let judged = folders::detect(model, folders::street(&data.join("street"))?)?;
    for kind in LITTER {
        let told = |score: f32| {
            let all = judged.iter().flat_map(|picture| &picture.found);
            all.filter(|found| found.kind == kind && found.score >= score).count() as f64 / judged.len().max(1) as f64
        };
        let rates: Vec<String> =
            [0.3, 0.4, 0.5, 0.6].iter().map(|&score| format!("{:.3} at {score}", told(score))).collect();
        println!("  {:12} per street picture: {}", kind.as_str(), rates.join(", "));
    }
    Ok(())
}
