//! What a load run measured.
//!
//! Owns the counts, the latencies and the words of the result. A latency is read from the gateway's own outbox (sensed to the centre's receipt),
//! of every event, also of those that needed several connections. Memory is bounded by the number of different milliseconds, not by that of events.

use std::collections::BTreeMap;
use std::fmt;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Lane;
use serde::Serialize;

/// Longer latencies are counted as this long.
const LONGEST_MS: u64 = 3_600_000;
/// GB 26875.1, 4.1.2: fire at the centre within 10 s.
const HARD_LIMIT_MS: u64 = 10_000;

/// Latencies of one lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies {
    /// How many took so many milliseconds.
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Latencies {
    pub(super) fn add(&mut self, ms: u64) {
        *self.counts.entry(ms.min(LONGEST_MS)).or_default() += 1;
        self.total += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (ms, count) in &other.counts {
            *self.counts.entry(*ms).or_default() += count;
        }
        self.total += other.total;
    }

    /// The smallest latency that `per_mille` of a thousand do not exceed (nearest rank).
    fn rank(&self, per_mille: u64) -> u64 {
        let wanted = (self.total * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (ms, count) in &self.counts {
            seen += count;
            if seen >= wanted {
                return *ms;
            }
        }
        0
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            count: self.total,
            p50_ms: self.rank(500),
            p99_ms: self.rank(990),
            p999_ms: self.rank(999),
            max_ms: self.counts.keys().next_back().copied().unwrap_or_default(),
            over_10_s: self.counts.range(HARD_LIMIT_MS + 1..).map(|(_, count)| count).sum(),
        }
    }
}

/// Latencies in figures, milliseconds from sensed to the centre's receipt, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// How many.
    pub count: u64,
    /// Half took at most this.
    pub p50_ms: u64,
    /// 99 of 100.
    pub p99_ms: u64,
    /// 999 of 1000.
    pub p999_ms: u64,
    /// The slowest.
    pub max_ms: u64,
    /// Slower than the 10 s that GB 26875.1 allows a fire.
    pub over_10_s: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_ms, p99_ms, p999_ms, max_ms, over_10_s } = self;
        write!(
            f,
            "{count:>8} receipts   p50 {p50_ms:>6} ms   p99 {p99_ms:>6} ms   p99.9 {p999_ms:>6} ms   max {max_ms:>6} ms   {over_10_s} over 10 s"
        )
    }
}

/// Counts while a run goes on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) alarms: u64,
    pub(super) events: u64,
    pub(super) pictures: u64,
    /// Items handed to a connection, repetitions included, of those received.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Received, but the outbox had pruned the record before it was read.
    pub(super) untimed: u64,
    pub(super) lanes: BTreeMap<Lane, Latencies>,
}

impl Tally {
    /// All lanes together; pictures apart, for they may wait by design.
    pub(super) fn all(&self) -> Latencies {
        let mut all = Latencies::default();
        self.lanes.iter().filter(|(lane, _)| **lane != Lane::Evidence).for_each(|(_, of)| all.merge(of));
        all
    }

    /// Fire and emergency.
    pub(super) fn life_safety(&self) -> Latencies {
        let mut all = Latencies::default();
        self.lanes.iter().filter(|(lane, _)| lane.is_life_safety()).for_each(|(_, of)| all.merge(of));
        all
    }
}

/// One gateway, judged at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GatewayFault {
    /// Which.
    pub gateway: Slug,
    /// What is not as it must be.
    pub fault: String,
}

