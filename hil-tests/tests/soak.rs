//! Days in minutes: a gateway with nodes and a camera lives through one fault after another, chosen by a seed that is printed, and is judged
//! after each round. Goal: whatever comes, everything acknowledged arrives, once each round is over nothing waits, and memory does not
//! grow from round to round. `make test-soak` runs many rounds, `make test` one. `GENGFU_ROUNDS`, `GENGFU_SEED`.

use std::process::ExitCode;
use std::time::Duration;

use hil_tests::broker::Memory;
use hil_tests::clip::vtest;
use hil_tests::node::{Traffic, rounds, seed};
use hil_tests::site::{CameraPlan, Plan, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Faults of one round.
const FAULTS: usize = 4;
/// What a gateway may have grown by since its first settled round (its page cache fills, its allocator keeps), in KiB.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

fn main() -> ExitCode {
    let needs = need::all([need::tool("mosquitto"), CameraPlan::need()]);
    skip::main(vec![skip::test("soak_round_after_round_everything_arrives", needs, soak)])
}

fn soak() -> Result<()> {
    let (seed, rounds) = (seed(), rounds(1));
    let mut random = StdRng::seed_from_u64(seed);
    let cameras = vec![CameraPlan::at(vtest().display().to_string())];
    let mut site = Site::start(&Plan { nodes: 3, cameras, proxied: true, ..Plan::default() })?;
    let mut first_kib = None;
    for round in 1..=rounds {
        let traffic = Traffic::start(site.nodes.clone(), random.random(), 20..200)?;
        let mut story = Vec::new();
        for _ in 0..FAULTS {
            story.push(fault(&mut site, &mut random)?);
            site.gateway.process()?.outlives(Duration::from_millis(random.random_range(200..2_000)))?;
        }
        traffic.stop()?;
        site.settle()?;
        let account = site.account()?;
        let kib = site.gateway.process()?.resident_kib().unwrap_or_default();
        println!("round {round}: {story:?}; {kib} KiB; {account:?}");
        // A gateway that was killed began anew; the growth of one life is what counts, and lives are short here.
        let first_kib = *first_kib.get_or_insert(kib);
        assert!(kib <= first_kib + GROWTH_MAX_KIB, "{kib} KiB after {first_kib} KiB in round 1");
    }
    Ok(())
}

fn fault(site: &mut Site, random: &mut StdRng) -> Result<&'static str> {
    let moment = Duration::from_millis(random.random_range(100..3_000));
    Ok(match random.random_range(0..8) {
        0 => {
            site.gateway.kill_and_restart()?;
            "gateway killed"
        }
        1 => {
            site.broker.restart(Memory::Keep)?;
            "broker killed"
        }
        2 => {
            site.broker.restart(Memory::Empty)?;
            "broker emptied"
        }
        3 => {
            site.broker.freeze()?;
            site.gateway.process()?.outlives(moment)?;
            site.broker.thaw()?;
            "broker frozen"
        }
        4 => {
            path(site)?.cut();
            "path cut"
        }
        5 => {
            path(site)?.blackhole();
            site.gateway.process()?.outlives(moment)?;
            path(site)?.heal();
            "path swallowed everything"
        }
        6 => {
            path(site)?.refuse(true);
            site.gateway.process()?.outlives(moment)?;
            path(site)?.refuse(false);
            "path refused"
        }
        _ => {
            // A gateway that was killed a moment ago does not answer yet; its worker is gone with it.
            let killed = site.gateway.kill_camera_worker().unwrap_or(false);
            if killed { "camera worker killed" } else { "no camera worker to kill" }
        }
    })
}

fn path(site: &Site) -> Result<&hil_tests::proxy::Proxy> {
    site.proxy.as_ref().ok_or_else(|| RigError::failed("break the path", "the plan has no proxy"))
}
