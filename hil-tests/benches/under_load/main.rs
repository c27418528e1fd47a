//! Smoke under load: from the frame of a smoke head to the broker's PUBACK, while 32 other nodes chatter, and while besides four
//! cameras are watched and 100,000 stored events drain. The three are measured in turn on fresh gateways, twice around, so that a
//! noisy hour of the machine meets all of them. Goal: cameras and backlog add less than 20 % at the 99th percentile.
//!
//! `make bench`, or `cargo bench -p hil-tests --bench under_load` after `cargo build --release -p gengfu`. `GENGFU_BENCH_DIR` chooses the
//! disk, `GENGFU_BENCH_EVENTS` the smoke frames of each measurement (default 400), `GENGFU_BENCH_BACKLOG` the stored events.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock and paces what it measures")]

mod backlog;
#[path = "../road/node.rs"]
mod node;
mod watched;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gengfu::config::Protocol;
use gengfu_wire::EventKind;
use hil_tests::broker::{Broker, BrokerOptions};
use hil_tests::desk::{Desk, slug};
use hil_tests::node::Traffic;
use hil_tests::site::{CameraPlan, Plan, start_nodes};
use hil_tests::{Result, RigError, clip};
use node::Node;
use watched::Gateway;

/// Whatever is waited for takes seconds at most, on a loaded machine.
const SOON: Duration = Duration::from_secs(60);
/// Between two smoke frames: the gateway is at its other work when the next one comes.
const PAUSE: Duration = Duration::from_millis(40);
const NODES: usize = 32;
const CAMERAS: usize = 4;
/// Each of the nodes says something every two seconds or so, besides its heartbeat every second.
const CHATTER_MS: std::ops::Range<u64> = 30..95;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("under_load: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// What else the gateway has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Idle,
    Nodes,
    Everything,
}

impl Load {
    const ALL: [Load; 3] = [Load::Idle, Load::Nodes, Load::Everything];

    fn title(self) -> &'static str {
        match self {
            Load::Idle => "idle",
            Load::Nodes => "32 nodes",
            Load::Everything => "32 nodes, 4 cameras, backlog",
        }
    }
}

