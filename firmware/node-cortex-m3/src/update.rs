//! The image's part in its own replacement.
//!
//! Owns who runs (the slot whose vector table the core uses, and the version that is signed for it), the flash of the other slot, and the
//! restart. Refuses everything else: what is taken and when is `gengfu_node::Updater`, what runs next is the boot loader's. An image that was
//! flashed without a boot loader has no slots; it says so by its capabilities and ignores updates.

use cortex_m::peripheral::SCB;
use gengfu_node::slots::manifest;
use gengfu_node::update::{Place, Step};
use gengfu_node::{Board, Identity, Node, Updater};
use gengfu_node_board::slots::{BOARD, EepromRecords, LAYOUT, slot_of};

use crate::flash::Flash;
use crate::i2c::Bus;

/// The updater of an image that has slots.
pub struct Update(Option<Updater<Flash, EepromRecords<Bus>>>);

impl Update {
    /// Finds out where this image runs. The version it tells becomes the one that was signed.
    #[inline(never)]
    pub fn open(identity: &mut Identity, bus: Bus) -> Self {
        // SAFETY: reading a register of the core that the boot loader has set.
        let table = unsafe { (*SCB::PTR).vtor.read() };
        let Some(running) = slot_of(table) else { return Self(None) };
        let from = LAYOUT.header_at(running.other());
        let mut flash = Flash::writable(from, LAYOUT.image_at(running.other()) + LAYOUT.image_bytes_max());
        if let Some(manifest) = manifest(&mut flash, &LAYOUT, running) {
            identity.firmware = manifest.version;
        }
        let place = Place { board: BOARD, uid: identity.uid, boot: identity.boot, running, layout: LAYOUT };
        Self(Some(Updater::new(flash, EepromRecords::new(bus), place)))
    }

    /// To be called in each round, between the bytes and the node's poll.
    #[inline(never)]
    pub fn run<B: Board, const SENSORS: usize>(&mut self, now_ms: u64, node: &mut Node<B, SENSORS>) {
        let Some(updater) = &mut self.0 else { return };
        let situation = node.situation();
        if updater.run(now_ms, node.update_seam(), situation) == Step::Restart {
            SCB::sys_reset();
        }
    }
}
