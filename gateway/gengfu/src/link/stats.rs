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

use super::problem::Problem;
use super::update::UpdateShown;
use super::{NodeConfig, PortConfig};

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
    /// On a bus: a frame of a node that was not asked. It answers too late, another master asked it, or two collided; it comes again.
    Unasked,
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
            Discard::Unasked => "unasked",
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

/// Something that works and still needs a hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// What is odd.
    pub text: String,
    /// The same in Chinese.
    pub text_zh: String,
    /// What to do.
    pub remedy: String,
    /// The same in Chinese.
    pub remedy_zh: String,
}

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStats {
    /// The node's device name.
    pub node: Slug,
    /// The port.
    pub port: String,
    /// The node's address on a bus.
    pub address: Option<u8>,
    /// Whether the node is heard.
    up: bool,
    /// The state in words.
    pub state: String,
    /// The state in Chinese.
    pub state_zh: String,
    /// What to do; empty when nothing.
    pub remedy: String,
    /// The same in Chinese.
    pub remedy_zh: String,
    /// Since when it is so.
    pub since: Timestamp,
    /// The last update of the node's firmware since the gateway's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateShown>,
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
    /// On a bus: how often the node was polled.
    pub polls: u64,
    /// On a bus: how often it did not answer, or not understandably.
    pub unanswered: u64,
    /// What is shown, so that it is put into words only when it changes.
    #[serde(skip)]
    shown: Option<Problem>,
}

impl LinkStats {
    /// Before anything was heard.
    #[must_use]
    pub fn starting(port: &PortConfig, node: &NodeConfig, now: Timestamp) -> Self {
        Self {
            node: node.node.clone(),
            port: port.port().display().to_string(),
            address: port.as_bus().map(|_| node.address),
            up: false,
            state: "starting".into(),
            state_zh: "正在启动".into(),
            remedy: "wait a few seconds".into(),
            remedy_zh: "请稍候".into(),
            since: now,
            update: None,
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
            polls: 0,
            unanswered: 0,
            shown: None,
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
        if self.up {
            return;
        }
        self.shown = None;
        let nothing = Text { zh: String::new(), en: String::new() };
        self.show(true, now, Text { zh: "正常".into(), en: "up".into() }, nothing);
    }

    pub(super) fn show_problem(&mut self, now: Timestamp, problem: &Problem) {
        if self.shown.as_ref() == Some(problem) {
            return;
        }
        self.shown = Some(problem.clone());
        self.show(false, now, problem.text(), problem.remedy());
    }

    fn show(&mut self, up: bool, now: Timestamp, text: Text, remedy: Text) {
        if self.up != up || self.state != text.en {
            self.since = now;
        }
        (self.up, self.state, self.state_zh) = (up, text.en, text.zh);
        (self.remedy, self.remedy_zh) = (remedy.en, remedy.zh);
    }

    /// Counts a discard; true for the 1st, 2nd, 4th, 8th ... of its reason, which are worth a line in the log.
    pub(super) fn count(&mut self, reason: Discard) -> bool {
        let count = add_one(&mut self.discards, reason.as_str());
        count.is_power_of_two()
    }

    /// Counts a frame that the decoder refused.
    pub(super) fn count_broken(&mut self, fault: &str) {
        add_one(&mut self.broken, fault);
    }

    pub(super) fn warn(&mut self, text: Text, remedy: Text) {
        /// More would only hide the first.
        const WARNINGS_MAX: usize = 16;
        let warning = Warning { text: text.en, text_zh: text.zh, remedy: remedy.en, remedy_zh: remedy.zh };
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            tracing::warn!(node = %self.node, remedy = warning.remedy, "{}", warning.text);
            self.warnings.push(warning);
        }
    }
}

/// Counts without allocating for a name that was counted before.
fn add_one(counts: &mut BTreeMap<String, u64>, name: &str) -> u64 {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
        return *count;
    }
    counts.insert(name.to_owned(), 1);
    1
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
