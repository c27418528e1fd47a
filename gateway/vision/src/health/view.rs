//! A picture as the judges of a camera's health see it: a small grey copy, edges, brightness, fineness. Owns the reading of luma straight
//! from the decoder's picture (a millisecond at 1080p) and the measures on it; refuses to judge, and refuses time.

use ffmpeg::format::Pixel;
use ffmpeg_next as ffmpeg;

use crate::picture::{PictureError, Scaler, VideoFrame};

/// Cells per row of the small copy.
pub const COLUMNS: usize = 128;
/// Rows of cells.
pub const ROWS: usize = 72;
/// Blocks per row: a judge of a whole view asks in how many of them something is so.
pub const BLOCK_COLUMNS: usize = 8;
/// Rows of blocks.
pub const BLOCK_ROWS: usize = 6;
/// Blocks.
pub const BLOCKS: usize = BLOCK_COLUMNS * BLOCK_ROWS;
/// Samples taken from a cell, per side.
const SAMPLES: usize = 4;
/// Lines read for the fineness of a block.
const FINE_LINES: usize = 20;
/// Grey levels at which an edge counts half: below are noise and compression.
const EDGE_HALF: f32 = 5.0;
/// Grey levels from which an edge is plainly there.
const EDGE_PLAIN: f32 = 8.0;
/// Mean squared coarse difference of a block from which its fineness means something.
const COARSE_MIN: f32 = 40.0;

/// An edge at a cell: the doubled angle of its gradient as a vector, so that it is the same whichever side is the lighter one, with a
/// length from 0 (none) to 1 (strong).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Edge {
    /// Cosine of twice the angle, times the length.
    pub c: f32,
    /// Sine of twice the angle, times the length.
    pub s: f32,
}

/// What is measured on one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    edges: Vec<Edge>,
    /// Ratio of fine to coarse differences per block; none where the block is too plain to tell.
    fineness: [Option<f32>; BLOCKS],
    /// Mean grey value, 0..255.
    pub mean: f32,
    /// Share of the samples at the upper end of the scale, 0..1.
    pub blown: f32,
    /// Share of cells with a plain edge, 0..1.
    pub structure: f32,
}

impl View {
    /// Measures a picture.
    ///
    /// # Errors
    /// A pixel format that has no luma plane and that libswscale cannot turn grey either.
    pub fn of(scaler: &mut Scaler, frame: &VideoFrame) -> Result<Self, PictureError> {
        let picture = &frame.picture;
        let full_range = picture.color_range() == ffmpeg::color::Range::JPEG
            || matches!(picture.format(), Pixel::YUVJ420P | Pixel::YUVJ422P | Pixel::YUVJ444P | Pixel::GRAY8);
        let side = (picture.width() as usize, picture.height() as usize);
        let has_luma = matches!(
            picture.format(),
            Pixel::YUV420P
                | Pixel::YUVJ420P
                | Pixel::YUV422P
                | Pixel::YUVJ422P
                | Pixel::YUV444P
                | Pixel::YUVJ444P
                | Pixel::NV12
                | Pixel::NV21
                | Pixel::GRAY8
        );
        if has_luma {
            return Ok(Self::measure(picture.data(0), picture.stride(0), side, full_range));
        }
        let grey = scaler.scale(frame, Pixel::GRAY8, frame.width(), frame.height())?;
        Ok(Self::measure(grey.data(0), grey.stride(0), side, true))
    }

    /// Measures a plane of `side` (width, height) grey bytes, `stride` bytes from row to row.
    pub(crate) fn measure(plane: &[u8], stride: usize, side: (usize, usize), full_range: bool) -> Self {
        let (cells, mean, blown) = small_copy(plane, stride, side, full_range);
        let (edges, structure) = edges_of(&cells);
        Self { edges, fineness: fineness_of(plane, stride, side), mean, blown, structure }
    }

    /// The edges, row by row, [`COLUMNS`] × [`ROWS`].
    #[must_use]
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// How fine each block is; see [`View`].
    #[must_use]
    pub fn fineness(&self) -> &[Option<f32>; BLOCKS] {
        &self.fineness
    }
}

/// The block a cell lies in.
#[must_use]
pub fn block_of(cell: usize) -> usize {
    let (x, y) = (cell % COLUMNS, cell / COLUMNS);
    y * BLOCK_ROWS / ROWS * BLOCK_COLUMNS + x * BLOCK_COLUMNS / COLUMNS
}

/// Means of the cells on the full scale, the mean of all, and the share of blown samples.
fn small_copy(plane: &[u8], stride: usize, (width, height): (usize, usize), full_range: bool) -> (Vec<f32>, f32, f32) {
    let across: Vec<usize> = (0..COLUMNS * SAMPLES).map(|i| (2 * i + 1) * width / (2 * COLUMNS * SAMPLES)).collect();
    // Limited range ends at 235; encoders overshoot a little.
    let (low, scale, top) = if full_range { (0.0, 1.0, 250) } else { (16.0, 255.0 / 219.0, 231) };
    let mut cells = vec![0.0_f32; COLUMNS * ROWS];
    let mut blown = 0_u32;
    for (row, line) in cells.chunks_exact_mut(COLUMNS).enumerate() {
        for sample in 0..SAMPLES {
            let y = (2 * (row * SAMPLES + sample) + 1) * height / (2 * ROWS * SAMPLES);
            let Some(values) = plane.get(y * stride..y * stride + width) else { continue };
            for (cell, places) in line.iter_mut().zip(across.chunks_exact(SAMPLES)) {
                for value in places.iter().filter_map(|&x| values.get(x)) {
                    *cell += f32::from(*value);
                    blown += u32::from(*value >= top);
                }
            }
        }
    }
    let samples = (SAMPLES * SAMPLES) as f32;
    for cell in &mut cells {
        *cell = ((*cell / samples - low) * scale).clamp(0.0, 255.0);
    }
    let count = (COLUMNS * ROWS) as f32;
    let mean = cells.iter().sum::<f32>() / count;
    (cells, mean, blown as f32 / (count * samples))
}

