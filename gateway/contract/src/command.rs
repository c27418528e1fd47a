//! Bodies on `cmd/<verb>/<cmd_id>` and `reply/<cmd_id>`.
//!
//! Owns the verbs this version understands. A verb it does not know is answered `refused`, never ignored.
//! Commands are idempotent by `cmd_id` and may expire.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::slug::Slug;
use crate::words::Text;

/// What the centre asks of a gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `receipt`: the centre's software has these, durably. The only thing that ends a delivery.
    Receipt(Receipt),
    /// `ack`: a human has seen this alarm.
    Ack(AlarmCommand),
    /// `reset`: a human ends a latched alarm whose cause is gone.
    Reset(AlarmCommand),
    /// `visit`: somebody is with a person, or the person is away; the clock of the home stands meanwhile.
    Visit(VisitCommand),
    /// `sounder`: let a node sound, or be silent.
    Sounder(SounderCommand),
    /// `test`: press a smoke head's test button, electrically.
    Test(TestCommand),
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
    #[error("unknown verb \"{0}\": this gateway knows receipt, ack, reset, visit, sounder and test")]
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
            "reset" => serde_json::from_slice(body).map(Command::Reset),
            "visit" => serde_json::from_slice(body).map(Command::Visit),
            "sounder" => serde_json::from_slice(body).map(Command::Sounder),
            "test" => serde_json::from_slice(body).map(Command::Test),
            _ => return Err(CommandError::Verb(verb.to_owned())),
        };
        command.map_err(|source| CommandError::Body { verb: verb.to_owned(), source })
    }

    /// After this it is refused.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Command::Receipt(_) => None,
            Command::Ack(it) | Command::Reset(it) => it.expires_at,
            Command::Visit(it) => it.expires_at,
            Command::Sounder(it) => it.expires_at,
            Command::Test(it) => it.expires_at,
        }
    }

    /// Who gave it; nobody in particular for a receipt.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        match self {
            Command::Receipt(_) => None,
            Command::Ack(it) | Command::Reset(it) => Some(&it.operator),
            Command::Visit(it) => Some(&it.operator),
            Command::Sounder(it) => Some(&it.operator),
            Command::Test(it) => Some(&it.operator),
        }
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
    fn receipt_reads_events_and_pictures_alike() {
        let body = br#"{"ids":["e1","01ARZ/1"],"received_at":"2026-11-22T08:00:00Z","unknown":1}"#;
        let Command::Receipt(receipt) = Command::parse("receipt", body).unwrap() else { panic!("a receipt") };
        assert_eq!(receipt.ids, ["e1", "01ARZ/1"]);
    }
}
