//! The outbox as its users hold it: open, batch, take, receive, recover, look up. Owns the locks and the poisoning;
//! leaves bytes to `layout`, the disk to `disk`, and what is in flight to `flight`.
//!
//! Locks are taken in this order: writer, store, flight. A batch holds the writer; nothing waits for a sync while it
//! holds the flight lock, so `take`, `mark`, `release` and `stats` are never behind a slow disk for longer than a
//! read.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread::{self, ThreadId},
};

use crate::{
    Batch, Bounds, Head, Health, Item, ItemKey, Lane, LaneStats, Located, OutboxError, Outcome, Receipt, ReceivedItem,
    Stage, Stats, TraceRecord,
    batch::state_tail_count,
    disk::{Home, guarded},
    flight::Flight,
    layout::{
        HEAD_KEY, HeadRecord, IdRecord, PendingRecord, REASON_BYTES_MAX, id_key, pending_at, pending_key, state_key,
        state_tail_key,
    },
    ops::Ops,
    settle::{prune, read_header, read_record, settle},
    sim::SimDisk,
    store::{Housekeeping, Store},
    take::Taking,
    watch::Watch,
};

/// How many sequences one call of [`Outbox::upkeep`] prunes.
const PRUNED_AT_ONCE: u64 = 64;

/// A key of the caller's state, and its value.
pub type StateEntry = (Vec<u8>, Vec<u8>);

/// How to open an outbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store's directory; created when it is missing. Nothing else may be kept in it.
    pub path: PathBuf,
    /// sled's page cache, bytes. Default 4 MiB, a fifth of the gateway's memory goal.
    pub cache_bytes: u64,
    /// How many items may be pending per lane. Defaults: [`Bounds::default`].
    pub bounds: Bounds,
    /// How many settled events (received or dropped) the journal keeps for export and `trace`, at least 1. Default
    /// 20 000, at about 2 KiB an event some 50 MiB.
    pub journal_keep: u64,
    /// The disk in memory to use instead of `path`; see [`Options::simulated`]. `None` in production.
    pub simulated: Option<SimDisk>,
}

impl Options {
    /// The defaults, at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Options {
            path: path.into(),
            cache_bytes: 4 * 1024 * 1024,
            bounds: Bounds::default(),
            journal_keep: 20_000,
            simulated: None,
        }
    }

    /// The defaults, on a simulated disk: the same outbox, deterministic, without a file or a thread.
    #[must_use]
    pub fn simulated(disk: &SimDisk) -> Self {
        Options { simulated: Some(disk.clone()), ..Options::new("simulated") }
    }
}

/// A durable, prioritised outbox. Cheap to clone; clones share one store, which is closed with the last of them.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

pub(crate) struct Inner {
    pub bounds: Bounds,
    /// The journal's end when it was opened.
    opened_at: u64,
    pub journal_keep: u64,
    pub watch: Watch,
    flight: Mutex<Flight>,
    poisoned: Mutex<Option<String>>,
    /// The thread that holds a batch.
    holder: Mutex<Option<ThreadId>>,
    // Before `writer`, which holds the lock on the directory: sled closes first.
    store: RwLock<Option<Store>>,
    writer: Mutex<Writer>,
}

pub(crate) struct Writer {
    pub head: HeadRecord,
    /// A receipt was applied since the last sync.
    pub unsynced: bool,
    home: Home,
}

impl Outbox {
    /// Opens the outbox, creating it when it is missing. After a crash or a power cut it recovers; everything not
    /// received is pending again. Takes the time of reading what was committed since the last checkpoint (bounded), and what
    /// sled wrote to its index since the store was last opened (it makes its own snapshot at that moment only); no backlog
    /// is read.
    ///
    /// # Errors
    /// The directory cannot be used, is in use, was written by another version, or is damaged beyond sled's recovery.
    pub fn open(options: Options) -> Result<Outbox, OutboxError> {
        let mut home = Home::lock(&options.path, options.cache_bytes.max(256 * 1024), options.simulated.as_ref())?;
        let store = home.open()?;
        let head = load_head(&store, home.path())?;
        let flight = Flight::opened(head.clone());
        Ok(Outbox(Arc::new(Inner {
            bounds: options.bounds,
            opened_at: head.public().sequence,
            journal_keep: options.journal_keep.max(1),
            watch: if options.simulated.is_some() { Watch::none() } else { Watch::start() },
            flight: Mutex::new(flight),
            poisoned: Mutex::new(None),
            holder: Mutex::new(None),
            store: RwLock::new(Some(store)),
            writer: Mutex::new(Writer { head, unsynced: false, home }),
        })))
    }

