//! Pictures on the box: encrypted, for a limited time, and every look is logged.
//!
//! Owns what lies in `data_dir/evidence`, its key and its log. A picture comes from a camera's worker through memory ([`crate::cameras`]), is sealed at once, and leaves only by
//! [`Evidence::send`] to the uplink or [`Evidence::show`] to a technician, both of which log first. Refuses to know what a picture shows.
//!
//! - [`disk`]: the steps, which a test can interrupt - [`seal`]: cryptography - [`vault`]: the store - [`keep`]: how long - [`log`]: who looked
//! - [`keeper`]: the thread that does it all

pub mod disk;
pub mod keep;
pub mod keeper;
pub mod log;
pub mod seal;
pub mod vault;

use std::path::{Path, PathBuf};

use gengfu_contract::evidence::is_named;
use jiff::Timestamp;

pub use keep::{Entry, Policy};
pub use keeper::{About, Pictures};
pub use log::{Deed, Look, LookLog};
pub use vault::{Picture, Recovered, Vault, VaultError};

/// Where picture `n` of an alarm, or of a `snapshot` command, lies, sealed.
#[must_use]
pub fn still_path(evidence_dir: &Path, id: &str, n: u32) -> PathBuf {
    evidence_dir.join(format!("{id}-{n}.sealed"))
}

/// The pictures of a gateway and who looked at them.
#[derive(Debug)]
pub struct Evidence {
    /// The pictures.
    pub vault: Vault,
    /// Who looked.
    pub log: LookLog,
}

/// Why nobody sees a picture.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// It cannot be logged.
    #[error("the look cannot be logged in {path}: {source}; a picture is shown only when that is on disk")]
    Log {
        /// The log.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Evidence {
    /// Opens what lies in a gateway's data folder; makes what is not there.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open(data_dir: &Path) -> Result<Self, VaultError> {
        Ok(Self { vault: Vault::open(data_dir)?, log: LookLog::at(Self::log_path(data_dir)) })
    }

    /// As [`Evidence::open`] for a gateway that must run: a key that is none is put aside, and a new one is made. Pictures sealed with another key
    /// are told one by one when somebody wants them.
    ///
    /// # Errors
    /// [`VaultError::Disk`].
    pub fn open_or_renew(data_dir: &Path) -> Result<Self, VaultError> {
        match Self::open(data_dir) {
            Err(fault @ VaultError::Key(_)) => {
                tracing::error!(%fault, "the key of the pictures is put aside as evidence.key.bad");
                let path = data_dir.join(vault::KEY_FILE);
                let aside = path.with_extension("key.bad");
                std::fs::rename(&path, aside).map_err(|source| VaultError::Disk { path, source })?;
                Self::open(data_dir)
            }
            opened => opened,
        }
    }

    /// Where a gateway's log of looks lies.
    #[must_use]
    pub fn log_path(data_dir: &Path) -> PathBuf {
        data_dir.join("evidence.log")
    }

    /// At the gateway's start: as [`Vault::recover`]; what was taken over is logged.
    ///
    /// # Errors
    /// As [`Vault::recover`].
    pub fn recover(&self, now: Timestamp) -> Result<(), VaultError> {
        let Recovered { removed, taken_over } = self.vault.recover()?;
        for (id, n) in &taken_over {
            self.log.note(&look(now, Deed::TakenOver, "gateway", id, *n, None));
        }
        if removed + taken_over.len() > 0 {
            tracing::info!(removed, sealed = taken_over.len(), "pictures were put in order after the last end");
        }
        Ok(())
    }

    /// A picture for the uplink. `sha256` is what the event names (hex); `None` when what lies here is another.
    ///
    /// # Errors
    /// As [`Vault::read`].
    pub fn send(&self, id: &str, n: u32, sha256: &str, now: Timestamp) -> Result<Option<Vec<u8>>, VaultError> {
        let picture = self.vault.read(id, n)?;
        if !is_named(&picture, sha256) {
            return Ok(None);
        }
        // The centre must get it even when this disk takes no more lines.
        self.log.note(&look(now, Deed::Sent, "uplink", id, n, None));
        Ok(Some(picture))
    }

    /// A picture for somebody at the box, logged before it is given out.
    ///
    /// # Errors
    /// [`ShowError`].
    pub fn show(&self, id: &str, n: u32, who: &str, why: Option<&str>, now: Timestamp) -> Result<Vec<u8>, ShowError> {
        let picture = self.vault.read(id, n)?;
        let logged = self.log.add(&look(now, Deed::Shown, who, id, n, why));
        logged.map_err(|source| ShowError::Log { path: self.log.path().to_owned(), source })?;
        Ok(picture)
    }

    /// Ends a picture. True when there was one.
    ///
    /// # Errors
    /// As [`Vault::shred`].
    pub fn shred(&self, id: &str, n: u32, who: &str, why: Option<&str>, now: Timestamp) -> Result<bool, VaultError> {
        let was_there = self.vault.shred(id, n)?;
        if was_there {
            self.log.note(&look(now, Deed::Shredded, who, id, n, why));
        }
        Ok(was_there)
    }

    /// The centre's look by a `snapshot` command.
    pub fn snapshot_taken(&self, cmd_id: &str, n: u32, operator: &str, camera: &str, now: Timestamp) {
        self.log.note(&look(now, Deed::Snapshot, &format!("centre:{operator}"), cmd_id, n, Some(camera)));
    }
}

fn look(at: Timestamp, deed: Deed, who: &str, id: &str, n: u32, reason: Option<&str>) -> Look {
    Look { at, deed, who: who.to_owned(), id: id.to_owned(), n, reason: reason.map(str::to_owned) }
}

#[cfg(test)]
mod tests;
