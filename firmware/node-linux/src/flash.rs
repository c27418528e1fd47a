//! A node's slots in a file: the flash and the record of a microcontroller, for a node that is a process.
//!
//! Owns the file's layout, a flash that erases to ones and writes only zeros, and the part of the boot loader: at each boot of the node it asks
//! `gengfu_node::slots::choose` which image runs. Refuses to execute an image: this process plays whatever image is chosen, and tells its signed
//! version. An empty file is a node as it left the factory: slot A, the process's own version.
//!
//! ```text
//! 0 record, 32 bytes | 32 record | 4096 slot A, 49 pages of 1 KiB | slot B | end
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_compact::{PublicKey, Signature};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use gengfu_node::slots::{Asker, Layout, RECORD_BYTES, RecordFault, Records, choose, manifest};
use gengfu_node::update::{Place, Step};
use gengfu_node::{Board, Node, Updater};
use gengfu_wire::Slot;

/// This kind of board, as in a manifest. Numbers of boards: docs/firmware.md.
pub const BOARD: u16 = 2;
/// Where the slots are in the file.
pub const LAYOUT: Layout = Layout { at: [4_096, 4_096 + 49 * 1_024], page_bytes: 1_024, image_pages: 48 };
/// Bytes of the file.
const FILE_BYTES: u64 = 4_096 + 2 * 49 * 1_024;

/// A node's slots: where they are kept, and whose images run.
#[derive(Debug, Clone)]
pub struct Slots {
    /// The file; made when it is not there.
    pub file: PathBuf,
    /// Ed25519 keys of those whose images this node runs.
    pub trusted: Vec<[u8; 32]>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("use {path} as the node's flash: {why}; it must be a file of this program's, or not be there")]
pub struct FlashError {
    /// The file.
    pub path: PathBuf,
    /// What came back.
    pub why: io::Error,
}

/// The file; clones share it.
#[derive(Debug, Clone)]
pub struct FileFlash(Arc<File>);

/// The file could not be read or written, or not there.
#[derive(Debug)]
pub struct FileFault(NorFlashErrorKind);

impl NorFlashError for FileFault {
    fn kind(&self) -> NorFlashErrorKind {
        self.0
    }
}

impl From<io::Error> for FileFault {
    fn from(_: io::Error) -> Self {
        Self(NorFlashErrorKind::Other)
    }
}

impl FileFlash {
    /// Opens the file, or makes an erased one.
    ///
    /// # Errors
    /// [`FlashError`].
    pub fn open(path: &Path) -> Result<Self, FlashError> {
        let open = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            match file.metadata()?.len() {
                0 => file.write_all_at(&vec![0xff; usize::try_from(FILE_BYTES).unwrap_or(usize::MAX)], 0)?,
                FILE_BYTES => {}
                other => return Err(io::Error::other(format!("it has {other} bytes, expected {FILE_BYTES}"))),
            }
            Ok(file)
        };
        open().map(|file| Self(Arc::new(file))).map_err(|why| FlashError { path: path.to_owned(), why })
    }

    fn check(&self, from: u32, to: u32, unit: usize) -> Result<(), FileFault> {
        let unit = unit as u32;
        if !from.is_multiple_of(unit) || !to.is_multiple_of(unit) {
            return Err(FileFault(NorFlashErrorKind::NotAligned));
        }
        let is_inside = from >= LAYOUT.at[0] && u64::from(to) <= FILE_BYTES && from <= to;
        if is_inside { Ok(()) } else { Err(FileFault(NorFlashErrorKind::OutOfBounds)) }
    }
}

impl ErrorType for FileFlash {
    type Error = FileFault;
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FileFault> {
        Ok(self.0.read_exact_at(bytes, offset.into())?)
    }

    fn capacity(&self) -> usize {
        usize::try_from(FILE_BYTES).unwrap_or(usize::MAX)
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 1_024;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FileFault> {
        self.check(from, to, Self::ERASE_SIZE)?;
        Ok(self.0.write_all_at(&vec![0xff; (to - from) as usize], from.into())?)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FileFault> {
        let length = u32::try_from(bytes.len()).map_err(|_| FileFault(NorFlashErrorKind::OutOfBounds))?;
        self.check(offset, offset.saturating_add(length), Self::WRITE_SIZE)?;
        let mut there = vec![0; bytes.len()];
        ReadNorFlash::read(self, offset, &mut there)?;
        // As in a flash: what was not erased before keeps its zeros.
        let kept: Vec<u8> = there.iter().zip(bytes).map(|(there, new)| there & new).collect();
        Ok(self.0.write_all_at(&kept, offset.into())?)
    }
}

impl Records for FileFlash {
    fn read(&mut self, place: usize) -> Result<[u8; RECORD_BYTES], RecordFault> {
        let mut record = [0; RECORD_BYTES];
        let at = (place * RECORD_BYTES) as u64;
        self.0.read_exact_at(&mut record, at).map(|()| record).map_err(|_| RecordFault)
    }

    fn write(&mut self, place: usize, record: &[u8; RECORD_BYTES]) -> Result<(), RecordFault> {
        let at = (place * RECORD_BYTES) as u64;
        self.0.write_all_at(record, at).and_then(|()| self.0.sync_data()).map_err(|_| RecordFault)
    }
}

/// The slots of one boot.
pub(crate) struct Update {
    updater: Updater<FileFlash, FileFlash>,
    pub(crate) running: Slot,
}

impl Update {
    /// Does what a boot loader does, and gives the node the version of the image that it chose.
    ///
    /// # Errors
    /// [`FlashError`].
    pub(crate) fn boot<B: Board, const SENSORS: usize>(
        slots: &Slots,
        node: &mut Node<B, SENSORS>,
    ) -> Result<Self, FlashError> {
        let identity = *node.identity();
        let mut flash = FileFlash::open(&slots.file)?;
        let is_trusted = |manifest: &[u8; 64], signature: &[u8; 64]| {
            let is_of = |key: &[u8; 32]| PublicKey::new(*key).verify(manifest, &Signature::new(*signature)).is_ok();
            slots.trusted.iter().any(is_of)
        };
        let asker = Asker { board: BOARD, uid: identity.uid, is_trusted: &is_trusted };
        let mut records = flash.clone();
        let chosen = choose(&mut flash, &mut records, &LAYOUT, &asker);
        // No image at all: the factory's, which is this process.
        let running = chosen.unwrap_or(Slot::A);
        if let (Ok(_), Some(manifest)) = (chosen, manifest(&mut flash, &LAYOUT, running)) {
            node.set_firmware(manifest.version);
        }
        node.update_seam().serve();
        let place = Place { board: BOARD, uid: identity.uid, boot: identity.boot, running, layout: LAYOUT };
        Ok(Self { updater: Updater::new(flash, records, place), running })
    }

    pub(crate) fn is_trial(&self) -> bool {
        self.updater.is_trial()
    }

    /// To be called in each round, between the bytes and the node's poll.
    pub(crate) fn run<B: Board, const SENSORS: usize>(&mut self, now_ms: u64, node: &mut Node<B, SENSORS>) -> Step {
        let situation = node.situation();
        self.updater.run(now_ms, node.update_seam(), situation)
    }
}
