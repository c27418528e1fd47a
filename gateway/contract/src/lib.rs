//! The MQTT contract between a gateway and the dispatch centre.
//!
//! Owns every word that crosses that line: topics, event and command bodies, the vocabulary of
//! alarms (OASIS CAP 1.2 words), and the hash chain's canonical form. A centre's developer imports
//! this crate and nothing else of ours. It refuses to know brokers, clients, clocks, disks or the
//! rules that make an alarm: those live on either side of it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod case;
pub mod centre;
pub mod chain;
pub mod command;
pub mod event;
pub mod evidence;
pub mod export;
pub mod publish;
pub mod query;
pub mod slug;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod topic;
pub mod words;

/// Version of the contract: the `v1` of every topic and event type. A gateway and a centre whose
/// majors differ do not understand each other and must say so instead of guessing.
pub const CONTRACT_MAJOR: u32 = 1;

/// Additions within the major: new optional fields, new words of open lists. Older readers keep what they do not know.
pub const CONTRACT_VERSION: &str = "1.0";
