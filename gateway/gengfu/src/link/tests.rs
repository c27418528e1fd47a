//! Tests of the link: rules as small scripts, whole links under simulated faults, and a real pseudo-terminal.

mod bus;
mod latency;
mod node_clock;
mod orders;
mod port;
mod pty_bus;
pub(crate) mod rig;
mod session;
mod simulation;

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_contract::slug::Slug;
use jiff::{SignedDuration, Timestamp};

use super::{NodeConfig, PortConfig};
use crate::config::DeviceClass;

/// Where simulated time begins.
fn start() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

fn after_ms(ms: u64) -> Timestamp {
    start() + SignedDuration::from_millis(i64::try_from(ms).unwrap())
}

fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

/// A node with a door (1), a head (2) and a button (3).
fn config() -> NodeConfig {
    let channels = [("door", DeviceClass::Door), ("smoke", DeviceClass::Smoke), ("sos", DeviceClass::Sos)];
    NodeConfig {
        node: slug("node"),
        address: 0,
        expected_uid: None,
        silence: Duration::from_secs(30),
        heartbeat_ms: None,
        debounce_ms: None,
        channels: (1..).zip(channels.map(|(name, class)| (slug(name), class))).collect::<BTreeMap<_, _>>(),
    }
}

/// This node alone on its line.
fn alone(node: NodeConfig) -> PortConfig {
    PortConfig::point_to_point("/dev/ttyS9".into(), 115_200, node)
}
