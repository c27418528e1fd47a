//! One node's protocol at the gateway's end. The rules W19 to W29 of `gengfu_wire` are kept here.
//!
//! Owns what is believed: which boot speaks, which number comes next, what a level means, when silence is a fault. Sans-I/O: bytes and `now` go
//! in; observations, downlinks and figures come out. Refuses to acknowledge by itself: [`Session::take_batch`] gives out observations with the
//! cursor that covers them, and only [`Session::committed`] makes an `Ack` of it. When the disk refuses, [`Session::failed`] goes back to what the
//! disk has, and the node sends the rest again.

use gengfu_alarm::observation::{Link, Observation, What};
use gengfu_contract::event::{ClockQuality, Origin};
use gengfu_contract::slug::Slug;
use gengfu_wire::{
    ADDRESS_POINT_TO_POINT, Ack, Battery, DecodeError, Decoder, Downlink, Event, Fault, Frame, Heartbeat, Hello, Level,
    Loss, Message, NODE_CHANNEL, Ping, Uid, Uplink,
};
use jiff::{SignedDuration, Timestamp};

use super::cursor::Cursor;
use super::node_clock::NodeClock;
use super::stats::{Discard, LinkStats, Problem};
use super::{LinkConfig, mapping};

/// Observations that may wait for the decider. A node has at most a window of events on the wire; what is beyond comes again.
pub const OBSERVATIONS_MAX: usize = 256;
/// Between two calls more time than this does not count as listening: the gateway stood still, or its clock was set.
pub const LISTEN_MAX: SignedDuration = SignedDuration::from_secs(5);
/// A heartbeat is passed on at most this often.
const HEARTBEAT_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// A node that has not introduced itself is asked at most this often.
const IDENTIFY_EVERY: SignedDuration = SignedDuration::from_millis(200);
/// And by itself this often.
const IDENTIFY_AGAIN: SignedDuration = SignedDuration::from_secs(3);
/// A battery's change worth telling, in millivolts.
const BATTERY_STEP_MV: u16 = 50;

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
    config: LinkConfig,
    stats: LinkStats,
    decoder: Decoder,
    /// What the disk has.
    committed: Cursor,
    /// What a batch on its way will make of it.
    in_flight: Option<Cursor>,
    /// What was taken, with everything that waits.
    taken: Cursor,
    waiting: Vec<Observation>,
    boot: Option<Boot>,
    /// By boot: the number that its next event will get, as far as it was heard.
    numbered: Vec<(u32, u32)>,
    link_told: Option<bool>,
    heartbeat_told_at: Option<Timestamp>,
    battery_told: Option<Battery>,
    /// Time listened to without hearing the node.
    silent: SignedDuration,
    called_at: Option<Timestamp>,
    port_problem: Option<Problem>,
    node_problem: Option<Problem>,
    identify_due: bool,
    identified_at: Option<Timestamp>,
    ack_due: bool,
    ping_due: bool,
    pinged: bool,
    nonce: u32,
}

impl Session {
    /// Takes up where the stored cursor says. Gives back what was wrong with it, if anything: then events that the node still keeps may be
    /// taken a second time.
    #[must_use]
    pub fn new(config: LinkConfig, stored: Option<&[u8]>, now: Timestamp) -> Self {
        let mut stats = LinkStats::starting(&config, now);
        let committed = match stored.map(Cursor::from_bytes).transpose() {
            Ok(cursor) => cursor.unwrap_or_default(),
            Err(error) => {
                stats.warn(
                    format!("the stored position of this link cannot be read ({error}); it was begun anew"),
                    "events of the node may have been taken twice; check the gateway's disk",
                );
                Cursor::default()
            }
        };
        Self {
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
            silent: SignedDuration::ZERO,
            called_at: Some(now),
            port_problem: None,
            node_problem: None,
            identify_due: true,
            identified_at: None,
            ack_due: false,
            ping_due: false,
            pinged: false,
            nonce: 0,
            config,
        }
    }

    /// The port is open, from a clean line on: whoever is there is asked to introduce itself.
    pub fn port_opened(&mut self, now: Timestamp) {
        self.decoder = Decoder::new();
        self.port_problem = None;
        self.identify_due = true;
        self.stats.opened += 1;
        self.show(now);
    }

