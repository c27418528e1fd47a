//! What a link must remember over a restart of the gateway.
//!
//! Owns its few bytes: the node's unique id, how far each of its last boots was taken, and the levels that were told. Stored in the same atomic
//! batch as the observations, so a crash between the two cannot be. Refuses to repair: an unreadable cursor is told and begun anew.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use gengfu_alarm::Observation;
use gengfu_alarm::observation::What;
use gengfu_contract::event::Origin;
use gengfu_wire::{Level, Uid};

/// Boots remembered. More than one, so that two nodes with one uid, or an old boot's late frames, are recognised.
const BOOTS_MAX: usize = 4;
/// First byte of the stored form.
const FORMAT: u8 = 1;

const LEVELS: [Level; 8] = [
    Level::ContactOpen,
    Level::ContactClosed,
    Level::SmokeAlarm,
    Level::SmokeClear,
    Level::SmokeTest,
    Level::SmokeHushed,
    Level::TamperOpen,
    Level::TamperClosed,
];

/// How far a node was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The node; `None` before its first Hello.
    pub uid: Option<Uid>,
    /// Its boots and the highest number taken of each; the latest boot first.
    boots: Vec<(u32, u32)>,
    /// Level last told, by channel.
    pub levels: BTreeMap<u8, Level>,
    /// Channels whose fault was told.
    pub faults: BTreeMap<u8, bool>,
    /// Channels of which it is not known what was told last: a batch about them failed, and may have become durable all the same. Not stored: what is
    /// read after a restart is what became durable.
    pub unsure: BTreeSet<u8>,
}

/// A stored cursor that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored link cursor, byte {at} of {length}: {expected} expected")]
pub struct CursorError {
    at: usize,
    length: usize,
    expected: &'static str,
}

impl Cursor {
    /// Highest number taken of a boot; `None` for an unknown one.
    #[must_use]
    pub fn through(&self, boot: u32) -> Option<u32> {
        self.boots.iter().find(|(known, _)| *known == boot).map(|(_, through)| *through)
    }

    /// The boot last spoken to.
    #[must_use]
    pub fn latest_boot(&self) -> Option<u32> {
        self.boots.first().map(|(boot, _)| *boot)
    }

    /// Makes a boot the latest, taken up to `through`.
    pub fn set(&mut self, boot: u32, through: u32) {
        if let Some((latest, taken)) = self.boots.first_mut()
            && *latest == boot
        {
            *taken = through;
            return;
        }
        self.boots.retain(|(known, _)| *known != boot);
        self.boots.insert(0, (boot, through));
        self.boots.truncate(BOOTS_MAX);
    }

    /// A batch failed after which this would have been `later`: where they differ, either may be what is durable.
    pub fn doubt(&mut self, later: &Cursor) {
        let differs = |channel: &u8| {
            self.levels.get(channel) != later.levels.get(channel)
                || self.faults.get(channel) != later.faults.get(channel)
        };
        let told = later.levels.keys().chain(later.faults.keys()).chain(&later.unsure).copied();
        let unsure: BTreeSet<u8> = told.filter(differs).collect();
        self.unsure.extend(unsure);
    }

