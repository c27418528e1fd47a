//! What node and gateway say to each other.
//!
//! Owns the messages and the ranges of their values. Refuses meaning beyond the link: device names, alarms and time of day
//! belong to the gateway. Order of variants and fields *is* the encoding: append, never insert or reorder (W09).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::update::{
    BLOCK_BYTES, HEADER_BYTES, IMAGE_BYTES_MAX, UpdateBegin, UpdateBlock, UpdateInfo, UpdateReport, UpdateTry,
};
use crate::{ADDRESS_MAX, CHANNEL_MAX, LEVELS_MAX, TEXT_BYTES_MAX};

/// Blocks stand at multiples of this.
const BLOCK_STEP: u32 = BLOCK_BYTES as u32;

/// Short UTF-8 text.
pub type Text = heapless::String<TEXT_BYTES_MAX>;

/// Levels of a node's channels.
pub type Levels = heapless::Vec<ChannelLevel, LEVELS_MAX>;

/// One message with the address of the node it comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// [`crate::ADDRESS_POINT_TO_POINT`], or the node's address on a bus.
    pub address: u8,
    /// The message.
    pub message: Message,
}

/// A message in either direction. The direction is part of it, so that on a shared wire nobody takes another's words for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Node to gateway.
    Up(Uplink),
    /// Gateway to node.
    Down(Downlink),
}

/// Node to gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uplink {
    /// Who I am and where my numbering stands.
    Hello(Hello),
    /// Something happened.
    Event(Event),
    /// I am alive, and these are my levels.
    Heartbeat(Heartbeat),
    /// These numbers will never come.
    Loss(Loss),
    /// Answer to [`Downlink::Ping`].
    Pong(Pong),
    /// A line for the technician. Not kept, not acknowledged.
    Log(Log),
    /// On a bus: that was all for this poll.
    Done(Done),
    /// Answer to [`Downlink::UpdateQuery`].
    UpdateInfo(UpdateInfo),
    /// How a firmware update stands.
    UpdateReport(UpdateReport),
}

/// Gateway to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Downlink {
    /// My disk has everything up to here.
    Ack(Ack),
    /// Are you there? Answered by [`Uplink::Pong`].
    Ping(Ping),
    /// The gateway's time.
    Time(Time),
    /// Press the test button of this channel's head, electrically.
    Test {
        /// The channel, 1 to [`CHANNEL_MAX`].
        channel: u8,
    },
    /// Sound the node's sounder.
    Sounder(Sounder),
    /// Change timing.
    Configure(Configure),
    /// Say [`Uplink::Hello`] now, then everything that is not acknowledged.
    Identify,
    /// On a bus: you may speak now.
    Poll(Poll),
    /// On a bus: the node with this unique id shall have this address.
    Assign(Assign),
    /// Which image do you run? Answered by [`Uplink::UpdateInfo`].
    UpdateQuery,
    /// I want to give you this image.
    UpdateBegin(UpdateBegin),
    /// A part of it.
    UpdateBlock(UpdateBlock),
    /// Restart and try it.
    UpdateTry(UpdateTry),
}

/// Worldwide unique number of a node's hardware, EUI-64 style.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub [u8; 8]);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Uid {
    /// Reads 16 hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Uid> {
        let digits = text.as_bytes();
        let mut bytes = [0_u8; 8];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? * 16 + low?).ok()?;
        }
        Some(Uid(bytes))
    }
}

/// Version of a node's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareVersion {
    /// Incompatible changes.
    pub major: u16,
    /// Additions.
    pub minor: u16,
    /// Repairs.
    pub patch: u16,
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What a node has, one bit each. Unknown bits are kept and mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// It has a sounder.
    pub const SOUNDER: Capabilities = Capabilities(1);
    /// It measures its battery.
    pub const BATTERY: Capabilities = Capabilities(1 << 1);
    /// Its outbox survives power loss.
    pub const DURABLE_OUTBOX: Capabilities = Capabilities(1 << 2);
    /// Its firmware can be replaced over the link.
    pub const UPDATE: Capabilities = Capabilities(1 << 3);

    /// True when all of `other` is there.
    #[must_use]
    pub fn has(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }
}

/// Who a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its hardware.
    pub uid: Uid,
    /// This run of it.
    pub boot: u32,
    /// Its firmware.
    pub firmware: FirmwareVersion,
    /// What it has.
    pub capabilities: Capabilities,
    /// Milliseconds since boot when this was sent.
    pub uptime_ms: u64,
    /// Every number below this was acknowledged to the node in this boot.
    pub unacked_from: u32,
    /// The number the next event will get.
    pub next_sequence: u32,
    /// Milliseconds between its heartbeats.
    pub heartbeat_ms: u32,
}

