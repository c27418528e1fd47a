//! Reading the journal back: export and verification of the hash chain. Owns what counts as a fault of the chain;
//! refuses to repair anything.

use sha2::{Digest, Sha256};

use crate::{Lane, Outbox, OutboxError, settle::read_record};

/// One event as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
    /// SHA-256 of the bytes of the event before it, as it was when this one was built.
    pub prev_hash: [u8; 32],
    /// Its lane.
    pub lane: Lane,
    /// Its id.
    pub id: String,
    /// When it was appended, ms.
    pub appended_at_ms: i64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a walk over the kept journal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// The first sequence that was expected.
    pub first_sequence: u64,
    /// The last sequence that was expected: the head's.
    pub last_sequence: u64,
    /// How many records were read and fit.
    pub records: u64,
    /// What does not fit, in order; empty when the chain holds.
    pub faults: Vec<ChainFault>,
}

/// A place where the chain does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// There is no readable record with this sequence.
    Missing {
        /// The sequence.
        sequence: u64,
    },
    /// The record's bytes do not have the hash that the next record, or the head, has of it.
    Changed {
        /// The sequence.
        sequence: u64,
    },
}

impl Outbox {
    /// Up to `limit` events of the kept, durable journal from a sequence on, in order. Records that cannot be read
    /// are left out: the gap shows in the sequences, and [`Outbox::verify`] names it.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn journal(&self, from_sequence: u64, limit: usize) -> Result<Vec<JournalRecord>, OutboxError> {
        let (oldest, last) = self.kept();
        let mut records = Vec::new();
        for sequence in from_sequence.max(oldest)..=last {
            if records.len() >= limit {
                break;
            }
            match self.journal_record(sequence) {
                Ok(record) => records.extend(record),
                Err(OutboxError::Damaged { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(records)
    }

    /// Walks the kept journal and checks that no sequence is missing and that every record has the hash its successor
    /// (the last one: the head) has of it. The first kept record's predecessor is gone; its `prev_hash` is taken as
    /// given. Reads one record at a time.
    ///
    /// # Errors
    /// The store cannot be read at all. What does not fit is reported, not an error.
    pub fn verify(&self) -> Result<ChainReport, OutboxError> {
        let head = self.head();
        let (first, last) = self.kept();
        let mut report = ChainReport { first_sequence: first, last_sequence: last, records: 0, faults: Vec::new() };
        let mut before: Option<[u8; 32]> = None;
        for sequence in first..=last {
            let record = match self.journal_record(sequence) {
                Ok(Some(record)) => record,
                missing => {
                    before = None;
                    // Pruned while we walk: the chain begins later by now.
                    match missing {
                        Ok(_) if sequence >= self.kept().0 => report.faults.push(ChainFault::Missing { sequence }),
                        Err(OutboxError::Damaged { .. }) => {
                            // Read, but not fit: taken back with the others below.
                            report.records += 1;
                            report.faults.push(ChainFault::Changed { sequence });
                        }
                        Err(other) => return Err(other),
                        Ok(_) => {}
                    }
                    continue;
                }
            };
            report.records += 1;
            if before.is_some_and(|hash| hash != record.prev_hash) {
                report.faults.push(ChainFault::Changed { sequence: sequence - 1 });
            }
            before = Some(record.hash);
        }
        // The head was read before the range, so a later commit may have moved the end; then it is not comparable.
        if last == head.sequence && before.is_some_and(|hash| hash != head.hash) {
            report.faults.push(ChainFault::Changed { sequence: last });
        }
        report.records -=
            report.faults.iter().filter(|fault| matches!(fault, ChainFault::Changed { .. })).count() as u64;
        Ok(report)
    }

    /// First and last sequence of the unbroken journal kept; empty when first > last.
    fn kept(&self) -> (u64, u64) {
        let flight = self.inner().flight();
        (flight.head.oldest.max(1), flight.head.sequence)
    }

    fn journal_record(&self, sequence: u64) -> Result<Option<JournalRecord>, OutboxError> {
        let read = self.inner().read("read the journal", |store| read_record(store, (sequence, 0)))?;
        let Some((header, bytes)) = read else { return Ok(None) };
        Ok(header.prev_hash.map(|prev_hash| JournalRecord {
            sequence,
            hash: Sha256::digest(&bytes).into(),
            prev_hash,
            lane: header.lane,
            id: header.id,
            appended_at_ms: header.at_ms,
            bytes,
        }))
    }
}
