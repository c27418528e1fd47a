//! Pictures: decoded video frames, scaled copies, and plain RGB pixels. Owns every call to libswscale; refuses to
//! interpret what is seen.

use ffmpeg::format::Pixel;
use ffmpeg::software::scaling;
use ffmpeg_next as ffmpeg;

/// A decoded picture with its time in the stream. Cheap to keep: the pixels are reference-counted by libavutil.
pub struct VideoFrame {
    pub(crate) picture: ffmpeg::frame::Video,
    /// Presentation time from the start of the stream, milliseconds; does not run backwards where a file is looped.
    pub pts_ms: i64,
    /// Time spent decoding since the frame handed out before, microseconds.
    pub decode_us: u64,
}

impl VideoFrame {
    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.picture.width()
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.picture.height()
    }

    /// A frame made of RGB pixels, for pictures that do not come from a camera.
    ///
    /// # Errors
    /// The picture is empty or too large for memory.
    pub fn from_rgb(rgb: &RgbPicture, pts_ms: i64) -> Result<Self, PictureError> {
        let mut picture = allocate(Pixel::RGB24, rgb.width, rgb.height)?;
        copy_rows(rgb, 0, 0, &mut picture);
        Ok(Self { picture, pts_ms, decode_us: 0 })
    }
}

impl std::fmt::Debug for VideoFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VideoFrame({}x{} at {} ms)", self.width(), self.height(), self.pts_ms)
    }
}

/// What can go wrong with a picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Zero or absurd dimensions.
    #[error("a picture of {width}x{height} pixels cannot be handled; expected 1 to {SIDE_MAX} per side")]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// libswscale refused.
    #[error(
        "scaling a picture failed: {0}; the camera's pixel format may be unsupported: set its codec to H.264 or H.265"
    )]
    Scaling(ffmpeg::Error),
    /// libavutil had no memory.
    #[error(
        "no memory for a picture of {width}x{height} pixels; raise the worker's memory limit or lower the camera's resolution"
    )]
    Memory {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The JPEG encoder refused.
    #[error("encoding a JPEG failed: {0}")]
    Jpeg(image::ImageError),
}

/// Largest side accepted, in pixels: 16K, well above any camera, well below where buffers get dangerous.
pub const SIDE_MAX: u32 = 16_384;

fn allocate(format: Pixel, width: u32, height: u32) -> Result<ffmpeg::frame::Video, PictureError> {
    if !(1..=SIDE_MAX).contains(&width) || !(1..=SIDE_MAX).contains(&height) {
        return Err(PictureError::Size { width, height });
    }
    let picture = ffmpeg::frame::Video::new(format, width, height);
    // SAFETY: reading a pointer field of a frame we own; null means the buffer could not be allocated.
    if unsafe { (*picture.as_ptr()).data[0].is_null() } {
        return Err(PictureError::Memory { width, height });
    }
    Ok(picture)
}

/// Scales frames of any geometry to packed BGR or RGB, keeping the prepared tables of the last geometries.
#[derive(Default)]
pub struct Scaler {
    prepared: Vec<Prepared>,
}

struct Prepared {
    context: scaling::Context,
    output: ffmpeg::frame::Video,
}

// SAFETY: libswscale contexts have no thread affinity; `Scaler` is only used through `&mut self`.
unsafe impl Send for Scaler {}

/// How many geometries keep their tables: the camera's, a still's tiles, and the still itself.
const PREPARED_MAX: usize = 4;

impl Scaler {
    /// Scales to `width` × `height` in the given packed format; the result is valid until the next call.
    ///
    /// # Errors
    /// Impossible sizes, or a pixel format libswscale does not read.
    pub(crate) fn scale(
        &mut self,
        frame: &VideoFrame,
        format: Pixel,
        width: u32,
        height: u32,
    ) -> Result<&ffmpeg::frame::Video, PictureError> {
        let picture = &frame.picture;
        if !(1..=SIDE_MAX).contains(&picture.width()) || !(1..=SIDE_MAX).contains(&picture.height()) {
            return Err(PictureError::Size { width: picture.width(), height: picture.height() });
        }
        let fits = |p: &Prepared| {
            let (from, to) = (p.context.input(), p.context.output());
            (from.format, from.width, from.height) == (picture.format(), picture.width(), picture.height())
                && (to.format, to.width, to.height) == (format, width, height)
        };
        if let Some(place) = self.prepared.iter().position(fits) {
            // Most recently used last, so that the oldest is the first to go.
            let prepared = self.prepared.remove(place);
            self.prepared.push(prepared);
        } else {
            let output = allocate(format, width, height)?;
            let context = scaling::Context::get(
                picture.format(),
                picture.width(),
                picture.height(),
                format,
                width,
                height,
                scaling::Flags::BILINEAR,
            )
            .map_err(PictureError::Scaling)?;
            if self.prepared.len() == PREPARED_MAX {
                self.prepared.remove(0);
            }
            self.prepared.push(Prepared { context, output });
        }
        let prepared = self.prepared.last_mut().expect("an entry was just moved or pushed to the end");
        prepared.context.run(picture, &mut prepared.output).map_err(PictureError::Scaling)?;
        Ok(&prepared.output)
    }

