//! What node and gateway say to each other while a node's firmware is replaced, and the signed words on an image.
//!
//! Owns the messages of an update and the bytes of a manifest: which image, for which board and slot, of which length, digest and security
//! version. Refuses cryptography and flash: who signs and who verifies is the gateway's and the boot loader's; where the bytes go is the
//! board's. A manifest with its signature is an image's [`HEADER_BYTES`]; it stands before the image in its slot and in a bundle.
//!
//! ```text
//! 0  "GFFW"   4 format 1   5 slot (0 A, 1 B)   6 board u16   8 version 3 x u16   14 flags u16 (bit 0: may lower the security version)
//! 16 security version u32   20 length u32   24 unique id of the only node, or zeros for every node   32 SHA-256 of the image   64
//! ```
//! Numbers are little-endian. The signature is Ed25519 (RFC 8032) over these 64 bytes and stands behind them.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::message::{FirmwareVersion, Uid};

/// Bytes of a manifest.
pub const MANIFEST_BYTES: usize = 64;
/// Bytes of its signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes before an image: manifest and signature.
pub const HEADER_BYTES: usize = MANIFEST_BYTES + SIGNATURE_BYTES;
/// Bytes of an image that travel in one block. Divides every page of flash, and keeps the node's stack small.
pub const BLOCK_BYTES: usize = 128;
/// Longest image: what no node of this kind exceeds, so that a broken length is seen.
pub const IMAGE_BYTES_MAX: u32 = 1 << 20;

const MAGIC: [u8; 4] = *b"GFFW";
const FORMAT: u8 = 1;
const MAY_LOWER_SECURITY: u16 = 1;

/// Manifest and signature, as they travel.
pub type HeaderBytes = heapless::Vec<u8, HEADER_BYTES>;
/// Bytes of an image, as they travel.
pub type BlockBytes = heapless::Vec<u8, BLOCK_BYTES>;

/// One of the two places of an image. An image is linked for its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const BOTH: [Slot; 2] = [Slot::A, Slot::B];

    /// The one that this is not.
    #[must_use]
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// 0 for A, 1 for B.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Slot::A => 0,
            Slot::B => 1,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Slot::A { "A" } else { "B" })
    }
}

/// What is said about an image, and signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// The place it is linked for.
    pub slot: Slot,
    /// The kind of board it is for.
    pub board: u16,
    /// Its version.
    pub version: FirmwareVersion,
    /// Rises when an older image must never run again. A node refuses what is below the highest it has confirmed.
    pub security: u32,
    /// Whether it may run below that, and lower it. Only for the node that `only` names.
    pub may_lower_security: bool,
    /// The one node it is for; `None` for every node of the board.
    pub only: Option<Uid>,
    /// Bytes of the image.
    pub length: u32,
    /// SHA-256 of the image.
    pub sha256: [u8; 32],
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not its first bytes: erased flash, or another file.
    #[error("byte 0: no manifest, expected \"GFFW\"")]
    Magic,
    /// Of a later kind.
    #[error("byte 4: format {got}, expected {FORMAT}; update this side")]
    Format {
        /// The format.
        got: u8,
    },
    /// Neither A nor B.
    #[error("byte 5: slot {got}, expected 0 or 1")]
    Slot {
        /// The number.
        got: u8,
    },
    /// A flag that this side does not know, or a lowering for every node.
    #[error("byte 14: flags {got:#06x}, expected 0, or 1 with the unique id of a node")]
    Flags {
        /// The flags.
        got: u16,
    },
    /// No image has this length.
    #[error("byte 20: {got} bytes of image, expected 1 to {IMAGE_BYTES_MAX}")]
    Length {
        /// The length.
        got: u32,
    },
}

