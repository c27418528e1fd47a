//! The road from the outbox to the desk over a real broker. Goal: what was journaled arrives, whatever happens to the broker, the
//! connection or either end, and faults show as states. Method: mosquitto as a process that is killed, frozen and restarted
//! empty, over both MQTT versions; the embedded broker of the demonstration; the real uplink, outbox and desk, in this process.
#![allow(clippy::unwrap_used)]

mod brokers;
mod missing;
mod protocol;
mod rig;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use gengfu::config::Protocol::{self, Mqtt5, Mqtt311};
use gengfu::demo::broker::{BrokerPorts, start as start_embedded};
use gengfu::desk::{Arrival, DeskEvent};
use gengfu::uplink::LinkState;
use gengfu_contract::command::{Command, Outcome, Reply};
use gengfu_contract::state::{AlarmSnapshot, DeviceState, Presence};
use gengfu_contract::topic::Topics;
use gengfu_contract::words::AlarmKind;
use hil_tests::broker::{Broker, BrokerOptions, Memory};
use hil_tests::ports::Port;
use hil_tests::skip::{self, need};
use rig::*;

fn main() -> ExitCode {
    macro_rules! on_mosquitto {
        ($($name:literal => $test:expr),* $(,)?) => {
            vec![$(skip::test($name, need::tool("mosquitto"), || run($test)),)*]
        };
    }
    let mut tests = on_mosquitto![
        "the_whole_road_over_mosquitto_with_mqtt_5" => over_mosquitto(Mqtt5),
        "the_whole_road_over_mosquitto_with_mqtt_3_1_1" => over_mosquitto(Mqtt311),
        "nothing_is_missing_after_the_broker_was_killed_and_restarted_empty_with_mqtt_5" => a_broker_killed_and_restarted_empty(Mqtt5),
        "nothing_is_missing_after_the_broker_was_killed_and_restarted_empty_with_mqtt_3_1_1" => a_broker_killed_and_restarted_empty(Mqtt311),
        "a_frozen_broker_is_noticed_and_everything_arrives_when_it_thaws" => a_frozen_broker(),
        "a_gateway_that_dies_is_told_by_its_will_and_goes_on_where_it_was" => a_gateway_that_dies(),
        "a_desk_that_comes_late_gets_everything_and_missing_receipts_are_a_state_until_then" => a_desk_that_comes_late(),
        "a_topic_the_broker_refuses_shows_as_a_state_and_loses_nothing_with_mqtt_5" => a_refused_topic(),
        "retained_alarms_that_are_over_and_devices_that_are_no_more_are_emptied_after_a_restart" => retained_leftovers(),
        "a_broker_that_dies_is_left_for_the_next_and_returned_to_when_it_is_back" => brokers::killed_and_back(),
        "a_broker_that_takes_and_does_not_acknowledge_is_left" => brokers::frozen(),
        "a_broker_that_leads_to_no_receipts_is_left" => brokers::without_receipts(),
        "a_preferred_broker_that_is_back_but_useless_is_left_again_and_nothing_is_lost" => brokers::back_but_useless(),
        "on_3_1_1_a_broker_that_drops_in_silence_is_told_from_a_centre_that_is_silent" => missing::dropped_or_silent(),
        "a_centre_that_is_away_is_told_from_one_never_seen" => missing::away_or_never_seen(),
        "a_topic_of_the_board_that_is_refused_stops_no_alarm" => missing::a_refused_board(),
        "packet_ids_come_round_many_times_with_mqtt_5" => protocol::packet_ids_come_round(Mqtt5),
        "packet_ids_come_round_many_times_with_mqtt_3_1_1" => protocol::packet_ids_come_round(Mqtt311),
        "a_broker_that_takes_one_message_at_a_time_gets_everything" => protocol::one_at_a_time(),
        "a_picture_larger_than_the_broker_takes_goes_in_parts_with_mqtt_5" => protocol::a_large_picture(Mqtt5),
        "a_picture_larger_than_the_broker_takes_goes_in_parts_with_mqtt_3_1_1" => protocol::a_large_picture(Mqtt311),
        "answers_carry_correlation_data_and_go_to_the_response_topic_as_well" => protocol::response_topics(),
    ];
    let embedded_too = [("5", Mqtt5), ("3_1_1", Mqtt311)].map(|(name, protocol)| {
        let name = format!("the_whole_road_over_the_embedded_broker_with_mqtt_{name}");
        skip::test(&name, need::nothing(), move || {
            run(async move {
                let held = [Port::reserve().unwrap(), Port::reserve().unwrap()];
                let ports = start_embedded(BrokerPorts { v5: held[0].number(), v4: held[1].number() }).unwrap().ports;
                the_whole_road(if protocol == Mqtt5 { ports.v5 } else { ports.v4 }, protocol).await;
            });
        })
    });
    tests.extend(embedded_too);
    skip::main(tests)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// A mosquitto that keeps nothing over a restart, with its files in `dir`.
fn mosquitto(dir: &Path, acl: Option<&str>, extra: &[&str]) -> Broker {
    let extra = extra.iter().map(|&line| line.to_owned()).collect();
    let options = BrokerOptions { acl: acl.map(str::to_owned), extra, ..BrokerOptions::default() };
    Broker::start(&dir.join("broker"), &options).unwrap()
}

/// The whole story over a broker: events in order, a picture, the board, an acknowledgement and its reply, receipts, goodbye.
async fn the_whole_road(port: u16, protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let after = Some(Duration::ZERO);
    let mut desk = Desk::start(dir.path(), broker(port, protocol, "desk"), after, true);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(port, protocol, "gengfu-s-g")));
    gateway.status("online", |s| s.state == LinkState::Online).await;
    for n in 1..=200 {
        gateway.door(&format!("d{n}"));
    }
    let picture = vec![7_u8; 300_000];
    gateway.alarm("p1", &alarm("01PARK", AlarmKind::IllegalParking, Some(&picture)));
    gateway.picture(dir.path(), "01PARK", &picture);
    let smoke = alarm("01SMOKE", AlarmKind::Smoke, None);
    gateway.alarm("s1", &smoke);
    let topics = Topics::new(&slug("s"), &slug("g"));
    let snapshot = AlarmSnapshot { sequence: 202, alarm: smoke };
    gateway.board.set(&topics.alarm("01SMOKE"), Some(serde_json::to_vec(&snapshot).unwrap()));
    gateway.board.complete();

    for _ in 0..2 {
        let request = tokio::time::timeout(PATIENCE, gateway.commands.recv()).await.unwrap().unwrap();
        let Command::Ack(ack) = &request.command else { panic!("{request:?}") };
        assert!(ack.operator == "auto-desk" && ["01PARK", "01SMOKE"].contains(&ack.alarm_id.as_str()), "{ack:?}");
        let at = request.arrived_at;
        let reply = Reply::new(request.cmd_id, Outcome::Done, None, at);
        gateway.replies.send(reply).await.unwrap();
    }
    desk.until("a reply", |event, _| matches!(event, DeskEvent::Reply { reply, .. } if reply.outcome == Outcome::Done))
        .await;
    gateway.all_received().await;
    let last = gateway.status("with its latency", |s| s.latency.is_some_and(|l| l.count == 1)).await;
    assert_eq!((last.state, last.refused, last.overdue), (LinkState::Online, 0, 0), "{last:?}");
    gateway.stop().await;
    desk.until(
        "the gateway's goodbye",
        |event, _| matches!(event, DeskEvent::Gateway { status, .. } if status.state == Presence::Offline),
    )
    .await;

    let proof = desk.proof();
    assert!(proof.holds(), "{proof}");
    assert_eq!((proof.first, proof.last, proof.chain_links), (Some(1), Some(202), 202), "{proof}");
    let new_door = |event: &DeskEvent| match event {
        DeskEvent::Observed { sequence, arrival: Arrival::New, .. } => Some(*sequence),
        _ => None,
    };
    let order: Vec<_> = desk.seen.iter().filter_map(new_door).collect();
    assert!(order.windows(2).all(|w| w[0] < w[1]), "order within the lane");
    {
        let model = desk.model.lock().unwrap();
        let (_, parking) = model.alarms_of(AlarmKind::IllegalParking)[0];
        assert_eq!(parking.pictures[&1].genuine, Some(true));
        assert_eq!(std::fs::read(parking.pictures[&1].path.as_ref().unwrap()).unwrap(), picture);
        assert!(model.alarms_of(AlarmKind::Smoke)[0].1.latency_ms.is_some());
        assert_eq!(model.malformed(), (0, None));
    }
    let journal = std::fs::read_to_string(dir.path().join("desk.jsonl")).unwrap();
    let lines = journal.lines().filter(|line| line.contains("\"event\":{")).count();
    assert_eq!(lines, 202, "the desk journaled each event once");
    desk.stop().await;
}

