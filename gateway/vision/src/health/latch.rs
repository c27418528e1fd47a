//! A sign of trouble over time: it must last before it counts, and be gone for a while before it is over. Owns the hysteresis; refuses to
//! know what the sign is.

/// What one look says of a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Plainly there.
    Bad,
    /// In between, or not to be told now: nothing changes.
    Unsure,
    /// Plainly not there.
    Good,
}

impl Sign {
    /// Bad from `bad_from` upwards, good below `good_below`, unsure between.
    #[must_use]
    pub fn above(value: f32, good_below: f32, bad_from: f32) -> Self {
        if value >= bad_from {
            Self::Bad
        } else if value < good_below {
            Self::Good
        } else {
            Self::Unsure
        }
    }
}

/// One sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latch {
    hold_ms: i64,
    release_ms: i64,
    on: bool,
    /// Since when the looks speak for a change.
    since_ms: Option<i64>,
}

impl Latch {
    /// On after `hold_ms` of bad looks without a good one; off after `release_ms` of good looks without a bad one.
    #[must_use]
    pub fn new(hold_ms: i64, release_ms: i64) -> Self {
        Self { hold_ms, release_ms, on: false, since_ms: None }
    }

    /// Takes a look in.
    pub fn look(&mut self, now_ms: i64, sign: Sign) {
        let (speaks_for_change, against) = if self.on { (Sign::Good, Sign::Bad) } else { (Sign::Bad, Sign::Good) };
        if sign == against {
            self.since_ms = None;
        } else if sign == speaks_for_change {
            let since_ms = *self.since_ms.get_or_insert(now_ms);
            let wanted_ms = if self.on { self.release_ms } else { self.hold_ms };
            if now_ms - since_ms >= wanted_ms {
                self.on = !self.on;
                self.since_ms = None;
            }
        }
    }

    /// Is it on?
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Off, or on: is the last word of the looks that it is bad?
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.on || self.since_ms.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Sign::{Bad, Good, Unsure};

    fn states(looks: &[Sign]) -> Vec<bool> {
        let mut latch = Latch::new(3000, 2000);
        let at = |i: usize| i64::try_from(i).unwrap() * 1000;
        looks.iter().enumerate().map(|(i, sign)| (latch.look(at(i), *sign), latch.is_on()).1).collect()
    }

    #[test]
    fn it_must_last_to_begin_and_be_gone_for_a_while_to_end() {
        assert_eq!(states(&[Bad, Bad, Bad, Bad, Good, Good, Good]), [false, false, false, true, true, true, false]);
        assert_eq!(states(&[Bad, Bad, Good, Bad, Bad, Bad]), [false; 6], "one good look starts the wait again");
    }

    #[test]
    fn what_cannot_be_told_changes_nothing() {
        assert_eq!(states(&[Unsure; 8]), [false; 8]);
        assert_eq!(states(&[Bad, Unsure, Unsure, Bad, Unsure, Unsure]), [false, false, false, true, true, true]);
        assert_eq!(Sign::above(0.5, 0.4, 0.6), Unsure);
        assert_eq!((Sign::above(0.6, 0.4, 0.6), Sign::above(0.3, 0.4, 0.6)), (Bad, Good));
    }
}
