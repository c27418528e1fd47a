//! Orders of the centre, carried out.
//!
//! Owns the road of a command: came it before, may it be carried out, what does it do to the engine or ask of a node, what is answered, journaled and
//! remembered; all of it in one batch. Refuses to know MQTT.
//!
//! **Expiry.** `expires_at` is judged by the gateway's clock. While that clock is not synchronised it may be ahead, so an expired command
//! that only confirms, asks or makes visible (ack, reset, case, visit, query, unshelve) is carried out all the same; one that hides, sounds or
//! changes something (shelve, sounder, test, snapshot, config) is refused.
//!
//! **Repetition.** The same id with the same body is answered as before, also after a restart and after its expiry. The same id with another body is refused.
//! A query is answered anew, with what is so now. An order that was accepted and whose end a restart swallowed is given again.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_alarm::engine::{Answer, Engine};
use gengfu_alarm::{DeviceClass, LocalOutput, LocalPolicy, Output, Pause, PauseKind, Shelf, Terms};
use gengfu_contract::command::{
    Command, ConfigCommand, Outcome, Reply, ShelveCommand, SnapshotCommand, SnapshotData, SounderCommand, TestCommand,
    VisitCommand, Whereabouts,
};
use gengfu_contract::event::{ClockQuality, EvidenceRef};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use gengfu_outbox::{Batch, OutboxError};
use jiff::Timestamp;
use serde::Deserialize;

use super::drill::{DrillPlan, ORDER_PREFIX};
use super::memory::{AGE_MAX, Answered, Seen};
use super::{CommandData, CommandRequest, Decider, Judged, query};
use crate::cameras::snapshots;

/// Longest operator name or alarm id accepted in a command, bytes; longer ones are refused before they reach the journal.
const TEXT_MAX_BYTES: usize = 128;
/// Longest sounding in one command.
const SOUND_MAX_S: u32 = 3600;

/// How devices hang on nodes: what an order needs and the alarm rules do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Node and channel of each device on a node.
    pub channels: BTreeMap<Slug, (Slug, u8)>,
    /// Nodes with a sounder, and the dwelling in which it is heard.
    pub sounders: BTreeMap<Slug, Option<String>>,
    /// Everything that can be heard or seen on site.
    pub outputs: Vec<LocalOutput>,
    /// How it behaves.
    pub policy: LocalPolicy,
    /// Devices with the moment of their replacement.
    pub replace_by: BTreeMap<Slug, Timestamp>,
    /// How often devices' retained states are renewed.
    pub device_refresh: super::DeviceRefresh,
    /// The weekly test of the whole path.
    pub drill: DrillPlan,
    /// Somebody takes [`Errand::Snapshot`].
    pub takes_snapshots: bool,
    /// Somebody takes [`Errand::Config`].
    pub takes_config: bool,
}

/// What a node shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The node.
    pub node: Slug,
    /// What.
    pub what: Action,
}

/// What a node can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sound for so long from now; zero stops.
    Sound(Duration),
    /// Press the test button of the head on this channel.
    Test(u8),
}

/// What neither the engine nor a node does. Whoever takes it gives the last word as [`super::Input::Answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// A masked picture of now.
    Snapshot(SnapshotCommand),
    /// A signed configuration, to be tried.
    Config(ConfigCommand),
}

/// What a command led to.
#[derive(Default)]
struct Carried {
    outputs: Vec<Output>,
    orders: Vec<Order>,
    errands: Vec<Errand>,
    /// The answer of a query, in parts.
    parts: Vec<Reply>,
}

