//! The kinds of sensor a node can have, behind one face.
//!
//! Owns the closed list. Refuses trait objects: a node's sensors are known when it is built, and one enum needs no allocation.

use core::fmt;

use gengfu_wire::{EventKind, Level};

use crate::contact::Contact;
use crate::heat::Heat;
use crate::node::Board;
use crate::smoke::Smoke;
use crate::sos::Sos;
use crate::tamper::Tamper;

/// One sensor of a board.
pub enum Sensor<B: Board> {
    /// A door contact.
    Contact(Contact<B::Pin>),
    /// A smoke alarm's head.
    Smoke(Smoke<B::Pin, B::Output>),
    /// An emergency button.
    Sos(Sos<B::Pin>),
    /// The switch under the lid.
    Tamper(Tamper<B::Pin>),
    /// A heat detector.
    Heat(Heat<B::Thermometer>),
}

impl<B: Board> fmt::Debug for Sensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Sensor::Contact(_) => "Contact",
            Sensor::Smoke(_) => "Smoke",
            Sensor::Sos(_) => "Sos",
            Sensor::Tamper(_) => "Tamper",
            Sensor::Heat(_) => "Heat",
        };
        f.debug_struct(kind).field("level", &self.level()).field("fault", &self.is_faulty()).finish()
    }
}

impl<B: Board> Sensor<B> {
    /// Looks at the pins; gives at most one event a call.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        match self {
            Sensor::Contact(contact) => contact.poll(now_ms),
            Sensor::Smoke(smoke) => smoke.poll(now_ms),
            Sensor::Sos(sos) => sos.poll(now_ms),
            Sensor::Tamper(tamper) => tamper.poll(now_ms),
            Sensor::Heat(heat) => heat.poll(now_ms),
        }
    }

    /// The settled level; `None` while it is not known, and always for a button.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match self {
            Sensor::Contact(contact) => contact.level(),
            Sensor::Smoke(smoke) => smoke.level(),
            Sensor::Tamper(tamper) => tamper.level(),
            Sensor::Heat(heat) => heat.level(),
            Sensor::Sos(_) => None,
        }
    }

    /// Begins a test that the gateway asked for; false when this sensor has none, or refuses now.
    pub fn begin_test(&mut self, now_ms: u64) -> bool {
        match self {
            Sensor::Smoke(smoke) => smoke.begin_test(now_ms),
            Sensor::Heat(heat) => heat.begin_test(now_ms),
            Sensor::Contact(_) | Sensor::Sos(_) | Sensor::Tamper(_) => false,
        }
    }

    /// Whether it reports its own fault, or cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        match self {
            Sensor::Contact(contact) => contact.watched().is_faulty(),
            Sensor::Smoke(smoke) => smoke.is_faulty(),
            Sensor::Sos(sos) => sos.watched().is_faulty(),
            Sensor::Tamper(tamper) => tamper.watched().is_faulty(),
            Sensor::Heat(heat) => heat.is_faulty(),
        }
    }

    /// When to look again at the latest, if no pin changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        match self {
            Sensor::Contact(contact) => contact.watched().due_at_ms(),
            Sensor::Smoke(smoke) => smoke.due_at_ms(),
            Sensor::Sos(sos) => sos.watched().due_at_ms(),
            Sensor::Tamper(tamper) => tamper.watched().due_at_ms(),
            Sensor::Heat(heat) => heat.due_at_ms(),
        }
    }
}
