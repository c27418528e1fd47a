//! Which packet id on the wire stands for which thing of ours.
//!
//! Owns the tie between a message handed to the MQTT client, the packet id the client gave it, and the broker's PUBACK. One ledger
//! lives as long as one connection: packet ids mean nothing afterwards. It refuses to know what becomes of an unacknowledged
//! message; that is decided by whoever owns the thing the ticket names.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{between, later};

/// Messages of one connection that the broker has not acknowledged, by ticket `T`.
#[derive(Debug)]
pub struct Ledger<T> {
    /// Handed to the client, which has not yet given them a packet id. The client takes them in order.
    handed: VecDeque<(T, Timestamp)>,
    /// On the wire, by packet id, with the order in which they went there.
    on_wire: HashMap<u16, (T, Timestamp, u64)>,
    /// Messages that went to the wire so far.
    turns: u64,
    /// When the messages on the wire went there, oldest first; stale entries are skipped.
    order: VecDeque<(Timestamp, u16)>,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self { handed: VecDeque::new(), on_wire: HashMap::new(), turns: 0, order: VecDeque::new() }
    }
}

impl<T> Ledger<T> {
    /// Notes that a message was handed to the client.
    pub fn handed(&mut self, ticket: T, now: Timestamp) {
        self.handed.push_back((ticket, now));
    }

    /// The client has written the oldest handed message under this packet id; gives its ticket. `None` when nothing was handed or the id is in
    /// use: the client and the ledger disagree, and the connection must be given up.
    #[must_use]
    pub fn published(&mut self, packet_id: u16, now: Timestamp) -> Option<&T> {
        let (ticket, _) = self.handed.pop_front()?;
        self.order.push_back((now, packet_id));
        self.turns += 1;
        match self.on_wire.insert(packet_id, (ticket, now, self.turns)) {
            Some(_) => None,
            None => self.on_wire.get(&packet_id).map(|(ticket, ..)| ticket),
        }
    }

    /// The broker acknowledged this packet id. `None` for one that is not on the wire (a second PUBACK).
    pub fn acked(&mut self, packet_id: u16) -> Option<T> {
        let (ticket, ..) = self.on_wire.remove(&packet_id)?;
        let live = |(at, id): &(Timestamp, u16)| self.on_wire.get(id).is_some_and(|(_, since, _)| since == at);
        while self.order.front().is_some_and(|entry| !live(entry)) {
            self.order.pop_front();
        }
        Some(ticket)
    }

    /// How long the message under this packet id has been on the wire. `None` for one that is not.
    #[must_use]
    pub fn waited(&self, packet_id: u16, now: Timestamp) -> Option<Duration> {
        self.on_wire.get(&packet_id).map(|(_, since, _)| between(*since, now))
    }

    /// The packet id of the oldest message on the wire.
    #[must_use]
    pub fn oldest(&self) -> Option<u16> {
        let live = |(at, id): &&(Timestamp, u16)| self.on_wire.get(id).is_some_and(|(_, since, _)| since == at);
        self.order.iter().find(live).map(|(_, id)| *id)
    }

