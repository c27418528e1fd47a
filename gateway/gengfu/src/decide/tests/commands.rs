//! Goal: a command is carried out once and answered alike, whenever the power goes; what is not allowed is refused with the remedy. Method: a real outbox;
//! a kill is the end of the decider without its last words.

use gengfu_alarm::policy::CareRule;
use gengfu_alarm::{Service, Shelf};
use gengfu_contract::case::CaseStage;
use gengfu_contract::command::{
    CaseCommand, ConfigCommand, Reply, ShelveCommand, SnapshotCommand, SnapshotData, SounderCommand, TestCommand,
    UnshelveCommand, VisitCommand, Whereabouts,
};
use gengfu_contract::query::{HomeActivity, QueryCommand, QueryWhat, ReplyJoiner};
use gengfu_contract::state::AlarmSnapshot;
use sha2::{Digest, Sha256};

use super::super::memory::COUNT_MAX;
use super::*;
use crate::decide::{Action, Errand};

const SYNCED: ClockQuality = ClockQuality::Synced;

/// As the uplink hands it over.
pub(super) fn request(cmd_id: &str, command: Command, seconds: i64) -> CommandRequest {
    let digest = Sha256::digest(format!("{command:?}")).into();
    CommandRequest { cmd_id: cmd_id.to_owned(), command, digest, retained: false, arrived_at: at(seconds) }
}

