//! The replacement of a node's firmware: blocks from the gateway into the slot that does not run.
//!
//! Owns what a node takes and refuses of an update (W35 to W39, W41), how far a transfer is, over restarts too, and when the node restarts for
//! it. Refuses to judge signatures: the boot loader does, before an image ever runs ([`crate::slots::choose`]). Knows no wire: the node hands it
//! questions and takes its answers through a [`Seam`], so that on a bus they wait for a poll like everything else. Nothing here takes longer
//! than one page of flash takes to be erased.

use embedded_storage::nor_flash::NorFlash;
use gengfu_wire::update::{BLOCK_BYTES, HEADER_BYTES, split_header};
use gengfu_wire::{
    Capabilities, Downlink, Manifest, Slot, Uid, UpdateBegin, UpdateBlock, UpdateInfo, UpdateRefusal, UpdateReport,
    UpdateState, Uplink,
};

use crate::slots::{ImageSum, Layout, Record, Records, TRIAL_BOOTS, Trial, manifest, read_header};

/// A trial that no gateway has acknowledged for so long restarts, in milliseconds. After [`TRIAL_BOOTS`] the old image is back.
pub const TRIAL_MS: u64 = 180_000;
/// From the promise to restart to the restart, in milliseconds: the report shall reach the gateway.
pub const RESTART_AFTER_MS: u64 = 300;
/// A record that could not be written is tried again after this, in milliseconds.
const RECORD_AGAIN_MS: u64 = 10_000;
/// Blocks whose digest is taken in one call: a kilobyte.
const SUM_BLOCKS: usize = 8;
/// Largest unit of writing of a flash that is served, in bytes.
const WRITE_BYTES_MAX: usize = 16;

/// What matters to an update of what the node is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Situation {
    /// A head is in alarm, hushed or tested, or a call for help is not yet acknowledged.
    pub alarm: bool,
    /// The battery is low.
    pub battery_low: bool,
    /// Events wait for their Ack.
    pub unsent: bool,
}

/// An answer on its way to the wire.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Info(UpdateInfo),
    Report(UpdateReport),
}

/// Between the node and its [`Updater`]: one question, one answer. A newer one takes the place of an older; the gateway asks again.
#[derive(Debug, Default)]
pub struct Seam {
    is_served: bool,
    question: Option<Downlink>,
    answer: Option<Answer>,
    is_acked: bool,
}

impl Seam {
    /// There is an [`Updater`]; the node says so in its Hello. To be called before the first poll.
    pub fn serve(&mut self) {
        self.is_served = true;
    }

    /// A downlink of an update. False when this node has no [`Updater`].
    pub(crate) fn ask(&mut self, downlink: Downlink) -> bool {
        if self.is_served {
            self.question = Some(downlink);
        }
        self.is_served
    }

    /// An Ack of this boot came: the gateway has heard the Hello and has a disk.
    pub(crate) fn acknowledged(&mut self) {
        self.is_acked = true;
    }

    /// What is to be sent.
    pub(crate) fn answer(&self) -> Option<Uplink> {
        self.answer.map(|answer| match answer {
            Answer::Info(info) => Uplink::UpdateInfo(info),
            Answer::Report(report) => Uplink::UpdateReport(report),
        })
    }

    /// It was sent.
    pub(crate) fn answered(&mut self) {
        self.answer = None;
    }

    pub(crate) fn capability(&self) -> Capabilities {
        if self.is_served { Capabilities::UPDATE } else { Capabilities::default() }
    }
}

/// The fixed things an updater must know.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The kind of board; as in [`Manifest::board`].
    pub board: u16,
    /// The node.
    pub uid: Uid,
    /// This run of it.
    pub boot: u32,
    /// The slot that this image runs from.
    pub running: Slot,
    /// The slots.
    pub layout: Layout,
}

/// What the board must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on. True: call again soon, there is work left.
    GoOn {
        /// Whether there is.
        soon: bool,
    },
    /// Restart now.
    Restart,
}

/// A transfer.
struct Transfer {
    id: u32,
    manifest: Manifest,
    next: u32,
    phase: Phase,
}

enum Phase {
    Takes,
    Sums(ImageSum),
    Whole,
}

impl Transfer {
    fn state(&self) -> UpdateState {
        match self.phase {
            Phase::Takes => UpdateState::Wants { offset: self.next },
            Phase::Sums(_) => UpdateState::Checks,
            Phase::Whole => UpdateState::Whole,
        }
    }
}

