//! One atomic group of changes and its single sync. Owns numbering, chaining and the bounds; refuses to leave any trace
//! when it is dropped without [`Batch::commit`].

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::MutexGuard,
};

use sha2::{Digest, Sha256};

use crate::{
    Appended, Committed, DroppedItem, ItemKey, Lane, MAX_ID_BYTES, MAX_STATE_KEY_BYTES, MAX_VALUE_BYTES, OutboxError,
    Outcome, Position,
    layout::{
        CHUNK_BYTES, HEAD_KEY, HeadRecord, IdRecord, PendingRecord, RecordHeader, group_key, id_key, parse_pending_key,
        pending_at, pending_key, record_key, state_key, state_tail_key,
    },
    ops::Ops,
    outbox::{Inner, Writer},
    settle::{read_header, settle},
    store::{Housekeeping, Store},
};

/// How many events more than are to be kept the journal may have, when pruning is left for later.
const PRUNED_LATER_MAX: u64 = 1024;

/// Changes that become durable together, or not at all. Made by [`Outbox::batch`](crate::Outbox::batch).
///
/// There is one writer: while a batch lives, other threads wait in `batch`, `received` and `recover`. A thread that
/// already holds one gets [`OutboxError::BatchHeld`] from every method of a second.
#[must_use = "a batch that is not committed leaves no trace"]
pub struct Batch<'a> {
    outbox: &'a Inner,
    /// `None` when this thread holds another batch.
    writer: Option<MutexGuard<'a, Writer>>,
    head: HeadRecord,
    ops: Ops,
    changed: bool,
    events: u64,
    ids: HashSet<String>,
    /// Items of this batch per lane, oldest first: candidates for dropping when nothing older is left.
    fresh: [VecDeque<(ItemKey, RecordHeader)>; 7],
    /// Per lane, where the search for the next item to drop goes on.
    search: [(u64, u32); 7],
    dropped: Vec<DroppedItem>,
    /// How many chunks in `07` each state key touched by this batch has.
    tails: HashMap<Vec<u8>, u16>,
    failed: Option<OutboxError>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(outbox: &'a Inner, writer: Option<MutexGuard<'a, Writer>>) -> Batch<'a> {
        Batch {
            outbox,
            head: writer.as_ref().map(|writer| writer.head.clone()).unwrap_or_default(),
            writer,
            ops: Ops::default(),
            changed: false,
            events: 0,
            ids: HashSet::new(),
            fresh: Default::default(),
            search: [(0, 0); 7],
            dropped: Vec::new(),
            tails: HashMap::new(),
            failed: None,
        }
    }

    /// Appends an event: journals it and makes it a pending delivery of `lane`. `build` is given the event's position
    /// and returns its bytes (at most [`MAX_VALUE_BYTES`]), which should contain the previous hash. `at_ms` is when
    /// it is appended, ms since the Unix epoch. Events of one batch chain on each other. It belongs to no group, and
    /// may be sent before older events; see [`Batch::append_grouped`].
    ///
    /// # Errors
    /// A bad or repeated id, bytes that are too large, or a store that cannot be read. The batch is then as before.
    pub fn append(
        &mut self,
        lane: Lane,
        id: &str,
        at_ms: i64,
        build: impl FnOnce(Position) -> Vec<u8>,
    ) -> Result<Appended, OutboxError> {
        self.append_grouped(lane, 0, id, at_ms, build)
    }

    /// As [`Batch::append`], for an event of a group: within a lane the events of one group are sent in the order of append,
    /// whatever goes first otherwise. `group` is opaque, such as a hash of the alarm's id; two subjects that share one by
    /// chance only wait for each other. 0 is no group.
    ///
    /// # Errors
    /// As [`Batch::append`].
    pub fn append_grouped(
        &mut self,
        lane: Lane,
        group: u64,
        id: &str,
        at_ms: i64,
        build: impl FnOnce(Position) -> Vec<u8>,
    ) -> Result<Appended, OutboxError> {
        self.check_id(id)?;
        let position = Position { sequence: self.head.sequence + 1, prev_hash: self.head.hash };
        let bytes = build(position);
        check_length("an event", bytes.len(), MAX_VALUE_BYTES)?;
        self.make_room(lane)?;
        let key = ItemKey { lane, sequence: position.sequence, sub: 0 };
        let header =
            RecordHeader { lane, at_ms, prev_hash: Some(position.prev_hash), emptied: false, group, id: id.to_owned() };
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        self.head.sequence = key.sequence;
        self.head.sub = 0;
        self.head.hash = hash;
        self.events += 1;
        self.insert(key, header, &bytes);
        Ok(Appended { key, sequence: key.sequence, hash })
    }

    /// Adds an attachment: a pending delivery of `lane` with no sequence and no place in the chain. It stands behind
    /// the events and attachments before it. `bytes`: at most [`MAX_VALUE_BYTES`]; they are removed when it is
    /// received.
    ///
    /// # Errors
    /// As [`Batch::append`].
    pub fn attach(&mut self, lane: Lane, id: &str, at_ms: i64, bytes: &[u8]) -> Result<ItemKey, OutboxError> {
        self.check_id(id)?;
        check_length("an attachment", bytes.len(), MAX_VALUE_BYTES)?;
        self.make_room(lane)?;
        self.head.sub += 1;
        let key = ItemKey { lane, sequence: self.head.sequence, sub: self.head.sub };
        let header = RecordHeader { lane, at_ms, prev_hash: None, emptied: false, group: 0, id: id.to_owned() };
        self.insert(key, header, bytes);
        Ok(key)
    }

    /// Sets a state value (key at most [`MAX_STATE_KEY_BYTES`], value at most [`MAX_VALUE_BYTES`]). A fault is
    /// reported by [`Batch::commit`], which then stores nothing.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.set_state(key, Some(value));
    }

    /// Removes a state value, if there is one. Faults as for [`Batch::put`].
    pub fn delete(&mut self, key: &[u8]) {
        self.set_state(key, None);
    }

    /// Where the next event of this batch will stand.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { sequence: self.head.sequence + 1, prev_hash: self.head.hash }
    }

    /// Stores everything and syncs the disk once. Only after `Ok` may anyone be told that it is stored. With nothing to
    /// store it still syncs receipts that are not yet on the disk.
    ///
    /// # Errors
    /// A fault of an earlier [`Batch::put`]; [`OutboxError::Poisoned`] after an earlier failure; or the failure of this
    /// commit, which poisons the outbox. In the last case it is open whether the batch will be found by
    /// [`Outbox::recover`](crate::Outbox::recover) or the next start; it is found whole or not at all.
    pub fn commit(self) -> Result<Committed, OutboxError> {
        self.commit_with(Housekeeping::Now)
    }

    /// As [`Batch::commit`], but it does not wait for housekeeping: an alarm that is durable goes out first. Whoever commits
    /// so calls [`Outbox::upkeep`](crate::Outbox::upkeep) when nobody waits; if that never happens, a commit does it in the end.
    ///
    /// # Errors
    /// As [`Batch::commit`].
    pub fn commit_at_once(self) -> Result<Committed, OutboxError> {
        self.commit_with(Housekeeping::Later)
    }

    fn commit_with(mut self, housekeeping: Housekeeping) -> Result<Committed, OutboxError> {
        if let Some(fault) = self.failed.take() {
            return Err(fault);
        }
        let outbox = self.outbox;
        let Some(writer) = self.writer.as_mut() else { return Err(OutboxError::BatchHeld) };
        outbox.refuse_if_poisoned()?;
        if !self.changed && !writer.unsynced {
            return Ok(Committed { head: self.head.public(), dropped: Vec::new() });
        }
        let mut ops = std::mem::take(&mut self.ops);
        if self.changed {
            ops.insert(&HEAD_KEY[..], self.head.encode());
        }
        let steps = 2 * self.events + 16;
        let mut head = self.head.clone();
        let dropped = &self.dropped;
        outbox.write("commit a batch", |store| {
            if self.changed {
                // Under the flight lock, so that `take` never meets an attachment whose bytes are just being removed.
                let mut flight = store.commit(&ops, &outbox.watch, || outbox.flight())?;
                flight.head = head.clone();
                dropped.iter().for_each(|item| flight.forget(item.key));
            } else {
                store.sync(&outbox.watch)?;
            }
            Ok(())
        })?;
        // From here on the batch is stored, and nobody is told otherwise: what fails at housekeeping poisons the outbox, and the next batch says so.
        let keep = if housekeeping == Housekeeping::Now {
            outbox.journal_keep
        } else {
            outbox.journal_keep.saturating_add(PRUNED_LATER_MAX)
        };
        let kept = outbox.write("keep the outbox in order", |store| {
            outbox.prune(store, &mut head, keep, steps)?;
            store.tidy(head.oldest, housekeeping, &outbox.watch)
        });
        let public = head.public();
        writer.head = head;
        writer.unsynced = false;
        if kept.is_ok() {
            let _ = outbox.refresh(writer, housekeeping);
        }
        Ok(Committed { head: public, dropped: std::mem::take(&mut self.dropped) })
    }

    fn check_id(&self, id: &str) -> Result<(), OutboxError> {
        if self.writer.is_none() {
            return Err(OutboxError::BatchHeld);
        }
        self.outbox.refuse_if_poisoned()?;
        if id.is_empty() {
            return Err(OutboxError::EmptyId);
        }
        check_length("an id", id.len(), MAX_ID_BYTES)?;
        let known = self.ids.contains(id) || self.outbox.read("read an id", |store| store.get(&id_key(id)))?.is_some();
        if known { Err(OutboxError::DuplicateId { id: id.to_owned() }) } else { Ok(()) }
    }

    fn insert(&mut self, key: ItemKey, header: RecordHeader, bytes: &[u8]) {
        self.ops.insert(&record_key(key.position())[..], header.encode(bytes));
        let pending = PendingRecord { at_ms: header.at_ms, group: header.group };
        self.ops.insert(&pending_key(key)[..], &pending.encode()[..]);
        if header.group != 0 {
            self.ops.insert(&group_key(key, header.group)[..], Vec::new());
        }
        self.ops.insert(id_key(&header.id), IdRecord::pending(key).encode());
        self.head.pending[key.lane.index()] += 1;
        self.ids.insert(header.id.clone());
        if self.outbox.bounds.get(key.lane).is_some() {
            self.fresh[key.lane.index()].push_back((key, header));
        }
        self.changed = true;
    }

    /// Drops the lane's oldest items that are not in flight until one more fits. When all are in flight nothing is
    /// dropped, and the lane exceeds its bound by no more than the sender's window.
    fn make_room(&mut self, lane: Lane) -> Result<(), OutboxError> {
        let Some(items_max) = self.outbox.bounds.get(lane) else { return Ok(()) };
        while self.head.pending[lane.index()] >= items_max {
            let outbox = self.outbox;
            let from = self.search[lane.index()];
            let stored = outbox.read("find the oldest item", |store| oldest_free(outbox, store, lane, from))?;
            let (key, header) = match stored {
                Some((key, header)) => {
                    self.search[lane.index()] = (key.sequence, key.sub.saturating_add(1));
                    (key, header)
                }
                None => match self.fresh[lane.index()].pop_front() {
                    Some(fresh) => fresh,
                    None => return Ok(()),
                },
            };
            let times = outbox.flight().times(key);
            settle(&mut self.ops, &mut self.head, key, &header, (Outcome::Dropped, ""), times);
            self.dropped.push(DroppedItem { key, id: header.id });
            self.changed = true;
        }
        Ok(())
    }

    fn set_state(&mut self, key: &[u8], value: Option<&[u8]>) {
        if self.failed.is_none()
            && let Err(fault) = self.try_set_state(key, value)
        {
            self.failed = Some(fault);
        }
    }

    fn try_set_state(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), OutboxError> {
        if self.writer.is_none() {
            return Err(OutboxError::BatchHeld);
        }
        check_length("a state key", key.len(), MAX_STATE_KEY_BYTES)?;
        check_length("a state value", value.map_or(0, <[u8]>::len), MAX_VALUE_BYTES)?;
        let before = match self.tails.get(key) {
            Some(count) => *count,
            None => self.outbox.read("read state", |store| state_tail_count(store, key))?,
        };
        let mut after = 0;
        match value {
            Some(value) if value.len() < CHUNK_BYTES => self.ops.insert(state_key(key), [&[0], value].concat()),
            Some(value) => {
                // At most MAX_VALUE_BYTES, so the cast keeps the length.
                let length = (value.len() as u32).to_be_bytes();
                self.ops.insert(state_key(key), [&[1], &length[..]].concat());
                for part in value.chunks(CHUNK_BYTES) {
                    self.ops.insert(state_tail_key(key, after), part);
                    after += 1;
                }
            }
            None => self.ops.remove(state_key(key)),
        }
        for chunk in after..before {
            self.ops.remove(state_tail_key(key, chunk));
        }
        self.tails.insert(key.to_vec(), after);
        self.changed = true;
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            // Empty after a commit; otherwise what this batch would have dropped may be taken again.
            let mut flight = self.outbox.flight();
            for item in &self.dropped {
                flight.spare(item.key);
            }
            drop(flight);
            self.outbox.batch_ended();
        }
    }
}

