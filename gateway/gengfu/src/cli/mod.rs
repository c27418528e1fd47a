//! The command line.
//!
//! Owns the verbs and the exit codes: 0 yes or done, 1 no (a fault was found, an alarm is open, the demo fell short), 2 it could not be found out. Data goes to standard
//! output, everything else to standard error; `--json` on every query is stable.

mod camera;
mod check;
mod config;
mod desk;
mod drill;
mod enrol;
mod evidence;
mod export;
mod firmware;
mod identity;
mod load;
mod node;
mod run;
mod service;
mod signature;
mod silence;
mod status;
mod trace;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Gengfu 更夫: the night watchman of a building. Reads sensors and cameras, decides what is an alarm, and brings it to the
/// dispatch centre until the centre confirms.
///
/// Exit codes: 0 yes or done; 1 no (faults found, something is wrong); 2 it could not be found out.
#[derive(Debug, Parser)]
#[command(name = "gengfu", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one of it lives, from the command line to its end")]
enum Command {
    /// Run the gateway until it is told to stop (SIGTERM, Ctrl-C).
    Run(run::Args),
    /// Check a configuration: all faults with line, key and remedy; then what this machine lacks for it.
    Check(check::Args),
    /// Show how the running gateway is, and what to do where something is wrong.
    Status(status::Args),
    /// Print the journey of one event or picture with its times.
    Trace(trace::Args),
    /// Write the journal to a file that proves itself.
    Export(export::Args),
    /// Check offline that an exported journal is whole; name what was removed, changed, reordered or repeated.
    Verify(verify::Args),
    /// The pictures on the box: list, show, shred, and who looked.
    Evidence(evidence::Args),
    /// Silence the sounders on site while somebody is there.
    Silence(silence::Args),
    /// Test a camera: what does it see? Accept its view after it was turned on purpose.
    Camera(camera::Args),
    /// Take a device out of service, test it, give it back.
    Service(service::Args),
    /// Test the whole path to the centre, and see how the last tests went.
    Drill(drill::Args),
    /// See the whole road on this machine: nodes, gateway, camera, broker and desk.
    Demo(crate::demo::Args),
    /// Run a sensor node as a process, on a PTY or a serial port.
    Node(node::Args),
    /// Show the gateway's certificate, or have it looked at now.
    Identity(identity::Args),
    /// Obtain a certificate: the key is made here and stays here, only a request leaves the box.
    Enrol(enrol::Args),
    /// Pack, sign and check configurations as bundles; try one, go back, see which is in use.
    Config(config::Args),
    /// Make, sign and check bundles of a node's firmware.
    Firmware(firmware::Args),
    /// Play the dispatch centre: receive, confirm, acknowledge, prove that nothing is missing.
    Desk(desk::Args),
    /// Simulate many gateways to measure a broker and a centre: receipts, latencies, and whether anything is missing.
    Load(load::Args),
}

/// Where the running gateway's socket is.
#[derive(Debug, Clone, clap::Args)]
struct SocketArgs {
    /// The gateway's socket.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// The gateway's configuration, which names its socket.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG, env = "GENGFU_CONFIG")]
    config: PathBuf,
}

/// Where an installed gateway's configuration is.
const DEFAULT_CONFIG: &str = "/etc/gengfu/gengfu.toml";

impl SocketArgs {
    fn path(&self) -> anyhow::Result<PathBuf> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => Ok(crate::settings::in_use_now(&self.config)?.local.socket),
        }
    }
}

/// Answer "no": something was found wrong.
const NO: u8 = 1;
/// It could not be found out.
const TROUBLE: u8 = 2;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { TROUBLE } else { 0 });
        }
    };
    let (attempt, result) = match cli.command {
        Command::Run(args) => ("run the gateway", run::run(&args)),
        Command::Check(args) => ("check the configuration", check::check(&args)),
        Command::Status(args) => ("ask the gateway", status::status(&args)),
        Command::Trace(args) => ("ask the gateway", trace::trace(&args)),
        Command::Export(args) => ("export the journal", export::export(&args)),
        Command::Verify(args) => ("verify the export", verify::verify(&args)),
        Command::Evidence(args) => ("work on the pictures", evidence::evidence(&args)),
        Command::Camera(args) => ("do this to the camera", camera::camera(&args)),
        Command::Silence(args) => ("silence the sounders", silence::silence(&args)),
        Command::Service(args) => ("order the gateway", service::service(&args)),
        Command::Drill(args) => ("ask the gateway", drill::drill(&args)),
        Command::Demo(args) => ("run the demo", crate::demo::demo(args)),
        Command::Node(args) => ("run the node", node::node(&args)),
        Command::Identity(args) => ("ask for the gateway's identity", identity::identity(&args)),
        Command::Enrol(args) => ("enrol", enrol::enrol(&args)),
        Command::Config(args) => ("work on the configuration", config::config(&args)),
        Command::Firmware(args) => ("work on the firmware", firmware::firmware(&args)),
        Command::Desk(args) => ("run the desk", desk::desk(args)),
        Command::Load(args) => ("measure", load::load(&args)),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gengfu: cannot {attempt}: {error:#}");
            ExitCode::from(TROUBLE)
        }
    }
}

/// `gengfu status | head` is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

/// A runtime for a command that asks one thing.
fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
