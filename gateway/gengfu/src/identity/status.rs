//! What a technician sees of the gateway's identity.
//!
//! Owns the shape of `gengfu identity --json` and the findings. Holds no secret.

use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Facts;
use super::expiry::Level;
use super::slots::RefusedNext;
use super::words::parted;

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
    /// The same in Chinese.
    #[serde(default)]
    pub problem_zh: Option<String>,
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
            problem_zh: None,
            clock_known: false,
        }
    }

    /// What is wrong, each with its remedy.
    #[must_use]
    pub fn findings(&self) -> Vec<(Text, Text)> {
        let mut found = Vec::new();
        let both = |zh: &str, en: &str| Text { zh: zh.to_owned(), en: en.to_owned() };
        let renew = match (self.keeping, self.renews_at) {
            (Keeping::Managed, Some(_)) => both(
                "网关会自动续期；查看未能续期的原因（gengfu identity）",
                "the gateway renews it by itself; see what keeps it from that (`gengfu identity`)",
            ),
            (Keeping::Managed, None) => both(
                "gengfu enrol request，签发后 gengfu enrol install",
                "`gengfu enrol request`, have it signed, `gengfu enrol install`",
            ),
            _ => both(
                "将新证书放到 uplink.tls.cert_file；无需重启即可生效",
                "put a new certificate where uplink.tls.cert_file points; it is taken without a restart",
            ),
        };
        if let Some(current) = &self.current
            && self.level != Level::Good
        {
            found.push((self.level.detail(current), renew));
        }
        if let Some(en) = &self.problem {
            // Each of these says its own remedy after the semicolon.
            let text = Text { zh: self.problem_zh.clone().unwrap_or_else(|| en.clone()), en: en.clone() };
            found.push(parted(&text, &both("见 docs/security.md", "see docs/security.md")));
        }
        if let Some(refused) = &self.refused {
            let RefusedNext { serial, at, reason } = refused;
            let what = Text {
                zh: format!("新证书 {serial} 已于 {at} 放弃：{reason}"),
                en: format!("the new certificate {serial} was given up at {at}: {reason}"),
            };
            let remedy = both(
                "旧证书继续使用；请使服务器与签发机构一致后重新登记",
                "the old one stays in use; have the broker and the authority agree, then enrol again",
            );
            found.push((what, remedy));
        }
        found
    }
}
