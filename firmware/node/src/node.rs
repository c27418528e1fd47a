//! The node: sensors, outbox and uplink put together.
//!
//! Owns the order of work in one poll and the answers to the gateway's messages. Refuses to know a board: pins, gauge, sounder
//! and the onlooker come as the types of a [`Board`].

use embedded_hal::digital::{InputPin, OutputPin};
use gengfu_wire::{
    ADDRESS_EVERYONE, CHANNEL_MAX, Capabilities, ChannelLevel, Configure, Decoder, Done, Downlink, Event, EventKind,
    FirmwareVersion, Heartbeat, Hello, LEVELS_MAX, Level, Levels, Log, Message, NODE_CHANNEL, Pong, Severity, Text,
    Uid, Uplink,
};

use crate::battery::{BatteryGauge, BatteryWatch, Limits};
use crate::bus::{BusAddress, Counted, Turn, Wiring};
use crate::heat::Thermometer;
use crate::input::earliest;
use crate::outbox::{Entry, Outbox};
use crate::sensor::Sensor;
use crate::time::GatewayTime;
use crate::update::{Seam, Situation};
use crate::uplink::{Stream, Transmit, send};

/// Most sensors of a node.
pub const SENSORS_MAX: usize = LEVELS_MAX;

/// A full wire is tried again after this, in milliseconds.
const WIRE_FULL_RETRY_MS: u64 = 10;
/// On a bus, with nothing to wait for but a poll, the node wants to be looked after this often, in milliseconds.
const IDLE_MS: u64 = 1_000;

/// What a board is made of.
pub trait Board {
    /// Its input pins; one type, as type-erased pins of a HAL are.
    type Pin: InputPin;
    /// Its battery gauge ([`crate::battery::NoGauge`] where there is none).
    type Gauge: BatteryGauge;
    /// Its output pins (sounder, a head's test input); one type, as type-erased pins of a HAL are.
    type Output: OutputPin;
    /// Its thermometer ([`crate::heat::NoThermometer`] where there is none).
    type Thermometer: Thermometer;
    /// Who wants to know what the node does; `()` for nobody.
    type Watch: Watch;
}

/// Sees what a node accepts and gets rid of. For lamps, traces and tests; nothing depends on it.
pub trait Watch {
    /// An event has its number and is kept.
    fn accepted(&mut self, _event: &Event) {}
    /// The gateway has everything of this boot up to `through`.
    fn acked(&mut self, _boot: u32, _through: u32) {}
    /// The outbox was full and gave up this event.
    fn lost(&mut self, _event: &Event) {}
}

impl Watch for () {}

/// Who the node is. The board supplies it.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Unique in the world: the chip's serial number.
    pub uid: Uid,
    /// Differs at every boot and is unlikely to equal another node's (W11): true randomness, or a stored counter mixed with the uid.
    pub boot: u32,
    /// Version of the image.
    pub firmware: FirmwareVersion,
    /// Alone on its wire, or at an address on a bus.
    pub wiring: Wiring,
}

/// Timing that the gateway may change ([`Downlink::Configure`]).
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u32,
    /// Limits of the battery.
    pub battery: Limits,
}

impl Default for Timing {
    /// Ten seconds: three of them lost still leave a smoke sensor's loss known well within 90 s (EN 50136 DP4).
    fn default() -> Self {
        Self { heartbeat_ms: 10_000, battery: Limits::default() }
    }
}

/// Everything a node is built from. `SENSORS` is how many it has room for; a small board says fewer and saves its RAM.
pub struct Parts<B: Board, const SENSORS: usize = SENSORS_MAX> {
    /// Who it is.
    pub identity: Identity,
    /// When it does what.
    pub timing: Timing,
    /// Its sensors with their channels, 0 to [`CHANNEL_MAX`]; 0 is for the case's own switch.
    pub sensors: heapless::Vec<(u8, Sensor<B>), SENSORS>,
    /// Its battery, where it can be measured.
    pub gauge: Option<B::Gauge>,
    /// Its sounder, where there is one.
    pub sounder: Option<B::Output>,
    /// Its onlooker.
    pub watch: B::Watch,
}

/// Why a node cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupError {
    /// Two sensors have this channel.
    ChannelTwice(u8),
    /// This channel is above [`CHANNEL_MAX`].
    ChannelRange(u8),
}

