//! The far end of both: a bare client that is subscribed to the gateway's events and counts them. For the gateway it also gives receipts, many ids at a
//! time. It has a thread of its own and knows each event by its id, so that a repetition is not counted.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gengfu_contract::command::Receipt;
use hil_tests::Result;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

use crate::fail;

pub const EVENTS: &str = "gengfu/v1/bench/drain/event";
const RECEIPTS: &str = "gengfu/v1/bench/drain/cmd/receipt";
/// Ids in one receipt.
const BATCH: usize = 100;
/// A receipt does not wait longer for more ids.
const LINGER: Duration = Duration::from_millis(20);

/// The centre, until it has all.
pub struct Centre {
    done: Receiver<Instant>,
    thread: JoinHandle<std::result::Result<(), String>>,
}

impl Centre {
    /// Connects, and returns when the subscription stands. It ends by itself when it has `events` different ones.
    pub fn start(port: u16, events: usize, receipts: bool) -> Result<Self> {
        let (ready_in, ready) = channel();
        let (done_in, done) = channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            runtime.block_on(listen(port, events, receipts, &ready_in, &done_in))
        });
        ready.recv_timeout(crate::PATIENCE).map_err(|e| fail("the centre subscribes")(&e))?;
        Ok(Self { done, thread })
    }

    /// When it had the last.
    pub fn done(self) -> Result<Instant> {
        let at = self.done.recv_timeout(crate::PATIENCE).map_err(|e| fail("the centre has all events")(&e))?;
        // It ends when its last receipts are acknowledged.
        let ended = self.thread.join().map_err(|_| fail("end the centre")(&"it panicked"))?;
        ended.map(|()| at).map_err(|e| fail("run the centre")(&e))
    }
}

pub fn options(name: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    options.set_outgoing_inflight_upper_limit(crate::WINDOW);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options
}

async fn listen(
    port: u16,
    events: usize,
    receipts: bool,
    ready: &Sender<()>,
    done: &Sender<Instant>,
) -> std::result::Result<(), String> {
    let (client, mut wire): (AsyncClient, EventLoop) = AsyncClient::new(options("centre", port), 1024);
    client.try_subscribe(EVENTS, QoS::AtLeastOnce).map_err(|e| e.to_string())?;
    let (mut seen, mut waiting, mut owed) = (HashSet::with_capacity(events), Vec::new(), 0_usize);
    while seen.len() < events || owed > 0 {
        let polled = tokio::time::timeout(LINGER, wire.poll()).await;
        let is_quiet = polled.is_err();
        // A poll that is dropped here was waiting for the socket: it had nothing to lose.
        if let Ok(event) = polled {
            match event.map_err(|e| e.to_string())? {
                Event::Incoming(Packet::SubAck(_)) => ready.send(()).map_err(|e| e.to_string())?,
                Event::Incoming(Packet::PubAck(_)) => owed = owed.saturating_sub(1),
                Event::Incoming(Packet::Publish(publish)) => {
                    let id = id_of(&publish.payload).ok_or("an event without an id")?;
                    waiting.push(id.clone());
                    if seen.insert(id) && seen.len() == events {
                        done.send(Instant::now()).map_err(|e| e.to_string())?;
                    }
                }
                _ => {}
            }
        }
        // The last few ids must not wait for a full batch, and while nothing comes none waits.
        let due = waiting.len() >= BATCH || (!waiting.is_empty() && (is_quiet || seen.len() == events));
        if receipts && due {
            owed += 1;
            let ids = std::mem::take(&mut waiting);
            let receipt = Receipt { ids, received_at: jiff::Timestamp::now() };
            let body = serde_json::to_vec(&receipt).map_err(|e| e.to_string())?;
            let topic = format!("{RECEIPTS}/{}", seen.len());
            client.try_publish(topic, QoS::AtLeastOnce, false, body).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn id_of(payload: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Head {
        id: String,
    }
    serde_json::from_slice::<Head>(payload).ok().map(|head| head.id)
}
