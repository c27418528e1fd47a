//! The weekly test of the whole path, from the journal to the centre's receipt.
//!
//! Owns when a drill is due, how long its receipt took, the history, and the trouble when one fails or is not held. Refuses to pretend: the test's alarm is journaled,
//! sent and received like a fire, and only its receipt ends the waiting. One that was missed while the gateway was off is held at
//! the next chance; one that failed is repeated once the centre has received it late, and not before: tests must not pile up in the lane of fires.

use std::collections::VecDeque;
use std::time::Duration;

use gengfu_alarm::output::Transition;
use gengfu_alarm::{Engine, Output, Trouble};
use gengfu_contract::event::{ClockQuality, EventType};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus, Text};
use gengfu_outbox::{Batch, Outbox, OutboxError, Outcome};
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

const STATE_KEY: &[u8] = b"drill/state";
/// Drills remembered: a year.
const HISTORY_MAX: usize = 52;
/// Receipts are looked for this often.
const LOOK_EVERY: SignedDuration = SignedDuration::from_millis(200);
/// After a start the uplink needs a moment to be there.
const SETTLE: SignedDuration = SignedDuration::from_secs(60);
/// What begins the id of an order for a node that belongs to a drill; no command of the centre can have it.
pub(super) const ORDER_PREFIX: &str = "drill:";

/// When drills are held, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillPlan {
    /// Every week then, local time; `None`: only by hand.
    pub weekly: Option<(Weekday, Time)>,
    /// Local time.
    pub zone: TimeZone,
    /// Smoke heads whose test button is pressed with it, where a node can.
    pub devices: Vec<Slug>,
    /// The receipt must have come within this. Default 10 s (GB 26875.1-2011 4.1.2).
    pub receipt_within: Duration,
    /// No good drill for so long is a trouble. Default 8 days.
    pub overdue_after: Duration,
}

impl Default for DrillPlan {
    fn default() -> Self {
        Self {
            weekly: None,
            zone: TimeZone::UTC,
            devices: Vec::new(),
            receipt_within: Duration::from_secs(10),
            overdue_after: Duration::from_secs(8 * 86_400),
        }
    }
}

/// How a drill went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillResult {
    /// The receipt came in time.
    Received,
    /// It came too late.
    Late,
    /// It has not come.
    NotReceived,
}

/// One drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillRecord {
    /// When its alarm was journaled.
    pub began_at: Timestamp,
    /// By the calendar, or by hand.
    pub scheduled: bool,
    /// How it went.
    pub result: DrillResult,
    /// From the journal to the receipt, ms; absent while there is none.
    pub latency_ms: Option<i64>,
    /// The event of the test's alarm, for `gengfu trace`.
    pub event: String,
    /// Heads whose test button was pressed: their node took the order, or did not.
    #[serde(default)]
    pub pressed: Vec<(Slug, bool)>,
}

/// What `status` and `drill list` show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStatus {
    /// One is under way since then.
    pub running_since: Option<Timestamp>,
    /// The next by the calendar.
    pub next_at: Option<Timestamp>,
    /// Oldest first, at most a year.
    pub history: Vec<DrillRecord>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// First seen with a clock that can be trusted.
    since: Option<Timestamp>,
    /// Calendar slot that was served last.
    served: Option<Timestamp>,
    /// The last record waits for its receipt.
    running: bool,
    /// The last record failed and is still looked for.
    awaiting_late: bool,
    /// A trouble is told.
    told: bool,
    history: VecDeque<DrillRecord>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Drill {
    plan: DrillPlan,
    gateway: Slug,
    state: State,
    stored: State,
    /// The event of the drill that began in this batch; the store does not know it yet.
    fresh: bool,
    started_at: Timestamp,
    looked_at: Option<Timestamp>,
    /// By hand, as soon as possible.
    wanted: bool,
}

impl Drill {
    /// Goes on where the store says.
    pub fn restore(plan: DrillPlan, gateway: Slug, outbox: &Outbox, now: Timestamp) -> Result<Self, OutboxError> {
        let state = load(outbox)?;
        let stored = state.clone();
        Ok(Self { plan, gateway, state, stored, fresh: false, started_at: now, looked_at: None, wanted: false })
    }

