//! Where the three threads of a worker meet: the reader of commands, the capture, the analysis. Owns the newest picture and two
//! short queues; refuses to grow: a picture that was not taken is replaced (and counted), commands wait in the pipe.

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

/// What the analysis finds when it looks.
#[derive(Default)]
pub(super) struct Work {
    pub commands: VecDeque<ParentMessage>,
    pub events: VecDeque<SourceEvent>,
    pub frame: Option<Arrived>,
    pub input_ended: bool,
    pub shed: u64,
}

#[derive(Default)]
struct Inner {
    frame: Option<Arrived>,
    shed: u64,
    events: VecDeque<SourceEvent>,
    commands: VecDeque<ParentMessage>,
    input_ended: bool,
    stopped: bool,
}

#[derive(Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// More commands than this wait in the pipe, that is, with the gateway.
const COMMANDS_MAX: usize = 32;

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked left whole values behind: every change below is a single assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl FnMut(&mut Inner) -> bool) -> MutexGuard<'_, Inner> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a picture. Lossless: waits until the one before was taken; otherwise replaces and counts it.
    pub fn offer(&self, arrived: Arrived, lossless: bool) {
        let mut inner = if lossless { self.wait_while(|i| i.frame.is_some() && !i.stopped) } else { self.lock() };
        inner.shed += u64::from(inner.frame.is_some());
        inner.frame = Some(arrived);
        self.changed.notify_all();
    }

    /// Waits until the last picture was taken.
    pub fn wait_taken(&self) {
        drop(self.wait_while(|i| i.frame.is_some() && !i.stopped));
    }

    pub fn tell(&self, event: SourceEvent) {
        self.lock().events.push_back(event);
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

    /// Waits for `ms` or until the worker stops; true if it stops.
    pub fn pause(&self, ms: u64) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), Duration::from_millis(ms), |i| !i.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// Takes everything there is, waiting for something for at most `ms`.
    pub fn take(&self, ms: u64) -> Work {
        let nothing =
            |i: &mut Inner| i.frame.is_none() && i.events.is_empty() && i.commands.is_empty() && !i.input_ended;
        let waited = self.changed.wait_timeout_while(self.lock(), Duration::from_millis(ms), nothing);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        let work = Work {
            commands: std::mem::take(&mut inner.commands),
            events: std::mem::take(&mut inner.events),
            frame: inner.frame.take(),
            input_ended: inner.input_ended,
            shed: inner.shed,
        };
        self.changed.notify_all();
        work
    }
}
