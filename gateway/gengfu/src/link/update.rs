//! The gateway's side of a node's firmware update (W39, W42).
//!
//! Owns one update of one node from the first question to the confirmed new version: which image, which block next, what to ask again, when
//! it is over and how that is said. Sans-I/O: uplinks and `now` go in, downlinks and a [`Progress`] come out. Refuses a bundle that is not
//! [`Verified`], to keep anything over its own end (the node's flash knows how far it is; the same update begun again goes on there), and to be
//! urgent: its owner asks [`NodeUpdate::take_send`] only when nothing else waits for the node.

use std::sync::Arc;

use gengfu_contract::words::Text;
use gengfu_wire::update::{BLOCK_BYTES, BlockBytes, HeaderBytes};
use gengfu_wire::{
    Capabilities, Downlink, FirmwareVersion, GaveUp, Hello, Slot, UpdateBegin, UpdateBlock, UpdateInfo, UpdateRefusal,
    UpdateReport, UpdateState, UpdateTry, Uplink,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::bundle::{Image, Verified};

/// An answer that does not come is asked for again after this. On a bus it comes with a poll.
pub const ANSWER_WAIT: SignedDuration = SignedDuration::from_secs(2);
/// What the node refuses for now is tried again after this.
pub const CALM_WAIT: SignedDuration = SignedDuration::from_secs(10);
/// A node that restarts to try an image says Hello again within this, or is asked by its link. A trial has three boots of three minutes.
pub const TRIAL_LIMIT: SignedDuration = SignedDuration::from_mins(15);
/// Silence after which the progress says that the node does not answer.
const SILENCE: SignedDuration = SignedDuration::from_secs(20);
/// A whole transfer whose digest is wrong is sent again so often. One broken frame in 4·10⁹ passes; twice the same fate is a broken flash.
const TRANSFERS_MAX: u32 = 3;

/// How far an update is, for people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The node is asked what it runs.
    Asks,
    /// Blocks are on their way.
    Sends,
    /// The node computes the digest.
    Checks,
    /// The node has everything and is told to try it.
    Tries,
    /// The node restarts, or runs the new image unconfirmed.
    Trial,
    /// The node runs the new version and has confirmed it.
    Done,
    /// It will not be; see the problem.
    Failed,
}

/// What stands in the way. [`Problem::passes`]: for now, and it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The node's firmware knows no updates.
    NotUpdatable,
    /// No answer.
    Silent,
    /// The node refuses.
    Refused(UpdateRefusal),
    /// Its boot loader gave the new image up; the old one runs.
    GaveUp(GaveUp),
    /// It came back with another version than the bundle's, and says no reason.
    OldVersion(FirmwareVersion),
    /// It never came back from the trial.
    Lost,
}

