//! The emergency button. Owns: a press raises at once; a press after a human has acknowledged asks again, as the same
//! alarm. No sensor
//! tells that the need is over, so it stays active until a human resets it. Refuses to end it by time.

use gengfu_contract::words::AlarmKind;

use super::{Decision, news};
use crate::book::Subject;
use crate::explain::Why;
use crate::observation::Observation;

const RULE: &str = "sos.pressed";

/// Judges a press.
pub(crate) fn observe(decision: &mut Decision, seen: &Observation) {
    let subject = Subject::of(&seen.device, AlarmKind::Sos);
    let why = Why::new(RULE, "紧急求助按钮被按下", "The emergency button was pressed");
    if decision.book.find(&subject).is_some() {
        let why = Why::new(RULE, "紧急求助按钮再次被按下", "The emergency button was pressed again")
            .with("pressed_again_at", seen.sensed_at.to_string());
        decision.raise_again(&subject, news(seen, why));
    } else {
        decision.raise(&subject, seen.sensed_at, news(seen, why));
    }
}
