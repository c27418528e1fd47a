//! The configuration: what the file says, checked, in the types the program uses.
//!
//! Owns the file's keys, defaults and limits. [`Config::parse`] reports all faults with line, key path and remedy; [`Config::environment`] tells what the
//! file names but this machine lacks. Secrets are read from files of their own and never printed. Refuses to start anything.

mod cameras;
mod care;
mod changes;
mod environment;
mod names;
pub(crate) mod nodes;
mod outputs;
mod people;
pub(crate) mod read;
pub(crate) mod reader;
mod zones;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gengfu_alarm::policy::{CareRule, SupervisionClass};
use gengfu_alarm::{Escalation, ZoneRule};
use gengfu_contract::event::Location;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Lane;
use gengfu_vision::source::SourceUrl;
use jiff::civil::Date;

use crate::decide::DrillPlan;
use crate::identity::est::Place;
use crate::sensors::config::SensorsConfig;
use crate::uplink::{Address, SwitchPolicy};
pub use care::CareDefaults;
pub use changes::{Changes, Trusted};
pub use environment::Lack;
pub use outputs::{Annunciation, Line};
pub use reader::{Fault, parse_duration, show_duration};

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this gateway is.
    pub gateway: Gateway,
    /// The way to the dispatch centre.
    pub uplink: Uplink,
    /// The store.
    pub outbox: OutboxLimits,
    /// What the box itself offers.
    pub local: Local,
    /// Detector and its library.
    pub vision: Vision,
    /// `[evidence]`.
    pub evidence: EvidenceLimits,
    /// What all homes with care rules share.
    pub care: CareDefaults,
    /// Public keys whose signature on a node's firmware is trusted.
    pub firmware_keys: Vec<PathBuf>,
    /// Whose signed configurations are taken, and how long each is tried.
    pub changes: Changes,
    /// Lamp and sounder of the box, and when they speak.
    pub annunciation: Annunciation,
    /// How long a human may take to acknowledge.
    pub escalation: Escalation,
    /// Weekly tests of the whole path.
    pub drill: DrillPlan,
    /// RS-485 buses that several nodes share.
    pub buses: Vec<Bus>,
    /// Sensor nodes, each on a serial port of its own or on a bus.
    pub nodes: Vec<Node>,
    /// Sensors of other makers: Modbus lines and devices behind a local broker.
    pub sensors: SensorsConfig,
    /// Cameras.
    pub cameras: Vec<Camera>,
}

/// `[gateway]`.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// The site (sub-district, estate): second level of every topic.
    pub site: Slug,
    /// This gateway: third level of every topic.
    pub name: Slug,
    /// Everything the gateway keeps.
    pub data_dir: PathBuf,
    /// Where the gateway stands; devices inherit what they do not say themselves.
    pub location: Location,
    /// Event code files, in the order of preference.
    pub codes: Vec<PathBuf>,
}

/// `[uplink]`.
#[derive(Debug, Clone)]
pub struct Uplink {
    /// Broker's host name or address; of the preferred one, where there are several.
    pub host: String,
    /// Broker's port.
    pub port: u16,
    /// The other brokers, in order of preference.
    pub others: Vec<Address>,
    /// When to change brokers.
    pub switch: SwitchPolicy,
    /// Largest packet the broker takes, bytes, where it does not say so itself.
    pub packet_bytes_max: Option<u32>,
    /// MQTT version.
    pub protocol: Protocol,
    /// MQTT client id.
    pub client_id: String,
    /// MQTT user.
    pub username: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Time without traffic after which a ping is due; the broker declares us dead after 1.5 times that.
    pub keep_alive: Duration,
    /// Items on the way to the broker at one time.
    pub window: u16,
    /// Items a second that leave while a backlog waits, life safety not counted; 0: no limit.
    pub backlog_per_second: u32,
    /// Items older than this are sent marked `historical`.
    pub historical_after: Duration,
    /// Life-safety items without a receipt for this long are sent again.
    pub receipt_timeout_life_safety: Duration,
    /// Other items without a receipt for this long are sent again.
    pub receipt_timeout: Duration,
    /// How often a device's retained state is renewed while only its last sign of life moves; absent: by supervision class.
    pub device_refresh: Option<Duration>,
    /// Transport security.
    pub tls: Option<Tls>,
}

