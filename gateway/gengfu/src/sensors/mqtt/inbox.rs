//! What arrived from a broker, and what of it the decider must hear. Sans-I/O.
//!
//! Owns whose a message is, copies, retained and late messages, bridges, and when a message may be acknowledged. Refuses to take a retained
//! message for a sign of life: it may be months old.
//!
//! A retained message tells a level. If it is what the decider was told before, also before a restart, nothing happens; otherwise it is told as
//! repaired. A retained smoke alarm is an alarm. See `docs/devices.md`.

use std::collections::{BTreeMap, VecDeque};

use gengfu_alarm::observation::{Link, Observation, What};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::decode::{Decoded, Malformed, decode};
use super::topic;
use crate::sensors::handover::Source;
use crate::sensors::levels::{How, Levels};
use crate::sensors::outgoing::Outgoing;
use crate::sensors::plan::{BrokerPlan, DevicePlan};
use crate::sensors::profile::{Map, Topic};
use crate::sensors::stats::{Problem, SensorStats};
use crate::sensors::words::{Facet, Fact};
use crate::sensors::{HEARTBEAT_EVERY, Moment, told_before, told_bytes};

/// Ids remembered of each device: as many copies as gateways may hear one uplink, and then some.
const IDS: usize = 16;
/// A message that was sensed longer ago waited somewhere; it tells a level, but not that the device lives now.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// A broker's devices and their memories.
#[derive(Debug)]
pub struct Inbox {
    plan: BrokerPlan,
    devices: Vec<Device>,
    /// By bridge: whether it said that it is there.
    bridges: Vec<Levels>,
    out: Outgoing,
    stats: SensorStats,
    /// Told of the broker.
    up: Option<bool>,
    cursor: Vec<u8>,
}

#[derive(Debug)]
struct Device {
    /// Its filters, with the position of their topic in the profile.
    filters: Vec<(String, usize)>,
    levels: Levels,
    ids: VecDeque<String>,
    /// Time of the newest message that told one.
    newest_at: Option<Timestamp>,
    heartbeat_at: Option<SignedDuration>,
}

impl Inbox {
    /// A broker that has said nothing yet. `saved` is what [`Self::take_batch`] last made durable.
    #[must_use]
    pub fn new(plan: BrokerPlan, saved: Option<&[u8]>, at: Moment) -> Self {
        let mut told = told_before(saved);
        let names = plan.devices.iter().map(|device| device.device.name.clone());
        let place = format!("{}:{}", plan.config.host, plan.config.port);
        let stats = SensorStats::starting(plan.config.name.clone(), place, names, at.now);
        let devices = plan.devices.iter().map(|device| Device::new(device, &mut told)).collect();
        let mut bridge = |name: &Slug| Levels::new(None, None, told.remove(name).unwrap_or_default());
        let bridges = plan.config.bridges.iter().map(|b| bridge(&b.name)).collect();
        let cursor = saved.map_or_else(|| b"{}".to_vec(), <[u8]>::to_vec);
        Self { plan, devices, bridges, out: Outgoing::default(), stats, up: None, cursor }
    }

    /// Every topic filter to subscribe to, once each.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        let of_devices = self.devices.iter().flat_map(|device| device.filters.iter().map(|(filter, _)| filter.clone()));
        let mut all: Vec<String> = of_devices.chain(self.plan.config.bridges.iter().map(|b| b.topic.clone())).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The broker accepted us and our subscriptions.
    pub fn connected(&mut self, at: Moment) {
        self.stats.opened += 1;
        self.stats.show(at.now, None);
        if self.up != Some(true) {
            self.up = Some(true);
            self.out.push(at.seen(&self.plan.config.name, at.now, What::Link(Link::Up)));
        }
    }

    /// The broker is away, or refuses.
    pub fn lost(&mut self, at: Moment, problem: &Problem) {
        self.stats.show(at.now, Some(problem));
        if self.up != Some(false) {
            self.up = Some(false);
            let text = problem.told(&self.stats.place);
            tracing::warn!(broker = %self.plan.config.name, "device broker down: {text}");
            self.out.push(at.seen(&self.plan.config.name, at.now, What::Link(Link::Down(text))));
        }
    }

