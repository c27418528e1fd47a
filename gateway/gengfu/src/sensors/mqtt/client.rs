//! The task of one device broker.
//!
//! Owns the connection (MQTT 3.1.1, which every local broker speaks), subscriptions, PUBACKs, reconnects, and the batch on its way to the
//! decider. The session outlives a connection: what is published with QoS 1 while the gateway is away waits in the broker. Refuses to publish,
//! and to acknowledge what is not durable.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet, Publish,
    QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use crate::clock::Clock;
use crate::identity::{Credentials, Own, Source, TrustedTime, fault};
use crate::link::LinkBatch;
use crate::sensors::handover::{Handover, show};
use crate::sensors::plan::BrokerPlan;
use crate::sensors::stats::Problem;
use crate::sensors::{Moment, SensorStats};

/// First and longest wait before the broker is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Time for TCP and CONNACK, seconds.
const CONNECT_TIMEOUT_S: u64 = 5;
/// Largest message of a device; ChirpStack's with many gateways are some 10 KiB.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Filters of one SUBSCRIBE: a few hundred long topics stay within a packet.
const FILTERS_PER_PACKET: usize = 100;
/// Places in the channel to the client: subscriptions and PUBACKs.
const CHANNEL: usize = 512;

type Poll = Pin<Box<dyn Future<Output = (Box<EventLoop>, Result<Event, ConnectionError>)> + Send>>;

/// Serves one broker until `stop`. `saved` is the value stored under [`crate::sensors::cursor_key`] of the broker's name. When `observed` is full nothing is acknowledged and
/// the broker waits; when it is closed nobody judges any more, and it ends.
pub async fn run(
    plan: BrokerPlan,
    saved: Option<Vec<u8>>,
    clock: Arc<dyn Clock>,
    observed: mpsc::Sender<LinkBatch>,
    status: watch::Sender<SensorStats>,
    stop: CancellationToken,
) {
    let inbox = Inbox::new(plan, saved.as_deref(), Moment::of(clock.as_ref()));
    let mut task = Task {
        inbox,
        clock,
        connection: None,
        handover: Handover::default(),
        retry_at: Instant::now(),
        retry: RETRY_FIRST,
    };
    loop {
        task.acknowledge();
        show(&mut task.inbox, &status);
        let has_batch = task.handover.is_due(&task.inbox);
        tokio::select! {
            () = stop.cancelled() => break,
            event = next(&mut task.connection) => task.on_event(event),
            stored = task.handover.answered() => task.handover.settle(&mut task.inbox, stored),
            permit = observed.reserve(), if has_batch => match permit {
                Ok(permit) => task.handover.give(&mut task.inbox, permit),
                Err(_) => break,
            },
            () = sleep_until(task.retry_at), if task.connection.is_none() => task.connect(),
        }
    }
    show(&mut task.inbox, &status);
}

struct Task {
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    connection: Option<Connection>,
    handover: Handover,
    retry_at: Instant,
    retry: Duration,
}

/// One connection; thrown away when it is lost, with the acknowledgements it still owed: the broker sends those messages again.
struct Connection {
    client: AsyncClient,
    /// The poll under way. It is never dropped half done: rumqttc's poll loses packets when cancelled.
    poll: Option<Poll>,
    /// Messages to acknowledge, in order, each when its number is settled.
    owed: VecDeque<(u64, Publish)>,
    /// SUBACKs awaited; the broker is up with the last one.
    subacks: usize,
}

async fn next(connection: &mut Option<Connection>) -> Result<Event, ConnectionError> {
    let Some(poll) = connection.as_mut().and_then(|connection| connection.poll.as_mut()) else {
        return std::future::pending().await;
    };
    let (event_loop, event) = poll.await;
    if let Some(connection) = connection {
        connection.poll = event.is_ok().then(|| Box::pin(poll_once(event_loop)) as Poll);
    }
    event
}

async fn poll_once(mut event_loop: Box<EventLoop>) -> (Box<EventLoop>, Result<Event, ConnectionError>) {
    let event = event_loop.poll().await;
    (event_loop, event)
}

impl Task {
    fn at(&self) -> Moment {
        Moment::of(self.clock.as_ref())
    }

