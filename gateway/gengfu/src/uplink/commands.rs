//! Commands from the centre, before anybody acts on them.
//!
//! Owns what is the same for every verb: understood or refused, expired, given before. It answers what needs no knowledge of alarms
//! and passes on the rest. It refuses to judge an alarm: that is the core's.

use std::collections::{HashMap, VecDeque};

use gengfu_contract::command::{Command, Outcome, Receipt, Reply};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::words::Text;
use jiff::Timestamp;

/// Commands remembered, to answer a repetition as before.
const REMEMBERED: usize = 256;
/// Longest command id accepted.
const CMD_ID_BYTES_MAX: usize = 64;

/// A command for the core: understood, in time, and given for the first time.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRequest {
    /// Names it in the [`Reply`] that the core owes.
    pub cmd_id: String,
    /// What is asked. Never [`Command::Receipt`]: receipts end here.
    pub command: Command,
    /// When it arrived.
    pub arrived_at: Timestamp,
}

/// What to do with a message on `cmd/<verb>/<cmd_id>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The centre has these.
    Receipt(Receipt),
    /// For the core.
    Forward(CommandRequest),
    /// Answered here.
    Answer(Reply),
    /// No answer is owed, or none is possible; the reason is for the log.
    Ignore(&'static str),
}

/// The memory of commands.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Answers by command id; `None` while the core is at it.
    known: HashMap<String, Option<Reply>>,
    order: VecDeque<String>,
}

impl Inbox {
    /// Judges a command.
    pub fn take(&mut self, verb: &str, cmd_id: &str, body: &[u8], now: Timestamp, clock: ClockQuality) -> Verdict {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if cmd_id.is_empty() || cmd_id.len() > CMD_ID_BYTES_MAX || !cmd_id.bytes().all(plain) {
            return Verdict::Ignore("a command id is 1 to 64 letters, digits, hyphens and underscores");
        }
        let command = match Command::parse(verb, body) {
            Ok(Command::Receipt(receipt)) => return Verdict::Receipt(receipt),
            Ok(command) => command,
            Err(fault) => {
                let zh = format!("无法理解该指令：{fault}");
                return Verdict::Answer(refused(cmd_id, Text { zh, en: fault.to_string() }, now));
            }
        };
        match self.known.get(cmd_id) {
            Some(Some(reply)) => return Verdict::Answer(reply.clone()),
            Some(None) => return Verdict::Ignore("the command was given before and is being carried out"),
            None => {}
        }
        if let Some(expires_at) = command.expires_at().filter(|at| *at < now) {
            // A clock that is not set must not refuse a person's acknowledgement.
            if clock == ClockQuality::Synced {
                let text = Text {
                    zh: format!("指令已于 {expires_at} 过期"),
                    en: format!("the command expired at {expires_at}"),
                };
                return Verdict::Answer(refused(cmd_id, text, now));
            }
        }
        self.remember(cmd_id);
        Verdict::Forward(CommandRequest { cmd_id: cmd_id.to_owned(), command, arrived_at: now })
    }

    /// The core answered; a repetition gets the same. `Accepted` is not the last word and may be followed by another.
    pub fn answered(&mut self, reply: &Reply) {
        if let Some(known) = self.known.get_mut(&reply.cmd_id) {
            *known = Some(reply.clone());
        }
    }

    /// The core did not take it: a repetition is a new command. The answer says so.
    pub fn not_taken(&mut self, cmd_id: &str, now: Timestamp) -> Reply {
        self.known.remove(cmd_id);
        self.order.retain(|known| known != cmd_id);
        let text = Text {
            zh: "网关繁忙，请重发该指令".into(),
            en: "the gateway is busy; give the command again".into(),
        };
        refused(cmd_id, text, now)
    }

    fn remember(&mut self, cmd_id: &str) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(cmd_id.to_owned(), None);
        self.order.push_back(cmd_id.to_owned());
    }
}

fn refused(cmd_id: &str, reason: Text, at: Timestamp) -> Reply {
    Reply::new(cmd_id, Outcome::Refused, Some(reason), at)
}

#[cfg(test)]
mod tests {
    use gengfu_contract::command::AlarmCommand;

    use super::super::testing::at;
    use super::*;

    const SYNCED: ClockQuality = ClockQuality::Synced;

    fn ack(expires_at: Option<Timestamp>) -> Vec<u8> {
        let ack = AlarmCommand { alarm_id: "A".into(), operator: "op".into(), issued_at: at(0), expires_at };
        serde_json::to_vec(&ack).unwrap()
    }

    #[test]
    fn a_command_given_twice_is_carried_out_once_and_answered_alike() {
        let mut inbox = Inbox::default();
        assert!(matches!(inbox.take("ack", "c1", &ack(None), at(0), SYNCED), Verdict::Forward(_)));
        assert!(matches!(inbox.take("ack", "c1", &ack(None), at(1), SYNCED), Verdict::Ignore(_)));
        let done = Reply::new("c1", Outcome::Done, None, at(2));
        inbox.answered(&done);
        assert_eq!(inbox.take("ack", "c1", &ack(None), at(3), SYNCED), Verdict::Answer(done));
    }

    #[test]
    fn an_expired_command_is_refused_unless_our_clock_may_be_wrong() {
        let mut inbox = Inbox::default();
        let body = ack(Some(at(10)));
        let Verdict::Answer(reply) = inbox.take("ack", "c1", &body, at(11), SYNCED) else { panic!("an answer") };
        assert_eq!(reply.outcome, Outcome::Refused);
        assert!(reply.reason.unwrap().zh.contains("过期"));
        assert!(matches!(inbox.take("ack", "c2", &body, at(11), ClockQuality::Unsynced), Verdict::Forward(_)));
        assert!(matches!(inbox.take("ack", "c3", &body, at(10), SYNCED), Verdict::Forward(_)));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_what_cannot_be_answered_is_ignored() {
        let mut inbox = Inbox::default();
        for (verb, body) in [("explode", &b"{}"[..]), ("ack", b"\xff"), ("receipt", b"[]"), ("reset", b"")] {
            let Verdict::Answer(reply) = inbox.take(verb, "c1", body, at(0), SYNCED) else { panic!("{verb}") };
            assert_eq!((reply.cmd_id.as_str(), reply.outcome), ("c1", Outcome::Refused));
        }
        for cmd_id in ["", "a b", "楼", "+", "#", &"x".repeat(65)] {
            assert!(matches!(inbox.take("ack", cmd_id, &ack(None), at(0), SYNCED), Verdict::Ignore(_)), "{cmd_id:?}");
        }
    }

    #[test]
    fn a_command_the_core_could_not_take_may_be_given_again() {
        let mut inbox = Inbox::default();
        assert!(matches!(inbox.take("reset", "c1", &ack(None), at(0), SYNCED), Verdict::Forward(_)));
        assert_eq!(inbox.not_taken("c1", at(0)).outcome, Outcome::Refused);
        assert!(matches!(inbox.take("reset", "c1", &ack(None), at(1), SYNCED), Verdict::Forward(_)));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut inbox = Inbox::default();
        for n in 0..=REMEMBERED {
            inbox.take("ack", &format!("c{n}"), &ack(None), at(0), SYNCED);
        }
        assert_eq!((inbox.known.len(), inbox.order.len()), (REMEMBERED, REMEMBERED));
        assert!(matches!(inbox.take("ack", "c0", &ack(None), at(0), SYNCED), Verdict::Forward(_)));
    }
}
