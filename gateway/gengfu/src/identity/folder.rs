//! A folder for secrets, changed in steps that survive a power cut.
//!
//! Owns the four steps everything else is made of: a file is written beside its name and synced, renamed, removed, and the folder itself
//! synced. Files are readable by their owner only. Refuses links, subfolders and names that leave the folder. That the steps are a trait
//! lets a test cut the power before, in the middle of and after each of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The steps. Every error is the system's own.
pub trait Folder: Send + Sync {
    /// What a file holds; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Writes a file, mode 0600, and syncs what is in it. Its name is safe only after [`Folder::sync`].
    ///
    /// # Errors
    /// When the disk is full, read-only, or broken.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file another name, replacing what had it, in one step.
    ///
    /// # Errors
    /// When there is no such file.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    ///
    /// # Errors
    /// When the disk says that it could not.
    fn sync(&mut self) -> io::Result<()>;

    /// Replaces a file in one step: after a power cut it is the old one or the new one, whole.
    ///
    /// # Errors
    /// As the steps it is made of.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = format!("{name}.new");
        self.write(&beside, bytes)?;
        self.rename(&beside, name)?;
        self.sync()
    }
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct RealFolder {
    path: PathBuf,
    /// Whose it is: what root writes for a service must be the service's.
    owner: (u32, u32),
}

impl RealFolder {
    /// Opens the folder, making it (mode 0700) when it is not there. When root does so, it gets the owner of the folder around it.
    ///
    /// # Errors
    /// When it cannot be made or is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {
                if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                    let around = fs::metadata(parent)?;
                    give(path, (around.uid(), around.gid()))?;
                    File::open(parent)?.sync_all()?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let found = fs::metadata(path)?;
        if !found.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "there is a file where a folder is needed"));
        }
        Ok(Self { path: path.to_owned(), owner: (found.uid(), found.gid()) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
        if plain { Ok(self.path.join(name)) } else { Err(io::Error::from(io::ErrorKind::InvalidInput)) }
    }
}

/// Only root can give away; for everybody else the file is already theirs.
fn give(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

impl Folder for RealFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(name)?;
        // A file that is there may have been somebody else's to read: it is made anew, never reused.
        self.remove(name)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        give(&path, self.owner)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from)?, self.file(to)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_their_owners_only_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("identity");
        let mut folder = RealFolder::open(&place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(folder.read("key").unwrap(), None);
        folder.replace("key", b"one").unwrap();
        folder.replace("key", b"two").unwrap();
        assert_eq!(folder.read("key").unwrap().as_deref(), Some(b"two".as_slice()));
        assert_eq!(fs::metadata(place.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is left beside it");
        folder.remove("key").unwrap();
        folder.remove("key").unwrap();
    }

    #[test]
    fn a_name_cannot_leave_the_folder_and_a_file_is_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = RealFolder::open(dir.path()).unwrap();
        for name in ["", ".", "..", "../x", "a/b"] {
            assert!(folder.write(name, b"x").is_err() && folder.read(name).is_err(), "{name:?}");
        }
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(RealFolder::open(&dir.path().join("file")).is_err());
    }
}
