//! The node's image for a WeAct Black Pill (STM32F411CE).
//!
//! Owns the board: which pin is what, the order of start-up, and the loop that looks, sends and sleeps. Refuses logic: what counts as
//! an event, what is kept and what is sent again is `gengfu-node`, the same code that runs on Linux and on the Cortex-M3 in QEMU. What a
//! restart leaves behind (`kept.rs`, `panic.rs`) is that board's source: it concerns any Cortex-M.
//!
//! ```text
//! reset -> watchdog -> clocks -> records in flash: boot id, address -> wire -> node -> ( bytes in, poll, feed, sleep )*
//! ```
#![no_std]
#![no_main]

mod clock;
#[path = "../../node-cortex-m3/src/kept.rs"]
mod kept;
#[path = "../../node-cortex-m3/src/panic.rs"]
mod panic;
mod wire;

use cortex_m_rt::entry;
use gengfu_node::battery::BatteryGauge;
use gengfu_node::boot::boot_id;
use gengfu_node::contact::{self, Contact};
use gengfu_node::heat::NoThermometer;
use gengfu_node::input::Input;
use gengfu_node::smoke::{Lines, Smoke};
use gengfu_node::sos::Sos;
use gengfu_node::tamper::Tamper;
use gengfu_node::wire::{FirmwareVersion, NODE_CHANNEL, Severity, Text, Uid};
use gengfu_node::{Board, BusAddress, Identity, Node, Parts, Sensor, SetupError, Timing, Wiring};
use gengfu_node_stm32f411_board::records::{AREA_BYTES, Kind, RecordError, Records};
use stm32f4xx_hal::adc::Adc;
use stm32f4xx_hal::adc::config::{AdcConfig, SampleTime};
use stm32f4xx_hal::flash::{FlashExt, LockedFlash, UnlockedFlash};
use stm32f4xx_hal::gpio::{Analog, AnyPin, Input as Floating, Output, PA1};
use stm32f4xx_hal::pac::{ADC1, Peripherals};
use stm32f4xx_hal::prelude::*;
use stm32f4xx_hal::rcc::Config;
use stm32f4xx_hal::serial::Serial;
use stm32f4xx_hal::watchdog::IndependentWatchdog;

/// Version of the image.
const VERSION: FirmwareVersion = FirmwareVersion { major: 0, minor: 1, patch: 0 };
/// The watchdog bites after this long without food. Of the 10 s that smoke may take to the centre 4 remain.
const WATCHDOG_MS: u32 = 6_000;
/// The fourth and the fifth sector: the image has the first three.
const AREAS: [u32; 2] = [3 * AREA_BYTES, 4 * AREA_BYTES];
/// Its sensors: a door, a head, a button, the lid.
const SENSORS: usize = 4;

/// This board.
struct BlackPill;

impl Board for BlackPill {
    type Pin = AnyPin<Floating>;
    type Gauge = Gauge;
    type Output = AnyPin<Output>;
    type Thermometer = NoThermometer;
    type Watch = ();
}

/// The node on this board.
type Unit = Node<BlackPill, SENSORS>;

/// The battery, at PA1 through a divider of two equal resistors (2 x 1 MOhm, 100 nF at the pin).
struct Gauge {
    converter: Adc<ADC1>,
    pin: PA1<Analog>,
}

impl BatteryGauge for Gauge {
    fn millivolts(&mut self) -> Option<u16> {
        const SAMPLES: u32 = 4;
        let sample = |_| u32::from(self.converter.convert(&self.pin, SampleTime::Cycles_480));
        let mean = u16::try_from((0..SAMPLES).map(sample).sum::<u32>() / SAMPLES).ok()?;
        self.converter.sample_to_millivolts(mean).checked_mul(2)
    }
}

/// The pins, in the order of docs/firmware.md.
struct Pins {
    door: AnyPin<Floating>,
    smoke: AnyPin<Floating>,
    smoke_fault: AnyPin<Floating>,
    smoke_test: AnyPin<Floating>,
    smoke_hush: AnyPin<Floating>,
    sos: AnyPin<Floating>,
    lid: AnyPin<Floating>,
    test_input: AnyPin<Output>,
    sounder: AnyPin<Output>,
}

