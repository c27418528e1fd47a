//! The gateway binary under measurement. Owns the process, the pipe with its log, and the reading of hops and memory. It
//! polls nothing: the gateway is left alone until it says something.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use hil_tests::gateway::Watched;
use hil_tests::{Result, RigError};
use serde_json::Value;

/// Log lines repeated in a failure message.
const TAIL_LINES: usize = 12;

/// A log line that tells a hop.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Which: `sensed`, `decided`, `sent`, `broker_acked` or `unheard`, `received`, or the message of a line that has none.
    pub name: String,
    /// The gateway's time of it, microseconds since the Unix epoch.
    pub at_us: i64,
    /// The event's id, where the line has one.
    pub id: Option<String>,
}

/// The running gateway. Dropping it kills it.
pub struct Gateway {
    /// Hops, and other lines.
    log: Watched<std::result::Result<Hop, String>>,
    tail: VecDeque<String>,
}

impl Gateway {
    /// Starts `gengfu run` with the configuration at `config`.
    ///
    /// # Errors
    /// When the binary is not built or does not start.
    pub fn start(config: &Path) -> Result<Gateway> {
        let log = Watched::start(config, |line| Some(parse(&line).ok_or(line)))?;
        Ok(Gateway { log, tail: VecDeque::new() })
    }

    /// The next hop the gateway tells.
    ///
    /// # Errors
    /// When it tells none `within`, or has ended; the text has its last lines.
    pub fn next(&mut self, what: &str, within: Duration) -> Result<Hop> {
        loop {
            let why = match self.log.next(within) {
                Ok(Some(Ok(hop))) => return Ok(hop),
                Ok(Some(Err(line))) => {
                    self.tail.push_back(line);
                    if self.tail.len() > TAIL_LINES {
                        self.tail.pop_front();
                    }
                    continue;
                }
                Ok(None) => format!("nothing for {} s", within.as_secs()),
                Err(ended) => ended.to_string(),
            };
            let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
            return Err(RigError::failed(what, format!("{why}; its last other lines:\n{}", lines.join("\n"))));
        }
    }

    /// Fields of `/proc/<pid>/status` in KiB: what is resident, its peak, and of it private memory and mapped files.
    ///
    /// # Errors
    /// When the gateway has ended.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.log.pid());
        let status = fs::read_to_string(&path).map_err(|e| RigError::failed(format!("read {path}"), e))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()
        };
        let found = || {
            Some(Memory {
                resident: field("VmRSS")?,
                peak: field("VmHWM")?,
                anonymous: field("RssAnon")?,
                files: field("RssFile")?,
            })
        };
        found().ok_or_else(|| RigError::failed(format!("read {path}"), "a field is missing; has the gateway ended?"))
    }
}

/// Memory in KiB, see proc(5).
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// VmRSS.
    pub resident: u64,
    /// VmHWM.
    pub peak: u64,
    /// RssAnon: heaps, stacks, relocated tables.
    pub anonymous: u64,
    /// RssFile: pages of program and libraries, shared with the page cache.
    pub files: u64,
}

fn parse(line: &str) -> Option<Hop> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| line.get(key).and_then(Value::as_str);
    let at: jiff::Timestamp = text("timestamp")?.parse().ok()?;
    let name = text("hop").or_else(|| text("message").filter(|message| *message == "the uplink is online"))?;
    Some(Hop { name: name.to_owned(), at_us: at.as_microsecond(), id: text("id").map(str::to_owned) })
}
