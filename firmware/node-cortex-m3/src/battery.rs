//! The battery's voltage.
//!
//! Owns the scale: the battery comes to pin ADC0 through a divider of two equal resistors (2 x 1 MOhm, 100 nF at the pin), so that
//! 6 V is full scale. Refuses to judge: limits are the node's.

use gengfu_node::battery::BatteryGauge;

use crate::adc;

/// Full scale, in millivolts of the battery.
const FULL_SCALE_MV: u32 = 2 * adc::REFERENCE_MV;
/// Samples of one measurement; 20 ms, once an hour.
const SAMPLES: u32 = 4;

/// The gauge.
pub struct Gauge;

impl BatteryGauge for Gauge {
    fn millivolts(&mut self) -> Option<u16> {
        let sum = (0..SAMPLES).try_fold(0, |sum, _| Some(sum + adc::PIN_0.sample()?))?;
        u16::try_from(sum * FULL_SCALE_MV / (SAMPLES * adc::CODES)).ok()
    }
}
