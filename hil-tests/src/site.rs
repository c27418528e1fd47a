//! A whole site: broker, nodes, gateway, desk, each the real one. It owns how they are joined (one configuration file, the same as an
//! installer writes) and the question that every scenario ends with: did everything that was promised arrive? ([`Site::account`]). It
//! refuses to decide what happens: that is the scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gengfu::config::Protocol;
use gengfu_contract::event::EventType;
use gengfu_contract::slug::Slug;
use gengfu_node_linux::node::Wiring;
use tempfile::TempDir;

use crate::broker::{Broker, BrokerOptions};
use crate::bus::Bus;
use crate::clip::repository;
use crate::desk::{Desk, slug};
use crate::gateway::Gateway;
use crate::mqtt_proxy::MqttProxy;
use crate::node::{EventName, Node};
use crate::process::eventually;
use crate::proxy::Proxy;
use crate::skip::{Need, need};
use crate::{Result, RigError};

/// The site's name on the broker.
pub const SITE: &str = "hil";
/// The gateway's.
pub const GATEWAY: &str = "gw-1";
/// The bus's speed, the configuration's default.
const BAUD: u32 = 115_200;
/// After all faults are over, everything must have arrived within this. Reconnects wait up to 12 s, receipts up to some seconds;
/// the rest is room for a loaded machine.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(90);

/// A gateway that is told to end does so within this.
const ENDED_WITHIN: Duration = Duration::from_secs(30);
/// An event that is on the gateway's disk is at the desk within this, receipts that time out included.
const ON_ITS_WAY: Duration = Duration::from_secs(20);

/// What a site has.
#[derive(Debug, Clone)]
pub struct Plan {
    /// MQTT version of gateway and desk.
    pub protocol: Protocol,
    /// How many nodes; node `n` (from 1) has `door-n`, `smoke-n` and `sos-n`.
    pub nodes: usize,
    /// Doors open for longer are an alarm.
    pub left_open_after: &'static str,
    /// A node not heard for longer is a trouble.
    pub silence: &'static str,
    /// Where the gateway keeps everything; in the site's folder when absent.
    pub data_dir: Option<PathBuf>,
    /// Cameras; camera `n` (from 1) is `cam-n`.
    pub cameras: Vec<CameraPlan>,
    /// Cameras give something up when the machine is short of time. Not unless said: a test machine has other work.
    pub load_shedding: bool,
    /// A camera's fault must last this long to be a trouble.
    pub fault_hold: &'static str,
    /// A port for metrics.
    pub metrics: Option<u16>,
    /// All nodes share an RS-485 pair.
    pub on_a_bus: bool,
    /// Nodes keep two firmware slots and run what this key (64 hex digits) has signed.
    pub firmware_key: Option<String>,
    /// Nodes sound when a life-safety alarm has no receipt for this long.
    pub receipt_within: Option<&'static str>,
    /// Between gateway and broker stands a [`Proxy`], to break the path.
    pub proxied: bool,
    /// Further tables of the configuration.
    pub more: &'static str,
    /// Between gateway and broker stands an [`MqttProxy`], to break it at exact packets. (Of the two, this one if both are wanted.)
    pub mqtt_proxied: bool,
    /// Between desk and broker stands an [`MqttProxy`]: a centre that is slow, or gone.
    pub desk_proxied: bool,
    /// How the broker is set up.
    pub broker: BrokerOptions,
    /// The gateway reaches the broker at this port instead of its first one: that of a listener in [`BrokerOptions::extra`].
    pub meets_port: Option<u16>,
    /// More lines for `[uplink]`; at their end `[uplink.tls]`, if wanted.
    pub uplink_extra: String,
    /// Variables of the gateway's environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            protocol: Protocol::Mqtt5,
            nodes: 2,
            left_open_after: "2s",
            silence: "10s",
            data_dir: None,
            cameras: Vec::new(),
            load_shedding: false,
            fault_hold: "200ms",
            metrics: None,
            on_a_bus: false,
            firmware_key: None,
            receipt_within: None,
            proxied: false,
            more: "",
            mqtt_proxied: false,
            desk_proxied: false,
            broker: BrokerOptions { persistence: true, ..BrokerOptions::default() },
            meets_port: None,
            uplink_extra: String::new(),
            environment: Vec::new(),
        }
    }
}

