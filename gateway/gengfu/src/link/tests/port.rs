//! Goal: the link works on a real pseudo-terminal, with the real node at its far end.
//! Method: `gengfu-node-linux` on a thread, [`super::super::run`] on tokio, and this test as the decider. It waits for what must happen, never for a while.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::observation::{Link, Observation, Smoke, What};
use gengfu_node_linux::{NodeHandle, NodeReport, Options, Port, spawn};
use gengfu_wire::Uid;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{LinkBatch, LinkInlets, LinkStats, NodeConfig, Order, PortConfig, PortEnds, Refusal, run};
use super::{config, slug};
use crate::clock::{Clock, SystemClock};

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Gateway {
    batches: mpsc::Receiver<LinkBatch>,
    stats: Vec<watch::Receiver<LinkStats>>,
    pub(super) inlets: LinkInlets,
    stop: CancellationToken,
    task: JoinHandle<()>,
    saved: Saved,
    seen: VecDeque<Observation>,
}

type Saved = BTreeMap<Vec<u8>, Vec<u8>>;

impl Gateway {
    fn start(port: &Path, saved: Saved) -> Gateway {
        let node = NodeConfig { silence: Duration::from_secs(2), ..config() };
        Gateway::of(PortConfig::point_to_point(port.to_owned(), 115_200, node), saved)
    }

    pub(super) fn of(config: PortConfig, saved: Saved) -> Gateway {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (observed, batches) = mpsc::channel(4);
        let (commands_in, commands) = mpsc::channel(4);
        let mut inlets = LinkInlets::default();
        inlets.add(&config, &commands_in);
        let stop = CancellationToken::new();
        let shown = |node| watch::channel(LinkStats::starting(&config, node, clock.now()));
        let (stats_in, stats) = config.nodes().iter().map(shown).unzip();
        let stored = config.nodes().iter().map(|node| saved.get(&node.cursor_key()).cloned()).collect();
        let ends = PortEnds { saved: stored, clock, observed, stats: stats_in, commands, stop: stop.clone() };
        let task = tokio::spawn(run(config, ends));
        Gateway { batches, stats, inlets, stop, task, saved, seen: VecDeque::new() }
    }

    async fn batch(&mut self) -> LinkBatch {
        timeout(PATIENCE, self.batches.recv()).await.expect("a batch comes").expect("the link runs")
    }

    /// Stores batches until an observation fits; what follows it is kept for the next call.
    async fn until(&mut self, fits: impl Fn(&What) -> bool) {
        self.until_seen(|it| fits(&it.what)).await;
    }

    pub(super) async fn until_seen(&mut self, fits: impl Fn(&Observation) -> bool) {
        loop {
            while let Some(seen) = self.seen.pop_front() {
                if fits(&seen) {
                    return;
                }
            }
            let batch = self.batch().await;
            self.saved.insert(batch.cursor.0, batch.cursor.1);
            self.seen.extend(batch.observations);
            let _ = batch.done.send(Ok(()));
        }
    }

    async fn state(&mut self, fits: impl Fn(&LinkStats) -> bool) -> LinkStats {
        self.state_of(0, fits).await
    }

    pub(super) async fn state_of(&mut self, node: usize, fits: impl Fn(&LinkStats) -> bool) -> LinkStats {
        let shown = timeout(PATIENCE, self.stats[node].wait_for(fits)).await;
        shown.expect("the state comes").expect("the link runs").clone()
    }

    pub(super) async fn ends(self) -> Saved {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("the link stops").expect("without a panic");
        self.saved
    }
}

struct NodeUnderTest {
    node: NodeHandle,
    reports: mpsc::Receiver<NodeReport>,
}

impl NodeUnderTest {
    fn start(link: &Path) -> NodeUnderTest {
        let mut options = Options::new(Port::Pty { link: link.to_owned() }, Uid([5; 8]));
        options.heartbeat_ms = 500;
        let (reports_in, reports) = mpsc::channel(1_000);
        let node = spawn(options, move |report| drop(reports_in.try_send(report))).unwrap();
        NodeUnderTest { node, reports }
    }

    async fn report(&mut self, fits: impl Fn(&NodeReport) -> bool) -> NodeReport {
        loop {
            let report =
                timeout(PATIENCE, self.reports.recv()).await.expect("the report comes").expect("the node runs");
            if fits(&report) {
                return report;
            }
        }
    }
}

