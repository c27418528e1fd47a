//! This board's slots: where they are, and the record of what to boot in the EEPROM.
//!
//! Owns the flash map and the two places of the record. Refuses to interpret them: `gengfu_node::slots` does, in the boot loader and in the
//! image alike.
//!
//! ```text
//! flash 0x00000 boot loader, 31 KiB | 0x07c00 trusted keys | 0x08000 slot A, 49 KiB | 0x14400 slot B, 49 KiB | 0x20800
//! EEPROM 0x0000, 0x0020 boot counter | 0x0100, 0x0120 record of the slots
//! ```

use embedded_hal::i2c::I2c;
use gengfu_node::slots::{Layout, RECORD_BYTES, RecordFault, Records};
use gengfu_node::wire::Slot;

use crate::boot::{EEPROM_ADDRESS, patiently};

/// This kind of board, as in a manifest. Numbers of boards: docs/firmware.md.
pub const BOARD: u16 = 1;
/// Where the trusted keys are.
pub const KEYS_AT: u32 = 0x7c00;
/// Where the slots are; memory.a.x and memory.b.x say the same to the linker.
pub const LAYOUT: Layout = Layout { at: [0x08000, 0x14400], page_bytes: 1024, image_pages: 48 };
/// Where the two records are: each on a page of its own.
pub const RECORDS_AT: [u16; 2] = [0x0100, 0x0120];

/// The slot whose image has its vector table at `table`; `None` for an image that was flashed without a boot loader.
#[must_use]
pub fn slot_of(table: u32) -> Option<Slot> {
    Slot::BOTH.into_iter().find(|slot| LAYOUT.image_at(*slot) == table)
}

/// The record in an EEPROM.
pub struct EepromRecords<B>(B);

impl<B: I2c> EepromRecords<B> {
    /// On this bus.
    pub fn new(bus: B) -> Self {
        Self(bus)
    }
}

impl<B: I2c> Records for EepromRecords<B> {
    fn read(&mut self, place: usize) -> Result<[u8; RECORD_BYTES], RecordFault> {
        let at = RECORDS_AT.get(place).ok_or(RecordFault)?.to_be_bytes();
        patiently(|| self.0.write(EEPROM_ADDRESS, &at).is_ok()).map_err(|_| RecordFault)?;
        let mut record = [0; RECORD_BYTES];
        self.0.read(EEPROM_ADDRESS, &mut record).map_err(|_| RecordFault)?;
        Ok(record)
    }

    fn write(&mut self, place: usize, record: &[u8; RECORD_BYTES]) -> Result<(), RecordFault> {
        let mut bytes = [0; 2 + RECORD_BYTES];
        bytes[..2].copy_from_slice(&RECORDS_AT.get(place).ok_or(RecordFault)?.to_be_bytes());
        bytes[2..].copy_from_slice(record);
        patiently(|| self.0.write(EEPROM_ADDRESS, &bytes).is_ok()).map_err(|_| RecordFault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_fit_the_chip_and_the_core() {
        let image = |slot| LAYOUT.image_at(slot);
        for slot in Slot::BOTH {
            assert!(image(slot).is_multiple_of(256), "60 vectors must be aligned to the next power of two");
            assert_eq!(slot_of(image(slot)), Some(slot));
        }
        assert_eq!(slot_of(0), None);
        assert_eq!(image(Slot::A) + LAYOUT.image_bytes_max(), LAYOUT.header_at(Slot::B));
        assert!(image(Slot::B) + LAYOUT.image_bytes_max() <= 256 * 1024);
        assert_eq!(KEYS_AT + 1024, LAYOUT.header_at(Slot::A));
    }

    #[test]
    fn the_linker_is_told_the_same_places() {
        for (slot, script) in [(Slot::A, include_str!("../memory.a.x")), (Slot::B, include_str!("../memory.b.x"))] {
            let expected = format!("FLASH : ORIGIN = {:#010x}, LENGTH = 48K", LAYOUT.image_at(slot));
            assert!(script.contains(&expected), "{script}\nlacks {expected}");
        }
    }
}
