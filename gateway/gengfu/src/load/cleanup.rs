//! What a load run leaves at the broker, and how it goes.
//!
//! Owns the end of the simulated gateways' lives there: retained status and statement emptied, sessions ended by a clean one under the same client id. On
//! MQTT 3.1.1 a broker may keep a session for ever; a thousand of them would burden the cluster that was only to be measured.

use std::time::Duration;

use anyhow::Context;
use gengfu_contract::topic::Topics;
use tokio::task::JoinSet;

use super::{LoadPlan, desk_client, gateway, gateway_client};
use crate::uplink::BrokerConfig;
use crate::uplink::connection::{Connection, Message, Signal};
use crate::uplink::options::SessionOptions;

/// Sessions ended at one time.
const AT_ONCE: usize = 16;
/// For one gateway.
const WITHIN: Duration = Duration::from_secs(20);

/// Makes the broker forget the run of `tag`.
pub(super) async fn forget(plan: &LoadPlan, tag: &str) -> anyhow::Result<()> {
    let mut clients: Vec<(BrokerConfig, Vec<String>)> = (1..=plan.gateways)
        .map(|index| {
            let name = gateway::name(tag, index);
            let topics = Topics::new(&plan.site, &name);
            (plan.broker_for(gateway_client(&plan.site, name.as_str())), vec![topics.status(), topics.statement()])
        })
        .collect();
    clients.push((plan.broker_for(desk_client(&plan.site, tag)), Vec::new()));
    let mut under_way = JoinSet::new();
    for (broker, topics) in clients {
        if under_way.len() >= AT_ONCE
            && let Some(ended) = under_way.join_next().await
        {
            ended.context("ending a session panicked")??;
        }
        under_way.spawn(async move {
            let ending = end(&broker, topics);
            tokio::time::timeout(WITHIN, ending).await.with_context(|| format!("{} got no answer", broker.client_id))?
        });
    }
    while let Some(ended) = under_way.join_next().await {
        ended.context("ending a session panicked")??;
    }
    Ok(())
}

async fn end(broker: &BrokerConfig, topics: Vec<String>) -> anyhow::Result<()> {
    let clean = SessionOptions {
        session_expiry: Duration::ZERO,
        will: None,
        on_wire_max: 16,
        channel_messages: 16,
        incoming_bytes_max: 1 << 16,
    };
    let mut connection = Connection::open(broker, &clean)?;
    let mut unanswered = topics.len();
    for topic in topics {
        let message = Message { topic, retain: true, ..Message::default() };
        connection.publish(message).context("empty a retained message")?;
    }
    let mut is_leaving = false;
    loop {
        match connection.next().await {
            Ok(Signal::Acked { .. }) => unanswered = unanswered.saturating_sub(1),
            Ok(Signal::Disconnected) => return Ok(()),
            Ok(_) => {}
            // Some brokers hang up before our own DISCONNECT is told.
            Err(_) if is_leaving => return Ok(()),
            Err(lost) => return Err(lost.into()),
        }
        if unanswered == 0 && !is_leaving {
            is_leaving = true;
            connection.disconnect().context("say goodbye")?;
        }
    }
}
