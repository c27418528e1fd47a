//! Keys and values that a power cut leaves whole: the log (`log.rs`) in front, the index (`engine.rs`) behind it, and between
//! them in memory what the index (`index.rs`) does not have yet. Owns commit, checkpoint, the way back from both, and when a segment of
//! the log may go; refuses to know what the keys mean, except that the value of a *record* is read from the log itself and
//! the index only has its place there.
//!
//! A commit appends one frame and syncs the log, no more. Now and then a checkpoint brings what gathered to the index, some keys at
//! a time and each time synced, and at last the place in the log up to which the index has everything. Opening reads
//! the log from that place. The changes of a frame are whole values, so making them twice is the same as once; and a
//! checkpoint that was cut short does no harm, because all its changes are in the log behind the old place. For the same
//! reason commits may come between its steps: what it brings was set aside when it began, and what comes later gathers anew.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use sled::IVec;

use crate::{
    OutboxError,
    engine::Engine,
    files::Files,
    index::{Change, Index},
    layout::{MARK_KEY, is_record_key, parse_record_key},
    log::{Frame, Log, Place, Spot},
    ops::{Ops, entries},
    watch::Watch,
};

/// Most that is written to sled without a sync. sled uses a segment of its log (512 KiB) again once what replaced it is
/// *written*; how much may be written but not synced must stay well below the segment or two by which sled lags behind
/// with that. Otherwise a power cut can take the new place of a page and leave the old one overwritten.
const UNSYNCED_KEYS_MAX: usize = 256;
const UNSYNCED_BYTES_MAX: usize = 64 * 1024;
/// How much a checkpoint takes at a time. Neighbours are written together, so it is not little.
const STEP_KEYS_MAX: usize = 256;
const STEP_BYTES_MAX: usize = 32 * 1024;
const SEGMENTS_TOLD_MAX: usize = 1024;
/// How many segments are cleaned after one checkpoint; more than are filled between two.
const CLEANED_MAX: usize = 4;
/// Who does not want to wait may let so many times the limits gather, for somebody else to bring to the index.
const LENIENCE: usize = 2;
/// How much is copied out of a segment in one frame.
const COPY_BYTES_MAX: usize = 64 * 1024;

/// Sizes that trade memory and the time to open for writes.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// A segment of the log that is so long is followed by a new one.
    segment_bytes: u64,
    /// A checkpoint is made when so many keys, or so many bytes of values, are not yet in the index; [`LENIENCE`] times as many where
    /// it can wait. It bounds memory and the time to open.
    gathered_keys: usize,
    gathered_bytes: usize,
    /// When so much was written to the index, it should be opened anew: sled makes its snapshot then only, and the next start
    /// reads what it wrote since, some four times as much.
    index_bytes: usize,
}

impl Limits {
    pub const REAL: Limits =
        Limits { segment_bytes: 4 << 20, gathered_keys: 2048, gathered_bytes: 512 * 1024, index_bytes: 8 << 20 };
    /// Small, so that everything that happens now and then happens often.
    pub const SIMULATED: Limits =
        Limits { segment_bytes: 8 << 10, gathered_keys: 48, gathered_bytes: 16 * 1024, index_bytes: 64 << 10 };
}

/// The store, open. One writer at a time, which its user sees to; readers at any time.
pub(crate) struct Store {
    index: Index,
    log: Log,
    limits: Limits,
    gathered: Mutex<Gathered>,
    /// Who holds it brings what was set aside to the index. Taken before `gathered`.
    at_checkpoint: Mutex<()>,
    written: AtomicUsize,
    /// Segments with a frame that could not be read when the store was opened.
    pub damaged_segments: u64,
}

/// Whether a writer does the housekeeping that is due, or leaves it to [`Store::upkeep`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Housekeeping {
    Now,
    /// Unless so much is due that it cannot wait.
    Later,
}

impl Housekeeping {
    pub fn lenience(self) -> usize {
        if self == Housekeeping::Now { 1 } else { LENIENCE }
    }
}

/// What the index does not have yet.
#[derive(Default)]
struct Gathered {
    keys: BTreeMap<Vec<u8>, Option<IVec>>,
    /// What the checkpoint under way brings to the index. A key that is in both places changed since it began.
    set_aside: Option<SetAside>,
    bytes: usize,
    /// How much of the log is behind the mark.
    logged_bytes: u64,
    /// The last record key there ever was: beyond it a record is new.
    last_record: Vec<u8>,
    segments: BTreeMap<u32, Segment>,
    /// Up to where the index has everything, as of the last checkpoint of this opening.
    mark: Place,
    /// How many segments may still be cleaned before the next checkpoint.
    to_clean: usize,
}

