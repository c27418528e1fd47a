//! Eight nodes on one RS-485 pair at 115,200 bit/s, as they come from the factory: without an address. Goal: the gateway gives each its address, nothing
//! collides, and everything a node was acknowledged for arrives, also when the gateway is killed, nodes reboot and the pair is cut. Method: real
//! nodes, a pair that has the bus's time and spoils what is said at once, the real gateway, broker and desk.

use std::process::ExitCode;
use std::time::Duration;

use gengfu_node_linux::Command::{Contact, Reboot, Smoke};
use hil_tests::node::{Traffic, seed};
use hil_tests::site::{Plan, SETTLED_WITHIN, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};

const NODES: usize = 8;
const KILLS: u64 = 2;
const LIFE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let mqtt = || need::tool("mosquitto");
    skip::main(vec![
        skip::test("bus_nodes_get_their_addresses_and_lose_nothing", mqtt(), lose_nothing),
        skip::test("bus_that_is_cut_is_one_trouble_and_comes_back", mqtt(), cut_and_mended),
    ])
}

fn plan() -> Plan {
    Plan { nodes: NODES, on_a_bus: true, silence: "5s", ..Plan::default() }
}

fn collisions(site: &Site) -> Result<u64> {
    let bus = site.bus.as_ref().ok_or_else(|| RigError::failed("look at the bus", "the plan has none"))?;
    Ok(bus.collisions())
}

fn lose_nothing() -> Result<()> {
    let seed = seed();
    let mut site = Site::start(&plan())?;
    let traffic = Traffic::start(site.nodes.clone(), seed, 15..60)?;
    for _ in 0..KILLS {
        site.gateway.process()?.outlives(LIFE)?;
        site.gateway.kill_and_restart()?;
    }
    site.gateway.process()?.outlives(LIFE)?;
    for node in site.nodes.iter().take(3) {
        node.act(Reboot)?;
    }
    traffic.stop()?;
    site.settle()?;
    let account = site.account()?;
    println!("{account:?}, {} bytes on the pair", site.bus.as_ref().map_or(0, hil_tests::bus::Bus::bytes));
    assert!(account.acknowledged > 50, "too little happened to prove anything: {account:?}");
    let collisions = collisions(&site)?;
    assert!(
        collisions <= KILLS,
        "only a gateway that dies between a poll and its answer may speak into it: {collisions}"
    );
    Ok(())
}

fn cut_and_mended() -> Result<()> {
    let mut site = Site::start(&plan())?;
    let cut = |site: &Site, is: bool| site.bus.as_ref().into_iter().for_each(|bus| bus.cut(is));
    cut(&site, true);
    site.nodes[0].act(Contact { open: true })?;
    site.nodes[1].act(Smoke(true))?;
    let status = site.gateway.wait_until("the bus is told as down", SETTLED_WITHIN, |status| {
        kinds(status).contains(&("bus_down".to_owned(), "bus-1".to_owned()))
    })?;
    let lost: Vec<_> = kinds(&status).into_iter().filter(|(kind, _)| kind == "sensor_lost").collect();
    assert!(lost.is_empty(), "one trouble explains all eight nodes: {lost:?}");
    cut(&site, false);
    site.gateway.wait_until("the bus is up and the smoke is known", SETTLED_WITHIN, |status| {
        let kinds = kinds(status);
        kinds.contains(&("smoke".to_owned(), "smoke-2".to_owned())) && !kinds.iter().any(|(kind, _)| kind == "bus_down")
    })?;
    site.settle()?;
    site.account()?;
    Ok(())
}

/// Kind and device of the alarms that are active.
fn kinds(status: &serde_json::Value) -> Vec<(String, String)> {
    let alarms = status["alarms"].as_array().into_iter().flatten();
    let active = alarms.filter(|alarm| alarm["condition"].as_str().is_some_and(|c| c.starts_with("ACTIVE")));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    active.map(|alarm| (text(&alarm["kind"]), text(&alarm["device"]))).collect()
}
