//! Sensor nodes of a scenario: the real node (`gengfu-node-linux`) on a pseudo-terminal, and a book of what it accepted and what it was
//! acknowledged for. It owns that book and the random traffic of [`Traffic`]; it refuses to know what became of an event behind the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gengfu_node_linux::flash::Slots;
use gengfu_node_linux::node::Wiring;
use gengfu_node_linux::wire::{EventKind, Uid};
use gengfu_node_linux::{Command, NodeHandle, NodeReport, Options, Port, spawn};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{Result, RigError};

/// An event of a node within the whole scenario: its node's unique id (hex), boot and number.
pub type EventName = (String, u32, u32);

/// A running node with its book. Dropping it stops the node.
pub struct Node {
    handle: NodeHandle,
    uid: Uid,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    accepted: Vec<(u32, u32, EventKind)>,
    /// By boot: everything up to this number is on the gateway's disk.
    acked: BTreeMap<u32, u32>,
    /// Numbers the node gave up for want of room; they are told as lost.
    lost: BTreeSet<(u32, u32)>,
    is_sounding: bool,
    /// The present run.
    boot: Option<u32>,
}

impl Node {
    /// Starts a node with everything (door on channel 1, head on 2, button on 3, lid on 0) whose wire is `<dir>/<name>.tty`.
    ///
    /// # Errors
    /// When there is no pseudo-terminal.
    pub fn start(dir: &Path, name: &str, uid: u64, wiring: Wiring, firmware_key: Option<&str>) -> Result<Self> {
        let uid = Uid(uid.to_be_bytes());
        let book = Arc::new(Mutex::new(Book::default()));
        let mut options = Options::new(Port::Pty { link: dir.join(format!("{name}.tty")) }, uid);
        options.heartbeat_ms = 1_000;
        options.wiring = wiring;
        if let Some(key) = firmware_key {
            let bytes = (0..32).map(|n| u8::from_str_radix(key.get(2 * n..2 * n + 2).unwrap_or(""), 16));
            let key = bytes.collect::<std::result::Result<Vec<u8>, _>>().ok().and_then(|key| key.try_into().ok());
            let trusted = vec![key.ok_or_else(|| RigError::failed("read the public key", "it is not 64 hex digits"))?];
            options.flash = Some(Slots { file: dir.join(format!("{name}.flash")), trusted });
        }
        if wiring != Wiring::PointToPoint {
            options.address_file = Some(dir.join(format!("{name}.address")));
        }
        let kept = book.clone();
        let report = move |report| {
            let mut book = kept.lock().unwrap_or_else(PoisonError::into_inner);
            match report {
                NodeReport::Accepted { boot, sequence, kind, .. } => book.accepted.push((boot, sequence, kind)),
                NodeReport::Acked { boot, through } => {
                    book.acked.insert(boot, through);
                }
                NodeReport::Lost { boot, sequence } => {
                    book.lost.insert((boot, sequence));
                }
                NodeReport::Booted { boot } => book.boot = Some(boot),
                NodeReport::Sounder { on } => book.is_sounding = on,
                _ => {}
            }
        };
        let handle = spawn(options, report).map_err(|e| RigError::failed(format!("start node {name}"), e))?;
        Ok(Self { handle, uid, book })
    }

    /// The node, to make something happen to it.
    #[must_use]
    pub fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Its unique id as configurations and events write it.
    #[must_use]
    pub fn uid(&self) -> String {
        self.uid.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Makes something happen.
    ///
    /// # Errors
    /// When the node has stopped.
    pub fn act(&self, command: Command) -> Result<()> {
        self.handle.send(command).map_err(|e| RigError::failed(format!("make {command:?} happen"), e))
    }

    /// Everything it accepted: boot, number, kind; in order.
    #[must_use]
    pub fn accepted(&self) -> Vec<(u32, u32, EventKind)> {
        self.read(|book| book.accepted.clone())
    }

    /// Whether its sounder sounds now.
    #[must_use]
    pub fn is_sounding(&self) -> bool {
        self.read(|book| book.is_sounding)
    }

    /// What the gateway said it has on its disk.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<EventName> {
        let uid = self.uid();
        self.read(|book| {
            let covered = |boot: &u32, sequence: &u32| {
                book.acked.get(boot).is_some_and(|through| sequence <= through)
                    && !book.lost.contains(&(*boot, *sequence))
            };
            let of_all = book.accepted.iter().filter(|(boot, sequence, _)| covered(boot, sequence));
            of_all.map(|(boot, sequence, _)| (uid.clone(), *boot, *sequence)).collect()
        })
    }

