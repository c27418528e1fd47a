//! Scenario.
fn main() {}
