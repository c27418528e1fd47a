//! Goal: nothing is acknowledged that is not on the disk; what is on the disk is found again. Method: a real outbox in a temporary folder.

use std::path::Path;
use std::time::Duration;

use gengfu_alarm::codes::CodeTable;
use gengfu_alarm::observation::{Link, Smoke};
use gengfu_alarm::rules::{DeviceClass, DeviceRule, Timing};
use gengfu_contract::chain;
use gengfu_contract::command::{AlarmCommand, Command};
use gengfu_contract::event::{Event, Origin};
use gengfu_contract::words::{AlarmKind, Condition};
use gengfu_outbox::Options;

use super::*;

mod commands;
mod drill;
mod on_site;
mod people;
mod recover;

fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn rules() -> Rules {
    let device = |class, left_open_after| DeviceRule { class, left_open_after, ..DeviceRule::default() };
    Rules {
        gateway: slug("gw-1"),
        devices: [
            (slug("node-1"), device(DeviceClass::Node, None)),
            (slug("door-1"), device(DeviceClass::Door, Some(Duration::from_secs(60)))),
            (slug("smoke-1"), device(DeviceClass::Smoke, None)),
        ]
        .into(),
        zones: BTreeMap::new(),
        codes: CodeTable::default(),
        timing: Timing::default(),
    }
}

fn start(folder: &Path, seconds: i64) -> (Decider, Board, Outbox) {
    let outbox = Outbox::open(Options::new(folder.join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.to_owned() };
    let board = Board::new();
    let decider = Decider::start(
        identity,
        rules(),
        Wiring::default(),
        outbox.clone(),
        board.clone(),
        at(seconds),
        ClockQuality::Synced,
    )
    .unwrap();
    (decider, board, outbox)
}

fn seen(device: &str, seconds: i64, sequence: u32, what: What) -> Observation {
    let origin = Some(Origin { node: "00".into(), boot: 1, sequence });
    Observation { device: slug(device), sensed_at: at(seconds), clock: ClockQuality::Synced, origin, what }
}

/// Hands one link batch over; the answer says whether it may be acknowledged.
fn link(decider: &mut Decider, seconds: i64, observations: Vec<Observation>) -> Result<(), String> {
    let (done, answer) = oneshot::channel();
    let cursor = (b"link/node-1".to_vec(), seconds.to_be_bytes().to_vec());
    decider.process(at(seconds), ClockQuality::Synced, vec![Input::Link(LinkBatch { observations, cursor, done })]);
    answer.blocking_recv().unwrap()
}

fn events(outbox: &Outbox) -> Vec<Event> {
    outbox.journal(1, 1000).unwrap().iter().map(|r| Event::parse(&r.bytes).unwrap()).collect()
}

#[test]
fn an_acknowledged_observation_its_alarm_and_the_cursor_are_in_the_journal_and_chained() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 7, What::Smoke(Smoke::Alarm))]).unwrap();
    let events = events(&outbox);
    let types: Vec<EventType> = events.iter().map(|e| e.event_type).collect();
    assert_eq!(types, [EventType::GatewayStarted, EventType::DeviceObserved, EventType::AlarmRaised]);
    assert_eq!(events[2].lane, Lane::Fire);
    assert_eq!(events[1].observed().unwrap().unwrap().origin.unwrap().sequence, 7);
    for pair in events.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
        assert_eq!(pair[1].prevhash, hex::encode(chain::hash(&chain::canonical(&pair[0]).unwrap())));
    }
    assert_eq!(outbox.get(b"link/node-1").unwrap().unwrap(), 1_i64.to_be_bytes());
    assert_eq!(
        outbox.take(1).unwrap()[0].lane,
        gengfu_outbox::Lane::Fire,
        "fire leaves first although it was stored last"
    );
}

#[test]
fn an_open_alarm_survives_a_restart_as_the_same_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    let before = decider.open_alarms();
    drop((decider, outbox));
    let (mut decider, _, outbox) = start(folder.path(), 10);
    assert_eq!(decider.boot(), 2);
    assert_eq!(decider.open_alarms(), before);
    link(&mut decider, 11, vec![seen("smoke-1", 11, 2, What::Smoke(Smoke::Alarm))]).unwrap();
    let is_smoke = |e: &Event| e.alarm().unwrap().is_some_and(|alarm| alarm.kind == AlarmKind::Smoke);
    let raised = events(&outbox).iter().filter(|e| e.event_type == EventType::AlarmRaised && is_smoke(e)).count();
    assert_eq!(raised, 1, "the same reading again is no new alarm");
}

#[test]
fn a_timer_that_ran_out_while_the_gateway_was_down_fires_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, ..) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("door-1", 1, 1, What::Door { open: true, repaired: false })]).unwrap();
    drop(decider);
    let (mut decider, _, outbox) = start(folder.path(), 300);
    decider.process(at(310), ClockQuality::Synced, Vec::new());
    let alarms = decider.open_alarms();
    assert_eq!(alarms.len(), 1);
    assert_eq!((alarms[0].kind, alarms[0].condition), (AlarmKind::DoorLeftOpen, Condition::ActiveUnack));
    assert!(events(&outbox).iter().any(|e| e.event_type == EventType::AlarmRaised));
}

#[test]
fn heartbeats_and_link_states_move_no_journal_entry_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("node-1", 1, 1, What::Heartbeat), seen("node-1", 1, 1, What::Link(Link::Up))])
        .unwrap();
    assert_eq!(events(&outbox).len(), 1, "only gateway.started");
}

