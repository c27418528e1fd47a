//! Goal: the frame rules W01 to W10 hold for every message and for any bytes.
//! Method: golden bytes for the encoding, generated messages for the round trip, seeded noise and damage for the rest.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use gengfu_wire::update::{BlockBytes, HeaderBytes};
use gengfu_wire::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const EVENT: Event = Event { boot: 7, sequence: 300, uptime_ms: 65_536, channel: 2, kind: EventKind::SmokeAlarm };

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut buffer = [0_u8; FRAME_BYTES_MAX];
    encode(frame, &mut buffer).expect("a valid frame is encoded").to_vec()
}

fn all_of(bytes: &[u8]) -> Vec<Result<Frame, DecodeError>> {
    Decoder::new().feed(bytes).collect()
}

fn event_frame() -> Frame {
    Frame::up(0, Uplink::Event(EVENT))
}

/// A frame with any version and body and a right checksum, as a peer of another version would send it.
fn sealed(version: u8, address: u8, body: &[u8]) -> Vec<u8> {
    let mut raw = vec![version, address];
    raw.extend_from_slice(body);
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&raw);
    raw.extend_from_slice(&crc.to_le_bytes());
    let mut stuffed = vec![0; raw.len() + 8];
    let length = cobs::try_encode(&raw, &mut stuffed).unwrap();
    [&[0], &stuffed[..length], &[0]].concat()
}

#[test]
fn w01_a_frame_is_delimiter_stuffed_bytes_delimiter() {
    let bytes = bytes_of(&event_frame());
    assert_eq!((bytes[0], bytes[bytes.len() - 1]), (0, 0));
    assert!(bytes[1..bytes.len() - 1].iter().all(|byte| *byte != 0));
    let mut raw = vec![0; bytes.len()];
    let length = cobs::decode(&bytes[1..bytes.len() - 1], &mut raw).unwrap();
    assert_eq!(&raw[..2], &[PROTOCOL_VERSION, 0]);
    assert_eq!(&raw[2..length - 4], &[0, 1, 7, 0xac, 2, 0x80, 0x80, 4, 2, 2]);
}

#[test]
fn w02_the_checksum_is_crc32c_of_everything_before_it() {
    assert_eq!(
        crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(b"123456789"),
        0xe306_9283,
        "check value of the catalogue"
    );
    let bytes = bytes_of(&event_frame());
    assert_eq!(bytes, sealed(PROTOCOL_VERSION, 0, &[0, 1, 7, 0xac, 2, 0x80, 0x80, 4, 2, 2]));
}

#[test]
fn w02_up_to_three_flipped_bits_anywhere_are_always_found() {
    let bytes = bytes_of(&event_frame());
    let bits = bytes.len() * 8;
    let flip = |bytes: &mut [u8], bit: usize| bytes[bit / 8] ^= 1 << (bit % 8);
    for a in 0..bits {
        for b in a..bits {
            for c in [b, (b + 7) % bits, (a * 31 + b) % bits] {
                let mut broken = bytes.clone();
                for bit in [a, b, c] {
                    flip(&mut broken, bit);
                }
                for frame in all_of(&broken).into_iter().flatten() {
                    assert_eq!(frame, event_frame(), "bits {a}, {b}, {c} passed as another frame");
                }
            }
        }
    }
}

#[test]
fn w03_an_error_names_its_place_and_what_was_expected() {
    let mut bytes = bytes_of(&event_frame());
    let first = bytes.len() as u64;
    let mut broken = bytes_of(&event_frame());
    let last = broken.len() - 2;
    broken[last] ^= 1;
    bytes.extend(&broken);
    let results = all_of(&bytes);
    assert_eq!(results[0], Ok(event_frame()));
    let error = results[1].clone().unwrap_err();
    assert_eq!(error.at, first + 1);
    assert!(matches!(error.fault, Fault::Crc { .. }), "{error}");
    assert!(error.to_string().contains("expected 0x"), "{error}");
}

#[test]
fn w03_any_bytes_give_frames_and_errors() {
    let seed = std::env::var("GENGFU_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1_u64);
    for seed in seed..seed + 2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut decoder = Decoder::new();
        let mut bytes = vec![0_u8; random.random_range(0..2_000)];
        random.fill(&mut bytes[..]);
        // Much of what a torn line carries is nearly right: bodies of noise behind a right checksum.
        for _ in 0..random.random_range(0..8) {
            let body: Vec<u8> = (0..random.random_range(0..64)).map(|_| random.random_range(0..12)).collect();
            bytes.extend(sealed(random.random_range(0..3), random.random(), &body));
        }
        for frame in decoder.feed(&bytes).flatten() {
            assert_eq!(all_of(&bytes_of(&frame)), [Ok(frame)], "seed {seed}: a decoded frame is valid to send");
        }
    }
}

