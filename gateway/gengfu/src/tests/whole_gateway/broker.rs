//! Two simulated brokers and the connections to them.
//!
//! Owns what MQTT promises and what it does not: sessions that are kept or lost, retained messages, QoS 1 with PUBACKs that come late, twice or never, refusals, wills,
//! connections that break with half of what was written. Refuses to know what the messages mean, but for the receipts, which it counts as told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::Rng;
use rand::rngs::StdRng;

use crate::config::Protocol;
use crate::uplink::Cause;
use crate::uplink::connection::{Arrived, Lost, Message, Refusal, Signal, Subscription};
use crate::uplink::simulated::{Handed, Line, dialled};

use super::trail::note;

/// The brokers of the list, the preferred one first.
pub const HOSTS: [&str; 2] = ["first", "second"];
/// Packet ids come round after this many, as the uplink asks for.
const PACKET_IDS: u16 = 1024;
/// How long the uplink itself waits for the end of a connection it leaves.
const GOODBYE_US: u64 = 2_000_000;

/// How a broker does not take events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// With a reason (MQTT 5); on 3.1.1 it acknowledges and drops.
    Told,
    /// By hanging up.
    HangsUp,
}

/// What goes wrong between gateway, broker and centre, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct NetFaults {
    pub puback_lost: u32,
    pub puback_late: u32,
    pub puback_twice: u32,
    pub centre_twice: u32,
    pub latency_us: u64,
}

/// A message for the centre.
#[derive(Debug, Clone)]
pub struct ForCentre {
    pub broker: usize,
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
}

#[derive(Default)]
pub struct Broker {
    pub is_down: bool,
    /// The gateway does not reach it.
    pub is_cut_off: bool,
    pub stalled_until_us: u64,
    pub refuses: Option<(u64, Manner)>,
    pub retained: BTreeMap<String, Vec<u8>>,
    /// What the gateway subscribed to; `None`: no session.
    filters: Option<Vec<Subscription>>,
    for_gateway: VecDeque<(String, Vec<u8>)>,
    /// Sent to the gateway a moment ago, so perhaps once more.
    told_gateway: VecDeque<(String, Vec<u8>)>,
    wills: Vec<Message>,
    centre_session: bool,
    pub centre_connected: bool,
    for_centre: VecDeque<(String, Vec<u8>, bool)>,
    told_centre: VecDeque<(String, Vec<u8>, bool)>,
    centre_last_us: u64,
}

struct Conn {
    line: Line,
    broker: usize,
    is_up: bool,
    is_over: bool,
    next_id: u16,
    in_use: BTreeSet<u16>,
    up_last_us: u64,
    down_last_us: u64,
}

enum Due {
    Connack { conn: usize },
    Refused { conn: usize },
    AtBroker { conn: usize, packet_id: u16, message: Message },
    Subscribe { conn: usize, wanted: Vec<Subscription> },
    ToGateway { conn: usize, signal: Signal },
    ToCentre { broker: usize },
    GivenUp { conn: usize },
    Will { broker: usize },
}

/// Everything between the gateway and the centre.
pub struct Net {
    pub brokers: [Broker; 2],
    pub faults: NetFaults,
    /// Ids for which a receipt was told to the gateway.
    pub receipts_told: BTreeSet<String>,
    /// Publications the gateway made, not yet looked at: connection, topic, payload.
    pub published: Vec<(usize, String, Vec<u8>)>,
    /// Events that it handed to a connection that was over.
    pub in_vain: Vec<u64>,
    conns: Vec<Conn>,
    agenda: BTreeMap<(u64, u64), Due>,
    turn: u64,
    pub connects: u64,
    pub pubacks_lost: u64,
    pub refused: u64,
    /// Events that a broker refused at some time: they wait, and others pass them.
    pub refused_events: BTreeSet<u64>,
}

impl Net {
    pub fn new() -> Net {
        Net {
            brokers: Default::default(),
            faults: NetFaults::default(),
            receipts_told: BTreeSet::new(),
            published: vec![],
            in_vain: vec![],
            conns: vec![],
            agenda: BTreeMap::new(),
            turn: 0,
            connects: 0,
            pubacks_lost: 0,
            refused: 0,
            refused_events: BTreeSet::new(),
        }
    }

