//! `gengfu trace <id>`: the journey of one event or picture.

use std::io::Write;
use std::process::ExitCode;

use jiff::Timestamp;

use super::SocketArgs;
use crate::local::socket::{Answer, Query, Trace, ask};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id of an event, or `<alarm_id>/<n>` of a picture.
    id: String,
    #[command(flatten)]
    socket: SocketArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn trace(args: &Args) -> anyhow::Result<ExitCode> {
    let path = args.socket.path()?;
    let answer = super::block_on(ask(&path, &Query::Trace { id: args.id.clone() }))??;
    let Answer::Trace(trace) = answer else {
        anyhow::bail!("the gateway answered something else; is it another version?")
    };
    let mut out = std::io::stdout().lock();
    let Some(trace) = trace else {
        eprintln!("gengfu: no item {} in the journal: it was never here, or was received long ago and pruned", args.id);
        return Ok(ExitCode::from(super::NO));
    };
    if args.json {
        serde_json::to_writer_pretty(&mut out, &trace)?;
        writeln!(out)?;
    } else {
        print(&mut out, &trace)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, trace: &Trace) -> std::io::Result<()> {
    let number = trace.sequence.map_or_else(|| "picture".to_owned(), |n| format!("#{n}"));
    writeln!(out, "{} {number} lane {} {} after {} attempt(s)", trace.id, trace.lane, trace.outcome, trace.attempts)?;
    let stages = [
        ("sensed", trace.sensed_at),
        ("decided", trace.decided_at),
        ("stored", trace.stored_at),
        ("sent", trace.sent_at),
        ("broker", trace.broker_acked_at),
        ("receipt", trace.received_at),
    ];
    let start: Option<Timestamp> = stages.iter().find_map(|(_, at)| *at);
    for (stage, at) in stages {
        match (at, start) {
            (Some(at), Some(start)) => {
                writeln!(out, "  {stage:<8} {at}  +{} ms", at.duration_since(start).as_millis())?
            }
            _ => writeln!(out, "  {stage:<8} -")?,
        }
    }
    Ok(())
}
