//! A boot id from a counter (W11).
//!
//! Owns the mixing, which every board with a counter shares. Refuses to count: where a counter outlives the power is the board's.

/// The boot id of the chip `uid` at its boot number `counter`. For one chip different counters give different ids, always;
/// for two chips equal ids are as unlikely as for random numbers.
#[must_use]
pub fn boot_id(uid: [u8; 8], counter: u32) -> u32 {
    // FNV-1a over the id. The counter is mixed before and after, so that chips whose hashes are alike do not run in step.
    let chip = uid.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    mix(mix(counter) ^ chip)
}

/// The finalizer of MurmurHash3: a bijection of 32 bits in which each bit of the input changes half of the output's.
fn mix(value: u32) -> u32 {
    let value = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    let value = (value ^ (value >> 13)).wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn w11_ids_of_one_chip_differ_and_those_of_two_chips_hardly_meet() {
        let chip = |last| [0x00, 0x1a, 0xb6, 0xff, 0xfe, 0, 0, last];
        let mut ids = BTreeSet::new();
        for last in [1_u8, 2, 3] {
            ids.extend((1..=10_000).map(|counter| boot_id(chip(last), counter)));
        }
        // 30,000 of 2^32: a pair is expected in one of ten such sets; this one has at most one.
        assert!(ids.len() >= 29_999, "{}", ids.len());
        assert_eq!((1..=100_000).map(|counter| boot_id(chip(1), counter)).collect::<BTreeSet<_>>().len(), 100_000);
    }
}
