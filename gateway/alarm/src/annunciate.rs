//! What is heard and seen on site when the centre does not answer: the last road of an alarm.
//!
//! Owns the decision which sounder and lamp should be on, and why: a life-safety alarm without the centre's receipt in time
//! ("transmission failed", audible and visible), and, where a site wants it, smoke in another room. It gives the *wanted
//! state*, never edges, so that a lost command is repaired by the next call, and a restart begins where the open alarms
//! and the outbox stand. Refuses to drive anything, to know how a receipt comes, and to sound for a test.
//!
//! Source: GB 26875.1-2011 4.1.2 (10 s to the centre; audible and visible signal when the transmission fails).

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CapStatus, Condition, Text};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::observation::Smoke;
use crate::time::{after, shifted};

/// A sounder or lamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalOutput {
    /// Its name; no other output has it.
    pub name: Slug,
    /// What it is.
    pub kind: OutputKind,
    /// The node that has it; `None` for the gateway's own. Alarms of what the node carries concern it.
    pub node: Option<Slug>,
    /// The dwelling it stands in, whose alarms concern it. With neither node nor dwelling it is the building's: every alarm of
    /// the gateway concerns it.
    pub dwelling: Option<String>,
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Heard, and can be silenced.
    Sounder,
    /// Seen, and stays on while it is so.
    Lamp,
}

/// How the outputs behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPolicy {
    /// A receipt must have come within this. Default 10 s (GB 26875.1).
    pub receipt_within: Duration,
    /// A silence by hand lasts at most this. Default 10 min: then it sounds again, if it is still so.
    pub silence_max: Duration,
    /// Smoke in one room sounds the other nodes of the dwelling at once, whatever the centre does. Default false: heads
    /// sound by themselves.
    pub sound_on_alarm: bool,
    /// An output goes off by itself this long after it was last wanted: a gateway that dies does not sound for ever.
    /// Default 60 s; renewed at half of it.
    pub lease: Duration,
}

impl Default for LocalPolicy {
    fn default() -> Self {
        Self {
            receipt_within: Duration::from_secs(10),
            silence_max: Duration::from_secs(600),
            sound_on_alarm: false,
            lease: Duration::from_secs(60),
        }
    }
}

/// An open life-safety alarm and how far it is on its way. [`Engine::life_safety`] makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmInWait {
    /// Which.
    pub alarm_id: String,
    /// What it is about.
    pub kind: AlarmKind,
    /// A test or a drill is never annunciated.
    pub status: CapStatus,
    /// State of its condition.
    pub condition: Condition,
    /// Silenced at the head itself, by somebody who stands there.
    pub hushed: bool,
    /// The device.
    pub device: Slug,
    /// Where the device is.
    pub dwelling: Option<String>,
    /// What carries it, the nearest first.
    pub carriers: Vec<Slug>,
    /// Since when the centre's receipt for its newest raising or escalation is awaited (when that was journaled); `None`: it
    /// has come.
    pub waiting_since: Option<Timestamp>,
}

/// What an output should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// The centre has not confirmed: people here must call for help themselves.
    TransmissionFailed,
    /// Smoke in this dwelling: leave. Goes before the other.
    Alarm,
}

impl Pattern {
    /// For a display, a lamp's label or a log.
    #[must_use]
    pub fn title(self) -> Text {
        let (zh, en) = match self {
            Pattern::TransmissionFailed => {
                ("传输失败：中心未确认，请拨打 119", "Transmission failed: the centre has not confirmed, call 119")
            }
            Pattern::Alarm => ("本户烟雾报警，请撤离", "Smoke in this dwelling: leave"),
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

/// An output that should be on. One that is not named should be off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which.
    pub output: Slug,
    /// What it is.
    pub kind: OutputKind,
    /// How.
    pub pattern: Pattern,
    /// It goes off by itself then, unless it is wanted again.
    pub until: Timestamp,
}

/// A life-safety alarm whose receipt is or was overdue: `TX_OVERDUE`, a trouble of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    /// Which alarm.
    pub alarm_id: String,
    /// What it is about.
    pub kind: AlarmKind,
    /// Its device.
    pub device: Slug,
    /// Since when the receipt is awaited: the true time, however late this is told.
    pub waiting_since: Timestamp,
    /// When the site was told.
    pub failed_at: Timestamp,
    /// When the receipt came or the alarm was over; `None`: not yet.
    pub over_at: Option<Timestamp>,
}

/// What must survive a restart: who was told that it failed, and who has silenced it. Without it the wanted state is the same, but
/// for silences, and a failure is told twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalState(BTreeMap<String, Track>);

/// One alarm, from its first sight to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Track {
    kind: AlarmKind,
    device: Slug,
    condition: Condition,
    dwelling: Option<String>,
    /// Awaited since, and from when the time is counted: never later than its first sight.
    waiting: Option<(Timestamp, Timestamp)>,
    failed_at: Option<Timestamp>,
    silenced_until: Option<Timestamp>,
}

