//! The reference desk as a program: orders from the command line and their answers, two desks that share the load, a recorded stream
//! that somebody tampers with on the broker, and the proof from the journal on disk. Method: a real gateway, mosquitto, and the
//! `gengfu` binary as a person or script uses it; judged by exit codes and printed JSON.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use gengfu::config::Protocol;
use gengfu::desk::presence::There;
use gengfu::desk::{DeskEvent, DeskModel};
use gengfu_contract::chain;
use gengfu_contract::event::Event;
use gengfu_contract::state::Statement;
use gengfu_contract::words::{AlarmKind, Condition};
use gengfu_node_linux::Command::{Contact, Smoke};
use hil_tests::broker::{Broker, BrokerOptions};
use hil_tests::desk::slug;
use hil_tests::gateway::binary;
use hil_tests::process::{Process, eventually};
use hil_tests::site::{GATEWAY, Plan, SITE, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mqtt = || need::all([need::tool("mosquitto"), need::tool("mosquitto_pub")]);
    skip::main(vec![
        skip::test("orders_from_the_command_line_are_answered_on_mqtt_5", mqtt(), || orders(Protocol::Mqtt5)),
        skip::test("orders_from_the_command_line_are_answered_on_mqtt_3_1_1", mqtt(), || orders(Protocol::Mqtt311)),
        skip::test("a_gateway_that_dies_is_known_by_its_will", mqtt(), dies),
        skip::test("two_desks_share_the_load_and_their_journals_together_are_the_proof", mqtt(), shared),
        skip::test("a_stream_tampered_with_is_named_live_and_by_the_report", mqtt(), tampered),
        skip::test("a_gateways_share_of_a_desks_memory_is_bounded", need::nothing(), bounded),
    ])
}

