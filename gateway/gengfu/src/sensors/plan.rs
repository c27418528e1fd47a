//! The configuration and its profiles, joined and checked: what the lines and brokers run by.
//!
//! Owns the match of a device with its profile (channel, class, part), and what the rules must know of each device. Refuses a device whose
//! profile cannot speak of it. Each profile is read once, and each of its faults is told once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::policy::Supervised;
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
    let mut shelf = Shelf { folder: &config.profiles, read: BTreeMap::new(), lacks: Vec::new() };
    let lines = config.lines.iter().enumerate().map(|(n, line)| shelf.line(n, line)).collect();
    let brokers = config.brokers.iter().enumerate().map(|(n, broker)| shelf.broker(n, broker)).collect();
    if shelf.lacks.is_empty() { Ok(Plan { lines, brokers }) } else { Err(shelf.lacks) }
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

    /// The device with the class that holds.
    fn device(&mut self, key: &str, device: &Device, given: Option<DeviceClass>, profile: &Profile) -> Option<Device> {
        let class = match (given, profile.class) {
            (Some(given), Some(fixed)) if given != fixed => {
                let problem = format!("profile {} is of class \"{}\"", profile.name, fixed.as_str());
                self.lack(format!("{key}.class"), problem, "remove `class`, or choose another profile");
                return None;
            }
            (None, None) => {
                let problem = format!("profile {} serves any class", profile.name);
                self.lack(format!("{key}.class"), problem, "add `class = \"door\"`, \"smoke\" or \"sos\"");
                return None;
            }
            (given, fixed) => given.or(fixed)?,
        };
        if device.left_open_after.is_some() && class != DeviceClass::Door {
            self.lack(format!("{key}.left_open_after"), "only a door can be left open", "remove it");
        }
        Some(Device { class, ..device.clone() })
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
                if let Some(whole) = self.device(&key, &device.device, device.class, &profile) {
                    devices.insert(device.channel, (whole, device.inverted));
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
            if let Some(whole) = self.device(&key, &device.device, device.class, &profile) {
                let (address, via) = (device.address.clone(), device.via.clone());
                let part = device.part.clone().unwrap_or_default();
                devices.push(DevicePlan { device: whole, profile, address, part, via });
            }
        }
        BrokerPlan { config: broker.clone(), devices }
    }
}

impl Plan {
    /// What the rules must know of every line, unit, broker, bridge and device: lines and brokers at the top, what they carry below. What must be
    /// heard itself has a [`Supervised`]. `place` is where the gateway stands.
    #[must_use]
    pub fn rules(&self, place: &Location) -> Vec<(Slug, DeviceRule, Option<Supervised>)> {
        let mut rules = Vec::new();
        let carrier = |parent: Option<&Slug>| DeviceRule {
            class: RuleClass::Node,
            parent: parent.cloned(),
            location: Some(place.clone()),
            ..DeviceRule::default()
        };
        let heard_itself = |class| Some(Supervised { class, by_itself: true });
        for line in &self.lines {
            rules.push((line.name.clone(), carrier(None), None));
            for unit in &line.units {
                rules.push((unit.name.clone(), carrier(Some(&line.name)), heard_itself(unit.profile.supervision)));
                for (device, _) in unit.devices.values() {
                    let special =
                        unit.profile.supervision.map(|class| Supervised { class: Some(class), by_itself: false });
                    rules.push((device.name.clone(), device_rule(device, &unit.name), special));
                }
            }
        }
        for broker in &self.brokers {
            let top = &broker.config.name;
            rules.push((top.clone(), carrier(None), None));
            rules.extend(broker.config.bridges.iter().map(|b| (b.name.clone(), carrier(Some(top)), None)));
            for plan in &broker.devices {
                let rule = device_rule(&plan.device, plan.via.as_ref().unwrap_or(top));
                rules.push((plan.device.name.clone(), rule, heard_itself(plan.profile.supervision)));
            }
        }
        rules
    }
}

fn device_rule(device: &Device, parent: &Slug) -> DeviceRule {
    DeviceRule {
        class: match device.class {
            DeviceClass::Door => RuleClass::Door,
            DeviceClass::Smoke => RuleClass::Smoke,
            DeviceClass::Sos => RuleClass::Sos,
        },
        parent: Some(parent.clone()),
        location: Some(device.location.clone()),
        subject_ref: device.subject_ref.clone(),
        dwelling: device.dwelling.clone(),
        left_open_after: device.left_open_after,
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
