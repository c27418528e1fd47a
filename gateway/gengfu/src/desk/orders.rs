//! What a person (or a timer, or a script) orders at the desk, and the command it becomes.
//!
//! Owns the one way from an order to a command of the contract, used by the live view, by `gengfu desk act` and by automatic
//! acknowledgements alike. It refuses to judge: whether a case may move or an alarm be shelved is the gateway's to answer, and
//! that answer is what people see.

use std::time::Duration;

use gengfu_contract::case::{CaseStage, RejectReason};
use gengfu_contract::command::{
    AlarmCommand, CaseCommand, Command, ConfigCommand, ShelveCommand, SnapshotCommand, SounderCommand, TestCommand,
    UnshelveCommand, VisitCommand, Whereabouts,
};
use gengfu_contract::query::{QueryCommand, QueryWhat};
use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;
use jiff::Timestamp;

use crate::uplink::backoff::later;

/// A decision of a person holds this long while the gateway is away.
const DECISION_HOLDS: Duration = Duration::from_secs(3600);
/// What is about this moment is not done later.
const MOMENT_HOLDS: Duration = Duration::from_secs(60);

/// What is ordered at the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// I have seen this alarm.
    Ack(AlarmOrder),
    /// End this latched alarm; its cause is gone.
    Reset(AlarmOrder),
    /// Anything else for a gateway.
    Give(GatewayOrder),
    /// Hold receipts until they are ordered (true), or send them by themselves (false).
    HoldReceipts(bool),
    /// Send the receipts that are held.
    SendReceipts,
}

/// About which alarm, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlarmOrder {
    /// Whose alarm.
    pub gateway: Slug,
    /// Which.
    pub alarm_id: String,
    /// Who orders it.
    pub operator: String,
}

/// For which gateway, by whom, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayOrder {
    /// For whom.
    pub gateway: Slug,
    /// Who orders it.
    pub operator: String,
    /// What.
    pub action: Action,
}

/// What a gateway is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Acknowledge an alarm.
    Ack {
        /// Which.
        alarm_id: String,
    },
    /// Reset a latched alarm.
    Reset {
        /// Which.
        alarm_id: String,
    },
    /// Tell how far the case about an alarm has come.
    Case(CaseOrder),
    /// Put alarms aside.
    Shelve {
        /// Of which device.
        device: Slug,
        /// Which of its alarms.
        kind: AlarmKind,
        /// In which zone of its picture only.
        zone: Option<Slug>,
        /// For how long.
        lasts: Duration,
        /// Why.
        reason: String,
    },
    /// Let them count again.
    Unshelve {
        /// Of which device.
        device: Slug,
        /// Which of its alarms.
        kind: AlarmKind,
        /// In which zone.
        zone: Option<Slug>,
    },
    /// A masked picture of now.
    Snapshot {
        /// Which camera.
        camera: Slug,
    },
    /// What do you know of these.
    Query {
        /// What of them.
        what: QueryWhat,
        /// Which devices; empty for all.
        devices: Vec<Slug>,
        /// For the journal: from this sequence.
        from: Option<u64>,
        /// For the journal: to this sequence.
        to: Option<u64>,
    },
    /// What is known of a person.
    Visit {
        /// The magnet on the door.
        door: Slug,
        /// What.
        what: Whereabouts,
        /// For how long.
        lasts: Option<Duration>,
    },
    /// Let a node sound; 0 s stops it.
    Sounder {
        /// Which.
        device: Slug,
        /// For how many seconds.
        for_s: u32,
    },
    /// Press a smoke head's test button.
    Test {
        /// Which.
        device: Slug,
    },
    /// Try a configuration.
    Config {
        /// The signed bundle in base64.
        bundle: String,
    },
}

/// How far a case has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseOrder {
    /// About which alarm.
    pub alarm_id: String,
    /// The centre's id; the alarm's own when the desk makes it.
    pub case_id: String,
    /// Where it stands now.
    pub stage: CaseStage,
    /// Why, for a rejection or a return.
    pub reason: Option<RejectReason>,
    /// Anything to remember.
    pub note: Option<String>,
    /// When it must be dealt with.
    pub due_at: Option<Timestamp>,
}

