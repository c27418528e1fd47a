//! How the uplink is, in words and figures: what `status` and `doctor` print and what decides the lamp.
//!
//! Owns the choice of the one state that matters most, and its remedy. Refuses to act on it.

use gengfu_contract::state::Presence;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::advice::{Advice, Cause};
use super::brokers::{BrokerStatus, Switch};
use super::connection::Refusal;
use super::delivery::Figures;
use super::options::BrokerConfig;
use crate::config::Protocol;

/// What the uplink is doing, most important first when several are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// A broker is tried that has not answered yet: the first one, or another one after a switch.
    Connecting,
    /// No connection; trying again.
    Offline,
    /// The outbox cannot be read or written.
    StoreFault,
    /// Connected, but the broker refused the subscription to commands: no receipt can arrive.
    NotListening,
    /// Connected, but the broker refuses some of what is published.
    Refused,
    /// Connected, but receipts of the dispatch centre are overdue; the cause tells why.
    NoReceipts,
    /// All well (perhaps on another broker than the preferred one: the cause tells).
    Online,
    /// Shut down.
    Stopped,
}

/// State of the uplink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// What it is doing.
    pub state: LinkState,
    /// Since when.
    pub since: Timestamp,
    /// Why, where something is wrong.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// What is wrong, where something is.
    pub detail: Option<String>,
    /// What a person can do about it.
    pub remedy: Option<String>,
    /// `detail` in Chinese.
    #[serde(default)]
    pub detail_zh: Option<String>,
    /// `remedy` in Chinese.
    #[serde(default)]
    pub remedy_zh: Option<String>,
    /// The broker in use, `host:port`.
    pub broker: String,
    /// Since when this broker is used.
    pub broker_since: Timestamp,
    /// The list of brokers in order of preference; empty when there is only one.
    #[serde(default)]
    pub brokers: Vec<BrokerStatus>,
    /// The last change of brokers.
    #[serde(default)]
    pub switched: Option<Switch>,
    /// "5" or "3.1.1".
    pub protocol: String,
    /// Connected, and the broker has taken the subscription to commands: receipts can arrive.
    #[serde(default)]
    pub listening: bool,
    /// Connections accepted by the broker since the start.
    pub connects: u64,
    /// Items on the way to the broker.
    pub in_flight: usize,
    /// Items the broker has and the centre has not confirmed.
    pub awaiting_receipt: usize,
    /// Items the broker refused, waiting for another try.
    pub held: usize,
    /// Pictures that could not be sent and were given up since the start.
    #[serde(default)]
    pub abandoned: u64,
    /// Items whose receipt is overdue.
    pub overdue: usize,
    /// Of these, life safety: "transmission failed" on the box.
    pub overdue_life_safety: usize,
    /// The broker's last PUBACK.
    pub last_puback_at: Option<Timestamp>,
    /// The centre's last receipt.
    pub last_receipt_at: Option<Timestamp>,
    /// Publishes the broker refused since the start.
    pub refused: u64,
    /// The last of them, and why.
    pub last_refusal: Option<String>,
    /// The dispatch centre's own word on its presence; absent when it said nothing on this connection.
    pub centre: Option<Presence>,
    /// From sensed to the centre's receipt, over the last life-safety items; absent before the first.
    pub latency: Option<Latency>,
    /// What the broker's PUBACKs take, ms: of each second the slowest, smoothed; absent before the first.
    #[serde(default)]
    pub puback_ms: Option<u64>,
    /// After so long without one, ms, the connection is made anew: for life safety, and else.
    #[serde(default)]
    pub puback_patience_ms: Option<(u64, u64)>,
}

/// Percentiles of latencies, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many (at most 256).
    pub count: usize,
    /// Half were at most this.
    pub p50_ms: u64,
    /// 99 of 100 were at most this.
    pub p99_ms: u64,
}

