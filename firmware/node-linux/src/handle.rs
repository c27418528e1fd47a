//! A node as its owner sees it: options, commands, reports.
//!
//! Owns the handle and what may be said through it. Refuses to buffer: commands beyond a small bound wait for their turn, and
//! reports are handed to the caller's function at once, on the node's thread.

use std::fmt;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use gengfu_node::{Timing, Wiring, contact};
use gengfu_wire::{EventKind, FirmwareVersion, NODE_CHANNEL, Slot, Uid};
use rustix::event::{EventfdFlags, eventfd};

use crate::flash::{FlashError, Slots};
use crate::gpio::{GpioError, GpioLine};
use crate::port::{Port, PortError, Wire};
use crate::process::Running;
use crate::script::{Command, Script};

/// Commands that may wait for the node's thread.
const COMMANDS_MAX: usize = 64;

/// What node to run. `None` for a channel leaves that sensor out.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its wire.
    pub port: Port,
    /// Its hardware's number.
    pub uid: Uid,
    /// Its boot id; `None` takes a random one, as it must be outside of tests (W11).
    pub boot: Option<u32>,
    /// Alone on its wire, or at an address on a bus.
    pub wiring: Wiring,
    /// Where a node on a bus keeps the address that the gateway assigns; read where [`Options::wiring`] has none. `None` forgets it at the end.
    pub address_file: Option<PathBuf>,
    /// Real lines. With any of them the node has no simulated sensors, sounder or battery, and the channels below do not count.
    pub gpio: Vec<GpioLine>,
    /// Its slots, when its firmware can be replaced.
    pub flash: Option<Slots>,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
    /// Channel of the door contact.
    pub contact: Option<u8>,
    /// Channel of the smoke alarm's head.
    pub smoke: Option<u8>,
    /// Channel of the emergency button.
    pub sos: Option<u8>,
    /// Channel of the lid's switch.
    pub tamper: Option<u8>,
    /// Milliseconds for which the door contact must be still.
    pub debounce_ms: u32,
    /// The battery at start, in millivolts; `None` for a node on mains.
    pub battery_mv: Option<u16>,
    /// What happens by itself.
    pub script: Script,
}

impl Options {
    /// A node with everything: door on channel 1, head on 2, button on 3, lid on 0, a good battery.
    #[must_use]
    pub fn new(port: Port, uid: Uid) -> Self {
        Self {
            port,
            uid,
            boot: None,
            wiring: Wiring::PointToPoint,
            address_file: None,
            gpio: Vec::new(),
            flash: None,
            heartbeat_ms: Timing::default().heartbeat_ms,
            contact: Some(1),
            smoke: Some(2),
            sos: Some(3),
            tamper: Some(NODE_CHANNEL),
            debounce_ms: contact::DEBOUNCE_MS,
            battery_mv: Some(3_000),
            script: Script::default(),
        }
    }
}

/// What a node tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReport {
    /// It has booted.
    Booted {
        /// This run of it.
        boot: u32,
    },
    /// The image that the boot loader has chosen for this boot; only with [`Options::flash`].
    Image {
        /// Its version, as it was signed.
        firmware: FirmwareVersion,
        /// Where it is.
        slot: Slot,
        /// Whether it is on trial.
        is_trial: bool,
    },
    /// An event has its number and will be sent until acknowledged.
    Accepted {
        /// This run of it.
        boot: u32,
        /// The event's number.
        sequence: u32,
        /// Where.
        channel: u8,
        /// What.
        kind: EventKind,
        /// When, by the gateway's time in milliseconds since 1970-01-01 UTC, if the gateway has told it.
        unix_ms: Option<u64>,
    },
    /// The gateway's disk has everything of this boot up to here.
    Acked {
        /// The run.
        boot: u32,
        /// Highest number covered.
        through: u32,
    },
    /// The outbox was full; this number will be told as lost.
    Lost {
        /// The run.
        boot: u32,
        /// The number.
        sequence: u32,
    },
    /// The sounder began or ended.
    Sounder {
        /// Whether it sounds now.
        on: bool,
    },
    /// The serial device is gone, or back.
    Port {
        /// What happened; it is retried.
        text: String,
    },
    /// The gateway has given it an address on the bus.
    Assigned {
        /// 1 to 247.
        address: u8,
    },
    /// Something asked for was not done.
    Refused {
        /// What, why, and what to do.
        text: String,
    },
    /// The last report.
    Stopped,
}

impl fmt::Display for NodeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeReport::Booted { boot } => write!(f, "boot {boot:08x}"),
            NodeReport::Accepted { sequence, channel, kind, unix_ms, .. } => {
                write!(f, "#{sequence} channel {channel}: {kind:?}")?;
                unix_ms.map_or(Ok(()), |unix_ms| write_time(f, unix_ms))
            }
            NodeReport::Image { firmware, slot, is_trial } => {
                write!(f, "image {firmware} in slot {slot}{}", if *is_trial { ", on trial" } else { "" })
            }
            NodeReport::Acked { through, .. } => write!(f, "gateway has everything up to #{through}"),
            NodeReport::Lost { sequence, .. } => write!(f, "#{sequence} lost: the outbox is full"),
            NodeReport::Sounder { on } => write!(f, "sounder {}", if *on { "on" } else { "off" }),
            NodeReport::Port { text } | NodeReport::Refused { text } => write!(f, "{text}"),
            NodeReport::Assigned { address } => write!(f, "address {address} on the bus"),
            NodeReport::Stopped => write!(f, "stopped"),
        }
    }
}

