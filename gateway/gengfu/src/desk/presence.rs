//! Is a gateway there: what it says, what the broker says for it, and its silence.
//!
//! Owns the judgement. A dead gateway is known within 90 s by one of two ways: the broker publishes its will when the connection breaks
//! or falls silent, and a gateway that states its journal every minute and is not heard for 90 s is silent, whatever its status says.
//! Pure. While the desk itself has no connection it refuses to say anything about gateways.

use std::time::Duration;

use gengfu_contract::state::Presence;
use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::Serialize;

use crate::uplink::backoff::later;

/// A gateway that is online and not heard for this long is silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(90);
/// A gateway that is online and has not stated its journal for this long: two statements are missing.
pub const NO_STATEMENT_AFTER: Duration = Duration::from_secs(150);

/// Is it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum There {
    /// It says so, and is heard.
    Online,
    /// It says that it comes back soon.
    Updating,
    /// It said that it goes, or its connection broke.
    Offline,
    /// It did not say that it goes, and is not heard.
    Silent,
    /// It has not said anything, or the desk has no connection.
    Unknown,
}

impl There {
    /// The word for people.
    #[must_use]
    pub fn text(self) -> Text {
        let (zh, en) = match self {
            There::Online => ("在线", "online"),
            There::Updating => ("升级中", "updating"),
            There::Offline => ("离线", "offline"),
            There::Silent => ("无声", "silent"),
            There::Unknown => ("未知", "unknown"),
        };
        Text { zh: zh.into(), en: en.into() }
    }
}

/// What is known of a gateway's presence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signs {
    /// What its status says, and when that came.
    pub said: Option<(Presence, Timestamp)>,
    /// When anything that was not retained came from it.
    pub heard_at: Option<Timestamp>,
    /// Since when the desk is connected.
    pub connected_at: Option<Timestamp>,
}

/// Is it there, and since when is that so.
#[must_use]
pub fn judge(signs: &Signs, now: Timestamp) -> (There, Option<Timestamp>) {
    let Some(connected_at) = signs.connected_at else { return (There::Unknown, None) };
    let Some((said, said_at)) = signs.said else { return (There::Unknown, Some(connected_at)) };
    let since = Some(said_at);
    match said {
        Presence::Offline => (There::Offline, since),
        Presence::Updating => (There::Updating, since),
        Presence::Online => {
            let heard_at = signs.heard_at.unwrap_or(connected_at).max(connected_at);
            if later(heard_at, SILENT_AFTER) <= now { (There::Silent, Some(heard_at)) } else { (There::Online, since) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gengfu_contract::testing::at;

    fn signs(said: Option<Presence>, heard: Option<i64>, connected: Option<i64>) -> Signs {
        Signs { said: said.map(|said| (said, at(10))), heard_at: heard.map(at), connected_at: connected.map(at) }
    }

    #[test]
    fn a_will_is_believed_at_once() {
        assert_eq!(judge(&signs(Some(Presence::Offline), Some(9), Some(0)), at(10)), (There::Offline, Some(at(10))));
    }

    #[test]
    fn a_gateway_that_is_not_heard_for_90_seconds_is_silent_whatever_it_said() {
        let online = signs(Some(Presence::Online), Some(100), Some(0));
        assert_eq!(judge(&online, at(189)).0, There::Online);
        assert_eq!(judge(&online, at(190)), (There::Silent, Some(at(100))));
    }

    #[test]
    fn silence_is_counted_only_while_the_desk_could_hear() {
        let online = signs(Some(Presence::Online), Some(100), Some(1000));
        assert_eq!(judge(&online, at(1089)).0, There::Online);
        assert_eq!(judge(&online, at(1090)), (There::Silent, Some(at(1000))));
        assert_eq!(judge(&signs(Some(Presence::Online), Some(100), None), at(5000)), (There::Unknown, None));
    }
}
