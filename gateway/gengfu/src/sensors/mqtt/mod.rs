//! Devices behind a local MQTT broker.
//!
//! Owns the way from a message to observations: [`topic`] finds whose it is, [`decode`] says what it says, [`inbox`] remembers (both sans-I/O),
//! [`client`] is connected. Refuses to publish anything, and to PUBACK what is not durable: until then the broker keeps it.

pub mod client;
pub mod decode;
pub mod inbox;
pub mod topic;

pub use client::run;
