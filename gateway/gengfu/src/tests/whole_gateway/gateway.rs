//! One run of the gateway, from its start to its power cut.
//!
//! Owns what `app.rs`, the ports' tasks and the decider's thread do in the product: it carries batches, commands, answers and orders between the real line sessions, the
//! real decider and the real uplink, in one thread and in simulated time. Refuses to decide anything, and to know what lies beyond its wires.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gengfu_alarm::rules::Rules;
use gengfu_alarm::{LocalOutput, OutputKind, Want};
use gengfu_contract::command::{Outcome, Reply};
use gengfu_contract::event::ClockQuality;
use gengfu_outbox::{Health, Options, Outbox};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, StepWatch};
use crate::config::Protocol;
use crate::decide::{Action, Decider, Effects, Identity, Input, Wiring};
use crate::link::bus::Moment;
use crate::link::line::Line;
use crate::link::tests::rig::at_us;
use crate::link::{LinkBatch, PortConfig};
use crate::uplink::simulated::SimUplink;
use crate::uplink::{self, Board, BrokerConfig, CommandRequest, UplinkConfig, UplinkParts, UplinkStatus};

use super::broker::HOSTS;
use super::{Plant, slug};

/// The decider looks at its timers this often, the uplink at its own.
pub const TICK_US: u64 = 200_000;
/// Commands that may wait for the decider; when it is full the uplink answers "busy".
const COMMANDS_MAX: usize = 8;

/// The machine's clock: simulated time and what somebody set it to.
#[derive(Debug)]
pub struct SimClock(Mutex<(u64, i64, ClockQuality)>);

impl SimClock {
    pub fn new() -> SimClock {
        SimClock(Mutex::new((0, 0, ClockQuality::Synced)))
    }

    pub fn set(&self, now_us: u64, offset_us: i64, quality: ClockQuality) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (now_us, offset_us, quality);
    }

    fn read(&self) -> (u64, i64, ClockQuality) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let (now_us, offset_us, _) = self.read();
        at_us(now_us) + SignedDuration::from_micros(offset_us)
    }

    fn quality(&self) -> ClockQuality {
        self.read().2
    }

    fn uptime(&self) -> SignedDuration {
        SignedDuration::from_micros(i64::try_from(self.read().0).unwrap())
    }
}

/// What every run of a gateway is made of.
pub struct Build {
    pub ports: Vec<PortConfig>,
    pub rules: Rules,
    pub protocol: Protocol,
    pub two_brokers: bool,
    pub plant: Plant,
    pub clock: Arc<SimClock>,
}

/// A line and its batch, and what the decider tells it.
type Told = (usize, usize, oneshot::Receiver<Result<(), String>>);

/// What one turn of the decider gave, until the disk is done with it.
struct Finishing {
    done_us: u64,
    acks: Vec<Told>,
    effects: Effects,
}

/// What the decider did in one turn, for those who judge it.
pub struct Turn {
    pub at: Timestamp,
    pub wanted: Vec<Want>,
    pub replies: Vec<Reply>,
    /// The outbox took what was decided, or nothing was to be taken.
    pub is_healthy: bool,
    /// The centre was known to be away.
    pub away: bool,
}

/// A gateway that runs.
pub struct Gateway {
    pub outbox: Outbox,
    pub decider: Decider,
    pub lines: Vec<Line>,
    pub outs: Vec<Vec<u8>>,
    pub status: watch::Receiver<UplinkStatus>,
    pub started_us: u64,
    uplink: SimUplink,
    commands: mpsc::Receiver<CommandRequest>,
    replies: mpsc::Sender<Reply>,
    wake: Arc<Notify>,
    clock: Arc<SimClock>,
    steps: StepWatch,
    last_words: Vec<Reply>,
    finishing: Option<Finishing>,
    pub tick_us: u64,
    plant: Plant,
}

