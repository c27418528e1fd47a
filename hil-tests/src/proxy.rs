//! The network path between a client and the broker, with its faults: cut, refuse, swallow, delay, each
//! direction by itself. It owns sockets and bytes; it refuses to understand them. Faults at an exact MQTT packet
//! are [`crate::mqtt_proxy`]'s.
#![expect(clippy::disallowed_methods, reason = "delays bytes of real sockets by real time")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ports::Port;
use crate::{Result, RigError};

/// Chunks in flight in one direction of one connection; a full queue pushes back on the sender, as TCP does.
const QUEUE_CHUNKS: usize = 256;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client that connected to the proxy.
    ToServer,
    /// Back to it.
    ToClient,
}

/// What happens to bytes that arrive from now on. Bytes on their way keep what they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Treatment {
    /// They are passed on at once.
    #[default]
    Pass,
    /// They disappear, while the connection looks healthy: a black hole. A connection that lost bytes cannot be
    /// healed by `Pass`, its stream has a hole; cut it.
    Swallow,
    /// One byte in `every` is changed on its way, as a bad cable behind a bad checksum does; the same seed changes the same bytes of a
    /// connection that reads in the same pieces.
    Garble {
        /// One in so many, at least 1.
        every: u32,
        /// Which ones.
        seed: u64,
    },
    /// They are passed on later. It adds latency; it does not limit how much flows.
    Delay(Duration),
}

#[derive(Debug, Default)]
struct Shared {
    to_server: Mutex<Treatment>,
    to_client: Mutex<Treatment>,
    refusing: AtomicBool,
    stopping: AtomicBool,
    accepted: AtomicU64,
    swallowed: AtomicU64,
    /// Both ends of every connection that may still be open.
    open: Mutex<Vec<TcpStream>>,
}

/// A running proxy. Dropping it cuts all connections and closes the port.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of its own and passes every connection on to `server`, which may be down: then the
    /// client's connection is closed at once, as a refused one would be.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))
            .map_err(|e| RigError::failed(format!("listen on {}", port.addr()), e))?;
        let shared = Arc::new(Shared::default());
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, server, &for_acceptor));
        Ok(Self { port, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Sets what happens to bytes of one direction, on open connections and new ones.
    pub fn set(&self, direction: Direction, treatment: Treatment) {
        *lock(self.shared.treatment(direction)) = treatment;
    }

    /// Swallows everything in both directions, on open connections and new ones: the silent outage.
    pub fn blackhole(&self) {
        self.set(Direction::ToServer, Treatment::Swallow);
        self.set(Direction::ToClient, Treatment::Swallow);
    }

    /// Closes all connections now, unsent bytes included. New ones are welcome.
    pub fn cut(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes all connections and every new one: the loud outage. `false` ends it.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
        if refusing {
            self.cut();
        }
    }

    /// Ends every fault: connections that lost bytes are cut, all else passes.
    pub fn heal(&self) {
        self.set(Direction::ToServer, Treatment::Pass);
        self.set(Direction::ToClient, Treatment::Pass);
        if self.shared.swallowed.swap(0, Ordering::SeqCst) > 0 {
            self.cut();
        }
        self.refuse(false);
    }

    /// Connections made to it so far, refused ones included: how a test knows that a client came back.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes swallowed since the last [`Proxy::heal`]: how a test knows that its fault happened.
    #[must_use]
    pub fn swallowed_bytes(&self) -> u64 {
        self.shared.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which is blocked in accept.
        let _ = TcpStream::connect(self.addr());
        if let Some(acceptor) = self.acceptor.take() {
            // It can only have ended by a panic of its own, which has been printed.
            let _ = acceptor.join();
        }
        self.cut();
    }
}

impl Shared {
    fn treatment(&self, direction: Direction) -> &Mutex<Treatment> {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// A panicking thread leaves these values whole, so its poison means nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let Ok(client) = client else { continue };
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(upstream) = TcpStream::connect_timeout(&server, Duration::from_secs(5)) else { continue };
        // A descriptor less is a connection less; the test sees it as a refused one.
        let _ = join(&client, &upstream, shared);
    }
}

fn join(client: &TcpStream, upstream: &TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    for stream in [client, upstream] {
        stream.set_nodelay(true)?;
    }
    let pairs = [
        (Direction::ToServer, client.try_clone()?, upstream.try_clone()?),
        (Direction::ToClient, upstream.try_clone()?, client.try_clone()?),
    ];
    {
        let mut open = lock(&shared.open);
        // Forget those whose peer is gone, so that a long storm of reconnects does not eat descriptors.
        open.retain(|s| s.peer_addr().is_ok());
        open.extend([client.try_clone()?, upstream.try_clone()?]);
    }
    if shared.refusing.load(Ordering::SeqCst) {
        // Refused after this connection was let in, and perhaps before it was in the list of those to cut.
        return client.shutdown(Shutdown::Both);
    }
    for (direction, from, to) in pairs {
        let shared = Arc::clone(shared);
        let (queue, arrivals) = sync_channel(QUEUE_CHUNKS);
        std::thread::spawn(move || forward(from, direction, &shared, &queue));
        std::thread::spawn(move || deliver(to, &arrivals));
    }
    Ok(())
}

/// Reads one direction and gives every chunk its fate.
fn forward(mut from: TcpStream, direction: Direction, shared: &Shared, queue: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0_u64;
    // An error is a cut connection: the same as its end.
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let treatment = *lock(shared.treatment(direction));
        let due_at = match treatment {
            Treatment::Pass => Instant::now(),
            Treatment::Garble { every, seed } => {
                garble(&mut buffer[..count], every, seed ^ passed);
                Instant::now()
            }
            Treatment::Delay(by) => Instant::now() + by,
            Treatment::Swallow => {
                shared.swallowed.fetch_add(count as u64, Ordering::SeqCst);
                continue;
            }
        };
        passed += count as u64;
        if queue.send((due_at, buffer[..count].to_vec())).is_err() {
            break;
        }
    }
    // Nothing more will come this way; the other way ends by itself.
    let _ = from.shutdown(Shutdown::Read);
}