/// Something that happened at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The run of the node in which it happened.
    pub boot: u32,
    /// Its number in that run, from 1.
    pub sequence: u32,
    /// Milliseconds since boot when it happened (not when it is sent).
    pub uptime_ms: u64,
    /// Where: 0 ([`crate::NODE_CHANNEL`]) to [`CHANNEL_MAX`].
    pub channel: u8,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// A door was opened.
    ContactOpened,
    /// A door was closed.
    ContactClosed,
    /// A head senses smoke.
    SmokeAlarm,
    /// It no longer does, or its test or hush ended.
    SmokeClear,
    /// Its test button.
    SmokeTest,
    /// It was silenced by hand. GB 20517: for 7±1 h, and smoke still alarms.
    SmokeHushed,
    /// The emergency button.
    SosPressed,
    /// The case was opened.
    TamperOpened,
    /// The case was closed.
    TamperClosed,
    /// The battery became low, or is no longer.
    Battery(Battery),
    /// The sensor reports its own fault, or cannot be read.
    FaultRaised,
    /// That is over.
    FaultCleared,
}

impl EventKind {
    /// True for what calls for help. A node gives these up last (W14).
    #[must_use]
    pub fn is_life_safety(self) -> bool {
        matches!(self, EventKind::SmokeAlarm | EventKind::SmokeHushed | EventKind::SosPressed)
    }
}

/// A battery measured under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Battery {
    /// Millivolts.
    pub millivolts: u16,
    /// Below the limit of its datasheet, by the node's judgement.
    pub low: bool,
}

/// A node is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// This run of it.
    pub boot: u32,
    /// Milliseconds since boot when this was sent.
    pub uptime_ms: u64,
    /// The number the next event will get: every edge that led to these levels has a lower one.
    pub next_sequence: u32,
    /// Levels of all channels whose level has settled.
    pub levels: Levels,
    /// The battery, where it is measured.
    pub battery: Option<Battery>,
}

/// What a channel reads now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelLevel {
    /// The channel, 0 to [`CHANNEL_MAX`].
    pub channel: u8,
    /// Its level.
    pub level: Level,
    /// Whether the sensor reports its own fault.
    pub fault: bool,
}

/// The level behind the edges in [`EventKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Door open.
    ContactOpen,
    /// Door closed.
    ContactClosed,
    /// Smoke.
    SmokeAlarm,
    /// No smoke.
    SmokeClear,
    /// Test running.
    SmokeTest,
    /// Silenced.
    SmokeHushed,
    /// Case open.
    TamperOpen,
    /// Case closed.
    TamperClosed,
}

impl Level {
    /// The level after such an event; `None` for events that are no change of level.
    #[must_use]
    pub fn after(kind: EventKind) -> Option<Level> {
        Some(match kind {
            EventKind::ContactOpened => Level::ContactOpen,
            EventKind::ContactClosed => Level::ContactClosed,
            EventKind::SmokeAlarm => Level::SmokeAlarm,
            EventKind::SmokeClear => Level::SmokeClear,
            EventKind::SmokeTest => Level::SmokeTest,
            EventKind::SmokeHushed => Level::SmokeHushed,
            EventKind::TamperOpened => Level::TamperOpen,
            EventKind::TamperClosed => Level::TamperClosed,
            EventKind::SosPressed | EventKind::Battery(_) | EventKind::FaultRaised | EventKind::FaultCleared => {
                return None;
            }
        })
    }

    /// The event that leads to this level.
    #[must_use]
    pub fn edge(self) -> EventKind {
        match self {
            Level::ContactOpen => EventKind::ContactOpened,
            Level::ContactClosed => EventKind::ContactClosed,
            Level::SmokeAlarm => EventKind::SmokeAlarm,
            Level::SmokeClear => EventKind::SmokeClear,
            Level::SmokeTest => EventKind::SmokeTest,
            Level::SmokeHushed => EventKind::SmokeHushed,
            Level::TamperOpen => EventKind::TamperOpened,
            Level::TamperClosed => EventKind::TamperClosed,
        }
    }
}

/// Numbers that will never come: the outbox was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The run of the node in which they were lost.
    pub boot: u32,
    /// First number lost, from 1.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
}

/// Answer to a [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// This run of the node.
    pub boot: u32,
    /// Milliseconds since boot when this was sent.
    pub uptime_ms: u64,
    /// The ping's.
    pub nonce: u32,
}

/// A line for the technician.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// This run of the node.
    pub boot: u32,
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// How bad.
    pub severity: Severity,
    /// The line.
    pub text: Text,
}

/// How bad a [`Log`] line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Error,
}

/// The gateway's disk has everything up to `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The run of the node it speaks of.
    pub boot: u32,
    /// Highest number covered; 0 when none is: "begin at 1".
    pub through: u32,
}

/// Are you there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the [`Pong`].
    pub nonce: u32,
}

/// The gateway's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Milliseconds since 1970-01-01 UTC.
    pub unix_ms: u64,
    /// Whether that can be trusted.
    pub synced: bool,
}

/// Sound, or stop sounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sounder {
    /// For how long from now, in milliseconds; 0 stops it. At most one hour: a lost "stop" must not sound for ever.
    pub for_ms: u32,
}

