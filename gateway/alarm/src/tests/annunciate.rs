//! What is heard and seen on site: after which silence of the centre, for how long, and for whom.
//!
//! Method: a real engine raises the alarms; the test says which of them the centre has confirmed, and compares the outputs
//! that should be on. `bell-1` and `bell-2` are nodes' sounders in the dwellings 7-1 and 7-2, `horn` and `lamp` the gateway's.

use gengfu_contract::words::AlarmKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::annunciate::{AlarmInWait, Annunciator, LocalOutput, LocalPolicy, OutputKind, Pattern, Want};

fn outputs() -> Vec<LocalOutput> {
    let output = |name: &str, kind, node: Option<&str>, dwelling: Option<&str>| LocalOutput {
        name: slug(name),
        kind,
        node: node.map(slug),
        dwelling: dwelling.map(str::to_owned),
    };
    vec![
        output("bell-1", OutputKind::Sounder, Some("node-1"), Some("7-1")),
        output("bell-2", OutputKind::Sounder, Some("node-2"), Some("7-2")),
        output("horn", OutputKind::Sounder, None, None),
        output("lamp", OutputKind::Lamp, None, None),
    ]
}

/// A site, and what the centre has not confirmed.
struct Site {
    player: Player,
    box_: Annunciator,
    waiting: BTreeMap<String, f64>,
}

impl Site {
    fn new(policy: LocalPolicy) -> Self {
        Self { player: Player::new(rules()), box_: Annunciator::new(outputs(), policy), waiting: BTreeMap::new() }
    }

    /// Plays a line; every raising of it waits for its receipt.
    fn play(&mut self, line: &str) {
        let before = self.player.events.len();
        self.player.play(line);
        for event in &self.player.events[before..] {
            if event.event_type == EventType::AlarmRaised {
                let seconds = event.alarm.decided_at.duration_since(at(0.0)).as_secs_f64();
                self.waiting.entry(event.alarm.alarm_id.clone()).or_insert(seconds);
            }
        }
    }

    fn receipt(&mut self, what: &str) {
        let id = self.player.last(what).alarm_id.clone();
        self.waiting.remove(&id);
    }

    fn alarms(&self) -> Vec<AlarmInWait> {
        self.player.engine.life_safety(|id| self.waiting.get(id).map(|seconds| at(*seconds)))
    }

    fn wants(&mut self, seconds: f64) -> Vec<Want> {
        let alarms = self.alarms();
        self.box_.update(at(seconds), &alarms)
    }

    /// `output pattern`, for what should be on; the pattern as its first letter.
    fn on(&mut self, seconds: f64) -> String {
        let short = |want: &Want| {
            let pattern = if want.pattern == Pattern::Alarm { "A" } else { "T" };
            format!("{} {pattern}", want.output)
        };
        self.wants(seconds).iter().map(short).collect::<Vec<_>>().join(", ")
    }
}

const SMOKE: &str = "0 smoke alarm => raised smoke@smoke ACTIVE_UNACK";

#[test]
fn ten_seconds_without_a_receipt_and_not_one_millisecond_less_sound_the_dwelling_and_the_gateway() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    assert_eq!(site.on(0.0), "");
    assert_eq!(site.box_.next_due(), Some(at(10.0)));
    assert_eq!(site.on(9.999), "");
    assert_eq!(site.on(10.0), "bell-1 T, horn T, lamp T", "the neighbours are not called out");
    site.receipt("smoke@smoke");
    assert_eq!(site.on(12.0), "", "the centre has it");
    let told = site.box_.take_overdue();
    let times: Vec<_> = told.iter().map(|one| (one.waiting_since, one.failed_at, one.over_at)).collect();
    assert_eq!(times, [(at(0.0), at(10.0), None), (at(0.0), at(10.0), Some(at(12.0)))], "with the true times");
    assert!(told.iter().all(|one| one.kind == AlarmKind::Smoke && one.device == slug("smoke")));
    assert_eq!(site.box_.next_due(), None);
}

