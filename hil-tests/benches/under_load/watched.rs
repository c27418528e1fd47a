//! The gateway binary under load. Owns its process and its log, of which only the lines about the probe's smoke are read: reading all
//! of them would be a load of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hil_tests::gateway::{self, Watched};
use hil_tests::process::eventually;
use hil_tests::{Result, RigError};
use serde_json::Value;

/// Times of one fire event, microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hops {
    /// A rule decided.
    pub decided_us: i64,
    /// Stored, synced, handed to the MQTT client.
    pub sent_us: i64,
    /// PUBACK.
    pub acked_us: i64,
}

/// The running gateway. Dropping it kills it.
pub struct Gateway {
    /// The probe's fire events as they are acknowledged.
    acked: Watched<Hops>,
}

impl Gateway {
    /// Starts `gengfu run` with the configuration at `config`.
    pub fn start(config: &Path) -> Result<Gateway> {
        let (mut awaited, mut hops) = (String::new(), Hops::default());
        let acked = Watched::start(config, move |line| pick(&line, &mut awaited, &mut hops))?;
        Ok(Gateway { acked })
    }

    /// The way of the probe's next fire event, when the broker has acknowledged it.
    pub fn fire_acked(&self, within: Duration) -> Result<Hops> {
        let doing = "await the PUBACK of a smoke alarm";
        self.acked.next(within)?.ok_or_else(|| RigError::failed(doing, format!("nothing for {} s", within.as_secs())))
    }

    /// Waits until the uplink is online and all cameras give pictures.
    pub fn wait_until_ready(&mut self, config: &Path, cameras: usize, within: Duration) -> Result<()> {
        eventually("the gateway is connected and sees", within, || {
            if !self.acked.is_running() {
                return Ok(false);
            }
            let status = status(config).map_err(|e| e.to_string())?;
            let seeing =
                status["cameras"].as_array().into_iter().flatten().filter(|c| c["state"] == "streaming").count();
            let ready = status["uplink"]["state"] == "online" && seeing == cameras;
            if ready { Ok(true) } else { Err(format!("{} {}", status["uplink"], status["cameras"])) }
        })?
        .then_some(())
        .ok_or_else(|| RigError::failed("wait for the gateway", "it has ended"))
    }

    /// Items of a lane that wait.
    pub fn pending(&self, lane: &str, config: &Path) -> Result<u64> {
        let status = status(config)?;
        let lanes = status["outbox"]["lanes"].as_array().cloned().unwrap_or_default();
        Ok(lanes.iter().find(|l| l["lane"] == lane).and_then(|l| l["pending"].as_u64()).unwrap_or(0))
    }
}

fn status(config: &Path) -> Result<Value> {
    let doing = "ask the gateway for its status";
    let mut command = Command::new(gateway::binary()?);
    let output = command.args(["status", "--json", "--config"]).arg(config).output();
    let output = output.map_err(|e| RigError::failed(doing, e))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|e| RigError::failed(doing, format!("{e}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Follows the probe's fire event through its lines; its times at the last of them.
fn pick(line: &str, awaited: &mut String, hops: &mut Hops) -> Option<Hops> {
    let is_decision = line.contains("smoke-probe") && line.contains("\"decided\"");
    let is_hop = line.contains("\"fire\"") && (line.contains("\"sent\"") || line.contains("\"broker_acked\""));
    if !is_decision && !is_hop {
        return None;
    }
    let parsed: Value = serde_json::from_str(line).ok()?;
    let at_us = parsed["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok()?.as_microsecond();
    let id = parsed["id"].as_str()?;
    if is_decision {
        id.clone_into(awaited);
        hops.decided_us = at_us;
    } else if awaited == id && parsed["hop"] == "sent" {
        hops.sent_us = at_us;
    } else if awaited == id {
        hops.acked_us = at_us;
        return Some(*hops);
    }
    None
}
