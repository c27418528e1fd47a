//! A centre's developer has the contract and nothing else of ours. Goal: the Python example and an independent client (mosquitto_sub) show
//! exactly the stream the reference desk journals, and the Rust client proves it, on both MQTT versions and through a broker that dies; the journal's export proves itself, running
//! or stopped, and fails on each kind of tampering with its place named; the AsyncAPI document pleases AsyncAPI's own parser.
//!
//! `GENGFU_RECORD=FILE` writes what the gateway and the desk sent as JSON lines: how `gateway/contract/tests/recorded` is made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use gengfu::config::Protocol;
use gengfu_contract::centre::{Centre, Incoming};
use gengfu_contract::chain;
use gengfu_contract::event::Event;
use gengfu_contract::export::Closing;
use gengfu_contract::slug::Slug;
use gengfu_node_linux::Command::{Contact, Smoke, Sos, Tamper};
use hil_tests::broker::Memory;
use hil_tests::ca::{Authority, Validity};
use hil_tests::clip::repository;
use hil_tests::gateway::binary;
use hil_tests::process::{Process, eventually};
use hil_tests::site::{Plan, SETTLED_WITHIN, SITE, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
/// Sequence and hash of each event.
type Stream = BTreeMap<u64, String>;

fn main() -> ExitCode {
    let parts = || need::all([need::tool("mosquitto"), need::tool("mosquitto_sub"), need::file(&python())]);
    let parser = || need::all([need::tool("node"), need::file(&parser_folder().join("package.json"))]);
    skip::main(vec![
        skip::test("python_mosquitto_sub_and_the_desk_show_one_stream_on_mqtt_5", parts(), || {
            one_stream(Protocol::Mqtt5)
        }),
        skip::test("python_mosquitto_sub_and_the_desk_show_one_stream_on_mqtt_3_1_1", parts(), || {
            one_stream(Protocol::Mqtt311)
        }),
        skip::test("an_export_proves_itself_and_names_the_place_of_each_tampering", need::tool("mosquitto"), export),
        skip::test("the_asyncapi_document_pleases_its_official_parser", parser(), asyncapi),
    ])
}

fn python() -> PathBuf {
    repository().join("target/gengfu/subscriber/bin/python")
}

fn parser_folder() -> PathBuf {
    repository().join("target/gengfu/asyncapi/node_modules/@asyncapi/parser")
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> RigError {
    let what = what.to_owned();
    move |error| RigError::failed(what.clone(), error)
}

fn subscriber(site: &Site, protocol: Protocol) -> Result<Process> {
    let mut command = Command::new(python());
    command.arg(repository().join("gateway/contract/examples/python-subscriber/subscriber.py"));
    command.args(["--site", SITE, "--broker", &format!("127.0.0.1:{}", site.broker.port())]);
    command.args(["--mqtt", if protocol == Protocol::Mqtt5 { "5" } else { "3.1.1" }]);
    command.arg("--journal").arg(site.dir.path().join("python.jsonl"));
    let mut process = Process::spawn("python", command, site.dir.path())?;
    process.wait_for_line("\"ready\"", SOON)?;
    Ok(process)
}

fn independent(site: &Site, protocol: Protocol) -> Result<Process> {
    let mut command = Command::new("mosquitto_sub");
    // A session of its own that the broker keeps, so that its death costs nothing.
    command.args(["-i", "independent", "-c", "-q", "1", "-d", "-F", "%t\t%p", "-t", "gengfu/v1/#"]);
    command.args(["-V", if protocol == Protocol::Mqtt5 { "5" } else { "311" }]);
    if protocol == Protocol::Mqtt5 {
        command.args(["-x", "3600"]);
    }
    command.args(["-p", &site.broker.port().to_string()]);
    let mut process = Process::spawn("mosquitto_sub", command, site.dir.path())?;
    process.wait_for_line("Subscribed", SOON)?;
    Ok(process)
}

fn one_stream(protocol: Protocol) -> Result<()> {
    let plan = Plan { protocol, nodes: 2, left_open_after: "1s", ..Plan::default() };
    let mut site = Site::prepare(&plan)?;
    let (mut python, mut other) = (subscriber(&site, protocol)?, independent(&site, protocol)?);
    site.gateway.start()?;
    site.gateway.wait_until("the gateway has reached the centre", SETTLED_WITHIN, |status| {
        status["uplink"]["state"] == "online"
    })?;
    for (round, node) in (0..6).zip(site.nodes.iter().cycle()) {
        node.act(Contact { open: round % 4 < 2 })?;
        node.act(if round < 3 { Tamper(round % 2 == 0) } else { Sos })?;
        if round == 2 {
            site.broker.restart(Memory::Keep)?;
        }
        let so_far = node.accepted().len();
        node.act(Smoke(true))?;
        let _ = eventually("the head reports", Duration::from_secs(2), || {
            if node.accepted().len() > so_far { Ok(()) } else { Err(String::new()) }
        });
    }
    site.settle()?;
    let desk: Stream = site.desk.journal()?.iter().map(|line| hashed(&line.event)).collect::<Result<_>>()?;
    assert!(desk.len() > 12, "{} events say too little", desk.len());
    assert!(desk.keys().copied().eq(1..=desk.len() as u64), "the desk has a gap");
    let all_here = |told: Stream| if told == desk { Ok(()) } else { Err(difference(&desk, &told)) };
    eventually("the Python example has what the desk has", SOON, || {
        all_here(told_by_python(&python.output())).map_err(|e| format!("{e}\n{}", python.tail()))
    })?;
    eventually("mosquitto_sub has what the desk has", SOON, || all_here(told_by_mosquitto(&other.output())))?;
    // What it stored before its receipts is the same once more.
    let stored =
        fs::read_to_string(site.dir.path().join("python.jsonl")).map_err(failed("read the example's store"))?;
    let stored: Stream = stored.lines().map(|line| hash_of(line.as_bytes())).collect();
    assert_eq!(stored, desk);
    let last = eventually("the Python example proves it against a statement", Duration::from_secs(90), || {
        let output = python.output();
        let proof = output.lines().rev().find(|line| line.contains("\"statement\"")).unwrap_or_default().to_owned();
        if proof.contains(&format!("received 1…{}", desk.len())) { Ok(proof) } else { Err(proof) }
    })?;
    assert!(last.contains("nothing missing, chain ok"), "{last}");
    assert!(python.output().contains("烟雾报警 / Smoke alarm"), "{}", python.tail());
    other.terminate(SOON)?;
    record(&other.output())?;
    python.kill();
    proven_by_the_crate(&other.output(), desk.len())?;
    println!("{protocol:?}: {} events, {last}", desk.len());
    Ok(())
}

fn hashed(event: &Event) -> Result<(u64, String)> {
    let bytes = chain::canonical(event).map_err(|e| RigError::failed("hash an event", e))?;
    Ok((event.sequence, hex::encode(chain::hash(&bytes))))
}

/// Sequence and hash of an event's bytes; (0, the fault) for what is none, so that a comparison shows it.
fn hash_of(body: &[u8]) -> (u64, String) {
    let sequence =
        serde_json::from_slice::<Value>(body).ok().and_then(|event| event["sequence"].as_str()?.parse().ok());
    match (sequence, chain::hash_of_body(body)) {
        (Some(sequence), Ok(hash)) => (sequence, hex::encode(hash)),
        _ => (0, format!("no event: {}", String::from_utf8_lossy(body))),
    }
}

fn told_by_python(output: &str) -> Stream {
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = lines.filter(|line| line["what"] == "event" || line["what"] == "malformed");
    events
        .map(|line| (line["sequence"].as_u64().unwrap_or(0), line["hash"].as_str().unwrap_or("none").to_owned()))
        .collect()
}

fn told_by_mosquitto(output: &str) -> Stream {
    let events = output.lines().filter_map(|line| line.split_once('\t')).filter(|(topic, _)| topic.ends_with("/event"));
    events.map(|(_, body)| hash_of(body.as_bytes())).collect()
}

/// The crate's client proves the same stream, every topic of it, statements included.
fn proven_by_the_crate(output: &str, events: usize) -> Result<()> {
    let parse = |name: &str| Slug::new(name).map_err(|e| RigError::failed("read a name", e));
    let mut centre = Centre::new(parse(SITE)?);
    let (mut statements, now) = (0, jiff::Timestamp::UNIX_EPOCH);
    for (topic, body) in output.lines().filter_map(|line| line.split_once('\t')) {
        match centre.take(topic, body.as_bytes(), now).map_err(|e| RigError::failed("read what a gateway says", e))? {
            Some((_, Incoming::Statement(..))) => statements += 1,
            Some((_, Incoming::Event { event, alarm, .. })) => {
                assert_eq!(event.event_type.is_alarm(), alarm.is_some(), "{topic}: {body}");
            }
            _ => {}
        }
    }
    let gateways: Vec<_> = centre.ledgers().keys().cloned().collect();
    let [gateway] = gateways.as_slice() else { panic!("one gateway spoke, heard: {gateways:?}") };
    let proof = centre.proof(gateway).expect("its ledger is there");
    assert!(proof.holds() && proof.received == events as u64 && statements > 0, "{statements} statements, {proof}");
    Ok(())
}

fn difference(desk: &Stream, other: &Stream) -> String {
    let wrong = |(sequence, hash): &(&u64, &String)| other.get(*sequence) != Some(*hash);
    let wrong: Vec<u64> = desk.iter().filter(wrong).map(|(sequence, _)| *sequence).collect();
    format!("{} events at the desk, {} here; not alike: {wrong:?}", desk.len(), other.len())
}

fn record(output: &str) -> Result<()> {
    let Some(path) = std::env::var_os("GENGFU_RECORD") else { return Ok(()) };
    let mut text = String::new();
    for (topic, body) in output.lines().filter_map(|line| line.split_once('\t')) {
        if let Ok(body) = serde_json::from_str::<Value>(body) {
            text.push_str(&serde_json::json!({ "topic": topic, "body": body }).to_string());
            text.push('\n');
        }
    }
    fs::write(path, text).map_err(failed("write the record"))
}

fn export() -> Result<()> {
    let mut site = Site::start(&Plan { nodes: 1, left_open_after: "1s", ..Plan::default() })?;
    for open in [true, false, true, false] {
        let so_far = site.nodes[0].accepted().len();
        site.nodes[0].act(Contact { open })?;
        eventually("the door is noticed", SOON, || {
            if site.nodes[0].accepted().len() > so_far { Ok(()) } else { Err(String::new()) }
        })?;
    }
    site.settle()?;
    let file = site.dir.path().join("journal.jsonl");
    let output = file.display().to_string();
    let written = |when: &str| -> Result<String> {
        let (code, _, err) = site.gateway.command_output(&["export", "--output", &output])?;
        assert_eq!(code, Some(0), "{when}: {err}");
        let (code, told) = verify(&file)?;
        assert_eq!(code, Some(0), "{when}: {told}");
        assert!(told.contains("whole: nothing removed"), "{when}: {told}");
        fs::read_to_string(&file).map_err(failed("read the export"))
    };
    let running = written("running")?;
    signed(&site)?;
    site.gateway.stop(SOON)?;
    let stopped = site.gateway.command_output(&["export", "--output", &output])?;
    assert_eq!(stopped.0, Some(0), "{}", stopped.2);
    let (code, told) = verify(&file)?;
    assert_eq!(code, Some(0), "{told}");
    let lines: Vec<&str> = running.lines().collect();
    let again = fs::read_to_string(&file).map_err(failed("read the export"))?;
    let events = lines.len() - 2;
    assert!(again.lines().count() >= lines.len(), "the stopped gateway's journal is shorter");
    assert_eq!(again.lines().nth(events), lines.get(events).copied(), "both roads give the same bytes");
    assert!(events > 4, "{events} events say too little");
    tamper(&site.dir.path().join("tampered.jsonl"), &lines)
}

/// A signed export satisfies only the certificate it was signed with, and a whole new chain does not help who lacks the key.
fn signed(site: &Site) -> Result<()> {
    let dir = site.dir.path();
    let authority = Authority::new("ca")?;
    let (own, key) = authority.client("hil.gw-1", Validity::Now)?.write(dir, "own")?;
    let (other, _) = authority.client("hil.gw-2", Validity::Now)?.write(dir, "other")?;
    let file = dir.join("signed.jsonl");
    let text = |path: &Path| path.display().to_string();
    let (output, certificate, key) = (text(&file), text(&own), text(&key));
    let words = ["export", "--output", &output, "--certificate", &certificate, "--key", &key];
    let (code, _, err) = site.gateway.command_output(&words)?;
    assert_eq!(code, Some(0), "{err}");
    let judge = |certificate: &Path| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(binary()?);
        command.arg("verify").arg(&file).arg("--certificate").arg(certificate);
        let output = command.output().map_err(failed("run gengfu verify"))?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (code, told) = judge(&own)?;
    assert!(code == Some(0) && told.contains("signed by the certificate with SHA-256"), "{told}");
    let (code, told) = judge(&other)?;
    assert!(code == Some(1) && told.contains("another certificate"), "{told}");
    // Another statement with a hash of its own, under the old signature.
    let whole = fs::read_to_string(&file).map_err(failed("read the export"))?;
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap_or_default();
    let mut closing: Closing = serde_json::from_str(&last).map_err(|e| RigError::failed("read the closing line", e))?;
    closing.statement.at += jiff::SignedDuration::from_secs(1);
    let forged = Closing::new(closing.statement, closing.signature);
    lines.push(serde_json::to_string(&forged).map_err(|e| RigError::failed("write the closing line", e))?);
    fs::write(&file, lines.join("\n") + "\n").map_err(failed("write the forged file"))?;
    let (code, told) = judge(&own)?;
    assert!(code == Some(1) && told.contains("does not fit the statement"), "{told}");
    Ok(())
}

/// Each kind once: exit code 1, and the words that name the place. Line 4 holds sequence 3.
fn tamper(file: &Path, lines: &[&str]) -> Result<()> {
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    let mut removed = own(lines);
    removed.remove(3);
    kinds.push(("line 4: sequence 3 was removed", removed));
    let mut changed = own(lines);
    changed[3] = changed[3].replacen("\"recordedtime\":\"20", "\"recordedtime\":\"21", 1);
    kinds.push(("line 4: sequence 3 was changed", changed));
    let mut reordered = own(lines);
    reordered.swap(3, 4);
    kinds.push(("line 4: sequence 4 stands where 3 belongs: reordered", reordered));
    let mut repeated = own(lines);
    repeated.insert(5, lines[3].to_owned());
    kinds.push(("line 6: sequence 3 is repeated; it stands in line 4", repeated));
    kinds.push(("the file is cut off after", own(&lines[..lines.len() - 1])));
    let mut shortened = own(lines);
    shortened.remove(lines.len() - 2);
    kinds.push(("was removed", shortened));
    for (words, lines) in kinds {
        fs::write(file, lines.join("\n") + "\n").map_err(failed("write the tampered file"))?;
        let (code, told) = verify(file)?;
        assert_eq!(code, Some(1), "{words}: {told}");
        assert!(told.contains(words), "{words}: {told}");
        assert!(told.contains("NOT WHOLE"), "{told}");
    }
    let (code, _) = verify(Path::new("/nonexistent/export.jsonl"))?;
    assert_eq!(code, Some(2), "what cannot be read is no verdict");
    Ok(())
}

fn verify(file: &Path) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary()?).arg("verify").arg(file).output().map_err(failed("run gengfu verify"))?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn asyncapi() -> Result<()> {
    let program = r#"
        const { Parser } = require(process.argv[1]);
        const text = require('node:fs').readFileSync(process.argv[2], 'utf8');
        new Parser().validate(text).then((all) => {
            // Severity 0 is an error, 1 a warning; "a newer version exists" is only an information.
            const bad = all.filter((one) => one.severity < 2);
            bad.forEach((one) => console.log(one.code, one.path.join('.'), one.message));
            console.log('faults', bad.length);
        });"#;
    let judge = |file: &Path| -> Result<String> {
        let mut command = Command::new("node");
        command.args(["-e", program]).arg(parser_folder()).arg(file);
        hil_tests::process::run(command)
    };
    let document = repository().join("docs/contract/asyncapi.json");
    let told = judge(&document)?;
    assert!(told.trim() == "faults 0", "{told}");
    // The judge does judge: an operation that is none is refused.
    let text = fs::read_to_string(&document).map_err(failed("read the document"))?;
    let dir = tempfile::tempdir().map_err(failed("make a temporary folder"))?;
    let broken = dir.path().join("broken.json");
    let replaced = text.replacen("\"action\": \"receive\"", "\"action\": \"shout\"", 1);
    fs::write(&broken, &replaced).map_err(failed("write the broken document"))?;
    let told = judge(&broken)?;
    assert!(replaced != text && !told.contains("faults 0"), "{told}");
    Ok(())
}
