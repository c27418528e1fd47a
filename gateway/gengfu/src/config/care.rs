//! The care rules of a district and of single homes, from text to checked values.

use std::time::Duration;

use gengfu_alarm::policy::{CareRule, LeftOpen, NightRule, NotOpened, RiskTier};
use jiff::civil::Time;
use jiff::tz::{self, TimeZone};

use super::read::{DAY, SECOND};
use super::reader::{Faults, Section};

/// What homes inherit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CareDefaults {
    /// Local time: says what is night.
    pub zone: TimeZone,
    /// Nights.
    pub night: NightRule,
}

impl Default for CareDefaults {
    fn default() -> Self {
        Self { zone: TimeZone::fixed(tz::offset(8)), night: NightRule::default() }
    }
}

/// `[care]`.
pub(super) fn district(f: &mut Faults, section: Option<Section>) -> CareDefaults {
    let mut defaults = CareDefaults::default();
    let Some(mut s) = section else { return defaults };
    let zone = s.parsed(
        f,
        "time_zone",
        "an offset like \"+08:00\", or a name of the system's list like \"Asia/Shanghai\"",
        |v| v.as_str().and_then(zone),
    );
    defaults.zone = zone.unwrap_or(defaults.zone);
    if let Some(n) = s.section(f, "night") {
        defaults.night = night(f, n);
    }
    s.finish(f);
    defaults
}

fn zone(text: &str) -> Option<TimeZone> {
    let fixed = text.strip_prefix(['+', '-']).and_then(|rest| {
        let (hours, minutes) = rest.split_once(':')?;
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let seconds = (hours * 60 + minutes) * 60 * if text.starts_with('-') { -1 } else { 1 };
        let in_range = (0..=14).contains(&hours) && (0..60).contains(&minutes);
        in_range.then(|| tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed)).flatten()
    });
    fixed.or_else(|| TimeZone::get(text).ok())
}

fn night(f: &mut Faults, mut s: Section) -> NightRule {
    let default = NightRule::default();
    let clock = |s: &mut Section, f: &mut Faults, key| {
        s.parsed(f, key, "a local time like \"23:00\"", |v| v.as_str()?.parse::<Time>().ok())
    };
    let begins = clock(&mut s, f, "begins").unwrap_or(default.begins);
    let ends = clock(&mut s, f, "ends").unwrap_or(default.ends);
    if begins == ends {
        s.fault(f, "begins", "the night has no length", "let `begins` and `ends` differ");
    }
    let return_within =
        s.duration(f, "return_within", 60 * SECOND..=6 * 3600 * SECOND).unwrap_or(default.return_within);
    let openings_min =
        s.integer(f, "openings_min", 2..=100).and_then(|n| u32::try_from(n).ok()).unwrap_or(default.openings_min);
    s.finish(f);
    NightRule { begins, ends, return_within, openings_min }
}

/// `care = { … }` of a door.
pub(super) fn home(f: &mut Faults, mut s: Section, defaults: &CareDefaults) -> Option<CareRule> {
    let tiers = [("high", RiskTier::High), ("standard", RiskTier::Standard), ("low", RiskTier::Low)];
    let tier = s.one_of(f, "tier", &tiers).unwrap_or_default();
    let of_tier = NotOpened::of(tier);
    let range = 12 * 3600 * SECOND..=14 * DAY;
    let mut limit = |f: &mut Faults, key| s.duration(f, key, range.clone());
    let given = [limit(f, "yellow"), limit(f, "orange"), limit(f, "red"), limit(f, "longest_first")];
    let own = given.iter().any(Option::is_some);
    let [yellow, orange, red, longest_first] = given;
    let red = red.unwrap_or(of_tier.red);
    // A tier's latest call lies two hours before its visit; a person's own visit moves it along.
    let latest = |red: Duration| of_tier.longest_first.min(red.saturating_sub(7200 * SECOND));
    let limits = NotOpened {
        yellow: yellow.unwrap_or(of_tier.yellow),
        orange: orange.unwrap_or(of_tier.orange),
        red,
        longest_first: longest_first.unwrap_or_else(|| latest(red)),
    };
    if !(limits.yellow < limits.orange && limits.orange < limits.red) {
        s.fault(f, "yellow", "the levels do not follow each other", "choose yellow < orange < red");
    }
    if !(limits.yellow <= limits.longest_first && limits.longest_first < limits.red) {
        s.fault(f, "longest_first", "the latest first call lies outside", "choose yellow <= longest_first < red");
    }
    let open = LeftOpen::default();
    let day = s.duration(f, "left_open", 60 * SECOND..=DAY).unwrap_or(open.day);
    let left_open = LeftOpen { day, night: s.duration(f, "left_open_night", 60 * SECOND..=DAY).unwrap_or(open.night) };
    if left_open.night > left_open.day {
        s.fault(f, "left_open_night", "the night allows more than the day", "choose left_open_night <= left_open");
    }
    let may_stand_open = s.flag(f, "may_stand_open", false);
    let adaptive = s.flag(f, "adaptive", true);
    let watch_nights = s.flag(f, "nights", true);
    s.finish(f);
    Some(CareRule {
        tier,
        limits: own.then_some(limits),
        adaptive,
        night: watch_nights.then(|| defaults.night.clone()),
        left_open: (!may_stand_open).then_some(left_open),
    })
}
