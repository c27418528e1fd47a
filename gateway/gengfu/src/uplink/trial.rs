//! A connection that only proves a certificate.
//!
//! Owns the trial: connect beside the standing connection under a client id of its own, subscribe as the uplink does, leave. It refuses to
//! publish, to leave a session or a subscription at the broker, and to disturb the connection the alarms are on.

use std::future::Future;
use std::pin::Pin;

use gengfu_contract::topic::Topics;
use tokio::sync::watch;

use super::connection::{Blame, Connection, Lost, Signal, Subscription};
use super::options::{BrokerConfig, SessionOptions};
use super::status::{LinkState, UplinkStatus};
use crate::config::read::host_port;
use crate::identity::{Credentials, Prove, Verdict};

/// Largest message accepted; what arrives is not looked at.
const INCOMING_BYTES_MAX: u32 = 1 << 20;

/// Tries certificates on the uplink's broker.
#[derive(Debug)]
pub struct BrokerTrial {
    /// The broker; its certificate is replaced by the one to be tried.
    pub broker: BrokerConfig,
    /// Our topics.
    pub topics: Topics,
    /// How the uplink is.
    pub uplink: watch::Receiver<UplinkStatus>,
}

impl Prove for BrokerTrial {
    fn prove<'a>(&'a self, candidate: &'a Credentials) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            let patience = 2 * self.broker.connect_timeout;
            match tokio::time::timeout(patience, self.connect(candidate)).await {
                Ok(Ok(())) => Verdict::Proven,
                Ok(Err(lost)) => match lost.blame {
                    Blame::Us => Verdict::Refused(lost.reason),
                    Blame::Peer => Verdict::Distrusted(lost.reason),
                    Blame::Nobody => Verdict::Undecided(lost.reason),
                },
                Err(_) => Verdict::Undecided(format!("the broker did not answer within {} s", patience.as_secs())),
            }
        })
    }

    fn is_online(&self) -> bool {
        !matches!(self.uplink.borrow().state, LinkState::Connecting | LinkState::Offline | LinkState::Stopped)
    }
}

impl BrokerTrial {
    async fn connect(&self, candidate: &Credentials) -> Result<(), Lost> {
        let mut broker = self.broker.clone();
        // The one in use, where there are several.
        if let Some((host, port)) = host_port(&self.uplink.borrow().broker) {
            (broker.host, broker.port) = (host, port);
        }
        broker.tls = Some(candidate.clone());
        broker.client_id.push_str("-trial");
        let session = SessionOptions {
            // Nothing is left behind.
            session_expiry: std::time::Duration::ZERO,
            will: None,
            on_wire_max: 8,
            channel_messages: 8,
            incoming_bytes_max: INCOMING_BYTES_MAX,
        };
        let mut connection =
            Connection::open(&broker, &session).map_err(|e| Lost::new(e.to_string(), "").blaming(Blame::Us))?;
        let full = |_| Lost::new("the client takes nothing", "");
        while !matches!(connection.next().await?, Signal::Connected { .. }) {}
        let filter = |filter| Subscription { filter, not_own: false, at_most_once: false };
        let wanted = [filter(self.topics.command_filter()), filter(self.topics.dispatch_status())];
        connection.subscribe(&wanted).map_err(full)?;
        let refusals = loop {
            if let Signal::Subscribed(refusals) = connection.next().await? {
                break refusals;
            }
        };
        if let Some(why) = refusals.into_iter().flatten().next() {
            let reason = format!("the broker refuses the subscription to commands ({why})");
            return Err(Lost::new(reason, "").blaming(Blame::Us));
        }
        connection.disconnect().map_err(full)?;
        // That the broker saw our goodbye proves nothing more.
        while !matches!(connection.next().await, Ok(Signal::Disconnected) | Err(_)) {}
        Ok(())
    }
}
