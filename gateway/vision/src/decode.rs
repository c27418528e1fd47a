//! From packets to the pictures that are wanted. Owns the decoder, the choice of frames and the stream's time line; refuses
//! to decode what nobody will look at: in key-frame mode other packets are dropped before the decoder sees them.

use std::collections::VecDeque;
use std::sync::Arc;

use ffmpeg::codec;
use ffmpeg_next as ffmpeg;
use serde::{Deserialize, Serialize};

use crate::clock::Stopwatch;
use crate::hwaccel::{Device, HwAccel};
use crate::keys::{KeyChoice, Treatment};
use crate::picture::VideoFrame;
use crate::source::{CODECS, Source, SourceError, SourceUrl, Transport, Watchdog};
use crate::thrift::{Thrift, Turns};

/// Which frames are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeMode {
    /// Only key frames: one picture every one to four seconds with usual cameras, at a small fraction of the work.
    KeyFrames,
    /// Key frames as long as they come often enough for [`CaptureConfig::dwell_ms`], else every frame.
    Auto,
    /// Every frame, then thinned out to the frame rate limit.
    #[default]
    EveryFrame,
}

/// What to open and which pictures of it are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureConfig {
    /// File path or camera address.
    pub url: SourceUrl,
    /// How RTP travels; for cameras only.
    #[serde(default)]
    pub transport: Transport,
    /// Which frames are decoded.
    #[serde(default)]
    pub decode: DecodeMode,
    /// At most this many pictures per second of stream time are handed on; 0.01 to 60.
    pub fps_max: f32,
    /// Begin a file again at its end; for files only.
    #[serde(default, rename = "loop")]
    pub looped: bool,
    /// How long a camera may send nothing, milliseconds.
    #[serde(default = "default_silence_ms")]
    pub silence_ms: u64,
    /// The shortest time a thing may stand in a zone of this camera, milliseconds: what [`DecodeMode::Auto`] chooses by.
    #[serde(default)]
    pub dwell_ms: Option<u64>,
    /// Time between two requests of a picture over HTTP, milliseconds; 100 to 600,000.
    #[serde(default = "default_snapshot_every_ms")]
    pub snapshot_every_ms: u64,
    /// Let a graphics unit decode.
    #[serde(default)]
    pub hwaccel: Option<HwAccel>,
}

fn default_silence_ms() -> u64 {
    8000
}

fn default_snapshot_every_ms() -> u64 {
    2000
}

impl CaptureConfig {
    /// Everything as where nothing is said: TCP, the frames that suffice, two pictures a second.
    #[must_use]
    pub fn new(url: SourceUrl) -> Self {
        Self {
            url,
            transport: Transport::Tcp,
            decode: DecodeMode::Auto,
            fps_max: 2.0,
            looped: false,
            silence_ms: default_silence_ms(),
            dwell_ms: None,
            snapshot_every_ms: default_snapshot_every_ms(),
            hwaccel: None,
        }
    }

    /// Every fault: key, then what is wrong and what to do.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.url.fault().map(|f| format!("url: {f}")).into_iter().collect();
        if !(0.01..=60.0).contains(&self.fps_max) {
            faults.push("fps_max: must be from 0.01 to 60".to_owned());
        }
        if !(100..=600_000).contains(&self.silence_ms) {
            faults.push("silence_ms: must be from 100 to 600000".to_owned());
        }
        if !(100..=600_000).contains(&self.snapshot_every_ms) {
            faults.push("snapshot_every_ms: must be from 100 to 600000".to_owned());
        }
        faults
    }
}