fn start(folder: &Path, seconds: i64) -> (Decider, Outbox) {
    let outbox = Outbox::open(Options::new(folder.join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.to_owned() };
    let mut rules = rules();
    rules.timing.care.homes.insert(slug("door-1"), CareRule::default());
    rules.devices.insert(slug("cam-1"), DeviceRule { class: DeviceClass::Camera, ..DeviceRule::default() });
    let wiring = Wiring {
        channels: [(slug("smoke-1"), (slug("node-1"), 2))].into(),
        sounders: [(slug("node-1"), None)].into(),
        takes_snapshots: true,
        ..Wiring::default()
    };
    let decider = Decider::start(identity, rules, wiring, outbox.clone(), Board::new(), at(seconds), SYNCED).unwrap();
    (decider, outbox)
}

fn give(decider: &mut Decider, seconds: i64, request: CommandRequest) -> Effects {
    decider.process(at(seconds), SYNCED, vec![Input::Command(request)])
}

fn only(effects: &Effects) -> Reply {
    assert_eq!(effects.replies.len(), 1, "{:?}", effects.replies);
    effects.replies[0].clone()
}

fn ack(alarm_id: &str) -> Command {
    Command::Ack(AlarmCommand { alarm_id: alarm_id.into(), operator: "op".into(), issued_at: at(1), expires_at: None })
}

fn query(what: QueryWhat, devices: &[&str]) -> Command {
    let devices = devices.iter().map(|name| slug(name)).collect();
    let operator = "op".to_owned();
    Command::Query(QueryCommand {
        what,
        devices,
        from_sequence: None,
        to_sequence: None,
        operator,
        issued_at: at(1),
        expires_at: None,
    })
}

fn shelve(until: i64) -> Command {
    Command::Shelve(ShelveCommand {
        device: slug("door-1"),
        kind: AlarmKind::DoorLeftOpen,
        zone: None,
        until: at(until),
        reason: "painting".into(),
        operator: "op".into(),
        issued_at: at(1),
        expires_at: None,
    })
}

fn case(alarm_id: &str, stage: CaseStage) -> Command {
    Command::Case(CaseCommand {
        alarm_id: alarm_id.into(),
        case_id: "C-1".into(),
        stage,
        reason: None,
        note: None,
        due_at: Some(at(9_000)),
        operator: "op".into(),
        issued_at: at(1),
        expires_at: None,
    })
}

/// Every verb with what it is answered at first.
fn all_verbs(alarm_id: &str) -> Vec<(Command, Outcome)> {
    let (operator, issued_at, expires_at) = ("op".to_owned(), at(1), Some(at(1_000)));
    let device = || slug("node-1");
    vec![
        (case(alarm_id, CaseStage::Filed), Outcome::Done),
        (case(alarm_id, CaseStage::Closed), Outcome::Conflict),
        (ack(alarm_id), Outcome::Done),
        (ack("01ARZ"), Outcome::Refused),
        (
            Command::Reset(AlarmCommand {
                alarm_id: alarm_id.into(),
                operator: operator.clone(),
                issued_at,
                expires_at,
            }),
            Outcome::Conflict,
        ),
        (shelve(3_600), Outcome::Done),
        (
            Command::Unshelve(UnshelveCommand {
                device: slug("door-1"),
                kind: AlarmKind::DoorLeftOpen,
                zone: None,
                operator: operator.clone(),
                issued_at,
                expires_at,
            }),
            Outcome::Done,
        ),
        (
            Command::Visit(VisitCommand {
                door: slug("door-1"),
                what: Whereabouts::Away,
                until: None,
                operator: operator.clone(),
                issued_at,
                expires_at,
            }),
            Outcome::Refused,
        ),
        (query(QueryWhat::Alarms, &[]), Outcome::Done),
        (
            Command::Sounder(SounderCommand {
                device: device(),
                for_s: 30,
                operator: operator.clone(),
                issued_at,
                expires_at,
            }),
            Outcome::Accepted,
        ),
        (
            Command::Test(TestCommand { device: slug("smoke-1"), operator: operator.clone(), issued_at, expires_at }),
            Outcome::Accepted,
        ),
        (
            Command::Snapshot(SnapshotCommand {
                camera: slug("cam-1"),
                operator: operator.clone(),
                issued_at,
                expires_at,
            }),
            Outcome::Accepted,
        ),
        (Command::Config(ConfigCommand { bundle: "AAAA".into(), operator, issued_at, expires_at }), Outcome::Refused),
    ]
}

fn logged(outbox: &Outbox, cmd_id: &str) -> Vec<Outcome> {
    let commands = events(outbox).into_iter().filter_map(|event| event.command().unwrap());
    commands.filter(|data| data.cmd_id == cmd_id).map(|data| data.outcome).collect()
}

#[test]
fn every_verb_is_answered_alike_after_a_kill_between_effect_and_reply() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, mut outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    let alarm_id = decider.open_alarms()[0].alarm_id.clone();
    // That nobody is heard and nothing received meanwhile are further alarms.
    let smoke = |decider: &Decider| decider.open_alarms().into_iter().find(|alarm| alarm.kind == AlarmKind::Smoke);
    for (n, (command, expected)) in all_verbs(&alarm_id).into_iter().enumerate() {
        let id = format!("c-{n}");
        let verb = command.verb();
        // Never told: the process ends before the answer is on its way.
        let lost = only(&give(&mut decider, 10, request(&id, command.clone(), 10)));
        assert_eq!(lost.outcome, expected, "{verb}: {lost:?}");
        assert_eq!(lost.reason.is_some(), matches!(expected, Outcome::Refused | Outcome::Conflict), "{verb}");
        let alarm = smoke(&decider);
        drop((decider, outbox));
        (decider, outbox) = start(folder.path(), 20);
        assert_eq!(smoke(&decider), alarm, "{verb}");
        // Also long after it has expired.
        let again = only(&give(&mut decider, 2_000, request(&id, command.clone(), 2_000)));
        assert_eq!((again.outcome, &again.reason), (lost.outcome, &lost.reason), "{verb}");
        let repeated = expected == Outcome::Accepted || verb == "query";
        assert_eq!(again.at == lost.at, !repeated, "{verb}: what is finished is answered with its own time");
        assert_eq!(smoke(&decider), alarm, "{verb}: it changed nothing the second time");
        assert_eq!(logged(&outbox, &id).len(), if repeated { 2 } else { 1 }, "{verb}");
    }
}

#[test]
fn an_accepted_order_is_given_once_and_its_last_word_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let order = TestCommand { device: slug("smoke-1"), operator: "op".into(), issued_at: at(1), expires_at: None };
    let order = Command::Test(order);
    let effects = give(&mut decider, 1, request("t1", order.clone(), 1));
    assert_eq!(effects.orders, [("t1".to_owned(), Order { node: slug("node-1"), what: Action::Test(2) })]);
    let effects = give(&mut decider, 2, request("t1", order.clone(), 2));
    assert_eq!((only(&effects).outcome, effects.orders.len()), (Outcome::Accepted, 0), "it is in hand");
    let done = Reply::new("t1", Outcome::Done, None, at(3));
    let effects = decider.process(at(3), SYNCED, vec![Input::Answered(done.clone())]);
    assert_eq!(effects.replies, std::slice::from_ref(&done));
    drop((decider, outbox));
    let (mut decider, outbox) = start(folder.path(), 10);
    let effects = give(&mut decider, 11, request("t1", order.clone(), 11));
    assert_eq!((only(&effects), effects.orders.len()), (done, 0));
    assert_eq!(logged(&outbox, "t1"), [Outcome::Accepted, Outcome::Done]);
    // One whose end a restart swallowed is given again.
    give(&mut decider, 12, request("t2", order.clone(), 12));
    drop((decider, outbox));
    let (mut decider, _) = start(folder.path(), 20);
    assert_eq!(give(&mut decider, 21, request("t2", order.clone(), 21)).orders.len(), 1);
    // And one that could not be passed on as well.
    decider.not_passed_on("t2");
    assert_eq!(give(&mut decider, 22, request("t2", order, 22)).orders.len(), 1);
}

