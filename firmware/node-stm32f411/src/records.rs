//! Numbers that outlive the power, in two areas of flash: the boot counter (W11) and the address on a bus (W34).
//!
//! Owns the layout, which area is in force, and what a power cut leaves. Refuses to erase before the other area is whole. An area is a row
//! of records of eight bytes: a word (kind in its top byte, number below) and its complement, so that erased flash (all ones) and a torn
//! write are told from a record. New records are appended; the last of a kind counts. A full area is copied, the last of each kind, to the
//! erased other one, and the other one's head, written last, puts it in force: the higher generation counts.
//!
//! A sector of the STM32F411 may be erased 10,000 times and holds 2,047 records: twenty million boots.

use embedded_storage::nor_flash::NorFlash;

/// Bytes of an area: the smallest sector.
pub const AREA_BYTES: u32 = 16 * 1024;
const RECORD_BYTES: u32 = 8;
/// Numbers are below this.
pub const NUMBER_MAX: u32 = 0x00ff_ffff;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The head of an area; the number is its generation.
    Head = 0x48,
    /// Boots so far.
    Boots = 0x42,
    /// Address on the bus.
    Address = 0x41,
}

/// What is kept in an area.
const KEPT: [Kind; 2] = [Kind::Boots, Kind::Address];

/// Why a number was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// The flash refused to be erased, written or read.
    Flash,
    /// It took the record and does not hold it: worn out.
    NotKept,
}

impl RecordError {
    /// For the technician.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            RecordError::Flash => "records: the flash refuses; boot counter in RAM only",
            RecordError::NotKept => "records: the flash is worn out; replace the board",
        }
    }
}

/// The records in `flash`, in areas at these two offsets; each area begins a sector that nothing else uses, of any size.
pub struct Records<F> {
    flash: F,
    areas: [u32; 2],
}

impl<F: NorFlash> Records<F> {
    /// Over this flash.
    pub fn new(flash: F, areas: [u32; 2]) -> Self {
        Self { flash, areas }
    }

    /// The number of this kind that was kept last.
    pub fn last(&mut self, kind: Kind) -> Option<u32> {
        let area = self.in_force()?.0;
        self.last_in(area, kind)
    }

    /// One more than the last number of this kind, kept and read back.
    ///
    /// # Errors
    /// [`RecordError`]; then the caller needs another source.
    pub fn count(&mut self, kind: Kind) -> Result<u32, RecordError> {
        let next = self.last(kind).map_or(1, |last| last.wrapping_add(1) & NUMBER_MAX);
        self.keep(kind, next).map(|()| next)
    }

