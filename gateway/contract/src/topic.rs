//! Topic names, built and parsed in one place.
//!
//! Owns `gengfu/v1/<site>/<gateway>/…`. Refuses anything that is not exactly one of the contract's topics:
//! a parse of a foreign topic is `None`, never a guess.

use crate::slug::Slug;

/// The first two levels of every topic.
pub const ROOT: &str = "gengfu/v1";

/// The topics of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    site: Slug,
    base: String,
}

/// What a gateway publishes, as a desk sees it arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// Gateway status (retained; also its will).
    Status,
    /// An event of the journal.
    Event,
    /// Snapshot of an open alarm (retained; empty when over).
    Alarm(String),
    /// Last state of a device (retained).
    Device(String),
    /// Picture `n` of an alarm (or of a `snapshot` command), whole.
    Evidence(String, u32),
    /// A part of a picture that is larger than the broker takes at once ([`crate::evidence`]).
    EvidencePart {
        /// The alarm, or the command.
        id: String,
        /// The picture's number.
        n: u32,
        /// The part's number, from 1.
        part: u32,
        /// How many there are.
        parts: u32,
    },
    /// The gateway's statement of what it has sent (retained).
    Statement,
    /// Answer to a command.
    Reply(String),
}

impl Topics {
    /// Topics of `gateway` at `site`.
    #[must_use]
    pub fn new(site: &Slug, gateway: &Slug) -> Self {
        Self { site: site.clone(), base: format!("{ROOT}/{site}/{gateway}") }
    }

    /// `…/status`.
    #[must_use]
    pub fn status(&self) -> String {
        format!("{}/status", self.base)
    }

    /// `…/event`.
    #[must_use]
    pub fn event(&self) -> String {
        format!("{}/event", self.base)
    }

    /// `…/alarm/<alarm_id>`.
    #[must_use]
    pub fn alarm(&self, alarm_id: &str) -> String {
        format!("{}/alarm/{alarm_id}", self.base)
    }

    /// `…/device/<device_id>`.
    #[must_use]
    pub fn device(&self, device: &Slug) -> String {
        format!("{}/device/{device}", self.base)
    }

    /// `…/evidence/<alarm_id>/<n>`.
    #[must_use]
    pub fn evidence(&self, alarm_id: &str, n: u32) -> String {
        format!("{}/evidence/{alarm_id}/{n}", self.base)
    }

    /// `…/evidence/<alarm_id>/<n>/<part>/<parts>`: part `part` of `parts`, from 1.
    #[must_use]
    pub fn evidence_part(&self, alarm_id: &str, n: u32, part: u32, parts: u32) -> String {
        format!("{}/evidence/{alarm_id}/{n}/{part}/{parts}", self.base)
    }

    /// `…/statement`.
    #[must_use]
    pub fn statement(&self) -> String {
        format!("{}/statement", self.base)
    }

    /// `…/reply/<cmd_id>`.
    #[must_use]
    pub fn reply(&self, cmd_id: &str) -> String {
        format!("{}/reply/{cmd_id}", self.base)
    }

    /// `…/cmd/<verb>/<cmd_id>`.
    #[must_use]
    pub fn command(&self, verb: &str, cmd_id: &str) -> String {
        format!("{}/cmd/{verb}/{cmd_id}", self.base)
    }

    /// Filter for all commands to this gateway.
    #[must_use]
    pub fn command_filter(&self) -> String {
        format!("{}/cmd/+/+", self.base)
    }

    /// Presence of the site's dispatch centre.
    #[must_use]
    pub fn dispatch_status(&self) -> String {
        dispatch_status(&self.site)
    }

    /// Verb and command id of a topic that matches [`Self::command_filter`].
    #[must_use]
    pub fn parse_command<'t>(&self, topic: &'t str) -> Option<(&'t str, &'t str)> {
        let rest = topic.strip_prefix(&self.base)?.strip_prefix("/cmd/")?;
        let (verb, cmd_id) = rest.split_once('/')?;
        (!verb.is_empty() && !cmd_id.is_empty() && !cmd_id.contains('/')).then_some((verb, cmd_id))
    }
}

/// `gengfu/v1/<site>/dispatch/status`.
#[must_use]
pub fn dispatch_status(site: &Slug) -> String {
    format!("{ROOT}/{site}/dispatch/status")
}

