//! The journal, page by page, for the command line.
//!
//! Owns the shape of a page and its bounds. Refuses to change or to judge what it reads.

use gengfu_outbox::{Outbox, OutboxError};
use serde::{Deserialize, Serialize};

/// Events in one page at most; at about 2 KiB each a page is well below what a socket carries in the time an answer may take.
pub const PAGE_EVENTS: usize = 500;

/// Some events of the journal, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPage {
    /// Sequence of the last event that exists.
    pub sequence: u64,
    /// SHA-256 of that event, hex.
    pub head: String,
    /// The events; empty when there are none from there on.
    pub events: Vec<JournalEvent>,
}

/// One event as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of the event before it, hex.
    pub prev_hash: String,
    /// Its bytes, as they were hashed.
    pub body: String,
}

/// Up to `limit` events (at most [`PAGE_EVENTS`]) from a sequence on; from the oldest that is kept when that is later.
///
/// # Errors
/// The journal cannot be read.
pub fn page(outbox: &Outbox, from: u64, limit: usize) -> Result<JournalPage, OutboxError> {
    let head = outbox.head();
    let records = outbox.journal(from, limit.min(PAGE_EVENTS))?;
    let events = records.into_iter().filter(|record| record.sequence <= head.sequence).map(|record| JournalEvent {
        sequence: record.sequence,
        prev_hash: hex::encode(record.prev_hash),
        body: String::from_utf8_lossy(&record.bytes).into_owned(),
    });
    Ok(JournalPage { sequence: head.sequence, head: hex::encode(head.hash), events: events.collect() })
}
