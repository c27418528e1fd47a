//! Reads a TOML table key by key and collects every fault.
//!
//! Owns the way from text to checked values: each fault names line, key path and remedy, and reading goes on after it, so that one
//! `gengfu check` shows everything. Unknown keys are faults. Knows nothing of what the keys mean.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use gengfu_contract::slug::Slug;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// Line in the file, from 1.
    pub line: usize,
    /// Key path, as in `camera[0].zone[1].limit`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}; {}", self.line, self.key, self.problem, self.remedy)
    }
}

/// Everything found wrong so far.
#[derive(Debug)]
pub struct Faults<'t> {
    text: &'t str,
    found: Vec<Fault>,
}

impl<'t> Faults<'t> {
    /// No faults yet in `text`.
    #[must_use]
    pub fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Records a fault at a byte offset of the text.
    pub fn push(&mut self, at: usize, key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) {
        let line = 1 + self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        self.found.push(Fault { line, key: key.into(), problem: problem.into(), remedy: remedy.into() });
    }

    /// The faults, in the file's order.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Fault> {
        self.found.sort();
        self.found
    }
}

/// One table being read. Call [`Section::finish`] at the end: what was not asked for is unknown.
#[derive(Debug)]
pub struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    path: String,
    at: usize,
    asked: BTreeSet<&'static str>,
}

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl<'a, 'i> Section<'a, 'i> {
    /// The file's top.
    #[must_use]
    pub fn root(table: &'a Spanned<DeTable<'i>>) -> Self {
        Self { table: table.get_ref(), path: String::new(), at: 0, asked: BTreeSet::new() }
    }

    /// Byte offset of this section in the text.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Key path of `key` in this section.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Records a fault at `key` of this section.
    pub fn fault(&self, faults: &mut Faults, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let at = self.table.get(key).map_or(self.at, |v| v.span().start);
        faults.push(at, self.key(key), problem, remedy);
    }

    fn get(&mut self, key: &'static str) -> Option<Value<'a, 'i>> {
        self.asked.insert(key);
        self.table.get(key)
    }

    fn wrong(&self, faults: &mut Faults, key: &str, value: Value, wanted: &str) {
        let found = match value.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(_) => "an integer".to_owned(),
            DeValue::Float(_) => "a float".to_owned(),
            DeValue::Boolean(b) => b.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        faults.push(
            value.span().start,
            self.key(key),
            format!("{found} is not accepted here"),
            format!("write {wanted}"),
        );
    }

    /// A value turned by `take`; `wanted` says what would be accepted, for the remedy.
    pub fn parsed<T>(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        wanted: &str,
        take: impl FnOnce(&DeValue) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let taken = take(value.get_ref());
        if taken.is_none() {
            self.wrong(faults, key, value, wanted);
        }
        taken
    }

    /// Marks a key as required: a fault when it is absent.
    pub fn required<T>(&self, faults: &mut Faults, key: &'static str, value: Option<T>, example: &str) -> Option<T> {
        if value.is_none() && !self.table.contains_key(key) {
            faults.push(self.at, self.key(key), "is missing", format!("add it, as in `{key} = {example}`"));
        }
        value
    }

    /// Text.
    pub fn text(&mut self, faults: &mut Faults, key: &'static str) -> Option<String> {
        self.parsed(faults, key, "text in quotes", |v| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned))
    }

    /// A name that may stand in a topic.
    pub fn slug(&mut self, faults: &mut Faults, key: &'static str) -> Option<Slug> {
        let value = self.get(key)?;
        match value.get_ref().as_str().map(Slug::new) {
            Some(Ok(slug)) => Some(slug),
            _ => {
                self.wrong(faults, key, value, "1 to 48 of a-z, 0-9 and inner hyphens, as in \"block-7\"");
                None
            }
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, faults: &mut Faults, key: &'static str, default: bool) -> bool {
        self.parsed(faults, key, "true or false", |v| v.as_bool()).unwrap_or(default)
    }

    /// A whole number within bounds.
    pub fn integer(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.parsed(faults, key, &wanted, |v| integer_of(v).filter(|n| range.contains(n)))
    }

    /// A number within bounds.
    pub fn number(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Option<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.parsed(faults, key, &wanted, |v| number_of(v).filter(|n| range.contains(n)))
    }

    /// A duration with its unit, as in "90s", "15m", "24h", "250ms".
    pub fn duration(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let wanted = format!(
            "a time with its unit from \"{}\" to \"{}\", as in \"90s\" or \"15m\"",
            show_duration(*range.start()),
            show_duration(*range.end())
        );
        self.parsed(faults, key, &wanted, |v| v.as_str().and_then(parse_duration).filter(|d| range.contains(d)))
    }

    /// One of a closed list of words.
    pub fn one_of<T: Copy>(&mut self, faults: &mut Faults, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let wanted = words.iter().map(|(w, _)| format!("\"{w}\"")).collect::<Vec<_>>().join(" or ");
        self.parsed(faults, key, &wanted, |v| {
            let text = v.as_str()?;
            words.iter().find(|(word, _)| *word == text).map(|(_, t)| *t)
        })
    }

    /// A list whose elements `take` accepts.
    pub fn list<T>(
        &mut self,
        faults: &mut Faults,
        key: &'static str,
        wanted: &str,
        take: impl Fn(&DeValue) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(faults, key, value, &format!("a list of {wanted}"));
            return None;
        };
        let mut taken = Vec::with_capacity(array.len());
        for (n, element) in array.iter().enumerate() {
            match take(element.get_ref()) {
                Some(t) => taken.push(t),
                None => self.wrong(faults, &format!("{key}[{n}]"), element, wanted),
            }
        }
        Some(taken)
    }

    /// A polygon: at least three points `[x, y]`, each 0 to 1 of the picture.
    pub fn polygon(&mut self, faults: &mut Faults, key: &'static str) -> Option<Vec<[f32; 2]>> {
        let points = self.list(faults, key, "points [x, y] with x and y from 0 to 1 of the picture", |v| {
            let pair = v.as_array()?;
            let mut numbers = pair.iter().map(|n| number_of(n.get_ref()).filter(|n| (0.0..=1.0).contains(n)));
            let (x, y) = (numbers.next()??, numbers.next()??);
            #[expect(clippy::cast_possible_truncation, reason = "0 to 1 needs no more digits than f32 has")]
            numbers.next().is_none().then_some([x as f32, y as f32])
        })?;
        if points.len() < 3 {
            self.fault(faults, key, "a polygon of fewer than three points", "give at least three [x, y]");
            return None;
        }
        Some(points)
    }

    /// A sub-table; absent reads as empty.
    pub fn section(&mut self, faults: &mut Faults, key: &'static str) -> Option<Section<'a, 'i>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Section { table, path: self.key(key), at: value.span().start, asked: BTreeSet::new() })
            }
            _ => {
                self.wrong(faults, key, value, &format!("a table, as in `[{}]`", self.key(key)));
                None
            }
        }
    }

    /// An array of tables; absent reads as empty.
    pub fn sections(&mut self, faults: &mut Faults, key: &'static str) -> Vec<Section<'a, 'i>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(faults, key, value, &format!("tables, each as `[[{}]]`", self.key(key)));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (n, element) in array.iter().enumerate() {
            let path = format!("{}[{n}]", self.key(key));
            match element.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section { table, path, at: element.span().start, asked: BTreeSet::new() });
                }
                _ => self.wrong(faults, &format!("{key}[{n}]"), element, "a table"),
            }
        }
        sections
    }

    /// Everything not asked for is unknown, and refused.
    pub fn finish(self, faults: &mut Faults) {
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(name) {
                let known = self.asked.iter().copied().collect::<Vec<_>>().join(", ");
                let remedy = match self.asked.iter().copied().min_by_key(|k| distance(k, name)) {
                    Some(near) if distance(near, name) <= 2 => format!("did you mean `{near}`?"),
                    _ => format!("remove it; known here: {known}"),
                };
                faults.push(key.span().start.min(value.span().start), self.key(name), "unknown key", remedy);
            }
        }
    }
}

fn integer_of(value: &DeValue) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A TOML integer or float as a number.
#[must_use]
pub fn number_of(value: &DeValue) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => integer_of(value).and_then(|n| i32::try_from(n).ok()).map(f64::from),
    }
}

/// Reads "250ms", "90s", "15m", "24h", "7d".
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].trim_start() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}

/// Writes a duration the way [`parse_duration`] reads it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        _ if !ms.is_multiple_of(1000) => format!("{ms}ms"),
        _ if ms > 0 && ms.is_multiple_of(86_400_000) => format!("{}d", ms / 86_400_000),
        _ if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ => format!("{}s", ms / 1000),
    }
}

/// Levenshtein distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(ca != cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, ms) in [("250ms", 250), ("90s", 90_000), ("15m", 900_000), ("24h", 86_400_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(parse_duration(&show_duration(Duration::from_millis(ms))), Some(Duration::from_millis(ms)));
        }
        for text in ["", "90", "s", "-1s", "1.5h", "3 parsecs", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn near_misses_are_recognised() {
        assert_eq!(distance("limit", "limt"), 1);
        assert_eq!(distance("broker", "broker"), 0);
        assert!(distance("camera", "node") > 2);
    }
}
