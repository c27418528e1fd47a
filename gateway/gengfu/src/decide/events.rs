//! From decisions to the contract's events.
//!
//! Owns the envelope: ids, source, times, the place in the hash chain. Refuses to judge; what it is given, it writes down.

use std::collections::BTreeMap;

use gengfu_alarm::observation::{Observation, Smoke, What};
use gengfu_alarm::output::Transition;
use gengfu_contract::chain;
use gengfu_contract::event::{ClockQuality, CommandData, Event, EventType, GatewayData, ObservedData};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Lane;
use gengfu_outbox::Position;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use ulid::Ulid;

/// Who writes the journal.
#[derive(Debug, Clone)]
pub struct Author {
    source: String,
}

/// An event before it has its place in the journal.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its id, the same in every copy.
    pub id: String,
    /// Lane it travels.
    pub lane: Lane,
    event_type: EventType,
    subject: String,
    time: Timestamp,
    data: Value,
}

impl Draft {
    /// What it belongs to in the outbox: events of one subject keep their order.
    pub(super) fn group(&self) -> u64 {
        group_of(&self.subject)
    }
}

impl Author {
    /// The author of `gateway` at `site`.
    #[must_use]
    pub fn new(site: &Slug, gateway: &Slug) -> Self {
        Self { source: format!("/gengfu/{site}/{gateway}") }
    }

    /// A draft for a transition of an alarm; `place` is where it will stand.
    #[must_use]
    pub fn transition(&self, now: Timestamp, place: &Position, transition: &Transition) -> Draft {
        let subject = transition.alarm.alarm_id.clone();
        let data = to_data(&transition.alarm);
        self.draft(now, place, transition.event_type, transition.lane, subject, transition.sensed_at, data)
    }

    /// A draft for what a device said; `None` for what is not journaled (heartbeats, scenes, link states).
    #[must_use]
    pub fn observed(&self, now: Timestamp, place: &Position, observation: &Observation) -> Option<Draft> {
        let (what, value, repaired) = said(&observation.what)?;
        let data = ObservedData {
            device: observation.device.clone(),
            what: what.to_owned(),
            value,
            repaired,
            clock: observation.clock,
            origin: observation.origin.clone(),
        };
        let subject = observation.device.to_string();
        let data = to_data(&data);
        Some(self.draft(now, place, EventType::DeviceObserved, Lane::Telemetry, subject, observation.sensed_at, data))
    }

    /// A draft for the gateway's own start.
    #[must_use]
    pub fn started(&self, now: Timestamp, place: &Position, data: &GatewayData) -> Draft {
        let data = to_data(data);
        self.draft(now, place, EventType::GatewayStarted, Lane::Telemetry, self.source.clone(), now, data)
    }

    /// A draft for what the centre asked and was told.
    #[must_use]
    pub fn answered(&self, now: Timestamp, place: &Position, data: &CommandData) -> Draft {
        let subject = data.cmd_id.clone();
        self.draft(now, place, EventType::CommandAnswered, Lane::Telemetry, subject, now, to_data(data))
    }

    /// A draft for what a technician did with a device: `what` as in "service.out", `value` its seconds.
    #[must_use]
    pub fn served(
        &self,
        now: Timestamp,
        place: &Position,
        device: &Slug,
        what: &str,
        value: Option<i64>,
        clock: ClockQuality,
    ) -> Draft {
        let what = what.to_owned();
        let data = ObservedData { device: device.clone(), what, value, repaired: false, clock, origin: None };
        self.draft(now, place, EventType::DeviceObserved, Lane::Telemetry, device.to_string(), now, to_data(&data))
    }

    #[expect(clippy::too_many_arguments, reason = "one field of the envelope each; private")]
    fn draft(
        &self,
        now: Timestamp,
        place: &Position,
        event_type: EventType,
        lane: Lane,
        subject: String,
        time: Timestamp,
        data: Value,
    ) -> Draft {
        Draft { id: self.id(now, place), lane, event_type, subject, time, data }
    }

    /// A ULID whose random part is the event's place in the chain: unique, and the same when a simulation is replayed.
    fn id(&self, now: Timestamp, place: &Position) -> String {
        let mut hash = Sha256::new();
        hash.update(self.source.as_bytes());
        hash.update(place.sequence.to_be_bytes());
        hash.update(place.prev_hash);
        let digest = hash.finalize();
        let random = digest.iter().take(10).fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
        Ulid::from_parts(u64::try_from(now.as_millisecond()).unwrap_or(0), random).to_string()
    }

    /// The bytes to journal.
    #[must_use]
    pub fn journal(&self, now: Timestamp, place: &Position, draft: Draft) -> Vec<u8> {
        let event = Event {
            specversion: "1.0".to_owned(),
            id: draft.id,
            source: self.source.clone(),
            event_type: draft.event_type,
            subject: draft.subject,
            time: draft.time,
            datacontenttype: "application/json".to_owned(),
            sequence: place.sequence,
            recordedtime: now,
            prevhash: hex::encode(place.prev_hash),
            lane: draft.lane,
            senttime: None,
            historical: None,
            attempt: None,
            data: draft.data,
            extra: BTreeMap::new(),
        };
        chain::canonical(&event).expect("a JSON value holds no NaN, so it has a canonical form")
    }
}

fn to_data(data: &impl serde::Serialize) -> Value {
    serde_json::to_value(data).expect("the contract's types have text keys only, so they have a JSON form")
}

/// The contract's words for an observation.
fn said(what: &What) -> Option<(&'static str, Option<i64>, bool)> {
    Some(match what {
        What::Door { open: true, repaired } => ("door.opened", None, *repaired),
        What::Door { open: false, repaired } => ("door.closed", None, *repaired),
        What::Smoke(Smoke::Alarm) => ("smoke.alarm", None, false),
        What::Smoke(Smoke::Clear) => ("smoke.clear", None, false),
        What::Smoke(Smoke::Test) => ("smoke.test", None, false),
        What::Smoke(Smoke::Hushed) => ("smoke.hushed", None, false),
        What::SosPressed => ("sos.pressed", None, false),
        What::Tamper(true) => ("tamper.opened", None, false),
        What::Tamper(false) => ("tamper.closed", None, false),
        What::Battery { millivolts, .. } => ("battery.millivolts", Some(i64::from(*millivolts)), false),
        What::EventsLost { count, .. } => ("events.lost", Some(i64::from(*count)), false),
        What::Contaminated(true) => ("contamination.began", None, false),
        What::Contaminated(false) => ("contamination.ended", None, false),
        What::EndOfLife(true) => ("life.ended", None, false),
        What::EndOfLife(false) => ("life.began", None, false),
        What::DeviceFault(true) => ("fault.began", None, false),
        What::DeviceFault(false) => ("fault.ended", None, false),
        What::Heartbeat | What::Link(_) | What::Scene(_) | What::Camera(_) | What::Still { .. } => return None,
    })
}

/// The outbox's group of what concerns one subject (an alarm, a device): its events are sent in their order, also after an outage. FNV-1a,
/// 64 bit (Fowler, Noll, Vo); never 0, which is no group.
#[must_use]
pub fn group_of(subject: &str) -> u64 {
    let hash = subject
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash.max(1)
}
