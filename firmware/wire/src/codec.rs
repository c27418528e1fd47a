//! Frames to bytes and back.
//!
//! Owns stuffing, checksum, version check and the search for the next frame after noise. Refuses to keep more than one frame:
//! what the caller does not take is gone, and the sender repeats it.
//!
//! CRC-32C (Castagnoli, as in iSCSI, RFC 3720), not CRC-16: up to 5 flipped bits anywhere in a frame of ours are always
//! found (Hamming distance 6 up to 5,243 data bits; Koopman, "32-Bit Cyclic Redundancy Codes for Internet Applications", 2002),
//! and of worse damage one in 4·10⁹ passes. With a 16-bit sum one broken frame in 65,536 would pass, and a noisy line in each of
//! 11,600 homes would make some false smoke alarm every day. It costs two bytes a frame.

use crc::{CRC_32_ISCSI, Crc, NoTable};

use crate::error::{DecodeError, EncodeError, Fault};
use crate::message::{Frame, Message};
use crate::{BODY_BYTES_MAX, ENVELOPE_BYTES, FRAME_BYTES_MAX, PROTOCOL_VERSION};

/// Bit by bit, without a table: a kilobyte of flash is dear on a node, and a frame is short.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISCSI);

/// The protocol's checksum over any bytes: CRC-32C. For what lies beside the wire and wants the same sum.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// Longest frame without its delimiters and stuffing.
const RAW_BYTES_MAX: usize = BODY_BYTES_MAX + ENVELOPE_BYTES;
/// Longest frame without its delimiters.
const STUFFED_BYTES_MAX: usize = RAW_BYTES_MAX + 1;
const DELIMITER: u8 = 0;

/// Writes a frame with both its delimiters at the head of `buffer` and gives that part back.
///
/// # Errors
/// [`EncodeError`] when a value is out of range, or `buffer` is too small; [`FRAME_BYTES_MAX`] bytes suffice for every frame.
pub fn encode<'a>(frame: &Frame, buffer: &'a mut [u8]) -> Result<&'a [u8], EncodeError> {
    frame.check().map_err(|what| EncodeError::Value { what })?;
    let mut raw = [0_u8; RAW_BYTES_MAX];
    raw[0] = PROTOCOL_VERSION;
    raw[1] = frame.address;
    let body = postcard::to_slice(&frame.message, &mut raw[2..2 + BODY_BYTES_MAX]).map_err(|_| EncodeError::TooLong)?;
    let crc_at = 2 + body.len();
    let crc = CRC.checksum(&raw[..crc_at]);
    raw[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());

    let got = buffer.len();
    let too_small = EncodeError::Buffer { got };
    let stuffed_room = buffer.get_mut(1..).ok_or(too_small)?;
    let stuffed = cobs::try_encode(&raw[..crc_at + 4], stuffed_room).map_err(|_| too_small)?;
    let end = 1 + stuffed;
    *buffer.get_mut(end).ok_or(too_small)? = DELIMITER;
    buffer[0] = DELIMITER;
    Ok(&buffer[..=end])
}

/// Finds frames in a stream of bytes. Holds at most one frame; needs no allocation.
#[derive(Debug, Clone)]
pub struct Decoder {
    buffer: [u8; STUFFED_BYTES_MAX],
    /// Bytes of the current frame in `buffer`; one more than it holds when the frame is already too long.
    length: usize,
    /// Bytes fed before the current frame.
    frame_at: u64,
    /// Bytes fed.
    fed: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: [0; STUFFED_BYTES_MAX], length: 0, frame_at: 0, fed: 0 }
    }

    /// Takes one byte. Gives the frame that it completes, or why that is none.
    ///
    /// After an error the decoder waits for the next delimiter and goes on there; nothing needs to be reset.
    ///
    /// # Errors
    /// [`DecodeError`] once for each broken frame: at its end, or at once when it grows past the limit.
    pub fn push(&mut self, byte: u8) -> Option<Result<Frame, DecodeError>> {
        self.fed = self.fed.wrapping_add(1);
        if byte == DELIMITER {
            let (at, length) = (self.frame_at, self.length);
            self.frame_at = self.fed;
            self.length = 0;
            // Nothing between two delimiters is no frame; too long was told when it happened.
            let stuffed = self.buffer.get(..length).filter(|stuffed| !stuffed.is_empty())?;
            return Some(parse(stuffed).map_err(|fault| DecodeError { at, fault }));
        }
        if let Some(place) = self.buffer.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        } else if self.length == STUFFED_BYTES_MAX {
            self.length += 1;
            let fault = Fault::TooLong { limit: STUFFED_BYTES_MAX };
            return Some(Err(DecodeError { at: self.frame_at, fault }));
        }
        None
    }

    /// Takes bytes; gives the frames and errors that they complete, in order. Dropping the iterator early skips no byte:
    /// the rest is taken all the same.
    pub fn feed<'a>(&'a mut self, bytes: &'a [u8]) -> Feed<'a> {
        Feed { decoder: self, bytes: bytes.iter() }
    }
}

/// See [`Decoder::feed`].
pub struct Feed<'a> {
    decoder: &'a mut Decoder,
    bytes: core::slice::Iter<'a, u8>,
}

impl Iterator for Feed<'_> {
    type Item = Result<Frame, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.bytes.by_ref().find_map(|byte| self.decoder.push(*byte))
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

fn parse(stuffed: &[u8]) -> Result<Frame, Fault> {
    let mut buffer = [0_u8; STUFFED_BYTES_MAX];
    let length = cobs::decode(stuffed, &mut buffer).map_err(|_| Fault::Stuffing)?;
    let raw = &buffer[..length];
    let too_short = Fault::TooShort { got: length, least: ENVELOPE_BYTES + 1 };
    if length <= ENVELOPE_BYTES {
        return Err(too_short);
    }
    let (covered, crc) = raw.split_last_chunk::<4>().ok_or(too_short)?;
    let (expected, got) = (CRC.checksum(covered), u32::from_le_bytes(*crc));
    if expected != got {
        return Err(Fault::Crc { expected, got });
    }
    let ([version, address], body) = covered.split_first_chunk::<2>().ok_or(too_short)?;
    if *version != PROTOCOL_VERSION {
        return Err(Fault::Version { got: *version });
    }
    let (message, rest) = postcard::take_from_bytes::<Message>(body).map_err(|_| Fault::Body { length: body.len() })?;
    if !rest.is_empty() {
        return Err(Fault::Trailing { extra: rest.len() });
    }
    let frame = Frame { address: *address, message };
    frame.check().map_err(|what| Fault::Value { what })?;
    Ok(frame)
}

const _: () = assert!(RAW_BYTES_MAX <= 254 && FRAME_BYTES_MAX == STUFFED_BYTES_MAX + 2, "COBS adds one byte up to 254");
