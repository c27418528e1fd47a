//! The hash chain over a gateway's journal.
//!
//! Owns what is hashed: the event without the attributes of its sending, in the canonical form of RFC 8785 (JSON
//! Canonicalization Scheme), by SHA-256. Any language with a JCS library can check a stream; nothing depends on our serialiser.

use sha2::{Digest, Sha256};

use serde_json::Value;

use crate::event::Event;

/// `prevhash` of the first event.
pub const GENESIS: [u8; 32] = [0; 32];

/// The bytes that are journaled and hashed: the event without `senttime`, `historical` and `attempt`, in RFC 8785 form.
///
/// # Errors
/// When a number in `data` has no JSON form (NaN, infinity).
pub fn canonical(event: &Event) -> Result<Vec<u8>, serde_json::Error> {
    canonical_of_json(serde_json::to_value(event)?)
}

/// Attributes that describe the sending of a copy; they are not journaled and not hashed.
pub const OF_THE_SENDING: [&str; 3] = ["senttime", "historical", "attempt"];

/// What [`canonical`] gives, from the bytes of an event alone: no attribute passes through a type of ours, so that an event of a later
/// version, or a damaged one, is hashed as it stands.
///
/// # Errors
/// When the body is no JSON object.
pub fn canonical_of_body(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let event: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
    canonical_of_json(Value::Object(event))
}

fn canonical_of_json(mut event: Value) -> Result<Vec<u8>, serde_json::Error> {
    if let Value::Object(attributes) = &mut event {
        OF_THE_SENDING.iter().for_each(|attribute| drop(attributes.remove(*attribute)));
    }
    let mut out = Vec::with_capacity(1024);
    write_canonical(&event, &mut out)?;
    Ok(out)
}

/// Integers from here on are no exact numbers in JSON (RFC 8785, 3.2.2.3).
const EXACT_BELOW: u64 = 1 << 53;

/// RFC 8785. `serde_json_canonicalizer` has the same form for everything, and a test holds them together; but it takes several times as long, and
/// every alarm waits for this. Numbers that are not whole, where the difficulty is, are left to it.
fn write_canonical(value: &Value, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(|n| n.unsigned_abs() < EXACT_BELOW) => {
            serde_json::to_writer(out, number)
        }
        Value::Number(number) => serde_json_canonicalizer::to_writer(number, out),
        Value::Array(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_canonical(item, out)?;
            }
            out.push(b']');
            Ok(())
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            // By UTF-16 code units (3.2.3).
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (n, (key, member)) in members.into_iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                serde_json::to_writer(&mut *out, key)?;
                out.push(b':');
                write_canonical(member, out)?;
            }
            out.push(b'}');
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => serde_json::to_writer(out, value),
    }
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

    #[test]
    fn the_canonical_form_is_that_of_rfc_8785_as_an_independent_implementation_writes_it() {
        let numbers = serde_json::json!([
            0,
            -1,
            9_007_199_254_740_991_i64,
            9_007_199_254_740_992_i64,
            -9_007_199_254_740_993_i64,
            i64::MIN,
            u64::MAX,
            -0.0,
            1.0,
            1e21,
            1e-7,
            5e-324,
            0.1 + 0.2,
            f64::from(0.843_456_4_f32),
            121.473_701,
            f64::MAX,
            333_333_333.333_333_3
        ]);
        let mut nested = serde_json::json!({
            "\u{20ac}": "\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}\u{2028}\u{8}\u{c}\r\t\u{0}", "\r": null, "1": true, "\u{fb33}": 1, "\u{1f600}": 2, "\u{80}": 3, "\u{f6}": [],
            "": {}, "a\"b": {"z": 1, "A": {"\u{e000}": 1, "\u{10000}": 2}}, "numbers": numbers
        });
        for _ in 0..3 {
            assert_eq!(canonical_of_json(nested.clone()).unwrap(), serde_json_canonicalizer::to_vec(&nested).unwrap());
            nested = serde_json::json!([nested, {"again": nested}]);
        }
    }

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
