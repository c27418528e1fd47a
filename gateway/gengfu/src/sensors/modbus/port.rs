//! Opening a line: a serial port that is ours alone, or a TCP connection.
//!
//! Owns the lock on the port, and that nothing which arrived before a request is taken for its answer: RTU has no request numbers. Refuses
//! to retry: the line's task does.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_modbus::client::{Context, rtu, tcp};
use tokio_modbus::slave::Slave;
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt, SerialStream};

use crate::sensors::config::{Parity, Way};
use crate::sensors::stats::Problem;

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the line.
///
/// # Errors
/// What is wrong, with its remedy.
pub async fn open(way: &Way) -> Result<Context, Problem> {
    match way {
        Way::Serial { port, baud, parity, stop_bits } => {
            let stream = open_serial(port, *baud, *parity, *stop_bits)?;
            Ok(rtu::attach_slave(Quiet(stream), Slave(1)))
        }
        Way::Tcp { host, port } => {
            let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)));
            let unreachable = |why: String| Problem::Unreachable(format!("{host}:{port}: {why}"));
            let stream = connect
                .await
                .map_err(|_| unreachable("no answer in time".into()))?
                .map_err(|error| unreachable(error.to_string()))?;
            // A request is one small segment; waiting to fill it would cost 40 ms each.
            stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            Ok(tcp::attach_slave(stream, Slave(1)))
        }
    }
}

fn open_serial(path: &Path, baud: u32, parity: Parity, stop_bits: u8) -> Result<SerialStream, Problem> {
    // Asked first, because the serial library's errors do not tell these apart.
    if let Err(error) = std::fs::metadata(path) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => Problem::NoPort,
            io::ErrorKind::PermissionDenied => Problem::Permission,
            _ => Problem::Port(error.to_string()),
        });
    }
    let name = path.to_str().ok_or_else(|| Problem::Port("its path is not UTF-8".into()))?;
    let parity = match parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    };
    let stop = if stop_bits == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One };
    let builder = tokio_serial::new(name, baud).parity(parity).stop_bits(stop).exclusive(false);
    let stream = builder.open_native_async().map_err(|error| match error.kind() {
        tokio_serial::ErrorKind::Io(io::ErrorKind::NotFound) => Problem::NoPort,
        tokio_serial::ErrorKind::Io(io::ErrorKind::PermissionDenied) => Problem::Permission,
        tokio_serial::ErrorKind::Io(io::ErrorKind::WouldBlock) | tokio_serial::ErrorKind::NoDevice => Problem::Busy,
        _ => Problem::Port(error.to_string()),
    })?;
    // SAFETY: the descriptor belongs to `stream`, which outlives this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    match flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(stream),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Problem::Busy),
        Err(error) => Err(Problem::Port(error.to_string())),
    }
}

/// A serial port that forgets what it has received when a request is written: it can only be late, an echo or noise.
#[derive(Debug)]
struct Quiet(SerialStream);

impl AsyncRead for Quiet {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A unit answers only a whole request, so nothing of an answer can be lost here, whatever part of the request this is.
        self.0.clear(ClearBuffer::Input).map_err(io::Error::other)?;
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    /// Does not wait for the wire: tcdrain(3) blocks the whole thread.
    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
