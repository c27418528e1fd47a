//! Goal: live, retained, late, copied and broken messages each have their effect and no other, and nothing is acknowledged before it is
//! durable. Method: scripts of messages in simulated time.

use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::observation::Smoke;
use gengfu_contract::event::{ClockQuality, Location};
use jiff::Timestamp;

use super::*;
use crate::config::{Device as Configured, DeviceClass};
use crate::sensors::config::{Bridge, DeviceBroker};
use crate::sensors::profile::parse;

const DOOR: &str = r#"
name = "acme-door"
maker = "Acme"
model = "Door"
source = "https://example.org/door"
link = "mqtt"
class = "door"
[[topic]]
pattern = "acme/{device}"
payload = "json"
time = "/time"
id = "/id"
[[topic.value]]
at = "/contact"
states = { true = "door.closed", false = "door.open" }
[[topic]]
pattern = "acme/{device}/availability"
payload = "any"
[[topic.value]]
at = ["/state", ""]
states = { online = "online", offline = "offline" }
"#;

const HEAD: &str = r#"
name = "acme-head"
maker = "Acme"
model = "Head"
source = "https://example.org/head"
link = "mqtt"
class = "smoke"
[[topic]]
pattern = "acme/{device}"
payload = "json"
time = "/time"
[[topic.value]]
at = "/smoke"
states = { true = "smoke.alarm", false = "smoke.clear" }
"#;

fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

fn plan() -> BrokerPlan {
    let device = |name: &str, class, text: &str| DevicePlan {
        device: Configured {
            name: slug(name),
            class,
            left_open_after: None,
            dwelling: None,
            subject_ref: None,
            replace_by: None,
            supervision: None,
            care: None,
            location: Location::default(),
        },
        profile: Arc::new(parse(text).unwrap()),
        address: name.into(),
        part: String::new(),
        via: Some(slug("bridge")),
    };
    let config = DeviceBroker {
        name: slug("broker"),
        host: "127.0.0.1".into(),
        port: 1883,
        client_id: "test".into(),
        username: None,
        password_file: None,
        ca_file: None,
        keep_alive: Duration::from_secs(20),
        bridges: vec![Bridge { name: slug("bridge"), topic: "acme/bridge/state".into() }],
        devices: Vec::new(),
    };
    let devices = vec![device("door", DeviceClass::Door, DOOR), device("head", DeviceClass::Smoke, HEAD)];
    BrokerPlan { config, devices }
}

fn start() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn moment(s: i64) -> Moment {
    let uptime = SignedDuration::from_secs(s);
    Moment { now: start() + uptime, quality: ClockQuality::Synced, uptime }
}

fn inbox(saved: Option<&[u8]>) -> Inbox {
    let mut inbox = Inbox::new(plan(), saved, moment(0));
    inbox.connected(moment(0));
    taken(&mut inbox);
    inbox
}

/// Everything waiting, made durable, without what the bridge and the broker say of themselves.
fn taken(inbox: &mut Inbox) -> Vec<(String, What)> {
    let mut all = Vec::new();
    while let Some((batch, _)) = inbox.take_batch() {
        inbox.committed();
        all.extend(batch.into_iter().map(|seen| (seen.device.to_string(), seen.what)));
    }
    all.retain(|(device, _)| !["bridge", "broker"].contains(&device.as_str()));
    all
}

/// The state that a run leaves for the next one.
fn saved(mut inbox: Inbox) -> Vec<u8> {
    inbox.on_message(moment(9_000), "acme/head", br#"{"smoke": false}"#, false);
    inbox.take_batch().map(|(_, cursor)| cursor).unwrap()
}

fn door(open: bool, repaired: bool) -> (String, What) {
    ("door".into(), What::Door { open, repaired })
}

fn beat(device: &str) -> (String, What) {
    (device.into(), What::Heartbeat)
}

const OPEN: &[u8] = br#"{"contact": false}"#;
const CLOSED: &[u8] = br#"{"contact": true}"#;

#[test]
fn a_live_message_tells_a_change_and_that_the_device_lives() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(1), "acme/door", OPEN, false);
    assert_eq!(taken(&mut inbox), [door(true, true)], "the first level since the start is repaired");
    inbox.on_message(moment(2), "acme/door", CLOSED, false);
    assert_eq!(taken(&mut inbox), [door(false, false)]);
    inbox.on_message(moment(3), "acme/door", CLOSED, false);
    assert_eq!(taken(&mut inbox), []);
    inbox.on_message(moment(70), "acme/door", CLOSED, false);
    assert_eq!(taken(&mut inbox), [beat("door")]);
}

