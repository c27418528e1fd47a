//! Goal: whatever its users do, the outbox does what a simple model in memory does. Method: seeded random actions on
//! both, everything observable compared after each; on a directory, and far more often on the simulated disk, where the power
//! is also cut and the disk fails at any operation. A failing seed is printed; `GENGFU_SEED=<seed>` replays it alone.
//! `GENGFU_MODEL_RUNS` and `GENGFU_SIM_RUNS` set how many. Seeds that ever failed stand in `FAILED_ONCE` and are replayed first.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use gengfu_outbox::{
    Batch, Bounds, Health, ItemKey, Lane, Options, Outbox, OutboxError, Outcome, Receipt,
    sim::{Fault, Kept, SimDisk},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const FAILED_ONCE: &[u64] = &[];
const KEEP: u64 = 12;

/// Where the outbox under test lies.
enum Place {
    Directory(TempDir),
    Simulated(SimDisk),
}

fn options(place: &Place) -> Options {
    let defaults = match place {
        Place::Directory(dir) => Options::new(dir.path()),
        Place::Simulated(disk) => Options::simulated(disk),
    };
    let bounds = Bounds::default()
        .with(Lane::Trouble, 6)
        .with(Lane::Care, 9)
        .with(Lane::City, 4)
        .with(Lane::Telemetry, 3)
        .with(Lane::Evidence, 5);
    Options { bounds, journal_keep: KEEP, ..defaults }
}

#[derive(Clone)]
struct Entry {
    id: String,
    bytes: Vec<u8>,
    group: u64,
    outcome: Outcome,
    in_flight: bool,
}

#[derive(Clone, Default)]
struct Model {
    items: BTreeMap<ItemKey, Entry>,
    /// The items that are not live.
    backlog: BTreeSet<ItemKey>,
    dropped: [u64; 7],
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    sequence: u64,
    hash: [u8; 32],
}

impl Model {
    fn pending(&self, lane: Lane) -> impl Iterator<Item = (&ItemKey, &Entry)> {
        self.items.iter().filter(move |(key, entry)| key.lane() == lane && entry.outcome == Outcome::Pending)
    }

    fn add(&mut self, key: ItemKey, id: String, group: u64, bytes: Vec<u8>, bounds: &Bounds) {
        let lane = key.lane();
        while bounds.get(lane).is_some_and(|items_max| self.pending(lane).count() as u64 >= items_max) {
            let oldest = self.pending(lane).find(|(_, entry)| !entry.in_flight).map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            self.items.get_mut(&oldest).unwrap().outcome = Outcome::Dropped;
            self.dropped[lane.index()] += 1;
        }
        self.items.insert(key, Entry { id, bytes, group, outcome: Outcome::Pending, in_flight: false });
    }
}

impl Model {
    fn mark_backlog(&mut self) {
        self.backlog = self.items.keys().copied().collect();
    }

    /// The keys that `take` must hand out, in order.
    fn take(&mut self, limit: usize, with_backlog: bool) -> Vec<ItemKey> {
        let mut taken = Vec::new();
        for lane in Lane::ALL {
            let free = |entry: &Entry| !entry.in_flight;
            let waiting: Vec<(ItemKey, u64)> =
                self.pending(lane).filter(|(_, entry)| free(entry)).map(|(key, entry)| (*key, entry.group)).collect();
            for (key, group) in waiting.iter().filter(|(key, _)| !self.backlog.contains(key)) {
                let before = waiting.iter().filter(|(other, of)| other < key && of == group && *group != 0);
                let before: Vec<ItemKey> =
                    before.map(|(other, _)| *other).filter(|other| !taken.contains(other)).collect();
                let brought = before.len().min(16).min(limit - taken.len());
                taken.extend(&before[..brought]);
                if brought == before.len() && taken.len() < limit && !taken.contains(key) {
                    taken.push(*key);
                }
            }
            let rest =
                waiting.iter().filter(|(key, _)| with_backlog && self.backlog.contains(key) && !taken.contains(key));
            let rest: Vec<ItemKey> = rest.map(|(key, _)| *key).take(limit - taken.len()).collect();
            taken.extend(rest);
        }
        for key in &taken {
            self.items.get_mut(key).unwrap().in_flight = true;
        }
        taken
    }
}

