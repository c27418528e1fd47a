//! What the desk knows: gateways, alarms, devices, pictures, and what it owes the gateways.
//!
//! Owns the reading of everything that arrives, by the contract and nothing else; no clock, disk or network, so a test feeds it messages
//! and asks. It refuses to guess: what it cannot read is counted, kept as a sample, and shown. It never panics on input.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::chain;
use gengfu_contract::command::Reply;
use gengfu_contract::event::{AlarmData, Event, EventType, EvidenceRef};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::{AlarmSnapshot, DeviceState, GatewayStatus, Statement};
use gengfu_contract::topic::{self, Up};
use gengfu_contract::words::{AlarmKind, Condition};
use jiff::Timestamp;
use serde::Serialize;

use super::sequence::{Arrival, Proof, SequenceLedger};

/// Alarms that are over and still shown.
const OVER_KEPT: usize = 200;
/// Pictures that may wait for the event that names them.
const EARLY_PICTURES_MAX: usize = 256;

/// What the desk knows of one gateway.
#[derive(Debug, Clone, Default)]
pub struct GatewayView {
    /// Its status, as last said.
    pub status: Option<GatewayStatus>,
    /// Its statement, as last said.
    pub statement: Option<Statement>,
    /// Which events have come.
    pub sequences: SequenceLedger,
    /// Alarms by id: open ones, and the last that are over.
    pub alarms: BTreeMap<String, AlarmView>,
    /// Devices by name.
    pub devices: BTreeMap<String, DeviceState>,
    /// Pictures that came before their event, by alarm and number: their hash.
    early_pictures: BTreeMap<(String, u32), (String, String)>,
    over: BTreeSet<(Timestamp, String)>,
}

/// One alarm.
#[derive(Debug, Clone, Serialize)]
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
}

/// One picture of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PictureView {
    /// As the event named it.
    pub reference: EvidenceRef,
    /// Where the desk wrote it; absent until it came.
    pub path: Option<String>,
    /// Its bytes hash to what the event says; absent until it came.
    pub genuine: Option<bool>,
}

/// A line for the person watching, and for `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DeskEvent {
    /// The desk is connected to the broker.
    Connected {
        /// `host:port`.
        broker: String,
    },
    /// The desk is not.
    Disconnected {
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A gateway said how it is.
    Gateway {
        /// Which.
        gateway: Slug,
        /// What it said.
        status: GatewayStatus,
    },
    /// A transition of an alarm.
    Alarm {
        /// Whose.
        gateway: Slug,
        /// Which event.
        id: String,
        /// Its number.
        sequence: u64,
        /// What happened.
        what: EventType,
        /// The alarm after it.
        alarm: Box<AlarmData>,
        /// From sensed to this desk.
        latency_ms: i64,
        /// Sent late, from the store.
        historical: bool,
        /// New, duplicate or conflict.
        arrival: Arrival,
    },
    /// Any other event.
    Observed {
        /// Whose.
        gateway: Slug,
        /// Which event.
        id: String,
        /// Its number.
        sequence: u64,
        /// What happened.
        what: EventType,
        /// Whom it is about.
        subject: String,
        /// As in "door.opened", for devices.
        detail: Option<String>,
        /// From sensed to this desk.
        latency_ms: i64,
        /// New, duplicate or conflict.
        arrival: Arrival,
    },
    /// A picture arrived.
    Picture {
        /// Whose.
        gateway: Slug,
        /// Of which alarm.
        alarm_id: String,
        /// Which.
        n: u32,
        /// Where the desk wrote it.
        path: String,
        /// It is the one the event named; absent when that event is not here yet.
        genuine: Option<bool>,
    },
    /// A gateway answered a command.
    Reply {
        /// Whose.
        gateway: Slug,
        /// The answer.
        reply: Reply,
    },
    /// A receipt or another command went out.
    Sent {
        /// To whom.
        gateway: Slug,
        /// `receipt`, `ack`, `reset`.
        verb: String,
        /// How many ids, or which alarm.
        about: String,
    },
    /// Something that is not of this contract, or that the desk could not store.
    Fault {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is to be done about a message.
#[derive(Debug, Default)]
pub struct Taken {
    /// To show.
    pub events: Vec<DeskEvent>,
    /// The desk owes this gateway a receipt, once it has stored what came.
    pub receipt: Option<ReceiptDue>,
    /// Append to the journal before the receipt goes.
    pub journal: Option<Event>,
    /// Write this file before the receipt goes.
    pub picture: Option<Picture>,
}

/// A receipt owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptDue {
    /// To whom.
    pub gateway: Slug,
    /// For what.
    pub id: String,
    /// It must not wait for others.
    pub at_once: bool,
}

/// A picture to write. The file's name is safe: alarm ids are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Whose.
    pub gateway: Slug,
    /// Of which alarm.
    pub alarm_id: String,
    /// Which.
    pub n: u32,
    /// SHA-256 of the bytes, hex.
    pub sha256: String,
}