/// Counters for the technician.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Received frames that were broken.
    pub broken_frames: u32,
    /// Received frames that were for none of its kind, or made no sense (W10). On a bus those for other nodes are not counted.
    pub ignored_frames: u32,
    /// How often events were sent again for want of an Ack.
    pub resends: u32,
    /// Events given up by a full outbox.
    pub lost_events: u32,
    /// Events kept now.
    pub kept_events: usize,
}

/// A sensor node.
pub struct Node<B: Board, const SENSORS: usize = SENSORS_MAX> {
    identity: Identity,
    heartbeat_ms: u32,
    sensors: heapless::Vec<(u8, Sensor<B>), SENSORS>,
    battery: Option<BatteryWatch<B::Gauge>>,
    sounder: Option<B::Output>,
    sound_until_ms: u64,
    watch: B::Watch,
    outbox: Outbox,
    stream: Stream,
    decoder: Decoder,
    hello_due: bool,
    heartbeat_at_ms: u64,
    levels_told: usize,
    pong: Option<u32>,
    log: Option<(Severity, Text)>,
    time: GatewayTime,
    turn: Option<Turn>,
    assigned: Option<BusAddress>,
    update: Seam,
    wire_full: bool,
    broken_frames: u32,
    ignored_frames: u32,
}

impl<B: Board, const SENSORS: usize> Node<B, SENSORS> {
    /// A node at the moment of its boot.
    ///
    /// # Errors
    /// [`SetupError`] when two sensors share a channel or a channel is out of range.
    pub fn new(parts: Parts<B, SENSORS>) -> Result<Self, SetupError> {
        const { assert!(SENSORS <= SENSORS_MAX, "a heartbeat has room for so many levels") };
        for (index, (channel, _)) in parts.sensors.iter().enumerate() {
            if *channel > CHANNEL_MAX {
                return Err(SetupError::ChannelRange(*channel));
            }
            if parts.sensors[..index].iter().any(|(other, _)| other == channel) {
                return Err(SetupError::ChannelTwice(*channel));
            }
        }
        Ok(Self {
            heartbeat_ms: parts.timing.heartbeat_ms,
            sensors: parts.sensors,
            battery: parts.gauge.map(|gauge| BatteryWatch::new(gauge, parts.timing.battery)),
            sounder: parts.sounder,
            sound_until_ms: 0,
            watch: parts.watch,
            outbox: Outbox::new(parts.identity.boot),
            stream: Stream::default(),
            decoder: Decoder::new(),
            hello_due: true,
            heartbeat_at_ms: 0,
            levels_told: 0,
            pong: None,
            log: None,
            time: GatewayTime::default(),
            turn: None,
            assigned: None,
            update: Seam::default(),
            wire_full: false,
            broken_frames: 0,
            ignored_frames: 0,
            identity: parts.identity,
        })
    }

    /// Looks at the pins and sends what is due. `now_ms` is the time since boot; it never goes back.
    ///
    /// Call it after every change of a pin, after [`Node::on_bytes`], and at [`Node::due_at_ms`]; or every few milliseconds.
    pub fn poll(&mut self, now_ms: u64, tx: &mut impl Transmit) {
        self.sense(now_ms);
        self.sound(now_ms);
        self.wire_full = match self.identity.wiring {
            Wiring::PointToPoint => !self.transmit(now_ms, tx),
            Wiring::Bus(_) => !self.answer(now_ms, tx),
        };
    }

    /// On a bus: what the poll allows, and the `Done` behind it (W30). False when the wire has not taken all of it.
    fn answer(&mut self, now_ms: u64, tx: &mut impl Transmit) -> bool {
        let Some(turn) = self.turn.take_if(|turn| !turn.is_over(now_ms)) else {
            self.turn = None;
            return true;
        };
        let mut counted = Counted::new(tx, turn.left);
        self.transmit(now_ms, &mut counted);
        let (left, is_full) = (counted.left, counted.is_full);
        let done = Done { boot: self.identity.boot, more: self.has_more(now_ms) };
        if is_full || !send(tx, self.identity.wiring.address(), Uplink::Done(done)) {
            self.turn = Some(turn.with_left(left));
            return false;
        }
        true
    }

