//! What must be true whatever happens, checked while it happens.
//!
//! Owns the promises: the journal is gapless, chained and never goes back; every observation in it is one that a node made; every alarm has its cause and one id; a command
//! takes effect once; the site is told when and only when the centre does not confirm. It reads the journal and what goes out, never the gateway's mind.

use std::collections::{BTreeMap, BTreeSet};

use gengfu_contract::case::CaseRef;
use gengfu_contract::command::{Outcome, Reply};
use gengfu_contract::event::{AlarmData, Event, EventType};
use gengfu_contract::state::{AlarmSnapshot, Statement};
use gengfu_contract::words::{AlarmKind, CapStatus, Condition, Lane};
use gengfu_outbox::{Outbox, Outcome as Fate};
use gengfu_wire::EventKind;
use jiff::Timestamp;

use crate::link::tests::rig::node::Truth;

use super::broker::ForCentre;
use super::centre::Given;
use super::gateway::Turn;
use super::trail::note;

/// A receipt must have come within this (GB 26875.1).
const RECEIPT_US: u64 = 10_000_000;
/// How late the decider may notice that: its own tick, a batch on its way, and the disk's.
const LATE_US: u64 = 2_500_000;

/// What a subject is: at most one alarm about it is open.
type Subject = (String, AlarmKind, bool);

struct Alarm {
    rev: u32,
    escalation: u32,
    case: Option<CaseRef>,
    is_over: bool,
}

/// A life-safety event whose receipt is awaited.
struct Call {
    event: String,
    since_us: u64,
    /// The same, as the gateway may take it: what a disk kept of a batch that failed, or of the last one before a power cut, is older than it is known here.
    known_since_us: u64,
    recorded_at: Timestamp,
    /// The gateway's clock was set while nobody could notice: how long it waits, it cannot know.
    is_tainted: bool,
    /// It was time to tell the site: the receipt was late, or the centre known to be away. That stays told until the receipt is here, however the clock is set.
    is_due: bool,
}

/// An event, as far as it is needed later.
pub struct Brief {
    pub id: String,
    pub lane: Lane,
    pub hash: [u8; 32],
    subject: String,
}

/// What a connection carried.
#[derive(Default)]
struct Carried {
    /// By sequence: as how many-th it went first, and last.
    sent: BTreeMap<u64, (usize, usize)>,
    count: usize,
    /// Later events are live.
    backlog_to: u64,
    live_last: BTreeMap<Lane, u64>,
}

#[derive(Default)]
pub struct Oracle {
    pub events: Vec<Brief>,
    /// By boot of a node: how far its events are in the journal.
    pub taken: BTreeMap<u32, u32>,
    pub losses: u64,
    observed: BTreeMap<(u32, u32), (String, String)>,
    repaired: BTreeSet<(String, String)>,
    alarms: BTreeMap<String, Alarm>,
    open: BTreeMap<Subject, String>,
    calls: BTreeMap<String, Call>,
    /// Calls that were received; a receipt is not synced by itself, so a failing disk may forget it.
    settled: BTreeMap<String, Call>,
    answers: BTreeMap<String, Vec<Outcome>>,
    acknowledged: BTreeSet<String>,
    groups: BTreeMap<String, Vec<u64>>,
    carried: BTreeMap<usize, Carried>,
    sent: BTreeMap<u64, u32>,
    /// Since when the gateway works without interruption.
    healthy_since_us: Option<u64>,
    /// Since when nothing is known of what it stores: its disk fails, or its power is gone.
    unseen_since_us: Option<u64>,
    /// And at some time since then it knew the centre to be away.
    was_away_unseen: bool,
    pub overdue_told: u64,
}

impl Oracle {
    /// A gateway started: what was durable is still so.
    pub fn started(&mut self, outbox: &Outbox) {
        self.healthy_since_us = None;
        self.carried.clear();
        self.sent.clear();
        let Some(last) = self.events.last() else { return };
        let sequence = self.events.len() as u64;
        let record = outbox.journal(sequence, 1).unwrap().into_iter().next();
        let record = record.unwrap_or_else(|| panic!("event {sequence} was durable and is gone"));
        assert_eq!((record.hash, &record.id), (last.hash, &last.id), "event {sequence} was durable and is another now");
    }