    /// The frame as RGB pixels, scaled down so that it is at most `width_max` wide.
    ///
    /// # Errors
    /// As [`PictureError`] says.
    pub fn to_rgb(&mut self, frame: &VideoFrame, width_max: u32) -> Result<RgbPicture, PictureError> {
        let (mut width, mut height) = (frame.width(), frame.height());
        if width > width_max && width_max > 0 {
            height =
                u32::try_from(u64::from(height) * u64::from(width_max) / u64::from(width)).unwrap_or(height).max(1);
            width = width_max;
        }
        let scaled = self.scale(frame, Pixel::RGB24, width, height)?;
        let mut rgb = RgbPicture::new(width, height)?;
        let (stride, row_bytes) = (scaled.stride(0), width as usize * 3);
        for (to, from) in rgb.pixels.chunks_exact_mut(row_bytes).zip(scaled.data(0).chunks(stride)) {
            to.copy_from_slice(&from[..row_bytes]);
        }
        Ok(rgb)
    }
}

/// Packed 8-bit RGB pixels, rows without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbPicture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    pub(crate) pixels: Vec<u8>,
}

impl RgbPicture {
    /// A black picture.
    ///
    /// # Errors
    /// Zero or absurd dimensions.
    pub fn new(width: u32, height: u32) -> Result<Self, PictureError> {
        if !(1..=SIDE_MAX).contains(&width) || !(1..=SIDE_MAX).contains(&height) {
            return Err(PictureError::Size { width, height });
        }
        Ok(Self { width, height, pixels: vec![0; width as usize * height as usize * 3] })
    }

    /// The pixels, three bytes each, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// One pixel; black outside the picture.
    #[must_use]
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        if x >= self.width || y >= self.height {
            return [0; 3];
        }
        let at = (y as usize * self.width as usize + x as usize) * 3;
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }

    /// Sets one pixel; outside the picture nothing happens.
    pub fn set_pixel(&mut self, x: u32, y: u32, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = (y as usize * self.width as usize + x as usize) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// A part of the picture as a frame, for running a detector on it. The part must lie inside the picture.
    pub(crate) fn part(&self, x: u32, y: u32, width: u32, height: u32) -> Result<VideoFrame, PictureError> {
        let fits = x.checked_add(width).is_some_and(|r| r <= self.width)
            && y.checked_add(height).is_some_and(|b| b <= self.height);
        if !fits {
            return Err(PictureError::Size { width, height });
        }
        let mut picture = allocate(Pixel::RGB24, width, height)?;
        copy_rows(self, x, y, &mut picture);
        Ok(VideoFrame { picture, pts_ms: 0, decode_us: 0 })
    }
}

/// Copies the part of `rgb` at (x, y) that is as large as `picture`.
fn copy_rows(rgb: &RgbPicture, x: u32, y: u32, picture: &mut ffmpeg::frame::Video) {
    let (stride, row_bytes) = (picture.stride(0), picture.width() as usize * 3);
    let rows = rgb.pixels.chunks_exact(rgb.width as usize * 3).skip(y as usize);
    for (to, from) in picture.data_mut(0).chunks_mut(stride).zip(rows) {
        let start = x as usize * 3;
        to[..row_bytes].copy_from_slice(&from[start..start + row_bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbPicture {
        let mut rgb = RgbPicture::new(width, height).unwrap();
        for y in 0..height {
            for x in 0..width {
                rgb.set_pixel(
                    x,
                    y,
                    [u8::try_from(x * 255 / width).unwrap(), u8::try_from(y * 255 / height).unwrap(), 7],
                );
            }
        }
        rgb
    }

    #[test]
    fn rgb_survives_the_way_through_a_frame() {
        let rgb = gradient(50, 30);
        let frame = VideoFrame::from_rgb(&rgb, 0).unwrap();
        assert_eq!(Scaler::default().to_rgb(&frame, 1000).unwrap(), rgb);
    }

    #[test]
    fn a_part_holds_the_pixels_of_its_place() {
        let rgb = gradient(64, 48);
        let part = Scaler::default().to_rgb(&rgb.part(10, 20, 32, 16).unwrap(), 1000).unwrap();
        assert_eq!(part.pixel(0, 0), rgb.pixel(10, 20));
        assert_eq!(part.pixel(31, 15), rgb.pixel(41, 35));
        assert!(rgb.part(40, 0, 32, 16).is_err());
    }

    #[test]
    fn stills_are_scaled_down_but_never_up() {
        let frame = VideoFrame::from_rgb(&gradient(200, 100), 0).unwrap();
        let mut scaler = Scaler::default();
        let small = scaler.to_rgb(&frame, 100).unwrap();
        assert_eq!((small.width, small.height), (100, 50));
        let same = scaler.to_rgb(&frame, 4000).unwrap();
        assert_eq!((same.width, same.height), (200, 100));
    }
}
