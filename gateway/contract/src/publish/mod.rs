//! The contract as documents: JSON Schema, AsyncAPI, topic reference, access rules of brokers.
//!
//! Owns the one list of channels ([`channels`]) from which all of them are written, and their text. Refuses to write files: the example
//! `generate` does, and a test compares what is committed with what is written here.

mod acl;
mod asyncapi;
mod examples;
mod reference;
mod schema;

pub use acl::{Party, mosquitto, nats, rabbitmq};
pub use asyncapi::asyncapi;
pub use examples::examples;
pub use schema::{Body, schemas};

/// Who publishes on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A gateway.
    Gateway,
    /// The dispatch centre's software.
    Centre,
}

/// One kind of topic.
#[derive(Debug, Clone, Copy)]
pub struct Channel {
    /// Its name in the documents.
    pub name: &'static str,
    /// Below `gengfu/v1/{site}/{gateway}/`, or below `gengfu/v1/{site}/` for the centre's presence; parameters in braces.
    pub address: &'static str,
    /// Who publishes.
    pub from: From,
    /// Retained by the broker.
    pub retain: bool,
    /// What it is for, one sentence.
    pub summary: &'static str,
    /// The body; `None` for bytes of a picture.
    pub body: Option<Body>,
}

/// One committed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Path in the repository.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// Every channel of the contract, in the order of the documents. All are QoS 1.
#[must_use]
pub fn channels() -> Vec<Channel> {
    let up = |name, address, retain, summary, body| Channel {
        name,
        address,
        from: From::Gateway,
        retain,
        summary,
        body: Some(body),
    };
    let picture =
        |name, address, summary| Channel { name, address, from: From::Gateway, retain: false, summary, body: None };
    let down = |body: Body| Channel {
        name: body.name(),
        address: body.address(),
        from: From::Centre,
        retain: false,
        summary: body.summary(),
        body: Some(body),
    };
    let mut all = vec![
        up(
            "status",
            "status",
            true,
            "Is the gateway there; also its will. A dead one is known within 90 s.",
            Body::Status,
        ),
        up(
            "event",
            "event",
            false,
            "The journal: every transition of an alarm, every observation, every answered command. Gapless, hash-chained.",
            Body::Event,
        ),
        up("alarm", "alarm/{alarm_id}", true, "An open alarm as it stands; emptied when it is over.", Body::Alarm),
        up("device", "device/{device_id}", true, "The last known state of a device.", Body::Device),
        picture(
            "evidence",
            "evidence/{id}/{n}",
            "Picture n of an alarm, or of a `snapshot` command, whole. Its SHA-256 stands in the event or the reply.",
        ),
        picture(
            "evidencePart",
            "evidence/{id}/{n}/{part}/{parts}",
            "Part of a picture larger than the broker takes at once: bytes only; join parts 1 to {parts}, then check the SHA-256.",
        ),
        up(
            "statement",
            "statement",
            true,
            "Every minute: what exists, what is pending, what was dropped, the journal's head.",
            Body::Statement,
        ),
        up(
            "reply",
            "reply/{cmd_id}",
            false,
            "The answer to a command; an accepted one may be followed by a final one.",
            Body::Reply,
        ),
    ];
    all.extend(Body::commands().into_iter().map(down));
    all.push(Channel {
        name: "dispatchStatus",
        address: "dispatch/status",
        from: From::Centre,
        retain: true,
        summary: "The centre's presence; also its will. Gateways that have seen it die behave as if no receipt came.",
        body: Some(Body::DispatchStatus),
    });
    all
}

impl Channel {
    /// The whole address with parameters in braces.
    #[must_use]
    pub fn full_address(&self) -> String {
        let gateway = if self.address.starts_with("dispatch/") { "" } else { "{gateway}/" };
        format!("{}/{{site}}/{gateway}{}", crate::topic::ROOT, self.address)
    }

    /// The names in braces, in order.
    #[must_use]
    pub fn parameters(&self) -> Vec<String> {
        let address = self.full_address();
        let mut names = Vec::new();
        for piece in address.split('{').skip(1) {
            names.extend(piece.split('}').next().map(str::to_owned));
        }
        names
    }
}

/// The parties of the access rules that are committed: one site with two gateways, and the centre.
#[must_use]
pub fn sample_parties() -> Vec<Party> {
    vec![Party::new("spring-street", "gw-01"), Party::new("spring-street", "gw-02")]
}

/// Every committed document.
#[must_use]
pub fn documents() -> Vec<Document> {
    let pretty = |value: &serde_json::Value| format!("{value:#}\n");
    let document = |path: &str, text: String| Document { path: path.to_owned(), text };
    let mut all: Vec<Document> = Body::all()
        .into_iter()
        .map(|body| document(&format!("docs/contract/schema/{}.json", body.file()), pretty(&body.schema())))
        .collect();
    all.push(document("docs/contract/asyncapi.json", pretty(&asyncapi())));
    all.extend(reference::pages().map(|(name, text)| document(&format!("docs/contract/{name}"), text)));
    let parties = sample_parties();
    all.push(document("config/broker/acl", mosquitto(&parties)));
    all.push(document("config/broker/nats-permissions.conf", nats(&parties)));
    all.push(document("config/broker/rabbitmq-definitions.json", pretty(&rabbitmq(&parties))));
    all
}