#[test]
fn a_retained_message_is_no_sign_of_life_and_tells_only_what_differs_also_after_a_restart() {
    let mut first = inbox(None);
    first.on_message(moment(1), "acme/door", OPEN, true);
    assert_eq!(taken(&mut first), [door(true, true)]);
    first.on_message(moment(500), "acme/door", OPEN, true);
    assert_eq!(taken(&mut first), []);
    let kept = saved(first);
    let mut second = inbox(Some(&kept));
    second.on_message(moment(1), "acme/door", OPEN, true);
    assert_eq!(taken(&mut second), [], "a dead sensor does not come alive by a restart");
    second.on_message(moment(2), "acme/door", CLOSED, true);
    assert_eq!(taken(&mut second), [door(false, true)]);
    let mut third = inbox(Some(b"not JSON"));
    third.on_message(moment(1), "acme/door", OPEN, true);
    assert_eq!(taken(&mut third), [door(true, true)], "what cannot be read is as if nothing had been told");
}

#[test]
fn a_retained_smoke_alarm_is_an_alarm() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(1), "acme/head", br#"{"smoke": true}"#, true);
    assert_eq!(taken(&mut inbox), [("head".into(), What::Smoke(Smoke::Alarm))]);
}

#[test]
fn the_payloads_time_is_when_it_was_sensed_and_never_in_the_future() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(100), "acme/door", br#"{"contact": false, "time": "2026-03-01T08:01:30Z"}"#, false);
    let (batch, _) = inbox.take_batch().unwrap();
    let seen = batch.iter().find(|seen| matches!(seen.what, What::Door { .. })).unwrap();
    assert_eq!(seen.sensed_at, start() + SignedDuration::from_secs(90));
    inbox.committed();
    inbox.on_message(moment(200), "acme/door", br#"{"contact": true, "time": "2030-01-01T00:00:00Z"}"#, false);
    let (batch, _) = inbox.take_batch().unwrap();
    assert_eq!(batch[0].sensed_at, moment(200).now);
}