/// Pictures out of a stream, one by one.
pub struct Capture {
    config: CaptureConfig,
    watchdog: Watchdog,
    source: Source,
    decoder: codec::decoder::Video,
    time_base_ms: f64,
    timeline: Timeline,
    sampler: Sampler,
    ready: VecDeque<VideoFrame>,
    drained: bool,
    decode_us: u64,
    counters: Counters,
    failed_in_a_row: u32,
    thrift: Arc<Thrift>,
    turns: Turns,
    choice: KeyChoice,
    device: Option<Device>,
    /// When this capture began, when it last asked for a picture over HTTP, and when a picture last came, on the watchdog's clock.
    begun_ms: u64,
    asked_ms: u64,
    pictured_ms: u64,
}

/// What a capture has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of the video read.
    pub packets: u64,
    /// Pictures that came out of the decoder.
    pub decoded: u64,
    /// Packets the decoder refused.
    pub decode_errors: u64,
    /// Only key frames are decoded now.
    pub key_frames_only: bool,
}

/// Packets in a row the decoder may refuse before the stream is given up.
const FAILED_MAX: u32 = 250;
/// A camera whose packets make no picture for this long (and three times the allowed silence) is opened again, ms: garbage that
/// looks like a stream, or an encoder that never sends a key frame. A connection begins with one.
const PICTURELESS_MAX_MS: u64 = 60_000;

impl Capture {
    /// Opens the stream. `start_ms` is the stream time of the first picture: pass where the last capture of the same camera
    /// ended, so that time goes on over a reconnection.
    ///
    /// # Errors
    /// As [`Source::open`]; [`SourceError::NoVideo`] also for a codec that is not supported.
    pub fn open(config: &CaptureConfig, start_ms: i64, watchdog: Watchdog) -> Result<Self, SourceError> {
        let asked_ms = watchdog.now_ms();
        let Opened { source, decoder, time_base_ms, interval_ms, device } = open_decoder(config, &watchdog)?;
        let choice = match config.decode {
            DecodeMode::Auto => KeyChoice::measured(config.dwell_ms),
            fixed => KeyChoice::fixed(fixed == DecodeMode::KeyFrames),
        };
        Ok(Self {
            config: config.clone(),
            choice,
            device,
            begun_ms: asked_ms,
            asked_ms,
            pictured_ms: watchdog.now_ms(),
            watchdog,
            timeline: Timeline::new(start_ms, interval_ms, source.is_live()),
            sampler: Sampler::new(config.fps_max, interval_ms),
            source,
            decoder,
            time_base_ms,
            ready: VecDeque::new(),
            drained: false,
            decode_us: 0,
            counters: Counters::default(),
            failed_in_a_row: 0,
            thrift: Arc::default(),
            turns: Turns::default(),
        })
    }

    /// Takes less from now on whenever `thrift` says so.
    #[must_use]
    pub fn heeding(mut self, thrift: Arc<Thrift>) -> Self {
        self.thrift = thrift;
        self
    }

