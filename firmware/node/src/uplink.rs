//! The node's side of the link: what is sent when, and again.
//!
//! Owns the window, resending with backoff, the order of what waits to be sent, and what an `Ack` releases. Refuses to give up
//! (W16) and to believe an `Ack` for what was never sent (W13). It builds no heartbeat: levels are the node's.

use gengfu_wire::{Ack, FRAME_BYTES_MAX, Frame, Uplink as Message, WINDOW, encode};

use crate::outbox::{Entry, Outbox};

/// First wait for an `Ack`, in milliseconds: one slow `fdatasync` of a gateway on an SD card.
pub const RESEND_FIRST_MS: u64 = 300;
/// Longest wait. Half of the 10 s that smoke may take to the centre (GB 26875.1, 4.1.2).
pub const RESEND_MAX_MS: u64 = 5_000;
/// Least time between two rewinds that repeated `Ack`s ask for, in milliseconds.
pub const REWIND_LEAST_MS: u64 = 50;

/// Takes frames to the wire.
pub trait Transmit {
    /// Takes a whole frame, or refuses it whole and is asked again at a later poll.
    fn try_send(&mut self, frame: &[u8]) -> bool;
}

impl<F: FnMut(&[u8]) -> bool> Transmit for F {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        self(frame)
    }
}

/// Encodes and hands over one message; false when the wire is full.
pub(crate) fn send(tx: &mut impl Transmit, address: u8, message: Message) -> bool {
    let mut buffer = [0; FRAME_BYTES_MAX];
    match encode(&Frame::up(address, message), &mut buffer) {
        Ok(bytes) => tx.try_send(bytes),
        // Nothing this crate builds is refused (a test encodes each kind); were it, resending for ever would not help.
        Err(_) => true,
    }
}

/// Sends the outbox's stream in order.
#[derive(Debug, Clone)]
pub struct Stream {
    /// First number not sent since the last rewind.
    cursor: u32,
    /// Highest number ever sent.
    sent_through: u32,
    /// The last number of each entry on the wire that is not acknowledged.
    in_flight: heapless::Vec<u32, WINDOW>,
    resend_at_ms: Option<u64>,
    backoff_ms: u64,
    rewound_at_ms: Option<u64>,
    resends: u32,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            cursor: 1,
            sent_through: 0,
            in_flight: heapless::Vec::new(),
            resend_at_ms: None,
            backoff_ms: RESEND_FIRST_MS,
            rewound_at_ms: None,
            resends: 0,
        }
    }
}

impl Stream {
    /// Sends what the window allows, after a rewind if the wait for an `Ack` is over. False when the wire is full.
    pub fn poll(&mut self, now_ms: u64, address: u8, outbox: &Outbox, tx: &mut impl Transmit) -> bool {
        if self.resend_at_ms.is_some_and(|at| now_ms >= at) {
            self.rewind(now_ms, outbox);
            self.resends = self.resends.saturating_add(1);
            self.backoff_ms = (self.backoff_ms * 2).min(RESEND_MAX_MS);
        }
        while !self.in_flight.is_full() {
            let Some(entry) = outbox.entry_from(self.cursor) else { return true };
            let message = match entry {
                Entry::Event(event) => Message::Event(event),
                Entry::Loss(loss) => Message::Loss(loss),
            };
            if !send(tx, address, message) {
                return false;
            }
            self.cursor = entry.last().saturating_add(1);
            self.sent_through = self.sent_through.max(entry.last());
            self.in_flight.push(entry.last()).unwrap_or_else(|_| unreachable!("the window has room"));
            self.resend_at_ms.get_or_insert(now_ms.saturating_add(self.backoff_ms));
        }
        true
    }

    /// Takes an `Ack` of this boot. Gives back whether it released anything.
    pub fn on_ack(&mut self, now_ms: u64, ack: Ack, outbox: &mut Outbox) -> bool {
        if ack.through > self.sent_through {
            return false;
        }
        if outbox.release(ack.through) {
            self.backoff_ms = RESEND_FIRST_MS;
            self.in_flight.retain(|last| *last > ack.through);
            self.cursor = self.cursor.max(outbox.unacked_from());
            self.resend_at_ms = (!self.in_flight.is_empty()).then(|| now_ms.saturating_add(self.backoff_ms));
            return true;
        }
        // The same Ack again: the gateway misses what follows it. Not more often than a window takes to arrive.
        let is_early = self.rewound_at_ms.is_some_and(|at| now_ms < at.saturating_add(REWIND_LEAST_MS));
        if ack.through + 1 == outbox.unacked_from() && !self.in_flight.is_empty() && !is_early {
            self.rewind(now_ms, outbox);
        }
        false
    }

    /// Everything unacknowledged is sent again, from the next poll on.
    pub fn rewind(&mut self, now_ms: u64, outbox: &Outbox) {
        self.cursor = outbox.unacked_from();
        self.in_flight.clear();
        self.resend_at_ms = None;
        self.rewound_at_ms = Some(now_ms);
    }

    /// When there is something to do; `now_ms` when something waits for room on the wire.
    #[must_use]
    pub fn due_at_ms(&self, now_ms: u64, outbox: &Outbox) -> Option<u64> {
        let can_send = !self.in_flight.is_full() && outbox.entry_from(self.cursor).is_some();
        if can_send { Some(now_ms) } else { self.resend_at_ms }
    }

    /// Whether anything is left to be sent, now or when an `Ack` makes room. What has waited too long for its `Ack` is again after
    /// [`Stream::poll`].
    #[must_use]
    pub fn has_more(&self, outbox: &Outbox) -> bool {
        outbox.entry_from(self.cursor).is_some()
    }

    /// How often the wait for an `Ack` ran out.
    #[must_use]
    pub fn resends(&self) -> u32 {
        self.resends
    }
}
