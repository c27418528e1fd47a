//! Whose bytes it was when the worker dies. Owns the handler of deadly signals: it says on standard error which camera was being read
//! or analysed, then lets the signal do what it does. Refuses to go on: after a crash in a C library nothing in this
//! process can be trusted, and the gateway starts a new one.

use std::sync::atomic::{AtomicI32, Ordering};

/// How the line begins that a dying worker leaves on standard error: then the signal's number, the camera's place in the
/// configuration (−1: none), and for SIGSYS the number of the forbidden system call (else 0).
pub const LAST_WORD: &str = "gengfu-camera-worker died:";

/// The camera that the analysis has in hand; −1: none.
static ANALYSED: AtomicI32 = AtomicI32::new(-1);

std::thread_local! {
    /// The camera this thread reads; −1: it is not a capture thread. Constant and without a destructor, so that a signal handler
    /// may read it.
    static READ: std::cell::Cell<i32> = const { std::cell::Cell::new(-1) };
}

fn number(camera: usize) -> i32 {
    i32::try_from(camera).unwrap_or(-1)
}

/// This thread reads this camera from now on.
pub(super) fn reading(camera: usize) {
    READ.set(number(camera));
}

/// The analysis has this camera in hand, or none.
pub(super) fn analysing(camera: Option<usize>) {
    ANALYSED.store(camera.map_or(-1, number), Ordering::Relaxed);
}

/// Installs the handler for the signals that a broken library or the sandbox raise; [`crate::worker::run`] does it.
pub fn tell_last_word() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS] {
        // SAFETY: a zeroed sigaction is a valid value; the handler below only makes calls that signal-safety(7) allows. It runs
        // once: SA_RESETHAND restores what the signal does by default before it is entered.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = last_word as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn last_word(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let read = READ.get();
    let camera = if read >= 0 { read } else { ANALYSED.load(Ordering::Relaxed) };
    let call = if signal == libc::SIGSYS && !info.is_null() { syscall_of(info) } else { 0 };
    let mut line = Line { bytes: [0; 96], length: 0 };
    line.text(LAST_WORD.as_bytes());
    for value in [signal, camera, call] {
        line.text(b" ");
        line.number(value);
    }
    line.text(b"\n");
    // SAFETY: write takes a live buffer and its length; raise is async-signal-safe, and the signal is blocked until we return.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length);
        libc::raise(signal);
    }
}

/// `si_syscall`, which libc does not name on every platform: after the address of the call (sigaction(2), `_sigsys`).
fn syscall_of(info: *const libc::siginfo_t) -> i32 {
    #[repr(C)]
    struct SigSys {
        numbers: [libc::c_int; 3],
        address: *const libc::c_void,
        call: libc::c_int,
    }
    // SAFETY: for SIGSYS the kernel fills this part of siginfo_t, which is larger than SigSys and as strictly aligned.
    unsafe { (*info.cast::<SigSys>()).call }
}

/// A line put together without memory or locks.
struct Line {
    bytes: [u8; 96],
    length: usize,
}

impl Line {
    fn text(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
    }

    fn number(&mut self, value: i32) {
        if value < 0 {
            self.text(b"-");
        }
        let (mut rest, mut digits, mut count) = (value.unsigned_abs(), [0_u8; 10], 0);
        loop {
            digits[count] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            (rest, count) = (rest / 10, count + 1);
            if rest == 0 {
                break;
            }
        }
        for place in (0..count).rev() {
            self.text(&digits[place..=place]);
        }
    }
}

/// What a dying worker's last line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastWord {
    /// The signal.
    pub signal: i32,
    /// The camera's place in the configuration, if one was in hand.
    pub camera: Option<usize>,
    /// The forbidden system call, if that was it.
    pub call: Option<i32>,
}

impl LastWord {
    /// Reads a line of a worker's standard error; `None` if it is another line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix(LAST_WORD)?.split_whitespace().map(str::parse::<i32>);
        let (signal, camera, call) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let call = (signal == libc::SIGSYS).then_some(call);
        Some(Self { signal, camera: usize::try_from(camera).ok(), call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_help_and_read_back() {
        let mut line = Line { bytes: [0; 96], length: 0 };
        line.text(LAST_WORD.as_bytes());
        for value in [libc::SIGSYS, 12, i32::MAX] {
            line.text(b" ");
            line.number(value);
        }
        let text = std::str::from_utf8(&line.bytes[..line.length]).unwrap();
        let word = LastWord::parse(text).unwrap();
        assert_eq!(word, LastWord { signal: libc::SIGSYS, camera: Some(12), call: Some(i32::MAX) });
        let none = LastWord::parse(&format!("{LAST_WORD} 11 -1 0")).unwrap();
        assert_eq!((none.camera, none.call), (None, None));
        for other in ["", "thread panicked", LAST_WORD, &format!("{LAST_WORD} x y z")] {
            assert_eq!(LastWord::parse(other), None, "{other}");
        }
    }
}
