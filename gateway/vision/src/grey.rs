//! A small grey copy of a picture: a grid of mean brightness, and the look of the whole. Owns the reading of luma straight from the
//! decoder's picture, a fraction of a millisecond at 1080p, because it is done for every picture, also those that no
//! detector sees; refuses to judge what changed ([`crate::gate`]) or whether the camera is well ([`crate::health`]).

use ffmpeg::format::Pixel;
use ffmpeg_next as ffmpeg;

use crate::detect::Look;
use crate::picture::{PictureError, Scaler, VideoFrame};

/// Cells per row.
pub const COLUMNS: usize = 128;
/// Rows of cells.
pub const ROWS: usize = 72;
/// Samples taken from a cell, per side.
const SAMPLES: usize = 4;

/// Mean brightness of [`COLUMNS`] × [`ROWS`] cells that cover the whole picture, row by row, 0..255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GreyGrid {
    cells: Vec<u8>,
}

impl GreyGrid {
    /// A grid of given cells, for tests and other makers of pictures; `None` if there are not [`COLUMNS`] × [`ROWS`].
    #[must_use]
    pub fn from_cells(cells: Vec<u8>) -> Option<Self> {
        (cells.len() == COLUMNS * ROWS).then_some(Self { cells })
    }

    /// The cells, row by row.
    #[must_use]
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }
}

/// The grid of a picture and its look as a whole.
///
/// # Errors
/// A picture without luma that libswscale cannot turn grey either.
pub fn grid(scaler: &mut Scaler, frame: &VideoFrame) -> Result<(GreyGrid, Look), PictureError> {
    let picture = &frame.picture;
    let planar = matches!(
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
    let full_range = picture.color_range() == ffmpeg::color::Range::JPEG
        || matches!(picture.format(), Pixel::YUVJ420P | Pixel::YUVJ422P | Pixel::YUVJ444P | Pixel::GRAY8);
    if planar {
        let side = (picture.width() as usize, picture.height() as usize);
        return Ok(sample(picture.data(0), picture.stride(0), side, full_range));
    }
    let (w, h) = (COLUMNS * SAMPLES, ROWS * SAMPLES);
    #[expect(clippy::cast_possible_truncation, reason = "constants far below 2^32")]
    let grey = scaler.scale(frame, Pixel::GRAY8, w as u32, h as u32)?;
    Ok(sample(grey.data(0), grey.stride(0), (w, h), true))
}

/// Reads [`SAMPLES`]² values of every cell of a plane of `width` × `height` bytes.
fn sample(plane: &[u8], stride: usize, (width, height): (usize, usize), full_range: bool) -> (GreyGrid, Look) {
    let mut cells = vec![0_u8; COLUMNS * ROWS];
    let mut histogram = [0_u32; 256];
    let mut fingerprint = 0xcbf2_9ce4_8422_2325_u64;
    let across: Vec<usize> = (0..COLUMNS * SAMPLES).map(|i| (2 * i + 1) * width / (2 * COLUMNS * SAMPLES)).collect();
    let mut sums = [0_u16; COLUMNS];
    for (place, line) in cells.chunks_exact_mut(COLUMNS).enumerate() {
        sums.fill(0);
        for row in 0..SAMPLES {
            let y = (2 * (place * SAMPLES + row) + 1) * height / (2 * ROWS * SAMPLES);
            let Some(values) = plane.get(y * stride..y * stride + width) else { continue };
            for (cell, sum) in across.chunks_exact(SAMPLES).zip(&mut sums) {
                let taken = [values[cell[0]], values[cell[1]], values[cell[2]], values[cell[3]]];
                *sum += taken.iter().map(|&v| u16::from(v)).sum::<u16>();
                histogram[usize::from(taken[row])] += 1;
                fingerprint = (fingerprint ^ u64::from(u32::from_le_bytes(taken))).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        for (cell, &sum) in line.iter_mut().zip(&sums) {
            *cell = u8::try_from(usize::from(sum) / (SAMPLES * SAMPLES)).unwrap_or(u8::MAX);
        }
    }
    (GreyGrid { cells }, look(&histogram, fingerprint, full_range))
}

fn look(histogram: &[u32; 256], fingerprint: u64, full_range: bool) -> Look {
    let count: u64 = histogram.iter().map(|&n| u64::from(n)).sum::<u64>().max(1);
    let sum: u64 = histogram.iter().zip(0_u64..).map(|(&n, value)| u64::from(n) * value).sum();
    let mut above = 0;
    let bright = (0..=255_u8).rev().find(|&v| {
        above += u64::from(histogram[usize::from(v)]);
        above * 200 > count
    });
    // Broadcast range: black is 16, white is 235 (ITU-R BT.601, BT.709).
    let full = |value: u64| {
        let value = if full_range { value } else { value.saturating_sub(16) * 255 / 219 };
        u8::try_from(value).unwrap_or(u8::MAX)
    };
    Look { mean: full(sum / count), bright: full(u64::from(bright.unwrap_or(0))), fingerprint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::RgbPicture;

    #[test]
    fn cells_hold_the_brightness_of_their_place_and_range_is_undone() {
        let (width, height, stride) = (1920, 1080, 1984);
        let mut plane = vec![16_u8; stride * height];
        for row in plane.chunks_mut(stride).take(height / 2) {
            row[width / 2..width].fill(235);
        }
        let (grid, look) = sample(&plane, stride, (width, height), false);
        let cell = |x: usize, y: usize| grid.cells()[y * COLUMNS + x];
        assert_eq!([cell(0, 0), cell(63, 0), cell(64, 0), cell(127, 35), cell(127, 36)], [16, 16, 235, 235, 16]);
        assert_eq!((look.mean, look.bright), (62, 255), "a quarter is white");
        let (_, dark) = sample(&vec![16; stride * height], stride, (width, height), false);
        assert_eq!((dark.mean, dark.bright), (0, 0));
        assert_ne!(dark.fingerprint, look.fingerprint);
    }

    #[test]
    fn pictures_smaller_than_the_grid_and_of_any_format_have_one() {
        let mut rgb = RgbPicture::new(40, 30).unwrap();
        for x in 20..40 {
            for y in 0..30 {
                rgb.set_pixel(x, y, [255; 3]);
            }
        }
        let (grid, look) = grid(&mut Scaler::default(), &VideoFrame::from_rgb(&rgb, 0).unwrap()).unwrap();
        assert!(grid.cells()[10] < 10 && grid.cells()[120] > 245, "{:?}", &grid.cells()[..COLUMNS]);
        assert!((110..=145).contains(&look.mean), "{look:?}");
        let (small, _) = sample(&[7; 12], 4, (3, 3), true);
        assert!(small.cells().iter().all(|&c| c == 7));
    }
}
