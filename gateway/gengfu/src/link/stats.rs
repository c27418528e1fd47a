//! What a technician sees of a link.
//!
//! Owns the counters, the state in words and what to do about it. Nothing that a link discards is missing here (W27). Refuses history:
//! these are totals since the gateway's start.

use std::collections::BTreeMap;
use std::fmt;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::LinkConfig;

/// Why something that was received went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discard {
    /// Broken: noise, a torn frame, a wrong checksum.
    Broken,
    /// Another protocol version.
    Version,
    /// An echo of our own words, or another gateway on the wire.
    Direction,
    /// Another node's address.
    Address,
    /// A run of the node that has not introduced itself yet; it was asked to.
    UnknownBoot,
    /// Another node than the configured one.
    WrongUid,
    /// Taken before.
    Duplicate,
    /// Something before it is missing; it comes again.
    Gap,
    /// A channel that is not configured.
    UnknownChannel,
    /// An event that the configured class of device does not have.
    WrongClass,
    /// More than the decider takes in time; it comes again.
    Backlog,
}

impl Discard {
    /// As in the counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Discard::Broken => "broken",
            Discard::Version => "version",
            Discard::Direction => "direction",
            Discard::Address => "address",
            Discard::UnknownBoot => "unknown_boot",
            Discard::WrongUid => "wrong_uid",
            Discard::Duplicate => "duplicate",
            Discard::Gap => "gap",
            Discard::UnknownChannel => "unknown_channel",
            Discard::WrongClass => "wrong_class",
            Discard::Backlog => "backlog",
        }
    }
}

/// Why a link does not work, as far as is known. The first that applies is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such port.
    NoPort,
    /// The port may not be opened.
    Permission,
    /// Another program has the port.
    Busy,
    /// The port was there and hung up.
    HungUp,
    /// The port cannot be used.
    Port(String),
    /// The node speaks another protocol version.
    Version {
        /// The node's.
        node: u8,
    },
    /// Another node answers than the configured one.
    WrongUid {
        /// Expected, hex.
        expected: String,
        /// Heard, hex.
        heard: String,
    },
    /// Nothing is heard.
    Silent,
}

