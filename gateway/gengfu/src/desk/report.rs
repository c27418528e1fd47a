//! `gengfu desk report`: the proof from journals on disk, without a broker, a gateway or a running desk.
//!
//! Owns the reading of one or more journals (of desks that shared the load) in the order of arrival, the same judgement as the live
//! desk's with a longer memory, and the look at every picture named. It refuses to believe the desk: hashes are computed anew from the
//! events, and from the pictures' bytes where they lie.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use gengfu_contract::chain;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Lane;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::findings::{self, Finding, Stated};
use super::journal::{self, JournalError, Reader, Record, What};
use super::journals::Proof;
use super::sequence::{Arrival, SequenceLedger};

/// Events remembered per gateway for comparing copies.
const REMEMBERED: usize = 1 << 20;
/// Ids of repeated events told per gateway.
const IDS_TOLD: usize = 32;

/// The proof of some journals.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The files read, in order, journal by journal.
    pub files: Vec<PathBuf>,
    /// From the first to the last line.
    pub from: Option<Timestamp>,
    /// The last line.
    pub until: Option<Timestamp>,
    /// Bytes of the journals that are no lines: 0, but for a torn end.
    pub unread_bytes: u64,
    /// Older files were archived: the proof begins with what the desk knew at this time.
    pub begins_with_checkpoint_of: Option<Timestamp>,
    /// The gateways.
    pub gateways: BTreeMap<Slug, GatewayReport>,
}

/// The proof of one gateway.
#[derive(Debug, Default, Serialize)]
pub struct GatewayReport {
    /// Nothing is wrong.
    pub is_whole: bool,
    /// The figures; absent when no event came.
    pub proof: Option<Proof>,
    /// What there is to say; empty when everything is here.
    pub findings: Vec<Finding>,
    /// Events received, by lane.
    pub lanes: BTreeMap<Lane, u64>,
    /// Events that came more than once: how many copies, and the first ids.
    pub repeated: Repeated,
    /// The pictures that events named.
    pub pictures: Pictures,
    #[serde(skip)]
    ledger: SequenceLedger,
    #[serde(skip)]
    stated: Option<Stated>,
    #[serde(skip)]
    named: BTreeMap<(String, u32), String>,
    #[serde(skip)]
    written: BTreeMap<(String, u32), (PathBuf, String)>,
}

/// Events that came more than once.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repeated {
    /// Copies beyond the first.
    pub copies: u64,
    /// Sequence and id of the first 32 events that were repeated, and how many copies.
    pub first: BTreeMap<u64, (String, u64)>,
}

/// Pictures against what the events name.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pictures {
    /// Named by events.
    pub named: u64,
    /// Whose file is there with the named hash.
    pub genuine: u64,
    /// That did not come.
    pub not_received: Vec<String>,
    /// Whose file came and is not there, or not whole, any more.
    pub damaged: Vec<String>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A folder without journals.
    #[error("no journal (*.jsonl) in {0}; name the file that the desk was given with --journal")]
    Empty(PathBuf),
    /// Reading.
    #[error("cannot read the journal {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Two journals that both begin with a checkpoint.
    #[error(
        "{0} begins with a checkpoint, its older files were archived; bring them back, or report on each journal alone"
    )]
    Checkpoint(PathBuf),
}

struct Source {
    path: PathBuf,
    reader: Reader,
    next: Option<Record>,
}

