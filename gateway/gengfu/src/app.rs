//! The gateway's stages, in the order an event meets them.
//!
//! Owns every channel, task and thread of the daemon, what happens when a channel is full, and the order of stopping. No other file creates any (a test checks).
//!
//! ```text
//! link (a task per port) ─┐  waits: the node keeps its events
//! sensors (a task per     │  waits: levels are told later
//! Modbus line or broker) ─┤
//!                         ├─> decide (a thread: judge, journal, sync, acknowledge) ──> outbox ──> uplink (a thread) ──> broker
//! cameras (a task and a  ─┘  scenes shed                     │   ^                                   │
//! process for some each) <────────────── pictures wanted ─────┤   └───────────── commands ────────────┘
//! nodes' sounders, the box's lamp <──── what is wanted on site┘
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse, FusedFuture};
use gengfu_outbox::Outbox;
use gengfu_vision::protocol::WorkerConfig;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cameras::shedding::{self, Shedding};
use crate::cameras::snapshots::{self, Lens, Snapshots};
use crate::cameras::{self, CameraStatus, CameraTask, Member, Outlets, Workers};
use crate::clock::Clock;
use crate::config::Config;
use crate::decide::{self, Channels, DecideStatus, Decider, LocalOrder, LocalRequest};
use crate::errands;
use crate::evidence::{self, Evidence, Pictures};
use crate::identity::status::Keeping;
use crate::identity::{Credentials, IdentityStatus, Keeper, KeeperParts, Own, common_name};
use crate::link;
use crate::local::report::Sources;
use crate::local::{metrics as exporter, on_site, outputs, socket};
use crate::sensors::plan::{Plan, resolve_what_fits};
use crate::sensors::{self, SensorStats};
use crate::settings::{self, Started};
use crate::setup::{
    camera_duty, credentials, keeper, link_ports, outbox_options, own_outputs, picture_policy, rules, topics,
    uplink_config, wiring, worker_config,
};
use crate::uplink::trial::BrokerTrial;
use crate::uplink::{self, Board, PictureSource, UplinkParts, UplinkStatus};

/// Link batches waiting for the decider. When it is full the links wait and the nodes keep their events.
const LINK_BATCHES: usize = 256;
/// Orders waiting for a port's task. When it is full the asker is told so at once.
const LINK_ORDERS: usize = 16;
/// Camera observations waiting for the decider. When it is full scenes are shed; states and pictures wait.
const CAMERA_OBSERVATIONS: usize = 64;
/// Commands waiting for the decider. When it is full the uplink answers "busy".
const COMMANDS: usize = 64;
/// Answers waiting for the uplink, and last words of nodes waiting for the decider. When it is full they are dropped; the centre repeats its command.
const REPLIES: usize = 64;
/// Orders of the centre for nodes. When it is full they are dropped; the centre repeats its command.
const ORDERS: usize = 16;
/// Configurations to be tried: one at a time is.
const CHANGES: usize = 4;
/// Errands of the centre. When it is full they are dropped; the centre repeats its command.
const ERRANDS: usize = 16;
/// Pictures wanted. When it is full alarms go out without them.
const STILLS: usize = 16;
/// Pictures waiting to be kept or read. When it is full a camera's task or the uplink's loading waits; nobody else does.
const PICTURE_JOBS: usize = 16;
/// Figures for metrics are taken this often.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// Why the gateway has stopped in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// It is to be started again, with another configuration.
    Restart,
}

