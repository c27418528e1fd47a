//! A real mosquitto on a loopback port of its own. It owns the broker's configuration, life and memory; it
//! refuses to know our topics. Faults of the path between a client and the broker are [`crate::proxy`]'s.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::ports::Port;
use crate::process::{Process, eventually};
use crate::skip::need::find_tool;
use crate::{Result, RigError};

/// How long a broker may take to answer its first CONNECT. It takes milliseconds; a loaded machine is slower.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a broker may take to save its state and end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What stands behind this in a configuration was put there by [`Broker::restart_with`].
const CHANGED_LATER: &str = "# changed later\n";

/// How the broker is set up.
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// Keep sessions, retained and queued messages on disk, saved at every change, so that even a killed
    /// broker has them after a restart. Off: a restart forgets all.
    pub persistence: bool,
    /// The text of an ACL file (mosquitto's `acl_file`). None: everybody may do everything.
    pub acl: Option<String>,
    /// Users and passwords. Empty: anonymous clients are welcome; otherwise they are refused.
    pub users: Vec<(String, String)>,
    /// More lines for the listener or the broker, such as `max_packet_size 65536` or `max_inflight_messages 1`.
    pub extra: Vec<String>,
}

/// What a restarted broker remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// What it had on disk (nothing, without [`BrokerOptions::persistence`]).
    Keep,
    /// Nothing: a new machine in its place.
    Empty,
}

/// A running broker. Dropping it kills it and frees its port; its folder is the caller's.
#[derive(Debug)]
pub struct Broker {
    port: Port,
    dir: PathBuf,
    config: PathBuf,
    process: Process,
}

impl Broker {
    /// Starts a broker whose files lie in `dir`, and waits until it answers MQTT.
    ///
    /// # Errors
    /// When mosquitto is missing, refuses the configuration (the text has its words) or does not answer.
    pub fn start(dir: &Path, options: &BrokerOptions) -> Result<Self> {
        let port = Port::reserve()?;
        let doing = format!("write the broker's configuration in {}", dir.display());
        let config = write_config(dir, &port, options).map_err(|e| RigError::failed(doing, e))?;
        if !options.users.is_empty() {
            write_passwords(dir, &options.users)?;
        }
        let process = launch(dir, &config)?;
        let mut broker = Self { port, dir: dir.to_owned(), config, process };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The port alone.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The process, to read its log (`output`) or its memory.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it (SIGKILL): connections are reset, what was not saved is lost.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order (SIGTERM): it saves its state if it keeps any.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(END_WITHIN).map(|_| ())
    }

    /// Freezes it (SIGSTOP): connections stay open, nothing is answered, new ones are accepted by the kernel only.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets it go on after [`Broker::freeze`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.thaw()
    }

    /// Starts it again on the same port, killing it first if it runs, and waits until it answers.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn restart(&mut self, memory: Memory) -> Result<()> {
        self.process.kill();
        if memory == Memory::Empty {
            for saved in saved_state(&self.dir) {
                let doing = format!("remove {}", saved.display());
                fs::remove_file(&saved).map_err(|e| RigError::failed(doing, e))?;
            }
        }
        self.process = launch(&self.dir, &self.config)?;
        self.wait_until_ready()
    }

    /// Starts it again with these lines at the end of its configuration, in place of those of the last call; what it had on disk is kept.
    ///
    /// # Errors
    /// As [`Broker::start`], and when the configuration cannot be written.
    pub fn restart_with(&mut self, lines: &[String]) -> Result<()> {
        let doing = || format!("change {}", self.config.display());
        let text = fs::read_to_string(&self.config).map_err(|e| RigError::failed(doing(), e))?;
        let base = text.split(CHANGED_LATER).next().unwrap_or_default();
        let text = format!("{base}{CHANGED_LATER}{}\n", lines.join("\n"));
        fs::write(&self.config, text).map_err(|e| RigError::failed(doing(), e))?;
        self.restart(Memory::Keep)
    }

    /// Gives it another ACL while it runs.
    ///
    /// # Errors
    /// When it was started without one, or does not run.
    pub fn set_acl(&mut self, acl: &str) -> Result<()> {
        let file = self.dir.join("acl");
        if !file.is_file() {
            return Err(RigError::failed("change the broker's ACL", "it was started without one"));
        }
        write_private(&file, acl).map_err(|e| RigError::failed(format!("write {}", file.display()), e))?;
        self.process.signal(Signal::HUP)?;
        self.process.wait_for_line("Reloading config", READY_WITHIN).map(|_| ())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let addr = self.addr();
        let process = &mut self.process;
        let answered = eventually("mosquitto answers a CONNECT", READY_WITHIN, || {
            if !process.is_running() {
                return Ok(Err(process.tail()));
            }
            connect_code(addr).map(|_| Ok(())).map_err(|e| format!("{e}\n{}", process.tail()))
        })?;
        answered.map_err(|tail| RigError::failed("start mosquitto", format!("it ended\n{tail}")))
    }
}

