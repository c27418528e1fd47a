//! The desk's own journal: every event it took, one JSON line each, on disk before the receipt goes out.
//!
//! Owns the file and its syncing. A receipt is the word "I have it durably", so without a journal the desk's word is only as good as
//! its memory; for a look at a gateway that is enough. It refuses to be a database: it is read once, at the start.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use gengfu_contract::event::Event;
use gengfu_contract::slug::Slug;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Whose event.
    pub gateway: Slug,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The event.
    pub event: Event,
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    file: File,
    pending: Vec<u8>,
}

/// What is wrong with the journal.
#[derive(Debug, thiserror::Error)]
#[error("the desk's journal {path}: {source}; check that the folder exists and the disk is not full")]
pub struct JournalError {
    path: PathBuf,
    source: std::io::Error,
}

impl Journal {
    /// Opens the journal and gives `each` what it holds. A line that cannot be read (the last one, torn by a power cut) was never
    /// received for: it is passed over and its number of bytes counted in the result.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(path: &Path, mut each: impl FnMut(Line)) -> Result<(Self, usize), JournalError> {
        let fault = |source| JournalError { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(fault)?;
        let mut reader = BufReader::new(file.try_clone().map_err(fault)?);
        let (mut line, mut unread, mut torn) = (Vec::new(), 0, false);
        while reader.read_until(b'\n', &mut line).map_err(fault)? > 0 {
            match serde_json::from_slice(&line) {
                Ok(parsed) => each(parsed),
                Err(_) => unread += line.len(),
            }
            torn = !line.ends_with(b"\n");
            line.clear();
        }
        // A torn line is closed, so that the next one stands by itself.
        let pending = if torn { b"\n".to_vec() } else { Vec::new() };
        Ok((Self { file, pending }, unread))
    }

    /// Adds an event; it is on disk after [`Self::sync`].
    pub fn append(&mut self, line: &Line) {
        serde_json::to_writer(&mut self.pending, line).expect("what came out of JSON goes back into memory as JSON");
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
        self.file.write_all(&self.pending)?;
        self.file.sync_data()?;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, chain_of};
    use super::*;

    #[test]
    fn what_was_synced_is_there_after_reopening_and_a_torn_line_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("desk.jsonl");
        let lines: Vec<_> = chain_of(3)
            .into_iter()
            .map(|event| Line { gateway: Slug::new("g").unwrap(), received_at: at(1), event })
            .collect();
        let (mut journal, _) = Journal::open(&path, |_| panic!("a new journal is empty")).unwrap();
        lines[..2].iter().for_each(|line| journal.append(line));
        journal.sync().unwrap();
        drop(journal);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(br#"{"gateway":"g","rec"#).unwrap();
        let mut seen = Vec::new();
        let (mut journal, unread) = Journal::open(&path, |line| seen.push(line)).unwrap();
        assert_eq!((seen.as_slice(), unread), (&lines[..2], 19));
        journal.append(&lines[2]);
        journal.sync().unwrap();
        seen.clear();
        Journal::open(&path, |line| seen.push(line)).unwrap();
        assert_eq!(seen, lines);
    }

    #[test]
    fn a_journal_that_cannot_be_opened_is_named() {
        let fault = Journal::open(Path::new("/nonexistent/desk.jsonl"), |_| {}).unwrap_err().to_string();
        assert!(fault.contains("/nonexistent/desk.jsonl") && fault.contains("check"), "{fault}");
    }
}
