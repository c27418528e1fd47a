//! The node's thread: its board, its clock, its sleep.
//!
//! Owns when the node is polled and how long the thread sleeps. Refuses to decide anything a node decides.
#![expect(clippy::disallowed_methods, reason = "this is the board: it owns the node's clock")]

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gengfu_node::update::Step;
use gengfu_node::{BusAddress, Node, Watch, Wiring};
use gengfu_wire::Event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::board::{self, LinuxBoard, Pins};
use crate::flash::Update;
use crate::handle::{NodeReport, Options, StartError};
use crate::pins::SimPin;
use crate::place;
use crate::port::Wire;
use crate::script::Command;

/// How long a momentary button is held, in milliseconds; longer than any debounce here.
const PRESS_MS: u64 = 200;
/// A lost serial device is looked for again after this, in milliseconds.
const REOPEN_MS: u64 = 1_000;

/// Collects reports while the node is being polled.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<NodeReport>>>);

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
        self.push(NodeReport::Accepted { boot, sequence, channel, kind, unix_ms: None });
    }

    fn acked(&mut self, boot: u32, through: u32) {
        self.push(NodeReport::Acked { boot, through });
    }

    fn lost(&mut self, event: &Event) {
        self.push(NodeReport::Lost { boot: event.boot, sequence: event.sequence });
    }
}

/// How the node is connected: as the options say, at the address that was kept.
fn wiring(options: &Options) -> Result<Wiring, StartError> {
    let (Wiring::Bus(None), Some(file)) = (options.wiring, &options.address_file) else { return Ok(options.wiring) };
    let kept: Option<BusAddress> = place::read(file).map_err(|why| StartError::Address { file: file.clone(), why })?;
    Ok(Wiring::Bus(kept))
}

/// The node's thread.
pub(crate) struct Running {
    options: Options,
    /// As the options say, or as the gateway has assigned since.
    wiring: Wiring,
    pins: Pins,
    seen: Seen,
    node: Node<LinuxBoard>,
    update: Option<Update>,
    script_next: usize,
    /// Buttons to let go: when, which.
    releases: Vec<(Instant, SimPin)>,
    booted_at: Instant,
    started_at: Instant,
    wire: Option<Wire>,
    reopen_at: Option<Instant>,
    muted: bool,
    sounding: bool,
    /// The update has work left.
    update_soon: bool,
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
        board::check(&options.gpio)?;
        let pins = Pins::new(&options)?;
        let seen = Seen::default();
        let wiring = wiring(&options)?;
        let mut node = board::build(&options, wiring, &pins, seen.clone())?;
        let update = options.flash.as_ref().map(|slots| Update::boot(slots, &mut node)).transpose()?;
        Ok(Running {
            update,
            options,
            wiring,
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
            update_soon: false,
            report,
            wake,
        })
    }

    pub(crate) fn run(&mut self, commands: &Receiver<Command>) {
        self.tell_boot();
        while self.take_commands(commands) && self.follow_script() {
            self.let_go();
            self.read();
            self.mind_the_update();
            let now_ms = self.now_ms();
            match &mut self.wire {
                Some(wire) if !self.muted => self.node.poll(now_ms, wire),
                _ => self.node.poll(now_ms, &mut |_: &[u8]| false),
            }
            self.keep_address();
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
        if !self.pins.are_simulated() && !matches!(command, Command::Mute(_) | Command::Reboot | Command::Stop) {
            let text = "the node's lines are real; only mute, reboot and quit are for it".into();
            return self.seen.push(NodeReport::Refused { text });
        }
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
        match board::build(&self.options, self.wiring, &self.pins, self.seen.clone()) {
            Ok(node) => self.node = node,
            Err(error) => self.seen.push(NodeReport::Port { text: error.to_string() }),
        }
        self.update = match self.options.flash.as_ref().map(|slots| Update::boot(slots, &mut self.node)).transpose() {
            Ok(update) => update,
            Err(error) => {
                self.seen.push(NodeReport::Refused { text: error.to_string() });
                None
            }
        };
        self.booted_at = Instant::now();
        self.tell_boot();
    }

    fn tell_boot(&self) {
        let identity = self.node.identity();
        self.seen.push(NodeReport::Booted { boot: identity.boot });
        if let Some(update) = &self.update {
            let (firmware, slot, is_trial) = (identity.firmware, update.running, update.is_trial());
            self.seen.push(NodeReport::Image { firmware, slot, is_trial });
        }
    }

    /// A little of an update, and the restart that it asks for.
    fn mind_the_update(&mut self) {
        let now_ms = self.now_ms();
        let Some(update) = &mut self.update else { return };
        match update.run(now_ms, &mut self.node) {
            Step::GoOn { soon } => self.update_soon = soon,
            Step::Restart => self.reboot(),
        }
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

    /// Keeps an address that the gateway has just assigned (W34).
    fn keep_address(&mut self) {
        let Some(address) = self.node.take_assigned() else { return };
        self.wiring = Wiring::Bus(Some(address));
        self.seen.push(NodeReport::Assigned { address: address.get() });
        let Some(file) = &self.options.address_file else { return };
        if let Err(error) = place::write(file, address) {
            let text = format!("keep the address in {}: {error}; the folder must be writable", file.display());
            self.seen.push(NodeReport::Refused { text });
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
        for mut report in self.seen.take() {
            if let NodeReport::Accepted { unix_ms, .. } = &mut report {
                *unix_ms = self.node.time(self.now_ms());
            }
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
        let update = self.update_soon.then(Instant::now);
        let due = [script, release, self.reopen_at, update].into_iter().flatten().fold(node_due, Instant::min);
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
