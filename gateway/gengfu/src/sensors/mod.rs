//! Sensors that other people make: Modbus lines, and devices behind a local MQTT broker.
//!
//! Owns the way from a register or a message to observations of named devices. What a model says is data, a [`profile`]; the code knows no
//! model. Refuses to judge, to guess what an unknown value means, and to acknowledge anything to a broker before the decider's disk has it.
//!
//! | module | owns |
//! |---|---|
//! | [`words`] | the vocabulary of profiles, and what a raw value says |
//! | [`profile`] | a model's file, checked |
//! | [`config`], [`plan`] | the gateway's keys; these and the profiles, joined |
//! | [`levels`] | what a device has said, and what of it was told |
//! | [`outgoing`], [`handover`] | observations until they are durable; their way to the decider |
//! | [`stats`] | what a technician sees |
//! | [`modbus`] | polling a line |
//! | [`mqtt`] | listening to a broker |

pub mod config;
pub mod handover;
pub mod levels;
pub mod modbus;
pub mod mqtt;
pub mod outgoing;
pub mod plan;
pub mod profile;
pub mod stats;
pub mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_alarm::observation::{Observation, What};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;
use levels::{Levels, Told};
pub use stats::SensorStats;

/// A device that goes on saying the same is a heartbeat this often: a fifth of the shortest supervision interval (S1, 300 s).
pub const HEARTBEAT_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// A moment: the time of day, whether it can be trusted, and the time that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time of day.
    pub now: Timestamp,
    /// Whether it can be trusted.
    pub quality: ClockQuality,
    /// Time since some fixed moment. Everything is scheduled by it.
    pub uptime: SignedDuration,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), quality: clock.quality(), uptime: clock.uptime() }
    }

    fn seen(&self, device: &Slug, sensed_at: Timestamp, what: What) -> Observation {
        Observation { device: device.clone(), sensed_at, clock: self.quality, origin: None, what }
    }
}

/// Key under which a line's or broker's [`Told`] is stored.
#[must_use]
pub fn cursor_key(name: &Slug) -> Vec<u8> {
    format!("sensors/{name}").into_bytes()
}

/// What was told before this start, by device. A value that cannot be read is as if nothing had been told: levels are told once more.
fn told_before(saved: Option<&[u8]>) -> BTreeMap<Slug, Told> {
    saved.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

/// As [`told_before`] reads it.
fn told_bytes<'a>(levels: impl Iterator<Item = (&'a Slug, &'a Levels)>) -> Vec<u8> {
    let told: BTreeMap<&Slug, &Told> = levels.map(|(name, levels)| (name, levels.told())).collect();
    serde_json::to_vec(&told).expect("names and plain values have a JSON form")
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
