//! A configuration as one signed file.
//!
//! Owns the file's bytes, what is said of the configuration in it, and signing. Refuses to say what a configuration means, and to use one that was not
//! verified: [`Verified`] is made only by [`Bundle::verify`]. The signature is over the manifest, which has the SHA-256 of the configuration; so every byte
//! is covered, and nothing is believed before the signature is.
//!
//! ```text
//! "GFCB" | format 1 u8 | 000000 | bytes of the manifest, u32 big-endian | manifest, JSON | signature, 64 bytes | configuration, TOML in UTF-8
//! ```

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::signed::{PublicKey, SIGNATURE_BYTES, SigningKey};

const MAGIC: [u8; 4] = *b"GFCB";
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 12;
const MANIFEST_BYTES_MAX: usize = 4096;
/// Largest configuration in a bundle, bytes. In base64 it fits into a message of 1 MiB, which clustered brokers take by default.
pub const CONFIG_BYTES_MAX: usize = 640 << 10;
/// Stands before the manifest in what is signed: a signature over anything else, made with the same key, is none over a configuration.
const SIGNED_AS: &[u8] = b"gengfu configuration bundle 1\0";

/// What is said of a configuration. Members that a later version adds are covered by the signature and otherwise not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The site of the gateway it is for.
    pub site: Slug,
    /// The gateway it is for.
    pub gateway: Slug,
    /// Its number: a gateway takes only higher ones than it has had.
    pub counter: u64,
    /// Of the configuration's bytes, 64 hex digits.
    pub sha256: String,
    /// Its bytes.
    pub bytes: usize,
    /// When it was packed, by the clock of whoever did.
    pub created_at: Timestamp,
}

/// Why a file is no bundle, or none that may be used. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Another file.
    #[error("byte 0: no configuration bundle (\"GFCB\"); give the file that `gengfu config pack` wrote")]
    Magic,
    /// A later format.
    #[error("byte 4: bundle format {got}, this gateway knows {FORMAT}; update the gateway")]
    Format {
        /// As it stands there.
        got: u8,
    },
    /// Cut off, or longer than it says.
    #[error("{got} bytes, {expected} were expected: the bundle is cut off or spoilt; fetch it again")]
    Length {
        /// Bytes of the file.
        got: usize,
        /// Bytes it should have.
        expected: usize,
    },
    /// A manifest that is none.
    #[error("byte {HEAD_BYTES}: the manifest cannot be read ({why}); pack the bundle again")]
    Manifest {
        /// What is wrong.
        why: String,
    },
    /// Nobody trusted has signed it.
    #[error(
        "no trusted key has signed it, or it was changed since; sign it (`gengfu config sign`) with a key of [config] trusted"
    )]
    Signature,
    /// The configuration is not the one in the manifest.
    #[error(
        "the configuration has another SHA-256 than its manifest: it was changed or spoilt; fetch the bundle again"
    )]
    Digest,
    /// Not text.
    #[error("the configuration is not UTF-8 from byte {at} on; pack a text file")]
    Text {
        /// First byte that is none.
        at: usize,
    },
    /// Too large.
    #[error(
        "the configuration has {got} bytes, at most {CONFIG_BYTES_MAX} are taken; leave comments out, or split the site"
    )]
    Size {
        /// Its bytes.
        got: usize,
    },
}

impl BundleError {
    /// For the centre, in both languages.
    #[must_use]
    pub fn text(&self) -> Text {
        let zh = match self {
            BundleError::Magic => "不是配置包，请使用 gengfu config pack 生成的文件".to_owned(),
            BundleError::Format { got } => format!("配置包格式 {got} 不受支持，请升级网关"),
            BundleError::Length { .. } => "配置包不完整或已损坏，请重新获取".to_owned(),
            BundleError::Manifest { .. } => "配置包清单无法读取，请重新打包".to_owned(),
            BundleError::Signature => "配置包没有可信签名，或签名后被改动；请用受信任的密钥签名".to_owned(),
            BundleError::Digest => "配置内容与清单摘要不符，已被改动或损坏；请重新获取".to_owned(),
            BundleError::Text { .. } => "配置不是 UTF-8 文本".to_owned(),
            BundleError::Size { got } => format!("配置 {got} 字节，超过上限 {CONFIG_BYTES_MAX} 字节"),
        };
        Text { zh, en: self.to_string() }
    }
}

