//! Vehicles that stand where they must not: illegal parking of motor vehicles and of bicycles, and blocked fire lanes.
//!
//! Owns the life of a spot: a vehicle of the zone's classes that stands in the zone waits for the limit, counted within the zone's hours;
//! on the way there its first picture is taken, and it may be warned of; past the limit a picture is asked for and the alarm raised, with or
//! without; the alarm stays open until the vehicle has left, or the hours are over. One alarm per vehicle and place, through
//! occlusion, flicker, new track numbers, restarts and zones that overlap: there the graver kind tells it. Absence is judged on
//! pictures only: time that nobody watched, and pictures that are disturbed, are neither standing nor absence. A vehicle that stands at its place again soon
//! after clearing, and did not drive there, was only hidden: the same case. Refuses people, and what drives through.

use gengfu_contract::event::EvidenceRef;
use gengfu_contract::words::{AlarmKind, Certainty};
use jiff::{SignedDuration, Timestamp};

use super::scene::{Look, ask, discard};
use super::{Decision, news};
use crate::book::News;
use crate::explain::Why;
use crate::observation::{Track, TrackKind};
use crate::output::{Output, StillRole, Warning};
use crate::place::{is_near, is_same, is_usable, overlap};
use crate::places::Placed;
use crate::spot::{Spot, Spots, Stage};
use crate::time::{has_lasted, ms, ms_between, shifted, spoken};

const RULE: &str = "parking.dwell";

/// One zone in one picture, and the vehicles in it.
struct Sight<'a> {
    look: &'a Look<'a>,
    tracks: Vec<&'a Track>,
    /// Since when the rule holds.
    held_since: Timestamp,
}

impl Sight<'_> {
    fn at(&self) -> Timestamp {
        self.look.seen.sensed_at
    }
}

/// Judges one zone in one picture.
pub(super) fn judge(decision: &mut Decision, spots: &mut Spots, look: &Look) {
    let Some(held_since) = look.held_since else {
        let all = spots.of_zone(&look.seen.device, look.zone);
        all.into_iter().for_each(|serial| end_of_hours(decision, spots, look, serial));
        return;
    };
    let admitted = |track: &&Track| look.rule.kind.admits(track.kind) && is_usable(track.bbox);
    let sight = Sight { look, tracks: look.scene.tracks.iter().filter(admitted).collect(), held_since };
    forget(decision, spots, &sight);
    let matched = assign(spots, &sight);
    for (serial, track) in &matched {
        match track {
            Some(track) => present(decision, spots, &sight, *serial, track),
            None => absent(decision, spots, &sight, *serial),
        }
    }
    let taken: Vec<u64> = matched.iter().filter_map(|(_, track)| track.map(|track| track.id)).collect();
    begin(decision, spots, &sight, &taken);
}

/// What stands there is allowed from now on. Whoever stands there when the hours begin again is another case.
fn end_of_hours(decision: &mut Decision, spots: &mut Spots, look: &Look, serial: u64) {
    let Some(spot) = spots.get(serial) else { return };
    match &spot.stage {
        // It was over its limit while the rule held: the alarm is raised first.
        Stage::Asked { .. } => return,
        Stage::Raised { .. } => {
            let why = Why::new("zone.hours", "禁停时段已结束", "The hours in which it is forbidden are over");
            let subject = spot.subject();
            decision.clear(&subject, news(look.seen, why));
        }
        Stage::Waiting | Stage::Cleared { .. } => {}
    }
    drop_spot(decision, spots, serial);
}

/// Forgets a spot, and the pictures of one that never became an alarm.
fn drop_spot(decision: &mut Decision, spots: &mut Spots, serial: u64) {
    if let Some(spot) = spots.get(serial).filter(|spot| spot.stage == Stage::Waiting) {
        discard(decision, &spot.camera, spot.alarm_id.as_ref());
    }
    spots.remove(serial);
}

/// Drops spots that have become meaningless: the alarm is over, the time to come back has passed, the camera was blind too long, or the hours
/// ended and began again unseen.
fn forget(decision: &mut Decision, spots: &mut Spots, sight: &Sight) {
    let (at, timing) = (sight.at(), &decision.rules.timing);
    for serial in spots.of_zone(&sight.look.seen.device, sight.look.zone) {
        let Some(spot) = spots.get(serial) else { continue };
        if spot.standing_since < sight.held_since {
            end_of_hours(decision, spots, sight.look, serial);
            continue;
        }
        let gone = match &spot.stage {
            Stage::Waiting => spot.is_forgotten(at, timing.continue_window),
            Stage::Asked { .. } => false,
            Stage::Raised { alarm_id } => decision.book.get(alarm_id).is_none(),
            Stage::Cleared { alarm_id, cleared_at } => {
                decision.book.get(alarm_id).is_none() || has_lasted(*cleared_at, at, timing.return_window)
            }
        };
        if gone {
            drop_spot(decision, spots, serial);
        }
    }
}

