//! What the board does that needs no register of it.
//!
//! Owns the records in flash ([`records`]) and the unique id ([`uid`]). Refuses registers, interrupts and `unsafe`: those are the
//! image's (`main.rs`), so that this part is tested on the host.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod records;

/// The EUI-64 of a chip with a 96-bit serial number (RM0383, 24.1): its FNV-1a hash, marked as locally administered and individual, because no
/// registry gave it. Two chips have the same with a chance of one in 2^62.
#[must_use]
pub fn uid(serial: [u8; 12]) -> [u8; 8] {
    let hash = serial
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut uid = hash.to_be_bytes();
    uid[0] = uid[0] & 0xfc | 0x02;
    uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn chips_of_one_wafer_have_different_ids_that_are_marked_as_local() {
        let mut ids = BTreeSet::new();
        for x in 0..100 {
            for y in 0..100 {
                let id = uid([x, 0, y, 0, 7, b'Q', b'1', b'2', b'3', b'4', b'5', b'6']);
                assert_eq!(id[0] & 3, 2, "local, individual");
                ids.insert(id);
            }
        }
        assert_eq!(ids.len(), 10_000);
    }
}
