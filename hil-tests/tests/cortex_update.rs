//! Goal: on its own processor a node runs only what is signed for it, tries a new image, confirms it when a gateway has acknowledged it, and goes
//! back to the old one by itself (W36, W40, W41).
//! Method: the released boot loader and images in QEMU, put together, signed and cut into slots by `gengfu firmware`. The emulator's flash cannot be
//! written by the program, so what a transfer would have left is flashed from outside (the transfer itself: gateway/gengfu/src/link/update/tests.rs
//! and firmware/node/src/update_tests.rs); the EEPROM with the record is real to the program.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use gengfu::clock::{Clock, SystemClock};
use gengfu::link::bundle::{Bundle, Verified};
use gengfu::link::update::{NodeUpdate, Problem, Stage};
use gengfu::signed::PublicKey;
use gengfu_node_linux::node::slots::{RECORD_BYTES, Record, RecordFault, Records, TRIAL_BOOTS, Trial};
use gengfu_node_linux::wire::{
    Ack, Capabilities, Downlink, EventKind, FirmwareVersion, GaveUp, Hello, Slot, UpdateInfo, UpdateRefusal, Uplink,
};
use hil_tests::process::{eventually, run};
use hil_tests::qemu::{self, Chip, Line};
use hil_tests::{Result, RigError, gateway, skip};
use tempfile::TempDir;

/// Everything here takes well under a second; the rest is room for a loaded machine.
const SOON: Duration = Duration::from_secs(30);
/// Stack that must never have been used, in bytes.
const RESERVE_BYTES: usize = 256;
const MAC: [u8; 6] = [0x02, 0x47, 0x46, 0, 0, 9];
/// The chip's flash map (firmware/node-cortex-m3/src/slots.rs).
const KEYS_AT: u32 = 0x7c00;
const SLOTS_AT: [u32; 2] = [0x8000, 0x14400];
const RECORDS_AT: [usize; 2] = [0x0100, 0x0120];
const BOARD: &str = "1";

type Scenario = fn() -> Result<()>;

fn main() -> ExitCode {
    let scenarios: [(&str, Scenario); 6] = [
        ("w40_cortex_m3_a_signed_image_runs_and_senses", signed_image_runs),
        ("w41_cortex_m3_a_trial_is_confirmed_by_an_ack", trial_is_confirmed),
        ("w41_cortex_m3_an_unconfirmed_trial_gives_way", trial_gives_way),
        ("w40_cortex_m3_nothing_unsigned_or_tampered_runs", tampered_is_refused),
        ("w40_cortex_m3_without_keys_nothing_runs", without_keys),
        ("w42_cortex_m3_a_flash_that_keeps_nothing_is_told", flash_keeps_nothing),
    ];
    skip::main(scenarios.into_iter().map(|(name, body)| skip::test(name, qemu::needs_slots(), body)).collect())
}

/// A chip with a boot loader, and what releases are made with.
struct Bench {
    chip: Chip,
    dir: TempDir,
}

fn failed(doing: &str) -> impl Fn(std::io::Error) -> RigError + '_ {
    move |e| RigError::failed(doing, e)
}

