//! The two slots of a node's image, and which one runs.
//!
//! Owns the layout of a slot, the record of what is confirmed and what is on trial, and the choice at boot. Refuses cryptography and
//! hardware: flash is an `embedded-storage` part, the record lies in [`Records`], and the caller says whose signature it trusts. The boot
//! loader of a board and the image that it starts compile this same code.
//!
//! ```text
//! slot: | header page: manifest, signature, one mark for each page of the image that is whole | image ... |
//! ```
//! The record is written in turns to two places, each with its checksum, so a power cut while one is written leaves the other. Nothing else
//! decides: a slot being written is never the one that the record names, until the image in it is whole.

use embedded_storage::nor_flash::ReadNorFlash;
use gengfu_wire::update::{BLOCK_BYTES, HEADER_BYTES, split_header};
use gengfu_wire::{GaveUp, Manifest, Slot, Uid, crc32c};
use sha2::{Digest, Sha256};

/// Bytes of one record.
pub const RECORD_BYTES: usize = 32;
/// A trial is started so often; then the old image comes back.
pub const TRIAL_BOOTS: u8 = 3;

const MAGIC: [u8; 4] = *b"GFU1";
const NO_SLOT: u8 = 0xff;
/// Where the marks of whole pages begin in the header page.
const MARKS_AT: u32 = HEADER_BYTES as u32;

/// Where the slots are in the flash, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// First byte of slots A and B: their header pages.
    pub at: [u32; 2],
    /// What one erase erases; a multiple of [`BLOCK_BYTES`] that holds header and marks.
    pub page_bytes: u32,
    /// Pages of an image, without the header page.
    pub image_pages: u32,
}

impl Layout {
    /// Where a slot's header is.
    #[must_use]
    pub fn header_at(&self, slot: Slot) -> u32 {
        self.at[slot.index()]
    }

    /// Where a slot's image is: its vector table.
    #[must_use]
    pub fn image_at(&self, slot: Slot) -> u32 {
        self.header_at(slot) + self.page_bytes
    }

    /// Longest image, in bytes.
    #[must_use]
    pub fn image_bytes_max(&self) -> u32 {
        self.image_pages * self.page_bytes
    }

    /// Where the mark of an image's page is, for a flash that writes `write_bytes` at once.
    pub(crate) fn mark_at(&self, slot: Slot, page: u32, write_bytes: usize) -> u32 {
        self.header_at(slot) + MARKS_AT + page * write_bytes as u32
    }
}

/// Two places of [`RECORD_BYTES`] that keep what is written without power. A write may tear; the places must not share a page.
pub trait Records {
    /// Reads place 0 or 1.
    ///
    /// # Errors
    /// When the part does not answer.
    fn read(&mut self, place: usize) -> Result<[u8; RECORD_BYTES], RecordFault>;

    /// Writes it.
    ///
    /// # Errors
    /// As [`Records::read`].
    fn write(&mut self, place: usize, record: &[u8; RECORD_BYTES]) -> Result<(), RecordFault>;
}

/// The record cannot be read, or does not keep what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFault;

/// An image on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Where it is.
    pub slot: Slot,
    /// How often it may still be started.
    pub boots_left: u8,
}

/// What the boot loader goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub(crate) sequence: u32,
    /// The image that has proved itself.
    pub confirmed: Slot,
    /// The image that is to prove itself.
    pub trial: Option<Trial>,
    /// Images below this are refused.
    pub security: u32,
    /// Why an image was last given up.
    pub gave_up: Option<GaveUp>,
}

impl Default for Record {
    /// Of a node that was flashed and never updated.
    fn default() -> Self {
        Self { sequence: 0, confirmed: Slot::A, trial: None, security: 0, gave_up: None }
    }
}

const REASONS: [GaveUp; 9] = [
    GaveUp::Header,
    GaveUp::Board,
    GaveUp::Node,
    GaveUp::Security,
    GaveUp::Signature,
    GaveUp::Digest,
    GaveUp::Unconfirmed,
    GaveUp::Record,
    GaveUp::Damaged,
];

