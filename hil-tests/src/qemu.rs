//! A sensor node's microcontroller: the image of `firmware/node-cortex-m3`, unchanged, in QEMU's `lm3s6965evb`. It owns the emulator's
//! process, the pins (qtest), reset and power (QMP, the process itself), the EEPROM's file, and the cable between the chip's serial port and the
//! pseudo-terminal that a gateway opens. It refuses to look into the node: what the node did is what it said on the wire.
//!
//! Input pins read low after every reset of the emulated chip, so a reset stops the machine, sets them again and goes on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cable::Cable;
use crate::process::{Process, eventually};
use crate::skip::{Need, need};
use crate::{Result, RigError};

/// The emulator.
const PROGRAM: &str = "qemu-system-arm";
/// Its answers come within this, on a loaded machine too.
const ANSWER: Duration = Duration::from_secs(20);
/// Bytes of the EEPROM, a 24C32.
const EEPROM_BYTES: usize = 4096;
/// Where the chip's RAM begins.
const RAM_AT: usize = 0x2000_0000;
/// What the image may use of it (`memory.plain.x`).
pub const RAM_BYTES: usize = 8 * 1024;
/// Where the boot loader's part of it begins (`boot/memory.x`), and its length.
const LOADER_RAM_AT: usize = 0x2000_d000;
const LOADER_RAM_BYTES: usize = 12 * 1024;
/// What the start-up code fills the stack with.
const PAINT: [u8; 4] = [0xcc; 4];

/// An input line of the board; docs/wiring.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The door contact.
    Door,
    /// The smoke head's alarm.
    Smoke,
    /// The smoke head's own fault.
    SmokeFault,
    /// The smoke head's test button.
    SmokeTest,
    /// The smoke head's hush button.
    SmokeHush,
    /// The emergency button.
    Sos,
    /// The lid.
    Tamper,
    /// The strap that says "on a bus"; the program looks at it when it starts.
    Bus,
}

impl Line {
    const ALL: [Line; 8] = [
        Line::Door,
        Line::Smoke,
        Line::SmokeFault,
        Line::SmokeTest,
        Line::SmokeHush,
        Line::Sos,
        Line::Tamper,
        Line::Bus,
    ];

    /// The level of its pin: most lines are loops that open when it is so; the two buttons close when pressed.
    fn level(self, is_so: bool) -> bool {
        is_so != matches!(self, Line::SmokeTest | Line::SmokeHush)
    }

    /// Port (A is 0) and bit.
    fn place(self) -> (usize, usize) {
        match self {
            Line::Door => (3, 4),
            Line::Smoke => (3, 5),
            Line::SmokeFault => (3, 6),
            Line::SmokeTest => (3, 7),
            Line::SmokeHush => (1, 4),
            Line::Sos => (1, 5),
            Line::Tamper => (1, 6),
            Line::Bus => (0, 5),
        }
    }
}

/// What a test needs to run the image.
///
/// # Errors
/// What is missing.
pub fn needs() -> Need {
    need::all([
        need::tool(PROGRAM),
        need::file(&image()).map_err(|_| "the image is not built (make firmware)".to_owned()),
    ])
}

/// What a test needs to run the boot loader with images for its slots.
///
/// # Errors
/// What is missing.
pub fn needs_slots() -> Need {
    let built = |file: &Path| need::file(file).map_err(|_| "the image is not built (make firmware)".to_owned());
    need::all([need::tool(PROGRAM), built(&loader()), built(&slot_image('a')), built(&slot_image('b'))])
}

/// The image: `$GENGFU_FIRMWARE`, or what `make firmware` has built.
fn image() -> PathBuf {
    match std::env::var_os("GENGFU_FIRMWARE") {
        Some(path) => path.into(),
        None => built("gengfu-node-cortex-m3"),
    }
}

/// The boot loader that `make firmware` has built.
fn loader() -> PathBuf {
    built("gengfu-boot-cortex-m3")
}

/// The image that `make firmware` has linked for slot `a` or `b`.
#[must_use]
pub fn slot_image(slot: char) -> PathBuf {
    target().join(format!("slot-{slot}/thumbv7m-none-eabi/release/gengfu-node-cortex-m3"))
}

fn built(name: &str) -> PathBuf {
    target().join("thumbv7m-none-eabi/release").join(name)
}

/// `$GENGFU_FIRMWARE_TARGET`, or where this test was built: a test binary is target/<profile>/deps/<name>-<hash>.
fn target() -> PathBuf {
    if let Some(path) = std::env::var_os("GENGFU_FIRMWARE_TARGET") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(3).unwrap_or(Path::new("target")).to_owned()
}

