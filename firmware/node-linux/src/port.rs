//! The wire: a pseudo-terminal with a stable name, or a serial device.
//!
//! Owns opening, raw mode, whole-frame writes and the symbolic link. Refuses line discipline of any kind: no echo, no signals, no CR/LF.
//! On a pseudo-terminal it keeps a descriptor of the gateway's end open, so that a gateway that dies is silence and not a hang-up.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use gengfu_node::Transmit;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Where the node's wire is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// A new pseudo-terminal; `link` becomes a symbolic link to the end that the gateway opens.
    Pty {
        /// Path of the symbolic link. An older link there is replaced; any other file is left alone and refused.
        link: PathBuf,
    },
    /// An existing serial device.
    Serial {
        /// As in `/dev/ttyUSB0`.
        path: PathBuf,
        /// Bits per second.
        baud: u32,
    },
}

/// Why there is no wire.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A system call failed.
    #[error("{doing} {path}: {why}; {remedy}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What came back.
        why: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Something that is no symbolic link has the link's name.
    #[error("{path} exists and is no symbolic link; choose another path or move it away")]
    Occupied {
        /// The path.
        path: PathBuf,
    },
}

/// An open wire.
pub(crate) struct Wire {
    fd: OwnedFd,
    /// The gateway's end, kept open (pseudo-terminal only).
    _far_end: Option<OwnedFd>,
    link: Option<(PathBuf, PathBuf)>,
    /// What a full wire did not take of the last frame.
    rest: Vec<u8>,
    /// A write failed for another reason than a full wire.
    is_broken: bool,
}

impl Wire {
    pub(crate) fn open(port: &Port) -> Result<Wire, PortError> {
        match port {
            Port::Pty { link } => open_pty(link),
            Port::Serial { path, baud } => open_serial(path, *baud),
        }
    }

    /// Reads what is there. `Ok(0)`: nothing now.
    ///
    /// # Errors
    /// When the wire is gone: a hang-up, or an adapter that was pulled.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(&self.fd, buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line hung up")),
            Ok(length) => Ok(length),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what was left of the last frame. True when nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.rest.is_empty() {
            match rustix::io::write(&self.fd, &self.rest) {
                Ok(taken) => drop(self.rest.drain(..taken)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(_) => {
                    self.rest.clear();
                    self.is_broken = true;
                    return false;
                }
            }
        }
        true
    }

    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }
}

impl Transmit for Wire {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        if !self.flush() {
            return false;
        }
        self.rest.extend_from_slice(frame);
        self.flush();
        // Taken, even if a part still waits for room here.
        !self.is_broken
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some((link, target)) = &self.link
            && fs::read_link(link).is_ok_and(|now| now == *target)
        {
            // A link that cannot be removed dangles, and the next node replaces it.
            let _ = fs::remove_file(link);
        }
    }
}

fn failed(doing: &'static str, path: &Path, why: impl Into<io::Error>, remedy: &'static str) -> PortError {
    PortError::Failed { doing, path: path.to_owned(), why: why.into(), remedy }
}

fn raw(termios: &mut Termios) {
    termios.make_raw();
}

fn open_pty(link: &Path) -> Result<Wire, PortError> {
    let multiplexer = Path::new("/dev/ptmx");
    let explain =
        |why: rustix::io::Errno| failed("open a pseudo-terminal on", multiplexer, why, "is /dev/pts mounted?");
    let fd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(explain)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(explain)?;
    grantpt(&fd).map_err(explain)?;
    unlockpt(&fd).map_err(explain)?;
    let name = ptsname(&fd, Vec::new()).map_err(explain)?;
    let target = PathBuf::from(name.to_string_lossy().into_owned());
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let far_end = rustix::fs::open(&target, flags, Mode::empty()).map_err(explain)?;
    let mut termios = tcgetattr(&far_end).map_err(explain)?;
    raw(&mut termios);
    tcsetattr(&far_end, OptionalActions::Now, &termios).map_err(explain)?;
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK).map_err(explain)?;
    publish(link, &target)?;
    let link = Some((link.to_owned(), target));
    Ok(Wire { fd, _far_end: Some(far_end), link, rest: Vec::new(), is_broken: false })
}

/// Points `link` at `target` in one step, so that a gateway never finds it missing.
fn publish(link: &Path, target: &Path) -> Result<(), PortError> {
    if fs::symlink_metadata(link).is_ok_and(|it| !it.file_type().is_symlink()) {
        return Err(PortError::Occupied { path: link.to_owned() });
    }
    let remedy = "the folder must exist and be writable";
    let mut fresh = link.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(target, &fresh).map_err(|why| failed("make the link", &fresh, why, remedy))?;
    fs::rename(&fresh, link).map_err(|why| failed("make the link", link, why, remedy))
}

fn open_serial(path: &Path, baud: u32) -> Result<Wire, PortError> {
    let remedy = "check the path, and that you are in the group dialout";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|why| failed("open", path, why, remedy))?;
    let set = || {
        let mut termios = tcgetattr(&fd)?;
        raw(&mut termios);
        termios.set_speed(baud)?;
        tcsetattr(&fd, OptionalActions::Now, &termios)
    };
    set().map_err(|why| failed("set up", path, why, "is it a serial port, and does it know this speed?"))?;
    Ok(Wire { fd, _far_end: None, link: None, rest: Vec::new(), is_broken: false })
}
