//! Ed25519 keys (RFC 8032) under what people bring to a gateway: firmware of nodes, configurations.
//!
//! Owns the keys' forms: a private key is PKCS#8 in DER, a public key is 64 hexadecimal digits in a text file or in the configuration itself. Refuses to
//! print a private key, and to know what is signed: each kind of bundle owns its own bytes.

use std::fmt;
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads 64 hexadecimal digits, with white space around.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(hex::decode(text.trim()).ok()?.try_into().ok()?))
    }

    /// Reads the file that `keygen` writes.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`], [`KeyError::Public`].
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let unreadable = |error: std::io::Error| KeyError::Unreadable { file: file.to_owned(), why: error.to_string() };
        let bytes = std::fs::read(file).map_err(unreadable)?;
        Self::parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| KeyError::Public { file: file.to_owned() })
    }

    /// Whether the owner of this key signed these bytes.
    #[must_use]
    pub fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A private key. It has no text form.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, private part not shown)", self.public())
    }
}

impl SigningKey {
    /// Makes a new one. Gives back its PKCS#8 bytes, to be kept where only its owner reads.
    ///
    /// # Errors
    /// [`KeyError::Private`] when the system has no randomness.
    pub fn generate() -> Result<(Self, Vec<u8>), KeyError> {
        let bytes = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Private)?;
        Ok((Self::from_pkcs8(bytes.as_ref())?, bytes.as_ref().to_vec()))
    }

    /// Reads PKCS#8 DER, of ours or of `openssl genpkey -algorithm ed25519 -outform DER`.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Self).map_err(|_| KeyError::Private)
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.0.sign(bytes).as_ref());
        signature
    }
}

/// Why there is no key. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a private key.
    #[error("no Ed25519 private key in PKCS#8 DER; make one with `gengfu firmware keygen` or `gengfu config keygen`")]
    Private,
    /// Not a public key.
    #[error("{file}: no public key; expected 64 hex digits")]
    Public {
        /// The file.
        file: PathBuf,
    },
    /// No file.
    #[error("{file}: {why}; copy the public key there, readable by the gateway")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_forms_and_what_another_signed_is_not_its_own() {
        let (key, pkcs8) = SigningKey::generate().unwrap();
        assert_eq!(SigningKey::from_pkcs8(&pkcs8).unwrap().public(), key.public());
        assert_eq!(SigningKey::from_pkcs8(b"not a key").err(), Some(KeyError::Private));
        assert_eq!(PublicKey::parse(&format!(" {}\n", key.public())), Some(key.public()));
        let signature = key.sign(b"words");
        assert!(key.public().has_signed(b"words", &signature));
        assert!(!key.public().has_signed(b"word", &signature));
        let (other, _) = SigningKey::generate().unwrap();
        assert!(!other.public().has_signed(b"words", &signature));
        assert!(!format!("{key:?}").contains(&hex::encode(&pkcs8[16..48])));
    }
}
