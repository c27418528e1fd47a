//! Why receipts are missing.
//!
//! Owns what is known about one connection's receipts: whether the centre showed itself, whether receipts came, whether our own events were passed on. From
//! this it names the cause: nobody is subscribed, the centre is away, was never seen, is slow, is silent, or the broker drops what we publish. Pure. It refuses to
//! say that receipts are missing (that is [`super::delivery`]'s) and to act on it.
//!
//! On MQTT 5 a broker says what it refuses. On 3.1.1 it acknowledges and drops in silence (3.1.1, 3.3.5: "It MUST either make a positive
//! acknowledgement … or close the Network Connection"). So when receipts are missing there, the gateway subscribes to its own event topic: the copy of an
//! event that comes back was passed on, and the fault lies behind the broker; an event that was acknowledged and does not come back was dropped, be it all of them (an
//! ACL that was changed) or some (too large for the broker), unless we may not read that topic at all. Whether we may is found out while all is well: after the first connection to a broker the same
//! subscription stands until the first copy came, or the first receipt came without one. Where it could not be found out, a copy of our own `statement`, which
//! came when no event did, speaks for the drop; without even that only the possibility is told.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::state::Presence;
use jiff::Timestamp;

use super::advice::Cause;
use super::backoff::{between, later};

/// A receipt this fresh means that the centre works, if slowly.
const SLOW_WITHIN: Duration = Duration::from_secs(60);
/// Our own copy comes back as fast as the broker passes anything on; after this it does not come.
const ECHO_WITHIN: Duration = Duration::from_secs(5);
/// Items are overdue and no receipt came for so long: then our own events are watched.
const WATCH_AFTER: Duration = Duration::from_secs(10);
/// Events watched at one time; with more on the way the latest are not.
const WATCHED_MAX: usize = 256;
/// So many events had their receipt and no copy came: we may not read them.
const UNREAD_MAX: u32 = 5;

/// Whether a broker lets us read our own events. Outlives a connection, not a change of brokers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Readable {
    #[default]
    Unknown,
    Yes,
    No,
}

/// What is missing, as delivery sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Missing {
    /// Items whose receipt is overdue.
    pub overdue: usize,
    /// Items sent later than one of these were received.
    pub overtaken: bool,
    /// The broker has said that nobody is subscribed.
    pub unheard: bool,
}

/// What is known since the connection began.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    /// The broker tells what it refuses.
    tells: bool,
    last_at: Option<Timestamp>,
    connected_at: Option<Timestamp>,
    watch: Watch,
    /// Events whose receipt came and their copy did not.
    unread: u32,
}

/// The watch over our own events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Watch {
    #[default]
    Off,
    /// The subscription is on its way.
    Asked,
    /// The broker does not let us read them.
    Impossible,
    On {
        /// Our own statement came back.
        control: bool,
        /// Events acknowledged since, by sequence: when, and whether the copy came.
        events: BTreeMap<u64, (Timestamp, bool)>,
    },
}

impl Receipts {
    /// A connection stands. `tells`: on MQTT 5 refusals are told.
    pub fn connected(tells: bool, now: Timestamp) -> Self {
        Self { tells, last_at: None, connected_at: Some(now), watch: Watch::Off, unread: 0 }
    }

    /// The centre's receipt for these events came. Those whose copy did not come first speak against our being let to read them: a copy is one way, a
    /// receipt is two.
    pub fn receipt(&mut self, sequences: &[u64], readable: &mut Readable, now: Timestamp) {
        self.last_at = Some(now);
        let Watch::On { events, .. } = &mut self.watch else { return };
        for sequence in sequences {
            let Some((at, came)) = events.remove(sequence) else { continue };
            self.unread += u32::from(!came);
            let never = self.unread >= UNREAD_MAX || between(at, now) >= ECHO_WITHIN;
            if !came && never && *readable == Readable::Unknown {
                *readable = Readable::No;
            }
        }
        if *readable == Readable::No {
            self.watch = Watch::Impossible;
        }
    }

