//! The index as the store sees it: single keys and values, of which neighbours share one value of the engine. Owns that
//! packing; refuses to know what the keys mean, except which of them come in long runs: pending deliveries and records, by
//! sequence. sled's cost is by the key, not by the byte: a backlog of a million events would be three million keys, and is a
//! little more than one million.
//!
//! A run is all keys that differ only in the last five bits of the sequence and in the sub. It is stored under their common
//! part and a chunk `u8`. Its value, in chunks of at most 4 KiB: for each key those five bits `u8`, sub `u32`, length `u8`
//! and the value, in order of the keys. A chunk that is not full is the last.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use sled::IVec;

use crate::{
    OutboxError,
    engine::Engine,
    layout::{CHUNK_BYTES, sequence_at},
    watch::Watch,
};

/// Sequences of one run.
const RUN: u64 = 32;

/// The index, open.
pub(crate) struct Index {
    engine: Engine,
    /// A run of several chunks is read and written whole.
    runs: RwLock<()>,
}

/// The keys of a run and their values.
type Run = BTreeMap<Vec<u8>, IVec>;

/// A key and its new value; `None` where it goes.
pub(crate) type Change = (Vec<u8>, Option<IVec>);

impl Index {
    pub fn new(engine: Engine) -> Index {
        Index { engine, runs: RwLock::new(()) }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>, OutboxError> {
        match run_of(key) {
            Some(run) => Ok(self.read(&run)?.remove(key)),
            None => self.engine.get(key),
        }
    }

    /// Keys and values from a bound on, in order: at least `limit`, unless there are fewer.
    pub fn some_from(&self, from: &Bound<Vec<u8>>, limit: usize) -> Result<Vec<(IVec, IVec)>, OutboxError> {
        let mut some = Vec::new();
        let mut at = match from {
            Bound::Included(key) | Bound::Excluded(key) => run_of(key).map_or_else(|| from.clone(), Bound::Included),
            Bound::Unbounded => Bound::Unbounded,
        };
        let is_within = |key: &[u8]| match from {
            Bound::Included(from) => key >= &from[..],
            Bound::Excluded(from) => key > &from[..],
            Bound::Unbounded => true,
        };
        while some.len() < limit {
            let Some((key, value)) = self.engine.some_from(&at, 1)?.pop() else { break };
            let Some(run) = run_of(&key) else {
                at = Bound::Excluded(key.to_vec());
                some.push((key, value));
                continue;
            };
            let keys = self.read(&run)?;
            some.extend(keys.into_iter().filter(|(key, _)| is_within(key)).map(|(key, value)| (key.into(), value)));
            at = Bound::Excluded([&run[..], &[u8::MAX]].concat());
        }
        Ok(some)
    }

    /// Makes changes, in order of their keys; gives back how many keys and bytes the engine was given.
    pub fn write(&self, changes: Vec<Change>) -> Result<(usize, usize), OutboxError> {
        let (mut keys, mut bytes) = (0, 0);
        let mut changes = changes.into_iter().peekable();
        while let Some((key, value)) = changes.next() {
            let Some(name) = run_of(&key) else {
                self.engine.set(&key, value.as_deref())?;
                keys += 1;
                bytes += key.len() + value.map_or(0, |value| value.len());
                continue;
            };
            let _whole = self.runs.write().unwrap_or_else(PoisonError::into_inner);
            let (mut run, chunks) = self.read_chunks(&name)?;
            let mut change = Some((key, value));
            while let Some((key, value)) = change {
                match value {
                    Some(value) => run.insert(key, value),
                    None => run.remove(&key),
                };
                change = changes.next_if(|(key, _)| run_of(key).as_ref() == Some(&name));
            }
            let (written, length) = self.write_run(&name, &run, chunks)?;
            keys += written;
            bytes += length;
        }
        Ok((keys, bytes))
    }

    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        self.engine.sync(watch)
    }

    fn read(&self, name: &[u8]) -> Result<Run, OutboxError> {
        let _whole = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        Ok(self.read_chunks(name)?.0)
    }

    /// A run, and how many chunks it has.
    fn read_chunks(&self, name: &[u8]) -> Result<(Run, u8), OutboxError> {
        let mut chunks = 0;
        let mut raw = Vec::new();
        while let Some(chunk) = self.engine.get(&[name, &[chunks]].concat())? {
            raw.extend_from_slice(&chunk);
            chunks += 1;
            if chunk.len() < CHUNK_BYTES || chunks == u8::MAX {
                break;
            }
        }
        let run = decode(name, &raw).ok_or_else(|| OutboxError::Damaged {
            place: "the index".to_owned(),
            detail: "a run of keys does not have the form this program writes",
        })?;
        Ok((run, chunks))
    }

