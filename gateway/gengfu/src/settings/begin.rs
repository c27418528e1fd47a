//! Which configuration the gateway starts with.
//!
//! Owns the choice at a start: the file on the box, the bundle in use, or the bundle being tried; and the count of starts that ends a trial whose
//! configuration lets the gateway crash. Promises that whatever lies in the folder there is a configuration to start with, as long as the file on the box is a
//! good one. Refuses to judge whether a trial has succeeded.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;
use gengfu_contract::words::Text;
use jiff::Timestamp;

use super::bundle::digest;
use super::slots::{Entry, SlotError, Slots};
use super::status::ConfigStatus;
use super::{FOLDER, STARTS_MAX, Settings};
use crate::config::{Config, ConfigError};

/// What a gateway starts with.
#[derive(Debug)]
pub struct Started {
    /// The configuration.
    pub config: Config,
    /// Where it comes from, for `status`; absent for a configuration that was handed over ready.
    pub status: Option<ConfigStatus>,
    /// What changes it; absent where bundles are not taken.
    pub settings: Option<Settings>,
}

impl From<Config> for Started {
    /// A configuration that was read elsewhere and stays as it is.
    fn from(config: Config) -> Self {
        Self { config, status: None, settings: None }
    }
}

/// The file on the box.
#[derive(Debug, Clone)]
pub(super) struct BoxFile {
    pub path: PathBuf,
    /// Relative paths in any configuration start here.
    pub base: PathBuf,
    pub sha256: String,
}

impl BoxFile {
    fn read(path: &Path) -> Result<(Self, Config), ConfigError> {
        let (text, base) = Config::read_text(path)?;
        let config =
            Config::parse(&text, &base).map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })?;
        Ok((Self { path: path.to_owned(), base, sha256: digest(text.as_bytes()) }, config))
    }

    /// Somebody has changed it since it was read.
    pub fn is_changed(&self) -> bool {
        std::fs::read(&self.path).map_or(true, |bytes| digest(&bytes) != self.sha256)
    }
}

/// Chooses the configuration for this start. Of a trial the start is counted first.
///
/// # Errors
/// When the file on the box cannot be used, or another gateway uses the data folder. Nothing that lies in the folder of bundles is a reason not to start.
pub fn begin(path: &Path, now: Timestamp) -> anyhow::Result<Started> {
    let (file, own) = BoxFile::read(path)?;
    let place = own.gateway.data_dir.join(FOLDER);
    let plain = |own: Config, file: &BoxFile| {
        let status = ConfigStatus::of_file(&file.path, &file.sha256, now);
        Started { config: own, status: Some(status), settings: None }
    };
    if own.changes.trusted.is_empty() && !place.exists() {
        return Ok(plain(own, &file));
    }
    let data_dir = &own.gateway.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("create {}; check gateway.data_dir and its permissions", data_dir.display()))?;
    let opened = Slots::open(&place).and_then(|slots| Ok((slots, lock(&place)?)));
    let (slots, lock) = match opened {
        Ok((slots, Some(lock))) => (slots, lock),
        Ok((_, None)) => anyhow::bail!(
            "another gateway uses {}; stop it first (systemctl status gengfu), or name another data_dir",
            data_dir.display()
        ),
        Err(error) => {
            tracing::error!(%error, "configurations that came in bundles cannot be read; the file on the box is used");
            let mut started = plain(own, &file);
            if let Some(status) = &mut started.status {
                status.fail(&error.to_string());
            }
            return Ok(started);
        }
    };
    Ok(choose(slots, lock, file, own, now))
}

