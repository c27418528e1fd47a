//! What the desk knows of one gateway: its word, its journal, its alarms with their pictures and times, its devices.
//!
//! Owns the bounds: whatever a gateway sends, what is kept of it has a limit, so that a desk serves a thousand of them. What is not kept
//! in memory is in the journal on disk. It refuses to read messages; [`super::model`] does, and hands over what they say.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::command::Outcome;
use gengfu_contract::event::{AlarmData, Event, EventType, EvidenceRef};
use gengfu_contract::state::{DeviceState, GatewayStatus};
use gengfu_contract::words::{Condition, Text};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::findings::{self, Finding, Stated};
use super::presence::{self, NO_STATEMENT_AFTER, Signs, There};
use super::sequence::SequenceLedger;
use crate::uplink::backoff::later;

/// Alarms that are over and still shown, per gateway.
pub(super) const OVER_KEPT: usize = 50;
/// Open alarms shown, per gateway. More are journaled and received for, and not shown.
const OPEN_MAX: usize = 2000;
/// Devices shown, per gateway.
const DEVICES_MAX: usize = 4000;
/// Pictures of commands that are remembered.
const SNAPSHOTS_KEPT: usize = 64;
/// Pictures that may wait for the event that names them.
const EARLY_PICTURES_MAX: usize = 256;
/// What was ordered about an alarm: the last so many.
const ORDERS_KEPT: usize = 32;
/// Events whose receipt is owed, remembered to time it.
const OWED_MAX: usize = 4096;

/// What the desk knows of one gateway.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayView {
    /// Its status, as last said.
    pub status: Option<GatewayStatus>,
    /// Its statement, as last said.
    pub stated: Option<Stated>,
    /// Which events have come.
    pub sequences: SequenceLedger,
    /// Alarms by id: open ones, and the last that are over.
    pub alarms: BTreeMap<String, AlarmView>,
    /// Pictures that were taken for a `snapshot` command, by its id: the last.
    #[serde(default)]
    pub snapshots: BTreeMap<String, PictureView>,
    /// Devices by name.
    #[serde(skip)]
    pub devices: BTreeMap<String, DeviceState>,
    /// When its status came.
    #[serde(skip)]
    pub(super) said_at: Option<Timestamp>,
    /// When anything not retained came.
    #[serde(skip)]
    pub(super) heard_at: Option<Timestamp>,
    /// What was last told of its presence, and of its completeness.
    #[serde(skip)]
    pub(super) told: (Option<There>, Vec<Finding>),
    /// Something came since the findings were last looked at.
    #[serde(skip)]
    pub(super) is_changed: bool,
    /// Pictures that came before their event, by alarm and number: path and hash.
    #[serde(skip)]
    early_pictures: BTreeMap<(String, u32), (String, String)>,
    #[serde(skip)]
    over: BTreeSet<(Timestamp, String)>,
    /// Event ids whose receipt is owed, and their alarms.
    #[serde(skip)]
    owed: BTreeMap<String, String>,
}

/// One alarm.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AlarmView {
    /// As it stands.
    pub alarm: AlarmData,
    /// Sequence of the event or snapshot it was read from.
    pub sequence: u64,
    /// When its first event arrived; absent while only the retained snapshot is known.
    pub received_at: Option<Timestamp>,
    /// From sensed to that arrival.
    pub latency_ms: Option<i64>,
    /// Its first event was marked as sent late.
    pub historical: bool,
    /// Its pictures by number.
    pub pictures: BTreeMap<u32, PictureView>,
    /// When the gateway or this desk said that it is over.
    pub over_at: Option<Timestamp>,
    /// The times of its first event.
    #[serde(default)]
    pub stages: Stages,
    /// What was ordered about it from here, oldest first.
    #[serde(default)]
    pub orders: Vec<OrderView>,
}

/// The times of an alarm's first event on its way; each absent until it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stages {
    /// The sensor saw it.
    pub sensed_at: Option<Timestamp>,
    /// A rule decided that it is an alarm.
    pub decided_at: Option<Timestamp>,
    /// The gateway's disk had it.
    pub stored_at: Option<Timestamp>,
    /// The gateway handed this copy to its connection.
    pub sent_at: Option<Timestamp>,
    /// The broker delivered it here. (When the broker acknowledged it to the gateway only the gateway knows: `gengfu trace`.)
    pub arrived_at: Option<Timestamp>,
    /// The receipt went out.
    pub receipt_at: Option<Timestamp>,
    /// A person acknowledged it, as the gateway journaled.
    pub acknowledged_at: Option<Timestamp>,
}

impl PictureView {
    fn named(reference: &EvidenceRef) -> Self {
        Self { reference: reference.clone(), path: None, genuine: None }
    }

