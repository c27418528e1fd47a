//! The configuration and its profiles, joined and checked: what the lines and brokers run by.
//!
//! Owns the match of a device with its profile (channel, class, part), and what the rules must know of each device. Refuses a device whose
//! profile cannot speak of it. Each profile is read once, and each of its faults is told once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::policy::SupervisionClass;
use gengfu_alarm::rules::{DeviceClass as RuleClass, DeviceRule};
use gengfu_contract::event::Location;
use gengfu_contract::slug::Slug;

use super::config::{DeviceBroker, ModbusLine, SensorsConfig, Way};
use super::profile::{self, Map, Profile};
use crate::config::{ConfigError, Device, DeviceClass, Lack};

/// Everything, ready to run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Modbus lines.
    pub lines: Vec<LinePlan>,
    /// Brokers of MQTT devices.
    pub brokers: Vec<BrokerPlan>,
}

/// A Modbus line.
#[derive(Debug, Clone)]
pub struct LinePlan {
    /// Its device name.
    pub name: Slug,
    /// How it is reached.
    pub way: Way,
    /// An answer must be there after this.
    pub timeout: Duration,
    /// Pause between two requests.
    pub gap: Duration,
    /// So many failures in a row are a lost unit.
    pub failures_max: u32,
    /// A lost unit is asked this often.
    pub retry_every: Duration,
    /// Its units.
    pub units: Vec<UnitPlan>,
}

/// A unit of a line.
#[derive(Debug, Clone)]
pub struct UnitPlan {
    /// Its device name.
    pub name: Slug,
    /// Its address.
    pub address: u8,
    /// What it is; a Modbus profile.
    pub profile: Arc<Profile>,
    /// Its devices by channel, with `inverted`.
    pub devices: BTreeMap<u8, (Device, bool)>,
}

/// A broker.
#[derive(Debug, Clone)]
pub struct BrokerPlan {
    /// The connection, as configured; its `devices` are those of `devices` here.
    pub config: DeviceBroker,
    /// Its devices.
    pub devices: Vec<DevicePlan>,
}

/// A device behind a broker.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    /// The device, with its class.
    pub device: Device,
    /// What it is; an MQTT profile.
    pub profile: Arc<Profile>,
    /// For `{device}`.
    pub address: String,
    /// For `{part}`; empty when the profile has none.
    pub part: String,
    /// The bridge it is behind.
    pub via: Option<Slug>,
}

/// Reads the profiles and joins them with the configuration.
///
/// # Errors
/// Everything that does not fit, with key, problem and remedy.
pub fn resolve(config: &SensorsConfig) -> Result<Plan, Vec<Lack>> {
    let (plan, lacks) = resolve_what_fits(config);
    if lacks.is_empty() { Ok(plan) } else { Err(lacks) }
}

/// As [`resolve`], for a gateway that starts all the same: what fits, and what does not. A device without its profile is never heard, and so
/// becomes a trouble of its own.
#[must_use]
pub fn resolve_what_fits(config: &SensorsConfig) -> (Plan, Vec<Lack>) {
    let mut shelf = Shelf { folder: &config.profiles, read: BTreeMap::new(), lacks: Vec::new() };
    let lines = config.lines.iter().enumerate().map(|(n, line)| shelf.line(n, line)).collect();
    let brokers = config.brokers.iter().enumerate().map(|(n, broker)| shelf.broker(n, broker)).collect();
    (Plan { lines, brokers }, shelf.lacks)
}

struct Shelf<'a> {
    folder: &'a Path,
    /// `None`: read before, and faulty.
    read: BTreeMap<String, Option<Arc<Profile>>>,
    lacks: Vec<Lack>,
}

