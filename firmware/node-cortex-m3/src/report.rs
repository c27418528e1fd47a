//! What a node tells a technician once: why it restarted, that its boot counter does not work, that its address was not kept.
//!
//! Owns these lines until they are sent. Refuses to keep them for long, and to speak before somebody listens: they go out after the
//! first bytes from the gateway, behind the Hello (W17) that the node then has sent.

use gengfu_node::wire::{Severity, Text};
use gengfu_node_board::boot::CounterError;

use crate::Unit;
use crate::panic;
use crate::regs::SYSTEM;

/// Why the chip was reset.
const RESET_CAUSE: crate::regs::Register = SYSTEM.at(0x05c);
/// Bit of the watchdog.
const WATCHDOG: u32 = 1 << 3;

/// What is to be told.
pub struct Report {
    lines: heapless::Vec<(Severity, Text), 3>,
    is_heard: bool,
}

impl Report {
    /// Collects it; for the next boot the note and the cause are gone.
    pub fn new(counter: Option<CounterError>) -> Self {
        let cause = RESET_CAUSE.read();
        RESET_CAUSE.write(0);
        let bitten = cause & WATCHDOG != 0;
        let restart =
            panic::last_words().or_else(|| bitten.then(|| text("restarted by the watchdog: the program hung")));
        let restart = restart.map(|line| (Severity::Error, line));
        let counter = counter.map(|error| (Severity::Warning, text(error.text())));
        let lines = restart.into_iter().chain(counter).collect();
        Self { lines, is_heard: false }
    }

    /// One line more; dropped when there are three already.
    pub fn add(&mut self, severity: Severity, line: &str) {
        let _ = self.lines.push((severity, text(line)));
    }

    /// Bytes came from the gateway.
    pub fn somebody_is_there(&mut self) {
        self.is_heard = true;
    }

    /// Gives the node what is left, one line a call.
    pub fn poll(&mut self, node: &mut Unit) {
        if self.is_heard && self.lines.last().is_some_and(|(severity, text)| node.log(*severity, text.clone())) {
            self.lines.pop();
        }
    }
}

fn text(line: &str) -> Text {
    line.chars().collect()
}
