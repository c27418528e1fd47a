//! Goal: whatever the writer was told is stored is there after a kill, a power cut or a full disk, and the store opens
//! every time. Method: this binary runs itself as a writer that prints each sequence after its commit; the parent kills
//! it, or cuts the power of the loop-mounted ext4 it writes to (`EXT4_IOC_SHUTDOWN` without flushing the journal: what
//! was not synced is gone), mounts again and compares. `GENGFU_POWER_CUTS` and `GENGFU_KILLS` set how many (default 5
//! each), `GENGFU_SEED` replays. Cuts need root and loop devices; without them they are counted as ignored, with the
//! reason. Mounts live in a mount namespace of this process: they vanish with it, whatever happens.
//!
//! What this cannot show: the loss of a disk's own write cache. That `fdatasync` empties it is the kernel's promise.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use gengfu_outbox::{Bounds, Health, Lane, Options, Outbox, OutboxError, Outcome};
use libtest_mimic::{Arguments, Failed, Trial};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

const WRITER: &str = "GENGFU_OUTBOX_WRITER";
/// With it the writer stores a backlog, then receives it without another commit.
const DRAINS: &str = "GENGFU_OUTBOX_DRAINS";
const OWN_MOUNTS: &str = "GENGFU_OUTBOX_OWN_MOUNTS";
const KEEP: u64 = 400;

