//! The store of pictures: sealed, each under a key of its own.
//!
//! Owns the order of steps, so that after a power cut at any moment a picture is there whole or not at all, and nothing is left that could be read or
//! that nobody removes. A picture is there when its key file is: that is written last and ended first. Ending one (*shredding*) overwrites and
//! removes its 112 bytes of wrapped key; the sealed picture is worthless from then on, wherever a flash chip may still hold copies of it. Refuses
//! to overwrite evidence, and to give out what is not the picture that was put in.
//!
//! Several may use it at once, also from several processes: it remembers nothing, and each step is whole by itself.
//! [`Vault::recover`] alone is for the one process that begins.
//!
//! | file | holds |
//! |---|---|
//! | `<id>-<n>.sealed` | the picture, sealed ([`super::seal`]) |
//! | `<id>-<n>.json` | [`Entry`]: when, which camera, confirmed, closed |
//! | `<id>-<n>.key` | its key, sealed by the key of the box |

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::disk::{Place, RealPlace};
use super::keep::Entry;
use super::seal::{Binding, BoxKey, SealError, is_key};

/// Longest id of an alarm or a command.
const ID_BYTES_MAX: usize = 64;
/// The box's key, beside the folder.
pub(super) const KEY_FILE: &str = "evidence.key";

/// What is put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture<'a> {
    /// Alarm or command: 1 to 64 letters, digits, hyphens, underscores.
    pub id: &'a str,
    /// Number of the picture.
    pub n: u32,
    /// The camera.
    pub camera: &'a str,
    /// What it shows.
    pub caption: &'a str,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The JPEG.
    pub jpeg: &'a [u8],
}

/// What [`Vault::recover`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Pictures that were half there, and files of them, removed.
    pub removed: usize,
    /// Pictures that lay here unencrypted and were sealed: id and number.
    pub taken_over: Vec<(String, u32)>,
}

/// Why the vault cannot do something. Every text names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The disk.
    #[error("{path}: {source}; check that the disk is there, has room, and belongs to the gateway's user")]
    Disk {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The box's key is not one.
    #[error(
        "{0} is no key of 32 bytes: put the gateway's own key back from your copy, or move the file away; a new key is made then, and the \
         pictures sealed with the old one stay unreadable"
    )]
    Key(PathBuf),
    /// The id cannot be a file's name.
    #[error("the id {0:?} is refused: 1 to 64 letters, digits, hyphens and underscores")]
    Id(String),
    /// There is such a picture.
    #[error("picture {id}/{n} is there already; evidence is never overwritten")]
    Exists {
        /// Alarm or command.
        id: String,
        /// Number.
        n: u32,
    },
    /// There is none.
    #[error(
        "there is no picture {id}/{n}: it was never taken, or its time is over (`gengfu evidence log` says when it was shredded)"
    )]
    Gone {
        /// Alarm or command.
        id: String,
        /// Number.
        n: u32,
    },
    /// It does not open.
    #[error(
        "{path} does not open: {why}. Put the gateway's own evidence.key and evidence folder back together; nothing was given out"
    )]
    Sealed {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: SealError,
    },
}

/// See the module.
pub struct Vault {
    place: Box<dyn Place>,
    /// For messages.
    folder: PathBuf,
    key: BoxKey,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Base name of a picture's files.
fn stem(id: &str, n: u32) -> Result<String, VaultError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(plain) {
        return Err(VaultError::Id(id.to_owned()));
    }
    Ok(format!("{id}-{n}"))
}

