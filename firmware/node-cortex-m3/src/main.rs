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
mod i2c;
mod identity;
mod interrupts;
mod kept;
mod panic;
mod pins;
mod regs;
mod report;
mod watchdog;
mod wire;

use cortex_m_rt::entry;
use gengfu_node::contact::{self, Contact};
use gengfu_node::heat::NoThermometer;
use gengfu_node::input::Input;
use gengfu_node::smoke::{Lines, Smoke};
use gengfu_node::sos::Sos;
use gengfu_node::tamper::Tamper;
use gengfu_node::wire::NODE_CHANNEL;
use gengfu_node::{Board, Identity, Node, Parts, Sensor, SetupError, Timing};

use crate::regs::GpioPort;
use crate::report::Report;

/// This board.
struct Evaluation;

impl Board for Evaluation {
    type Pin = pins::Input;
    type Gauge = battery::Gauge;
    type Output = pins::Output;
    type Thermometer = NoThermometer;
    type Watch = ();
}

/// The wiring (docs/wiring.md). Sensors are closed loops to ground: open means so, and a cut wire is told and not silent. The head's test
/// and hush lines close when pressed: their cut wire must not turn smoke into a test.
///
/// A function of its own, never inlined: what it needs of the stack is free again when the node runs.
#[inline(never)]
fn build(identity: Identity) -> Result<Node<Evaluation>, SetupError> {
    let mut parts = Parts {
        identity,
        timing: Timing::default(),
        sensors: heapless::Vec::new(),
        gauge: Some(battery::Gauge),
        sounder: Some(pins::Output::new(GpioPort::A, 7)),
        watch: (),
    };
    let mut add = |channel, sensor| {
        parts.sensors.push((channel, sensor)).unwrap_or_else(|_| unreachable!("there is room for four"));
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
    Node::new(parts)
}

#[entry]
fn main() -> ! {
    clock::start_core();
    watchdog::start();
    let core = cortex_m::Peripherals::take().unwrap_or_else(|| unreachable!("taken once, here"));
    let uptime = clock::Uptime::start(core.SYST);
    clock::start_beat();
    let (identity, counter_error) = identity::take(&mut i2c::Bus::open());
    // Borrowed where it was built: moving it would need room for a second one.
    match &mut build(identity) {
        Ok(node) => run(node, uptime, Report::new(&identity, counter_error)),
        Err(_) => unreachable!("the channels in `build` differ"),
    }
}

/// The node's life. Never inlined, so that its variables and those of [`build`] share the same stack.
#[inline(never)]
fn run(node: &mut Node<Evaluation>, mut uptime: clock::Uptime, mut report: Report) -> ! {
    let mut wire = wire::Wire::open();
    let mut fed_at_ms = 0;
    loop {
        let now_ms = uptime.now_ms();
        let mut buffer = [0; 32];
        while let length @ 1.. = wire.read(&mut buffer) {
            node.on_bytes(now_ms, &buffer[..length]);
            report.somebody_is_there();
        }
        node.poll(now_ms, &mut wire);
        report.poll(now_ms, &mut wire);
        // A clock that stands would let the node miss everything while it looks well.
        if now_ms != fed_at_ms {
            watchdog::feed();
            fed_at_ms = now_ms;
        }
        // A byte that comes just before this waits for the beat, 5 ms at most.
        cortex_m::asm::wfi();
    }
}
