//! Which broker of the list is used, and when it is left for another.
//!
//! Owns the order of preference, the account of failures, and the way back to the preferred broker. Pure: it is told what happened and when, and answers with
//! an index. It refuses to connect to anything and to know what is delivered; what a switch means for deliveries is simple, because each new
//! connection begins from the outbox anyway.
//!
//! The rules: a broker is left after [`Policy::attempts`] connections in a row that did not come about, or at once when it took messages and acknowledged none
//! in time, or when it led to no receipt for [`Policy::receipts_within`] though items waited for one. Then comes the next of the list that did not fail
//! more recently. It is stayed with until it fails itself, or until [`Policy::return_after`] has passed, the preferred one answers, and nothing is under
//! way. A return that fails doubles the time to the next one, up to a day, so that a half-dead broker is not visited for ever.
//! Brokers without receipts are tried in turn with doubling pauses: when it is the centre that is away, changing brokers does not help.

use std::time::Duration;

use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::advice::text;
use super::backoff::{between, later};

/// The longest time between two returns, and between two switches for want of receipts.
const PAUSE_MAX: Duration = Duration::from_secs(86_400);
/// The longest time between two switches for want of receipts.
const NO_RECEIPT_PAUSE_MAX: Duration = Duration::from_secs(900);

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// When to change brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failed connections in a row before the next broker is tried.
    pub attempts: u32,
    /// Items wait for receipts and none came on this connection for so long: the next broker is tried.
    pub receipts_within: Duration,
    /// After so long on another broker the preferred one is tried again.
    pub return_after: Duration,
}

impl Default for Policy {
    /// 3 attempts, 30 s without receipts, return after 10 min.
    fn default() -> Self {
        Self { attempts: 3, receipts_within: Duration::from_secs(30), return_after: Duration::from_secs(600) }
    }
}

/// Why a broker was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Connections did not come about.
    Unreachable,
    /// It took messages and acknowledged none in time.
    NoPuback,
    /// It led to no receipts.
    NoReceipts,
    /// The preferred one is back.
    Return,
}

impl Why {
    /// For people.
    #[must_use]
    pub fn text(self) -> Text {
        match self {
            Why::Unreachable => text("无法连接", "no connection came about"),
            Why::NoPuback => text("接受消息但不确认", "it took messages and acknowledged none"),
            Why::NoReceipts => text("没有中心回执", "no receipt of the centre came through it"),
            Why::Return => text("首选服务器恢复", "the preferred broker answers again"),
        }
    }
}

/// A change of brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Left.
    pub from: String,
    /// Gone to.
    pub to: String,
    /// Why.
    pub why: Why,
    /// When.
    pub at: Timestamp,
}

/// A broker of the list, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// `host:port`.
    pub address: String,
    /// It is the one in use.
    pub in_use: bool,
    /// When it was last left because it failed.
    pub failed_at: Option<Timestamp>,
    /// What failed then.
    pub why: Option<Why>,
}

/// A broker, and when and why it was last left.
type Listed = (Address, Option<(Timestamp, Why)>);

/// The list, and where we are in it.
#[derive(Debug)]
pub struct Brokers {
    list: Vec<Listed>,
    current: usize,
    policy: Policy,
    failures: u32,
    last: Option<Switch>,
    /// Since when this broker is used.
    since: Timestamp,
    /// Returns in a row that failed.
    vain_returns: u32,
    /// Switches in a row for want of receipts, without one in between.
    vain_switches: u32,
    /// When a return was last tried or began to be counted.
    return_from: Timestamp,
}

impl Brokers {
    /// A list in order of preference.
    #[must_use]
    pub fn new(preferred: Address, others: &[Address], policy: Policy, now: Timestamp) -> Self {
        let list = std::iter::once(preferred).chain(others.iter().cloned()).map(|address| (address, None)).collect();
        Self {
            list,
            current: 0,
            policy,
            failures: 0,
            last: None,
            since: now,
            vain_returns: 0,
            vain_switches: 0,
            return_from: now,
        }
    }

    /// The broker in use.
    #[must_use]
    pub fn current(&self) -> &Address {
        &self.list[self.current].0
    }

    /// The preferred broker.
    #[must_use]
    pub fn preferred(&self) -> &Address {
        &self.list[0].0
    }

    /// The broker in use is the preferred one.
    #[must_use]
    pub fn is_preferred(&self) -> bool {
        self.current == 0
    }

