//! The centre's cases, as far as the gateway is told of them.
//!
//! Owns the last stage of each case, which stage may follow, and how often alarms of a device were rejected and why. Cases outlive their alarms, so a bounded number of
//! alarms that are over is remembered. Refuses to move a condition: a case that is closed while the cause is still there is a
//! conflict, and the alarm is raised again; a rejection changes nothing about what is seen.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::case::{CaseRef, CaseStage, RejectReason};
use gengfu_contract::command::{CaseCommand, Outcome};
use gengfu_contract::event::{AlarmData, EventType};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus, Condition};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Answer, Engine, done, refused};
use crate::output::Output;

/// Alarms that are over and still remembered for their cases; the oldest are forgotten first.
pub const PAST_MAX: usize = 1_000;
/// Devices and kinds whose rejections are counted.
const REJECTED_MAX: usize = 10_000;
/// Longest case id, bytes.
const TEXT_MAX_BYTES: usize = 128;

/// An alarm that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    pub device: Slug,
    pub kind: AlarmKind,
    #[serde(default)]
    pub case: Option<CaseRef>,
}

/// How often alarms of a kind of a device were rejected, by reason. Feeds thresholds and reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The device.
    pub device: Slug,
    /// The kind.
    pub kind: AlarmKind,
    /// How often, by reason.
    pub reasons: BTreeMap<RejectReason, u64>,
    /// The last time.
    pub last_at: Timestamp,
}

/// What is known of cases beside the open alarms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cases {
    /// By alarm id, which orders them by age.
    past: BTreeMap<String, Past>,
    rejected: BTreeMap<(Slug, AlarmKind), Rejected>,
    dirty_past: BTreeSet<String>,
    dirty_rejected: BTreeSet<(Slug, AlarmKind)>,
}

impl Cases {
    /// An alarm is over. A test has no case.
    pub fn is_over(&mut self, alarm: &AlarmData) {
        if alarm.cap.status != CapStatus::Actual {
            return;
        }
        let past = Past { device: alarm.device.clone(), kind: alarm.kind, case: alarm.case.clone() };
        self.dirty_past.insert(alarm.alarm_id.clone());
        self.past.insert(alarm.alarm_id.clone(), past);
        while self.past.len() > PAST_MAX {
            if let Some((oldest, _)) = self.past.pop_first() {
                self.dirty_past.insert(oldest);
            }
        }
    }

    fn reject(&mut self, now: Timestamp, device: &Slug, kind: AlarmKind, reason: RejectReason) {
        let key = (device.clone(), kind);
        if self.rejected.len() >= REJECTED_MAX && !self.rejected.contains_key(&key) {
            return;
        }
        let fresh = || Rejected { device: device.clone(), kind, reasons: BTreeMap::new(), last_at: now };
        let count = self.rejected.entry(key.clone()).or_insert_with(fresh);
        *count.reasons.entry(reason).or_default() += 1;
        count.last_at = now;
        self.dirty_rejected.insert(key);
    }

    pub fn take_dirty_past(&mut self) -> Vec<(String, Option<Past>)> {
        let dirty = std::mem::take(&mut self.dirty_past);
        dirty.into_iter().map(|id| (id.clone(), self.past.get(&id).cloned())).collect()
    }

    pub fn take_dirty_rejected(&mut self) -> Vec<Rejected> {
        let dirty = std::mem::take(&mut self.dirty_rejected);
        dirty.iter().filter_map(|key| self.rejected.get(key).cloned()).collect()
    }

    pub fn take_back_past(&mut self, alarm_id: &str, past: Past) {
        self.past.insert(alarm_id.to_owned(), past);
    }

    pub fn take_back_rejected(&mut self, rejected: Rejected) {
        self.rejected.insert((rejected.device.clone(), rejected.kind), rejected);
    }
}

