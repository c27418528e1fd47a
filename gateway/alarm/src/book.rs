//! The book of open alarms.
//!
//! Owns every alarm from raise to over: its data, its state machine, its revision, and which entry must be written down
//! after a change. Every event of an alarm is made here, so that `rev` has no gap and an alarm that is over is never
//! heard of again.
//! Refuses to know why: rules bring the cause and the explanation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gengfu_contract::event::{AlarmData, ClockQuality, EventType, EvidenceRef, Origin, SideState};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus, Certainty, Condition, Lane, Severity, Urgency};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::case::Cases;
use crate::condition::{Ending, Machine, Wish};
use crate::drill;
use crate::escalate::Call;
use crate::explain::Why;
use crate::id::alarm_id;
use crate::output::Transition;
use crate::rules::Rules;
use crate::sides::{Sides, is_quiet};
use crate::time::ms;

/// How many ids of alarms that are over are remembered, to answer a repeated command.
const OVER_REMEMBERED: usize = 64;

/// What an alarm is about: at most one open alarm has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub device: Slug,
    pub kind: AlarmKind,
    /// A technical test is never the real thing.
    pub test: bool,
    pub zone: Option<Slug>,
    /// Number of the vehicle's spot or of the litter's heap, for scene alarms.
    pub spot: Option<u64>,
}

impl Subject {
    pub fn of(device: &Slug, kind: AlarmKind) -> Self {
        Self { device: device.clone(), kind, test: false, zone: None, spot: None }
    }
}

/// One open alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    pub subject: Subject,
    pub machine: Machine,
    pub data: AlarmData,
    /// How far its call for a human is.
    #[serde(default)]
    pub call: Call,
}

/// What is new with one event of an alarm.
#[derive(Debug, Clone)]
pub(crate) struct News {
    /// When what led to it was sensed.
    pub sensed_at: Timestamp,
    pub clock: ClockQuality,
    pub origin: Option<Origin>,
    pub why: Option<Why>,
    pub certainty: Option<Certainty>,
    /// CAP words that change with the alarm's level.
    pub cap: Option<(Urgency, Severity)>,
    pub confidence: Option<f32>,
    pub evidence: Vec<EvidenceRef>,
}

impl News {
    pub fn at(sensed_at: Timestamp, clock: ClockQuality, origin: Option<&Origin>, why: Why) -> Self {
        let origin = origin.cloned();
        let evidence = Vec::new();
        Self { sensed_at, clock, origin, why: Some(why), certainty: None, cap: None, confidence: None, evidence }
    }
}

/// Counters and short memories that are not an alarm's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Alarms given an id so far.
    pub raised: u64,
    /// Spots numbered so far.
    pub spots: u64,
    /// Alarms that are over, newest last.
    pub over: VecDeque<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    alarms: BTreeMap<String, Alarm>,
    subjects: BTreeMap<Subject, String>,
    ledger: Ledger,
    dirty: BTreeSet<String>,
    ledger_dirty: bool,
    sides: Sides,
    /// Cases and what is remembered of alarms that are over.
    pub cases: Cases,
}

impl Book {
    /// What does not count now.
    pub fn sides(&self) -> &Sides {
        &self.sides
    }

    pub fn sides_mut(&mut self) -> &mut Sides {
        &mut self.sides
    }

    /// An id for an alarm that is decided at `now`.
    pub fn next_id(&mut self, rules: &Rules, now: Timestamp, subject: &Subject) -> String {
        self.ledger.raised += 1;
        self.ledger_dirty = true;
        alarm_id(&rules.gateway, &subject.device, subject.zone.as_ref(), subject.kind, now, self.ledger.raised)
    }

    /// A number for a spot, never used before.
    pub fn next_spot(&mut self) -> u64 {
        self.ledger.spots += 1;
        self.ledger_dirty = true;
        self.ledger.spots
    }

    /// The open alarm about `subject`.
    pub fn find(&self, subject: &Subject) -> Option<&Alarm> {
        self.alarms.get(self.subjects.get(subject)?)
    }

    /// True while the cause of the alarm about `subject` is there.
    pub fn is_active(&self, subject: &Subject) -> bool {
        self.find(subject).is_some_and(|alarm| alarm.machine.is_active())
    }

    /// True unless nobody can tell whether the cause of an open alarm is there.
    pub fn is_known(&self, subject: &Subject) -> bool {
        self.find(subject).is_none_or(|alarm| alarm.machine.condition() != Condition::Unknown)
    }

