//! Clocks: the core's, the time since boot, and the beat that wakes a sleeping core.
//!
//! Owns the PLL, SysTick and timer 0. Refuses time of day.
//!
//! Time is counted by looking at a free-running SysTick, not by counting its interrupts: an interrupt that comes late or
//! not at all (a debugger, an emulator on a busy machine) then costs no time. It wraps every 1.3 s and must be looked at more often;
//! the beat sees to that.

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

use crate::interrupts;
use crate::regs::{SYSTEM, TIMER0};

/// The core's clock in hertz: the PLL's 200 MHz by 16. Plenty for a node, and slow saves the battery.
pub const CORE_HZ: u32 = 12_500_000;
/// SysTick counts so many steps before it begins again (24 bits).
const SYSTICK_STEPS: u32 = 1 << 24;
/// The core wakes at least this often, in milliseconds: pins are looked at so often, far below the shortest debounce (30 ms).
pub const BEAT_MS: u32 = 5;
/// Looks at the PLL before its lock is given up: about 5 ms, it takes 0.5 ms.
const PLL_LOOKS: u32 = 10_000;

/// Run-mode clock configuration.
const RCC: crate::regs::Register = SYSTEM.at(0x060);
/// Raw interrupt status; bit 6 is the PLL's lock.
const RIS: crate::regs::Register = SYSTEM.at(0x050);
/// Interrupts of the system block: clear.
const MISC: crate::regs::Register = SYSTEM.at(0x058);
/// Clock gates 0 to 2.
const RCGC: [crate::regs::Register; 3] = [SYSTEM.at(0x100), SYSTEM.at(0x104), SYSTEM.at(0x108)];

/// Runs the core from the 8 MHz crystal through the PLL, and gives their clocks to the blocks used.
pub fn start_core() {
    const BYPASS: u32 = 1 << 11;
    const PWRDN: u32 = 1 << 13;
    const USESYSDIV: u32 = 1 << 22;
    const PLL_LOCKED: u32 = 1 << 6;
    // Data sheet 5.3: bypass first, then crystal and power, then the divider, and the PLL when it has locked.
    RCC.set(BYPASS);
    RCC.clear(USESYSDIV);
    // Crystal 8 MHz (XTAL = 0xe), main oscillator on and chosen, PLL on.
    RCC.clear(0xf << 6 | 0x3 << 4 | 0x1);
    RCC.set(0xe << 6);
    MISC.write(PLL_LOCKED);
    RCC.clear(PWRDN);
    RCC.clear(0xf << 23);
    RCC.set(15 << 23 | USESYSDIV);
    // A crystal that does not swing leaves the core on the bypass: too slow for the wire, and the watchdog ends it.
    if (0..PLL_LOOKS).any(|_| RIS.read() & PLL_LOCKED != 0) {
        RCC.clear(BYPASS);
    }
    // ADC (16) at 125 kHz, watchdog (3); timer 0 (16), I2C 0 (12), UART 0 (0); ports A, B, D.
    RCGC[0].set(1 << 16 | 1 << 3);
    RCGC[1].set(1 << 16 | 1 << 12 | 1);
    RCGC[2].set(1 << 3 | 1 << 1 | 1);
    // A block may be touched three clocks after its gate opened.
    cortex_m::asm::delay(8);
}

/// The time since boot.
pub struct Uptime {
    last: u32,
    steps: u64,
}

impl Uptime {
    /// Starts at zero.
    pub fn start(mut systick: SYST) -> Self {
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(SYSTICK_STEPS - 1);
        systick.clear_current();
        systick.enable_counter();
        let last = SYST::get_current();
        Self { last, steps: 0 }
    }

    /// Milliseconds since boot. To be asked at least once a second.
    pub fn now_ms(&mut self) -> u64 {
        let now = SYST::get_current();
        // It counts down.
        let passed = self.last.wrapping_sub(now) % SYSTICK_STEPS;
        self.last = now;
        self.steps += u64::from(passed);
        self.steps / u64::from(CORE_HZ / 1_000)
    }
}

/// Looks until it is so, for `limit_ms` at most (below 1,000); false when it never was. Needs a running [`Uptime`].
pub fn wait_for(limit_ms: u32, mut is_so: impl FnMut() -> bool) -> bool {
    let began = SYST::get_current();
    let limit = limit_ms * (CORE_HZ / 1_000);
    loop {
        // Asked before the time is looked at: a core that was held up must not miss what is there.
        let is_late = began.wrapping_sub(SYST::get_current()) % SYSTICK_STEPS >= limit;
        if is_so() {
            return true;
        }
        if is_late {
            return false;
        }
    }
}

/// Starts the beat: timer 0, periodic. It also triggers the battery's measurements ([`crate::adc`]).
pub fn start_beat() {
    const PERIODIC: u32 = 2;
    const ENABLE_AND_TRIGGER_ADC: u32 = 1 | 1 << 5;
    TIMER0.at(0x00c).write(0);
    TIMER0.at(0x000).write(0);
    TIMER0.at(0x004).write(PERIODIC);
    TIMER0.at(0x028).write(CORE_HZ / 1_000 * BEAT_MS - 1);
    TIMER0.at(0x018).write(1);
    TIMER0.at(0x00c).write(ENABLE_AND_TRIGGER_ADC);
    interrupts::unmask(interrupts::TIMER0A_LINE);
}

/// The beat. Waking is all it does.
#[unsafe(no_mangle)]
extern "C" fn TIMER0A() {
    TIMER0.at(0x024).write(1);
}
