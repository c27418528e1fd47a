//! How long a silence may last: of a sensor, and of a home.
//!
//! Owns the parameters of supervision and of the care rules, with their defaults, and who watches whom. Refuses to
//! judge: `supervise`, `home` and the rules do.
//!
//! Sources: EN 54-25 (radio component of a fire alarm lost ≤ 300 s), EN 50131-1 grade 2 (wireless device missing ≤ 2 h);
//! limits of care and night hours as the district's care service uses them.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::slug::Slug;
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{TimeZone, offset};

use crate::rules::{DeviceClass, DeviceRule};
use crate::time::after;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// After what silence a device is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SupervisionClass {
    /// 300 s: smoke.
    S1,
    /// 2 h: doors and buttons.
    S2,
    /// 25 h: what sends one heartbeat a day; nodes without anything urgent.
    S3,
}

impl SupervisionClass {
    /// Every class, the strictest first.
    pub const ALL: [SupervisionClass; 3] = [SupervisionClass::S1, SupervisionClass::S2, SupervisionClass::S3];

    /// The word of a profile and on the wire: `S1`, `S2`, `S3`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SupervisionClass::S1 => "S1",
            SupervisionClass::S2 => "S2",
            SupervisionClass::S3 => "S3",
        }
    }

    /// The longest silence.
    #[must_use]
    pub fn interval(self) -> Duration {
        match self {
            SupervisionClass::S1 => Duration::from_secs(300),
            SupervisionClass::S2 => 2 * HOUR,
            SupervisionClass::S3 => 25 * HOUR,
        }
    }

    /// The class of a device that is not told otherwise; `None` for cameras, which have their own rule, and
    /// for a bus, which is as quiet as what it carries.
    #[must_use]
    pub fn of(class: DeviceClass) -> Option<Self> {
        match class {
            DeviceClass::Smoke => Some(SupervisionClass::S1),
            DeviceClass::Door | DeviceClass::Sos => Some(SupervisionClass::S2),
            DeviceClass::Node => Some(SupervisionClass::S3),
            DeviceClass::Camera | DeviceClass::Bus => None,
        }
    }
}

/// What differs for one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supervised {
    /// Its class here, when it is neither that of its kind nor that of its profile (`DeviceRule::supervision`).
    pub class: Option<SupervisionClass>,
    /// True for a device that must be heard itself although a node carries it: a radio sensor behind one. A channel wired
    /// to a node (the default) is heard when its node is; what hangs on a bus must be heard itself anyway.
    pub by_itself: bool,
}

impl Supervision {
    /// The class that holds for a device: what is told for it here, else by its profile, else by its kind.
    #[must_use]
    pub fn class_of(&self, device: &Slug, rule: &DeviceRule) -> Option<SupervisionClass> {
        let special = self.devices.get(device).and_then(|special| special.class);
        special.or(rule.supervision).or_else(|| SupervisionClass::of(rule.class))
    }
}

/// Supervision of all devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervision {
    /// Default true. When false nothing is ever lost by silence; coverage is still counted.
    pub enabled: bool,
    /// What differs, by device.
    pub devices: BTreeMap<Slug, Supervised>,
    /// A door without a care rule that has never moved for this long is worth a look. Default 14 days; `None`: never say so.
    pub door_never_triggered: Option<Duration>,
    /// The same for smoke heads and buttons, whose test button counts as triggering. Default 365 days.
    pub head_never_triggered: Option<Duration>,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            enabled: true,
            devices: BTreeMap::new(),
            door_never_triggered: Some(14 * DAY),
            head_never_triggered: Some(365 * DAY),
        }
    }
}

/// How soon somebody should look after a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RiskTier {
    /// Frail, ill, has fallen before: 18 / 36 / 48 h; learned at most 46 h.
    High,
    /// 24 / 36 / 48 h; learned at most 46 h.
    #[default]
    Standard,
    /// Sturdy and known to stay in for days: 36 / 48 / 72 h; learned at most 70 h.
    Low,
}

/// For how long a door may stay unopened, in covered time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOpened {
    /// First level: a call.
    pub yellow: Duration,
    /// Second level.
    pub orange: Duration,
    /// Third level: a visit. Nothing learned ever moves it.
    pub red: Duration,
    /// The latest first level that learning may choose. Before red, so that a call always comes before a visit.
    pub longest_first: Duration,
}

impl NotOpened {
    /// The limits of a tier. Every red is a whole number of days: 48 h after a door was last opened in the morning
    /// it is morning, when a call can be made before somebody goes there.
    #[must_use]
    pub fn of(tier: RiskTier) -> Self {
        let (yellow, orange, red, longest_first) = match tier {
            RiskTier::High => (18, 36, 48, 46),
            RiskTier::Standard => (24, 36, 48, 46),
            RiskTier::Low => (36, 48, 72, 70),
        };
        let hours = |n: u32| n * HOUR;
        Self { yellow: hours(yellow), orange: hours(orange), red: hours(red), longest_first: hours(longest_first) }
    }

