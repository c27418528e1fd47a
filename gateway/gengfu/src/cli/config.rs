//! `gengfu config`: pack, sign and check configurations as bundles; try one here, go back, see which is in use.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use gengfu_contract::command::ConfigCommand;
use jiff::Timestamp;

use super::SocketArgs;
use super::firmware::{keygen, private_key, read_keys, replace, say, write};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::local::socket::{Answer, Query, SocketError, ask};
use crate::settings::bundle::{Bundle, Manifest};
use crate::settings::slots::{Ending, Verdict};
use crate::settings::{ConfigStatus, Waivers};

/// While a trial is watched the gateway is asked this often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The gateway is down for seconds when it starts again; a gateway that is away for longer is not waited for.
const AWAY_MAX_ASKS: u32 = 120;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a key pair for signing configurations.
    Keygen {
        /// The private key (PKCS#8 DER, readable by its owner only). Keep it off the gateway.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The public key (64 hex digits): for `[config] trusted`.
        #[arg(long, value_name = "FILE")]
        public: PathBuf,
    },
    /// Check a configuration for faults and put it into an unsigned bundle, for the gateway that it names.
    Pack {
        /// The configuration, whole.
        config: PathBuf,
        /// Its number: a gateway takes only higher ones than it has had. Default: the seconds since 1970.
        #[arg(long, value_name = "N")]
        counter: Option<u64>,
        /// The bundle.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a bundle, in place.
    Sign {
        /// The bundle.
        bundle: PathBuf,
        /// The private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Check a bundle's signature and configuration: 0 when both are good, 1 when not.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// A public key that is trusted; may be given more than once.
        #[arg(long, value_name = "FILE", required = true)]
        public: Vec<PathBuf>,
        /// Print the configuration in it.
        #[arg(long)]
        print: bool,
    },
    /// Print the body of the command that sends a bundle to its gateway, for any MQTT client.
    Command {
        /// The signed bundle.
        bundle: PathBuf,
        /// Who sends it.
        #[arg(long, default_value = "centre")]
        operator: String,
    },
    /// Have the running gateway try a bundle, and wait for the end of the trial: 0 when it is kept, 1 when not.
    Try(TryArgs),
    /// Go back to the configuration before; during a trial, end it. The gateway starts again.
    Rollback {
        /// Who you are.
        #[arg(long, default_value = "technician")]
        who: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Show which configuration is in use, what is being tried, how the last change ended.
    Show {
        #[command(flatten)]
        socket: SocketArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct TryArgs {
    /// The signed bundle.
    bundle: PathBuf,
    /// Although its number is not higher than what was there.
    #[arg(long)]
    older: bool,
    /// Although it names things that this machine lacks.
    #[arg(long)]
    lacking: bool,
    /// Keep it when the gateway runs with it for the time of the trial, whatever the uplink does.
    #[arg(long)]
    without_uplink: bool,
    /// Who you are.
    #[arg(long, default_value = "technician")]
    who: String,
    /// Do not wait for the end of the trial.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn config(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Keygen { key, public } => keygen(key, public)?,
        Verb::Pack { config, counter, out } => return pack(config, *counter, out),
        Verb::Sign { bundle, key } => sign(bundle, key)?,
        Verb::Verify { bundle, public, print } => return verify(bundle, public, *print),
        Verb::Command { bundle, operator } => command(bundle, operator)?,
        Verb::Try(args) => return try_it(args),
        Verb::Rollback { who, socket } => {
            order(socket, &Query::ConfigBack { who: who.clone() })?;
            eprintln!("gengfu: the gateway starts again with the configuration before; see `gengfu config show`");
        }
        Verb::Show { socket, json } => return show(socket, *json),
    }
    Ok(ExitCode::SUCCESS)
}

fn pack(file: &Path, counter: Option<u64>, out: &Path) -> anyhow::Result<ExitCode> {
    let (text, base) = Config::read_text(file)?;
    let config = match Config::parse(&text, &base) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                say(&format!(
                    "{}:{}: {}: {}\n    → {}",
                    file.display(),
                    fault.line,
                    fault.key,
                    fault.problem,
                    fault.remedy
                ))?;
            }
            return Ok(ExitCode::from(super::NO));
        }
    };
    let now = SystemClock.now();
    let counter = counter.unwrap_or_else(|| u64::try_from(now.as_second()).unwrap_or(0));
    let bundle = Bundle::pack(config.gateway.site, config.gateway.name, counter, now, text)?;
    write(out, &bundle.to_bytes())?;
    say(&format!("{}: {}; not signed yet", out.display(), told(bundle.manifest())))?;
    Ok(ExitCode::SUCCESS)
}

