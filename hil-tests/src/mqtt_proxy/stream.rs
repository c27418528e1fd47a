//! One connection of the proxy: two sockets, two readers that cut packets and give each its fate, two writers that keep the times. It owns its threads, which
//! end with the connection; it refuses to decide: the script does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Direction, Fault, Seen, Shared, lock};
use crate::mqtt_packet::{Cutter, Kind, NotMqtt, Packet, Version, disconnect, puback};

/// Packets on their way in one direction; a full queue pushes back on the sender, as TCP does. Few, so that a throttled direction is felt.
const QUEUE_PACKETS: usize = 4;
/// Between the last packet and the end of a connection.
const LAST_WORD: Duration = Duration::from_millis(100);
/// A throttled direction passes its bytes in pieces of this many milliseconds.
const PIECE_MS: u32 = 20;

/// What a writer is given.
struct Out {
    due_at: Instant,
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    Reset,
}

/// One client's way to the broker.
pub(super) struct Connection {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    /// What CONNECT said; 0 until then.
    level: AtomicU8,
    /// Topics of messages under way, by the direction and id of their PUBLISH.
    topics: Mutex<HashMap<(Direction, u16), String>>,
    queues: [SyncSender<Out>; 2],
    /// Directions in which nothing passes any more.
    swallowing: [AtomicBool; 2],
    order: AtomicU64,
    /// Nothing goes out in a direction before this.
    not_before: Mutex<[Option<Instant>; 2]>,
    resetting: AtomicBool,
}

/// Starts the threads of a connection.
pub(super) fn join(
    number: u64,
    client: TcpStream,
    server: TcpStream,
    shared: &Arc<Shared>,
) -> std::io::Result<Arc<Connection>> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (to_server, server_arrivals) = sync_channel(QUEUE_PACKETS);
    let (to_client, client_arrivals) = sync_channel(QUEUE_PACKETS);
    let connection = Arc::new(Connection {
        number,
        client,
        server,
        level: AtomicU8::new(0),
        topics: Mutex::default(),
        queues: [to_server, to_client],
        swallowing: [AtomicBool::new(false), AtomicBool::new(false)],
        order: AtomicU64::new(0),
        not_before: Mutex::default(),
        resetting: AtomicBool::new(false),
    });
    for (direction, arrivals) in [(Direction::ToServer, server_arrivals), (Direction::ToClient, client_arrivals)] {
        let (reader, writer) = (Arc::clone(&connection), Arc::clone(&connection));
        let (for_reader, for_writer) = (Arc::clone(shared), Arc::clone(shared));
        std::thread::spawn(move || reader.read(direction, &for_reader));
        std::thread::spawn(move || writer.write(direction, &arrivals, &for_writer));
    }
    Ok(connection)
}

impl Connection {
    /// Closes both sockets (FIN), unsent bytes included. After [`Self::reset`] no FIN may go out any more: then it only wakes the readers.
    pub(super) fn close(&self) {
        let how = if self.resetting.load(Ordering::SeqCst) { Shutdown::Read } else { Shutdown::Both };
        for socket in [&self.client, &self.server] {
            // It may be closed already.
            let _ = socket.shutdown(how);
        }
    }

    /// Resets both connections: the kernel sends RST when the last thread lets go of a socket that lingers for zero seconds (socket(7)).
    pub(super) fn reset(&self) {
        self.resetting.store(true, Ordering::SeqCst);
        for socket in [&self.client, &self.server] {
            // It may be closed already; then there is nothing to reset.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.close();
        for direction in [Direction::ToServer, Direction::ToClient] {
            // Wakes a writer that waits for something to write. One whose queue is full is awake.
            let end = Out { due_at: Instant::now(), bytes: Vec::new(), then: Then::Reset };
            let _ = self.queues[direction as usize].try_send(end);
        }
    }

    /// Hands bytes to the writer of a direction. Waits for room; a connection that has ended takes them and forgets them.
    pub(super) fn send(&self, direction: Direction, bytes: Vec<u8>) {
        self.hand(direction, bytes, Instant::now(), Then::GoOn);
    }

    pub(super) fn is_swallowing(&self) -> bool {
        self.swallowing.iter().any(|way| way.load(Ordering::SeqCst))
    }

    fn hand(&self, direction: Direction, bytes: Vec<u8>, due_at: Instant, then: Then) {
        let not_before = lock(&self.not_before)[direction as usize];
        let due_at = not_before.map_or(due_at, |at| at.max(due_at));
        // The writer has ended with the connection: nobody wants these bytes any more.
        let _ = self.queues[direction as usize].send(Out { due_at, bytes, then });
    }

    fn version(&self) -> Version {
        if self.level.load(Ordering::SeqCst) == 5 { Version::V5 } else { Version::V4 }
    }

    /// Reads one direction and gives every packet its fate.
    fn read(&self, direction: Direction, shared: &Shared) {
        let mut from = match direction {
            Direction::ToServer => &self.client,
            Direction::ToClient => &self.server,
        };
        let (mut cutter, mut buffer) = (Cutter::default(), vec![0; 16 * 1024]);
        // An error is a cut connection: the same as its end.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            cutter.feed(&buffer[..count]);
            if self.pass_on(direction, &mut cutter, shared).is_err() {
                shared.no_mqtt.fetch_add(1, Ordering::SeqCst);
                self.close();
                return;
            }
        }
        // The end of the stream is told behind all that came before it.
        self.hand(direction, Vec::new(), Instant::now(), Then::Close);
    }

