//! Bodies on `cmd/<verb>/<cmd_id>` and `reply/<cmd_id>`.
//!
//! Owns the verbs this version understands. A verb it does not know is answered `refused`, never ignored.
//! Commands are idempotent by `cmd_id` and may expire. What a `query` is answered with is in [`crate::query`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{CaseStage, RejectReason};
use crate::query::QueryCommand;
use crate::slug::Slug;
use crate::words::{AlarmKind, Text};

/// Every verb of this version, in the order of the documents.
pub const VERBS: [&str; 12] = [
    "receipt", "ack", "case", "shelve", "unshelve", "reset", "snapshot", "query", "visit", "sounder", "test", "config",
];

/// What the centre asks of a gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `receipt`: the centre's software has these, durably. The only thing that ends a delivery.
    Receipt(Receipt),
    /// `ack`: a human has seen this alarm.
    Ack(AlarmCommand),
    /// `case`: how far the centre's case about this alarm has come.
    Case(CaseCommand),
    /// `shelve`: alarms of this kind from this device do not count for a while.
    Shelve(ShelveCommand),
    /// `unshelve`: they count again.
    Unshelve(UnshelveCommand),
    /// `reset`: a human ends a latched alarm whose cause is gone.
    Reset(AlarmCommand),
    /// `snapshot`: a masked picture of now.
    Snapshot(SnapshotCommand),
    /// `query`: what do you know of these.
    Query(QueryCommand),
    /// `visit`: somebody is with a person, or the person is away; the clock of the home stands meanwhile.
    Visit(VisitCommand),
    /// `sounder`: let a node sound, or be silent.
    Sounder(SounderCommand),
    /// `test`: press a smoke head's test button, electrically.
    Test(TestCommand),
    /// `config`: a new configuration, signed; tried, kept only if the uplink comes back.
    Config(ConfigCommand),
}

/// Body of `receipt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// Ids of events ([`crate::event::Event::id`]) and of pictures (`<alarm_id>/<n>`).
    pub ids: Vec<String>,
    /// When the centre stored the last of them.
    pub received_at: Timestamp,
}

/// Body of `ack` and `reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlarmCommand {
    /// The alarm.
    pub alarm_id: String,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `case`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaseCommand {
    /// The alarm.
    pub alarm_id: String,
    /// The centre's id of the case; the same for all stages of one case.
    pub case_id: String,
    /// Where it stands now.
    pub stage: CaseStage,
    /// Why; wanted for `REJECTED` and `RETURNED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<RejectReason>,
    /// What the centre wants to remember with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it must be dealt with, by the centre's rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `shelve`. Smoke and SOS are never shelved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShelveCommand {
    /// The device.
    pub device: Slug,
    /// Which of its alarms.
    pub kind: AlarmKind,
    /// In this zone of its picture only, for a camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Slug>,
    /// Until when, at most 8 h ahead.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `unshelve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnshelveCommand {
    /// The device.
    pub device: Slug,
    /// Which of its alarms.
    pub kind: AlarmKind,
    /// The zone that was named in `shelve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Slug>,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `snapshot`. The picture travels on `evidence/<cmd_id>/1`; the reply's `data` is a [`SnapshotData`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotCommand {
    /// The camera.
    pub camera: Slug,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// `data` of the reply to `snapshot`: which picture to expect on `evidence/<cmd_id>/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotData {
    /// SHA-256 of the bytes, hex.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
    /// As in "image/jpeg".
    pub media_type: String,
    /// When the picture was taken.
    pub taken_at: Timestamp,
}

