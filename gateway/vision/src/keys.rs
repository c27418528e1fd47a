//! Do a camera's key frames suffice? Owns the choice between decoding key frames only and decoding everything, from how long a thing
//! must stand in the camera's zones and how far apart the key frames truly are; refuses clocks and decoders: it is told stamps.

/// Looks that must fit into the shortest dwell of a camera: fewer, and one missed detection would make an alarm late.
const LOOKS_PER_DWELL: u64 = 10;
/// Key frames further apart than this never suffice, whatever the dwell: a tracker loses what moves, and a closing alarm comes late.
const APART_MAX_MS: i64 = 10_000;
/// Key frames in a row that must come in time before the others are left out.
const IN_TIME: u32 = 2;

/// How packets are to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Decode it as part of the whole stream.
    Whole,
    /// A key frame, alone.
    KeyAlone,
    /// Leave it.
    Skip,
}

/// The choice for one stream.
#[derive(Debug, Clone)]
pub(crate) struct KeyChoice {
    /// None: key frames were asked for, or everything; else the longest time between two that suffices.
    apart_max_ms: Option<i64>,
    key_only: bool,
    last_key_ms: Option<i64>,
    in_time: u32,
    /// Key frames turned out too rare; everything is decoded from the next one on.
    starved: bool,
}

impl KeyChoice {
    /// Always key frames only, or always everything.
    pub fn fixed(key_only: bool) -> Self {
        Self { apart_max_ms: None, key_only, last_key_ms: None, in_time: 0, starved: false }
    }

    /// Decides by itself: key frames suffice when at least [`LOOKS_PER_DWELL`] fall into `dwell_ms`, the shortest time a thing may stand
    /// in a zone of this camera (none: nothing waits for a limit). Begins with everything, so that the first pictures do not wait.
    pub fn measured(dwell_ms: Option<u64>) -> Self {
        let fits = dwell_ms.and_then(|ms| i64::try_from(ms / LOOKS_PER_DWELL).ok());
        let apart_max_ms = fits.map_or(APART_MAX_MS, |ms| ms.min(APART_MAX_MS));
        Self { apart_max_ms: Some(apart_max_ms), ..Self::fixed(false) }
    }

    /// Are only key frames decoded now?
    pub fn key_only(&self) -> bool {
        self.key_only
    }

    /// What to do with the next packet; `ms` is its stamp, if it has one.
    pub fn packet(&mut self, ms: Option<i64>, key: bool) -> Treatment {
        if let Some(apart_max_ms) = self.apart_max_ms {
            self.measure(ms, key, apart_max_ms);
        }
        match (self.key_only, key) {
            (false, _) => Treatment::Whole,
            (true, true) => Treatment::KeyAlone,
            (true, false) => Treatment::Skip,
        }
    }

    fn measure(&mut self, ms: Option<i64>, key: bool, apart_max_ms: i64) {
        let Some(ms) = ms else { return };
        let apart_ms = self.last_key_ms.map(|last| ms - last);
        // A stamp that runs backwards is a new time line: measure anew.
        let too_far = apart_ms.is_some_and(|apart| !(0..=apart_max_ms).contains(&apart));
        if !key {
            // Alone, this packet cannot be decoded: the change waits for a key frame.
            self.starved |= too_far && self.key_only;
            return;
        }
        self.in_time = if apart_ms.is_none() || too_far || self.starved { 0 } else { self.in_time + 1 };
        self.starved = false;
        self.last_key_ms = Some(ms);
        self.key_only = self.in_time >= IN_TIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `seconds` of a 25 fps stream with a key frame every `gop_ms`; gives what was decoded per second at its end.
    fn decoded_per_second(choice: &mut KeyChoice, from_ms: i64, seconds: i64, gop_ms: i64) -> usize {
        let packets = (0..seconds * 25).map(|i| from_ms + i * 40);
        let kept = packets.filter(|ms| choice.packet(Some(*ms), (ms - from_ms) % gop_ms == 0) != Treatment::Skip);
        let last = from_ms + (seconds - 20) * 1000;
        kept.filter(|ms| *ms >= last).count() / 20
    }

    #[test]
    fn key_frames_every_two_seconds_suffice_for_a_minute_and_not_for_ten_seconds() {
        assert_eq!(
            decoded_per_second(&mut KeyChoice::measured(Some(60_000)), 0, 60, 2000),
            0,
            "half a picture a second"
        );
        assert_eq!(decoded_per_second(&mut KeyChoice::measured(Some(20_000)), 0, 60, 2000), 0);
        assert_eq!(decoded_per_second(&mut KeyChoice::measured(Some(10_000)), 0, 60, 2000), 25);
        assert_eq!(decoded_per_second(&mut KeyChoice::measured(None), 0, 60, 4000), 0);
        assert_eq!(decoded_per_second(&mut KeyChoice::measured(None), 0, 120, 12_000), 25, "never so far apart");
    }

    #[test]
    fn the_first_pictures_do_not_wait_for_a_measurement() {
        let mut choice = KeyChoice::measured(Some(60_000));
        assert_eq!(choice.packet(Some(0), true), Treatment::Whole);
        assert_eq!(choice.packet(Some(40), false), Treatment::Whole);
        assert_eq!(choice.packet(Some(2000), true), Treatment::Whole);
        assert_eq!(choice.packet(Some(4000), true), Treatment::KeyAlone);
        assert_eq!(choice.packet(Some(4040), false), Treatment::Skip);
    }

    #[test]
    fn key_frames_that_become_rare_bring_the_others_back_at_the_next_one() {
        let mut choice = KeyChoice::measured(Some(60_000));
        assert_eq!(decoded_per_second(&mut choice, 0, 40, 2000), 0);
        assert_eq!(choice.packet(Some(40_000), true), Treatment::KeyAlone);
        assert_eq!(choice.packet(Some(47_000), false), Treatment::Skip, "cannot be decoded without the ones before");
        assert_eq!(choice.packet(Some(47_040), true), Treatment::Whole);
        assert_eq!(choice.packet(Some(47_080), false), Treatment::Whole);
        // And they go again when key frames come in time.
        assert_eq!(decoded_per_second(&mut choice, 48_000, 60, 1000), 1);
    }

    #[test]
    fn what_was_asked_for_is_done_and_missing_stamps_change_nothing() {
        assert_eq!(decoded_per_second(&mut KeyChoice::fixed(false), 0, 40, 1000), 25);
        assert_eq!(decoded_per_second(&mut KeyChoice::fixed(true), 0, 40, 20_000), 0);
        let mut choice = KeyChoice::measured(None);
        assert_eq!([choice.packet(None, true), choice.packet(None, false)], [Treatment::Whole; 2]);
        // A clock that is set back is a new time line, not key frames in time.
        assert_eq!(decoded_per_second(&mut choice, 100_000, 40, 2000), 0);
        assert_eq!(choice.packet(Some(0), true), Treatment::Whole);
    }
}