    /// Keeps a number and reads it back. The same number again costs no write.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn keep(&mut self, kind: Kind, number: u32) -> Result<(), RecordError> {
        if self.last(kind) == Some(number) {
            return Ok(());
        }
        let (area, generation) = match self.in_force() {
            Some(it) => it,
            None => self.begin(0, 1, None)?,
        };
        let (area, at) = match self.room_in(area) {
            Some(at) => (area, at),
            None => {
                let (fresh, _) = self.begin(1 - area, generation.wrapping_add(1) & NUMBER_MAX, Some(area))?;
                (fresh, self.room_in(fresh).ok_or(RecordError::NotKept)?)
            }
        };
        self.write(area, at, kind, number)?;
        if self.last_in(area, kind) == Some(number) { Ok(()) } else { Err(RecordError::NotKept) }
    }

    /// Makes `area` the one in force, with the last numbers of `from`. Its head is written behind all else.
    fn begin(&mut self, area: usize, generation: u32, from: Option<usize>) -> Result<(usize, u32), RecordError> {
        let start = self.areas[area];
        // The sector that begins at `start`, whatever its size. ERASE_SIZE is no help: on a chip with sectors of different sizes it is the
        // largest, and a range of that size would take the neighbours along.
        self.flash.erase(start, start + AREA_BYTES).map_err(|_| RecordError::Flash)?;
        let mut at = RECORD_BYTES;
        for kind in KEPT {
            if let Some(number) = from.and_then(|from| self.last_in(from, kind)) {
                self.write(area, at, kind, number)?;
                at += RECORD_BYTES;
            }
        }
        self.write(area, 0, Kind::Head, generation)?;
        Ok((area, generation))
    }

    /// The area in force and its generation.
    fn in_force(&mut self) -> Option<(usize, u32)> {
        let head = |area, this: &mut Self| match this.read(area, 0)? {
            (Kind::Head, generation) => Some((area, generation)),
            _ => None,
        };
        let heads = [head(0, self), head(1, self)];
        heads.into_iter().flatten().max_by_key(|(_, generation)| *generation)
    }

    /// Where the next record goes: behind the last byte that was ever written. A torn record takes its place and no more.
    fn room_in(&mut self, area: usize) -> Option<u32> {
        let is_erased = |at: &u32, this: &mut Self| this.raw(area, *at) == Some([0xff; RECORD_BYTES as usize]);
        let mut room = None;
        for at in (0..AREA_BYTES).step_by(RECORD_BYTES as usize).rev() {
            if !is_erased(&at, self) {
                break;
            }
            room = Some(at);
        }
        room
    }

    fn last_in(&mut self, area: usize, kind: Kind) -> Option<u32> {
        let mut places = (0..AREA_BYTES).step_by(RECORD_BYTES as usize).rev();
        places.find_map(|at| self.read(area, at).filter(|(it, _)| *it == kind).map(|(_, number)| number))
    }

    fn read(&mut self, area: usize, at: u32) -> Option<(Kind, u32)> {
        let [a, b, c, d, e, f, g, h] = self.raw(area, at)?;
        let (word, complement) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let kind =
            [Kind::Head, Kind::Boots, Kind::Address].into_iter().find(|kind| u32::from(*kind as u8) == word >> 24);
        kind.filter(|_| word == !complement).map(|kind| (kind, word & NUMBER_MAX))
    }

    fn raw(&mut self, area: usize, at: u32) -> Option<[u8; RECORD_BYTES as usize]> {
        let mut bytes = [0; RECORD_BYTES as usize];
        self.flash.read(self.areas[area] + at, &mut bytes).ok().map(|()| bytes)
    }

    fn write(&mut self, area: usize, at: u32, kind: Kind, number: u32) -> Result<(), RecordError> {
        let word = u32::from(kind as u8) << 24 | number & NUMBER_MAX;
        let mut bytes = [0; RECORD_BYTES as usize];
        bytes[..4].copy_from_slice(&word.to_le_bytes());
        bytes[4..].copy_from_slice(&(!word).to_le_bytes());
        self.flash.write(self.areas[area] + at, &bytes).map_err(|_| RecordError::Flash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_storage::nor_flash::{ErrorType, NorFlashErrorKind, ReadNorFlash};

    /// Two sectors. Writing only clears bits; the power goes after so many bytes written or erased.
    struct Flash {
        bytes: Vec<u8>,
        power: usize,
        erases: usize,
    }

    const AREAS: [u32; 2] = [0, AREA_BYTES];

    impl Flash {
        fn erased() -> Self {
            Self { bytes: vec![0xff; 2 * AREA_BYTES as usize], power: usize::MAX, erases: 0 }
        }

        fn spend(&mut self) -> Result<(), NorFlashErrorKind> {
            self.power = self.power.checked_sub(1).ok_or(NorFlashErrorKind::Other)?;
            Ok(())
        }
    }

    impl ErrorType for &mut Flash {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for &mut Flash {
        const READ_SIZE: usize = 1;
        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
            bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
            Ok(())
        }
        fn capacity(&self) -> usize {
            self.bytes.len()
        }
    }

    impl NorFlash for &mut Flash {
        const WRITE_SIZE: usize = 1;
        const ERASE_SIZE: usize = AREA_BYTES as usize;
        fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
            assert!(AREAS.contains(&from) && to == from + AREA_BYTES);
            self.erases += 1;
            // An erase that is cut leaves a part erased; steps of 1 KiB are fine enough.
            for block in (from..to).step_by(1024) {
                self.spend()?;
                self.bytes[block as usize..][..1024].fill(0xff);
            }
            Ok(())
        }
        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
            for (place, byte) in (offset as usize..).zip(bytes) {
                self.spend()?;
                assert_eq!(self.bytes[place], 0xff, "written twice without an erase");
                self.bytes[place] &= byte;
            }
            Ok(())
        }
    }

    #[test]
    fn w11_boots_count_on_through_full_areas_and_the_address_comes_along() {
        let mut flash = Flash::erased();
        assert_eq!(Records::new(&mut flash, AREAS).last(Kind::Boots), None);
        Records::new(&mut flash, AREAS).keep(Kind::Address, 17).unwrap();
        for boot in 1..=5_000 {
            assert_eq!(Records::new(&mut flash, AREAS).count(Kind::Boots), Ok(boot));
        }
        assert_eq!(Records::new(&mut flash, AREAS).last(Kind::Address), Some(17));
        assert_eq!(flash.erases, 3, "the first, and one for each full area");
        Records::new(&mut flash, AREAS).keep(Kind::Address, 17).unwrap();
        let before = flash.bytes.clone();
        Records::new(&mut flash, AREAS).keep(Kind::Address, 17).unwrap();
        assert!(before == flash.bytes, "the same number again costs no write");
    }

    /// The power goes at every byte of an append, and at every step of a change of areas.
    #[test]
    fn w11_a_power_cut_at_any_step_repeats_no_counter_and_keeps_the_address() {
        let mut full = Flash::erased();
        Records::new(&mut full, AREAS).keep(Kind::Address, 99).unwrap();
        for _ in 0..2_046 {
            Records::new(&mut full, AREAS).count(Kind::Boots).unwrap();
        }
        let mut short = Flash::erased();
        Records::new(&mut short, AREAS).keep(Kind::Address, 99).unwrap();
        for _ in 0..3 {
            Records::new(&mut short, AREAS).count(Kind::Boots).unwrap();
        }
        let mut changed = 0;
        for start in [short, full] {
            let known =
                Records::new(&mut Flash { bytes: start.bytes.clone(), ..Flash::erased() }, AREAS).last(Kind::Boots);
            for power in 0..60 {
                let mut flash = Flash { bytes: start.bytes.clone(), power, erases: 0 };
                let used = Records::new(&mut flash, AREAS).count(Kind::Boots).ok();
                changed += flash.erases;
                flash.power = usize::MAX;
                let next = Records::new(&mut flash, AREAS).count(Kind::Boots).unwrap();
                assert!(Some(next) > known && Some(next) > used, "cut after {power}: {used:?}, then {next}");
                assert_eq!(Records::new(&mut flash, AREAS).last(Kind::Address), Some(99), "cut after {power}");
            }
        }
        assert!(changed > 40, "areas did change: {changed}");
    }

    #[test]
    fn a_flash_that_keeps_nothing_is_told() {
        let mut flash = Flash { power: 0, ..Flash::erased() };
        assert_eq!(Records::new(&mut flash, AREAS).count(Kind::Boots), Err(RecordError::Flash));
        for error in [RecordError::Flash, RecordError::NotKept] {
            assert!(error.text().len() <= gengfu_node::wire::TEXT_BYTES_MAX);
        }
    }
}
