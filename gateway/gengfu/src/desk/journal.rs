//! The desk's own journal: everything it took, one JSON line each, on disk before the receipt goes out.
//!
//! Owns the files and their syncing. A receipt is the word "I have it durably", so without a journal the desk's word is only as good as
//! its memory; for a look at a gateway that is enough. The file in use has the given name; when it has grown enough it is set aside as
//! `<name>.000001` and so on, and the next one begins with a checkpoint, so that a start reads one file and old ones may be archived.
//! It refuses to be a database: `gengfu desk report` reads it, and the desk itself at its start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use gengfu_contract::event::Event;
use gengfu_contract::slug::Slug;
use gengfu_contract::state::Statement;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gateway::GatewayView;

/// A file is set aside when it is larger, unless told otherwise.
pub const FILE_BYTES: u64 = 64 << 20;

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Whose event.
    pub gateway: Slug,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The event.
    pub event: Event,
}

/// A line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Whose; the desk's own lines are under the name of its site.
    pub gateway: Slug,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What a line of the journal holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An event, the first time.
    Event(Event),
    /// An event whose number was seen too long ago to compare.
    Again(Event),
    /// A copy that contradicts an earlier one. It was not received for.
    Altered(Event),
    /// A further copy of an event.
    Duplicate {
        /// Its number.
        sequence: u64,
        /// Its id.
        id: String,
    },
    /// What the gateway stated.
    Statement(Statement),
    /// A picture that was written.
    Picture {
        /// Of which alarm.
        alarm_id: String,
        /// Which.
        n: u32,
        /// SHA-256 of its bytes, hex.
        sha256: String,
        /// Size.
        bytes: u64,
        /// Where.
        path: String,
    },
    /// All that was known when this file began.
    Checkpoint(Box<BTreeMap<Slug, GatewayView>>),
    /// A line of a later version.
    #[serde(skip)]
    Unknown,
}

impl Record {
    /// The event, if it is one that was received for.
    #[must_use]
    pub fn into_line(self) -> Option<Line> {
        let Record { gateway, received_at, what } = self;
        let What::Event(event) = what else { return None };
        Some(Line { gateway, received_at, event })
    }
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes that are known to be on disk.
    synced: u64,
    pending: Vec<u8>,
    /// The last write failed: what it left behind must go first.
    is_dirty: bool,
    file_bytes: u64,
}

/// What is wrong with the journal.
#[derive(Debug, thiserror::Error)]
#[error("the desk's journal {path}: {source}; check that the folder exists and the disk is not full")]
pub struct JournalError {
    path: PathBuf,
    source: std::io::Error,
}

impl Journal {
    /// Opens the journal and gives `each` what must be read again: everything since the last checkpoint. A line that cannot be read
    /// (the last one, torn by a power cut) was never received for: it is passed over and its number of bytes counted in the result.
    ///
    /// # Errors
    /// When a file cannot be opened or read.
    pub fn open(path: &Path, file_bytes: u64, mut each: impl FnMut(Record)) -> Result<(Self, u64), JournalError> {
        let fault = |source| JournalError { path: path.to_owned(), source };
        let is_new = !path.exists();
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(fault)?;
        if is_new {
            sync_folder(path).map_err(fault)?;
        }
        let files = files(path).map_err(fault)?;
        let mut from = files.len().saturating_sub(1);
        while from > 0 && !begins_with_checkpoint(&files[from]).map_err(fault)? {
            from -= 1;
        }
        let (mut unread, mut is_torn) = (0, false);
        for name in &files[from..] {
            let reader = BufReader::new(File::open(name).map_err(fault)?);
            (unread, is_torn) = read(reader, &mut each).map(|(bytes, torn)| (unread + bytes, torn)).map_err(fault)?;
        }
        let synced = file.metadata().map_err(fault)?.len();
        // A torn line is closed, so that the next one stands by itself.
        let pending = if is_torn { b"\n".to_vec() } else { Vec::new() };
        Ok((Self { path: path.to_owned(), file, synced, pending, is_dirty: false, file_bytes }, unread))
    }

    /// Adds a record; it is on disk after [`Self::sync`].
    pub fn append(&mut self, record: &Record) {
        serde_json::to_writer(&mut self.pending, record).expect("what came out of JSON goes back into memory as JSON");
        self.pending.push(b'\n');
    }

