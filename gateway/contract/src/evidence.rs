//! Pictures that are larger than the broker takes in one message.
//!
//! Owns how a picture is cut and put together again: part `p` of `q` travels on `evidence/<id>/<n>/<p>/<q>`, its payload is nothing but the
//! bytes, so that any MQTT version carries it and any language joins it. Refuses a joined picture whose SHA-256 is not the one the
//! event named. A joiner's memory is bounded.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Most parts of one picture.
pub const PARTS_MAX: u32 = 1024;

/// The parts of a picture, each at most `part_max_bytes` (at least 1), with their numbers from 1 and how many there are. `None` when there
/// would be more than [`PARTS_MAX`]. A picture that fits is one part: send that on `evidence/<id>/<n>`.
#[must_use]
pub fn split(picture: &[u8], part_max_bytes: usize) -> Option<Vec<(u32, u32, &[u8])>> {
    let size = part_max_bytes.max(1);
    let parts = u32::try_from(picture.len().div_ceil(size).max(1)).ok().filter(|parts| *parts <= PARTS_MAX)?;
    if picture.is_empty() {
        return Some(vec![(1, 1, picture)]);
    }
    Some((1..).zip(picture.chunks(size)).map(|(part, bytes)| (part, parts, bytes)).collect())
}

/// Puts pictures together again, in whatever order and however often their parts come.
#[derive(Debug)]
pub struct EvidenceJoiner {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    open: BTreeMap<(String, u32), Open>,
}

#[derive(Debug)]
struct Open {
    parts: Vec<Option<Vec<u8>>>,
    touched: u64,
}

/// Why a part is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Its numbers contradict each other or the parts before.
    #[error(
        "picture {id}/{n}: part {part} of {parts} does not fit; expected 1 to {PARTS_MAX} parts, all of one picture"
    )]
    Numbers {
        /// The alarm or command.
        id: String,
        /// The picture.
        n: u32,
        /// Part as told.
        part: u32,
        /// Parts as told.
        parts: u32,
    },
    /// It alone is larger than the joiner may hold.
    #[error("picture {id}/{n}: larger than the {bytes_max} bytes set aside for pictures; set more aside")]
    TooLarge {
        /// The alarm or command.
        id: String,
        /// The picture.
        n: u32,
        /// The bound.
        bytes_max: usize,
    },
}

impl EvidenceJoiner {
    /// A joiner that holds at most `bytes_max` of unfinished pictures; above it forgets the one that waits longest.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, clock: 0, open: BTreeMap::new() }
    }

    /// Takes a part; the whole picture when it was the last that was wanting. Check it with [`is_named`].
    ///
    /// # Errors
    /// [`JoinError`]; what was taken before stays.
    pub fn take(
        &mut self,
        id: &str,
        n: u32,
        part: u32,
        parts: u32,
        bytes: &[u8],
    ) -> Result<Option<Vec<u8>>, JoinError> {
        let key = (id.to_owned(), n);
        let fits = (1..=PARTS_MAX).contains(&parts) && (1..=parts).contains(&part);
        if !fits || self.open.get(&key).is_some_and(|open| open.parts.len() != parts as usize) {
            return Err(JoinError::Numbers { id: key.0, n, part, parts });
        }
        let held = self.open.get(&key).map_or(0, Open::bytes);
        if held + bytes.len() > self.bytes_max {
            self.forget(&key);
            return Err(JoinError::TooLarge { id: key.0, n, bytes_max: self.bytes_max });
        }
        self.clock += 1;
        let touched = self.clock;
        let open = self.open.entry(key.clone()).or_insert_with(|| Open { parts: vec![None; parts as usize], touched });
        open.touched = touched;
        if let Some(place @ None) = open.parts.get_mut(part as usize - 1) {
            *place = Some(bytes.to_vec());
            self.bytes += bytes.len();
        }
        if open.parts.iter().all(Option::is_some) {
            let whole = open.parts.iter().flatten().flatten().copied().collect();
            self.forget(&key);
            return Ok(Some(whole));
        }
        self.make_room(&key);
        Ok(None)
    }

    fn make_room(&mut self, keep: &(String, u32)) {
        while self.bytes > self.bytes_max {
            let oldest = self.open.iter().filter(|(key, _)| *key != keep).min_by_key(|(_, open)| open.touched);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &(String, u32)) {
        if let Some(open) = self.open.remove(key) {
            self.bytes -= open.bytes();
        }
    }
}

impl Open {
    fn bytes(&self) -> usize {
        self.parts.iter().flatten().map(Vec::len).sum()
    }
}

/// True when these bytes have this SHA-256 (hex, as in [`crate::event::EvidenceRef`]).
#[must_use]
pub fn is_named(bytes: &[u8], sha256: &str) -> bool {
    hex::encode(Sha256::digest(bytes)).eq_ignore_ascii_case(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_split_is_joined_again_in_any_order() {
        let picture: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for size in [1, 7, 999, 1000, 1001] {
            let parts = split(&picture, size).unwrap();
            assert_eq!(parts.len(), 1000usize.div_ceil(size));
            let mut joiner = EvidenceJoiner::new(2000);
            let mut whole = None;
            for (part, of, bytes) in parts.iter().rev() {
                assert_eq!(whole, None);
                whole = joiner.take("A", 1, *part, *of, bytes).unwrap();
                if whole.is_none() {
                    assert_eq!(joiner.take("A", 1, *part, *of, bytes), Ok(None), "a repeat changes nothing");
                }
            }
            assert_eq!(whole.unwrap(), picture);
            assert_eq!(joiner.bytes, 0);
        }
        assert_eq!(split(&picture, 0).unwrap().len(), 1000);
        assert_eq!(split(&[0; 2000], 1), None, "more than {PARTS_MAX} parts");
        assert_eq!(split(&[], 10).unwrap(), [(1, 1, &[][..])]);
    }

    #[test]
    fn memory_is_bounded_and_the_one_that_waits_longest_goes_first() {
        let mut joiner = EvidenceJoiner::new(100);
        for n in 1..=3 {
            assert_eq!(joiner.take("A", n, 1, 2, &[0; 40]), Ok(None));
        }
        assert!(joiner.bytes <= 100);
        assert_eq!(joiner.take("A", 1, 2, 2, &[0; 10]), Ok(None), "its first part was forgotten");
        assert_eq!(joiner.take("A", 3, 2, 2, &[0; 10]).unwrap().unwrap().len(), 50);
        assert!(matches!(joiner.take("B", 1, 1, 2, &[0; 101]), Err(JoinError::TooLarge { .. })));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let mut joiner = EvidenceJoiner::new(100);
        joiner.take("A", 1, 1, 2, b"x").unwrap();
        for (part, parts) in [(0, 2), (3, 2), (1, 3), (1, 0), (1, PARTS_MAX + 1)] {
            assert!(
                matches!(joiner.take("A", 1, part, parts, b"x"), Err(JoinError::Numbers { .. })),
                "{part} of {parts}"
            );
        }
        assert!(is_named(b"x", &hex::encode(Sha256::digest(b"x"))) && !is_named(b"x", "00"));
    }
}
