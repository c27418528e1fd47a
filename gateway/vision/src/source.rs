//! A camera or a file as a stream of packets. Owns opening, time limits, reconnecting delays and the difference between the
//! ways a stream can stop; refuses to show credentials, and refuses protocols, containers and codecs that a street camera
//! does not need (every demuxer and decoder fewer is attack surface fewer).

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ffmpeg_next as ffmpeg;
use serde::{Deserialize, Serialize};

pub use crate::address::{Scheme, SourceUrl};
use crate::clock::{Clock, SystemClock};

/// Containers a file may have, by libavformat's names.
const FILE_FORMATS: &str = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,h264,hevc";
/// Decoders that may be opened, by libavcodec's names. `msmpeg4` is what old test footage uses.
pub(crate) const CODECS: &str = "h264,hevc,mjpeg,mpeg4,msmpeg4";
/// What may come over HTTP: one JPEG, or JPEGs one after the other, with or without MIME parts between them.
const HTTP_FORMATS: &str = "jpeg_pipe,mjpeg,mpjpeg";
/// The one demuxer of [`HTTP_FORMATS`] whose end is the end of a picture and not of a stream.
const SNAPSHOT_FORMAT: &str = "jpeg_pipe";
/// Datagrams that may wait in the kernel: a key frame of some hundred KiB arrives in one burst.
const UDP_BUFFER_BYTES: &str = "1048576";
/// Packets in a row that may be unreadable before the stream is given up.
const UNREADABLE_MAX: u32 = 500;

/// How RTP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Inside the RTSP connection: no loss, and a firewall needs one port. The default.
    #[default]
    Tcp,
    /// As datagrams: for cameras that cannot do TCP.
    Udp,
}

/// Why a stream could not be opened or stopped.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Could not be opened.
    #[error(
        "{source_name} cannot be opened: {cause}; check the address, the credentials and that the camera or file is there"
    )]
    Open {
        /// Address without credentials.
        source_name: String,
        /// What libavformat said.
        cause: String,
    },
    /// Nothing in it is a video this build decodes.
    #[error("{source_name} has no video that can be decoded ({found}); set the camera to H.264, H.265 or MJPEG")]
    NoVideo {
        /// Address without credentials.
        source_name: String,
        /// What was there instead.
        found: String,
    },
    /// The camera ended the stream or the connection broke.
    #[error("{source_name} closed the stream; it will be opened again")]
    Closed {
        /// Address without credentials.
        source_name: String,
    },
    /// The connection stands but nothing arrives.
    #[error("{source_name} sent nothing for {silence_ms} ms; check the network and the camera's power")]
    Silence {
        /// Address without credentials.
        source_name: String,
        /// How long was waited.
        silence_ms: u64,
    },
    /// Bytes arrive but make no sense.
    #[error("{source_name} cannot be read: {cause}; check the file or the camera's encoder settings")]
    Corrupt {
        /// Address without credentials.
        source_name: String,
        /// What libavformat or the decoder said.
        cause: String,
    },
    /// The graphics unit that shall decode cannot.
    #[error("{source_name} cannot be decoded as configured: {cause}")]
    Hardware {
        /// Address without credentials.
        source_name: String,
        /// Why, and what to do.
        cause: crate::hwaccel::HwError,
    },
    /// The worker was told to stop.
    #[error("stopped")]
    Stopped,
}

/// Lets another thread end a read that blocks, and ends reads that take too long. libavformat asks it while it waits.
#[derive(Debug, Clone)]
pub struct Watchdog {
    shared: Arc<WatchdogState>,
}

#[derive(Debug)]
struct WatchdogState {
    // A bound on a blocking call of a C library needs real time: nothing else runs in this thread meanwhile.
    clock: SystemClock,
    deadline_ms: AtomicU64,
    stop: AtomicBool,
    /// For those that wait for their turn and not for the camera.
    waiting: Mutex<()>,
    woken: Condvar,
}

impl Watchdog {
    /// A watchdog without a deadline.
    #[must_use]
    pub fn new() -> Self {
        let state = WatchdogState {
            clock: SystemClock::new(),
            deadline_ms: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            waiting: Mutex::new(()),
            woken: Condvar::new(),
        };
        Self { shared: Arc::new(state) }
    }

