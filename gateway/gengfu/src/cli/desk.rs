//! `gengfu desk`: play the dispatch centre against a real broker.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;

use crate::config::Protocol;
use crate::demo::watch_desk;
use crate::desk::DeskConfig;
use crate::uplink::{BrokerConfig, Secret};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The broker, `host:port`.
    #[arg(long, default_value = "127.0.0.1:1883")]
    broker: String,
    /// The site to serve.
    #[arg(long)]
    site: Slug,
    /// MQTT version.
    #[arg(long, default_value = "5", value_parser = ["5", "3.1.1"])]
    protocol: String,
    /// The desk's own name.
    #[arg(long, default_value = "desk")]
    name: Slug,
    /// MQTT user.
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
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
    /// One JSON object per line instead of the live view.
    #[arg(long)]
    json: bool,
}

pub(super) fn desk(args: Args) -> anyhow::Result<ExitCode> {
    let (host, port) = args.broker.rsplit_once(':').context("--broker must be host:port, as in 127.0.0.1:1883")?;
    let port = port.parse().context("--broker must end in a port number, as in 127.0.0.1:1883")?;
    let protocol = if args.protocol == "5" { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
    let mut broker = BrokerConfig::new(host, port, protocol, format!("gengfu-{}-{}", args.site, args.name));
    broker.username = args.username;
    if let Some(file) = &args.password_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        broker.password = Some(Secret::new(text));
    }
    std::fs::create_dir_all(&args.evidence).with_context(|| format!("create {}", args.evidence.display()))?;
    let config = DeskConfig {
        broker,
        site: args.site,
        name: args.name,
        auto_ack_after: args.auto_ack.map(Duration::from_secs),
        auto_reset_after: args.auto_reset.map(Duration::from_secs),
        evidence_dir: args.evidence,
        journal: args.journal,
    };
    let shows_view = !args.json && std::io::stdout().is_terminal();
    let has_all = watch_desk(config, shows_view, args.json)?;
    Ok(if has_all { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}
