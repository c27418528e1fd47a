//! Goal: the protocol's rules are one list, and each is proved somewhere.
//! Method: read the crate's documentation, the protocol document and the names of all tests of node and gateway's link.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Number and sentence of every line `- W01: ...` behind the given prefix.
fn rules(text: &str, prefix: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(prefix)?.strip_prefix("- W"));
    lines.filter_map(|line| line.split_once(": ")).map(|(n, rule)| (format!("W{n}"), rule.trim().to_owned())).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_document_says_the_same_rules_as_the_crate() {
    let in_crate = rules(&fs::read_to_string(root().join("firmware/wire/src/lib.rs")).unwrap(), "//! ");
    let in_document = rules(&fs::read_to_string(root().join("docs/wire-protocol.md")).unwrap(), "");
    assert_eq!(in_crate, in_document);
    let numbers: Vec<_> = (1..=in_crate.len()).map(|n| format!("W{n:02}")).collect();
    assert_eq!(in_crate.keys().cloned().collect::<Vec<_>>(), numbers, "numbers run from W01 without a gap");
    assert!(in_crate.values().all(|rule| rule.contains("SHALL")));
}

#[test]
fn every_rule_is_cited_by_a_test() {
    let mut files = Vec::new();
    for folder in ["firmware/wire", "firmware/node", "firmware/node-linux", "gateway/gengfu/src/link"] {
        rust_files(&root().join(folder), &mut files);
    }
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let rules = rules(&fs::read_to_string(root().join("firmware/wire/src/lib.rs")).unwrap(), "//! ");
    let cited = |number: &String| text.contains(&format!("fn {}_", number.to_lowercase()));
    let missing: Vec<_> = rules.keys().filter(|number| !cited(number)).collect();
    assert!(missing.is_empty(), "no test is named after {missing:?}");
}
