//! MQTT control packets as bytes, for [`crate::mqtt_proxy`]: where one ends, which it is, its packet id and topic, and the few changes that faults need.
//! It owns the frame of MQTT 3.1.1 and 5 (OASIS standards of 2014 and 2019; section numbers below are those of MQTT 5) and nothing of its meaning. It refuses
//! what is no MQTT with an error: a fault at "the third PUBACK" would otherwise strike somewhere in a stream that it has misread.

/// Largest packet of MQTT: four bytes of length, seven bits each (2.1.4).
const REMAINING_MAX: usize = 268_435_455;

/// Which packet it is (2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A client's first word.
    Connect = 1,
    /// The broker's answer to it.
    ConnAck,
    /// A message.
    Publish,
    /// A message of QoS 1 was taken.
    PubAck,
    /// QoS 2, first answer.
    PubRec,
    /// QoS 2, second word.
    PubRel,
    /// QoS 2, end.
    PubComp,
    /// Topic filters wanted.
    Subscribe,
    /// The answer to it.
    SubAck,
    /// Topic filters no longer wanted.
    Unsubscribe,
    /// The answer to it.
    UnsubAck,
    /// Are you there?
    PingReq,
    /// I am.
    PingResp,
    /// The end; on MQTT 5 also from the broker.
    Disconnect,
    /// Authentication in several steps (MQTT 5).
    Auth,
}

impl Kind {
    fn of(first: u8) -> Option<Self> {
        use Kind::{
            Auth, ConnAck, Connect, Disconnect, PingReq, PingResp, PubAck, PubComp, PubRec, PubRel, Publish, SubAck,
            Subscribe, UnsubAck, Unsubscribe,
        };
        let kinds = [
            Connect,
            ConnAck,
            Publish,
            PubAck,
            PubRec,
            PubRel,
            PubComp,
            Subscribe,
            SubAck,
            Unsubscribe,
            UnsubAck,
            PingReq,
            PingResp,
            Disconnect,
            Auth,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == first >> 4)
    }
}

/// MQTT version as CONNECT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, level 4.
    V4,
    /// 5, level 5.
    V5,
}

/// What is no MQTT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no MQTT packet: {0}")]
pub struct NotMqtt(&'static str);

/// One whole control packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    bytes: Vec<u8>,
    kind: Kind,
    /// Where the variable header begins.
    body_at: usize,
}

impl Packet {
    /// A packet of this first byte (kind and flags) and this body.
    ///
    /// # Errors
    /// When the first byte is none of a packet, or the body is longer than a packet may be.
    pub fn assemble(first: u8, body: &[u8]) -> Result<Self, NotMqtt> {
        let kind = Kind::of(first).ok_or(NotMqtt("packet type 0"))?;
        if body.len() > REMAINING_MAX {
            return Err(NotMqtt("it is longer than a packet may be"));
        }
        let mut bytes = vec![first];
        put_varint(&mut bytes, body.len());
        let body_at = bytes.len();
        bytes.extend_from_slice(body);
        Ok(Self { bytes, kind, body_at })
    }

    /// Which packet it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// All its bytes, as they go over the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes behind the fixed header.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    /// Its packet id, for packets that carry one.
    #[must_use]
    pub fn id(&self) -> Option<u16> {
        let at = match self.kind {
            Kind::Publish if self.qos() == 0 => return None,
            Kind::Publish => 2 + usize::from(u16_at(self.body(), 0)?),
            Kind::Connect | Kind::ConnAck | Kind::PingReq | Kind::PingResp | Kind::Disconnect | Kind::Auth => {
                return None;
            }
            _ => 0,
        };
        u16_at(self.body(), at)
    }

