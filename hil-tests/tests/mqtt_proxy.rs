//! The packet proxy does what the fault matrix believes it does. Method: a client of bare packets on one side, a real mosquitto on the other, in both MQTT
//! versions; each fault is made to happen, and the client and the broker's subscribers say what became of the packets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hil_tests::broker::{Broker, BrokerOptions};
use hil_tests::mqtt_packet::{Cutter, Kind, Limit, Packet, Version, connect, puback, publish, subscribe};
use hil_tests::mqtt_proxy::{Direction, Fault, MqttProxy, Rule};
use hil_tests::process::eventually;
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};

const SOON: Duration = Duration::from_secs(10);
/// Longer than a packet takes through proxy and broker; what has not come by then was not sent.
const SILENCE: Duration = Duration::from_millis(300);

/// What is played on each version of MQTT.
type Play = fn(Version) -> Result<()>;

fn main() -> ExitCode {
    let tests: [(&str, Play); 8] = [
        ("everything_passes_and_is_accounted_for", everything_passes),
        ("pubacks_are_dropped_delayed_and_repeated_one_by_one", pubacks),
        ("a_publish_is_cut_in_its_middle_or_reset", cut_in_the_middle),
        ("a_refused_publish_never_reaches_the_broker", refused),
        ("a_session_is_lost_or_said_to_be", session),
        ("a_swallowed_stream_looks_healthy_until_it_is_healed", swallowed),
        ("a_stalled_and_a_throttled_direction_push_back", flow),
        ("limits_and_disconnects_of_the_broker_are_told", limits),
    ];
    let versions = [("mqtt_5", Version::V5), ("mqtt_3_1_1", Version::V4)];
    let all = tests.iter().flat_map(|(name, body)| versions.iter().map(move |version| (name, body, version)));
    let trials = all.map(|(name, &body, &(on, version))| {
        skip::test(&format!("{name}_on_{on}"), need::tool("mosquitto"), move || body(version))
    });
    skip::main(trials.collect())
}

/// A client of bare packets.
struct Client {
    stream: TcpStream,
    cutter: Cutter,
    version: Version,
}

impl Client {
    fn open(addr: SocketAddr, version: Version, name: &str) -> Result<(Self, Packet)> {
        let stream = TcpStream::connect(addr).map_err(|e| RigError::failed("connect", e))?;
        stream.set_read_timeout(Some(SOON)).map_err(|e| RigError::failed("set a timeout", e))?;
        let mut client = Self { stream, cutter: Cutter::default(), version };
        client.send(&connect(version, name, false))?;
        let connack = client.receive()?.ok_or_else(|| RigError::failed("await the CONNACK", "the connection ended"))?;
        assert_eq!((connack.kind(), connack.reason()), (Kind::ConnAck, Some(0)));
        Ok((client, connack))
    }

    fn send(&mut self, packet: &Packet) -> Result<()> {
        self.stream.write_all(packet.bytes()).map_err(|e| RigError::failed("send a packet", e))
    }

    fn publish(&mut self, id: u16, text: &str) -> Result<()> {
        let packet = publish(self.version, id, "t/event", text.as_bytes());
        self.send(&packet)
    }

    /// The next packet; `None` when the connection has ended.
    fn receive(&mut self) -> Result<Option<Packet>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(packet) = self.cutter.next_packet().map_err(|e| RigError::failed("read a packet", e))? {
                return Ok(Some(packet));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.cutter.feed(&buffer[..count]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(RigError::failed("await a packet", e)),
            }
        }
    }

    /// The id of the next packet, which must be a PUBACK.
    fn puback(&mut self) -> Result<u16> {
        let packet = self.receive()?.ok_or_else(|| RigError::failed("await a PUBACK", "the connection ended"))?;
        assert_eq!(packet.kind(), Kind::PubAck, "{packet:?}");
        packet.id().ok_or_else(|| RigError::failed("await a PUBACK", "it has no id"))
    }

    fn hears_nothing(&mut self) -> Result<()> {
        let limit = |limit| self.stream.set_read_timeout(Some(limit)).map_err(|e| RigError::failed("set a timeout", e));
        limit(SILENCE)?;
        let heard = self.stream.read(&mut [0; 1]);
        let limit = |limit| self.stream.set_read_timeout(Some(limit)).map_err(|e| RigError::failed("set a timeout", e));
        limit(SOON)?;
        match heard {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            other => Err(RigError::failed("hear nothing", format!("{other:?}"))),
        }
    }
}

/// A broker, a proxy before it, a client through the proxy, and a subscriber beside it.
struct Way {
    client: Client,
    subscriber: Client,
    proxy: MqttProxy,
    broker: Broker,
    _dir: tempfile::TempDir,
}

fn way(version: Version) -> Result<Way> {
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let broker = Broker::start(dir.path(), &BrokerOptions::default())?;
    let (mut subscriber, _) = Client::open(broker.addr(), version, "subscriber")?;
    subscriber.send(&subscribe(version, 1, "t/#"))?;
    assert_eq!(subscriber.receive()?.map(|packet| packet.kind()), Some(Kind::SubAck));
    let proxy = MqttProxy::start(broker.addr())?;
    let (client, _) = Client::open(proxy.addr(), version, "client")?;
    Ok(Way { client, subscriber, proxy, broker, _dir: dir })
}

