//! What is to be said to a node, and again.
//!
//! Owns the order in which downlinks go, and the repetition of those that must not be lost: a sounder that is wanted, the time, the timing. Refuses
//! to know a disk: that an `Ack` may go is the session's judgement (W19).
//!
//! Its time is the time for which the gateway runs, told by [`Downlinks::pass`], so that a clock that is set neither stops a sounder nor keeps it on.

use std::collections::VecDeque;

use gengfu_contract::event::ClockQuality;
use gengfu_wire::{Ack, Configure, Downlink, Ping, Sounder, Time};
use jiff::{SignedDuration, Timestamp};

/// A node is told to sound for so long, in milliseconds, again and again: three lost frames in a row do not silence it, and a gateway that dies
/// does not leave it sounding.
pub const SOUND_FOR_MS: u32 = 6_000;
/// And told again this often.
const SOUND_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// An end of sounding is told so many times.
const STOPS: u8 = 3;
/// And again this often.
const STOP_AGAIN: SignedDuration = SignedDuration::from_millis(500);
/// Time and timing are told again this often; beside that, at each Hello.
const TIME_AGAIN: SignedDuration = SignedDuration::from_secs(600);
/// Tests that may wait.
const TESTS_MAX: usize = 8;

/// What waits to be said to one node.
#[derive(Debug, Default)]
pub struct Downlinks {
    identify: bool,
    ack: Option<Ack>,
    ping: bool,
    nonce: u32,
    /// On a bus the master tells the time to everyone.
    tells_time: bool,
    time_due: bool,
    time_in: SignedDuration,
    configure: Option<Configure>,
    configure_due: bool,
    tests: VecDeque<u8>,
    sounder_due: bool,
    sound_left: SignedDuration,
    sounder_in: SignedDuration,
    stops: u8,
}

impl Downlinks {
    /// Nothing but the question who is there. `configure` is told at each Hello; the time too if `tells_time`.
    #[must_use]
    pub fn new(configure: Option<Configure>, tells_time: bool) -> Self {
        Self { identify: true, configure, tells_time, time_in: TIME_AGAIN, ..Self::default() }
    }

    /// Time passes.
    pub fn pass(&mut self, passed: SignedDuration) {
        self.time_in -= passed;
        if self.time_in <= SignedDuration::ZERO {
            self.time_in = TIME_AGAIN;
            self.time_due = self.tells_time;
            self.configure_due = self.configure.is_some();
        }
        if self.sound_left > SignedDuration::ZERO {
            self.sound_left = (self.sound_left - passed).max(SignedDuration::ZERO);
            // Its end needs no word: the node was told for how long.
            self.sounder_due &= !self.sound_left.is_zero();
        }
        self.sounder_in -= passed;
        if self.sounder_in <= SignedDuration::ZERO && (!self.sound_left.is_zero() || self.stops > 0) {
            self.sounder_due = true;
        }
    }

    /// The node has introduced itself.
    pub fn on_hello(&mut self) {
        self.time_due = self.tells_time;
        self.time_in = TIME_AGAIN;
        self.configure_due = self.configure.is_some();
        self.sounder_due |= !self.sound_left.is_zero();
    }

    /// Ask who is there.
    pub fn identify(&mut self) {
        self.identify = true;
    }

    /// Ask whether it is there.
    pub fn ping(&mut self) {
        self.ping = true;
    }

    /// Acknowledge; takes the place of an `Ack` that waits.
    pub fn ack(&mut self, ack: Ack) {
        self.ack = Some(ack);
    }

    /// What was to be acknowledged is not any more.
    pub fn forget_ack(&mut self) {
        self.ack = None;
    }

    /// Press a head's test button. False when too many wait.
    pub fn test(&mut self, channel: u8) -> bool {
        let has_room = self.tests.len() < TESTS_MAX;
        if has_room {
            self.tests.push_back(channel);
        }
        has_room
    }

    /// Change timing for now and for every later Hello.
    pub fn configure(&mut self, configure: Configure) {
        self.configure = Some(configure);
        self.configure_due = true;
    }

    /// Sound for so long; zero stops.
    pub fn sound(&mut self, sound_for: SignedDuration) {
        self.sound_left = sound_for.max(SignedDuration::ZERO);
        self.stops = if self.sound_left.is_zero() { STOPS } else { 0 };
        self.sounder_due = true;
    }

    /// Whether [`Downlinks::next`] has something.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.identify
            || self.ack.is_some()
            || self.sounder_due
            || self.ping
            || self.time_due
            || self.configure_due
            || !self.tests.is_empty()
    }

    /// What is to be said next; what frees the node's window goes first.
    pub fn next(&mut self, now: Timestamp, quality: ClockQuality) -> Option<Downlink> {
        if std::mem::take(&mut self.identify) {
            return Some(Downlink::Identify);
        }
        if let Some(ack) = self.ack.take() {
            return Some(Downlink::Ack(ack));
        }
        if std::mem::take(&mut self.sounder_due) {
            return Some(self.sounder());
        }
        if std::mem::take(&mut self.ping) {
            self.nonce = self.nonce.wrapping_add(1);
            return Some(Downlink::Ping(Ping { nonce: self.nonce }));
        }
        if std::mem::take(&mut self.time_due) {
            return Some(Downlink::Time(time(now, quality)));
        }
        if let (true, Some(configure)) = (std::mem::take(&mut self.configure_due), self.configure) {
            return Some(Downlink::Configure(configure));
        }
        self.tests.pop_front().map(|channel| Downlink::Test { channel })
    }

    fn sounder(&mut self) -> Downlink {
        let left_ms = u32::try_from(self.sound_left.as_millis()).unwrap_or(u32::MAX);
        self.stops = self.stops.saturating_sub(1);
        self.sounder_in = if left_ms == 0 { STOP_AGAIN } else { SOUND_AGAIN };
        Downlink::Sounder(Sounder { for_ms: left_ms.min(SOUND_FOR_MS) })
    }
}

/// The gateway's time, for nodes.
pub(super) fn time(now: Timestamp, quality: ClockQuality) -> Time {
    let unix_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Time { unix_ms, synced: quality == ClockQuality::Synced }
}
