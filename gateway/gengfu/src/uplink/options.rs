//! From our settings to the MQTT client's.
//!
//! Owns the limits the client library asserts (it panics on a bad option, so they are checked here first) and who is
//! let to read a password. Refuses defaults of the library that lose messages or cut pictures: packet sizes and windows are always set.

use std::fmt;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{LastWill as LastWill5, LastWillProperties};
use rumqttc::{self as four, LastWill, NetworkOptions, QoS, TlsConfiguration, Transport};

use super::connection::Message;
use crate::config::Protocol;
use crate::identity::{Credentials, TlsProblem};

/// Largest packet we send on MQTT 3.1.1, where the broker does not say what it takes.
const OUTGOING_BYTES_MAX: usize = 16 << 20;

/// A password: never printed, not even by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a password as it stands in its file; a final newline does not belong to it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Which broker, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// MQTT version.
    pub protocol: Protocol,
    /// MQTT client id; one per client, kept for ever.
    pub client_id: String,
    /// MQTT user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Silence after which a ping is due, 5 to 60 s. The broker declares us dead after 1.5 times that.
    pub keep_alive: Duration,
    /// Time for TCP, TLS and CONNACK together, in whole seconds.
    pub connect_timeout: Duration,
    /// Transport security; plain TCP without.
    pub tls: Option<Credentials>,
}

impl BrokerConfig {
    /// A broker by plain TCP without a user, keep-alive 30 s (a dead client is known after 45 s), connect timeout 10 s.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, protocol: Protocol, client_id: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            protocol,
            client_id: client_id.into(),
            username: None,
            password: None,
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// What one kind of client wants of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// The broker keeps subscriptions and undelivered messages for us this long after a connection ends. (A 3.1.1 broker keeps
    /// them as long as its own configuration says.) Zero: a clean session, which also ends what the broker kept from before.
    pub session_expiry: Duration,
    /// What the broker says for us when we die.
    pub will: Option<Message>,
    /// Most messages on the wire without PUBACK; also the range of packet ids, so well above what is really sent.
    pub on_wire_max: u16,
    /// Places in the channel to the client.
    pub channel_messages: usize,
    /// Largest packet accepted from the broker.
    pub incoming_bytes_max: u32,
}

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Certificates and keys. These may be mended while the gateway runs.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// An option out of range.
    #[error("{0}")]
    Option(&'static str),
}

pub(super) fn v5(broker: &BrokerConfig, session: &SessionOptions) -> Result<four::v5::MqttOptions, OpenError> {
    check(broker, session)?;
    let mut options = four::v5::MqttOptions::new(&broker.client_id, &broker.host, broker.port);
    options.set_keep_alive(broker.keep_alive);
    // Who wants nothing kept wants nothing of before either.
    options.set_clean_start(session.session_expiry.is_zero());
    options.set_session_expiry_interval(Some(u32::try_from(session.session_expiry.as_secs()).unwrap_or(u32::MAX)));
    options.set_max_packet_size(Some(session.incoming_bytes_max));
    options.set_outgoing_inflight_upper_limit(session.on_wire_max);
    options.set_connection_timeout(broker.connect_timeout.as_secs().max(1));
    options.set_network_options(network(broker));
    if let (Some(username), password) = (&broker.username, &broker.password) {
        options.set_credentials(username, password.as_ref().map_or("", |p| &p.0));
    }
    if let Some(will) = &session.will {
        let properties = LastWillProperties {
            delay_interval: None,
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: will.content_type.map(str::to_owned),
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        let (topic, payload) = (will.topic.clone(), will.payload.clone());
        options.set_last_will(LastWill5::new(topic, payload, QoS5::AtLeastOnce, will.retain, Some(properties)));
    }
    if let Some(transport) = transport(broker)? {
        options.set_transport(transport);
    }
    Ok(options)
}

pub(super) fn v4(
    broker: &BrokerConfig,
    session: &SessionOptions,
) -> Result<(four::MqttOptions, NetworkOptions), OpenError> {
    check(broker, session)?;
    let mut options = four::MqttOptions::new(&broker.client_id, &broker.host, broker.port);
    options.set_keep_alive(broker.keep_alive);
    // Who wants nothing kept says so; a broker of this version has no other measure.
    options.set_clean_session(session.session_expiry.is_zero());
    let incoming = usize::try_from(session.incoming_bytes_max).unwrap_or(usize::MAX);
    options.set_max_packet_size(incoming, OUTGOING_BYTES_MAX);
    options.set_inflight(session.on_wire_max);
    if let (Some(username), password) = (&broker.username, &broker.password) {
        options.set_credentials(username, password.as_ref().map_or("", |p| &p.0));
    }
    if let Some(will) = &session.will {
        options.set_last_will(LastWill::new(&will.topic, will.payload.clone(), QoS::AtLeastOnce, will.retain));
    }
    if let Some(transport) = transport(broker)? {
        options.set_transport(transport);
    }
    Ok((options, network(broker)))
}

fn check(broker: &BrokerConfig, session: &SessionOptions) -> Result<(), OpenError> {
    let seconds = broker.keep_alive.as_secs();
    if !(5..=60).contains(&seconds) {
        return Err(OpenError::Option("keep_alive must be 5 to 60 s: a dead gateway has to be known within 90 s"));
    }
    if broker.client_id.is_empty() {
        return Err(OpenError::Option("client_id must not be empty: the broker keeps our session under it"));
    }
    if session.on_wire_max == 0 || session.channel_messages == 0 {
        return Err(OpenError::Option("a window of 0 would send nothing"));
    }
    Ok(())
}

fn network(broker: &BrokerConfig) -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(broker.connect_timeout.as_secs().max(1));
    // An alarm is one small packet; it must not wait for more to come.
    network.set_tcp_nodelay(true);
    network
}

fn transport(broker: &BrokerConfig) -> Result<Option<Transport>, OpenError> {
    let Some(tls) = &broker.tls else { return Ok(None) };
    Ok(Some(Transport::tls_with_config(TlsConfiguration::Rustls(tls.client_config()?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::TlsFiles;

    fn session() -> SessionOptions {
        SessionOptions {
            session_expiry: Duration::from_secs(3600),
            will: Some(Message { topic: "t".into(), payload: b"gone".to_vec(), retain: true, ..Message::default() }),
            on_wire_max: 64,
            channel_messages: 64,
            incoming_bytes_max: 1 << 16,
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let mut broker = BrokerConfig::new("h", 1883, Protocol::Mqtt5, "c");
        broker.password = Some(Secret::new("hunter2\n"));
        assert!(!format!("{broker:?}").contains("hunter2"));
        assert_eq!(broker.password, Some(Secret::new("hunter2")));
    }

    #[test]
    fn options_the_library_would_panic_on_are_errors() {
        let good = BrokerConfig::new("h", 1883, Protocol::Mqtt5, "c");
        assert!(v5(&good, &session()).is_ok() && v4(&good, &session()).is_ok());
        let mut bad = vec![good.clone(), good.clone(), good.clone()];
        bad[0].keep_alive = Duration::from_secs(1);
        bad[1].client_id.clear();
        bad[2].tls = Some(TlsFiles { ca: "/nonexistent/ca.pem".into(), identity: None }.into());
        for broker in &bad {
            assert!(v5(broker, &session()).is_err() && v4(broker, &session()).is_err(), "{broker:?}");
        }
        let none = SessionOptions { on_wire_max: 0, ..session() };
        assert!(v5(&good, &none).is_err() && v4(&good, &none).is_err());
    }
}
