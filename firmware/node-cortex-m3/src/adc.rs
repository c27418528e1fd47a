//! Analogue inputs.
//!
//! Owns sample sequencer 3, one sample at a time, triggered by the beat's timer ([`crate::clock`]). Refuses to measure unasked: between
//! measurements the sequencer is off.

use crate::clock::{BEAT_MS, wait_for};
use crate::regs::{ADC0, Register};

/// Codes of the 10 bits.
pub const CODES: u32 = 1_024;
/// The internal reference: the highest code, in millivolts at the pin.
pub const REFERENCE_MV: u32 = 3_000;
/// Longest wait for a sample.
const SAMPLE_MS: u32 = 3 * BEAT_MS;

const ACTIVE: Register = ADC0.at(0x000);
const RAW_STATUS: Register = ADC0.at(0x004);
const CLEAR: Register = ADC0.at(0x00c);
const TRIGGERS: Register = ADC0.at(0x014);
const INPUT: Register = ADC0.at(0x0a0);
const CONTROL: Register = ADC0.at(0x0a4);
/// Results.
const FIFO: Register = ADC0.at(0x0a8);

/// The deepest sequencer of the family has eight places.
const FIFO_DEPTH: usize = 8;

/// Sequencer 3's bit.
const SEQUENCER: u32 = 1 << 3;
/// Its trigger: the timer.
const BY_TIMER: u32 = 0x5 << 12;

/// What can be sampled.
#[derive(Clone, Copy)]
pub struct Input {
    input: u32,
    control: u32,
}

/// The pin ADC0.
pub const PIN_0: Input = Input { input: 0, control: 0b0110 };
/// The chip's thermometer.
pub const THERMOMETER: Input = Input { input: 0, control: 0b1110 };

impl Input {
    /// One sample, a code below [`CODES`], after at most three beats; `None` when none came.
    pub fn sample(self) -> Option<u32> {
        ACTIVE.write(0);
        TRIGGERS.write(BY_TIMER);
        INPUT.write(self.input);
        CONTROL.write(self.control);
        // What came between the last look of an earlier sample and its end. Counted and not asked: a status that never says empty (seen
        // after a reset in QEMU, whose converter keeps its state) must not hold the node up.
        for _ in 0..FIFO_DEPTH {
            FIFO.read();
        }
        CLEAR.write(SEQUENCER);
        ACTIVE.write(SEQUENCER);
        let is_there = wait_for(SAMPLE_MS, || RAW_STATUS.read() & SEQUENCER != 0);
        ACTIVE.write(0);
        is_there.then(|| FIFO.read() % CODES)
    }
}
