//! One connection to a broker, over MQTT 5 or 3.1.1.
//!
//! Owns the difference between the two versions, so that the uplink and the desk are written once. A connection is used until it is
//! lost and then thrown away with everything the client library still holds: what must survive survives in the outbox. It refuses to
//! reconnect, to queue, and to wait: publishing either takes a place in a bounded channel or fails.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::v5::mqttbytes::{QoS as QoS5, v5::PublishProperties};
use rumqttc::{self as four, QoS};

use super::advice::{Advice, Cause};
use super::options::{self, BrokerConfig, OpenError, SessionOptions};
use crate::config::Protocol;
use crate::identity::{Credentials, fault};

/// A message to publish, QoS 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Full topic name.
    pub topic: String,
    /// The body.
    pub payload: Vec<u8>,
    /// The broker keeps it for later subscribers.
    pub retain: bool,
    /// Media type; travels on MQTT 5 only.
    pub content_type: Option<&'static str>,
    /// The broker drops it undelivered after this; MQTT 5 only.
    pub expiry: Option<Duration>,
    /// Where an answer is awaited; MQTT 5 only. The contract does not need it.
    pub response_topic: Option<String>,
    /// What the asker put into its question, unchanged; MQTT 5 only.
    pub correlation: Option<Vec<u8>>,
}

/// The broker does not take a message (MQTT 5 reason code 128 or above).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Which reason.
    pub cause: Cause,
    /// The reason's name, and the broker's own words if it gave any.
    pub text: String,
}

/// A topic filter to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The filter.
    pub filter: String,
    /// Do not send us what we publish ourselves; MQTT 5 only.
    pub not_own: bool,
    /// QoS 0: for retained state whose loss repairs itself. A clustered broker stores what it owes to each QoS 1 subscription on several nodes; in
    /// a city of gateways that is its largest cost (`docs/scale.md`).
    pub at_most_once: bool,
}

/// What the connection reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The broker accepted us. Comes first, once.
    Connected {
        /// It remembers our subscriptions and what arrived for them.
        session_present: bool,
        /// It takes at most so many unacknowledged messages (MQTT 5).
        receive_max: Option<u16>,
        /// It takes packets of at most so many bytes (MQTT 5).
        packet_bytes_max: Option<u32>,
    },
    /// The oldest message not yet written was written under this packet id.
    Published(u16),
    /// PUBACK.
    Acked {
        /// Of the message written under this packet id.
        packet_id: u16,
        /// The broker refused it, and why (MQTT 5; a 3.1.1 broker that refuses says nothing).
        refusal: Option<Refusal>,
        /// The broker took it, and nobody is subscribed to it: it is gone (MQTT 5 reason 0x10; a broker may say so and need not).
        unheard: bool,
    },
    /// The oldest message without an answer is refused, with a reason that MQTT 5 does not have for a PUBACK: the client library cannot go on,
    /// and the connection ends after this. (mosquitto 2.0 answers a message above its `message_size_limit` with 0x95.)
    RefusedOldest(Refusal),
    /// Answer to a subscription: the reason of each refusal, by position.
    Subscribed(Vec<Option<String>>),
    /// A message arrived.
    Message(Arrived),
    /// Our DISCONNECT was written.
    Disconnected,
    /// Something that concerns nobody else.
    Other,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Its topic.
    pub topic: String,
    /// Its body.
    pub payload: Vec<u8>,
    /// It is what the broker kept, not news.
    pub retained: bool,
    /// Where the sender awaits an answer (MQTT 5).
    pub response_topic: Option<String>,
    /// What the answer shall carry, unchanged (MQTT 5).
    pub correlation: Option<Vec<u8>>,
}

