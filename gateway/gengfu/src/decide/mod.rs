//! Where everything meets: observations are judged, journaled, synced, and only then acknowledged.
//!
//! Owns the engine, the writing side of the outbox and the order *judge → append → sync → acknowledge*. One batch of inputs is one sync
//! (group commit). It refuses to wait for anything but the disk: cameras, brokers and nodes are on the other side of bounded channels.

mod calls;
mod commands;
pub mod drill;
pub mod events;
mod housekeeping;
mod local;
mod memory;
mod on_site;
mod query;
mod run;
mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::Want;
use gengfu_alarm::engine::Engine;
use gengfu_alarm::observation::{Observation, What};
use gengfu_alarm::output::{DiscardStills, NeedStill, Output, Transition};
use gengfu_alarm::persist::StateChange;
use gengfu_alarm::rules::Rules;
use gengfu_contract::CONTRACT_VERSION;
use gengfu_contract::command::{Outcome, Reply};
use gengfu_contract::event::{AlarmData, ClockQuality, CommandData, EventType, EvidenceRef, GatewayData};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::{AlarmSnapshot, DeviceState};
use gengfu_contract::topic::Topics;
use gengfu_contract::words::{Lane, Text};
use gengfu_outbox::{Batch, Health, Outbox, OutboxError};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, oneshot};

use crate::evidence::still_path;
use crate::link::LinkBatch;
use crate::link::cursor::Cursor;
use crate::uplink::{Board, CommandRequest, EvidenceItem};
use calls::Calls;
pub use commands::{Action, Errand, Order, Wiring};
use drill::Drill;
pub use drill::{DrillPlan, DrillRecord, DrillResult, DrillStatus};
use events::Author;
pub use housekeeping::keep_in_order;
pub use local::{LocalOrder, LocalRequest};
use memory::Memory;
pub use memory::owes_last_word;
use on_site::OnSite;
pub use run::{Channels, DecideStatus, Standing, run};
use upkeep::Upkeep;

/// State keys of the engine in the outbox.
const ENGINE_PREFIX: &[u8] = b"engine/";
/// State key of the number of starts.
const BOOT_KEY: &[u8] = b"gateway/boot";

/// What wakes the decider.
#[derive(Debug)]
pub enum Input {
    /// A node's observations, to be acknowledged after the sync.
    Link(LinkBatch),
    /// What a camera or the gateway itself saw.
    Seen(Observation),
    /// An order of the centre.
    Command(CommandRequest),
    /// The last word on a command that was accepted: from a node, a camera, whoever carried it out.
    Answered(Reply),
    /// An order of somebody who stands at the box.
    Local(LocalRequest),
}

/// Who the gateway is, for the journal.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Site.
    pub site: Slug,
    /// Gateway.
    pub gateway: Slug,
    /// Folder of the pictures.
    pub evidence_dir: PathBuf,
}

/// How often a device's retained state is renewed while nothing of it moves but when it was last heard. (Any other change is told at once, and
/// that a device is lost is an event.) In a district these renewals are most of all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceRefresh(
    /// The same for all devices; absent: by supervision class.
    pub Option<SignedDuration>,
);

impl DeviceRefresh {
    /// For a device of this supervision class ("S1", "S2", "S3"; absent: nobody watches its silence). By class it is as often as a centre can learn anything from
    /// it: S1 may be silent for 300 s and is told every 5 min, S2 for 2 h and every 30 min, S3 for 25 h and every 6 h.
    #[must_use]
    pub fn of(self, class: Option<&str>) -> SignedDuration {
        self.0.unwrap_or(match class {
            Some("S1") => SignedDuration::from_mins(5),
            Some("S3") => SignedDuration::from_hours(6),
            _ => SignedDuration::from_mins(30),
        })
    }
}

/// What is left to do after a batch is durable.
#[derive(Debug, Default)]
pub struct Effects {
    /// Pictures that rules asked for.
    pub stills: Vec<NeedStill>,
    /// Pictures that are nobody's evidence.
    pub discards: Vec<DiscardStills>,
    /// Answers to commands.
    pub replies: Vec<Reply>,
    /// What nodes shall do, by the command that asked for it.
    pub orders: Vec<(String, Order)>,
    /// What others than nodes shall do, by the command that asked for it.
    pub errands: Vec<(String, Errand)>,
    /// What shall sound and shine on site; all else shall not.
    pub wanted: Vec<Want>,
}

