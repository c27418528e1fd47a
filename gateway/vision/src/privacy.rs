//! What must not be recognisable in a picture that leaves memory: people, and the regions an installer masked. Owns the
//! making-unrecognisable; refuses to be switched off: [`crate::still`] has no path around it.

use crate::detect::{DetectError, Detection, Detector, Kind};
use crate::geometry::{BBox, Point};
use crate::picture::RgbPicture;
use crate::zone;

/// A person's box is grown by this share per side before it is blurred: detectors cut off feet, hands and hair.
const MARGIN: f32 = 0.15;
/// A blurred person is at most this many blocks wide or high: far below what recognising a face or a gait needs.
const BLOCKS_MAX: u32 = 5;
/// Overlap of neighbouring tiles, as a share of a tile.
const TILE_OVERLAP: f32 = 0.2;
/// At most this many tiles in each direction, so that a still stays within its time.
const TILES_MAX: u32 = 3;

/// People in the picture, found with the low privacy threshold: in the whole picture, and again in overlapping tiles when the
/// picture is larger than the model's input, because a person too small to be counted can still be recognised.
///
/// # Errors
/// As [`Detector::detect`]: without a working detector there is no still.
pub fn find_people(detector: &mut Detector, rgb: &RgbPicture) -> Result<Vec<BBox>, DetectError> {
    let score_min = detector.entry().privacy_threshold;
    let (input_w, input_h) = (detector.entry().input.width, detector.entry().input.height);
    let mut people = Vec::new();
    for (x, y, w, h) in tiles(rgb.width, rgb.height, input_w, input_h) {
        let found = detector.detect(&rgb.part(x, y, w, h)?, score_min)?;
        let (sx, sy) = (rgb.width as f32, rgb.height as f32);
        people.extend(found.iter().filter(|d| d.kind == Kind::Person).map(|d: &Detection| BBox {
            x: (x as f32 + d.bbox.x * w as f32) / sx,
            y: (y as f32 + d.bbox.y * h as f32) / sy,
            w: d.bbox.w * w as f32 / sx,
            h: d.bbox.h * h as f32 / sy,
        }));
    }
    Ok(people)
}

