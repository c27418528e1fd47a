//! The reference dispatch desk: what a centre's software does with the contract, in small.
//!
//! Owns the other end of the road: it subscribes to a site, takes every event, proves that none is missing, stores what it is told to
//! store, sends the receipt, and lets a person (or a timer) acknowledge. It uses the contract crate and an MQTT client, nothing of the
//! gateway's insides, so it doubles as the example for a centre's developer. It refuses to be a centre: no cases, no
//! people, no database.

pub mod client;
pub mod journal;
pub mod model;
pub mod plain;
pub mod receipts;
pub mod sequence;
#[cfg(test)]
mod testing;
pub mod view;

pub use client::{DeskConfig, DeskError, DeskParts, Order, run};
pub use model::{AlarmView, DeskEvent, DeskModel, GatewayView};
pub use sequence::{Arrival, Proof};