/// Edges by central differences, and the share of plain ones.
fn edges_of(cells: &[f32]) -> (Vec<Edge>, f32) {
    let mut edges = vec![Edge::default(); COLUMNS * ROWS];
    let mut plain = 0_u32;
    for y in 1..ROWS - 1 {
        for x in 1..COLUMNS - 1 {
            let at = y * COLUMNS + x;
            let gx = cells[at + 1] - cells[at - 1];
            let gy = cells[at + COLUMNS] - cells[at - COLUMNS];
            let length2 = gx * gx + gy * gy;
            if length2 < 1.0 {
                continue;
            }
            let length = length2.sqrt();
            plain += u32::from(length >= EDGE_PLAIN);
            let weight = length / (length + EDGE_HALF) / length2;
            edges[at] = Edge { c: (gx * gx - gy * gy) * weight, s: 2.0 * gx * gy * weight };
        }
    }
    (edges, plain as f32 / (COLUMNS * ROWS) as f32)
}

/// Per block: mean squared difference of neighbours over that of points a coarse step apart. A lens out of focus takes the fine and
/// leaves the coarse; darkness and glare take both alike.
fn fineness_of(plane: &[u8], stride: usize, (width, height): (usize, usize)) -> [Option<f32>; BLOCKS] {
    let coarse = (width / 48).max(6);
    let mut blocks = [None; BLOCKS];
    let square = |a: u8, b: u8| {
        let difference = u32::from(a.abs_diff(b));
        u64::from(difference * difference)
    };
    for (block, fineness) in blocks.iter_mut().enumerate() {
        let (bx, by) = (block % BLOCK_COLUMNS, block / BLOCK_COLUMNS);
        let (left, right) = (bx * width / BLOCK_COLUMNS, (bx + 1) * width / BLOCK_COLUMNS);
        let (top, bottom) = (by * height / BLOCK_ROWS, (by + 1) * height / BLOCK_ROWS);
        let (mut fine_sum, mut coarse_sum, mut count) = (0_u64, 0_u64, 0_u64);
        for line in 0..FINE_LINES {
            let y = top + (2 * line + 1) * (bottom - top) / (2 * FINE_LINES);
            let Some(values) = plane.get(y * stride + left..y * stride + right) else { continue };
            fine_sum += values.windows(2).map(|w| square(w[0], w[1])).sum::<u64>();
            coarse_sum += values.iter().zip(values.iter().skip(coarse)).map(|(a, b)| square(*a, *b)).sum::<u64>();
            count += values.len().saturating_sub(coarse) as u64;
        }
        let count = count.max(1) as f32;
        let (fine, coarse) = (fine_sum as f32 / count, coarse_sum as f32 / count);
        *fineness = (coarse >= COARSE_MIN).then(|| fine / coarse);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(side: (usize, usize), value: impl Fn(usize, usize) -> u8) -> View {
        let plane: Vec<u8> = (0..side.0 * side.1).map(|i| value(i % side.0, i / side.0)).collect();
        View::measure(&plane, side.0, side, true)
    }

    #[test]
    fn brightness_is_on_the_full_scale() {
        let grey = measured((640, 360), |_, _| 100);
        assert!((grey.mean - 100.0).abs() < 0.01 && grey.blown == 0.0 && grey.structure == 0.0, "{}", grey.mean);
        let white = View::measure(&[235; 640 * 360], 640, (640, 360), false);
        assert!((white.mean - 255.0).abs() < 0.1 && white.blown == 1.0, "{}", white.mean);
    }

    #[test]
    fn an_edge_is_the_same_whichever_side_is_light() {
        let step = |light_left: bool| measured((640, 360), move |x, _| if (x < 320) == light_left { 200 } else { 50 });
        let (a, b) = (step(true), step(false));
        assert!(a.structure > 0.0);
        let strongest = |v: &View| v.edges().iter().copied().max_by(|p, q| p.c.abs().total_cmp(&q.c.abs())).unwrap();
        assert!((strongest(&a).c - strongest(&b).c).abs() < 1e-6 && strongest(&a).c > 0.9, "{:?}", strongest(&a));
        let lying = measured((640, 360), |_, y| if y < 180 { 200 } else { 50 });
        assert!(strongest(&lying).c < -0.9, "a lying edge is the opposite of a standing one");
    }

    #[test]
    fn fineness_tells_sharp_from_smeared_and_plain_from_both() {
        let sharp = measured((640, 360), |x, _| if x / 8 % 2 == 0 { 60 } else { 180 });
        let smeared = measured((640, 360), |x, _| (120.0 + 60.0 * (x as f32 / 8.0).sin()) as u8);
        let of = |v: &View| v.fineness().iter().flatten().sum::<f32>() / BLOCKS as f32;
        assert!(of(&sharp) > 3.0 * of(&smeared), "{} {}", of(&sharp), of(&smeared));
        assert!(measured((640, 360), |_, _| 90).fineness().iter().all(Option::is_none));
    }

    #[test]
    fn pictures_smaller_than_the_grid_and_torn_planes_do_not_panic() {
        for side in [(1, 1), (16, 9), (127, 71), (3, 2000)] {
            let _ = measured(side, |x, y| (x * y) as u8);
        }
        let _ = View::measure(&[7; 100], 640, (640, 360), true);
    }
}
