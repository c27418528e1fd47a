//! The link protocol between a sensor node and its gateway.
//!
//! Owns the messages, their bytes on the wire, the protocol's version and its limits; node and gateway compile this same
//! crate. Refuses everything else: no input or output, no clock, no allocation, no logging, no decision when to send what.
//! `no_std`. [`Decoder`] and [`encode`] never panic, whatever the bytes (fuzzed in `tests/`).
//!
//! ```text
//! 00 | COBS( version u8 | address u8 | body: one Message, postcard | CRC-32C u32 little-endian ) | 00
//! ```
//!
//! # Rules
//! Numbered so that a test can cite what it proves: test `w04_...` proves W04. `docs/wire-protocol.md` repeats the sentences
//! and gives the reasons; a test compares both lists and fails for a rule that no test cites.
//!
//! Frames
//! - W01: A frame SHALL be sent as 0x00, the COBS encoding of version, address, body and CRC, and 0x00.
//! - W02: The CRC SHALL be CRC-32C over version, address and body, little-endian, and SHALL be right before anything else is believed.
//! - W03: Decoding any bytes SHALL give frames and errors, never a panic; an error SHALL name its place and what was expected.
//! - W04: After any error or noise a decoder SHALL take the next frame that follows a 0x00.
//! - W05: A frame longer than the limit SHALL be refused by sender and receiver.
//! - W06: A frame of another protocol version SHALL be refused with both versions named.
//! - W07: A body SHALL hold exactly one message; bytes after it SHALL be refused.
//! - W08: A value out of its range SHALL be refused by sender and receiver.
//! - W09: The number of a message, kind or field SHALL never change; new ones SHALL be appended.
//! - W10: A node SHALL ignore uplinks, other addresses and what it does not know, and a gateway likewise.
//!
//! Node
//! - W11: A boot id SHALL differ at every boot and SHALL be unlikely to equal another node's.
//! - W12: Events SHALL be numbered from 1, without a gap, in the order in which the node accepted them.
//! - W13: A node SHALL keep an event until an Ack of its own boot reaches the event's number, and SHALL ignore an Ack for what it never sent.
//! - W14: A full outbox SHALL give up the least urgent event first, and life safety last.
//! - W15: A Loss SHALL stand in the stream where the lost numbers stood, and SHALL be repeated until acknowledged.
//! - W16: A node SHALL send in order, at most a window ahead of the Ack, and SHALL resend with a bounded backoff for ever.
//! - W17: A node SHALL say Hello at boot, before its first event, and whenever it is asked to identify itself.
//! - W18: A node SHALL send a Heartbeat with its settled levels at least once in every interval.
//!
//! Gateway
//! - W19: A gateway SHALL send an Ack only after its own disk holds everything that the Ack covers.
//! - W20: A gateway SHALL pass on every (node, boot, sequence) at most once and in order.
//! - W21: A gateway SHALL NOT acknowledge past a gap; it SHALL repeat its last Ack at once, and the node SHALL resend from there.
//! - W22: A gateway that hears an unknown boot SHALL ask for Identify and SHALL NOT acknowledge before the Hello.
//! - W23: At a new boot the gateway SHALL count afresh and SHALL report as lost what the old boot is known to have numbered and not delivered.
//! - W24: A gateway SHALL turn uptime into its own time by the least delay seen, with bounded drift, and never into the future.
//! - W25: A level that differs from the last edge SHALL be reported as repaired, only when every event numbered before it is taken.
//! - W26: Silence SHALL count only while the gateway listens; at its limit the link SHALL be reported down, and up at the next frame.
//! - W27: Everything a gateway discards SHALL be counted under a reason, and its state SHALL say what to do.
//! - W28: Two nodes with one uid SHALL be reported as such, and SHALL both be served.
//! - W29: An event on a channel that is not configured SHALL be acknowledged and counted; if it is life safety its loss SHALL be reported.
//!
//! Bus
//! - W30: On a bus a node SHALL send only after a Poll to its address: at most the frames that the Poll allows, and a Done behind them.
//! - W31: A gateway on a bus SHALL send nothing between a Poll and its Done or the end of the answer's time.
//! - W32: A gateway SHALL poll every node of a bus in turn; one that does not answer SHALL be polled less often, and none SHALL wait for it twice in a round.
//! - W33: A downlink to everyone on a bus SHALL be obeyed by every node it concerns and answered by none.
//! - W34: An Assign SHALL be obeyed by the node of its uid only, and kept over reboots where the board can; a node without an address SHALL obey nothing else.
//!
//! Update
//! - W35: A node SHALL write an update only into the slot that it does not run from, and SHALL change nothing when it refuses.
//! - W36: A node SHALL refuse an image for another board, slot or node, one that does not fit, and one below its confirmed security version.
//! - W37: A node SHALL take nothing of an update while an alarm stands or its battery is low, and SHALL NOT restart for one while an event is unacknowledged.
//! - W38: Blocks SHALL be taken in order, each answered with the next offset; the same Begin SHALL go on where the flash stands, also after a restart.
//! - W39: An update SHALL yield: a node sends events before reports, a gateway sends a block only when nothing else waits and the last is answered.
//! - W40: An image SHALL run only when its signature, board, slot, length and SHA-256 are right.
//! - W41: A new image SHALL run on trial; it is confirmed by an Ack of its own boot, and one that is not SHALL give way to the old image by itself.
//! - W42: A gateway SHALL verify a bundle before it sends of it, and SHALL call an update done only when the node confirms the new version; else it SHALL say why not.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod codec;
mod error;
mod message;
pub mod update;

