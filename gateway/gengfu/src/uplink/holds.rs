//! Topics that the broker does not take, and when each may be tried again.
//!
//! Owns the pauses of what is no item of the outbox: the gateway's status, the board's postings, answers. Some brokers hang up on a
//! refusal; then one topic that the ACL forgets would end every connection, and no alarm would ever leave. Items have their own
//! account in [`super::delivery`]. Pure, bounded, and forgotten with the process.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{Backoff, between, later};

/// Lost with the connection this often in a row without an acknowledgement: suspected of ending it.
const SUSPECT_AFTER_LOSSES: u32 = 3;
/// The pauses.
const PAUSE: Backoff = Backoff { base: Duration::from_secs(10), ceiling: Duration::from_secs(600) };
/// Topics remembered; more are simply tried.
const TOPICS_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Hold {
    losses: u32,
    refusals: u32,
    until: Option<Timestamp>,
    lost_at: Option<Timestamp>,
}

/// The account.
#[derive(Debug, Default)]
pub(super) struct Holds(HashMap<String, Hold>);

impl Holds {
    /// The broker refused this topic.
    pub fn refused(&mut self, topic: &str, now: Timestamp) {
        if let Some(hold) = self.entry(topic) {
            hold.refusals = hold.refusals.saturating_add(1);
            hold.until = Some(later(now, PAUSE.wait(hold.refusals)));
        }
    }

    /// A connection ended with a message on this topic unacknowledged, or right after its acknowledgement.
    pub fn lost(&mut self, topic: &str, now: Timestamp) {
        if let Some(hold) = self.entry(topic) {
            let in_a_row = hold.lost_at.is_some_and(|at| between(at, now) <= 2 * PAUSE.ceiling);
            hold.losses = if in_a_row { hold.losses.saturating_add(1) } else { 1 };
            hold.lost_at = Some(now);
            if hold.losses >= SUSPECT_AFTER_LOSSES {
                hold.until = Some(later(now, PAUSE.wait(hold.losses - SUSPECT_AFTER_LOSSES + 1)));
            }
        }
    }

    /// The broker took it. Its losses are remembered for a while: some brokers acknowledge what they refuse, and hang up then.
    pub fn taken(&mut self, topic: &str) {
        if let Some(hold) = self.0.get_mut(topic) {
            (hold.refusals, hold.until) = (0, None);
        }
    }

    /// Not to be tried yet.
    pub fn is_held(&self, topic: &str, now: Timestamp) -> bool {
        // A clock set back must not hold for longer than the longest pause.
        let until = self.0.get(topic).and_then(|hold| hold.until);
        until.is_some_and(|until| now < until && until <= later(now, PAUSE.ceiling))
    }

    /// When the next of them may be tried.
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.values().filter_map(|hold| hold.until).filter(|until| *until > now).min()
    }

    fn entry(&mut self, topic: &str) -> Option<&mut Hold> {
        if self.0.len() >= TOPICS_MAX && !self.0.contains_key(topic) {
            return None;
        }
        Some(self.0.entry(topic.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    #[test]
    fn a_refused_topic_waits_longer_each_time_and_is_free_when_it_was_taken() {
        let mut holds = Holds::default();
        holds.refused("t", at(0));
        assert!(holds.is_held("t", at(9)) && !holds.is_held("t", at(10)) && !holds.is_held("u", at(0)));
        holds.refused("t", at(10));
        assert_eq!(holds.next_deadline(at(10)), Some(at(30)));
        holds.taken("t");
        assert!(!holds.is_held("t", at(11)));
    }

    #[test]
    fn a_topic_lost_with_three_connections_steps_back() {
        let mut holds = Holds::default();
        (0..2).for_each(|n| holds.lost("t", at(n)));
        assert!(!holds.is_held("t", at(2)));
        holds.taken("t");
        holds.lost("t", at(2));
        assert!(holds.is_held("t", at(3)) && !holds.is_held("t", at(12)));
        holds.lost("t", at(90_000));
        assert!(!holds.is_held("t", at(90_000)), "a loss of yesterday does not count");
    }

    #[test]
    fn a_clock_set_back_by_a_day_holds_nothing() {
        let mut holds = Holds::default();
        holds.refused("t", at(86_400));
        assert!(!holds.is_held("t", at(0)));
    }
}
