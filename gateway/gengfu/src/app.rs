//! The gateway's stages, in the order an event meets them.
//!
//! Owns every channel, task and thread of the daemon, what happens when a channel is full, and the order of stopping. No other file creates any (a test checks).
//!
//! ```text
//! link (a task per port) ─┐  waits: the node keeps its events
//!                         ├─> decide (a thread: judge, journal, sync, acknowledge) ──> outbox ──> uplink (a task) ──> broker
//! cameras (a task and a  ─┘  scenes shed                     │   ^                                   │
//! process per camera) <──────────────── pictures wanted ─────┘   └───────────── commands ────────────┘
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gengfu_alarm::codes::{CodeFile, CodeTable};
use gengfu_alarm::rules::{DeviceClass as RuleClass, DeviceRule, Rules, Timing, ZoneKind, ZoneRule};
use gengfu_alarm::{LocalOutput, LocalPolicy, OutputKind};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use gengfu_outbox::{Options, Outbox};
use gengfu_vision::decode::{CaptureConfig, DecodeMode};
use gengfu_vision::detect::ModelConfig;
use gengfu_vision::manifest::Manifest;
use gengfu_vision::protocol::{VERSION, WorkerConfig};
use gengfu_vision::sandbox::Limits as WorkerLimits;
use gengfu_vision::source::Transport;
use gengfu_vision::zone::Zone as VisionZone;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cameras::{self, CameraStatus, CameraTask, Outlets};
use crate::clock::Clock;
use crate::config::{self, Config, DeviceClass, Lack};
use crate::decide::{self, Channels, DecideStatus, Decider, Wiring};
use crate::link;
use crate::local::report::Sources;
use crate::local::{metrics as exporter, socket};
use crate::uplink::{self, Board, BrokerConfig, Limits, Secret, TlsFiles, UplinkConfig, UplinkParts, UplinkStatus};

