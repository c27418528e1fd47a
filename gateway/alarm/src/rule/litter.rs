//! Litter that lies too long, and bins that overflow.
//!
//! Owns the life of a heap: waste that lies still in the zone, with nobody in reach who could just have put it down, gathers time
//! while it can be seen and nobody is near; when it has lain for the limit in at least six of ten looks, and is there now, a picture is asked for and
//! the alarm raised. The alarm stays open until the place was seen without it for the clearing time, nothing before it and
//! nobody at work there; then a picture shows the clean place. One case per pile and place: what comes to lie beside it
//! is the same pile, bags at an overflowing bin are the bin's case, zones that overlap share it, and what was only hidden comes back as
//! the same case. Refuses bins that are as they should be, and what moves.

use std::time::Duration;

use gengfu_contract::event::{ClockQuality, EvidenceRef};
use gengfu_contract::words::{AlarmKind, Certainty};
use jiff::Timestamp;

use super::scene::{Look, ask, discard};
use super::{Decision, news};
use crate::book::News;
use crate::explain::Why;
use crate::heap::{Heap, HeapStage, Heaps, Tally};
use crate::observation::{Track, TrackKind};
use crate::output::StillRole;
use crate::place::{Bbox, can_reach, is_usable, share_inside, touch};
use crate::places::Placed;
use crate::rules::{ZoneKind, ZoneRule};
use crate::time::{has_lasted, ms, ms_between, spoken};

const RULE: &str = "litter.persistence";

/// A heap of which this share is covered by somebody or something cannot be seen.
const HIDDEN_SHARE: f32 = 0.4;
/// The smallest share of a heap that a box must cover to show that it is still there, where the two do not lie side by side.
const SHOWN_SHARE: f32 = 0.3;
/// Waste that comes back to a cleared place must lie for this long, or a fifth of its limit when that is sooner.
const BACK_AFTER: Duration = Duration::from_secs(60);
/// What lay there before a camera was blind for this long may be something else afterwards.
const BLIND_MAX: Duration = Duration::from_secs(600);

/// What one picture says of one heap.
enum Sight<'a> {
    /// It is there: the box that shows it best, and whether any shows an overflowing bin.
    Seen { best: &'a Track, overflows: bool },
    /// It would be seen and is not.
    Gone,
    /// Nobody can tell.
    Hidden,
}

/// Judges one zone in one picture.
pub(super) fn judge(decision: &mut Decision, heaps: &mut Heaps, look: &Look) {
    let of_zone = heaps.of_zone(&look.seen.device, look.zone);
    let Some(held_since) = look.held_since else {
        of_zone.into_iter().for_each(|serial| end_of_hours(decision, heaps, look, serial));
        return;
    };
    for serial in of_zone {
        forget(decision, heaps, look, serial, held_since);
        let Some(heap) = heaps.get_mut(serial) else { continue };
        let attended = is_attended(look, heap.bbox);
        heap.looked_at = look.seen.sensed_at;
        match sight(look, heap) {
            Sight::Seen { best, overflows } => present(decision, heaps, look, serial, best, overflows, attended),
            Sight::Gone if !attended => absent(decision, heaps, look, serial),
            Sight::Gone | Sight::Hidden if heap.wants_note() => heaps.write(serial, |_| {}),
            Sight::Gone | Sight::Hidden => {}
        }
    }
    merge(decision, heaps, look);
    begin(decision, heaps, look);
}

/// True when somebody is near enough to have put it down, or to be taking it away.
fn is_attended(look: &Look, place: Bbox) -> bool {
    let people = look.scene.tracks.iter().filter(|track| track.kind == TrackKind::Person && is_usable(track.bbox));
    people.into_iter().any(|person| look.shows(person) && can_reach(person.bbox, place))
}

fn sight<'a>(look: &Look<'a>, heap: &Heap) -> Sight<'a> {
    let shown = || look.scene.tracks.iter().filter(|track| look.shows(track) && is_usable(track.bbox));
    let of_heap = |track: &&Track| {
        let together = touch(heap.bbox, track.bbox) && heap.grown_by(track.bbox).is_some();
        track.kind.is_waste()
            && (together
                || share_inside(heap.bbox, track.bbox) >= SHOWN_SHARE
                || share_inside(track.bbox, heap.bbox) >= SHOWN_SHARE)
    };
    let best = shown().filter(of_heap).max_by(|a, b| a.score.total_cmp(&b.score).then(b.id.cmp(&a.id)));
    if let Some(best) = best {
        let overflows = shown().filter(of_heap).any(|track| track.kind == TrackKind::Overflow);
        return Sight::Seen { best, overflows };
    }
    let covers = |track: &Track| {
        !track.kind.is_waste()
            && track.kind != TrackKind::GarbageBin
            && share_inside(heap.bbox, track.bbox) >= HIDDEN_SHARE
    };
    if shown().any(covers) { Sight::Hidden } else { Sight::Gone }
}

