//! Who may publish and read what, in the words of three brokers.
//!
//! Owns the rules, all from one table: a gateway writes its own subtree and reads its own commands, alarms, devices and events and the centre's
//! presence; the centre reads everything, writes commands and its presence. Everything else is refused. A client's user name is its
//! certificate's common name: `<site>.<gateway>`, or `dispatch`.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{From, channels};
use crate::topic::ROOT;

/// The centre's user name.
const CENTRE: &str = "dispatch";

/// One gateway of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    site: String,
    gateway: String,
}

impl Party {
    /// The gateway `gateway` of `site`; both must be names ([`crate::slug::Slug`]).
    #[must_use]
    pub fn new(site: impl Into<String>, gateway: impl Into<String>) -> Self {
        Self { site: site.into(), gateway: gateway.into() }
    }

    fn user(&self) -> String {
        format!("{}.{}", self.site, self.gateway)
    }

    /// Filters it writes.
    fn writes(&self) -> Vec<String> {
        let mut filters: Vec<String> = Vec::new();
        for channel in channels().into_iter().filter(|channel| channel.from == From::Gateway) {
            filters.push(self.filter(&channel.full_address()));
        }
        filters
    }

    /// Filters it reads: commands, what it left retained itself and may have to empty, its own events (on MQTT 3.1.1 a broker drops in silence what
    /// it does not take, and only a copy that comes back tells), and whether the centre is there.
    fn reads(&self) -> Vec<String> {
        let own = |below: &str| format!("{ROOT}/{}/{}/{below}", self.site, self.gateway);
        let below = ["cmd/+/+", "alarm/+", "device/+", "event", "statement"];
        below.into_iter().map(own).chain([format!("{ROOT}/{}/dispatch/status", self.site)]).collect()
    }

    fn filter(&self, address: &str) -> String {
        let named = address.replace("{site}", &self.site).replace("{gateway}", &self.gateway);
        let levels = named.split('/').map(|level| if level.starts_with('{') { "+" } else { level });
        levels.collect::<Vec<_>>().join("/")
    }
}

fn centre_writes() -> [String; 2] {
    [format!("{ROOT}/+/+/cmd/+/+"), format!("{ROOT}/+/dispatch/status")]
}

/// mosquitto's `acl_file`.
#[must_use]
pub fn mosquitto(gateways: &[Party]) -> String {
    let mut text = String::from(
        "# Who may publish and read what. Written by the contract's generator; for your own site and gateways:\n\
         #   cargo run -p gengfu-contract --example generate -- acl mosquitto spring-street gw-01 gw-02\n\
         # One block a gateway, because a broker does not expand a user name into two topic levels. Everything not named is refused.\n\n\
         # The centre's software reads everything, sends commands, and says that it is alive.\n",
    );
    let _ = writeln!(text, "user {CENTRE}\ntopic read {ROOT}/#");
    for filter in centre_writes() {
        let _ = writeln!(text, "topic write {filter}");
    }
    for party in gateways {
        let _ = writeln!(text, "\nuser {}", party.user());
        for filter in party.writes() {
            let _ = writeln!(text, "topic write {filter}");
        }
        // It empties what it left retained before a restart, and looks whether its events are passed on, so it reads its own.
        for filter in party.reads() {
            let _ = writeln!(text, "topic read {filter}");
        }
    }
    text
}

/// An MQTT filter as a NATS subject: levels are separated by dots.
fn subject(filter: &str) -> String {
    let levels = filter.split('/').map(|level| match level {
        "+" => "*",
        "#" => ">",
        level => level,
    });
    levels.collect::<Vec<_>>().join(".")
}

