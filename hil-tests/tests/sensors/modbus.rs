//! Modbus units at work. Goal: what hangs on them is told, losses are told where they belong, and nothing told is lost. Method: pymodbus as
//! the units, on a pseudo-terminal pair and on TCP; the real task; this test as the decider, which waits for what must happen.
#![allow(clippy::unwrap_used)]

use gengfu_alarm::observation::{Link, Smoke, What};
use hil_tests::ports::Port;
use hil_tests::skip::Need;
use libtest_mimic::Trial;

use crate::at_work;
use crate::rig::{ModbusServer, NullModem, Sensors, plan, pymodbus};

/// The tests of this file, run if `units` are there.
pub fn tests(units: &Need) -> Vec<Trial> {
    vec![
        at_work("a_line_of_rs485_tells_its_whole_story", units.clone(), a_line_of_rs485_tells_its_whole_story),
        at_work("modbus_tcp_tells_its_whole_story", units.clone(), modbus_tcp_tells_its_whole_story),
        at_work(
            "a_device_that_is_away_or_not_the_right_one_is_told_with_its_remedy",
            units.clone(),
            a_device_that_is_away_or_not_the_right_one_is_told_with_its_remedy,
        ),
        at_work(
            "a_port_that_is_not_there_or_taken_is_told_with_its_remedy",
            Ok(()),
            a_port_that_is_not_there_or_taken_is_told_with_its_remedy,
        ),
    ]
}

/// An input module with a door and a smoke relay, and a smoke detector.
fn line(way: &str) -> String {
    format!(
        r#"
[[modbus]]
name = "rs485-1"
{way}
timeout = "200ms"
retry_every = "1s"
[[modbus.unit]]
name = "inputs-1"
address = 1
profile = "waveshare-modbus-rtu-io-8ch"
[[modbus.unit.device]]
channel = 3
name = "door-301"
class = "door"
[[modbus.unit.device]]
channel = 8
name = "smoke-302"
class = "smoke"
inverted = true
[[modbus.unit]]
name = "duct-1"
address = 17
profile = "calectro-uniguard-ug-3-mb"
[[modbus.unit.device]]
name = "smoke-duct"
class = "smoke"
"#
    )
}

const UNITS: &str = "1:d:8,17:d:4";

fn is_down(what: &What, words: &str) -> bool {
    matches!(what, What::Link(Link::Down(text)) if text.contains(words))
}

