//! `gengfu desk act`: one order to a gateway from the command line, and its answer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use gengfu_contract::case::{CaseStage, RejectReason};
use gengfu_contract::command::{ConfigCommand, Outcome, Whereabouts};
use gengfu_contract::query::QueryWhat;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::BrokerArgs;
use crate::clock::SystemClock;
use crate::desk::act::{Act, ActError, Answer};
use crate::desk::orders::{Action, CaseOrder, span};
use crate::settings::bundle::Bundle;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The gateway; without it the one that has the alarm or device.
    #[arg(long, global = true)]
    gateway: Option<Slug>,
    /// Who orders it.
    #[arg(long, default_value = "desk", global = true)]
    operator: String,
    /// Wait so long for the answer.
    #[arg(long, default_value = "10s", value_parser = span, global = true)]
    within: Duration,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// About one alarm.
#[derive(Debug, clap::Args)]
struct AlarmArgs {
    /// The alarm.
    #[arg(long, value_name = "ID")]
    alarm: String,
}

/// How far its case has come.
#[derive(Debug, clap::Args)]
struct CaseArgs {
    #[command(flatten)]
    alarm: AlarmArgs,
    /// The centre's id of the case; made from the alarm's unless told.
    #[arg(long, value_name = "ID")]
    case_id: Option<String>,
    /// Why: burnt_food, steam, resident_away, sensor, rain_or_shadow, model, duplicate, not_found, other.
    #[arg(long, value_parser = word::<RejectReason>)]
    reason: Option<RejectReason>,
    /// Anything to remember with it.
    #[arg(long)]
    note: Option<String>,
    /// When it must be dealt with, as in 2026-11-23T08:00:00Z.
    #[arg(long)]
    due_at: Option<Timestamp>,
}