    /// The second level when the first one lies at `first`: as configured, or half way to red when that is later.
    #[must_use]
    pub fn orange_after(&self, first: Duration) -> Duration {
        let half_way = first.saturating_add(self.red.saturating_sub(first) / 2);
        self.orange.max(half_way).min(self.red)
    }
}

/// When is night, and what is unusual in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NightRule {
    /// Begin, local time. Default 23:00.
    pub begins: Time,
    /// End, local time. Default 05:00. Must differ from the begin; may lie before it.
    pub ends: Time,
    /// A door that was opened and closed at night and is not opened again within this is an alarm. Default 30 min.
    pub return_within: Duration,
    /// Fewer openings than this in one night are never too many. Default 4: out and back, twice.
    pub openings_min: u32,
}

impl Default for NightRule {
    fn default() -> Self {
        Self {
            begins: Time::constant(23, 0, 0, 0),
            ends: Time::constant(5, 0, 0, 0),
            return_within: HOUR / 2,
            openings_min: 4,
        }
    }
}

/// For how long a home's door may stand open, where [`crate::DeviceRule::left_open_after`] does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOpen {
    /// By day. Default 15 min.
    pub day: Duration,
    /// At night, in the hours of the [`NightRule`] (23:00 to 05:00 when the home has none). Default 5 min. A door that was
    /// opened before the night is told when it is night and this has passed.
    pub night: Duration,
}

impl Default for LeftOpen {
    fn default() -> Self {
        Self { day: Duration::from_secs(15 * 60), night: Duration::from_secs(5 * 60) }
    }
}

impl LeftOpen {
    /// How long a door that was opened at `opened_at` may stand open.
    #[must_use]
    pub fn limit(&self, zone: &TimeZone, night: &NightRule, opened_at: Timestamp) -> Duration {
        let soonest = after(opened_at, self.night);
        if self.night >= self.day || night.night_of(zone, soonest).is_some() {
            return self.night.min(self.day);
        }
        let today = zone.to_datetime(soonest).date();
        let begins = [Some(today), today.tomorrow().ok()].into_iter().flatten();
        let begins = begins.filter_map(|date| zone.to_timestamp(date.to_datetime(night.begins)).ok());
        let until_night = begins.filter(|at| *at > soonest).map(|at| at.duration_since(opened_at)).min();
        let until_night = until_night.and_then(|span| Duration::try_from(span).ok());
        until_night.map_or(self.day, |span| span.min(self.day))
    }
}

impl NightRule {
    /// The evening's date of the night that `at` lies in; `None` by day.
    #[must_use]
    pub fn night_of(&self, zone: &TimeZone, at: Timestamp) -> Option<Date> {
        let local = zone.to_datetime(at);
        let (date, time) = (local.date(), local.time());
        if self.begins <= self.ends {
            return (self.begins <= time && time < self.ends).then_some(date);
        }
        if time >= self.begins {
            return Some(date);
        }
        (time < self.ends).then(|| date.yesterday().unwrap_or(date))
    }
}

/// What is watched for one home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CareRule {
    /// Gives the limits, unless `limits` does.
    pub tier: RiskTier,
    /// This person's own limits.
    pub limits: Option<NotOpened>,
    /// Learn the home's rhythm and let it set the first level. Default true.
    pub adaptive: bool,
    /// Night rules; `None`: nights are not watched.
    pub night: Option<NightRule>,
    /// How long the door may stand open; `None`: it may stand open. Default 15 min by day and 5 min at night.
    pub left_open: Option<LeftOpen>,
}

impl Default for CareRule {
    fn default() -> Self {
        let (night, left_open) = (Some(NightRule::default()), Some(LeftOpen::default()));
        Self { tier: RiskTier::Standard, limits: None, adaptive: true, night, left_open }
    }
}

impl CareRule {
    /// The limits that hold.
    #[must_use]
    pub fn limits(&self) -> NotOpened {
        self.limits.unwrap_or_else(|| NotOpened::of(self.tier))
    }
}

/// The care rules of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Care {
    /// The homes, each named by the magnet on its door. A door that is not here has no care rule.
    pub homes: BTreeMap<Slug, CareRule>,
    /// Where the homes are: says what is night and which weekday it is. Handed in, never looked up. Default UTC+8 all
    /// year, as in all of China since 1991.
    pub zone: TimeZone,
}

impl Default for Care {
    fn default() -> Self {
        Self { homes: BTreeMap::new(), zone: TimeZone::fixed(offset(8)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_each_other_whatever_is_learned() {
        for tier in [RiskTier::High, RiskTier::Standard, RiskTier::Low] {
            let limits = NotOpened::of(tier);
            assert!(limits.yellow < limits.orange && limits.orange < limits.red);
            let mut first = 12 * HOUR;
            while first <= limits.longest_first {
                let orange = limits.orange_after(first);
                assert!(first < orange && orange < limits.red, "{tier:?} {first:?} {orange:?}");
                first += HOUR / 4;
            }
        }
        let odd = NotOpened { yellow: 5 * HOUR, orange: HOUR, red: HOUR, longest_first: HOUR };
        assert_eq!((odd.longest_first, odd.orange_after(5 * HOUR)), (HOUR, HOUR), "a wrong order does not panic");
    }
}
