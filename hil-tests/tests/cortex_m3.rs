//! Goal: the node's image for a microcontroller keeps the promises of docs/wire-protocol.md on its own processor: every event it was
//! acknowledged for is on the gateway's disk, once and in order, and what is lost is told.
//! Method: the release image in QEMU with its pins driven from outside, the gateway's real link on the other end of a cable, and a disk
//! that survives the gateway. At the end of each scenario an account is made of what the node was told and what the disk has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gengfu::clock::{Clock, SystemClock};
use gengfu::config::DeviceClass;
use gengfu::link::{LinkBatch, LinkStats, NodeConfig, PortConfig, PortEnds, run};
use gengfu_alarm::Observation;
use gengfu_alarm::observation::{Link, Smoke, What};
use gengfu_node_linux::wire::{Ack, Assign, Configure, Downlink, Event, EventKind, Hello, Poll, Uid, Uplink};
use hil_tests::desk::slug;
use hil_tests::node::seed;
use hil_tests::process::eventually;
use hil_tests::qemu::{self, Chip, Line};
use hil_tests::skip;
use hil_tests::{Result, RigError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Everything here takes well under a second; the rest is room for a loaded machine.
const SOON: Duration = Duration::from_secs(30);
/// RAM that must never have been used, in bytes: the stack's reserve.
const RESERVE_BYTES: usize = 256;

type Scenario = fn() -> Result<()>;

fn main() -> ExitCode {
    let scenarios: [(&str, Scenario); 8] = [
        ("w20_cortex_m3_every_line_of_the_board_arrives_once", every_line),
        ("w23_cortex_m3_reset_in_a_burst_loses_nothing_untold", reset_in_a_burst),
        ("w19_cortex_m3_gateway_killed_between_disk_and_ack", gateway_killed),
        ("w15_cortex_m3_cut_cable_and_full_outbox", cut_cable),
        ("w11_cortex_m3_each_boot_has_an_id_of_its_own", boots_differ),
        ("w30_cortex_m3_on_a_bus_speaks_when_polled_and_keeps_its_address", on_a_bus),
        ("cortex_m3_tells_heat_and_a_thermometer_that_is_gone", heat),
        ("cortex_m3_restarts_when_it_hangs_or_fails_and_says_so", restarts),
    ];
    skip::main(scenarios.into_iter().map(|(name, body)| skip::test(name, qemu::needs(), body)).collect())
}

/// What survives a gateway.
#[derive(Default)]
struct Disk {
    journal: Vec<Observation>,
    cursor: Option<Vec<u8>>,
    mood: Mood,
}

/// What the disk does with the next batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Store,
    Refuse,
    /// Stores, and the answer never comes: the gateway dies in between.
    StoreAndDie,
}

/// A chip, a gateway, its disk.
struct Bench {
    chip: Chip,
    gateway: Option<Gateway>,
    disk: Arc<Mutex<Disk>>,
    runtime: Runtime,
    _dir: TempDir,
}

struct Gateway {
    link: JoinHandle<()>,
    decider: JoinHandle<()>,
    stats: watch::Receiver<LinkStats>,
}

impl Bench {
    fn new() -> Result<Self> {
        let failed = |e: std::io::Error| RigError::failed("set up the bench", e);
        let dir = tempfile::tempdir().map_err(failed)?;
        let runtime = Runtime::new().map_err(failed)?;
        let chip = Chip::boot(dir.path(), [0x02, 0x47, 0x46, 0, 0, 7])?;
        let mut bench = Self { chip, gateway: None, disk: Arc::default(), runtime, _dir: dir };
        bench.start_gateway()?;
        bench.awake()?;
        Ok(bench)
    }

