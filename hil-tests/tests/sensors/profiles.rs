//! Every shipped profile. Goal: each one loads, and says of the payloads and registers that its source documents what they mean. Method: the
//! files of `payloads` through the inbox, register images through the decoder. A profile without a case here is a failure.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use gengfu::sensors::Moment;
use gengfu::sensors::handover::Source;
use gengfu::sensors::modbus::decode::{Data, decode};
use gengfu::sensors::mqtt::inbox::Inbox;
use gengfu::sensors::plan::shelf;
use gengfu::sensors::profile::{Map, Profile};
use gengfu::sensors::words::{Facet, Fact};
use gengfu_alarm::observation::{Link, Smoke, What};
use gengfu_contract::event::ClockQuality;
use hil_tests::skip::{self, need};
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;

use crate::rig::{payload, plan, profiles};

/// The tests of this file; they need nothing.
pub fn tests() -> Vec<Trial> {
    let all: [(&str, fn()); 11] = [
        (
            "every_profile_loads_names_its_source_and_has_a_case_here",
            every_profile_loads_names_its_source_and_has_a_case_here,
        ),
        ("aqara_door_over_zigbee2mqtt", aqara_door_over_zigbee2mqtt),
        ("tuya_door_over_zigbee2mqtt", tuya_door_over_zigbee2mqtt),
        ("heiman_smoke_over_zigbee2mqtt", heiman_smoke_over_zigbee2mqtt),
        ("aqara_smoke_over_zigbee2mqtt", aqara_smoke_over_zigbee2mqtt),
        ("milesight_door_over_chirpstack", milesight_door_over_chirpstack),
        ("milesight_smoke_over_chirpstack", milesight_smoke_over_chirpstack),
        ("dragino_door_over_chirpstack", dragino_door_over_chirpstack),
        ("esphome_binary_sensors", esphome_binary_sensors),
        ("tasmota_switch", tasmota_switch),
        ("input_modules_and_a_smoke_detector_over_modbus", input_modules_and_a_smoke_detector_over_modbus),
    ];
    all.into_iter().map(|(name, body)| skip::test(name, need::nothing(), body)).collect()
}

fn profile(name: &str) -> Profile {
    gengfu::sensors::profile::load(&profiles().join(format!("{name}.toml"))).unwrap()
}

fn moment(s: i64) -> Moment {
    let uptime = SignedDuration::from_secs(s);
    let start: Timestamp = "2026-03-01T08:00:30Z".parse().unwrap();
    Moment { now: start + uptime, quality: ClockQuality::Synced, uptime }
}

/// A device of a profile, to which messages are said one after the other.
struct Told {
    inbox: Inbox,
    at: i64,
}

impl Told {
    fn new(profile: &str, address: &str, extra: &str) -> Self {
        let text = format!(
            "[[device_broker]]\nname = \"broker\"\nbroker = \"127.0.0.1:1883\"\n[[device_broker.device]]\nname = \"it\"\n\
             profile = \"{profile}\"\naddress = \"{address}\"\nclass = \"{}\"\n{extra}",
            self::profile(profile).class.unwrap().as_str()
        );
        let mut inbox = Inbox::new(plan(&text).brokers.remove(0), None, moment(0));
        inbox.connected(moment(0));
        let mut told = Self { inbox, at: 0 };
        told.take();
        told
    }

    fn take(&mut self) -> Vec<What> {
        let mut all = Vec::new();
        while let Some((batch, _)) = self.inbox.take_batch() {
            self.inbox.committed();
            all.extend(batch.into_iter().filter(|seen| seen.device.as_str() == "it").map(|seen| seen.what));
        }
        all.retain(|what| *what != What::Heartbeat);
        all
    }

    fn hears(&mut self, topic: &str, file: &str) -> Vec<What> {
        self.at += 1;
        let filters = self.inbox.filters();
        assert!(filters.iter().any(|f| gengfu::sensors::mqtt::topic::matches(f, topic)), "{topic} in {filters:?}");
        self.inbox.on_message(moment(self.at), topic, &payload(file), false);
        let discards = &self.inbox.stats().discards;
        assert!(discards.is_empty(), "{file}: {discards:?}");
        assert!(self.inbox.stats().warnings.is_empty(), "{file}: {:?}", self.inbox.stats().warnings);
        self.take()
    }
}

fn door(open: bool, repaired: bool) -> What {
    What::Door { open, repaired }
}

fn battery(millivolts: u32, low: bool) -> What {
    What::Battery { millivolts, low }
}

