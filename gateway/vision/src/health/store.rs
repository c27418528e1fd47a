//! The reference on disk. Owns the order of write, sync, rename, sync, and what is done with a file that is damaged; refuses to fail the
//! camera: one without its reference learns a new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::reference::Reference;

/// Largest file that is read: six looks are some 150 KiB.
const BYTES_MAX: u64 = 1 << 20;

/// Why a reference could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("the reference view {path} cannot be {what}: {cause}; check that its folder exists and has room")]
    Disk {
        /// The file.
        path: String,
        /// "read" or "written".
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// What is in the file.
    #[error("the reference view {path} is not used: {why}; the camera learns a new one")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads the reference; none if there is no file.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub fn load(path: &Path) -> Result<Option<Reference>, StoreError> {
    let disk = |cause| StoreError::Disk { path: path.display().to_string(), what: "read", cause };
    let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(BYTES_MAX).read_to_string(&mut text).map_err(disk)?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(disk(cause)),
    };
    let reference: Reference = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    match reference.fault() {
        None => Ok(Some(reference)),
        Some(why) => Err(damaged(why.to_owned())),
    }
}

/// Keeps the reference: on return the file is whole, old or new, also after a power cut.
///
/// # Errors
/// The disk refuses.
pub fn save(path: &Path, reference: &Reference) -> Result<(), StoreError> {
    let part = path.with_extension("part");
    let written = write_synced(&part, reference).and_then(|()| fs::rename(&part, path)).and_then(|()| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    });
    written.map_err(|cause| {
        // Nothing half-written may stay; if even this fails, the next writing truncates it.
        let _ = fs::remove_file(&part);
        StoreError::Disk { path: path.display().to_string(), what: "written", cause }
    })
}

fn write_synced(part: &Path, reference: &Reference) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part)?;
    file.write_all(&serde_json::to_vec(reference)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_comes_back_and_a_damaged_one_is_refused_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cam.json");
        assert!(load(&path).unwrap().is_none());
        let reference = Reference::default();
        save(&path, &reference).unwrap();
        assert_eq!(load(&path).unwrap(), Some(reference));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for text in
            ["", "{", r#"{"version":9,"aspects":[]}"#, r#"{"version":1,"aspects":[{"cells":"00","fineness":[]}]}"#]
        {
            fs::write(&path, text).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("cam.json") && error.contains("learns a new one"), "{error}");
        }
        assert!(save(&folder.path().join("no/such/cam.json"), &Reference::default()).is_err());
    }
}