    fn start_gateway(&mut self) -> Result<()> {
        let classes = [
            ("door", DeviceClass::Door),
            ("smoke", DeviceClass::Smoke),
            ("sos", DeviceClass::Sos),
            ("heat", DeviceClass::Smoke),
        ];
        let mut channels = BTreeMap::new();
        for (channel, (name, class)) in (1..).zip(classes) {
            channels.insert(channel, (slug(name)?, class));
        }
        let config = link_config(&self.chip.port(), self.chip.uid(), channels)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (stats_in, stats) = watch::channel(LinkStats::starting(&config, &config.nodes()[0], clock.now()));
        let (observed, batches) = mpsc::channel(4);
        let saved = vec![self.disk().cursor.clone()];
        let (_, commands) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let ends = PortEnds { saved, clock, observed, stats: vec![stats_in], commands, stop };
        let link = self.runtime.spawn(run(config, ends));
        let decider = self.runtime.spawn(decide(batches, self.disk.clone()));
        self.gateway = Some(Gateway { link, decider, stats });
        Ok(())
    }

    /// As kill -9: nothing is said or stored any more.
    fn kill_gateway(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.link.abort();
            gateway.decider.abort();
            // Both end by being aborted.
            let _ = self.runtime.block_on(async { (gateway.link.await, gateway.decider.await) });
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_mood(&self, mood: Mood) {
        self.disk().mood = mood;
    }

    /// How often this was seen.
    fn count(&self, what: &What) -> usize {
        self.disk().journal.iter().filter(|it| it.what == *what).count()
    }

    /// Makes a line's thing so, or not, and waits until the disk has seen this, one time more than before.
    fn act(&mut self, line: Line, open: bool, what: &What) -> Result<()> {
        let before = self.count(what);
        self.chip.set(line, open)?;
        eventually(&format!("{line:?} {open} is {what:?}"), SOON, || {
            if self.count(what) > before { Ok(()) } else { Err(self.view()) }
        })
    }

    /// The disk has this.
    fn until(&self, name: &str, fits: impl Fn(&Observation) -> bool) -> Result<()> {
        eventually(name, SOON, || {
            let is_there = self.disk().journal.iter().any(&fits);
            if is_there { Ok(()) } else { Err(self.view()) }
        })
    }

    /// Asks the node who it is. It answers also into a cut cable.
    fn hello(&self) -> Result<Hello> {
        let hellos = || {
            let said = self.chip.cable().said();
            said.into_iter()
                .filter_map(|it| if let Uplink::Hello(hello) = it { Some(hello) } else { None })
                .collect::<Vec<_>>()
        };
        let before = hellos().len();
        self.chip.cable().whisper(Downlink::Identify);
        eventually("the node says Hello", SOON, || match hellos().split_off(before).pop() {
            Some(hello) => Ok(hello),
            None => Err("silence".into()),
        })
    }

    /// Waits until the node knows how its lines stand. What is found at boot is a level; from then on each change is an event.
    fn awake(&self) -> Result<()> {
        let boot = self.hello()?.boot;
        eventually("the node tells the level of all three channels", SOON, || {
            let said = self.chip.cable().said();
            let is_whole =
                |it: &Uplink| matches!(it, Uplink::Heartbeat(beat) if beat.boot == boot && beat.levels.len() == 3);
            if said.iter().any(is_whole) { Ok(()) } else { Err(format!("{said:?}")) }
        })
    }

    /// Makes a line's thing so, or not, and waits until the node has numbered the event, whoever hears it.
    fn accept(&mut self, line: Line, open: bool) -> Result<()> {
        let before = self.hello()?;
        self.chip.set(line, open)?;
        eventually(&format!("the node has numbered {line:?} {open}"), SOON, || {
            let now = self.hello().map_err(|e| e.to_string())?;
            if now.next_sequence > before.next_sequence { Ok(()) } else { Err(format!("{now:?}")) }
        })
    }

    /// Waits until the node was acknowledged for everything it has.
    fn settle(&self) -> Result<()> {
        eventually("everything is acknowledged", SOON, || {
            let hello = self.hello().map_err(|e| e.to_string())?;
            if hello.unacked_from == hello.next_sequence { Ok(()) } else { Err(format!("{hello:?}\n{}", self.view())) }
        })
    }

    /// Each event is on the disk at most once and in order; what the node was acknowledged for is there, or its loss is.
    fn account(&self) -> Account {
        let disk = self.disk();
        let mut account = Account::default();
        for seen in &disk.journal {
            let Some(origin) = &seen.origin else { continue };
            let (first, count) = match seen.what {
                What::EventsLost { first, count } => (first, count),
                _ => (origin.sequence, 1),
            };
            let is_loss = matches!(seen.what, What::EventsLost { .. });
            let boot = account.boots.entry(origin.boot).or_default();
            for number in first..first + count {
                assert!(
                    boot.taken.last().is_none_or(|last| *last < number),
                    "{number} out of order or twice: {seen:?}"
                );
                boot.taken.insert(number);
                boot.lost += usize::from(is_loss);
            }
        }
        for told in self.chip.cable().told() {
            if let Downlink::Ack(ack) = told {
                let boot = account.boots.entry(ack.boot).or_default();
                let missing: Vec<u32> = (1..=ack.through).filter(|number| !boot.taken.contains(number)).collect();
                assert!(
                    missing.is_empty(),
                    "acknowledged and neither on the disk nor told as lost: {missing:?} of {:08x}",
                    ack.boot
                );
                boot.acked = boot.acked.max(ack.through);
            }
        }
        account
    }

    /// For a failure message.
    fn view(&self) -> String {
        let stats = self.gateway.as_ref().map(|gateway| format!("{:#?}", *gateway.stats.borrow()));
        format!("journal {:#?}\n{}", self.disk().journal, stats.unwrap_or_default())
    }

    fn stack_has_a_reserve(&mut self) -> Result<()> {
        let untouched = self.chip.untouched_ram()?;
        println!("{untouched} of {} bytes of RAM were never used", qemu::RAM_BYTES);
        assert!(untouched >= RESERVE_BYTES, "the stack came within {untouched} bytes of the variables");
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill_gateway();
    }
}

#[derive(Debug, Default)]
struct Account {
    boots: BTreeMap<u32, Boot>,
}

#[derive(Debug, Default)]
struct Boot {
    /// Numbers that came, or whose loss was told.
    taken: BTreeSet<u32>,
    lost: usize,
    acked: u32,
}

fn link_config(
    port: &Path,
    uid: u64,
    channels: BTreeMap<u8, (gengfu_contract::slug::Slug, DeviceClass)>,
) -> Result<PortConfig> {
    let node = NodeConfig {
        node: slug("node")?,
        address: 0,
        expected_uid: Some(uid),
        silence: Duration::from_secs(3),
        heartbeat_ms: None,
        debounce_ms: None,
        channels,
    };
    Ok(PortConfig::point_to_point(port.to_owned(), 115_200, node))
}

/// The decider: one batch after the other onto the disk, observations and cursor together.
async fn decide(mut batches: mpsc::Receiver<LinkBatch>, disk: Arc<Mutex<Disk>>) {
    let mut unanswered: Vec<oneshot::Sender<_>> = Vec::new();
    while let Some(batch) = batches.recv().await {
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.mood == Mood::Refuse {
            // It fails only if the link has ended meanwhile.
            let _ = batch.done.send(Err("the disk is full".into()));
            continue;
        }
        disk.journal.extend(batch.observations);
        disk.cursor = Some(batch.cursor.1);
        match disk.mood {
            Mood::StoreAndDie => unanswered.push(batch.done),
            Mood::Store | Mood::Refuse => drop(batch.done.send(Ok(()))),
        }
    }
}

const fn door(open: bool) -> What {
    What::Door { open, repaired: false }
}

fn every_line() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.until("the link is up", |it| it.what == What::Link(Link::Up))?;
    bench.until("the door is known to be closed", |it| matches!(it.what, What::Door { open: false, .. }))?;
    for (line, open, what) in [
        (Line::Door, true, door(true)),
        (Line::Smoke, true, What::Smoke(Smoke::Alarm)),
        (Line::Door, false, door(false)),
        (Line::Smoke, false, What::Smoke(Smoke::Clear)),
        (Line::SmokeTest, true, What::Smoke(Smoke::Test)),
        (Line::SmokeTest, false, What::Smoke(Smoke::Clear)),
        (Line::SmokeHush, true, What::Smoke(Smoke::Hushed)),
        (Line::SmokeHush, false, What::Smoke(Smoke::Clear)),
        (Line::Sos, true, What::SosPressed),
        (Line::Tamper, true, What::Tamper(true)),
        (Line::Tamper, false, What::Tamper(false)),
        (Line::SmokeFault, true, What::DeviceFault(true)),
        (Line::SmokeFault, false, What::DeviceFault(false)),
    ] {
        bench.act(line, open, &what)?;
    }
    bench.settle()?;
    let account = bench.account();
    let boot = account.boots.values().next().map(|boot| (boot.taken.len(), boot.lost, boot.acked));
    assert_eq!((account.boots.len(), boot), (1, Some((13, 0, 13))), "{account:?}");
    let battery = bench.chip.cable().said().into_iter().rev().find_map(|it| match it {
        Uplink::Heartbeat(heartbeat) => heartbeat.battery,
        _ => None,
    });
    // The emulated converter gives 512 to 519 of 1,024 codes of 6 V.
    assert!(battery.is_some_and(|it| (3_000..=3_041).contains(&it.millivolts) && !it.low), "{battery:?}");
    bench.stack_has_a_reserve()
}

