//! What hangs on a serial port.
//!
//! Owns the description of a port and its nodes, and the promise that it makes sense: one node without an address, or a bus whose nodes have
//! different ones. Refuses to read files; the configuration makes these values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gengfu_contract::slug::Slug;
use gengfu_wire::{ADDRESS_MAX, ADDRESS_POINT_TO_POINT, Uid};

use crate::config::DeviceClass;

/// One node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's device name.
    pub node: Slug,
    /// Its address on a bus, 1 to [`ADDRESS_MAX`]; [`ADDRESS_POINT_TO_POINT`] where it is alone on its port.
    pub address: u8,
    /// The node that is expected here, as the 16 hex digits of its unique id; any when absent.
    pub expected_uid: Option<u64>,
    /// Not heard for this long means the link is down. Three heartbeats are a good measure.
    pub silence: Duration,
    /// Milliseconds between its heartbeats, 1 s to 1 h; the node's own when absent.
    pub heartbeat_ms: Option<u32>,
    /// Milliseconds for which its contacts must be still, 1 to 5000; [`NodeConfig::DEBOUNCE_MS`] when only the heartbeat is given.
    pub debounce_ms: Option<u32>,
    /// What hangs on the node's channels.
    pub channels: BTreeMap<u8, (Slug, DeviceClass)>,
}

impl NodeConfig {
    /// Debouncing of a reed contact that nobody configured.
    pub const DEBOUNCE_MS: u32 = 50;
    /// Heartbeat of a node that nobody configured: three of them lost still leave a smoke sensor's loss known well within 90 s (EN 50136 DP4).
    pub const HEARTBEAT_MS: u32 = 10_000;

    /// Key under which the link's cursor is stored. One for each node's name, not for each unique id: two nodes that claim one
    /// id do not overwrite each other's.
    #[must_use]
    pub fn cursor_key(&self) -> Vec<u8> {
        format!("link/{}", self.node).into_bytes()
    }

    pub(super) fn uid(&self) -> Option<Uid> {
        self.expected_uid.map(|uid| Uid(uid.to_be_bytes()))
    }

    /// What the node is told at its Hello, if anything.
    pub(super) fn configure(&self) -> Option<gengfu_wire::Configure> {
        (self.heartbeat_ms.is_some() || self.debounce_ms.is_some()).then(|| gengfu_wire::Configure {
            heartbeat_ms: self.heartbeat_ms.unwrap_or(Self::HEARTBEAT_MS),
            debounce_ms: self.debounce_ms.unwrap_or(Self::DEBOUNCE_MS),
        })
    }
}

/// What a bus needs to know beside its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// The bus's device name: what is told when nobody on it answers.
    pub name: Slug,
    /// From the last bit of a question to the first byte of the answer at the latest, as the gateway's program sees it: the node's thinking,
    /// its driver's switching, and the adapter's buffering.
    pub turnaround: Duration,
}

impl BusConfig {
    /// For USB adapters: FTDI's chips pass on short answers after 16 ms only (their latency timer).
    pub const TURNAROUND_USB: Duration = Duration::from_millis(25);
    /// For a UART on the board.
    pub const TURNAROUND_ON_BOARD: Duration = Duration::from_millis(8);
    /// Longest that may be configured: every dead node costs it again and again.
    pub const TURNAROUND_MAX: Duration = Duration::from_millis(500);
    /// Longest that the gateway chooses by itself when nodes answer late.
    pub const TURNAROUND_CHOSEN_MAX: Duration = Duration::from_millis(200);
}

/// A serial port and what hangs on it. Made by [`PortConfig::point_to_point`] or [`PortConfig::bus`].
#[derive(Debug, Clone)]
pub struct PortConfig {
    port: PathBuf,
    baud: u32,
    bus: Option<BusConfig>,
    nodes: Vec<NodeConfig>,
}

/// Why nodes cannot share a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortConfigError {
    /// A bus of nobody.
    #[error("no node is configured on the bus {port}; add a [[nodes]] with this port")]
    Empty {
        /// The port.
        port: String,
    },
    /// An address that no node can have.
    #[error("{node}: address {address} is out of range; give it one of 1 to {ADDRESS_MAX}")]
    Address {
        /// The node.
        node: Slug,
        /// Its address.
        address: u8,
    },
    /// Two nodes at one address.
    #[error("{first} and {second} both have address {address} on {port}; give one of them another")]
    AddressTwice {
        /// The port.
        port: String,
        /// The address.
        address: u8,
        /// The node that has it.
        first: Slug,
        /// The node that has it too.
        second: Slug,
    },
    /// Waiting too long for each answer.
    #[error("a turnaround of {turnaround_ms} ms on {port} is too long; at most {} ms", BusConfig::TURNAROUND_MAX.as_millis())]
    Turnaround {
        /// The port.
        port: String,
        /// As configured.
        turnaround_ms: u128,
    },
}

impl PortConfig {
    /// One node on its own line. Its address becomes [`ADDRESS_POINT_TO_POINT`].
    #[must_use]
    pub fn point_to_point(port: PathBuf, baud: u32, node: NodeConfig) -> Self {
        let node = NodeConfig { address: ADDRESS_POINT_TO_POINT, ..node };
        Self { port, baud, bus: None, nodes: vec![node] }
    }

    /// Nodes that share a pair.
    ///
    /// # Errors
    /// [`PortConfigError`] when addresses or times make no sense.
    pub fn bus(port: PathBuf, baud: u32, bus: BusConfig, nodes: Vec<NodeConfig>) -> Result<Self, PortConfigError> {
        let name = || port.display().to_string();
        if nodes.is_empty() {
            return Err(PortConfigError::Empty { port: name() });
        }
        if bus.turnaround > BusConfig::TURNAROUND_MAX {
            return Err(PortConfigError::Turnaround { port: name(), turnaround_ms: bus.turnaround.as_millis() });
        }
        for (index, node) in nodes.iter().enumerate() {
            let address = node.address;
            if address == 0 || address > ADDRESS_MAX {
                return Err(PortConfigError::Address { node: node.node.clone(), address });
            }
            if let Some(first) = nodes[..index].iter().find(|other| other.address == address) {
                let (first, second) = (first.node.clone(), node.node.clone());
                return Err(PortConfigError::AddressTwice { port: name(), address, first, second });
            }
        }
        Ok(Self { port, baud, bus: Some(bus), nodes })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> &Path {
        &self.port
    }

    /// Bits per second.
    #[must_use]
    pub fn baud(&self) -> u32 {
        self.baud
    }

    /// The bus, unless there is one node on a line of its own.
    #[must_use]
    pub fn as_bus(&self) -> Option<&BusConfig> {
        self.bus.as_ref()
    }

    /// The nodes: at least one, and just one on a line of its own.
    #[must_use]
    pub fn nodes(&self) -> &[NodeConfig] {
        &self.nodes
    }

    /// Unique ids of the port's nodes, as far as they are configured.
    #[must_use]
    pub fn uids(&self) -> BTreeSet<u64> {
        self.nodes.iter().filter_map(|node| node.expected_uid).collect()
    }
}