/// Takes updates. A board that can be updated calls [`Updater::run`] in each round of its loop.
pub struct Updater<F, R> {
    flash: F,
    records: R,
    place: Place,
    /// `None`: the record cannot be read, so nothing is begun.
    record: Option<Record>,
    transfer: Option<Transfer>,
    restart_at_ms: Option<u64>,
    record_again_at_ms: u64,
}

impl<F: NorFlash, R: Records> Updater<F, R> {
    /// At the boot of the image in `place.running`.
    pub fn new(flash: F, mut records: R, place: Place) -> Self {
        let record = Record::load(&mut records).ok();
        Self { flash, records, place, record, transfer: None, restart_at_ms: None, record_again_at_ms: 0 }
    }

    /// Whether the running image is on trial.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.record.and_then(|record| record.trial).is_some_and(|trial| trial.slot == self.place.running)
    }

    /// Looks what there is to do, does a little of it, and says what follows.
    pub fn run(&mut self, now_ms: u64, seam: &mut Seam, situation: Situation) -> Step {
        seam.serve();
        if self.is_trial() && self.mind_the_trial(now_ms, seam, situation) {
            return Step::Restart;
        }
        if let Some(question) = seam.question.take() {
            let answer = self.answer(now_ms, &question, situation);
            seam.answer = answer.or(seam.answer);
        }
        if let Some(report) = self.sum() {
            seam.answer = Some(Answer::Report(report));
        }
        if self.restart_at_ms.is_some_and(|at| now_ms >= at && seam.answer.is_none()) {
            return Step::Restart;
        }
        let sums = self.transfer.as_ref().is_some_and(|transfer| matches!(transfer.phase, Phase::Sums(_)));
        Step::GoOn { soon: sums || self.restart_at_ms.is_some() }
    }

    /// Confirms a trial that a gateway has acknowledged. True when it has waited too long for that. Never while somebody calls for help:
    /// what a restart would lose is worth more than the old image.
    fn mind_the_trial(&mut self, now_ms: u64, seam: &mut Seam, situation: Situation) -> bool {
        if !seam.is_acked {
            return now_ms >= TRIAL_MS && !situation.alarm;
        }
        if now_ms < self.record_again_at_ms {
            return false;
        }
        let running = manifest(&mut self.flash, &self.place.layout, self.place.running);
        if let (Some(record), Some(running)) = (self.record.as_mut(), running) {
            let mut confirmed = *record;
            confirmed.confirm(&running);
            match confirmed.store(&mut self.records) {
                Ok(()) => {
                    *record = confirmed;
                    seam.answer = Some(Answer::Info(self.info()));
                }
                Err(_) => self.record_again_at_ms = now_ms.saturating_add(RECORD_AGAIN_MS),
            }
        }
        false
    }

    fn info(&self) -> UpdateInfo {
        UpdateInfo {
            boot: self.place.boot,
            board: self.place.board,
            running: self.place.running,
            is_trial: self.is_trial(),
            security: self.record.map_or(0, |record| record.security),
            image_bytes_max: self.place.layout.image_bytes_max(),
            gave_up: self.record.and_then(|record| record.gave_up),
        }
    }

    fn answer(&mut self, now_ms: u64, question: &Downlink, situation: Situation) -> Option<Answer> {
        let (transfer, state) = match question {
            Downlink::UpdateQuery => return Some(Answer::Info(self.info())),
            Downlink::UpdateBegin(begin) => (begin.transfer(), self.begin(begin, situation)),
            Downlink::UpdateBlock(block) => (block.transfer, self.block(block, situation)),
            Downlink::UpdateTry(it) => (it.transfer, self.try_it(now_ms, it.transfer, situation)),
            _ => return None,
        };
        let state = state.unwrap_or_else(UpdateState::Refused);
        Some(Answer::Report(UpdateReport { boot: self.place.boot, transfer, state }))
    }

    /// What speaks against taking anything now (W37).
    fn is_calm(&self, situation: Situation) -> Result<(), UpdateRefusal> {
        match situation {
            Situation { alarm: true, .. } => Err(UpdateRefusal::Alarm),
            Situation { battery_low: true, .. } => Err(UpdateRefusal::Battery),
            // The other slot holds the image to go back to.
            _ if self.is_trial() => Err(UpdateRefusal::Trial),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, begin: &UpdateBegin, situation: Situation) -> Result<UpdateState, UpdateRefusal> {
        let header: &[u8; HEADER_BYTES] = begin.header[..].try_into().map_err(|_| UpdateRefusal::Header)?;
        let (bytes, _) = split_header(header).ok_or(UpdateRefusal::Header)?;
        let manifest = Manifest::from_bytes(bytes).map_err(|_| UpdateRefusal::Header)?;
        self.suits(&manifest)?;
        self.is_calm(situation)?;
        let id = begin.transfer();
        if self.restart_at_ms.is_some() {
            return Ok(UpdateState::Restarts);
        }
        if let Some(transfer) = self.transfer.as_ref().filter(|transfer| transfer.id == id) {
            return Ok(transfer.state());
        }
        self.forget_untried()?;
        let next = self.open(&manifest, header)?;
        let is_here = next >= manifest.length;
        let phase = if is_here { Phase::Sums(ImageSum::new(&manifest)) } else { Phase::Takes };
        let transfer = Transfer { id, manifest, next, phase };
        Ok(self.transfer.insert(transfer).state())
    }

    /// What speaks against this image (W36).
    fn suits(&self, manifest: &Manifest) -> Result<(), UpdateRefusal> {
        let record = self.record.ok_or(UpdateRefusal::Record)?;
        if manifest.board != self.place.board {
            Err(UpdateRefusal::Board)
        } else if manifest.slot == self.place.running {
            Err(UpdateRefusal::Slot)
        } else if manifest.only.is_some_and(|only| only != self.place.uid) {
            Err(UpdateRefusal::Node)
        } else if manifest.length > self.place.layout.image_bytes_max() {
            Err(UpdateRefusal::Length)
        } else if manifest.security < record.security && !manifest.may_lower_security {
            Err(UpdateRefusal::Security)
        } else {
            Ok(())
        }
    }

    /// A trial that was promised and not begun is none any more: its slot is about to be erased.
    fn forget_untried(&mut self) -> Result<(), UpdateRefusal> {
        let record = self.record.as_mut().ok_or(UpdateRefusal::Record)?;
        if record.trial.is_some() {
            let mut next = Record { trial: None, ..*record };
            next.store(&mut self.records).map_err(|_| UpdateRefusal::Record)?;
            *record = next;
        }
        Ok(())
    }

    /// Makes the slot ready for this image and finds how much of it is there already (W38).
    fn open(&mut self, manifest: &Manifest, header: &[u8; HEADER_BYTES]) -> Result<u32, UpdateRefusal> {
        let (layout, slot) = (self.place.layout, manifest.slot);
        let there = read_header(&mut self.flash, &layout, slot).ok_or(UpdateRefusal::Flash)?;
        if there != *header {
            self.transfer = None;
            let at = layout.header_at(slot);
            self.flash.erase(at, at + layout.page_bytes).map_err(|_| UpdateRefusal::Flash)?;
            self.write(at, header)?;
            return Ok(0);
        }
        let mut pages = 0;
        while pages * layout.page_bytes < manifest.length && self.is_marked(slot, pages)? {
            pages += 1;
        }
        Ok((pages * layout.page_bytes).min(manifest.length))
    }

    fn is_marked(&mut self, slot: Slot, page: u32) -> Result<bool, UpdateRefusal> {
        let mut mark = [0xff; WRITE_BYTES_MAX];
        let mark = mark.get_mut(..F::WRITE_SIZE).ok_or(UpdateRefusal::Flash)?;
        let at = self.place.layout.mark_at(slot, page, F::WRITE_SIZE);
        self.flash.read(at, mark).map_err(|_| UpdateRefusal::Flash)?;
        Ok(mark.iter().all(|byte| *byte == 0))
    }

    /// Writes and reads back. What is short of the flash's unit is filled with ones.
    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), UpdateRefusal> {
        let mut block = [0xff; BLOCK_BYTES];
        let mut back = [0; BLOCK_BYTES];
        block[..bytes.len()].copy_from_slice(bytes);
        let length = bytes.len().next_multiple_of(F::WRITE_SIZE);
        self.flash.write(at, &block[..length]).map_err(|_| UpdateRefusal::Flash)?;
        self.flash.read(at, &mut back).map_err(|_| UpdateRefusal::Flash)?;
        if back[..length] == block[..length] { Ok(()) } else { Err(UpdateRefusal::Flash) }
    }

    fn block(&mut self, block: &UpdateBlock, situation: Situation) -> Result<UpdateState, UpdateRefusal> {
        self.is_calm(situation)?;
        let transfer = self.transfer.as_ref().filter(|it| it.id == block.transfer).ok_or(UpdateRefusal::Unknown)?;
        let (manifest, next) = (transfer.manifest, transfer.next);
        let due = (manifest.length - next).min(BLOCK_BYTES as u32);
        if !matches!(transfer.phase, Phase::Takes) || block.offset != next || block.data.len() != due as usize {
            return Ok(transfer.state());
        }
        if let Err(why) = self.take(&manifest, next, &block.data) {
            self.transfer = None;
            return Err(why);
        }
        let transfer = self.transfer.as_mut().ok_or(UpdateRefusal::Unknown)?;
        transfer.next = next + due;
        if transfer.next == manifest.length {
            transfer.phase = Phase::Sums(ImageSum::new(&manifest));
        }
        Ok(transfer.state())
    }

    fn take(&mut self, manifest: &Manifest, offset: u32, data: &[u8]) -> Result<(), UpdateRefusal> {
        let (layout, slot) = (self.place.layout, manifest.slot);
        let at = layout.image_at(slot) + offset;
        if offset.is_multiple_of(layout.page_bytes) {
            self.flash.erase(at, at + layout.page_bytes).map_err(|_| UpdateRefusal::Flash)?;
        }
        self.write(at, data)?;
        let end = offset + data.len() as u32;
        if end.is_multiple_of(layout.page_bytes) || end == manifest.length {
            let mark = [0; WRITE_BYTES_MAX];
            let mark = mark.get(..F::WRITE_SIZE).ok_or(UpdateRefusal::Flash)?;
            let at = layout.mark_at(slot, offset / layout.page_bytes, F::WRITE_SIZE);
            self.flash.write(at, mark).map_err(|_| UpdateRefusal::Flash)?;
        }
        Ok(())
    }

    /// Goes on with the digest of a whole image, a kilobyte a call. Gives the report at its end.
    fn sum(&mut self) -> Option<UpdateReport> {
        let transfer = self.transfer.as_mut()?;
        let Phase::Sums(sum) = &mut transfer.phase else { return None };
        let is_read = (0..SUM_BLOCKS).all(|_| sum.is_whole() || sum.add(&mut self.flash, &self.place.layout).is_some());
        if is_read && !sum.is_whole() {
            return None;
        }
        let (id, slot) = (transfer.id, transfer.manifest.slot);
        let state = if is_read && sum.clone().matches() {
            transfer.phase = Phase::Whole;
            UpdateState::Whole
        } else {
            // What is there is not what was signed: the next Begin shall not go on from it.
            self.transfer = None;
            let at = self.place.layout.header_at(slot);
            let is_erased = self.flash.erase(at, at + self.place.layout.page_bytes).is_ok();
            UpdateState::Refused(if is_erased { UpdateRefusal::Digest } else { UpdateRefusal::Flash })
        };
        Some(UpdateReport { boot: self.place.boot, transfer: id, state })
    }

    fn try_it(&mut self, now_ms: u64, id: u32, situation: Situation) -> Result<UpdateState, UpdateRefusal> {
        let transfer = self.transfer.as_ref().filter(|it| it.id == id).ok_or(UpdateRefusal::Unknown)?;
        let (state, slot) = (transfer.state(), transfer.manifest.slot);
        if self.restart_at_ms.is_some() {
            return Ok(UpdateState::Restarts);
        }
        if state != UpdateState::Whole {
            return Ok(state);
        }
        self.is_calm(situation)?;
        if situation.unsent {
            return Err(UpdateRefusal::Unsent);
        }
        let record = self.record.as_mut().ok_or(UpdateRefusal::Record)?;
        let mut next = Record { trial: Some(Trial { slot, boots_left: TRIAL_BOOTS }), gave_up: None, ..*record };
        next.store(&mut self.records).map_err(|_| UpdateRefusal::Record)?;
        *record = next;
        self.restart_at_ms = Some(now_ms.saturating_add(RESTART_AFTER_MS));
        Ok(UpdateState::Restarts)
    }
}
