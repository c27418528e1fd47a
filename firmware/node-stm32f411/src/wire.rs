//! The wire: USART 1 (PA10 in, PA9 out), 115,200 bit/s, 8N1, and the pin that enables an RS-485 driver (PA8).
//!
//! Owns both rings, the interrupt and that pin: high from a frame's first bit to its last stop bit. Refuses a frame for which there is no room
//! as a whole, so that no torn frame is ever sent. A byte for which there is no room is a broken frame, which the protocol repeats.

use core::cell::RefCell;

use critical_section::Mutex;
use gengfu_node::Transmit;
use gengfu_node::wire::FRAME_BYTES_MAX;
use heapless::Deque;
use stm32f4xx_hal::gpio::{Output, PA8};
use stm32f4xx_hal::pac::{NVIC, USART1, interrupt};
use stm32f4xx_hal::prelude::*;
use stm32f4xx_hal::serial::{Event, Flag, Serial};

/// Bits per second.
pub const BAUD: u32 = 115_200;
/// Received bytes that wait: 22 ms of them.
const RECEIVED_MAX: usize = 256;
/// Bytes to be sent that wait: one frame of the longest kind and some usual ones (25 bytes).
const SENDING_MAX: usize = FRAME_BYTES_MAX + 136;

struct Port {
    serial: Serial<USART1>,
    drive: PA8<Output>,
    received: Deque<u8, RECEIVED_MAX>,
    sending: Deque<u8, SENDING_MAX>,
}

static PORT: Mutex<RefCell<Option<Port>>> = Mutex::new(RefCell::new(None));

impl Port {
    fn receive(&mut self) {
        loop {
            match self.serial.read() {
                Ok(byte) => drop(self.received.push_back(byte)),
                Err(nb::Error::WouldBlock) => return,
                // An error of the line; reading it has cleared it, and the frame's CRC tells more.
                Err(nb::Error::Other(_)) => {}
            }
        }
    }

    fn send(&mut self) {
        while self.serial.flags().contains(Flag::TxEmpty)
            && let Some(byte) = self.sending.pop_front()
        {
            // It has room, as the flag says.
            let _ = self.serial.write(byte);
        }
        if !self.sending.is_empty() {
            return;
        }
        // Nothing waits: from now on only the end of the last byte is of interest.
        self.serial.unlisten(Event::TxEmpty);
        if self.serial.flags().contains(Flag::TransmissionComplete) {
            self.serial.unlisten(Event::TransmissionComplete);
            self.drive.set_low();
        } else {
            self.serial.listen(Event::TransmissionComplete);
        }
    }
}

/// The open wire; one exists.
pub struct Wire(());

impl Wire {
    /// Takes the port. Call once.
    pub fn open(mut serial: Serial<USART1>, drive: PA8<Output>) -> Self {
        serial.listen(Event::RxNotEmpty);
        let port = Port { serial, drive, received: Deque::new(), sending: Deque::new() };
        critical_section::with(|cs| *PORT.borrow_ref_mut(cs) = Some(port));
        // SAFETY: the handler exists, and what it shares with the main loop is behind a critical section.
        unsafe { NVIC::unmask(interrupt::USART1) };
        Self(())
    }

    /// Takes what was received; 0 when there is nothing.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let read = |port: &mut Port| {
            let mut length = 0;
            for place in buffer {
                let Some(byte) = port.received.pop_front() else { break };
                *place = byte;
                length += 1;
            }
            length
        };
        critical_section::with(|cs| PORT.borrow_ref_mut(cs).as_mut().map_or(0, read))
    }

    /// Sleeps until an interrupt, unless bytes wait. Looked at with interrupts off, which still wake a sleeping core: a poll that comes between
    /// the look and the sleep is answered at once and not a beat later.
    pub fn sleep(&mut self) {
        critical_section::with(|cs| {
            if PORT.borrow_ref(cs).as_ref().is_none_or(|port| port.received.is_empty()) {
                cortex_m::asm::wfi();
            }
        });
    }
}

impl Transmit for Wire {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        let send = |port: &mut Port| {
            if port.sending.capacity() - port.sending.len() < frame.len() {
                return false;
            }
            for byte in frame {
                port.sending.push_back(*byte).unwrap_or_else(|_| unreachable!("there is room"));
            }
            port.drive.set_high();
            port.serial.unlisten(Event::TransmissionComplete);
            port.serial.listen(Event::TxEmpty);
            true
        };
        critical_section::with(|cs| PORT.borrow_ref_mut(cs).as_mut().is_some_and(send))
    }
}

/// Bytes came, there is room for some, or the last is out.
#[interrupt]
fn USART1() {
    critical_section::with(|cs| {
        if let Some(port) = PORT.borrow_ref_mut(cs).as_mut() {
            port.receive();
            port.send();
        }
    });
}
