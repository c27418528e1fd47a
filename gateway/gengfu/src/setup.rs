//! From the configuration to what each stage is given.
//!
//! Owns the translation: alarm rules, ports and their nodes, camera workers, outbox, uplink, what sounds on site. Starts nothing and
//! creates nothing; `app.rs` does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gengfu_alarm::codes::{CodeFile, CodeTable};
use gengfu_alarm::rules::{DeviceClass as RuleClass, DeviceRule, Rules, Timing, ZoneRule};
use gengfu_alarm::{LocalOutput, LocalPolicy, OutputKind};
use gengfu_contract::slug::Slug;
use gengfu_contract::topic::Topics;
use gengfu_outbox::Options;
use gengfu_vision::decode::CaptureConfig;
use gengfu_vision::protocol::WorkerConfig;
use gengfu_vision::zone::Zone as VisionZone;

use crate::cameras::ladder::Duty;
use crate::clock::Clock;
use crate::config::{self, Config, DeviceClass, Lack, Line};
use crate::decide::{self, DeviceRefresh, Wiring};
use crate::evidence;
use crate::identity::slots::Slots;
use crate::identity::{self, Credentials, Enrolment, Keeper, KeeperParts, Own, Source, TrustedTime};
use crate::link;
use crate::local::outputs::Output;
use crate::sensors::plan::Plan;
use crate::uplink::{self, BrokerConfig, Limits, Secret, UplinkConfig};

mod models;

use models::Models;

/// Names of the box's own outputs among all that can sound or shine; no device may have them.
const LAMP: &str = "gateway-lamp";
const SOUNDER: &str = "gateway-sounder";
/// From a zone's limit to the end of a picture that no alarm names: the rule's own wait, a restart, a batch.
const CANDIDATE_MORE: Duration = Duration::from_secs(600);

pub(crate) fn outbox_options(config: &Config) -> Options {
    let mut options = Options::new(config.gateway.data_dir.join("outbox"));
    options.cache_bytes = config.outbox.cache_bytes;
    options.journal_keep = config.outbox.journal_keep;
    for (lane, most) in &config.outbox.bounds {
        options.bounds = std::mem::take(&mut options.bounds).with(decide::lane_of(*lane), *most);
    }
    options
}

/// How long pictures stay. A candidate waits as long as a rule may take to decide, and a little more.
pub(crate) fn picture_policy(config: &Config) -> evidence::Policy {
    let longest = |rule: &ZoneRule| match rule.kind.is_waste() {
        // Only time in which it could be seen counts for litter; twice the limit is a busy street's.
        true => rule.limit.max(rule.overflow_limit) * 2,
        false => rule.limit,
    };
    let limits = config.cameras.iter().flat_map(|camera| camera.zones.iter().map(|zone| longest(&zone.rule)));
    let candidate = limits.max().unwrap_or_default() + CANDIDATE_MORE;
    evidence::Policy { keep: config.evidence.keep, candidate, bytes_max: config.evidence.bytes_max }
}