/// A camera with one zone: where van and car stand in Debian's footage, as in `config/demo.toml`.
#[derive(Debug, Clone)]
pub struct CameraPlan {
    /// `rtsp://…`, or a file.
    pub url: String,
    /// Standing longer is an alarm.
    pub limit: &'static str,
    /// No picture for this long is a fault.
    pub silence: &'static str,
    /// `all_frames` or `key_frames`.
    pub decode: &'static str,
    /// Pictures analysed per second at most.
    pub fps_max: f64,
    /// What a `[[camera.zone]]` table holds, instead of the place of van and car; `limit` says nothing then.
    pub zone: Option<&'static str>,
}

impl CameraPlan {
    /// A camera at `url`; vehicles may stand 3 s, missing pictures are a fault after 3 s.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), limit: "3s", silence: "3s", decode: "all_frames", fps_max: 2.0, zone: None }
    }

    /// What a camera needs beside the gateway: the detector's model and library, and the footage.
    ///
    /// # Errors
    /// What is missing.
    pub fn need() -> Need {
        let fetched = repository().join("target/gengfu");
        need::all([
            need::file(&crate::clip::vtest()),
            need::file(&fetched.join("models/yolox_nano.onnx")),
            need::file(&fetched.join("onnxruntime/libonnxruntime.so")),
        ])
    }

    fn toml(&self, n: usize) -> String {
        let zone = self.zone.map_or_else(|| van_and_car(self.limit), str::to_owned);
        format!(
            r#"
[[camera]]
name = "cam-{n}"
url = "{}"
decode = "{}"
fps_max = {:.1}
repeat = true
silence = "{}"

[[camera.zone]]
{zone}
"#,
            self.url, self.decode, self.fps_max, self.silence
        )
    }
}

fn van_and_car(limit: &str) -> String {
    format!(
        r#"name = "double-yellow"
kind = "illegal_parking"
limit = "{limit}"
polygon = [[0.83, 0.155], [0.90, 0.135], [0.999, 0.125], [0.999, 0.20], [0.86, 0.21], [0.83, 0.19]]
vehicles = ["car", "truck", "bus"]"#
    )
}

impl Plan {
    /// The configuration file of a gateway of this plan. Receipts are missed after 1 s for life safety and 2 s else, so that what a
    /// scenario makes disappear comes again within the scenario.
    #[must_use]
    pub fn config(&self, dir: &Path, broker_port: u16) -> String {
        let (root, folder) = (repository().display().to_string(), dir.display().to_string());
        let data_dir = self.data_dir.clone().unwrap_or_else(|| dir.join("data")).display().to_string();
        let protocol = if self.protocol == Protocol::Mqtt5 { "5" } else { "3.1.1" };
        let mut text = format!(
            r#"[gateway]
site = "{SITE}"
name = "{GATEWAY}"
data_dir = "{data_dir}"
codes = ["{root}/config/codes/gbt47678-5-2026.toml", "{root}/config/codes/gbt30428-2-2013.toml", "{root}/config/codes/gengfu.toml"]
location = {{ division = "440402", text = "7号楼 Block 7" }}

[uplink]
broker = "127.0.0.1:{broker_port}"
protocol = "{protocol}"
keep_alive = "5s"
receipt_timeout_life_safety = "1s"
receipt_timeout = "2s"
{}
[local]
socket = "{folder}/gengfu.sock"
"#,
            self.uplink_extra
        );
        if let Some(port) = self.metrics {
            text.push_str(&format!("metrics = \"127.0.0.1:{port}\"\n"));
        }
        if self.firmware_key.is_some() {
            text.push_str(&format!("\n[firmware]\ntrusted = [\"{folder}/release.pub\"]\n"));
        }
        if let Some(within) = self.receipt_within {
            text.push_str(&format!("\n[annunciation]\nreceipt_within = \"{within}\"\n"));
        }
        if self.on_a_bus {
            text.push_str(&format!(
                "\n[[bus]]\nname = \"bus-1\"\nport = \"{folder}/bus.tty\"\nturnaround = \"400ms\"\n"
            ));
        }
        for n in 1..=self.nodes {
            let uid = uid(n);
            let at = if self.on_a_bus {
                format!("bus = \"bus-1\"\naddress = {n}")
            } else {
                format!("port = \"{folder}/node-{n}.tty\"")
            };
            let sounder = self.receipt_within.is_some();
            text.push_str(&format!(
                r#"
[[node]]
name = "node-{n}"
{at}
sounder = {sounder}
uid = "{uid:016x}"
silence = "{}"
device = [
    {{ channel = 1, name = "door-{n}", class = "door", left_open_after = "{}" }},
    {{ channel = 2, name = "smoke-{n}", class = "smoke", dwelling = "home-{n}" }},
    {{ channel = 3, name = "sos-{n}", class = "sos" }},
]
"#,
                self.silence, self.left_open_after
            ));
        }
        if !self.cameras.is_empty() {
            text.push_str(&format!(
                r#"
[vision]
manifest = "{root}/models/manifest.toml"
models_dir = "{root}/target/gengfu/models"
onnxruntime = "{root}/target/gengfu/onnxruntime/libonnxruntime.so"
fault_hold = "{}"
load_shedding = {}
"#,
                self.fault_hold, self.load_shedding
            ));
        }
        text.extend(self.cameras.iter().zip(1..).map(|(camera, n)| camera.toml(n)));
        text.push_str(self.more);
        text
    }
}

