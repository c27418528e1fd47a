//! What came of a year: counted, and set against the budget.
//!
//! Owns the definitions. A *false automatic call* is a call made because of yellow while nobody lies fallen, whether
//! the person is at home, out, or in hospital. A call by staff, because of orange, is counted apart. A *false visit* is red while nobody lies fallen. A fall's *delay* is the time from
//! the fall to the first level told after it. A fall found by a helper before any level is counted apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gengfu_contract::words::CareLevel;

use crate::household::{DAYS, HOUR, Kind};

/// One fall.
#[derive(Debug, Clone, Default)]
pub struct Fall {
    /// Red of the person's policy, ms of covered time.
    pub policy_ms: i64,
    /// First level told after it: ms on the wall, ms of covered time.
    pub found: Option<(i64, i64)>,
    /// Red.
    pub red_ms: Option<i64>,
    pub by_helper: bool,
    pub rescued_ms: Option<i64>,
}

/// Counts of one or more gateways.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub homes: u64,
    pub learned_homes: u64,
    /// Homes, false calls and false visits by kind of household.
    pub by_kind: [(u64, u64, u64); 4],
    pub staff_calls: u64,
    /// False visits while the person was away.
    pub false_visits_away: u64,
    pub night_exits: u64,
    pub busy_nights: u64,
    pub sensor_losses: u64,
    pub heartbeats: u64,
    pub heartbeats_heard: u64,
    pub restarts: u64,
    pub falls: BTreeMap<(usize, usize), Fall>,
    /// Falls of gateways taken in.
    pub all_falls: Vec<Fall>,
}

/// The budget of the mission, and whether it is met.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// False automatic calls per home and 50 days; at most 1.
    pub calls: f64,
    /// False visits per home and year; at most 1.
    pub visits: f64,
    /// Falls that no level and no helper found by the policy's end in covered time; none.
    pub missed: usize,
}

impl Verdict {
    pub fn is_met(&self) -> bool {
        self.calls <= 1.0 && self.visits <= 1.0 && self.missed == 0
    }
}

impl Figures {
    /// A level was told while a person lies.
    pub fn found(&mut self, home: usize, fall: usize, delay_ms: i64, covered_ms: i64, level: CareLevel) {
        let Some(fall) = self.falls.get_mut(&(home, fall)) else { return };
        fall.found.get_or_insert((delay_ms, covered_ms));
        if level == CareLevel::Red {
            fall.red_ms.get_or_insert(delay_ms);
        }
    }

    /// Takes in another gateway's.
    pub fn add(&mut self, other: Figures) {
        self.homes += other.homes;
        self.learned_homes += other.learned_homes;
        for (mine, (homes, calls, visits)) in self.by_kind.iter_mut().zip(other.by_kind) {
            *mine = (mine.0 + homes, mine.1 + calls, mine.2 + visits);
        }
        self.staff_calls += other.staff_calls;
        self.false_visits_away += other.false_visits_away;
        self.night_exits += other.night_exits;
        self.busy_nights += other.busy_nights;
        self.sensor_losses += other.sensor_losses;
        self.heartbeats += other.heartbeats;
        self.heartbeats_heard += other.heartbeats_heard;
        self.restarts += other.restarts;
        self.all_falls.extend(other.falls.into_values());
        self.all_falls.extend(other.all_falls);
    }

    pub fn verdict(&self) -> Verdict {
        let homes = self.homes as f64;
        let late = |fall: &&Fall| match fall.found {
            Some((_, covered_ms)) => covered_ms > fall.policy_ms,
            None => !fall.by_helper,
        };
        Verdict {
            calls: self.by_kind.iter().map(|(_, calls, _)| *calls).sum::<u64>() as f64 / homes / DAYS as f64 * 50.0,
            visits: self.by_kind.iter().map(|(.., visits)| *visits).sum::<u64>() as f64 / homes,
            missed: self.all_falls.iter().filter(late).count(),
        }
    }

