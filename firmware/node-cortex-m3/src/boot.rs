//! What the I2C EEPROM keeps: a counter for a boot id that differs at every boot (W11), the address on a bus (W34), and that a thermometer is fitted.
//!
//! Owns the records, which of the counter's two counts, and the order of writing. Refuses to trust what it wrote before it has read it
//! back. The part is a 24C32 or larger (two address bytes, pages of 32 bytes or more, 1,000,000 writes, 5 ms a write cycle).
//!
//! The records take turns, so a power cut in the middle of a write spoils the older one, which no longer mattered. Each is the
//! counter and its complement: an erased part (all ones), an empty one (all zeros) and a torn write are told from a record. What a gateway
//! assigns or a boot finds out again has one record only: a torn write forgets it, and it is written again.
//!
//! ```text
//! 0x0000, 0x0020 boot counter | 0x0040 address on the bus | 0x0060 thermometer fitted | 0x0100 and on: a field update's
//! ```

use embedded_hal::i2c::I2c;

/// Address of a 24Cxx with its address pins to ground.
pub const EEPROM_ADDRESS: u8 = 0x50;
/// Where the two records are: each on a page of its own.
pub const RECORDS_AT: [u16; 2] = [0x0000, 0x0020];
/// Where the address on the bus is.
pub const ADDRESS_AT: u16 = 0x0040;
/// Where it says 1 once a thermometer has answered.
pub const THERMOMETER_AT: u16 = 0x0060;
/// How often a busy part is asked again. An unanswered address takes 0.1 ms at 100 kHz, a write cycle at most 10 ms.
const BUSY_TRIES: u32 = 400;

/// Why there is no counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterError {
    /// The part does not answer.
    Silent,
    /// It answers, and does not hold what was written: worn out, write-protected, or another part.
    NotKept,
}

impl CounterError {
    /// For the technician.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            CounterError::Silent => "boot counter: no EEPROM at 0x50; check SDA, SCL",
            CounterError::NotKept => "boot counter: EEPROM keeps nothing; replace it, WP low",
        }
    }
}

/// Counts this boot: one more than ever before, written and read back.
///
/// # Errors
/// [`CounterError`]; then the caller needs another source.
pub fn count(i2c: &mut impl I2c) -> Result<u32, CounterError> {
    let records = [read(i2c, RECORDS_AT[0])?, read(i2c, RECORDS_AT[1])?];
    let last = records.into_iter().flatten().max();
    // The older record, or one that is none, gives way.
    let place = usize::from(records[0].is_some() && records[0] >= records[1]);
    let counter = last.map_or(1, |last| last.wrapping_add(1));
    write(i2c, RECORDS_AT[place], counter)?;
    if read(i2c, RECORDS_AT[place])? == Some(counter) { Ok(counter) } else { Err(CounterError::NotKept) }
}

/// What is kept in the record at `at`; `None` when nothing is, or nothing can be read.
pub fn recall(i2c: &mut impl I2c, at: u16) -> Option<u32> {
    read(i2c, at).ok().flatten()
}

/// Keeps a number in the record at `at`, and reads it back. The same number again costs no write.
///
/// # Errors
/// [`CounterError`].
pub fn keep(i2c: &mut impl I2c, at: u16, number: u32) -> Result<(), CounterError> {
    if read(i2c, at)? == Some(number) {
        return Ok(());
    }
    write(i2c, at, number)?;
    if read(i2c, at)? == Some(number) { Ok(()) } else { Err(CounterError::NotKept) }
}

fn read(i2c: &mut impl I2c, at: u16) -> Result<Option<u32>, CounterError> {
    patiently(|| i2c.write(EEPROM_ADDRESS, &at.to_be_bytes()).is_ok())?;
    // A transfer of its own and no repeated start: the part keeps its address pointer over a stop.
    let mut bytes = [0; 8];
    i2c.read(EEPROM_ADDRESS, &mut bytes).map_err(|_| CounterError::Silent)?;
    let [a, b, c, d, e, f, g, h] = bytes;
    let (counter, complement) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    Ok((counter == !complement).then_some(counter))
}

fn write(i2c: &mut impl I2c, at: u16, counter: u32) -> Result<(), CounterError> {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&at.to_be_bytes());
    bytes[2..6].copy_from_slice(&counter.to_le_bytes());
    bytes[6..].copy_from_slice(&(!counter).to_le_bytes());
    patiently(|| i2c.write(EEPROM_ADDRESS, &bytes).is_ok())
}

/// During its write cycle the part does not answer; that is how its end is found (acknowledge polling).
pub(crate) fn patiently(mut attempt: impl FnMut() -> bool) -> Result<(), CounterError> {
    if (0..BUSY_TRIES).any(|_| attempt()) { Ok(()) } else { Err(CounterError::Silent) }
}