    /// The disk fails, or the power is gone.
    pub fn is_unseen(&mut self, now_us: u64) {
        self.healthy_since_us = None;
        self.unseen_since_us.get_or_insert(now_us);
    }

    /// The gateway's clock was set while it was off.
    pub fn clock_was_set(&mut self) {
        // A receipt that the disk forgets makes a settled call a waiting one again.
        self.calls.values_mut().chain(self.settled.values_mut()).for_each(|call| call.is_tainted = true);
    }

    /// The power went, or the disk failed, when the gateway knew the centre to be away: what it wrote then is told to the site at once.
    pub fn was_away(&mut self) {
        self.was_away_unseen |= self.unseen_since_us.is_some();
        self.calls.values_mut().for_each(|call| call.is_due = true);
    }

    /// The disk failed before the gateway could write down that its clock was set: it may take a call for older than it is.
    pub fn step_was_not_stored(&mut self) {
        self.calls.values_mut().chain(self.settled.values_mut()).for_each(|call| call.is_due = true);
    }

    /// Reads what is new in the journal. `judged_at`: when the gateway made it, if its clock could be trusted then.
    pub fn read(
        &mut self,
        now_us: u64,
        outbox: &Outbox,
        truth: &Truth,
        orders: &BTreeMap<String, Given>,
        judged_at: Option<Timestamp>,
    ) {
        let from = self.events.len() as u64 + 1;
        if outbox.head().sequence < from {
            assert_eq!(outbox.head().sequence + 1, from, "the journal went back");
            return;
        }
        let mut smoke: Vec<String> = vec![];
        for record in outbox.journal(from, 10_000).unwrap() {
            let event = Event::parse(&record.bytes).unwrap();
            let before = self.events.last().map_or([0; 32], |last| last.hash);
            assert_eq!(event.sequence, self.events.len() as u64 + 1, "the journal has a gap");
            assert_eq!(event.prevhash, hex::encode(before), "the chain breaks at {}", event.sequence);
            assert_eq!(event.id, record.id);
            note(|| {
                format!(
                    "journal #{} {} {} {} {}",
                    event.sequence,
                    event.id,
                    event.event_type.as_str(),
                    event.subject,
                    told(&event)
                )
            });
            self.groups.entry(event.subject.clone()).or_default().push(event.sequence);
            if let Some(alarm) = event.alarm().unwrap() {
                smoke.retain(|device| alarm.kind != AlarmKind::Smoke || *device != alarm.device.as_str());
                self.alarm(now_us, &event, alarm);
            } else if event.event_type == EventType::DeviceObserved {
                smoke.extend(self.observation(&event, truth));
            } else if let Some(answer) = event.command().unwrap() {
                self.answer(&event, answer.cmd_id, &answer.verb, answer.outcome, orders, judged_at);
            }
            let (id, lane, hash, subject) = (event.id, event.lane, record.hash, event.subject);
            self.events.push(Brief { id, lane, hash, subject });
        }
        assert!(smoke.is_empty(), "smoke was seen and is no alarm: {smoke:?}");
    }

    /// Gives the head that saw smoke and has no open alarm yet.
    fn observation(&mut self, event: &Event, truth: &Truth) -> Option<String> {
        let seen = event.observed().unwrap().unwrap();
        let device = seen.device.to_string();
        match &seen.origin {
            None => drop(self.repaired.insert((device.clone(), seen.what.clone()))),
            Some(origin) => {
                let through = self.taken.entry(origin.boot).or_default();
                assert_eq!(origin.sequence, *through + 1, "boot {} out of order or twice: {seen:?}", origin.boot);
                if seen.what == "events.lost" {
                    *through += u32::try_from(seen.value.unwrap()).unwrap();
                    self.losses += 1;
                } else {
                    *through += 1;
                    let (kind, _) = truth.boots[&origin.boot][origin.sequence as usize - 1];
                    let expected = word(kind);
                    assert!(expected.is_none_or(|word| word == seen.what), "the node said {kind:?}: {seen:?}");
                }
                self.observed.insert((origin.boot, origin.sequence), (device.clone(), seen.what.clone()));
            }
        }
        let is_known = self.open.contains_key(&(device.clone(), AlarmKind::Smoke, false));
        (seen.what == "smoke.alarm" && !is_known).then_some(device)
    }

