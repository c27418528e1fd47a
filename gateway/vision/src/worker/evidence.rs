//! Putting a still on disk so that it is there after a power cut, before anybody is told. Owns the order of write, sync, rename,
//! sync; refuses names that lead elsewhere and refuses to overwrite evidence.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a still could not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum EvidenceError {
    #[error(
        "the file name {0:?} is refused; use letters, digits, '-', '_' and '.', not beginning with '.', ending in .jpg"
    )]
    Name(String),
    #[error("{0} exists already; evidence is never overwritten, use another name")]
    Exists(String),
    #[error("{path} cannot be written: {cause}; check that the evidence folder exists and has room")]
    Write { path: String, cause: std::io::Error },
}

/// Writes the bytes to `folder/file` and returns the path. On return the file and its name are on the medium.
pub(super) fn save(folder: &Path, file: &str, bytes: &[u8]) -> Result<PathBuf, EvidenceError> {
    let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain || file.starts_with('.') || !file.ends_with(".jpg") || file.len() > 128 {
        return Err(EvidenceError::Name(file.to_owned()));
    }
    let (path, part) = (folder.join(file), folder.join(format!(".{file}.part")));
    if path.exists() {
        return Err(EvidenceError::Exists(path.display().to_string()));
    }
    let written = write_synced(&part, bytes)
        .and_then(|()| fs::rename(&part, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    if let Err(cause) = written {
        // Nothing half-written may stay; if even this fails, the dot file is ignored by every reader.
        let _ = fs::remove_file(&part);
        return Err(EvidenceError::Write { path: path.display().to_string(), cause });
    }
    Ok(path)
}

fn write_synced(part: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Only the gateway's user may look at evidence.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_still_is_there_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = save(folder.path(), "a-1.jpg", b"jpeg").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"jpeg");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_that_lead_elsewhere_and_overwriting_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../a.jpg", "a/b.jpg", ".a.jpg", "a.png", "", "a\0.jpg", "图.jpg"] {
            assert!(matches!(save(folder.path(), name, b"x"), Err(EvidenceError::Name(_))), "{name:?}");
        }
        save(folder.path(), "a.jpg", b"first").unwrap();
        assert!(matches!(save(folder.path(), "a.jpg", b"second"), Err(EvidenceError::Exists(_))));
        assert_eq!(fs::read(folder.path().join("a.jpg")).unwrap(), b"first");
        let error = save(&folder.path().join("none"), "a.jpg", b"x").unwrap_err().to_string();
        assert!(error.contains("evidence folder"), "{error}");
    }
}
