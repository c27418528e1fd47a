//! The gateway is killed with SIGKILL at random moments, again and again, while nodes live, a camera watches, and the broker dies too (also with
//! the loss of all it knew). Goal: every event that a node was acknowledged for reaches the desk, under one id, in a gapless chain, the gateway's own
//! journal is whole, and the store opens every time. Method: random faults from a seed that is printed; the desk and the nodes live through all of it.
//!
//! `GENGFU_ROUNDS` kills (12 unless said), `GENGFU_SEED` repeats the faults.

use std::process::ExitCode;
use std::time::Duration;

use gengfu::config::Protocol;
use hil_tests::Result;
use hil_tests::broker::Memory;
use hil_tests::clip::vtest;
use hil_tests::node::{Traffic, rounds, seed};
use hil_tests::site::{CameraPlan, Plan, Site};
use hil_tests::skip::{self, need};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn main() -> ExitCode {
    let mqtt = || need::tool("mosquitto");
    skip::main(vec![
        skip::test("kill_9_loses_nothing_on_mqtt_3_1_1", mqtt(), || {
            let plan = Plan { protocol: Protocol::Mqtt311, nodes: 3, ..Plan::default() };
            killed_again_and_again(&plan, 30..900)
        }),
        skip::test("kill_9_loses_nothing_with_a_camera_on_mqtt_5", need::all([mqtt(), CameraPlan::need()]), || {
            let camera = CameraPlan::at(vtest().display().to_string());
            // Long enough for a worker to load its model and see a vehicle stand, and short enough to die before.
            killed_again_and_again(&Plan { nodes: 3, cameras: vec![camera], ..Plan::default() }, 30..6_000)
        }),
    ])
}

fn killed_again_and_again(plan: &Plan, life_ms: std::ops::Range<u64>) -> Result<()> {
    let (seed, rounds) = (seed(), rounds(12));
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::prepare(plan)?;
    let traffic = Traffic::start(site.nodes.clone(), seed, 15..90)?;
    let (mut broker_deaths, mut worker_deaths) = (0, 0);
    for round in 1..=rounds {
        site.gateway.start()?;
        // A store that does not open ends the gateway: that is found here, or at the next start.
        let half_life = Duration::from_millis(random.random_range(life_ms.clone()) / 2);
        site.gateway.process()?.outlives(half_life)?;
        if !plan.cameras.is_empty() && round % 2 == 1 {
            // The camera tells something, too: its fault. A gateway that is too young to answer has no worker yet.
            worker_deaths += usize::from(site.gateway.kill_camera_worker().unwrap_or(false));
        }
        site.gateway.process()?.outlives(half_life)?;
        site.gateway.kill();
        if round % 3 == 0 {
            broker_deaths += 1;
            site.broker.restart(if round % 2 == 0 { Memory::Keep } else { Memory::Empty })?;
        }
    }
    site.gateway.start()?;
    traffic.stop()?;
    site.settle()?;
    let account = site.account()?;
    let last = site.own_journal()?;
    println!(
        "{rounds} kills, {broker_deaths} of the broker, {worker_deaths} of a worker, {:?}: 0 lost, 0 corrupt opens, both chains whole \
         to {last}; {account:?}",
        plan.protocol
    );
    assert!(last >= account.events as u64, "the desk has more than the gateway: {last}, {account:?}");
    assert!(account.acknowledged > rounds, "too little happened to prove anything: {account:?}");
    assert!(account.starts > 1, "no killed gateway had come up: {account:?}");
    if !plan.cameras.is_empty() && rounds >= 12 {
        assert!(account.pictures > 0, "the camera produced nothing: {account:?}");
    }
    Ok(())
}
