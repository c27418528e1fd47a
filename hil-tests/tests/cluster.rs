//! Gateways against a broker of several nodes, while nodes die, leaders move and a minority is cut off. Goal: whatever happens to the cluster, the desk proves that
//! nothing is missing, and everything has its receipt. Method: real NATS (JetStream, replicated three times) and RabbitMQ (quorum queues) of three nodes, `gengfu load`
//! with many simulated gateways and the desk, and beside them one real gateway with a real node. Gateways know all nodes (`[uplink] brokers`); the desk, which knows one
//! address, goes through a front that tries them in turn.
//!
//! `make test` runs each with few gateways and one fault, without RabbitMQ; `make test-cluster` kills nodes of both for minutes with 200 gateways: `GENGFU_MINUTES`, `GENGFU_SEED`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gengfu::config::Protocol;
use hil_tests::broker::{Broker, BrokerOptions};
use hil_tests::cluster::{Front, Load, LoadOptions, Nodes};
use hil_tests::gateway::Gateway;
use hil_tests::nats::{self, MESSAGES, NatsCluster, NatsOptions};
use hil_tests::node::{Node, Traffic, seed};
use hil_tests::rabbitmq::{self, RabbitCluster};
use hil_tests::site::{GATEWAY, Plan, SITE, start_nodes};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use tempfile::TempDir;

/// A node comes back, has caught up and is counted within this.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// After the faults: elections, reconnects, and receipts that were lost are sent again after 60 s, then 120 s.
const RECEIPTS_WITHIN: Duration = Duration::from_secs(420);
/// Longer than a cluster takes to elect a new leader (NATS: 4 to 9 s).
const A_WHILE: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let mut tests = vec![
        skip::test("a_city_loses_its_power_and_nothing_is_missing", need::tool("mosquitto"), power_cut),
        skip::test("nats_a_node_is_killed_and_nothing_is_missing", nats::need(), nats_killed),
        skip::test("nats_the_leader_moves_and_nothing_is_missing", nats::need(), nats_leader_moves),
        skip::test("nats_a_minority_is_cut_off_and_nothing_is_missing", nats::need(), nats_minority),
    ];
    // Three Erlang machines take longer to start than all of the above; they have their place in the long run.
    if minutes().is_some() {
        let name = "rabbitmq_a_node_is_killed_and_nothing_is_missing";
        tests.push(skip::test(name, rabbitmq::need(), rabbitmq_killed));
    }
    skip::main(tests)
}

/// How long the killing goes on; `None` for the short share of `make test`.
fn minutes() -> Option<u64> {
    std::env::var("GENGFU_MINUTES").ok()?.parse().ok()
}

/// A cluster with everything that uses it. The order of the fields is the order of their end.
struct Town<N> {
    load: Load,
    traffic: Option<Traffic>,
    gateway: Gateway,
    nodes: Arc<Vec<Node>>,
    cluster: N,
    _front: Front,
    dir: TempDir,
}

impl<N: Nodes> Town<N> {
    /// Puts a front, the load and a real gateway before the cluster, and waits until all are connected.
    fn found(dir: TempDir, cluster: N, gateways: usize, rate: f64) -> Result<Self> {
        let front = Front::start(cluster.mqtt())?;
        let plan = Plan { protocol: Protocol::Mqtt311, nodes: 1, silence: "1h", ..Plan::default() };
        let seed = seed();
        let options = LoadOptions { gateways, rate, seed, site: SITE.to_owned(), more: Vec::new() };
        let mut load = Load::start(dir.path(), &cluster.mqtt(), front.addr(), &options)?;
        load.wait_until_online(WHOLE_WITHIN)?;
        let nodes = start_nodes(&plan, dir.path())?;
        let list: Vec<String> = cluster.mqtt().iter().map(|node| format!("\"{node}\"")).collect();
        let one = format!("broker = \"127.0.0.1:{}\"", front.addr().port());
        let all = format!("brokers = [{}]\nbroker_attempts = 2", list.join(", "));
        let config = plan.config(dir.path(), front.addr().port()).replace(&one, &all);
        assert!(config.contains(&all), "the configuration names its broker in another way: {config}");
        let mut gateway = Gateway::launch(dir.path(), &config)?;
        gateway.wait_until("the real gateway has reached the centre", WHOLE_WITHIN, |status| {
            status["uplink"]["state"] == "online" && status["uplink"]["last_receipt_at"].is_string()
        })?;
        let traffic = Some(Traffic::start(nodes.clone(), seed, 100..1_000)?);
        Ok(Self { load, traffic, gateway, nodes, cluster, _front: front, dir })
    }