    /// The next wanted picture, or `None` at the end of a file that is not looped.
    ///
    /// # Errors
    /// How the stream stopped; see [`SourceError`].
    pub fn next_frame(&mut self) -> Result<Option<VideoFrame>, SourceError> {
        let mut packet = ffmpeg::Packet::empty();
        loop {
            if let Some(mut frame) = self.ready.pop_front() {
                frame.decode_us = std::mem::take(&mut self.decode_us);
                return Ok(Some(frame));
            }
            if self.drained {
                if self.counters.decoded == 0 {
                    return Err(self.corrupt("no picture could be decoded from it"));
                }
                if self.source.is_snapshot() {
                    self.wait_for_turn()?;
                } else if !self.config.looped {
                    return Ok(None);
                }
                self.rewind()?;
            }
            self.expect_pictures()?;
            match self.source.read(&mut packet)? {
                Some(()) => self.decode(&packet)?,
                None => self.drain(),
            }
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Stream time at which a later capture of the same camera should go on.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        self.timeline.next_ms()
    }

    fn decode(&mut self, packet: &ffmpeg::Packet) -> Result<(), SourceError> {
        self.counters.packets += 1;
        let (stamp_ms, key) = (self.line_ms(packet.pts().or_else(|| packet.dts())), packet.is_key());
        let chosen = self.choice.packet(stamp_ms, key);
        let Some(forced) = self.turns.key_only(&self.thrift, stamp_ms, key) else { return Ok(()) };
        let treatment = match (forced, key) {
            (true, true) => Treatment::KeyAlone,
            (true, false) => Treatment::Skip,
            (false, _) => chosen,
        };
        self.counters.key_frames_only = forced || self.choice.key_only();
        let alone = treatment == Treatment::KeyAlone;
        if treatment == Treatment::Skip || (alone && !self.is_due(stamp_ms)) {
            return Ok(());
        }
        let stopwatch = Stopwatch::start();
        if let Err(cause) = self.decoder.send_packet(packet) {
            self.counters.decode_errors += 1;
            self.failed_in_a_row += 1;
            if self.failed_in_a_row >= FAILED_MAX {
                return Err(self.corrupt(&cause.to_string()));
            }
        }
        if alone {
            // A decoder holds pictures back to put them in order; a lone key frame would come out only with the next one,
            // seconds later. Draining after each brings it out at once, and flushing makes the decoder usable again.
            let _ = self.decoder.send_eof();
            self.receive(true);
            self.decoder.flush();
        } else {
            self.receive(false);
        }
        self.decode_us += stopwatch.us();
        Ok(())
    }

    /// A stamp of the stream on a line of milliseconds; a single picture has none, its time is when it was asked for.
    fn line_ms(&self, stamp: Option<i64>) -> Option<i64> {
        if self.source.is_snapshot() {
            return i64::try_from(self.asked_ms - self.begun_ms).ok();
        }
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of stream time fit an i64 by far")]
        stamp.map(|t| (t as f64 * self.time_base_ms).round() as i64)
    }

    /// Has the turn of a lone key frame come? It stands for itself: one that nobody wants need not be decoded (of MJPEG that is most).
    fn is_due(&mut self, stamp_ms: Option<i64>) -> bool {
        self.sampler.would_want(self.timeline.peek(stamp_ms))
            && stamp_ms.is_none_or(|ms| self.turns.wants(&self.thrift, ms))
    }

    /// Takes what the decoder has; `chosen`: it was asked for this very picture.
    fn receive(&mut self, chosen: bool) {
        loop {
            let mut picture = ffmpeg::frame::Video::empty();
            if self.decoder.receive_frame(&mut picture).is_err() {
                return;
            }
            let raw_ms = self.line_ms(picture.timestamp());
            let fetched = match &self.device {
                Some(device) => device.fetch(picture),
                None => Ok(picture),
            };
            let Ok(picture) = fetched else {
                self.counters.decode_errors += 1;
                continue;
            };
            self.counters.decoded += 1;
            self.failed_in_a_row = 0;
            self.pictured_ms = self.watchdog.now_ms();
            let pts_ms = self.timeline.place(raw_ms);
            if self.sampler.wants(pts_ms) && (chosen || raw_ms.is_none_or(|ms| self.turns.wants(&self.thrift, ms))) {
                self.ready.push_back(VideoFrame { picture, pts_ms, decode_us: 0 });
            }
        }
    }

    /// Gives a camera up whose packets make no picture.
    fn expect_pictures(&self) -> Result<(), SourceError> {
        let limit_ms = PICTURELESS_MAX_MS.max(self.config.silence_ms.saturating_mul(3));
        if self.source.is_live() && self.watchdog.now_ms().saturating_sub(self.pictured_ms) > limit_ms {
            return Err(self.corrupt(&format!("it sends, but for {} s nothing was a picture", limit_ms / 1000)));
        }
        Ok(())
    }

    /// Waits until the next picture is to be asked for.
    fn wait_for_turn(&mut self) -> Result<(), SourceError> {
        let due_ms = self.asked_ms.saturating_add(self.config.snapshot_every_ms);
        self.watchdog.rest();
        if self.watchdog.wait_until(due_ms) {
            return Err(SourceError::Stopped);
        }
        self.asked_ms = self.watchdog.now_ms();
        Ok(())
    }

    fn drain(&mut self) {
        let _ = self.decoder.send_eof();
        self.receive(false);
        self.drained = true;
    }

    /// Opens the file anew: seeking back is not reliable in every container.
    fn rewind(&mut self) -> Result<(), SourceError> {
        let opened = open_decoder(&self.config, &self.watchdog)?;
        self.source = opened.source;
        self.decoder = opened.decoder;
        self.device = opened.device;
        self.time_base_ms = opened.time_base_ms;
        if !self.source.is_snapshot() {
            self.timeline.restart();
        }
        self.drained = false;
        Ok(())
    }

    fn corrupt(&self, cause: &str) -> SourceError {
        SourceError::Corrupt { source_name: self.source.name().to_owned(), cause: cause.to_owned() }
    }
}

struct Opened {
    source: Source,
    decoder: codec::decoder::Video,
    time_base_ms: f64,
    interval_ms: i64,
    device: Option<Device>,
}

fn open_decoder(config: &CaptureConfig, watchdog: &Watchdog) -> Result<Opened, SourceError> {
    let mut source = Source::open(&config.url, config.transport, config.silence_ms, watchdog.clone())?;
    source.discard(config.decode == DecodeMode::KeyFrames);
    let name = source.name().to_owned();
    let no_video = |found: String| SourceError::NoVideo { source_name: name.clone(), found };
    let stream = source.stream().ok_or_else(|| no_video("the stream vanished".to_owned()))?;
    let allowed = |name: &str| CODECS.split(',').any(|allowed| allowed == name);
    let found = match codec::decoder::find(stream.parameters().id()) {
        Some(found) if allowed(found.name()) => found,
        Some(found) => return Err(no_video(found.name().to_owned())),
        None => return Err(no_video("unknown codec".to_owned())),
    };
    let device = config.hwaccel.as_ref().map(|wanted| Device::open(wanted, found)).transpose();
    let device = device.map_err(|e| SourceError::Hardware { source_name: name.clone(), cause: e })?;
    let mut context = codec::Context::from_parameters(stream.parameters()).map_err(|e| no_video(e.to_string()))?;
    context.set_threading(codec::threading::Config {
        kind: codec::threading::Type::None,
        count: 1,
        ..Default::default()
    });
    if let Some(device) = &device {
        device.lend(&mut context);
    }
    let mut decoder = context.decoder();
    if config.decode == DecodeMode::KeyFrames {
        decoder.skip_frame(codec::discard::Discard::NonKey);
    }
    let time_base_ms = f64::from(stream.time_base()) * 1000.0;
    let rate = f64::from(stream.avg_frame_rate());
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the clamp")]
    let interval_ms =
        if rate.is_finite() && rate > 0.0 { (1000.0 / rate).clamp(1.0, 10_000.0).round() as i64 } else { 100 };
    let decoder = decoder.video().map_err(|e| no_video(e.to_string()))?;
    Ok(Opened { source, decoder, time_base_ms, interval_ms, device })
}

/// Turns time stamps of a stream into a time line that never runs backwards: over a file's loop, a camera whose clock is
/// set, and frames without a stamp.
#[derive(Debug, Clone)]
struct Timeline {
    /// Raw time that is zero on the line; none until the first frame after a (re)start.
    base_ms: Option<i64>,
    start_ms: i64,
    last_ms: Option<i64>,
    interval_ms: i64,
    live: bool,
}

/// A live stream's stamp further ahead than this is a clock that was set, not a gap.
const LIVE_JUMP_MS: i64 = 60_000;

impl Timeline {
    fn new(start_ms: i64, interval_ms: i64, live: bool) -> Self {
        Self { base_ms: None, start_ms, last_ms: None, interval_ms, live }
    }

