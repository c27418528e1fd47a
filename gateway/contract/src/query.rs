//! The `query` command and its answers.
//!
//! Owns what can be asked, the shape of each answer, and how an answer that is too large for one message is cut into parts and put
//! together again. Refuses to know where the answers come from.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::{Outcome, Reply, Whereabouts};
use crate::slug::Slug;
use crate::words::{AlarmKind, CareLevel, words};

/// Largest part of an answer, bytes of JSON. Below the smallest limit we met on a broker in the field (256 KB).
pub const PART_MAX_BYTES: usize = 240 * 1024;
/// Most events one answer to `journal` holds; ask again from the next sequence.
pub const JOURNAL_MAX_EVENTS: u64 = 1000;
/// Most parts a joiner takes: 24 MB, far above what a gateway can know.
const PARTS_MAX: u32 = 100;

words! {
    /// What can be asked.
    QueryWhat: "snake_case" {
        /// Last activity of homes: [`HomeActivity`].
        Homes = "homes",
        /// Devices as on `device/<device_id>`: [`crate::state::DeviceState`].
        Devices = "devices",
        /// Open alarms as on `alarm/<alarm_id>`: [`crate::state::AlarmSnapshot`].
        Alarms = "alarms",
        /// Events of the journal, as they were journaled: [`crate::event::Event`]. How a centre fetches what it lacks.
        Journal = "journal",
    }
}

/// Body of `query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueryCommand {
    /// What is asked.
    pub what: QueryWhat,
    /// About these devices (for `homes` the magnets on the doors); empty for all. Not for `journal`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Slug>,
    /// For `journal`: from this sequence; absent from the first that is still kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_sequence: Option<u64>,
    /// For `journal`: to this sequence; absent to the last. At most 1,000 events are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_sequence: Option<u64>,
    /// Who, as the centre names its people; opaque here.
    pub operator: String,
    /// When the command was given.
    pub issued_at: Timestamp,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// `data` of the reply to `query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueryData {
    /// What was asked.
    pub what: QueryWhat,
    /// The answers of this part, in the shape `what` says.
    pub items: Vec<Value>,
}

/// One home, as its door magnet tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HomeActivity {
    /// The magnet on the door.
    pub door: Slug,
    /// Opaque reference on the centre's register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_ref: Option<String>,
    /// "open", "closed" or "unknown".
    pub state: String,
    /// When the door was last opened; absent when never seen. Nobody can tell who went which way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_opened_at: Option<Timestamp>,
    /// When the magnet was last heard; absent when never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard_at: Option<Timestamp>,
    /// Share of the last week in which an opening would have been noticed, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_percent: Option<u8>,
    /// How far a not-opened alarm has gone; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<CareLevel>,
    /// Set while the home's clock stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<HomePause>,
    /// Open troubles of the magnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<AlarmKind>,
}

/// Why a home's clock stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HomePause {
    /// What is known of the person.
    pub what: Whereabouts,
    /// Until when.
    pub until: Timestamp,
    /// Who said so.
    pub operator: String,
}

/// Cuts an answer into replies whose `data` is at most `part_max_bytes` of JSON each; one item alone may be larger. An empty answer is one
/// reply with no items. Use [`PART_MAX_BYTES`].
#[must_use]
pub fn replies(cmd_id: &str, at: Timestamp, what: QueryWhat, items: Vec<Value>, part_max_bytes: usize) -> Vec<Reply> {
    let mut groups: Vec<Vec<Value>> = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        let size = item.to_string().len() + 1;
        if bytes > 0 && bytes + size > part_max_bytes {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(group) = groups.last_mut() {
            group.push(item);
        }
    }
    let parts = u32::try_from(groups.len()).unwrap_or(u32::MAX);
    let numbered = (1..).zip(groups);
    numbered
        .map(|(part, items)| Reply {
            data: serde_json::to_value(QueryData { what, items }).ok(),
            part: (parts > 1).then_some(part),
            parts: (parts > 1).then_some(parts),
            ..Reply::new(cmd_id, Outcome::Done, None, at)
        })
        .collect()
}

/// Puts the parts of one answer together again, in whatever order and however often they come.
#[derive(Debug, Clone, Default)]
pub struct ReplyJoiner {
    parts: Vec<Option<QueryData>>,
}

/// Why a reply is no part of an answer.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// It has no `data` of a query.
    #[error("reply {cmd_id} is no answer to a query: {why}")]
    NoAnswer {
        /// The command.
        cmd_id: String,
        /// What was wrong.
        why: String,
    },
    /// Its numbers contradict each other or the parts before.
    #[error(
        "reply {cmd_id} says it is part {part} of {parts}, which does not fit: at most 100 parts, all of one answer"
    )]
    Numbers {
        /// The command.
        cmd_id: String,
        /// Part as told.
        part: u32,
        /// Parts as told.
        parts: u32,
    },
}

