//! The log: every commit is one frame at its end, and one sync makes it durable. Owns frames, the log's end, and what a torn
//! end looks like; refuses to know what the changes in a frame mean. A frame is its length `u32`, a CRC-32 `u32` over segment,
//! offset and changes, and the changes as [`Ops::encode`] writes them. Segments are never written again, only appended to
//! and at last removed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{OutboxError, files::Files, ops::Ops, watch::Watch};

const FRAME_HEADER: usize = 8;

/// A place in the log: where a frame begins, or the log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub segment: u32,
    pub offset: u32,
}

impl Place {
    pub const START: Place = Place { segment: 1, offset: 0 };

    pub fn encode(self) -> [u8; 8] {
        (u64::from(self.segment) << 32 | u64::from(self.offset)).to_be_bytes()
    }

    pub fn decode(raw: &[u8]) -> Option<Place> {
        let number = u64::from_be_bytes(raw.try_into().ok()?);
        Some(Place { segment: (number >> 32) as u32, offset: number as u32 })
    }
}

/// Where a value lies in the log, and the CRC-32 of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub at: Place,
    pub length: u32,
    pub crc: u32,
}

impl Spot {
    pub fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.at.encode());
        out[8..12].copy_from_slice(&self.length.to_be_bytes());
        out[12..].copy_from_slice(&self.crc.to_be_bytes());
        out
    }

    pub fn decode(raw: &[u8]) -> Option<Spot> {
        let (at, rest) = raw.split_at_checked(8)?;
        let (length, crc) = rest.split_at_checked(4)?;
        Some(Spot {
            at: Place::decode(at)?,
            length: u32::from_be_bytes(length.try_into().ok()?),
            crc: u32::from_be_bytes(crc.try_into().ok()?),
        })
    }
}

/// The changes of one frame, and where they begin.
pub(crate) struct Frame {
    pub at: Place,
    pub changes: Vec<u8>,
}

/// The log, open at its end.
pub(crate) struct Log {
    files: Files,
    segment_bytes: u64,
    end: Mutex<End>,
}

struct End {
    place: Place,
    is_synced: bool,
}

impl Log {
    /// Opens the log (a segment that has reached `segment_bytes` is followed by a new one), shows `each` every frame from `from` on, and cuts a torn end. Gives back the log and how many segments
    /// have a frame in their middle that cannot be read (not a torn end: a damaged disk); the rest of such a segment is passed over.
    pub fn open(
        files: Files,
        segment_bytes: u64,
        from: Place,
        mut each: impl FnMut(&Frame) -> Result<(), OutboxError>,
    ) -> Result<(Log, u64), OutboxError> {
        let mut damaged = 0;
        let segments = files.segments()?;
        let last = segments.last().copied().unwrap_or(0).max(from.segment);
        let mut place = from;
        if !segments.contains(&last) {
            files.create(last)?;
        }
        for segment in segments.into_iter().filter(|segment| *segment >= from.segment) {
            let begin = if segment == from.segment { from.offset } else { 0 };
            let mut frames = Frames::from(&files, Place { segment, offset: begin })?;
            while let Some(frame) = frames.next_frame() {
                each(&frame)?;
            }
            place = frames.place();
            if !frames.is_at_end() {
                if segment == last {
                    // Never acknowledged: whatever was synced can be read up to here.
                    files.truncate(segment, u64::from(place.offset))?;
                } else {
                    damaged += 1;
                }
            }
        }
        let mut end = if place.segment == last { place } else { Place { segment: last, offset: 0 } };
        if files.length(last)? != u64::from(end.offset) {
            // The log is shorter than the mark says, so the disk lost what was synced. What is written from now on must not
            // be taken for what was there.
            damaged += 1;
            end = Place { segment: last + 1, offset: 0 };
            files.create(end.segment)?;
        }
        Ok((Log { files, segment_bytes, end: Mutex::new(End { place: end, is_synced: false }) }, damaged))
    }

    pub fn end(&self) -> Place {
        self.lock().place
    }