    /// The picture came: its path and its hash.
    fn came(&mut self, written: Option<(String, String)>) {
        if let Some((path, sha256)) = written {
            self.genuine = Some(self.reference.sha256.eq_ignore_ascii_case(&sha256));
            self.path = Some(path);
        }
    }
}

impl Stages {
    /// The stages in their order, with their names.
    #[must_use]
    pub fn list(&self) -> [(&'static str, &'static str, Option<Timestamp>); 7] {
        [
            ("感知", "sensed", self.sensed_at),
            ("判定", "decided", self.decided_at),
            ("入库", "stored", self.stored_at),
            ("发送", "sent", self.sent_at),
            ("经代理到达", "broker", self.arrived_at),
            ("回执", "receipt", self.receipt_at),
            ("确认", "ack", self.acknowledged_at),
        ]
    }
}

/// Something ordered about an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Id of the command.
    pub cmd_id: String,
    /// As in "ack", "case FILED".
    pub what: String,
    /// Who ordered it.
    pub operator: String,
    /// When.
    pub at: Timestamp,
    /// What the gateway answered, and why; absent until it did.
    pub answer: Option<(Outcome, Option<Text>)>,
}

/// One picture of an alarm or a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureView {
    /// As the event named it.
    pub reference: EvidenceRef,
    /// Where the desk wrote it; absent until it came.
    pub path: Option<String>,
    /// Its bytes hash to what the event says; absent until it came.
    pub genuine: Option<bool>,
}

impl GatewayView {
    /// Is it there, and since when; `connected_at` is the desk's own connection.
    #[must_use]
    pub fn presence(&self, connected_at: Option<Timestamp>, now: Timestamp) -> (There, Option<Timestamp>) {
        let said = self.status.as_ref().map(|status| status.state).zip(self.said_at);
        presence::judge(&Signs { said, heard_at: self.heard_at, connected_at }, now)
    }

    /// What there is to say about its completeness.
    #[must_use]
    pub fn findings(&self, is_shared: bool, connected_at: Option<Timestamp>, now: Timestamp) -> Vec<Finding> {
        let mut findings = findings::judge(&self.sequences, self.stated.as_ref(), is_shared);
        if let Some(since) = self.statement_overdue_since(connected_at, now) {
            findings.push(Finding::NoStatement { since });
        }
        findings
    }

    /// Since when a gateway that is online has not stated its journal, when that is too long.
    pub(super) fn statement_overdue_since(&self, connected_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        // Retained statements come again at each connection; before it, silence was not the gateway's.
        let since = self.stated.as_ref().map(|stated| stated.received_at).max(connected_at);
        let overdue = since.filter(|since| later(*since, NO_STATEMENT_AFTER) <= now)?;
        (self.presence(connected_at, now).0 == There::Online).then_some(overdue)
    }

    /// An event that comes from the journal: when its receipt went is not known.
    pub(super) fn forget_owed(&mut self, id: &str) {
        self.owed.remove(id);
    }

    pub(super) fn device(&mut self, name: &str, state: DeviceState) {
        if self.devices.len() < DEVICES_MAX || self.devices.contains_key(name) {
            self.devices.insert(name.to_owned(), state);
        }
    }

    pub(super) fn alarm_event(&mut self, event: &Event, alarm: AlarmData, now: Timestamp) {
        let id = alarm.alarm_id.clone();
        let decided_at = alarm.decided_at;
        self.alarm_state(alarm, event.sequence, now);
        if self.owed.len() < OWED_MAX {
            self.owed.insert(event.id.clone(), id.clone());
        }
        let Some(view) = self.alarms.get_mut(&id) else { return };
        if event.event_type == EventType::AlarmAcknowledged && view.stages.acknowledged_at.is_none() {
            view.stages.acknowledged_at = Some(event.recordedtime);
        }
        if event.event_type == EventType::AlarmRaised || view.received_at.is_none() {
            view.received_at = Some(now);
            view.latency_ms = Some(now.as_millisecond().saturating_sub(event.time.as_millisecond()));
            view.historical = event.historical.unwrap_or(false);
            view.stages = Stages {
                sensed_at: Some(event.time),
                decided_at: Some(decided_at),
                stored_at: Some(event.recordedtime),
                sent_at: event.senttime,
                arrived_at: Some(now),
                ..view.stages
            };
        }
    }

    /// The receipt for these ids went out.
    pub(super) fn receipted(&mut self, ids: &[String], now: Timestamp) {
        for id in ids {
            let alarm = self.owed.remove(id).and_then(|alarm| self.alarms.get_mut(&alarm));
            if let Some(alarm) = alarm.filter(|alarm| alarm.stages.receipt_at.is_none()) {
                alarm.stages.receipt_at = Some(now);
            }
        }
    }

