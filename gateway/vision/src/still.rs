//! A still: one picture as evidence. Owns the order in which it is made (find people in this very picture, make them
//! unrecognisable, burn in the masks, then draw on it, then encode) and its size; refuses to hand out anything before the
//! first two steps are done.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ExtendedColorType, ImageBuffer, Rgb};
use sha2::{Digest, Sha256};

use crate::clock::utc_text;
use crate::detect::{DetectError, Detector, Kind};
use crate::font;
use crate::geometry::{BBox, Point};
use crate::picture::{PictureError, RgbPicture, Scaler, VideoFrame};
use crate::privacy;
use crate::protocol::TrackView;
use crate::zone::{Zone, edges};

/// Largest JPEG that leaves the worker, bytes.
pub const BYTES_MAX: usize = 200 * 1024;
/// Widest still, pixels: enough to see a vehicle and its place, too little to read a plate across a street.
pub const WIDTH_MAX: u32 = 1280;
/// Encoder settings tried in turn until the size fits: (JPEG quality, share of the width).
const STEPS: [(u8, f32); 7] = [(85, 1.0), (75, 1.0), (65, 1.0), (55, 1.0), (60, 0.7), (50, 0.5), (40, 0.35)];

const HIGHLIGHT: [u8; 3] = [255, 40, 40];
const OUTLINE: [u8; 3] = [255, 200, 0];
/// A thing that is followed but in no zone, and a person.
const ELSEWHERE: [u8; 3] = [60, 220, 90];
const PERSON: [u8; 3] = [235, 235, 235];

/// One of all the things to be marked, with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    bbox: BBox,
    /// ASCII; empty for a person, who has no more to tell than where.
    text: String,
    colour: [u8; 3],
}

impl Mark {
    /// The mark of a track at a wall time: what it is, how surely, and for how long it stands.
    #[must_use]
    pub fn of(track: &TrackView, at_ms: i64) -> Self {
        let colour = match (track.kind, track.zones.is_empty()) {
            (Kind::Person, _) => PERSON,
            (_, false) => HIGHLIGHT,
            (_, true) => ELSEWHERE,
        };
        let stands = track.stationary_since_ms.map(|since| format!(" still {} s", (at_ms - since).max(0) / 1000));
        let text = format!("{} {:.2}{}", track.kind.as_str(), track.score, stands.unwrap_or_default());
        Self { bbox: track.bbox, text: if track.kind == Kind::Person { String::new() } else { text }, colour }
    }
}

/// What to draw and hide besides the people found in the picture itself.
#[derive(Debug, Clone, Default)]
pub struct Annotation<'a> {
    /// The thing the still is about.
    pub highlight: Option<BBox>,
    /// Everything to be marked and named, zones too; `None`: only the highlight is.
    pub marks: Option<&'a [Mark]>,
    /// Zones to outline.
    pub zones: &'a [Zone],
    /// Regions to blacken.
    pub masks: &'a [Vec<Point>],
    /// People known from tracking, in case the detector misses them in this picture.
    pub people: &'a [BBox],
    /// ASCII name of the camera for the text line.
    pub camera: &'a str,
    /// Wall time of the picture, ms since the Unix epoch.
    pub taken_at_ms: i64,
}

/// A finished still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Still {
    /// The JPEG, at most [`BYTES_MAX`].
    pub jpeg: Vec<u8>,
    /// SHA-256 of the JPEG, lower-case hexadecimal.
    pub sha256: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// How many people were made unrecognisable.
    pub people_blurred: usize,
}

/// Makes a still of a frame.
///
/// # Errors
/// A detector that fails (people could not be looked for, so there is no still), or a picture that cannot be scaled or encoded.
pub fn make(
    detector: &mut Detector,
    scaler: &mut Scaler,
    frame: &VideoFrame,
    annotation: &Annotation<'_>,
) -> Result<Still, DetectError> {
    let rgb = scaler.to_rgb(frame, WIDTH_MAX)?;
    finish(detector, rgb, annotation)
}

/// Makes a still of a picture that is scaled already.
///
/// # Errors
/// As [`make`].
pub fn finish(detector: &mut Detector, mut rgb: RgbPicture, annotation: &Annotation<'_>) -> Result<Still, DetectError> {
    let mut people = privacy::find_people(detector, &rgb)?;
    people.extend_from_slice(annotation.people);
    let people_blurred = privacy::blur_people(&mut rgb, &people);
    privacy::burn_masks(&mut rgb, annotation.masks);
    annotate(&mut rgb, annotation);
    let (jpeg, width, height) = encode(&rgb)?;
    let sha256 = hex::encode(Sha256::digest(&jpeg));
    Ok(Still { jpeg, sha256, width, height, people_blurred })
}

