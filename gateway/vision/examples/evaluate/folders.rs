//! The validation folders: pictures with boxes that people drew. Owns their two formats (YOLO text files for litter, COCO JSON for the
//! street) and the gateway's detector run over them; refuses to know what the figures mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gengfu_vision::detect::{Detector, Kind, ModelConfig};
use gengfu_vision::geometry::BBox;
use gengfu_vision::picture::{RgbPicture, VideoFrame};
use serde::Deserialize;

use super::score::{Judged, Labelled};

/// What went wrong, with the file's name.
pub type Failure = String;

/// The kinds of the litter folder, by class number.
pub const LITTER: [Kind; 3] = [Kind::Garbage, Kind::GarbageBin, Kind::Overflow];
/// The kinds of the street folder.
pub const STREET: [Kind; 6] = [Kind::Car, Kind::Truck, Kind::Bus, Kind::Motorcycle, Kind::Bicycle, Kind::Person];
/// Far below any working threshold: average precision needs the whole curve.
const SCORE_MIN: f32 = 0.01;

/// One labelled picture.
#[derive(Debug)]
pub struct Picture {
    path: PathBuf,
    truth: Vec<Labelled>,
}

/// The pictures in `folder` (`litter/valid`), by name.
///
/// # Errors
/// Nothing there, or a label that cannot be read, with file and line.
pub fn litter(folder: &Path) -> Result<Vec<Picture>, Failure> {
    let images = folder.join("images");
    let entries = std::fs::read_dir(&images).map_err(|e| format!("{}: {e}", images.display()))?;
    let is_jpeg = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jpg");
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_jpeg).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let labels = folder.join("labels").join(path.with_extension("txt").file_name().unwrap_or_default());
        let text = std::fs::read_to_string(&labels).map_err(|e| format!("{}: {e}", labels.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let truth = lines.map(|(n, line)| {
            yolo(line).ok_or_else(|| format!("{}:{}: expected `class cx cy w h`", labels.display(), n + 1))
        });
        Ok(Picture { truth: truth.collect::<Result<_, Failure>>()?, path })
    };
    paths.into_iter().map(read).collect()
}

fn yolo(line: &str) -> Option<Labelled> {
    let mut words = line.split_whitespace();
    let kind = *LITTER.get(words.next()?.parse::<usize>().ok()?)?;
    let numbers: Vec<f32> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [cx, cy, w, h] = numbers.try_into().ok()?;
    Some(Labelled { kind, bbox: BBox::from_centre(cx, cy, w, h).clamped(), is_crowd: false })
}

#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoBox>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
    width: f32,
    height: f32,
}

#[derive(Deserialize)]
struct CocoBox {
    image_id: u64,
    category_id: u64,
    bbox: [f32; 4],
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: u64,
    name: String,
}

/// The pictures in `folder` (`street`), as its `coco.json` lists them.
///
/// # Errors
/// The list cannot be read.
pub fn street(folder: &Path) -> Result<Vec<Picture>, Failure> {
    let list = folder.join("coco.json");
    let text = std::fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let coco: Coco = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", list.display()))?;
    let kind_of = |name: &str| STREET.into_iter().find(|kind| kind.as_str() == name);
    let kinds: BTreeMap<u64, Kind> = coco.categories.iter().filter_map(|c| Some((c.id, kind_of(&c.name)?))).collect();
    let picture = |image: CocoImage| {
        let of = coco.annotations.iter().filter(|one| one.image_id == image.id);
        let truth = of.filter_map(|one| {
            let [x, y, w, h] = one.bbox;
            let bbox = BBox { x: x / image.width, y: y / image.height, w: w / image.width, h: h / image.height };
            Some(Labelled { kind: *kinds.get(&one.category_id)?, bbox, is_crowd: one.iscrowd != 0 })
        });
        Picture { truth: truth.collect(), path: folder.join("images").join(image.file_name) }
    };
    Ok(coco.images.into_iter().map(picture).collect())
}

/// What the gateway's own detector (scaling, ONNX Runtime, decoder, suppression of doubles) finds in each picture.
///
/// # Errors
/// A model that does not load, or a picture that cannot be read.
pub fn detect(model: &ModelConfig, pictures: Vec<Picture>) -> Result<Vec<Judged>, Failure> {
    let mut detector = Detector::new(model).map_err(|e| e.to_string())?;
    let mut look = |picture: Picture| {
        let failed = |why: String| format!("{}: {why}", picture.path.display());
        let frame = read(&picture.path).map_err(failed)?;
        let found = detector.detect(&frame, SCORE_MIN).map_err(|e| failed(e.to_string()))?;
        Ok(Judged { truth: picture.truth, found })
    };
    pictures.into_iter().map(&mut look).collect()
}

fn read(path: &Path) -> Result<VideoFrame, Failure> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let picture = image::load_from_memory(&bytes).map_err(|e| e.to_string())?.to_rgb8();
    let mut rgb = RgbPicture::new(picture.width(), picture.height()).map_err(|e| e.to_string())?;
    picture.enumerate_pixels().for_each(|(x, y, pixel)| rgb.set_pixel(x, y, pixel.0));
    VideoFrame::from_rgb(&rgb, 0).map_err(|e| e.to_string())
}