struct Run {
    rng: StdRng,
    place: Place,
    outbox: Outbox,
    model: Model,
    /// Received since the last sync: a crash may make them pending again.
    unsynced: BTreeSet<ItemKey>,
    next_id: u64,
    oldest_kept: u64,
}

impl Run {
    fn new(seed: u64, place: Place) -> Run {
        let outbox = Outbox::open(options(&place)).unwrap();
        let rng = StdRng::seed_from_u64(seed);
        Run { rng, place, outbox, model: Model::default(), unsynced: BTreeSet::new(), next_id: 0, oldest_kept: 1 }
    }

    fn act(&mut self) {
        let kinds = if matches!(self.place, Place::Simulated(_)) { 115 } else { 100 };
        match self.rng.random_range(0..kinds) {
            0..40 => assert!(self.batch().is_none(), "no fault, no failure"),
            40..60 => self.take(),
            60..80 => self.receive(),
            80..86 => self.release(),
            86..88 => self.abandon(),
            88..91 => {
                self.outbox.release_all();
                self.model.items.values_mut().for_each(|entry| entry.in_flight = false);
            }
            91..96 => self.outbox.recover().unwrap(),
            96..98 => {
                self.outbox.mark_backlog();
                self.model.mark_backlog();
            }
            98..100 => self.reopen(),
            100..105 => {
                let kept = self.kept();
                self.disk().cut_power(kept);
                self.crashed(None);
            }
            105..110 => self.cut_in_a_batch(),
            _ => self.fail(),
        }
    }

    fn disk(&self) -> &SimDisk {
        match &self.place {
            Place::Simulated(disk) => disk,
            Place::Directory(_) => panic!("only the simulated disk is cut off from power"),
        }
    }

    fn kept(&mut self) -> Kept {
        let first = self.rng.random_range(0..12);
        *[Kept::Nothing, Kept::Everything, Kept::Random, Kept::First(first)].iter().choose(&mut self.rng).unwrap()
    }

    fn cut_in_a_batch(&mut self) {
        let (operations, kept) = (self.rng.random_range(1..40), self.kept());
        let before = self.disk().counts().cuts;
        self.disk().cut_power_in(operations, kept);
        let undecided = self.batch();
        if self.disk().counts().cuts == before {
            assert!(undecided.is_none(), "without a cut the commit is decided");
            self.disk().cut_power(kept);
        }
        self.crashed(undecided);
    }

    /// Starts again after a crash. `undecided`: the model as it is if the batch that was being committed is found.
    fn crashed(&mut self, undecided: Option<Model>) {
        self.outbox = Outbox::open(options(&self.place)).unwrap();
        self.found(undecided);
        self.model.items.values_mut().for_each(|entry| entry.in_flight = false);
        self.model.mark_backlog();
    }

    fn fail(&mut self) {
        let fault =
            [Fault::Full, Fault::ReadOnly, Fault::WriteError, Fault::SyncError].into_iter().choose(&mut self.rng);
        let operations = self.rng.random_range(1..12);
        self.disk().set_fault_in(operations, fault.unwrap());
        let mut undecided = None;
        for _ in 0..20 {
            undecided = self.batch();
            if undecided.is_some() || self.outbox.health() != Health::Ok {
                break;
            }
        }
        if self.outbox.health() != Health::Ok {
            assert!(matches!(
                self.outbox.batch().append(Lane::Fire, "x", 0, |_| vec![]),
                Err(OutboxError::Poisoned { .. })
            ));
            assert!(matches!(self.outbox.received(&["x"], 0), Err(OutboxError::Poisoned { .. })));
            assert!(self.outbox.recover().is_err(), "the fault stands");
        }
        self.disk().set_fault(None);
        // A plan that no batch reached must not strike later.
        self.disk().set_fault_in(u64::MAX, Fault::Full);
        self.outbox.recover().unwrap();
        self.found(undecided);
    }