/// Filter for everything the gateways of a site publish. It also matches commands and the desk's own presence,
/// which [`parse_up`] answers with `None`.
#[must_use]
pub fn site_filter(site: &Slug) -> String {
    format!("{ROOT}/{site}/+/#")
}

/// Gateway and kind of a topic published by a gateway of `site`.
#[must_use]
pub fn parse_up(site: &Slug, topic: &str) -> Option<(Slug, Up)> {
    let rest = topic.strip_prefix(ROOT)?.strip_prefix('/')?.strip_prefix(site.as_str())?.strip_prefix('/')?;
    let (gateway, rest) = rest.split_once('/')?;
    if gateway == "dispatch" {
        return None;
    }
    let mut parts = rest.split('/');
    let mut word = || parts.next();
    let kind = match (word()?, word(), word()) {
        ("status", None, None) => Up::Status,
        ("event", None, None) => Up::Event,
        ("statement", None, None) => Up::Statement,
        ("alarm", Some(id), None) => Up::Alarm(id.to_owned()),
        ("device", Some(id), None) => Up::Device(id.to_owned()),
        ("reply", Some(id), None) => Up::Reply(id.to_owned()),
        ("evidence", Some(id), Some(n)) => {
            let (id, n) = (id.to_owned(), n.parse().ok()?);
            match (word(), word(), word()) {
                (None, None, None) => Up::Evidence(id, n),
                (Some(part), Some(parts), None) => {
                    Up::EvidencePart { id, n, part: part.parse().ok()?, parts: parts.parse().ok()? }
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((Slug::new(gateway).ok()?, kind))
}

/// The contract's major a topic names, when it is not ours: "gengfu/v2/…" is 2. For a clear word instead of silence.
#[must_use]
pub fn foreign_major(topic: &str) -> Option<u32> {
    let major = topic.strip_prefix("gengfu/v")?.split('/').next()?.parse().ok()?;
    (major != crate::CONTRACT_MAJOR).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_builds_a_desk_parses() {
        let (site, gateway) = (Slug::new("jinding").unwrap(), Slug::new("gw-1").unwrap());
        let topics = Topics::new(&site, &gateway);
        let device = Slug::new("door-1").unwrap();
        for (topic, up) in [
            (topics.status(), Up::Status),
            (topics.event(), Up::Event),
            (topics.statement(), Up::Statement),
            (topics.alarm("01A"), Up::Alarm("01A".into())),
            (topics.device(&device), Up::Device("door-1".into())),
            (topics.evidence("01A", 2), Up::Evidence("01A".into(), 2)),
            (topics.evidence_part("01A", 2, 3, 8), Up::EvidencePart { id: "01A".into(), n: 2, part: 3, parts: 8 }),
            (topics.reply("c1"), Up::Reply("c1".into())),
        ] {
            assert_eq!(parse_up(&site, &topic), Some((gateway.clone(), up)), "{topic}");
        }
        assert_eq!(topics.parse_command(&topics.command("ack", "c1")), Some(("ack", "c1")));
    }

    #[test]
    fn a_topic_of_another_major_says_which() {
        assert_eq!(foreign_major("gengfu/v2/jinding/gw-1/event"), Some(2));
        for ours in ["gengfu/v1/jinding/gw-1/event", "other/v2/x", "gengfu/vx/y"] {
            assert_eq!(foreign_major(ours), None, "{ours}");
        }
    }

    #[test]
    fn foreign_topics_are_none() {
        let (site, gateway) = (Slug::new("jinding").unwrap(), Slug::new("gw-1").unwrap());
        for topic in [
            "gengfu/v2/jinding/gw-1/event",
            "gengfu/v1/jinding2/gw-1/event",
            "gengfu/v1/jinding/dispatch/status",
            "gengfu/v1/jinding/gw-1/event/x",
            "gengfu/v1/jinding/gw-1/evidence/a/b",
            "gengfu/v1/jinding/gw-1/evidence/a/1/2",
            "gengfu/v1/jinding/gw-1/evidence/a/1/2/3/4",
            "gengfu/v1/jinding/gw-1/evidence/a/1/x/3",
            "gengfu/v1/jinding/GW/event",
            "",
        ] {
            assert_eq!(parse_up(&site, topic), None, "{topic}");
        }
        assert_eq!(Topics::new(&site, &gateway).parse_command("gengfu/v1/jinding/gw-1/cmd/ack/a/b"), None);
        assert_eq!(Topics::new(&site, &gateway).parse_command("gengfu/v1/jinding/gw-11/cmd/ack/a"), None);
    }
}
