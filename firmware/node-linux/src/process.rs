//! The node's thread: its board, its clock, its sleep.
//!
//! Owns when the node is polled and how long the thread sleeps. Refuses to decide anything a node decides.
#![expect(clippy::disallowed_methods, reason = "this is the board: it owns the node's clock")]

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gengfu_node::battery::Limits;
use gengfu_node::contact::Contact;
use gengfu_node::heat::NoThermometer;
use gengfu_node::input::Input;
use gengfu_node::smoke::{Lines, Smoke};
use gengfu_node::sos::Sos;
use gengfu_node::tamper::Tamper;
use gengfu_node::{Board, Identity, Node, Parts, Sensor, SetupError, Timing, Watch};
use gengfu_wire::{Event, FirmwareVersion};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::handle::{NodeReport, Options, StartError};
use crate::pins::{SimBattery, SimPin, SimSounder};
use crate::port::Wire;
use crate::script::Command;

/// How long a momentary button is held, in milliseconds; longer than any debounce here.
const PRESS_MS: u64 = 200;
/// A lost serial device is looked for again after this, in milliseconds.
const REOPEN_MS: u64 = 1_000;

/// The board.
struct LinuxBoard;

impl Board for LinuxBoard {
    type Pin = SimPin;
    type Gauge = SimBattery;
    type Output = SimSounder;
    type Thermometer = NoThermometer;
    type Watch = Seen;
}

/// Collects reports while the node is being polled.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<NodeReport>>>);

impl Seen {
    fn push(&self, report: NodeReport) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }

    fn take(&self) -> Vec<NodeReport> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watch for Seen {
    fn accepted(&mut self, event: &Event) {
        let Event { boot, sequence, channel, kind, .. } = *event;
        self.push(NodeReport::Accepted { boot, sequence, channel, kind });
    }

    fn acked(&mut self, boot: u32, through: u32) {
        self.push(NodeReport::Acked { boot, through });
    }

    fn lost(&mut self, event: &Event) {
        self.push(NodeReport::Lost { boot: event.boot, sequence: event.sequence });
    }
}

/// Everything that can be moved from outside. High means so: open, smoke, pressed.
struct Pins {
    contact: SimPin,
    smoke: SimPin,
    test: SimPin,
    hush: SimPin,
    fault: SimPin,
    sos: SimPin,
    tamper: SimPin,
    battery: SimBattery,
    sounder: SimSounder,
}

impl Pins {
    fn new(battery_mv: u16) -> Self {
        Self {
            contact: SimPin::default(),
            smoke: SimPin::default(),
            test: SimPin::default(),
            hush: SimPin::default(),
            fault: SimPin::default(),
            sos: SimPin::default(),
            tamper: SimPin::default(),
            battery: SimBattery::new(battery_mv),
            sounder: SimSounder::default(),
        }
    }
}

fn build(options: &Options, pins: &Pins, watch: Seen) -> Result<Node<LinuxBoard>, StartError> {
    let input = |pin: &SimPin| Input::active_high(pin.clone());
    let lines = Lines {
        alarm: input(&pins.smoke),
        fault: Some(input(&pins.fault)),
        test: Some(input(&pins.test)),
        hush: Some(input(&pins.hush)),
    };
    let all = [
        options.contact.zip(Some(Sensor::Contact(Contact::new(input(&pins.contact), options.debounce_ms)))),
        options.smoke.zip(Some(Sensor::Smoke(Smoke::new(lines)))),
        options.sos.zip(Some(Sensor::Sos(Sos::new(input(&pins.sos))))),
        options.tamper.zip(Some(Sensor::Tamper(Tamper::new(input(&pins.tamper))))),
    ];
    let parts = Parts {
        identity: Identity {
            uid: options.uid,
            boot: options.boot.map_or_else(random_boot, Ok)?,
            firmware: FirmwareVersion { major: 0, minor: 1, patch: 0 },
            wiring: options.wiring,
        },
        timing: Timing { heartbeat_ms: options.heartbeat_ms, battery: Limits::default() },
        sensors: all.into_iter().flatten().collect(),
        gauge: options.battery_mv.map(|_| pins.battery.clone()),
        sounder: Some(pins.sounder.clone()),
        watch,
    };
    Node::new(parts).map_err(|error| match error {
        SetupError::ChannelTwice(channel) | SetupError::ChannelRange(channel) => StartError::Channels(channel),
    })
}

