//! sled made power-safe. Owns the directory, the lock, what must be synced and when, and the repair of what sled 0.34
//! cannot open by itself. Refuses to know what is stored. Why each step is here: `docs/decisions/0001`. Below the
//! [`Engine`] lies either sled or a simulated disk (`sim.rs`); everything above it is the same code for both.

use std::{
    any::Any,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    OutboxError,
    ops::Ops,
    sim::{self, SimDisk},
    watch::Watch,
};

/// sled's tree that holds the redo record, and its only key.
const REDO_TREE: &str = "redo";
const REDO_KEY: &[u8] = b"redo";
/// The same on a simulated disk, which has one tree; no key of the layout begins so.
const SIM_REDO_KEY: &[u8] = b"\xffredo";
/// The longest redo record. sled writes a value from 128 KiB on to an unsynced file of its own; a leaf with one value of
/// this length stays below. More is written as a batch of sled's, which takes one more write to the disk.
const REDO_BYTES_MAX: usize = 24 * 1024;
/// Most changed keys without a sync. sled uses a segment of its log again once what replaced it is *written*; how much may be
/// written but not synced must stay well below the segment or two by which sled lags behind with that. Otherwise a power
/// cut can take the new place of a page and leave the old one overwritten.
const UNSYNCED_KEYS_MAX: usize = 64;
const MARK: &[u8] = b"gengfu outbox 1\n";
/// How often to try for the directory's lock, and for sled's own, which its background threads let go of by and by.
const LOCK_TRIES: u32 = 50;
const REOPEN_TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// The place of the store, held exclusively for as long as this lives.
pub(crate) enum Home {
    /// A directory with sled's files, under a lock.
    Directory(Directory),
    /// A disk in memory.
    Simulated(sim::Lease),
}

/// The directory, held under an exclusive lock for as long as this lives.
pub(crate) struct Directory {
    path: PathBuf,
    cache_bytes: u64,
    mark: File,
    created: bool,
}

/// The store, open.
pub(crate) struct Store {
    engine: Engine,
    /// A redo record was begun and its changes are not all made, or nobody knows.
    owes_redo: AtomicBool,
    /// Keys changed since the last sync.
    unsynced_keys: AtomicUsize,
}

/// What keeps the keys: single changes recovered in order up to the first that is torn, and a sync.
enum Engine {
    Sled(Sled),
    Simulated(sim::Handle),
}

/// sled, open, and the descriptor that makes its flushes durable.
struct Sled {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    redo: Option<sled::Tree>,
    data: File,
}

impl Home {
    /// Locks the place, creating it if needed.
    pub fn lock(path: &Path, cache_bytes: u64, simulated: Option<&SimDisk>) -> Result<Home, OutboxError> {
        match simulated {
            Some(disk) => disk.lease(path).map(Home::Simulated),
            None => Directory::lock(path, cache_bytes).map(Home::Directory),
        }
    }

    /// What errors name.
    pub fn path(&self) -> &Path {
        match self {
            Home::Directory(directory) => &directory.path,
            Home::Simulated(lease) => lease.path(),
        }
    }

    /// Opens the store, repairing what a power cut may have left.
    pub fn open(&mut self) -> Result<Store, OutboxError> {
        let engine = match self {
            Home::Directory(directory) => Engine::Sled(directory.open()?),
            Home::Simulated(lease) => Engine::Simulated(lease.open()?),
        };
        let store = Store { engine, owes_redo: AtomicBool::new(true), unsynced_keys: AtomicUsize::new(0) };
        guarded("redo the last batch", || store.redo_last())?;
        Ok(store)
    }

    /// Drops what the page cache holds of the log. After a failed sync the kernel may hold pages it counts as clean
    /// that never reached the disk; reading them back would make lost data look safe.
    pub fn forget_cached_pages(&self) -> Result<(), OutboxError> {
        match self {
            Home::Directory(directory) => directory.forget_cached_pages(),
            // It forgets by itself, when it is opened after a failure.
            Home::Simulated(_) => Ok(()),
        }
    }
}

