//! What is kept of configurations that came in bundles: the one in use, the one before it, the one being tried.
//!
//! One small file says which is which, and every change of mind is one replacement of that file. What lies in the folder:
//!
//! | file | what |
//! |---|---|
//! | `state.json` | which slot is in use, was before, is being tried; the highest number seen; how the last trial ended |
//! | `a.bundle`, `b.bundle`, `c.bundle` | the bundles as they came; a bundle is written into a slot that nothing names, and synced, before the state names it |
//!
//! Owns these files and the order of the steps between them. Promises: after a power cut at any step the folder says what it said before or what it says
//! after, never a third thing, and every bundle that it names is whole. Refuses to judge a configuration and to start anything.

use std::io;
use std::path::{Path, PathBuf};

use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bundle::{Bundle, BundleError, digest};
use crate::identity::folder::{Folder, RealFolder};

const STATE: &str = "state.json";
/// A state that could not be read, kept for whoever wants to know why.
const SPOILT: &str = "state.spoilt";

/// A place for one bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// `a.bundle`.
    A,
    /// `b.bundle`.
    B,
    /// `c.bundle`.
    C,
}

impl Slot {
    const ALL: [Slot; 3] = [Slot::A, Slot::B, Slot::C];

    fn file(self) -> &'static str {
        match self {
            Slot::A => "a.bundle",
            Slot::B => "b.bundle",
            Slot::C => "c.bundle",
        }
    }
}

/// A bundle that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub slot: Slot,
    /// Of the bundle's bytes, hex.
    pub bundle_sha256: String,
    /// Of the configuration in it, hex.
    pub config_sha256: String,
    /// Its number.
    pub counter: u64,
    /// When it was packed, as it says.
    pub created_at: Timestamp,
    /// Who signed it: a public key, hex.
    pub signer: String,
    /// Of the file on the box when this came, hex. When somebody has changed that file since, the file counts.
    pub file_sha256: String,
    /// Since when it is in use, or tried.
    pub since: Timestamp,
}

/// Who wanted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The centre's command; absent for somebody at the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd_id: Option<String>,
    /// Who, as the centre names its people, or as they said at the box.
    pub operator: String,
}

/// What proves that a configuration reaches the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// A receipt of the centre's software: there were receipts before.
    Receipt,
    /// A connection on which the broker has taken the subscription to commands: there were no receipts before.
    Subscription,
    /// Nothing but that the gateway runs: somebody at the box said so.
    Nothing,
}

/// A configuration that is being tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Which.
    pub entry: Entry,
    /// For whom.
    pub asked: Asked,
    /// What keeps it.
    pub need: Need,
    /// It has so long, each time the gateway starts with it; by the configuration it shall replace.
    pub window_s: u64,
    /// How often the gateway has started with it.
    pub starts: u32,
    /// Life-safety items that already waited for the centre when it was accepted.
    #[serde(default)]
    pub alarms_before: u64,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It has proven itself and is in use.
    Kept,
    /// It was given up; what was there before is in use.
    RolledBack,
    /// Somebody at the box went back to what was there before.
    TakenBack,
    /// The file on the box was changed since and counts.
    FileCounts,
}

/// The last change and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Number of the bundle it is about.
    pub counter: u64,
    /// Of the bundle's bytes, hex.
    pub bundle_sha256: String,
    /// For whom.
    pub asked: Asked,
    /// How it ended.
    pub ending: Ending,
    /// Why, unless it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// When.
    pub at: Timestamp,
}

/// `state.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Highest number that was ever taken for a trial.
    #[serde(default)]
    pub highest: u64,
    /// In use; the file on the box when absent.
    #[serde(default)]
    pub current: Option<Entry>,
    /// What was in use before `current`; the file on the box when absent.
    #[serde(default)]
    pub previous: Option<Entry>,
    /// Being tried.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// The last change.
    #[serde(default)]
    pub last: Option<Verdict>,
}

