//! What a certificate says, and whether it may become ours.
//!
//! Owns reading PEM and PKCS#7 ("certs-only", RFC 5652, as EST answers) and the check before a certificate is taken: it fits our key, names
//! this gateway, is signed by an authority we were given, and is valid. Refuses to judge by one of these alone.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::certificate::X509Certificate;

use super::key::{KeyError, PrivateKey};
use super::time::Reading;

/// Content type signedData, 1.2.840.113549.1.7.2 (RFC 5652, 5.1).
const SIGNED_DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whom it names; empty when nobody.
    pub common_name: String,
    /// Who signed it, as the authority calls itself.
    pub issuer: String,
    /// Its number, hex with colons: what `scripts/ca.sh revoke` takes.
    pub serial: String,
    /// Valid from,
    pub not_before_at: Timestamp,
    /// until.
    pub not_after_at: Timestamp,
}

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("{origin} holds no certificate that can be read ({why}); it begins with -----BEGIN CERTIFICATE-----")]
    Unreadable {
        /// Where it came from.
        origin: String,
        /// What is wrong.
        why: String,
    },
    /// It belongs to another key.
    #[error(
        "the certificate was made for another key than this gateway's; have the request that this box wrote last signed \
         (`gengfu enrol request` writes it again)"
    )]
    OtherKey,
    /// It names somebody else.
    #[error(
        "the certificate names \"{found}\", this gateway is \"{wanted}\"; ask the authority for one with that common name"
    )]
    OtherName {
        /// In it.
        found: String,
        /// Ours.
        wanted: String,
    },
    /// It is over.
    #[error("the certificate ended at {0}; have a new one signed (if that is not so, check this box's clock)")]
    Expired(Timestamp),
    /// It has not begun.
    #[error("the certificate begins at {0} only; check the authority's clock and this box's")]
    NotYet(Timestamp),
    /// No authority of ours signed it.
    #[error(
        "no authority of {authorities} signed the certificate ({why}); name its authority's file, or have it signed by the right one"
    )]
    OtherAuthority {
        /// The file of authorities.
        authorities: String,
        /// What the check says.
        why: String,
    },
    /// The key itself.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`]; `origin` names the place.
    pub fn of(certificate: &CertificateDer<'_>, origin: &str) -> Result<Self, CertificateError> {
        let fail = |why: String| CertificateError::Unreadable { origin: origin.to_owned(), why };
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| fail(e.to_string()))?;
        let at = |seconds| Timestamp::from_second(seconds).map_err(|e| fail(e.to_string()));
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
        Ok(Self {
            common_name: name.to_owned(),
            issuer: parsed.issuer().to_string(),
            serial: parsed.raw_serial_as_string(),
            not_before_at: at(parsed.validity().not_before.timestamp())?,
            not_after_at: at(parsed.validity().not_after.timestamp())?,
        })
    }
}

/// All certificates of a PEM text, in its order; at least one.
///
/// # Errors
/// [`CertificateError::Unreadable`]; `origin` names the text.
pub fn from_pem(text: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let fail = |why: String| CertificateError::Unreadable { origin: origin.to_owned(), why };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = read.map_err(|e| fail(format!("{e:?}")))?;
    for certificate in &certificates {
        Facts::of(certificate, origin)?;
    }
    if certificates.is_empty() { Err(fail("nothing of the kind is in it".into())) } else { Ok(certificates) }
}

/// The certificates in a PKCS#7 bag without signatures, DER.
///
/// # Errors
/// [`CertificateError::Unreadable`]; `origin` names the bytes.
pub fn from_pkcs7(der: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let fail = |why: &str| CertificateError::Unreadable { origin: origin.to_owned(), why: format!("PKCS#7: {why}") };
    let first = |bytes| parts(bytes).and_then(|all| all.into_iter().next());
    let (outer, _) = first(der).ok_or_else(|| fail("no DER"))?;
    let content = parts(outer.data).ok_or_else(|| fail("no content"))?;
    let [(kind, _), (wrapped, _)] = content.as_slice() else { return Err(fail("not a ContentInfo")) };
    if kind.data != SIGNED_DATA {
        return Err(fail("not signedData"));
    }
    let (signed, _) = first(wrapped.data).ok_or_else(|| fail("no SignedData"))?;
    let fields = parts(signed.data).ok_or_else(|| fail("no fields"))?;
    let bag = fields.iter().find(|(field, _)| field.class() == Class::ContextSpecific && field.tag() == Tag(0));
    let (bag, _) = bag.ok_or_else(|| fail("no certificates"))?;
    let inside = parts(bag.data).ok_or_else(|| fail("a torn bag"))?;
    let certificates: Vec<_> = inside.into_iter().map(|(_, raw)| CertificateDer::from(raw.to_vec())).collect();
    for certificate in &certificates {
        Facts::of(certificate, origin)?;
    }
    if certificates.is_empty() { Err(fail("an empty bag")) } else { Ok(certificates) }
}

