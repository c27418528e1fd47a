//! The topic reference for people (`docs/contract/*.md`).
//!
//! Owns its text, written from the channels and the schemas, so that it cannot say something else than they do.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Body, From, channels, examples::examples};

const WRITTEN: &str = "Written by `cargo run -p gengfu-contract --example generate` from the crate `gateway/contract`; do not edit it. The entry for\n\
                       developers is [contract.md](../contract.md).";

/// The pages: file name and text. Topics and what a gateway says; what the centre says; shapes and words of both.
pub(super) fn pages() -> [(&'static str, String); 3] {
    let mut topics = format!(
        "# Topics, and what a gateway says\n\n{WRITTEN} Everything is QoS 1. Times are RFC 3339 in UTC. Members that are\n\
         not listed here must be ignored and kept.\n\n| topic | from | retained | body |\n|---|---|---|---|\n",
    );
    for channel in channels() {
        let from = if channel.from == From::Gateway { "gateway" } else { "centre" };
        let retained = if channel.retain { "yes" } else { "no" };
        let page = if channel.from == From::Gateway { "" } else { "commands.md" };
        let body = channel.body.map_or("JPEG bytes".to_owned(), |body| format!("[{0}]({page}#{0})", body.file()));
        let _ = writeln!(topics, "| `{}` | {from} | {retained} | {body} |", channel.full_address());
    }
    let mut commands = format!("# What the centre says\n\n{WRITTEN}\n");
    let mut shapes = format!("# Shapes and words\n\n{WRITTEN}\n");
    let mut told = Map::new();
    for body in Body::all() {
        let page = if body.is_from_gateway() { &mut topics } else { &mut commands };
        self::body(page, body, &mut told);
    }
    for (name, schema) in &told {
        shape(&mut shapes, &format!("## {name}"), schema);
    }
    [("topics.md", topics), ("commands.md", commands), ("shapes.md", shapes)]
}

fn body(page: &mut String, body: Body, told: &mut Map<String, Value>) {
    let schema = body.schema();
    let _ = writeln!(page, "\n## {}", body.file());
    for channel in channels().into_iter().filter(|channel| channel.body == Some(body)) {
        let retained = if channel.retain { ", retained" } else { "" };
        let _ = writeln!(page, "\n`{}` (QoS 1{retained}). {}", channel.full_address(), channel.summary);
    }
    let definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
    let root = root_name(&schema);
    for (name, definition) in definitions {
        if Some(&name) == root.as_ref() {
            shape(page, "", &definition);
        } else {
            told.entry(name).or_insert(definition);
        }
    }
    if body == Body::Event {
        page.push_str(
            "\n`data` is an [AlarmData](shapes.md#alarmdata) for `gengfu.alarm.*`, [ObservedData](shapes.md#observeddata) for `gengfu.device.observed.v1`,\n\
             [GatewayData](shapes.md#gatewaydata) for `gengfu.gateway.started.v1`, [CommandData](shapes.md#commanddata) for `gengfu.command.answered.v1`.\n",
        );
    }
    for example in examples().into_iter().filter(|example| example.body == body) {
        let _ = writeln!(page, "\n{}:\n\n```json\n{:#}\n```", example.name, example.value);
    }
}

/// The type a document is about: the first reference in it.
fn root_name(schema: &Value) -> Option<String> {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"))?;
    reference.as_str()?.rsplit('/').next().map(str::to_owned)
}

fn shape(page: &mut String, heading: &str, schema: &Value) {
    let about = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    if !heading.is_empty() {
        let _ = writeln!(page, "\n{heading}\n\n{}", plain(&about));
    }
    if let Some(properties) = schema["properties"].as_object() {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let _ = writeln!(page, "\n| member | type | always | meaning |\n|---|---|---|---|");
        for (name, property) in properties {
            let always = if required.contains(&name.as_str()) { "yes" } else { "" };
            let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ");
            let _ = writeln!(page, "| `{name}` | {} | {always} | {} |", type_of(property), plain(&meaning));
        }
        return;
    }
    let words = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if let Some(words) = words {
        let _ = writeln!(page, "\n| word | meaning |\n|---|---|");
        for word in words {
            let text = word["const"].as_str().map_or("*any other*".to_owned(), |text| format!("`{text}`"));
            let meaning = word["description"].as_str().unwrap_or_default().replace('\n', " ");
            let _ = writeln!(page, "| {text} | {} |", plain(&meaning));
        }
    }
}

/// Rust's links in descriptions mean nothing to a reader of this page.
fn plain(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").replace("crate::", "").replace('|', "\\|")
}

fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](shapes.md#{})", name.to_lowercase());
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let names: Vec<String> = any.iter().filter(|one| one["type"] != "null").map(type_of).collect();
        return names.join(" or ");
    }
    match &schema["type"] {
        Value::String(one) if one == "array" => format!("list of {}", type_of(&schema["items"])),
        Value::String(one) if one == "object" && schema["additionalProperties"].is_object() => {
            format!("object of {}", type_of(&schema["additionalProperties"]))
        }
        Value::String(one) => match schema["format"].as_str() {
            Some("date-time") => "time".to_owned(),
            _ => one.clone(),
        },
        Value::Array(several) => {
            let name = several.iter().filter_map(Value::as_str).find(|one| *one != "null").unwrap_or("any");
            if schema["format"] == "date-time" { "time".to_owned() } else { name.to_owned() }
        }
        _ => "any".to_owned(),
    }
}
