//! Cameras, from text to checked values.

use std::collections::BTreeSet;
use std::path::Path;

use gengfu_contract::event::Location;
use gengfu_vision::decode::DecodeMode;
use gengfu_vision::hwaccel::HwAccel;
use gengfu_vision::source::{SourceUrl, Transport};

use super::read::{DAY, SECOND, location, resolve};
use super::reader::{Faults, Section};
use super::zones::zone;
use super::{Camera, Zone};

pub(super) fn camera(f: &mut Faults, mut s: Section, base: &Path, place: &Location) -> Option<Camera> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"cam-east\"");
    let url = source(f, &mut s, base);
    let model = s.text(f, "model");
    let second_model = s.text(f, "second_model");
    let transport = s.one_of(f, "transport", &[("tcp", Transport::Tcp), ("udp", Transport::Udp)]).unwrap_or_default();
    let modes =
        [("auto", DecodeMode::Auto), ("key_frames", DecodeMode::KeyFrames), ("all_frames", DecodeMode::EveryFrame)];
    let decode = s.one_of(f, "decode", &modes).unwrap_or(DecodeMode::Auto);
    let (hwaccel, device) = (s.text(f, "hwaccel"), s.text(f, "hwaccel_device"));
    if hwaccel.is_none() && device.is_some() {
        s.fault(f, "hwaccel_device", "names a device without a decoder", "add `hwaccel = \"vaapi\"` or remove it");
    }
    let hwaccel = hwaccel.map(|name| HwAccel { name, device });
    let every = s.duration(f, "every", SECOND..=600 * SECOND).unwrap_or(2 * SECOND);
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
        transport,
        decode,
        hwaccel,
        every,
        model,
        second_model,
        fps_max,
        repeat,
        silence,
        snapshots,
        location,
        zones,
        masks,
    })
}

/// An address, or a file's path relative to the configuration's folder.
fn source(f: &mut Faults, s: &mut Section, base: &Path) -> Option<SourceUrl> {
    let url = s.parsed(f, "url", "\"rtsp://host/path\", \"http://host/snapshot.jpg\" or a file's path", |v| {
        v.as_str().filter(|u| !u.is_empty()).map(str::to_owned)
    });
    let url = s.required(f, "url", url, "\"rtsp://192.0.2.10/stream1\"")?;
    let path = || resolve(base, &url).to_string_lossy().into_owned();
    let url = SourceUrl::new(if SourceUrl::is_address(&url) { url } else { path() });
    if let Some(fault) = url.fault() {
        // The fault's own text never holds the address.
        s.fault(f, "url", fault, "correct it; a user and password go before the host: rtsp://user:password@host/path");
        return None;
    }
    Some(url)
}