fn uid(n: usize) -> u64 {
    0x00a1_0000 + n as u64
}

/// A running site. The order of the fields is the order of its end.
pub struct Site {
    /// The gateway's process.
    pub gateway: Gateway,
    /// The centre.
    pub desk: Desk,
    /// The nodes.
    pub nodes: Arc<Vec<Node>>,
    /// What they share, where the plan has it.
    pub bus: Option<Bus>,
    /// The path to the broker, where the plan wants to break it.
    pub proxy: Option<Proxy>,
    /// The same, packet by packet.
    pub mqtt: Option<MqttProxy>,
    /// The desk's path to the broker, where the plan wants to break that.
    pub desk_path: Option<MqttProxy>,
    /// The broker.
    pub broker: Broker,
    data_dir: PathBuf,
    /// Everybody's files.
    pub dir: TempDir,
}

impl Site {
    /// Starts broker, nodes and desk, and writes the gateway's configuration. The gateway does not run yet.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn prepare(plan: &Plan) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
        let broker = Broker::start(&dir.path().join("broker"), &plan.broker)?;
        let nodes = start_nodes(plan, dir.path())?;
        let ends: Vec<PathBuf> = (1..=plan.nodes).map(|n| dir.path().join(format!("node-{n}.tty"))).collect();
        let bus = plan.on_a_bus.then(|| Bus::lay(&dir.path().join("bus.tty"), &ends, BAUD)).transpose()?;
        let desk_path = plan.desk_proxied.then(|| MqttProxy::start(broker.addr())).transpose()?;
        let desk_meets = desk_path.as_ref().map_or(broker.port(), |path| path.addr().port());
        let desk = Desk::start(dir.path(), desk_meets, plan.protocol, &site()?, &gateway()?, "desk-1")?;
        let proxy = plan.proxied.then(|| Proxy::start(broker.addr())).transpose()?;
        let mqtt = plan.mqtt_proxied.then(|| MqttProxy::start(broker.addr())).transpose()?;
        let proxies = [mqtt.as_ref().map(MqttProxy::addr), proxy.as_ref().map(Proxy::addr)];
        let meets = proxies.into_iter().flatten().next().map_or(broker.port(), |addr| addr.port());
        let meets = plan.meets_port.unwrap_or(meets);
        let config = plan.config(dir.path(), meets);
        if let Some(key) = &plan.firmware_key {
            fs::write(dir.path().join("release.pub"), key).map_err(|e| RigError::failed("write the public key", e))?;
        }
        let mut gateway = Gateway::prepare(dir.path(), &config)?.with_arguments(&["--log", "json"]);
        for (name, value) in &plan.environment {
            gateway = gateway.with_env(name, value);
        }
        let data_dir = plan.data_dir.clone().unwrap_or_else(|| dir.path().join("data"));
        Ok(Self { gateway, desk, nodes, bus, proxy, mqtt, desk_path, broker, data_dir, dir })
    }

    /// As [`Site::prepare`], then starts the gateway and waits until it hears its nodes and has reached the centre.
    ///
    /// # Errors
    /// When that does not come about.
    pub fn start(plan: &Plan) -> Result<Self> {
        let mut site = Self::prepare(plan)?;
        site.gateway.start()?;
        site.gateway.wait_until("the gateway hears its nodes and its broker", SETTLED_WITHIN, |status| {
            let links = status["links"].as_array().is_some_and(|links| links.iter().all(|link| link["up"] == true));
            links && status["uplink"]["state"] == "online"
        })?;
        Ok(site)
    }

    /// Waits until everything that happened has arrived: nodes acknowledged, outbox empty, the desk's proof whole.
    ///
    /// # Errors
    /// What was still missing.
    pub fn settle(&mut self) -> Result<()> {
        let Self { gateway, desk, nodes, .. } = self;
        let what = "everything that happened has arrived at the desk";
        let settled = gateway.wait_until(what, SETTLED_WITHIN, |status| is_settled(status, desk, nodes));
        // What is missing says more than that something is.
        let missing = || judge(desk, nodes).err().map_or_else(String::new, |e| e.to_string());
        settled.map(|_| ()).map_err(|e| RigError::failed(what, format!("{e}\n{}", missing())))
    }

    /// Whether everything that happened has arrived, by the gateway's `status` and the desk's proof.
    #[must_use]
    pub fn is_settled(&self, status: &serde_json::Value) -> bool {
        is_settled(status, &self.desk, &self.nodes)
    }

    /// Ends the gateway in order and checks its own journal, offline: every record up to the head is there, and the chain holds. Gives its last
    /// sequence.
    ///
    /// # Errors
    /// When the gateway does not end in order, the store does not open, or the journal is not whole; every place is named.
    pub fn own_journal(&mut self) -> Result<u64> {
        let doing = "check the gateway's own journal";
        let ended = self.gateway.stop(ENDED_WITHIN)?;
        if ended != Some(0) {
            return Err(RigError::failed(doing, format!("the gateway did not end in order: {ended:?}")));
        }
        let options = gengfu_outbox::Options::new(self.data_dir.join("outbox"));
        let outbox = gengfu_outbox::Outbox::open(options).map_err(|e| RigError::failed(doing, e))?;
        let report = outbox.verify().map_err(|e| RigError::failed(doing, e))?;
        let damaged = outbox.stats().damaged;
        let kept = (report.last_sequence + 1).saturating_sub(report.first_sequence);
        if !report.faults.is_empty() || report.records != kept || damaged > 0 {
            return Err(RigError::failed(doing, format!("{report:?}, {damaged} damaged")));
        }
        Ok(report.last_sequence)
    }

    /// Judges what arrived. Call it after [`Site::settle`].
    ///
    /// # Errors
    /// Everything that is missing, doubled or broken.
    pub fn account(&self) -> Result<Account> {
        account(&self.desk, &self.nodes)
    }
}

