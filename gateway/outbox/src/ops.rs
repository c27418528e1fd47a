//! Changes that belong together: a key gets a value, or goes. Owns their bytes in the log; refuses to know what the keys
//! mean. Making the same changes twice is the same as once, which is what makes a log work.

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
            // The longest key is a long state key with its chunk, the longest value a record: both casts keep the length.
            out.extend_from_slice(&(key.len() as u16).to_be_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(&value.map_or(u32::MAX, |value| value.len() as u32).to_be_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        out
    }
}

/// A key in encoded changes, and its new value with the offset at which it begins; `None` where the key goes.
pub(crate) type Entry<'a> = (&'a [u8], Option<(usize, &'a [u8])>);

/// Reads what [`Ops::encode`] wrote; a last `None` where it does not have that form.
pub(crate) fn entries(raw: &[u8]) -> impl Iterator<Item = Option<Entry<'_>>> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = entry(raw.len(), &mut rest);
        if entry.is_none() {
            rest = &[];
        }
        Some(entry)
    })
}

fn entry<'a>(whole: usize, rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let length = u16::from_be_bytes(*take(rest, 2)?.first_chunk()?);
    let key = take(rest, usize::from(length))?;
    match u32::from_be_bytes(*take(rest, 4)?.first_chunk()?) {
        u32::MAX => Some((key, None)),
        length => {
            let at = whole - rest.len();
            Some((key, Some((at, take(rest, usize::try_from(length).ok()?)?))))
        }
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
        let read = |raw: &[u8]| {
            entries(raw)
                .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.map(|(at, value)| (at, value.to_vec())))))
                .collect::<Option<Vec<_>>>()
        };
        let all = read(&raw).unwrap();
        assert!(all.iter().flat_map(|(_, value)| value).all(|(at, value)| raw[*at..].starts_with(value)));
        let whole: Vec<_> = ops.iter().collect();
        assert_eq!(whole, [(&b"empty"[..], Some(&b""[..])), (b"gone", None), (b"key", Some(b"new"))]);
        for cut in 0..raw.len() {
            assert_ne!(read(&raw[..cut]), Some(all.clone()), "cut at {cut}");
        }
    }
}
