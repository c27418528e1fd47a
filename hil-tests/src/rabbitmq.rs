//! Three RabbitMQ 3.10 nodes (Debian's) with the MQTT plugin, on loopback ports of their own. It owns their configuration, their Erlang port mapper, life and faults. It
//! refuses to know our topics, and to use the service that Debian installs: nothing of it is read or written.
//!
//! Sessions of MQTT clients are quorum queues here (`mqtt.durable_queue_type`): a classic queue lives on one node and is gone with it. What the plugin cannot do is
//! in `docs/scale.md`: retained messages are kept by each node for itself.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Nodes, wait_for_mqtt};
use crate::ports::Port;
use crate::process::{Process, eventually};
use crate::skip::Need;
use crate::{Result, RigError};

/// Debian's wrapper in `sbin` insists on the service's user; this is what it calls.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// Three Erlang machines on a loaded one take their time.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// The nodes' shared secret, for one machine and one test.
const COOKIE: &str = "GENGFURIG";

#[derive(Debug)]
struct Node {
    mqtt: Port,
    /// Held for the node, which speaks AMQP too.
    _amqp: Port,
    distribution: Port,
    process: Process,
}

/// A running cluster. Dropping it kills all nodes; its folder is the caller's.
#[derive(Debug)]
pub struct RabbitCluster {
    nodes: Vec<Node>,
    /// Tells the nodes each other's ports; ends after them.
    _mapper: Process,
    mapper_port: Port,
    dir: PathBuf,
}

/// Whether RabbitMQ is here.
///
/// # Errors
/// When `make setup` has not installed it.
pub fn need() -> Need {
    crate::skip::need::all([crate::skip::need::file(&program("rabbitmq-server")), crate::skip::need::tool("epmd")])
}

fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

impl RabbitCluster {
    /// Starts three nodes with their files in `dir` and waits until the cluster is whole.
    ///
    /// # Errors
    /// When RabbitMQ is missing, or a node does not come up.
    pub fn start(dir: &Path) -> Result<Self> {
        let mapper_port = Port::reserve()?;
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &mapper_port.number().to_string()]);
        let mapper = Process::spawn("epmd", command, dir)?;
        // A node that finds none starts one of its own, which would outlive the test.
        eventually("the port mapper listens", READY_WITHIN, || {
            TcpStream::connect(mapper_port.addr()).map(drop).map_err(|e| e.to_string())
        })?;
        write_common(dir).map_err(|e| RigError::failed(format!("write in {}", dir.display()), e))?;
        let mut nodes = Vec::new();
        for at in 0..3 {
            let (mqtt, amqp, distribution) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
            let config = dir.join(format!("{}.conf", short(at)));
            fs::write(&config, config_text(mqtt.addr(), amqp.addr()))
                .map_err(|e| RigError::failed(format!("write {}", config.display()), e))?;
            let mut process = spawn(dir, at, &mapper_port, &distribution)?;
            // One after the other: the MQTT plugin of 3.10 registers client ids in a raft group that each node founds when it finds no
            // peer, and joins when it does. Nodes that boot together may found several, and then none ever has a leader.
            wait_for_mqtt(&mut process, mqtt.addr(), READY_WITHIN)?;
            nodes.push(Node { mqtt, _amqp: amqp, distribution, process });
        }
        let mut cluster = Self { nodes, _mapper: mapper, mapper_port, dir: dir.to_owned() };
        cluster.wait_until_whole(READY_WITHIN)?;
        Ok(cluster)
    }
}

impl Nodes for RabbitCluster {
    fn kind(&self) -> &'static str {
        "RabbitMQ"
    }

    fn mqtt(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.mqtt.addr()).collect()
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].process.kill();
    }

    fn start(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.kill();
        self.nodes[node].process = spawn(&self.dir, node, &self.mapper_port, &self.nodes[node].distribution)?;
        Ok(())
    }

    fn freeze(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.freeze()
    }

    fn thaw(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.thaw()
    }

    fn wait_until_whole(&mut self, deadline: Duration) -> Result<()> {
        // A CONNECT is accepted only when a majority of the nodes has registered the client's id (a raft group over all of them).
        for node in &mut self.nodes {
            wait_for_mqtt(&mut node.process, node.mqtt.addr(), deadline)?;
        }
        Ok(())
    }
}

fn short(at: usize) -> String {
    format!("r{}", at + 1)
}

fn name(at: usize) -> String {
    format!("{}@localhost", short(at))
}

fn write_common(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(dir.join("enabled_plugins"), "[rabbitmq_mqtt].\n")?;
    let cookie = dir.join(".erlang.cookie");
    fs::write(&cookie, COOKIE)?;
    // Erlang refuses one that others may read.
    fs::set_permissions(cookie, fs::Permissions::from_mode(0o400))
}

fn config_text(mqtt: SocketAddr, amqp: SocketAddr) -> String {
    let mut text = format!(
        "listeners.tcp.1 = {amqp}\n\
         mqtt.listeners.tcp.1 = {mqtt}\n\
         mqtt.allow_anonymous = true\n\
         mqtt.durable_queue_type = quorum\n\
         mqtt.tcp_listen_options.nodelay = true\n\
         loopback_users = none\n\
         cluster_partition_handling = pause_minority\n\
         cluster_formation.peer_discovery_backend = classic_config\n\
         log.console = true\n\
         log.console.level = info\n\
         log.file = false\n"
    );
    for at in 0..3 {
        text.push_str(&format!("cluster_formation.classic_config.nodes.{} = {}\n", at + 1, name(at)));
    }
    text
}

fn environment(command: &mut Command, dir: &Path, mapper: &Port) {
    command.env("HOME", dir).env("ERL_EPMD_PORT", mapper.number().to_string()).env("LANG", "C.UTF-8");
}

fn spawn(dir: &Path, at: usize, mapper: &Port, distribution: &Port) -> Result<Process> {
    let own = dir.join(short(at));
    fs::create_dir_all(&own).map_err(|e| RigError::failed(format!("make {}", own.display()), e))?;
    let mut command = Command::new(program("rabbitmq-server"));
    environment(&mut command, dir, mapper);
    command
        .env("RABBITMQ_NODENAME", name(at))
        .env("RABBITMQ_DIST_PORT", distribution.number().to_string())
        .env("RABBITMQ_CONFIG_FILE", dir.join(format!("{}.conf", short(at))))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", &own)
        .env("RABBITMQ_LOG_BASE", &own)
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", own.join("pid"))
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("no-such-file"))
        // As under systemd, the script becomes the Erlang machine: what is killed or frozen is the node, not a shell around it.
        .env("NOTIFY_SOCKET", own.join("nobody"));
    Process::spawn(&short(at), command, dir)
}
