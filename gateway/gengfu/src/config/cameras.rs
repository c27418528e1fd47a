//! Cameras, from text to checked values.

use std::collections::BTreeSet;
use std::path::Path;

use gengfu_contract::event::Location;
use gengfu_vision::source::SourceUrl;

use super::read::{DAY, SECOND, location, resolve};
use super::reader::{Faults, Section};
use super::zones::zone;
use super::{Camera, Zone};

pub(super) fn camera(f: &mut Faults, mut s: Section, base: &Path, place: &Location) -> Option<Camera> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"cam-east\"");
    let url = s.parsed(f, "url", "\"rtsp://host/path\" or a file's path", |v| {
        v.as_str().filter(|u| !u.is_empty()).map(str::to_owned)
    });
    let url = s.required(f, "url", url, "\"rtsp://192.0.2.10/stream1\"");
    let url = url
        .map(|u| SourceUrl::new(if u.contains("://") { u } else { resolve(base, &u).to_string_lossy().into_owned() }));
    let model = s.text(f, "model");
    let second_model = s.text(f, "second_model");
    let all_frames = s.one_of(f, "decode", &[("key_frames", false), ("all_frames", true)]).unwrap_or(false);
    let fps_max = s.number(f, "fps_max", 0.1..=30.0).unwrap_or(2.0);
    let repeat = s.flag(f, "repeat", false);
    let silence = s.duration(f, "silence", 2 * SECOND..=DAY).unwrap_or(10 * SECOND);
    let snapshots = s.flag(f, "snapshots", true);
    let location = location(f, &mut s, place);
    let zones: Vec<Zone> = s.sections(f, "zone").into_iter().filter_map(|z| zone(f, z, &location)).collect();
    let masks = s
        .sections(f, "mask")
        .into_iter()
        .filter_map(|mut m| {
            let polygon = m.polygon(f, "polygon");
            let polygon = m.required(f, "polygon", polygon, "[[0, 0], [1, 0], [1, 0.1]]");
            m.finish(f);
            polygon
        })
        .collect();
    let mut seen = BTreeSet::new();
    for zone in &zones {
        if !seen.insert(&zone.name) {
            s.fault(f, "zone", format!("two zones are called \"{}\"", zone.name), "give each zone a name of its own");
        }
    }
    s.finish(f);
    Some(Camera {
        name: name?,
        url: url?,
        model,
        second_model,
        all_frames,
        fps_max,
        repeat,
        silence,
        snapshots,
        location,
        zones,
        masks,
    })
}
