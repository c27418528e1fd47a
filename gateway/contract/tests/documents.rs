//! The committed documents are what the types say, and real validators find nothing in them.
//!
//! Method: compare every committed file with what the generator writes; judge the schemas by their own meta-schema, and examples and events
//! recorded from a real gateway (`tests/recorded`) by the schemas. The AsyncAPI document is judged by its official parser in `hil-tests`.

use std::path::{Path, PathBuf};

use gengfu_contract::chain;
use gengfu_contract::event::Event;
use gengfu_contract::publish::{Body, documents, examples};
use jsonschema::Validator;
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn validator(body: Body) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&body.schema())
        .unwrap_or_else(|e| panic!("{}: {e}", body.file()))
}

fn faults(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

#[test]
fn committed_documents_are_what_the_types_say() {
    for document in documents() {
        let committed = std::fs::read_to_string(repository().join(&document.path)).unwrap_or_default();
        assert!(
            committed == document.text,
            "{} is not what the types say: run `cargo run -p gengfu-contract --example generate` and commit it",
            document.path
        );
    }
}

#[test]
fn no_schema_is_left_over_from_a_body_that_is_gone() {
    let written: Vec<String> = documents().into_iter().map(|document| document.path).collect();
    for entry in std::fs::read_dir(repository().join("docs/contract/schema")).unwrap() {
        let path = format!("docs/contract/schema/{}", entry.unwrap().file_name().to_string_lossy());
        assert!(written.contains(&path), "{path}: no body has this schema; remove it");
    }
}

#[test]
fn every_schema_is_json_schema_2020_12() {
    for body in Body::all() {
        let schema = body.schema();
        assert!(
            jsonschema::meta::is_valid(&schema),
            "{}: {:?}",
            body.file(),
            jsonschema::meta::validate(&schema).err()
        );
    }
}

#[test]
fn every_body_has_an_example_and_every_example_fits() {
    for body in Body::all() {
        let validator = validator(body);
        let own: Vec<_> = examples().into_iter().filter(|example| example.body == body).collect();
        assert!(!own.is_empty(), "{} has no example", body.file());
        for example in own {
            assert_eq!(faults(&validator, &example.value), Vec::<String>::new(), "{}: {}", body.file(), example.name);
        }
    }
}

#[test]
fn a_schema_refuses_what_the_types_refuse_and_lets_pass_what_a_later_version_adds() {
    let validator = validator(Body::Event);
    let smoke = examples().into_iter().find(|example| example.body == Body::Event).unwrap().value;
    let with = |pointer: &str, value: Value| {
        let mut changed = smoke.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    let mut added = with("/type", json!("gengfu.alarm.merged.v1"));
    added["partition"] = json!(7);
    added["data"]["kind"] = json!("gas_leak");
    added["data"]["merged_into"] = json!("01B");
    for fine in [added, with("/data/kind", json!("gas_leak")), with("/sequence", json!("00000000000000001042"))] {
        assert_eq!(faults(&validator, &fine), Vec::<String>::new());
        assert!(Event::parse(&serde_json::to_vec(&fine).unwrap()).unwrap().alarm().is_ok());
    }
    let broken = [
        with("/type", json!("gengfu.alarm.raised.v2")),
        with("/type", json!("com.example.thing")),
        with("/lane", json!("express")),
        with("/time", json!("yesterday")),
        with("/data/condition", json!("BURNING")),
        with("/data/cap", json!({})),
        with("/data/alarm_id", json!(7)),
    ];
    for broken in broken {
        assert_ne!(faults(&validator, &broken), Vec::<String>::new(), "{broken}");
        let parsed = Event::parse(&serde_json::to_vec(&broken).unwrap());
        assert!(parsed.is_err() || parsed.unwrap().alarm().is_err(), "{broken}");
    }
    for pointer in ["/specversion", "/prevhash"] {
        assert_ne!(faults(&validator, &with(pointer, json!("2.0"))), Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn what_a_real_gateway_sent_fits_the_schemas() {
    let bodies = |name: &str| Body::all().into_iter().find(|body| body.file() == name).unwrap();
    let mut events = Vec::new();
    let recorded = include_str!("recorded/demo.jsonl");
    for line in recorded.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        let (topic, body) = (message["topic"].as_str().unwrap(), &message["body"]);
        let kind = topic.split('/').nth(4).unwrap();
        let name = if kind == "cmd" { format!("cmd-{}", topic.split('/').nth(5).unwrap()) } else { kind.to_owned() };
        assert_eq!(faults(&validator(bodies(&name)), body), Vec::<String>::new(), "{topic}");
        if kind == "event" {
            events.push(serde_json::to_vec(body).unwrap());
        }
    }
    assert!(events.len() > 10, "{} events say too little", events.len());
    for body in events {
        let event = Event::parse(&body).unwrap();
        assert_eq!(chain::hash(&chain::canonical(&event).unwrap()), chain::hash_of_body(&body).unwrap());
    }
}
