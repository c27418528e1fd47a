//! A clip spoiled as street cameras spoil it. Owns which effects a seed gives and how strong they are; refuses what a person could not judge either.

use std::path::{Path, PathBuf};
use std::process::Command;

use hil_tests::process::run;
use hil_tests::{Result, RigError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What may be cut off at each side, as a share of the picture.
#[derive(Debug, Clone, Copy)]
pub struct Margins {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
}

/// One way to spoil a clip; the same seed spoils alike.
#[derive(Debug, Clone)]
pub struct Variant {
    seed: u64,
    /// Strength of the noise of each picture, of 255.
    noise: u32,
    /// Brightness taken away, contrast and gamma left: dusk.
    dim: (f32, f32, f32),
    /// Pixels by which the camera is shaken.
    shake: u32,
    /// Left, top, width and height of the part that is left, as shares.
    part: [f32; 4],
    /// Pictures out of order, as a slow network hands them over.
    order: Option<&'static str>,
    /// How coarsely it is coded anew (H.264 constant rate factor).
    coarse: u32,
}

impl Variant {
    /// The variant of a seed: one to all of the effects.
    pub fn of(seed: u64, margins: Margins) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut part = [0.0, 0.0, 1.0, 1.0];
        if rng.random_bool(0.6) {
            let mut cut = |most: f32| most * rng.random_range(0.0..1.0_f32);
            let (left, top, right, bottom) =
                (cut(margins.left), cut(margins.top), cut(margins.right), cut(margins.bottom));
            part = [left, top, 1.0 - left - right, 1.0 - top - bottom];
        }
        let noise = if rng.random_bool(0.6) { rng.random_range(3..=18) } else { 0 };
        let dim = if rng.random_bool(0.6) {
            (rng.random_range(0.02..0.15), rng.random_range(0.75..1.0), rng.random_range(0.75..1.0))
        } else {
            (0.0, 1.0, 1.0)
        };
        let shake = if rng.random_bool(0.5) { rng.random_range(1..=4) } else { 0 };
        let order = rng.random_bool(0.4).then(|| ["0 2 1 3", "1 0 3 2", "0 1 3 2 4"][rng.random_range(0..3)]);
        Self { seed, noise, dim, shake, part, order, coarse: rng.random_range(18..=28) }
    }

    /// Where a point of the clip lies in the variant.
    pub fn place(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let [left, top, width, height] = self.part;
        [((x - left) / width).clamp(0.0, 1.0), ((y - top) / height).clamp(0.0, 1.0)]
    }

    /// Makes the variant of a clip in a folder.
    pub fn make(&self, dir: &Path, clip: &Path) -> Result<PathBuf> {
        let path = dir.join(format!("variant-{}.mkv", self.seed));
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(clip);
        command.args(["-map", "0:v:0", "-an", "-vf", &self.filters()]);
        command.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1"]);
        command.args(["-crf", &self.coarse.to_string()]).arg(&path);
        run(command)?;
        if path.is_file() { Ok(path) } else { Err(RigError::failed("spoil a clip", "ffmpeg wrote nothing")) }
    }

    fn filters(&self) -> String {
        let [left, top, width, height] = self.part;
        let mut filters = Vec::new();
        if let Some(order) = self.order {
            filters.push(format!("shuffleframes={order}"));
        }
        let shake = self.shake;
        // The edge that the shaking uncovers is the picture's own, cut off: the part moves to the left and down only.
        let x = format!("max(0,iw*{left:.4}-{shake}*random(1))");
        let y = format!("min(ih-out_h,ih*{top:.4}+{shake}*random(2))");
        filters.push(format!("crop=w=floor(iw*{width:.4}/2)*2:h=floor(ih*{height:.4}/2)*2:x='{x}':y='{y}':exact=1"));
        let (darker, contrast, gamma) = self.dim;
        filters.push(format!("eq=brightness=-{darker:.3}:contrast={contrast:.3}:gamma={gamma:.3}"));
        if self.noise > 0 {
            filters.push(format!("noise=alls={}:allf=t:all_seed={}", self.noise, self.seed));
        }
        filters.join(",")
    }
}