#[test]
fn a_receipt_in_time_is_never_heard() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    assert_eq!(site.on(5.0), "");
    site.receipt("smoke@smoke");
    assert_eq!((site.on(9.0), site.on(100.0)), (String::new(), String::new()));
    assert_eq!(site.box_.take_overdue(), []);
}

#[test]
fn a_test_and_a_trouble_are_never_annunciated() {
    let mut site = Site::new(LocalPolicy { sound_on_alarm: true, ..LocalPolicy::default() });
    site.play("0 smoke test => raised test:smoke@smoke ACTIVE_UNACK");
    site.play("0 smoke fault on => raised device_fault@smoke ACTIVE_UNACK");
    assert_eq!((site.on(0.0), site.on(1000.0)), (String::new(), String::new()));
    assert_eq!((site.box_.take_overdue(), site.box_.next_due()), (Vec::new(), None));
}

#[test]
fn an_emergency_button_counts_as_well() {
    let mut site = Site::new(LocalPolicy::default());
    site.play("0 sos press => raised sos@sos ACTIVE_UNACK");
    assert_eq!(site.on(10.0), "horn T, lamp T");
}

#[test]
fn a_silence_quiets_the_sounders_for_its_time_and_the_lamp_stays() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    site.on(10.0);
    site.box_.silence(at(20.0), None, Duration::from_secs(24 * 3600));
    assert_eq!(site.on(20.0), "lamp T");
    assert_eq!(site.on(619.9), "lamp T");
    assert_eq!(site.on(620.0), "bell-1 T, horn T, lamp T", "ten minutes at most, whatever was asked");
    // A new alarm sounds through a silence.
    site.box_.silence(at(630.0), Some("7-1"), Duration::from_secs(600));
    assert_eq!(site.on(630.0), "lamp T");
    site.play("640 smoke-c alarm => raised smoke@smoke-c ACTIVE_UNACK");
    assert_eq!(site.on(640.0), "lamp T");
    assert_eq!(site.on(650.0), "bell-2 T, horn T, lamp T", "and only where it is");
}

#[test]
fn what_is_raised_anew_ends_its_silence_and_what_is_out_does_not_wake_anybody_again() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    site.on(10.0);
    site.box_.silence(at(11.0), None, Duration::from_secs(600));
    site.play("12 smoke clear => cleared smoke@smoke CLEARED_UNACK");
    assert_eq!(site.on(12.0), "lamp T");
    assert_eq!(site.on(5000.0), "lamp T", "silenced, and out: the lamp says enough");
    assert!(site.box_.next_due().is_none_or(|due| due > at(5000.0)), "and nobody is called for nothing");
    site.play("5001 smoke alarm => raised smoke@smoke ACTIVE_UNACK");
    assert_eq!(site.on(5001.0), "bell-1 T, horn T, lamp T");
}

#[test]
fn smoke_sounds_the_other_nodes_of_its_dwelling_where_that_is_wanted() {
    let mut rules = rules();
    for (name, node) in [("smoke", "node-0"), ("smoke-b", "node-1"), ("smoke-c", "node-2")] {
        rules.devices.get_mut(&slug(name)).unwrap().parent = Some(slug(node));
        rules.devices.insert(slug(node), DeviceRule::default());
    }
    let mut site = Site::new(LocalPolicy { sound_on_alarm: true, ..LocalPolicy::default() });
    site.player = Player::new(rules);
    site.play(SMOKE);
    site.receipt("smoke@smoke");
    assert_eq!(site.on(0.0), "bell-1 A", "at once, and although the centre has it");
    site.play("5 smoke hushed => updated smoke@smoke ACTIVE_UNACK");
    assert_eq!(site.on(5.0), "", "somebody stands at the head");
    site.play("6 smoke alarm => updated smoke@smoke ACTIVE_UNACK");
    assert_eq!(site.on(6.0), "bell-1 A");
    site.play("7 smoke clear => cleared smoke@smoke CLEARED_UNACK");
    assert_eq!(site.on(7.0), "");
    // The head of bell-1's own node sounds by itself; without a receipt it is the other pattern.
    site.play("8 smoke-b alarm => raised smoke@smoke-b ACTIVE_UNACK");
    assert_eq!(site.on(8.0), "");
    assert_eq!(site.on(18.0), "bell-1 T, horn T, lamp T");
}

