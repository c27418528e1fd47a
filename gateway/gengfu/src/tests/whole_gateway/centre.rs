//! The simulated dispatch centre: the reference desk's own model, a store that survives, and people who act on alarms.
//!
//! Owns the receipts it owes (late, lost, repeated), the orders it gives (also wrong, expired, repeated, under an id that was used) and its own deaths. What it believes it
//! reads from messages only. Refuses to judge the gateway: the desk's sequences do that, and `oracle`.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::case::{CaseStage, RejectReason};
use gengfu_contract::command::{AlarmCommand, CaseCommand, Receipt, ShelveCommand, SounderCommand, UnshelveCommand};
use gengfu_contract::query::{QueryCommand, QueryWhat};
use gengfu_contract::state::{DispatchStatus, Presence};
use gengfu_contract::topic::Topics;
use gengfu_contract::words::{AlarmKind, Condition};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::desk::DeskModel;
use crate::desk::journal::{Record, What};

use super::broker::ForCentre;
use super::slug;
use super::trail::note;

/// A message of the centre.
pub struct Say {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// An order that was given.
#[derive(Debug, Clone)]
pub struct Given {
    pub verb: &'static str,
    pub body: Vec<u8>,
    pub expires_at: Option<Timestamp>,
    /// Its id was given to another order too.
    pub was_altered: bool,
}

/// How badly it gives receipts, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct CentreFaults {
    pub receipt_lost: u32,
    pub receipt_late: u32,
    pub receipt_twice: u32,
    /// Longest ordinary delay of a receipt.
    pub slow_us: u64,
}

pub struct Centre {
    pub model: DeskModel,
    /// What it has stored: this survives its death.
    pub journal: Vec<Record>,
    /// Ids of the events it has stored.
    pub stored: BTreeSet<String>,
    pub is_up: bool,
    pub faults: CentreFaults,
    /// The broker through which it last heard of the gateway.
    pub broker: usize,
    pub given: BTreeMap<String, Given>,
    pub receipts_lost: u64,
    topics: Topics,
    says: BTreeMap<(u64, u64), Say>,
    count: u64,
}

/// An open alarm: id, kind, condition, and its case.
type Open = (String, AlarmKind, Condition, Option<(String, CaseStage)>);

impl Centre {
    pub fn new() -> Centre {
        Centre {
            model: DeskModel::new(slug("site")),
            journal: vec![],
            stored: BTreeSet::new(),
            is_up: true,
            faults: CentreFaults::default(),
            broker: 0,
            given: BTreeMap::new(),
            receipts_lost: 0,
            topics: Topics::new(&slug("site"), &slug("gw")),
            says: BTreeMap::new(),
            count: 0,
        }
    }

