//! What can go wrong in the outbox. Owns the texts a person reads; each names the place and what to do about it.

use std::{io, path::PathBuf};

/// An error of the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Another process, or another `Outbox` of this one, has the store open.
    #[error("the outbox at {path} is in use by another process; stop it, or give this one a path of its own")]
    InUse {
        /// The store's directory.
        path: PathBuf,
    },
    /// The operating system refused something on a path.
    #[error("cannot {doing} {path}: {source}; {}", remedy(.source))]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// sled refused an operation.
    #[error("the store failed to {doing}: {source}")]
    Store {
        /// What was attempted.
        doing: &'static str,
        /// sled's answer.
        source: sled::Error,
    },
    /// sled panicked; the panic was caught here.
    #[error("the store panicked while it tried to {doing}: {message}; if this repeats after a restart, check the disk")]
    Panicked {
        /// What was attempted.
        doing: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A record does not have the form this crate writes.
    #[error("the outbox is damaged at {place}: {detail}; keep a copy of its directory and run the chain verification")]
    Damaged {
        /// Which record.
        place: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The store was written by another version of the layout.
    #[error("the outbox at {path} has format {found}, this program knows format 2; start the version that wrote it")]
    UnknownFormat {
        /// The store's directory.
        path: PathBuf,
        /// The format found there.
        found: u8,
    },
    /// A value or key above its bound.
    #[error(
        "{what} has {bytes} bytes, at most {bytes_max} are stored; split it, or keep it outside and store its hash"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// An empty id.
    #[error("an item needs an id of 1 to 128 bytes")]
    EmptyId,
    /// The id is already stored. Ids are for ever: a resend has the id of the first.
    #[error("an item with the id {id} is already in the outbox; give each item an id of its own")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// A write or sync failed earlier; nothing is accepted until [`Outbox::recover`](crate::Outbox::recover) succeeds.
    #[error("the outbox refuses to store until the disk is well again, because {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The calling thread already holds a batch; waiting for it would never end.
    #[error("this thread still holds an outbox batch; commit or drop it first")]
    BatchHeld,
}

/// What to do about an answer of the operating system.
fn remedy(source: &io::Error) -> &'static str {
    const EIO: i32 = 5;
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free space on it, and storing goes on by itself"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only, as after an error of the disk: look into the kernel's log, check it (fsck), and \
             mount it writable, then restart the gateway; until then what was stored is still sent"
        }
        io::ErrorKind::PermissionDenied => "give the gateway's user the right to read and write there",
        io::ErrorKind::NotFound => "check that the disk is mounted and the path exists",
        _ if source.raw_os_error() == Some(EIO) => "the disk fails: check its seat and cable, and replace it soon",
        _ => "check that the disk is mounted, writable and not full",
    }
}