/// Which alarms of a device.
#[derive(Debug, clap::Args)]
struct KindArgs {
    /// The device.
    #[arg(long)]
    device: Slug,
    /// Which of its alarms, as in illegal_parking.
    #[arg(long, value_parser = kind)]
    kind: AlarmKind,
    /// In this zone of its picture only.
    #[arg(long)]
    zone: Option<Slug>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// I have seen this alarm.
    Ack(AlarmArgs),
    /// End a latched alarm whose cause is gone.
    Reset(AlarmArgs),
    /// The alarm is a case.
    File(CaseArgs),
    /// Somebody was told to deal with it.
    Dispatch(CaseArgs),
    /// The alarm is no case; wants --reason.
    Reject(CaseArgs),
    /// The case is done.
    Close(CaseArgs),
    /// Any other stage of the case.
    Case {
        /// REPORTED, FILED, REJECTED, DISPATCHED, ACCEPTED, IN_PROGRESS, FEEDBACK, VERIFYING, CLOSED, RATED or RETURNED.
        #[arg(long, value_parser = word::<CaseStage>)]
        stage: CaseStage,
        #[command(flatten)]
        case: CaseArgs,
    },
    /// Put alarms of a device aside: at most 8 h, never smoke or SOS.
    Shelve {
        #[command(flatten)]
        which: KindArgs,
        /// For how long, as in 2h.
        #[arg(long = "for", value_name = "SPAN", value_parser = span)]
        lasts: Duration,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let them count again.
    Unshelve(KindArgs),
    /// A masked picture of now.
    Snapshot {
        /// The camera.
        #[arg(long)]
        camera: Slug,
        /// Where the picture goes.
        #[arg(long, value_name = "FOLDER", default_value = "pictures")]
        evidence: PathBuf,
    },
    /// Ask what the gateway knows.
    Query {
        /// homes, devices, alarms or journal.
        #[arg(long, value_parser = word::<QueryWhat>)]
        what: QueryWhat,
        /// Only these devices; may be repeated.
        #[arg(long)]
        device: Vec<Slug>,
        /// For the journal: from this sequence.
        #[arg(long)]
        from: Option<u64>,
        /// For the journal: to this sequence.
        #[arg(long)]
        to: Option<u64>,
    },
    /// Somebody is with a person, or the person is away, well, or back.
    Visit {
        /// The magnet on the door of the home.
        #[arg(long)]
        door: Slug,
        /// visited, away, well or back.
        #[arg(long, value_parser = word::<Whereabouts>)]
        what: Whereabouts,
        /// For how long, as in 24h; not for back.
        #[arg(long = "for", value_name = "SPAN", value_parser = span)]
        lasts: Option<Duration>,
    },
    /// Let a node sound, or be silent (0).
    Sounder {
        /// The node.
        #[arg(long)]
        device: Slug,
        /// For so many seconds.
        #[arg(long)]
        for_s: u32,
    },
    /// Press a smoke head's test button.
    Test {
        /// The smoke head.
        #[arg(long)]
        device: Slug,
    },
    /// Have the gateway try a configuration; its last word comes at the end of the trial (--within 6m).
    Config {
        /// The signed bundle, which names its gateway.
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
    },
}

pub(super) fn act(args: Args) -> anyhow::Result<ExitCode> {
    let site = args.broker.site()?;
    let cmd_id = format!("act-{}", ulid::Ulid::new().to_string().to_lowercase());
    let evidence_dir = match &args.verb {
        Verb::Snapshot { evidence, .. } => evidence.clone(),
        _ => PathBuf::new(),
    };
    let gateway = match (&args.gateway, &args.verb) {
        (None, Verb::Config { bundle }) => Some(Bundle::from_bytes(&read(bundle)?)?.manifest().gateway.clone()),
        (gateway, _) => gateway.clone(),
    };
    let act = Act {
        broker: args.broker.config(format!("gengfu-{site}-{cmd_id}"))?,
        site,
        gateway,
        operator: args.operator,
        action: action(args.verb)?,
        cmd_id,
        within: args.within,
        evidence_dir,
    };
    let answer = match super::super::block_on(crate::desk::act::act(&act, &SystemClock))? {
        Ok(answer) => answer,
        Err(fault @ ActError::Open(_)) => return Err(fault).context("use the broker's options"),
        Err(fault) => return Err(fault.into()),
    };
    print(&answer, args.json)?;
    Ok(match answer.outcome {
        Outcome::Accepted | Outcome::Done => ExitCode::SUCCESS,
        Outcome::Refused | Outcome::Conflict => ExitCode::from(super::super::NO),
    })
}

fn action(verb: Verb) -> anyhow::Result<Action> {
    let case = |args: CaseArgs, stage: CaseStage| {
        anyhow::ensure!(!stage.needs_reason() || args.reason.is_some(), "{stage} wants --reason, as in --reason steam");
        let CaseArgs { alarm, case_id, reason, note, due_at } = args;
        let order = CaseOrder::next(&alarm.alarm, case_id.as_deref(), stage);
        Ok(Action::Case(CaseOrder { reason, note, due_at, ..order }))
    };
    Ok(match verb {
        Verb::Ack(AlarmArgs { alarm }) => Action::Ack { alarm_id: alarm },
        Verb::Reset(AlarmArgs { alarm }) => Action::Reset { alarm_id: alarm },
        Verb::File(args) => case(args, CaseStage::Filed)?,
        Verb::Dispatch(args) => case(args, CaseStage::Dispatched)?,
        Verb::Reject(args) => case(args, CaseStage::Rejected)?,
        Verb::Close(args) => case(args, CaseStage::Closed)?,
        Verb::Case { stage, case: args } => case(args, stage)?,
        Verb::Shelve { which: KindArgs { device, kind, zone }, lasts, reason } => {
            Action::Shelve { device, kind, zone, lasts, reason }
        }
        Verb::Unshelve(KindArgs { device, kind, zone }) => Action::Unshelve { device, kind, zone },
        Verb::Snapshot { camera, .. } => Action::Snapshot { camera },
        Verb::Query { what, device, from, to } => Action::Query { what, devices: device, from, to },
        Verb::Visit { door, what, lasts } => Action::Visit { door, what, lasts },
        Verb::Sounder { device, for_s } => Action::Sounder { device, for_s },
        Verb::Test { device } => Action::Test { device },
        Verb::Config { bundle } => Action::Config { bundle: ConfigCommand::encode_bundle(&read(&bundle)?) },
    })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("read {}", file.display()))
}

fn print(answer: &Answer, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        serde_json::to_writer(&mut out, answer)?;
        writeln!(out)?;
        return Ok(());
    }
    let outcome = format!("{:?}", answer.outcome).to_lowercase();
    let reason = answer.reply.reason.as_ref().map(|why| format!(": {} {}", why.zh, why.en)).unwrap_or_default();
    writeln!(out, "{} of {}: {outcome}{reason}", answer.verb, answer.gateway)?;
    if let Some(path) = &answer.picture {
        let word = if answer.is_genuine == Some(true) { "hash ok" } else { "HASH DIFFERS from the answer" };
        writeln!(out, "{path} ({word})")?;
    }
    for item in answer.items.iter().flatten() {
        writeln!(out, "{item}")?;
    }
    Ok(())
}

/// A word of the contract, as it stands on the wire.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|fault| fault.to_string())
}

fn kind(text: &str) -> Result<AlarmKind, String> {
    let kind: AlarmKind = word(text)?;
    if kind.is_known() {
        return Ok(kind);
    }
    let known: Vec<_> = AlarmKind::ALL.iter().map(|kind| kind.as_str()).collect();
    Err(format!("expected one of {}", known.join(", ")))
}
