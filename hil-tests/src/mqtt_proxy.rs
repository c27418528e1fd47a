//! The path between an MQTT client and its broker, with faults at exact packets: "drop the third PUBACK of an event", "cut in the middle of this PUBLISH",
//! "say that the session is gone". It owns the script ([`Rule`]), the two streams cut into packets ([`crate::mqtt_packet`]) and the account of what passed
//! ([`MqttProxy::seen`]). It refuses to know what a message means, and to change a message's body. Faults at no exact packet (a black hole, refused
//! connections) are [`crate::proxy`]'s; a client behind TLS can only have those.
#![expect(clippy::disallowed_methods, reason = "delays packets of real sockets by real time")]

mod stream;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::mqtt_packet::{Kind, Limit, Packet};
use crate::ports::Port;
pub use crate::proxy::Direction;
use crate::{Result, RigError};
use stream::Connection;

/// Packets remembered by [`MqttProxy::seen`]; later ones are only counted.
const SEEN_MAX: usize = 50_000;

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It disappears; all others pass.
    Drop,
    /// It comes this much later; others overtake it.
    Delay(Duration),
    /// It comes this much later, and so does everything behind it.
    Late(Duration),
    /// It comes so many times more.
    Repeat(u32),
    /// It disappears, and so does everything behind it in its direction, while the connection looks healthy.
    Swallow,
    /// Only so many of its bytes pass (at most all but one), then both connections are closed in order (FIN).
    CutAfter(usize),
    /// The same, but they are reset (RST): what the receiver has not read is lost with it.
    ResetAfter(usize),
    /// A PUBLISH disappears, and its sender is told that it was refused, with this reason (MQTT 5; on 3.1.1 it is a plain PUBACK: the
    /// silent refusal).
    Refuse(u8),
    /// A PUBACK passes as a refusal with this reason, though the broker took the message (MQTT 5).
    Reason(u8),
    /// The packet passes; then the client is sent DISCONNECT with this reason (MQTT 5) and both connections are closed. A packet to the broker may be
    /// overtaken by that end and lost.
    Disconnect(u8),
    /// A CONNECT asks for a new session.
    CleanStart,
    /// A CONNACK says that there was no session, though there was.
    NoSession,
    /// A CONNACK of MQTT 5 sets this limit.
    Limit(Limit),
}

/// A fault, and the packets that it strikes: those of one kind and direction, perhaps of one topic or id; the first `skip` of them pass, the next `times` are
/// struck, all later ones pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    direction: Direction,
    kind: Kind,
    fault: Fault,
    topic_has: Option<String>,
    id: Option<u16>,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Strikes every packet of `kind` in this direction.
    #[must_use]
    pub fn new(direction: Direction, kind: Kind, fault: Fault) -> Self {
        Self { direction, kind, fault, topic_has: None, id: None, skip: 0, times: u64::MAX }
    }

    /// Only a PUBLISH whose topic contains this, or a PUBACK that answers one.
    #[must_use]
    pub fn topic_has(mut self, part: &str) -> Self {
        self.topic_has = Some(part.to_owned());
        self
    }

    /// Only packets with this id.
    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = Some(id);
        self
    }

    /// The first `skip` pass.
    #[must_use]
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Strikes so many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn matches(&self, direction: Direction, packet: &Packet, topic: Option<&str>) -> bool {
        self.direction == direction
            && self.kind == packet.kind()
            && self.id.is_none_or(|id| packet.id() == Some(id))
            && self.topic_has.as_ref().is_none_or(|part| topic.is_some_and(|topic| topic.contains(part)))
    }
}

/// A packet that came to the proxy, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which connection, from 1.
    pub connection: u64,
    /// Which way it went.
    pub direction: Direction,
    /// What it was.
    pub kind: Kind,
    /// Its packet id.
    pub id: Option<u16>,
    /// The topic of a PUBLISH, or of the one that a PUBACK answers.
    pub topic: Option<String>,
    /// The message of a PUBLISH.
    pub payload: Vec<u8>,
    /// A rule struck it.
    pub struck: bool,
}

struct Armed {
    rule: Rule,
    matched: u64,
    struck: u64,
}

#[derive(Default)]
struct Script {
    armed: Vec<Armed>,
    seen: Vec<Seen>,
    counts: HashMap<(Direction, Kind), u64>,
    struck: u64,
}

/// What all connections share.
struct Shared {
    script: Mutex<Script>,
    /// Which directions stand still, and how many bytes a second each may pass.
    flow: Mutex<[Flow; 2]>,
    flow_changed: Condvar,
    refusing: AtomicBool,
    stopping: AtomicBool,
    accepted: AtomicU64,
    no_mqtt: AtomicU64,
    open: Mutex<Vec<Weak<Connection>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    stalled: bool,
    bytes_per_s: Option<u32>,
}