impl Shelf<'_> {
    fn lack(&mut self, key: String, problem: impl Into<String>, remedy: impl Into<String>) {
        self.lacks.push(Lack { key, problem: problem.into(), remedy: remedy.into() });
    }

    fn profile(&mut self, key: &str, name: &str) -> Option<Arc<Profile>> {
        if let Some(known) = self.read.get(name) {
            return known.clone();
        }
        let path = self.folder.join(format!("{name}.toml"));
        let profile = match profile::load(&path) {
            Ok(profile) => Some(Arc::new(profile)),
            Err(ConfigError::Unreadable { path, source }) => {
                let remedy = "copy the profile there, correct its name, or set `profiles` to its folder";
                self.lack(key.to_owned(), format!("{}: {source}", path.display()), remedy);
                None
            }
            Err(ConfigError::Faulty { path, faults }) => {
                for fault in faults {
                    let place = format!("{}:{}: {}: {}", path.display(), fault.line, fault.key, fault.problem);
                    self.lack(key.to_owned(), place, fault.remedy);
                }
                None
            }
        };
        self.read.insert(name.to_owned(), profile.clone());
        profile
    }

    /// Whether the profile may speak of a device of this class.
    fn fits(&mut self, key: &str, device: &Device, profile: &Profile) -> bool {
        let Some(fixed) = profile.class.filter(|fixed| *fixed != device.class) else { return true };
        let problem = format!("profile {} is of class \"{}\"", profile.name, fixed.as_str());
        self.lack(
            format!("{key}.class"),
            problem,
            format!("write class = \"{}\", or choose another profile", fixed.as_str()),
        );
        false
    }

    fn line(&mut self, n: usize, line: &ModbusLine) -> LinePlan {
        let mut units = Vec::new();
        for (m, unit) in line.units.iter().enumerate() {
            let key = format!("modbus[{n}].unit[{m}]");
            let Some(profile) = self.profile(&format!("{key}.profile"), &unit.profile) else { continue };
            let Map::Modbus(_) = &profile.map else {
                let problem = format!("profile {} is for MQTT", profile.name);
                self.lack(
                    format!("{key}.profile"),
                    problem,
                    "choose a Modbus profile, or move it to [[device_broker]]",
                );
                continue;
            };
            let mut devices = BTreeMap::new();
            for (k, device) in unit.devices.iter().enumerate() {
                let key = format!("{key}.device[{k}]");
                let channels = profile.channels();
                if !channels.contains(&device.channel) {
                    let problem = format!("profile {} has no channel {}", profile.name, device.channel);
                    let known = channels.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
                    self.lack(format!("{key}.channel"), problem, format!("it has: {known}"));
                }
                if device.inverted && !profile.has_contacts() {
                    let problem = format!("profile {} has no dry contacts", profile.name);
                    self.lack(format!("{key}.inverted"), problem, "remove `inverted`");
                }
                if self.fits(&key, &device.device, &profile) {
                    devices.insert(device.channel, (device.device.clone(), device.inverted));
                }
            }
            units.push(UnitPlan { name: unit.name.clone(), address: unit.address, profile, devices });
        }
        LinePlan {
            name: line.name.clone(),
            way: line.way.clone(),
            timeout: line.timeout,
            gap: line.gap,
            failures_max: line.failures_max,
            retry_every: line.retry_every,
            units,
        }
    }

    fn broker(&mut self, n: usize, broker: &DeviceBroker) -> BrokerPlan {
        let mut devices = Vec::new();
        for (m, device) in broker.devices.iter().enumerate() {
            let key = format!("device_broker[{n}].device[{m}]");
            let Some(profile) = self.profile(&format!("{key}.profile"), &device.profile) else { continue };
            let Map::Mqtt(_) = &profile.map else {
                let problem = format!("profile {} is for Modbus", profile.name);
                self.lack(format!("{key}.profile"), problem, "choose an MQTT profile, or move it to [[modbus]]");
                continue;
            };
            if profile.needs_part() != device.part.is_some() {
                let (problem, remedy) = if device.part.is_some() {
                    ("this profile knows no part", "remove `part`")
                } else {
                    ("this profile needs to know which part", "add `part = \"…\"`: the entity or switch")
                };
                self.lack(format!("{key}.part"), problem, remedy);
                continue;
            }
            if self.fits(&key, &device.device, &profile) {
                devices.push(DevicePlan {
                    device: device.device.clone(),
                    profile,
                    address: device.address.clone(),
                    part: device.part.clone().unwrap_or_default(),
                    via: device.via.clone(),
                });
            }
        }
        BrokerPlan { config: broker.clone(), devices }
    }
}

