//! Goal: whatever a power cut, a crash or a spoilt disk leaves, there is one valid configuration, and it is the old one or the new one. Method: a folder that
//! stops working before, in the middle of or after each of its steps, tried at every step of every change; and starts on real folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::Timestamp;

use super::begin::{Started, begin, in_use_now, trial_failed};
use super::bundle::{Bundle, digest};
use super::check::{self, Waivers};
use super::slots::{Asked, Ending, Entry, Need, Slot, SlotError, Slots, State, Trial};
use super::status::Source;
use super::{FOLDER, STARTS_MAX};
use crate::identity::testing::{CutFolder, Moment};
use crate::signed::SigningKey;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn text(words: &str) -> Text {
    Text { zh: words.into(), en: words.into() }
}

fn asked() -> Asked {
    Asked { cmd_id: Some("c-1".into()), operator: "op-1".into() }
}

fn bundle(key: &SigningKey, gateway: &str, counter: u64, config: &str) -> Vec<u8> {
    let (site, gateway) = (Slug::new("jinding").unwrap(), Slug::new(gateway).unwrap());
    let mut bundle = Bundle::pack(site, gateway, counter, at(0), config.to_owned()).unwrap();
    bundle.sign(key);
    bundle.to_bytes()
}

fn trial_of(bytes: &[u8], counter: u64, file_sha256: &str) -> Trial {
    let entry = Entry {
        slot: Slot::A,
        bundle_sha256: digest(bytes),
        config_sha256: String::new(),
        counter,
        created_at: at(0),
        signer: String::new(),
        file_sha256: file_sha256.to_owned(),
        since: at(1),
    };
    Trial { entry, asked: asked(), need: Need::Receipt, window_s: 300, starts: 0, alarms_before: 0 }
}

/// One folder over cuts, and who signs the bundles put there.
struct Cuts {
    folder: CutFolder,
    key: Arc<SigningKey>,
}

impl Cuts {
    fn new(key: &Arc<SigningKey>, prepare: impl Fn(&Cuts)) -> Self {
        let bench = Self { folder: CutFolder::default(), key: key.clone() };
        prepare(&bench);
        bench.folder.reboot(false);
        bench
    }

    fn open(&self) -> Slots {
        Slots::over(Box::new(self.folder.clone()), Path::new("/config")).unwrap()
    }

    fn offer(&self, slots: &mut Slots, counter: u64) -> Result<(), SlotError> {
        let bytes = bundle(&self.key, "block-7", counter, &format!("x = {counter}\n"));
        slots.offer(&bytes, trial_of(&bytes, counter, "file"))
    }

    /// Two bundles were kept, one after the other.
    fn two_kept(&self) {
        let mut slots = self.open();
        for counter in [1, 2] {
            self.offer(&mut slots, counter).unwrap();
            slots.keep(at(2)).unwrap();
        }
    }

    /// As above, and a third is being tried: every slot is in use.
    fn in_full(&self) {
        self.two_kept();
        self.offer(&mut self.open(), 3).unwrap();
    }
}

/// Cuts `change` at every step and moment. After each the folder says what it said before or what it says after, every bundle that it names is whole, and
/// the change can be made.
fn every_cut(prepare: impl Fn(&Cuts), change: impl Fn(&Cuts, &mut Slots) -> Result<(), SlotError>) {
    let key = Arc::new(SigningKey::generate().unwrap().0);
    let whole = Cuts::new(&key, &prepare);
    let mut slots = whole.open();
    let before = slots.state().clone();
    change(&whole, &mut slots).unwrap();
    let after = whole.open().state().clone();
    assert_ne!(before, after);
    let mut seen = [0, 0];
    for step in 0..64 {
        for moment in [Moment::Before, Moment::Torn, Moment::After] {
            for synced_only in [false, true] {
                let bench = Cuts::new(&key, &prepare);
                let mut slots = bench.open();
                bench.folder.cut_at(step, moment);
                if change(&bench, &mut slots).is_ok() {
                    assert!(seen[0] >= 12 && seen[1] >= 2, "both outcomes were seen: {seen:?}");
                    return;
                }
                bench.folder.reboot(synced_only);
                let what = format!("cut {moment:?} step {step}, synced only: {synced_only}");
                let mut left = bench.open();
                assert!(!left.is_spoilt(), "{what}");
                assert_whole(&left, &what);
                if *left.state() == before {
                    seen[0] += 1;
                    change(&bench, &mut left).expect(&what);
                } else {
                    seen[1] += 1;
                }
                assert_eq!(*bench.open().state(), after, "{what}");
                assert_whole(&bench.open(), &what);
            }
        }
    }
    panic!("a change with more than 64 steps");
}

