//! The last steps of a life, for a person who looks for a fault.
//!
//! Owns a short memory of texts, kept only while a life that failed is lived again; else noting costs nothing. Refuses to judge.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Steps shown, unless `GENGFU_STEPS` says otherwise.
const STEPS_MAX: usize = 30;

thread_local! {
    static STEPS: RefCell<Option<VecDeque<String>>> = const { RefCell::new(None) };
    static NOW_US: Cell<u64> = const { Cell::new(0) };
}

/// From here on steps are kept, or not.
pub fn keep(keeps: bool) {
    STEPS.with_borrow_mut(|steps| *steps = keeps.then(VecDeque::new));
}

/// What time it is in this life.
pub fn now(now_us: u64) {
    NOW_US.set(now_us);
}

/// Notes a step.
pub fn note(step: impl FnOnce() -> String) {
    STEPS.with_borrow_mut(|steps| {
        let Some(steps) = steps else { return };
        let most = std::env::var("GENGFU_STEPS").ok().and_then(|most| most.parse().ok()).unwrap_or(STEPS_MAX);
        if steps.len() >= most {
            steps.pop_front();
        }
        let us = NOW_US.get();
        steps.push_back(format!("{:>5}.{:03} s  {}", us / 1_000_000, us / 1_000 % 1_000, step()));
    });
}

/// The steps so far.
pub fn told() -> Vec<String> {
    STEPS.with_borrow(|steps| steps.iter().flatten().cloned().collect())
}