#[test]
fn w04_the_next_frame_after_noise_is_taken() {
    let good = bytes_of(&event_frame());
    for seed in 0..500_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let noise: Vec<u8> = (0..random.random_range(0..600)).map(|_| random.random()).collect();
        let bytes = [&noise[..], &good, &good[..random.random_range(0..good.len())], &good].concat();
        let frames: Vec<_> = all_of(&bytes).into_iter().flatten().collect();
        assert!(frames.ends_with(&[event_frame(), event_frame()]), "seed {seed}: {frames:?}");
    }
}

#[test]
fn w04_bytes_may_come_one_by_one_or_all_at_once() {
    let bytes = [bytes_of(&event_frame()), vec![1, 2, 3], bytes_of(&event_frame())].concat();
    let mut decoder = Decoder::new();
    let single: Vec<_> = bytes.iter().filter_map(|byte| decoder.push(*byte)).collect();
    assert_eq!(single, all_of(&bytes));
    assert_eq!(single.len(), 3);
}

#[test]
fn w05_a_frame_past_the_limit_is_refused_once_and_does_not_hide_the_next() {
    let mut bytes = vec![0x55; 3 * FRAME_BYTES_MAX];
    bytes.extend(bytes_of(&event_frame()));
    let results = all_of(&bytes);
    assert_eq!(results.len(), 2);
    assert!(matches!(results[0], Err(DecodeError { at: 0, fault: Fault::TooLong { .. } })));
    assert_eq!(results[1], Ok(event_frame()));
}

#[test]
fn w05_the_longest_message_of_each_kind_fits_and_a_small_buffer_is_refused() {
    let mut levels = Levels::new();
    while levels.push(ChannelLevel { channel: CHANNEL_MAX, level: Level::TamperClosed, fault: true }).is_ok() {}
    let battery = Some(Battery { millivolts: u16::MAX, low: true });
    let heartbeat = Heartbeat { boot: u32::MAX, uptime_ms: u64::MAX, next_sequence: u32::MAX, levels, battery };
    let text = Text::try_from("x".repeat(TEXT_BYTES_MAX).as_str()).unwrap();
    let log = Log { boot: u32::MAX, uptime_ms: u64::MAX, severity: Severity::Error, text };
    for frame in [Frame::up(247, Uplink::Heartbeat(heartbeat)), Frame::up(247, Uplink::Log(log))] {
        let bytes = bytes_of(&frame);
        assert_eq!(all_of(&bytes), [Ok(frame.clone())]);
        for short in 0..bytes.len() {
            let result = encode(&frame, &mut vec![0; short]).map(<[u8]>::to_vec);
            assert_eq!(result, Err(EncodeError::Buffer { got: short }));
        }
    }
}

#[test]
fn w06_another_version_is_refused_with_both_versions_named() {
    let error = all_of(&sealed(9, 0, b"a body of the future"))[0].clone().unwrap_err();
    assert_eq!(error.fault, Fault::Version { got: 9 });
    assert!(error.to_string().contains("version 9, expected 1"), "{error}");
}

#[test]
fn w07_bytes_after_the_message_are_refused() {
    let results = all_of(&sealed(PROTOCOL_VERSION, 0, &[1, 6, 0, 0]));
    assert_eq!(results[0].clone().unwrap_err().fault, Fault::Trailing { extra: 2 });
    assert_eq!(all_of(&sealed(PROTOCOL_VERSION, 0, &[1, 6])), [Ok(Frame::down(0, Downlink::Identify))]);
}

