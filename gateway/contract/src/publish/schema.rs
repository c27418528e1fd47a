//! JSON Schema 2020-12 of every body.
//!
//! Owns which Rust type stands behind each body, and what the derive cannot say: which data belongs to which type of event. A schema
//! allows members it does not know, as every reader must.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::command::{
    AlarmCommand, CaseCommand, ConfigCommand, Receipt, Reply, ShelveCommand, SnapshotCommand, SnapshotData,
    SounderCommand, TestCommand, UnshelveCommand, VERBS, VisitCommand,
};
use crate::event::{AlarmData, CommandData, Event, GatewayData, ObservedData};
use crate::query::{HomeActivity, QueryCommand, QueryData};
use crate::state::{AlarmSnapshot, DeviceState, DispatchStatus, GatewayStatus, Statement};

/// A body that travels as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// On `status`.
    Status,
    /// On `event`.
    Event,
    /// On `alarm/<alarm_id>`.
    Alarm,
    /// On `device/<device_id>`.
    Device,
    /// On `statement`.
    Statement,
    /// On `reply/<cmd_id>`.
    Reply,
    /// On `cmd/<verb>/<cmd_id>`; the number is the verb's place in [`VERBS`].
    Command(usize),
    /// On `dispatch/status`.
    DispatchStatus,
}

/// Name of a command's channel, its address, what it is for.
const COMMANDS: [(&str, &str, &str); 12] = [
    (
        "commandReceipt",
        "cmd/receipt/{cmd_id}",
        "The centre's software has these events and pictures, durably. The only thing that ends a delivery. Not answered.",
    ),
    ("commandAck", "cmd/ack/{cmd_id}", "A human has seen this alarm."),
    (
        "commandCase",
        "cmd/case/{cmd_id}",
        "How far the centre's case about this alarm has come. CLOSED while it is still so is answered `conflict`.",
    ),
    (
        "commandShelve",
        "cmd/shelve/{cmd_id}",
        "Alarms of one kind from one device do not count for a while: at most 8 h, never smoke or SOS.",
    ),
    ("commandUnshelve", "cmd/unshelve/{cmd_id}", "They count again."),
    ("commandReset", "cmd/reset/{cmd_id}", "A human ends a latched alarm whose cause is gone."),
    ("commandSnapshot", "cmd/snapshot/{cmd_id}", "A masked picture of now, on `evidence/<cmd_id>/1`."),
    ("commandQuery", "cmd/query/{cmd_id}", "What is known of homes, devices, open alarms, or the journal."),
    ("commandVisit", "cmd/visit/{cmd_id}", "Somebody is with a person, or the person is away or back."),
    ("commandSounder", "cmd/sounder/{cmd_id}", "Let a node sound, or be silent."),
    ("commandTest", "cmd/test/{cmd_id}", "Press a smoke head's test button, electrically."),
    (
        "commandConfig",
        "cmd/config/{cmd_id}",
        "A new configuration as a signed bundle; tried, kept only if the uplink comes back.",
    ),
];

impl Body {
    /// Every body, in the order of the documents.
    #[must_use]
    pub fn all() -> Vec<Body> {
        let mut all = vec![Body::Status, Body::Event, Body::Alarm, Body::Device, Body::Statement, Body::Reply];
        all.extend(Body::commands());
        all.push(Body::DispatchStatus);
        all
    }

    /// The bodies of all commands.
    #[must_use]
    pub fn commands() -> Vec<Body> {
        (0..VERBS.len()).map(Body::Command).collect()
    }

    /// Name of its file, without the ending.
    #[must_use]
    pub fn file(self) -> String {
        match self {
            Body::Status => "status".into(),
            Body::Event => "event".into(),
            Body::Alarm => "alarm".into(),
            Body::Device => "device".into(),
            Body::Statement => "statement".into(),
            Body::Reply => "reply".into(),
            Body::Command(n) => format!("cmd-{}", VERBS.get(n).copied().unwrap_or_default()),
            Body::DispatchStatus => "dispatch-status".into(),
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.command().0
    }

    pub(super) fn address(self) -> &'static str {
        self.command().1
    }