fn assert_whole(slots: &Slots, what: &str) {
    let State { current, previous, trial, .. } = slots.state().clone();
    for entry in [current, previous, trial.map(|trial| trial.entry)].into_iter().flatten() {
        assert_eq!(slots.text(&entry).expect(what), format!("x = {}\n", entry.counter), "{what}");
    }
}

#[test]
fn a_cut_while_a_bundle_is_taken_leaves_what_was_there_or_the_whole_trial() {
    every_cut(|_| {}, |bench, slots| bench.offer(slots, 1));
    every_cut(Cuts::two_kept, |bench, slots| bench.offer(slots, 3));
}

#[test]
fn a_cut_while_a_trial_starts_is_kept_given_up_or_taken_back_leaves_one_of_both() {
    every_cut(Cuts::in_full, |_, slots| slots.count_start());
    every_cut(Cuts::in_full, |_, slots| slots.keep(at(9)));
    every_cut(Cuts::in_full, |_, slots| slots.give_up(text("no receipt"), at(9)));
    every_cut(Cuts::two_kept, |_, slots| slots.take_back(asked(), text("back"), at(9)).map(|_| ()));
    every_cut(Cuts::in_full, |_, slots| slots.file_counts(text("changed"), at(9)));
}

#[test]
fn what_was_before_comes_back_once_and_numbers_are_never_forgotten() {
    let key = Arc::new(SigningKey::generate().unwrap().0);
    let bench = Cuts::new(&key, Cuts::in_full);
    let mut slots = bench.open();
    slots.give_up(text("no receipt"), at(9)).unwrap();
    let counters = |slots: &Slots| {
        let State { current, previous, .. } = slots.state().clone();
        (current.map(|entry| entry.counter), previous.map(|entry| entry.counter))
    };
    assert_eq!((counters(&slots), slots.state().highest), ((Some(2), Some(1)), 3), "given up, and never to come again");
    assert!(slots.take_back(asked(), text("back"), at(10)).unwrap());
    assert_eq!(counters(&slots), (Some(1), None));
    assert!(slots.take_back(asked(), text("back"), at(11)).unwrap());
    assert_eq!(counters(&slots), (None, None), "the file on the box");
    assert!(!slots.take_back(asked(), text("back"), at(12)).unwrap());
    assert_eq!(slots.state().highest, 3);
}

/// A box with a file, and the key it trusts.
struct Bench {
    dir: tempfile::TempDir,
    key: SigningKey,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), key: SigningKey::generate().unwrap().0 };
        fs::write(bench.file(), bench.config("mqtt-old:1883")).unwrap();
        bench
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("gengfu.toml")
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("data").join(FOLDER)
    }

    fn config(&self, broker: &str) -> String {
        format!(
            "[gateway]\nsite = \"jinding\"\nname = \"block-7\"\ndata_dir = \"data\"\n[uplink]\nbroker = \"{broker}\"\n[config]\ntrusted = [\"{}\"]\n",
            self.key.public()
        )
    }

    fn begin(&self, seconds: i64) -> Started {
        begin(&self.file(), at(seconds)).unwrap()
    }

    /// A bundle with another broker is on the disk, to be tried.
    fn offer(&self, counter: u64, broker: &str) {
        let bytes = bundle(&self.key, "block-7", counter, &self.config(broker));
        let file_sha256 = digest(&fs::read(self.file()).unwrap());
        self.slots().offer(&bytes, trial_of(&bytes, counter, &file_sha256)).unwrap();
    }

    fn keep(&self, counter: u64, broker: &str) {
        self.begin(0);
        self.offer(counter, broker);
        self.slots().keep(at(1)).unwrap();
    }

    fn slots(&self) -> Slots {
        Slots::open(&self.place()).unwrap()
    }
}