const fn door(open: bool) -> impl Fn(&What) -> bool {
    move |what| matches!(what, What::Door { open: it, .. } if *it == open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w19_on_a_pty_the_node_is_acknowledged_after_the_disk_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    let mut node = NodeUnderTest::start(&path);
    let mut gateway = Gateway::start(&path, Saved::new());
    gateway.until(door(false)).await;
    node.node.set_smoke(true).unwrap();
    let batch = loop {
        let batch = gateway.batch().await;
        if batch.observations.iter().any(|it| it.what == What::Smoke(Smoke::Alarm)) {
            break batch;
        }
        let _ = batch.done.send(Ok(()));
    };
    // The node resends while the disk works; it is not acknowledged, and nothing comes twice.
    gateway.state(|stats| stats.discards.contains_key("duplicate")).await;
    while let Ok(report) = node.reports.try_recv() {
        assert!(!matches!(report, NodeReport::Acked { .. }), "{report}");
    }
    let _ = batch.done.send(Err("the disk is full".into()));
    gateway.until(|what| *what == What::Smoke(Smoke::Alarm)).await;
    node.report(|it| matches!(it, NodeReport::Acked { through: 1, .. })).await;
    assert_eq!(gateway.state(|stats| stats.refused == 1).await.discards.get("broken"), None);
    gateway.ends().await;
    node.node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_is_told_and_is_heard_again_when_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    let mut gateway = Gateway::start(&path, Saved::new());
    let missing = gateway.state(|stats| stats.state.contains("does not exist")).await;
    assert!(!missing.is_up() && missing.remedy.contains("/dev/serial/by-path"), "{missing:?}");
    gateway.until(|what| matches!(what, What::Link(Link::Down(text)) if text.contains("串口不存在"))).await;

    let node = NodeUnderTest::start(&path);
    gateway.until(|what| *what == What::Link(Link::Up)).await;
    gateway.until(door(false)).await;
    node.node.stop();
    // The far end hangs up: the port reads as end of file, is closed, and is not there any more.
    gateway.state(|stats| !stats.is_up()).await;
    gateway.until(|what| matches!(what, What::Link(Link::Down(_)))).await;

    let mut node = NodeUnderTest::start(&path);
    gateway.until(|what| *what == What::Link(Link::Up)).await;
    node.node.set_contact(true).unwrap();
    gateway.until(door(true)).await;
    node.report(|it| matches!(it, NodeReport::Acked { .. })).await;
    let stats = gateway.state(|stats| stats.opened >= 2).await;
    assert!(stats.is_up() && stats.boots == 2, "{stats:?}");
    gateway.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_gateway_goes_on_where_its_disk_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    let mut node = NodeUnderTest::start(&path);
    let mut gateway = Gateway::start(&path, Saved::new());
    gateway.until(door(false)).await;
    node.node.set_contact(true).unwrap();
    gateway.until(door(true)).await;
    node.report(|it| matches!(it, NodeReport::Acked { through: 1, .. })).await;
    let saved = gateway.ends().await;
    node.node.set_contact(false).unwrap();
    node.report(|it| matches!(it, NodeReport::Accepted { sequence: 2, .. })).await;
    let mut gateway = Gateway::start(&path, saved);
    let mut numbers = vec![];
    while numbers.is_empty() {
        let batch = gateway.batch().await;
        numbers.extend(batch.observations.iter().filter_map(|it| Some(it.origin.as_ref()?.sequence)));
        let _ = batch.done.send(Ok(()));
    }
    assert_eq!(numbers, [2]);
    node.report(|it| matches!(it, NodeReport::Acked { through: 2, .. })).await;
    gateway.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_node_is_silence_and_a_port_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    let node = NodeUnderTest::start(&path);
    let mut gateway = Gateway::start(&path, Saved::new());
    gateway.until(door(false)).await;
    let mut second = Gateway::start(&path, Saved::new());
    let busy = second.state(|stats| stats.state.contains("another program")).await;
    assert!(busy.remedy.contains("fuser"), "{busy:?}");
    second.ends().await;
    node.node.send(gengfu_node_linux::Command::Mute(true)).unwrap();
    gateway.until(|what| matches!(what, What::Link(Link::Down(text)) if text.contains("nothing is heard"))).await;
    node.node.send(gengfu_node_linux::Command::Mute(false)).unwrap();
    gateway.until(|what| *what == What::Link(Link::Up)).await;
    gateway.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_was_renumbered_is_found_again_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, by_path) =
        (folder.path().join("tty1"), folder.path().join("tty2"), folder.path().join("by-path"));
    let node = NodeUnderTest::start(&first);
    std::os::unix::fs::symlink(&first, &by_path).unwrap();
    let mut gateway = Gateway::start(&by_path, Saved::new());
    gateway.until(|what| *what == What::Link(Link::Up)).await;
    // The adapter was pulled and put in again; the kernel gave it another number, udev the same path.
    node.node.stop();
    gateway.state(|stats| !stats.is_up()).await;
    let mut node = NodeUnderTest::start(&second);
    std::fs::remove_file(&by_path).unwrap();
    std::os::unix::fs::symlink(&second, &by_path).unwrap();
    gateway.state(|stats| stats.opened == 2 && stats.boots == 2).await;
    node.node.set_contact(true).unwrap();
    gateway.until(door(true)).await;
    node.report(|it| matches!(it, NodeReport::Acked { .. })).await;
    gateway.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_reaches_the_node_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node");
    let _node = NodeUnderTest::start(&path);
    let mut gateway = Gateway::start(&path, Saved::new());
    gateway.until(door(false)).await;
    let answer = gateway.inlets.order(&slug("node"), Order::Test { channel: 2 }).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap(), Ok(()));
    gateway.until(|what| *what == What::Smoke(Smoke::Test)).await;
    assert_eq!(gateway.inlets.order(&slug("nobody"), Order::Identify).unwrap_err(), Refusal::UnknownNode);
    gateway.ends().await;
}
