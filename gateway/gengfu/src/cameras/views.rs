//! Where the cameras' reference views lie.
//!
//! Owns the names in that folder. What a reference holds is the worker's affair, and only a worker reads or writes one; removing it is how a
//! person accepts the view as it is now: a running worker notices and learns anew.

use std::io;
use std::path::{Path, PathBuf};

use gengfu_contract::slug::Slug;

/// The folder, made if it is not there.
///
/// # Errors
/// It cannot be made.
pub fn folder(data_dir: &Path) -> io::Result<PathBuf> {
    let folder = data_dir.join("views");
    std::fs::create_dir_all(&folder)?;
    std::fs::canonicalize(folder)
}

/// A camera's file in it.
#[must_use]
pub fn file(folder: &Path, camera: &Slug) -> PathBuf {
    folder.join(format!("{camera}.json"))
}

/// Accepts the camera's view as it is now; false if none was known.
///
/// # Errors
/// The file cannot be removed.
pub fn accept(data_dir: &Path, camera: &Slug) -> io::Result<bool> {
    match std::fs::remove_file(file(&data_dir.join("views"), camera)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_a_view_removes_its_reference_and_no_other() {
        let data = tempfile::tempdir().unwrap();
        let folder = folder(data.path()).unwrap();
        let (east, west) = (Slug::new("cam-east").unwrap(), Slug::new("cam-west").unwrap());
        for camera in [&east, &west] {
            std::fs::write(file(&folder, camera), "{}").unwrap();
        }
        assert!(accept(data.path(), &east).unwrap());
        assert!(!accept(data.path(), &east).unwrap());
        assert!(!file(&folder, &east).exists() && file(&folder, &west).exists());
    }
}
