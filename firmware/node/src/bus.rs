//! A node's place on the wire, and its turn to speak on a bus.
//!
//! Owns what a node may send after a [`gengfu_wire::Poll`]: so many frames, then the `Done`, and nothing once the gateway has gone on
//! (W30). Refuses to know what is sent: the order of what waits is the node's.

use gengfu_wire::{ADDRESS_EVERYONE, ADDRESS_MAX, ADDRESS_POINT_TO_POINT};

use crate::uplink::Transmit;

/// An answer that is not whole after this, in milliseconds, is left: the gateway has gone on to the next node, and what is said
/// now would collide with its answer. Eight usual frames take 20 ms at 115,200 bit/s and 200 ms at 9,600.
pub const TURN_MS_MAX: u64 = 250;

/// Address of a node on a bus: 1 to [`ADDRESS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusAddress(u8);

impl BusAddress {
    /// `None` for 0, which is everyone, and for what lies above [`ADDRESS_MAX`].
    #[must_use]
    pub fn new(address: u8) -> Option<Self> {
        (address != ADDRESS_EVERYONE && address <= ADDRESS_MAX).then_some(Self(address))
    }

    /// The number in a frame.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

/// How a node is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// The only node of its wire: it speaks when it has something to say.
    PointToPoint,
    /// One of several: it speaks when it is polled. `None` until the gateway has assigned it an address (W34).
    Bus(Option<BusAddress>),
}

impl Wiring {
    /// The address that frames of this node carry.
    #[must_use]
    pub fn address(self) -> u8 {
        match self {
            Wiring::PointToPoint | Wiring::Bus(None) => ADDRESS_POINT_TO_POINT,
            Wiring::Bus(Some(address)) => address.get(),
        }
    }
}

/// Leave to speak, from a poll to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Frames that may still go out before the `Done`.
    pub(crate) left: u8,
    until_ms: u64,
}

impl Turn {
    pub(crate) fn new(now_ms: u64, frames: u8) -> Self {
        Self { left: frames, until_ms: now_ms.saturating_add(TURN_MS_MAX) }
    }

    /// The rest of it.
    pub(crate) fn with_left(self, left: u8) -> Self {
        Self { left, ..self }
    }

    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms
    }
}

/// Lets so many frames through to the wire. To who sends, the end of the count looks like a full wire.
pub(crate) struct Counted<'a, T> {
    wire: &'a mut T,
    pub(crate) left: u8,
    /// The wire itself refused.
    pub(crate) is_full: bool,
}

impl<'a, T: Transmit> Counted<'a, T> {
    pub(crate) fn new(wire: &'a mut T, left: u8) -> Self {
        Self { wire, left, is_full: false }
    }
}

impl<T: Transmit> Transmit for Counted<'_, T> {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.is_full = !self.wire.try_send(frame);
        if !self.is_full {
            self.left -= 1;
        }
        !self.is_full
    }
}