/// What a zone would call a heap with this tally; `None` for what it is not about.
fn called(rule: &ZoneRule, tally: &Tally) -> Option<AlarmKind> {
    match (rule.kind, tally.overflows()) {
        (ZoneKind::Waste | ZoneKind::BinOverflow, true) => Some(AlarmKind::BinOverflow),
        (ZoneKind::Waste | ZoneKind::Litter, false) => Some(AlarmKind::Litter),
        (ZoneKind::AccumulatedWaste, false) => Some(AlarmKind::AccumulatedWaste),
        _ => None,
    }
}

fn limit_of(rule: &ZoneRule, kind: AlarmKind) -> Duration {
    if rule.kind == ZoneKind::Waste && kind == AlarmKind::BinOverflow { rule.overflow_limit } else { rule.limit }
}

/// The heap is seen.
fn present(
    decision: &mut Decision,
    heaps: &mut Heaps,
    look: &Look,
    serial: u64,
    best: &Track,
    overflows: bool,
    attended: bool,
) {
    let Some(heap) = heaps.get_mut(serial) else { return };
    let grown = heap.grown_by(best.bbox).filter(|_| best.stationary_since.is_some());
    if !attended || matches!(heap.stage, HeapStage::Raised { .. }) {
        heap.tally.see(look.watched.waste_credit_ms, overflows);
    }
    if let Some(grown) = grown {
        heaps.write(serial, |heap| heap.bbox = grown);
    }
    let Some(heap) = heaps.get(serial) else { return };
    match &heap.stage {
        HeapStage::Gathering => gather(decision, heaps, look, serial, best, attended),
        HeapStage::Asked { .. } => {}
        HeapStage::Raised { .. } => {
            let why = Why::new(RULE, "画面恢复，仍在原处", "The picture is back and it still lies there");
            let (subject, since) = (heap.subject(), heap.began_at);
            decision.raise(&subject, since, news(look.seen, why));
        }
        HeapStage::Clearing { alarm_id, .. } => {
            let alarm_id = alarm_id.clone();
            heaps.write(serial, |heap| heap.stage = HeapStage::Raised { alarm_id });
        }
        HeapStage::Cleared { alarm_id, .. } => {
            let back_after = BACK_AFTER.min(limit_of(look.rule, heap.kind) / 5);
            if heap.tally.has_lain(back_after) && !attended && best.stationary_since.is_some() {
                let alarm_id = alarm_id.clone();
                let why = Why::new(RULE, "垃圾仍在原处，此前被遮挡", "It still lies there; it was hidden");
                let (subject, since) = (heap.subject(), heap.began_at);
                decision.raise(&subject, since, news(look.seen, why));
                heaps.write(serial, |heap| heap.stage = HeapStage::Raised { alarm_id });
            } else if heap.wants_note() {
                heaps.write(serial, |_| {});
            }
        }
    }
}

/// A heap under its limit is seen: takes its first picture; past the limit, asks for the picture.
fn gather(decision: &mut Decision, heaps: &mut Heaps, look: &Look, serial: u64, best: &Track, attended: bool) {
    let Some(heap) = heaps.get_mut(serial) else { return };
    let called = called(look.rule, &heap.tally);
    let limit = limit_of(look.rule, called.unwrap_or(heap.kind));
    let is_over = called.is_some() && !attended && heap.tally.has_lain(limit);
    heap.tally.fade(limit);
    let arrival_after = decision.rules.timing.arrival_after.min(limit / 2);
    let is_due = heap.alarm_id.is_none()
        && !attended
        && heap.tally.seen_ms >= i64::try_from(ms(arrival_after)).unwrap_or(i64::MAX);
    if !is_over && !is_due {
        if heap.wants_note() {
            heaps.write(serial, |_| {});
        }
        return;
    }
    let kind = called.unwrap_or(heap.kind);
    let subject = Heap { kind, ..heap.clone() }.subject();
    let alarm_id = match &heap.alarm_id {
        Some(known) => known.clone(),
        None => decision.book.next_id(decision.rules, decision.now, &subject),
    };
    let role = if is_over { StillRole::PastLimit } else { StillRole::Arrival };
    let deadline = ask(decision, &look.seen.device, &alarm_id, role, role.n(), best.id);
    let (over_at, clock) = (look.seen.sensed_at, look.seen.clock);
    let score = if best.score.is_finite() { best.score.clamp(0.0, 1.0) } else { 0.0 };
    heaps.write(serial, |heap| {
        (heap.kind, heap.score, heap.alarm_id) = (kind, score, Some(alarm_id.clone()));
        if is_over {
            heap.stage = HeapStage::Asked { alarm_id, over_at, clock, deadline };
        }
    });
}

