//! A picture from a worker's memory into the store.
//!
//! Owns the check that it is what the worker says, and its way to where pictures are sealed. Refuses to let a plain picture touch a disk.

use gengfu_contract::event::EvidenceRef;
use gengfu_contract::evidence::is_named;
use gengfu_contract::slug::Slug;
use gengfu_vision::protocol::StillOutcome;
use gengfu_vision::still::BYTES_MAX;
use jiff::Timestamp;

use super::translate;
use crate::evidence::{About, Pictures};

/// Whose picture it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    /// Alarm or command.
    pub id: &'a str,
    /// Number of the picture.
    pub n: u32,
    /// What it shows.
    pub caption: &'a str,
}

/// Keeps what the worker answered. On return the picture is on the medium, sealed; or the text says why there is none.
pub(super) async fn keep(
    pictures: &Pictures,
    camera: &Slug,
    whose: Whose<'_>,
    outcome: StillOutcome,
    now: Timestamp,
) -> Result<EvidenceRef, String> {
    let (jpeg, sha256, taken_at_ms) = match outcome {
        StillOutcome::Taken { jpeg, sha256, taken_at_ms, .. } => (jpeg.0, sha256, taken_at_ms),
        StillOutcome::Failed { message } => return Err(message),
    };
    if jpeg.len() > BYTES_MAX || !is_named(&jpeg, &sha256) {
        return Err("the camera worker's picture is too large or not what it says; it was thrown away".to_owned());
    }
    let about = About {
        id: whose.id.to_owned(),
        n: whose.n,
        camera: camera.to_string(),
        caption: whose.caption.to_owned(),
        taken_at: translate::time(taken_at_ms, now),
    };
    let entry = pictures.put(about, jpeg).await.map_err(|error| error.to_string())?;
    Ok(EvidenceRef {
        n: entry.n,
        sha256: entry.sha256,
        bytes: entry.bytes,
        media_type: "image/jpeg".to_owned(),
        taken_at: entry.taken_at,
        caption: entry.caption,
    })
}
