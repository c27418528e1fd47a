//! A dispatch centre's side of the contract, for its developers: reads what gateways publish, proves that nothing is missing, and
//! writes receipts and orders.
//!
//! Owns the rules a centre must keep: what an event proves ([`sequence`], [`journals`]), what a receipt may be given for, and the
//! bytes of everything the centre says. It has no client, clock, disk or thread, so it fits any MQTT library; `examples/centre.rs` is a
//! whole centre on it in a hundred lines. It refuses to store: **a receipt says "I have it durably"**, so the caller
//! stores first and sends [`Centre::receipt`] then; what the gateway got a receipt for, it forgets.
//!
//! ```
//! use gengfu_contract::centre::{Centre, Incoming};
//! use gengfu_contract::slug::Slug;
//!
//! let mut centre = Centre::new(Slug::new("spring-street")?);
//! let now = jiff::Timestamp::UNIX_EPOCH;
//! // From the MQTT library: subscribe to `centre.filter()` at QoS 1, and give every message here.
//! match centre.take("gengfu/v1/spring-street/gw-1/status", b"", now) {
//!     Ok(Some((gateway, Incoming::Event { event, .. }))) => {
//!         // Store it here; then:
//!         let receipt = centre.receipt(&gateway, "r-1", &[event.id], now);
//!         assert!(receipt.topic.ends_with("/cmd/receipt/r-1"));
//!     }
//!     Ok(_) => {}
//!     Err(fault) => eprintln!("{fault}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod journals;
pub mod sequence;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::command::{Command, Receipt, Reply};
use crate::event::{AlarmData, Event, EventError};
use crate::evidence::{EvidenceJoiner, JoinError, is_named};
use crate::slug::Slug;
use crate::state::{AlarmSnapshot, DeviceState, DispatchStatus, GatewayStatus, Presence, Statement};
use crate::topic::{self, Topics, Up};

use journals::Proof;
use sequence::{Arrival, SequenceLedger};

/// Memory for pictures that come in parts and are not whole yet.
const PARTS_BYTES_MAX: usize = 64 << 20;
/// Pictures whose hash is remembered until they come.
const NAMED_MAX: usize = 4096;

/// A message to publish, at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where.
    pub topic: String,
    /// What: JSON.
    pub payload: Vec<u8>,
    /// The broker keeps it for those who come later.
    pub retain: bool,
}

/// What a gateway said.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// An event of its journal. Store it unless `arrival` is [`Arrival::Duplicate`], then give the receipt in any case but
    /// [`Arrival::Conflict`]: the first receipt may have been lost.
    Event {
        /// The event.
        event: Box<Event>,
        /// Its alarm, where it is about one and this version understands it. One that is not understood is stored and received for too.
        alarm: Option<Box<AlarmData>>,
        /// New, or seen before.
        arrival: Arrival,
    },
    /// A whole picture. Store it, then give the receipt for `id`.
    Picture {
        /// For the receipt: `<alarm or command>/<n>`.
        id: String,
        /// The alarm, or the `snapshot` command, that it belongs to.
        owner: String,
        /// Which of its pictures, from 1.
        n: u32,
        /// JPEG. Its SHA-256 is the one its event named, when that event came before.
        bytes: Vec<u8>,
    },
    /// It is here, it is gone (its will), or its status was cleared (`None`).
    Status(Option<GatewayStatus>),
    /// An alarm that is open, or over (`None`).
    Alarm(String, Option<Box<AlarmSnapshot>>),
    /// The last state of a device, or there is no such device any more (`None`).
    Device(String, Option<Box<DeviceState>>),
    /// How much it has journaled, and what that proves together with what came.
    Statement(Statement, Box<Proof>),
    /// The answer to an order.
    Reply(Reply),
}

