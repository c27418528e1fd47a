//! `gengfu load`: simulate many gateways to measure a broker and a centre.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::Protocol;
use crate::load::{self, LoadPlan};
use crate::uplink::{Address, BrokerConfig, Secret};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The broker, `host:port`; or its nodes, with commas between. Each gateway prefers another one and changes when it fails.
    #[arg(long, default_value = "127.0.0.1:1883", value_delimiter = ',', value_parser = address)]
    broker: Vec<Address>,
    /// Where the desk connects, which knows one address; as a rule the address in front of a cluster.
    #[arg(long, value_name = "BROKER", value_parser = address)]
    desk_broker: Option<Address>,
    /// The site of the simulated gateways: one that no real centre works with.
    #[arg(long, default_value = "load")]
    site: Slug,
    /// MQTT version.
    #[arg(long, default_value = "5", value_parser = ["5", "3.1.1"])]
    protocol: String,
    /// MQTT user of all clients.
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// File with its password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How many gateways.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=9_999))]
    gateways: u16,
    /// Alarms a second, all gateways together; every alarm is three events.
    #[arg(long, value_name = "ALARMS_PER_SECOND", default_value_t = 20.0, value_parser = rate)]
    rate: f64,
    /// How long alarms come.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The same seed gives the same alarms.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of 100 camera alarms, so many have a picture.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    pictures: u32,
    /// Size of a picture, bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 60_000)]
    picture_bytes: usize,
    /// The power of all gateways fails every so many seconds.
    #[arg(long, value_name = "SECONDS")]
    power_cut_every: Option<u64>,
    /// Gateways start, and come back after a power cut, spread over this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    jitter: u64,
    /// After the last alarm, wait at most this many seconds for receipts.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    settle: u64,
    /// Silence after which a ping is due, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=60))]
    keep_alive: u64,
    /// Gateways' outboxes on this machine's disk instead of disks in memory.
    #[arg(long)]
    on_disk: bool,
    /// Where outboxes, the desk's journal and pictures go; must be new or empty.
    #[arg(long, value_name = "FOLDER", default_value = "load")]
    folder: PathBuf,
    /// The result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// A broker's `host:port`.
fn address(text: &str) -> Result<Address, String> {
    let (host, port) = text.rsplit_once(':').ok_or("host:port, as in 127.0.0.1:1883")?;
    let port = port.parse().map_err(|_| "it must end in a port number, as in 127.0.0.1:1883")?;
    Ok(Address { host: host.trim_matches(['[', ']']).to_owned(), port })
}

/// Alarms a second: more than none, and finite.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number, as in 20 or 0.5".to_owned())?;
    if rate > 0.0 && rate <= 100_000.0 { Ok(rate) } else { Err("more than 0, at most 100000".to_owned()) }
}

pub(super) fn load(args: &Args) -> anyhow::Result<ExitCode> {
    let (first, others) = args.broker.split_first().context("--broker names no broker")?;
    let protocol = if args.protocol == "5" { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
    let mut broker = BrokerConfig::new(&first.host, first.port, protocol, "replaced");
    broker.keep_alive = Duration::from_secs(args.keep_alive);
    broker.username.clone_from(&args.username);
    if let Some(file) = &args.password_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        broker.password = Some(Secret::new(text));
    }
    let is_used = std::fs::read_dir(&args.folder).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(!is_used, "{} is not empty; name a new folder, or remove it", args.folder.display());
    let plan = LoadPlan {
        broker,
        other_brokers: others.to_vec(),
        desk_broker: args.desk_broker.clone(),
        site: args.site.clone(),
        gateways: usize::from(args.gateways),
        rate: args.rate,
        lasts: Duration::from_secs(args.seconds),
        seed: args.seed,
        pictures_percent: args.pictures,
        picture_bytes: args.picture_bytes,
        cut_every: args.power_cut_every.filter(|every| *every > 0).map(Duration::from_secs),
        jitter: Duration::from_secs(args.jitter),
        settle_within: Duration::from_secs(args.settle),
        on_disk: args.on_disk,
        folder: args.folder.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let stop = CancellationToken::new();
        let run = load::run(plan, Arc::new(SystemClock), stop.clone(), |line| eprintln!("{line}"));
        tokio::pin!(run);
        tokio::select! {
            report = &mut run => return report,
            signal = tokio::signal::ctrl_c() => signal?,
        }
        eprintln!("stopped; waiting for what is under way");
        stop.cancel();
        run.await
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}