/// Body of `config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigCommand {
    /// The signed bundle, base64 (RFC 4648, with padding).
    pub bundle: String,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `visit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VisitCommand {
    /// The home, named by the magnet on its door.
    pub door: Slug,
    /// What is known of the person.
    pub what: Whereabouts,
    /// Until when; not for `back`. At most 24 h ahead, 90 days for `away`. `well` without it only begins to count anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who says so, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What the centre knows of a person whom the care rules watch over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// Somebody is with the person.
    Visited,
    /// The person is away: hospital, family.
    Away,
    /// The person answered a call and is well.
    Well,
    /// The person is back, or the visit is over: the clock runs again, from nought.
    Back,
}

/// Body of `sounder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SounderCommand {
    /// The node.
    pub device: Slug,
    /// For so many seconds from now, at most 3600; 0 stops it.
    pub for_s: u32,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestCommand {
    /// The smoke head.
    pub device: Slug,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `reply/<cmd_id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// The command's id, as in its topic.
    pub cmd_id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, for `refused` and `conflict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// When.
    pub at: Timestamp,
    /// What was asked for: [`SnapshotData`] or [`crate::query::QueryData`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// Number of this part, from 1, where an answer comes in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// How many parts there are; absent where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
}

impl Reply {
    /// A reply without data, in one part.
    #[must_use]
    pub fn new(cmd_id: impl Into<String>, outcome: Outcome, reason: Option<Text>, at: Timestamp) -> Self {
        Self { cmd_id: cmd_id.into(), outcome, reason, at, data: None, part: None, parts: None }
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Understood; it takes a while.
    Accepted,
    /// Done, or was done before.
    Done,
    /// Not done, and never will be.
    Refused,
    /// Contradicts the state of the condition, which the gateway owns.
    Conflict,
}

/// Why a command was not understood.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not a verb of this version.
    #[error("unknown verb \"{0}\": this gateway knows {known}", known = VERBS.join(", "))]
    Verb(String),
    /// Body does not fit the verb.
    #[error("body of \"{verb}\" not understood: {source}")]
    Body {
        /// The verb.
        verb: String,
        /// Where and what.
        source: serde_json::Error,
    },
}

impl Command {
    /// Reads a command from the verb of its topic and its body.
    ///
    /// # Errors
    /// [`CommandError`]: the text goes into the reply.
    pub fn parse(verb: &str, body: &[u8]) -> Result<Self, CommandError> {
        let command = match verb {
            "receipt" => serde_json::from_slice(body).map(Command::Receipt),
            "ack" => serde_json::from_slice(body).map(Command::Ack),
            "case" => serde_json::from_slice(body).map(Command::Case),
            "shelve" => serde_json::from_slice(body).map(Command::Shelve),
            "unshelve" => serde_json::from_slice(body).map(Command::Unshelve),
            "snapshot" => serde_json::from_slice(body).map(Command::Snapshot),
            "query" => serde_json::from_slice(body).map(Command::Query),
            "config" => serde_json::from_slice(body).map(Command::Config),
            "reset" => serde_json::from_slice(body).map(Command::Reset),
            "visit" => serde_json::from_slice(body).map(Command::Visit),
            "sounder" => serde_json::from_slice(body).map(Command::Sounder),
            "test" => serde_json::from_slice(body).map(Command::Test),
            _ => return Err(CommandError::Verb(verb.to_owned())),
        };
        command.map_err(|source| CommandError::Body { verb: verb.to_owned(), source })
    }

    /// The body, as on the wire: what [`Self::parse`] reads.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let body = match self {
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

    /// The verb, as in the topic.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Command::Receipt(_) => "receipt",
            Command::Ack(_) => "ack",
            Command::Case(_) => "case",
            Command::Shelve(_) => "shelve",
            Command::Unshelve(_) => "unshelve",
            Command::Reset(_) => "reset",
            Command::Snapshot(_) => "snapshot",
            Command::Query(_) => "query",
            Command::Visit(_) => "visit",
            Command::Sounder(_) => "sounder",
            Command::Test(_) => "test",
            Command::Config(_) => "config",
        }
    }

    /// Who gave it, when, and until when it holds; `None` for a receipt, which is the software's own word.
    #[must_use]
    pub fn given(&self) -> Option<Given<'_>> {
        macro_rules! given {
            ($it:expr) => {
                Given { operator: &$it.operator, issued_at: $it.issued_at, expires_at: $it.expires_at }
            };
        }
        Some(match self {
            Command::Receipt(_) => return None,
            Command::Ack(it) | Command::Reset(it) => given!(it),
            Command::Case(it) => given!(it),
            Command::Shelve(it) => given!(it),
            Command::Unshelve(it) => given!(it),
            Command::Snapshot(it) => given!(it),
            Command::Query(it) => given!(it),
            Command::Visit(it) => given!(it),
            Command::Sounder(it) => given!(it),
            Command::Test(it) => given!(it),
            Command::Config(it) => given!(it),
        })
    }

    /// After this it is refused.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.given().and_then(|given| given.expires_at)
    }

    /// Who gave it; nobody in particular for a receipt.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        self.given().map(|given| given.operator)
    }
}

