//! The gateway's end of the wire to its sensor nodes.
//!
//! Owns the serial ports ([`serial`]) and the protocol's gateway side ([`session`], [`bus`]): frames in, observations out, an `Ack` back only when
//! the decider's disk has them. Refuses to judge what was seen, and to queue: what the decider does not take stays with the node.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | what hangs on a port: one node, or a bus of several |
//! | [`session`] | one node's protocol: duplicates, gaps, boots, levels, silence; sans-I/O |
//! | [`bus`] | several sessions on one pair: whose turn it is, and for how long to wait; sans-I/O |
//! | [`line`] | a session or a bus, driven in one way |
//! | [`downlinks`] | what is to be said to a node, and again |
//! | [`orders`] | what other parts of the gateway may ask of a node |
//! | [`cursor`] | what must survive a restart of the gateway: how far each boot was taken |
//! | [`node_clock`] | a node's uptime in the gateway's time |
//! | [`mapping`] | a node's events as observations of named devices |
//! | [`problem`] | why a link does not work, and what to do |
//! | [`stats`] | what a technician sees of a link |
//! | [`serial`] | a port's task: bytes, batches, orders |
//! | [`port`] | the operating system's port: open, lock, read, write |

pub mod bundle;
pub mod bus;
pub mod config;
pub mod cursor;
pub mod downlinks;
pub mod line;
pub mod mapping;
pub mod node_clock;
pub mod orders;
pub mod port;
pub mod problem;
pub mod serial;
pub mod session;
pub mod stats;
pub mod update;

use gengfu_alarm::Observation;
use tokio::sync::oneshot;

pub use config::{BusConfig, NodeConfig, PortConfig, PortConfigError};
pub use orders::{LinkCommand, LinkInlets, Order, Refusal};
pub use problem::Problem;
pub use serial::{PortEnds, run};
pub use stats::{LinkStats, twins};

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
pub(crate) mod tests;