/// NATS: the `authorization` block of an account in which MQTT is spoken.
///
/// Source: NATS documentation, "MQTT" (topics and subjects; `$MQTT.sub.>` for QoS 1 subscriptions) and "TLS authentication" (a user is
/// named by its certificate's subject).
#[must_use]
pub fn nats(gateways: &[Party]) -> String {
    let mut text = String::from(
        "# Who may publish and read what on NATS servers that speak MQTT. Written by the contract's generator; for your own gateways:\n\
         #   cargo run -p gengfu-contract --example generate -- acl nats spring-street gw-01 gw-02\n\
         # `include` it in nats-server.conf beside `mqtt { tls { ..., verify_and_map: true } }`: a user is its certificate's subject.\n\
         # $MQTT.sub.> is where a server delivers QoS 1 subscriptions; without it none can be made.\n\
         authorization {\n  users: [\n",
    );
    let list = |filters: &[String]| {
        let subjects = filters.iter().flat_map(|filter| {
            // "a/#" is "a" and all below; a server asks for both.
            let parent = filter.strip_suffix("/#").map(subject);
            parent.into_iter().chain([subject(filter)])
        });
        subjects.map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
    };
    let mut user = |name: &str, writes: &[String], reads: &[String]| {
        let _ = writeln!(
            text,
            "    {{\n      user: \"CN={name}\"\n      permissions: {{\n        publish: {{ allow: [{}] }}\n        \
             subscribe: {{ allow: [{}, \"$MQTT.sub.>\"] }}\n      }}\n    }}",
            list(writes),
            list(reads)
        );
    };
    user(CENTRE, &centre_writes(), &[format!("{ROOT}/#")]);
    for party in gateways {
        user(&party.user(), &party.writes(), &party.reads());
    }
    text.push_str("  ]\n}\n");
    text
}

/// A regular expression for exactly what an MQTT filter matches, over RabbitMQ's routing keys, where levels are separated by dots.
fn routing_keys(filters: &[String]) -> String {
    let one = |filter: &String| {
        let levels = filter.split('/').map(|level| match level {
            "+" => r"[^.]+".to_owned(),
            "#" => r".*".to_owned(),
            level => level.to_owned(),
        });
        levels.collect::<Vec<_>>().join(r"\.")
    };
    format!("^({})$", filters.iter().map(one).collect::<Vec<_>>().join("|"))
}

/// RabbitMQ: a definitions file with users that log in by certificate, and their topic permissions.
///
/// Source: RabbitMQ documentation, "Access Control: Topic Authorisation" and "MQTT Plugin" (topics become routing keys on `amq.topic`; a
/// client's queue is called `mqtt-subscription-<client id>qos<n>`). What is refused closes the connection there.
#[must_use]
pub fn rabbitmq(gateways: &[Party]) -> Value {
    let (mut users, mut permissions, mut topics) = (Vec::new(), Vec::new(), Vec::new());
    let mut user = |name: &str, clients: &str, writes: &[String], reads: &[String]| {
        // No password: none is ever right, only the certificate is.
        users.push(json!({ "name": name, "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "" }));
        // Whoever may read another's queue reads another's commands: a gateway has its own only, named by the default client id.
        let queues = format!("mqtt-subscription-{clients}qos[01]");
        permissions.push(json!({
            "user": name, "vhost": "/",
            "configure": format!("^{queues}$"),
            "write": format!(r"^({queues}|amq\.topic)$"),
            "read": format!(r"^({queues}|amq\.topic)$"),
        }));
        topics.push(json!({
            "user": name, "vhost": "/", "exchange": "amq.topic", "write": routing_keys(writes), "read": routing_keys(reads),
        }));
    };
    // A subscription's filter is judged as it stands, so the centre's own wildcards are routing keys too.
    user(CENTRE, ".*", &centre_writes(), &[format!("{ROOT}/#")]);
    for party in gateways {
        let client = format!("gengfu-{}-{}", party.site, party.gateway);
        user(&party.user(), &client, &party.writes(), &party.reads());
    }
    json!({
        "vhosts": [{ "name": "/" }],
        "users": users,
        "permissions": permissions,
        "topic_permissions": topics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_writes_its_own_subtree_and_nothing_else() {
        let party = Party::new("spring-street", "gw-01");
        for filter in party.writes() {
            assert!(filter.starts_with("gengfu/v1/spring-street/gw-01/") && !filter.contains('#'), "{filter}");
            assert!(!filter.contains("/cmd/"), "{filter}");
        }
        assert!(party.writes().contains(&"gengfu/v1/spring-street/gw-01/evidence/+/+/+/+".to_owned()));
        assert!(party.reads().iter().all(|filter| filter.contains("/spring-street/")));
    }

    #[test]
    fn the_same_filter_in_the_words_of_three_brokers() {
        let filter = "gengfu/v1/s/g/cmd/+/+".to_owned();
        assert_eq!(subject(&filter), "gengfu.v1.s.g.cmd.*.*");
        assert_eq!(subject("gengfu/v1/#"), "gengfu.v1.>");
        assert_eq!(routing_keys(&[filter]), r"^(gengfu\.v1\.s\.g\.cmd\.[^.]+\.[^.]+)$");
    }
}
