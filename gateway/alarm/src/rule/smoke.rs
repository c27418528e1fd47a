//! Smoke heads. Owns: smoke and hush raise at once and latch; a test is an alarm of its own that is never the fire
//! one and ends by
//! itself; two heads of one dwelling make smoke certain. Refuses to wait, to count, or to believe that a hush means no smoke.
//!
//! Sources: GB 20517-2025 (a hushed head that still senses smoke is in alarm), CAP 1.2 (status Test, certainty Observed).

use std::time::Duration;

use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus, Certainty};
use jiff::Timestamp;

use super::{Decision, names, news};
use crate::book::{News, Subject};
use crate::device::{SmokeHead, Timer};
use crate::explain::Why;
use crate::observation::{Observation, Smoke};
use crate::time::{ms, ms_between, spoken};

const RULE: &str = "smoke.head";
const TEST_RULE: &str = "smoke.test";
const CONFIRMED_RULE: &str = "smoke.two_heads";
/// No test is longer, whatever is configured: a head must not stay a test while it may burn.
const TEST_LIMIT: Duration = Duration::from_secs(30 * 60);

fn fire(device: &Slug) -> Subject {
    Subject::of(device, AlarmKind::Smoke)
}

fn test(device: &Slug) -> Subject {
    Subject { test: true, ..Subject::of(device, AlarmKind::Smoke) }
}

/// Judges a reading of a head.
pub(crate) fn observe(decision: &mut Decision, head: &mut SmokeHead, seen: &Observation, reading: Smoke) {
    match reading {
        Smoke::Alarm | Smoke::Hushed => {
            burn(decision, head, seen, reading);
            end_test(decision, head, seen, "the head has left its test");
        }
        Smoke::Clear => {
            head.fire = None;
            end_test(decision, head, seen, "the head reports no smoke");
            clear(decision, seen);
        }
        Smoke::Test => begin_test(decision, head, seen),
    }
    head.reading = Some(reading);
}

fn burn(decision: &mut Decision, head: &mut SmokeHead, seen: &Observation, reading: Smoke) {
    let before = head.fire.replace(reading);
    if before == Some(reading) && decision.book.is_active(&fire(&seen.device)) {
        return;
    }
    let why = match reading {
        Smoke::Hushed => Why::new(
            RULE,
            "烟感仍检测到烟雾，已被手动静音",
            "The smoke head was silenced by hand and still senses smoke",
        ),
        _ => Why::new(RULE, "烟感检测到烟雾", "The smoke head senses smoke"),
    };
    let state = if reading == Smoke::Hushed { "hushed" } else { "alarm" };
    let subject = fire(&seen.device);
    let news = news(seen, why.with("reading", state));
    if decision.book.is_active(&subject) {
        // Smoke sounds again after a hush: if a human had acknowledged it, he is asked again.
        if reading == Smoke::Alarm { decision.worsen(&subject, news) } else { decision.update(&subject, news) }
    } else {
        decision.raise(&subject, seen.sensed_at, news);
        confirm(decision, seen);
    }
}

/// Two different heads of one dwelling that sense smoke at once: certainty Observed for both.
fn confirm(decision: &mut Decision, seen: &Observation) {
    let Some(dwelling) = decision.rules.device(&seen.device).dwelling.clone() else { return };
    let heads = decision.book.iter().filter(|alarm| {
        let subject = &alarm.subject;
        subject.kind == AlarmKind::Smoke
            && alarm.data.cap.status == CapStatus::Actual
            && alarm.machine.is_active()
            && decision.rules.device(&subject.device).dwelling.as_ref() == Some(&dwelling)
    });
    let heads: Vec<(Subject, Certainty)> =
        heads.map(|alarm| (alarm.subject.clone(), alarm.data.cap.certainty)).collect();
    if heads.len() < 2 {
        return;
    }
    let devices = names(heads.iter().map(|(subject, _)| &subject.device));
    for (subject, certainty) in heads {
        if certainty == Certainty::Observed {
            continue;
        }
        let (zh, en) = ("同一住户的多个烟感检测到烟雾", "Several smoke heads of one dwelling sense smoke");
        let why = Why::new(CONFIRMED_RULE, zh, en).with("heads", devices.clone());
        let origin = decision.book.find(&subject).and_then(|alarm| alarm.data.origin.clone());
        let news = News { certainty: Some(Certainty::Observed), origin, ..news(seen, why) };
        decision.update(&subject, news);
    }
}

fn clear(decision: &mut Decision, seen: &Observation) {
    let subject = fire(&seen.device);
    let Some(alarm) = decision.book.find(&subject) else { return };
    let lasted_ms = ms_between(alarm.data.since, seen.sensed_at).max(0);
    let lasted = spoken(lasted_ms);
    let why = Why::new(
        RULE,
        format!("烟感不再检测到烟雾，历时 {}；须人工复位", lasted.zh),
        format!("The smoke head senses no smoke any more, after {}; a reset is due", lasted.en),
    );
    decision.clear(&subject, news(seen, why.with("lasted_ms", lasted_ms)));
}

fn begin_test(decision: &mut Decision, head: &mut SmokeHead, seen: &Observation) {
    if head.test.is_some() {
        return;
    }
    let longest = decision.rules.timing.smoke_test_max.min(TEST_LIMIT);
    head.test = Some(Timer::start(decision.now, decision.now, longest));
    let why =
        Why::new(TEST_RULE, "烟感测试按钮被按下，这是测试", "The smoke head's test button was pressed; this is a test");
    decision.raise(&test(&seen.device), seen.sensed_at, news(seen, why.with("test_max_ms", ms(longest))));
}

fn end_test(decision: &mut Decision, head: &mut SmokeHead, seen: &Observation, because: &str) {
    if head.test.take().is_some() {
        let why = Why::new(TEST_RULE, "烟感测试结束", format!("The test is over: {because}"));
        decision.clear(&test(&seen.device), news(seen, why));
    }
}

/// Ends a test that nobody ended.
pub(crate) fn tick(decision: &mut Decision, head: &mut SmokeHead, device: &Slug) {
    let Some(due_at) = head.test.as_ref().filter(|timer| timer.is_due(decision.now)).map(|timer| timer.due_at) else {
        return;
    };
    head.test = None;
    let subject = test(device);
    let clock = decision.book.find(&subject).map_or(ClockQuality::Unsynced, |alarm| alarm.data.clock);
    let why = Why::new(TEST_RULE, "烟感测试超时，自动结束", "The test has reached its longest time and ends by itself");
    let sensed_at: Timestamp = due_at.min(decision.now);
    decision.clear(&subject, News::at(sensed_at, clock, None, why));
}