impl Record {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8] = u8::from(self.confirmed == Slot::B);
        bytes[9] = self.trial.map_or(NO_SLOT, |trial| u8::from(trial.slot == Slot::B));
        bytes[10] = self.trial.map_or(0, |trial| trial.boots_left);
        // 0 is none; the others are numbered from 1.
        let reason = self.gave_up.and_then(|why| REASONS.iter().position(|it| *it == why));
        bytes[11] = reason.map_or(0, |at| at as u8 + 1);
        bytes[12..16].copy_from_slice(&self.security.to_le_bytes());
        let sum = crc32c(&bytes[..RECORD_BYTES - 4]);
        bytes[RECORD_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
        let long = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC || long(RECORD_BYTES - 4) != crc32c(&bytes[..RECORD_BYTES - 4]) {
            return None;
        }
        let slot = |number: u8| if number == 0 { Slot::A } else { Slot::B };
        let trial = (bytes[9] != NO_SLOT).then(|| Trial { slot: slot(bytes[9]), boots_left: bytes[10] });
        let gave_up = usize::from(bytes[11]).checked_sub(1).and_then(|at| REASONS.get(at)).copied();
        Some(Record { sequence: long(4), confirmed: slot(bytes[8]), trial, security: long(12), gave_up })
    }

    /// The latest record; [`Record::default`] of parts that never had one.
    ///
    /// # Errors
    /// [`RecordFault`] when the part does not answer.
    pub fn load(records: &mut impl Records) -> Result<Record, RecordFault> {
        let both = [records.read(0)?, records.read(1)?].map(|bytes| Record::from_bytes(&bytes));
        Ok(both.into_iter().flatten().max_by_key(|record| record.sequence).unwrap_or_default())
    }

    /// Writes it over the older of the two, and reads it back.
    ///
    /// # Errors
    /// [`RecordFault`]; then the record that was the latest still is.
    pub fn store(&mut self, records: &mut impl Records) -> Result<(), RecordFault> {
        let sequences =
            [records.read(0)?, records.read(1)?].map(|bytes| Record::from_bytes(&bytes).map(|it| it.sequence));
        // What is no record, or the older one, gives way.
        let place = usize::from(sequences[0].is_some() && sequences[0] >= sequences[1]);
        let latest = sequences.into_iter().flatten().max().unwrap_or(0);
        let next = Record { sequence: latest.wrapping_add(1), ..*self };
        let bytes = next.to_bytes();
        records.write(place, &bytes)?;
        if records.read(place)? != bytes {
            return Err(RecordFault);
        }
        *self = next;
        Ok(())
    }

    /// The image of this manifest has proved itself.
    pub(crate) fn confirm(&mut self, manifest: &Manifest) {
        self.confirmed = manifest.slot;
        self.trial = None;
        self.gave_up = None;
        self.security =
            if manifest.may_lower_security { manifest.security } else { self.security.max(manifest.security) };
    }
}

/// Who asks, and whom it trusts.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The kind of board.
    pub board: u16,
    /// The node.
    pub uid: Uid,
    /// Whether this manifest bears a trusted signature.
    pub is_trusted: &'a dyn Fn(&[u8; 64], &[u8; 64]) -> bool,
}

/// No slot has an image that may run: the node must be flashed by cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoImage;

