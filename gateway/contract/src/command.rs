//! Bodies on `cmd/<verb>/<cmd_id>` and `reply/<cmd_id>`.
//!
//! Owns the verbs this version understands. A verb it does not know is answered `refused`, never ignored.
//! Commands are idempotent by `cmd_id` and may expire.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[error("unknown verb \"{0}\": this gateway knows receipt, ack and reset")]
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
        let bad = |source| CommandError::Body { verb: verb.to_owned(), source };
        match verb {
            "receipt" => serde_json::from_slice(body).map(Command::Receipt).map_err(bad),
            "ack" => serde_json::from_slice(body).map(Command::Ack).map_err(bad),
            "reset" => serde_json::from_slice(body).map(Command::Reset).map_err(bad),
            _ => Err(CommandError::Verb(verb.to_owned())),
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
    fn receipt_reads_events_and_pictures_alike() {
        let body = br#"{"ids":["e1","01ARZ/1"],"received_at":"2026-11-22T08:00:00Z","unknown":1}"#;
        let Command::Receipt(receipt) = Command::parse("receipt", body).unwrap() else { panic!("a receipt") };
        assert_eq!(receipt.ids, ["e1", "01ARZ/1"]);
    }
}