    /// Ends the current and every later read.
    pub fn stop(&self) {
        let waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(waiting);
        self.shared.woken.notify_all();
    }

    /// Was [`Watchdog::stop`] called?
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Milliseconds since this watchdog was made; never runs backwards.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.clock.mono_ms()).unwrap_or(0)
    }

    /// No read is under way: none can be late.
    pub(crate) fn rest(&self) {
        self.shared.deadline_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// Is a read, or the decoding of what it gave, late by more than this? Reads end themselves at their deadline, so such a
    /// thread does not come back.
    #[must_use]
    pub(crate) fn is_stuck(&self, grace_ms: u64) -> bool {
        !self.stopped() && self.now_ms() >= self.shared.deadline_ms.load(Ordering::Relaxed).saturating_add(grace_ms)
    }

    fn allow_ms(&self, ms: u64) {
        self.shared.deadline_ms.store(self.now_ms().saturating_add(ms), Ordering::Relaxed);
    }

    /// Waits until its own clock shows `at_ms`; true if it was stopped meanwhile.
    pub(crate) fn wait_until(&self, at_ms: u64) -> bool {
        let left = Duration::from_millis(at_ms.saturating_sub(self.now_ms()));
        let waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is behind the lock, so one that a panic left is as good as any.
        drop(self.shared.woken.wait_timeout_while(waiting, left, |()| !self.stopped()));
        self.stopped()
    }

    fn expired(&self) -> bool {
        self.stopped() || self.now_ms() >= self.shared.deadline_ms.load(Ordering::Relaxed)
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

/// An open stream.
pub struct Source {
    input: ffmpeg::format::context::Input,
    watchdog: Watchdog,
    name: String,
    live: bool,
    silence_ms: u64,
    video: usize,
    snapshot: bool,
}

impl Source {
    /// Opens a file or camera. Waits at most `silence_ms` for each answer of the other side.
    ///
    /// # Errors
    /// [`SourceError::Open`], [`SourceError::NoVideo`], [`SourceError::Silence`] or [`SourceError::Stopped`].
    pub fn open(
        url: &SourceUrl,
        transport: Transport,
        silence_ms: u64,
        watchdog: Watchdog,
    ) -> Result<Self, SourceError> {
        start_library();
        let name = url.to_string();
        if let Some(fault) = url.fault() {
            return Err(SourceError::Open { source_name: name, cause: format!("the address {fault}") });
        }
        let live = url.is_live();
        let options = match url.scheme() {
            Scheme::Rtsp => camera_options(transport, silence_ms),
            Scheme::Http => http_options(silence_ms),
            Scheme::File => file_options(),
        };
        watchdog.allow_ms(silence_ms.saturating_mul(2));
        let asked = watchdog.clone();
        let asked_for = asked_for(url);
        let opened = ffmpeg::format::input_with_interrupt_and_dictionary(
            Path::new(asked_for.as_ref()),
            move || asked.expired(),
            options,
        );
        let input = opened.map_err(|cause| match cause {
            ffmpeg::Error::Exit if watchdog.stopped() => SourceError::Stopped,
            ffmpeg::Error::Exit => {
                SourceError::Silence { source_name: name.clone(), silence_ms: silence_ms.saturating_mul(2) }
            }
            // Its own texts speak of a server; that and the remedy of this error say what to do.
            other => SourceError::Open { source_name: name.clone(), cause: other.to_string() },
        })?;
        let snapshot = live && input.format().name() == SNAPSHOT_FORMAT;
        let video = input.streams().best(ffmpeg::media::Type::Video).map(|s| s.index());
        let Some(video) = video else {
            let found = format!("{} stream(s), none of them video", input.nb_streams());
            return Err(SourceError::NoVideo { source_name: name, found });
        };
        Ok(Self { input, watchdog, name, live, silence_ms, video, snapshot })
    }

    /// The stream that holds the video.
    pub(crate) fn stream(&self) -> Option<ffmpeg::format::stream::Stream<'_>> {
        self.input.stream(self.video)
    }

    /// Address without credentials.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it a network camera?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Is it one picture, to be asked for again, and not a stream?
    pub(crate) fn is_snapshot(&self) -> bool {
        self.snapshot
    }

    /// Asks the demuxer not to hand out anything but key frames, and nothing of other streams.
    pub(crate) fn discard(&mut self, key_frames_only: bool) {
        let video = self.video;
        for mut stream in self.input.streams_mut() {
            let wanted = match (stream.index() == video, key_frames_only) {
                (true, false) => ffmpeg::ffi::AVDiscard::AVDISCARD_DEFAULT,
                (true, true) => ffmpeg::ffi::AVDiscard::AVDISCARD_NONKEY,
                (false, _) => ffmpeg::ffi::AVDiscard::AVDISCARD_ALL,
            };
            // SAFETY: `discard` is a plain public field meant to be set by the user between reads; the stream belongs to
            // `self.input`, which is borrowed mutably here.
            unsafe { (*stream.as_mut_ptr()).discard = wanted };
        }
    }

    /// The next packet of the video, or `None` at the end of a file or of a single picture.
    ///
    /// # Errors
    /// [`SourceError::Closed`] when a camera ends, [`SourceError::Silence`] when it stops sending, [`SourceError::Corrupt`], or
    /// [`SourceError::Stopped`].
    pub(crate) fn read(&mut self, packet: &mut ffmpeg::Packet) -> Result<Option<()>, SourceError> {
        let mut unreadable = 0;
        loop {
            self.watchdog.allow_ms(self.silence_ms);
            match packet.read(&mut self.input) {
                Ok(()) if packet.stream() == self.video => return Ok(Some(())),
                Ok(()) => {}
                Err(ffmpeg::Error::Eof) if !self.live || self.snapshot => return Ok(None),
                Err(ffmpeg::Error::Eof) => return Err(SourceError::Closed { source_name: self.name.clone() }),
                Err(cause) => {
                    unreadable += 1;
                    self.judge(cause, unreadable)?;
                }
            }
            if self.watchdog.stopped() {
                return Err(SourceError::Stopped);
            }
        }
    }

    /// Decides whether a failed read may be tried again (`Ok`).
    fn judge(&self, cause: ffmpeg::Error, unreadable: u32) -> Result<(), SourceError> {
        let source_name = self.name.clone();
        match cause {
            ffmpeg::Error::Exit if self.watchdog.stopped() => Err(SourceError::Stopped),
            ffmpeg::Error::Exit | ffmpeg::Error::Other { errno: libc::ETIMEDOUT } => {
                Err(SourceError::Silence { source_name, silence_ms: self.silence_ms })
            }
            ffmpeg::Error::Other { errno: libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN } => {
                Err(SourceError::Closed { source_name })
            }
            // What libavformat says when an HTTP body ends too early; of a file it is the disk.
            ffmpeg::Error::Other { errno: libc::EIO } if self.live => Err(SourceError::Closed { source_name }),
            ffmpeg::Error::InvalidData | ffmpeg::Error::Other { errno: libc::EAGAIN }
                if unreadable < UNREADABLE_MAX =>
            {
                Ok(())
            }
            other => Err(SourceError::Corrupt { source_name, cause: other.to_string() }),
        }
    }
}

fn camera_options(transport: Transport, silence_ms: u64) -> ffmpeg::Dictionary<'static> {
    let mut options = ffmpeg::Dictionary::new();
    options.set(
        "rtsp_transport",
        match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        },
    );
    // Microseconds of socket silence; the watchdog bounds what this option does not reach.
    options.set("timeout", &silence_ms.saturating_mul(1000).to_string());
    options.set("buffer_size", UDP_BUFFER_BYTES);
    options.set("allowed_media_types", "video");
    options.set("protocol_whitelist", "rtsp,rtsps,rtp,udp,tcp,tls");
    options.set("codec_whitelist", CODECS);
    // Enough to see the parameter sets of a camera with a key frame every few seconds; more only delays the first picture.
    options.set("analyzeduration", "2000000");
    options.set("probesize", "1000000");
    options
}

