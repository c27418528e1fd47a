//! One node's protocol at the gateway's end. The rules W19 to W29 of `gengfu_wire` are kept here.
//!
//! Owns what is believed: which boot speaks, which number comes next, what a level means, when silence is a fault. Sans-I/O:
//! bytes and `now` go in; observations, downlinks and figures come out. Refuses to acknowledge by itself: [`Session::take_batch`] gives out
//! observations with the cursor that covers them, and only [`Session::committed`] makes an `Ack` of it. When the disk refuses, [`Session::failed`]
//! goes back to what the disk has, and the node sends the rest again.

mod boots;
mod events;
mod levels;
mod orders;
mod state;

use std::sync::Arc;

use gengfu_alarm::observation::{Link, Observation, What};
use gengfu_contract::event::{ClockQuality, Origin};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use gengfu_wire::{Ack, Battery, Capabilities, DecodeError, Decoder, Downlink, Fault, Frame, Message, Uid, Uplink};
use jiff::{SignedDuration, Timestamp};

use super::cursor::Cursor;
use super::downlinks::Downlinks;
use super::node_clock::NodeClock;
use super::problem::Problem;
use super::stats::{Discard, LinkStats};
use super::update::NodeUpdate;
use super::{NodeConfig, PortConfig};

/// Observations that may wait for the decider. A node has at most a window of events on the wire; what is beyond comes again.
pub const OBSERVATIONS_MAX: usize = 256;
/// Between two calls more time than this does not count as listening: the gateway stood still, or its clock was set.
pub const LISTEN_MAX: SignedDuration = SignedDuration::from_secs(5);
/// Bytes without a frame that are no accident: two frames of a node that speaks at another speed.
pub const NOISE_BYTES: u64 = 64;
/// A node that has not introduced itself is asked at most this often.
const IDENTIFY_EVERY: SignedDuration = SignedDuration::from_millis(200);
/// And by itself this often.
const IDENTIFY_AGAIN: SignedDuration = SignedDuration::from_secs(3);
/// Two nodes that are heard at one place within this are both there; nobody exchanges a node faster.
const SWAP_LEAST: SignedDuration = SignedDuration::from_secs(10);
/// A clash of addresses is shown for so long after its last sign.
const CLASH_SHOWN: SignedDuration = SignedDuration::from_secs(60);

/// Observations and the cursor that covers them.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// In order.
    pub observations: Vec<Observation>,
    /// To be stored with them, in one atomic batch.
    pub cursor: Cursor,
}

/// The run of the node that is spoken to.
#[derive(Debug, Clone)]
struct Boot {
    id: u32,
    uid: Uid,
    capabilities: Capabilities,
    clock: NodeClock,
}

/// When, and how well that is known.
#[derive(Debug, Clone, Copy)]
struct Now {
    at: Timestamp,
    quality: ClockQuality,
}

/// One node's session. See the module.
#[derive(Debug)]
pub struct Session {
    config: NodeConfig,
    port: Arc<str>,
    baud: u32,
    is_on_bus: bool,
    stats: LinkStats,
    decoder: Decoder,
    /// What the disk has.
    committed: Cursor,
    /// What is on its way there.
    in_flight: Option<Cursor>,
    /// What was taken from the node.
    taken: Cursor,
    waiting: Vec<Observation>,
    boot: Option<Boot>,
    /// By boot: the number that its next event will get, as far as it was heard.
    numbered: Vec<(u32, u32)>,
    link_told: Option<bool>,
    heartbeat_told_at: Option<Timestamp>,
    battery_told: Option<Battery>,
    /// Time for which this gateway has run; no clock that is set changes it.
    awake: SignedDuration,
    /// Time listened to without hearing the node.
    silent: SignedDuration,
    called_at: Option<Timestamp>,
    quality: ClockQuality,
    /// Bytes since the last sound frame.
    noise_bytes: u64,
    port_problem: Option<Problem>,
    node_problem: Option<Problem>,
    /// On a bus: whether any node of it answers.
    bus_answers: bool,
    /// When several nodes were last noticed at this place.
    clashed: Option<SignedDuration>,
    /// When the expected node was last heard to introduce itself, or another one.
    introduced: Option<(Uid, SignedDuration)>,
    identified: Option<SignedDuration>,
    pinged: bool,
    say: Downlinks,
    update: Option<NodeUpdate>,
}

