//! `[[modbus]]` and `[[device_broker]]` of the configuration.
//!
//! Owns their keys, defaults and bounds; faults are told like all others of the file. Refuses to read profiles: that is [`super::plan`], since a
//! profile is a file of its own with faults of its own.
//!
//! The caller owns the root: it calls [`read`] once, and keeps the names unique over the whole configuration with [`SensorsConfig::names`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gengfu_contract::event::Location;
use gengfu_contract::slug::Slug;
use toml::de::DeTable;

use crate::config::nodes::common;
use crate::config::read::{host_port, path};
use crate::config::reader::{Faults, Section};
use crate::config::{CareDefaults, Device, DeviceClass, Fault};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Other people's sensors, as the file says.
#[derive(Debug, Clone, Default)]
pub struct SensorsConfig {
    /// Folder of the profiles. Default `profiles` beside the configuration.
    pub profiles: PathBuf,
    /// `[[modbus]]`.
    pub lines: Vec<ModbusLine>,
    /// `[[device_broker]]`.
    pub brokers: Vec<DeviceBroker>,
}

/// `[[modbus]]`: a serial line or a TCP connection with its units.
#[derive(Debug, Clone)]
pub struct ModbusLine {
    /// The line's own device name; its loss explains its units.
    pub name: Slug,
    /// Where it is.
    pub way: Way,
    /// An answer must be there after this. Default 300 ms.
    pub timeout: Duration,
    /// Pause between two requests. Default 5 ms.
    pub gap: Duration,
    /// So many failures in a row are a lost unit. Default 3.
    pub failures_max: u32,
    /// A lost unit is asked this often. Default 10 s.
    pub retry_every: Duration,
    /// The units.
    pub units: Vec<ModbusUnit>,
}

/// How a line is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// RTU on a serial port.
    Serial {
        /// The port.
        port: PathBuf,
        /// Bits per second.
        baud: u32,
        /// Parity bit.
        parity: Parity,
        /// 1 or 2.
        stop_bits: u8,
    },
    /// Modbus TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, 502 by the standard.
        port: u16,
    },
}

/// A serial line's parity bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// None.
    None,
    /// Even.
    Even,
    /// Odd.
    Odd,
}

/// `[[modbus.unit]]`.
#[derive(Debug, Clone)]
pub struct ModbusUnit {
    /// The unit's own device name.
    pub name: Slug,
    /// Its address on the line, 1 to 247.
    pub address: u8,
    /// The profile's name.
    pub profile: String,
    /// What hangs on it.
    pub devices: Vec<UnitDevice>,
}

/// `[[modbus.unit.device]]`.
#[derive(Debug, Clone)]
pub struct UnitDevice {
    /// The profile's channel. Default 1.
    pub channel: u8,
    /// Inputs only: wired the other way round.
    pub inverted: bool,
    /// The device; its class must be the profile's, where that has one.
    pub device: Device,
}

/// `[[device_broker]]`: a broker on this box or site.
#[derive(Debug, Clone)]
pub struct DeviceBroker {
    /// The broker's own device name; its loss explains its devices.
    pub name: Slug,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// MQTT client id; the broker keeps messages for it while the gateway is away.
    pub client_id: String,
    /// MQTT user.
    pub username: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Authority that signed the broker's certificate; plain TCP without.
    pub ca_file: Option<PathBuf>,
    /// Time without traffic after which a ping is due.
    pub keep_alive: Duration,
    /// Programs between the broker and the devices.
    pub bridges: Vec<Bridge>,
    /// The devices.
    pub devices: Vec<MqttDevice>,
}

/// `[[device_broker.bridge]]`: Zigbee2MQTT and the like, which say themselves whether they run.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Its own device name; its loss explains the devices behind it.
    pub name: Slug,
    /// Where it says `online` or `offline`, as text or as `{"state": …}`.
    pub topic: String,
}

/// `[[device_broker.device]]`.
#[derive(Debug, Clone)]
pub struct MqttDevice {
    /// The profile's name.
    pub profile: String,
    /// What stands for `{device}` in the profile's topics: friendly name, device EUI, node.
    pub address: String,
    /// What stands for `{part}`: entity, switch.
    pub part: Option<String>,
    /// The bridge it is behind.
    pub via: Option<Slug>,
    /// The device; its class must be the profile's, where that has one.
    pub device: Device,
}

impl SensorsConfig {
    /// Every device name in it, lines, units, brokers and bridges included.
    pub fn names(&self) -> impl Iterator<Item = &Slug> {
        let units = self.lines.iter().flat_map(|line| &line.units);
        let of_lines = self.lines.iter().map(|line| &line.name).chain(
            units.flat_map(|unit| std::iter::once(&unit.name).chain(unit.devices.iter().map(|d| &d.device.name))),
        );
        let of_brokers = self.brokers.iter().flat_map(|broker| {
            let bridges = broker.bridges.iter().map(|bridge| &bridge.name);
            std::iter::once(&broker.name).chain(bridges).chain(broker.devices.iter().map(|d| &d.device.name))
        });
        of_lines.chain(of_brokers)
    }

