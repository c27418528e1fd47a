//! The task that takes bundles and watches over a trial.
//!
//! Owns the road of one change: check it, put it on the disk, have the gateway started again; then, in the start that tries it, watch the uplink, keep it or
//! give it up; and the last word to whoever asked. It promises that the disk knows each step before anybody is told of it, so a kill between two steps is
//! carried on at the next start. Refuses a second change while one is being tried.

use std::sync::Arc;
use std::time::Duration;

use gengfu_contract::command::{ConfigCommand, Outcome, Reply};
use gengfu_contract::words::Text;
use gengfu_outbox::{Lane, Outbox};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::bundle::digest;
use super::check::{self, Waivers};
use super::slots::{Asked, Ending, Entry, Need, Slot, Trial, Verdict};
use super::status::ConfigStatus;
use super::trial::{Judge, Judgement, Seen};
use super::{STARTS_MAX, Settings};
use crate::clock::Clock;
use crate::config::Config;
use crate::uplink::{LinkState, UplinkStatus};

/// During a trial it is looked at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The answer "accepted" has so long to leave before the gateway goes down.
const ANSWER_LEAVES: Duration = Duration::from_secs(1);

/// What is wanted of the configuration.
#[derive(Debug)]
pub enum Order {
    /// The centre's command.
    Command {
        /// Its id.
        cmd_id: String,
        /// The command.
        command: ConfigCommand,
    },
    /// Somebody at the box wants to try a bundle.
    Try {
        /// Its bytes.
        bundle: Vec<u8>,
        /// What they waive.
        waivers: Waivers,
        /// Who.
        who: String,
        /// Answered once it is on the disk and will be tried, or with why not.
        answer: oneshot::Sender<Result<(), Text>>,
    },
    /// Somebody at the box wants back what was in use before.
    Back {
        /// Who.
        who: String,
        /// As above.
        answer: oneshot::Sender<Result<(), Text>>,
    },
}

/// What the keeper is given.
pub struct KeeperParts {
    /// The folder of bundles.
    pub settings: Settings,
    /// For `status`, as it was at the start.
    pub status: watch::Sender<ConfigStatus>,
    /// The configuration that runs.
    pub running: Config,
    /// What is wanted.
    pub orders: mpsc::Receiver<Order>,
    /// Last words on commands, to the decider.
    pub answers: mpsc::Sender<Reply>,
    /// How the uplink is.
    pub uplink: watch::Receiver<UplinkStatus>,
    /// What waits for the centre.
    pub outbox: Outbox,
    /// The last change's command has no last word in the journal yet.
    pub owes_last_word: bool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the gateway shall start again.
    pub restart: CancellationToken,
    /// The end.
    pub shutdown: CancellationToken,
}

/// See the module.
pub struct Keeper {
    parts: KeeperParts,
    judge: Option<Judge>,
}

impl Keeper {
    /// A keeper for this start.
    #[must_use]
    pub fn new(parts: KeeperParts) -> Self {
        let trial = parts.settings.slots.state().trial.as_ref().filter(|_| parts.settings.is_trial);
        let judge = trial.map(|trial| {
            let window = Duration::from_secs(trial.window_s);
            Judge::new(trial.need, window, parts.clock.uptime(), trial.alarms_before)
        });
        Self { parts, judge }
    }