#[test]
fn w08_values_out_of_range_are_refused_at_both_ends() {
    let hello = Hello {
        uid: Uid([1; 8]),
        boot: 1,
        firmware: FirmwareVersion { major: 1, minor: 0, patch: 0 },
        capabilities: Capabilities::default(),
        uptime_ms: 0,
        unacked_from: 3,
        next_sequence: 2,
        heartbeat_ms: 10_000,
    };
    let wrong = [
        Frame::up(248, Uplink::Event(EVENT)),
        Frame::up(0, Uplink::Event(Event { sequence: 0, ..EVENT })),
        Frame::up(0, Uplink::Event(Event { channel: CHANNEL_MAX + 1, ..EVENT })),
        Frame::up(0, Uplink::Loss(Loss { boot: 1, first: 0, count: 1 })),
        Frame::up(0, Uplink::Loss(Loss { boot: 1, first: 1, count: 0 })),
        Frame::up(0, Uplink::Loss(Loss { boot: 1, first: u32::MAX, count: 1 })),
        Frame::up(0, Uplink::Hello(hello)),
        Frame::down(0, Downlink::Test { channel: 0 }),
        Frame::down(0, Downlink::Sounder(Sounder { for_ms: Sounder::FOR_MS_MAX + 1 })),
        Frame::down(0, Downlink::Configure(Configure { heartbeat_ms: 999, debounce_ms: 50 })),
        Frame::down(0, Downlink::Configure(Configure { heartbeat_ms: 1_000, debounce_ms: 0 })),
    ];
    for frame in wrong {
        let result = encode(&frame, &mut [0; FRAME_BYTES_MAX]).map(<[u8]>::to_vec);
        assert!(matches!(result, Err(EncodeError::Value { .. })), "{frame:?}: {result:?}");
        let body = postcard::to_slice(&frame.message, &mut [0; BODY_BYTES_MAX]).unwrap().to_vec();
        let received = all_of(&sealed(PROTOCOL_VERSION, frame.address, &body))[0].clone();
        assert!(matches!(received, Err(DecodeError { fault: Fault::Value { .. }, .. })), "{frame:?}: {received:?}");
    }
}

