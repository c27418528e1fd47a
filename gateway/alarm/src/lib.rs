//! What is an alarm.
//!
//! Owns conditions and the rules that raise, update, clear and end them. It is pure: observations, commands and `now` go in,
//! [`Output`]s come out, and its whole state can be written down and restored. It knows no disk, network, clock, image or
//! task; the same code runs in the daemon, in `replay` and in the simulation.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod observation;
pub mod output;

pub use observation::Observation;
pub use output::Output;
