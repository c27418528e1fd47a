//! `gengfu drill`: the tests of the whole path, and one now.

use std::io::Write;
use std::process::ExitCode;

use super::SocketArgs;
use crate::decide::DrillResult;
use crate::local::socket::{Answer, Query, ask};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Test the whole path now: an alarm marked as a test goes to the centre, and its receipt is awaited. Nothing sounds.
    Now {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show the drills of the last year with their latency. Exit code 1 when the last one failed.
    List {
        #[command(flatten)]
        socket: SocketArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn drill(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Now { socket } => match super::block_on(ask(&socket.path()?, &Query::Drill))?? {
            Answer::Ordered => {
                eprintln!("gengfu: the test is on its way; `gengfu drill list` shows its receipt");
                Ok(ExitCode::SUCCESS)
            }
            _ => anyhow::bail!("the gateway answered something else; is it another version?"),
        },
        Verb::List { socket, json } => list(socket, *json),
    }
}

fn list(socket: &SocketArgs, json: bool) -> anyhow::Result<ExitCode> {
    let Answer::Status(report) = super::block_on(ask(&socket.path()?, &Query::Status))?? else {
        anyhow::bail!("the gateway answered something else; is it another version?")
    };
    let drills = &report.standing.drills;
    let last = drills.history.last().filter(|_| drills.running_since.is_none());
    let failed = last.is_some_and(|record| record.result != DrillResult::Received);
    let code = if failed { ExitCode::from(super::NO) } else { ExitCode::SUCCESS };
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(drills)?)?;
        return Ok(code);
    }
    for (n, record) in drills.history.iter().enumerate() {
        let running = drills.running_since.is_some() && n + 1 == drills.history.len();
        let result = match record.result {
            _ if running => "under way",
            DrillResult::Received => "received",
            DrillResult::Late => "LATE",
            DrillResult::NotReceived => "NOT RECEIVED",
        };
        let latency = record.latency_ms.map_or_else(String::new, |ms| format!(" after {ms} ms"));
        let cause = if record.scheduled { "weekly" } else { "by hand" };
        writeln!(out, "{}  {cause:<7} {result}{latency}  {}", record.began_at, record.event)?;
    }
    match drills.next_at {
        Some(at) => writeln!(out, "next: {at}")?,
        None => writeln!(out, "next: only by hand ([drill] weekly = \"off\")")?,
    }
    Ok(code)
}
