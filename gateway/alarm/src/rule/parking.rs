//! Vehicles that stand where they must not: illegal parking and blocked fire lanes.
//!
//! Owns the life of a spot: a motor vehicle of the zone's classes that stands in the zone waits for the limit; past it a
//! picture is asked for and the alarm raised, with or without; the alarm stays open until the vehicle has left. One
//! alarm per vehicle
//! and place, through occlusion, flicker, new track numbers and restarts. Absence is judged on pictures only: time
//! that nobody watched
//! is neither standing nor absence. A vehicle that stands at its place again soon after clearing, and did not drive
//! there, was only
//! hidden: the same case. Refuses people, bicycles, and what drives through.

use gengfu_contract::event::EvidenceRef;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::{AlarmKind, Certainty};
use jiff::{SignedDuration, Timestamp};

use super::{Decision, news};
use crate::book::News;
use crate::explain::Why;
use crate::observation::{Observation, Scene, Track, TrackKind};
use crate::output::{NeedStill, Output};
use crate::place::{is_near, is_same, is_usable, overlap};
use crate::rules::ZoneRule;
use crate::spot::{Spot, Spots, Stage, View, Watched};
use crate::time::{after, has_lasted, ms, ms_between, shifted, spoken};

const RULE: &str = "parking.dwell";

/// One zone in one picture.
struct Look<'a> {
    seen: &'a Observation,
    view: &'a View,
    zone: &'a Slug,
    rule: &'a ZoneRule,
    tracks: Vec<&'a Track>,
    watched: Watched,
}

impl Look<'_> {
    /// True when the picture truly shows the track; false when it is kept while hidden.
    fn shows(&self, track: &Track) -> bool {
        track.last_seen_at >= self.seen.sensed_at
    }
}

/// Judges one picture of a camera.
pub(crate) fn observe(decision: &mut Decision, view: &mut View, spots: &mut Spots, seen: &Observation, scene: &Scene) {
    let Some(watched) = view.advance(seen.sensed_at, &decision.rules.timing) else { return };
    view.remember_births(scene);
    if let Some(step) = watched.step {
        spots.shift(&seen.device, step);
    }
    let rules = decision.rules;
    for ((camera, zone), rule) in &rules.zones {
        if *camera != seen.device {
            continue;
        }
        let tracks =
            scene.tracks.iter().filter(|track| track.kind.is_motor_vehicle() && is_usable(track.bbox)).collect();
        let look = Look { seen, view, zone, rule, tracks, watched };
        forget(decision, spots, &look);
        let matched = assign(spots, &look);
        for (serial, track) in &matched {
            match track {
                Some(track) => present(decision, spots, &look, *serial, track),
                None => absent(decision, spots, &look, *serial),
            }
        }
        let taken: Vec<u64> = matched.iter().filter_map(|(_, track)| track.map(|track| track.id)).collect();
        begin(decision, spots, &look, &taken);
    }
}

/// Drops spots that have become meaningless: the alarm is over, the time to come back has passed, the camera was blind too long.
fn forget(decision: &Decision, spots: &mut Spots, look: &Look) {
    let (at, timing) = (look.seen.sensed_at, &decision.rules.timing);
    for serial in spots.of_zone(&look.seen.device, look.zone) {
        let gone = spots.get(serial).is_some_and(|spot| match &spot.stage {
            Stage::Waiting => spot.is_forgotten(at, timing.continue_window),
            Stage::Asked { .. } => false,
            Stage::Raised { alarm_id } => decision.book.get(alarm_id).is_none(),
            Stage::Cleared { alarm_id, cleared_at } => {
                decision.book.get(alarm_id).is_none() || has_lasted(*cleared_at, at, timing.return_window)
            }
        });
        if gone {
            spots.remove(serial);
        }
    }
}

