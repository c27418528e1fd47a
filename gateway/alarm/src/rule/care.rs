//! Homes whose door is not opened. Owns one alarm per home that rises from yellow to red, revision by revision, by the covered time of
//! the home's clock. Refuses to say who is where: a magnet tells only that the door stayed closed. Judged when the
//! sensor gives a sign of life, never by a timer: silence proves nothing.

use std::time::Duration;

use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CareLevel};
use jiff::Timestamp;

use super::{Decision, night};
use crate::book::{News, Subject};
use crate::explain::Why;
use crate::home::{Began, Home, PauseKind};
use crate::observation::Observation;
use crate::policy::CareRule;
use crate::rhythm::{FIRST_MIN, First, Rhythm};
use crate::time::{ms, ms_between, spoken};

const RULE: &str = "care.not_opened";
/// A gap with less than this not covered is still a whole one to learn from.
const WHOLE_GAP_TOLERANCE_MS: i64 = 60_000;

/// One home being judged.
pub(crate) struct Case<'a> {
    pub door: &'a Slug,
    pub rule: &'a CareRule,
    pub home: &'a mut Home,
    pub rhythm: &'a mut Rhythm,
    /// Last sign of life of its sensor.
    pub heard_at: Timestamp,
    pub clock: ClockQuality,
}

/// Covered time until each level, for the gap that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub first: Duration,
    pub orange: Duration,
    pub red: Duration,
    pub learned: bool,
}

/// What a home's limits are for a gap that began at `since`.
pub(crate) fn limits(decision_zone: &jiff::tz::TimeZone, rule: &CareRule, rhythm: &Rhythm, since: Timestamp) -> Limits {
    let policy = rule.limits();
    let fixed = First { limit: policy.yellow, learned: false };
    let first = if rule.adaptive { rhythm.first_level(decision_zone.to_datetime(since), &policy) } else { fixed };
    Limits { first: first.limit, orange: policy.orange_after(first.limit), red: policy.red, learned: first.learned }
}

/// No level of any gap of this home comes sooner than this: most signs of life need no more than a look.
fn soonest_ms(rule: &CareRule) -> i64 {
    let limits = rule.limits();
    let soonest = limits.yellow.min(limits.orange).min(limits.red).min(limits.longest_first).min(FIRST_MIN);
    i64::try_from(ms(soonest)).unwrap_or(i64::MAX)
}

impl Limits {
    fn level(&self, covered_ms: i64) -> Option<CareLevel> {
        let over = |limit: Duration| u64::try_from(covered_ms).is_ok_and(|covered_ms| covered_ms >= ms(limit));
        [(CareLevel::Red, self.red), (CareLevel::Orange, self.orange), (CareLevel::Yellow, self.first)]
            .into_iter()
            .find(|(_, limit)| over(*limit))
            .map(|(level, _)| level)
    }
}

/// The door moved. Returns true when something was learned.
pub(crate) fn moved(decision: &mut Decision, case: &mut Case, seen: &Observation, open: bool) -> bool {
    let home = &mut *case.home;
    let was_closed = home.open == Some(false);
    home.open = Some(open);
    if home.pause.as_ref().is_some_and(|pause| decision.now < pause.until) {
        return false;
    }
    let at = seen.sensed_at.min(decision.now);
    // Told late, and older than what set the clock: it changes nothing.
    if at <= home.since {
        return false;
    }
    // A gap that somebody had to end by going there is not this home's rhythm.
    let ordinary = open && was_closed && home.level != Some(CareLevel::Red);
    let gap = home.gap_from.filter(|_| ordinary).map(|from| (from, ms_between(from, at)));
    let whole = |(from, gap_ms): &(Timestamp, i64)| {
        gap_ms - home.covered_between_ms(*from, at, case.heard_at) <= WHOLE_GAP_TOLERANCE_MS
    };
    let gap = gap.filter(whole);
    if let Some((from, gap_ms)) = gap {
        let zone = &decision.rules.timing.care.zone;
        case.rhythm.learn(zone.to_datetime(from), zone.to_datetime(at), gap_ms);
    }
    let learn = gap.is_some();
    home.begin(at, Began::Door);
    if !open {
        home.watched_from.get_or_insert(decision.now);
    }
    night::moved(decision, case, at, open);
    learn
}