    /// The topic of a PUBLISH.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        if self.kind != Kind::Publish {
            return None;
        }
        let length = usize::from(u16_at(self.body(), 0)?);
        std::str::from_utf8(self.body().get(2..2 + length)?).ok()
    }

    /// The message of a PUBLISH.
    #[must_use]
    pub fn payload(&self, version: Version) -> Option<&[u8]> {
        let mut at = 2 + self.topic()?.len() + if self.qos() == 0 { 0 } else { 2 };
        if version == Version::V5 {
            let (length, taken) = varint(self.body().get(at..)?).ok().flatten()?;
            at += taken + length;
        }
        self.body().get(at..)
    }

    /// Quality of service of a PUBLISH.
    #[must_use]
    pub fn qos(&self) -> u8 {
        self.bytes[0] >> 1 & 3
    }

    /// The version a CONNECT asks for.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match (self.kind, self.body()) {
            (Kind::Connect, [0, 4, b'M', b'Q', b'T', b'T', 4, ..]) => Some(Version::V4),
            (Kind::Connect, [0, 4, b'M', b'Q', b'T', b'T', 5, ..]) => Some(Version::V5),
            _ => None,
        }
    }

    /// Whether a CONNACK says that the session is still there (3.2.2.1.1).
    #[must_use]
    pub fn session_present(&self) -> Option<bool> {
        (self.kind == Kind::ConnAck).then(|| self.body().first().is_some_and(|flags| flags & 1 == 1))
    }

    /// The reason code of a PUBACK, CONNACK or DISCONNECT of MQTT 5; 0 where it is left out (3.4.2.1).
    #[must_use]
    pub fn reason(&self) -> Option<u8> {
        let at = match self.kind {
            Kind::ConnAck => 1,
            Kind::PubAck => 2,
            Kind::Disconnect => 0,
            _ => return None,
        };
        Some(self.body().get(at).copied().unwrap_or(0))
    }

    /// A CONNECT that wants no session of before (Clean Start, 3.1.2.4); others stay as they are.
    #[must_use]
    pub fn with_clean_start(mut self) -> Self {
        if self.kind == Kind::Connect
            && let Some(flags) = self.bytes.get_mut(self.body_at + 7)
        {
            *flags |= 0x02;
        }
        self
    }

    /// A CONNACK that says that no session is there; others stay as they are.
    #[must_use]
    pub fn without_session(mut self) -> Self {
        if self.kind == Kind::ConnAck
            && let Some(flags) = self.bytes.get_mut(self.body_at)
        {
            *flags &= !1;
        }
        self
    }

    /// A CONNACK of MQTT 5 in which `property` has the value `value` instead of the broker's; others stay as they are.
    ///
    /// # Errors
    /// When the broker's properties cannot be read.
    pub fn with_limit(self, limit: Limit) -> Result<Self, NotMqtt> {
        if self.kind != Kind::ConnAck || self.body().len() < 3 {
            return Ok(self);
        }
        let (length, taken) = varint(&self.body()[2..])?.ok_or(NotMqtt("a CONNACK without its properties"))?;
        let given = self.body().get(2 + taken..2 + taken + length).ok_or(NotMqtt("a CONNACK cut short"))?;
        let mut kept = properties_without(given, limit.id())?;
        kept.push(limit.id());
        match limit {
            Limit::ReceiveMaximum(n) => kept.extend(n.to_be_bytes()),
            Limit::PacketBytes(n) => kept.extend(n.to_be_bytes()),
        }
        let mut body = self.body()[..2].to_vec();
        put_varint(&mut body, kept.len());
        body.extend(kept);
        Self::assemble(self.bytes[0], &body)
    }
}

/// A limit that a broker of MQTT 5 sets in its CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Receive Maximum (3.2.2.3.3): so many messages without PUBACK.
    ReceiveMaximum(u16),
    /// Maximum Packet Size (3.2.2.3.6), bytes.
    PacketBytes(u32),
}

impl Limit {
    fn id(self) -> u8 {
        match self {
            Self::ReceiveMaximum(_) => 0x21,
            Self::PacketBytes(_) => 0x27,
        }
    }
}