fn every_profile_loads_names_its_source_and_has_a_case_here() {
    let found = shelf(&profiles()).unwrap();
    for (path, profile) in &found {
        let profile = profile.as_ref().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            profile.source.starts_with("https://") || profile.source.to_lowercase().contains("manual"),
            "{}",
            profile.source
        );
    }
    let here = include_str!("profiles.rs");
    let names: BTreeSet<&str> =
        found.iter().filter_map(|(_, profile)| Some(profile.as_ref().ok()?.name.as_str())).collect();
    assert_eq!(names.len(), 14, "{names:?}");
    for name in names {
        assert!(here.contains(&format!("\"{name}\"")), "{name} has no case");
    }
}

fn aqara_door_over_zigbee2mqtt() {
    let mut it = Told::new("zigbee2mqtt-mccgq11lm", "0x00158d0001234567", "");
    let topic = "zigbee2mqtt/0x00158d0001234567";
    assert_eq!(it.hears(topic, "zigbee2mqtt/mccgq11lm-open.json"), [door(true, true), battery(3055, false)]);
    assert_eq!(it.hears(topic, "zigbee2mqtt/mccgq11lm-closed.json"), [door(false, false)]);
    assert_eq!(it.inbox.stats().devices[0].link_quality, Some(98));
    let availability = format!("{topic}/availability");
    assert!(matches!(
        it.hears(&availability, "zigbee2mqtt/availability-offline.json")[..],
        [What::Link(Link::Down(_))]
    ));
    assert_eq!(it.hears(&availability, "zigbee2mqtt/availability-online.json"), [What::Link(Link::Up)]);
}

fn tuya_door_over_zigbee2mqtt() {
    let mut it = Told::new("zigbee2mqtt-ts0203", "hall/door", "");
    let seen = it.hears("zigbee2mqtt/hall/door", "zigbee2mqtt/ts0203-tamper-low.json");
    assert_eq!(seen, [door(false, true), What::Tamper(true), battery(2454, true)]);
}

fn heiman_smoke_over_zigbee2mqtt() {
    let mut it = Told::new("zigbee2mqtt-hs1sa", "kitchen", "");
    let seen = it.hears("zigbee2mqtt/kitchen", "zigbee2mqtt/hs1sa-smoke.json");
    assert_eq!(seen, [What::Smoke(Smoke::Alarm), battery(3000, false)]);
    assert_eq!(it.hears("zigbee2mqtt/kitchen", "zigbee2mqtt/hs1sa-clear.json"), [What::Smoke(Smoke::Clear)]);
}

fn aqara_smoke_over_zigbee2mqtt() {
    let mut it = Told::new("zigbee2mqtt-jy-gz-01aq", "kitchen", "");
    let seen = it.hears("zigbee2mqtt/kitchen", "zigbee2mqtt/jy-gz-01aq-test.json");
    assert_eq!(seen, [What::Smoke(Smoke::Test), battery(3090, false)]);
    assert_eq!(it.hears("zigbee2mqtt/kitchen", "zigbee2mqtt/jy-gz-01aq-hushed.json"), [What::Smoke(Smoke::Hushed)]);
}

fn milesight_door_over_chirpstack() {
    let mut it = Told::new("chirpstack-milesight-ws301", "24e124141d000001", "");
    let topic = "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/24e124141d000001/event/up";
    it.at = 1;
    it.inbox.on_message(moment(1), topic, &payload("chirpstack/ws301-open.json"), false);
    let (batch, _) = it.inbox.take_batch().unwrap();
    assert_eq!(batch[0].what, door(true, true));
    assert_eq!(batch[0].sensed_at, "2026-03-01T08:00:15.775023242Z".parse::<Timestamp>().unwrap());
    let said: Vec<&What> = batch.iter().map(|seen| &seen.what).collect();
    assert_eq!(said[1..], [&What::Tamper(false), &battery(3600, false)]);
    assert_eq!(it.inbox.stats().devices[0].link_quality, Some(-48));
    // The same uplink through a second way, and one without a codec.
    it.inbox.on_message(moment(2), topic, &payload("chirpstack/ws301-open.json"), false);
    it.inbox.on_message(moment(3), topic, &payload("chirpstack/ws301-no-codec.json"), false);
    let stats = it.inbox.stats();
    assert_eq!((stats.discards["it: copy"], stats.discards["it: a part is missing"]), (1, 1));
    assert!(stats.warnings[0].remedy.contains("codec"), "{:?}", stats.warnings);
}

