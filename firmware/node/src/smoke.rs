//! A smoke alarm's head with relay or open-collector outputs.
//!
//! Owns what its lines mean together: smoke, test, hushed, clear, fault; and the test of the head itself, where a pin of the board drives its
//! test input. Refuses to call smoke anything but smoke when in doubt: hush never hides the alarm line (GB 20517: a hushed head still
//! alarms), a test that does not end becomes an alarm, and no test begins while there is smoke.

use embedded_hal::digital::{InputPin, OutputPin};
use gengfu_wire::{EventKind, Level};

use crate::input::{Debounce, FaultWatch, Input, earliest};

/// Relay contacts bounce for less than this, in milliseconds.
pub const DEBOUNCE_MS: u32 = 50;

/// A head's alarm output may lag behind its test button by this, in milliseconds. The alarm line counts as test until then.
pub const TEST_HOLD_MS: u64 = 5_000;

/// A head whose test input is driven answers with its alarm line within this, in milliseconds, or it is at fault. With [`TEST_HOLD_MS`] this
/// bounds how long a test can keep smoke back: below the 10 s that smoke may take to the centre.
pub const TEST_ANSWER_MS: u64 = 4_500;

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

/// A test that the gateway asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// None runs.
    No,
    /// Until then the channel says "test".
    Road { until_ms: u64 },
    /// The test input is driven; the head must answer until then.
    Head { until_ms: u64 },
}

/// A smoke alarm's head. `O` is the pin at its test input.
#[derive(Debug)]
pub struct Smoke<P, O> {
    lines: Lines<P>,
    test_input: Option<O>,
    alarm: Debounce,
    test: Debounce,
    hush: Debounce,
    fault: FaultWatch,
    /// Until when an active alarm line is a test's.
    test_until_ms: u64,
    asked: Asked,
    /// The last driven test was not answered.
    is_deaf: bool,
    told: Option<Level>,
}

impl<P: InputPin, O: OutputPin> Smoke<P, O> {
    /// A head at these lines.
    pub fn new(lines: Lines<P>) -> Self {
        Self {
            lines,
            test_input: None,
            alarm: Debounce::unknown(DEBOUNCE_MS),
            test: Debounce::from(false, DEBOUNCE_MS),
            hush: Debounce::from(false, DEBOUNCE_MS),
            fault: FaultWatch::default(),
            test_until_ms: 0,
            asked: Asked::No,
            is_deaf: false,
            told: None,
        }
    }

    /// A head whose test input hangs on `pin`; high tests. (A head with a magnet or a button to ground needs a relay or a transistor there.)
    #[must_use]
    pub fn with_test_input(mut self, pin: O) -> Self {
        self.test_input = Some(pin);
        self.drive_test(false);
        self
    }

    /// A test asked for over the link. With a test input the head itself is tested, and is at fault when its alarm line does not answer. Without
    /// one the node behaves as if the test button were pressed for a moment: a drill of the road from here on. False when it does not begin:
    /// while there is smoke, and while one runs, so that no row of tests can keep smoke back.
    pub fn begin_test(&mut self, now_ms: u64) -> bool {
        if self.told == Some(Level::SmokeAlarm) || self.asked != Asked::No || now_ms < self.test_until_ms {
            return false;
        }
        self.asked = if self.test_input.is_some() {
            let until_ms = now_ms.saturating_add(TEST_ANSWER_MS);
            self.test_until_ms = until_ms;
            Asked::Head { until_ms }
        } else {
            self.test_until_ms = now_ms.saturating_add(TEST_HOLD_MS);
            Asked::Road { until_ms: self.test_until_ms }
        };
        self.drive_test(true);
        true
    }

    fn drive_test(&mut self, on: bool) {
        if let Some(pin) = &mut self.test_input {
            // A pin that cannot be set lets the test go unanswered, which is told.
            let _ = if on { pin.set_high() } else { pin.set_low() };
        }
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
        self.mind_the_test(now_ms);
        if let Some(event) = self.edge(now_ms) {
            return Some(event);
        }
        // A fault line that cannot be read is no fault of the head; an alarm line that cannot be read is.
        let reported = self.lines.fault.as_mut().and_then(Input::is_active).unwrap_or(false);
        self.fault.look(now_ms, reported || alarm.is_none() || self.is_deaf)
    }

    /// Ends a test that was answered, or whose time is over.
    fn mind_the_test(&mut self, now_ms: u64) {
        match self.asked {
            Asked::Head { .. } if self.alarm.level() == Some(true) => {
                self.is_deaf = false;
                self.test_until_ms = now_ms.saturating_add(TEST_HOLD_MS);
            }
            Asked::Head { until_ms } if now_ms >= until_ms => self.is_deaf = true,
            Asked::Road { until_ms } if now_ms >= until_ms => {}
            Asked::Head { .. } | Asked::Road { .. } | Asked::No => return,
        }
        self.asked = Asked::No;
        self.drive_test(false);
    }

    fn edge(&mut self, now_ms: u64) -> Option<EventKind> {
        let level = self.judge(now_ms)?;
        let before = self.told.replace(level);
        let is_news = before.map_or(level != Level::SmokeClear, |before| before != level);
        is_news.then(|| level.edge())
    }

    fn judge(&self, now_ms: u64) -> Option<Level> {
        let testing = self.test.level() == Some(true) || self.asked != Asked::No;
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

    /// Whether the head reports a fault, did not answer its test, or cannot be read.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.fault.is_faulty()
    }

    /// When to look again at the latest, if nothing changes.
    #[must_use]
    pub fn due_at_ms(&self) -> Option<u64> {
        let lines = [&self.alarm, &self.test, &self.hush].into_iter().filter_map(Debounce::due_at_ms).min();
        let test_end = match self.asked {
            Asked::Head { until_ms } | Asked::Road { until_ms } => Some(until_ms),
            Asked::No => {
                (self.told == Some(Level::SmokeTest) && self.test.level() == Some(false)).then_some(self.test_until_ms)
            }
        };
        earliest(earliest(lines, self.fault.due_at_ms()), test_end)
    }
}
