//! How long pictures stay on the box.
//!
//! Owns the end of every picture: also of those that were taken for an alarm that never came. Refuses to ask whether a picture was delivered: the limit
//! is a promise to the people in it, and the uplink says when it had to give one up.

use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

/// Removes every file in `folder` that was written longer than `keep` before `now`; returns how many.
///
/// # Errors
/// The folder cannot be read. A single file that cannot be removed is logged and left.
pub fn sweep(folder: &Path, keep: Duration, now: Timestamp) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let written_at = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| Timestamp::try_from(at).ok());
        let age = written_at.map(|at| now.duration_since(at));
        if age.is_some_and(|age| age > jiff::SignedDuration::try_from(keep).unwrap_or(jiff::SignedDuration::MAX)) {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                Err(error) => {
                    tracing::warn!(file = %entry.path().display(), %error, "a picture past its time cannot be removed")
                }
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_go_when_their_time_is_over_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a-1.jpg");
        std::fs::write(&file, "x").unwrap();
        let written_at = Timestamp::try_from(file.metadata().unwrap().modified().unwrap()).unwrap();
        let keep = Duration::from_secs(3600);
        let after = |s| written_at + jiff::SignedDuration::from_secs(s);
        assert_eq!(sweep(folder.path(), keep, after(3600)).unwrap(), 0);
        assert_eq!(sweep(folder.path(), keep, after(3601)).unwrap(), 1);
        assert!(!file.exists());
        assert!(sweep(&folder.path().join("gone"), keep, after(0)).is_err());
    }
}
