//! What is said of the configuration: which is in use, since when, what is being tried, how the last change ended.
//!
//! Owns the shape of it (stable in `status --json`) and what of it is a finding. Refuses to show the configuration itself: it names paths of secrets.

use std::path::{Path, PathBuf};

use gengfu_contract::words::Text;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::STARTS_MAX;
use super::slots::{Asked, Ending, Entry, Need, Trial, Verdict};

/// A change that was rolled back is a finding for so long.
const TOLD_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Where the configuration in use comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The file on the box.
    File,
    /// A signed bundle.
    Bundle,
}

/// The configuration of the running gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Where it comes from.
    pub source: Source,
    /// The file on the box, also where a bundle is in use.
    pub file: PathBuf,
    /// SHA-256 of the configuration in use, hex.
    pub sha256: String,
    /// Number of its bundle.
    pub counter: Option<u64>,
    /// When that was packed.
    pub created_at: Option<Timestamp>,
    /// Who signed it: a public key, hex.
    pub signer: Option<String>,
    /// Since when it is in use or tried; for the file, since this start.
    pub since: Timestamp,
    /// Highest number of a bundle that was ever tried here; only higher ones are taken.
    pub highest: u64,
    /// Bundles are taken from the centre and at the box.
    pub takes_bundles: bool,
    /// What is being tried, or will be at the next start.
    pub trial: Option<TrialStatus>,
    /// The last change and its end.
    pub last: Option<Verdict>,
    /// Why another configuration is in use than should be.
    pub problem: Option<String>,
}

/// A trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// Number of the bundle.
    pub counter: u64,
    /// SHA-256 of its configuration, hex.
    pub sha256: String,
    /// Since when.
    pub since: Timestamp,
    /// For whom.
    pub asked: Asked,
    /// What keeps it.
    pub need: Need,
    /// It has so long at each start.
    pub window_s: u64,
    /// Of that is left at this start.
    pub left_s: u64,
    /// Starts so far.
    pub starts: u32,
    /// At most.
    pub starts_max: u32,
}

impl TrialStatus {
    pub(super) fn of(trial: &Trial) -> Self {
        Self {
            counter: trial.entry.counter,
            sha256: trial.entry.config_sha256.clone(),
            since: trial.entry.since,
            asked: trial.asked.clone(),
            need: trial.need,
            window_s: trial.window_s,
            left_s: trial.window_s,
            starts: trial.starts,
            starts_max: STARTS_MAX,
        }
    }
}

impl ConfigStatus {
    pub(super) fn of_file(file: &Path, sha256: &str, now: Timestamp) -> Self {
        Self {
            source: Source::File,
            file: file.to_owned(),
            sha256: sha256.to_owned(),
            counter: None,
            created_at: None,
            signer: None,
            since: now,
            highest: 0,
            takes_bundles: false,
            trial: None,
            last: None,
            problem: None,
        }
    }

    pub(super) fn of_bundle(file: &Path, entry: &Entry) -> Self {
        Self {
            source: Source::Bundle,
            counter: Some(entry.counter),
            created_at: Some(entry.created_at),
            signer: Some(entry.signer.clone()),
            ..Self::of_file(file, &entry.config_sha256, entry.since)
        }
    }

    pub(super) fn fail(&mut self, problem: &str) {
        self.problem.get_or_insert(problem.to_owned());
    }

    /// What is wrong with it and what to do, in both languages.
    #[must_use]
    pub fn findings(&self, now: Timestamp) -> Vec<(Text, Text)> {
        let mut found = Vec::new();
        if let Some(problem) = &self.problem {
            let what = match self.source {
                Source::File => ("网关上的配置文件", "the file on the box"),
                Source::Bundle => ("较早的配置包", "an earlier bundle"),
            };
            found.push((
                Text {
                    zh: format!("正在使用{}：{problem}", what.0),
                    en: format!("the configuration in use is {}: {problem}", what.1),
                },
                Text {
                    zh: "检查磁盘后重新下发配置".into(),
                    en: "check the disk, then send the configuration again".into(),
                },
            ));
        }
        let failed = self.last.as_ref().filter(|last| last.ending == Ending::RolledBack);
        if let Some(last) = failed.filter(|last| now.duration_since(last.at) < TOLD_FOR) {
            let reason = last.reason.clone().unwrap_or_else(|| Text { zh: String::new(), en: String::new() });
            found.push((
                Text {
                    zh: format!("配置包 {} 已回退：{}", last.counter, reason.zh),
                    en: format!("configuration {} was rolled back: {}", last.counter, reason.en),
                },
                Text {
                    zh: "修正后用更高编号重新打包下发；24 小时后不再提示".into(),
                    en: "correct it, pack it with a higher number, send it again; this is told for 24 h".into(),
                },
            ));
        }
        found
    }
}
