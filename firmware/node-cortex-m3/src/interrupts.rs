//! The vector table beyond the core's exceptions.
//!
//! Owns which line goes to which handler. All lines without a handler of their own end in [`crate::panic`]'s default handler.

/// One entry of the table.
#[repr(C)]
pub union Vector {
    handler: unsafe extern "C" fn(),
    reserved: u32,
}

unsafe extern "C" {
    fn DefaultHandler();
    fn UART0();
    fn TIMER0A();
}

/// Lines of the LM3S6965 (data sheet, table 2-9).
const LINES: usize = 44;
/// The wire's.
pub const UART0_LINE: usize = 5;
/// The wake-up timer's.
pub const TIMER0A_LINE: usize = 19;

/// The table, behind the sixteen entries of cortex-m-rt.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
pub static __INTERRUPTS: [Vector; LINES] = {
    let mut table = [const { Vector { handler: DefaultHandler } }; LINES];
    table[UART0_LINE] = Vector { handler: UART0 };
    table[TIMER0A_LINE] = Vector { handler: TIMER0A };
    table
};

/// Lets an interrupt through.
pub fn unmask(line: usize) {
    let nvic = cortex_m::peripheral::NVIC::PTR;
    // SAFETY: a single store to the set-enable register, where zeros change nothing. The handlers exist, and what they share with
    // the main loop is behind critical sections.
    unsafe { (*nvic).iser[line / 32].write(1 << (line % 32)) };
}
