//! From a payload to readings. Owns JSON, text, time and ids of a message; pure, and total: whatever the bytes, the answer is readings or a reason.

use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::sensors::profile::{Payload, Topic};
use crate::sensors::words::{Fact, Raw, Reading};

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Its readings.
    pub readings: Vec<Reading>,
    /// When it was sensed, as the payload says.
    pub time: Option<Timestamp>,
    /// What a copy of it would share.
    pub id: Option<String>,
    /// As the device's network counts it.
    pub link_quality: Option<i64>,
}

/// Why a payload is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No JSON where the profile wants it.
    #[error("not JSON")]
    NotJson,
    /// No UTF-8 where the profile wants text.
    #[error("not text")]
    NotText,
    /// Something that the profile says must be there is not.
    #[error("{what} is missing")]
    Missing {
        /// The pointer.
        what: String,
        /// What to do, as the profile says.
        remedy: Text,
    },
    /// None of the profile's values is in it.
    #[error("no known value in it")]
    NothingKnown,
}

impl Malformed {
    /// As in the counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Malformed::NotJson => "not JSON",
            Malformed::NotText => "not text",
            Malformed::Missing { .. } => "a part is missing",
            Malformed::NothingKnown => "no known value",
        }
    }
}

/// What a payload on one of a profile's topics says. `part` stands for `{part}` in its pointers.
///
/// # Errors
/// [`Malformed`] when there is nothing in it that the profile speaks of.
pub fn decode(topic: &Topic, part: &str, payload: &[u8]) -> Result<Decoded, Malformed> {
    let root = root(topic.payload, payload)?;
    if let Some((pointer, remedy)) = &topic.needs
        && root.pointer(pointer).is_none_or(Json::is_null)
    {
        return Err(Malformed::Missing { what: pointer.clone(), remedy: remedy.clone() });
    }
    let mut readings = Vec::new();
    for value in &topic.values {
        let found = value.at.iter().find_map(|at| {
            let at = at.replace("{part}", &escaped(part));
            // null is a bridge's word for "not known yet".
            root.pointer(&at).filter(|value| !value.is_null()).map(|value| (at, value))
        });
        let Some((at, found)) = found else { continue };
        let place = if at.is_empty() { "payload" } else { at.as_str() };
        let facts = match raw(found) {
            Some(raw) => value.meaning.read(place, &raw),
            None => vec![Fact::Unknown { place: place.to_owned(), value: "an object or a list".into() }],
        };
        readings.extend(facts.into_iter().map(|fact| Reading { source: value.source, fact }));
    }
    if readings.is_empty() {
        return Err(Malformed::NothingKnown);
    }
    let at = |pointer: &Option<String>| pointer.as_ref().and_then(|pointer| root.pointer(pointer));
    Ok(Decoded {
        readings,
        time: at(&topic.time).and_then(time),
        id: at(&topic.id).and_then(Json::as_str).map(|id| id.chars().take(80).collect()),
        link_quality: at(&topic.link_quality).and_then(Json::as_f64).and_then(whole),
    })
}

fn root(payload: Payload, bytes: &[u8]) -> Result<Json, Malformed> {
    let text = || std::str::from_utf8(bytes).map(|text| Json::String(text.trim().to_owned()));
    match payload {
        Payload::Json => serde_json::from_slice(bytes).map_err(|_| Malformed::NotJson),
        Payload::Text => text().map_err(|_| Malformed::NotText),
        Payload::Any => serde_json::from_slice(bytes).or_else(|_| text()).map_err(|_| Malformed::NotText),
    }
}

