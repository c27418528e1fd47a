//! What happens when the program itself is wrong: it leaves a note, restarts, and the next boot tells the gateway.
//!
//! Owns the panic handler, the fault handlers and the reset. Refuses to go on: what is in memory cannot be trusted any more, and a
//! fresh boot tells its levels within a second. Nothing is printed on the way down; the wire belongs to the protocol.

use core::fmt;
use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};
use gengfu_node::note::Note;
use gengfu_node::wire::Text;

use crate::kept::Kept;

/// The note.
#[unsafe(link_section = ".uninit.note")]
static NOTE: Kept<Note> = Kept::unknown();

/// What the last run of the program had to say, if it ended by a fault. The note is then gone.
pub fn last_words() -> Option<Text> {
    let mut note = NOTE.get();
    let text = note.take();
    NOTE.set(note);
    text
}

fn restart(why: fmt::Arguments<'_>) -> ! {
    cortex_m::interrupt::disable();
    let mut note = Note::empty();
    note.leave(why);
    NOTE.set(note);
    SCB::sys_reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let Some(at) = info.location() else { restart(format_args!("panic at an unknown place")) };
    // The end of a long path tells most.
    let file = at.file();
    let tail = file.get(file.len().saturating_sub(40)..).unwrap_or(file);
    restart(format_args!("panic {tail}:{}", at.line()))
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    restart(format_args!("hard fault pc {:08x} lr {:08x}", frame.pc(), frame.lr()))
}

#[exception]
unsafe fn DefaultHandler(line: i16) {
    restart(format_args!("unexpected interrupt {line}"))
}