    /// By hand; refused while one is under way.
    pub fn order(&mut self) -> Result<(), Text> {
        if self.state.running || self.wanted {
            return Err(Text {
                zh: "已有测试在进行，请等待其结束".into(),
                en: "a drill is under way: wait for its end".into(),
            });
        }
        self.wanted = true;
        Ok(())
    }

    /// Looks at the calendar and for the receipt.
    pub fn look(&mut self, now: Timestamp, clock: ClockQuality, engine: &mut Engine, outbox: &Outbox) -> Vec<Output> {
        self.looked_at = Some(now);
        let mut outputs = self.look_for_receipt(now, clock, engine, outbox);
        if clock == ClockQuality::Synced {
            self.state.since.get_or_insert(now);
        }
        let slot = self.due_slot(now, clock);
        if !self.state.running && (self.wanted || slot.is_some()) {
            self.state.served = slot.or(self.state.served);
            let scheduled = !std::mem::take(&mut self.wanted);
            outputs.extend(engine.begin_drill(now, clock, scheduled));
        }
        if clock == ClockQuality::Synced && self.is_overdue(now) && !self.state.told {
            outputs.extend(self.tell(now, engine, true, &overdue_text(&self.plan)));
        }
        outputs
    }

    /// A transition was appended under this event id. True for the one that begins a drill: then heads may be pressed.
    pub fn appended(&mut self, now: Timestamp, transition: &Transition, event: &str) -> bool {
        let alarm = &transition.alarm;
        let begins = transition.event_type == EventType::AlarmRaised
            && alarm.device == self.gateway
            && alarm.kind == AlarmKind::Smoke
            && alarm.cap.status == CapStatus::Test;
        if begins {
            let scheduled = alarm.explanation.inputs.get("scheduled") == Some(&serde_json::Value::Bool(true));
            tracing::info!(hop = "drill", id = event, scheduled, "a test of the alarm path begins");
            self.state.history.push_back(DrillRecord {
                began_at: now,
                scheduled,
                result: DrillResult::NotReceived,
                latency_ms: None,
                event: event.to_owned(),
                pressed: Vec::new(),
            });
            while self.state.history.len() > HISTORY_MAX {
                self.state.history.pop_front();
            }
            (self.state.running, self.state.awaiting_late, self.fresh) = (true, false, true);
        }
        begins
    }

    /// Heads to press with a drill.
    pub fn devices(&self) -> &[Slug] {
        &self.plan.devices
    }

    /// What a node said to the order to press a head.
    pub fn pressed(&mut self, device: &Slug, taken: bool) {
        if let Some(last) = self.state.history.back_mut() {
            last.pressed.push((device.clone(), taken));
        }
    }

    /// Puts what changed into the batch.
    pub fn put(&self, batch: &mut Batch) {
        if self.state != self.stored {
            batch.put(STATE_KEY, &serde_json::to_vec(&self.state).expect("names and times have a JSON form"));
        }
    }

    /// The batch is durable.
    pub fn committed(&mut self) {
        if self.state != self.stored {
            self.stored.clone_from(&self.state);
        }
        self.fresh = false;
    }

    /// The disk refused the batch.
    pub fn fall_back(&mut self) {
        self.state.clone_from(&self.stored);
        self.fresh = false;
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Timestamp> {
        let look = (self.state.running || self.state.awaiting_late || self.wanted)
            .then(|| self.looked_at.map_or(Timestamp::MIN, |at| at + LOOK_EVERY));
        // Also a slot that is due and cannot be served yet (start, clock), and a drill that is overdue.
        let calendar = self.plan.weekly.map(|_| self.looked_at.map_or(Timestamp::MIN, |at| at + SETTLE));
        let slot = self.looked_at.and_then(|at| self.next_slot(at));
        [look, slot, calendar].into_iter().flatten().min()
    }

    /// The clock was set.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        self.looked_at = None;
        self.started_at = self.started_at.checked_add(by).unwrap_or(self.started_at);
        if let Some(last) = self.state.history.back_mut().filter(|_| self.state.running) {
            last.began_at = last.began_at.checked_add(by).unwrap_or(last.began_at);
        }
    }

