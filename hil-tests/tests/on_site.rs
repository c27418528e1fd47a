//! The centre does not answer. Goal: people on site hear it from their node's sounder, within the configured time and until the centre confirms; the
//! silence of somebody who is there holds; the centre learns of it afterwards; and an order of the centre sounds a node. Method: a broker that is killed and
//! started again, real nodes, the real gateway and desk; commands come as any MQTT client sends them.

use std::process::ExitCode;
use std::time::Duration;

use gengfu_contract::event::EventType;
use gengfu_contract::words::AlarmKind;
use gengfu_node_linux::Command::{Reboot, Smoke};
use hil_tests::broker::Memory;
use hil_tests::node::Node;
use hil_tests::process::eventually;
use hil_tests::site::{GATEWAY, Plan, SETTLED_WITHIN, SITE, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};

/// The plan allows 2 s without a receipt; orders to nodes are repeated every 5 s.
const SOON: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mqtt = || need::all([need::tool("mosquitto"), need::tool("mosquitto_pub"), need::tool("mosquitto_sub")]);
    skip::main(vec![
        skip::test("on_site_smoke_without_a_receipt_sounds_until_the_centre_confirms", mqtt(), sounds_until_confirmed),
        skip::test("on_site_an_order_of_the_centre_sounds_a_node", mqtt(), ordered),
    ])
}

fn plan() -> Plan {
    Plan { nodes: 2, receipt_within: Some("2s"), ..Plan::default() }
}

fn sounding(what: &str, node: &Node, wanted: bool) -> Result<()> {
    eventually(what, SOON, || if node.is_sounding() == wanted { Ok(()) } else { Err(format!("sounding: {}", !wanted)) })
}

fn sounds_until_confirmed() -> Result<()> {
    let mut site = Site::start(&plan())?;
    site.broker.kill();
    site.nodes[0].act(Smoke(true))?;
    sounding("the node sounds without a receipt", &site.nodes[0], true)?;
    assert!(!site.nodes[1].is_sounding(), "nothing burns at the other node");
    let (code, out, err) = site.gateway.command_output(&["status"])?;
    assert!(code == Some(1) && out.contains("transmission failed"), "{code:?} {out} {err}");

    site.nodes[0].act(Reboot)?;
    sounding("a node that rebooted is told again", &site.nodes[0], true)?;
    site.gateway.kill_and_restart()?;
    sounding("a gateway that was killed has not forgotten", &site.nodes[0], true)?;

    let silent = eventually("the gateway takes the order to be silent", SOON, || {
        let (code, _, err) = site.gateway.command_output(&["silence", "--for", "5m"]).map_err(|e| e.to_string())?;
        if code == Some(0) { Ok(()) } else { Err(err) }
    });
    silent?;
    sounding("somebody on site silences it", &site.nodes[0], false)?;

    site.broker.restart(Memory::Empty)?;
    // What follows from the centre's receipt is an event of its own, and comes after it.
    site.gateway.wait_until("the centre has confirmed and the site is quiet", SETTLED_WITHIN, |status| {
        let mut alarms = status["alarms"].as_array().into_iter().flatten();
        status["on_site"] == serde_json::json!([])
            && alarms.any(|alarm| alarm["kind"] == "tx_overdue" && alarm["condition"] == "CLEARED_UNACK")
    })?;
    site.settle()?;
    site.account()?;
    let journal = site.desk.journal()?;
    let overdue = |of: EventType| {
        let events = journal.iter().filter(|line| line.event.event_type == of);
        events.filter_map(|line| line.event.alarm().ok().flatten()).filter(|a| a.kind == AlarmKind::TxOverdue).count()
    };
    assert_eq!(
        (overdue(EventType::AlarmRaised), overdue(EventType::AlarmCleared)),
        (1, 1),
        "the centre learns of it once"
    );
    Ok(())
}

fn ordered() -> Result<()> {
    let mut site = Site::start(&plan())?;
    let order = |id: &str, device: &str, seconds: u32| {
        let now = serde_json::json!(site.gateway.status()?["gateway"]["now"]);
        let body = serde_json::json!({ "device": device, "for_s": seconds, "operator": "op-1", "issued_at": now });
        command(&site, "sounder", id, &body.to_string())
    };
    let replies = |id: &str, device: &str, seconds: u32| -> Result<Vec<String>> {
        let listening = listen(&site, id)?;
        order(id, device, seconds)?;
        said(listening)
    };
    assert!(replies("c1", "node-1", 600)?.contains(&"done".to_owned()));
    sounding("the centre's order sounds the node", &site.nodes[0], true)?;
    assert!(replies("c2", "node-1", 0)?.contains(&"done".to_owned()));
    sounding("and ends it", &site.nodes[0], false)?;
    assert_eq!(replies("c3", "node-9", 10)?, ["refused"]);
    site.gateway.process()?;
    Ok(())
}

fn command(site: &Site, verb: &str, id: &str, body: &str) -> Result<()> {
    let topic = format!("gengfu/v1/{SITE}/{GATEWAY}/cmd/{verb}/{id}");
    let port = site.broker.port().to_string();
    let sent = std::process::Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", &topic, "-m", body])
        .status();
    let sent = sent.map_err(|e| RigError::failed("run mosquitto_pub", e))?;
    if sent.success() { Ok(()) } else { Err(RigError::failed("run mosquitto_pub", sent)) }
}

/// Waits for at most two answers to a command: "accepted" and the last word.
fn listen(site: &Site, id: &str) -> Result<std::process::Child> {
    let topic = format!("gengfu/v1/{SITE}/{GATEWAY}/reply/{id}");
    let port = site.broker.port().to_string();
    let mut child = std::process::Command::new("stdbuf")
        .args([
            "-oL",
            "mosquitto_sub",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "1",
            "-t",
            &topic,
            "-C",
            "2",
            "-W",
            "4",
            "-d",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(|e| RigError::failed("run mosquitto_sub", e))?;
    // Its own words tell when it is subscribed; stdbuf lets them out line by line.
    let mut out =
        std::io::BufReader::new(child.stdout.take().ok_or_else(|| RigError::failed("run mosquitto_sub", "no output"))?);
    let mut line = String::new();
    while !line.contains("SUBACK") {
        line.clear();
        let read = std::io::BufRead::read_line(&mut out, &mut line);
        if read.map_err(|e| RigError::failed("read mosquitto_sub", e))? == 0 {
            return Err(RigError::failed("subscribe to the answers", "mosquitto_sub ended"));
        }
    }
    child.stdout = Some(out.into_inner());
    Ok(child)
}

fn said(child: std::process::Child) -> Result<Vec<String>> {
    let output = child.wait_with_output().map_err(|e| RigError::failed("await mosquitto_sub", e))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let replies = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(replies.filter_map(|reply| reply["outcome"].as_str().map(str::to_owned)).collect())
}
