//! What happens to a simulated node, and when.
//!
//! Owns the words of commands and of scripts. A script is lines of `at <time> <command>`; `#` begins a remark. Refuses unknown words,
//! with the line and what would be right.

use std::str::FromStr;
use std::time::Duration;

/// Something that happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The door: `open`, `close`.
    Contact {
        /// True when open.
        open: bool,
    },
    /// The head's alarm line: `smoke`, `clear`.
    Smoke(bool),
    /// The head's test button for a moment: `test`.
    Test,
    /// The head is silenced: `hush`, `hush off`.
    Hush(bool),
    /// The head's fault line: `fault`, `fault off`.
    Fault(bool),
    /// The emergency button for a moment: `sos`.
    Sos,
    /// The lid: `tamper`, `tamper off`.
    Tamper(bool),
    /// The battery: `battery 2500`.
    Battery {
        /// Millivolts.
        millivolts: u16,
    },
    /// Power off and on: `reboot`. What was not acknowledged is forgotten.
    Reboot,
    /// Stops answering and sending, as a node without power or a pulled cable: `mute`, `mute off`.
    Mute(bool),
    /// The end: `quit`.
    Stop,
}

/// The words, for help texts.
pub const COMMANDS: &str = "open, close, smoke, clear, test, hush [off], fault [off], sos, tamper [off], battery <millivolts>, reboot, mute [off], quit";

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \"{text}\": {what}; expected {expected}")]
pub struct ScriptError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong.
    pub what: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

impl FromStr for Command {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let error = |what| ScriptError { line: 1, text: text.trim().to_owned(), what, expected: COMMANDS };
        let words: Vec<_> = text.split_whitespace().collect();
        let on = match words.get(1) {
            None | Some(&"on") => Ok(true),
            Some(&"off") => Ok(false),
            Some(_) => Err(error("neither \"on\" nor \"off\"")),
        };
        let plain = |command| if words.len() == 1 { Ok(command) } else { Err(error("too many words")) };
        match *words.first().ok_or_else(|| error("empty"))? {
            _ if words.len() > 2 => Err(error("too many words")),
            "open" => plain(Command::Contact { open: true }),
            "close" => plain(Command::Contact { open: false }),
            "smoke" => Ok(Command::Smoke(on?)),
            "clear" => plain(Command::Smoke(false)),
            "test" => plain(Command::Test),
            "hush" => Ok(Command::Hush(on?)),
            "fault" => Ok(Command::Fault(on?)),
            "sos" => plain(Command::Sos),
            "tamper" => Ok(Command::Tamper(on?)),
            "battery" => {
                let millivolts = words.get(1).and_then(|it| it.parse().ok());
                millivolts.map(|millivolts| Command::Battery { millivolts }).ok_or_else(|| error("no millivolts"))
            }
            "reboot" => plain(Command::Reboot),
            "mute" => Ok(Command::Mute(on?)),
            "quit" => plain(Command::Stop),
            _ => Err(error("unknown word")),
        }
    }
}

/// What happens when, in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<(Duration, Command)>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// [`ScriptError`] for the first line that cannot be read.
    pub fn parse(text: &str) -> Result<Script, ScriptError> {
        let mut steps = Vec::new();
        for (index, whole) in text.lines().enumerate() {
            let line = whole.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let form = "\"at <time> <command>\", as in \"at 3s open\" or \"at 500ms sos\"";
            let error = |what, expected| ScriptError { line: index + 1, text: line.to_owned(), what, expected };
            let rest = line.strip_prefix("at ").ok_or_else(|| error("no time", form))?;
            let (time, command) = rest.trim().split_once(' ').ok_or_else(|| error("no command", form))?;
            let at = parse_time(time).ok_or_else(|| error("not a time", form))?;
            let command = command.parse().map_err(|it: ScriptError| error(it.what, it.expected))?;
            steps.push((at, command));
        }
        steps.sort_by_key(|(at, _)| *at);
        Ok(Script { steps })
    }

    /// Adds a step.
    #[must_use]
    pub fn then(mut self, at: Duration, command: Command) -> Script {
        self.steps.push((at, command));
        self.steps.sort_by_key(|(at, _)| *at);
        self
    }

    /// The steps, in order of time since the node's start.
    #[must_use]
    pub fn steps(&self) -> &[(Duration, Command)] {
        &self.steps
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let split = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_in_order_of_time() {
        let script =
            Script::parse("# a day\nat 9s smoke # fire\n\n at 500ms open\nat 1.5m battery 2500\nat 9s clear\n")
                .unwrap();
        let expected = [
            (Duration::from_millis(500), Command::Contact { open: true }),
            (Duration::from_secs(9), Command::Smoke(true)),
            (Duration::from_secs(9), Command::Smoke(false)),
            (Duration::from_secs(90), Command::Battery { millivolts: 2_500 }),
        ];
        assert_eq!(script.steps(), expected);
    }

    #[test]
    fn every_word_of_the_help_is_a_command() {
        for word in COMMANDS.split(", ") {
            let word = word.replace("<millivolts>", "3000");
            let bare = word.replace(" [off]", "");
            bare.parse::<Command>().unwrap();
            if word.contains("[off]") {
                assert_ne!(format!("{bare} off").parse::<Command>().unwrap(), bare.parse().unwrap());
            }
        }
    }

    #[test]
    fn a_wrong_line_is_named_with_what_would_be_right() {
        for (text, what) in [
            ("at 1s open\nopen", "no time"),
            ("at 1s open\nat 5 open", "not a time"),
            ("at 1s open\nat -5s open", "not a time"),
            ("at 1s open\nat 5s", "no command"),
            ("at 1s open\nat 5s opne", "unknown word"),
            ("at 1s open\nat 5s battery", "no millivolts"),
            ("at 1s open\nat 5s tamper maybe", "neither \"on\" nor \"off\""),
            ("at 1s open\nat 5s open sesame", "too many words"),
        ] {
            let error = Script::parse(text).unwrap_err();
            assert_eq!((error.line, error.what), (2, what));
        }
    }
}
