//! Who lives behind a door, and how that moves the door through a year.
//!
//! Owns the assumptions about people, written down here and nowhere else: kinds of households, their outings, visitors, trips,
//! illness, hospital stays and falls. Knows nothing of the rules that will judge it. Every choice comes from the seed.
//!
//! Assumptions, per home and year unless said otherwise; "p" is a probability per day:
//!
//! | kind | share | outings p (morning, afternoon, evening) | visitors p | trips of 1-3 nights | hospital | falls |
//! |---|---|---|---|---|---|---|
//! | active | 35 % | 0.85, 0.35, 0.60 | 0.25 | 5 | 0.10 | 0.25 |
//! | regular | 35 % | 0.80, 0.35, 0.25 | 0.30 | 3 | 0.15 | 0.35 |
//! | homebody | 20 % | 0.45, 0.20, 0.10 | 0.50 | 1 | 0.15 | 0.40 |
//! | frail | 10 % | 0.12, 0.03, 0.01 | 0.40, and a helper with a key on 9 of 10 weekdays | 0.3 | 0.40 | 0.60 |
//!
//! Rubbish is carried down on its own, in the hours when it may be left, besides what is taken along on an outing:
//! p 0.30, 0.40, 0.50 and 0.20 by kind. A run without it is shown beside, as the harder case.
//!
//! "Falls" are those after which nobody can open the door or answer. About a third of people over 65 fall in a year (WHO, Step
//! safely, 2021), few of them lie for long: the rate is set high on purpose, to have many to measure.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

pub const SECOND: i64 = 1000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// Days simulated.
pub const DAYS: i64 = 365;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Active,
    Regular,
    Homebody,
    Frail,
}

/// Who opens the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The person, also to let a visitor in.
    Person,
    /// Somebody with a key.
    Helper,
}

/// The door is opened at `at` for `lasts` ms.
#[derive(Debug, Clone, Copy)]
pub struct Episode {
    pub at: i64,
    pub lasts: i64,
    pub who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    Outing,
    Trip,
    Hospital,
}

/// A time the person is not at home. `told_at`: when the centre learns of it.
#[derive(Debug, Clone, Copy)]
pub struct Absence {
    pub from: i64,
    pub to: i64,
    pub why: Away,
    pub told_at: Option<i64>,
}

/// One home's year, as it would be without rules and rescuers. Times in ms from 1 January, 00:00 local.
#[derive(Debug)]
pub struct Household {
    pub kind: Kind,
    pub episodes: Vec<Episode>,
    pub absences: Vec<Absence>,
    pub falls: Vec<i64>,
}

struct Habits {
    outings: [f64; 3],
    visitors: f64,
    trips: f64,
    hospital: f64,
    falls: f64,
    late_nights: f64,
    rubbish: f64,
}

fn habits(kind: Kind) -> Habits {
    let (outings, visitors, trips, hospital, falls, late_nights, rubbish) = match kind {
        Kind::Active => ([0.85, 0.35, 0.60], 0.25, 5.0, 0.10, 0.25, 6.0, 0.3),
        Kind::Regular => ([0.80, 0.35, 0.25], 0.30, 3.0, 0.15, 0.35, 2.0, 0.4),
        Kind::Homebody => ([0.45, 0.20, 0.10], 0.50, 1.0, 0.15, 0.40, 0.5, 0.5),
        Kind::Frail => ([0.12, 0.03, 0.01], 0.40, 0.3, 0.40, 0.60, 0.5, 0.2),
    };
    Habits { outings, visitors, trips, hospital, falls, late_nights, rubbish }
}

/// Days on which the whole district stays in: cold spells, heat, storms. The same for all homes.
pub fn bad_weather(seed: u64) -> Vec<bool> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x77ea_7be1);
    let mut days = vec![false; DAYS as usize];
    for _ in 0..9 {
        let (first, length) = (rng.random_range(0..DAYS), rng.random_range(1..5));
        for day in first..(first + length).min(DAYS) {
            days[day as usize] = true;
        }
    }
    days
}

/// How often something happens that happens `rate` times on average (Knuth's way to a Poisson number).
fn often(rng: &mut StdRng, rate: f64) -> u32 {
    let (limit, mut product, mut n) = ((-rate).exp(), rng.random::<f64>(), 0);
    while product > limit {
        product *= rng.random::<f64>();
        n += 1;
    }
    n
}

