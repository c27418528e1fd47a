//! Goal: an update never leaves a node without an image that may run, and what a node refuses changes nothing (W35 to W41).
//! Method: real signatures, a flash that erases to ones and writes only zeros, two records, and a power cut at every single step of both; the
//! gateway is a few lines that answer reports. After each cut the boot loader's own choice is asked.
extern crate std;

use core::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use ed25519_compact::{KeyPair, Seed, Signature};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use gengfu_wire::update::{BLOCK_BYTES, BlockBytes, HeaderBytes};
use gengfu_wire::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::contact::{Contact, DEBOUNCE_MS};
use crate::input::Input;
use crate::sensor::Sensor;
use crate::slots::{Asker, Layout, NoImage, RECORD_BYTES, Record, RecordFault, Records, TRIAL_BOOTS, choose};
use crate::update::{Place, RESTART_AFTER_MS, Seam, Situation, Step, TRIAL_MS, Updater};

const PAGE: usize = 512;
const PAGES: u32 = 3;
const LAYOUT: Layout = Layout { at: [0, 2_048], page_bytes: PAGE as u32, image_pages: PAGES };
const BOARD: u16 = 7;
const UID: Uid = Uid([1, 2, 3, 4, 5, 6, 7, 8]);
const SEED: u64 = 0x6765_6e67;

/// What survives a power cut, and how many steps there are until the next.
struct Parts {
    flash: Vec<u8>,
    records: [[u8; RECORD_BYTES]; 2],
    steps_left: Option<usize>,
    steps: usize,
    rng: StdRng,
    records_dead: bool,
}

/// Flash and records of one node; clones share them.
#[derive(Clone)]
struct Medium(Rc<RefCell<Parts>>);

/// A power cut.
#[derive(Debug)]
struct Cut;

impl NorFlashError for Cut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl Medium {
    fn new() -> Self {
        let parts = Parts {
            flash: vec![0xff; 4_096],
            records: [[0xff; RECORD_BYTES]; 2],
            steps_left: None,
            steps: 0,
            rng: StdRng::seed_from_u64(SEED),
            records_dead: false,
        };
        Self(Rc::new(RefCell::new(parts)))
    }

    fn copy(&self) -> Self {
        let Parts { flash, records, .. } = &*self.0.borrow();
        let copy = Self::new();
        (copy.0.borrow_mut().flash, copy.0.borrow_mut().records) = (flash.clone(), *records);
        copy
    }

    /// Changes bytes one by one by `change`; in the step that is cut only some of them, at random.
    fn step(&self, bytes: impl Fn(&mut Parts) -> &mut [u8], change: impl Fn(usize, u8) -> u8) -> Result<(), Cut> {
        let mut parts = self.0.borrow_mut();
        parts.steps += 1;
        let is_cut = match &mut parts.steps_left {
            Some(0) => return Err(Cut),
            Some(left) => {
                *left -= 1;
                *left == 0
            }
            None => false,
        };
        let length = bytes(&mut parts).len();
        // In the step in which the power goes each byte is as before, as after, or neither.
        let fates: Vec<u8> = (0..length).map(|_| if is_cut { parts.rng.random_range(0..3) } else { 1 }).collect();
        let noise: Vec<u8> = (0..length).map(|_| parts.rng.random()).collect();
        for (at, byte) in bytes(&mut parts).iter_mut().enumerate() {
            let after = change(at, *byte);
            *byte = match fates[at] {
                0 => *byte,
                1 => after,
                // Bits on their way: those that differ are anything.
                _ => *byte ^ ((*byte ^ after) & noise[at]),
            };
        }
        if is_cut { Err(Cut) } else { Ok(()) }
    }
}

impl ErrorType for Medium {
    type Error = Cut;
}