/// The heap is not seen in a picture that would have shown it, with nobody near.
fn absent(decision: &mut Decision, heaps: &mut Heaps, look: &Look, serial: u64) {
    let Some(heap) = heaps.get_mut(serial) else { return };
    heap.tally.miss(look.watched.waste_credit_ms);
    let limit = limit_of(look.rule, heap.kind);
    let clear_after_ms = i64::try_from(ms(look.rule.clear_after)).unwrap_or(i64::MAX);
    match &heap.stage {
        HeapStage::Gathering => {
            heap.tally.fade(limit);
            let given_up_ms = clear_after_ms.min(i64::try_from(ms(limit)).unwrap_or(i64::MAX) / 2);
            if heap.tally.absent_ms >= given_up_ms {
                drop_heap(decision, heaps, serial);
                return;
            }
        }
        HeapStage::Raised { alarm_id } if heap.tally.absent_ms >= clear_after_ms => {
            let (alarm_id, n) = (alarm_id.clone(), StillRole::Cleared.n().saturating_add(heap.after_pictures));
            let deadline = ask(decision, &look.seen.device, &alarm_id, StillRole::Cleared, n, 0);
            let (gone_at, clock) = (look.seen.sensed_at, look.seen.clock);
            heaps.write(serial, |heap| {
                heap.after_pictures = heap.after_pictures.saturating_add(1);
                heap.stage = HeapStage::Clearing { alarm_id, gone_at, clock, deadline };
            });
            return;
        }
        _ => {}
    }
    if heaps.get(serial).is_some_and(Heap::wants_note) {
        heaps.write(serial, |_| {});
    }
}

/// New heaps for waste that lies in the zone and is nobody's yet.
fn begin(decision: &mut Decision, heaps: &mut Heaps, look: &Look) {
    for track in &look.scene.tracks {
        let is_new = look.rule.kind.admits(track.kind)
            && look.rule.classes.contains(&track.kind)
            && is_usable(track.bbox)
            && look.shows(track)
            && track.stationary_since.is_some()
            && track.zones.contains(look.zone)
            && !is_attended(look, track.bbox);
        if !is_new || !is_free(decision, heaps, look, track) {
            continue;
        }
        let at = look.seen.sensed_at;
        let tally = Tally::default();
        heaps.insert(Heap {
            serial: decision.book.next_spot(),
            camera: look.seen.device.clone(),
            zone: look.zone.clone(),
            kind: if track.kind == TrackKind::Overflow { AlarmKind::BinOverflow } else { look.rule.kind.alarm() },
            origin: track.bbox,
            bbox: track.bbox,
            began_at: at,
            score: 0.0,
            alarm_id: None,
            stills: Vec::new(),
            after_pictures: 0,
            stage: HeapStage::Gathering,
            noted: tally,
            noted_at: at,
            tally,
            looked_at: at,
        });
    }
}

/// True when no heap of the camera has the place. An overflowing bin takes it from litter that is no alarm yet in a zone that is
/// not about bins.
fn is_free(decision: &mut Decision, heaps: &mut Heaps, look: &Look, track: &Track) -> bool {
    let owners = heaps.iter().filter(|heap| heap.camera == look.seen.device && touch(heap.bbox, track.bbox));
    let owners: Vec<(u64, bool)> = owners
        .map(|heap| {
            let rule = decision.rules.zone(&heap.camera, &heap.zone);
            let minds = rule.is_some_and(|rule| rule.kind.admits(TrackKind::Overflow));
            let yields = heap.stage == HeapStage::Gathering && track.kind == TrackKind::Overflow && !minds;
            (heap.serial, yields)
        })
        .collect();
    let is_free = owners.iter().all(|(_, yields)| *yields);
    if is_free {
        owners.iter().for_each(|(serial, _)| drop_heap(decision, heaps, *serial));
    }
    is_free
}

