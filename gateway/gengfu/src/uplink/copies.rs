//! What goes onto the wire for an item of the outbox: a copy of a journaled event, or the bytes of a picture.
//!
//! Owns the attributes of sending (`senttime`, `attempt`, `historical`) and the check that a picture is still the one that was decided
//! on. The journaled bytes themselves are never parsed and written anew: what is hashed leaves the box as it was hashed.

use std::path::PathBuf;
use std::time::Duration;

use gengfu_contract::event::EventType;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::backoff::between;
use crate::evidence::keeper::Unanswered;
use crate::evidence::{Pictures, VaultError};

/// Body of an outbox item in the evidence lane, as JSON: where a picture lies and what it must hash to. The picture itself stays
/// out of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// The alarm it belongs to.
    pub alarm_id: String,
    /// Number within the alarm, from 1.
    pub n: u32,
    /// SHA-256 of the file, hex, as in the event.
    pub sha256: String,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl EvidenceItem {
    /// The id it has in the outbox and in the centre's receipt: `<alarm_id>/<n>`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.alarm_id, self.n)
    }

    /// Reads the item from the outbox's bytes.
    ///
    /// # Errors
    /// [`EvidenceFault::Item`] when they are something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceFault> {
        serde_json::from_slice(bytes).map_err(EvidenceFault::Item)
    }

    /// Reads the picture and checks that it is the one the event speaks of. In memory it is plain; nowhere else.
    ///
    /// # Errors
    /// [`EvidenceFault`]: it cannot be sent, now or later.
    pub async fn load(&self, from: &PictureSource) -> Result<Vec<u8>, EvidenceFault> {
        let PictureSource::Store(pictures) = from else { return self.load_file().await };
        match pictures.send(&self.alarm_id, self.n, &self.sha256).await {
            Ok(Some(picture)) => Ok(picture),
            Ok(None) => Err(EvidenceFault::Changed { path: self.path.clone() }),
            Err(Unanswered::Vault(fault)) => Err(EvidenceFault::Sealed(fault)),
            // No answer is no verdict on the picture: it is sent after the next start.
            Err(Unanswered::Stopping) => std::future::pending().await,
        }
    }

    async fn load_file(&self) -> Result<Vec<u8>, EvidenceFault> {
        let unreadable = |source| EvidenceFault::Unreadable { path: self.path.clone(), source };
        let size = tokio::fs::metadata(&self.path).await.map_err(unreadable)?.len();
        // Before reading: a changed file could be of any size.
        if size != self.bytes {
            return Err(EvidenceFault::Changed { path: self.path.clone() });
        }
        let picture = tokio::fs::read(&self.path).await.map_err(unreadable)?;
        if hex::encode(Sha256::digest(&picture)) != self.sha256.to_ascii_lowercase() {
            return Err(EvidenceFault::Changed { path: self.path.clone() });
        }
        Ok(picture)
    }
}

/// Where pictures are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PictureSource {
    /// Plain files at [`EvidenceItem::path`]: for simulated gateways that measure a broker, and tests.
    #[default]
    Files,
    /// The sealed store of this gateway.
    Store(Pictures),
}

/// Why a picture is not sent.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceFault {
    /// The outbox item is not an [`EvidenceItem`].
    #[error("the item is no evidence item: {0}; this is a fault of the program, please report it")]
    Item(serde_json::Error),
    /// The file is gone or cannot be read.
    #[error("picture {path} cannot be read: {source}; check the disk and the evidence retention time")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is gone from the store, or does not open there.
    #[error(transparent)]
    Sealed(VaultError),
    /// The file's bytes are not those of the event.
    #[error("picture {path} was changed after it was taken; it is not sent. Check who writes to the evidence folder")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// A copy of an event, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventCopy {
    /// The body.
    pub body: Vec<u8>,
    /// When it was sensed; absent when the journaled bytes are not an event of this version.
    pub sensed_at: Option<Timestamp>,
    /// The alarm it belongs to, for the log.
    pub alarm: Option<String>,
    /// It is marked as sent late.
    pub historical: bool,
}

/// The attributes of an event that sending needs; everything else is passed over unread.
#[derive(Deserialize)]
struct Head {
    time: Timestamp,
    subject: String,
    #[serde(rename = "type")]
    event_type: EventType,
}