impl Decider {
    /// Judges a command: known, allowed, carried out, remembered.
    pub(super) fn command(
        &mut self,
        now: Timestamp,
        request: CommandRequest,
        batch: &mut Batch,
        judged: &mut Judged,
    ) -> Result<(), OutboxError> {
        // A receipt that strays here needs no answer.
        let Some(given) = request.command.given() else { return Ok(()) };
        let (operator, issued_at) = (given.operator.to_owned(), given.issued_at);
        let refusal = match self.memory.seen(&request.cmd_id, &request.digest) {
            Seen::Other => {
                tracing::warn!(cmd = %request.cmd_id, "a command id was given to another command; refused");
                let (zh, en) =
                    ("该指令编号已用于另一条指令，请换新编号", "another command had this id: give it a new one");
                judged.standing.push(Reply::new(request.cmd_id, Outcome::Refused, text(zh, en), now));
                return Ok(());
            }
            Seen::InHand(answered) => {
                judged.standing.push(answered.reply);
                return Ok(());
            }
            Seen::Same(answered) if !is_to_be_repeated(&request.command, &answered) => {
                judged.standing.push(answered.reply);
                return Ok(());
            }
            // Whether it may be carried out was judged the first time.
            Seen::Same(_) => None,
            Seen::Never => self.refusal(now, &request),
        };
        let mut carried = Carried::default();
        let answer = match refusal {
            Some(refusal) => refusal,
            None => self.carry_out(now, &request, &mut carried),
        };
        let Carried { orders, errands, parts, outputs } = carried;
        judged.orders.extend(orders.into_iter().map(|order| (request.cmd_id.clone(), order)));
        judged.errands.extend(errands.into_iter().map(|errand| (request.cmd_id.clone(), errand)));
        let verb = request.command.verb();
        tracing::info!(hop = "commanded", cmd = %request.cmd_id, verb, outcome = ?answer.outcome, "command of the centre");
        let reply = Reply::new(request.cmd_id, answer.outcome, answer.reason, now);
        judged.replies.extend(if parts.is_empty() { vec![reply.clone()] } else { parts });
        let arrived_at = request.arrived_at;
        let digest = hex::encode(request.digest);
        let answered = Answered { digest, reply, verb: verb.to_owned(), operator, issued_at, arrived_at };
        self.log(now, batch, &answered)?;
        self.memory.keep(now, batch, answered);
        self.append(now, batch, answer.outputs, judged)?;
        self.append(now, batch, outputs, judged)
    }

