//! The gateway binary under load. Owns its process and its log, of which only the lines about the probe's smoke are read: reading all
//! of them would be a load of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use hil_tests::process::eventually;
use hil_tests::{Result, RigError, gateway};
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
    child: Child,
    /// The probe's fire events as they are acknowledged.
    acked: Receiver<Hops>,
}

impl Gateway {
    /// Starts `gengfu run` with the configuration at `config`.
    pub fn start(config: &Path) -> Result<Gateway> {
        let program = gateway::binary()?;
        let mut command = Command::new(&program);
        command.args(["run", "--log", "json", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let doing = format!("start {}", program.display());
        let mut child = command.spawn().map_err(|e| RigError::failed(&doing, e))?;
        let log = child.stderr.take().ok_or_else(|| RigError::failed(&doing, "its log is not piped"))?;
        // The reader must never make the gateway wait for a full pipe.
        let (times, acked) = sync_channel(1 << 12);
        std::thread::spawn(move || read(log, &times));
        Ok(Gateway { child, acked })
    }

    /// The way of the probe's next fire event, when the broker has acknowledged it.
    pub fn fire_acked(&self, within: Duration) -> Result<Hops> {
        self.acked.recv_timeout(within).map_err(|e| RigError::failed("await the PUBACK of a smoke alarm", e))
    }

    /// Waits until the uplink is online and all cameras give pictures.
    pub fn wait_until_ready(&mut self, config: &Path, cameras: usize, within: Duration) -> Result<()> {
        eventually("the gateway is connected and sees", within, || {
            if !matches!(self.child.try_wait(), Ok(None)) {
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

impl Drop for Gateway {
    fn drop(&mut self) {
        // Only an ended process cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

fn read(log: ChildStderr, times: &SyncSender<Hops>) {
    let mut awaited = String::new();
    let mut hops = Hops::default();
    for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
        let is_decision = line.contains("smoke-probe") && line.contains("\"decided\"");
        let is_hop = line.contains("\"fire\"") && (line.contains("\"sent\"") || line.contains("\"broker_acked\""));
        if !is_decision && !is_hop {
            continue;
        }
        let Ok(parsed) = serde_json::from_str::<Value>(&line) else { continue };
        let at = parsed["timestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let (Some(id), Some(at)) = (parsed["id"].as_str(), at) else { continue };
        let at_us = at.as_microsecond();
        if is_decision {
            id.clone_into(&mut awaited);
            hops.decided_us = at_us;
        } else if awaited == id && parsed["hop"] == "sent" {
            hops.sent_us = at_us;
        } else if awaited == id {
            hops.acked_us = at_us;
            if times.send(hops).is_err() {
                return;
            }
        }
    }
}
