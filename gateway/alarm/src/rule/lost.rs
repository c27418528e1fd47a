//! Devices that cannot be reached. Owns the one trouble of a node whose link is down, which lists everything the node carries: 32
//! silent channels are one fault. Refuses to say anything about what the sensors would have seen. Silence on a link that is up
//! is `supervision`'s; both speak of the same trouble.

use std::time::Duration;

use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use super::supervision::{self, blind, is_carrier_lost};
use super::{Decision, names, news};
use crate::book::News;
use crate::device::{Outage, Service, Timer};
use crate::explain::Why;
use crate::observation::{Link, Observation};
use crate::rules::Timing;
use crate::supervise::is_bus;
use crate::time::{ms_between, spoken};

const RULE: &str = "link.down";

/// Judges what the gateway knows of the way to a device.
pub(crate) fn observe(decision: &mut Decision, service: &mut Option<Service>, seen: &Observation, link: &Link) {
    match (link, &*service) {
        (Link::Up, _) => {
            *service = Some(Service::Good);
            heard(decision, seen);
        }
        (Link::Down(_), Some(Service::Out(_))) => {}
        (Link::Down(detail), _) => {
            let hold = hold(decision, &seen.device);
            let mut outage = Outage {
                since: seen.sensed_at,
                hold: Some(Timer::start(decision.now, decision.now, hold)),
                reason: "link".to_owned(),
                detail: detail.clone(),
                clock: seen.clock,
            };
            if hold == Duration::ZERO {
                outage.hold = None;
                lost(decision, &seen.device, &outage, seen.sensed_at);
            }
            *service = Some(Service::Out(outage));
        }
    }
}

/// Raises when the hold has passed.
pub(crate) fn tick(decision: &mut Decision, service: &mut Option<Service>, device: &Slug) {
    let Some(Service::Out(outage)) = service else { return };
    let Some(due_at) = outage.hold.as_ref().filter(|timer| timer.is_due(decision.now)).map(|timer| timer.due_at) else {
        return;
    };
    if is_carrier_lost(decision.rules, decision.book, device) {
        // Explained; looked at again, in case it is still out when its carrier is back.
        let again = hold(decision, device);
        outage.hold = Some(Timer::start(decision.now, decision.now, again));
        return;
    }
    outage.hold = None;
    lost(decision, device, outage, due_at);
}

/// How long it must be out before it is told: at once, or after what gives its carrier the time to be the one that is out.
fn hold(decision: &Decision, device: &Slug) -> Duration {
    let Timing { link_down_hold, bus_settle, .. } = decision.rules.timing;
    let on_a_bus = decision.rules.carriers_of(device).any(|carrier| is_bus(decision.rules, carrier));
    let explained = is_carrier_lost(decision.rules, decision.book, device);
    if on_a_bus || explained { link_down_hold.max(bus_settle) } else { link_down_hold }
}

/// The trouble of a device that is not heard any more.
fn lost(decision: &mut Decision, device: &Slug, outage: &Outage, sensed_at: Timestamp) {
    let carried = names(decision.rules.carried_by(device));
    let (zh, en) = match carried.len() {
        0 => (String::new(), String::new()),
        n => (format!("；其下 {n} 个设备同时失联"), format!("; the {n} devices it carries are silent with it")),
    };
    let why = Why::new(
        RULE,
        format!("与设备的连接中断：{}{zh}", outage.detail),
        format!("The link to the device is down: {}{en}", outage.detail),
    );
    let why =
        why.with("down_since", outage.since.to_string()).with("devices", carried).with("detail", outage.detail.clone());
    let news = News::at(sensed_at, outage.clock, None, why);
    decision.raise(&supervision::lost(decision.rules, device), outage.since, news);
    blind(decision, device);
}

/// It is heard again.
fn heard(decision: &mut Decision, seen: &Observation) {
    let subject = supervision::lost(decision.rules, &seen.device);
    let Some(alarm) = decision.book.find(&subject) else { return };
    let lost_ms = ms_between(alarm.data.since, seen.sensed_at).max(0);
    let lasted = spoken(lost_ms);
    let why = Why::new(
        RULE,
        format!("连接恢复，中断 {}", lasted.zh),
        format!("The device is heard again after {}", lasted.en),
    );
    decision.clear(&subject, news(seen, why.with("lost_ms", lost_ms)));
}
