//! A backlog leaves: from the store through the real uplink to the centre, in turn with a bare rumqttc that publishes the same bytes with the same window
//! through the same broker to the same centre. Goal: at least 0.8 of its speed, though every item is taken from the disk, sent, acknowledged,
//! confirmed by the centre and settled on the disk. Ratios count; absolute figures are this machine's.
//!
//! `make bench`, or `cargo bench -p hil-tests --bench drain`. `GENGFU_BENCH_DIR` chooses the disk, `GENGFU_BENCH_EVENTS` the events of a round
//! (default 20000), `GENGFU_BENCH_ROUNDS` the rounds (default 3; the median is judged).
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock, that is all it is for")]

mod bare;
mod centre;
mod ours;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use hil_tests::broker::{Broker, BrokerOptions};
use hil_tests::skip::need;
use hil_tests::{Result, RigError};

/// Messages on the wire at one time, for both; the broker allows as many.
const WINDOW: u16 = 64;
/// A round that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    if let Err(why) = need::tool("mosquitto") {
        println!("drain: skipped, because {why}");
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drain: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

pub(crate) fn fail(doing: &str) -> impl Fn(&dyn std::fmt::Display) -> RigError {
    let doing = doing.to_owned();
    move |why| RigError::failed(&doing, why)
}

fn bench() -> Result<()> {
    let (events, rounds) = (number("GENGFU_BENCH_EVENTS", 20_000), number("GENGFU_BENCH_ROUNDS", 3).max(1));
    let home = std::env::var_os("GENGFU_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    std::fs::create_dir_all(&home).map_err(|e| fail("make the bench's folder")(&e))?;
    let (mut bare, mut arrived, mut received) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let dir = tempfile::Builder::new().prefix("drain-").tempdir_in(&home);
        let dir = dir.map_err(|e| fail("make a folder")(&e))?;
        let options =
            BrokerOptions { extra: vec![format!("max_inflight_messages {WINDOW}")], ..BrokerOptions::default() };
        let broker = Broker::start(&dir.path().join("broker"), &options)?;
        let bodies = ours::store(dir.path(), events)?;
        // In turn, and neither always first.
        if round % 2 == 0 {
            bare.push(bare::publish(broker.port(), &bodies)?);
        }
        let took = ours::drain(dir.path(), broker.port(), events)?;
        arrived.push(took.arrived);
        received.push(took.received);
        if round % 2 == 1 {
            bare.push(bare::publish(broker.port(), &bodies)?);
        }
    }
    report(events, median(bare), median(arrived), median(received));
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn report(events: usize, bare: f64, arrived: f64, received: f64) {
    let line = |name: &str, seconds: f64, what: &str| {
        println!("  {name:<10}{seconds:>8.2} s{:>9.0}/s   {what}", events as f64 / seconds);
    };
    println!("backlog of {events} events, QoS 1, window {WINDOW}, one mosquitto; medians");
    line("rumqttc", bare, "alone, from memory, until the centre has the last");
    line("gateway", arrived, "from the store, until the centre has the last");
    line("received", received, "the same, until the last receipt is settled in the store");
    let ratio = bare / arrived;
    let met = if ratio >= 0.8 { "met" } else { "NOT met" };
    println!("  ratio     {ratio:>8.2}   goal >= 0.8: {met}; until the last receipt {:.2}", bare / received);
}