/// What stands here never changes; it only grows.
#[test]
fn w09_numbers_of_messages_kinds_and_levels_stay() {
    let body = |message: Message| postcard::to_slice(&message, &mut [0; BODY_BYTES_MAX]).unwrap().to_vec();
    let up = |uplink| body(Message::Up(uplink));
    let down = |downlink| body(Message::Down(downlink));
    let hello = Hello {
        uid: Uid([1, 2, 3, 4, 5, 6, 7, 8]),
        boot: 9,
        firmware: FirmwareVersion { major: 1, minor: 2, patch: 3 },
        capabilities: Capabilities::BATTERY,
        uptime_ms: 4,
        unacked_from: 5,
        next_sequence: 6,
        heartbeat_ms: 7,
    };
    assert_eq!(up(Uplink::Hello(hello)), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 2, 4, 5, 6, 7]);
    let level = ChannelLevel { channel: 2, level: Level::SmokeAlarm, fault: true };
    let battery = Some(Battery { millivolts: 100, low: true });
    let levels = Levels::from_slice(&[level]).unwrap();
    let heartbeat = Heartbeat { boot: 9, uptime_ms: 4, next_sequence: 6, levels, battery };
    assert_eq!(up(Uplink::Heartbeat(heartbeat)), [0, 2, 9, 4, 6, 1, 2, 2, 1, 1, 100, 1]);
    assert_eq!(up(Uplink::Loss(Loss { boot: 9, first: 2, count: 3 })), [0, 3, 9, 2, 3]);
    assert_eq!(up(Uplink::Pong(Pong { boot: 9, uptime_ms: 4, nonce: 3 })), [0, 4, 9, 4, 3]);
    let text = Text::try_from("hi").unwrap();
    let log = Log { boot: 9, uptime_ms: 4, severity: Severity::Error, text };
    assert_eq!(up(Uplink::Log(log)), [0, 5, 9, 4, 2, 2, b'h', b'i']);

    let kinds = [
        (EventKind::ContactOpened, vec![0]),
        (EventKind::ContactClosed, vec![1]),
        (EventKind::SmokeAlarm, vec![2]),
        (EventKind::SmokeClear, vec![3]),
        (EventKind::SmokeTest, vec![4]),
        (EventKind::SmokeHushed, vec![5]),
        (EventKind::SosPressed, vec![6]),
        (EventKind::TamperOpened, vec![7]),
        (EventKind::TamperClosed, vec![8]),
        (EventKind::Battery(Battery { millivolts: 2_600, low: true }), vec![9, 0xa8, 0x14, 1]),
        (EventKind::FaultRaised, vec![10]),
        (EventKind::FaultCleared, vec![11]),
    ];
    for (kind, bytes) in kinds {
        let event = Event { boot: 1, sequence: 2, uptime_ms: 3, channel: 4, kind };
        assert_eq!(up(Uplink::Event(event)), [&[0, 1, 1, 2, 3, 4], &bytes[..]].concat());
        if let Some(level) = Level::after(kind) {
            assert_eq!(level.edge(), kind);
            let number = postcard::to_slice(&level, &mut [0; 4]).unwrap().to_vec();
            assert_eq!(number, [if bytes[0] < 6 { bytes[0] } else { bytes[0] - 1 }]);
        }
    }

    assert_eq!(down(Downlink::Ack(Ack { boot: 9, through: 300 })), [1, 0, 9, 0xac, 2]);
    assert_eq!(down(Downlink::Ping(Ping { nonce: 3 })), [1, 1, 3]);
    assert_eq!(down(Downlink::Time(Time { unix_ms: 5, synced: true })), [1, 2, 5, 1]);
    assert_eq!(down(Downlink::Test { channel: 2 }), [1, 3, 2]);
    assert_eq!(down(Downlink::Sounder(Sounder { for_ms: 5 })), [1, 4, 5]);
    assert_eq!(down(Downlink::Configure(Configure { heartbeat_ms: 1_000, debounce_ms: 50 })), [1, 5, 0xe8, 7, 50]);
    assert_eq!(down(Downlink::Identify), [1, 6]);
    assert_eq!(down(Downlink::Poll(Poll { frames: 8 })), [1, 7, 8]);
    let assign = Assign { uid: Uid([1, 2, 3, 4, 5, 6, 7, 8]), address: 9 };
    assert_eq!(down(Downlink::Assign(assign)), [1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(up(Uplink::Done(Done { boot: 9, more: true })), [0, 6, 9, 1]);
    numbers_of_an_update(&up, &down);
}

fn numbers_of_an_update(up: &dyn Fn(Uplink) -> Vec<u8>, down: &dyn Fn(Downlink) -> Vec<u8>) {
    assert_eq!(down(Downlink::UpdateQuery), [1, 9]);
    let header = HeaderBytes::from_slice(&[7; 128]).unwrap();
    let begin = UpdateBegin { header };
    assert_eq!(down(Downlink::UpdateBegin(begin)), [&[1, 10, 0x80, 1][..], &[7; 128]].concat());
    let data = BlockBytes::from_slice(&[5, 6]).unwrap();
    let block = UpdateBlock { transfer: 3, offset: 256, data };
    assert_eq!(down(Downlink::UpdateBlock(block)), [1, 11, 3, 0x80, 2, 2, 5, 6]);
    assert_eq!(down(Downlink::UpdateTry(UpdateTry { transfer: 3 })), [1, 12, 3]);
    let info = UpdateInfo {
        boot: 9,
        board: 1,
        running: Slot::B,
        is_trial: true,
        security: 4,
        image_bytes_max: 256,
        gave_up: Some(GaveUp::Damaged),
    };
    assert_eq!(up(Uplink::UpdateInfo(info)), [0, 7, 9, 1, 1, 1, 4, 0x80, 2, 1, 8]);
    let states = [
        (UpdateState::Wants { offset: 128 }, vec![0, 0x80, 1]),
        (UpdateState::Checks, vec![1]),
        (UpdateState::Whole, vec![2]),
        (UpdateState::Restarts, vec![3]),
        (UpdateState::Refused(UpdateRefusal::Header), vec![4, 0]),
        (UpdateState::Refused(UpdateRefusal::Record), vec![4, 13]),
    ];
    for (state, bytes) in states {
        let report = UpdateReport { boot: 9, transfer: 3, state };
        assert_eq!(up(Uplink::UpdateReport(report)), [&[0, 8, 9, 3], &bytes[..]].concat());
    }
}

#[test]
fn w08_a_header_or_block_of_the_wrong_size_is_refused() {
    let header =
        |length| Downlink::UpdateBegin(UpdateBegin { header: HeaderBytes::from_slice(&[1; 128][..length]).unwrap() });
    let block = |offset, length| {
        let data = BlockBytes::from_slice(&[1; 128][..length]).unwrap();
        Downlink::UpdateBlock(UpdateBlock { transfer: 1, offset, data })
    };
    let wrong = [header(0), header(127), block(0, 0), block(64, 128), block(1 << 20, 128)];
    for downlink in wrong {
        let frame = Frame::down(0, downlink);
        assert!(matches!(encode(&frame, &mut [0; FRAME_BYTES_MAX]), Err(EncodeError::Value { .. })), "{frame:?}");
    }
    let longest = Frame::down(ADDRESS_MAX, block((1 << 20) - 128, 128));
    assert_eq!(all_of(&bytes_of(&longest)), [Ok(longest)]);
}

#[test]
fn a_manifest_comes_back_as_written_and_a_wrong_byte_is_named() {
    let manifest = Manifest {
        slot: Slot::B,
        board: 0x0102,
        version: FirmwareVersion { major: 3, minor: 4, patch: 5 },
        security: 6,
        may_lower_security: true,
        only: Some(Uid([7; 8])),
        length: 0x0001_0203,
        sha256: [8; 32],
    };
    let bytes = manifest.to_bytes();
    assert_eq!(bytes[..24], *b"GFFW\x01\x01\x02\x01\x03\0\x04\0\x05\0\x01\0\x06\0\0\0\x03\x02\x01\0");
    assert_eq!(bytes[24..], [[7; 8].as_slice(), &[8; 32]].concat());
    assert_eq!(Manifest::from_bytes(&bytes), Ok(manifest));
    let with = |at: usize, byte: u8| {
        let mut wrong = bytes;
        wrong[at] = byte;
        Manifest::from_bytes(&wrong)
    };
    assert_eq!(with(0, b'X'), Err(ManifestError::Magic));
    assert_eq!(with(4, 2), Err(ManifestError::Format { got: 2 }));
    assert_eq!(with(5, 2), Err(ManifestError::Slot { got: 2 }));
    assert_eq!(with(14, 3), Err(ManifestError::Flags { got: 3 }));
    assert_eq!(with(23, 1), Err(ManifestError::Length { got: 0x0101_0203 }));
    let for_all = Manifest { only: None, ..manifest };
    assert_eq!(Manifest::from_bytes(&for_all.to_bytes()), Err(ManifestError::Flags { got: 1 }));
    assert!(ManifestError::Magic.to_string().contains("byte 0"));
    assert_eq!(Manifest::from_bytes(&[0xff; 64]), Err(ManifestError::Magic), "erased flash");
}

#[test]
fn a_uid_is_written_and_read_as_16_hex_digits() {
    let uid = Uid([0, 0x12, 0x4b, 0, 0x1c, 0xa1, 0xb2, 0xff]);
    assert_eq!(uid.to_string(), "00124b001ca1b2ff");
    assert_eq!(Uid::parse("00124B001ca1b2ff"), Some(uid));
    for wrong in ["", "00124b001ca1b2f", "00124b001ca1b2fff", "00124b001ca1b2fg", "更更更更更1"] {
        assert_eq!(Uid::parse(wrong), None, "{wrong}");
    }
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        Just(EventKind::ContactOpened),
        Just(EventKind::SmokeAlarm),
        Just(EventKind::SosPressed),
        (any::<u16>(), any::<bool>()).prop_map(|(millivolts, low)| EventKind::Battery(Battery { millivolts, low })),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let event = (any::<u32>(), 1..=u32::MAX, any::<u64>(), 0..=CHANNEL_MAX, any_kind()).prop_map(
        |(boot, sequence, uptime_ms, channel, kind)| Uplink::Event(Event { boot, sequence, uptime_ms, channel, kind }),
    );
    let level = (0..=CHANNEL_MAX, any::<bool>()).prop_map(|(channel, fault)| ChannelLevel {
        channel,
        level: Level::ContactOpen,
        fault,
    });
    let heartbeat = (any::<u32>(), any::<u64>(), 1..=u32::MAX, prop::collection::vec(level, 0..=LEVELS_MAX)).prop_map(
        |(boot, uptime_ms, next_sequence, levels)| {
            let levels = Levels::from_slice(&levels).unwrap();
            Uplink::Heartbeat(Heartbeat { boot, uptime_ms, next_sequence, levels, battery: None })
        },
    );
    let loss = (any::<u32>(), 1..=u32::MAX / 2, 1..=u32::MAX / 2)
        .prop_map(|(boot, first, count)| Uplink::Loss(Loss { boot, first, count }));
    let ack = (any::<u32>(), any::<u32>()).prop_map(|(boot, through)| Downlink::Ack(Ack { boot, through }));
    prop_oneof![prop_oneof![event, heartbeat, loss].prop_map(Message::Up), ack.prop_map(Message::Down)]
}

proptest! {
    #[test]
    fn w01_every_message_comes_back_as_it_was_sent(address in 0..=ADDRESS_MAX, message in any_message()) {
        let frame = Frame { address, message };
        prop_assert_eq!(all_of(&bytes_of(&frame)), [Ok(frame)]);
    }

    #[test]
    fn w04_a_stream_of_frames_cut_anywhere_loses_only_the_cut_frame(
        messages in prop::collection::vec(any_message(), 1..6), cut in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<_> = messages.into_iter().map(|message| Frame { address: 1, message }).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        let rest = &bytes[cut.index(bytes.len())..];
        let received: Vec<_> = all_of(rest).into_iter().flatten().collect();
        prop_assert!(frames.ends_with(&received));
        let mut whole = 0;
        let mut tail = 0;
        for frame in frames.iter().rev() {
            tail += bytes_of(frame).len();
            if tail <= rest.len() { whole += 1; }
        }
        prop_assert!(received.len() >= whole);
    }
}
