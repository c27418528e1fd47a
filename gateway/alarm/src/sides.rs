//! States beside the condition: somebody decided that an alarm does not count for a while.
//!
//! Owns what is shelved (by the centre: one kind of one device, at most 8 h), what is out of service (by a technician: one device,
//! at most 4 h) and what is being tested (one device, at most 30 min), until when, why and by whom. All three end by themselves. Refuses to hide a life: smoke,
//! SOS and an overdue receipt cannot be shelved. Nothing is lost meanwhile: an alarm whose cause comes is tracked and told as
//! `shelved` in place of `raised`, and when the side state ends while the cause is still there it is raised.
//!
//! Source: ANSI/ISA-18.2-2016, shelving and out-of-service; the limits are the contract's.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::event::{Side, SideState};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::book::Subject;

/// Longest shelving.
pub const SHELVE_MAX: SignedDuration = SignedDuration::from_hours(8);
/// Longest time out of service.
pub const SERVICE_MAX: SignedDuration = SignedDuration::from_hours(4);
/// Longest test: a device must not stay a test while it may be needed.
pub const TEST_MAX: SignedDuration = SignedDuration::from_mins(30);

/// What may be shelved: a kind of alarm of a device, in one zone of it or in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shelf {
    /// The device.
    pub device: Slug,
    /// The kind.
    pub kind: AlarmKind,
    /// One zone of a camera; `None`: all.
    pub zone: Option<Slug>,
}

impl Shelf {
    /// True when the alarm's device, kind and zone are meant.
    #[must_use]
    pub fn holds(&self, device: &Slug, kind: AlarmKind, zone: Option<&Slug>) -> bool {
        self.device == *device && self.kind == kind && (self.zone.is_none() || self.zone.as_ref() == zone)
    }
}

/// What a technician may do to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Its alarms are tracked and not raised.
    Out,
    /// Its new alarms are CAP Test.
    Test,
}

impl Service {
    /// The longest time.
    #[must_use]
    pub fn longest(self) -> SignedDuration {
        match self {
            Service::Out => SERVICE_MAX,
            Service::Test => TEST_MAX,
        }
    }

    /// The contract's word.
    #[must_use]
    pub fn state(self) -> SideState {
        match self {
            Service::Out => SideState::OutOfService,
            Service::Test => SideState::Test,
        }
    }
}

/// Until when, why and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// It ends by itself then.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
    /// Who said so; opaque.
    pub who: String,
}

impl Terms {
    fn side(&self, state: SideState) -> Side {
        Side { state, until: self.until, reason: self.reason.clone(), who: self.who.clone() }
    }
}

/// One of both, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    Shelf { shelf: Shelf, terms: Terms },
    Service { device: Slug, service: Service, terms: Terms },
}

/// What does not count now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sides {
    shelves: BTreeMap<Shelf, Terms>,
    services: BTreeMap<Slug, (Service, Terms)>,
    dirty: BTreeSet<String>,
}

impl Sides {
    /// The side state that holds for alarms about `subject`. Out of service goes before shelved, both before a test.
    pub fn of(&self, subject: &Subject) -> Option<Side> {
        let service = self.services.get(&subject.device);
        if let Some((Service::Out, terms)) = service {
            return Some(terms.side(SideState::OutOfService));
        }
        // The wider shelf and the one for the zone may both hold: the later end counts.
        let shelves =
            self.shelves.iter().filter(|(shelf, _)| shelf.holds(&subject.device, subject.kind, subject.zone.as_ref()));
        let shelved =
            shelves.map(|(_, terms)| terms).max_by_key(|terms| terms.until).filter(|_| may_be_shelved(subject.kind));
        shelved
            .map(|terms| terms.side(SideState::Shelved))
            .or_else(|| service.map(|(service, terms)| terms.side(service.state())))
    }

    /// The service state of a device, for its own retained state.
    pub fn of_device(&self, device: &Slug) -> Option<Side> {
        self.services.get(device).map(|(service, terms)| terms.side(service.state()))
    }

    pub fn shelves(&self) -> impl Iterator<Item = (&Shelf, &Terms)> {
        self.shelves.iter()
    }