impl Manifest {
    /// The bytes that are signed.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; MANIFEST_BYTES] {
        let mut bytes = [0; MANIFEST_BYTES];
        let flags = if self.may_lower_security { MAY_LOWER_SECURITY } else { 0 };
        let FirmwareVersion { major, minor, patch } = self.version;
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT;
        bytes[5] = u8::from(self.slot == Slot::B);
        for (at, number) in [(6, self.board), (8, major), (10, minor), (12, patch), (14, flags)] {
            bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        bytes[16..20].copy_from_slice(&self.security.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.only.map_or([0; 8], |uid| uid.0));
        bytes[32..].copy_from_slice(&self.sha256);
        bytes
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`ManifestError`], which names the byte and what was expected there.
    pub fn from_bytes(bytes: &[u8; MANIFEST_BYTES]) -> Result<Manifest, ManifestError> {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC {
            return Err(ManifestError::Magic);
        }
        if bytes[4] != FORMAT {
            return Err(ManifestError::Format { got: bytes[4] });
        }
        let slot = match bytes[5] {
            0 => Slot::A,
            1 => Slot::B,
            got => return Err(ManifestError::Slot { got }),
        };
        let mut only = [0; 8];
        only.copy_from_slice(&bytes[24..32]);
        let only = (only != [0; 8]).then_some(Uid(only));
        let flags = short(14);
        if flags > MAY_LOWER_SECURITY || (flags == MAY_LOWER_SECURITY && only.is_none()) {
            return Err(ManifestError::Flags { got: flags });
        }
        let length = long(20);
        if length == 0 || length > IMAGE_BYTES_MAX {
            return Err(ManifestError::Length { got: length });
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&bytes[32..]);
        let version = FirmwareVersion { major: short(8), minor: short(10), patch: short(12) };
        let may_lower_security = flags == MAY_LOWER_SECURITY;
        Ok(Manifest { slot, board: short(6), version, security: long(16), may_lower_security, only, length, sha256 })
    }
}

/// Manifest and signature of a header; `None` when it has not [`HEADER_BYTES`].
#[must_use]
pub fn split_header(header: &[u8]) -> Option<(&[u8; MANIFEST_BYTES], &[u8; SIGNATURE_BYTES])> {
    let (manifest, signature) = header.split_first_chunk::<MANIFEST_BYTES>()?;
    Some((manifest, signature.try_into().ok()?))
}

/// Most keys that a node trusts.
pub const KEYS_MAX: usize = 4;
/// Bytes of the page of trusted keys: `"GFKY"`, their number as u32, [`KEYS_MAX`] keys of 32 bytes, CRC-32C of all before it.
pub const KEY_PAGE_BYTES: usize = 8 + 32 * KEYS_MAX + 4;
const KEY_MAGIC: [u8; 4] = *b"GFKY";

/// The page of trusted keys, to be flashed once beside the boot loader. `None` for no key, or more than [`KEYS_MAX`].
#[must_use]
pub fn key_page(keys: &[[u8; 32]]) -> Option<[u8; KEY_PAGE_BYTES]> {
    let mut page = [0; KEY_PAGE_BYTES];
    page[..4].copy_from_slice(&KEY_MAGIC);
    let count = u32::try_from(keys.len()).ok().filter(|_| (1..=KEYS_MAX).contains(&keys.len()))?;
    page[4..8].copy_from_slice(&count.to_le_bytes());
    for (place, key) in page[8..].chunks_exact_mut(32).zip(keys) {
        place.copy_from_slice(key);
    }
    let sum = crate::crc32c(&page[..KEY_PAGE_BYTES - 4]);
    page[KEY_PAGE_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
    Some(page)
}

/// The keys of a page; none when it is erased or broken.
pub fn keys_in(page: &[u8; KEY_PAGE_BYTES]) -> impl Iterator<Item = &[u8; 32]> {
    let (covered, sum) = page.split_at(KEY_PAGE_BYTES - 4);
    let is_sound = covered[..4] == KEY_MAGIC && crate::crc32c(covered).to_le_bytes() == sum;
    let count = if is_sound { usize::from(covered[4]) } else { 0 };
    covered[8..].as_chunks::<32>().0.iter().take(count)
}

/// I want to give you this image. Answered by an [`UpdateReport`]: from which offset on, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateBegin {
    /// Manifest and signature, [`HEADER_BYTES`].
    pub header: HeaderBytes,
}

