//! Load mode: many simulated gateways in one process, to measure a broker and a centre.
//!
//! Owns the run: a desk (the reference centre) on the same broker, gateways with the real uplink and delivery over real outboxes, seeded alarms at a total rate,
//! power cuts of the whole city, and the judgement at the end: does the desk have every event of every gateway, chained, and every gateway every
//! receipt. It is beside `app` and `demo` a place that starts tasks. It refuses to simulate what it measures: broker, network, client library, uplink
//! and desk are the real ones; only sensors and rules are invented. Alarms are marked CAP `Test`.

mod centre;
mod cleanup;
mod gateway;
mod order;
mod tally;
mod traffic;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::desk::DeskModel;
use crate::uplink::backoff::{between, later};
use crate::uplink::{Address, BrokerConfig, EvidenceItem};

use centre::Centre;
use gateway::{Common, Ended, Gateway};
use tally::Tally;
pub use tally::{Figures, GatewayFault, Report};

/// How often the run looks at itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Faults told at most.
const FAULTS_TOLD: usize = 50;

/// What is to be simulated.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The broker; the client id is replaced by each gateway's own.
    pub broker: BrokerConfig,
    /// More nodes of it. Each gateway prefers the next one of all, so that they share the load.
    pub other_brokers: Vec<Address>,
    /// Where the desk connects; the broker itself when absent.
    pub desk_broker: Option<Address>,
    /// The site; all gateways belong to it. It should be one that nobody works with.
    pub site: Slug,
    /// How many gateways.
    pub gateways: usize,
    /// Alarms a second, all gateways together. Every alarm is three events: the observation, raised, over.
    pub rate: f64,
    /// How long alarms come.
    pub lasts: Duration,
    /// Decides which alarms come where and when, and every jitter of a power cut.
    pub seed: u64,
    /// Of 100 alarms of a camera, so many have a picture.
    pub pictures_percent: u32,
    /// Size of a picture.
    pub picture_bytes: usize,
    /// The power of all gateways fails this often.
    pub cut_every: Option<Duration>,
    /// Gateways start, and come back after a power cut, spread over this.
    pub jitter: Duration,
    /// After the last alarm, how long receipts are waited for.
    pub settle_within: Duration,
    /// Outboxes on this machine's disk (in `folder`). Otherwise each gateway has a disk in memory, which loses at a power cut what was not synced: many
    /// gateways have many disks, this machine has one.
    pub on_disk: bool,
    /// Outboxes, the desk's journal and pictures; should be empty.
    pub folder: PathBuf,
}

impl LoadPlan {
    /// The broker as gateway number `index` sees it.
    fn brokers_of(&self, index: usize, name: &str) -> (BrokerConfig, Vec<Address>) {
        let first = Address { host: self.broker.host.clone(), port: self.broker.port };
        let mut all: Vec<Address> = std::iter::once(first).chain(self.other_brokers.iter().cloned()).collect();
        let turn = index % all.len();
        all.rotate_left(turn);
        let preferred = at(&self.broker, &all.remove(0), gateway_client(&self.site, name));
        (preferred, all)
    }

    /// The broker as the desk and other single clients see it.
    fn broker_for(&self, client_id: String) -> BrokerConfig {
        let own = Address { host: self.broker.host.clone(), port: self.broker.port };
        at(&self.broker, self.desk_broker.as_ref().unwrap_or(&own), client_id)
    }
}

fn at(broker: &BrokerConfig, address: &Address, client_id: String) -> BrokerConfig {
    BrokerConfig { client_id, host: address.host.clone(), port: address.port, ..broker.clone() }
}

fn gateway_client(site: &Slug, name: &str) -> String {
    format!("gengfu-{site}-{name}")
}

fn desk_client(site: &Slug, tag: &str) -> String {
    format!("gengfu-{site}-load-desk-{tag}")
}