    pub fn get(&self, alarm_id: &str) -> Option<&Alarm> {
        self.alarms.get(alarm_id)
    }

    pub fn is_over(&self, alarm_id: &str) -> bool {
        self.ledger.over.iter().any(|id| id == alarm_id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.values()
    }

    /// The cause is there: begins an alarm under `id`, or brings back an open one about the same subject; `None` when
    /// that one is active already.
    pub fn raise(
        &mut self,
        rules: &Rules,
        now: Timestamp,
        subject: &Subject,
        since: Timestamp,
        id: Option<String>,
        news: News,
    ) -> Option<Transition> {
        if let Some(open) = self.subjects.get(subject).cloned() {
            return self.step(now, &open, Machine::activate, news);
        }
        let id = id.unwrap_or_else(|| self.next_id(rules, now, subject));
        let mut data = begin(rules, now, subject, since, id.clone(), news.clone());
        let side = self.sides.of(subject);
        let is_test = side.as_ref().is_some_and(|side| side.state == SideState::Test);
        if is_test {
            data.cap.status = CapStatus::Test;
        }
        // Nobody is asked about what begins as a test or out of sight, so it ends by itself.
        let machine = Machine::raised(Ending::of(subject.kind, subject.test || is_test || is_quiet(side.as_ref())));
        let mut alarm = Alarm { subject: subject.clone(), machine, data, call: Call::default() };
        let transition = alarm.event(now, EventType::AlarmRaised, news, &self.sides);
        self.subjects.insert(subject.clone(), id.clone());
        self.alarms.insert(id.clone(), alarm);
        self.dirty.insert(id);
        Some(transition)
    }

    /// The cause came once more while it is there.
    pub fn raise_again(&mut self, now: Timestamp, subject: &Subject, news: News) -> Option<Transition> {
        let id = self.subjects.get(subject)?.clone();
        self.step(now, &id, Machine::activate_again, news)
    }

    /// It is worse than it was told: if a human had acknowledged it, he is asked again.
    pub fn worsen(&mut self, now: Timestamp, subject: &Subject, news: News) -> Option<Transition> {
        let id = self.subjects.get(subject)?.clone();
        let transition = self.step(now, &id, Machine::worsen, news)?;
        if transition.event_type == EventType::AlarmUpdated
            && let Some(alarm) = self.alarms.get_mut(&id).filter(|alarm| alarm.asks())
        {
            // Nobody has answered the lesser call either: the time for this one begins anew.
            alarm.call = Call::by(alarm.data.rev);
        }
        Some(transition)
    }

    /// Its data changed.
    pub fn update(&mut self, now: Timestamp, subject: &Subject, news: News) -> Option<Transition> {
        let id = self.subjects.get(subject)?.clone();
        self.step(now, &id, |_| Some(EventType::AlarmUpdated), news)
    }

    /// The cause is gone.
    pub fn clear(&mut self, now: Timestamp, subject: &Subject, news: News) -> Option<Transition> {
        let id = self.subjects.get(subject)?.clone();
        self.step(now, &id, Machine::clear, news)
    }

    /// Nobody can tell whether the cause is there.
    pub fn lose_sight(&mut self, now: Timestamp, subject: &Subject, news: News) -> Option<Transition> {
        let id = self.subjects.get(subject)?.clone();
        self.step(now, &id, Machine::lose_sight, news)
    }

    /// Ends an alarm whose device or zone is no longer configured.
    pub fn end(&mut self, now: Timestamp, alarm_id: &str, news: News) -> Option<Transition> {
        self.step(now, alarm_id, Machine::end, news)
    }

    /// A human's wish for an open alarm; `None` when it is not open here.
    pub fn wish(
        &mut self,
        now: Timestamp,
        alarm_id: &str,
        operator: &str,
        wish: impl FnOnce(&mut Machine) -> Wish,
    ) -> Option<(Wish, Option<Transition>)> {
        let alarm = self.alarms.get_mut(alarm_id)?;
        let wish = wish(&mut alarm.machine);
        let Wish::Changed(event_type) = wish else { return Some((wish, None)) };
        alarm.data.operator = Some(operator.to_owned());
        let news = alarm.no_news(now);
        let transition = alarm.event(now, event_type, news, &self.sides);
        self.written(alarm_id);
        Some((wish, Some(transition)))
    }

    fn step(
        &mut self,
        now: Timestamp,
        alarm_id: &str,
        step: impl FnOnce(&mut Machine) -> Option<EventType>,
        news: News,
    ) -> Option<Transition> {
        let alarm = self.alarms.get_mut(alarm_id)?;
        let event_type = step(&mut alarm.machine)?;
        let transition = alarm.event(now, event_type, news, &self.sides);
        self.written(alarm_id);
        Some(transition)
    }

    /// An event of an open alarm that no observation led to: times and reasons stay as they are.
    pub fn tell(
        &mut self,
        now: Timestamp,
        alarm_id: &str,
        change: impl FnOnce(&mut Alarm) -> Option<EventType>,
    ) -> Option<Transition> {
        let alarm = self.alarms.get_mut(alarm_id)?;
        let event_type = change(alarm)?;
        let news = alarm.no_news(now);
        let transition = alarm.event(now, event_type, news, &self.sides);
        self.written(alarm_id);
        Some(transition)
    }

    /// Nobody answered in time: the same alarm again, one higher.
    pub fn escalate(&mut self, rules: &Rules, now: Timestamp, alarm_id: &str) -> Option<Transition> {
        self.tell(now, alarm_id, |alarm| {
            let waited = rules.timing.escalation.pause(alarm.subject.kind.lane(), alarm.call.step)?;
            alarm.data.escalation = alarm.data.escalation.saturating_add(1);
            alarm.call.step = alarm.call.step.saturating_add(1);
            alarm.data.explanation.inputs.insert("unanswered_ms".to_owned(), ms(waited).into());
            Some(EventType::AlarmEscalated)
        })
    }

    /// Changes the wait of an open alarm; `change` says whether it did.
    pub fn change_call(&mut self, alarm_id: &str, change: impl FnOnce(Lane, &mut Call) -> bool) {
        if let Some(alarm) = self.alarms.get_mut(alarm_id)
            && change(alarm.subject.kind.lane(), &mut alarm.call)
        {
            self.dirty.insert(alarm_id.to_owned());
        }
    }

    /// The clock was set by `by`: what waits moves with it.
    pub fn shift(&mut self, by: SignedDuration) {
        for (id, alarm) in &mut self.alarms {
            if alarm.call.shift(by) {
                self.dirty.insert(id.clone());
            }
        }
    }

    /// After a clock that was set back, or a restart.
    pub fn rein(&mut self, now: Timestamp) {
        for (id, alarm) in &mut self.alarms {
            if alarm.call.rein(now) {
                self.dirty.insert(id.clone());
            }
        }
        self.sides.rein(now);
    }

    /// Notes that an entry changed, and takes it out when it is over.
    fn written(&mut self, alarm_id: &str) {
        self.dirty.insert(alarm_id.to_owned());
        if self.alarms.get(alarm_id).is_some_and(|alarm| !alarm.machine.condition().is_open())
            && let Some(alarm) = self.alarms.remove(alarm_id)
        {
            self.subjects.remove(&alarm.subject);
            self.cases.is_over(&alarm.data);
            self.ledger.over.push_back(alarm_id.to_owned());
            while self.ledger.over.len() > OVER_REMEMBERED {
                self.ledger.over.pop_front();
            }
            self.ledger_dirty = true;
        }
    }

    /// Takes back what was written down. Of two alarms about one subject the first is kept and `false` is returned.
    pub fn take_back(&mut self, alarm: Alarm) -> bool {
        if self.subjects.contains_key(&alarm.subject) || !alarm.machine.condition().is_open() {
            self.dirty.insert(alarm.data.alarm_id);
            return false;
        }
        let mut alarm = alarm;
        // Written by a version that did not ask.
        if alarm.asks() && alarm.call.rev == 0 {
            alarm.call = Call::by(alarm.data.rev);
            self.dirty.insert(alarm.data.alarm_id.clone());
        }
        self.subjects.insert(alarm.subject.clone(), alarm.data.alarm_id.clone());
        self.alarms.insert(alarm.data.alarm_id.clone(), alarm);
        true
    }

    pub fn take_back_ledger(&mut self, ledger: Ledger) {
        self.ledger = ledger;
    }

    /// Makes sure that no number up to this one is given again, should the ledger have been lost.
    pub fn spots_are_numbered_to(&mut self, serial: u64) {
        self.ledger.spots = self.ledger.spots.max(serial);
    }

    /// Ids whose entries changed since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty)
    }