/// What libavformat is given. From a name that ends like a picture's it concludes that this is a picture's file, and opens it by another way,
/// without these options and without saying why it failed; an empty query hides the ending and asks for the same.
fn asked_for(url: &SourceUrl) -> Cow<'_, str> {
    let text = url.reveal();
    if url.scheme() == Scheme::Http && !text.contains('?') {
        Cow::Owned(format!("{text}?"))
    } else {
        Cow::Borrowed(text)
    }
}

fn http_options(silence_ms: u64) -> ffmpeg::Dictionary<'static> {
    let mut options = ffmpeg::Dictionary::new();
    options.set("timeout", &silence_ms.saturating_mul(1000).to_string());
    options.set("protocol_whitelist", "http,https,tcp,tls");
    options.set("format_whitelist", HTTP_FORMATS);
    options.set("codec_whitelist", CODECS);
    // A camera is on the site's own network: a proxy of the environment must not see its password.
    options.set("http_proxy", "");
    // Plain GET: no ranges, no radio's metadata; small cameras answer anything else with an error.
    options.set("seekable", "0");
    options.set("icy", "0");
    options.set("user_agent", "gengfu");
    options
}

fn file_options() -> ffmpeg::Dictionary<'static> {
    let mut options = ffmpeg::Dictionary::new();
    options.set("protocol_whitelist", "file");
    options.set("format_whitelist", FILE_FORMATS);
    options.set("codec_whitelist", CODECS);
    options
}