    /// Waits until everything that happened has its receipt, and judges.
    fn settle(mut self, what: &str) -> Result<()> {
        if let Some(traffic) = self.traffic.take() {
            traffic.stop()?;
        }
        let nodes = self.nodes.clone();
        let status = self.gateway.wait_until("the real gateway has every receipt", RECEIPTS_WITHIN, |status| {
            let lanes = status["outbox"]["lanes"].as_array();
            nodes.iter().all(Node::is_idle) && lanes.is_some_and(|lanes| lanes.iter().all(|lane| lane["pending"] == 0))
        })?;
        let head = status["outbox"]["sequence"].as_u64();
        let report = self.load.finish(RECEIPTS_WITHIN)?;
        let summary = |key: &str| format!("{key} {}", report[key]);
        let keys = [
            "events",
            "received",
            "connects",
            "duplicates",
            "out_of_order",
            "latency",
            "latency_life_safety",
            "memory_peak_kib",
        ];
        println!("{} {what}: {}", self.cluster.kind(), keys.map(summary).join("; "));
        assert!(report["complete"] == true, "not complete: {report:#}");
        assert!(report["malformed"] == 0 && report["pending"] == 0, "{report:#}");
        let real = &report["others"][GATEWAY];
        let is_whole = real["missing"].as_array().is_some_and(Vec::is_empty)
            && real["first"] == 1
            && real["last"].as_u64() >= head
            && real["chain_breaks"].as_array().is_some_and(Vec::is_empty)
            && real["conflicts"] == 0;
        assert!(is_whole, "of the real gateway, whose journal ends at {head:?}, the desk has {real:#}");
        drop(self.dir);
        Ok(())
    }
}

fn folder() -> Result<TempDir> {
    tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))
}

/// One node after the other is killed and comes back.
fn kill_in_turn<N: Nodes>(town: &mut Town<N>) -> Result<()> {
    let kills = minutes().map_or(1, |minutes| minutes * 2);
    let count = town.cluster.mqtt().len();
    for kill in 0..kills {
        let node = usize::try_from(kill).unwrap_or_default() % count;
        town.cluster.kill(node);
        town.load.outlives(A_WHILE)?;
        town.cluster.start(node)?;
        if minutes().is_some() {
            // One every 30 s, whether or not the last one has caught up by then.
            town.load.outlives(Duration::from_secs(30) - A_WHILE)?;
            eprintln!(
                "kill {} of {kills}: {}",
                kill + 1,
                town.load.said().lines().rfind(|line| line.contains("online ")).unwrap_or_default()
            );
        }
    }
    town.cluster.wait_until_whole(WHOLE_WITHIN)
}

fn nats_killed() -> Result<()> {
    let dir = folder()?;
    let cluster = NatsCluster::start(&dir.path().join("cluster"), &NatsOptions::default())?;
    let (gateways, rate) = if minutes().is_some() { (200, 20.0) } else { (20, 10.0) };
    let mut town = Town::found(dir, cluster, gateways, rate)?;
    kill_in_turn(&mut town)?;
    town.settle("node killed")
}

fn nats_leader_moves() -> Result<()> {
    let dir = folder()?;
    let cluster = NatsCluster::start(&dir.path().join("cluster"), &NatsOptions::default())?;
    let mut town = Town::found(dir, cluster, 20, 10.0)?;
    for _ in 0..3 {
        let (before, after) = town.cluster.move_leader(MESSAGES)?;
        println!("the leader moved from n{} to n{}", before + 1, after + 1);
        town.load.outlives(Duration::from_secs(1))?;
    }
    town.settle("leader moved")
}

fn nats_minority() -> Result<()> {
    let dir = folder()?;
    let cluster =
        NatsCluster::start(&dir.path().join("cluster"), &NatsOptions { can_be_cut: true, ..NatsOptions::default() })?;
    let mut town = Town::found(dir, cluster, 20, 10.0)?;
    // The leader is the worst one to lose: it believes in itself for a while.
    let leader = town.cluster.leader(MESSAGES).unwrap_or_default();
    town.cluster.cut_off(leader);
    town.load.outlives(2 * A_WHILE)?;
    let among_others = town.cluster.leader_among_others(MESSAGES, leader);
    assert!(among_others.is_some_and(|now| now != leader), "the majority is led by {among_others:?}");
    town.cluster.join_again(leader);
    town.cluster.wait_until_whole(WHOLE_WITHIN)?;
    town.settle("minority cut off")
}

/// One broker, many gateways, all of them without power twice: what was not synced is gone, receipts among it.
fn power_cut() -> Result<()> {
    let dir = folder()?;
    let broker = Broker::start(&dir.path().join("broker"), &BrokerOptions::default())?;
    let more = ["--power-cut-every", "4", "--jitter", "2"].map(str::to_owned).to_vec();
    let options = LoadOptions { gateways: 30, rate: 30.0, seed: seed(), site: SITE.to_owned(), more };
    let mut load = Load::start(dir.path(), &[broker.addr()], broker.addr(), &options)?;
    load.wait_until_online(WHOLE_WITHIN)?;
    load.outlives(Duration::from_secs(10))?;
    let report = load.finish(RECEIPTS_WITHIN)?;
    println!(
        "power cuts {}; starts {}; duplicates {}; latency {}",
        report["storms"], report["boots"], report["duplicates"], report["latency"]
    );
    assert!(report["complete"] == true && report["malformed"] == 0, "{report:#}");
    assert!(
        report["storms"].as_u64() >= Some(2) && report["boots"].as_u64() > Some(30),
        "no power was cut: {report:#}"
    );
    assert!(report["received"].as_u64() >= report["events"].as_u64(), "{report:#}");
    Ok(())
}

fn rabbitmq_killed() -> Result<()> {
    let dir = folder()?;
    let cluster = RabbitCluster::start(&dir.path().join("cluster"))?;
    let (gateways, rate) = if minutes().is_some() { (200, 20.0) } else { (20, 10.0) };
    let mut town = Town::found(dir, cluster, gateways, rate)?;
    kill_in_turn(&mut town)?;
    town.settle("node killed")
}
