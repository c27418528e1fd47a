//! From a scaled picture to the numbers a model wants, and the picture's look as a whole on the way. Owns sizes, planes and
//! normalisation; refuses sessions and frames, so it is tested with bytes alone.

use crate::manifest::Decoder;

/// What a scaled picture looks like as a whole; made on the way to the detector because the pixels pass by there anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Mean of all colour values, 0..255.
    pub mean: u8,
    /// The brightest colour value among all but the brightest half per cent.
    pub bright: u8,
    /// Equal for equal pictures, and practically only for those (FNV-1a, 64 bits).
    pub fingerprint: u64,
}

/// Grey that YOLOX was trained with around letterboxed pictures.
pub(super) const PADDING: f32 = 114.0;

/// Largest size of the picture's shape that fits the input.
pub(super) fn letterbox(width: u32, height: u32, input_w: u32, input_h: u32) -> (u32, u32) {
    let scale = (f64::from(input_w) / f64::from(width)).min(f64::from(input_h) / f64::from(height));
    let side = |length: u32, max: u32| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounded, positive and bounded by max"
        )]
        let scaled = (f64::from(length) * scale).round() as u32;
        scaled.clamp(1, max)
    };
    (side(width, input_w), side(height, input_h))
}

/// Spreads packed BGR rows over three planes of floats, as the decoder's model wants them.
pub(super) fn to_planes<'r>(
    rows: impl Iterator<Item = &'r [u8]>,
    row_length: usize,
    planes: [&mut [f32]; 3],
    decoder: Decoder,
) {
    // Per channel: value × scale + offset.
    let [b, g, r] = match decoder {
        Decoder::Yolox => [(1.0, 0.0); 3],
        // (x − mean) / deviation of ImageNet in BGR order, as NanoDet's training configuration has them.
        Decoder::NanodetPlus => [(103.53, 57.375), (116.28, 57.12), (123.675, 58.395)]
            .map(|(mean, dev): (f32, f32)| (1.0 / dev, -mean / dev)),
    };
    let [blue, green, red] = planes;
    let lines =
        blue.chunks_exact_mut(row_length).zip(green.chunks_exact_mut(row_length)).zip(red.chunks_exact_mut(row_length));
    for (row, ((blue, green), red)) in rows.zip(lines) {
        for (pixel, ((to_b, to_g), to_r)) in
            row.chunks_exact(3).zip(blue.iter_mut().zip(green.iter_mut()).zip(red.iter_mut()))
        {
            *to_b = f32::from(pixel[0]) * b.0 + b.1;
            *to_g = f32::from(pixel[1]) * g.0 + g.1;
            *to_r = f32::from(pixel[2]) * r.0 + r.1;
        }
    }
}

pub(super) fn look_of<'r>(rows: impl Iterator<Item = &'r [u8]>) -> Look {
    let mut histogram = [0_u32; 256];
    let mut fingerprint = 0xcbf2_9ce4_8422_2325_u64;
    for row in rows {
        // Eight bytes at a time for the fingerprint; every 7th value is plenty for brightness.
        for word in row.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            fingerprint = (fingerprint ^ u64::from_le_bytes(bytes)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        for &value in row.iter().step_by(7) {
            histogram[usize::from(value)] += 1;
        }
    }
    let count: u64 = histogram.iter().map(|&n| u64::from(n)).sum::<u64>().max(1);
    let sum: u64 = histogram.iter().zip(0_u64..).map(|(&n, value)| u64::from(n) * value).sum();
    let mut above = 0;
    let bright = (0..=255_u8).rev().find(|&v| {
        above += u64::from(histogram[usize::from(v)]);
        above * 200 > count
    });
    Look { mean: u8::try_from(sum / count).unwrap_or(u8::MAX), bright: bright.unwrap_or(0), fingerprint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letterbox_keeps_the_shape() {
        assert_eq!(letterbox(768, 576, 416, 416), (416, 312));
        assert_eq!(letterbox(1920, 1080, 416, 416), (416, 234));
        assert_eq!(letterbox(100, 1000, 416, 416), (42, 416));
        assert_eq!(letterbox(16_000, 1, 416, 416), (416, 1));
    }

    #[test]
    fn looks_tell_dark_from_light_and_equal_from_different() {
        let dark = vec![[3_u8; 300]; 40];
        let mut other = dark.clone();
        other[7][11] = 4;
        let look = |rows: &[[u8; 300]]| look_of(rows.iter().map(<[u8; 300]>::as_slice));
        assert_eq!((look(&dark).mean, look(&dark).bright), (3, 3));
        assert_eq!(look(&dark).fingerprint, look(&dark.clone()).fingerprint);
        assert_ne!(look(&dark).fingerprint, look(&other).fingerprint);
        // A lamp that fills two per cent of a night picture is light enough to see by.
        let mut lamp = vec![[3_u8; 300]; 100];
        lamp[0] = [250; 300];
        lamp[1] = [250; 300];
        assert_eq!(look(&lamp).bright, 250);
    }

    #[test]
    fn planes_are_blue_green_red_and_normalised_for_nanodet() {
        let row = [10_u8, 20, 30, 40, 50, 60];
        let plain = |decoder| {
            let (mut b, mut g, mut r) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            to_planes(std::iter::once(row.as_slice()), 2, [&mut b, &mut g, &mut r], decoder);
            [b, g, r]
        };
        assert_eq!(plain(Decoder::Yolox), [[10.0, 40.0], [20.0, 50.0], [30.0, 60.0]]);
        let nanodet = plain(Decoder::NanodetPlus);
        assert!((nanodet[0][0] - (10.0 - 103.53) / 57.375).abs() < 1e-5);
        assert!((nanodet[2][1] - (60.0 - 123.675) / 58.395).abs() < 1e-5);
    }
}
