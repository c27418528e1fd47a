//! The broker of the demonstration: rumqttd in this process, on loopback.
//!
//! Owns its settings and the wait until it answers. It is for `gengfu demo` and tests only: it forgets everything when the process ends,
//! has no users and no ACL, and rumqttd offers no way to stop it. A site uses a real broker.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Largest message, for pictures.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// How long the broker may take to answer. It takes milliseconds; a loaded machine is slower.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Where to listen; rumqttd has one port per MQTT version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerPorts {
    /// Port for MQTT 5.
    pub v5: u16,
    /// Port for MQTT 3.1.1.
    pub v4: u16,
}

/// A running broker. It runs until the process ends; dropping the handle changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct BrokerHandle {
    /// Where it listens, 127.0.0.1.
    pub ports: BrokerPorts,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A port is taken.
    #[error("port {port} on 127.0.0.1 is taken: {source}; choose another, or stop what listens there")]
    PortTaken {
        /// The port.
        port: u16,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Its thread cannot be started.
    #[error("the embedded broker cannot be started: {0}")]
    Thread(std::io::Error),
    /// It does not answer.
    #[error("the embedded broker does not answer on port {port}: {reason}")]
    Silent {
        /// The port.
        port: u16,
        /// What happened instead.
        reason: String,
    },
}

/// Starts the broker and returns when both ports answer. Blocking: call it before the work begins, or on a blocking thread.
///
/// # Errors
/// [`BrokerError`] when a port is taken or the broker does not answer.
pub fn start(ports: BrokerPorts) -> Result<BrokerHandle, BrokerError> {
    for port in [ports.v5, ports.v4] {
        // rumqttd only logs a port that is taken, and another program would answer in its place.
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|source| BrokerError::PortTaken { port, source })?;
    }
    let mut broker = Broker::new(config(ports));
    std::thread::Builder::new()
        .name("demo-broker".into())
        .spawn(move || {
            if let Err(fault) = broker.start() {
                tracing::error!(%fault, "the embedded broker ended");
            }
        })
        .map_err(BrokerError::Thread)?;
    for (port, version) in [(ports.v5, 5), (ports.v4, 4)] {
        wait_until_ready(port, version)?;
    }
    Ok(BrokerHandle { ports })
}

fn config(ports: BrokerPorts) -> Config {
    let server = |name: &str, port: u16| {
        let connections = ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: PAYLOAD_BYTES_MAX,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let settings =
            ServerSettings { name: name.into(), listen, tls: None, next_connection_delay_ms: 1, connections };
        Some(HashMap::from([(name.to_owned(), settings)]))
    };
    Config {
        id: 0,
        router: RouterConfig {
            max_connections: 64,
            max_outgoing_packet_count: 200,
            max_segment_size: 16 << 20,
            max_segment_count: 4,
            ..RouterConfig::default()
        },
        v5: server("demo-v5", ports.v5),
        v4: server("demo-v4", ports.v4),
        ..Config::default()
    }
}

/// Connects until the broker answers. Refused connections return at once and are tried again.
#[expect(clippy::disallowed_methods, reason = "this waits for another thread's socket, in real time")]
fn wait_until_ready(port: u16, version: u8) -> Result<(), BrokerError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let pause = Duration::from_millis(20);
    let begun = Instant::now();
    loop {
        let left = READY_WITHIN.saturating_sub(begun.elapsed());
        match connack(address, version, left.max(pause)) {
            Ok(()) => return Ok(()),
            Err(fault) if left.is_zero() => return Err(BrokerError::Silent { port, reason: fault.to_string() }),
            Err(_) => std::thread::park_timeout(pause),
        }
    }
}

/// A CONNECT (MQTT 3.1.1, 3.1; MQTT 5, 3.1) and its CONNACK with reason 0.
///
/// It has no client id, so that the broker names each try anew: rumqttd 0.20 panics, and answers nobody on that port from then on, when a
/// client id comes back whose connection ended before its CONNACK was written. For the same reason it waits `within`, as long as it may.
fn connack(address: SocketAddr, version: u8, within: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    let mut connect = vec![0, 4, b'M', b'Q', b'T', b'T', version, 0x02, 0, 10];
    if version == 5 {
        connect.push(0);
    }
    connect.extend_from_slice(&[0, 0]);
    let length = u8::try_from(connect.len()).unwrap_or(u8::MAX);
    stream.write_all(&[&[0x10, length], connect.as_slice()].concat())?;
    let mut answer = [0_u8; 4];
    stream.read_exact(&mut answer)?;
    // The broker need not log a broken client.
    stream.write_all(&[0xe0, 0])?;
    if answer[0] == 0x20 && answer[3] == 0 {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("not an accepting CONNACK: {answer:02x?}")))
    }
}
