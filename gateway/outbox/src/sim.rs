//! A disk in memory for simulations: the outbox's own code runs on it unchanged, thousands of times a second, and every
//! fault happens at the operation the caller names. Owns the difference between what is written and what is synced, and
//! what a power cut, a kill or a failure leaves of the former; refuses to know what is stored, to read a clock, and to
//! start a thread. Nothing here is used unless [`Options::simulated`](crate::Options::simulated) is asked for.
//!
//! It behaves as the real store is shown to behave by the power-cut trials. It holds an index (as sled: changes are recovered in
//! the order in which they were made, up to some point at or after its last sync; one change is never torn) and the files of
//! a log (of what was appended since a file's last sync any number of bytes may stay, and zeros may stand behind them).
//!
//! ```
//! use gengfu_outbox::{Lane, Options, Outbox, sim::{Kept, SimDisk}};
//! let disk = SimDisk::new(7);
//! let outbox = Outbox::open(Options::simulated(&disk))?;
//! let mut batch = outbox.batch();
//! batch.append(Lane::Fire, "a", 0, |_| b"smoke".to_vec())?;
//! batch.commit()?;
//! disk.cut_power(Kept::Nothing);
//! assert!(outbox.batch().append(Lane::Fire, "b", 0, |_| Vec::new()).is_err(), "the machine is off");
//! let outbox = Outbox::open(Options::simulated(&disk))?;
//! assert_eq!(outbox.take(9)?.len(), 1);
//! # Ok::<(), gengfu_outbox::OutboxError>(())
//! ```

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sled::IVec;

use crate::OutboxError;

/// A simulated disk. Clones are the same disk. One [`Outbox`](crate::Outbox) may be open on it at a time; it is reopened after
/// [`SimDisk::cut_power`] without dropping the old one first, whose every operation fails from then on, as nothing
/// runs on a machine that is off.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

/// What stays of the changes that were made and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// The first so many changes of the index, and so many appended pieces of each file.
    First(usize),
    /// As much of them as the disk's seed decides; an appended piece may be torn.
    Random,
}

/// A fault that stands until it is taken away. Reads go on working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space left: files take a part of what is appended, syncs of the index fail.
    Full,
    /// Mounted read-only, as ext4 does after an error: changes and syncs fail.
    ReadOnly,
    /// Every change fails.
    WriteError,
    /// Every sync fails.
    SyncError,
}

/// What was done on the disk since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes of the index made, and pieces appended to the log.
    pub writes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Changes and syncs that failed.
    pub failures: u64,
    /// Times the store was opened.
    pub opens: u64,
    /// Power cuts, those of [`SimDisk::cut_power_in`] included.
    pub cuts: u64,
}

#[derive(Clone, Copy)]
enum Planned {
    Cut(Kept),
    Fault(Fault),
}

#[derive(Default)]
struct LogFile {
    bytes: Vec<u8>,
    synced: usize,
    /// Where each piece that is not synced ends.
    ends: Vec<usize>,
}

struct Platter {
    /// The index as whoever reads sees it.
    now: BTreeMap<Vec<u8>, IVec>,
    /// For each change since the last sync what it overwrote, oldest first.
    undo: Vec<(Vec<u8>, Option<IVec>)>,
    log: BTreeMap<u32, LogFile>,
    /// A change or sync failed: what is not synced is in doubt when the store is opened again.
    in_doubt: bool,
    fault: Option<Fault>,
    planned: Option<(u64, Planned)>,
    /// Counts machines: handles of one that lost its power do nothing any more.
    machine: u64,
    is_leased: bool,
    sync_ms: u64,
    spent_ms: u64,
    counts: Counts,
    random: u64,
}

