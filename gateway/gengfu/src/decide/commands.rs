//! Orders of the centre, carried out.
//!
//! Owns what each verb does to the engine or asks of a node, and the reasons for refusing. Refuses to know MQTT: expiry and repetition are the
//! uplink's.

use std::collections::BTreeMap;
use std::time::Duration;

use gengfu_alarm::engine::{Answer, Engine};
use gengfu_alarm::{LocalOutput, LocalPolicy, Pause, PauseKind};
use gengfu_contract::command::{Command, Outcome, SounderCommand, TestCommand, VisitCommand, Whereabouts};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::Timestamp;

/// Longest operator name or alarm id accepted in a command, bytes; longer ones are refused before they reach the journal.
const TEXT_MAX_BYTES: usize = 128;
/// Longest sounding in one command.
const SOUND_MAX_S: u32 = 3600;

/// How devices hang on nodes: what an order needs and the alarm rules do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Node and channel of each device on a node.
    pub channels: BTreeMap<Slug, (Slug, u8)>,
    /// Nodes with a sounder, and the dwelling in which it is heard.
    pub sounders: BTreeMap<Slug, Option<String>>,
    /// Everything that can be heard or seen on site.
    pub outputs: Vec<LocalOutput>,
    /// How it behaves.
    pub policy: LocalPolicy,
    /// Devices with the moment of their replacement.
    pub replace_by: BTreeMap<Slug, Timestamp>,
}

/// What a node shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The node.
    pub node: Slug,
    /// What.
    pub what: Action,
}

/// What a node can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Sound for so long from now; zero stops.
    Sound(Duration),
    /// Press the test button of the head on this channel.
    Test(u8),
}

/// Carries out a command. `None` for receipts, which end in the uplink.
pub(super) fn carry_out(
    engine: &mut Engine,
    wiring: &Wiring,
    now: Timestamp,
    command: &Command,
    orders: &mut Vec<Order>,
) -> Option<Answer> {
    let too_long = |text: &str| text.len() > TEXT_MAX_BYTES;
    let alarm_id = match command {
        Command::Ack(it) | Command::Reset(it) => it.alarm_id.as_str(),
        _ => "",
    };
    if command.operator().is_some_and(too_long) || too_long(alarm_id) {
        return Some(refused("操作员或报警编号过长", "operator or alarm id too long"));
    }
    Some(match command {
        // One that strays here needs no answer.
        Command::Receipt(_) => return None,
        Command::Ack(it) => engine.acknowledge(now, it),
        Command::Reset(it) => engine.reset(now, it),
        Command::Visit(it) => visit(engine, now, it),
        Command::Sounder(it) => sound(wiring, it, orders),
        Command::Test(it) => test(wiring, it, orders),
        Command::Case(_)
        | Command::Shelve(_)
        | Command::Unshelve(_)
        | Command::Snapshot(_)
        | Command::Query(_)
        | Command::Config(_) => refused("此网关尚不支持该命令", "this gateway does not carry out this verb yet"),
    })
}

fn visit(engine: &mut Engine, now: Timestamp, order: &VisitCommand) -> Answer {
    let kind = match order.what {
        Whereabouts::Visited => PauseKind::Visit,
        Whereabouts::Away => PauseKind::Absence,
        Whereabouts::Well => PauseKind::Call,
        Whereabouts::Back => return engine.resume_care(now, &order.door),
    };
    let until = match (order.until, order.what) {
        (Some(until), _) => until,
        (None, Whereabouts::Well) => now,
        (None, _) => return refused("缺少截止时间 until", "`until` is missing: say when the pause ends"),
    };
    engine.pause_care(now, &order.door, &Pause { kind, until, operator: order.operator.clone() })
}

fn sound(wiring: &Wiring, order: &SounderCommand, orders: &mut Vec<Order>) -> Answer {
    if !wiring.sounders.contains_key(&order.device) {
        return refused(
            format!("{} 不是带声响器的节点", order.device),
            format!("{} is no node with a sounder: check the name, or set `sounder = true` for it", order.device),
        );
    }
    if order.for_s > SOUND_MAX_S {
        return refused(format!("时长须不超过 {SOUND_MAX_S} 秒"), format!("for_s is at most {SOUND_MAX_S}"));
    }
    let what = Action::Sound(Duration::from_secs(u64::from(order.for_s)));
    orders.push(Order { node: order.device.clone(), what });
    accepted()
}

fn test(wiring: &Wiring, order: &TestCommand, orders: &mut Vec<Order>) -> Answer {
    let Some((node, channel)) = wiring.channels.get(&order.device) else {
        return refused(
            format!("{} 不在任何节点上", order.device),
            format!("{} hangs on no node: only heads wired to a node can be tested from here", order.device),
        );
    };
    orders.push(Order { node: node.clone(), what: Action::Test(*channel) });
    accepted()
}

/// What it leads to shows later: a sounder is heard, a test is an event of its own.
fn accepted() -> Answer {
    Answer { outcome: Outcome::Accepted, reason: None, outputs: Vec::new() }
}

