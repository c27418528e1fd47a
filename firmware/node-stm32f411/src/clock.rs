//! The time since boot, and the beat that wakes a sleeping core.
//!
//! Owns SysTick and timer 2. Refuses time of day. Time is counted by looking at a free-running SysTick, as on the Cortex-M3 board and for the
//! same reason: an interrupt that comes late costs no time. It wraps every 0.67 s and must be looked at more often; the beat sees to that.

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use stm32f4xx_hal::pac::{NVIC, TIM2, interrupt};
use stm32f4xx_hal::prelude::*;
use stm32f4xx_hal::rcc::Rcc;
use stm32f4xx_hal::timer::Event;

/// The core's clock in hertz: the board's crystal, no PLL.
pub const CORE_HZ: u32 = 25_000_000;
/// SysTick counts so many steps before it begins again (24 bits).
const SYSTICK_STEPS: u32 = 1 << 24;
/// The core wakes at least this often, in milliseconds: pins are looked at so often, far below the shortest debounce (30 ms).
const BEAT_MS: u32 = 5;

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
        Self { last: SYST::get_current(), steps: 0 }
    }

    /// Milliseconds since boot. To be asked at least twice a second.
    pub fn now_ms(&mut self) -> u64 {
        let now = SYST::get_current();
        // It counts down.
        let passed = self.last.wrapping_sub(now) % SYSTICK_STEPS;
        self.last = now;
        self.steps += u64::from(passed);
        self.steps / u64::from(CORE_HZ / 1_000)
    }
}

/// Starts the beat. False when the timer cannot make it, which no clock of this board lets happen.
pub fn start_beat(timer: TIM2, rcc: &mut Rcc) -> bool {
    let mut beat = timer.counter_ms(rcc);
    beat.listen(Event::Update);
    let runs = beat.start(BEAT_MS.millis()).is_ok();
    // SAFETY: the handler exists, and shares nothing.
    unsafe { NVIC::unmask(interrupt::TIM2) };
    runs
}

/// The beat. Waking is all it does.
#[interrupt]
fn TIM2() {
    // SAFETY: the timer is this handler's alone once it runs: `start_beat` has consumed it.
    let timer = unsafe { TIM2::steal() };
    // A write of zeros clears; no other flag is used.
    timer.sr().write(|w| w.uif().clear_bit());
}
