//! The journal read from the files alone: of a gateway that is stopped, of a copy of its directory, or beside one that runs.
//! Owns walking the log without the index; refuses to write, lock or repair anything, so evidence stays as it was found. What a
//! commit has not finished yet is not shown; what is not part of the kept journal any more neither.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{
    Head, JournalRecord, OutboxError,
    files::Files,
    layout::{HEAD_KEY, HeadRecord, RecordHeader, parse_record_key},
    log::{Frame, Frames, Place},
    ops::entries,
};

/// An outbox's journal, opened for reading only.
pub struct JournalReader {
    path: PathBuf,
    files: Files,
    segments: Vec<u32>,
    head: HeadRecord,
}

impl JournalReader {
    /// Looks up the journal's end in the outbox's directory. Reads one segment of the log, some MiB; changes nothing.
    ///
    /// # Errors
    /// There is no outbox of this format, or it cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<JournalReader, OutboxError> {
        let path = path.into();
        let files = Files::directory(&path);
        let segments = files.segments()?;
        if segments.is_empty() {
            return Err(no_log(&path));
        }
        let mut head = None;
        for segment in segments.iter().rev() {
            let mut frames = Frames::from(&files, Place { segment: *segment, offset: 0 })?;
            while let Some(frame) = frames.next_frame() {
                head = head_in(&frame, &path)?.or(head);
            }
            if head.is_some() {
                break;
            }
        }
        Ok(JournalReader { path, files, segments, head: head.unwrap_or_default() })
    }

    /// The journal's end when it was opened.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head.public()
    }

    /// The first sequence of the kept journal; `head().sequence + 1` when it is empty.
    #[must_use]
    pub fn oldest_sequence(&self) -> u64 {
        self.head.oldest.max(1)
    }

    /// The events of the kept journal, in order, one segment in memory at a time. A sequence that is not there is not made
    /// up: the gap shows in the sequences. A part of the log that cannot be read is one error, after which the records
    /// behind it follow.
    pub fn records(&self) -> impl Iterator<Item = Result<JournalRecord, OutboxError>> + '_ {
        let mut expected = self.oldest_sequence();
        let last = self.head.sequence;
        self.segments.iter().enumerate().flat_map(move |(index, segment)| {
            let is_last = index + 1 == self.segments.len();
            let mut found = self.segment(*segment, is_last);
            // Copies of old records stand further behind; the kept journal itself is in order.
            found.retain(|record| match record {
                Ok(record) if (expected..=last).contains(&record.sequence) => {
                    expected = record.sequence + 1;
                    true
                }
                Ok(_) => false,
                Err(_) => true,
            });
            found
        })
    }

    fn segment(&self, segment: u32, is_last: bool) -> Vec<Result<JournalRecord, OutboxError>> {
        let mut frames = match Frames::from(&self.files, Place { segment, offset: 0 }) {
            Ok(frames) => frames,
            Err(fault) => return vec![Err(fault)],
        };
        let mut found = Vec::new();
        while let Some(frame) = frames.next_frame() {
            found.extend(entries(&frame.changes).flatten().filter_map(|(key, value)| {
                let (sequence, 0) = parse_record_key(key)? else { return None };
                Some(Ok(record(sequence, value?.1)?))
            }));
        }
        // The end of the last segment may be a commit under way, or one that a power cut ended.
        if !frames.is_at_end() && !is_last {
            found.push(Err(OutboxError::Damaged {
                place: format!(
                    "{}, offset {}",
                    self.path.join(format!("log.{segment:08}")).display(),
                    frames.place().offset
                ),
                detail: "the log cannot be read from there to the end of this file",
            }));
        }
        found
    }
}

fn record(sequence: u64, raw: &[u8]) -> Option<JournalRecord> {
    let (header, bytes) = RecordHeader::decode(raw)?;
    Some(JournalRecord {
        sequence,
        hash: Sha256::digest(bytes).into(),
        prev_hash: header.prev_hash?,
        lane: header.lane,
        id: header.id,
        appended_at_ms: header.at_ms,
        bytes: bytes.to_vec(),
    })
}

fn head_in(frame: &Frame, path: &Path) -> Result<Option<HeadRecord>, OutboxError> {
    let raw = entries(&frame.changes).flatten().find(|(key, _)| *key == HEAD_KEY).and_then(|(_, value)| value);
    let Some((_, raw)) = raw else { return Ok(None) };
    HeadRecord::decode(raw).map_err(|found| OutboxError::UnknownFormat { path: path.to_owned(), found })
}

fn no_log(path: &Path) -> OutboxError {
    let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no outbox of this version is there");
    OutboxError::Io { doing: "read the journal in", path: path.to_owned(), source }
}
