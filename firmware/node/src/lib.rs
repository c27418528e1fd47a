//! What a sensor node does.
//!
//! Owns the node's logic on `embedded-hal` 1.0 traits: read pins until a level is stable, number and keep what happened, send and
//! resend it until the gateway has it on disk, and tell levels regularly so that a lost edge is repaired. Refuses input and
//! output: a board gives pins, a clock (`now_ms` since boot), a way to send bytes and a unique id, and calls [`Node::poll`] and
//! [`Node::on_bytes`]. `no_std`, no allocation, no interrupt, no sleep; every method returns at once.
//!
//! An event is *accepted* when it has its number. From then on it is sent until acknowledged, or its loss is told.
//! The outbox lives in memory: what is not acknowledged does not yet survive a power cut of the node (a later issue gives
//! it flash; [`gengfu_wire::Capabilities::DURABLE_OUTBOX`] will say so). The gateway reports what a reboot is known to have lost.
//!
//! ```text
//! pin -> contact, smoke, sos, tamper, heat, battery -> outbox (numbers, keeps) -> uplink (window, resend) -> bus (its turn) -> bytes
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod battery;
pub mod boot;
pub mod bus;
pub mod contact;
pub mod heat;
pub mod input;
pub mod node;
pub mod note;
pub mod outbox;
pub mod sensor;
pub mod slots;
pub mod smoke;
pub mod sos;
pub mod tamper;
pub mod time;
pub mod tmp1xx;
pub mod update;
pub mod uplink;

pub use bus::{BusAddress, Wiring};
pub use gengfu_wire as wire;
pub use node::{Board, Identity, Node, Parts, SetupError, Stats, Timing, Watch};
pub use sensor::Sensor;
pub use update::Updater;
pub use uplink::Transmit;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;
