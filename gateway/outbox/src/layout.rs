//! The bytes on the disk: keys and values as specified at the top of the crate. Owns encoding and decoding; refuses to
//! touch the store. Decoding any bytes gives a value or an error, never a panic.

use crate::{ItemKey, Lane, OutboxError, Outcome};

/// The longest bytes an event, an attachment or a state value may have.
pub const MAX_VALUE_BYTES: usize = 32 * 1024;
/// The longest id.
pub const MAX_ID_BYTES: usize = 128;
/// The longest reason of [`Outbox::abandon`](crate::Outbox::abandon) that is kept; a longer one is cut.
pub(crate) const REASON_BYTES_MAX: usize = 200;
/// The longest key of the caller's state.
pub const MAX_STATE_KEY_BYTES: usize = 256;

/// The longest value of the caller's state handed to sled. A leaf holds at most 16 values before it is split and about 20 after a merge;
/// 20 × (4 KiB + key) stays below the 128 KiB from which sled writes an unsynced blob file.
pub(crate) const CHUNK_BYTES: usize = 4096;
pub(crate) const FORMAT: u8 = 2;
pub(crate) const HEAD_KEY: [u8; 1] = [0x01];
const PENDING: u8 = 0x02;
const ID: u8 = 0x03;
const RECORD: u8 = 0x04;
const GROUP: u8 = 0x05;
const STATE: u8 = 0x06;
const STATE_TAIL: u8 = 0x07;
/// The mark of the last checkpoint. Never in a frame of the log.
pub(crate) const MARK_KEY: [u8; 1] = [0x08];
const NEVER: i64 = i64::MIN;

pub(crate) fn pending_key(key: ItemKey) -> [u8; 14] {
    pending_at(key.lane, key.position())
}

pub(crate) fn pending_at(lane: Lane, (sequence, sub): (u64, u32)) -> [u8; 14] {
    let mut out = [0; 14];
    out[0] = PENDING;
    out[1] = lane as u8;
    out[2..10].copy_from_slice(&sequence.to_be_bytes());
    out[10..].copy_from_slice(&sub.to_be_bytes());
    out
}

pub(crate) fn parse_pending_key(raw: &[u8]) -> Option<ItemKey> {
    let mut reader = Reader(raw);
    if reader.u8()? != PENDING {
        return None;
    }
    let lane = Lane::from_byte(reader.u8()?)?;
    Some(ItemKey { lane, sequence: reader.u64()?, sub: reader.u32()? })
}

/// What stands at a pending key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingRecord {
    pub at_ms: i64,
    /// 0 = none.
    pub group: u64,
}

impl PendingRecord {
    pub fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.at_ms.to_be_bytes());
        out[8..].copy_from_slice(&self.group.to_be_bytes());
        out
    }

    pub fn decode(raw: &[u8]) -> Option<PendingRecord> {
        let mut reader = Reader(raw);
        Some(PendingRecord { at_ms: i64::from_be_bytes(reader.array()?), group: reader.u64()? })
    }
}

/// What all keys of a lane's group begin with.
pub(crate) fn group_prefix(lane: Lane, group: u64) -> [u8; 10] {
    let mut out = [0; 10];
    out[0] = GROUP;
    out[1] = lane as u8;
    out[2..].copy_from_slice(&group.to_be_bytes());
    out
}

pub(crate) fn group_key(key: ItemKey, group: u64) -> [u8; 22] {
    let mut out = [0; 22];
    out[..10].copy_from_slice(&group_prefix(key.lane, group));
    out[10..].copy_from_slice(&pending_key(key)[2..]);
    out
}

pub(crate) fn parse_group_key(raw: &[u8]) -> Option<ItemKey> {
    let mut reader = Reader(raw);
    if reader.u8()? != GROUP {
        return None;
    }
    let lane = Lane::from_byte(reader.u8()?)?;
    reader.u64()?;
    Some(ItemKey { lane, sequence: reader.u64()?, sub: reader.u32()? })
}

pub(crate) fn id_key(id: &str) -> Vec<u8> {
    [&[ID], id.as_bytes()].concat()
}

/// The key of a record: an event or an attachment. Its value is read from the log.
pub(crate) fn record_key((sequence, sub): (u64, u32)) -> [u8; 13] {
    let mut out = [0; 13];
    out[0] = RECORD;
    out[1..9].copy_from_slice(&sequence.to_be_bytes());
    out[9..].copy_from_slice(&sub.to_be_bytes());
    out
}

pub(crate) fn is_record_key(raw: &[u8]) -> bool {
    raw.first() == Some(&RECORD)
}

/// Where in a key of this kind the sequence begins, if it is a kind of which there are long runs.
pub(crate) fn sequence_at(raw: &[u8]) -> Option<usize> {
    match raw.first() {
        Some(&PENDING) => Some(2),
        Some(&RECORD) => Some(1),
        _ => None,
    }
}

