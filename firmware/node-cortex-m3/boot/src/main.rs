//! The boot loader of the LM3S6965.
//!
//! Owns the first instruction after a reset and the jump into an image. Refuses to run an image that no trusted key has signed, and to know
//! why one is chosen: that is `gengfu_node::slots::choose`, the same code that is tested on the host with a power cut at every step. It never
//! writes flash. The trusted keys are in the last page of its 32 KiB; a chip without them runs nothing.
//!
//! ```text
//! reset -> clocks -> watchdog -> record (EEPROM) -> signature, digest -> jump; nothing that may run -> the watchdog begins anew
//! ```
#![no_std]
#![no_main]

#[path = "../../src/flash.rs"]
mod flash;
#[path = "../../src/i2c.rs"]
mod i2c;
#[path = "../../src/regs.rs"]
#[allow(dead_code, reason = "the registers of the image too")]
mod regs;

mod clock;

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use ed25519_compact::{PublicKey, Signature};
use embedded_storage::nor_flash::ReadNorFlash;
use gengfu_node::slots::{Asker, choose};
use gengfu_node::wire::Uid;
use gengfu_node::wire::update::{KEY_PAGE_BYTES, keys_in};
use gengfu_node_board::boot::eui64;
use gengfu_node_board::slots::{BOARD, EepromRecords, KEYS_AT, LAYOUT};

#[entry]
fn main() -> ! {
    clock::start_core();
    clock::start_watchdog();
    let mut flash = flash::Flash::read_only();
    let mut page = [0; KEY_PAGE_BYTES];
    let _ = flash.read(KEYS_AT, &mut page);
    let is_trusted = |manifest: &[u8; 64], signature: &[u8; 64]| {
        let signature = Signature::new(*signature);
        keys_in(&page).any(|key| PublicKey::new(*key).verify(manifest, &signature).is_ok())
    };
    let uid = Uid(eui64(regs::SYSTEM.at(0x1e0).read(), regs::SYSTEM.at(0x1e4).read()));
    let asker = Asker { board: BOARD, uid, is_trusted: &is_trusted };
    let mut records = EepromRecords::new(i2c::Bus::open());
    match choose(&mut flash, &mut records, &LAYOUT, &asker) {
        Ok(slot) => jump(LAYOUT.image_at(slot)),
        // Nothing may run. The watchdog starts all over in some seconds: a part that was only slow to wake up gets its chance.
        Err(_) => loop {
            cortex_m::asm::wfi();
        },
    }
}

unsafe extern "C" {
    fn DefaultHandler();
}

/// The table of interrupts, as cortex-m-rt wants it: none is enabled here.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [unsafe extern "C" fn(); 1] = [DefaultHandler];

/// Hands the processor to the image whose vector table is at `table`.
fn jump(table: u32) -> ! {
    // SAFETY: `choose` has found a whole, signed image there; its first two words are its stack and its entry, and the layout aligns its
    // table. No interrupt is enabled, nothing of this program is used any more. The watchdog runs on: the image must feed it.
    unsafe {
        (*SCB::PTR).vtor.write(table);
        cortex_m::asm::bootload(table as *const u32)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}

#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    SCB::sys_reset()
}