/// Starts the nodes of a plan.
///
/// # Errors
/// When there is no pseudo-terminal.
pub fn start_nodes(plan: &Plan, dir: &Path) -> Result<Arc<Vec<Node>>> {
    let start = |n: usize| {
        // A factory-new node on a bus has no address: the gateway gives it one.
        let wiring = if plan.on_a_bus { Wiring::Bus(None) } else { Wiring::PointToPoint };
        Node::start(dir, &format!("node-{n}"), uid(n), wiring, plan.firmware_key.as_deref())
    };
    (1..=plan.nodes).map(start).collect::<Result<Vec<Node>>>().map(Arc::new)
}

/// The site's name.
///
/// # Errors
/// Never: it is a constant.
pub fn site() -> Result<Slug> {
    slug(SITE)
}

/// The gateway's name.
///
/// # Errors
/// Never: it is a constant.
pub fn gateway() -> Result<Slug> {
    slug(GATEWAY)
}

fn is_settled(status: &serde_json::Value, desk: &Desk, nodes: &[Node]) -> bool {
    let empty = status["outbox"]["lanes"].as_array().is_some_and(|lanes| lanes.iter().all(|lane| lane["pending"] == 0));
    let head = status["outbox"]["sequence"].as_u64();
    let proof = gateway().ok().and_then(|gateway| desk.model().proof(&gateway));
    let whole = proof.is_some_and(|proof| proof.holds() && proof.first == Some(1) && proof.last >= head);
    empty && whole && nodes.iter().all(Node::is_idle)
}

