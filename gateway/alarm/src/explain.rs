//! Why a rule decided as it did, in two languages and with its numbers. Owns the building of an explanation; refuses to decide.

use std::collections::BTreeMap;

use gengfu_contract::event::Explanation;
use gengfu_contract::words::Text;
use serde_json::Value;

/// An explanation being written. Inputs are whole numbers, texts and lists, never fractions, so that they survive any JSON
/// library unchanged; names end in their unit.
#[derive(Debug, Clone)]
pub(crate) struct Why {
    rule: &'static str,
    text: Text,
    inputs: BTreeMap<String, Value>,
}

impl Why {
    pub fn new(rule: &'static str, zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { rule, text: Text { zh: zh.into(), en: en.into() }, inputs: BTreeMap::new() }
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.inputs.insert(name.to_owned(), value.into());
        self
    }

    /// The explanation of a fresh alarm.
    pub fn fresh(self) -> Explanation {
        Explanation { rule: self.rule.to_owned(), text: self.text, inputs: self.inputs }
    }

    /// Says the newest, and keeps every input that led here.
    pub fn add_to(self, explanation: &mut Explanation) {
        self.rule.clone_into(&mut explanation.rule);
        explanation.text = self.text;
        explanation.inputs.extend(self.inputs);
    }
}
