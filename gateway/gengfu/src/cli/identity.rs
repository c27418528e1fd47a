//! `gengfu identity`: the gateway's certificate as the running gateway sees it.

use std::io::Write;
use std::process::ExitCode;

use super::SocketArgs;
use crate::identity::IdentityStatus;
use crate::local::socket::{Answer, Query, ask};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    socket: SocketArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Look at the files now, and try a new certificate now, instead of at the next look.
    Reload {
        #[command(flatten)]
        socket: SocketArgs,
    },
}

pub(super) fn identity(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(Action::Reload { socket }) = &args.action {
        let Answer::Ordered = super::block_on(ask(&socket.path()?, &Query::ReloadIdentity))?? else {
            anyhow::bail!("the gateway answered something else; is it another version?")
        };
        eprintln!("gengfu: the gateway looks at its certificates now; see `gengfu identity`");
        return Ok(ExitCode::SUCCESS);
    }
    let Answer::Status(report) = super::block_on(ask(&args.socket.path()?, &Query::Status))?? else {
        anyhow::bail!("the gateway answered something else; is it another version?")
    };
    let mut out = std::io::stdout().lock();
    let Some(identity) = &report.identity else {
        eprintln!("gengfu: the uplink is plain: no [uplink.tls] in the configuration");
        return Ok(ExitCode::from(super::NO));
    };
    if args.json {
        serde_json::to_writer_pretty(&mut out, identity)?;
        writeln!(out)?;
    } else {
        print(&mut out, identity)?;
    }
    Ok(if identity.findings().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

fn print(out: &mut impl Write, identity: &IdentityStatus) -> std::io::Result<()> {
    writeln!(out, "name      {}  ({:?})", identity.name, identity.keeping)?;
    match &identity.current {
        None => writeln!(out, "in use    no certificate")?,
        Some(facts) => {
            writeln!(out, "in use    {}", facts.serial)?;
            writeln!(out, "          signed by {}", facts.issuer)?;
            writeln!(out, "          from {} until {}", facts.not_before_at, facts.not_after_at)?;
        }
    }
    if let Some(at) = identity.renews_at {
        writeln!(out, "renewal   by itself at {at}")?;
    }
    if let Some(next) = &identity.next {
        let last = next.last.as_deref().unwrap_or("not tried yet");
        writeln!(out, "next      {}  {} trial(s): {last}", next.certificate.serial, next.trials)?;
    }
    if !identity.clock_known {
        writeln!(out, "clock     not synchronised: certificates are checked against the last time that was known")?;
    }
    for (problem, remedy) in identity.findings() {
        writeln!(out, "wrong     {}\n          → {}", problem.en, remedy.en)?;
    }
    Ok(())
}
