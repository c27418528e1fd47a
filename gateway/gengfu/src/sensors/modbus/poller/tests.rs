//! Goal: the schedule is fair, losses are told once and where they belong, and no level is lost. Method: a simulated line in simulated time.

use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::observation::Smoke;
use gengfu_contract::event::{ClockQuality, Location};
use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use super::*;
use crate::config::Device;
use crate::sensors::profile::parse;

const INPUTS: &str = r#"
name = "acme-inputs"
maker = "Acme"
model = "8DI"
source = "https://example.org"
link = "modbus"
class = "any"
[[read]]
name = "inputs"
function = "discrete_inputs"
address = 0
count = 2
every = "500ms"
[[point]]
read = "inputs"
address = 0
repeat = 2
contact = true
"#;

fn slug(name: &str) -> Slug {
    Slug::new(name).unwrap()
}

fn device(name: &str, class: DeviceClass) -> Device {
    let name = slug(name);
    Device {
        name,
        class,
        left_open_after: None,
        dwelling: None,
        subject_ref: None,
        replace_by: None,
        supervision: None,
        care: None,
        location: Location::default(),
    }
}

fn plan(units: u8) -> LinePlan {
    let profile = Arc::new(parse(INPUTS).unwrap());
    let unit = |n: u8| UnitPlan {
        name: slug(&format!("u{n}")),
        address: n,
        profile: profile.clone(),
        devices: BTreeMap::from([
            (1, (device(&format!("door-{n}"), DeviceClass::Door), false)),
            (2, (device(&format!("smoke-{n}"), DeviceClass::Smoke), false)),
        ]),
    };
    LinePlan {
        name: slug("line"),
        way: Way::Tcp { host: "localhost".into(), port: 502 },
        timeout: Duration::from_millis(100),
        gap: Duration::from_millis(5),
        failures_max: 3,
        retry_every: Duration::from_secs(10),
        units: (1..=units).map(unit).collect(),
    }
}

fn moment(ms: i64) -> Moment {
    let uptime = SignedDuration::from_millis(ms);
    Moment { now: Timestamp::UNIX_EPOCH + uptime, quality: ClockQuality::Synced, uptime }
}

/// A line whose units answer after 20 ms as `answer` says; silence takes the time-out.
struct Simulated {
    poller: Poller,
    ms: i64,
    asked: Vec<u8>,
}

impl Simulated {
    fn new(units: u8) -> Self {
        let mut poller = Poller::new(plan(units), None, moment(0));
        poller.line_opened(moment(0));
        Self { poller, ms: 0, asked: Vec::new() }
    }

    fn run_until(&mut self, ms: i64, answer: impl Fn(u8) -> Answer) -> Vec<(String, What)> {
        while self.ms < ms {
            match self.poller.next(moment(self.ms)) {
                Next::Read(request) => {
                    let answer = answer(request.address);
                    self.ms += if answer == Answer::Silent { 100 } else { 20 };
                    self.asked.push(request.address);
                    self.poller.on_answer(moment(self.ms), &request, answer);
                }
                Next::Wait(until) => self.ms = i64::try_from(until.as_millis()).unwrap().max(self.ms + 1),
            }
        }
        self.take()
    }

    fn take(&mut self) -> Vec<(String, What)> {
        let mut all = Vec::new();
        while let Some((batch, _)) = self.poller.take_batch() {
            self.poller.committed();
            all.extend(batch.into_iter().map(|seen| (seen.device.to_string(), seen.what)));
        }
        all
    }
}

fn bits(door_closed: bool, smoke: bool) -> Answer {
    Answer::Data(Data::Bits(vec![door_closed, smoke]))
}

fn of<'a>(seen: &'a [(String, What)], device: &str) -> Vec<&'a What> {
    seen.iter().filter(|(name, _)| name == device).map(|(_, what)| what).collect()
}

#[test]
fn levels_are_told_at_the_start_and_then_only_changes_with_a_heartbeat_a_minute() {
    let mut line = Simulated::new(1);
    let seen = line.run_until(1000, |_| bits(true, false));
    assert_eq!(seen[0], ("line".into(), What::Link(Link::Up)));
    assert_eq!(seen[1], ("u1".into(), What::Link(Link::Up)));
    assert_eq!(of(&seen, "door-1"), [&What::Door { open: false, repaired: true }]);
    assert_eq!(of(&seen, "smoke-1"), [&What::Smoke(Smoke::Clear)]);
    let mut seen = line.run_until(65_000, |_| bits(true, false));
    seen.extend(line.run_until(130_000, |_| bits(true, false)));
    assert!(seen.iter().all(|(_, what)| *what == What::Heartbeat), "{seen:?}");
    assert_eq!(of(&seen, "u1").len(), 2, "at 60 and 120 s");
    let seen = line.run_until(131_000, |_| bits(false, true));
    assert_eq!(of(&seen, "door-1"), [&What::Door { open: true, repaired: false }]);
    assert_eq!(of(&seen, "smoke-1"), [&What::Smoke(Smoke::Alarm)]);
}