/// MQTT version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 5: refused publishes are seen at once.
    Mqtt5,
    /// MQTT 3.1.1: refused publishes show as missing receipts.
    Mqtt311,
}

/// `[uplink.tls]`, PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Authority that signed the broker's certificate.
    pub ca_file: PathBuf,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Our key.
    pub key_file: Option<PathBuf>,
    /// Our key is made on this box and lies in the data folder, with its certificate, in two slots.
    pub is_managed: bool,
    /// Brokers' certificates that were revoked.
    pub crl_file: Option<PathBuf>,
    /// Where certificates come from by themselves.
    pub enrol: Option<Enrol>,
}

/// `[uplink.tls.enrol]`: an enrolment server (EST, RFC 7030).
#[derive(Debug, Clone)]
pub struct Enrol {
    /// Where.
    pub place: Place,
    /// Authority that signed its certificate.
    pub ca_file: PathBuf,
    /// User of the one-time password.
    pub username: String,
    /// File that holds it.
    pub password_file: Option<PathBuf>,
}

/// `[outbox]`.
#[derive(Debug, Clone)]
pub struct OutboxLimits {
    /// Page cache.
    pub cache_bytes: u64,
    /// Received events kept for export.
    pub journal_keep: u64,
    /// Most pending items of each bounded lane.
    pub bounds: BTreeMap<Lane, u64>,
}

/// `[local]`.
#[derive(Debug, Clone)]
pub struct Local {
    /// Socket of the command line.
    pub socket: PathBuf,
    /// Prometheus metrics; loopback unless the installer says otherwise.
    pub metrics: Option<SocketAddr>,
}

/// `[vision]`.
#[derive(Debug, Clone)]
pub struct Vision {
    /// Model manifest.
    pub manifest: PathBuf,
    /// Folder of the model files.
    pub models_dir: PathBuf,
    /// ONNX Runtime's shared library.
    pub onnxruntime: PathBuf,
    /// Model used unless a camera names another.
    pub model: String,
    /// A second model on the same pictures, unless a camera names another.
    pub second_model: Option<String>,
    /// Threads of one detector.
    pub threads: u16,
    /// Most memory a camera worker may take.
    pub worker_memory_bytes: u64,
    /// A camera's fault must last this long before it is a trouble.
    pub fault_hold: Duration,
}

/// `[evidence]`.
#[derive(Debug, Clone)]
pub struct EvidenceLimits {
    /// Pictures stay on the box this long after their alarm is over, at most 30 days.
    pub keep: Duration,
    /// All of them together.
    pub bytes_max: u64,
}

/// `[[bus]]`.
#[derive(Debug, Clone)]
pub struct Bus {
    /// The bus's device name: its troubles carry it.
    pub name: Slug,
    /// Serial port.
    pub port: PathBuf,
    /// Bits per second, the same for all its nodes.
    pub baud: u32,
    /// How long a node's answer may be under way besides its bytes: adapters, drivers.
    pub turnaround: Duration,
    /// Where its port is.
    pub location: Location,
}

/// What a node is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A serial port of its own.
    Port(PathBuf),
    /// A bus.
    Bus {
        /// The bus's name.
        bus: Slug,
        /// The node's address on it, 1 to 247.
        address: u8,
    },
}

/// `[[node]]`.
#[derive(Debug, Clone)]
pub struct Node {
    /// The node's device name.
    pub name: Slug,
    /// Where it hangs.
    pub at: Attachment,
    /// Bits per second; on a bus the bus's own hold.
    pub baud: u32,
    /// The node that is expected here, by unique id; any when absent.
    pub uid: Option<u64>,
    /// Not heard for this long means the link is down.
    pub silence: Duration,
    /// Time between its heartbeats, told to it at each Hello; the node's own when absent.
    pub heartbeat: Option<Duration>,
    /// For how long a contact must be still, told to it at each Hello; the node's own when absent.
    pub debounce: Option<Duration>,
    /// Whether it has a sounder.
    pub sounder: bool,
    /// Home in which its sounder is heard.
    pub dwelling: Option<String>,
    /// What hangs on it.
    pub channels: BTreeMap<u8, Device>,
}