    /// Makes the model what was found: the batch whole or not at all, unsynced receipts or none.
    fn found(&mut self, undecided: Option<Model>) {
        if let Some(after) = undecided {
            let stored = |(key, entry): (&ItemKey, &Entry)| {
                !self.model.items.contains_key(key) && self.outbox.lookup(&entry.id).unwrap().is_some()
            };
            let head = self.outbox.head();
            let ends_so = (head.sequence, head.hash) == (after.sequence, after.hash);
            let holds_so = self.outbox.scan(b"").unwrap() == after.state.clone().into_iter().collect::<Vec<_>>();
            let is_new = after.items.len() > self.model.items.len();
            if ends_so && holds_so && (!is_new || after.items.iter().any(stored)) {
                self.model = after;
            }
        }
        for key in std::mem::take(&mut self.unsynced) {
            let entry = self.model.items.get_mut(&key).unwrap();
            if self.outbox.lookup(&entry.id).unwrap().is_some_and(|at| at.outcome == Outcome::Pending) {
                entry.outcome = Outcome::Pending;
            }
        }
        self.oldest_kept = self.outbox.stats().oldest_kept_sequence.min(self.oldest_kept);
    }

    fn reopen(&mut self) {
        // The old handle must be closed before the directory can be opened again.
        let spare = TempDir::new().unwrap();
        self.outbox = Outbox::open(Options::new(spare.path())).unwrap();
        self.outbox = Outbox::open(options(&self.place)).unwrap();
        self.model.items.values_mut().for_each(|entry| entry.in_flight = false);
        self.model.mark_backlog();
    }

    /// Gives back the model after the batch when it is open whether it was stored.
    fn batch(&mut self) -> Option<Model> {
        let outbox = self.outbox.clone();
        let mut batch = outbox.batch();
        let mut after = self.model.clone();
        for _ in 0..self.rng.random_range(1..6) {
            match self.rng.random_range(0..10) {
                0..6 => self.append(&mut batch, &mut after),
                6..8 => self.attach(&mut batch, &mut after),
                8 => {
                    let key = vec![b'a' + self.rng.random_range(0..4)];
                    let length = *[0, 10, 4_095, 4_096, 9_000].iter().choose(&mut self.rng).unwrap();
                    let value = self.bytes(length);
                    batch.put(&key, &value);
                    after.state.insert(key, value);
                }
                _ => {
                    let key = vec![b'a' + self.rng.random_range(0..4)];
                    batch.delete(&key);
                    after.state.remove(&key);
                }
            }
        }
        if self.rng.random_bool(0.8) {
            let committed = if self.rng.random_bool(0.5) { batch.commit() } else { batch.commit_at_once() };
            match committed {
                Ok(_) => {
                    self.model = after;
                    self.unsynced.clear();
                    self.upkeep();
                }
                Err(fault) => {
                    assert!(matches!(self.place, Place::Simulated(_)), "{fault}");
                    return Some(after);
                }
            }
        }
        None
    }

    /// Some steps of what commits left to be done; it may stop anywhere.
    fn upkeep(&mut self) {
        for _ in 0..self.rng.random_range(0..4) {
            match self.outbox.upkeep() {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => {
                    assert!(matches!(self.place, Place::Simulated(_)), "{fault}");
                    break;
                }
            }
        }
    }