    fn alarm(&mut self, now_us: u64, event: &Event, alarm: AlarmData) {
        let (id, device) = (alarm.alarm_id.clone(), alarm.device.to_string());
        let subject = (device.clone(), alarm.kind, alarm.cap.status == CapStatus::Test);
        if alarm.condition.is_open() {
            let open = self.open.entry(subject.clone()).or_insert_with(|| id.clone());
            assert_eq!(*open, id, "two open alarms about {subject:?}");
        } else {
            self.open.remove(&subject);
        }
        let fresh = Alarm { rev: 0, escalation: 0, case: None, is_over: false };
        let known = self.alarms.entry(id.clone()).or_insert(fresh);
        assert!(!known.is_over, "alarm {id} was over and is heard of again: {event:?}");
        assert_eq!(alarm.rev, known.rev + 1, "alarm {id} skips or repeats a revision");
        assert!(alarm.escalation >= known.escalation, "alarm {id} goes down from {}", known.escalation);
        if event.event_type == EventType::AlarmEscalated {
            assert_eq!(alarm.escalation, known.escalation + 1);
        }
        if alarm.case != known.case {
            let (before, now) = (known.case.as_ref(), alarm.case.as_ref().unwrap());
            let same = before.filter(|before| before.case_id == now.case_id);
            assert!(
                same.is_some() || before.is_none_or(|before| before.stage.is_final()),
                "case {now:?} took the place of {before:?}"
            );
            assert!(now.stage.may_follow(same.map(|before| before.stage)), "case {now:?} after {before:?}");
        }
        (known.rev, known.escalation) = (alarm.rev, alarm.escalation);
        known.case.clone_from(&alarm.case);
        known.is_over = event.event_type == EventType::AlarmOver;
        assert_eq!(known.is_over, !alarm.condition.is_open(), "{event:?}");
        assert!(
            event.event_type != EventType::AlarmShelved || !event.lane.is_life_safety(),
            "life safety was shelved: {event:?}"
        );
        if event.event_type == EventType::AlarmAcknowledged {
            let operator = alarm.operator.clone().unwrap();
            assert!(self.acknowledged.insert(operator.clone()), "{operator} acknowledged twice by one command");
        }
        self.cause(event, &alarm, &device);
        self.call(now_us, event, &alarm);
    }

    /// An alarm comes from something its device said.
    fn cause(&self, event: &Event, alarm: &AlarmData, device: &str) {
        let word = match alarm.kind {
            AlarmKind::Smoke => "smoke.alarm",
            AlarmKind::Sos => "sos.pressed",
            AlarmKind::DoorLeftOpen => "door.opened",
            _ => return,
        };
        if event.event_type != EventType::AlarmRaised {
            return;
        }
        let said = |(of, what): &(String, String)| of == device && what == word;
        let known = match &alarm.origin {
            Some(origin) => self.observed.get(&(origin.boot, origin.sequence)).is_some_and(|seen| seen.0 == device),
            None => self.repaired.iter().any(said),
        };
        assert!(known, "an alarm without its observation: {event:?}");
        let ever = self.observed.values().any(said) || self.repaired.iter().any(said);
        assert!(ever, "{device} never said {word}: {event:?}");
    }

