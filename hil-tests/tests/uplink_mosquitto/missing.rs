//! Why receipts are missing, and what the broker does not take. Goal: the state names the cause that is true, with its remedy.

use gengfu::uplink::Cause;

use super::*;

/// May publish everything but events, and reads all.
const NO_EVENTS: &str = "topic read #\ntopic write gengfu/v1/s/g/status\ntopic write gengfu/v1/s/g/statement\n\
                         topic write gengfu/v1/s/g/cmd/#\ntopic write gengfu/v1/s/dispatch/status\n";

/// An event is acknowledged and dropped. mosquitto 2.0 then keeps the connection, or hangs up where `max_queued_messages` is 0.
async fn dropped(extra: &[&str], cause: Cause) {
    let dir = tempfile::tempdir().unwrap();
    let refusing = mosquitto(dir.path(), Some(NO_EVENTS), extra);
    let mut desk = Desk::start(dir.path(), broker(refusing.port(), Mqtt311, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(refusing.port(), Mqtt311, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let dropped = gateway.status("with the cause", |s| s.cause == Some(cause)).await;
    assert!(dropped.detail.as_ref().unwrap().contains("gengfu/v1/s/g/event"), "{dropped:?}");
    assert!(dropped.remedy.as_ref().unwrap().contains("ACL") && dropped.remedy_zh.as_ref().unwrap().contains("ACL"));
    assert_eq!(gateway.pending(), 1, "kept");
    gateway.stop().await;
    desk.stop().await;
}

pub async fn dropped_or_silent() {
    dropped(&[], Cause::DroppedInSilence).await;
    dropped(&["max_queued_messages 0"], Cause::BrokerHangsUp).await;
    // The same, with a broker that passes everything on and a centre that says it is there and confirms nothing.
    let dir = tempfile::tempdir().unwrap();
    let passing = mosquitto(dir.path(), None, &[]);
    let (centre, mut events) = client(passing.port(), "centre", &["gengfu/v1/s/g/event"]).await;
    let online = serde_json::json!({"state": "online", "at": "2026-11-22T08:00:00Z"}).to_string();
    let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
    centre.try_publish("gengfu/v1/s/dispatch/status", qos, true, online).unwrap();
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(passing.port(), Mqtt311, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let mut seen = 0;
    while seen < 3 {
        message(&mut events).await;
        seen += 1;
    }
    let silent = gateway.status("a silent centre", |s| s.overdue == 1 && s.centre == Some(Presence::Online)).await;
    assert_eq!(silent.cause, Some(Cause::CentreSilent), "{silent:?}");
    gateway.stop().await;
}

pub async fn away_or_never_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mosquitto = mosquitto(dir.path(), None, &[]);
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let never = gateway.status("without receipts", |s| s.state == LinkState::NoReceipts).await;
    assert_eq!(never.cause, Some(Cause::NobodySubscribed), "{never:?}");
    assert!(never.remedy.as_ref().unwrap().contains("subscribes"), "{never:?}");
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), Mqtt5, "desk"), None, false);
    desk.connected().await;
    gateway.all_received().await;
    gateway.status("online", |s| s.state == LinkState::Online && s.cause.is_none()).await;
    desk.stop().await;
    gateway.status("that the centre is away", |s| s.centre_is_away()).await;
    gateway.alarm("s2", &alarm("01SMOKE2", AlarmKind::Smoke, None));
    let away = gateway.status("without receipts", |s| s.state == LinkState::NoReceipts).await;
    assert_eq!(away.cause, Some(Cause::CentreAway), "{away:?}");
    assert!(away.remedy.as_ref().unwrap().contains("ask it to connect"), "{away:?}");
    gateway.stop().await;
}

/// The ACL forgot the board. Whatever the broker does about it (mosquitto hangs up), alarms go out.
pub async fn a_refused_board() {
    let dir = tempfile::tempdir().unwrap();
    let acl = "topic read #\ntopic write gengfu/v1/s/g/event\ntopic write gengfu/v1/s/g/status\n\
               topic write gengfu/v1/s/g/cmd/#\ntopic write gengfu/v1/s/dispatch/status\n";
    let mosquitto = mosquitto(dir.path(), Some(acl), &[]);
    let mut desk = Desk::start(dir.path(), broker(mosquitto.port(), Mqtt5, "desk"), None, false);
    desk.connected().await;
    let mut gateway = Gateway::start(dir.path(), uplink_config(broker(mosquitto.port(), Mqtt5, "gengfu-s-g")));
    let topics = Topics::new(&slug("s"), &slug("g"));
    let snapshot = AlarmSnapshot { sequence: 1, alarm: alarm("01SMOKE", AlarmKind::Smoke, None) };
    gateway.board.set(&topics.alarm("01SMOKE"), Some(serde_json::to_vec(&snapshot).unwrap()));
    gateway.board.complete();
    for n in 0..30 {
        gateway.alarm(&format!("s{n}"), &alarm(&format!("01SMOKE{n}"), AlarmKind::Smoke, None));
    }
    gateway.all_received().await;
    assert!(desk.proof().holds());
    let refused = gateway.status("that something is refused", |s| s.refused > 0 || s.connects > 3).await;
    assert!(refused.last_refusal.as_ref().is_none_or(|text| !text.contains("/event")), "{refused:?}");
    gateway.stop().await;
    desk.stop().await;
}