    pub fn due_us(&self) -> u64 {
        self.agenda.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    /// The broker on which the gateway is now.
    pub fn current(&self) -> Option<usize> {
        self.conns.iter().rev().find(|conn| conn.is_up && !conn.is_over).map(|conn| conn.broker)
    }

    fn plan(&mut self, at_us: u64, due: Due) {
        self.turn += 1;
        self.agenda.insert((at_us, self.turn), due);
    }

    /// Answers new connections and writes what sessions handed over. True when sessions were told something.
    pub fn collect(&mut self, random: &mut StdRng, now_us: u64) -> bool {
        while let Some(line) = dialled() {
            self.dialled(random, now_us, line);
        }
        let mut told = false;
        for conn in 0..self.conns.len() {
            if self.conns[conn].is_over {
                self.write_in_vain(conn);
                told |= !self.in_vain.is_empty();
                continue;
            }
            told |= self.write(random, now_us, conn);
            if self.conns[conn].line.is_dropped() {
                self.is_over(random, now_us, conn, false);
            }
        }
        told
    }

    fn dialled(&mut self, random: &mut StdRng, now_us: u64, line: Line) {
        let host = line.wire().host.clone();
        let broker = HOSTS.iter().position(|known| *known == host).unwrap();
        let (in_use, conn) = (BTreeSet::new(), self.conns.len());
        self.conns.push(Conn {
            line,
            broker,
            is_up: false,
            is_over: false,
            next_id: 1,
            in_use,
            up_last_us: now_us,
            down_last_us: now_us,
        });
        let there = &self.brokers[broker];
        let (at_us, due) = if there.is_down || there.is_cut_off {
            (now_us + random.random_range(1_000..3_000_000), Due::Refused { conn })
        } else {
            (now_us.max(there.stalled_until_us) + random.random_range(2_000..60_000), Due::Connack { conn })
        };
        self.plan(at_us, due);
    }

    /// What the gateway handed to a connection that was over: it takes it for sent, until it hears of the end.
    fn write_in_vain(&mut self, conn: usize) {
        for handed in std::mem::take(&mut self.conns[conn].line.wire().handed) {
            if let Handed::Publish(message) = handed
                && message.topic.ends_with("/event")
            {
                self.in_vain.push(super::oracle::sequence_of(&message.payload));
            }
        }
    }

    fn write(&mut self, random: &mut StdRng, now_us: u64, conn: usize) -> bool {
        let mut told = false;
        loop {
            let at = &mut self.conns[conn];
            // The client stops before a packet id that is still in use.
            if at.in_use.contains(&at.next_id) {
                return told;
            }
            let Some(handed) = at.line.wire().handed.pop_front() else { return told };
            told = true;
            let at_us = (now_us + latency(random, self.faults)).max(at.up_last_us);
            at.up_last_us = at_us;
            match handed {
                Handed::Publish(message) => {
                    let packet_id = at.next_id;
                    at.next_id = packet_id % PACKET_IDS + 1;
                    at.in_use.insert(packet_id);
                    at.line.wire().signals.push_back(Signal::Published(packet_id));
                    note(|| {
                        format!(
                            "gateway → {} {} {} ({} bytes)",
                            HOSTS[self.conns[conn].broker],
                            message.topic,
                            if message.topic.ends_with("/event") {
                                super::oracle::sequence_of(&message.payload)
                            } else {
                                0
                            },
                            message.payload.len()
                        )
                    });
                    if message.topic.ends_with("/status") && message.payload.windows(9).any(|w| w == b"\"offline\"") {
                        self.plan(now_us + GOODBYE_US, Due::GivenUp { conn });
                    }
                    self.published.push((conn, message.topic.clone(), message.payload.clone()));
                    self.plan(at_us, Due::AtBroker { conn, packet_id, message });
                }
                Handed::Subscribe(wanted) => self.plan(at_us, Due::Subscribe { conn, wanted }),
                Handed::Unsubscribe(filter) => {
                    let broker = self.conns[conn].broker;
                    if let Some(filters) = &mut self.brokers[broker].filters {
                        filters.retain(|have| have.filter != filter);
                    }
                }
                Handed::Disconnect => {
                    self.conns[conn].line.wire().signals.push_back(Signal::Disconnected);
                    self.conns[conn].is_over = true;
                }
            }
        }
    }

    /// Does what is due; gives what reached the centre.
    pub fn run(&mut self, random: &mut StdRng, now_us: u64) -> Vec<ForCentre> {
        let mut arrived = vec![];
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now_us) {
            match entry.remove() {
                Due::Connack { conn } => self.connack(random, now_us, conn),
                Due::Refused { conn } => self.lose(conn, "connection refused"),
                Due::AtBroker { conn, packet_id, message } => self.at_broker(random, now_us, conn, packet_id, message),
                Due::Subscribe { conn, wanted } => self.subscribe(random, now_us, conn, wanted),
                Due::ToGateway { conn, signal } => self.deliver_to_gateway(conn, signal),
                Due::ToCentre { broker } => arrived.extend(self.deliver_to_centre(random, broker)),
                Due::GivenUp { conn } if !self.conns[conn].is_over => {
                    self.lose(conn, "the goodbye took too long");
                    self.is_over(random, now_us, conn, true);
                }
                Due::GivenUp { .. } => {}
                Due::Will { broker } => self.publish_wills(random, now_us, broker),
            }
        }
        arrived
    }

