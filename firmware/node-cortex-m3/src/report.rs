//! What a node tells a technician once after its boot: why it restarted, and that its boot counter does not work.
//!
//! Owns these lines until they are sent. Refuses to keep them for long, and to speak before somebody listens: they go out after the
//! first bytes from the gateway, behind the Hello (W17) that the node then has sent.

use gengfu_node::wire::{FRAME_BYTES_MAX, Frame, Log, Severity, Text, Uplink, encode};
use gengfu_node::{Identity, Transmit};
use gengfu_node_board::boot::CounterError;

use crate::panic;
use crate::regs::SYSTEM;

/// Why the chip was reset.
const RESET_CAUSE: crate::regs::Register = SYSTEM.at(0x05c);
/// Bit of the watchdog.
const WATCHDOG: u32 = 1 << 3;

/// What is to be told.
pub struct Report {
    boot: u32,
    address: u8,
    lines: heapless::Vec<(Severity, Text), 2>,
    is_heard: bool,
}

impl Report {
    /// Collects it; for the next boot the note and the cause are gone.
    pub fn new(identity: &Identity, counter: Option<CounterError>) -> Self {
        let cause = RESET_CAUSE.read();
        RESET_CAUSE.write(0);
        let bitten = cause & WATCHDOG != 0;
        let restart =
            panic::last_words().or_else(|| bitten.then(|| text("restarted by the watchdog: the program hung")));
        let restart = restart.map(|line| (Severity::Error, line));
        let counter = counter.map(|error| (Severity::Warning, text(error.text())));
        let lines = restart.into_iter().chain(counter).collect();
        Self { boot: identity.boot, address: identity.wiring.address(), lines, is_heard: false }
    }

    /// Bytes came from the gateway.
    pub fn somebody_is_there(&mut self) {
        self.is_heard = true;
    }

    /// Sends what is left, one line a call.
    pub fn poll(&mut self, now_ms: u64, tx: &mut impl Transmit) {
        if !self.is_heard {
            return;
        }
        let Some((severity, text)) = self.lines.last().cloned() else { return };
        let log = Uplink::Log(Log { boot: self.boot, uptime_ms: now_ms, severity, text });
        let mut buffer = [0; FRAME_BYTES_MAX];
        // What cannot be encoded is not worth a second try: it only informs.
        if encode(&Frame::up(self.address, log), &mut buffer).map_or(true, |frame| tx.try_send(frame)) {
            self.lines.pop();
        }
    }
}

fn text(line: &str) -> Text {
    line.chars().collect()
}
