//! The note that a node which must restart leaves for its next boot.
//!
//! Owns the layout of the note and whether it is one. Refuses to decide when a node restarts. It lies in RAM that the start-up code
//! leaves alone and a reset does not clear; after a power cut it is noise, which the seal tells from a note.

use core::fmt;

use gengfu_wire::TEXT_BYTES_MAX;

/// Marks a note. Any value will do that neither zeros nor ones make.
const SEAL: u32 = 0x6e6f_7465;

/// A note in memory that outlives a reset.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Note {
    seal: u32,
    length: u32,
    text: [u8; TEXT_BYTES_MAX],
}

impl Note {
    /// No note.
    #[must_use]
    pub const fn empty() -> Self {
        Self { seal: 0, length: 0, text: [0; TEXT_BYTES_MAX] }
    }

    /// Writes a note; what is too long is cut.
    pub fn leave(&mut self, what: fmt::Arguments<'_>) {
        *self = Self::empty();
        // It cannot fail: `write_str` cuts.
        let _ = fmt::Write::write_fmt(self, what);
        self.seal = SEAL ^ self.sum();
    }

    /// Takes the note, if there is one; the next call finds none.
    pub fn take(&mut self) -> Option<heapless::String<TEXT_BYTES_MAX>> {
        let is_note =
            usize::try_from(self.length).is_ok_and(|length| length <= TEXT_BYTES_MAX) && self.seal == SEAL ^ self.sum();
        let text = is_note.then(|| {
            let bytes = self.text.get(..self.length as usize).unwrap_or_default();
            let printable = bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' });
            printable.collect()
        });
        *self = Self::empty();
        text
    }

    fn sum(&self) -> u32 {
        self.text.iter().fold(self.length, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte))
    }
}

impl fmt::Write for Note {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.text.get_mut(self.length as usize) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_note_is_read_once() {
        let mut note = Note::empty();
        assert_eq!(note.take(), None);
        note.leave(format_args!("panic at {}:{}", "src/clock.rs", 12));
        assert_eq!(note.take().as_deref(), Some("panic at src/clock.rs:12"));
        assert_eq!(note.take(), None);
    }

    #[test]
    fn a_long_note_is_cut_and_other_than_ascii_is_blanked() {
        let mut note = Note::empty();
        note.leave(format_args!("{}", std::string::String::from_iter(["x"; 500])));
        assert_eq!(note.take().unwrap().len(), TEXT_BYTES_MAX);
        note.leave(format_args!("\u{7}é"));
        assert_eq!(note.take().as_deref(), Some("   "));
    }

    #[test]
    fn noise_after_a_power_cut_is_no_note() {
        let noise = |byte: u8| Note { seal: u32::from_le_bytes([byte; 4]), length: 3, text: [byte; TEXT_BYTES_MAX] };
        for byte in 0..=255 {
            assert_eq!(noise(byte).take(), None, "{byte}");
        }
        assert_eq!(Note { length: u32::MAX, ..noise(1) }.take(), None);
    }
}