impl Way {
    /// What the subscriber gets next.
    fn arrived(&mut self) -> Result<String> {
        let packet = self.subscriber.receive()?.ok_or_else(|| RigError::failed("await a message", "ended"))?;
        let version = self.subscriber.version;
        if let Some(id) = packet.id() {
            self.subscriber.send(&puback(version, id, 0))?;
        }
        let payload = packet.payload(version).map(<[u8]>::to_vec).unwrap_or_default();
        String::from_utf8(payload).map_err(|e| RigError::failed("read a message", e))
    }

    fn on_pubacks(&self, fault: Fault) -> Rule {
        Rule::new(Direction::ToClient, Kind::PubAck, fault).topic_has("/event")
    }

    fn on_publishes(&self, fault: Fault) -> Rule {
        Rule::new(Direction::ToServer, Kind::Publish, fault).topic_has("/event")
    }
}

fn everything_passes(version: Version) -> Result<()> {
    let mut way = way(version)?;
    for id in 1..=50 {
        way.client.publish(id, &format!("message {id}"))?;
    }
    for id in 1..=50 {
        assert_eq!(way.client.puback()?, id);
        assert_eq!(way.arrived()?, format!("message {id}"));
    }
    assert_eq!(way.proxy.count(Direction::ToServer, Kind::Publish), 50);
    let seen = way.proxy.seen();
    let acks: Vec<_> = seen.iter().filter(|seen| seen.kind == Kind::PubAck).collect();
    assert!(acks.len() == 50 && acks.iter().all(|ack| ack.topic.as_deref() == Some("t/event")), "{acks:#?}");
    assert!(seen.iter().any(|seen| seen.payload == b"message 50") && way.proxy.struck() == 0);
    assert_eq!((way.proxy.accepted(), way.proxy.no_mqtt()), (1, 0));
    Ok(())
}

fn pubacks(version: Version) -> Result<()> {
    let mut way = way(version)?;
    let late = Duration::from_millis(150);
    way.proxy.add(way.on_pubacks(Fault::Drop).skip(1).times(1));
    way.proxy.add(way.on_pubacks(Fault::Delay(late)).id(30));
    way.proxy.add(way.on_pubacks(Fault::Repeat(2)).id(40));
    for id in [10, 20] {
        way.client.publish(id, "x")?;
    }
    assert_eq!(way.client.puback()?, 10);
    way.client.hears_nothing()?;
    let asked_at = now();
    for id in [30, 31, 40] {
        way.client.publish(id, "x")?;
    }
    let answers = (0..5).map(|_| way.client.puback()).collect::<Result<Vec<_>>>()?;
    assert!(asked_at.elapsed() >= late, "the late PUBACK came early");
    assert_eq!(answers, [31, 40, 40, 40, 30], "20 is lost, 40 comes three times, 30 is overtaken");
    way.proxy.add(way.on_pubacks(Fault::Late(late)).id(50));
    let asked_at = now();
    for id in [49, 50, 51] {
        way.client.publish(id, "x")?;
    }
    let answers = (0..3).map(|_| way.client.puback()).collect::<Result<Vec<_>>>()?;
    assert!(answers == [49, 50, 51] && asked_at.elapsed() >= late, "{answers:?}: nothing overtakes what is late");
    assert_eq!(way.proxy.struck(), 4);
    for _ in 0..8 {
        assert_eq!(way.arrived()?, "x");
    }
    Ok(())
}

fn cut_in_the_middle(version: Version) -> Result<()> {
    for fault in [Fault::CutAfter(9), Fault::ResetAfter(9)] {
        let mut way = way(version)?;
        way.proxy.add(way.on_publishes(fault.clone()).skip(1).times(1));
        way.client.publish(1, "whole")?;
        assert_eq!((way.client.puback()?, way.arrived()?.as_str()), (1, "whole"));
        way.client.publish(2, "torn")?;
        let mut end = way.client.stream.try_clone().map_err(|e| RigError::failed("clone", e))?.take(1);
        let ended = std::io::copy(&mut end, &mut std::io::sink());
        let reset = ended.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset);
        assert_eq!(reset, matches!(fault, Fault::ResetAfter(_)), "{fault:?}: {ended:?}");
        way.subscriber.hears_nothing()?;
        let (mut again, connack) = Client::open(way.proxy.addr(), version, "client")?;
        assert_eq!(connack.session_present(), Some(true), "the broker kept the session");
        again.publish(2, "torn")?;
        assert_eq!((again.puback()?, way.arrived()?.as_str()), (2, "torn"));
    }
    Ok(())
}