/// Which track is which spot's vehicle: each at most once; seen now before hidden, its own number before another,
/// then by overlap.
fn assign<'a>(spots: &Spots, look: &Look<'a>) -> Vec<(u64, Option<&'a Track>)> {
    let at = look.seen.sensed_at;
    let serials = spots.of_zone(&look.seen.device, look.zone);
    let mut pairs = Vec::new();
    for spot in serials.iter().filter_map(|serial| spots.get(*serial)) {
        let elsewhere = look.tracks.iter().any(|track| spot.is_own_track(track) && !is_near(spot.bbox, track.bbox));
        for track in &look.tracks {
            if is_near(spot.bbox, track.bbox) && spot.can_be(track, look.view.birth(track), at, elsewhere) {
                let hidden = !look.shows(track);
                // What stands comes before what may come back: a cleared spot never takes a live one's vehicle.
                let rank = (!spot.is_live(), hidden, !spot.is_own_track(track));
                pairs.push((rank, overlap(spot.bbox, track.bbox), spot.serial, *track));
            }
        }
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)).then(a.3.id.cmp(&b.3.id)));
    let mut matched: Vec<(u64, Option<&Track>)> = serials.iter().map(|serial| (*serial, None)).collect();
    let mut taken = Vec::new();
    let mut take = |serial: u64, track: &'a Track| {
        if !taken.contains(&track.id)
            && let Some((_, free)) = matched.iter_mut().find(|(of, track)| *of == serial && track.is_none())
        {
            *free = Some(track);
            taken.push(track.id);
        }
    };
    for (_, _, serial, track) in pairs {
        take(serial, track);
    }
    // A vehicle over its limit that only moves within the zone has not left it.
    for spot in serials.iter().filter_map(|serial| spots.get(*serial)).filter(|spot| spot.is_over_limit()) {
        let own = look.tracks.iter().find(|track| spot.is_own_track(track) && track.zones.contains(look.zone));
        if let Some(own) = own {
            take(spot.serial, own);
        }
    }
    matched
}

/// The vehicle of a spot is in the picture, or hidden where its track is kept.
fn present(decision: &mut Decision, spots: &mut Spots, look: &Look, serial: u64, track: &Track) {
    let at = look.seen.sensed_at;
    let Some(spot) = spots.get_mut(serial) else { return };
    if !look.shows(track) {
        absent(decision, spots, look, serial);
        return;
    }
    spot.absent_ms = 0;
    spot.last_seen_at = at;
    let moved = track.stationary_since.is_some() && !is_near(spot.bbox, track.bbox);
    let clock_ran_back = spot.standing_since > at;
    if spot.track != track.id || spot.wants_birth(track) || moved || clock_ran_back {
        let since = look.view.believed(track.stationary_since.unwrap_or(at), at);
        spots.write(serial, |spot| {
            (spot.track, spot.track_born_at) = (track.id, track.first_seen_at);
            spot.bbox = if moved { track.bbox } else { spot.bbox };
            spot.standing_since = if clock_ran_back { since } else { spot.standing_since };
        });
    }
    let Some(spot) = spots.get(serial) else { return };
    match &spot.stage {
        Stage::Waiting => wait(decision, spots, look, serial, track),
        Stage::Asked { .. } => {}
        Stage::Raised { .. } => {
            let why =
                Why::new(RULE, "画面恢复，车辆仍在原处", "The picture is back and the vehicle still stands there");
            let subject = spot.subject();
            decision.raise(&subject, spot.standing_since, news(look.seen, why));
        }
        Stage::Cleared { alarm_id, .. } if track.stationary_since.is_some() => {
            let alarm_id = alarm_id.clone();
            let why = Why::new(RULE, "车辆仍停在原处，此前被遮挡", "The vehicle still stands there; it was hidden");
            let subject = spot.subject();
            decision.raise(&subject, spot.standing_since, news(look.seen, why));
            spots.write(serial, |spot| spot.stage = Stage::Raised { alarm_id });
        }
        Stage::Cleared { .. } => {}
    }
}

