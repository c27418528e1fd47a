//! How a record ends: received or dropped, then pruned. Owns the rules of what stays for the journal and for `trace`;
//! refuses to decide when: receipts, bounds and commits call it.

use std::collections::HashSet;

use crate::{
    ItemKey, OutboxError, Outcome,
    disk::Store,
    layout::{
        HEAD_KEY, HeadRecord, IdRecord, RecordHeader, StageTimes, body_key, body_prefix, further_chunks, group_key,
        id_key, parse_body_key, pending_key,
    },
    ops::Ops,
};

/// A record without its bytes: what settling needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub header: RecordHeader,
    /// Chunks after the first.
    pub further: u16,
}

/// Reads the outline of a record; `None` when there is no such record.
pub(crate) fn read_outline(store: &Store, position: (u64, u32)) -> Result<Option<Outline>, OutboxError> {
    let Some(raw) = store.get(&body_key(position, 0))? else { return Ok(None) };
    let (header, length, start) = RecordHeader::decode(&raw).ok_or_else(|| damaged(position))?;
    Ok(Some(Outline { further: further_chunks(length, start.len()), header }))
}

/// Reads a whole record; `None` when there is no such record.
pub(crate) fn read_record(store: &Store, position: (u64, u32)) -> Result<Option<(RecordHeader, Vec<u8>)>, OutboxError> {
    let Some(raw) = store.get(&body_key(position, 0))? else { return Ok(None) };
    let (header, length, start) = RecordHeader::decode(&raw).ok_or_else(|| damaged(position))?;
    let mut bytes = Vec::with_capacity(length.min(crate::MAX_VALUE_BYTES));
    bytes.extend_from_slice(start);
    for chunk in 1..=further_chunks(length, start.len()) {
        let part = store.get(&body_key(position, chunk))?.ok_or_else(|| damaged(position))?;
        bytes.extend_from_slice(&part);
    }
    if bytes.len() != length {
        return Err(damaged(position));
    }
    Ok(Some((header, bytes)))
}

/// Ends a pending item. An event's record stays in the journal until it is pruned, an attachment loses its bytes at
/// once. What lies below the kept journal (it was only waiting for this) goes altogether. `reason`: why it was abandoned.
pub(crate) fn settle(
    ops: &mut Ops,
    head: &mut HeadRecord,
    key: ItemKey,
    outline: &Outline,
    (outcome, reason): (Outcome, &str),
    times: StageTimes,
) {
    let lane = key.lane.index();
    ops.remove(&pending_key(key)[..]);
    if outline.header.group != 0 {
        ops.remove(&group_key(key, outline.header.group)[..]);
    }
    head.pending[lane] = head.pending[lane].saturating_sub(1);
    if outcome == Outcome::Dropped {
        head.dropped[lane] = head.dropped[lane].saturating_add(1);
    }
    if outcome == Outcome::Abandoned {
        head.abandoned[lane] = head.abandoned[lane].saturating_add(1);
    }
    if key.sequence < head.oldest {
        remove(ops, key.position(), outline);
        return;
    }
    ops.insert(id_key(&outline.header.id), IdRecord { key, outcome, times, reason: reason.to_owned() }.encode());
    if outline.header.prev_hash.is_some() {
        head.settled += 1;
    } else {
        let emptied = RecordHeader { emptied: true, ..outline.header.clone() };
        for chunk in 1..=outline.further {
            ops.remove(&body_key(key.position(), chunk)[..]);
        }
        // Without bytes a record is one chunk.
        ops.insert(&body_key(key.position(), 0)[..], emptied.encode(&[]).concat());
    }
}

fn remove(ops: &mut Ops, position: (u64, u32), outline: &Outline) {
    for chunk in 0..=outline.further {
        ops.remove(&body_key(position, chunk)[..]);
    }
    ops.remove(id_key(&outline.header.id));
}

/// Removes settled records from the old end while more than `keep` settled events are kept, at most `steps` sequences.
/// Pending items are passed over and stay until they are settled. The last event always stays. Returns `None` when
/// there is nothing to do. To be applied by itself: it reads the store, not a batch under construction.
pub(crate) fn prune(
    store: &Store,
    head: &HeadRecord,
    keep: u64,
    steps: u64,
) -> Result<Option<(Ops, HeadRecord)>, OutboxError> {
    let mut head = head.clone();
    let mut ops = Ops::default();
    let first = head.oldest;
    while head.settled > keep && head.oldest < head.sequence && head.oldest - first < steps {
        let prefix = body_prefix(head.oldest);
        let mut seen = HashSet::new();
        for entry in store.range(&prefix, &prefix) {
            let (raw_key, _) = entry?;
            let Some((position, _)) = parse_body_key(&raw_key) else { continue };
            if !seen.insert(position) {
                continue;
            }
            let Some(outline) = read_outline(store, position)? else { continue };
            let key = ItemKey { lane: outline.header.lane, sequence: position.0, sub: position.1 };
            if store.get(&pending_key(key))?.is_some() {
                continue;
            }
            remove(&mut ops, position, &outline);
            if outline.header.prev_hash.is_some() {
                head.settled -= 1;
            }
        }
        head.oldest += 1;
    }
    if head.oldest == first {
        return Ok(None);
    }
    ops.insert(&HEAD_KEY[..], head.encode());
    Ok(Some((ops, head)))
}

pub(crate) fn damaged((sequence, sub): (u64, u32)) -> OutboxError {
    OutboxError::Damaged {
        place: format!("record {sequence}.{sub}"),
        detail: "it does not have the form this program writes, or a part is missing",
    }
}