/// Link batches waiting for the decider. When it is full the links wait and the nodes keep their events.
const LINK_BATCHES: usize = 256;
/// Orders waiting for a port's task. When it is full the asker is told so at once.
const LINK_ORDERS: usize = 16;
/// Camera observations waiting for the decider. When it is full scenes are shed; states and pictures wait.
const CAMERA_OBSERVATIONS: usize = 64;
/// Commands waiting for the decider. When it is full the uplink answers "busy".
const COMMANDS: usize = 64;
/// Answers waiting for the uplink. When it is full they are dropped; the centre repeats its command.
const REPLIES: usize = 64;
/// Pictures wanted. When it is full alarms go out without them.
const STILLS: usize = 16;
/// Names of the box's own outputs among all that can sound or shine; no device may have them.
const LAMP: &str = "gateway-lamp";
const SOUNDER: &str = "gateway-sounder";
/// Figures for metrics are taken this often.
const GAUGES_EVERY: Duration = Duration::from_secs(5);
/// Pictures past their time are looked for this often.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Runs the gateway until `shutdown`, then stops it in order: producers, decider, uplink.
///
/// # Errors
/// When a part cannot start (store, socket, code files), or one that must not end has ended.
pub async fn run(config: Config, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> anyhow::Result<()> {
    // Before anything counts: what is counted earlier is in no metric.
    if let Some(address) = config.local.metrics
        && let Err(error) = exporter::serve(address)
    {
        tracing::error!(%error, "no metrics on {address}: is the port free? ([local] metrics)");
    }
    let evidence_dir = prepare_folders(&config.gateway.data_dir)?;
    let outbox = Outbox::open(outbox_options(&config)).context("open the outbox")?;
    let rules = rules(&config);
    let board = Board::new();
    let identity = decide::Identity {
        site: config.gateway.site.clone(),
        gateway: config.gateway.name.clone(),
        evidence_dir: evidence_dir.clone(),
    };
    let decider =
        Decider::start(identity, rules, wiring(&config), outbox.clone(), board.clone(), clock.now(), clock.quality())?;
    let uplink_config = uplink_config(&config, decider.boot())?;

    let (links_in, links) = mpsc::channel(LINK_BATCHES);
    let (seen_in, seen) = mpsc::channel(CAMERA_OBSERVATIONS);
    let (commands_in, commands) = mpsc::channel(COMMANDS);
    let (replies_in, replies) = mpsc::channel(REPLIES);
    let (stills_in, stills) = mpsc::channel(STILLS);
    let (decide_status_in, decide_status) = watch::channel(DecideStatus::default());
    let (uplink_status_in, uplink_status) = watch::channel(UplinkStatus::starting(&uplink_config.broker, clock.now()));
    let stored = Arc::new(Notify::new());
    let (stop_producers, stop_decider, stop_uplink) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());

    // What must not end: if one does, the gateway stops and is started again by systemd.
    let mut producers: JoinSet<&'static str> = JoinSet::new();
    let (link_status, _link_inlets) =
        start_links(&config, &outbox, &mut producers, &links_in, &clock, &stop_producers)?;
    let camera_status =
        start_cameras(&config, &evidence_dir, &mut producers, &seen_in, stills, &clock, &stop_producers)?;
    drop((links_in, seen_in));

    let channels = Channels {
        links,
        commands,
        seen,
        stills: stills_in,
        replies: replies_in,
        stored: stored.clone(),
        status: decide_status_in,
    };
    let mut decider_thread = start_decider(decider, channels, clock.clone(), stop_decider.clone())?;

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
    let mut uplink_task = tokio::spawn(uplink::run(uplink_config, parts));

    let sources = Sources {
        site: config.gateway.site.clone(),
        gateway: config.gateway.name.clone(),
        clock: clock.clone(),
        outbox: outbox.clone(),
        decide: decide_status,
        links: link_status,
        cameras: camera_status,
        uplink: uplink_status,
    };
    let mut local = start_local(&config, &evidence_dir, sources, &stop_uplink)?;
    tracing::info!(gateway = %config.gateway.name, site = %config.gateway.site, "ready");
    // Does nothing unless systemd waits for it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = producers.join_next(), if !producers.is_empty() => Some(format!("{ended:?} ended")),
        () = &mut decider_thread => Some("the decider ended".to_owned()),
        ended = &mut uplink_task => Some(format!("the uplink ended: {ended:?}")),
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
    if !uplink_task.is_finished() {
        let _ = uplink_task.await;
    }
    local.shutdown().await;
    match failed {
        None => Ok(()),
        Some(what) => Err(anyhow::anyhow!("{what}; it must not")),
    }
}

fn prepare_folders(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let evidence_dir = data_dir.join("evidence");
    std::fs::create_dir_all(&evidence_dir)
        .with_context(|| format!("create {}; check gateway.data_dir and its permissions", evidence_dir.display()))?;
    Ok(std::fs::canonicalize(evidence_dir)?)
}

