//! What the people on site are told when the centre does not confirm.
//!
//! Owns which event of each life-safety alarm must be received by the centre, and keeps the [`Annunciator`] and this list in the store, in the same
//! batch as the events. Refuses to judge when to sound: that is the alarm crate's; and to drive anything: it gives the wanted state.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_alarm::output::Transition;
use gengfu_alarm::{Annunciator, Engine, LocalOutput, LocalPolicy, LocalState, Output, Trouble, Want};
use gengfu_contract::event::EventType;
use gengfu_contract::words::{Condition, Text};
use gengfu_outbox::{Batch, Outbox, OutboxError, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const STATE_KEY: &[u8] = b"on_site/state";
const AWAITED_KEY: &[u8] = b"on_site/awaited";
/// Receipts are looked for this often while one is awaited.
const LOOK_EVERY: SignedDuration = SignedDuration::from_millis(200);

/// The event of an alarm that the centre must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Awaited {
    event: String,
    since: Timestamp,
}

/// The last road of an alarm. See the module.
pub(super) struct OnSite {
    annunciator: Annunciator,
    /// By alarm.
    awaited: BTreeMap<String, Awaited>,
    wanted: Vec<Want>,
    /// What the store has of both.
    stored: (LocalState, BTreeMap<String, Awaited>),
    /// By how much the clock was set since then.
    stepped: SignedDuration,
    /// And since a batch was last tried, which the disk may have kept though it failed.
    stepped_since_try: SignedDuration,
    looked_at: Option<Timestamp>,
}

impl OnSite {
    /// Goes on where the store says. What cannot be read there is begun anew: then a failure may be told twice.
    pub(super) fn restore(
        outputs: Vec<LocalOutput>,
        policy: LocalPolicy,
        outbox: &Outbox,
    ) -> Result<Self, OutboxError> {
        let state: LocalState = read(outbox, STATE_KEY)?;
        let awaited: BTreeMap<String, Awaited> = read(outbox, AWAITED_KEY)?;
        let annunciator = Annunciator::restore(outputs, policy, state.clone());
        let (stored, stepped) = ((state, awaited.clone()), SignedDuration::ZERO);
        let stepped_since_try = stepped;
        Ok(Self { annunciator, stored, stepped, stepped_since_try, awaited, wanted: Vec::new(), looked_at: None })
    }

    /// As [`OnSite::restore`], after a batch that the disk refused: what was to be told with it is told with the next one. What is wanted stays so until
    /// the next look.
    pub(super) fn fall_back(&mut self) {
        self.annunciator.go_back(self.stored.0.clone(), self.stepped);
        self.awaited.clone_from(&self.stored.1);
    }

    /// The outbox was opened anew: a batch that had failed may be there after all.
    pub(super) fn take_back(&mut self, outbox: &Outbox) -> Result<(), OutboxError> {
        let stored = (read(outbox, STATE_KEY)?, read(outbox, AWAITED_KEY)?);
        if stored != self.stored {
            // It is there, and of the time when it was tried.
            (self.stored, self.stepped) = (stored, self.stepped_since_try);
        }
        self.fall_back();
        Ok(())
    }

    /// Before a batch: what was received meanwhile does not lend its waiting to what the batch calls for.
    pub(super) fn look(&mut self, outbox: &Outbox) {
        self.awaited.retain(|_, awaited| is_pending(outbox, &awaited.event));
    }

    /// A transition was appended under this event id.
    pub(super) fn appended(&mut self, now: Timestamp, transition: &Transition, event: &str) {
        let alarm = &transition.alarm;
        if !alarm.kind.lane().is_life_safety() {
            return;
        }
        let is_call = match transition.event_type {
            EventType::AlarmRaised | EventType::AlarmEscalated => true,
            EventType::AlarmUpdated => alarm.condition == Condition::ActiveUnack,
            _ => false,
        };
        if is_call {
            let awaited = Awaited { event: event.to_owned(), since: now };
            // An older call that is still without its receipt is older than this one.
            self.awaited
                .entry(alarm.alarm_id.clone())
                .and_modify(|old| old.event.clone_from(&awaited.event))
                .or_insert(awaited);
        }
        if transition.event_type == EventType::AlarmOver {
            self.awaited.remove(&alarm.alarm_id);
        }
    }

