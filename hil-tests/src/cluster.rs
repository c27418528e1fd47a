//! What every broker cluster of the rig has in common: nodes that can be killed, frozen and started again, a front that shares clients among them, and
//! `gengfu load` as the many. It owns the front and the load's process; the brokers themselves are [`crate::nats`]'s and [`crate::rabbitmq`]'s. It
//! refuses to judge: the load's report says what arrived.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::gateway::binary;
use crate::ports::Port;
use crate::process::{Process, eventually};
use crate::{Result, RigError};

/// A front gives a node that does not accept this long, then tries the next.
const ACCEPTS_WITHIN: Duration = Duration::from_millis(500);

/// The nodes of a cluster, by number from 0.
pub trait Nodes {
    /// What it is, as in "NATS".
    fn kind(&self) -> &'static str;

    /// Where each node takes MQTT clients.
    fn mqtt(&self) -> Vec<SocketAddr>;

    /// Kills a node (SIGKILL). Harmless when it does not run.
    fn kill(&mut self, node: usize);

    /// Starts a node that was killed. Does not wait for it: [`Nodes::wait_until_whole`] does.
    ///
    /// # Errors
    /// When its program cannot be started.
    fn start(&mut self, node: usize) -> Result<()>;

    /// Freezes a node (SIGSTOP): its connections stay open, nothing is answered.
    ///
    /// # Errors
    /// When it has ended.
    fn freeze(&mut self, node: usize) -> Result<()>;

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    fn thaw(&mut self, node: usize) -> Result<()>;

    /// Waits until every node answers and the cluster counts all of them.
    ///
    /// # Errors
    /// What was still missing.
    fn wait_until_whole(&mut self, deadline: Duration) -> Result<()>;
}

/// A load balancer in front of a cluster, as a city puts one there: each connection goes to the next node that accepts it. It looks at no byte. Dropping
/// it cuts all connections.
#[derive(Debug)]
pub struct Front {
    port: Port,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    /// Listens on a port of its own for clients of `nodes`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(nodes: Vec<SocketAddr>) -> Result<Self> {
        let doing = "start the front of the cluster";
        let port = Port::reserve()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| RigError::failed(doing, e))?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())));
        let listener = listener.map_err(|e| RigError::failed(doing, e))?;
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let serve = move || {
            // Ends by shutdown only.
            let _ = runtime.block_on(stop.run_until_cancelled(accept(listener, Arc::new(nodes))));
        };
        let thread = std::thread::Builder::new().name("front".into()).spawn(serve);
        Ok(Self { port, shutdown, thread: Some(thread.map_err(|e| RigError::failed(doing, e))?) })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            // It only moves bytes; what a panic would mean is told by the clients' broken connections.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, nodes: Arc<Vec<SocketAddr>>) {
    let next = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let (nodes, next) = (nodes.clone(), next.clone());
        tokio::spawn(async move {
            let first = next.fetch_add(1, Ordering::Relaxed);
            for step in 0..nodes.len() {
                let node = nodes[(first + step) % nodes.len()];
                if let Ok(Ok(mut server)) = tokio::time::timeout(ACCEPTS_WITHIN, TcpStream::connect(node)).await {
                    // Small answers must not wait for the ACK of the packet before.
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    // Either side may end it at any time; then both are closed.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

/// What `gengfu load` is to do; its other options keep their defaults.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Simulated gateways.
    pub gateways: usize,
    /// Alarms a second, together.
    pub rate: f64,
    /// The seed.
    pub seed: u64,
    /// The site of its gateways.
    pub site: String,
    /// More words for its command line.
    pub more: Vec<String>,
}

/// A running `gengfu load`, the real binary with its desk.
#[derive(Debug)]
pub struct Load {
    process: Process,
}

impl Load {
    /// Starts it against brokers that speak MQTT 3.1.1 (both kinds of cluster do): its gateways know all of them, its desk only `desk`. Its files lie in `dir`.
    ///
    /// # Errors
    /// When the binary is missing.
    pub fn start(dir: &Path, brokers: &[SocketAddr], desk: SocketAddr, options: &LoadOptions) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(["load", "--json", "--protocol", "3.1.1", "--keep-alive", "10", "--site", &options.site]);
        let brokers = brokers.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        command.args([
            "--broker",
            &brokers,
            "--desk-broker",
            &desk.to_string(),
            "--gateways",
            &options.gateways.to_string(),
        ]);
        command.args(["--rate", &options.rate.to_string(), "--seconds", "86400", "--settle", "300"]);
        command.args(["--seed", &options.seed.to_string()]).arg("--folder").arg(dir.join("load"));
        command.args(&options.more);
        Ok(Self { process: Process::spawn("load", command, dir)? })
    }

    /// Waits until all its gateways are connected.
    ///
    /// # Errors
    /// When that does not come about; the text has its words.
    pub fn wait_until_online(&mut self, deadline: Duration) -> Result<()> {
        self.process.wait_for_line("every gateway is online", deadline).map(|_| ())
    }

    /// Lets it run for a moment.
    ///
    /// # Errors
    /// When it ends meanwhile.
    pub fn outlives(&mut self, moment: Duration) -> Result<()> {
        self.process.outlives(moment)
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.output()
    }

    /// Ends the alarms (SIGINT), waits until everything under way has its receipt, at most `settle`, and gives its report.
    ///
    /// # Errors
    /// When it does not end, or ends without a report. A report that is not complete is no error here.
    pub fn finish(mut self, settle: Duration) -> Result<serde_json::Value> {
        if self.process.is_running() {
            self.process.signal(rustix::process::Signal::INT)?;
        }
        self.process.wait(settle)?;
        let output = self.process.output();
        let line = output.lines().find(|line| line.starts_with('{'));
        let line = line.ok_or_else(|| RigError::failed("read the load's report", self.process.tail()))?;
        serde_json::from_str(line).map_err(|e| RigError::failed("read the load's report", format!("{e}: {line}")))
    }
}

/// An HTTP GET at a loopback address; the body of a 200.
///
/// # Errors
/// A text saying what came instead.
pub fn http_get(addr: SocketAddr, path: &str) -> std::result::Result<String, String> {
    use std::io::{Read, Write};
    let within = Duration::from_secs(2);
    let mut stream = std::net::TcpStream::connect_timeout(&addr, within).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(within)).map_err(|e| e.to_string())?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| format!("{path}: {e}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{path}: no HTTP: {answer:?}"))?;
    if head.split_whitespace().nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(format!("{head}\n{body}")) }
}

/// Waits until a node answers an MQTT CONNECT with "accepted".
///
/// # Errors
/// What it answered last.
pub fn wait_for_mqtt(process: &mut Process, addr: SocketAddr, deadline: Duration) -> Result<()> {
    let answered = eventually("the node answers a CONNECT", deadline, || {
        if !process.is_running() {
            return Ok(Err(process.tail()));
        }
        match crate::broker::connect_code(addr) {
            Ok(0) => Ok(Ok(())),
            other => Err(format!("{other:?}\n{}", process.tail())),
        }
    })?;
    answered.map_err(|tail| RigError::failed("wait for a node", format!("it ended\n{tail}")))
}
