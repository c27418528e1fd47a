//! How a record ends: received or dropped, then pruned. Owns the rules of what stays for the journal and for `trace`;
//! refuses to decide when: receipts, bounds and commits call it.

use crate::{
    ItemKey, OutboxError, Outcome,
    layout::{
        HEAD_KEY, HeadRecord, IdRecord, RecordHeader, StageTimes, group_key, id_key, parse_record_key, pending_key,
        record_key, record_prefix,
    },
    ops::Ops,
    store::Store,
};

/// Reads the header of a record; `None` when there is no such record.
pub(crate) fn read_header(store: &Store, position: (u64, u32)) -> Result<Option<RecordHeader>, OutboxError> {
    Ok(read_record(store, position)?.map(|(header, _)| header))
}

/// Reads a whole record; `None` when there is no such record.
pub(crate) fn read_record(store: &Store, position: (u64, u32)) -> Result<Option<(RecordHeader, Vec<u8>)>, OutboxError> {
    let Some(raw) = store.get(&record_key(position))? else { return Ok(None) };
    let (header, bytes) = RecordHeader::decode(&raw).ok_or_else(|| damaged(position))?;
    Ok(Some((header, bytes.to_vec())))
}

/// Ends a pending item. An event's record stays in the journal until it is pruned, an attachment loses its bytes at
/// once. What lies below the kept journal (it was only waiting for this) goes altogether. `reason`: why it was abandoned.
pub(crate) fn settle(
    ops: &mut Ops,
    head: &mut HeadRecord,
    key: ItemKey,
    header: &RecordHeader,
    (outcome, reason): (Outcome, &str),
    times: StageTimes,
) {
    let lane = key.lane.index();
    ops.remove(&pending_key(key)[..]);
    if header.group != 0 {
        ops.remove(&group_key(key, header.group)[..]);
    }
    head.pending[lane] = head.pending[lane].saturating_sub(1);
    if outcome == Outcome::Dropped {
        head.dropped[lane] = head.dropped[lane].saturating_add(1);
    }
    if outcome == Outcome::Abandoned {
        head.abandoned[lane] = head.abandoned[lane].saturating_add(1);
    }
    if key.sequence < head.oldest {
        remove(ops, key.position(), header);
        return;
    }
    ops.insert(id_key(&header.id), IdRecord { key, outcome, times, reason: reason.to_owned() }.encode());
    if header.prev_hash.is_some() {
        head.settled += 1;
    } else {
        let emptied = RecordHeader { emptied: true, ..header.clone() };
        ops.insert(&record_key(key.position())[..], emptied.encode(&[]));
    }
}

fn remove(ops: &mut Ops, position: (u64, u32), header: &RecordHeader) {
    ops.remove(&record_key(position)[..]);
    ops.remove(id_key(&header.id));
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
        let prefix = record_prefix(head.oldest);
        for entry in store.range(&prefix, &prefix) {
            let (raw_key, _) = entry?;
            let Some(position) = parse_record_key(&raw_key) else { continue };
            let Some(header) = read_header(store, position)? else { continue };
            let key = ItemKey { lane: header.lane, sequence: position.0, sub: position.1 };
            if store.get(&pending_key(key))?.is_some() {
                continue;
            }
            remove(&mut ops, position, &header);
            if header.prev_hash.is_some() {
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