/// Runs a load until its time is over or `stop`, then waits for what is under way, judges and cleans up. `tell` is given a line of progress
/// every 10 s. It needs a multi-threaded tokio runtime.
///
/// # Errors
/// When the folder cannot be used, the broker is not there at the start, or an outbox fails.
pub async fn run(
    plan: LoadPlan,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    mut tell: impl FnMut(String),
) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&plan.folder).with_context(|| format!("create {}", plan.folder.display()))?;
    let picture = make_picture(&plan.folder, plan.picture_bytes)?;
    // Another run's retained messages and queued events must not be taken for this one's.
    let tag = format!("{:x}", clock.now().as_second());
    let mut centre = Centre::start(&plan, &tag, clock.clone())?;
    centre.listens(&plan, &tag, clock.as_ref()).await?;
    let common = Arc::new(Common {
        plan,
        clock: clock.clone(),
        tally: Mutex::new(Tally::default()),
        pending: AtomicU64::new(0),
        open: AtomicU64::new(0),
        online: AtomicU64::new(0),
        picture,
    });
    let (quiet, end) = (CancellationToken::new(), CancellationToken::new());
    let (cut, cuts) = watch::channel(0_u64);
    let mut lives = JoinSet::new();
    for index in 1..=common.plan.gateways {
        let gateway = Gateway::new(common.clone(), &tag, index)?;
        lives.spawn(gateway.live(cuts.clone(), quiet.clone(), end.clone()));
    }
    let began_at = clock.now();
    let watched = watch_over(&common, &cut, &stop, &mut lives, &mut tell).await;
    quiet.cancel();
    let quiet_at = clock.now();
    watched?;
    tell("no more alarms; waiting for the receipts of what is under way".to_owned());
    let settled_after_ms = settle(&common, &mut lives).await?;
    centre.has_statements(&common, &tag).await;
    end.cancel();
    let mut ended = Vec::new();
    while let Some(life) = lives.join_next().await {
        ended.push(life.context("a gateway panicked")??);
    }
    let mut report = judge(&common, &ended, &centre, between(began_at, quiet_at), settled_after_ms);
    report.storms = *cut.borrow();
    centre.stop().await?;
    if let Err(reason) = cleanup::forget(&common.plan, &tag).await {
        tell(format!("sessions and retained messages of this run may be left at the broker: {reason:#}"));
    }
    Ok(report)
}

/// Lets the alarms come: power cuts, progress, and an early end.
async fn watch_over(
    common: &Arc<Common>,
    cut: &watch::Sender<u64>,
    stop: &CancellationToken,
    lives: &mut JoinSet<anyhow::Result<Ended>>,
    tell: &mut impl FnMut(String),
) -> anyhow::Result<()> {
    let began_at = common.clock.now();
    let ends_at = later(began_at, common.plan.lasts);
    let mut tell_at = later(began_at, TELL_EVERY);
    let mut were_online = false;
    let mut cut_at = common.plan.cut_every.map(|every| later(began_at, every));
    loop {
        let now = common.clock.now();
        if now >= ends_at || stop.is_cancelled() {
            return Ok(());
        }
        if let (Some(at), Some(every)) = (cut_at, common.plan.cut_every)
            && at <= now
        {
            cut.send_modify(|cuts| *cuts += 1);
            cut_at = Some(later(at, every));
        }
        if !were_online && common.online.load(Ordering::Relaxed) == common.plan.gateways as u64 {
            were_online = true;
            tell("every gateway is online".to_owned());
        }
        if tell_at <= now {
            tell(progress(common, between(began_at, now)));
            tell_at = later(tell_at, TELL_EVERY);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
            // None leaves before the end but by a fault.
            Some(life) = lives.join_next() => { life.context("a gateway panicked")??; }
        }
    }
}

fn progress(common: &Common, passed: Duration) -> String {
    let all = common.tally(|tally| (tally.alarms, tally.events, tally.received, tally.all().figures()));
    let (alarms, events, received, latency) = all;
    format!(
        "{:>5} s  online {}/{}  alarms {alarms}  events {events}  received {received}  pending {}  p50 {} ms  p99 {} ms  max {} ms",
        passed.as_secs(),
        common.online.load(Ordering::Relaxed),
        common.plan.gateways,
        common.pending.load(Ordering::Relaxed),
        latency.p50_ms,
        latency.p99_ms,
        latency.max_ms,
    )
}

/// Waits until all alarms are over and then until every item has its receipt, at most as long as the plan says; how long the latter took, ms.
async fn settle(common: &Arc<Common>, lives: &mut JoinSet<anyhow::Result<Ended>>) -> anyhow::Result<u64> {
    let until = later(common.clock.now(), common.plan.settle_within);
    let mut over_at = None;
    loop {
        let now = common.clock.now();
        if over_at.is_none() && common.open.load(Ordering::Relaxed) == 0 {
            over_at = Some(now);
        }
        let waited = over_at.map(|at| between(at, now));
        if now >= until || (over_at.is_some() && common.pending.load(Ordering::Relaxed) == 0) {
            return Ok(waited.and_then(|waited| u64::try_from(waited.as_millis()).ok()).unwrap_or(u64::MAX));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(life) = lives.join_next() => { life.context("a gateway panicked")??; }
        }
    }
}