fn broker(started: &Started) -> &str {
    &started.config.uplink.host
}

fn is_trial(started: &Started) -> bool {
    started.settings.as_ref().unwrap().is_trial()
}

#[test]
fn a_box_without_trusted_keys_starts_from_its_file_and_makes_no_folder() {
    let bench = Bench::new();
    let text = bench.config("mqtt-old:1883").replace("[config]\n", "").replace("trusted", "#trusted");
    fs::write(bench.file(), text).unwrap();
    let started = bench.begin(0);
    assert!(started.settings.is_none() && !bench.place().exists());
    assert_eq!(started.status.unwrap().source, Source::File);
}

#[test]
fn a_trial_starts_three_times_and_then_the_old_configuration_is_back_with_the_reason() {
    let bench = Bench::new();
    assert!(!is_trial(&bench.begin(0)));
    bench.offer(1, "mqtt-new:1883");
    for start in 1..=STARTS_MAX {
        let started = bench.begin(i64::from(start));
        assert_eq!((broker(&started), is_trial(&started)), ("mqtt-new", true), "start {start}");
        let status = started.status.unwrap();
        assert_eq!((status.source, status.counter), (Source::Bundle, Some(1)));
        assert_eq!(status.trial.map(|trial| trial.starts), Some(start));
        assert_eq!(
            in_use_now(&bench.file()).unwrap().uplink.host,
            "mqtt-new",
            "commands find the running one's socket"
        );
    }
    let started = bench.begin(9);
    assert_eq!((broker(&started), is_trial(&started)), ("mqtt-old", false));
    let status = started.status.unwrap();
    let last = status.last.clone().unwrap();
    assert_eq!((last.ending, last.asked, status.highest), (Ending::RolledBack, asked(), 1));
    assert!(last.reason.unwrap().en.contains("3 times"));
    assert_eq!(status.findings(at(10)).len(), 1);
    assert_eq!(status.findings(at(10 + 90_000)).len(), 0, "told for a day");
    drop(started.settings);
    assert_eq!(broker(&bench.begin(10)), "mqtt-old", "and stays so");
}

#[test]
fn a_gateway_that_ends_with_a_fault_ends_its_trial_at_once_and_says_the_fault() {
    let bench = Bench::new();
    bench.begin(0);
    bench.offer(1, "mqtt-new:1883");
    assert!(!trial_failed(&bench.file(), "x", at(1)).unwrap(), "not started with it yet");
    drop(bench.begin(2));
    assert!(trial_failed(&bench.file(), "cannot listen on /x/gengfu.sock", at(3)).unwrap());
    let started = bench.begin(4);
    assert_eq!(broker(&started), "mqtt-old");
    let reason = started.status.unwrap().last.unwrap().reason.unwrap();
    assert!(reason.en.contains("cannot listen on /x/gengfu.sock"), "{reason:?}");
}

#[test]
fn a_kept_configuration_is_used_until_somebody_changes_the_file_on_the_box() {
    let bench = Bench::new();
    bench.keep(1, "mqtt-new:1883");
    for _ in 0..2 {
        let started = bench.begin(5);
        assert_eq!((broker(&started), is_trial(&started)), ("mqtt-new", false));
    }
    fs::write(bench.file(), bench.config("mqtt-by-hand:1883")).unwrap();
    let started = bench.begin(6);
    assert_eq!(broker(&started), "mqtt-by-hand");
    let status = started.status.unwrap();
    assert_eq!((status.source, status.highest), (Source::File, 1));
    assert_eq!(status.last.unwrap().ending, Ending::FileCounts);
}

#[test]
fn a_trial_whose_box_file_was_changed_meanwhile_does_not_begin() {
    let bench = Bench::new();
    bench.begin(0);
    bench.offer(1, "mqtt-new:1883");
    fs::write(bench.file(), bench.config("mqtt-by-hand:1883")).unwrap();
    let started = bench.begin(6);
    assert_eq!((broker(&started), is_trial(&started)), ("mqtt-by-hand", false));
    let last = started.status.unwrap().last.unwrap();
    assert_eq!(
        (last.ending, last.asked.cmd_id.as_deref()),
        (Ending::FileCounts, Some("c-1")),
        "it is owed a last word"
    );
}

