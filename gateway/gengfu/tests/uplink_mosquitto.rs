//! The road from the outbox to the desk over a real broker. Goal: what was journaled arrives, whatever happens to the broker, the
//! connection or either end, and faults show as states. Method: mosquitto as a process that is killed, frozen and restarted
//! empty, over both MQTT versions; the embedded broker of the demonstration; the real uplink, outbox and desk.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use gengfu::config::Protocol::{self, Mqtt5, Mqtt311};
use gengfu::demo::broker::{BrokerPorts, start as start_embedded};
use gengfu::desk::{Arrival, DeskEvent};
use gengfu::uplink::{LinkState, TlsFiles};
use gengfu_contract::command::{Command, Outcome, Reply};
use gengfu_contract::state::{AlarmSnapshot, Presence};
use gengfu_contract::topic::Topics;
use gengfu_contract::words::AlarmKind;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_road_over_mosquitto_with_mqtt_5() {
    if have_mosquitto() {
        let dir = tempfile::tempdir().unwrap();
        let mosquitto = Mosquitto::start(dir.path(), None);
        the_whole_road(mosquitto.port, Mqtt5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_road_over_mosquitto_with_mqtt_3_1_1() {
    if have_mosquitto() {
        let dir = tempfile::tempdir().unwrap();
        let mosquitto = Mosquitto::start(dir.path(), None);
        the_whole_road(mosquitto.port, Mqtt311).await;
    }
}

fn embedded() -> BrokerPorts {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    start_embedded(BrokerPorts { v5: free(), v4: free() }).unwrap().ports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_road_over_the_embedded_broker_with_mqtt_5() {
    the_whole_road(embedded().v5, Mqtt5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_road_over_the_embedded_broker_with_mqtt_3_1_1() {
    the_whole_road(embedded().v4, Mqtt311).await;
}

async fn a_broker_killed_and_restarted_empty(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let mut mosquitto = Mosquitto::start(dir.path(), None);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port, protocol, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port, protocol, "gengfu-s-g")));
    for round in 0..4_u64 {
        gateway.status("online", |s| s.state == LinkState::Online && s.connects > round).await;
        for n in 0..150 {
            gateway.door(&format!("d{round}-{n}"));
            if n == 75 {
                gateway.alarm(&format!("s{round}"), &alarm(&format!("01SMOKE{round}"), AlarmKind::Smoke, None));
                mosquitto.kill();
            }
        }
        mosquitto.restart();
    }
    gateway.all_received().await;
    let proof = desk.proof();
    let total = gateway.outbox.head().sequence;
    assert!(proof.holds(), "{proof}");
    assert_eq!((proof.first, proof.last, proof.received), (Some(1), Some(total), total), "{proof}");
    gateway.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_after_the_broker_was_killed_and_restarted_empty_with_mqtt_5() {
    if have_mosquitto() {
        a_broker_killed_and_restarted_empty(Mqtt5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_after_the_broker_was_killed_and_restarted_empty_with_mqtt_3_1_1() {
    if have_mosquitto() {
        a_broker_killed_and_restarted_empty(Mqtt311).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_is_noticed_and_everything_arrives_when_it_thaws() {
    if !have_mosquitto() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = Mosquitto::start(dir.path(), None);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port, Mqtt5, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port, Mqtt5, "gengfu-s-g")));
    gateway.status("online", |s| s.state == LinkState::Online).await;
    mosquitto.signal(libc::SIGSTOP);
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let offline = gateway.status("offline", |s| s.state == LinkState::Offline).await;
    assert!(offline.detail.is_some() && offline.remedy.is_some(), "{offline:?}");
    mosquitto.signal(libc::SIGCONT);
    gateway.all_received().await;
    assert!(desk.proof().holds());
    gateway.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_is_told_by_its_will_and_goes_on_where_it_was() {
    if !have_mosquitto() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = Mosquitto::start(dir.path(), None);
    let config = uplink_config(broker(mosquitto.port, Mqtt5, "gengfu-s-g"));
    let mut gateway = Gateway::start(dir.path(), config.clone());
    gateway.status("online", |s| s.state == LinkState::Online).await;
    (1..=50).for_each(|n| gateway.door(&format!("d{n}")));
    // Nobody listens yet: the broker has it all, and that is no delivery.
    gateway.status("that waits for receipts", |s| s.awaiting_receipt == 50).await;
    gateway.task.abort();
    let _ = gateway.task.await;
    drop((gateway.outbox, gateway.board));
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port, Mqtt5, "desk"), None, false);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desk_that_comes_late_gets_everything_and_missing_receipts_are_a_state_until_then() {
    if !have_mosquitto() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = Mosquitto::start(dir.path(), None);
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port, Mqtt311, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let silent = gateway.status("without receipts", |s| s.state == LinkState::NoReceipts).await;
    assert_eq!(silent.overdue_life_safety, 1);
    assert!(silent.remedy.as_ref().is_some_and(|r| r.contains("ACL")), "{silent:?}");
    let desk = Desk::start(dir.path(), broker(mosquitto.port, Mqtt311, "desk"), None, false);
    gateway.all_received().await;
    gateway.status("online again", |s| s.state == LinkState::Online).await;
    assert!(desk.proof().holds());
    gateway.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_the_broker_refuses_shows_as_a_state_and_loses_nothing_with_mqtt_5() {
    if !have_mosquitto() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Everything is allowed but writing events.
    let acl = "topic read #\ntopic write gengfu/v1/s/g/status\ntopic write gengfu/v1/s/g/statement\ntopic write gengfu/v1/s/dispatch/status\n";
    let mosquitto = Mosquitto::start(dir.path(), Some(acl));
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port, Mqtt5, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let refused = gateway.status("refused", |s| s.state == LinkState::Refused).await;
    assert!(refused.detail.is_some(), "{refused:?}");
    assert!(refused.remedy.as_ref().is_some_and(|r| r.contains("ACL")), "{refused:?}");
    assert_eq!((refused.held, gateway.pending()), (1, 1));
    // This broker closes the connection right after the refusal, and the reset can overtake it: then the state is told from the broken
    // connections alone. Where the refusal was read, its reason is told.
    assert!(refused.last_refusal.as_ref().is_none_or(|r| r.contains("/event: NotAuthorized")), "{refused:?}");
    gateway.status("that tries again", |s| s.connects > refused.connects).await;
    assert_eq!(gateway.pending(), 1, "kept");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_lets_the_gateway_in_and_a_wrong_authority_keeps_it_out_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    if !have_mosquitto() || !make_certificates(dir.path()) {
        return;
    }
    let mosquitto = Mosquitto::start_tls(dir.path(), dir.path());
    for protocol in [Mqtt5, Mqtt311] {
        let mut config = uplink_config(broker(mosquitto.port, protocol, "gengfu-s-g"));
        let identity = Some((dir.path().join("client.pem"), dir.path().join("client.key")));
        config.broker.tls = Some(TlsFiles { ca: dir.path().join("ca.pem"), identity: identity.clone() }.into());
        let store = tempfile::tempdir().unwrap();
        let mut gateway = Gateway::start(store.path(), config.clone());
        gateway.status("online", |s| s.state == LinkState::Online).await;
        gateway.stop().await;
        // The client's certificate is no authority for the broker's.
        config.broker.tls = Some(TlsFiles { ca: dir.path().join("client.pem"), identity }.into());
        let store = tempfile::tempdir().unwrap();
        let mut gateway = Gateway::start(store.path(), config);
        let kept_out = gateway.status("offline", |s| s.state == LinkState::Offline).await;
        assert!(kept_out.remedy.as_ref().is_some_and(|r| r.contains("CA")), "{kept_out:?}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, run by hand: cargo test --release --test uplink_mosquitto drain -- --ignored --nocapture"]
async fn drain_of_a_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = Mosquitto::start(dir.path(), None);
    let events = 20_000;
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port, Mqtt5, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port + 1, Mqtt5, "nobody")));
    gateway.doors(events);
    let Gateway { outbox, .. } = &gateway;
    let outbox = outbox.clone();
    gateway.shutdown.cancel();
    gateway.status("stopped", |s| s.state == LinkState::Stopped).await;
    let began = gengfu::clock::Clock::now(&gengfu::clock::SystemClock);
    let mut gateway = Gateway::start_on(outbox, uplink_config(broker(mosquitto.port, Mqtt5, "gengfu-s-g")));
    gateway.all_received().await;
    let took = gengfu::clock::Clock::now(&gengfu::clock::SystemClock).duration_since(began).as_secs_f64();
    println!("{events} events, outbox to receipt, in {took:.2} s: {:.0}/s; {}", events as f64 / took, desk.proof());
    gateway.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retained_alarm_that_is_over_is_emptied_after_a_restart() {
    if !have_mosquitto() {
        return;
    }
    for protocol in [Mqtt5, Mqtt311] {
        let dir = tempfile::tempdir().unwrap();
        let mosquitto = Mosquitto::start(dir.path(), None);
        let config = uplink_config(broker(mosquitto.port, protocol, "gengfu-s-g"));
        let topics = Topics::new(&slug("s"), &slug("g"));
        let snapshot = |id: &str| {
            let snapshot = AlarmSnapshot { sequence: 1, alarm: alarm(id, AlarmKind::Smoke, None) };
            serde_json::to_vec(&snapshot).unwrap()
        };
        let mut desk = Desk::start(dir.path(), broker(mosquitto.port, protocol, "desk"), None, false);
        desk.connected().await;
        let gateway = Gateway::start(dir.path(), config.clone());
        gateway.board.set(&topics.alarm("01OVER"), Some(snapshot("01OVER")));
        gateway.board.set(&topics.alarm("01OPEN"), Some(snapshot("01OPEN")));
        open_alarms(&desk, 2).await;
        gateway.stop().await;
        // While it was down, 01OVER ended.
        let dir = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(dir.path(), config);
        gateway.board.set(&topics.alarm("01OPEN"), Some(snapshot("01OPEN")));
        gateway.board.complete();
        open_alarms(&desk, 1).await;
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