/// The connection is gone, or never came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {remedy}")]
pub struct Lost {
    /// Which of the known causes.
    pub cause: Cause,
    /// What happened.
    pub reason: String,
    /// What a person can do.
    pub remedy: String,
    /// Both in Chinese.
    pub zh: Option<(String, String)>,
    /// Whose fault it is.
    pub blame: Blame,
    /// The oldest message without an answer was refused with this; [`Signal::RefusedOldest`] told it.
    pub refused: Option<Box<Refusal>>,
}

/// Whose fault it is that there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The broker refuses our certificate, user or subscription.
    Us,
    /// We refuse the broker's certificate, or it does not speak TLS.
    Peer,
    /// The network's, or it cannot be told.
    Nobody,
}

impl Lost {
    /// One that is no known cause of the uplink's.
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (reason, remedy) = (reason.into(), remedy.into());
        Self { cause: Cause::OwnFault, reason, remedy, zh: None, blame: Blame::Nobody, refused: None }
    }

    /// A known cause, with what the broker or the system says.
    pub(crate) fn of(cause: Cause, detail: &str) -> Self {
        let Advice { problem, remedy, .. } = cause.advice(detail);
        let blame = if cause == Cause::LoginRefused { Blame::Us } else { Blame::Nobody };
        Self { cause, reason: problem.en, remedy: remedy.en, zh: Some((problem.zh, remedy.zh)), blame, refused: None }
    }

    pub(crate) fn blaming(self, blame: Blame) -> Self {
        Self { blame, ..self }
    }
}

/// The client's channel is full or closed; the caller kept no account of what it handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the MQTT client takes no more messages, or the topic is not one")]
pub struct NotTaken;

enum Client {
    V5(four::v5::AsyncClient),
    V4(four::AsyncClient),
    /// No network: a simulated broker holds the other end.
    #[cfg(test)]
    Simulated(super::simulated::Line),
}

enum Loop {
    V5(Box<four::v5::EventLoop>),
    V4(Box<four::EventLoop>),
}

type Poll = Pin<Box<dyn Future<Output = (Loop, Result<Signal, Lost>)> + Send>>;

/// A connection to a broker.
pub struct Connection {
    client: Client,
    /// The poll under way. It is never dropped half done: rumqttc's poll loses packets when cancelled.
    poll: Option<Poll>,
    /// What had arrived before the connection broke, and was not yet told: a PUBACK or a receipt counts also when it was the last.
    leftover: VecDeque<Signal>,
    lost: Option<Lost>,
    /// What it was made with, and which generation of that.
    tls: Option<(Credentials, u64)>,
    /// The credentials were renewed: we have said goodbye.
    leaving: bool,
    /// The broker accepted us: what it refuses from here on is a message.
    accepted: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.client {
            Client::V5(_) => "MQTT 5",
            Client::V4(_) => "MQTT 3.1.1",
            #[cfg(test)]
            Client::Simulated(_) => "simulated",
        };
        f.debug_struct("Connection").field("protocol", &protocol).finish_non_exhaustive()
    }
}

impl Connection {
    /// Prepares a connection; the network is used from the first [`Self::next`] on.
    ///
    /// # Errors
    /// [`OpenError`] when the certificate files cannot be read or an option is out of its range.
    pub fn open(broker: &BrokerConfig, session: &SessionOptions) -> Result<Self, OpenError> {
        #[cfg(test)]
        if let Some(line) = super::simulated::dial(broker, session) {
            let (client, leftover) = (Client::Simulated(line), VecDeque::new());
            return Ok(Self { client, poll: None, leftover, lost: None, tls: None, leaving: false, accepted: false });
        }
        let tls = broker.tls.as_ref().map(|credentials| (credentials.clone(), credentials.generation()));
        let (client, event_loop) = match broker.protocol {
            Protocol::Mqtt5 => {
                let (client, event_loop) =
                    four::v5::AsyncClient::new(options::v5(broker, session)?, session.channel_messages);
                (Client::V5(client), Loop::V5(Box::new(event_loop)))
            }
            Protocol::Mqtt311 => {
                let (options, network) = options::v4(broker, session)?;
                let (client, mut event_loop) = four::AsyncClient::new(options, session.channel_messages);
                event_loop.set_network_options(network);
                (Client::V4(client), Loop::V4(Box::new(event_loop)))
            }
        };
        let poll: Poll = Box::pin(poll_once(event_loop));
        Ok(Self {
            client,
            poll: Some(poll),
            leftover: VecDeque::new(),
            lost: None,
            tls,
            leaving: false,
            accepted: false,
        })
    }