    fn connack(&mut self, random: &mut StdRng, now_us: u64, conn: usize) {
        let broker = self.conns[conn].broker;
        if self.conns[conn].is_over {
            return;
        }
        if self.brokers[broker].is_down || self.brokers[broker].is_cut_off {
            return self.lose(conn, "connection refused");
        }
        for other in 0..self.conns.len() {
            if other != conn && self.conns[other].is_up && self.conns[other].broker == broker {
                self.cut(random, now_us, other);
            }
        }
        self.publish_wills(random, now_us, broker);
        self.connects += 1;
        let there = &mut self.brokers[broker];
        let session_present = there.filters.is_some();
        there.filters.get_or_insert_default();
        if session_present && random.random_ratio(1, 3) {
            // Sent before, and never acknowledged by the client.
            for again in std::mem::take(&mut there.told_gateway).into_iter().rev() {
                there.for_gateway.push_front(again);
            }
        }
        there.told_gateway.clear();
        self.conns[conn].is_up = true;
        note(|| format!("{} accepts the gateway, session present: {session_present}", HOSTS[broker]));
        let receive_max = random.random_ratio(1, 8).then(|| random.random_range(1..20));
        let connected = Signal::Connected { session_present, receive_max, packet_bytes_max: None };
        self.tell(random, now_us, conn, connected);
        self.tell_queued(random, now_us, conn);
    }

    fn tell_queued(&mut self, random: &mut StdRng, now_us: u64, conn: usize) {
        let broker = self.conns[conn].broker;
        while let Some((topic, payload)) = self.brokers[broker].for_gateway.pop_front() {
            self.tell(random, now_us, conn, message(topic, payload, false));
        }
    }

    fn tell(&mut self, random: &mut StdRng, now_us: u64, conn: usize, signal: Signal) {
        let at = &mut self.conns[conn];
        let at_us =
            (now_us + latency(random, self.faults)).max(at.down_last_us).max(self.brokers[at.broker].stalled_until_us);
        at.down_last_us = at_us;
        self.plan(at_us, Due::ToGateway { conn, signal });
    }

