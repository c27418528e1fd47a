//! Changes that belong together: a key gets a value, or goes. Owns their bytes in the redo record; refuses to know what
//! the keys mean. Applying the same changes twice is the same as once, which is what makes a redo record work.

use std::collections::BTreeMap;

/// Changes of one batch, one per key, in order of keys (neighbours share a leaf of the tree).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ops(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Ops {
    /// The key gets this value, whatever was said of it before.
    pub fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), Some(value.into()));
    }

    /// The key goes, if it is there by then.
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.0.insert(key.into(), None);
    }

    /// Keys and their new values; `None` where the key goes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How long [`Ops::encode`]'s answer will be.
    pub fn encoded_bytes(&self) -> usize {
        self.iter().map(|(key, value)| 2 + key.len() + 4 + value.map_or(0, <[u8]>::len)).sum()
    }

    /// For each key: its length `u16`, the key, then the value's length `u32` and the value, or `u32::MAX` where the
    /// key goes. Big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        for (key, value) in self.iter() {
            // The longest key is a long state key with its chunk, the longest value a chunk: both casts keep the length.
            out.extend_from_slice(&(key.len() as u16).to_be_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(&value.map_or(u32::MAX, |value| value.len() as u32).to_be_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        out
    }

    /// Reads what [`Ops::encode`] wrote; `None` for anything else.
    pub fn decode(mut raw: &[u8]) -> Option<Ops> {
        let mut ops = Ops::default();
        while !raw.is_empty() {
            let length = u16::from_be_bytes(*take(&mut raw, 2)?.first_chunk()?);
            let key = take(&mut raw, usize::from(length))?;
            match u32::from_be_bytes(*take(&mut raw, 4)?.first_chunk()?) {
                u32::MAX => ops.remove(key),
                length => ops.insert(key, take(&mut raw, usize::try_from(length).ok()?)?),
            }
        }
        Some(ops)
    }
}

fn take<'a>(raw: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = raw.split_at_checked(count)?;
    *raw = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_read_back_and_a_cut_record_never_reads_as_the_whole() {
        let mut ops = Ops::default();
        ops.insert(*b"key", *b"old");
        ops.insert(*b"key", *b"new");
        ops.insert(*b"empty", Vec::new());
        ops.insert(*b"gone", *b"soon");
        ops.remove(*b"gone");
        let raw = ops.encode();
        assert_eq!(raw.len(), ops.encoded_bytes());
        assert_eq!(Ops::decode(&raw), Some(ops.clone()));
        let whole: Vec<_> = ops.iter().collect();
        assert_eq!(whole, [(&b"empty"[..], Some(&b""[..])), (b"gone", None), (b"key", Some(b"new"))]);
        for cut in 0..raw.len() {
            assert_ne!(Ops::decode(&raw[..cut]), Some(ops.clone()), "cut at {cut}");
        }
    }
}
