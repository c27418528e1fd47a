//! `gengfu silence`: somebody stands there and has understood.

use std::process::ExitCode;
use std::time::Duration;

use super::SocketArgs;
use crate::config::parse_duration;
use crate::local::socket::{Answer, Query, ask};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Silence the sounders of this dwelling only.
    #[arg(long)]
    dwelling: Option<String>,
    /// For how long; `[annunciation] silence_for` limits it.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = time)]
    lasts: Duration,
    #[command(flatten)]
    socket: SocketArgs,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a time with its unit, as in \"90s\" or \"10m\"".to_owned())
}

pub(super) fn silence(args: &Args) -> anyhow::Result<ExitCode> {
    let path = args.socket.path()?;
    let query = Query::Silence { dwelling: args.dwelling.clone(), seconds: args.lasts.as_secs() };
    match super::block_on(ask(&path, &query))?? {
        Answer::Ordered => {
            eprintln!("gengfu: the sounders fall silent; lamps stay on, and a new alarm sounds again");
            Ok(ExitCode::SUCCESS)
        }
        _ => anyhow::bail!("the gateway answered something else; is it another version?"),
    }
}
