//! What of the engine survives a restart.
//!
//! Owns the keys, the form (JSON, one entry per alarm, device, spot, heap, supervised unit, home, rhythm, side state, remembered alarm and
//! count of rejections, one ledger, one sign of life) and the way back. An entry that cannot be
//! read is reported and dropped; the rest goes on. Refuses to write: it hands out changes, and the caller's store
//! makes them durable.

use std::collections::BTreeSet;
use std::fmt;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::book::{Alarm, Ledger};
use crate::case::Rejected;
use crate::device::Device;
use crate::engine::Engine;
use crate::heap::{Heap, HeapStage};
use crate::output::DiscardStills;
use crate::places::Placed;
use crate::rules::Rules;
use crate::sides::Entry;
use crate::spot::{Spot, Stage};

const ALARM: &str = "alarm/";
const DEVICE: &str = "device/";
const SPOT: &str = "spot/";
const HEAP: &str = "heap/";
const HEARD: &str = "heard/";
const HOME: &str = "home/";
const RHYTHM: &str = "rhythm/";
const ALIVE: &str = "alive";
const LEDGER: &str = "ledger";
/// Shelves and services; the rest of the key is theirs.
const SIDES: [&str; 2] = ["shelf/", "service/"];
const PAST: &str = "past/";
const REJECTED: &str = "rejected/";

/// One entry to write (`Some`) or to remove (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Unique among the engine's entries; ASCII.
    pub key: Vec<u8>,
    /// What to store.
    pub value: Option<Vec<u8>>,
}

/// Something a restart could not take over as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreNote {
    /// The entry is damaged or from an unknown version; it is dropped.
    Unreadable {
        /// Its key.
        key: String,
        /// What was wrong.
        reason: String,
    },
    /// What the entry is about is no longer configured: an alarm ends with the next tick, a memory is dropped.
    NotConfigured {
        /// Its key.
        key: String,
    },
    /// An entry that belongs to another which is missing; an alarm ends with the next tick, a memory is dropped.
    Incomplete {
        /// Its key.
        key: String,
        /// What is missing.
        missing: &'static str,
    },
}

impl fmt::Display for RestoreNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreNote::Unreadable { key, reason } => {
                write!(f, "saved entry {key:?} dropped, it cannot be read: {reason}")
            }
            RestoreNote::NotConfigured { key } => {
                write!(f, "saved entry {key:?} ends: its device or zone is no longer configured")
            }
            RestoreNote::Incomplete { key, missing } => write!(f, "saved entry {key:?} ends: {missing} is missing"),
        }
    }
}

/// Entries that changed and are kept by nobody else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unwritten {
    devices: BTreeSet<Slug>,
    removed: BTreeSet<Vec<u8>>,
}

impl Unwritten {
    pub fn device(&mut self, name: &Slug) {
        if !self.devices.contains(name) {
            self.devices.insert(name.clone());
        }
    }
}

impl Engine {
    /// What changed since the last call. Write it in the same atomic batch as the outputs that came with it, or a
    /// restart repeats or
    /// forgets a transition.
    pub fn take_changes(&mut self) -> Vec<StateChange> {
        let mut changes: Vec<StateChange> = std::mem::take(&mut self.unwritten.removed)
            .into_iter()
            .map(|key| StateChange { key, value: None })
            .collect();
        changes.extend(self.book.take_dirty_ledger().map(|ledger| change(LEDGER.to_owned(), Some(ledger))));
        for id in self.book.take_dirty() {
            changes.push(change(format!("{ALARM}{id}"), self.book.get(&id)));
        }
        for name in std::mem::take(&mut self.unwritten.devices) {
            changes.push(change(format!("{DEVICE}{name}"), self.devices.get(&name)));
        }
        changes.extend(self.watch.take_dirty_alive().map(|at| change(ALIVE.to_owned(), Some(&at))));
        for (name, heard) in self.watch.take_dirty() {
            changes.push(change(format!("{HEARD}{name}"), Some(&heard)));
        }
        for door in self.homes.take_dirty_homes() {
            changes.push(change(format!("{HOME}{door}"), self.homes.homes.get(&door)));
        }
        for door in self.homes.take_dirty_rhythms() {
            changes.push(change(format!("{RHYTHM}{door}"), self.homes.rhythms.get(&door)));
        }
        for (key, entry) in self.book.sides_mut().take_dirty() {
            changes.push(change(key, entry.as_ref()));
        }
        for (id, past) in self.book.cases.take_dirty_past() {
            changes.push(change(format!("{PAST}{id}"), past.as_ref()));
        }
        for rejected in self.book.cases.take_dirty_rejected() {
            changes.push(change(rejected_key(&rejected), Some(&rejected)));
        }
        for serial in self.spots.take_dirty() {
            changes.push(change(spot_key(serial), self.spots.get(serial)));
        }
        for serial in self.heaps.take_dirty() {
            changes.push(change(heap_key(serial), self.heaps.get(serial)));
        }
        changes
    }