    fn append(&mut self, batch: &mut Batch<'_>, after: &mut Model) {
        let (lane, id, length) = (self.lane(), self.id(), self.length());
        let group = self.rng.random_range(0..4);
        let mut bytes = self.bytes(length);
        let appended = batch
            .append_grouped(lane, group, &id, 0, |position| {
                assert_eq!((position.sequence, position.prev_hash), (after.sequence + 1, after.hash));
                bytes.extend_from_slice(&position.prev_hash);
                bytes.clone()
            })
            .unwrap();
        after.sequence += 1;
        after.hash = Sha256::digest(&bytes).into();
        assert_eq!((appended.sequence, appended.hash), (after.sequence, after.hash));
        after.add(appended.key, id, group, bytes, &options(&self.place).bounds);
    }

    fn attach(&mut self, batch: &mut Batch<'_>, after: &mut Model) {
        let (lane, id, length) = (self.lane(), self.id(), self.length());
        let bytes = self.bytes(length);
        let key = batch.attach(lane, &id, 0, &bytes).unwrap();
        after.add(key, id, 0, bytes, &options(&self.place).bounds);
    }

    fn take(&mut self) {
        let limit = self.rng.random_range(1..8);
        let with_backlog = self.rng.random_bool(0.8);
        let expected = self.model.take(limit, with_backlog);
        let expected: Vec<_> = expected.iter().map(|key| (*key, self.model.items[key].bytes.clone())).collect();
        let items = if with_backlog { self.outbox.take(limit) } else { self.outbox.take_live(limit) }.unwrap();
        assert!(items.iter().all(|item| item.is_backlog == self.model.backlog.contains(&item.key)));
        assert_eq!(items.into_iter().map(|item| (item.key, item.bytes)).collect::<Vec<_>>(), expected);
    }

    fn receive(&mut self) {
        for _ in 0..self.rng.random_range(1..6) {
            let Some((key, entry)) = self.model.items.iter_mut().choose(&mut self.rng) else { return };
            let known = self.outbox.lookup(&entry.id).unwrap().is_some();
            let answer = self.outbox.received(&[&entry.id], 1).unwrap()[0].receipt;
            match entry.outcome {
                Outcome::Pending => assert_eq!(answer, Receipt::First(*key)),
                Outcome::Received if known => assert_eq!(answer, Receipt::Repeated(*key)),
                Outcome::Dropped | Outcome::Abandoned if known => assert_eq!(answer, Receipt::AfterDrop(*key)),
                _ => assert_eq!(answer, Receipt::Unknown),
            }
            if entry.outcome == Outcome::Pending {
                entry.outcome = Outcome::Received;
                entry.in_flight = false;
                self.unsynced.insert(*key);
            }
        }
        assert_eq!(self.outbox.received(&["nobody"], 1).unwrap()[0].receipt, Receipt::Unknown);
    }

    fn abandon(&mut self) {
        let Some((key, entry)) = self.model.items.iter_mut().choose(&mut self.rng) else { return };
        let was_pending = entry.outcome == Outcome::Pending;
        assert_eq!(self.outbox.abandon(*key, "its file is gone", 2).unwrap(), was_pending);
        if was_pending {
            (entry.outcome, entry.in_flight) = (Outcome::Abandoned, false);
            self.unsynced.insert(*key);
            let told = self.outbox.trace(&entry.id).unwrap().and_then(|trace| trace.abandoned_because);
            assert!(told.is_none_or(|why| why == "its file is gone"));
        }
    }

    fn release(&mut self) {
        let Some((key, entry)) = self.model.items.iter_mut().choose(&mut self.rng) else { return };
        self.outbox.release(*key);
        entry.in_flight = false;
    }