/// Judges a home after a sign of life of its sensor. Returns true when its rhythm changed.
pub(crate) fn judge(decision: &mut Decision, case: &mut Case) -> bool {
    if let Some(pause) = &case.home.pause {
        if decision.now < pause.until {
            night::suspend(case);
            return false;
        }
        let until = pause.until;
        case.home.pause = None;
        case.home.begin(until, Began::Pause);
    }
    let learned = night::judge(decision, case);
    let covered_ms = case.home.covered_ms(decision.now, case.heard_at);
    if case.home.level.is_none() && covered_ms < soonest_ms(case.rule) {
        return learned;
    }
    let limits = limits(&decision.rules.timing.care.zone, case.rule, case.rhythm, case.home.since);
    let level = limits.level(covered_ms).filter(|_| case.home.open != Some(true));
    let before = std::mem::replace(&mut case.home.level, level);
    let subject = Subject::of(case.door, AlarmKind::NotOpened);
    match (level, before) {
        (None, None) => {}
        (None, Some(_)) => ended(decision, case, &subject),
        (Some(level), before) => {
            let unknown = before == Some(level) && !decision.book.is_known(&subject);
            if before == Some(level) && !unknown {
                return learned;
            }
            let why = why(decision, case, level, &limits, covered_ms);
            let news = News { cap: Some(level.cap()), ..News::at(decision.now, case.clock, None, why) };
            match before {
                None => decision.raise(&subject, case.home.since, news),
                Some(before) if level > before => decision.worsen(&subject, news),
                Some(before) if level < before => decision.update(&subject, news),
                Some(_) => decision.raise(&subject, case.home.since, news),
            }
        }
    }
    learned
}

fn why(decision: &Decision, case: &Case, level: CareLevel, limits: &Limits, covered_ms: i64) -> Why {
    let elapsed_ms = ms_between(case.home.since, decision.now).max(0);
    let (elapsed, covered, named) = (spoken(elapsed_ms), spoken(covered_ms), level.title());
    let percent = (i128::from(covered_ms) * 100 / i128::from(elapsed_ms.max(1))).clamp(0, 100);
    let why = Why::new(
        RULE,
        format!(
            "已 {} 未开门（其中受监测 {}），达到{}级；门磁只能说明门未打开，不能判断人在室内还是室外",
            elapsed.zh, covered.zh, named.zh
        ),
        format!(
            "The door was not opened for {} ({} of it watched): level {}. The magnet tells only that the door stayed closed, not where anybody is",
            elapsed.en, covered.en, named.en
        ),
    );
    why.with("level", level.as_str())
        .with("not_opened_since", case.home.since.to_string())
        .with("elapsed_ms", elapsed_ms)
        .with("covered_ms", covered_ms)
        .with("coverage_percent", i64::try_from(percent).unwrap_or(0))
        .with("yellow_ms", ms(limits.first))
        .with("orange_ms", ms(limits.orange))
        .with("red_ms", ms(limits.red))
        .with("learned", limits.learned)
        .with("learned_days", case.rhythm.learned_days)
}

fn ended(decision: &mut Decision, case: &Case, subject: &Subject) {
    let since = case.home.since;
    let (zh, en) = match case.home.began {
        Began::Door => ("门有开关动作，未开门报警解除", "The door was moved: it is no longer unopened"),
        Began::Call => ("已电话联系到本人，重新计时", "The person answered a call: the clock began again"),
        Began::Pause => ("监测暂停后重新计时", "The clock began again after a pause"),
        Began::Watching => ("重新开始监测", "Watching began again"),
    };
    let why = Why::new(RULE, zh, en).with("moved_at", since.to_string());
    decision.clear(subject, News::at(since.min(decision.now), case.clock, None, why));
}

/// The sensor is lost: whether the door is opened now, nobody can tell.
pub(crate) fn lose_sight(decision: &mut Decision, door: &Slug) {
    let why = Why::new(
        RULE,
        "门磁失联，无法判断门是否打开",
        "The door's sensor is lost: whether the door is opened cannot be told",
    );
    let news = News::at(decision.now, ClockQuality::Synced, None, why);
    decision.lose_sight(&Subject::of(door, AlarmKind::NotOpened), news);
}

/// A pause begins: what was open about this home is explained.
pub(crate) fn paused(decision: &mut Decision, case: &mut Case, kind: PauseKind, until: Timestamp) {
    case.home.level = None;
    let answered = kind == PauseKind::Call && until <= decision.now;
    case.home.begin(decision.now.max(until), if answered { Began::Call } else { Began::Pause });
    night::suspend(case);
    let (zh, en) = match kind {
        PauseKind::Absence => ("本人外出，暂停监测", "The person is away: watching is paused"),
        PauseKind::Visit => ("已上门探访", "Somebody was with the person"),
        PauseKind::Call => ("已电话联系到本人", "The person answered a call"),
    };
    let subjects = [AlarmKind::NotOpened, AlarmKind::NightExit, AlarmKind::NightFrequency];
    for subject in subjects.map(|kind| Subject::of(case.door, kind)) {
        let why = Why::new("care.pause", zh, en).with("until", until.to_string());
        decision.clear(&subject, News::at(decision.now, case.clock, None, why));
    }
}
