//! The operating system's serial port.
//!
//! Owns opening with the right words for what is wrong, the lock, reading and writing. Refuses to flush: tcdrain(3) blocks as long as the far end
//! does not read.
//!
//! A serial device that is gone reads as end of file for ever; that, an error, and a node that is silent are different states. The port is locked by
//! flock(2), which ends with the process, and not by TIOCEXCL, which on a pseudo-terminal outlives a killed gateway. The path is followed anew at every
//! opening, so a name below /dev/serial/by-path finds its adapter also when the kernel has renumbered it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};

use super::Problem;

/// A port that is open, or not.
#[derive(Debug, Default)]
pub struct Port {
    ends: Option<(ReadHalf<SerialStream>, WriteHalf<SerialStream>)>,
}

impl Port {
    /// Opens it and throws away what arrived while nobody listened; nodes keep what matters and send it again.
    ///
    /// # Errors
    /// [`Problem`] with what to do.
    pub fn open(&mut self, path: &Path, baud: u32) -> Result<(), Problem> {
        self.ends = Some(tokio::io::split(open(path, baud)?));
        Ok(())
    }

    /// Lets it go.
    pub fn close(&mut self) {
        self.ends = None;
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ends.is_some()
    }

    /// Both directions, which are used at the same time; neither completes while the port is closed.
    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match &mut self.ends {
            Some((reader, writer)) => (Reader(Some(reader)), Writer(Some(writer))),
            None => (Reader(None), Writer(None)),
        }
    }
}

/// What comes in.
pub struct Reader<'a>(Option<&'a mut ReadHalf<SerialStream>>);

impl Reader<'_> {
    /// Reads what is there, and waits for something; 0 is the end of the port. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn read(self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {
            Some(port) => port.read(buffer).await,
            None => std::future::pending().await,
        }
    }
}

/// What goes out.
pub struct Writer<'a>(Option<&'a mut WriteHalf<SerialStream>>);

impl Writer<'_> {
    /// Writes what the operating system takes; the rest is to be offered again. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn write(self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(port) => port.write(bytes).await,
            None => std::future::pending().await,
        }
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