fn outbox_options(config: &Config) -> Options {
    let mut options = Options::new(config.gateway.data_dir.join("outbox"));
    options.cache_bytes = config.outbox.cache_bytes;
    options.journal_keep = config.outbox.journal_keep;
    for (lane, most) in &config.outbox.bounds {
        options.bounds = std::mem::take(&mut options.bounds).with(decide::lane_of(*lane), *most);
    }
    options
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

/// One port for each node that has its own, and one for each bus.
fn link_ports(config: &Config) -> Result<Vec<link::PortConfig>, link::PortConfigError> {
    let mut ports = Vec::new();
    for node in &config.nodes {
        if let config::Attachment::Port(port) = &node.at {
            ports.push(link::PortConfig::point_to_point(port.clone(), node.baud, link_node(node, 0)));
        }
    }
    for bus in &config.buses {
        let on_it = |node: &config::Node| match &node.at {
            config::Attachment::Bus { bus: name, address } if *name == bus.name => Some(link_node(node, *address)),
            _ => None,
        };
        let nodes: Vec<link::NodeConfig> = config.nodes.iter().filter_map(on_it).collect();
        let settings = link::BusConfig { turnaround: bus.turnaround };
        if !nodes.is_empty() {
            ports.push(link::PortConfig::bus(bus.port.clone(), bus.baud, settings, nodes)?);
        }
    }
    Ok(ports)
}

fn link_node(node: &config::Node, address: u8) -> link::NodeConfig {
    // The configuration allows an hour.
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    link::NodeConfig {
        node: node.name.clone(),
        address,
        expected_uid: node.uid,
        silence: node.silence,
        heartbeat_ms: node.heartbeat.map(ms),
        debounce_ms: node.debounce.map(ms),
        channels: node
            .channels
            .iter()
            .map(|(channel, device)| (*channel, (device.name.clone(), device.class)))
            .collect(),
    }
}

fn start_cameras(
    config: &Config,
    evidence_dir: &Path,
    tasks: &mut JoinSet<&'static str>,
    to_decider: &mpsc::Sender<gengfu_alarm::Observation>,
    stills: mpsc::Receiver<gengfu_alarm::output::NeedStill>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<watch::Receiver<CameraStatus>>> {
    let mut statuses = Vec::new();
    let mut routes = BTreeMap::new();
    for camera in &config.cameras {
        let starting = CameraStatus::starting(camera.name.clone(), camera.url.to_string(), clock.now());
        let (status_in, status) = watch::channel(starting);
        statuses.push(status);
        let worker = match worker_config(&config.vision, camera) {
            Ok(worker) => worker,
            Err(error) => {
                // A camera that cannot start is a trouble of its own; smoke and doors go on.
                let fault = cameras::cannot_start(&camera.name, &format!("{error:#}"), &status_in, clock.as_ref());
                to_decider.try_send(fault).context("tell the decider of a camera that cannot start")?;
                continue;
            }
        };
        let (stills_in, stills) = mpsc::channel(STILLS);
        routes.insert(camera.name.clone(), stills_in);
        let task = CameraTask {
            camera: camera.name.clone(),
            worker,
            program: cameras::worker_program().context("find this program's own file")?,
            evidence_dir: evidence_dir.to_owned(),
            memory_max_bytes: config.vision.worker_memory_bytes,
        };
        let outlets = Outlets { seen: to_decider.clone(), status: status_in };
        let run = cameras::watch_camera(task, outlets, stills, clock.clone(), stop.clone());
        tasks.spawn(async move {
            run.await;
            "a camera"
        });
    }
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = cameras::route(stills, routes) => {}
        }
        "the pictures' route"
    });
    Ok(statuses)
}

