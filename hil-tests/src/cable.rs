//! The cable between a chip's serial port and the pseudo-terminal that a gateway opens. It owns the bytes' way, the cut, and a record of
//! every frame that got through at the node's end. It refuses to lose bytes by itself, except those that a gateway which does not read leaves
//! standing: a wire has no memory.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use gengfu_node_linux::wire::{Decoder, Downlink, FRAME_BYTES_MAX, Frame, Message, Uplink, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::{Result, RigError};

/// How long the pump sleeps at most before it looks at its orders, in milliseconds.
const ORDERS_MS: i64 = 20;

/// A cable. Dropping it takes it away.
pub struct Cable {
    shared: Arc<Shared>,
    link: PathBuf,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    stop: AtomicBool,
    /// How often a chip with new power was plugged in.
    plugged: AtomicU64,
    record: Mutex<Record>,
}

/// What passed at the node's end.
#[derive(Default)]
struct Record {
    up: Vec<Uplink>,
    down: Vec<Downlink>,
    /// Frames that the rig itself sends to the node.
    inject: Vec<u8>,
}

impl Cable {
    /// Lays a cable from the emulator, which will connect to `socket`, to a new pseudo-terminal at `link`.
    ///
    /// # Errors
    /// When there is no socket or no pseudo-terminal.
    pub fn lay(socket: &Path, link: &Path) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| RigError::failed("lay the cable", e);
        let listener = UnixListener::bind(socket).map_err(|e| fail(&e))?;
        listener.set_nonblocking(true).map_err(|e| fail(&e))?;
        let (near, far, path) = open_pty().map_err(|e| fail(&e))?;
        std::os::unix::fs::symlink(path, link).map_err(|e| fail(&e))?;
        let shared = Arc::new(Shared::default());
        let mut pump = Pump {
            shared: shared.clone(),
            listener,
            node: None,
            near,
            // Kept open, so that a gateway that goes is silence and not a hang-up.
            _far: far,
            up: Decoder::new(),
            down: Decoder::new(),
        };
        let thread = std::thread::Builder::new().name("cable".into()).spawn(move || pump.run());
        Ok(Self { shared, link: link.to_owned(), thread: Some(thread.map_err(|e| fail(&e))?) })
    }

    /// Cuts the cable, or mends it. What is sent into a cut cable is gone.
    pub fn cut(&self, cut: bool) {
        self.shared.is_cut.store(cut, Ordering::SeqCst);
    }

    /// How often a chip was plugged in. What is whispered before it is counted may go to the one before, or to nobody.
    #[must_use]
    pub fn plugged(&self) -> u64 {
        self.shared.plugged.load(Ordering::SeqCst)
    }

    /// Everything whole that the node has said, also into a cut cable, since the last [`Cable::forget`].
    #[must_use]
    pub fn said(&self) -> Vec<Uplink> {
        self.shared.record().up.clone()
    }

    /// Everything whole that has reached the node from the gateway.
    #[must_use]
    pub fn told(&self) -> Vec<Downlink> {
        self.shared.record().down.clone()
    }

    /// Begins the record anew.
    pub fn forget(&self) {
        let mut record = self.shared.record();
        record.up.clear();
        record.down.clear();
    }

    /// Says something to the node at its end of the cable, cut or not.
    pub fn whisper(&self, downlink: Downlink) {
        self.whisper_to(0, downlink);
    }

    /// The same to an address on a bus.
    pub fn whisper_to(&self, address: u8, downlink: Downlink) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let frame = Frame::down(address, downlink);
        let bytes = encode(&frame, &mut buffer).expect("the rig says only what the protocol allows");
        self.shared.record().inject.extend_from_slice(bytes);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A pump that panicked has already failed the test.
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.link);
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Pump {
    shared: Arc<Shared>,
    listener: UnixListener,
    node: Option<UnixStream>,
    near: OwnedFd,
    _far: OwnedFd,
    up: Decoder,
    down: Decoder,
}

impl Pump {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            self.wait();
            if let Ok((stream, _)) = self.listener.accept() {
                // A chip with new power; the old one's port is gone.
                self.node = stream.set_nonblocking(true).is_ok().then_some(stream);
                (self.up, self.down) = (Decoder::new(), Decoder::new());
                self.shared.plugged.fetch_add(1, Ordering::SeqCst);
            }
            self.carry_up();
            self.carry_down();
        }
    }

    fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: ORDERS_MS * 1_000_000 };
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.near, PollFlags::IN)];
        fds.extend(self.node.as_ref().map(|node| PollFd::from_borrowed_fd(node.as_fd(), PollFlags::IN)));
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut fds, Some(&timeout));
    }

    /// From the node to the gateway.
    fn carry_up(&mut self) {
        let mut buffer = [0; 1024];
        while let Some(node) = &mut self.node {
            let length = match node.read(&mut buffer) {
                Ok(0) => {
                    self.node = None;
                    return;
                }
                Ok(length) => length,
                Err(_) => return,
            };
            for byte in &buffer[..length] {
                if let Some(Ok(Frame { message: Message::Up(uplink), .. })) = self.up.push(*byte) {
                    self.shared.record().up.push(uplink);
                }
            }
            if !self.shared.is_cut.load(Ordering::SeqCst) {
                // A full terminal takes a part or nothing: nobody reads at the far end.
                let _ = rustix::io::write(&self.near, &buffer[..length]);
            }
        }
    }

    /// From the gateway, and from the rig, to the node.
    fn carry_down(&mut self) {
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.near, &mut buffer) {
            if !self.shared.is_cut.load(Ordering::SeqCst) {
                for byte in &buffer[..length] {
                    if let Some(Ok(Frame { message: Message::Down(downlink), .. })) = self.down.push(*byte) {
                        self.shared.record().down.push(downlink);
                    }
                }
                self.give(&buffer[..length]);
            }
        }
        let inject = std::mem::take(&mut self.shared.record().inject);
        self.give(&inject);
    }

    fn give(&mut self, bytes: &[u8]) {
        if let Some(node) = &mut self.node {
            // The socket has room for more than a gateway says in a minute; without power nobody hears.
            let _ = node.write_all(bytes);
        }
    }
}

pub(crate) fn open_pty() -> io::Result<(OwnedFd, OwnedFd, PathBuf)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::io::fcntl_setfd(&near, rustix::io::FdFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let path = PathBuf::from(ptsname(&near, Vec::new())?.to_string_lossy().into_owned());
    let far = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut termios = tcgetattr(&far)?;
    termios.make_raw();
    tcsetattr(&far, OptionalActions::Now, &termios)?;
    rustix::fs::fcntl_setfl(&near, OFlags::NONBLOCK)?;
    Ok((near, far, path))
}