    /// The next signal. Safe to cancel: the poll under way goes on at the next call.
    ///
    /// # Errors
    /// [`Lost`], once; throw the connection away then. Later calls say the same.
    pub async fn next(&mut self) -> Result<Signal, Lost> {
        #[cfg(test)]
        if let Client::Simulated(line) = &self.client {
            return line.next().await;
        }
        if let Some(poll) = self.poll.as_mut() {
            let (event_loop, signal) = loop {
                tokio::select! {
                    biased;
                    done = poll.as_mut() => break done,
                    () = renewed(self.tls.as_ref()), if !self.leaving => {
                        self.leaving = true;
                        // A full channel means that much is on the wire: its end, without a goodbye, comes by a later renewal or loss.
                        if say_goodbye(&self.client).is_err() {
                            tracing::debug!("no place for a goodbye; the renewed certificate is used at the next connection");
                        }
                    }
                }
            };
            match signal {
                Ok(signal) => {
                    self.poll = Some(Box::pin(poll_once(event_loop)));
                    self.accepted |= matches!(signal, Signal::Connected { .. });
                    return Ok(signal);
                }
                Err(mut lost) => {
                    self.poll = None;
                    if !self.accepted && lost.refused.take().is_some() {
                        lost = Lost::of(Cause::ConnectionRefused, &lost.reason);
                    }
                    self.leftover = leftover(event_loop);
                    // What it had answered before is told first, so the oldest is the one that is meant.
                    self.leftover.extend(lost.refused.clone().map(|refusal| Signal::RefusedOldest(*refusal)));
                    self.lost = Some(if self.leaving { Lost::of(Cause::CertificateRenewed, "") } else { lost });
                }
            }
        }
        if let Some(signal) = self.leftover.pop_front() {
            return Ok(signal);
        }
        Err(self.lost.clone().unwrap_or_else(|| Lost::new("the connection was lost", "connect again")))
    }

    /// Hands a message over, QoS 1. [`Signal::Published`] follows in the order of handing over.
    ///
    /// # Errors
    /// [`NotTaken`] when the bounded channel is full.
    pub fn publish(&self, message: Message) -> Result<(), NotTaken> {
        #[cfg(test)]
        if let Client::Simulated(line) = &self.client {
            return line.hand(super::simulated::Handed::Publish(message));
        }
        let Message { topic, payload, retain, content_type, expiry, response_topic, correlation } = message;
        match &self.client {
            Client::V5(client) => {
                let properties = PublishProperties {
                    content_type: content_type.map(str::to_owned),
                    message_expiry_interval: expiry.map(|e| u32::try_from(e.as_secs()).unwrap_or(u32::MAX)),
                    response_topic,
                    correlation_data: correlation.map(Into::into),
                    ..PublishProperties::default()
                };
                let qos = QoS5::AtLeastOnce;
                client.try_publish_with_properties(topic, qos, retain, payload, properties).map_err(|_| NotTaken)
            }
            Client::V4(client) => client.try_publish(topic, QoS::AtLeastOnce, retain, payload).map_err(|_| NotTaken),
            #[cfg(test)]
            Client::Simulated(_) => Err(NotTaken),
        }
    }