impl Session {
    /// Takes up where the stored cursor says. What was wrong with it, if anything, is a warning: then events that the node still keeps may be
    /// taken a second time.
    #[must_use]
    pub fn new(port: &PortConfig, config: NodeConfig, stored: Option<&[u8]>, now: Timestamp) -> Self {
        let mut stats = LinkStats::starting(port, &config, now);
        let committed = match stored.map(Cursor::from_bytes).transpose() {
            Ok(cursor) => cursor.unwrap_or_default(),
            Err(error) => {
                let zh = format!("无法读取该链路已保存的位置（{error}），已重新开始");
                let en = format!("the stored position of this link cannot be read ({error}); it was begun anew");
                let remedy = Text {
                    zh: "节点的事件可能重复；请检查网关的磁盘".into(),
                    en: "events of the node may have been taken twice; check the gateway's disk".into(),
                };
                stats.warn(Text { zh, en }, remedy);
                Cursor::default()
            }
        };
        let is_on_bus = port.as_bus().is_some();
        Self {
            port: stats.port.as_str().into(),
            baud: port.baud(),
            is_on_bus,
            stats,
            decoder: Decoder::new(),
            taken: committed.clone(),
            committed,
            in_flight: None,
            waiting: Vec::new(),
            boot: None,
            numbered: Vec::new(),
            link_told: None,
            heartbeat_told_at: None,
            battery_told: None,
            awake: SignedDuration::ZERO,
            silent: SignedDuration::ZERO,
            called_at: Some(now),
            quality: ClockQuality::Unsynced,
            noise_bytes: 0,
            port_problem: None,
            node_problem: None,
            bus_answers: false,
            clashed: None,
            introduced: None,
            identified: None,
            pinged: false,
            update: None,
            say: Downlinks::new(config.configure(), !is_on_bus),
            config,
        }
    }

    /// The node, as configured.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The port is open, from a clean line on: whoever is there is asked to introduce itself.
    pub fn port_opened(&mut self, now: Timestamp) {
        self.decoder = Decoder::new();
        self.port_problem = None;
        self.noise_bytes = 0;
        self.say.identify();
        self.stats.opened += 1;
        self.show(now);
    }

    /// The port cannot be used. The link is told down only when the silence has lasted: a blink of an adapter is no trouble.
    pub fn port_lost(&mut self, now: Timestamp, problem: Problem) {
        self.port_problem = Some(problem);
        self.show(now);
    }

    /// Takes bytes from a line of its own, in any portions. On a bus the master cuts the frames.
    pub fn on_bytes(&mut self, now: Timestamp, quality: ClockQuality, bytes: &[u8]) {
        self.listen(now, quality);
        self.noise_bytes = self.noise_bytes.saturating_add(bytes.len() as u64);
        for byte in bytes {
            match self.decoder.push(*byte) {
                None => {}
                Some(Ok(frame)) => self.take_frame(Now { at: now, quality }, frame),
                Some(Err(error)) => self.take_broken(&error),
            }
        }
        self.show(now);
    }

    /// Takes a frame that the master of a bus has cut.
    pub fn on_frame(&mut self, now: Timestamp, quality: ClockQuality, frame: Frame) {
        self.listen(now, quality);
        self.take_frame(Now { at: now, quality }, frame);
        self.show(now);
    }

    /// Takes what was no frame in the answer of this node.
    pub fn on_broken(&mut self, now: Timestamp, quality: ClockQuality, error: &DecodeError) {
        self.listen(now, quality);
        self.take_broken(error);
        self.show(now);
    }

    /// Bytes arrived as this node's answer, and no frame with them.
    pub fn on_noise(&mut self, bytes: u64) {
        self.noise_bytes = self.noise_bytes.saturating_add(bytes);
    }

    /// Counts what went no further.
    pub fn on_discarded(&mut self, reason: Discard, what: &dyn std::fmt::Debug) {
        self.discard(reason, what);
    }

