//! What the desk knows: gateways, alarms, devices, pictures, and what it owes the gateways.
//!
//! Owns the reading of everything that arrives, by the contract and nothing else; no clock, disk or network, so a test feeds it messages
//! and asks. It refuses to guess: what it cannot read is counted, kept as a sample, and shown. It never panics on input.

use std::collections::BTreeMap;

use gengfu_contract::chain;
use gengfu_contract::command::Reply;
use gengfu_contract::event::Event;
use gengfu_contract::evidence::EvidenceJoiner;
use gengfu_contract::query::{QueryData, QueryWhat};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::{AlarmSnapshot, DeviceState, GatewayStatus, Statement};
use gengfu_contract::topic::{self, Up};
use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;
use serde::Deserialize;

use super::findings::{Finding, Stated};
use super::gateway::OrderView;
pub use super::gateway::{AlarmView, GatewayView, PictureView};
use super::journal::{Record, What};
use super::journals::Proof;
use super::presence::There;
use super::sequence::Arrival;
pub use super::told::DeskEvent;

/// Gateways kept. A site has a few hundred; more means that somebody invents names.
const GATEWAYS_MAX: usize = 20_000;
/// Memory for pictures that come in parts and are not whole yet.
const PARTS_BYTES_MAX: usize = 64 << 20;
/// Commands whose answer is awaited.
const AWAITED_MAX: usize = 1024;

/// What is to be done about a message.
#[derive(Debug, Default)]
pub struct Taken {
    /// To show.
    pub events: Vec<DeskEvent>,
    /// The desk owes these receipts, once it has stored what came.
    pub receipts: Vec<ReceiptDue>,
    /// Append to the journal before the receipts go.
    pub journal: Vec<Record>,
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
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Picture {
    /// Name of its file: `<gateway>-<alarm>-<n>.jpg`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.jpg", self.gateway, self.alarm_id, self.n)
    }
}

/// A command that went out, for telling its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Its id.
    pub cmd_id: String,
    /// To whom.
    pub gateway: Slug,
    /// Its verb.
    pub verb: String,
    /// What it is about, for people.
    pub about: String,
    /// The alarm it is about, if any.
    pub alarm_id: Option<String>,
    /// Who ordered it.
    pub operator: String,
}

/// The desk's knowledge of one site.
#[derive(Debug)]
pub struct DeskModel {
    site: Slug,
    gateways: BTreeMap<Slug, GatewayView>,
    is_shared: bool,
    connected_at: Option<Timestamp>,
    awaited: BTreeMap<String, Ordered>,
    joiner: EvidenceJoiner,
    malformed: u64,
    last_malformed: Option<String>,
    receipts: u64,
}

impl DeskModel {
    /// A desk that knows nothing yet.
    #[must_use]
    pub fn new(site: Slug) -> Self {
        Self {
            site,
            gateways: BTreeMap::new(),
            is_shared: false,
            connected_at: None,
            awaited: BTreeMap::new(),
            joiner: EvidenceJoiner::new(PARTS_BYTES_MAX),
            malformed: 0,
            last_malformed: None,
            receipts: 0,
        }
    }

    /// Says that this desk shares its subscription with others, so that a gap is no loss.
    pub fn share(&mut self) {
        self.is_shared = true;
    }

    /// Takes a message as it arrived. A message that is not of this contract is counted and told.
    pub fn take(&mut self, topic: &str, body: &[u8], now: Timestamp) -> Taken {
        self.take_message(topic, body, false, now)
    }