/// Judges and journals. Synchronous: a simulator drives it in one thread, the daemon from a thread of its own.
pub struct Decider {
    identity: Identity,
    author: Author,
    topics: Topics,
    rules: Rules,
    wiring: Wiring,
    on_site: OnSite,
    upkeep: Upkeep,
    memory: Memory,
    calls: Calls,
    drill: Drill,
    engine: Engine,
    outbox: Outbox,
    board: Board,
    boot: u64,
    clock: ClockQuality,
    devices_shown: BTreeMap<Slug, DeviceState>,
    /// Sequence of the last event of each open alarm, since this start.
    sequences: BTreeMap<String, u64>,
    recover_due: Option<Timestamp>,
    /// Who sends what is stored.
    sender: Option<Arc<Notify>>,
}

/// Why the decider cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error("the outbox cannot be used: {0}")]
    Outbox(#[from] OutboxError),
}

/// What somebody at the box is told: done, or why not.
type LocalAnswer = Result<(), Text>;

/// Inputs of one batch that were judged, and what each still needs.
#[derive(Default)]
struct Judged {
    dones: Vec<oneshot::Sender<Result<(), String>>>,
    stills: Vec<NeedStill>,
    discards: Vec<DiscardStills>,
    replies: Vec<Reply>,
    /// Answers that hold whatever becomes of this batch.
    standing: Vec<Reply>,
    orders: Vec<(String, Order)>,
    errands: Vec<(String, Errand)>,
    locals: Vec<(oneshot::Sender<LocalAnswer>, LocalAnswer)>,
    /// Life-safety events of this batch.
    calls: Vec<String>,
    snapshots: Vec<AlarmSnapshot>,
}

impl Decider {
    /// Takes up where the last start left off: engine state from the outbox, a `gateway.started` event, open alarms on the board.
    ///
    /// # Errors
    /// [`StartError`] when the store cannot be read or written.
    pub fn start(
        identity: Identity,
        rules: Rules,
        wiring: Wiring,
        outbox: Outbox,
        board: Board,
        now: Timestamp,
        clock: ClockQuality,
    ) -> Result<Self, StartError> {
        let engine = restore(&rules, &outbox)?;
        let boot = read_u64(outbox.get(BOOT_KEY)?) + 1;
        let topics = Topics::new(&identity.site, &identity.gateway);
        let author = Author::new(&identity.site, &identity.gateway);
        let upkeep = Upkeep::new(identity.gateway.clone(), &wiring.replace_by);
        let drill = Drill::restore(wiring.drill.clone(), identity.gateway.clone(), &outbox, now)?;
        let mut decider = Self {
            identity,
            author,
            topics,
            rules,
            on_site: OnSite::restore(wiring.outputs.clone(), wiring.policy, &outbox)?,
            upkeep,
            memory: Memory::restore(&outbox)?,
            calls: Calls::restore(&outbox)?,
            drill,
            wiring,
            engine,
            outbox,
            board,
            boot,
            clock,
            devices_shown: BTreeMap::new(),
            sequences: BTreeMap::new(),
            recover_due: None,
            sender: None,
        };
        decider.journal_start(now)?;
        for alarm in decider.engine.open_alarms() {
            let snapshot = AlarmSnapshot { sequence: decider.outbox.head().sequence, alarm: alarm.clone() };
            decider.board.set(&decider.topics.alarm(&alarm.alarm_id), to_json(&snapshot));
        }
        // Both before it is called complete: what else the broker holds is of an earlier life.
        decider.show_devices();
        decider.board.complete();
        Ok(decider)
    }