    /// The last change.
    #[must_use]
    pub fn last_switch(&self) -> Option<&Switch> {
        self.last.as_ref()
    }

    /// The list for the status; empty when there is nothing to choose from.
    #[must_use]
    pub fn status(&self) -> Vec<BrokerStatus> {
        if self.list.len() < 2 {
            return Vec::new();
        }
        let one = |(n, (address, failed)): (usize, &Listed)| BrokerStatus {
            address: address.to_string(),
            in_use: n == self.current,
            failed_at: failed.map(|(at, _)| at),
            why: failed.map(|(_, why)| why),
        };
        self.list.iter().enumerate().map(one).collect()
    }

    /// The broker acknowledged a message: it works, as far as it goes.
    pub fn acknowledged(&mut self) {
        self.failures = 0;
    }

    /// A receipt came through it: it works.
    pub fn receipt(&mut self) {
        self.vain_switches = 0;
        if self.is_preferred() {
            self.vain_returns = 0;
        }
    }

    /// A connection did not come about, or ended. `stalled`: it took messages and acknowledged none in time. Gives the switch, if there is one.
    pub fn failed(&mut self, stalled: bool, now: Timestamp) -> Option<Switch> {
        self.failures = self.failures.saturating_add(1);
        let why = if stalled { Why::NoPuback } else { Why::Unreachable };
        (stalled || self.failures >= self.policy.attempts).then(|| self.leave(why, now)).flatten()
    }

    /// How long this broker may lead to no receipt; longer after each switch that did not help.
    #[must_use]
    pub fn receipts_within(&self) -> Duration {
        let doublings = self.vain_switches.min(16);
        self.policy
            .receipts_within
            .saturating_mul(1 << doublings)
            .min(NO_RECEIPT_PAUSE_MAX.max(self.policy.receipts_within))
    }

    /// Items have waited for receipts for `waited` on this connection and none came. Gives the switch, if there is one.
    pub fn without_receipts(&mut self, waited: Duration, now: Timestamp) -> Option<Switch> {
        if waited < self.receipts_within() {
            return None;
        }
        let switch = self.leave(Why::NoReceipts, now)?;
        self.vain_switches = self.vain_switches.saturating_add(1);
        Some(switch)
    }

    /// When the preferred broker should be looked at; absent when it is in use.
    #[must_use]
    pub fn return_at(&self) -> Option<Timestamp> {
        let wait = self.policy.return_after.saturating_mul(1 << self.vain_returns.min(16)).min(PAUSE_MAX);
        (!self.is_preferred()).then(|| later(self.return_from, wait))
    }

    /// The preferred broker was looked at and does not answer: again after the usual time.
    pub fn return_is_vain(&mut self, now: Timestamp) {
        self.return_from = now;
    }

    /// The preferred broker answered and is used from now on.
    pub fn returned(&mut self, now: Timestamp) -> Option<Switch> {
        if self.is_preferred() {
            return None;
        }
        // Taken back by the first receipt.
        self.vain_returns = self.vain_returns.saturating_add(1);
        Some(self.go_to(0, Why::Return, now))
    }

    /// The wall clock was set back: what lies in the future is moved to now.
    pub fn notice_clock(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.return_from = self.return_from.min(now);
    }

    fn leave(&mut self, why: Why, now: Timestamp) -> Option<Switch> {
        self.failures = 0;
        if self.list.len() < 2 {
            return None;
        }
        self.list[self.current].1 = Some((now, why));
        // The one that failed longest ago, or never; of several the most preferred. Never the same again.
        let failed_at = |n: usize| self.list[n].1.map_or(Timestamp::MIN, |(at, _)| at);
        let next = (0..self.list.len()).filter(|n| *n != self.current).min_by_key(|n| (failed_at(*n), *n))?;
        Some(self.go_to(next, why, now))
    }

    fn go_to(&mut self, next: usize, why: Why, now: Timestamp) -> Switch {
        let from = self.current().to_string();
        self.current = next;
        self.failures = 0;
        (self.since, self.return_from) = (now, now);
        let switch = Switch { from, to: self.current().to_string(), why, at: now };
        self.last = Some(switch.clone());
        switch
    }

