//! What is too large for the broker, as far as it did not say so itself.
//!
//! Owns one number: the smallest message that the broker refused as too large. On MQTT 5 a broker may have a bound for messages beside the one for packets that its CONNACK
//! tells (mosquitto's `message_size_limit`), and each message above it costs the connection (see [`super::connection::Signal::RefusedOldest`]). So what is as large
//! as one that was refused is not sent any more; after a while it is tried again, for the bound may have been raised. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::backoff::between;

/// A refused size is believed for this long.
const BELIEVED: Duration = Duration::from_secs(60);

/// The smallest size that was refused, bytes, and when (steady time).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes(Option<(usize, Timestamp)>);

impl Sizes {
    /// A message of so many bytes was refused as too large.
    pub fn refused(&mut self, bytes: usize, now: Timestamp) {
        self.0 = Some((bytes.min(self.limit(now).saturating_add(1)), now));
    }

    /// The connection ended for another reason: it may be another broker, or one with another bound.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The largest message worth sending, bytes; `usize::MAX` where nothing is known.
    pub fn limit(&self, now: Timestamp) -> usize {
        let believed = self.0.filter(|(_, at)| *at <= now && between(*at, now) < BELIEVED);
        believed.map_or(usize::MAX, |(bytes, _)| bytes.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    #[test]
    fn what_is_as_large_as_a_refused_message_is_not_tried_for_a_minute() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.limit(at(0)), usize::MAX);
        sizes.refused(1_300, at(0));
        assert_eq!(sizes.limit(at(1)), 1_299);
        sizes.refused(950, at(30));
        assert_eq!(sizes.limit(at(89)), 949);
        assert_eq!(sizes.limit(at(90)), usize::MAX, "tried again");
        sizes.refused(2_000, at(90));
        assert_eq!(sizes.limit(at(91)), 1_999, "what was refused before has been forgotten");
        sizes.forget();
        assert_eq!(sizes.limit(at(91)), usize::MAX);
    }
}