/// Random bursts, some while the disk refuses, and the reset button in the middle of each.
fn reset_in_a_burst() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut random = StdRng::seed_from_u64(seed());
    let lines = [Line::Door, Line::Smoke, Line::Tamper, Line::Sos];
    let mut open = [false; 4];
    let mut boots = Vec::new();
    for round in 0..6 {
        bench.set_mood(if round % 2 == 0 { Mood::Refuse } else { Mood::Store });
        for _ in 0..random.random_range(1..8) {
            let n = random.random_range(0..lines.len());
            // Letting the button go is no event to wait for: it stays down, and each boot tells it once.
            if lines[n] == Line::Sos && open[n] {
                continue;
            }
            open[n] = !open[n];
            bench.accept(lines[n], open[n])?;
        }
        let before = bench.hello()?;
        boots.push((before.boot, before.next_sequence - 1));
        bench.chip.reset()?;
        bench.set_mood(Mood::Store);
        let after = bench.hello()?;
        assert_ne!(before.boot, after.boot);
        bench.awake()?;
        bench.settle()?;
    }
    let account = bench.account();
    for (boot, last) in boots {
        let taken = account.boots.get(&boot).map_or(0, |it| it.taken.len());
        assert_eq!(
            taken, last as usize,
            "boot {boot:08x} numbered {last}, and so many came or were told as lost: {account:?}"
        );
    }
    let lost: usize = account.boots.values().map(|boot| boot.lost).sum();
    assert!(lost > 0, "a reset before the disk had anything must lose something: {account:?}");
    println!("{} boots, {lost} events told as lost", account.boots.len());
    bench.stack_has_a_reserve()
}

