//! The gateway's outbox: durable, prioritised store-and-forward. A log in front, sled behind it as the index, both power-safe.
//!
//! This crate owns every byte the gateway has promised to deliver: the journal of events, the pending deliveries in
//! their lanes, and the small state that must change in the same instant as they do. It refuses to know what the
//! bytes mean, where they go, or what time it is: ids, bytes and times are given by the caller, who is told `Ok` by
//! [`Batch::commit`] only when the disk has everything. It knows no tokio, no MQTT and no alarm.
//!
//! # What is promised
//!
//! 1. **Durable, then acknowledged.** After [`Batch::commit`] returned `Ok`, a power cut at any later moment loses
//!    nothing of that batch. One sync covers the whole batch (group commit). [`Batch::commit_at_once`] promises the same.
//! 2. **All or nothing.** A batch (events, attachments, state) is found whole after a cut, or not at all.
//! 3. **Durable, then sent.** [`Outbox::take`] never hands out an item whose batch is not yet synced, so a sequence
//!    number seen by the centre is never given to another event.
//! 4. **Gapless and chained.** Event sequences count 1, 2, 3 …; each record can carry the SHA-256 of the one before.
//!    Neither dropping a delivery nor receiving it opens a gap in the journal.
//! 5. **Life safety is never dropped.** [`Lane::Fire`] and [`Lane::Emergency`] have no bound. Every other lane has
//!    one; above it the lane's oldest item that is not in flight is dropped, and the drop is counted for good.
//! 6. **Nothing pretends.** After a failed write or sync the outbox is poisoned and refuses commits until
//!    [`Outbox::recover`] has read back what the disk really holds. What was stored can still be sent meanwhile, as long as
//!    the disk can be read.
//! 7. **Live before backlog,** within a lane; but of one group (one alarm) nothing overtakes what came before it. See
//!    [`Outbox::take`].
//!
//! # What lies on the disk
//!
//! One directory. `log.<number>`: the log, in segments of some 4 MiB. Every commit appends one frame with all its changes and
//! syncs, no more; frames are described in `log.rs`. `conf`, `db`, `snap.*`, an always empty `blobs/`: sled, which holds the index.
//! It follows the log in checkpoints (`store.rs`), so opening reads the log from the last checkpoint on. A checkpoint goes on beside
//! commits where its user gives it a thread ([`Outbox::upkeep`]). Records are not in
//! the index, only the places in the log where they are; a segment is removed when nothing in it is needed, after what little
//! is still needed was copied to the log's end. `gengfu.outbox`: a lock, and a mark that the store was once completely created.
//! Nothing is deployed with format 1, which had everything in sled.
//!
//! Changes are of these keys. Integers are big-endian; `position` is `sequence: u64, sub: u32`. An event has its own sequence and
//! sub 0; an attachment has the sequence of the last event before it, and sub ≥ 1.
//!
//! | key | value |
//! |---|---|
//! | `01` | head: format `u8` = 2, last sequence `u64`, its hash `[32]`, last sub `u32`, oldest kept sequence `u64`, settled records kept `u64`, pending per lane `7 × u64`, dropped per lane `7 × u64`, abandoned per lane `7 × u64` |
//! | `02 lane:u8 position` | pending delivery: time of append, ms `i64`, group `u64` (0 = none). The order of these keys is the order of delivery |
//! | `03 id` | where an id is: lane `u8`, position, outcome `u8` (0 pending, 1 received, 2 dropped, 3 abandoned), attempts `u32`, times sent, broker acknowledged, received `3 × i64` (`i64::MIN` = never), reason of abandoning |
//! | `04 position` | record: kind `u8` (0 event, 1 attachment, 2 settled attachment, its bytes removed), lane `u8`, time of append `i64`, hash of the event before `[32]` (events only), group `u64`, id length `u8`, id, then its bytes. In the index: the place, segment `u32`, offset `u32`, length `u32`, CRC-32 `u32` |
//! | `05 lane:u8 group:u64 position` | nothing; a pending delivery of a group. So the oldest that waits of a group is found without reading others |
//! | `06 key` | state of the caller: `00` and the value, or `01` and its length `u32` when it is in `07` |
//! | `07 len:u16 key chunk:u16` | long state values, in chunks |
//!
//! | `08` | in the index only: the place in the log up to which the index has everything; then for each segment its number `u32`, bytes of records still needed `u64`, highest sequence `u64` |
//!
//! In the index, keys of `02` and `04` with neighbouring sequences share one value (`index.rs`). But for `08`, no value there is longer
//! than 4 KiB: a sled leaf holds at most some twenty values, and a leaf above 128 KiB would be written to a file of its own under
//! `blobs/`, which sled does not sync.
//!
//! # What a power cut may leave, and what becomes of it
//!
//! - A torn frame at the end of the log: it is cut off. It was never acknowledged.
//! - A checkpoint half made: its changes are in the log behind the old mark, and are made again.
//! - A segment half cleaned: what was copied is there twice, which is the same as once.
//! - A whole batch whose `commit` had not returned: it is kept. The caller was not told, so its source sends again and
//!   is recognised by the state written in the same batch.
//! - A receipt not yet on disk ([`Outbox::received`] is not synced by itself): the item is pending again and is sent
//!   twice with the same id.
//! - A half-written `snap.*.generating`: sled 0.34 would take it for a snapshot and refuse to open; it is removed first.
//! - A creation that never finished (no mark in `gengfu.outbox`): nothing can have been acknowledged, what cannot be
//!   opened is put aside and the store is created anew.
//!
//! Everything that was not received is pending again after [`Outbox::open`], as backlog in its old order.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod disk;
mod engine;
mod error;
mod files;
mod flight;
mod index;
mod journal;
mod lane;
mod layout;
mod log;
mod ops;
mod outbox;
mod reader;
mod settle;
pub mod sim;
mod store;
mod take;
mod types;
mod watch;

pub use batch::Batch;
pub use error::OutboxError;
pub use journal::{ChainFault, ChainReport, JournalRecord};
pub use lane::{Bounds, Lane};
pub use layout::{MAX_ID_BYTES, MAX_STATE_KEY_BYTES, MAX_VALUE_BYTES};
pub use outbox::{Options, Outbox, StateEntry};
pub use reader::JournalReader;
pub use sim::SimDisk;
pub use types::{
    Appended, Committed, DroppedItem, Head, Health, Item, ItemKey, LaneStats, Located, Outcome, Position, Receipt,
    ReceivedItem, Stage, Stats, TraceRecord,
};
