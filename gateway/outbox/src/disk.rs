//! sled made power-safe. Owns the directory, the lock, what must be synced and when, and the repair of what sled 0.34
//! cannot open by itself. Refuses to know what is stored. Why each step is here: `docs/decisions/0001`.

use std::{
    any::Any,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{OutboxError, watch::Watch};

const MARK: &[u8] = b"gengfu outbox 1\n";
/// How often to try for the directory's lock, and for sled's own, which its background threads let go of by and by.
const LOCK_TRIES: u32 = 50;
const REOPEN_TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// The directory, held under an exclusive lock for as long as this lives.
pub(crate) struct Home {
    path: PathBuf,
    cache_bytes: u64,
    mark: File,
    created: bool,
}

/// sled, open, and the descriptor that makes its flushes durable.
pub(crate) struct Store {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    data: File,
}

impl Home {
    /// Creates the directory if needed and locks it.
    pub fn lock(path: &Path, cache_bytes: u64) -> Result<Home, OutboxError> {
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
        Ok(Home { path: path.to_owned(), cache_bytes, mark, created })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the store, repairing what a power cut may have left, and syncs all that opening wrote.
    pub fn open(&mut self) -> Result<Store, OutboxError> {
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
        sync_files(&self.path)?;
        self.finish_creation()?;
        let data_path = self.path.join("db");
        let data = OpenOptions::new().read(true).write(true).open(&data_path).map_err(io_error("open", &data_path))?;
        Ok(Store { db: Some(db), data })
    }

    /// Drops what the page cache holds of the log. After a failed sync the kernel may hold pages it counts as clean
    /// that never reached the disk; reading them back would make lost data look safe.
    pub fn forget_cached_pages(&self) -> Result<(), OutboxError> {
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
        // sled flushes when it closes, and panics when the disk is gone by then. What was promised is synced already.
        let db = self.db.take();
        let _ = guarded("close", || {
            drop(db);
            Ok(())
        });
    }
}

impl Store {
    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the handle is there until the store is dropped")
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, OutboxError> {
        self.db().get(key).map_err(|source| OutboxError::Store { doing: "read", source })
    }

    /// Keys and values from `start` while they begin with `prefix`.
    pub fn range<'a>(
        &'a self,
        start: &[u8],
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), OutboxError>> + 'a {
        self.db()
            .range(start.to_vec()..)
            .map(|entry| entry.map_err(|source| OutboxError::Store { doing: "read", source }))
            .take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }

    /// Applies a batch atomically, in memory and in the log's buffers. Not yet durable.
    pub fn apply(&self, batch: sled::Batch) -> Result<(), OutboxError> {
        self.db().apply_batch(batch).map_err(|source| OutboxError::Store { doing: "apply a batch", source })
    }

    /// Makes everything applied so far survive a power cut. sled's flush writes the log and waits with
    /// `sync_file_range`, which neither writes the file's size and block map nor empties the disk's own cache;
    /// `fdatasync` does both.
    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        watch
            .over(self.db(), || self.db().flush())
            .map_err(|source| OutboxError::Store { doing: "flush the log", source })?;
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