/// The gateway dies with the event on its disk and the Ack not sent, or before it has anything on its disk.
fn gateway_killed() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.until("the link is up", |it| it.what == What::Link(Link::Up))?;
    for round in 0..6 {
        let open = round % 2 == 0;
        let number = round + 1;
        bench.settle()?;
        bench.set_mood(if round % 3 == 2 { Mood::Refuse } else { Mood::StoreAndDie });
        bench.accept(Line::Door, open)?;
        if round % 3 != 2 {
            bench.until("the disk has it", |it| it.origin.as_ref().is_some_and(|origin| origin.sequence == number))?;
        }
        let hello = bench.hello()?;
        assert_eq!((hello.unacked_from, hello.next_sequence), (number, number + 1), "not acknowledged: {hello:?}");
        bench.kill_gateway();
        bench.set_mood(Mood::Store);
        bench.start_gateway()?;
    }
    bench.settle()?;
    let account = bench.account();
    let boot = account.boots.values().next().map(|boot| (boot.taken.len(), boot.lost, boot.acked));
    assert_eq!((account.boots.len(), boot), (1, Some((6, 0, 6))), "{account:?}");
    Ok(())
}

/// A cut cable, smoke first and then a door that goes more often than the outbox has room.
fn cut_cable() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.until("the link is up", |it| it.what == What::Link(Link::Up))?;
    bench.chip.cable().cut(true);
    bench.accept(Line::Smoke, true)?;
    let doors = 70;
    for n in 0..doors {
        bench.accept(Line::Door, n % 2 == 0)?;
    }
    bench.until("the silence is told", |it| matches!(it.what, What::Link(Link::Down(_))))?;
    bench.chip.cable().cut(false);
    bench.settle()?;
    let account = bench.account();
    let boot = account.boots.values().next().map(|boot| (boot.taken.len(), boot.lost, boot.acked));
    // 71 events, room for 64; the seven oldest of the door go, the smoke stays.
    assert_eq!((account.boots.len(), boot), (1, Some((71, 7, 71))), "{account:?}");
    assert_eq!(bench.count(&What::Smoke(Smoke::Alarm)), 1);
    assert_eq!(bench.count(&What::EventsLost { first: 2, count: 7 }), 1, "{}", bench.view());
    bench.stack_has_a_reserve()
}