    /// Takes a message. It may be acknowledged when [`Self::is_settled`] says so of the number returned.
    pub fn on_message(&mut self, at: Moment, topic_name: &str, payload: &[u8], retained: bool) -> u64 {
        let mut is_ours = false;
        for n in 0..self.plan.config.bridges.len() {
            if self.plan.config.bridges[n].topic == topic_name {
                is_ours = true;
                self.bridge_says(at, n, payload);
            }
        }
        for n in 0..self.devices.len() {
            let found = self.devices[n].filters.iter().find(|(filter, _)| topic::matches(filter, topic_name));
            let Some(at_topic) = found.map(|(_, at_topic)| *at_topic) else { continue };
            is_ours = true;
            self.device_says(at, n, at_topic, payload, retained);
        }
        if !is_ours {
            self.stats.discard(&self.plan.config.name.clone(), "nobody's topic");
        }
        self.out.last()
    }

    fn device_says(&mut self, at: Moment, n: usize, at_topic: usize, payload: &[u8], retained: bool) {
        let plan = &self.plan.devices[n];
        let name = plan.device.name.clone();
        // An empty retained message is how MQTT deletes one.
        if payload.is_empty() {
            return;
        }
        let Some(topic) = topics(plan).get(at_topic) else { return };
        match decode(topic, &plan.part, payload) {
            Ok(decoded) => self.understood(at, n, &decoded, retained.then(|| print(payload))),
            Err(why) => {
                if self.stats.discard(&name, why.reason()) {
                    tracing::warn!(broker = %self.plan.config.name, device = %name, %why, "a message is not understood");
                }
                if let Malformed::Missing { what, remedy } = &why {
                    let text = Text {
                        zh: format!("{name}：消息中缺少 {what}"),
                        en: format!("{name}: {what} is missing in its messages"),
                    };
                    self.stats.warn(text, remedy.clone());
                }
            }
        }
    }

    fn understood(&mut self, at: Moment, n: usize, decoded: &Decoded, retained: Option<String>) {
        let name = self.plan.devices[n].device.name.clone();
        let device = &mut self.devices[n];
        if let Some(id) = &decoded.id {
            if device.ids.contains(id) {
                self.stats.discard(&name, "copy");
                return;
            }
            device.ids.push_back(id.clone());
            device.ids.drain(..device.ids.len().saturating_sub(IDS));
        }
        self.stats.understood += 1;
        // Nothing was sensed in the future: that clock is wrong.
        let time = decoded.time.map(|time| time.min(at.now));
        // A broker keeps the order of what is live; an older time there is another gateway's clock. What is retained may be older indeed.
        let old = retained.is_some() && time.zip(device.newest_at).is_some_and(|(time, newest)| time < newest);
        if old {
            self.stats.discard(&name, "older than what is known");
        }
        device.newest_at = device.newest_at.max(time);
        let sensed_at = time.unwrap_or(at.now);
        // What a bridge or a last will says of a device is not the device speaking.
        let speaks = decoded.readings.iter().any(|reading| !matches!(reading.fact, Fact::Level(Facet::Online, _)));
        let lives = speaks && retained.is_none() && at.now.duration_since(sensed_at) <= FRESH;
        let how = How { repaired: retained.is_some(), old, retained: retained.as_deref() };
        let before = device.levels.unknown().map(str::to_owned);
        let says_away = decoded.readings.iter().any(|r| r.fact == Fact::Level(Facet::Online, false));
        let mut news = device.levels.apply(&decoded.readings, how);
        if lives && !says_away {
            // What it said of its own being here is outdone by its speaking.
            if device.levels.told().online == Some(false) && device.levels.set_online(true) {
                news.insert(0, What::Link(Link::Up));
            }
            if device.heartbeat_at.is_none_or(|last| at.uptime - last >= HEARTBEAT_EVERY) {
                device.heartbeat_at = Some(at.uptime);
                news.push(What::Heartbeat);
            }
        }
        let unknown = device.levels.unknown().filter(|unknown| before.as_deref() != Some(*unknown)).map(str::to_owned);
        news.into_iter().for_each(|what| self.out.push(at.seen(&name, sensed_at, what)));
        self.show(at, n, lives, decoded.link_quality);
        if let Some(unknown) = unknown {
            self.stats.warn_unknown(&name, &self.plan.devices[n].profile.name, &unknown);
        }
    }

