//! Several nodes on one pair of wires (W30 to W34).
//!
//! Owns whose turn it is ([`schedule`]), what goes out before a poll, how long an answer is waited for, and who is told that nobody answers. Sans-I/O:
//! bytes and time go in, bytes to write and the next moment come out. Refuses to speak while a node may (W31), and to believe a frame of a node that
//! was not asked: the session of each node does the rest, as on a line of its own.
//!
//! An exchange is one write and one answer: what everyone must know, what this node must know (first of all its `Ack`), the poll; then events, at
//! most [`POLL_FRAMES`] frames, and a `Done`. It ends with the `Done`, with silence, or at the latest when the longest answer would have ended.

mod answers;
pub mod schedule;

use std::time::Duration;

use gengfu_contract::event::ClockQuality;
use gengfu_contract::words::Text;
use gengfu_wire::{
    ADDRESS_EVERYONE, Assign, DecodeError, Decoder, Downlink, FRAME_BYTES_MAX, Frame, Message, Poll, Uplink, encode,
};
use jiff::Timestamp;

use super::downlinks::time;
use super::session::Session;
use super::stats::Discard;
use super::{BusConfig, PortConfig, Problem};
use answers::Answers;
use schedule::{Answer, Schedule};

/// Frames that a node may send at one poll. Half a window: a node in a burst keeps the bus for some 12 ms at 115,200 bit/s, and then the others
/// have their turn.
pub const POLL_FRAMES: u8 = 4;
/// Downlinks to one node before its poll.
const DOWNLINKS_MAX: usize = 4;
/// Silence between an answer and the next question: the node's driver lets go of the wires.
pub const GAP: Duration = Duration::from_millis(1);
/// Everyone is told the time this often.
const TIME_EVERY: Duration = Duration::from_secs(60);
/// A node that does not answer is told its address this often.
const ASSIGN_EVERY: Duration = Duration::from_secs(5);
/// So many answers after their time make the gateway wait longer for all.
const LATE_MAX: u32 = 3;

/// Now, in every form that is needed: the time of day, how well it is known, and a time that nobody sets.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Time of day.
    pub at: Timestamp,
    /// Whether that can be trusted.
    pub quality: ClockQuality,
    /// Since some fixed moment; only goes forward.
    pub uptime: Duration,
}

/// The gateway's end of a bus. See the module.
#[derive(Debug)]
pub struct Bus {
    sessions: Vec<Session>,
    schedule: Schedule,
    decoder: Decoder,
    byte_time: Duration,
    turnaround: Duration,
    asked: Option<Asked>,
    /// Who was asked last and did not end its answer in time.
    was_asked: Option<usize>,
    late: u32,
    time_at: Duration,
    assign_at: Vec<Duration>,
    answers: Answers,
}

/// A question on its way, or its answer.
#[derive(Debug)]
struct Asked {
    node: usize,
    asked_at: Duration,
    burst_bytes: u32,
    /// Unknown until the question is written.
    wait: Option<Wait>,
    heard_bytes: u64,
    was_broken: bool,
    /// Frames of the answer, its `Done` among them.
    frames: u32,
    more: bool,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    /// The answer has ended if nothing comes until then.
    quiet_at: Duration,
    /// And in any case then.
    end_at: Duration,
}

impl Bus {
    /// A bus, and the sessions of its nodes in the order of [`PortConfig::nodes`].
    #[must_use]
    pub fn new(port: &PortConfig, config: &BusConfig, sessions: Vec<Session>) -> Self {
        let turnaround = config.turnaround;
        let limit = port.nodes().iter().map(|node| node.silence).min().unwrap_or_default() / 2;
        Self {
            answers: Answers::new(config.name.clone(), limit),
            schedule: Schedule::new(sessions.len()),
            assign_at: vec![Duration::ZERO; sessions.len()],
            sessions,
            decoder: Decoder::new(),
            // A start bit, eight bits, a stop bit.
            byte_time: Duration::from_secs(10) / port.baud().max(1),
            turnaround,
            asked: None,
            was_asked: None,
            late: 0,
            time_at: Duration::ZERO,
        }
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// The sessions.
    pub fn sessions_mut(&mut self) -> &mut [Session] {
        &mut self.sessions
    }

    /// Longest time for which a node's answer is waited for, from the end of the question on.
    #[must_use]
    pub fn answer_max(&self) -> Duration {
        let bytes = (u32::from(POLL_FRAMES) + 1) * u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX);
        self.turnaround * 2 + self.byte_time * bytes
    }

    /// The port is open, and nothing is on the wire.
    pub fn port_opened(&mut self, now: Moment) {
        self.decoder = Decoder::new();
        self.asked = None;
        self.was_asked = None;
        self.time_at = now.uptime;
        self.schedule = Schedule::new(self.sessions.len());
        for session in &mut self.sessions {
            session.port_opened(now.at);
        }
    }