impl CaseOrder {
    /// The next stage of an alarm's case, with the case id the alarm has, or one made of its own.
    #[must_use]
    pub fn next(alarm_id: &str, case_id: Option<&str>, stage: CaseStage) -> Self {
        let case_id = case_id.map_or_else(|| format!("case-{alarm_id}"), str::to_owned);
        Self { alarm_id: alarm_id.to_owned(), case_id, stage, reason: None, note: None, due_at: None }
    }
}

impl Order {
    /// The order as one for a gateway; `None` for what concerns the desk itself.
    #[must_use]
    pub fn for_gateway(&self) -> Option<GatewayOrder> {
        match self {
            Order::Ack(order) => Some(order.with(Action::Ack { alarm_id: order.alarm_id.clone() })),
            Order::Reset(order) => Some(order.with(Action::Reset { alarm_id: order.alarm_id.clone() })),
            Order::Give(order) => Some(order.clone()),
            Order::HoldReceipts(_) | Order::SendReceipts => None,
        }
    }
}

impl AlarmOrder {
    fn with(&self, action: Action) -> GatewayOrder {
        GatewayOrder { gateway: self.gateway.clone(), operator: self.operator.clone(), action }
    }
}

impl Action {
    /// The alarm it is about, if it is about one.
    #[must_use]
    pub fn alarm_id(&self) -> Option<&str> {
        match self {
            Action::Ack { alarm_id } | Action::Reset { alarm_id } => Some(alarm_id),
            Action::Case(case) => Some(&case.alarm_id),
            _ => None,
        }
    }

    /// What it is about, for people.
    #[must_use]
    pub fn about(&self) -> String {
        let with_zone = |device: &Slug, kind: &AlarmKind, zone: &Option<Slug>| {
            let zone = zone.as_ref().map(|zone| format!("/{zone}")).unwrap_or_default();
            format!("{kind} of {device}{zone}")
        };
        match self {
            Action::Ack { alarm_id } | Action::Reset { alarm_id } => alarm_id.clone(),
            Action::Case(case) => format!("{} {}", case.alarm_id, case.stage),
            Action::Shelve { device, kind, zone, .. } | Action::Unshelve { device, kind, zone } => {
                with_zone(device, kind, zone)
            }
            Action::Snapshot { camera } => camera.to_string(),
            Action::Query { what, devices, .. } if devices.is_empty() => format!("{what}"),
            Action::Query { what, devices, .. } => format!("{what} of {} device(s)", devices.len()),
            Action::Visit { door, .. } => door.to_string(),
            Action::Sounder { device, .. } | Action::Test { device } => device.to_string(),
            Action::Config { .. } => "its configuration".to_owned(),
        }
    }

    /// The command of the contract, given now by `operator`.
    #[must_use]
    pub fn command(&self, operator: &str, now: Timestamp) -> Command {
        let (operator, issued_at) = (operator.to_owned(), now);
        let (decision, moment) = (Some(later(now, DECISION_HOLDS)), Some(later(now, MOMENT_HOLDS)));
        let alarm = |alarm_id: &String, operator| AlarmCommand {
            alarm_id: alarm_id.clone(),
            operator,
            issued_at,
            expires_at: decision,
        };
        match self.clone() {
            Action::Ack { alarm_id } => Command::Ack(alarm(&alarm_id, operator)),
            Action::Reset { alarm_id } => Command::Reset(alarm(&alarm_id, operator)),
            Action::Case(CaseOrder { alarm_id, case_id, stage, reason, note, due_at }) => Command::Case(CaseCommand {
                alarm_id,
                case_id,
                stage,
                reason,
                note,
                due_at,
                operator,
                issued_at,
                expires_at: decision,
            }),
            Action::Shelve { device, kind, zone, lasts, reason } => {
                let until = later(now, lasts);
                let expires_at = decision;
                Command::Shelve(ShelveCommand { device, kind, zone, until, reason, operator, issued_at, expires_at })
            }
            Action::Unshelve { device, kind, zone } => {
                Command::Unshelve(UnshelveCommand { device, kind, zone, operator, issued_at, expires_at: decision })
            }
            Action::Snapshot { camera } => {
                Command::Snapshot(SnapshotCommand { camera, operator, issued_at, expires_at: moment })
            }
            Action::Query { what, devices, from, to } => Command::Query(QueryCommand {
                what,
                devices,
                from_sequence: from,
                to_sequence: to,
                operator,
                issued_at,
                expires_at: moment,
            }),
            Action::Visit { door, what, lasts } => {
                let until = lasts.map(|lasts| later(now, lasts));
                Command::Visit(VisitCommand { door, what, until, operator, issued_at, expires_at: decision })
            }
            Action::Sounder { device, for_s } => {
                Command::Sounder(SounderCommand { device, for_s, operator, issued_at, expires_at: moment })
            }
            Action::Test { device } => Command::Test(TestCommand { device, operator, issued_at, expires_at: moment }),
            Action::Config { bundle } => {
                Command::Config(ConfigCommand { bundle, operator, issued_at, expires_at: decision })
            }
        }
    }
}