async fn over_mosquitto(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &[]);
    the_whole_road(mosquitto.port(), protocol).await;
}

async fn a_broker_killed_and_restarted_empty(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let mut mosquitto = mosquitto(dir.path(), None, &[]);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), protocol, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), protocol, "gengfu-s-g")));
    for round in 0..4_u64 {
        gateway.status("online", |s| s.state == LinkState::Online && s.connects > round).await;
        for n in 0..150 {
            gateway.door(&format!("d{round}-{n}"));
            if n == 75 {
                gateway.alarm(&format!("s{round}"), &alarm(&format!("01SMOKE{round}"), AlarmKind::Smoke, None));
                mosquitto.kill();
            }
        }
        mosquitto.restart(Memory::Empty).unwrap();
    }
    gateway.all_received().await;
    let proof = desk.proof();
    let total = gateway.outbox.head().sequence;
    assert!(proof.holds(), "{proof}");
    assert_eq!((proof.first, proof.last, proof.received), (Some(1), Some(total), total), "{proof}");
    gateway.stop().await;
    desk.stop().await;
}

async fn a_frozen_broker() {
    let dir = tempfile::tempdir().unwrap();
    let mut mosquitto = mosquitto(dir.path(), None, &[]);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), Mqtt5, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g")));
    gateway.status("online", |s| s.state == LinkState::Online).await;
    mosquitto.freeze().unwrap();
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let offline = gateway.status("offline", |s| s.state == LinkState::Offline).await;
    assert!(offline.detail.is_some() && offline.remedy.is_some(), "{offline:?}");
    mosquitto.thaw().unwrap();
    gateway.all_received().await;
    assert!(desk.proof().holds());
    gateway.stop().await;
    desk.stop().await;
}

