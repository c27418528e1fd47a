//! An RS-485 pair: the gateway's end is a pseudo-terminal, each node's end is the pseudo-terminal that the node itself has made. It owns the
//! pair's time (bytes arrive after they have been sent, at the bus's speed) and its one rule: who speaks while another speaks spoils both, which
//! is counted. It refuses to know the protocol.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::cable::open_pty;
use crate::{Result, RigError};

/// How long the pump sleeps at most, in milliseconds.
const REST_MS: u64 = 20;
/// Bits of a byte on the line: start, eight, stop.
const BITS: u64 = 10;

/// A pair with a gateway's end and any number of nodes. Dropping it takes it away.
pub struct Bus {
    shared: Arc<Shared>,
    link: PathBuf,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    is_cut: AtomicBool,
    collisions: AtomicU64,
    bytes: AtomicU64,
}

impl Bus {
    /// Lays a pair from a new pseudo-terminal at `link` to the nodes' own at `nodes`, `baud` bits a second.
    ///
    /// # Errors
    /// When there is no pseudo-terminal, or a node's is missing.
    pub fn lay(link: &Path, nodes: &[PathBuf], baud: u32) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| RigError::failed("lay the bus", e);
        let (near, far, path) = open_pty().map_err(|e| fail(&e))?;
        let mut ends = vec![near];
        for node in nodes {
            ends.push(open_end(node).map_err(|e| RigError::failed(format!("reach {}", node.display()), e))?);
        }
        std::os::unix::fs::symlink(path, link).map_err(|e| fail(&e))?;
        let shared = Arc::new(Shared::default());
        let byte_us = (BITS * 1_000_000).div_ceil(u64::from(baud));
        let mut pump = Pump { shared: shared.clone(), ends, _far: far, byte_us, said: VecDeque::new() };
        let thread = std::thread::Builder::new().name("bus".into()).spawn(move || pump.run());
        Ok(Self { shared, link: link.to_owned(), thread: Some(thread.map_err(|e| fail(&e))?) })
    }

    /// Cuts the pair at the gateway's end, or mends it.
    pub fn cut(&self, cut: bool) {
        self.shared.is_cut.store(cut, Ordering::SeqCst);
    }

    /// How often two spoke at once.
    #[must_use]
    pub fn collisions(&self) -> u64 {
        self.shared.collisions.load(Ordering::SeqCst)
    }

    /// Bytes that were said.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A pump that panicked has already failed the test.
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.link);
    }
}

fn open_end(path: &Path) -> io::Result<OwnedFd> {
    let end =
        rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut termios = tcgetattr(&end)?;
    termios.make_raw();
    tcsetattr(&end, OptionalActions::Now, &termios)?;
    Ok(end)
}

/// What somebody says, and when it has arrived.
struct Said {
    by: usize,
    bytes: Vec<u8>,
    ends_at: Instant,
}

struct Pump {
    shared: Arc<Shared>,
    /// The gateway's end first.
    ends: Vec<OwnedFd>,
    _far: OwnedFd,
    byte_us: u64,
    said: VecDeque<Said>,
}

#[expect(clippy::disallowed_methods, reason = "the pair's time is real time: its ends are processes")]
fn now() -> Instant {
    Instant::now()
}

impl Pump {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.wait();
            let now = now();
            self.listen(now);
            self.deliver(now);
        }
    }

    fn wait(&self) {
        let rest = Duration::from_millis(REST_MS);
        let first = self.said.iter().map(|said| said.ends_at).min();
        let rest = first.map_or(rest, |at| at.saturating_duration_since(now()).min(rest));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(rest.subsec_nanos()) };
        let mut fds: Vec<PollFd> =
            self.ends.iter().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)).collect();
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn listen(&mut self, now: Instant) {
        let mut buffer = [0; 1024];
        for by in 0..self.ends.len() {
            while let Ok(length @ 1..) = rustix::io::read(&self.ends[by], &mut buffer) {
                let is_cut = by == 0 && self.shared.is_cut.load(Ordering::SeqCst);
                if !is_cut {
                    self.say(now, by, buffer[..length].to_vec());
                }
            }
        }
    }

    fn say(&mut self, now: Instant, by: usize, mut bytes: Vec<u8>) {
        self.shared.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let own_end = self.said.iter().filter(|said| said.by == by).map(|said| said.ends_at).max();
        let begins_at = own_end.map_or(now, |end| end.max(now));
        let ends_at = begins_at + Duration::from_micros(self.byte_us * bytes.len() as u64);
        let spoil = |bytes: &mut Vec<u8>| bytes.iter_mut().for_each(|byte| *byte ^= 0xa5);
        let mut collided = false;
        for other in self.said.iter_mut().filter(|other| other.by != by && other.ends_at > now) {
            collided = true;
            spoil(&mut other.bytes);
        }
        if collided {
            self.shared.collisions.fetch_add(1, Ordering::SeqCst);
            spoil(&mut bytes);
        }
        self.said.push_back(Said { by, bytes, ends_at });
    }

    fn deliver(&mut self, now: Instant) {
        let (arrived, under_way) = std::mem::take(&mut self.said).into_iter().partition(|said| said.ends_at <= now);
        self.said = under_way;
        let arrived: VecDeque<Said> = arrived;
        for said in arrived {
            for (to, end) in self.ends.iter().enumerate().filter(|(to, _)| *to != said.by) {
                let is_cut = to == 0 && self.shared.is_cut.load(Ordering::SeqCst);
                if !is_cut {
                    // A full terminal takes a part or nothing: nobody reads at that end.
                    let _ = rustix::io::write(end, &said.bytes);
                }
            }
        }
    }
}
