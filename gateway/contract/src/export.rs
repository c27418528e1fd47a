//! A journal as a file, and the proof that nobody has touched it.
//!
//! Owns the file's form and its judgement. Line 1 is a [`Header`], then one journaled event a line, byte for byte as it was hashed, at the
//! end a [`Closing`]. Everything is judged offline: each event carries the hash of the one before it, the header has the hash that the
//! first one must carry, the closing has the hash of the last one. It refuses to repair anything, and to read or write files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chain;

/// First line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this form: 1.
    pub gengfu_export: u32,
    /// Whose journal: `/gengfu/<site>/<gateway>`.
    pub source: String,
    /// Version of the contract.
    pub contract: String,
    /// Sequence of the first event. Above 1 when older ones were received and pruned.
    pub first: u64,
    /// `prevhash` of the first event, hex.
    pub anchor: String,
}

/// Last line of an export: what must have come before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The statement.
    pub statement: ClosingStatement,
    /// SHA-256 of the statement's RFC 8785 form, hex: tells a damaged closing line from damaged events.
    pub sha256: String,
    /// The gateway's word for it, where it has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// What a gateway says of the export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosingStatement {
    /// The header, once more.
    pub header: Header,
    /// Sequence of the last event; one below `first` when there is none.
    pub sequence: u64,
    /// SHA-256 of the last event, hex.
    pub head: String,
    /// When it was exported.
    pub at: Timestamp,
}

/// A signature over the RFC 8785 form of a [`ClosingStatement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// As in "ECDSA_NISTP256_SHA256".
    pub scheme: String,
    /// The signer's certificate, DER, base64.
    pub certificate: String,
    /// The signature, base64.
    pub value: String,
}

impl Closing {
    /// The closing line of a statement.
    #[must_use]
    pub fn new(statement: ClosingStatement, signature: Option<Signature>) -> Self {
        let sha256 = hex::encode(chain::hash(&statement.signed_bytes()));
        Self { statement, sha256, signature }
    }

    /// Whether the line that it was read from has its own hash. Of the line, not of what was understood: a time may be spelled in two ways.
    fn is_whole(&self, line: &[u8]) -> bool {
        let said = serde_json::from_slice::<serde_json::Value>(line).ok();
        let bytes = said.and_then(|said| serde_json_canonicalizer::to_vec(said.get("statement")?).ok());
        bytes.is_some_and(|bytes| self.sha256 == hex::encode(chain::hash(&bytes)))
    }
}

impl ClosingStatement {
    /// The bytes that are signed.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).unwrap_or_default()
    }
}