/// The result of a run; `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Everything that was journaled has a receipt, and the desk has every event, chained, none contradicting another.
    pub complete: bool,
    /// The seed.
    pub seed: u64,
    /// Simulated gateways.
    pub gateways: usize,
    /// How long alarms came, seconds.
    pub seconds: u64,
    /// How long until everything had its receipt after that, milliseconds.
    pub settled_after_ms: u64,
    /// Alarms raised.
    pub alarms: u64,
    /// Events journaled (an alarm is several: the observation, raised, over).
    pub events: u64,
    /// Pictures among the items.
    pub pictures: u64,
    /// Items handed to a connection, repetitions included.
    pub sent: u64,
    /// Items received, once each.
    pub received: u64,
    /// Receipts whose time is not known.
    pub untimed: u64,
    /// Items that had no receipt at the end.
    pub pending: u64,
    /// Connections the brokers accepted.
    pub connects: u64,
    /// Starts of gateways: one each, and one more at every power cut.
    pub boots: u64,
    /// Power cuts of the whole city.
    pub storms: u64,
    /// Longest time from power to a connection that stands, over all starts, milliseconds.
    pub slowest_connect_ms: u64,
    /// Latencies of all events, pictures apart.
    pub latency: Figures,
    /// The same of fire and emergency alone.
    pub latency_life_safety: Figures,
    /// By lane.
    pub lanes: BTreeMap<Lane, Figures>,
    /// Copies that the desk had before; each has its id.
    pub duplicates: u64,
    /// Events of one gateway and lane that arrived first after a later one of that lane. Their sequence tells the true order.
    pub out_of_order: u64,
    /// Messages the desk could not read.
    pub malformed: u64,
    /// Lines of the desk that came too fast to be judged for order.
    pub unjudged: u64,
    /// What is not as it must be; the first 50.
    pub faults: Vec<GatewayFault>,
    /// Gateways of the site that are not simulated here, and the desk's proof of each.
    pub others: BTreeMap<Slug, crate::desk::Proof>,
    /// Largest memory of this process (gateways and desk together), KiB.
    pub memory_peak_kib: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "更夫 Gengfu: load of {} gateways for {} s (seed {})", self.gateways, self.seconds, self.seed)?;
        writeln!(f, "  alarms {}   events {}   pictures {}", self.alarms, self.events, self.pictures)?;
        writeln!(f, "  sent {}   received {}   pending {}", self.sent, self.received, self.pending)?;
        writeln!(
            f,
            "  starts {}   connections {}   power cuts {}   slowest connect {} ms",
            self.boots, self.connects, self.storms, self.slowest_connect_ms
        )?;
        writeln!(f, "  sensed to receipt:")?;
        writeln!(f, "    all events   {}", self.latency)?;
        writeln!(f, "    life safety  {}", self.latency_life_safety)?;
        for (lane, figures) in &self.lanes {
            writeln!(f, "    {:<12} {figures}", lane.as_str())?;
        }
        writeln!(
            f,
            "  at the desk: {} duplicates, {} out of order within a lane, {} malformed",
            self.duplicates, self.out_of_order, self.malformed
        )?;
        for (gateway, proof) in &self.others {
            writeln!(f, "  also there: {gateway}: {proof}")?;
        }
        writeln!(f, "  everything had its receipt {} ms after the last alarm", self.settled_after_ms)?;
        writeln!(f, "  memory at most {} MiB", self.memory_peak_kib / 1024)?;
        for GatewayFault { gateway, fault } in &self.faults {
            writeln!(f, "  ✗ {gateway}: {fault}")?;
        }
        if self.complete {
            write!(f, "  ✓ complete: nothing missing, every chain holds")
        } else {
            write!(f, "  ✗ NOT COMPLETE")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank_and_merging_changes_nothing() {
        let (mut odd, mut even) = (Latencies::default(), Latencies::default());
        (1..=1000).for_each(|ms| if ms % 2 == 1 { odd.add(ms) } else { even.add(ms) });
        let tally = Tally { lanes: [(Lane::Fire, odd), (Lane::Emergency, even)].into(), ..Tally::default() };
        for figures in [tally.all().figures(), tally.life_safety().figures()] {
            assert_eq!((figures.count, figures.p50_ms, figures.p99_ms, figures.p999_ms), (1000, 500, 990, 999));
            assert_eq!((figures.max_ms, figures.over_10_s), (1000, 0));
        }
    }

    #[test]
    fn what_is_later_than_ten_seconds_is_counted_and_pictures_are_told_apart() {
        let mut late = Latencies::default();
        [10_000, 10_001, u64::MAX].into_iter().for_each(|ms| late.add(ms));
        let tally = Tally { lanes: [(Lane::Evidence, late.clone())].into(), ..Tally::default() };
        assert_eq!((late.figures().over_10_s, late.figures().max_ms), (2, LONGEST_MS));
        assert_eq!(tally.all().figures().count, 0);
        assert_eq!(Latencies::default().figures().p99_ms, 0);
    }
}
