//! What the broker's answers mean.
//!
//! Owns the way from a PUBACK, by the ledger, to whoever owns the thing that it stands for: delivery, board, answers, presence. Refuses to decide
//! what becomes of it.

use gengfu_outbox::ItemKey;
use jiff::Timestamp;

use super::super::advice::Cause;
use super::super::connection::{Lost, Refusal, Signal};
use super::super::mqtt::Pump;
use super::{Session, Suspect, Ticket, refuse_item, refuse_topic};

impl Session {
    pub(super) fn handle(&mut self, pump: &mut Pump, signal: Signal, now: Timestamp) -> Result<(), Lost> {
        match signal {
            Signal::Published(packet_id) => {
                let Some(sent) = self.ledger.published(packet_id, pump.steady()) else {
                    let detail = format!("packet id {packet_id} stands for nothing or is in use");
                    return Err(Lost::of(Cause::OwnFault, &detail));
                };
                if let Ticket::Item(key) = sent.ticket {
                    pump.delivery.written(key);
                }
            }
            Signal::Acked { packet_id, refusal, unheard } => {
                let steady = pump.steady();
                if let Some(waited) = self.ledger.waited(packet_id, steady) {
                    pump.puback.answered(waited, steady);
                }
                if let Some(sent) = self.ledger.acked(packet_id) {
                    self.acked(pump, sent.ticket, refusal, unheard, now);
                }
            }
            Signal::RefusedOldest(refusal) => {
                if let Some(sent) = self.ledger.oldest().and_then(|packet_id| self.ledger.acked(packet_id)) {
                    if refusal.cause == Cause::PacketTooLarge {
                        pump.sizes.refused(sent.bytes, pump.steady());
                    }
                    self.acked(pump, sent.ticket, Some(refusal), false, now);
                }
            }
            Signal::Subscribed(refusals) => self.subscribed(pump, &refusals, now),
            Signal::Message(arrived) => self.route(pump, &arrived, now),
            Signal::Connected { .. } | Signal::Disconnected | Signal::Other => {}
        }
        Ok(())
    }

    fn part_acked(&mut self, pump: &mut Pump, key: ItemKey, refusal: Option<Refusal>, now: Timestamp) {
        let Some((parts, _)) = self.parts.as_mut().filter(|(parts, _)| parts.key == key) else { return };
        match refusal {
            None if !parts.acknowledged() => return,
            None => {
                pump.delivery.broker_acked(key, now);
            }
            Some(refusal) => {
                let topic = pump.topics.evidence_part("+", 0, 0, 0);
                refuse_item(pump, key, &topic, refusal, now);
            }
        }
        self.parts = None;
    }

    fn acked(&mut self, pump: &mut Pump, ticket: Ticket, refusal: Option<Refusal>, unheard: bool, now: Timestamp) {
        pump.status.last_puback_at = Some(now);
        pump.brokers.acknowledged();
        let topic = match ticket {
            Ticket::Item(key) => {
                let is_event = key.sequence().is_some();
                match refusal {
                    None => {
                        self.acked_last = Some((now, Suspect::Item(key)));
                        let awaited = if is_event && unheard {
                            pump.delivery.broker_acked_unheard(key, now)
                        } else {
                            pump.delivery.broker_acked(key, now)
                        };
                        if let Some(sequence) = key.sequence().filter(|_| awaited) {
                            pump.receipts.event_acknowledged(sequence, now);
                        }
                    }
                    Some(refusal) => {
                        let topic = if is_event { pump.topics.event() } else { pump.topics.evidence("+", 0) };
                        refuse_item(pump, key, &topic, refusal, now);
                    }
                }
                return;
            }
            Ticket::Part(key) => {
                self.part_acked(pump, key, refusal, now);
                return;
            }
            Ticket::Posting { topic, generation } => {
                self.postings -= 1;
                if refusal.is_none() {
                    pump.parts.board.confirmed(&topic, generation);
                } else {
                    pump.parts.board.refused(&topic);
                }
                topic
            }
            Ticket::Reply(reply) => {
                self.replies -= 1;
                pump.topics.reply(&reply.cmd_id)
            }
            Ticket::Copy(topic) => {
                self.replies -= 1;
                topic
            }
            Ticket::Presence => pump.topics.status(),
        };
        match refusal {
            None => {
                pump.holds.taken(&topic);
                self.acked_last = Some((now, Suspect::Topic(topic.clone())));
                if pump.refused.as_ref().is_some_and(|(refused, _)| *refused == topic) {
                    pump.refused = None;
                }
            }
            Some(refusal) => refuse_topic(pump, &topic, refusal, now),
        }
    }
}
