//! `gengfu demo`: the whole road on one machine, for a person to watch or for a script to check.
//!
//! Owns the stage: an embedded broker, the gateway and two nodes as processes of their own, the camera on real footage, the reference desk in this process, and the
//! order in which they come and go. Plays [`story`] and says at the end what of it happened. Refuses any short cut: every part is the product's own.

pub mod broker;
mod stage;
pub mod story;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::slug::Slug;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Protocol};
use crate::desk::view::state::State;
use crate::desk::{self, DeskConfig, DeskEvent, DeskModel, DeskParts, Finding, Order, plain, view};
use crate::uplink::BrokerConfig;
use stage::Stage;
use story::Story;

/// Events waiting to be shown.
const EVENTS: usize = 1024;
/// Orders of the person watching.
const ORDERS: usize = 16;
/// As a person at the centre would: look, then acknowledge; check, then reset.
const ACK_AFTER: Duration = Duration::from_secs(4);
const RESET_AFTER: Duration = Duration::from_secs(3);
/// How often it is looked whether the story is complete.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// See the whole road on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The demonstration's configuration.
    #[arg(long, short, value_name = "FILE", default_value = "config/demo.toml")]
    config: PathBuf,
    /// Tell the story once in plain lines, check it and leave, also on a terminal.
    #[arg(long)]
    once: bool,
    /// Without a terminal or with --once: seconds after which the story must be complete.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    within: u64,
}

/// Runs the demonstration.
///
/// # Errors
/// When a part is missing or cannot start; the text says which and what to do.
pub fn demo(args: Args) -> anyhow::Result<ExitCode> {
    let config =
        Config::load(&args.config).context("run this in the project's folder, or name the file with --config")?;
    let is_watched = !args.once && std::io::stdout().is_terminal();
    check_parts(&config)?;
    let folder = fresh_folder(&config.gateway.data_dir)?;
    println!("broker   127.0.0.1:{} (embedded)", config.uplink.port);
    broker::start(ports(&config))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let model = Arc::new(Mutex::new(DeskModel::new(config.gateway.site.clone())));
        let shutdown = CancellationToken::new();
        let (events_in, events) = mpsc::channel(EVENTS);
        let (orders_in, orders) = mpsc::channel(ORDERS);
        let desk = tokio::spawn(desk::run(
            desk_config(&config, &folder)?,
            DeskParts {
                model: model.clone(),
                events: events_in,
                orders,
                clock: Arc::new(SystemClock),
                shutdown: shutdown.clone(),
            },
        ));
        let mut stage = Stage::set(&config, &args.config, &folder)?;
        let played = play(&args, is_watched, &config, &model, events, orders_in, &shutdown, &mut stage).await;
        println!("stopping the gateway and the nodes");
        // The gateway first: its goodbye still reaches the desk.
        stage.strike().await;
        shutdown.cancel();
        desk.await?.context("the desk")?;
        played?;
        let story = Story::of(&model.lock().unwrap_or_else(PoisonError::into_inner), &config.gateway.name);
        report(&story, &folder)?;
        Ok(if story.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

/// Shows the story until the person leaves, or until it is complete.
#[expect(clippy::too_many_arguments, reason = "the parts of one scene; private")]
async fn play(
    args: &Args,
    is_watched: bool,
    config: &Config,
    model: &Arc<Mutex<DeskModel>>,
    events: mpsc::Receiver<DeskEvent>,
    orders: mpsc::Sender<Order>,
    shutdown: &CancellationToken,
    stage: &mut Stage,
) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let leave = CancellationToken::new();
    let show = async {
        if is_watched {
            let parts = view::ViewParts { model: model.clone(), events, orders, clock, shutdown: leave.clone() };
            view::run(parts).await.context("show the desk; try `gengfu demo --once`")
        } else {
            plain::follow(events, false, std::io::stdout()).await.context("write to standard output")
        }
    };
    let complete = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if Story::of(&model.lock().unwrap_or_else(PoisonError::into_inner), &config.gateway.name).is_complete()
                && !is_watched
            {
                return;
            }
        }
    };
    let limit = async {
        if is_watched {
            std::future::pending().await
        } else {
            tokio::time::sleep(Duration::from_secs(args.within)).await
        }
    };
    tokio::select! {
        shown = show => shown,
        () = complete => Ok(()),
        () = limit => Ok(()),
        () = shutdown.cancelled() => Ok(()),
        died = stage.first_death() => Err(anyhow::anyhow!("{died}")),
        signal = tokio::signal::ctrl_c() => signal.context("catch Ctrl-C"),
    }
}

