//! The watches over our own topics.
//!
//! Owns the subscriptions by which a session sees what it published itself: the retained alarms and devices of an earlier life, which are
//! emptied, and on MQTT 3.1.1 its own events, when it must be found out whether the broker passes them on ([`super::super::missing`] says when, and what
//! follows). All with QoS 0: a copy that is lost costs nothing. Refuses to conclude anything.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tracing::warn;

use super::super::backoff::later;
use super::super::connection::{Arrived, Lost, Subscription};
use super::super::mqtt::Pump;
use super::{Session, no_place};

/// After the subscription a broker shows what it holds at once; so long it may take.
const RETAINED_WITHIN: Duration = Duration::from_secs(30);

/// Of a copy of our own event: which one it is. (A number of 20 digits, as text.)
#[derive(Deserialize)]
struct Numbered {
    sequence: String,
}

impl Numbered {
    fn of(payload: &[u8]) -> Option<u64> {
        serde_json::from_slice::<Self>(payload).ok()?.sequence.parse().ok()
    }
}

impl Session {
    /// Begins and ends the watches over our own topics.
    pub(super) fn watch_own(&mut self, pump: &mut Pump, now: Timestamp) -> Result<(), Lost> {
        if self.own_until.is_some_and(|until| until <= now || later(now, RETAINED_WITHIN) < until) {
            self.own_until = None;
            for filter in own_retained(pump) {
                self.connection.unsubscribe(&filter).map_err(no_place)?;
            }
        }
        if self.subscribed && pump.receipts.wants_watch(pump.missing, pump.readable, now) {
            let own = |filter| Subscription { filter, not_own: false, at_most_once: true };
            let wanted = [own(pump.topics.event()), own(pump.topics.statement())];
            self.connection.subscribe(&wanted).map_err(no_place)?;
            pump.receipts.watch_asked();
        }
        if pump.receipts.watch_is_done(pump.missing, pump.readable) {
            self.end_watch(pump)?;
            pump.receipts.watch_ends();
        }
        Ok(())
    }

    /// Ends the subscriptions to our own events and statement, if there are any.
    pub(super) fn end_watch(&self, pump: &Pump) -> Result<(), Lost> {
        self.connection.unsubscribe(&pump.topics.event()).map_err(no_place)?;
        self.connection.unsubscribe(&pump.topics.statement()).map_err(no_place)
    }

    /// The broker's answer to a subscription: the first is the greeting's, later ones are the watch's.
    pub(super) fn subscribed(&mut self, pump: &mut Pump, refusals: &[Option<String>], now: Timestamp) {
        if std::mem::replace(&mut self.subscribed, true) {
            pump.receipts.watch_begins(refusals.first().is_some_and(Option::is_some));
            if pump.missing.overdue > 0 {
                pump.delivery.probe();
            }
            return;
        }
        self.own_until = Some(later(now, RETAINED_WITHIN));
        pump.not_listening = refusals.iter().take(2).flatten().next().cloned();
        pump.status.listening = pump.not_listening.is_none();
        if let Some(reason) = refusals.iter().skip(2).flatten().next() {
            warn!(
                reason,
                "the broker does not let us read our own alarms and devices; retained ones that are over stay there"
            );
        }
        pump.refresh_status(now, true);
    }

    /// Whether this is a copy of our own event or statement; it is noted.
    pub(super) fn is_own_echo(&self, pump: &mut Pump, arrived: &Arrived, now: Timestamp) -> bool {
        if arrived.topic == pump.topics.event() {
            if let Some(sequence) = Numbered::of(&arrived.payload) {
                pump.receipts.echoed(sequence, &mut pump.readable, now);
            }
            return true;
        }
        let is_statement = arrived.topic == pump.topics.statement();
        if is_statement {
            pump.receipts.statement_echoed();
        }
        is_statement
    }
}

/// The retained topics this gateway itself leaves on the broker: alarms and devices.
pub(super) fn own_retained(pump: &Pump) -> [String; 2] {
    let alarms = pump.topics.alarm("+");
    let devices = alarms.strip_suffix("alarm/+").map(|base| format!("{base}device/+")).unwrap_or_default();
    [alarms, devices]
}

#[cfg(test)]
mod tests {
    use gengfu_contract::chain;
    use gengfu_contract::words::Lane;

    use super::super::super::testing::{at, event};
    use super::*;

    #[test]
    fn a_copy_of_our_own_event_is_known_by_its_number() {
        let copy = chain::canonical(&event(7_000_000_001, "e1", Lane::Fire, at(0))).unwrap();
        assert_eq!(Numbered::of(&copy), Some(7_000_000_001));
        assert_eq!((Numbered::of(b"{}"), Numbered::of(b"\xff")), (None, None));
    }
}
