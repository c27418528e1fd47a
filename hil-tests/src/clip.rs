//! Footage for tests, made by ffmpeg when it is needed: no video lies in the repository but what Debian ships.
//! It owns how a test clip looks (codec, size, key frames) and how it is broken. It refuses to cache: a clip
//! lies in the folder the test gave and goes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;
use crate::{Result, RigError};

/// How the pictures are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// ITU-T H.264, as most street cameras send it: no B-frames, a key frame every 2 s.
    H264,
    /// H.264 as better encoders send it: with two B-frames between the others, so that pictures do not come in their order.
    H264B,
    /// ITU-T H.265, as the first.
    H265,
    /// One JPEG a picture: every frame is a key frame.
    Mjpeg,
}

/// A video file in Matroska with one video track.
#[derive(Debug, Clone)]
pub struct Clip {
    path: PathBuf,
    codec: Codec,
}

impl Clip {
    /// A moving test picture of `seconds` at 25 frames a second, with a key frame every 2 s.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails.
    pub fn test_picture(dir: &Path, codec: Codec, width: u32, height: u32, seconds: u32) -> Result<Self> {
        let source = format!("testsrc2=size={width}x{height}:rate=25:duration={seconds}");
        encode(dir, &format!("test-{width}x{height}"), codec, &["-f", "lavfi", "-i", &source], 25, None)
    }

    /// As [`Clip::test_picture`], of one second with a key frame every 0.2 s: whoever joins sees something at once.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails.
    pub fn quick(dir: &Path, codec: Codec, width: u32, height: u32) -> Result<Self> {
        let source = format!("testsrc2=size={width}x{height}:rate=25:duration=2");
        let name = format!("quick-{width}x{height}");
        encode_with(dir, &name, codec, &["-f", "lavfi", "-i", &source], 5, None)
    }

    /// Two H.264 clips, one behind the other, as a camera that is switched to another resolution while it streams.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails.
    pub fn then(&self, next: &Clip) -> Result<Self> {
        let path = self.path.with_extension("joined.mkv");
        let mut parts = Vec::new();
        for clip in [self, next] {
            // MPEG-TS carries the parameter sets in the stream, so they change where the pictures do.
            let part = clip.path.with_extension("ts");
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(&clip.path);
            command.args(["-map", "0:v:0", "-c", "copy", "-bsf:v", "h264_mp4toannexb", "-f", "mpegts"]).arg(&part);
            run(command)?;
            parts.push(part.display().to_string());
        }
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-y", "-loglevel", "error", "-fflags", "+genpts", "-i"]);
        command.arg(format!("concat:{}", parts.join("|"))).args(["-map", "0:v:0", "-c", "copy"]).arg(&path);
        run(command)?;
        Ok(Self { path, codec: self.codec })
    }

    /// Its pictures as JPEG files, four a second; gives their folder.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails.
    pub fn stills(&self) -> Result<PathBuf> {
        let folder = self.path.with_extension("stills");
        fs::create_dir_all(&folder).map_err(|e| RigError::failed(format!("make {}", folder.display()), e))?;
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(&self.path);
        command.args(["-vf", "fps=4", "-pix_fmt", "yuvj420p"]).arg(folder.join("%03d.jpg"));
        run(command)?;
        Ok(folder)
    }

    /// What a street camera sends: 1920×1080 H.264.
    ///
    /// # Errors
    /// When ffmpeg is missing or fails.
    pub fn full_hd(dir: &Path, seconds: u32) -> Result<Self> {
        Self::test_picture(dir, Codec::H264, 1920, 1080, seconds)
    }

    /// Real footage, coded anew. `frames_per_second` is the footage's own rate; it sets a key frame every 2 s.
    /// `size` scales it (width, height).
    ///
    /// # Errors
    /// When the footage cannot be read, or ffmpeg is missing or fails.
    pub fn from_footage(
        dir: &Path,
        footage: &Path,
        codec: Codec,
        frames_per_second: u32,
        size: Option<(u32, u32)>,
    ) -> Result<Self> {
        let Some(input) = footage.to_str() else {
            return Err(RigError::failed(format!("read {}", footage.display()), "its path is not UTF-8"));
        };
        encode(dir, "footage", codec, &["-i", input], frames_per_second, size)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How its pictures are coded.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// A copy that ends in the middle of a picture, after `percent` of its bytes: a recording the power cut.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn truncated(&self, percent: usize) -> Result<PathBuf> {
        let to = self.path.with_extension(format!("{percent}-percent.mkv"));
        let cut = || {
            let bytes = fs::read(&self.path)?;
            fs::write(&to, &bytes[..bytes.len() * percent.min(100) / 100])
        };
        cut().map_err(|e| RigError::failed(format!("write {}", to.display()), e))?;
        Ok(to)
    }