    /// Takes a message; `is_retained` when it is what the broker kept, which is no sign of life.
    pub fn take_message(&mut self, topic: &str, body: &[u8], is_retained: bool, now: Timestamp) -> Taken {
        let Some((gateway, up)) = topic::parse_up(&self.site, topic) else { return Taken::default() };
        if self.gateways.len() >= GATEWAYS_MAX && !self.gateways.contains_key(&gateway) {
            return self.fault(topic, format!("more than {GATEWAYS_MAX} gateways; this one is not served"));
        }
        if !is_retained && !matches!(up, Up::Status) {
            self.gateways.entry(gateway.clone()).or_default().heard_at = Some(now);
        }
        let told = match up {
            Up::Event => return self.event(gateway, topic, body, now),
            Up::Evidence(alarm_id, n) => return self.picture(gateway, topic, alarm_id, n, body),
            Up::EvidencePart { id, n, part, parts } => {
                return match self.joiner.take(&format!("{gateway}/{id}"), n, part, parts, body) {
                    Ok(Some(whole)) => self.picture(gateway, topic, id, n, &whole),
                    Ok(None) => Taken::default(),
                    Err(fault) => self.fault(topic, fault.to_string()),
                };
            }
            Up::Statement => return self.statement(gateway, topic, body, now),
            Up::Status => self.status(gateway, body, is_retained, now),
            Up::Alarm(id) => self.snapshot(gateway, &id, body, now),
            Up::Device(device) => self.device(gateway, &device, body),
            Up::Reply(_) => return self.reply(gateway, topic, body, now),
        };
        match told {
            Ok(event) => Taken { events: event.into_iter().collect(), ..Taken::default() },
            Err(reason) => self.fault(topic, reason),
        }
    }

    fn event(&mut self, gateway: Slug, topic: &str, body: &[u8], now: Timestamp) -> Taken {
        let event = match Event::parse(body) {
            Ok(event) => event,
            Err(fault) => return self.fault(topic, fault.to_string()),
        };
        self.take_event(gateway, topic, event, now)
    }

    fn take_event(&mut self, gateway: Slug, topic: &str, event: Event, now: Timestamp) -> Taken {
        // An alarm whose data this version cannot read is an event all the same: it is kept and received for.
        let (alarm, unread) = match event.alarm() {
            Ok(alarm) => (alarm, None),
            Err(fault) => (None, Some(fault.to_string())),
        };
        let is_ours = event.source.ends_with(&format!("/{}/{gateway}", self.site));
        if !is_ours {
            return self.fault(topic, format!("an event of {} on another gateway's topic", event.source));
        }
        let view = self.gateways.entry(gateway.clone()).or_default();
        let arrival = view.sequences.take(&event, now);
        view.is_changed |= arrival != Arrival::Duplicate;
        let latency_ms = now.as_millisecond().saturating_sub(event.time.as_millisecond());
        let (id, sequence, what) = (event.id.clone(), event.sequence, event.event_type);
        let mut events = Vec::new();
        match alarm {
            Some(alarm) => {
                if matches!(arrival, Arrival::New | Arrival::Again) {
                    view.alarm_event(&event, alarm.clone(), now);
                }
                let historical = event.historical.unwrap_or(false);
                let (alarm, gateway) = (Box::new(alarm), gateway.clone());
                events.push(DeskEvent::Alarm { gateway, id, sequence, what, alarm, latency_ms, historical, arrival });
            }
            None => {
                if let Ok(Some(command)) = event.command() {
                    command.evidence.iter().for_each(|reference| view.snapshot_named(&command.cmd_id, reference));
                }
                let detail = event.data.get("what").and_then(|what| what.as_str()).map(str::to_owned);
                let (subject, gateway) = (event.subject.clone(), gateway.clone());
                events.push(DeskEvent::Observed { gateway, id, sequence, what, subject, detail, latency_ms, arrival });
            }
        }
        if let Some(reason) = unread {
            events.extend(
                self.fault(topic, format!("event {} is kept, its data is not understood: {reason}", event.id)).events,
            );
        }
        // A copy that contradicts an earlier one is not what we have: no receipt, so that the gateway keeps it.
        let receipt = (arrival != Arrival::Conflict).then(|| ReceiptDue {
            gateway: gateway.clone(),
            id: event.id.clone(),
            at_once: event.lane.is_life_safety(),
        });
        let what = match arrival {
            Arrival::New => What::Event(event),
            Arrival::Again => What::Again(event),
            Arrival::Conflict => What::Altered(event),
            Arrival::Duplicate => What::Duplicate { sequence: event.sequence, id: event.id },
        };
        let journal = vec![Record { gateway, received_at: now, what }];
        Taken { events, receipts: receipt.into_iter().collect(), journal, picture: None }
    }

