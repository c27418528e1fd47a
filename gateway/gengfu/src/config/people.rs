//! How long people may take, and when the way to them is tested: from text to checked values.
//!
//! Owns `[escalation]` and `[drill]`. Refuses to switch off what asks for a human in a fire.

use std::ops::RangeInclusive;
use std::time::Duration;

use gengfu_alarm::Escalation;
use gengfu_contract::slug::Slug;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::read::{DAY, SECOND};
use super::reader::{Faults, Section};
use super::{DeviceClass, Node};
use crate::decide::DrillPlan;

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// `[escalation]`: an alarm that nobody acknowledged is sent again after this, counted from the centre's receipt.
pub(super) fn escalation(f: &mut Faults, section: Option<Section>) -> Escalation {
    let mut it = Escalation::default();
    let Some(mut s) = section else { return it };
    let life = 15 * SECOND..=600 * SECOND;
    it.fire = s.duration(f, "fire", life.clone()).unwrap_or(it.fire);
    it.emergency = s.duration(f, "emergency", life).unwrap_or(it.emergency);
    // "0s" asks once.
    let mut lane = |key, before, range: RangeInclusive<Duration>| match s.duration(f, key, range) {
        None => before,
        Some(Duration::ZERO) => None,
        Some(within) => Some(within),
    };
    it.care = lane("care", it.care, Duration::ZERO..=3600 * SECOND);
    it.city = lane("city", it.city, Duration::ZERO..=DAY);
    it.trouble = lane("trouble", it.trouble, Duration::ZERO..=DAY);
    it.pause_max = s.duration(f, "pause_max", 60 * SECOND..=DAY).unwrap_or(it.pause_max);
    s.finish(f);
    it
}

/// `[drill]`: every Tuesday at 10:00 unless it says otherwise.
pub(super) fn drill(f: &mut Faults, section: Option<Section>, zone: &TimeZone) -> DrillPlan {
    let usual = (Weekday::Tuesday, Time::constant(10, 0, 0, 0));
    let mut it = DrillPlan { weekly: Some(usual), zone: zone.clone(), ..DrillPlan::default() };
    let Some(mut s) = section else { return it };
    let wanted = "a day and a local time like \"Tue 10:00\", or \"off\"";
    if let Some(weekly) = s.parsed(f, "weekly", wanted, |v| v.as_str().and_then(weekly)) {
        it.weekly = weekly;
    }
    it.receipt_within = s.duration(f, "receipt_within", SECOND..=60 * SECOND).unwrap_or(it.receipt_within);
    it.overdue_after = s.duration(f, "overdue_after", DAY..=60 * DAY).unwrap_or(it.overdue_after);
    let device = |v: &toml::de::DeValue| v.as_str().and_then(|name| Slug::new(name).ok());
    it.devices = s.list(f, "devices", "names of smoke heads in quotes", device).unwrap_or_default();
    s.finish(f);
    it
}

/// The heads of a drill must be smoke heads on nodes: only those have a test button that can be pressed from here.
pub(super) fn check_heads(f: &mut Faults, root: &Section, drill: &DrillPlan, nodes: &[Node]) {
    let is_head = |name: &Slug| {
        nodes.iter().flat_map(|n| n.channels.values()).any(|d| d.class == DeviceClass::Smoke && d.name == *name)
    };
    for name in drill.devices.iter().filter(|name| !is_head(name)) {
        root.fault(
            f,
            "drill",
            format!("\"{name}\" is no smoke head on a node"),
            "name heads of `[[node]]` in drill.devices, or leave it out",
        );
    }
}

fn weekly(text: &str) -> Option<Option<(Weekday, Time)>> {
    if text == "off" {
        return Some(None);
    }
    let (day, time) = text.split_once(' ')?;
    let day = DAYS.iter().find(|(name, _)| *name == day)?.1;
    Some(Some((day, time.trim().parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weekly_time_is_a_day_and_a_clock_or_off() {
        assert_eq!(weekly("Tue 10:00"), Some(Some((Weekday::Tuesday, jiff::civil::time(10, 0, 0, 0)))));
        assert_eq!(weekly("off"), Some(None));
        for bad in ["", "Tue", "10:00", "Tuesday 10:00", "Tue 25:00", "tue 10:00"] {
            assert_eq!(weekly(bad), None, "{bad}");
        }
    }
}
