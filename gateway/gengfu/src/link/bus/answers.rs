//! Whether anybody answers on a bus.
//!
//! Owns what is told of the bus as a whole, so that one dead adapter is one trouble and not thirty-two. Refuses to say anything of a single node.

use std::time::Duration;

use gengfu_contract::slug::Slug;

use super::Moment;
use crate::link::session::{LISTEN_MAX, Session};

/// Whether anybody answers, as far as it was told.
#[derive(Debug)]
pub(super) struct Answers {
    bus: Slug,
    /// Half of what the most important node may be silent: the bus explains its nodes before they are missed.
    limit: Duration,
    /// Time listened to without any answer.
    quiet: Duration,
    ticked_at: Option<Duration>,
    told: Option<bool>,
    /// Refused batches of the session that carries the news.
    refused: u64,
    known_to_sessions: bool,
}

impl Answers {
    pub(super) fn new(bus: Slug, limit: Duration) -> Self {
        let quiet = Duration::ZERO;
        Self { bus, limit, quiet, ticked_at: None, told: None, refused: 0, known_to_sessions: false }
    }

    /// A node has ended its answer.
    pub(super) fn heard(&mut self, now: Moment, sessions: &mut [Session]) {
        self.quiet = Duration::ZERO;
        self.tell(now, sessions, true);
    }

    /// Counts the time for which nobody answers, as far as the gateway was there to listen (W26).
    pub(super) fn pass(&mut self, now: Moment, sessions: &mut [Session]) {
        let passed = self.ticked_at.replace(now.uptime).map_or(Duration::ZERO, |at| now.uptime.saturating_sub(at));
        self.quiet += passed.min(LISTEN_MAX.unsigned_abs());
        let refused = sessions.first().map_or(0, |session| session.stats().refused);
        if refused != self.refused {
            // What was told with it may be lost.
            self.refused = refused;
            self.told = None;
        }
        if self.quiet >= self.limit {
            self.tell(now, sessions, false);
        }
    }

    /// Lets each session know whether its own silence is the bus's.
    pub(super) fn share(&mut self, is_anybody_there: bool, sessions: &mut [Session]) {
        if is_anybody_there != self.known_to_sessions {
            self.known_to_sessions = is_anybody_there;
            for session in sessions {
                session.on_bus_answers(is_anybody_there);
            }
        }
    }

    /// Tells whether the bus works, once. Its news travel with the first node's.
    fn tell(&mut self, now: Moment, sessions: &mut [Session], up: bool) {
        if self.told != Some(up) {
            self.told = Some(up);
            if let Some(session) = sessions.first_mut() {
                session.see_bus(now.at, now.quality, &self.bus, up);
            }
        }
    }
}
