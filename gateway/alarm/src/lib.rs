//! What is an alarm.
//!
//! Owns conditions and the rules that raise, update, clear and end them. It is pure: observations, commands and `now` go in,
//! [`Output`]s come out, and its whole state can be written down and restored. It knows no disk, network, clock, image or
//! task; the same code runs in the daemon, in `replay` and in the simulation.
//!
//! ```text
//! Observation ─▶ Engine ─▶ rule/* (one module each) ─▶ Book (condition, rev, id) ─▶ Output
//!                  │                                     │
//!                  └── device, spot: memories ───────────┴─▶ take_changes: what survives a restart
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod book;
pub mod codes;
pub mod condition;
mod device;
pub mod engine;
mod explain;
mod id;
pub mod observation;
pub mod output;
pub mod persist;
mod place;
mod rule;
pub mod rules;
mod spot;
#[cfg(test)]
mod tests;
mod time;

pub use codes::{CodeError, CodeFile, CodeTable};
pub use engine::{Answer, Engine};
pub use observation::Observation;
pub use output::Output;
pub use persist::{RestoreNote, StateChange};
pub use rules::{DeviceClass, DeviceRule, Rules, Timing, ZoneKind, ZoneRule};
