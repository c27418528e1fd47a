//! Sensors that are not heard any more, and sensors that never trigger. Owns the trouble of a unit that was silent for its
//! interval: one trouble for a node with everything wired to it, none for what a lost carrier explains. Refuses to say
//! what the sensor would have seen: silence is neither "all well" nor "something happened".

use std::time::Duration;

use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;

use super::{Decision, care, names, news};
use crate::book::{Book, News, Subject};
use crate::explain::Why;
use crate::observation::Observation;
use crate::rules::{DeviceClass, Rules};
use crate::supervise::{Watch, is_bus, limit_ms};
use crate::time::{has_lasted, ms, ms_between, spoken};

const RULE: &str = "supervision.silent";
const QUIET_RULE: &str = "supervision.never_triggered";

/// Tells the loss of every unit that is due.
pub(crate) fn tick(decision: &mut Decision, watch: &mut Watch) {
    let due = watch.due(decision.now);
    for name in due {
        let explained = watch.carriers(&name).any(|carrier| watch.is_silent(carrier, decision.now))
            || is_carrier_lost(decision.rules, decision.book, &name);
        if explained {
            watch.excuse(&name, decision.now);
            continue;
        }
        silent(decision, watch, &name);
        watch.is_lost(&name);
        blind(decision, &name);
    }
}

fn silent(decision: &mut Decision, watch: &Watch, name: &Slug) {
    let Some((unit, heard)) = watch.get(name).and_then(|unit| Some((unit, unit.heard.as_ref()?))) else { return };
    let limit_ms = limit_ms(unit);
    let silent_ms = ms_between(heard.at, decision.now).max(0);
    let lasted = spoken(silent_ms);
    let mut carried: Vec<&Slug> = decision.rules.carried_by(name);
    carried.extend(unit.members.iter().filter(|member| *member != name));
    carried.sort_unstable();
    carried.dedup();
    let (zh, en) = match carried.len() {
        0 => (String::new(), String::new()),
        n => (format!("；其下 {n} 个设备同时失联"), format!("; the {n} devices it carries are silent with it")),
    };
    let why = Why::new(
        RULE,
        format!("已 {} 未收到该设备的任何消息，请检查供电、电池和线路{zh}", lasted.zh),
        format!("Nothing was heard of the device for {}: check its power, battery and line{en}", lasted.en),
    );
    let class = unit.limit.map_or("", |(class, _)| class.as_str());
    let why = why
        .with("limit_ms", limit_ms)
        .with("class", class)
        .with("silent_ms", silent_ms)
        .with("last_heard_at", heard.at.to_string())
        .with("ever_heard", heard.ever)
        .with("devices", names(carried));
    let news = News::at(decision.now, ClockQuality::Synced, None, why);
    decision.raise(&lost(decision.rules, name), heard.at, news);
}

/// The trouble of a device that is not heard any more: a bus has its own.
pub(crate) fn lost(rules: &Rules, device: &Slug) -> Subject {
    Subject::of(device, if is_bus(rules, device) { AlarmKind::BusDown } else { AlarmKind::SensorLost })
}

/// True when something that carries `device` is lost: that explains it.
pub(crate) fn is_carrier_lost(rules: &Rules, book: &Book, device: &Slug) -> bool {
    rules.carriers_of(device).any(|carrier| book.is_active(&lost(rules, carrier)))
}

/// Nobody can tell any more what the doors would say that hang on a lost device.
pub(crate) fn blind(decision: &mut Decision, device: &Slug) {
    let mut doors = decision.rules.carried_by(device);
    doors.push(device);
    let homes = &decision.rules.timing.care.homes;
    for door in doors.into_iter().filter(|door| homes.contains_key(*door)) {
        care::lose_sight(decision, door);
    }
}

/// A lost unit is heard again.
pub(crate) fn heard(decision: &mut Decision, name: &Slug, seen: &Observation) {
    let subject = lost(decision.rules, name);
    let Some(alarm) = decision.book.find(&subject) else { return };
    let lost_ms = ms_between(alarm.data.since, decision.now).max(0);
    let lasted = spoken(lost_ms);
    let why = Why::new(
        RULE,
        format!("设备恢复通信，中断 {}", lasted.zh),
        format!("The device is heard again after {}", lasted.en),
    );
    // Told live, whatever the age of what it says.
    let news = News { sensed_at: decision.now, ..news(seen, why.with("lost_ms", lost_ms)) };
    decision.clear(&subject, news);
}

fn quiet_limit(rules: &Rules, member: &Slug) -> Option<Duration> {
    let supervision = &rules.timing.supervision;
    match rules.device(member).class {
        // The care rule asks much sooner.
        DeviceClass::Door if rules.timing.care.homes.contains_key(member) => None,
        DeviceClass::Door => supervision.door_never_triggered,
        DeviceClass::Smoke | DeviceClass::Sos => supervision.head_never_triggered,
        DeviceClass::Node | DeviceClass::Camera | DeviceClass::Bus => None,
    }
    .filter(|_| supervision.enabled)
}

/// Looks at the members of a unit that is heard: is one of them always quiet?
pub(crate) fn look_for_quiet(decision: &mut Decision, watch: &mut Watch, name: &Slug) {
    let Some((unit, heard)) = watch.get(name).and_then(|unit| Some((unit, unit.heard.as_ref()?))) else { return };
    let mut begun = Vec::new();
    for member in &unit.members {
        let Some(limit) = quiet_limit(decision.rules, member) else { continue };
        match heard.quiet.get(member) {
            None => begun.push(member.clone()),
            Some(since) if has_lasted(*since, decision.now, limit) => quiet(decision, member, *since, limit),
            Some(_) => {}
        }
    }
    for member in begun {
        watch.quiet_since(&member, Some(decision.now));
    }
}

fn quiet(decision: &mut Decision, member: &Slug, since: Timestamp, limit: Duration) {
    let subject = Subject::of(member, AlarmKind::NeverTriggered);
    if decision.book.find(&subject).is_some() {
        return;
    }
    let quiet_ms = ms_between(since, decision.now).max(0);
    let days = quiet_ms / 86_400_000;
    let why = Why::new(
        QUIET_RULE,
        format!("设备在线但 {days} 天从未触发，请检查安装位置或按测试按钮"),
        format!(
            "The device is heard but has not triggered for {days} days: check how it is mounted, or press its test button"
        ),
    );
    let why = why.with("quiet_ms", quiet_ms).with("limit_ms", ms(limit)).with("quiet_since", since.to_string());
    decision.raise(&subject, since, News::at(decision.now, ClockQuality::Synced, None, why));
}

/// A member triggered.
pub(crate) fn triggered(decision: &mut Decision, watch: &mut Watch, seen: &Observation) {
    if quiet_limit(decision.rules, &seen.device).is_none() {
        return;
    }
    watch.quiet_since(&seen.device, Some(decision.now));
    let subject = Subject::of(&seen.device, AlarmKind::NeverTriggered);
    if decision.book.is_active(&subject) {
        let why = Why::new(QUIET_RULE, "设备已触发", "The device has triggered");
        decision.clear(&subject, news(seen, why));
    }
}