    pub(super) fn summary(self) -> &'static str {
        self.command().2
    }

    fn command(self) -> (&'static str, &'static str, &'static str) {
        let Body::Command(n) = self else { return Default::default() };
        COMMANDS.get(n).copied().unwrap_or_default()
    }

    /// True when a gateway writes it, so that members it always writes are required.
    pub(super) fn is_from_gateway(self) -> bool {
        !matches!(self, Body::Command(_) | Body::DispatchStatus)
    }

    /// The schema, in the dialect of `settings`.
    pub(super) fn schema_in(self, generator: &mut SchemaGenerator) -> Schema {
        fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
            generator.subschema_for::<T>()
        }
        match self {
            Body::Status => of::<GatewayStatus>(generator),
            Body::Event => event(generator),
            Body::Alarm => of::<AlarmSnapshot>(generator),
            Body::Device => of::<DeviceState>(generator),
            Body::Statement => of::<Statement>(generator),
            Body::Reply => reply(generator),
            Body::DispatchStatus => of::<DispatchStatus>(generator),
            Body::Command(n) => match VERBS.get(n).copied().unwrap_or_default() {
                "receipt" => of::<Receipt>(generator),
                "case" => of::<CaseCommand>(generator),
                "shelve" => of::<ShelveCommand>(generator),
                "unshelve" => of::<UnshelveCommand>(generator),
                "snapshot" => of::<SnapshotCommand>(generator),
                "query" => of::<QueryCommand>(generator),
                "visit" => of::<VisitCommand>(generator),
                "sounder" => of::<SounderCommand>(generator),
                "test" => of::<TestCommand>(generator),
                "config" => of::<ConfigCommand>(generator),
                _ => of::<AlarmCommand>(generator),
            },
        }
    }

    /// The schema as a document of its own, JSON Schema 2020-12.
    #[must_use]
    pub fn schema(self) -> Value {
        let settings = SchemaSettings::draft2020_12();
        let settings = if self.is_from_gateway() { settings.for_serialize() } else { settings };
        let mut generator = settings.into_generator();
        let schema = self.schema_in(&mut generator).to_value();
        let mut document = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": format!("urn:gengfu:contract:v{}:{}", crate::CONTRACT_MAJOR, self.file()),
        });
        if let (Some(document), Value::Object(members)) = (document.as_object_mut(), schema) {
            document.extend(members);
            document.insert("$defs".into(), Value::Object(generator.take_definitions(true)));
        }
        document
    }
}

/// Every body's file name and schema.
#[must_use]
pub fn schemas() -> Vec<(String, Value)> {
    Body::all().into_iter().map(|body| (body.file(), body.schema())).collect()
}

/// The envelope, and which data belongs to which type. A type of a later version may carry any data.
fn event(generator: &mut SchemaGenerator) -> Schema {
    let rule = |when: Value, data: Schema| {
        json!({
            "if": { "properties": { "type": when } },
            "then": { "properties": { "data": data } },
        })
    };
    let alarm = generator.subschema_for::<AlarmData>();
    let observed = generator.subschema_for::<ObservedData>();
    let started = generator.subschema_for::<GatewayData>();
    let command = generator.subschema_for::<CommandData>();
    let rules = [
        rule(json!({ "pattern": r"^gengfu\.alarm\." }), alarm),
        rule(json!({ "const": "gengfu.device.observed.v1" }), observed),
        rule(json!({ "const": "gengfu.gateway.started.v1" }), started),
        rule(json!({ "const": "gengfu.command.answered.v1" }), command),
    ];
    let envelope = generator.subschema_for::<Event>();
    let all: Vec<Value> = std::iter::once(envelope.to_value()).chain(rules).collect();
    Schema::try_from(json!({
        "allOf": all,
        "properties": { "type": { "pattern": r"^gengfu\..+\.v1$" } },
    }))
    .unwrap_or_default()
}

/// The reply, and what its data can be.
fn reply(generator: &mut SchemaGenerator) -> Schema {
    let data = [generator.subschema_for::<SnapshotData>(), generator.subschema_for::<QueryData>()];
    // Named by `what` in the data, so no reference leads there.
    generator.subschema_for::<HomeActivity>();
    let reply = generator.subschema_for::<Reply>();
    Schema::try_from(json!({
        "allOf": [reply],
        "properties": { "data": { "anyOf": [data[0], data[1], true] } },
    }))
    .unwrap_or_default()
}