async fn a_gateway_that_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &[]);
    let config = uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g"));
    let mut gateway = Gateway::start(dir.path(), config.clone());
    gateway.status("online", |s| s.state == LinkState::Online).await;
    (1..=50).for_each(|n| gateway.door(&format!("d{n}")));
    // Nobody listens yet: the broker says so, only some are tried meanwhile, and its PUBACK is no delivery.
    gateway.status("that waits for receipts", |s| s.awaiting_receipt >= 8).await;
    assert_eq!(gateway.pending(), 50);
    gateway.task.abort();
    let _ = gateway.task.await;
    drop((gateway.outbox, gateway.board));
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), Mqtt5, "desk"), None, false);
    desk.until(
        "the will",
        |event, _| matches!(event, DeskEvent::Gateway { status, .. } if status.state == Presence::Offline),
    )
    .await;
    let mut gateway = Gateway::start(dir.path(), config);
    gateway.all_received().await;
    let proof = desk.proof();
    assert!(proof.holds() && proof.received == 50, "{proof}");
    gateway.stop().await;
    desk.stop().await;
}

async fn a_desk_that_comes_late() {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &[]);
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt311, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let silent = gateway.status("without receipts", |s| s.state == LinkState::NoReceipts).await;
    assert_eq!(silent.overdue_life_safety, 1);
    assert!(silent.remedy.as_ref().is_some_and(|r| r.contains("ACL")), "{silent:?}");
    let desk = Desk::start(dir.path(), broker(mosquitto.port(), Mqtt311, "desk"), None, false);
    gateway.all_received().await;
    gateway.status("online again", |s| s.state == LinkState::Online).await;
    assert!(desk.proof().holds());
    gateway.stop().await;
    desk.stop().await;
}