impl Picture {
    /// Name of its file: `<gateway>-<alarm>-<n>.jpg`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.jpg", self.gateway, self.alarm_id, self.n)
    }
}

/// The desk's knowledge of one site.
#[derive(Debug, Clone)]
pub struct DeskModel {
    site: Slug,
    gateways: BTreeMap<Slug, GatewayView>,
    malformed: u64,
    last_malformed: Option<String>,
    receipts: u64,
}

impl DeskModel {
    /// Knows nothing of `site` yet.
    #[must_use]
    pub fn new(site: Slug) -> Self {
        Self { site, gateways: BTreeMap::new(), malformed: 0, last_malformed: None, receipts: 0 }
    }

    /// Takes a message as it arrived `now`.
    pub fn take(&mut self, topic: &str, body: &[u8], now: Timestamp) -> Taken {
        let Some((gateway, up)) = topic::parse_up(&self.site, topic) else {
            // Commands, presence, and foreign topics below the filter are nobody's fault.
            return Taken::default();
        };
        let read = match up {
            Up::Event => return self.event(gateway, topic, body, now),
            Up::Evidence(alarm_id, n) => return self.picture(gateway, topic, alarm_id, n, body),
            Up::EvidencePart { .. } => {
                return self.fault(topic, "a picture in parts: this desk does not join them yet".into());
            }
            Up::Status => self.status(gateway, body),
            Up::Statement => self.statement(gateway, body),
            Up::Alarm(alarm_id) => self.snapshot(gateway, &alarm_id, body, now),
            Up::Device(device) => self.device(gateway, &device, body),
            Up::Reply(_) => serde_json::from_slice(body)
                .map(|reply| Some(DeskEvent::Reply { gateway, reply }))
                .map_err(|e| e.to_string()),
        };
        match read {
            Ok(event) => Taken { events: event.into_iter().collect(), ..Taken::default() },
            Err(reason) => self.fault(topic, reason),
        }
    }

    fn event(&mut self, gateway: Slug, topic: &str, body: &[u8], now: Timestamp) -> Taken {
        let event = match Event::parse(body) {
            Ok(event) => event,
            Err(fault) => return self.fault(topic, fault.to_string()),
        };
        let alarm = match event.alarm() {
            Ok(alarm) => alarm,
            Err(fault) => return self.fault(topic, fault.to_string()),
        };
        let view = self.gateways.entry(gateway.clone()).or_default();
        let arrival = view.sequences.take(&event);
        let latency_ms = now.as_millisecond().saturating_sub(event.time.as_millisecond());
        let (id, sequence, what) = (event.id.clone(), event.sequence, event.event_type);
        let shown = match alarm {
            Some(alarm) => {
                if arrival == Arrival::New {
                    view.alarm_event(&event, alarm.clone(), now);
                }
                let historical = event.historical.unwrap_or(false);
                let (alarm, gateway) = (Box::new(alarm), gateway.clone());
                DeskEvent::Alarm { gateway, id, sequence, what, alarm, latency_ms, historical, arrival }
            }
            None => {
                let detail = event.data.get("what").and_then(|what| what.as_str()).map(str::to_owned);
                let (subject, gateway) = (event.subject.clone(), gateway.clone());
                DeskEvent::Observed { gateway, id, sequence, what, subject, detail, latency_ms, arrival }
            }
        };
        // A copy that contradicts an earlier one is not what we have: no receipt, so that the gateway keeps it.
        let receipt = (arrival != Arrival::Conflict).then(|| ReceiptDue {
            gateway,
            id: event.id.clone(),
            at_once: event.lane.is_life_safety(),
        });
        Taken { events: vec![shown], receipt, journal: (arrival == Arrival::New).then_some(event), picture: None }
    }