    fn show(&mut self, at: Moment, n: usize, lives: bool, link_quality: Option<i64>) {
        let is_away = self.devices[n].levels.told().online == Some(false);
        let shown = &mut self.stats.devices[n];
        if is_away {
            let text = Problem::Silent;
            shown.show(Some(&text));
            (shown.state, shown.state_zh) = ("offline by its last will or bridge".into(), "遗嘱或网桥报告离线".into());
            shown.remedy = "check the device's power and its radio".into();
        } else if lives {
            shown.show(None);
        }
        if lives && !is_away {
            shown.last_heard_at = Some(at.now);
            if let Some(bridge) = self.plan.devices[n].via.clone() {
                self.bridge_lives(at, &bridge);
            }
        }
        shown_quality(&mut self.stats.devices[n].link_quality, link_quality);
    }

    /// What is behind a bridge and speaks has come through it.
    fn bridge_lives(&mut self, at: Moment, name: &Slug) {
        let Some(n) = self.plan.config.bridges.iter().position(|bridge| bridge.name == *name) else { return };
        if self.bridges[n].told().online != Some(true) && self.bridges[n].set_online(true) {
            self.out.push(at.seen(name, at.now, What::Link(Link::Up)));
        }
    }

    fn bridge_says(&mut self, at: Moment, n: usize, payload: &[u8]) {
        let name = self.plan.config.bridges[n].name.clone();
        let json: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
        let state = json.as_ref().and_then(|json| json.get("state")).and_then(|state| state.as_str());
        let state = state.or_else(|| std::str::from_utf8(payload).ok().map(|text| text.trim().trim_matches('"')));
        let online = match state {
            Some("online" | "Online") => true,
            Some("offline" | "Offline") => false,
            _ => {
                self.stats.discard(&name, "neither online nor offline");
                return;
            }
        };
        if self.bridges[n].set_online(online) {
            let text = "网桥程序离线；检查它是否在运行、协调器是否插好 / the bridge is offline; check that its program runs and its \
                        coordinator is plugged in";
            let link = if online { Link::Up } else { Link::Down(text.into()) };
            self.out.push(at.seen(&name, at.now, What::Link(link)));
        }
    }

    /// Whether everything up to this number is durable.
    #[must_use]
    pub fn is_settled(&self, number: u64) -> bool {
        self.out.is_settled(number)
    }

    /// What it runs by.
    #[must_use]
    pub fn plan(&self) -> &BrokerPlan {
        &self.plan
    }
}

impl Source for Inbox {
    fn name(&self) -> &Slug {
        &self.plan.config.name
    }

    fn has_batch(&self) -> bool {
        self.out.has_batch()
    }

    fn take_batch(&mut self) -> Option<(Vec<Observation>, Vec<u8>)> {
        let (observations, is_all) = self.out.take()?;
        if is_all {
            let devices = self.plan.devices.iter().zip(&self.devices).map(|(plan, d)| (&plan.device.name, &d.levels));
            let bridges = self.plan.config.bridges.iter().zip(&self.bridges).map(|(plan, levels)| (&plan.name, levels));
            self.cursor = told_bytes(devices.chain(bridges));
        }
        self.stats.observed += observations.len() as u64;
        Some((observations, self.cursor.clone()))
    }

    fn committed(&mut self) {
        self.out.committed();
    }

    fn failed(&mut self) {
        self.out.failed();
        self.stats.refused += 1;
    }

    fn stats(&mut self) -> &SensorStats {
        self.stats.merged = self.out.merged();
        &self.stats
    }
}

fn shown_quality(shown: &mut Option<i64>, new: Option<i64>) {
    *shown = new.or(*shown);
}

impl Device {
    fn new(plan: &DevicePlan, told: &mut BTreeMap<Slug, crate::sensors::levels::Told>) -> Self {
        let filters =
            topics(plan).iter().enumerate().map(|(n, t)| (topic::filter(&t.pattern, &plan.address, &plan.part), n));
        let told = told.remove(&plan.device.name).unwrap_or_default();
        Self {
            filters: filters.collect(),
            levels: Levels::new(Some(plan.device.class), plan.profile.battery_mv_at, told),
            ids: VecDeque::new(),
            newest_at: None,
            heartbeat_at: None,
        }
    }
}

fn topics(plan: &DevicePlan) -> &[Topic] {
    match &plan.profile.map {
        Map::Mqtt(map) => &map.topics,
        Map::Modbus(_) => &[],
    }
}

/// A fingerprint of a payload, to know it again.
fn print(payload: &[u8]) -> String {
    hex::encode(&Sha256::digest(payload)[..8])
}

#[cfg(test)]
mod tests;