#[test]
fn an_output_is_leased_and_renewed_so_that_a_dead_gateway_does_not_sound_for_ever() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    let until = |site: &mut Site, seconds: f64| site.wants(seconds)[0].until;
    assert_eq!(until(&mut site, 10.0), at(70.0));
    assert_eq!(site.box_.next_due(), Some(at(40.0)));
    assert_eq!(until(&mut site, 39.9), at(70.0), "nothing new to say");
    assert_eq!(until(&mut site, 40.0), at(100.0));
}

#[test]
fn a_second_raising_waits_for_a_receipt_of_its_own() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    assert_eq!(site.on(10.0), "bell-1 T, horn T, lamp T");
    let id = site.player.last("smoke@smoke").alarm_id.clone();
    // The first receipt came, and an escalation was journaled at 19.
    site.waiting.insert(id, 19.0);
    assert_eq!(site.on(20.0), "");
    assert_eq!(site.on(28.9), "");
    assert_eq!(site.on(29.0), "bell-1 T, horn T, lamp T");
    assert_eq!(site.box_.take_overdue().len(), 3);
}

#[test]
fn an_alarm_that_is_over_is_quiet() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    site.on(10.0);
    site.play(
        "11 smoke clear => cleared smoke@smoke CLEARED_UNACK\n12 reset smoke@smoke => done, over smoke@smoke NORMAL",
    );
    assert_eq!(site.on(12.0), "");
    assert_eq!(site.box_.take_overdue().last().unwrap().over_at, Some(at(12.0)));
}

#[test]
fn a_restart_sounds_on_and_tells_nothing_twice() {
    let mut site = Site::new(LocalPolicy::default());
    site.play(SMOKE);
    site.on(10.0);
    site.box_.silence(at(15.0), None, Duration::from_secs(100));
    site.on(15.0);
    assert_eq!(site.box_.take_overdue().len(), 1);
    let saved = serde_json::to_vec(&site.box_.state()).unwrap();
    site.player.restart();
    site.box_ = Annunciator::restore(outputs(), LocalPolicy::default(), serde_json::from_slice(&saved).unwrap());
    assert_eq!(site.on(20.0), "lamp T", "still silenced");
    assert_eq!(site.on(115.0), "bell-1 T, horn T, lamp T");
    assert_eq!(site.box_.take_overdue(), []);
    // Without what was written down the outputs are the same; only the silence is forgotten.
    site.box_ = Annunciator::new(outputs(), LocalPolicy::default());
    assert_eq!(site.on(116.0), "bell-1 T, horn T, lamp T");
}

#[test]
fn a_call_that_waited_before_a_restart_with_the_clock_set_back_is_told_at_once() {
    let mut site = Site::new(LocalPolicy::default());
    site.play("1000 smoke alarm => raised smoke@smoke ACTIVE_UNACK");
    assert_eq!(site.on(1000.0), "");
    let saved = site.box_.state();
    site.box_ = Annunciator::restore(outputs(), LocalPolicy::default(), saved);
    assert_eq!(site.on(3.0), "bell-1 T, horn T, lamp T");
}

