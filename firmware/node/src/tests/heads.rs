//! Goal: a head is tested for real where the board can, a heat detector tells fire from a warm kitchen, and neither hides an alarm or a
//! fault of its own. Method: a head whose alarm line the test moves as a head would; a thermometer part at the level of its register.

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, Operation};

use super::*;
use crate::heat;
use crate::smoke::TEST_ANSWER_MS;
use crate::tmp1xx::{ADDRESS, Tmp1xx};

/// A head whose test input is driven: the rig, and that input.
fn testable() -> (Rig, Horn) {
    let input = Horn::default();
    let (pin, alarm) = (input.clone(), Pin::low());
    let line = alarm.clone();
    let mut rig = Rig::with(move |parts| {
        let lines = Lines { alarm: Input::active_high(line), fault: None, test: None, hush: None };
        parts.sensors[1] = (2, Sensor::Smoke(Smoke::new(lines).with_test_input(pin)));
    });
    rig.smoke = alarm;
    rig.run(1_000);
    rig.sent.clear();
    (rig, input)
}

#[test]
fn a_head_that_answers_its_test_is_told_as_tested_and_its_input_is_let_go() {
    let (mut rig, input) = testable();
    rig.down(Downlink::Test { channel: 2 });
    rig.run(10);
    assert!(input.0.get(), "the test input is driven");
    rig.run(2_000);
    rig.smoke.set(true);
    rig.run(60);
    assert!(!input.0.get(), "it answered: enough");
    rig.run(2_000);
    rig.smoke.set(false);
    rig.run(TEST_HOLD_MS + 1_000);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeTest, EventKind::SmokeClear]);
}

#[test]
fn a_head_that_does_not_answer_its_test_is_at_fault_until_it_does() {
    let (mut rig, input) = testable();
    rig.down(Downlink::Test { channel: 2 });
    rig.run(TEST_ANSWER_MS + 2_000);
    assert!(!input.0.get());
    assert_eq!(rig.new_kinds(), [EventKind::SmokeTest, EventKind::SmokeClear, EventKind::FaultRaised]);
    rig.ack(3);
    rig.run(60_000);
    assert_eq!(rig.kinds(), [], "time does not mend it");
    rig.down(Downlink::Test { channel: 2 });
    rig.run(1_000);
    rig.smoke.set(true);
    rig.run(1_000);
    rig.smoke.set(false);
    rig.run(TEST_HOLD_MS + 2_000);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeTest, EventKind::SmokeClear, EventKind::FaultCleared]);
}

#[test]
fn no_row_of_tests_keeps_smoke_back_for_ten_seconds() {
    for with_input in [false, true] {
        let mut rig = if with_input { testable().0 } else { Rig::settled() };
        rig.smoke.set(true);
        rig.down(Downlink::Test { channel: 2 });
        let began_ms = rig.now_ms;
        while rig.node.outbox().entry_from(2).is_none() {
            rig.down(Downlink::Test { channel: 2 });
            rig.run(100);
            assert!(rig.now_ms - began_ms < 10_000, "smoke is kept back");
        }
        rig.ack(1);
        assert!(rig.kinds().contains(&EventKind::SmokeAlarm), "with input: {with_input}");
        rig.down(Downlink::Test { channel: 2 });
        rig.run(3_000);
        assert!(!rig.kinds().contains(&EventKind::SmokeTest), "no test begins while there is smoke");
    }
}

/// A rig with a heat detector on channel 4 and its glass.
fn with_heat(millicelsius: i32) -> (Rig, Glass) {
    let glass = Glass::default();
    glass.0.set(Some(millicelsius));
    let thermometer = glass.clone();
    let mut rig = Rig::with(move |parts| {
        parts.sensors.push((4, Sensor::Heat(Heat::new(thermometer)))).unwrap_or_else(|_| panic!("there is room"));
    });
    rig.run(5_000);
    rig.sent.clear();
    (rig, glass)
}

/// Lets the temperature go to `to_mc` with so many degrees a minute.
fn warm(rig: &mut Rig, glass: &Glass, to_mc: i32, kelvin_per_min: i32) {
    while glass.0.get().unwrap() < to_mc {
        glass.0.set(Some(glass.0.get().unwrap() + kelvin_per_min * 1_000 / 60));
        rig.run(1_000);
    }
}

#[test]
fn slow_warming_is_no_fire_below_57_degrees_and_one_from_there_on() {
    let (mut rig, glass) = with_heat(20_000);
    warm(&mut rig, &glass, 56_500, 2);
    assert_eq!(rig.kinds(), []);
    warm(&mut rig, &glass, 57_500, 2);
    rig.run(5_000);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeAlarm]);
    rig.ack(1);
    glass.0.set(Some(50_500));
    rig.run(200_000);
    assert_eq!(rig.kinds(), [], "not over before it is well below");
    glass.0.set(Some(49_000));
    rig.run(5_000);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeClear]);
}

