//! A disk that can lose power: ext4 in an image file on a loop device. It owns the image, its mount and the
//! cut. The cut is ext4's own shutdown (`EXT4_IOC_SHUTDOWN` without flushing the journal): from that moment no
//! write reaches the image, what was not synced is gone, and every open file answers with an error. It refuses
//! to be a disk that lies: the image lies in the host's page cache, so a program that forgets a barrier *inside*
//! an fsync is not found out here. Needs root ([`crate::skip::need::root`]).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::mount::{UnmountFlags, unmount};

use crate::process::run;
use crate::skip::need::find_tool;
use crate::{Result, RigError};

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`, and its flag `EXT4_GOING_FLAGS_NOLOGFLUSH` (Linux, `fs/ext4/ext4.h`).
const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
const NO_LOG_FLUSH: u32 = 2;
const _: () = assert!(EXT4_IOC_SHUTDOWN == 0x8004_587d);

/// A mounted disk. Dropping it unmounts it and removes the image, also when the test has failed.
#[derive(Debug)]
pub struct PowerCutDisk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl PowerCutDisk {
    /// Makes and mounts an empty disk of `size_mib` (16 at least, so that ext4 has a journal) in `dir`.
    ///
    /// # Errors
    /// Without root, without e2fsprogs, or when no loop device is free.
    pub fn create(dir: &Path, size_mib: u64) -> Result<Self> {
        let (image, mount) = (dir.join("disk.img"), dir.join("disk"));
        let make = || -> std::io::Result<()> {
            fs::create_dir_all(&mount)?;
            File::create(&image)?.set_len(size_mib.max(16) * 1024 * 1024)
        };
        make().map_err(|e| RigError::failed(format!("make {}", image.display()), e))?;
        let mut mkfs = tool("mkfs.ext4")?;
        // No reserve for root: the disk is full for everybody at the same byte.
        mkfs.args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image);
        run(mkfs)?;
        let mut disk = Self { image, mount, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Cuts the power. Processes that use the disk get errors from now on; kill them, then [`Self::power_on`].
    ///
    /// # Errors
    /// When the disk is not mounted.
    pub fn cut(&self) -> Result<()> {
        let doing = || format!("cut the power of {}", self.mount.display());
        if !self.mounted {
            return Err(RigError::failed(doing(), "it is not mounted"));
        }
        let root = File::open(&self.mount).map_err(|e| RigError::failed(doing(), e))?;
        // SAFETY: this opcode takes a pointer to a u32, which is what `Setter` passes.
        let request = unsafe { Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
        // SAFETY: the request changes no memory of this process.
        unsafe { ioctl(&root, request) }.map_err(|e| RigError::failed(doing(), e))
    }

    /// Mounts the disk again, after a cut or not: ext4 replays its journal, as at boot.
    ///
    /// # Errors
    /// When a process still uses it (the text is the kernel's "busy"), or the file system cannot be mounted.
    pub fn power_on(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Fills the disk until at most `left_kib` KiB are free, with a file named `filler`. [`Self::empty`] removes it.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub fn fill(&self, left_kib: u64) -> Result<()> {
        let doing = || format!("fill {}", self.mount.display());
        let filler = File::create(self.filler()).map_err(|e| RigError::failed(doing(), e))?;
        let mut len = 0;
        loop {
            let stat = rustix::fs::statvfs(&self.mount).map_err(|e| RigError::failed(doing(), e))?;
            // Not `f_bfree`: that counts what ext4 keeps for itself.
            let free = stat.f_bavail * stat.f_frsize;
            let too_much = free.saturating_sub(left_kib * 1024);
            if too_much == 0 {
                return Ok(());
            }
            // By halves, because the file's own block map takes room too.
            let step = (too_much / 2).max(stat.f_frsize);
            rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), len, step)
                .map_err(|e| RigError::failed(doing(), e))?;
            len += step;
        }
    }

    /// Removes what [`Self::fill`] wrote.
    ///
    /// # Errors
    /// When there is nothing to remove.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.filler()).map_err(|e| RigError::failed(format!("empty {}", self.mount.display()), e))
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    fn mount(&mut self) -> Result<()> {
        let mut command = tool("mount")?;
        command.args(["-t", "ext4", "-o", "loop,noatime"]).arg(&self.image).arg(&self.mount);
        run(command)?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        if self.mounted {
            unmount(&self.mount, UnmountFlags::empty())
                .map_err(|e| RigError::failed(format!("unmount {}", self.mount.display()), e))?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        if self.mounted {
            // Detached at once from the tree; the kernel lets go of image and loop device with the last user.
            if let Err(e) = unmount(&self.mount, UnmountFlags::DETACH) {
                eprintln!("unmount {}: {e}", self.mount.display());
                return;
            }
        }
        // Best effort: the folder is the caller's temporary one.
        let _ = fs::remove_file(&self.image);
    }
}

fn tool(program: &str) -> Result<Command> {
    let found = find_tool(program).ok_or_else(|| RigError::failed(format!("find {program}"), "run `make setup`"))?;
    Ok(Command::new(found))
}
