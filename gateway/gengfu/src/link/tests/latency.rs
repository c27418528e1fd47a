//! Goal: an event on a bus is with the gateway in the time that docs/wire-protocol.md states, also while nodes are dead.
//! Method: 32 real nodes with byte times at 115,200 bit/s; one door after the other moves at a random moment; the worst delay from the node's accepting
//! the event to the gateway's taking it is compared with the formula.

use rand::Rng;

use super::super::bus::schedule::{DEAD_EVERY, IDLE_EVERY};
use super::super::bus::{GAP, POLL_FRAMES};
use super::rig::{Rig, bus};

const BYTE_US: f64 = 10e6 / 115_200.0;
/// A poll, an event, a Done: the longest there are but for uptimes and boots, which grow by some bytes.
const POLL_BYTES: f64 = 12.0;
const EVENT_BYTES: f64 = 32.0;
const DONE_BYTES: f64 = 17.0;
const ACK_BYTES: f64 = 21.0;
const TURNAROUND_US: f64 = 25_000.0;

/// As in docs/wire-protocol.md, "How long an event takes": the pace or the round, whichever is longer; a dead node; the
/// exchange itself, and two of others that have more to say than a `Done`.
fn worst_us(nodes: usize, dead: usize, think_us: f64, adapter_us: f64) -> f64 {
    let gap_us = GAP.as_secs_f64() * 1e6;
    let empty = (POLL_BYTES + DONE_BYTES) * BYTE_US + think_us + adapter_us + gap_us;
    let with_event = empty + (EVENT_BYTES + ACK_BYTES) * BYTE_US;
    let silent = POLL_BYTES * BYTE_US + TURNAROUND_US + gap_us;
    let alive = (nodes - dead) as f64;
    let round = alive * empty;
    let pace = (IDLE_EVERY.as_secs_f64() * 1e6).max(round);
    let dead_in_it = (pace * (dead as f64 + 1.0) / (DEAD_EVERY.as_secs_f64() * 1e6)).ceil().min(dead as f64);
    pace + dead_in_it * silent + 3.0 * with_event
}

fn measured_us(nodes: usize, dead: usize, adapter_us: u64) -> (f64, f64) {
    let mut rig = Rig::new(7, bus(nodes, 25));
    rig.air.adapter_us = adapter_us;
    for node in &mut rig.nodes[..dead] {
        node.is_off = true;
    }
    for node in &mut rig.nodes[dead..] {
        node.heartbeat_ms = 10_000;
        node.reboot();
    }
    rig.run_ms(10_000);
    for _ in 0..400 {
        let wait_ms = rig.random.random_range(50..900);
        rig.run_ms(wait_ms);
        let index = rig.random.random_range(dead..nodes);
        rig.nodes[index].door.set(!rig.nodes[index].door.get());
        rig.nodes[index].wake();
    }
    rig.run_ms(2_000);
    let truth = rig.truth.borrow();
    let delays = rig.disk.journal.iter().filter_map(|(taken_us, seen)| {
        let origin = seen.origin.as_ref()?;
        Some(taken_us - truth.boots[&origin.boot][origin.sequence as usize - 1].1)
    });
    let delays: Vec<u64> = delays.collect();
    assert!(delays.len() >= 380, "{} events", delays.len());
    (*delays.iter().max().unwrap() as f64, delays.iter().sum::<u64>() as f64 / delays.len() as f64)
}

#[test]
fn w32_an_event_on_a_full_bus_is_taken_in_the_stated_time_also_with_dead_nodes() {
    for adapter_us in [0, 16_000] {
        for dead in [0, 1, 5] {
            let (worst, mean) = measured_us(32, dead, adapter_us);
            let stated = worst_us(32, dead, 1_000.0, adapter_us as f64);
            println!(
                "32 nodes, {dead} dead, adapter {adapter_us} us: worst {:.0} ms, mean {:.0} ms, stated {:.0} ms",
                worst / 1e3,
                mean / 1e3,
                stated / 1e3
            );
            assert!(worst <= stated, "{dead} dead, adapter {adapter_us} us: {worst} us, stated {stated} us");
            assert!(worst > stated / 4.0, "the formula says nothing");
        }
    }
    assert_eq!(POLL_FRAMES, 4, "docs/wire-protocol.md states it");
}