    /// Subscribes, QoS 1 unless told otherwise; one [`Signal::Subscribed`] answers for all.
    ///
    /// # Errors
    /// [`NotTaken`] when the bounded channel is full.
    pub fn subscribe(&self, subscriptions: &[Subscription]) -> Result<(), NotTaken> {
        match &self.client {
            Client::V5(client) => {
                let filters = subscriptions.iter().map(|s| {
                    let qos = if s.at_most_once { QoS5::AtMostOnce } else { QoS5::AtLeastOnce };
                    let mut filter = five::Filter::new(s.filter.clone(), qos);
                    filter.nolocal = s.not_own;
                    filter
                });
                client.try_subscribe_many(filters).map_err(|_| NotTaken)
            }
            Client::V4(client) => {
                let filters = subscriptions.iter().map(|s| {
                    let qos = if s.at_most_once { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                    four::SubscribeFilter::new(s.filter.clone(), qos)
                });
                client.try_subscribe_many(filters).map_err(|_| NotTaken)
            }
            #[cfg(test)]
            Client::Simulated(line) => line.hand(super::simulated::Handed::Subscribe(subscriptions.to_vec())),
        }
    }

    /// Ends a subscription; what is on its way still arrives.
    ///
    /// # Errors
    /// [`NotTaken`] when the bounded channel is full.
    pub fn unsubscribe(&self, filter: &str) -> Result<(), NotTaken> {
        match &self.client {
            Client::V5(client) => client.try_unsubscribe(filter).map_err(|_| NotTaken),
            Client::V4(client) => client.try_unsubscribe(filter).map_err(|_| NotTaken),
            #[cfg(test)]
            Client::Simulated(line) => line.hand(super::simulated::Handed::Unsubscribe(filter.to_owned())),
        }
    }

    /// Asks for a clean end; [`Signal::Disconnected`] follows.
    ///
    /// # Errors
    /// [`NotTaken`] when the bounded channel is full.
    pub fn disconnect(&self) -> Result<(), NotTaken> {
        say_goodbye(&self.client)
    }
}

fn say_goodbye(client: &Client) -> Result<(), NotTaken> {
    match client {
        Client::V5(client) => client.try_disconnect().map_err(|_| NotTaken),
        Client::V4(client) => client.try_disconnect().map_err(|_| NotTaken),
        #[cfg(test)]
        Client::Simulated(line) => line.hand(super::simulated::Handed::Disconnect),
    }
}

/// Completes when the connection should be made anew with other certificates.
async fn renewed(tls: Option<&(Credentials, u64)>) {
    match tls {
        Some((credentials, generation)) => credentials.renewed_since(*generation).await,
        None => std::future::pending().await,
    }
}

async fn poll_once(mut event_loop: Loop) -> (Loop, Result<Signal, Lost>) {
    let signal = match &mut event_loop {
        Loop::V5(event_loop) => event_loop.poll().await.map(signal_v5).map_err(|e| lost_v5(&e)),
        Loop::V4(event_loop) => event_loop.poll().await.map(signal_v4).map_err(|e| lost_v4(&e)),
    };
    (event_loop, signal)
}

fn leftover(event_loop: Loop) -> VecDeque<Signal> {
    match event_loop {
        Loop::V5(event_loop) => event_loop.state.events.into_iter().map(signal_v5).collect(),
        Loop::V4(event_loop) => event_loop.state.events.into_iter().map(signal_v4).collect(),
    }
}

fn signal_v5(event: four::v5::Event) -> Signal {
    use four::v5::Event;
    match event {
        Event::Outgoing(outgoing) => outgoing_signal(&outgoing),
        Event::Incoming(five::Packet::ConnAck(ack)) => {
            let properties = ack.properties.as_ref();
            Signal::Connected {
                session_present: ack.session_present,
                receive_max: properties.and_then(|p| p.receive_max),
                packet_bytes_max: properties.and_then(|p| p.max_packet_size),
            }
        }
        Event::Incoming(five::Packet::PubAck(ack)) => {
            let text = ack.properties.and_then(|p| p.reason_string).map(|t| format!(": {t}")).unwrap_or_default();
            let refusal = |cause| Refusal { cause, text: format!("{:?}{text}", ack.reason) };
            let unheard = ack.reason == five::PubAckReason::NoMatchingSubscribers;
            Signal::Acked { packet_id: ack.pkid, refusal: cause_of(ack.reason).map(refusal), unheard }
        }
        Event::Incoming(five::Packet::SubAck(ack)) => {
            let refusal = |code: &five::SubscribeReasonCode| {
                (!matches!(code, five::SubscribeReasonCode::Success(_))).then(|| format!("{code:?}"))
            };
            Signal::Subscribed(ack.return_codes.iter().map(refusal).collect())
        }
        Event::Incoming(five::Packet::Publish(publish)) => match String::from_utf8(publish.topic.to_vec()) {
            Ok(topic) => {
                let (response_topic, correlation) = publish
                    .properties
                    .map_or((None, None), |p| (p.response_topic, p.correlation_data.map(|data| data.to_vec())));
                let (payload, retained) = (publish.payload.to_vec(), publish.retain);
                Signal::Message(Arrived { topic, payload, retained, response_topic, correlation })
            }
            // MQTT 5, 1.5.4: not a topic; no subscription of ours can have asked for it.
            Err(_) => Signal::Other,
        },
        Event::Incoming(_) => Signal::Other,
    }
}

fn signal_v4(event: four::Event) -> Signal {
    use four::{Event, Packet};
    match event {
        Event::Outgoing(outgoing) => outgoing_signal(&outgoing),
        Event::Incoming(Packet::ConnAck(ack)) => {
            Signal::Connected { session_present: ack.session_present, receive_max: None, packet_bytes_max: None }
        }
        Event::Incoming(Packet::PubAck(ack)) => Signal::Acked { packet_id: ack.pkid, refusal: None, unheard: false },
        Event::Incoming(Packet::SubAck(ack)) => {
            let refusal = |code: &four::SubscribeReasonCode| {
                (*code == four::SubscribeReasonCode::Failure).then(|| "refused".to_owned())
            };
            Signal::Subscribed(ack.return_codes.iter().map(refusal).collect())
        }
        Event::Incoming(Packet::Publish(publish)) => Signal::Message(Arrived {
            topic: publish.topic,
            payload: publish.payload.to_vec(),
            retained: publish.retain,
            response_topic: None,
            correlation: None,
        }),
        Event::Incoming(_) => Signal::Other,
    }
}

fn outgoing_signal(outgoing: &four::Outgoing) -> Signal {
    match outgoing {
        four::Outgoing::Publish(packet_id) => Signal::Published(*packet_id),
        four::Outgoing::Disconnect => Signal::Disconnected,
        _ => Signal::Other,
    }
}

/// Why a PUBACK is a refusal; `None` when it is none.
fn cause_of(reason: five::PubAckReason) -> Option<Cause> {
    use five::PubAckReason as Reason;
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => None,
        Reason::NotAuthorized => Some(Cause::NotAuthorized),
        Reason::QuotaExceeded => Some(Cause::QuotaExceeded),
        Reason::PayloadFormatInvalid => Some(Cause::PayloadFormatInvalid),
        Reason::TopicNameInvalid => Some(Cause::TopicInvalid),
        Reason::UnspecifiedError | Reason::ImplementationSpecificError | Reason::PacketIdentifierInUse => {
            Some(Cause::PublishRefused)
        }
    }
}