    fn connect(&mut self) {
        let config = &self.inbox.plan().config;
        let mut options = MqttOptions::new(config.client_id.clone(), config.host.clone(), config.port);
        options.set_keep_alive(config.keep_alive).set_clean_session(false).set_manual_acks(true);
        options.set_max_packet_size(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        if let Some(user) = &config.username {
            match password(config.password_file.as_deref()) {
                Ok(password) => drop(options.set_credentials(user.clone(), password)),
                Err(problem) => return self.lose(&problem),
            }
        }
        if let Some(ca) = &config.ca_file {
            let source = Source { ca: ca.clone(), crl: None, own: Own::Nobody };
            let credentials = Credentials::new(source, TrustedTime::since_build(self.clock.clone()));
            match credentials.client_config() {
                Ok(tls) => drop(options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)))),
                Err(problem) => {
                    let remedy = "copy the CA of that broker there, or correct ca_file".to_owned();
                    return self.lose(&Problem::Broker { reason: problem.to_string(), remedy });
                }
            }
        }
        let (client, mut event_loop) = AsyncClient::new(options, CHANNEL);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        event_loop.set_network_options(network);
        let poll: Poll = Box::pin(poll_once(Box::new(event_loop)));
        self.connection = Some(Connection { client, poll: Some(poll), owed: VecDeque::new(), subacks: 0 });
    }

    fn on_event(&mut self, event: Result<Event, ConnectionError>) {
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => self.subscribe(),
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let refused = ack.return_codes.contains(&SubscribeReasonCode::Failure);
                let Some(connection) = &mut self.connection else { return };
                connection.subacks = connection.subacks.saturating_sub(1);
                if refused {
                    let reason = "the broker refuses a subscription".to_owned();
                    let remedy = "let the gateway's user read the topics of its devices (the broker's ACL)".to_owned();
                    return self.lose(&Problem::Broker { reason, remedy });
                }
                if connection.subacks == 0 {
                    self.retry = RETRY_FIRST;
                    let at = self.at();
                    self.inbox.connected(at);
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let at = self.at();
                let number = self.inbox.on_message(at, &publish.topic, &publish.payload, publish.retain);
                if let Some(connection) = &mut self.connection
                    && publish.qos != QoS::AtMostOnce
                {
                    connection.owed.push_back((number, publish));
                }
            }
            Ok(_) => {}
            Err(error) => self.lose(&lost(&error)),
        }
    }

    fn subscribe(&mut self) {
        let filters = self.inbox.filters();
        let Some(connection) = &mut self.connection else { return };
        for some in filters.chunks(FILTERS_PER_PACKET) {
            let some = some.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
            connection.subacks += 1;
            if connection.client.try_subscribe_many(some).is_err() {
                let reason = "the MQTT client takes no more subscriptions".to_owned();
                let remedy = "spread the devices over several [[device_broker]] entries".to_owned();
                return self.lose(&Problem::Broker { reason, remedy });
            }
        }
    }

    /// Acknowledges, in order, what is durable by now.
    fn acknowledge(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while let Some((number, publish)) = connection.owed.front() {
            if !self.inbox.is_settled(*number) || connection.client.try_ack(publish).is_err() {
                break;
            }
            connection.owed.pop_front();
        }
    }

    /// Sets when the broker is tried again: later each time, and never all gateways of a site at once.
    fn lose(&mut self, problem: &Problem) {
        self.connection = None;
        let at = self.at();
        self.inbox.lost(at, problem);
        self.retry_at = Instant::now() + self.retry.mul_f64(rand::rng().random_range(0.75..1.25));
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

/// Read at each connect: a changed password needs no restart.
fn password(file: Option<&std::path::Path>) -> Result<String, Problem> {
    let Some(file) = file else { return Ok(String::new()) };
    let text = std::fs::read_to_string(file).map_err(|error| Problem::Broker {
        reason: format!("cannot read {}: {error}", file.display()),
        remedy: "put the password there, readable for the gateway's user, or correct password_file".into(),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn lost(error: &ConnectionError) -> Problem {
    match error {
        ConnectionError::ConnectionRefused(code) => Problem::Broker {
            reason: format!("the broker refused the connection ({code:?})"),
            remedy: match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    "check username and password_file against the broker's".into()
                }
                _ => "read the broker's log".into(),
            },
        },
        other if fault::explain(other).is_some() => {
            let fault = fault::explain(other).map_or_else(String::new, |fault| fault.to_string());
            Problem::Broker {
                reason: fault,
                remedy: "check ca_file, the broker's name in its certificate, and its port".into(),
            }
        }
        other => Problem::Broker {
            reason: format!("no connection to the broker ({other})"),
            remedy: "check that the broker runs, and its address and port".into(),
        },
    }
}
