//! Why receipts are missing.
//!
//! Owns what is known about one connection's receipts: whether the centre showed itself, whether receipts came, whether our own events were passed on. From
//! this it names the cause: the centre is away, was never seen, is slow, is silent, or the broker drops what we publish. Pure. It refuses to say that
//! receipts are missing (that is [`super::delivery`]'s) and to act on it.
//!
//! On MQTT 5 a broker says what it refuses. On 3.1.1 it acknowledges and drops in silence (3.1.1, 3.3.5: "It MUST either make a positive
//! acknowledgement … or close the Network Connection"). So when receipts are missing there, the gateway subscribes to its own event topic: if its
//! own copy comes back, the broker passes events on and the fault lies behind it; if none comes though events are acknowledged, the broker drops them, or
//! does not let us read them.

use std::time::Duration;

use gengfu_contract::state::Presence;
use jiff::Timestamp;

use super::advice::Cause;
use super::backoff::between;

/// A receipt this fresh means that the centre works, if slowly.
const SLOW_WITHIN: Duration = Duration::from_secs(60);
/// Our own copy comes back as fast as the broker passes anything on; after this it does not come.
const ECHO_WITHIN: Duration = Duration::from_secs(5);

/// What is known since the connection began.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    /// The broker tells what it refuses.
    tells: bool,
    last_at: Option<Timestamp>,
    connected_at: Option<Timestamp>,
    echo: Echo,
}

/// The watch over our own events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Echo {
    #[default]
    Off,
    /// The subscription is on its way.
    Asked,
    /// The broker does not let us read it.
    Impossible,
    /// Subscribed; nothing was acknowledged since.
    On,
    /// An event was acknowledged after the subscription stood.
    Acknowledged(Timestamp),
    /// Our own copy came back.
    Came,
}

impl Receipts {
    /// A connection stands. `tells`: on MQTT 5 refusals are told.
    pub fn connected(tells: bool, now: Timestamp) -> Self {
        Self { tells, last_at: None, connected_at: Some(now), echo: Echo::Off }
    }

    /// A receipt for something of ours came.
    pub fn receipt(&mut self, now: Timestamp) {
        self.last_at = Some(now);
    }

    /// Whether to begin to watch our own events now: receipts are overdue, none ever came here, and the broker would not tell.
    pub fn wants_echo(&self) -> bool {
        !self.tells && self.last_at.is_none() && self.echo == Echo::Off
    }

    /// The subscription to our own events was sent.
    pub fn echo_asked(&mut self) {
        self.echo = Echo::Asked;
    }

    /// The broker answered it. Events acknowledged before that were published before it, and do not count.
    pub fn echo_begins(&mut self, refused: bool) {
        if self.echo == Echo::Asked {
            self.echo = if refused { Echo::Impossible } else { Echo::On };
        }
    }

    /// Whether our own events are watched and need not be any more.
    pub fn echo_is_done(&self) -> bool {
        self.echo != Echo::Off && self.last_at.is_some()
    }

    /// The subscription is ended.
    pub fn echo_ends(&mut self) {
        self.echo = Echo::Off;
    }

    /// The broker acknowledged an event.
    pub fn event_acknowledged(&mut self, now: Timestamp) {
        if self.echo == Echo::On {
            self.echo = Echo::Acknowledged(now);
        }
    }

    /// An event of our own came back.
    pub fn echoed(&mut self) {
        if matches!(self.echo, Echo::On | Echo::Acknowledged(_)) {
            self.echo = Echo::Came;
        }
    }

    /// Since when no receipt came, though items wait: since the last one here, or since the connection.
    pub fn silent_for(&self, now: Timestamp) -> Duration {
        self.last_at.max(self.connected_at).map_or(Duration::ZERO, |at| between(at, now))
    }