impl Report {
    /// Reads these journals (files, or folders with `*.jsonl` in them). Pictures are looked for where the journal says, and in `pictures`.
    ///
    /// # Errors
    /// [`ReportError`] when a journal is missing or cannot be read. What is wrong *in* a journal is a finding.
    pub fn read(paths: &[PathBuf], pictures: Option<&Path>) -> Result<Self, ReportError> {
        let mut report = Self {
            files: Vec::new(),
            from: None,
            until: None,
            unread_bytes: 0,
            begins_with_checkpoint_of: None,
            gateways: BTreeMap::new(),
        };
        let mut sources = Vec::new();
        for path in journals(paths)? {
            let read = |fault| ReportError::Read(path.clone(), fault);
            report.files.extend(journal::files(&path).map_err(read)?);
            let mut reader = Reader::open(&path)?;
            let next = reader.next_record().map_err(read)?;
            sources.push(Source { path, reader, next });
        }
        let is_alone = sources.len() == 1;
        let is_first = |source: &Source| source.next.as_ref().map(|record| record.received_at);
        // The journals in the order in which things arrived at any of the desks.
        while let Some(source) = sources.iter_mut().filter(|s| s.next.is_some()).min_by_key(|s| is_first(s)) {
            let next = source.reader.next_record().map_err(|fault| ReportError::Read(source.path.clone(), fault))?;
            let Some(record) = std::mem::replace(&mut source.next, next) else { break };
            if matches!(record.what, What::Checkpoint(_)) && report.until.is_none() && !is_alone {
                return Err(ReportError::Checkpoint(source.path.clone()));
            }
            report.take(record);
        }
        report.unread_bytes = sources.iter().map(|source| source.reader.unread).sum();
        for view in report.gateways.values_mut() {
            view.conclude(pictures);
        }
        Ok(report)
    }

    fn take(&mut self, record: Record) {
        let Record { gateway, received_at, what } = record;
        let is_first = self.until.is_none();
        self.from.get_or_insert(received_at);
        self.until = self.until.max(Some(received_at));
        let what = match what {
            // Only where nothing is known from older files; else they say the same, event by event.
            What::Checkpoint(known) if is_first => {
                self.begins_with_checkpoint_of = Some(received_at);
                for (name, view) in *known {
                    let (ledger, stated) = (view.sequences, view.stated);
                    self.gateways.insert(name, GatewayReport { ledger, stated, ..GatewayReport::default() });
                }
                return;
            }
            What::Checkpoint(_) | What::Unknown => return,
            other => other,
        };
        let fresh = || GatewayReport { ledger: SequenceLedger::remembering(REMEMBERED), ..GatewayReport::default() };
        self.gateways.entry(gateway).or_insert_with(fresh).take(what, received_at);
    }

    /// Every gateway's journal is whole, and every line could be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unread_bytes == 0 && !self.gateways.is_empty() && self.gateways.values().all(|view| view.is_whole)
    }
}

impl GatewayReport {
    fn take(&mut self, what: What, received_at: Timestamp) {
        match what {
            What::Event(event) | What::Again(event) | What::Altered(event) => {
                match self.ledger.take(&event, received_at) {
                    Arrival::New => *self.lanes.entry(event.lane).or_default() += 1,
                    Arrival::Duplicate => return self.repeated(event.sequence, event.id),
                    Arrival::Again | Arrival::Conflict => return,
                }
                let evidence = event.alarm().ok().flatten();
                for (alarm, n, sha256) in evidence.iter().flat_map(|alarm| {
                    alarm.evidence.iter().map(|picture| (alarm.alarm_id.clone(), picture.n, picture.sha256.clone()))
                }) {
                    self.named.insert((alarm, n), sha256);
                }
            }
            What::Duplicate { sequence, id } => self.repeated(sequence, id),
            What::Statement(statement) => {
                self.ledger.state(&statement, received_at);
                let is_older = self.stated.as_ref().is_some_and(|last| statement.at < last.statement.at);
                if !is_older {
                    self.stated = Some(Stated { statement, received_at });
                }
            }
            What::Picture { alarm_id, n, sha256, path, .. } => {
                self.written.insert((alarm_id, n), (PathBuf::from(path), sha256));
            }
            What::Checkpoint(_) | What::Unknown => {}
        }
    }

    fn repeated(&mut self, sequence: u64, id: String) {
        self.repeated.copies += 1;
        if self.repeated.first.len() < IDS_TOLD || self.repeated.first.contains_key(&sequence) {
            self.repeated.first.entry(sequence).or_insert((id, 0)).1 += 1;
        }
    }