/// A PUBACK for `id`. The reason travels on MQTT 5 only, and success without it is valid on both.
#[must_use]
pub fn puback(version: Version, id: u16, reason: u8) -> Packet {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 && reason != 0 {
        body.push(reason);
    }
    whole(0x40, &body)
}

/// The broker's DISCONNECT with a reason (MQTT 5 only, 3.14.2.1) and no properties. Their length, 0, is written out: it may be left out, but rumqttc 0.25
/// waits for it for ever.
#[must_use]
pub fn disconnect(reason: u8) -> Packet {
    whole(0xe0, &[reason, 0])
}

/// A CONNECT without user and will, keep-alive 60 s, session kept.
#[must_use]
pub fn connect(version: Version, client_id: &str, clean: bool) -> Packet {
    let level = if version == Version::V5 { 5 } else { 4 };
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', level, u8::from(clean) << 1, 0, 60];
    if version == Version::V5 {
        // Session Expiry Interval: an hour.
        body.extend([5, 0x11, 0, 0, 0x0e, 0x10]);
    }
    put_text(&mut body, client_id);
    whole(0x10, &body)
}

/// A PUBLISH of QoS 1.
#[must_use]
pub fn publish(version: Version, id: u16, topic: &str, payload: &[u8]) -> Packet {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    body.extend(id.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    whole(0x32, &body)
}

/// A SUBSCRIBE to one filter at QoS 1.
#[must_use]
pub fn subscribe(version: Version, id: u16, filter: &str) -> Packet {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    put_text(&mut body, filter);
    body.push(1);
    whole(0x82, &body)
}

fn whole(first: u8, body: &[u8]) -> Packet {
    Packet::assemble(first, body).expect("a first byte of ours, and a test's body is far below 256 MiB")
}

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub struct Cutter {
    buffer: Vec<u8>,
}

impl Cutter {
    /// Takes more of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet; `None` until more of the stream is there.
    ///
    /// # Errors
    /// When the stream is no MQTT. It stays so: nobody knows where the next packet begins.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, NotMqtt> {
        let Some(&first) = self.buffer.first() else { return Ok(None) };
        let kind = Kind::of(first).ok_or(NotMqtt("packet type 0"))?;
        let Some((remaining, taken)) = varint(&self.buffer[1..])? else { return Ok(None) };
        let (body_at, end) = (1 + taken, 1 + taken + remaining);
        if self.buffer.len() < end {
            return Ok(None);
        }
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        Ok(Some(Packet { bytes, kind, body_at }))
    }
}

