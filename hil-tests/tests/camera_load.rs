//! More cameras than the machine has time for. Goal: smoke arrives as it does without cameras; cameras share workers; when there is too
//! little time they give up something in the documented order, and `status` and the metrics say so. Method: sixteen cameras of
//! 1080p, first as they would be configured, for `GENGFU_MINUTES` (else ten seconds), then told to decode and analyse every picture,
//! which no small machine can. Latencies are printed beside those without cameras, not asserted: a test machine has other work.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use gengfu::cameras::ladder::Rung;
use gengfu_contract::words::AlarmKind;
use gengfu_node_linux::Command::Smoke;
use hil_tests::clip;
use hil_tests::ports::Port;
use hil_tests::process::eventually;
use hil_tests::site::{CameraPlan, Plan, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use serde_json::Value;

const CAMERAS: usize = 16;
/// Each has a smoke head.
const NODES: usize = 10;
/// Sixteen detectors' worth of pictures, on a busy machine.
const WITHIN: Duration = Duration::from_secs(120);
const SMOKE_WITHIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let needs = need::all([need::tool("mosquitto"), need::tool("ffmpeg"), CameraPlan::need()]);
    skip::main(vec![skip::test("cameras_beyond_the_machine_shed_in_order_and_smoke_passes_them", needs, load)])
}

fn load() -> Result<()> {
    let minutes = std::env::var("GENGFU_MINUTES").ok().and_then(|n| n.parse::<f64>().ok());
    let calm = Duration::from_secs_f64(minutes.map_or(10.0, |minutes| minutes * 60.0));
    let alone = {
        let mut site = Site::start(&Plan { nodes: NODES, ..Plan::default() })?;
        smokes(&mut site, Duration::from_secs(3))?
    };
    told("without cameras", &alone);
    let watched = {
        let mut site = Site::start(&plan("key_frames", 2.0, false, None)?)?;
        share_workers(&mut site)?;
        let latencies = smokes(&mut site, calm)?;
        let status = site.gateway.status()?;
        let memory: u64 =
            workers(&status).values().map(|camera| camera["worker_memory_bytes"].as_u64().unwrap_or(0)).sum();
        println!("  {} MiB resident a camera, shedding: {}", (memory >> 20) / CAMERAS as u64, status["shedding"]);
        site.settle()?;
        site.account()?;
        latencies
    };
    told("with sixteen cameras", &watched);
    overloaded()
}

/// Every picture of sixteen cameras: the ladder is climbed, rung by rung.
fn overloaded() -> Result<()> {
    let metrics = Port::reserve()?;
    let mut site = Site::start(&plan("all_frames", 25.0, true, Some(metrics.number()))?)?;
    share_workers(&mut site)?;
    let mut seen: Vec<Rung> = Vec::new();
    let reached = site.gateway.wait_until("cameras give something up", WITHIN, |status| {
        let rung: Option<Rung> = serde_json::from_value(status["shedding"]["rung"].clone()).ok();
        seen.extend(rung.filter(|rung| seen.last() != Some(rung)));
        seen.last() >= Some(&Rung::KeyFrames)
    })?;
    println!("  rungs taken: {seen:?}, because {}", reached["shedding"]["why"]);
    assert!(seen.windows(2).all(|two| two[1] > two[0]), "in the documented order: {seen:?}");
    let findings = reached["findings"].to_string();
    assert!(findings.contains("short of time") && findings.contains("设备处理能力不足"), "{findings}");
    eventually("metrics tell the level", SMOKE_WITHIN, || {
        let text = scrape(metrics.number()).map_err(|e| e.to_string())?;
        let level = text.lines().find_map(|line| line.strip_prefix("gengfu_camera_shedding_level "));
        if level.is_some_and(|level| level.trim() != "0") { Ok(()) } else { Err(format!("{level:?}")) }
    })?;
    let latencies = smokes(&mut site, Duration::from_secs(3))?;
    told("with more cameras than the machine can watch", &latencies);
    site.settle()?;
    site.account()?;
    Ok(())
}

fn plan(decode: &'static str, fps_max: f64, load_shedding: bool, metrics: Option<u16>) -> Result<Plan> {
    let clip = clip::street_camera(12)?;
    let camera =
        || CameraPlan { decode, fps_max, limit: "1h", silence: "30s", ..CameraPlan::at(clip.display().to_string()) };
    let cameras = std::iter::repeat_with(camera).take(CAMERAS).collect();
    Ok(Plan { nodes: NODES, cameras, load_shedding, metrics, ..Plan::default() })
}

/// All cameras stream, eight to a worker.
fn share_workers(site: &mut Site) -> Result<()> {
    let status = site.gateway.wait_until("all cameras stream", WITHIN, |status| {
        let all = status["cameras"].as_array().map_or(&[][..], Vec::as_slice);
        all.len() == CAMERAS && all.iter().all(|camera| camera["state"] == "streaming")
    })?;
    assert_eq!(workers(&status).len(), 2, "sixteen cameras, eight to a worker");
    Ok(())
}

/// One camera of each worker, by process.
fn workers(status: &Value) -> BTreeMap<u64, &Value> {
    let all = status["cameras"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(|camera| Some((camera["worker_pid"].as_u64()?, camera))).collect()
}

/// One smoke head after the other, evenly over so long; gives the milliseconds from sensor to desk.
fn smokes(site: &mut Site, length: Duration) -> Result<Vec<i64>> {
    let pause = length / u32::try_from(site.nodes.len()).unwrap_or(1);
    let mut latencies = Vec::new();
    for n in 1..=site.nodes.len() {
        site.gateway.process()?.outlives(pause)?;
        site.nodes[n - 1].act(Smoke(true))?;
        latencies.push(eventually(&format!("smoke-{n} is at the desk"), SMOKE_WITHIN, || {
            let model = site.desk.model();
            let alarms = model.alarms_of(AlarmKind::Smoke);
            let found = alarms.iter().find(|(_, view)| view.alarm.device.as_str() == format!("smoke-{n}"));
            found.and_then(|(_, view)| view.latency_ms).ok_or_else(|| format!("{} smoke alarms", alarms.len()))
        })?);
    }
    Ok(latencies)
}

fn told(what: &str, latencies: &[i64]) {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let at = |share: usize| sorted[(sorted.len() - 1) * share / 100];
    println!("smoke to desk {what}: {} times, p50 {} ms, p99 {} ms, max {} ms", sorted.len(), at(50), at(99), at(100));
}

fn scrape(port: u16) -> Result<String> {
    let fail = |e: std::io::Error| RigError::failed("read the metrics", e);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(fail)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").map_err(fail)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fail)?;
    Ok(text)
}