#[test]
fn a_new_call_has_its_own_ten_seconds_after_one_that_failed_though_the_clock_was_set_back_between() {
    let mut site = Site::new(LocalPolicy::default());
    site.play("1000 smoke alarm => raised smoke@smoke ACTIVE_UNACK");
    site.on(1000.0);
    assert_eq!(site.on(1010.0), "bell-1 T, horn T, lamp T");
    site.box_.clock_stepped(SignedDuration::from_secs(-500));
    let mut alarms = site.alarms();
    alarms.iter_mut().for_each(|alarm| alarm.waiting_since = Some(at(511.0)));
    assert_eq!(site.box_.update(at(511.0), &alarms), []);
    assert_eq!(site.box_.update(at(521.0), &alarms).len(), 3);
}

#[test]
fn a_set_clock_delays_by_at_most_the_ten_seconds() {
    let mut site = Site::new(LocalPolicy::default());
    site.play("1000 smoke alarm => raised smoke@smoke ACTIVE_UNACK");
    assert_eq!(site.on(1000.0), "");
    assert_eq!(site.on(500.0), "", "set back, untold");
    assert_eq!(site.on(510.0), "bell-1 T, horn T, lamp T");
    site.box_.silence(at(510.0), None, Duration::from_secs(600));
    site.box_.clock_stepped(SignedDuration::from_secs(3600));
    assert_eq!(site.on(4110.0), "lamp T", "told: the silence moved along");
    assert_eq!(site.on(4710.0), "bell-1 T, horn T, lamp T");
}

#[test]
fn whatever_happens_it_sounds_only_for_what_waits_and_lights_for_all_that_waits_too_long() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut site = Site::new(LocalPolicy { sound_on_alarm: rng.random_bool(0.5), ..LocalPolicy::default() });
        let mut time = 0.0;
        for _ in 0..120 {
            time += rng.random_range(0.0..8.0);
            let device = ["smoke", "smoke-b", "smoke-c"][rng.random_range(0..3)];
            let reading =
                [Smoke::Alarm, Smoke::Alarm, Smoke::Clear, Smoke::Hushed, Smoke::Test][rng.random_range(0..5)];
            let seen = Observation {
                device: slug(device),
                sensed_at: at(time),
                clock: ClockQuality::Synced,
                origin: None,
                what: What::Smoke(reading),
            };
            match rng.random_range(0..10) {
                0..4 => {
                    for output in site.player.engine.observe(at(time), &seen) {
                        if let Output::Alarm(one) = output
                            && one.event_type == EventType::AlarmRaised
                        {
                            site.waiting.entry(one.alarm.alarm_id).or_insert(time);
                        }
                    }
                }
                4 => {
                    site.waiting.pop_first();
                }
                5 => site.box_.silence(at(time), None, Duration::from_secs(rng.random_range(0..900))),
                6 => {
                    let saved = serde_json::to_vec(&site.box_.state()).unwrap();
                    let state = serde_json::from_slice(&saved).unwrap();
                    site.box_ = Annunciator::restore(outputs(), site.box_.policy(), state);
                }
                _ => {}
            }
            let (wants, alarms) = (site.wants(time), site.alarms());
            let late = |alarm: &&AlarmInWait| {
                alarm.status == CapStatus::Actual
                    && alarm.waiting_since.is_some_and(|since| at(time) >= since + SignedDuration::from_secs(10))
            };
            let late = alarms.iter().any(|alarm| late(&alarm));
            let lit = wants.iter().any(|want| want.output == slug("lamp"));
            assert_eq!(lit, late, "seed {seed} at {time}: {alarms:?}");
            let failed = wants.iter().any(|want| want.pattern == Pattern::TransmissionFailed);
            assert!(!failed || late, "seed {seed} at {time}: it sounds, and nothing waits too long");
            assert!(wants.iter().all(|want| want.until > at(time)), "seed {seed} at {time}: {wants:?}");
            assert!(site.box_.next_due().is_none_or(|due| due > at(time)), "seed {seed} at {time}: called for nothing");
            assert_eq!(site.wants(time), wants, "seed {seed} at {time}: asked twice, the same answer");
        }
    }
}
