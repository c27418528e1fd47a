//! The closed loop over a real broker. Goal: every verb is answered once and alike, also when the gateway is killed between effect and answer; nothing but the
//! gateway's own subtree commands it; nobody's silence goes unnoticed; a technician's word and the weekly test reach the centre. Method: the real gateway,
//! node, mosquitto and desk; commands come as any MQTT client sends them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use gengfu_contract::event::EventType;
use gengfu_contract::words::AlarmKind;
use gengfu_node_linux::Command::Smoke;
use hil_tests::Result;
use hil_tests::broker::Memory;
use hil_tests::commander::{Centre, given};
use hil_tests::process::eventually;
use hil_tests::site::{GATEWAY, Plan, SETTLED_WITHIN, Site};
use hil_tests::skip::{self, need};
use serde_json::{Value, json};

/// A kill, a restart and a reconnect are well within.
const SOON: Duration = Duration::from_secs(40);
/// Kills right after a command was sent.
const KILLS: usize = 5;

fn main() -> ExitCode {
    let mosquitto = || need::tool("mosquitto");
    skip::main(vec![
        skip::test("commands_every_verb_is_answered_and_answered_alike_after_a_kill", mosquitto(), every_verb),
        skip::test("commands_a_kill_right_after_a_command_neither_loses_nor_doubles_it", mosquitto(), killed),
        skip::test("commands_nobody_acknowledges_and_the_same_alarm_comes_again", mosquitto(), escalated),
        skip::test("commands_a_device_out_of_service_calls_nobody_until_it_is_back", mosquitto(), out_of_service),
        skip::test("commands_a_drill_is_timed_fails_without_the_centre_and_recovers", mosquitto(), drilled),
    ])
}

/// The open alarm of a kind on a device, once there is one.
fn alarm(site: &Site, kind: AlarmKind, device: &str) -> Result<Value> {
    eventually(&format!("an open {kind} on {device}"), SOON, || {
        let status = site.gateway.status().map_err(|e| e.to_string())?;
        let alarms = status["alarms"].as_array().cloned().unwrap_or_default();
        let found = alarms.into_iter().find(|alarm| alarm["kind"] == kind.as_str() && alarm["device"] == device);
        found.ok_or_else(|| status["alarms"].to_string())
    })
}

fn plan() -> Plan {
    Plan { nodes: 1, receipt_within: Some("30s"), ..Plan::default() }
}

fn every_verb() -> Result<()> {
    let mut site = Site::start(&plan())?;
    let centre = Centre::join(&site)?;
    site.nodes[0].act(Smoke(true))?;
    let smoke = alarm(&site, AlarmKind::Smoke, "smoke-1")?["alarm_id"].clone();
    let later = |hours: i64| (jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(hours)).to_string();
    let now = site.gateway.status()?["gateway"]["now"].clone();
    let until = now
        .as_str()
        .and_then(|now| now.parse::<jiff::Timestamp>().ok())
        .map(|now| now + jiff::SignedDuration::from_hours(1));
    let until = json!(until.map(|until| until.to_string()));
    let orders = [
        ("query", "v-query", json!({"what": "alarms"}), "done"),
        ("case", "v-case-1", json!({"alarm_id": smoke, "case_id": "C-1", "stage": "DISPATCHED"}), "conflict"),
        ("case", "v-case-2", json!({"alarm_id": smoke, "case_id": "C-1", "stage": "FILED"}), "done"),
        (
            "shelve",
            "v-shelve-1",
            json!({"device": "door-1", "kind": "door_left_open", "until": until, "reason": "works"}),
            "done",
        ),
        (
            "shelve",
            "v-shelve-2",
            json!({"device": "smoke-1", "kind": "smoke", "until": until, "reason": "works"}),
            "refused",
        ),
        ("unshelve", "v-unshelve", json!({"device": "door-1", "kind": "door_left_open"}), "done"),
        ("reset", "v-reset", json!({"alarm_id": smoke}), "conflict"),
        ("visit", "v-visit", json!({"door": "door-1", "what": "back"}), "refused"),
        ("sounder", "v-sounder", json!({"device": "node-1", "for_s": 0}), "done"),
        ("test", "v-test", json!({"device": "door-9"}), "refused"),
        ("snapshot", "v-snapshot", json!({"camera": "cam-9"}), "refused"),
        ("config", "v-config", json!({"bundle": "AAAA"}), "refused"),
        ("explode", "v-explode", json!({}), "refused"),
        (
            "shelve",
            "v-expired",
            json!({"device": "door-1", "kind": "door_left_open", "until": until, "reason": "works", "expires_at": later(1)}),
            "refused",
        ),
    ];
    // Another gateway's subtree is not ours.
    centre.send("gw-2", "ack", "v-foreign", &given(&site, json!({"alarm_id": smoke}))?)?;
    let mut sent = Vec::new();
    for (verb, id, body, expected) in orders {
        let body = given(&site, body)?;
        centre.send(GATEWAY, verb, id, &body)?;
        let reply = centre.last_word(id, 0)?;
        assert_eq!(reply["outcome"], expected, "{id}: {reply}");
        sent.push((verb, id, body, reply));
    }
    assert_eq!(alarm(&site, AlarmKind::Smoke, "smoke-1")?["condition"], "ACTIVE_UNACK", "neither foreign nor expired");
    assert_eq!(centre.replies("v-foreign"), Vec::<Value>::new());

    site.gateway.kill_and_restart()?;
    for (verb, id, body, first) in &sent {
        let before = centre.replies(id).len();
        centre.send(GATEWAY, verb, id, body)?;
        let again = centre.last_word(id, before)?;
        // What is asked anew, or never reached the memory, is answered now; all else as it was.
        if !["v-query", "v-explode"].contains(id) {
            assert_eq!(&again, first, "{id}");
        }
    }
    let mut other = sent[2].2.clone();
    other["case_id"] = json!("C-2");
    let before = centre.replies("v-case-2").len();
    centre.send(GATEWAY, "case", "v-case-2", &other)?;
    assert_eq!(centre.last_word("v-case-2", before)?["outcome"], "refused", "the same id with another body");

    site.settle()?;
    site.account()?;
    let logged = logged(&site)?;
    for (_, id, _, reply) in sent.iter().filter(|(_, id, ..)| *id != "v-explode") {
        let outcomes = &logged[*id];
        let most = if ["v-query", "v-sounder"].contains(id) { 2 } else { 1 };
        assert!(outcomes.len() <= most && outcomes.iter().any(|it| reply["outcome"] == *it), "{id}: {outcomes:?}");
    }
    Ok(())
}

