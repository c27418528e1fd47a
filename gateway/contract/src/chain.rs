//! The hash chain over a gateway's journal.
//!
//! Owns what is hashed: the event without the attributes of its sending, in the canonical form of RFC 8785 (JSON
//! Canonicalization Scheme), by SHA-256. Any language with a JCS library can check a stream; nothing depends on our serialiser.

use sha2::{Digest, Sha256};

use crate::event::Event;

/// `prevhash` of the first event.
pub const GENESIS: [u8; 32] = [0; 32];

/// The bytes that are journaled and hashed: the event without `senttime`, `historical` and `attempt`, in RFC 8785 form.
///
/// # Errors
/// When a number in `data` has no JSON form (NaN, infinity).
pub fn canonical(event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    let journaled = Event { senttime: None, historical: None, attempt: None, ..event.clone() };
    serde_json_canonicalizer::to_vec(&journaled)
}

/// Attributes that describe the sending of a copy; they are not journaled and not hashed.
pub const OF_THE_SENDING: [&str; 3] = ["senttime", "historical", "attempt"];

/// What [`canonical`] gives, from the bytes of an event alone: no attribute passes through a type of ours, so that an event of a later
/// version, or a damaged one, is hashed as it stands.
///
/// # Errors
/// When the body is no JSON object.
pub fn canonical_of_body(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut event: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    for attribute in OF_THE_SENDING {
        event.remove(attribute);
    }
    serde_json_canonicalizer::to_vec(&event)
}

/// SHA-256 of [`canonical_of_body`].
///
/// # Errors
/// When the body is no JSON object.
pub fn hash_of_body(body: &[u8]) -> Result<[u8; 32], serde_json::Error> {
    Ok(hash(&canonical_of_body(body)?))
}

/// SHA-256 of [`canonical`] bytes.
#[must_use]
pub fn hash(canonical: &[u8]) -> [u8; 32] {
    Sha256::digest(canonical).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;
    use crate::words::Lane;

    fn event() -> Event {
        Event {
            specversion: "1.0".into(),
            id: "e1".into(),
            source: "/gengfu/s/g".into(),
            event_type: EventType::DeviceObserved,
            subject: "door-1".into(),
            time: "2026-11-22T08:00:00Z".parse().unwrap(),
            datacontenttype: "application/json".into(),
            sequence: 7,
            recordedtime: "2026-11-22T08:00:00.1Z".parse().unwrap(),
            prevhash: hex::encode(GENESIS),
            lane: Lane::Telemetry,
            senttime: None,
            historical: None,
            attempt: None,
            data: serde_json::json!({"what": "door.opened", "device": "door-1", "clock": "synced", "future": 1.5}),
            extra: [("later".to_owned(), serde_json::json!("kept"))].into(),
        }
    }

    #[test]
    fn a_received_copy_hashes_like_the_journaled_event() {
        let journaled = canonical(&event()).unwrap();
        let mut sent = event();
        sent.senttime = Some("2026-11-22T09:00:00Z".parse().unwrap());
        sent.historical = Some(true);
        sent.attempt = Some(3);
        let wire = serde_json::to_vec(&sent).unwrap();
        let received = Event::parse(&wire).unwrap();
        assert_eq!(canonical(&received).unwrap(), journaled);
        assert_eq!(received.extra["later"], "kept");
    }

    #[test]
    fn any_change_of_content_changes_the_hash() {
        let before = hash(&canonical(&event()).unwrap());
        let mut changed = event();
        changed.data["future"] = serde_json::json!(1.6);
        assert_ne!(hash(&canonical(&changed).unwrap()), before);
    }
}