/// A powered chip with its cable. Dropping it ends the emulator.
pub struct Chip {
    dir: PathBuf,
    mac: [u8; 6],
    cable: Cable,
    active: Vec<Line>,
    has_eeprom: bool,
    has_thermometer: bool,
    /// What lies in flash behind the boot loader, with its addresses; empty when the image itself lies at 0.
    flashed: Vec<(u32, PathBuf)>,
    running: Option<Running>,
}

/// What lives as long as the power is on.
struct Running {
    process: Process,
    control: Lines,
    pins: Lines,
    ports: Vec<String>,
}

impl Chip {
    /// Puts power on a chip at rest: nothing open, no smoke, nothing pressed. Its wire is `<dir>/node.tty`, its unique id comes from `mac`.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub fn boot(dir: &Path, mac: [u8; 6]) -> Result<Self> {
        Self::boot_with_loader(dir, mac, Vec::new())
    }

    /// The same for a chip with the boot loader, and with these files in flash: each with its address. Without a file the image itself lies at 0.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub fn boot_with_loader(dir: &Path, mac: [u8; 6], flashed: Vec<(u32, PathBuf)>) -> Result<Self> {
        std::fs::write(dir.join("eeprom.bin"), vec![0xff; EEPROM_BYTES])
            .map_err(|e| RigError::failed("make an erased EEPROM", e))?;
        let cable = Cable::lay(&dir.join("uart.sock"), &dir.join("node.tty"))?;
        let mut chip = Self {
            dir: dir.to_owned(),
            mac,
            cable,
            active: Vec::new(),
            has_eeprom: true,
            has_thermometer: false,
            flashed,
            running: None,
        };
        chip.power_on()?;
        Ok(chip)
    }

    /// Flashes other files, changes the EEPROM's bytes, and puts the power on again.
    ///
    /// # Errors
    /// When a file cannot be used or the emulator does not start.
    pub fn reflash(&mut self, flashed: Vec<(u32, PathBuf)>, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.running = None;
        self.flashed = flashed;
        let file = self.dir.join("eeprom.bin");
        let failed = |e| RigError::failed("change the EEPROM", e);
        let mut eeprom = std::fs::read(&file).map_err(failed)?;
        change(&mut eeprom);
        std::fs::write(&file, eeprom).map_err(failed)?;
        self.power_on()
    }

    /// Where the processor is just now.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn program_counter(&mut self) -> Result<u32> {
        let ask = json!({ "command-line": "info registers" });
        let answer = self.running()?.control.execute("human-monitor-command", &ask)?;
        let text = answer.as_str().unwrap_or_default();
        let value = text.split("R15=").nth(1).and_then(|rest| rest.get(..8));
        let value = value.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        value.ok_or_else(|| RigError::failed("read the program counter", text))
    }

    /// The path that a gateway opens.
    #[must_use]
    pub fn port(&self) -> PathBuf {
        self.dir.join("node.tty")
    }

    /// The unique id that this chip must tell: its MAC with FF FE in the middle.
    #[must_use]
    pub fn uid(&self) -> u64 {
        let [a, b, c, d, e, f] = self.mac;
        u64::from_be_bytes([a, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The cable.
    #[must_use]
    pub fn cable(&self) -> &Cable {
        &self.cable
    }

    /// Makes a line's thing so (open, smoke, pressed), or not.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn set(&mut self, line: Line, is_so: bool) -> Result<()> {
        self.active.retain(|it| *it != line);
        if is_so {
            self.active.push(line);
        }
        self.running()?.drive(line, line.level(is_so))
    }

    /// The reset button: the processor starts again, RAM keeps its content.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn reset(&mut self) -> Result<()> {
        let running = self.running()?;
        running.control.execute("stop", &json!({}))?;
        running.control.execute("system_reset", &json!({}))?;
        running.control.wait_event("RESET")?;
        self.drive_all()?;
        self.running()?.control.execute("cont", &json!({})).map(drop)
    }

    /// Waits until the chip has reset itself, and sets the lines again.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_for_reset(&mut self) -> Result<()> {
        self.running()?.control.wait_event("RESET")?;
        self.drive_all()
    }

    /// Takes the power away and gives it back: RAM is lost, the EEPROM is not.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub fn power_cycle(&mut self) -> Result<()> {
        self.running = None;
        self.power_on()
    }

    /// Takes the EEPROM off the board, and the power away and back.
    ///
    /// # Errors
    /// As [`Chip::power_cycle`].
    pub fn lose_eeprom(&mut self) -> Result<()> {
        self.has_eeprom = false;
        self.power_cycle()
    }

    /// Puts a thermometer (TMP105) on the board, or takes it off, with the power away meanwhile. It shows 0 °C after power-on.
    ///
    /// # Errors
    /// As [`Chip::power_cycle`].
    pub fn fit_thermometer(&mut self, fitted: bool) -> Result<()> {
        self.has_thermometer = fitted;
        self.power_cycle()
    }

    /// Sets what the thermometer shows, in thousandths of a degree.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn set_temperature(&mut self, millicelsius: i32) -> Result<()> {
        let arguments =
            json!({ "path": "/machine/peripheral/thermometer", "property": "temperature", "value": millicelsius });
        self.running()?.control.execute("qom-set", &arguments).map(drop)
    }

    /// Stops the counter from which the program takes its time, as a broken clock would.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn stop_the_clock(&mut self) -> Result<()> {
        // SysTick's control register: source core clock, counter off.
        self.running()?.pins.ask("writel 0xe000e010 0x4").map(drop)
    }

    /// Pulses the pin NMI, for which the program has no use.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn pulse_nmi(&mut self) -> Result<()> {
        let running = self.running()?;
        for level in [1, 0] {
            running.pins.ask(&format!("set_irq_in {} NMI 0 {level}", unattached(1)))?;
        }
        Ok(())
    }

    /// Bytes of RAM that were never used since the last reset: the paint that begins behind the variables and ends where the stack came.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn untouched_ram(&mut self) -> Result<usize> {
        let bytes = self.memory(RAM_AT, RAM_BYTES)?;
        let words = bytes.chunks(4).skip_while(|word| *word != PAINT);
        Ok(4 * words.take_while(|word| *word == PAINT).count())
    }

    /// Bytes of the boot loader's RAM that it has not used since the last reset.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn untouched_loader_ram(&mut self) -> Result<usize> {
        let bytes = self.memory(LOADER_RAM_AT, LOADER_RAM_BYTES)?;
        Ok(4 * bytes.chunks(4).take_while(|word| *word == PAINT).count())
    }

    /// Reads memory, while the chip runs.
    ///
    /// # Errors
    /// When the emulator does not obey.
    pub fn memory(&mut self, at: usize, length: usize) -> Result<Vec<u8>> {
        let answer = self.running()?.pins.ask(&format!("read {at:#x} {length:#x}"))?;
        let doing = "read the chip's RAM";
        let hex = answer.strip_prefix("OK 0x").ok_or_else(|| RigError::failed(doing, &answer))?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or_else(|| RigError::failed(doing, "not hexadecimal"))
    }

    fn running(&mut self) -> Result<&mut Running> {
        self.running.as_mut().ok_or_else(|| RigError::failed("reach the chip", "it has no power"))
    }

    fn drive_all(&mut self) -> Result<()> {
        for line in Line::ALL {
            let high = line.level(self.active.contains(&line));
            self.running()?.drive(line, high)?;
        }
        Ok(())
    }

    fn power_on(&mut self) -> Result<()> {
        let plugged = self.cable.plugged();
        let (qmp, qtest) = (listen(&self.dir.join("qmp.sock"))?, listen(&self.dir.join("qtest.sock"))?);
        let mut process = Process::spawn("chip", self.command(), &self.dir)?;
        let control = Lines::accept(&qmp, &mut process)?;
        let pins = Lines::accept(&qtest, &mut process)?;
        let mut running = Running { process, control, pins, ports: Vec::new() };
        running.control.line("the greeting")?;
        running.control.execute("qmp_capabilities", &json!({}))?;
        running.find_ports()?;
        self.running = Some(running);
        // Before it runs, so that nothing is said past it.
        let cable = &self.cable;
        eventually("the chip is on its cable", ANSWER, || {
            if cable.plugged() > plugged { Ok(()) } else { Err("the emulator has not connected".to_owned()) }
        })?;
        self.drive_all()?;
        self.running()?.control.execute("cont", &json!({})).map(drop)
    }

    fn command(&self) -> Command {
        let socket = |name: &str| format!("unix:{}", self.dir.join(name).display());
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        let mut command = Command::new(PROGRAM);
        // Stopped until the lines are set; the chip has no other window to the world than these.
        command.args(["-M", "lm3s6965evb", "-S", "-display", "none", "-monitor", "none", "-no-user-config"]);
        command.arg("-kernel").arg(if self.flashed.is_empty() { image() } else { loader() });
        for (at, file) in &self.flashed {
            command.arg("-device").arg(format!("loader,file={},addr={at:#x},force-raw=on", file.display()));
        }
        command.args(["-serial", &socket("uart.sock"), "-qmp", &socket("qmp.sock")]);
        command.args(["-qtest", &socket("qtest.sock"), "-qtest-log", "none"]);
        command.args(["-net", &format!("nic,macaddr={mac}")]);
        if self.has_eeprom {
            let drive = format!("if=none,id=eeprom,format=raw,file={}", self.dir.join("eeprom.bin").display());
            command.args(["-drive", &drive]);
            let part = format!("at24c-eeprom,bus=i2c,address=0x50,rom-size={EEPROM_BYTES},drive=eeprom");
            command.args(["-device", &part]);
        }
        if self.has_thermometer {
            command.args(["-device", "tmp105,bus=i2c,address=0x48,id=thermometer"]);
        }
        command
    }
}