/// Outcomes by command, from the journal that reached the desk.
fn logged(site: &Site) -> Result<BTreeMap<String, Vec<String>>> {
    let mut logged: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in site.desk.journal()? {
        if let Ok(Some(data)) = line.event.command() {
            let outcome = serde_json::to_value(data.outcome).ok().and_then(|it| it.as_str().map(str::to_owned));
            logged.entry(data.cmd_id).or_default().extend(outcome);
        }
    }
    Ok(logged)
}

fn killed() -> Result<()> {
    let mut site = Site::start(&plan())?;
    let centre = Centre::join(&site)?;
    let now = site.gateway.status()?["gateway"]["now"].clone();
    let now: jiff::Timestamp = now.as_str().and_then(|now| now.parse().ok()).unwrap_or_default();
    for n in 0..KILLS {
        let id = format!("k-{n}");
        // Each shelving has its own end, so that each is an effect of its own.
        let until = now + jiff::SignedDuration::from_mins(60 + i64::try_from(n).unwrap_or(0));
        let order =
            json!({"device": "door-1", "kind": "door_left_open", "until": until.to_string(), "reason": "works"});
        let body = given(&site, order)?;
        centre.send(GATEWAY, "shelve", &id, &body)?;
        site.gateway.kill_and_restart()?;
        site.gateway.wait_until("the gateway is back", SOON, |status| status["uplink"]["state"] == "online")?;
        centre.send(GATEWAY, "shelve", &id, &body)?;
        assert_eq!(centre.last_word(&id, 0)?["outcome"], "done", "{id}");
        let shelved = site.gateway.status()?["standing"]["shelved"][0][1]["until"].clone();
        assert_eq!(shelved, json!(until.to_string()), "{id}");
    }
    site.settle()?;
    let logged = logged(&site)?;
    for n in 0..KILLS {
        let id = format!("k-{n}");
        assert_eq!(logged[&id], ["done"], "{id} is carried out once");
        let mut answers = centre.replies(&id);
        answers.dedup();
        assert_eq!(answers.len(), 1, "{id} is answered alike: {answers:?}");
    }
    Ok(())
}

fn escalated() -> Result<()> {
    let plan = Plan { more: "\n[escalation]\nfire = \"15s\"\n", ..plan() };
    let mut site = Site::start(&plan)?;
    site.nodes[0].act(Smoke(true))?;
    let first = alarm(&site, AlarmKind::Smoke, "smoke-1")?;
    let escalation = |site: &Site, wanted: u64| {
        eventually("the alarm comes again", SETTLED_WITHIN, || {
            let now = alarm(site, AlarmKind::Smoke, "smoke-1").map_err(|e| e.to_string())?;
            if now["escalation"] == wanted { Ok(now) } else { Err(now.to_string()) }
        })
    };
    let again = escalation(&site, 1)?;
    assert_eq!(again["alarm_id"], first["alarm_id"], "the same alarm");
    site.gateway.kill_and_restart()?;
    // 30 s after the first: the pause has doubled, and a kill has not begun it anew.
    escalation(&site, 2)?;
    site.desk.acknowledge(first["alarm_id"].as_str().unwrap_or_default(), "op-1")?;
    site.settle()?;
    site.account()?;
    let escalations = site.desk.journal()?.iter().filter(|l| l.event.event_type == EventType::AlarmEscalated).count();
    assert_eq!(escalations, 2);
    Ok(())
}

