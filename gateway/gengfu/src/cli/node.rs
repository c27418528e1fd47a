//! `gengfu node`: a sensor node as a process: for demonstrations, tests and boards that run Linux.

use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use gengfu_node_linux::node::{BusAddress, Wiring};
use gengfu_node_linux::{GpioLine, Options, Port, Script, Slots, run, script, wire::Uid};

#[derive(Debug, clap::Args)]
#[command(after_help = format!("Commands, on standard input or as `at <time> <command>` in a script: {}", script::COMMANDS))]
pub(super) struct Args {
    /// Make a pseudo-terminal and put its name here: the gateway's `port`.
    #[arg(long, value_name = "PATH", conflicts_with = "serial", required_unless_present = "serial")]
    pty: Option<PathBuf>,
    /// Use this serial device.
    #[arg(long, value_name = "DEVICE")]
    serial: Option<PathBuf>,
    /// Bits per second of the serial device.
    #[arg(long, default_value_t = 115_200)]
    baud: u32,
    /// The node is on an RS-485 bus at this address, 1 to 247, and speaks only when it is polled.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=247))]
    address: Option<u8>,
    /// The node is on an RS-485 bus and keeps the address in this file; the gateway assigns one where there is none yet.
    #[arg(long, value_name = "FILE", conflicts_with = "address")]
    address_file: Option<PathBuf>,
    /// A real line, in place of all simulated sensors; once for each. CHIP:LINE=KIND[:CHANNEL][:OPTION], as in
    /// /dev/gpiochip0:17=contact:1:active-low (docs/wiring.md).
    #[arg(long, value_name = "LINE")]
    gpio: Vec<GpioLine>,
    /// Unique id, 16 hex digits.
    #[arg(long)]
    uid: String,
    /// Keep two firmware slots in this file: the node can be updated over its wire. Needs --trust.
    #[arg(long, value_name = "FILE", requires = "trust")]
    flash: Option<PathBuf>,
    /// Public key of whose firmware this node runs (64 hex digits in a file); may be given more than once.
    #[arg(long, value_name = "FILE", requires = "flash")]
    trust: Vec<PathBuf>,
    /// What happens by itself: lines of `at <time> <command>`.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Milliseconds between heartbeats.
    #[arg(long, default_value_t = 5_000)]
    heartbeat_ms: u32,
    /// Channel of the door contact; 0 for none.
    #[arg(long, default_value_t = 1)]
    door: u8,
    /// Channel of the smoke alarm; 0 for none.
    #[arg(long, default_value_t = 2)]
    smoke: u8,
    /// Channel of the emergency button; 0 for none.
    #[arg(long, default_value_t = 3)]
    sos: u8,
}

pub(super) fn node(args: &Args) -> anyhow::Result<ExitCode> {
    let uid = Uid::parse(&args.uid).with_context(|| format!("--uid \"{}\" is not 16 hex digits", args.uid))?;
    let port = match (&args.pty, &args.serial) {
        (Some(link), _) => Port::Pty { link: link.clone() },
        (None, Some(path)) => Port::Serial { path: path.clone(), baud: args.baud },
        (None, None) => anyhow::bail!("give --pty or --serial"),
    };
    let mut options = Options::new(port, uid);
    options.heartbeat_ms = args.heartbeat_ms;
    options.wiring = match args.address {
        Some(address) => Wiring::Bus(BusAddress::new(address)),
        None if args.address_file.is_some() => Wiring::Bus(None),
        None => Wiring::PointToPoint,
    };
    options.address_file = args.address_file.clone();
    options.gpio = args.gpio.clone();
    let channel = |n: u8| (n != 0).then_some(n);
    (options.contact, options.smoke, options.sos) = (channel(args.door), channel(args.smoke), channel(args.sos));
    if let Some(file) = &args.flash {
        let trusted = super::firmware::read_keys(&args.trust)?.into_iter().map(|key| key.0).collect();
        options.flash = Some(Slots { file: file.clone(), trusted });
    }
    if let Some(file) = &args.script {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        options.script = Script::parse(&text).with_context(|| format!("read {}", file.display()))?;
    }
    let report = |report| {
        // A closed standard output is no reason for a node to stop sensing.
        let _ = writeln!(std::io::stdout(), "{report}");
    };
    run(options, BufReader::new(std::io::stdin()), report, |complaint| eprintln!("gengfu node: {complaint}"))?;
    Ok(ExitCode::SUCCESS)
}
