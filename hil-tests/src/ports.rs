//! Loopback ports for servers of a test. It owns one promise: while a [`Port`] is held, no other test of this
//! machine gets the same number, and the kernel does not hand it to an outgoing connection, also while the
//! server behind it is down.
//!
//! Binding port 0 does not promise that: such a port lies in the kernel's range for outgoing connections, and
//! once its server is down, a client that keeps trying to reconnect can even connect to itself. So numbers are
//! taken below that range (32768 on Linux) and locked across processes by a lock file.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

use crate::{Result, RigError};

const FIRST: u16 = 21_000;
const COUNT: u16 = 10_000;

/// A reserved loopback port. Freed when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Held locked; the kernel unlocks it when this process ends, however it ends.
    _lock: File,
}

impl Port {
    /// Reserves a port.
    ///
    /// # Errors
    /// When the folder of lock files cannot be used, or no port is free.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // A folder a user, because one user cannot lock another's files; between users only the bind below tells.
        let user = rustix::process::getuid().as_raw();
        let dir = std::env::temp_dir().join(format!("gengfu-test-ports-{user}"));
        fs::create_dir_all(&dir).map_err(|e| RigError::failed(format!("make {}", dir.display()), e))?;
        // Test processes start at different places, so that they seldom meet at the same lock.
        let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + (u32::from(start) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
            let path = dir.join(number.to_string());
            let lock = File::create(&path).map_err(|e| RigError::failed(format!("make {}", path.display()), e))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(RigError::failed(format!("lock {}", path.display()), e)),
            }
            // Something that is not one of our tests may listen there.
            if is_free(number) {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(RigError::failed("reserve a port", "all are taken: are old test processes still running?"))
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// 127.0.0.1 with this port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Whether nobody listens there. Asked by a socket that is bound and does not listen itself: a process that is being started by another
/// thread at this moment has a copy of it until its exec, and a copy that listens would keep the port taken so long.
fn is_free(number: u16) -> bool {
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, number)).into())
    });
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_while_it_is_bound_and_taken_while_somebody_listens() {
        let port = Port::reserve().unwrap();
        let asked = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        asked.set_reuse_address(true).unwrap();
        asked.bind(&port.addr().into()).unwrap();
        assert!(is_free(port.number()));
        let listener = std::net::TcpListener::bind(port.addr()).unwrap();
        assert!(!is_free(port.number()));
        drop((asked, listener));
        assert!(is_free(port.number()));
    }

    #[test]
    fn two_held_ports_differ_and_lie_below_the_range_for_outgoing_connections() {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let low: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let held: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let numbers: std::collections::BTreeSet<u16> = held.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), held.len());
        assert!(numbers.iter().all(|n| *n < low), "{numbers:?}, the kernel's range starts at {low}");
    }
}