    /// The port cannot be used.
    pub fn port_lost(&mut self, now: Moment, problem: &Problem) {
        self.asked = None;
        for session in &mut self.sessions {
            session.port_lost(now.at, problem.clone());
        }
    }

    /// Appends the next question to `out`, if one is due and nobody else may speak (W31).
    pub fn fill(&mut self, now: Moment, out: &mut Vec<u8>) {
        if self.asked.is_some() {
            return;
        }
        let wants = |node: usize| self.sessions[node].has_send();
        let Some(node) = self.schedule.next(now.uptime, wants) else { return };
        let before = out.len();
        if now.uptime >= self.time_at {
            self.time_at = now.uptime + TIME_EVERY;
            push(out, &Frame::down(ADDRESS_EVERYONE, Downlink::Time(time(now.at, now.quality))));
        }
        self.assign(now, node, out);
        for _ in 0..DOWNLINKS_MAX {
            let Some(frame) = self.sessions[node].take_send(now.at) else { break };
            push(out, &frame);
        }
        let address = self.sessions[node].config().address;
        push(out, &Frame::down(address, Downlink::Poll(Poll { frames: POLL_FRAMES })));
        self.schedule.asked(now.uptime, node);
        self.asked = Some(Asked {
            node,
            asked_at: now.uptime,
            burst_bytes: u32::try_from(out.len() - before).unwrap_or(u32::MAX),
            wait: None,
            heard_bytes: 0,
            was_broken: false,
            frames: 0,
            more: false,
        });
    }

    /// A node whose unique id is known and that does not answer at its address may have another one, or none (W34).
    fn assign(&mut self, now: Moment, node: usize, out: &mut Vec<u8>) {
        let config = self.sessions[node].config();
        let Some(uid) = config.uid() else { return };
        if self.schedule.is_dead(node) && now.uptime >= self.assign_at[node] {
            self.assign_at[node] = now.uptime + ASSIGN_EVERY;
            push(out, &Frame::down(ADDRESS_EVERYONE, Downlink::Assign(Assign { uid, address: config.address })));
        }
    }

    /// The question is with the operating system; from now on it takes its time on the wire, and then the answer may come.
    pub fn written(&mut self, now: Moment) {
        let end_max = self.answer_max();
        if let Some(asked) = &mut self.asked {
            let sent_at = now.uptime + self.byte_time * asked.burst_bytes;
            asked.wait.get_or_insert(Wait { quiet_at: sent_at + self.turnaround, end_at: sent_at + end_max });
        }
    }

    /// Takes what came from the wire.
    ///
    /// What is read late, because this program stood still, is an answer all the same: nobody else was asked meanwhile.
    pub fn on_bytes(&mut self, now: Moment, bytes: &[u8]) {
        if let Some(asked) = &mut self.asked {
            asked.heard_bytes += bytes.len() as u64;
            if let Some(wait) = &mut asked.wait {
                wait.quiet_at = wait.quiet_at.max(now.uptime + self.turnaround).min(wait.end_at);
            }
        }
        for byte in bytes {
            match self.decoder.push(*byte) {
                None => {}
                Some(Ok(frame)) => self.on_frame(now, frame),
                Some(Err(error)) => self.on_broken(now, &error),
            }
        }
    }

    /// Time passes: sessions count silence. Call it at least every second.
    pub fn tick(&mut self, now: Moment) {
        self.answers.pass(now, &mut self.sessions);
        for session in &mut self.sessions {
            session.tick(now.at, now.quality);
        }
    }

    /// Ends an answer that does not come. Call it at [`Bus::due_at`], when nothing is left to be read.
    pub fn is_over(&mut self, now: Moment) -> bool {
        let is_over = self.asked.as_ref().and_then(|it| it.wait).is_some_and(|wait| now.uptime >= wait.quiet_at);
        if is_over {
            self.end(now, false);
        }
        is_over
    }

    /// When [`Bus::fill`] or [`Bus::is_over`] has something to do next.
    #[must_use]
    pub fn due_at(&self) -> Option<Duration> {
        match &self.asked {
            Some(asked) => asked.wait.map(|wait| wait.quiet_at),
            None => Some(self.schedule.due_at(|node| self.sessions[node].has_send())),
        }
    }

