//! The chip's flash as an `embedded-storage` part: pages of 1 KiB, words of four bytes.
//!
//! Owns reading it in place and the flash controller (data sheet, chapter 7). Refuses to erase or write outside of the one slot it was given:
//! the loader, its keys and the running image are out of reach. While a page is erased (20 ms) the core, which runs from the same flash, stands.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::regs::{FLASH, Register, SYSTEM};

/// Bytes of the chip's flash.
const BYTES: u32 = 256 * 1024;
/// What one erase erases.
const PAGE: u32 = 1024;
/// Looks at the controller before an erase or write counts as failed; many times what the data sheet allows.
const LOOKS: u32 = 4_000_000;

const ADDRESS: Register = FLASH.at(0x000);
const DATA: Register = FLASH.at(0x004);
const CONTROL: Register = FLASH.at(0x008);
const STATUS: Register = FLASH.at(0x00c);
const CLEAR: Register = FLASH.at(0x014);
/// Microseconds in clocks, for the controller's timing.
const MICROSECOND: Register = SYSTEM.at(0x140);

const KEY: u32 = 0xa442 << 16;
const WRITE: u32 = 1;
const ERASE: u32 = 1 << 1;
/// A protected place was to be changed.
const ACCESS: u32 = 1;

/// The flash; what lies outside of `writable` is only read.
pub struct Flash {
    from: u32,
    to: u32,
}

/// What went wrong.
#[derive(Debug, Clone, Copy)]
pub struct FlashFault(NorFlashErrorKind);

impl NorFlashError for FlashFault {
    fn kind(&self) -> NorFlashErrorKind {
        self.0
    }
}

impl Flash {
    /// Nothing can be changed.
    #[allow(dead_code, reason = "the boot loader's; the image has a slot to write")]
    pub const fn read_only() -> Self {
        Self { from: 0, to: 0 }
    }

    /// Only `from..to` can be changed.
    #[allow(dead_code, reason = "the image's; the boot loader only reads")]
    pub fn writable(from: u32, to: u32) -> Self {
        MICROSECOND.write(crate::clock::CORE_HZ / 1_000_000);
        Self { from, to }
    }

    fn may_change(&self, from: u32, to: u32, unit: u32) -> Result<(), FlashFault> {
        if !from.is_multiple_of(unit) || !to.is_multiple_of(unit) {
            return Err(FlashFault(NorFlashErrorKind::NotAligned));
        }
        let is_inside = self.from <= from && from <= to && to <= self.to;
        if is_inside { Ok(()) } else { Err(FlashFault(NorFlashErrorKind::OutOfBounds)) }
    }

    fn command(&mut self, at: u32, what: u32) -> Result<(), FlashFault> {
        ADDRESS.write(at);
        CONTROL.write(KEY | what);
        let is_done = (0..LOOKS).any(|_| CONTROL.read() & what == 0);
        let is_refused = STATUS.read() & ACCESS != 0;
        CLEAR.write(ACCESS);
        if is_done && !is_refused { Ok(()) } else { Err(FlashFault(NorFlashErrorKind::Other)) }
    }
}

impl ErrorType for Flash {
    type Error = FlashFault;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashFault> {
        let end = u32::try_from(bytes.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > BYTES) {
            return Err(FlashFault(NorFlashErrorKind::OutOfBounds));
        }
        for (at, byte) in (offset..).zip(bytes) {
            // SAFETY: below `BYTES`, where the chip's flash is mapped from address 0 on; any byte of it may be read.
            *byte = unsafe { read_byte(at) };
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        BYTES as usize
    }
}

/// # Safety
/// `at` must be an address of flash.
unsafe fn read_byte(at: u32) -> u8 {
    let value: u32;
    // An ordinary load, spelled out: to the compiler a pointer to address 0 is none, and the controller changes flash behind its back.
    // SAFETY: the caller gives an address of flash; nothing is written.
    unsafe {
        core::arch::asm!(
            "ldrb {value}, [{at}]",
            at = in(reg) at,
            value = out(reg) value,
            options(nostack, readonly, preserves_flags)
        );
    }
    value.to_le_bytes()[0]
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE as usize;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashFault> {
        self.may_change(from, to, PAGE)?;
        (from..to).step_by(PAGE as usize).try_for_each(|at| self.command(at, ERASE))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashFault> {
        let length = u32::try_from(bytes.len()).map_err(|_| FlashFault(NorFlashErrorKind::OutOfBounds))?;
        self.may_change(offset, offset.saturating_add(length), 4)?;
        for (at, word) in (offset..).step_by(4).zip(bytes.chunks_exact(4)) {
            DATA.write(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            self.command(at, WRITE)?;
        }
        Ok(())
    }
}