/// Decides what is heard and seen on site. See the module's head.
#[derive(Debug, Clone)]
pub struct Annunciator {
    outputs: Vec<LocalOutput>,
    policy: LocalPolicy,
    tracks: BTreeMap<String, Track>,
    leases: BTreeMap<Slug, Want>,
    overdue: Vec<Overdue>,
    last_now: Option<Timestamp>,
    /// The centre is known to be away: no receipt is waited for.
    at_once: bool,
}

impl Annunciator {
    /// One that knows of no alarm yet.
    #[must_use]
    pub fn new(outputs: Vec<LocalOutput>, policy: LocalPolicy) -> Self {
        let (tracks, leases) = (BTreeMap::new(), BTreeMap::new());
        Self { outputs, policy, tracks, leases, overdue: Vec::new(), last_now: None, at_once: false }
    }

    /// One that goes on after a restart.
    #[must_use]
    pub fn restore(outputs: Vec<LocalOutput>, policy: LocalPolicy, state: LocalState) -> Self {
        Self { tracks: state.0, ..Self::new(outputs, policy) }
    }

    /// Goes back to what was written down last, because what came after it was not: it will be told again. What is on stays on. The clock was set by
    /// `by` since it was written, as far as that is known.
    pub fn go_back(&mut self, state: LocalState, by: SignedDuration) {
        self.tracks = state.0;
        self.tracks.values_mut().for_each(|track| track.clock_stepped(by));
        self.overdue.clear();
        // As after a restart: what waits since a time to come has waited.
        self.last_now = None;
    }

    /// The policy it was given.
    #[must_use]
    pub fn policy(&self) -> LocalPolicy {
        self.policy
    }

    /// What to write down whenever it differs from what was written last.
    #[must_use]
    pub fn state(&self) -> LocalState {
        LocalState(self.tracks.clone())
    }

    /// Takes in every open life-safety alarm, and says which outputs should be on now. Call it when an alarm or a receipt
    /// changes, and at [`Annunciator::next_due`].
    pub fn update(&mut self, now: Timestamp, alarms: &[AlarmInWait]) -> Vec<Want> {
        self.take_time(now);
        let meant = |alarm: &&AlarmInWait| alarm.status == CapStatus::Actual && alarm.kind.lane().is_life_safety();
        let alarms: BTreeMap<&str, &AlarmInWait> =
            alarms.iter().filter(meant).map(|alarm| (alarm.alarm_id.as_str(), alarm)).collect();
        let gone: Vec<String> = self.tracks.keys().filter(|id| !alarms.contains_key(id.as_str())).cloned().collect();
        for id in gone {
            if let Some(mut track) = self.tracks.remove(&id) {
                self.overdue.extend(track.is_over(&id, now));
            }
        }
        for (id, alarm) in &alarms {
            self.follow(now, id, alarm);
        }
        self.want(now, &alarms)
    }

    /// Somebody on site silences the sounders for the alarms there are now, of one dwelling or of all; at most for the
    /// policy's time. Lamps stay, and what is raised later sounds. The next [`Annunciator::update`] knows.
    pub fn silence(&mut self, now: Timestamp, dwelling: Option<&str>, lasts: Duration) {
        self.take_time(now);
        let until = after(now, lasts.min(self.policy.silence_max));
        let here = |track: &&mut Track| dwelling.is_none_or(|dwelling| track.dwelling.as_deref() == Some(dwelling));
        self.tracks.values_mut().filter(here).for_each(|track| track.silenced_until = Some(until));
    }

