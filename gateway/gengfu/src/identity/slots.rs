//! The two slots: `current`, which a broker has taken, and `next`, which none has yet.
//!
//! A slot is one file with key and certificates together, so that no power cut can pair a key with another key's certificate, and going from
//! `next` to `current` is one rename. What lies in the folder:
//!
//! | file | what |
//! |---|---|
//! | `request.key` | a key whose certificate is awaited |
//! | `next.pem` | key and chain, to be tried |
//! | `current.pem` | key and chain, proven |
//! | `refused.json` | why the last `next` was given up |
//!
//! Owns the order of the steps between them. Promises: a `current` that was there is there after a power cut at any step, old or new, whole;
//! a `next` goes only by becoming `current` or by being refused. Refuses a certificate that was not checked ([`Wanted::check`]).

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::certificate::{self, CertificateError, Facts, Wanted};
use super::folder::{Folder, RealFolder};
use super::key::{KeyError, PrivateKey};

const REQUEST: &str = "request.key";
const NEXT: &str = "next.pem";
const CURRENT: &str = "current.pem";
const REFUSED: &str = "refused.json";

/// A key with its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: PrivateKey,
    /// Our certificate first, then those between it and the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// What ours says.
    pub facts: Facts,
}

/// A `next` that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedNext {
    /// When.
    pub at: Timestamp,
    /// Its number.
    pub serial: String,
    /// Why.
    pub reason: String,
}

/// Why the slots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The disk.
    #[error("cannot {doing} in {folder}: {source}; check the disk, and that the gateway's user owns that folder")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// Where.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No request was made.
    #[error("there is no key that waits for a certificate; make a request first: `gengfu enrol request`")]
    NoRequest,
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The slots of one gateway.
pub struct Slots {
    folder: Box<dyn Folder>,
    place: PathBuf,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Slots {
    /// Opens the folder (made when it is not there) and clears away what a power cut left half done.
    ///
    /// # Errors
    /// [`SlotError::Disk`].
    pub fn open(place: &Path) -> Result<Self, SlotError> {
        let fail = |source| SlotError::Disk { doing: "make a folder", folder: place.to_owned(), source };
        let folder = RealFolder::open(place).map_err(fail)?;
        Self::over(Box::new(folder), place)
    }

    fn over(folder: Box<dyn Folder>, place: &Path) -> Result<Self, SlotError> {
        let mut slots = Self { folder, place: place.to_owned() };
        // A request whose certificate has been taken into a slot: the cut came before its last step.
        if let Some(key) = slots.requested()? {
            let is_used = |pair: Option<Pair>| pair.is_some_and(|pair| pair.key == key);
            if is_used(slots.next().unwrap_or(None)) || is_used(slots.current().unwrap_or(None)) {
                slots.step("remove a used request", |folder| folder.remove(REQUEST).and_then(|()| folder.sync()))?;
            }
        }
        Ok(slots)
    }

    /// Where `current` is.
    #[must_use]
    pub fn current_file(place: &Path) -> PathBuf {
        place.join(CURRENT)
    }

    /// Where `next` is.
    #[must_use]
    pub fn next_file(place: &Path) -> PathBuf {
        place.join(NEXT)
    }

    /// The proven pair.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn current(&self) -> Result<Option<Pair>, SlotError> {
        self.pair(CURRENT)
    }