    pub fn services(&self) -> impl Iterator<Item = (&Slug, Service, &Terms)> {
        self.services.iter().map(|(device, (service, terms))| (device, *service, terms))
    }

    pub fn shelve(&mut self, shelf: Shelf, terms: Terms) {
        self.dirty.insert(shelf_key(&shelf));
        self.shelves.insert(shelf, terms);
    }

    pub fn unshelve(&mut self, shelf: &Shelf) -> bool {
        self.dirty.insert(shelf_key(shelf));
        self.shelves.remove(shelf).is_some()
    }

    pub fn serve(&mut self, device: &Slug, service: Service, terms: Terms) -> Option<Service> {
        self.dirty.insert(service_key(device));
        self.services.insert(device.clone(), (service, terms)).map(|(before, _)| before)
    }

    pub fn unserve(&mut self, device: &Slug) -> Option<Service> {
        let ended = self.services.remove(device).map(|(service, _)| service);
        if ended.is_some() {
            self.dirty.insert(service_key(device));
        }
        ended
    }

    /// What is over by `now`.
    pub fn due(&self, now: Timestamp) -> (Vec<Shelf>, Vec<Slug>) {
        let shelves = self.shelves.iter().filter(|(_, terms)| terms.until <= now).map(|(shelf, _)| shelf.clone());
        let services =
            self.services.iter().filter(|(_, (_, terms))| terms.until <= now).map(|(device, _)| device.clone());
        (shelves.collect(), services.collect())
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        let services = self.services.values().map(|(_, terms)| terms.until);
        self.shelves.values().map(|terms| terms.until).chain(services).min()
    }

    /// After a clock that was set back: nothing lies further ahead than its limit allows. (A step that is told moves nothing: the end is a
    /// time of day that a human named.)
    pub fn rein(&mut self, now: Timestamp) {
        for (shelf, terms) in &mut self.shelves {
            if rein(terms, now, SHELVE_MAX) {
                self.dirty.insert(shelf_key(shelf));
            }
        }
        for (device, (service, terms)) in &mut self.services {
            if rein(terms, now, service.longest()) {
                self.dirty.insert(service_key(device));
            }
        }
    }

    /// Keys that changed since the last call, with what is to be kept.
    pub fn take_dirty(&mut self) -> Vec<(String, Option<Entry>)> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (shelf, terms) in &self.shelves {
            let entry = Entry::Shelf { shelf: shelf.clone(), terms: terms.clone() };
            entries.insert(shelf_key(shelf), entry);
        }
        for (device, (service, terms)) in &self.services {
            let entry = Entry::Service { device: device.clone(), service: *service, terms: terms.clone() };
            entries.insert(service_key(device), entry);
        }
        std::mem::take(&mut self.dirty).into_iter().map(|key| (key.clone(), entries.remove(&key))).collect()
    }

    /// Takes back what was written down under `key`; false when the entry belongs under another.
    pub fn take_back(&mut self, key: &str, entry: Entry) -> bool {
        match entry {
            Entry::Shelf { shelf, terms } if shelf_key(&shelf) == key => self.shelves.insert(shelf, terms).is_none(),
            Entry::Service { device, service, terms } if service_key(&device) == key => {
                self.services.insert(device, (service, terms)).is_none()
            }
            _ => false,
        }
    }
}

/// Whether this kind may be shelved at all: never what saves a life.
#[must_use]
pub fn may_be_shelved(kind: AlarmKind) -> bool {
    !kind.lane().is_life_safety() && kind != AlarmKind::TxOverdue
}

/// True for a side state under which nothing is raised.
pub(crate) fn is_quiet(side: Option<&Side>) -> bool {
    side.is_some_and(|side| matches!(side.state, SideState::Shelved | SideState::OutOfService))
}

fn rein(terms: &mut Terms, now: Timestamp, longest: SignedDuration) -> bool {
    let latest = crate::time::shifted(now, longest);
    let is_too_far = terms.until > latest;
    terms.until = terms.until.min(latest);
    is_too_far
}

fn shelf_key(shelf: &Shelf) -> String {
    let zone = shelf.zone.as_ref().map_or("", Slug::as_str);
    format!("shelf/{}/{}/{zone}", shelf.device, shelf.kind)
}

fn service_key(device: &Slug) -> String {
    format!("service/{device}")
}
