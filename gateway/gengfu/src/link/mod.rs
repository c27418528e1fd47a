//! The gateway's end of the wire to a sensor node.
//!
//! Owns the serial port ([`serial`]) and the protocol's gateway side ([`session`]): frames in, observations out, an `Ack` back only when the
//! decider's disk has them. Refuses to judge what was seen, and to queue: what the decider does not take stays with the node.
//!
//! | module | owns |
//! |---|---|
//! | [`session`] | one node's protocol: duplicates, gaps, boots, levels, silence; sans-I/O |
//! | [`cursor`] | what must survive a restart of the gateway: how far each boot was taken |
//! | [`node_clock`] | a node's uptime in the gateway's time |
//! | [`mapping`] | a node's events as observations of named devices |
//! | [`stats`] | what a technician sees of a link |
//! | [`serial`] | the port: open, read, write, reopen |

pub mod cursor;
pub mod mapping;
pub mod node_clock;
pub mod serial;
pub mod session;
pub mod stats;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use gengfu_alarm::Observation;
use gengfu_contract::slug::Slug;
use tokio::sync::oneshot;

use crate::config::DeviceClass;
pub use serial::run;
pub use stats::{LinkStats, twins};

/// One node on a serial port.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The node's device name.
    pub node: Slug,
    /// The port.
    pub port: PathBuf,
    /// Bits per second.
    pub baud: u32,
    /// The node that is expected here, as the 16 hex digits of its unique id; any when absent.
    pub expected_uid: Option<u64>,
    /// Not heard for this long means the link is down. Three heartbeats are a good measure.
    pub silence: Duration,
    /// What hangs on the node's channels.
    pub channels: BTreeMap<u8, (Slug, DeviceClass)>,
}

impl LinkConfig {
    /// Key under which the link's cursor is stored. One for each node's name, not for each unique id: two nodes that claim one
    /// id do not overwrite each other's.
    #[must_use]
    pub fn cursor_key(&self) -> Vec<u8> {
        format!("link/{}", self.node).into_bytes()
    }
}

/// Observations to be journaled with one sync, together with the cursor that says they were taken.
#[derive(Debug)]
pub struct LinkBatch {
    /// In order. May be empty: then only the cursor moved.
    pub observations: Vec<Observation>,
    /// Key and value to put into the store in the same atomic batch.
    pub cursor: (Vec<u8>, Vec<u8>),
    /// To be answered when both are durable, or with the reason why they are not; then nothing is acknowledged and the node
    /// sends again. Dropping it is an `Err`.
    pub done: oneshot::Sender<Result<(), String>>,
}

#[cfg(test)]
mod tests;