/// What one measurement found, microseconds from the frame's writing.
#[derive(Debug, Default)]
struct Found {
    acked_us: Vec<f64>,
    /// Of these: until a rule decided, from there until handed to the MQTT client, from there until PUBACK.
    ways_us: [Vec<f64>; 3],
    /// Stored events that were still waiting at the end.
    backlog_left: u64,
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

fn bench() -> Result<()> {
    let (frames, stored) = (number("GENGFU_BENCH_EVENTS", 400), number("GENGFU_BENCH_BACKLOG", 100_000));
    let home = std::env::var_os("GENGFU_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    fs::create_dir_all(&home).map_err(|e| RigError::failed(format!("make {}", home.display()), e))?;
    if let Err(why) = CameraPlan::need() {
        println!("under_load: skipped, because {why}");
        return Ok(());
    }
    let mut found = [Found::default(), Found::default(), Found::default()];
    for _ in 0..2 {
        for (load, found) in Load::ALL.into_iter().zip(&mut found) {
            measure(&home, load, frames / 2, stored, found)?;
        }
    }
    report(&found, stored);
    Ok(())
}

fn measure(home: &Path, load: Load, frames: usize, stored: usize, found: &mut Found) -> Result<()> {
    let fail = |e: std::io::Error| RigError::failed(format!("make a folder in {}", home.display()), e);
    let dir = tempfile::Builder::new().prefix("load-").tempdir_in(home).map_err(fail)?;
    let broker = Broker::start(&dir.path().join("broker"), &BrokerOptions::default())?;
    let plan = plan(dir.path(), load)?;
    let config = dir.path().join("gengfu.toml");
    fs::write(&config, configuration(&plan, dir.path(), broker.port()))
        .map_err(|e| RigError::failed("write the gateway's configuration", e))?;
    if load == Load::Everything {
        backlog::store(&dir.path().join("data"), stored)?;
    }
    let mut probe = Node::open(&dir.path().join("probe.tty"), 0x50)?;
    let nodes = start_nodes(&plan, dir.path())?;
    let (site, gateway) = (slug(hil_tests::site::SITE)?, slug(hil_tests::site::GATEWAY)?);
    // The centre syncs its own journal before each receipt; on the gateway's disk that would be measured as the gateway's.
    let theirs = elsewhere(dir.path())?;
    let _desk = Desk::start(theirs.path(), broker.port(), Protocol::Mqtt5, &site, &gateway, "desk-1")?;
    let mut gateway = Gateway::start(&config)?;
    probe.introduce(SOON)?;
    gateway.wait_until_ready(&config, plan.cameras.len(), SOON)?;
    let traffic = (!nodes.is_empty()).then(|| Traffic::start(Arc::clone(&nodes), 1, CHATTER_MS)).transpose()?;
    for n in 0..frames + 4 {
        std::thread::sleep(PAUSE);
        let kind = if n % 2 == 0 { EventKind::SmokeAlarm } else { EventKind::SmokeClear };
        let wrote =
            jiff::Timestamp::try_from(probe.send(1, kind)?).map_err(|e| RigError::failed("tell the time", e))?;
        let hops = gateway.fire_acked(SOON)?;
        probe.acknowledged(SOON)?;
        // The first ones find cold pages.
        if n >= 4 {
            let wrote_us = wrote.as_microsecond();
            found.acked_us.push((hops.acked_us - wrote_us) as f64);
            let ways = [hops.decided_us - wrote_us, hops.sent_us - hops.decided_us, hops.acked_us - hops.sent_us];
            found.ways_us.iter_mut().zip(ways).for_each(|(all, way)| all.push(way as f64));
        }
    }
    traffic.map(Traffic::stop).transpose()?;
    found.backlog_left = gateway.pending("telemetry", &config)?;
    Ok(())
}

/// A folder in memory, or beside the gateway's where there is none.
fn elsewhere(dir: &Path) -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { memory } else { dir };
    tempfile::tempdir_in(home).map_err(|e| RigError::failed(format!("make a folder in {}", home.display()), e))
}

fn plan(dir: &Path, load: Load) -> Result<Plan> {
    let nodes = if load == Load::Idle { 0 } else { NODES };
    let mut plan = Plan { nodes, silence: "60s", left_open_after: "1h", ..Plan::default() };
    if load == Load::Everything {
        let clip = clip::vtest();
        for n in 1..=CAMERAS {
            // A file of its own for each, as cameras are.
            let own = dir.join(format!("cam-{n}.avi"));
            std::os::unix::fs::symlink(&clip, &own).map_err(|e| RigError::failed("link the clip", e))?;
            plan.cameras.push(CameraPlan { limit: "1h", ..CameraPlan::at(own.display().to_string()) });
        }
    }
    Ok(plan)
}

fn configuration(plan: &Plan, dir: &Path, port: u16) -> String {
    let probe = dir.join("probe.tty");
    // Receipts as in the field: what the rig shortens would send everything twice under load.
    let text = plan
        .config(dir, port)
        .replace("receipt_timeout_life_safety = \"1s\"\n", "")
        .replace("receipt_timeout = \"2s\"\n", "")
        .replace("keep_alive = \"5s\"\n", "");
    format!(
        "{text}\n[outbox]\ntelemetry_max = 1000000\n[[node]]\nname = \"probe\"\nport = \"{}\"\nsilence = \"1h\"\n\
         device = [{{ channel = 1, name = \"smoke-probe\", class = \"smoke\" }}]\n",
        probe.display()
    )
}

fn report(found: &[Found; 3], stored: usize) {
    println!("smoke frame -> PUBACK of the fire event, durable; frames 40 ms apart");
    println!("  {:<30}{:>8}{:>9}{:>9}{:>9}", "us", "frames", "p50", "p99", "max");
    let mut p99 = [0.0; 3];
    for ((load, found), p99) in Load::ALL.into_iter().zip(found).zip(&mut p99) {
        let sorted = sorted(&found.acked_us);
        let at = |q| quantile(&sorted, q);
        *p99 = at(0.99);
        println!("  {:<30}{:>8}{:>9.0}{:>9.0}{:>9.0}", load.title(), sorted.len(), at(0.5), at(0.99), at(1.0));
    }
    for (n, way) in ["decided", "stored", "acked"].into_iter().enumerate() {
        for (load, found) in Load::ALL.into_iter().zip(found) {
            let sorted = sorted(&found.ways_us[n]);
            println!("  {way:<9}{:<29}{:>9.0}{:>9.0}", load.title(), quantile(&sorted, 0.5), quantile(&sorted, 0.99));
        }
    }
    let left = found[2].backlog_left;
    println!(
        "  of {stored} stored events {left} still waited at the end: the backlog was{} draining all the time",
        if left == 0 { " NOT" } else { "" }
    );
    let goal = if p99[2] <= 1.2 * p99[1] { "met" } else { "NOT met" };
    println!(
        "  cameras and backlog on p99: {:.2} of the nodes alone, {:.2} of idle; goal <= 1.20 of the nodes alone: {goal}",
        p99[2] / p99[1],
        p99[2] / p99[0]
    );
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// Of sorted values, by the nearest rank; 0 of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[allow(dead_code, reason = "the road's node asks for it")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