/// One port for each node that has its own, and one for each bus.
pub(crate) fn link_ports(config: &Config) -> Result<Vec<link::PortConfig>, link::PortConfigError> {
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
        let settings = link::BusConfig { name: bus.name.clone(), turnaround: bus.turnaround };
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

pub(crate) fn uplink_config(config: &Config, boot: u64, tls: Option<Credentials>) -> anyhow::Result<UplinkConfig> {
    let u = &config.uplink;
    let mut broker = BrokerConfig::new(&u.host, u.port, u.protocol, &u.client_id);
    broker.keep_alive = u.keep_alive;
    broker.username = u.username.clone();
    if let Some(file) = &u.password_file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read {} (uplink.password_file)", file.display()))?;
        broker.password = Some(Secret::new(text));
    }
    broker.tls = tls;
    let identity = uplink::Identity {
        site: config.gateway.site.clone(),
        gateway: config.gateway.name.clone(),
        boot,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut uplink = UplinkConfig::new(broker, identity);
    let window = usize::from(u.window);
    let mut limits = Limits {
        window,
        life_safety_reserve: window / 4,
        historical_after: u.historical_after,
        backlog_per_s: u.backlog_per_second,
        ..Limits::default()
    };
    limits.receipt_life_safety.base = u.receipt_timeout_life_safety;
    limits.receipt_other.base = u.receipt_timeout;
    uplink.limits = limits;
    uplink.other_brokers.clone_from(&u.others);
    uplink.switch = u.switch;
    uplink.packet_bytes_max = u.packet_bytes_max;
    Ok(uplink)
}

/// Whom the uplink believes and as whom it comes; nothing without `[uplink.tls]`.
#[must_use]
pub fn credentials(config: &Config, clock: Arc<dyn Clock>) -> Option<Credentials> {
    let tls = config.uplink.tls.as_ref()?;
    let place = identity_folder(config);
    let own = match (tls.is_managed, tls.cert_file.clone().zip(tls.key_file.clone())) {
        (true, _) => Own::Slot(Slots::current_file(&place)),
        (false, Some((cert, key))) => Own::Files { cert, key },
        (false, None) => Own::Nobody,
    };
    let source = Source { ca: tls.ca_file.clone(), crl: tls.crl_file.clone(), own };
    Some(Credentials::new(source, TrustedTime::remembered(clock, &place)))
}

pub(crate) fn topics(config: &Config) -> Topics {
    Topics::new(&config.gateway.site, &config.gateway.name)
}

/// Where keys made on this box lie.
#[must_use]
pub fn identity_folder(config: &Config) -> PathBuf {
    config.gateway.data_dir.join(identity::FOLDER)
}

/// Where certificates come from by themselves.
#[must_use]
pub fn enrolment(config: &Config) -> Option<Enrolment> {
    let enrol = config.uplink.tls.as_ref()?.enrol.as_ref()?;
    Some(Enrolment {
        place: enrol.place.clone(),
        ca: enrol.ca_file.clone(),
        username: enrol.username.clone(),
        password_file: enrol.password_file.clone(),
    })
}

pub(crate) fn keeper(config: &Config, credentials: Credentials, parts: KeeperParts) -> Keeper {
    let is_managed = config.uplink.tls.as_ref().is_some_and(|tls| tls.is_managed);
    let name = identity::common_name(&config.gateway.site, &config.gateway.name);
    Keeper::new(credentials, name, is_managed.then(|| identity_folder(config)), enrolment(config), parts)
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

pub(crate) fn rules(config: &Config, sensors: &Plan) -> Rules {
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
            devices.insert(device.name.clone(), device_rule(device, &node.name));
        }
    }
    for bus in &config.buses {
        let location = place(&bus.location);
        devices.insert(bus.name.clone(), DeviceRule { class: RuleClass::Bus, location, ..DeviceRule::default() });
    }
    for (parent, device) in config.sensors.devices() {
        devices.insert(device.name.clone(), device_rule(device, parent));
    }
    // What a profile adds: how long it may be silent, and which bridge carries it.
    devices.extend(sensors.rules(&config.gateway.location));
    let timing = timing(config);
    for camera in &config.cameras {
        let rule = DeviceRule { class: RuleClass::Camera, location: place(&camera.location), ..DeviceRule::default() };
        devices.insert(camera.name.clone(), rule);
        for zone in &camera.zones {
            let mut rule = zone.rule.clone();
            rule.location = place(&zone.location);
            rule.text = zone.location.text.clone();
            zones.insert((camera.name.clone(), zone.name.clone()), rule);
        }
    }
    Rules { gateway: config.gateway.name.clone(), devices, zones, codes, timing }
}