/// The body of a command as it goes onto its topic.
#[must_use]
pub fn body(command: &Command) -> Vec<u8> {
    let body = match command {
        Command::Receipt(it) => serde_json::to_vec(it),
        Command::Ack(it) | Command::Reset(it) => serde_json::to_vec(it),
        Command::Case(it) => serde_json::to_vec(it),
        Command::Shelve(it) => serde_json::to_vec(it),
        Command::Unshelve(it) => serde_json::to_vec(it),
        Command::Snapshot(it) => serde_json::to_vec(it),
        Command::Query(it) => serde_json::to_vec(it),
        Command::Visit(it) => serde_json::to_vec(it),
        Command::Sounder(it) => serde_json::to_vec(it),
        Command::Test(it) => serde_json::to_vec(it),
        Command::Config(it) => serde_json::to_vec(it),
    };
    body.expect("the contract's bodies have only string keys and finite numbers")
}

/// Reads a time span as people write it: "30m", "8h", "90s", "2d".
///
/// # Errors
/// A text saying what was expected.
pub fn span(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is no time span: write 90s, 30m, 8h or 2d");
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gengfu_contract::testing::at;

    fn every_action() -> Vec<Action> {
        let device = Slug::new("d-1").unwrap();
        let kind = AlarmKind::IllegalParking;
        let mut case = CaseOrder::next("01A", None, CaseStage::Rejected);
        case.reason = Some(RejectReason::Model);
        vec![
            Action::Ack { alarm_id: "01A".into() },
            Action::Reset { alarm_id: "01A".into() },
            Action::Case(case),
            Action::Shelve {
                device: device.clone(),
                kind,
                zone: Some(device.clone()),
                lasts: Duration::from_secs(3600),
                reason: "works".into(),
            },
            Action::Unshelve { device: device.clone(), kind, zone: None },
            Action::Snapshot { camera: device.clone() },
            Action::Query { what: QueryWhat::Homes, devices: vec![device.clone()], from: None, to: None },
            Action::Visit { door: device.clone(), what: Whereabouts::Away, lasts: Some(Duration::from_secs(60)) },
            Action::Sounder { device: device.clone(), for_s: 5 },
            Action::Test { device },
            Action::Config { bundle: "R0ZDQg==".into() },
        ]
    }

    #[test]
    fn every_order_becomes_a_command_that_the_gateway_reads_as_it_was_meant() {
        for action in every_action() {
            let command = action.command("op-7", at(0));
            assert_eq!(Command::parse(command.verb(), &body(&command)).unwrap(), command);
            let given = command.given().unwrap();
            assert_eq!((given.operator, given.issued_at), ("op-7", at(0)));
            assert!(given.expires_at.is_some_and(|expires_at| expires_at > at(0)), "{action:?} does not expire");
            assert!(!action.about().is_empty());
        }
    }

    #[test]
    fn a_time_span_is_read_as_people_write_it_and_nonsense_is_explained() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("8h"), Ok(Duration::from_secs(8 * 3600)));
        for wrong in ["", "8", "h", "8 h", "-1h", "8小", "99999999999999999999h", "18446744073709551615d"] {
            assert!(span(wrong).is_err_and(|text| text.contains("30m")), "{wrong}");
        }
    }
}
