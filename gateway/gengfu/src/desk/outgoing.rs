//! What the desk sends: receipts, orders, its presence.
//!
//! Owns the rule that no receipt leaves before the journal is synced, and the ids of commands: unique for ever, by the desk's name, its
//! start and a count. It refuses to wait: what finds no place on the wire goes at the next turn.

use std::time::Duration;

use gengfu_contract::command::Receipt;
use gengfu_contract::slug::Slug;
use gengfu_contract::state::Presence;
use gengfu_contract::topic::Topics;
use gengfu_contract::words::Condition;
use jiff::Timestamp;
use tracing::debug;

use super::client::{Desk, ON_WIRE_MAX, PLANNED_MAX};
use super::model::{DeskEvent, Ordered};
use super::orders::{self, Action, GatewayOrder, Order};
use crate::uplink::backoff::later;
use crate::uplink::connection::{Connection, Lost, Message, NotTaken, Signal};
use crate::uplink::ledger::Ledger;

/// How long the broker may take to see us go.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

impl Desk {
    /// Takes an order, for `at`.
    pub(super) fn order(&mut self, order: Order, at: Timestamp) {
        match order {
            Order::HoldReceipts(holds) => self.receipts.hold(holds),
            Order::SendReceipts => self.receipts.release(at),
            order if self.planned.len() < PLANNED_MAX => {
                self.plans += 1;
                self.planned.insert((at, self.plans), order);
            }
            _ => self
                .tell(DeskEvent::Fault { place: "desk".into(), reason: "too many orders wait; give it again".into() }),
        }
    }

    pub(super) fn send_due(
        &mut self,
        connection: &Connection,
        ledger: &mut Ledger<()>,
        now: Timestamp,
    ) -> Result<(), Lost> {
        if ledger.outstanding() >= ON_WIRE_MAX {
            return Ok(());
        }
        self.send_receipts(connection, ledger, now)?;
        while let Some(((at, plan), _)) = self.planned.first_key_value() {
            if *at > now || ledger.outstanding() >= ON_WIRE_MAX {
                break;
            }
            let key = (*at, *plan);
            let Some(order) = self.planned.remove(&key).and_then(|order| order.for_gateway()) else { continue };
            if self.still_wanted(&order) {
                self.send_order(connection, ledger, order, now)?;
            }
        }
        Ok(())
    }

    fn send_receipts(&mut self, connection: &Connection, ledger: &mut Ledger<()>, now: Timestamp) -> Result<(), Lost> {
        if self.receipts.deadline().is_none_or(|at| now < at) {
            return Ok(());
        }
        if !self.sync_journal() {
            // The events are not ours yet. The gateway sends them again.
            self.receipts.forget();
            return Ok(());
        }
        let room = ON_WIRE_MAX.saturating_sub(ledger.outstanding());
        for (gateway, ids) in self.receipts.take(now, room) {
            let count = ids.len();
            let message = self.receipt(&gateway, &ids, now);
            self.publish(connection, ledger, message, now)?;
            self.model().receipted(&gateway, &ids, now);
            let about = format!("{count} ids");
            self.tell(DeskEvent::Sent { gateway, verb: "receipt".into(), about });
        }
        Ok(())
    }

    fn receipt(&mut self, gateway: &Slug, ids: &[String], now: Timestamp) -> Message {
        let cmd_id = self.next_id();
        let body = Receipt { ids: ids.to_vec(), received_at: now };
        json(Topics::new(&self.config.site, gateway).command("receipt", &cmd_id), &body)
    }

    fn send_order(
        &mut self,
        connection: &Connection,
        ledger: &mut Ledger<()>,
        order: GatewayOrder,
        now: Timestamp,
    ) -> Result<(), Lost> {
        let GatewayOrder { gateway, operator, action } = order;
        let cmd_id = self.next_id();
        let command = action.command(&operator, now);
        self.publish(connection, ledger, command_message(&self.config.site, &gateway, &cmd_id, &command), now)?;
        let (verb, about) = (command.verb().to_owned(), action.about());
        let alarm_id = action.alarm_id().map(str::to_owned);
        let ordered =
            Ordered { cmd_id, gateway: gateway.clone(), verb: verb.clone(), about: about.clone(), alarm_id, operator };
        self.model().ordered(ordered, now);
        self.tell(DeskEvent::Sent { gateway, verb, about });
        Ok(())
    }

    /// The alarm is still in the condition the order is about.
    fn still_wanted(&self, order: &GatewayOrder) -> bool {
        let model = self.model();
        let view = model.gateways().get(&order.gateway);
        let alarm = view.zip(order.action.alarm_id()).and_then(|(view, id)| view.alarms.get(id));
        // What a person orders about an alarm this desk does not know is the gateway's to judge.
        let Some(alarm) = alarm else { return true };
        match &order.action {
            Action::Ack { .. } => {
                matches!(alarm.alarm.condition, Condition::ActiveUnack | Condition::ClearedUnack | Condition::Unknown)
            }
            Action::Reset { .. } => alarm.alarm.condition.is_open(),
            _ => true,
        }
    }

    fn next_id(&mut self) -> String {
        self.commands += 1;
        format!("{}-{:x}-{}", self.config.name, self.started_ms, self.commands)
    }

    pub(super) fn publish(
        &self,
        connection: &Connection,
        ledger: &mut Ledger<()>,
        message: Message,
        now: Timestamp,
    ) -> Result<(), Lost> {
        connection.publish(message).map_err(no_place)?;
        ledger.handed((), now);
        Ok(())
    }

    /// Says that we go, and goes.
    pub(super) async fn goodbye(&mut self, connection: &mut Connection, ledger: &mut Ledger<()>) {
        let now = self.parts.clock.now();
        let farewell = self.presence(Presence::Offline);
        let leave = async {
            // What is owed and stored may still be said, as far as there is room beside the farewell.
            self.send_receipts(connection, ledger, later(now, GOODBYE_WITHIN))?;
            self.publish(connection, ledger, farewell, now)?;
            while ledger.outstanding() > 0 {
                match connection.next().await? {
                    Signal::Published(packet_id) => {
                        let _known = ledger.published(packet_id, now);
                    }
                    Signal::Acked { packet_id, .. } => {
                        ledger.acked(packet_id);
                    }
                    _ => {}
                }
            }
            connection.disconnect().map_err(no_place)?;
            while connection.next().await? != Signal::Disconnected {}
            Ok::<(), Lost>(())
        };
        if !matches!(tokio::time::timeout(GOODBYE_WITHIN, leave).await, Ok(Ok(()))) {
            debug!("the broker did not see the desk go; it publishes the desk's will, which says the same");
        }
    }
}

/// A command as it goes to its gateway. On MQTT 5 it names where the answer is awaited.
pub(super) fn command_message(
    site: &Slug,
    gateway: &Slug,
    cmd_id: &str,
    command: &gengfu_contract::command::Command,
) -> Message {
    let topics = Topics::new(site, gateway);
    Message {
        topic: topics.command(command.verb(), cmd_id),
        payload: orders::body(command),
        content_type: Some("application/json"),
        response_topic: Some(topics.reply(cmd_id)),
        ..Message::default()
    }
}

pub(super) fn json(topic: String, body: &impl serde::Serialize) -> Message {
    let payload = serde_json::to_vec(body).expect("the contract's bodies have only string keys and finite numbers");
    Message { topic, payload, content_type: Some("application/json"), ..Message::default() }
}

pub(super) fn no_place(_: NotTaken) -> Lost {
    Lost::new("the MQTT client takes no more messages", "the desk connects anew")
}