    /// Whether anything waits for another poll.
    fn has_more(&self, now_ms: u64) -> bool {
        self.hello_due
            || self.pong.is_some()
            || self.log.is_some()
            || self.update.answer().is_some()
            || now_ms >= self.heartbeat_at_ms
            || self.stream.has_more(&self.outbox)
    }

    fn sense(&mut self, now_ms: u64) {
        for index in 0..self.sensors.len() {
            while let Some((channel, sensor)) = self.sensors.get_mut(index) {
                let channel = *channel;
                let Some(kind) = sensor.poll(now_ms) else { break };
                self.accept(now_ms, channel, kind);
            }
        }
        if let Some(kind) = self.battery.as_mut().and_then(|battery| battery.poll(now_ms)) {
            self.accept(now_ms, NODE_CHANNEL, kind);
        }
        // A level that has just settled is told at once: after a boot the gateway knows within moments how the doors stand.
        let settled = self.sensors.iter().filter(|(_, sensor)| sensor.level().is_some()).count();
        if settled > self.levels_told {
            self.levels_told = settled;
            self.heartbeat_at_ms = now_ms;
        }
    }

    fn accept(&mut self, now_ms: u64, channel: u8, kind: EventKind) {
        let (event, given_up) = self.outbox.accept(now_ms, channel, kind);
        self.watch.accepted(&event);
        if let Some(given_up) = given_up {
            self.watch.lost(&given_up);
        }
    }

    fn sound(&mut self, now_ms: u64) {
        if let Some(sounder) = &mut self.sounder {
            // A pin that cannot be set is a fault no message could repair; it is set again at each poll.
            let _ = if now_ms < self.sound_until_ms { sounder.set_high() } else { sounder.set_low() };
        }
    }

    /// Hello, then the stream, then everything that only informs. False when the wire is full.
    fn transmit(&mut self, now_ms: u64, tx: &mut impl Transmit) -> bool {
        let address = self.identity.wiring.address();
        if self.hello_due {
            if !send(tx, address, Uplink::Hello(self.hello(now_ms))) {
                return false;
            }
            self.hello_due = false;
        }
        if !self.stream.poll(now_ms, address, &self.outbox, tx) {
            return false;
        }
        if let Some(nonce) = self.pong {
            let pong = Pong { boot: self.identity.boot, uptime_ms: now_ms, nonce };
            if !send(tx, address, Uplink::Pong(pong)) {
                return false;
            }
            self.pong = None;
        }
        if let Some(answer) = self.update.answer() {
            if !send(tx, address, answer) {
                return false;
            }
            self.update.answered();
        }
        if now_ms >= self.heartbeat_at_ms {
            if !send(tx, address, Uplink::Heartbeat(self.heartbeat(now_ms))) {
                return false;
            }
            self.heartbeat_at_ms = now_ms.saturating_add(u64::from(self.heartbeat_ms));
        }
        if let Some((severity, text)) = &self.log {
            let log = Log { boot: self.identity.boot, uptime_ms: now_ms, severity: *severity, text: text.clone() };
            if !send(tx, address, Uplink::Log(log)) {
                return false;
            }
            self.log = None;
        }
        true
    }

    fn hello(&self, now_ms: u64) -> Hello {
        let sounder = if self.sounder.is_some() { Capabilities::SOUNDER } else { Capabilities::default() };
        let battery = if self.battery.is_some() { Capabilities::BATTERY } else { Capabilities::default() };
        Hello {
            uid: self.identity.uid,
            boot: self.identity.boot,
            firmware: self.identity.firmware,
            capabilities: sounder.with(battery).with(self.update.capability()),
            uptime_ms: now_ms,
            unacked_from: self.outbox.unacked_from(),
            next_sequence: self.outbox.next_sequence(),
            heartbeat_ms: self.heartbeat_ms,
        }
    }

    fn heartbeat(&self, now_ms: u64) -> Heartbeat {
        let mut levels = Levels::new();
        for (channel, sensor) in &self.sensors {
            if let Some(level) = sensor.level() {
                let level = ChannelLevel { channel: *channel, level, fault: sensor.is_faulty() };
                levels.push(level).unwrap_or_else(|_| unreachable!("no more sensors than levels"));
            }
        }
        Heartbeat {
            boot: self.identity.boot,
            uptime_ms: now_ms,
            next_sequence: self.outbox.next_sequence(),
            levels,
            battery: self.battery.as_ref().and_then(BatteryWatch::last),
        }
    }