    fn next_ms(&self) -> i64 {
        self.last_ms.map_or(self.start_ms, |last| last + self.interval_ms)
    }

    fn restart(&mut self) {
        self.base_ms = None;
    }

    /// Where [`Timeline::place`] would put the stamp.
    fn peek(&self, raw_ms: Option<i64>) -> i64 {
        self.clone().place(raw_ms)
    }

    fn place(&mut self, raw_ms: Option<i64>) -> i64 {
        let expected = self.next_ms();
        let Some(raw) = raw_ms else {
            self.last_ms = Some(expected);
            return expected;
        };
        let base = *self.base_ms.get_or_insert(raw.saturating_sub(expected));
        let mut ms = raw.saturating_sub(base);
        let last = self.last_ms.unwrap_or(ms);
        if ms < last || (self.live && ms > last.saturating_add(LIVE_JUMP_MS)) {
            self.base_ms = Some(raw.saturating_sub(expected));
            ms = expected;
        }
        self.last_ms = Some(ms);
        ms
    }
}

/// Thins pictures out to a highest rate.
#[derive(Debug, Clone)]
struct Sampler {
    interval_ms: f64,
    /// How much too early a picture may be and still be the one for its turn: the stream's own beat is never exact.
    slack_ms: f64,
    due_ms: f64,
}

impl Sampler {
    fn new(fps_max: f32, source_interval_ms: i64) -> Self {
        let interval_ms = 1000.0 / f64::from(fps_max.clamp(0.01, 60.0));
        let slack_ms = (source_interval_ms as f64 * 0.4).min(interval_ms / 10.0);
        Self { interval_ms, slack_ms, due_ms: f64::NEG_INFINITY }
    }