impl Gateway {
    /// Starts it; `None` when the disk does not let it.
    pub fn start(build: &Build, disk: &gengfu_outbox::SimDisk, now_us: u64) -> Option<Gateway> {
        let clock = Arc::clone(&build.clock);
        let outbox = Outbox::open(Options::simulated(disk)).ok()?;
        let identity = Identity { site: slug("site"), gateway: slug("gw"), evidence_dir: "pictures".into() };
        let board = Board::new();
        let (rules, quality) = (build.rules.clone(), clock.quality());
        let decider =
            Decider::start(identity, rules, wiring(build), outbox.clone(), board.clone(), clock.now(), quality).ok()?;
        let saved = |port: &PortConfig| {
            port.nodes().iter().map(|node| outbox.get(&node.cursor_key())).collect::<Result<Vec<_>, _>>()
        };
        let saved = build.ports.iter().map(saved).collect::<Result<Vec<_>, _>>().ok()?;
        let uplink_identity = uplink::Identity {
            site: slug("site"),
            gateway: slug("gw"),
            boot: decider.boot(),
            version: "simulated".into(),
        };
        let mut config = UplinkConfig::new(BrokerConfig::new(HOSTS[0], 1883, build.protocol, "gw"), uplink_identity);
        if build.two_brokers {
            config.other_brokers.push(uplink::Address { host: HOSTS[1].into(), port: 1883 });
            config.switch.return_after = Duration::from_secs(60);
        }
        let (to_core, commands) = mpsc::channel(COMMANDS_MAX);
        let (replies, from_core) = mpsc::channel(64);
        let (shown, status) = watch::channel(UplinkStatus::starting(&config.broker, clock.now()));
        let wake = Arc::new(Notify::new());
        let parts = UplinkParts {
            outbox: outbox.clone(),
            board,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            wake: Arc::clone(&wake),
            commands: to_core,
            replies: from_core,
            status: shown,
            shutdown: CancellationToken::new(),
        };
        let moment = Moment { at: clock.now(), quality, uptime: Duration::ZERO };
        let mut lines: Vec<Line> =
            build.ports.iter().zip(saved).map(|(port, saved)| Line::new(port, saved, moment)).collect();
        lines.iter_mut().for_each(|line| line.port_opened(moment));
        Some(Gateway {
            outbox,
            decider,
            outs: vec![vec![]; lines.len()],
            lines,
            status,
            started_us: now_us,
            uplink: SimUplink::new(config, parts),
            commands,
            replies,
            wake,
            steps: StepWatch::new(clock.as_ref()),
            clock,
            last_words: vec![],
            finishing: None,
            tick_us: now_us,
            plant: build.plant,
        })
    }

    pub fn moment(&self, now_us: u64) -> Moment {
        let uptime = Duration::from_micros(now_us - self.started_us);
        Moment { at: self.clock.now(), quality: self.clock.quality(), uptime }
    }

    pub fn is_poisoned(&self) -> bool {
        matches!(self.outbox.health(), Health::Poisoned { .. })
    }

    /// Bytes came in at a port.
    pub fn on_bytes(&mut self, now_us: u64, port: usize, bytes: &[u8]) {
        let moment = self.moment(now_us);
        self.lines[port].on_bytes(moment, bytes);
    }

    /// When something here has to be done.
    pub fn due_us(&self) -> u64 {
        let finishing = self.finishing.as_ref().map(|it| it.done_us);
        let has_batch = || self.lines.iter().flat_map(Line::sessions).any(|it| it.has_batch());
        let ready = finishing.unwrap_or_else(|| if has_batch() { 0 } else { u64::MAX });
        let again = self.uplink.again_at().and_then(|at| u64::try_from(at.as_micros()).ok()).unwrap_or(u64::MAX);
        // The disk holds up the uplink too.
        let again = again.max(finishing.unwrap_or(0));
        let lines = self.lines.iter().zip(&self.outs).filter(|(_, out)| out.is_empty());
        let line = lines.filter_map(|(line, _)| line.due_at()).min();
        let line =
            line.map_or(u64::MAX, |due| self.started_us + u64::try_from(due.as_nanos().div_ceil(1_000)).unwrap());
        self.tick_us.min(ready).min(again).min(line)
    }

    /// Timers of the lines, and what they have to say.
    pub fn run_lines(&mut self, now_us: u64, tick: bool) {
        let moment = self.moment(now_us);
        for (line, out) in self.lines.iter_mut().zip(&mut self.outs) {
            if tick {
                line.tick(moment);
            }
            line.on_due(moment);
            line.fill(moment, out);
        }
    }