/// A boot id from the operating system's randomness.
fn random_boot() -> Result<u32, StartError> {
    let mut bytes = [0_u8; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(std::io::Error::from)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// The node's thread.
pub(crate) struct Running {
    options: Options,
    pins: Pins,
    seen: Seen,
    node: Node<LinuxBoard>,
    script_next: usize,
    /// Buttons to let go: when, which.
    releases: Vec<(Instant, SimPin)>,
    booted_at: Instant,
    started_at: Instant,
    wire: Option<Wire>,
    reopen_at: Option<Instant>,
    muted: bool,
    sounding: bool,
    report: Box<dyn FnMut(NodeReport) + Send>,
    wake: Arc<OwnedFd>,
}

impl Running {
    pub(crate) fn new(
        options: Options,
        wire: Wire,
        wake: Arc<OwnedFd>,
        report: Box<dyn FnMut(NodeReport) + Send>,
    ) -> Result<Running, StartError> {
        let pins = Pins::new(options.battery_mv.unwrap_or_default());
        let seen = Seen::default();
        let node = build(&options, &pins, seen.clone())?;
        Ok(Running {
            options,
            pins,
            seen,
            node,
            script_next: 0,
            releases: Vec::new(),
            booted_at: Instant::now(),
            started_at: Instant::now(),
            wire: Some(wire),
            reopen_at: None,
            muted: false,
            sounding: false,
            report,
            wake,
        })
    }

    pub(crate) fn run(&mut self, commands: &Receiver<Command>) {
        self.seen.push(NodeReport::Booted { boot: self.node.identity().boot });
        while self.take_commands(commands) && self.follow_script() {
            self.let_go();
            self.read();
            let now_ms = self.now_ms();
            match &mut self.wire {
                Some(wire) if !self.muted => self.node.poll(now_ms, wire),
                _ => self.node.poll(now_ms, &mut |_: &[u8]| false),
            }
            self.tell();
            self.mind_the_wire();
            self.sleep();
        }
        self.wire = None;
        self.seen.push(NodeReport::Stopped);
        self.tell();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.booted_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// False when the node is to stop.
    fn take_commands(&mut self, commands: &Receiver<Command>) -> bool {
        loop {
            match commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// False when the script says so.
    fn follow_script(&mut self) -> bool {
        while let Some((at, command)) = self.options.script.steps().get(self.script_next).copied() {
            if self.started_at.elapsed() < at {
                break;
            }
            self.script_next += 1;
            if command == Command::Stop {
                return false;
            }
            self.obey(command);
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Contact { open } => self.pins.contact.set(open),
            Command::Smoke(on) => self.pins.smoke.set(on),
            Command::Hush(on) => self.pins.hush.set(on),
            Command::Fault(on) => self.pins.fault.set(on),
            Command::Tamper(open) => self.pins.tamper.set(open),
            Command::Test => self.press(self.pins.test.clone()),
            Command::Sos => self.press(self.pins.sos.clone()),
            Command::Battery { millivolts } => {
                self.pins.battery.set(millivolts);
                self.node.measure_battery_now();
            }
            Command::Mute(on) => self.muted = on,
            Command::Reboot => self.reboot(),
            Command::Stop => {}
        }
        // A level that lasts as long as its debounce counts, however soon the next command comes.
        self.node.poll(self.now_ms(), &mut |_: &[u8]| false);
    }

    fn press(&mut self, button: SimPin) {
        button.set(true);
        self.releases.push((Instant::now() + Duration::from_millis(PRESS_MS), button));
    }

    fn let_go(&mut self) {
        let now = Instant::now();
        for (_, pin) in self.releases.extract_if(.., |(at, _)| *at <= now) {
            pin.set(false);
        }
    }

    fn reboot(&mut self) {
        self.options.boot = None;
        match build(&self.options, &self.pins, self.seen.clone()) {
            Ok(node) => self.node = node,
            Err(error) => self.seen.push(NodeReport::Port { text: error.to_string() }),
        }
        self.booted_at = Instant::now();
        self.seen.push(NodeReport::Booted { boot: self.node.identity().boot });
    }

    fn read(&mut self) {
        let mut buffer = [0; 512];
        while let Some(wire) = &mut self.wire {
            match wire.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) if self.muted => {}
                Ok(length) => {
                    let now_ms = self.now_ms();
                    self.node.on_bytes(now_ms, &buffer[..length]);
                }
                Err(error) => self.lose_wire(&error.to_string()),
            }
        }
    }

    fn lose_wire(&mut self, why: &str) {
        self.wire = None;
        self.reopen_at = Some(Instant::now() + Duration::from_millis(REOPEN_MS));
        self.seen.push(NodeReport::Port { text: format!("the port is gone ({why}); trying again every second") });
    }

    fn mind_the_wire(&mut self) {
        if let Some(wire) = &mut self.wire {
            wire.flush();
            if wire.is_broken() {
                self.lose_wire("write failed");
            }
        }
        if self.reopen_at.is_some_and(|at| at <= Instant::now()) {
            self.reopen_at = Some(Instant::now() + Duration::from_millis(REOPEN_MS));
            if let Ok(wire) = Wire::open(&self.options.port) {
                self.wire = Some(wire);
                self.reopen_at = None;
                self.seen.push(NodeReport::Port { text: "the port is back".into() });
            }
        }
    }

    fn tell(&mut self) {
        if self.sounding != self.pins.sounder.is_on() {
            self.sounding = !self.sounding;
            self.seen.push(NodeReport::Sounder { on: self.sounding });
        }
        for report in self.seen.take() {
            (self.report)(report);
        }
    }

    /// Until a byte, a command, or the next thing that is due.
    fn sleep(&mut self) {
        let now_ms = self.now_ms();
        let node_due = if self.wire.is_some() && !self.muted {
            self.booted_at + Duration::from_millis(self.node.due_at_ms(now_ms))
        } else {
            // Nothing can be sent; the pins must still be watched.
            Instant::now() + Duration::from_millis(5)
        };
        let script = self.options.script.steps().get(self.script_next).map(|(at, _)| self.started_at + *at);
        let release = self.releases.iter().map(|(at, _)| *at).min();
        let due = [script, release, self.reopen_at].into_iter().flatten().fold(node_due, Instant::min);
        // One millisecond more than what is left, so as not to wake just before it.
        let left = due.saturating_duration_since(Instant::now());
        let left = if left.is_zero() { left } else { left + Duration::from_millis(1) };
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        if let Some(wire) = &self.wire {
            let out = if wire.has_rest() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(wire, PollFlags::IN | out));
        }
        // Interrupted or not: the loop looks at everything again.
        let _ = poll(&mut fds, Some(&timeout));
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }
}