    /// Writes and syncs what was added. Cheap when nothing was.
    ///
    /// # Errors
    /// The disk's answer; what was added stays due.
    pub fn sync(&mut self) -> std::io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.is_dirty {
            self.file.set_len(self.synced)?;
        }
        self.is_dirty = true;
        self.file.write_all(&self.pending)?;
        self.file.sync_data()?;
        self.is_dirty = false;
        self.synced += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// The file has grown enough to be set aside.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.synced >= self.file_bytes
    }

    /// Sets the file aside and begins the next with a checkpoint. Call it after [`Self::sync`].
    ///
    /// # Errors
    /// The disk's answer; the file in use stays in use, or the next one begins without a checkpoint, which costs only time.
    pub fn rotate(&mut self, checkpoint: &Record) -> std::io::Result<()> {
        let aside = set_aside(&self.path).last().and_then(|(number, _)| number.checked_add(1)).unwrap_or(1);
        std::fs::rename(&self.path, numbered(&self.path, aside))?;
        self.file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
        (self.synced, self.is_dirty) = (0, false);
        sync_folder(&self.path)?;
        self.append(checkpoint);
        self.sync()
    }
}

/// The files of a journal, oldest first; the last is the one in use.
///
/// # Errors
/// When the folder cannot be read.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = set_aside(path).into_iter().map(|(_, path)| path).collect();
    if path.exists() {
        files.push(path.to_owned());
    }
    Ok(files)
}

fn set_aside(path: &Path) -> Vec<(u32, PathBuf)> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let number = |entry: &std::fs::DirEntry| {
        entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('.')?.parse::<u32>().ok()
    };
    let entries = std::fs::read_dir(folder(path)).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.filter_map(|entry| Some((number(&entry)?, entry.path()))).collect();
    found.sort_unstable();
    found
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    PathBuf::from(name)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file's name is durable only with its folder.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn begins_with_checkpoint(path: &Path) -> std::io::Result<bool> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    Ok(line.ends_with(b"\n")
        && serde_json::from_slice::<Record>(&line).is_ok_and(|record| matches!(record.what, What::Checkpoint(_))))
}

/// Reads lines; gives the bytes that were no lines, and whether the last one was torn. A whole line of a kind this version does not know
/// is no fault.
fn read(mut reader: impl BufRead, mut each: impl FnMut(Record)) -> std::io::Result<(u64, bool)> {
    let (mut line, mut unread, mut is_torn) = (Vec::new(), 0, false);
    while reader.read_until(b'\n', &mut line)? > 0 {
        match parse(&line) {
            Some(record) => each(record),
            None if line != b"\n" => unread += line.len() as u64,
            None => {}
        }
        is_torn = !line.ends_with(b"\n");
        line.clear();
    }
    Ok((unread, is_torn))
}

fn parse(line: &[u8]) -> Option<Record> {
    #[derive(Deserialize)]
    struct Later {
        gateway: Slug,
        received_at: Timestamp,
    }
    if let Ok(record) = serde_json::from_slice(line) {
        return Some(record);
    }
    let known = [&b"\"event\":"[..], b"\"again\":", b"\"altered\":", b"\"statement\":", b"\"checkpoint\":"];
    let later: Later = serde_json::from_slice(line).ok()?;
    // A damaged line of a known kind must not pass for one of a later version.
    if known.iter().any(|word| line.windows(word.len()).any(|at| at == *word)) {
        return None;
    }
    Some(Record { gateway: later.gateway, received_at: later.received_at, what: What::Unknown })
}

/// Reads a journal's files one record at a time, for `gengfu desk report`.
#[derive(Debug)]
pub struct Reader {
    files: std::vec::IntoIter<PathBuf>,
    now: Option<BufReader<File>>,
    /// Bytes that were no lines.
    pub unread: u64,
}