    fn call(&mut self, now_us: u64, event: &Event, alarm: &AlarmData) {
        if !event.lane.is_life_safety() || alarm.cap.status != CapStatus::Actual {
            return;
        }
        let id = &alarm.alarm_id;
        let is_call = match event.event_type {
            EventType::AlarmRaised | EventType::AlarmEscalated => true,
            EventType::AlarmUpdated => alarm.condition == Condition::ActiveUnack,
            _ => false,
        };
        if is_call {
            let (known_since_us, is_due) = (self.unseen_since_us.unwrap_or(now_us), self.was_away_unseen);
            let (event, recorded_at) = (event.id.clone(), event.recordedtime);
            let fresh = || Call {
                event: event.clone(),
                since_us: now_us,
                known_since_us,
                recorded_at,
                is_tainted: false,
                is_due,
            };
            self.calls.entry(id.clone()).or_insert_with(fresh).event = event.clone();
        }
        if is_call {
            self.settled.remove(id);
        }
        if event.event_type == EventType::AlarmOver {
            self.settled.remove(id);
            self.calls.remove(id);
        }
    }

    fn answer(
        &mut self,
        event: &Event,
        cmd_id: String,
        verb: &str,
        outcome: Outcome,
        orders: &BTreeMap<String, Given>,
        judged_at: Option<Timestamp>,
    ) {
        let answers = self.answers.entry(cmd_id.clone()).or_default();
        if !matches!(verb, "query" | "sounder") {
            assert!(answers.is_empty(), "{verb} {cmd_id} was carried out twice: {answers:?}, then {outcome:?}");
        }
        let given = &orders[&cmd_id];
        if answers.is_empty()
            && judged_at == Some(event.recordedtime)
            && given.expires_at.is_some_and(|at| at < event.recordedtime)
        {
            assert_eq!(outcome, Outcome::Refused, "{verb} {cmd_id} had expired at {:?}: {event:?}", given.expires_at);
        }
        answers.push(outcome);
    }

    /// Before a turn of the decider, and after it, for a disk that failed may have forgotten some: receipts that are recorded end a call. Nothing counts as received that the centre does not have.
    pub fn receipts(&mut self, outbox: &Outbox, stored: &BTreeSet<String>) {
        let is_pending = |call: &Call, while_unknown: bool| {
            let at = match outbox.lookup(&call.event) {
                Ok(Some(at)) => at,
                // Received, and pruned since.
                Ok(None) => {
                    assert!(stored.contains(&call.event), "forgotten, and the centre does not have it: {}", call.event);
                    return false;
                }
                // The store is closed until the disk is well.
                Err(_) => return while_unknown,
            };
            assert!(
                at.outcome != Fate::Received || stored.contains(&call.event),
                "received, and the centre does not have it: {}",
                call.event
            );
            assert_ne!(at.outcome, Fate::Dropped, "life safety was dropped: {}", call.event);
            at.outcome == Fate::Pending
        };
        let settled = std::mem::take(&mut self.settled).into_iter().map(|it| (it, false));
        let calls = std::mem::take(&mut self.calls).into_iter().map(|it| (it, true));
        let (waiting, settled): (Vec<_>, Vec<_>) =
            settled.chain(calls).partition(|((_, call), was_waiting)| is_pending(call, *was_waiting));
        let bare = |side: Vec<((String, Call), bool)>| side.into_iter().map(|(it, _)| it).collect();
        (self.calls, self.settled) = (bare(waiting), bare(settled));
    }