fn firmware(words: &[&str]) -> Result<String> {
    let mut command = Command::new(gateway::binary()?);
    command.arg("firmware").args(words);
    run(command)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Bench {
    /// As it leaves the factory: keys, and version 1 in slot A.
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir().map_err(failed("make a folder"))?;
        let at = |name: &str| text(&dir.path().join(name));
        for name in ["ours", "strangers"] {
            firmware(&["keygen", "--key", &at(&format!("{name}.key")), "--public", &at(&format!("{name}.pub"))])?;
        }
        firmware(&["keypage", "--public", &at("ours.pub"), "--out", &at("keys.bin")])?;
        release(dir.path(), "1.0.0", "ours", &[])?;
        let flashed = vec![(KEYS_AT, dir.path().join("keys.bin")), slot_file(dir.path(), "1.0.0", Slot::A)];
        let chip = Chip::boot_with_loader(dir.path(), MAC, flashed)?;
        Ok(Self { chip, dir })
    }

    /// The files of a node that has 1.0.0 in A and this file in B.
    fn with(&self, in_b: PathBuf) -> Vec<(u32, PathBuf)> {
        let dir = self.dir.path();
        vec![(KEYS_AT, dir.join("keys.bin")), slot_file(dir, "1.0.0", Slot::A), (SLOTS_AT[1], in_b)]
    }

    /// Asks the node who it is.
    fn hello(&self) -> Result<Hello> {
        self.answer("the node says Hello", Downlink::Identify, |up| match up {
            Uplink::Hello(hello) => Some(*hello),
            _ => None,
        })
    }

    fn info(&self) -> Result<UpdateInfo> {
        self.answer("the node says what it runs", Downlink::UpdateQuery, |up| match up {
            Uplink::UpdateInfo(info) => Some(*info),
            _ => None,
        })
    }

    /// Asks until an answer comes: what is said while a node starts is not heard.
    fn answer<T>(&self, what: &str, ask: Downlink, fits: impl Fn(&Uplink) -> Option<T>) -> Result<T> {
        let before = self.chip.cable().said().len();
        let mut asked = 0;
        eventually(what, SOON, || {
            if asked % 20 == 0 {
                self.chip.cable().whisper(ask.clone());
            }
            asked += 1;
            let said = self.chip.cable().said();
            said.get(before..).unwrap_or_default().iter().find_map(&fits).ok_or_else(|| format!("{said:?}"))
        })
    }

    fn acknowledge(&self) -> Result<()> {
        let hello = self.hello()?;
        self.chip.cable().whisper(Downlink::Ack(Ack { boot: hello.boot, through: hello.unacked_from - 1 }));
        Ok(())
    }
}

/// Packs, signs and cuts a release of today's images; its slots are `<version>.A` and `<version>.B`.
fn release(dir: &Path, version: &str, key: &str, more: &[&str]) -> Result<()> {
    let at = |name: &str| text(&dir.join(name));
    let (bundle, key) = (at(&format!("{version}.bundle")), at(&format!("{key}.key")));
    let (a, b) = (text(&qemu::slot_image('a')), text(&qemu::slot_image('b')));
    let mut pack = vec!["pack", "--a", &a, "--b", &b, "--board", BOARD, "--version", version, "--out", &bundle];
    pack.extend(more);
    firmware(&pack)?;
    firmware(&["sign", &bundle, "--key", &key])?;
    for slot in ["a", "b"] {
        firmware(&["slot", &bundle, "--slot", slot, "--out", &at(&format!("{version}.{}", slot.to_uppercase()))])?;
    }
    Ok(())
}

fn slot_file(dir: &Path, version: &str, slot: Slot) -> (u32, PathBuf) {
    (SLOTS_AT[slot.index()], dir.join(format!("{version}.{slot}")))
}

/// The records in the EEPROM's bytes.
struct Eeprom<'a>(&'a mut Vec<u8>);

impl Records for Eeprom<'_> {
    fn read(&mut self, place: usize) -> std::result::Result<[u8; RECORD_BYTES], RecordFault> {
        self.0[RECORDS_AT[place]..][..RECORD_BYTES].try_into().map_err(|_| RecordFault)
    }

    fn write(&mut self, place: usize, record: &[u8; RECORD_BYTES]) -> std::result::Result<(), RecordFault> {
        self.0[RECORDS_AT[place]..][..RECORD_BYTES].copy_from_slice(record);
        Ok(())
    }
}

/// What a node writes when it is told to try what is in B.
fn try_b(eeprom: &mut Vec<u8>) {
    let mut records = Eeprom(eeprom);
    let mut record = Record::load(&mut records).unwrap_or_default();
    record.trial = Some(Trial { slot: Slot::B, boots_left: TRIAL_BOOTS });
    record.store(&mut records).expect("bytes keep what is written");
}

const ONE: FirmwareVersion = FirmwareVersion { major: 1, minor: 0, patch: 0 };
const TWO: FirmwareVersion = FirmwareVersion { major: 2, minor: 0, patch: 0 };