    /// Takes bytes from the wire, in any portions.
    pub fn on_bytes(&mut self, now_ms: u64, bytes: &[u8]) {
        for byte in bytes {
            match self.decoder.push(*byte) {
                None => {}
                Some(Err(_)) => self.broken_frames = self.broken_frames.saturating_add(1),
                Some(Ok(frame)) => match frame.message {
                    Message::Down(downlink) => self.on_frame(now_ms, frame.address, downlink),
                    // On a bus a node hears the others, and perhaps itself.
                    Message::Up(_) if matches!(self.identity.wiring, Wiring::Bus(_)) => {}
                    Message::Up(_) => self.ignore(),
                },
            }
        }
    }

    /// A downlink to `address`: is it for this node?
    fn on_frame(&mut self, now_ms: u64, address: u8, downlink: Downlink) {
        let own = match self.identity.wiring {
            Wiring::PointToPoint if address == self.identity.wiring.address() => {
                return self.on_downlink(now_ms, downlink);
            }
            Wiring::PointToPoint => return self.ignore(),
            Wiring::Bus(own) => own,
        };
        // Whoever is spoken to: the gateway speaks again, so an answer that is not whole would collide.
        self.turn = None;
        let is_own = own.is_some_and(|own| own.get() == address);
        let is_everyones = address == ADDRESS_EVERYONE;
        match downlink {
            Downlink::Assign(assign) if assign.uid == self.identity.uid && (is_own || is_everyones) => {
                self.move_to(assign.address);
            }
            Downlink::Assign(_) => {}
            Downlink::Poll(poll) if is_own => self.turn = Some(Turn::new(now_ms, poll.frames)),
            // An Ack speaks of one node's numbers; the others ask for an answer, which nobody may give.
            Downlink::Ack(_)
            | Downlink::Ping(_)
            | Downlink::Poll(_)
            | Downlink::UpdateQuery
            | Downlink::UpdateBegin(_)
            | Downlink::UpdateBlock(_)
            | Downlink::UpdateTry(_)
                if is_everyones =>
            {
                self.ignore()
            }
            downlink if is_own || (is_everyones && own.is_some()) => self.on_downlink(now_ms, downlink),
            _ => {}
        }
    }

    fn move_to(&mut self, address: u8) {
        let Some(address) = BusAddress::new(address) else { return self.ignore() };
        if self.identity.wiring != Wiring::Bus(Some(address)) {
            self.identity.wiring = Wiring::Bus(Some(address));
            self.assigned = Some(address);
            self.hello_due = true;
        }
    }

    fn on_downlink(&mut self, now_ms: u64, downlink: Downlink) {
        match downlink {
            Downlink::Ack(ack) if ack.boot == self.identity.boot => {
                self.update.acknowledged();
                if self.stream.on_ack(now_ms, ack, &mut self.outbox) {
                    self.watch.acked(ack.boot, ack.through);
                }
            }
            Downlink::Identify => {
                self.hello_due = true;
                self.heartbeat_at_ms = now_ms;
                self.stream.rewind(now_ms, &self.outbox);
            }
            Downlink::Ping(ping) => self.pong = Some(ping.nonce),
            Downlink::Sounder(sounder) if self.sounder.is_some() => {
                self.sound_until_ms = now_ms.saturating_add(u64::from(sounder.for_ms));
            }
            Downlink::Configure(configure) => self.configure(configure),
            Downlink::Test { channel } => {
                let sensor = self.sensors.iter_mut().find(|(other, _)| *other == channel);
                if !sensor.is_some_and(|(_, sensor)| sensor.begin_test(now_ms)) {
                    self.ignore();
                }
            }
            Downlink::UpdateQuery | Downlink::UpdateBegin(_) | Downlink::UpdateBlock(_) | Downlink::UpdateTry(_) => {
                if !self.update.ask(downlink) {
                    self.ignore();
                }
            }
            Downlink::Time(time) => self.time.on_time(now_ms, time),
            Downlink::Ack(_) | Downlink::Sounder(_) | Downlink::Poll(_) | Downlink::Assign(_) => self.ignore(),
        }
    }