    /// For people.
    pub fn status(&self, now: Timestamp) -> DrillStatus {
        let last = self.state.history.back().filter(|_| self.state.running);
        DrillStatus {
            running_since: last.map(|record| record.began_at),
            next_at: self.next_slot(now),
            history: self.state.history.iter().cloned().collect(),
        }
    }

    fn look_for_receipt(
        &mut self,
        now: Timestamp,
        clock: ClockQuality,
        engine: &mut Engine,
        outbox: &Outbox,
    ) -> Vec<Output> {
        let waits = (self.state.running || self.state.awaiting_late) && !self.fresh;
        let Some(record) = self.state.history.back().filter(|_| waits).cloned() else { return Vec::new() };
        let limit = SignedDuration::try_from(self.plan.receipt_within).unwrap_or(SignedDuration::MAX);
        let receipt =
            receipt(outbox, &record.event).map(|at| (at.duration_since(record.began_at)).max(SignedDuration::ZERO));
        let mut outputs = Vec::new();
        match receipt {
            Some(latency) => {
                let latency_ms = i64::try_from(latency.as_millis()).unwrap_or(i64::MAX);
                let in_time = self.state.running && latency <= limit;
                let was_running = std::mem::take(&mut self.state.running);
                self.conclude(if in_time { DrillResult::Received } else { DrillResult::Late }, Some(latency_ms));
                self.state.awaiting_late = false;
                if was_running {
                    outputs.extend(engine.end_drill(now, clock, Some(latency_ms)));
                }
                if in_time {
                    outputs.extend(self.tell(now, engine, false, &passed_text(latency_ms)));
                } else {
                    outputs.extend(self.tell(now, engine, true, &late_text(latency_ms)));
                    // The path is there again: one more test shows whether it is good. Only one: a slow path stays a trouble.
                    self.wanted |= record.scheduled;
                }
            }
            None if self.state.running && now.duration_since(record.began_at) > limit => {
                (self.state.running, self.state.awaiting_late) = (false, true);
                self.conclude(DrillResult::NotReceived, None);
                outputs.extend(engine.end_drill(now, clock, None));
                outputs.extend(self.tell(now, engine, true, &failed_text(&self.plan)));
            }
            None => {}
        }
        outputs
    }

    fn conclude(&mut self, result: DrillResult, latency_ms: Option<i64>) {
        let Some(record) = self.state.history.back_mut() else { return };
        (record.result, record.latency_ms) = (result, latency_ms);
        let word = match result {
            DrillResult::Received => "received",
            DrillResult::Late => "late",
            DrillResult::NotReceived => "not_received",
        };
        tracing::info!(hop = "drill", id = %record.event, result = word, ?latency_ms, "the test of the alarm path is over");
        metrics::counter!("gengfu_drills_total", "result" => word).increment(1);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; a latency stays far below 2^52")]
        if let Some(ms) = latency_ms {
            metrics::gauge!("gengfu_drill_latency_seconds").set(ms as f64 / 1000.0);
        }
    }

    fn tell(&mut self, now: Timestamp, engine: &mut Engine, is_bad: bool, detail: &Text) -> Vec<Output> {
        self.state.told = is_bad;
        engine.report(now, &self.gateway, Trouble::Drill, is_bad, detail)
    }

    /// The newest slot that has passed, if it was not served and a drill can be held now.
    fn due_slot(&self, now: Timestamp, clock: ClockQuality) -> Option<Timestamp> {
        let ready = clock == ClockQuality::Synced && now.duration_since(self.started_at) >= SETTLE;
        let since = self.state.since.filter(|_| ready && !self.state.awaiting_late)?;
        self.slot(now, 0).filter(|slot| *slot > since && self.state.served.is_none_or(|served| *slot > served))
    }

    fn next_slot(&self, now: Timestamp) -> Option<Timestamp> {
        self.slot(now, 1)
    }