impl Reader {
    /// Reads this journal from its oldest file.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let fault = |source| JournalError { path: path.to_owned(), source };
        let files = files(path).map_err(fault)?;
        if files.is_empty() {
            return Err(fault(std::io::Error::from(std::io::ErrorKind::NotFound)));
        }
        Ok(Self { files: files.into_iter(), now: None, unread: 0 })
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// The disk's answer.
    pub fn next_record(&mut self) -> std::io::Result<Option<Record>> {
        loop {
            let Some(reader) = &mut self.now else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.now = Some(BufReader::new(File::open(file)?));
                continue;
            };
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line)? == 0 {
                self.now = None;
                continue;
            }
            match parse(&line) {
                Some(record) => return Ok(Some(record)),
                None if line != b"\n" => self.unread += line.len() as u64,
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::DeskModel;
    use super::*;
    use gengfu_contract::testing::{at, chain_of};

    fn records(count: u64) -> Vec<Record> {
        let gateway = Slug::new("g").unwrap();
        let record = |event| Record { gateway: gateway.clone(), received_at: at(1), what: What::Event(event) };
        chain_of(count).into_iter().map(record).collect()
    }

    fn opened(path: &Path) -> (Vec<Line>, u64) {
        let mut seen = Vec::new();
        let (_, unread) = Journal::open(path, FILE_BYTES, |record| seen.extend(record.into_line())).unwrap();
        (seen, unread)
    }

    #[test]
    fn what_was_synced_is_there_after_reopening_and_a_torn_line_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desk.jsonl");
        let records = records(3);
        let lines: Vec<_> = records.iter().filter_map(|record| record.clone().into_line()).collect();
        let (mut journal, _) = Journal::open(&path, FILE_BYTES, |_| panic!("a new journal is empty")).unwrap();
        records[..2].iter().for_each(|record| journal.append(record));
        journal.sync().unwrap();
        drop(journal);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(br#"{"gateway":"g","rec"#).unwrap();
        let mut seen = Vec::new();
        let (mut journal, unread) = Journal::open(&path, FILE_BYTES, |record| seen.extend(record.into_line())).unwrap();
        assert_eq!((seen.as_slice(), unread), (&lines[..2], 19));
        journal.append(&records[2]);
        journal.sync().unwrap();
        assert_eq!(opened(&path).0, lines);
    }

    #[test]
    fn a_write_that_failed_half_way_leaves_no_half_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desk.jsonl");
        let (mut journal, _) = Journal::open(&path, FILE_BYTES, |_| {}).unwrap();
        let records = records(2);
        journal.append(&records[0]);
        journal.sync().unwrap();
        journal.append(&records[1]);
        // What a full disk leaves: a part of the write.
        journal.is_dirty = true;
        journal.file.write_all(&journal.pending[..40]).unwrap();
        journal.sync().unwrap();
        let (lines, unread) = opened(&path);
        assert_eq!((lines.len(), unread), (2, 0));
    }

    #[test]
    fn a_full_file_is_set_aside_and_a_start_reads_the_newest_checkpoint_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desk.jsonl");
        let (mut journal, _) = Journal::open(&path, 1000, |_| {}).unwrap();
        let mut model = DeskModel::new(Slug::new("s").unwrap());
        for record in records(40) {
            model.restore(record.clone());
            journal.append(&record);
            journal.sync().unwrap();
            if journal.is_full() {
                let what = What::Checkpoint(Box::new(model.checkpoint()));
                journal.rotate(&Record { what, ..record }).unwrap();
            }
        }
        drop(journal);
        assert!(files(&path).unwrap().len() > 3);
        let (mut again, mut restored) = (DeskModel::new(Slug::new("s").unwrap()), 0);
        Journal::open(&path, 1000, |record| {
            restored += 1;
            again.restore(record);
        })
        .unwrap();
        assert!(restored < 10, "{restored} lines were read");
        let name = Slug::new("g").unwrap();
        assert_eq!(again.proof(&name), model.proof(&name));
        assert_eq!(again.proof(&name).unwrap().to_string(), "received 1…40, nothing missing, chain ok, 0 duplicates");
        let mut reader = Reader::open(&path).unwrap();
        let mut events = 0;
        while let Some(record) = reader.next_record().unwrap() {
            events += usize::from(matches!(record.what, What::Event(_)));
        }
        assert_eq!((events, reader.unread), (40, 0), "the report reads all of them");
    }

    #[test]
    fn a_line_of_a_later_version_is_passed_over_and_a_damaged_one_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desk.jsonl");
        let later = r#"{"gateway":"g","received_at":"2026-11-22T08:00:00Z","handover":{"to":"x"}}"#;
        let damaged = r#"{"gateway":"g","received_at":"2026-11-22T08:00:00Z","event":{"id":7}}"#;
        std::fs::write(&path, format!("{later}\n{damaged}\n")).unwrap();
        let (lines, unread) = opened(&path);
        assert_eq!((lines.len(), unread), (0, damaged.len() as u64 + 1));
    }

    #[test]
    fn a_journal_that_cannot_be_opened_is_named() {
        let fault = Journal::open(Path::new("/nonexistent/desk.jsonl"), 1, |_| {}).unwrap_err().to_string();
        assert!(fault.contains("/nonexistent/desk.jsonl") && fault.contains("check"), "{fault}");
    }
}