    /// The pair to be tried.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn next(&self) -> Result<Option<Pair>, SlotError> {
        self.pair(NEXT)
    }

    /// Why the last `next` was given up; nothing once a later one was promoted.
    #[must_use]
    pub fn refused(&self) -> Option<RefusedNext> {
        let bytes = self.folder.read(REFUSED).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The key that waits for a certificate.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn requested(&self) -> Result<Option<PrivateKey>, SlotError> {
        let Some(text) = self.text(REQUEST)? else { return Ok(None) };
        Ok(Some(PrivateKey::from_pem(&text, REQUEST)?))
    }

    /// The key for a request: the one that waits already, or a new one. `anew` throws the waiting one away; a certificate that was signed
    /// for it meanwhile is lost.
    ///
    /// # Errors
    /// [`SlotError::Disk`], or no randomness.
    pub fn request_key(&mut self, anew: bool) -> Result<PrivateKey, SlotError> {
        if !anew && let Ok(Some(key)) = self.requested() {
            return Ok(key);
        }
        let key = PrivateKey::generate()?;
        self.step("write a key", |folder| folder.replace(REQUEST, key.reveal().as_bytes()))?;
        Ok(key)
    }

    /// Puts a certificate for the waiting key into `next`, after checking it. `wanted` is told the key.
    ///
    /// # Errors
    /// [`SlotError::NoRequest`], what [`Wanted::check`] finds, or the disk.
    pub fn offer(
        &mut self,
        given: &[CertificateDer<'static>],
        wanted: impl FnOnce(
            &PrivateKey,
            &[CertificateDer<'static>],
        ) -> Result<(Vec<CertificateDer<'static>>, Facts), CertificateError>,
    ) -> Result<Facts, SlotError> {
        let key = self.requested()?.ok_or(SlotError::NoRequest)?;
        let (chain, facts) = wanted(&key, given)?;
        let mut text = Zeroizing::new(key.reveal().to_owned());
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&certificate::to_pem(&chain));
        self.step("write the next certificate", |folder| {
            folder.replace(NEXT, text.as_bytes())?;
            folder.remove(REQUEST)?;
            folder.sync()
        })?;
        Ok(facts)
    }

    /// Makes `next` the `current`, in one step.
    ///
    /// # Errors
    /// [`SlotError::Disk`], also when there is no `next`.
    pub fn promote(&mut self) -> Result<(), SlotError> {
        self.step("promote the next certificate", |folder| {
            folder.rename(NEXT, CURRENT)?;
            folder.sync()?;
            folder.remove(REFUSED)?;
            folder.sync()
        })
    }

    /// Gives `next` up; why is kept.
    ///
    /// # Errors
    /// [`SlotError::Disk`].
    pub fn refuse(&mut self, refused: &RefusedNext) -> Result<(), SlotError> {
        let text = serde_json::to_vec(refused).expect("three strings are JSON");
        self.step("give the next certificate up", |folder| {
            folder.replace(REFUSED, &text)?;
            folder.remove(NEXT)?;
            folder.sync()
        })
    }

    fn pair(&self, name: &'static str) -> Result<Option<Pair>, SlotError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let origin = self.place.join(name).display().to_string();
        Ok(Some(read_pair(&text, &origin)?))
    }

    fn text(&self, name: &'static str) -> Result<Option<Zeroizing<String>>, SlotError> {
        let fail = |source| SlotError::Disk { doing: "read a key", folder: self.place.clone(), source };
        let bytes = self.folder.read(name).map_err(fail)?.map(Zeroizing::new);
        Ok(bytes.map(|bytes| Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())))
    }

    fn step(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut dyn Folder) -> io::Result<()>,
    ) -> Result<(), SlotError> {
        let place = self.place.clone();
        work(self.folder.as_mut()).map_err(|source| SlotError::Disk { doing, folder: place, source })
    }
}

/// Key and chain from one PEM text.
pub(super) fn read_pair(text: &str, origin: &str) -> Result<Pair, SlotError> {
    let key = PrivateKey::from_pem(text, origin)?;
    let chain = certificate::from_pem(text.as_bytes(), origin)?;
    let first = chain.first().ok_or(CertificateError::OtherKey)?;
    let facts = Facts::of(first, origin)?;
    Ok(Pair { key, chain, facts })
}

/// [`Slots::offer`]'s check as [`Wanted`] does it.
pub fn wanted_by<'a>(
    common_name: &'a str,
    roots: &'a [CertificateDer<'static>],
    roots_origin: &'a str,
    now: super::time::Reading,
) -> impl FnOnce(&PrivateKey, &[CertificateDer<'static>]) -> Result<(Vec<CertificateDer<'static>>, Facts), CertificateError>
+ 'a {
    move |key, given| Wanted { key, common_name, roots, roots_origin, now }.check(given)
}

#[cfg(test)]
#[path = "tests/slots.rs"]
mod tests;