/// The position of a record's key.
pub(crate) fn parse_record_key(raw: &[u8]) -> Option<(u64, u32)> {
    let mut reader = Reader(raw);
    if reader.u8()? != RECORD {
        return None;
    }
    Some((reader.u64()?, reader.u32()?))
}

pub(crate) fn record_prefix(sequence: u64) -> [u8; 9] {
    let mut out = [0; 9];
    out[0] = RECORD;
    out[1..].copy_from_slice(&sequence.to_be_bytes());
    out
}

pub(crate) fn state_key(key: &[u8]) -> Vec<u8> {
    [&[STATE], key].concat()
}

pub(crate) fn state_tail_key(key: &[u8], chunk: u16) -> Vec<u8> {
    // Keys are refused above MAX_STATE_KEY_BYTES before they come here, so the cast keeps the length.
    let length = key.len() as u16;
    [&[STATE_TAIL], &length.to_be_bytes()[..], key, &chunk.to_be_bytes()[..]].concat()
}

/// The journal's end and the counters, one small record rewritten in every batch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct HeadRecord {
    pub sequence: u64,
    pub hash: [u8; 32],
    /// The sub of the last attachment after that event; 0 when there is none.
    pub sub: u32,
    /// No record below this sequence is kept, except those that are still pending.
    pub oldest: u64,
    /// Events at or above `oldest` that are received or dropped.
    pub settled: u64,
    pub pending: [u64; 7],
    pub dropped: [u64; 7],
    pub abandoned: [u64; 7],
}

impl HeadRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(240);
        out.push(FORMAT);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.sub.to_be_bytes());
        for number in
            [self.oldest, self.settled].iter().chain(&self.pending).chain(&self.dropped).chain(&self.abandoned)
        {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// `Err(format)` when another version wrote it, `Ok(None)` when it is malformed.
    pub fn decode(raw: &[u8]) -> Result<Option<HeadRecord>, u8> {
        match raw.first() {
            Some(&FORMAT) | None => Ok(Self::decode_body(raw)),
            Some(&other) => Err(other),
        }
    }

    fn decode_body(raw: &[u8]) -> Option<HeadRecord> {
        let mut reader = Reader(raw.get(1..)?);
        let mut head = HeadRecord {
            sequence: reader.u64()?,
            hash: reader.array()?,
            sub: reader.u32()?,
            oldest: reader.u64()?,
            settled: reader.u64()?,
            ..HeadRecord::default()
        };
        for slot in head.pending.iter_mut().chain(&mut head.dropped).chain(&mut head.abandoned) {
            *slot = reader.u64()?;
        }
        Some(head)
    }

    pub fn position(&self) -> (u64, u32) {
        (self.sequence, self.sub)
    }

    pub fn public(&self) -> crate::Head {
        crate::Head { sequence: self.sequence, hash: self.hash }
    }
}

/// Times and tries of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct StageTimes {
    pub attempts: u32,
    pub sent_at_ms: Option<i64>,
    pub broker_acked_at_ms: Option<i64>,
    pub received_at_ms: Option<i64>,
}

/// What is known by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdRecord {
    pub key: ItemKey,
    pub outcome: Outcome,
    pub times: StageTimes,
    /// Why it was abandoned; empty otherwise.
    pub reason: String,
}

impl IdRecord {
    pub fn pending(key: ItemKey) -> IdRecord {
        IdRecord { key, outcome: Outcome::Pending, times: StageTimes::default(), reason: String::new() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(42);
        out.push(self.key.lane as u8);
        out.extend_from_slice(&self.key.sequence.to_be_bytes());
        out.extend_from_slice(&self.key.sub.to_be_bytes());
        out.push(match self.outcome {
            Outcome::Pending => 0,
            Outcome::Received => 1,
            Outcome::Dropped => 2,
            Outcome::Abandoned => 3,
        });
        out.extend_from_slice(&self.times.attempts.to_be_bytes());
        for at in [self.times.sent_at_ms, self.times.broker_acked_at_ms, self.times.received_at_ms] {
            out.extend_from_slice(&at.unwrap_or(NEVER).to_be_bytes());
        }
        out.extend_from_slice(self.reason.as_bytes());
        out
    }

    pub fn decode(raw: &[u8], id: &str) -> Result<IdRecord, OutboxError> {
        Self::parse(raw).ok_or_else(|| OutboxError::Damaged {
            place: format!("the index entry of id {id}"),
            detail: "it does not have the form this program writes",
        })
    }

    fn parse(raw: &[u8]) -> Option<IdRecord> {
        let mut reader = Reader(raw);
        let lane = Lane::from_byte(reader.u8()?)?;
        let key = ItemKey { lane, sequence: reader.u64()?, sub: reader.u32()? };
        let outcome = match reader.u8()? {
            0 => Outcome::Pending,
            1 => Outcome::Received,
            2 => Outcome::Dropped,
            3 => Outcome::Abandoned,
            _ => return None,
        };
        let times = StageTimes {
            attempts: reader.u32()?,
            sent_at_ms: reader.time()?,
            broker_acked_at_ms: reader.time()?,
            received_at_ms: reader.time()?,
        };
        let reason = std::str::from_utf8(reader.0).ok()?.to_owned();
        Some(IdRecord { key, outcome, times, reason })
    }
}

/// What stands before the bytes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub lane: Lane,
    pub at_ms: i64,
    /// `Some` for an event, `None` for an attachment.
    pub prev_hash: Option<[u8; 32]>,
    /// A settled attachment whose bytes are gone.
    pub emptied: bool,
    /// 0 = none.
    pub group: u64,
    pub id: String,
}