    /// What of this was not taken yet, by the node's own numbers; `None` when all of it was. What has no number is a level, and is told again. Of a loss the
    /// first part may have been taken, as the events that the node has lost since.
    #[must_use]
    pub fn rest_of<'a>(&self, seen: &'a Observation) -> Option<Cow<'a, Observation>> {
        let of_this_node = |origin: &&Origin| self.uid.is_some_and(|uid| uid.to_string() == origin.node);
        let taken = seen
            .origin
            .as_ref()
            .filter(of_this_node)
            .and_then(|origin| self.through(origin.boot).filter(|through| origin.sequence <= *through));
        let Some(through) = taken else { return Some(Cow::Borrowed(seen)) };
        let What::EventsLost { first, count } = seen.what else { return None };
        let known = through.saturating_add(1).saturating_sub(first);
        let mut rest = seen.clone();
        rest.what = What::EventsLost {
            first: first.saturating_add(known),
            count: count.checked_sub(known).filter(|count| *count > 0)?,
        };
        rest.origin.as_mut()?.sequence = first.saturating_add(known);
        Some(Cow::Owned(rest))
    }

    /// The stored form of `later`, but no boot goes back behind what was taken of it. What cannot be read is passed on as it is.
    #[must_use]
    pub fn advanced_to(&self, later: Vec<u8>) -> Vec<u8> {
        let Ok(mut cursor) = Cursor::from_bytes(&later) else { return later };
        if cursor.uid != self.uid {
            return later;
        }
        for (index, (boot, through)) in cursor.boots.iter_mut().enumerate() {
            let Some(taken) = self.through(*boot).filter(|taken| taken > through) else { continue };
            *through = taken;
            if index == 0 {
                // Levels belong to the last event taken.
                cursor.levels.clone_from(&self.levels);
                cursor.faults.clone_from(&self.faults);
            }
        }
        cursor.to_bytes()
    }

    /// The stored form; below 150 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT, u8::from(self.uid.is_some())];
        bytes.extend(self.uid.unwrap_or(Uid([0; 8])).0);
        bytes.push(short(self.boots.len()));
        for (boot, through) in &self.boots {
            bytes.extend(boot.to_le_bytes());
            bytes.extend(through.to_le_bytes());
        }
        bytes.push(short(self.levels.len()));
        for (channel, level) in &self.levels {
            let number = LEVELS.iter().position(|it| it == level).expect("LEVELS lists every level");
            bytes.extend([*channel, short(number)]);
        }
        bytes.push(short(self.faults.len()));
        bytes.extend(self.faults.iter().flat_map(|(channel, fault)| [*channel, u8::from(*fault)]));
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`CursorError`] with the place, for anything [`Cursor::to_bytes`] did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Cursor, CursorError> {
        let mut reader = Reader { bytes, at: 0 };
        reader.byte("format 1", |byte| (byte == FORMAT).then_some(()))?;
        let has_uid = reader.byte("0 or 1", flag)?;
        let uid = Uid(reader.take::<8>("a unique id")?);
        let mut cursor = Cursor { uid: has_uid.then_some(uid), ..Cursor::default() };
        let boots = reader.byte("at most 4 boots", |byte| (usize::from(byte) <= BOOTS_MAX).then_some(byte))?;
        for _ in 0..boots {
            let boot = u32::from_le_bytes(reader.take("a boot id")?);
            cursor.boots.push((boot, u32::from_le_bytes(reader.take("a number")?)));
        }
        for _ in 0..reader.byte("a count", Some)? {
            let channel = reader.byte("a channel", Some)?;
            let level = reader.byte("a level", |byte| LEVELS.get(usize::from(byte)).copied())?;
            cursor.levels.insert(channel, level);
        }
        for _ in 0..reader.byte("a count", Some)? {
            let channel = reader.byte("a channel", Some)?;
            cursor.faults.insert(channel, reader.byte("0 or 1", flag)?);
        }
        if reader.at == bytes.len() { Ok(cursor) } else { Err(reader.error("the end")) }
    }
}

fn flag(byte: u8) -> Option<bool> {
    (byte <= 1).then_some(byte == 1)
}

fn short(length: usize) -> u8 {
    u8::try_from(length).expect("a node has at most 33 channels, a cursor 4 boots")
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn error(&self, expected: &'static str) -> CursorError {
        CursorError { at: self.at, length: self.bytes.len(), expected }
    }

    fn take<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], CursorError> {
        let chunk = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>).ok_or_else(|| self.error(expected))?;
        self.at += N;
        Ok(*chunk)
    }

    fn byte<T>(&mut self, expected: &'static str, read: impl FnOnce(u8) -> Option<T>) -> Result<T, CursorError> {
        let error = self.error(expected);
        let [byte] = self.take(expected)?;
        read(byte).ok_or(error)
    }
}
