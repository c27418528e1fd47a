//! What is known of a model of sensor: data, not code.
//!
//! Owns the types of a profile and the way from its file to them ([`load`], [`parse`]); every fault is found at once, with line, key and
//! remedy. Refuses what a device of its class cannot say, and anything that a value could mean in two ways. `docs/devices.md` explains each key.

use std::path::Path;
use std::time::Duration;

use gengfu_alarm::policy::SupervisionClass;
use gengfu_contract::words::Text;
use toml::de::DeTable;

use super::words::Meaning;
use crate::config::reader::{Faults, Section};
use crate::config::{ConfigError, DeviceClass, Fault};

mod read;

/// A model of sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// As configurations name it; the file is `<name>.toml`.
    pub name: String,
    /// Who makes it.
    pub maker: String,
    /// The maker's name of it.
    pub model: String,
    /// Where the mapping is documented: datasheet, codec, project documentation.
    pub source: String,
    /// What it is; `None` for input modules, whose devices say it in the configuration.
    pub class: Option<DeviceClass>,
    /// After what silence it is lost, when that is not its class's.
    pub supervision: Option<SupervisionClass>,
    /// Millivolts of its cell at 0 and at 100 %; needed where only a percentage or a flag is told.
    pub battery_mv_at: Option<[u32; 2]>,
    /// How it is read.
    pub map: Map,
}

/// How a model is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Map {
    /// Registers and inputs.
    Modbus(ModbusMap),
    /// Messages.
    Mqtt(MqttMap),
}

/// A Modbus device's registers and inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct ModbusMap {
    /// What is read, and how often.
    pub reads: Vec<Read>,
    /// What is in it.
    pub points: Vec<Point>,
}

/// One read request.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// As points name it.
    pub name: String,
    /// Which table.
    pub function: Function,
    /// First address, from 0, as on the wire (not 30001 or 40001).
    pub address: u16,
    /// How many: at most 2000 bits or 125 registers.
    pub count: u16,
    /// How often.
    pub every: Duration,
}

/// A Modbus table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// Function 1.
    Coils,
    /// Function 2.
    DiscreteInputs,
    /// Function 3.
    HoldingRegisters,
    /// Function 4.
    InputRegisters,
}

impl Function {
    /// True for tables of bits.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Function::Coils | Function::DiscreteInputs)
    }

    /// Most values of one request (Modbus application protocol V1.1b3, 6.1 to 6.4).
    #[must_use]
    pub fn count_max(self) -> u16 {
        if self.is_bits() { 2000 } else { 125 }
    }
}

/// One value of a Modbus device.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which device of the unit it is about; 0 is the unit itself.
    pub channel: u8,
    /// Position in [`ModbusMap::reads`].
    pub read: usize,
    /// Position in that read's answer.
    pub at: u16,
    /// Which part of it.
    pub shape: Shape,
    /// What it says.
    pub meaning: Meaning,
}

/// The part of an answer that is a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One bit of a table of bits.
    Bit,
    /// One bit of a register, 0 is the lowest.
    RegisterBit(u8),
    /// Some bits of a register, moved down to the lowest.
    Masked(u16),
    /// A 16-bit number.
    Word {
        /// Two's complement.
        signed: bool,
    },
    /// A 32-bit number in two registers.
    Double {
        /// Two's complement.
        signed: bool,
        /// The first register is the low half.
        low_first: bool,
    },
}

/// What an MQTT device publishes.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttMap {
    /// Its topics.
    pub topics: Vec<Topic>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// With `{device}`, `{part}` and `+`.
    pub pattern: String,
    /// How the payload is written.
    pub payload: Payload,
    /// Where the payload says when it was sensed: RFC 3339, or milliseconds since 1970.
    pub time: Option<String>,
    /// Where the payload has an id that a copy shares.
    pub id: Option<String>,
    /// Where the payload tells the link's quality.
    pub link_quality: Option<String>,
    /// Where something must be, and what to do when it is not there.
    pub needs: Option<(String, Text)>,
    /// Its values.
    pub values: Vec<Value>,
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// JSON.
    Json,
    /// The whole payload is one text.
    Text,
    /// JSON where it is, else text.
    Any,
}

/// One value of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// JSON pointers (RFC 6901), with `{part}`; the first that is there counts. "" is the whole payload.
    pub at: Vec<String>,
    /// Position among all values of the profile.
    pub source: u16,
    /// What it says.
    pub meaning: Meaning,
}

impl Profile {
    /// Whether the configuration must name a part (an entity, a switch) beside the device's address.
    #[must_use]
    pub fn needs_part(&self) -> bool {
        let Map::Mqtt(map) = &self.map else { return false };
        map.topics.iter().any(|topic| {
            topic.pattern.contains("{part}") || topic.values.iter().flat_map(|v| &v.at).any(|at| at.contains("{part}"))
        })
    }

    /// Whether it has dry contacts, which may be wired either way.
    #[must_use]
    pub fn has_contacts(&self) -> bool {
        matches!(&self.map, Map::Modbus(map) if map.points.iter().any(|point| point.meaning == Meaning::Contact))
    }

    /// The channels a Modbus profile has.
    #[must_use]
    pub fn channels(&self) -> std::collections::BTreeSet<u8> {
        match &self.map {
            Map::Modbus(map) => map.points.iter().map(|point| point.channel).filter(|n| *n != 0).collect(),
            Map::Mqtt(_) => [1].into(),
        }
    }
}

/// Reads and checks a profile's file.
///
/// # Errors
/// [`ConfigError`]: the file cannot be read, or every fault found in it.
pub fn load(path: &Path) -> Result<Profile, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let profile = parse(&text).map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })?;
    if path.file_stem().is_some_and(|stem| stem != profile.name.as_str()) {
        let line = 1 + text.lines().position(|line| line.trim_start().starts_with("name")).unwrap_or(0);
        let fault = Fault {
            line,
            key: "name".into(),
            problem: format!("\"{}\" is in a file of another name", profile.name),
            remedy: format!("rename the file to {}.toml, or correct the name", profile.name),
        };
        return Err(ConfigError::Faulty { path: path.to_owned(), faults: vec![fault] });
    }
    Ok(profile)
}

/// Checks a profile's text.
///
/// # Errors
/// Every fault found, in the text's order.
pub fn parse(text: &str) -> Result<Profile, Vec<Fault>> {
    let mut faults = Faults::new(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            faults.push(at, "(syntax)", error.message().to_owned(), "correct the TOML here; what follows was not read");
            return Err(faults.into_sorted());
        }
    };
    let profile = read::profile(&mut faults, Section::root(&table));
    let faults = faults.into_sorted();
    match profile {
        Some(profile) if faults.is_empty() => Ok(profile),
        // A part that is missing has its fault by now; this keeps a profile without one from being taken for good.
        _ => Err(faults),
    }
}

#[cfg(test)]
mod tests;