impl ReadNorFlash for Medium {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Cut> {
        bytes.copy_from_slice(&self.0.borrow().flash[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.borrow().flash.len()
    }
}

impl NorFlash for Medium {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Cut> {
        assert!(from.is_multiple_of(PAGE as u32) && to == from + PAGE as u32, "page by page");
        self.step(|parts| &mut parts.flash[from as usize..to as usize], |_, _| 0xff)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Cut> {
        assert!(offset.is_multiple_of(4) && bytes.len().is_multiple_of(4), "in whole words");
        for (at, word) in bytes.chunks(4).enumerate() {
            let at = offset as usize + 4 * at;
            self.step(|parts| &mut parts.flash[at..at + 4], |n, before| before & word[n])?;
        }
        Ok(())
    }
}

impl Records for Medium {
    fn read(&mut self, place: usize) -> Result<[u8; RECORD_BYTES], RecordFault> {
        let parts = self.0.borrow();
        if parts.records_dead { Err(RecordFault) } else { Ok(parts.records[place]) }
    }

    fn write(&mut self, place: usize, record: &[u8; RECORD_BYTES]) -> Result<(), RecordFault> {
        if self.0.borrow().records_dead {
            return Err(RecordFault);
        }
        self.step(|parts| &mut parts.records[place], |n, _| record[n]).map_err(|Cut| RecordFault)
    }
}

fn keys() -> KeyPair {
    KeyPair::from_seed(Seed::new([42; 32]))
}

fn is_trusted(manifest: &[u8; 64], signature: &[u8; 64]) -> bool {
    keys().pk.verify(manifest, &Signature::new(*signature)).is_ok()
}

/// A signed image.
#[derive(Clone)]
struct Image {
    manifest: Manifest,
    header: Vec<u8>,
    bytes: Vec<u8>,
}

impl Image {
    fn new(slot: Slot, major: u16, length: usize) -> Image {
        let mut rng = StdRng::seed_from_u64(u64::from(major) * 2 + slot.index() as u64);
        let bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        let manifest = Manifest {
            slot,
            board: BOARD,
            version: FirmwareVersion { major, minor: 0, patch: 0 },
            security: 0,
            may_lower_security: false,
            only: None,
            length: length as u32,
            sha256: Sha256::digest(&bytes).into(),
        };
        Image { manifest, header: vec![], bytes }.signed(&keys())
    }

    fn signed(mut self, keys: &KeyPair) -> Image {
        let manifest = self.manifest.to_bytes();
        self.header = [&manifest[..], &keys.sk.sign(manifest, None)[..]].concat();
        self
    }

    fn but(&self, change: impl FnOnce(&mut Manifest)) -> Image {
        let mut other = self.clone();
        change(&mut other.manifest);
        other.signed(&keys())
    }

    fn begin(&self) -> UpdateBegin {
        UpdateBegin { header: HeaderBytes::from_slice(&self.header).unwrap() }
    }

    fn block(&self, offset: u32) -> UpdateBlock {
        let rest = &self.bytes[offset as usize..];
        let data = BlockBytes::from_slice(&rest[..rest.len().min(BLOCK_BYTES)]).unwrap();
        UpdateBlock { transfer: self.begin().transfer(), offset, data }
    }

    /// Puts it where a programmer would.
    fn flash(&self, medium: &Medium) {
        let flash = &mut medium.0.borrow_mut().flash;
        let at = LAYOUT.header_at(self.manifest.slot) as usize;
        flash[at..at + self.header.len()].copy_from_slice(&self.header);
        let at = LAYOUT.image_at(self.manifest.slot) as usize;
        flash[at..at + self.bytes.len()].copy_from_slice(&self.bytes);
    }
}

fn asker<'a>() -> Asker<'a> {
    Asker { board: BOARD, uid: UID, is_trusted: &is_trusted }
}

/// What the boot loader starts.
fn start(medium: &Medium) -> Result<Slot, NoImage> {
    choose(&mut medium.clone(), &mut medium.clone(), &LAYOUT, &asker())
}

/// One boot of a node.
struct Run {
    updater: Updater<Medium, Medium>,
    seam: Seam,
    situation: Situation,
    now_ms: u64,
}

impl Run {
    fn from(medium: &Medium, running: Slot) -> Run {
        let place = Place { board: BOARD, uid: UID, boot: 9, running, layout: LAYOUT };
        let mut run = Run {
            updater: Updater::new(medium.clone(), medium.clone(), place),
            seam: Seam::default(),
            situation: Situation::default(),
            now_ms: 0,
        };
        assert_eq!(run.step(), Step::GoOn { soon: false });
        run
    }

