//! A gateway's uplink and a desk, joined as the daemon joins them, in this process. Owns the rig of these tests; the assertions are theirs.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gengfu::clock::{Clock, SystemClock};
use gengfu::config::Protocol;
use gengfu::desk::{self, DeskConfig, DeskEvent, DeskModel, DeskParts, Order};
use gengfu::uplink::{
    self, Board, BrokerConfig, CommandRequest, EvidenceItem, Identity, UplinkConfig, UplinkParts, UplinkStatus,
};
use gengfu_contract::chain;
use gengfu_contract::command::Reply;
use gengfu_contract::event::{AlarmData, ClockQuality, Event, EventType, EvidenceRef, Explanation};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, Condition};
use gengfu_outbox::{Lane, Options, Outbox};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; nothing waits this long when it works.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

pub fn broker(port: u16, protocol: Protocol, client_id: &str) -> BrokerConfig {
    let mut broker = BrokerConfig::new("127.0.0.1", port, protocol, client_id);
    broker.keep_alive = Duration::from_secs(5);
    broker.connect_timeout = Duration::from_secs(5);
    broker
}

pub fn uplink_config(broker: BrokerConfig) -> UplinkConfig {
    let identity = Identity { site: slug("s"), gateway: slug("g"), boot: 1, version: "test".into() };
    let mut config = UplinkConfig::new(broker, identity);
    config.puback_timeout = Duration::from_secs(2);
    config.limits.receipt_life_safety.base = Duration::from_secs(2);
    config.limits.receipt_other.base = Duration::from_secs(3);
    config
}

/// The uplink as the daemon runs it, with its store in `dir`.
pub struct Gateway {
    pub outbox: Outbox,
    pub board: Board,
    pub wake: Arc<Notify>,
    pub commands: mpsc::Receiver<CommandRequest>,
    pub replies: mpsc::Sender<Reply>,
    pub status: watch::Receiver<UplinkStatus>,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), uplink::OpenError>>,
}

impl Gateway {
    pub fn start(dir: &Path, config: UplinkConfig) -> Self {
        Self::start_on(Outbox::open(Options::new(dir.join("outbox"))).unwrap(), config)
    }