/// A variable byte integer (1.5.5) and how many bytes it takes; `None` when it is not whole yet.
fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, NotMqtt> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(NotMqtt("a length of more than four bytes")) }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let more = value > 0x7f;
        out.push((value & 0x7f) as u8 | if more { 0x80 } else { 0 });
        value >>= 7;
        if !more {
            return;
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a test's texts are short");
    out.extend(length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The properties (2.2.2.2) but one.
fn properties_without(mut given: &[u8], unwanted: u8) -> Result<Vec<u8>, NotMqtt> {
    let mut kept = Vec::new();
    while let Some((&id, rest)) = given.split_first() {
        let text = |at: usize| u16_at(rest, at).map(|length| 2 + usize::from(length));
        let length = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Some(1),
            0x13 | 0x21 | 0x22 | 0x23 => Some(2),
            0x02 | 0x11 | 0x18 | 0x27 => Some(4),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => text(0),
            0x26 => text(0).and_then(|name| Some(name + text(name)?)),
            0x0b => varint(rest)?.map(|(_, taken)| taken),
            _ => return Err(NotMqtt("a property that MQTT 5 does not have")),
        };
        let end = 1 + length.ok_or(NotMqtt("a property cut short"))?;
        let whole = given.get(..end).ok_or(NotMqtt("a property cut short"))?;
        if id != unwanted {
            kept.extend_from_slice(whole);
        }
        given = &given[end..];
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(stream: &[u8], at_once: usize) -> Vec<Packet> {
        let mut cutter = Cutter::default();
        let mut packets = Vec::new();
        for chunk in stream.chunks(at_once) {
            cutter.feed(chunk);
            while let Some(packet) = cutter.next_packet().unwrap() {
                packets.push(packet);
            }
        }
        packets
    }

    #[test]
    fn a_stream_is_cut_at_the_same_places_however_it_arrives() {
        let long = vec![b'x'; 20_000];
        let sent = [
            connect(Version::V5, "gw", false),
            publish(Version::V5, 7, "a/event", b"{}"),
            publish(Version::V4, 300, "a/event", &long),
            puback(Version::V4, 7, 0),
            disconnect(0x97),
        ];
        let stream: Vec<u8> = sent.iter().flat_map(|packet| packet.bytes().to_vec()).collect();
        for at_once in [1, 2, 3, 127, stream.len()] {
            assert_eq!(cut(&stream, at_once), sent, "in chunks of {at_once}");
        }
    }

    #[test]
    fn id_topic_and_message_are_found_in_both_versions() {
        for version in [Version::V4, Version::V5] {
            let packet = publish(version, 513, "gengfu/v1/hil/gw-1/event", b"body");
            assert_eq!((packet.kind(), packet.id(), packet.qos()), (Kind::Publish, Some(513), 1));
            assert_eq!(packet.topic(), Some("gengfu/v1/hil/gw-1/event"));
            assert_eq!(packet.payload(version), Some(b"body".as_slice()));
            assert_eq!(connect(version, "c", false).version(), Some(version));
        }
        let of_qos_0 = Packet::assemble(0x30, &[0, 1, b'a', b'h', b'i']).unwrap();
        assert_eq!((of_qos_0.id(), of_qos_0.payload(Version::V4)), (None, Some(b"hi".as_slice())));
        assert_eq!(puback(Version::V5, 9, 0x97).reason(), Some(0x97));
        assert_eq!(puback(Version::V4, 9, 0x97).reason(), Some(0));
    }

    #[test]
    fn a_limit_of_the_broker_is_replaced_and_everything_else_is_kept() {
        let reason = [0x1f, 0, 2, b'o', b'k'];
        let user = [0x26, 0, 1, b'a', 0, 1, b'b'];
        let properties = [&[0x21, 0, 20, 0x24, 1][..], &reason, &user].concat();
        let body = [&[1, 0, properties.len() as u8][..], &properties].concat();
        let connack = Packet::assemble(0x20, &body).unwrap();
        let limited = connack.clone().with_limit(Limit::ReceiveMaximum(1)).unwrap();
        let wanted = [&[1, 0, properties.len() as u8, 0x24, 1][..], &reason, &user, &[0x21, 0, 1]].concat();
        assert_eq!(limited.body(), wanted);
        let small = connack.clone().with_limit(Limit::PacketBytes(700)).unwrap();
        assert!(small.body().ends_with(&[0x27, 0, 0, 2, 0xbc]) && small.body().len() == connack.body().len() + 5);
        assert_eq!((connack.session_present(), connack.without_session().session_present()), (Some(true), Some(false)));
    }

    #[test]
    fn what_is_no_mqtt_is_an_error_and_never_a_panic() {
        let mut cutter = Cutter::default();
        cutter.feed(b"\x00hello");
        cutter.next_packet().unwrap_err();
        let mut cutter = Cutter::default();
        cutter.feed(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]);
        cutter.next_packet().unwrap_err();
        for body in [&[][..], &[0], &[0, 9, b'a'], &[255, 255]] {
            for first in (0x10..=0xf0).step_by(0x10) {
                let packet = Packet::assemble(first | 2, body).unwrap();
                let _ = (packet.id(), packet.topic(), packet.payload(Version::V5), packet.reason(), packet.version());
                let _ = packet.with_clean_start().without_session().with_limit(Limit::PacketBytes(1));
            }
        }
    }
}
