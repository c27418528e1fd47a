//! Goal: the Linux node keeps its promises on a real pseudo-terminal.
//! Method: this test is the gateway: it opens the link, reads frames, and answers by hand.
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use gengfu_node_linux::node::Wiring;
use gengfu_node_linux::wire::*;
use gengfu_node_linux::{NodeHandle, NodeReport, Options, Port, PortError, Script, StartError, run, spawn};

const PATIENCE: Duration = Duration::from_secs(20);

struct Gateway {
    port: File,
    decoder: Decoder,
    waiting: Vec<Uplink>,
}

impl Gateway {
    fn open(path: &Path) -> Gateway {
        let port = OpenOptions::new().read(true).write(true).open(path).unwrap();
        Gateway { port, decoder: Decoder::new(), waiting: vec![] }
    }

    /// Reads (blocking) until an uplink fits.
    fn until<T>(&mut self, mut fits: impl FnMut(&Uplink) -> Option<T>) -> T {
        loop {
            while !self.waiting.is_empty() {
                if let Some(it) = fits(&self.waiting.remove(0)) {
                    return it;
                }
            }
            let mut buffer = [0; 256];
            let length = self.port.read(&mut buffer).unwrap();
            assert!(length > 0, "the node hung up");
            for frame in self.decoder.feed(&buffer[..length]) {
                if let Message::Up(uplink) = frame.unwrap().message {
                    self.waiting.push(uplink);
                }
            }
        }
    }

    fn event(&mut self) -> Event {
        self.until(|it| if let Uplink::Event(it) = it { Some(*it) } else { None })
    }

    fn say(&mut self, downlink: Downlink) {
        self.say_to(0, downlink);
    }

    fn say_to(&mut self, address: u8, downlink: Downlink) {
        let mut buffer = [0; FRAME_BYTES_MAX];
        self.port.write_all(encode(&Frame::down(address, downlink), &mut buffer).unwrap()).unwrap();
    }
}

fn start(link: &Path, change: impl FnOnce(&mut Options)) -> (NodeHandle, Receiver<NodeReport>) {
    let mut options = Options::new(Port::Pty { link: link.to_owned() }, Uid([1; 8]));
    change(&mut options);
    let (reports, received) = sync_channel(1_000);
    let node = spawn(options, move |report| reports.send(report).unwrap_or_default()).unwrap();
    (node, received)
}

fn wait_for<T>(reports: &Receiver<NodeReport>, fits: impl Fn(&NodeReport) -> Option<T>) -> T {
    loop {
        if let Some(it) = fits(&reports.recv_timeout(PATIENCE).expect("the node reports it")) {
            return it;
        }
    }
}

#[test]
fn an_event_travels_is_kept_over_the_gateways_death_and_released_by_its_ack() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let (node, reports) = start(&link, |_| {});
    let mut gateway = Gateway::open(&link);
    gateway.until(|it| matches!(it, Uplink::Hello(_)).then_some(()));
    gateway.until(|it| if let Uplink::Heartbeat(it) = it { (it.levels.len() == 3).then_some(()) } else { None });
    node.set_smoke(true).unwrap();
    let event = gateway.event();
    assert_eq!((event.sequence, event.channel, event.kind), (1, 2, EventKind::SmokeAlarm));
    drop(gateway);
    let mut gateway = Gateway::open(&link);
    assert_eq!(gateway.event(), event, "a gateway that died and came back gets it again");
    gateway.say(Downlink::Ack(Ack { boot: event.boot, through: 1 }));
    wait_for(&reports, |it| (*it == NodeReport::Acked { boot: event.boot, through: 1 }).then_some(()));
    node.stop();
    assert!(!link.exists(), "the link goes with the node");
}

#[test]
fn bytes_pass_the_line_unchanged_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let (_node, _reports) = start(&link, |_| {});
    let mut gateway = Gateway::open(&link);
    // Every nonce is other bytes: line feeds, returns, control-C, XON and XOFF, and the bytes of their stuffing.
    for nonce in (0..256).chain([0x0a0d_0a0d, 0x0303_0303, 0x1113_1113, 0xffff_ffff]) {
        gateway.say(Downlink::Ping(Ping { nonce }));
        let back = gateway.until(|it| if let Uplink::Pong(it) = it { Some(it.nonce) } else { None });
        assert_eq!(back, nonce);
    }
}

#[test]
fn w11_every_boot_has_another_id_and_the_link_survives_it() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let (node, reports) = start(&link, |_| {});
    let boot = |it: &NodeReport| if let NodeReport::Booted { boot } = it { Some(*boot) } else { None };
    let first = wait_for(&reports, boot);
    node.reboot().unwrap();
    let second = wait_for(&reports, boot);
    assert_ne!(first, second);
    let mut gateway = Gateway::open(&link);
    gateway.until(|it| if let Uplink::Hello(it) = it { (it.boot == second).then_some(()) } else { None });
}

#[test]
fn the_sounder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let (_node, reports) = start(&link, |_| {});
    let mut gateway = Gateway::open(&link);
    gateway.say(Downlink::Sounder(Sounder { for_ms: 50 }));
    for on in [true, false] {
        wait_for(&reports, |it| (*it == NodeReport::Sounder { on }).then_some(()));
    }
}

