//! `gengfu verify FILE`: has anybody touched this export? Offline.
//!
//! Exit codes: 0 whole; 1 something is wrong, each place is named; 2 it could not be found out.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use gengfu_contract::export::{Fault, Verdict, Verifier};
use serde::Serialize;

use super::signature;

/// Faults printed at most; a moved event displaces all between its places.
const TOLD_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `gengfu export` wrote.
    file: PathBuf,
    /// The gateway's certificate (PEM): the export must be signed with its key.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'v> {
    whole: bool,
    source: &'v Option<String>,
    first: Option<u64>,
    last: Option<u64>,
    events: u64,
    signature: &'v str,
    faults: &'v [Fault],
}

pub(super) fn verify(args: &Args) -> anyhow::Result<ExitCode> {
    let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    let (mut reader, mut verifier, mut line) = (BufReader::new(file), Verifier::default(), Vec::new());
    while reader.read_until(b'\n', &mut line).with_context(|| format!("read {}", args.file.display()))? > 0 {
        verifier.line(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    let verdict = verifier.finish();
    let (signature_holds, signature) = judge_signature(args, &verdict)?;
    let whole = verdict.faults.is_empty() && signature_holds;
    let mut out = std::io::stdout().lock();
    if args.json {
        let Verdict { source, first, last, events, faults, .. } = &verdict;
        let (first, last, events) = (*first, *last, *events);
        let report = Report { whole, source, first, last, events, signature: &signature, faults };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &verdict, &signature)?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

fn print(out: &mut impl Write, verdict: &Verdict, signature: &str) -> std::io::Result<()> {
    for fault in verdict.faults.iter().take(TOLD_MAX) {
        writeln!(out, "{fault}")?;
    }
    if verdict.faults.len() > TOLD_MAX {
        writeln!(out, "… and {} more", verdict.faults.len() - TOLD_MAX)?;
    }
    let source = verdict.source.as_deref().unwrap_or("an unknown gateway");
    let range = match (verdict.first, verdict.last) {
        (Some(first), Some(last)) => format!("sequence {first} to {last}"),
        _ => "an unknown range".to_owned(),
    };
    let result =
        if verdict.faults.is_empty() { "whole: nothing removed, changed, reordered or repeated" } else { "NOT WHOLE" };
    writeln!(out, "{source}, {range}, {} events read: {result}; {signature}", verdict.events)
}

/// Whether the signature is as good as it must be, and in words. Without a certificate given, an unsigned export is judged by its chain alone.
fn judge_signature(args: &Args, verdict: &Verdict) -> anyhow::Result<(bool, String)> {
    let Some(closing) = &verdict.closing else { return Ok((args.certificate.is_none(), "no closing line".into())) };
    let Some(signed) = &closing.signature else {
        return Ok((args.certificate.is_none(), "not signed".into()));
    };
    match signature::check(&closing.statement.signed_bytes(), signed, args.certificate.as_deref())? {
        Ok(words) => Ok((true, words)),
        Err(words) => Ok((false, format!("BAD SIGNATURE: {words}"))),
    }
}