impl Problem {
    /// What is wrong.
    #[must_use]
    pub fn text(&self) -> Text {
        let (zh, en) = match self {
            Problem::NoPort => ("串口不存在".into(), "the port does not exist".into()),
            Problem::Permission => ("没有打开串口的权限".into(), "no permission to open the port".into()),
            Problem::Busy => ("串口被其他程序占用".into(), "another program has the port".into()),
            Problem::HungUp => ("串口已断开".into(), "the port hung up".into()),
            Problem::Port(why) => (format!("串口无法使用：{why}"), format!("the port cannot be used: {why}")),
            Problem::Version { node } => (
                format!("节点的协议版本是 {node}，网关是 {}", gengfu_wire::PROTOCOL_VERSION),
                format!("the node speaks protocol version {node}, the gateway {}", gengfu_wire::PROTOCOL_VERSION),
            ),
            Problem::WrongUid { expected, heard } => (
                format!("应答的是节点 {heard}，配置的是 {expected}"),
                format!("node {heard} answers, node {expected} is configured"),
            ),
            Problem::Silent => ("收不到节点的信号".into(), "nothing is heard from the node".into()),
        };
        Text { zh, en }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> Text {
        let (zh, en) = match self {
            Problem::NoPort => (
                "检查节点或转换器是否插好，以及配置中的端口（ls -l /dev/serial/by-path）",
                "plug in the node or its adapter, or correct the port in the configuration (ls -l /dev/serial/by-path)",
            ),
            Problem::Permission => (
                "把网关的用户加入 dialout 组后重新启动",
                "add the gateway's user to the group dialout and start it again",
            ),
            Problem::Busy => {
                ("结束占用串口的程序（fuser 端口）", "end the program that has it (fuser PORT shows which)")
            }
            Problem::HungUp => {
                ("检查接线和转换器；网关会自动重连", "check cable and adapter; the gateway opens it again by itself")
            }
            Problem::Port(_) => ("检查它是否是串口，以及波特率", "check that it is a serial port and knows this speed"),
            Problem::Version { .. } => ("升级较旧的一方", "update the older of the two"),
            Problem::WrongUid { .. } => {
                ("换回原来的节点，或修改配置中的 uid", "put the right node back, or change uid in the configuration")
            }
            Problem::Silent => {
                ("检查节点的电源、接线和波特率", "check the node's power, the cable (RX to TX) and the speed")
            }
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

/// Something that works and still needs a hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// What is odd.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStats {
    /// The node's device name.
    pub node: Slug,
    /// The port.
    pub port: String,
    /// Whether the node is heard.
    up: bool,
    /// The state in words.
    pub state: String,
    /// The state in Chinese.
    pub state_zh: String,
    /// What to do; empty when nothing.
    pub remedy: String,
    /// Since when it is so.
    pub since: Timestamp,
    /// Odd things that do not stop the link.
    pub warnings: Vec<Warning>,
    /// The node's unique id, hex.
    pub uid: Option<String>,
    /// The run of the node, hex.
    pub boot: Option<String>,
    /// The node's firmware.
    pub firmware: Option<String>,
    /// When the node was last heard.
    pub last_heard_at: Option<Timestamp>,
    /// Frames received and understood.
    pub frames: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames refused by the decoder, by what was wrong with them.
    pub broken: BTreeMap<String, u64>,
    /// Everything that went no further, by reason. `duplicate` and `gap` are normal on a line with errors.
    pub discards: BTreeMap<String, u64>,
    /// Events taken.
    pub events: u64,
    /// Events that the node, or a reboot of it, lost.
    pub events_lost: u64,
    /// Levels repaired from heartbeats.
    pub repaired: u64,
    /// Boots of the node seen.
    pub boots: u64,
    /// Batches that the gateway's disk refused.
    pub refused: u64,
    /// Times that the port was opened.
    pub opened: u64,
}

impl LinkStats {
    /// Before anything was heard.
    #[must_use]
    pub fn starting(config: &LinkConfig, now: Timestamp) -> Self {
        Self {
            node: config.node.clone(),
            port: config.port.display().to_string(),
            up: false,
            state: "starting".into(),
            state_zh: "正在启动".into(),
            remedy: "wait a few seconds".into(),
            since: now,
            warnings: Vec::new(),
            uid: None,
            boot: None,
            firmware: None,
            last_heard_at: None,
            frames: 0,
            frames_sent: 0,
            broken: BTreeMap::new(),
            discards: BTreeMap::new(),
            events: 0,
            events_lost: 0,
            repaired: 0,
            boots: 0,
            refused: 0,
            opened: 0,
        }
    }

    /// Whether the node is heard.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// How often something went no further for this reason.
    #[must_use]
    pub fn discarded(&self, reason: Discard) -> u64 {
        self.discards.get(reason.as_str()).copied().unwrap_or(0)
    }

    pub(super) fn show_up(&mut self, now: Timestamp) {
        self.show(true, now, Text { zh: "正常".into(), en: "up".into() }, String::new());
    }

    pub(super) fn show_problem(&mut self, now: Timestamp, problem: &Problem) {
        self.show(false, now, problem.text(), problem.remedy().en);
    }

    fn show(&mut self, up: bool, now: Timestamp, text: Text, remedy: String) {
        if self.up != up || self.state != text.en {
            self.since = now;
        }
        (self.up, self.state, self.state_zh, self.remedy) = (up, text.en, text.zh, remedy);
    }

    /// Counts a discard; true for the 1st, 2nd, 4th, 8th ... of its reason, which are worth a line in the log.
    pub(super) fn count(&mut self, reason: Discard) -> bool {
        let count = self.discards.entry(reason.as_str().to_owned()).or_default();
        *count += 1;
        count.is_power_of_two()
    }

    pub(super) fn warn(&mut self, text: String, remedy: &str) {
        /// More would only hide the first.
        const WARNINGS_MAX: usize = 16;
        let warning = Warning { text, remedy: remedy.to_owned() };
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            tracing::warn!(node = %self.node, remedy = warning.remedy, "{}", warning.text);
            self.warnings.push(warning);
        }
    }
}

/// Two links on which nodes claim the same unique id (W28).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    /// The unique id, hex.
    pub uid: String,
    /// The nodes' device names.
    pub nodes: [Slug; 2],
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.nodes;
        write!(f, "{a} and {b} both say that they are node {}; give one of them another unique id", self.uid)
    }
}

/// Finds nodes on different links that claim one unique id. Both are served; their boots tell their events apart.
#[must_use]
pub fn twins<'a>(links: impl IntoIterator<Item = &'a LinkStats>) -> Vec<Twins> {
    let mut seen: BTreeMap<&str, &Slug> = BTreeMap::new();
    let mut twins = Vec::new();
    for link in links.into_iter().filter(|link| link.is_up()) {
        let Some(uid) = link.uid.as_deref() else { continue };
        if let Some(other) = seen.insert(uid, &link.node) {
            twins.push(Twins { uid: uid.to_owned(), nodes: [other.clone(), link.node.clone()] });
        }
    }
    twins
}
