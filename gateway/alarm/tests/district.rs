//! A small share of the district's year, in every test run.
//!
//! Goal: every fall is found in time and visits stay within the budget, and the same seed gives the same year. The budget of
//! calls is an average over many homes; the example judges it. Method: the households and the centre of the example
//! `district_year`, forty homes; the whole district is `make district-year`.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../examples/district_year/district.rs"]
mod district;
#[path = "../examples/district_year/figures.rs"]
mod figures;
#[path = "../examples/district_year/household.rs"]
mod household;
#[path = "../examples/district_year/year.rs"]
mod year;

use year::Variant;

const PRODUCT: Variant = Variant { adaptive: true, calls_answered: true, rubbish: true };

#[test]
fn in_a_share_of_the_district_every_fall_is_found_in_time_and_visits_stay_within_the_budget() {
    let seed = 20_261_122;
    let figures = district::run(seed, 40, PRODUCT);
    let verdict = figures.verdict();
    assert!(
        verdict.missed == 0 && verdict.visits <= 1.0,
        "seed {seed}: {verdict:?}\n{}",
        figures::table(&[("share", &figures)])
    );
    // Twice the budget: no rule that calls without need passes.
    assert!(verdict.calls <= 2.0, "seed {seed}: {verdict:?}");
    assert!(figures.all_falls.len() >= 5, "seed {seed}: too few falls to prove anything");
    assert!(figures.learned_homes >= 30, "seed {seed}: {} homes learned", figures.learned_homes);
    assert!((0.9..1.0).contains(&figures.coverage()), "seed {seed}: {}", figures.coverage());
}

#[test]
fn the_same_seed_gives_the_same_year() {
    let rows = || district::run(7, 8, PRODUCT).rows();
    assert_eq!(rows(), rows());
}