/// A bundle, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The bytes that are signed, exactly as they stand in the file.
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
    signature: [u8; SIGNATURE_BYTES],
    config: Vec<u8>,
}

/// A bundle of which every byte is covered by a trusted signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What is said of the configuration.
    pub manifest: Manifest,
    /// The configuration.
    pub text: String,
    /// Who signed it.
    pub signer: PublicKey,
}

impl Bundle {
    /// Packs a configuration, unsigned. Whether it is a good one is not looked at.
    ///
    /// # Errors
    /// [`BundleError::Size`].
    pub fn pack(
        site: Slug,
        gateway: Slug,
        counter: u64,
        created_at: Timestamp,
        config: String,
    ) -> Result<Self, BundleError> {
        let bytes = config.len();
        if bytes > CONFIG_BYTES_MAX {
            return Err(BundleError::Size { got: bytes });
        }
        let manifest = Manifest { site, gateway, counter, sha256: digest(config.as_bytes()), bytes, created_at };
        let manifest_bytes = serde_json::to_vec(&manifest).expect("a manifest has text keys only");
        Ok(Self { manifest_bytes, manifest, signature: [0; SIGNATURE_BYTES], config: config.into_bytes() })
    }

    /// Reads a bundle; nothing is believed yet but its form.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(BundleError::Magic)?;
        if head[..4] != MAGIC {
            return Err(BundleError::Magic);
        }
        if head[4] != FORMAT {
            return Err(BundleError::Format { got: head[4] });
        }
        let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let length = usize::try_from(length).ok().filter(|length| (2..=MANIFEST_BYTES_MAX).contains(length));
        let length = length.ok_or_else(|| BundleError::Manifest { why: "its length is out of bounds".into() })?;
        let least = HEAD_BYTES + length + SIGNATURE_BYTES;
        let (manifest_bytes, rest) =
            rest.split_at_checked(length).ok_or(BundleError::Length { got: bytes.len(), expected: least })?;
        let (signature, config) = rest
            .split_first_chunk::<SIGNATURE_BYTES>()
            .ok_or(BundleError::Length { got: bytes.len(), expected: least })?;
        let manifest: Manifest =
            serde_json::from_slice(manifest_bytes).map_err(|error| BundleError::Manifest { why: error.to_string() })?;
        if manifest.bytes > CONFIG_BYTES_MAX {
            return Err(BundleError::Size { got: manifest.bytes });
        }
        if config.len() != manifest.bytes {
            return Err(BundleError::Length { got: bytes.len(), expected: least + manifest.bytes });
        }
        let (manifest_bytes, config) = (manifest_bytes.to_vec(), config.to_vec());
        Ok(Self { manifest_bytes, manifest, signature: *signature, config })
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.manifest_bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        let format = [FORMAT, 0, 0, 0];
        [&MAGIC[..], &format, &length, &self.manifest_bytes, &self.signature, &self.config].concat()
    }

    /// What it says of its configuration; not to be believed before [`Bundle::verify`].
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Signs it, in place of any signature that was there.
    pub fn sign(&mut self, key: &SigningKey) {
        self.signature = key.sign(&self.signed_bytes());
    }

    /// Checks that it is whole and signed by one of these keys.
    ///
    /// # Errors
    /// [`BundleError::Signature`], [`BundleError::Digest`], [`BundleError::Text`].
    pub fn verify(self, trusted: &[PublicKey]) -> Result<Verified, BundleError> {
        let signed = self.signed_bytes();
        let signer = trusted.iter().find(|key| key.has_signed(&signed, &self.signature));
        let signer = *signer.ok_or(BundleError::Signature)?;
        let text = self.unsigned_text()?;
        Ok(Verified { manifest: self.manifest, text, signer })
    }

    /// The configuration of a bundle whose signature was checked when it came: that it is still the one in its manifest is checked.
    ///
    /// # Errors
    /// [`BundleError::Digest`], [`BundleError::Text`].
    pub fn unsigned_text(&self) -> Result<String, BundleError> {
        if digest(&self.config) != self.manifest.sha256 {
            return Err(BundleError::Digest);
        }
        let text = String::from_utf8(self.config.clone());
        text.map_err(|error| BundleError::Text { at: error.utf8_error().valid_up_to() })
    }

    fn signed_bytes(&self) -> Vec<u8> {
        [SIGNED_AS, &self.manifest_bytes].concat()
    }
}