#[test]
fn an_errand_is_handed_on_and_only_to_who_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    let snapshot = |camera: &str| SnapshotCommand {
        camera: slug(camera),
        operator: "op".into(),
        issued_at: at(1),
        expires_at: None,
    };
    let effects = give(&mut decider, 1, request("s1", Command::Snapshot(snapshot("cam-1")), 1));
    assert_eq!(effects.errands, [("s1".to_owned(), Errand::Snapshot(snapshot("cam-1")))]);
    let refused = only(&give(&mut decider, 1, request("s2", Command::Snapshot(snapshot("door-1")), 1)));
    assert!(refused.reason.unwrap().en.contains("no camera"));
}

#[test]
fn a_snapshot_is_journaled_with_its_picture_queued_once_and_answered_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let order = SnapshotCommand { camera: slug("cam-1"), operator: "op".into(), issued_at: at(1), expires_at: None };
    let order = Command::Snapshot(order);
    let taken = |cmd_id: &str| {
        let data = SnapshotData { sha256: "ab".repeat(32), bytes: 7, media_type: "image/jpeg".into(), taken_at: at(2) };
        Reply { data: serde_json::to_value(data).ok(), ..Reply::new(cmd_id, Outcome::Done, None, at(3)) }
    };
    give(&mut decider, 1, request("s1", order.clone(), 1));
    let effects = decider.process(at(3), SYNCED, vec![Input::Answered(taken("s1"))]);
    assert_eq!(effects.replies, [taken("s1")]);
    let named = events(&outbox).into_iter().filter_map(|event| event.command().unwrap());
    let named: Vec<_> = named.map(|data| data.evidence).collect();
    assert!(named.len() == 2 && named[0].is_empty(), "{named:?}");
    assert_eq!((named[1][0].n, named[1][0].bytes, named[1][0].taken_at), (1, 7, at(2)));
    let queued = |outbox: &Outbox| outbox.waiting()[gengfu_outbox::Lane::Evidence.index()];
    assert_eq!((outbox.lookup("s1/1").unwrap().is_some(), queued(&outbox)), (true, 1));
    drop((decider, outbox));
    let (mut decider, outbox) = start(folder.path(), 10);
    let effects = give(&mut decider, 11, request("s1", order.clone(), 11));
    assert_eq!((only(&effects), effects.errands.len(), queued(&outbox)), (taken("s1"), 0, 1), "with the same picture");
    // A second last word changes nothing, and one that the disk refuses is not told: its picture would never come.
    decider.process(at(12), SYNCED, vec![Input::Answered(taken("s1"))]);
    assert_eq!(queued(&outbox), 1);
    give(&mut decider, 13, request("s2", order.clone(), 13));
    let (done, _answer) = oneshot::channel();
    let bad = LinkBatch { observations: Vec::new(), cursor: (b"link/node-1".to_vec(), vec![0; 1 << 20]), done };
    let effects = decider.process(at(14), SYNCED, vec![Input::Answered(taken("s2")), Input::Link(bad)]);
    assert_eq!((only(&effects).outcome, queued(&outbox)), (Outcome::Refused, 1));
    assert_eq!(give(&mut decider, 16, request("s2", order, 16)).errands.len(), 1, "it is carried out anew");
}

#[test]
fn an_id_that_was_given_to_another_command_is_refused_and_the_first_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let first = only(&give(&mut decider, 1, request("c1", shelve(3_600), 1)));
    let other = only(&give(&mut decider, 2, request("c1", shelve(7_200), 2)));
    assert!(other.outcome == Outcome::Refused && other.reason.unwrap().en.contains("another command"));
    assert_eq!(only(&give(&mut decider, 3, request("c1", shelve(3_600), 3))), first);
    let shelved: Vec<Shelf> = decider.standing(at(3)).shelved.into_iter().map(|(shelf, _)| shelf).collect();
    assert_eq!((shelved.len(), logged(&outbox, "c1").len()), (1, 1));
}