    /// Every sensor with what carries it; lines, units, brokers and bridges are not among them.
    pub fn devices(&self) -> impl Iterator<Item = (&Slug, &Device)> {
        let units = self.lines.iter().flat_map(|line| &line.units);
        let of_units = units.flat_map(|unit| unit.devices.iter().map(|d| (&unit.name, &d.device)));
        let of_brokers =
            self.brokers.iter().flat_map(|broker| broker.devices.iter().map(|d| (&broker.name, &d.device)));
        of_units.chain(of_brokers)
    }
}

/// Checks a text that has only these tables, as a site's file of sensors may; relative paths are relative to `base`.
///
/// # Errors
/// Every fault found, in the text's order.
pub fn parse(text: &str, base: &Path) -> Result<SensorsConfig, Vec<Fault>> {
    let mut faults = Faults::new(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            faults.push(at, "(syntax)", error.message().to_owned(), "correct the TOML here; what follows was not read");
            return Err(faults.into_sorted());
        }
    };
    let mut root = Section::root(&table);
    let config = read(&mut faults, &mut root, base, &Location::default(), &CareDefaults::default());
    root.finish(&mut faults);
    let faults = faults.into_sorted();
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// Reads `profiles`, `[[modbus]]` and `[[device_broker]]` from the configuration's root. `place` is where the gateway stands, `base` the file's folder, `care` what homes inherit.
pub fn read(f: &mut Faults, root: &mut Section, base: &Path, place: &Location, care: &CareDefaults) -> SensorsConfig {
    let profiles = path(f, root, "profiles", base).unwrap_or_else(|| base.join("profiles"));
    let lines = root.sections(f, "modbus").into_iter().filter_map(|s| line(f, s, base, place, care)).collect();
    let brokers =
        root.sections(f, "device_broker").into_iter().filter_map(|s| broker(f, s, base, place, care)).collect();
    let config = SensorsConfig { profiles, lines, brokers };
    let mut seen = BTreeSet::new();
    for name in config.names() {
        if !seen.insert(name) {
            let remedy = "lines, units, brokers, bridges and devices need names of their own";
            root.fault(f, "modbus", format!("two devices are called \"{name}\""), remedy);
        }
    }
    config
}

fn line(f: &mut Faults, mut s: Section, base: &Path, place: &Location, care: &CareDefaults) -> Option<ModbusLine> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"rs485-1\"");
    let way = way(f, &mut s, base);
    let timeout = s.duration(f, "timeout", 50 * MS..=10 * SECOND).unwrap_or(300 * MS);
    let gap = s.duration(f, "gap", Duration::ZERO..=SECOND).unwrap_or(5 * MS);
    let failures_max = s.integer(f, "failures_max", 1..=100).and_then(|n| u32::try_from(n).ok()).unwrap_or(3);
    let retry_every = s.duration(f, "retry_every", SECOND..=3600 * SECOND).unwrap_or(10 * SECOND);
    let units: Vec<ModbusUnit> = s.sections(f, "unit").into_iter().filter_map(|u| unit(f, u, place, care)).collect();
    if units.is_empty() {
        s.fault(f, "unit", "a line without a unit", "add a [[modbus.unit]] with name, address and profile");
    }
    let mut seen = BTreeSet::new();
    for unit in units.iter().filter(|unit| !seen.insert(unit.address)) {
        let remedy = "give each unit an address of its own, here and on the device";
        s.fault(f, "unit", format!("two units have address {}", unit.address), remedy);
    }
    s.finish(f);
    Some(ModbusLine { name: name?, way: way?, timeout, gap, failures_max, retry_every, units })
}