/// The whole story of a line.
async fn the_whole_line(way: &str, server: &mut ModbusServer) {
    // A closed door, a relay that is held (normally closed), a detector on its base.
    for command in ["set 1 2 1", "set 1 7 1", "set 17 0 1"] {
        server.tell(command);
    }
    let plan = plan(&line(way));
    let mut sensors = Sensors::start(&plan, None);
    sensors.until("rs485-1", |what| *what == What::Link(Link::Up)).await;
    let mut first = sensors.until("smoke-duct", |what| *what == What::Smoke(Smoke::Clear)).await;
    first.extend(sensors.seen.iter().cloned());
    for seen in [("door-301", What::Door { open: false, repaired: true }), ("smoke-302", What::Smoke(Smoke::Clear))] {
        assert!(first.contains(&(seen.0.to_owned(), seen.1.clone())), "{seen:?} in {first:?}");
    }
    server.tell("set 1 2 0");
    sensors.until("door-301", |what| *what == What::Door { open: true, repaired: false }).await;
    // The relay falls open: smoke. The disk refuses it once.
    server.tell("set 1 7 0");
    let batch = loop {
        let batch = sensors.batch().await;
        if batch.observations.iter().any(|seen| seen.what == What::Smoke(Smoke::Alarm)) {
            break batch;
        }
        batch.done.send(Ok(())).unwrap();
    };
    batch.done.send(Err("the disk is full".into())).unwrap();
    sensors.until("smoke-302", |what| *what == What::Smoke(Smoke::Alarm)).await;
    assert_eq!(sensors.stats.borrow().refused, 1);
    // The detector itself, its dirt, and its base.
    server.tell("set 17 1 1 1");
    sensors.until("smoke-duct", |what| *what == What::Smoke(Smoke::Alarm)).await;
    sensors.until("smoke-duct", |what| *what == What::Contaminated(true)).await;
    server.tell("set 17 0 0 0 0");
    sensors.until("smoke-duct", |what| *what == What::Smoke(Smoke::Clear)).await;
    sensors.until("smoke-duct", |what| *what == What::Tamper(true)).await;

    // One unit falls silent; the other goes on.
    server.tell("mute 17");
    sensors.until("duct-1", |what| is_down(what, "does not answer")).await;
    server.tell("set 1 2 1");
    sensors.until("door-301", |what| *what == What::Door { open: false, repaired: false }).await;
    let shown = sensors.stats.borrow().clone();
    assert!(shown.up && shown.devices[1].up == Some(false) && shown.devices[1].remedy.contains("A and B"), "{shown:?}");
    server.tell("speak 17");
    sensors.until("duct-1", |what| *what == What::Link(Link::Up)).await;

    // A broken answer is counted, and nobody is lost for it.
    server.tell("garble 1");
    sensors.status(|stats| stats.discards.keys().any(|key| key.starts_with("inputs-1: "))).await;
    server.tell("set 1 2 0");
    let before = sensors.until("door-301", |what| matches!(what, What::Door { open: true, .. })).await;
    assert!(!before.iter().any(|(_, what)| matches!(what, What::Link(Link::Down(_)))), "{before:?}");

    // All silent: one trouble, the line's.
    server.tell("mute 1");
    server.tell("mute 17");
    let before = sensors.until("rs485-1", |what| matches!(what, What::Link(Link::Down(_)))).await;
    assert!(!before.iter().any(|(_, what)| matches!(what, What::Link(Link::Down(_)))), "{before:?}");
    server.tell("speak 1");
    server.tell("speak 17");
    sensors.until("rs485-1", |what| *what == What::Link(Link::Up)).await;
    sensors.stop().await;
}

async fn a_line_of_rs485_tells_its_whole_story() {
    let python = pymodbus().unwrap();
    let cable = NullModem::new();
    let mut server = ModbusServer::start(&python, "rtu", cable.theirs.to_str().unwrap(), UNITS);
    the_whole_line(&format!("port = {:?}\nbaud = 115200", cable.ours), &mut server).await;
}

async fn modbus_tcp_tells_its_whole_story() {
    let python = pymodbus().unwrap();
    let held = Port::reserve().unwrap();
    let port = held.number();
    let mut server = ModbusServer::start(&python, "tcp", &port.to_string(), UNITS);
    the_whole_line(&format!("host = \"127.0.0.1:{port}\""), &mut server).await;
}

async fn a_device_that_is_away_or_not_the_right_one_is_told_with_its_remedy() {
    let python = pymodbus().unwrap();
    let held = Port::reserve().unwrap();
    let port = held.number();
    let plan = plan(&line(&format!("host = \"127.0.0.1:{port}\"")));
    let mut sensors = Sensors::start(&plan, None);
    sensors.until("rs485-1", |what| is_down(what, "no connection")).await;
    // Four registers where the profile wants inputs.
    let server = ModbusServer::start(&python, "tcp", &port.to_string(), "1:h:4,17:d:4");
    sensors.until("inputs-1", |what| is_down(what, "profile does not fit")).await;
    drop(server);
    sensors.until("rs485-1", |what| matches!(what, What::Link(Link::Down(_)))).await;
    sensors.stop().await;
}

async fn a_port_that_is_not_there_or_taken_is_told_with_its_remedy() {
    let mut sensors = Sensors::start(&plan(&line("port = \"/dev/nowhere\"")), None);
    sensors.until("rs485-1", |what| is_down(what, "does not exist")).await;
    sensors.stop().await;
    let cable = NullModem::new();
    let taken = std::fs::File::open(&cable.ours).unwrap();
    rustix::fs::flock(&taken, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut sensors = Sensors::start(&plan(&line(&format!("port = {:?}", cable.ours))), None);
    sensors.until("rs485-1", |what| is_down(what, "another program")).await;
    sensors.stop().await;
}
