//! The chip's registers, by their names in TI's LM3S6965 data sheet (DS-LM3S6965, rev. 2014).
//!
//! Owns the only volatile accesses of this image, and the addresses. Refuses meaning: the modules that use a block know it. The
//! manufacturer's register crates are not used: they are many times this file, and nobody keeps them.

/// A 32-bit register.
#[derive(Clone, Copy)]
pub struct Register(usize);

impl Register {
    /// Reads it.
    pub fn read(self) -> u32 {
        // SAFETY: `self.0` is the address of a register of this chip: only `Block::at` and `GpioPort::data` make one, from the blocks
        // below. Registers are aligned, and no Rust object lies there.
        unsafe { core::ptr::read_volatile(self.0 as *const u32) }
    }

    /// Writes it.
    pub fn write(self, value: u32) {
        // SAFETY: as in `read`. No register written here makes the hardware touch memory of ours: there is no DMA on this chip.
        unsafe { core::ptr::write_volatile(self.0 as *mut u32, value) }
    }

    /// Sets bits, leaving the others. Not atomic: for set-up, before interrupts run, or for blocks that no interrupt touches.
    pub fn set(self, bits: u32) {
        self.write(self.read() | bits);
    }

    /// Clears bits, leaving the others. As [`Register::set`].
    pub fn clear(self, bits: u32) {
        self.write(self.read() & !bits);
    }
}

/// A block of registers of 4 KiB.
#[derive(Clone, Copy)]
pub struct Block(usize);

impl Block {
    /// The register at `offset` bytes.
    pub const fn at(self, offset: usize) -> Register {
        assert!(offset < 0x1000 && offset.is_multiple_of(4), "a register lies within its block");
        Register(self.0 + offset)
    }
}

/// Watchdog timer.
pub const WATCHDOG0: Block = Block(0x4000_0000);
/// Serial port 0: the wire.
pub const UART0: Block = Block(0x4000_c000);
/// I2C master 0.
pub const I2C0: Block = Block(0x4002_0000);
/// General-purpose timer 0.
pub const TIMER0: Block = Block(0x4003_0000);
/// Analogue inputs.
pub const ADC0: Block = Block(0x4003_8000);
/// Flash controller.
pub const FLASH: Block = Block(0x400f_d000);
/// Clocks, reset cause, identity.
pub const SYSTEM: Block = Block(0x400f_e000);

/// A port of eight pins.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GpioPort {
    /// PA0 to PA7.
    A,
    /// PB0 to PB7.
    B,
    /// PD0 to PD7.
    D,
}

impl GpioPort {
    /// Its registers.
    pub const fn block(self) -> Block {
        match self {
            GpioPort::A => Block(0x4000_4000),
            GpioPort::B => Block(0x4000_5000),
            GpioPort::D => Block(0x4000_7000),
        }
    }

    /// The data register seen through a mask: reads and writes touch only the pins in it, so that no pin needs a lock.
    pub const fn data(self, mask: u8) -> Register {
        self.block().at((mask as usize) << 2)
    }
}