fn garble(bytes: &mut [u8], every: u32, seed: u64) {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for byte in bytes {
        if random.random_ratio(1, every.max(1)) {
            *byte ^= random.random_range(1..=u8::MAX);
        }
    }
}

/// Writes one direction, each chunk when it is due. Order is kept also when a delay gets shorter.
fn deliver(mut to: TcpStream, arrivals: &Receiver<(Instant, Vec<u8>)>) {
    for (due_at, bytes) in arrivals {
        std::thread::sleep(due_at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The sender has closed: tell the receiver, after all it had sent.
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::eventually;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        addr
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn exchange(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(word)?;
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back)?;
        Ok(back)
    }

    #[test]
    fn bytes_pass_both_ways_and_the_end_of_a_stream_too() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        assert_eq!(exchange(&mut stream, b"mind your fires").unwrap(), b"mind your fires");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_cut_ends_open_connections_and_lets_new_ones_in() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        exchange(&mut stream, b"x").unwrap();
        proxy.cut();
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
        assert_eq!(exchange(&mut connect(&proxy), b"y").unwrap(), b"y");
    }

    #[test]
    fn swallowed_bytes_are_counted_and_their_connection_is_cut_when_healed() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        exchange(&mut stream, b"x").unwrap();
        proxy.blackhole();
        stream.write_all(b"lost").unwrap();
        eventually("four bytes swallowed", SOON, || match proxy.swallowed_bytes() {
            4 => Ok(()),
            n => Err(format!("{n} bytes")),
        })
        .unwrap();
        proxy.heal();
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
        assert_eq!(exchange(&mut connect(&proxy), b"y").unwrap(), b"y");
    }

    #[test]
    fn garbled_bytes_are_changed_and_as_many_as_before() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        proxy.set(Direction::ToClient, Treatment::Garble { every: 1, seed: 7 });
        let back = exchange(&mut stream, b"mind your fires").unwrap();
        assert!(back.iter().zip(b"mind your fires").all(|(is, was)| is != was), "{back:?}");
        proxy.heal();
        assert_eq!(exchange(&mut stream, b"x").unwrap(), b"x");
    }

    #[test]
    fn refusing_closes_every_connection_until_healed() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.refuse(true);
        assert!(exchange(&mut connect(&proxy), b"x").is_err());
        proxy.heal();
        assert_eq!(exchange(&mut connect(&proxy), b"y").unwrap(), b"y");
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn a_delay_holds_bytes_back_at_least_so_long_and_keeps_their_order() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        let delay = Duration::from_millis(30);
        proxy.set(Direction::ToServer, Treatment::Delay(delay));
        let sent_at = Instant::now();
        stream.write_all(b"first, ").unwrap();
        stream.write_all(b"second").unwrap();
        let mut back = [0; 13];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"first, second");
        assert!(sent_at.elapsed() >= delay);
    }
}