#[test]
fn a_script_runs_by_itself_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let script = Script::parse("at 150ms open\nat 300ms sos\nat 900ms quit").unwrap();
    let (node, reports) = start(&link, |options| options.script = script);
    let kind = |it: &NodeReport| if let NodeReport::Accepted { kind, .. } = it { Some(*kind) } else { None };
    assert_eq!(wait_for(&reports, kind), EventKind::ContactOpened);
    assert_eq!(wait_for(&reports, kind), EventKind::SosPressed);
    wait_for(&reports, |it| (*it == NodeReport::Stopped).then_some(()));
    node.wait();
}

#[test]
fn a_wire_that_nobody_reads_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let (node, reports) = start(&link, |options| options.debounce_ms = 1);
    // The first level must have settled for the next to be an edge.
    for n in 0..400_u32 {
        node.set_contact(n % 2 == 0).unwrap();
        node.press_sos().unwrap();
        if n % 20 == 0 {
            node.set_smoke(n % 40 == 0).unwrap();
        }
    }
    wait_for(&reports, |it| {
        matches!(it, NodeReport::Accepted { kind: EventKind::SmokeAlarm | EventKind::SosPressed, .. }).then_some(())
    });
    node.stop();
}

#[test]
fn a_file_that_is_no_link_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("precious");
    std::fs::write(&file, "do not lose this").unwrap();
    let options = Options::new(Port::Pty { link: file.clone() }, Uid([1; 8]));
    let error = spawn(options, |_| {}).err().unwrap();
    assert!(matches!(error, StartError::Port(PortError::Occupied { .. })), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "do not lose this");
}

#[test]
fn lines_are_commands_and_a_wrong_one_is_answered_with_the_right_words() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(Port::Pty { link: folder.path().join("node") }, Uid([1; 8]));
    let (reports, received) = sync_channel(1_000);
    let mut complaints = Vec::new();
    run(
        options,
        &b"sos\n\nfly\nquit\nopen\n"[..],
        move |report| reports.send(report).unwrap_or_default(),
        |complaint| complaints.push(complaint),
    )
    .unwrap();
    assert!(
        complaints.len() == 1 && complaints[0].contains("\"fly\": unknown word; expected open, close"),
        "{complaints:?}"
    );
    assert_eq!(received.iter().last(), Some(NodeReport::Stopped));
}

#[test]
fn w34_a_node_on_a_bus_waits_for_its_address_keeps_it_and_speaks_when_polled() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("node");
    let file = folder.path().join("address");
    let on_bus = |options: &mut Options| {
        options.wiring = Wiring::Bus(None);
        options.address_file = Some(file.clone());
    };
    let (node, reports) = start(&link, on_bus);
    let mut gateway = Gateway::open(&link);
    node.set_smoke(true).unwrap();
    wait_for(&reports, |it| matches!(it, NodeReport::Accepted { .. }).then_some(()));
    gateway.say(Downlink::Assign(Assign { uid: Uid([1; 8]), address: 17 }));
    gateway.say(Downlink::Time(Time { unix_ms: 1_800_000_000_000, synced: true }));
    wait_for(&reports, |it| (*it == NodeReport::Assigned { address: 17 }).then_some(()));
    let mut all = Vec::new();
    let mut poll = |gateway: &mut Gateway| {
        gateway.say_to(17, Downlink::Poll(Poll { frames: 8 }));
        gateway.until(|it| {
            all.push(it.clone());
            if let Uplink::Done(done) = it { Some(*done) } else { None }
        });
        std::mem::take(&mut all)
    };
    let said = poll(&mut gateway);
    assert!(matches!(said[0], Uplink::Hello(_)), "nothing came before the poll: {said:?}");
    assert!(matches!(said[1], Uplink::Event(Event { kind: EventKind::SmokeAlarm, .. })), "{said:?}");
    node.press_sos().unwrap();
    let at = wait_for(&reports, |it| if let NodeReport::Accepted { unix_ms, .. } = it { Some(*unix_ms) } else { None });
    assert!(at.is_some_and(|at| at >= 1_800_000_000_000), "it knows the gateway's time: {at:?}");
    node.stop();
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), "17");
    let (_node, _reports) = start(&link, on_bus);
    let said = poll(&mut Gateway::open(&link));
    assert!(matches!(said[0], Uplink::Hello(_)), "it has its address after a restart: {said:?}");
}

#[test]
fn a_gpio_chip_that_is_not_there_stops_the_start_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(Port::Pty { link: folder.path().join("node") }, Uid([1; 8]));
    options.gpio = vec!["/nonexistent/gpiochip7:17=contact:1".parse().unwrap()];
    let error = spawn(options, |_| {}).err().unwrap();
    assert!(matches!(error, StartError::Gpio(_)), "{error}");
    assert!(error.to_string().contains("/nonexistent/gpiochip7:17=contact"), "{error}");
    assert!(!folder.path().join("node").exists(), "nothing is left behind");
}
