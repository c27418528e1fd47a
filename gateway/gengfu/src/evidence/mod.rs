//! Pictures on the box.
//!
//! Owns where a picture lies. Refuses to know what it shows, or who wants it.

use std::path::{Path, PathBuf};

/// Where picture `n` of an alarm, or of a `snapshot` command, lies.
#[must_use]
pub fn still_path(evidence_dir: &Path, id: &str, n: u32) -> PathBuf {
    evidence_dir.join(format!("{id}-{n}.jpg"))
}