/// Opens a connection, sends an MQTT 3.1.1 CONNECT without a name, and gives the return code of the CONNACK
/// (OASIS MQTT 3.1.1, 3.2.2.3): 0 is "accepted", 5 is "not authorised". Anything that answers is a broker.
///
/// # Errors
/// A text saying what happened instead.
pub fn connect_code(addr: SocketAddr) -> std::result::Result<u8, String> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&addr, second).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(second)).map_err(|e| e.to_string())?;
    // Fixed header, protocol "MQTT" level 4, clean session, keep alive 10 s, empty client id.
    let connect = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x02, 0, 10, 0, 0];
    stream.write_all(&connect).map_err(|e| e.to_string())?;
    let mut connack = [0_u8; 4];
    stream.read_exact(&mut connack).map_err(|e| format!("no CONNACK: {e}"))?;
    // DISCONNECT, so that the broker does not log a broken client. It may have hung up after a refusal.
    let _ = stream.write_all(&[0xe0, 0]);
    match connack {
        [0x20, 2, _, code] => Ok(code),
        other => Err(format!("not a CONNACK: {other:02x?}")),
    }
}

fn write_config(dir: &Path, port: &Port, options: &BrokerOptions) -> std::io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let mut lines = vec![
        format!("listener {} 127.0.0.1", port.number()),
        // Started as root it would become user "mosquitto" and could not read this folder.
        "user root".to_owned(),
        "log_dest stderr".to_owned(),
        "log_type all".to_owned(),
        "connection_messages true".to_owned(),
        // Small answers (PUBACK, receipt) must not wait for the ACK of the packet before: Nagle would hold them for 40 ms.
        "set_tcp_nodelay true".to_owned(),
        // The default of 1000 drops what an outage scenario wants to see arrive. Not 0, "no bound": with it mosquitto 2.0.11 hangs up on a client after
        // every publish that it refuses, on 3.1.1 too, where it should drop it in silence.
        "max_queued_messages 1000000".to_owned(),
        format!("allow_anonymous {}", options.users.is_empty()),
    ];
    if options.persistence {
        lines.push("persistence true".to_owned());
        lines.push(format!("persistence_location {}/", dir.display()));
        lines.push("autosave_on_changes true".to_owned());
        lines.push("autosave_interval 1".to_owned());
    } else {
        lines.push("persistence false".to_owned());
    }
    if let Some(acl) = &options.acl {
        write_private(&dir.join("acl"), acl)?;
        lines.push(format!("acl_file {}/acl", dir.display()));
    }
    if !options.users.is_empty() {
        lines.push(format!("password_file {}/passwords", dir.display()));
    }
    lines.extend(options.extra.iter().cloned());
    let config = dir.join("mosquitto.conf");
    fs::write(&config, lines.join("\n") + "\n")?;
    Ok(config)
}

/// Mosquitto warns about files that others may read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn write_passwords(dir: &Path, users: &[(String, String)]) -> Result<()> {
    let file = dir.join("passwords");
    write_private(&file, "").map_err(|e| RigError::failed(format!("write {}", file.display()), e))?;
    for (user, password) in users {
        let mut command = Command::new("mosquitto_passwd");
        command.arg("-b").arg(&file).args([user, password]);
        crate::process::run(command)?;
    }
    Ok(())
}

fn launch(dir: &Path, config: &Path) -> Result<Process> {
    let program = find_tool("mosquitto").ok_or_else(|| RigError::failed("find mosquitto", "run `make setup`"))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    Process::spawn("mosquitto", command, dir)
}

fn saved_state(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("mosquitto.db"))).collect()
}