    /// The port cannot be used. The link is told down only when the silence has lasted: a blink of an adapter is no trouble.
    pub fn port_lost(&mut self, now: Timestamp, problem: Problem) {
        self.port_problem = Some(problem);
        self.show(now);
    }

    /// Takes bytes from the port, in any portions.
    pub fn on_bytes(&mut self, now: Timestamp, quality: ClockQuality, bytes: &[u8]) {
        self.listen(now);
        for byte in bytes {
            match self.decoder.push(*byte) {
                None => {}
                Some(Ok(frame)) => self.on_frame(Now { at: now, quality }, frame),
                Some(Err(error)) => self.on_broken(error),
            }
        }
        self.show(now);
    }

    /// Time passes. Call it at least every second.
    pub fn tick(&mut self, now: Timestamp, quality: ClockQuality) {
        self.listen(now);
        let silence = SignedDuration::try_from(self.config.silence).unwrap_or(SignedDuration::MAX);
        if self.silent >= silence && self.link_told != Some(false) {
            self.tell_down(Now { at: now, quality });
        }
        if self.silent >= silence / 2 && !self.pinged {
            self.pinged = true;
            self.ping_due = true;
        }
        let is_old = self.identified_at.is_none_or(|at| now.duration_since(at).abs() >= IDENTIFY_AGAIN);
        if self.boot.is_none() && is_old {
            self.identify_due = true;
        }
        self.show(now);
    }