    /// The last slot before or at `now`, and `weeks` later.
    fn slot(&self, now: Timestamp, weeks: i64) -> Option<Timestamp> {
        let (weekday, time) = self.plan.weekly?;
        let here = self.plan.zone.to_datetime(now);
        let back = here.weekday().since(weekday);
        let mut day = here.date().checked_sub(i64::from(back).days()).ok()?;
        if day.to_datetime(time) > here {
            day = day.checked_sub(7.days()).ok()?;
        }
        let day = day.checked_add((weeks * 7).days()).ok()?;
        self.plan.zone.to_timestamp(day.to_datetime(time)).ok()
    }

    fn is_overdue(&self, now: Timestamp) -> bool {
        let good = |record: &&DrillRecord| record.result == DrillResult::Received;
        let last_good = self.state.history.iter().rev().find(good).map(|record| record.began_at);
        let Some(since) = last_good.max(self.state.since).filter(|_| self.plan.weekly.is_some()) else { return false };
        let limit = SignedDuration::try_from(self.plan.overdue_after).unwrap_or(SignedDuration::MAX);
        now.duration_since(since) > limit
    }
}

/// When the centre received the test. One that was dropped or pruned was not.
fn receipt(outbox: &Outbox, event: &str) -> Option<Timestamp> {
    let received = |at: &gengfu_outbox::Located| at.outcome == Outcome::Received;
    outbox.lookup(event).ok().flatten().filter(received)?;
    let record = outbox.trace(event).ok().flatten()?;
    Timestamp::from_millisecond(record.received_at_ms?).ok()
}

fn load(outbox: &Outbox) -> Result<State, OutboxError> {
    let Some(bytes) = outbox.get(STATE_KEY)? else { return Ok(State::default()) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, "the drills' history cannot be read; begun anew");
        State::default()
    }))
}

fn passed_text(ms: i64) -> Text {
    Text {
        zh: format!("例行测试成功，{ms} 毫秒获中心回执"),
        en: format!("the scheduled test arrived: receipt after {ms} ms"),
    }
}

fn late_text(ms: i64) -> Text {
    Text {
        zh: format!("例行测试的中心回执迟到：{ms} 毫秒；随即重测"),
        en: format!("the receipt for the scheduled test came late, after {ms} ms; it is repeated at once"),
    }
}

fn failed_text(plan: &DrillPlan) -> Text {
    let within = plan.receipt_within.as_secs();
    Text {
        zh: format!("例行测试 {within} 秒内未获中心回执；请检查上行链路（gengfu status）"),
        en: format!("the scheduled test had no receipt within {within} s: check the uplink (gengfu status)"),
    }
}

fn overdue_text(plan: &DrillPlan) -> Text {
    let days = plan.overdue_after.as_secs() / 86_400;
    Text {
        zh: format!("已 {days} 天没有成功的例行测试；请执行 gengfu drill now"),
        en: format!("no good test of the alarm path for {days} days: run gengfu drill now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill(weekly: (Weekday, Time)) -> Drill {
        Drill {
            plan: DrillPlan {
                weekly: Some(weekly),
                zone: TimeZone::fixed(jiff::tz::offset(8)),
                ..DrillPlan::default()
            },
            gateway: Slug::new("gw-1").unwrap(),
            state: State::default(),
            stored: State::default(),
            fresh: false,
            started_at: Timestamp::MIN,
            looked_at: None,
            wanted: false,
        }
    }

    #[test]
    fn slots_are_in_local_time_and_the_last_one_before_now_counts() {
        let drill = drill((Weekday::Tuesday, jiff::civil::time(10, 0, 0, 0)));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        // 2026-11-24 is a Tuesday; 10:00 in China is 02:00 UTC.
        for (now, last) in [
            ("2026-11-24T02:00:00Z", "2026-11-24T02:00:00Z"),
            ("2026-11-24T01:59:59Z", "2026-11-17T02:00:00Z"),
            ("2026-11-29T00:00:00Z", "2026-11-24T02:00:00Z"),
        ] {
            assert_eq!(drill.slot(at(now), 0), Some(at(last)), "{now}");
            assert_eq!(drill.next_slot(at(now)), Some(at(last) + SignedDuration::from_hours(168)), "{now}");
        }
    }
}