    /// Number of this start.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// When [`Self::process`] should be called even if nothing comes in.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let people = [self.calls.next_due(), self.drill.next_due()];
        // Housekeeping and receipts may have found that the disk is broken.
        let is_broken = self.recover_due.is_none() && matches!(self.outbox.health(), Health::Poisoned { .. });
        let recover_due = if is_broken { Some(Timestamp::MIN) } else { self.recover_due };
        let own = [self.engine.next_due(), self.on_site.next_due(), self.upkeep.next_due(), recover_due];
        own.into_iter().chain(people).flatten().min()
    }

    /// The wall clock was set by `by`; running timers move with it.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        tracing::warn!(?by, "the clock was set; running timers move with it");
        self.engine.clock_stepped(by);
        self.on_site.clock_stepped(by);
        self.upkeep.clock_stepped(by);
        self.calls.clock_stepped();
        self.drill.clock_stepped(by);
        // A disk that failed is not left alone for as long as the clock was set back.
        self.recover_due = self.recover_due.map(|_| Timestamp::MIN);
    }

    /// Whom to wake when something was stored. It is woken before all else is done that follows from a batch: an alarm that is
    /// durable goes out first, then nodes are told and states shown.
    pub fn wakes(&mut self, sender: Arc<Notify>) {
        self.sender = Some(sender);
    }

    /// Whether the outbox has housekeeping to be done; see [`keep_in_order`].
    #[must_use]
    pub fn is_housekeeping_due(&self) -> bool {
        self.outbox.is_upkeep_due()
    }

    /// The centre was seen to be away, or not: while it is, nobody on site waits for a receipt that cannot come.
    pub fn centre_is_away(&mut self, away: bool) {
        self.on_site.centre_is_away(away);
    }

    /// Somebody on site silences the sounders of a dwelling, or all, for the alarms there are now.
    pub fn silence(&mut self, now: Timestamp, dwelling: Option<&str>, lasts: Duration) {
        self.on_site.silence(now, dwelling, lasts);
    }

    /// Alarms that are open now.
    #[must_use]
    pub fn open_alarms(&self) -> Vec<AlarmData> {
        self.engine.open_alarms().cloned().collect()
    }

    /// Devices and what is known of them.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceState> {
        self.engine.devices().into_iter().collect()
    }

    /// An accepted order could not be passed on: a repetition of its command gives it again.
    pub fn not_passed_on(&mut self, cmd_id: &str) {
        self.memory.not_in_hand(cmd_id);
    }

    /// What people decided, and how tests of the path went.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        let shelved = self.engine.shelves().map(|(shelf, terms)| (shelf.clone(), terms.clone()));
        let services = self.engine.services().map(|(device, service, terms)| (device.clone(), service, terms.clone()));
        Standing {
            shelved: shelved.collect(),
            services: services.collect(),
            rejected: self.engine.rejected().cloned().collect(),
            drills: self.drill.status(now),
        }
    }

    /// Judges a batch, makes it durable with one sync, then acknowledges. When the disk refuses, nothing is acknowledged: nodes
    /// keep their events and send them again, the engine returns to what the disk has, and the outbox is tried again each second.
    pub fn process(&mut self, now: Timestamp, clock: ClockQuality, inputs: Vec<Input>) -> Effects {
        self.clock = clock;
        if let Health::Poisoned { reason } = self.outbox.health()
            && !self.try_recover(now)
        {
            let why = format!("the gateway's disk does not take anything: {reason}");
            for input in &inputs {
                // Whoever carried it out is done with it: a repetition is carried out anew.
                if let Input::Answered(reply) = input {
                    self.memory.not_in_hand(&reply.cmd_id);
                }
            }
            // What sounds goes on sounding: nothing was confirmed.
            return Effects { wanted: self.on_site.wanted().to_vec(), ..refuse(inputs, &self.memory, &why, now) };
        }
        self.on_site.look(&self.outbox);
        let outbox = self.outbox.clone();
        let mut batch = outbox.batch();
        let mut judged = Judged::default();
        let mut fault = None;
        for input in inputs {
            if let Err(error) = self.judge(now, input, &mut batch, &mut judged) {
                fault.get_or_insert(error);
            }
        }
        self.calls.look(now, &mut self.engine, &self.outbox);
        let outputs = self.engine.tick(now);
        if let Err(error) = self.append(now, &mut batch, outputs, &mut judged) {
            fault.get_or_insert(error);
        }
        let outputs = self.upkeep.look(now, clock, &mut self.engine);
        if let Err(error) = self.append(now, &mut batch, outputs, &mut judged) {
            fault.get_or_insert(error);
        }
        let outputs = self.drill.look(now, clock, &mut self.engine, &self.outbox);
        if let Err(error) = self.append(now, &mut batch, outputs, &mut judged) {
            fault.get_or_insert(error);
        }
        let outputs = self.on_site.update(now, &mut self.engine, &self.outbox, &judged.calls);
        if let Err(error) = self.append(now, &mut batch, outputs, &mut judged) {
            fault.get_or_insert(error);
        }
        self.on_site.put(&mut batch);
        self.calls.put(&mut batch);
        self.drill.put(&mut batch);
        for StateChange { key, value } in self.engine.take_changes() {
            let key = [ENGINE_PREFIX, key.as_slice()].concat();
            match value {
                Some(value) => batch.put(&key, &value),
                None => batch.delete(&key),
            }
        }
        let committed = match fault {
            Some(fault) => {
                drop(batch);
                Err(fault)
            }
            None => batch.commit_at_once(),
        };
        match committed {
            Ok(committed) => {
                for dropped in &committed.dropped {
                    tracing::warn!(id = %dropped.id, lane = %dropped.key.lane(), "dropped undelivered: its lane is full");
                    metrics::counter!("gengfu_outbox_dropped_total", "lane" => dropped.key.lane().as_str())
                        .increment(1);
                }
                self.acknowledge(judged)
            }
            Err(error) => self.fall_back(now, judged, &error),
        }
    }

    fn judge(
        &mut self,
        now: Timestamp,
        input: Input,
        batch: &mut Batch,
        judged: &mut Judged,
    ) -> Result<(), OutboxError> {
        match input {
            Input::Link(link) => {
                judged.dones.push(link.done);
                // What a failed batch left on the disk after all comes a second time: its link could not know.
                let (key, cursor) = link.cursor;
                let stored =
                    self.outbox.get(&key)?.and_then(|bytes| Cursor::from_bytes(&bytes).ok()).unwrap_or_default();
                for observation in link.observations.iter().filter_map(|seen| stored.rest_of(seen)) {
                    self.observe(now, &observation, batch, judged)?;
                }
                batch.put(&key, &stored.advanced_to(cursor));
                Ok(())
            }
            Input::Seen(observation) => self.observe(now, &observation, batch, judged),
            Input::Command(request) => self.command(now, request, batch, judged),
            Input::Answered(reply) => self.answered(now, reply, batch, judged),
            Input::Local(LocalRequest { order, answer }) => {
                let local::Judgement { result, outputs, said } = self.obey(now, &order);
                judged.locals.push((answer, result));
                if let Some((device, what, value)) = said {
                    let draft = self.author.served(now, &batch.position(), &device, what, value, self.clock);
                    self.journal(now, batch, draft)?;
                }
                self.append(now, batch, outputs, judged)
            }
        }
    }

    fn observe(
        &mut self,
        now: Timestamp,
        seen: &Observation,
        batch: &mut Batch,
        judged: &mut Judged,
    ) -> Result<(), OutboxError> {
        if let Some(draft) = self.author.observed(now, &batch.position(), seen) {
            tracing::info!(hop = "sensed", id = %draft.id, device = %seen.device, at = %seen.sensed_at, origin = ?seen.origin, "observation");
            self.journal(now, batch, draft)?;
        }
        let outputs = self.engine.observe(now, seen);
        self.append(now, batch, outputs, judged)
    }

    /// Journals an event that is no alarm's.
    fn journal(&self, now: Timestamp, batch: &mut Batch, draft: events::Draft) -> Result<(), OutboxError> {
        let (id, lane, group) = (draft.id.clone(), draft.lane, draft.group());
        batch.append_grouped(lane_of(lane), group, &id, now.as_millisecond(), |place| {
            self.author.journal(now, &place, draft)
        })?;
        Ok(())
    }

    fn append(
        &mut self,
        now: Timestamp,
        batch: &mut Batch,
        outputs: Vec<Output>,
        judged: &mut Judged,
    ) -> Result<(), OutboxError> {
        for output in outputs {
            match output {
                Output::NeedStill(need) => judged.stills.push(need),
                Output::DiscardStills(discard) => judged.discards.push(discard),
                Output::Warning(warned) => {
                    let (place, standing_ms) = (batch.position(), Some(warned.standing_ms));
                    let draft =
                        self.author.served(now, &place, &warned.camera, "parking.warned", standing_ms, warned.clock);
                    tracing::info!(hop = "decided", id = %draft.id, camera = %warned.camera, zone = %warned.zone, "warned");
                    self.journal(now, batch, draft)?;
                }
                Output::Alarm(transition) => {
                    self.attach_evidence(now, batch, &transition)?;
                    let draft = self.author.transition(now, &batch.position(), &transition);
                    let id = draft.id.clone();
                    let lane = transition.lane;
                    tracing::info!(
                        hop = "decided", id = %id, alarm = %transition.alarm.alarm_id, kind = %transition.alarm.kind,
                        condition = %transition.alarm.condition, rev = transition.alarm.rev, device = %transition.alarm.device,
                        rule = %transition.alarm.explanation.rule, "{:?}", transition.event_type
                    );
                    let group = events::group_of(&transition.alarm.alarm_id);
                    let appended = batch.append_grouped(lane_of(lane), group, &id, now.as_millisecond(), |place| {
                        self.author.journal(now, &place, draft)
                    })?;
                    self.on_site.appended(now, &transition, &id);
                    self.calls.appended(&self.engine, &transition, &id);
                    if self.drill.appended(now, &transition, &id) {
                        self.press_heads(judged);
                    }
                    if lane.is_life_safety() {
                        judged.calls.push(id);
                    }
                    judged.snapshots.push(AlarmSnapshot { sequence: appended.sequence, alarm: transition.alarm });
                }
            }
        }
        Ok(())
    }

    /// A picture is queued in the same batch as the first event that names it: there is never one without the other.
    fn attach_evidence(&self, now: Timestamp, batch: &mut Batch, transition: &Transition) -> Result<(), OutboxError> {
        if transition.event_type == EventType::AlarmOver {
            return Ok(());
        }
        let alarm = &transition.alarm;
        alarm.evidence.iter().try_for_each(|picture| self.attach_picture(now, batch, &alarm.alarm_id, picture))
    }

    /// Queues one picture of an alarm or a command, unless it is or was.
    fn attach_picture(
        &self,
        now: Timestamp,
        batch: &mut Batch,
        of: &str,
        picture: &EvidenceRef,
    ) -> Result<(), OutboxError> {
        let id = format!("{of}/{}", picture.n);
        if self.outbox.lookup(&id)?.is_some() {
            return Ok(());
        }
        let item = EvidenceItem {
            alarm_id: of.to_owned(),
            n: picture.n,
            sha256: picture.sha256.clone(),
            path: still_path(&self.identity.evidence_dir, of, picture.n),
            bytes: picture.bytes,
        };
        let body = serde_json::to_vec(&item).expect("an evidence item has text keys only, so it has a JSON form");
        match batch.attach(gengfu_outbox::Lane::Evidence, &id, now.as_millisecond(), &body) {
            // Another event of this very batch named it first.
            Ok(_) | Err(OutboxError::DuplicateId { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Everything is on the disk: tell the nodes, the board and the centre.
    fn acknowledge(&mut self, judged: Judged) -> Effects {
        if let Some(sender) = &self.sender {
            sender.notify_one();
        }
        for snapshot in &judged.snapshots {
            let alarm = &snapshot.alarm;
            tracing::info!(hop = "stored", alarm = %alarm.alarm_id, sequence = snapshot.sequence, rev = alarm.rev, "journaled");
            metrics::counter!("gengfu_alarm_transitions_total", "kind" => alarm.kind.to_string(), "condition" => alarm.condition.as_str())
                .increment(1);
            let body = if alarm.condition.is_open() {
                self.sequences.insert(alarm.alarm_id.clone(), snapshot.sequence);
                to_json(snapshot)
            } else {
                self.sequences.remove(&alarm.alarm_id);
                None
            };
            self.board.set(&self.topics.alarm(&alarm.alarm_id), body);
        }
        for (answer, result) in judged.locals {
            let _ = answer.send(result);
        }
        self.on_site.committed();
        self.calls.committed();
        self.drill.committed();
        self.show_devices();
        // Last: on two cores the sender is not to wait for the links' tasks as well.
        for done in judged.dones {
            // A link that went away meanwhile will be sent the events again; they are duplicates then.
            let _ = done.send(Ok(()));
        }
        let wanted = self.on_site.wanted().to_vec();
        let Judged { stills, discards, replies, standing, orders, errands, .. } = judged;
        Effects { stills, discards, replies: standing.into_iter().chain(replies).collect(), orders, errands, wanted }
    }

    /// The disk refused: what the engine decided never happened.
    fn fall_back(&mut self, now: Timestamp, judged: Judged, error: &OutboxError) -> Effects {
        tracing::error!(%error, "nothing of this batch is stored, so nothing is acknowledged");
        metrics::counter!("gengfu_outbox_commit_failures_total").increment(1);
        if let Err(error) = self.take_back() {
            // A command that is repeated must not be told what never became durable.
            self.memory.clear();
            tracing::error!(%error, "the engine's state cannot be read back yet");
        }
        self.recover_due = Some(now);
        for done in judged.dones {
            let _ = done.send(Err(error.to_string()));
        }
        for (answer, _) in judged.locals {
            let _ = answer.send(Err(not_stored_text(&error.to_string())));
        }
        let lost = judged.replies.into_iter().map(|reply| not_stored(reply.cmd_id, &error.to_string(), now));
        let replies = judged.standing.into_iter().chain(lost).collect();
        self.on_site.fall_back();
        Effects { replies, wanted: self.on_site.wanted().to_vec(), ..Effects::default() }
    }

    fn try_recover(&mut self, now: Timestamp) -> bool {
        if self.recover_due.is_some_and(|due| now < due) {
            return false;
        }
        let recovered = self.outbox.recover().map_err(StartError::from).and_then(|()| self.take_back());
        let recovered = recovered.and_then(|()| Ok(self.on_site.take_back(&self.outbox)?));
        match recovered {
            Ok(()) => {
                self.show_what_was_kept();
                tracing::warn!("the outbox takes events again");
                self.recover_due = None;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the outbox still does not take anything");
                self.recover_due = Some(now + SignedDuration::from_secs(1));
                false
            }
        }
    }

    /// A batch that failed may be found whole on the disk: what it did to alarms stands on the board too.
    fn show_what_was_kept(&mut self) {
        let (open, all) = (self.open_alarms(), self.topics.alarm(""));
        for topic in self.board.held(&all) {
            let alarm_id = topic.strip_prefix(&all).unwrap_or_default();
            if open.iter().all(|alarm| alarm.alarm_id != alarm_id) {
                self.sequences.remove(alarm_id);
                self.board.set(&topic, None);
            }
        }
        for alarm in open {
            let (topic, sequence) = (self.topics.alarm(&alarm.alarm_id), self.outbox.head().sequence);
            let shown = self.board.get(&topic).and_then(|body| serde_json::from_slice::<AlarmSnapshot>(&body).ok());
            if shown.is_none_or(|shown| shown.alarm != alarm) {
                self.sequences.insert(alarm.alarm_id.clone(), sequence);
                self.board.set(&topic, to_json(&AlarmSnapshot { sequence, alarm }));
            }
        }
    }

    /// Engine, answers and calls as the store has them.
    fn take_back(&mut self) -> Result<(), StartError> {
        self.engine = restore(&self.rules, &self.outbox)?;
        self.memory.fall_back(&self.outbox)?;
        self.calls = Calls::restore(&self.outbox)?;
        self.drill.fall_back();
        Ok(())
    }

    fn journal_start(&mut self, now: Timestamp) -> Result<(), OutboxError> {
        let data = GatewayData {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            contract: CONTRACT_VERSION.to_owned(),
            boot: self.boot,
            clock: self.clock,
        };
        let outbox = self.outbox.clone();
        let mut batch = outbox.batch();
        batch.put(BOOT_KEY, &self.boot.to_be_bytes());
        let draft = self.author.started(now, &batch.position(), &data);
        self.journal(now, &mut batch, draft)?;
        batch.commit().map(|_| ())
    }

    fn show_devices(&mut self) {
        for state in self.engine.devices() {
            let shown = self.devices_shown.get(&state.device);
            let stale = shown.is_none_or(|shown| {
                let same = DeviceState { last_heard_at: shown.last_heard_at, ..state.clone() } == *shown;
                let heard = state.last_heard_at.zip(shown.last_heard_at).is_none_or(|(a, b)| {
                    a.duration_since(b) >= self.wiring.device_refresh.of(state.supervision.as_deref())
                });
                !same || (heard && state.last_heard_at != shown.last_heard_at)
            });
            if stale {
                self.board.set(&self.topics.device(&state.device), to_json(&state));
                self.devices_shown.insert(state.device.clone(), state);
            }
        }
    }
}

fn restore(rules: &Rules, outbox: &Outbox) -> Result<Engine, StartError> {
    let saved =
        outbox.scan(ENGINE_PREFIX)?.into_iter().map(|(key, value)| (key[ENGINE_PREFIX.len()..].to_vec(), value));
    let (engine, notes) = Engine::restore(rules.clone(), saved);
    for note in notes {
        tracing::warn!(?note, "saved alarm state");
    }
    Ok(engine)
}

fn refuse(inputs: Vec<Input>, memory: &Memory, why: &str, now: Timestamp) -> Effects {
    let mut effects = Effects::default();
    for input in inputs {
        match input {
            Input::Link(link) => {
                let _ = link.done.send(Err(why.to_owned()));
            }
            Input::Command(request) => effects.replies.push(match memory.seen(&request.cmd_id, &request.digest) {
                // What was answered and stored stays so.
                memory::Seen::Same(answered) | memory::Seen::InHand(answered) if answered.verb != "query" => {
                    answered.reply
                }
                _ => not_stored(request.cmd_id, why, now),
            }),
            // Its picture cannot be queued, so it would never come.
            Input::Answered(reply) if reply.data.is_some() => effects.replies.push(not_stored(reply.cmd_id, why, now)),
            // Carried out already; only the record of it is lost, and a repetition carries it out again.
            Input::Answered(reply) => effects.replies.push(reply),
            Input::Local(request) => {
                tracing::error!(order = ?request.order, "not carried out: {why}");
                let _ = request.answer.send(Err(not_stored_text(why)));
            }
            Input::Seen(Observation { device, what, .. }) => {
                if !matches!(what, What::Scene(_)) {
                    tracing::error!(%device, ?what, "not judged: {why}");
                }
            }
        }
    }
    effects
}

fn not_stored(cmd_id: String, why: &str, now: Timestamp) -> Reply {
    Reply::new(cmd_id, Outcome::Refused, Some(not_stored_text(why)), now)
}

fn not_stored_text(why: &str) -> Text {
    Text { zh: format!("网关无法存储：{why}"), en: format!("the gateway cannot store it: {why}") }
}

fn to_json(value: &impl serde::Serialize) -> Option<Vec<u8>> {
    Some(serde_json::to_vec(value).expect("the contract's types have text keys only, so they have a JSON form"))
}

fn read_u64(bytes: Option<Vec<u8>>) -> u64 {
    bytes.and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// The outbox knows lanes by order only; the contract names them.
#[must_use]
pub fn lane_of(lane: Lane) -> gengfu_outbox::Lane {
    match lane {
        Lane::Fire => gengfu_outbox::Lane::Fire,
        Lane::Emergency => gengfu_outbox::Lane::Emergency,
        Lane::Trouble => gengfu_outbox::Lane::Trouble,
        Lane::Care => gengfu_outbox::Lane::Care,
        Lane::City => gengfu_outbox::Lane::City,
        Lane::Telemetry => gengfu_outbox::Lane::Telemetry,
        Lane::Evidence => gengfu_outbox::Lane::Evidence,
    }
}

#[cfg(test)]
mod tests;
