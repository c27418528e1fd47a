//! Who this node is: the chip's number, and a boot id that no boot before had.
//!
//! Owns the sources of both and their order: the counter in the EEPROM; where that fails, a cell of RAM that outlives a reset; after a
//! power cut, the noise of the ADC; and its place on the wire: a strap, and the address that the EEPROM keeps. Refuses to hide which: a node without its counter says so at each boot.

use gengfu_node::wire::{FirmwareVersion, Uid};
use gengfu_node::{BusAddress, Identity, Wiring};
use gengfu_node_board::boot::{self, CounterError};

use crate::adc;
use crate::i2c::Bus;
use crate::kept::Kept;
use crate::pins;
use crate::regs::{GpioPort, SYSTEM};

/// Version of the image.
const VERSION: FirmwareVersion = FirmwareVersion { major: 0, minor: 1, patch: 0 };
/// Tells a cell of RAM that we wrote from noise.
const CELL_SEAL: u32 = 0x626f_6f74;

/// A counter and its seal.
#[unsafe(link_section = ".uninit.boot")]
static CELL: Kept<[u32; 2]> = Kept::unknown();

/// Who this node is at this boot, and what was wrong with the counter.
pub fn take(bus: &mut Bus) -> (Identity, Option<CounterError>) {
    let uid = boot::eui64(SYSTEM.at(0x1e0).read(), SYSTEM.at(0x1e4).read());
    let counted = boot::count(bus);
    let counter = counted.unwrap_or_else(|_| from_ram());
    let identity = Identity {
        uid: Uid(uid),
        boot: gengfu_node::boot::boot_id(uid, counter),
        firmware: VERSION,
        wiring: wiring(bus),
    };
    (identity, counted.err())
}

/// The strap PA5 at 3.3 V says that the node is one of several on an RS-485 bus; left open, that it is alone on its wire.
fn wiring(bus: &mut Bus) -> Wiring {
    if !pins::Input::pulled_down(GpioPort::A, 5).level() {
        return Wiring::PointToPoint;
    }
    let kept = boot::recall(bus, boot::ADDRESS_AT);
    Wiring::Bus(kept.and_then(|address| u8::try_from(address).ok()).and_then(BusAddress::new))
}

/// One more than at the boot before, if the power stayed; else noise.
fn from_ram() -> u32 {
    let [last, seal] = CELL.get();
    let counter = if seal == last ^ CELL_SEAL { last.wrapping_add(1) } else { noise() };
    CELL.set([counter, counter ^ CELL_SEAL]);
    counter
}

/// The last two bits of 64 samples of the chip's thermometer, which nobody filters. Takes a third of a second.
fn noise() -> u32 {
    (0..64).fold(0, |bits: u32, _| {
        bits.rotate_left(5).wrapping_mul(0x9e37_79b1) ^ adc::THERMOMETER.sample().unwrap_or(0) & 3
    })
}