/// Makes the copy that is sent `now`: the journaled bytes with the attributes of sending added at the end. Bytes that are not an event
/// of this version (written by a newer program before a rollback) go out as they are: the centre may know them.
#[must_use]
pub fn event_copy(journaled: &[u8], now: Timestamp, attempt: u32, historical_after: Duration) -> EventCopy {
    let head: Option<Head> = serde_json::from_slice(journaled).ok();
    let (Some(head), Some(open)) = (head, journaled.trim_ascii_end().strip_suffix(b"}")) else {
        return EventCopy { body: journaled.to_vec(), sensed_at: None, alarm: None, historical: false };
    };
    let historical = between(head.time, now) > historical_after;
    let mut body = open.to_vec();
    body.extend_from_slice(format!(",\"attempt\":{attempt}").as_bytes());
    if historical {
        body.extend_from_slice(b",\"historical\":true");
    }
    body.extend_from_slice(format!(",\"senttime\":\"{now}\"}}").as_bytes());
    let alarm = head.event_type.is_alarm().then_some(head.subject);
    EventCopy { body, sensed_at: Some(head.time), alarm, historical }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, event};
    use super::*;
    use gengfu_contract::chain;
    use gengfu_contract::event::Event;
    use gengfu_contract::words::Lane;

    #[test]
    fn a_copy_carries_the_attributes_of_sending_and_hashes_like_the_journaled_event() {
        let mut event = event(7, "e7", Lane::Fire, at(0));
        // Values whose shortest text is easily changed by careless parsing and writing.
        event.data = serde_json::json!({"a": 0.1 + 0.2, "b": f64::from(0.843_456_4_f32), "c": 1e-7, "d": 5e-324});
        let journaled = chain::canonical(&event).unwrap();
        let copy = event_copy(&journaled, at(31), 3, Duration::from_secs(30));
        let received = Event::parse(&copy.body).unwrap();
        assert_eq!((received.attempt, received.historical, received.senttime), (Some(3), Some(true), Some(at(31))));
        assert_eq!(chain::canonical(&received).unwrap(), journaled);
        assert_eq!((copy.sensed_at, copy.historical), (Some(at(0)), true));
    }

    #[test]
    fn an_event_sent_in_time_is_not_historical() {
        let journaled = chain::canonical(&event(1, "e1", Lane::City, at(0))).unwrap();
        let copy = event_copy(&journaled, at(30), 1, Duration::from_secs(30));
        assert!(!copy.historical);
        assert_eq!(Event::parse(&copy.body).unwrap().historical, None);
    }

    #[test]
    fn bytes_of_an_unknown_version_go_out_as_they_are() {
        for bytes in [&b"\xff\x00"[..], b"", b"{}", b"[1]", br#"{"time":"2026-01-01T00:00:00Z"}"#] {
            let copy = event_copy(bytes, at(0), 1, Duration::from_secs(30));
            assert_eq!((copy.body.as_slice(), copy.sensed_at), (bytes, None));
        }
    }

    #[tokio::test]
    async fn a_missing_or_changed_picture_is_named_and_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.jpg");
        std::fs::write(&path, b"picture").unwrap();
        let sha256 = hex::encode(Sha256::digest(b"picture"));
        let item = EvidenceItem { alarm_id: "A".into(), n: 1, sha256, path: path.clone(), bytes: 7 };
        let parsed = EvidenceItem::parse(&serde_json::to_vec(&item).unwrap()).unwrap();
        assert_eq!(parsed.load(&PictureSource::Files).await.unwrap(), b"picture");
        std::fs::write(&path, b"pictura").unwrap();
        assert!(matches!(item.load(&PictureSource::Files).await, Err(EvidenceFault::Changed { .. })));
        std::fs::write(&path, b"longer than it was").unwrap();
        assert!(matches!(item.load(&PictureSource::Files).await, Err(EvidenceFault::Changed { .. })));
        std::fs::remove_file(&path).unwrap();
        let gone = item.load(&PictureSource::Files).await.unwrap_err().to_string();
        assert!(gone.contains("1.jpg"), "{gone}");
        assert!(matches!(EvidenceItem::parse(b"{}"), Err(EvidenceFault::Item(_))));
    }
}