impl Directory {
    /// Creates the directory if needed and locks it.
    fn lock(path: &Path, cache_bytes: u64) -> Result<Directory, OutboxError> {
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        let mark_path = path.join("gengfu.outbox");
        let mark = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&mark_path)
            .map_err(io_error("open", &mark_path))?;
        let mut tries = 0;
        loop {
            match mark.try_lock() {
                Ok(()) => break,
                // A process that is just being spawned holds a copy of its parent's descriptors until it begins to run.
                Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => pause(),
                Err(TryLockError::WouldBlock) => return Err(OutboxError::InUse { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &mark_path)(source)),
            }
            tries += 1;
        }
        let created = fs::read(&mark_path).map_err(io_error("read", &mark_path))?.ends_with(MARK);
        Ok(Directory { path: path.to_owned(), cache_bytes, mark, created })
    }

    /// Opens sled, repairing what a power cut may have left, and syncs all that opening wrote.
    fn open(&mut self) -> Result<Sled, OutboxError> {
        remove_half_written_snapshots(&self.path)?;
        // sled is about to write a snapshot, synced, that refers to the log; the log it refers to must be on the disk
        // first. After a kill it may be in the page cache only.
        sync_files(&self.path)?;
        let db = match self.open_sled() {
            Ok(db) => db,
            Err(_) if !self.created => {
                put_aside(&self.path, |_| true)?;
                self.open_sled()?
            }
            Err(OutboxError::Store { source: sled::Error::Corruption { .. }, .. }) => {
                // A snapshot only shortens recovery. Without it sled reads the whole log.
                put_aside(&self.path, |name| name.starts_with("snap."))?;
                self.open_sled()?
            }
            Err(other) => return Err(other),
        };
        let redo = guarded("open", || {
            let redo = db.open_tree(REDO_TREE).and_then(|redo| db.flush().map(|_| redo));
            redo.map_err(|source| OutboxError::Store { doing: "open the redo record", source })
        })?;
        sync_files(&self.path)?;
        self.finish_creation()?;
        let data_path = self.path.join("db");
        let data = OpenOptions::new().read(true).write(true).open(&data_path).map_err(io_error("open", &data_path))?;
        Ok(Sled { db: Some(db), redo: Some(redo), data })
    }

    fn forget_cached_pages(&self) -> Result<(), OutboxError> {
        let path = self.path.join("db");
        let file = File::open(&path).map_err(io_error("open", &path))?;
        // The error of the lost write may be reported once more here; it is known already.
        let _ = file.sync_all();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| io_error("drop the page cache of", &path)(error.into()))
    }

    fn open_sled(&self) -> Result<sled::Db, OutboxError> {
        let mut tries = 0;
        loop {
            let opened = guarded("open", || {
                sled::Config::new()
                    .path(&self.path)
                    .cache_capacity(self.cache_bytes)
                    .flush_every_ms(None)
                    .use_compression(false)
                    .open()
                    .map_err(|source| OutboxError::Store { doing: "open", source })
            });
            match opened {
                // Home's lock is ours, so only the remains of our own previous handle can hold sled's.
                Err(OutboxError::Store { source: sled::Error::Io(error), .. })
                    if tries < REOPEN_TRIES && error.to_string().contains("could not acquire lock") =>
                {
                    tries += 1;
                    pause();
                }
                other => return other,
            }
        }
    }

    fn finish_creation(&mut self) -> Result<(), OutboxError> {
        if self.created {
            return Ok(());
        }
        let path = self.path.join("gengfu.outbox");
        self.mark.write_all(MARK).and_then(|()| self.mark.sync_all()).map_err(io_error("write", &path))?;
        sync_directory(&self.path)?;
        self.created = true;
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !*self.owes_redo.get_mut() {
            // A store that was closed in order owes nothing; if this fails, the same changes are made once more.
            let _ = guarded("close", || self.engine.remove_redo());
        }
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        // sled flushes when it closes, and panics when the disk is gone by then. What was promised is synced already.
        let (db, redo) = (self.db.take(), self.redo.take());
        let _ = guarded("close", || {
            drop((redo, db));
            Ok(())
        });
    }
}

impl Sled {
    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the handle is there until the store is dropped")
    }

    fn redo(&self) -> &sled::Tree {
        self.redo.as_ref().expect("the handle is there until the store is dropped")
    }

    fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        watch
            .over(self.db(), || self.db().flush())
            .map_err(|source| OutboxError::Store { doing: "flush the log", source })?;
        self.data.sync_data().map_err(|source| OutboxError::Io {
            doing: "sync",
            path: PathBuf::from("the outbox's db file"),
            source,
        })
    }

    fn apply_batch(&self, ops: &Ops) -> sled::Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in ops.iter() {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db().apply_batch(batch)
    }
}