fn annotate(rgb: &mut RgbPicture, annotation: &Annotation<'_>) {
    let thick = (rgb.width / 500).clamp(1, 3);
    for zone in annotation.zones {
        for (a, b) in edges(&zone.polygon) {
            line(rgb, a, b, thick, OUTLINE);
        }
    }
    for mark in annotation.marks.unwrap_or_default() {
        outline(rgb, mark.bbox, if mark.text.is_empty() { 1 } else { thick + 1 }, mark.colour);
    }
    if let Some(bbox) = annotation.highlight {
        outline(rgb, bbox, thick + 1, HIGHLIGHT);
    }
    if let Some(marks) = annotation.marks {
        // Names last, so that no line runs through them.
        let zones = annotation.zones.iter().map(|zone| (zone.id.as_str(), lower_left(&zone.polygon), false));
        let things = marks.iter().filter(|mark| !mark.text.is_empty());
        let things = things.map(|mark| (mark.text.as_str(), Point { x: mark.bbox.x, y: mark.bbox.y }, true));
        for (text, at, above) in zones.chain(things) {
            name(rgb, text, at, above);
        }
    }
    let scale = (rgb.width / 400).clamp(1, 3);
    font::draw(rgb, 0, 0, scale, &format!("{} {}", annotation.camera, utc_text(annotation.taken_at_ms)));
}

fn outline(rgb: &mut RgbPicture, bbox: BBox, thick: u32, colour: [u8; 3]) {
    let bbox = bbox.clamped();
    let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
        .map(|(u, v)| Point { x: bbox.x + u * bbox.w, y: bbox.y + v * bbox.h });
    for (a, b) in edges(&corners) {
        line(rgb, a, b, thick, colour);
    }
}

fn lower_left(polygon: &[Point]) -> Point {
    let x = polygon.iter().map(|p| p.x).fold(1.0, f32::min);
    Point { x, y: polygon.iter().map(|p| p.y).fold(0.0, f32::max) }
}

/// A name above or below a point, moved so that it lies in the picture.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture before the cast")]
fn name(rgb: &mut RgbPicture, text: &str, at: Point, above: bool) {
    let scale = (rgb.width / 640).clamp(1, 2);
    let (width, height) = font::size(text, scale);
    let x = (at.x.clamp(0.0, 1.0) * rgb.width as f32) as u32;
    let y = (at.y.clamp(0.0, 1.0) * rgb.height as f32) as u32;
    let y = if above { y.saturating_sub(height) } else { y + 2 };
    font::draw(rgb, x.min(rgb.width.saturating_sub(width)), y.min(rgb.height.saturating_sub(height)), scale, text);
}

/// A straight line of `thick` pixels, clipped to the picture.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the picture before the cast")]
fn line(rgb: &mut RgbPicture, a: Point, b: Point, thick: u32, colour: [u8; 3]) {
    let (w, h) = ((rgb.width - 1) as f32, (rgb.height - 1) as f32);
    let steps = ((b.x - a.x).abs() * w).max((b.y - a.y).abs() * h).ceil().clamp(1.0, 40_000.0) as u32;
    for step in 0..=steps {
        let t = step as f32 / steps as f32;
        let x = ((a.x + t * (b.x - a.x)) * w).clamp(0.0, w) as u32;
        let y = ((a.y + t * (b.y - a.y)) * h).clamp(0.0, h) as u32;
        for offset in 0..thick * thick {
            rgb.set_pixel(x + offset % thick, y + offset / thick, colour);
        }
    }
}