    /// After a turn of the decider.
    pub fn turn(&mut self, now_us: u64, turn: &Turn, orders: &BTreeMap<String, Given>) {
        if !turn.is_healthy {
            note(|| "the outbox takes nothing".into());
        }
        for reply in &turn.replies {
            note(|| {
                format!(
                    "answer to {}: {:?} {}",
                    reply.cmd_id,
                    reply.outcome,
                    reply.reason.as_ref().map_or("", |why| &why.en)
                )
            });
            self.reply(reply, orders, turn.is_healthy);
        }
        if !turn.is_healthy {
            self.is_unseen(now_us);
            if turn.away {
                self.was_away();
            }
            return;
        }
        (self.unseen_since_us, self.was_away_unseen) = (None, false);
        let healthy_us = now_us - *self.healthy_since_us.get_or_insert(now_us);
        let is_told = !turn.wanted.is_empty();
        let mut may = false;
        for (alarm, call) in &mut self.calls {
            let by_clock = turn.at.duration_since(call.recorded_at).as_micros();
            let by_clock_us = u64::try_from(by_clock).unwrap_or(0);
            call.known_since_us = call.known_since_us.min(now_us.saturating_sub(by_clock_us));
            let waited_us = now_us - call.known_since_us;
            call.is_due |= turn.away || waited_us >= RECEIPT_US;
            may |= call.is_tainted || call.is_due;
            let must = now_us - call.since_us >= RECEIPT_US + LATE_US && !call.is_tainted && healthy_us >= LATE_US;
            assert!(
                !must || is_told,
                "alarm {alarm} waits for its receipt since {waited_us} µs, and nobody on site is told"
            );
        }
        assert!(may || !is_told, "\"transmission failed\" is told, and nothing waits for so long: {:?}", turn.wanted);
        self.overdue_told += u64::from(is_told);
    }

    fn reply(&self, reply: &Reply, orders: &BTreeMap<String, Given>, is_healthy: bool) {
        let Some(answers) = self.answers.get(&reply.cmd_id) else { return };
        let other = reply.reason.as_ref().is_some_and(|why| why.en.contains("another command had this id"));
        let is_query = orders.get(&reply.cmd_id).is_some_and(|given| given.verb == "query");
        // What was accepted and is given again may find the disk full; then it is not done once more.
        let given = orders.get(&reply.cmd_id);
        let anew = (answers[0] == Outcome::Accepted || given.is_some_and(|given| given.was_altered))
            && reply.reason.as_ref().is_some_and(|why| why.en.contains("cannot store"));
        // What a node has done is told also while the disk cannot take it; the order given again is carried out again.
        let unstored = !is_healthy && answers[0] == Outcome::Accepted && given.is_some_and(|it| it.verb == "sounder");
        assert!(
            other || is_query || anew || unstored || answers.contains(&reply.outcome),
            "{} was answered {answers:?} and is now told {reply:?}",
            reply.cmd_id
        );
    }

    /// The gateway sent an event into a connection that was over.
    pub fn sent_in_vain(&mut self, sequence: u64) {
        *self.sent.entry(sequence).or_default() += 1;
    }

    /// The gateway published something.
    pub fn published(
        &mut self,
        conn: usize,
        topic: &str,
        payload: &[u8],
        told: &BTreeSet<String>,
        refused: &BTreeSet<u64>,
    ) {
        let last = self.events.len() as u64;
        let carried = self.carried.entry(conn).or_insert_with(|| Carried { backlog_to: last, ..Carried::default() });
        if !topic.ends_with("/event") {
            return;
        }
        let sequence = sequence_of(payload);
        let Some(brief) = self.events.get(usize::try_from(sequence).unwrap() - 1) else {
            panic!("event {sequence} was sent and is not durable");
        };
        *self.sent.entry(sequence).or_default() += 1;
        let excused = |earlier: &u64| {
            let id = &self.events[usize::try_from(*earlier).unwrap() - 1].id;
            told.contains(id) || refused.contains(earlier) || self.sent.get(earlier).is_some_and(|times| *times >= 3)
        };
        let group = &self.groups[&brief.subject];
        let mut stories = 0;
        for earlier in group.iter().filter(|earlier| **earlier < sequence && !carried.sent.contains_key(*earlier)) {
            let same_lane = self.events[usize::try_from(*earlier).unwrap() - 1].lane == brief.lane;
            assert!(!same_lane || excused(earlier), "event {sequence} overtakes {earlier} of {}", brief.subject);
            stories += 1;
        }
        carried.count += 1;
        let turn = carried.count;
        if let Some(known) = carried.sent.get_mut(&sequence) {
            known.1 = turn;
            return;
        }
        carried.sent.insert(sequence, (turn, turn));
        if sequence > carried.backlog_to && stories == 0 {
            let last = *carried.live_last.entry(brief.lane).or_default();
            // What has a long story goes when the story is told; others do not wait for that.
            let last_turn = carried.sent.get(&last).map_or(0, |(first, _)| *first);
            // Also again: what was refused is told again, and before the rest of its story.
            let told_after = |earlier: &u64| {
                *earlier < sequence && carried.sent.get(earlier).is_some_and(|(_, again)| *again > last_turn)
            };
            let had_a_story = group.iter().any(told_after);
            assert!(last < sequence || had_a_story, "in lane {} event {sequence} goes after {last}", brief.lane);
            carried.live_last.insert(brief.lane, sequence.max(last));
        }
    }