impl Vault {
    /// Opens the pictures of a gateway: folder `evidence` and key `evidence.key` in its data folder, made where they are not there.
    ///
    /// # Errors
    /// [`VaultError::Disk`], [`VaultError::Key`].
    pub fn open(data_dir: &Path) -> Result<Self, VaultError> {
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| VaultError::Disk { path, source }
        };
        let folder = data_dir.join("evidence");
        let place = RealPlace::open(&folder).map_err(disk(&folder))?;
        let around = RealPlace::open(data_dir).map_err(disk(data_dir))?;
        let key_path = data_dir.join(KEY_FILE);
        let key = box_key(&around, &place).map_err(|fault| match fault {
            KeyFault::Disk(source) => VaultError::Disk { path: key_path.clone(), source },
            KeyFault::NoKey => VaultError::Key(key_path.clone()),
            KeyFault::Random => VaultError::Sealed { path: key_path.clone(), why: SealError::Random },
        })?;
        Ok(Self { place: Box::new(place), folder, key })
    }

    /// A vault on a place of the caller's choice, for tests.
    #[cfg(test)]
    pub(super) fn on(place: Box<dyn Place>, key: BoxKey) -> Self {
        Self { place, folder: PathBuf::from("evidence"), key }
    }

    fn disk(&self, name: &str, source: io::Error) -> VaultError {
        VaultError::Disk { path: self.folder.join(name), source }
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, VaultError> {
        self.place.read(name).map_err(|source| self.disk(name, source))
    }

    /// Keeps a picture, as a candidate that no event names yet. On return it is on the medium, whole.
    ///
    /// # Errors
    /// [`VaultError::Id`], [`VaultError::Exists`], [`VaultError::Disk`]; then there is nothing of it.
    pub fn put(&self, picture: &Picture<'_>, now: Timestamp) -> Result<Entry, VaultError> {
        let stem = stem(picture.id, picture.n)?;
        if self.read_file(&format!("{stem}.key"))?.is_some_and(|key| is_key(&key)) {
            return Err(VaultError::Exists { id: picture.id.to_owned(), n: picture.n });
        }
        let entry = Entry {
            id: picture.id.to_owned(),
            n: picture.n,
            sha256: hex::encode(gengfu_contract::chain::hash(picture.jpeg)),
            bytes: picture.jpeg.len() as u64,
            camera: (!picture.camera.is_empty()).then(|| picture.camera.to_owned()),
            caption: picture.caption.to_owned(),
            taken_at: picture.taken_at,
            stored_at: now,
            confirmed_at: None,
            closed_at: None,
        };
        let binding = Binding { id: picture.id, n: picture.n };
        let sealed = self
            .key
            .seal(binding, picture.jpeg)
            .map_err(|why| VaultError::Sealed { path: self.folder.join(&stem), why })?;
        let written = self.put_files(&stem, &entry, &sealed.picture, &sealed.key);
        written.inspect_err(|_| {
            // What stays is unreadable without its key, and the next start removes it.
            let _ = self.end(&stem);
        })?;
        Ok(entry)
    }

    fn put_files(&self, stem: &str, entry: &Entry, picture: &[u8], key: &[u8]) -> Result<(), VaultError> {
        let meta = json(entry);
        let (sealed, json, wrapped) = names(stem);
        let steps = || {
            self.place.write(&sealed, picture)?;
            self.place.write(&json, &meta)?;
            self.place.write(&format!("{wrapped}.new"), key)?;
            self.place.sync()?;
            // From here on the picture is there.
            self.place.rename(&format!("{wrapped}.new"), &wrapped)?;
            self.place.sync()
        };
        steps().map_err(|source| self.disk(stem, source))
    }

    /// The picture itself, checked: it is the one that was put in, under this id and number. Say so in the log
    /// ([`super::log`]) before anybody sees it.
    ///
    /// # Errors
    /// [`VaultError::Gone`], [`VaultError::Sealed`], [`VaultError::Disk`].
    pub fn read(&self, id: &str, n: u32) -> Result<Vec<u8>, VaultError> {
        let stem = stem(id, n)?;
        let gone = || VaultError::Gone { id: id.to_owned(), n };
        let (sealed, _, wrapped) = names(&stem);
        let key = self.read_file(&wrapped)?.ok_or_else(gone)?;
        let picture = self.read_file(&sealed)?.ok_or_else(gone)?;
        let opened = self.key.open(Binding { id, n }, &key, &picture);
        let (plain, _) = opened.map_err(|why| VaultError::Sealed { path: self.folder.join(&sealed), why })?;
        Ok(plain)
    }

    /// What is known of one picture; `None` when it is not there.
    ///
    /// # Errors
    /// [`VaultError::Id`], [`VaultError::Disk`].
    pub fn entry(&self, id: &str, n: u32) -> Result<Option<Entry>, VaultError> {
        let stem = stem(id, n)?;
        if self.read_file(&format!("{stem}.key"))?.is_none() {
            return Ok(None);
        }
        self.entry_of(&stem)
    }

    fn entry_of(&self, stem: &str) -> Result<Option<Entry>, VaultError> {
        let Some(bytes) = self.read_file(&format!("{stem}.json"))? else { return Ok(None) };
        let entry: Option<Entry> = serde_json::from_slice(&bytes).ok();
        // One that speaks of another picture is no entry of this one.
        Ok(entry.filter(|entry| format!("{}-{}", entry.id, entry.n) == stem))
    }

    /// All pictures, oldest first. One whose entry is lost or unreadable is told with what can be known of it.
    ///
    /// # Errors
    /// [`VaultError::Disk`].
    pub fn entries(&self) -> Result<Vec<Entry>, VaultError> {
        let mut entries = Vec::new();
        for name in self.place.names().map_err(|source| self.disk("", source))? {
            let Some((stem, (id, n))) = name.strip_suffix(".key").and_then(|stem| Some((stem, split(stem)?))) else {
                continue;
            };
            let stored_at = || self.place.written_at(&name).unwrap_or(Timestamp::UNIX_EPOCH);
            let lost = || Entry {
                id: id.to_owned(),
                n,
                sha256: String::new(),
                bytes: 0,
                camera: None,
                caption: "?".to_owned(),
                taken_at: stored_at(),
                stored_at: stored_at(),
                confirmed_at: None,
                closed_at: None,
            };
            entries.push(self.entry_of(stem)?.unwrap_or_else(lost));
        }
        entries.sort_by(|a, b| (a.taken_at, &a.id, a.n).cmp(&(b.taken_at, &b.id, b.n)));
        Ok(entries)
    }

    /// Writes what is now known of a picture: that an event names it, that its alarm is over.
    ///
    /// # Errors
    /// [`VaultError::Id`], [`VaultError::Disk`]; the old entry stays then.
    pub fn note(&self, entry: &Entry) -> Result<(), VaultError> {
        let name = format!("{}.json", stem(&entry.id, entry.n)?);
        let steps = || {
            self.place.write(&format!("{name}.new"), &json(entry))?;
            self.place.rename(&format!("{name}.new"), &name)?;
            self.place.sync()
        };
        steps().map_err(|source| self.disk(&name, source))
    }

    /// Makes a picture unreadable for ever, then removes it. True when there was one.
    ///
    /// # Errors
    /// [`VaultError::Id`], or [`VaultError::Disk`]: then it may still be readable; try again.
    pub fn shred(&self, id: &str, n: u32) -> Result<bool, VaultError> {
        let stem = stem(id, n)?;
        let was_there = self.read_file(&format!("{stem}.key"))?.is_some();
        self.end(&stem).map_err(|source| self.disk(&stem, source))?;
        Ok(was_there)
    }

    /// Every candidate of an id that no event names: `is_named` says so of one by its number. Gives how many there were.
    ///
    /// # Errors
    /// As [`Vault::shred`].
    pub fn shred_candidates(&self, id: &str, is_named: impl Fn(u32) -> bool) -> Result<usize, VaultError> {
        let of_it = self.entries()?.into_iter().filter(|entry| entry.id == id && entry.confirmed_at.is_none());
        let of_it: Vec<u32> = of_it.map(|entry| entry.n).filter(|n| !is_named(*n)).collect();
        of_it.iter().try_for_each(|n| self.shred(id, *n).map(|_| ()))?;
        Ok(of_it.len())
    }

    /// The key first, durably: whatever comes between, what is left is worthless.
    fn end(&self, stem: &str) -> io::Result<()> {
        let (sealed, json, wrapped) = names(stem);
        let fresh = format!("{wrapped}.new");
        self.place.wipe(&wrapped)?;
        self.place.wipe(&fresh)?;
        self.place.remove(&wrapped)?;
        self.place.remove(&fresh)?;
        self.place.sync()?;
        self.place.remove(&sealed)?;
        self.place.remove(&json)?;
        self.place.remove(&format!("{json}.new"))?;
        self.place.sync()
    }

    /// At the start, before anybody else uses the folder: removes what a power cut left half done, and seals pictures that an earlier
    /// version left here in the open. Those count as confirmed since they were written.
    ///
    /// # Errors
    /// [`VaultError::Disk`]; what was done until then is whole.
    pub fn recover(&self) -> Result<Recovered, VaultError> {
        let mut recovered = Recovered::default();
        let names: BTreeSet<String> = self.place.names().map_err(|source| self.disk("", source))?.into_iter().collect();
        let mut half = BTreeSet::new();
        for name in &names {
            let ours =
                [".sealed", ".json", ".key", ".key.new", ".json.new"].iter().find_map(|end| name.strip_suffix(end));
            let Some(stem) = ours.filter(|stem| split(stem).is_some()) else { continue };
            let (sealed, json, wrapped) = self::names(stem);
            let key = self.read_file(&wrapped)?;
            if !key.is_some_and(|key| is_key(&key)) || !names.contains(&sealed) {
                half.insert(stem.to_owned());
            } else if *name == format!("{json}.new") || *name == format!("{wrapped}.new") {
                let stale = || {
                    self.place.wipe(name)?;
                    self.place.remove(name)
                };
                stale().map_err(|source| self.disk(name, source))?;
            }
        }
        for stem in half {
            self.end(&stem).map_err(|source| self.disk(&stem, source))?;
            recovered.removed += 1;
        }
        for name in names.iter().filter(|name| name.ends_with(".jpg") || name.ends_with(".jpg.part")) {
            recovered.taken_over.extend(self.take_over(name)?);
        }
        Ok(recovered)
    }

    /// A picture in the open: sealed, then overwritten and removed. One that is half written only goes.
    fn take_over(&self, name: &str) -> Result<Option<(String, u32)>, VaultError> {
        // A worker of an earlier version wrote a picture beside its name first.
        let is_part = name.starts_with('.') && name.ends_with(".part");
        let whole = name.strip_suffix(".jpg").and_then(split);
        if whole.is_none() && !is_part {
            let path = self.folder.join(name);
            tracing::warn!(path = %path.display(), "not a picture of this gateway, and not encrypted: move it elsewhere");
            return Ok(None);
        }
        let mut sealed = None;
        if let (Some((id, n)), Some(jpeg)) = (whole, self.read_file(name)?) {
            let written_at = self.place.written_at(name).unwrap_or(Timestamp::UNIX_EPOCH);
            let picture = Picture { id, n, camera: "", caption: "", taken_at: written_at, jpeg: &jpeg };
            match self.put(&picture, written_at) {
                Ok(entry) => {
                    self.note(&Entry { confirmed_at: Some(written_at), ..entry })?;
                    sealed = Some((id.to_owned(), n));
                }
                // The power went after it was sealed and before it was removed.
                Err(VaultError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let gone = || {
            self.place.wipe(name)?;
            self.place.remove(name)?;
            self.place.sync()
        };
        gone().map_err(|source| self.disk(name, source))?;
        Ok(sealed)
    }
}

/// Picture, entry, key.
fn names(stem: &str) -> (String, String, String) {
    (format!("{stem}.sealed"), format!("{stem}.json"), format!("{stem}.key"))
}

/// Id and number of a stem.
fn split(text: &str) -> Option<(&str, u32)> {
    let (id, n) = text.rsplit_once('-')?;
    let n: u32 = n.parse().ok()?;
    stem(id, n).is_ok_and(|again| again == text).then_some((id, n))
}

fn json(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("text, numbers and times have a JSON form")
}

enum KeyFault {
    Disk(io::Error),
    NoKey,
    Random,
}

impl From<io::Error> for KeyFault {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The box's key as it lies there, or a new one.
fn box_key(around: &dyn Place, evidence: &dyn Place) -> Result<BoxKey, KeyFault> {
    let fresh = format!("{KEY_FILE}.new");
    if let Some(bytes) = around.read(KEY_FILE)? {
        let bytes = zeroize::Zeroizing::new(bytes);
        return BoxKey::from_bytes(&bytes).ok_or(KeyFault::NoKey);
    }
    if evidence.names()?.iter().any(|name| name.ends_with(".key")) {
        tracing::error!("evidence.key is gone: the pictures sealed with it cannot be read any more; a new key is made");
    }
    let key = BoxKey::generate().map_err(|_| KeyFault::Random)?;
    // After a power cut there is a whole key or none, and with none nothing was sealed yet.
    around.write(&fresh, key.reveal())?;
    around.rename(&fresh, KEY_FILE)?;
    around.sync()?;
    Ok(key)
}