    fn picture(&mut self, gateway: Slug, topic: &str, alarm_id: String, n: u32, body: &[u8]) -> Taken {
        if alarm_id.len() > 64 || !alarm_id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return self.fault(topic, "an alarm id has only letters and digits".to_owned());
        }
        let sha256 = hex::encode(chain::hash(body));
        let view = self.gateways.entry(gateway.clone()).or_default();
        let reference = view.alarms.get(&alarm_id).and_then(|alarm| alarm.pictures.get(&n)).map(|p| &p.reference);
        if reference.is_some_and(|reference| !reference.sha256.eq_ignore_ascii_case(&sha256)) {
            return self.fault(topic, format!("the picture's hash is {sha256}, the event names another"));
        }
        let receipt = ReceiptDue { gateway: gateway.clone(), id: format!("{alarm_id}/{n}"), at_once: false };
        let picture = Some(Picture { gateway, alarm_id, n, sha256 });
        Taken { receipt: Some(receipt), picture, ..Taken::default() }
    }

    /// The picture was written to `path`; what to show.
    pub fn picture_written(&mut self, picture: Picture, path: String) -> DeskEvent {
        let Picture { gateway, alarm_id, n, sha256 } = picture;
        let view = self.gateways.entry(gateway.clone()).or_default();
        let named = view.alarms.get_mut(&alarm_id).and_then(|alarm| alarm.pictures.get_mut(&n));
        let genuine = match named {
            Some(named) => {
                let genuine = named.reference.sha256.eq_ignore_ascii_case(&sha256);
                (named.path, named.genuine) = (Some(path.clone()), Some(genuine));
                Some(genuine)
            }
            None => {
                if view.early_pictures.len() >= EARLY_PICTURES_MAX {
                    view.early_pictures.pop_first();
                }
                view.early_pictures.insert((alarm_id.clone(), n), (path.clone(), sha256));
                None
            }
        };
        DeskEvent::Picture { gateway, alarm_id, n, path, genuine }
    }

    fn status(&mut self, gateway: Slug, body: &[u8]) -> Result<Option<DeskEvent>, String> {
        let view = self.gateways.entry(gateway.clone()).or_default();
        if body.is_empty() {
            view.status = None;
            return Ok(None);
        }
        let status: GatewayStatus = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        view.status = Some(status.clone());
        Ok(Some(DeskEvent::Gateway { gateway, status }))
    }

    fn statement(&mut self, gateway: Slug, body: &[u8]) -> Result<Option<DeskEvent>, String> {
        let statement: Statement = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let view = self.gateways.entry(gateway).or_default();
        view.sequences.state(statement.sequence);
        view.statement = Some(statement);
        Ok(None)
    }

    fn snapshot(&mut self, gateway: Slug, id: &str, body: &[u8], now: Timestamp) -> Result<Option<DeskEvent>, String> {
        let view = self.gateways.entry(gateway).or_default();
        if body.is_empty() {
            if let Some(alarm) = view.alarms.get_mut(id).filter(|alarm| alarm.over_at.is_none()) {
                alarm.alarm.condition = Condition::Normal;
                view.over(id, now);
            }
            return Ok(None);
        }
        let snapshot: AlarmSnapshot = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        if snapshot.alarm.alarm_id != id {
            return Err(format!("the snapshot is of alarm {}", snapshot.alarm.alarm_id));
        }
        view.alarm_state(snapshot.alarm, snapshot.sequence, now);
        Ok(None)
    }

    fn device(&mut self, gateway: Slug, device: &str, body: &[u8]) -> Result<Option<DeskEvent>, String> {
        let view = self.gateways.entry(gateway).or_default();
        if body.is_empty() {
            view.devices.remove(device);
            return Ok(None);
        }
        let state: DeviceState = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        view.devices.insert(device.to_owned(), state);
        Ok(None)
    }

    fn fault(&mut self, place: &str, reason: String) -> Taken {
        self.malformed += 1;
        self.last_malformed = Some(format!("{place}: {reason}"));
        Taken { events: vec![DeskEvent::Fault { place: place.to_owned(), reason }], ..Taken::default() }
    }

    /// Counts ids in receipts that went out.
    pub fn receipts_sent(&mut self, ids: usize) {
        self.receipts += ids as u64;
    }

    /// The gateways heard of.
    #[must_use]
    pub fn gateways(&self) -> &BTreeMap<Slug, GatewayView> {
        &self.gateways
    }

    /// Alarms that are not over, most urgent lane and oldest first.
    #[must_use]
    pub fn open_alarms(&self) -> Vec<(&Slug, &AlarmView)> {
        let mut open: Vec<_> = self
            .gateways
            .iter()
            .flat_map(|(name, view)| view.alarms.values().map(move |alarm| (name, alarm)))
            .filter(|(_, alarm)| alarm.over_at.is_none() && alarm.alarm.condition.is_open())
            .collect();
        open.sort_by_key(|(_, alarm)| (alarm.alarm.kind.lane(), alarm.alarm.since));
        open
    }

    /// Every alarm of `kind` known, open or over.
    #[must_use]
    pub fn alarms_of(&self, kind: AlarmKind) -> Vec<(&Slug, &AlarmView)> {
        let all = self.gateways.iter().flat_map(|(name, view)| view.alarms.values().map(move |alarm| (name, alarm)));
        all.filter(|(_, alarm)| alarm.alarm.kind == kind).collect()
    }

    /// The proof for one gateway.
    #[must_use]
    pub fn proof(&self, gateway: &Slug) -> Option<Proof> {
        self.gateways.get(gateway).map(|view| view.sequences.proof())
    }

    /// Messages that were not of this contract, and the last of them.
    #[must_use]
    pub fn malformed(&self) -> (u64, Option<&str>) {
        (self.malformed, self.last_malformed.as_deref())
    }

    /// Ids in receipts that went out.
    #[must_use]
    pub fn receipts(&self) -> u64 {
        self.receipts
    }
}