fn refused(version: Version) -> Result<()> {
    let mut way = way(version)?;
    way.proxy.add(way.on_publishes(Fault::Refuse(0x97)).times(1));
    way.proxy.add(way.on_pubacks(Fault::Reason(0x97)).times(1));
    way.client.publish(1, "refused")?;
    way.client.publish(2, "taken, said to be refused")?;
    let reason = if version == Version::V5 { Some(0x97) } else { Some(0) };
    for id in [1, 2] {
        let answer = way.client.receive()?.ok_or_else(|| RigError::failed("await a PUBACK", "ended"))?;
        assert_eq!((answer.kind(), answer.id(), answer.reason()), (Kind::PubAck, Some(id), reason));
    }
    assert_eq!(way.arrived()?, "taken, said to be refused");
    way.subscriber.hears_nothing()
}

fn session(version: Version) -> Result<()> {
    let mut way = way(version)?;
    let present = |way: &mut Way| -> Result<Option<bool>> {
        way.proxy.cut();
        let (client, connack) = Client::open(way.proxy.addr(), version, "client")?;
        way.client = client;
        Ok(connack.session_present())
    };
    assert_eq!(present(&mut way)?, Some(true));
    way.proxy.add(Rule::new(Direction::ToClient, Kind::ConnAck, Fault::NoSession).times(1));
    assert_eq!(present(&mut way)?, Some(false));
    assert_eq!(present(&mut way)?, Some(true), "it was only said");
    way.client.send(&subscribe(version, 9, "own"))?;
    assert_eq!(way.client.receive()?.map(|packet| packet.kind()), Some(Kind::SubAck));
    way.proxy.add(Rule::new(Direction::ToServer, Kind::Connect, Fault::CleanStart).times(1));
    assert_eq!(present(&mut way)?, Some(false));
    let hello = publish(version, 1, "own", b"does anybody hear me?");
    way.client.send(&hello)?;
    assert_eq!(way.client.puback()?, 1);
    way.client.hears_nothing()
}

fn swallowed(version: Version) -> Result<()> {
    let mut way = way(version)?;
    way.proxy.add(way.on_publishes(Fault::Swallow).skip(1).times(1));
    for id in 1..=3 {
        way.client.publish(id, "x")?;
    }
    assert_eq!((way.client.puback()?, way.arrived()?.as_str()), (1, "x"));
    way.client.hears_nothing()?;
    way.subscriber.hears_nothing()?;
    way.proxy.heal();
    assert_eq!(way.client.receive()?, None, "a stream with a hole is not healed, it is ended");
    let (mut again, _) = Client::open(way.proxy.addr(), version, "client")?;
    again.publish(4, "y")?;
    assert_eq!((again.puback()?, way.arrived()?.as_str()), (4, "y"));
    Ok(())
}

fn flow(version: Version) -> Result<()> {
    let mut way = way(version)?;
    way.proxy.stall(Direction::ToServer, true);
    way.client.publish(1, "x")?;
    way.client.hears_nothing()?;
    way.proxy.stall(Direction::ToServer, false);
    assert_eq!((way.client.puback()?, way.arrived()?.as_str()), (1, "x"));
    way.proxy.throttle(Direction::ToServer, Some(20_000));
    let began_at = now();
    let long = "x".repeat(10_000);
    way.client.publish(2, &long)?;
    assert_eq!((way.client.puback()?, way.arrived()?.len()), (2, long.len()));
    // Half a second at that rate; nothing upward is promised.
    assert!(began_at.elapsed() >= Duration::from_millis(450), "10 kB at 20 kB/s took {:?}", began_at.elapsed());
    way.proxy.heal();
    way.proxy.refuse(true);
    assert_eq!(way.client.receive()?, None);
    assert!(Client::open(way.proxy.addr(), version, "client").is_err(), "a refused connection was served");
    way.broker.kill();
    way.proxy.heal();
    assert!(Client::open(way.proxy.addr(), version, "client").is_err(), "nobody is behind the proxy");
    eventually("both were counted", SOON, || match way.proxy.accepted() {
        3 => Ok(()),
        n => Err(n.to_string()),
    })
}

fn limits(version: Version) -> Result<()> {
    let mut way = way(version)?;
    if version == Version::V5 {
        for limit in [Limit::ReceiveMaximum(1), Limit::PacketBytes(500)] {
            way.proxy.add(Rule::new(Direction::ToClient, Kind::ConnAck, Fault::Limit(limit)));
            let (_, connack) = Client::open(way.proxy.addr(), version, "other")?;
            let told = match limit {
                Limit::ReceiveMaximum(n) => [&[0x21][..], &n.to_be_bytes()].concat(),
                Limit::PacketBytes(n) => [&[0x27][..], &n.to_be_bytes()].concat(),
            };
            assert!(connack.body().ends_with(&told), "{connack:?}");
            way.proxy.heal();
        }
    }
    way.proxy.add(way.on_pubacks(Fault::Disconnect(0x97)).times(1));
    way.client.publish(1, "last")?;
    let mut heard = Vec::new();
    while let Some(packet) = way.client.receive()? {
        heard.push((packet.kind(), packet.reason()));
    }
    assert_eq!(heard, [(Kind::PubAck, Some(0)), (Kind::Disconnect, Some(0x97))]);
    assert_eq!(way.arrived()?, "last");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a delay of real packets is measured in real time, from below only")]
fn now() -> Instant {
    Instant::now()
}