/// The oldest free item of the lane from a position on, kept from being taken from now on.
fn oldest_free(
    outbox: &Inner,
    store: &Store,
    lane: Lane,
    from: (u64, u32),
) -> Result<Option<(ItemKey, RecordHeader)>, OutboxError> {
    let mut flight = outbox.flight();
    for entry in store.range(&pending_at(lane, from), &[pending_at(lane, (0, 0))[0], lane as u8]) {
        let (raw, _) = entry?;
        let Some(key) = parse_pending_key(&raw) else { continue };
        if !flight.is_free(key) {
            continue;
        }
        let Ok(Some(header)) = read_header(store, key.position()) else {
            flight.set_unreadable(key);
            continue;
        };
        flight.doom(key);
        return Ok(Some((key, header)));
    }
    Ok(None)
}

pub(crate) fn state_tail_count(store: &Store, key: &[u8]) -> Result<u16, OutboxError> {
    Ok(match store.get(&state_key(key))?.as_deref() {
        Some([1, length @ ..]) => length
            .try_into()
            .map(|length| u32::from_be_bytes(length) as usize)
            .map(|length| length.min(MAX_VALUE_BYTES).div_ceil(CHUNK_BYTES) as u16)
            .unwrap_or(0),
        _ => 0,
    })
}

fn check_length(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), OutboxError> {
    if bytes > bytes_max { Err(OutboxError::TooLarge { what, bytes, bytes_max }) } else { Ok(()) }
}
