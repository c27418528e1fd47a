//! Sealing a picture: a key of its own for each, and the box's key around that.
//!
//! Owns the two formats and everything secret about them. XChaCha20-Poly1305 (24-byte nonces, so that random ones never meet) seals a picture under a
//! random key that is used once; the box's key seals that key. Both are bound to the picture's id, number and SHA-256: a sealed file under another's name does
//! not open. Refuses to print a key; keys are wiped from memory when they are dropped.
//!
//! ```text
//! picture:  "GFSEAL1\n"  SHA-256 of the plain picture (32)  nonce (24)  ciphertext and tag (bytes + 16)
//! key:      "GFWRAP1\n"  SHA-256 of the plain picture (32)  nonce (24)  wrapped key and tag (32 + 16)
//! ```

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = 8 + HASH_BYTES + NONCE_BYTES;
const PICTURE_MAGIC: &[u8; 8] = b"GFSEAL1\n";
const KEY_MAGIC: &[u8; 8] = b"GFWRAP1\n";

/// The key of this box: it opens the keys of all its pictures. Made on the box, never leaves it.
#[derive(Clone)]
pub struct BoxKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for BoxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxKey(…)")
    }
}

/// Why something does not open or cannot be sealed. Which file it was, the caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Random,
    /// Too short, or not of this format.
    #[error("it is cut short or no sealed file")]
    Format,
    /// Tag, key or binding do not fit.
    #[error("it was changed, belongs to another picture, or was sealed with another key")]
    Refused,
}

/// What a sealed picture is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// Alarm or command.
    pub id: &'a str,
    /// Number of the picture.
    pub n: u32,
}

/// A picture that was sealed: two files.
#[derive(Debug)]
pub struct Sealed {
    /// The picture.
    pub picture: Vec<u8>,
    /// Its key, wrapped.
    pub key: Vec<u8>,
}

impl BoxKey {
    /// A new one.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self(random()?))
    }

    /// From the bytes of its file; `None` when they are not as many as a key has.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// For the file it is kept in, and nothing else.
    pub(super) fn reveal(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Seals a picture under a key of its own.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal(&self, binding: Binding<'_>, picture: &[u8]) -> Result<Sealed, SealError> {
        let sha256: [u8; HASH_BYTES] = Sha256::digest(picture).into();
        let own = random::<KEY_BYTES>()?;
        Ok(Sealed {
            picture: lock(&own, PICTURE_MAGIC, binding, &sha256, picture)?,
            key: lock(&self.0, KEY_MAGIC, binding, &sha256, own.as_slice())?,
        })
    }

    /// Opens a sealed picture; gives it with its SHA-256, which was checked.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, binding: Binding<'_>, key: &[u8], picture: &[u8]) -> Result<(Vec<u8>, [u8; 32]), SealError> {
        let (own, of_key) = unlock(&self.0, KEY_MAGIC, binding, key)?;
        let own = Zeroizing::new(own);
        let own: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(own.as_slice().try_into().map_err(|_| SealError::Format)?);
        let (plain, sha256) = unlock(&own, PICTURE_MAGIC, binding, picture)?;
        let genuine: [u8; HASH_BYTES] = Sha256::digest(&plain).into();
        if genuine != sha256 || of_key != sha256 {
            return Err(SealError::Refused);
        }
        Ok((plain, sha256))
    }
}