fn report(story: &Story, folder: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n更夫 Gengfu: what happened")?;
    for chapter in &story.chapters {
        let mark = if chapter.happened { "✓" } else { "✗" };
        writeln!(out, "  {mark} {:<34} {}", chapter.title, chapter.detail)?;
    }
    writeln!(out, "  pictures, journals and logs: {}", folder.display())?;
    if !story.is_complete() {
        writeln!(out, "the story is not complete; gateway.log there says what the gateway did")?;
    }
    Ok(())
}

/// Everything the demonstration needs from outside, or what to do.
fn check_parts(config: &Config) -> anyhow::Result<()> {
    let ports: Vec<String> = (0..config.nodes.len()).map(|n| format!("node[{n}].port")).collect();
    // The ports come with the nodes that are started here.
    let lacks: Vec<_> = config.environment().into_iter().filter(|lack| !ports.contains(&lack.key)).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let list = lacks.iter().map(|lack| format!("  {}: {}", lack.key, lack.problem)).collect::<Vec<_>>().join("\n");
    anyhow::bail!("missing:\n{list}\nrun `make setup-demo` (or `make demo`, which does it first)")
}

/// The demonstration begins with an empty store; only a folder that it made itself is emptied.
fn fresh_folder(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let mark = data_dir.join(".made-by-gengfu-demo");
    if mark.exists() {
        std::fs::remove_dir_all(data_dir).with_context(|| format!("empty {}", data_dir.display()))?;
    } else if data_dir.exists() {
        anyhow::bail!(
            "{} exists and was not made by the demo; name another data_dir, or move it away",
            data_dir.display()
        );
    }
    std::fs::create_dir_all(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
    std::fs::write(&mark, "Emptied at the start of every `gengfu demo`.\n")?;
    let folder = std::fs::canonicalize(data_dir.parent().unwrap_or(data_dir))?;
    // Short paths fit the screen.
    let here = std::env::current_dir().unwrap_or_default();
    Ok(folder.strip_prefix(&here).map(Path::to_owned).unwrap_or(folder))
}

fn ports(config: &Config) -> broker::BrokerPorts {
    let (own, next) = (config.uplink.port, config.uplink.port.wrapping_add(1));
    match config.uplink.protocol {
        Protocol::Mqtt5 => broker::BrokerPorts { v5: own, v4: next },
        Protocol::Mqtt311 => broker::BrokerPorts { v5: next, v4: own },
    }
}

fn desk_config(config: &Config, folder: &Path) -> anyhow::Result<DeskConfig> {
    let evidence_dir = folder.join("pictures");
    std::fs::create_dir_all(&evidence_dir)?;
    let journal = folder.join("desk.jsonl");
    match std::fs::remove_file(&journal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("remove the last demo's journal");
        }
        _ => {}
    }
    let broker = BrokerConfig::new(&config.uplink.host, config.uplink.port, config.uplink.protocol, "gengfu-demo-desk");
    Ok(DeskConfig {
        auto_ack_after: Some(ACK_AFTER),
        auto_reset_after: Some(RESET_AFTER),
        journal: Some(journal),
        ..DeskConfig::new(broker, config.gateway.site.clone(), Slug::new("demo-desk")?, evidence_dir)
    })
}

/// Runs a desk by itself until Ctrl-C or SIGTERM, with the live view (as `view` says) or as lines. True when nothing that a gateway stated was missing at the end.
///
/// # Errors
/// When the desk cannot start or the terminal cannot be used.
pub fn watch_desk(config: DeskConfig, view: Option<State>, as_json: bool) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        let model = Arc::new(Mutex::new(DeskModel::new(config.site.clone())));
        let shutdown = CancellationToken::new();
        let (events_in, events) = mpsc::channel(EVENTS);
        let (orders_in, orders) = mpsc::channel(ORDERS);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let parts =
            DeskParts { model: model.clone(), events: events_in, orders, clock: clock.clone(), shutdown: shutdown.clone() };
        let mut desk = tokio::spawn(desk::run(config, parts));
        let show = async {
            if let Some(state) = view {
                let clock = clock.clone();
                let parts = view::ViewParts { model: model.clone(), events, orders: orders_in, clock, shutdown: shutdown.clone() };
                view::run_as(parts, state).await
            } else {
                plain::follow(events, as_json, std::io::stdout()).await
            }
        };
        let ended = tokio::select! {
            shown = show => shown.map_err(anyhow::Error::from),
            signal = tokio::signal::ctrl_c() => signal.map_err(anyhow::Error::from),
            _ = terminated.recv() => Ok(()),
            ended = &mut desk => return Err(anyhow::anyhow!("the desk ended: {:#}", ended?.err().map_or_else(|| anyhow::anyhow!("by itself"), Into::into))),
        };
        shutdown.cancel();
        desk.await?.context("the desk")?;
        ended?;
        let model = model.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        Ok(model.gateways().keys().all(|gateway| !model.findings(gateway, now).iter().any(Finding::is_fault)))
    })
}