async fn a_refused_topic() {
    let dir = tempfile::tempdir().unwrap();
    // Everything is allowed but writing events.
    let acl = "topic read #\ntopic write gengfu/v1/s/g/status\ntopic write gengfu/v1/s/g/statement\ntopic write gengfu/v1/s/dispatch/status\n";
    let mosquitto = mosquitto(dir.path(), Some(acl), &[]);
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let refused = gateway.status("refused", |s| s.state == LinkState::Refused).await;
    assert!(refused.detail.is_some(), "{refused:?}");
    assert!(refused.remedy.as_ref().is_some_and(|r| r.contains("ACL")), "{refused:?}");
    assert_eq!((refused.held, gateway.pending()), (1, 1));
    assert!(refused.last_refusal.as_ref().is_some_and(|r| r.contains("/event: NotAuthorized")), "{refused:?}");
    gateway.status("that tries again", |s| s.refused > refused.refused).await;
    assert_eq!(gateway.pending(), 1, "kept");
    gateway.stop().await;
}

async fn retained_leftovers() {
    for protocol in [Mqtt5, Mqtt311] {
        let dir = tempfile::tempdir().unwrap();
        let mosquitto = mosquitto(dir.path(), None, &[]);
        let config = uplink_config(broker(mosquitto.port(), protocol, "gengfu-s-g"));
        let topics = Topics::new(&slug("s"), &slug("g"));
        let snapshot = |id: &str| {
            let snapshot = AlarmSnapshot { sequence: 1, alarm: alarm(id, AlarmKind::Smoke, None) };
            serde_json::to_vec(&snapshot).unwrap()
        };
        let device = |name: &str| {
            let state = serde_json::json!({"device": name, "class": "door", "state": "closed"});
            serde_json::to_vec(&serde_json::from_value::<DeviceState>(state).unwrap()).unwrap()
        };
        let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), protocol, "desk"), None, false);
        desk.connected().await;
        let gateway = Gateway::start(dir.path(), config.clone());
        for id in ["01OVER", "01OPEN"] {
            gateway.board.set(&topics.alarm(id), Some(snapshot(id)));
        }
        for name in ["door-old", "door-1"] {
            gateway.board.set(&topics.device(&slug(name)), Some(device(name)));
        }
        open_alarms(&desk, 2).await;
        let held = retained(mosquitto.port(), "gengfu/v1/s/g/device/+", 2).await;
        assert_eq!(held, ["gengfu/v1/s/g/device/door-1", "gengfu/v1/s/g/device/door-old"]);
        gateway.stop().await;
        // While it was down, 01OVER ended and door-old was taken out of the configuration.
        let dir = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(dir.path(), config);
        gateway.board.set(&topics.alarm("01OPEN"), Some(snapshot("01OPEN")));
        gateway.board.set(&topics.device(&slug("door-1")), Some(device("door-1")));
        gateway.board.complete();
        open_alarms(&desk, 1).await;
        let held = retained(mosquitto.port(), "gengfu/v1/s/g/device/+", 1).await;
        assert_eq!(held, ["gengfu/v1/s/g/device/door-1"]);
        gateway.stop().await;
        desk.stop().await;
    }
}

/// Snapshots are no events of the desk, so the model is asked until it knows.
async fn open_alarms(desk: &Desk, wanted: usize) {
    let wait = async {
        while desk.model.lock().unwrap().open_alarms().len() != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain for {wanted} open alarms");
}