/// Time of day, UTC, as in ` at 09:15:02.125Z`.
fn write_time(f: &mut fmt::Formatter<'_>, unix_ms: u64) -> fmt::Result {
    let (ms, s) = (unix_ms % 1_000, unix_ms / 1_000);
    write!(f, " at {:02}:{:02}:{:02}.{ms:03}Z", s / 3_600 % 24, s / 60 % 60, s % 60)
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No wire.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No flash.
    #[error(transparent)]
    Flash(#[from] FlashError),
    /// The channels do not fit.
    #[error("two sensors have channel {0}, or it is above 32; give each its own")]
    Channels(u8),
    /// A GPIO line cannot be had.
    #[error(transparent)]
    Gpio(#[from] GpioError),
    /// The kept bus address cannot be read.
    #[error("read the bus address in {file}: {why}; remove the file, and the gateway assigns one again")]
    Address {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: std::io::Error,
    },
    /// The operating system refuses.
    #[error("start the node's thread: {0}")]
    Os(#[from] std::io::Error),
}

/// The node is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Gone;

/// A running node. Dropping it stops the node.
pub struct NodeHandle {
    commands: SyncSender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    link: PathBuf,
}

impl NodeHandle {
    /// Makes something happen to the node. It has happened when the next poll of the node is over, microseconds later.
    ///
    /// # Errors
    /// [`Gone`] when the node has stopped.
    pub fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).map_err(|_| Gone)?;
        rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()).map(drop).map_err(|_| Gone)
    }

    /// Opens or closes the door.
    ///
    /// # Errors
    /// [`Gone`] when the node has stopped; so for all of these.
    pub fn set_contact(&self, open: bool) -> Result<(), Gone> {
        self.send(Command::Contact { open })
    }

    /// Smoke at the head, or none.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn set_smoke(&self, smoke: bool) -> Result<(), Gone> {
        self.send(Command::Smoke(smoke))
    }

    /// Opens or closes the lid.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn set_tamper(&self, open: bool) -> Result<(), Gone> {
        self.send(Command::Tamper(open))
    }

    /// Sets the battery, which is measured at once.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn set_battery_mv(&self, millivolts: u16) -> Result<(), Gone> {
        self.send(Command::Battery { millivolts })
    }

    /// Presses the head's test button for a moment.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn press_test(&self) -> Result<(), Gone> {
        self.send(Command::Test)
    }

    /// Presses the emergency button for a moment.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn press_sos(&self) -> Result<(), Gone> {
        self.send(Command::Sos)
    }

    /// Power off and on: a new boot, and what was not acknowledged is forgotten.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn reboot(&self) -> Result<(), Gone> {
        self.send(Command::Reboot)
    }

    /// What a gateway opens to reach the node.
    #[must_use]
    pub fn port(&self) -> &Path {
        &self.link
    }

    /// Stops the node, waits for its end and closes its wire. The link disappears.
    pub fn stop(mut self) {
        self.end();
    }

    /// Waits until the node ends by itself (`quit` in its script).
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn end(&mut self) {
        let _ = self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a node on a thread of its own. `report` is called on that thread.
///
/// # Errors
/// [`StartError`] when the wire cannot be opened or the channels do not fit. Nothing is left behind then.
pub fn spawn(options: Options, report: impl FnMut(NodeReport) + Send + 'static) -> Result<NodeHandle, StartError> {
    let wire = Wire::open(&options.port)?;
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?);
    let (commands, received) = sync_channel(COMMANDS_MAX);
    let link = match &options.port {
        Port::Pty { link } => link.clone(),
        Port::Serial { path, .. } => path.clone(),
    };
    let mut running = Running::new(options, wire, Arc::clone(&wake), Box::new(report))?;
    let thread = std::thread::Builder::new().name("node".into()).spawn(move || running.run(&received))?;
    Ok(NodeHandle { commands, wake, thread: Some(thread), link })
}

/// Runs a node until its script or `input` says `quit`, for a command line: each line of `input` is a command, and
/// `complain` gets those that are none. At the end of `input` the node runs on until its script says `quit`.
///
/// # Errors
/// As [`spawn`].
pub fn run(
    options: Options,
    input: impl BufRead,
    report: impl FnMut(NodeReport) + Send + 'static,
    mut complain: impl FnMut(String),
) -> Result<(), StartError> {
    let handle = spawn(options, report)?;
    for line in input.lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
        match line.parse() {
            Err(error) => complain(format!("{error}")),
            Ok(Command::Stop) => {
                handle.stop();
                return Ok(());
            }
            Ok(command) => {
                if handle.send(command).is_err() {
                    return Ok(());
                }
            }
        }
    }
    handle.wait();
    Ok(())
}
