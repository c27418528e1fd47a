//! The gateway's disk loses power at random moments, while nodes live and a camera watches. Goal as in `kill`: what a node was
//! acknowledged for reaches the desk, pictures that an event names are there, the gateway's own journal is whole, and the store opens every time. Method: the data
//! directory lies on ext4 on a loop device that is shut down without flushing its journal, so what was not synced is gone; then the
//! gateway is killed, and the disk is mounted as at the next boot. Needs root.
//!
//! `GENGFU_ROUNDS` cuts (3 with a camera, 8 without, unless said), `GENGFU_SEED` repeats the moments.

use std::process::ExitCode;
use std::time::Duration;

use hil_tests::clip::vtest;
use hil_tests::disk::PowerCutDisk;
use hil_tests::node::{Traffic, rounds, seed};
use hil_tests::process::eventually;
use hil_tests::site::{Account, CameraPlan, Plan, SETTLED_WITHIN, Site};
use hil_tests::skip::{self, Need, need};
use hil_tests::{Result, RigError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn main() -> ExitCode {
    let disk = || -> Need { need::all([need::root(), need::tool("mkfs.ext4"), need::tool("mosquitto")]) };
    skip::main(vec![
        skip::test(
            "power_cut_loses_nothing_that_was_acknowledged",
            need::all([disk(), CameraPlan::need()]),
            with_camera,
        ),
        skip::test("power_cut_after_power_cut_at_any_moment_loses_nothing", disk(), in_quick_succession),
    ])
}

fn with_camera() -> Result<()> {
    let (seed, rounds) = (seed(), rounds(3));
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let mut disk = PowerCutDisk::create(folder.path(), 96)?;
    let camera = CameraPlan::at(vtest().display().to_string());
    let plan = Plan { nodes: 3, data_dir: Some(disk.path().join("data")), cameras: vec![camera], ..Plan::default() };
    let mut site = Site::prepare(&plan)?;
    let traffic = Traffic::start(site.nodes.clone(), seed, 10..60)?;
    for round in 1..=rounds {
        site.gateway.start()?;
        site.gateway.wait_until(&format!("the store opens after cut {}", round - 1), SETTLED_WITHIN, |status| {
            status["outbox"]["health"] == "ok" && status["gateway"]["boot"] == round
        })?;
        // Let it live for a moment of its own; then the power goes, in the middle of whatever it does.
        site.gateway.process()?.outlives(Duration::from_millis(random.random_range(50..8_000)))?;
        disk.cut()?;
        site.gateway.kill();
        // The camera's worker ends by itself when its gateway is gone; until then the disk is in use.
        eventually("the machine is off", SETTLED_WITHIN, || disk.power_on().map_err(|e| e.to_string()))?;
    }
    site.gateway.start()?;
    traffic.stop()?;
    site.settle()?;
    let account = site.account()?;
    println!("{rounds} power cuts with a camera: {account:?}");
    assert!(account.acknowledged > rounds, "too little happened to prove anything: {account:?}");
    assert_eq!(account.starts, rounds + 1, "every start of the gateway is in the journal: {account:?}");
    end(site, &account)
}

/// Cuts come at any moment of a busy gateway's life, also while it opens its store or has just been mounted: nobody waits for quiet.
fn in_quick_succession() -> Result<()> {
    let (seed, rounds) = (seed(), rounds(8));
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let mut disk = PowerCutDisk::create(folder.path(), 96)?;
    let plan = Plan { nodes: 3, data_dir: Some(disk.path().join("data")), ..Plan::default() };
    let mut site = Site::prepare(&plan)?;
    let traffic = Traffic::start(site.nodes.clone(), seed, 10..40)?;
    for _ in 1..=rounds {
        site.gateway.start()?;
        // A store that does not open ends the gateway: found here.
        site.gateway.process()?.outlives(Duration::from_millis(random.random_range(20..1_200)))?;
        disk.cut()?;
        site.gateway.kill();
        eventually("the machine is off", SETTLED_WITHIN, || disk.power_on().map_err(|e| e.to_string()))?;
    }
    site.gateway.start()?;
    traffic.stop()?;
    site.settle()?;
    let account = site.account()?;
    println!("{rounds} power cuts in quick succession: {account:?}");
    assert!(account.acknowledged > rounds, "too little happened to prove anything: {account:?}");
    assert!(account.starts > 1, "no gateway had come up before its power was cut: {account:?}");
    end(site, &account)
}

/// Checks the gateway's own journal and ends the site, whose files lie on a disk that goes next.
fn end(mut site: Site, account: &Account) -> Result<()> {
    let last = site.own_journal()?;
    println!("0 lost, 0 corrupt opens, both chains whole to {last}");
    assert!(last >= account.events as u64, "the desk has more than the gateway: {last}, {account:?}");
    Ok(())
}