    /// When the answer may change though nothing happens: the echo's time is over.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self.echo {
            Echo::Acknowledged(at) => Some(super::backoff::later(at, ECHO_WITHIN)),
            _ => None,
        }
    }

    /// Why receipts are missing, given that they are.
    pub fn cause(&self, centre: Option<Presence>, now: Timestamp) -> Cause {
        if centre == Some(Presence::Offline) {
            return Cause::CentreAway;
        }
        if self.last_at.is_some_and(|at| between(at, now) <= SLOW_WITHIN) {
            return Cause::CentreSlow;
        }
        match self.echo {
            Echo::Acknowledged(at) if between(at, now) >= ECHO_WITHIN => Cause::DroppedInSilence,
            _ if centre.is_none() => Cause::CentreNeverHeard,
            _ => Cause::CentreSilent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const ONLINE: Option<Presence> = Some(Presence::Online);

    #[test]
    fn a_centre_that_is_away_slow_unseen_or_silent_is_told_apart() {
        let mut receipts = Receipts::connected(true, at(0));
        assert_eq!(receipts.cause(None, at(20)), Cause::CentreNeverHeard);
        assert_eq!(receipts.cause(ONLINE, at(20)), Cause::CentreSilent);
        assert_eq!(receipts.cause(Some(Presence::Offline), at(20)), Cause::CentreAway);
        receipts.receipt(at(30));
        assert_eq!(receipts.cause(ONLINE, at(90)), Cause::CentreSlow);
        assert_eq!(receipts.cause(None, at(90)), Cause::CentreSlow, "whatever its presence says");
        assert_eq!(receipts.cause(ONLINE, at(91)), Cause::CentreSilent);
        assert_eq!(receipts.silent_for(at(91)), Duration::from_secs(61));
        assert!(!receipts.wants_echo(), "MQTT 5 tells what it refuses");
    }

    #[test]
    fn on_3_1_1_an_acknowledged_event_that_does_not_come_back_was_dropped_in_silence() {
        let mut receipts = Receipts::connected(false, at(0));
        assert!(receipts.wants_echo());
        receipts.echo_asked();
        receipts.event_acknowledged(at(1));
        receipts.echo_begins(false);
        assert!(!receipts.wants_echo());
        assert_eq!(receipts.cause(ONLINE, at(100)), Cause::CentreSilent, "nothing was sent since");
        receipts.event_acknowledged(at(101));
        receipts.event_acknowledged(at(104));
        assert_eq!((receipts.cause(ONLINE, at(105)), receipts.next_deadline()), (Cause::CentreSilent, Some(at(106))));
        assert_eq!(receipts.cause(ONLINE, at(106)), Cause::DroppedInSilence);
        assert_eq!(receipts.cause(Some(Presence::Offline), at(106)), Cause::CentreAway);
    }

    #[test]
    fn on_3_1_1_an_event_that_comes_back_clears_the_broker_and_a_receipt_ends_the_watch() {
        let mut receipts = Receipts::connected(false, at(0));
        receipts.echo_asked();
        receipts.echo_begins(false);
        receipts.event_acknowledged(at(1));
        receipts.echoed();
        assert_eq!(receipts.cause(ONLINE, at(60)), Cause::CentreSilent);
        assert_eq!(receipts.cause(None, at(60)), Cause::CentreNeverHeard);
        receipts.receipt(at(61));
        assert!(receipts.echo_is_done());
        receipts.echo_ends();
        assert!(!receipts.echo_is_done() && !receipts.wants_echo());
    }

    #[test]
    fn where_our_own_events_may_not_be_read_nothing_is_concluded() {
        let mut receipts = Receipts::connected(false, at(0));
        receipts.echo_asked();
        receipts.echo_begins(true);
        receipts.event_acknowledged(at(1));
        receipts.echoed();
        assert_eq!(receipts.cause(ONLINE, at(60)), Cause::CentreSilent);
        assert!(!receipts.wants_echo(), "it is asked once a connection");
    }
}