impl State {
    fn names(&self, slot: Slot) -> bool {
        let trial = self.trial.as_ref().map(|trial| &trial.entry);
        [self.current.as_ref(), self.previous.as_ref(), trial].into_iter().flatten().any(|entry| entry.slot == slot)
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The disk.
    #[error("cannot {doing} in {folder}: {source}; check the disk, and that the gateway's user owns that folder")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// Where.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A bundle that is named and not what it was.
    #[error("{file} is not the bundle that was put there ({why}); check the disk, then send the configuration again")]
    Spoilt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The folder.
pub struct Slots {
    folder: Box<dyn Folder>,
    place: PathBuf,
    state: State,
    is_spoilt: bool,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("place", &self.place).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Slots {
    /// Opens the folder, making it when it is not there. Changes nothing in it. A state that cannot be read counts as none; see [`Slots::is_spoilt`].
    ///
    /// # Errors
    /// [`SlotError::Disk`].
    pub fn open(place: &Path) -> Result<Self, SlotError> {
        let fail = |source| SlotError::Disk { doing: "make a folder", folder: place.to_owned(), source };
        let folder = RealFolder::open(place).map_err(fail)?;
        Self::over(Box::new(folder), place)
    }

    pub(super) fn over(folder: Box<dyn Folder>, place: &Path) -> Result<Self, SlotError> {
        let fail = |source| SlotError::Disk { doing: "read", folder: place.to_owned(), source };
        let bytes = folder.read(STATE).map_err(fail)?;
        let state = bytes.map(|bytes| serde_json::from_slice::<State>(&bytes));
        let (state, is_spoilt) = match state {
            None => (State::default(), false),
            Some(Ok(state)) => (state, false),
            Some(Err(_)) => (State::default(), true),
        };
        Ok(Self { folder, place: place.to_owned(), state, is_spoilt })
    }

    /// What it says.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state was there and could not be read: bundles that were in use are not known any more, and neither is the highest number.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        self.is_spoilt
    }

    /// The configuration of a bundle that the state names.
    ///
    /// # Errors
    /// When it cannot be read or is not the one that was put there.
    pub fn text(&self, entry: &Entry) -> Result<String, SlotError> {
        let name = entry.slot.file();
        let spoilt = |why: String| SlotError::Spoilt { file: self.place.join(name), why };
        let fail = |source| SlotError::Disk { doing: "read", folder: self.place.clone(), source };
        let bytes = self.folder.read(name).map_err(fail)?.ok_or_else(|| spoilt("it is gone".into()))?;
        if digest(&bytes) != entry.bundle_sha256 {
            return Err(spoilt("its SHA-256 has changed".into()));
        }
        let text = Bundle::from_bytes(&bytes).and_then(|bundle| bundle.unsigned_text());
        text.map_err(|error: BundleError| spoilt(error.to_string()))
    }

    /// Takes a bundle for a trial. `trial.entry.slot` is chosen here.
    ///
    /// # Errors
    /// [`SlotError::Disk`]; then nothing has changed.
    pub fn offer(&mut self, bytes: &[u8], mut trial: Trial) -> Result<(), SlotError> {
        let free = Slot::ALL.into_iter().find(|slot| !self.state.names(*slot));
        // Two may be in use and before; a third is tried only when none is.
        trial.entry.slot = free.unwrap_or(Slot::C);
        let name = trial.entry.slot.file();
        self.step("write a bundle", |folder| {
            folder.write(name, bytes)?;
            folder.sync()
        })?;
        let highest = self.state.highest.max(trial.entry.counter);
        self.change("begin a trial", State { trial: Some(trial), highest, ..self.state.clone() })
    }

    /// Counts a start with the configuration that is tried, before anything of it is used.
    ///
    /// # Errors
    /// [`SlotError::Disk`]; then the trial must not go on.
    pub fn count_start(&mut self) -> Result<(), SlotError> {
        let mut state = self.state.clone();
        if let Some(trial) = &mut state.trial {
            trial.starts += 1;
        }
        self.change("count a start", state)
    }

    /// What is tried has proven itself.
    ///
    /// # Errors
    /// [`SlotError::Disk`]; then it is still tried.
    pub fn keep(&mut self, now: Timestamp) -> Result<(), SlotError> {
        let mut state = self.state.clone();
        let Some(trial) = state.trial.take() else { return Ok(()) };
        state.last = Some(verdict(&trial, Ending::Kept, None, now));
        state.previous = state.current.replace(Entry { since: now, ..trial.entry });
        self.change("keep a configuration", state)
    }

    /// What is tried has failed: back to what is in use.
    ///
    /// # Errors
    /// [`SlotError::Disk`]; then it is still tried.
    pub fn give_up(&mut self, reason: Text, now: Timestamp) -> Result<(), SlotError> {
        let mut state = self.state.clone();
        let Some(trial) = state.trial.take() else { return Ok(()) };
        state.last = Some(verdict(&trial, Ending::RolledBack, Some(reason), now));
        self.change("give a configuration up", state)
    }

    /// Somebody goes back to what was in use before `current`. False when there is no `current`.
    ///
    /// # Errors
    /// [`SlotError::Disk`]; then nothing has changed.
    pub fn take_back(&mut self, asked: Asked, reason: Text, now: Timestamp) -> Result<bool, SlotError> {
        let mut state = self.state.clone();
        let Some(current) = state.current.take() else { return Ok(false) };
        state.last = Some(Verdict {
            counter: current.counter,
            bundle_sha256: current.bundle_sha256,
            asked,
            ending: Ending::TakenBack,
            reason: Some(reason),
            at: now,
        });
        state.current = state.previous.take().map(|entry| Entry { since: now, ..entry });
        self.change("go back", state)?;
        Ok(true)
    }

    /// The file on the box was changed: it counts, and what came in bundles does not any more.
    ///
    /// # Errors
    /// [`SlotError::Disk`]; then nothing has changed.
    pub fn file_counts(&mut self, reason: Text, now: Timestamp) -> Result<(), SlotError> {
        let mut state = self.state.clone();
        let trial = state.trial.take();
        let (current, _) = (state.current.take(), state.previous.take());
        let asked = Asked { cmd_id: None, operator: String::new() };
        let last = trial.map(|trial| verdict(&trial, Ending::FileCounts, Some(reason.clone()), now)).or_else(|| {
            let Entry { counter, bundle_sha256, .. } = current?;
            Some(Verdict { counter, bundle_sha256, asked, ending: Ending::FileCounts, reason: Some(reason), at: now })
        });
        state.last = last.or(state.last);
        self.change("let the file count", state)
    }

    fn change(&mut self, doing: &'static str, state: State) -> Result<(), SlotError> {
        let text = serde_json::to_vec_pretty(&state).expect("a state has text keys only");
        let is_spoilt = self.is_spoilt;
        self.step(doing, |folder| {
            if is_spoilt && let Some(spoilt) = folder.read(STATE)? {
                folder.replace(SPOILT, &spoilt)?;
            }
            folder.replace(STATE, &text)
        })?;
        (self.state, self.is_spoilt) = (state, false);
        Ok(())
    }

    fn step(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut dyn Folder) -> io::Result<()>,
    ) -> Result<(), SlotError> {
        let place = self.place.clone();
        work(self.folder.as_mut()).map_err(|source| SlotError::Disk { doing, folder: place, source })
    }
}

fn verdict(trial: &Trial, ending: Ending, reason: Option<Text>, at: Timestamp) -> Verdict {
    let Entry { counter, bundle_sha256, .. } = trial.entry.clone();
    Verdict { counter, bundle_sha256, asked: trial.asked.clone(), ending, reason, at }
}
