//! The condition of one alarm: is it so, has a human acknowledged it, and when is it over.
//!
//! Owns the state machine of the contract (NORMAL → ACTIVE_UNACK → ACTIVE_ACK → NORMAL, or → CLEARED_UNACK → NORMAL, with
//! latching and UNKNOWN), in the words of ISA-18.2 / IEC 62682. One change of state is one event. It refuses to know
//! what the alarm is about, what time it is and who asks.

use gengfu_contract::event::EventType;
use gengfu_contract::words::{AlarmKind, Condition};
use serde::{Deserialize, Serialize};

/// What it takes to end an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Cleared and acknowledged, in either order: most kinds.
    ClearedAndAcknowledged,
    /// Cleared, then reset by a human: latching kinds whose sensor tells when the cause is gone (smoke, tamper).
    ClearedAndReset,
    /// Reset by a human; no sensor ever tells that the cause is gone (the SOS button).
    Reset,
    /// Acknowledged; it was a moment and not a state (events lost).
    Acknowledged,
    /// Cleared; nobody has to look (a test).
    Cleared,
}

impl Ending {
    /// How alarms of this kind end; `test` for a technical test, which never asks for a human.
    #[must_use]
    pub fn of(kind: AlarmKind, test: bool) -> Self {
        match kind {
            _ if test => Ending::Cleared,
            AlarmKind::Sos => Ending::Reset,
            AlarmKind::EventsLost => Ending::Acknowledged,
            kind if kind.latches() => Ending::ClearedAndReset,
            _ => Ending::ClearedAndAcknowledged,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Presence {
    Active,
    Unknown,
    Cleared,
    Over,
}

/// The state machine of one alarm. It begins ACTIVE_UNACK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    presence: Presence,
    acknowledged: bool,
    ending: Ending,
}

/// What became of a human's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The state changed; this is its event.
    Changed(EventType),
    /// It was so before.
    Already,
    /// The cause is still there, or nobody can tell: the gateway owns the condition.
    StillActive,
    /// This kind is not ended by a reset.
    NotLatched,
}

impl Machine {
    /// A fresh alarm: ACTIVE_UNACK.
    #[must_use]
    pub fn raised(ending: Ending) -> Self {
        Self { presence: Presence::Active, acknowledged: false, ending }
    }