impl UpdateBegin {
    /// The number of this transfer: the CRC-32C of its header. It tells blocks of two transfers apart and proves nothing.
    #[must_use]
    pub fn transfer(&self) -> u32 {
        crate::crc32c(&self.header)
    }
}

/// A part of the image. Answered by an [`UpdateReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateBlock {
    /// See [`UpdateBegin::transfer`].
    pub transfer: u32,
    /// Where it stands in the image, in bytes: a multiple of [`BLOCK_BYTES`].
    pub offset: u32,
    /// [`BLOCK_BYTES`], or what is left at the end.
    pub data: BlockBytes,
}

/// Restart and try the image that you have whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateTry {
    /// See [`UpdateBegin::transfer`].
    pub transfer: u32,
}

/// What a node runs. Answer to [`crate::Downlink::UpdateQuery`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateInfo {
    /// This run of the node.
    pub boot: u32,
    /// Its kind of board.
    pub board: u16,
    /// The slot it runs from; a new image must be for the other.
    pub running: Slot,
    /// Whether the running image is on trial: it has not yet been confirmed.
    pub is_trial: bool,
    /// Images below this security version are refused.
    pub security: u32,
    /// Longest image that fits, in bytes.
    pub image_bytes_max: u32,
    /// Why the boot loader last gave up an image, until the next is tried.
    pub gave_up: Option<GaveUp>,
}

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// This run of the node.
    pub boot: u32,
    /// The transfer that is meant.
    pub transfer: u32,
    /// How it stands.
    pub state: UpdateState,
}

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Send the block at this offset.
    Wants {
        /// In bytes.
        offset: u32,
    },
    /// Everything is here; its digest is being computed.
    Checks,
    /// Everything is here and its digest is right: it may be tried.
    Whole,
    /// The node restarts now with the new image.
    Restarts,
    /// Not now, or not at all; see the reason.
    Refused(UpdateRefusal),
}

/// Why a node refuses. Nothing was changed by what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateRefusal {
    /// The header is none.
    Header,
    /// For another kind of board.
    Board,
    /// For the slot that runs.
    Slot,
    /// For another node.
    Node,
    /// It does not fit.
    Length,
    /// Below the security version that this node has confirmed.
    Security,
    /// The running image is itself on trial; wait for its confirmation.
    Trial,
    /// An alarm stands, or a call for help is not yet acknowledged.
    Alarm,
    /// The battery is low.
    Battery,
    /// Events wait for their Ack; a restart would lose them.
    Unsent,
    /// No transfer of this number: begin first.
    Unknown,
    /// All bytes came and their digest is wrong; begin again.
    Digest,
    /// The flash does not keep what is written.
    Flash,
    /// The memory of what to boot does not keep what is written.
    Record,
}

impl UpdateRefusal {
    /// Whether the same request may succeed later without anybody doing anything.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, UpdateRefusal::Trial | UpdateRefusal::Alarm | UpdateRefusal::Battery | UpdateRefusal::Unsent)
    }
}

/// Why a boot loader gave up an image and runs the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GaveUp {
    /// No manifest stands before it, or it is for another slot or too long.
    Header,
    /// For another kind of board.
    Board,
    /// For another node.
    Node,
    /// Below the confirmed security version.
    Security,
    /// The signature is not of a key that this node trusts.
    Signature,
    /// The image is not the one that was signed.
    Digest,
    /// It was started as often as a trial may be, and never confirmed itself.
    Unconfirmed,
    /// The record of the trial could not be written; so it was not begun.
    Record,
    /// The confirmed image itself is damaged; the older one runs.
    Damaged,
}