/// Encodes with falling quality and size until the result fits.
fn encode(rgb: &RgbPicture) -> Result<(Vec<u8>, u32, u32), PictureError> {
    let too_large = PictureError::Size { width: rgb.width, height: rgb.height };
    let full: ImageBuffer<Rgb<u8>, &[u8]> =
        ImageBuffer::from_raw(rgb.width, rgb.height, rgb.pixels.as_slice()).ok_or(too_large)?;
    let mut last = None;
    for (quality, share) in STEPS {
        let mut jpeg = Vec::with_capacity(BYTES_MAX);
        let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, quality);
        let (width, height) = if share >= 1.0 {
            encoder.encode(&rgb.pixels, rgb.width, rgb.height, ExtendedColorType::Rgb8).map_err(PictureError::Jpeg)?;
            (rgb.width, rgb.height)
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a positive share of a picture's side"
            )]
            let side = |length: u32| ((length as f32 * share) as u32).max(1);
            let small = image::imageops::resize(&full, side(rgb.width), side(rgb.height), FilterType::Triangle);
            encoder
                .encode(&small, small.width(), small.height(), ExtendedColorType::Rgb8)
                .map_err(PictureError::Jpeg)?;
            small.dimensions()
        };
        let fits = jpeg.len() <= BYTES_MAX;
        last = Some((jpeg, width, height));
        if fits {
            break;
        }
    }
    // The smallest step of a picture of at most 1280 pixels' width is far below the limit; a very tall one may exceed it.
    last.filter(|(jpeg, ..)| jpeg.len() <= BYTES_MAX).ok_or(PictureError::Size { width: rgb.width, height: rgb.height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_noise_fits_the_limit() {
        let mut rgb = RgbPicture::new(1280, 960).unwrap();
        let mut state = 7_u32;
        for value in &mut rgb.pixels {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = u8::try_from(state >> 24).unwrap();
        }
        let (jpeg, width, height) = encode(&rgb).unwrap();
        assert!(jpeg.len() <= BYTES_MAX && width < 1280 && height < 960, "{} bytes, {width}x{height}", jpeg.len());
        assert_eq!(image::load_from_memory(&jpeg).unwrap().to_rgb8().dimensions(), (width, height));
    }

    #[test]
    fn a_test_picture_marks_everything_and_names_all_but_people() {
        let track = |kind, zones: &[&str]| TrackView {
            id: 1,
            kind,
            score: 0.625,
            bbox: BBox::from([0.5, 0.5, 0.2, 0.2]),
            zones: zones.iter().map(|&zone| zone.to_owned()).collect(),
            first_seen_ms: 0,
            stationary_since_ms: Some(3000),
            last_seen_ms: 15_500,
            coasting: false,
        };
        let bag = Mark::of(&track(Kind::Garbage, &["bins"]), 15_500);
        assert_eq!((bag.text.as_str(), bag.colour), ("garbage 0.62 still 12 s", HIGHLIGHT));
        assert_eq!(Mark::of(&track(Kind::Car, &[]), 15_500).colour, ELSEWHERE);
        let person = Mark::of(&track(Kind::Person, &["bins"]), 15_500);
        assert_eq!((person.text.as_str(), person.colour), ("", PERSON));
        let mut rgb = RgbPicture::new(400, 300).unwrap();
        let zone = Zone { id: "bins".into(), polygon: [[0.1, 0.5], [0.9, 0.5], [0.9, 0.99]].map(Point::from).to_vec() };
        let marks = [bag];
        let annotation = Annotation {
            marks: Some(&marks),
            zones: std::slice::from_ref(&zone),
            camera: "cam-1",
            ..Annotation::default()
        };
        annotate(&mut rgb, &annotation);
        assert_eq!(rgb.pixel(200, 180), HIGHLIGHT, "the left edge of the box");
        let white = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            y.flat_map(|y| x.clone().map(move |x| (x, y))).filter(|&(x, y)| rgb.pixel(x, y) == [255; 3]).count()
        };
        assert!(white(200..340, 140..150) > 50, "its name above it");
        assert!(white(40..70, 290..300) > 20, "the zone's name, inside the picture");
    }

    #[test]
    fn zones_and_the_highlight_are_drawn() {
        let mut rgb = RgbPicture::new(400, 300).unwrap();
        let zone = Zone { id: "z".into(), polygon: [[0.1, 0.5], [0.9, 0.5], [0.9, 0.9]].map(Point::from).to_vec() };
        let annotation = Annotation {
            highlight: Some(BBox::from([0.5, 0.6, 0.3, 0.2])),
            zones: std::slice::from_ref(&zone),
            camera: "cam-1",
            ..Annotation::default()
        };
        annotate(&mut rgb, &annotation);
        assert_eq!(rgb.pixel(200, 149), OUTLINE);
        assert_eq!(rgb.pixel(260, 179), HIGHLIGHT);
        assert!(rgb.pixels.chunks(3).any(|p| p == [255; 3]), "text");
    }
}