impl Sounder {
    /// Longest sounding.
    pub const FOR_MS_MAX: u32 = 3_600_000;
}

/// Timing of a node. It is not kept over a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// Milliseconds between heartbeats, 1 s to 1 h.
    pub heartbeat_ms: u32,
    /// Milliseconds for which a contact must be still, 1 to 5000.
    pub debounce_ms: u32,
}

/// Leave to speak on a bus. The node answers with at most so many frames and a [`Done`] behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Most frames before the [`Done`], 0 to [`Poll::FRAMES_MAX`]. 0 asks for the [`Done`] only.
    pub frames: u8,
}

impl Poll {
    /// Most frames of one answer: at 115,200 bit/s they keep the bus for some 20 ms.
    pub const FRAMES_MAX: u8 = 8;
}

/// End of the answer to a [`Poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// This run of the node.
    pub boot: u32,
    /// Whether it has more to say now: poll it again soon.
    pub more: bool,
}

/// Address of a node on a bus. Sent to [`crate::ADDRESS_EVERYONE`], because the node has no address yet, or a wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    /// The node that is meant; every other ignores it.
    pub uid: Uid,
    /// Its address from now on, 1 to [`ADDRESS_MAX`].
    pub address: u8,
}

impl Frame {
    /// An uplink of the node at `address`.
    #[must_use]
    pub fn up(address: u8, uplink: Uplink) -> Frame {
        Frame { address, message: Message::Up(uplink) }
    }

    /// A downlink to the node at `address`.
    #[must_use]
    pub fn down(address: u8, downlink: Downlink) -> Frame {
        Frame { address, message: Message::Down(downlink) }
    }

    /// What is out of range, if anything (W08).
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.address > ADDRESS_MAX {
            return Err("address, expected 0 to 247");
        }
        match &self.message {
            Message::Up(uplink) => uplink.check(),
            Message::Down(downlink) => downlink.check(),
        }
    }
}

impl Uplink {
    /// The run of the node that said it.
    #[must_use]
    pub fn boot(&self) -> u32 {
        match self {
            Uplink::Hello(it) => it.boot,
            Uplink::Event(it) => it.boot,
            Uplink::Heartbeat(it) => it.boot,
            Uplink::Loss(it) => it.boot,
            Uplink::Pong(it) => it.boot,
            Uplink::Log(it) => it.boot,
            Uplink::Done(it) => it.boot,
            Uplink::UpdateInfo(it) => it.boot,
            Uplink::UpdateReport(it) => it.boot,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Uplink::Hello(it) if it.unacked_from == 0 || it.unacked_from > it.next_sequence => {
                Err("unacked_from, expected 1 to next_sequence")
            }
            Uplink::Event(it) if it.sequence == 0 => Err("sequence, expected 1 or more"),
            Uplink::Event(it) if it.channel > CHANNEL_MAX => Err("channel, expected 0 to 32"),
            Uplink::Heartbeat(it) if it.next_sequence == 0 => Err("next_sequence, expected 1 or more"),
            Uplink::Heartbeat(it) if it.levels.iter().any(|level| level.channel > CHANNEL_MAX) => {
                Err("channel of a level, expected 0 to 32")
            }
            Uplink::Loss(it) if it.first == 0 || it.count == 0 || it.first.checked_add(it.count).is_none() => {
                Err("range of a loss, expected 1 or more numbers from 1 on")
            }
            _ => Ok(()),
        }
    }
}

impl Downlink {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Downlink::Test { channel } if *channel == 0 || *channel > CHANNEL_MAX => {
                Err("channel to test, expected 1 to 32")
            }
            Downlink::Sounder(it) if it.for_ms > Sounder::FOR_MS_MAX => Err("for_ms, expected 0 to 3600000"),
            Downlink::Configure(it) if !(1_000..=3_600_000).contains(&it.heartbeat_ms) => {
                Err("heartbeat_ms, expected 1000 to 3600000")
            }
            Downlink::Poll(it) if it.frames > Poll::FRAMES_MAX => Err("frames of a poll, expected 0 to 8"),
            Downlink::Assign(it) if it.address == 0 || it.address > ADDRESS_MAX => {
                Err("address to assign, expected 1 to 247")
            }
            Downlink::Configure(it) if !(1..=5_000).contains(&it.debounce_ms) => Err("debounce_ms, expected 1 to 5000"),
            Downlink::UpdateBegin(it) if it.header.len() != HEADER_BYTES => {
                Err("header of an update, expected 128 bytes")
            }
            Downlink::UpdateBlock(it) if it.data.is_empty() => Err("data of a block, expected 1 to 128 bytes"),
            Downlink::UpdateBlock(it) if it.offset % BLOCK_STEP != 0 || it.offset >= IMAGE_BYTES_MAX => {
                Err("offset of a block, expected a multiple of 128 below 1048576")
            }
            _ => Ok(()),
        }
    }
}