impl SimDisk {
    /// An empty disk. `seed` decides what [`Kept::Random`] and failures leave.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(Platter {
            now: BTreeMap::new(),
            undo: Vec::new(),
            log: BTreeMap::new(),
            in_doubt: false,
            fault: None,
            planned: None,
            machine: 0,
            is_leased: false,
            sync_ms: 0,
            spent_ms: 0,
            counts: Counts::default(),
            random: seed,
        })))
    }

    /// Takes the power away and gives it back: of what is not synced only `kept` stays, and every outbox open so far is
    /// dead. A `kill -9` is the same with [`Kept::Everything`] or [`Kept::Random`]: the page cache survives, sled's buffers do
    /// not. A standing fault stays.
    pub fn cut_power(&self, kept: Kept) {
        self.lock().cut(kept);
    }

    /// Cuts the power just before the `operations`-th change or sync from now (1 = the next). Whoever makes it gets an error
    /// and must be taken for dead; [`Counts::cuts`] tells that it happened. Replaces what was planned before.
    pub fn cut_power_in(&self, operations: u64, kept: Kept) {
        self.lock().planned = Some((operations.max(1), Planned::Cut(kept)));
    }

    /// Sets or takes away the standing fault. An outbox poisoned by it is healed by
    /// [`Outbox::recover`](crate::Outbox::recover) afterwards, not before.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// The fault stands from the `operations`-th change or sync on (1 = the next). Replaces what was planned before.
    pub fn set_fault_in(&self, operations: u64, fault: Fault) {
        self.lock().planned = Some((operations.max(1), Planned::Fault(fault)));
    }

    /// Every sync from now on takes so long, ms. Nothing waits: the caller adds [`SimDisk::take_spent_ms`] to its clock.
    pub fn set_sync_ms(&self, sync_ms: u64) {
        self.lock().sync_ms = sync_ms;
    }

    /// How long the disk worked since this was last asked, ms of simulated time.
    #[must_use]
    pub fn take_spent_ms(&self) -> u64 {
        std::mem::take(&mut self.lock().spent_ms)
    }

    /// How many changes of the index and pieces of the log a power cut now could take back.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let platter = self.lock();
        platter.undo.len() + platter.log.values().map(|file| file.ends.len()).sum::<usize>()
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(crate) fn lease(&self, path: &Path) -> Result<Lease, OutboxError> {
        let mut platter = self.lock();
        if platter.is_leased {
            return Err(OutboxError::InUse { path: path.to_owned() });
        }
        platter.is_leased = true;
        Ok(Lease { disk: self.clone(), machine: platter.machine, path: path.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        // No code of others runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let platter = self.lock();
        f.debug_struct("SimDisk")
            .field("keys", &platter.now.len())
            .field("unsynced", &platter.undo.len())
            .field("fault", &platter.fault)
            .finish_non_exhaustive()
    }
}

impl Platter {
    fn cut(&mut self, kept: Kept) {
        self.roll_back(kept);
        self.machine += 1;
        self.is_leased = false;
        self.planned = None;
        self.counts.cuts += 1;
    }

    fn roll_back(&mut self, kept: Kept) {
        let stays = match kept {
            Kept::Nothing => 0,
            Kept::Everything => self.undo.len(),
            Kept::First(first) => first.min(self.undo.len()),
            Kept::Random => self.below(self.undo.len() + 1),
        };
        for (key, before) in self.undo.drain(stays..).rev() {
            match before {
                Some(value) => self.now.insert(key, value),
                None => self.now.remove(&key),
            };
        }
        // What a start reads back has reached the disk.
        self.undo.clear();
        let mut log = std::mem::take(&mut self.log);
        for file in log.values_mut() {
            let length = file.bytes.len();
            let stays = match kept {
                Kept::Nothing => file.synced,
                Kept::Everything => length,
                Kept::First(0) => file.synced,
                Kept::First(first) => file.ends.get(first - 1).copied().unwrap_or(length),
                // Often enough all of it: what comes of a batch that failed and is there after all is worth a test.
                Kept::Random if self.below(4) == 0 => length,
                Kept::Random => file.synced + self.below(length - file.synced + 1),
            };
            file.bytes.truncate(stays);
            if kept == Kept::Random && self.below(4) == 0 {
                file.bytes.resize(length, 0);
            }
            file.synced = file.bytes.len();
            file.ends.clear();
        }
        self.log = log;
        self.in_doubt = false;
    }

    /// SplitMix64.
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Below `bound`, so the cast back keeps it; the small bias does not matter.
        ((z ^ (z >> 31)) % (bound.max(1) as u64)) as usize
    }

    /// Before each change and sync: is it the one that something was planned for, and does the machine still run?
    fn step(&mut self, machine: u64, doing: &'static str) -> Result<(), OutboxError> {
        if machine == self.machine
            && let Some((operations, planned)) = self.planned
        {
            self.planned = Some((operations - 1, planned));
            if operations == 1 {
                self.planned = None;
                match planned {
                    Planned::Cut(kept) => self.cut(kept),
                    Planned::Fault(fault) => self.fault = Some(fault),
                }
            }
        }
        if machine == self.machine { Ok(()) } else { Err(failed(doing, io::ErrorKind::NotConnected)) }
    }

    fn refuse(&mut self, doing: &'static str, faults: &[Fault]) -> Result<(), OutboxError> {
        let Some(fault) = self.fault.filter(|fault| faults.contains(fault)) else { return Ok(()) };
        self.in_doubt = true;
        self.counts.failures += 1;
        Err(failed(
            doing,
            match fault {
                Fault::Full => io::ErrorKind::StorageFull,
                Fault::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
                Fault::WriteError | Fault::SyncError => io::ErrorKind::Other,
            },
        ))
    }
}

fn failed(doing: &'static str, kind: io::ErrorKind) -> OutboxError {
    OutboxError::Io { doing, path: PathBuf::from("the simulated disk"), source: kind.into() }
}

/// The disk, held by one outbox.
pub(crate) struct Lease {
    disk: SimDisk,
    machine: u64,
    path: PathBuf,
}

impl Lease {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the disk takes anything.
    pub fn probe(&self) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "write")?;
        platter.refuse("write", &[Fault::Full, Fault::ReadOnly, Fault::WriteError, Fault::SyncError])
    }

    /// Opens the store. Like sled it writes and syncs when it opens, so it fails on a disk that takes neither.
    pub fn open(&self) -> Result<Handle, OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "open")?;
        platter.refuse("open", &[Fault::Full, Fault::ReadOnly, Fault::WriteError, Fault::SyncError])?;
        if platter.in_doubt {
            platter.roll_back(Kept::Random);
        }
        platter.undo.clear();
        for file in platter.log.values_mut() {
            file.synced = file.bytes.len();
            file.ends.clear();
        }
        platter.counts.opens += 1;
        Ok(Handle { disk: self.disk.clone(), machine: self.machine })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut platter = self.disk.lock();
        if platter.machine == self.machine {
            platter.is_leased = false;
        }
    }
}

