//! `gengfu desk`: play the dispatch centre against a real broker; `desk act`: one order; `desk report`: the proof from disk.

mod act;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;

use crate::config::Protocol;
use crate::demo::watch_desk;
use crate::desk::DeskConfig;
use crate::desk::report::Report;
use crate::desk::view::state::State;
use crate::uplink::{BrokerConfig, Secret, TlsFiles};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    live: LiveArgs,
}

#[derive(Debug, clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one of it lives, from the command line to its end")]
enum Verb {
    /// Give one order, wait for the gateway's answer, print it. 0 done or accepted; 1 refused or in conflict; 2 no answer.
    Act(act::Args),
    /// Prove from a desk's journal, offline, that everything came; or name what did not. 0 whole; 1 not; 2 it cannot be read.
    Report(ReportArgs),
}

/// Which broker and site, and as whom.
#[derive(Debug, clap::Args)]
struct BrokerArgs {
    /// The broker, `host:port`.
    #[arg(long, default_value = "127.0.0.1:1883", global = true)]
    broker: String,
    /// The site to serve.
    #[arg(long, env = "GENGFU_SITE", global = true)]
    site: Option<Slug>,
    /// MQTT version.
    #[arg(long, default_value = "5", value_parser = ["5", "3.1.1"], global = true)]
    protocol: String,
    /// MQTT user.
    #[arg(long, requires = "password_file", global = true)]
    username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
    /// The authority that signed the broker's certificate (PEM); turns TLS on.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// The centre's certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct LiveArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The desk's own name.
    #[arg(long, default_value = "desk")]
    name: Slug,
    /// Who sits at it; the desk's name unless told.
    #[arg(long)]
    operator: Option<String>,
    /// Acknowledge every alarm after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    auto_ack: Option<u64>,
    /// Reset a clear, acknowledged alarm that latches after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    auto_reset: Option<u64>,
    /// Where pictures go.
    #[arg(long, value_name = "FOLDER", default_value = "pictures")]
    evidence: PathBuf,
    /// Keep every event in this file before receiving it.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Set the journal's file aside when it is larger than this many MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    journal_file_mib: u64,
    /// Share events with other desks of this group (MQTT shared subscription); `desk report` over all their journals is the proof.
    #[arg(long, value_name = "GROUP")]
    share: Option<Slug>,
    /// Send receipts only when ordered (key e), to see what a gateway does without them.
    #[arg(long)]
    hold_receipts: bool,
    /// One JSON object per line instead of the live view.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ReportArgs {
    /// Journals, or folders with journals (*.jsonl). Several are of desks that shared the load.
    #[arg(required = true, value_name = "JOURNAL")]
    journals: Vec<PathBuf>,
    /// Where the pictures lie now, if they were moved.
    #[arg(long, value_name = "FOLDER")]
    evidence: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn desk(args: Args) -> anyhow::Result<ExitCode> {
    match args.verb {
        Some(Verb::Act(args)) => act::act(args),
        Some(Verb::Report(args)) => report(&args),
        None => live(args.live),
    }
}

impl BrokerArgs {
    fn site(&self) -> anyhow::Result<Slug> {
        self.site.clone().context("which site? Name it with --site, or in GENGFU_SITE")
    }

    fn config(&self, client_id: String) -> anyhow::Result<BrokerConfig> {
        let (host, port) = self.broker.rsplit_once(':').context("--broker must be host:port, as in 127.0.0.1:1883")?;
        let port = port.parse().context("--broker must end in a port number, as in 127.0.0.1:1883")?;
        let protocol = if self.protocol == "5" { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
        let mut broker = BrokerConfig::new(host, port, protocol, client_id);
        broker.username.clone_from(&self.username);
        if let Some(file) = &self.password_file {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            broker.password = Some(Secret::new(text));
        }
        let identity = self.cert.clone().zip(self.key.clone());
        broker.tls = self.ca.clone().map(|ca| TlsFiles { ca, identity }.into());
        Ok(broker)
    }
}

fn live(args: LiveArgs) -> anyhow::Result<ExitCode> {
    let site = args.broker.site()?;
    let broker = args.broker.config(format!("gengfu-{site}-{}", args.name))?;
    let operator = args.operator.unwrap_or_else(|| args.name.to_string());
    let config = DeskConfig {
        auto_ack_after: args.auto_ack.map(Duration::from_secs),
        auto_reset_after: args.auto_reset.map(Duration::from_secs),
        journal: args.journal,
        journal_file_bytes: args.journal_file_mib << 20,
        share: args.share,
        holds_receipts: args.hold_receipts,
        ..DeskConfig::new(broker, site, args.name, args.evidence)
    };
    let shows_view = !args.json && std::io::stdout().is_terminal();
    let view = shows_view.then(|| State::new(&operator, args.hold_receipts));
    let has_all = watch_desk(config, view, args.json)?;
    Ok(if has_all { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let report = Report::read(&args.journals, args.evidence.as_deref())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}
