//! Goal: an update of a node ends in the new version confirmed, or in a reason that says what to do (W39, W42), whatever the line and the power do.
//! Method: the real node, its real slots in a file and the boot loader's own choice, in simulated time over a line that a seed makes lose and
//! double frames; and the node as a process on a pseudo-terminal, killed in
//! the middle, with the gateway's real link at the other end. Bundles are signed here by ring and checked there by
//! another implementation of Ed25519.

use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_storage::nor_flash::{NorFlash, ReadNorFlash};
use gengfu_contract::slug::Slug;
use gengfu_node_linux::flash::{BOARD, FileFlash, LAYOUT};
use gengfu_node_linux::node::slots::{Asker, choose, manifest};
use gengfu_node_linux::node::update::{Place, RESTART_AFTER_MS, Step, TRIAL_MS};
use gengfu_node_linux::node::{Board, BusAddress, Identity, Node, Parts, Sensor, Timing, Updater, Wiring};
use gengfu_node_linux::node::{input::Input, sos::Sos};
use gengfu_node_linux::pins::{SimBattery, SimPin, SimSounder};
use gengfu_node_linux::{NodeReport, Options, Port, Slots};
use gengfu_wire::{Ack, Decoder, FRAME_BYTES_MAX, Frame, Message, Uid, encode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::DeviceClass;
use crate::link::bundle::{About, Bundle, BundleError};
use crate::link::{BusConfig, LinkBatch, LinkInlets, LinkStats, NodeConfig, Order, PortConfig, PortEnds, run};
use crate::signed::SigningKey;

const UID: Uid = Uid([1, 2, 3, 4, 5, 6, 7, 8]);
const IMAGE_BYTES: usize = 5_000;

fn version(major: u16) -> FirmwareVersion {
    FirmwareVersion { major, minor: 0, patch: 0 }
}

fn about(major: u16) -> About {
    About { board: BOARD, version: version(major), security: 1, only: None, may_lower_security: false }
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap().0
}

fn bundle(about: &About, key: &SigningKey) -> Bundle {
    bundle_of(IMAGE_BYTES, about, key)
}

fn bundle_of(length: usize, about: &About, key: &SigningKey) -> Bundle {
    let mut rng = StdRng::seed_from_u64(about.version.major.into());
    let mut image = || (0..length).map(|_| rng.random()).collect();
    let mut bundle = Bundle::pack(about, [image(), image()]).unwrap();
    bundle.sign(key);
    bundle
}

fn verified(about: &About, key: &SigningKey) -> Arc<Verified> {
    Arc::new(bundle(about, key).verify(&[key.public()]).unwrap())
}

/// What a programmer does with a new node: version 1 in slot A.
fn factory(folder: &Path, key: &SigningKey) -> Slots {
    let file = folder.join("flash");
    let mut flash = FileFlash::open(&file).unwrap();
    let bundle = bundle(&about(1), key);
    let image = bundle.image(Slot::A);
    let mut bytes = image.bytes.clone();
    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
    NorFlash::write(&mut flash, LAYOUT.header_at(Slot::A), &image.header).unwrap();
    NorFlash::write(&mut flash, LAYOUT.image_at(Slot::A), &bytes).unwrap();
    Slots { file, trusted: vec![key.public().0] }
}

struct Bench;
impl Board for Bench {
    type Pin = SimPin;
    type Gauge = SimBattery;
    type Output = SimSounder;
    type Thermometer = gengfu_node_linux::node::heat::NoThermometer;
    type Watch = ();
}

/// A node with an emergency button, in simulated time.
struct SimNode {
    slots: Slots,
    node: Node<Bench>,
    updater: Updater<FileFlash, FileFlash>,
    boots: u32,
    booted_at_ms: u64,
    sos: SimPin,
    battery: SimBattery,
    /// A new image that cannot be heard.
    is_mute_on_trial: bool,
    is_mute: bool,
}

impl SimNode {
    fn new(slots: Slots) -> Self {
        let (sos, battery) = (SimPin::default(), SimBattery::new(3_000));
        let (node, updater) = Self::boot(&slots, 1, &sos, &battery);
        let is_mute = false;
        Self { slots, node, updater, boots: 1, booted_at_ms: 0, sos, battery, is_mute_on_trial: false, is_mute }
    }

    fn boot(
        slots: &Slots,
        boot: u32,
        sos: &SimPin,
        battery: &SimBattery,
    ) -> (Node<Bench>, Updater<FileFlash, FileFlash>) {
        let mut flash = FileFlash::open(&slots.file).unwrap();
        let is_trusted = |manifest: &[u8; 64], signature: &[u8; 64]| {
            let is_of = |key: &[u8; 32]| {
                let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
                key.verify(manifest, signature).is_ok()
            };
            slots.trusted.iter().any(is_of)
        };
        let asker = Asker { board: BOARD, uid: UID, is_trusted: &is_trusted };
        let running = choose(&mut flash, &mut FileFlash::open(&slots.file).unwrap(), &LAYOUT, &asker).unwrap();
        let firmware = manifest(&mut flash, &LAYOUT, running).unwrap().version;
        let identity = Identity { uid: UID, boot, firmware, wiring: Wiring::PointToPoint };
        let mut parts = Parts {
            identity,
            timing: Timing::default(),
            sensors: Default::default(),
            gauge: Some(battery.clone()),
            sounder: None,
            watch: (),
        };
        assert!(parts.sensors.push((3, Sensor::Sos(Sos::new(Input::active_high(sos.clone()))))).is_ok());
        let place = Place { board: BOARD, uid: UID, boot, running, layout: LAYOUT };
        (Node::new(parts).unwrap(), Updater::new(flash.clone(), flash, place))
    }

    /// Power off and on.
    fn reboot(&mut self, now_ms: u64) {
        self.boots += 1;
        (self.node, self.updater) = Self::boot(&self.slots, self.boots, &self.sos, &self.battery);
        self.booted_at_ms = now_ms;
        self.is_mute = self.is_mute_on_trial && self.updater.is_trial();
    }

    fn hear(&mut self, now_ms: u64, downlink: Downlink) {
        if self.is_mute {
            return;
        }
        let mut buffer = [0; FRAME_BYTES_MAX];
        let bytes = encode(&Frame::down(0, downlink), &mut buffer).unwrap();
        self.node.on_bytes(now_ms - self.booted_at_ms, bytes);
    }

    /// One round of the node's loop; what it says.
    fn round(&mut self, now_ms: u64) -> Vec<Uplink> {
        let uptime_ms = now_ms - self.booted_at_ms;
        let situation = self.node.situation();
        if self.updater.run(uptime_ms, self.node.update_seam(), situation) == Step::Restart {
            self.reboot(now_ms);
            return vec![];
        }
        let mut said = Vec::new();
        let is_mute = self.is_mute;
        let mut wire = |bytes: &[u8]| {
            let messages = Decoder::new().feed(bytes).map(|frame| frame.unwrap().message).collect::<Vec<_>>();
            said.extend(messages.into_iter().filter_map(|it| if let Message::Up(up) = it { Some(up) } else { None }));
            true
        };
        self.node.poll(uptime_ms, &mut wire);
        if is_mute { vec![] } else { said }
    }
}

/// Node, line and gateway.
struct Site {
    node: SimNode,
    update: NodeUpdate,
    now_ms: u64,
    rng: StdRng,
    /// Frames lost or doubled, of a hundred.
    faults: u32,
    /// Downlinks sent, by kind: begins and blocks.
    begins: usize,
    blocks: usize,
    /// The gateway's acks go through.
    acks: bool,
    _folder: TempDir,
}

impl Site {
    fn new(seed: u64, about: &About, key: &SigningKey) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let node = SimNode::new(factory(folder.path(), key));
        Site {
            node,
            update: NodeUpdate::new(verified(about, key)),
            now_ms: 0,
            rng: StdRng::seed_from_u64(seed),
            faults: 0,
            begins: 0,
            blocks: 0,
            acks: true,
            _folder: folder,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(i64::try_from(self.now_ms).unwrap()).unwrap()
    }

    /// How often a frame arrives.
    fn fate(&mut self) -> usize {
        match self.rng.random_range(0..100) {
            n if n < self.faults => 0,
            n if n < 2 * self.faults => 2,
            _ => 1,
        }
    }

    /// Ten milliseconds of everybody.
    fn step(&mut self) {
        self.now_ms += 10;
        let now = self.now();
        for uplink in self.node.round(self.now_ms) {
            for _ in 0..self.fate() {
                self.update.on_uplink(now, &uplink);
                let through = match &uplink {
                    Uplink::Hello(hello) => hello.unacked_from - 1,
                    Uplink::Event(event) => event.sequence,
                    _ => continue,
                };
                if self.acks && self.fate() > 0 {
                    self.node.hear(self.now_ms, Downlink::Ack(Ack { boot: uplink.boot(), through }));
                }
            }
        }
        if self.now_ms.is_multiple_of(3_000) {
            // A link asks whoever it has not heard.
            self.node.hear(self.now_ms, Downlink::Identify);
        }
        let Some(downlink) = self.update.take_send(now) else { return };
        self.begins += usize::from(matches!(downlink, Downlink::UpdateBegin(_)));
        self.blocks += usize::from(matches!(downlink, Downlink::UpdateBlock(_)));
        for _ in 0..self.fate() {
            self.node.hear(self.now_ms, downlink.clone());
        }
    }

    fn run_until(&mut self, what: &str, is_so: impl Fn(&Site) -> bool) {
        for _ in 0..200_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("never {what}: {:?} after {} s", self.update.progress(), self.now_ms / 1_000);
    }

    fn end(&mut self) -> Progress {
        self.run_until("over", |site| site.update.is_over());
        self.update.progress()
    }
}

fn is_done(progress: &Progress) -> bool {
    progress.stage == Stage::Done && progress.problem.is_none()
}

fn failed(progress: &Progress) -> Problem {
    assert_eq!(progress.stage, Stage::Failed, "{progress:?}");
    progress.problem.unwrap()
}

#[test]
fn w42_an_update_ends_in_the_new_version_confirmed_whatever_the_line_does() {
    let key = key();
    for seed in 0..20 {
        let mut site = Site::new(seed, &about(2), &key);
        site.faults = 20;
        let progress = site.end();
        assert!(is_done(&progress), "seed {seed}: {progress:?}");
        assert!(!site.node.updater.is_trial(), "seed {seed}");
        assert_eq!(site.node.node.identity().firmware, version(2), "seed {seed}");
    }
}

#[test]
fn w42_a_quiet_line_carries_each_block_once_and_the_next_release_goes_to_the_other_slot() {
    let key = key();
    let mut site = Site::new(1, &about(2), &key);
    assert!(is_done(&site.end()));
    assert_eq!((site.begins, site.blocks), (1, IMAGE_BYTES.div_ceil(BLOCK_BYTES)));
    for major in 3..6 {
        site.update = NodeUpdate::new(verified(&about(major), &key));
        assert!(is_done(&site.end()), "{major}");
        assert_eq!(site.node.node.identity().firmware, version(major));
    }
    let blocks = site.blocks;
    site.update = NodeUpdate::new(verified(&about(5), &key));
    assert!(is_done(&site.end()), "what it runs already is done at once");
    assert_eq!(site.blocks, blocks);
}

#[test]
fn w38_the_power_cut_after_each_block_costs_at_most_a_page() {
    let key = key();
    let per_page = LAYOUT.page_bytes as usize / BLOCK_BYTES;
    for cut in 1..=IMAGE_BYTES.div_ceil(BLOCK_BYTES) {
        let mut site = Site::new(cut as u64, &about(2), &key);
        site.run_until("cut", |site| site.blocks == cut);
        site.node.reboot(site.now_ms);
        let progress = site.end();
        assert!(is_done(&progress), "cut after block {cut}: {progress:?}");
        let most = IMAGE_BYTES.div_ceil(BLOCK_BYTES) + per_page + 1;
        assert!(site.blocks <= most, "cut after block {cut}: {} blocks", site.blocks);
    }
}

#[test]
fn w38_a_gateway_that_restarts_goes_on_where_the_node_is() {
    let key = key();
    let mut site = Site::new(1, &about(2), &key);
    site.run_until("half", |site| site.blocks == 20);
    site.update = NodeUpdate::new(verified(&about(2), &key));
    assert!(is_done(&site.end()));
    assert!(site.blocks <= IMAGE_BYTES.div_ceil(BLOCK_BYTES) + 1, "{} blocks", site.blocks);
}

#[test]
fn w37_an_update_waits_while_somebody_calls_for_help_and_says_so() {
    let key = key();
    let mut site = Site::new(1, &about(2), &key);
    site.run_until("half", |site| site.blocks == 20);
    site.acks = false;
    site.node.sos.set(true);
    let alarm = Some(Problem::Refused(UpdateRefusal::Alarm));
    site.run_until("told", |site| site.update.progress().problem == alarm);
    assert!(!site.update.is_over() && site.update.progress().problem.is_some_and(Problem::passes));
    site.acks = true;
    site.node.sos.set(false);
    assert!(is_done(&site.end()));
}

#[test]
fn w37_a_low_battery_is_told_with_its_remedy_and_the_update_goes_on_with_a_new_one() {
    let key = key();
    let mut site = Site::new(1, &about(2), &key);
    site.node.battery.set(2_000);
    site.node.node.measure_battery_now();
    let battery = Problem::Refused(UpdateRefusal::Battery);
    site.run_until("told", |site| site.update.progress().problem == Some(battery));
    assert!(battery.remedy().en.contains("battery") && battery.remedy().zh.contains("电池"));
    site.node.battery.set(3_000);
    site.node.node.measure_battery_now();
    assert!(is_done(&site.end()));
}

#[test]
fn w41_a_new_image_that_cannot_be_heard_gives_way_and_the_gateway_says_why() {
    let key = key();
    let mut site = Site::new(1, &about(2), &key);
    site.node.is_mute_on_trial = true;
    let progress = site.end();
    assert_eq!(failed(&progress), Problem::GaveUp(GaveUp::Unconfirmed));
    assert_eq!(site.node.node.identity().firmware, version(1), "the old image runs");
    assert!(site.now_ms >= 3 * TRIAL_MS + RESTART_AFTER_MS);
    assert_eq!(site.node.boots, 1 + 3 + 1, "three trials");
}

#[test]
fn w42_each_refusal_of_a_node_ends_the_update_with_its_reason_and_a_remedy() {
    let (ours, other) = (key(), key());
    let to = |about: &About, key: &SigningKey| {
        let mut site = Site::new(1, &crate::link::update::tests::about(2), key);
        site.update = NodeUpdate::new(verified(about, key));
        site
    };
    let wrong_board = to(&About { board: BOARD + 1, ..about(2) }, &ours).end();
    assert_eq!(failed(&wrong_board), Problem::Refused(UpdateRefusal::Board));
    let other_node = to(&About { only: Some(Uid([9; 8])), ..about(2) }, &ours).end();
    assert_eq!(failed(&other_node), Problem::Refused(UpdateRefusal::Node));
    // An old bundle again, after one with a higher security version was confirmed.
    let mut site = to(&About { security: 7, ..about(2) }, &ours);
    assert!(is_done(&site.end()));
    site.update = NodeUpdate::new(verified(&about(1), &ours));
    assert_eq!(failed(&site.end()), Problem::Refused(UpdateRefusal::Security));
    let back = About { only: Some(UID), may_lower_security: true, ..about(1) };
    site.update = NodeUpdate::new(verified(&back, &ours));
    assert!(is_done(&site.end()), "unless it is signed to go back, for this node");
    // The gateway trusts a key that the node does not.
    let mut site = Site::new(1, &about(2), &ours);
    site.update = NodeUpdate::new(verified(&about(2), &other));
    assert_eq!(failed(&site.end()), Problem::GaveUp(GaveUp::Signature));
    assert_eq!(site.node.node.identity().firmware, version(1));
}

#[test]
fn w42_a_node_without_slots_and_one_that_is_silent_are_told_apart() {
    let key = key();
    let hello = Hello {
        uid: UID,
        boot: 1,
        firmware: version(1),
        capabilities: Capabilities::default(),
        uptime_ms: 0,
        unacked_from: 1,
        next_sequence: 1,
        heartbeat_ms: 1_000,
    };
    let mut update = NodeUpdate::new(verified(&about(2), &key));
    update.on_uplink(Timestamp::UNIX_EPOCH, &Uplink::Hello(hello));
    assert_eq!(failed(&update.progress()), Problem::NotUpdatable);
    let mut site = Site::new(1, &about(2), &key);
    site.node.is_mute = true;
    site.run_until("told", |site| site.update.progress().problem == Some(Problem::Silent));
    site.node.is_mute = false;
    assert!(is_done(&site.end()), "it goes on by itself");
}

#[test]
fn every_problem_has_words_and_a_remedy_in_both_languages() {
    use UpdateRefusal as R;
    let refusals = [
        R::Header,
        R::Board,
        R::Slot,
        R::Node,
        R::Length,
        R::Security,
        R::Trial,
        R::Alarm,
        R::Battery,
        R::Unsent,
        R::Unknown,
        R::Digest,
        R::Flash,
        R::Record,
    ];
    let gave_up =
        [GaveUp::Signature, GaveUp::Unconfirmed, GaveUp::Damaged, GaveUp::Record, GaveUp::Digest, GaveUp::Header];
    let others = [Problem::NotUpdatable, Problem::Silent, Problem::OldVersion(version(1)), Problem::Lost];
    let all = refusals.map(Problem::Refused).into_iter().chain(gave_up.map(Problem::GaveUp)).chain(others);
    let mut texts = std::collections::BTreeSet::new();
    for problem in all {
        for text in [problem.text(), problem.remedy()] {
            assert!(text.zh.chars().any(|c| c as u32 > 0x2fff) && text.en.is_ascii() && !text.en.is_empty());
        }
        assert!(texts.insert(problem.text().en), "{problem:?} says what another says");
    }
}

#[test]
fn w42_a_bundle_that_is_cut_flipped_or_signed_by_a_stranger_is_never_sent() {
    let (ours, stranger) = (key(), key());
    let good = bundle(&about(2), &ours);
    let bytes = good.to_bytes();
    assert_eq!(Bundle::from_bytes(&bytes).as_ref(), Ok(&good));
    let verify = |bytes: &[u8]| Bundle::from_bytes(bytes)?.verify(&[ours.public()]).map(drop);
    assert_eq!(verify(&bytes), Ok(()));
    assert_eq!(good.clone().verify(&[stranger.public()]).err(), Some(BundleError::Signature { slot: Slot::A }));
    assert_eq!(good.clone().verify(&[]).err(), Some(BundleError::Signature { slot: Slot::A }));
    assert!(good.clone().verify(&[stranger.public(), ours.public()]).is_ok());
    for length in 0..bytes.len() {
        assert!(verify(&bytes[..length]).is_err(), "cut to {length}");
    }
    let mut rng = StdRng::seed_from_u64(3);
    let beyond: Vec<usize> = (0..300).map(|_| rng.random_range(300..bytes.len())).collect();
    for at in (0..300).chain(beyond) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << rng.random_range(0..8);
        // Three bytes of the head are for later formats and mean nothing.
        assert!(verify(&flipped).is_err() || (5..8).contains(&at), "byte {at}");
    }
    // Halves of two releases, each well signed.
    let other = bundle(&about(3), &ours).to_bytes();
    let mut mixed = bytes.clone();
    mixed[136..264].copy_from_slice(&other[136..264]);
    assert_eq!(verify(&mixed), Err(BundleError::Pair { what: "version" }));
    assert!(matches!(Bundle::from_bytes(b"PK\x03\x04 a zip"), Err(BundleError::Magic)));
    let lowers = About { may_lower_security: true, ..about(2) };
    assert_eq!(Bundle::pack(&lowers, [vec![1], vec![1]]).err(), Some(BundleError::Lowers));
}

