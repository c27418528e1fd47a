//! Doors at night. Owns two questions: was a door opened and closed and not opened again within the limit, and was it opened far more
//! often than is usual in this home? Refuses to say that somebody left: coming home late looks the same to a magnet, and the
//! texts say so. Night and date are those of the zone that was handed in.

use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;
use jiff::civil::Date;

use super::Decision;
use super::care::Case;
use crate::book::{News, Subject};
use crate::explain::Why;
use crate::home::Night;
use crate::policy::NightRule;
use crate::time::{has_lasted, ms, ms_between, spoken};

const EXIT_RULE: &str = "care.night_exit";
const FREQUENCY_RULE: &str = "care.night_frequency";

/// The door moved at `at`.
pub(crate) fn moved(decision: &mut Decision, case: &mut Case, at: Timestamp, open: bool) {
    let Some(rule) = &case.rule.night else { return };
    let at_night = rule.night_of(&decision.rules.timing.care.zone, at);
    if open {
        case.home.night.passage = None;
        let why = Why::new(EXIT_RULE, "门再次打开", "The door was opened again").with("opened_at", at.to_string());
        let news = News::at(at, case.clock, None, why);
        decision.clear(&Subject::of(case.door, AlarmKind::NightExit), news);
    }
    let Some(date) = at_night else {
        case.home.night.opened_at = None;
        case.home.night.away = false;
        return;
    };
    if case.home.night.date.is_none_or(|current| current < date) {
        begin(case, date);
    }
    if case.home.night.date != Some(date) {
        return;
    }
    let night = &mut case.home.night;
    if open {
        night.openings = night.openings.saturating_add(1);
        night.opened_at = Some(at);
        too_often(decision, case, rule, at);
    } else if let Some(opened_at) = night.opened_at.take() {
        // The first passage may be an exit, the second its return, the third an exit again.
        night.away = !night.away;
        night.passage = night.away.then_some((opened_at, at));
    }
}

fn begin(case: &mut Case, date: Date) {
    let whole = case.home.watched_from.is_some();
    let passage = case.home.night.passage;
    case.home.night = Night { date: Some(date), whole, passage, ..Night::default() };
}

fn too_often(decision: &mut Decision, case: &Case, rule: &NightRule, at: Timestamp) {
    let Some(unusual) = case.rhythm.unusual_openings() else { return };
    let openings = case.home.night.openings;
    let limit = unusual.max(rule.openings_min);
    if openings < limit {
        return;
    }
    let why = Why::new(
        FREQUENCY_RULE,
        format!("今夜已开门 {openings} 次，明显多于平时"),
        format!("The door was opened {openings} times this night, far more often than usual"),
    );
    let why = why.with("openings", openings).with("openings_limit", limit);
    let subject = Subject::of(case.door, AlarmKind::NightFrequency);
    decision.raise(&subject, at, News::at(at, case.clock, None, why));
}

/// Looks at the night after a sign of life of the sensor. Returns true when a night was learned.
pub(crate) fn judge(decision: &mut Decision, case: &mut Case) -> bool {
    let Some(rule) = &case.rule.night else { return false };
    let now = decision.now;
    if let Some((opened_at, closed_at)) = case.home.night.passage
        && has_lasted(closed_at, now, rule.return_within)
    {
        case.home.night.passage = None;
        // Watched without a hole since, so that a second opening would have been seen.
        if case.home.watched_from.is_some_and(|from| from <= closed_at) {
            not_again(decision, case, rule, opened_at, closed_at);
        }
    }
    let tonight = rule.night_of(&decision.rules.timing.care.zone, now);
    let mut learned = false;
    if case.home.night.date.is_some() && case.home.night.date != tonight {
        learned = case.home.night.whole;
        if learned {
            case.rhythm.learn_night(case.home.night.openings);
        }
        let passage = case.home.night.passage;
        case.home.night = Night { passage, ..Night::default() };
        let why = Why::new(FREQUENCY_RULE, "夜间结束", "The night is over");
        let news = News::at(now, case.clock, None, why);
        decision.clear(&Subject::of(case.door, AlarmKind::NightFrequency), news);
    }
    if let Some(date) = tonight.filter(|_| case.home.night.date.is_none()) {
        begin(case, date);
    }
    learned
}

fn not_again(decision: &mut Decision, case: &Case, rule: &NightRule, opened_at: Timestamp, closed_at: Timestamp) {
    let limit_ms = ms(rule.return_within);
    let limit = spoken(i64::try_from(limit_ms).unwrap_or(i64::MAX));
    let local = decision.rules.timing.care.zone.to_datetime(opened_at).strftime("%H:%M").to_string();
    let why = Why::new(
        EXIT_RULE,
        format!("夜间 {local} 开门后 {} 内未再开门；门磁不能区分出门与进门", limit.zh),
        format!(
            "The door was opened at {local} in the night and not again within {}; a magnet cannot tell going out from coming in",
            limit.en
        ),
    );
    let why = why
        .with("opened_at", opened_at.to_string())
        .with("closed_at", closed_at.to_string())
        .with("open_ms", ms_between(opened_at, closed_at).max(0))
        .with("limit_ms", limit_ms);
    let subject = Subject::of(case.door, AlarmKind::NightExit);
    decision.raise(&subject, opened_at, News::at(decision.now, case.clock, None, why));
}

/// Watching stops: this night is not learned, and nobody waits for a return.
pub(crate) fn suspend(case: &mut Case) {
    case.home.night = Night::default();
}