/// The elements that follow each other in `bytes`, each with its raw bytes; `None` when they are torn.
fn parts(mut bytes: &[u8]) -> Option<Vec<(Any<'_>, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (rest, element) = Any::from_der(bytes).ok()?;
        let raw = bytes.get(..bytes.len().checked_sub(rest.len())?)?;
        found.push((element, raw));
        bytes = rest;
    }
    Some(found)
}

/// As PEM, in order.
#[must_use]
pub fn to_pem(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str(&pem::encode_config(
            &pem::Pem::new("CERTIFICATE", certificate.to_vec()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        ));
    }
    text
}

/// The moment at which a chain is checked: now, or for an unset clock the earliest moment at which all of it may be valid.
#[must_use]
pub fn moment(reading: Reading, chain: &[&CertificateDer<'_>]) -> Timestamp {
    let begins = chain.iter().filter_map(|c| Facts::of(c, "").ok()).map(|facts| facts.not_before_at).max();
    match reading {
        Reading::Known(now) => now,
        Reading::AtLeast(at) => begins.map_or(at, |begins| begins.max(at)),
    }
}

pub(super) fn unix(at: Timestamp) -> UnixTime {
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// What a certificate has to fit to become ours.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Our key.
    pub key: &'a PrivateKey,
    /// Our name.
    pub common_name: &'a str,
    /// Authorities that may have signed it,
    pub roots: &'a [CertificateDer<'static>],
    /// and where they are written.
    pub roots_origin: &'a str,
    /// The time.
    pub now: Reading,
}

impl Wanted<'_> {
    /// Checks `given` (any order, authorities among them or not) and gives the chain to show to a broker, our certificate first.
    ///
    /// # Errors
    /// The first thing that does not fit, by [`CertificateError`].
    pub fn check(
        &self,
        given: &[CertificateDer<'static>],
    ) -> Result<(Vec<CertificateDer<'static>>, Facts), CertificateError> {
        let provider = rustls::crypto::ring::default_provider();
        let ours = |certificate: &&CertificateDer<'static>| {
            let Ok(key) = self.key.der() else { return false };
            CertifiedKey::from_der(vec![(*certificate).clone()], key, &provider).is_ok()
        };
        let own = given.iter().find(ours).ok_or(CertificateError::OtherKey)?;
        let facts = Facts::of(own, "the certificate")?;
        if facts.common_name != self.common_name {
            let (found, wanted) = (facts.common_name, self.common_name.to_owned());
            return Err(CertificateError::OtherName { found, wanted });
        }
        if facts.not_after_at <= self.now.earliest() {
            return Err(CertificateError::Expired(facts.not_after_at));
        }
        if matches!(self.now, Reading::Known(now) if now < facts.not_before_at) {
            return Err(CertificateError::NotYet(facts.not_before_at));
        }
        let between: Vec<CertificateDer<'static>> =
            given.iter().filter(|c| *c != own && !self.roots.contains(c)).cloned().collect();
        self.signed_by_ours(own, &between)?;
        let mut chain = vec![own.clone()];
        chain.extend(between);
        Ok((chain, facts))
    }

    fn signed_by_ours(&self, own: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
        let foreign = |why: String| CertificateError::OtherAuthority { authorities: self.roots_origin.to_owned(), why };
        let mut store = RootCertStore::empty();
        for root in self.roots {
            store.add(root.clone()).map_err(|e| foreign(e.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|e| foreign(e.to_string()))?;
        let chain: Vec<&CertificateDer<'_>> = std::iter::once(own).chain(between).collect();
        let at = unix(moment(self.now, &chain));
        verifier.verify_client_cert(own, between, at).map(|_| ()).map_err(|e| foreign(e.to_string()))
    }
}

#[cfg(test)]
#[path = "tests/certificate.rs"]
mod tests;
