//! The private key and what is made from it.
//!
//! Owns generation (P-256: OpenSSL, Go and Erlang brokers all take it, and a signature costs a small box under a millisecond), reading with
//! a look at who else may read, and the certificate request. Refuses to be printed, and a key file that everybody may read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// Largest key file, bytes; an RSA key of 16384 bits has some 13,000.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// A private key, PEM. Its memory is wiped when it is dropped; it never prints itself.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Zeroizing<String>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot read the key {path}: {source}; check the path, and that the gateway's user may read it")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Everybody may read it.
    #[error(
        "the key {path} can be read by every user of this machine (mode {mode:03o}): chmod 600 {path}, and if others use this machine, \
         have the certificate revoked and enrol anew"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No key in it.
    #[error("{0} holds no private key in PEM form; the file begins with -----BEGIN PRIVATE KEY-----")]
    NoKey(String),
    /// Cryptography refused.
    #[error("cannot {doing}: {why}")]
    Crypto {
        /// What was attempted.
        doing: &'static str,
        /// What the library says.
        why: String,
    },
}

impl PrivateKey {
    /// A new key, P-256.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let made = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        let pair = made.map_err(|e| KeyError::Crypto { doing: "make a key", why: e.to_string() })?;
        Ok(Self(Zeroizing::new(pair.serialize_pem())))
    }

    /// The first key in a PEM text; `origin` names the text in the error.
    ///
    /// # Errors
    /// [`KeyError::NoKey`].
    pub fn from_pem(text: &str, origin: &str) -> Result<Self, KeyError> {
        // Kept as its own block, so that a file with certificates around it compares equal by key.
        let begin = text.find("-----BEGIN ").filter(|_| PrivateKeyDer::from_pem_slice(text.as_bytes()).is_ok());
        let block = begin.and_then(|_| {
            let start = text.match_indices("-----BEGIN ").find(|(at, _)| {
                text[*at..].lines().next().is_some_and(|line| line.trim_end().ends_with("PRIVATE KEY-----"))
            })?;
            let rest = &text[start.0..];
            let end = rest.find("-----END ")?;
            let end = end + rest[end..].find('\n').map_or(rest.len() - end, |n| n + 1);
            Some(rest[..end].to_owned())
        });
        block.map(|text| Self(Zeroizing::new(text))).ok_or_else(|| KeyError::NoKey(origin.to_owned()))
    }

    /// Reads a key file that was given by an installer. Its group may read it, everybody may not.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let fail = |source| KeyError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        // Asked of the open file: what is read is what was looked at.
        let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(fail)?;
        Self::from_pem(&text, &path.display().to_string())
    }

    /// For the file it is kept in, and nothing else.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// For rustls.
    pub(super) fn der(&self) -> Result<PrivateKeyDer<'static>, KeyError> {
        PrivateKeyDer::from_pem_slice(self.0.as_bytes()).map_err(|_| KeyError::NoKey("the key's memory".into()))
    }

    /// A certificate request (PKCS#10) for this common name, PEM. It holds the public key only.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when the key is of a kind that cannot sign here (PKCS#8 with P-256, P-384, Ed25519 or RSA can).
    pub fn request(&self, common_name: &str) -> Result<String, KeyError> {
        let fail = |e: rcgen::Error| KeyError::Crypto { doing: "sign a certificate request", why: e.to_string() };
        let pair = KeyPair::from_pem(&self.0).map_err(fail)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(fail)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, common_name);
        params.distinguished_name = subject;
        params.serialize_request(&pair).and_then(|request| request.pem()).map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_prints_itself_and_two_are_never_the_same() {
        let (one, two) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(format!("{one:?}"), "PrivateKey(…)");
        let request = one.request("jinding.block-7").unwrap();
        assert!(request.contains("CERTIFICATE REQUEST") && !request.contains("PRIVATE"));
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.key");
        let key = PrivateKey::generate().unwrap();
        std::fs::write(&path, key.reveal()).unwrap();
        let mode = |bits| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bits)).unwrap();
        mode(0o644);
        let error = PrivateKey::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        for private in [0o600, 0o640, 0o400] {
            mode(private);
            assert_eq!(PrivateKey::from_file(&path).unwrap(), key, "{private:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_an_error_and_what_stands_around_one_does_not_matter() {
        let key = PrivateKey::generate().unwrap();
        let around = format!("# ours\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{}", key.reveal());
        assert_eq!(PrivateKey::from_pem(&around, "x").unwrap(), key);
        for wrong in
            ["", "-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
        {
            assert!(matches!(PrivateKey::from_pem(wrong, "x"), Err(KeyError::NoKey(_))), "{wrong}");
        }
        let text = key.reveal();
        for cut in 0..text.len() {
            let _ = PrivateKey::from_pem(&text[..cut], "x");
        }
    }
}
