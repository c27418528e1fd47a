//! The configuration as something that changes while nobody is at the box.
//!
//! A bundle is a configuration with a manifest and a signature. It comes from the centre (`config` command) or from somebody at the box
//! (`gengfu config try`), is checked as a whole, put on the disk, and tried: the gateway starts again with it. It stays only when the uplink comes back;
//! else the gateway goes back to what it had, by itself, and says why. `docs/configuration.md` tells it to people.
//!
//! | module | owns |
//! |---|---|
//! | [`bundle`] | the file's bytes and its signature |
//! | [`check`] | whether a bundle may be tried |
//! | [`slots`] | what is kept on the disk, and that a power cut leaves one valid choice |
//! | [`begin`] | which configuration a start takes |
//! | [`trial`] | when a trial has succeeded or failed |
//! | [`keeper`] | the task: takes bundles, watches the trial, asks for the restart, gives the last word |
//! | [`status`] | what a technician sees |
//!
//! Owns that road. Refuses to read what a configuration means ([`crate::config`] does), and to change the file on the box: who edits that file wins.

pub mod begin;
pub mod bundle;
mod check;
pub mod keeper;
pub mod slots;
pub mod status;
#[cfg(test)]
mod tests;
pub mod trial;

use std::fs::File;

pub use begin::{Started, begin, in_use_now, trial_failed};
pub use check::Waivers;
pub use keeper::{Keeper, KeeperParts, Order};
pub use status::ConfigStatus;

use gengfu_outbox::Outbox;
use slots::Slots;

/// The folder of bundles, in the gateway's data folder.
pub const FOLDER: &str = "config";
/// The gateway ends with this code to be started again with another configuration (EX_TEMPFAIL of sysexits.h: "try again").
pub const RESTART_CODE: u8 = 75;
/// A configuration on trial may start so often: power cuts and kills during a trial are no fault of it, a crash in each start is.
pub const STARTS_MAX: u32 = 3;

/// The folder of bundles as the running gateway holds it; nobody else changes it meanwhile.
#[derive(Debug)]
pub struct Settings {
    slots: Slots,
    file: begin::BoxFile,
    /// This start is a trial.
    is_trial: bool,
    /// Let go at the end of the process, whatever ends it.
    _lock: Option<File>,
}

impl Settings {
    /// Whether the configuration of this start is on trial.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// The last change was commanded, and the command has no last word in the journal yet.
    #[must_use]
    pub fn owes_last_word(&self, outbox: &Outbox) -> bool {
        let cmd_id = self.slots.state().last.as_ref().and_then(|last| last.asked.cmd_id.as_ref());
        // A store that cannot be read journals no word either; the next start asks again.
        cmd_id.is_some_and(|id| crate::decide::owes_last_word(outbox, id).unwrap_or(false))
    }

    /// Brings a status up to date with what is on the disk.
    fn show(&self, status: &mut ConfigStatus) {
        let state = self.slots.state();
        status.highest = state.highest;
        status.last.clone_from(&state.last);
        status.trial = state.trial.as_ref().map(status::TrialStatus::of);
    }
}
