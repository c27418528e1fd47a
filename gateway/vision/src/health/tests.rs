//! Goal: faults of a lens are told, and a street's own changes are not. Method: simulated time over looks; real street pictures
//! (Debian's vtest.avi, where set-up put it) as they are and changed as a fault or the street's life would change them.

use std::path::Path;

use super::*;
use crate::decode::{Capture, CaptureConfig, DecodeMode};
use crate::source::{SourceUrl, Watchdog};

fn look(mean: u8, fingerprint: u64) -> Look {
    Look { mean, bright: mean, fingerprint }
}

fn fed(pictures: impl Iterator<Item = (i64, Look)>) -> Vec<(i64, Option<Trouble>)> {
    let mut health = Health::new(HealthConfig::default(), 0);
    let mut changes = vec![(0, None)];
    for (now_ms, look) in pictures {
        health.picture(now_ms, look);
        let trouble = health.trouble(now_ms);
        if changes.last().is_some_and(|c| c.1 != trouble) {
            changes.push((now_ms, trouble));
        }
    }
    changes
}

#[test]
fn equal_pictures_become_frozen_and_one_new_picture_ends_it() {
    let changes = fed((0..400).map(|i: i64| (i * 100, look(90, if i < 300 { 1 } else { i.unsigned_abs() }))));
    assert_eq!(changes, [(0, None), (20_000, Some(Trouble::Frozen)), (30_000, None)]);
}

#[test]
fn darkness_must_last() {
    let changes = fed((0..400).map(|i: i64| {
        let dark = (50..60).contains(&i) || (100..300).contains(&i);
        (i * 100, look(if dark { 5 } else { 90 }, i.unsigned_abs()))
    }));
    assert_eq!(changes, [(0, None), (20_000, Some(Trouble::Dark)), (30_000, None)]);
}

#[test]
fn a_camera_with_rare_key_frames_is_not_silent_between_them() {
    let mut health = Health::new(HealthConfig::default(), 0);
    for i in 0..5 {
        health.picture(i * 25_000, look(90, i.unsigned_abs()));
    }
    assert_eq!(health.trouble(124_000), None);
    assert_eq!(health.trouble(175_000), Some(Trouble::NoFrames));
}

#[test]
fn silence_is_noticed_without_a_picture() {
    let mut health = Health::new(HealthConfig::default(), 1000);
    assert_eq!(health.trouble(10_999), None);
    assert_eq!(health.trouble(11_000), Some(Trouble::NoFrames));
    health.picture(12_000, look(90, 1));
    assert_eq!(health.trouble(12_000), None);
    health.reconnected(40_000);
    assert_eq!(health.trouble(41_000), None);
}

#[test]
fn darkness_takes_the_trust_at_once() {
    let mut health = Health::new(HealthConfig::default(), 0);
    health.picture(0, look(90, 1));
    assert!(health.is_trusted());
    health.picture(500, look(5, 2));
    assert!(!health.is_trusted() && health.trouble(500).is_none());
    health.picture(1000, look(90, 3));
    assert!(health.is_trusted());
}

/// A grey picture, full scale.
#[derive(Clone)]
struct Grey {
    width: usize,
    height: usize,
    values: Vec<u8>,
}

impl Grey {
    fn at(&self, x: i64, y: i64) -> u8 {
        let (w, h) = (i64::try_from(self.width).unwrap(), i64::try_from(self.height).unwrap());
        self.values[usize::try_from(y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).unwrap()]
    }

    fn map(&self, value: impl Fn(i64, i64, u8) -> f32) -> Self {
        let mut changed = self.clone();
        for (i, to) in changed.values.iter_mut().enumerate() {
            let (x, y) = ((i % self.width) as i64, (i / self.width) as i64);
            *to = value(x, y, self.values[i]).clamp(0.0, 255.0) as u8;
        }
        changed
    }

    /// A box blur in both directions, three times: close to a Gaussian of deviation `radius`.
    fn blurred(&self, radius: i64) -> Self {
        let mut picture = self.clone();
        for _ in 0..3 {
            for (dx, dy) in [(1, 0), (0, 1)] {
                let from = picture.clone();
                let mean = |x: i64, y: i64| {
                    (-radius..=radius).map(|k| f32::from(from.at(x + k * dx, y + k * dy))).sum::<f32>()
                        / (2 * radius + 1) as f32
                };
                picture = from.map(|x, y, _| mean(x, y));
            }
        }
        picture
    }