/// Heaps that have grown into another one are that one.
fn merge(decision: &mut Decision, heaps: &mut Heaps, look: &Look) {
    for serial in heaps.of_zone(&look.seen.device, look.zone) {
        let Some(heap) = heaps.get(serial).filter(|heap| heap.stage == HeapStage::Gathering) else { continue };
        let into = |other: &Heap| {
            let overlap = share_inside(heap.bbox, other.bbox).max(share_inside(other.bbox, heap.bbox));
            let goes_before = other.stage != HeapStage::Gathering || other.serial < heap.serial;
            other.camera == heap.camera
                && other.serial != serial
                && other.is_live()
                && goes_before
                && overlap >= SHOWN_SHARE
        };
        if heaps.iter().any(into) {
            drop_heap(decision, heaps, serial);
        }
    }
}

/// What lies there is no offence from now on.
fn end_of_hours(decision: &mut Decision, heaps: &mut Heaps, look: &Look, serial: u64) {
    let Some(heap) = heaps.get(serial) else { return };
    match &heap.stage {
        // Already decided: what waits for its picture is told first.
        HeapStage::Asked { .. } | HeapStage::Clearing { .. } => return,
        HeapStage::Raised { .. } => {
            let why = Why::new("zone.hours", "管控时段已结束", "The hours in which it is forbidden are over");
            let subject = heap.subject();
            decision.clear(&subject, news(look.seen, why));
        }
        HeapStage::Gathering | HeapStage::Cleared { .. } => {}
    }
    drop_heap(decision, heaps, serial);
}

/// Forgets a heap, and the pictures of one that never became an alarm.
fn drop_heap(decision: &mut Decision, heaps: &mut Heaps, serial: u64) {
    if let Some(heap) = heaps.get(serial).filter(|heap| heap.stage == HeapStage::Gathering) {
        discard(decision, &heap.camera, heap.alarm_id.as_ref());
    }
    heaps.remove(serial);
}

/// Drops what has become meaningless: the alarm is over, the time to come back has passed, the camera was blind too long, the hours
/// ended and began again unseen.
fn forget(decision: &mut Decision, heaps: &mut Heaps, look: &Look, serial: u64, held_since: Timestamp) {
    let Some(heap) = heaps.get(serial) else { return };
    let at = look.seen.sensed_at;
    if heap.began_at < held_since {
        end_of_hours(decision, heaps, look, serial);
        return;
    }
    let is_over = |id: &str| decision.book.get(id).is_none();
    let gone = match &heap.stage {
        HeapStage::Gathering => has_lasted(heap.looked_at, at, BLIND_MAX),
        HeapStage::Asked { .. } => false,
        HeapStage::Raised { alarm_id } | HeapStage::Clearing { alarm_id, .. } => is_over(alarm_id),
        HeapStage::Cleared { alarm_id, cleared_at } => {
            is_over(alarm_id) || has_lasted(*cleared_at, at, decision.rules.timing.waste_return_window)
        }
    };
    if gone {
        drop_heap(decision, heaps, serial);
    }
}

/// A picture came, or will not come; false when it is none of a heap that waits for it.
pub(super) fn still(
    decision: &mut Decision,
    heaps: &mut Heaps,
    alarm_id: &str,
    result: &Result<EvidenceRef, String>,
) -> bool {
    let waits = |heap: &&Heap| {
        heap.alarm_id.as_deref() == Some(alarm_id)
            && matches!(heap.stage, HeapStage::Gathering | HeapStage::Asked { .. } | HeapStage::Clearing { .. })
    };
    let Some(heap) = heaps.iter().find(waits) else { return false };
    let (serial, after_n) = (heap.serial, StillRole::Cleared.n().saturating_add(heap.after_pictures.saturating_sub(1)));
    match (&heap.stage, result) {
        (HeapStage::Clearing { .. }, Ok(picture)) if picture.n != after_n => return false,
        (HeapStage::Clearing { .. }, _) => clear(decision, heaps, serial, result.as_ref()),
        (_, Ok(early)) if early.n != StillRole::PastLimit.n() => heaps.write(serial, |heap| {
            if heap.stills.iter().all(|have| have.n != early.n) {
                heap.stills.push(early.clone());
            }
        }),
        (HeapStage::Asked { .. }, _) => raise(decision, heaps, serial, result.clone()),
        _ => {}
    }
    true
}