/// A message that is not of this contract. It is not received for, so the gateway keeps what it sent.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Another major of the contract.
    #[error("{topic}: this is version {major} of the contract, this program reads version {ours}: update it", ours = crate::CONTRACT_MAJOR)]
    Major {
        /// The topic.
        topic: String,
        /// Its version.
        major: u32,
    },
    /// An event that cannot be read.
    #[error("{topic}: {source}")]
    Event {
        /// The topic.
        topic: String,
        /// Why.
        source: EventError,
    },
    /// Another body that cannot be read.
    #[error("{topic}: {source}")]
    Body {
        /// The topic.
        topic: String,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A part of a picture that does not fit.
    #[error("{topic}: {source}")]
    Part {
        /// The topic.
        topic: String,
        /// Why.
        source: JoinError,
    },
    /// An event of one gateway under the name of another.
    #[error("{topic}: this event is of {source_named}; check the broker's access rules (config/broker)")]
    Foreign {
        /// The topic.
        topic: String,
        /// Who made the event, as it says.
        source_named: String,
    },
    /// A picture that is not the one its event named.
    #[error("{topic}: the picture's SHA-256 is not the {named} that its event names")]
    Picture {
        /// The topic.
        topic: String,
        /// SHA-256 in the event, hex.
        named: String,
    },
}

/// One site as its centre sees it.
#[derive(Debug)]
pub struct Centre {
    site: Slug,
    ledgers: BTreeMap<Slug, SequenceLedger>,
    joiner: EvidenceJoiner,
    named: BTreeMap<(Slug, String, u32), String>,
}

impl Centre {
    /// A centre of `site` that has received nothing yet.
    #[must_use]
    pub fn new(site: Slug) -> Self {
        Self { site, ledgers: BTreeMap::new(), joiner: EvidenceJoiner::new(PARTS_BYTES_MAX), named: BTreeMap::new() }
    }

    /// Goes on from an earlier run's ledgers, which a centre stores with its events ([`Centre::ledgers`]).
    #[must_use]
    pub fn resume(site: Slug, ledgers: BTreeMap<Slug, SequenceLedger>) -> Self {
        Self { ledgers, ..Self::new(site) }
    }

    /// What to subscribe to, at QoS 1 and with a session that outlives the connection.
    #[must_use]
    pub fn filter(&self) -> String {
        topic::site_filter(&self.site)
    }

    /// Presence of the centre: publish `Online` when connected, and make `Offline` the connection's will.
    #[must_use]
    pub fn presence(&self, state: Presence, now: Timestamp) -> Outgoing {
        outgoing(topic::dispatch_status(&self.site), &DispatchStatus { state, at: now }, true)
    }

    /// Takes a message as it came. `None` when it is none of a gateway's, the centre's own orders for instance.
    ///
    /// # Errors
    /// [`Malformed`], with the topic; nothing else changes.
    pub fn take(&mut self, topic: &str, body: &[u8], now: Timestamp) -> Result<Option<(Slug, Incoming)>, Malformed> {
        let Some((gateway, up)) = topic::parse_up(&self.site, topic) else {
            return match topic::foreign_major(topic) {
                Some(major) => Err(Malformed::Major { topic: topic.to_owned(), major }),
                None => Ok(None),
            };
        };
        let bad = |source| Malformed::Body { topic: topic.to_owned(), source };
        let incoming = match up {
            Up::Event => self.event(&gateway, topic, body, now)?,
            Up::Evidence(owner, n) => self.picture(&gateway, topic, owner, n, body.to_vec())?,
            Up::EvidencePart { id, n, part, parts } => {
                let whole = self.joiner.take(&format!("{gateway}/{id}"), n, part, parts, body);
                match whole.map_err(|source| Malformed::Part { topic: topic.to_owned(), source })? {
                    Some(whole) => self.picture(&gateway, topic, id, n, whole)?,
                    None => return Ok(None),
                }
            }
            Up::Statement => {
                let statement: Statement = serde_json::from_slice(body).map_err(bad)?;
                let ledger = self.ledgers.entry(gateway.clone()).or_default();
                ledger.state(&statement, now);
                let proof = Box::new(ledger.proof());
                Incoming::Statement(statement, proof)
            }
            Up::Status => Incoming::Status(retained(body).map_err(bad)?),
            Up::Alarm(id) => Incoming::Alarm(id, retained(body).map_err(bad)?),
            Up::Device(id) => Incoming::Device(id, retained(body).map_err(bad)?),
            Up::Reply(_) => Incoming::Reply(serde_json::from_slice(body).map_err(bad)?),
        };
        Ok(Some((gateway, incoming)))
    }