#[test]
fn expiry_is_judged_by_a_clock_that_can_be_trusted_or_on_the_safe_side() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    let alarm_id = decider.open_alarms()[0].alarm_id.clone();
    let late = |command: Command| match command {
        Command::Ack(it) => Command::Ack(AlarmCommand { expires_at: Some(at(5)), ..it }),
        Command::Shelve(it) => Command::Shelve(ShelveCommand { expires_at: Some(at(5)), ..it }),
        other => other,
    };
    let mut outcome = |id: &str, command: Command, seconds: i64, clock: ClockQuality| {
        let effects = decider.process(at(seconds), clock, vec![Input::Command(request(id, late(command), seconds))]);
        only(&effects).outcome
    };
    assert_eq!(outcome("a", ack(&alarm_id), 6, SYNCED), Outcome::Refused);
    assert_eq!(outcome("b", shelve(100), 6, ClockQuality::Unsynced), Outcome::Refused, "what hides is refused");
    assert_eq!(outcome("c", ack(&alarm_id), 6, ClockQuality::Unsynced), Outcome::Done, "a person's word counts");
    assert_eq!(outcome("d", shelve(100), 5, SYNCED), Outcome::Done);
}

#[test]
fn retained_anonymous_and_ancient_commands_are_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, _) = start(folder.path(), 0);
    let mut reason = |id: &str, seconds: i64, change: &dyn Fn(&mut CommandRequest)| {
        let mut request = request(id, shelve(seconds + 60), seconds);
        change(&mut request);
        let reply = only(&give(&mut decider, seconds, request));
        assert_eq!(reply.outcome, Outcome::Refused);
        reply.reason.unwrap().en
    };
    assert!(reason("a", 2, &|it| it.retained = true).contains("retain"));
    let nobody = |it: &mut CommandRequest| {
        let Command::Shelve(order) = &mut it.command else { panic!("a shelving") };
        order.operator = "  ".into();
    };
    assert!(reason("b", 2, &nobody).contains("operator"));
    assert!(reason("c", 8 * 86_400, &|_| {}).contains("too long ago"));
}

#[test]
fn the_memory_is_bounded_and_what_may_be_forgotten_is_not_carried_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let numbered = |n: i64| {
        let operator = "op".to_owned();
        let it = AlarmCommand { alarm_id: "01ARZ".into(), operator, issued_at: at(n), expires_at: None };
        request(&format!("n-{n}"), Command::Ack(it), n)
    };
    let most = i64::try_from(COUNT_MAX).unwrap();
    for chunk in (0..most + 5).collect::<Vec<_>>().chunks(256) {
        let inputs = chunk.iter().map(|n| Input::Command(numbered(*n))).collect();
        decider.process(at(most + 10), SYNCED, inputs);
    }
    assert_eq!(outbox.scan(b"cmd/").unwrap().len(), COUNT_MAX);
    drop((decider, outbox));
    let (mut decider, _) = start(folder.path(), most + 20);
    let gone = only(&give(&mut decider, most + 20, numbered(3)));
    assert!(gone.reason.unwrap().en.contains("too long ago"));
    let kept = only(&give(&mut decider, most + 20, numbered(most)));
    assert!(kept.reason.unwrap().en.contains("not open here"), "answered as before");
}

#[test]
fn what_the_disk_refused_was_not_answered_and_is_carried_out_when_it_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let (done, _answer) = oneshot::channel();
    // A state value above the outbox's bound makes the commit fail as a whole.
    let cursor = (b"link/node-1".to_vec(), vec![0; 1 << 20]);
    let bad = Input::Link(LinkBatch { observations: Vec::new(), cursor, done });
    let effects = decider.process(at(1), SYNCED, vec![Input::Command(request("c1", shelve(60), 1)), bad]);
    assert!(only(&effects).reason.unwrap().en.contains("cannot store"));
    assert!(decider.standing(at(1)).shelved.is_empty() && logged(&outbox, "c1").is_empty());
    assert_eq!(only(&give(&mut decider, 2, request("c1", shelve(60), 2))).outcome, Outcome::Done);
    assert_eq!(decider.standing(at(2)).shelved.len(), 1);
}

#[test]
fn the_same_command_twice_in_one_batch_is_carried_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let twice = (0..2).map(|_| Input::Command(request("c1", shelve(60), 1))).collect();
    let effects = decider.process(at(1), SYNCED, twice);
    assert_eq!(effects.replies[0], effects.replies[1]);
    assert_eq!(logged(&outbox, "c1").len(), 1);
}

