//! The kinds of sensor a node can have, behind one face.
//!
//! Owns the closed list. Refuses trait objects: a node's sensors are known when it is built, and one enum needs no allocation.

use embedded_hal::digital::InputPin;
use gengfu_wire::{EventKind, Level};

use crate::contact::Contact;
use crate::smoke::Smoke;
use crate::sos::Sos;
use crate::tamper::Tamper;

/// One sensor.
#[derive(Debug)]
pub enum Sensor<P> {
    /// A door contact.
    Contact(Contact<P>),
    /// A smoke alarm's head.
    Smoke(Smoke<P>),
    /// An emergency button.
    Sos(Sos<P>),
    /// The switch under the lid.
    Tamper(Tamper<P>),
}

macro_rules! each {
    ($self:ident, $sensor:ident => $what:expr) => {
        match $self {
            Sensor::Contact($sensor) => $what,
            Sensor::Smoke($sensor) => $what,
            Sensor::Sos($sensor) => $what,
            Sensor::Tamper($sensor) => $what,
        }
    };
}

impl<P: InputPin> Sensor<P> {
    /// Looks at the pins; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        each!(self, sensor => sensor.poll(now_ms))
    }

    /// The settled level; `None` while it is not known, and always for a button.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match self {
            Sensor::Contact(contact) => contact.level(),
            Sensor::Smoke(smoke) => smoke.level(),
            Sensor::Tamper(tamper) => tamper.level(),
            Sensor::Sos(_) => None,
        }
    }

    /// Whether it reports its own fault, or cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        each!(self, sensor => sensor.is_faulty())
    }

    /// When to look again at the latest, if no pin changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        each!(self, sensor => sensor.due_at_ms())
    }
}
