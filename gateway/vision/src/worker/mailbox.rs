//! Where the threads of a worker meet: the reader of commands, a capture for each camera, the analysis. Owns the newest picture of each
//! camera and short queues; refuses to grow: a picture that was not taken is replaced (and counted), commands wait in the pipe.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::picture::VideoFrame;
use crate::pipeline::Moment;
use crate::protocol::{ErrorKind, ParentMessage};

/// A picture and when it arrived.
pub(super) struct Arrived {
    pub frame: VideoFrame,
    pub moment: Moment,
    /// When it was decoded, on the worker's clock.
    pub arrived_ms: i64,
    pub decode_errors: u64,
}

/// What the capture has to say besides pictures.
#[derive(Debug)]
pub(super) enum SourceEvent {
    Connecting,
    Streaming,
    Ended,
    Failed { kind: ErrorKind, message: String, retry_in_ms: u64 },
}

/// What the analysis finds when it looks: commands, and what one camera has. Cameras come in turn, so that a lively one cannot
/// keep the others waiting.
#[derive(Default)]
pub(super) struct Work {
    pub commands: VecDeque<ParentMessage>,
    /// Number of the camera, and what it has.
    pub camera: Option<(usize, CameraWork)>,
    pub input_ended: bool,
}

/// What one camera has.
#[derive(Default)]
pub(super) struct CameraWork {
    pub events: VecDeque<SourceEvent>,
    pub frame: Option<Arrived>,
}

#[derive(Default)]
struct Slot {
    frame: Option<Arrived>,
    shed: u64,
    events: VecDeque<SourceEvent>,
}

struct Inner {
    slots: Vec<Slot>,
    /// The camera whose turn is next.
    next: usize,
    commands: VecDeque<ParentMessage>,
    input_ended: bool,
    stopped: bool,
}

pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// More commands than this wait in the pipe, that is, with the gateway.
const COMMANDS_MAX: usize = 256;

impl Mailbox {
    pub fn new(cameras: usize) -> Self {
        let inner = Inner {
            slots: std::iter::repeat_with(Slot::default).take(cameras).collect(),
            next: 0,
            commands: VecDeque::new(),
            input_ended: false,
            stopped: false,
        };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked left whole values behind: every change below is a single assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl FnMut(&mut Inner) -> bool) -> MutexGuard<'_, Inner> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a camera's picture. Lossless: waits until the one before was taken; otherwise replaces and counts it.
    pub fn offer(&self, camera: usize, arrived: Arrived, lossless: bool) {
        let taken = |i: &mut Inner| i.slots[camera].frame.is_some() && !i.stopped;
        let mut inner = if lossless { self.wait_while(taken) } else { self.lock() };
        let slot = &mut inner.slots[camera];
        slot.shed += u64::from(slot.frame.is_some());
        slot.frame = Some(arrived);
        self.changed.notify_all();
    }

    /// Waits until the camera's last picture was taken.
    pub fn wait_taken(&self, camera: usize) {
        drop(self.wait_while(|i| i.slots[camera].frame.is_some() && !i.stopped));
    }

    pub fn tell(&self, camera: usize, event: SourceEvent) {
        self.lock().slots[camera].events.push_back(event);
        self.changed.notify_all();
    }

    pub fn command(&self, command: ParentMessage) {
        let mut inner = self.wait_while(|i| i.commands.len() >= COMMANDS_MAX && !i.stopped);
        inner.commands.push_back(command);
        self.changed.notify_all();
    }

    pub fn end_input(&self) {
        self.lock().input_ended = true;
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Pictures of this camera that were replaced before they were taken.
    pub fn shed(&self, camera: usize) -> u64 {
        self.lock().slots[camera].shed
    }

    /// Waits for `ms` or until the worker stops; true if it stops.
    pub fn pause(&self, ms: u64) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), Duration::from_millis(ms), |i| !i.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// Takes all commands and what the next camera has, waiting for something for at most `ms`.
    pub fn take(&self, ms: u64) -> Work {
        let has = |slot: &Slot| slot.frame.is_some() || !slot.events.is_empty();
        let nothing = |i: &mut Inner| !i.slots.iter().any(has) && i.commands.is_empty() && !i.input_ended;
        let waited = self.changed.wait_timeout_while(self.lock(), Duration::from_millis(ms), nothing);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        let (count, next) = (inner.slots.len(), inner.next);
        let turn = (0..count).map(|i| (next + i) % count).find(|&camera| has(&inner.slots[camera]));
        let camera = turn.map(|camera| {
            inner.next = (camera + 1) % count;
            let slot = &mut inner.slots[camera];
            (camera, CameraWork { events: std::mem::take(&mut slot.events), frame: slot.frame.take() })
        });
        let work = Work { commands: std::mem::take(&mut inner.commands), camera, input_ended: inner.input_ended };
        self.changed.notify_all();
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{RgbPicture, VideoFrame};

    fn arrived(pts_ms: i64) -> Arrived {
        let frame = VideoFrame::from_rgb(&RgbPicture::new(2, 2).unwrap(), pts_ms).unwrap();
        Arrived { frame, moment: Moment { at_ms: pts_ms, stream_ms: pts_ms }, arrived_ms: pts_ms, decode_errors: 0 }
    }

    #[test]
    fn cameras_come_in_turn_and_the_newest_picture_counts() {
        let mailbox = Mailbox::new(3);
        for pts_ms in 0..5 {
            mailbox.offer(0, arrived(pts_ms), false);
        }
        mailbox.offer(2, arrived(100), false);
        let mut taken = Vec::new();
        for _ in 0..2 {
            let (camera, work) = mailbox.take(0).camera.unwrap();
            taken.push((camera, work.frame.unwrap().frame.pts_ms));
            mailbox.offer(0, arrived(50), false);
        }
        assert_eq!(taken, [(0, 4), (2, 100)], "the lively first camera waits for its turn");
        assert_eq!((mailbox.shed(0), mailbox.shed(2)), (5, 0));
        assert_eq!(mailbox.take(0).camera.map(|(camera, _)| camera), Some(0));
        assert!(mailbox.take(0).camera.is_none());
    }
}
