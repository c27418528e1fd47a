//! Names that appear in topics: sites, gateways, devices, zones.
//!
//! Owns the one rule for such a name, so that nothing that would need escaping in a topic, a file
//! name or a metric label ever gets in. Refuses to repair a bad name: it is refused at configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A lower-case name of 1 to 48 characters: `a-z`, `0-9` and inner hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

impl JsonSchema for Slug {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Slug".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$" })
    }
}

/// Why a name is not a [`Slug`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" is not a name: use 1 to 48 of a-z, 0-9 and inner hyphens, as in \"block-7\"")]
pub struct SlugError {
    name: String,
}

impl Slug {
    /// Longest name accepted, in bytes.
    pub const MAX_BYTES: usize = 48;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`SlugError`] for anything but 1 to 48 of `a-z`, `0-9` and inner hyphens.
    pub fn new(name: impl Into<String>) -> Result<Self, SlugError> {
        let name = name.into();
        let bytes = name.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        if bytes.len() <= Self::MAX_BYTES && bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
            Ok(Self(name))
        } else {
            Err(SlugError { name })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl TryFrom<String> for Slug {
    type Error = SlugError;
    fn try_from(name: String) -> Result<Self, SlugError> {
        Self::new(name)
    }
}

impl std::str::FromStr for Slug {
    type Err = SlugError;
    fn from_str(name: &str) -> Result<Self, SlugError> {
        Self::new(name)
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> String {
        slug.0
    }
}

impl std::borrow::Borrow<str> for Slug {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_that_need_no_escaping() {
        for name in ["a", "block-7", "0", "gw-0012-east"] {
            assert_eq!(Slug::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_a_topic_a_file_or_a_label_would_have_to_escape() {
        for name in ["", "-a", "a-", "A", "a b", "a/b", "a+b", "#", "楼", &"x".repeat(49)] {
            assert!(Slug::new(name).is_err(), "{name:?}");
        }
    }
}
