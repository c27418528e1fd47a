//! Durable events per second with group commit, beside a raw append + `fdatasync` of the same bytes in the same
//! batches, interleaved in one run on one file system; then a backlog: how long it takes to open, what it holds in
//! memory, and how fast it is taken and received. Run by hand: `cargo bench -p gengfu-outbox`. `GENGFU_BENCH_DIR`
//! chooses the disk, `GENGFU_BENCH_BACKLOG` the backlog's events (default 20 000), `GENGFU_BENCH_CACHE` sled's page
//! cache in KiB. Ratios count; absolute times are this machine's.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use gengfu_outbox::{
    Lane, Options, Outbox,
    sim::{Kept, SimDisk},
};

const EVENT_BYTES: usize = 1_500;
const ROUNDS: usize = 15;

fn main() {
    let home = std::env::var_os("GENGFU_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = home.join(format!("gengfu-group-commit-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    // First, so that its memory is not another part's.
    backlog(&dir.join("backlog"));
    for batch in [1, 8, 32] {
        group_commit(&dir.join(format!("batch-{batch}")), batch);
    }
    fs::remove_dir_all(&dir).unwrap();
    simulated();
}

/// The same outbox on a simulated disk: what a simulation of the whole gateway pays for it.
fn simulated() {
    let disk = SimDisk::new(1);
    let start = Instant::now();
    let outbox = Outbox::open(Options::simulated(&disk)).unwrap();
    let opened = start.elapsed();
    let commits = 10_000;
    let start = Instant::now();
    for number in 0..commits {
        let mut batch = outbox.batch();
        batch.append(Lane::Fire, &format!("01HZ{number:022}"), 0, |_| vec![7; 600]).unwrap();
        batch.commit().unwrap();
    }
    let commit = start.elapsed() / commits;
    disk.cut_power(Kept::Nothing);
    let start = Instant::now();
    let outbox = Outbox::open(Options::simulated(&disk)).unwrap();
    println!("simulated disk: open {opened:?}, a commit {commit:?}, open after a cut {:?}", start.elapsed());
    assert_eq!(outbox.head().sequence, u64::from(commits));
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

fn options(path: PathBuf) -> Options {
    let default = Options::new(path);
    Options { cache_bytes: number_from("GENGFU_BENCH_CACHE", default.cache_bytes >> 10) << 10, ..default }
}

fn event(number: u64) -> Vec<u8> {
    // Not compressible by a clever disk.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..EVENT_BYTES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn group_commit(dir: &std::path::Path, batch_events: u64) {
    fs::create_dir_all(dir).unwrap();
    let outbox = Outbox::open(options(dir.join("outbox"))).unwrap();
    let mut raw = File::create(dir.join("raw")).unwrap();
    let batches = (640 / batch_events).clamp(40, 200);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut number = 0;
    for _ in 0..ROUNDS {
        let events: Vec<Vec<u8>> = (0..batches * batch_events).map(|offset| event(number + offset)).collect();
        let start = Instant::now();
        for group in events.chunks(batch_events as usize) {
            group.iter().for_each(|bytes| raw.write_all(bytes).unwrap());
            raw.sync_data().unwrap();
        }
        theirs.push(start.elapsed());
        let start = Instant::now();
        for group in events.chunks(batch_events as usize) {
            let mut batch = outbox.batch();
            for bytes in group {
                number += 1;
                // Time-ordered like the ULIDs the gateway uses.
                batch.append(Lane::Care, &format!("01HZ{number:022}"), 0, |_| bytes.clone()).unwrap();
            }
            batch.put(b"node/7/cursor", &number.to_be_bytes());
            batch.commit().unwrap();
        }
        ours.push(start.elapsed());
    }
    let per_second = |times: &mut Vec<Duration>| (batches * batch_events) as f64 / median(times).as_secs_f64();
    let (ours, theirs) = (per_second(&mut ours), per_second(&mut theirs));
    println!(
        "batches of {batch_events:>2}: outbox {ours:>7.0} durable events/s, raw append + fdatasync {theirs:>7.0}, \
         ratio {:.2}",
        ours / theirs
    );
}

fn backlog(dir: &std::path::Path) {
    let events = number_from("GENGFU_BENCH_BACKLOG", 20_000);
    let empty = resident_mib();
    let outbox = Outbox::open(options(dir.to_owned())).unwrap();
    let mut number = 0;
    while number < events {
        let mut batch = outbox.batch();
        for _ in 0..64 {
            number += 1;
            batch.append(Lane::Fire, &format!("01HZ{number:022}"), 0, |_| event(number)).unwrap();
        }
        batch.commit().unwrap();
    }
    let resident = resident_mib();
    drop(outbox);
    let on_disk = fs::metadata(dir.join("db")).unwrap().len() >> 20;
    let open = |what: &str| {
        let start = Instant::now();
        let outbox = Outbox::open(options(dir.to_owned())).unwrap();
        let opened = start.elapsed();
        assert_eq!(outbox.take(1).unwrap().len(), 1);
        println!("{what}: open {opened:?}, first item after {:?}", start.elapsed());
        outbox
    };
    println!(
        "backlog of {number} events, {on_disk} MiB on disk, resident before it {empty} MiB, after writing {resident} MiB"
    );
    drop(open("first start after it was written"));
    let outbox = open("every further start");
    outbox.release_all();
    let start = Instant::now();
    let mut drained = 0;
    loop {
        let items = outbox.take(100).unwrap();
        if items.is_empty() {
            break;
        }
        drained += items.len();
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        outbox.received(&ids, 1).unwrap();
    }
    let rate = drained as f64 / start.elapsed().as_secs_f64();
    println!("drained {drained} at {rate:.0} events/s (take and receipt in hundreds), resident {} MiB", resident_mib());
    let start = Instant::now();
    let _ = outbox.stats();
    println!("stats after the drain: {:?}", start.elapsed());
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}
