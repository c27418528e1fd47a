//! What is too large for the broker, as far as it did not say so itself.
//!
//! Owns one number: the smallest message that the broker refused as too large. On MQTT 5 a broker may have a bound for messages beside the one for packets that its CONNACK
//! tells (mosquitto's `message_size_limit`), and each message above it costs the connection (see [`super::connection::Signal::RefusedOldest`]). So what is as large
//! as one that was refused is not sent any more; after a while it is tried again, for the bound may have been raised. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff::{Backoff, between};

/// A refused size is believed for so long, and twice as long each time that it is refused again when it was tried after that.
const BELIEVED: Backoff = Backoff { base: Duration::from_secs(5), ceiling: Duration::from_secs(60) };

/// The smallest size that was refused, bytes, and when (steady time); and how often a size was tried again in vain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    refused: Option<(usize, Timestamp)>,
    tries: u32,
}

impl Sizes {
    /// A message of so many bytes was refused as too large.
    pub fn refused(&mut self, bytes: usize, now: Timestamp) {
        let limit = self.limit(now);
        self.tries = self.tries.saturating_add(u32::from(limit == usize::MAX));
        self.refused = Some((bytes.min(limit.saturating_add(1)), now));
    }

    /// The connection ended for another reason: it may be another broker, or one with another bound.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// The largest message worth sending, bytes; `usize::MAX` where nothing is known.
    pub fn limit(&self, now: Timestamp) -> usize {
        let for_now = |at: &Timestamp| *at <= now && between(*at, now) < BELIEVED.wait(self.tries);
        let believed = self.refused.filter(|(_, at)| for_now(at));
        believed.map_or(usize::MAX, |(bytes, _)| bytes.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    #[test]
    fn what_is_as_large_as_a_refused_message_is_not_tried_for_a_while_that_grows() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.limit(at(0)), usize::MAX);
        sizes.refused(1_300, at(0));
        assert_eq!(sizes.limit(at(1)), 1_299);
        sizes.refused(950, at(2));
        assert_eq!(sizes.limit(at(6)), 949);
        assert_eq!(sizes.limit(at(7)), usize::MAX, "tried again");
        sizes.refused(2_000, at(7));
        assert_eq!(sizes.limit(at(16)), 1_999, "what was refused before has been forgotten; in vain once");
        assert_eq!(sizes.limit(at(17)), usize::MAX);
        (0..10).for_each(|n| sizes.refused(2_000, at(100 * n + 100)));
        assert_eq!((sizes.limit(at(1_059)), sizes.limit(at(1_060))), (1_999, usize::MAX));
        sizes.forget();
        sizes.refused(1_300, at(2_000));
        assert_eq!((sizes.limit(at(2_004)), sizes.limit(at(2_005))), (1_299, usize::MAX));
    }
}