/// What a checkpoint brings to the index, and how far it is.
struct SetAside {
    keys: BTreeMap<Vec<u8>, Option<IVec>>,
    /// The log's end when it began, and the value that says so.
    mark: Place,
    mark_value: Vec<u8>,
    from: Bound<Vec<u8>>,
    unsynced_keys: usize,
    unsynced_bytes: usize,
}

/// What is known of a segment. Only used to guess which is worth reading; what is still needed is then looked up.
#[derive(Clone, Copy, Default)]
struct Segment {
    /// Bytes of records that are still referred to.
    live_bytes: u64,
    /// The highest sequence of a record that was new in it.
    last_sequence: u64,
}

impl Store {
    /// Opens the store from an index and a log.
    pub fn open(engine: Engine, files: Files, limits: Limits) -> Result<Store, OutboxError> {
        let mut gathered = Gathered::default();
        let index = Index::new(engine);
        let mark = match index.get(&MARK_KEY)? {
            Some(raw) => gathered.read_mark(&raw).ok_or_else(|| OutboxError::Damaged {
                place: "the mark of the last checkpoint".to_owned(),
                detail: "it does not have the form this program writes",
            })?,
            None => Place::START,
        };
        gathered.mark = mark;
        let (log, damaged_segments) =
            Log::open(files, limits.segment_bytes, mark, |frame| gathered.show(frame, &index))?;
        let there = log.segments()?;
        gathered.segments.retain(|number, _| there.contains(number));
        for number in there {
            gathered.segments.entry(number).or_default();
        }
        Ok(Store {
            index,
            log,
            limits,
            gathered: Mutex::new(gathered),
            at_checkpoint: Mutex::new(()),
            written: AtomicUsize::new(0),
            damaged_segments,
        })
    }

    /// The value of a key; of a record its bytes.
    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>, OutboxError> {
        let Some(mut value) = self.raw(key)? else { return Ok(None) };
        if !is_record_key(key) {
            return Ok(Some(value));
        }
        loop {
            let spot = Spot::decode(&value).ok_or_else(|| OutboxError::Damaged {
                place: "the index".to_owned(),
                detail: "the place of a record does not have the form this program writes",
            })?;
            if let Some(bytes) = self.log.read(spot)? {
                return Ok(Some(bytes.into()));
            }
            // Its segment is gone: it was copied elsewhere, or ended, since its place was looked up; or it is lost.
            match self.raw(key)? {
                Some(elsewhere) if elsewhere != value => value = elsewhere,
                _ => return Ok(None),
            }
        }
    }

    fn raw(&self, key: &[u8]) -> Result<Option<IVec>, OutboxError> {
        if let Some(gathered) = self.gathered().get(key) {
            return Ok(gathered.clone());
        }
        // A checkpoint may have cleared the key since, but not before it was in the index.
        self.index.get(key)
    }

    /// Keys and values from `start` while they begin with `prefix`. Values of records are left where they are.
    pub fn range<'a>(&'a self, start: &[u8], prefix: &'a [u8]) -> Range<'a> {
        Range { store: self, prefix, from: Bound::Included(start.to_vec()), next: Vec::new().into_iter(), some: 1 }
    }

    /// Makes changes that a power cut leaves whole or not at all. Not yet durable.
    pub fn apply(&self, ops: &Ops) -> Result<(), OutboxError> {
        let frame = self.log.append(ops)?;
        self.gathered().show(&frame, &self.index)
    }

    /// As [`Store::apply`], and durable before anybody can read them. `before_visible` is called in between; what it gives
    /// back is held meanwhile.
    pub fn commit<G>(&self, ops: &Ops, watch: &Watch, before_visible: impl FnOnce() -> G) -> Result<G, OutboxError> {
        let frame = self.log.append(ops)?;
        self.log.sync(watch)?;
        let held = before_visible();
        self.gathered().show(&frame, &self.index)?;
        Ok(held)
    }

