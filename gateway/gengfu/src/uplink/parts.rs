//! A picture that is larger than the broker takes, on its way in parts.
//!
//! Owns which parts wait, are on the wire, or are acknowledged; the cutting itself is the contract's ([`gengfu_contract::evidence`]). Few parts are on
//! the wire at a time, so that a fire that comes meanwhile passes between two of them. It refuses to remember anything beyond a
//! connection: after a loss the picture is sent again from its first part, and the centre knows parts by their numbers.

use std::collections::VecDeque;

use gengfu_contract::evidence;
use gengfu_outbox::ItemKey;

/// Parts on the wire at one time.
const AT_ONCE: usize = 2;

/// One picture under way.
#[derive(Debug)]
pub(super) struct Parts {
    /// The picture's item.
    pub key: ItemKey,
    waiting: VecDeque<(u32, u32, Vec<u8>)>,
    on_wire: usize,
}

impl Parts {
    /// Cuts a picture into parts of at most `part_bytes_max`; `None` when that would be too many.
    pub fn new(key: ItemKey, picture: &[u8], part_bytes_max: usize) -> Option<Self> {
        let parts = evidence::split(picture, part_bytes_max)?;
        let waiting = parts.into_iter().map(|(part, parts, bytes)| (part, parts, bytes.to_vec())).collect();
        Some(Self { key, waiting, on_wire: 0 })
    }

    /// The next part to publish: its number, how many there are, its bytes. `None` while enough are on the wire.
    pub fn next(&mut self) -> Option<(u32, u32, Vec<u8>)> {
        if self.on_wire >= AT_ONCE {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.on_wire += 1;
        Some(next)
    }

    /// The broker acknowledged one. True when it was the last: the broker has the whole picture.
    pub fn acknowledged(&mut self) -> bool {
        self.on_wire = self.on_wire.saturating_sub(1);
        self.on_wire == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use gengfu_contract::evidence::EvidenceJoiner;
    use gengfu_contract::words::Lane;

    use super::super::testing::{at, journal, outbox};
    use super::*;

    #[test]
    fn few_parts_are_on_the_wire_and_the_last_acknowledgement_ends_it() {
        let (_dir, outbox) = outbox();
        journal(&outbox, "any", Lane::City, at(0));
        let key = outbox.take(1).unwrap()[0].key;
        let picture: Vec<u8> = (0..10_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut parts = Parts::new(key, &picture, 3_000).unwrap();
        let mut joiner = EvidenceJoiner::new(1 << 20);
        let mut whole = None;
        let mut on_wire = 0;
        for _ in 0..4 {
            while let Some((part, of, bytes)) = parts.next() {
                on_wire += 1;
                assert!(on_wire <= AT_ONCE && bytes.len() <= 3_000);
                whole = whole.or(joiner.take("A", 1, part, of, &bytes).unwrap());
            }
            on_wire -= 1;
            assert_eq!(parts.acknowledged(), on_wire == 0 && parts.waiting.is_empty());
        }
        assert_eq!((whole, on_wire), (Some(picture), 0));
        assert!(Parts::new(key, &[0; 1 << 20], 16).is_none(), "too many parts");
    }
}
