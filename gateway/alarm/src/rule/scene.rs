//! One picture of a camera, judged zone by zone, and the pictures that alarms carry.
//!
//! Owns the order (time first, then each zone by its own rule), what a disturbed picture proves, and the way of a still to whom it was
//! taken for. Refuses to judge a zone: `parking` and `litter` do.

use gengfu_contract::event::EvidenceRef;
use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use super::{Decision, litter, news, parking};
use crate::book::News;
use crate::explain::Why;
use crate::heap::Heaps;
use crate::observation::{Observation, Scene, Track};
use crate::output::{DiscardStills, NeedStill, Output, StillRole};
use crate::rules::ZoneRule;
use crate::spot::{Spots, View, Watched};
use crate::time::after;

/// The name of the rule that attaches pictures.
const RULE: &str = "scene.still";

/// One zone in one picture.
pub(super) struct Look<'a> {
    pub seen: &'a Observation,
    pub scene: &'a Scene,
    pub view: &'a View,
    pub zone: &'a Slug,
    pub rule: &'a ZoneRule,
    pub watched: Watched,
    /// Since when the rule holds without a break; `None`: it does not hold now.
    pub held_since: Option<Timestamp>,
}

impl Look<'_> {
    /// True when the picture truly shows the track; false when it is kept while hidden.
    pub fn shows(&self, track: &Track) -> bool {
        track.last_seen_at >= self.seen.sensed_at
    }
}

/// Judges one picture of a camera.
pub(crate) fn observe(
    decision: &mut Decision,
    view: &mut View,
    spots: &mut Spots,
    heaps: &mut Heaps,
    seen: &Observation,
    scene: &Scene,
) {
    let Some(watched) = view.advance(seen.sensed_at, &decision.rules.timing) else { return };
    let watched = if scene.is_unclear { watched.unclear() } else { watched };
    view.remember_births(scene);
    if let Some(step) = watched.step {
        spots.shift(&seen.device, step);
        heaps.shift(&seen.device, step);
    }
    let rules = decision.rules;
    for ((_, zone), rule) in rules.zones.iter().filter(|((camera, _), _)| *camera == seen.device) {
        let held_since = rule.hours.held_since(&rules.timing.care.zone, seen.sensed_at);
        let look = Look { seen, scene, view, zone, rule, watched, held_since };
        if rule.kind.is_waste() {
            litter::judge(decision, heaps, &look);
        } else {
            parking::judge(decision, spots, &look);
        }
    }
}

/// Asks for a picture. `n` tells after-pictures of one alarm apart.
pub(super) fn ask(
    decision: &mut Decision,
    camera: &Slug,
    alarm_id: &str,
    role: StillRole,
    n: u32,
    track: u64,
) -> Timestamp {
    let deadline = after(decision.now, decision.rules.timing.still_wait);
    decision.out.push(Output::NeedStill(NeedStill {
        alarm_id: alarm_id.to_owned(),
        n,
        role,
        camera: camera.clone(),
        track,
        caption: role.caption().to_owned(),
        deadline,
    }));
    deadline
}

/// The pictures taken under this id will be nobody's evidence.
pub(super) fn discard(decision: &mut Decision, camera: &Slug, alarm_id: Option<&String>) {
    let Some(alarm_id) = alarm_id.filter(|id| decision.book.get(id).is_none()) else { return };
    let discard = DiscardStills { camera: camera.clone(), alarm_id: alarm_id.clone() };
    decision.out.push(Output::DiscardStills(discard));
}

/// A picture that was asked for is there, or will not come.
pub(crate) fn still(
    decision: &mut Decision,
    spots: &mut Spots,
    heaps: &mut Heaps,
    seen: &Observation,
    alarm_id: &str,
    result: &Result<EvidenceRef, String>,
) {
    if parking::still(decision, spots, alarm_id, result) || litter::still(decision, heaps, alarm_id, result) {
        return;
    }
    let Ok(evidence) = result else { return };
    let Some(alarm) = decision.book.get(alarm_id) else {
        // It was under way when its vehicle drove off.
        if !decision.book.is_over(alarm_id) {
            discard(decision, &seen.device, Some(&alarm_id.to_owned()));
        }
        return;
    };
    // What was to show that it is gone says nothing when it is there again.
    let is_stale = evidence.n >= StillRole::Cleared.n();
    if is_stale || alarm.data.evidence.iter().any(|have| have.n == evidence.n) {
        return;
    }
    let subject = alarm.subject.clone();
    let why = Why::new(RULE, "补充取证画面", "A picture came after the alarm");
    let why = if evidence.n == StillRole::PastLimit.n() { why.with("still", "attached late") } else { why };
    decision.update(&subject, News { evidence: vec![evidence.clone()], ..news(seen, why) });
}

/// Runs what waited for a picture long enough.
pub(crate) fn tick(decision: &mut Decision, spots: &mut Spots, heaps: &mut Heaps) {
    parking::tick(decision, spots);
    litter::tick(decision, heaps);
}
