//! The node's image for the LM3S6965.
//!
//! Owns the board: which pin is what, the order of start-up, and the loop that looks, sends and sleeps. Refuses logic: what counts as
//! an event, what is kept and what is sent again is `gengfu-node`, the same code that runs on Linux.
//!
//! ```text
//! reset -> clocks -> watchdog -> EEPROM: boot id -> wire -> node -> ( bytes in, poll, feed, sleep until a byte or the beat )*
//! ```
#![no_std]
#![no_main]

mod adc;
mod battery;
mod clock;
mod flash;
mod i2c;
mod identity;
mod interrupts;
mod kept;
mod panic;
mod pins;
mod regs;
mod report;
mod update;
mod watchdog;
mod wire;

use cortex_m_rt::entry;
use gengfu_node::contact::{self, Contact};
use gengfu_node::heat::{Heat, Thermometer};
use gengfu_node::input::Input;
use gengfu_node::smoke::{Lines, Smoke};
use gengfu_node::sos::Sos;
use gengfu_node::tamper::Tamper;
use gengfu_node::tmp1xx::{self, Tmp1xx};
use gengfu_node::wire::{NODE_CHANNEL, Severity};
use gengfu_node::{Board, Identity, Node, Parts, Sensor, SetupError, Timing};
use gengfu_node_board::boot;

use crate::regs::GpioPort;
use crate::report::Report;

/// This board.
struct Evaluation;

impl Board for Evaluation {
    type Pin = pins::Input;
    type Gauge = battery::Gauge;
    type Output = pins::Output;
    type Thermometer = Tmp1xx<i2c::Bus>;
    type Watch = ();
}

/// Its sensors: a door, a head, a button, the lid, a thermometer.
const SENSORS: usize = 5;
/// The node on this board.
type Unit = Node<Evaluation, SENSORS>;

/// The wiring (docs/wiring.md). Sensors are closed loops to ground: open means so, and a cut wire is told and not silent. The head's test
/// and hush lines close when pressed: their cut wire must not turn smoke into a test.
///
/// A function of its own, never inlined: what it needs of the stack is free again when the node runs.
#[inline(never)]
fn build(identity: Identity, thermometer: Option<Tmp1xx<i2c::Bus>>) -> Result<Unit, SetupError> {
    let mut parts = Parts {
        identity,
        timing: Timing::default(),
        sensors: heapless::Vec::new(),
        gauge: Some(battery::Gauge),
        sounder: Some(pins::Output::new(GpioPort::A, 7)),
        watch: (),
    };
    let mut add = |channel, sensor| {
        parts.sensors.push((channel, sensor)).unwrap_or_else(|_| unreachable!("there is room for five"));
    };
    let line = |port, bit| Input::active_high(pins::Input::new(port, bit));
    let button = |port, bit| Input::active_low(pins::Input::new(port, bit));
    add(1, Sensor::Contact(Contact::new(line(GpioPort::D, 4), contact::DEBOUNCE_MS)));
    let smoke = Lines {
        alarm: line(GpioPort::D, 5),
        fault: Some(line(GpioPort::D, 6)),
        test: Some(button(GpioPort::D, 7)),
        hush: Some(button(GpioPort::B, 4)),
    };
    add(2, Sensor::Smoke(Smoke::new(smoke)));
    add(3, Sensor::Sos(Sos::new(line(GpioPort::B, 5))));
    add(NODE_CHANNEL, Sensor::Tamper(Tamper::new(line(GpioPort::B, 6))));
    if let Some(thermometer) = thermometer {
        add(4, Sensor::Heat(Heat::new(thermometer)));
    }
    Node::new(parts)
}

/// The thermometer, where one is fitted: it answers, or it has answered at some boot before. So its absence from the first boot on is a board
/// without one, and its silence later is a fault that is told.
fn thermometer(mut bus: i2c::Bus) -> Option<Tmp1xx<i2c::Bus>> {
    const FITTED: u32 = 1;
    let mut part = Tmp1xx::new(bus, tmp1xx::ADDRESS);
    if part.millicelsius().is_none() {
        return (boot::recall(&mut bus, boot::THERMOMETER_AT) == Some(FITTED)).then_some(part);
    }
    // An EEPROM that keeps nothing was told by the boot counter.
    let _ = boot::keep(&mut bus, boot::THERMOMETER_AT, FITTED);
    Some(part)
}

#[entry]
fn main() -> ! {
    clock::start_core();
    watchdog::start();
    let core = cortex_m::Peripherals::take().unwrap_or_else(|| unreachable!("taken once, here"));
    let uptime = clock::Uptime::start(core.SYST);
    clock::start_beat();
    let mut bus = i2c::Bus::open();
    let (mut identity, counter_error) = identity::take(&mut bus);
    let update = update::Update::open(&mut identity, bus);
    // Borrowed where it was built: moving it would need room for a second one.
    match &mut build(identity, thermometer(bus)) {
        Ok(node) => run(node, uptime, bus, Report::new(counter_error), update),
        Err(_) => unreachable!("the channels in `build` differ"),
    }
}

/// The node's life. Never inlined, so that its variables and those of [`build`] share the same stack.
#[inline(never)]
fn run(
    node: &mut Unit,
    mut uptime: clock::Uptime,
    mut bus: i2c::Bus,
    mut report: Report,
    mut update: update::Update,
) -> ! {
    let mut wire = wire::Wire::open();
    let mut fed_at_ms = 0;
    loop {
        let now_ms = uptime.now_ms();
        let mut buffer = [0; 32];
        while let length @ 1.. = wire.read(&mut buffer) {
            node.on_bytes(now_ms, &buffer[..length]);
            report.somebody_is_there();
        }
        update.run(now_ms, node);
        report.poll(node);
        node.poll(now_ms, &mut wire);
        if let Some(address) = node.take_assigned()
            && let Err(error) = boot::keep(&mut bus, boot::ADDRESS_AT, u32::from(address.get()))
        {
            report.add(Severity::Warning, error.text());
        }
        // A clock that stands would let the node miss everything while it looks well.
        if now_ms != fed_at_ms {
            watchdog::feed();
            fed_at_ms = now_ms;
        }
        wire.sleep();
    }
}
