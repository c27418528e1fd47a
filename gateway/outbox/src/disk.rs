//! The place of the outbox. Owns the directory, its lock, sled in it, what must be synced and when, and the repair of what sled
//! 0.34 cannot open by itself. Refuses to know what is stored. Why each step is here: `docs/decisions/0001`. A simulated
//! disk (`sim.rs`) can stand in its place; everything above is the same code for both.

use std::{
    any::Any,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    OutboxError,
    engine::Engine,
    files::Files,
    sim::{self, SimDisk},
    store::{Limits, Store},
    watch::Watch,
};

const MARK: &[u8] = b"gengfu outbox 2\n";
/// How often to try for the directory's lock, and for sled's own, which its background threads let go of by and by.
const LOCK_TRIES: u32 = 50;
const REOPEN_TRIES: u32 = 200;
/// What must find room before a failed store is opened again; sled writes about as much.
const PROBE_BYTES: usize = 256 * 1024;
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
    /// The locked mark; `None` after it was let go.
    mark: Option<File>,
    created: bool,
}

/// sled, open, and the descriptor that makes its flushes durable.
pub(crate) struct Sled {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
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
        let (engine, files, limits) = match self {
            Home::Directory(directory) => {
                (Engine::Sled(directory.open()?), Files::directory(&directory.path), Limits::REAL)
            }
            Home::Simulated(lease) => {
                let disk = lease.open()?;
                (Engine::Simulated(disk.clone()), Files::Simulated(disk), Limits::SIMULATED)
            }
        };
        guarded("open", || Store::open(engine, files, limits))
    }

    /// Whether the disk takes anything at all, tried on a file of its own.
    pub fn probe(&self) -> Result<(), OutboxError> {
        match self {
            Home::Directory(directory) => directory.probe(),
            Home::Simulated(lease) => lease.probe(),
        }
    }

    /// Lets go of the lock, so that nothing is open in the directory and its disk can be unmounted. Opening takes it again.
    pub fn let_go(&mut self) {
        if let Home::Directory(directory) = self {
            directory.mark = None;
        }
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
        let (mark, created) = lock_mark(path)?;
        Ok(Directory { path: path.to_owned(), cache_bytes, mark: Some(mark), created })
    }

    /// Opens sled, repairing what a power cut may have left, and syncs all that opening wrote.
    fn open(&mut self) -> Result<Sled, OutboxError> {
        if self.mark.is_none() {
            let (mark, created) = lock_mark(&self.path)?;
            (self.mark, self.created) = (Some(mark), created);
        }
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
        let data_path = self.path.join("db");
        let data = OpenOptions::new().read(true).write(true).open(&data_path).map_err(io_error("open", &data_path))?;
        if self.created {
            // sled has synced its new snapshot itself; what is left is its name, and what opening wrote to the log of the index.
            data.sync_data().map_err(io_error("sync", &data_path))?;
            sync_directory(&self.path)?;
        } else {
            sync_files(&self.path)?;
        }
        self.finish_creation()?;
        Ok(Sled { db: Some(db), data })
    }

    fn probe(&self) -> Result<(), OutboxError> {
        let path = self.path.join("probe");
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&[0; PROBE_BYTES])?;
            file.sync_all()
        });
        // Left over, it is overwritten by the next.
        let _ = fs::remove_file(&path);
        written.map_err(io_error("write", &path))
    }

    fn forget_cached_pages(&self) -> Result<(), OutboxError> {
        for name in names(&self.path)?.iter().filter(|name| *name == "db" || name.starts_with("log.")) {
            let path = self.path.join(name);
            let file = File::open(&path).map_err(io_error("open", &path))?;
            // The error of the lost write may be reported once more here; it is known already.
            let _ = file.sync_all();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
                .map_err(|error| io_error("drop the page cache of", &path)(error.into()))?;
        }
        Ok(())
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
        let mut mark = self.mark.as_ref().expect("the mark is locked before sled is opened");
        mark.write_all(MARK).and_then(|()| mark.sync_all()).map_err(io_error("write", &path))?;
        sync_directory(&self.path)?;
        self.created = true;
        Ok(())
    }
}

/// Opens the mark and locks it; tells whether the store was once completely created.
fn lock_mark(path: &Path) -> Result<(File, bool), OutboxError> {
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
    Ok((mark, created))
}

impl Drop for Sled {
    fn drop(&mut self) {
        // sled flushes when it closes, and panics when the disk is gone by then. What was promised is synced already.
        let db = self.db.take();
        let _ = guarded("close", || {
            drop(db);
            Ok(())
        });
    }
}

impl Sled {
    pub fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the handle is there until the store is dropped")
    }

    /// Makes everything written so far survive a power cut. sled's flush writes its log and waits with `sync_file_range`,
    /// which neither writes the file's size and block map nor empties the disk's own cache; `fdatasync` does both.
    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        watch
            .over(Some(self.db()), || self.db().flush())
            .map_err(|source| OutboxError::Store { doing: "flush the index", source })?;
        self.data.sync_data().map_err(|source| OutboxError::Io {
            doing: "sync",
            path: PathBuf::from("the outbox's db file"),
            source,
        })
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

pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutboxError {
    let path = path.to_owned();
    move |source| OutboxError::Io { doing, path, source }
}

pub(crate) fn sync_directory(path: &Path) -> Result<(), OutboxError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error("sync", path))
}

/// Syncs every file of the store, its directories, and the directory that holds it. Of the log only the last two segments: one
/// is begun when the one before it is durable.
fn sync_files(path: &Path) -> Result<(), OutboxError> {
    let (mut log, others): (Vec<String>, Vec<String>) =
        names(path)?.into_iter().partition(|name| name.starts_with("log."));
    log.sort_unstable();
    let sealed = log.len().saturating_sub(2);
    for name in others.iter().chain(&log[sealed..]) {
        let file = path.join(name);
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