    /// The centre is about to take a message: it says nothing that is not so.
    pub fn heard(&self, came: &ForCentre, stored: &BTreeSet<String>) {
        if came.topic.ends_with("/event") {
            let sequence = sequence_of(&came.payload);
            let known = self.events.get(usize::try_from(sequence).unwrap() - 1).map(|brief| brief.hash);
            let hash = gengfu_contract::chain::hash_of_body(&came.payload).unwrap();
            assert_eq!(known, Some(hash), "the centre gets another event {sequence} than the journal has");
        } else if came.topic.ends_with("/statement") {
            self.statement(&serde_json::from_slice(&came.payload).unwrap(), stored);
        } else if came.topic.contains("/alarm/") && !came.payload.is_empty() {
            let snapshot: AlarmSnapshot = serde_json::from_slice(&came.payload).unwrap();
            let known = self.alarms.get(&snapshot.alarm.alarm_id).map_or(0, |alarm| alarm.rev);
            assert!(snapshot.alarm.rev <= known, "a snapshot of what is not durable: {snapshot:?}");
        }
    }

    fn statement(&self, said: &Statement, stored: &BTreeSet<String>) {
        assert!(said.sequence <= self.events.len() as u64, "states events that are not durable: {said:?}");
        if let Some(at) = said.sequence.checked_sub(1) {
            let hash = hex::encode(self.events[usize::try_from(at).unwrap()].hash);
            assert_eq!(said.head, hash, "states another head: {said:?}");
        }
        let open: u64 = said.pending.values().chain(said.dropped.values()).sum();
        let have = self
            .events
            .iter()
            .take(usize::try_from(said.sequence).unwrap())
            .filter(|brief| stored.contains(&brief.id))
            .count() as u64;
        assert!(
            said.sequence <= open + have,
            "states {} pending or dropped of {}, and the centre has {have}",
            open,
            said.sequence
        );
    }

    /// Alarms that are open by the journal.
    pub fn open(&self) -> BTreeMap<String, u32> {
        self.open.values().map(|id| (id.clone(), self.alarms[id].rev)).collect()
    }

    pub fn alarms(&self) -> usize {
        self.alarms.len()
    }
}

/// The number of an event, out of its bytes.
pub fn sequence_of(payload: &[u8]) -> u64 {
    const KEY: &[u8] = b"\"sequence\":\"";
    let at = payload.windows(KEY.len()).position(|window| window == KEY).unwrap() + KEY.len();
    std::str::from_utf8(&payload[at..at + 20]).unwrap().parse().unwrap()
}

/// How the journal calls what a node said, for what these lives have.
fn word(kind: EventKind) -> Option<&'static str> {
    let said = crate::link::mapping::event(kind);
    use gengfu_alarm::observation::{Smoke, What};
    Some(match said {
        What::Door { open: true, .. } => "door.opened",
        What::Door { open: false, .. } => "door.closed",
        What::Smoke(Smoke::Alarm) => "smoke.alarm",
        What::Smoke(Smoke::Clear) => "smoke.clear",
        What::SosPressed => "sos.pressed",
        _ => return None,
    })
}

fn told(event: &Event) -> String {
    match event.alarm() {
        Ok(Some(alarm)) => format!("{} of {} rev {} {}", alarm.kind, alarm.device, alarm.rev, alarm.condition),
        _ => event.data.to_string(),
    }
}
