//! The protocol's own corners: packet ids, a window of one, packets that are too large, MQTT 5 properties.

use gengfu_contract::evidence::EvidenceJoiner;
use gengfu_contract::topic::{Up, parse_up};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use super::*;

/// mosquitto allows twenty messages on the wire, so ids come round a hundred times on MQTT 5, and thrice on 3.1.1.
pub async fn packet_ids_come_round(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &[]);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), protocol, "desk"), None, false);
    desk.connected().await;
    let mut config = uplink_config(broker(mosquitto.port(), protocol, "gengfu-s-g"));
    config.limits.backlog_per_s = 0;
    let mut gateway = Gateway::start(dir.path(), config);
    gateway.doors(3_500);
    gateway.all_received().await;
    let proof = desk.proof();
    assert!(proof.holds() && proof.received == 3_500, "{proof}");
    let status = gateway.status("as it is", |_| true).await;
    assert_eq!(status.connects, 1, "one connection was enough: {status:?}");
    gateway.stop().await;
    desk.stop().await;
}

pub async fn one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &["max_inflight_messages 1"]);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), Mqtt5, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g")));
    let topics = Topics::new(&slug("s"), &slug("g"));
    for n in 0..60 {
        gateway.door(&format!("d{n}"));
        gateway.board.set(&topics.alarm(&format!("01X{n}")), Some(b"{}".to_vec()));
    }
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    gateway.all_received().await;
    let status = gateway.status("with its latency", |s| s.latency.is_some()).await;
    assert_eq!((status.connects, status.refused), (1, 0), "{status:?}");
    let proof = desk.proof();
    assert!(proof.holds() && proof.received == 61, "{proof}");
    gateway.stop().await;
    desk.stop().await;
}

/// The broker takes 20,000 bytes; on MQTT 5 it says so, on 3.1.1 the configuration does.
pub async fn a_large_picture(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &["max_packet_size 20000"]);
    let (centre, mut events) = client(mosquitto.port(), "centre", &["gengfu/v1/s/g/#"]).await;
    let mut config = uplink_config(broker(mosquitto.port(), protocol, "gengfu-s-g"));
    config.packet_bytes_max = (protocol == Mqtt311).then_some(20_000);
    let mut gateway = Gateway::start(dir.path(), config);
    let picture: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    let item = gateway.picture(dir.path(), "01PARK", &picture);
    let mut joiner = EvidenceJoiner::new(1 << 20);
    let whole = loop {
        let publish = message(&mut events).await;
        let topic = std::str::from_utf8(&publish.topic).unwrap();
        let Some((_, Up::EvidencePart { id, n, part, parts })) = parse_up(&slug("s"), topic) else { continue };
        assert!(publish.payload.len() < 20_000 && parts == 6, "{topic}: {} bytes", publish.payload.len());
        // A fire between two parts.
        if part == 1 {
            gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
        }
        if let Some(whole) = joiner.take(&id, n, part, parts, &publish.payload).unwrap() {
            break whole;
        }
    };
    assert_eq!(whole, picture);
    let receipt = serde_json::json!({"ids": [item.id(), "s1"], "received_at": "2026-11-22T08:00:00Z"}).to_string();
    centre.try_publish("gengfu/v1/s/g/cmd/receipt/r1", QoS::AtLeastOnce, false, receipt).unwrap();
    let received = gateway.all_received();
    let poll = async {
        loop {
            let _ = events.poll().await;
        }
    };
    tokio::select! { () = received => {}, () = poll => {} }
    gateway.stop().await;
}

pub async fn response_topics() {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &[]);
    let filters =
        ["gengfu/v1/s/g/status", "gengfu/v1/s/g/reply/+", "gengfu/v1/s/dispatch/answers", "gengfu/v1/s/g/event"];
    let (centre, mut events) = client(mosquitto.port(), "centre", &filters).await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g")));
    // It says so after its subscription: from then on the broker has somebody to give an order to.
    assert_eq!(message(&mut events).await.topic, "gengfu/v1/s/g/status");
    let ack = serde_json::json!({"alarm_id": "A", "operator": "op", "issued_at": "2026-11-22T08:00:00Z"}).to_string();
    let properties = PublishProperties {
        response_topic: Some("gengfu/v1/s/dispatch/answers".into()),
        correlation_data: Some(b"case 7".to_vec().into()),
        ..PublishProperties::default()
    };
    centre.try_publish_with_properties("gengfu/v1/s/g/cmd/ack/c1", QoS::AtLeastOnce, false, ack, properties).unwrap();
    let answer = async {
        let request = gateway.commands.recv().await.unwrap();
        gateway.replies.send(Reply::new(request.cmd_id, Outcome::Done, None, request.arrived_at)).await.unwrap();
        std::future::pending::<()>().await;
    };
    let mut topics = Vec::new();
    let listen = async {
        while topics.len() < 2 {
            let publish = message(&mut events).await;
            let properties = publish.properties.clone().unwrap();
            assert_eq!(properties.correlation_data.as_deref(), Some(&b"case 7"[..]));
            assert_eq!(properties.content_type.as_deref(), Some("application/json"));
            assert!(properties.message_expiry_interval.is_some(), "an answer does not wait for ever");
            topics.push(String::from_utf8(publish.topic.to_vec()).unwrap());
        }
    };
    tokio::select! { () = answer => {}, () = listen => {} }
    topics.sort();
    assert_eq!(topics, ["gengfu/v1/s/dispatch/answers", "gengfu/v1/s/g/reply/c1"]);
    // Events say what they are; telemetry does not wait on a broker for ever, a fire does.
    gateway.door("d1");
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    for _ in 0..2 {
        let publish = message(&mut events).await;
        let properties = publish.properties.unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("application/cloudevents+json"));
        let is_fire = String::from_utf8_lossy(&publish.payload).contains("\"lane\":\"fire\"");
        assert_eq!(properties.message_expiry_interval.is_none(), is_fire);
    }
    gateway.stop().await;
}
