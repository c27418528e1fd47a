//! Who looked at a picture, and why. Append-only.
//!
//! Owns one file of JSON lines: every look (a technician's, the centre's, the uplink's way to it) and every end of a picture. It may be written by the gateway and
//! by the command line at once: each line is one write. Bounded: a full file is kept once more under another name. Refuses to hold anything of a picture.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A file of this size is put aside; some 20,000 lines.
const BYTES_MAX: u64 = 4 << 20;

/// What was done with a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// A picture of now was taken: the centre asked for it, or somebody at the box.
    Snapshot,
    /// It was read to be sent to the centre.
    Sent,
    /// Somebody at the box saw it.
    Shown,
    /// It was made unreadable.
    Shredded,
    /// It lay here unencrypted, from an earlier version, and was sealed.
    TakenOver,
}

impl Deed {
    /// As in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Deed::Snapshot => "snapshot",
            Deed::Sent => "sent",
            Deed::Shown => "shown",
            Deed::Shredded => "shredded",
            Deed::TakenOver => "taken_over",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// What.
    pub deed: Deed,
    /// Who: "uplink", "gateway", "centre:op-7", "user:li".
    pub who: String,
    /// Alarm or command.
    pub id: String,
    /// Number of the picture.
    pub n: u32,
    /// Why, as far as somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The log.
#[derive(Debug, Clone)]
pub struct LookLog(PathBuf);

impl LookLog {
    /// The log at this path; it need not be there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a line, durably.
    ///
    /// # Errors
    /// The disk's answer; then nobody may say that the look was logged.
    pub fn add(&self, look: &Look) -> io::Result<()> {
        if fs::metadata(&self.0).is_ok_and(|file| file.len() >= BYTES_MAX) {
            fs::rename(&self.0, self.before())?;
        }
        let mut line = serde_json::to_vec(look)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
        file.write_all(&line)?;
        file.sync_data()
    }

    /// As [`LookLog::add`], where the deed must go on all the same: the disk's refusal is shown in the gateway's own log.
    pub fn note(&self, look: &Look) {
        if let Err(error) = self.add(look) {
            tracing::error!(path = %self.0.display(), %error, ?look, "a look at a picture is logged here only");
        }
    }

    /// All lines, oldest first, and how many could not be read (a power cut may tear the last one).
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(&self) -> io::Result<(Vec<Look>, usize)> {
        let (mut looks, mut unread) = (Vec::new(), 0);
        for path in [self.before(), self.0.clone()] {
            let text = match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in text.lines() {
                match serde_json::from_str(line) {
                    Ok(look) => looks.push(look),
                    Err(_) => unread += 1,
                }
            }
        }
        Ok((looks, unread))
    }

    fn before(&self) -> PathBuf {
        self.0.with_extension("log.1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(n: u32) -> Look {
        let at = Timestamp::UNIX_EPOCH;
        Look { at, deed: Deed::Shown, who: "user:li".into(), id: "A".into(), n, reason: Some("complaint".into()) }
    }

    #[test]
    fn lines_are_added_read_and_bounded_and_a_torn_one_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let log = LookLog::at(dir.path().join("evidence.log"));
        assert_eq!(log.read().unwrap(), (Vec::new(), 0));
        log.add(&look(1)).unwrap();
        fs::write(
            log.path(),
            [fs::read(log.path()).unwrap(), vec![b'\n'; usize::try_from(BYTES_MAX).unwrap()]].concat(),
        )
        .unwrap();
        log.add(&look(2)).unwrap();
        fs::write(log.path(), [fs::read(log.path()).unwrap(), b"{\"at\":".to_vec()].concat()).unwrap();
        let (looks, unread) = log.read().unwrap();
        assert_eq!(looks.first(), Some(&look(1)));
        assert_eq!(looks.last(), Some(&look(2)));
        assert!(unread > 0 && fs::metadata(log.path()).unwrap().len() < 1_000);
        assert!(LookLog::at(dir.path().join("none/x.log")).add(&look(3)).is_err());
    }
}