    /// Makes everything applied so far survive a power cut.
    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        self.log.sync(watch)
    }

    /// Makes a checkpoint when enough has gathered, and then removes segments of the log whose records are mostly gone.
    /// Records below `oldest` are not part of the journal any more.
    pub fn tidy(&self, oldest: u64, housekeeping: Housekeeping, watch: &Watch) -> Result<(), OutboxError> {
        if self.gathered().is_much(&self.limits, housekeeping.lenience()) {
            self.checkpoint(watch)?;
            while self.clean_one(oldest, watch)? {}
        }
        Ok(())
    }

    /// Whether [`Store::upkeep`] or [`Store::checkpoint_some`] has something to do.
    pub fn is_upkeep_due(&self) -> bool {
        let gathered = self.gathered();
        gathered.set_aside.is_some() || gathered.to_clean > 0 || gathered.is_much(&self.limits, 1)
    }

    /// One step of the same: cleans a segment or begins a checkpoint, of which [`Store::checkpoint_some`] is the rest. `false`
    /// when nothing is due. For the one writer.
    pub fn upkeep(&self, oldest: u64, watch: &Watch) -> Result<bool, OutboxError> {
        if self.gathered().set_aside.is_some() || self.clean_one(oldest, watch)? {
            return Ok(true);
        }
        let is_due = self.gathered().is_much(&self.limits, 1);
        if is_due {
            self.set_aside(watch)?;
        }
        Ok(is_due)
    }

    /// Whether the store should be opened anew, so that the next start is a short one.
    pub fn is_long_open(&self, housekeeping: Housekeeping) -> bool {
        self.written.load(Ordering::Relaxed) >= housekeeping.lenience() * self.limits.index_bytes
    }

    /// Whether the disk can be read at all.
    pub fn try_reading(&self) -> Result<(), OutboxError> {
        self.log.try_reading()
    }

    /// Brings everything that gathered to the index.
    pub fn checkpoint(&self, watch: &Watch) -> Result<(), OutboxError> {
        while self.checkpoint_some(watch)? {}
        self.set_aside(watch)?;
        while self.checkpoint_some(watch)? {}
        Ok(())
    }

    /// Begins a checkpoint. None may be under way.
    fn set_aside(&self, watch: &Watch) -> Result<(), OutboxError> {
        // The index must never be ahead of the log.
        self.log.sync(watch)?;
        let mark = self.log.end();
        let mut gathered = self.gathered();
        gathered.set_aside = Some(SetAside {
            keys: std::mem::take(&mut gathered.keys),
            mark,
            mark_value: gathered.write_mark(mark),
            from: Bound::Unbounded,
            unsynced_keys: 0,
            unsynced_bytes: 0,
        });
        gathered.bytes = 0;
        gathered.logged_bytes = 0;
        Ok(())
    }

    /// Brings some of what was set aside to the index. `false` when no checkpoint is under way (any more). Any thread may do it, beside
    /// the one writer: what was set aside does not change, and is in the log.
    pub fn checkpoint_some(&self, watch: &Watch) -> Result<bool, OutboxError> {
        let _alone = self.at_checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((some, last)) = self.gathered().set_aside.as_ref().map(SetAside::some) else { return Ok(false) };
        let (keys, bytes) = self.index.write(some)?;
        self.written.fetch_add(bytes, Ordering::Relaxed);
        let mut gathered = self.gathered();
        let Some(set_aside) = &mut gathered.set_aside else { return Ok(false) };
        if let Some(last) = last {
            set_aside.unsynced_keys += keys;
            set_aside.unsynced_bytes += bytes;
            set_aside.from = Bound::Excluded(last);
            let is_much = set_aside.unsynced_keys > UNSYNCED_KEYS_MAX || set_aside.unsynced_bytes > UNSYNCED_BYTES_MAX;
            if is_much {
                (set_aside.unsynced_keys, set_aside.unsynced_bytes) = (0, 0);
                drop(gathered);
                self.index.sync(watch)?;
            }
            return Ok(true);
        }
        // Last, so that whoever finds it finds all the rest.
        let (mark, value) = (set_aside.mark, std::mem::take(&mut set_aside.mark_value));
        drop(gathered);
        self.index.write(vec![(MARK_KEY.to_vec(), Some(value.into()))])?;
        self.index.sync(watch)?;
        let mut gathered = self.gathered();
        gathered.set_aside = None;
        gathered.mark = mark;
        gathered.to_clean = CLEANED_MAX;
        Ok(false)
    }

    /// Cleans one segment, if one may be and is worth it.
    fn clean_one(&self, oldest: u64, watch: &Watch) -> Result<bool, OutboxError> {
        let (mark, to_clean) = {
            let gathered = self.gathered();
            (gathered.mark, gathered.to_clean)
        };
        let is_cleaned = to_clean > 0 && self.clean(mark, oldest, watch)?;
        self.gathered().to_clean = if is_cleaned { to_clean - 1 } else { 0 };
        Ok(is_cleaned)
    }

    /// Removes the oldest segment that is mostly dead, after copying what is still referred to to the log's end. `false` when
    /// there is none.
    fn clean(&self, mark: Place, oldest: u64, watch: &Watch) -> Result<bool, OutboxError> {
        let worth = self.limits.segment_bytes / 2;
        let is_worth_it = |segment: &Segment| segment.last_sequence < oldest && segment.live_bytes < worth;
        let found =
            self.gathered().segments.iter().find(|(_, segment)| is_worth_it(segment)).map(|(number, _)| *number);
        // Replay begins at the mark: what stands behind it must stay.
        let Some(number) = found.filter(|number| *number < mark.segment) else { return Ok(false) };
        let mut frames = self.log.frames(number)?;
        let mut copies = Ops::default();
        while let Some(frame) = frames.next_frame() {
            for entry in entries(&frame.changes) {
                let Some((key, Some((at, value)))) = entry else { continue };
                if is_record_key(key) && self.raw(key)?.as_deref() == Some(&frame.spot(at, value).encode()[..]) {
                    copies.insert(key, value);
                }
                if copies.encoded_bytes() >= COPY_BYTES_MAX {
                    self.apply(&std::mem::take(&mut copies))?;
                }
            }
        }
        if !frames.is_at_end() {
            // Damaged: what lies behind cannot be judged, so it stays, and is not looked at again before the next start.
            if let Some(segment) = self.gathered().segments.get_mut(&number) {
                segment.live_bytes = u64::MAX;
            }
            return Ok(true);
        }
        if copies.len() > 0 {
            self.apply(&copies)?;
        }
        self.log.sync(watch)?;
        // The index may still refer to the segment, but the log behind the mark has the new places.
        self.log.remove(number)?;
        self.gathered().segments.remove(&number);
        Ok(true)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frame {
    fn spot(&self, at: usize, value: &[u8]) -> Spot {
        // Frames are shorter than 4 GiB.
        let at = Place { segment: self.at.segment, offset: self.at.offset + at as u32 };
        Spot { at, length: value.len() as u32, crc: crc32fast::hash(value) }
    }
}

impl SetAside {
    /// Some keys for the index, and where to go on.
    fn some(&self) -> (Vec<Change>, Option<Vec<u8>>) {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for (key, value) in self.keys.range((self.from.clone(), Bound::Unbounded)) {
            if some.len() == STEP_KEYS_MAX || bytes > STEP_BYTES_MAX {
                let last = some.last().map(|(key, _): &Change| key.clone());
                return (some, last);
            }
            bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
            some.push((key.clone(), value.clone()));
        }
        (some, None)
    }
}

impl Gathered {
    /// The value of a key that the index does not have yet.
    fn get(&self, key: &[u8]) -> Option<&Option<IVec>> {
        self.keys.get(key).or_else(|| self.set_aside.as_ref()?.keys.get(key))
    }

    /// Whether it is time for a checkpoint; `times` the limits.
    fn is_much(&self, limits: &Limits, times: usize) -> bool {
        self.keys.len() >= times * limits.gathered_keys
            || self.bytes >= times * limits.gathered_bytes
            || self.logged_bytes >= 2 * times as u64 * limits.segment_bytes
    }

    /// The place in the log up to which the index has everything, and what is known of segments: for each its number `u32`,
    /// live bytes and last sequence `2 × u64`. More than a thousand are not written: the value must stay far below the
    /// 128 KiB from which sled does not sync it.
    fn write_mark(&self, mark: Place) -> Vec<u8> {
        let mut out = mark.encode().to_vec();
        for (number, segment) in self.segments.iter().take(SEGMENTS_TOLD_MAX) {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&segment.live_bytes.to_be_bytes());
            out.extend_from_slice(&segment.last_sequence.to_be_bytes());
        }
        out
    }

    fn read_mark(&mut self, raw: &[u8]) -> Option<Place> {
        let (mark, segments) = raw.split_at_checked(8)?;
        for raw in segments.chunks(20) {
            let number = u32::from_be_bytes(raw.get(..4)?.try_into().ok()?);
            let live_bytes = u64::from_be_bytes(raw.get(4..12)?.try_into().ok()?);
            let last_sequence = u64::from_be_bytes(raw.get(12..)?.try_into().ok()?);
            self.segments.insert(number, Segment { live_bytes, last_sequence });
        }
        Place::decode(mark)
    }

    /// Makes the changes of a frame visible.
    fn show(&mut self, frame: &Frame, index: &Index) -> Result<(), OutboxError> {
        self.logged_bytes += frame.changes.len() as u64;
        for entry in entries(&frame.changes) {
            let Some((key, value)) = entry else {
                return Err(OutboxError::Damaged {
                    place: format!("log segment {}, offset {}", frame.at.segment, frame.at.offset),
                    detail: "a frame does not have the form this program writes",
                });
            };
            let value: Option<IVec> = if is_record_key(key) {
                let spot = value.map(|(at, value)| frame.spot(at, value));
                self.count(key, spot, index)?;
                spot.map(|spot| IVec::from(&spot.encode()))
            } else {
                value.map(|(_, value)| value.into())
            };
            self.bytes += value.as_ref().map_or(0, |value| value.len());
            if let Some(Some(before)) = self.keys.insert(key.to_vec(), value) {
                self.bytes -= before.len();
            }
        }
        Ok(())
    }

    /// Keeps count of what each segment holds.
    fn count(&mut self, key: &[u8], spot: Option<Spot>, index: &Index) -> Result<(), OutboxError> {
        let is_new = key > &self.last_record[..];
        if !is_new {
            let before = match self.get(key) {
                Some(before) => before.clone(),
                None => index.get(key)?,
            };
            if let Some(before) = before.and_then(|raw| Spot::decode(&raw)) {
                let segment = self.segments.entry(before.at.segment).or_default();
                segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(before.length));
            }
        }
        let Some(spot) = spot else { return Ok(()) };
        let segment = self.segments.entry(spot.at.segment).or_default();
        segment.live_bytes = segment.live_bytes.saturating_add(u64::from(spot.length));
        if is_new {
            self.last_record = key.to_vec();
            segment.last_sequence = parse_record_key(key).map_or(0, |(sequence, _)| sequence);
        }
        Ok(())
    }
}