    /// Whether to begin to watch our own events now: because something is wrong, or to learn whether we may.
    pub fn wants_watch(&self, missing: Missing, readable: Readable, now: Timestamp) -> bool {
        if self.tells || self.watch != Watch::Off {
            return false;
        }
        let wrong = missing.overdue > 0 && (missing.overtaken || self.silent_for(now) >= WATCH_AFTER);
        match readable {
            Readable::Unknown => true,
            Readable::Yes => wrong,
            Readable::No => false,
        }
    }

    /// The subscription to our own events was sent.
    pub fn watch_asked(&mut self) {
        self.watch = Watch::Asked;
    }

    /// The broker answered it. Events acknowledged before that were published before it, and do not count.
    pub fn watch_begins(&mut self, refused: bool) {
        if self.watch == Watch::Asked {
            let on = Watch::On { control: false, events: BTreeMap::new() };
            self.watch = if refused { Watch::Impossible } else { on };
        }
    }

    /// Whether our own events are watched and need not be any more.
    pub fn watch_is_done(&self, missing: Missing, readable: Readable) -> bool {
        match self.watch {
            Watch::On { .. } => missing.overdue == 0 && readable != Readable::Unknown,
            Watch::Impossible => readable == Readable::No,
            Watch::Off | Watch::Asked => false,
        }
    }

    /// The subscription is ended.
    pub fn watch_ends(&mut self) {
        self.watch = Watch::Off;
    }

    /// The broker acknowledged this event.
    pub fn event_acknowledged(&mut self, sequence: u64, now: Timestamp) {
        if let Watch::On { events, .. } = &mut self.watch
            && has_room(events, sequence)
        {
            // A broker may pass it on before it acknowledges it.
            events.entry(sequence).or_insert((now, false));
        }
    }

    /// A copy of this event came back.
    pub fn echoed(&mut self, sequence: u64, readable: &mut Readable, now: Timestamp) {
        if let Watch::On { events, .. } = &mut self.watch {
            *readable = Readable::Yes;
            if has_room(events, sequence) {
                events.insert(sequence, (now, true));
            }
        }
    }

    /// A copy of our own statement came back.
    pub fn statement_echoed(&mut self) {
        if let Watch::On { control, .. } = &mut self.watch {
            *control = true;
        }
    }

    /// Since when no receipt came, though items wait: since the last one here, or since the connection.
    pub fn silent_for(&self, now: Timestamp) -> Duration {
        self.last_at.max(self.connected_at).map_or(Duration::ZERO, |at| between(at, now))
    }

    /// When the answer may change though nothing happens: a copy's time is over, or the watch is due.
    pub fn next_deadline(&self, missing: Missing, now: Timestamp) -> Option<Timestamp> {
        match &self.watch {
            Watch::On { events, .. } => {
                let open = events.values().filter(|(_, came)| !came).map(|(at, _)| later(*at, ECHO_WITHIN));
                open.filter(|at| *at > now).min()
            }
            Watch::Off if missing.overdue > 0 && !self.tells => {
                self.last_at.max(self.connected_at).map(|at| later(at, WATCH_AFTER))
            }
            _ => None,
        }
    }

    /// Why receipts are missing, given that they are.
    pub fn cause(&self, centre: Option<Presence>, missing: Missing, readable: Readable, now: Timestamp) -> Cause {
        if missing.unheard {
            return Cause::NobodySubscribed;
        }
        if centre == Some(Presence::Offline) {
            return Cause::CentreAway;
        }
        let (dropped, control) = self.dropped(now);
        if dropped && (readable == Readable::Yes || control) {
            return Cause::DroppedInSilence;
        }
        if self.last_at.is_some_and(|at| between(at, now) <= SLOW_WITHIN) {
            return Cause::CentreSlow;
        }
        if centre.is_none() {
            return Cause::CentreNeverHeard;
        }
        let cannot_tell = !self.tells && (readable == Readable::No || dropped || self.watch == Watch::Impossible);
        if cannot_tell { Cause::SilentOrDropped } else { Cause::CentreSilent }
    }

