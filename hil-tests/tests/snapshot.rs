//! A picture of now, asked for by the centre. Goal: it comes with people unrecognisable, as the bytes its answer and the journal name, in parts where the
//! broker takes no more at once; it lies sealed on the box and every look at it is logged; the same command again takes no second one; a camera that shows
//! nothing, a private one and a worker that hangs are refused with the reason, and leave no picture behind; a smoke alarm arrives meanwhile. Method: the
//! real gateway, worker, model and mosquitto; Debian's street footage; orders by `gengfu desk act`, as a script gives them. Times are printed, not
//! asserted: the product itself refuses what is not in time.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use gengfu::desk::DeskEvent;
use gengfu_contract::chain;
use gengfu_contract::command::{Outcome, Reply};
use gengfu_contract::event::CommandData;
use gengfu_contract::words::AlarmKind;
use gengfu_node_linux::Command::Smoke;
use hil_tests::broker::BrokerOptions;
use hil_tests::clip::{self, vtest};
use hil_tests::gateway::binary;
use hil_tests::process::eventually;
use hil_tests::site::{CameraPlan, GATEWAY, Plan, SITE, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The worker loads its model first, and this machine may have other work.
const WITHIN: Duration = Duration::from_secs(60);
/// The broker takes no more at once: a picture of some 100 kB goes in parts.
const PACKET_MAX: &str = "max_packet_size 20000";

fn main() -> ExitCode {
    let needs = || need::all([need::tool("mosquitto"), CameraPlan::need()]);
    skip::main(vec![
        skip::test("a_snapshot_comes_whole_and_genuine_in_parts_and_only_once", needs(), taken),
        skip::test("a_snapshot_of_what_shows_nothing_is_refused_with_the_reason", needs(), refused),
    ])
}

/// Runs `gengfu desk act snapshot`: exit code and the answer.
fn act(site: &Site, camera: &str) -> Result<(Option<i32>, Value)> {
    let broker = format!("127.0.0.1:{}", site.broker.port());
    let mut command = Command::new(binary()?);
    command.args(["desk", "act", "snapshot", "--camera", camera, "--operator", "op-7", "--gateway", GATEWAY]);
    command.args(["--within", "20s", "--site", SITE, "--broker", &broker, "--json"]);
    command.arg("--evidence").arg(site.dir.path().join("asked"));
    let output = command.output().map_err(|e| RigError::failed("run gengfu desk act", e))?;
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.map_err(|e| {
        RigError::failed("read the answer", format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    })?;
    Ok((output.status.code(), answer))
}

/// The answer when it was taken in time; this machine may be too busy for that, or the camera's worker just begin, and then the gateway must say so.
fn act_until_taken(site: &Site, camera: &str) -> Result<Value> {
    eventually("a snapshot in time", WITHIN, || {
        let (code, answer) = act(site, camera).map_err(|e| e.to_string())?;
        if code == Some(0) {
            return Ok(answer);
        }
        let why = answer["reply"]["reason"]["en"].as_str().unwrap_or_default();
        assert!(
            ["not in time", "no usable picture", "no picture yet"].iter().any(|known| why.contains(known)),
            "refused for another reason: {answer}"
        );
        Err(why.to_owned())
    })
}

/// What the journal says of a command, as it reached the desk: answers with their times.
fn journaled(site: &Site, cmd_id: &str) -> std::result::Result<Vec<(jiff::Timestamp, CommandData)>, String> {
    let journal = site.desk.journal().map_err(|e| e.to_string())?;
    let answers = journal.into_iter().filter_map(|line| Some((line.event.time, line.event.command().ok()??)));
    Ok(answers.filter(|(_, data)| data.cmd_id == cmd_id).collect())
}

fn streams(site: &mut Site, camera: &str) -> Result<()> {
    let streams = |status: &Value| {
        let cameras = status["cameras"].as_array().cloned().unwrap_or_default();
        cameras.iter().any(|it| it["camera"] == camera && it["state"] == "streaming")
    };
    site.gateway.wait_until(&format!("{camera} streams"), WITHIN, streams).map(|_| ())
}

/// Nothing of the command lies on the gateway's disk.
fn left_nothing(site: &Site, cmd_id: &str) -> Result<()> {
    let folder = site.dir.path().join("data/evidence");
    eventually(&format!("no picture of {cmd_id} is left"), WITHIN, || {
        let names = std::fs::read_dir(&folder).map_err(|e| e.to_string())?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let left: Vec<String> = names.filter(|name| name.contains(cmd_id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
}

fn taken() -> Result<()> {
    let broker = BrokerOptions { persistence: true, extra: vec![PACKET_MAX.to_owned()], ..BrokerOptions::default() };
    let camera = CameraPlan { limit: "1h", ..CameraPlan::at(vtest().display().to_string()) };
    let mut site = Site::start(&Plan { nodes: 1, cameras: vec![camera], broker, ..Plan::default() })?;
    streams(&mut site, "cam-1")?;
    site.nodes[0].act(Smoke(true))?;
    let answer = act_until_taken(&site, "cam-1")?;
    assert_eq!((&answer["outcome"], &answer["is_genuine"]), (&json!("done"), &json!(true)), "{answer}");
    let path = answer["picture"].as_str().unwrap_or_default();
    let bytes = std::fs::read(path).map_err(|e| RigError::failed(format!("read {path}"), e))?;
    let picture = image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg);
    let picture = picture.map_err(|e| RigError::failed(format!("read {path} as a JPEG"), e))?;
    assert!(bytes.len() > 20_000, "{} bytes: it must not fit into one packet", bytes.len());
    let cmd_id = answer["cmd_id"].as_str().unwrap_or_default().to_owned();

    let sha256 = hex::encode(chain::hash(&bytes));
    let answers = eventually("the journal names the picture", WITHIN, || {
        let answers = journaled(&site, &cmd_id)?;
        if answers.len() == 2 { Ok(answers) } else { Err(format!("{answers:?}")) }
    })?;
    let ((accepted_at, accepted), (done_at, done)) = (&answers[0], &answers[1]);
    assert_eq!((accepted.outcome, done.outcome), (Outcome::Accepted, Outcome::Done));
    assert_eq!((done.evidence[0].sha256.as_str(), done.evidence[0].bytes), (sha256.as_str(), bytes.len() as u64));
    // The desk that runs all the time joined the same parts by itself.
    eventually("the desk has the same picture", WITHIN, || {
        let model = site.desk.model();
        let seen = model.gateways().values().find_map(|gateway| gateway.snapshots.get(&cmd_id));
        if seen.is_some_and(|it| it.genuine == Some(true)) { Ok(()) } else { Err(format!("{seen:?}")) }
    })?;
    println!(
        "snapshot: {} bytes, {}x{}; order accepted to picture stored and answered {} ms",
        bytes.len(),
        picture.width(),
        picture.height(),
        done_at.duration_since(*accepted_at).as_millis()
    );
    at_rest(&site, &cmd_id, &bytes)?;
    repeated(&mut site)?;
    let smoke = site.desk.model().alarms_of(AlarmKind::Smoke).first().and_then(|(_, view)| view.latency_ms);
    println!("smoke to desk meanwhile: {smoke:?} ms");
    assert!(smoke.is_some(), "the smoke alarm arrived");
    site.settle()?;
    site.account().map(|account| println!("{account:?}"))
}

/// The picture on the gateway's disk: nothing of it can be seen there; a technician's look is logged, as the centre's and the uplink's were; and it can be ended.
fn at_rest(site: &Site, cmd_id: &str, jpeg: &[u8]) -> Result<()> {
    let data = site.dir.path().join("data");
    let read = |path: &Path| std::fs::read(path).map_err(|e| RigError::failed(format!("read {}", path.display()), e));
    let folder = std::fs::read_dir(data.join("evidence")).map_err(|e| RigError::failed("list the pictures", e))?;
    let mut files: Vec<PathBuf> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
    assert_eq!(files.iter().filter(|path| path.to_string_lossy().contains(cmd_id)).count(), 3, "{files:?}");
    files.push(data.join("evidence.key"));
    files.push(data.join("evidence.log"));
    for path in &files {
        let bytes = read(path)?;
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!has(&jpeg[..16]) && !has(&jpeg[jpeg.len() / 2..][..16]), "{} is in the open", path.display());
    }
    let picture = format!("{cmd_id}/1");
    let copy = site.dir.path().join("shown.jpg");
    let out = copy.display().to_string();
    let (code, _, err) =
        site.gateway.command_output(&["evidence", "show", &picture, "--reason", "complaint 7", "--output", &out])?;
    assert!(code == Some(0) && read(&copy)? == jpeg, "{code:?} {err}");
    let (code, list, err) = site.gateway.command_output(&["evidence", "list", "--json"])?;
    assert!(code == Some(0) && list.contains(cmd_id), "{code:?} {list} {err}");
    let (code, _, err) = site.gateway.command_output(&["evidence", "shred", cmd_id, "--reason", "asked to"])?;
    assert_eq!(code, Some(0), "{err}");
    left_nothing(site, cmd_id)?;
    let again = site.dir.path().join("again.jpg").display().to_string();
    let (code, _, err) = site.gateway.command_output(&["evidence", "show", &picture, "--output", &again])?;
    assert!(code == Some(2) && err.contains("its time is over"), "it is gone for ever: {code:?} {err}");
    let (code, log, err) = site.gateway.command_output(&["evidence", "log", "--json"])?;
    assert_eq!(code, Some(0), "{err}");
    let looks = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let looks: Vec<Value> = looks.filter(|look| look["id"] == cmd_id).collect();
    for (deed, who) in [("snapshot", "centre:op-7"), ("sent", "uplink"), ("shown", "user:"), ("shredded", "user:")] {
        let told =
            looks.iter().any(|it| it["deed"] == deed && it["who"].as_str().is_some_and(|it| it.starts_with(who)));
        assert!(told, "{deed} by {who} is not logged: {looks:?}");
    }
    Ok(())
}

/// The same command twice, and once more after a kill: one picture, one answer.
fn repeated(site: &mut Site) -> Result<()> {
    let before = |site: &Site| replies(site, "again").len();
    let operator = json!({"camera": "cam-1", "operator": "op-7"});
    let mut body = operator;
    body["issued_at"] = site.gateway.status()?["gateway"]["now"].clone();
    send(site, "again", &body)?;
    let first = last_word(site, "again", 0)?;
    let known = before(site);
    send(site, "again", &body)?;
    let second = last_word(site, "again", known)?;
    assert_eq!(second, first, "answered alike, with the same picture");
    site.gateway.kill_and_restart()?;
    site.gateway.wait_until("the gateway is back", WITHIN, |status| status["uplink"]["state"] == "online")?;
    let known = before(site);
    send(site, "again", &body)?;
    assert_eq!(last_word(site, "again", known)?, first, "also after a kill");
    let done = eventually("it is journaled", WITHIN, || {
        let answers = journaled(site, "again")?;
        let done: Vec<_> = answers.into_iter().filter(|(_, data)| data.outcome != Outcome::Accepted).collect();
        if done.is_empty() { Err("not yet".to_owned()) } else { Ok(done) }
    })?;
    assert_eq!(done.len(), 1, "carried out once: {done:?}");
    Ok(())
}

fn replies(site: &Site, cmd_id: &str) -> Vec<Reply> {
    let told = site.desk.told().into_iter().filter_map(|event| match event {
        DeskEvent::Reply { reply, .. } if reply.cmd_id == cmd_id => Some(reply),
        _ => None,
    });
    told.collect()
}

fn last_word(site: &Site, cmd_id: &str, after: usize) -> Result<Reply> {
    eventually(&format!("an answer to {cmd_id}"), WITHIN, || {
        let replies = replies(site, cmd_id);
        let word = replies.iter().skip(after).find(|reply| reply.outcome != Outcome::Accepted);
        word.cloned().ok_or_else(|| format!("so far {replies:?}"))
    })
}

/// Sends a `snapshot` command as any MQTT client does, and waits for the broker's word.
fn send(site: &Site, cmd_id: &str, body: &Value) -> Result<()> {
    let doing = "send a command";
    let options = MqttOptions::new("hil-snapshot", "127.0.0.1", site.broker.port());
    let (client, mut connection) = Client::new(options, 4);
    let topic = format!("gengfu/v1/{SITE}/{GATEWAY}/cmd/snapshot/{cmd_id}");
    client.publish(topic, QoS::AtLeastOnce, false, body.to_string()).map_err(|e| RigError::failed(doing, e))?;
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.map_err(|e| RigError::failed(doing, e))? {
            return Ok(());
        }
    }
    Err(RigError::failed(doing, "the connection ended"))
}

fn refused() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let noise = clip::garbage(dir.path(), 7, 400_000)?;
    let camera = |url: String| CameraPlan { limit: "1h", ..CameraPlan::at(url) };
    let cameras = vec![camera(vtest().display().to_string()), camera(noise.display().to_string())];
    let more = "\n[[camera]]\nname = \"cam-private\"\nurl = \"/nowhere.mp4\"\nsnapshots = false\n";
    let mut site = Site::start(&Plan { nodes: 0, cameras, more, ..Plan::default() })?;
    streams(&mut site, "cam-1")?;
    for (camera, reason) in [("cam-2", "no usable picture"), ("cam-private", "privacy"), ("cam-9", "no camera here")] {
        let (code, answer) = act(&site, camera)?;
        let why = &answer["reply"]["reason"];
        let told = why["en"].as_str().is_some_and(|en| en.contains(reason)) && why["zh"].is_string();
        assert!(code == Some(1) && answer["outcome"] == "refused" && told, "{camera}: {answer}");
    }

    let worker = site.gateway.camera_worker()?.ok_or_else(|| RigError::failed("find the worker", "there is none"))?;
    signal(worker, Signal::STOP)?;
    let (code, answer) = act(&site, "cam-1")?;
    signal(worker, Signal::CONT)?;
    let why = answer["reply"]["reason"]["en"].as_str().unwrap_or_default();
    assert!(code == Some(1) && why.contains("not in time"), "a worker that hangs: {answer}");
    // The worker goes on and takes the picture that nobody waits for any more.
    act_until_taken(&site, "cam-1")?;
    left_nothing(&site, answer["cmd_id"].as_str().unwrap_or("none"))?;

    assert!(site.gateway.kill_camera_worker()?, "a streaming camera has a worker");
    let (_, answer) = act(&site, "cam-1")?;
    let outcome = answer["outcome"].as_str().unwrap_or_default();
    assert!(["refused", "done"].contains(&outcome), "a worker that was killed: answered all the same: {answer}");
    println!("worker killed: {outcome}: {}", answer["reply"]["reason"]["en"]);
    act_until_taken(&site, "cam-1")?;
    site.settle()
}

fn signal(worker: Pid, signal: Signal) -> Result<()> {
    kill_process(worker, signal).map_err(|e| RigError::failed("signal the worker", e))
}
