//! The report behind `gengfu status`.
//!
//! Owns its shape (stable for `--json`) and the judgement "is all well, and if not, what to do". Collects only what others publish; asks nobody.

use std::sync::Arc;

use gengfu_alarm::{OutputKind, Pattern};
use gengfu_contract::event::{AlarmData, ClockQuality};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::DeviceState;
use gengfu_contract::words::Lane;
use gengfu_outbox::{Health, Outbox};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cameras::CameraStatus;
use crate::cameras::ladder::Rung;
use crate::cameras::shedding::Shedding;
use crate::clock::Clock;
use crate::decide::{DecideStatus, Standing};
use crate::identity::IdentityStatus;
use crate::link::{self, LinkStats};
use crate::sensors::SensorStats;
use crate::settings::ConfigStatus;
use crate::uplink::{LinkState, UplinkStatus};

/// A write that takes longer than this does not end any more: flash cards stall for seconds, not for half a minute.
const STALLED_MS: u64 = 30_000;

/// Everything `status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The gateway itself.
    pub gateway: GatewayReport,
    /// The configuration: which, since when, what is tried.
    #[serde(default)]
    pub config: Option<ConfigStatus>,
    /// Serial links.
    pub links: Vec<LinkStats>,
    /// Modbus lines, and brokers of other makers' sensors.
    pub sensors: Vec<SensorStats>,
    /// Devices.
    pub devices: Vec<DeviceState>,
    /// Cameras.
    pub cameras: Vec<CameraStatus>,
    /// What the cameras give up now, for want of time.
    #[serde(default)]
    pub shedding: Shedding,
    /// The store.
    pub outbox: OutboxReport,
    /// The way to the centre.
    pub uplink: UplinkStatus,
    /// The gateway's certificate; absent without TLS.
    pub identity: Option<IdentityStatus>,
    /// Alarms and troubles that are open.
    pub alarms: Vec<AlarmData>,
    /// What does not count now and who decided so, what was rejected, and the tests of the path.
    #[serde(default)]
    pub standing: Standing,
    /// What sounds and shines on site now.
    pub on_site: Vec<OnSiteReport>,
    /// What is wrong and what to do; empty when all is well.
    pub findings: Vec<Finding>,
}

/// A sounder or lamp that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnSiteReport {
    /// Its name: the node that sounds, or the box's own.
    pub output: Slug,
    /// What it is.
    pub kind: OutputKind,
    /// What it says.
    pub pattern: Pattern,
}

/// The gateway itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Site.
    pub site: Slug,
    /// Name.
    pub name: Slug,
    /// Software version.
    pub version: String,
    /// Contract version.
    pub contract: String,
    /// Number of this start.
    pub boot: u64,
    /// Since when; absent while it is starting.
    pub started_at: Option<Timestamp>,
    /// The gateway's time.
    pub now: Timestamp,
    /// Whether it can be trusted.
    pub clock: ClockQuality,
    /// Batches made durable.
    pub batches: u64,
    /// Resident memory without camera workers, bytes.
    pub memory_bytes: u64,
}

/// The store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutboxReport {
    /// Last event's sequence.
    pub sequence: u64,
    /// Last event's hash, hex.
    pub head: String,
    /// "ok", or what is wrong.
    pub health: String,
    /// Per lane, most urgent first.
    pub lanes: Vec<LaneReport>,
    /// Items that cannot be read any more.
    pub damaged: u64,
}

/// One lane of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaneReport {
    /// The lane.
    pub lane: Lane,
    /// Not yet received by the centre.
    pub pending: u64,
    /// Of these, on the way or awaiting the receipt.
    pub in_flight: u64,
    /// Since when the oldest waits.
    pub oldest_at: Option<Timestamp>,
    /// Dropped for want of room, since the beginning.
    pub dropped: u64,
    /// Given up because they could never be sent, since the beginning.
    #[serde(default)]
    pub abandoned: u64,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub problem: String,
    /// What to do.
    pub remedy: String,
    /// What, in Chinese, where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_zh: Option<String>,
    /// What to do, in Chinese, where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_zh: Option<String>,
}

