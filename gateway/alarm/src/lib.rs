//! What is an alarm.
//!
//! Owns conditions and the rules that raise, update, clear and end them. It is pure: observations, commands and `now` go in,
//! [`Output`]s come out, and its whole state can be written down and restored. It knows no disk, network, clock, image or
//! task; the same code runs in the daemon, in `replay` and in the simulation.
//!
//! ```text
//! Observation ─▶ Engine ─▶ rule/* (one module each) ─▶ Book (condition, rev, id) ─▶ Output
//!                  │                                     │
//!                  └── device, spot, home: memories ───────────┴─▶ take_changes: what survives a restart
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activity;
pub mod annunciate;
mod book;
pub mod case;
pub mod codes;
pub mod condition;
mod coverage;
mod device;
mod drill;
pub mod engine;
pub mod escalate;
mod explain;
mod heap;
mod home;
pub mod hours;
mod id;
pub mod observation;
pub mod output;
mod pauses;
pub mod persist;
mod place;
mod places;
pub mod policy;
mod rhythm;
mod rule;
pub mod rules;
mod set_aside;
pub mod sides;
mod spot;
mod supervise;
#[cfg(test)]
mod tests;
mod time;
mod watching;

pub use annunciate::{
    AlarmInWait, Annunciator, LocalOutput, LocalPolicy, LocalState, OutputKind, Overdue, Pattern, Want,
};
pub use case::Rejected;
pub use codes::{CodeError, CodeFile, CodeTable};
pub use engine::{Answer, Engine};
pub use escalate::{Asking, Escalation};
pub use home::{Pause, PauseKind};
pub use hours::{Hours, Window};
pub use observation::Observation;
pub use output::Output;
pub use pauses::{CareState, Trouble};
pub use persist::{RestoreNote, StateChange};
pub use policy::{Care, CareRule, LeftOpen, NightRule, NotOpened, RiskTier, Supervised, Supervision, SupervisionClass};
pub use rules::{DeviceClass, DeviceRule, Rules, Timing, ZoneKind, ZoneRule};
pub use sides::{Service, Shelf, Terms};
