//! The wire: bytes take their time, two who speak at once on a shared pair garble each other, and what is asked for goes wrong.

use rand::Rng;
use rand::rngs::StdRng;

/// What the wire does to frames, in thousandths, and to bits, in millionths; and for how long it holds them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub drop: u32,
    pub flip: u32,
    pub double: u32,
    /// A byte of the frame is lost, or comes twice.
    pub slip: u32,
    pub bit_errors: u32,
    pub delay_us: u64,
}

/// Words of one speaker; 0 is the gateway, others are nodes by index + 1.
#[derive(Debug, Clone)]
pub struct Flight {
    pub from: usize,
    start_us: u64,
    end_us: u64,
    arrive_us: u64,
    pub bytes: Vec<u8>,
}

pub struct Air {
    pub is_shared: bool,
    /// The gateway's adapter hears itself.
    pub echoes: bool,
    /// Time from the end of a frame on the wire to the gateway's program.
    pub adapter_us: u64,
    pub up_cut_until_us: u64,
    pub down_cut_until_us: u64,
    byte_ns: u64,
    flights: Vec<Flight>,
}

fn hits(random: &mut StdRng, thousandths: u32) -> bool {
    thousandths > 0 && random.random_ratio(thousandths, 1_000)
}

impl Air {
    pub fn new(is_shared: bool, baud: u32) -> Air {
        let byte_ns = 10_000_000_000 / u64::from(baud);
        let (up_cut_until_us, down_cut_until_us) = (0, 0);
        Air { is_shared, echoes: false, adapter_us: 0, up_cut_until_us, down_cut_until_us, byte_ns, flights: vec![] }
    }

    /// When the next words arrive.
    pub fn due_us(&self) -> u64 {
        self.flights.iter().map(|it| it.arrive_us).min().unwrap_or(u64::MAX)
    }

    pub fn arrived(&mut self, now_us: u64) -> Option<Flight> {
        let due = (0..self.flights.len()).filter(|it| self.flights[*it].arrive_us <= now_us);
        let first = due.min_by_key(|it| self.flights[*it].arrive_us)?;
        Some(self.flights.remove(first))
    }

    pub fn forget_uplinks(&mut self) {
        self.flights.retain(|it| it.from == 0);
    }

    pub fn send(&mut self, random: &mut StdRng, faults: Faults, now_us: u64, from: usize, frame: &[u8]) {
        let copies = if hits(random, faults.double) { 2 } else { 1 };
        for _ in 0..copies {
            self.send_once(random, faults, now_us, from, frame);
        }
    }

    fn send_once(&mut self, random: &mut StdRng, faults: Faults, now_us: u64, from: usize, frame: &[u8]) {
        let own = |it: &&Flight| it.from == from;
        let start_us = self.flights.iter().filter(own).map(|it| it.end_us).max().unwrap_or(0).max(now_us);
        let last_us = self.flights.iter().filter(own).map(|it| it.arrive_us).max().unwrap_or(0);
        let mut bytes = frame.to_vec();
        let end_us = start_us + (bytes.len() as u64 * self.byte_ns).div_ceil(1_000);
        spoil(random, faults, &mut bytes);
        for other in self.flights.iter_mut().filter(|it| self.is_shared && it.from != from) {
            if other.start_us < end_us && start_us < other.end_us {
                garble(random, &mut other.bytes);
                garble(random, &mut bytes);
            }
        }
        let cut_until_us = if from == 0 { self.down_cut_until_us } else { self.up_cut_until_us };
        if now_us < cut_until_us || hits(random, faults.drop) {
            bytes.clear();
        }
        let adapter_us = if from == 0 { 0 } else { self.adapter_us };
        let held_us = if faults.delay_us == 0 { 0 } else { random.random_range(0..=faults.delay_us) };
        let arrive_us = (end_us + adapter_us + held_us).max(last_us);
        self.flights.push(Flight { from, start_us, end_us, arrive_us, bytes });
    }
}

fn garble(random: &mut StdRng, bytes: &mut [u8]) {
    for byte in bytes {
        *byte ^= random.random::<u8>() & random.random::<u8>();
    }
}

fn spoil(random: &mut StdRng, faults: Faults, bytes: &mut Vec<u8>) {
    if hits(random, faults.flip) {
        for _ in 0..random.random_range(1..8) {
            let bit = random.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
    if faults.bit_errors > 0 {
        for bit in 0..bytes.len() * 8 {
            if random.random_ratio(faults.bit_errors, 1_000_000) {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    if hits(random, faults.slip) {
        let at = random.random_range(0..bytes.len());
        if random.random() {
            bytes.remove(at);
        } else {
            bytes.insert(at, bytes[at]);
        }
    }
}