/// `[[node.device]]`, and every other sensor.
#[derive(Debug, Clone)]
pub struct Device {
    /// The device's name.
    pub name: Slug,
    /// What it is.
    pub class: DeviceClass,
    /// Doors: open for longer is an alarm, whatever the hour; when absent, as the care rule says, or never.
    pub left_open_after: Option<Duration>,
    /// Home it belongs to: two smoke heads of one dwelling confirm each other.
    pub dwelling: Option<String>,
    /// Opaque reference on the centre's register.
    pub subject_ref: Option<String>,
    /// How long it may be silent, when not as its class.
    pub supervision: Option<SupervisionClass>,
    /// The day on which it is too old: smoke alarms after ten years (EN 14604, by their makers), batteries sealed in.
    pub replace_by: Option<Date>,
    /// Doors of people living alone: the rules that watch over them.
    pub care: Option<CareRule>,
    /// Where it is.
    pub location: Location,
}

/// What hangs on a node's channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceClass {
    /// Door magnet.
    Door,
    /// Smoke alarm.
    Smoke,
    /// Emergency button.
    Sos,
}

impl DeviceClass {
    /// The word of the configuration and of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceClass::Door => "door",
            DeviceClass::Smoke => "smoke",
            DeviceClass::Sos => "sos",
        }
    }

    /// What may be written, for messages.
    pub(crate) const WORDS: &str = "\"door\", \"smoke\" or \"sos\"";

    /// The class of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [DeviceClass::Door, DeviceClass::Smoke, DeviceClass::Sos].into_iter().find(|class| class.as_str() == word)
    }
}

/// `[[camera]]`.
#[derive(Debug, Clone)]
pub struct Camera {
    /// The camera's device name.
    pub name: Slug,
    /// `rtsp://…` or a file; prints without its credentials.
    pub url: SourceUrl,
    /// Model, when not the default.
    pub model: Option<String>,
    /// A second model on the same pictures, when not the default.
    pub second_model: Option<String>,
    /// Decode every picture instead of key frames only.
    pub all_frames: bool,
    /// Pictures analysed per second at most.
    pub fps_max: f64,
    /// Files: start again at the end.
    pub repeat: bool,
    /// No picture for this long is a fault.
    pub silence: Duration,
    /// The centre may ask for a picture of now.
    pub snapshots: bool,
    /// Where it is.
    pub location: Location,
    /// Zones.
    pub zones: Vec<Zone>,
    /// Polygons burned in black before a picture leaves memory.
    pub masks: Vec<Vec<[f32; 2]>>,
}

/// `[[camera.zone]]`.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The zone's name.
    pub name: Slug,
    /// Outline.
    pub polygon: Vec<[f32; 2]>,
    /// What it forbids, for how long and when; its place is `location`.
    pub rule: ZoneRule,
    /// Where, when not the camera's place.
    pub location: Location,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is read and wrong.
    #[error("{} fault(s) in {path}:\n{}", faults.len(), faults.iter().map(|f| format!("  {f}")).collect::<Vec<_>>().join("\n"))]
    Faulty {
        /// The file.
        path: PathBuf,
        /// All of them.
        faults: Vec<Fault>,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, base) = Self::read_text(path)?;
        Self::parse(&text, &base).map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })
    }

    /// Reads a file without checking it: its text, and the folder where its relative paths start.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`].
    pub fn read_text(path: &Path) -> Result<(String, PathBuf), ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((text, std::fs::canonicalize(folder).map_err(unreadable)?))
    }

    /// Checks a text; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// Every fault found, in the text's order.
    pub fn parse(text: &str, base: &Path) -> Result<Self, Vec<Fault>> {
        read::config(text, base)
    }

    /// What the configuration names but this machine does not have: ports, models, libraries, files. Reads, changes nothing.
    #[must_use]
    pub fn environment(&self) -> Vec<Lack> {
        environment::lacks(self)
    }
}

#[cfg(test)]
mod tests;
