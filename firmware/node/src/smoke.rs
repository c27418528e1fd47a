//! A smoke alarm's head with relay or open-collector outputs.
//!
//! Owns what its lines mean together: smoke, test, hushed, clear, fault. Refuses to call smoke anything but smoke when in
//! doubt: hush never hides the alarm line (GB 20517: a hushed head still alarms), and a test that does not end becomes an alarm.

use embedded_hal::digital::InputPin;
use gengfu_wire::{EventKind, Level};

use crate::contact::earliest;
use crate::input::{Debounce, FaultWatch, Input};

/// Relay contacts bounce for less than this, in milliseconds.
pub const DEBOUNCE_MS: u32 = 50;

/// A head's alarm output may lag behind its test button by this, in milliseconds. The alarm line counts as test until then.
pub const TEST_HOLD_MS: u64 = 5_000;

/// Lines of a head. All but the alarm are optional.
#[derive(Debug)]
pub struct Lines<P> {
    /// Active while the head senses smoke or tests itself.
    pub alarm: Input<P>,
    /// Active while the head reports its own fault.
    pub fault: Option<Input<P>>,
    /// Active while its test button is down.
    pub test: Option<Input<P>>,
    /// Active while it is silenced.
    pub hush: Option<Input<P>>,
}

/// A smoke alarm's head.
#[derive(Debug)]
pub struct Smoke<P> {
    lines: Lines<P>,
    alarm: Debounce,
    test: Debounce,
    hush: Debounce,
    fault: FaultWatch,
    /// Until when an active alarm line is a test's.
    test_until_ms: u64,
    /// Until when a test asked for over the link runs.
    asked_until_ms: u64,
    told: Option<Level>,
}

impl<P: InputPin> Smoke<P> {
    /// A head at these lines.
    pub fn new(lines: Lines<P>) -> Self {
        Self {
            lines,
            alarm: Debounce::unknown(DEBOUNCE_MS),
            test: Debounce::from(false, DEBOUNCE_MS),
            hush: Debounce::from(false, DEBOUNCE_MS),
            fault: FaultWatch::default(),
            test_until_ms: 0,
            asked_until_ms: 0,
            told: None,
        }
    }

    /// Behaves as if the test button were pressed for a moment: a drill of the whole road from here on.
    pub fn begin_test(&mut self, now_ms: u64) {
        self.asked_until_ms = now_ms.saturating_add(TEST_HOLD_MS);
        self.test_until_ms = self.asked_until_ms;
    }

    /// Looks at the lines; gives at most one event a call. Smoke at boot is an event at once.
    pub fn poll(&mut self, now_ms: u64) -> Option<EventKind> {
        let alarm = self.lines.alarm.is_active();
        if let Some(active) = alarm {
            self.alarm.look(now_ms, active);
        }
        for (line, debounce) in [(&mut self.lines.test, &mut self.test), (&mut self.lines.hush, &mut self.hush)] {
            if let Some(active) = line.as_mut().and_then(Input::is_active) {
                debounce.look(now_ms, active);
            }
        }
        if self.test.level() == Some(true) {
            self.test_until_ms = self.test_until_ms.max(now_ms.saturating_add(TEST_HOLD_MS));
        }
        if let Some(event) = self.edge(now_ms) {
            return Some(event);
        }
        // A fault line that cannot be read is no fault of the head; an alarm line that cannot be read is.
        let reported = self.lines.fault.as_mut().and_then(Input::is_active).unwrap_or(false);
        self.fault.look(now_ms, reported || alarm.is_none())
    }

    fn edge(&mut self, now_ms: u64) -> Option<EventKind> {
        let level = self.judge(now_ms)?;
        let before = self.told.replace(level);
        let is_news = before.map_or(level != Level::SmokeClear, |before| before != level);
        is_news.then(|| level.edge())
    }

    fn judge(&self, now_ms: u64) -> Option<Level> {
        let testing = self.test.level() == Some(true) || now_ms < self.asked_until_ms;
        Some(match self.alarm.level()? {
            true if testing || now_ms < self.test_until_ms => Level::SmokeTest,
            true => Level::SmokeAlarm,
            false if testing => Level::SmokeTest,
            false if self.hush.level() == Some(true) => Level::SmokeHushed,
            false => Level::SmokeClear,
        })
    }

    /// The level last told.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.told
    }

    /// Whether the head reports a fault or cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.fault.is_faulty()
    }

    /// When to look again at the latest, if nothing changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        let lines = [&self.alarm, &self.test, &self.hush].into_iter().filter_map(Debounce::due_at_ms).min();
        let test_end = (self.told == Some(Level::SmokeTest) && self.test.level() == Some(false))
            .then_some(if self.alarm.level() == Some(true) { self.test_until_ms } else { self.asked_until_ms });
        earliest(earliest(lines, self.fault.due_at_ms()), test_end)
    }
}