    fn deliver_to_gateway(&mut self, conn: usize, signal: Signal) {
        let at = &mut self.conns[conn];
        if at.is_over {
            return;
        }
        match &signal {
            Signal::Acked { packet_id, .. } => drop(at.in_use.remove(packet_id)),
            Signal::Message(arrived) if is_command(&arrived.topic) => {
                let told = &mut self.brokers[at.broker].told_gateway;
                told.push_back((arrived.topic.clone(), arrived.payload.clone()));
                if told.len() > 3 {
                    told.pop_front();
                }
                if arrived.topic.contains("/cmd/receipt/")
                    && let Ok(receipt) = serde_json::from_slice::<gengfu_contract::command::Receipt>(&arrived.payload)
                {
                    note(|| format!("the gateway is told the receipt of {:?}", receipt.ids));
                    self.receipts_told.extend(receipt.ids);
                }
            }
            _ => {}
        }
        at.line.wire().signals.push_back(signal);
    }

    fn at_broker(&mut self, random: &mut StdRng, now_us: u64, conn: usize, packet_id: u16, message: Message) {
        let broker = self.conns[conn].broker;
        // What an old connection wrote and the broker has not read is gone when the same client has come again.
        let is_replaced =
            self.conns[conn].is_over && self.conns[conn + 1..].iter().any(|it| it.is_up && it.broker == broker);
        if self.brokers[broker].is_down || is_replaced {
            return;
        }
        let stalled_until_us = self.brokers[broker].stalled_until_us;
        if now_us < stalled_until_us {
            return self.plan(stalled_until_us, Due::AtBroker { conn, packet_id, message });
        }
        let protocol = self.conns[conn].line.wire().protocol;
        let mut refusal = None;
        if message.topic.ends_with("/event")
            && let Some((_, manner)) = self.brokers[broker].refuses.filter(|(until_us, _)| now_us < *until_us)
        {
            self.refused += 1;
            self.refused_events.insert(super::oracle::sequence_of(&message.payload));
            match (manner, protocol) {
                (Manner::Told, Protocol::Mqtt5) => {
                    refusal = Some(Refusal { cause: Cause::QuotaExceeded, text: "QuotaExceeded".into() });
                }
                (Manner::Told, Protocol::Mqtt311) => {}
                (Manner::HangsUp, _) => return self.cut(random, now_us, conn),
            }
        } else {
            self.route(random, now_us, broker, Some(conn), &message.topic, &message.payload, message.retain);
        }
        if hits(random, self.faults.puback_lost) {
            self.pubacks_lost += 1;
            note(|| format!("PUBACK {packet_id} is lost"));
            return;
        }
        let late_us = if hits(random, self.faults.puback_late) { random.random_range(100_000..12_000_000) } else { 0 };
        // MQTT 5 may tell that nobody listens.
        let unheard = protocol == Protocol::Mqtt5 && refusal.is_none() && !self.brokers[broker].centre_session;
        let acked = Signal::Acked { packet_id, refusal, unheard };
        for _ in 0..if hits(random, self.faults.puback_twice) { 2 } else { 1 } {
            self.tell_later(random, now_us, conn, acked.clone(), late_us);
        }
    }

    /// A PUBACK may be overtaken by others.
    fn tell_later(&mut self, random: &mut StdRng, now_us: u64, conn: usize, signal: Signal, late_us: u64) {
        if late_us == 0 {
            return self.tell(random, now_us, conn, signal);
        }
        self.plan(now_us + late_us, Due::ToGateway { conn, signal });
    }

    fn subscribe(&mut self, random: &mut StdRng, now_us: u64, conn: usize, wanted: Vec<Subscription>) {
        let broker = self.conns[conn].broker;
        if self.conns[conn].is_over || self.brokers[broker].is_down {
            return;
        }
        self.tell(random, now_us, conn, Signal::Subscribed(vec![None; wanted.len()]));
        let there = &mut self.brokers[broker];
        let kept: Vec<_> = there
            .retained
            .iter()
            .filter(|(topic, _)| wanted.iter().any(|it| matches(&it.filter, topic)))
            .map(|(topic, payload)| (topic.clone(), payload.clone()))
            .collect();
        let filters = there.filters.get_or_insert_default();
        filters.retain(|have| wanted.iter().all(|new| new.filter != have.filter));
        filters.extend(wanted);
        for (topic, payload) in kept {
            self.tell(random, now_us, conn, message(topic, payload, true));
        }
    }

