//! The wire: UART 0 (PA0 in, PA1 out), 115,200 bit/s, 8N1.
//!
//! Owns both rings, the interrupt, and the pin that enables an RS-485 driver (PA6: high from a frame's first bit to its last stop bit). Refuses
//! a frame for which there is no room as a whole, so that no torn frame is ever sent. When the ring of received bytes is full it stops
//! listening until there is room; what the FIFO loses then is a broken frame, which the protocol repeats.

use core::cell::RefCell;

use critical_section::Mutex;
use gengfu_node::Transmit;
use gengfu_node::wire::FRAME_BYTES_MAX;
use heapless::Deque;

use crate::clock::CORE_HZ;
use crate::interrupts;
use crate::regs::{GpioPort, UART0 as BLOCK};

/// Bits per second.
pub const BAUD: u32 = 115_200;
/// Received bytes that wait: 11 ms of them, two beats.
const RECEIVED_MAX: usize = 128;
/// Bytes to be sent that wait: one frame of the longest kind and some usual ones (25 bytes).
const SENDING_MAX: usize = FRAME_BYTES_MAX + 136;

const DATA: crate::regs::Register = BLOCK.at(0x000);
const FLAGS: crate::regs::Register = BLOCK.at(0x018);
const MASK: crate::regs::Register = BLOCK.at(0x038);
const CLEAR: crate::regs::Register = BLOCK.at(0x044);

const BUSY: u32 = 1 << 3;
const RX_EMPTY: u32 = 1 << 4;
const TX_FULL: u32 = 1 << 5;
/// Interrupts: bytes received, bytes received and then silence, room to send.
const RX: u32 = 1 << 4;
const TX: u32 = 1 << 5;
const RX_TIMEOUT: u32 = 1 << 6;
const EVERYTHING: u32 = 0x7ff;
/// Bytes of the receiver's FIFO. Reading an empty one does nothing.
const FIFO_DEPTH: usize = 16;
/// The pin DRIVE.
const DRIVE: u8 = 1 << 6;
/// Looks at the last bytes on their way before the driver is left to the next look: about 1 ms. When the ring is empty, the FIFO still has two
/// bytes and the shifter one: 0.26 ms.
const LAST_LOOKS: u32 = 2_000;

struct Rings {
    received: Deque<u8, RECEIVED_MAX>,
    sending: Deque<u8, SENDING_MAX>,
}

static RINGS: Mutex<RefCell<Rings>> = Mutex::new(RefCell::new(Rings { received: Deque::new(), sending: Deque::new() }));

impl Rings {
    fn receive(&mut self) {
        while FLAGS.read() & RX_EMPTY == 0 {
            if self.received.is_full() {
                MASK.clear(RX | RX_TIMEOUT);
                return;
            }
            // The bits above the byte tell errors of the line; the frame's CRC tells more.
            let byte = DATA.read().to_le_bytes()[0];
            self.received.push_back(byte).unwrap_or_else(|_| unreachable!("it is not full"));
        }
    }

    /// Takes the bus for what is to be sent.
    fn drive(&self) {
        GpioPort::A.data(DRIVE).write(u32::from(DRIVE));
    }

    /// Gives the bus back when the last bit is out; before that it keeps it. The next node is polled within a byte's time of our `Done`.
    fn release(&self, looks: u32) {
        if self.sending.is_empty() && (0..looks).any(|_| FLAGS.read() & BUSY == 0) {
            GpioPort::A.data(DRIVE).write(0);
        }
    }

    fn send(&mut self) {
        while FLAGS.read() & TX_FULL == 0
            && let Some(byte) = self.sending.pop_front()
        {
            DATA.write(u32::from(byte));
        }
    }
}

/// The open wire; one exists.
pub struct Wire(());

impl Wire {
    /// Sets up pins and port. Call once.
    pub fn open() -> Self {
        const ENABLE_RX_TX: u32 = 1 | 1 << 8 | 1 << 9;
        const EIGHT_BITS_FIFO: u32 = 0x3 << 5 | 1 << 4;
        let port = GpioPort::A.block();
        port.at(0x420).set(0b11);
        port.at(0x51c).set(0b11);
        port.at(0x508).set(u32::from(DRIVE));
        GpioPort::A.data(DRIVE).write(0);
        port.at(0x400).set(u32::from(DRIVE));
        port.at(0x51c).set(u32::from(DRIVE));
        // The divisor is clock / (16 * baud) in 64ths, rounded.
        let divisor = (CORE_HZ * 4 + BAUD / 2) / BAUD;
        BLOCK.at(0x030).write(0);
        BLOCK.at(0x024).write(divisor / 64);
        BLOCK.at(0x028).write(divisor % 64);
        BLOCK.at(0x02c).write(EIGHT_BITS_FIFO);
        // Interrupt at an eighth of either FIFO.
        BLOCK.at(0x034).write(0);
        BLOCK.at(0x030).write(ENABLE_RX_TX);
        // What came before this moment is half a frame at best, and its interrupt may outlive it: both go.
        for _ in 0..FIFO_DEPTH {
            DATA.read();
        }
        CLEAR.write(EVERYTHING);
        MASK.write(RX | RX_TIMEOUT | TX);
        interrupts::unmask(interrupts::UART0_LINE);
        Self(())
    }

    /// Takes what was received; 0 when there is nothing.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        critical_section::with(|cs| {
            let mut rings = RINGS.borrow_ref_mut(cs);
            let mut length = 0;
            for place in buffer {
                let Some(byte) = rings.received.pop_front() else { break };
                *place = byte;
                length += 1;
            }
            // There is room (again): for what waits in the FIFO now, and for what comes.
            MASK.set(RX | RX_TIMEOUT);
            rings.receive();
            // Should the interrupt ever have come too early, the bus is ours for a beat too long and not for ever.
            rings.release(1);
            length
        })
    }

    /// Sleeps until an interrupt, unless bytes wait. Looked at with interrupts off, which still wake a sleeping core: a poll that comes between
    /// the look and the sleep is answered at once and not a beat later.
    pub fn sleep(&mut self) {
        critical_section::with(|cs| {
            if RINGS.borrow_ref(cs).received.is_empty() {
                cortex_m::asm::wfi();
            }
        });
    }
}

impl Transmit for Wire {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        critical_section::with(|cs| {
            let mut rings = RINGS.borrow_ref_mut(cs);
            if rings.sending.capacity() - rings.sending.len() < frame.len() {
                return false;
            }
            for byte in frame {
                rings.sending.push_back(*byte).unwrap_or_else(|_| unreachable!("there is room"));
            }
            rings.drive();
            // The FIFO interrupts when it runs low, not when it is empty from the start.
            rings.send();
            true
        })
    }
}

/// Bytes came, or there is room for some.
#[unsafe(no_mangle)]
extern "C" fn UART0() {
    CLEAR.write(TX | RX | RX_TIMEOUT);
    critical_section::with(|cs| {
        let mut rings = RINGS.borrow_ref_mut(cs);
        rings.receive();
        rings.send();
        rings.release(LAST_LOOKS);
    });
}