    /// How long the broker in use is used.
    #[must_use]
    pub fn used_for(&self, now: Timestamp) -> Duration {
        between(self.since, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    fn address(host: &str) -> Address {
        Address { host: host.into(), port: 8883 }
    }

    fn brokers(others: &[&str]) -> Brokers {
        let others: Vec<_> = others.iter().map(|host| address(host)).collect();
        Brokers::new(address("a"), &others, Policy::default(), at(0))
    }

    fn host(brokers: &Brokers) -> &str {
        &brokers.current().host
    }

    #[test]
    fn a_broker_is_left_after_three_failures_in_a_row_and_one_acknowledgement_begins_anew() {
        let mut brokers = brokers(&["b"]);
        assert!(brokers.failed(false, at(1)).is_none() && brokers.failed(false, at(2)).is_none());
        brokers.acknowledged();
        assert!(brokers.failed(false, at(3)).is_none() && brokers.failed(false, at(4)).is_none());
        let switch = brokers.failed(false, at(5)).unwrap();
        assert_eq!((switch.from.as_str(), switch.to.as_str(), switch.why), ("a:8883", "b:8883", Why::Unreachable));
        assert_eq!(brokers.status()[0].why, Some(Why::Unreachable));
        assert_eq!((host(&brokers), brokers.is_preferred()), ("b", false));
    }

    #[test]
    fn a_broker_that_takes_and_does_not_acknowledge_is_left_at_once() {
        let mut brokers = brokers(&["b"]);
        assert_eq!(brokers.failed(true, at(1)).unwrap().why, Why::NoPuback);
    }

    #[test]
    fn all_brokers_are_tried_in_order_and_then_the_one_that_failed_longest_ago() {
        let mut brokers = brokers(&["b", "c"]);
        let mut order = Vec::new();
        for second in 1..=5 {
            order.push(brokers.failed(true, at(second)).unwrap().to);
        }
        assert_eq!(order, ["b:8883", "c:8883", "a:8883", "b:8883", "c:8883"]);
    }

    #[test]
    fn a_list_of_one_is_never_left() {
        let mut brokers = brokers(&[]);
        assert!((0..100).all(|n| brokers.failed(true, at(n)).is_none()));
        assert!(brokers.without_receipts(Duration::from_secs(1_000_000), at(100)).is_none());
        assert_eq!((host(&brokers), brokers.return_at(), brokers.status().len()), ("a", None, 0));
    }

    #[test]
    fn without_receipts_the_brokers_are_tried_in_turn_with_doubling_pauses() {
        let mut brokers = brokers(&["b"]);
        assert!(brokers.without_receipts(Duration::from_secs(29), at(29)).is_none());
        assert_eq!(brokers.without_receipts(Duration::from_secs(30), at(30)).unwrap().to, "b:8883");
        assert!(brokers.without_receipts(Duration::from_secs(30), at(60)).is_none(), "it is given twice the time");
        assert_eq!(brokers.without_receipts(Duration::from_secs(60), at(90)).unwrap().to, "a:8883");
        (0..30).for_each(|n| drop(brokers.without_receipts(Duration::from_secs(900), at(100 + n))));
        assert_eq!(brokers.receipts_within(), Duration::from_secs(900), "at most a quarter of an hour");
        brokers.receipt();
        assert_eq!(brokers.receipts_within(), Duration::from_secs(30));
    }

    #[test]
    fn it_returns_after_its_time_and_a_return_that_fails_doubles_it() {
        let mut brokers = brokers(&["b"]);
        brokers.failed(true, at(0));
        assert_eq!(brokers.return_at(), Some(at(600)));
        brokers.return_is_vain(at(600));
        assert_eq!(brokers.return_at(), Some(at(1200)));
        assert_eq!(brokers.returned(at(1200)).unwrap().why, Why::Return);
        assert_eq!((host(&brokers), brokers.return_at()), ("a", None));
        brokers.failed(true, at(1210));
        assert_eq!(brokers.return_at(), Some(at(1210 + 1200)), "it promised and did not keep it");
        brokers.returned(at(3000));
        brokers.receipt();
        brokers.failed(true, at(4000));
        assert_eq!(brokers.return_at(), Some(at(4600)), "a receipt restores the trust");
    }

    #[test]
    fn a_clock_set_back_does_not_keep_it_away_from_the_preferred_broker() {
        let mut brokers = brokers(&["b"]);
        brokers.failed(true, at(100_000));
        brokers.notice_clock(at(0));
        assert_eq!((brokers.return_at(), brokers.used_for(at(5))), (Some(at(600)), Duration::from_secs(5)));
    }
}