/// Sensors are closed loops to ground, as on the Cortex-M3 board (docs/wiring.md): a cut wire is told and not silent.
#[inline(never)]
fn build(identity: Identity, pins: Pins, gauge: Gauge) -> Result<Unit, SetupError> {
    let mut parts = Parts {
        identity,
        timing: Timing::default(),
        sensors: heapless::Vec::new(),
        gauge: Some(gauge),
        sounder: Some(pins.sounder),
        watch: (),
    };
    let mut add = |channel, sensor| {
        parts.sensors.push((channel, sensor)).unwrap_or_else(|_| unreachable!("there is room for four"));
    };
    add(1, Sensor::Contact(Contact::new(Input::active_high(pins.door), contact::DEBOUNCE_MS)));
    let lines = Lines {
        alarm: Input::active_high(pins.smoke),
        fault: Some(Input::active_high(pins.smoke_fault)),
        test: Some(Input::active_low(pins.smoke_test)),
        hush: Some(Input::active_low(pins.smoke_hush)),
    };
    add(2, Sensor::Smoke(Smoke::new(lines).with_test_input(pins.test_input)));
    add(3, Sensor::Sos(Sos::new(Input::active_high(pins.sos))));
    add(NODE_CHANNEL, Sensor::Tamper(Tamper::new(Input::active_high(pins.lid))));
    Node::new(parts)
}

