//! I2C master 0 (PB2 SCL, PB3 SDA) at 89 kHz, as an `embedded_hal` bus.
//!
//! Owns single transfers by looking, not by interrupt: a transfer is 0.4 ms, at boot and once a second. Refuses to wait for ever on a bus
//! that is stuck. Only the main loop uses it, one whole transfer after the other, so that handles of it may be copied.

use embedded_hal::i2c::{Error, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation, SevenBitAddress};

use crate::clock::CORE_HZ;
use crate::regs::{GpioPort, I2C0, Register};

/// Clock of the bus; what the timer's divider makes of it is a little less.
const BUS_HZ: u32 = 100_000;
/// Looks at a byte on its way before the bus counts as stuck: some 2 ms, a byte takes 0.1 ms.
const LOOKS: u32 = 2_000;

const ADDRESS: Register = I2C0.at(0x000);
const CONTROL: Register = I2C0.at(0x004);
const DATA: Register = I2C0.at(0x008);

const RUN: u32 = 1;
const START: u32 = 1 << 1;
const STOP: u32 = 1 << 2;
const ACK: u32 = 1 << 3;
const BUSY: u32 = 1;
const ERROR: u32 = 1 << 1;
const ADDRESS_NACK: u32 = 1 << 2;
const ARBITRATION_LOST: u32 = 1 << 4;

/// The bus; one exists.
#[derive(Clone, Copy)]
pub struct Bus(());

/// What went wrong on the bus.
#[derive(Debug, Clone, Copy)]
pub struct BusError(ErrorKind);

impl Error for BusError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl Bus {
    /// Sets up pins and master. Call once.
    pub fn open() -> Self {
        const SCL_SDA: u32 = 0b1100;
        let port = GpioPort::B.block();
        port.at(0x420).set(SCL_SDA);
        port.at(0x50c).set(SCL_SDA);
        port.at(0x51c).set(SCL_SDA);
        I2C0.at(0x020).write(1 << 4);
        // One bit of the bus takes 20 * (1 + period) clocks; rounded up, never faster than asked.
        I2C0.at(0x00c).write(CORE_HZ.div_ceil(20 * BUS_HZ) - 1);
        Self(())
    }

    fn step(&mut self, what: u32) -> Result<(), BusError> {
        CONTROL.write(what);
        let is_done = (0..LOOKS).any(|_| CONTROL.read() & BUSY == 0);
        let status = CONTROL.read();
        let kind = if !is_done {
            ErrorKind::Bus
        } else if status & (ERROR | ARBITRATION_LOST) == 0 {
            return Ok(());
        } else if status & ARBITRATION_LOST != 0 {
            ErrorKind::ArbitrationLoss
        } else if status & ADDRESS_NACK != 0 {
            ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address)
        } else {
            ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data)
        };
        if kind != ErrorKind::ArbitrationLoss && what & STOP == 0 {
            CONTROL.write(STOP);
        }
        Err(BusError(kind))
    }
}

impl ErrorType for Bus {
    type Error = BusError;
}

impl I2c<SevenBitAddress> for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), BusError> {
        let count = operations.len();
        let mut direction = None;
        for (index, operation) in operations.iter_mut().enumerate() {
            let is_last = index + 1 == count;
            let reads = matches!(operation, Operation::Read(_));
            let start = if direction == Some(reads) { 0 } else { START };
            direction = Some(reads);
            ADDRESS.write(u32::from(address) << 1 | u32::from(reads));
            match operation {
                Operation::Write(bytes) => {
                    let length = bytes.len();
                    for (n, byte) in bytes.iter().enumerate() {
                        let stop = if is_last && n + 1 == length { STOP } else { 0 };
                        DATA.write(u32::from(*byte));
                        self.step(RUN | stop | if n == 0 { start } else { 0 })?;
                    }
                }
                Operation::Read(buffer) => {
                    let length = buffer.len();
                    for (n, place) in buffer.iter_mut().enumerate() {
                        // The last byte is not acknowledged: that tells the part to let go of the bus.
                        let end = if n + 1 < length {
                            ACK
                        } else if is_last {
                            STOP
                        } else {
                            0
                        };
                        self.step(RUN | end | if n == 0 { start } else { 0 })?;
                        *place = DATA.read().to_le_bytes()[0];
                    }
                }
            }
        }
        Ok(())
    }
}
