//! The port: bytes between one serial device and its session.
//!
//! Owns opening with retries, reading, writing, hang-ups, and the batch on its way to the decider. Refuses to wait for the disk while bytes
//! arrive, and to flush: tcdrain(3) blocks as long as the far end does not read.
//!
//! A serial device that is gone reads as end of file for ever; that, an error, and a node that is silent are different states. The port
//! is locked by flock(2), which ends with the process, and not by TIOCEXCL, which on a pseudo-terminal outlives a killed gateway.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gengfu_wire::{FRAME_BYTES_MAX, encode};
use rand::Rng;
use rustix::fs::{FlockOperation, flock};
use std::os::fd::{AsRawFd, BorrowedFd};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::stats::{LinkStats, Problem};
use super::{LinkBatch, LinkConfig};
use crate::clock::Clock;

/// First and longest wait before a port is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the session is told the time.
const TICK: Duration = Duration::from_millis(250);
/// Bytes that may wait to be written. A node that does not read is not there; what is beyond is dropped, and all of it is repeated.
const OUT_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

type Pending = oneshot::Receiver<Result<(), String>>;

/// Serves one link until `stop`. `saved` is the value stored under [`LinkConfig::cursor_key`]. When `observed` is full it waits, and so does the
/// node; when it is closed nobody judges any more, and it ends.
pub async fn run(
    config: LinkConfig,
    saved: Option<Vec<u8>>,
    clock: Arc<dyn Clock>,
    observed: mpsc::Sender<LinkBatch>,
    stats: watch::Sender<LinkStats>,
    stop: CancellationToken,
) {
    let session = Session::new(config.clone(), saved.as_deref(), clock.now());
    let mut link = SerialLink {
        config,
        session,
        clock,
        reader: None,
        writer: None,
        out: Vec::new(),
        pending: None,
        retry_at: Instant::now(),
        retry_after: RETRY_FIRST,
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0_u8; 512];
    loop {
        link.fill_out();
        link.publish(&stats);
        let has_batch = link.pending.is_none() && link.session.has_batch();
        tokio::select! {
            () = stop.cancelled() => break,
            read = read(&mut link.reader, &mut buffer) => link.on_read(read, &buffer),
            written = write(&mut link.writer, &link.out), if !link.out.is_empty() => link.on_written(written),
            done = answer(&mut link.pending) => link.on_done(done),
            permit = observed.reserve(), if has_batch => match permit {
                Ok(permit) => link.hand_over(permit),
                Err(_) => break,
            },
            () = sleep_until(link.retry_at), if link.reader.is_none() => link.open(),
            _ = ticks.tick() => link.session.tick(link.clock.now(), link.clock.quality()),
        }
    }
    link.publish(&stats);
}

struct SerialLink {
    config: LinkConfig,
    session: Session,
    clock: Arc<dyn Clock>,
    /// Both ends of the open port, or neither.
    reader: Option<ReadHalf<SerialStream>>,
    writer: Option<WriteHalf<SerialStream>>,
    out: Vec<u8>,
    pending: Option<Pending>,
    retry_at: Instant,
    retry_after: Duration,
}

