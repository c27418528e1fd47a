//! The watchdog: a node whose loop does not come round restarts.
//!
//! Owns the timer and how it is fed. Refuses to be stopped: it is locked once it runs. It is fed in one place, the main loop, and not
//! by an interrupt, which would go on feeding for a loop that hangs.

use crate::clock::CORE_HZ;
use crate::regs::WATCHDOG0;

/// It bites after twice this long without food, in seconds. Of the 10 s that smoke may take to the centre 4 remain.
const HALF_TIME_S: u32 = 3;

/// Starts it. A debugger that halts the core halts it too.
pub fn start() {
    const STALL_WHEN_HALTED: u32 = 1 << 8;
    const INTERRUPT_THEN_RESET: u32 = 0b11;
    WATCHDOG0.at(0x000).write(CORE_HZ * HALF_TIME_S);
    WATCHDOG0.at(0x418).write(STALL_WHEN_HALTED);
    WATCHDOG0.at(0x008).write(INTERRUPT_THEN_RESET);
    // Anything but the key locks.
    WATCHDOG0.at(0xc00).write(1);
}

/// Feeds it.
pub fn feed() {
    const KEY: u32 = 0x1acc_e551;
    WATCHDOG0.at(0xc00).write(KEY);
    // Clearing the interrupt, raised or not, begins the time anew.
    WATCHDOG0.at(0x00c).write(1);
    WATCHDOG0.at(0xc00).write(1);
}
