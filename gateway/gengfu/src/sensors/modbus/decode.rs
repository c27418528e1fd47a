//! From an answer to readings. Owns bits, masks, signs and word order; pure, and total: an answer that is too short is told, never read beyond.

use crate::sensors::profile::{ModbusMap, Point, Shape};
use crate::sensors::words::{Raw, Reading};

/// What a read was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Coils or inputs.
    Bits(Vec<bool>),
    /// Registers.
    Words(Vec<u16>),
}

/// An answer that does not hold what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} values instead of {wanted}")]
pub struct Short {
    /// Values found.
    pub found: usize,
    /// Values asked for.
    pub wanted: usize,
}

/// What the answer to read number `read` says, with the channel that each reading is about.
///
/// # Errors
/// [`Short`] when the answer is not what was asked for; then none of it is believed.
pub fn decode(map: &ModbusMap, read: usize, data: &Data) -> Result<Vec<(u8, Reading)>, Short> {
    let asked = map.reads.get(read).ok_or(Short { found: 0, wanted: 0 })?;
    let wanted = usize::from(asked.count);
    let (is_bits, found) = match data {
        Data::Bits(bits) => (true, bits.len()),
        Data::Words(words) => (false, words.len()),
    };
    if is_bits != asked.function.is_bits() || found < wanted {
        return Err(Short { found, wanted });
    }
    let mut readings = Vec::new();
    for (source, point) in map.points.iter().enumerate().filter(|(_, point)| point.read == read) {
        let raw = raw(point, data).ok_or(Short { found, wanted })?;
        let place = format!("{} {}", asked.name, u32::from(asked.address) + u32::from(point.at));
        let source = u16::try_from(source).unwrap_or(u16::MAX);
        readings
            .extend(point.meaning.read(&place, &raw).into_iter().map(|fact| (point.channel, Reading { source, fact })));
    }
    Ok(readings)
}

fn raw(point: &Point, data: &Data) -> Option<Raw> {
    let at = usize::from(point.at);
    let number = match (point.shape, data) {
        (Shape::Bit, Data::Bits(bits)) => f64::from(u8::from(*bits.get(at)?)),
        (Shape::RegisterBit(bit), Data::Words(words)) => f64::from(words.get(at)?.checked_shr(u32::from(bit))? & 1),
        (Shape::Masked(mask), Data::Words(words)) => {
            f64::from((words.get(at)? & mask).checked_shr(mask.trailing_zeros())?)
        }
        (Shape::Word { signed: false }, Data::Words(words)) => f64::from(*words.get(at)?),
        (Shape::Word { signed: true }, Data::Words(words)) => f64::from(words.get(at)?.cast_signed()),
        (Shape::Double { signed, low_first }, Data::Words(words)) => {
            let (first, second) = (u32::from(*words.get(at)?), u32::from(*words.get(at.checked_add(1)?)?));
            let (high, low) = if low_first { (second, first) } else { (first, second) };
            let whole = high << 16 | low;
            if signed { f64::from(whole.cast_signed()) } else { f64::from(whole) }
        }
        _ => return None,
    };
    Some(Raw::Number(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sensors::profile::{Map, parse};
    use crate::sensors::words::{Facet, Fact};

    const PROFILE: &str = r#"
name = "acme-head"
maker = "Acme"
model = "Head"
source = "https://example.org"
link = "modbus"
class = "smoke"
battery_mv_at = [2000, 3000]
[[read]]
name = "state"
function = "input_registers"
address = 100
count = 4
[[point]]
read = "state"
address = 100
mask = 0x0f00
states = { 0 = "smoke.clear", 1 = "smoke.alarm", 2 = ["smoke.alarm", "hush.on"] }
[[point]]
read = "state"
address = 100
bit = 15
states = { 0 = "fault.off", 1 = "fault.on" }
[[point]]
read = "state"
address = 101
type = "i16"
number = "fire"
scale = 0.1
alarm_from = 57
clear_below = 50
[[point]]
read = "state"
address = 102
type = "u32"
word_order = "low_first"
number = "battery_mv"
low_below = 2400
"#;

    fn map() -> ModbusMap {
        let Map::Modbus(map) = parse(PROFILE).unwrap().map else { panic!() };
        map
    }

    fn facts(words: [u16; 4]) -> Vec<Fact> {
        let readings = decode(&map(), 0, &Data::Words(words.to_vec())).unwrap();
        readings.into_iter().map(|(_, reading)| reading.fact).collect()
    }

    #[test]
    fn masks_bits_signs_and_word_order_are_as_the_profile_says() {
        let cold = (-5_i16).cast_unsigned();
        let (smoke, hush, fault) = (Facet::Smoke, Facet::Hush, Facet::Fault);
        let (alarm, low) = (Fact::Level(smoke, true), Facet::BatteryLow);
        let found = facts([0x8200, cold, 3000, 0]);
        assert_eq!(found[..3], [alarm, Fact::Level(hush, true), Fact::Level(fault, true)]);
        assert_eq!(found[3..], [Fact::Level(smoke, false), Fact::BatteryMv(3000), Fact::Level(low, false)]);
        assert_eq!(facts([0, 580, 0, 1])[2..4], [Fact::Level(smoke, true), Fact::BatteryMv(65_536)]);
    }

    #[test]
    fn a_state_that_the_profile_does_not_name_is_unknown_with_its_place() {
        assert_eq!(facts([0x0700, 0, 0, 0])[0], Fact::Unknown { place: "state 100".into(), value: "7".into() });
    }

    #[test]
    fn a_short_answer_is_not_believed() {
        let short = decode(&map(), 0, &Data::Words(vec![0x0100, 0, 0]));
        assert_eq!(short, Err(Short { found: 3, wanted: 4 }));
        assert!(decode(&map(), 0, &Data::Bits(vec![true; 4])).is_err());
        assert!(decode(&map(), 9, &Data::Bits(Vec::new())).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_panics(read in 0_usize..3, words in prop::collection::vec(any::<u16>(), 0..8), bits in prop::collection::vec(any::<bool>(), 0..8)) {
            let _ = decode(&map(), read, &Data::Words(words));
            let _ = decode(&map(), read, &Data::Bits(bits));
        }
    }
}