    /// The last word on an accepted command, from whoever carried it out. It is journaled and remembered, then goes to the centre.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        reply: Reply,
        batch: &mut Batch,
        judged: &mut Judged,
    ) -> Result<(), OutboxError> {
        if let Some(device) = reply.cmd_id.strip_prefix(ORDER_PREFIX) {
            if let Ok(device) = Slug::new(device) {
                self.drill.pressed(&device, reply.outcome == Outcome::Done);
            }
            return Ok(());
        }
        // A second "accepted" is no last word.
        if reply.outcome != Outcome::Accepted
            && let Some(answered) = self.memory.last_word(batch, &reply)
        {
            for picture in pictures(&answered) {
                self.attach_picture(now, batch, &answered.reply.cmd_id, &picture)?;
            }
            self.log(now, batch, &answered)?;
        }
        judged.replies.push(reply);
        Ok(())
    }

    /// A drill begins: the heads that belong to it are pressed.
    pub(super) fn press_heads(&mut self, judged: &mut Judged) {
        for device in self.drill.devices().to_vec() {
            match self.wiring.channels.get(&device) {
                Some((node, channel)) => {
                    let order = Order { node: node.clone(), what: Action::Test(*channel) };
                    judged.orders.push((format!("{ORDER_PREFIX}{device}"), order));
                }
                None => self.drill.pressed(&device, false),
            }
        }
    }

    /// Journals what was asked and answered.
    fn log(&mut self, now: Timestamp, batch: &mut Batch, answered: &Answered) -> Result<(), OutboxError> {
        let data = CommandData {
            cmd_id: answered.reply.cmd_id.clone(),
            verb: answered.verb.clone(),
            operator: Some(answered.operator.clone()),
            outcome: answered.reply.outcome,
            reason: answered.reply.reason.clone(),
            issued_at: Some(answered.issued_at),
            evidence: pictures(answered),
        };
        let draft = self.author.answered(now, &batch.position(), &data);
        self.journal(now, batch, draft)
    }

    /// Why a command that was never seen is not carried out.
    fn refusal(&self, now: Timestamp, request: &CommandRequest) -> Option<Answer> {
        let given = request.command.given()?;
        if request.retained {
            return Some(refused(
                "不接受保留（retain）的指令",
                "retained commands are not taken: publish it with a new id and without the retain flag",
            ));
        }
        let (operator, alarm_id) = (given.operator, alarm_id(&request.command));
        if operator.trim().is_empty() {
            return Some(refused("缺少操作员 operator", "`operator` is empty: say who gives the command"));
        }
        if operator.len() > TEXT_MAX_BYTES || alarm_id.len() > TEXT_MAX_BYTES {
            return Some(refused("操作员或报警编号过长", "operator or alarm id too long"));
        }
        let trusted = self.clock == ClockQuality::Synced;
        if let Some(expires_at) = given.expires_at.filter(|at| *at < now)
            && (trusted || !is_harmless(&request.command))
        {
            return Some(refused(
                format!("指令已于 {expires_at} 过期，请重新下发"),
                format!("the command expired at {expires_at}: give it again with a new id"),
            ));
        }
        let is_old = trusted && now.duration_since(given.issued_at) > AGE_MAX;
        (is_old || self.memory.is_forgotten(given.issued_at)).then(|| {
            refused(
                format!("指令签发于 {}，过久，无法判断是否已执行；请换新编号重新下发", given.issued_at),
                format!(
                    "issued at {}, too long ago to tell whether it was carried out: give it again with a new id",
                    given.issued_at
                ),
            )
        })
    }

    fn carry_out(&mut self, now: Timestamp, request: &CommandRequest, carried: &mut Carried) -> Answer {
        let engine = &mut self.engine;
        match &request.command {
            Command::Receipt(_) => Answer { outcome: Outcome::Done, reason: None, outputs: Vec::new() },
            Command::Ack(it) => engine.acknowledge(now, it),
            Command::Reset(it) => engine.reset(now, it),
            Command::Case(it) => engine.case(now, it),
            Command::Visit(it) => visit(engine, now, it),
            Command::Shelve(it) => shelve(engine, now, it),
            Command::Unshelve(it) => {
                let shelf = Shelf { device: it.device.clone(), kind: it.kind, zone: it.zone.clone() };
                engine.unshelve(now, &shelf)
            }
            Command::Sounder(it) => sound(&self.wiring, it, &mut carried.orders),
            Command::Test(it) => test(&self.wiring, it, &mut carried.orders),
            Command::Query(it) => {
                match query::answer(engine, &self.outbox, &self.sequences, now, &request.cmd_id, it) {
                    Ok(parts) => {
                        carried.parts = parts;
                        Answer { outcome: Outcome::Done, reason: None, outputs: Vec::new() }
                    }
                    Err(why) => refused(why.zh, why.en),
                }
            }
            Command::Snapshot(it) => snapshot(engine, &self.wiring, it, &mut carried.errands),
            Command::Config(it) => config(&self.wiring, it, &mut carried.errands),
        }
    }
}

/// A command that came before and is carried out once more: nothing changes by it, or its end was lost.
fn is_to_be_repeated(command: &Command, answered: &Answered) -> bool {
    let is_unfinished = answered.reply.outcome == Outcome::Accepted;
    let is_answer = answered.reply.outcome == Outcome::Done && matches!(command, Command::Query(_));
    is_unfinished || is_answer
}

/// One that only confirms, asks or makes visible.
fn is_harmless(command: &Command) -> bool {
    match command {
        Command::Receipt(_)
        | Command::Ack(_)
        | Command::Reset(_)
        | Command::Case(_)
        | Command::Visit(_)
        | Command::Query(_)
        | Command::Unshelve(_) => true,
        Command::Shelve(_) | Command::Sounder(_) | Command::Test(_) | Command::Snapshot(_) | Command::Config(_) => {
            false
        }
    }
}

fn alarm_id(command: &Command) -> &str {
    match command {
        Command::Ack(it) | Command::Reset(it) => &it.alarm_id,
        Command::Case(it) => &it.alarm_id,
        _ => "",
    }
}

fn shelve(engine: &mut Engine, now: Timestamp, order: &ShelveCommand) -> Answer {
    let shelf = Shelf { device: order.device.clone(), kind: order.kind, zone: order.zone.clone() };
    let terms = Terms { until: order.until, reason: order.reason.clone(), who: order.operator.clone() };
    engine.shelve(now, &shelf, &terms)
}