    fn step(&mut self) -> Step {
        self.updater.run(self.now_ms, &mut self.seam, self.situation)
    }

    /// Asks, and takes the last answer that follows.
    fn ask(&mut self, downlink: Downlink) -> Option<Uplink> {
        assert!(self.seam.ask(downlink));
        let mut last = None;
        for _ in 0..100 {
            let step = self.step();
            last = self.seam.answer().or(last);
            self.seam.answered();
            if step == (Step::GoOn { soon: false }) {
                break;
            }
        }
        last
    }

    fn state(&mut self, downlink: Downlink) -> Option<UpdateState> {
        match self.ask(downlink) {
            Some(Uplink::UpdateReport(report)) => Some(report.state),
            _ => None,
        }
    }

    fn info(&mut self) -> UpdateInfo {
        match self.ask(Downlink::UpdateQuery) {
            Some(Uplink::UpdateInfo(info)) => info,
            other => panic!("{other:?}"),
        }
    }

    /// The whole transfer, as a gateway leads it; the last state.
    fn transfer(&mut self, image: &Image) -> Option<UpdateState> {
        let mut state = self.state(Downlink::UpdateBegin(image.begin()))?;
        while let UpdateState::Wants { offset } = state {
            state = self.state(Downlink::UpdateBlock(image.block(offset)))?;
        }
        Some(state)
    }

    /// Transfer and trial, up to the restart. False when something failed on the way.
    fn update(&mut self, image: &Image) -> bool {
        if self.transfer(image) != Some(UpdateState::Whole) {
            return false;
        }
        let transfer = image.begin().transfer();
        if self.state(Downlink::UpdateTry(UpdateTry { transfer })) != Some(UpdateState::Restarts) {
            return false;
        }
        self.now_ms += RESTART_AFTER_MS;
        self.step() == Step::Restart
    }

