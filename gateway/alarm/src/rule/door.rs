//! Doors left open. Owns the time a door stands open against the limit of that door, by the times the sensor saw, so that the
//! result does not depend on when the news came. Refuses to say who went where: a magnet cannot tell exit from entry.

use std::time::Duration;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;

use super::{Decision, news};
use crate::book::{News, Subject};
use crate::device::{Door, Timer};
use crate::explain::Why;
use crate::observation::Observation;
use crate::rules::Rules;
use crate::time::{after, has_lasted, ms, ms_between, spoken};

const RULE: &str = "door.left_open";

/// Judges a contact's reading.
pub(crate) fn observe(
    decision: &mut Decision,
    door: &mut Option<Door>,
    seen: &Observation,
    open: bool,
    repaired: bool,
) {
    if door.as_ref().is_some_and(|door| door.open == open) {
        return;
    }
    let limit = limit(decision.rules, &seen.device, seen.sensed_at);
    if let Some(before) = door.as_ref().filter(|_| !open) {
        closed(decision, before, seen);
    }
    let timer = limit.filter(|_| open).map(|limit| {
        let mut timer = Timer::start(decision.now, seen.sensed_at, limit);
        if timer.is_due(decision.now) {
            // Told late: the closing may be the next thing the node says.
            timer.hold_until(after(decision.now, decision.rules.timing.backlog_settle));
        }
        timer
    });
    let (clock, origin) = (seen.clock, seen.origin.clone());
    let opened_before = door.as_ref().and_then(|door| door.opened_at);
    let opened_at = if open { Some(seen.sensed_at) } else { opened_before };
    *door = Some(Door { open, changed_at: seen.sensed_at, limit: timer, clock, origin, repaired, opened_at });
}

fn closed(decision: &mut Decision, before: &Door, seen: &Observation) {
    let subject = Subject::of(&seen.device, AlarmKind::DoorLeftOpen);
    let limit = limit(decision.rules, &seen.device, before.changed_at);
    if before.limit.is_some()
        && let Some(limit) = limit
        && has_lasted(before.changed_at, seen.sensed_at, limit)
    {
        // It was over the limit and nobody had asked in time: say so, with the true times.
        left_open(decision, &seen.device, before, after(before.changed_at, limit));
    }
    let open_ms = ms_between(before.changed_at, seen.sensed_at).max(0);
    let lasted = spoken(open_ms);
    let why =
        Why::new(RULE, format!("门已关上，共敞开 {}", lasted.zh), format!("The door was closed after {}", lasted.en));
    decision.clear(&subject, news(seen, why.with("open_ms", open_ms).with("closed_at", seen.sensed_at.to_string())));
}

/// How long a door that was opened at `opened_at` may stand open: its own limit, else that of its home by day or night.
fn limit(rules: &Rules, door: &Slug, opened_at: Timestamp) -> Option<Duration> {
    rules.device(door).left_open_after.or_else(|| {
        let home = rules.timing.care.homes.get(door)?;
        let hours = home.night.clone().unwrap_or_default();
        Some(home.left_open?.limit(&rules.timing.care.zone, &hours, opened_at))
    })
}

/// Raises when the limit has passed.
pub(crate) fn tick(decision: &mut Decision, door: &mut Door, device: &Slug) {
    let Some(due_at) = door.limit.as_ref().filter(|timer| timer.is_due(decision.now)).map(|timer| timer.due_at) else {
        return;
    };
    door.limit = None;
    if limit(decision.rules, device, door.changed_at).is_some() {
        left_open(decision, device, door, due_at);
    }
}

fn left_open(decision: &mut Decision, device: &Slug, door: &Door, at: Timestamp) {
    let subject = Subject::of(device, AlarmKind::DoorLeftOpen);
    let limit_ms = ms(limit(decision.rules, device, door.changed_at).unwrap_or_default());
    let spoken_limit = spoken(i64::try_from(limit_ms).unwrap_or(i64::MAX));
    let why = Why::new(
        RULE,
        format!("门敞开超过 {}", spoken_limit.zh),
        format!("The door has stood open longer than {}", spoken_limit.en),
    );
    let why = why
        .with("limit_ms", limit_ms)
        .with("opened_at", door.changed_at.to_string())
        .with("opening_repaired", door.repaired);
    decision.raise(&subject, door.changed_at, News::at(at, door.clock, door.origin.as_ref(), why));
}
