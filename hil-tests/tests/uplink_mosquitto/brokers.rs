//! Several brokers, of which some fail. Goal: the gateway finds one that works, says which and why, loses nothing on the way, and goes back. Each broker has
//! a desk of its own, as a centre with two sites would; what one has not, the other must have.

use std::collections::BTreeSet;

use gengfu::uplink::brokers::Why;
use gengfu::uplink::{Address, Cause, UplinkConfig};

use super::*;

/// Two brokers and a desk at each.
struct Two {
    dir: [tempfile::TempDir; 2],
    broker: [Broker; 2],
    desk: [Option<Desk>; 2],
}

impl Two {
    fn start() -> Self {
        let dir = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let broker = [mosquitto(dir[0].path(), None, &[]), mosquitto(dir[1].path(), None, &[])];
        Self { dir, broker, desk: [None, None] }
    }

    async fn desk(&mut self, n: usize) {
        let at = broker(self.broker[n].port(), Mqtt5, "desk");
        let mut desk = Desk::start(self.dir[n].path(), at, None, false);
        desk.connected().await;
        self.desk[n] = Some(desk);
    }

    fn config(&self) -> UplinkConfig {
        let mut config = uplink_config(broker(self.broker[0].port(), Mqtt5, "gengfu-s-g"));
        config.broker.connect_timeout = Duration::from_secs(2);
        config.other_brokers = vec![Address { host: "127.0.0.1".into(), port: self.broker[1].port() }];
        config.switch.return_after = Duration::from_secs(1);
        config
    }

    fn address(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.broker[n].port())
    }

    /// Every event is at one of the desks, and each has an unbroken chain as far as it goes.
    async fn nothing_is_missing(self, gateway: Gateway) {
        let last = gateway.outbox.head().sequence;
        let mut have = BTreeSet::new();
        for desk in self.desk.into_iter().flatten() {
            let mut desk = desk;
            while let Ok(event) = desk.events.try_recv() {
                desk.seen.push(event);
            }
            for event in &desk.seen {
                match event {
                    DeskEvent::Observed { sequence, .. } | DeskEvent::Alarm { sequence, .. } => {
                        have.insert(*sequence);
                    }
                    _ => {}
                }
            }
            desk.stop().await;
        }
        gateway.stop().await;
        let missing: Vec<u64> = (1..=last).filter(|n| !have.contains(n)).collect();
        assert!(missing.is_empty(), "of {last} events these arrived nowhere: {missing:?}");
    }
}

pub async fn killed_and_back() {
    let mut two = Two::start();
    two.desk(0).await;
    two.desk(1).await;
    let (first, second) = (two.address(0), two.address(1));
    let mut gateway = Gateway::start(two.dir[0].path(), two.config());
    gateway.status("online", |s| s.state == LinkState::Online && s.broker == first).await;
    for n in 0..40 {
        gateway.door(&format!("a{n}"));
        if n == 20 {
            two.broker[0].kill();
        }
    }
    let status = gateway.status("on the second", |s| s.broker == second && s.cause == Some(Cause::OnOtherBroker)).await;
    let switched = status.switched.clone().unwrap();
    assert_eq!((switched.from, switched.to, switched.why), (first.clone(), second, Why::Unreachable));
    assert_eq!((status.brokers[0].in_use, status.brokers[1].in_use), (false, true));
    assert!(
        status.detail.is_some() && status.remedy_zh.is_some() && status.brokers[0].failed_at.is_some(),
        "{status:?}"
    );
    gateway.all_received().await;
    (0..20).for_each(|n| gateway.door(&format!("b{n}")));
    gateway.all_received().await;
    two.broker[0].restart(Memory::Empty).unwrap();
    let back = gateway.status("back on the first", |s| s.broker == first && s.state == LinkState::Online).await;
    assert_eq!(back.switched.unwrap().why, Why::Return);
    assert_eq!(back.cause, None);
    (0..20).for_each(|n| gateway.door(&format!("c{n}")));
    gateway.all_received().await;
    two.nothing_is_missing(gateway).await;
}

pub async fn frozen() {
    let mut two = Two::start();
    two.desk(0).await;
    two.desk(1).await;
    let second = two.address(1);
    let mut gateway = Gateway::start(two.dir[0].path(), two.config());
    gateway.status("online", |s| s.state == LinkState::Online).await;
    two.broker[0].freeze().unwrap();
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let status = gateway.status("on the second", |s| s.broker == second && s.state == LinkState::Online).await;
    assert_eq!(status.switched.unwrap().why, Why::NoPuback);
    gateway.all_received().await;
    two.broker[0].thaw().unwrap();
    two.nothing_is_missing(gateway).await;
}

pub async fn without_receipts() {
    let mut two = Two::start();
    two.desk(1).await;
    let second = two.address(1);
    let mut config = two.config();
    config.switch.receipts_within = Duration::from_secs(3);
    config.switch.return_after = Duration::from_secs(3600);
    let mut gateway = Gateway::start(two.dir[0].path(), config);
    (0..50).for_each(|n| gateway.door(&format!("d{n}")));
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    let status = gateway.status("on the second", |s| s.broker == second).await;
    assert_eq!(status.switched.unwrap().why, Why::NoReceipts);
    gateway.all_received().await;
    two.nothing_is_missing(gateway).await;
}

/// The preferred broker comes back without its centre: the gateway tries it, leaves it again, and everything still arrives.
pub async fn back_but_useless() {
    let mut two = Two::start();
    two.desk(1).await;
    let (first, second) = (two.address(0), two.address(1));
    let mut config = two.config();
    config.switch.receipts_within = Duration::from_secs(3);
    two.broker[0].kill();
    let mut gateway = Gateway::start(two.dir[0].path(), config);
    gateway.door("a");
    gateway.status("on the second", |s| s.broker == second && s.state == LinkState::Online).await;
    gateway.all_received().await;
    two.broker[0].restart(Memory::Empty).unwrap();
    gateway.status("back on the first", |s| s.broker == first && s.state == LinkState::Online).await;
    gateway.alarm("s1", &alarm("01SMOKE", AlarmKind::Smoke, None));
    gateway.status("on the second again", |s| s.broker == second && s.state == LinkState::Online).await;
    gateway.all_received().await;
    two.nothing_is_missing(gateway).await;
}