/// Keys and values in order, read some at a time.
pub(crate) struct Range<'a> {
    store: &'a Store,
    prefix: &'a [u8],
    from: Bound<Vec<u8>>,
    next: std::vec::IntoIter<(IVec, IVec)>,
    /// How many to read next; 0 when there are no more.
    some: usize,
}

impl Iterator for Range<'_> {
    type Item = Result<(IVec, IVec), OutboxError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(next) = self.next.next() {
                return Some(Ok(next));
            }
            if self.some == 0 {
                return None;
            }
            if let Err(fault) = self.read_some() {
                self.some = 0;
                return Some(Err(fault));
            }
        }
    }
}

impl Range<'_> {
    /// Merges what gathered and what was set aside with the index. Under the lock, so that no checkpoint moves a key from one to the other meanwhile.
    fn read_some(&mut self) -> Result<(), OutboxError> {
        let gathered = self.store.gathered();
        let below = self.store.index.some_from(&self.from, self.some)?;
        let below = below.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let some_of = |keys: &BTreeMap<Vec<u8>, Option<IVec>>| {
            let some = keys.range((self.from.clone(), Bound::Unbounded)).take(self.some);
            some.map(|(key, value)| (key.as_slice().into(), value.clone())).collect()
        };
        let between = gathered.set_aside.as_ref().map(|set_aside| some_of(&set_aside.keys)).unwrap_or_default();
        let above = some_of(&gathered.keys);
        drop(gathered);
        // From the oldest to the newest.
        let sides: [Vec<(IVec, Option<IVec>)>; 3] = [below, between, above];
        // Behind the last key of a side that has more, nothing is known of that side.
        let last = |side: &Vec<(IVec, _)>| side.last().filter(|_| side.len() >= self.some).map(|(key, _)| key.clone());
        let cut = sides.iter().filter_map(last).min();
        let mut merged: BTreeMap<IVec, Option<IVec>> = sides.into_iter().flatten().collect();
        merged.retain(|key, _| key.starts_with(self.prefix) && cut.as_ref().is_none_or(|cut| key <= cut));
        self.next = merged.into_iter().filter_map(|(key, value)| Some((key, value?))).collect::<Vec<_>>().into_iter();
        match cut.filter(|cut| cut.starts_with(self.prefix)) {
            Some(cut) => {
                self.from = Bound::Excluded(cut.to_vec());
                self.some = (self.some * 4).min(64);
            }
            None => self.some = 0,
        }
        Ok(())
    }
}
