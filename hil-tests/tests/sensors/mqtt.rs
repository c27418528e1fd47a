//! Devices behind a real broker. Goal: what they publish is told, nothing is acknowledged to the broker before it is durable, and a broker that
//! is away is one trouble. Method: mosquitto with users, rumqttc as the devices, payloads of `tests/payloads`; this test as the decider.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use gengfu_alarm::observation::{Link, Smoke, What};
use hil_tests::broker::{Broker, BrokerOptions, Memory};
use hil_tests::ca::{Authority, Validity, mosquitto_listener, write};
use hil_tests::ports::Port;
use hil_tests::skip::Need;
use libtest_mimic::Trial;
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};

use crate::at_work;
use crate::rig::{PATIENCE, Sensors, payload, plan};

/// The tests of this file, run if there is a broker.
pub fn tests(broker: &Need) -> Vec<Trial> {
    vec![
        at_work("devices_of_three_projects_are_told", broker.clone(), devices_of_three_projects_are_told),
        at_work(
            "what_is_not_durable_is_not_acknowledged_and_comes_again_to_the_next_start",
            broker.clone(),
            what_is_not_durable_is_not_acknowledged_and_comes_again_to_the_next_start,
        ),
        at_work(
            "a_broker_that_is_away_is_one_trouble_and_comes_back",
            broker.clone(),
            a_broker_that_is_away_is_one_trouble_and_comes_back,
        ),
        at_work(
            "the_broker_knows_the_gateway_by_its_own_password",
            broker.clone(),
            the_broker_knows_the_gateway_by_its_own_password,
        ),
        at_work(
            "with_a_ca_file_only_the_broker_that_it_vouches_for_is_heard_and_again_after_each_loss",
            broker.clone(),
            with_a_ca_file_only_the_broker_that_it_vouches_for_is_heard_and_again_after_each_loss,
        ),
    ]
}

/// A site with a Zigbee bridge, a LoRaWAN server and a node of ESPHome.
fn site(port: u16, extra: &str) -> String {
    format!(
        r#"
[[device_broker]]
name = "devices"
broker = "127.0.0.1:{port}"
{extra}
[[device_broker.bridge]]
name = "z2m"
topic = "zigbee2mqtt/bridge/state"
[[device_broker.device]]
name = "door-301"
class = "door"
profile = "zigbee2mqtt-mccgq11lm"
address = "door-301"
via = "z2m"
[[device_broker.device]]
name = "smoke-301"
class = "smoke"
profile = "zigbee2mqtt-hs1sa"
address = "kitchen"
via = "z2m"
[[device_broker.device]]
name = "door-302"
class = "door"
profile = "chirpstack-milesight-ws301"
address = "24e124141d000001"
[[device_broker.device]]
name = "sos-303"
class = "sos"
profile = "esphome-sos"
address = "node-303"
part = "call"
"#
    )
}

/// Publishes, and waits until the broker has it.
async fn publish(port: u16, user: Option<(&str, &str)>, messages: &[(&str, Vec<u8>, bool)]) {
    let mut options = MqttOptions::new("devices-of-the-test", "127.0.0.1", port);
    if let Some((name, password)) = user {
        options.set_credentials(name, password);
    }
    let (client, mut event_loop) = AsyncClient::new(options, 64);
    for (topic, payload, retain) in messages {
        client.publish(*topic, QoS::AtLeastOnce, *retain, payload.clone()).await.unwrap();
    }
    let mut open = messages.len();
    let all = async {
        while open > 0 {
            if let Event::Incoming(Packet::PubAck(_)) = event_loop.poll().await.unwrap() {
                open -= 1;
            }
        }
        client.disconnect().await.unwrap();
        while !matches!(event_loop.poll().await, Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_)) {}
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the broker takes the messages");
}

const UPLINK: &str = "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/24e124141d000001/event/up";