/// Reset and power: each boot counts on, the EEPROM remembers.
fn boots_differ() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut seen = BTreeSet::new();
    for round in 0..8 {
        let hello = bench.hello()?;
        assert_eq!(hello.uid.0, bench.chip.uid().to_be_bytes());
        assert!(seen.insert(hello.boot), "boot {:08x} came twice", hello.boot);
        if round % 2 == 0 { bench.chip.reset()? } else { bench.chip.power_cycle()? }
    }
    let told = |bench: &Bench| {
        let said = bench.chip.cable().said();
        said.into_iter().find_map(|it| if let Uplink::Log(log) = it { Some(log.text.to_string()) } else { None })
    };
    assert_eq!(told(&bench), None, "nothing is wrong with the boot counter");
    // Without its EEPROM a node counts in RAM for as long as it has power, and says so.
    bench.chip.lose_eeprom()?;
    for _ in 0..4 {
        let boot = bench.hello()?.boot;
        assert!(seen.insert(boot), "boot {boot:08x} came twice");
        bench.chip.reset()?;
    }
    let line = eventually("the node says what it lacks", SOON, || told(&bench).ok_or_else(|| "no line".to_owned()))?;
    assert!(line.contains("no EEPROM"), "{line}");
    Ok(())
}

/// The node on a bus, with a rig that polls it. Everything it says stands between a poll and its `Done`.
fn on_a_bus() -> Result<()> {
    const ADDRESS: u8 = 17;
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("set up the bench", e))?;
    let mut chip = Chip::boot(dir.path(), [0x02, 0x47, 0x46, 0, 0, 9])?;
    chip.set(Line::Bus, true)?;
    chip.power_cycle()?;
    chip.cable().forget();
    // Sixteen frames that only a node with an address, or one that is alone, would answer.
    for address in [0, ADDRESS] {
        for _ in 0..8 {
            chip.cable().whisper_to(address, Downlink::Poll(Poll { frames: 8 }));
        }
    }
    let uid = Uid(chip.uid().to_be_bytes());
    chip.cable().whisper(Downlink::Assign(Assign { uid: Uid([7; 8]), address: 3 }));
    chip.cable().whisper(Downlink::Assign(Assign { uid, address: ADDRESS }));
    // Each second a heartbeat is due: it must wait for a poll, too.
    chip.cable().whisper(Downlink::Configure(Configure { heartbeat_ms: 1_000, debounce_ms: 20 }));
    let mut polls = 0;
    let first = polled(&chip, ADDRESS, &mut polls)?;
    assert!(matches!(first[0], Uplink::Hello(hello) if hello.uid == uid), "{first:?}");
    chip.set(Line::Smoke, true)?;
    let (mut smoke, mut beats) = (0, 0);
    eventually("smoke and three heartbeats come within polls", SOON, || {
        for said in polled(&chip, ADDRESS, &mut polls).map_err(|e| e.to_string())? {
            match said {
                Uplink::Event(Event { boot, sequence, kind: EventKind::SmokeAlarm, .. }) => {
                    smoke += 1;
                    chip.cable().whisper_to(ADDRESS, Downlink::Ack(Ack { boot, through: sequence }));
                }
                Uplink::Heartbeat(_) => beats += 1,
                _ => {}
            }
        }
        if smoke > 0 && beats > 2 { Ok(()) } else { Err(format!("{smoke} smoke, {beats} heartbeats")) }
    })?;
    assert_eq!(smoke, 1, "acknowledged is acknowledged");
    chip.power_cycle()?;
    chip.cable().forget();
    let again = polled(&chip, ADDRESS, &mut 0)?;
    assert!(matches!(again[0], Uplink::Hello(_)), "its address survives the power: {again:?}");
    Ok(())
}

