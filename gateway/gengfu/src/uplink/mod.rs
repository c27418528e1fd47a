//! The way to the dispatch centre.
//!
//! Owns everything between the outbox and the broker: what goes next ([`delivery`]), the retained board ([`board`]), commands
//! ([`commands`]) and one pump over all of it ([`run`]). Only the centre's receipt ends a delivery. It refuses to make events, to decide
//! about alarms, and to keep anything that must survive: that is in the outbox before it gets here. Nothing upstream
//! ever waits for it: the core notifies, commits, sets the board, and goes on.
//!
//! # What a technician may see
//!
//! `gengfu status` shows one [`LinkState`] with a [`Cause`], both in words of two languages and with a remedy:
//!
//! | state | causes | what it means |
//! |---|---|---|
//! | `connecting` | | the first connection is being made |
//! | `offline` | `broker_unreachable` `tls_failed` `login_refused` `protocol_refused` `client_id_refused` `connection_refused` | the broker is not reached, or does not let us in |
//! | `offline` | `session_taken_over` `broker_ended` `no_puback` `own_fault` `own_settings` `certificate_renewed`, or one of `refused` | a connection ended; it is made anew |
//! | `store_fault` | `store_fault` | the outbox cannot be used; nothing is lost, nothing is sent |
//! | `not_listening` | `subscription_refused` | no receipt and no command can arrive |
//! | `refused` | `not_authorized` `quota_exceeded` `payload_format_invalid` `packet_too_large` `topic_invalid` `publish_refused` `broker_hangs_up` | some of what is published is not taken; it is kept and tried again |
//! | `no_receipts` | `nobody_subscribed` `centre_away` `centre_never_heard` `centre_slow` `centre_silent` `dropped_in_silence` `silent_or_dropped` | the broker took the items and the centre has not confirmed them |
//! | `online` | none, or `on_other_broker` | all is well, perhaps not on the preferred broker |
//! | `stopped` | | shut down |
//!
//! The texts are in [`advice`]. Nothing that is received is lost in any of them: items leave the outbox by the centre's receipt only.
//!
//! Metrics: counters `gengfu_uplink_connects_total`, `gengfu_uplink_switches_total`, `gengfu_uplink_sent_total{lane}`, `gengfu_uplink_broker_acked_total{lane}`,
//! `gengfu_uplink_received_total{lane}`, `gengfu_uplink_refused_total{lane}`, `gengfu_uplink_overdue_total{lane}`,
//! `gengfu_uplink_abandoned_total{lane}`, `gengfu_uplink_unknown_receipts_total`, `gengfu_uplink_commands_total{verb}`; gauges
//! `gengfu_uplink_connected`, `gengfu_uplink_in_flight`, `gengfu_uplink_awaiting_receipt`, `gengfu_uplink_overdue_life_safety`;
//! histogram `gengfu_uplink_receipt_latency_seconds{lane}` (sensed to receipt).
//!
//! Log: one line per hop with `hop` = `sent`, `broker_acked`, `received` (or `refused`, `overdue`, `abandoned`), `id` and `alarm`.

pub mod advice;
pub mod backoff;
pub mod board;
pub mod brokers;
pub mod commands;
pub mod connection;
pub mod copies;
pub mod delivery;
mod holds;
mod latency;
pub mod ledger;
mod missing;
mod mqtt;
pub mod options;
mod pace;
mod parts;
mod patience;
mod respond;
mod session;
#[cfg(test)]
pub(crate) mod simulated;
mod sizes;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod trial;

use std::sync::Arc;
use std::time::Duration;

use gengfu_contract::command::Reply;
use gengfu_contract::slug::Slug;
use gengfu_outbox::Outbox;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use crate::identity::TlsFiles;
pub use advice::Cause;
pub use board::Board;
pub use brokers::{Address, Policy as SwitchPolicy};
pub use commands::CommandRequest;
pub use copies::{EvidenceItem, PictureSource};
pub use delivery::Limits;
pub use mqtt::run;
pub use options::{BrokerConfig, OpenError, Secret};
pub use status::{Latency, LinkState, UplinkStatus};

use crate::clock::Clock;

/// Who this gateway is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The site.
    pub site: Slug,
    /// The gateway.
    pub gateway: Slug,
    /// Number of this start, from 1.
    pub boot: u64,
    /// Software version.
    pub version: String,
}

/// Settings of the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Which broker, and as whom. The preferred one where there are several.
    pub broker: BrokerConfig,
    /// Others that are used when it fails, in order of preference; all else is as for the preferred one.
    pub other_brokers: Vec<Address>,
    /// When to change brokers.
    pub switch: SwitchPolicy,
    /// Largest packet the broker takes, bytes, where it does not say so itself (MQTT 3.1.1); absent: 16 MiB.
    pub packet_bytes_max: Option<u32>,
    /// Where pictures are read.
    pub pictures: PictureSource,
    /// Who we are.
    pub identity: Identity,
    /// Window and times of delivery.
    pub limits: Limits,
    /// A message without PUBACK for this long means that the connection is dead, whatever TCP believes. (3 s for life safety.) With a broker whose
    /// PUBACKs have taken long it is longer, six times this at most (life safety: twice).
    pub puback_timeout: Duration,
    /// The broker keeps commands and receipts for us this long while we are away.
    pub session_expiry: Duration,
    /// How often the statement is renewed.
    pub statement_every: Duration,
    /// At shutdown, how long PUBACKs are awaited.
    pub goodbye: Duration,
}

impl UplinkConfig {
    /// Defaults: [`Limits::default`], PUBACK within 10 s, session kept for an hour, a statement every 60 s, 2 s for the goodbye.
    #[must_use]
    pub fn new(broker: BrokerConfig, identity: Identity) -> Self {
        Self {
            broker,
            other_brokers: Vec::new(),
            switch: SwitchPolicy::default(),
            packet_bytes_max: None,
            pictures: PictureSource::default(),
            identity,
            limits: Limits::default(),
            puback_timeout: Duration::from_secs(10),
            session_expiry: Duration::from_secs(3600),
            statement_every: Duration::from_secs(60),
            goodbye: Duration::from_secs(2),
        }
    }
}

/// What the uplink is joined to.
pub struct UplinkParts {
    /// Where items come from and receipts go.
    pub outbox: Outbox,
    /// The retained board. The core sets it and calls [`Board::complete`] once its open alarms are on it.
    pub board: Board,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// `notify_one` after a commit.
    pub wake: Arc<Notify>,
    /// Commands for the core. When it is full the command is answered "busy", never waited for.
    pub commands: mpsc::Sender<CommandRequest>,
    /// The core's answers, one per command.
    pub replies: mpsc::Receiver<Reply>,
    /// Where the status is shown.
    pub status: watch::Sender<UplinkStatus>,
    /// Ends [`run`].
    pub shutdown: CancellationToken,
}
