//! Memory that a reset does not clear.
//!
//! Owns the one way to have such a cell. Refuses types for which some bit pattern would be no value: after a power cut a cell holds
//! noise, and its user must find that out.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use gengfu_node::note::Note;

/// A type of which every bit pattern is a value.
///
/// # Safety
/// That must be true.
pub unsafe trait Plain {}

// SAFETY: integers.
unsafe impl Plain for [u32; 2] {}
// SAFETY: integers and an array of bytes, laid out as in C, without gaps that are read.
unsafe impl Plain for Note {}

/// A cell. Its static needs `#[unsafe(link_section = ".uninit.NAME")]`, which the start-up code leaves alone.
pub struct Kept<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: the content is only copied in and out, with interrupts off on the one core.
unsafe impl<T: Plain + Send> Sync for Kept<T> {}

impl<T: Plain + Copy> Kept<T> {
    /// Whatever is there.
    pub const fn unknown() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// Copies it out.
    pub fn get(&self) -> T {
        // SAFETY: the pointer is that of a static cell, and nobody writes meanwhile. Volatile, because what is there was written
        // before this program began; every bit pattern is a value of `T`.
        critical_section::with(|_| unsafe { self.0.get().read_volatile().assume_init() })
    }

    /// Overwrites it.
    pub fn set(&self, value: T) {
        // SAFETY: as in `get`. Volatile, because it is for a program that begins after this one.
        critical_section::with(|_| unsafe { self.0.get().write_volatile(MaybeUninit::new(value)) });
    }
}
