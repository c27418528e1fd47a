//! What the board does that needs no register of it.
//!
//! Owns the records in the EEPROM ([`boot`]) and the places of the slots ([`slots`]). Refuses registers, interrupts and `unsafe`: those are
//! the image's (`main.rs`), so that this part is tested on the host.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod boot;
pub mod slots;
