//! `[config]`: whose signed configurations this gateway takes, and how long each is tried.
//!
//! Owns these keys and their bounds. What is done with them is in [`crate::settings`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::{SECOND, resolve};
use super::reader::{Faults, Section};
use crate::signed::PublicKey;

/// `[config]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Public keys whose signature on a configuration is trusted; none: the configuration is changed at the box only.
    pub trusted: Vec<Trusted>,
    /// A new configuration has so long to reach the centre.
    pub trial: Duration,
}

impl Default for Changes {
    /// Nobody is trusted; five minutes.
    fn default() -> Self {
        Self { trusted: Vec::new(), trial: 300 * SECOND }
    }
}

/// A public key in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// The key itself: so that a bundle can bring the next one.
    Key(PublicKey),
    /// A file that has it.
    File(PathBuf),
}

pub(super) fn changes(f: &mut Faults, section: Option<Section>, base: &Path) -> Changes {
    let mut changes = Changes::default();
    let Some(mut s) = section else { return changes };
    let wanted = "a public key as 64 hex digits, or the name of a file that has it, in quotes";
    let trusted = s.list(f, "trusted", wanted, |v| {
        let text = v.as_str().filter(|text| !text.is_empty())?;
        Some(PublicKey::parse(text).map_or_else(|| Trusted::File(resolve(base, text)), Trusted::Key))
    });
    changes.trusted = trusted.unwrap_or_default();
    changes.trial = s.duration(f, "trial", 5 * SECOND..=3600 * SECOND).unwrap_or(changes.trial);
    s.finish(f);
    changes
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const BASE: &str =
        "[gateway]\nsite = \"s\"\nname = \"g\"\ndata_dir = \"d\"\n[uplink]\nbroker = \"h:1883\"\n[config]\n";

    #[test]
    fn keys_stand_in_the_configuration_or_in_files() {
        let key = "ab".repeat(32);
        let text = format!("{BASE}trusted = [\"{key}\", \"centre.pub\"]\ntrial = \"30s\"\n");
        let changes = Config::parse(&text, Path::new("/etc/gengfu")).unwrap().changes;
        let expected =
            vec![Trusted::Key(PublicKey([0xab; 32])), Trusted::File(PathBuf::from("/etc/gengfu/centre.pub"))];
        assert_eq!(changes, Changes { trusted: expected, trial: Duration::from_secs(30) });
    }

    #[test]
    fn nobody_is_trusted_by_default_and_a_trial_is_neither_instant_nor_endless() {
        let changes = |text: &str| Config::parse(&format!("{BASE}{text}"), Path::new("/x")).map(|c| c.changes);
        assert_eq!(changes("").unwrap(), Changes::default());
        for bad in ["trial = \"1s\"", "trial = \"2h\"", "trusted = \"x\"", "trusted = [\"\"]", "trust = []"] {
            assert_eq!(changes(bad).unwrap_err().len(), 1, "{bad}");
        }
    }
}
