//! The gateway: daemon and command line.
//!
//! Owns what joins the crates to one product. [`app`] shows the stages in the order an event meets them; each stage is a module that knows
//! nothing of the later ones. Rules, outbox, contract and vision are crates of their own; here is only what connects them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod cameras;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decide;
pub mod demo;
pub mod desk;
pub mod errands;
pub mod evidence;
pub mod identity;
pub mod link;
pub mod load;
pub mod local;
pub mod sensors;
pub mod settings;
pub mod setup;
pub mod signed;
#[cfg(test)]
mod tests;
pub mod uplink;