fn judge(common: &Common, ended: &[Ended], centre: &Centre, lasted: Duration, settled_after_ms: u64) -> Report {
    let model = lock(&centre.model);
    let mut faults: Vec<GatewayFault> = ended
        .iter()
        .flat_map(|end| {
            let gateway = end.name.clone();
            faults_of(end, &model).into_iter().map(move |fault| GatewayFault { gateway: gateway.clone(), fault })
        })
        .collect();
    let ours = |name: &Slug| ended.iter().any(|end| end.name == *name);
    let others = model.gateways().iter().filter(|(name, view)| !ours(name) && view.sequences.proof().first.is_some());
    let others = others.map(|(name, view)| (name.clone(), view.sequences.proof())).collect();
    let duplicates = model.gateways().values().map(|view| view.sequences.proof().duplicates).sum();
    let order = lock(&centre.order);
    let complete = faults.is_empty();
    faults.truncate(FAULTS_TOLD);
    common.tally(|tally| Report {
        complete,
        seed: common.plan.seed,
        gateways: common.plan.gateways,
        seconds: lasted.as_secs(),
        settled_after_ms,
        alarms: tally.alarms,
        events: tally.events,
        pictures: tally.pictures,
        sent: tally.sent,
        received: tally.received,
        untimed: tally.untimed,
        pending: ended.iter().map(|end| end.pending).sum(),
        connects: ended.iter().map(|end| end.connects).sum(),
        boots: ended.iter().map(|end| end.boots).sum(),
        storms: 0,
        slowest_connect_ms: ended.iter().map(|end| end.slowest_connect_ms).max().unwrap_or_default(),
        latency: tally.all().figures(),
        latency_life_safety: tally.life_safety().figures(),
        lanes: tally.lanes.iter().map(|(lane, of)| (*lane, of.figures())).collect(),
        duplicates,
        out_of_order: order.out_of_order,
        malformed: model.malformed().0,
        unjudged: order.unjudged,
        faults,
        others,
        memory_peak_kib: memory_peak_kib(),
    })
}

fn faults_of(end: &Ended, model: &DeskModel) -> Vec<String> {
    let mut faults = Vec::new();
    if end.pending > 0 {
        faults.push(format!("{} items without a receipt", end.pending));
    }
    if end.dropped > 0 {
        faults.push(format!("{} items dropped at a lane's bound", end.dropped));
    }
    match model.proof(&end.name) {
        None => faults.push(format!("the desk has nothing of its {} events", end.sequence)),
        Some(proof) => {
            let is_whole = proof.holds()
                && (proof.first, proof.last) == (Some(1), Some(end.sequence))
                && (proof.received, proof.chain_links) == (end.sequence, end.sequence);
            if !is_whole {
                faults.push(format!("journaled 1…{}, the desk: {proof}", end.sequence));
            }
        }
    }
    faults
}

/// A file that stands for every picture: its bytes are of no picture, only of its size.
fn make_picture(folder: &Path, bytes: usize) -> anyhow::Result<EvidenceItem> {
    let path = folder.join("picture.jpg");
    // Not compressible, as a JPEG is not.
    let mut body = Vec::with_capacity(bytes + 32);
    let mut block = Sha256::digest(b"picture");
    while body.len() < bytes {
        body.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    body.truncate(bytes);
    std::fs::write(&path, &body).with_context(|| format!("write {}", path.display()))?;
    Ok(EvidenceItem {
        alarm_id: String::new(),
        n: 1,
        sha256: hex::encode(Sha256::digest(&body)),
        path,
        bytes: body.len() as u64,
    })
}

/// The kernel's high-water mark of this process's memory (proc(5), `VmHWM`); 0 where there is none.
fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or_default()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    fn plan(nodes: u16) -> LoadPlan {
        LoadPlan {
            broker: BrokerConfig::new("h", 1, Protocol::Mqtt311, "replaced"),
            other_brokers: (2..=nodes).map(|port| Address { host: "h".into(), port }).collect(),
            desk_broker: None,
            site: Slug::new("s").unwrap(),
            gateways: 3,
            rate: 1.0,
            lasts: Duration::from_secs(1),
            seed: 1,
            pictures_percent: 0,
            picture_bytes: 0,
            cut_every: None,
            jitter: Duration::ZERO,
            settle_within: Duration::ZERO,
            on_disk: false,
            folder: PathBuf::new(),
        }
    }

    #[test]
    fn gateways_share_the_nodes_and_each_knows_all_of_them() {
        for index in 1..=6 {
            let (first, others) = plan(3).brokers_of(index, "g");
            let mut ports: Vec<u16> = others.iter().map(|other| other.port).chain([first.port]).collect();
            assert_eq!(usize::from(first.port), index % 3 + 1);
            ports.sort_unstable();
            assert_eq!(ports, [1, 2, 3]);
        }
        assert_eq!(plan(1).brokers_of(5, "g"), (plan(1).broker_for("gengfu-s-g".into()), Vec::new()));
    }

    #[test]
    fn every_way_of_being_incomplete_is_named() {
        let model = DeskModel::new(Slug::new("s").unwrap());
        let ended = |pending, dropped| Ended {
            name: gateway::name("t", 1),
            sequence: 7,
            pending,
            dropped,
            connects: 1,
            boots: 1,
            slowest_connect_ms: 0,
        };
        let faults = faults_of(&ended(2, 3), &model).join("; ");
        for part in ["2 items without a receipt", "3 items dropped", "nothing of its 7 events"] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        assert_eq!(faults_of(&ended(0, 0), &model).len(), 1);
    }
}