impl RecordHeader {
    pub fn encode(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.id.len() + bytes.len());
        out.push(match (self.prev_hash, self.emptied) {
            (Some(_), _) => 0,
            (None, false) => 1,
            (None, true) => 2,
        });
        out.push(self.lane as u8);
        out.extend_from_slice(&self.at_ms.to_be_bytes());
        if let Some(hash) = self.prev_hash {
            out.extend_from_slice(&hash);
        }
        out.extend_from_slice(&self.group.to_be_bytes());
        // Ids are refused above MAX_ID_BYTES, so the cast keeps the length.
        out.push(self.id.len() as u8);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(bytes);
        out
    }

    /// The header, and the bytes.
    pub fn decode(raw: &[u8]) -> Option<(RecordHeader, &[u8])> {
        let mut reader = Reader(raw);
        let kind = reader.u8()?;
        let lane = Lane::from_byte(reader.u8()?)?;
        let at_ms = i64::from_be_bytes(reader.array()?);
        let prev_hash = match kind {
            0 => Some(reader.array()?),
            1 | 2 => None,
            _ => return None,
        };
        let group = reader.u64()?;
        let id_length = usize::from(reader.u8()?);
        let id = std::str::from_utf8(reader.take(id_length)?).ok()?.to_owned();
        Some((RecordHeader { lane, at_ms, prev_hash, emptied: kind == 2, group, id }, reader.0))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Option<Option<i64>> {
        let at = i64::from_be_bytes(self.array()?);
        Some((at != NEVER).then_some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ItemKey = ItemKey { lane: Lane::Care, sequence: 7, sub: 3 };

    #[test]
    fn keys_sort_by_lane_then_position_and_read_back() {
        let keys = [
            ItemKey { lane: Lane::Fire, sequence: 900, sub: 0 },
            ItemKey { lane: Lane::Care, sequence: 7, sub: 0 },
            KEY,
            ItemKey { lane: Lane::Care, sequence: 256, sub: 0 },
        ];
        assert!(keys.is_sorted_by_key(|key| pending_key(*key)));
        for key in keys {
            assert_eq!(parse_pending_key(&pending_key(key)), Some(key));
        }
        assert_eq!(parse_record_key(&record_key((7, 3))), Some((7, 3)));
        assert!(record_key((7, 3)).starts_with(&record_prefix(7)));
        assert_eq!(parse_group_key(&group_key(KEY, 9)), Some(KEY));
        assert!(group_key(KEY, 9).starts_with(&group_prefix(Lane::Care, 9)));
        let pending = PendingRecord { at_ms: -4, group: 9 };
        assert_eq!(PendingRecord::decode(&pending.encode()), Some(pending));
    }

    #[test]
    fn records_read_back_and_any_shorter_prefix_is_refused_without_panic() {
        let head = HeadRecord { sequence: 5, hash: [9; 32], sub: 2, oldest: 1, settled: 3, ..HeadRecord::default() };
        let id = IdRecord {
            key: KEY,
            outcome: Outcome::Received,
            times: StageTimes { attempts: 2, sent_at_ms: Some(-5), broker_acked_at_ms: None, received_at_ms: Some(0) },
            reason: String::new(),
        };
        assert_eq!(HeadRecord::decode(&head.encode()), Ok(Some(head.clone())));
        assert_eq!(IdRecord::parse(&id.encode()), Some(id.clone()));
        assert_eq!(HeadRecord::decode(&[9, 0, 0]), Err(9));
        for cut in 0..head.encode().len() {
            assert_eq!(HeadRecord::decode(&head.encode()[..cut]), Ok(None), "cut at {cut}");
        }
        for cut in 0..id.encode().len() {
            assert_eq!(IdRecord::parse(&id.encode()[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_record_reads_back_and_a_cut_header_is_refused_without_panic() {
        for prev_hash in [Some([3; 32]), None] {
            let id = "x".repeat(MAX_ID_BYTES);
            let header = RecordHeader { lane: Lane::Fire, at_ms: 1, prev_hash, emptied: false, group: 77, id };
            let raw = header.encode(b"bytes");
            assert_eq!(RecordHeader::decode(&raw), Some((header.clone(), &b"bytes"[..])));
            assert_eq!(RecordHeader::decode(&raw[..raw.len() - 5]), Some((header, &b""[..])));
            for cut in 0..raw.len() - 5 {
                assert_eq!(RecordHeader::decode(&raw[..cut]), None, "cut at {cut}");
            }
        }
    }
}