/// Runs `gengfu desk …`: its exit code, the JSON it printed, standard error.
fn desk(words: &[&str], port: u16, protocol: Protocol) -> Result<(Option<i32>, Value, String)> {
    let broker = format!("127.0.0.1:{port}");
    let version = if protocol == Protocol::Mqtt5 { "5" } else { "3.1.1" };
    let mut command = Command::new(binary()?);
    command.arg("desk").args(words).args(["--site", SITE, "--broker", &broker, "--protocol", version, "--json"]);
    let output = command.output().map_err(|e| RigError::failed("run gengfu desk", e))?;
    let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok((output.status.code(), printed, String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn raised(site: &Site, kind: AlarmKind) -> Result<String> {
    eventually(&format!("{kind} is raised at the desk"), SOON, || {
        let model = site.desk.model();
        let alarm = model.alarms_of(kind).first().map(|(_, view)| view.alarm.alarm_id.clone());
        alarm.ok_or_else(|| "no such alarm".to_owned())
    })
}

fn becomes(site: &Site, alarm_id: &str, condition: Condition) -> Result<()> {
    eventually(&format!("alarm {alarm_id} becomes {condition}"), SOON, || {
        let model = site.desk.model();
        let alarm =
            model.gateways().values().find_map(|view| view.alarms.get(alarm_id)).map(|view| view.alarm.condition);
        if alarm == Some(condition) { Ok(()) } else { Err(format!("{alarm:?}")) }
    })
}

fn orders(protocol: Protocol) -> Result<()> {
    let plan = Plan { protocol, ..Plan::default() };
    let mut site = Site::start(&plan)?;
    let port = site.broker.port();
    let act = |words: &[&str]| desk(&[&["act"][..], words].concat(), port, protocol);
    site.nodes[1].act(Smoke(true))?;
    let alarm = raised(&site, AlarmKind::Smoke)?;

    let (code, answer, err) = act(&["ack", "--alarm", &alarm, "--operator", "op-7"])?;
    assert_eq!((code, answer["outcome"].as_str()), (Some(0), Some("done")), "{answer:?} {err}");
    assert_eq!(answer["gateway"], GATEWAY, "found out by the alarm's retained topic");
    becomes(&site, &alarm, Condition::ActiveAck)?;

    let (code, answer, err) = act(&["reset", "--alarm", &alarm])?;
    assert_eq!((code, answer["outcome"].as_str()), (Some(1), Some("conflict")), "it still burns: {answer:?} {err}");
    assert!(answer["reply"]["reason"]["zh"].is_string(), "{answer:?}");

    for (verb, stage) in [("file", "FILED"), ("dispatch", "DISPATCHED")] {
        let (code, answer, err) = act(&[verb, "--alarm", &alarm, "--operator", "op-7"])?;
        assert_eq!(code, Some(0), "{verb}: {answer:?} {err}");
        eventually(&format!("the alarm says that its case is {stage}"), SOON, || {
            let model = site.desk.model();
            let case = model.alarms_of(AlarmKind::Smoke)[0].1.alarm.case.as_ref().map(|case| case.stage.to_string());
            if case.as_deref() == Some(stage) { Ok(()) } else { Err(format!("{case:?}")) }
        })?;
    }
    let shelve = ["shelve", "--device", "smoke-2", "--kind", "smoke", "--for", "1h", "--reason", "noise"];
    let (code, answer, _) = act(&shelve)?;
    assert_eq!((code, answer["outcome"].as_str()), (Some(1), Some("refused")), "smoke is never shelved: {answer:?}");

    let (code, answer, err) = act(&["query", "--what", "journal", "--from", "1", "--to", "3", "--gateway", GATEWAY])?;
    assert_eq!(code, Some(0), "{answer:?} {err}");
    let sequences: Vec<_> = answer["items"].as_array().into_iter().flatten().map(|e| e["sequence"].clone()).collect();
    assert_eq!(sequences, [1, 2, 3].map(|n| Value::from(format!("{n:020}"))));

    let (code, _, err) = act(&["ack", "--alarm", "01NOSUCHALARM", "--within", "2s"])?;
    assert_eq!(code, Some(2), "nobody knows it: {err}");
    assert!(err.contains("--gateway"), "{err}");
    let (code, _, err) = act(&["reject", "--alarm", &alarm])?;
    assert_eq!(code, Some(2), "a rejection without a reason is not even sent: {err}");
    assert!(err.contains("--reason"), "{err}");

    site.settle()?;
    let path = site.desk.journal_path().display().to_string();
    let (code, report, text) = report(&[path.as_str()])?;
    assert_eq!(code, Some(0), "{report} {text}");
    assert_eq!(report["gateways"][GATEWAY]["is_whole"], true, "{report}");
    Ok(())
}

/// `gengfu desk report` over these journals: exit code, JSON, standard error.
fn report(journals: &[&str]) -> Result<(Option<i32>, Value, String)> {
    let mut command = Command::new(binary()?);
    command.args(["desk", "report", "--json"]).args(journals);
    let output = command.output().map_err(|e| RigError::failed("run gengfu desk report", e))?;
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok((output.status.code(), report, String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn dies() -> Result<()> {
    let mut site = Site::start(&Plan::default())?;
    let told = |site: &Site| {
        let mut told = site.desk.told().into_iter().rev();
        told.find_map(|event| if let DeskEvent::Presence { there, .. } = event { Some(there) } else { None })
    };
    let is = |site: &Site, wanted: There| {
        let now = told(site);
        if now == Some(wanted) { Ok(()) } else { Err(format!("{now:?}")) }
    };
    eventually("the gateway is online", SOON, || is(&site, There::Online))?;
    site.gateway.kill();
    eventually("the centre knows that the gateway is dead", Duration::from_secs(90), || is(&site, There::Offline))
}

fn shared() -> Result<()> {
    let mut site = Site::start(&Plan::default())?;
    site.settle()?;
    let dir = site.dir.path().to_owned();
    let broker = format!("127.0.0.1:{}", site.broker.port());
    let journal = |name: &str| dir.join(format!("{name}.jsonl"));
    let start = |name: &str| -> Result<Process> {
        let mut command = Command::new(binary()?);
        command.args(["desk", "--json", "--site", SITE, "--broker", &broker, "--name", name, "--share", "both"]);
        command.arg("--journal").arg(journal(name)).arg("--evidence").arg(dir.join(format!("{name}-pictures")));
        let mut process = Process::spawn(name, command, &dir)?;
        process.wait_for_line("\"connected\"", SOON)?;
        process.wait_for_line("\"gateway\"", SOON)?;
        Ok(process)
    };
    let (mut east, mut west) = (start("east")?, start("west")?);
    let from = site.desk.journal()?.len();
    for turn in 0..20 {
        site.nodes[0].act(Contact { open: turn % 2 == 0 })?;
        eventually("the event is at the desk of the site", SOON, || {
            let count = site.desk.journal().map_err(|e| e.to_string())?.len();
            if count > from + turn { Ok(()) } else { Err(format!("{count} events")) }
        })?;
    }
    let wanted: BTreeSet<u64> = site.desk.journal()?.iter().skip(from).map(|line| line.event.sequence).collect();
    let of = |name: &str| sequences(&journal(name));
    eventually("both together have every event", SOON, || {
        let both: BTreeSet<u64> = of("east").union(&of("west")).copied().collect();
        if wanted.is_subset(&both) { Ok(()) } else { Err(format!("{:?}", wanted.difference(&both))) }
    })?;
    east.terminate(SOON)?;
    west.terminate(SOON)?;
    assert!(!of("east").is_empty() && !of("west").is_empty(), "the broker shares: {:?} {:?}", of("east"), of("west"));
    let paths = ["east", "west"].map(|name| journal(name).display().to_string());
    let (_, alone, _) = report(&[paths[0].as_str()])?;
    let (_, both, text) = report(&[paths[0].as_str(), paths[1].as_str()])?;
    let missing = |report: &Value| report["gateways"][GATEWAY]["proof"]["missing_events"].as_u64();
    assert!(missing(&alone) > Some(0), "one alone has gaps: {alone}");
    assert_eq!(missing(&both), Some(0), "{both} {text}");
    assert_eq!(both["gateways"][GATEWAY]["proof"]["chain_breaks"].as_array().map(Vec::len), Some(0), "{both}");
    Ok(())
}

/// Sequences of the events in a journal, as far as it is written.
fn sequences(path: &Path) -> BTreeSet<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let number = |line: Value| line["event"]["sequence"].as_str().and_then(|text| text.parse().ok());
    lines.filter_map(number).collect()
}

/// The events of a real gateway, recorded once.
fn recorded() -> Result<Vec<Event>> {
    let mut site = Site::start(&Plan::default())?;
    for turn in 0..10 {
        site.nodes[0].act(Contact { open: turn % 2 == 0 })?;
        site.nodes[1].act(Smoke(turn % 2 == 0))?;
        let wanted = 2 * turn + 2;
        eventually("both events are at the desk", SOON, || {
            let journal = site.desk.journal().map_err(|e| e.to_string())?;
            let count = journal.iter().filter(|line| line.event.observed().ok().flatten().is_some()).count();
            if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
        })?;
    }
    site.settle()?;
    let mut events: Vec<Event> = site.desk.journal()?.into_iter().map(|line| line.event).collect();
    events.sort_by_key(|event| event.sequence);
    assert!(events.len() >= 20);
    Ok(events)
}

/// What somebody does to the recorded stream, and the word of the finding that must name it, with the number it must name.
type Deed = (&'static str, fn(&mut Vec<Event>), Option<(&'static str, u64)>);

const DEEDS: [Deed; 5] = [
    ("nothing", |_| {}, None),
    ("drops one", |events| drop(events.remove(6)), Some(("missing", 7))),
    ("changes one", |events| events[8].data["tampered"] = true.into(), Some(("changed", 9))),
    ("forges a link", |events| events[4].prevhash = "ab".repeat(32), Some(("changed", 5))),
    ("turns them round", |events| events.reverse(), None),
];

fn tampered() -> Result<()> {
    let events = recorded()?;
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let broker = Broker::start(dir.path(), &BrokerOptions::default())?;
    let head = events.last().and_then(|event| chain::canonical(event).ok()).map(|bytes| hex(&chain::hash(&bytes)));
    let last = events.last().expect("a stream of some events");
    let statement = Statement {
        sequence: last.sequence,
        head: head.unwrap_or_default(),
        pending: [].into(),
        oldest_pending_at: None,
        dropped: [].into(),
        abandoned: [].into(),
        at: last.recordedtime,
        boot: None,
        number: None,
    };
    for (number, (what, tamper, named)) in (0..).zip(DEEDS) {
        let mut stream = events.clone();
        tamper(&mut stream);
        judge_stream(&dir.path().join(format!("deed-{number}")), &broker, &stream, &statement, what, named)?;
    }
    Ok(())
}

fn judge_stream(
    dir: &Path,
    broker: &Broker,
    stream: &[Event],
    statement: &Statement,
    what: &str,
    named: Option<(&str, u64)>,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| RigError::failed("make a folder", e))?;
    let journal: PathBuf = dir.join("desk.jsonl");
    let address = format!("127.0.0.1:{}", broker.port());
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut command = Command::new(binary()?);
    command.args(["desk", "--json", "--site", SITE, "--broker", &address, "--name", &name]);
    command.arg("--journal").arg(&journal).arg("--evidence").arg(dir.join("pictures"));
    let mut process = Process::spawn("desk", command, dir)?;
    process.wait_for_line("\"connected\"", SOON)?;
    // The subscription is in force when the desk hears what is published after it.
    let base = format!("gengfu/v1/{SITE}/{GATEWAY}");
    let lines: Vec<String> = stream.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
    eventually("the desk hears the stream", SOON, || {
        publish(broker.port(), &format!("{base}/event"), &lines).map_err(|e| e.to_string())?;
        let wanted: BTreeSet<u64> = stream.iter().map(|event| event.sequence).collect();
        let have = sequences(&journal);
        if wanted == have { Ok(()) } else { Err(format!("{} of {}", have.len(), wanted.len())) }
    })?;
    let said = serde_json::to_string(statement).map_err(|e| RigError::failed("write a statement", e))?;
    publish(broker.port(), &format!("{base}/statement"), &[said])?;
    eventually("the statement is in the journal", SOON, || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        if text.contains("\"statement\":{") { Ok(()) } else { Err("not yet".into()) }
    })?;
    process.wait_for_line("\"event\":\"statement\"", SOON)?;
    let ended = process.terminate(SOON)?;
    let is_whole = named.is_none();
    assert_eq!(ended.code(), Some(i32::from(!is_whole)), "{what}: the live desk's word\n{}", process.tail());
    let (code, report, text) = report(&[journal.display().to_string().as_str()])?;
    assert_eq!(code, Some(i32::from(!is_whole)), "{what}: {report} {text}");
    let findings = report["gateways"][GATEWAY]["findings"].as_array().cloned().unwrap_or_default();
    let told: Vec<_> =
        findings.iter().map(|f| (f["finding"].as_str(), f["first"].as_u64().or(f["sequence"].as_u64()))).collect();
    let wanted: Vec<_> = named.iter().map(|(word, number)| (Some(*word), Some(*number))).collect();
    assert_eq!(told, wanted, "{what}: exactly this is named\n{report}");
    Ok(())
}

fn publish(port: u16, topic: &str, lines: &[String]) -> Result<()> {
    let doing = "publish with mosquitto_pub";
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-l", "-t", topic]).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|e| RigError::failed(doing, e))?;
    let mut stdin = child.stdin.take().expect("it was piped");
    stdin.write_all(format!("{}\n", lines.join("\n")).as_bytes()).map_err(|e| RigError::failed(doing, e))?;
    drop(stdin);
    let ended = child.wait().map_err(|e| RigError::failed(doing, e))?;
    if ended.success() { Ok(()) } else { Err(RigError::failed(doing, ended)) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A thousand gateways of which each has sent for years must fit on a desk: what one costs does not grow with what it sent.
fn bounded() -> Result<()> {
    const GATEWAYS: u64 = 20;
    let site = slug(SITE)?;
    let mut model = DeskModel::new(site);
    let template = serde_json::json!({
        "specversion": "1.0", "id": "", "source": "", "type": "gengfu.device.observed.v1", "subject": "door-1",
        "time": "2026-11-22T08:00:00Z", "datacontenttype": "application/json", "sequence": "1",
        "recordedtime": "2026-11-22T08:00:00Z", "prevhash": "0".repeat(64), "lane": "telemetry",
        "data": {"device": "door-1", "what": "door.opened", "clock": "synced"}});
    let at: jiff::Timestamp = "2026-11-22T08:00:01Z".parse().expect("a time");
    let mut prev = vec![chain::GENESIS; usize::try_from(GATEWAYS).unwrap_or(0)];
    // Every other event is lost: the worst for what must be remembered.
    let feed = |model: &mut DeskModel, prev: &mut [[u8; 32]], range: std::ops::RangeInclusive<u64>| {
        for (number, prev) in (0..).zip(prev) {
            for sequence in range.clone() {
                let mut event = template.clone();
                (event["id"], event["sequence"]) =
                    (format!("g{number}-{sequence}").into(), format!("{sequence:020}").into());
                (event["source"], event["prevhash"]) = (format!("/gengfu/{SITE}/g-{number}").into(), hex(prev).into());
                let parsed = Event::parse(event.to_string().as_bytes()).expect("an event");
                *prev = chain::hash(&chain::canonical(&parsed).expect("it has a JSON form"));
                if sequence % 2 == 0 || sequence == 1 {
                    let topic = format!("gengfu/v1/{SITE}/g-{number}/event");
                    model.take(&topic, event.to_string().as_bytes(), at);
                }
            }
        }
    };
    feed(&mut model, &mut prev, 1..=2500);
    let full = resident_kib()?;
    feed(&mut model, &mut prev, 2501..=5000);
    let later = resident_kib()?;
    println!("{GATEWAYS} gateways: {full} KiB after 2,500 events each, {later} KiB after 5,000");
    assert_eq!(model.gateways().len() as u64, GATEWAYS);
    assert!(later.saturating_sub(full) < GATEWAYS * 64, "it grows: {full} KiB, then {later} KiB");
    Ok(())
}

fn resident_kib() -> Result<u64> {
    let doing = "read this process's memory";
    let text = std::fs::read_to_string("/proc/self/status").map_err(|e| RigError::failed(doing, e))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse().ok());
    number.ok_or_else(|| RigError::failed(doing, "no VmRSS"))
}
