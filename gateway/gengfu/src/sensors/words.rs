//! The words in which profiles say what a value means.
//!
//! Owns the closed vocabulary (`door.open`, `smoke.alarm`, ...), the facts it stands for, and what a raw value becomes by it. Refuses to
//! guess: a value that the profile does not name is [`Fact::Unknown`], which makes the device faulty and never "all well".

use std::collections::BTreeMap;

use crate::config::DeviceClass;

/// One thing about a device that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Facet {
    /// On: open.
    Door,
    /// On: smoke (or heat) is sensed.
    Smoke,
    /// On: the test button's alarm.
    Test,
    /// On: silenced by hand.
    Hush,
    /// On: the emergency button is held or latched.
    Sos,
    /// On: the case is open, or the device is off its base.
    Tamper,
    /// On: the device reports a fault of its own.
    Fault,
    /// On: the smoke chamber is dirty.
    Contaminated,
    /// On: the service life is over.
    EndOfLife,
    /// On: the battery is low by the device's own judgement.
    BatteryLow,
    /// On: what stands between us and the device says that it is there.
    Online,
}

/// What one value says.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A level.
    Level(Facet, bool),
    /// The emergency button was pressed: a moment, not a level.
    Press,
    /// Battery voltage, millivolts.
    BatteryMv(u32),
    /// Battery charge, 0 to 100.
    BatteryPercent(u8),
    /// A known value that says nothing but that the device lives.
    Known,
    /// An input's circuit is closed; what that means is the device's class (see [`contact`]).
    Contact(bool),
    /// A value that the profile does not name: where it was found, and what it was.
    Unknown {
        /// As in "/object/event" or "input 3".
        place: String,
        /// The value, shortened.
        value: String,
    },
}

/// A fact and the value of the profile it came from. Several values of a profile may speak of one facet; it is on while any of them says so, but
/// of a door and of being online the last word counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Position of the value in its profile.
    pub source: u16,
    /// What it says.
    pub fact: Fact,
}

/// How a raw value is understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// Each known value has its words.
    States(BTreeMap<String, Vec<Fact>>),
    /// A measured number, after `scale` and `offset`.
    Number {
        /// What is measured.
        quantity: Quantity,
        /// Multiplies the raw value.
        scale: f64,
        /// Is added afterwards.
        offset: f64,
    },
    /// A dry contact: true or 1 is a closed circuit.
    Contact,
    /// Whatever it is, the device lives.
    Alive,
}

/// What a number measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// Millivolts; low below the limit, where one is given.
    BatteryMv {
        /// Millivolts.
        low_below: Option<f64>,
    },
    /// 0 to 100; low below the limit.
    BatteryPercent {
        /// Percent.
        low_below: f64,
    },
    /// Anything that tells a fire by its height: density, °C. Between the limits nothing changes.
    Fire {
        /// Alarm at or above this.
        alarm_from: f64,
        /// No alarm below this.
        clear_below: f64,
    },
}

/// A raw value, as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// Text, a truth value or a whole number, as text.
    Text(String),
    /// A number.
    Number(f64),
}

/// Every word, with what it stands for and the classes that may say it.
const WORDS: [(&str, Fact); 24] = [
    ("door.open", Fact::Level(Facet::Door, true)),
    ("door.closed", Fact::Level(Facet::Door, false)),
    ("smoke.alarm", Fact::Level(Facet::Smoke, true)),
    ("smoke.clear", Fact::Level(Facet::Smoke, false)),
    ("test.on", Fact::Level(Facet::Test, true)),
    ("test.off", Fact::Level(Facet::Test, false)),
    ("hush.on", Fact::Level(Facet::Hush, true)),
    ("hush.off", Fact::Level(Facet::Hush, false)),
    ("sos.pressed", Fact::Press),
    ("sos.held", Fact::Level(Facet::Sos, true)),
    ("sos.released", Fact::Level(Facet::Sos, false)),
    ("tamper.open", Fact::Level(Facet::Tamper, true)),
    ("tamper.closed", Fact::Level(Facet::Tamper, false)),
    ("fault.on", Fact::Level(Facet::Fault, true)),
    ("fault.off", Fact::Level(Facet::Fault, false)),
    ("contaminated.on", Fact::Level(Facet::Contaminated, true)),
    ("contaminated.off", Fact::Level(Facet::Contaminated, false)),
    ("end_of_life.on", Fact::Level(Facet::EndOfLife, true)),
    ("end_of_life.off", Fact::Level(Facet::EndOfLife, false)),
    ("battery.low", Fact::Level(Facet::BatteryLow, true)),
    ("battery.ok", Fact::Level(Facet::BatteryLow, false)),
    ("online", Fact::Level(Facet::Online, true)),
    ("offline", Fact::Level(Facet::Online, false)),
    ("alive", Fact::Known),
];

