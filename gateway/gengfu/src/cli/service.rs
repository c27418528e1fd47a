//! `gengfu service`: a technician takes a device out of service, tests it, gives it back.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use gengfu_alarm::Service;
use gengfu_contract::slug::Slug;

use super::SocketArgs;
use crate::config::parse_duration;
use crate::local::socket::{Answer, Query, ask};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Take a device, with all it carries, out of service for at most 4 h: its alarms are tracked and shown to the centre, and nobody is called.
    /// What is still so at the end is raised.
    Out {
        #[command(flatten)]
        terms: Terms,
        /// For how long, at most 4h.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = time)]
        lasts: Duration,
    },
    /// Test a device, with all it carries, for at most 30 min: its new alarms go to the centre as tests.
    Test {
        #[command(flatten)]
        terms: Terms,
        /// For how long, at most 30m.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = time)]
        lasts: Duration,
    },
    /// Give it back before the time is over.
    Back {
        /// The device.
        device: String,
        /// Who you are.
        #[arg(long, default_value = "technician")]
        who: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show what is shelved, out of service or being tested.
    List {
        #[command(flatten)]
        socket: SocketArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Terms {
    /// The device, as `gengfu status` names it.
    device: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Who you are.
    #[arg(long, default_value = "technician")]
    who: String,
    #[command(flatten)]
    socket: SocketArgs,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a time with its unit, as in \"90s\" or \"10m\"".to_owned())
}

pub(super) fn service(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Out { terms, lasts } => serve(terms, Service::Out, *lasts),
        Verb::Test { terms, lasts } => serve(terms, Service::Test, *lasts),
        Verb::Back { device, who, socket } => {
            let query = Query::GiveBack { device: Slug::new(device)?, who: who.clone() };
            order(socket, &query, "it is back; what is still so is raised now")
        }
        Verb::List { socket, json } => list(socket, *json),
    }
}

fn serve(terms: &Terms, service: Service, lasts: Duration) -> anyhow::Result<ExitCode> {
    let Terms { device, reason, who, socket } = terms;
    let (reason, who, seconds) = (reason.clone(), who.clone(), lasts.as_secs());
    let query = Query::Serve { device: Slug::new(device)?, service, seconds, reason, who };
    let done = match service {
        Service::Out => "out of service; the centre sees it, and it ends by itself",
        Service::Test => "its alarms are tests now; that ends by itself",
    };
    order(socket, &query, done)
}

fn order(socket: &SocketArgs, query: &Query, done: &str) -> anyhow::Result<ExitCode> {
    match super::block_on(ask(&socket.path()?, query))?? {
        Answer::Ordered => {
            eprintln!("gengfu: {done}");
            Ok(ExitCode::SUCCESS)
        }
        _ => anyhow::bail!("the gateway answered something else; is it another version?"),
    }
}

fn list(socket: &SocketArgs, json: bool) -> anyhow::Result<ExitCode> {
    let Answer::Status(report) = super::block_on(ask(&socket.path()?, &Query::Status))?? else {
        anyhow::bail!("the gateway answered something else; is it another version?")
    };
    let mut out = std::io::stdout().lock();
    let standing = &report.standing;
    if json {
        let shown = serde_json::json!({ "shelved": standing.shelved, "services": standing.services });
        writeln!(out, "{shown}")?;
        return Ok(ExitCode::SUCCESS);
    }
    for (shelf, terms) in &standing.shelved {
        let zone = shelf.zone.as_ref().map_or_else(String::new, |zone| format!(" zone {zone}"));
        writeln!(
            out,
            "SHELVED         {} {}{zone} until {}: {} ({})",
            shelf.device, shelf.kind, terms.until, terms.reason, terms.who
        )?;
    }
    for (device, service, terms) in &standing.services {
        let state = service.state();
        writeln!(out, "{state:<15} {device} until {}: {} ({})", terms.until, terms.reason, terms.who)?;
    }
    Ok(ExitCode::SUCCESS)
}