    /// Appends one frame; gives back where its changes lie. Not yet durable. After a failure the log must be opened anew.
    pub fn append(&self, ops: &Ops) -> Result<Frame, OutboxError> {
        let changes = ops.encode();
        let mut end = self.lock();
        if u64::from(end.place.offset) >= self.segment_bytes {
            // What stands in a segment that has a successor is durable.
            self.files.sync(end.place.segment)?;
            let next = end.place.segment + 1;
            self.files.create(next)?;
            end.place = Place { segment: next, offset: 0 };
        }
        let Ok(length) = u32::try_from(changes.len()) else { return Err(too_large(changes.len())) };
        let Some(after) = end.place.offset.checked_add(length).and_then(|after| after.checked_add(FRAME_HEADER as u32))
        else {
            return Err(too_large(changes.len()));
        };
        let mut raw = Vec::with_capacity(FRAME_HEADER + changes.len());
        raw.extend_from_slice(&length.to_be_bytes());
        raw.extend_from_slice(&crc_of(end.place, &changes).to_be_bytes());
        raw.extend_from_slice(&changes);
        end.is_synced = false;
        self.files.append(end.place.segment, &raw)?;
        let at = Place { segment: end.place.segment, offset: end.place.offset + FRAME_HEADER as u32 };
        end.place.offset = after;
        Ok(Frame { at, changes })
    }

    /// Makes everything appended so far survive a power cut.
    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        let mut end = self.lock();
        if !end.is_synced {
            watch.over(None, || self.files.sync(end.place.segment))?;
            end.is_synced = true;
        }
        Ok(())
    }

    /// The bytes of a value; `None` when its segment is gone.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn read(&self, spot: Spot) -> Result<Option<Vec<u8>>, OutboxError> {
        let bytes = self.files.read(spot.at.segment, u64::from(spot.at.offset), spot.length as usize)?;
        match bytes {
            Some(bytes) if crc32fast::hash(&bytes) != spot.crc => Err(OutboxError::Damaged {
                place: format!("log segment {}, offset {}", spot.at.segment, spot.at.offset),
                detail: "the bytes are not those that were written",
            }),
            bytes => Ok(bytes),
        }
    }

    /// Reads a byte of the newest segment.
    pub fn try_reading(&self) -> Result<(), OutboxError> {
        self.files.read(self.end().segment, 0, 1).map(drop)
    }

    /// All frames of a segment, up to the first that cannot be read.
    pub fn frames(&self, segment: u32) -> Result<Frames, OutboxError> {
        Frames::from(&self.files, Place { segment, offset: 0 })
    }

    pub fn segments(&self) -> Result<Vec<u32>, OutboxError> {
        self.files.segments()
    }

    /// Removes a segment that nothing refers to any more.
    pub fn remove(&self, segment: u32) -> Result<(), OutboxError> {
        self.files.remove(segment)
    }

    fn lock(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The frames of one segment, read whole into memory.
pub(crate) struct Frames {
    segment: u32,
    /// Where `rest` begins.
    offset: u32,
    bytes: Vec<u8>,
    read: usize,
}

impl Frames {
    pub fn from(files: &Files, from: Place) -> Result<Frames, OutboxError> {
        let length = files.length(from.segment)?.saturating_sub(u64::from(from.offset));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = files.read(from.segment, u64::from(from.offset), length)?.unwrap_or_default();
        Ok(Frames { segment: from.segment, offset: from.offset, bytes, read: 0 })
    }

    /// Where the next frame begins, or would.
    pub fn place(&self) -> Place {
        // A segment is shorter than 4 GiB: `append` refuses to make it longer.
        Place { segment: self.segment, offset: self.offset + self.read as u32 }
    }

    pub fn is_at_end(&self) -> bool {
        self.read == self.bytes.len()
    }

    /// The next frame; `None` at the end or where none can be read.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let rest = &self.bytes[self.read..];
        let (header, rest) = rest.split_at_checked(FRAME_HEADER)?;
        let length = u32::from_be_bytes(*header.first_chunk()?) as usize;
        let crc = u32::from_be_bytes(*header.last_chunk()?);
        let changes = rest.get(..length)?;
        let place = self.place();
        if length == 0 || crc_of(place, changes) != crc {
            return None;
        }
        let frame = Frame {
            at: Place { segment: place.segment, offset: place.offset + FRAME_HEADER as u32 },
            changes: changes.to_vec(),
        };
        self.read += FRAME_HEADER + length;
        Some(frame)
    }
}

fn crc_of(place: Place, changes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&place.encode());
    crc.update(changes);
    crc.finalize()
}

fn too_large(bytes: usize) -> OutboxError {
    OutboxError::TooLarge { what: "a batch", bytes, bytes_max: u32::MAX as usize }
}
