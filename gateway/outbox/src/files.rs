//! The files of the log, numbered segments that only grow: in a directory, or on a simulated disk. Owns their names and what
//! must be synced when one is made; refuses to know what a frame is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    OutboxError,
    disk::{io_error, sync_directory},
    sim,
};

/// How many segments are kept open for reading.
const OPEN_MAX: usize = 8;

/// Where the segments are.
pub(crate) enum Files {
    /// `log.<number>` in the outbox's directory.
    Directory(Folder),
    /// On a simulated disk.
    Simulated(sim::Handle),
}

/// Segments in a directory.
pub(crate) struct Folder {
    path: PathBuf,
    reading: Mutex<Vec<(u32, Arc<File>)>>,
    writing: Mutex<Option<(u32, File)>>,
}

impl Files {
    pub fn directory(path: &Path) -> Files {
        Files::Directory(Folder { path: path.to_owned(), reading: Mutex::default(), writing: Mutex::default() })
    }

    /// The numbers of all segments, in order.
    pub fn segments(&self) -> Result<Vec<u32>, OutboxError> {
        match self {
            Files::Directory(folder) => folder.segments(),
            Files::Simulated(disk) => disk.segments(),
        }
    }

    /// Bytes from `offset` on, at most `length`, fewer at the segment's end; `None` when there is no such segment.
    pub fn read(&self, segment: u32, offset: u64, length: usize) -> Result<Option<Vec<u8>>, OutboxError> {
        match self {
            Files::Directory(folder) => folder.read(segment, offset, length),
            Files::Simulated(disk) => disk.read_log(segment, offset, length),
        }
    }

    /// How long a segment is, bytes; 0 when there is no such segment.
    pub fn length(&self, segment: u32) -> Result<u64, OutboxError> {
        match self {
            Files::Directory(folder) => match fs::metadata(folder.at(segment)) {
                Ok(metadata) => Ok(metadata.len()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
                Err(error) => Err(io_error("read the length of", &folder.at(segment))(error)),
            },
            Files::Simulated(disk) => disk.log_length(segment),
        }
    }

    /// Makes an empty segment that a power cut does not take away.
    pub fn create(&self, segment: u32) -> Result<(), OutboxError> {
        match self {
            Files::Directory(folder) => {
                let at = folder.at(segment);
                File::create(&at).and_then(|file| file.sync_all()).map_err(io_error("create", &at))?;
                sync_directory(&folder.path)
            }
            Files::Simulated(disk) => disk.create_log(segment),
        }
    }

    pub fn append(&self, segment: u32, bytes: &[u8]) -> Result<(), OutboxError> {
        match self {
            Files::Directory(folder) => folder.with_writer(segment, "write", |mut file| file.write_all(bytes)),
            Files::Simulated(disk) => disk.append_log(segment, bytes),
        }
    }

    /// Makes what was appended survive a power cut.
    pub fn sync(&self, segment: u32) -> Result<(), OutboxError> {
        match self {
            Files::Directory(folder) => folder.with_writer(segment, "sync", File::sync_data),
            Files::Simulated(disk) => disk.sync_log(segment),
        }
    }

    /// Cuts a segment to a length, durably.
    pub fn truncate(&self, segment: u32, length: u64) -> Result<(), OutboxError> {
        match self {
            Files::Directory(folder) => folder.with_writer(segment, "cut the torn end of", |file| {
                file.set_len(length).and_then(|()| file.sync_all())
            }),
            Files::Simulated(disk) => disk.truncate_log(segment, length),
        }
    }

    pub fn remove(&self, segment: u32) -> Result<(), OutboxError> {
        match self {
            Files::Directory(folder) => {
                lock(&folder.reading).retain(|(number, _)| *number != segment);
                let at = folder.at(segment);
                match fs::remove_file(&at) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &at)(error)),
                    _ => Ok(()),
                }
            }
            Files::Simulated(disk) => disk.remove_log(segment),
        }
    }
}

impl Folder {
    fn at(&self, segment: u32) -> PathBuf {
        self.path.join(format!("log.{segment:08}"))
    }

    fn segments(&self) -> Result<Vec<u32>, OutboxError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io_error("list", &self.path))? {
            let name = entry.map_err(io_error("list", &self.path))?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_prefix("log.")?.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, segment: u32, offset: u64, length: usize) -> Result<Option<Vec<u8>>, OutboxError> {
        let Some(file) = self.reader(segment)? else { return Ok(None) };
        let mut bytes = vec![0; length];
        let mut read = 0;
        while read < length {
            match file.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.at(segment))(error)),
            }
        }
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn reader(&self, segment: u32) -> Result<Option<Arc<File>>, OutboxError> {
        let mut open = lock(&self.reading);
        if let Some(found) = open.iter().position(|(number, _)| *number == segment) {
            // The most recently used stands last.
            open[found..].rotate_left(1);
            return Ok(open.last().map(|(_, file)| Arc::clone(file)));
        }
        let at = self.at(segment);
        let file = match File::open(&at) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &at)(error)),
        };
        if open.len() == OPEN_MAX {
            open.remove(0);
        }
        open.push((segment, Arc::clone(&file)));
        Ok(Some(file))
    }

    fn with_writer<R>(
        &self,
        segment: u32,
        doing: &'static str,
        work: impl FnOnce(&File) -> io::Result<R>,
    ) -> Result<R, OutboxError> {
        let at = self.at(segment);
        let mut writing = lock(&self.writing);
        let file = match writing.take() {
            Some((number, file)) if number == segment => file,
            _ => OpenOptions::new().append(true).open(&at).map_err(io_error("open", &at))?,
        };
        let done = work(&file).map_err(io_error(doing, &at));
        *writing = Some((segment, file));
        done
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-changed by a panic here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