    /// The contract's word for the present state.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match (self.presence, self.acknowledged) {
            (Presence::Active, false) => Condition::ActiveUnack,
            (Presence::Active, true) => Condition::ActiveAck,
            (Presence::Unknown, _) => Condition::Unknown,
            (Presence::Cleared, false) => Condition::ClearedUnack,
            (Presence::Cleared, true) => Condition::ClearedLatched,
            (Presence::Over, _) => Condition::Normal,
        }
    }

    /// True while the cause is there as far as anybody knows (active or unknown).
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.presence, Presence::Active | Presence::Unknown)
    }

    /// True when a human has seen it since it was last raised.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// True when the cause is there and somebody can tell.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.presence == Presence::Active
    }

    /// From now on it ends like this.
    pub fn set_ending(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// It was kept quiet, or believed closed, and is no longer: if the cause is there, a human is asked (again), whoever acknowledged it
    /// before.
    pub fn ask_again(&mut self) -> Option<EventType> {
        (self.presence == Presence::Active).then(|| {
            self.acknowledged = false;
            EventType::AlarmRaised
        })
    }

    /// The cause is there (again). A cleared alarm is raised anew and wants a new acknowledgement; an unknown one is
    /// known again and keeps the one it had.
    pub fn activate(&mut self) -> Option<EventType> {
        match self.presence {
            Presence::Active | Presence::Over => None,
            Presence::Unknown => {
                self.presence = Presence::Active;
                Some(EventType::AlarmUpdated)
            }
            Presence::Cleared => {
                self.presence = Presence::Active;
                self.acknowledged = false;
                Some(EventType::AlarmRaised)
            }
        }
    }

    /// The cause came a second time while it is active: if a human had acknowledged the first, he is asked again.
    pub fn activate_again(&mut self) -> Option<EventType> {
        if self.presence == Presence::Active && self.acknowledged {
            self.acknowledged = false;
            return Some(EventType::AlarmRaised);
        }
        self.activate()
    }

    /// The cause is worse than it was told: if a human had acknowledged it, he is asked again.
    pub fn worsen(&mut self) -> Option<EventType> {
        if self.presence != Presence::Active {
            return self.activate();
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        Some(if acknowledged { EventType::AlarmRaised } else { EventType::AlarmUpdated })
    }

    /// The cause is gone.
    pub fn clear(&mut self) -> Option<EventType> {
        if !self.is_active() {
            return None;
        }
        let over = match self.ending {
            Ending::Cleared => true,
            Ending::ClearedAndAcknowledged | Ending::Acknowledged => self.acknowledged,
            Ending::ClearedAndReset | Ending::Reset => false,
        };
        self.presence = if over { Presence::Over } else { Presence::Cleared };
        Some(if over { EventType::AlarmOver } else { EventType::AlarmCleared })
    }

    /// Nobody can tell any more: the device that saw it is itself in trouble.
    pub fn lose_sight(&mut self) -> Option<EventType> {
        (self.presence == Presence::Active).then(|| {
            self.presence = Presence::Unknown;
            EventType::AlarmUpdated
        })
    }

    /// A human has seen it.
    pub fn acknowledge(&mut self) -> Wish {
        if self.acknowledged || self.presence == Presence::Over {
            return Wish::Already;
        }
        self.acknowledged = true;
        let over = match self.ending {
            Ending::Acknowledged => true,
            Ending::ClearedAndAcknowledged => self.presence == Presence::Cleared,
            Ending::ClearedAndReset | Ending::Reset | Ending::Cleared => false,
        };
        if over {
            self.presence = Presence::Over;
        }
        Wish::Changed(if over { EventType::AlarmOver } else { EventType::AlarmAcknowledged })
    }

    /// A human ends a latched alarm; this acknowledges it too.
    pub fn reset(&mut self) -> Wish {
        let over = match (self.ending, self.presence) {
            (_, Presence::Over) => return Wish::Already,
            (Ending::Reset, _) => true,
            (Ending::ClearedAndReset, presence) => presence == Presence::Cleared,
            _ => return Wish::NotLatched,
        };
        if !over {
            return Wish::StillActive;
        }
        self.acknowledged = true;
        self.presence = Presence::Over;
        Wish::Changed(EventType::AlarmOver)
    }

    /// Ends it whatever its state: what it is about is no longer configured.
    pub fn end(&mut self) -> Option<EventType> {
        (self.presence != Presence::Over).then(|| {
            self.presence = Presence::Over;
            EventType::AlarmOver
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Condition::*;
    use EventType::*;

    /// Plays `steps` on a fresh machine and compares "event condition" after each.
    fn check(ending: Ending, steps: &[(&str, Option<EventType>, Condition)]) {
        let mut machine = Machine::raised(ending);
        assert_eq!(machine.condition(), ActiveUnack);
        for (n, (step, event, condition)) in steps.iter().enumerate() {
            let wish = |wish| match wish {
                Wish::Changed(event) => Some(event),
                _ => None,
            };
            let got = match *step {
                "activate" => machine.activate(),
                "again" => machine.activate_again(),
                "worse" => machine.worsen(),
                "clear" => machine.clear(),
                "blind" => machine.lose_sight(),
                "ack" => wish(machine.acknowledge()),
                "reset" => wish(machine.reset()),
                "end" => machine.end(),
                other => panic!("no step {other}"),
            };
            assert_eq!((got, machine.condition()), (*event, *condition), "{ending:?}, step {n}: {step}");
        }
    }

    #[test]
    fn most_kinds_end_when_cleared_and_acknowledged_in_either_order() {
        let ending = Ending::ClearedAndAcknowledged;
        check(ending, &[("ack", Some(AlarmAcknowledged), ActiveAck), ("clear", Some(AlarmOver), Normal)]);
        check(ending, &[("clear", Some(AlarmCleared), ClearedUnack), ("ack", Some(AlarmOver), Normal)]);
        check(
            ending,
            &[("ack", Some(AlarmAcknowledged), ActiveAck), ("ack", None, ActiveAck), ("reset", None, ActiveAck)],
        );
    }

    #[test]
    fn a_cleared_alarm_whose_cause_returns_is_the_same_alarm_and_asks_again() {
        check(
            Ending::ClearedAndReset,
            &[
                ("ack", Some(AlarmAcknowledged), ActiveAck),
                ("clear", Some(AlarmCleared), ClearedLatched),
                ("clear", None, ClearedLatched),
                ("activate", Some(AlarmRaised), ActiveUnack),
                ("activate", None, ActiveUnack),
            ],
        );
    }

    #[test]
    fn latching_kinds_need_a_reset_after_they_clear() {
        let ending = Ending::ClearedAndReset;
        check(
            ending,
            &[
                ("reset", None, ActiveUnack),
                ("clear", Some(AlarmCleared), ClearedUnack),
                ("ack", Some(AlarmAcknowledged), ClearedLatched),
                ("reset", Some(AlarmOver), Normal),
                ("reset", None, Normal),
                ("activate", None, Normal),
            ],
        );
        check(ending, &[("clear", Some(AlarmCleared), ClearedUnack), ("reset", Some(AlarmOver), Normal)]);
        let mut active = Machine::raised(ending);
        assert_eq!(active.reset(), Wish::StillActive);
    }

    #[test]
    fn an_sos_ends_by_reset_alone_and_a_second_press_asks_again() {
        check(
            Ending::Reset,
            &[
                ("again", None, ActiveUnack),
                ("ack", Some(AlarmAcknowledged), ActiveAck),
                ("again", Some(AlarmRaised), ActiveUnack),
                ("reset", Some(AlarmOver), Normal),
            ],
        );
    }

    #[test]
    fn lost_events_end_when_acknowledged_and_tests_end_by_themselves() {
        check(Ending::Acknowledged, &[("ack", Some(AlarmOver), Normal), ("ack", None, Normal)]);
        check(Ending::Cleared, &[("clear", Some(AlarmOver), Normal), ("clear", None, Normal)]);
    }

    #[test]
    fn what_gets_worse_is_told_and_asks_again_when_it_was_acknowledged() {
        check(
            Ending::ClearedAndAcknowledged,
            &[
                ("worse", Some(AlarmUpdated), ActiveUnack),
                ("ack", Some(AlarmAcknowledged), ActiveAck),
                ("worse", Some(AlarmRaised), ActiveUnack),
                ("blind", Some(AlarmUpdated), Unknown),
                ("worse", Some(AlarmUpdated), ActiveUnack),
                ("clear", Some(AlarmCleared), ClearedUnack),
                ("worse", Some(AlarmRaised), ActiveUnack),
            ],
        );
    }

    #[test]
    fn unknown_returns_to_what_it_was_or_clears() {
        let ending = Ending::ClearedAndAcknowledged;
        check(
            ending,
            &[
                ("ack", Some(AlarmAcknowledged), ActiveAck),
                ("blind", Some(AlarmUpdated), Unknown),
                ("blind", None, Unknown),
                ("activate", Some(AlarmUpdated), ActiveAck),
            ],
        );
        check(
            ending,
            &[
                ("blind", Some(AlarmUpdated), Unknown),
                ("ack", Some(AlarmAcknowledged), Unknown),
                ("clear", Some(AlarmOver), Normal),
            ],
        );
        check(ending, &[("blind", Some(AlarmUpdated), Unknown), ("clear", Some(AlarmCleared), ClearedUnack)]);
        check(ending, &[("clear", Some(AlarmCleared), ClearedUnack), ("blind", None, ClearedUnack)]);
    }

    #[test]
    fn every_kind_that_latches_by_contract_is_ended_by_a_reset_and_no_other() {
        for kind in AlarmKind::ALL {
            let by_reset = matches!(Ending::of(*kind, false), Ending::ClearedAndReset | Ending::Reset);
            assert_eq!(by_reset, kind.latches(), "{kind}");
            assert_eq!(Ending::of(*kind, true), Ending::Cleared);
        }
        check(Ending::ClearedAndReset, &[("end", Some(AlarmOver), Normal), ("end", None, Normal)]);
    }
}