fn refused(zh: impl Into<String>, en: impl Into<String>) -> Answer {
    let reason = Some(Text { zh: zh.into(), en: en.into() });
    Answer { outcome: Outcome::Refused, reason, outputs: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gengfu_alarm::codes::CodeTable;
    use gengfu_alarm::observation::{Observation, What};
    use gengfu_alarm::policy::CareRule;
    use gengfu_alarm::rules::{DeviceClass, DeviceRule, Rules, Timing};
    use gengfu_contract::event::ClockQuality;
    use jiff::SignedDuration;

    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + s).unwrap()
    }

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    fn engine() -> Engine {
        let door = DeviceRule { class: DeviceClass::Door, ..DeviceRule::default() };
        let mut timing = Timing::default();
        timing.care.homes.insert(slug("door-301"), CareRule::default());
        let devices = [(slug("door-301"), door)].into();
        let mut engine = Engine::new(Rules {
            gateway: slug("gw"),
            devices,
            zones: BTreeMap::new(),
            codes: CodeTable::default(),
            timing,
        });
        let clock = ClockQuality::Synced;
        let what = What::Door { open: false, repaired: false };
        engine.observe(at(0), &Observation { device: slug("door-301"), sensed_at: at(0), clock, origin: None, what });
        engine
    }

    fn visit(what: Whereabouts, until: Option<Timestamp>) -> Command {
        let (door, operator) = (slug("door-301"), "op-1".to_owned());
        Command::Visit(VisitCommand { door, what, until, operator, issued_at: at(1), expires_at: None })
    }

    fn outcome(engine: &mut Engine, command: &Command) -> (Outcome, Vec<Order>) {
        let wiring = Wiring {
            channels: [(slug("smoke-301"), (slug("node-301"), 2))].into(),
            sounders: [(slug("node-301"), None)].into(),
            ..Wiring::default()
        };
        let mut orders = Vec::new();
        let answer = carry_out(engine, &wiring, at(1), command, &mut orders).unwrap();
        assert_eq!(answer.outcome == Outcome::Refused, answer.reason.is_some());
        (answer.outcome, orders)
    }

    #[test]
    fn an_absence_stops_a_homes_clock_until_the_person_is_back() {
        let mut engine = engine();
        let until = at(1) + SignedDuration::from_hours(240);
        assert_eq!(outcome(&mut engine, &visit(Whereabouts::Away, Some(until))).0, Outcome::Done);
        let pause = engine.care_state(at(2), &slug("door-301")).unwrap().pause.unwrap();
        assert_eq!((pause.until, pause.operator.as_str()), (until, "op-1"));
        assert_eq!(outcome(&mut engine, &visit(Whereabouts::Back, None)).0, Outcome::Done);
        assert_eq!(engine.care_state(at(2), &slug("door-301")).unwrap().pause, None);
    }

    #[test]
    fn a_pause_without_an_end_or_too_long_is_refused() {
        let mut engine = engine();
        let year = at(1) + SignedDuration::from_hours(24 * 365);
        for (what, until) in [(Whereabouts::Away, None), (Whereabouts::Visited, None), (Whereabouts::Away, Some(year))]
        {
            assert_eq!(outcome(&mut engine, &visit(what, until)).0, Outcome::Refused, "{what:?} {until:?}");
        }
        assert_eq!(outcome(&mut engine, &visit(Whereabouts::Well, None)).0, Outcome::Done);
    }

    #[test]
    fn orders_go_to_nodes_that_can_carry_them_out() {
        let mut engine = engine();
        let sound = |device: &str, for_s| {
            let (device, operator) = (slug(device), "op".to_owned());
            Command::Sounder(SounderCommand { device, for_s, operator, issued_at: at(1), expires_at: None })
        };
        let order = Order { node: slug("node-301"), what: Action::Sound(Duration::from_secs(30)) };
        assert_eq!(outcome(&mut engine, &sound("node-301", 30)), (Outcome::Accepted, vec![order]));
        assert_eq!(outcome(&mut engine, &sound("node-302", 30)), (Outcome::Refused, vec![]));
        assert_eq!(outcome(&mut engine, &sound("node-301", 3601)), (Outcome::Refused, vec![]));
        let test = |device: &str| {
            let (device, operator) = (slug(device), "op".to_owned());
            Command::Test(TestCommand { device, operator, issued_at: at(1), expires_at: None })
        };
        let order = Order { node: slug("node-301"), what: Action::Test(2) };
        assert_eq!(outcome(&mut engine, &test("smoke-301")), (Outcome::Accepted, vec![order]));
        assert_eq!(outcome(&mut engine, &test("smoke-302")).0, Outcome::Refused);
        let long = visit(Whereabouts::Well, None);
        let Command::Visit(mut it) = long else { panic!("a visit") };
        it.operator = "x".repeat(200);
        assert_eq!(outcome(&mut engine, &Command::Visit(it)).0, Outcome::Refused);
    }
}