/// Which slot to start now (W40, W41). Counts the trial down *before* it is started, so a new image that never comes back is given up.
///
/// A trial runs if its image is right and the record says so durably; else the confirmed image; and if that one is damaged the other,
/// when it is right: an old image is better than a dead node. What had to be given up stands in the record for the image to tell.
///
/// # Errors
/// [`NoImage`].
pub fn choose(
    flash: &mut impl ReadNorFlash,
    records: &mut impl Records,
    layout: &Layout,
    asker: &Asker<'_>,
) -> Result<Slot, NoImage> {
    // A part that does not answer is as one without a record: A is what the factory wrote.
    let mut record = Record::load(records).unwrap_or_default();
    if let Some(trial) = record.trial {
        let verdict = match trial.boots_left.checked_sub(1) {
            None => Err(GaveUp::Unconfirmed),
            Some(boots_left) => examine(flash, layout, trial.slot, asker, record.security).and_then(|_| {
                let mut counted = Record { trial: Some(Trial { boots_left, ..trial }), ..record };
                counted.store(records).map_err(|RecordFault| GaveUp::Record)
            }),
        };
        match verdict {
            Ok(()) => return Ok(trial.slot),
            Err(why) => {
                record.trial = None;
                record.gave_up = Some(why);
                // If it cannot be kept, the same is found out again at the next boot.
                let _ = record.store(records);
            }
        }
    }
    if examine(flash, layout, record.confirmed, asker, 0).is_ok() {
        return Ok(record.confirmed);
    }
    let other = record.confirmed.other();
    examine(flash, layout, other, asker, 0).map_err(|_| NoImage)?;
    record.confirmed = other;
    record.gave_up = Some(GaveUp::Damaged);
    let _ = record.store(records);
    Ok(other)
}

/// The manifest of a slot, if its image may run: right kind, not below `floor`, trusted, and the very image that was signed.
fn examine(
    flash: &mut impl ReadNorFlash,
    layout: &Layout,
    slot: Slot,
    asker: &Asker<'_>,
    floor: u32,
) -> Result<Manifest, GaveUp> {
    let header = read_header(flash, layout, slot).ok_or(GaveUp::Header)?;
    let (bytes, signature) = split_header(&header).ok_or(GaveUp::Header)?;
    let manifest = Manifest::from_bytes(bytes).map_err(|_| GaveUp::Header)?;
    if manifest.slot != slot || manifest.length > layout.image_bytes_max() {
        return Err(GaveUp::Header);
    }
    if manifest.board != asker.board {
        return Err(GaveUp::Board);
    }
    if manifest.only.is_some_and(|only| only != asker.uid) {
        return Err(GaveUp::Node);
    }
    if manifest.security < floor && !manifest.may_lower_security {
        return Err(GaveUp::Security);
    }
    if !(asker.is_trusted)(bytes, signature) {
        return Err(GaveUp::Signature);
    }
    let mut sum = ImageSum::new(&manifest);
    while !sum.is_whole() {
        sum.add(flash, layout).ok_or(GaveUp::Digest)?;
    }
    if sum.matches() { Ok(manifest) } else { Err(GaveUp::Digest) }
}

/// The header of a slot, whatever it is; `None` when the flash cannot be read.
pub(crate) fn read_header(flash: &mut impl ReadNorFlash, layout: &Layout, slot: Slot) -> Option<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    flash.read(layout.header_at(slot), &mut header).ok()?;
    Some(header)
}

/// The manifest of a slot, unchecked: of the image that runs, the boot loader has checked it.
pub fn manifest(flash: &mut impl ReadNorFlash, layout: &Layout, slot: Slot) -> Option<Manifest> {
    let header = read_header(flash, layout, slot)?;
    Manifest::from_bytes(split_header(&header)?.0).ok()
}

/// The digest of an image, in steps: between them a node does its work.
#[derive(Clone)]
pub(crate) struct ImageSum {
    slot: Slot,
    length: u32,
    expected: [u8; 32],
    sha256: Sha256,
    done: u32,
}

impl ImageSum {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let Manifest { slot, length, sha256, .. } = *manifest;
        Self { slot, length, expected: sha256, sha256: Sha256::new(), done: 0 }
    }

    /// One block more; `None` when the flash cannot be read.
    pub(crate) fn add(&mut self, flash: &mut impl ReadNorFlash, layout: &Layout) -> Option<()> {
        let mut block = [0; BLOCK_BYTES];
        flash.read(layout.image_at(self.slot) + self.done, &mut block).ok()?;
        let left = (self.length - self.done).min(BLOCK_BYTES as u32);
        self.sha256.update(&block[..left as usize]);
        self.done += left;
        Some(())
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.done == self.length
    }

    pub(crate) fn matches(self) -> bool {
        self.sha256.finalize()[..] == self.expected
    }
}
