//! `gengfu evidence`: what pictures lie on the box, who looked at them, and their end.
//!
//! Owns the names of the people at the box: who runs the command is who is logged. It works on the folder itself, so it also answers while the gateway is stopped; whoever
//! may read the key may look, and nobody looks without a line in the log. It never writes a picture where another file is.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::evidence::{Entry, Evidence, Look, LookLog};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The gateway's configuration, which names its data folder.
    #[arg(long, short, global = true, value_name = "FILE", default_value = super::DEFAULT_CONFIG, env = "GENGFU_CONFIG")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The pictures on the box, oldest first. Shows no picture, so it is not logged.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one picture. Logged, with who and why.
    Show {
        /// As in `list`: `<alarm_id>/<n>`.
        id: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// A new file for it; standard output when it is not given and no terminal.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make one picture, or all of an alarm, unreadable for ever. Logged.
    Shred {
        /// `<alarm_id>/<n>`, or `<alarm_id>` for all of it.
        id: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Who looked at which picture, and which ended when, oldest first.
    Log {
        /// Print JSON lines.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn evidence(args: &Args) -> anyhow::Result<ExitCode> {
    let data_dir = Config::load(&args.config)?.gateway.data_dir;
    // Asking must not make a key or a folder for somebody who is not the gateway.
    ensure!(
        data_dir.is_dir(),
        "{} is not there: has this gateway ever run? Check gateway.data_dir",
        data_dir.display()
    );
    if let Verb::Log { json } = args.verb {
        return log(&LookLog::at(Evidence::log_path(&data_dir)), json);
    }
    ensure!(
        data_dir.join("evidence").is_dir() && data_dir.join("evidence.key").exists(),
        "no pictures and no key in {}: this gateway has never run with them",
        data_dir.display()
    );
    let evidence = Evidence::open(&data_dir).context("try it as root or as the gateway's user")?;
    match &args.verb {
        Verb::List { json } => list(&evidence, *json),
        Verb::Show { id, reason, output } => show(&evidence, id, reason.as_deref(), output.as_ref()),
        Verb::Shred { id, reason } => shred(&evidence, id, reason.as_deref()),
        Verb::Log { .. } => unreachable!("answered above"),
    }
}

fn list(evidence: &Evidence, as_json: bool) -> anyhow::Result<ExitCode> {
    let entries = evidence.vault.entries()?;
    let mut out = std::io::stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, &entries)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    for Entry { id, n, camera, caption, taken_at, bytes, confirmed_at, closed_at, .. } in &entries {
        let state = match (confirmed_at, closed_at) {
            (None, _) => "candidate".to_owned(),
            (Some(_), None) => "open".to_owned(),
            (Some(_), Some(at)) => format!("closed {at}"),
        };
        let camera = camera.as_deref().unwrap_or("-");
        writeln!(out, "{id}/{n}  {taken_at}  {camera}  {caption}  {} KiB  {state}", bytes.div_ceil(1024))?;
    }
    eprintln!("gengfu: {} pictures, {} KiB", entries.len(), bytes.div_ceil(1024));
    Ok(ExitCode::SUCCESS)
}

fn show(evidence: &Evidence, id: &str, why: Option<&str>, output: Option<&PathBuf>) -> anyhow::Result<ExitCode> {
    let (alarm, n) = parse(id)?;
    let n = n.context("name the picture as <alarm_id>/<n>; `gengfu evidence list` has them")?;
    if output.is_none() && std::io::stdout().is_terminal() {
        bail!("a picture is no text: use --output FILE, or send standard output somewhere");
    }
    // Made first: a look is not logged for a file that cannot be written.
    let mut file = output.map(|path| new_file(path)).transpose()?;
    let shown = evidence.show(alarm, n, &who(), why, SystemClock.now());
    let picture = match (shown, output) {
        (Ok(picture), _) => picture,
        (Err(error), Some(path)) => {
            let _ = std::fs::remove_file(path);
            return Err(error.into());
        }
        (Err(error), None) => return Err(error.into()),
    };
    match &mut file {
        Some(file) => file.write_all(&picture)?,
        None => std::io::stdout().lock().write_all(&picture)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn shred(evidence: &Evidence, id: &str, why: Option<&str>) -> anyhow::Result<ExitCode> {
    let (alarm, n) = parse(id)?;
    let (who, now) = (who(), SystemClock.now());
    let numbers: Vec<u32> = match n {
        Some(n) => vec![n],
        None => evidence.vault.entries()?.into_iter().filter(|entry| entry.id == alarm).map(|entry| entry.n).collect(),
    };
    let mut ended = 0;
    for n in numbers {
        ended += usize::from(evidence.shred(alarm, n, &who, why, now)?);
    }
    eprintln!("gengfu: {ended} picture(s) of {alarm} shredded");
    Ok(if ended > 0 { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

fn log(log: &LookLog, as_json: bool) -> anyhow::Result<ExitCode> {
    let (looks, unread) = log.read().with_context(|| format!("read {}", log.path().display()))?;
    let mut out = std::io::stdout().lock();
    for look in &looks {
        if as_json {
            serde_json::to_writer(&mut out, look)?;
            writeln!(out)?;
            continue;
        }
        let Look { at, deed, who, id, n, reason } = look;
        let reason = reason.as_deref().map(|reason| format!("  ({reason})")).unwrap_or_default();
        writeln!(out, "{at}  {}  {who}  {id}/{n}{reason}", deed.as_str())?;
    }
    if unread > 0 {
        eprintln!("gengfu: {unread} line(s) could not be read; a power cut may tear one");
    }
    Ok(ExitCode::SUCCESS)
}

/// Alarm or command, and the number if there is one.
fn parse(id: &str) -> anyhow::Result<(&str, Option<u32>)> {
    let Some((alarm, n)) = id.split_once('/') else { return Ok((id, None)) };
    let n = n.parse().with_context(|| format!("{n:?} is no number of a picture: write <alarm_id>/<n>"))?;
    Ok((alarm, Some(n)))
}

/// A file for a picture, for this user only.
pub(super) fn new_file(path: &Path) -> anyhow::Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("make {}; a file that is there is not overwritten", path.display()))
}

/// Who runs this: the person before `sudo`, as far as the system knows.
pub(super) fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    let name = |key: &str| std::env::var(key).ok().filter(|name| !name.is_empty() && name.len() <= 64);
    let by = if uid == 0 { name("SUDO_USER") } else { None };
    // A name from the environment can be anything: the number is what the kernel says.
    by.or_else(|| name("USER")).map_or_else(|| format!("user:{uid}"), |name| format!("user:{name}({uid})"))
}