/// EN 54-5 tests rates of rise of 10, 20 and 30 K a minute from 25 °C.
#[test]
fn a_fires_rise_is_told_long_before_57_degrees_and_a_heated_room_is_not() {
    for rate in [10, 20, 30] {
        let (mut rig, glass) = with_heat(25_000);
        rig.run(200_000);
        rig.sent.clear();
        while rig.node.outbox().next_sequence() == 1 {
            warm(&mut rig, &glass.clone(), glass.0.get().unwrap() + 1, rate);
            assert!(glass.0.get().unwrap() < 45_000, "{rate} K/min: too late");
        }
        assert_eq!(rig.new_kinds(), [EventKind::SmokeAlarm]);
    }
    for (from_mc, to_mc, rate) in [(-10_000, 30_000, 15), (20_000, 55_000, 5)] {
        let (mut rig, glass) = with_heat(from_mc);
        rig.run(100_000);
        rig.sent.clear();
        warm(&mut rig, &glass, to_mc, rate);
        assert_eq!(rig.kinds(), [], "from {from_mc} with {rate} K/min");
    }
}

#[test]
fn one_wild_sample_is_no_fire() {
    let (mut rig, glass) = with_heat(22_000);
    for _ in 0..20 {
        glass.0.set(Some(90_000));
        rig.run(2_000);
        glass.0.set(Some(22_000));
        rig.run(1_000);
    }
    assert_eq!(rig.kinds(), []);
}

#[test]
fn a_thermometer_that_does_not_answer_three_times_is_at_fault_and_ends_no_alarm() {
    let (mut rig, glass) = with_heat(22_000);
    for _ in 0..10 {
        glass.0.set(None);
        rig.run(2_000);
        glass.0.set(Some(22_000));
        rig.run(1_000);
    }
    assert_eq!(rig.kinds(), [], "twice is no fault");
    glass.0.set(Some(80_000));
    rig.run(5_000);
    glass.0.set(None);
    rig.run(5_000);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeAlarm, EventKind::FaultRaised]);
    rig.ack(2);
    rig.run(20_000);
    let level = *rig.last_heartbeat().levels.iter().find(|it| it.channel == 4).unwrap();
    assert_eq!((level.level, level.fault), (Level::SmokeAlarm, true));
    assert_eq!(rig.node.stats().ignored_frames, 0);
    rig.down(Downlink::Test { channel: 4 });
    assert_eq!(rig.node.stats().ignored_frames, 1, "a dead detector has no test");
    glass.0.set(Some(80_000));
    rig.run(5_000);
    assert_eq!(rig.new_kinds(), [EventKind::FaultCleared]);
}

#[test]
fn a_test_of_a_heat_detector_is_told_and_hides_no_fire() {
    let (mut rig, glass) = with_heat(22_000);
    rig.down(Downlink::Test { channel: 4 });
    rig.run(1_000);
    glass.0.set(Some(90_000));
    rig.run(3_500);
    assert_eq!(rig.new_kinds(), [EventKind::SmokeTest, EventKind::SmokeAlarm]);
}

/// A TMP102 or one of its kin, seen from the bus: a pointer, kept over a stop, and four registers of two bytes.
struct Part {
    registers: [[u8; 2]; 4],
    pointer: usize,
    is_away: bool,
    asked: u32,
}

impl ErrorType for &mut Part {
    type Error = ErrorKind;
}

impl I2c for &mut Part {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        self.asked += 1;
        if self.is_away || address != ADDRESS {
            return Err(ErrorKind::NoAcknowledge(embedded_hal::i2c::NoAcknowledgeSource::Address));
        }
        for operation in operations {
            match operation {
                Operation::Write(bytes) => {
                    self.pointer = usize::from(bytes[0] & 3);
                    assert_eq!(bytes.len(), 1, "no register is written");
                }
                Operation::Read(buffer) => buffer.copy_from_slice(&self.registers[self.pointer][..buffer.len()]),
            }
        }
        Ok(())
    }
}

#[test]
fn the_temperature_register_is_read_as_the_data_sheet_says() {
    // TI SBOS397, table 3, left-justified; and what is no temperature of such a part.
    for (bytes, millicelsius) in [
        ([0x7f, 0xf0], Some(127_937)),
        ([0x50, 0x00], Some(80_000)),
        ([0x19, 0x00], Some(25_000)),
        ([0x00, 0x40], Some(250)),
        ([0x00, 0x00], Some(0)),
        ([0xff, 0xc0], Some(-250)),
        ([0xe7, 0x00], Some(-25_000)),
        ([0xc9, 0x00], Some(-55_000)),
        ([0x80, 0x00], None),
        ([0xff, 0xff], None),
    ] {
        let mut part =
            Part { registers: [bytes, [0x60, 0xa0], [0x4b, 0], [0x50, 0]], pointer: 2, is_away: false, asked: 0 };
        assert_eq!(Tmp1xx::new(&mut part, ADDRESS).millicelsius(), millicelsius, "{bytes:02x?}");
    }
}

#[test]
fn a_part_that_is_away_is_asked_three_times_before_it_is_a_fault() {
    let mut part = Part { registers: [[0x19, 0]; 4], pointer: 0, is_away: true, asked: 0 };
    let mut detector = Heat::new(Tmp1xx::new(&mut part, ADDRESS));
    let events: Vec<_> = (0..6).map(|n| detector.poll(n * heat::SAMPLE_MS)).collect();
    assert_eq!(events, [None, None, Some(EventKind::FaultRaised), None, None, None]);
    assert_eq!((detector.level(), detector.is_faulty()), (None, true));
    drop(detector);
    assert_eq!(part.asked, 6);
}