/// A vehicle under its limit is seen at its place: past the limit, asks for the picture.
fn wait(decision: &mut Decision, spots: &mut Spots, look: &Look, serial: u64, track: &Track) {
    let at = look.seen.sensed_at;
    let Some(spot) = spots.get(serial) else { return };
    if track.stationary_since.is_none() || !has_lasted(spot.standing_since, at, look.rule.limit) {
        if spot.wants_note() {
            spots.write(serial, |_| {});
        }
        return;
    }
    let alarm_id = decision.book.next_id(decision.rules, decision.now, &spot.subject());
    let deadline = after(decision.now, decision.rules.timing.still_wait);
    decision.out.push(Output::NeedStill(NeedStill {
        alarm_id: alarm_id.clone(),
        n: 1,
        camera: look.seen.device.clone(),
        track: track.id,
        caption: "超过限时 past the limit".to_owned(),
        deadline,
    }));
    let clock = look.seen.clock;
    let score = if track.score.is_finite() { track.score.clamp(0.0, 1.0) } else { 0.0 };
    spots.write(serial, |spot| {
        spot.score = score;
        spot.stage = Stage::Asked { alarm_id, over_at: at, clock, deadline };
    });
}

/// The vehicle of a spot is not seen in a picture that would have shown it.
fn absent(decision: &mut Decision, spots: &mut Spots, look: &Look, serial: u64) {
    let timing = &decision.rules.timing;
    let Some(spot) = spots.get_mut(serial) else { return };
    spot.absent_ms = spot.absent_ms.saturating_add(look.watched.credit_ms);
    let own = look.tracks.iter().find(|track| spot.is_own_track(track));
    let drove_out = own
        .is_some_and(|track| look.shows(track) && !track.zones.contains(look.zone) && !is_near(spot.bbox, track.bbox));
    let enough = if drove_out { timing.left_after.min(look.rule.clear_after) } else { look.rule.clear_after };
    let moved_on = own.is_some_and(|track| track.stationary_since.is_none() && !is_near(spot.bbox, track.bbox));
    let gone = spot.absent_ms >= i64::try_from(ms(enough)).unwrap_or(i64::MAX);
    match &spot.stage {
        // Under the limit, driving on ends it at once: wherever it stops next, its time begins at nought.
        Stage::Waiting if gone || moved_on => spots.remove(serial),
        Stage::Raised { alarm_id } if gone => {
            let (alarm_id, subject) = (alarm_id.clone(), spot.subject());
            let left_at = shifted(look.seen.sensed_at, SignedDuration::from_millis(-spot.absent_ms));
            let why = left(spot, left_at, drove_out);
            decision.clear(&subject, news(look.seen, why));
            let cleared_at = look.seen.sensed_at;
            spots.write(serial, |spot| spot.stage = Stage::Cleared { alarm_id, cleared_at });
        }
        _ => {}
    }
}

fn left(spot: &Spot, left_at: Timestamp, drove_out: bool) -> Why {
    let standing_ms = ms_between(spot.standing_since, left_at).max(0);
    let lasted = spoken(standing_ms);
    let (zh, en) =
        if drove_out { ("已驶离", "has driven away") } else { ("已不在原处", "is not there any more") };
    Why::new(RULE, format!("车辆{zh}，共停放 {}", lasted.zh), format!("The vehicle {en}; it stood for {}", lasted.en))
        .with("standing_ms", standing_ms)
        .with("absent_since", left_at.to_string())
}

/// New spots for vehicles that stand in the zone and are nobody's yet.
fn begin(decision: &mut Decision, spots: &mut Spots, look: &Look, taken: &[u64]) {
    let at = look.seen.sensed_at;
    for track in &look.tracks {
        let Some(stationary_since) = track.stationary_since else { continue };
        let watched = look.shows(track) && track.zones.contains(look.zone) && look.rule.classes.contains(&track.kind);
        if !watched || taken.contains(&track.id) {
            continue;
        }
        // No two vehicles stand at one place: this is a second box around one that is known.
        let of_zone = spots.of_zone(&look.seen.device, look.zone);
        let known =
            |serial: &u64| spots.get(*serial).is_some_and(|spot| spot.is_live() && is_same(spot.bbox, track.bbox));
        if of_zone.iter().any(known) {
            continue;
        }
        let serial = decision.book.next_spot();
        spots.insert(Spot {
            serial,
            camera: look.seen.device.clone(),
            zone: look.zone.clone(),
            kind: look.rule.kind.alarm(),
            vehicle: track.kind,
            bbox: track.bbox,
            track: track.id,
            track_born_at: track.first_seen_at,
            score: 0.0,
            standing_since: look.view.believed(stationary_since, at),
            noted_at: at,
            stage: Stage::Waiting,
            last_seen_at: at,
            absent_ms: 0,
        });
        wait(decision, spots, look, serial, track);
    }
}