    /// An engine that goes on where the one that wrote `saved` stopped, under rules that may have changed. Never
    /// fails: what cannot be taken
    /// over is told in the notes (log them), and what they drop is removed by the next [`Engine::take_changes`].
    #[must_use]
    pub fn restore(rules: Rules, saved: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> (Engine, Vec<RestoreNote>) {
        let mut engine = Engine::new(rules);
        let mut notes = Vec::new();
        for (key, value) in saved {
            let name = String::from_utf8_lossy(&key).into_owned();
            if let Err(note) = engine.take_back(&name, &value) {
                engine.unwritten.removed.insert(key);
                notes.push(note);
            }
        }
        engine.reconcile(&mut notes);
        (engine, notes)
    }

    fn take_back(&mut self, key: &str, value: &[u8]) -> Result<(), RestoreNote> {
        let unreadable = |reason: &str| RestoreNote::Unreadable { key: key.to_owned(), reason: reason.to_owned() };
        if key == LEDGER {
            self.book.take_back_ledger(read::<Ledger>(key, value)?);
        } else if let Some(id) = key.strip_prefix(ALARM) {
            let alarm: Alarm = read(key, value)?;
            if alarm.data.alarm_id != id {
                return Err(unreadable("the alarm inside has another id"));
            }
            if !self.book.take_back(alarm) {
                return Err(unreadable("it is over, or another alarm is about the same"));
            }
        } else if let Some(name) = key.strip_prefix(DEVICE) {
            let name = Slug::new(name).map_err(|error| unreadable(&error.to_string()))?;
            let device: Device = read(key, value)?;
            if !self.rules.devices.contains_key(&name) {
                return Err(RestoreNote::NotConfigured { key: key.to_owned() });
            }
            self.devices.insert(name, device);
        } else if key == ALIVE {
            self.watch.take_back_alive(read(key, value)?);
        } else if let Some(name) = key.strip_prefix(HEARD) {
            let name = Slug::new(name).map_err(|error| unreadable(&error.to_string()))?;
            if !self.watch.take_back(&name, read(key, value)?) {
                return Err(RestoreNote::NotConfigured { key: key.to_owned() });
            }
        } else if let Some(door) = key.strip_prefix(HOME).or_else(|| key.strip_prefix(RHYTHM)) {
            let door = Slug::new(door).map_err(|error| unreadable(&error.to_string()))?;
            let configured = self.rules.timing.care.homes.contains_key(&door);
            if key.starts_with(HOME) {
                let home = read(key, value)?;
                configured.then(|| self.homes.homes.insert(door, home));
            } else {
                let rhythm = read(key, value)?;
                configured.then(|| self.homes.rhythms.insert(door, rhythm));
            }
            if !configured {
                return Err(RestoreNote::NotConfigured { key: key.to_owned() });
            }
        } else if SIDES.iter().any(|prefix| key.starts_with(prefix)) {
            self.take_back_side(key, read(key, value)?)?;
        } else if let Some(id) = key.strip_prefix(PAST) {
            self.book.cases.take_back_past(id, read(key, value)?);
        } else if key.starts_with(REJECTED) {
            let rejected: Rejected = read(key, value)?;
            if rejected_key(&rejected) != key {
                return Err(unreadable("the entry inside belongs under another key"));
            }
            self.book.cases.take_back_rejected(rejected);
        } else if key.starts_with(SPOT) {
            let spot: Spot = read(key, value)?;
            if spot_key(spot.serial) != key {
                return Err(unreadable("the spot inside has another number"));
            }
            self.spots.take_back(spot);
        } else if key.starts_with(HEAP) {
            let heap: Heap = read(key, value)?;
            if heap_key(heap.serial) != key {
                return Err(unreadable("the heap inside has another number"));
            }
            self.heaps.take_back(heap);
        } else {
            return Err(unreadable("no such kind of entry in this version"));
        }
        Ok(())
    }

    fn take_back_side(&mut self, key: &str, entry: Entry) -> Result<(), RestoreNote> {
        let device = match &entry {
            Entry::Shelf { shelf, .. } => &shelf.device,
            Entry::Service { device, .. } => device,
        };
        if !self.rules.devices.contains_key(device) && *device != self.rules.gateway {
            return Err(RestoreNote::NotConfigured { key: key.to_owned() });
        }
        if !self.book.sides_mut().take_back(key, entry) {
            let reason = "the entry inside belongs under another key".to_owned();
            return Err(RestoreNote::Unreadable { key: key.to_owned(), reason });
        }
        Ok(())
    }

    /// Ends alarms and drops spots and heaps that have lost their device, zone or counterpart.
    fn reconcile(&mut self, notes: &mut Vec<RestoreNote>) {
        let numbered = self.book.iter().filter_map(|alarm| alarm.subject.spot);
        let numbered =
            numbered.chain(self.spots.iter().map(Placed::serial)).chain(self.heaps.iter().map(Placed::serial));
        let highest = numbered.max().unwrap_or(0);
        self.drop_spots(notes);
        self.drop_heaps(notes);
        self.book.spots_are_numbered_to(highest);
        for alarm in self.book.iter() {
            let key = format!("{ALARM}{}", alarm.data.alarm_id);
            let subject = &alarm.subject;
            let configured = match &subject.zone {
                Some(zone) => self.rules.zone(&subject.device, zone).is_some_and(|rule| rule.kind.makes(subject.kind)),
                None if is_care(subject.kind) => self.rules.timing.care.homes.contains_key(&subject.device),
                // The gateway's own troubles are about itself.
                None => subject.device == self.rules.gateway || self.rules.devices.contains_key(&subject.device),
            };
            // Without the clock that raised it, nothing would ever clear it.
            let clockless = subject.kind == AlarmKind::NotOpened
                && alarm.machine.is_active()
                && !self.homes.homes.contains_key(&subject.device);
            // A cleared alarm only waits for a human and needs no spot; one that is active could never clear without.
            let spotless = alarm.machine.is_active() && subject.spot.is_some_and(|serial| !self.has_place(serial));
            if !configured {
                notes.push(RestoreNote::NotConfigured { key });
            } else if spotless {
                notes.push(RestoreNote::Incomplete { key, missing: "its place in the picture" });
            } else if clockless {
                notes.push(RestoreNote::Incomplete { key, missing: "the home's clock" });
            } else {
                continue;
            }
            self.orphans.push(alarm.data.alarm_id.clone());
        }
    }
}

impl Engine {
    fn has_place(&self, serial: u64) -> bool {
        self.spots.get(serial).is_some() || self.heaps.get(serial).is_some()
    }