    /// Messages handed over and not acknowledged.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.handed.len() + self.on_wire.len()
    }

    /// When the oldest unacknowledged message will have waited `limit`: the connection is then as good as dead.
    #[must_use]
    pub fn deadline(&self, limit: Duration) -> Option<Timestamp> {
        let handed = self.handed.front().map(|(_, at)| *at);
        let oldest = self.order.front().map(|(at, _)| *at).into_iter().chain(handed).min()?;
        Some(later(oldest, limit))
    }

    /// The same for the messages that `matters` picks: some may wait less long than others.
    #[must_use]
    pub fn deadline_of(&self, limit: Duration, matters: impl Fn(&T) -> bool) -> Option<Timestamp> {
        let on_wire = self.on_wire.values().map(|(ticket, at, _)| (ticket, at));
        let all = on_wire.chain(self.handed.iter().map(|(ticket, at)| (ticket, at)));
        let oldest = all.filter(|(ticket, _)| matters(ticket)).map(|(_, at)| *at).min()?;
        Some(later(oldest, limit))
    }

    /// Every ticket not acknowledged, in the order in which they were handed over.
    pub fn tickets(&self) -> impl Iterator<Item = &T> {
        let mut on_wire: Vec<_> = self.on_wire.values().collect();
        on_wire.sort_unstable_by_key(|(_, _, turn)| *turn);
        on_wire.into_iter().map(|(ticket, ..)| ticket).chain(self.handed.iter().map(|(ticket, _)| ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn wire(ledger: &mut Ledger<&'static str>, ticket: &'static str, id: u16, second: i64) {
        ledger.handed(ticket, at(second));
        assert!(ledger.published(id, at(second)).is_some());
    }

    #[test]
    fn packet_ids_are_tied_in_the_order_of_handing_over() {
        let mut ledger = Ledger::default();
        ledger.handed("a", at(0));
        ledger.handed("b", at(0));
        assert!(ledger.published(9, at(0)).is_some() && ledger.published(4, at(0)).is_some());
        assert_eq!(ledger.acked(4), Some("b"));
        assert_eq!(ledger.acked(9), Some("a"));
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn what_was_not_acknowledged_is_told_in_the_order_of_handing_over_whatever_its_packet_ids() {
        let mut ledger = Ledger::default();
        for (ticket, id) in [("a", 900), ("b", 1_000), ("c", 1), ("d", 2), ("e", 500)] {
            wire(&mut ledger, ticket, id, 0);
        }
        ledger.handed("f", at(0));
        ledger.acked(1_000);
        assert_eq!(ledger.tickets().copied().collect::<Vec<_>>(), ["a", "c", "d", "e", "f"]);
    }

    #[test]
    fn a_second_puback_names_nothing() {
        let mut ledger = Ledger::default();
        wire(&mut ledger, "a", 1, 0);
        assert_eq!(ledger.acked(1), Some("a"));
        assert_eq!(ledger.acked(1), None);
        assert_eq!(ledger.acked(77), None);
    }

    #[test]
    fn a_packet_id_without_a_message_or_in_use_is_a_disagreement() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.published(1, at(0)), None);
        wire(&mut ledger, "a", 1, 0);
        ledger.handed("b", at(0));
        assert_eq!(ledger.published(1, at(0)), None);
    }

    #[test]
    fn the_oldest_on_the_wire_and_how_long_each_waits_are_known() {
        let mut ledger = Ledger::default();
        assert_eq!((ledger.oldest(), ledger.waited(1, at(0))), (None, None));
        for (ticket, id) in [("a", 7), ("b", 2), ("c", 9)] {
            wire(&mut ledger, ticket, id, i64::from(id));
        }
        assert_eq!((ledger.oldest(), ledger.waited(2, at(5))), (Some(7), Some(Duration::from_secs(3))));
        ledger.acked(2);
        assert_eq!(ledger.oldest(), Some(7));
        ledger.acked(7);
        assert_eq!((ledger.oldest(), ledger.waited(7, at(9))), (Some(9), None));
    }

    #[test]
    fn the_deadline_is_that_of_the_oldest_message_whatever_was_acknowledged_out_of_order() {
        let ten = Duration::from_secs(10);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.deadline(ten), None);
        for (ticket, id) in [("a", 1), ("b", 2), ("c", 3)] {
            wire(&mut ledger, ticket, id, i64::from(id));
        }
        ledger.acked(2);
        assert_eq!(ledger.deadline(ten), Some(at(11)));
        ledger.acked(1);
        assert_eq!(ledger.deadline(ten), Some(at(13)));
        wire(&mut ledger, "d", 1, 20);
        ledger.acked(3);
        assert_eq!(ledger.deadline(ten), Some(at(30)));
        ledger.acked(1);
        assert_eq!(ledger.deadline(ten), None);
        ledger.handed("e", at(40));
        assert_eq!(ledger.deadline(ten), Some(at(50)));
    }
}