/// A picture that was asked for is there, or will not come.
pub(crate) fn still(
    decision: &mut Decision,
    spots: &mut Spots,
    seen: &Observation,
    alarm_id: &str,
    result: &Result<EvidenceRef, String>,
) {
    let asked = spots.iter().find(|spot| matches!(&spot.stage, Stage::Asked { alarm_id: id, .. } if id == alarm_id));
    if let Some(serial) = asked.map(|spot| spot.serial) {
        raise(decision, spots, serial, result.clone());
        return;
    }
    let (Some(alarm), Ok(evidence)) = (decision.book.get(alarm_id), result) else { return };
    if alarm.data.evidence.iter().any(|have| have.n == evidence.n) {
        return;
    }
    let subject = alarm.subject.clone();
    let why = Why::new(RULE, "补充取证画面", "The picture came after the alarm").with("still", "attached late");
    decision.update(&subject, News { evidence: Some(evidence.clone()), ..news(seen, why) });
}

/// Raises without their pictures the alarms that have waited long enough.
pub(crate) fn tick(decision: &mut Decision, spots: &mut Spots) {
    let overdue = |spot: &&Spot| spot.deadline().is_some_and(|deadline| deadline <= decision.now);
    let serials: Vec<u64> = spots.iter().filter(overdue).map(|spot| spot.serial).collect();
    for serial in serials {
        let missing = Err("the picture was not there in time".to_owned());
        raise(decision, spots, serial, missing);
    }
}

fn raise(decision: &mut Decision, spots: &mut Spots, serial: u64, still: Result<EvidenceRef, String>) {
    let Some(spot) = spots.get(serial) else { return };
    let Stage::Asked { alarm_id, over_at, clock, .. } = &spot.stage else { return };
    let (alarm_id, over_at, clock) = (alarm_id.clone(), *over_at, *clock);
    let sure = spot.kind == AlarmKind::FireLaneBlocked || spot.score >= 0.8;
    let news = News {
        certainty: Some(if sure { Certainty::Likely } else { Certainty::Possible }),
        confidence: Some(spot.score),
        evidence: still.as_ref().ok().cloned(),
        ..News::at(over_at, clock, None, stands(decision, spot, over_at, still.err()))
    };
    let (subject, since) = (spot.subject(), spot.standing_since);
    decision.raise_as(&alarm_id, &subject, since, news);
    spots.write(serial, |spot| spot.stage = Stage::Raised { alarm_id });
}

fn stands(decision: &Decision, spot: &Spot, over_at: Timestamp, missing: Option<String>) -> Why {
    let rule = decision.rules.zone(&spot.camera, &spot.zone);
    let place = rule.and_then(|rule| rule.text.as_deref()).unwrap_or(spot.zone.as_str());
    let limit_ms = rule.map_or(0, |rule| ms(rule.limit));
    let standing_ms = ms_between(spot.standing_since, over_at).max(0);
    let (lasted, limit) = (spoken(standing_ms), spoken(i64::try_from(limit_ms).unwrap_or(i64::MAX)));
    let (zh, en) = match spot.vehicle {
        TrackKind::Truck => ("货车", "truck"),
        TrackKind::Bus => ("客车", "bus"),
        TrackKind::Motorcycle => ("摩托车", "motorcycle"),
        _ => ("小汽车", "car"),
    };
    let why = Why::new(
        RULE,
        format!("{zh}在“{place}”停放 {}，超过限时 {}", lasted.zh, limit.zh),
        format!("A {en} has stood in \"{place}\" for {}; the limit is {}", lasted.en, limit.en),
    );
    why.with("vehicle", en)
        .with("limit_ms", limit_ms)
        .with("standing_ms", standing_ms)
        .with("standing_since", spot.standing_since.to_string())
        .with("track", spot.track)
        .with("still", missing.map_or("attached".to_owned(), |reason| format!("missing: {reason}")))
}