/// The decider blocks on the disk, so it has a thread; what is returned completes when that thread ends.
fn start_decider(
    decider: Decider,
    channels: Channels,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> anyhow::Result<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (ended_in, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::Builder::new().name("decider".into()).spawn(move || {
        // Dropped when the thread ends, also by a panic.
        let _ended = ended_in;
        runtime.block_on(decide::run(decider, channels, clock, stop));
    })?;
    Ok(Box::pin(async move {
        let _ = ended.await;
    }))
}

fn start_local(
    config: &Config,
    evidence_dir: &Path,
    sources: Sources,
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
    local.spawn(end_pictures(
        evidence_dir.to_owned(),
        config.vision.evidence_keep,
        sources.clock.clone(),
        stop.clone(),
    ));
    let listener = socket::listen(&config.local.socket)?;
    local.spawn(socket::serve(listener, sources, stop.clone()));
    Ok(local)
}

async fn end_pictures(folder: PathBuf, keep: Duration, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        match cameras::retention::sweep(&folder, keep, clock.now()) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "pictures past their time were removed"),
            Err(error) => tracing::warn!(%error, "pictures past their time are not removed"),
        }
        if tokio::time::timeout(SWEEP_EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
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

fn uplink_config(config: &Config, boot: u64) -> anyhow::Result<UplinkConfig> {
    let u = &config.uplink;
    let mut broker = BrokerConfig::new(&u.host, u.port, u.protocol, &u.client_id);
    broker.keep_alive = u.keep_alive;
    broker.username = u.username.clone();
    if let Some(file) = &u.password_file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read {} (uplink.password_file)", file.display()))?;
        broker.password = Some(Secret::new(text));
    }
    broker.tls = u
        .tls
        .as_ref()
        .map(|tls| TlsFiles { ca: tls.ca_file.clone(), identity: tls.cert_file.clone().zip(tls.key_file.clone()) });
    let identity = uplink::Identity {
        site: config.gateway.site.clone(),
        gateway: config.gateway.name.clone(),
        boot,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut uplink = UplinkConfig::new(broker, identity);
    let window = usize::from(u.window);
    let mut limits =
        Limits { window, life_safety_reserve: window / 4, historical_after: u.historical_after, ..Limits::default() };
    limits.receipt_life_safety.base = u.receipt_timeout_life_safety;
    limits.receipt_other.base = u.receipt_timeout;
    uplink.limits = limits;
    Ok(uplink)
}

/// Reads the code files.
///
/// # Errors
/// What is wrong with which, as [`crate::config::Config::environment`] tells it.
pub fn codes(config: &Config) -> Result<CodeTable, Lack> {
    let mut files = Vec::new();
    for (n, path) in config.gateway.codes.iter().enumerate() {
        let lack = |problem: String| Lack {
            key: format!("gateway.codes[{n}]"),
            problem: format!("{}: {problem}", path.display()),
            remedy: "correct the code file, or remove it from the list".to_owned(),
        };
        let text = std::fs::read_to_string(path).map_err(|e| lack(e.to_string()))?;
        let file: CodeFile = toml::from_str(&text).map_err(|e| lack(e.to_string()))?;
        file.check().map_err(|e| lack(e.to_string()))?;
        files.push(file);
    }
    CodeTable::new(files).map_err(|e| Lack {
        key: "gateway.codes".to_owned(),
        problem: e.to_string(),
        remedy: "correct the code files".to_owned(),
    })
}

fn rules(config: &Config) -> Rules {
    // A smoke alarm without a national code is worth more than none.
    let codes = codes(config).unwrap_or_else(|lack| {
        tracing::error!(key = %lack.key, remedy = %lack.remedy, "alarms go out without codes: {}", lack.problem);
        CodeTable::default()
    });
    let place = |location: &gengfu_contract::event::Location| Some(location.clone());
    let mut devices: BTreeMap<Slug, DeviceRule> = BTreeMap::new();
    let mut zones = BTreeMap::new();
    for node in &config.nodes {
        let node_rule =
            DeviceRule { class: RuleClass::Node, location: place(&config.gateway.location), ..DeviceRule::default() };
        devices.insert(node.name.clone(), node_rule);
        for device in node.channels.values() {
            let rule = DeviceRule {
                class: rule_class(device.class),
                parent: Some(node.name.clone()),
                location: place(&device.location),
                subject_ref: device.subject_ref.clone(),
                dwelling: device.dwelling.clone(),
                left_open_after: device.left_open_after,
                ..DeviceRule::default()
            };
            devices.insert(device.name.clone(), rule);
        }
    }
    let timing = timing(config);
    for camera in &config.cameras {
        let rule = DeviceRule { class: RuleClass::Camera, location: place(&camera.location), ..DeviceRule::default() };
        devices.insert(camera.name.clone(), rule);
        for zone in &camera.zones {
            let kind = if zone.kind == AlarmKind::FireLaneBlocked {
                ZoneKind::FireLaneBlocked
            } else {
                ZoneKind::IllegalParking
            };
            let mut rule = ZoneRule::new(kind, zone.limit);
            rule.classes = zone.vehicles.clone();
            rule.location = place(&zone.location);
            rule.text = zone.location.text.clone();
            zones.insert((camera.name.clone(), zone.name.clone()), rule);
        }
    }
    Rules { gateway: config.gateway.name.clone(), devices, zones, codes, timing }
}

/// How devices hang on nodes.
fn wiring(config: &Config) -> Wiring {
    let said = &config.annunciation;
    let mut wiring = Wiring {
        policy: LocalPolicy {
            receipt_within: said.receipt_within,
            silence_max: said.silence_for,
            sound_on_alarm: said.sound_at_once,
            ..LocalPolicy::default()
        },
        ..Wiring::default()
    };
    for (name, kind, line) in [(LAMP, OutputKind::Lamp, &said.lamp), (SOUNDER, OutputKind::Sounder, &said.sounder)] {
        if line.is_some() {
            let name = Slug::new(name).expect("a constant that is a slug");
            wiring.outputs.push(LocalOutput { name, kind, node: None, dwelling: None });
        }
    }
    for node in &config.nodes {
        if node.sounder {
            wiring.sounders.insert(node.name.clone(), node.dwelling.clone());
            wiring.outputs.push(LocalOutput {
                name: node.name.clone(),
                kind: OutputKind::Sounder,
                node: Some(node.name.clone()),
                dwelling: node.dwelling.clone(),
            });
        }
        for (channel, device) in &node.channels {
            wiring.channels.insert(device.name.clone(), (node.name.clone(), *channel));
        }
    }
    wiring
}

fn timing(config: &Config) -> Timing {
    let mut timing = Timing { camera_fault_hold: config.vision.fault_hold, ..Timing::default() };
    timing.care.zone = config.care.zone.clone();
    for device in config.nodes.iter().flat_map(|node| node.channels.values()) {
        if let Some(care) = &device.care {
            timing.care.homes.insert(device.name.clone(), care.clone());
        }
        if let Some(class) = device.supervision {
            let supervised = timing.supervision.devices.entry(device.name.clone()).or_default();
            supervised.class = Some(class);
        }
    }
    timing
}

fn rule_class(class: DeviceClass) -> RuleClass {
    match class {
        DeviceClass::Door => RuleClass::Door,
        DeviceClass::Smoke => RuleClass::Smoke,
        DeviceClass::Sos => RuleClass::Sos,
    }
}

fn worker_config(vision: &config::Vision, camera: &config::Camera) -> anyhow::Result<WorkerConfig> {
    let manifest = Manifest::load(&vision.manifest)?;
    let name = camera.model.as_deref().unwrap_or(&vision.model);
    let entry = manifest.model(name).with_context(|| {
        let known = manifest.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
        format!("camera {}: no model \"{name}\" in {}; it has: {known}", camera.name, vision.manifest.display())
    })?;
    #[expect(clippy::cast_possible_truncation, reason = "0.1 to 30 needs no more digits than f32 has")]
    let fps_max = camera.fps_max as f32;
    Ok(WorkerConfig {
        version: VERSION,
        camera: camera.name.to_string(),
        capture: CaptureConfig {
            url: camera.url.clone(),
            transport: Transport::Tcp,
            decode: if camera.all_frames { DecodeMode::EveryFrame } else { DecodeMode::KeyFrames },
            fps_max,
            looped: camera.repeat,
            silence_ms: u64::try_from(camera.silence.as_millis()).unwrap_or(u64::MAX),
        },
        paced: true,
        start_at_ms: None,
        model: ModelConfig {
            path: vision.models_dir.join(&entry.file),
            entry: entry.clone(),
            runtime: vision.onnxruntime.clone(),
            threads: usize::from(vision.threads),
        },
        zones: camera
            .zones
            .iter()
            .map(|z| VisionZone { id: z.name.to_string(), polygon: z.polygon.iter().map(|p| (*p).into()).collect() })
            .collect(),
        masks: camera.masks.iter().map(|mask| mask.iter().map(|p| (*p).into()).collect()).collect(),
        limits: WorkerLimits::default(),
    })
}
