//! Goal: a bus works on a real terminal device, in real time, and costs next to nothing while nothing happens.
//! Method: real nodes on the far end of a pseudo-terminal, each hearing what the gateway says; [`super::super::run`] at the near end.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gengfu_alarm::observation::What;
use gengfu_node_linux::node::battery::{Limits, NoGauge};
use gengfu_node_linux::node::bus::BusAddress;
use gengfu_node_linux::node::contact::Contact;
use gengfu_node_linux::node::heat::NoThermometer;
use gengfu_node_linux::node::input::Input;
use gengfu_node_linux::node::{Board, Identity, Node, Parts, Sensor, Timing, Wiring};
use gengfu_node_linux::pins::{SimPin, SimSounder};
use gengfu_wire::FirmwareVersion;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::time::Instant;

use super::super::{BusConfig, NodeConfig, PortConfig};
use super::port::Gateway;
use super::rig::{node_config, uid};
use super::slug;

struct PlainBoard;

impl Board for PlainBoard {
    type Pin = SimPin;
    type Gauge = NoGauge;
    type Output = SimSounder;
    type Thermometer = NoThermometer;
    type Watch = ();
}

fn node(index: usize, door: &SimPin) -> Node<PlainBoard> {
    let address = BusAddress::new(u8::try_from(index + 1).unwrap());
    let firmware = FirmwareVersion { major: 0, minor: 1, patch: 0 };
    let boot = u32::try_from(index).unwrap() + 100;
    let contact = Sensor::Contact(Contact::new(Input::active_high(door.clone()), 20));
    let parts = Parts {
        identity: Identity { uid: uid(index), boot, firmware, wiring: Wiring::Bus(address) },
        timing: Timing { heartbeat_ms: 10_000, battery: Limits::default() },
        sensors: std::iter::once((1, contact)).collect(),
        gauge: None,
        sounder: None,
        watch: (),
    };
    Node::new(parts).unwrap()
}

/// Nodes at the far end of a pseudo-terminal, on a thread of their own.
struct Building {
    port: PathBuf,
    doors: Vec<SimPin>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Building {
    fn new(count: usize) -> Building {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let port = PathBuf::from(ptsname(&master, vec![]).unwrap().into_string().unwrap());
        let doors: Vec<SimPin> = (0..count).map(|_| SimPin::default()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (pins, stop_too) = (doors.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || live(&master, &pins, &stop_too));
        Building { port, doors, stop, thread: Some(thread) }
    }

    fn config(&self) -> PortConfig {
        let nodes = (0..self.doors.len()).map(|index| NodeConfig {
            silence: Duration::from_secs(20),
            ..node_config(index, u8::try_from(index + 1).unwrap())
        });
        let bus = BusConfig { name: slug("bus"), turnaround: BusConfig::TURNAROUND_USB };
        PortConfig::bus(self.port.clone(), 115_200, bus, nodes.collect()).unwrap()
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn live(master: &OwnedFd, doors: &[SimPin], stop: &AtomicBool) {
    let started = Instant::now();
    let mut nodes: Vec<_> = doors.iter().enumerate().map(|(index, door)| node(index, door)).collect();
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Acquire) {
        let pause = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let mut ready = [PollFd::new(master, PollFlags::IN)];
        let is_ready = poll(&mut ready, Some(&pause)).unwrap() > 0;
        // While nobody has the near end open, reading is an error.
        let length = if is_ready { rustix::io::read(master, &mut buffer).unwrap_or(0) } else { 0 };
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap();
        let mut said = vec![];
        for node in &mut nodes {
            node.on_bytes(now_ms, &buffer[..length]);
            node.poll(now_ms, &mut |frame: &[u8]| {
                said.extend_from_slice(frame);
                true
            });
        }
        let mut rest = said.as_slice();
        while !rest.is_empty() && !stop.load(Ordering::Acquire) {
            rest = &rest[rustix::io::write(master, rest).unwrap_or(0)..];
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_works_on_a_real_terminal() {
    let building = Building::new(8);
    let mut gateway = Gateway::of(building.config(), std::collections::BTreeMap::new());
    for node in 0..8 {
        gateway.state_of(node, |stats| stats.polls > 0).await;
    }
    for index in [7, 0, 3] {
        let door = slug(&format!("door-{index}"));
        building.doors[index].set(true);
        let opened = What::Door { open: true, repaired: false };
        gateway.until_seen(|it| it.device == door && it.what == opened && it.origin.is_some()).await;
    }
    let saved = gateway.ends().await;
    assert_eq!(saved.len(), 8, "each node has a cursor of its own");
}
