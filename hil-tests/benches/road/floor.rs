//! What the machine itself takes for the same work: one append + `fdatasync`, one QoS 1 publish with its PUBACK. Owns a
//! bare rumqttc client in one thread; it also plays the dispatch centre between the measured frames (receipts, and
//! the bytes of the events it is shown).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use gengfu_contract::command::Receipt;
use hil_tests::{Result, RigError};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::runtime::Runtime;

/// A broker that does not answer for this long ends the bench.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine's own side.
pub struct Floor {
    file: File,
    runtime: Runtime,
    client: AsyncClient,
    events: EventLoop,
    /// Bodies that arrived, by the event's id.
    pub bodies: BTreeMap<String, Vec<u8>>,
}

/// One measurement of the floor.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Append and `fdatasync`.
    pub disk: Duration,
    /// Publish to PUBACK.
    pub broker: Duration,
}

impl Floor {
    /// A file at `file`, on the file system to be measured, and a client of the broker at `port`.
    ///
    /// # Errors
    /// When either cannot be opened.
    pub fn open(file: &Path, port: u16) -> Result<Floor> {
        let doing = format!("create {}", file.display());
        let file = File::create(file).map_err(|e| RigError::failed(doing, e))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| RigError::failed("start the floor's client", e))?;
        let mut options = MqttOptions::new("floor", "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(60));
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, events) = AsyncClient::new(options, 16);
        let mut floor = Floor { file, runtime, client, events, bodies: BTreeMap::new() };
        floor.until("the broker takes the floor's client", |packet| matches!(packet, Packet::ConnAck(_)))?;
        Ok(floor)
    }

    /// Appends `journal` with one `fdatasync`, then publishes `body` and waits for the PUBACK.
    ///
    /// # Errors
    /// When disk or broker refuse.
    pub fn take(&mut self, journal: &[u8], topic: &str, body: &[u8]) -> Result<Taken> {
        let (start, body) = (crate::instant(), body.to_vec());
        let written = self.file.write_all(journal).and_then(|()| self.file.sync_data());
        written.map_err(|e| RigError::failed("append and sync", e))?;
        let disk = start.elapsed();
        let start: Instant = crate::instant();
        self.publish(topic, body)?;
        Ok(Taken { disk, broker: start.elapsed() })
    }

    /// The centre's receipt for `ids`.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub fn receipt(&mut self, base: &str, ids: &[String]) -> Result<()> {
        let Some(first) = ids.first() else { return Ok(()) };
        let at = jiff::Timestamp::try_from(crate::now()).map_err(|e| RigError::failed("tell the time", e))?;
        let receipt = Receipt { ids: ids.to_vec(), received_at: at };
        let body = serde_json::to_vec(&receipt).map_err(|e| RigError::failed("write a receipt", e))?;
        self.publish(&format!("{base}/cmd/receipt/{first}"), body)
    }

    /// Begins to take the gateway's events into [`Floor::bodies`].
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn listen(&mut self, topic: &str) -> Result<()> {
        let asked = self.client.try_subscribe(topic, QoS::AtMostOnce);
        asked.map_err(|e| RigError::failed("subscribe", e))?;
        self.until("the broker takes a subscription", |packet| matches!(packet, Packet::SubAck(_)))
    }

    /// Ends [`Floor::listen`], and takes what is still coming until `ids` are all there.
    ///
    /// # Errors
    /// When the broker refuses, or an event does not come.
    pub fn listen_no_more(&mut self, topic: &str, ids: &[String]) -> Result<()> {
        while !ids.iter().all(|id| self.bodies.contains_key(id)) {
            self.until("the broker shows the gateway's events", |packet| matches!(packet, Packet::Publish(_)))?;
        }
        let asked = self.client.try_unsubscribe(topic);
        asked.map_err(|e| RigError::failed("unsubscribe", e))?;
        self.until("the broker ends a subscription", |packet| matches!(packet, Packet::UnsubAck(_)))
    }

    fn publish(&mut self, topic: &str, body: Vec<u8>) -> Result<()> {
        let handed = self.client.try_publish(topic, QoS::AtLeastOnce, false, body);
        handed.map_err(|e| RigError::failed("publish", e))?;
        self.until("the broker acknowledges a publish", |packet| matches!(packet, Packet::PubAck(_)))
    }

    fn until(&mut self, what: &str, done: impl Fn(&Packet) -> bool) -> Result<()> {
        let Floor { runtime, events, bodies, .. } = self;
        let wait = async {
            loop {
                let event = events.poll().await.map_err(|e| RigError::failed(what, e))?;
                let Event::Incoming(packet) = event else { continue };
                if let Packet::Publish(publish) = &packet {
                    keep(bodies, &publish.payload);
                }
                if done(&packet) {
                    return Ok(());
                }
            }
        };
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, wait).await })
            .unwrap_or_else(|_| Err(RigError::failed(what, format!("not within {} s", PATIENCE.as_secs()))))
    }
}

fn keep(bodies: &mut BTreeMap<String, Vec<u8>>, payload: &[u8]) {
    let id = serde_json::from_slice::<serde_json::Value>(payload).ok();
    if let Some(id) = id.as_ref().and_then(|event| event.get("id")).and_then(serde_json::Value::as_str) {
        bodies.insert(id.to_owned(), payload.to_vec());
    }
}