    /// The centre is known to be away (its last will said so), or not: while it is, a receipt cannot come, and what waits for one is told on site
    /// by the next [`Annunciator::update`] instead of after [`LocalPolicy::receipt_within`].
    pub fn at_once(&mut self, away: bool) {
        self.at_once = away;
    }

    /// Receipts that became overdue, or came after that, since the last call: tell each to the centre with its true times.
    pub fn take_overdue(&mut self) -> Vec<Overdue> {
        std::mem::take(&mut self.overdue)
    }

    /// When [`Annunciator::update`] is wanted next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let deadlines = self.tracks.values().filter(|track| track.failed_at.is_none());
        let patience = if self.at_once { Duration::ZERO } else { self.policy.receipt_within };
        let deadlines = deadlines.filter_map(|track| Some(after(track.waiting?.1, patience)));
        let silences =
            self.tracks.values().filter(|track| !track.is_settled()).filter_map(|track| track.silenced_until);
        let renewals = self.leases.values().map(|want| shifted(want.until, -self.half_lease()));
        deadlines.chain(silences).chain(renewals).min()
    }

    /// The gateway's clock was set by `by`: what runs moves with it.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        self.tracks.values_mut().for_each(|track| track.clock_stepped(by));
        self.leases.values_mut().for_each(|want| want.until = shifted(want.until, by));
        self.last_now = self.last_now.map(|last| shifted(last, by));
    }

    /// After a clock that was set back, or a restart: nothing waits or is silent longer than its whole length from now. What waits, by its own
    /// account, since a time to come has waited before a restart with a clock that was right then or is right now: for how long nobody knows, and
    /// its time does not begin anew.
    fn take_time(&mut self, now: Timestamp) {
        if self.last_now.is_none_or(|last| now < last) {
            let (silent_to, lit_to) = (after(now, self.policy.silence_max), after(now, self.policy.lease));
            let latest = if self.last_now.is_none() { shifted(now, -self.patience()) } else { now };
            for track in self.tracks.values_mut() {
                track.waiting = track.waiting.map(|(since, from)| (since, if from > now { latest } else { from }));
                track.silenced_until = track.silenced_until.map(|at| at.min(silent_to));
            }
            self.leases.values_mut().for_each(|want| want.until = want.until.min(lit_to));
        }
        self.last_now = Some(now);
    }

    fn follow(&mut self, now: Timestamp, id: &str, alarm: &AlarmInWait) {
        let track = self.tracks.entry(id.to_owned()).or_insert_with(|| Track::of(alarm));
        let raised_anew = alarm.condition == Condition::ActiveUnack && track.condition != Condition::ActiveUnack;
        track.condition = alarm.condition;
        if raised_anew || (!track.is_settled() && track.silenced_until.is_some_and(|until| until <= now)) {
            track.silenced_until = None;
        }
        track.dwelling.clone_from(&alarm.dwelling);
        // A call keeps the time of the oldest one without a receipt; another time means that the one before has got its own. Which of the two is
        // later says nothing: the clock may have been set between them.
        if alarm.waiting_since.is_none() || track.waiting.is_some_and(|(since, _)| Some(since) != alarm.waiting_since) {
            self.overdue.extend(track.is_over(id, now));
            track.waiting = None;
        }
        let Some(since) = alarm.waiting_since else { return };
        // Another wait begins anew, also when the one before ended unseen.
        let same = track.waiting.filter(|(before, _)| *before == since);
        let from = same.map_or(since.min(now), |(_, from)| from);
        track.waiting = Some((since, from));
        if track.failed_at.is_none() && (self.at_once || now >= after(from, self.policy.receipt_within)) {
            track.failed_at = Some(now);
            self.overdue.extend(track.overdue(id, None));
        }
    }

    fn want(&mut self, now: Timestamp, alarms: &BTreeMap<&str, &AlarmInWait>) -> Vec<Want> {
        let mut wanted = Vec::new();
        for output in &self.outputs {
            let patterns = self.tracks.iter().filter_map(|(id, track)| {
                let alarm = alarms.get(id.as_str())?;
                let pattern = pattern(&self.policy, output, alarm, track)?;
                let silent = output.kind == OutputKind::Sounder && track.silenced_until.is_some();
                (!silent).then_some(pattern)
            });
            let Some(pattern) = patterns.max() else { continue };
            let before = self.leases.get(&output.name).filter(|want| want.pattern == pattern);
            let fresh = before.filter(|want| shifted(want.until, -self.half_lease()) > now);
            let until = fresh.map_or_else(|| after(now, self.policy.lease), |want| want.until);
            wanted.push(Want { output: output.name.clone(), kind: output.kind, pattern, until });
        }
        self.leases = wanted.iter().map(|want| (want.output.clone(), want.clone())).collect();
        wanted
    }

    fn patience(&self) -> SignedDuration {
        SignedDuration::try_from(self.policy.receipt_within).unwrap_or(SignedDuration::ZERO)
    }

    fn half_lease(&self) -> SignedDuration {
        SignedDuration::try_from(self.policy.lease / 2).unwrap_or(SignedDuration::ZERO)
    }
}