#[test]
fn what_is_retained_and_older_moves_no_door_back_and_what_is_late_proves_no_life_but_its_fire_counts() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(3600), "acme/door", br#"{"contact": true, "time": "2026-03-01T08:59:59Z"}"#, false);
    taken(&mut inbox);
    inbox.on_message(moment(3700), "acme/door", br#"{"contact": false, "time": "2026-03-01T08:30:00Z"}"#, true);
    assert_eq!(taken(&mut inbox), []);
    inbox.on_message(moment(3701), "acme/door", br#"{"contact": false, "time": "2026-03-01T08:30:00Z"}"#, false);
    assert_eq!(taken(&mut inbox), [door(true, false)], "live, by a clock that is behind");
    inbox.on_message(moment(3700), "acme/head", br#"{"smoke": true, "time": "2026-03-01T08:30:00Z"}"#, false);
    assert_eq!(taken(&mut inbox), [("head".into(), What::Smoke(Smoke::Alarm))], "and no heartbeat");
}

#[test]
fn a_copy_is_dropped_by_its_id() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(1), "acme/door", br#"{"contact": false, "id": "a"}"#, false);
    inbox.on_message(moment(2), "acme/door", br#"{"contact": true, "id": "b"}"#, false);
    taken(&mut inbox);
    inbox.on_message(moment(3), "acme/door", br#"{"contact": false, "id": "a"}"#, false);
    assert_eq!(taken(&mut inbox), []);
    assert_eq!(inbox.stats().discards["door: copy"], 1);
}

#[test]
fn a_last_will_is_a_link_that_is_down_until_the_device_speaks_again() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(1), "acme/door/availability", b"offline", true);
    let seen = taken(&mut inbox);
    assert!(matches!(&seen[..], [(name, What::Link(Link::Down(_)))] if name == "door"), "{seen:?}");
    assert_eq!(inbox.stats().devices[0].up, Some(false));
    inbox.on_message(moment(2), "acme/door/availability", br#"{"state": "offline"}"#, false);
    assert_eq!(taken(&mut inbox), []);
    inbox.on_message(moment(3), "acme/door", CLOSED, false);
    assert_eq!(taken(&mut inbox)[..2], [("door".into(), What::Link(Link::Up)), door(false, true)]);
    assert_eq!(inbox.stats().devices[0].up, Some(true));
    inbox.on_message(moment(4), "acme/door", OPEN, false);
    assert_eq!(taken(&mut inbox), [door(true, false)], "what it says outdoes its last will");
    inbox.on_message(moment(4), "acme/door/availability", b"online", false);
    assert_eq!(taken(&mut inbox), []);
    inbox.on_message(moment(900), "acme/door/availability", b"online", false);
    assert_eq!(taken(&mut inbox), [], "a bridge that is started says it of all its devices");
}

#[test]
fn a_bridge_says_once_that_it_is_away_and_a_device_behind_it_that_it_is_back() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(1), "acme/bridge/state", br#"{"state":"offline"}"#, true);
    let (batch, _) = inbox.take_batch().unwrap();
    assert!(
        matches!(&batch[..], [seen] if seen.device == slug("bridge") && matches!(seen.what, What::Link(Link::Down(_))))
    );
    inbox.committed();
    inbox.on_message(moment(2), "acme/door", CLOSED, false);
    let (batch, _) = inbox.take_batch().unwrap();
    assert!(batch.iter().any(|seen| seen.device == slug("bridge") && seen.what == What::Link(Link::Up)), "{batch:?}");
}

#[test]
fn a_broken_message_is_counted_with_its_device_and_its_reason() {
    let mut inbox = inbox(None);
    inbox.on_message(moment(1), "acme/door", b"{", false);
    inbox.on_message(moment(1), "acme/door", br#"{"voltage": 3}"#, false);
    inbox.on_message(moment(1), "acme/somebody", OPEN, false);
    inbox.on_message(moment(1), "acme/door", b"", true);
    inbox.on_message(moment(1), "acme/bridge/state", b"starting", true);
    assert_eq!(taken(&mut inbox), []);
    let discards = inbox.stats().discards.clone();
    let expected =
        ["bridge: neither online nor offline", "broker: nobody's topic", "door: no known value", "door: not JSON"];
    assert_eq!(discards.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    inbox.on_message(moment(2), "acme/door", br#"{"contact": "ajar"}"#, false);
    assert_eq!(taken(&mut inbox)[0], ("door".into(), What::DeviceFault(true)));
    let warning = inbox.stats().warnings[0].text.clone();
    assert!(warning.contains("door") && warning.contains("ajar") && warning.contains("acme-door"), "{warning}");
}

#[test]
fn a_message_may_be_acknowledged_only_when_all_it_said_is_durable() {
    let mut inbox = inbox(None);
    let number = inbox.on_message(moment(1), "acme/door", OPEN, false);
    assert!(!inbox.is_settled(number));
    inbox.take_batch().unwrap();
    let later = inbox.on_message(moment(2), "acme/door", CLOSED, false);
    inbox.failed();
    assert!(!inbox.is_settled(number));
    inbox.take_batch().unwrap();
    inbox.committed();
    assert!(inbox.is_settled(number) && inbox.is_settled(later));
    let nothing_new = inbox.on_message(moment(3), "acme/door", CLOSED, false);
    assert!(inbox.is_settled(nothing_new));
}

#[test]
fn a_broker_that_is_away_is_one_trouble() {
    let mut inbox = inbox(None);
    let problem = Problem::Broker { reason: "no connection".into(), remedy: "start it".into() };
    inbox.lost(moment(1), &problem);
    inbox.lost(moment(2), &problem);
    let (batch, _) = inbox.take_batch().unwrap();
    assert!(
        matches!(&batch[..], [seen] if seen.device == slug("broker") && matches!(&seen.what, What::Link(Link::Down(t)) if t.contains("start it")))
    );
    inbox.committed();
    inbox.connected(moment(3));
    let (batch, _) = inbox.take_batch().unwrap();
    assert_eq!(batch[0].what, What::Link(Link::Up));
}