impl Household {
    pub fn new(seed: u64, weather: &[bool], rubbish: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let kind = match rng.random_range(0..100) {
            0..35 => Kind::Active,
            35..70 => Kind::Regular,
            70..90 => Kind::Homebody,
            _ => Kind::Frail,
        };
        let habits = habits(kind);
        let mut absences = long_absences(&mut rng, &habits);
        let ill = ill_days(&mut rng);
        // A person's own hours: when the morning outing begins, give or take.
        let own = [rng.random_range(6.5..9.5), rng.random_range(13.5..16.0), rng.random_range(18.0..19.5)];
        let mut episodes = Vec::new();
        for absence in absences.clone() {
            passage(&mut rng, &mut episodes, absence.from);
            passage(&mut rng, &mut episodes, absence.to);
        }
        for day in 0..DAYS {
            let weekend = (day + 3) % 7 >= 5; // 1 January 2026 is a Thursday.
            let mut go = if weekend { 0.9 } else { 1.0 };
            if weather[day as usize] {
                go *= 0.5;
            }
            if ill[day as usize] {
                go *= 0.15;
            }
            for (share, hour) in habits.outings.iter().zip(own) {
                if rng.random_bool(share * go) {
                    let from = day * DAY + ((hour + rng.random_range(-0.7..0.7)) * HOUR as f64) as i64;
                    outing(&mut rng, &mut absences, &mut episodes, from, 0.3..2.5);
                }
            }
            if rng.random_bool(habits.late_nights / DAYS as f64) {
                let from = day * DAY + rng.random_range(18 * HOUR..20 * HOUR);
                outing(&mut rng, &mut absences, &mut episodes, from, 3.5..6.0);
            }
            let at =
                day * DAY + if rng.random_bool(0.5) { 7 * HOUR } else { 18 * HOUR } + rng.random_range(0..2 * HOUR);
            let carried = rng.random_bool(habits.rubbish * if ill[day as usize] { 0.3 } else { 1.0 });
            if rubbish && carried && !is_away(&absences, at) {
                passage(&mut rng, &mut episodes, at);
                passage(&mut rng, &mut episodes, at + 5 * MINUTE);
            }
            // In a festival and at weekends family comes.
            let family = if (44..52).contains(&day) {
                0.5
            } else if weekend {
                0.2
            } else {
                0.0
            };
            for p in [habits.visitors, family] {
                let at = day * DAY + rng.random_range(9 * HOUR..20 * HOUR);
                if rng.random_bool(p) && !is_away(&absences, at) {
                    passage(&mut rng, &mut episodes, at);
                    let leaves = at + rng.random_range(2 * MINUTE..2 * HOUR);
                    passage(&mut rng, &mut episodes, leaves);
                }
            }
            if kind == Kind::Frail && !weekend && rng.random_bool(0.9) {
                let at = day * DAY + rng.random_range(10 * HOUR..11 * HOUR);
                if !is_away(&absences, at) {
                    helper(&mut rng, &mut episodes, at);
                }
            }
        }
        absences.sort_by_key(|absence| absence.from);
        let falls = falls(&mut rng, &habits, &absences);
        Self { kind, episodes: in_order(episodes), absences, falls }
    }

    /// Where the person is, unless at home.
    pub fn away(&self, at: i64) -> Option<&Absence> {
        // The longest one tells: an outing within a trip was not made.
        let there = self.absences.iter().filter(|absence| absence.from <= at && at < absence.to);
        there.max_by_key(|absence| absence.to - absence.from)
    }
}

fn is_away(absences: &[Absence], at: i64) -> bool {
    absences.iter().any(|absence| absence.from <= at && at < absence.to)
}