    fn configure(&mut self, configure: Configure) {
        self.heartbeat_ms = configure.heartbeat_ms;
        self.heartbeat_at_ms = 0;
        for (_, sensor) in &mut self.sensors {
            if let Sensor::Contact(contact) = sensor {
                contact.set_debounce_ms(configure.debounce_ms);
            }
        }
    }

    fn ignore(&mut self) {
        self.ignored_frames = self.ignored_frames.saturating_add(1);
    }

    /// Measures the battery at the next poll, without waiting for its hour.
    pub fn measure_battery_now(&mut self) {
        if let Some(battery) = &mut self.battery {
            battery.measure_now();
        }
    }

    /// Tells the technician a line behind everything else, once. False while an earlier one waits: try again after the next poll.
    pub fn log(&mut self, severity: Severity, text: Text) -> bool {
        let is_free = self.log.is_none();
        if is_free {
            self.log = Some((severity, text));
        }
        is_free
    }

    /// The address that the gateway has assigned since the last call (W34), for the board to keep over its next boot.
    pub fn take_assigned(&mut self) -> Option<BusAddress> {
        self.assigned.take()
    }

    /// The gateway's time at uptime `now_ms`, in milliseconds since 1970-01-01 UTC; `None` while it is not known. For display only.
    #[must_use]
    pub fn time(&self, now_ms: u64) -> Option<u64> {
        self.time.at(now_ms)
    }

    /// When to poll again at the latest, if neither a pin changes nor a byte comes. Never earlier than `now_ms`.
    #[must_use]
    pub fn due_at_ms(&self, now_ms: u64) -> u64 {
        if self.wire_full {
            return now_ms.saturating_add(WIRE_FULL_RETRY_MS);
        }
        let speech = match self.identity.wiring {
            Wiring::PointToPoint => self.speech_due_at_ms(now_ms),
            // Only a poll makes a node on a bus speak, and a poll comes as bytes.
            Wiring::Bus(_) => self.turn.map_or(now_ms.saturating_add(IDLE_MS), |_| now_ms),
        };
        let sensors = self.sensors.iter().filter_map(|(_, sensor)| sensor.due_at_ms()).min();
        let battery = self.battery.as_ref().and_then(BatteryWatch::due_at_ms);
        let sounder = (self.sounder.is_some() && self.sound_until_ms > now_ms).then_some(self.sound_until_ms);
        let due = [sensors, battery, sounder].into_iter().fold(Some(speech), earliest);
        due.map_or(speech, |due| due.min(speech)).max(now_ms)
    }

    fn speech_due_at_ms(&self, now_ms: u64) -> u64 {
        if self.hello_due || self.pong.is_some() || self.log.is_some() || self.update.answer().is_some() {
            return now_ms;
        }
        let stream = self.stream.due_at_ms(now_ms, &self.outbox);
        stream.map_or(self.heartbeat_at_ms, |due| due.min(self.heartbeat_at_ms))
    }

    /// The version that this image was signed with, where its board knows; it is told in each Hello from now on.
    pub fn set_firmware(&mut self, firmware: FirmwareVersion) {
        self.identity.firmware = firmware;
    }

    /// Between this node and its [`crate::Updater`].
    pub fn update_seam(&mut self) -> &mut Seam {
        &mut self.update
    }

    /// What an update must know of the node (W37).
    #[must_use]
    pub fn situation(&self) -> Situation {
        let is_alarm = |sensor: &Sensor<B>| {
            matches!(sensor.level(), Some(Level::SmokeAlarm | Level::SmokeHushed | Level::SmokeTest))
        };
        let mut from = self.outbox.unacked_from();
        let mut calls = false;
        while let Some(entry) = self.outbox.entry_from(from) {
            calls |= matches!(entry, Entry::Event(event) if event.kind.is_life_safety());
            from = entry.last().saturating_add(1);
        }
        Situation {
            alarm: calls || self.sensors.iter().any(|(_, sensor)| is_alarm(sensor)),
            battery_low: self.battery.as_ref().and_then(BatteryWatch::last).is_some_and(|battery| battery.low),
            unsent: !self.outbox.is_empty(),
        }
    }

    /// Counters for the technician.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            broken_frames: self.broken_frames,
            ignored_frames: self.ignored_frames,
            resends: self.stream.resends(),
            lost_events: self.outbox.lost_total(),
            kept_events: self.outbox.len(),
        }
    }

    /// The outbox, to look at.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}
