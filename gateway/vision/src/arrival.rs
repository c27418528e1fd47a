//! What standing things looked like when they came. Owns one picture each, in memory, so that an alarm that is decided minutes
//! later can show the arrival; refuses to hand out anything but a finished still, and to keep a picture of what has gone.
//!
//! A picture is kept compressed and as wide as a still: some 150 kB, and at most [`KEPT_MAX`] of them.

use std::collections::BTreeMap;

use image::ImageFormat;
use image::codecs::jpeg::JpegEncoder;

use crate::geometry::BBox;
use crate::picture::{PictureError, RgbPicture, Scaler, VideoFrame};
use crate::still::WIDTH_MAX;

/// Most things whose arrival is remembered, the newest.
pub const KEPT_MAX: usize = 12;
/// JPEG quality of what is kept; it is coded once more for the still.
const QUALITY: u8 = 85;

/// One thing's arrival.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    jpeg: Vec<u8>,
    /// Wall time of the picture, ms since the Unix epoch.
    pub at_ms: i64,
    /// Where the thing stood.
    pub bbox: BBox,
    /// Where people were known to be.
    pub people: Vec<BBox>,
}

/// The arrivals of one camera, by track.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    kept: BTreeMap<u64, Kept>,
}

impl Arrivals {
    /// Takes a picture in which `standing` (track and box) stand where they matter, and forgets what no longer does. A picture
    /// is made only when something is new.
    ///
    /// # Errors
    /// A picture that cannot be scaled or encoded; nothing new is kept then.
    pub fn look(
        &mut self,
        scaler: &mut Scaler,
        frame: &VideoFrame,
        at_ms: i64,
        standing: &[(u64, BBox)],
        people: &[BBox],
    ) -> Result<(), PictureError> {
        self.kept.retain(|track, _| standing.iter().any(|(known, _)| known == track));
        let fresh: Vec<_> = standing.iter().filter(|(track, _)| !self.kept.contains_key(track)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let rgb = scaler.to_rgb(frame, WIDTH_MAX)?;
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(rgb.pixels(), rgb.width, rgb.height, image::ExtendedColorType::Rgb8)
            .map_err(PictureError::Jpeg)?;
        for (track, bbox) in fresh {
            self.kept.insert(*track, Kept { jpeg: jpeg.clone(), at_ms, bbox: *bbox, people: people.to_vec() });
        }
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_first();
        }
        Ok(())
    }

    /// The arrival of a track; `None` when it was never seen to stand, or has gone.
    pub fn of(&self, track: u64) -> Option<&Kept> {
        self.kept.get(&track)
    }
}

impl Kept {
    /// The picture as it was, people and all: for [`crate::still`] only.
    ///
    /// # Errors
    /// When memory was damaged: the picture was encoded here.
    pub fn picture(&self) -> Result<RgbPicture, PictureError> {
        let decoded = image::load_from_memory_with_format(&self.jpeg, ImageFormat::Jpeg).map_err(PictureError::Jpeg)?;
        let decoded = decoded.into_rgb8();
        let mut rgb = RgbPicture::new(decoded.width(), decoded.height())?;
        rgb.pixels = decoded.into_raw();
        Ok(rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(shade: u8) -> VideoFrame {
        let mut rgb = RgbPicture::new(640, 360).unwrap();
        rgb.pixels.fill(shade);
        VideoFrame::from_rgb(&rgb, 0).unwrap()
    }

    const BOX: BBox = BBox { x: 0.4, y: 0.4, w: 0.2, h: 0.1 };

    #[test]
    fn the_first_picture_of_a_standing_thing_is_kept_until_it_goes() {
        let (mut arrivals, mut scaler) = (Arrivals::default(), Scaler::default());
        for (shade, at_ms) in [(40, 0), (90, 1000), (200, 2000)] {
            arrivals.look(&mut scaler, &frame(shade), at_ms, &[(7, BOX)], &[BOX]).unwrap();
        }
        let kept = arrivals.of(7).unwrap();
        assert_eq!((kept.at_ms, kept.bbox, kept.people.len()), (0, BOX, 1));
        let shade = i32::from(kept.picture().unwrap().pixel(300, 200)[1]);
        assert!((shade - 40).abs() <= 4, "{shade}");
        arrivals.look(&mut scaler, &frame(0), 3000, &[(8, BOX)], &[]).unwrap();
        assert!(arrivals.of(7).is_none() && arrivals.of(8).is_some_and(|kept| kept.at_ms == 3000));
    }

    #[test]
    fn a_car_park_does_not_fill_the_memory() {
        let (mut arrivals, mut scaler) = (Arrivals::default(), Scaler::default());
        let all: Vec<_> = (0..100).map(|track| (track, BOX)).collect();
        arrivals.look(&mut scaler, &frame(90), 0, &all, &[]).unwrap();
        assert_eq!((arrivals.kept.len(), arrivals.of(99).is_some()), (KEPT_MAX, true));
    }
}