/// How devices hang on nodes.
pub(crate) fn wiring(config: &Config) -> Wiring {
    let said = &config.annunciation;
    let mut wiring = Wiring {
        policy: LocalPolicy {
            receipt_within: said.receipt_within,
            silence_max: said.silence_for,
            sound_on_alarm: said.sound_at_once,
            ..LocalPolicy::default()
        },
        drill: config.drill.clone(),
        takes_config: !config.changes.trusted.is_empty(),
        device_refresh: DeviceRefresh(config.uplink.device_refresh.and_then(|every| every.try_into().ok())),
        takes_snapshots: !config.cameras.is_empty(),
        ..Wiring::default()
    };
    for (name, output, _) in own_outputs(config) {
        let kind = match output {
            Output::Lamp => OutputKind::Lamp,
            Output::Sounder => OutputKind::Sounder,
        };
        wiring.outputs.push(LocalOutput { name, kind, node: None, dwelling: None });
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
    let on_nodes = config.nodes.iter().flat_map(|node| node.channels.values());
    for device in on_nodes.chain(config.sensors.devices().map(|(_, device)| device)) {
        let begins = device.replace_by.and_then(|day| config.care.zone.to_timestamp(day.into()).ok());
        wiring.replace_by.extend(begins.map(|at| (device.name.clone(), at)));
    }
    wiring
}

fn timing(config: &Config) -> Timing {
    let mut timing = Timing { camera_fault_hold: config.vision.fault_hold, ..Timing::default() };
    timing.care.zone = config.care.zone.clone();
    timing.escalation = config.escalation.clone();
    let on_nodes = config.nodes.iter().flat_map(|node| node.channels.values());
    for device in on_nodes.chain(config.sensors.devices().map(|(_, device)| device)) {
        if let Some(care) = &device.care {
            timing.care.homes.insert(device.name.clone(), care.clone());
        }
    }
    timing
}

fn device_rule(device: &config::Device, parent: &Slug) -> DeviceRule {
    DeviceRule {
        class: rule_class(device.class),
        parent: Some(parent.clone()),
        location: Some(device.location.clone()),
        subject_ref: device.subject_ref.clone(),
        dwelling: device.dwelling.clone(),
        left_open_after: device.left_open_after,
        supervision: device.supervision,
    }
}

fn rule_class(class: DeviceClass) -> RuleClass {
    match class {
        DeviceClass::Door => RuleClass::Door,
        DeviceClass::Smoke => RuleClass::Smoke,
        DeviceClass::Sos => RuleClass::Sos,
    }
}

pub(crate) fn worker_config(vision: &config::Vision, camera: &config::Camera) -> anyhow::Result<WorkerConfig> {
    let Models { first, second } = models::of_camera(vision, camera)?;
    #[expect(clippy::cast_possible_truncation, reason = "0.1 to 30 needs no more digits than f32 has")]
    let fps_max = camera.fps_max as f32;
    Ok(WorkerConfig {
        camera: camera.name.to_string(),
        capture: CaptureConfig {
            transport: camera.transport,
            decode: camera.decode,
            fps_max,
            looped: camera.repeat,
            silence_ms: millis(camera.silence),
            // What stands may be looked at as rarely as the shortest limit allows.
            dwell_ms: camera.zones.iter().map(|zone| millis(shortest(&zone.rule))).min(),
            snapshot_every_ms: millis(camera.every),
            hwaccel: camera.hwaccel.clone(),
            ..CaptureConfig::new(camera.url.clone())
        },
        reference: None,
        paced: true,
        start_at_ms: None,
        model: first,
        second_model: second,
        zones: camera
            .zones
            .iter()
            .map(|z| VisionZone { id: z.name.to_string(), polygon: z.polygon.iter().map(|p| (*p).into()).collect() })
            .collect(),
        masks: camera.masks.iter().map(|mask| mask.iter().map(|p| (*p).into()).collect()).collect(),
        change_gate: true,
    })
}

/// Cameras whose models the manifest does not have, or that know nothing of what their zones are about. Asked only where there is a manifest.
#[must_use]
pub fn cameras_without_model(config: &Config) -> Vec<Lack> {
    let cameras = config.cameras.iter().enumerate().filter(|_| config.vision.manifest.is_file());
    let told = cameras.filter_map(|(n, camera)| {
        let error = worker_config(&config.vision, camera).err()?;
        Some(Lack {
            key: format!("camera[{n}]"),
            problem: format!("{error:#}"),
            remedy: "correct it here, or add the model to the manifest".to_owned(),
        })
    });
    told.collect()
}

/// What a zone's rule may have to decide first.
fn shortest(rule: &ZoneRule) -> Duration {
    rule.warn_after.unwrap_or(rule.limit).min(rule.limit).min(rule.overflow_limit)
}

/// What a camera is for: decides what it gives up first when the box is short of time.
pub(crate) fn camera_duty(camera: &config::Camera) -> Duty {
    let parking = |zone: &config::Zone| !zone.rule.kind.is_waste();
    if camera.zones.is_empty() || camera.zones.iter().any(parking) { Duty::Parking } else { Duty::Litter }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The box's own lamp and sounder, as far as it has them: name among all outputs, which, line.
pub(crate) fn own_outputs(config: &Config) -> Vec<(Slug, Output, Line)> {
    let said = &config.annunciation;
    let all = [(LAMP, Output::Lamp, &said.lamp), (SOUNDER, Output::Sounder, &said.sounder)];
    let named = |name| Slug::new(name).expect("a constant that is a slug");
    all.into_iter().filter_map(|(name, output, line)| Some((named(name), output, line.clone()?))).collect()
}
