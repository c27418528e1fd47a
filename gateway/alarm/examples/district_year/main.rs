//! A year of a simulated district, through the real engine: `cargo run --release -p gengfu-alarm --example district_year`.
//!
//! Prints false calls, false visits, detection delays and coverage against the budget, as the Markdown table of
//! `docs/district-year.md`, and ends with 1 when the budget is not met. Arguments: number of homes (default 1000), seed
//! (default 1), how many of the columns (default all; 1 is the product alone). Every household, failure and answer comes
//! from the seed.

mod district;
mod figures;
mod household;
mod year;

use std::process::ExitCode;
use std::time::Instant;

use year::Variant;

#[expect(clippy::disallowed_methods, reason = "tells how long the run took; no result depends on it")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64, what: &str| match arguments.next().map(|text| text.parse()) {
        None => Ok(default),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(format!("{what} must be a whole number")),
    };
    let mut asked = || Ok((number(1000, "the number of homes")?, number(1, "the seed")?, number(9, "the columns")?));
    let (homes, seed, columns): (u64, u64, u64) = match asked() {
        Ok(all) => all,
        Err::<_, String>(problem) => {
            eprintln!("{problem}: district_year [HOMES] [SEED] [COLUMNS]");
            return ExitCode::from(2);
        }
    };
    let variants = [
        ("the product", Variant { adaptive: true, calls_answered: true, rubbish: true }),
        ("nothing learned", Variant { adaptive: false, calls_answered: true, rubbish: true }),
        ("no rubbish carried down", Variant { adaptive: true, calls_answered: true, rubbish: false }),
        ("nobody ever answers a call", Variant { adaptive: true, calls_answered: false, rubbish: true }),
    ];
    let mut runs = Vec::new();
    for (name, variant) in variants.into_iter().take(usize::try_from(columns.max(1)).unwrap_or(usize::MAX)) {
        let began = Instant::now();
        eprint!("{name}: {homes} homes, one year, seed {seed} …");
        let figures = district::run(seed, homes, variant);
        eprintln!(" {:.0} s\n{}", began.elapsed().as_secs_f64(), figures::table(&[(name, &figures)]));
        runs.push((name, figures));
    }
    let columns: Vec<_> = runs.iter().map(|(name, figures)| (*name, figures)).collect();
    println!("{homes} homes, seed {seed}\n\n{}", figures::table(&columns));
    let verdict = columns.first().map(|(_, figures)| figures.verdict());
    match verdict {
        Some(verdict) if verdict.is_met() => {
            println!("The budget is met.");
            ExitCode::SUCCESS
        }
        _ => {
            println!("The budget is NOT met.");
            ExitCode::FAILURE
        }
    }
}