#[test]
fn a_silent_unit_is_lost_after_three_tries_and_does_not_slow_the_others() {
    let mut line = Simulated::new(4);
    line.run_until(1000, |_| bits(true, false));
    line.asked.clear();
    let answer = |unit| if unit == 2 { Answer::Silent } else { bits(true, false) };
    let seen = line.run_until(61_000, answer);
    let told = of(&seen, "u2");
    assert!(
        matches!(told[..], [What::Link(Link::Down(text))] if text.contains("does not answer") && text.contains("A/B"))
    );
    assert_eq!(of(&seen, "line"), [] as [&What; 0], "the line is well");
    let polls = |unit| line.asked.iter().filter(|asked| **asked == unit).count();
    assert!((110..=121).contains(&polls(1)), "every 500 ms for a minute: {}", polls(1));
    assert!((7..=10).contains(&polls(2)), "3, then every 10 s: {}", polls(2));
    let seen = line.run_until(75_000, |_| bits(false, false));
    assert_eq!(of(&seen, "u2")[0], &What::Link(Link::Up));
    assert_eq!(of(&seen, "door-2"), [&What::Door { open: true, repaired: true }]);
}

#[test]
fn when_no_unit_answers_it_is_one_trouble_of_the_line() {
    let mut line = Simulated::new(4);
    line.run_until(1000, |_| bits(true, false));
    let seen = line.run_until(60_000, |_| Answer::Silent);
    assert!(
        matches!(&seen[..], [(name, What::Link(Link::Down(text)))] if name == "line" && text.contains("no unit")),
        "{seen:?}"
    );
    let seen = line.run_until(90_000, |unit| if unit == 3 { Answer::Silent } else { bits(true, false) });
    assert_eq!(of(&seen, "line"), [&What::Link(Link::Up)]);
    assert!(
        matches!(of(&seen, "u3")[..], [What::Link(Link::Down(_))]),
        "the one that stays away is told now: {seen:?}"
    );
}

#[test]
fn an_exception_says_that_the_profile_does_not_fit() {
    let mut line = Simulated::new(1);
    let seen = line.run_until(5_000, |_| Answer::Exception(2));
    let told = of(&seen, "u1");
    assert!(matches!(told[..], [What::Link(Link::Down(text))] if text.contains("profile does not fit")), "{told:?}");
    assert_eq!(line.poller.stats().discards["u1: exception 2"], 3);
    assert!(line.poller.stats().devices[0].remedy.contains("profile"));
}

#[test]
fn a_batch_that_the_disk_refuses_is_handed_over_again() {
    let mut line = Simulated::new(1);
    line.run_until(100, |_| bits(true, false));
    let request = Request { unit: 0, read: 0, address: 1, function: Function::DiscreteInputs, first: 0, count: 2 };
    line.poller.on_answer(moment(500), &request, bits(true, true));
    let (first, _) = line.poller.take_batch().unwrap();
    assert!(line.poller.take_batch().is_none());
    line.poller.failed();
    line.poller.on_answer(moment(1000), &request, bits(true, true));
    let (again, cursor) = line.poller.take_batch().unwrap();
    assert_eq!(again, first);
    assert!(String::from_utf8(cursor).unwrap().contains("alarm"));
}

#[test]
fn a_line_that_hangs_up_is_told_once_and_its_levels_again_when_it_is_back() {
    let mut line = Simulated::new(2);
    line.run_until(1000, |_| bits(true, false));
    line.poller.line_lost(moment(1000), &Problem::HungUp);
    line.poller.line_lost(moment(2000), &Problem::NoPort);
    let seen = line.take();
    assert!(matches!(&seen[..], [(name, What::Link(Link::Down(_)))] if name == "line"), "{seen:?}");
    line.poller.line_opened(moment(3000));
    line.ms = 3000;
    let seen = line.run_until(4000, |_| bits(true, false));
    assert_eq!(of(&seen, "line"), [&What::Link(Link::Up)]);
    assert_eq!(of(&seen, "door-2"), [&What::Door { open: false, repaired: true }]);
    assert_eq!(of(&seen, "u2"), [] as [&What; 0], "it was never away by itself");
}

#[test]
fn a_shared_line_of_thirty_two_inputs_sees_a_change_within_a_second() {
    let mut line = Simulated::new(32);
    line.run_until(2000, |_| bits(true, false));
    let began = line.ms;
    while line.run_until(line.ms + 1, |unit| bits(true, unit == 32)).is_empty() {}
    // 32 units of 25 ms each: the line, not the schedule, is the limit.
    assert!(line.ms - began <= 1000, "{} ms", line.ms - began);
}
