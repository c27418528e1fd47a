//! The gateway's time, as a node knows it.
//!
//! Owns how the node's uptime is turned into time of day, from [`gengfu_wire::Time`]. Refuses to be part of any event: an event carries the
//! uptime, and the gateway, which hears every frame, turns it into time better than a node can (W24). This is for a technician's
//! display and for traces.
//!
//! - A `Time` that is not synced is ignored.
//! - A `Time` is late by its way over the wire, never early: the greatest time offered counts.
//! - Against a drift of both clocks what counts falls back by [`DRIFT_PPM`], so that fresh words win in the end.
//! - A `Time` that is behind by more than [`JUMP_MS`] says that the gateway's clock was set: it counts at once.
//! - After [`STALE_MS`] without a `Time` the node does not know the time.

use gengfu_wire::Time;

/// What two crystals and a bad temperature make at most, in millionths.
pub const DRIFT_PPM: u64 = 1_000;
/// No frame is late by so much, in milliseconds.
pub const JUMP_MS: u64 = 5_000;
/// Without a word from the gateway the time is not known any more after this, in milliseconds: a day, 86 s of drift.
pub const STALE_MS: u64 = 86_400_000;

/// Uptime to time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct GatewayTime {
    /// Uptime and time of day at the offer that counts, and the uptime of the last offer.
    known: Option<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    uptime_ms: u64,
    unix_ms: u64,
    heard_at_ms: u64,
}

impl GatewayTime {
    /// Takes what the gateway says at uptime `now_ms`.
    pub fn on_time(&mut self, now_ms: u64, time: Time) {
        if !time.synced {
            return;
        }
        let offered = Known { uptime_ms: now_ms, unix_ms: time.unix_ms, heard_at_ms: now_ms };
        match &mut self.known {
            Some(known) => {
                let passed_ms = now_ms.saturating_sub(known.uptime_ms);
                let expected_ms = known.unix_ms.saturating_add(passed_ms);
                let least_ms = expected_ms.saturating_sub(passed_ms * DRIFT_PPM / 1_000_000);
                let was_set = time.unix_ms < expected_ms.saturating_sub(JUMP_MS);
                known.heard_at_ms = now_ms;
                if was_set || time.unix_ms >= least_ms {
                    *known = offered;
                }
            }
            None => self.known = Some(offered),
        }
    }

    /// Milliseconds since 1970-01-01 UTC at uptime `now_ms`, behind the gateway's by at most a frame's way and the drift since its last
    /// word; `None` when the gateway has not said, or not for a day.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Option<u64> {
        let known = self.known.filter(|known| now_ms.saturating_sub(known.heard_at_ms) < STALE_MS)?;
        Some(known.unix_ms.saturating_add(now_ms.saturating_sub(known.uptime_ms)))
    }
}