    /// The gateway acknowledges this boot.
    fn acknowledged(&mut self) {
        self.seam.acknowledged();
        self.step();
    }
}

/// A node that runs version 1 in slot A; and version 2 for slot B, three pages and a bit short of the last word.
fn node_and_image() -> (Medium, Image) {
    let medium = Medium::new();
    Image::new(Slot::A, 1, 1_000).flash(&medium);
    assert_eq!(start(&medium), Ok(Slot::A));
    (medium, Image::new(Slot::B, 2, 1_501))
}

#[test]
fn w41_an_update_runs_on_trial_and_is_confirmed_by_an_ack_of_its_own_boot() {
    let (medium, image) = node_and_image();
    assert!(Run::from(&medium, Slot::A).update(&image));
    for _ in 0..2 {
        assert_eq!(start(&medium), Ok(Slot::B), "on trial");
    }
    let mut run = Run::from(&medium, Slot::B);
    assert!(run.info().is_trial);
    run.acknowledged();
    assert!(matches!(run.seam.answer(), Some(Uplink::UpdateInfo(info)) if !info.is_trial), "told without being asked");
    for _ in 0..10 {
        assert_eq!(start(&medium), Ok(Slot::B), "for good");
    }
    // And back again: the slots take turns.
    let third = Image::new(Slot::A, 3, 600);
    assert!(Run::from(&medium, Slot::B).update(&third));
    assert_eq!(start(&medium), Ok(Slot::A));
    Run::from(&medium, Slot::A).acknowledged();
    assert_eq!(start(&medium), Ok(Slot::A));
}

#[test]
fn w41_a_trial_that_never_confirms_itself_gives_way_to_the_old_image() {
    let (medium, image) = node_and_image();
    assert!(Run::from(&medium, Slot::A).update(&image));
    for _ in 0..TRIAL_BOOTS {
        assert_eq!(start(&medium), Ok(Slot::B));
    }
    assert_eq!(start(&medium), Ok(Slot::A));
    let mut run = Run::from(&medium, Slot::A);
    assert_eq!(run.info().gave_up, Some(GaveUp::Unconfirmed));
    // The image is still there: a second trial costs no transfer.
    let before = medium.0.borrow().steps;
    assert!(run.update(&image));
    assert_eq!(medium.0.borrow().steps - before, 1, "only the record was written");
    assert_eq!(start(&medium), Ok(Slot::B));
}

#[test]
fn w41_a_trial_that_nobody_acknowledges_restarts_but_not_while_somebody_calls_for_help() {
    let (medium, image) = node_and_image();
    assert!(Run::from(&medium, Slot::A).update(&image));
    assert_eq!(start(&medium), Ok(Slot::B));
    let mut run = Run::from(&medium, Slot::B);
    run.now_ms = TRIAL_MS - 1;
    assert_eq!(run.step(), Step::GoOn { soon: false });
    run.now_ms = TRIAL_MS;
    run.situation.alarm = true;
    assert_eq!(run.step(), Step::GoOn { soon: false });
    run.situation.alarm = false;
    assert_eq!(run.step(), Step::Restart);
}

#[test]
fn w36_what_is_not_for_this_node_is_refused_and_w35_nothing_is_changed() {
    let (medium, image) = node_and_image();
    let mut run = Run::from(&medium, Slot::A);
    let other = Some(Uid([9; 8]));
    let long = u32::from(u16::try_from(PAGE).unwrap()) * PAGES + 1;
    let wrong = [
        (image.but(|it| it.board = 8), UpdateRefusal::Board),
        (image.but(|it| it.slot = Slot::A), UpdateRefusal::Slot),
        (image.but(|it| it.only = other), UpdateRefusal::Node),
        (image.but(|it| it.length = long), UpdateRefusal::Length),
        (image.but(|it| it.length = 0), UpdateRefusal::Header),
    ];
    let before = medium.0.borrow().steps;
    for (image, why) in wrong {
        assert_eq!(run.state(Downlink::UpdateBegin(image.begin())), Some(UpdateState::Refused(why)));
    }
    assert_eq!(run.state(Downlink::UpdateBlock(image.block(0))), Some(UpdateState::Refused(UpdateRefusal::Unknown)));
    assert_eq!(medium.0.borrow().steps, before, "no erasing, no writing");
    let only_me = image.but(|it| it.only = Some(UID));
    assert_eq!(run.transfer(&only_me), Some(UpdateState::Whole));
}

#[test]
fn w36_an_old_bundle_is_refused_unless_it_was_signed_to_go_back_for_this_very_node() {
    let (medium, image) = node_and_image();
    let secure = image.but(|it| it.security = 5);
    assert!(Run::from(&medium, Slot::A).update(&secure));
    assert_eq!(start(&medium), Ok(Slot::B));
    Run::from(&medium, Slot::B).acknowledged();
    let old = Image::new(Slot::A, 3, 700).but(|it| it.security = 4);
    let mut run = Run::from(&medium, Slot::B);
    assert_eq!(run.info().security, 5);
    let refused = Some(UpdateState::Refused(UpdateRefusal::Security));
    assert_eq!(run.state(Downlink::UpdateBegin(old.begin())), refused);
    // A lowering for everybody is no manifest at all.
    let for_all = old.but(|it| it.may_lower_security = true);
    let header = Some(UpdateState::Refused(UpdateRefusal::Header));
    assert_eq!(run.state(Downlink::UpdateBegin(for_all.begin())), header);
    let for_me = old.but(|it| (it.may_lower_security, it.only) = (true, Some(UID)));
    assert!(run.update(&for_me));
    assert_eq!(start(&medium), Ok(Slot::A));
    let mut run = Run::from(&medium, Slot::A);
    run.acknowledged();
    run.seam.answered();
    assert_eq!(run.info().security, 4);
}

#[test]
fn w37_alarm_and_low_battery_stop_an_update_and_unsent_events_its_restart() {
    let (good, image) = node_and_image();
    let alarm = Situation { alarm: true, ..Situation::default() };
    let battery = Situation { battery_low: true, ..Situation::default() };
    let unsent = Situation { unsent: true, ..Situation::default() };
    let transfer = image.begin().transfer();
    for (situation, why) in [(alarm, UpdateRefusal::Alarm), (battery, UpdateRefusal::Battery)] {
        assert!(why.passes());
        let medium = good.copy();
        let mut run = Run::from(&medium, Slot::A);
        run.situation = situation;
        let refused = Some(UpdateState::Refused(why));
        assert_eq!(run.state(Downlink::UpdateBegin(image.begin())), refused);
        run.situation = Situation::default();
        assert!(matches!(run.state(Downlink::UpdateBegin(image.begin())), Some(UpdateState::Wants { .. })));
        run.situation = situation;
        assert_eq!(run.state(Downlink::UpdateBlock(image.block(0))), refused);
        run.situation = Situation::default();
        assert_eq!(run.transfer(&image), Some(UpdateState::Whole), "it goes on when that is over");
        run.situation = situation;
        assert_eq!(run.state(Downlink::UpdateTry(UpdateTry { transfer })), refused);
    }
    let mut run = Run::from(&good, Slot::A);
    assert_eq!(run.transfer(&image), Some(UpdateState::Whole));
    run.situation = unsent;
    let refused = Some(UpdateState::Refused(UpdateRefusal::Unsent));
    assert_eq!(run.state(Downlink::UpdateTry(UpdateTry { transfer })), refused);
    run.situation = Situation::default();
    assert!(run.update(&image));
}

#[test]
fn w38_a_block_twice_or_out_of_order_changes_nothing_and_is_answered_with_what_is_wanted() {
    let (medium, image) = node_and_image();
    let mut run = Run::from(&medium, Slot::A);
    assert_eq!(run.state(Downlink::UpdateBegin(image.begin())), Some(UpdateState::Wants { offset: 0 }));
    let wants = Some(UpdateState::Wants { offset: 128 });
    assert_eq!(run.state(Downlink::UpdateBlock(image.block(0))), wants);
    let before = medium.0.borrow().steps;
    for offset in [0, 256, 1_408] {
        assert_eq!(run.state(Downlink::UpdateBlock(image.block(offset))), wants);
    }
    let mut short = image.block(128);
    short.data.truncate(100);
    assert_eq!(run.state(Downlink::UpdateBlock(short)), wants, "a block is whole");
    assert_eq!(run.state(Downlink::UpdateBegin(image.begin())), wants, "the gateway restarted");
    assert_eq!(medium.0.borrow().steps, before);
    assert_eq!(run.transfer(&image), Some(UpdateState::Whole));
}

#[test]
fn w38_after_a_restart_at_any_block_the_transfer_goes_on_at_the_page_it_was_in() {
    for blocks in 0..12_u32 {
        let (medium, image) = node_and_image();
        let mut run = Run::from(&medium, Slot::A);
        let mut state = run.state(Downlink::UpdateBegin(image.begin()));
        for _ in 0..blocks {
            let Some(UpdateState::Wants { offset }) = state else { break };
            state = run.state(Downlink::UpdateBlock(image.block(offset)));
        }
        let mut run = Run::from(&medium, Slot::A);
        let whole_pages = blocks * 128 / 512 * 512;
        let state = run.state(Downlink::UpdateBegin(image.begin()));
        assert_eq!(state, Some(UpdateState::Wants { offset: whole_pages }), "after {blocks} blocks");
        assert!(run.update(&image));
        assert_eq!(start(&medium), Ok(Slot::B));
    }
}

#[test]
fn w40_a_flipped_bit_on_the_way_is_refused_by_the_node_and_the_next_begin_begins_anew() {
    let (medium, image) = node_and_image();
    let mut rng = StdRng::seed_from_u64(SEED);
    for _ in 0..20 {
        let mut broken = image.clone();
        let at = rng.random_range(0..broken.bytes.len());
        broken.bytes[at] ^= 1 << rng.random_range(0..8);
        let mut run = Run::from(&medium, Slot::A);
        assert_eq!(run.transfer(&broken), Some(UpdateState::Refused(UpdateRefusal::Digest)), "byte {at}");
        assert_eq!(start(&medium), Ok(Slot::A));
        assert_eq!(
            run.state(Downlink::UpdateBegin(image.begin())),
            Some(UpdateState::Wants { offset: 0 }),
            "nothing of it is taken for good"
        );
    }
}

#[test]
fn w40_the_boot_loader_runs_nothing_that_is_not_signed_whole_and_for_this_node() {
    let (good, image) = node_and_image();
    let stranger = KeyPair::from_seed(Seed::new([43; 32]));
    let mut flipped = image.clone();
    flipped.header[70] ^= 4;
    let mut renamed = image.clone();
    renamed.header[8] ^= 1;
    let mut broken = image.clone();
    broken.bytes[700] ^= 1;
    let cases = [
        (image.clone().signed(&stranger), GaveUp::Signature),
        (flipped, GaveUp::Signature),
        (renamed, GaveUp::Signature),
        (broken, GaveUp::Digest),
        (image.but(|it| it.board = 8), GaveUp::Board),
        (image.but(|it| it.only = Some(Uid([9; 8]))), GaveUp::Node),
    ];
    for (wrong, why) in cases {
        // The record says "try it", however that came about: a programmer's mistake, an image that lies.
        let medium = good.copy();
        assert!(Run::from(&medium, Slot::A).update(&image));
        let at = LAYOUT.header_at(Slot::B) as usize;
        medium.0.borrow_mut().flash[at..].fill(0xff);
        wrong.flash(&medium);
        assert_eq!(start(&medium), Ok(Slot::A), "{why:?}");
        assert_eq!(Run::from(&medium, Slot::A).info().gave_up, Some(why));
    }
}

#[test]
fn a_damaged_confirmed_image_gives_way_to_the_older_one_and_none_to_none() {
    let (medium, image) = node_and_image();
    assert!(Run::from(&medium, Slot::A).update(&image.but(|it| it.security = 3)));
    assert_eq!(start(&medium), Ok(Slot::B));
    Run::from(&medium, Slot::B).acknowledged();
    medium.0.borrow_mut().flash[LAYOUT.image_at(Slot::B) as usize + 5] ^= 1;
    assert_eq!(start(&medium), Ok(Slot::A), "an old image is better than a dead node");
    assert_eq!(Run::from(&medium, Slot::A).info().gave_up, Some(GaveUp::Damaged));
    medium.0.borrow_mut().flash[LAYOUT.image_at(Slot::A) as usize + 5] ^= 1;
    assert_eq!(start(&medium), Err(NoImage));
}

#[test]
fn without_its_record_a_node_runs_and_refuses_updates() {
    let (medium, image) = node_and_image();
    medium.0.borrow_mut().records_dead = true;
    assert_eq!(start(&medium), Ok(Slot::A));
    let mut run = Run::from(&medium, Slot::A);
    let refused = Some(UpdateState::Refused(UpdateRefusal::Record));
    assert_eq!(run.state(Downlink::UpdateBegin(image.begin())), refused);
}

#[test]
fn w35_a_power_cut_at_any_step_leaves_an_image_that_runs_and_an_update_that_can_be_finished() {
    let (first, image) = node_and_image();
    // Slot B has held another image before: what is left of it must not be taken for the new one.
    let older = Image::new(Slot::B, 9, 1_400);
    assert_eq!(Run::from(&first, Slot::A).transfer(&older), Some(UpdateState::Whole));
    let whole = first.copy();
    assert!(Run::from(&whole, Slot::A).update(&image));
    assert_eq!(start(&whole), Ok(Slot::B));
    Run::from(&whole, Slot::B).acknowledged();
    let steps = whole.0.borrow().steps;
    assert!(steps > 400, "{steps} steps of an update, its trial and its confirmation");
    for cut in 1..=steps {
        let medium = first.copy();
        medium.0.borrow_mut().rng = StdRng::seed_from_u64(SEED + cut as u64);
        medium.0.borrow_mut().steps_left = Some(cut);
        // One life with a cut in it, wherever that comes: in a block, in the record, in the loader, in the confirmation.
        let mut run = Run::from(&medium, Slot::A);
        if run.update(&image) && start(&medium) == Ok(Slot::B) {
            Run::from(&medium, Slot::B).acknowledged();
        }
        medium.0.borrow_mut().steps_left = None;
        let context = format!("seed {SEED}, power cut in step {cut} of {steps}");
        let slot = start(&medium).unwrap_or_else(|_| panic!("{context}: no image runs"));
        let mut run = Run::from(&medium, slot);
        if slot == Slot::A {
            assert!(run.update(&image), "{context}: the update cannot be finished");
            assert_eq!(start(&medium), Ok(Slot::B), "{context}");
            run = Run::from(&medium, Slot::B);
        }
        run.acknowledged();
        assert_eq!(start(&medium), Ok(Slot::B), "{context}");
        let record = Record::load(&mut medium.clone()).unwrap();
        assert_eq!((record.confirmed, record.trial), (Slot::B, None), "{context}");
    }
}

/// A node with one door that opens, on the wire of a test.
struct Door(Rc<core::cell::Cell<bool>>);

impl embedded_hal::digital::ErrorType for Door {
    type Error = core::convert::Infallible;
}

impl embedded_hal::digital::InputPin for Door {
    fn is_high(&mut self) -> Result<bool, Self::Error> {
        Ok(self.0.get())
    }