    pub fn due_us(&self) -> u64 {
        self.says.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    /// What it says now.
    pub fn say(&mut self, now_us: u64) -> Option<Say> {
        let entry = self.says.first_entry().filter(|entry| entry.key().0 <= now_us)?;
        Some(entry.remove())
    }

    fn plan(&mut self, at_us: u64, topic: String, payload: Vec<u8>) {
        self.count += 1;
        self.says.insert((at_us, self.count), Say { topic, payload });
    }

    /// What it says of itself.
    pub fn presence(&self, is_up: bool, at: Timestamp) -> Say {
        let state = if is_up { Presence::Online } else { Presence::Offline };
        let payload = serde_json::to_vec(&DispatchStatus { state, at }).unwrap();
        Say { topic: self.topics.dispatch_status(), payload }
    }

    /// Takes a message, stores it, and owes its receipt.
    pub fn take(&mut self, random: &mut StdRng, now_us: u64, at: Timestamp, came: &ForCentre) {
        if !came.retained {
            self.broker = came.broker;
        }
        let taken = self.model.take_message(&came.topic, &came.payload, came.retained, at);
        let (malformed, last) = self.model.malformed();
        assert_eq!(malformed, 0, "the desk cannot read {}: {last:?}", came.topic);
        for record in taken.journal {
            match &record.what {
                What::Event(event) | What::Again(event) => drop(self.stored.insert(event.id.clone())),
                What::Altered(event) => panic!("#{} came with other content: {event:?}", event.sequence),
                _ => {}
            }
            self.journal.push(record);
        }
        for due in taken.receipts {
            assert!(self.stored.contains(&due.id), "a receipt for what is not stored: {}", due.id);
            self.owe(random, now_us, at, due.id);
        }
    }

    fn owe(&mut self, random: &mut StdRng, now_us: u64, at: Timestamp, id: String) {
        let hits = |random: &mut StdRng, thousandths: u32| thousandths > 0 && random.random_ratio(thousandths, 1_000);
        if hits(random, self.faults.receipt_lost) {
            self.receipts_lost += 1;
            note(|| format!("the receipt for {id} is lost"));
            return;
        }
        let copies = if hits(random, self.faults.receipt_twice) { 2 } else { 1 };
        for _ in 0..copies {
            let late_us = if hits(random, self.faults.receipt_late) {
                random.random_range(1_000_000..30_000_000)
            } else {
                random.random_range(1_000..=self.faults.slow_us.max(1_001))
            };
            let receipt = Receipt { ids: vec![id.clone()], received_at: at };
            let topic = self.topics.command("receipt", &format!("r{}", self.count));
            self.plan(now_us + late_us, topic, serde_json::to_vec(&receipt).unwrap());
        }
    }

    /// Its process ends: what it had not said is never said.
    pub fn dies(&mut self) {
        self.is_up = false;
        self.says.clear();
    }

    /// It starts again with what it had stored.
    pub fn starts(&mut self) {
        self.is_up = true;
        self.model = DeskModel::new(slug("site"));
        for record in self.journal.clone() {
            self.model.restore(record);
        }
    }

    /// Somebody at the centre does something, sensible or not.
    pub fn act(&mut self, random: &mut StdRng, now_us: u64, at: Timestamp, doors: &[String], nodes: &[String]) {
        if random.random_ratio(1, 8)
            && let Some((id, given)) = pick(random, &self.given)
        {
            // Again, as it was; or something else under its id.
            let id = id.clone();
            let (verb, mut body) = (given.verb, given.body.clone());
            if random.random_ratio(1, 4) && verb != "query" {
                body = String::from_utf8(body).unwrap().replace("\"op-", "\"other-").into_bytes();
                self.given.entry(id.clone()).and_modify(|given| given.was_altered = true);
            }
            note(|| format!("the centre repeats {verb} {id}"));
            let topic = self.topics.command(verb, &id);
            return self.plan(now_us, topic, body);
        }
        self.count += 1;
        let id = format!("c{}", self.count);
        let Some((verb, body)) = self.order(random, at, &id, doors, nodes) else { return };
        note(|| format!("the centre orders {verb} {id}: {}", String::from_utf8_lossy(&body)));
        let expires_at = serde_json::from_slice::<serde_json::Value>(&body).unwrap()["expires_at"]
            .as_str()
            .map(|at| at.parse().unwrap());
        let topic = self.topics.command(verb, &id);
        for _ in 0..if random.random_ratio(1, 10) { 2 } else { 1 } {
            let at_us = now_us + random.random_range(0..2_000_000);
            self.plan(at_us, topic.clone(), body.clone());
        }
        self.given.insert(id, Given { verb, body, expires_at, was_altered: false });
    }

    fn order(
        &mut self,
        random: &mut StdRng,
        at: Timestamp,
        id: &str,
        doors: &[String],
        nodes: &[String],
    ) -> Option<(&'static str, Vec<u8>)> {
        let operator = format!("op-{id}");
        let expires_at = match random.random_range(0..6) {
            0 => Some(at - SignedDuration::from_secs(1)),
            1 => Some(at + SignedDuration::from_secs(5)),
            2 => Some(at + SignedDuration::from_mins(30)),
            _ => None,
        };
        let open: Vec<Open> = (self.model.open_alarms().into_iter())
            .map(|(_, view)| {
                let case = view.alarm.case.as_ref().map(|case| (case.case_id.clone(), case.stage));
                (view.alarm.alarm_id.clone(), view.alarm.kind, view.alarm.condition, case)
            })
            .collect();
        let what = random.random_range(0..20);
        if what < 14 {
            let (alarm_id, _, condition, case) = open.choose(random)?.clone();
            let plain =
                AlarmCommand { alarm_id: alarm_id.clone(), operator: operator.clone(), issued_at: at, expires_at };
            let may_reset = matches!(condition, Condition::ClearedUnack | Condition::ClearedLatched);
            return Some(match what {
                0..6 => ("ack", body(&plain)),
                6..8 => ("reset", body(&plain)),
                8..11 if may_reset => ("reset", body(&plain)),
                _ => {
                    let (case_id, before) = case.map_or((format!("case-{id}"), None), |(id, stage)| (id, Some(stage)));
                    let fits = |stage: &&CaseStage| stage.may_follow(before);
                    // Mostly the next stage, at times any.
                    let next: Vec<&CaseStage> = CaseStage::ALL.iter().filter(fits).collect();
                    let stage = if random.random_ratio(1, 5) {
                        CaseStage::ALL.choose(random)
                    } else {
                        next.choose(random).copied()
                    };
                    let stage = *stage?;
                    let reason = stage.needs_reason().then_some(RejectReason::BurntFood);
                    let case = CaseCommand {
                        alarm_id,
                        case_id,
                        stage,
                        reason,
                        note: None,
                        due_at: None,
                        operator,
                        issued_at: at,
                        expires_at,
                    };
                    ("case", body(&case))
                }
            });
        }
        let door = slug(doors.choose(random)?);
        let kind = if random.random_ratio(1, 4) { AlarmKind::Smoke } else { AlarmKind::DoorLeftOpen };
        Some(match what {
            14..16 => {
                let until = at + SignedDuration::from_secs(random.random_range(-5..300));
                let reason = "simulated".into();
                (
                    "shelve",
                    body(&ShelveCommand {
                        device: door,
                        kind,
                        zone: None,
                        until,
                        reason,
                        operator,
                        issued_at: at,
                        expires_at,
                    }),
                )
            }
            16 => (
                "unshelve",
                body(&UnshelveCommand { device: door, kind, zone: None, operator, issued_at: at, expires_at }),
            ),
            17 => {
                let (device, for_s) = (slug(nodes.choose(random)?), random.random_range(0..30));
                ("sounder", body(&SounderCommand { device, for_s, operator, issued_at: at, expires_at }))
            }
            _ => {
                let what = if random.random() { QueryWhat::Alarms } else { QueryWhat::Devices };
                let query = QueryCommand {
                    what,
                    devices: vec![],
                    from_sequence: None,
                    to_sequence: None,
                    operator,
                    issued_at: at,
                    expires_at,
                };
                ("query", body(&query))
            }
        })
    }
}

fn pick<'a>(random: &mut StdRng, given: &'a BTreeMap<String, Given>) -> Option<(&'a String, &'a Given)> {
    if given.is_empty() { None } else { given.iter().nth(random.random_range(0..given.len())) }
}

fn body(order: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(order).unwrap()
}
