//! `gengfu check`: is this configuration right, and does this machine have what it names?

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{Config, ConfigError, Fault, Lack};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration.
    #[arg(value_name = "FILE", default_value = super::DEFAULT_CONFIG, env = "GENGFU_CONFIG")]
    config: PathBuf,
    /// Only look for faults of the file; what the machine lacks is not asked.
    #[arg(long)]
    faults_only: bool,
    /// Print JSON: `{"valid": …, "faults": […], "lacks": […]}`.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Findings {
    valid: bool,
    faults: Vec<Fault>,
    lacks: Vec<Lack>,
}

pub(super) fn check(args: &Args) -> anyhow::Result<ExitCode> {
    let findings = match Config::load(&args.config) {
        Ok(_) if args.faults_only => Findings { valid: true, faults: Vec::new(), lacks: Vec::new() },
        Ok(config) => {
            let mut lacks = config.environment();
            if let Err(error) = crate::setup::codes(&config) {
                lacks.push(error);
            }
            lacks.extend(crate::setup::cameras_without_model(&config));
            Findings { valid: true, faults: Vec::new(), lacks }
        }
        Err(ConfigError::Faulty { faults, .. }) => Findings { valid: false, faults, lacks: Vec::new() },
        Err(error) => return Err(error.into()),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &findings)?;
        writeln!(out)?;
    } else {
        let file = args.config.display();
        for fault in &findings.faults {
            writeln!(out, "{file}:{}: {}: {}\n    → {}", fault.line, fault.key, fault.problem, fault.remedy)?;
        }
        for lack in &findings.lacks {
            writeln!(out, "{file}: {}: {}\n    → {}", lack.key, lack.problem, lack.remedy)?;
        }
        match (findings.valid, findings.lacks.len()) {
            (true, 0) if args.faults_only => writeln!(out, "{file}: valid")?,
            (true, 0) => writeln!(out, "{file}: valid, and this machine has what it names")?,
            (true, n) => writeln!(out, "{file}: valid; this machine lacks {n} thing(s) it names")?,
            (false, _) => writeln!(out, "{file}: {} fault(s)", findings.faults.len())?,
        }
    }
    Ok(if findings.valid && findings.lacks.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}