/// Where the report's parts come from.
#[derive(Clone)]
pub struct Sources {
    /// Site.
    pub site: Slug,
    /// Gateway.
    pub gateway: Slug,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The store.
    pub outbox: Outbox,
    /// The decider.
    pub decide: watch::Receiver<DecideStatus>,
    /// The links.
    pub links: Vec<watch::Receiver<LinkStats>>,
    /// Other makers' sensors.
    pub sensors: Vec<watch::Receiver<SensorStats>>,
    /// The cameras.
    pub cameras: Vec<watch::Receiver<CameraStatus>>,
    /// What they give up.
    pub shedding: watch::Receiver<Shedding>,
    /// The uplink.
    pub uplink: watch::Receiver<UplinkStatus>,
    /// The configuration.
    pub config: Option<watch::Receiver<ConfigStatus>>,
    /// The gateway's certificate.
    pub identity: Option<watch::Receiver<IdentityStatus>>,
}

impl Sources {
    /// The report as of now.
    #[must_use]
    pub fn report(&self) -> Report {
        let decide = self.decide.borrow().clone();
        let mut report = Report {
            gateway: GatewayReport {
                site: self.site.clone(),
                name: self.gateway.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                contract: gengfu_contract::CONTRACT_VERSION.to_owned(),
                boot: decide.boot,
                started_at: decide.started_at,
                now: self.clock.now(),
                clock: self.clock.quality(),
                batches: decide.batches,
                memory_bytes: resident_bytes(),
            },
            config: self.config.as_ref().map(|config| config.borrow().clone()),
            links: self.links.iter().map(|link| link.borrow().clone()).collect(),
            sensors: self.sensors.iter().map(|line| line.borrow().clone()).collect(),
            devices: decide.devices,
            cameras: self.cameras.iter().map(|camera| camera.borrow().clone()).collect(),
            shedding: self.shedding.borrow().clone(),
            outbox: self.outbox(),
            uplink: self.uplink.borrow().clone(),
            identity: self.identity.as_ref().map(|identity| identity.borrow().clone()),
            alarms: decide.alarms,
            standing: decide.standing,
            on_site: decide
                .wanted
                .into_iter()
                .map(|want| OnSiteReport { output: want.output, kind: want.kind, pattern: want.pattern })
                .collect(),
            findings: Vec::new(),
        };
        report.findings = findings(&report);
        report
    }

    /// The disk has not finished a write for so long that only a restart helps.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        matches!(self.outbox.health(), Health::Stalled { waited_ms } if waited_ms >= STALLED_MS)
    }

    /// Brings the gauges up to date.
    pub fn publish_gauges(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts stay far below 2^52")]
        for lane in self.outbox().lanes {
            metrics::gauge!("gengfu_outbox_pending", "lane" => lane.lane.as_str()).set(lane.pending as f64);
        }
        for link in &self.links {
            let link = link.borrow();
            metrics::gauge!("gengfu_link_up", "node" => link.node.to_string()).set(f64::from(u8::from(link.is_up())));
        }
    }

    /// The store's figures.
    #[must_use]
    pub fn outbox(&self) -> OutboxReport {
        let stats = self.outbox.stats();
        let health = match stats.health {
            Health::Ok => "ok".to_owned(),
            Health::Stalled { waited_ms } => format!("the disk has not finished a write for {} s", waited_ms / 1000),
            Health::Poisoned { reason } => reason,
        };
        let lanes = stats.lanes.iter().zip(Lane::ALL.iter()).map(|(lane, name)| LaneReport {
            lane: *name,
            pending: lane.pending,
            in_flight: lane.in_flight,
            oldest_at: lane.oldest_appended_at_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
            dropped: lane.dropped,
            abandoned: lane.abandoned,
        });
        OutboxReport {
            sequence: stats.head.sequence,
            head: hex::encode(stats.head.hash),
            health,
            lanes: lanes.collect(),
            damaged: stats.damaged,
        }
    }
}

/// What the cameras give up.
fn shedding_finding(shedding: &Shedding) -> Option<Finding> {
    let (zh, en) = shedding.rung.words();
    (shedding.rung != Rung::Whole).then(|| Finding {
        problem: format!("the box is short of time for its cameras: {en} ({})", shedding.why),
        remedy: "fewer cameras or pictures per second (`fps_max`), key frames (`decode`), or a faster box; sensors are not concerned"
            .to_owned(),
        problem_zh: Some(format!("设备处理能力不足：{zh}")),
        remedy_zh: Some("减少摄像机数量或降低 fps_max，改用关键帧，或更换更快的设备；传感器报警不受影响".to_owned()),
    })
}

