//! The rig: real parts around a real gateway, and the faults that happen to them. It owns starting, breaking
//! and ending those parts (broker, RTSP camera, disk, network path, the gateway's process) and the rule by
//! which a test may be skipped. It refuses to judge: what must be true afterwards is said by the scenarios in
//! `tests/`. Nothing else in the project may depend on this crate.
//!
//! | module | the real part | its faults |
//! |---|---|---|
//! | [`broker`] | mosquitto | killed, frozen, restarted with or without its memory |
//! | [`nats`], [`rabbitmq`] | a broker of three nodes | a node killed, frozen, cut off; the leader moved |
//! | [`cluster`] | many gateways (`gengfu load`), a load balancer | |
//! | [`proxy`] | the path to the broker or a camera | cut, swallowed, delayed, refused, garbled |
//! | [`mqtt_proxy`], [`mqtt_packet`] | the same path, packet by packet | dropped, late, repeated, cut in the middle, refused, rewritten, throttled |
//! | [`rtsp`] | a camera: gst-rtsp-server | killed, frozen, restarted |
//! | [`http_camera`] | a camera that gives JPEGs over HTTP | killed |
//! | [`clip`] | footage | truncated, garbage |
//! | [`disk`] | ext4 on a loop device | power cut, full |
//! | [`gateway`] | the `gengfu` binary | kill -9, frozen, restarted |
//! | [`node`] | sensor nodes on pseudo-terminals | rebooted, muted |
//! | [`qemu`] | a node's microcontroller in QEMU, the real image | reset, power, pins, clock |
//! | [`ca`] | certificates | expired, foreign, revoked |
//! | [`cable`] | its serial line | cut |
//! | [`bus`] | an RS-485 pair that nodes share | cut, two who speak at once |
//! | [`desk`] | the reference dispatch desk | |
//! | [`site`] | all of them, joined | |
//! | [`process`] | any child process | captured output, never outlives the test |
//! | [`ports`] | loopback ports nobody else takes | |
//! | [`fuzz`] | every decoder of bytes from outside | any bytes |
//! | [`skip`] | | "skipped, because ..." |
//!
//! The rig runs in real time, because its parts do. It never sleeps for a while hoping that something has
//! happened: it waits for the thing itself, with a deadline ([`process::eventually`]).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod broker;
pub mod bus;
pub mod ca;
pub mod cable;
pub mod clip;
pub mod cluster;
pub mod commander;
pub mod desk;
pub mod disk;
pub mod fuzz;
pub mod gateway;
pub mod http_camera;
pub mod mqtt_packet;
pub mod mqtt_proxy;
pub mod nats;
pub mod node;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod qemu;
pub mod rabbitmq;
pub mod rtsp;
pub mod site;
pub mod skip;

use std::fmt::Display;

/// Why the rig could not do something. Rig errors end a test; the text is all a person gets, so it says
/// what was being done and what is in the way.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A system call or a command failed.
    #[error("{doing}: {why}")]
    Failed {
        /// What the rig was doing.
        doing: String,
        /// What came back.
        why: String,
    },
    /// Something did not come true in its time.
    #[error("{what}: not within {deadline_ms} ms; last seen: {last}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long, in milliseconds.
        deadline_ms: u128,
        /// The state at the end, as the probe told it.
        last: String,
    },
}

impl RigError {
    /// An error while `doing`, caused by `why`.
    pub fn failed(doing: impl Into<String>, why: impl Display) -> Self {
        Self::Failed { doing: doing.into(), why: why.to_string() }
    }
}

/// The result of everything the rig does.
pub type Result<T> = std::result::Result<T, RigError>;