fn told(manifest: &Manifest) -> String {
    let Manifest { site, gateway, counter, bytes, created_at, .. } = manifest;
    format!("configuration {counter} for {site}/{gateway}, {bytes} bytes, packed {created_at}")
}

fn sign(file: &Path, key: &Path) -> anyhow::Result<()> {
    let key = private_key(key)?;
    let mut bundle = read(file)?;
    bundle.sign(&key);
    replace(file, &bundle.to_bytes())?;
    say(&format!("{}: signed by {}", file.display(), key.public()))
}

fn verify(file: &Path, public: &[PathBuf], print: bool) -> anyhow::Result<ExitCode> {
    let verified = match read(file)?.verify(&read_keys(public)?) {
        Ok(verified) => verified,
        Err(error) => {
            say(&format!("{}: {error}", file.display()))?;
            return Ok(ExitCode::from(super::NO));
        }
    };
    if print {
        write!(std::io::stdout(), "{}", verified.text)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Where its relative paths will start is known at its gateway only; for faults that makes no difference.
    if let Err(faults) = Config::parse(&verified.text, Path::new("/etc/gengfu")) {
        for fault in faults {
            say(&format!("{}: {fault}", file.display()))?;
        }
        return Ok(ExitCode::from(super::NO));
    }
    say(&format!("{}: good; {}, signed by {}", file.display(), told(&verified.manifest), verified.signer))?;
    Ok(ExitCode::SUCCESS)
}

fn command(file: &Path, operator: &str) -> anyhow::Result<()> {
    let bundle = read(file)?.to_bytes();
    let body = ConfigCommand {
        bundle: ConfigCommand::encode_bundle(&bundle),
        operator: operator.to_owned(),
        issued_at: SystemClock.now(),
        expires_at: None,
    };
    say(&serde_json::to_string(&body)?)
}

fn read(file: &Path) -> anyhow::Result<Bundle> {
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Bundle::from_bytes(&bytes).with_context(|| format!("read {}", file.display()))
}

fn order(socket: &SocketArgs, query: &Query) -> anyhow::Result<()> {
    match super::block_on(ask(&socket.path()?, query))?? {
        Answer::Ordered => Ok(()),
        _ => bail!("the gateway answered something else; is it another version?"),
    }
}

fn status(socket: &SocketArgs) -> anyhow::Result<Result<(ConfigStatus, Timestamp), SocketError>> {
    match super::block_on(ask(&socket.path()?, &Query::Status))? {
        Ok(Answer::Status(report)) => {
            let now = report.gateway.now;
            let config = report.config.context("the gateway says nothing of its configuration; is it older?")?;
            Ok(Ok((config, now)))
        }
        Ok(_) => bail!("the gateway answered something else; is it another version?"),
        Err(error) => Ok(Err(error)),
    }
}

fn try_it(args: &TryArgs) -> anyhow::Result<ExitCode> {
    let counter = read(&args.bundle)?.manifest().counter;
    // The gateway has another working folder.
    let bundle = std::fs::canonicalize(&args.bundle).with_context(|| format!("find {}", args.bundle.display()))?;
    let TryArgs { older, lacking, without_uplink, .. } = *args;
    let waivers = Waivers { older, lacking, without_uplink };
    let began = status(&args.socket)??.1;
    order(&args.socket, &Query::TryConfig { bundle, waivers, who: args.who.clone() })?;
    eprintln!("gengfu: configuration {counter} is on the disk; the gateway starts again with it");
    if args.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let end = super::block_on(watch_trial(&args.socket, counter, began))??;
    match end.ending {
        Ending::Kept => {
            eprintln!("gengfu: configuration {counter} is kept");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("gengfu: configuration {counter} is not kept: {}", reason(&end));
            Ok(ExitCode::from(super::NO))
        }
    }
}

/// Waits for the verdict on this bundle; the gateway may be away meanwhile.
async fn watch_trial(socket: &SocketArgs, counter: u64, began: Timestamp) -> anyhow::Result<Verdict> {
    let mut away = 0;
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        // The socket may be another one in the new configuration.
        match ask(&socket.path()?, &Query::Status).await {
            Ok(Answer::Status(report)) => {
                away = 0;
                let Some(config) = report.config else { continue };
                if let Some(trial) = &config.trial {
                    eprintln!(
                        "gengfu: on trial, start {} of {}, {} s left, uplink {:?}",
                        trial.starts, trial.starts_max, trial.left_s, report.uplink.state
                    );
                }
                if let Some(last) = config.last.filter(|last| last.counter == counter && last.at >= began) {
                    return Ok(last);
                }
            }
            Ok(_) => bail!("the gateway answered something else; is it another version?"),
            Err(error) => {
                away += 1;
                if away > AWAY_MAX_ASKS {
                    return Err(error).context("the gateway does not come back: systemctl status gengfu");
                }
            }
        }
    }
}

