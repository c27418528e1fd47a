//! Names and places that may be taken only once, over all tables of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gengfu_contract::slug::Slug;

use super::reader::{Faults, Section};
use super::{Attachment, Bus, Camera, Node};
use crate::sensors::config::{SensorsConfig, Way};

/// No device, port or bus address twice, and no bus that does not exist.
pub(super) fn check(
    f: &mut Faults,
    root: &Section,
    buses: &[Bus],
    nodes: &[Node],
    cameras: &[Camera],
    sensors: &SensorsConfig,
) {
    let mut seen: BTreeSet<&Slug> = BTreeSet::new();
    let nodes_and_devices =
        nodes.iter().flat_map(|n| std::iter::once(&n.name).chain(n.channels.values().map(|d| &d.name)));
    let all = buses.iter().map(|b| &b.name).chain(nodes_and_devices).chain(cameras.iter().map(|c| &c.name));
    // Among themselves the sensors are checked where they are read.
    let mut theirs = BTreeSet::new();
    let all = all.chain(sensors.names().filter(|name| theirs.insert(*name)));
    for name in all {
        if !seen.insert(name) {
            root.fault(
                f,
                "node",
                format!("two devices are called \"{name}\""),
                "buses, nodes, devices and cameras need names of their own",
            );
        }
    }
    let mut ports: BTreeMap<&Path, &Slug> = BTreeMap::new();
    let own_ports = nodes.iter().filter_map(|n| match &n.at {
        Attachment::Port(port) => Some((port.as_path(), &n.name)),
        Attachment::Bus { .. } => None,
    });
    let lines = sensors.lines.iter().filter_map(|line| match &line.way {
        Way::Serial { port, .. } => Some((port.as_path(), &line.name)),
        Way::Tcp { .. } => None,
    });
    for (port, name) in buses.iter().map(|b| (b.port.as_path(), &b.name)).chain(own_ports).chain(lines) {
        if let Some(other) = ports.insert(port, name) {
            root.fault(
                f,
                "node",
                format!("{other} and {name} both have port {}", port.display()),
                "give each a port of its own, or make the port a [[bus]] and give its nodes `bus` and `address`",
            );
        }
    }
    let mut addresses: BTreeMap<(&Slug, u8), &Slug> = BTreeMap::new();
    for node in nodes {
        let Attachment::Bus { bus, address } = &node.at else { continue };
        if !buses.iter().any(|b| b.name == *bus) {
            let problem = format!("{} stands on bus \"{bus}\", which is not here", node.name);
            root.fault(f, "node", problem, format!("add [[bus]] with name = \"{bus}\", or correct `bus`"));
        }
        if let Some(other) = addresses.insert((bus, *address), &node.name) {
            let problem = format!("{other} and {} have address {address} on bus {bus}", node.name);
            root.fault(f, "node", problem, "give each node of a bus an address of its own, 1 to 247");
        }
    }
}