async fn read(port: &mut Option<ReadHalf<SerialStream>>, buffer: &mut [u8]) -> io::Result<usize> {
    match port {
        Some(port) => port.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn write(port: &mut Option<WriteHalf<SerialStream>>, bytes: &[u8]) -> io::Result<usize> {
    match port {
        Some(port) => port.write(bytes).await,
        None => std::future::pending().await,
    }
}

async fn answer(pending: &mut Option<Pending>) -> Result<(), String> {
    match pending {
        Some(done) => done.await.unwrap_or_else(|_| Err("the decider gave no answer".into())),
        None => std::future::pending().await,
    }
}

impl SerialLink {
    fn publish(&self, stats: &watch::Sender<LinkStats>) {
        stats.send_if_modified(|shown| {
            let is_news = shown != self.session.stats();
            if is_news {
                shown.clone_from(self.session.stats());
            }
            is_news
        });
    }

    fn fill_out(&mut self) {
        let now = self.clock.now();
        let mut buffer = [0; FRAME_BYTES_MAX];
        while self.writer.is_some() && self.out.len() < OUT_BYTES_MAX {
            let Some(frame) = self.session.take_send(now) else { break };
            match encode(&frame, &mut buffer) {
                Ok(bytes) => self.out.extend_from_slice(bytes),
                Err(error) => {
                    tracing::error!(node = %self.config.node, %error, ?frame, "a frame of our own cannot be sent")
                }
            }
        }
    }

    fn on_read(&mut self, read: io::Result<usize>, buffer: &[u8]) {
        match read {
            Ok(0) => self.lose(Problem::HungUp),
            Ok(length) => self.session.on_bytes(self.clock.now(), self.clock.quality(), &buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::info!(node = %self.config.node, %error, "read");
                self.lose(Problem::HungUp);
            }
        }
    }

    fn on_written(&mut self, written: io::Result<usize>) {
        match written {
            Ok(length) => drop(self.out.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::info!(node = %self.config.node, %error, "write");
                self.lose(Problem::HungUp);
            }
        }
    }

    fn hand_over(&mut self, permit: mpsc::Permit<'_, LinkBatch>) {
        if let Some(batch) = self.session.take_batch() {
            let (done, pending) = oneshot::channel();
            let cursor = (self.config.cursor_key(), batch.cursor.to_bytes());
            self.pending = Some(pending);
            permit.send(LinkBatch { observations: batch.observations, cursor, done });
        }
    }

    fn on_done(&mut self, done: Result<(), String>) {
        self.pending = None;
        match done {
            Ok(()) => self.session.committed(),
            Err(why) => {
                tracing::error!(node = %self.config.node, %why, "not stored, so not acknowledged; the node keeps its events");
                self.session.failed();
            }
        }
    }

    fn open(&mut self) {
        match open(&self.config.port, self.config.baud) {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (self.reader, self.writer) = (Some(reader), Some(writer));
                self.retry_after = RETRY_FIRST;
                self.session.port_opened(self.clock.now());
                tracing::info!(node = %self.config.node, port = %self.config.port.display(), "port open");
            }
            Err(problem) => self.lose(problem),
        }
    }

    /// Closes the port and sets when it is tried again: later each time, and never all links of a gateway at once.
    fn lose(&mut self, problem: Problem) {
        (self.reader, self.writer) = (None, None);
        self.out.clear();
        tracing::info!(node = %self.config.node, port = %self.config.port.display(), problem = %problem.text().en, "port closed");
        self.session.port_lost(self.clock.now(), problem);
        self.retry_at = Instant::now() + self.retry_after.mul_f64(rand::rng().random_range(0.75..1.25));
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
    }
}

fn open(path: &Path, baud: u32) -> Result<SerialStream, Problem> {
    // Asked first, because the serial library's errors do not tell these apart.
    if let Err(error) = std::fs::metadata(path) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => Problem::NoPort,
            io::ErrorKind::PermissionDenied => Problem::Permission,
            _ => Problem::Port(error.to_string()),
        });
    }
    let name = path.to_str().ok_or_else(|| Problem::Port("its path is not UTF-8".into()))?;
    let stream =
        tokio_serial::new(name, baud).exclusive(false).open_native_async().map_err(|error| match error.kind() {
            tokio_serial::ErrorKind::Io(io::ErrorKind::NotFound) => Problem::NoPort,
            tokio_serial::ErrorKind::Io(io::ErrorKind::PermissionDenied) => Problem::Permission,
            tokio_serial::ErrorKind::Io(io::ErrorKind::WouldBlock) | tokio_serial::ErrorKind::NoDevice => Problem::Busy,
            _ => Problem::Port(error.to_string()),
        })?;
    // SAFETY: the descriptor belongs to `stream`, which outlives this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    match flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(Problem::Busy),
        Err(error) => return Err(Problem::Port(error.to_string())),
    }
    // What arrived while nobody listened is old; the node keeps what matters and sends it again.
    stream.clear(tokio_serial::ClearBuffer::Input).map_err(|error| Problem::Port(error.to_string()))?;
    Ok(stream)
}