fn lost_v5(error: &four::v5::ConnectionError) -> Lost {
    use five::DisconnectReasonCode as Reason;
    use four::v5::mqttbytes::Error as Bytes;
    use four::v5::{ConnectionError, StateError};
    match error {
        // Reasons from 0x80 on are refusals (MQTT 5, 2.4), known to the library for this packet or not. (It says "return code" of a PUBACK's too.)
        ConnectionError::MqttState(StateError::Deserialization(
            Bytes::InvalidReason(reason @ 0x80..) | Bytes::InvalidConnectReturnCode(reason @ 0x80..),
        )) => {
            let cause = if *reason == PACKET_TOO_LARGE { Cause::PacketTooLarge } else { Cause::PublishRefused };
            let text = format!("reason 0x{reason:02x}, which a PUBACK cannot have");
            Lost { refused: Some(Box::new(Refusal { cause, text: text.clone() })), ..Lost::of(cause, &text) }
        }
        ConnectionError::ConnectionRefused(code) => refused(&format!("{code:?}")),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let text = reason_string.as_ref().map(|t| format!(": {t}")).unwrap_or_default();
            let cause = match reason_code {
                Reason::SessionTakenOver => Cause::SessionTakenOver,
                Reason::PacketTooLarge => Cause::PacketTooLarge,
                Reason::QuotaExceeded | Reason::MessageRateTooHigh => Cause::QuotaExceeded,
                Reason::NotAuthorized => Cause::NotAuthorized,
                Reason::PayloadFormatInvalid => Cause::PayloadFormatInvalid,
                Reason::TopicNameInvalid => Cause::TopicInvalid,
                _ => Cause::BrokerEnded,
            };
            Lost::of(cause, &format!("{reason_code:?}{text}"))
        }
        // The client stopped before a packet id whose PUBACK never came, or its ping was not answered.
        ConnectionError::MqttState(StateError::CollisionTimeout | StateError::AwaitPingResp) => {
            Lost::of(Cause::NoPuback, &error.to_string())
        }
        // An alert that comes after a TLS 1.3 handshake; this error alone does not name what it was caused by.
        ConnectionError::MqttState(StateError::Deserialization(inner)) if fault::explain(inner).is_some() => {
            unreachable_broker(inner)
        }
        other => unreachable_broker(other),
    }
}