impl Plan {
    /// Every line, unit, broker, bridge and device, what carries before what is carried. Lines, brokers and bridges are buses: what hangs on
    /// one must be heard itself, and its loss explains all of it.
    #[must_use]
    pub fn placed(&self) -> Vec<Placed<'_>> {
        let carrier = |name, class, parent, supervision| Placed { name, class, parent, supervision, device: None };
        let mut placed = Vec::new();
        for line in &self.lines {
            placed.push(carrier(&line.name, RuleClass::Bus, None, None));
            for unit in &line.units {
                let by_profile = unit.profile.supervision;
                placed.push(carrier(&unit.name, RuleClass::Node, Some(&line.name), by_profile));
                placed.extend(unit.devices.values().map(|(device, _)| Placed::of(device, &unit.name, by_profile)));
            }
        }
        for broker in &self.brokers {
            let top = &broker.config.name;
            placed.push(carrier(top, RuleClass::Bus, None, None));
            let bridges = broker.config.bridges.iter();
            placed.extend(bridges.map(|bridge| carrier(&bridge.name, RuleClass::Bus, Some(top), None)));
            let devices = broker.devices.iter();
            placed.extend(devices.map(|p| Placed::of(&p.device, p.via.as_ref().unwrap_or(top), p.profile.supervision)));
        }
        placed
    }

    /// The same as the rules want it. `place` is where the gateway stands: lines, units, brokers and bridges are there.
    #[must_use]
    pub fn rules(&self, place: &Location) -> Vec<(Slug, DeviceRule)> {
        let rule = |placed: &Placed| DeviceRule {
            class: placed.class,
            parent: placed.parent.cloned(),
            location: Some(placed.device.map_or(place, |device| &device.location).clone()),
            subject_ref: placed.device.and_then(|device| device.subject_ref.clone()),
            dwelling: placed.device.and_then(|device| device.dwelling.clone()),
            left_open_after: placed.device.and_then(|device| device.left_open_after),
            supervision: placed.supervision,
        };
        self.placed().iter().map(|placed| (placed.name.clone(), rule(placed))).collect()
    }
}

/// One name of a plan and its place among the others.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Its name.
    pub name: &'a Slug,
    /// What it is to the rules.
    pub class: RuleClass,
    /// What carries it.
    pub parent: Option<&'a Slug>,
    /// How long it may be silent, where configuration or profile say so.
    pub supervision: Option<SupervisionClass>,
    /// The configured device; `None` for what only carries others.
    pub device: Option<&'a Device>,
}

impl<'a> Placed<'a> {
    fn of(device: &'a Device, parent: &'a Slug, by_profile: Option<SupervisionClass>) -> Self {
        let class = match device.class {
            DeviceClass::Door => RuleClass::Door,
            DeviceClass::Smoke => RuleClass::Smoke,
            DeviceClass::Sos => RuleClass::Sos,
        };
        let supervision = device.supervision.or(by_profile);
        Self { name: &device.name, class, parent: Some(parent), supervision, device: Some(device) }
    }
}

/// Every profile in a folder, or what is wrong with it; by file name. For `check` and for tests.
///
/// # Errors
/// When the folder cannot be read.
pub fn shelf(folder: &Path) -> std::io::Result<Vec<(PathBuf, Result<Profile, ConfigError>)>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    Ok(paths
        .into_iter()
        .map(|path| {
            let profile = profile::load(&path);
            (path, profile)
        })
        .collect())
}
