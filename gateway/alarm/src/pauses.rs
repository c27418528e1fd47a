//! What people and the gateway itself tell the engine about homes and equipment.
//!
//! Owns the pauses of a home's clock (a visit, an absence, an answered call), the view of a home, and the troubles that
//! no sensor event carries. Refuses pauses without an end: a forgotten one would leave a person unwatched for ever.

use gengfu_contract::command::Outcome;
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, CareLevel, Severity, Text, Urgency};
use jiff::{SignedDuration, Timestamp};

use crate::book::{News, Subject};
use crate::engine::{Answer, Engine, done, refused};
use crate::explain::Why;
use crate::home::{Began, Home, Pause, PauseKind};
use crate::output::Output;
use crate::rule::{Decision, care, names, supervision};
use crate::time::{ms, ms_between};
use crate::watching::case;

/// A home as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CareState {
    /// What is told of it now.
    pub level: Option<CareLevel>,
    /// When the clock was last set to nought.
    pub since: Timestamp,
    /// Time since then, ms.
    pub elapsed_ms: i64,
    /// How much of it was watched, ms.
    pub covered_ms: i64,
    /// Share of the last week in which an opening of the door would have been noticed, in whole per cent; `None` in the
    /// first moments.
    pub coverage_percent: Option<u8>,
    /// First level of the running gap, ms of covered time.
    pub first_ms: u64,
    /// Whether that was learned.
    pub learned: bool,
    /// Days with something learned.
    pub learned_days: u32,
    /// The pause that holds.
    pub pause: Option<Pause>,
}

/// A trouble that the gateway or an adapter finds itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A device says that its service life is over.
    EndOfLife,
    /// A smoke head says that its chamber is dirty.
    Contaminated,
    /// A bus answers nobody.
    BusDown,
    /// The gateway's clock is not synchronised.
    Clock,
    /// The centre did not confirm a life-safety alarm of this device in time.
    TxOverdue,
    /// The scheduled test of the whole path failed, or was not held for too long.
    Drill,
    /// The gateway's certificate nears its end; told by [`Engine::report_certificate`], which knows how near.
    Certificate,
}

impl Trouble {
    /// The kind it is raised as.
    #[must_use]
    pub fn kind(self) -> AlarmKind {
        match self {
            Trouble::EndOfLife => AlarmKind::EndOfLife,
            Trouble::Contaminated => AlarmKind::Contaminated,
            Trouble::BusDown => AlarmKind::BusDown,
            Trouble::Clock => AlarmKind::ClockTrouble,
            Trouble::TxOverdue => AlarmKind::TxOverdue,
            Trouble::Drill => AlarmKind::DrillFailed,
            Trouble::Certificate => AlarmKind::CertificateExpiring,
        }
    }

    pub(crate) fn rule(self) -> &'static str {
        match self {
            Trouble::EndOfLife => "device.end_of_life",
            Trouble::Contaminated => "smoke.contaminated",
            Trouble::BusDown => "bus.down",
            Trouble::Clock => "gateway.clock",
            Trouble::TxOverdue => "delivery.overdue",
            Trouble::Drill => "drill.failed",
            Trouble::Certificate => "gateway.certificate",
        }
    }
}

/// The longest pause of a kind.
#[must_use]
pub fn longest_pause(kind: PauseKind) -> SignedDuration {
    match kind {
        PauseKind::Absence => SignedDuration::from_hours(90 * 24),
        PauseKind::Visit | PauseKind::Call => SignedDuration::from_hours(24),
    }
}

impl Engine {
    /// Stops the clock of a home until the pause ends; a pause that ends now only sets it to nought. Clears what is open
    /// about the home. A new pause replaces the one that holds. Refused for a door without a care rule, an end that has
    /// passed, or one too far ahead ([`longest_pause`]).
    pub fn pause_care(&mut self, now: Timestamp, door: &Slug, pause: &Pause) -> Answer {
        self.take_time(now);
        if let Some(refusal) = self.no_home(door) {
            return refusal;
        }
        let longest = longest_pause(pause.kind);
        if pause.until < now || pause.until.duration_since(now) > longest {
            let hours = longest.as_hours();
            return refused(
                Outcome::Refused,
                format!("暂停截止时间须在现在与 {hours} 小时之内"),
                format!("a pause of this kind ends between now and {hours} h ahead: give another end"),
            );
        }
        let mut out = Vec::new();
        self.homes.homes.entry(door.clone()).or_insert_with(|| Home::new(now));
        let mut decision = Decision { rules: &self.rules, book: &mut self.book, now, out: &mut out };
        if let Some(mut case) = case(&self.rules, &mut self.homes, &self.watch, door, now, ClockQuality::Synced) {
            case.home.pause = (pause.until > now).then(|| pause.clone());
            care::paused(&mut decision, &mut case, pause.kind, pause.until);
        }
        self.homes.changed(door);
        done(out)
    }