/// What is wrong, worst first: the store, the way to the centre, then the equipment.
fn findings(report: &Report) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |problem: String, remedy: &str| {
        found.push(Finding { problem, remedy: remedy.to_owned(), problem_zh: None, remedy_zh: None });
    };
    if report.outbox.health != "ok" {
        let text = format!("the outbox does not store: {}", report.outbox.health);
        say(text, "free space or replace the disk; nodes keep their events meanwhile and nothing is acknowledged");
    }
    if report.outbox.damaged > 0 {
        say(
            format!("{} stored item(s) cannot be read", report.outbox.damaged),
            "save the data directory and replace the disk",
        );
    }
    let failed: Vec<&str> = report
        .on_site
        .iter()
        .filter(|on| on.pattern == Pattern::TransmissionFailed)
        .map(|on| on.output.as_str())
        .collect();
    if !failed.is_empty() {
        let text = format!(
            "transmission failed: the centre has not confirmed a life-safety alarm; told on {}",
            failed.join(", ")
        );
        say(text, "call for help by telephone; `gengfu silence` quiets the sounders while somebody is there");
    }
    let place_of_uplink = found.len();
    found.extend(report.identity.iter().flat_map(IdentityStatus::findings).map(|(problem, remedy)| Finding {
        problem: problem.en,
        remedy: remedy.en,
        problem_zh: Some(problem.zh),
        remedy_zh: Some(remedy.zh),
    }));
    let mut say = |problem: String, remedy: &str| {
        found.push(Finding { problem, remedy: remedy.to_owned(), problem_zh: None, remedy_zh: None });
    };
    for link in report.links.iter().filter(|link| !link.is_up()) {
        say(format!("link {}: {}", link.node, link.state), &link.remedy);
    }
    for link in &report.links {
        for warning in &link.warnings {
            say(format!("link {}: {}", link.node, warning.text), &warning.remedy);
        }
    }
    for twins in link::twins(&report.links) {
        say(twins.to_string(), "both are served meanwhile; give one of them another id when you are there");
    }
    for line in &report.sensors {
        if !line.up {
            say(format!("{} at {}: {}", line.name, line.place, line.state), &line.remedy);
        }
        for device in line.devices.iter().filter(|device| line.up && device.up == Some(false)) {
            say(format!("{} at {}: {}", device.name, line.place, device.state), &device.remedy);
        }
        for warning in &line.warnings {
            say(format!("{}: {}", line.name, warning.text), &warning.remedy);
        }
    }
    for camera in report.cameras.iter().filter(|camera| !camera.is_streaming()) {
        say(format!("camera {}: {}", camera.camera, camera.state), &camera.remedy);
    }
    found.extend(shedding_finding(&report.shedding));
    let mut say = |problem: String, remedy: &str| {
        found.push(Finding { problem, remedy: remedy.to_owned(), problem_zh: None, remedy_zh: None });
    };
    for lane in report.outbox.lanes.iter().filter(|lane| lane.dropped > 0) {
        say(
            format!("{} {} item(s) were dropped undelivered", lane.dropped, lane.lane),
            "the uplink was away for longer than the lane's bound; see [outbox] in the configuration",
        );
    }
    for lane in report.outbox.lanes.iter().filter(|lane| lane.abandoned > 0) {
        say(
            format!("{} {} item(s) could never be sent and were given up", lane.abandoned, lane.lane),
            "their files were gone or changed: see the log (`abandoned`) and the evidence folder's disk and permissions",
        );
    }
    if report.gateway.clock == ClockQuality::Unsynced {
        say("the clock is not synchronised; alarms go out marked so".to_owned(), "check NTP: timedatectl status");
    }
    for (problem, remedy) in report.config.iter().flat_map(|config| config.findings(report.gateway.now)) {
        let (problem_zh, remedy_zh) = (Some(problem.zh), Some(remedy.zh));
        found.push(Finding { problem: problem.en, remedy: remedy.en, problem_zh, remedy_zh });
    }
    if let Some(finding) = uplink_finding(&report.uplink) {
        found.insert(place_of_uplink, finding);
    }
    found
}

/// What is wrong on the way to the centre, in both languages.
fn uplink_finding(uplink: &UplinkStatus) -> Option<Finding> {
    if uplink.state == LinkState::Online && uplink.cause.is_none() {
        return None;
    }
    let or = |text: &Option<String>, usual: &str| text.clone().unwrap_or_else(|| usual.to_owned());
    Some(Finding {
        problem: format!("uplink to {}: {}", uplink.broker, or(&uplink.detail, "no connection yet")),
        remedy: or(&uplink.remedy, "wait a few seconds"),
        problem_zh: Some(format!("上行 {}：{}", uplink.broker, or(&uplink.detail_zh, "尚未连接"))),
        remedy_zh: Some(or(&uplink.remedy_zh, "请稍候")),
    })
}

/// Resident set size of this process.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