    fn turned(&self, degrees: f32) -> Self {
        let (s, c) = degrees.to_radians().sin_cos();
        let (mx, my) = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        self.map(|x, y, _| {
            let (dx, dy) = (x as f32 - mx, y as f32 - my);
            f32::from(self.at((mx + c * dx - s * dy) as i64, (my + s * dx + c * dy) as i64))
        })
    }

    fn shifted(&self, dx: i64, dy: i64) -> Self {
        self.map(|x, y, _| f32::from(self.at(x + dx, y + dy)))
    }

    fn noisy(&self, deviation: f32, seed: u64) -> Self {
        self.map(|x, y, value| f32::from(value) + deviation * noise(x, y, seed))
    }

    fn view(&self) -> View {
        View::measure(&self.values, self.width, (self.width, self.height), true)
    }

    fn look(&self, i: i64) -> Look {
        let mean = self.values.iter().map(|v| u64::from(*v)).sum::<u64>() / self.values.len() as u64;
        let mut histogram = [0_usize; 256];
        self.values.iter().for_each(|v| histogram[usize::from(*v)] += 1);
        let mut above = 0;
        let bright = (0..=255_u8).rev().find(|v| {
            above += histogram[usize::from(*v)];
            above * 200 > self.values.len()
        });
        Look { mean: mean as u8, bright: bright.unwrap_or(0), fingerprint: i.unsigned_abs() }
    }
}