/// A running proxy. Dropping it cuts all connections and closes the port.
pub struct MqttProxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl MqttProxy {
    /// Listens on a port of its own and passes every connection on to the broker at `server`, which may be down: then the client's connection is closed at
    /// once.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))
            .map_err(|e| RigError::failed(format!("listen on {}", port.addr()), e))?;
        let shared = Arc::new(Shared {
            script: Mutex::default(),
            flow: Mutex::default(),
            flow_changed: Condvar::new(),
            refusing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            no_mqtt: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, server, &for_acceptor));
        Ok(Self { port, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Adds a rule. Of several that match a packet the first that is not used up strikes, and only that one; all of them count it.
    pub fn add(&self, rule: Rule) {
        lock(&self.shared.script).armed.push(Armed { rule, matched: 0, struck: 0 });
    }

    /// How often rules have struck since the start: how a test knows that its fault happened.
    #[must_use]
    pub fn struck(&self) -> u64 {
        lock(&self.shared.script).struck
    }

    /// Everything that came, in order; at most the first 50,000 packets.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.script).seen.clone()
    }

    /// How many packets of this kind came this way.
    #[must_use]
    pub fn count(&self, direction: Direction, kind: Kind) -> u64 {
        lock(&self.shared.script).counts.get(&(direction, kind)).copied().unwrap_or(0)
    }

    /// Connections made to it so far, refused ones included.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that were ended because what came was no MQTT.
    #[must_use]
    pub fn no_mqtt(&self) -> u64 {
        self.shared.no_mqtt.load(Ordering::SeqCst)
    }

    /// Nothing more is read from this direction's sender, until `false`: it finds its socket full, as with a receiver that stands still.
    pub fn stall(&self, direction: Direction, stalled: bool) {
        lock(&self.shared.flow)[direction as usize].stalled = stalled;
        self.shared.flow_changed.notify_all();
    }

    /// So many bytes a second pass in this direction, on open connections and new ones; `None`: as many as come.
    pub fn throttle(&self, direction: Direction, bytes_per_s: Option<u32>) {
        lock(&self.shared.flow)[direction as usize].bytes_per_s = bytes_per_s;
    }

    /// Closes every connection, in order (FIN). New ones are welcome.
    pub fn cut(&self) {
        self.connections().iter().for_each(|connection| connection.close());
    }

    /// Resets every connection (RST). New ones are welcome.
    pub fn reset(&self) {
        self.connections().iter().for_each(|connection| connection.reset());
    }

    /// Closes all connections and every new one, until `false`.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
        if refusing {
            self.cut();
        }
    }

    /// Sends this packet to every connected client, as if from its broker.
    pub fn inject(&self, packet: &Packet) {
        self.connections().iter().for_each(|connection| connection.send(Direction::ToClient, packet.bytes().to_vec()));
    }

    /// Ends every fault: rules are forgotten, connections that lost everything behind a packet are cut, all else flows.
    pub fn heal(&self) {
        lock(&self.shared.script).armed.clear();
        for direction in [Direction::ToServer, Direction::ToClient] {
            self.stall(direction, false);
            self.throttle(direction, None);
        }
        self.refuse(false);
        self.connections().iter().filter(|connection| connection.is_swallowing()).for_each(|holed| holed.close());
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let mut open = lock(&self.shared.open);
        open.retain(|connection| connection.strong_count() > 0);
        open.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for MqttProxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.heal();
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
    /// The fault that strikes this packet, if one does; the packet is entered in the account.
    fn judge(&self, seen: Seen, packet: &Packet) -> Option<Fault> {
        let mut script = lock(&self.script);
        let mut fault = None;
        for armed in &mut script.armed {
            if !armed.rule.matches(seen.direction, packet, seen.topic.as_deref()) {
                continue;
            }
            armed.matched += 1;
            if fault.is_none() && armed.matched > armed.rule.skip && armed.struck < armed.rule.times {
                armed.struck += 1;
                fault = Some(armed.rule.fault.clone());
            }
        }
        script.struck += u64::from(fault.is_some());
        *script.counts.entry((seen.direction, seen.kind)).or_default() += 1;
        if script.seen.len() < SEEN_MAX {
            script.seen.push(Seen { struck: fault.is_some(), ..seen });
        }
        fault
    }

    /// Waits while a direction stands still.
    fn wait_while_stalled(&self, direction: Direction) {
        let stalled = |flow: &mut [Flow; 2]| flow[direction as usize].stalled;
        drop(self.flow_changed.wait_while(lock(&self.flow), stalled).unwrap_or_else(PoisonError::into_inner));
    }

    fn bytes_per_s(&self, direction: Direction) -> Option<u32> {
        lock(&self.flow)[direction as usize].bytes_per_s
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
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let Ok(client) = client else { continue };
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(upstream) = TcpStream::connect_timeout(&server, Duration::from_secs(5)) else { continue };
        // A descriptor less is a connection less; the test sees it as a refused one.
        let Ok(connection) = stream::join(number, client, upstream, shared) else { continue };
        let mut open = lock(&shared.open);
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(&connection));
        drop(open);
        if shared.refusing.load(Ordering::SeqCst) {
            // Refused after this connection was let in, and perhaps before it was in the list of those to cut.
            connection.close();
        }
    }
}
