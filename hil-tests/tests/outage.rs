//! The broker is away for ten minutes, in simulated time, while doors go, smoke rises and people press buttons. Goal: all of it arrives when
//! the broker is back: most urgent lane first, in order within a lane, and marked as historical; what happens after is live again.
//! Method: the whole gateway (`gengfu::app::run`) in this process on a clock that only moves when told, with a real mosquitto that is killed
//! and restarted, real nodes on pseudo-terminals and the reference desk.
//!
//! Nodes keep their own, real time, so a node is rebooted when the gateway's clock has jumped: its uptime then begins where the gateway's time is.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gengfu::clock::{Clock, ManualClock};
use gengfu::config::{Config, Protocol};
use gengfu_contract::event::Event;
use gengfu_contract::words::Lane;
use gengfu_node_linux::Command::{Contact, Reboot, Smoke, Sos, Tamper};
use hil_tests::broker::Memory;
use hil_tests::node::Node;
use hil_tests::process::eventually;
use hil_tests::site::{Plan, SETTLED_WITHIN, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

const MINUTES: i64 = 10;
const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mqtt = || need::tool("mosquitto");
    skip::main(vec![
        skip::test("ten_minutes_without_a_broker_arrive_in_order_on_mqtt_5", mqtt(), || outage(Protocol::Mqtt5)),
        skip::test("ten_minutes_without_a_broker_arrive_in_order_on_mqtt_3_1_1", mqtt(), || outage(Protocol::Mqtt311)),
    ])
}

/// The gateway in this process. Dropping it stops it and waits for its end.
struct InProcess {
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl InProcess {
    fn start(config: Config, clock: Arc<ManualClock>) -> Result<Self> {
        let doing = "start the gateway in this process";
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|e| RigError::failed(doing, e))?;
        let run = move || {
            if let Err(error) = runtime.block_on(gengfu::app::run(config, clock, stop)) {
                eprintln!("the gateway ended: {error:#}");
            }
        };
        let thread = std::thread::Builder::new().name("gateway".into()).spawn(run);
        Ok(Self { shutdown, thread: Some(thread.map_err(|e| RigError::failed(doing, e))?) })
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            // A gateway that panicked has said so, and the scenario has failed by then.
            let _ = thread.join();
        }
    }
}

fn outage(protocol: Protocol) -> Result<()> {
    let plan = Plan { protocol, nodes: 3, left_open_after: "30s", silence: "1h", ..Plan::default() };
    let mut site = Site::prepare(&plan)?;
    let config = Config::load(site.gateway.config()).map_err(|e| RigError::failed("read the configuration", e))?;
    let began = Timestamp::from_second(1_800_000_000).map_err(|e| RigError::failed("begin", e))?;
    let clock = Arc::new(ManualClock::at(began));
    let gateway = InProcess::start(config, clock.clone())?;
    arrives(&site, &clock, "the gateway is at work")?;

    let before = head(&site)?;
    site.broker.kill();
    for minute in 0..MINUTES {
        clock.advance(SignedDuration::from_mins(1));
        happens(&site.nodes, minute)?;
        // Ten seconds apart, so that a door's limit runs out in between.
        for _ in 0..3 {
            let now = clock.now();
            clock.advance(SignedDuration::from_secs(10));
            eventually("the gateway has seen the time pass", SOON, || {
                let status = site.gateway.status().map_err(|e| e.to_string())?;
                let seen: Option<Timestamp> = status["gateway"]["now"].as_str().and_then(|text| text.parse().ok());
                if seen > Some(now) { Ok(()) } else { Err(format!("{seen:?}")) }
            })?;
        }
    }
    clock.advance(SignedDuration::from_mins(1));
    let waiting = head(&site)? - before;
    let back_at = clock.now();
    // It has kept the desk's session: whoever connects first, nothing reaches a broker that nobody listens to.
    site.broker.restart(Memory::Keep)?;
    arrives(&site, &clock, "everything has arrived")?;
    judge(&site, before, back_at)?;

    site.nodes[0].act(Reboot)?;
    let so_far = site.nodes[0].accepted().len();
    site.nodes[0].act(Sos)?;
    eventually("the button is pressed", SOON, || grew(&site.nodes[0], so_far))?;
    arrives(&site, &clock, "what happens now arrives")?;
    let last = site.desk.journal()?.pop().map(|line| line.event);
    assert!(
        last.as_ref().is_some_and(|event| event.historical.is_none()),
        "the present is marked historical: {last:?}"
    );
    println!("{protocol:?}: {waiting} events waited; {:?}", site.account()?);
    drop(gateway);
    Ok(())
}