/// The whole picture and, if it is clearly larger than the input, its tiles: (x, y, width, height).
fn tiles(width: u32, height: u32, input_w: u32, input_h: u32) -> Vec<(u32, u32, u32, u32)> {
    let mut all = vec![(0, 0, width, height)];
    let along = |length: u32, input: u32| (length.div_ceil(input)).clamp(1, TILES_MAX);
    let (columns, lines) = (along(width, input_w), along(height, input_h));
    if columns * lines == 1 {
        return all;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive share of a picture's side")]
    let side = |length: u32, count: u32| {
        if count == 1 {
            length
        } else {
            ((length as f32 / (count as f32 - (count - 1) as f32 * TILE_OVERLAP)).ceil() as u32).min(length)
        }
    };
    let (w, h) = (side(width, columns), side(height, lines));
    for line in 0..lines {
        for column in 0..columns {
            let x = (width - w) * column / (columns - 1).max(1);
            let y = (height - h) * line / (lines - 1).max(1);
            all.push((x, y, w, h));
        }
    }
    all
}

/// Makes the people unrecognisable in place. Returns how many boxes were blurred; overlapping ones count as one.
pub fn blur_people(rgb: &mut RgbPicture, people: &[BBox]) -> usize {
    let mut distinct: Vec<BBox> = Vec::new();
    for person in people {
        pixelate(rgb, person.grown(MARGIN).clamped());
        if !distinct.iter().any(|d| d.iou(person) > 0.4 || person.share_inside(d) > 0.8 || d.share_inside(person) > 0.8)
        {
            distinct.push(*person);
        }
    }
    distinct.len()
}

/// Replaces the box by a few blocks of mean colour: unlike a blur this cannot be computed back.
fn pixelate(rgb: &mut RgbPicture, bbox: BBox) {
    let (x0, x1) = span(bbox.x, bbox.w, rgb.width);
    let (y0, y1) = span(bbox.y, bbox.h, rgb.height);
    if x0 >= x1 || y0 >= y1 {
        return;
    }
    let block = ((x1 - x0).max(y1 - y0)).div_ceil(BLOCKS_MAX).max(4);
    for by in (y0..y1).step_by(block as usize) {
        for bx in (x0..x1).step_by(block as usize) {
            flatten(rgb, bx, by, (bx + block).min(x1), (by + block).min(y1));
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "coordinates are clamped to 0..1 before")]
fn span(from: f32, length: f32, side: u32) -> (u32, u32) {
    let begin = (from * side as f32).floor().max(0.0) as u32;
    let end = ((from + length) * side as f32).ceil().max(0.0) as u32;
    (begin.min(side), end.min(side))
}

fn flatten(rgb: &mut RgbPicture, x0: u32, y0: u32, x1: u32, y1: u32) {
    let mut sum = [0_u64; 3];
    for y in y0..y1 {
        for x in x0..x1 {
            for (total, value) in sum.iter_mut().zip(rgb.pixel(x, y)) {
                *total += u64::from(value);
            }
        }
    }
    let count = u64::from((x1 - x0) * (y1 - y0)).max(1);
    let mean = sum.map(|total| u8::try_from(total / count).unwrap_or(u8::MAX));
    for y in y0..y1 {
        for x in x0..x1 {
            rgb.set_pixel(x, y, mean);
        }
    }
}

/// Blackens the masked regions in place.
pub fn burn_masks(rgb: &mut RgbPicture, masks: &[Vec<Point>]) {
    for mask in masks {
        for y in 0..rgb.height {
            for x in 0..rgb.width {
                let p = Point { x: (x as f32 + 0.5) / rgb.width as f32, y: (y as f32 + 0.5) / rgb.height as f32 };
                if zone::inside(mask, p) {
                    rgb.set_pixel(x, y, [0; 3]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: u32, height: u32) -> RgbPicture {
        let mut rgb = RgbPicture::new(width, height).unwrap();
        let mut state = 1_u32;
        for value in &mut rgb.pixels {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = u8::try_from(state >> 24).unwrap();
        }
        rgb
    }

    fn colours(rgb: &RgbPicture, x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> usize {
        let set: std::collections::HashSet<_> =
            y.flat_map(|y| x.clone().map(move |x| (x, y))).map(|(x, y)| rgb.pixel(x, y)).collect();
        set.len()
    }

    #[test]
    fn a_person_becomes_a_handful_of_blocks_and_the_rest_stays() {
        let before = noise(200, 200);
        let mut rgb = before.clone();
        assert_eq!(blur_people(&mut rgb, &[BBox::from([0.4, 0.4, 0.1, 0.3])]), 1);
        assert!(colours(&rgb, 80..100, 80..140) <= 25);
        assert_eq!(rgb.pixel(10, 10), before.pixel(10, 10));
        assert_ne!(rgb.pixel(78, 78), before.pixel(78, 78), "the margin is blurred too");
    }

    #[test]
    fn people_at_the_edge_and_outside_do_no_harm() {
        let mut rgb = noise(50, 40);
        let boxes = [[-0.1, -0.1, 0.2, 0.2], [0.95, 0.95, 0.2, 0.2], [2.0, 2.0, 0.1, 0.1], [0.5, 0.5, 0.0, 0.0]]
            .map(BBox::from);
        blur_people(&mut rgb, &boxes);
        assert!(colours(&rgb, 0..5, 0..4) <= 4);
    }

    #[test]
    fn one_person_found_in_two_tiles_counts_once() {
        let person = BBox::from([0.4, 0.4, 0.1, 0.3]);
        let half = BBox::from([0.4, 0.4, 0.1, 0.12]);
        assert_eq!(
            blur_people(&mut noise(100, 100), &[person, person.moved(0.01, 0.0), half, person.moved(0.3, 0.0)]),
            2
        );
    }

    #[test]
    fn masks_are_black() {
        let mut rgb = noise(100, 100);
        burn_masks(&mut rgb, &[[[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.5, 1.0]].map(Point::from).to_vec()]);
        assert_eq!(colours(&rgb, 50..100, 50..100), 1);
        assert_eq!(rgb.pixel(60, 60), [0; 3]);
        assert_ne!(rgb.pixel(40, 40), [0; 3]);
    }

    #[test]
    fn tiles_cover_the_whole_picture() {
        for (width, height) in [(768, 576), (1280, 720), (1920, 1080), (640, 360), (417, 300), (300, 3000)] {
            let all = tiles(width, height, 416, 416);
            assert!(all.len() <= 10);
            let covered = |x: u32, y: u32| {
                all[1..].iter().any(|&(tx, ty, w, h)| (tx..tx + w).contains(&x) && (ty..ty + h).contains(&y))
            };
            for (x, y) in [
                (0, 0),
                (width - 1, 0),
                (0, height - 1),
                (width - 1, height - 1),
                (width / 2, height / 2),
                (width / 3, height / 3),
            ] {
                assert!(all.len() == 1 || covered(x, y), "{x},{y} of {width}x{height}: {all:?}");
            }
            assert!(all.iter().all(|&(x, y, w, h)| x + w <= width && y + h <= height), "{all:?}");
        }
        assert_eq!(tiles(416, 312, 416, 416).len(), 1);
    }
}