    fn is_low(&mut self) -> Result<bool, Self::Error> {
        Ok(!self.0.get())
    }
}

impl embedded_hal::digital::OutputPin for Door {
    fn set_low(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

struct Bench;
impl crate::Board for Bench {
    type Pin = Door;
    type Gauge = crate::battery::NoGauge;
    type Output = Door;
    type Thermometer = crate::heat::NoThermometer;
    type Watch = ();
}

#[test]
fn w39_events_go_before_reports_and_a_node_without_slots_ignores_an_update() {
    let open = Rc::new(core::cell::Cell::new(false));
    let identity = crate::Identity {
        uid: UID,
        boot: 9,
        firmware: FirmwareVersion { major: 1, minor: 0, patch: 0 },
        wiring: crate::Wiring::PointToPoint,
    };
    let mut sensors = heapless::Vec::new();
    let door = Sensor::Contact(Contact::new(Input::active_high(Door(open.clone())), DEBOUNCE_MS));
    assert!(sensors.push((1, door)).is_ok());
    let timing = crate::Timing::default();
    let mut node =
        crate::Node::<Bench>::new(crate::Parts { identity, timing, sensors, gauge: None, sounder: None, watch: () })
            .unwrap();
    let sent = RefCell::new(Vec::new());
    let mut wire = |bytes: &[u8]| {
        sent.borrow_mut().extend(Decoder::new().feed(bytes).map(|frame| frame.unwrap().message));
        true
    };
    let ask = |node: &mut crate::Node<Bench>, downlink| {
        let mut buffer = [0; FRAME_BYTES_MAX];
        node.on_bytes(0, encode(&Frame::down(0, downlink), &mut buffer).unwrap());
    };
    ask(&mut node, Downlink::UpdateQuery);
    node.poll(0, &mut wire);
    assert_eq!(node.stats().ignored_frames, 1);
    assert!(matches!(&sent.borrow()[0], Message::Up(Uplink::Hello(it)) if !it.capabilities.has(Capabilities::UPDATE)));

    let (medium, _) = node_and_image();
    let place = Place { board: BOARD, uid: UID, boot: 9, running: Slot::A, layout: LAYOUT };
    let mut updater = Updater::new(medium.clone(), medium, place);
    let situation = node.situation();
    updater.run(1_000, node.update_seam(), situation);
    node.poll(1_000, &mut wire);
    sent.borrow_mut().clear();
    // The answer is ready before the door has even settled; still the door goes first.
    ask(&mut node, Downlink::Identify);
    ask(&mut node, Downlink::UpdateQuery);
    updater.run(1_000, node.update_seam(), situation);
    open.set(true);
    node.poll(1_000, &mut |_: &[u8]| false);
    assert!(node.due_at_ms(1_000) <= 1_010, "an answer waits");
    node.poll(2_000, &mut wire);
    let order: Vec<u8> = sent
        .borrow()
        .iter()
        .map(|message| match message {
            Message::Up(Uplink::Hello(it)) if it.capabilities.has(Capabilities::UPDATE) => b'h',
            Message::Up(Uplink::Event(_)) => b'e',
            Message::Up(Uplink::UpdateInfo(_)) => b'u',
            _ => b'.',
        })
        .collect();
    assert_eq!(order, b"heu.", "{:?}", sent.borrow());
    assert!(node.situation().unsent && !node.situation().alarm);
}
