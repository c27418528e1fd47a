//! Commands from the centre, before anybody acts on them.
//!
//! Owns what can be said of a message without knowing anything: is its id a command id, is it understood. It answers what is not understood
//! and passes on the rest with a digest of its body. It refuses to remember, to judge whether it is expired or repeated, and to
//! judge an alarm: that is the core's, which does it in the same batch as the effect.

use gengfu_contract::command::{Command, Outcome, Receipt, Reply};
use gengfu_contract::words::Text;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Longest command id accepted.
const CMD_ID_BYTES_MAX: usize = 64;

/// A command for the core: understood, and from this gateway's own subtree.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRequest {
    /// Names it in the [`Reply`] that the core owes.
    pub cmd_id: String,
    /// What is asked. Never [`Command::Receipt`]: receipts end here.
    pub command: Command,
    /// Of verb and body, whatever the order of its members: the same id with another digest is another command.
    pub digest: [u8; 32],
    /// The broker had kept it: nobody knows since when.
    pub retained: bool,
    /// When it arrived.
    pub arrived_at: Timestamp,
}

/// What to do with a message on `cmd/<verb>/<cmd_id>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The centre has these.
    Receipt(Receipt),
    /// For the core.
    Forward(Box<CommandRequest>),
    /// Answered here.
    Answer(Reply),
    /// No answer is owed, or none is possible; the reason is for the log.
    Ignore(&'static str),
}

/// Judges a message. `retained` as the broker says.
#[must_use]
pub fn read(verb: &str, cmd_id: &str, body: &[u8], retained: bool, now: Timestamp) -> Verdict {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if cmd_id.is_empty() || cmd_id.len() > CMD_ID_BYTES_MAX || !cmd_id.bytes().all(plain) {
        return Verdict::Ignore("a command id is 1 to 64 letters, digits, hyphens and underscores");
    }
    if body.is_empty() {
        return Verdict::Ignore("nothing: a retained command was taken off the broker");
    }
    match Command::parse(verb, body) {
        Ok(Command::Receipt(receipt)) => Verdict::Receipt(receipt),
        Ok(command) => {
            let digest = digest(verb, body);
            let cmd_id = cmd_id.to_owned();
            Verdict::Forward(Box::new(CommandRequest { cmd_id, command, digest, retained, arrived_at: now }))
        }
        Err(_) if retained => Verdict::Ignore("a retained command that is not understood; take it off the broker"),
        Err(fault) => {
            let zh = format!("无法理解该指令：{fault}");
            Verdict::Answer(refused(cmd_id, Text { zh, en: fault.to_string() }, now))
        }
    }
}

/// The core did not take it: a repetition is a new command. The answer says so.
#[must_use]
pub fn not_taken(cmd_id: &str, now: Timestamp) -> Reply {
    let text = Text {
        zh: "网关繁忙，请重发该指令".into(), en: "the gateway is busy; give the command again".into()
    };
    refused(cmd_id, text, now)
}

fn refused(cmd_id: &str, reason: Text, at: Timestamp) -> Reply {
    Reply::new(cmd_id, Outcome::Refused, Some(reason), at)
}

/// A body that was understood is JSON; its members are hashed in the order of their names.
fn digest(verb: &str, body: &[u8]) -> [u8; 32] {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let sorted = serde_json_canonicalizer::to_vec(&value).unwrap_or_else(|_| body.to_vec());
    let mut hash = Sha256::new();
    hash.update(verb.as_bytes());
    hash.update([0]);
    hash.update(sorted);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use gengfu_contract::command::AlarmCommand;

    use super::super::testing::at;
    use super::*;

    fn ack() -> Vec<u8> {
        let ack = AlarmCommand { alarm_id: "A".into(), operator: "op".into(), issued_at: at(0), expires_at: None };
        serde_json::to_vec(&ack).unwrap()
    }

    #[test]
    fn what_is_not_understood_is_refused_and_what_cannot_be_answered_is_ignored() {
        for (verb, body) in [("explode", &b"{}"[..]), ("ack", b"\xff"), ("receipt", b"[]"), ("reset", b"{")] {
            let Verdict::Answer(reply) = read(verb, "c1", body, false, at(0)) else { panic!("{verb}") };
            assert_eq!((reply.cmd_id.as_str(), reply.outcome), ("c1", Outcome::Refused));
            assert!(matches!(read(verb, "c1", body, true, at(0)), Verdict::Ignore(_)));
        }
        for cmd_id in ["", "a b", "楼", "+", "#", &"x".repeat(65)] {
            assert!(matches!(read("ack", cmd_id, &ack(), false, at(0)), Verdict::Ignore(_)), "{cmd_id:?}");
        }
        assert!(matches!(read("ack", "c1", b"", true, at(0)), Verdict::Ignore(_)));
    }

    #[test]
    fn the_same_words_in_another_order_are_the_same_command_and_another_verb_is_not() {
        let digest = |verb: &str, body: &str| match read(verb, "c1", body.as_bytes(), false, at(0)) {
            Verdict::Forward(request) => request.digest,
            other => panic!("{other:?}"),
        };
        let one = r#"{"alarm_id":"A","operator":"op","issued_at":"2026-11-22T08:00:00Z"}"#;
        let same = r#"{ "issued_at":"2026-11-22T08:00:00Z", "operator":"op", "alarm_id":"A" }"#;
        assert_eq!(digest("ack", one), digest("ack", same));
        assert_ne!(digest("ack", one), digest("reset", one));
        assert_ne!(digest("ack", one), digest("ack", &one.replace("\"A\"", "\"B\"")));
    }
}