    /// Whether an event was acknowledged and did not come back, and whether our statement did.
    fn dropped(&self, now: Timestamp) -> (bool, bool) {
        match &self.watch {
            Watch::On { control, events } => {
                (events.values().any(|(at, came)| !came && between(*at, now) >= ECHO_WITHIN), *control)
            }
            _ => (false, false),
        }
    }
}

/// Whether one more may be watched. What came back is forgotten first.
fn has_room(events: &mut BTreeMap<u64, (Timestamp, bool)>, sequence: u64) -> bool {
    if events.len() >= WATCHED_MAX {
        events.retain(|_, (_, came)| !*came);
    }
    events.len() < WATCHED_MAX || events.contains_key(&sequence)
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const ONLINE: Option<Presence> = Some(Presence::Online);
    const LATE: Missing = Missing { overdue: 1, overtaken: false, unheard: false };

    /// On 3.1.1, with the watch asked for and granted at second 10.
    fn watching(readable: Readable) -> Receipts {
        let mut receipts = Receipts::connected(false, at(0));
        assert!(receipts.wants_watch(LATE, readable, at(10)));
        receipts.watch_asked();
        receipts.watch_begins(false);
        receipts
    }

    #[test]
    fn a_centre_that_is_away_slow_unseen_or_silent_is_told_apart() {
        let mut receipts = Receipts::connected(true, at(0));
        let cause = |receipts: &Receipts, centre, second| receipts.cause(centre, LATE, Readable::Unknown, at(second));
        assert_eq!(cause(&receipts, None, 20), Cause::CentreNeverHeard);
        assert_eq!(cause(&receipts, ONLINE, 20), Cause::CentreSilent);
        assert_eq!(cause(&receipts, Some(Presence::Offline), 20), Cause::CentreAway);
        receipts.receipt(&[1], &mut Readable::Unknown, at(30));
        assert_eq!(cause(&receipts, ONLINE, 90), Cause::CentreSlow);
        assert_eq!(cause(&receipts, None, 90), Cause::CentreSlow, "whatever its presence says");
        assert_eq!(cause(&receipts, ONLINE, 91), Cause::CentreSilent);
        assert_eq!(receipts.silent_for(at(91)), Duration::from_secs(61));
        assert!(!receipts.wants_watch(LATE, Readable::Unknown, at(91)), "MQTT 5 tells what it refuses");
    }

    #[test]
    fn a_broker_that_says_nobody_is_subscribed_is_believed_before_all_else() {
        let receipts = Receipts::connected(true, at(0));
        let unheard = Missing { unheard: true, ..LATE };
        for centre in [None, ONLINE, Some(Presence::Offline)] {
            assert_eq!(receipts.cause(centre, unheard, Readable::Unknown, at(1)), Cause::NobodySubscribed);
        }
    }

    #[test]
    fn on_3_1_1_an_acknowledged_event_that_does_not_come_back_was_dropped_in_silence() {
        let mut receipts = watching(Readable::Yes);
        let cause = |receipts: &Receipts, second| receipts.cause(ONLINE, LATE, Readable::Yes, at(second));
        assert_eq!(cause(&receipts, 100), Cause::CentreSilent, "nothing was sent since");
        receipts.event_acknowledged(7, at(101));
        receipts.event_acknowledged(7, at(104));
        assert_eq!(cause(&receipts, 105), Cause::CentreSilent);
        assert_eq!(receipts.next_deadline(LATE, at(105)), Some(at(106)));
        assert_eq!(cause(&receipts, 106), Cause::DroppedInSilence);
        assert_eq!(receipts.cause(Some(Presence::Offline), LATE, Readable::Yes, at(106)), Cause::CentreAway);
    }

    #[test]
    fn on_3_1_1_what_is_dropped_while_other_events_get_their_receipts_is_found_too() {
        let mut receipts = Receipts::connected(false, at(0));
        receipts.receipt(&[1], &mut Readable::Yes, at(20));
        assert!(!receipts.wants_watch(LATE, Readable::Yes, at(21)), "a slow centre is not watched");
        assert_eq!(receipts.next_deadline(LATE, at(21)), Some(at(30)));
        assert!(receipts.wants_watch(Missing { overtaken: true, ..LATE }, Readable::Yes, at(21)));
        receipts.watch_asked();
        receipts.watch_begins(false);
        receipts.event_acknowledged(7, at(22));
        receipts.event_acknowledged(8, at(22));
        receipts.echoed(8, &mut Readable::Yes, at(22));
        receipts.receipt(&[8], &mut Readable::Yes, at(27));
        assert_eq!(receipts.cause(ONLINE, LATE, Readable::Yes, at(27)), Cause::DroppedInSilence);
        receipts.receipt(&[7], &mut Readable::Yes, at(28));
        assert_eq!(receipts.cause(ONLINE, LATE, Readable::Yes, at(28)), Cause::CentreSlow, "it has it after all");
    }

    #[test]
    fn on_3_1_1_events_that_come_back_clear_the_broker_and_the_watch_ends_when_nothing_is_missing() {
        let (mut receipts, mut readable) = (watching(Readable::Unknown), Readable::Unknown);
        // The copy may overtake the PUBACK.
        receipts.echoed(7, &mut readable, at(11));
        receipts.event_acknowledged(7, at(11));
        assert_eq!(readable, Readable::Yes);
        assert_eq!(receipts.cause(ONLINE, LATE, readable, at(60)), Cause::CentreSilent);
        assert_eq!(receipts.cause(None, LATE, readable, at(60)), Cause::CentreNeverHeard);
        assert!(!receipts.watch_is_done(LATE, readable) && receipts.watch_is_done(Missing::default(), readable));
        receipts.watch_ends();
        assert!(!receipts.wants_watch(Missing::default(), readable, at(61)), "what is known is not asked again");
    }

    #[test]
    fn on_3_1_1_our_own_statement_speaks_for_a_drop_where_it_was_never_learned_whether_events_can_be_read() {
        let mut receipts = watching(Readable::Unknown);
        receipts.event_acknowledged(7, at(11));
        let cause = |receipts: &Receipts, second| receipts.cause(ONLINE, LATE, Readable::Unknown, at(second));
        assert_eq!(cause(&receipts, 15), Cause::CentreSilent);
        assert_eq!(cause(&receipts, 16), Cause::SilentOrDropped, "perhaps we may not read it");
        receipts.statement_echoed();
        assert_eq!(cause(&receipts, 16), Cause::DroppedInSilence);
    }

    #[test]
    fn where_our_own_events_may_not_be_read_the_possibility_is_told_and_nothing_concluded() {
        let (mut receipts, mut readable) = (watching(Readable::Unknown), Readable::Unknown);
        receipts.event_acknowledged(7, at(11));
        receipts.receipt(&[7], &mut readable, at(17));
        assert_eq!(readable, Readable::No, "the centre has it, and we saw no copy");
        assert!(receipts.watch_is_done(LATE, readable));
        receipts.watch_ends();
        assert!(!receipts.wants_watch(LATE, readable, at(90)));
        assert_eq!(receipts.cause(ONLINE, LATE, readable, at(90)), Cause::SilentOrDropped);
        let (mut receipts, mut readable) = (watching(Readable::Unknown), Readable::Unknown);
        for sequence in 1..=5 {
            receipts.event_acknowledged(sequence, at(11));
            receipts.receipt(&[sequence], &mut readable, at(11));
            assert_eq!(readable == Readable::No, sequence == 5, "after some that came without a copy");
        }
        let mut refused = Receipts::connected(false, at(0));
        refused.watch_asked();
        refused.watch_begins(true);
        assert_eq!(refused.cause(ONLINE, LATE, Readable::Unknown, at(60)), Cause::SilentOrDropped);
        assert!(!refused.wants_watch(LATE, Readable::Unknown, at(60)), "it is asked once a connection");
    }
}