/// The EUI-64 of a chip that has a MAC-48 (IEEE: FF FE in the middle). `user0` and `user1` are the chip's registers USER_REG0 and
/// USER_REG1, which hold three bytes each; an erased chip has all ones there.
#[must_use]
pub fn eui64(user0: u32, user1: u32) -> [u8; 8] {
    let ([a, b, c, _], [d, e, f, _]) = (user0.to_le_bytes(), user1.to_le_bytes());
    [a, b, c, 0xff, 0xfe, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal::i2c::{ErrorKind, ErrorType, Operation};
    use std::collections::BTreeSet;

    /// A 24C32: pointer kept over a stop, busy after a write, and a power cut after some bytes of one.
    struct Eeprom {
        bytes: Vec<u8>,
        pointer: usize,
        busy: u32,
        cut_after: Option<usize>,
        protected: bool,
    }

    impl Eeprom {
        fn erased() -> Self {
            Self { bytes: vec![0xff; 4096], pointer: 0, busy: 0, cut_after: None, protected: false }
        }
    }

    impl ErrorType for Eeprom {
        type Error = ErrorKind;
    }

    impl I2c for Eeprom {
        fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
            assert_eq!(address, EEPROM_ADDRESS);
            assert_eq!(operations.len(), 1, "no repeated start");
            if self.busy > 0 {
                self.busy -= 1;
                return Err(ErrorKind::Other);
            }
            match &mut operations[0] {
                Operation::Read(buffer) => {
                    for byte in buffer.iter_mut() {
                        *byte = self.bytes[self.pointer];
                        self.pointer = (self.pointer + 1) % self.bytes.len();
                    }
                }
                Operation::Write(bytes) => {
                    self.pointer = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                    // The cut is for a write of data, not for one that only sets the pointer.
                    let cut = if bytes.len() > 2 { self.cut_after.take() } else { None };
                    let kept = if self.protected { 0 } else { cut.unwrap_or(usize::MAX) };
                    for byte in bytes[2..].iter().take(kept) {
                        self.bytes[self.pointer] = *byte;
                        self.pointer += 1;
                    }
                    self.busy = if bytes.len() > 2 { 50 } else { 0 };
                }
            }
            Ok(())
        }
    }

    #[test]
    fn w11_each_boot_counts_one_more_and_the_records_take_turns() {
        let mut part = Eeprom::erased();
        for boot in 1..=100 {
            assert_eq!(count(&mut part), Ok(boot));
        }
        part.bytes = vec![0; 4096];
        assert_eq!(count(&mut part), Ok(1), "zeros are no record");
    }

    #[test]
    fn w11_a_power_cut_at_any_byte_of_the_write_never_repeats_a_counter() {
        for cut in 0..=8 {
            let mut part = Eeprom::erased();
            let mut used = BTreeSet::new();
            for boot in 0..20 {
                if boot % 3 == 2 {
                    part.cut_after = Some(cut);
                }
                // A boot whose write was cut used no id: its power was gone.
                if let Ok(counter) = count(&mut part) {
                    assert!(used.insert(counter), "cut after {cut}: {counter} twice");
                }
            }
            assert!(used.len() >= 13, "cut after {cut}: {used:?}");
        }
    }

    #[test]
    fn w34_an_address_is_kept_beside_the_counter_and_a_torn_write_forgets_only_it() {
        let mut part = Eeprom::erased();
        assert_eq!(recall(&mut part, ADDRESS_AT), None);
        for address in [17, 17, 247] {
            assert_eq!(keep(&mut part, ADDRESS_AT, address), Ok(()));
            assert_eq!((recall(&mut part, ADDRESS_AT), recall(&mut part, THERMOMETER_AT)), (Some(address), None));
        }
        assert_eq!(count(&mut part), Ok(1));
        for cut in 0..8 {
            assert_eq!(keep(&mut part, ADDRESS_AT, 99), Ok(()));
            part.cut_after = Some(cut);
            let _ = keep(&mut part, ADDRESS_AT, 0x0102_0304);
            part.busy = 0;
            let after = recall(&mut part, ADDRESS_AT);
            assert!(after.is_none_or(|it| it == 99), "cut after {cut}: {after:?}");
        }
        assert_eq!(count(&mut part), Ok(2));
        part.protected = true;
        assert_eq!(keep(&mut part, ADDRESS_AT, 5), Err(CounterError::NotKept));
    }

    #[test]
    fn a_part_that_is_away_or_keeps_nothing_is_told() {
        let mut part = Eeprom::erased();
        part.busy = u32::MAX;
        assert_eq!(count(&mut part), Err(CounterError::Silent));
        let mut part = Eeprom::erased();
        part.protected = true;
        assert_eq!(count(&mut part), Err(CounterError::NotKept));
        for error in [CounterError::Silent, CounterError::NotKept] {
            assert!(error.text().len() <= gengfu_node::wire::TEXT_BYTES_MAX);
        }
    }

    #[test]
    fn the_unique_id_is_the_mac_with_ff_fe_in_the_middle() {
        assert_eq!(eui64(0x00_b6_1a_00, 0x00_03_02_01), [0x00, 0x1a, 0xb6, 0xff, 0xfe, 0x01, 0x02, 0x03]);
    }
}