    fn event(&mut self, gateway: &Slug, topic: &str, body: &[u8], now: Timestamp) -> Result<Incoming, Malformed> {
        let event = Event::parse(body).map_err(|source| Malformed::Event { topic: topic.to_owned(), source })?;
        if !event.source.ends_with(&format!("/{}/{gateway}", self.site)) {
            return Err(Malformed::Foreign { topic: topic.to_owned(), source_named: event.source });
        }
        let arrival = self.ledgers.entry(gateway.clone()).or_default().take(&event, now);
        let alarm = event.alarm().unwrap_or_default();
        for picture in alarm.iter().flat_map(|alarm| &alarm.evidence) {
            if self.named.len() >= NAMED_MAX {
                self.named.pop_first();
            }
            self.named.insert((gateway.clone(), event.subject.clone(), picture.n), picture.sha256.clone());
        }
        Ok(Incoming::Event { event: Box::new(event), alarm: alarm.map(Box::new), arrival })
    }

    fn picture(
        &mut self,
        gateway: &Slug,
        topic: &str,
        owner: String,
        n: u32,
        bytes: Vec<u8>,
    ) -> Result<Incoming, Malformed> {
        let named = self.named.get(&(gateway.clone(), owner.clone(), n));
        if let Some(named) = named.filter(|named| !is_named(&bytes, named)) {
            return Err(Malformed::Picture { topic: topic.to_owned(), named: named.clone() });
        }
        Ok(Incoming::Picture { id: format!("{owner}/{n}"), owner, n, bytes })
    }

    /// The receipt for events and pictures of `gateway` that are **stored durably**. `cmd_id` is any id not used before.
    #[must_use]
    pub fn receipt(&self, gateway: &Slug, cmd_id: &str, ids: &[String], now: Timestamp) -> Outgoing {
        self.order(gateway, cmd_id, &Command::Receipt(Receipt { ids: ids.to_vec(), received_at: now }))
    }

    /// An order to `gateway`. The answer comes as [`Incoming::Reply`] with this `cmd_id`; the same order with the same id is done once,
    /// however often it is sent.
    #[must_use]
    pub fn order(&self, gateway: &Slug, cmd_id: &str, command: &Command) -> Outgoing {
        let topic = Topics::new(&self.site, gateway).command(command.verb(), cmd_id);
        Outgoing { topic, payload: command.body(), retain: false }
    }

    /// What the events of `gateway` prove so far; `None` when nothing of it came.
    #[must_use]
    pub fn proof(&self, gateway: &Slug) -> Option<Proof> {
        self.ledgers.get(gateway).map(SequenceLedger::proof)
    }

    /// The ledgers of all gateways, to be stored and resumed from.
    #[must_use]
    pub fn ledgers(&self) -> &BTreeMap<Slug, SequenceLedger> {
        &self.ledgers
    }
}

/// A retained topic: empty when there is nothing any more.
fn retained<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<Option<T>, serde_json::Error> {
    if body.is_empty() { Ok(None) } else { serde_json::from_slice(body).map(Some) }
}