impl UplinkStatus {
    /// The status before the first attempt.
    #[must_use]
    pub fn starting(broker: &BrokerConfig, now: Timestamp) -> Self {
        let protocol = match broker.protocol {
            Protocol::Mqtt5 => "5",
            Protocol::Mqtt311 => "3.1.1",
        };
        Self {
            state: LinkState::Connecting,
            since: now,
            cause: None,
            detail: None,
            remedy: None,
            detail_zh: None,
            remedy_zh: None,
            broker: format!("{}:{}", broker.host, broker.port),
            broker_since: now,
            brokers: Vec::new(),
            switched: None,
            protocol: protocol.to_owned(),
            listening: false,
            connects: 0,
            in_flight: 0,
            awaiting_receipt: 0,
            held: 0,
            abandoned: 0,
            overdue: 0,
            overdue_life_safety: 0,
            last_puback_at: None,
            last_receipt_at: None,
            refused: 0,
            last_refusal: None,
            centre: None,
            latency: None,
            puback_ms: None,
            puback_patience_ms: None,
        }
    }

    /// The centre has said on this connection that it is away, or its will did, and nothing since suggests otherwise.
    #[must_use]
    pub fn centre_is_away(&self) -> bool {
        self.centre == Some(Presence::Offline)
    }

    pub(super) fn enter(&mut self, state: LinkState, now: Timestamp, advice: Option<Advice>) {
        if self.state != state {
            self.since = now;
            self.state = state;
        }
        self.cause = advice.as_ref().map(|advice| advice.cause);
        let (problem, remedy) = advice.map(|advice| (advice.problem, advice.remedy)).unzip();
        (self.detail_zh, self.detail) = problem.map(|text| (text.zh, text.en)).unzip();
        (self.remedy_zh, self.remedy) = remedy.map(|text| (text.zh, text.en)).unzip();
    }

    pub(super) fn count(&mut self, figures: Figures) {
        self.in_flight = figures.in_flight;
        self.awaiting_receipt = figures.awaiting_receipt;
        self.held = figures.held;
        self.abandoned = figures.abandoned;
        self.overdue = figures.overdue;
        self.overdue_life_safety = figures.overdue_life_safety;
    }

    /// The state of a standing connection.
    pub(super) fn judge(&mut self, now: Timestamp, known: &Known) {
        let (state, advice) = if let Some(fault) = known.store_fault {
            (LinkState::StoreFault, Cause::StoreFault.advice(fault))
        } else if let Some(reason) = known.not_listening {
            (LinkState::NotListening, Cause::SubscriptionRefused.advice(reason))
        } else if let Some((topic, refusal)) = known.item_refused.filter(|_| self.held > 0) {
            let detail = format!("{topic}: {}; {} item(s)", refusal.text, self.held);
            (LinkState::Refused, refusal.cause.advice(&detail))
        } else if self.held > 0 {
            let items = format!("{}: {} item(s)", known.event_topic, self.held);
            (LinkState::Refused, Cause::BrokerHangsUp.advice(&items))
        } else if let Some((topic, refusal)) = known.refused {
            (LinkState::Refused, refusal.cause.advice(&format!("{topic}: {}", refusal.text)))
        } else if known.nobody_subscribed {
            let items = format!("{}: {} item(s)", known.event_topic, self.awaiting_receipt);
            (LinkState::NoReceipts, Cause::NobodySubscribed.advice(&items))
        } else if self.overdue > 0 {
            (
                LinkState::NoReceipts,
                known.why_no_receipts.advice(&format!("{} item(s); {}", self.overdue, known.event_topic)),
            )
        } else if let Some(switch) = known.away_from_preferred {
            let detail = format!("{} → {}: {}", switch.from, switch.to, switch.why.text().en);
            (LinkState::Online, Cause::OnOtherBroker.advice(&detail))
        } else {
            self.enter(LinkState::Online, now, None);
            return;
        };
        self.enter(state, now, Some(advice));
    }
}