/// What arrived, in figures.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Events the nodes were acknowledged for.
    pub acknowledged: usize,
    /// Events of the gateway's journal at the desk.
    pub events: usize,
    /// Further copies of them that arrived.
    pub duplicates: u64,
    /// Starts of the gateway among them.
    pub starts: usize,
    /// Alarms and troubles raised.
    pub raised: usize,
    /// Pictures that arrived and are what their event said.
    pub pictures: usize,
}

/// Judges: every event a node was acknowledged for is at the desk, under one id; the journal is gapless from 1 and its chain holds;
/// no copy contradicts another; every picture an event named is there and genuine; everything was of the contract.
///
/// A contact may still bounce, and a camera sees something at any time: what is only on its way is given a moment.
///
/// # Errors
/// All that is not so.
pub fn account(desk: &Desk, nodes: &[Node]) -> Result<Account> {
    eventually("account for every event", ON_ITS_WAY, || judge(desk, nodes).map_err(|e| e.to_string()))
}

fn judge(desk: &Desk, nodes: &[Node]) -> Result<Account> {
    // Before the journal: what is acknowledged from here on need not be in it.
    let promised: BTreeSet<EventName> = nodes.iter().flat_map(Node::acknowledged).collect();
    let journal = desk.journal()?;
    let mut faults = Vec::new();
    let mut losses_told = 0;
    let mut ids: BTreeMap<EventName, BTreeSet<String>> = BTreeMap::new();
    let mut account = Account { events: journal.len(), ..Account::default() };
    for line in &journal {
        account.starts += usize::from(line.event.event_type == EventType::GatewayStarted);
        account.raised += usize::from(line.event.event_type == EventType::AlarmRaised);
        match line.event.observed() {
            Ok(Some(observed)) => {
                losses_told += usize::from(observed.what == "events.lost");
                if let Some(origin) = observed.origin {
                    let name = (origin.node, origin.boot, origin.sequence);
                    ids.entry(name).or_default().insert(line.event.id.clone());
                }
            }
            Ok(None) => {}
            Err(e) => faults.push(format!("event {}: {e}", line.event.id)),
        }
    }
    let twice = ids.iter().filter(|(_, ids)| ids.len() > 1);
    faults.extend(twice.map(|(name, ids)| format!("{name:?} arrived under {} ids: {ids:?}", ids.len())));
    faults.extend(promised.iter().filter(|name| !ids.contains_key(*name)).map(|name| format!("{name:?} is lost")));
    account.acknowledged = promised.len();
    let lost: usize = nodes.iter().map(Node::lost).sum();
    if lost > 0 && losses_told == 0 {
        faults.push(format!("nodes gave up {lost} events for want of room, and nobody was told"));
    }
    let model = desk.model();
    match model.proof(&gateway()?) {
        Some(proof) => {
            account.duplicates = proof.duplicates;
            let whole = proof.holds() && proof.first == Some(1) && Some(proof.chain_links) == proof.last;
            if !whole {
                faults.push(format!("the journal is not whole: {proof} ({proof:?})"));
            }
        }
        None => faults.push("nothing arrived".to_owned()),
    }
    let (malformed, last) = model.malformed();
    if malformed > 0 {
        faults.push(format!("{malformed} messages were not of the contract, the last: {last:?}"));
    }
    let alarms = model.gateways().values().flat_map(|gateway| gateway.alarms.iter());
    for (id, picture) in alarms.flat_map(|(id, alarm)| alarm.pictures.iter().map(move |picture| (id, picture))) {
        match picture.1.genuine {
            Some(true) => account.pictures += 1,
            other => faults.push(format!("picture {id}/{}: genuine is {other:?}", picture.0)),
        }
    }
    if faults.is_empty() { Ok(account) } else { Err(RigError::failed("account for every event", faults.join("\n"))) }
}
