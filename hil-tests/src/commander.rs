//! A centre's client that gives commands and keeps every answer. It owns one plain MQTT connection of its own, beside the desk's; it refuses
//! to know what a command means and to give receipts: that is the desk's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use crate::process::eventually;
use crate::site::{GATEWAY, SITE, Site};
use crate::{Result, RigError};

/// A kill, a restart and a reconnect are well within.
const SOON: Duration = Duration::from_secs(40);
/// Largest command, as brokers take it by default.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// A second centre's client: sends commands, keeps every answer.
/// Dropping it disconnects it.
pub struct Centre {
    client: Client,
    replies: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
}

impl Centre {
    /// Connects, and reads this site's answers from now on.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn join(site: &Site) -> Result<Self> {
        let mut options = MqttOptions::new("hil-commands", "127.0.0.1", site.broker.port());
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        let (client, mut connection) = Client::new(options, 64);
        let replies: Arc<Mutex<BTreeMap<String, Vec<Value>>>> = Arc::default();
        let prefix = format!("gengfu/v1/{SITE}/{GATEWAY}/reply/");
        let (kept, filter, subscriber) = (replies.clone(), format!("{prefix}#"), client.clone());
        let (joined_in, joined) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = subscriber.try_subscribe(&filter, QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        let _ = joined_in.try_send(());
                    }
                    Ok(Event::Incoming(Packet::Publish(arrived))) => {
                        let id = arrived.topic.trim_start_matches(&prefix).to_owned();
                        let reply = serde_json::from_slice(&arrived.payload).unwrap_or(Value::Null);
                        kept.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().push(reply);
                    }
                    Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        });
        joined.recv_timeout(SOON).map_err(|e| RigError::failed("subscribe to the answers", e))?;
        Ok(Self { client, replies })
    }

    /// Gives a command.
    ///
    /// # Errors
    /// When the connection takes nothing.
    pub fn send(&self, gateway: &str, verb: &str, id: &str, body: &Value) -> Result<()> {
        let topic = format!("gengfu/v1/{SITE}/{gateway}/cmd/{verb}/{id}");
        let sent = self.client.publish(topic, QoS::AtLeastOnce, false, body.to_string());
        sent.map_err(|e| RigError::failed("send a command", e))
    }

    /// Every answer to a command so far.
    #[must_use]
    pub fn replies(&self, id: &str) -> Vec<Value> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    /// Waits for an answer that is not "accepted", beyond the first `before`.
    ///
    /// # Errors
    /// When none comes soon.
    pub fn last_word(&self, id: &str, before: usize) -> Result<Value> {
        eventually(&format!("an answer to {id}"), SOON, || {
            let replies = self.replies(id);
            let word = replies.iter().skip(before).find(|reply| reply["outcome"] != "accepted");
            word.cloned().ok_or_else(|| format!("so far {replies:?}"))
        })
    }
}

impl Drop for Centre {
    fn drop(&mut self) {
        let _ = self.client.try_disconnect();
    }
}

/// A command's body with an operator and the gateway's own time.
///
/// # Errors
/// When the gateway does not answer.
pub fn given(site: &Site, body: Value) -> Result<Value> {
    let status = site.gateway.status()?;
    let mut body = body;
    body["operator"] = json!("op-1");
    if body["issued_at"].is_null() {
        body["issued_at"] = status["gateway"]["now"].clone();
    }
    Ok(body)
}
