//! A port's task: bytes between one serial device and the sessions of its nodes.
//!
//! Owns when the port is opened again, the batches on their way to the decider, and the orders that come from elsewhere. Refuses to wait for the disk
//! while bytes arrive: a decider that is busy leaves events with the nodes, and no node of a bus waits for another one's batch.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gengfu_contract::event::ClockQuality;
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::{CancellationToken, PollSender};

use super::bus::Moment;
use super::line::Line;
use super::port::Port;
use super::stats::LinkStats;
use super::{LinkBatch, LinkCommand, PortConfig, Problem, Refusal};
use crate::clock::Clock;

/// First and longest wait before a port is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the sessions are told the time, and their figures are shown.
const TICK: Duration = Duration::from_millis(250);

/// What a port's task is joined to. `saved` and `stats` are in the order of [`PortConfig::nodes`].
pub struct PortEnds {
    /// What is stored under each node's [`super::NodeConfig::cursor_key`].
    pub saved: Vec<Option<Vec<u8>>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// To the decider. When it is full nodes keep their events; when it is closed nobody judges any more, and the task ends.
    pub observed: mpsc::Sender<LinkBatch>,
    /// What is shown of each node.
    pub stats: Vec<watch::Sender<LinkStats>>,
    /// Orders for the port's nodes. May be closed.
    pub commands: mpsc::Receiver<LinkCommand>,
    /// Ends the task.
    pub stop: CancellationToken,
}

/// Serves one port and all nodes on it until `stop`.
pub async fn run(config: PortConfig, ends: PortEnds) {
    let PortEnds { saved, clock, observed, stats, mut commands, stop } = ends;
    let mut task = PortTask::new(config, saved, clock);
    let mut observed = PollSender::new(observed);
    let mut answers: FuturesUnordered<Pending> = FuturesUnordered::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0_u8; 512];
    let mut takes_orders = true;
    loop {
        task.fill();
        let has_batch = task.next_batch().is_some();
        let wake_at = task.wake_at();
        let (reader, writer) = task.port.split();
        tokio::select! {
            // Bytes before deadlines: an answer that waits to be read has come in time.
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {
                task.tick();
                task.publish(&stats);
            }
            read = reader.read(&mut buffer) => task.on_read(read, &buffer),
            written = writer.write(&task.out), if !task.out.is_empty() => task.on_written(written),
            Some((node, done)) = answers.next() => task.on_done(node, done),
            // The place in the queue is kept from one turn of this loop to the next.
            ready = poll_fn(|cx| observed.poll_reserve(cx)), if has_batch => match ready {
                Ok(()) => {
                    if let Some((batch, pending)) = task.take_batch() {
                        answers.push(pending);
                        if observed.send_item(batch).is_err() {
                            break;
                        }
                    }
                }
                Err(_) => break,
            },
            command = commands.recv(), if takes_orders => match command {
                Some(command) => task.on_command(command),
                None => takes_orders = false,
            },
            () = wake(wake_at) => task.on_wake(),
        }
    }
    task.publish(&stats);
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A batch of one node at the decider.
struct Pending {
    node: usize,
    done: oneshot::Receiver<Result<(), String>>,
}

impl Future for Pending {
    type Output = (usize, Result<(), String>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let node = self.node;
        Pin::new(&mut self.done)
            .poll(cx)
            .map(|done| (node, done.unwrap_or_else(|_| Err("the decider gave no answer".into()))))
    }
}

struct PortTask {
    config: PortConfig,
    line: Line,
    clock: Arc<dyn Clock>,
    /// Asked at each tick only: it is a system call.
    quality: ClockQuality,
    started: Instant,
    port: Port,
    out: Vec<u8>,
    /// The node whose batch was handed over last; the next one goes first.
    last_batch: usize,
    retry_at: Instant,
    retry_after: Duration,
}

impl PortTask {
    fn new(config: PortConfig, saved: Vec<Option<Vec<u8>>>, clock: Arc<dyn Clock>) -> Self {
        let started = Instant::now();
        let now = Moment { at: clock.now(), quality: clock.quality(), uptime: Duration::ZERO };
        Self {
            line: Line::new(&config, saved, now),
            quality: now.quality,
            config,
            clock,
            started,
            port: Port::default(),
            out: Vec::new(),
            last_batch: 0,
            retry_at: started,
            retry_after: RETRY_FIRST,
        }
    }