    /// Counts a poll of this node, answered or not.
    pub fn on_polled(&mut self, answered: bool) {
        self.stats.polls += 1;
        self.stats.unanswered += u64::from(!answered);
    }

    /// Whether anybody answers on this node's bus: then its own silence has another cause.
    pub fn on_bus_answers(&mut self, answers: bool) {
        self.bus_answers = answers;
    }

    /// Several nodes answer in this one's place.
    pub fn on_clash(&mut self, now: Timestamp) {
        self.clashed = Some(self.awake);
        self.show(now);
    }

    /// Who was heard here belongs elsewhere and is being called there: no clash.
    pub fn on_misplaced(&mut self) {
        self.clashed = None;
        self.introduced = None;
    }

    /// The node works, but somebody should look after it.
    pub fn warn(&mut self, text: Text, remedy: Text) {
        self.stats.warn(text, remedy);
    }

    /// Time passes. Call it at least every second.
    pub fn tick(&mut self, now: Timestamp, quality: ClockQuality) {
        self.listen(now, quality);
        let silence = SignedDuration::try_from(self.config.silence).unwrap_or(SignedDuration::MAX);
        if self.silent >= silence && self.link_told != Some(false) {
            self.tell_down(Now { at: now, quality });
        }
        if self.silent >= silence / 2 && !self.pinged {
            self.pinged = true;
            // On a bus each poll asks that.
            if !self.is_on_bus {
                self.say.ping();
            }
        }
        if self.boot.is_none() {
            self.ask_who(IDENTIFY_AGAIN);
        }
        self.show(now);
    }

    /// Whether [`Session::take_send`] has something to give.
    #[must_use]
    pub fn has_send(&self) -> bool {
        self.say.is_waiting()
    }

    /// The next frame to send, if there is one.
    pub fn take_send(&mut self, now: Timestamp) -> Option<Frame> {
        // An update yields to everything else (W39).
        let downlink = match self.say.next(now, self.quality) {
            Some(downlink) => downlink,
            None => self.update.as_mut()?.take_send(now)?,
        };
        if downlink == Downlink::Identify {
            self.identified = Some(self.awake);
        }
        self.stats.frames_sent += 1;
        Some(Frame::down(self.config.address, downlink))
    }