#[test]
fn a_query_tells_alarms_devices_and_the_journal_as_they_are_and_unknown_names() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    link(&mut decider, 1, vec![seen("smoke-1", 1, 1, What::Smoke(Smoke::Alarm))]).unwrap();
    let mut items = |id: &str, what: QueryWhat, devices: &[&str]| {
        let effects = give(&mut decider, 2, request(id, query(what, devices), 2));
        let mut joiner = ReplyJoiner::default();
        effects.replies.iter().filter_map(|reply| joiner.take(reply).unwrap()).next_back().unwrap()
    };
    let alarms = items("q1", QueryWhat::Alarms, &[]);
    let snapshot: AlarmSnapshot = serde_json::from_value(alarms[0].clone()).unwrap();
    assert_eq!((alarms.len(), snapshot.sequence, snapshot.alarm.kind), (1, 3, AlarmKind::Smoke));
    assert_eq!(items("q2", QueryWhat::Devices, &["smoke-1"])[0]["state"], "alarm");
    let journal = items("q3", QueryWhat::Journal, &[]);
    assert_eq!(
        journal[2],
        serde_json::from_slice::<serde_json::Value>(&outbox.journal(3, 1).unwrap()[0].bytes).unwrap()
    );
    let refused = only(&give(&mut decider, 3, request("q4", query(QueryWhat::Homes, &["door-9"]), 3)));
    assert!(refused.outcome == Outcome::Refused && refused.reason.unwrap().en.contains("door-9"));
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the contract's 5 s for 800 homes is measured, with a margin of 100 and more"
)]
fn eight_hundred_homes_are_told_within_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(Options::new(folder.path().join("outbox"))).unwrap();
    let identity = Identity { site: slug("site"), gateway: slug("gw-1"), evidence_dir: folder.path().to_owned() };
    let mut rules = rules();
    for n in 0..800 {
        let (door, node) = (slug(&format!("home-{n}")), slug(&format!("n-{}", n / 16)));
        rules.devices.insert(node.clone(), DeviceRule::default());
        let rule = DeviceRule {
            class: DeviceClass::Door,
            parent: Some(node),
            subject_ref: Some(format!("p-{n}")),
            ..DeviceRule::default()
        };
        rules.devices.insert(door.clone(), rule);
        rules.timing.care.homes.insert(door, CareRule::default());
    }
    let mut decider = Decider::start(identity, rules, Wiring::default(), outbox, Board::new(), at(0), SYNCED).unwrap();
    let opened = (0..800).map(|n| seen(&format!("home-{n}"), n / 10, 1, What::Door { open: true, repaired: false }));
    link(&mut decider, 100, opened.collect()).unwrap();
    let begun = std::time::Instant::now();
    let effects = give(&mut decider, 101, request("q1", query(QueryWhat::Homes, &[]), 101));
    let took = begun.elapsed();
    let mut joiner = ReplyJoiner::default();
    let homes = effects.replies.iter().filter_map(|reply| joiner.take(reply).unwrap()).next_back().unwrap();
    let homes: Vec<HomeActivity> = homes.into_iter().map(|home| serde_json::from_value(home).unwrap()).collect();
    let home = homes.iter().find(|home| home.door == slug("home-799")).unwrap();
    assert_eq!((homes.len(), home.last_opened_at, home.state.as_str()), (800, Some(at(79)), "open"));
    println!("800 homes in {took:?}, {} part(s)", effects.replies.len());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_technician_is_answered_and_the_centre_sees_what_is_out_of_service() {
    let folder = tempfile::tempdir().unwrap();
    let (mut decider, outbox) = start(folder.path(), 0);
    let mut order = |seconds: i64, order: LocalOrder| {
        let (answer, answered) = oneshot::channel();
        let request = Input::Local(LocalRequest { order, answer });
        decider.process(at(seconds), SYNCED, vec![request]);
        (answered.blocking_recv().unwrap(), decider.devices())
    };
    let serve = |hours: u64| LocalOrder::Serve {
        device: slug("smoke-1"),
        service: Service::Out,
        lasts: Duration::from_secs(hours * 3600),
        reason: "dust".into(),
        who: "li".into(),
    };
    let (answer, _) = order(1, serve(5));
    assert!(answer.unwrap_err().en.contains("240 min"));
    let (answer, devices) = order(2, serve(4));
    answer.unwrap();
    let side = devices.iter().find(|state| state.device == slug("smoke-1")).unwrap().side.clone().unwrap();
    assert_eq!((side.until, side.who.as_str()), (at(2 + 4 * 3600), "li"));
    let (answer, devices) = order(3, LocalOrder::GiveBack { device: slug("smoke-1"), who: "li".into() });
    answer.unwrap();
    assert!(devices.iter().all(|state| state.side.is_none()));
    let told: Vec<String> = events(&outbox).iter().filter_map(|e| e.observed().unwrap()).map(|o| o.what).collect();
    assert_eq!(told, ["service.out", "service.back"]);
}