/// A node as a process on a pseudo-terminal, the gateway's link at its other end, and a decider with a disk.
async fn a_killed_process_is_updated(wiring: Wiring, image_bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let key = key();
    let slots = factory(folder.path(), &key);
    let link: PathBuf = folder.path().join("node");
    let start = || {
        let mut options = Options::new(Port::Pty { link: link.clone() }, UID);
        options.flash = Some(slots.clone());
        options.wiring = wiring;
        let (reports, received) = std::sync::mpsc::sync_channel(1_000);
        let node = gengfu_node_linux::spawn(options, move |report| reports.send(report).unwrap_or_default()).unwrap();
        (node, received)
    };
    let (node, _reports) = start();
    let slug = |name: &str| Slug::new(name).unwrap();
    let config = NodeConfig {
        node: slug("node"),
        address: wiring.address(),
        expected_uid: None,
        silence: Duration::from_secs(2),
        heartbeat_ms: None,
        debounce_ms: None,
        channels: std::iter::once((2, (slug("smoke"), DeviceClass::Smoke))).collect(),
    };
    let config = match wiring {
        Wiring::PointToPoint => PortConfig::point_to_point(link.clone(), 115_200, config),
        Wiring::Bus(_) => {
            let bus = BusConfig { name: slug("bus"), turnaround: BusConfig::TURNAROUND_ON_BOARD };
            PortConfig::bus(link.clone(), 115_200, bus, vec![config]).unwrap()
        }
    };
    let (observed, mut batches) = mpsc::channel::<LinkBatch>(4);
    let (commands_in, commands) = mpsc::channel(4);
    let mut inlets = LinkInlets::default();
    inlets.add(&config, &commands_in);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (stats_in, mut stats) = watch::channel(LinkStats::starting(&config, &config.nodes()[0], clock.now()));
    let stop = CancellationToken::new();
    let ends = PortEnds { saved: vec![None], clock, observed, stats: vec![stats_in], commands, stop: stop.clone() };
    let link_task = tokio::spawn(run(config, ends));
    let decider = tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            let _ = batch.done.send(Ok(()));
        }
    });
    let mut until = async |what: &str, fits: &dyn Fn(&LinkStats) -> bool| {
        let wait = stats.wait_for(|stats| fits(stats));
        if let Ok(shown) = tokio::time::timeout(Duration::from_secs(60), wait).await {
            return shown.expect("the link runs").clone();
        }
        panic!("never {what}: {:?}", stats.borrow().update)
    };
    until("the node", &|stats| stats.is_up()).await;
    let release = bundle_of(image_bytes, &about(2), &key).verify(&[key.public()]).unwrap();
    inlets.order(&slug("node"), Order::Update(Arc::new(release))).unwrap().await.unwrap().unwrap();
    // The third page is marked whole. Link and test share a thread, so hardly a block goes by between this look and the power cut.
    let mark = LAYOUT.header_at(Slot::B) + 128 + 4 * 2;
    let mut flash = FileFlash::open(&slots.file).unwrap();
    let mut word = [0xff; 4];
    while word != [0; 4] {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ReadNorFlash::read(&mut flash, mark, &mut word).unwrap();
    }
    // Power off: the thread ends, nothing is said, what it had in memory is gone.
    drop(node);
    let (node, reports) = start();
    let stage = |stats: &LinkStats| stats.update.as_ref().map(|update| update.stage);
    let done = until("the end", &|stats| matches!(stage(stats), Some(Stage::Done | Stage::Failed))).await;
    assert_eq!(stage(&done), Some(Stage::Done), "{:?}", done.update);
    until("the new version", &|stats| stats.firmware.as_deref() == Some("2.0.0")).await;
    node.set_smoke(true).unwrap();
    until("an alarm after it", &|stats| stats.events > 0).await;
    node.stop();
    stop.cancel();
    link_task.await.unwrap();
    decider.await.unwrap();
    let images: Vec<_> = reports.iter().filter(|it| matches!(it, NodeReport::Image { .. })).collect();
    let image = |major, slot, is_trial| NodeReport::Image { firmware: version(major), slot, is_trial };
    assert_eq!(images, [image(1, Slot::A, false), image(2, Slot::B, true)]);
}

#[tokio::test]
async fn w42_a_process_killed_in_the_middle_is_updated_by_the_link_over_a_pseudo_terminal() {
    a_killed_process_is_updated(Wiring::PointToPoint, 48_000).await;
}

#[tokio::test]
async fn w39_on_a_bus_an_update_goes_with_the_polls() {
    // A block goes with each poll, and an idle bus is polled with leisure: a smaller image.
    a_killed_process_is_updated(Wiring::Bus(BusAddress::new(7)), 4_000).await;
}