/// What every order says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given<'c> {
    /// Who, as the centre names its people; opaque here.
    pub operator: &'c str,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    pub expires_at: Option<Timestamp>,
}

impl ConfigCommand {
    /// The bytes of the bundle.
    ///
    /// # Errors
    /// When `bundle` is not base64; the error names the place.
    pub fn bundle_bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        STANDARD.decode(&self.bundle)
    }

    /// The text of `bundle` for these bytes.
    #[must_use]
    pub fn encode_bundle(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_commands_say_what_was_expected() {
        let verb = Command::parse("explode", b"{}").unwrap_err().to_string();
        assert!(verb.contains("explode") && verb.contains("receipt"), "{verb}");
        let body = Command::parse("ack", br#"{"alarm_id":"x"}"#).unwrap_err().to_string();
        assert!(body.contains("operator"), "{body}");
        for junk in [&b""[..], b"\xff\xff", b"[]", b"null"] {
            assert!(Command::parse("receipt", junk).is_err());
        }
    }

    #[test]
    fn the_words_of_a_visit_are_read() {
        let body = br#"{"door":"door-301","what":"away","until":"2026-12-01T00:00:00Z","operator":"op","issued_at":"2026-11-22T08:00:00Z"}"#;
        let command = Command::parse("visit", body).unwrap();
        assert_eq!((command.operator(), command.expires_at()), (Some("op"), None));
        let Command::Visit(visit) = command else { panic!("a visit") };
        assert_eq!((visit.what, visit.door.as_str()), (Whereabouts::Away, "door-301"));
        let wrong = Command::parse("visit", String::from_utf8_lossy(body).replace("away", "gone").as_bytes())
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("gone") && wrong.contains("visited"), "{wrong}");
    }

    #[test]
    fn every_verb_is_read_and_named_alike() {
        let given = r#""operator":"op","issued_at":"2026-11-22T08:00:00Z","expires_at":"2026-11-22T08:01:00Z"}"#;
        let bodies = [
            ("ack", r#"{"alarm_id":"A","#),
            ("case", r#"{"alarm_id":"A","case_id":"C","stage":"REJECTED","reason":"steam","#),
            (
                "shelve",
                r#"{"device":"cam-1","kind":"illegal_parking","until":"2026-11-22T09:00:00Z","reason":"market day","#,
            ),
            ("unshelve", r#"{"device":"cam-1","kind":"illegal_parking","zone":"gate","#),
            ("reset", r#"{"alarm_id":"A","#),
            ("snapshot", r#"{"camera":"cam-1","#),
            ("query", r#"{"what":"homes","#),
            ("visit", r#"{"door":"door-1","what":"well","#),
            ("sounder", r#"{"device":"node-1","for_s":5,"#),
            ("test", r#"{"device":"smoke-1","#),
            ("config", r#"{"bundle":"aGVsbG8=","#),
        ];
        for (verb, body) in bodies {
            let command = Command::parse(verb, format!("{body}{given}").as_bytes()).unwrap();
            assert_eq!(command.verb(), verb);
            let told = command.given().unwrap();
            assert_eq!((told.operator, told.expires_at.is_some()), ("op", true), "{verb}");
        }
        let read: Vec<&str> = std::iter::once("receipt").chain(bodies.iter().map(|(verb, _)| *verb)).collect();
        assert_eq!(read, VERBS);
    }

    #[test]
    fn a_bundle_is_carried_whole_and_bad_base64_is_told() {
        let mut config = ConfigCommand {
            bundle: ConfigCommand::encode_bundle(&[0, 255, 7]),
            operator: "op".into(),
            issued_at: "2026-11-22T08:00:00Z".parse().unwrap(),
            expires_at: None,
        };
        assert_eq!(config.bundle_bytes().unwrap(), [0, 255, 7]);
        config.bundle = "not base64!".into();
        assert!(config.bundle_bytes().is_err());
    }

    #[test]
    fn receipt_reads_events_and_pictures_alike() {
        let body = br#"{"ids":["e1","01ARZ/1"],"received_at":"2026-11-22T08:00:00Z","unknown":1}"#;
        let Command::Receipt(receipt) = Command::parse("receipt", body).unwrap() else { panic!("a receipt") };
        assert_eq!(receipt.ids, ["e1", "01ARZ/1"]);
    }
}