/// Which track is which spot's vehicle: each at most once; seen now before hidden, its own number before another,
/// then by overlap.
fn assign<'a>(spots: &Spots, sight: &Sight<'a>) -> Vec<(u64, Option<&'a Track>)> {
    let (at, look) = (sight.at(), sight.look);
    let serials = spots.of_zone(&look.seen.device, look.zone);
    let mut pairs = Vec::new();
    for spot in serials.iter().filter_map(|serial| spots.get(*serial)) {
        let elsewhere = sight.tracks.iter().any(|track| spot.is_own_track(track) && !is_near(spot.bbox, track.bbox));
        for track in &sight.tracks {
            let is_like = spot.vehicle.may_be(track.kind) && is_near(spot.bbox, track.bbox);
            if is_like && spot.can_be(track, look.view.birth(track), at, elsewhere) {
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
        let own = sight.tracks.iter().find(|track| spot.is_own_track(track) && track.zones.contains(look.zone));
        if let Some(own) = own {
            take(spot.serial, own);
        }
    }
    matched
}

/// The vehicle of a spot is in the picture, or hidden where its track is kept.
fn present(decision: &mut Decision, spots: &mut Spots, sight: &Sight, serial: u64, track: &Track) {
    let (at, look) = (sight.at(), sight.look);
    let Some(spot) = spots.get_mut(serial) else { return };
    if !look.shows(track) {
        absent(decision, spots, sight, serial);
        return;
    }
    spot.absent_ms = 0;
    spot.last_seen_at = at;
    let moved = track.stationary_since.is_some() && !is_near(spot.bbox, track.bbox);
    let clock_ran_back = spot.standing_since > at;
    if spot.track != track.id || spot.wants_birth(track) || moved || clock_ran_back {
        let since = look.view.believed(track.stationary_since.unwrap_or(at), at).max(sight.held_since);
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

/// A vehicle under its limit is seen at its place: takes its first picture, warns; past the limit, asks for the picture.
fn wait(decision: &mut Decision, spots: &mut Spots, look: &Look, serial: u64, track: &Track) {
    let at = look.seen.sensed_at;
    let Some(spot) = spots.get(serial) else { return };
    let stood = |span| track.stationary_since.is_some() && has_lasted(spot.standing_since, at, span);
    let is_over = stood(look.rule.limit) && !is_told_elsewhere(spots, spot);
    let arrival_after = decision.rules.timing.arrival_after.min(look.rule.limit / 2);
    let is_due = spot.alarm_id.is_none() && (is_over || stood(arrival_after));
    let warns = !spot.is_warned && look.rule.warn_after.is_some_and(stood);
    let camera = &look.seen.device;
    if !(is_over || is_due || warns) {
        if spot.wants_note() {
            spots.write(serial, |_| {});
        }
        return;
    }
    let alarm_id = spot
        .alarm_id
        .clone()
        .or_else(|| is_due.then(|| decision.book.next_id(decision.rules, decision.now, &spot.subject())));
    if warns {
        let standing_ms = ms_between(spot.standing_since, at).max(0);
        let (camera, zone, clock) = (camera.clone(), look.zone.clone(), look.seen.clock);
        let warning = Warning { camera, zone, track: track.id, standing_ms, sensed_at: at, clock };
        decision.out.push(Output::Warning(warning));
    }
    let mut stage = Stage::Waiting;
    if let Some(alarm_id) = alarm_id.as_ref().filter(|_| is_over) {
        let role = StillRole::PastLimit;
        let deadline = ask(decision, camera, alarm_id, role, role.n(), track.id);
        stage = Stage::Asked { alarm_id: alarm_id.clone(), over_at: at, clock: look.seen.clock, deadline };
    } else if let Some(alarm_id) = alarm_id.as_ref().filter(|_| is_due) {
        ask(decision, camera, alarm_id, StillRole::Arrival, StillRole::Arrival.n(), track.id);
    }
    let score = if track.score.is_finite() { track.score.clamp(0.0, 1.0) } else { 0.0 };
    spots.write(serial, |spot| {
        (spot.score, spot.stage, spot.alarm_id) = (score, stage, alarm_id);
        spot.is_warned |= warns;
    });
}

/// Of zones that overlap only one tells a vehicle, the one of the graver kind: a blocked fire lane before parking.
fn is_told_elsewhere(spots: &Spots, spot: &Spot) -> bool {
    let tells = |other: &Spot| other.is_over_limit() && gravity(other.kind) >= gravity(spot.kind);
    rivals(spots, spot).any(tells)
}

/// Spots of other zones of the camera with the same vehicle.
fn rivals<'a>(spots: &'a Spots, spot: &'a Spot) -> impl Iterator<Item = &'a Spot> {
    spots
        .iter()
        .filter(|other| other.camera == spot.camera && other.zone != spot.zone && is_same(other.bbox, spot.bbox))
}

fn gravity(kind: AlarmKind) -> u8 {
    match kind {
        AlarmKind::FireLaneBlocked => 2,
        AlarmKind::IllegalParking => 1,
        _ => 0,
    }
}

/// The vehicle of a spot is not seen in a picture that would have shown it.
fn absent(decision: &mut Decision, spots: &mut Spots, sight: &Sight, serial: u64) {
    let look = sight.look;
    let timing = &decision.rules.timing;
    let Some(spot) = spots.get_mut(serial) else { return };
    spot.absent_ms = spot.absent_ms.saturating_add(look.watched.credit_ms);
    let own = sight.tracks.iter().find(|track| spot.is_own_track(track));
    let drove_out = own
        .is_some_and(|track| look.shows(track) && !track.zones.contains(look.zone) && !is_near(spot.bbox, track.bbox));
    let enough = if drove_out { timing.left_after.min(look.rule.clear_after) } else { look.rule.clear_after };
    let moved_on = own.is_some_and(|track| track.stationary_since.is_none() && !is_near(spot.bbox, track.bbox));
    let gone = spot.absent_ms >= i64::try_from(ms(enough)).unwrap_or(i64::MAX);
    match &spot.stage {
        // Under the limit, driving on ends it at once: wherever it stops next, its time begins at nought.
        Stage::Waiting if gone || moved_on => drop_spot(decision, spots, serial),
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
fn begin(decision: &mut Decision, spots: &mut Spots, sight: &Sight, taken: &[u64]) {
    let (at, look) = (sight.at(), sight.look);
    for track in &sight.tracks {
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
            standing_since: look.view.believed(stationary_since, at).max(sight.held_since),
            noted_at: at,
            stage: Stage::Waiting,
            alarm_id: None,
            stills: Vec::new(),
            is_warned: false,
            last_seen_at: at,
            absent_ms: 0,
        });
        wait(decision, spots, look, serial, track);
    }
}

/// A picture came, or will not come; false when it is none of a vehicle that waits for it.
pub(super) fn still(
    decision: &mut Decision,
    spots: &mut Spots,
    alarm_id: &str,
    result: &Result<EvidenceRef, String>,
) -> bool {
    let waits = |spot: &&Spot| {
        matches!(spot.stage, Stage::Waiting | Stage::Asked { .. }) && spot.alarm_id.as_deref() == Some(alarm_id)
    };
    let Some(spot) = spots.iter().find(waits) else { return false };
    let (serial, is_asked) = (spot.serial, spot.stage != Stage::Waiting);
    match result {
        Ok(early) if early.n != StillRole::PastLimit.n() => spots.write(serial, |spot| {
            if spot.stills.iter().all(|have| have.n != early.n) {
                spot.stills.push(early.clone());
            }
        }),
        _ if is_asked => raise(decision, spots, serial, result.clone()),
        _ => {}
    }
    true
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
    let why = stands(decision, spot, over_at, still.as_ref().err());
    let news = News {
        certainty: Some(if sure { Certainty::Likely } else { Certainty::Possible }),
        confidence: Some(spot.score),
        evidence: spot.stills.iter().cloned().chain(still.ok()).collect(),
        ..News::at(over_at, clock, None, why)
    };
    let (subject, since, camera) = (spot.subject(), spot.standing_since, spot.camera.clone());
    decision.raise_as(&alarm_id, &subject, since, news);
    let lesser = rivals(spots, spot).filter(|other| gravity(other.kind) < gravity(spot.kind));
    let lesser: Vec<u64> = lesser.map(Placed::serial).collect();
    ask(decision, &camera, &alarm_id, StillRole::Overview, StillRole::Overview.n(), 0);
    spots.write(serial, |spot| {
        spot.stage = Stage::Raised { alarm_id };
        spot.stills.clear();
    });
    for serial in lesser {
        hand_over(decision, spots, serial, over_at);
    }
}

/// The vehicle of this spot is told as something graver from now on.
fn hand_over(decision: &mut Decision, spots: &mut Spots, serial: u64, at: Timestamp) {
    let Some(spot) = spots.get(serial).filter(|spot| matches!(spot.stage, Stage::Raised { .. })) else { return };
    let subject = spot.subject();
    let Some(clock) = decision.book.find(&subject).map(|alarm| alarm.data.clock) else { return };
    let why = Why::new(RULE, "同一车辆已按更严重的事件上报", "The same vehicle is now told as something graver");
    decision.clear(&subject, News::at(at, clock, None, why));
    spots.remove(serial);
}

fn stands(decision: &Decision, spot: &Spot, over_at: Timestamp, missing: Option<&String>) -> Why {
    let rule = decision.rules.zone(&spot.camera, &spot.zone);
    let place = rule.and_then(|rule| rule.text.as_deref()).unwrap_or(spot.zone.as_str());
    let limit_ms = rule.map_or(0, |rule| ms(rule.limit));
    let standing_ms = ms_between(spot.standing_since, over_at).max(0);
    let (lasted, limit) = (spoken(standing_ms), spoken(i64::try_from(limit_ms).unwrap_or(i64::MAX)));
    let (zh, en) = match spot.vehicle {
        TrackKind::Truck => ("货车", "truck"),
        TrackKind::Bus => ("客车", "bus"),
        TrackKind::Bicycle => ("自行车", "bicycle"),
        TrackKind::Motorcycle if spot.kind == AlarmKind::CycleParking => ("电动车或摩托车", "e-bike or motorcycle"),
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