fn signed_image_runs() -> Result<()> {
    let mut bench = Bench::new()?;
    let hello = bench.hello()?;
    assert_eq!(hello.firmware, ONE, "the version that was signed");
    assert!(hello.capabilities.has(Capabilities::UPDATE));
    let info = bench.info()?;
    assert_eq!((info.running, info.is_trial, info.gave_up), (Slot::A, false, None));
    // What a node is for works behind a boot loader too: interrupts, clock, watchdog, pins.
    eventually("levels are told", SOON, || {
        let said = bench.chip.cable().said();
        let is_whole = said.iter().any(|it| matches!(it, Uplink::Heartbeat(beat) if beat.levels.len() >= 3));
        if is_whole { Ok(()) } else { Err(format!("{said:?}")) }
    })?;
    bench.chip.set(Line::Smoke, true)?;
    eventually("smoke is told", SOON, || {
        let said = bench.chip.cable().said();
        let is_told = said.iter().any(|it| matches!(it, Uplink::Event(event) if event.kind == EventKind::SmokeAlarm));
        if is_told { Ok(()) } else { Err(format!("{said:?}")) }
    })?;
    let (image, loader) = (bench.chip.untouched_ram()?, bench.chip.untouched_loader_ram()?);
    println!("cortex-m3: stack left: image {image} of 8192 bytes, boot loader {loader} of 12288 bytes");
    assert!(image >= RESERVE_BYTES && loader >= RESERVE_BYTES, "image {image}, loader {loader}");
    // A reset, and a program that fails: the image comes back, and its last words were kept beside the loader's memory.
    bench.chip.set(Line::Smoke, false)?;
    bench.chip.pulse_nmi()?;
    bench.chip.wait_for_reset()?;
    let last_words = |up: &Uplink| match up {
        Uplink::Log(log) => Some(log.text.to_string()),
        _ => None,
    };
    let words = bench.answer("the node says why it restarted", Downlink::Identify, last_words)?;
    assert!(words.contains("interrupt"), "{words}");
    Ok(())
}