fn lost_v4(error: &four::ConnectionError) -> Lost {
    match error {
        four::ConnectionError::ConnectionRefused(code) => refused(&format!("{code:?}")),
        four::ConnectionError::MqttState(four::StateError::CollisionTimeout | four::StateError::AwaitPingResp) => {
            Lost::of(Cause::NoPuback, &error.to_string())
        }
        other => unreachable_broker(other),
    }
}

/// MQTT 5, 2.4: "Packet too large".
const PACKET_TOO_LARGE: u8 = 0x95;

fn refused(code: &str) -> Lost {
    let cause = match code {
        "BadUserNamePassword" | "NotAuthorized" => Cause::LoginRefused,
        "UnsupportedProtocolVersion" | "RefusedProtocolVersion" => Cause::ProtocolRefused,
        "ClientIdentifierNotValid" | "BadClientId" => Cause::ClientIdRefused,
        _ => Cause::ConnectionRefused,
    };
    Lost::of(cause, code)
}

fn unreachable_broker(error: &(dyn std::error::Error + 'static)) -> Lost {
    let Some(fault) = fault::explain(error) else { return Lost::of(Cause::BrokerUnreachable, &error.to_string()) };
    let (reason, remedy) = (fault.kind.reason(), fault.kind.remedy());
    Lost {
        cause: Cause::TlsFailed,
        reason: fault.to_string(),
        remedy: remedy.en,
        zh: Some((format!("{}（{}）", reason.zh, fault.cause), remedy.zh)),
        blame: if fault.kind.is_about_ours() { Blame::Us } else { Blame::Peer },
        refused: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_a_publish_has_its_own_cause_and_success_has_none() {
        use five::PubAckReason as Reason;
        let causes = [
            (Reason::Success, None),
            (Reason::NoMatchingSubscribers, None),
            (Reason::NotAuthorized, Some(Cause::NotAuthorized)),
            (Reason::QuotaExceeded, Some(Cause::QuotaExceeded)),
            (Reason::PayloadFormatInvalid, Some(Cause::PayloadFormatInvalid)),
            (Reason::TopicNameInvalid, Some(Cause::TopicInvalid)),
            (Reason::ImplementationSpecificError, Some(Cause::PublishRefused)),
        ];
        for (reason, cause) in causes {
            let ack = five::PubAck { pkid: 7, reason, properties: None };
            let signal = signal_v5(four::v5::Event::Incoming(five::Packet::PubAck(ack)));
            let Signal::Acked { packet_id: 7, refusal, unheard } = signal else { panic!("{signal:?}") };
            assert_eq!(refusal.map(|refusal| refusal.cause), cause, "{reason:?}");
            assert_eq!(unheard, reason == Reason::NoMatchingSubscribers, "{reason:?}");
        }
    }

    #[test]
    fn a_refusal_whose_reason_the_client_library_does_not_know_names_its_cause_and_ends_the_connection() {
        use four::v5::mqttbytes::Error;
        use four::v5::{ConnectionError, StateError};
        let said = |error: Error| lost_v5(&ConnectionError::MqttState(StateError::Deserialization(error)));
        let lost = |reason| said(Error::InvalidReason(reason));
        // As the library says it of mosquitto's PUBACK for a message above its `message_size_limit`.
        let too_large = said(Error::InvalidConnectReturnCode(0x95));
        assert_eq!(too_large.cause, Cause::PacketTooLarge);
        let refusal = too_large.refused.expect("told");
        assert!(refusal.cause == Cause::PacketTooLarge && refusal.text.contains("0x95"), "{refusal:?}");
        assert_eq!(lost(0x8c).refused.map(|refusal| refusal.cause), Some(Cause::PublishRefused));
        assert_eq!(lost(0x01).refused, None, "that is no refusal");
    }

    #[test]
    fn a_channel_that_is_full_is_told_and_nothing_waits() {
        let broker = BrokerConfig::new("127.0.0.1", 9, Protocol::Mqtt5, "c");
        let session = SessionOptions {
            session_expiry: Duration::from_secs(1),
            will: None,
            on_wire_max: 4,
            channel_messages: 2,
            incoming_bytes_max: 1024,
        };
        for protocol in [Protocol::Mqtt5, Protocol::Mqtt311] {
            let connection = Connection::open(&BrokerConfig { protocol, ..broker.clone() }, &session).unwrap();
            let message = || Message { topic: "t".into(), ..Message::default() };
            assert_eq!((connection.publish(message()), connection.publish(message())), (Ok(()), Ok(())));
            assert_eq!(connection.publish(message()), Err(NotTaken), "{protocol:?}");
        }
    }

    #[test]
    fn what_the_broker_says_at_the_door_leads_to_its_remedy() {
        for (code, cause) in [
            ("NotAuthorized", Cause::LoginRefused),
            ("BadClientId", Cause::ClientIdRefused),
            ("UnsupportedProtocolVersion", Cause::ProtocolRefused),
            ("ServerBusy", Cause::ConnectionRefused),
        ] {
            let lost = refused(code);
            assert!(lost.cause == cause && lost.reason.contains(code) && lost.zh.is_some(), "{lost:?}");
        }
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked);
        let lost = unreachable_broker(&std::io::Error::other(alert));
        assert_eq!((lost.cause, lost.blame), (Cause::TlsFailed, Blame::Us), "{lost:?}");
        let alert = std::io::Error::other(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked));
        let inner = four::v5::mqttbytes::Error::Io(alert);
        let late = four::v5::ConnectionError::MqttState(four::v5::StateError::Deserialization(inner));
        assert_eq!(lost_v5(&late).blame, Blame::Us, "as it comes after a handshake of TLS 1.3");
        let lost = unreachable_broker(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!((lost.cause, lost.blame), (Cause::BrokerUnreachable, Blame::Nobody), "{lost:?}");
    }
}