    /// Begins a batch. Waits for a batch of another thread; see [`Batch`] for a second one of the same thread.
    pub fn batch(&self) -> Batch<'_> {
        let writer = self.0.lock_writer().ok();
        if writer.is_some() {
            *lock(&self.0.holder) = Some(thread::current().id());
        }
        Batch::new(&self.0, writer)
    }

    /// Reads a state value.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, OutboxError> {
        self.0.read("read state", |store| match store.get(&state_key(key))? {
            Some(raw) => state_value(store, key, &raw).map(Some),
            None => Ok(None),
        })
    }

    /// Reads all state values whose key begins with `prefix`, in order of their keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<StateEntry>, OutboxError> {
        let prefix = state_key(prefix);
        self.0.read("read state", |store| {
            let read = |entry: Result<(sled::IVec, sled::IVec), OutboxError>| {
                let (raw_key, raw) = entry?;
                let key = raw_key[1..].to_vec();
                let value = state_value(store, &key, &raw)?;
                Ok((key, value))
            };
            store.range(&prefix, &prefix).map(read).collect()
        })
    }

    /// Takes up to `limit` items for delivery, and puts them in flight: they are not handed out again until
    /// [`Outbox::release`], [`Outbox::release_all`] or a restart. The order:
    ///
    /// 1. highest lane first;
    /// 2. within a lane what is live (appended since [`Outbox::mark_backlog`]), then the backlog; each in order of append;
    /// 3. but of one group (see [`Batch::append_grouped`]) never a later one before an earlier one that waits: a live item brings
    ///    the waiting items of its group with it, oldest first, so an alarm's story arrives whole. Of a long story some are
    ///    handed out with each `take`.
    ///
    /// Items whose batch is not yet on the disk are not handed out. An item that cannot be read is left out and counted in
    /// [`Stats::damaged`], so that it does not stand in the way of others.
    ///
    /// # Errors
    /// The store cannot be read; nothing is then in flight that was not before.
    pub fn take(&self, limit: usize) -> Result<Vec<Item>, OutboxError> {
        self.take_from(limit, true)
    }

    /// As [`Outbox::take`], but only what is live, and what a live item brings with it: for a sender that lets a backlog leave
    /// at a pace, which what happens now need not keep.
    ///
    /// # Errors
    /// As [`Outbox::take`].
    pub fn take_live(&self, limit: usize) -> Result<Vec<Item>, OutboxError> {
        self.take_from(limit, false)
    }

    fn take_from(&self, limit: usize, with_backlog: bool) -> Result<Vec<Item>, OutboxError> {
        self.0.read("take items", |store| {
            let mut flight = self.0.flight();
            let waiting = flight.waiting();
            let mut taking = Taking { store, flight: &mut flight, limit, waiting, items: Vec::new() };
            match Lane::ALL.iter().try_for_each(|lane| taking.lane(*lane, with_backlog)) {
                Ok(()) => Ok(taking.items),
                Err(fault) => {
                    let items = taking.items;
                    items.iter().for_each(|item| flight.release(item.key));
                    Err(fault)
                }
            }
        })
    }

    /// Everything appended so far is backlog from now on: what is appended later goes before it, within its lane. To be
    /// called when a connection was lost (or stands again, before the first `take`), so that what happens from then on does
    /// not wait behind what gathered. What is pending when the outbox is opened is backlog from the start.
    pub fn mark_backlog(&self) {
        self.0.flight().mark_backlog();
    }

    /// Puts an item back: it is pending again, at its old place.
    pub fn release(&self, key: ItemKey) {
        self.0.flight().release(key);
    }

    /// Puts all items in flight back, for a connection that was lost.
    pub fn release_all(&self) {
        self.0.flight().release_all();
    }

    /// Notes when an item was sent or acknowledged by the broker, ms. Kept in memory, and stored with the receipt.
    pub fn mark(&self, key: ItemKey, stage: Stage, at_ms: i64) {
        self.0.flight().mark(key, stage, at_ms);
    }

    /// The centre's receipt for items, by id, at `at_ms`. They are no longer pending; events stay in the journal.
    /// Repeated receipts and unknown ids change nothing and are reported. Not synced by itself (after a power cut the
    /// item is merely sent again); the next commit or checkpoint syncs it.
    ///
    /// # Errors
    /// The outbox is poisoned or the store fails; nothing was then received.
    pub fn received(&self, ids: &[&str], at_ms: i64) -> Result<Vec<ReceivedItem>, OutboxError> {
        let mut writer = self.0.lock_writer()?;
        self.0.refuse_if_poisoned()?;
        let mut head = writer.head.clone();
        let mut ops = Ops::default();
        let mut first = HashSet::new();
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            let receipt = self.0.read("receive", |store| {
                let Some(raw) = store.get(&id_key(id))? else { return Ok(Receipt::Unknown) };
                let IdRecord { key, outcome, .. } = IdRecord::decode(&raw, id)?;
                match outcome {
                    Outcome::Received => return Ok(Receipt::Repeated(key)),
                    Outcome::Dropped | Outcome::Abandoned => return Ok(Receipt::AfterDrop(key)),
                    Outcome::Pending if !first.insert(key) => return Ok(Receipt::Repeated(key)),
                    Outcome::Pending => {}
                }
                let Some(header) = read_header(store, key.position())? else { return Ok(Receipt::Unknown) };
                let mut times = self.0.flight().times(key);
                times.received_at_ms = Some(at_ms);
                settle(&mut ops, &mut head, key, &header, (Outcome::Received, ""), times);
                Ok(Receipt::First(key))
            })?;
            answers.push(ReceivedItem { id: (*id).to_owned(), receipt });
        }
        if !first.is_empty() {
            self.settled(&mut writer, ops, head, first)?;
        }
        Ok(answers)
    }

    /// Ends a pending item that can never be sent, such as a picture whose file is gone: it is [`Outcome::Abandoned`], counted
    /// in [`LaneStats::abandoned`], and [`Outbox::trace`] tells `reason` (cut after 200 bytes). `false` when it is not
    /// pending (any more). As durable as a receipt.
    ///
    /// # Errors
    /// The outbox is poisoned or the store fails; the item is then still pending.
    pub fn abandon(&self, key: ItemKey, reason: &str, at_ms: i64) -> Result<bool, OutboxError> {
        let mut writer = self.0.lock_writer()?;
        self.0.refuse_if_poisoned()?;
        let header = self.0.read("abandon an item", |store| {
            if store.get(&pending_key(key))?.is_none() { Ok(None) } else { read_header(store, key.position()) }
        })?;
        let Some(header) = header else { return Ok(false) };
        let mut head = writer.head.clone();
        let mut ops = Ops::default();
        let mut times = self.0.flight().times(key);
        times.received_at_ms = Some(at_ms);
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        settle(&mut ops, &mut head, key, &header, (Outcome::Abandoned, reason), times);
        self.settled(&mut writer, ops, head, HashSet::from([key]))?;
        Ok(true)
    }

    /// Stores what ended, without a sync of its own.
    fn settled(
        &self,
        writer: &mut Writer,
        mut ops: Ops,
        head: HeadRecord,
        ended: HashSet<ItemKey>,
    ) -> Result<(), OutboxError> {
        ops.insert(&HEAD_KEY[..], head.encode());
        self.0.write("store a receipt", |store| {
            // Under the flight lock, so that `take` never meets an attachment whose bytes are just being removed.
            let mut flight = self.0.flight();
            store.apply(&ops)?;
            flight.head = head.clone();
            ended.iter().for_each(|key| flight.forget(*key));
            drop(flight);
            // A receipt is in no hurry, but an alarm that waits to be committed meanwhile is.
            store.tidy(head.oldest, Housekeeping::Later, &self.0.watch)
        })?;
        writer.head = head;
        writer.unsynced = true;
        // What is stored is stored; if this fails, the outbox is poisoned and the next call says so.
        let _ = self.0.refresh(writer, Housekeeping::Later);
        Ok(())
    }

    /// Does a part of what commits and receipts left to be done later: prunes the journal, brings to the index what
    /// gathered, frees the disk. `true` when there is more to do. To be called when [`Outbox::is_upkeep_due`], from another thread
    /// than the one that commits with [`Batch::commit_at_once`]: most of it goes on beside its commits. They wait only while
    /// a segment of the log is cleaned, and (once in some ten thousand events, for hundredths of a second) while the index is
    /// opened anew.
    ///
    /// # Errors
    /// The outbox is poisoned, or was by this failure. What was committed stays so.
    pub fn upkeep(&self) -> Result<bool, OutboxError> {
        self.0.refuse_if_poisoned()?;
        if self.0.write("make a checkpoint", |store| store.checkpoint_some(&self.0.watch))? {
            return Ok(true);
        }
        let mut writer = self.0.lock_writer()?;
        self.0.refuse_if_poisoned()?;
        let mut head = writer.head.clone();
        let is_more = self.0.write("keep the store in order", |store| {
            let is_pruned = self.0.prune(store, &mut head, self.0.journal_keep, PRUNED_AT_ONCE)?;
            Ok(store.upkeep(head.oldest, &self.0.watch)? || is_pruned)
        })?;
        writer.head = head;
        if !is_more {
            self.0.refresh(&mut writer, Housekeeping::Now)?;
        }
        Ok(is_more)
    }

    /// Whether [`Outbox::upkeep`] is worth calling. From memory only.
    #[must_use]
    pub fn is_upkeep_due(&self) -> bool {
        let settled = self.0.flight().head.settled;
        let is_due = |store: &Store| Ok(store.is_upkeep_due() || store.is_long_open(Housekeeping::Now));
        settled >= self.0.journal_keep.saturating_add(PRUNED_AT_ONCE)
            || self.0.read("look at the store", is_due).unwrap_or(false)
    }

    /// Where an item is, by id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn lookup(&self, id: &str) -> Result<Option<Located>, OutboxError> {
        let record = self.0.id_record(id)?;
        Ok(record.map(|IdRecord { key, outcome, .. }| Located { key, outcome }))
    }

    /// The journey of an item, by id; `None` when it is unknown or pruned.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn trace(&self, id: &str) -> Result<Option<TraceRecord>, OutboxError> {
        let Some(IdRecord { key, outcome, times, reason }) = self.0.id_record(id)? else { return Ok(None) };
        let record = self.0.read("read a record", |store| read_record(store, key.position()))?;
        let Some((header, bytes)) = record else { return Ok(None) };
        let times = if outcome == Outcome::Pending { self.0.flight().times(key) } else { times };
        Ok(Some(TraceRecord {
            key,
            sequence: key.sequence(),
            lane: key.lane,
            outcome,
            appended_at_ms: header.at_ms,
            sent_at_ms: times.sent_at_ms,
            broker_acked_at_ms: times.broker_acked_at_ms,
            received_at_ms: times.received_at_ms,
            abandoned_because: (outcome == Outcome::Abandoned).then_some(reason),
            attempts: times.attempts,
            bytes,
        }))
    }

    /// The end of the durable journal.
    #[must_use]
    pub fn head(&self) -> Head {
        self.0.flight().head.public()
    }

    /// The end of the durable journal when this outbox was opened: what stands behind it was journaled since.
    #[must_use]
    pub fn opened_at(&self) -> u64 {
        self.0.opened_at
    }

    /// Items of each lane, most urgent first, that are pending and not in flight. From memory only: for a sender that asks after every event.
    #[must_use]
    pub fn waiting(&self) -> [u64; 7] {
        self.0.flight().waiting()
    }

    /// The outbox in figures. Cheap: counters from memory and the first key of each lane.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let oldest = Lane::ALL.map(|lane| {
            let prefix = &pending_at(lane, (0, 0))[..2];
            let first = self.0.read("read the oldest item", |store| store.range(prefix, prefix).next().transpose());
            first.ok().flatten().and_then(|(_, raw)| Some(PendingRecord::decode(&raw)?.at_ms))
        });
        let health = self.health();
        let damaged_segments = self.0.read("count damage", |store| Ok(store.damaged_segments)).unwrap_or(0);
        let flight = self.0.flight();
        let lanes = Lane::ALL.map(|lane| LaneStats {
            lane,
            pending: flight.head.pending[lane.index()],
            in_flight: flight.in_flight(lane),
            oldest_appended_at_ms: oldest[lane.index()],
            dropped: flight.head.dropped[lane.index()],
            abandoned: flight.head.abandoned[lane.index()],
        });
        Stats {
            lanes,
            head: flight.head.public(),
            oldest_kept_sequence: flight.head.oldest.max(1),
            damaged: flight.unreadable() + damaged_segments,
            health,
        }
    }

    /// Whether it still takes commits. Never waits for the disk.
    #[must_use]
    pub fn health(&self) -> Health {
        if let Some(reason) = lock(&self.0.poisoned).clone() {
            return Health::Poisoned { reason };
        }
        self.0.watch.stalled_ms().map_or(Health::Ok, |waited_ms| Health::Stalled { waited_ms })
    }

    /// Closes the store and opens it again from what the disk really holds, without a restart: the way out of
    /// [`Health::Poisoned`] once the disk has room or is back. Items in flight stay in flight. On a healthy outbox it
    /// is allowed too and shortens the next start, as sled then writes its recovery snapshot.
    ///
    /// # Errors
    /// The disk is still not usable: the outbox stays poisoned with the present reason, what it holds can still be read and
    /// delivered, and `recover` can be tried again. When sled's own
    /// threads were lost to a panic, only a restart of the process helps; the error then says that the store is in
    /// use.
    pub fn recover(&self) -> Result<(), OutboxError> {
        let mut writer = self.0.lock_writer()?;
        let was_healthy = lock(&self.0.poisoned).is_none();
        if was_healthy {
            self.0.write("make a checkpoint", |store| store.checkpoint(&self.0.watch))?;
        } else if let Err(fault) = writer.home.probe() {
            // What can still be read can still be sent. What cannot is let go: its disk may have to be unmounted.
            if self.0.read("read the disk", Store::try_reading).is_err() {
                drop(self.0.store.write().unwrap_or_else(PoisonError::into_inner).take());
                writer.home.let_go();
            }
            *lock(&self.0.poisoned) = Some(fault.to_string());
            return Err(fault);
        }
        self.0.reopen(&mut writer, was_healthy)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    pub fn flight(&self) -> MutexGuard<'_, Flight> {
        lock(&self.flight)
    }

    pub fn batch_ended(&self) {
        *lock(&self.holder) = None;
    }

    /// Closes the store and opens it again. Its failure poisons the outbox.
    pub fn reopen(&self, writer: &mut Writer, was_healthy: bool) -> Result<(), OutboxError> {
        let mut slot = self.store.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened again: sled locks its file.
        drop(slot.take());
        let mut open = || {
            if !was_healthy {
                writer.home.forget_cached_pages()?;
            }
            let store = writer.home.open()?;
            let head = load_head(&store, writer.home.path())?;
            Ok((store, head))
        };
        match open() {
            Ok((store, head)) => {
                *slot = Some(store);
                writer.head = head.clone();
                writer.unsynced = false;
                self.flight().reopened(head);
                *lock(&self.poisoned) = None;
                Ok(())
            }
            Err(fault) => {
                *lock(&self.poisoned) = Some(format!("reopening the store failed: {fault}"));
                Err(fault)
            }
        }
    }

    /// Prunes the journal to `keep` settled events, at most `steps` sequences at a time; `false` when there was nothing to do.
    /// Not worth a sync: after a crash it is done again. A record that cannot be read must not keep a new alarm from being
    /// stored; the journal then only stays longer, and `verify` names the record.
    pub fn prune(&self, store: &Store, head: &mut HeadRecord, keep: u64, steps: u64) -> Result<bool, OutboxError> {
        let Ok(Some((ops, pruned))) = prune(store, head, keep, steps) else { return Ok(false) };
        store.apply(&ops)?;
        self.flight().head = pruned.clone();
        *head = pruned;
        Ok(true)
    }

    /// Opens the store anew if it was open for long, so that the next start is a short one.
    pub fn refresh(&self, writer: &mut Writer, housekeeping: Housekeeping) -> Result<(), OutboxError> {
        let is_due = self.read("look at the store", |store| Ok(store.is_long_open(housekeeping)))?;
        if is_due { self.reopen(writer, true) } else { Ok(()) }
    }

    pub fn refuse_if_poisoned(&self) -> Result<(), OutboxError> {
        match lock(&self.poisoned).clone() {
            Some(reason) => Err(OutboxError::Poisoned { reason }),
            None => Ok(()),
        }
    }

    /// Runs a read on the store. Its failure is the caller's alone.
    pub fn read<R>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Store) -> Result<R, OutboxError>,
    ) -> Result<R, OutboxError> {
        let slot = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = slot.as_ref() else {
            drop(slot);
            self.refuse_if_poisoned()?;
            return Err(OutboxError::Poisoned { reason: "the store is closed".to_owned() });
        };
        guarded(doing, || work(store))
    }

    /// Runs a write on the store. Its failure poisons the outbox: what sled holds in memory may be more than the disk
    /// has.
    pub fn write<R>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Store) -> Result<R, OutboxError>,
    ) -> Result<R, OutboxError> {
        self.read(doing, work).inspect_err(|fault| {
            lock(&self.poisoned).get_or_insert_with(|| fault.to_string());
        })
    }

    fn lock_writer(&self) -> Result<MutexGuard<'_, Writer>, OutboxError> {
        if *lock(&self.holder) == Some(thread::current().id()) {
            return Err(OutboxError::BatchHeld);
        }
        Ok(lock(&self.writer))
    }

    fn id_record(&self, id: &str) -> Result<Option<IdRecord>, OutboxError> {
        self.read("read an id", |store| store.get(&id_key(id))?.map(|raw| IdRecord::decode(&raw, id)).transpose())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-changed by a panic here: panics come from sled, inside `guarded`.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn state_value(store: &Store, key: &[u8], raw: &[u8]) -> Result<Vec<u8>, OutboxError> {
    let damaged = || OutboxError::Damaged {
        place: format!("state {:?}", String::from_utf8_lossy(key)),
        detail: "it does not have the form this program writes, or a part is missing",
    };
    match raw {
        [0, value @ ..] => Ok(value.to_vec()),
        [1, ..] => {
            let mut value = Vec::new();
            for chunk in 0..state_tail_count(store, key)? {
                value.extend_from_slice(&store.get(&state_tail_key(key, chunk))?.ok_or_else(damaged)?);
            }
            Ok(value)
        }
        _ => Err(damaged()),
    }
}

fn load_head(store: &Store, path: &Path) -> Result<HeadRecord, OutboxError> {
    let Some(raw) = guarded("read the head", || store.get(&HEAD_KEY))? else { return Ok(HeadRecord::default()) };
    match HeadRecord::decode(&raw) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => Err(OutboxError::Damaged {
            place: "the head record".to_owned(),
            detail: "it does not have the form this program writes",
        }),
        Err(found) => Err(OutboxError::UnknownFormat { path: path.to_owned(), found }),
    }
}
