//! Where an answer to a command goes besides `reply/<cmd_id>`, on MQTT 5.
//!
//! Owns the response topic and correlation data of the last commands (MQTT 5, 4.10). Every answer goes to the contract's own topic, with the
//! correlation data; a response topic gets a copy. It refuses response topics outside this gateway's `reply/` and its site's
//! `dispatch/`: a command must not make a gateway publish where its sender may not.

use std::collections::{HashMap, VecDeque};

use super::connection::Arrived;

/// Commands remembered, as many as answers are.
const REMEMBERED: usize = 256;
/// Longest correlation data that is carried back.
const CORRELATION_BYTES_MAX: usize = 1024;

/// What a command said about its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// A copy of the answer goes there.
    pub topic: Option<String>,
    /// Carried back unchanged.
    pub correlation: Option<Vec<u8>>,
}

/// The wishes of the last commands.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    known: HashMap<String, Wish>,
    order: VecDeque<String>,
}

impl Wishes {
    /// Notes what `arrived` says about the answer to `cmd_id`. `own` are the prefixes under which an answer may go. Gives the response topic that was refused.
    pub fn note<'a>(&mut self, cmd_id: &str, arrived: &'a Arrived, own: &[String]) -> Option<&'a str> {
        let fits = |topic: &&String| own.iter().any(|prefix| topic.starts_with(prefix.as_str())) && is_name(topic);
        let asked = arrived.response_topic.as_ref();
        let topic = asked.filter(fits).cloned();
        let refused = asked.filter(|_| topic.is_none()).map(String::as_str);
        let correlation = arrived.correlation.clone().filter(|data| data.len() <= CORRELATION_BYTES_MAX);
        let wish = Wish { topic, correlation };
        // The latest counts: whoever repeats a command awaits the answer anew.
        if wish != Wish::default() && self.known.insert(cmd_id.to_owned(), wish).is_none() {
            self.order.push_back(cmd_id.to_owned());
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        refused
    }

    /// What was wished for the answer to `cmd_id`.
    pub fn of(&self, cmd_id: &str) -> Wish {
        self.known.get(cmd_id).cloned().unwrap_or_default()
    }
}

/// A topic name, not a filter (MQTT 5, 4.7.1).
fn is_name(topic: &str) -> bool {
    !topic.contains(['+', '#', '\0']) && topic.len() < 65_536
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(topic: Option<&str>, correlation: Option<&[u8]>) -> Arrived {
        Arrived {
            topic: "gengfu/v1/s/g/cmd/ack/c1".into(),
            payload: Vec::new(),
            retained: false,
            response_topic: topic.map(str::to_owned),
            correlation: correlation.map(<[u8]>::to_vec),
        }
    }

    fn own() -> [String; 2] {
        ["gengfu/v1/s/g/reply/".into(), "gengfu/v1/s/dispatch/".into()]
    }

    #[test]
    fn answers_go_only_where_the_gateway_and_its_centre_are_at_home() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.note("c1", &arrived(Some("gengfu/v1/s/dispatch/answers/7"), Some(b"x")), &own()), None);
        let wish = wishes.of("c1");
        assert_eq!(
            (wish.topic.as_deref(), wish.correlation.as_deref()),
            (Some("gengfu/v1/s/dispatch/answers/7"), Some(&b"x"[..]))
        );
        for foreign in ["gengfu/v1/s/other/cmd/reset/1", "gengfu/v1/s/dispatch/#", "x", "gengfu/v1/s/g/event"] {
            assert_eq!(wishes.note("c2", &arrived(Some(foreign), None), &own()), Some(foreign));
            assert_eq!(wishes.of("c2"), Wish::default());
        }
    }

    #[test]
    fn correlation_is_kept_for_the_last_commands_and_of_sensible_length() {
        let mut wishes = Wishes::default();
        wishes.note("long", &arrived(None, Some(&[0; 1025])), &own());
        assert_eq!(wishes.of("long"), Wish::default());
        for n in 0..=REMEMBERED {
            wishes.note(&format!("c{n}"), &arrived(None, Some(b"x")), &own());
        }
        assert_eq!((wishes.of("c0"), wishes.of("c1").correlation), (Wish::default(), Some(b"x".to_vec())));
        assert_eq!((wishes.known.len(), wishes.order.len()), (REMEMBERED, REMEMBERED));
    }
}