fn milesight_smoke_over_chirpstack() {
    let mut it = Told::new("chirpstack-milesight-gs524n", "24e124538c000002", "");
    let topic = "application/1/device/24e124538c000002/event/up";
    let seen = it.hears(topic, "chirpstack/gs524n-alarm.json");
    assert_eq!(seen, [What::Smoke(Smoke::Alarm), What::DeviceFault(false), battery(3000, false)]);
    assert_eq!(it.hears(topic, "chirpstack/gs524n-silent.json"), [What::Smoke(Smoke::Hushed)]);
    assert_eq!(it.hears(topic, "chirpstack/gs524n-normal.json"), [What::Smoke(Smoke::Clear)]);
    assert_eq!(it.hears(topic, "chirpstack/gs524n-removed.json"), [What::Tamper(true)]);
}

fn dragino_door_over_chirpstack() {
    let mut it = Told::new("chirpstack-dragino-lds02", "a84041000181aaaa", "");
    let seen = it.hears("application/1/device/a84041000181aaaa/event/up", "chirpstack/lds02-open.json");
    assert_eq!(seen, [door(true, true), battery(3012, false)]);
}

fn esphome_binary_sensors() {
    let smoke = |smoke| What::Smoke(if smoke { Smoke::Alarm } else { Smoke::Clear });
    let cases = [
        ("esphome-door", door(true, true), vec![door(false, false)]),
        ("esphome-smoke", smoke(true), vec![smoke(false)]),
        ("esphome-sos", What::SosPressed, vec![]),
    ];
    for (profile, on, off) in cases {
        let mut it = Told::new(profile, "node-7", "part = \"front\"\n");
        assert_eq!(it.hears("node-7/binary_sensor/front/state", "esphome/binary_sensor-on.txt"), [on]);
        assert_eq!(it.hears("node-7/binary_sensor/front/state", "esphome/binary_sensor-off.txt"), off);
        assert!(matches!(it.hears("node-7/status", "esphome/status-offline.txt")[..], [What::Link(Link::Down(_))]));
        assert_eq!(it.hears("node-7/sensor/uptime/state", "esphome/uptime.txt"), [What::Link(Link::Up)]);
        assert_eq!(it.hears("node-7/status", "esphome/status-online.txt"), []);
    }
}

fn tasmota_switch() {
    let mut it = Told::new("tasmota-door", "hall", "part = \"Switch1\"\n");
    assert_eq!(it.hears("tele/hall/SENSOR", "tasmota/sensor-on.json"), [door(false, true)]);
    assert_eq!(it.hears("tele/hall/SENSOR", "tasmota/sensor-off.json"), [door(true, false)]);
    assert_eq!(it.hears("stat/hall/RESULT", "tasmota/result-action-off.json"), []);
    assert!(matches!(it.hears("tele/hall/LWT", "tasmota/lwt-offline.txt")[..], [What::Link(Link::Down(_))]));
    assert_eq!(it.hears("tele/hall/LWT", "tasmota/lwt-online.txt"), [What::Link(Link::Up)]);
}

fn input_modules_and_a_smoke_detector_over_modbus() {
    for (name, inputs) in [("waveshare-modbus-rtu-io-8ch", 8_u8), ("advantech-adam-4051", 16)] {
        let Map::Modbus(map) = profile(name).map else { panic!("{name}") };
        let mut bits = vec![false; usize::from(inputs)];
        bits[2] = true;
        let readings = decode(&map, 0, &Data::Bits(bits)).unwrap();
        let expected: Vec<(u8, Fact)> = (1..=inputs).map(|n| (n, Fact::Contact(n == 3))).collect();
        assert_eq!(readings.into_iter().map(|(n, r)| (n, r.fact)).collect::<Vec<_>>(), expected, "{name}");
    }
    let Map::Modbus(map) = profile("calectro-uniguard-ug-3-mb").map else { panic!() };
    let facts = |bits: [bool; 4]| -> Vec<Fact> {
        decode(&map, 0, &Data::Bits(bits.to_vec())).unwrap().into_iter().map(|(_, reading)| reading.fact).collect()
    };
    let level = Fact::Level;
    let well = [
        level(Facet::Tamper, false),
        level(Facet::Fault, false),
        level(Facet::Contaminated, false),
        level(Facet::Smoke, false),
    ];
    assert_eq!(facts([true, false, false, false]), well);
    assert_eq!(facts([true, true, true, true])[2..], [level(Facet::Contaminated, true), level(Facet::Smoke, true)]);
    assert_eq!(facts([false, false, false, false])[..2], [level(Facet::Tamper, true), level(Facet::Fault, true)]);
}