fn show(socket: &SocketArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (config, now) = status(socket)??;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &config)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&mut out, &config)?;
    let findings = config.findings(now);
    for (problem, remedy) in &findings {
        writeln!(out, "wrong     {}\n          → {}", problem.en, remedy.en)?;
        writeln!(out, "          {}\n          → {}", problem.zh, remedy.zh)?;
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

fn print(out: &mut impl Write, config: &ConfigStatus) -> std::io::Result<()> {
    match config.counter {
        Some(counter) => writeln!(out, "in use    bundle {counter} since {}", config.since)?,
        None => writeln!(out, "in use    {} since {}", config.file.display(), config.since)?,
    }
    writeln!(out, "          SHA-256 {}", config.sha256)?;
    if let (Some(created_at), Some(signer)) = (config.created_at, &config.signer) {
        writeln!(out, "          packed {created_at}, signed by {signer}")?;
    }
    match (config.takes_bundles, config.highest) {
        (false, _) => writeln!(out, "bundles   are not taken: no [config] trusted")?,
        (true, 0) => writeln!(out, "bundles   none came yet")?,
        (true, highest) => writeln!(out, "bundles   with a number above {highest} are taken")?,
    }
    if let Some(trial) = &config.trial {
        writeln!(
            out,
            "on trial  bundle {} since {} for {}, start {} of {}, {} of {} s left, needs {:?}",
            trial.counter,
            trial.since,
            trial.asked.operator,
            trial.starts,
            trial.starts_max,
            trial.left_s,
            trial.window_s,
            trial.need
        )?;
    }
    if let Some(last) = &config.last {
        let ending = match last.ending {
            Ending::Kept => "was kept",
            Ending::RolledBack => "was rolled back",
            Ending::TakenBack => "was taken back",
            Ending::FileCounts => "gave way to the file on the box",
        };
        writeln!(out, "last      bundle {} of {} {ending} at {}", last.counter, last.asked.operator, last.at)?;
        if last.reason.is_some() {
            writeln!(out, "          {}", reason(last))?;
        }
    }
    Ok(())
}

fn reason(verdict: &Verdict) -> String {
    verdict.reason.as_ref().map_or_else(String::new, |why| format!("{} {}", why.en, why.zh))
}