    fn on_frame(&mut self, now: Moment, frame: Frame) {
        let Message::Up(uplink) = &frame.message else {
            // Our own words: an adapter that hears itself. Or another gateway.
            let node = self.whose(frame.address);
            if let Some(asked) = &mut self.asked {
                asked.heard_bytes = 0;
            }
            return self.sessions[node].on_discarded(Discard::Direction, &frame);
        };
        let asked = self.asked.as_ref().map(|asked| asked.node);
        let speaker = self.sessions.iter().position(|session| session.config().address == frame.address);
        let Some(node) = speaker.filter(|speaker| Some(*speaker) == asked) else {
            return self.on_unasked(speaker, &frame);
        };
        let (done, stranger) = match uplink {
            Uplink::Done(done) => (Some(done.more), None),
            Uplink::Hello(hello) => (None, Some(hello.uid)),
            _ => (None, None),
        };
        self.sessions[node].on_frame(now.at, now.quality, frame);
        if let Some(asked) = &mut self.asked {
            asked.frames += 1;
        }
        if let Some(uid) = stranger {
            self.call_home(node, uid);
        }
        if let Some(more) = done {
            if let Some(asked) = &mut self.asked {
                asked.more = more;
            }
            self.end(now, true);
        }
    }

    /// A frame of a node that was not asked. When it is the one that was asked before, it answers too late, and speaks over the next one's answer:
    /// then the gateway waits longer for everybody.
    fn on_unasked(&mut self, speaker: Option<usize>, frame: &Frame) {
        let Some(node) = speaker else {
            let node = self.whose(frame.address);
            return self.sessions[node].on_discarded(Discard::Address, frame);
        };
        self.sessions[node].on_discarded(Discard::Unasked, frame);
        if self.was_asked != Some(node) {
            return;
        }
        self.late += 1;
        if self.late >= LATE_MAX && self.turnaround < BusConfig::TURNAROUND_CHOSEN_MAX {
            self.late = 0;
            self.turnaround = (self.turnaround * 3 / 2).min(BusConfig::TURNAROUND_CHOSEN_MAX);
            let now_ms = self.turnaround.as_millis();
            let text = Text {
                zh: format!("节点应答超过等待时间，网关改为等待 {now_ms} 毫秒"),
                en: format!("the node answers after its time; the gateway now waits {now_ms} ms"),
            };
            let remedy = Text {
                zh: "在配置中调大 turnaround，或调小转换器的 latency_timer".into(),
                en: "raise turnaround in the configuration, or lower the adapter's latency_timer".into(),
            };
            self.sessions[node].warn(text, remedy);
        }
    }

    /// A configured node that answers at another one's address gets its own at the next occasion.
    fn call_home(&mut self, here: usize, uid: gengfu_wire::Uid) {
        let home = self.sessions.iter().position(|session| session.config().uid() == Some(uid));
        // Were it at home as well, there would be two of it, and they must not be called to one place (W28).
        if let Some(home) = home.filter(|home| *home != here && !self.sessions[*home].stats().is_up()) {
            self.schedule.give_up(home);
            self.sessions[here].on_misplaced();
        }
    }

    fn on_broken(&mut self, now: Moment, error: &DecodeError) {
        if let Some(asked) = &mut self.asked {
            asked.was_broken = true;
        }
        let node = self.whose(0);
        self.sessions[node].on_broken(now.at, now.quality, error);
    }

    /// To whom something is booked that nobody is known to have said: who has that address, else who was asked, else the first.
    fn whose(&self, address: u8) -> usize {
        let by_address = self.sessions.iter().position(|session| session.config().address == address);
        by_address.or(self.asked.as_ref().map(|asked| asked.node)).or(self.was_asked).unwrap_or(0)
    }

    fn end(&mut self, now: Moment, done: bool) {
        let Some(asked) = self.asked.take() else { return };
        let answer = match (done, asked.heard_bytes, asked.was_broken) {
            // Who has more and sent nothing waits for its Ack, and is asked with it.
            (true, _, false) => Answer::Done { more: asked.more && asked.frames > 1 },
            // What was broken in it comes again: at once, if others do not wait.
            (true, _, true) => Answer::DoneAndBroken,
            (false, 0, _) => Answer::Nothing,
            (false, ..) if asked.frames == 0 => Answer::Garbled,
            (false, ..) => Answer::Broken,
        };
        self.was_asked = (!done).then_some(asked.node);
        self.schedule.answered(asked.asked_at, now.uptime, asked.node, answer);
        let session = &mut self.sessions[asked.node];
        session.on_polled(done);
        if !done {
            session.on_noise(asked.heard_bytes);
        }
        if self.schedule.is_garbled(asked.node) {
            session.on_clash(now.at);
        }
        if done {
            self.answers.heard(now, &mut self.sessions);
        }
        self.answers.share(self.schedule.is_anybody_there(), &mut self.sessions);
    }
}

fn push(out: &mut Vec<u8>, frame: &Frame) {
    let mut buffer = [0; FRAME_BYTES_MAX];
    match encode(frame, &mut buffer) {
        Ok(bytes) => out.extend_from_slice(bytes),
        Err(error) => tracing::error!(%error, ?frame, "a frame of our own cannot be sent"),
    }
}