/// For as long as the handle lives nobody else changes the folder; `None` when somebody else does.
fn lock(place: &Path) -> Result<Option<File>, SlotError> {
    let fail = |source| SlotError::Disk { doing: "lock the folder", folder: place.to_owned(), source };
    let folder = File::open(place).map_err(fail)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

fn choose(mut slots: Slots, lock: File, file: BoxFile, own: Config, now: Timestamp) -> Started {
    let mut problem = None;
    if slots.is_spoilt() {
        problem = Some("the record of configurations that came in bundles cannot be read".to_owned());
    }
    let of = |entry: &Entry| entry.file_sha256.clone();
    let known = slots.state().trial.as_ref().map(|trial| of(&trial.entry));
    let known = known.or_else(|| slots.state().current.as_ref().map(of));
    let file_counts = known.is_some_and(|known| known != file.sha256);
    if file_counts {
        tracing::warn!(file = %file.path.display(), "the file on the box was changed: it counts, and not what came in bundles");
        note(&mut problem, slots.file_counts(changed_since(), now));
    }
    // Also when that could not be written down.
    let tried = if file_counts { None } else { try_next(&mut slots, &file, &own, now, &mut problem) };
    let is_trial = tried.is_some();
    let chosen = tried.or_else(|| if file_counts { None } else { in_use(&slots, &file, &own, &mut problem) });
    let (config, mut status) = match chosen {
        Some((config, entry)) => {
            tracing::info!(counter = entry.counter, is_trial, "the configuration is that of a bundle");
            (config, ConfigStatus::of_bundle(&file.path, &entry))
        }
        None => (own, ConfigStatus::of_file(&file.path, &file.sha256, now)),
    };
    status.takes_bundles = !config.changes.trusted.is_empty();
    if let Some(problem) = &problem {
        tracing::error!("{problem}");
        status.fail(problem);
    }
    let settings = Settings { slots, file, is_trial, _lock: Some(lock) };
    settings.show(&mut status);
    Started { config, status: Some(status), settings: Some(settings) }
}

/// The configuration of a trial, if there is one that may go on. Its start is counted on the disk before it is used.
fn try_next(
    slots: &mut Slots,
    file: &BoxFile,
    own: &Config,
    now: Timestamp,
    problem: &mut Option<String>,
) -> Option<(Config, Entry)> {
    let trial = slots.state().trial.clone()?;
    if trial.starts >= STARTS_MAX {
        let reason = Text {
            zh: format!("网关以此配置启动 {STARTS_MAX} 次均未确认上行即中断，已恢复原配置"),
            en: format!(
                "the gateway started {STARTS_MAX} times with it and ended each time before the uplink was proven"
            ),
        };
        note(problem, slots.give_up(reason, now));
        return None;
    }
    match load(slots, &trial.entry, file, own) {
        Ok(config) => {
            if let Err(error) = slots.count_start() {
                // Uncounted, a configuration that crashes would be tried for ever.
                problem.get_or_insert(format!("a trial is put off: {error}"));
                return None;
            }
            Some((config, trial.entry))
        }
        Err(why) => {
            let reason =
                Text { zh: format!("待试用配置无法使用：{why}"), en: format!("it cannot be used: {why}") };
            note(problem, slots.give_up(reason, now));
            None
        }
    }
}

/// The configuration in use; the one before it when that cannot be read; none when the file on the box counts.
fn in_use(slots: &Slots, file: &BoxFile, own: &Config, problem: &mut Option<String>) -> Option<(Config, Entry)> {
    let state = slots.state();
    let current = state.current.as_ref()?;
    for entry in [Some(current), state.previous.as_ref()].into_iter().flatten() {
        match load(slots, entry, file, own) {
            Ok(config) => return Some((config, entry.clone())),
            Err(why) => drop(problem.get_or_insert(format!("configuration {} cannot be used: {why}", entry.counter))),
        }
    }
    None
}

fn load(slots: &Slots, entry: &Entry, file: &BoxFile, own: &Config) -> Result<Config, String> {
    let text = slots.text(entry).map_err(|error| error.to_string())?;
    let config = Config::parse(&text, &file.base).map_err(|faults| super::check::summary(&faults))?;
    super::check::same_gateway(own, &config).map_err(|text| text.en)?;
    Ok(config)
}

fn note(problem: &mut Option<String>, result: Result<(), SlotError>) {
    if let Err(error) = result {
        problem.get_or_insert(error.to_string());
    }
}

pub(super) fn changed_since() -> Text {
    Text {
        zh: "网关上的配置文件已被现场修改，以该文件为准".into(),
        en: "the file on the box was changed since; it counts".into(),
    }
}

/// A gateway that was started with a configuration on trial has ended with a fault: the trial is over. False when there was no trial.
///
/// # Errors
/// When the folder cannot be written: then the count of starts ends the trial.
pub fn trial_failed(path: &Path, fault: &str, now: Timestamp) -> anyhow::Result<bool> {
    let (_, own) = BoxFile::read(path)?;
    let place = own.gateway.data_dir.join(FOLDER);
    if !place.exists() {
        return Ok(false);
    }
    let mut slots = Slots::open(&place)?;
    let Some(_lock) = lock(&place)? else { return Ok(false) };
    if slots.state().trial.as_ref().is_none_or(|trial| trial.starts == 0) {
        return Ok(false);
    }
    let reason = Text {
        zh: format!("网关无法以此配置运行：{fault}"),
        en: format!("the gateway cannot run with it: {fault}"),
    };
    slots.give_up(reason, now)?;
    Ok(true)
}

/// The configuration a running gateway has, for commands that look for its socket or its folders. Changes nothing; where the folder of bundles may not be
/// read, the file on the box is told.
///
/// # Errors
/// When the file on the box cannot be used.
pub fn in_use_now(path: &Path) -> Result<Config, ConfigError> {
    let (file, own) = BoxFile::read(path)?;
    let place = own.gateway.data_dir.join(FOLDER);
    let Some(slots) = place.exists().then(|| Slots::open(&place).ok()).flatten() else { return Ok(own) };
    let state = slots.state();
    let tried = state.trial.as_ref().filter(|trial| trial.starts > 0).map(|trial| &trial.entry);
    let entry = tried.or(state.current.as_ref()).filter(|entry| entry.file_sha256 == file.sha256);
    let config = entry.and_then(|entry| load(&slots, entry, &file, &own).ok());
    Ok(config.unwrap_or(own))
}
