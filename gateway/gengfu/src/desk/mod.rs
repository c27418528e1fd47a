//! The reference dispatch desk: what a centre's software does with the contract, in small.
//!
//! Owns the other end of the road: it subscribes to a site, takes every event, proves that none is missing, stores what it is told to
//! store, sends the receipt, and lets a person (or a timer) acknowledge. It uses the contract crate and an MQTT client, nothing of the
//! gateway's insides, so it doubles as the example for a centre's developer. It refuses to be a centre: no cases, no
//! people, no database.

pub mod act;
pub mod client;
mod evidence;
pub mod findings;
mod gateway;
pub mod journal;
pub mod model;
pub mod orders;
mod outgoing;
pub mod plain;
pub mod presence;
pub mod receipts;
pub mod report;
pub mod told;
pub mod view;

pub use gengfu_contract::centre::{journals, sequence};

pub use client::{DeskConfig, DeskError, DeskParts, run};
pub use findings::{Fate, Finding};
pub use gateway::{AlarmView, GatewayView};
pub use journals::Proof;
pub use model::DeskModel;
pub use orders::{Action, AlarmOrder, CaseOrder, GatewayOrder, Order};
pub use sequence::Arrival;
pub use told::DeskEvent;
