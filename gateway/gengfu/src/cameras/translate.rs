//! From a worker's words to observations. Pure.

use gengfu_alarm::observation::{Camera, Observation, Scene, Track, TrackKind, What};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_vision::detect::Kind;
use gengfu_vision::protocol::{CameraState, TrackView, TracksMessage};
use jiff::Timestamp;

pub(super) fn observation(camera: &Slug, at: Timestamp, clock: ClockQuality, what: What) -> Observation {
    Observation { device: camera.clone(), sensed_at: at, clock, origin: None, what }
}

/// A wall time of the worker; one outside the calendar is the worker's fault and reads as `now`.
pub(super) fn time(ms: i64, now: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(now)
}

/// What the rules are told of one analysed picture; times outside the calendar read as `now`.
#[must_use]
pub fn scene(message: &TracksMessage, now: Timestamp) -> Scene {
    Scene { tracks: message.tracks.iter().map(|track| view(track, now)).collect(), is_unclear: message.unclear }
}

/// Every kind by both of its names.
const KINDS: [(Kind, TrackKind); Kind::ALL.len()] = [
    (Kind::Car, TrackKind::Car),
    (Kind::Truck, TrackKind::Truck),
    (Kind::Bus, TrackKind::Bus),
    (Kind::Motorcycle, TrackKind::Motorcycle),
    (Kind::Bicycle, TrackKind::Bicycle),
    (Kind::Person, TrackKind::Person),
    (Kind::Garbage, TrackKind::Garbage),
    (Kind::GarbageBin, TrackKind::GarbageBin),
    (Kind::Overflow, TrackKind::Overflow),
];

fn track_kind(kind: Kind) -> TrackKind {
    KINDS
        .iter()
        .find(|(theirs, _)| *theirs == kind)
        .map(|(_, ours)| *ours)
        .expect("a test holds that every kind is listed")
}

/// What a detector calls it.
pub(crate) fn kind(kind: TrackKind) -> Kind {
    KINDS
        .iter()
        .find(|(_, ours)| *ours == kind)
        .map(|(theirs, _)| *theirs)
        .expect("as many kinds on both sides, each once")
}

fn view(track: &TrackView, now: Timestamp) -> Track {
    Track {
        id: track.id,
        kind: track_kind(track.kind),
        score: track.score,
        bbox: track.bbox.into(),
        // A zone of another name than we gave cannot be ours.
        zones: track.zones.iter().filter_map(|zone| Slug::new(zone.as_str()).ok()).collect(),
        first_seen_at: time(track.first_seen_ms, now),
        stationary_since: track.stationary_since_ms.map(|ms| time(ms, now)),
        last_seen_at: time(track.last_seen_ms, now),
    }
}

/// State, remedy and observation for a camera's state; no observation while it is only connecting.
pub(super) fn state(state: &CameraState) -> (String, &'static str, Option<Camera>) {
    let fault = |reason: &str, detail: String| Some(Camera::Fault { reason: reason.to_owned(), detail });
    match state {
        CameraState::Connecting => {
            ("connecting".to_owned(), "wait; if it stays so, check the camera's address and network", None)
        }
        CameraState::Streaming => ("streaming".to_owned(), "", Some(Camera::Streaming)),
        CameraState::Ended => {
            let text = "the clip has ended".to_owned();
            (text.clone(), "set `repeat = true` to play it again", fault("ended", text))
        }
        CameraState::Error { kind, message, .. } => {
            let reason =
                serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            (
                message.clone(),
                "check power, network, address and password of the camera",
                fault(&reason, message.clone()),
            )
        }
        CameraState::NoFrames => {
            let text = "connected, but no pictures arrive".to_owned();
            (text.clone(), "restart the camera; check its network", fault("no_frames", text))
        }
        CameraState::Frozen => {
            let text = "the same picture over and over".to_owned();
            (text.clone(), "restart the camera", fault("frozen", text))
        }
        CameraState::Dark => {
            let text = "too dark to see anything".to_owned();
            (text.clone(), "check for a cover on the lens and for lighting", fault("dark", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_name_on_each_side_and_the_same_word() {
        for theirs in Kind::ALL {
            assert_eq!(kind(track_kind(theirs)), theirs);
            let word = |value: serde_json::Value| value.as_str().unwrap().to_owned();
            let ours = word(serde_json::to_value(track_kind(theirs)).unwrap());
            assert_eq!(
                (ours.as_str(), word(serde_json::to_value(theirs).unwrap()).as_str()),
                (theirs.as_str(), theirs.as_str())
            );
        }
    }
}