/// About normal with deviation 1, the same for the same place and seed.
fn noise(x: i64, y: i64, seed: u64) -> f32 {
    let mut z = (x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (y as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ seed;
    let mut sum = 0.0;
    for _ in 0..4 {
        z = (z ^ (z >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        sum += (z >> 40) as f32 / (1_u64 << 24) as f32 - 0.5;
    }
    sum * 1.73
}

/// Street pictures, one in two seconds; none where the footage was not fetched (the tests then use what they can draw).
fn street() -> Option<Vec<Grey>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let clip = root.join("target/gengfu/media/vtest.avi");
    if !clip.is_file() {
        return None;
    }
    let url = SourceUrl::new(clip.to_str().unwrap());
    let config = CaptureConfig { decode: DecodeMode::EveryFrame, fps_max: 0.5, ..CaptureConfig::new(url) };
    let mut capture = Capture::open(&config, 0, Watchdog::new()).unwrap();
    let mut scaler = Scaler::default();
    let mut pictures = Vec::new();
    while let Some(frame) = capture.next_frame().unwrap() {
        let rgb = scaler.to_rgb(&frame, 384).unwrap();
        let values = rgb.pixels().chunks_exact(3).map(|p| p[1]).collect();
        pictures.push(Grey { width: rgb.width as usize, height: rgb.height as usize, values });
    }
    Some(pictures)
}

/// A drawn street: kerbs, windows, lamps, and passers that are elsewhere in each picture.
fn drawn() -> Vec<Grey> {
    let base = |x: i64, y: i64| {
        let house = y < 120 && (x / 23 + y / 17) % 3 == 0;
        let road = y > 200 && (x + 2 * y) % 110 < 8;
        let kerb = (190..195).contains(&(y + x / 9));
        let texture = 14.0 * noise(x / 2, y / 2, 7);
        (if house {
            60.0
        } else if road {
            215.0
        } else if kerb {
            190.0
        } else {
            120.0
        }) + texture
    };
    let blank = Grey { width: 384, height: 288, values: vec![0; 384 * 288] };
    (0..36)
        .map(|i: i64| {
            let walker = (i * 33 % 360, 130 + i * 19 % 110);
            let street = blank.map(|x, y, _| {
                let inside = (walker.0..walker.0 + 13).contains(&x) && (walker.1..walker.1 + 36).contains(&y);
                if inside { 30.0 } else { base(x, y) }
            });
            street.noisy(2.0, i.unsigned_abs())
        })
        .collect()
}

/// A camera's pictures and its health when it has learned its view from them.
struct Footage {
    name: &'static str,
    pictures: Vec<Grey>,
    learned: Health,
}

/// The footages to judge by: always the drawn one, and the real one where it is.
fn footages() -> &'static [Footage] {
    static FOOTAGES: std::sync::OnceLock<Vec<Footage>> = std::sync::OnceLock::new();
    FOOTAGES.get_or_init(|| {
        let mut all = vec![("drawn", drawn())];
        all.extend(street().map(|pictures| ("vtest", pictures)));
        let learned = |(name, pictures): (&'static str, Vec<Grey>)| {
            let mut bench = Bench { pictures: &pictures, health: Health::new(HealthConfig::default(), 0), now_ms: 0 };
            assert_eq!(bench.show(70, |picture, _| picture.clone()), [], "{name}");
            assert!(!bench.health.reference.is_empty(), "{name}: a minute is enough to learn");
            let learned = bench.health;
            Footage { name, pictures, learned }
        };
        all.into_iter().map(learned).collect()
    })
}

/// Time between two pictures, as of a camera's key frames.
const STEP_S: i64 = 2;

struct Bench<'a> {
    pictures: &'a [Grey],
    health: Health,
    now_ms: i64,
}

impl<'a> Bench<'a> {
    /// A camera that has learned its view.
    fn learned(footage: &'a Footage) -> Self {
        Self { pictures: &footage.pictures, health: footage.learned.clone(), now_ms: 70_000 }
    }

    /// Shows pictures, changed; gives the troubles that began, with their time from the start of this.
    fn show(&mut self, seconds: i64, change: impl Fn(&Grey, i64) -> Grey) -> Vec<(i64, Trouble)> {
        let mut began = Vec::new();
        let mut before = self.health.trouble(self.now_ms);
        for i in (0..seconds).step_by(STEP_S as usize) {
            let picture = &self.pictures[(self.now_ms / 1000 / STEP_S) as usize % self.pictures.len()];
            let changed = change(picture, i);
            self.health.picture(self.now_ms, changed.look(self.now_ms));
            self.health.view(self.now_ms, &changed.view());
            let trouble = self.health.trouble(self.now_ms);
            if let Some(trouble) = trouble.filter(|_| trouble != before) {
                began.push((i, trouble));
            }
            before = trouble;
            self.now_ms += 1000 * STEP_S;
        }
        began
    }

    /// What a fault does: it is told as `trouble`, in time, and is over soon after it is repaired.
    fn fault(mut self, what: &str, trouble: Trouble, within_s: i64, change: impl Fn(&Grey, i64) -> Grey) {
        let name = format!("{what}: {}", self.explain(&change));
        let began = self.show(within_s + 10, change);
        assert!(matches!(began.first(), Some((s, t)) if *t == trouble && *s <= within_s), "{name}: {began:?}");
        self.show(12, |picture, _| picture.clone());
        assert_eq!(self.health.trouble(self.now_ms - 1000 * STEP_S), None, "{name}: it stays after the repair");
    }

    /// What the street does: nothing is told.
    fn life(mut self, what: &str, seconds: i64, change: impl Fn(&Grey, i64) -> Grey) {
        let name = format!("{what}: {}", self.explain(&change));
        assert_eq!(self.show(seconds, change), [], "{name}");
    }

    fn explain(&self, change: &impl Fn(&Grey, i64) -> Grey) -> String {
        let view = change(&self.pictures[3], 60).view();
        let seen = self.health.reference.clone().compare(&view);
        let text = format!("mean {:.0} blown {:.2} structure {:.3} {seen:.2?}", view.mean, view.blown, view.structure);
        text
    }
}

#[test]
fn a_blurred_lens_is_told_and_ends_when_it_is_cleaned() {
    for footage in footages() {
        let name = footage.name;
        Bench::learned(footage).fault(&format!("{name} blurred"), Trouble::Defocused, 65, |p, _| p.blurred(2));
    }
}

#[test]
fn glare_and_darkness_are_told() {
    for footage in footages() {
        let name = footage.name;
        let glare = |p: &Grey, _| p.map(|_, _, v| f32::from(v) * 2.0 + 140.0);
        Bench::learned(footage).fault(&format!("{name} over-exposed"), Trouble::BlownOut, 25, glare);
        let dark = |p: &Grey, _| p.map(|_, _, v| f32::from(v) * 0.08);
        Bench::learned(footage).fault(&format!("{name} dark"), Trouble::Dark, 12, dark);
    }
}

#[test]
fn a_moved_or_turned_camera_is_told() {
    for footage in footages() {
        let name = footage.name;
        let shifted = |p: &Grey, _| p.shifted(30, 12);
        Bench::learned(footage).fault(&format!("{name} shifted"), Trouble::Moved, 35, shifted);
        let turned = |p: &Grey, _| p.turned(14.0);
        Bench::learned(footage).fault(&format!("{name} turned"), Trouble::Moved, 35, turned);
        let away = |p: &Grey, _| p.shifted(210, 130);
        Bench::learned(footage).fault(&format!("{name} knocked away"), Trouble::Moved, 35, away);
    }
}

/// A hand close to the lens: smooth, brighter in the middle, the street only at one side.
fn hand(p: &Grey) -> Grey {
    let right = (p.width * 85 / 100) as i64;
    p.map(|x, y, v| {
        let edge = right - (y - p.height as i64 / 2).abs() / 8;
        if x < edge {
            105.0 + 50.0 * (x as f32 / p.width as f32) + 15.0 * (y as f32 / p.height as f32)
        } else {
            f32::from(v)
        }
    })
}

#[test]
fn a_hand_before_the_lens_is_told_and_takes_the_trust_at_once() {
    for footage in footages() {
        let name = footage.name;
        let mut bench = Bench::learned(footage);
        bench.show(1, |p, _| hand(p));
        assert!(!bench.health.is_trusted(), "{name}: a car behind a hand is not gone");
        Bench::learned(footage).fault(&format!("{name} hand"), Trouble::Covered, 25, |p, _| hand(p));
        let bag = |p: &Grey, i: i64| p.map(|_, _, _| 140.0).noisy(2.0, i.unsigned_abs());
        Bench::learned(footage).fault(&format!("{name} bag"), Trouble::Covered, 25, bag);
    }
}

#[test]
fn the_street_as_it_is_raises_nothing() {
    for footage in footages() {
        let name = footage.name;
        Bench::learned(footage).life(name, 200, |p, _| p.clone());
    }
}

#[test]
fn headlights_raise_nothing() {
    for footage in footages() {
        let name = footage.name;
        let lights = |p: &Grey, i: i64| {
            let centre = ((i * 20) % p.width as i64, p.height as i64 * 2 / 3);
            p.map(|x, y, v| {
                let away = ((x - centre.0).pow(2) + (y - centre.1).pow(2)) as f32;
                // Ten seconds of every twenty-five.
                let glow = if i % 25 < 10 { 400.0 * (-away / 7_500.0).exp() } else { 0.0 };
                f32::from(v) * 0.45 + glow
            })
        };
        Bench::learned(footage).life(&format!("{name} headlights"), 80, lights);
    }
}

#[test]
fn a_slow_dusk_and_a_noisy_night_raise_nothing() {
    for footage in footages() {
        let name = footage.name;
        // Six minutes from day to night are quicker than any dusk; then the noise of a sensor at its limit.
        let night = |p: &Grey, i: i64| {
            let light = (1.0 - i as f32 / 480.0).max(0.25);
            p.map(|_, _, v| f32::from(v) * light + 6.0).noisy(1.0 + 4.0 * (1.0 - light), i.unsigned_abs())
        };
        Bench::learned(footage).life(&format!("{name} dusk"), 420, night);
    }
}

#[test]
fn a_bus_that_fills_half_the_view_raises_nothing() {
    for footage in footages() {
        let name = footage.name;
        let bus = |p: &Grey, _| {
            let (left, right) = (p.width as i64 / 10, p.width as i64 * 6 / 10);
            p.map(|x, y, v| {
                let window = y > 60 && y < 115 && (x - left) % 45 > 7;
                let inside = (left..right).contains(&x) && y > 30;
                if !inside {
                    f32::from(v)
                } else if window {
                    45.0
                } else {
                    175.0
                }
            })
        };
        Bench::learned(footage).life(&format!("{name} bus"), 90, bus);
    }
}

#[test]
fn wind_that_shakes_the_pole_raises_nothing() {
    for footage in footages() {
        let name = footage.name;
        let shaken = |p: &Grey, i: i64| p.shifted((i * 7) % 5 - 2, (i * 5) % 3 - 1);
        Bench::learned(footage).life(&format!("{name} wind"), 80, shaken);
    }
}

#[test]
fn an_accepted_view_is_the_new_reference() {
    for footage in footages() {
        let name = footage.name;
        let mut bench = Bench::learned(footage);
        let moved = |p: &Grey, _| p.shifted(30, 12);
        assert!(!bench.show(40, moved).is_empty(), "{name}");
        bench.health.forget_reference();
        assert_eq!(bench.show(100, moved), [], "{name}: learned anew");
        let began = bench.show(40, |p, _| p.clone());
        assert!(began.iter().any(|(_, t)| *t == Trouble::Moved), "{name}: and moved back is moved: {began:?}");
    }
}

#[test]
fn a_reference_survives_the_disk_and_holds_no_picture() {
    let footage = &footages()[0];
    let mut bench = Bench::learned(footage);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cam.json");
    store::save(&file, bench.health.take_changed().expect("it was learned")).unwrap();
    assert!(bench.health.take_changed().is_none(), "told once");
    let mut health = Health::new(HealthConfig::default(), 0);
    health.refer_to(store::load(&file).unwrap().unwrap());
    let seen = health.reference.compare(&footage.pictures[5].view()).unwrap();
    assert!(seen.agreement > reference::SURE, "{seen:?}");
    assert!(std::fs::metadata(&file).unwrap().len() < 40_000);
}