    /// The ledger, when it changed since the last call.
    pub fn take_dirty_ledger(&mut self) -> Option<&Ledger> {
        std::mem::take(&mut self.ledger_dirty).then_some(&self.ledger)
    }
}

impl Alarm {
    /// Counts and stamps one event, and takes in what is new with it.
    fn event(&mut self, now: Timestamp, mut event_type: EventType, news: News, sides: &Sides) -> Transition {
        let data = &mut self.data;
        data.rev += 1;
        let side = sides.of(&self.subject);
        // What is meant stays meant while its device is being tested.
        let holds = is_quiet(side.as_ref()) || data.cap.status == CapStatus::Test;
        data.side = side.filter(|_| holds && !self.subject.test);
        if is_quiet(data.side.as_ref()) && event_type == EventType::AlarmRaised {
            event_type = EventType::AlarmShelved;
        }
        data.condition = self.machine.condition();
        data.decided_at = now;
        data.clock = news.clock;
        if matches!(event_type, EventType::AlarmRaised | EventType::AlarmShelved) && !self.machine.is_acknowledged() {
            data.operator = None;
        }
        if let Some(why) = news.why {
            data.origin = news.origin;
            why.add_to(&mut data.explanation);
        }
        if let Some(certainty) = news.certainty {
            data.cap.certainty = certainty;
        }
        if let Some((urgency, severity)) = news.cap {
            (data.cap.urgency, data.cap.severity) = (urgency, severity);
        }
        data.confidence = news.confidence.or(data.confidence);
        for evidence in news.evidence {
            if data.evidence.iter().all(|have| have.n != evidence.n) {
                data.evidence.push(evidence);
            }
        }
        self.ask(event_type);
        Transition { event_type, lane: self.subject.kind.lane(), sensed_at: news.sensed_at, alarm: self.data.clone() }
    }
}