/// The words, for a remedy.
#[must_use]
pub fn all_words() -> String {
    WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

/// What a word stands for.
#[must_use]
pub fn word(text: &str) -> Option<Fact> {
    WORDS.iter().find(|(word, _)| *word == text).map(|(_, fact)| fact.clone())
}

/// Whether a device of this class may say such a thing; `None` is a unit itself, which has a case, a battery and faults only.
#[must_use]
pub fn fits(class: Option<DeviceClass>, fact: &Fact) -> bool {
    match fact {
        Fact::Level(Facet::Door, _) => class == Some(DeviceClass::Door),
        Fact::Level(Facet::Smoke | Facet::Test | Facet::Hush, _) => class == Some(DeviceClass::Smoke),
        Fact::Level(Facet::Sos, _) | Fact::Press => class == Some(DeviceClass::Sos),
        Fact::Contact(_) => class.is_some(),
        Fact::Level(..) | Fact::BatteryMv(_) | Fact::BatteryPercent(_) | Fact::Known | Fact::Unknown { .. } => true,
    }
}

/// What a dry contact means for a class: a closed circuit is a closed door (the magnet holds the reed), smoke (the head's relay), a pressed
/// button. `inverted` where it is wired the other way round, as a relay that falls open on alarm.
#[must_use]
pub fn contact(class: DeviceClass, closed: bool, inverted: bool) -> Fact {
    let closed = closed != inverted;
    match class {
        DeviceClass::Door => Fact::Level(Facet::Door, !closed),
        DeviceClass::Smoke => Fact::Level(Facet::Smoke, closed),
        DeviceClass::Sos => Fact::Level(Facet::Sos, closed),
    }
}

impl Meaning {
    /// What `raw`, found at `place`, says. Never panics, whatever the value.
    #[must_use]
    pub fn read(&self, place: &str, raw: &Raw) -> Vec<Fact> {
        let unknown = || vec![Fact::Unknown { place: place.to_owned(), value: raw.shown() }];
        match self {
            Meaning::States(states) => states.get(&raw.key()).cloned().unwrap_or_else(unknown),
            Meaning::Alive => vec![Fact::Known],
            Meaning::Contact => match raw.key().as_str() {
                "1" | "true" => vec![Fact::Contact(true)],
                "0" | "false" => vec![Fact::Contact(false)],
                _ => unknown(),
            },
            Meaning::Number { quantity, scale, offset } => {
                let number = raw.number().map(|n| n * scale + offset).filter(|n| n.is_finite());
                number.and_then(|n| quantity.read(n)).unwrap_or_else(unknown)
            }
        }
    }

    /// Every fact it can yield, for checking a profile.
    #[must_use]
    pub fn possible(&self) -> Vec<Fact> {
        match self {
            Meaning::States(states) => states.values().flatten().cloned().collect(),
            Meaning::Contact => vec![Fact::Contact(true)],
            Meaning::Alive => vec![Fact::Known],
            Meaning::Number { quantity: Quantity::Fire { .. }, .. } => vec![Fact::Level(Facet::Smoke, true)],
            Meaning::Number { quantity: Quantity::BatteryMv { .. }, .. } => vec![Fact::BatteryMv(0)],
            Meaning::Number { quantity: Quantity::BatteryPercent { .. }, .. } => vec![Fact::BatteryPercent(0)],
        }
    }
}

impl Quantity {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "each cast stands behind its range")]
    fn read(&self, n: f64) -> Option<Vec<Fact>> {
        match self {
            Quantity::BatteryMv { low_below } if (0.0..=100_000.0).contains(&n) => {
                let low = low_below.map(|limit| Fact::Level(Facet::BatteryLow, n < limit));
                Some(std::iter::once(Fact::BatteryMv(n.round() as u32)).chain(low).collect())
            }
            Quantity::BatteryPercent { low_below } if (0.0..=100.0).contains(&n) => {
                Some(vec![Fact::BatteryPercent(n.round() as u8), Fact::Level(Facet::BatteryLow, n < *low_below)])
            }
            Quantity::Fire { alarm_from, .. } if n >= *alarm_from => Some(vec![Fact::Level(Facet::Smoke, true)]),
            Quantity::Fire { clear_below, .. } if n < *clear_below => Some(vec![Fact::Level(Facet::Smoke, false)]),
            Quantity::Fire { .. } => Some(vec![Fact::Known]),
            Quantity::BatteryMv { .. } | Quantity::BatteryPercent { .. } => None,
        }
    }
}

