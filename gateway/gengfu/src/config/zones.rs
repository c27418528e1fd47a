//! Zones of a camera's picture, from text to checked rules.
//!
//! Owns the words of `[[camera.zone]]`: kinds with the limits of the trade, classes, hours. Refuses polygons that are none and classes a
//! kind cannot be about.

use std::time::Duration;

use gengfu_alarm::observation::TrackKind;
use gengfu_alarm::rules::{ZoneKind, ZoneRule};
use gengfu_alarm::{Hours, Window};
use gengfu_contract::event::Location;
use jiff::civil::{Time, Weekday};

use super::Zone;
use super::read::{DAY, SECOND, location};
use super::reader::{Faults, Section};

/// A word for a kind of zone, with what it means unless the zone says otherwise.
struct Word {
    word: &'static str,
    kind: ZoneKind,
    /// `None`: the zone must say it.
    limit_s: Option<u64>,
    warn_s: Option<u64>,
    classes: &'static [TrackKind],
}

const CARS: &[TrackKind] = &[TrackKind::Car, TrackKind::Truck, TrackKind::Bus];
const MOTORS: &[TrackKind] = &[TrackKind::Car, TrackKind::Truck, TrackKind::Bus, TrackKind::Motorcycle];
const CYCLES: &[TrackKind] = &[TrackKind::Bicycle, TrackKind::Motorcycle];

/// Limits as the trade has them: fire lane 60 s; no stopping 60 s warned, 180 s reported; temporary stop 300 s; litter 5 min, bins 10 min.
const WORDS: [Word; 10] = [
    word("illegal_parking", ZoneKind::IllegalParking, None, None, CARS),
    word("fire_lane_blocked", ZoneKind::FireLaneBlocked, Some(60), None, CARS),
    word("no_stopping", ZoneKind::IllegalParking, Some(180), Some(60), CARS),
    word("temporary_stop", ZoneKind::IllegalParking, Some(300), None, CARS),
    word("pavement", ZoneKind::IllegalParking, Some(60), None, MOTORS),
    word("cycle_parking", ZoneKind::CycleParking, Some(600), None, CYCLES),
    word("litter", ZoneKind::Litter, Some(300), None, &[TrackKind::Garbage]),
    word("accumulated_waste", ZoneKind::AccumulatedWaste, Some(7200), None, &[TrackKind::Garbage]),
    word("bin_overflow", ZoneKind::BinOverflow, Some(600), None, &[TrackKind::Overflow]),
    word("waste", ZoneKind::Waste, Some(300), None, &[TrackKind::Garbage, TrackKind::Overflow]),
];

const fn word(
    word: &'static str,
    kind: ZoneKind,
    limit_s: Option<u64>,
    warn_s: Option<u64>,
    classes: &'static [TrackKind],
) -> Word {
    Word { word, kind, limit_s, warn_s, classes }
}

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

pub(super) fn zone(f: &mut Faults, mut s: Section, place: &Location) -> Option<Zone> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"no-parking-east\"");
    let kinds: Vec<(&str, usize)> = WORDS.iter().enumerate().map(|(n, word)| (word.word, n)).collect();
    let kind = s.one_of(f, "kind", &kinds);
    let kind = s.required(f, "kind", kind, "\"illegal_parking\"");
    let polygon = s.polygon(f, "polygon");
    let polygon = s.required(f, "polygon", polygon, "[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0]]");
    let word = kind.and_then(|n| WORDS.get(n));
    let rule = rule(f, &mut s, word);
    let location = location(f, &mut s, place);
    s.finish(f);
    Some(Zone { name: name?, polygon: polygon?, rule: rule?, location })
}

/// Everything about the rule; every key is read whatever the kind, so that all faults show at once.
fn rule(f: &mut Faults, s: &mut Section, word: Option<&Word>) -> Option<ZoneRule> {
    let given = s.duration(f, "limit", SECOND..=7 * DAY);
    let usual = word.and_then(|word| word.limit_s).map(Duration::from_secs);
    let limit = match (word, usual) {
        (Some(_), None) => s.required(f, "limit", given, "\"180s\""),
        _ => given.or(usual),
    };
    let warn = s.duration(f, "warn", SECOND..=DAY);
    let overflow_limit = s.duration(f, "overflow_limit", SECOND..=7 * DAY);
    let clear_after = s.duration(f, "clear_after", 2 * SECOND..=DAY);
    let vehicles = vehicles(f, s);
    let hours = hours(f, s);
    let word = word?;
    let mut rule = ZoneRule::new(word.kind, limit?);
    rule.classes = vehicles.clone().unwrap_or_else(|| word.classes.to_vec());
    rule.warn_after = warn.or(word.warn_s.map(Duration::from_secs)).filter(|warn| *warn < rule.limit);
    rule.overflow_limit = overflow_limit.unwrap_or(rule.overflow_limit);
    rule.clear_after = clear_after.unwrap_or(rule.clear_after);
    rule.hours = hours;
    if warn.is_some_and(|warn| warn >= rule.limit) {
        s.fault(f, "warn", "the warning comes no sooner than the alarm", "choose warn < limit, or leave it out");
    }
    let is_waste = word.kind.is_waste();
    let stray = |key: &'static str, is_given: bool, about: &str, f: &mut Faults| {
        if is_given {
            s.fault(
                f,
                key,
                format!("means nothing in a zone of kind \"{}\"", word.word),
                format!("remove it: it is for {about}"),
            );
        }
    };
    stray("warn", is_waste && warn.is_some(), "zones about vehicles", f);
    stray("vehicles", is_waste && vehicles.is_some(), "zones about vehicles", f);
    stray("overflow_limit", word.kind != ZoneKind::Waste && overflow_limit.is_some(), "kind \"waste\"", f);
    if !is_waste && vehicles.as_ref().is_some_and(|list| !list.iter().any(|class| word.kind.admits(*class))) {
        let fit: Vec<&str> =
            VEHICLES.iter().filter(|(_, class)| word.kind.admits(*class)).map(|(word, _)| *word).collect();
        let problem = format!("nothing in the list can be what \"{}\" is about", word.word);
        s.fault(f, "vehicles", problem, format!("name at least one of {}", fit.join(", ")));
    }
    Some(rule)
}