/// What one alarm asks of one output.
fn pattern(policy: &LocalPolicy, output: &LocalOutput, alarm: &AlarmInWait, track: &Track) -> Option<Pattern> {
    let own_node = output.node.as_ref().is_some_and(|node| alarm.carriers.contains(node) || alarm.device == *node);
    let in_dwelling = output.dwelling.is_some() && output.dwelling == alarm.dwelling;
    let burning = matches!(alarm.condition, Condition::ActiveUnack | Condition::ActiveAck) && !alarm.hushed;
    if policy.sound_on_alarm && alarm.kind == AlarmKind::Smoke && burning && in_dwelling && !own_node {
        return Some(Pattern::Alarm);
    }
    let concerned = own_node || in_dwelling || (output.node.is_none() && output.dwelling.is_none());
    (track.failed_at.is_some() && concerned).then_some(Pattern::TransmissionFailed)
}

impl Track {
    fn of(alarm: &AlarmInWait) -> Self {
        Self {
            kind: alarm.kind,
            device: alarm.device.clone(),
            condition: alarm.condition,
            dwelling: alarm.dwelling.clone(),
            waiting: None,
            failed_at: None,
            silenced_until: None,
        }
    }

    fn clock_stepped(&mut self, by: SignedDuration) {
        self.waiting = self.waiting.map(|(since, from)| (since, shifted(from, by)));
        self.silenced_until = self.silenced_until.map(|at| shifted(at, by));
    }

    /// True when its cause is gone: who silenced a fire that is out is not woken by it again.
    fn is_settled(&self) -> bool {
        matches!(self.condition, Condition::ClearedUnack | Condition::ClearedLatched)
    }

    fn overdue(&self, id: &str, over_at: Option<Timestamp>) -> Option<Overdue> {
        let (failed_at, (waiting_since, _)) = self.failed_at.zip(self.waiting)?;
        let (alarm_id, kind, device) = (id.to_owned(), self.kind, self.device.clone());
        Some(Overdue { alarm_id, kind, device, waiting_since, failed_at, over_at })
    }

    /// Its failure, if there was one, is over.
    fn is_over(&mut self, id: &str, now: Timestamp) -> Option<Overdue> {
        let told = self.overdue(id, Some(now));
        self.failed_at = None;
        told
    }
}

impl Engine {
    /// Every open life-safety alarm, for the [`Annunciator`]. `waiting_since` tells from an alarm's id since when its newest
    /// raising or escalation is without the centre's receipt; `None` when that has come.
    pub fn life_safety(&self, waiting_since: impl Fn(&str) -> Option<Timestamp>) -> Vec<AlarmInWait> {
        let alarms = self.open_alarms().filter(|alarm| alarm.kind.lane().is_life_safety());
        let in_wait = alarms.map(|alarm| {
            let reading = self.devices.get(&alarm.device).and_then(|device| device.smoke.reading);
            AlarmInWait {
                alarm_id: alarm.alarm_id.clone(),
                kind: alarm.kind,
                status: alarm.cap.status,
                condition: alarm.condition,
                hushed: alarm.kind == AlarmKind::Smoke && reading == Some(Smoke::Hushed),
                device: alarm.device.clone(),
                dwelling: self.rules.device(&alarm.device).dwelling.clone(),
                carriers: self.rules.carriers_of(&alarm.device).cloned().collect(),
                waiting_since: waiting_since(&alarm.alarm_id),
            }
        });
        in_wait.collect()
    }
}
