//! The road from a sensor to the dispatch centre and back, with real parts: two nodes on pseudo-terminals, the gateway's binary, mosquitto,
//! the reference desk; on MQTT 5 and 3.1.1. Method: make things happen at the nodes, and judge what the desk has, what the broker
//! keeps, and what the gateway's own commands, log and metrics say about it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::time::Duration;

use gengfu::config::Protocol;
use gengfu::desk::DeskEvent;
use gengfu_contract::command::Outcome;
use gengfu_contract::event::{Event, EventType};
use gengfu_contract::words::{AlarmKind, Condition, Lane};
use gengfu_node_linux::Command::{Contact, Smoke};
use hil_tests::clip::repository;
use hil_tests::gateway::Gateway;
use hil_tests::ports::Port;
use hil_tests::process::eventually;
use hil_tests::site::{GATEWAY, Plan, SITE, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mqtt = || need::all([need::tool("mosquitto"), need::tool("mosquitto_sub")]);
    skip::main(vec![
        skip::test("smoke_and_door_go_the_whole_road_on_mqtt_5", mqtt(), || whole_road(Protocol::Mqtt5)),
        skip::test("smoke_and_door_go_the_whole_road_on_mqtt_3_1_1", mqtt(), || whole_road(Protocol::Mqtt311)),
        skip::test("smoke_overtakes_what_waits_on_mqtt_5", mqtt(), || overtakes(Protocol::Mqtt5)),
        skip::test("smoke_overtakes_what_waits_on_mqtt_3_1_1", mqtt(), || overtakes(Protocol::Mqtt311)),
        skip::test("check_names_every_planted_fault_and_what_the_machine_lacks", need::nothing(), check),
    ])
}

fn whole_road(protocol: Protocol) -> Result<()> {
    let metrics = Port::reserve()?;
    let plan = Plan { protocol, metrics: Some(metrics.number()), ..Plan::default() };
    let mut site = Site::start(&plan)?;
    let (code, out, err) = site.gateway.check(&[])?;
    assert_eq!(code, Some(0), "check of the running gateway's configuration: {out}{err}");

    site.nodes[0].act(Contact { open: true })?;
    site.nodes[1].act(Smoke(true))?;
    let smoke = raised(&site, AlarmKind::Smoke)?;
    let door = raised(&site, AlarmKind::DoorLeftOpen)?;
    let alarm = smoke.alarm().expect("an alarm event").expect("an alarm event");
    assert_eq!((alarm.device.as_str(), alarm.condition, smoke.lane), ("smoke-2", Condition::ActiveUnack, Lane::Fire));
    assert!(alarm.origin.is_some(), "the alarm names the node's event");
    let late = smoke.historical;
    assert!(late.is_none_or(|late| !late), "a fresh alarm is marked historical");
    site.settle()?;
    let open = [&smoke.subject, &door.subject].map(String::as_str).into();
    retained_are(&site, protocol, &open)?;
    is_well(&site)?;

    smoke_is_handled(&site, &smoke.subject)?;
    site.nodes[0].act(Contact { open: false })?;
    condition_becomes(&site, &door.subject, Condition::ClearedUnack)?;
    site.desk.acknowledge(&door.subject, "op-7")?;
    condition_becomes(&site, &door.subject, Condition::Normal)?;
    site.settle()?;
    retained_are(&site, protocol, &BTreeSet::new())?;

    trace_is_whole(&site, &smoke)?;
    log_has_one_line_a_hop(&mut site, &smoke)?;
    metrics_are_as_documented(metrics.number())?;
    let account = site.account()?;
    println!("{protocol:?}: {account:?}");
    assert_eq!(site.gateway.stop(SOON)?, Some(0), "a gateway that is told to stop ends with 0");
    eventually("the centre is told that the gateway is gone", SOON, || {
        let model = site.desk.model();
        let status = model.gateways().values().find_map(|view| view.status.clone());
        let text = serde_json::to_value(&status).unwrap_or_default()["state"].to_string();
        if text == "\"offline\"" { Ok(()) } else { Err(text) }
    })
}