    /// Why a place cannot go on: its zone is about something else now, or its alarm is lost. One that is cleared outlives its alarm for a
    /// moment; the next picture drops it.
    fn flaw(&self, key: String, is_of_zone: bool, needs_alarm: Option<&String>) -> Option<RestoreNote> {
        if !is_of_zone {
            Some(RestoreNote::NotConfigured { key })
        } else if needs_alarm.is_some_and(|id| self.book.get(id).is_none()) {
            Some(RestoreNote::Incomplete { key, missing: "its alarm" })
        } else {
            None
        }
    }

    fn drop_spots(&mut self, notes: &mut Vec<RestoreNote>) {
        let flaw = |spot: &Spot| {
            let rule = self.rules.zone(&spot.camera, &spot.zone);
            let needed = if let Stage::Raised { alarm_id } = &spot.stage { Some(alarm_id) } else { None };
            let is_of_zone = rule.is_some_and(|rule| rule.kind.makes(spot.kind));
            let note = self.flaw(spot_key(spot.serial), is_of_zone, needed)?;
            let unseen = matches!(spot.stage, Stage::Waiting | Stage::Asked { .. });
            Some((spot.serial, note, discarded(&spot.camera, spot.alarm_id.as_ref().filter(|_| unseen))))
        };
        let doomed: Vec<_> = self.spots.iter().filter_map(flaw).collect();
        for (serial, note, stills) in doomed {
            self.spots.remove(serial);
            self.orphan_stills.extend(stills);
            notes.push(note);
        }
    }

    fn drop_heaps(&mut self, notes: &mut Vec<RestoreNote>) {
        let flaw = |heap: &Heap| {
            let rule = self.rules.zone(&heap.camera, &heap.zone);
            let (needed, unseen) = match &heap.stage {
                HeapStage::Raised { alarm_id } | HeapStage::Clearing { alarm_id, .. } => (Some(alarm_id), false),
                HeapStage::Gathering | HeapStage::Asked { .. } => (None, true),
                HeapStage::Cleared { .. } => (None, false),
            };
            let is_of_zone = rule.is_some_and(|rule| rule.kind.makes(heap.kind));
            let note = self.flaw(heap_key(heap.serial), is_of_zone, needed)?;
            Some((heap.serial, note, discarded(&heap.camera, heap.alarm_id.as_ref().filter(|_| unseen))))
        };
        let doomed: Vec<_> = self.heaps.iter().filter_map(flaw).collect();
        for (serial, note, stills) in doomed {
            self.heaps.remove(serial);
            self.orphan_stills.extend(stills);
            notes.push(note);
        }
    }
}

fn discarded(camera: &Slug, alarm_id: Option<&String>) -> Option<DiscardStills> {
    alarm_id.map(|alarm_id| DiscardStills { camera: camera.clone(), alarm_id: alarm_id.clone() })
}

fn heap_key(serial: u64) -> String {
    format!("{HEAP}{serial:020}")
}

/// Kinds that only a home with a care rule has.
fn is_care(kind: AlarmKind) -> bool {
    matches!(kind, AlarmKind::NotOpened | AlarmKind::NightExit | AlarmKind::NightFrequency)
}

fn rejected_key(rejected: &Rejected) -> String {
    format!("{REJECTED}{}/{}", rejected.device, rejected.kind)
}

fn spot_key(serial: u64) -> String {
    format!("{SPOT}{serial:020}")
}

fn change(key: String, entry: Option<&impl Serialize>) -> StateChange {
    let value =
        entry.map(|entry| serde_json::to_vec(entry).expect("entries are maps with text keys and finite numbers"));
    StateChange { key: key.into_bytes(), value }
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RestoreNote> {
    serde_json::from_slice(value)
        .map_err(|error| RestoreNote::Unreadable { key: key.to_owned(), reason: error.to_string() })
}