impl ReplyJoiner {
    /// Takes one reply; the whole answer's items when it was the last that was wanting.
    ///
    /// # Errors
    /// [`ReplyError`]; what was taken before stays.
    pub fn take(&mut self, reply: &Reply) -> Result<Option<Vec<Value>>, ReplyError> {
        let cmd_id = reply.cmd_id.clone();
        let (part, parts) = (reply.part.unwrap_or(1), reply.parts.unwrap_or(1));
        let fits = part >= 1 && part <= parts && parts <= PARTS_MAX;
        if !fits || !(self.parts.is_empty() || self.parts.len() == parts as usize) {
            return Err(ReplyError::Numbers { cmd_id, part, parts });
        }
        let Some(data) = &reply.data else {
            let why = reply.reason.as_ref().map_or("it has no data".to_owned(), |reason| reason.en.clone());
            return Err(ReplyError::NoAnswer { cmd_id, why });
        };
        let data =
            QueryData::deserialize(data).map_err(|error| ReplyError::NoAnswer { cmd_id, why: error.to_string() })?;
        self.parts.resize(parts as usize, None);
        if let Some(place) = self.parts.get_mut(part as usize - 1) {
            *place = Some(data);
        }
        if self.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.parts);
        Ok(Some(whole.into_iter().flatten().flat_map(|data| data.items).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(count: usize) -> Vec<Value> {
        let home = |n| HomeActivity {
            door: Slug::new(format!("door-{n}")).unwrap(),
            subject_ref: Some(format!("person-{n:05}")),
            state: "closed".into(),
            last_opened_at: Some("2026-11-22T08:00:00Z".parse().unwrap()),
            last_heard_at: Some("2026-11-22T08:30:00Z".parse().unwrap()),
            coverage_percent: Some(98),
            level: Some(CareLevel::Orange),
            pause: Some(HomePause {
                what: Whereabouts::Visited,
                until: "2026-11-22T10:00:00Z".parse().unwrap(),
                operator: "op-1".into(),
            }),
            troubles: vec![AlarmKind::LowBattery],
        };
        (0..count).map(|n| serde_json::to_value(home(n)).unwrap()).collect()
    }

    fn at() -> Timestamp {
        "2026-11-22T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn eight_hundred_homes_fit_in_two_parts_at_most_and_no_part_is_too_large() {
        let items = homes(800);
        let replies = replies("c1", at(), QueryWhat::Homes, items.clone(), PART_MAX_BYTES);
        assert!(replies.len() <= 2, "{}", replies.len());
        for reply in &replies {
            assert!(serde_json::to_vec(reply).unwrap().len() < 256 * 1024);
        }
        let mut joiner = ReplyJoiner::default();
        let joined = replies.iter().filter_map(|reply| joiner.take(reply).unwrap()).next_back();
        assert_eq!(joined.unwrap(), items);
    }

    #[test]
    fn parts_are_joined_in_any_order_with_repeats() {
        let items = homes(20);
        let parts = replies("c1", at(), QueryWhat::Homes, items.clone(), 1000);
        assert!(parts.len() > 3);
        let mut joiner = ReplyJoiner::default();
        for reply in parts.iter().skip(1).rev().chain(&parts[2..4]) {
            assert_eq!(joiner.take(reply).unwrap(), None);
        }
        assert_eq!(joiner.take(&parts[0]).unwrap().unwrap(), items);
    }

    #[test]
    fn an_empty_answer_is_one_reply_and_bad_numbers_are_refused() {
        let empty = replies("c1", at(), QueryWhat::Alarms, Vec::new(), 1000);
        assert_eq!((empty.len(), empty[0].parts), (1, None));
        assert_eq!(ReplyJoiner::default().take(&empty[0]).unwrap(), Some(Vec::new()));
        for (part, parts) in [(0, 1), (3, 2), (1, 101), (1, u32::MAX)] {
            let bad = Reply { part: Some(part), parts: Some(parts), ..empty[0].clone() };
            assert!(matches!(ReplyJoiner::default().take(&bad), Err(ReplyError::Numbers { .. })), "{part} of {parts}");
        }
        let refused = Reply { data: None, ..empty[0].clone() };
        assert!(matches!(ReplyJoiner::default().take(&refused), Err(ReplyError::NoAnswer { .. })));
    }
}