const VEHICLES: [(&str, TrackKind); 5] = [
    ("car", TrackKind::Car),
    ("truck", TrackKind::Truck),
    ("bus", TrackKind::Bus),
    ("motorcycle", TrackKind::Motorcycle),
    ("bicycle", TrackKind::Bicycle),
];

fn vehicles(f: &mut Faults, s: &mut Section) -> Option<Vec<TrackKind>> {
    s.list(f, "vehicles", "\"car\", \"truck\", \"bus\", \"motorcycle\" or \"bicycle\"", |v| {
        let word = v.as_str()?;
        VEHICLES.iter().find(|(name, _)| *name == word).map(|(_, class)| *class)
    })
}

/// `hours = ["Mon-Fri 07:00-20:00", "22:00-06:00"]`; without it the zone's rule holds always.
fn hours(f: &mut Faults, s: &mut Section) -> Hours {
    let wanted = "weekly hours like \"Mon-Fri 07:00-20:00\", \"Sat,Sun 00:00-24:00\" or \"22:00-06:00\"";
    let windows = s.list(f, "hours", wanted, |v| v.as_str().and_then(window));
    if windows.as_ref().is_some_and(Vec::is_empty) {
        s.fault(
            f,
            "hours",
            "the list is empty: the zone would never forbid anything",
            "name hours, or leave it out for always",
        );
    }
    windows.map_or_else(Hours::always, Hours::of)
}

fn window(text: &str) -> Option<Window> {
    let (days, clock) = match text.trim().rsplit_once(' ') {
        Some((days, clock)) => (days_of(days.trim())?, clock),
        None => (DAYS.map(|(_, day)| day).to_vec(), text.trim()),
    };
    let (begins, ends) = clock.split_once('-')?;
    let begins: Time = time(begins)?;
    let ends = if ends == "24:00" { Time::MIN } else { time(ends)? };
    // Equal times are a whole day, which is only written from midnight to midnight.
    (begins != ends || begins == Time::MIN && clock.ends_with("24:00")).then_some(Window { days, begins, ends })
}

fn time(text: &str) -> Option<Time> {
    let is_clock = text.len() == 5 && text.as_bytes().get(2) == Some(&b':');
    is_clock.then(|| text.parse().ok()).flatten()
}

fn days_of(text: &str) -> Option<Vec<Weekday>> {
    let index = |name: &str| DAYS.iter().position(|(day, _)| *day == name.trim());
    let mut days = Vec::new();
    for part in text.split(',') {
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (index(from)?, index(to)?),
            None => (index(part)?, index(part)?),
        };
        // "Sat-Mon" goes over the end of the week.
        let count = (to + 7 - from) % 7;
        days.extend((0..=count).filter_map(|n| DAYS.get((from + n) % 7)).map(|(_, day)| *day));
    }
    days.sort_by_key(|day| day.to_monday_zero_offset());
    days.dedup();
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekly_hours_are_days_and_a_span() {
        let read = |text: &str| window(text).map(|w| (w.days.len(), w.begins.to_string(), w.ends.to_string()));
        let some = |days, begins: &str, ends: &str| Some((days, begins.to_owned(), ends.to_owned()));
        assert_eq!(read("Mon-Fri 07:00-20:00"), some(5, "07:00:00", "20:00:00"));
        assert_eq!(read("Sat,Sun 00:00-24:00"), some(2, "00:00:00", "00:00:00"));
        assert_eq!(read("Sat-Mon,Wed 22:00-06:00"), some(4, "22:00:00", "06:00:00"));
        assert_eq!(read("22:00-06:30"), some(7, "22:00:00", "06:30:00"));
        for bad in [
            "",
            "Mon",
            "07:00",
            "Mo 07:00-08:00",
            "07:00-07:00",
            "00:00-00:00",
            "7:00-8:00",
            "07:00-25:00",
            "Mon-Fri",
            "Mon 24:00-08:00",
        ] {
            assert_eq!(window(bad), None, "{bad}");
        }
    }
}