    /// What [`Sampler::wants`] would say.
    fn would_want(&self, ms: i64) -> bool {
        ms as f64 + self.slack_ms >= self.due_ms
    }

    fn wants(&mut self, ms: i64) -> bool {
        if !self.would_want(ms) {
            return false;
        }
        let ms = ms as f64;
        // Keep the beat when on time; begin a new one after a gap.
        self.due_ms = if ms > self.due_ms + self.interval_ms { ms } else { self.due_ms } + self.interval_ms;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_takes_evenly() {
        let taken = |fps: f32, step: f64, count: i32| {
            let mut sampler = Sampler::new(fps, step.round() as i64);
            (0..count).filter(|&i| sampler.wants((f64::from(i) * step).round() as i64)).count()
        };
        assert_eq!(taken(5.0, 100.0, 100), 50);
        assert_eq!(taken(5.0, 1000.0 / 29.66, 290), 49, "9.8 s of 29.66 fps");
        assert_eq!(taken(60.0, 100.0, 100), 100);
        assert_eq!(taken(0.5, 2000.0, 20), 20, "key frames every 2 s");
    }

    #[test]
    fn a_slow_rate_takes_the_picture_of_its_turn() {
        let mut sampler = Sampler::new(1.0, 100);
        let taken: Vec<i64> = (0..=30).map(|i| i * 100).filter(|&ms| sampler.wants(ms)).collect();
        assert_eq!(taken, [0, 1000, 2000, 3000]);
    }

    #[test]
    fn the_time_line_goes_on_over_loops_jumps_and_missing_stamps() {
        let mut line = Timeline::new(0, 100, true);
        let placed: Vec<_> = [Some(5000), Some(5100), None, Some(5300)].map(|raw| line.place(raw)).into();
        assert_eq!(placed, [0, 100, 200, 300]);
        assert_eq!(line.place(Some(20)), 400, "backwards");
        assert_eq!(line.place(Some(120)), 500);
        assert_eq!(line.place(Some(9_000_000)), 600, "a clock that was set");
        line.restart();
        assert_eq!(line.place(Some(0)), 700, "loop");
        let mut file = Timeline::new(1000, 40, false);
        assert_eq!([file.place(Some(0)), file.place(Some(120_000))], [1000, 121_000], "a file may have gaps");
    }
}