    fn picture(&mut self, gateway: Slug, topic: &str, alarm_id: String, n: u32, body: &[u8]) -> Taken {
        if alarm_id.len() > 64 || !alarm_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            let reason = "the id of an alarm or a command has only letters, digits, hyphens and underscores";
            return self.fault(topic, reason.to_owned());
        }
        let sha256 = hex::encode(chain::hash(body));
        let view = self.gateways.entry(gateway.clone()).or_default();
        let reference = view.named(&alarm_id, n).map(|picture| &picture.reference);
        if reference.is_some_and(|reference| !reference.sha256.eq_ignore_ascii_case(&sha256)) {
            return self.fault(topic, format!("the picture's hash is {sha256}, the event names another"));
        }
        let receipt = ReceiptDue { gateway: gateway.clone(), id: format!("{alarm_id}/{n}"), at_once: false };
        let picture = Some(Picture { gateway, alarm_id, n, sha256, bytes: body.to_vec() });
        Taken { receipts: vec![receipt], picture, ..Taken::default() }
    }

    /// The picture was written to `path`; what to show.
    pub fn picture_written(&mut self, picture: &Picture, path: String) -> DeskEvent {
        let Picture { gateway, alarm_id, n, sha256, .. } = picture.clone();
        let view = self.gateways.entry(gateway.clone()).or_default();
        let genuine = view.picture_written(&alarm_id, n, &path, &sha256);
        DeskEvent::Picture { gateway, alarm_id, n, path, genuine }
    }

    fn status(
        &mut self,
        gateway: Slug,
        body: &[u8],
        is_retained: bool,
        now: Timestamp,
    ) -> Result<Option<DeskEvent>, String> {
        let view = self.gateways.entry(gateway.clone()).or_default();
        if body.is_empty() {
            view.status = None;
            return Ok(None);
        }
        let status: GatewayStatus = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        // The broker repeats the retained status at every connection: what it tells began earlier.
        if view.status.as_ref() != Some(&status) || view.said_at.is_none() || !is_retained {
            view.said_at = Some(now);
        }
        if !is_retained && status.state != gengfu_contract::state::Presence::Offline {
            view.heard_at = Some(now);
        }
        view.status = Some(status.clone());
        Ok(Some(DeskEvent::Gateway { gateway, status }))
    }

    fn statement(&mut self, gateway: Slug, topic: &str, body: &[u8], now: Timestamp) -> Taken {
        let statement: Statement = match serde_json::from_slice(body) {
            Ok(statement) => statement,
            Err(fault) => return self.fault(topic, fault.to_string()),
        };
        let view = self.gateways.entry(gateway.clone()).or_default();
        // The same statement again proves nothing more, unless it is about what is missing.
        let says =
            |s: &Statement| (s.sequence, s.head.clone(), s.pending.clone(), s.dropped.clone(), s.abandoned.clone());
        let is_news = view.stated.as_ref().is_none_or(|last| says(&last.statement) != says(&statement));
        view.state(&statement, now);
        let record = Record { gateway: gateway.clone(), received_at: now, what: What::Statement(statement.clone()) };
        let journal = (is_news || !view.told.1.is_empty()).then_some(record).into_iter().collect();
        Taken { events: vec![DeskEvent::Statement { gateway, statement }], journal, ..Taken::default() }
    }

    fn snapshot(&mut self, gateway: Slug, id: &str, body: &[u8], now: Timestamp) -> Result<Option<DeskEvent>, String> {
        let view = self.gateways.entry(gateway).or_default();
        if body.is_empty() {
            view.snapshot_emptied(id, now);
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
        view.device(device, serde_json::from_slice::<DeviceState>(body).map_err(|e| e.to_string())?);
        Ok(None)
    }

    fn reply(&mut self, gateway: Slug, topic: &str, body: &[u8], now: Timestamp) -> Taken {
        let reply: Reply = match serde_json::from_slice(body) {
            Ok(reply) => reply,
            Err(fault) => return self.fault(topic, fault.to_string()),
        };
        let ordered = self.awaited.get(&reply.cmd_id).filter(|ordered| ordered.gateway == gateway).cloned();
        let (verb, about) = ordered.as_ref().map(|it| (it.verb.clone(), it.about.clone())).unzip();
        let alarm =
            ordered.and_then(|ordered| self.gateways.get_mut(&gateway)?.alarms.get_mut(ordered.alarm_id.as_ref()?));
        let order = alarm.and_then(|alarm| alarm.orders.iter_mut().find(|order| order.cmd_id == reply.cmd_id));
        if let Some(order) = order {
            order.answer = Some((reply.outcome, reply.reason.clone()));
        }
        let mut taken = self.fetched(&gateway, &reply, now);
        taken.events.insert(0, DeskEvent::Reply { gateway, reply, verb, about });
        taken
    }

    /// An answer to a query of the journal heals gaps: its events count as if they had come by themselves.
    fn fetched(&mut self, gateway: &Slug, reply: &Reply, now: Timestamp) -> Taken {
        let mut all = Taken::default();
        let data = reply.data.as_ref().and_then(|data| QueryData::deserialize(data).ok());
        let Some(data) = data.filter(|data| data.what == QueryWhat::Journal) else { return all };
        let topic = topic::Topics::new(&self.site, gateway).event();
        for item in data.items {
            let body = item.to_string();
            let taken = self.event(gateway.clone(), &topic, body.as_bytes(), now);
            all.events.extend(taken.events);
            all.receipts.extend(taken.receipts);
            all.journal.extend(taken.journal);
        }
        all
    }

    fn fault(&mut self, place: &str, reason: String) -> Taken {
        self.malformed += 1;
        self.last_malformed = Some(format!("{place}: {reason}"));
        Taken { events: vec![DeskEvent::Fault { place: place.to_owned(), reason }], ..Taken::default() }
    }

    /// A command went out; its answer will be told with it.
    pub fn ordered(&mut self, ordered: Ordered, now: Timestamp) {
        let view = OrderView {
            cmd_id: ordered.cmd_id.clone(),
            what: ordered.verb.clone(),
            operator: ordered.operator.clone(),
            at: now,
            answer: None,
        };
        if let (Some(alarm_id), Some(gateway)) = (&ordered.alarm_id, self.gateways.get_mut(&ordered.gateway)) {
            let what = if ordered.verb == "case" { format!("case {}", ordered.about) } else { ordered.verb.clone() };
            gateway.ordered(alarm_id, OrderView { what, ..view });
        }
        if self.awaited.len() >= AWAITED_MAX {
            // Ids of one desk grow: the first is the oldest.
            self.awaited.pop_first();
        }
        self.awaited.insert(ordered.cmd_id.clone(), ordered);
    }

    /// The desk's own connection came up (`Some`) or was lost.
    pub fn connection(&mut self, connected_at: Option<Timestamp>) {
        self.connected_at = connected_at;
    }

    /// What time alone changes: gateways that fell silent, statements that did not come, and judgements that changed with what came.
    /// Called about every second.
    pub fn tick(&mut self, now: Timestamp) -> Vec<DeskEvent> {
        let (mut told, is_shared, connected_at) = (Vec::new(), self.is_shared, self.connected_at);
        for (name, view) in &mut self.gateways {
            let (there, since) = view.presence(connected_at, now);
            if view.told.0 != Some(there) {
                view.told.0 = Some(there);
                told.push(DeskEvent::Presence { gateway: name.clone(), there, since });
            }
            // A missing statement is the one finding that time alone makes.
            let was_overdue = view.told.1.iter().any(|finding| matches!(finding, Finding::NoStatement { .. }));
            let is_overdue = view.statement_overdue_since(connected_at, now).is_some();
            if !std::mem::take(&mut view.is_changed) && is_overdue == was_overdue {
                continue;
            }
            let findings = view.findings(is_shared, connected_at, now);
            if findings != view.told.1 {
                view.told.1.clone_from(&findings);
                let proof = view.sequences.proof();
                told.push(DeskEvent::Proof {
                    gateway: name.clone(),
                    is_whole: !findings.iter().any(Finding::is_fault),
                    received: proof.received,
                    last: proof.last,
                    findings,
                });
            }
        }
        told
    }

    /// Takes a line of the desk's own journal, at the start.
    pub fn restore(&mut self, record: Record) {
        let Record { gateway, received_at, what } = record;
        match what {
            What::Checkpoint(checkpoint) => self.gateways = *checkpoint,
            What::Statement(statement) => self.gateways.entry(gateway).or_default().state(&statement, received_at),
            What::Event(event) | What::Again(event) | What::Altered(event) => {
                let topic = topic::Topics::new(&self.site, &gateway).event();
                let body = serde_json::to_vec(&event).unwrap_or_default();
                self.take_message(&topic, &body, true, received_at);
                // Whether its receipt went out is not in the journal; if not, the gateway sends it again.
                self.gateways.entry(gateway).or_default().forget_owed(&event.id);
            }
            What::Picture { alarm_id, n, sha256, path, .. } => {
                self.gateways.entry(gateway).or_default().picture_written(&alarm_id, n, &path, &sha256);
            }
            What::Duplicate { .. } | What::Unknown => {}
        }
    }

    /// Everything a new segment of the journal must begin with, so that the ones before it need not be read again.
    #[must_use]
    pub fn checkpoint(&self) -> BTreeMap<Slug, GatewayView> {
        self.gateways.iter().map(|(name, view)| (name.clone(), view.checkpoint())).collect()
    }

    /// A receipt for these ids went out.
    pub fn receipted(&mut self, gateway: &Slug, ids: &[String], now: Timestamp) {
        self.receipts += ids.len() as u64;
        if let Some(view) = self.gateways.get_mut(gateway) {
            view.receipted(ids, now);
        }
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

    /// Alarms that are over, the last first.
    #[must_use]
    pub fn over_alarms(&self) -> Vec<(&Slug, &AlarmView)> {
        let all = self.gateways.iter().flat_map(|(name, view)| view.alarms.values().map(move |alarm| (name, alarm)));
        let mut over: Vec<_> = all.filter(|(_, alarm)| alarm.over_at.is_some()).collect();
        over.sort_by_key(|(_, alarm)| std::cmp::Reverse(alarm.over_at));
        over
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

    /// What there is to say about one gateway's completeness at `now`.
    #[must_use]
    pub fn findings(&self, gateway: &Slug, now: Timestamp) -> Vec<Finding> {
        self.gateways.get(gateway).map_or_else(Vec::new, |view| view.findings(self.is_shared, self.connected_at, now))
    }

    /// Is a gateway there, and since when.
    #[must_use]
    pub fn presence(&self, gateway: &Slug, now: Timestamp) -> (There, Option<Timestamp>) {
        self.gateways.get(gateway).map_or((There::Unknown, None), |view| view.presence(self.connected_at, now))
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
    fn state(&mut self, statement: &Statement, now: Timestamp) {
        self.sequences.state(statement, now);
        let last = self.stated.as_ref().map(|last| &last.statement);
        let is_older = last.is_some_and(|last| statement.at < last.at && statement.sequence <= last.sequence);
        if !is_older {
            self.stated = Some(Stated { statement: statement.clone(), received_at: now });
        }
        self.is_changed = true;
    }
}

#[cfg(test)]
mod tests;
