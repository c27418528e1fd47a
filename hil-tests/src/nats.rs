//! Three (or more) NATS nodes with JetStream and MQTT, replicated three times, on loopback ports of their own. It owns their configuration, life and faults: a node
//! killed or frozen, a leader moved, a node cut off from the others while clients still reach it. It refuses to know our topics.
//!
//! Between any two nodes stands a [`Proxy`] for each direction when the cluster is to be cut: routes are configured by hand, and what a node would tell the others
//! about its address is a port where nobody listens, so that none finds a way around.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::clip::repository;
use crate::cluster::{Nodes, http_get, wait_for_mqtt};
use crate::ports::Port;
use crate::process::{Process, eventually};
use crate::proxy::Proxy;
use crate::skip::Need;
use crate::{Result, RigError};

/// Where `scripts/setup.sh test` puts the server.
const PROGRAM: &str = "target/gengfu/nats/nats-server";
/// A node answers within this; elections take up to 9 s, a loaded machine longer.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The stream that holds what MQTT clients publish with QoS 1.
pub const MESSAGES: &str = "$MQTT_msgs";

/// How the cluster is set up.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// How many nodes; also how often everything is stored, up to 5.
    pub nodes: usize,
    /// Nodes can be cut off from each other ([`NatsCluster::cut_off`]). Costs a proxy on every route.
    pub can_be_cut: bool,
}

impl Default for NatsOptions {
    /// Three nodes, routes without proxies.
    fn default() -> Self {
        Self { nodes: 3, can_be_cut: false }
    }
}

#[derive(Debug)]
struct Node {
    mqtt: Port,
    client: Port,
    http: Port,
    config: PathBuf,
    process: Process,
}

/// A running cluster. Dropping it kills all nodes; its folder is the caller's.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<Node>,
    /// From which node, to which, and what stands between.
    routes: Vec<(usize, usize, Proxy)>,
    /// Ports where nobody listens, held so that nobody else does.
    _nowhere: Vec<Port>,
    dir: PathBuf,
}

/// Whether the server is here.
///
/// # Errors
/// When `make setup` has not fetched it.
pub fn need() -> Need {
    crate::skip::need::file(&repository().join(PROGRAM))
}

impl NatsCluster {
    /// Starts all nodes with their files in `dir` and waits until the cluster is whole.
    ///
    /// # Errors
    /// When the server is missing, or a node does not come up.
    pub fn start(dir: &Path, options: &NatsOptions) -> Result<Self> {
        let count = options.nodes;
        let cluster: Vec<Port> = (0..count).map(|_| Port::reserve()).collect::<Result<_>>()?;
        let nowhere: Vec<Port> = (0..count).map(|_| Port::reserve()).collect::<Result<_>>()?;
        let mut routes = Vec::new();
        for from in 0..count {
            for to in (0..count).filter(|to| options.can_be_cut && *to != from) {
                routes.push((from, to, Proxy::start(cluster[to].addr())?));
            }
        }
        let mut nodes = Vec::new();
        for at in 0..count {
            let to = |to: usize| {
                let proxy = routes.iter().find(|(from, dest, _)| (*from, *dest) == (at, to));
                proxy.map_or(cluster[to].addr(), |(_, _, proxy)| proxy.addr())
            };
            let others: Vec<SocketAddr> = (0..count).filter(|other| *other != at).map(to).collect();
            let advertise = options.can_be_cut.then(|| nowhere[at].addr());
            nodes.push(Node::launch(dir, at, count, cluster[at].addr(), &others, advertise)?);
        }
        // Held by the nodes from here on; between two lives of a node nobody else may take them.
        let kept = cluster.into_iter().chain(nowhere).collect();
        let mut cluster = Self { nodes, routes, _nowhere: kept, dir: dir.to_owned() };
        cluster.wait_until_whole(READY_WITHIN)?;
        Ok(cluster)
    }

    /// The node that leads a stream, as the others see it; `None` while there is no leader.
    #[must_use]
    pub fn leader(&self, stream: &str) -> Option<usize> {
        self.leader_seen_by(stream, |_| true)
    }

    /// As [`NatsCluster::leader`], asking all nodes but one: what the majority believes when that one is cut off.
    #[must_use]
    pub fn leader_among_others(&self, stream: &str, but: usize) -> Option<usize> {
        self.leader_seen_by(stream, |node| node != but)
    }

    fn leader_seen_by(&self, stream: &str, asked: impl Fn(usize) -> bool) -> Option<usize> {
        let nodes = self.nodes.iter().enumerate().filter(|(at, _)| asked(*at));
        let name = nodes.map(|(_, node)| node).find_map(|node| {
            let state: serde_json::Value = serde_json::from_str(&node.get("/jsz?streams=1").ok()?).ok()?;
            let streams = state["account_details"][0]["stream_detail"].as_array()?.clone();
            let found = streams.into_iter().find(|found| found["name"] == stream)?;
            found["cluster"]["leader"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
        })?;
        name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)
    }