/// Something in every lane a sensor can reach, another node each minute. Its door ends open.
fn happens(nodes: &[Node], minute: i64) -> Result<()> {
    let node = &nodes[usize::try_from(minute).unwrap_or_default() % nodes.len()];
    node.act(Reboot)?;
    let so_far = node.accepted().len();
    node.act(Contact { open: false })?;
    // Closing a door that was closed at boot is no event; one that was open closes in a debounce time.
    let _ = eventually("the door closes", Duration::from_millis(300), || grew(node, so_far));
    let so_far = node.accepted().len();
    node.act(Contact { open: true })?;
    eventually("the door opens", SOON, || grew(node, so_far))?;
    if minute % 3 == 2 {
        node.act(Tamper(true))?;
    }
    if minute % 4 == 1 {
        node.act(Sos)?;
    }
    if minute % 4 == 3 {
        node.act(Smoke(true))?;
    }
    eventually("the gateway's disk has what happened", SOON, || {
        if node.is_idle() { Ok(()) } else { Err(format!("{:?}", node.accepted())) }
    })
}

fn grew(node: &Node, so_far: usize) -> std::result::Result<(), String> {
    let accepted = node.accepted();
    if accepted.len() > so_far { Ok(()) } else { Err(format!("{accepted:?}")) }
}

/// Lets simulated time pass beside the real one until all has arrived.
fn arrives(site: &Site, clock: &ManualClock, what: &str) -> Result<()> {
    eventually(what, SETTLED_WITHIN, || {
        clock.advance(SignedDuration::from_millis(50));
        let status = site.gateway.status().map_err(|e| e.to_string())?;
        let up = status["links"].as_array().is_some_and(|links| links.iter().all(|link| link["up"] == true));
        if up && site.is_settled(&status) { Ok(()) } else { Err(format!("{status:#}")) }
    })
}

fn head(site: &Site) -> Result<u64> {
    let status = site.gateway.status()?;
    status["outbox"]["sequence"]
        .as_u64()
        .ok_or_else(|| RigError::failed("read the journal's head", format!("{status:#}")))
}

fn judge(site: &Site, before: u64, back_at: Timestamp) -> Result<()> {
    let journal = site.desk.journal()?;
    let waited: Vec<&Event> = journal
        .iter()
        .map(|line| &line.event)
        .filter(|event| event.sequence > before && event.recordedtime <= back_at)
        .collect();
    let order: Vec<(Lane, u64)> = waited.iter().map(|event| (event.lane, event.sequence)).collect();
    for lane in [Lane::Fire, Lane::Emergency, Lane::Trouble, Lane::Care, Lane::Telemetry] {
        assert!(order.iter().any(|(of, _)| *of == lane), "nothing waited in lane {lane}: {order:?}");
    }
    assert!(order.is_sorted(), "most urgent lane first, in order within it: {order:?}");
    assert!(order.windows(2).any(|pair| pair[0].1 > pair[1].1), "nothing overtook: {order:?}");
    let late = |event: &&&Event| back_at.duration_since(event.time) > SignedDuration::from_secs(30);
    let unmarked: Vec<_> = waited.iter().filter(late).filter(|event| event.historical != Some(true)).collect();
    assert!(unmarked.is_empty(), "late and not marked historical: {unmarked:#?}");
    let span = waited.iter().map(|event| event.time).max().zip(waited.iter().map(|event| event.time).min());
    let span = span.map(|(last, first)| last.duration_since(first));
    assert!(span >= Some(SignedDuration::from_mins(MINUTES - 1)), "events of the whole outage, not of {span:?}");
    Ok(())
}
