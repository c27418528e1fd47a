//! How the uplink is, in words and figures: what `status` and `doctor` print and what decides the lamp.
//!
//! Owns the choice of the one state that matters most, and its remedy. Refuses to act on it.

use std::collections::VecDeque;
use std::time::Duration;

use gengfu_contract::state::Presence;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::delivery::Figures;
use super::options::BrokerConfig;
use crate::config::Protocol;

/// Latencies kept for the percentiles.
const LATENCIES_KEPT: usize = 256;

/// What the uplink is doing, most important first when several are true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// The first connection has not come about yet.
    Connecting,
    /// No connection; trying again.
    Offline,
    /// The outbox cannot be read or written.
    StoreFault,
    /// Connected, but the broker refused the subscription to commands: no receipt can arrive.
    NotListening,
    /// Connected, but the broker refuses some of what is published (MQTT 5).
    Refused,
    /// Connected, but receipts of the dispatch centre are overdue.
    NoReceipts,
    /// All well.
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
    /// What is wrong, where something is.
    pub detail: Option<String>,
    /// What a person can do about it.
    pub remedy: Option<String>,
    /// `host:port`.
    pub broker: String,
    /// "5" or "3.1.1".
    pub protocol: String,
    /// Connections accepted by the broker since the start.
    pub connects: u64,
    /// Items on the way to the broker.
    pub in_flight: usize,
    /// Items the broker has and the centre has not confirmed.
    pub awaiting_receipt: usize,
    /// Items the broker refused, waiting for another try.
    pub held: usize,
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
            detail: None,
            remedy: None,
            broker: format!("{}:{}", broker.host, broker.port),
            protocol: protocol.to_owned(),
            connects: 0,
            in_flight: 0,
            awaiting_receipt: 0,
            held: 0,
            overdue: 0,
            overdue_life_safety: 0,
            last_puback_at: None,
            last_receipt_at: None,
            refused: 0,
            last_refusal: None,
            centre: None,
            latency: None,
        }
    }

    pub(super) fn enter(&mut self, state: LinkState, now: Timestamp, detail: Option<String>, remedy: Option<String>) {
        if self.state != state {
            self.since = now;
            self.state = state;
        }
        (self.detail, self.remedy) = (detail, remedy);
    }

    pub(super) fn count(&mut self, figures: Figures) {
        self.in_flight = figures.in_flight;
        self.awaiting_receipt = figures.awaiting_receipt;
        self.held = figures.held;
        self.overdue = figures.overdue;
        self.overdue_life_safety = figures.overdue_life_safety;
    }

    /// The state of a standing connection.
    pub(super) fn judge(&mut self, now: Timestamp, store_fault: Option<&str>, not_listening: Option<&str>) {
        let (state, detail, remedy) = if let Some(fault) = store_fault {
            (LinkState::StoreFault, Some(fault.to_owned()), "check the disk; then restart the gateway".to_owned())
        } else if let Some(reason) = not_listening {
            let detail = format!("the broker refused the subscription to commands ({reason}); receipts cannot arrive");
            let remedy = "allow this user to read its cmd/# and the site's dispatch/status in the broker's ACL";
            (LinkState::NotListening, Some(detail), remedy.to_owned())
        } else if self.held > 0 {
            let remedy = "allow this user to write its topics in the broker's ACL, and check the broker's packet size";
            let closed = || format!("the broker closes the connection when it is sent {} item(s)", self.held);
            (LinkState::Refused, Some(self.last_refusal.clone().unwrap_or_else(closed)), remedy.to_owned())
        } else if self.overdue > 0 {
            let detail = format!("{} items without the dispatch centre's receipt in time", self.overdue);
            (LinkState::NoReceipts, Some(detail), self.why_no_receipts())
        } else {
            self.enter(LinkState::Online, now, None, None);
            return;
        };
        self.enter(state, now, detail, Some(remedy));
    }

    fn why_no_receipts(&self) -> String {
        if self.centre == Some(Presence::Offline) {
            return "the dispatch centre says it is away: ask it to connect; everything is kept and sent again".into();
        }
        let mut text =
            "check that the dispatch centre runs, subscribes to this site, and may write to cmd/receipt".to_owned();
        if self.protocol == "3.1.1" {
            text += "; also check the broker's ACL for this gateway: on MQTT 3.1.1 a broker drops what it refuses in silence";
        }
        text
    }
}

/// The last latencies of life-safety items.
#[derive(Debug, Default)]
pub(super) struct Latencies(VecDeque<u64>);

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        if self.0.len() == LATENCIES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    }

    pub(super) fn figures(&self) -> Option<Latency> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Latency { count: sorted.len(), p50_ms: rank(50)?, p99_ms: rank(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    fn status(protocol: Protocol) -> UplinkStatus {
        UplinkStatus::starting(&BrokerConfig::new("h", 1883, protocol, "c"), at(0))
    }

    #[test]
    fn since_moves_only_when_the_state_does() {
        let mut status = status(Protocol::Mqtt5);
        status.judge(at(1), None, None);
        status.judge(at(2), None, None);
        assert_eq!((status.state, status.since), (LinkState::Online, at(1)));
    }

    #[test]
    fn the_worst_is_told_first_and_every_fault_has_a_remedy() {
        let mut status = status(Protocol::Mqtt5);
        status.count(Figures { overdue: 1, ..Figures::default() });
        status.judge(at(1), None, None);
        assert_eq!(status.state, LinkState::NoReceipts);
        status.count(Figures { overdue: 1, held: 2, ..Figures::default() });
        status.judge(at(1), None, None);
        assert_eq!(status.state, LinkState::Refused);
        status.judge(at(1), None, Some("NotAuthorized"));
        assert_eq!(status.state, LinkState::NotListening);
        assert!(status.remedy.as_ref().unwrap().contains("ACL"));
        status.judge(at(1), Some("disk gone"), Some("NotAuthorized"));
        assert_eq!((status.state, status.detail.as_deref()), (LinkState::StoreFault, Some("disk gone")));
    }

    #[test]
    fn on_3_1_1_missing_receipts_point_to_the_silent_acl_too() {
        let mut status = status(Protocol::Mqtt311);
        status.count(Figures { overdue: 1, ..Figures::default() });
        status.judge(at(1), None, None);
        assert!(status.remedy.unwrap().contains("in silence"));
    }

    #[test]
    fn percentiles_are_by_nearest_rank_over_the_last_256() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.figures(), None);
        for ms in 1..=1000 {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(latencies.figures(), Some(Latency { count: 256, p50_ms: 872, p99_ms: 998 }));
    }
}