    /// Ends a pause early; the clock begins at nought. Nothing to do when none holds.
    pub fn resume_care(&mut self, now: Timestamp, door: &Slug) -> Answer {
        self.take_time(now);
        if let Some(refusal) = self.no_home(door) {
            return refusal;
        }
        if let Some(home) = self.homes.homes.get_mut(door)
            && home.pause.take().is_some()
        {
            home.begin(now, Began::Pause);
            self.homes.changed(door);
        }
        done(Vec::new())
    }

    /// What is known of a home; `None` for a door without a care rule or one never heard.
    #[must_use]
    pub fn care_state(&self, now: Timestamp, door: &Slug) -> Option<CareState> {
        let rule = self.rules.timing.care.homes.get(door)?;
        let home = self.homes.homes.get(door)?;
        let rhythm = self.homes.rhythms.get(door).cloned().unwrap_or_default();
        let limits = care::limits(&self.rules.timing.care.zone, rule, &rhythm, home.since);
        let heard_at = self.watch.heard_at(door).unwrap_or(now);
        Some(CareState {
            level: home.level,
            since: home.since,
            elapsed_ms: ms_between(home.since, now).max(0),
            covered_ms: home.covered_ms(now, heard_at),
            coverage_percent: home.coverage.percent(now, heard_at),
            first_ms: ms(limits.first),
            learned: limits.learned,
            learned_days: rhythm.learned_days,
            pause: home.pause.clone(),
        })
    }

    /// Raises or clears a trouble that no sensor event carries. `device` is what it is about, or what stands for the gateway's
    /// own part (the node of a bus). `detail` is for people, in both languages. Telling the same again changes nothing.
    pub fn report(
        &mut self,
        now: Timestamp,
        device: &Slug,
        trouble: Trouble,
        present: bool,
        detail: &Text,
    ) -> Vec<Output> {
        self.take_time(now);
        let mut out = Vec::new();
        let mut decision = Decision { rules: &self.rules, book: &mut self.book, now, out: &mut out };
        let clock = if trouble == Trouble::Clock && present { ClockQuality::Unsynced } else { ClockQuality::Synced };
        let subject = Subject::of(device, trouble.kind());
        let mut why = Why::new(trouble.rule(), detail.zh.clone(), detail.en.clone());
        if trouble == Trouble::BusDown {
            why = why.with("devices", names(self.rules.carried_by(device)));
        }
        let news = News::at(now, clock, None, why);
        let was_active = decision.book.is_active(&subject);
        if present {
            decision.raise(&subject, now, news);
        } else {
            decision.clear(&subject, news);
        }
        if trouble == Trouble::BusDown && present && !was_active {
            supervision::blind(&mut decision, device);
        } else if trouble == Trouble::BusDown && !present && was_active {
            self.watch.excuse_carried_by(device, now);
        }
        out
    }

    /// Raises, worsens or clears the trouble about the gateway's own certificate. `cap` is how urgent and severe it is, `None` that there is
    /// none (any more). Telling the same again changes nothing; another urgency is another revision of the same trouble.
    pub fn report_certificate(
        &mut self,
        now: Timestamp,
        gateway: &Slug,
        cap: Option<(Urgency, Severity)>,
        detail: &Text,
    ) -> Vec<Output> {
        self.take_time(now);
        let mut out = Vec::new();
        let mut decision = Decision { rules: &self.rules, book: &mut self.book, now, out: &mut out };
        let subject = Subject::of(gateway, AlarmKind::CertificateExpiring);
        let why = Why::new(Trouble::Certificate.rule(), detail.zh.clone(), detail.en.clone());
        let news = News { cap, ..News::at(now, ClockQuality::Synced, None, why) };
        let known = decision.book.find(&subject).map(|alarm| (alarm.data.cap.urgency, alarm.data.cap.severity));
        match (cap, decision.book.is_active(&subject)) {
            (None, _) => decision.clear(&subject, news),
            (Some(_), false) => decision.raise(&subject, now, news),
            (Some(cap), true) if known != Some(cap) => decision.update(&subject, news),
            (Some(_), true) => {}
        }
        out
    }

    fn no_home(&self, door: &Slug) -> Option<Answer> {
        let known = self.rules.timing.care.homes.contains_key(door);
        (!known).then(|| {
            refused(
                Outcome::Refused,
                format!("{door} 没有照护规则，请检查名称或配置"),
                format!("{door} has no care rule: check the name, or configure one"),
            )
        })
    }
}
