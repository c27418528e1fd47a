//! A node's events and levels as observations of named devices.
//!
//! Owns which device a channel is, and which events its class may say. Refuses to guess: an event of another class is not believed to
//! be this device's (W29).

use gengfu_alarm::observation::{Smoke, What};
use gengfu_contract::slug::Slug;
use gengfu_wire::{EventKind, Level, NODE_CHANNEL};

use super::NodeConfig;
use super::stats::Discard;
use crate::config::DeviceClass;

/// The device on a channel, if such an event may come from it.
///
/// # Errors
/// [`Discard::UnknownChannel`] or [`Discard::WrongClass`].
pub fn device(config: &NodeConfig, channel: u8, kind: EventKind) -> Result<&Slug, Discard> {
    // The case and the battery are the node's own; every node has them.
    let (device, class) = match config.channels.get(&channel) {
        Some((device, class)) => (device, Some(*class)),
        None if channel == NODE_CHANNEL => (&config.node, None),
        None => return Err(Discard::UnknownChannel),
    };
    let fits = match kind {
        EventKind::ContactOpened | EventKind::ContactClosed => class == Some(DeviceClass::Door),
        EventKind::SmokeAlarm | EventKind::SmokeClear | EventKind::SmokeTest | EventKind::SmokeHushed => {
            class == Some(DeviceClass::Smoke)
        }
        EventKind::SosPressed => class == Some(DeviceClass::Sos),
        EventKind::TamperOpened
        | EventKind::TamperClosed
        | EventKind::Battery(_)
        | EventKind::FaultRaised
        | EventKind::FaultCleared => true,
    };
    if fits { Ok(device) } else { Err(Discard::WrongClass) }
}

/// What an event says.
#[must_use]
pub fn event(kind: EventKind) -> What {
    match kind {
        EventKind::SosPressed => What::SosPressed,
        EventKind::Battery(battery) => What::Battery { millivolts: u32::from(battery.millivolts), low: battery.low },
        EventKind::FaultRaised => What::DeviceFault(true),
        EventKind::FaultCleared => What::DeviceFault(false),
        edge => match Level::after(edge) {
            Some(level) => state(level, false),
            // The arms above are all events without a level; this one keeps the match closed.
            None => What::Heartbeat,
        },
    }
}

/// What a level says; `repaired` when a heartbeat told it, because its edge was lost.
#[must_use]
pub fn state(level: Level, repaired: bool) -> What {
    match level {
        Level::ContactOpen => What::Door { open: true, repaired },
        Level::ContactClosed => What::Door { open: false, repaired },
        Level::SmokeAlarm => What::Smoke(Smoke::Alarm),
        Level::SmokeClear => What::Smoke(Smoke::Clear),
        Level::SmokeTest => What::Smoke(Smoke::Test),
        Level::SmokeHushed => What::Smoke(Smoke::Hushed),
        Level::TamperOpen => What::Tamper(true),
        Level::TamperClosed => What::Tamper(false),
    }
}