impl Engine {
    /// The centre tells where its case about an alarm stands. `conflict` when the stage does not follow the one before, when another case
    /// is about the alarm, and when it is closed while the cause is there or nobody can tell; a cause that is there is
    /// raised again then. Refused for an alarm that is not known here, and without the reason a rejection needs.
    pub fn case(&mut self, now: Timestamp, order: &CaseCommand) -> Answer {
        self.take_time(now);
        if order.case_id.is_empty() || order.case_id.len() > TEXT_MAX_BYTES {
            return refused(Outcome::Refused, "案件编号缺失或过长", "case_id is missing or too long: 1 to 128 bytes");
        }
        let open = self
            .book
            .get(&order.alarm_id)
            .map(|alarm| (alarm.data.device.clone(), alarm.data.kind, alarm.data.case.clone()));
        let past = || {
            self.book.cases.past.get(&order.alarm_id).map(|past| (past.device.clone(), past.kind, past.case.clone()))
        };
        let Some((device, kind, before)) = open.clone().or_else(past) else {
            let id = &order.alarm_id;
            return refused(
                Outcome::Refused,
                format!("本网关不知道报警 {id}：编号有误，或结束已久"),
                format!("alarm {id} is not known here: another gateway's, or over for too long"),
            );
        };
        if let Some(refusal) = conflict(order, before.as_ref()) {
            return refusal;
        }
        if order.stage == CaseStage::Closed
            && let Some(answer) = self.still_there(now, &order.alarm_id)
        {
            return answer;
        }
        let case = CaseRef { case_id: order.case_id.clone(), stage: order.stage, due_at: order.due_at };
        let is_repeated = before.as_ref() == Some(&case);
        if order.stage == CaseStage::Rejected
            && before.is_none_or(|before| before.stage != CaseStage::Rejected)
            && let Some(reason) = order.reason
        {
            self.book.cases.reject(now, &device, kind, reason);
        }
        if is_repeated {
            return done(Vec::new());
        }
        if open.is_some() {
            let told = self.book.tell(now, &order.alarm_id, |alarm| {
                alarm.data.case = Some(case);
                Some(EventType::AlarmUpdated)
            });
            return done(told.map(Output::Alarm).into_iter().collect());
        }
        if let Some(past) = self.book.cases.past.get_mut(&order.alarm_id) {
            past.case = Some(case);
            self.book.cases.dirty_past.insert(order.alarm_id.clone());
        }
        done(Vec::new())
    }

    /// How often alarms were rejected, and why.
    pub fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.book.cases.rejected.values()
    }

    /// Closing what is still so: the answer, and the alarm again.
    fn still_there(&mut self, now: Timestamp, alarm_id: &str) -> Option<Answer> {
        let alarm = self.book.get(alarm_id)?;
        let answer = match alarm.data.condition {
            Condition::ActiveUnack | Condition::ActiveAck => refused(
                Outcome::Conflict,
                "起因仍然存在，不能结案；报警已重新发出",
                "the cause is still there: the case cannot be closed, and the alarm is raised again",
            ),
            Condition::Unknown => refused(
                Outcome::Conflict,
                "设备失联，无法判断起因是否消除，不能结案",
                "the device that could tell is in trouble: whether the cause is gone is not known, so the case cannot be closed",
            ),
            _ => return None,
        };
        let told = self.book.tell(now, alarm_id, |alarm| alarm.machine.ask_again());
        Some(Answer { outputs: told.map(Output::Alarm).into_iter().collect(), ..answer })
    }
}

fn conflict(order: &CaseCommand, before: Option<&CaseRef>) -> Option<Answer> {
    if order.stage.needs_reason() && order.reason.is_none() {
        return Some(refused(
            Outcome::Refused,
            format!("{} 须写明原因代码 reason", order.stage),
            format!("{} needs a reason code in `reason`", order.stage),
        ));
    }
    let other = before.filter(|before| before.case_id != order.case_id && !before.stage.is_final());
    if let Some(other) = other {
        let (id, stage) = (&other.case_id, other.stage);
        return Some(refused(
            Outcome::Conflict,
            format!("该报警已有案件 {id}（{stage}），先结束该案件"),
            format!("case {id} ({stage}) is about this alarm already: end it first"),
        ));
    }
    // A new case about the same alarm begins at its beginning.
    let stage_before = before.filter(|before| before.case_id == order.case_id).map(|before| before.stage);
    (!order.stage.may_follow(stage_before)).then(|| {
        let from = stage_before.map_or("（无）/none", |stage| stage.as_str());
        refused(
            Outcome::Conflict,
            format!("案件阶段不能从 {from} 变为 {}", order.stage),
            format!("a case cannot go from {from} to {}: tell the stages in their order", order.stage),
        )
    })
}
