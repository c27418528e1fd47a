//! What a technician sees of the gateway's identity.
//!
//! Owns the shape of `gengfu identity --json` and the findings. Holds no secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Facts;
use super::expiry::Level;
use super::slots::RefusedNext;

/// Where the certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// No certificate of ours: the broker asks for a password or for nothing.
    Nobody,
    /// Files that an installer put there.
    Files,
    /// Made on this box, in two slots.
    Managed,
}

/// A certificate that is being tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStatus {
    /// What it says.
    pub certificate: Facts,
    /// Trials so far.
    pub trials: u32,
    /// How the last one ended; absent before the first.
    pub last: Option<String>,
}

/// The gateway's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Where the certificate comes from.
    pub keeping: Keeping,
    /// The common name that a certificate of this gateway has.
    pub name: String,
    /// The certificate in use; absent without one.
    pub current: Option<Facts>,
    /// How near its end is.
    pub level: Level,
    /// When it will be renewed; absent where nobody renews it by itself.
    pub renews_at: Option<Timestamp>,
    /// The one being tried.
    pub next: Option<NextStatus>,
    /// The last one given up.
    pub refused: Option<RefusedNext>,
    /// What is wrong with the files, or with the renewal.
    pub problem: Option<String>,
    /// Whether the clock is synchronised; without, certificates are checked against the last time that was known.
    pub clock_known: bool,
}

impl IdentityStatus {
    /// Before the first look.
    #[must_use]
    pub fn starting(keeping: Keeping, name: String) -> Self {
        Self {
            keeping,
            name,
            current: None,
            level: Level::Good,
            renews_at: None,
            next: None,
            refused: None,
            problem: None,
            clock_known: false,
        }
    }

    /// What is wrong, each with its remedy.
    #[must_use]
    pub fn findings(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let renew = match (self.keeping, self.renews_at) {
            (Keeping::Managed, Some(_)) => {
                "the gateway renews it by itself; see what keeps it from that (`gengfu identity`)"
            }
            (Keeping::Managed, None) => "`gengfu enrol request`, have it signed, `gengfu enrol install`",
            _ => "put a new certificate where uplink.tls.cert_file points; it is taken without a restart",
        };
        if let Some(current) = &self.current
            && self.level != Level::Good
        {
            found.push((self.level.detail(current).en, renew.to_owned()));
        }
        if let Some(problem) = &self.problem {
            // Each of these says its own remedy after the semicolon.
            let (what, remedy) = problem.split_once("; ").unwrap_or((problem, "see docs/security.md"));
            found.push((what.to_owned(), remedy.to_owned()));
        }
        if let Some(refused) = &self.refused {
            let what =
                format!("the new certificate {} was given up at {}: {}", refused.serial, refused.at, refused.reason);
            found.push((
                what,
                "the old one stays in use; have the broker and the authority agree, then enrol again".to_owned(),
            ));
        }
        found
    }
}