impl Running {
    /// The board's ports in their order, A first.
    fn find_ports(&mut self) -> Result<()> {
        for index in 0..64 {
            let path = unattached(index);
            let kind = self.control.execute("qom-get", &json!({ "path": path, "property": "type" }));
            if kind.is_ok_and(|kind| kind == "pl061_luminary") {
                self.ports.push(path);
            }
        }
        if self.ports.len() == 7 { Ok(()) } else { Err(RigError::failed("find the chip's ports", self.process.tail())) }
    }

    fn drive(&mut self, line: Line, high: bool) -> Result<()> {
        let (port, bit) = line.place();
        let ask = format!("set_irq_in {} unnamed-gpio-in {bit} {}", self.ports[port], u8::from(high));
        self.pins.ask(&ask).map(drop)
    }
}

fn unattached(index: usize) -> String {
    format!("/machine/unattached/device[{index}]")
}

fn listen(path: &Path) -> Result<UnixListener> {
    // Of an earlier power-on; not there at the first.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).and_then(|it| it.set_nonblocking(true).map(|()| it));
    listener.map_err(|e| RigError::failed(format!("listen at {}", path.display()), e))
}

/// A conversation in lines.
struct Lines {
    reader: BufReader<UnixStream>,
    /// Names of the events that came between answers.
    events: Vec<String>,
}