    /// Whether everything of the present boot was acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        // What a boot before had not delivered is gone with it, and the gateway tells so.
        self.read(|book| match book.accepted.last().filter(|(boot, ..)| book.boot.is_none_or(|now| now == *boot)) {
            Some((boot, sequence, _)) => book.acked.get(boot).is_some_and(|through| through >= sequence),
            None => true,
        })
    }

    /// How many events were given up for want of room.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.read(|book| book.lost.len())
    }

    fn read<T>(&self, of: impl FnOnce(&Book) -> T) -> T {
        of(&self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Random life at some nodes, on a thread: doors, smoke, buttons, lids, now and then a reboot. The same seed does the same things; when
/// they meet the gateway is up to the machine. It ends with [`Traffic::stop`].
pub struct Traffic {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Traffic {
    /// Lets `nodes` live, with `pause_ms` between two happenings.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(nodes: Arc<Vec<Node>>, seed: u64, pause_ms: std::ops::Range<u64>) -> Result<Self> {
        Self::live(nodes, seed, pause_ms, happening)
    }

    /// As [`Traffic::start`], but only doors open and close.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn of_doors(nodes: Arc<Vec<Node>>, seed: u64, pause_ms: std::ops::Range<u64>) -> Result<Self> {
        Self::live(nodes, seed, pause_ms, |_, levels| {
            levels[0] = !levels[0];
            Command::Contact { open: levels[0] }
        })
    }

    fn live(
        nodes: Arc<Vec<Node>>,
        seed: u64,
        pause_ms: std::ops::Range<u64>,
        next: fn(&mut StdRng, &mut [bool; 3]) -> Command,
    ) -> Result<Self> {
        let (stop, stopped) = sync_channel::<()>(1);
        let live = move || {
            let mut random = StdRng::seed_from_u64(seed);
            let mut levels = vec![[false; 3]; nodes.len()];
            loop {
                let pause = Duration::from_millis(random.random_range(pause_ms.clone()));
                if !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
                let at = random.random_range(0..nodes.len());
                let command = next(&mut random, &mut levels[at]);
                // A node that has stopped shows in the book: nothing more is acknowledged.
                let _ = nodes[at].act(command);
            }
        };
        let thread = std::thread::Builder::new().name("traffic".into()).spawn(live);
        Ok(Self { stop, thread: thread.map_err(|e| RigError::failed("start the traffic", e))? })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When its thread has panicked.
    pub fn stop(self) -> Result<()> {
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| RigError::failed("stop the traffic", "its thread panicked"))
    }
}

fn happening(random: &mut StdRng, levels: &mut [bool; 3]) -> Command {
    let mut toggled = |n: usize| {
        levels[n] = !levels[n];
        levels[n]
    };
    match random.random_range(0..100) {
        0..45 => Command::Contact { open: toggled(0) },
        45..75 => Command::Smoke(toggled(1)),
        75..90 => Command::Sos,
        90..99 => Command::Tamper(toggled(2)),
        _ => Command::Reboot,
    }
}

/// The seed of a random scenario: `$GENGFU_SEED`, or another one each time. It is printed, so that a failure shows it.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("GENGFU_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("replay the same faults with GENGFU_SEED={seed}");
    seed
}

/// Rounds of a scenario that repeats: `$GENGFU_ROUNDS`, or `usual`.
#[must_use]
pub fn rounds(usual: usize) -> usize {
    std::env::var("GENGFU_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