/// Trips, festivals and hospital stays. Half of the trips are told beforehand; of a hospital stay the centre hears within
/// two days in 8 of 10 cases.
fn long_absences(rng: &mut StdRng, habits: &Habits) -> Vec<Absence> {
    let mut absences = Vec::new();
    let mut add = |rng: &mut StdRng, from: i64, days: std::ops::Range<f64>, why: Away| {
        let to = from + (rng.random_range(days) * DAY as f64) as i64;
        let told = rng.random_bool(if why == Away::Hospital { 0.8 } else { 0.5 });
        let told_at =
            told.then(|| if why == Away::Hospital { from + rng.random_range(2 * HOUR..2 * DAY) } else { from });
        if to < DAYS * DAY && !is_away(&absences, from) && !is_away(&absences, to) {
            absences.push(Absence { from, to, why, told_at });
        }
    };
    // Spring Festival is on 17 February 2026, day 47; National Day on 1 October, day 273.
    if rng.random_bool(0.3) {
        let from = rng.random_range(43..48) * DAY + rng.random_range(8 * HOUR..16 * HOUR);
        add(rng, from, 4.0..9.0, Away::Trip);
    }
    if rng.random_bool(0.1) {
        let from = rng.random_range(271..275) * DAY + rng.random_range(8 * HOUR..16 * HOUR);
        add(rng, from, 2.0..5.0, Away::Trip);
    }
    for _ in 0..often(rng, habits.trips) {
        let from = rng.random_range(0..DAYS) * DAY + rng.random_range(8 * HOUR..18 * HOUR);
        add(rng, from, 0.8..3.2, Away::Trip);
    }
    for _ in 0..often(rng, habits.hospital) {
        let from = rng.random_range(0..DAYS * DAY);
        add(rng, from, 3.0..14.0, Away::Hospital);
    }
    absences
}

/// One and a half spells a year, one to four days.
fn ill_days(rng: &mut StdRng) -> Vec<bool> {
    let mut days = vec![false; DAYS as usize];
    for _ in 0..often(rng, 1.5) {
        let (first, length) = (rng.random_range(0..DAYS), rng.random_range(1..5));
        for day in first..(first + length).min(DAYS) {
            days[day as usize] = true;
        }
    }
    days
}

fn outing(
    rng: &mut StdRng,
    absences: &mut Vec<Absence>,
    episodes: &mut Vec<Episode>,
    from: i64,
    hours: std::ops::Range<f64>,
) {
    let to = from + (rng.random_range(hours) * HOUR as f64) as i64;
    if is_away(absences, from) || is_away(absences, to) {
        return;
    }
    absences.push(Absence { from, to, why: Away::Outing, told_at: None });
    passage(rng, episodes, from);
    passage(rng, episodes, to);
}

/// One opening: 8 to 40 s; one in a hundred is for airing and lasts up to an hour and a half.
fn passage(rng: &mut StdRng, episodes: &mut Vec<Episode>, at: i64) {
    let airing = rng.random_bool(0.01);
    let lasts =
        if airing { rng.random_range(10 * MINUTE..90 * MINUTE) } else { rng.random_range(8 * SECOND..40 * SECOND) };
    episodes.push(Episode { at, lasts, who: Who::Person });
}

fn helper(rng: &mut StdRng, episodes: &mut Vec<Episode>, at: i64) {
    for at in [at, at + rng.random_range(30 * MINUTE..2 * HOUR)] {
        episodes.push(Episode { at, lasts: rng.random_range(8 * SECOND..40 * SECOND), who: Who::Helper });
    }
}

fn falls(rng: &mut StdRng, habits: &Habits, absences: &[Absence]) -> Vec<i64> {
    let mut falls: Vec<i64> = (0..often(rng, habits.falls))
        .filter_map(|_| {
            // At home, at any hour, and early enough for the year to show the end of it.
            let tries: Vec<i64> = (0..20).map(|_| rng.random_range(0..(DAYS - 5) * DAY)).collect();
            let at_home: Vec<i64> = tries.into_iter().filter(|at| !is_away(absences, *at)).collect();
            at_home.choose(rng).copied()
        })
        .collect();
    falls.sort_unstable();
    falls
}

/// One after the other: a door is opened only when it is closed.
fn in_order(mut episodes: Vec<Episode>) -> Vec<Episode> {
    episodes.sort_by_key(|episode| episode.at);
    let mut closed_at = i64::MIN;
    for episode in &mut episodes {
        episode.at = episode.at.max(closed_at);
        closed_at = episode.at + episode.lasts + 2 * SECOND;
    }
    episodes
}