impl Lines {
    fn accept(listener: &UnixListener, process: &mut Process) -> Result<Self> {
        let stream = eventually("the emulator calls back", ANSWER, || match listener.accept() {
            Ok((stream, _)) => Ok(Ok(stream)),
            Err(_) if !process.is_running() => Ok(Err(process.tail())),
            Err(e) => Err(e.to_string()),
        })?;
        let stream = stream.map_err(|tail| RigError::failed("start the emulator", tail))?;
        let set = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(ANSWER)));
        set.map_err(|e| RigError::failed("talk to the emulator", e))?;
        Ok(Self { reader: BufReader::new(stream), events: Vec::new() })
    }

    fn line(&mut self, doing: &str) -> Result<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(RigError::failed(doing, "the emulator has ended")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(e) => Err(RigError::failed(doing, e)),
        }
    }

    fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.reader.get_mut(), "{line}").map_err(|e| RigError::failed(format!("say {line}"), e))
    }

    /// qtest: one line, and its answer.
    fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        loop {
            let answer = self.line(line)?;
            match answer.split_whitespace().next() {
                Some("OK") => return Ok(answer),
                Some("IRQ") => {}
                _ => return Err(RigError::failed(line, answer)),
            }
        }
    }

    /// QMP: one command, and what it returns.
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.say(&json!({ "execute": command, "arguments": arguments }).to_string())?;
        loop {
            let mut answer = self.message(command)?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if answer.get("error").is_some() {
                return Err(RigError::failed(command, answer));
            }
        }
    }

    /// QMP: the next event of this name, or one that came between answers.
    fn wait_event(&mut self, name: &str) -> Result<()> {
        while !self.events.iter().any(|event| event == name) {
            self.message(name)?;
        }
        self.events.clear();
        Ok(())
    }

    fn message(&mut self, doing: &str) -> Result<Value> {
        let line = self.line(doing)?;
        let message: Value =
            serde_json::from_str(&line).map_err(|e| RigError::failed(doing, format!("{e}: {line}")))?;
        if let Some(event) = message["event"].as_str() {
            self.events.push(event.to_owned());
        }
        Ok(message)
    }
}