    /// Acknowledges, answers and orders what the disk has by now.
    pub fn finish(&mut self, now_us: u64, loses_orders: bool) {
        let Some(done) = self.finishing.take_if(|it| it.done_us <= now_us) else { return };
        for (port, session, mut answer) in done.acks {
            let session = &mut self.lines[port].sessions_mut()[session];
            match answer.try_recv() {
                Ok(Ok(())) if self.plant == Plant::AckBeforeCommit => {}
                Ok(Ok(())) => session.committed(),
                _ => session.failed(),
            }
        }
        for reply in done.effects.replies {
            // A full channel: dropped, and the centre repeats its command.
            let _ = self.replies.try_send(reply);
        }
        for (cmd_id, order) in done.effects.orders {
            if loses_orders {
                self.decider.not_passed_on(&cmd_id);
                continue;
            }
            let outcome = self.obey(&order);
            self.last_words.push(Reply::new(cmd_id, outcome, None, self.clock.now()));
        }
        self.wake.notify_one();
    }

    fn obey(&mut self, order: &crate::decide::Order) -> Outcome {
        let Action::Sound(sound_for) = order.what else { return Outcome::Refused };
        let sessions = self.lines.iter_mut().flat_map(|line| line.sessions_mut().iter_mut());
        let session = sessions.into_iter().find(|session| session.config().node == order.node);
        let taken = session.map(|session| session.order(&crate::link::Order::Sounder { sound_for }));
        if matches!(taken, Some(Ok(()))) { Outcome::Done } else { Outcome::Refused }
    }

    /// The clock was set since the decider was told last.
    pub fn is_step_unseen(&self) -> bool {
        self.steps.unseen(self.clock.as_ref()).is_some()
    }

    /// One turn of the decider, if it has something to do and the disk is not busy.
    pub fn decide(&mut self, now_us: u64, disk: &gengfu_outbox::SimDisk) -> Option<Turn> {
        if self.finishing.is_some() {
            return None;
        }
        let (mut inputs, mut acks) = (vec![], vec![]);
        for (port, line) in self.lines.iter_mut().enumerate() {
            for (index, session) in line.sessions_mut().iter_mut().enumerate() {
                let Some(batch) = session.take_batch() else { continue };
                if self.plant == Plant::AckBeforeCommit {
                    session.committed();
                }
                let cursor = (session.config().cursor_key(), batch.cursor.to_bytes());
                let (done, answer) = oneshot::channel();
                inputs.push(Input::Link(LinkBatch { observations: batch.observations, cursor, done }));
                acks.push((port, index, answer));
            }
        }
        let commands = std::iter::from_fn(|| self.commands.try_recv().ok());
        inputs.extend(commands.map(Input::Command));
        inputs.extend(self.last_words.drain(..).map(Input::Answered));
        if let Some(step) = self.steps.look(self.clock.as_ref()) {
            self.decider.clock_stepped(step);
        }
        let away = self.status.borrow().centre_is_away();
        self.decider.centre_is_away(away);
        let at = self.clock.now();
        if inputs.is_empty() && self.decider.next_due().is_none_or(|due| at < due) {
            return None;
        }
        let effects = self.decider.process(at, self.clock.quality(), inputs);
        let turn = Turn {
            at,
            wanted: effects.wanted.clone(),
            replies: effects.replies.clone(),
            is_healthy: !self.is_poisoned(),
            away,
        };
        let done_us = now_us + disk.take_spent_ms() * 1_000;
        self.finishing = Some(Finishing { done_us, acks, effects });
        Some(turn)
    }

    /// Lets the uplink do what it can, unless the disk holds it up. `tick`: also what time alone brings.
    pub fn run_uplink(&mut self, now_us: u64, tick: bool) {
        if self.finishing.as_ref().is_some_and(|it| it.done_us > now_us) {
            return;
        }
        if tick {
            self.wake.notify_one();
        }
        self.uplink.poll(Duration::from_micros(now_us));
    }
}

fn wiring(build: &Build) -> Wiring {
    let nodes = || build.ports.iter().flat_map(|port| port.nodes());
    let channels = nodes().flat_map(|node| {
        node.channels.iter().map(|(channel, (device, _))| (device.clone(), (node.node.clone(), *channel)))
    });
    Wiring {
        channels: channels.collect(),
        sounders: nodes().map(|node| (node.node.clone(), None)).collect(),
        // The building's lamp: it shows every alarm that the centre did not confirm in time.
        outputs: vec![LocalOutput { name: slug("lamp"), kind: OutputKind::Lamp, node: None, dwelling: None }],
        ..Wiring::default()
    }
}
