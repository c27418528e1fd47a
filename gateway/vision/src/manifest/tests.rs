//! Goal: every fault of a manifest is named by its key path, all of them at once. Method: break the committed one.

use super::*;

const WHOLE: &str = include_str!("../../../../models/manifest.toml");
/// The committed manifest up to its first model, so that a fault put into it is one fault however many models follow.
const COMMITTED: &str = first_model(WHOLE);

const fn first_model(text: &str) -> &str {
    let (bytes, mut at, mut seen) = (text.as_bytes(), 0, 0);
    while at + 1 < bytes.len() {
        if bytes[at] == b'[' && bytes[at + 1] == b'[' {
            seen += 1;
            if seen == 2 {
                return text.split_at(at).0;
            }
        }
        at += 1;
    }
    text
}

fn faults_of(text: &str) -> Vec<String> {
    match Manifest::parse(text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.into_iter().map(|f| format!("{}: {}", f.key, f.text)).collect(),
    }
}

#[test]
fn the_committed_manifest_is_valid_and_its_shapes_follow() {
    let manifest = Manifest::parse(WHOLE).unwrap();
    let yolox = manifest.model("yolox_nano").unwrap();
    assert_eq!((yolox.output_rows(), yolox.output_columns()), (3549, 85));
    let street = manifest.model("nanodet_street").unwrap();
    assert_eq!((street.output_rows(), street.output_columns()), (3598, 38));
    let nanodet = ModelEntry { decoder: Decoder::NanodetPlus, ..yolox.clone() };
    assert_eq!((nanodet.output_rows(), nanodet.output_columns()), (3598, 112));
    let wide = Input { width: 640, height: 384, ..yolox.input.clone() };
    assert_eq!(ModelEntry { input: wide, ..nanodet }.output_rows(), 5100);
}

#[test]
fn committed_model_files_are_the_ones_the_manifest_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let manifest = Manifest::parse(WHOLE).unwrap();
    let own: Vec<_> = manifest.models.iter().filter(|model| model.name.starts_with("nanodet_")).collect();
    assert!(!own.is_empty());
    for entry in own {
        entry.read(&folder.join(&entry.file)).unwrap();
    }
}

#[test]
fn an_entry_survives_the_way_to_the_worker() {
    let entry = Manifest::parse(COMMITTED).unwrap().models.remove(0);
    let json = serde_json::to_string(&entry).unwrap();
    assert_eq!(serde_json::from_str::<ModelEntry>(&json).unwrap(), entry);
}

#[test]
fn all_faults_are_listed_with_key_path_and_remedy() {
    let broken = COMMITTED
        .replace("decoder = \"yolox\"", "decoder = \"magic\"\ncolour = \"blue\"")
        .replace("width = 416", "width = 417")
        .replace("nms_iou = 0.45", "nms_iou = 45")
        .replace("nms = \"across-classes\"", "nms = \"soft\"")
        .replace("person = [0]", "person = [99]")
        .replace("sha256 = \"", "sha256 = \"X");
    let faults = faults_of(&broken);
    for wanted in [
        "model[0].decoder: is unknown; use \"yolox\"",
        "model[0].colour: is not a known key",
        "model[0].input.width: and height must be multiples",
        "model[0].nms: is unknown; use \"per-class\" or \"across-classes\"",
        "model[0].nms_iou: must be a number between 0 and 1",
        "model[0].labels.person: names a class number the model does not have",
        "model[0].labels.person: is missing",
        "model[0].sha256: must be 64",
    ] {
        assert!(faults.iter().any(|f| f.starts_with(wanted)), "no fault {wanted:?} in {faults:#?}");
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
}

#[test]
fn a_missing_table_is_one_fault_not_five() {
    assert_eq!(faults_of("").len(), 2);
    let without_labels = COMMITTED.split("[model.labels]").next().unwrap().to_owned();
    let faults = faults_of(&without_labels);
    assert!(faults.iter().any(|f| f.starts_with("model[0].labels: is missing")), "{faults:#?}");
}

#[test]
fn not_toml_is_an_error_with_its_place() {
    let faults = faults_of("[[model\nname = 3");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].contains("line 1"), "{faults:?}");
}

#[test]
fn a_file_with_another_hash_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, b"not the model").unwrap();
    let entry = Manifest::parse(COMMITTED).unwrap().models.remove(0);
    let error = entry.read(&path).unwrap_err();
    assert!(matches!(error, ModelFileError::WrongHash { .. }), "{error}");
    let error = entry.read(&folder.path().join("absent.onnx")).unwrap_err();
    assert!(error.to_string().contains("fetch-models.sh"), "{error}");
}

/// A litter model beside the committed one.
const LITTER: &str = r#"
[[model]]
name = "litter"
file = "litter.onnx"
sha256 = "9d77f7d41c8cdaa0c309cb12e218866e44a7a0366d50bce4db06b19b30771bbb"
licence = "Apache-2.0"
source = "a test"
decoder = "nanodet-plus"
output = "output"
classes = 3
score_threshold = 0.40
keep_threshold = 0.20
privacy_threshold = 0.10
nms = "per-class"
nms_iou = 0.50
[model.input]
name = "data"
layout = "nchw-bgr-f32"
width = 416
height = 416
[model.labels]
garbage = [0]
garbage_bin = [1]
overflow = [2]
"#;

#[test]
fn a_model_for_litter_need_not_know_people_when_another_does_and_one_model_may_know_all() {
    let manifest = Manifest::parse(&format!("{COMMITTED}{LITTER}")).unwrap();
    let litter = manifest.model("litter").unwrap();
    assert!(litter.knows(Kind::GarbageBin) && !litter.knows(Kind::Person));
    assert_eq!((litter.nms, manifest.models[0].nms), (NmsScope::PerClass, NmsScope::AcrossClasses));
    assert_eq!((litter.output_rows(), litter.output_columns()), (3598, 35));
    let head = COMMITTED.split("[[model]]").next().unwrap();
    let faults = faults_of(&format!("{head}{LITTER}"));
    assert!(faults.iter().any(|f| f.contains("at least one model must know them")), "{faults:#?}");
    let nine = LITTER.replace("classes = 3", "classes = 9").replace("garbage = [0]", "person = [3]\ngarbage = [0]");
    assert!(Manifest::parse(&format!("{head}{nine}")).unwrap().models[0].knows(Kind::Overflow));
    let none = LITTER.split("garbage = [0]").next().unwrap().to_owned();
    let faults = faults_of(&format!("{COMMITTED}{none}"));
    assert!(faults.iter().any(|f| f.starts_with("model[1].labels: names no class")), "{faults:#?}");
}