fn outgoing(topic: String, body: &impl Serialize, retain: bool) -> Outgoing {
    let payload = serde_json::to_vec(body).expect("the contract's bodies have only string keys and finite numbers");
    Outgoing { topic, payload, retain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::AlarmCommand;
    use crate::testing::{alarm, at, chain_of, statement};
    use crate::words::{AlarmKind, Condition};

    const EVENT: &str = "gengfu/v1/s/g/event";

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    fn body(value: &impl Serialize) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }

    #[test]
    fn what_comes_is_proven_and_a_gap_is_named() {
        let mut centre = Centre::new(slug("s"));
        for event in chain_of(4).iter().filter(|event| event.sequence != 3) {
            let taken = centre.take(EVENT, &body(event), at(1)).unwrap();
            assert!(matches!(taken, Some((_, Incoming::Event { arrival: Arrival::New, .. }))), "{taken:?}");
        }
        let stated = centre.take("gengfu/v1/s/g/statement", &body(&statement(5, 0)), at(2)).unwrap();
        let Some((gateway, Incoming::Statement(_, proof))) = stated else { panic!("{stated:?}") };
        assert_eq!(proof.missing, [(3, 3), (5, 5)]);
        // Another run goes on where this one stopped.
        let centre = Centre::resume(slug("s"), serde_json::from_slice(&body(centre.ledgers())).unwrap());
        assert_eq!(centre.proof(&gateway).unwrap().missing, [(3, 3), (5, 5)]);
    }

    #[test]
    fn a_picture_must_be_the_one_its_event_named_also_in_parts() {
        let mut centre = Centre::new(slug("s"));
        let event = alarm(1, 1, AlarmKind::IllegalParking, Condition::ActiveUnack, Some(b"a picture"));
        let taken = centre.take(EVENT, &body(&event), at(1)).unwrap();
        assert!(matches!(&taken, Some((_, Incoming::Event { alarm: Some(_), .. }))), "{taken:?}");
        let fault = centre.take("gengfu/v1/s/g/evidence/01ALARM/1", b"another", at(1)).unwrap_err();
        assert!(matches!(fault, Malformed::Picture { .. }), "{fault}");
        assert_eq!(centre.take("gengfu/v1/s/g/evidence/01ALARM/1/2/2", b"picture", at(1)).unwrap(), None);
        let whole = centre.take("gengfu/v1/s/g/evidence/01ALARM/1/1/2", b"a ", at(1)).unwrap();
        let picture =
            Incoming::Picture { id: "01ALARM/1".into(), owner: "01ALARM".into(), n: 1, bytes: b"a picture".to_vec() };
        assert_eq!(whole, Some((slug("g"), picture)));
    }

    #[test]
    fn what_the_centre_says_the_gateway_reads() {
        let centre = Centre::new(slug("s"));
        let topics = Topics::new(&slug("s"), &slug("g"));
        let ack = Command::Ack(AlarmCommand {
            alarm_id: "01ALARM".into(),
            operator: "op-1".into(),
            issued_at: at(1),
            expires_at: None,
        });
        for (said, meant) in [
            (centre.order(&slug("g"), "c1", &ack), ack),
            (
                centre.receipt(&slug("g"), "c1", &["e1".into()], at(1)),
                Command::Receipt(Receipt { ids: vec!["e1".into()], received_at: at(1) }),
            ),
        ] {
            let (verb, cmd_id) = topics.parse_command(&said.topic).unwrap();
            assert_eq!((Command::parse(verb, &said.payload).unwrap(), cmd_id, said.retain), (meant, "c1", false));
            assert_eq!(Centre::new(slug("s")).take(&said.topic, &said.payload, at(1)).unwrap(), None, "it is no news");
        }
        let presence = centre.presence(Presence::Online, at(1));
        assert_eq!((presence.topic.as_str(), presence.retain), ("gengfu/v1/s/dispatch/status", true));
    }

    #[test]
    fn what_is_not_of_this_contract_is_told_with_its_place() {
        let mut centre = Centre::new(slug("s"));
        let event = body(&chain_of(1)[0]);
        for (topic, payload, text) in [
            ("gengfu/v2/s/g/event", &b"{}"[..], "gengfu/v2/s/g/event: this is version 2 of the contract"),
            (EVENT, b"{", "gengfu/v1/s/g/event: "),
            ("gengfu/v1/s/h/event", &event, "gengfu/v1/s/h/event: this event is of /gengfu/s/g"),
            ("gengfu/v1/s/g/statement", b"[]", "gengfu/v1/s/g/statement: "),
            ("gengfu/v1/s/g/evidence/A/1/3/2", b"x", "gengfu/v1/s/g/evidence/A/1/3/2: picture g/A/1: part 3 of 2"),
        ] {
            let fault = centre.take(topic, payload, at(1)).unwrap_err().to_string();
            assert!(fault.starts_with(text), "{fault}");
        }
        assert!(centre.ledgers().is_empty());
        assert_eq!(
            centre.take("gengfu/v1/s/g/alarm/01A", b"", at(1)).unwrap().unwrap().1,
            Incoming::Alarm("01A".into(), None)
        );
        assert_eq!(centre.take("other/topic", b"", at(1)).unwrap(), None);
    }
}