fn way(f: &mut Faults, s: &mut Section, base: &Path) -> Option<Way> {
    let port = path(f, s, "port", base);
    let host = s.parsed(f, "host", "\"host:port\", as in \"192.0.2.7:502\"", |v| host_port(v.as_str()?));
    let bauds = [1_200_u32, 2_400, 4_800, 9_600, 19_200, 38_400, 57_600, 115_200];
    let baud = s.parsed(f, "baud", "one of 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200", |v| {
        crate::config::reader::number_of(v).and_then(|n| bauds.into_iter().find(|b| f64::from(*b) == n))
    });
    let parity = s.one_of(f, "parity", &[("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)]);
    let stop_bits = s.integer(f, "stop_bits", 1..=2).and_then(|n| u8::try_from(n).ok());
    match (port, host) {
        (Some(port), None) => Some(Way::Serial {
            port,
            baud: baud.unwrap_or(9_600),
            parity: parity.unwrap_or(Parity::None),
            stop_bits: stop_bits.unwrap_or(1),
        }),
        (None, Some((host, port))) => {
            if baud.is_some() || parity.is_some() || stop_bits.is_some() {
                s.fault(f, "baud", "TCP has no speed, parity or stop bits", "remove them");
            }
            Some(Way::Tcp { host, port })
        }
        _ => {
            let remedy = "give `port` (a serial port) or `host` (Modbus TCP, as in \"192.0.2.7:502\"), not both";
            s.fault(f, "port", "a line is a serial port or a TCP host", remedy);
            None
        }
    }
}

fn unit(f: &mut Faults, mut s: Section, place: &Location, care: &CareDefaults) -> Option<ModbusUnit> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"inputs-1\"");
    let address = s.integer(f, "address", 1..=247).and_then(|n| u8::try_from(n).ok());
    let address = s.required(f, "address", address, "1");
    let profile = profile_name(f, &mut s);
    let mut devices: Vec<UnitDevice> = Vec::new();
    for mut section in s.sections(f, "device") {
        let channel = section.integer(f, "channel", 1..=31).map_or(1, |n| u8::try_from(n).unwrap_or(1));
        let inverted = section.flag(f, "inverted", false);
        if devices.iter().any(|other| other.channel == channel) {
            let remedy = "give each device a channel of its own";
            section.fault(f, "channel", format!("channel {channel} has two devices"), remedy);
        }
        if let Some(device) = common(f, &mut section, place, care, DeviceClass::from_word) {
            devices.push(UnitDevice { channel, inverted, device });
        }
        section.finish(f);
    }
    if devices.is_empty() {
        s.fault(f, "device", "a unit without a device", "add a [[modbus.unit.device]] with a name");
    }
    s.finish(f);
    Some(ModbusUnit { name: name?, address: address?, profile: profile?, devices })
}

fn broker(f: &mut Faults, mut s: Section, base: &Path, place: &Location, care: &CareDefaults) -> Option<DeviceBroker> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"zigbee\"");
    let broker = s.parsed(f, "broker", "\"host:port\", as in \"127.0.0.1:1883\"", |v| host_port(v.as_str()?));
    let broker = s.required(f, "broker", broker, "\"127.0.0.1:1883\"");
    let client_id = s.text(f, "client_id");
    let username = s.text(f, "username");
    let password_file = path(f, &mut s, "password_file", base);
    if password_file.is_some() && username.is_none() {
        s.fault(f, "password_file", "a password without a user", "add `username = \"…\"`");
    }
    let ca_file = path(f, &mut s, "ca_file", base);
    let keep_alive = s.duration(f, "keep_alive", 5 * SECOND..=60 * SECOND).unwrap_or(20 * SECOND);
    let bridges: Vec<Bridge> = s.sections(f, "bridge").into_iter().filter_map(|b| bridge(f, b)).collect();
    let devices: Vec<MqttDevice> =
        s.sections(f, "device").into_iter().filter_map(|d| mqtt_device(f, d, place, care, &bridges)).collect();
    if devices.is_empty() {
        s.fault(
            f,
            "device",
            "a broker without a device",
            "add a [[device_broker.device]] with name, profile and address",
        );
    }
    s.finish(f);
    let (name, (host, port)) = (name?, broker?);
    let client_id = client_id.unwrap_or_else(|| format!("gengfu-devices-{name}"));
    Some(DeviceBroker { name, host, port, client_id, username, password_file, ca_file, keep_alive, bridges, devices })
}

fn bridge(f: &mut Faults, mut s: Section) -> Option<Bridge> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"zigbee2mqtt\"");
    let topic =
        s.parsed(f, "topic", "a topic without wildcards", |v| v.as_str().filter(|t| is_topic(t)).map(str::to_owned));
    let topic = s.required(f, "topic", topic, "\"zigbee2mqtt/bridge/state\"");
    s.finish(f);
    Some(Bridge { name: name?, topic: topic? })
}

fn mqtt_device(
    f: &mut Faults,
    mut s: Section,
    place: &Location,
    care: &CareDefaults,
    bridges: &[Bridge],
) -> Option<MqttDevice> {
    let profile = profile_name(f, &mut s);
    let wanted = "the device's name in its topics, without wildcards";
    let address = s.parsed(f, "address", wanted, |v| v.as_str().filter(|t| is_topic(t)).map(str::to_owned));
    let address = s.required(f, "address", address, "\"0x00158d0001234567\"");
    let part = s.parsed(f, "part", wanted, |v| v.as_str().filter(|t| is_topic(t)).map(str::to_owned));
    let via = s.slug(f, "via");
    if via.as_ref().is_some_and(|via| !bridges.iter().any(|bridge| bridge.name == *via)) {
        s.fault(f, "via", "there is no such bridge", "write the name of a [[device_broker.bridge]] of this broker");
    }
    let device = common(f, &mut s, place, care, DeviceClass::from_word);
    s.finish(f);
    Some(MqttDevice { profile: profile?, address: address?, part, via, device: device? })
}

fn is_topic(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#', '\0']) && !text.starts_with('$') && text.len() <= 200
}

fn profile_name(f: &mut Faults, s: &mut Section) -> Option<String> {
    let profile = s.slug(f, "profile").map(|name| name.to_string());
    s.required(f, "profile", profile, "\"zigbee2mqtt-mccgq11lm\"")
}

#[cfg(test)]
mod tests;