    fn conclude(&mut self, folder: Option<&Path>) {
        self.findings = findings::judge(&self.ledger, self.stated.as_ref(), false);
        self.proof = Some(self.ledger.proof()).filter(|proof| proof.first.is_some());
        for ((alarm_id, n), named) in &self.named {
            let name = format!("{alarm_id}/{n}");
            self.pictures.named += 1;
            match self.written.get(&(alarm_id.clone(), *n)) {
                None => self.pictures.not_received.push(name),
                Some((path, _)) if is_genuine(path, folder, named) => self.pictures.genuine += 1,
                Some((path, _)) => self.pictures.damaged.push(format!("{name} ({})", path.display())),
            }
        }
        self.is_whole = !self.findings.iter().any(Finding::is_fault) && self.pictures.damaged.is_empty();
    }
}

/// The picture lies where the journal says, or under its name in `folder`, and hashes to what the event named.
fn is_genuine(path: &Path, folder: Option<&Path>, named: &str) -> bool {
    let moved = folder.zip(path.file_name()).map(|(folder, name)| folder.join(name));
    moved
        .as_deref()
        .into_iter()
        .chain([path])
        .any(|path| hash_of(path).is_ok_and(|hash| hash.eq_ignore_ascii_case(named)))
}

fn hash_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hasher, mut block) = (std::fs::File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex::encode::<[u8; 32]>(hasher.finalize().into())),
            n => hasher.update(&block[..n]),
        }
    }
}

fn journals(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReportError> {
    let mut journals = Vec::new();
    for path in paths {
        if !path.is_dir() {
            journals.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|fault| ReportError::Read(path.clone(), fault))?;
        let mut found: Vec<_> =
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
        if found.is_empty() {
            return Err(ReportError::Empty(path.clone()));
        }
        found.sort();
        journals.extend(found);
    }
    Ok(journals)
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.strftime("%F %TZ").to_string());
        writeln!(f, "journal  {} file(s), {} to {}", self.files.len(), time(self.from), time(self.until))?;
        if let Some(at) = self.begins_with_checkpoint_of {
            writeln!(f, "         older files were archived: it begins with what the desk knew at {}", time(Some(at)))?;
        }
        if self.unread_bytes > 0 {
            writeln!(f, "         {} bytes are no lines; a torn end was never received for", self.unread_bytes)?;
        }
        for (name, view) in &self.gateways {
            let word = if view.is_whole { "whole   完整" } else { "NOT WHOLE 不完整" };
            writeln!(f, "{name}  {word}")?;
            match &view.proof {
                Some(proof) => {
                    let lanes: Vec<_> = view.lanes.iter().map(|(lane, count)| format!("{lane} {count}")).collect();
                    writeln!(f, "  {proof}; {} of {} events, {}", proof.received, proof.stated, lanes.join(", "))?;
                }
                None => writeln!(f, "  no event")?,
            }
            for finding in &view.findings {
                let (mark, text) = (if finding.is_fault() { '✗' } else { '…' }, finding.text());
                writeln!(f, "  {mark} {}\n    {}", text.en, text.zh)?;
            }
            if view.repeated.copies > 0 {
                let first: Vec<_> =
                    view.repeated.first.iter().take(8).map(|(n, (id, times))| format!("#{n} {id} ×{times}")).collect();
                writeln!(f, "  {} further copies, all alike: {}", view.repeated.copies, first.join(", "))?;
            }
            let Pictures { named, genuine, not_received, damaged } = &view.pictures;
            if *named > 0 {
                writeln!(
                    f,
                    "  pictures: {named} named, {genuine} here and genuine, {} not received",
                    not_received.len()
                )?;
            }
            for picture in damaged {
                writeln!(f, "  ✗ picture {picture} is not the one the event named, or is gone")?;
            }
        }
        let hash = chain::GENESIS.len() * 8;
        let verdict = if self.is_whole() { "everything is here" } else { "it is not proven that everything is here" };
        writeln!(f, "{verdict} ({} gateway(s), SHA-{hash} chains checked)", self.gateways.len())
    }
}