/// A person acknowledges the smoke alarm, tries to reset it while it burns, and resets it after.
fn smoke_is_handled(site: &Site, alarm_id: &str) -> Result<()> {
    site.desk.acknowledge(alarm_id, "op-7")?;
    condition_becomes(site, alarm_id, Condition::ActiveAck)?;
    site.desk.reset(alarm_id, "op-7")?;
    eventually("a reset while it burns is a conflict", SOON, || {
        let replies = replies(site);
        if replies.contains(&Outcome::Conflict) { Ok(()) } else { Err(format!("{replies:?}")) }
    })?;
    site.nodes[1].act(Smoke(false))?;
    condition_becomes(site, alarm_id, Condition::ClearedLatched)?;
    site.desk.reset(alarm_id, "op-8")?;
    condition_becomes(site, alarm_id, Condition::Normal)?;
    let over = site.desk.journal()?.into_iter().rev().find(|line| line.event.subject == alarm_id);
    let over = over.and_then(|line| line.event.alarm().ok().flatten());
    assert_eq!(over.and_then(|alarm| alarm.operator).as_deref(), Some("op-8"), "who ended it");
    // An answer and the event it led to travel on their own; either may come first.
    eventually("ack and reset are answered", SOON, || {
        let replies = replies(site);
        if replies.iter().filter(|outcome| **outcome == Outcome::Done).count() == 2 {
            Ok(())
        } else {
            Err(format!("{replies:?}"))
        }
    })?;
    Ok(())
}

fn replies(site: &Site) -> Vec<Outcome> {
    let told = site.desk.told();
    let replies = told.iter().filter_map(|event| match event {
        DeskEvent::Reply { reply, .. } => Some(reply.outcome),
        _ => None,
    });
    replies.collect()
}

/// Waits for the first event of an alarm of this kind at the desk.
fn raised(site: &Site, kind: AlarmKind) -> Result<Event> {
    eventually(&format!("{kind} is raised at the desk"), SOON, || {
        let journal = site.desk.journal().map_err(|e| e.to_string())?;
        let events = journal.into_iter().map(|line| line.event);
        let found = events.into_iter().find(|event| {
            event.event_type == EventType::AlarmRaised
                && event.alarm().ok().flatten().is_some_and(|alarm| alarm.kind == kind)
        });
        found.ok_or_else(|| "no such event".to_owned())
    })
}

fn condition_becomes(site: &Site, alarm_id: &str, condition: Condition) -> Result<()> {
    eventually(&format!("alarm {alarm_id} becomes {condition}"), SOON, || {
        let model = site.desk.model();
        let alarm = model.gateways().values().find_map(|view| view.alarms.get(alarm_id));
        match alarm.map(|view| view.alarm.condition) {
            Some(now) if now == condition => Ok(()),
            now => Err(format!("{now:?}")),
        }
    })
}

/// The broker keeps exactly these alarms for a centre that starts late. Asked with a program that is not ours.
fn retained_are(site: &Site, protocol: Protocol, expected: &BTreeSet<&str>) -> Result<()> {
    let filter = format!("gengfu/v1/{SITE}/{GATEWAY}/alarm/+");
    let version = if protocol == Protocol::Mqtt5 { "5" } else { "311" };
    eventually(&format!("the broker keeps the alarms {expected:?}"), SOON, || {
        let mut ask = Command::new("mosquitto_sub");
        ask.args(["-h", "127.0.0.1", "-p", &site.broker.port().to_string(), "-V", version, "-t", &filter]);
        // It ends by its time-out, with an error code; what it printed before is the answer.
        ask.args(["--retained-only", "-F", "%t %l", "-W", "1"]);
        let out = ask.output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let kept = text.lines().filter_map(|line| line.rsplit('/').next()?.split_once(' '));
        let kept: BTreeSet<&str> = kept.filter(|(_, bytes)| *bytes != "0").map(|(id, _)| id).collect();
        if kept == *expected { Ok(()) } else { Err(text.clone()) }
    })
}

