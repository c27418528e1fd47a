//! Lanes: the strict order in which deliveries leave the gateway, and how many may wait in each. Owns the order and
//! the bounds; refuses to know which alarm belongs in which lane.

use std::fmt;

/// A delivery lane. Lower lanes go first, always; within a lane the order of append is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Smoke and fire. Life safety: never bounded, never dropped.
    Fire = 0,
    /// Personal emergency (SOS). Life safety: never bounded, never dropped.
    Emergency = 1,
    /// The equipment's own faults: lost sensors, low batteries, dark cameras.
    Trouble = 2,
    /// Care of people living alone.
    Care = 3,
    /// City scenes: parking, litter, bins.
    City = 4,
    /// Routine states and measurements.
    Telemetry = 5,
    /// Pictures and other evidence.
    Evidence = 6,
}

impl Lane {
    /// Every lane, in order of delivery.
    pub const ALL: [Lane; 7] =
        [Lane::Fire, Lane::Emergency, Lane::Trouble, Lane::Care, Lane::City, Lane::Telemetry, Lane::Evidence];

    /// The lane's name on the wire, in logs and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Fire => "fire",
            Lane::Emergency => "emergency",
            Lane::Trouble => "trouble",
            Lane::Care => "care",
            Lane::City => "city",
            Lane::Telemetry => "telemetry",
            Lane::Evidence => "evidence",
        }
    }

    /// True for the lanes that are never bounded and never dropped.
    #[must_use]
    pub const fn is_life_safety(self) -> bool {
        matches!(self, Lane::Fire | Lane::Emergency)
    }

    /// The lane's place in [`Lane::ALL`], for arrays with one entry per lane.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(byte)).copied()
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The most pending items each lane may hold. Life-safety lanes have no bound and cannot be given one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    items_max: [u64; 7],
}

impl Default for Bounds {
    /// Weeks of a broken uplink for a building, at about 2 KiB an item well under 200 MiB: trouble 10 000, care 20 000,
    /// city 20 000, telemetry 20 000, evidence 2 000.
    fn default() -> Self {
        Bounds { items_max: [u64::MAX, u64::MAX, 10_000, 20_000, 20_000, 20_000, 2_000] }
    }
}

impl Bounds {
    /// The same bounds with `lane` holding at most `items_max` pending items (at least 1). Life-safety lanes are left
    /// unbounded whatever is asked.
    #[must_use]
    pub fn with(mut self, lane: Lane, items_max: u64) -> Bounds {
        if !lane.is_life_safety() {
            self.items_max[lane.index()] = items_max.max(1);
        }
        self
    }

    /// The most pending items of `lane`; `None` when it has no bound.
    #[must_use]
    pub fn get(&self, lane: Lane) -> Option<u64> {
        (!lane.is_life_safety()).then_some(self.items_max[lane.index()])
    }
}