impl Alarm {
    /// True while a human should answer.
    pub fn asks(&self) -> bool {
        self.machine.condition().is_open()
            && !self.machine.is_acknowledged()
            && (self.machine.is_active() || self.subject.kind.lane().is_life_safety())
            && self.data.cap.status == CapStatus::Actual
            && !is_quiet(self.data.side.as_ref())
    }

    /// Begins, repeats or ends the call for a human.
    fn ask(&mut self, event_type: EventType) {
        match event_type {
            _ if !self.asks() => self.call = Call::default(),
            EventType::AlarmRaised | EventType::AlarmUnshelved => self.call = Call::by(self.data.rev),
            EventType::AlarmEscalated => (self.call.rev, self.call.limit) = (self.data.rev, None),
            // A test that became earnest while nobody could tell.
            _ if self.call.rev == 0 => self.call = Call::by(self.data.rev),
            _ => {}
        }
    }

    /// What is new when nothing was seen.
    fn no_news(&self, now: Timestamp) -> News {
        News {
            sensed_at: now,
            clock: self.data.clock,
            origin: self.data.origin.clone(),
            why: None,
            certainty: None,
            cap: None,
            confidence: None,
            evidence: Vec::new(),
        }
    }
}

/// The data of a fresh alarm, before its first event is counted.
fn begin(
    rules: &Rules,
    now: Timestamp,
    subject: &Subject,
    since: Timestamp,
    alarm_id: String,
    news: News,
) -> AlarmData {
    let device = rules.device(&subject.device);
    let zone = subject.zone.as_ref().and_then(|zone| rules.zone(&subject.device, zone));
    let location = zone.and_then(|zone| zone.location.as_ref()).or(device.location.as_ref());
    let mut cap = subject.kind.cap();
    if subject.test {
        cap.status = CapStatus::Test;
    }
    AlarmData {
        alarm_id,
        rev: 0,
        kind: subject.kind,
        condition: Condition::ActiveUnack,
        title: if drill::is_one(rules, subject) { drill::title() } else { subject.kind.title() },
        code: rules.codes.code(subject.kind, location),
        cap,
        device: subject.device.clone(),
        zone: subject.zone.clone(),
        location: location.cloned(),
        subject_ref: device.subject_ref.clone(),
        confidence: None,
        explanation: news.why.unwrap_or_else(|| Why::new("", "", "")).fresh(),
        since,
        decided_at: now,
        clock: news.clock,
        escalation: 0,
        evidence: Vec::new(),
        origin: None,
        operator: None,
        side: None,
        case: None,
    }
}