/// Something that is wrong with an export, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Events that must be there are not.
    Removed {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
        /// They belong before this line.
        before_line: u64,
    },
    /// An event is not what was journaled.
    Changed {
        /// Its line.
        line: u64,
        /// Its sequence, as far as it can be told.
        sequence: Option<u64>,
        /// What shows it.
        why: String,
    },
    /// An event stands where another belongs.
    Reordered {
        /// Its line.
        line: u64,
        /// Its sequence.
        sequence: u64,
        /// The sequence that belongs there.
        expected: u64,
    },
    /// An event stands there twice.
    Repeated {
        /// The line of the copy.
        line: u64,
        /// Its sequence.
        sequence: u64,
        /// The line of the first one.
        first_line: u64,
    },
    /// The file ends before its closing line.
    CutOff {
        /// The last line there is.
        line: u64,
        /// The last sequence there is.
        sequence: Option<u64>,
    },
    /// The header or the closing line is not what was written.
    Frame {
        /// The line.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |from: &u64, to: &u64| if from == to { from.to_string() } else { format!("{from} to {to}") };
        match self {
            Fault::Removed { from, to, before_line } => {
                write!(f, "line {before_line}: sequence {} was removed before this line", numbers(from, to))
            }
            Fault::Changed { line, sequence: Some(sequence), why } => {
                write!(f, "line {line}: sequence {sequence} was changed: {why}")
            }
            Fault::Changed { line, sequence: None, why } => write!(f, "line {line}: the record was changed: {why}"),
            Fault::Reordered { line, sequence, expected } => {
                write!(f, "line {line}: sequence {sequence} stands where {expected} belongs: reordered")
            }
            Fault::Repeated { line, sequence, first_line } => {
                write!(f, "line {line}: sequence {sequence} is repeated; it stands in line {first_line} already")
            }
            Fault::CutOff { line, sequence } => {
                let last = sequence.map_or("no event at all".to_owned(), |sequence| format!("sequence {sequence}"));
                write!(f, "line {line}: the file is cut off after {last}: its closing line is missing")
            }
            Fault::Frame { line, why } => write!(f, "line {line}: {why}"),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whose journal.
    pub source: Option<String>,
    /// First sequence that must be there.
    pub first: Option<u64>,
    /// Last sequence that must be there.
    pub last: Option<u64>,
    /// Events read.
    pub events: u64,
    /// The closing line, when there is one; its signature is the caller's to check.
    pub closing: Option<Closing>,
    /// What is wrong, in order of the lines; empty when nothing is.
    pub faults: Vec<Fault>,
}

/// Reads an export line by line. Keeps about 150 bytes an event.
#[derive(Debug, Default)]
pub struct Verifier {
    line: u64,
    header: Option<Header>,
    records: Vec<Record>,
    closing: Option<Last>,
    /// Events of another source than the header's; no fault of theirs when the header is what was changed.
    foreign: Vec<Fault>,
    faults: Vec<Fault>,
}

#[derive(Debug)]
struct Last {
    line: u64,
    closing: Closing,
    is_whole: bool,
}

#[derive(Debug, Clone)]
struct Record {
    line: u64,
    hash: [u8; 32],
    /// `None` when the line is no event any more.
    told: Option<(u64, [u8; 32])>,
    /// The sequence it must have had.
    sequence: u64,
}

#[derive(Deserialize)]
struct Told {
    source: String,
    sequence: String,
    prevhash: String,
}

impl Verifier {
    /// Takes the next line, without its line feed.
    pub fn line(&mut self, bytes: &[u8]) {
        self.line += 1;
        let line = self.line;
        if line == 1 {
            match serde_json::from_slice::<Header>(bytes) {
                Ok(header) if header.gengfu_export == 1 => self.header = Some(header),
                Ok(header) => self.frame(format!(
                    "the file has form {}, and this program knows form 1: use a newer one",
                    header.gengfu_export
                )),
                Err(error) => self.frame(format!("no header of an export: {error}; make one with `gengfu export`")),
            }
            return;
        }
        if self.closing.is_some() {
            self.frame("something follows the closing line".to_owned());
            return;
        }
        if let Ok(closing) = serde_json::from_slice::<Closing>(bytes) {
            let is_whole = closing.is_whole(bytes);
            if !is_whole {
                self.frame("the closing line was changed: it does not have its own hash".to_owned());
            }
            self.closing = Some(Last { line, closing, is_whole });
            return;
        }
        if serde_json::from_slice::<Header>(bytes).is_ok() {
            self.frame("a header stands in the middle of the file".to_owned());
            return;
        }
        let told = serde_json::from_slice::<Told>(bytes).ok().and_then(|told| self.read(line, &told));
        self.records.push(Record { line, hash: chain::hash(bytes), told, sequence: 0 });
    }

    fn read(&mut self, line: u64, told: &Told) -> Option<(u64, [u8; 32])> {
        let sequence = told.sequence.parse().ok()?;
        let mut prev_hash = [0; 32];
        hex::decode_to_slice(&told.prevhash, &mut prev_hash).ok()?;
        if self.header.as_ref().is_some_and(|header| header.source != told.source) {
            let why = format!("it is of {}, not of the header's source", told.source);
            self.foreign.push(Fault::Changed { line, sequence: Some(sequence), why });
        }
        Some((sequence, prev_hash))
    }

    fn frame(&mut self, why: String) {
        self.faults.push(Fault::Frame { line: self.line, why });
    }

    /// The judgement, after the last line.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        let events = self.records.len() as u64;
        if self.line == 0 {
            self.faults.push(Fault::Frame { line: 1, why: "the file is empty".into() });
        }
        self.find_repeated();
        let anchor = self.anchor();
        self.place(anchor);
        let order = self.find_reordered();
        self.judge_links(&order, anchor);
        self.judge_end(&order);
        self.faults.sort_by_key(line_of);
        self.faults.dedup();
        let closing = self.closing.map(|last| last.closing);
        Verdict {
            source: self.header.as_ref().map(|header| header.source.clone()),
            first: self.header.as_ref().map(|header| header.first),
            last: closing.as_ref().map(|closing| closing.statement.sequence),
            events,
            closing,
            faults: self.faults,
        }
    }

    /// The closing line's statement, unless it was changed.
    fn said(&self) -> Option<&ClosingStatement> {
        self.closing.as_ref().filter(|last| last.is_whole).map(|last| &last.closing.statement)
    }

    /// First sequence and the hash it must carry. The closing line says it again, and has a hash of its own: it is believed first.
    fn anchor(&mut self) -> Option<(u64, [u8; 32])> {
        let told = self.header.clone();
        let said = self.said().map(|said| said.header.clone());
        if told.is_some() && said.is_some() && told != said {
            let why = "the header was changed: it is not what the closing line says of it".to_owned();
            self.faults.push(Fault::Frame { line: 1, why });
        } else {
            self.faults.append(&mut self.foreign);
        }
        let header = said.or(told)?;
        let mut anchor = [0; 32];
        hex::decode_to_slice(&header.anchor, &mut anchor).ok()?;
        Some((header.first, anchor))
    }

    fn find_repeated(&mut self) {
        let mut seen: HashMap<[u8; 32], u64> = HashMap::new();
        let (mut kept, faults) = (Vec::with_capacity(self.records.len()), &mut self.faults);
        for record in self.records.drain(..) {
            match seen.get(&record.hash) {
                Some(first_line) => {
                    let sequence = record.told.map_or(0, |(sequence, _)| sequence);
                    faults.push(Fault::Repeated { line: record.line, sequence, first_line: *first_line });
                }
                None => {
                    seen.insert(record.hash, record.line);
                    kept.push(record);
                }
            }
        }
        self.records = kept;
    }

    /// Says which sequence each record must have: what its predecessor, found by its hash, says; else what it says itself; a line that is
    /// no event any more is what should stand there.
    fn place(&mut self, anchor: Option<(u64, [u8; 32])>) {
        let by_hash: HashMap<[u8; 32], u64> =
            self.records.iter().filter_map(|record| Some((record.hash, record.told?.0))).collect();
        let mut before = anchor.map_or(0, |(first, _)| first.saturating_sub(1));
        for record in &mut self.records {
            let next = before.saturating_add(1);
            record.sequence = match record.told {
                None => next,
                Some((sequence, prev)) => {
                    let by_link = match (by_hash.get(&prev), anchor) {
                        (Some(of_the_one_before), _) => Some(of_the_one_before.saturating_add(1)),
                        (None, Some((first, anchor))) if prev == anchor => Some(first),
                        _ => None,
                    };
                    match by_link {
                        // The place in the file decides which of the two was changed.
                        Some(must) if must != sequence && sequence == next => {
                            let why = format!("its prevhash is that of sequence {must}");
                            self.faults.push(Fault::Changed { line: record.line, sequence: Some(sequence), why });
                            sequence
                        }
                        Some(must) if must != sequence => {
                            let why = format!("it says sequence {sequence}");
                            self.faults.push(Fault::Changed { line: record.line, sequence: Some(must), why });
                            must
                        }
                        _ => sequence,
                    }
                }
            };
            if record.told.is_none() {
                let why = "it is no event any more".to_owned();
                self.faults.push(Fault::Changed { line: record.line, sequence: Some(next), why });
            }
            before = record.sequence;
        }
    }

    /// Records in order of their sequences, one each; those that stand elsewhere are told.
    fn find_reordered(&mut self) -> Vec<Record> {
        let mut carried: HashSet<[u8; 32]> = self.records.iter().filter_map(|record| Some(record.told?.1)).collect();
        carried.extend(self.head().map(|(_, head)| head));
        let mut sorted: BTreeMap<u64, Record> = BTreeMap::new();
        for record in &self.records {
            let Some(first) = sorted.get(&record.sequence) else {
                sorted.insert(record.sequence, record.clone());
                continue;
            };
            // Of two, the one is right whose hash another carries.
            let (right, wrong) = if carried.contains(&record.hash) { (record, first) } else { (first, record) };
            let told = |fault: &Fault| matches!(fault, Fault::Changed { line, .. } if *line == wrong.line);
            if !self.faults.iter().any(told) {
                let why = format!("line {} has this sequence too, and another content", right.line);
                self.faults.push(Fault::Changed { line: wrong.line, sequence: Some(wrong.sequence), why });
            }
            let right = right.clone();
            sorted.insert(right.sequence, right);
        }
        let present: Vec<&Record> = {
            let mut lines: Vec<&Record> = sorted.values().collect();
            lines.sort_by_key(|record| record.line);
            lines
        };
        for (stands, expected) in present.iter().zip(sorted.keys()) {
            if stands.sequence != *expected {
                let (line, sequence, expected) = (stands.line, stands.sequence, *expected);
                self.faults.push(Fault::Reordered { line, sequence, expected });
            }
        }
        sorted.into_values().collect()
    }

    /// Gaps, and links that do not hold. A record whose link to either side is broken was changed itself; one whose own `prevhash` alone
    /// does not fit was not: the one before it was.
    fn judge_links(&mut self, order: &[Record], anchor: Option<(u64, [u8; 32])>) {
        let mut expected = anchor;
        let mut before: Option<&Record> = None;
        for (index, record) in order.iter().enumerate() {
            let next = order.get(index + 1);
            if let Some((must, _)) = expected
                && record.sequence > must
            {
                self.faults.push(Fault::Removed { from: must, to: record.sequence - 1, before_line: record.line });
                expected = None;
            }
            let forward_breaks = match next {
                Some(next) if next.sequence == record.sequence.saturating_add(1) => {
                    next.told.is_some_and(|(_, prev)| prev != record.hash)
                }
                Some(_) => false,
                None => self.head().is_some_and(|(sequence, head)| sequence == record.sequence && head != record.hash),
            };
            let backward_breaks = match (record.told, expected) {
                (Some((_, prev)), Some((_, must))) => prev != must,
                _ => false,
            };
            if forward_breaks && record.told.is_some() {
                // The next one's own `prevhash` may be what was changed: then its link to its successor is broken as well.
                let next_is_it = next.is_some_and(|next| self.is_broken_on_both_sides(order, index + 1, next));
                if backward_breaks || !next_is_it {
                    let why = "its bytes do not have the hash that its successor carries".to_owned();
                    self.changed(record, why);
                }
            } else if backward_breaks && before.is_none() {
                let why = "its prevhash is not the anchor in the header".to_owned();
                self.changed(record, why);
            }
            expected = Some((record.sequence.saturating_add(1), record.hash));
            before = Some(record);
        }
    }

    fn is_broken_on_both_sides(&self, order: &[Record], index: usize, record: &Record) -> bool {
        match order.get(index + 1) {
            Some(next) => {
                next.sequence == record.sequence.saturating_add(1)
                    && next.told.is_some_and(|(_, prev)| prev != record.hash)
            }
            None => self.head().is_some_and(|(sequence, head)| sequence == record.sequence && head != record.hash),
        }
    }

    fn changed(&mut self, record: &Record, why: String) {
        let (line, sequence) = (record.line, Some(record.sequence));
        let told = self.faults.iter().any(|fault| matches!(fault, Fault::Changed { line: told, .. } if *told == line));
        if !told {
            self.faults.push(Fault::Changed { line, sequence, why });
        }
    }

    fn head(&self) -> Option<(u64, [u8; 32])> {
        let said = self.said()?;
        let mut head = [0; 32];
        hex::decode_to_slice(&said.head, &mut head).ok()?;
        Some((said.sequence, head))
    }

    fn judge_end(&mut self, order: &[Record]) {
        let last = order.last().map(|record| record.sequence);
        let Some(Last { line, closing, is_whole }) = &self.closing else {
            self.faults.push(Fault::CutOff { line: self.line.max(1), sequence: last });
            return;
        };
        let (line, said) = (*line, &closing.statement);
        let (first, sequence) = (said.header.first, said.sequence);
        if !is_whole {
            return;
        }
        let next = last.map_or(first, |last| last.saturating_add(1));
        if next <= sequence {
            self.faults.push(Fault::Removed { from: next, to: sequence, before_line: line });
        } else if next > sequence.saturating_add(1) {
            let why = format!("the closing line says {sequence} is the last, and {} is there", next - 1);
            self.faults.push(Fault::Frame { line, why });
        }
    }
}

fn line_of(fault: &Fault) -> u64 {
    match fault {
        Fault::Removed { before_line: line, .. }
        | Fault::Changed { line, .. }
        | Fault::Reordered { line, .. }
        | Fault::Repeated { line, .. }
        | Fault::CutOff { line, .. }
        | Fault::Frame { line, .. } => *line,
    }
}

/// Judges a whole export.
#[must_use]
pub fn verify(file: &[u8]) -> Verdict {
    let mut verifier = Verifier::default();
    for line in file.strip_suffix(b"\n").unwrap_or(file).split(|byte| *byte == b'\n').filter(|_| !file.is_empty()) {
        verifier.line(line);
    }
    verifier.finish()
}

#[cfg(test)]
mod tests;