    /// Whether [`Session::take_batch`] has something to give.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        self.in_flight.is_none() && (!self.waiting.is_empty() || self.taken != self.committed)
    }

    /// Everything that waits for the disk; `None` when nothing does, or when the last batch is still on its way.
    pub fn take_batch(&mut self) -> Option<Batch> {
        if !self.has_batch() {
            return None;
        }
        self.in_flight = Some(self.taken.clone());
        Some(Batch { observations: std::mem::take(&mut self.waiting), cursor: self.taken.clone() })
    }

    /// The last batch is durable: its `Ack` may go (W19).
    pub fn committed(&mut self) {
        if let Some(cursor) = self.in_flight.take() {
            self.committed = cursor;
            if let Some(boot) = self.boot.as_ref().map(|boot| boot.id) {
                self.acknowledge(boot);
            }
        }
    }

    /// The last batch is not durable. Everything since the last durable one is forgotten here and asked for again.
    pub fn failed(&mut self) {
        self.in_flight = None;
        self.waiting.clear();
        self.committed.doubt(&self.taken);
        self.taken = self.committed.clone();
        self.boot = None;
        self.link_told = None;
        self.heartbeat_told_at = None;
        self.battery_told = None;
        self.say.forget_ack();
        self.say.identify();
        self.stats.refused += 1;
    }

    /// Figures and state for people.
    #[must_use]
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Counts the time since the last call as silence, as far as the gateway was there to listen (W26).
    fn listen(&mut self, now: Timestamp, quality: ClockQuality) {
        self.quality = quality;
        let passed = self.called_at.replace(now).map_or(SignedDuration::ZERO, |before| now.duration_since(before));
        let passed = passed.clamp(SignedDuration::ZERO, LISTEN_MAX);
        self.silent = self.silent.saturating_add(passed);
        self.awake = self.awake.saturating_add(passed);
        self.say.pass(passed);
    }

    fn is_within(&self, limit: SignedDuration, at: Option<SignedDuration>) -> bool {
        at.is_some_and(|at| self.awake - at < limit)
    }

    /// Asks for a Hello, but not again within `every`.
    fn ask_who(&mut self, every: SignedDuration) {
        if !self.is_within(every, self.identified) {
            self.say.identify();
        }
    }

    /// Acknowledges what the disk has of a boot (W19).
    fn acknowledge(&mut self, boot: u32) {
        if let Some(through) = self.committed.through(boot) {
            self.say.ack(Ack { boot, through });
        }
    }

    fn heard(&mut self, now: Now) {
        self.silent = SignedDuration::ZERO;
        self.pinged = false;
        self.node_problem = None;
        self.stats.last_heard_at = Some(now.at);
        if self.link_told != Some(true) {
            self.link_told = Some(true);
            tracing::info!(node = %self.config.node, port = %self.port, "link up");
            self.see(now, self.config.node.clone(), now.at, None, What::Link(Link::Up));
        }
    }

    fn see(&mut self, now: Now, device: Slug, sensed_at: Timestamp, origin: Option<Origin>, what: What) {
        tracing::debug!(node = %self.config.node, %device, ?origin, ?what, "observed");
        self.waiting.push(Observation { device, sensed_at, clock: now.quality, origin, what });
    }

    fn discard(&mut self, reason: Discard, what: &dyn std::fmt::Debug) {
        if self.stats.count(reason) {
            let total = self.stats.discarded(reason);
            tracing::info!(node = %self.config.node, reason = reason.as_str(), total, ?what, "discarded");
        }
    }

    fn take_broken(&mut self, error: &DecodeError) {
        self.stats.count_broken(error.fault.name());
        if let Fault::Version { got } = error.fault {
            self.noise_bytes = 0;
            self.node_problem = Some(Problem::Version { node: got });
            self.discard(Discard::Version, error);
        } else {
            self.discard(Discard::Broken, error);
        }
    }

    fn take_frame(&mut self, now: Now, frame: Frame) {
        self.stats.frames += 1;
        self.noise_bytes = 0;
        let uplink = match frame.message {
            Message::Down(downlink) => return self.discard(Discard::Direction, &downlink),
            Message::Up(uplink) if frame.address != self.config.address => {
                return self.discard(Discard::Address, &uplink);
            }
            Message::Up(uplink) => uplink,
        };
        if let Uplink::Hello(hello) = uplink {
            self.on_hello(now, &hello);
            if self.boot.as_ref().is_some_and(|boot| boot.id == hello.boot) {
                self.tell_update(now, &uplink);
            }
            return;
        }
        if self.boot.as_ref().is_none_or(|boot| boot.id != uplink.boot()) {
            // It comes again after the Hello; until then its device is not known.
            self.ask_who(IDENTIFY_EVERY);
            return self.discard(Discard::UnknownBoot, &uplink);
        }
        self.heard(now);
        self.tell_update(now, &uplink);
        match uplink {
            Uplink::Hello(_) | Uplink::Done(_) | Uplink::UpdateInfo(_) | Uplink::UpdateReport(_) => {}
            Uplink::Event(event) => self.on_event(now, event),
            Uplink::Loss(loss) => self.on_loss(now, loss),
            Uplink::Heartbeat(heartbeat) => self.on_heartbeat(now, &heartbeat),
            Uplink::Pong(pong) => self.clock_sample(now, pong.uptime_ms),
            Uplink::Log(log) => {
                tracing::info!(node = %self.config.node, uptime_ms = log.uptime_ms, severity = ?log.severity, "node says: {}", log.text);
            }
        }
    }

    /// What a running update hears of its node.
    fn tell_update(&mut self, now: Now, uplink: &Uplink) {
        if let Some(update) = &mut self.update {
            update.on_uplink(now.at, uplink);
        }
    }

    fn clock_sample(&mut self, now: Now, uptime_ms: u64) {
        if let Some(boot) = &mut self.boot {
            boot.clock.sent(now.at, uptime_ms);
        }
    }
}
