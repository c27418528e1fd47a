//! What is remembered of one device between two observations.
//!
//! Owns the readings and the running timers of a device, and what of them must survive a restart. Refuses judgement:
//! the modules in `rule` read and write these memories.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::event::{ClockQuality, Origin};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::observation::Smoke;
use crate::rules::DeviceClass;
use crate::time::{after, ms, shifted};

/// A running timer. It never lies further ahead than its full length, so that a clock set back delays it by at most that,
/// and never fires it early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub due_at: Timestamp,
    span_ms: u64,
}

impl Timer {
    /// Runs `span` from `from`, which may lie in the past, and at most `span` from `now`.
    pub fn start(now: Timestamp, from: Timestamp, span: Duration) -> Self {
        Self { due_at: after(from.min(now), span), span_ms: ms(span) }
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due_at <= now
    }

    /// Not before `at`.
    pub fn hold_until(&mut self, at: Timestamp) {
        self.due_at = self.due_at.max(at);
    }

    pub fn rein(&mut self, now: Timestamp) -> bool {
        let latest = after(now, Duration::from_millis(self.span_ms));
        let too_far = self.due_at > latest;
        if too_far {
            self.due_at = latest;
        }
        too_far
    }
}

/// A door's contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Door {
    pub open: bool,
    pub changed_at: Timestamp,
    /// Runs while it stands open and is no alarm yet.
    pub limit: Option<Timer>,
    pub clock: ClockQuality,
    pub origin: Option<Origin>,
    /// True when the opening was read from a heartbeat: it is not older than this, but its edge is lost.
    pub repaired: bool,
    /// When it was last seen to open.
    #[serde(default)]
    pub opened_at: Option<Timestamp>,
}

/// A smoke alarm's head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SmokeHead {
    pub reading: Option<Smoke>,
    /// Alarm or Hushed while there is smoke.
    pub fire: Option<Smoke>,
    /// Runs while a test is shown.
    pub test: Option<Timer>,
}

/// Something that is down or faulty since a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outage {
    pub since: Timestamp,
    /// Runs until it is a trouble.
    pub hold: Option<Timer>,
    pub reason: String,
    pub detail: String,
    pub clock: ClockQuality,
}

/// The way to a device, or a camera's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Service {
    Good,
    Out(Outage),
}

/// Everything remembered of one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Device {
    /// Written down only together with something else: it changes all the time and no rule of this version needs it.
    pub last_heard_at: Option<Timestamp>,
    pub battery_mv: Option<u32>,
    /// Lowest voltage since the battery became low.
    pub low_mv: Option<u32>,
    pub door: Option<Door>,
    pub smoke: SmokeHead,
    pub link: Option<Service>,
    pub camera: Option<Service>,
    /// The newest sensor event per word, against copies and stragglers.
    pub newest: BTreeMap<String, Origin>,
}

impl Device {
    /// True when nothing that must survive a restart differs.
    pub fn is_as(&self, before: &Device) -> bool {
        Device { last_heard_at: before.last_heard_at, ..self.clone() } == *before
    }

    /// Every running timer.
    fn timers_mut(&mut self) -> impl Iterator<Item = &mut Timer> {
        let door = self.door.as_mut().and_then(|door| door.limit.as_mut());
        let link = self.link.as_mut().and_then(|link| link.hold_mut());
        let camera = self.camera.as_mut().and_then(|camera| camera.hold_mut());
        [door, self.smoke.test.as_mut(), link, camera].into_iter().flatten()
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let door = self.door.as_ref().and_then(|door| door.limit.as_ref());
        let link = self.link.as_ref().and_then(Service::hold);
        let camera = self.camera.as_ref().and_then(Service::hold);
        [door, self.smoke.test.as_ref(), link, camera].into_iter().flatten().map(|timer| timer.due_at).min()
    }

    /// Brings in timers that a clock set back has left too far ahead; true when one was.
    pub fn rein_timers(&mut self, now: Timestamp) -> bool {
        self.timers_mut().fold(false, |any, timer| timer.rein(now) | any)
    }

    /// Moves every timer by the step the clock made; true when there is one.
    pub fn shift_timers(&mut self, by: SignedDuration) -> bool {
        self.timers_mut().fold(false, |_, timer| {
            timer.due_at = shifted(timer.due_at, by);
            true
        })
    }

    /// Last known state, as `DeviceState::state` says it.
    pub fn state(&self, class: DeviceClass) -> String {
        let unknown = || "unknown".to_owned();
        match class {
            DeviceClass::Node | DeviceClass::Bus => match &self.link {
                Some(Service::Good) => "up".to_owned(),
                Some(Service::Out(_)) => "down".to_owned(),
                None => unknown(),
            },
            DeviceClass::Door => {
                self.door.as_ref().map_or_else(unknown, |door| if door.open { "open" } else { "closed" }.to_owned())
            }
            DeviceClass::Smoke => match self.smoke.reading {
                Some(Smoke::Alarm) => "alarm".to_owned(),
                Some(Smoke::Clear) => "clear".to_owned(),
                Some(Smoke::Test) => "test".to_owned(),
                Some(Smoke::Hushed) => "hushed".to_owned(),
                None => unknown(),
            },
            DeviceClass::Sos => "idle".to_owned(),
            DeviceClass::Camera => match &self.camera {
                Some(Service::Good) => "streaming".to_owned(),
                Some(Service::Out(outage)) => format!("fault: {}", outage.reason),
                None => unknown(),
            },
        }
    }
}

impl Service {
    pub fn hold(&self) -> Option<&Timer> {
        match self {
            Service::Good => None,
            Service::Out(outage) => outage.hold.as_ref(),
        }
    }

    fn hold_mut(&mut self) -> Option<&mut Timer> {
        match self {
            Service::Good => None,
            Service::Out(outage) => outage.hold.as_mut(),
        }
    }
}
