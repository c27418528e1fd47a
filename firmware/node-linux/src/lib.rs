//! The sensor node as a Linux process.
//!
//! Owns a board made of an operating system: a pseudo-terminal or a serial device as the wire, simulated pins moved by commands or
//! by a script or the lines of a GPIO chip, the monotonic clock, and a random boot id. The node on it is `gengfu-node`, unchanged. Refuses asynchronous
//! runtimes: one thread that sleeps in poll(2) until a byte, a command or the node's own next deadline. The outbox is the node's
//! own, in memory: a stopped node forgets what was not acknowledged, as a microcontroller without flash does.
//!
//! ```no_run
//! use gengfu_node_linux::{Options, Port, spawn, wire::Uid};
//! let port = Port::Pty { link: "/tmp/node-a".into() };
//! let node = spawn(Options::new(port, Uid([1; 8])), |report| println!("{report}"))?;
//! node.set_contact(true)?;
//! node.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod board;
pub mod flash;
pub mod gpio;
mod handle;
pub mod pins;
mod place;
mod port;
mod process;
pub mod script;

pub use flash::Slots;
pub use gengfu_node as node;
pub use gengfu_wire as wire;
pub use gpio::{GpioError, GpioLine};
pub use handle::{Gone, NodeHandle, NodeReport, Options, StartError, run, spawn};
pub use port::{Port, PortError};
pub use script::{Command, Script, ScriptError};