impl GatewayView {
    fn alarm_event(&mut self, event: &Event, alarm: AlarmData, now: Timestamp) {
        let id = alarm.alarm_id.clone();
        self.alarm_state(alarm, event.sequence, now);
        let Some(view) = self.alarms.get_mut(&id) else { return };
        if event.event_type == EventType::AlarmRaised || view.received_at.is_none() {
            view.received_at = Some(now);
            view.latency_ms = Some(now.as_millisecond().saturating_sub(event.time.as_millisecond()));
            view.historical = event.historical.unwrap_or(false);
        }
    }

    /// The newest revision wins, wherever it came from.
    fn alarm_state(&mut self, alarm: AlarmData, sequence: u64, now: Timestamp) {
        let id = alarm.alarm_id.clone();
        let is_over = !alarm.condition.is_open();
        let view = self.alarms.entry(id.clone()).or_insert_with(|| AlarmView {
            alarm: alarm.clone(),
            sequence,
            received_at: None,
            latency_ms: None,
            historical: false,
            pictures: BTreeMap::new(),
            over_at: None,
        });
        for reference in &alarm.evidence {
            let picture = PictureView { reference: reference.clone(), path: None, genuine: None };
            let picture = view.pictures.entry(reference.n).or_insert(picture);
            if let Some((path, sha256)) = self.early_pictures.remove(&(id.clone(), reference.n)) {
                picture.genuine = Some(reference.sha256.eq_ignore_ascii_case(&sha256));
                picture.path = Some(path);
            }
        }
        if alarm.rev < view.alarm.rev {
            return;
        }
        (view.alarm, view.sequence) = (alarm, sequence);
        if is_over {
            self.over(&id, now);
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
}

#[cfg(test)]
mod tests;