    fn compare(&mut self) {
        let stats = self.outbox.stats();
        for lane in stats.lanes {
            let pending = self.model.pending(lane.lane).count() as u64;
            let in_flight = self.model.pending(lane.lane).filter(|(_, entry)| entry.in_flight).count() as u64;
            let dropped = self.model.dropped[lane.lane.index()];
            assert_eq!((lane.pending, lane.in_flight, lane.dropped), (pending, in_flight, dropped), "{}", lane.lane);
            let abandoned =
                |(key, entry): &(&ItemKey, &Entry)| key.lane() == lane.lane && entry.outcome == Outcome::Abandoned;
            assert_eq!(lane.abandoned, self.model.items.iter().filter(abandoned).count() as u64);
        }
        assert_eq!((stats.head.sequence, stats.head.hash), (self.model.sequence, self.model.hash));
        assert_eq!(self.outbox.scan(b"").unwrap(), self.model.state.clone().into_iter().collect::<Vec<_>>());
        assert!(stats.oldest_kept_sequence >= self.oldest_kept);
        self.oldest_kept = stats.oldest_kept_sequence;
        let report = self.outbox.verify().unwrap();
        assert_eq!(report.faults, []);
        assert_eq!(report.records, self.model.sequence + 1 - self.oldest_kept);
        for (key, entry) in &self.model.items {
            let found = self.outbox.lookup(&entry.id).unwrap();
            let kept = key.sequence().is_some_and(|sequence| sequence >= self.oldest_kept);
            if entry.outcome == Outcome::Pending || kept {
                assert_eq!(found.map(|at| (at.key, at.outcome)), Some((*key, entry.outcome)), "{}", entry.id);
                assert_eq!(self.outbox.trace(&entry.id).unwrap().unwrap().bytes, entry.bytes);
            }
        }
    }

    /// More settled events than the keep are pruned by and by, and pending ones are all there afterwards.
    fn finish(&mut self) {
        for number in 0..60 {
            let mut batch = self.outbox.batch();
            batch.put(b"z", &[number]);
            batch.commit().unwrap();
        }
        self.model.state.insert(b"z".to_vec(), vec![59]);
        self.compare();
        let settled = |record: &gengfu_outbox::JournalRecord| {
            self.outbox.lookup(&record.id).unwrap().unwrap().outcome != Outcome::Pending
        };
        let kept = self.outbox.journal(1, usize::MAX).unwrap().iter().filter(|record| settled(record)).count();
        assert!(kept as u64 <= KEEP, "{kept} settled events kept");
        self.outbox.release_all();
        let all: BTreeSet<ItemKey> = self.outbox.take(usize::MAX).unwrap().iter().map(|item| item.key).collect();
        let expected = Lane::ALL.iter().flat_map(|lane| self.model.pending(*lane).map(|(key, _)| *key));
        assert_eq!(all, expected.collect::<BTreeSet<_>>());
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("id-{}", self.next_id)
    }

    fn lane(&mut self) -> Lane {
        Lane::ALL[self.rng.random_range(0..7)]
    }

    fn length(&mut self) -> usize {
        if self.rng.random_bool(0.1) { self.rng.random_range(3_900..20_000) } else { self.rng.random_range(0..600) }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.random()).collect()
    }
}

fn replay(seed: u64, place: Place, actions: u32) {
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut run = Run::new(seed, place);
        for _ in 0..actions {
            run.act();
            run.compare();
        }
        run.finish();
    }));
    if let Err(panic) = ended {
        eprintln!("the model and the outbox differ; replay with GENGFU_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

fn replay_many(runs: &str, default: u32, actions: u32, place: impl Fn(u64) -> Place) {
    if let Some(seed) = std::env::var("GENGFU_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return replay(seed, place(seed), actions);
    }
    FAILED_ONCE.iter().for_each(|seed| replay(*seed, place(*seed), actions));
    let runs = std::env::var(runs).ok().and_then(|runs| runs.parse().ok()).unwrap_or(default);
    for _ in 0..runs {
        let seed = rand::random();
        replay(seed, place(seed), actions);
    }
}

#[test]
fn whatever_is_done_the_outbox_does_what_the_model_does() {
    replay_many("GENGFU_MODEL_RUNS", 6, 150, |_| Place::Directory(TempDir::new().unwrap()));
}

#[test]
fn whatever_the_disk_does_the_outbox_does_what_the_model_does() {
    replay_many("GENGFU_SIM_RUNS", 200, 120, |seed| Place::Simulated(SimDisk::new(seed)));
}