impl Problem {
    /// Whether it may pass by itself; the update goes on then.
    #[must_use]
    pub fn passes(self) -> bool {
        match self {
            Problem::Silent => true,
            Problem::Refused(why) => why.passes(),
            _ => false,
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn text(self) -> Text {
        use UpdateRefusal as R;
        let (zh, en) = match self {
            Problem::NotUpdatable => {
                ("节点的固件不支持远程升级", "the node's firmware cannot be updated over the link")
            }
            Problem::Silent => ("节点没有应答", "the node does not answer"),
            Problem::Refused(R::Header) => ("节点不认识该固件的格式", "the node does not know the form of this image"),
            Problem::Refused(R::Board) => ("固件不是该型号节点的", "the firmware is for another kind of board"),
            Problem::Refused(R::Slot) => {
                ("固件对应的存储区正在运行", "the image is for the slot that the node runs from")
            }
            Problem::Refused(R::Node) => ("固件只签发给另一个节点", "the firmware is signed for another node only"),
            Problem::Refused(R::Length) => ("固件太大，放不下", "the image does not fit the node's slot"),
            Problem::Refused(R::Security) => (
                "固件的安全版本低于节点已确认的版本（旧包重放）",
                "the firmware's security version is below what the node has confirmed (an old bundle)",
            ),
            Problem::Refused(R::Trial) => ("节点上的新固件正在试运行", "the node's present image is itself on trial"),
            Problem::Refused(R::Alarm) => ("节点正在报警，暂不升级", "an alarm stands at the node; the update waits"),
            Problem::Refused(R::Battery) => ("节点电池电量低，暂不升级", "the node's battery is low; the update waits"),
            Problem::Refused(R::Unsent) => {
                ("节点还有未确认的事件，暂不重启", "the node has events that are not acknowledged; its restart waits")
            }
            Problem::Refused(R::Unknown) => ("节点不知道该次传输", "the node does not know this transfer"),
            Problem::Refused(R::Digest) => {
                ("节点收到的固件校验不符", "the image that the node received has a wrong digest")
            }
            Problem::Refused(R::Flash) => ("节点的闪存写入失败", "the node's flash does not keep what is written"),
            Problem::Refused(R::Record) => {
                ("节点的启动记录无法保存", "the node's record of what to boot cannot be kept")
            }
            Problem::GaveUp(GaveUp::Signature) => (
                "节点不信任该固件的签名，已恢复旧固件",
                "the node trusts no key that signed the image; the old image runs",
            ),
            Problem::GaveUp(GaveUp::Unconfirmed) => (
                "新固件试运行未通过，已恢复旧固件",
                "the new image did not confirm itself on trial; the old image runs",
            ),
            Problem::GaveUp(GaveUp::Record) => (
                "节点无法记录试运行状态，仍用旧固件",
                "the node could not keep the record of the trial; the old image runs",
            ),
            Problem::GaveUp(GaveUp::Digest) => (
                "节点闪存中的新固件已损坏，已恢复旧固件",
                "the new image was damaged in the node's flash; the old image runs",
            ),
            Problem::GaveUp(GaveUp::Damaged) => (
                "正在使用的固件已损坏，节点运行更早的固件",
                "the confirmed image is damaged; the node runs the older one",
            ),
            Problem::GaveUp(_) => (
                "节点的引导程序拒绝新固件，已恢复旧固件",
                "the node's boot loader refused the new image; the old image runs",
            ),
            Problem::OldVersion(_) => ("节点重启后仍是旧版本", "the node came back with its old version"),
            Problem::Lost => ("节点试运行新固件后没有回来", "the node did not come back from the trial"),
        };
        Text { zh: zh.into(), en: en.into() }
    }

    /// What to do.
    #[must_use]
    pub fn remedy(self) -> Text {
        use UpdateRefusal as R;
        let (zh, en) = match self {
            Problem::NotUpdatable => {
                ("用编程器烧写带引导程序的固件一次", "flash it once by cable, with the boot loader")
            }
            Problem::Silent => ("检查线路；恢复后自动继续", "check the line; it goes on by itself"),
            Problem::Refused(R::Header | R::Slot | R::Unknown) => {
                ("更新网关后重试", "update the gateway and try again")
            }
            Problem::Refused(R::Board | R::Length) => ("选用该型号的固件包", "take the bundle for this kind of board"),
            Problem::Refused(R::Node) => {
                ("选用签发给该节点或全部节点的固件包", "take a bundle signed for this node, or for all")
            }
            Problem::Refused(R::Security) => (
                "选用更新的固件包；确需降级时用 --allow-downgrade --only 单独签发",
                "take a newer bundle; to go back on purpose sign one with --allow-downgrade --only UID",
            ),
            Problem::Refused(R::Trial | R::Alarm | R::Unsent) => {
                ("无需处理，稍后自动继续", "nothing; it goes on by itself")
            }
            Problem::Refused(R::Battery) => ("更换电池；之后自动继续", "change the battery; it goes on by itself"),
            Problem::Refused(R::Digest) => ("检查线路后重试", "check the line and try again"),
            Problem::Refused(R::Flash | R::Record) => ("更换节点", "replace the node"),
            Problem::GaveUp(GaveUp::Signature) => (
                "用节点信任的密钥签名，或给节点写入新的密钥页",
                "sign with a key that the node trusts, or flash it a new page of keys",
            ),
            Problem::GaveUp(GaveUp::Record) => ("更换节点的 EEPROM", "replace the node's EEPROM"),
            Problem::GaveUp(GaveUp::Damaged) => {
                ("重新升级；再次出现则更换节点", "update it again; replace the node if it comes back")
            }
            Problem::GaveUp(_) | Problem::OldVersion(_) | Problem::Lost => {
                ("查看节点日志，修正固件后再升级", "read the node's log lines, mend the firmware and update again")
            }
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

/// The same for people and other programs, as `gengfu status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateShown {
    /// How far.
    pub stage: Stage,
    /// Bytes that the node has.
    pub sent_bytes: u32,
    /// Bytes of the image; 0 before it is known which.
    pub total_bytes: u32,
    /// What stands in the way.
    pub problem: Option<Text>,
    /// What to do about it.
    pub remedy: Option<Text>,
}

impl From<Progress> for UpdateShown {
    fn from(progress: Progress) -> Self {
        let Progress { stage, sent_bytes, total_bytes, problem } = progress;
        let (problem, remedy) = (problem.map(Problem::text), problem.map(Problem::remedy));
        Self { stage, sent_bytes, total_bytes, problem, remedy }
    }
}

/// How an update stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How far.
    pub stage: Stage,
    /// Bytes that the node has.
    pub sent_bytes: u32,
    /// Bytes of the image; 0 before it is known which.
    pub total_bytes: u32,
    /// What stands in the way now, or for good when [`Stage::Failed`].
    pub problem: Option<Problem>,
}

/// One update of one node.
#[derive(Debug)]
pub struct NodeUpdate {
    bundle: Arc<Verified>,
    stage: Stage,
    target: Option<Slot>,
    sent_bytes: u32,
    problem: Option<Problem>,
    /// The node as it last introduced itself.
    version: Option<FirmwareVersion>,
    boot: Option<u32>,
    /// The boot that was told to restart.
    left_boot: Option<u32>,
    /// What to say next is said at this moment, or at once.
    send_at: Option<Timestamp>,
    /// When the node was last heard; since the first look at the clock at the earliest.
    heard_at: Option<Timestamp>,
    trial_since: Option<Timestamp>,
    /// The node has answered the Begin: blocks may go.
    is_begun: bool,
    digest_faults: u32,
}

impl NodeUpdate {
    /// Begins an update; the node is asked to introduce itself.
    #[must_use]
    pub fn new(bundle: Arc<Verified>) -> Self {
        Self {
            bundle,
            stage: Stage::Asks,
            target: None,
            sent_bytes: 0,
            problem: None,
            version: None,
            boot: None,
            left_boot: None,
            send_at: None,
            heard_at: None,
            trial_since: None,
            is_begun: false,
            digest_faults: 0,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let total_bytes = self.image().map_or(0, |image| image.manifest.length);
        Progress { stage: self.stage, sent_bytes: self.sent_bytes, total_bytes, problem: self.problem }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Failed)
    }

    /// Takes every uplink of the node; what does not concern an update changes nothing.
    pub fn on_uplink(&mut self, now: Timestamp, uplink: &Uplink) {
        if self.is_over() {
            return;
        }
        self.heard_at = Some(now);
        if self.problem == Some(Problem::Silent) {
            self.problem = None;
        }
        match uplink {
            Uplink::Hello(hello) => self.on_hello(hello),
            Uplink::UpdateInfo(info) => self.on_info(now, info),
            Uplink::UpdateReport(report) => self.on_report(now, report),
            _ => {}
        }
    }

    /// The next downlink, if one is due. To be asked when nothing else waits, and at least every second.
    pub fn take_send(&mut self, now: Timestamp) -> Option<Downlink> {
        if self.is_over() {
            return None;
        }
        if self.trial_since.is_some_and(|since| now.duration_since(since) >= TRIAL_LIMIT) {
            self.fail(Problem::Lost);
            return None;
        }
        let heard_at = *self.heard_at.get_or_insert(now);
        if now.duration_since(heard_at) >= SILENCE && self.problem.is_none() {
            self.problem = Some(Problem::Silent);
        }
        if self.send_at.is_some_and(|at| now < at) {
            return None;
        }
        self.send_at = Some(now.saturating_add(ANSWER_WAIT).unwrap_or(Timestamp::MAX));
        match self.stage {
            // Its version is in its Hello.
            Stage::Asks if self.version.is_none() => Some(Downlink::Identify),
            Stage::Asks | Stage::Trial => Some(Downlink::UpdateQuery),
            // A Begin that repeats the last asks how the transfer stands.
            Stage::Checks => Some(Downlink::UpdateBegin(self.begin()?)),
            Stage::Sends if self.is_begun && self.problem.is_none() => self.block().map(Downlink::UpdateBlock),
            // What was in the way may have changed how far the node is.
            Stage::Sends => Some(Downlink::UpdateBegin(self.begin()?)),
            Stage::Tries => Some(Downlink::UpdateTry(UpdateTry { transfer: self.begin()?.transfer() })),
            Stage::Done | Stage::Failed => None,
        }
    }

    fn image(&self) -> Option<&Image> {
        self.target.map(|slot| self.bundle.image(slot))
    }

    fn begin(&self) -> Option<UpdateBegin> {
        let header = HeaderBytes::from_slice(&self.image()?.header).ok()?;
        Some(UpdateBegin { header })
    }

    fn block(&self) -> Option<UpdateBlock> {
        let rest = self.image()?.bytes.get(self.sent_bytes as usize..)?;
        let data = BlockBytes::from_slice(&rest[..rest.len().min(BLOCK_BYTES)]).ok()?;
        Some(UpdateBlock { transfer: self.begin()?.transfer(), offset: self.sent_bytes, data })
    }

    fn fail(&mut self, problem: Problem) {
        self.stage = Stage::Failed;
        self.problem = Some(problem);
    }

    /// To a stage whose first word is said at once.
    fn go(&mut self, stage: Stage) {
        self.stage = stage;
        self.problem = None;
        self.send_at = None;
    }

    fn on_hello(&mut self, hello: &Hello) {
        let is_new = self.boot.replace(hello.boot).is_some_and(|boot| boot != hello.boot);
        let is_first = self.version.replace(hello.firmware).is_none();
        if !hello.capabilities.has(Capabilities::UPDATE) {
            // A boot loader that could not go back would be one thing; an image that knows no updates is another: both need a cable.
            return self.fail(Problem::NotUpdatable);
        }
        if (is_first || is_new) && self.stage != Stage::Trial {
            // It restarted in the middle: its flash says where to go on.
            self.go(Stage::Asks);
        } else if is_new {
            self.send_at = None;
        }
    }

    fn on_info(&mut self, now: Timestamp, info: &UpdateInfo) {
        self.boot = Some(info.boot);
        let manifest = self.bundle.image(info.running).manifest;
        let is_there = self.version == Some(manifest.version) && !info.is_trial;
        match self.stage {
            Stage::Asks if self.version.is_none() => {}
            Stage::Asks if is_there => self.go(Stage::Done),
            Stage::Asks if info.is_trial => self.wait(now, Problem::Refused(UpdateRefusal::Trial)),
            Stage::Asks => {
                self.target = Some(info.running.other());
                self.sent_bytes = 0;
                self.is_begun = false;
                self.go(Stage::Sends);
            }
            // Still the boot that is about to restart.
            Stage::Trial if self.left_boot == Some(info.boot) => {}
            Stage::Trial if self.target == Some(info.running) && info.is_trial => {}
            Stage::Trial if self.target == Some(info.running) && is_there => self.go(Stage::Done),
            Stage::Trial => {
                let old = Problem::OldVersion(self.version.unwrap_or(manifest.version));
                self.fail(info.gave_up.map_or(old, Problem::GaveUp));
            }
            _ => {}
        }
    }

    /// Not now; the same question again later.
    fn wait(&mut self, now: Timestamp, problem: Problem) {
        self.problem = Some(problem);
        self.send_at = Some(now.saturating_add(CALM_WAIT).unwrap_or(Timestamp::MAX));
    }

    fn on_report(&mut self, now: Timestamp, report: &UpdateReport) {
        let is_ours = self.begin().is_some_and(|begin| begin.transfer() == report.transfer);
        if !is_ours || !matches!(self.stage, Stage::Sends | Stage::Checks | Stage::Tries) {
            return;
        }
        match report.state {
            UpdateState::Wants { offset } => {
                self.sent_bytes = offset;
                self.is_begun = true;
                self.go(Stage::Sends);
            }
            UpdateState::Checks => {
                self.sent_bytes = self.image().map_or(0, |image| image.manifest.length);
                if self.stage != Stage::Checks {
                    self.go(Stage::Checks);
                    // The node tells its end unasked.
                    self.send_at = Some(now.saturating_add(ANSWER_WAIT).unwrap_or(Timestamp::MAX));
                }
            }
            UpdateState::Whole => {
                self.sent_bytes = self.image().map_or(0, |image| image.manifest.length);
                if self.stage != Stage::Tries {
                    self.go(Stage::Tries);
                }
            }
            UpdateState::Restarts => {
                self.go(Stage::Trial);
                self.left_boot = Some(report.boot);
                self.trial_since = Some(now);
                self.send_at = Some(now.saturating_add(ANSWER_WAIT).unwrap_or(Timestamp::MAX));
            }
            UpdateState::Refused(why) => self.on_refusal(now, why),
        }
    }

    fn on_refusal(&mut self, now: Timestamp, why: UpdateRefusal) {
        match why {
            _ if why.passes() => self.wait(now, Problem::Refused(why)),
            // It forgot the transfer, as after a restart whose Hello is still on its way.
            UpdateRefusal::Unknown => self.go(Stage::Asks),
            UpdateRefusal::Digest if self.retries() => self.go(Stage::Asks),
            _ => self.fail(Problem::Refused(why)),
        }
    }

    fn retries(&mut self) -> bool {
        self.digest_faults += 1;
        self.digest_faults < TRANSFERS_MAX
    }
}

#[cfg(test)]
mod tests;