    /// Looks for receipts and decides anew. `fresh` are the events of this batch, which the store does not know yet. Gives what the engine tells
    /// the centre about it.
    pub(super) fn update(
        &mut self,
        now: Timestamp,
        engine: &mut Engine,
        outbox: &Outbox,
        fresh: &[String],
    ) -> Vec<Output> {
        self.looked_at = Some(now);
        self.awaited.retain(|_, awaited| fresh.contains(&awaited.event) || is_pending(outbox, &awaited.event));
        let alarms = engine.life_safety(|alarm_id| self.awaited.get(alarm_id).map(|awaited| awaited.since));
        self.wanted = self.annunciator.update(now, &alarms);
        let mut outputs = Vec::new();
        for overdue in self.annunciator.take_overdue() {
            let limit = self.annunciator.policy().receipt_within.as_secs();
            let detail = Text {
                zh: format!(
                    "报警 {} 自 {} 起未获中心回执（{limit} 秒），{} 现场已提示“传输失败”{}",
                    overdue.alarm_id,
                    overdue.waiting_since,
                    overdue.failed_at,
                    overdue.over_at.map_or_else(String::new, |at| format!("，{at} 恢复")),
                ),
                en: format!(
                    "alarm {} had no receipt of the centre since {} ({limit} s allowed); \"transmission failed\" was told on site at {}{}",
                    overdue.alarm_id,
                    overdue.waiting_since,
                    overdue.failed_at,
                    overdue.over_at.map_or_else(String::new, |at| format!("; over at {at}")),
                ),
            };
            tracing::warn!(alarm = %overdue.alarm_id, over = ?overdue.over_at, "{}", detail.en);
            let is_on = overdue.over_at.is_none();
            outputs.extend(engine.report(now, &overdue.device, Trouble::TxOverdue, is_on, &detail));
        }
        outputs
    }

    /// Puts what changed into the batch.
    pub(super) fn put(&mut self, batch: &mut Batch) {
        self.stepped_since_try = SignedDuration::ZERO;
        let state = self.annunciator.state();
        if state != self.stored.0 {
            batch.put(STATE_KEY, &json(&state));
        }
        if self.awaited != self.stored.1 {
            batch.put(AWAITED_KEY, &json(&self.awaited));
        }
    }

    /// The batch is durable.
    pub(super) fn committed(&mut self) {
        self.stored = (self.annunciator.state(), self.awaited.clone());
        self.stepped = SignedDuration::ZERO;
    }

    /// What should sound and shine.
    pub(super) fn wanted(&self) -> &[Want] {
        &self.wanted
    }

    /// Somebody on site silences the sounders.
    pub(super) fn silence(&mut self, now: Timestamp, dwelling: Option<&str>, lasts: Duration) {
        self.annunciator.silence(now, dwelling, lasts);
    }

    /// The centre was seen to be away, or not.
    pub(super) fn centre_is_away(&mut self, away: bool) {
        self.annunciator.at_once(away);
    }

    /// The clock was set by `by`.
    pub(super) fn clock_stepped(&mut self, by: SignedDuration) {
        self.annunciator.clock_stepped(by);
        self.stepped = self.stepped.saturating_add(by);
        self.stepped_since_try = self.stepped_since_try.saturating_add(by);
        self.looked_at = None;
    }

    /// When to look again.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let look = (!self.awaited.is_empty()).then(|| self.looked_at.map_or(Timestamp::MIN, |at| at + LOOK_EVERY));
        [look, self.annunciator.next_due()].into_iter().flatten().min()
    }
}

/// An event that was received long ago is pruned from the journal; one that cannot be read still counts as waiting.
fn is_pending(outbox: &Outbox, event: &str) -> bool {
    !matches!(outbox.lookup(event), Ok(None))
        && !matches!(outbox.lookup(event), Ok(Some(at)) if at.outcome != Outcome::Pending)
}

fn read<T: DeserializeOwned + Default>(outbox: &Outbox, key: &[u8]) -> Result<T, OutboxError> {
    let Some(bytes) = outbox.get(key)? else { return Ok(T::default()) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%error, key = %String::from_utf8_lossy(key), "stored state cannot be read; begun anew");
        T::default()
    }))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names and times have a JSON form")
}
