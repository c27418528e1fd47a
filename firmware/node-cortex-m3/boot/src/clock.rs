//! The boot loader's clock and watchdog.
//!
//! Owns the core's speed until the image sets its own: 50 MHz, so that a signature is checked in a blink. Refuses to lock the watchdog: the
//! image starts it anew with its own time.

use crate::regs::{Register, SYSTEM, WATCHDOG0};

/// The core's clock in hertz: the PLL's 200 MHz by 4.
pub const CORE_HZ: u32 = 50_000_000;
/// The watchdog bites after twice this long, in seconds: far more than two signatures and digests take.
const HALF_TIME_S: u32 = 4;
/// Looks at the PLL before its lock is given up.
const PLL_LOOKS: u32 = 10_000;

const RCC: Register = SYSTEM.at(0x060);
const RIS: Register = SYSTEM.at(0x050);
const MISC: Register = SYSTEM.at(0x058);

/// Runs the core from the 8 MHz crystal through the PLL, and clocks the watchdog, I2C 0 and port B.
pub fn start_core() {
    const BYPASS: u32 = 1 << 11;
    const PWRDN: u32 = 1 << 13;
    const USESYSDIV: u32 = 1 << 22;
    const PLL_LOCKED: u32 = 1 << 6;
    // Data sheet 5.3: bypass first, then crystal and power, then the divider, and the PLL when it has locked.
    RCC.set(BYPASS);
    RCC.clear(USESYSDIV);
    RCC.clear(0xf << 6 | 0x3 << 4 | 0x1);
    RCC.set(0xe << 6);
    MISC.write(PLL_LOCKED);
    RCC.clear(PWRDN);
    RCC.clear(0xf << 23);
    RCC.set(3 << 23 | USESYSDIV);
    // A crystal that does not swing: the signature takes its time on the bypass, and the image's watchdog will tell.
    if (0..PLL_LOOKS).any(|_| RIS.read() & PLL_LOCKED != 0) {
        RCC.clear(BYPASS);
    }
    SYSTEM.at(0x100).set(1 << 3);
    SYSTEM.at(0x104).set(1 << 12);
    SYSTEM.at(0x108).set(1 << 1);
    cortex_m::asm::delay(8);
}

/// Starts the watchdog: a loader that hangs begins anew.
pub fn start_watchdog() {
    const INTERRUPT_THEN_RESET: u32 = 0b11;
    WATCHDOG0.at(0x000).write(CORE_HZ * HALF_TIME_S);
    WATCHDOG0.at(0x008).write(INTERRUPT_THEN_RESET);
}