async fn devices_of_three_projects_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &BrokerOptions::default()).unwrap();
    // Retained before the gateway comes.
    let retained = [
        ("zigbee2mqtt/bridge/state", payload("zigbee2mqtt/availability-online.json"), true),
        ("zigbee2mqtt/kitchen", payload("zigbee2mqtt/hs1sa-smoke.json"), true),
    ];
    publish(broker.port(), None, &retained).await;
    let mut sensors = Sensors::start(&plan(&site(broker.port(), "")), None);
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    let before = sensors.until("smoke-301", |what| *what == What::Smoke(Smoke::Alarm)).await;
    assert!(!before.iter().any(|(name, what)| name == "smoke-301" && *what == What::Heartbeat));
    let live = [
        ("zigbee2mqtt/door-301", payload("zigbee2mqtt/mccgq11lm-open.json"), false),
        (UPLINK, payload("chirpstack/ws301-open.json"), false),
        ("node-303/binary_sensor/call/state", payload("esphome/binary_sensor-on.txt"), false),
        ("zigbee2mqtt/door-301", b"\xff{".to_vec(), false),
    ];
    publish(broker.port(), None, &live).await;
    sensors.until("door-301", |what| *what == What::Door { open: true, repaired: true }).await;
    sensors.until("door-302", |what| *what == What::Door { open: true, repaired: true }).await;
    sensors.until("sos-303", |what| *what == What::SosPressed).await;
    let shown = sensors.status(|stats| stats.discards.contains_key("door-301: not JSON")).await;
    assert!(shown.up && shown.devices[0].link_quality == Some(102), "{shown:?}");
    sensors.stop().await;
}

async fn what_is_not_durable_is_not_acknowledged_and_comes_again_to_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &BrokerOptions::default()).unwrap();
    let site = plan(&site(broker.port(), ""));
    let mut sensors = Sensors::start(&site, None);
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    publish(broker.port(), None, &[("zigbee2mqtt/kitchen", payload("zigbee2mqtt/hs1sa-smoke.json"), false)]).await;
    // The disk refuses, and the gateway is killed before it could be handed over again.
    let batch = sensors.batch().await;
    assert!(batch.observations.iter().any(|seen| seen.what == What::Smoke(Smoke::Alarm)), "{batch:?}");
    batch.done.send(Err("the disk is full".into())).unwrap();
    let saved = sensors.saved.clone();
    sensors.stop().await;
    // Published while nobody was there.
    publish(broker.port(), None, &[("zigbee2mqtt/door-301", payload("zigbee2mqtt/mccgq11lm-open.json"), false)]).await;
    let mut sensors = Sensors::start(&site, saved);
    sensors.until("smoke-301", |what| *what == What::Smoke(Smoke::Alarm)).await;
    sensors.until("door-301", |what| matches!(what, What::Door { open: true, .. })).await;
    let saved = sensors.saved.clone();
    sensors.status(|stats| stats.understood >= 2).await;
    sensors.stop().await;
    // Now it is acknowledged: the next start hears nothing of it.
    let mut sensors = Sensors::start(&site, saved);
    publish(broker.port(), None, &[("zigbee2mqtt/kitchen", payload("zigbee2mqtt/hs1sa-clear.json"), false)]).await;
    let before = sensors.until("smoke-301", |what| *what == What::Smoke(Smoke::Clear)).await;
    assert!(!before.iter().any(|(_, what)| matches!(what, What::Smoke(_) | What::Door { .. })), "{before:?}");
    sensors.stop().await;
}

async fn a_broker_that_is_away_is_one_trouble_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &BrokerOptions::default()).unwrap();
    let mut sensors = Sensors::start(&plan(&site(broker.port(), "")), None);
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    broker.kill();
    let before =
        sensors.until("devices", |what| matches!(what, What::Link(Link::Down(t)) if t.contains("broker runs"))).await;
    assert!(before.is_empty(), "{before:?}");
    broker.restart(Memory::Empty).unwrap();
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    publish(broker.port(), None, &[("zigbee2mqtt/door-301", payload("zigbee2mqtt/mccgq11lm-open.json"), false)]).await;
    sensors.until("door-301", |what| *what == What::Door { open: true, repaired: true }).await;
    sensors.stop().await;
}