    fn now(&self) -> Moment {
        Moment { at: self.clock.now(), quality: self.quality, uptime: self.started.elapsed() }
    }

    fn publish(&self, stats: &[watch::Sender<LinkStats>]) {
        for (session, shown) in self.line.sessions().iter().zip(stats) {
            shown.send_if_modified(|shown| {
                let is_news = shown != session.stats();
                if is_news {
                    shown.clone_from(session.stats());
                }
                is_news
            });
        }
    }

    fn fill(&mut self) {
        if self.port.is_open() {
            self.line.fill(self.now(), &mut self.out);
        }
    }

    /// When the port is tried again, or the line has something to do; not while its question is still being written.
    fn wake_at(&self) -> Option<Instant> {
        if !self.port.is_open() {
            return Some(self.retry_at);
        }
        self.line.due_at().filter(|_| self.out.is_empty()).map(|uptime| self.started + uptime)
    }

    fn on_wake(&mut self) {
        if self.port.is_open() {
            self.line.on_due(self.now());
        } else {
            self.open();
        }
    }

    fn tick(&mut self) {
        self.quality = self.clock.quality();
        self.line.tick(self.now());
    }

    fn on_read(&mut self, read: io::Result<usize>, buffer: &[u8]) {
        match read {
            Ok(0) => self.lose(Problem::HungUp),
            Ok(length) => {
                self.line.on_bytes(self.now(), &buffer[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::info!(port = %self.config.port().display(), %error, "read");
                self.lose(Problem::HungUp);
            }
        }
    }

    fn on_written(&mut self, written: io::Result<usize>) {
        match written {
            Ok(length) => {
                self.out.drain(..length);
                if self.out.is_empty() {
                    self.line.written(self.now());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::info!(port = %self.config.port().display(), %error, "write");
                self.lose(Problem::HungUp);
            }
        }
    }

    /// The node whose batch goes next, each in turn.
    fn next_batch(&self) -> Option<usize> {
        let sessions = self.line.sessions();
        (1..=sessions.len())
            .map(|offset| (self.last_batch + offset) % sessions.len())
            .find(|node| sessions[*node].has_batch())
    }

    fn take_batch(&mut self) -> Option<(LinkBatch, Pending)> {
        let node = self.next_batch()?;
        self.last_batch = node;
        let session = &mut self.line.sessions_mut()[node];
        let batch = session.take_batch()?;
        let cursor = (session.config().cursor_key(), batch.cursor.to_bytes());
        let (answer, done) = oneshot::channel();
        Some((LinkBatch { observations: batch.observations, cursor, done: answer }, Pending { node, done }))
    }

    fn on_done(&mut self, node: usize, done: Result<(), String>) {
        let session = &mut self.line.sessions_mut()[node];
        match done {
            Ok(()) => session.committed(),
            Err(why) => {
                let node = &session.config().node;
                tracing::error!(%node, %why, "not stored, so not acknowledged; the node keeps its events");
                session.failed();
            }
        }
    }

    fn on_command(&mut self, command: LinkCommand) {
        let session = self.line.sessions_mut().iter_mut().find(|session| session.config().node == command.node);
        let taken = session.map_or(Err(Refusal::UnknownNode), |session| session.order(&command.order));
        tracing::info!(node = %command.node, order = ?command.order, ?taken, "order");
        // Who asked may have gone.
        let _ = command.answer.send(taken);
    }

    fn open(&mut self) {
        match self.port.open(self.config.port(), self.config.baud()) {
            Ok(()) => {
                self.retry_after = RETRY_FIRST;
                self.line.port_opened(self.now());
                tracing::info!(port = %self.config.port().display(), "port open");
            }
            Err(problem) => self.lose(problem),
        }
    }

    /// Closes the port and sets when it is tried again: later each time, and never all links of a gateway at once.
    fn lose(&mut self, problem: Problem) {
        self.port.close();
        self.out.clear();
        tracing::info!(port = %self.config.port().display(), problem = %problem.text().en, "port closed");
        self.line.port_lost(self.now(), problem);
        self.retry_at = Instant::now() + self.retry_after.mul_f64(rand::rng().random_range(0.75..1.25));
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
    }
}
