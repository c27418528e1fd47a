//! The capture thread of one camera: opens the source, hands on pictures at their time, opens it again when it breaks. Owns pacing and
//! reconnection; refuses to analyse.

use std::sync::Arc;

use super::mailbox::{Arrived, Mailbox, SourceEvent};
use crate::clock::Clock;
use crate::decode::Capture;
use crate::pipeline::Moment;
use crate::protocol::{ErrorKind, WorkerConfig};
use crate::source::{Backoff, SourceError, Watchdog};
use crate::thrift::Thrift;

pub(super) struct CaptureLoop<'a> {
    /// The camera's number in the mailbox.
    pub camera: usize,
    pub config: &'a WorkerConfig,
    pub thrift: Arc<Thrift>,
    pub clock: &'a dyn Clock,
    pub mailbox: &'a Mailbox,
    pub watchdog: Watchdog,
    /// Wall time of stream time zero, when not paced.
    pub start_at_ms: i64,
}

impl CaptureLoop<'_> {
    /// Runs until a file ends or the worker stops.
    pub fn run(&self) {
        let seed = self
            .config
            .camera
            .bytes()
            .fold(self.clock.wall_ms().unsigned_abs(), |s, b| s.rotate_left(5) ^ u64::from(b));
        let mut backoff = Backoff::new(seed);
        let mut next_ms = 0;
        loop {
            self.mailbox.tell(self.camera, SourceEvent::Connecting);
            let played = self.play(&mut next_ms, &mut backoff);
            self.watchdog.rest();
            let Err(error) = played else {
                self.mailbox.wait_taken(self.camera);
                self.mailbox.tell(self.camera, SourceEvent::Ended);
                return;
            };
            if matches!(error, SourceError::Stopped) || self.watchdog.stopped() {
                return;
            }
            let retry_in_ms = backoff.next_ms();
            self.mailbox.tell(
                self.camera,
                SourceEvent::Failed { kind: kind_of(&error), message: error.to_string(), retry_in_ms },
            );
            if self.mailbox.pause(retry_in_ms) {
                return;
            }
        }
    }

    /// Plays the source until it ends (`Ok`: a file's end) or breaks.
    fn play(&self, next_ms: &mut i64, backoff: &mut Backoff) -> Result<(), SourceError> {
        let capture = Capture::open(&self.config.capture, *next_ms, self.watchdog.clone())?;
        let mut capture = capture.heeding(Arc::clone(&self.thrift));
        let paced = self.config.is_paced();
        let held_back = paced && !self.config.capture.url.is_live();
        let mut first: Option<(i64, i64)> = None;
        loop {
            let frame = capture.next_frame();
            // What follows waits for others, and may.
            self.watchdog.rest();
            *next_ms = capture.end_ms();
            let Some(frame) = frame? else { return Ok(()) };
            let (begun_ms, first_pts_ms) = *first.get_or_insert_with(|| {
                self.mailbox.tell(self.camera, SourceEvent::Streaming);
                backoff.reset();
                (self.clock.mono_ms(), frame.pts_ms)
            });
            let due_ms = begun_ms + (frame.pts_ms - first_pts_ms);
            if held_back && self.wait_until(due_ms) {
                return Err(SourceError::Stopped);
            }
            let moment = if paced {
                Moment { at_ms: self.clock.wall_ms(), stream_ms: self.clock.mono_ms() }
            } else {
                Moment { at_ms: self.start_at_ms + frame.pts_ms, stream_ms: frame.pts_ms }
            };
            let decode_errors = capture.counters().decode_errors;
            let arrived_ms = self.clock.mono_ms();
            self.mailbox.offer(self.camera, Arrived { frame, moment, arrived_ms, decode_errors }, !paced);
            if self.watchdog.stopped() {
                return Err(SourceError::Stopped);
            }
        }
    }

    fn wait_until(&self, due_ms: i64) -> bool {
        let wait_ms = u64::try_from(due_ms - self.clock.mono_ms()).unwrap_or(0);
        wait_ms > 0 && self.mailbox.pause(wait_ms)
    }
}

fn kind_of(error: &SourceError) -> ErrorKind {
    match error {
        SourceError::Open { .. } | SourceError::Hardware { .. } => ErrorKind::Open,
        SourceError::NoVideo { .. } => ErrorKind::NoVideo,
        SourceError::Closed { .. } | SourceError::Stopped => ErrorKind::Closed,
        SourceError::Silence { .. } => ErrorKind::Silence,
        SourceError::Corrupt { .. } => ErrorKind::Corrupt,
    }
}
