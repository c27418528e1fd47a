//! How near a certificate's end is, and when its successor is due.
//!
//! Owns the two rules: trouble a month, a week and no time before the end; renewal after two thirds of the validity with a jitter of its
//! own for each gateway, so that a thousand boxes enrolled on one day do not come back in one minute. Refuses to act on either.

use gengfu_contract::words::{Severity, Text, Urgency};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificate::Facts;

/// How near the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Far.
    Good,
    /// Less than 30 days, or a third of a validity shorter than 90 days: it should have been renewed by now.
    Month,
    /// Less than 7 days, or a tenth.
    Week,
    /// Over: brokers refuse it.
    Over,
}

/// How near the end of a certificate is. With an unset clock `now` is the earliest it can be.
#[must_use]
pub fn level(facts: &Facts, now: Timestamp) -> Level {
    let whole = lifetime(facts);
    let left = facts.not_after_at.duration_since(now);
    let days = |n: i64| SignedDuration::from_hours(24 * n);
    if left <= SignedDuration::ZERO {
        Level::Over
    } else if left < days(7).min(whole / 10) {
        Level::Week
    } else if left < days(30).min(whole * 3 / 10) {
        Level::Month
    } else {
        Level::Good
    }
}

/// When to ask for the successor: at two thirds of the validity and up to a thirtieth later, by `seed`.
#[must_use]
pub fn renew_at(facts: &Facts, seed: u64) -> Timestamp {
    let whole = lifetime(facts).as_millis().max(0);
    let jitter = whole / 30 * i128::from(seed % 1000) / 1000;
    let after = i64::try_from(whole * 2 / 3 + jitter).unwrap_or(i64::MAX);
    facts.not_before_at.saturating_add(SignedDuration::from_millis(after)).unwrap_or(facts.not_after_at)
}

fn lifetime(facts: &Facts) -> SignedDuration {
    facts.not_after_at.duration_since(facts.not_before_at)
}

impl Level {
    /// CAP words of the trouble; `None` when there is none.
    #[must_use]
    pub fn cap(self) -> Option<(Urgency, Severity)> {
        match self {
            Level::Good => None,
            Level::Month => Some((Urgency::Future, Severity::Minor)),
            Level::Week => Some((Urgency::Expected, Severity::Moderate)),
            Level::Over => Some((Urgency::Immediate, Severity::Severe)),
        }
    }

    /// What the trouble says.
    #[must_use]
    pub fn detail(self, facts: &Facts) -> Text {
        let day = facts.not_after_at.strftime("%F");
        match self {
            Level::Good => Text {
                zh: format!("网关证书有效期至 {day}"),
                en: format!("the gateway's certificate is valid until {day}"),
            },
            Level::Month => Text {
                zh: format!("网关证书将于 {day} 到期，请续期"),
                en: format!("the gateway's certificate ends on {day}: renew it"),
            },
            Level::Week => Text {
                zh: format!("网关证书将于 {day} 到期，不足七天，请立即续期"),
                en: format!("the gateway's certificate ends on {day}, in less than a week: renew it now"),
            },
            Level::Over => Text {
                zh: format!("网关证书已于 {day} 过期，重新连接时平台将拒绝本网关"),
                en: format!("the gateway's certificate ended on {day}: the broker will refuse the next connection"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(from: &str, to: &str) -> Facts {
        Facts {
            common_name: "a.b".into(),
            issuer: "CN=x".into(),
            serial: "01".into(),
            not_before_at: from.parse().unwrap(),
            not_after_at: to.parse().unwrap(),
        }
    }

    #[test]
    fn a_year_is_told_a_month_a_week_and_no_time_before_its_end() {
        let year = facts("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        let at = |text: &str| level(&year, text.parse().unwrap());
        assert_eq!(at("2026-11-01T00:00:00Z"), Level::Good);
        assert_eq!(at("2026-12-02T00:00:01Z"), Level::Month);
        assert_eq!(at("2026-12-25T00:00:01Z"), Level::Week);
        assert_eq!(at("2027-01-01T00:00:00Z"), Level::Over);
    }

    #[test]
    fn a_short_life_is_no_trouble_from_its_first_day_on() {
        let week = facts("2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z");
        assert_eq!(level(&week, "2026-01-02T00:00:00Z".parse().unwrap()), Level::Good);
        assert_eq!(level(&week, "2026-01-06T12:00:00Z".parse().unwrap()), Level::Month);
        assert_eq!(level(&week, "2026-01-07T12:00:00Z".parse().unwrap()), Level::Week);
    }

    #[test]
    fn renewal_is_due_after_two_thirds_before_any_trouble_and_not_for_all_at_once() {
        let year = facts("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..5000 {
            let at = renew_at(&year, seed);
            assert!(at >= "2026-09-01T00:00:00Z".parse().unwrap(), "{seed}: {at}");
            assert_eq!(level(&year, at), Level::Good, "{seed}: {at}");
            seen.insert(at);
        }
        assert!(seen.len() > 900);
    }
}