    /// False calls per home and 50 days, and visits per home and year, of one kind of household.
    fn kind(&self, kind: Kind) -> String {
        let (homes, calls, visits) = self.by_kind[kind as usize];
        let homes = homes.max(1) as f64;
        format!("{:.2}, {:.2}", calls as f64 / homes / DAYS as f64 * 50.0, visits as f64 / homes)
    }

    /// Share of heartbeats that were heard.
    pub fn coverage(&self) -> f64 {
        self.heartbeats_heard as f64 / self.heartbeats.max(1) as f64
    }

    /// The figures as rows of a table: name, value.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let verdict = self.verdict();
        let homes = self.homes as f64;
        let found = |pick: fn(&Fall) -> Option<i64>| {
            let mut hours: Vec<f64> =
                self.all_falls.iter().filter_map(pick).map(|ms| ms as f64 / HOUR as f64).collect();
            hours.sort_by(f64::total_cmp);
            hours
        };
        let first = found(|fall| fall.found.map(|(delay_ms, _)| delay_ms));
        let covered = found(|fall| fall.found.map(|(_, covered_ms)| covered_ms));
        let rescued = found(|fall| fall.rescued_ms);
        let helper = self.all_falls.iter().filter(|fall| fall.found.is_none() && fall.by_helper).count();
        vec![
            ("homes", self.homes.to_string()),
            ("homes with a learned rhythm at the year's end", self.learned_homes.to_string()),
            ("coverage (heartbeats heard)", format!("{:.2} %", self.coverage() * 100.0)),
            ("false automatic calls per home and 50 days (budget 1)", format!("{:.3}", verdict.calls)),
            ("false visits per home and year (budget 1)", format!("{:.3}", verdict.visits)),
            ("… active: calls, visits", self.kind(Kind::Active)),
            ("… regular: calls, visits", self.kind(Kind::Regular)),
            ("… homebody: calls, visits", self.kind(Kind::Homebody)),
            ("… frail: calls, visits", self.kind(Kind::Frail)),
            ("false visits while the person was away", format!("{:.3}", self.false_visits_away as f64 / homes)),
            (
                "calls by staff per home and 50 days",
                format!("{:.3}", self.staff_calls as f64 / homes / DAYS as f64 * 50.0),
            ),
            ("falls", self.all_falls.len().to_string()),
            ("falls not found by the policy's end in covered time (budget 0)", verdict.missed.to_string()),
            ("falls a helper with a key found first", helper.to_string()),
            ("delay to the first level, mean", hours(mean(&first))),
            ("delay to the first level, 95 %", hours(quantile(&first, 0.95))),
            ("delay to the first level, longest on the wall", hours(first.last().copied())),
            ("delay to the first level, longest in covered time", hours(covered.last().copied())),
            ("delay to the rescue, mean", hours(mean(&rescued))),
            ("night exits told per home and year", format!("{:.2}", self.night_exits as f64 / homes)),
            ("busy nights told per home and year", format!("{:.2}", self.busy_nights as f64 / homes)),
            ("sensors lost (troubles) per home and year", format!("{:.2}", self.sensor_losses as f64 / homes)),
            ("gateway restarts from what was written down", self.restarts.to_string()),
        ]
    }
}

fn mean(of: &[f64]) -> Option<f64> {
    (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64)
}

/// Nearest rank of sorted values.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

fn hours(value: Option<f64>) -> String {
    value.map_or_else(|| "none".to_owned(), |hours| format!("{hours:.1} h"))
}

/// Runs side by side, as a Markdown table.
pub fn table(runs: &[(&str, &Figures)]) -> String {
    let mut text = String::from("| figure |");
    for (name, _) in runs {
        let _ = write!(text, " {name} |");
    }
    let _ = write!(text, "\n|---|{}\n", "---:|".repeat(runs.len()));
    let columns: Vec<_> = runs.iter().map(|(_, figures)| figures.rows()).collect();
    for (n, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        let _ = write!(text, "| {name} |");
        for column in &columns {
            let _ = write!(text, " {} |", column.get(n).map_or("", |(_, value)| value));
        }
        text.push('\n');
    }
    text
}
