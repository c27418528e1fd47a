//! What a fuzzer calls: every decoder of bytes from outside, with what must hold whatever the bytes are. It owns the list [`TARGETS`]; the
//! coverage-guided fuzzer (`make fuzz`, `hil-tests/fuzz`) and the short run of every test (`tests/fuzz_corpus.rs`) call the same functions.
//! It refuses to judge meaning: that is the decoders' own tests' work.

use std::path::Path;
use std::sync::OnceLock;

use crc::{CRC_32_ISCSI, Crc};
use gengfu::config::Config;
use gengfu::sensors::modbus::decode::{Data, decode as decode_modbus};
use gengfu::sensors::mqtt::decode::decode as decode_mqtt;
use gengfu::sensors::plan;
use gengfu::sensors::profile::{Map, ModbusMap, MqttMap, Profile};
use gengfu_contract::chain;
use gengfu_contract::command::Command;
use gengfu_contract::event::Event;
use gengfu_vision::protocol::{ParentMessage, WorkerLine};
use gengfu_wire::{Decoder, FRAME_BYTES_MAX, PROTOCOL_VERSION, encode};

/// A decoder's name, as its corpus folder is called, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every decoder of bytes from outside.
pub const TARGETS: &[Target] = &[
    ("wire", wire),
    ("config", config),
    ("command", command),
    ("event", event),
    ("camera_worker", camera_worker),
    ("modbus", modbus),
    ("mqtt_device", mqtt_device),
    ("profile", profile),
];

/// Bytes from a serial line, and the same bytes as the content of a frame whose checksum is right: frames and errors, and every frame can be said
/// again and is then the same.
pub fn wire(bytes: &[u8]) {
    stream(bytes);
    let mut raw = vec![PROTOCOL_VERSION];
    raw.extend_from_slice(bytes);
    // Without this no change of a byte would come past the checksum.
    raw.extend(Crc::<u32>::new(&CRC_32_ISCSI).checksum(&raw).to_le_bytes());
    let mut framed = vec![0; cobs::max_encoding_length(raw.len()) + 1];
    let length = cobs::encode(&raw, &mut framed);
    framed.truncate(length + 1);
    stream(&framed);
}

fn stream(bytes: &[u8]) {
    let mut buffer = [0; FRAME_BYTES_MAX];
    for found in Decoder::new().feed(bytes) {
        let Ok(frame) = found else { continue };
        let again = encode(&frame, &mut buffer).expect("a frame that was received is within its ranges");
        let read: Vec<_> = Decoder::new().feed(again).collect();
        assert_eq!(read, [Ok(frame)], "a frame that was received is the same when it is sent on");
    }
}

/// A configuration file: a configuration, or faults with line and remedy.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(faults) = Config::parse(text, Path::new("/etc/gengfu")) {
        assert!(!faults.is_empty(), "a refused file has a fault");
        assert!(faults.iter().all(|fault| fault.line > 0 && !fault.remedy.is_empty()), "{faults:?}");
    }
}

/// The body of a command; the first byte chooses the verb.
pub fn command(bytes: &[u8]) {
    const VERBS: [&str; 7] = ["receipt", "ack", "reset", "visit", "sounder", "test", "unknown"];
    let Some((verb, body)) = bytes.split_first() else { return };
    match Command::parse(VERBS[usize::from(*verb) % VERBS.len()], body) {
        Ok(command) => drop((command.operator().map(str::len), command.expires_at())),
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

/// An event as the centre receives it: what is understood hashes the same when it is sent on.
pub fn event(bytes: &[u8]) {
    let Ok(event) = Event::parse(bytes) else { return };
    let _ = (event.alarm(), event.observed());
    let Ok(canonical) = chain::canonical(&event) else { return };
    let again = Event::parse(&canonical).expect("what was understood is understood again");
    let same = chain::canonical(&again).expect("and has a canonical form again");
    assert_eq!(chain::hash(&same), chain::hash(&canonical), "an event sent on hashes the same");
}

/// A line between gateway and camera worker, in both directions.
pub fn camera_worker(bytes: &[u8]) {
    let _ = serde_json::from_slice::<WorkerLine>(bytes);
    if let Ok(ParentMessage::Config(setup)) = serde_json::from_slice::<ParentMessage>(bytes) {
        let _ = setup.fault();
        let _ = setup.cameras.iter().map(|camera| camera.faults().len()).sum::<usize>();
    }
}

/// Every shipped profile, in the order of their names.
fn profiles() -> &'static [Profile] {
    static PROFILES: OnceLock<Vec<Profile>> = OnceLock::new();
    PROFILES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/profiles");
        let shelf = plan::shelf(&folder).expect("the shipped profiles are there");
        shelf.into_iter().map(|(_, profile)| profile.expect("a shipped profile is valid")).collect()
    })
}

/// An answer of a Modbus device, read by a shipped profile: the first byte chooses which, the second which of its reads and as what.
pub fn modbus(bytes: &[u8]) {
    let [which, read, rest @ ..] = bytes else { return };
    let maps: Vec<&ModbusMap> =
        profiles().iter().filter_map(|p| if let Map::Modbus(m) = &p.map { Some(m) } else { None }).collect();
    let Some(map) = maps.get(usize::from(*which) % maps.len().max(1)) else { return };
    let data = if read & 0x80 == 0 {
        Data::Words(rest.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
    } else {
        Data::Bits(rest.iter().map(|byte| byte & 1 == 1).collect())
    };
    match decode_modbus(map, usize::from(read & 0x7f), &data) {
        Ok(readings) => assert!(readings.len() <= 8 * map.points.len(), "a point says one thing or a few"),
        Err(short) => assert!(!short.to_string().is_empty(), "a refusal says why"),
    }
}

/// A message of an MQTT device, read by a shipped profile: the first byte chooses which, the second which of its topics.
pub fn mqtt_device(bytes: &[u8]) {
    let [which, topic, payload @ ..] = bytes else { return };
    let topics: Vec<&MqttMap> =
        profiles().iter().filter_map(|p| if let Map::Mqtt(m) = &p.map { Some(m) } else { None }).collect();
    let Some(map) = topics.get(usize::from(*which) % topics.len().max(1)) else { return };
    let Some(topic) = map.topics.get(usize::from(*topic) % map.topics.len().max(1)) else { return };
    match decode_mqtt(topic, "door/1~", payload) {
        Ok(decoded) => assert!(decoded.link_quality.is_none_or(|quality| quality.checked_abs().is_some())),
        Err(malformed) => assert!(!malformed.to_string().is_empty(), "a refusal says why"),
    }
}

/// A sensor profile: a profile, or faults with line and remedy.
pub fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(faults) = gengfu::sensors::profile::parse(text) {
        assert!(!faults.is_empty(), "a refused profile has a fault");
        assert!(faults.iter().all(|fault| fault.line > 0 && !fault.remedy.is_empty()), "{faults:?}");
    }
}