#[test]
fn a_spoilt_bundle_or_record_leads_back_to_what_is_whole_and_is_told() {
    let bench = Bench::new();
    bench.keep(1, "mqtt-one:1883");
    bench.keep(2, "mqtt-two:1883");
    let slots = bench.slots();
    let current = slots.state().current.clone().unwrap();
    let name = match current.slot {
        Slot::A => "a.bundle",
        Slot::B => "b.bundle",
        Slot::C => "c.bundle",
    };
    let mut bytes = fs::read(bench.place().join(name)).unwrap();
    let end = bytes.len() - 3;
    bytes[end] ^= 1;
    fs::write(bench.place().join(name), bytes).unwrap();
    let started = bench.begin(5);
    assert_eq!(broker(&started), "mqtt-one", "the one before");
    assert_eq!(started.status.as_ref().unwrap().findings(at(5)).len(), 1);
    drop(started);
    fs::write(bench.place().join("state.json"), "{").unwrap();
    let started = bench.begin(6);
    assert_eq!(broker(&started), "mqtt-old", "the file on the box");
    assert_eq!(started.status.as_ref().unwrap().findings(at(6)).len(), 1);
    drop(started);
    bench.offer(3, "mqtt-three:1883");
    assert_eq!(broker(&bench.begin(7)), "mqtt-three", "bundles are taken again");
    assert_eq!(fs::read(bench.place().join("state.spoilt")).unwrap(), b"{");
}

#[test]
fn two_gateways_do_not_share_a_folder() {
    let bench = Bench::new();
    let first = bench.begin(0);
    let error = begin(&bench.file(), at(1)).unwrap_err();
    assert!(error.to_string().contains("another gateway"), "{error}");
    drop(first);
    bench.begin(2);
}

#[test]
fn what_may_not_be_tried_is_refused_with_the_reason_in_both_languages() {
    let bench = Bench::new();
    let started = bench.begin(0);
    let (running, settings) = (&started.config, started.settings.as_ref().unwrap());
    let state = State { highest: 7, ..State::default() };
    let judge = |bytes: &[u8], waivers| check::judge(bytes, running, &settings.file, &state, waivers);
    let refused = |bytes: &[u8], word: &str| {
        let why = judge(bytes, Waivers::default()).unwrap_err();
        assert!(why.en.contains(word) && !why.zh.is_ascii(), "{word}: {why:?}");
    };
    let good = bench.config("mqtt-new:1883");
    let of = |counter, config: &str| bundle(&bench.key, "block-7", counter, config);
    assert_eq!(judge(&of(8, &good), Waivers::default()).unwrap().text, good);
    let stranger = SigningKey::generate().unwrap().0;
    refused(&bundle(&stranger, "block-7", 8, &good), "no trusted key");
    refused(&bundle(&bench.key, "block-8", 8, &good), "for jinding/block-8");
    refused(&of(7, &good), "not higher than 7");
    judge(&of(7, &good), Waivers { older: true, ..Waivers::default() }).unwrap();
    let mut tampered = of(8, &good);
    let end = tampered.len() - 1;
    tampered[end] ^= 1;
    refused(&tampered, "SHA-256");
    refused(b"PK a zip", "no configuration bundle");
    refused(&of(8, &good.replace("broker", "brokker")), "did you mean");
    refused(&of(8, &good.replace("\"block-7\"", "\"block-9\"")), "gateway.name");
    refused(&of(8, &good.replace("\"data\"", "\"elsewhere\"")), "gateway.data_dir");
    let with_port = format!("{good}[[node]]\nname = \"n-1\"\nport = \"no-such-tty\"\n");
    refused(&of(8, &with_port), "node[0].port");
    judge(&of(8, &with_port), Waivers { lacking: true, ..Waivers::default() }).unwrap();
    fs::write(bench.file(), bench.config("mqtt-by-hand:1883")).unwrap();
    refused(&of(8, &good), "restart the gateway first");
}