    /// A message at a broker, on its way to whoever wants it.
    #[expect(clippy::too_many_arguments, reason = "a message and where it stands")]
    pub fn route(
        &mut self,
        random: &mut StdRng,
        now_us: u64,
        broker: usize,
        from: Option<usize>,
        topic: &str,
        payload: &[u8],
        retain: bool,
    ) {
        let there = &mut self.brokers[broker];
        if there.is_down {
            return;
        }
        if retain && payload.is_empty() {
            there.retained.remove(topic);
        } else if retain {
            there.retained.insert(topic.to_owned(), payload.to_vec());
        }
        if from.is_some() && there.centre_session {
            let copies = if hits(random, self.faults.centre_twice) { 2 } else { 1 };
            for _ in 0..copies {
                self.brokers[broker].for_centre.push_back((topic.to_owned(), payload.to_vec(), false));
                self.plan_to_centre(random, now_us, broker);
            }
        }
        let there = &mut self.brokers[broker];
        let wanted = there.filters.iter().flatten().find(|it| matches(&it.filter, topic));
        let Some((own, sure)) = wanted.map(|it| (it.not_own, !it.at_most_once)) else { return };
        let to = self.conns.iter().position(|conn| conn.broker == broker && conn.is_up && !conn.is_over);
        match to {
            Some(conn) => {
                let is_5 = self.conns[conn].line.wire().protocol == Protocol::Mqtt5;
                if !(own && is_5 && from == Some(conn)) {
                    self.tell(random, now_us, conn, message(topic.to_owned(), payload.to_vec(), false));
                }
            }
            None if sure => self.brokers[broker].for_gateway.push_back((topic.to_owned(), payload.to_vec())),
            None => {}
        }
    }

    fn plan_to_centre(&mut self, random: &mut StdRng, now_us: u64, broker: usize) {
        let there = &mut self.brokers[broker];
        let at_us = (now_us + latency(random, self.faults)).max(there.centre_last_us).max(there.stalled_until_us);
        there.centre_last_us = at_us;
        self.plan(at_us, Due::ToCentre { broker });
    }

    fn deliver_to_centre(&mut self, random: &mut StdRng, broker: usize) -> Option<ForCentre> {
        let there = &mut self.brokers[broker];
        if !there.centre_connected || there.is_down {
            return None;
        }
        let (topic, payload, retained) = there.for_centre.pop_front()?;
        there.told_centre.push_back((topic.clone(), payload.clone(), retained));
        if there.told_centre.len() > random.random_range(1..4) {
            there.told_centre.pop_front();
        }
        Some(ForCentre { broker, topic, payload, retained })
    }

    /// The centre connects and subscribes. What it did not confirm comes again, if the broker remembers it.
    pub fn centre_connects(&mut self, random: &mut StdRng, now_us: u64, broker: usize) {
        let there = &mut self.brokers[broker];
        if there.is_down || there.centre_connected {
            return;
        }
        there.centre_connected = true;
        if there.centre_session {
            for again in std::mem::take(&mut there.told_centre).into_iter().rev() {
                there.for_centre.push_front(again);
            }
        }
        there.centre_session = true;
        let kept = there.retained.iter().map(|(topic, payload)| (topic.clone(), payload.clone(), true));
        there.for_centre.extend(kept.collect::<Vec<_>>());
        for _ in 0..there.for_centre.len() {
            self.plan_to_centre(random, now_us, broker);
        }
    }

    /// The centre's connection ends. `forgets`: its session too.
    pub fn centre_leaves(&mut self, broker: usize, forgets: bool) {
        let there = &mut self.brokers[broker];
        there.centre_connected = false;
        if forgets {
            there.centre_session = false;
            there.for_centre.clear();
            there.told_centre.clear();
        }
    }

    /// The broker loses what it remembers of the gateway.
    pub fn forget_gateway(&mut self, random: &mut StdRng, now_us: u64, broker: usize) {
        self.cut_broker(random, now_us, broker);
        self.brokers[broker].filters = None;
        self.brokers[broker].for_gateway.clear();
        self.brokers[broker].told_gateway.clear();
    }