impl Engine {
    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, OutboxError> {
        match self {
            Engine::Sled(sled) => sled.db().get(key).map_err(|source| OutboxError::Store { doing: "read", source }),
            Engine::Simulated(disk) => disk.get(key),
        }
    }

    /// Makes one change.
    fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), OutboxError> {
        match (self, value) {
            (Engine::Sled(sled), Some(value)) => sled.db().insert(key, value).map(drop).map_err(not_applied),
            (Engine::Sled(sled), None) => sled.db().remove(key).map(drop).map_err(not_applied),
            (Engine::Simulated(disk), value) => disk.write([(key, value)]),
        }
    }

    /// Makes all changes as one.
    fn set_all(&self, ops: &Ops) -> Result<(), OutboxError> {
        match self {
            Engine::Sled(sled) => sled.apply_batch(ops).map_err(not_applied),
            Engine::Simulated(disk) => disk.write(ops.iter()),
        }
    }

    fn read_redo(&self) -> Result<Option<sled::IVec>, OutboxError> {
        match self {
            Engine::Sled(sled) => {
                sled.redo().get(REDO_KEY).map_err(|source| OutboxError::Store { doing: "read the redo record", source })
            }
            Engine::Simulated(disk) => disk.get(SIM_REDO_KEY),
        }
    }

    fn write_redo(&self, record: Vec<u8>) -> Result<(), OutboxError> {
        match self {
            Engine::Sled(sled) => sled.redo().insert(REDO_KEY, record).map(drop).map_err(not_applied),
            Engine::Simulated(disk) => disk.write([(SIM_REDO_KEY, Some(&record[..]))]),
        }
    }

    fn remove_redo(&self) -> Result<(), OutboxError> {
        match self {
            Engine::Sled(sled) => sled.redo().remove(REDO_KEY).map(drop).map_err(not_applied),
            Engine::Simulated(disk) => disk.write([(SIM_REDO_KEY, None)]),
        }
    }

    fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        match self {
            Engine::Sled(sled) => sled.sync(watch),
            Engine::Simulated(disk) => disk.sync(),
        }
    }
}

fn not_applied(source: sled::Error) -> OutboxError {
    OutboxError::Store { doing: "apply a batch", source }
}

impl Store {
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, OutboxError> {
        self.engine.get(key)
    }

    /// Keys and values from `start` while they begin with `prefix`.
    pub fn range<'a>(
        &'a self,
        start: &[u8],
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), OutboxError>> + 'a {
        let (sled, simulated) = match &self.engine {
            Engine::Sled(sled) => (Some(sled.db().range(start.to_vec()..)), None),
            Engine::Simulated(disk) => (None, Some(disk.range(start))),
        };
        sled.into_iter()
            .flatten()
            .map(|entry| entry.map_err(|source| OutboxError::Store { doing: "read", source }))
            .chain(simulated.into_iter().flatten())
            .take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }

    /// Makes changes that a power cut leaves whole or not at all. Not yet durable. One writer at a time.
    pub fn apply(&self, ops: &Ops) -> Result<(), OutboxError> {
        if self.begin(ops)? { self.finish(ops) } else { Ok(()) }
    }

    /// As [`Store::apply`], and durable before anybody can read them (except when they are too many for a redo
    /// record: then when this returns). `before_visible` is called in between; what it gives back is held meanwhile.
    pub fn commit<G>(&self, ops: &Ops, watch: &Watch, before_visible: impl FnOnce() -> G) -> Result<G, OutboxError> {
        let is_open = self.begin(ops)?;
        self.sync(watch)?;
        let held = before_visible();
        if is_open {
            self.finish(ops)?;
        }
        Ok(held)
    }

    /// Writes the changes down as one redo record, which sled logs as a whole. From then on they will be found, as soon as
    /// the log is synced that far: its messages are recovered in order up to the first that is torn, so whoever finds this record
    /// finds all changes of the records before it, and opening makes the changes of this one again. Gives back whether
    /// [`Store::finish`] is still to be called; not when the changes were too many, and made at once by sled's own batch.
    ///
    /// sled's batch is not used for all, because it costs one more write to the disk, with a change of threads, for a manifest.
    fn begin(&self, ops: &Ops) -> Result<bool, OutboxError> {
        self.owes_redo.store(true, Ordering::Relaxed);
        self.unsynced_keys.fetch_add(ops.len(), Ordering::Relaxed);
        if ops.encoded_bytes() <= REDO_BYTES_MAX {
            self.engine.write_redo(ops.encode())?;
            return Ok(true);
        }
        // All changes of the last record are made, and it must not be made again on top of these.
        self.engine.remove_redo()?;
        self.engine.set_all(ops)?;
        self.owes_redo.store(false, Ordering::Relaxed);
        Ok(false)
    }

    /// Makes the changes of the redo record.
    fn finish(&self, ops: &Ops) -> Result<(), OutboxError> {
        ops.iter().try_for_each(|(key, value)| self.engine.set(key, value))?;
        self.owes_redo.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the changes of the record that a crash may have cut short, once more.
    fn redo_last(&self) -> Result<(), OutboxError> {
        let ops = match &self.engine.read_redo()? {
            Some(raw) => Ops::decode(raw).ok_or_else(|| OutboxError::Damaged {
                place: "the redo record".to_owned(),
                detail: "it does not have the form this program writes",
            })?,
            None => Ops::default(),
        };
        self.finish(&ops)
    }

    /// Syncs if so much was applied since the last sync that it may not wait for the next commit's.
    pub fn sync_if_far(&self, watch: &Watch) -> Result<(), OutboxError> {
        if self.unsynced_keys.load(Ordering::Relaxed) > UNSYNCED_KEYS_MAX { self.sync(watch) } else { Ok(()) }
    }

    /// Makes everything applied so far survive a power cut. sled's flush writes the log and waits with
    /// `sync_file_range`, which neither writes the file's size and block map nor empties the disk's own cache;
    /// `fdatasync` does both.
    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        self.engine.sync(watch)?;
        self.unsynced_keys.store(0, Ordering::Relaxed);
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells when a lock is let go of by another process or by sled's threads"
)]
fn pause() {
    thread::sleep(PAUSE);
}