    /// Serves until shutdown.
    pub async fn run(mut self) {
        if let Some(last) = self.parts.settings.slots.state().last.clone().filter(|_| self.parts.owes_last_word) {
            self.say(&last).await;
        }
        let shutdown = self.parts.shutdown.clone();
        loop {
            let look = async {
                match &self.judge {
                    Some(_) => tokio::time::sleep(LOOK_EVERY).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(order) = self.parts.orders.recv() => self.obey(order).await,
                () = look => {}
            }
            self.watch_trial().await;
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Command { cmd_id, command } => self.command(cmd_id, &command).await,
            Order::Try { bundle, waivers, who, answer } => {
                let asked = Asked { cmd_id: None, operator: who };
                let taken = self.offer(&bundle, asked, waivers);
                let is_taken = taken.is_ok();
                // Whoever asked and left is not told.
                let _ = answer.send(taken);
                if is_taken {
                    self.restart().await;
                }
            }
            Order::Back { who, answer } => {
                let back = self.back(who);
                let is_back = back.is_ok();
                let _ = answer.send(back);
                if is_back {
                    // A trial that was ended by hand has no other end.
                    self.judge = None;
                }
                if is_back {
                    self.restart().await;
                }
            }
        }
    }

    /// The centre's command: it was answered "accepted" and is owed a last word.
    async fn command(&mut self, cmd_id: String, command: &ConfigCommand) {
        let state = self.parts.settings.slots.state();
        if state.trial.as_ref().is_some_and(|trial| trial.asked.cmd_id.as_ref() == Some(&cmd_id)) {
            // Given again: the trial ends with its last word.
            return;
        }
        let ended = state.last.clone().filter(|last| last.asked.cmd_id.as_ref() == Some(&cmd_id));
        if let Some(last) = ended {
            return self.say(&last).await;
        }
        let taken = match command.bundle_bytes() {
            Ok(bytes) if self.is_in_use(&bytes) => {
                return self.answer(Reply::new(cmd_id, Outcome::Done, None, self.parts.clock.now())).await;
            }
            Ok(bytes) => {
                let asked = Asked { cmd_id: Some(cmd_id.clone()), operator: command.operator.clone() };
                self.offer(&bytes, asked, Waivers::default())
            }
            Err(error) => Err(Text {
                zh: format!("bundle 不是有效的 base64：{error}"),
                en: format!("`bundle` is no base64 ({error}): encode the bytes of the file with padding"),
            }),
        };
        match taken {
            Ok(()) => self.restart().await,
            Err(why) => {
                tracing::warn!(cmd = %cmd_id, why = %why.en, "a configuration of the centre is refused");
                self.answer(Reply::new(cmd_id, Outcome::Refused, Some(why), self.parts.clock.now())).await;
            }
        }
    }

    fn is_in_use(&self, bytes: &[u8]) -> bool {
        let current = self.parts.settings.slots.state().current.as_ref();
        !self.parts.settings.is_trial && current.is_some_and(|current| current.bundle_sha256 == digest(bytes))
    }

    /// Checks a bundle and puts it on the disk, to be tried at the next start.
    fn offer(&mut self, bytes: &[u8], asked: Asked, waivers: Waivers) -> Result<(), Text> {
        let KeeperParts { settings, running, clock, .. } = &self.parts;
        let state = settings.slots.state();
        if let Some(trial) = &state.trial {
            return Err(Text {
                zh: format!("配置包 {} 正在试用，请等待其结束", trial.entry.counter),
                en: format!("configuration {} is being tried: wait for its end", trial.entry.counter),
            });
        }
        let verified = check::judge(bytes, running, &settings.file, state, waivers)?;
        let alarms_before = alarms_pending(&self.parts.outbox);
        if alarms_before > 0 && asked.cmd_id.is_some() {
            return Err(Text {
                zh: "有生命安全报警尚待中心回执，此时不切换配置；请稍后重发".into(),
                en: "a life-safety alarm waits for the centre's receipt: nothing is changed now, send it again later"
                    .into(),
            });
        }
        let entry = Entry {
            slot: Slot::A,
            bundle_sha256: digest(bytes),
            config_sha256: verified.manifest.sha256,
            counter: verified.manifest.counter,
            created_at: verified.manifest.created_at,
            signer: verified.signer.to_string(),
            file_sha256: settings.file.sha256.clone(),
            since: clock.now(),
        };
        let counter = entry.counter;
        let window_s = running.changes.trial.as_secs();
        let need = needed(&self.parts.uplink.borrow(), waivers);
        let trial = Trial { entry, asked, need, window_s, starts: 0, alarms_before };
        self.parts.settings.slots.offer(bytes, trial).map_err(|error| Text {
            zh: format!("配置无法写入磁盘：{error}"),
            en: format!("it cannot be put on the disk: {error}"),
        })?;
        tracing::warn!(counter, ?need, window_s, "a configuration is accepted and will be tried");
        self.show();
        Ok(())
    }

    fn back(&mut self, who: String) -> Result<(), Text> {
        let now = self.parts.clock.now();
        let reason = Text {
            zh: format!("{who} 在现场恢复了原配置"),
            en: format!("{who} went back to what was in use before"),
        };
        let slots = &mut self.parts.settings.slots;
        let done = if slots.state().trial.is_some() {
            slots.give_up(reason, now).map(|()| true)
        } else {
            slots.take_back(Asked { cmd_id: None, operator: who }, reason, now)
        };
        self.show();
        match done {
            Ok(true) => Ok(()),
            Ok(false) => Err(Text {
                zh: "正在使用网关上的配置文件，没有可恢复的配置".into(),
                en: "the file on the box is in use: there is nothing to go back to".into(),
            }),
            Err(error) => Err(Text { zh: format!("无法写入磁盘：{error}"), en: error.to_string() }),
        }
    }

    /// Looks at the trial of this start, if there is one.
    async fn watch_trial(&mut self) {
        let Some(judge) = &mut self.judge else { return };
        let uptime = self.parts.clock.uptime();
        let seen = seen(&self.parts.uplink.borrow(), &self.parts.outbox);
        let judgement = judge.look(uptime, &seen);
        let left_s = judge.left(uptime).as_secs();
        let (now, slots) = (self.parts.clock.now(), &mut self.parts.settings.slots);
        match judgement {
            Judgement::Wait => self.parts.status.send_modify(|status| {
                if let Some(trial) = &mut status.trial {
                    trial.left_s = left_s;
                }
            }),
            Judgement::Keep => {
                if let Err(error) = slots.keep(now) {
                    return tracing::error!(%error, "a configuration has proven itself and cannot be kept yet");
                }
                self.judge = None;
                self.parts.settings.is_trial = false;
                self.show();
                if let Some(last) = self.parts.settings.slots.state().last.clone() {
                    tracing::warn!(counter = last.counter, "a configuration has proven itself and is kept");
                    self.say(&last).await;
                }
            }
            Judgement::GiveUp(reason) => {
                tracing::error!(why = %reason.en, "a configuration is given up; the gateway goes back to the one before");
                if let Err(error) = slots.give_up(reason, now) {
                    // The count of starts ends it, or the start does that cannot be counted.
                    tracing::error!(%error, starts_max = STARTS_MAX, "that cannot be written down");
                }
                self.judge = None;
                self.show();
                // At once: an alarm may be waiting for it.
                self.parts.restart.cancel();
            }
        }
    }

    /// The last word on a command, by how its change ended. One that nobody commanded needs none.
    async fn say(&self, last: &Verdict) {
        let Some(cmd_id) = last.asked.cmd_id.clone() else { return };
        let outcome = if last.ending == Ending::Kept { Outcome::Done } else { Outcome::Refused };
        let reason = last.reason.as_ref().map(|why| Text {
            zh: format!("配置已回退：{}", why.zh),
            en: format!("the configuration was rolled back: {}", why.en),
        });
        self.answer(Reply::new(cmd_id, outcome, reason, self.parts.clock.now())).await;
    }

    async fn answer(&self, reply: Reply) {
        tokio::select! {
            // The decider is gone only when the gateway stops; the next start says it then.
            _ = self.parts.answers.send(reply) => {}
            () = self.parts.shutdown.cancelled() => {}
        }
    }

    /// Has the gateway started again, once whoever asked has the answer.
    async fn restart(&self) {
        tokio::select! {
            () = tokio::time::sleep(ANSWER_LEAVES) => {}
            () = self.parts.shutdown.cancelled() => {}
        }
        self.parts.restart.cancel();
    }

    fn show(&self) {
        self.parts.status.send_modify(|status| {
            let sha256 = status.sha256.clone();
            self.parts.settings.show(status);
            let kept = self.parts.settings.slots.state().current.as_ref();
            if let Some(entry) = kept.filter(|entry| entry.config_sha256 == sha256) {
                status.since = entry.since;
            }
        });
    }
}

/// Life-safety items without the centre's receipt.
fn alarms_pending(outbox: &Outbox) -> u64 {
    let stats = outbox.stats();
    let urgent = stats.lanes.iter().filter(|lane| matches!(lane.lane, Lane::Fire | Lane::Emergency));
    urgent.map(|lane| lane.pending).sum()
}

/// What will prove the new configuration: what works now.
fn needed(uplink: &UplinkStatus, waivers: Waivers) -> Need {
    if waivers.without_uplink {
        return Need::Nothing;
    }
    let receipts_come =
        uplink.state == LinkState::Online && uplink.last_receipt_at.is_some() && !uplink.centre_is_away();
    if receipts_come { Need::Receipt } else { Need::Subscription }
}

fn seen(uplink: &UplinkStatus, outbox: &Outbox) -> Seen {
    let problem = uplink
        .detail
        .as_ref()
        .map(|en| Text { zh: uplink.detail_zh.clone().unwrap_or_else(|| en.clone()), en: en.clone() });
    Seen {
        is_listening: uplink.listening,
        has_receipt: uplink.last_receipt_at.is_some(),
        alarms_pending: alarms_pending(outbox),
        uplink_problem: problem.map(|text| Text {
            zh: format!("上行 {}：{}", uplink.broker, text.zh),
            en: format!("uplink to {}: {}", uplink.broker, text.en),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gengfu_outbox::Options;
    use jiff::{SignedDuration, Timestamp};

    use super::super::begin::BoxFile;
    use super::super::slots::Slots;
    use super::*;
    use crate::clock::ManualClock;
    use crate::identity::testing::{CutFolder, Moment};
    use crate::uplink::BrokerConfig;

    const CONFIG: &str = "[gateway]\nsite = \"s\"\nname = \"g\"\ndata_dir = \"d\"\n[uplink]\nbroker = \"h:1883\"\n";

    /// A keeper in the first start of a trial, over a disk whose power can be cut.
    struct Bench {
        keeper: Keeper,
        disk: CutFolder,
        clock: Arc<ManualClock>,
        uplink: watch::Sender<UplinkStatus>,
        answers: mpsc::Receiver<Reply>,
        restart: CancellationToken,
        _dir: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let disk = CutFolder::default();
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let mut slots = Slots::over(Box::new(disk.clone()), Path::new("/config")).unwrap();
        let entry = Entry {
            slot: Slot::A,
            bundle_sha256: digest(b"bundle"),
            config_sha256: String::new(),
            counter: 7,
            created_at: at,
            signer: String::new(),
            file_sha256: String::new(),
            since: at,
        };
        let asked = Asked { cmd_id: Some("c-7".into()), operator: "op-1".into() };
        let trial = Trial { entry, asked, need: Need::Receipt, window_s: 300, starts: 1, alarms_before: 0 };
        slots.offer(b"bundle", trial).unwrap();
        let file = BoxFile { path: "/no/file".into(), base: "/no".into(), sha256: String::new() };
        let settings = Settings { slots, file, is_trial: true, _lock: None };
        let running = Config::parse(CONFIG, Path::new("/no")).unwrap();
        let broker = BrokerConfig::new("h", 1883, running.uplink.protocol, "c");
        let clock = Arc::new(ManualClock::at(at));
        let (uplink, uplink_seen) = watch::channel(UplinkStatus::starting(&broker, at));
        let (answers_in, answers) = mpsc::channel(4);
        let restart = CancellationToken::new();
        let parts = KeeperParts {
            settings,
            status: watch::channel(ConfigStatus::of_file(Path::new("/no/file"), "", at)).0,
            running,
            orders: mpsc::channel(1).1,
            answers: answers_in,
            uplink: uplink_seen,
            outbox: Outbox::open(Options::new(dir.path().join("outbox"))).unwrap(),
            owes_last_word: false,
            clock: clock.clone(),
            restart: restart.clone(),
            shutdown: CancellationToken::new(),
        };
        Bench { keeper: Keeper::new(parts), disk, clock, uplink, answers, restart, _dir: dir }
    }

    #[tokio::test]
    async fn what_has_proven_itself_is_told_only_when_the_disk_knows_it() {
        let mut bench = bench();
        bench.keeper.watch_trial().await;
        assert!(bench.keeper.judge.is_some(), "no receipt yet");
        bench.uplink.send_modify(|uplink| uplink.last_receipt_at = Some(Timestamp::UNIX_EPOCH));
        bench.disk.cut_at(0, Moment::Before);
        bench.keeper.watch_trial().await;
        assert!(bench.answers.try_recv().is_err() && bench.keeper.judge.is_some(), "the disk did not take it");
        bench.disk.reboot(true);
        bench.keeper.watch_trial().await;
        let reply = bench.answers.try_recv().unwrap();
        assert_eq!((reply.cmd_id.as_str(), reply.outcome), ("c-7", Outcome::Done));
        let state = bench.keeper.parts.settings.slots.state();
        assert_eq!((state.current.as_ref().map(|it| it.counter), state.trial.as_ref()), (Some(7), None));
        assert!(!bench.restart.is_cancelled(), "it goes on with it");
    }

    #[tokio::test]
    async fn what_has_failed_ends_with_a_restart_even_when_the_disk_takes_nothing() {
        for disk_fails in [false, true] {
            let mut bench = bench();
            bench.uplink.send_modify(|uplink| uplink.listening = true);
            bench.clock.advance(SignedDuration::from_secs(299));
            bench.keeper.watch_trial().await;
            assert!(!bench.restart.is_cancelled(), "a subscription is no receipt, but its time is not over");
            if disk_fails {
                bench.disk.cut_at(0, Moment::Before);
            }
            bench.clock.advance(SignedDuration::from_secs(1));
            bench.keeper.watch_trial().await;
            assert!(bench.restart.is_cancelled());
            let state = bench.keeper.parts.settings.slots.state();
            assert_eq!(state.trial.is_none(), !disk_fails, "its counted starts end it then");
            assert!(bench.answers.try_recv().is_err(), "the start that goes back has the last word");
        }
    }

    #[tokio::test]
    async fn a_command_that_is_given_again_after_its_end_is_answered_as_before() {
        let mut bench = bench();
        let command = ConfigCommand {
            bundle: ConfigCommand::encode_bundle(b"bundle"),
            operator: "op-1".into(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        };
        bench.keeper.command("c-7".into(), &command).await;
        assert!(bench.answers.try_recv().is_err(), "its trial is still running");
        bench.keeper.command("c-8".into(), &command).await;
        let busy = bench.answers.try_recv().unwrap();
        assert!(busy.outcome == Outcome::Refused && busy.reason.unwrap().en.contains("7 is being tried"));
        bench.clock.advance(SignedDuration::from_secs(300));
        bench.keeper.watch_trial().await;
        bench.keeper.command("c-7".into(), &command).await;
        let reply = bench.answers.try_recv().unwrap();
        assert_eq!((reply.cmd_id.as_str(), reply.outcome), ("c-7", Outcome::Refused));
        assert!(reply.reason.unwrap().en.contains("no receipt of the centre within 300 s"));
    }
}
