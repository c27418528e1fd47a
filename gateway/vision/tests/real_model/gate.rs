//! Goal: a pipeline whose gate spares the detector raises what one without a gate raises. Method: the same clip through both, key
//! moments of every vehicle that stands in the zone compared in stream time.

use gengfu_vision::decode::DecodeMode;
use gengfu_vision::detect::Group;
use gengfu_vision::geometry::Point;
use gengfu_vision::pipeline::analyse_clip;
use gengfu_vision::protocol::WorkerConfig;
use gengfu_vision::zone::Zone;

use crate::support::{self, Skip};

/// A vehicle that stood in the zone for longer than the limit: when that was told, and when it was told for the last time.
#[derive(Debug, Clone, Copy)]
struct Parked {
    track: u64,
    raised_ms: i64,
    last_ms: i64,
}

/// Everything that parked, and how many of the pictures the detector looked at.
fn parked(config: &WorkerConfig, gated: bool, limit_ms: i64) -> (Vec<Parked>, u64, u64) {
    let config = WorkerConfig { change_gate: gated, ..config.clone() };
    let (mut all, mut looks): (Vec<Parked>, u64) = (Vec::new(), 0);
    let pictures = analyse_clip(&config, |result, _, _| {
        let message = &result.tracks;
        looks += u64::from(message.looked);
        let standing = message.tracks.iter().filter(|t| {
            let stood_ms = t.stationary_since_ms.map_or(0, |since| message.at_ms - since);
            t.kind.group() == Group::Vehicle && !t.zones.is_empty() && stood_ms >= limit_ms
        });
        for track in standing {
            match all.iter_mut().find(|parked| parked.track == track.id) {
                Some(parked) => parked.last_ms = message.pts_ms,
                None => all.push(Parked { track: track.id, raised_ms: message.pts_ms, last_ms: message.pts_ms }),
            }
        }
    })
    .unwrap();
    (all, looks, pictures)
}

fn compare(config: &WorkerConfig, limit_ms: i64, expected: usize, spared_min: f64) {
    let (without, all, pictures) = parked(config, false, limit_ms);
    let (with, looks, _) = parked(config, true, limit_ms);
    let spared = 1.0 - looks as f64 / pictures as f64;
    println!("{looks} looks at {pictures} pictures, {:.0} % spared; {without:?} {with:?}", spared * 100.0);
    assert_eq!(all, pictures, "without a gate every picture is looked at");
    assert!(without.len() == expected && with.len() == expected, "{without:?} {with:?}");
    for (a, b) in without.iter().zip(&with) {
        assert!((a.raised_ms - b.raised_ms).abs() <= 1000 && (a.last_ms - b.last_ms).abs() <= 1000, "{a:?} {b:?}");
    }
    assert!(spared >= spared_min, "only {spared:.2} of the detector's work was spared");
}

pub fn vtest() -> Result<(), Skip> {
    let folder = tempfile::tempdir().unwrap();
    let mut config = support::config(support::vtest(folder.path())?.to_str().unwrap(), support::yolox()?);
    config.capture.fps_max = 2.0;
    compare(&config, 60_000, 2, 0.5);
    Ok(())
}

pub fn parking_lane() -> Result<(), Skip> {
    let mut config = support::config(support::shared("video/parking_lane.mp4")?.to_str().unwrap(), support::yolox()?);
    let lane = [[0.36, 0.52], [0.56, 0.52], [0.56, 0.66], [0.36, 0.66]].map(Point::from);
    config.zones = vec![Zone { id: "lane".to_owned(), polygon: lane.to_vec() }];
    config.capture.decode = DecodeMode::EveryFrame;
    compare(&config, 6000, 1, 0.2);
    Ok(())
}
