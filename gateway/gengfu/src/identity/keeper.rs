//! The task that keeps the gateway's identity: watches the files, renews, tries, promotes, tells.
//!
//! Owns the order of these and their waits. A certificate is used for good only after a broker has taken it on a connection of its own beside
//! the standing one; the standing one, and the alarms on it, never notice a bad one. Refuses to give `next` up while it is the only hope, and
//! to believe that an unreachable broker says anything about a certificate.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gengfu_contract::words::{Severity, Text, Urgency};
use jiff::SignedDuration;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::est::{Client, Outcome, Place, Proof};
use super::expiry::{self, Level};
use super::slots::{Pair, RefusedNext, SlotError, Slots, wanted_by};
use super::status::{IdentityStatus, Keeping, NextStatus};
use super::tls::{Credentials, Own, Stamp, roots};
use super::words::InChinese;
use crate::clock::Clock;

/// Files are looked at this often; a copied certificate is in use some seconds later.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// First and longest wait between trials that say nothing.
const TRIAL_AGAIN: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(10), SignedDuration::from_mins(5));
/// So many clear refusals, while the old certificate is in use, and the new one is given up;
const REFUSALS_MAX: u32 = 3;
/// or so many trials of any end.
const TRIALS_MAX: u32 = 12;
/// First and longest wait between attempts to renew.
const RENEW_AGAIN: (SignedDuration, SignedDuration) = (SignedDuration::from_mins(1), SignedDuration::from_hours(1));

/// What a trial connection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The broker took the certificate and let us subscribe to our commands.
    Proven,
    /// The broker refuses us with it, and why.
    Refused(String),
    /// We refuse the broker with it (its authorities do not fit), and why.
    Distrusted(String),
    /// Nothing was found out, and why.
    Undecided(String),
}

/// Proves certificates on a broker.
pub trait Prove: Send + Sync {
    /// Makes a connection of its own with these credentials, and ends it.
    fn prove<'a>(&'a self, candidate: &'a Credentials) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;
    /// Whether the standing connection stands.
    fn is_online(&self) -> bool;
}

/// Where certificates come from by themselves.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The server.
    pub place: Place,
    /// Authorities of its own certificate.
    pub ca: PathBuf,
    /// User of the one-time password.
    pub username: String,
    /// File of the one-time password, for the first certificate.
    pub password_file: Option<PathBuf>,
}

/// Tells the trouble (`None`: there is none any more); false when it could not be taken now.
pub type Tell = Box<dyn Fn(Option<(Urgency, Severity)>, Text) -> bool + Send + Sync>;

/// What the keeper is joined to.
pub struct KeeperParts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The broker.
    pub prove: Box<dyn Prove>,
    /// The decider.
    pub tell: Tell,
    /// Where the status is shown.
    pub status: watch::Sender<IdentityStatus>,
    /// A person says: look now.
    pub reload: Arc<Notify>,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// See the module.
pub struct Keeper {
    credentials: Credentials,
    /// Folder of the slots, where the identity is made on this box.
    place: Option<PathBuf>,
    enrolment: Option<Enrolment>,
    seed: u64,
    parts: KeeperParts,
    status: IdentityStatus,
    stamps: Option<Vec<Stamp>>,
    /// The files that the uplink began with were looked at.
    has_begun: bool,
    trial: Trial,
    renewal: Wait,
    told: Option<(Level, String)>,
    file_problem: Option<Text>,
    slot_problem: Option<Text>,
    renewal_problem: Option<Text>,
}

#[derive(Debug, Default)]
struct Trial {
    serial: String,
    trials: u32,
    refusals: u32,
    last: Option<String>,
    wait: Wait,
}

/// A wait that doubles, in uptime.
#[derive(Debug, Default, Clone, Copy)]
struct Wait {
    due: Option<SignedDuration>,
    times: u32,
}

impl Wait {
    fn is_due(&self, uptime: SignedDuration) -> bool {
        self.due.is_none_or(|due| uptime >= due)
    }

