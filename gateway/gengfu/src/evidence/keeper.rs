//! The thread that keeps the pictures.
//!
//! Owns every write and read of a picture in the gateway, one after the other, so that neither a camera's task nor the uplink ever waits for a disk; and the joining of what others know to the pictures: the outbox knows which ones an event names, the decider which alarms are open. It asks; nobody has
//! to tell it, so nothing is lost by a restart. Refuses to be in anybody's way: who wants something leaves a [`Job`] in a bounded channel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gengfu_outbox::Outbox;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::keep::{self, Entry, Policy};
use super::log::Deed;
use super::{Evidence, Picture, VaultError, look};
use crate::clock::Clock;
use crate::decide::DecideStatus;

/// Looked at this often.
const EVERY: Duration = Duration::from_secs(60);

/// What others know.
pub struct Facts<'a> {
    /// An event names this picture: it is, or was, in the outbox.
    pub is_named: &'a dyn Fn(&str, u32) -> bool,
    /// Alarms that are open; `None` while that is not known yet.
    pub open: Option<&'a BTreeSet<String>>,
}

/// What one look did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Pictures that stay.
    pub pictures: usize,
    /// Their size, plain.
    pub bytes: u64,
    /// Pictures that ended.
    pub ended: usize,
}

impl Evidence {
    /// Confirms, closes and ends what is due at `now`.
    ///
    /// # Errors
    /// [`VaultError::Disk`]; the next look goes on.
    pub fn look_after(&self, facts: &Facts<'_>, policy: &Policy, now: Timestamp) -> Result<Looked, VaultError> {
        let mut entries = self.vault.entries()?;
        for entry in &mut entries {
            if update(entry, facts, now) {
                self.vault.note(entry)?;
            }
        }
        let ended = keep::ended(&entries, policy, now);
        for (entry, why) in &ended {
            self.vault.shred(&entry.id, entry.n)?;
            metrics::counter!("gengfu_evidence_shredded_total", "why" => why.as_str()).increment(1);
            self.log.note(&look(now, Deed::Shredded, "gateway", &entry.id, entry.n, Some(why.as_str())));
        }
        let bytes = entries.iter().map(|entry| entry.bytes).sum::<u64>();
        let gone = ended.iter().map(|(entry, _)| entry.bytes).sum::<u64>();
        Ok(Looked { pictures: entries.len() - ended.len(), bytes: bytes - gone, ended: ended.len() })
    }
}

/// Brings an entry up to date; true when something is new.
fn update(entry: &mut Entry, facts: &Facts<'_>, now: Timestamp) -> bool {
    let before = (entry.confirmed_at, entry.closed_at);
    if entry.confirmed_at.is_none() && (facts.is_named)(&entry.id, entry.n) {
        entry.confirmed_at = Some(now);
    }
    if let (Some(open), Some(_)) = (facts.open, entry.confirmed_at) {
        // An alarm may come to be known as open a moment after its picture; a command never is.
        entry.closed_at = if open.contains(&entry.id) { None } else { entry.closed_at.or(Some(now)) };
    }
    before != (entry.confirmed_at, entry.closed_at)
}

/// What others want of the pictures.
#[derive(Debug)]
pub enum Job {
    /// Keep this one.
    Put {
        /// Whose, which, when.
        about: About,
        /// The JPEG.
        jpeg: Vec<u8>,
        /// What is kept, or why nothing is.
        answer: oneshot::Sender<Result<Entry, VaultError>>,
    },
    /// Read this one, for the uplink.
    Send {
        /// Alarm or command.
        id: String,
        /// Number of the picture.
        n: u32,
        /// SHA-256 that its event names, hex.
        sha256: String,
        /// The picture; `None` when what lies here is another.
        answer: oneshot::Sender<Result<Option<Vec<u8>>, VaultError>>,
    },
    /// End every candidate of an alarm that never came to be, or of a command that nobody waits for. What an event names stays, whoever asks.
    Discard(String),
    /// Log that the centre had a picture taken.
    Taken {
        /// The command.
        cmd_id: String,
        /// Who gave it.
        operator: String,
        /// Of which camera.
        camera: String,
    },
}

/// A picture without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Alarm or command.
    pub id: String,
    /// Number of the picture.
    pub n: u32,
    /// The camera.
    pub camera: String,
    /// What it shows.
    pub caption: String,
    /// When it was taken.
    pub taken_at: Timestamp,
}

/// The way to the pictures for those who must not wait for a disk. Cloned freely.
#[derive(Debug, Clone)]
pub struct Pictures(mpsc::Sender<Job>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The vault's answer.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The thread is gone.
    #[error("the gateway is stopping")]
    Stopping,
}