fn trial_is_confirmed() -> Result<()> {
    let mut bench = Bench::new()?;
    release(bench.dir.path(), "2.0.0", "ours", &[])?;
    let new = slot_file(bench.dir.path(), "2.0.0", Slot::B).1;
    let flashed = bench.with(new);
    bench.chip.reflash(flashed, try_b)?;
    assert_eq!(bench.hello()?.firmware, TWO);
    assert!(bench.info()?.is_trial);
    bench.acknowledge()?;
    eventually("the node confirms", SOON, || match bench.info() {
        Ok(info) if !info.is_trial && info.running == Slot::B => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    for _ in 0..=TRIAL_BOOTS {
        bench.chip.power_cycle()?;
        assert_eq!(bench.hello()?.firmware, TWO, "for good");
    }
    Ok(())
}

fn trial_gives_way() -> Result<()> {
    let mut bench = Bench::new()?;
    release(bench.dir.path(), "2.0.0", "ours", &[])?;
    let new = slot_file(bench.dir.path(), "2.0.0", Slot::B).1;
    let flashed = bench.with(new);
    bench.chip.reflash(flashed, try_b)?;
    for boot in 1..=TRIAL_BOOTS {
        // Nobody acknowledges; the image is reset as its watchdog would.
        assert_eq!(bench.hello()?.firmware, TWO, "boot {boot} of the trial");
        bench.chip.reset()?;
        bench.chip.cable().forget();
    }
    assert_eq!(bench.hello()?.firmware, ONE, "the old image is back by itself");
    let info = bench.info()?;
    assert_eq!((info.running, info.is_trial, info.gave_up), (Slot::A, false, Some(GaveUp::Unconfirmed)));
    Ok(())
}

fn tampered_is_refused() -> Result<()> {
    let mut bench = Bench::new()?;
    let dir = bench.dir.path().to_owned();
    release(&dir, "2.0.0", "ours", &[])?;
    release(&dir, "3.0.0", "strangers", &[])?;
    release(&dir, "4.0.0", "ours", &["--only", "0102030405060708"])?;
    let good = std::fs::read(dir.join("2.0.0.B")).map_err(failed("read a slot"))?;
    let spoil = |name: &str, at: usize| -> Result<PathBuf> {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let file = dir.join(name);
        std::fs::write(&file, bytes).map_err(failed("write a slot"))?;
        Ok(file)
    };
    let cases = [
        (spoil("flipped", good.len() - 7)?, GaveUp::Digest),
        (spoil("renumbered", 8)?, GaveUp::Signature),
        (spoil("forged", 100)?, GaveUp::Signature),
        (slot_file(&dir, "3.0.0", Slot::B).1, GaveUp::Signature),
        (slot_file(&dir, "4.0.0", Slot::B).1, GaveUp::Node),
        (slot_file(&dir, "2.0.0", Slot::A).1, GaveUp::Header),
    ];
    for (file, why) in cases {
        let flashed = bench.with(file);
        bench.chip.reflash(flashed, try_b)?;
        assert_eq!(bench.hello()?.firmware, ONE, "{why:?}");
        assert_eq!(bench.info()?.gave_up, Some(why));
    }
    Ok(())
}

fn without_keys() -> Result<()> {
    let mut bench = Bench::new()?;
    let slot_a = slot_file(bench.dir.path(), "1.0.0", Slot::A);
    bench.chip.cable().forget();
    bench.chip.reflash(vec![slot_a.clone()], |_| ())?;
    // It waits for its watchdog, and starts again, for ever within the loader.
    eventually("the loader has looked at everything", SOON, || match bench.chip.untouched_loader_ram() {
        Ok(1..12_000) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    bench.chip.wait_for_reset()?;
    let at = bench.chip.program_counter()?;
    assert!(at < KEYS_AT, "at {at:#x}");
    assert!(bench.chip.cable().said().is_empty(), "nobody says anything");
    // With its page of keys it is a node again.
    let keys = (KEYS_AT, bench.dir.path().join("keys.bin"));
    bench.chip.reflash(vec![keys, slot_a], |_| ())?;
    assert_eq!(bench.hello()?.firmware, ONE);
    Ok(())
}

fn flash_keeps_nothing() -> Result<()> {
    let bench = Bench::new()?;
    release(bench.dir.path(), "2.0.0", "ours", &[])?;
    let mut update = NodeUpdate::new(verified(bench.dir.path(), "2.0.0")?);
    let mut heard = 0;
    // In QEMU the flash controller is not there: what is written is not kept, and the node must find that out at the first page.
    eventually("the update is over", SOON, || {
        let said = bench.chip.cable().said();
        for uplink in said.get(heard..).unwrap_or_default() {
            update.on_uplink(SystemClock.now(), uplink);
        }
        heard = said.len();
        if let Some(downlink) = update.take_send(SystemClock.now()) {
            bench.chip.cable().whisper(downlink);
        }
        if update.is_over() { Ok(()) } else { Err(format!("{:?}", update.progress())) }
    })?;
    let progress = update.progress();
    assert_eq!(progress.stage, Stage::Failed);
    assert_eq!(progress.problem, Some(Problem::Refused(UpdateRefusal::Flash)));
    assert_eq!(bench.hello()?.firmware, ONE, "and it goes on as before");
    Ok(())
}

fn verified(dir: &Path, version: &str) -> Result<Arc<Verified>> {
    let read = |name: String| std::fs::read(dir.join(name)).map_err(failed("read a release"));
    let public = String::from_utf8_lossy(&read("ours.pub".into())?).into_owned();
    let key = PublicKey::parse(&public).ok_or_else(|| RigError::failed("read a key", public))?;
    let bundle = Bundle::from_bytes(&read(format!("{version}.bundle"))?);
    let verified = bundle.and_then(|bundle| bundle.verify(&[key]));
    verified.map(Arc::new).map_err(|e| RigError::failed("verify a release", e))
}
