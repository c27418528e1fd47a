//! A release of a node's firmware as one file: the image for slot A, the image for slot B, each with its manifest and signature.
//!
//! Owns the file's bytes, what fits together in it, and signing. Refuses to send anything ([`super::update`] does) and to use a bundle that was
//! not verified: [`Verified`] is made only by [`Bundle::verify`]. The keys are those of [`crate::signed`].
//!
//! ```text
//! "GFBN" | format 1 u8 | 000000 | header A, 128 bytes | header B, 128 bytes | image A | image B
//! ```

use std::fmt;

use gengfu_wire::update::{HEADER_BYTES, IMAGE_BYTES_MAX, split_header};
use gengfu_wire::{FirmwareVersion, Manifest, ManifestError, Slot, Uid};
use sha2::{Digest, Sha256};

use crate::signed::{PublicKey, SigningKey};

const MAGIC: [u8; 4] = *b"GFBN";
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 8;

/// Why a file is no bundle, or none that may be sent. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Another file.
    #[error("byte 0: no firmware bundle (\"GFBN\"); give the file that `gengfu firmware pack` wrote")]
    Magic,
    /// A later format.
    #[error("byte 4: bundle format {got}, this gateway knows {FORMAT}; update the gateway")]
    Format {
        /// As it stands there.
        got: u8,
    },
    /// Cut off, or longer than its headers say.
    #[error("{got} bytes, the headers say {expected}: the file is cut off or spoilt; fetch it again")]
    Length {
        /// Bytes of the file.
        got: usize,
        /// Bytes it should have.
        expected: usize,
    },
    /// A manifest that is none.
    #[error("manifest of slot {slot}: {error}; fetch or pack the bundle again")]
    Manifest {
        /// Which.
        slot: Slot,
        /// What is wrong.
        error: ManifestError,
    },
    /// The two images do not belong together.
    #[error("the images for slots A and B differ in {what}; pack both from one release")]
    Pair {
        /// In what.
        what: &'static str,
    },
    /// An image that is not the one in its manifest.
    #[error("the image for slot {slot} has another SHA-256 than its manifest: the file is spoilt; fetch it again")]
    Digest {
        /// Which.
        slot: Slot,
    },
    /// Nobody trusted has signed it.
    #[error(
        "the manifest of slot {slot} bears no signature of a trusted key; sign it (`gengfu firmware sign`), or give the key of who did"
    )]
    Signature {
        /// Which.
        slot: Slot,
    },
    /// Nothing, or more than any node takes.
    #[error("the image for slot {slot} has {got} bytes, expected 1 to {IMAGE_BYTES_MAX}")]
    Size {
        /// Which.
        slot: Slot,
        /// Its bytes.
        got: usize,
    },
    /// A lowering for all nodes.
    #[error("a bundle that lowers the security version must name the one node it is for (--only UID)")]
    Lowers,
}

/// What a release is, beside its bytes.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The kind of board.
    pub board: u16,
    /// Its version.
    pub version: FirmwareVersion,
    /// See [`Manifest::security`].
    pub security: u32,
    /// The one node it is for.
    pub only: Option<Uid>,
    /// See [`Manifest::may_lower_security`].
    pub may_lower_security: bool,
}

/// An image as it stands in a slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Manifest and signature.
    pub header: [u8; HEADER_BYTES],
    /// The manifest, read.
    pub manifest: Manifest,
    /// The image.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({:?})", self.manifest)
    }
}

/// A bundle, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    images: [Image; 2],
}

/// A bundle of which every byte is covered by a trusted signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified(Bundle);

impl Verified {
    /// The image for a slot.
    #[must_use]
    pub fn image(&self, slot: Slot) -> &Image {
        self.0.image(slot)
    }
}

