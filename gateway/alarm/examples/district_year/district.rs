//! A district: gateways of forty homes each, run on all cores. Owns the split; the result does not depend on it, because every
//! gateway has its own seed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::figures::Figures;
use crate::household::bad_weather;
use crate::year::{Variant, Year};

/// Homes of one gateway.
const HOMES_PER_GATEWAY: u64 = 40;

/// Runs a year of `homes` homes.
pub fn run(seed: u64, homes: u64, variant: Variant) -> Figures {
    let weather = bad_weather(seed);
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut mine = Vec::new();
        loop {
            let first = next.fetch_add(HOMES_PER_GATEWAY, Ordering::Relaxed);
            if first >= homes {
                return mine;
            }
            let count = HOMES_PER_GATEWAY.min(homes - first);
            mine.push((first, Year::new(seed, first, count, &weather, variant).run()));
        }
    };
    let mut parts: Vec<(u64, Figures)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a gateway's year panicked")).collect()
    });
    parts.sort_by_key(|(first, _)| *first);
    let mut all = Figures::default();
    parts.into_iter().for_each(|(_, figures)| all.add(figures));
    all
}