    /// The broker's process ends; `empty`: with all it remembers.
    pub fn broker_dies(&mut self, random: &mut StdRng, now_us: u64, broker: usize, empty: bool) {
        self.cut_broker(random, now_us, broker);
        let there = &mut self.brokers[broker];
        there.is_down = true;
        there.centre_connected = false;
        there.stalled_until_us = 0;
        if empty {
            *there = Broker { is_down: true, is_cut_off: there.is_cut_off, ..Broker::default() };
        }
    }

    /// Breaks the gateway's connections to a broker.
    pub fn cut_broker(&mut self, random: &mut StdRng, now_us: u64, broker: usize) {
        for conn in 0..self.conns.len() {
            if self.conns[conn].broker == broker && !self.conns[conn].is_over {
                self.cut(random, now_us, conn);
            }
        }
    }

    /// Breaks a connection: of what was written a part arrives, and of what was to be told a part was told.
    fn cut(&mut self, random: &mut StdRng, now_us: u64, conn: usize) {
        if self.conns[conn].is_over {
            return;
        }
        let keep_us = now_us + if random.random() { 0 } else { random.random_range(0..50_000) };
        let gone: Vec<_> = (self.agenda.iter())
            .filter(|((at_us, _), due)| match due {
                Due::AtBroker { conn: of, .. } | Due::Subscribe { conn: of, .. } => *of == conn && *at_us > keep_us,
                Due::ToGateway { conn: of, .. } => *of == conn,
                _ => false,
            })
            .map(|(key, _)| *key)
            .collect();
        let broker = self.conns[conn].broker;
        for key in gone {
            if let Some(Due::ToGateway { signal: Signal::Message(arrived), .. }) = self.agenda.remove(&key)
                && is_command(&arrived.topic)
                && self.brokers[broker].filters.is_some()
            {
                self.brokers[broker].for_gateway.push_back((arrived.topic, arrived.payload));
            }
        }
        self.lose(conn, "connection reset by peer");
        self.is_over(random, now_us, conn, true);
    }

    fn lose(&mut self, conn: usize, why: &str) {
        note(|| format!("connection {conn} to {}: {why}", HOSTS[self.conns[conn].broker]));
        self.conns[conn].line.wire().lost = Some(Lost::of(Cause::BrokerUnreachable, why));
    }

    /// The broker sees the end of a connection, sooner or later, and says the client's last words.
    fn is_over(&mut self, random: &mut StdRng, now_us: u64, conn: usize, at_once: bool) {
        let at = &mut self.conns[conn];
        if at.is_over {
            return;
        }
        at.is_over = true;
        let (broker, will) = (at.broker, at.line.wire().will.clone());
        if at.is_up
            && let Some(will) = will
        {
            self.brokers[broker].wills.push(will);
            let late_us = if at_once { 1_000 } else { random.random_range(1_000..45_000_000) };
            self.plan(now_us + late_us, Due::Will { broker });
        }
    }

    fn publish_wills(&mut self, random: &mut StdRng, now_us: u64, broker: usize) {
        for will in std::mem::take(&mut self.brokers[broker].wills) {
            self.route(random, now_us, broker, Some(usize::MAX), &will.topic, &will.payload, will.retain);
        }
    }
}

fn latency(random: &mut StdRng, faults: NetFaults) -> u64 {
    1_000 + if faults.latency_us == 0 { 0 } else { random.random_range(0..faults.latency_us) }
}

fn hits(random: &mut StdRng, thousandths: u32) -> bool {
    thousandths > 0 && random.random_ratio(thousandths, 1_000)
}

fn is_command(topic: &str) -> bool {
    topic.contains("/cmd/")
}

fn message(topic: String, payload: Vec<u8>, retained: bool) -> Signal {
    Signal::Message(Arrived { topic, payload, retained, response_topic: None, correlation: None })
}

/// MQTT's filters, without `#`, which the gateway does not use.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut wanted, mut levels) = (filter.split('/'), topic.split('/'));
    loop {
        match (wanted.next(), levels.next()) {
            (None, None) => return true,
            (Some(wanted), Some(level)) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
}
