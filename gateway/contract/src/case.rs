//! The case: what the centre makes of an alarm.
//!
//! Owns the words of a case's life and which may follow which. Refuses to keep a case: the centre owns it, the gateway only remembers
//! what it was last told, and never closes one. The condition is another machine ([`crate::words::Condition`]); neither moves the other.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::{open_words, words};

words! {
    /// Where a case stands (发现、立案、派遣、处置、反馈、核查、结案、评价).
    CaseStage: "SCREAMING_SNAKE_CASE" {
        /// The centre has it on its desk (受理).
        Reported = "REPORTED",
        /// It is a case (立案).
        Filed = "FILED",
        /// It is none, for a reason (不予立案).
        Rejected = "REJECTED",
        /// Somebody was told to deal with it (派遣).
        Dispatched = "DISPATCHED",
        /// They took it (接单).
        Accepted = "ACCEPTED",
        /// They are at work (处置中).
        InProgress = "IN_PROGRESS",
        /// They say it is done (反馈).
        Feedback = "FEEDBACK",
        /// Somebody looks whether it is (核查).
        Verifying = "VERIFYING",
        /// It is done (结案).
        Closed = "CLOSED",
        /// It was judged how it was done (评价).
        Rated = "RATED",
        /// It goes back to be dispatched anew, for a reason (退回, 返工): not ours, not done, or opened again.
        Returned = "RETURNED",
    }
}

impl CaseStage {
    /// Whether a case that stands at `before` may come to this stage; `None` when nothing was told of it before. The same stage again is an
    /// update (a new `due_at`, a note). No stage is skipped.
    #[must_use]
    pub fn may_follow(self, before: Option<CaseStage>) -> bool {
        use CaseStage::*;
        let next: &[CaseStage] = match before {
            None => &[Reported, Filed, Rejected],
            Some(Reported) => &[Filed, Rejected],
            Some(Filed) => &[Dispatched, Rejected],
            // A rejection can be an error: the case is filed after all.
            Some(Rejected) => &[Filed],
            Some(Dispatched) => &[Accepted, Returned],
            Some(Accepted) => &[InProgress, Returned],
            Some(InProgress) => &[Feedback, Returned],
            Some(Feedback) => &[Verifying, Returned],
            Some(Verifying) => &[Closed, Returned],
            Some(Closed) => &[Rated, Returned],
            Some(Returned) => &[Dispatched, Rejected],
            Some(Rated) => &[],
        };
        before == Some(self) || next.contains(&self)
    }

    /// True when nobody will do anything more about it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, CaseStage::Rejected | CaseStage::Closed | CaseStage::Rated)
    }

    /// True when it must say why.
    #[must_use]
    pub fn needs_reason(self) -> bool {
        matches!(self, CaseStage::Rejected | CaseStage::Returned)
    }
}

open_words! {
    /// Why a case was rejected or returned. These feed thresholds and reports. Open.
    RejectReason {
        /// Cooking smoke.
        BurntFood = "burnt_food",
        /// Steam of a bath or a kitchen.
        Steam = "steam",
        /// The person was away.
        ResidentAway = "resident_away",
        /// The sensor is at fault or badly mounted.
        Sensor = "sensor",
        /// Rain, shadow or light on a camera.
        RainOrShadow = "rain_or_shadow",
        /// The model took one thing for another.
        Model = "model",
        /// Another case is about the same.
        Duplicate = "duplicate",
        /// Nothing was found on site.
        NotFound = "not_found",
        /// Something else: the note says what.
        Unlisted = "other",
    }
}

/// What an alarm says of its case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaseRef {
    /// The centre's id of the case.
    pub case_id: String,
    /// Where it stands.
    pub stage: CaseStage,
    /// When it must be dealt with, by the centre's rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_life_of_a_case_is_allowed_and_no_stage_is_skipped() {
        use CaseStage::*;
        let life = [Reported, Filed, Dispatched, Accepted, InProgress, Feedback, Verifying, Closed, Rated];
        assert!(life.windows(2).all(|step| step[1].may_follow(Some(step[0]))));
        for (from, before) in life.iter().enumerate() {
            for after in life.iter().skip(from + 2) {
                assert!(!after.may_follow(Some(*before)), "{before} → {after}");
            }
            assert!(
                life.iter().take(from).all(|earlier| !earlier.may_follow(Some(*before))),
                "no way back to before {before}"
            );
        }
        assert!(life.iter().all(|stage| stage.may_follow(Some(*stage))), "the same stage again is an update");
    }

    #[test]
    fn what_is_returned_is_dispatched_anew_and_what_is_rated_is_over() {
        use CaseStage::*;
        for stage in [Dispatched, Accepted, InProgress, Feedback, Verifying, Closed] {
            assert!(Returned.may_follow(Some(stage)), "{stage}");
        }
        assert!(Dispatched.may_follow(Some(Returned)) && !Returned.may_follow(None));
        assert!(CaseStage::ALL.iter().all(|next| *next == Rated || !next.may_follow(Some(Rated))));
        for stage in CaseStage::ALL {
            let reachable = CaseStage::ALL.iter().any(|from| from != stage && stage.may_follow(Some(*from)));
            assert!(reachable || *stage == Reported, "{stage} cannot be reached");
        }
    }
}