pub use codec::{Decoder, crc32c, encode};
pub use error::{DecodeError, EncodeError, Fault};
pub use message::{
    Ack, Assign, Battery, Capabilities, ChannelLevel, Configure, Done, Downlink, Event, EventKind, FirmwareVersion,
    Frame, Heartbeat, Hello, Level, Levels, Log, Loss, Message, Ping, Poll, Pong, Severity, Sounder, Text, Time, Uid,
    Uplink,
};
pub use update::{
    GaveUp, Manifest, ManifestError, Slot, UpdateBegin, UpdateBlock, UpdateInfo, UpdateRefusal, UpdateReport,
    UpdateState, UpdateTry,
};

/// Version of this protocol, the first byte of every frame. It rises when a node and a gateway of different
/// versions could misunderstand each other; appended messages do not raise it (W09).
pub const PROTOCOL_VERSION: u8 = 1;

/// Address of the only node of a point-to-point link.
pub const ADDRESS_POINT_TO_POINT: u8 = 0;

/// On a bus a downlink to this address is for every node, and none answers it (as in Modbus).
pub const ADDRESS_EVERYONE: u8 = 0;

/// Highest address of a node on a bus (as in Modbus; what lies above is reserved).
pub const ADDRESS_MAX: u8 = 247;

/// The channel that means the node itself: its case, its battery.
pub const NODE_CHANNEL: u8 = 0;

/// Highest channel of a node.
pub const CHANNEL_MAX: u8 = 32;

/// Most levels in one [`Heartbeat`]: what a node may have of channels with a level.
pub const LEVELS_MAX: usize = 16;

/// Longest text of a [`Log`], in bytes of UTF-8.
pub const TEXT_BYTES_MAX: usize = 64;

/// Most unacknowledged stream entries (events, losses) a node has on the wire.
pub const WINDOW: usize = 8;

/// Longest body, in bytes. Leaves room for the blocks of a firmware update.
pub const BODY_BYTES_MAX: usize = 240;

/// Bytes of a frame beside its body: version, address, CRC.
pub(crate) const ENVELOPE_BYTES: usize = 2 + 4;

/// Longest frame on the wire, in bytes: both delimiters and the one byte COBS adds up to 254 bytes.
pub const FRAME_BYTES_MAX: usize = 1 + 1 + BODY_BYTES_MAX + ENVELOPE_BYTES + 1;