/// The disk, open.
#[derive(Clone)]
pub(crate) struct Handle {
    disk: SimDisk,
    machine: u64,
}

impl Handle {
    pub fn get(&self, key: &[u8]) -> Result<Option<IVec>, OutboxError> {
        Ok(self.running()?.now.get(key).cloned())
    }

    pub fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "write")?;
        platter.refuse("write", &[Fault::ReadOnly, Fault::WriteError])?;
        let before = match value {
            Some(value) => platter.now.insert(key.to_vec(), value.into()),
            None => platter.now.remove(key),
        };
        platter.undo.push((key.to_vec(), before));
        platter.counts.writes += 1;
        Ok(())
    }

    pub fn sync(&self) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "sync")?;
        platter.spent_ms = platter.spent_ms.saturating_add(platter.sync_ms);
        platter.refuse("sync", &[Fault::Full, Fault::ReadOnly, Fault::SyncError])?;
        if platter.in_doubt {
            // A sync that succeeds after one that failed proves nothing of what came before.
            return Err(failed("sync", io::ErrorKind::Other));
        }
        platter.undo.clear();
        platter.counts.syncs += 1;
        Ok(())
    }

    /// Up to `limit` keys and values from a bound on.
    pub fn some_from(&self, from: &Bound<Vec<u8>>, limit: usize) -> Result<Vec<(IVec, IVec)>, OutboxError> {
        let platter = self.running()?;
        let some = platter.now.range((from.clone(), Bound::Unbounded)).take(limit);
        Ok(some.map(|(key, value)| (IVec::from(key.as_slice()), value.clone())).collect())
    }

    pub fn segments(&self) -> Result<Vec<u32>, OutboxError> {
        Ok(self.running()?.log.keys().copied().collect())
    }

    pub fn read_log(&self, segment: u32, offset: u64, length: usize) -> Result<Option<Vec<u8>>, OutboxError> {
        let platter = self.running()?;
        let Some(file) = platter.log.get(&segment) else { return Ok(None) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
        let to = from.saturating_add(length).min(file.bytes.len());
        Ok(Some(file.bytes[from..to].to_vec()))
    }

    pub fn log_length(&self, segment: u32) -> Result<u64, OutboxError> {
        Ok(self.running()?.log.get(&segment).map_or(0, |file| file.bytes.len() as u64))
    }

    pub fn create_log(&self, segment: u32) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "create")?;
        platter.refuse("create", &[Fault::Full, Fault::ReadOnly, Fault::WriteError, Fault::SyncError])?;
        platter.log.insert(segment, LogFile::default());
        Ok(())
    }

    pub fn append_log(&self, segment: u32, bytes: &[u8]) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "write")?;
        let refused = platter.refuse("write", &[Fault::Full, Fault::ReadOnly, Fault::WriteError]);
        let written = match platter.fault {
            Some(Fault::Full) => platter.below(bytes.len()),
            _ if refused.is_err() => 0,
            _ => bytes.len(),
        };
        let file = platter.log.entry(segment).or_default();
        file.bytes.extend_from_slice(&bytes[..written]);
        file.ends.push(file.bytes.len());
        platter.counts.writes += 1;
        refused
    }

    pub fn sync_log(&self, segment: u32) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "sync")?;
        platter.spent_ms = platter.spent_ms.saturating_add(platter.sync_ms);
        platter.refuse("sync", &[Fault::ReadOnly, Fault::SyncError])?;
        if platter.in_doubt {
            return Err(failed("sync", io::ErrorKind::Other));
        }
        if let Some(file) = platter.log.get_mut(&segment) {
            file.synced = file.bytes.len();
            file.ends.clear();
        }
        platter.counts.syncs += 1;
        Ok(())
    }

    pub fn truncate_log(&self, segment: u32, length: u64) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "write")?;
        platter.refuse("write", &[Fault::ReadOnly, Fault::WriteError, Fault::SyncError])?;
        if let Some(file) = platter.log.get_mut(&segment) {
            file.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            file.synced = file.bytes.len();
            file.ends.clear();
        }
        Ok(())
    }

    pub fn remove_log(&self, segment: u32) -> Result<(), OutboxError> {
        let mut platter = self.disk.lock();
        platter.step(self.machine, "remove")?;
        platter.refuse("remove", &[Fault::ReadOnly, Fault::WriteError])?;
        platter.log.remove(&segment);
        Ok(())
    }

    fn running(&self) -> Result<MutexGuard<'_, Platter>, OutboxError> {
        let platter = self.disk.lock();
        if platter.machine == self.machine { Ok(platter) } else { Err(failed("read", io::ErrorKind::NotConnected)) }
    }
}
