//! Who the gateway is towards brokers and authorities: its key, its certificate, and whom it believes.
//!
//! Owns keys made on this box, the two slots of certificates (`current` and `next`), the rule by which time enters the check of a broker's
//! certificate, enrolment and renewal, and the words for everything that can be wrong with any of them. Refuses to print a key, to let one
//! leave the box, to promote a certificate that no broker has taken yet, and to keep alarms from going out because a clock is not set.
//!
//! | module | owns |
//! |---|---|
//! | [`folder`] | file steps that survive a power cut |
//! | [`key`] | the private key and the request made from it |
//! | [`certificate`] | what a certificate says; PKCS#7 bags |
//! | [`slots`] | `current`, `next`, and the way from one to the other |
//! | [`time`] | which time a certificate is checked against |
//! | [`tls`] | rustls' configuration, made anew when files change |
//! | [`fault`] | what went wrong in TLS, by kind, with a remedy |
//! | [`est`] | enrolment over HTTPS (RFC 7030) |
//! | [`expiry`] | how near the end is, and when to renew |
//! | [`keeper`] | the task that watches, renews, tries and promotes |
//! | [`status`] | what a technician sees |
//! | [`words`] | what can be wrong, in Chinese too |

pub mod certificate;
pub mod est;
pub mod expiry;
pub mod fault;
pub mod folder;
pub mod keeper;
pub mod key;
pub mod slots;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod tls;
pub mod words;

pub use fault::{TlsFault, TlsFaultKind};
pub use keeper::{Enrolment, Keeper, KeeperParts, Prove, Verdict};
pub use status::IdentityStatus;
pub use time::TrustedTime;
pub use tls::{Credentials, Own, Source, TlsFiles, TlsProblem};

/// The folder of the slots, in the gateway's data folder.
pub const FOLDER: &str = "identity";

/// The common name in a gateway's certificate, and so its user name at a broker: `<site>.<gateway>`. Slugs have no dots, so it is never
/// ambiguous.
#[must_use]
pub fn common_name(site: &gengfu_contract::slug::Slug, gateway: &gengfu_contract::slug::Slug) -> String {
    format!("{site}.{gateway}")
}