    fn again(&mut self, uptime: SignedDuration, (first, most): (SignedDuration, SignedDuration), seed: u64) {
        let wait = first.checked_mul(1 << self.times.min(12)).unwrap_or(most).min(most);
        self.times = self.times.saturating_add(1);
        // Up to a quarter more, by gateway and attempt.
        let spread = (seed.wrapping_add(u64::from(self.times)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as i32;
        self.due = Some(uptime + wait + wait * spread / 1024);
    }
}

impl Keeper {
    /// Of these credentials. `name` is our common name; `place` the folder of the slots where the identity is made on this box.
    #[must_use]
    pub fn new(
        credentials: Credentials,
        name: String,
        place: Option<PathBuf>,
        enrolment: Option<Enrolment>,
        parts: KeeperParts,
    ) -> Self {
        let keeping = match (&place, &credentials.source().own) {
            (Some(_), _) => Keeping::Managed,
            (None, Own::Nobody) => Keeping::Nobody,
            (None, _) => Keeping::Files,
        };
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self {
            credentials,
            place,
            enrolment,
            seed,
            status: IdentityStatus::starting(keeping, name),
            parts,
            stamps: None,
            has_begun: false,
            trial: Trial::default(),
            renewal: Wait::default(),
            told: None,
            file_problem: None,
            slot_problem: None,
            renewal_problem: None,
        }
    }

    /// Keeps until shutdown. Needs a tokio runtime with time and network; spawns nothing.
    pub async fn run(mut self) {
        let (shutdown, reload) = (self.parts.shutdown.clone(), self.parts.reload.clone());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // Every step on disk is finished between two awaits, so leaving in the middle leaves nothing half done.
                () = self.look() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = reload.notified() => {
                    (self.trial.wait, self.renewal) = (Wait::default(), Wait::default());
                    // Faulty files are tried again; good ones that are in use need no new connection.
                    self.stamps = self.stamps.take().filter(|_| self.file_problem.is_none());
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// One round: files, trial, renewal, what is told.
    pub async fn look(&mut self) {
        if let Err(error) = self.credentials.time().remember() {
            warn!(%error, "the time is not written down; after a power cut an unset clock knows less");
        }
        self.look_at_files().await;
        if let Some(place) = self.place.clone() {
            let looked = match Slots::open(&place) {
                Ok(mut slots) => self.look_at_slots(&mut slots).await,
                Err(error) => Err(error),
            };
            self.slot_problem = looked.err().map(|error| error.text());
        }
        self.tell();
        self.show();
    }

    async fn look_at_files(&mut self) {
        let stamps = self.credentials.stamps();
        if self.stamps.as_ref() == Some(&stamps) {
            return;
        }
        // What the uplink began with is what is read here, or there is nothing yet.
        if !std::mem::replace(&mut self.has_begun, true) && self.credentials.client_config().is_ok() {
            (self.stamps, self.file_problem) = (Some(stamps), None);
            return;
        }
        match self.credentials.read() {
            Err(error) => {
                (self.stamps, self.file_problem) = (Some(stamps), Some(error.text()));
                warn!(%error, "the new files are not used; what was in use stays");
            }
            Ok(loaded) if !self.parts.prove.is_online() => {
                (self.stamps, self.file_problem) = (Some(stamps), None);
                info!("new files for TLS are in use");
                self.credentials.adopt(loaded);
            }
            Ok(loaded) => {
                let candidate = self.credentials.with_own(self.credentials.source().own.clone());
                candidate.adopt(loaded.clone());
                match self.parts.prove.prove(&candidate).await {
                    Verdict::Proven => {
                        (self.stamps, self.file_problem) = (Some(stamps), None);
                        info!("new files for TLS are proven and in use");
                        self.credentials.adopt(loaded);
                    }
                    Verdict::Refused(why) | Verdict::Distrusted(why) => {
                        warn!(%why, "the new files for TLS fail; what was in use stays");
                        self.stamps = Some(stamps);
                        self.file_problem = Some(Text {
                            zh: format!("[uplink.tls] 的新文件经试用失败（{why}）；放回旧文件，或换用正确的文件"),
                            en: format!(
                                "the new files in [uplink.tls] were tried and fail: {why}; put the old ones back, or better ones"
                            ),
                        });
                    }
                    // Tried again at the next look.
                    Verdict::Undecided(why) => {
                        self.file_problem = Some(Text {
                            zh: format!("正在试用新的 TLS 文件（{why}）；请稍候"),
                            en: format!("new files for TLS are being tried: {why}; wait"),
                        });
                    }
                }
            }
        }
    }

    async fn look_at_slots(&mut self, slots: &mut Slots) -> Result<(), SlotError> {
        self.try_next(slots).await?;
        if self.enrolment.is_some() && slots.next()?.is_none() {
            self.renew(slots).await?;
            self.try_next(slots).await?;
        }
        self.status.refused = slots.refused();
        self.status.next = slots.next()?.map(|pair| NextStatus {
            certificate: pair.facts,
            trials: self.trial.trials,
            last: self.trial.last.clone(),
        });
        Ok(())
    }

    async fn try_next(&mut self, slots: &mut Slots) -> Result<(), SlotError> {
        let Some(next) = slots.next()? else { return Ok(()) };
        if self.trial.serial != next.facts.serial {
            self.trial = Trial { serial: next.facts.serial.clone(), ..Trial::default() };
        }
        let Some(place) = self.place.clone() else { return Ok(()) };
        if !self.trial.wait.is_due(self.parts.clock.uptime()) {
            return Ok(());
        }
        let candidate = self.credentials.with_own(Own::Slot(Slots::next_file(&place)));
        let verdict = self.parts.prove.prove(&candidate).await;
        self.trial.trials += 1;
        let why = match verdict {
            Verdict::Proven => return self.promote(slots, &next),
            Verdict::Refused(why) => {
                self.trial.refusals += 1;
                why
            }
            Verdict::Distrusted(why) | Verdict::Undecided(why) => why,
        };
        warn!(serial = %next.facts.serial, %why, trial = self.trial.trials, "the new certificate is not proven");
        self.trial.last = Some(why.clone());
        self.trial.wait.again(self.parts.clock.uptime(), TRIAL_AGAIN, self.seed);
        let is_clear = self.trial.refusals >= REFUSALS_MAX || self.trial.trials >= TRIALS_MAX;
        // Without the old one at work, the new one is all there is.
        if is_clear && self.parts.prove.is_online() {
            let (at, serial) = (self.credentials.time().reading().earliest(), next.facts.serial);
            warn!(%serial, reason = %why, "the new certificate is given up; the old one stays in use");
            slots.refuse(&RefusedNext { at, serial, reason: why })?;
            self.renewal.times = 6;
            self.renewal.again(self.parts.clock.uptime(), RENEW_AGAIN, self.seed);
        }
        Ok(())
    }

    fn promote(&mut self, slots: &mut Slots, next: &Pair) -> Result<(), SlotError> {
        slots.promote()?;
        info!(serial = %next.facts.serial, until = %next.facts.not_after_at, "the new certificate is proven and in use");
        (self.trial, self.renewal) = (Trial::default(), Wait::default());
        match self.credentials.read() {
            Ok(loaded) => {
                self.credentials.adopt(loaded);
                (self.stamps, self.file_problem) = (Some(self.credentials.stamps()), None);
            }
            Err(error) => self.file_problem = Some(error.text()),
        }
        Ok(())
    }

    async fn renew(&mut self, slots: &mut Slots) -> Result<(), SlotError> {
        let (Some(enrolment), uptime) = (self.enrolment.clone(), self.parts.clock.uptime()) else { return Ok(()) };
        let current = slots.current()?;
        let now = self.credentials.time().reading().earliest();
        let is_due = current.as_ref().is_none_or(|pair| now >= expiry::renew_at(&pair.facts, self.seed));
        if !is_due {
            self.renewal_problem = None;
            return Ok(());
        }
        if !self.renewal.is_due(uptime) {
            return Ok(());
        }
        self.renewal.again(uptime, RENEW_AGAIN, self.seed);
        match self.ask_for_certificate(&enrolment, slots, current.as_ref()).await {
            Ok(None) => self.renewal_problem = None,
            Ok(Some(wait)) => {
                info!(wait_s = wait.as_secs(), "the authority wants a person to approve the certificate");
                let wait = SignedDuration::try_from(wait)
                    .unwrap_or(RENEW_AGAIN.1)
                    .clamp(RENEW_AGAIN.0, SignedDuration::from_hours(24));
                self.renewal.due = Some(uptime + wait);
            }
            Err(why) => {
                warn!(why = %why.en, "no new certificate yet");
                self.renewal_problem = Some(why);
            }
        }
        Ok(())
    }

    /// `Ok(Some(wait))` when a person must approve first.
    async fn ask_for_certificate(
        &self,
        enrolment: &Enrolment,
        slots: &mut Slots,
        current: Option<&Pair>,
    ) -> Result<Option<Duration>, Text> {
        let time = self.credentials.time();
        let client = enrolment.client(time.clone()).map_err(|e| e.text())?;
        let proof_of_current = current.filter(|pair| pair.facts.not_after_at > time.reading().earliest());
        let password = enrolment
            .password()
            .map_err(|en| Text {
                zh: format!("无法读取一次性密码文件（{en}）；请允许网关用户读取"), en
            })?;
        let proof = match (proof_of_current, &password) {
            (Some(pair), _) => Proof::Certificate(pair),
            (None, Some(password)) => Proof::Password { user: &enrolment.username, password },
            (None, None) => {
                return Err(Text {
                    zh: "没有可续期的证书，也没有一次性密码；请将密码写入 uplink.tls.enrol.password_file".into(),
                    en: "there is no certificate to renew and no one-time password; write one into uplink.tls.enrol.password_file".into(),
                });
            }
        };
        let key = slots.request_key(false).map_err(|e| e.text())?;
        let request = key.request(&self.status.name).map_err(|e| e.text())?;
        let issued = match client.enrol(&request, proof).await.map_err(|e| e.text())? {
            Outcome::Later(wait) => return Ok(Some(wait)),
            Outcome::Issued(issued) => issued,
        };
        let authorities = enrolment.authorities(&client, &self.credentials).await;
        let origin = enrolment.place.to_string();
        let wanted = wanted_by(&self.status.name, &authorities, &origin, time.reading());
        let facts = slots.offer(&issued, wanted).map_err(|e| e.text())?;
        info!(serial = %facts.serial, until = %facts.not_after_at, "a new certificate was issued; it is tried now");
        Ok(None)
    }

    /// Tells the decider what it does not know yet.
    fn tell(&mut self) {
        let now = self.credentials.time().reading().earliest();
        self.status.current = self.credentials.facts();
        self.status.level = self.status.current.as_ref().map_or(Level::Good, |facts| expiry::level(facts, now));
        let is_renewing = self.enrolment.is_some() && self.place.is_some();
        let renews = self.status.current.as_ref().filter(|_| is_renewing);
        self.status.renews_at = renews.map(|facts| expiry::renew_at(facts, self.seed));
        let (level, detail) = match (&self.status.current, &self.status.refused) {
            (Some(facts), _) if self.status.level > Level::Good => (self.status.level, self.status.level.detail(facts)),
            (_, Some(refused)) => (
                Level::Month,
                Text {
                    zh: format!("新证书 {} 被平台拒绝，已退回旧证书", refused.serial),
                    en: format!(
                        "the new certificate {} was refused; the old one stays in use: {}",
                        refused.serial, refused.reason
                    ),
                },
            ),
            (Some(facts), None) => (Level::Good, Level::Good.detail(facts)),
            (None, None) => {
                (Level::Good, Text { zh: "网关没有证书".into(), en: "the gateway has no certificate".into() })
            }
        };
        let news = (level, detail.en.clone());
        if self.told.as_ref() != Some(&news) && (self.parts.tell)(level.cap(), detail) {
            self.told = Some(news);
        }
    }

    fn show(&mut self) {
        // Why there is no certificate says more than that there is none.
        let problems = [&self.slot_problem, &self.renewal_problem, &self.file_problem];
        let problem = problems.into_iter().flatten().next().cloned();
        (self.status.problem_zh, self.status.problem) = problem.map(|text| (text.zh, text.en)).unzip();
        self.status.clock_known = matches!(self.credentials.time().reading(), super::time::Reading::Known(_));
        let status = self.status.clone();
        self.parts.status.send_if_modified(|shown| {
            let is_news = *shown != status;
            *shown = status;
            is_news
        });
    }
}

impl Enrolment {
    /// A client of the server.
    ///
    /// # Errors
    /// When its authorities cannot be read.
    pub fn client(&self, time: super::TrustedTime) -> Result<Client, super::TlsProblem> {
        Ok(Client { place: self.place.clone(), roots: roots(&self.ca)?, time })
    }

    /// The one-time password; `None` where no file is named.
    ///
    /// # Errors
    /// What to do when the file cannot be read.
    pub fn password(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(file) = &self.password_file else { return Ok(None) };
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Some(Zeroizing::new(text.trim().to_owned()))),
            // Used up and removed, as it should be.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}; let the gateway's user read it", file.display())),
        }
    }

    /// Authorities that may have signed our certificate: those the server publishes, the server's own, and the broker's.
    pub async fn authorities(&self, client: &Client, credentials: &Credentials) -> Vec<CertificateDer<'static>> {
        let mut all = client.roots.clone();
        all.extend(roots(&credentials.source().ca).unwrap_or_default());
        match client.authorities().await {
            Ok(published) => all.extend(published),
            Err(error) => warn!(%error, "the enrolment server does not say who its authorities are"),
        }
        all
    }
}

#[cfg(test)]
#[path = "tests/keeper.rs"]
mod tests;
