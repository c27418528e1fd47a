//! The centre of a load run: the reference desk, and proof that it listens before anything is measured.
//!
//! Owns the desk's task, its connection and what it tells. A broker may acknowledge a message that nobody has subscribed to yet and drop it (a clustered one takes
//! seconds to subscribe); the gateway would send it again a minute later, and the run would measure that. So a probe goes first.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;
use gengfu_contract::topic::Topics;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gateway::{self, Common};
use super::order::Order;
use super::{LOOK_EVERY, LoadPlan, desk_client, lock};
use crate::clock::Clock;
use crate::desk::{self, DeskConfig, DeskError, DeskEvent, DeskModel, DeskParts};
use crate::uplink::backoff::later;
use crate::uplink::connection::{Connection, Message};
use crate::uplink::options::SessionOptions;

/// Lines of the desk that wait to be judged for order.
const DESK_LINES: usize = 16_384;
/// How long the desk may take to listen before a run is given up.
const DESK_WITHIN: Duration = Duration::from_secs(60);
/// A gateway at rest states its last sequence within 5 s; the desk waits a little longer for it.
const STATED_WITHIN: Duration = Duration::from_secs(15);
/// A probe that has not arrived is sent again.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// What is known of the desk's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hearing {
    Nothing,
    Offline(String),
    Connected,
    /// A probe arrived: every subscription of the desk stands.
    Probe,
}

/// The reference desk and what it tells.
pub(super) struct Centre {
    pub(super) model: Arc<Mutex<DeskModel>>,
    pub(super) order: Arc<Mutex<Order>>,
    hearing: watch::Receiver<Hearing>,
    shutdown: CancellationToken,
    desk: JoinHandle<Result<(), DeskError>>,
}

impl Centre {
    pub(super) fn start(plan: &LoadPlan, tag: &str, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let model = Arc::new(Mutex::new(DeskModel::new(plan.site.clone())));
        let order = Arc::new(Mutex::new(Order::default()));
        let shutdown = CancellationToken::new();
        let (told, mut lines) = mpsc::channel(DESK_LINES);
        let (_, orders) = mpsc::channel(1);
        let (heard, hearing) = watch::channel(Hearing::Nothing);
        let name = Slug::new(format!("load-desk-{tag}")).context("name the desk")?;
        let broker = plan.broker_for(desk_client(&plan.site, tag));
        let config = DeskConfig {
            journal: Some(plan.folder.join("desk.jsonl")),
            ..DeskConfig::new(broker, plan.site.clone(), name, plan.folder.join("pictures"))
        };
        let parts = DeskParts { model: model.clone(), events: told, orders, clock, shutdown: shutdown.clone() };
        let desk = tokio::spawn(desk::run(config, parts));
        let judged = order.clone();
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                match &line {
                    DeskEvent::Connected { .. } => drop(heard.send(Hearing::Connected)),
                    DeskEvent::Disconnected { reason, remedy } => {
                        drop(heard.send(Hearing::Offline(format!("{reason}; {remedy}"))));
                    }
                    DeskEvent::Reply { .. } => drop(heard.send(Hearing::Probe)),
                    line => lock(&judged).take(line),
                }
            }
        });
        Ok(Self { model, order, hearing, shutdown, desk })
    }

    /// Waits until the desk hears a probe: a broker that is not there is told at once, not after the run.
    pub(super) async fn listens(&mut self, plan: &LoadPlan, tag: &str, clock: &dyn Clock) -> anyhow::Result<()> {
        let listening = async {
            if self.hearing.wait_for(|hearing| *hearing == Hearing::Connected).await.is_err() {
                return Err(anyhow::anyhow!("the desk ended"));
            }
            let name = format!("load-probe-{tag}");
            let topics = Topics::new(&plan.site, &Slug::new(name.as_str()).context("name the probe")?);
            let clean = SessionOptions {
                session_expiry: Duration::ZERO,
                will: None,
                on_wire_max: 1024,
                channel_messages: 16,
                incoming_bytes_max: 1 << 16,
            };
            let client_id = super::gateway_client(&plan.site, &name);
            let mut connection = Connection::open(&plan.broker_for(client_id), &clean)?;
            let mut tick = tokio::time::interval(PROBE_EVERY);
            loop {
                tokio::select! {
                    signal = connection.next() => drop(signal?),
                    probed = self.hearing.wait_for(|hearing| *hearing == Hearing::Probe) => {
                        probed.context("the desk ended")?;
                        return Ok(());
                    }
                    _ = tick.tick() => {
                        // The last of the desk's subscriptions, so all stand when it arrives.
                        let reply = json!({"cmd_id": "probe", "outcome": "done", "at": clock.now()});
                        let payload = serde_json::to_vec(&reply).context("write the probe")?;
                        let message = Message { topic: topics.reply("probe"), payload, ..Message::default() };
                        // Full: the connection is not up yet, and a probe waits already.
                        let _ = connection.publish(message);
                    }
                }
            }
        };
        match tokio::time::timeout(DESK_WITHIN, listening).await {
            Ok(listens) => listens,
            Err(_) => match self.hearing.borrow().clone() {
                Hearing::Offline(reason) => anyhow::bail!("the desk has no connection: {reason}"),
                _ => anyhow::bail!(
                    "the desk hears nothing within {} s; check --broker and its ACL",
                    DESK_WITHIN.as_secs()
                ),
            },
        }
    }

    /// Waits until every gateway's statement has come; one that has not is judged by its outbox all the same.
    pub(super) async fn has_statements(&self, common: &Common, tag: &str) {
        let until = later(common.clock.now(), STATED_WITHIN);
        let all_stated = || {
            let model = lock(&self.model);
            (1..=common.plan.gateways).all(|index| {
                model.proof(&gateway::name(tag, index)).is_some_and(|proof| Some(proof.stated) == proof.last)
            })
        };
        while common.clock.now() < until && !all_stated() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.desk.await.context("the desk panicked")?.context("the desk")
    }
}