fn out_of_service() -> Result<()> {
    let mut site = Site::start(&plan())?;
    let order = |words: &[&str]| site.gateway.command_output(words);
    let (code, _, err) = order(&["service", "out", "smoke-1", "--reason", "dust", "--who", "li", "--for", "5h"])?;
    assert!(code == Some(2) && err.contains("240 min"), "{code:?} {err}");
    let (code, _, err) = order(&["service", "out", "smoke-1", "--reason", "dust", "--who", "li", "--for", "1h"])?;
    assert_eq!(code, Some(0), "{err}");
    let (_, list, _) = order(&["service", "list"])?;
    assert!(list.contains("OUT_OF_SERVICE") && list.contains("smoke-1") && list.contains("dust"), "{list}");
    site.nodes[0].act(Smoke(true))?;
    let quiet = alarm(&site, AlarmKind::Smoke, "smoke-1")?;
    assert_eq!((&quiet["side"]["state"], &quiet["side"]["who"]), (&json!("OUT_OF_SERVICE"), &json!("li")));
    assert_eq!(order(&["service", "back", "smoke-1"])?.0, Some(0));
    let raised = eventually("the fire counts again", SOON, || {
        let now = alarm(&site, AlarmKind::Smoke, "smoke-1").map_err(|e| e.to_string())?;
        if now["side"].is_null() { Ok(now) } else { Err(now.to_string()) }
    })?;
    assert_eq!(raised["alarm_id"], quiet["alarm_id"]);
    site.settle()?;
    site.account()?;
    let of_fire = |line: &gengfu::desk::journal::Line| {
        let alarm = line.event.alarm().ok().flatten()?;
        (alarm.kind == AlarmKind::Smoke).then_some(line.event.event_type)
    };
    let told: Vec<EventType> = site.desk.journal()?.iter().filter_map(of_fire).collect();
    assert_eq!(told, [EventType::AlarmShelved, EventType::AlarmRaised]);
    Ok(())
}

fn drilled() -> Result<()> {
    let plan =
        Plan { nodes: 1, receipt_within: Some("2s"), more: "\n[drill]\nreceipt_within = \"8s\"\n", ..Plan::default() };
    let mut site = Site::start(&plan)?;
    let held = |site: &Site, what: &str, wanted: &dyn Fn(&Value) -> bool| {
        eventually(what, SETTLED_WITHIN, || {
            let (_, out, err) = site.gateway.command_output(&["drill", "list", "--json"]).map_err(|e| e.to_string())?;
            let drills: Value = serde_json::from_str(&out).map_err(|e| format!("{e}: {out}{err}"))?;
            if wanted(&drills) { Ok(drills) } else { Err(drills.to_string()) }
        })
    };
    assert_eq!(site.gateway.command_output(&["drill", "now"])?.0, Some(0));
    let good = held(&site, "the drill's receipt", &|drills| drills["history"][0]["result"] == "received")?;
    assert!(good["history"][0]["latency_ms"].as_i64().is_some_and(|ms| (0..=8_000).contains(&ms)), "{good}");
    site.broker.kill();
    assert_eq!(site.gateway.command_output(&["drill", "now"])?.0, Some(0));
    held(&site, "a drill without the centre fails", &|drills| {
        drills["history"][1]["result"] == "not_received" && drills["running_since"].is_null()
    })?;
    alarm(&site, AlarmKind::DrillFailed, GATEWAY)?;
    assert_eq!(site.gateway.command_output(&["drill", "list"])?.0, Some(1), "the last one failed");
    assert!(!site.nodes[0].is_sounding(), "a test sounds nothing");
    site.broker.restart(Memory::Empty)?;
    held(&site, "its receipt comes late", &|drills| drills["history"][1]["result"] == "late")?;
    assert_eq!(site.gateway.command_output(&["drill", "now"])?.0, Some(0));
    held(&site, "a good one", &|drills| drills["history"][2]["result"] == "received")?;
    site.gateway.wait_until("the trouble is over", SOON, |status| {
        let mut alarms = status["alarms"].as_array().into_iter().flatten();
        alarms.all(|alarm| alarm["kind"] != "drill_failed" || alarm["condition"] == "CLEARED_UNACK")
    })?;
    site.settle()?;
    site.account()?;
    Ok(())
}
