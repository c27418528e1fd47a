//! Troubles that the gateway finds by itself: its own clock, and devices past the date of their replacement.
//!
//! Owns when each is told and that it is taken back. Refuses to find out what time it is or how well that is known: both are handed in.

use std::collections::BTreeMap;

use gengfu_alarm::{Engine, Output, Trouble};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::{SignedDuration, Timestamp};

/// A clock may be unsynchronised for so long: after a start NTP takes its time, and a router's restart is worth no visit.
pub const CLOCK_HOLD: SignedDuration = SignedDuration::from_mins(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Upkeep {
    gateway: Slug,
    unsynced_since: Option<Timestamp>,
    clock_told: Option<bool>,
    /// Devices with the moment of their replacement, and what was told of it since the start.
    replace: BTreeMap<Slug, (Timestamp, Option<bool>)>,
}

impl Upkeep {
    /// Of this gateway and these devices. Nothing was told since this start; the engine takes the same twice for once.
    pub(super) fn new(gateway: Slug, replace: &BTreeMap<Slug, Timestamp>) -> Self {
        let replace = replace.iter().map(|(device, at)| (device.clone(), (*at, None))).collect();
        Self { gateway, unsynced_since: None, clock_told: None, replace }
    }

    /// Looks at the clock and at the dates.
    pub(super) fn look(&mut self, now: Timestamp, clock: ClockQuality, engine: &mut Engine) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.unsynced_since = (clock == ClockQuality::Unsynced).then(|| self.unsynced_since.unwrap_or(now));
        let is_bad = self.unsynced_since.map(|since| now.duration_since(since) >= CLOCK_HOLD);
        // Not yet long enough is no news.
        if let Some(is_bad) = is_bad.map_or(Some(false), |is_bad| is_bad.then_some(true))
            && self.clock_told != Some(is_bad)
        {
            self.clock_told = Some(is_bad);
            let detail = Text {
                zh: "网关时钟未与标准时间同步；检查网络和 NTP".into(),
                en: "the gateway's clock is not synchronised: check the network and NTP".into(),
            };
            outputs.extend(engine.report(now, &self.gateway, Trouble::Clock, is_bad, &detail));
        }
        // A date means nothing to a clock that is not set.
        if clock == ClockQuality::Unsynced {
            return outputs;
        }
        for (device, (at, told)) in &mut self.replace {
            let is_over = now >= *at;
            if *told != Some(is_over) {
                *told = Some(is_over);
                let detail = Text {
                    zh: format!("应于 {} 前更换", at.strftime("%F")),
                    en: format!("to be replaced before {}", at.strftime("%F")),
                };
                outputs.extend(engine.report(now, device, Trouble::EndOfLife, is_over, &detail));
            }
        }
        outputs
    }

    /// When to look again.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let clock = self.unsynced_since.filter(|_| self.clock_told != Some(true)).map(|since| since + CLOCK_HOLD);
        let dates = self.replace.values().filter(|(_, told)| *told != Some(true)).map(|(at, _)| *at);
        dates.chain(clock).min()
    }

    /// The clock was set by `by`.
    pub(super) fn clock_stepped(&mut self, by: SignedDuration) {
        self.unsynced_since = self.unsynced_since.and_then(|since| since.checked_add(by).ok());
    }
}