/// Polls until the node answers; gives what it said before its `Done`. All it ever said must be answers: as many `Done` as polls that were heard.
fn polled(chip: &Chip, address: u8, polls: &mut usize) -> Result<Vec<Uplink>> {
    let before = chip.cable().said().len();
    let answered = |said: &[Uplink]| said.iter().filter(|it| matches!(it, Uplink::Done(_))).count();
    assert_eq!(answered(&chip.cable().said()), *polls);
    assert!(matches!(chip.cable().said().last(), None | Some(Uplink::Done(_))), "it spoke unasked");
    chip.cable().whisper_to(address, Downlink::Poll(Poll { frames: 8 }));
    *polls += 1;
    eventually("the node answers its poll", SOON, || {
        let said = chip.cable().said();
        if answered(&said) == *polls { Ok(said[before..said.len() - 1].to_vec()) } else { Err(format!("{said:?}")) }
    })
}

/// A thermometer that was fitted once: heat is an alarm of its channel, and its absence a fault, also over a restart.
fn heat() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.chip.fit_thermometer(true)?;
    bench.chip.set_temperature(21_500)?;
    let boot = bench.hello()?.boot;
    let level = |bench: &Bench, boot: u32| {
        let said = bench.chip.cable().said();
        let beats = said.into_iter().filter_map(|it| if let Uplink::Heartbeat(beat) = it { Some(beat) } else { None });
        beats.filter(|beat| beat.boot == boot).flat_map(|beat| beat.levels).rfind(|it| it.channel == 4)
    };
    eventually("the detector's level is told", SOON, || {
        level(&bench, boot).map(|_| ()).ok_or_else(|| "no channel 4".to_owned())
    })?;
    let of_heat =
        |what: What| move |it: &Observation| it.what == what && slug("heat").is_ok_and(|heat| it.device == heat);
    bench.chip.set_temperature(70_000)?;
    bench.until("heat is an alarm", of_heat(What::Smoke(Smoke::Alarm)))?;
    bench.chip.set_temperature(21_500)?;
    bench.until("it ends", of_heat(What::Smoke(Smoke::Clear)))?;
    bench.settle()?;
    bench.chip.fit_thermometer(false)?;
    bench.until("it is missed", of_heat(What::DeviceFault(true)))?;
    bench.settle()?;
    bench.account();
    bench.stack_has_a_reserve()
}

/// A clock that stands is the watchdog's; an interrupt that nobody expects leaves a note. Both are a new boot, and life goes on.
fn restarts() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.act(Line::Door, true, &door(true))?;
    let first = bench.hello()?;
    bench.chip.stop_the_clock()?;
    bench.chip.wait_for_reset()?;
    let second = bench.hello()?;
    assert_ne!(first.boot, second.boot);
    bench.chip.pulse_nmi()?;
    bench.chip.wait_for_reset()?;
    let third = bench.hello()?;
    assert_ne!(second.boot, third.boot);
    bench.awake()?;
    let note = eventually("the node says why", SOON, || {
        let said = bench.chip.cable().said();
        let mut logs = said.into_iter().filter_map(|it| if let Uplink::Log(log) = it { Some(log) } else { None });
        logs.next_back().ok_or_else(|| "no line".to_owned())
    })?;
    assert_eq!((note.boot, note.text.as_str()), (third.boot, "unexpected interrupt -14"));
    bench.act(Line::Door, false, &door(false))?;
    bench.settle()?;
    bench.account();
    Ok(())
}