impl Bundle {
    /// Puts the images of one release together, unsigned.
    ///
    /// # Errors
    /// [`BundleError::Size`], [`BundleError::Lowers`].
    pub fn pack(about: &About, images: [Vec<u8>; 2]) -> Result<Self, BundleError> {
        if about.may_lower_security && about.only.is_none() {
            return Err(BundleError::Lowers);
        }
        let [a, b] = images;
        let image = |slot: Slot, bytes: Vec<u8>| {
            let length = u32::try_from(bytes.len()).ok().filter(|length| (1..=IMAGE_BYTES_MAX).contains(length));
            let length = length.ok_or(BundleError::Size { slot, got: bytes.len() })?;
            let About { board, version, security, only, may_lower_security } = *about;
            let sha256 = Sha256::digest(&bytes).into();
            let manifest = Manifest { slot, board, version, security, may_lower_security, only, length, sha256 };
            let mut header = [0; HEADER_BYTES];
            header[..64].copy_from_slice(&manifest.to_bytes());
            Ok(Image { header, manifest, bytes })
        };
        Ok(Self { images: [image(Slot::A, a)?, image(Slot::B, b)?] })
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
        let short = BundleError::Length { got: bytes.len(), expected: HEAD_BYTES + 2 * HEADER_BYTES };
        let (header_a, rest) = rest.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| short.clone())?;
        let (header_b, rest) = rest.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let manifest = |slot: Slot, header: &[u8; HEADER_BYTES]| {
            let (manifest, _) = split_header(header).unwrap_or_else(|| unreachable!("a header has its length"));
            match Manifest::from_bytes(manifest) {
                Ok(manifest) if manifest.slot == slot => Ok(manifest),
                Ok(_) => Err(BundleError::Pair { what: "their slots: A must come first" }),
                Err(error) => Err(BundleError::Manifest { slot, error }),
            }
        };
        let (a, b) = (manifest(Slot::A, header_a)?, manifest(Slot::B, header_b)?);
        let end_a = a.length as usize;
        let expected = HEAD_BYTES + 2 * HEADER_BYTES + end_a + b.length as usize;
        if bytes.len() != expected {
            return Err(BundleError::Length { got: bytes.len(), expected });
        }
        let (bytes_a, bytes_b) = rest.split_at(end_a);
        Ok(Self {
            images: [
                Image { header: *header_a, manifest: a, bytes: bytes_a.to_vec() },
                Image { header: *header_b, manifest: b, bytes: bytes_b.to_vec() },
            ],
        })
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let [a, b] = &self.images;
        let head = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], FORMAT, 0, 0, 0];
        [&head[..], &a.header, &b.header, &a.bytes, &b.bytes].concat()
    }

    /// Signs both manifests.
    pub fn sign(&mut self, key: &SigningKey) {
        for image in &mut self.images {
            image.header[64..].copy_from_slice(&key.sign(&image.manifest.to_bytes()));
        }
    }

    /// The image for a slot.
    #[must_use]
    pub fn image(&self, slot: Slot) -> &Image {
        &self.images[slot.index()]
    }

    /// Checks that both images are of one release, whole, and signed by one of these keys (W42).
    ///
    /// # Errors
    /// [`BundleError::Pair`], [`BundleError::Digest`], [`BundleError::Signature`].
    pub fn verify(self, trusted: &[PublicKey]) -> Result<Verified, BundleError> {
        let [a, b] = [&self.images[0].manifest, &self.images[1].manifest];
        let pairs = [
            ("board", a.board == b.board),
            ("version", a.version == b.version),
            ("security version", a.security == b.security),
            ("the node they are for", (a.only, a.may_lower_security) == (b.only, b.may_lower_security)),
        ];
        if let Some((what, _)) = pairs.into_iter().find(|(_, is_same)| !is_same) {
            return Err(BundleError::Pair { what });
        }
        for image in &self.images {
            let slot = image.manifest.slot;
            let (manifest, signature) = image.header.split_at(64);
            if !trusted.iter().any(|key| key.has_signed(manifest, signature)) {
                return Err(BundleError::Signature { slot });
            }
            if Sha256::digest(&image.bytes)[..] != image.manifest.sha256 {
                return Err(BundleError::Digest { slot });
            }
        }
        Ok(Verified(self))
    }
}