fn raw(value: &Json) -> Option<Raw> {
    match value {
        Json::String(text) => Some(Raw::Text(text.clone())),
        Json::Bool(on) => Some(Raw::Text(on.to_string())),
        Json::Number(number) => number.as_f64().map(Raw::Number),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// RFC 3339, or milliseconds since 1970. A local time without a zone is no time.
fn time(value: &Json) -> Option<Timestamp> {
    match value {
        Json::String(text) => text.parse().ok(),
        Json::Number(number) => Timestamp::from_millisecond(number.as_i64()?).ok(),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(number: f64) -> Option<i64> {
    (-1e9..=1e9).contains(&number).then_some(number.round() as i64)
}

/// A part within a JSON pointer (RFC 6901, 3).
fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sensors::profile::{Map, parse};
    use crate::sensors::words::Facet;

    const PROFILE: &str = r#"
name = "acme-door"
maker = "Acme"
model = "Door"
source = "https://example.org/door"
link = "mqtt"
class = "door"
battery_mv_at = [2700, 3050]
[[topic]]
pattern = "acme/{device}"
payload = "json"
time = "/time"
id = "/id"
link_quality = "/rssi"
needs = "/object"
needs_remedy = "set a codec"
needs_remedy_zh = "设置解码器"
[[topic.value]]
at = ["/object/{part}", "/object/door"]
states = { 1 = "door.open", 0 = "door.closed", true = "door.open", "ajar" = "alive" }
[[topic]]
pattern = "acme/{device}/status"
payload = "any"
[[topic.value]]
at = ["/state", ""]
states = { online = "online", offline = "offline" }
"#;

    fn topics() -> Vec<Topic> {
        let Map::Mqtt(map) = parse(PROFILE).unwrap().map else { panic!() };
        map.topics
    }

    fn facts(topic: usize, payload: &str) -> Vec<Fact> {
        let decoded = decode(&topics()[topic], "s/1", payload.as_bytes()).unwrap();
        decoded.readings.into_iter().map(|reading| reading.fact).collect()
    }

    #[test]
    fn whole_numbers_truth_values_and_parts_are_found() {
        let open = [Fact::Level(Facet::Door, true)];
        assert_eq!(facts(0, r#"{"object": {"door": 1.0}}"#), open);
        assert_eq!(facts(0, r#"{"object": {"door": true}}"#), open);
        assert_eq!(facts(0, r#"{"object": {"s/1": 1, "door": 0}}"#), open);
        assert_eq!(facts(0, r#"{"object": {"s/1": null, "door": 0}}"#), [Fact::Level(Facet::Door, false)]);
        assert_eq!(facts(1, "online"), [Fact::Level(Facet::Online, true)]);
        assert_eq!(facts(1, r#"{"state": "offline"}"#), [Fact::Level(Facet::Online, false)]);
    }

    #[test]
    fn what_is_not_understood_has_its_reason() {
        let topic = &topics()[0];
        assert_eq!(decode(topic, "", b"{"), Err(Malformed::NotJson));
        assert_eq!(decode(topic, "", br#"{"object": {}}"#), Err(Malformed::NothingKnown));
        let Err(Malformed::Missing { remedy, .. }) = decode(topic, "", br#"{"object": null}"#) else { panic!() };
        assert_eq!(remedy.en, "set a codec");
        assert!(matches!(facts(0, r#"{"object": {"door": [1]}}"#)[..], [Fact::Unknown { .. }]));
        assert_eq!(decode(&topics()[1], "", &[0xff]), Err(Malformed::NotText));
    }

    #[test]
    fn time_id_and_link_quality_are_taken_when_they_are_what_they_should_be() {
        let text = r#"{"object": {"door": 0}, "time": "2022-07-18T09:34:15.775023242+00:00", "id": "x", "rssi": -48}"#;
        let decoded = decode(&topics()[0], "", text.as_bytes()).unwrap();
        assert_eq!(decoded.time, "2022-07-18T09:34:15.775023242Z".parse().ok());
        assert_eq!((decoded.id.as_deref(), decoded.link_quality), (Some("x"), Some(-48)));
        let text = r#"{"object": {"door": 0}, "time": "2021-01-01T00:00:00", "id": 7, "rssi": "far"}"#;
        let decoded = decode(&topics()[0], "", text.as_bytes()).unwrap();
        assert_eq!((decoded.time, decoded.id, decoded.link_quality), (None, None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), part in ".{0,8}") {
            for topic in topics() {
                let _ = decode(&topic, &part, &bytes);
            }
        }

        #[test]
        fn no_json_panics(door in any::<f64>(), time in any::<i64>(), text in ".{0,40}") {
            let payload = serde_json::json!({"object": {"door": door, "s": text}, "time": time, "rssi": door, "id": text});
            let _ = decode(&topics()[0], "s", payload.to_string().as_bytes());
        }
    }
}
