//! Event codes of national and local schemes, as data.
//!
//! Owns the shape of a code file (`config/codes/*.toml`), its check, and the choice of the code an alarm carries. Refuses to
//! read files: the caller hands over what it has parsed. No code stands in the program.

use std::collections::BTreeSet;

use gengfu_contract::event::{Code, Location};
use gengfu_contract::words::AlarmKind;
use serde::{Deserialize, Serialize};

/// One file of `config/codes/`: one edition of one scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeFile {
    /// As in "GB/T 47678.5".
    pub scheme: String,
    /// Edition, as in "2026".
    pub version: String,
    /// Name of the standard or of who keeps the list.
    pub title: String,
    /// True when the code on the wire begins with the six digits of the administrative division (GB/T 2260).
    #[serde(default)]
    pub division_prefix: bool,
    /// What can be said in it.
    pub matter: Vec<Matter>,
}

/// One entry of a scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matter {
    /// The code without the division's digits.
    pub code: String,
    /// The scheme's own words.
    pub zh: String,
    /// In English.
    pub en: String,
    /// The alarm that carries it; absent for what this version does not raise.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_kind")]
    pub kind: Option<AlarmKind>,
}

/// On the wire a kind of a later version is kept; in a file of ours it is a typing error.
fn known_kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<AlarmKind>, D::Error> {
    let word = String::deserialize(deserializer)?;
    let refuse =
        || serde::de::Error::custom(format_args!("unknown kind {word:?}: expected one of {:?}", AlarmKind::ALL));
    AlarmKind::known(&word).map(Some).ok_or_else(refuse)
}

/// Why a code file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The same code twice.
    #[error("{scheme} {version}: code \"{code}\" stands twice; keep one")]
    CodeTwice {
        /// Scheme of the file.
        scheme: String,
        /// Its edition.
        version: String,
        /// The code.
        code: String,
    },
    /// Two codes for one kind of alarm.
    #[error("{scheme} {version}: kind \"{kind}\" has two codes; keep one")]
    KindTwice {
        /// Scheme of the file.
        scheme: String,
        /// Its edition.
        version: String,
        /// The kind.
        kind: AlarmKind,
    },
    /// Not a code that fits behind a division.
    #[error("{scheme} {version}: code \"{code}\" follows a division and must be digits only")]
    NotDigits {
        /// Scheme of the file.
        scheme: String,
        /// Its edition.
        version: String,
        /// The code.
        code: String,
    },
}

impl CodeFile {
    /// Checks one file.
    ///
    /// # Errors
    /// The first [`CodeError`] found.
    pub fn check(&self) -> Result<(), CodeError> {
        let (scheme, version) = (self.scheme.clone(), self.version.clone());
        let (mut codes, mut kinds) = (BTreeSet::new(), BTreeSet::new());
        for matter in &self.matter {
            let code = matter.code.clone();
            if self.division_prefix && (code.is_empty() || !code.bytes().all(|b| b.is_ascii_digit())) {
                return Err(CodeError::NotDigits { scheme, version, code });
            }
            if !codes.insert(&matter.code) {
                return Err(CodeError::CodeTwice { scheme, version, code });
            }
            if let Some(kind) = matter.kind
                && !kinds.insert(kind)
            {
                return Err(CodeError::KindTwice { scheme, version, kind });
            }
        }
        Ok(())
    }

    /// The code of `kind` at `location`; `None` when the scheme has none, or wants a division and there is none.
    #[must_use]
    pub fn code(&self, kind: AlarmKind, location: Option<&Location>) -> Option<Code> {
        let matter = self.matter.iter().find(|matter| matter.kind == Some(kind))?;
        let code = if self.division_prefix {
            let division =
                location?.division.as_deref().filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_digit()))?;
            format!("{division}{}", matter.code)
        } else {
            matter.code.clone()
        };
        Some(Code { scheme: self.scheme.clone(), version: self.version.clone(), code })
    }
}

/// The schemes a gateway speaks, in order of preference: an alarm carries the code of the first that has one for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeTable {
    files: Vec<CodeFile>,
}

impl CodeTable {
    /// Takes checked files, the preferred scheme first.
    ///
    /// # Errors
    /// The first [`CodeError`] found.
    pub fn new(files: Vec<CodeFile>) -> Result<Self, CodeError> {
        files.iter().try_for_each(CodeFile::check)?;
        Ok(Self { files })
    }

    /// The code an alarm of `kind` at `location` carries.
    #[must_use]
    pub fn code(&self, kind: AlarmKind, location: Option<&Location>) -> Option<Code> {
        self.files.iter().find_map(|file| file.code(kind, location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> CodeFile {
        toml::from_str(text).unwrap()
    }

    fn shipped() -> [CodeFile; 3] {
        [
            file(include_str!("../../../config/codes/gbt47678-5-2026.toml")),
            file(include_str!("../../../config/codes/gbt30428-2-2013.toml")),
            file(include_str!("../../../config/codes/gengfu.toml")),
        ]
    }

    fn at(division: &str) -> Location {
        Location { division: Some(division.into()), ..Location::default() }
    }

    #[test]
    fn codes_of_the_trade_are_eleven_digits_in_the_new_standard_and_ten_in_the_old() {
        let [new, old, own] = shipped();
        let place = at("310112");
        let code = |file: &CodeFile, kind| file.code(kind, Some(&place)).map(|c| c.code);
        assert_eq!(code(&new, AlarmKind::IllegalParking).unwrap(), "31011209009");
        assert_eq!(code(&new, AlarmKind::FireLaneBlocked).unwrap(), "31011209012");
        assert_eq!(code(&new, AlarmKind::CameraFault).unwrap(), "31011201050");
        assert_eq!(code(&old, AlarmKind::IllegalParking).unwrap(), "3101120505");
        assert_eq!(code(&old, AlarmKind::FireLaneBlocked), None);
        assert_eq!(code(&own, AlarmKind::Smoke).unwrap(), "fire.smoke");
    }

    #[test]
    fn shipped_tables_are_sound_and_leave_no_kind_without_a_code() {
        let table = CodeTable::new(shipped().to_vec()).unwrap();
        for kind in AlarmKind::ALL {
            assert!(table.code(*kind, None).is_some(), "{kind}");
        }
        assert_eq!(table.code(AlarmKind::IllegalParking, Some(&at("310112"))).unwrap().version, "2026");
        for division in ["31011", "3101122", "31o112"] {
            let code = table.code(AlarmKind::IllegalParking, Some(&at(division))).unwrap();
            assert_eq!(code.scheme, "gengfu", "a bad division {division} never makes a national code");
        }
    }

    #[test]
    fn bad_tables_are_refused_with_the_place() {
        let head = "scheme = \"S\"\nversion = \"1\"\ntitle = \"t\"\ndivision_prefix = true\n";
        let matter = |code: &str, kind: &str| {
            format!("[[matter]]\ncode = \"{code}\"\nzh = \"z\"\nen = \"e\"\nkind = \"{kind}\"\n")
        };
        let refuse = |matters: &[String]| file(&(head.to_owned() + &matters.concat())).check().unwrap_err().to_string();
        assert!(refuse(&[matter("01", "smoke"), matter("01", "sos")]).contains("\"01\" stands twice"));
        assert!(refuse(&[matter("01", "smoke"), matter("02", "smoke")]).contains("smoke"));
        assert!(refuse(&[matter("0x", "smoke")]).contains("digits"));
        assert!(toml::from_str::<CodeFile>(&(head.to_owned() + &matter("01", "smoek"))).is_err());
    }
}