fn snapshot(engine: &Engine, wiring: &Wiring, order: &SnapshotCommand, errands: &mut Vec<Errand>) -> Answer {
    if engine.rules().device(&order.camera).class != DeviceClass::Camera {
        return refused(
            format!("{} 不是摄像机，请检查名称", order.camera),
            format!("{} is no camera here: check the name", order.camera),
        );
    }
    if !wiring.takes_snapshots {
        return refused("此网关不支持抓拍", "this gateway takes no snapshots");
    }
    errands.push(Errand::Snapshot(order.clone()));
    accepted()
}

fn config(wiring: &Wiring, order: &ConfigCommand, errands: &mut Vec<Errand>) -> Answer {
    if !wiring.takes_config {
        return refused(
            "此网关不接受远程配置（未设置 [config] trusted）",
            "this gateway takes no configuration from afar: set [config] trusted at the box",
        );
    }
    errands.push(Errand::Config(order.clone()));
    accepted()
}

fn visit(engine: &mut Engine, now: Timestamp, order: &VisitCommand) -> Answer {
    let kind = match order.what {
        Whereabouts::Visited => PauseKind::Visit,
        Whereabouts::Away => PauseKind::Absence,
        Whereabouts::Well => PauseKind::Call,
        Whereabouts::Back => return engine.resume_care(now, &order.door),
    };
    let until = match (order.until, order.what) {
        (Some(until), _) => until,
        (None, Whereabouts::Well) => now,
        (None, _) => return refused("缺少截止时间 until", "`until` is missing: say when the pause ends"),
    };
    engine.pause_care(now, &order.door, &Pause { kind, until, operator: order.operator.clone() })
}

fn sound(wiring: &Wiring, order: &SounderCommand, orders: &mut Vec<Order>) -> Answer {
    if !wiring.sounders.contains_key(&order.device) {
        return refused(
            format!("{} 不是带声响器的节点", order.device),
            format!("{} is no node with a sounder: check the name, or set `sounder = true` for it", order.device),
        );
    }
    if order.for_s > SOUND_MAX_S {
        return refused(format!("时长须不超过 {SOUND_MAX_S} 秒"), format!("for_s is at most {SOUND_MAX_S}"));
    }
    let what = Action::Sound(Duration::from_secs(u64::from(order.for_s)));
    orders.push(Order { node: order.device.clone(), what });
    accepted()
}

fn test(wiring: &Wiring, order: &TestCommand, orders: &mut Vec<Order>) -> Answer {
    let Some((node, channel)) = wiring.channels.get(&order.device) else {
        return refused(
            format!("{} 不在任何节点上", order.device),
            format!("{} hangs on no node: only heads wired to a node can be tested from here", order.device),
        );
    };
    orders.push(Order { node: node.clone(), what: Action::Test(*channel) });
    accepted()
}

/// The picture that a snapshot's last word names: queued in the same batch as the event that names it.
fn pictures(answered: &Answered) -> Vec<EvidenceRef> {
    let data = answered.reply.data.as_ref().filter(|_| answered.reply.outcome == Outcome::Done);
    let data = data.and_then(|data| SnapshotData::deserialize(data).ok());
    let reference = |data: SnapshotData| EvidenceRef {
        n: snapshots::N,
        sha256: data.sha256,
        bytes: data.bytes,
        media_type: data.media_type,
        taken_at: data.taken_at,
        caption: snapshots::CAPTION.to_owned(),
    };
    data.map(reference).into_iter().collect()
}

/// What it leads to shows later: a sounder is heard, a test is an event of its own.
fn accepted() -> Answer {
    Answer { outcome: Outcome::Accepted, reason: None, outputs: Vec::new() }
}

fn text(zh: &str, en: &str) -> Option<Text> {
    Some(Text { zh: zh.into(), en: en.into() })
}

fn refused(zh: impl Into<String>, en: impl Into<String>) -> Answer {
    let reason = Some(Text { zh: zh.into(), en: en.into() });
    Answer { outcome: Outcome::Refused, reason, outputs: Vec::new() }
}