fn start_library() {
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(|| {
        // libavformat prints addresses with their passwords; errors reach us as codes anyway.
        ffmpeg::util::log::set_level(ffmpeg::util::log::Level::Quiet);
        // Registers network protocols; on this generation of the library it cannot fail in a way that matters later.
        let _ = ffmpeg::init();
    });
}

/// Delays between attempts to open a camera: doubling from one second to thirty, each spread by a quarter so that a hundred
/// cameras behind one switch do not all come back in the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    attempt: u32,
    random: u64,
}

impl Backoff {
    /// A fresh sequence; different seeds spread differently.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { attempt: 0, random: seed | 1 }
    }

    /// Milliseconds to wait before the next attempt.
    pub fn next_ms(&mut self) -> u64 {
        let base = 1000_u64 << self.attempt.min(5);
        self.attempt = self.attempt.saturating_add(1);
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let base = base.min(30_000);
        base * 3 / 4 + self.random % (base / 2)
    }

    /// Call when pictures flow again: the next failure starts from the shortest delay.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_in_errors() {
        let url = SourceUrl::new("rtsp://admin:geheim@127.0.0.1:1/none");
        let error = Source::open(&url, Transport::Tcp, 2000, Watchdog::new()).err().unwrap();
        let text = format!("{error} {error:?}");
        assert!(!text.contains("geheim") && text.contains("127.0.0.1:1"), "{text}");
    }

    #[test]
    fn a_missing_file_and_a_text_file_are_open_errors() {
        let open =
            |path: &Path| Source::open(&SourceUrl::new(path.to_str().unwrap()), Transport::Tcp, 2000, Watchdog::new());
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(open(&folder.path().join("none.mp4")).err().unwrap(), SourceError::Open { .. }));
        let text = folder.path().join("text.mp4");
        std::fs::write(&text, "no video at all\n".repeat(1000)).unwrap();
        assert!(matches!(open(&text).err().unwrap(), SourceError::Open { .. }));
    }

    #[test]
    fn a_playlist_may_not_pull_in_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.mp4");
        std::fs::write(&list, "ffconcat version 1.0\nfile /etc/passwd\n").unwrap();
        let error =
            Source::open(&SourceUrl::new(list.to_str().unwrap()), Transport::Tcp, 2000, Watchdog::new()).err().unwrap();
        assert!(matches!(error, SourceError::Open { .. }), "{error}");
    }

    #[test]
    fn a_camera_that_accepts_and_says_nothing_is_silence_not_a_hang() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = SourceUrl::new(format!("rtsp://127.0.0.1:{}/s", listener.local_addr().unwrap().port()));
        let error = Source::open(&url, Transport::Tcp, 150, Watchdog::new()).err().unwrap();
        assert!(matches!(error, SourceError::Silence { .. } | SourceError::Open { .. }), "{error}");
    }

    #[test]
    fn delays_double_up_to_thirty_seconds_and_start_over() {
        let mut backoff = Backoff::new(7);
        let delays: Vec<_> = (0..8).map(|_| backoff.next_ms()).collect();
        for (delay, base) in delays.iter().zip([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]) {
            assert!((base * 3 / 4..base * 5 / 4).contains(delay), "{delays:?}");
        }
        backoff.reset();
        assert!(backoff.next_ms() < 1250);
    }
}