/// A wrapped key that is (still) one, by its look: not overwritten, not cut short.
#[must_use]
pub fn is_key(bytes: &[u8]) -> bool {
    bytes.len() == HEAD_BYTES + KEY_BYTES + 16 && bytes.starts_with(KEY_MAGIC)
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, SealError> {
    let mut bytes = Zeroizing::new([0; N]);
    OsRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

/// What is authenticated beside the bytes: format, id, number, hash. The id's length goes first, so that no two bindings read alike.
fn associated(magic: &[u8; 8], binding: Binding<'_>, sha256: &[u8; HASH_BYTES]) -> Vec<u8> {
    let mut data = magic.to_vec();
    data.extend_from_slice(&(binding.id.len() as u64).to_be_bytes());
    data.extend_from_slice(binding.id.as_bytes());
    data.extend_from_slice(&binding.n.to_be_bytes());
    data.extend_from_slice(sha256);
    data
}

fn lock(
    key: &[u8; KEY_BYTES],
    magic: &[u8; 8],
    binding: Binding<'_>,
    sha256: &[u8; HASH_BYTES],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let nonce = random::<NONCE_BYTES>()?;
    let aad = associated(magic, binding, sha256);
    let cipher = XChaCha20Poly1305::new(key.into());
    let sealed = cipher.encrypt(XNonce::from_slice(nonce.as_slice()), Payload { msg: plain, aad: &aad });
    let sealed = sealed.map_err(|_| SealError::Refused)?;
    Ok([magic.as_slice(), sha256, nonce.as_slice(), &sealed].concat())
}

fn unlock(
    key: &[u8; KEY_BYTES],
    magic: &[u8; 8],
    binding: Binding<'_>,
    bytes: &[u8],
) -> Result<(Vec<u8>, [u8; HASH_BYTES]), SealError> {
    if bytes.len() < HEAD_BYTES || !bytes.starts_with(magic) {
        return Err(SealError::Format);
    }
    let (head, sealed) = bytes.split_at(HEAD_BYTES);
    let sha256: [u8; HASH_BYTES] = head[8..8 + HASH_BYTES].try_into().map_err(|_| SealError::Format)?;
    let aad = associated(magic, binding, &sha256);
    let cipher = XChaCha20Poly1305::new(key.into());
    let nonce = XNonce::from_slice(&head[8 + HASH_BYTES..]);
    let plain = cipher.decrypt(nonce, Payload { msg: sealed, aad: &aad }).map_err(|_| SealError::Refused)?;
    Ok((plain, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: &[u8] = b"\xff\xd8\xff\xe0 a picture of a street \xff\xd9";
    const BINDING: Binding<'static> = Binding { id: "01ALARM", n: 1 };

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_picture_only() {
        let (ours, other) = (BoxKey::generate().unwrap(), BoxKey::generate().unwrap());
        let sealed = ours.seal(BINDING, PICTURE).unwrap();
        assert_eq!(ours.open(BINDING, &sealed.key, &sealed.picture).unwrap().0, PICTURE);
        assert_eq!(other.open(BINDING, &sealed.key, &sealed.picture), Err(SealError::Refused));
        for binding in [Binding { id: "01ALARM", n: 2 }, Binding { id: "01OTHER", n: 1 }] {
            assert_eq!(ours.open(binding, &sealed.key, &sealed.picture), Err(SealError::Refused));
        }
        let second = ours.seal(BINDING, PICTURE).unwrap();
        assert_ne!(second.picture, sealed.picture, "a key and a nonce of its own");
        assert_eq!(ours.open(BINDING, &second.key, &sealed.picture), Err(SealError::Refused), "the key of another");
    }

    #[test]
    fn no_byte_can_be_changed_and_nothing_cut_off() {
        let key = BoxKey::generate().unwrap();
        let sealed = key.seal(BINDING, PICTURE).unwrap();
        for at in 0..sealed.picture.len() {
            let mut changed = sealed.picture.clone();
            changed[at] ^= 1;
            assert!(key.open(BINDING, &sealed.key, &changed).is_err(), "byte {at} of the picture");
            assert!(key.open(BINDING, &sealed.key, &sealed.picture[..at]).is_err(), "cut at {at}");
        }
        for at in 0..sealed.key.len() {
            let mut changed = sealed.key.clone();
            changed[at] ^= 1;
            assert!(key.open(BINDING, &changed, &sealed.picture).is_err(), "byte {at} of the key");
            assert!(key.open(BINDING, &sealed.key[..at], &sealed.picture).is_err(), "key cut at {at}");
        }
    }

    #[test]
    fn nothing_of_the_picture_or_a_key_is_to_be_seen() {
        let key = BoxKey::generate().unwrap();
        let sealed = key.seal(BINDING, PICTURE).unwrap();
        let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        for file in [&sealed.picture, &sealed.key] {
            assert!(!holds(file, &PICTURE[..8]) && !holds(file, b"street") && !holds(file, key.reveal()));
        }
        assert_eq!(format!("{key:?}"), "BoxKey(…)");
        assert!(is_key(&sealed.key) && !is_key(&vec![0; sealed.key.len()]) && !is_key(&sealed.key[1..]));
    }
}
