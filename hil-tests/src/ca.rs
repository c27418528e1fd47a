//! Throw-away certificate authorities: certificates of brokers and clients with any validity, and revocation lists. It owns making them
//! and the lines of a mosquitto listener that uses them; it refuses to be used outside tests: its keys lie in memory and in temporary folders.
//!
//! Names follow the product: a gateway's common name is `<site>.<gateway>`, the centre's is `dispatch`.
#![expect(clippy::disallowed_methods, reason = "a certificate that lasts some seconds is dated by the machine's clock")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use time::OffsetDateTime;

use crate::{Result, RigError};

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From 2020 to 2048.
    Now,
    /// Over since 2002. So long ago because a gateway with an unset clock refuses only what had ended before it was built.
    Expired,
    /// From 2048 on.
    NotYet,
    /// From `since` before now until `left` after now; whole seconds.
    Around {
        /// Began so long ago.
        since: Duration,
        /// Ends so far ahead.
        left: Duration,
    },
}

impl Validity {
    fn bounds(self) -> (OffsetDateTime, OffsetDateTime) {
        let now = OffsetDateTime::from(SystemTime::now());
        match self {
            Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2048, 1, 1)),
            Validity::Expired => (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1)),
            Validity::NotYet => (date_time_ymd(2048, 1, 1), date_time_ymd(2049, 1, 1)),
            Validity::Around { since, left } => (now - since, now + left),
        }
    }
}

/// A certificate with its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate alone, without its authority's.
    pub cert_pem: String,
    /// Its key, PKCS#8.
    pub key_pem: String,
    serial: u64,
}

impl Leaf {
    /// A pair that another authority made (its number is not known here: it cannot be put on a list).
    #[must_use]
    pub fn from_pem(cert_pem: String, key_pem: String) -> Self {
        Self { cert_pem, key_pem, serial: 0 }
    }

    /// Writes `<stem>.crt` and `<stem>.key` (mode 0600) into `dir`, replacing what was there; gives both paths.
    ///
    /// # Errors
    /// When the folder takes no files.
    pub fn write(&self, dir: &Path, stem: &str) -> Result<(PathBuf, PathBuf)> {
        let (cert, key) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
        write(&cert, &self.cert_pem)?;
        write(&key, &self.key_pem)?;
        Ok((cert, key))
    }
}

/// An authority. Its key is P-256 and is gone with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    serial: AtomicU64,
}

impl Authority {
    /// A new authority, valid from 2000 to 2049.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = params(name, &[], (date_time_ymd(2000, 1, 1), date_time_ymd(2049, 12, 31)))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).map_err(|e| RigError::failed("make a CA", e))?;
        Ok(Self { issuer, serial: AtomicU64::new(1) })
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for these host names and addresses.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server(&self, names: &[&str], validity: Validity) -> Result<Leaf> {
        self.leaf(names.first().copied().unwrap_or("server"), names, validity, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate; brokers take the common name for the user.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub fn client(&self, common_name: &str, validity: Validity) -> Result<Leaf> {
        self.leaf(common_name, &[], validity, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A revocation list, PEM, in force from 2020 to 2048.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn crl(&self, revoked: &[&Leaf]) -> Result<String> {
        let entry = |leaf: &&Leaf| RevokedCertParams {
            serial_number: SerialNumber::from(leaf.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2048, 1, 1),
            crl_number: SerialNumber::from(self.serial.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).and_then(|list| list.pem());
        signed.map_err(|e| RigError::failed("sign a revocation list", e))
    }

    fn leaf(
        &self,
        common_name: &str,
        names: &[&str],
        validity: Validity,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Leaf> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let key = new_key()?;
        let mut params = params(common_name, names, validity.bounds())?;
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &self.issuer);
        let cert = cert.map_err(|e| RigError::failed(format!("sign a certificate for {common_name}"), e))?;
        Ok(Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem(), serial })
    }
}

/// A TLS listener of mosquitto that asks every client for a certificate and takes its common name for the user: lines for
/// [`crate::broker::BrokerOptions::extra`]. The broker's plain listener stays beside it, for the desk and for the question whether it is up.
#[must_use]
pub fn mosquitto_listener(
    port: u16,
    ca: &Path,
    (cert, key): (&Path, &Path),
    revoked: Option<&Path>,
    client_certificates: bool,
) -> Vec<String> {
    let mut lines = vec![
        format!("listener {port} 127.0.0.1"),
        format!("cafile {}", ca.display()),
        format!("certfile {}", cert.display()),
        format!("keyfile {}", key.display()),
        format!("require_certificate {client_certificates}"),
        format!("use_identity_as_username {client_certificates}"),
        "tls_version tlsv1.2".to_owned(),
    ];
    lines.extend(revoked.map(|file| format!("crlfile {}", file.display())));
    lines
}

/// Writes a file that only its owner may read, replacing it in one step.
///
/// # Errors
/// When the folder takes no files.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let done = fs::write(&new, text)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o600)))
        .and_then(|()| fs::rename(&new, path));
    done.map_err(|e| RigError::failed(format!("write {}", path.display()), e))
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| RigError::failed("make a key", e))
}

fn params(common_name: &str, names: &[&str], bounds: (OffsetDateTime, OffsetDateTime)) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(|e| RigError::failed("name a certificate", e))?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    (params.not_before, params.not_after) = bounds;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::run;
    use std::process::Command;

    /// openssl is another implementation: what it says of our certificates, brokers will say.
    #[test]
    fn openssl_agrees_on_who_is_valid_expired_foreign_and_revoked() {
        if crate::skip::need::find_tool("openssl").is_none() {
            panic!("openssl is part of the tools that `make setup` installs");
        }
        let dir = tempfile::tempdir().unwrap();
        let (ours, foreign) = (Authority::new("ours").unwrap(), Authority::new("ours").unwrap());
        let good = ours.client("site.gw-1", Validity::Now).unwrap();
        let lost = ours.client("site.gw-2", Validity::Now).unwrap();
        write(&dir.path().join("ca.pem"), &ours.pem()).unwrap();
        write(&dir.path().join("crl.pem"), &ours.crl(&[&lost]).unwrap()).unwrap();
        let verdict = |leaf: &Leaf| {
            leaf.write(dir.path(), "leaf").unwrap();
            let mut openssl = Command::new("openssl");
            openssl.current_dir(dir.path());
            openssl.args(["verify", "-CAfile", "ca.pem", "-CRLfile", "crl.pem", "-crl_check", "leaf.crt"]);
            run(openssl).map(|_| ()).map_err(|e| e.to_string())
        };
        verdict(&good).unwrap();
        assert!(verdict(&lost).unwrap_err().contains("revoked"));
        let expired = ours.client("site.gw-1", Validity::Expired).unwrap();
        assert!(verdict(&expired).unwrap_err().contains("expired"));
        assert!(verdict(&ours.client("a.b", Validity::NotYet).unwrap()).unwrap_err().contains("not yet valid"));
        let stranger = foreign.client("site.gw-1", Validity::Now).unwrap();
        verdict(&stranger).unwrap_err();
    }
}