/// `status` finds nothing wrong (but perhaps the machine's clock, which a test cannot set).
fn is_well(site: &Site) -> Result<()> {
    let status = site.gateway.status()?;
    let findings = status["findings"].as_array().cloned().unwrap_or_default();
    let wrong: Vec<&Value> =
        findings.iter().filter(|finding| !finding["problem"].as_str().unwrap_or_default().contains("clock")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(status["uplink"]["centre"], "online", "{status:#}");
    assert_eq!(status["alarms"].as_array().map(Vec::len), Some(2), "{status:#}");
    let (code, text, _) = site.gateway.command_output(&["status"])?;
    let clock = findings.len() - wrong.len();
    assert_eq!(code, Some(i32::from(clock > 0)), "{text}");
    assert!(text.contains("烟雾报警") && text.contains("Smoke alarm"), "{text}");
    Ok(())
}

fn trace_is_whole(site: &Site, event: &Event) -> Result<()> {
    let (code, out, err) = site.gateway.command_output(&["trace", &event.id, "--json"])?;
    assert_eq!(code, Some(0), "{err}");
    let trace: Value =
        serde_json::from_str(&out).map_err(|e| RigError::failed("read the trace", format!("{e}\n{out}")))?;
    assert_eq!(trace["outcome"], "received", "{trace:#}");
    let stages = ["sensed_at", "decided_at", "stored_at", "sent_at", "broker_acked_at", "received_at"];
    // The store keeps milliseconds, the event more.
    let at = |stage: &&str| trace[*stage].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let times: Vec<i64> = stages.iter().filter_map(at).map(|at| at.as_millisecond()).collect();
    assert_eq!(times.len(), stages.len(), "a stage is missing: {trace:#}");
    // The broker's PUBACK and the desk's receipt come on their own ways; everything before is in order.
    assert!(times[..5].is_sorted() && times[5] >= times[3], "{trace:#}");
    let (code, _, err) = site.gateway.command_output(&["trace", "01NOSUCHID"])?;
    assert_eq!(code, Some(1), "an unknown id is a no: {err}");
    Ok(())
}

/// One line a hop, with the alarm's id; the observation before it is found by the node's event.
fn log_has_one_line_a_hop(site: &mut Site, event: &Event) -> Result<()> {
    let output = site.gateway.process()?.output();
    let lines: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut hops: BTreeMap<String, usize> = BTreeMap::new();
    for line in &lines {
        let about = line["id"] == event.id.as_str() && line["alarm"] == event.subject.as_str();
        let stored =
            line["hop"] == "stored" && line["alarm"] == event.subject.as_str() && line["sequence"] == event.sequence;
        if about || stored {
            *hops.entry(line["hop"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let expected = ["broker_acked", "decided", "received", "sent", "stored"];
    assert_eq!(hops, expected.map(|hop| (hop.to_owned(), 1)).into(), "hops of {}\n{output}", event.id);
    let sensed = lines.iter().filter(|line| line["hop"] == "sensed" && line["device"] == "smoke-2").count();
    assert!(sensed >= 1, "no line for the observation\n{output}");
    Ok(())
}

/// Every metric that is served is documented; the ones that this scenario moves are served.
fn metrics_are_as_documented(port: u16) -> Result<()> {
    let served = eventually("the gauges are served", SOON, || {
        let served = scrape(port).map_err(|e| e.to_string())?;
        if served.contains("gengfu_link_up{") { Ok(served) } else { Err(served) }
    })?;
    let text = std::fs::read_to_string(repository().join("docs/operating.md"))
        .map_err(|e| RigError::failed("read docs/operating.md", e))?;
    let documented: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| `gengfu_")?.split('`').next()).collect();
    let names = served.lines().filter_map(|line| line.strip_prefix("gengfu_")?.split(['{', ' ']).next());
    let names: BTreeSet<&str> = names
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect();
    let unknown: Vec<_> = names.difference(&documented).collect();
    assert!(unknown.is_empty(), "served and not in docs/operating.md: {unknown:?}");
    for name in [
        "alarm_transitions_total",
        "outbox_pending",
        "decide_batch_inputs",
        "link_up",
        "uplink_connected",
        "uplink_connects_total",
        "uplink_sent_total",
        "uplink_broker_acked_total",
        "uplink_received_total",
        "uplink_commands_total",
        "uplink_receipt_latency_seconds",
        "uplink_overdue_life_safety",
    ] {
        assert!(names.contains(name), "gengfu_{name} is not served:\n{served}");
    }
    Ok(())
}

fn scrape(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// While the broker is away a door goes again and again; the smoke that comes last arrives first.
fn overtakes(protocol: Protocol) -> Result<()> {
    let mut site = Site::start(&Plan { protocol, left_open_after: "1h", ..Plan::default() })?;
    site.settle()?;
    let before = site.gateway.status()?["outbox"]["sequence"].as_u64().unwrap_or_default();
    site.broker.kill();
    let doors = 12;
    for n in 0..doors {
        site.nodes[0].act(Contact { open: n % 2 == 0 })?;
        eventually("the node has sensed it and the gateway has it", SOON, || {
            let accepted = site.nodes[0].accepted().len();
            if accepted > n && site.nodes[0].is_idle() { Ok(()) } else { Err(format!("{accepted} events")) }
        })?;
    }
    site.nodes[1].act(Smoke(true))?;
    site.gateway.wait_until("smoke waits for the broker", SOON, |status| {
        status["outbox"]["lanes"]
            .as_array()
            .is_some_and(|lanes| lanes.iter().any(|lane| lane["lane"] == "fire" && lane["pending"].as_u64() > Some(0)))
    })?;
    site.broker.restart(hil_tests::broker::Memory::Keep)?;
    site.settle()?;
    let journal = site.desk.journal()?;
    let waited: Vec<&Event> = journal.iter().map(|line| &line.event).filter(|event| event.sequence > before).collect();
    assert!(waited.len() > doors, "{} events waited", waited.len());
    assert_eq!(waited[0].lane, Lane::Fire, "first came {:?}", waited[0]);
    assert!(waited[1..].iter().any(|event| event.sequence < waited[0].sequence), "nothing was overtaken");
    site.account().map(|account| println!("{protocol:?}: {account:?}"))
}

fn check() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let good = Plan { left_open_after: "15m", ..Plan::default() }.config(dir.path(), 1883);
    let gateway = Gateway::prepare(dir.path(), &good)?;
    let (code, out, _) = gateway.check(&["--json"])?;
    let findings: Value = serde_json::from_str(&out).map_err(|e| RigError::failed("read the findings", e))?;
    assert_eq!((code, &findings["valid"]), (Some(1), &Value::Bool(true)), "{findings:#}");
    let lacks = findings["lacks"].as_array().cloned().unwrap_or_default();
    let lacking = |key: &str| lacks.iter().any(|lack| lack["key"] == key && lack["remedy"] != "");
    assert!(lacking("node[0].port") && lacking("node[1].port"), "ports that are not there: {findings:#}");
    assert_eq!(gateway.check(&["--faults-only"])?.0, Some(0), "the file itself is right");

    let planted = [
        ("site = \"hil\"", "site = \"Hil Site\"", "gateway.site"),
        ("protocol = \"5\"", "protocol = \"4\"", "uplink.protocol"),
        ("broker = \"127.0.0.1:1883\"", "broker = \"127.0.0.1\"", "uplink.broker"),
        ("keep_alive = \"5s\"", "keep_alive = \"5\"", "uplink.keep_alive"),
        ("socket = ", "sokcet = ", "local.sokcet"),
        ("silence = \"10s\"", "silence = \"1s\"", "node[0].silence"),
        ("channel = 1", "channel = 99", "node[0].device[0].channel"),
        ("class = \"smoke\"", "class = \"smoek\"", "node[0].device[1].class"),
    ];
    let mut bad = good;
    for (right, wrong, key) in planted {
        assert!(bad.contains(right), "nothing to plant {key} on");
        bad = bad.replacen(right, wrong, 1);
    }
    let gateway = Gateway::prepare(dir.path(), &bad)?;
    let (code, out, _) = gateway.check(&["--json"])?;
    let findings: Value = serde_json::from_str(&out).map_err(|e| RigError::failed("read the findings", e))?;
    assert_eq!((code, &findings["valid"]), (Some(1), &Value::Bool(false)), "{findings:#}");
    let faults = findings["faults"].as_array().cloned().unwrap_or_default();
    for (_, _, key) in planted {
        let told = faults.iter().any(|fault| {
            fault["key"] == key
                && fault["line"].as_u64() > Some(0)
                && fault["remedy"].as_str().is_some_and(|r| !r.is_empty())
        });
        assert!(told, "{key} is not among the faults: {findings:#}");
    }
    assert_eq!(faults.len(), planted.len(), "faults that were not planted: {findings:#}");
    let (code, text, _) = gateway.check(&[])?;
    assert!(code == Some(1) && planted.iter().all(|(_, _, key)| text.contains(key)), "{text}");
    let (code, _, err) = gateway.command_output(&["run"])?;
    assert_eq!(code, Some(2), "a gateway does not start with faults: {err}");
    let nowhere = Gateway::prepare(dir.path(), "")?;
    std::fs::remove_file(nowhere.config()).map_err(|e| RigError::failed("remove the configuration", e))?;
    assert_eq!(nowhere.check(&[])?.0, Some(2), "a file that is not there could not be checked");
    Ok(())
}
