//! Orders of somebody who stands at the box, and what the box says of itself.
//!
//! Owns what each does and its answer: silence on site, take a device out of service, test it, give it back, hold a drill. What changes which alarms
//! count is journaled with who and why, so that the centre knows. Refuses nothing that the rules allow, and says the remedy where they do not.

use std::time::Duration;

use gengfu_alarm::{Output, Service, Terms};
use gengfu_contract::command::Outcome;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{Severity, Text, Urgency};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::Decider;

/// What is ordered or told at the box itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalOrder {
    /// Silence the sounders for the alarms there are now. Lamps stay, and what is raised later sounds.
    Silence {
        /// Of this dwelling only.
        dwelling: Option<String>,
        /// For how long; the configuration limits it.
        lasts: Duration,
    },
    /// Take a device, with all it carries, out of service (at most 4 h), or test it (at most 30 min).
    Serve {
        /// The device.
        device: Slug,
        /// Which of both.
        service: Service,
        /// For how long.
        lasts: Duration,
        /// Why.
        reason: String,
        /// Who.
        who: String,
    },
    /// Give it back.
    GiveBack {
        /// The device.
        device: Slug,
        /// Who.
        who: String,
    },
    /// Test the whole path now.
    Drill,
    /// What the keeper of the gateway's certificate says: how urgent it is, or that all is well.
    Certificate {
        /// CAP words; `None` when there is nothing to tell (any more).
        cap: Option<(Urgency, Severity)>,
        /// For people.
        detail: Text,
    },
}

/// An order and the place for its answer: `Err` says why not and what to do.
#[derive(Debug)]
pub struct LocalRequest {
    /// What.
    pub order: LocalOrder,
    /// Answered once it is durable.
    pub answer: oneshot::Sender<Result<(), Text>>,
}

/// What came of an order, before it is durable.
pub(super) struct Judgement {
    pub result: Result<(), Text>,
    pub outputs: Vec<Output>,
    /// To be journaled as said of the device.
    pub said: Option<(Slug, &'static str, Option<i64>)>,
}

impl Judgement {
    fn plain(result: Result<(), Text>) -> Self {
        Self { result, outputs: Vec::new(), said: None }
    }
}

impl Decider {
    /// Carries out an order; what comes of it is to be appended by the caller.
    pub(super) fn obey(&mut self, now: Timestamp, order: &LocalOrder) -> Judgement {
        let (answer, said) = match order {
            LocalOrder::Silence { dwelling, lasts } => {
                tracing::warn!(?dwelling, ?lasts, "sounders are silenced on site");
                self.silence(now, dwelling.as_deref(), *lasts);
                return Judgement::plain(Ok(()));
            }
            LocalOrder::Drill => return Judgement::plain(self.drill.order()),
            LocalOrder::Certificate { cap, detail } => {
                let outputs = self.engine.report_certificate(now, &self.identity.gateway, *cap, detail);
                return Judgement { outputs, ..Judgement::plain(Ok(())) };
            }
            LocalOrder::Serve { device, service, lasts, reason, who } => {
                let lasts = SignedDuration::try_from(*lasts).unwrap_or(SignedDuration::MAX);
                let until = now.checked_add(lasts).unwrap_or(Timestamp::MAX);
                let terms = Terms { until, reason: reason.clone(), who: who.clone() };
                let word = match service {
                    Service::Out => "service.out",
                    Service::Test => "service.test",
                };
                (self.engine.serve(now, device, *service, &terms), (device.clone(), word, Some(lasts.as_secs())))
            }
            LocalOrder::GiveBack { device, .. } => {
                (self.engine.end_service(now, device), (device.clone(), "service.back", None))
            }
        };
        tracing::warn!(?order, outcome = ?answer.outcome, "order on site");
        if answer.outcome == Outcome::Done {
            return Judgement { result: Ok(()), outputs: answer.outputs, said: Some(said) };
        }
        let unsaid = || Text { zh: "无法执行".into(), en: "it cannot be done".into() };
        Judgement::plain(Err(answer.reason.unwrap_or_else(unsaid)))
    }
}
