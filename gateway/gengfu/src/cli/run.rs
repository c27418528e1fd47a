//! `gengfu run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::clock::{Clock, SystemClock};
use crate::settings::{self, RESTART_CODE};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration.
    #[arg(long, short, value_name = "FILE", default_value = super::DEFAULT_CONFIG, env = "GENGFU_CONFIG")]
    config: PathBuf,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    start_logging(args.log);
    let started = settings::begin(&args.config, SystemClock.now())?;
    let is_trial = started.settings.as_ref().is_some_and(settings::Settings::is_trial);
    for lack in started.config.environment() {
        tracing::warn!(key = %lack.key, remedy = %lack.remedy, "lacking: {}", lack.problem);
    }
    // Two threads: the daemon's tasks wait for ports and sockets; what blocks has threads or processes of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::select! {
            ended = app::run(started, Arc::new(SystemClock), shutdown.clone()) => ended.context("the gateway stopped"),
            never = stop_on_signal(shutdown.clone()) => match never {},
        }
    });
    match ended {
        Ok(app::Ended::Told) => Ok(ExitCode::SUCCESS),
        Ok(app::Ended::Restart) => {
            tracing::warn!(code = RESTART_CODE, "ending, to be started again with another configuration");
            Ok(ExitCode::from(RESTART_CODE))
        }
        Err(fault) if is_trial => {
            let told = settings::trial_failed(&args.config, &format!("{fault:#}"), SystemClock.now());
            if let Err(error) = told {
                tracing::error!(%error, "that the configuration on trial failed cannot be written down; its starts are counted");
            }
            Err(fault)
        }
        Err(fault) => Err(fault),
    }
}

/// The first signal drains in order; a second one leaves at once.
async fn stop_on_signal(shutdown: CancellationToken) -> std::convert::Infallible {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be caught; stop the gateway with kill -9, the outbox keeps everything");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        if shutdown.is_cancelled() {
            tracing::warn!("told twice to stop: leaving at once; the outbox keeps everything");
            std::process::exit(130);
        }
        tracing::info!("stopping");
        shutdown.cancel();
    }
}

fn start_logging(format: LogFormat) {
    let filter =
        EnvFilter::try_from_env("GENGFU_LOG").unwrap_or_else(|_| EnvFilter::new("info,rumqttc=warn,sled=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only when logging was started before, and then it runs.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