fn main() -> ExitCode {
    if let Ok(path) = std::env::var(WRITER) {
        let write = if std::env::var(DRAINS).is_ok() { drain_for_ever } else { write_for_ever };
        let Err(end) = write(Path::new(&path));
        eprintln!("the writer ended: {end}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::from_args();
    let missing = missing_for_cuts();
    if missing.is_none() && !arguments.list && std::env::var(OWN_MOUNTS).is_err() {
        // Only returns when it failed; the trials then clean up by themselves, as far as they live.
        let _ = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(std::env::current_exe().unwrap())
            .args(std::env::args_os().skip(1))
            .env(OWN_MOUNTS, "1")
            .exec();
    }
    // CI forbids skipping, so that a missing install step cannot hide.
    let forbidden = std::env::var_os("GENGFU_NO_SKIP").is_some_and(|value| value != "0" && !value.is_empty());
    let needs_loop = |name: &str, test: fn() -> Result<(), Failed>| match missing {
        Some(reason) if forbidden => Trial::test(name, move || {
            Err(format!("would be skipped, because {reason}; GENGFU_NO_SKIP forbids that").into())
        }),
        Some(reason) => {
            eprintln!("{name}: skipped, because {reason}");
            Trial::test(name, test).with_kind(format!("skipped, because {reason}")).with_ignored_flag(true)
        }
        None => Trial::test(name, test),
    };
    let trials = vec![
        Trial::test("after_a_kill_everything_committed_is_there", kills),
        needs_loop("after_a_power_cut_everything_committed_is_there", power_cuts),
        needs_loop("a_power_cut_while_a_backlog_drains_loses_nothing", cuts_while_draining),
        needs_loop("a_full_disk_poisons_it_and_recover_brings_it_back", full_disk),
        needs_loop("a_lost_disk_poisons_it_and_recover_brings_it_back_when_it_is_mounted_again", lost_disk),
        needs_loop("a_read_only_disk_poisons_it_says_what_to_do_and_what_was_stored_is_still_sent", read_only_disk),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn missing_for_cuts() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting a loop device needs root");
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices here");
    }
    let found =
        |tool: &str| ["/sbin", "/usr/sbin", "/bin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(tool).exists());
    (!found("mkfs.ext4")).then_some("mkfs.ext4 is missing; install e2fsprogs")
}

fn count(variable: &str) -> u32 {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(5)
}

fn seed() -> u64 {
    let seed = std::env::var("GENGFU_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("replay with GENGFU_SEED={seed}");
    seed
}

fn options(path: &Path) -> Options {
    let bounds = Bounds::default().with(Lane::Telemetry, 40);
    Options { bounds, journal_keep: KEEP, ..Options::new(path) }
}

// ---- the writer -------------------------------------------------------------------------------------------------

/// Prints `committed <sequence> <hash>` after, and `receiving <id>` before, so that the parent knows at least what was
/// promised and at most what was given up.
fn write_for_ever(path: &Path) -> Result<Infallible, Box<dyn Error>> {
    let outbox = Outbox::open(options(path))?;
    // As the gateway does it: housekeeping beside the commits, on a thread of its own.
    let (due, is_due) = sync_channel(1);
    let theirs = outbox.clone();
    thread::spawn(move || {
        for () in is_due {
            while theirs.upkeep().unwrap_or(false) {}
        }
    });
    let mut rng = StdRng::seed_from_u64(outbox.head().sequence ^ 0x5eed);
    let mut out = std::io::stdout().lock();
    loop {
        let mut batch = outbox.batch();
        let mut last = None;
        for _ in 0..rng.random_range(1..8) {
            let lane = Lane::ALL[rng.random_range(0..7)];
            let length = if rng.random_bool(0.05) { 20_000 } else { rng.random_range(100..2_500) };
            let id = format!("e{}", batch.position().sequence);
            let appended = batch.append(lane, &id, 0, |position| {
                let mut bytes = position.prev_hash.to_vec();
                bytes.resize(length, position.sequence as u8);
                bytes
            })?;
            if rng.random_bool(0.2) {
                batch.attach(Lane::Evidence, &format!("{id}/picture"), 0, &vec![1; length])?;
            }
            last = Some(appended);
        }
        let last = last.ok_or("a batch has an event")?;
        batch.put(b"cursor", &last.sequence.to_be_bytes());
        batch.commit_at_once()?;
        let hash: String = last.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "committed {} {hash} {}", last.sequence, monotonic_ns())?;
        // Full: it is at work.
        let _ = due.try_send(());
        let items = outbox.take(rng.random_range(0..12))?;
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        for id in &ids {
            writeln!(out, "receiving {id}")?;
        }
        outbox.received(&ids, 1)?;
    }
}

/// As [`write_for_ever`], a backlog at a time: receipts alone, without a commit that would sync them, are a long way for
/// sled's log.
fn drain_for_ever(path: &Path) -> Result<Infallible, Box<dyn Error>> {
    let outbox = Outbox::open(options(path))?;
    let mut out = std::io::stdout().lock();
    loop {
        for _ in 0..40 {
            let mut batch = outbox.batch();
            let mut last = None;
            for _ in 0..16 {
                let id = format!("e{}", batch.position().sequence);
                let appended = batch.append(Lane::Fire, &id, 0, |position| {
                    let mut bytes = position.prev_hash.to_vec();
                    bytes.resize(1_500, position.sequence as u8);
                    bytes
                })?;
                last = Some(appended);
            }
            let last = last.ok_or("a batch has an event")?;
            batch.put(b"cursor", &last.sequence.to_be_bytes());
            batch.commit()?;
            let hash: String = last.hash.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(out, "committed {} {hash} {}", last.sequence, monotonic_ns())?;
        }
        loop {
            let items = outbox.take(10)?;
            let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
            for id in &ids {
                writeln!(out, "receiving {id}")?;
            }
            outbox.received(&ids, 1)?;
            if items.is_empty() {
                break;
            }
        }
    }
}

/// The same clock for the writer and its parent.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

struct Writer {
    child: Child,
    lines: Receiver<String>,
}

impl Writer {
    fn start(path: &Path, stderr: Stdio) -> Writer {
        Writer::begin(Command::new(std::env::current_exe().unwrap()).env(WRITER, path).stderr(stderr))
    }

    fn begin(command: &mut Command) -> Writer {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // A parent that stops listening holds the writer up, as a full pipe would.
        let (sender, lines) = sync_channel(1_024);
        let pipe = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Writer { child, lines }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the writers said so far.
#[derive(Default)]
struct Promises {
    committed: BTreeMap<u64, String>,
    /// When the power went, ns. A machine that is off promises nothing: ext4's shutdown lets a sync that meets it in
    /// the wrong moment return without an error (its journal's commit is aborted, and then no longer there to wait for).
    cut_at_ns: Option<u64>,
    /// Promises made after that.
    too_late: u32,
    receiving: BTreeSet<String>,
}

impl Promises {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            // A line cut by the kill has no time, or a shorter one, which is an earlier one.
            (Some("committed"), Some(sequence), Some(hash), Some(at_ns)) if hash.len() == 64 => {
                let at_ns: u64 = at_ns.parse().unwrap_or(0);
                if self.cut_at_ns.is_some_and(|cut_at_ns| at_ns >= cut_at_ns) {
                    self.too_late += 1;
                } else {
                    self.committed.insert(sequence.parse().unwrap(), hash.to_owned());
                }
            }
            (Some("receiving"), Some(id), None, None) => drop(self.receiving.insert(id.to_owned())),
            _ => {}
        }
    }

    /// Listens until the writer has committed some times, then to a random moment shortly after.
    fn hear_until_a_moment(&mut self, writer: &Writer, rng: &mut StdRng) {
        let enough = self.committed.len() + rng.random_range(1..120);
        while self.committed.len() < enough {
            let line = writer.lines.recv_timeout(Duration::from_secs(60)).expect("the writer writes");
            self.hear(&line);
        }
        let moment = Duration::from_micros(rng.random_range(0..6_000));
        let_it_run(moment);
    }

    fn check(&self, path: &Path) {
        let outbox = Outbox::open(options(path)).expect("the store opens every time");
        let report = outbox.verify().unwrap();
        assert_eq!(report.faults, [], "the chain holds");
        let (head, stats) = (outbox.head(), outbox.stats());
        let last = self.committed.keys().next_back().copied().unwrap_or(0);
        assert!(head.sequence >= last, "{last} was committed, the head is {}", head.sequence);
        let cursor = outbox.get(b"cursor").unwrap().map_or(0, |raw| u64::from_be_bytes(raw.try_into().unwrap()));
        assert_eq!(cursor, head.sequence, "state and events are one batch");
        for record in outbox.journal(1, usize::MAX).unwrap() {
            if let Some(hash) = self.committed.get(&record.sequence) {
                let found: String = record.hash.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(&found, hash, "sequence {} is another event now", record.sequence);
            }
        }
        for sequence in 1..=last {
            let id = format!("e{sequence}");
            let outcome = outbox.lookup(&id).unwrap().map(|at| at.outcome);
            let given_up = self.receiving.contains(&id);
            let lane_drops = outcome == Some(Outcome::Dropped);
            let pruned = outcome.is_none() && sequence < stats.oldest_kept_sequence;
            assert!(outcome == Some(Outcome::Pending) || given_up || lane_drops || pruned, "{id} is lost: {outcome:?}");
        }
        let pending: u64 = stats.lanes.iter().map(|lane| lane.pending).sum();
        assert_eq!(outbox.take(usize::MAX).unwrap().len() as u64, pending, "every pending item can be read");
        assert_eq!(stats.damaged, 0);
        assert_eq!(fs::read_dir(path.join("blobs")).unwrap().count(), 0, "sled made no unsynced file");
    }
}

// ---- trials -----------------------------------------------------------------------------------------------------

fn kills() -> Result<(), Failed> {
    let mut rng = StdRng::seed_from_u64(seed());
    let dir = TempDir::new()?;
    let mut promises = Promises::default();
    for _ in 0..count("GENGFU_KILLS") {
        let writer = Writer::start(dir.path(), Stdio::inherit());
        promises.hear_until_a_moment(&writer, &mut rng);
        stop_and_hear_the_rest(writer, &mut promises);
        promises.check(dir.path());
    }
    eprintln!("{} commits promised and kept", promises.committed.len());
    Ok(())
}

fn power_cuts() -> Result<(), Failed> {
    cut_again_and_again(64, |cut, store, promises, rng| {
        // That its disk goes away under it is the trial; it need not say so.
        let mut writer = Writer::start(store, Stdio::null());
        // Some cuts hit a store that is just being created, some one that just recovers from a kill.
        match cut % 4 {
            3 => let_it_run(Duration::from_micros(rng.random_range(0..60_000))),
            2 => {
                promises.hear_until_a_moment(&writer, rng);
                stop_and_hear_the_rest(writer, promises);
                writer = Writer::start(store, Stdio::null());
                let_it_run(Duration::from_micros(rng.random_range(0..60_000)));
            }
            _ => promises.hear_until_a_moment(&writer, rng),
        }
        writer
    })
}

fn cuts_while_draining() -> Result<(), Failed> {
    cut_again_and_again(512, |_, store, promises, rng| {
        let program = std::env::current_exe().unwrap();
        let writer = Writer::begin(Command::new(program).env(WRITER, store).env(DRAINS, "1").stderr(Stdio::null()));
        let received = promises.receiving.len() + rng.random_range(1..600);
        while promises.receiving.len() < received {
            let line = writer.lines.recv_timeout(Duration::from_secs(60)).expect("the writer writes");
            promises.hear(&line);
        }
        writer
    })
}

/// On one disk of so many MiB: lets `begin` run a writer to some moment, cuts the power, mounts again and checks.
fn cut_again_and_again(
    mib: u64,
    mut begin: impl FnMut(u32, &Path, &mut Promises, &mut StdRng) -> Writer,
) -> Result<(), Failed> {
    let mut rng = StdRng::seed_from_u64(seed());
    let disk = Disk::create(mib);
    let mut promises = Promises::default();
    for cut in 0..count("GENGFU_POWER_CUTS") {
        let mount = disk.mount();
        let store = mount.0.join("site/outbox");
        let writer = begin(cut, &store, &mut promises, &mut rng);
        promises.cut_at_ns = Some(monotonic_ns());
        mount.cut_power();
        stop_and_hear_the_rest(writer, &mut promises);
        promises.cut_at_ns = None;
        drop(mount);
        let mount = disk.mount();
        promises.check(&mount.0.join("site/outbox"));
    }
    let (committed, received) = (promises.committed.len(), promises.receiving.len());
    let too_late = promises.too_late;
    eprintln!(
        "{committed} commits promised and kept, {received} items received between them, {too_late} promised while the \
         power went"
    );
    Ok(())
}

/// The one thing a cut at a random moment cannot wait for is an event.
fn let_it_run(moment: Duration) {
    let (_keep, never) = sync_channel::<()>(1);
    let _ = never.recv_timeout(moment);
}

fn stop_and_hear_the_rest(mut writer: Writer, promises: &mut Promises) {
    writer.child.kill().unwrap();
    writer.child.wait().unwrap();
    while let Ok(line) = writer.lines.recv_timeout(Duration::from_secs(60)) {
        promises.hear(&line);
    }
}

fn store(outbox: &Outbox, id: &str, length: usize) -> Result<u64, OutboxError> {
    let mut batch = outbox.batch();
    let appended = batch.append(Lane::Fire, id, 0, |_| vec![7; length])?;
    batch.commit()?;
    Ok(appended.sequence)
}

fn full_disk() -> Result<(), Failed> {
    let disk = Disk::create(16);
    let mount = disk.mount();
    let ballast = ["first", "second", "third"].map(|name| mount.0.join(name));
    for path in &ballast {
        fs::write(path, vec![1; 2 << 20])?;
    }
    let outbox = Outbox::open(options(&mount.0.join("outbox")))?;
    for (round, ballast) in ballast.iter().enumerate() {
        let mut stored = outbox.head().sequence;
        let failure = loop {
            match store(&outbox, &format!("{round}/{stored}"), 30_000) {
                Ok(sequence) => stored = sequence,
                Err(failure) => break failure,
            }
        };
        eprintln!("round {round}: {stored} stored, then: {failure}");
        assert!(matches!(outbox.health(), Health::Poisoned { .. }));
        assert!(matches!(store(&outbox, "refused", 10), Err(OutboxError::Poisoned { .. })));
        assert!(matches!(outbox.received(&["0/0"], 1), Err(OutboxError::Poisoned { .. })));
        assert_eq!(outbox.head().sequence, stored, "nothing that is not on the disk is shown");
        fs::remove_file(ballast)?;
        outbox.recover()?;
        assert_eq!(outbox.health(), Health::Ok);
        assert!(outbox.head().sequence >= stored, "{stored} was committed");
        assert_eq!(outbox.verify()?.faults, []);
        store(&outbox, &format!("after {round}"), 10)?;
    }
    drop(outbox);
    Ok(())
}

fn lost_disk() -> Result<(), Failed> {
    let disk = Disk::create(64);
    let mount = disk.mount();
    let path = mount.0.join("outbox");
    let outbox = Outbox::open(options(&path))?;
    let stored = store(&outbox, "before", 10)?;
    mount.cut_power();
    assert!(store(&outbox, "lost", 10).is_err());
    assert!(matches!(outbox.health(), Health::Poisoned { .. }));
    assert!(outbox.recover().is_err(), "the disk is still away");
    assert!(matches!(outbox.health(), Health::Poisoned { .. }));
    assert!(matches!(store(&outbox, "refused", 10), Err(OutboxError::Poisoned { .. })));
    assert!(outbox.take(1).is_err(), "there is no store to read");
    // Nothing is open there any more, so the disk can be mounted again under the running outbox.
    run(Command::new("umount").arg(&mount.0));
    std::mem::forget(mount);
    let mount = disk.mount();
    outbox.recover()?;
    assert_eq!((outbox.health(), outbox.head().sequence), (Health::Ok, stored));
    store(&outbox, "after", 10)?;
    assert_eq!(outbox.take(9)?.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["before", "after"]);
    assert!(matches!(Outbox::open(options(&path)), Err(OutboxError::InUse { .. })), "it holds the lock again");
    drop(outbox);
    drop(mount);
    Ok(())
}

/// ext4 remounts itself read-only after an error of its own, here one that was asked for.
fn read_only_disk() -> Result<(), Failed> {
    let disk = Disk::create(64);
    let mount = disk.mount_with("loop,errors=remount-ro");
    let path = mount.0.join("outbox");
    let outbox = Outbox::open(options(&path))?;
    let stored = store(&outbox, "before", 10)?;
    let device = fs::read_to_string("/proc/self/mounts")?;
    let device = device.lines().find(|line| line.contains(&*mount.0.to_string_lossy())).ok_or("it is mounted")?;
    let device = device.split(' ').next().and_then(|device| device.strip_prefix("/dev/")).ok_or("it is a device")?;
    fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "the trial's own")?;
    let refused = store(&outbox, "refused", 10).expect_err("the disk takes nothing");
    eprintln!("refused with: {refused}");
    for _ in 0..3 {
        let fault = outbox.recover().expect_err("it is still read-only").to_string();
        assert!(fault.contains("read-only"), "{fault}");
        let Health::Poisoned { reason } = outbox.health() else { return Err("poisoned".into()) };
        assert!(reason.contains("fsck"), "the remedy is told: {reason}");
    }
    assert!(matches!(store(&outbox, "refused", 10), Err(OutboxError::Poisoned { .. })));
    assert_eq!(outbox.take(9)?.len(), 1, "what was stored is still sent");
    drop(outbox);
    drop(mount);
    let mount = disk.mount();
    let outbox = Outbox::open(options(&mount.0.join("outbox")))?;
    assert_eq!(outbox.head().sequence, stored);
    store(&outbox, "after", 10)?;
    drop(outbox);
    drop(mount);
    Ok(())
}

// ---- a disk whose power can be cut --------------------------------------------------------------------------------

struct Disk {
    home: TempDir,
    image: PathBuf,
}

struct Mount(PathBuf);

impl Disk {
    fn create(mib: u64) -> Disk {
        let home = TempDir::new().unwrap();
        let image = home.path().join("disk.img");
        File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        fs::create_dir(home.path().join("mnt")).unwrap();
        Disk { home, image }
    }

    /// Mounts; ext4 replays its journal, as after a cut.
    fn mount(&self) -> Mount {
        self.mount_with("loop")
    }

    fn mount_with(&self, options: &str) -> Mount {
        let at = self.home.path().join("mnt");
        run(Command::new("mount").args(["-o", options]).arg(&self.image).arg(&at));
        Mount(at)
    }
}

impl Mount {
    /// Takes the power: nothing reaches the disk any more, and what was not synced is forgotten.
    fn cut_power(&self) {
        const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(&self.0).unwrap();
        // SAFETY: the opcode is ext4's shutdown, which reads one u32 and keeps no pointer.
        unsafe {
            rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)).unwrap();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).output();
        if !unmounted.is_ok_and(|output| output.status.success()) {
            // Something still holds a file there (a failed trial); detached, it goes with its last file.
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
