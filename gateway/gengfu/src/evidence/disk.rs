//! The folder of the pictures, changed in steps that survive a power cut.
//!
//! Owns the steps everything else is made of: a file is written whole and synced, renamed, overwritten, removed, and the folder itself synced. Files are
//! their owner's only. Refuses links and names that leave the folder. That the steps are a trait lets a test cut the power before and in the middle of each.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The steps. Every error is the system's own.
pub trait Place: Send + Sync {
    /// Names of the files in it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;
    /// What a file holds; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// When a file was written last; `None` when that is not known.
    fn written_at(&self, name: &str) -> Option<Timestamp>;
    /// Makes a file, mode 0600, and syncs what is in it; one of that name is replaced. Its name is safe only after [`Place::sync`].
    ///
    /// # Errors
    /// When the disk is full, read-only, or broken.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file another name, replacing what had it, in one step.
    ///
    /// # Errors
    /// When there is no such file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Overwrites a file with zeros where it lies, and syncs it; one that is not there is overwritten already.
    ///
    /// # Errors
    /// When the disk refuses.
    fn wipe(&self, name: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    ///
    /// # Errors
    /// When the disk says that it could not.
    fn sync(&self) -> io::Result<()>;
}

/// A folder on disk.
#[derive(Debug, Clone)]
pub struct RealPlace(PathBuf);

impl RealPlace {
    /// Opens the folder, making it (mode 0700) when it is not there.
    ///
    /// # Errors
    /// When it cannot be made or is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        let plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
        if plain { Ok(self.0.join(name)) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Place for RealPlace {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is no text cannot be one of ours.
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file(name)?) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn written_at(&self, name: &str) -> Option<Timestamp> {
        let modified = fs::metadata(self.file(name).ok()?).ok()?.modified().ok()?;
        Timestamp::try_from(modified).ok()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(name)?;
        // A file that is there may have been somebody else's to read: it is made anew, never reused.
        self.remove(name)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from)?, self.file(to)?)
    }

    fn wipe(&self, name: &str) -> io::Result<()> {
        absent_is_fine((|| {
            let mut file = OpenOptions::new().write(true).open(self.file(name)?)?;
            let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            for at in (0..len).step_by(ZEROS.len()) {
                file.write_all(&ZEROS[..ZEROS.len().min(len - at)])?;
            }
            file.sync_all()
        })())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.file(name)?))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

const ZEROS: [u8; 4096] = [0; 4096];

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_their_owners_only_overwritten_where_they_lie_and_names_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let place = RealPlace::open(&dir.path().join("evidence")).unwrap();
        let path = dir.path().join("evidence/a");
        place.write("a", &[7; 5000]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("evidence")).unwrap().permissions().mode() & 0o777, 0o700);
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        place.wipe("a").unwrap();
        assert_eq!(place.read("a").unwrap().unwrap(), [0; 5000]);
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap()), inode);
        place.rename("a", "b").unwrap();
        place.sync().unwrap();
        assert!(place.written_at("b").is_some());
        assert_eq!(place.names().unwrap(), ["b"]);
        place.remove("b").unwrap();
        place.remove("b").unwrap();
        place.wipe("b").unwrap();
        assert_eq!(place.read("b").unwrap(), None);
        for name in ["", ".", "..", "../x", "a/b"] {
            assert!(place.write(name, b"x").is_err() && place.read(name).is_err(), "{name:?}");
        }
    }
}
