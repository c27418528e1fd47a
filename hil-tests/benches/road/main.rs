//! The road under a stopwatch: from a sensor's frame to the broker's PUBACK through the real gateway binary, on a
//! pseudo-terminal, a disk and a real mosquitto, in turn with the machine's own floor for the same work; then the memory
//! the gateway holds after these events. Ratios count; absolute times are this machine's.
//!
//! `make bench`, or `cargo bench -p hil-tests --bench road` after `cargo build --release -p gengfu`. `GENGFU_BENCH_DIR` chooses
//! the disk (default: the build folder's), `GENGFU_BENCH_EVENTS` the number of frames (default 1000).
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock, that is all it is for")]

mod floor;
mod node;
mod watched;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use floor::{Floor, Taken};
use gengfu_wire::EventKind;
use hil_tests::broker::{Broker, BrokerOptions};
use hil_tests::{Result, RigError};
use node::Node;
use watched::Gateway;

/// Whatever the gateway is waited for, it takes milliseconds.
const SOON: Duration = Duration::from_secs(20);
/// Frames before the measured ones. Their events are looked at, so that the floor has the same bytes.
const WARM_UP: usize = 20;
const BASE: &str = "gengfu/v1/bench/road";
/// What the nodes say in turn: node, channel, kind.
const STORY: [(usize, u8, EventKind); 4] = [
    (0, 1, EventKind::ContactOpened),
    (1, 2, EventKind::SmokeAlarm),
    (0, 1, EventKind::ContactClosed),
    (1, 2, EventKind::SmokeClear),
];

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("road: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Everything around the gateway.
struct Road {
    nodes: [Node; 2],
    gateway: Gateway,
    floor: Floor,
    /// For each line of the story: all bytes it journals, and the event whose PUBACK is awaited.
    bytes: BTreeMap<usize, (Vec<u8>, Vec<u8>)>,
}

/// What became of one frame. Times in microseconds after the write of the frame.
#[derive(Debug, Clone, Default)]
struct Journey {
    /// The observation was judged.
    sensed_us: i64,
    /// Stored, synced and handed to the MQTT client.
    sent_us: i64,
    /// PUBACK.
    acked_us: i64,
    /// All events it led to; the last one is the awaited one.
    ids: Vec<String>,
}

fn bench() -> Result<()> {
    let frames = std::env::var("GENGFU_BENCH_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let home = std::env::var_os("GENGFU_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let fail = |e: std::io::Error| RigError::failed(format!("make a folder in {}", home.display()), e);
    fs::create_dir_all(&home).map_err(fail)?;
    let dir = tempfile::Builder::new().prefix("road-").tempdir_in(&home).map_err(fail)?;
    refuse_memory_disk(&home)?;
    let broker = Broker::start(&dir.path().join("broker"), &BrokerOptions::default())?;
    let mut road = Road::start(dir.path(), &broker)?;
    road.warm_up()?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for n in 0..frames {
        // In turn, and neither always first.
        if n % 2 == 0 {
            floor.push(road.floor(n)?);
            ours.push(road.frame(n)?);
        } else {
            ours.push(road.frame(n)?);
            floor.push(road.floor(n)?);
        }
    }
    report(&ours, &floor);
    let memory = road.gateway.memory()?;
    println!(
        "memory of the gateway without cameras: two nodes, uplink connected, after {} frames\n  resident {} MiB \
         (VmRSS; {} private, {} files), peak {} MiB; goal <= 20 MiB: {}",
        frames + WARM_UP,
        mib(memory.resident),
        mib(memory.anonymous),
        mib(memory.files),
        mib(memory.peak),
        met(memory.resident <= 20 << 10),
    );
    Ok(())
}

impl Road {
    fn start(dir: &Path, broker: &Broker) -> Result<Road> {
        let links = [dir.join("door.tty"), dir.join("smoke.tty")];
        let nodes = [Node::open(&links[0], 0xd0)?, Node::open(&links[1], 0x50)?];
        let config = dir.join("gengfu.toml");
        let text = configuration(dir, broker.port(), &links);
        fs::write(&config, text).map_err(|e| RigError::failed("write the gateway's configuration", e))?;
        let floor = Floor::open(&dir.join("floor"), broker.port())?;
        let gateway = Gateway::start(&config)?;
        let mut road = Road { nodes, gateway, floor, bytes: BTreeMap::new() };
        for node in &mut road.nodes {
            node.introduce(SOON)?;
        }
        while road.gateway.next("the gateway's uplink", SOON)?.name != "the uplink is online" {}
        Ok(road)
    }

    /// Learns the bytes of each kind of frame.
    fn warm_up(&mut self) -> Result<()> {
        let topic = format!("{BASE}/event");
        self.floor.listen(&topic)?;
        let mut seen = Vec::new();
        for n in 0..WARM_UP {
            seen.push(self.frame(n)?.ids);
        }
        self.floor.listen_no_more(&topic, &seen.concat())?;
        for (n, ids) in seen.iter().enumerate() {
            let body = |id: &String| self.floor.bodies.get(id).cloned().unwrap_or_default();
            let journal = ids.iter().flat_map(body).collect();
            let awaited = ids.last().map(body).unwrap_or_default();
            self.bytes.insert(n % STORY.len(), (journal, awaited));
        }
        Ok(())
    }

    fn floor(&mut self, n: usize) -> Result<Taken> {
        let (journal, body) = &self.bytes[&(n % STORY.len())];
        self.floor.take(journal, "floor/event", body)
    }

    /// Sends frame `n`, follows it to the PUBACK, and has the centre confirm everything it led to.
    fn frame(&mut self, n: usize) -> Result<Journey> {
        let (node, channel, kind) = STORY[n % STORY.len()];
        let what = format!("frame {n} ({kind:?}) on its way");
        let wrote_at = jiff::Timestamp::try_from(self.nodes[node].send(channel, kind)?);
        let wrote_us = wrote_at.map_err(|e| RigError::failed(&what, e))?.as_microsecond();
        let (mut journey, mut open) = (Journey::default(), 1);
        while open > 0 {
            let hop = self.gateway.next(&what, SOON)?;
            let Some(id) = hop.id else { continue };
            let after_us = hop.at_us - wrote_us;
            let awaited = journey.ids.last() == Some(&id);
            match hop.name.as_str() {
                "sensed" => (journey.sensed_us, journey.ids) = (after_us, vec![id]),
                "decided" => {
                    journey.ids.push(id);
                    open += 1;
                }
                "sent" if awaited => journey.sent_us = after_us,
                // Nobody is subscribed while the clock runs, and the broker says so in its PUBACK: the floor's has the same.
                "broker_acked" | "unheard" if journey.ids.contains(&id) => {
                    open -= 1;
                    if awaited {
                        journey.acked_us = after_us;
                    }
                }
                _ => {}
            }
        }
        self.nodes[node].acknowledged(SOON)?;
        self.floor.receipt(BASE, &journey.ids)?;
        for _ in &journey.ids {
            while self.gateway.next("the gateway takes a receipt", SOON)?.name != "received" {}
        }
        Ok(journey)
    }
}

fn configuration(dir: &Path, port: u16, links: &[PathBuf; 2]) -> String {
    let (dir, door, smoke) = (dir.display(), links[0].display(), links[1].display());
    format!(
        r#"
[gateway]
site = "bench"
name = "road"
data_dir = "{dir}/data"
codes = []
[uplink]
broker = "127.0.0.1:{port}"
[[node]]
name = "node-door"
port = "{door}"
silence = "1h"
[[node.device]]
channel = 1
name = "door-1"
class = "door"
[[node]]
name = "node-smoke"
port = "{smoke}"
silence = "1h"
[[node.device]]
channel = 2
name = "smoke-1"
class = "smoke"
"#
    )
}

/// A file system in memory syncs nothing.
fn refuse_memory_disk(home: &Path) -> Result<()> {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    let doing = format!("measure on {}", home.display());
    let info = rustix::fs::statfs(home).map_err(|e| RigError::failed(&doing, e))?;
    if info.f_type == TMPFS_MAGIC {
        return Err(RigError::failed(
            doing,
            "it is memory, not a disk; set GENGFU_BENCH_DIR to a folder on the gateway's disk",
        ));
    }
    Ok(())
}

fn report(ours: &[Journey], floor: &[Taken]) {
    let acked = sorted(ours.iter().map(|journey| journey.acked_us as f64));
    let both = sorted(floor.iter().map(|taken| micros(taken.disk + taken.broker)));
    let line = |name: &str, values: &[f64], what: &str| {
        println!("  {name:<8}{:>9.0}{:>9.0}   {what}", quantile(values, 0.5), quantile(values, 0.99));
    };
    println!(
        "frame in -> PUBACK, durable; {} frames of a door and a smoke alarm one at a time, in turn with the floor",
        ours.len()
    );
    println!("  us           p50      p99");
    line("gateway", &acked, "write of the frame to the PTY until the gateway has the PUBACK of the event it led to");
    line(
        "floor",
        &both,
        "append + fdatasync of the same bytes on the same file system, then one bare QoS 1 round trip",
    );
    let ratio = |q| quantile(&acked, q) / quantile(&both, q);
    println!("  {:<8}{:>9.2}{:>9.2}   goal <= 2 at p99: {}", "ratio", ratio(0.5), ratio(0.99), met(ratio(0.99) <= 2.0));
    println!("  the way, us");
    let way = |of: fn(&Journey) -> i64| sorted(ours.iter().map(|journey| of(journey) as f64));
    line("judged", &way(|j| j.sensed_us), "frame written -> read and judged");
    line("stored", &way(|j| j.sent_us - j.sensed_us), "-> journaled, synced, handed to the MQTT client");
    line("acked", &way(|j| j.acked_us - j.sent_us), "-> PUBACK");
    line("disk", &sorted(floor.iter().map(|taken| micros(taken.disk))), "the floor's append + fdatasync");
    line("broker", &sorted(floor.iter().map(|taken| micros(taken.broker))), "the floor's round trip");
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Of sorted values, by the nearest rank; 0 of none.
fn quantile(values: &[f64], q: f64) -> f64 {
    let rank = (values.len() as f64 * q).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

fn met(is: bool) -> &'static str {
    if is { "met" } else { "NOT met" }
}