/// Raises and clears without their pictures what has waited long enough.
pub(super) fn tick(decision: &mut Decision, heaps: &mut Heaps) {
    let overdue = |heap: &&Heap| heap.deadline().is_some_and(|deadline| deadline <= decision.now);
    let late: Vec<(u64, bool)> =
        heaps.iter().filter(overdue).map(|heap| (heap.serial, matches!(heap.stage, HeapStage::Asked { .. }))).collect();
    for (serial, is_asked) in late {
        let missing = "the picture was not there in time".to_owned();
        if is_asked {
            raise(decision, heaps, serial, Err(missing));
        } else {
            clear(decision, heaps, serial, Err(&missing));
        }
    }
}

fn raise(decision: &mut Decision, heaps: &mut Heaps, serial: u64, still: Result<EvidenceRef, String>) {
    let Some(heap) = heaps.get(serial) else { return };
    let HeapStage::Asked { alarm_id, over_at, clock, .. } = &heap.stage else { return };
    let (alarm_id, over_at, clock) = (alarm_id.clone(), *over_at, *clock);
    let why = lies(decision, heap, over_at, still.as_ref().err());
    let news = News {
        certainty: Some(if heap.score >= 0.8 { Certainty::Likely } else { Certainty::Possible }),
        confidence: Some(heap.score),
        evidence: heap.stills.iter().cloned().chain(still.ok()).collect(),
        ..News::at(over_at, clock, None, why)
    };
    let (subject, since, camera) = (heap.subject(), heap.began_at, heap.camera.clone());
    decision.raise_as(&alarm_id, &subject, since, news);
    ask(decision, &camera, &alarm_id, StillRole::Overview, StillRole::Overview.n(), 0);
    heaps.write(serial, |heap| {
        heap.stage = HeapStage::Raised { alarm_id };
        heap.stills.clear();
    });
}

fn lies(decision: &Decision, heap: &Heap, over_at: Timestamp, missing: Option<&String>) -> Why {
    let rule = decision.rules.zone(&heap.camera, &heap.zone);
    let place = rule.and_then(|rule| rule.text.as_deref()).unwrap_or(heap.zone.as_str());
    let limit_ms = rule.map_or(0, |rule| ms(limit_of(rule, heap.kind)));
    let lain_ms = ms_between(heap.began_at, over_at).max(0);
    let (lasted, limit) = (spoken(lain_ms), spoken(i64::try_from(limit_ms).unwrap_or(i64::MAX)));
    let percent = heap.tally.seen_percent();
    let (zh, en) = match heap.kind {
        AlarmKind::BinOverflow => ("垃圾箱满溢", "A bin overflows"),
        AlarmKind::AccumulatedWaste => ("垃圾渣土积存", "Rubbish is left"),
        _ => ("垃圾暴露", "Litter lies"),
    };
    Why::new(
        RULE,
        format!("“{place}”{zh}已 {}，限时 {}，{percent}% 的画面可见，附近无人", lasted.zh, limit.zh),
        format!(
            "{en} in \"{place}\" for {} (limit {}), seen in {percent} % of looks, nobody near",
            lasted.en, limit.en
        ),
    )
    .with("limit_ms", limit_ms)
    .with("looked_ms", heap.tally.looked_ms)
    .with("seen_ms", heap.tally.seen_ms)
    .with("lying_since", heap.began_at.to_string())
    .with("still", missing.map_or("attached".to_owned(), |reason| format!("missing: {reason}")))
}

fn clear(decision: &mut Decision, heaps: &mut Heaps, serial: u64, after: Result<&EvidenceRef, &String>) {
    let Some(heap) = heaps.get(serial) else { return };
    let HeapStage::Clearing { alarm_id, gone_at, clock, .. } = &heap.stage else { return };
    let (alarm_id, gone_at, clock): (String, Timestamp, ClockQuality) = (alarm_id.clone(), *gone_at, *clock);
    let lain_ms = ms_between(heap.began_at, gone_at).max(0);
    let lasted = spoken(lain_ms);
    let why =
        Why::new(RULE, format!("已清除，共 {}", lasted.zh), format!("The place is clean again after {}", lasted.en))
            .with("lain_ms", lain_ms)
            .with("after_picture", after.err().map_or("attached".to_owned(), |reason| format!("missing: {reason}")));
    let subject = heap.subject();
    let evidence = after.ok().cloned().into_iter().collect();
    decision.clear(&subject, News { evidence, ..News::at(gone_at, clock, None, why) });
    heaps.write(serial, |heap| {
        heap.stage = HeapStage::Cleared { alarm_id, cleared_at: gone_at };
        heap.tally = Tally::default();
    });
}