/// Works with the records; the flash is locked again behind it.
fn with_records<T>(flash: &mut LockedFlash, work: impl FnOnce(&mut Records<UnlockedFlash<'_>>) -> T) -> T {
    work(&mut Records::new(flash.unlocked(), AREAS))
}

/// Tells a cell of RAM that we wrote from noise.
const CELL_SEAL: u32 = 0x626f_6f74;

/// A counter and its seal, for when the flash keeps nothing.
#[unsafe(link_section = ".uninit.boot")]
static CELL: kept::Kept<[u32; 2]> = kept::Kept::unknown();

/// One more than at the boot before, if the power stayed; else what the RAM happened to hold, mixed with its neighbour.
fn from_ram() -> u32 {
    let [last, seal] = CELL.get();
    let counter = if seal == last ^ CELL_SEAL { last.wrapping_add(1) } else { last.rotate_left(16) ^ seal };
    CELL.set([counter, counter ^ CELL_SEAL]);
    counter
}

/// The chip's serial number.
fn serial_number() -> [u8; 12] {
    let chip = stm32f4xx_hal::signature::Uid::get();
    let mut bytes = [0; 12];
    bytes[..2].copy_from_slice(&chip.x().to_le_bytes());
    bytes[2..4].copy_from_slice(&chip.y().to_le_bytes());
    bytes[4] = chip.waf_num();
    for (place, byte) in bytes[5..].iter_mut().zip(chip.lot_num().bytes()) {
        *place = byte;
    }
    bytes
}

/// Who this node is at this boot, and what was wrong with its records.
fn identify(flash: &mut LockedFlash, is_on_bus: bool) -> (Identity, Option<RecordError>) {
    let uid = gengfu_node_stm32f411_board::uid(serial_number());
    let (counted, address) = with_records(flash, |records| (records.count(Kind::Boots), records.last(Kind::Address)));
    let address = address.and_then(|address| u8::try_from(address).ok()).and_then(BusAddress::new);
    let identity = Identity {
        uid: Uid(uid),
        boot: boot_id(uid, counted.unwrap_or_else(|_| from_ram())),
        firmware: VERSION,
        wiring: if is_on_bus { Wiring::Bus(address) } else { Wiring::PointToPoint },
    };
    (identity, counted.err())
}

/// Lines for the technician: sent one by one, after the first byte from the gateway.
#[derive(Default)]
struct Report {
    lines: heapless::Vec<(Severity, Text), 3>,
    is_heard: bool,
}

impl Report {
    fn add(&mut self, severity: Severity, line: &str) {
        // Three are more than a boot has to tell.
        let _ = self.lines.push((severity, line.chars().collect()));
    }

    fn poll(&mut self, node: &mut Unit) {
        if self.is_heard && self.lines.last().is_some_and(|(severity, text)| node.log(*severity, text.clone())) {
            self.lines.pop();
        }
    }
}

#[entry]
fn main() -> ! {
    let chip = Peripherals::take().unwrap_or_else(|| unreachable!("taken once, here"));
    let core = cortex_m::Peripherals::take().unwrap_or_else(|| unreachable!("taken once, here"));
    // First of all: a crystal that does not swing would hold the next lines for ever.
    let mut watchdog = IndependentWatchdog::new(chip.IWDG);
    watchdog.start(WATCHDOG_MS.millis());
    let mut report = Report::default();
    let was_bitten = chip.RCC.csr().read().wdgrstf().bit_is_set();
    chip.RCC.csr().modify(|_, w| w.rmvf().set_bit());
    match panic::last_words() {
        Some(line) => report.add(Severity::Error, &line),
        None if was_bitten => report.add(Severity::Error, "restarted by the watchdog: the program hung"),
        None => {}
    }
    let mut rcc = chip.RCC.freeze(Config::hse(clock::CORE_HZ.Hz()));
    let uptime = clock::Uptime::start(core.SYST);
    if !clock::start_beat(chip.TIM2, &mut rcc) {
        unreachable!("5 ms fit into a timer at 25 MHz");
    }
    let (a, b) = (chip.GPIOA.split(&mut rcc), chip.GPIOB.split(&mut rcc));
    let is_on_bus = a.pa5.into_pull_down_input().is_high();
    let mut flash = LockedFlash::new(chip.FLASH);
    let (identity, fault) = identify(&mut flash, is_on_bus);
    if let Some(fault) = fault {
        report.add(Severity::Warning, fault.text());
    }
    let mut converter = Adc::new(chip.ADC1, true, AdcConfig::default(), &mut rcc);
    converter.calibrate();
    let gauge = Gauge { converter, pin: a.pa1.into_analog() };
    let pins = Pins {
        door: b.pb12.into_pull_up_input().erase(),
        smoke: b.pb13.into_pull_up_input().erase(),
        smoke_fault: b.pb14.into_pull_up_input().erase(),
        smoke_test: b.pb15.into_pull_up_input().erase(),
        smoke_hush: b.pb0.into_pull_up_input().erase(),
        sos: b.pb1.into_pull_up_input().erase(),
        lid: b.pb5.into_pull_up_input().erase(),
        test_input: a.pa6.into_push_pull_output().erase(),
        sounder: a.pa7.into_push_pull_output().erase(),
    };
    let serial = Serial::new(chip.USART1, (a.pa9, a.pa10), wire::BAUD.bps(), &mut rcc);
    let Ok(serial) = serial else { unreachable!("25 MHz divide down to the wire's speed") };
    let wire = wire::Wire::open(serial, a.pa8.into_push_pull_output());
    match &mut build(identity, pins, gauge) {
        Ok(node) => run(node, uptime, wire, flash, watchdog, report),
        Err(_) => unreachable!("the channels in `build` differ"),
    }
}

/// The node's life: the loop of the Cortex-M3 board.
#[inline(never)]
fn run(
    node: &mut Unit,
    mut uptime: clock::Uptime,
    mut wire: wire::Wire,
    mut flash: LockedFlash,
    mut watchdog: IndependentWatchdog,
    mut report: Report,
) -> ! {
    let mut fed_at_ms = 0;
    loop {
        let now_ms = uptime.now_ms();
        let mut buffer = [0; 32];
        while let length @ 1.. = wire.read(&mut buffer) {
            node.on_bytes(now_ms, &buffer[..length]);
            report.is_heard = true;
        }
        report.poll(node);
        node.poll(now_ms, &mut wire);
        if let Some(address) = node.take_assigned() {
            let kept = with_records(&mut flash, |records| records.keep(Kind::Address, u32::from(address.get())));
            if let Err(error) = kept {
                report.add(Severity::Warning, error.text());
            }
        }
        // A clock that stands would let the node miss everything while it looks well.
        if now_ms != fed_at_ms {
            watchdog.feed();
            fed_at_ms = now_ms;
        }
        wire.sleep();
    }
}