    fn write_run(&self, name: &[u8], run: &Run, before: u8) -> Result<(usize, usize), OutboxError> {
        let raw = encode(name, run);
        // What was not full and is exactly full now would be read on: an empty chunk ends it.
        let is_full = !raw.is_empty() && raw.len().is_multiple_of(CHUNK_BYTES);
        let parts: Vec<&[u8]> = raw.chunks(CHUNK_BYTES).chain(is_full.then_some(&[][..])).collect();
        let Ok(after) = u8::try_from(parts.len()) else {
            return Err(OutboxError::TooLarge {
                what: "what hangs on 32 neighbouring events",
                bytes: raw.len(),
                bytes_max: CHUNK_BYTES * usize::from(u8::MAX),
            });
        };
        for (chunk, part) in (0..after).zip(&parts) {
            self.engine.set(&[name, &[chunk]].concat(), Some(part))?;
        }
        for chunk in after..before {
            self.engine.set(&[name, &[chunk]].concat(), None)?;
        }
        Ok((usize::from(after.max(before)), raw.len()))
    }
}

/// The common part of the keys of the run that `key` belongs to, if it is of a kind that comes in runs. `key` may also be
/// the beginning of a key; the run is then that of the first key that begins so.
fn run_of(key: &[u8]) -> Option<Vec<u8>> {
    let at = sequence_at(key)?;
    let mut run = vec![0; at + 8];
    let given = key.len().min(run.len());
    run[..given].copy_from_slice(&key[..given]);
    let sequence = u64::from_be_bytes(*run[at..].first_chunk()?);
    run[at..].copy_from_slice(&(sequence - sequence % RUN).to_be_bytes());
    Some(run)
}

fn encode(name: &[u8], run: &Run) -> Vec<u8> {
    let mut raw = Vec::new();
    for (key, value) in run {
        // A key is its run's name, in which the five last bits of the sequence are its own, and its sub.
        raw.push(key[name.len() - 1] % RUN as u8);
        raw.extend_from_slice(&key[name.len()..]);
        // Values in runs are a dozen bytes long.
        raw.push(value.len() as u8);
        raw.extend_from_slice(value);
    }
    raw
}

fn decode(name: &[u8], mut raw: &[u8]) -> Option<Run> {
    let mut run = Run::new();
    while !raw.is_empty() {
        let (header, rest) = raw.split_at_checked(6)?;
        let (value, rest) = rest.split_at_checked(usize::from(header[5]))?;
        let mut key = [name, &header[1..5]].concat();
        key[name.len() - 1] |= header[0] % RUN as u8;
        run.insert(key, value.into());
        raw = rest;
    }
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ItemKey, Lane, SimDisk,
        layout::{pending_key, record_key},
    };

    #[test]
    fn keys_in_runs_are_found_one_by_one_and_in_order_however_many_there_are() {
        let lease = SimDisk::new(1).lease("x".as_ref()).unwrap();
        let index = Index::new(Engine::Simulated(lease.open().unwrap()));
        let mut all: BTreeMap<Vec<u8>, IVec> = BTreeMap::new();
        for sequence in [0, 1, 31, 32, 33, 200] {
            for sub in 0..if sequence == 33 { 400 } else { 3 } {
                let key = ItemKey { lane: Lane::Care, sequence, sub };
                all.insert(pending_key(key).to_vec(), IVec::from(&sub.to_be_bytes()));
                all.insert(record_key((sequence, sub)).to_vec(), IVec::from(&[7; 16]));
            }
        }
        all.insert(vec![3, 1], IVec::from(b"single"));
        let changes =
            |all: &BTreeMap<Vec<u8>, IVec>| all.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        index.write(changes(&all)).unwrap();
        let check = |all: &BTreeMap<Vec<u8>, IVec>| {
            for (key, value) in all {
                assert_eq!(index.get(key).unwrap().as_ref(), Some(value));
            }
            for limit in [1, 5, 10_000] {
                let (mut found, mut from) = (Vec::new(), Bound::Unbounded);
                loop {
                    let some = index.some_from(&from, limit).unwrap();
                    let Some((last, _)) = some.last() else { break };
                    from = Bound::Excluded(last.to_vec());
                    found.extend(some.into_iter().map(|(key, value)| (key.to_vec(), value)));
                }
                assert_eq!(found, all.clone().into_iter().collect::<Vec<_>>(), "by {limit}");
            }
        };
        check(&all);
        let gone: Vec<Vec<u8>> = all.keys().skip(5).step_by(2).cloned().collect();
        index.write(gone.iter().map(|key| (key.clone(), None)).collect()).unwrap();
        all.retain(|key, _| !gone.contains(key));
        check(&all);
        index.write(all.keys().map(|key| (key.clone(), None)).collect()).unwrap();
        check(&BTreeMap::new());
        assert_eq!(index.engine.some_from(&Bound::Unbounded, 9).unwrap(), []);
    }
}
