//! What 32 idle nodes on one RS-485 pair cost the gateway: its share of a core, and how often each node is asked. The real gateway, real nodes,
//! a pair that has the bus's time. Not judged: it measures the machine too; the figures stand in `docs/wire-protocol.md`.
//!
//! `cargo bench -p hil-tests --bench bus_idle` after `cargo build --release -p gengfu`. `GENGFU_BENCH_SECONDS` is how long is measured (default 10).
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock and waits for what it measures")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hil_tests::site::{Plan, Site};
use hil_tests::skip::need;
use hil_tests::{Result, RigError};

const NODES: usize = 32;

fn main() -> ExitCode {
    if let Err(why) = need::tool("mosquitto") {
        println!("bus_idle: skipped, because {why}");
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bus_idle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let seconds = std::env::var("GENGFU_BENCH_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let mut site = Site::start(&Plan { nodes: NODES, on_a_bus: true, silence: "60s", ..Plan::default() })?;
    site.settle()?;
    let pid = site.gateway.process()?.pid();
    let (polls, cpu, began) = (polls(&site)?, cpu(pid)?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (polls, cpu, wall) = (self::polls(&site)? - polls, self::cpu(pid)? - cpu, began.elapsed());
    println!(
        "{NODES} idle nodes on one bus: {:.2} % of a core, {:.0} polls a second, a node is asked every {:.0} ms",
        100.0 * cpu.as_secs_f64() / wall.as_secs_f64(),
        polls as f64 / wall.as_secs_f64(),
        1e3 * wall.as_secs_f64() * NODES as f64 / polls.max(1) as f64,
    );
    Ok(())
}

/// Polls of all nodes since the start.
fn polls(site: &Site) -> Result<u64> {
    let status = site.gateway.status()?;
    let links = status["links"].as_array().into_iter().flatten();
    Ok(links.filter_map(|link| link["polls"].as_u64()).sum())
}

/// User and system time of a process: fields 14 and 15 of `/proc/<pid>/stat`, in ticks (proc(5)).
fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let fail = |e: &dyn std::fmt::Display| RigError::failed(format!("read {path}"), e);
    let text = std::fs::read_to_string(&path).map_err(|e| fail(&e))?;
    // The name may hold spaces; it ends with the last bracket.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11).zip(ticks(12)).ok_or_else(|| fail(&"a field is missing"))?;
    Ok(Duration::from_secs_f64((ticks.0 + ticks.1) as f64 / rustix::param::clock_ticks_per_second() as f64))
}