/// Runs the gateway until `shutdown`, or until its configuration changes, then stops it in order: producers, decider, uplink.
///
/// # Errors
/// When a part cannot start (store, socket, code files), or one that must not end has ended.
pub async fn run(
    started: impl Into<Started>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> anyhow::Result<Ended> {
    let Started { config, status: config_status, settings } = started.into();
    // Before anything counts: what is counted earlier is in no metric.
    if let Some(address) = config.local.metrics
        && let Err(error) = exporter::serve(address)
    {
        tracing::error!(%error, "no metrics on {address}: is the port free? ([local] metrics)");
    }
    let evidence = prepare_evidence(&config.gateway.data_dir, clock.now())?;
    let evidence_dir = config.gateway.data_dir.join("evidence");
    let outbox = Outbox::open(outbox_options(&config)).context("open the outbox")?;
    let (sensors, lacks) = resolve_what_fits(&config.sensors);
    for lack in &lacks {
        tracing::error!(key = %lack.key, remedy = %lack.remedy, "a sensor is not read: {}", lack.problem);
    }
    let rules = rules(&config, &sensors);
    let board = Board::new();
    let identity = decide::Identity {
        site: config.gateway.site.clone(),
        gateway: config.gateway.name.clone(),
        evidence_dir: evidence_dir.clone(),
    };
    let decider =
        Decider::start(identity, rules, wiring(&config), outbox.clone(), board.clone(), clock.now(), clock.quality())?;
    let credentials = credentials(&config, clock.clone());
    let (jobs_in, jobs) = mpsc::channel(PICTURE_JOBS);
    let pictures = Pictures::new(jobs_in);
    let mut uplink_config = uplink_config(&config, decider.boot(), credentials.clone())?;
    uplink_config.pictures = PictureSource::Store(pictures.clone());

    let (links_in, links) = mpsc::channel(LINK_BATCHES);
    let (seen_in, seen) = mpsc::channel(CAMERA_OBSERVATIONS);
    let (commands_in, commands) = mpsc::channel(COMMANDS);
    let (replies_in, replies) = mpsc::channel(REPLIES);
    let (stills_in, stills) = mpsc::channel(STILLS);
    let (decide_status_in, decide_status) = watch::channel(DecideStatus::default());
    let (uplink_status_in, uplink_status) = watch::channel(UplinkStatus::starting(&uplink_config.broker, clock.now()));
    let (orders_in, orders) = mpsc::channel(ORDERS);
    let (errands_in, errands) = mpsc::channel(ERRANDS);
    let (shots_in, shots) = mpsc::channel(ERRANDS);
    let (local_in, local_orders) = mpsc::channel(ORDERS);
    let (answered_in, answered) = mpsc::channel(REPLIES);
    let (changes_in, changes) = mpsc::channel(CHANGES);
    let (wanted_in, wanted) = watch::channel(Vec::new());
    let (stored, housekeeping) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (stop_producers, stop_decider, stop_uplink) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let stop_pictures = CancellationToken::new();
    let restart = CancellationToken::new();

    // What must not end: if one does, the gateway stops and is started again by systemd.
    let mut producers: JoinSet<&'static str> = JoinSet::new();
    let (link_status, link_inlets) = start_links(&config, &outbox, &mut producers, &links_in, &clock, &stop_producers)?;
    let sensor_status = start_sensors(sensors, &outbox, &mut producers, &links_in, &clock, &stop_producers)?;
    let (camera_status, shedding, snapshots) =
        start_cameras(&config, &pictures, &mut producers, &seen_in, stills, &clock, &stop_producers)?;
    drop((links_in, seen_in));

    let channels = Channels {
        links,
        commands,
        seen,
        local: local_orders,
        answered,
        stills: stills_in,
        pictures: pictures.clone(),
        replies: replies_in,
        orders: orders_in,
        errands: Some(errands_in),
        wanted: wanted_in,
        stored: stored.clone(),
        housekeeping: housekeeping.clone(),
        status: decide_status_in,
        uplink: uplink_status.clone(),
    };
    let mut decider_thread = start_decider(decider, channels, clock.clone(), stop_decider.clone())?;
    let mut housekeeping_thread = start_housekeeping(outbox.clone(), housekeeping, stop_uplink.clone())?;

    let facts = (outbox.clone(), decide_status.clone());
    let mut pictures_thread =
        start_evidence(evidence, jobs, facts, picture_policy(&config), clock.clone(), stop_pictures.clone())?;
    let parts = UplinkParts {
        outbox: outbox.clone(),
        board,
        clock: clock.clone(),
        wake: stored,
        commands: commands_in,
        replies,
        status: uplink_status_in,
        shutdown: stop_uplink.clone(),
    };
    let trial = uplink_config.broker.clone();
    let mut uplink_thread = start_uplink(uplink_config, parts)?;
    let reload = Arc::new(Notify::new());

    let mut sources = Sources {
        site: config.gateway.site.clone(),
        gateway: config.gateway.name.clone(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        decide: decide_status,
        links: link_status,
        sensors: sensor_status,
        cameras: camera_status,
        shedding,
        uplink: uplink_status.clone(),
        config: None,
        identity: None,
    };
    let config_status = config_status.map(watch::channel);
    sources.config = config_status.as_ref().map(|(_, shown)| shown.clone());
    let takes_changes = settings.as_ref().and(config_status.as_ref()).map(|_| changes_in);
    let changer = settings.zip(config_status).map(|(settings, (status, _))| {
        settings::Keeper::new(settings::KeeperParts {
            owes_last_word: settings.owes_last_word(&outbox),
            settings,
            status,
            running: config.clone(),
            orders: changes,
            answers: answered_in.clone(),
            uplink: uplink_status.clone(),
            outbox: outbox.clone(),
            clock: clock.clone(),
            restart: restart.clone(),
            shutdown: stop_uplink.clone(),
        })
    });
    let keeper = credentials.map(|credentials| {
        let prover = BrokerTrial { broker: trial, topics: topics(&config), uplink: uplink_status };
        make_keeper(&config, credentials, prover, local_in.clone(), reload.clone(), &clock, &stop_uplink)
    });
    sources.identity = keeper.as_ref().map(|(_, status)| status.clone());
    let inlets = socket::Inlets {
        decider: local_in,
        nodes: link_inlets.clone(),
        firmware_keys: config.firmware_keys.clone(),
        settings: takes_changes.clone(),
        reload_identity: reload,
    };
    let mut local = start_local(&config, sources, inlets, &stop_uplink)?;
    if let Some((keeper, _)) = keeper {
        local.spawn(keeper.run());
    }
    if let Some(changer) = changer {
        local.spawn(changer.run());
    }
    local.spawn(snapshots.run(shots, answered_in.clone(), clock.clone(), stop_uplink.clone()));
    let hands = errands::Hands { settings: takes_changes, snapshots: Some(shots_in) };
    local.spawn(errands::run(errands, hands, answered_in.clone(), clock.clone(), stop_uplink.clone()));
    start_on_site(&config, (wanted, orders), (link_inlets, answered_in), &mut local, &clock, &stop_uplink);
    tracing::info!(gateway = %config.gateway.name, site = %config.gateway.site, "ready");
    // Does nothing unless systemd waits for it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        () = restart.cancelled() => None,
        ended = producers.join_next(), if !producers.is_empty() => Some(format!("{ended:?} ended")),
        _ = &mut decider_thread => Some("the decider ended".to_owned()),
        _ = &mut housekeeping_thread => Some("the outbox's housekeeping ended".to_owned()),
        _ = &mut pictures_thread => Some("the thread of the pictures ended".to_owned()),
        ended = &mut uplink_thread => Some(format!("the uplink ended: {ended:?}")),
        ended = local.join_next() => Some(format!("a local service ended: {ended:?}")),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop_producers.cancel();
    while producers.join_next().await.is_some() {}
    stop_decider.cancel();
    if failed.is_none() {
        decider_thread.await;
    }
    stop_uplink.cancel();
    if !uplink_thread.is_terminated() {
        uplink_thread.await;
    }
    if failed.is_none() {
        housekeeping_thread.await;
    }
    local.shutdown().await;
    // Last: whoever is being stopped may still wait for a picture.
    stop_pictures.cancel();
    if failed.is_none() {
        pictures_thread.await;
    }
    match failed {
        None if restart.is_cancelled() && !shutdown.is_cancelled() => Ok(Ended::Restart),
        None => Ok(Ended::Told),
        Some(what) => Err(anyhow::anyhow!("{what}; it must not")),
    }
}

/// The keeper of the gateway's certificate, and what it shows.
fn make_keeper(
    config: &Config,
    credentials: Credentials,
    prover: BrokerTrial,
    decider: mpsc::Sender<LocalRequest>,
    reload: Arc<Notify>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> (Keeper, watch::Receiver<IdentityStatus>) {
    let keeping = if matches!(credentials.source().own, Own::Nobody) { Keeping::Nobody } else { Keeping::Files };
    let name = common_name(&config.gateway.site, &config.gateway.name);
    let (status_in, status) = watch::channel(IdentityStatus::starting(keeping, name));
    let parts = KeeperParts {
        clock: clock.clone(),
        prove: Box::new(prover),
        // When the decider's door is full it is told at the next look.
        tell: Box::new(move |cap, detail| {
            let (answer, _) = tokio::sync::oneshot::channel();
            decider.try_send(LocalRequest { order: LocalOrder::Certificate { cap, detail }, answer }).is_ok()
        }),
        status: status_in,
        reload,
        shutdown: stop.clone(),
    };
    (keeper(config, credentials, parts), status)
}

/// The pictures, put in order after the last end.
fn prepare_evidence(data_dir: &Path, now: Timestamp) -> anyhow::Result<Evidence> {
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("create {}; check gateway.data_dir and its permissions", data_dir.display()))?;
    let evidence = Evidence::open_or_renew(data_dir)?;
    if let Err(error) = evidence.recover(now) {
        // Smoke and doors go on; what is left half done is tried again at the next start.
        tracing::error!(%error, "the pictures of the last run are not put in order");
    }
    Ok(evidence)
}

fn start_links(
    config: &Config,
    outbox: &Outbox,
    tasks: &mut JoinSet<&'static str>,
    to_decider: &mpsc::Sender<link::LinkBatch>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> anyhow::Result<(Vec<watch::Receiver<link::LinkStats>>, link::LinkInlets)> {
    let mut statuses = Vec::new();
    let mut inlets = link::LinkInlets::default();
    for port in link_ports(config)? {
        let (commands_in, commands) = mpsc::channel(LINK_ORDERS);
        inlets.add(&port, &commands_in);
        let mut ends = link::PortEnds {
            saved: Vec::new(),
            clock: clock.clone(),
            observed: to_decider.clone(),
            stats: Vec::new(),
            commands,
            stop: stop.clone(),
        };
        for node in port.nodes() {
            ends.saved.push(outbox.get(&node.cursor_key())?);
            let (status_in, status) = watch::channel(link::LinkStats::starting(&port, node, clock.now()));
            ends.stats.push(status_in);
            statuses.push(status);
        }
        tasks.spawn(async move {
            link::run(port, ends).await;
            "a link"
        });
    }
    Ok((statuses, inlets))
}

/// Modbus lines and brokers of MQTT devices. Like the links they wait when the decider's channel is full.
fn start_sensors(
    plan: Plan,
    outbox: &Outbox,
    tasks: &mut JoinSet<&'static str>,
    to_decider: &mpsc::Sender<link::LinkBatch>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<watch::Receiver<SensorStats>>> {
    let mut statuses = Vec::new();
    for line in plan.lines {
        let saved = outbox.get(&sensors::cursor_key(&line.name))?;
        let (status_in, status) =
            watch::channel(SensorStats::starting(line.name.clone(), String::new(), [], clock.now()));
        statuses.push(status);
        let run = sensors::modbus::run(line, saved, clock.clone(), to_decider.clone(), status_in, stop.clone());
        tasks.spawn(async move {
            run.await;
            "a Modbus line"
        });
    }
    for broker in plan.brokers {
        let saved = outbox.get(&sensors::cursor_key(&broker.config.name))?;
        let (status_in, status) =
            watch::channel(SensorStats::starting(broker.config.name.clone(), String::new(), [], clock.now()));
        statuses.push(status);
        let run = sensors::mqtt::run(broker, saved, clock.clone(), to_decider.clone(), status_in, stop.clone());
        tasks.spawn(async move {
            run.await;
            "a broker of sensors"
        });
    }
    Ok(statuses)
}

fn start_cameras(
    config: &Config,
    pictures: &Pictures,
    tasks: &mut JoinSet<&'static str>,
    to_decider: &mpsc::Sender<gengfu_alarm::Observation>,
    stills: mpsc::Receiver<gengfu_alarm::output::NeedStill>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> anyhow::Result<(Vec<watch::Receiver<CameraStatus>>, watch::Receiver<Shedding>, Snapshots)> {
    let mut statuses = Vec::new();
    let mut routes = BTreeMap::new();
    let mut lenses = BTreeMap::new();
    let mut members = Vec::new();
    let views_dir = cameras::views::folder(&config.gateway.data_dir).context("create the folder of reference views")?;
    for (place, camera) in config.cameras.iter().enumerate() {
        let starting = CameraStatus::starting(camera.name.clone(), camera.url.to_string(), clock.now());
        let (status_in, status) = watch::channel(starting);
        statuses.push(status.clone());
        let reference = Some(cameras::views::file(&views_dir, &camera.name));
        let worker = match worker_config(&config.vision, camera) {
            Ok(worker) => WorkerConfig { reference, ..worker },
            Err(error) => {
                // A camera that cannot start is a trouble of its own; smoke and doors go on.
                let fault = cameras::cannot_start(&camera.name, &format!("{error:#}"), &status_in, clock.as_ref());
                to_decider.try_send(fault).context("tell the decider of a camera that cannot start")?;
                continue;
            }
        };
        let (stills_in, stills) = mpsc::channel(STILLS);
        let lens = Lens { wanted: stills_in.clone(), status, is_allowed: camera.snapshots };
        lenses.insert(camera.name.clone(), lens);
        routes.insert(camera.name.clone(), stills_in);
        let (camera, duty, of) = (camera.name.clone(), camera_duty(camera), config.cameras.len());
        let task = CameraTask { camera, worker, duty, place, of };
        let outlets = Outlets { seen: to_decider.clone(), status: status_in };
        members.push(Member { task, outlets, stills });
    }
    let shedding = start_workers(config, pictures, tasks, members, &statuses, clock, stop)?;
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = cameras::route(stills, routes) => {}
        }
        "the pictures' route"
    });
    let snapshots = Snapshots { cameras: lenses, pictures: pictures.clone(), within: snapshots::WITHIN };
    Ok((statuses, shedding, snapshots))
}

/// A task for each group of cameras that share a worker, and one that measures what they all take.
fn start_workers(
    config: &Config,
    pictures: &Pictures,
    tasks: &mut JoinSet<&'static str>,
    members: Vec<Member>,
    statuses: &[watch::Receiver<CameraStatus>],
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> anyhow::Result<watch::Receiver<Shedding>> {
    let (shedding_in, shedding) = watch::channel(Shedding::default());
    let workers = Workers {
        program: cameras::worker_program().context("find this program's own file")?,
        pictures: pictures.clone(),
        views_dir: cameras::views::folder(&config.gateway.data_dir).context("create the folder of reference views")?,
        memory_max_bytes: config.vision.worker_memory_bytes,
        shedding: shedding.clone(),
    };
    for group in cameras::groups(members, config.vision.cameras_per_worker) {
        let run = cameras::watch_group(group, workers.clone(), clock.clone(), stop.clone());
        tasks.spawn(async move {
            run.await;
            "a worker's cameras"
        });
    }
    if config.vision.load_shedding && !statuses.is_empty() {
        let run = shedding::run(statuses.to_vec(), shedding_in, clock.clone(), stop.clone());
        tasks.spawn(async move {
            run.await;
            "the cameras' load"
        });
    }
    Ok(shedding)
}

/// The decider blocks on the disk, so it has a thread.
fn start_decider(
    decider: Decider,
    channels: Channels,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<Ending<()>> {
    start_thread("decider", move || decide::run(decider, channels, clock, stop))
}

/// Neither the decider nor the uplink waits for what can be done later.
fn start_housekeeping(outbox: Outbox, due: Arc<Notify>, stop: CancellationToken) -> anyhow::Result<Ending<()>> {
    start_thread("housekeeping", move || decide::keep_in_order(outbox, due, stop))
}

/// The uplink waits for commits when it enters receipts, and nobody shall wait with it; and an alarm that is stored wakes one thread, not two.
fn start_uplink(
    config: uplink::UplinkConfig,
    parts: UplinkParts,
) -> anyhow::Result<Ending<Result<(), uplink::OpenError>>> {
    start_thread("uplink", move || uplink::run(config, parts))
}

/// Pictures are written and read one after the other, away from everybody's tasks.
fn start_evidence(
    evidence: Evidence,
    jobs: mpsc::Receiver<evidence::keeper::Job>,
    facts: (Outbox, watch::Receiver<DecideStatus>),
    policy: evidence::Policy,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<Ending<()>> {
    start_thread("pictures", move || evidence::keeper::run(evidence, jobs, facts, policy, clock, stop))
}

/// Completes when a thread ends: with what its work gave, or with nothing when it panicked.
type Ending<T> = Fuse<BoxFuture<'static, Option<T>>>;

/// A thread with a small runtime of its own.
fn start_thread<T: Send + 'static, F: Future<Output = T>>(
    name: &str,
    run: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<Ending<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended_in, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Dropped, if it comes to that, by a panic.
        let _ = ended_in.send(runtime.block_on(run()));
    })?;
    Ok(async move { ended.await.ok() }.boxed().fuse())
}

/// Sounders and lamps, on nodes and on the box itself.
fn start_on_site(
    config: &Config,
    (wanted, orders): (watch::Receiver<Vec<gengfu_alarm::Want>>, mpsc::Receiver<(String, decide::Order)>),
    (nodes, answers): (link::LinkInlets, mpsc::Sender<gengfu_contract::command::Reply>),
    local: &mut JoinSet<()>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) {
    let own = own_outputs(config);
    let (lines_in, lines) = watch::channel(BTreeMap::new());
    let named = own.iter().map(|(name, output, _)| (name.clone(), *output)).collect();
    let ways = on_site::Ways { nodes, lines: lines_in, answers, own: named };
    local.spawn(on_site::run(wanted, orders, ways, clock.clone(), stop.clone()));
    if !own.is_empty() {
        let driven = own.into_iter().map(|(_, output, line)| (output, line)).collect();
        let outputs = outputs::Outputs::new(driven, Box::new(outputs::open));
        local.spawn(outputs::run(outputs, lines, stop.clone()));
    }
}

fn start_local(
    config: &Config,
    sources: Sources,
    inlets: socket::Inlets,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut local = JoinSet::new();
    if config.local.metrics.is_some() {
        let (sources, stop) = (sources.clone(), stop.clone());
        local.spawn(async move {
            while tokio::time::timeout(GAUGES_EVERY, stop.cancelled()).await.is_err() {
                sources.publish_gauges();
            }
        });
    }
    local.spawn(feed_watchdog(sources.clone(), stop.clone()));
    let listener = socket::listen(&config.local.socket)?;
    local.spawn(socket::serve(listener, sources, inlets, stop.clone()));
    Ok(local)
}

/// Tells systemd's watchdog that we live, as long as the disk finishes its writes: a store whose threads are stuck is cured by a restart only.
async fn feed_watchdog(sources: Sources, stop: CancellationToken) {
    let every = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |limit| limit / 3);
    while tokio::time::timeout(every, stop.cancelled()).await.is_err() {
        if !sources.is_stalled() {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}