    fn pass_on(&self, direction: Direction, cutter: &mut Cutter, shared: &Shared) -> Result<(), NotMqtt> {
        while let Some(packet) = cutter.next_packet()? {
            shared.wait_while_stalled(direction);
            if let Some(version) = packet.version() {
                self.level.store(if version == Version::V5 { 5 } else { 4 }, Ordering::SeqCst);
            }
            let seen = self.note(direction, &packet);
            let fault = shared.judge(seen, &packet);
            if !self.swallowing[direction as usize].load(Ordering::SeqCst) {
                self.treat(direction, packet, fault)?;
            }
        }
        Ok(())
    }

    fn note(&self, direction: Direction, packet: &Packet) -> Seen {
        let back = if direction == Direction::ToServer { Direction::ToClient } else { Direction::ToServer };
        let topic = match (packet.kind(), packet.id()) {
            (Kind::Publish, id) => {
                let topic = packet.topic().map(str::to_owned);
                if let (Some(id), Some(topic)) = (id, &topic) {
                    lock(&self.topics).insert((direction, id), topic.clone());
                }
                topic
            }
            (Kind::PubAck, Some(id)) => lock(&self.topics).remove(&(back, id)),
            _ => None,
        };
        let payload = packet.payload(self.version()).unwrap_or_default().to_vec();
        let (kind, id) = (packet.kind(), packet.id());
        Seen { connection: self.number, direction, kind, id, topic, payload, struck: false }
    }

    fn treat(&self, direction: Direction, packet: Packet, fault: Option<Fault>) -> Result<(), NotMqtt> {
        let now = Instant::now();
        let pass = |packet: &Packet| self.hand(direction, packet.bytes().to_vec(), now, Then::GoOn);
        let part = |bytes: usize| packet.bytes()[..bytes.min(packet.bytes().len() - 1)].to_vec();
        match fault {
            None => pass(&packet),
            Some(Fault::Drop) => {}
            Some(Fault::Delay(by)) => self.hand(direction, packet.bytes().to_vec(), now + by, Then::GoOn),
            Some(Fault::Late(by)) => {
                lock(&self.not_before)[direction as usize] = Some(now + by);
                self.hand(direction, packet.bytes().to_vec(), now + by, Then::GoOn);
            }
            Some(Fault::Repeat(times)) => (0..=times).for_each(|_| pass(&packet)),
            Some(Fault::Swallow) => self.swallowing[direction as usize].store(true, Ordering::SeqCst),
            Some(Fault::CutAfter(bytes)) => self.hand(direction, part(bytes), now, Then::Close),
            Some(Fault::ResetAfter(bytes)) => self.hand(direction, part(bytes), now, Then::Reset),
            Some(Fault::Refuse(reason)) => {
                let back = if direction == Direction::ToServer { Direction::ToClient } else { Direction::ToServer };
                if let Some(id) = packet.id() {
                    self.send(back, puback(self.version(), id, reason).bytes().to_vec());
                }
            }
            Some(Fault::Reason(reason)) => match packet.id() {
                Some(id) => pass(&puback(self.version(), id, reason)),
                None => pass(&packet),
            },
            Some(Fault::Disconnect(reason)) => {
                pass(&packet);
                self.hand(Direction::ToClient, disconnect(reason).bytes().to_vec(), now, Then::GoOn);
                // A client that writes just then would meet a closed socket before it has read why.
                self.hand(Direction::ToClient, Vec::new(), now + LAST_WORD, Then::Close);
            }
            Some(Fault::CleanStart) => pass(&packet.with_clean_start()),
            Some(Fault::NoSession) => pass(&packet.without_session()),
            Some(Fault::Limit(limit)) => pass(&packet.with_limit(limit)?),
        }
        Ok(())
    }

    /// Writes one direction, each packet when it is due; packets due at one time in the order they came.
    fn write(&self, direction: Direction, arrivals: &Receiver<Out>, shared: &Shared) {
        let mut waiting: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
        let mut outs: HashMap<u64, Out> = HashMap::new();
        loop {
            let due = waiting.peek().map(|Reverse((due_at, _))| *due_at);
            let now = Instant::now();
            if let Some(Reverse((_, order))) = due.filter(|at| *at <= now).and_then(|_| waiting.pop()) {
                let Some(out) = outs.remove(&order) else { continue };
                if self.write_one(direction, &out, shared).is_err() || out.then != Then::GoOn {
                    break;
                }
                continue;
            }
            let arrived = match due {
                Some(at) => arrivals.recv_timeout(at - now),
                None => arrivals.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match arrived {
                Ok(out) => {
                    let order = self.order.fetch_add(1, Ordering::SeqCst);
                    waiting.push(Reverse((out.due_at, order)));
                    outs.insert(order, out);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.close();
    }

    fn write_one(&self, direction: Direction, out: &Out, shared: &Shared) -> std::io::Result<()> {
        let mut to = match direction {
            Direction::ToServer => &self.server,
            Direction::ToClient => &self.client,
        };
        let mut rest = out.bytes.as_slice();
        while !rest.is_empty() {
            let Some(bytes_per_s) = shared.bytes_per_s(direction) else {
                to.write_all(rest)?;
                break;
            };
            let piece = usize::try_from(bytes_per_s * PIECE_MS / 1000).unwrap_or(1).clamp(1, rest.len());
            to.write_all(&rest[..piece])?;
            rest = &rest[piece..];
            std::thread::sleep(Duration::from_millis(u64::from(PIECE_MS)));
        }
        match out.then {
            Then::GoOn => {}
            Then::Close => self.close(),
            Then::Reset if self.resetting.load(Ordering::SeqCst) => {}
            Then::Reset => self.reset(),
        }
        Ok(())
    }
}