async fn the_broker_knows_the_gateway_by_its_own_password() {
    let dir = tempfile::tempdir().unwrap();
    let users = [("gengfu", "right"), ("zigbee", "bridge")].map(|(user, word)| (user.to_owned(), word.to_owned()));
    let broker = Broker::start(dir.path(), &BrokerOptions { users: users.into(), ..BrokerOptions::default() }).unwrap();
    let port = broker.port();
    let secret = dir.path().join("password");
    std::fs::write(&secret, "wrong\n").unwrap();
    let extra = format!("username = \"gengfu\"\npassword_file = {:?}", secret.display().to_string());
    let mut sensors = Sensors::start(&plan(&site(port, &extra)), None);
    let refused = sensors.status(|stats| stats.state.contains("broker refused")).await;
    assert!(refused.remedy.contains("password_file") && !format!("{refused:?}").contains("wrong"), "{refused:?}");
    // Corrected in the file; no restart.
    std::fs::write(&secret, "right\n").unwrap();
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    let zigbee = Some(("zigbee", "bridge"));
    publish(port, zigbee, &[("zigbee2mqtt/kitchen", payload("zigbee2mqtt/hs1sa-smoke.json"), false)]).await;
    sensors.until("smoke-301", |what| *what == What::Smoke(Smoke::Alarm)).await;
    tokio::time::timeout(Duration::from_secs(30), sensors.stop()).await.unwrap();
}

/// The broker's TLS listener is met by the gateway, the plain one beside it by the test's devices.
async fn with_a_ca_file_only_the_broker_that_it_vouches_for_is_heard_and_again_after_each_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, foreign) = (Authority::new("site-ca").unwrap(), Authority::new("site-ca").unwrap());
    let (tls, ca) = (Port::reserve().unwrap(), dir.path().join("ca.pem"));
    write(&dir.path().join("server-ca.pem"), &ours.pem()).unwrap();
    let certify = |authority: &Authority| {
        authority.server(&["127.0.0.1"], Validity::Now).unwrap().write(dir.path(), "server").unwrap()
    };
    let (certificate, key) = certify(&ours);
    let pair = (certificate.as_path(), key.as_path());
    let extra = mosquitto_listener(tls.number(), &dir.path().join("server-ca.pem"), pair, None, false);
    let mut broker = Broker::start(dir.path(), &BrokerOptions { extra, ..BrokerOptions::default() }).unwrap();
    let extra = format!("ca_file = {:?}", ca.display().to_string());

    // An authority of the same name, and another key.
    write(&ca, &foreign.pem()).unwrap();
    let mut sensors = Sensors::start(&plan(&site(tls.number(), &extra)), None);
    let refused = sensors.status(|stats| stats.state.contains("certificate")).await;
    assert!(!refused.up && refused.remedy.contains("ca_file"), "{refused:?}");
    // The right file in its place; no restart.
    write(&ca, &ours.pem()).unwrap();
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    publish(broker.port(), None, &[("zigbee2mqtt/kitchen", payload("zigbee2mqtt/hs1sa-smoke.json"), false)]).await;
    sensors.until("smoke-301", |what| *what == What::Smoke(Smoke::Alarm)).await;

    broker.kill();
    sensors.until("devices", |what| matches!(what, What::Link(Link::Down(_)))).await;
    broker.restart(Memory::Empty).unwrap();
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    publish(broker.port(), None, &[("zigbee2mqtt/door-301", payload("zigbee2mqtt/mccgq11lm-open.json"), false)]).await;
    sensors.until("door-301", |what| *what == What::Door { open: true, repaired: true }).await;

    // Somebody else's broker on the same port is not heard.
    certify(&foreign);
    broker.restart(Memory::Empty).unwrap();
    let refused = sensors.status(|stats| stats.state.contains("certificate")).await;
    assert!(!refused.up && refused.remedy.contains("ca_file"), "{refused:?}");
    certify(&ours);
    broker.restart(Memory::Empty).unwrap();
    sensors.until("devices", |what| *what == What::Link(Link::Up)).await;
    tokio::time::timeout(Duration::from_secs(30), sensors.stop()).await.unwrap();
}