/// What the pump knows of a standing connection, worst first.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// The outbox fails.
    pub store_fault: Option<&'a str>,
    /// The subscription to commands was refused.
    pub not_listening: Option<&'a str>,
    /// Why items are held, where the broker told.
    pub item_refused: Option<(&'a str, &'a Refusal)>,
    /// A topic of the board, of answers or of the gateway's presence that the broker refuses now.
    pub refused: Option<(&'a str, &'a Refusal)>,
    /// The broker says that nobody is subscribed to our events.
    pub nobody_subscribed: bool,
    /// Why receipts are missing, if they are.
    pub why_no_receipts: Cause,
    /// Another broker than the preferred one is in use since this change.
    pub away_from_preferred: Option<&'a Switch>,
    /// Where events go.
    pub event_topic: &'a str,
}

#[cfg(test)]
mod tests {
    use super::super::brokers::Why;
    use super::super::testing::at;
    use super::*;

    fn status(protocol: Protocol) -> UplinkStatus {
        UplinkStatus::starting(&BrokerConfig::new("h", 1883, protocol, "c"), at(0))
    }

    fn known() -> Known<'static> {
        Known {
            store_fault: None,
            not_listening: None,
            item_refused: None,
            refused: None,
            nobody_subscribed: false,
            why_no_receipts: Cause::CentreSilent,
            away_from_preferred: None,
            event_topic: "gengfu/v1/s/g/event",
        }
    }

    #[test]
    fn since_moves_only_when_the_state_does() {
        let mut status = status(Protocol::Mqtt5);
        status.judge(at(1), &known());
        status.judge(at(2), &known());
        assert_eq!((status.state, status.since), (LinkState::Online, at(1)));
        assert_eq!((status.cause, status.detail_zh.as_ref()), (None, None));
    }

    #[test]
    fn the_worst_is_told_first_and_every_fault_has_a_remedy_in_both_languages() {
        let mut status = status(Protocol::Mqtt5);
        let switch = Switch { from: "a:1".into(), to: "b:1".into(), why: Why::NoPuback, at: at(0) };
        let elsewhere = Known { away_from_preferred: Some(&switch), ..known() };
        let told = |status: &UplinkStatus, state, cause: Cause| {
            assert_eq!((status.state, status.cause), (state, Some(cause)));
            assert!(status.detail.is_some() && status.remedy.is_some(), "{status:?}");
            assert!(status.detail_zh.is_some() && status.remedy_zh.is_some(), "{status:?}");
        };
        status.judge(at(1), &elsewhere);
        told(&status, LinkState::Online, Cause::OnOtherBroker);
        assert!(status.detail.as_ref().is_some_and(|text| text.contains("a:1 → b:1")), "{status:?}");
        status.judge(at(1), &Known { nobody_subscribed: true, away_from_preferred: Some(&switch), ..known() });
        told(&status, LinkState::NoReceipts, Cause::NobodySubscribed);
        status.count(Figures { overdue: 1, ..Figures::default() });
        status.judge(at(1), &elsewhere);
        told(&status, LinkState::NoReceipts, Cause::CentreSilent);
        status.count(Figures { overdue: 1, held: 2, ..Figures::default() });
        status.judge(at(1), &elsewhere);
        told(&status, LinkState::Refused, Cause::BrokerHangsUp);
        let refusal = Refusal { cause: Cause::QuotaExceeded, text: "QuotaExceeded".into() };
        let refused = Known { item_refused: Some(("t", &refusal)), ..elsewhere };
        status.judge(at(1), &refused);
        told(&status, LinkState::Refused, Cause::QuotaExceeded);
        let deaf = Known { not_listening: Some("NotAuthorized"), ..refused };
        status.judge(at(1), &deaf);
        told(&status, LinkState::NotListening, Cause::SubscriptionRefused);
        assert!(status.remedy.as_ref().unwrap().contains("ACL"));
        status.judge(at(1), &Known { store_fault: Some("disk gone"), ..deaf });
        told(&status, LinkState::StoreFault, Cause::StoreFault);
        assert!(status.detail.as_ref().is_some_and(|text| text.contains("disk gone")), "{status:?}");
    }
}
