//! What is at the far end of a port: one node, or a bus.
//!
//! Owns the one way in which the port's task, and a simulator in its place, drive either. Sans-I/O like the session and the bus behind it. Refuses to
//! know why bytes come late or not at all.

use std::time::Duration;

use gengfu_wire::{FRAME_BYTES_MAX, encode};

use super::bus::{Bus, Moment};
use super::session::Session;
use super::{PortConfig, Problem};

/// Bytes that may wait to be written. A node that does not read is not there; what is beyond is dropped, and all of it is repeated.
const OUT_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// One node alone, or a bus.
#[derive(Debug)]
pub enum Line {
    /// A node that speaks when it likes.
    Alone(Box<Session>),
    /// Nodes that speak when they are asked.
    Bus(Box<Bus>),
}

impl Line {
    /// The line of a port. `saved` is what is stored under the nodes' [`super::NodeConfig::cursor_key`], in the order of [`PortConfig::nodes`].
    #[must_use]
    pub fn new(config: &PortConfig, saved: Vec<Option<Vec<u8>>>, now: Moment) -> Self {
        let saved = saved.into_iter().chain(std::iter::repeat(None));
        let mut sessions: Vec<Session> = (config.nodes().iter().zip(saved))
            .map(|(node, saved)| Session::new(config, node.clone(), saved.as_deref(), now.at))
            .collect();
        match config.as_bus() {
            Some(bus) => Line::Bus(Box::new(Bus::new(config, bus, sessions))),
            None => Line::Alone(Box::new(sessions.pop().expect("PortConfig has at least one node"))),
        }
    }

    /// The sessions of its nodes, in the order of the configuration.
    #[must_use]
    pub fn sessions(&self) -> &[Session] {
        match self {
            Line::Alone(session) => std::slice::from_ref(session),
            Line::Bus(bus) => bus.sessions(),
        }
    }

    /// The sessions of its nodes, in the order of the configuration.
    pub fn sessions_mut(&mut self) -> &mut [Session] {
        match self {
            Line::Alone(session) => std::slice::from_mut(session),
            Line::Bus(bus) => bus.sessions_mut(),
        }
    }

    /// The port is open, and nothing is on the wire.
    pub fn port_opened(&mut self, now: Moment) {
        match self {
            Line::Alone(session) => session.port_opened(now.at),
            Line::Bus(bus) => bus.port_opened(now),
        }
    }

    /// The port cannot be used.
    pub fn port_lost(&mut self, now: Moment, problem: Problem) {
        match self {
            Line::Alone(session) => session.port_lost(now.at, problem),
            Line::Bus(bus) => bus.port_lost(now, &problem),
        }
    }

    /// Appends to `out` what may be said now. A bus asks nothing while `out` is not yet written.
    pub fn fill(&mut self, now: Moment, out: &mut Vec<u8>) {
        match self {
            Line::Bus(bus) if out.is_empty() => bus.fill(now, out),
            Line::Bus(_) => {}
            Line::Alone(session) => {
                let mut buffer = [0; FRAME_BYTES_MAX];
                while out.len() < OUT_BYTES_MAX {
                    let Some(frame) = session.take_send(now.at) else { break };
                    match encode(&frame, &mut buffer) {
                        Ok(bytes) => out.extend_from_slice(bytes),
                        Err(error) => tracing::error!(%error, ?frame, "a frame of our own cannot be sent"),
                    }
                }
            }
        }
    }

    /// All that was filled is with the operating system.
    pub fn written(&mut self, now: Moment) {
        if let Line::Bus(bus) = self {
            bus.written(now);
        }
    }

    /// Takes what came from the wire, in any portions.
    pub fn on_bytes(&mut self, now: Moment, bytes: &[u8]) {
        match self {
            Line::Alone(session) => session.on_bytes(now.at, now.quality, bytes),
            Line::Bus(bus) => bus.on_bytes(now, bytes),
        }
    }

    /// When [`Line::on_due`] and then [`Line::fill`] have something to do; only a bus ever has.
    #[must_use]
    pub fn due_at(&self) -> Option<Duration> {
        match self {
            Line::Alone(_) => None,
            Line::Bus(bus) => bus.due_at(),
        }
    }

    /// The moment has come.
    pub fn on_due(&mut self, now: Moment) {
        if let Line::Bus(bus) = self {
            bus.is_over(now);
        }
    }

    /// Time passes. Call it a few times a second.
    pub fn tick(&mut self, now: Moment) {
        match self {
            Line::Alone(session) => session.tick(now.at, now.quality),
            Line::Bus(bus) => bus.tick(now),
        }
    }
}
