//! The processes of the demonstration: two nodes and the gateway.
//!
//! Owns their start, their logs and their end. They die with this process, whatever happens to it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::story;
use crate::config::{Attachment, Config, DeviceClass, Node};
use crate::settings::RESTART_CODE;

/// A gateway that is told to stop drains its journal and says goodbye.
const GOODBYE: Duration = Duration::from_secs(10);

/// What runs.
pub(super) struct Stage {
    gateway: Child,
    nodes: Vec<Child>,
    log: PathBuf,
    config: PathBuf,
}

impl Stage {
    /// Starts the nodes, then the gateway. Call it on the main thread: the children's death signal is tied to it.
    pub(super) fn set(config: &Config, config_file: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for node in &config.nodes {
            println!("node     {} on {}", node.name, own_port(node)?.display());
            nodes.push(start_node(node, folder)?);
        }
        let log = folder.join("gateway.log");
        println!("gateway  {}/{}, log in {}", config.gateway.site, config.gateway.name, log.display());
        for camera in &config.cameras {
            println!("camera   {} on {}", camera.name, camera.url);
        }
        std::fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let gateway = start_gateway(config_file, &log)?;
        Ok(Self { gateway, nodes, log, config: config_file.to_owned() })
    }

    /// Completes when one of them ends, which none should.
    pub(super) async fn first_death(&mut self) -> String {
        let nodes = self.nodes.iter_mut().map(|node| Box::pin(node.wait()));
        let mut nodes: futures_util::stream::FuturesUnordered<_> = nodes.collect();
        loop {
            let status = tokio::select! {
                status = self.gateway.wait() => status,
                Some(status) = futures_util::StreamExt::next(&mut nodes) => {
                    return format!("a node ended ({})", describe(status));
                }
            };
            // As a service manager does: it asks to be started again with another configuration.
            let asks = status.as_ref().is_ok_and(|status| status.code() == Some(i32::from(RESTART_CODE)));
            match asks.then(|| start_gateway(&self.config, &self.log)) {
                Some(Ok(gateway)) => self.gateway = gateway,
                Some(Err(error)) => return format!("the gateway cannot be started again: {error:#}"),
                None => return format!("the gateway ended ({}); see {}", describe(status), self.log.display()),
            }
        }
    }

    /// Stops the gateway in order, then the nodes.
    pub(super) async fn strike(&mut self) {
        if let Some(pid) = self.gateway.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // It may have ended just now.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(GOODBYE, self.gateway.wait()).await.is_err() {
            let _ = self.gateway.kill().await;
        }
        for node in &mut self.nodes {
            let _ = node.kill().await;
        }
    }
}

fn start_gateway(config: &Path, log: &Path) -> anyhow::Result<Child> {
    let output = std::fs::File::options().append(true).open(log);
    let output = output.with_context(|| format!("write to {}", log.display()))?;
    let mut command = this_program()?;
    command.args(["run", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    command.spawn().context("start the gateway")
}

fn describe(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn own_port(node: &Node) -> anyhow::Result<&Path> {
    match &node.at {
        Attachment::Port(port) => Ok(port),
        Attachment::Bus { .. } => {
            anyhow::bail!("node {}: the demonstration gives each node a port of its own", node.name)
        }
    }
}

fn start_node(node: &Node, folder: &Path) -> anyhow::Result<Child> {
    let channel_of =
        |class| node.channels.iter().find(|(_, device)| device.class == class).map_or(0, |(channel, _)| *channel);
    let (door, smoke) = (channel_of(DeviceClass::Door), channel_of(DeviceClass::Smoke));
    let script = folder.join(format!("{}.script", node.name));
    std::fs::write(&script, story::script(door != 0, smoke != 0))
        .with_context(|| format!("write {}", script.display()))?;
    let log = std::fs::File::create(folder.join(format!("{}.log", node.name)))?;
    let uid = node.uid.with_context(|| format!("node {} needs a uid in the demo's configuration", node.name))?;
    let mut command = this_program()?;
    command
        .arg("node")
        .arg("--pty")
        .arg(own_port(node)?)
        .args(["--uid", &format!("{uid:016x}")])
        .arg("--script")
        .arg(&script);
    command.args(["--door", &door.to_string(), "--smoke", &smoke.to_string(), "--sos", "0"]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("start node {}", node.name))
}

/// This program again, in a process group of its own (Ctrl-C reaches only us, and we stop the others in order), and gone when we are.
fn this_program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program's own file")?);
    command.process_group(0).kill_on_drop(true);
    // SAFETY: the closure runs in the child between fork and exec and makes one system call; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    Ok(command)
}