    /// The newest revision wins, wherever it came from.
    pub(super) fn alarm_state(&mut self, alarm: AlarmData, sequence: u64, now: Timestamp) {
        let id = alarm.alarm_id.clone();
        let is_over = !alarm.condition.is_open();
        let open = self.alarms.len().saturating_sub(self.over.len());
        if open >= OPEN_MAX && !is_over && !self.alarms.contains_key(&id) {
            return;
        }
        let view = self.alarms.entry(id.clone()).or_insert_with(|| AlarmView {
            alarm: alarm.clone(),
            sequence,
            received_at: None,
            latency_ms: None,
            historical: false,
            pictures: BTreeMap::new(),
            over_at: None,
            stages: Stages::default(),
            orders: Vec::new(),
        });
        for reference in &alarm.evidence {
            let picture = view.pictures.entry(reference.n).or_insert_with(|| PictureView::named(reference));
            picture.came(self.early_pictures.remove(&(id.clone(), reference.n)));
        }
        if alarm.rev < view.alarm.rev {
            return;
        }
        (view.alarm, view.sequence) = (alarm, sequence);
        if is_over {
            self.over(&id, now);
        }
    }

    /// The retained snapshot was emptied: it is over, whether or not its last event is here.
    pub(super) fn snapshot_emptied(&mut self, id: &str, now: Timestamp) {
        if let Some(alarm) = self.alarms.get_mut(id).filter(|alarm| alarm.over_at.is_none()) {
            alarm.alarm.condition = Condition::Normal;
            self.over(id, now);
        }
    }

    fn over(&mut self, id: &str, now: Timestamp) {
        let Some(view) = self.alarms.get_mut(id) else { return };
        if view.over_at.is_none() {
            view.over_at = Some(now);
            self.over.insert((now, id.to_owned()));
        }
        while self.over.len() > OVER_KEPT {
            if let Some((_, oldest)) = self.over.pop_first() {
                self.alarms.remove(&oldest);
            }
        }
    }

    /// The gateway journaled that it took this picture for a command.
    pub(super) fn snapshot_named(&mut self, cmd_id: &str, reference: &EvidenceRef) {
        while self.snapshots.len() >= SNAPSHOTS_KEPT && !self.snapshots.contains_key(cmd_id) {
            let oldest = self.snapshots.iter().min_by_key(|(_, picture)| picture.reference.taken_at);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            self.snapshots.remove(&oldest);
        }
        let picture = self.snapshots.entry(cmd_id.to_owned()).or_insert_with(|| PictureView::named(reference));
        picture.came(self.early_pictures.remove(&(cmd_id.to_owned(), reference.n)));
    }

    /// Picture `n` of an alarm or of a command, if its event is here.
    #[must_use]
    pub fn named(&self, id: &str, n: u32) -> Option<&PictureView> {
        let of_alarm = self.alarms.get(id).and_then(|alarm| alarm.pictures.get(&n));
        of_alarm.or_else(|| self.snapshots.get(id).filter(|picture| picture.reference.n == n))
    }

    /// A picture was written: whether it is the one the event named, if that is here.
    pub(super) fn picture_written(&mut self, alarm_id: &str, n: u32, path: &str, sha256: &str) -> Option<bool> {
        let of_alarm = self.alarms.get_mut(alarm_id).and_then(|alarm| alarm.pictures.get_mut(&n));
        let of_command = self.snapshots.get_mut(alarm_id).filter(|picture| picture.reference.n == n);
        if let Some(named) = of_alarm.or(of_command) {
            named.came(Some((path.to_owned(), sha256.to_owned())));
            return named.genuine;
        }
        if self.early_pictures.len() >= EARLY_PICTURES_MAX {
            self.early_pictures.pop_first();
        }
        self.early_pictures.insert((alarm_id.to_owned(), n), (path.to_owned(), sha256.to_owned()));
        None
    }

    pub(super) fn ordered(&mut self, alarm_id: &str, order: OrderView) {
        let Some(alarm) = self.alarms.get_mut(alarm_id) else { return };
        if alarm.orders.len() == ORDERS_KEPT {
            alarm.orders.remove(0);
        }
        alarm.orders.push(order);
    }

    /// What a checkpoint of the journal keeps: everything but what the broker tells again and what is over.
    #[must_use]
    pub fn checkpoint(&self) -> Self {
        let mut kept = self.clone();
        kept.alarms.retain(|_, alarm| alarm.over_at.is_none());
        (kept.devices, kept.over) = (BTreeMap::new(), BTreeSet::new());
        kept
    }
}
