//! The fault matrix: everything that can go wrong between a gateway and its centre, one row each, on a real broker with the real gateway program, real nodes
//! and the reference desk, in both MQTT versions. Goal: in each row nothing received is missing, order is kept within a lane (live before backlog, an
//! alarm's story always), every duplicate has its id, `status` shows the state with its remedy while it lasts, and afterwards all is well again by itself.
//! Method: the rows are data ([`rows`]), one player acts them out ([`stage`]), one judge judges all ([`judge`]), and a table tells how each went.
//!
//! `GENGFU_ROW` plays only rows whose name contains it, `GENGFU_ROUNDS` plays all so often (1 unless said), `GENGFU_SEED` repeats what happens at the nodes.

mod judge;
mod rows;
mod stage;
mod world;

use std::process::ExitCode;
use std::sync::{Condvar, Mutex, PoisonError};

use gengfu::config::Protocol;
use hil_tests::node::{rounds, seed};
use hil_tests::skip::{self, Need, need};
use hil_tests::{Result, RigError};
use rows::Row;
use stage::Outcome;

/// Rows played at the same time. A row mostly waits for time-outs; two cores carry so many gateways that wait.
const AT_ONCE: usize = 5;

fn main() -> ExitCode {
    let mqtt = || need::tool("mosquitto");
    let preload = || -> Need { need::all([mqtt(), world::faketime().map(|_| ())]) };
    skip::main(vec![
        skip::test("fault_matrix_on_mqtt_5", mqtt(), || play(rows::WAY, Protocol::Mqtt5)),
        skip::test("fault_matrix_on_mqtt_3_1_1", mqtt(), || play(rows::WAY, Protocol::Mqtt311)),
        skip::test("fault_matrix_of_tls", mqtt(), || play(rows::TLS, Protocol::Mqtt5)),
        skip::test("fault_matrix_of_clocks", preload(), || play(rows::CLOCK, Protocol::Mqtt5)),
    ])
}

/// Plays the rows that this version has, several at once, prints the table and fails with all that failed.
fn play(rows: &'static [Row], protocol: Protocol) -> Result<()> {
    let (seed, rounds) = (seed(), rounds(1));
    let wanted = std::env::var("GENGFU_ROW").unwrap_or_default();
    let of_version = |row: &&Row| row.on.is_none_or(|on| on == protocol) && row.name.contains(&wanted);
    let chosen: Vec<&Row> = rows.iter().filter(of_version).collect();
    let queue = Mutex::new((0..rounds).flat_map(|_| chosen.iter().copied()).rev().collect::<Vec<_>>());
    let played = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(row) = pop(&queue) {
                    let _permit = PERMITS.take();
                    let outcome = stage::play(row, protocol, seed);
                    let how = if outcome.is_ok() { "well" } else { "NOT WELL" };
                    eprintln!("{protocol:?}, {}: {how}", row.name);
                    played.lock().unwrap_or_else(PoisonError::into_inner).push((row, outcome));
                }
            });
        }
    });
    let mut played = played.into_inner().unwrap_or_else(PoisonError::into_inner);
    played.sort_by_key(|(row, _)| chosen.iter().position(|chosen| chosen.name == row.name));
    print_table(&played, protocol);
    let faults: Vec<String> =
        played.iter().filter_map(|(row, outcome)| Some(format!("{}: {}", row.name, outcome.as_ref().err()?))).collect();
    if faults.is_empty() {
        Ok(())
    } else {
        let what = format!("{} of {} rows", faults.len(), played.len());
        Err(RigError::failed(what, faults.join("\n\n")))
    }
}

fn pop(queue: &Mutex<Vec<&'static Row>>) -> Option<&'static Row> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn print_table(played: &[(&Row, Result<Outcome>)], protocol: Protocol) {
    let line = |cells: [&str; 8]| {
        let [name, struck, events, copies, whole, p99, state, remedy] = cells;
        format!("{name:<48} {struck:>6} {events:>6} {copies:>6} {whole:>6} {p99:>6}  {state:<32} {remedy}\n")
    };
    let mut table = format!(
        "\nfault matrix, {protocol:?}; s: from the end of the fault until all had arrived; p99: from sensed to receipt, life safety, ms\n"
    );
    table += &line(["row", "faults", "events", "copies", "s", "p99", "state shown", "remedy"]);
    for (row, outcome) in played {
        match outcome {
            Ok(done) => {
                let (state, remedy) = done.shown.first().cloned().unwrap_or_else(|| ("-".into(), "-".into()));
                let seconds = format!("{:.1}", done.whole_after.as_secs_f64());
                let (struck, events) = (done.struck.to_string(), done.account.events.to_string());
                let copies = done.account.duplicates.to_string();
                let p99 = done.life_safety_p99_ms.to_string();
                table += &line([row.name, &struck, &events, &copies, &seconds, &p99, &state, &remedy]);
            }
            Err(error) => {
                let first = error.to_string().lines().next().unwrap_or_default().to_owned();
                table += &line([row.name, "", "", "", "", "", "FAILED", &first]);
            }
        }
    }
    println!("{table}");
}

/// Bounds the rows played at once in this process, whichever tests they belong to.
static PERMITS: Permits = Permits { free: Mutex::new(AT_ONCE), given_back: Condvar::new() };

struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

impl Permits {
    fn take(&'static self) -> Permit {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.given_back.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

struct Permit(&'static Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}