    /// The next frame to send, if there is one.
    pub fn take_send(&mut self, now: Timestamp) -> Option<Frame> {
        let downlink = if std::mem::take(&mut self.identify_due) {
            self.identified_at = Some(now);
            Downlink::Identify
        } else if std::mem::take(&mut self.ack_due) {
            let boot = self.boot.as_ref()?.id;
            Downlink::Ack(Ack { boot, through: self.committed.through(boot)? })
        } else if std::mem::take(&mut self.ping_due) {
            self.nonce = self.nonce.wrapping_add(1);
            Downlink::Ping(Ping { nonce: self.nonce })
        } else {
            return None;
        };
        self.stats.frames_sent += 1;
        Some(Frame::down(ADDRESS_POINT_TO_POINT, downlink))
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
            self.ack_due = self.boot.as_ref().is_some_and(|boot| self.committed.through(boot.id).is_some());
        }
    }

    /// The last batch is not durable. Everything since the last durable one is forgotten here and asked for again.
    pub fn failed(&mut self) {
        self.in_flight = None;
        self.waiting.clear();
        self.taken = self.committed.clone();
        self.boot = None;
        self.link_told = None;
        self.heartbeat_told_at = None;
        self.battery_told = None;
        self.identify_due = true;
        self.stats.refused += 1;
    }

    /// Figures and state for people.
    #[must_use]
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Counts the time since the last call as silence, as far as the gateway was there to listen (W26).
    fn listen(&mut self, now: Timestamp) {
        let passed = self.called_at.replace(now).map_or(SignedDuration::ZERO, |before| now.duration_since(before));
        self.silent = self.silent.saturating_add(passed.clamp(SignedDuration::ZERO, LISTEN_MAX));
    }

    fn show(&mut self, now: Timestamp) {
        let silent = || (self.link_told != Some(true)).then_some(Problem::Silent);
        match self.port_problem.clone().or_else(|| self.node_problem.clone()).or_else(silent) {
            Some(problem) => self.stats.show_problem(now, &problem),
            None => self.stats.show_up(now),
        }
    }

    fn tell_down(&mut self, now: Now) {
        let problem = self.port_problem.clone().or_else(|| self.node_problem.clone()).unwrap_or(Problem::Silent);
        let (text, remedy) = (problem.text(), problem.remedy());
        let port = self.config.port.display();
        let text = format!("{port}：{}；{} / {port}: {}; {}", text.zh, remedy.zh, text.en, remedy.en);
        tracing::warn!(node = %self.config.node, "link down: {text}");
        self.link_told = Some(false);
        self.see(now, self.config.node.clone(), now.at, None, What::Link(Link::Down(text)));
    }

    fn heard(&mut self, now: Now) {
        self.silent = SignedDuration::ZERO;
        self.pinged = false;
        self.node_problem = None;
        self.stats.last_heard_at = Some(now.at);
        if self.link_told != Some(true) {
            self.link_told = Some(true);
            tracing::info!(node = %self.config.node, port = %self.config.port.display(), "link up");
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

    fn on_broken(&mut self, error: DecodeError) {
        *self.stats.broken.entry(error.fault.name().to_owned()).or_default() += 1;
        if let Fault::Version { got } = error.fault {
            self.node_problem = Some(Problem::Version { node: got });
            self.discard(Discard::Version, &error);
        } else {
            self.discard(Discard::Broken, &error);
        }
    }

    fn on_frame(&mut self, now: Now, frame: Frame) {
        self.stats.frames += 1;
        let uplink = match frame.message {
            Message::Down(downlink) => return self.discard(Discard::Direction, &downlink),
            Message::Up(uplink) if frame.address != ADDRESS_POINT_TO_POINT => {
                return self.discard(Discard::Address, &uplink);
            }
            Message::Up(uplink) => uplink,
        };
        if let Uplink::Hello(hello) = uplink {
            return self.on_hello(now, &hello);
        }
        if self.boot.as_ref().is_none_or(|boot| boot.id != uplink.boot()) {
            // It comes again after the Hello; until then its device is not known.
            let is_old = self.identified_at.is_none_or(|at| now.at.duration_since(at).abs() >= IDENTIFY_EVERY);
            self.identify_due |= is_old;
            return self.discard(Discard::UnknownBoot, &uplink);
        }
        self.heard(now);
        match uplink {
            Uplink::Hello(_) | Uplink::Done(_) => {}
            Uplink::Event(event) => self.on_event(now, event),
            Uplink::Loss(loss) => self.on_loss(now, loss),
            Uplink::Heartbeat(heartbeat) => self.on_heartbeat(now, &heartbeat),
            Uplink::Pong(pong) => self.clock_sample(now, pong.uptime_ms),
            Uplink::Log(log) => {
                tracing::info!(node = %self.config.node, uptime_ms = log.uptime_ms, severity = ?log.severity, "node says: {}", log.text);
            }
        }
    }

    fn clock_sample(&mut self, now: Now, uptime_ms: u64) {
        if let Some(boot) = &mut self.boot {
            boot.clock.sent(now.at, uptime_ms);
        }
    }

    fn on_hello(&mut self, now: Now, hello: &Hello) {
        if let Some(expected) = self.config.expected_uid.map(|uid| Uid(uid.to_be_bytes()))
            && expected != hello.uid
        {
            let (expected, heard) = (expected.to_string(), hello.uid.to_string());
            self.node_problem = Some(Problem::WrongUid { expected, heard });
            return self.discard(Discard::WrongUid, hello);
        }
        if self.taken.uid.is_some_and(|uid| uid != hello.uid) {
            tracing::warn!(node = %self.config.node, uid = %hello.uid, "another node is on this port than before; begun anew");
            self.taken = Cursor::default();
        }
        self.taken.uid = Some(hello.uid);
        let same = self.boot.as_ref().is_some_and(|boot| boot.id == hello.boot && boot.uid == hello.uid);
        self.place_boot(now, hello, same);
        if !same {
            self.boot = Some(Boot { id: hello.boot, uid: hello.uid, clock: NodeClock::default() });
            self.stats.boots += 1;
            self.stats.uid = Some(hello.uid.to_string());
            self.stats.boot = Some(format!("{:08x}", hello.boot));
            self.stats.firmware = Some(hello.firmware.to_string());
            tracing::info!(node = %self.config.node, uid = %hello.uid, boot = format_args!("{:08x}", hello.boot), firmware = %hello.firmware, "node introduced itself");
        }
        self.note_numbered(hello.boot, hello.next_sequence);
        self.heard(now);
        self.clock_sample(now, hello.uptime_ms);
    }

    /// Sets where counting goes on in the boot that a Hello names.
    fn place_boot(&mut self, now: Now, hello: &Hello, same: bool) {
        let acknowledged = hello.unacked_from - 1;
        match self.taken.through(hello.boot) {
            None => {
                // A new boot (W23). What other gateways acknowledged is theirs.
                if let Some(old) = self.taken.latest_boot() {
                    self.tell_lost_by_reboot(now, hello.uid, old);
                }
                self.taken.set(hello.boot, acknowledged);
            }
            Some(through) if hello.next_sequence <= through => {
                // The node counts from the beginning under an old id. Better a number twice than an alarm not at all.
                self.warn_twin("a node uses a boot id again (W11)");
                self.taken.set(hello.boot, acknowledged);
            }
            Some(through) => {
                if !same && self.taken.latest_boot() != Some(hello.boot) {
                    self.warn_twin("two nodes speak with one unique id, or a node uses a boot id again (W11, W28)");
                }
                if acknowledged > through {
                    // The node forgot what it was acknowledged for, and this disk does not have it: it was set back.
                    let (first, count) = (through + 1, acknowledged - through);
                    self.tell_lost(now, hello.uid, hello.boot, first, count);
                }
                self.taken.set(hello.boot, through.max(acknowledged));
            }
        }
    }

    fn warn_twin(&mut self, text: &str) {
        self.stats.warn(text.to_owned(), "give each node its own unique id, and each boot its own boot id");
    }

    fn note_numbered(&mut self, boot: u32, next_sequence: u32) {
        /// As many as a cursor has boots.
        const BOOTS_MAX: usize = 4;
        match self.numbered.iter_mut().find(|(known, _)| *known == boot) {
            Some((_, next)) => *next = (*next).max(next_sequence),
            None => {
                self.numbered.insert(0, (boot, next_sequence));
                self.numbered.truncate(BOOTS_MAX);
            }
        }
    }

    fn tell_lost_by_reboot(&mut self, now: Now, uid: Uid, old: u32) {
        let next = self.numbered.iter().find(|(boot, _)| *boot == old).map(|(_, next)| *next);
        let (Some(next), Some(through)) = (next, self.taken.through(old)) else { return };
        if let Some(count) = next.checked_sub(through + 1).filter(|count| *count > 0) {
            self.tell_lost(now, uid, old, through + 1, count);
            self.taken.set(old, next - 1);
        }
    }

    fn tell_lost(&mut self, now: Now, uid: Uid, boot: u32, first: u32, count: u32) {
        tracing::warn!(node = %self.config.node, boot = format_args!("{boot:08x}"), first, count, "events lost");
        self.stats.events_lost += u64::from(count);
        let origin = Origin { node: uid.to_string(), boot, sequence: first };
        self.see(now, self.config.node.clone(), now.at, Some(origin), What::EventsLost { first, count });
    }

    /// Whether numbers up to `last` from `first` on are what comes next; counts and answers what is not (W20, W21).
    fn is_next(&mut self, boot: u32, first: u32, last: u32, what: &dyn std::fmt::Debug) -> bool {
        self.note_numbered(boot, last.saturating_add(1));
        let Some(through) = self.taken.through(boot) else { return false };
        if last <= through {
            // If the disk has it already, the Ack was lost; else it goes when the disk has it.
            self.ack_due |= self.committed.through(boot).is_some_and(|committed| last <= committed);
            self.discard(Discard::Duplicate, what);
        } else if first > through + 1 {
            self.ack_due |= self.committed.through(boot).is_some();
            self.discard(Discard::Gap, what);
        } else if self.waiting.len() >= OBSERVATIONS_MAX {
            self.discard(Discard::Backlog, what);
        } else {
            return true;
        }
        false
    }

    fn on_event(&mut self, now: Now, event: Event) {
        if !self.is_next(event.boot, event.sequence, event.sequence, &event) {
            return;
        }
        let Some(boot) = &mut self.boot else { return };
        let origin = Origin { node: boot.uid.to_string(), boot: event.boot, sequence: event.sequence };
        boot.clock.happened(now.at, event.uptime_ms);
        let sensed_at = boot.clock.time_at(event.uptime_ms, now.at);
        self.taken.set(event.boot, event.sequence);
        self.stats.events += 1;
        match mapping::device(&self.config, event.channel, event.kind).cloned() {
            Ok(device) => {
                self.remember(event);
                self.see(now, device, sensed_at, Some(origin), mapping::event(event.kind));
            }
            Err(reason) => self.on_unmapped(now, event, origin, reason),
        }
    }

    /// Keeps the level that an event led to, so that the next heartbeat brings no news.
    fn remember(&mut self, event: Event) {
        use gengfu_wire::EventKind::{Battery, FaultCleared, FaultRaised};
        match event.kind {
            FaultRaised | FaultCleared => {
                self.taken.faults.insert(event.channel, event.kind == FaultRaised);
            }
            Battery(battery) => self.battery_told = Some(battery),
            edge => {
                if let Some(level) = Level::after(edge) {
                    self.taken.levels.insert(event.channel, level);
                }
            }
        }
    }

    /// An event that no configured device can have said (W29).
    fn on_unmapped(&mut self, now: Now, event: Event, origin: Origin, reason: Discard) {
        let Event { channel, kind, sequence, .. } = event;
        let (text, remedy) = match self.config.channels.get(&channel) {
            Some((device, class)) => (
                format!("channel {channel} is {device}, a {} device, but the node sends {kind:?}", class.as_str()),
                "correct class or channel of the device in the configuration, or the node's wiring",
            ),
            None => (
                format!("the node sends {kind:?} on channel {channel}, which is not configured"),
                "add a [[node.device]] with this channel to the configuration",
            ),
        };
        self.stats.warn(text, remedy);
        self.discard(reason, &event);
        if kind.is_life_safety() {
            self.stats.events_lost += 1;
            let lost = What::EventsLost { first: sequence, count: 1 };
            self.see(now, self.config.node.clone(), now.at, Some(origin), lost);
        }
    }

    fn on_loss(&mut self, now: Now, loss: Loss) {
        // Ranges that overflow were refused by the decoder (W08).
        let last = loss.first + (loss.count - 1);
        if !self.is_next(loss.boot, loss.first, last, &loss) {
            return;
        }
        let (Some(boot), Some(through)) = (&self.boot, self.taken.through(loss.boot)) else { return };
        let uid = boot.uid;
        self.taken.set(loss.boot, last);
        self.tell_lost(now, uid, loss.boot, through + 1, last - through);
    }

    fn on_heartbeat(&mut self, now: Now, heartbeat: &Heartbeat) {
        self.clock_sample(now, heartbeat.uptime_ms);
        self.note_numbered(heartbeat.boot, heartbeat.next_sequence);
        // Edges that are still to come would be judged twice, and out of order (W25).
        let has_all = self.taken.through(heartbeat.boot).is_some_and(|through| through + 1 == heartbeat.next_sequence);
        if has_all && self.waiting.len() < OBSERVATIONS_MAX {
            self.repair_levels(now, heartbeat);
        }
        if let Some(battery) = heartbeat.battery
            && self.battery_told.is_none_or(|told| {
                told.low != battery.low || told.millivolts.abs_diff(battery.millivolts) >= BATTERY_STEP_MV
            })
        {
            self.battery_told = Some(battery);
            let what = mapping::event(gengfu_wire::EventKind::Battery(battery));
            if let Ok(device) =
                mapping::device(&self.config, NODE_CHANNEL, gengfu_wire::EventKind::Battery(battery)).cloned()
            {
                self.see(now, device, now.at, None, what);
            }
        }
        if self.heartbeat_told_at.is_none_or(|at| now.at.duration_since(at).abs() >= HEARTBEAT_EVERY) {
            self.heartbeat_told_at = Some(now.at);
            self.see(now, self.config.node.clone(), now.at, None, What::Heartbeat);
        }
    }

    fn repair_levels(&mut self, now: Now, heartbeat: &Heartbeat) {
        for it in &heartbeat.levels {
            let device = match mapping::device(&self.config, it.channel, it.level.edge()).cloned() {
                Ok(device) => device,
                Err(reason) => {
                    self.discard(reason, it);
                    continue;
                }
            };
            let before = self.taken.levels.insert(it.channel, it.level);
            if before != Some(it.level) {
                // At the first contact a level is news; later it is a repair.
                self.stats.repaired += u64::from(before.is_some());
                tracing::info!(node = %self.config.node, %device, ?before, now = ?it.level, "level taken from a heartbeat");
                self.see(now, device.clone(), now.at, None, mapping::state(it.level, true));
            }
            if self.taken.faults.insert(it.channel, it.fault).unwrap_or(false) != it.fault {
                self.see(now, device, now.at, None, What::DeviceFault(it.fault));
            }
        }
    }
}
