//! Thermometers with the register of the LM75: TI TMP102, TMP105, TMP75, NXP LM75B, Microchip MCP9800.
//!
//! Owns one read of the temperature register (pointer 0): two bytes, the high one first, left-justified, 1/256 °C a step whatever the
//! part's resolution (data sheets TI SBOS397, SBOS348; 0.5 °C after power-on of a TMP105, 0.0625 °C of a TMP102). Refuses to configure: each
//! of these parts converts by itself after power-on. A value that none of them can give is no value: a bus whose pull-ups are all that
//! answers reads as ones.

use embedded_hal::i2c::I2c;

use crate::heat::Thermometer;

/// Address with the address pins to ground.
pub const ADDRESS: u8 = 0x48;

/// The temperature register.
const TEMPERATURE: u8 = 0x00;
/// What the parts are specified for, in thousandths of a degree, and a little more for a fire.
const PLAUSIBLE_MC: core::ops::RangeInclusive<i32> = -55_000..=128_000;

/// A thermometer on a bus.
#[derive(Debug)]
pub struct Tmp1xx<I> {
    bus: I,
    address: u8,
}

impl<I: I2c> Tmp1xx<I> {
    /// The part at `address` (0x48 to 0x4f by its address pins).
    pub fn new(bus: I, address: u8) -> Self {
        Self { bus, address }
    }
}

impl<I: I2c> Thermometer for Tmp1xx<I> {
    fn millicelsius(&mut self) -> Option<i32> {
        let mut bytes = [0; 2];
        // Two transfers and no repeated start, which not every bus master can; the parts keep the pointer over a stop.
        self.bus.write(self.address, &[TEMPERATURE]).ok()?;
        self.bus.read(self.address, &mut bytes).ok()?;
        if bytes == [0xff; 2] {
            return None;
        }
        let millicelsius = i32::from(i16::from_be_bytes(bytes)) * 1_000 / 256;
        PLAUSIBLE_MC.contains(&millicelsius).then_some(millicelsius)
    }
}