    /// The same on a store that is already open.
    pub fn start_on(outbox: Outbox, config: UplinkConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (commands_in, commands) = mpsc::channel(16);
        let (replies, replies_out) = mpsc::channel(16);
        let (status_in, status) = watch::channel(UplinkStatus::starting(&config.broker, clock.now()));
        let (board, wake, shutdown) = (Board::new(), Arc::new(Notify::new()), CancellationToken::new());
        let parts = UplinkParts {
            outbox: outbox.clone(),
            board: board.clone(),
            clock,
            wake: wake.clone(),
            commands: commands_in,
            replies: replies_out,
            status: status_in,
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(uplink::run(config, parts));
        Self { outbox, board, wake, commands, replies, status, shutdown, task }
    }

    /// Journals a door event.
    pub fn door(&self, id: &str) {
        self.append(id, Lane::Telemetry, |event| {
            event.data = serde_json::json!({"device": "door-1", "what": "door.opened", "clock": "synced"});
        });
    }

    /// Journals a transition of an alarm.
    pub fn alarm(&self, id: &str, alarm: &AlarmData) {
        let lane = Lane::ALL[alarm.kind.lane() as usize];
        self.append(id, lane, |event| {
            event.event_type = EventType::AlarmRaised;
            event.subject.clone_from(&alarm.alarm_id);
            event.data = serde_json::to_value(alarm).unwrap();
        });
    }

    /// Journals many door events in few batches.
    pub fn doors(&self, count: usize) {
        let fill = |event: &mut Event| {
            event.data = serde_json::json!({"device": "door-1", "what": "door.opened", "clock": "synced"});
        };
        for ids in (0..count).collect::<Vec<_>>().chunks(500) {
            let mut batch = self.outbox.batch();
            for n in ids {
                append(&mut batch, &format!("d{n}"), Lane::Telemetry, fill);
            }
            batch.commit().unwrap();
        }
        self.wake.notify_one();
    }

    fn append(&self, id: &str, lane: Lane, fill: impl FnOnce(&mut Event)) {
        let mut batch = self.outbox.batch();
        append(&mut batch, id, lane, fill);
        batch.commit().unwrap();
        self.wake.notify_one();
    }

    /// Puts a picture into the outbox; its file lies in `dir`.
    pub fn picture(&self, dir: &Path, alarm_id: &str, bytes: &[u8]) -> EvidenceItem {
        let path = dir.join(format!("{alarm_id}.jpg"));
        std::fs::write(&path, bytes).unwrap();
        let sha256 = hex::encode(chain::hash(bytes));
        let item = EvidenceItem { alarm_id: alarm_id.into(), n: 1, sha256, path, bytes: bytes.len() as u64 };
        let mut batch = self.outbox.batch();
        batch.attach(Lane::Evidence, &item.id(), 0, &serde_json::to_vec(&item).unwrap()).unwrap();
        batch.commit().unwrap();
        self.wake.notify_one();
        item
    }

    pub fn pending(&self) -> u64 {
        self.outbox.stats().lanes.iter().map(|l| l.pending).sum()
    }

    /// Waits for a status.
    pub async fn status(&mut self, what: &str, wanted: impl FnMut(&UplinkStatus) -> bool) -> UplinkStatus {
        let last = self.status.clone();
        match tokio::time::timeout(PATIENCE, self.status.wait_for(wanted)).await {
            Ok(status) => status.unwrap().clone(),
            Err(_) => panic!("waited in vain for a status {what}; it is {:?}", *last.borrow()),
        }
    }

    /// Waits until the centre has confirmed everything.
    pub async fn all_received(&mut self) {
        let outbox = self.outbox.clone();
        let empty = move |_: &UplinkStatus| outbox.stats().lanes.iter().all(|l| l.pending == 0);
        self.status("with an empty outbox", empty).await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn append(batch: &mut gengfu_outbox::Batch<'_>, id: &str, lane: Lane, fill: impl FnOnce(&mut Event)) {
    let now = SystemClock.now();
    let build = |position: gengfu_outbox::Position| {
        let mut event = Event {
            specversion: "1.0".into(),
            id: id.into(),
            source: "/gengfu/s/g".into(),
            event_type: EventType::DeviceObserved,
            subject: "door-1".into(),
            time: now,
            datacontenttype: "application/json".into(),
            sequence: position.sequence,
            recordedtime: now,
            prevhash: hex::encode(position.prev_hash),
            lane: serde_json::from_value(lane.as_str().into()).unwrap(),
            senttime: None,
            historical: None,
            attempt: None,
            data: serde_json::Value::Null,
            extra: std::collections::BTreeMap::new(),
        };
        fill(&mut event);
        chain::canonical(&event).unwrap()
    };
    batch.append(lane, id, now.as_millisecond(), build).unwrap();
}

/// The desk as `gengfu desk` runs it.
pub struct Desk {
    pub model: Arc<Mutex<DeskModel>>,
    pub events: mpsc::Receiver<DeskEvent>,
    _orders: mpsc::Sender<Order>,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), desk::DeskError>>,
    /// Everything seen so far.
    pub seen: Vec<DeskEvent>,
}

impl Desk {
    pub fn start(dir: &Path, broker: BrokerConfig, auto_ack_after: Option<Duration>, journal: bool) -> Self {
        let config = DeskConfig {
            auto_ack_after,
            journal: journal.then(|| dir.join("desk.jsonl")),
            ..DeskConfig::new(broker, slug("s"), slug("desk"), dir.join("pictures"))
        };
        let model = Arc::new(Mutex::new(DeskModel::new(slug("s"))));
        let (events_in, events) = mpsc::channel(65_536);
        let (orders, orders_out) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let parts = DeskParts {
            model: model.clone(),
            events: events_in,
            orders: orders_out,
            clock: Arc::new(SystemClock),
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(desk::run(config, parts));
        Self { model, events, _orders: orders, shutdown, task, seen: Vec::new() }
    }

    /// Waits for an event of the desk.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&DeskEvent, &DeskModel) -> bool) {
        let model = self.model.clone();
        let wait = async {
            while let Some(event) = self.events.recv().await {
                let found = wanted(&event, &model.lock().unwrap());
                self.seen.push(event);
                if found {
                    return;
                }
            }
            panic!("the desk ended while waiting for {what}");
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain for {what}");
    }

    pub async fn connected(&mut self) {
        self.until("the connection", |event, _| matches!(event, DeskEvent::Connected { .. })).await;
    }

    pub fn proof(&self) -> desk::Proof {
        self.model.lock().unwrap().proof(&slug("g")).expect("the gateway was heard")
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

pub fn alarm(id: &str, kind: AlarmKind, picture: Option<&[u8]>) -> AlarmData {
    let now = SystemClock.now();
    let evidence = picture.map(|bytes| EvidenceRef {
        n: 1,
        sha256: hex::encode(chain::hash(bytes)),
        bytes: bytes.len() as u64,
        media_type: "image/jpeg".into(),
        taken_at: now,
        caption: "past the limit".into(),
    });
    AlarmData {
        alarm_id: id.into(),
        rev: 1,
        kind,
        condition: Condition::ActiveUnack,
        title: kind.title(),
        code: None,
        cap: kind.cap(),
        device: slug("device-1"),
        zone: None,
        location: None,
        subject_ref: None,
        confidence: Some(0.843_456),
        explanation: Explanation { rule: "test".into(), text: kind.title(), inputs: std::collections::BTreeMap::new() },
        since: now,
        decided_at: now,
        clock: ClockQuality::Synced,
        escalation: 0,
        evidence: evidence.into_iter().collect(),
        origin: None,
        operator: None,
        side: None,
        case: None,
    }
}

/// A bare MQTT 5 client of the broker at `port`, subscribed to `filters`.
pub async fn client(port: u16, id: &str, filters: &[&str]) -> (rumqttc::v5::AsyncClient, rumqttc::v5::EventLoop) {
    let mut options = rumqttc::v5::MqttOptions::new(id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(5));
    options.set_max_packet_size(Some(8 << 20));
    let (client, mut events) = rumqttc::v5::AsyncClient::new(options, 1024);
    for filter in filters {
        client.try_subscribe(*filter, rumqttc::v5::mqttbytes::QoS::AtLeastOnce).unwrap();
    }
    let mut answered = 0;
    while answered < filters.len().max(1) {
        use rumqttc::v5::mqttbytes::v5::Packet;
        let wanted = if filters.is_empty() { "CONNACK" } else { "SUBACK" };
        match tokio::time::timeout(PATIENCE, events.poll()).await.expect(wanted).expect(wanted) {
            rumqttc::v5::Event::Incoming(Packet::SubAck(_)) => answered += 1,
            rumqttc::v5::Event::Incoming(Packet::ConnAck(_)) if filters.is_empty() => answered += 1,
            _ => {}
        }
    }
    (client, events)
}

/// The next message that this client is sent.
pub async fn message(events: &mut rumqttc::v5::EventLoop) -> rumqttc::v5::mqttbytes::v5::Publish {
    loop {
        let event =
            tokio::time::timeout(PATIENCE, events.poll()).await.expect("a message comes").expect("a connection");
        if let rumqttc::v5::Event::Incoming(rumqttc::v5::mqttbytes::v5::Packet::Publish(publish)) = event {
            return publish;
        }
    }
}

/// The topics that match `filter` and hold something on the broker at `port`; asked again until there are `count` of them.
pub async fn retained(port: u16, filter: &str, count: usize) -> Vec<String> {
    let look = async {
        loop {
            let (client, mut events) = client(port, "looker", &["marker"]).await;
            // Whatever is retained comes before this marker.
            client.try_subscribe(filter, rumqttc::v5::mqttbytes::QoS::AtLeastOnce).unwrap();
            client.try_publish("marker", rumqttc::v5::mqttbytes::QoS::AtLeastOnce, false, "x").unwrap();
            let mut held = std::collections::BTreeSet::new();
            loop {
                let publish = message(&mut events).await;
                match std::str::from_utf8(&publish.topic).unwrap() {
                    "marker" => break,
                    topic if publish.retain => drop(held.insert(topic.to_owned())),
                    _ => {}
                }
            }
            if held.len() == count {
                return held.into_iter().collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the broker holds what is wanted")
}
