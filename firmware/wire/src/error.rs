//! Why bytes are no frame, and a frame no bytes.
//!
//! Owns the errors of the codec. Each names the place in the stream and what was expected there, so that a capture of
//! the line can be opened at that place. Refuses to judge how bad it is: noise and an old peer look alike from here.

use crate::{BODY_BYTES_MAX, PROTOCOL_VERSION};

/// A frame that could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame at byte {at}: {fault}")]
pub struct DecodeError {
    /// Number of bytes the decoder had been fed before the frame's first byte.
    pub at: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More bytes than any frame has, without a delimiter.
    #[error("no delimiter within {limit} bytes")]
    TooLong {
        /// The limit in bytes, delimiters excluded.
        limit: usize,
    },
    /// Not even an envelope.
    #[error("{got} bytes, expected at least {least}")]
    TooShort {
        /// Bytes there were.
        got: usize,
        /// Bytes of the shortest frame.
        least: usize,
    },
    /// The stuffing does not lead to the end of the frame.
    #[error("broken byte stuffing (COBS)")]
    Stuffing,
    /// The checksum does not match: noise, or a torn frame.
    #[error("checksum {got:#010x}, expected {expected:#010x}")]
    Crc {
        /// Computed over what arrived.
        expected: u32,
        /// As it stood in the frame.
        got: u32,
    },
    /// A sound frame of another protocol version.
    #[error("protocol version {got}, expected {PROTOCOL_VERSION}: update the older side")]
    Version {
        /// The peer's version.
        got: u8,
    },
    /// A sound frame whose body is no message of this version.
    #[error("the body of {length} bytes is no known message")]
    Body {
        /// Length of the body in bytes.
        length: usize,
    },
    /// A sound frame with bytes after its message.
    #[error("{extra} bytes after the message, expected none")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A message with a value outside its range.
    #[error("value out of range: {what}")]
    Value {
        /// Field and range.
        what: &'static str,
    },
}

impl Fault {
    /// Short stable name, for counters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fault::TooLong { .. } => "too_long",
            Fault::TooShort { .. } => "too_short",
            Fault::Stuffing => "stuffing",
            Fault::Crc { .. } => "crc",
            Fault::Version { .. } => "version",
            Fault::Body { .. } => "body",
            Fault::Trailing { .. } => "trailing",
            Fault::Value { .. } => "value",
        }
    }
}

/// A frame that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The given buffer is too small; [`crate::FRAME_BYTES_MAX`] always suffices.
    #[error("a buffer of {got} bytes is too small for this frame")]
    Buffer {
        /// Bytes offered.
        got: usize,
    },
    /// The body would be longer than any receiver takes.
    #[error("the body is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    /// A value outside its range.
    #[error("value out of range: {what}")]
    Value {
        /// Field and range.
        what: &'static str,
    },
}