/// Runs `work`, turning a panic inside sled into an error.
pub(crate) fn guarded<R>(doing: &'static str, work: impl FnOnce() -> Result<R, OutboxError>) -> Result<R, OutboxError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(OutboxError::Panicked { doing, message: panic_text(panic.as_ref()) }))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutboxError {
    let path = path.to_owned();
    move |source| OutboxError::Io { doing, path, source }
}

fn sync_directory(path: &Path) -> Result<(), OutboxError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error("sync", path))
}

/// Syncs every file of the store, its directories, and the directory that holds it.
fn sync_files(path: &Path) -> Result<(), OutboxError> {
    for name in names(path)? {
        let file = path.join(&name);
        if file.is_dir() {
            sync_directory(&file)?;
        } else {
            File::open(&file).and_then(|file| file.sync_all()).map_err(io_error("sync", &file))?;
        }
    }
    sync_directory(path)?;
    let absolute = fs::canonicalize(path).map_err(io_error("resolve", path))?;
    absolute.parent().map_or(Ok(()), sync_directory)
}

/// sled 0.34 writes a snapshot as `snap.X.generating`, then renames it; when it opens, it takes every name that begins
/// with `snap.` for a finished one.
fn remove_half_written_snapshots(path: &Path) -> Result<(), OutboxError> {
    for name in names(path)?.iter().filter(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
        let file = path.join(name);
        fs::remove_file(&file).map_err(io_error("remove", &file))?;
    }
    Ok(())
}

/// Moves sled's files whose name `chosen` accepts into `aside/`, replacing what an earlier repair put there.
fn put_aside(path: &Path, chosen: impl Fn(&str) -> bool) -> Result<(), OutboxError> {
    let aside = path.join("aside");
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(io_error("remove", &aside))?;
    }
    fs::create_dir(&aside).map_err(io_error("create", &aside))?;
    let of_sled = |name: &str| name == "conf" || name == "db" || name == "blobs" || name.starts_with("snap.");
    for name in names(path)?.iter().filter(|name| of_sled(name) && chosen(name)) {
        fs::rename(path.join(name), aside.join(name)).map_err(io_error("put aside", &path.join(name)))?;
    }
    sync_directory(&aside)?;
    sync_directory(path)
}

fn names(path: &Path) -> Result<Vec<String>, OutboxError> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    fs::read_dir(path).and_then(|entries| entries.map(name).collect()).map_err(io_error("list", path))
}