/// SHA-256 in hex digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    fn packed(text: &str) -> Bundle {
        Bundle::pack(slug("jinding"), slug("block-7"), 7, Timestamp::UNIX_EPOCH, text.to_owned()).unwrap()
    }

    #[test]
    fn what_was_packed_and_signed_reads_back_and_verifies() {
        let (key, _) = SigningKey::generate().unwrap();
        let (other, _) = SigningKey::generate().unwrap();
        let mut bundle = packed("[gateway]\nname = \"七号楼\"\n");
        assert_eq!(bundle.clone().verify(&[key.public()]), Err(BundleError::Signature), "not signed yet");
        bundle.sign(&key);
        let read = Bundle::from_bytes(&bundle.to_bytes()).unwrap();
        assert_eq!(read, bundle);
        let verified = read.clone().verify(&[other.public(), key.public()]).unwrap();
        assert_eq!((verified.text.as_str(), verified.signer), ("[gateway]\nname = \"七号楼\"\n", key.public()));
        assert_eq!(verified.manifest.counter, 7);
        assert_eq!(read.clone().verify(&[other.public()]), Err(BundleError::Signature));
        assert_eq!(read.verify(&[]), Err(BundleError::Signature));
    }

    #[test]
    fn no_byte_can_be_changed_cut_off_or_added_and_none_makes_it_panic() {
        let (key, _) = SigningKey::generate().unwrap();
        let mut bundle = packed("[gateway]\nname = \"block-7\"\n");
        bundle.sign(&key);
        let good = bundle.to_bytes();
        let judge = |bytes: &[u8]| Bundle::from_bytes(bytes).and_then(|bundle| bundle.verify(&[key.public()]));
        judge(&good).unwrap();
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                // Bytes 5 to 7 are reserved: a later version may use them.
                assert_eq!(judge(&bad).is_ok(), (5..8).contains(&at), "byte {at} xor {flip:#x}");
            }
            assert!(judge(&good[..at]).is_err(), "cut off at {at}");
        }
        let longer = [&good[..], b" "].concat();
        assert!(matches!(judge(&longer), Err(BundleError::Length { .. })));
    }

    #[test]
    fn a_signature_over_the_bare_manifest_is_none_over_a_configuration() {
        let (key, _) = SigningKey::generate().unwrap();
        let mut bundle = packed("x = 1\n");
        bundle.signature = key.sign(&bundle.manifest_bytes);
        assert_eq!(bundle.verify(&[key.public()]), Err(BundleError::Signature));
    }

    #[test]
    fn a_configuration_that_is_too_large_or_no_text_is_refused() {
        let big = "#".repeat(CONFIG_BYTES_MAX + 1);
        let packed_big = Bundle::pack(slug("s"), slug("g"), 1, Timestamp::UNIX_EPOCH, big);
        assert_eq!(packed_big.err(), Some(BundleError::Size { got: CONFIG_BYTES_MAX + 1 }));
        let (key, _) = SigningKey::generate().unwrap();
        let mut bundle = packed("x = 1\n");
        bundle.config[2] = 0xff;
        bundle.manifest.sha256 = digest(&bundle.config);
        bundle.manifest_bytes = serde_json::to_vec(&bundle.manifest).unwrap();
        bundle.sign(&key);
        assert_eq!(bundle.verify(&[key.public()]), Err(BundleError::Text { at: 2 }));
    }
}