    /// A copy with one byte in `every` changed, behind the container's header: a bad line or a failing disk.
    /// The same `seed` damages the same bytes.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn damaged(&self, seed: u64, every: u64) -> Result<PathBuf> {
        const HEADER_BYTES: usize = 4096;
        let to = self.path.with_extension(format!("damaged-{seed}.mkv"));
        let mut random = Xorshift::new(seed);
        let mut damage = || {
            let mut bytes = fs::read(&self.path)?;
            for byte in bytes.iter_mut().skip(HEADER_BYTES) {
                if random.next().is_multiple_of(every.max(1)) {
                    *byte ^= (random.next() % 255) as u8 + 1;
                }
            }
            fs::write(&to, bytes)
        };
        damage().map_err(|e| RigError::failed(format!("write {}", to.display()), e))?;
        Ok(to)
    }
}

/// A file of random bytes that is called a video. The same `seed` gives the same file.
///
/// # Errors
/// When it cannot be written.
pub fn garbage(dir: &Path, seed: u64, len: usize) -> Result<PathBuf> {
    let path = dir.join(format!("garbage-{seed}.avi"));
    let mut random = Xorshift::new(seed);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.next() as u8).take(len).collect();
    fs::write(&path, bytes).map_err(|e| RigError::failed(format!("write {}", path.display()), e))?;
    Ok(path)
}

/// The first `seconds` of real footage, as they are: nothing is coded anew.
///
/// # Errors
/// When the footage cannot be read, or ffmpeg is missing or fails.
pub fn beginning_of(dir: &Path, footage: &Path, seconds: u32) -> Result<PathBuf> {
    fs::create_dir_all(dir).map_err(|e| RigError::failed(format!("make {}", dir.display()), e))?;
    let path = dir.join(format!("first-{seconds}-s.avi"));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(footage);
    command.args(["-t", &seconds.to_string(), "-map", "0:v:0", "-an", "-c", "copy"]).arg(&path);
    run(command)?;
    Ok(path)
}

/// Debian's street footage as `make setup` put it: 768×576, 10 frames a second, 79.5 s.
#[must_use]
pub fn vtest() -> PathBuf {
    repository().join("target/gengfu/media/vtest.avi")
}

/// Debian's footage as a street camera would send it: 1920×1080 H.264, 25 pictures a second, a key frame every 2 s; the first
/// `seconds` of 79. Made once and kept with what set-up fetched, because the whole takes a minute.
///
/// # Errors
/// When the footage is absent, or ffmpeg is missing or fails.
pub fn street_camera(seconds: u32) -> Result<PathBuf> {
    let path = repository().join(format!("target/gengfu/media/street-1080p25-{seconds}s.mkv"));
    if path.is_file() {
        return Ok(path);
    }
    // Under another name until it is whole: another test may look for it.
    let part = path.with_extension(format!("{}.part.mkv", std::process::id()));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(vtest());
    command.args([
        "-vf",
        "scale=1920:1080,fps=25",
        "-an",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-pix_fmt",
        "yuv420p",
    ]);
    command
        .args([
            "-t",
            &seconds.to_string(),
            "-b:v",
            "4M",
            "-bf",
            "0",
            "-g",
            "50",
            "-keyint_min",
            "50",
            "-sc_threshold",
            "0",
        ])
        .arg(&part);
    run(command)?;
    fs::rename(&part, &path).map_err(|e| RigError::failed(format!("name {}", path.display()), e))?;
    Ok(path)
}

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this crate lies in a folder of the repository")
}

fn encode(
    dir: &Path,
    name: &str,
    codec: Codec,
    input: &[&str],
    frames_per_second: u32,
    size: Option<(u32, u32)>,
) -> Result<Clip> {
    encode_with(dir, name, codec, input, 2 * frames_per_second, size)
}

/// With a key frame every `gop` pictures.
fn encode_with(
    dir: &Path,
    name: &str,
    codec: Codec,
    input: &[&str],
    gop: u32,
    size: Option<(u32, u32)>,
) -> Result<Clip> {
    fs::create_dir_all(dir).map_err(|e| RigError::failed(format!("make {}", dir.display()), e))?;
    let path = dir.join(format!("{name}-{codec:?}.mkv").to_lowercase());
    let gop = gop.to_string();
    let x265 = format!("log-level=error:keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-y", "-loglevel", "error"]).args(input).args(["-map", "0:v:0", "-an"]);
    if let Some((width, height)) = size {
        command.args(["-vf", &format!("scale={width}:{height}")]);
    }
    match codec {
        Codec::H264 | Codec::H264B => command
            .args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"])
            .args(["-bf", if codec == Codec::H264B { "2" } else { "0" }])
            .args(["-g", &gop, "-keyint_min", &gop, "-sc_threshold", "0"]),
        Codec::H265 => command
            .args(["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"])
            .args(["-x265-params", &x265]),
        // RTP's JPEG (RFC 2435) knows 4:2:0 with the standard Huffman tables.
        Codec::Mjpeg => command
            .args(["-c:v", "mjpeg", "-q:v", "5", "-pix_fmt", "yuvj420p", "-huffman", "default"])
            .args(["-force_duplicated_matrix", "1"]),
    };
    command.arg(&path);
    run(command)?;
    Ok(Clip { path, codec })
}

/// Marsaglia's xorshift64: enough to break files in a way that a seed repeats.
struct Xorshift(u64);

impl Xorshift {
    fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