    /// Asks the leader of a stream to hand over, and waits until another node leads.
    ///
    /// # Errors
    /// When there is no leader, or none takes over.
    pub fn move_leader(&self, stream: &str) -> Result<(usize, usize)> {
        let what = format!("the leader of {stream} moves");
        let before = eventually(&what, READY_WITHIN, || self.leader(stream).ok_or_else(|| "no leader".to_owned()))?;
        self.request(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"))?;
        let after = eventually(&what, READY_WITHIN, || match self.leader(stream) {
            Some(after) if after != before => Ok(after),
            other => Err(format!("{other:?} leads, before it was {before}")),
        })?;
        Ok((before, after))
    }

    /// Cuts a node off from the others; clients still reach it. It is the minority, so it can store nothing.
    pub fn cut_off(&self, node: usize) {
        self.proxies_of(node).for_each(Proxy::blackhole);
    }

    /// Ends [`NatsCluster::cut_off`].
    pub fn join_again(&self, node: usize) {
        self.proxies_of(node).for_each(Proxy::heal);
    }

    fn proxies_of(&self, node: usize) -> impl Iterator<Item = &Proxy> {
        self.routes.iter().filter(move |(from, to, _)| *from == node || *to == node).map(|(_, _, proxy)| proxy)
    }

    /// Sends an empty request to the cluster's own service by the client protocol, and waits for an answer that says "success".
    fn request(&self, subject: &str) -> Result<()> {
        let doing = format!("ask the cluster for {subject}");
        let fail = |e: std::io::Error| RigError::failed(&doing, e);
        let within = Duration::from_secs(10);
        let node = self.nodes.iter().find(|node| node.get("/healthz").is_ok());
        let node = node.ok_or_else(|| RigError::failed(&doing, "no node is healthy"))?;
        let mut stream = TcpStream::connect_timeout(&node.client.addr(), within).map_err(fail)?;
        stream.set_read_timeout(Some(within)).map_err(fail)?;
        let request = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB _INBOX.rig 1\r\nPUB {subject} _INBOX.rig 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).map_err(fail)?;
        let mut said = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line.map_err(fail)?;
            if line.contains("\"success\":true") {
                return Ok(());
            }
            said.push(line);
        }
        Err(RigError::failed(doing, said.join("\n")))
    }
}

impl Nodes for NatsCluster {
    fn kind(&self) -> &'static str {
        "NATS"
    }

    fn mqtt(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.mqtt.addr()).collect()
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].process.kill();
    }

    fn start(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.kill();
        self.nodes[node].process = spawn(&self.dir, node, &self.nodes[node].config)?;
        Ok(())
    }

    fn freeze(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.freeze()
    }

    fn thaw(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.thaw()
    }

    fn wait_until_whole(&mut self, deadline: Duration) -> Result<()> {
        for node in &mut self.nodes {
            wait_for_mqtt(&mut node.process, node.mqtt.addr(), deadline)?;
        }
        for node in &self.nodes {
            // 200 only when the node has caught up with every stream and consumer it stores.
            eventually("the node is healthy", deadline, || node.get("/healthz").map(|_| ()))?;
        }
        Ok(())
    }
}

impl Node {
    fn launch(
        dir: &Path,
        at: usize,
        count: usize,
        cluster: SocketAddr,
        others: &[SocketAddr],
        advertise: Option<SocketAddr>,
    ) -> Result<Self> {
        let (mqtt, client, http) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let name = name(at);
        let routes: Vec<String> = others.iter().map(|other| format!("nats://{other}")).collect();
        let advertise = advertise.map(|addr| format!("advertise: \"{addr}\"")).unwrap_or_default();
        let store = dir.join(&name);
        let text = format!(
            r#"server_name: {name}
listen: "{}"
http: "{}"
jetstream {{
  store_dir: "{}"
  max_memory_store: 256MB
  max_file_store: 4GB
}}
mqtt {{
  listen: "{}"
  stream_replicas: {}
  ack_wait: "10s"
}}
cluster {{
  name: gengfu
  listen: "{cluster}"
  {advertise}
  routes: [{}]
}}
"#,
            client.addr(),
            http.addr(),
            store.display(),
            mqtt.addr(),
            count.min(5),
            routes.join(", "),
        );
        let config = dir.join(format!("{name}.conf"));
        let write = fs::create_dir_all(dir).and_then(|()| fs::write(&config, text));
        write.map_err(|e| RigError::failed(format!("write {}", config.display()), e))?;
        let process = spawn(dir, at, &config)?;
        Ok(Self { mqtt, client, http, config, process })
    }

    fn get(&self, path: &str) -> std::result::Result<String, String> {
        http_get(self.http.addr(), path)
    }
}

fn name(at: usize) -> String {
    format!("n{}", at + 1)
}

fn spawn(dir: &Path, at: usize, config: &Path) -> Result<Process> {
    let mut command = Command::new(repository().join(PROGRAM));
    command.arg("--config").arg(config);
    Process::spawn(&name(at), command, dir)
}