impl PartialEq for Pictures {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Pictures {}

impl Pictures {
    /// Jobs go into this channel; [`run`] has its other end.
    #[must_use]
    pub fn new(jobs: mpsc::Sender<Job>) -> Self {
        Self(jobs)
    }

    /// Keeps a picture. On return it is on the medium, sealed.
    ///
    /// # Errors
    /// [`Unanswered`]; then there is nothing of it.
    pub async fn put(&self, about: About, jpeg: Vec<u8>) -> Result<Entry, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Job::Put { about, jpeg, answer }).await.map_err(|_| Unanswered::Stopping)?;
        Ok(answered.await.map_err(|_| Unanswered::Stopping)??)
    }

    /// Reads a picture for the uplink, and logs it. `None` when what lies here is not what the event names.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn send(&self, id: &str, n: u32, sha256: &str) -> Result<Option<Vec<u8>>, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Send { id: id.to_owned(), n, sha256: sha256.to_owned(), answer };
        self.0.send(job).await.map_err(|_| Unanswered::Stopping)?;
        Ok(answered.await.map_err(|_| Unanswered::Stopping)??)
    }

    /// Ends pictures that are nobody's evidence. Never waits; when there is no room for the wish, their time as candidates ends them.
    pub fn discard(&self, id: &str) {
        if self.0.try_send(Job::Discard(id.to_owned())).is_err() {
            tracing::warn!(id, "pictures that are nobody's evidence stay until their time is over");
        }
    }

    /// Logs that the centre had a picture taken.
    pub async fn taken(&self, cmd_id: &str, operator: &str, camera: &str) {
        let (cmd_id, operator, camera) = (cmd_id.to_owned(), operator.to_owned(), camera.to_owned());
        // The thread is gone only at shutdown; the journal has it as well.
        let _ = self.0.send(Job::Taken { cmd_id, operator, camera }).await;
    }
}

impl Evidence {
    fn carry_out(&self, job: Job, is_named: &dyn Fn(&str, u32) -> bool, now: Timestamp) {
        // Whoever asked may have gone.
        match job {
            Job::Put { about, jpeg, answer } => {
                let About { id, n, camera, caption, taken_at } = &about;
                let picture = Picture { id, n: *n, camera, caption, taken_at: *taken_at, jpeg: &jpeg };
                let _ = answer.send(self.vault.put(&picture, now));
            }
            Job::Send { id, n, sha256, answer } => {
                let _ = answer.send(self.send(&id, n, &sha256, now));
            }
            Job::Discard(id) => match self.vault.shred_candidates(&id, |n| is_named(&id, n)) {
                Ok(count) => tracing::debug!(id, count, "pictures that are nobody's evidence were shredded"),
                Err(error) => tracing::warn!(id, %error, "pictures that are nobody's evidence stay for now"),
            },
            Job::Taken { cmd_id, operator, camera } => self.snapshot_taken(&cmd_id, 1, &operator, &camera, now),
        }
    }
}

/// Does what is wanted of the pictures, and looks after them, until `stop`. Blocks on the disk: give it a thread of its own.
pub async fn run(
    evidence: Evidence,
    mut jobs: mpsc::Receiver<Job>,
    (outbox, decided): (Outbox, watch::Receiver<DecideStatus>),
    policy: Policy,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    // What cannot be asked now may be named: it stays.
    let is_named = |id: &str, n: u32| !matches!(outbox.lookup(&format!("{id}/{n}")), Ok(None));
    let mut look = tokio::time::interval(EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(job) = jobs.recv() => evidence.carry_out(job, &is_named, clock.now()),
            _ = look.tick() => {
                let open = open_alarms(&decided.borrow());
                let facts = Facts { is_named: &is_named, open: open.as_ref() };
                match evidence.look_after(&facts, &policy, clock.now()) {
                    Ok(looked) => show(&looked),
                    Err(error) => tracing::warn!(%error, "the pictures are not looked after; tried again in a minute"),
                }
            }
        }
    }
}

fn open_alarms(status: &DecideStatus) -> Option<BTreeSet<String>> {
    status.started_at?;
    Some(status.alarms.iter().map(|alarm| alarm.alarm_id.clone()).collect())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; 2^53 bytes of pictures are more than any disk here has"
)]
fn show(looked: &Looked) {
    metrics::gauge!("gengfu_evidence_pictures").set(looked.pictures as f64);
    metrics::gauge!("gengfu_evidence_bytes").set(looked.bytes as f64);
    if looked.ended > 0 {
        tracing::info!(ended = looked.ended, left = looked.pictures, "pictures whose time is over were shredded");
    }
}
