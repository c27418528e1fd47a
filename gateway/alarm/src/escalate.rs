//! A human is asked again when nobody answers.
//!
//! Owns how long each lane waits for an acknowledgement, and the wait of one alarm. The time runs from when the *centre received* the event
//! that asks: a human cannot answer what the centre did not get, and until then the missing receipt is the trouble (`TX_OVERDUE`, resending, the
//! sounder on site). Each time without an answer it is the same alarm again, with `escalation` one higher, and the pause doubles up to a
//! bound. Refuses to know how a receipt comes, and to ask for what is acknowledged, shelved, out of service or a test.
//!
//! A fire and an SOS ask until somebody acknowledges, also when the cause has gone: that nobody answered is itself the fault. Care and city stop asking when
//! the cause goes.
//!
//! Sources: EN 50518 (80 % of fire alarms handled in 30 s, 98.5 % in 60 s); for the others the contract's defaults.

use std::time::Duration;

use gengfu_contract::words::Lane;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::book::Book;
use crate::device::Timer;
use crate::engine::Engine;
use crate::output::Output;
use crate::rules::Rules;
use crate::time::shifted;

/// How long each lane waits for a human.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// Smoke. Default 60 s; it cannot be switched off.
    pub fire: Duration,
    /// SOS. Default 60 s; it cannot be switched off.
    pub emergency: Duration,
    /// Doors and people living alone. Default 180 s; `None`: asked once.
    pub care: Option<Duration>,
    /// Cameras. Default 10 min; `None`: asked once.
    pub city: Option<Duration>,
    /// The equipment's own faults. Default `None`: asked once.
    pub trouble: Option<Duration>,
    /// The pause doubles with every repetition, up to this or to the lane's own time, whichever is longer. Default 15 min.
    pub pause_max: Duration,
}

impl Default for Escalation {
    fn default() -> Self {
        Self {
            fire: Duration::from_secs(60),
            emergency: Duration::from_secs(60),
            care: Some(Duration::from_secs(180)),
            city: Some(Duration::from_secs(600)),
            trouble: None,
            pause_max: Duration::from_secs(900),
        }
    }
}

impl Escalation {
    /// How long an alarm of this lane waits the first time; `None`: it is told once.
    #[must_use]
    pub fn within(&self, lane: Lane) -> Option<Duration> {
        match lane {
            Lane::Fire => Some(self.fire),
            Lane::Emergency => Some(self.emergency),
            Lane::Care => self.care,
            Lane::City => self.city,
            Lane::Trouble => self.trouble,
            Lane::Telemetry | Lane::Evidence => None,
        }
    }

    /// How long it waits after `step` repetitions.
    #[must_use]
    pub fn pause(&self, lane: Lane, step: u32) -> Option<Duration> {
        let first = self.within(lane)?;
        let doubled = first.saturating_mul(2_u32.saturating_pow(step));
        Some(doubled.min(self.pause_max.max(first)))
    }
}

/// How far an alarm's call for a human is. The default: nobody is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Revision of the event that asks; 0 when nobody is asked.
    pub rev: u32,
    /// Repetitions since the last raise.
    pub step: u32,
    /// Runs once the centre has that event.
    pub limit: Option<Timer>,
}

impl Call {
    /// A human is asked by the event with this revision.
    pub fn by(rev: u32) -> Self {
        Self { rev, step: 0, limit: None }
    }

    pub fn shift(&mut self, by: SignedDuration) -> bool {
        self.limit.as_mut().is_some_and(|limit| {
            limit.due_at = shifted(limit.due_at, by);
            true
        })
    }

    pub fn rein(&mut self, now: Timestamp) -> bool {
        self.limit.as_mut().is_some_and(|limit| limit.rein(now))
    }
}

/// An alarm that asks for a human, whose asking event the centre is not known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking<'a> {
    /// Which.
    pub alarm_id: &'a str,
    /// Revision of the event that asks.
    pub rev: u32,
}

impl Engine {
    /// Alarms whose wait for a human has not begun, because the receipt for the event that asks is missing. Look for it, and tell
    /// [`Engine::received`].
    pub fn asking(&self) -> impl Iterator<Item = Asking<'_>> {
        let asking = |alarm: &'_ crate::book::Alarm| self.asks(&alarm.data.alarm_id);
        self.book.iter().filter_map(move |alarm| Some(Asking { alarm_id: &alarm.data.alarm_id, rev: asking(alarm)? }))
    }

    /// The revision that asks for a human, while the centre is not known to have it.
    #[must_use]
    pub fn asks(&self, alarm_id: &str) -> Option<u32> {
        let alarm = self.book.get(alarm_id)?;
        let is_asked = alarm.call.rev > 0 && alarm.call.limit.is_none();
        let lane = alarm.subject.kind.lane();
        (is_asked && self.rules.timing.escalation.within(lane).is_some()).then_some(alarm.call.rev)
    }

    /// The centre received the event of this revision at `at`: its humans have the lane's time from then. Told for an older
    /// revision, or twice, it changes nothing.
    pub fn received(&mut self, now: Timestamp, alarm_id: &str, rev: u32, at: Timestamp) {
        self.take_time(now);
        self.book.received(&self.rules, now, alarm_id, rev, at);
    }
}

/// Repeats every call that was not answered in time.
pub(crate) fn tick(rules: &Rules, book: &mut Book, now: Timestamp, out: &mut Vec<Output>) {
    for id in book.unanswered(now) {
        out.extend(book.escalate(rules, now, &id).map(Output::Alarm));
    }
}

impl Book {
    fn received(&mut self, rules: &Rules, now: Timestamp, alarm_id: &str, rev: u32, at: Timestamp) {
        self.change_call(alarm_id, |lane, call| {
            let Some(pause) = rules.timing.escalation.pause(lane, call.step) else { return false };
            if call.rev == 0 || rev < call.rev || call.limit.is_some() {
                return false;
            }
            call.limit = Some(Timer::start(now, at, pause));
            true
        });
    }

    fn unanswered(&self, now: Timestamp) -> Vec<String> {
        let due = |call: &Call| call.limit.as_ref().is_some_and(|limit| limit.is_due(now));
        self.iter().filter(|alarm| due(&alarm.call)).map(|alarm| alarm.data.alarm_id.clone()).collect()
    }

    /// When the next call is repeated.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.iter().filter_map(|alarm| Some(alarm.call.limit.as_ref()?.due_at)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_is_never_shorter_than_the_first() {
        let policy = Escalation::default();
        let seconds = |lane, step| policy.pause(lane, step).map(|pause| pause.as_secs());
        assert_eq!([0, 1, 2, 3, 4, 40].map(|step| seconds(Lane::Fire, step)), [60, 120, 240, 480, 900, 900].map(Some));
        assert_eq!([0, 1, 9].map(|step| seconds(Lane::City, step)), [600, 900, 900].map(Some));
        assert_eq!(seconds(Lane::Trouble, 0), None);
        let long = Escalation { city: Some(Duration::from_secs(3600)), ..policy };
        assert_eq!(long.pause(Lane::City, 3), Some(Duration::from_secs(3600)));
    }
}