impl Raw {
    /// As a key of `states`: whole numbers without a point, so that 1 and 1.0 are one value.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Raw::Text(text) => text.clone(),
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53 by the guard")]
            Raw::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).to_string(),
            Raw::Number(n) => n.to_string(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Raw::Number(n) => Some(*n),
            Raw::Text(text) => text.trim().parse().ok(),
        }
    }

    /// For a message: at most 40 characters, nothing that moves a terminal's cursor.
    fn shown(&self) -> String {
        self.key().chars().map(|c| if c.is_control() { '?' } else { c }).take(40).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_one_point_zero_are_one_value_and_an_unnamed_value_is_no_state() {
        let open = Fact::Level(Facet::Door, true);
        let meaning = Meaning::States([("1".to_owned(), vec![open.clone()])].into());
        let open = [open];
        assert_eq!(meaning.read("x", &Raw::Number(1.0)), open);
        assert_eq!(meaning.read("x", &Raw::Text("1".into())), open);
        let unknown = meaning.read("x", &Raw::Text("ajar\u{1b}[2J".into()));
        assert_eq!(unknown, [Fact::Unknown { place: "x".into(), value: "ajar?[2J".into() }]);
    }

    #[test]
    fn a_number_out_of_range_is_no_battery_and_between_the_limits_a_fire_stays_as_it_is() {
        let percent =
            Meaning::Number { quantity: Quantity::BatteryPercent { low_below: 15.0 }, scale: 1.0, offset: 0.0 };
        assert!(matches!(percent.read("b", &Raw::Number(255.0))[0], Fact::Unknown { .. }));
        assert_eq!(percent.read("b", &Raw::Number(14.0))[1], Fact::Level(Facet::BatteryLow, true));
        let heat = Quantity::Fire { alarm_from: 57.0, clear_below: 50.0 };
        let heat = Meaning::Number { quantity: heat, scale: 0.1, offset: 0.0 };
        assert_eq!(heat.read("t", &Raw::Number(570.0)), [Fact::Level(Facet::Smoke, true)]);
        assert_eq!(heat.read("t", &Raw::Number(550.0)), [Fact::Known]);
        assert_eq!(heat.read("t", &Raw::Number(-100.0)), [Fact::Level(Facet::Smoke, false)]);
    }

    #[test]
    fn a_closed_circuit_means_what_the_class_says() {
        assert_eq!(contact(DeviceClass::Door, true, false), Fact::Level(Facet::Door, false));
        assert_eq!(contact(DeviceClass::Smoke, true, false), Fact::Level(Facet::Smoke, true));
        assert_eq!(contact(DeviceClass::Smoke, false, true), Fact::Level(Facet::Smoke, true));
    }
}