#[test]
fn commands_are_answered_and_too_long_a_name_is_refused_before_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    let alarm_id = decider.open_alarms()[0].alarm_id.clone();
    let mut order = |operator: &str| {
        let order =
            AlarmCommand { alarm_id: alarm_id.clone(), operator: operator.into(), issued_at: at(2), expires_at: None };
        let request = commands::request(&format!("c-{}", operator.len()), Command::Ack(order), 2);
        decider.process(at(2), ClockQuality::Synced, vec![Input::Command(request)]).replies.remove(0).outcome
    };
    assert_eq!(order(&"x".repeat(200)), Outcome::Refused);
    assert_eq!(order("desk-1"), Outcome::Done);
    let is_ack = |event: &Event| event.event_type == EventType::AlarmAcknowledged;
    let acked = events(&outbox).into_iter().find(is_ack).unwrap();
    assert_eq!(acked.alarm().unwrap().unwrap().operator.as_deref(), Some("desk-1"));
}

#[test]
fn a_disk_that_refuses_means_no_acknowledgement_and_an_engine_that_forgets() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _, outbox) = start(folder.path(), 0);
    // A state value above the outbox's bound makes the commit fail as a whole.
    let (done, answer) = oneshot::channel();
    let cursor = (b"link/node-1".to_vec(), vec![0; 1 << 20]);
    let observations = vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))];
    decider.process(at(1), ClockQuality::Synced, vec![Input::Link(LinkBatch { observations, cursor, done })]);
    assert!(answer.blocking_recv().unwrap().is_err());
    assert!(decider.open_alarms().is_empty());
    assert_eq!(events(&outbox).len(), 1);
    // The node sends it again, and now it is taken as if for the first time.
    link(&mut decider, 2, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    assert_eq!(decider.open_alarms().len(), 1);
    assert_eq!(events(&outbox).len(), 3);
}

#[test]
fn a_clock_that_stays_unsynchronised_and_a_device_past_its_day_are_troubles() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(Options::new(folder.path().join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.path().to_owned() };
    let wiring = Wiring { replace_by: [(slug("smoke-1"), at(2_000))].into(), ..Wiring::default() };
    let mut decider =
        Decider::start(identity, rules(), wiring, outbox, Board::new(), at(0), ClockQuality::Unsynced).unwrap();
    let mut open = |seconds: i64, clock: ClockQuality| -> Vec<(AlarmKind, Condition)> {
        decider.process(at(seconds), clock, Vec::new());
        assert!(decider.next_due().is_none_or(|due| due > at(seconds)), "nothing is left to do at {seconds} s");
        // That nobody is heard meanwhile is another trouble.
        let alarms = decider.open_alarms().into_iter().filter(|alarm| alarm.kind != AlarmKind::SensorLost);
        alarms.map(|alarm| (alarm.kind, alarm.condition)).collect()
    };
    assert_eq!(open(1, ClockQuality::Unsynced), [], "a start is no trouble");
    assert_eq!(open(601, ClockQuality::Unsynced), [(AlarmKind::ClockTrouble, Condition::ActiveUnack)]);
    assert_eq!(open(700, ClockQuality::Synced), [(AlarmKind::ClockTrouble, Condition::ClearedUnack)]);
    let both = [(AlarmKind::ClockTrouble, Condition::ClearedUnack), (AlarmKind::EndOfLife, Condition::ActiveUnack)];
    assert_eq!(open(2_000, ClockQuality::Synced), both);
}

/// What a centre reads of a device as last heard, seconds.
fn shown_as_heard(board: &Board, device: &str) -> Option<i64> {
    let state: DeviceState =
        serde_json::from_slice(&board.get(&format!("gengfu/v1/site/gw-1/device/{device}"))?).unwrap();
    state.last_heard_at.map(|heard_at| heard_at.as_second() - at(0).as_second())
}

#[test]
fn signs_of_life_renew_a_retained_state_by_its_class_and_what_changes_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, board, _outbox) = start(folder.path(), 0);
    let mut heard = |device: &str, seconds: i64, what: What| {
        let sequence = u32::try_from(seconds).unwrap();
        link(&mut decider, seconds, vec![seen(device, seconds, sequence, what)]).unwrap();
        shown_as_heard(&board, device)
    };
    let smoke: Vec<_> = [10, 110, 210, 309, 310, 410].map(|n| heard("smoke-1", n, What::Heartbeat)).into();
    assert_eq!(smoke, [Some(10), Some(10), Some(10), Some(10), Some(310), Some(310)], "S1: every five minutes");
    assert_eq!(heard("smoke-1", 411, What::Smoke(Smoke::Alarm)), Some(411));
    let door: Vec<_> = [500, 1_000, 2_299, 2_300].map(|n| heard("door-1", n, What::Heartbeat)).into();
    assert_eq!(door, [Some(500), Some(500), Some(500), Some(2_300)], "S2: every half hour");
}

#[test]
fn how_often_a_retained_state_is_renewed_is_the_configuration_s_where_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(Options::new(folder.path().join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.path().to_owned() };
    let refresh = super::DeviceRefresh(Some(jiff::SignedDuration::from_secs(20)));
    let (wiring, board) = (Wiring { device_refresh: refresh, ..Wiring::default() }, Board::new());
    let mut decider =
        Decider::start(identity, rules(), wiring, outbox, board.clone(), at(0), ClockQuality::Synced).unwrap();
    for (seconds, shown) in [(10, 10), (29, 10), (30, 30)] {
        let sequence = u32::try_from(seconds).unwrap();
        link(&mut decider, seconds, vec![seen("smoke-1", seconds, sequence, What::Heartbeat)]).unwrap();
        assert_eq!(shown_as_heard(&board, "smoke-1"), Some(shown));
    }
}
