//! The AsyncAPI 3.0 document.
//!
//! Owns its shape. It describes the gateway as the application: what it sends and what it receives. Payloads are in AsyncAPI's own
//! dialect (a superset of JSON Schema draft 7), because that is what its tools read; the 2020-12 schemas lie beside it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Channel, From, channels, examples::examples};

const ABOUT: &str = "A Gengfu gateway reads sensors and cameras, decides on the spot what is an alarm, and brings every alarm to the dispatch \
centre until the centre confirms it. A PUBACK is the broker's word and ends nothing; only the centre's `receipt` ends a delivery. Everything is \
QoS 1 and may arrive twice: an event's `id` is the same in every copy. The same bytes travel on MQTT 5 and 3.1.1.";

/// The document.
#[must_use]
pub fn asyncapi() -> Value {
    let mut generator = SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let (mut addresses, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for channel in channels() {
        let mut message = message(&channel);
        if let Some(body) = channel.body {
            message["payload"] = body.schema_in(&mut generator).to_value();
        }
        messages.insert(channel.name.into(), message);
        addresses.insert(channel.name.into(), address(&channel));
        operations.insert(operation_name(&channel), operation(&channel));
    }
    let schemas: Map<String, Value> = generator.take_definitions(true);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Gengfu gateway",
            "version": crate::CONTRACT_VERSION,
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "district": {
                "host": "broker.example:8883",
                "protocol": "secure-mqtt",
                "protocolVersion": "5.0",
                "description": "The district's broker; MQTT 3.1.1 works as well. The certificate's common name is <site>.<gateway>.",
                "security": [{ "$ref": "#/components/securitySchemes/clientCertificate" }],
            },
        },
        "channels": addresses,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "parameters": parameters(),
            "securitySchemes": {
                "clientCertificate": { "type": "X509", "description": "Mutual TLS 1.2 or later; the key is made on the gateway and never leaves it." },
            },
        },
    })
}

fn message(channel: &Channel) -> Value {
    let mut message = json!({
        "name": channel.name,
        "title": channel.full_address(),
        "summary": channel.summary,
        "contentType": if channel.body.is_some() { "application/json" } else { "image/jpeg" },
    });
    if channel.name == "event" {
        message["contentType"] = json!("application/cloudevents+json");
    }
    let told: Vec<Value> = examples()
        .into_iter()
        .filter(|example| Some(example.body) == channel.body)
        .map(|example| json!({ "name": example.name, "payload": example.value }))
        .collect();
    if !told.is_empty() {
        message["examples"] = Value::Array(told);
    }
    message
}

fn address(channel: &Channel) -> Value {
    let parameters: Map<String, Value> = channel
        .parameters()
        .into_iter()
        .map(|name| (name.clone(), json!({ "$ref": format!("#/components/parameters/{name}") })))
        .collect();
    json!({
        "address": channel.full_address(),
        "description": channel.summary,
        "messages": { channel.name: { "$ref": format!("#/components/messages/{}", channel.name) } },
        "parameters": parameters,
    })
}

fn operation_name(channel: &Channel) -> String {
    let mut letters = channel.name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase()).unwrap_or_default();
    let verb = if channel.from == From::Gateway { "send" } else { "receive" };
    format!("{verb}{first}{}", letters.as_str())
}

fn operation(channel: &Channel) -> Value {
    let name = channel.name;
    let mut operation = json!({
        "action": if channel.from == From::Gateway { "send" } else { "receive" },
        "channel": { "$ref": format!("#/channels/{name}") },
        "summary": channel.summary,
        "messages": [{ "$ref": format!("#/channels/{name}/messages/{name}") }],
        "bindings": { "mqtt": { "qos": 1, "retain": channel.retain, "bindingVersion": "0.2.0" } },
    });
    if name.starts_with("command") && name != "commandReceipt" {
        operation["reply"] = json!({
            "channel": { "$ref": "#/channels/reply" },
            "messages": [{ "$ref": "#/channels/reply/messages/reply" }],
        });
    }
    operation
}

fn parameters() -> Value {
    json!({
        "site": { "description": "The site: 1 to 48 of a-z, 0-9 and inner hyphens.", "examples": ["spring-street"] },
        "gateway": { "description": "The gateway: 1 to 48 of a-z, 0-9 and inner hyphens; never \"dispatch\".", "examples": ["gw-01"] },
        "alarm_id": { "description": "ULID of the alarm.", "examples": ["01KAMH6Q5Z8D3V2W9X7YB4TSGN"] },
        "device_id": { "description": "The device's name.", "examples": ["smoke-301"] },
        "id": { "description": "ULID of the alarm, or the id of the `snapshot` command.", "examples": ["01KAMH6Q5Z8D3V2W9X7YB4TSGN"] },
        "n": { "description": "Number of the picture, from 1.", "examples": ["1"] },
        "part": { "description": "Number of the part, from 1.", "examples": ["1"] },
        "parts": { "description": "How many parts there are.", "examples": ["3"] },
        "cmd_id": { "description": "Chosen by the centre, unique for ever: a repeated id is answered as the first time.", "examples": ["c-20261122-0001"] },
    })
}
