//! The plain values that cross the crate's border. Owns no behaviour beyond their text forms.

use std::fmt;

use crate::Lane;

/// Names one item for good. Its order is the order of delivery: lane, then order of append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    pub(crate) sub: u32,
}

impl ItemKey {
    /// The lane the item waits in.
    #[must_use]
    pub fn lane(self) -> Lane {
        self.lane
    }

    /// The event's sequence; `None` for an attachment.
    #[must_use]
    pub fn sequence(self) -> Option<u64> {
        (self.sub == 0).then_some(self.sequence)
    }

    pub(crate) fn position(self) -> (u64, u32) {
        (self.sequence, self.sub)
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.lane, self.sequence, self.sub)
    }
}

/// Where the event about to be built will stand in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its sequence, from 1, gapless.
    pub sequence: u64,
    /// SHA-256 of the bytes of the event before it; 32 zero bytes for the first.
    pub prev_hash: [u8; 32],
}

/// An event that was put into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its key.
    pub key: ItemKey,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
}

/// The end of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last event; 0 when there is none.
    pub sequence: u64,
    /// SHA-256 of its bytes; 32 zero bytes when there is none.
    pub hash: [u8; 32],
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The journal's end after it.
    pub head: Head,
    /// Items that were dropped to keep their lane within its bound, oldest first.
    pub dropped: Vec<DroppedItem>,
}

/// An item dropped because its lane was full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedItem {
    /// Its key.
    pub key: ItemKey,
    /// Its id.
    pub id: String,
}

/// An item handed out for delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its key, for [`Outbox::mark`](crate::Outbox::mark) and [`Outbox::release`](crate::Outbox::release).
    pub key: ItemKey,
    /// Its lane.
    pub lane: Lane,
    /// Its id, which the centre's receipt will name.
    pub id: String,
    /// The event's sequence; `None` for an attachment.
    pub sequence: Option<u64>,
    /// When it was appended, ms since the Unix epoch as the caller gave it.
    pub appended_at_ms: i64,
    /// The bytes as they were appended.
    pub bytes: Vec<u8>,
    /// How often it was taken since the outbox was opened, this time included.
    pub attempts: u32,
    /// It was appended before the last [`Outbox::mark_backlog`](crate::Outbox::mark_backlog), or before the outbox was opened.
    pub is_backlog: bool,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits or is in flight.
    Pending,
    /// The centre's receipt came.
    Received,
    /// Its lane was full and it was the oldest. The journal record remains.
    Dropped,
    /// It can never be sent ([`Outbox::abandon`](crate::Outbox::abandon)). The journal record remains.
    Abandoned,
}

/// Where an id was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its key.
    pub key: ItemKey,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a receipt met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The item was pending and is now received.
    First(ItemKey),
    /// It was received before; nothing changed.
    Repeated(ItemKey),
    /// It had been dropped at its lane's bound or abandoned, but a copy sent earlier did arrive; nothing changed.
    AfterDrop(ItemKey),
    /// No such id: never stored, or settled so long ago that its record was pruned.
    Unknown,
}

/// The answer for one id of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedItem {
    /// The id as it was given.
    pub id: String,
    /// What it met.
    pub receipt: Receipt,
}

/// A stage of delivery whose time is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Handed to the connection.
    Sent,
    /// The broker's PUBACK came.
    BrokerAcked,
}

/// The journey of one item, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRecord {
    /// Its key.
    pub key: ItemKey,
    /// The event's sequence; `None` for an attachment.
    pub sequence: Option<u64>,
    /// Its lane.
    pub lane: Lane,
    /// What became of it.
    pub outcome: Outcome,
    /// When it was appended, ms.
    pub appended_at_ms: i64,
    /// When it was last handed to the connection, ms. Of a pending item: since the outbox was opened.
    pub sent_at_ms: Option<i64>,
    /// When the broker last acknowledged it, ms. Of a pending item: since the outbox was opened.
    pub broker_acked_at_ms: Option<i64>,
    /// When the centre's receipt came, or when it was abandoned, ms.
    pub received_at_ms: Option<i64>,
    /// Why it was abandoned.
    pub abandoned_because: Option<String>,
    /// How often it was taken since the outbox was opened, or until it was received.
    pub attempts: u32,
    /// Its bytes; empty for an attachment that is settled.
    pub bytes: Vec<u8>,
}

/// One lane's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStats {
    /// The lane.
    pub lane: Lane,
    /// Items not yet received, those in flight included.
    pub pending: u64,
    /// Items taken and neither received nor released.
    pub in_flight: u64,
    /// When the oldest pending item was appended, ms.
    pub oldest_appended_at_ms: Option<i64>,
    /// Items dropped at the bound since the store was created.
    pub dropped: u64,
    /// Items abandoned because they can never be sent, since the store was created.
    pub abandoned: u64,
}

/// The outbox in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// One entry per lane, in order of delivery.
    pub lanes: [LaneStats; 7],
    /// The end of the durable journal.
    pub head: Head,
    /// The oldest sequence of the unbroken journal still kept; `head.sequence + 1` when it is empty.
    pub oldest_kept_sequence: u64,
    /// Pending items that cannot be read (a damaged disk). They are not handed out again.
    pub damaged: u64,
    /// Whether it still takes commits.
    pub health: Health,
}

/// Whether the outbox still takes commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All well.
    Ok,
    /// The disk has not finished a flush since so many milliseconds; the commit still waits.
    Stalled {
        /// How long so far.
        waited_ms: u64,
    },
    /// A write or sync failed; [`Outbox::recover`](crate::Outbox::recover) is needed.
    Poisoned {
        /// The first failure.
        reason: String,
    },
}
