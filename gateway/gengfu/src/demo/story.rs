//! The demonstration's story, and whether it happened.
//!
//! Owns what the nodes do and when, and the judgement over what the desk has seen. Pure: the desk's model in, chapters out.

use std::fmt::Write as _;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::AlarmKind;

use crate::desk::{AlarmView, DeskModel};

/// The story repeats, for a person who watches longer.
const PERIOD_S: u32 = 60;
const REPEATS: u32 = 30;
/// Seconds into the period. The door stands open past its limit before it is closed; smoke clears after people have seen it.
const DOOR_OPENS_S: u32 = 3;
const SMOKE_S: u32 = 6;
const SMOKE_CLEARS_S: u32 = 22;
const DOOR_CLOSES_S: u32 = 26;

/// What a node does by itself.
#[must_use]
pub fn script(has_door: bool, has_smoke: bool) -> String {
    let mut text = String::new();
    for period in 0..REPEATS {
        let base = period * PERIOD_S;
        let mut step = |is_there: bool, at: u32, command: &str| {
            if is_there {
                let _ = writeln!(text, "at {}s {command}", base + at);
            }
        };
        step(has_door, DOOR_OPENS_S, "open");
        step(has_smoke, SMOKE_S, "smoke");
        step(has_smoke, SMOKE_CLEARS_S, "clear");
        step(has_door, DOOR_CLOSES_S, "close");
    }
    text
}

/// One thing that has to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// What.
    pub title: &'static str,
    /// Whether it did.
    pub happened: bool,
    /// Figures, or what is missing.
    pub detail: String,
}

/// What of the story happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// In the order they are told.
    pub chapters: Vec<Chapter>,
}

impl Story {
    /// Reads the story off the desk.
    #[must_use]
    pub fn of(model: &DeskModel, gateway: &Slug) -> Self {
        let chapters = vec![
            received(model, AlarmKind::Smoke, "烟雾报警 smoke alarm received"),
            received(model, AlarmKind::DoorLeftOpen, "门未关 door left open received"),
            parked(model),
            ended(model, AlarmKind::Smoke, "烟雾报警 smoke cleared and reset"),
            ended(model, AlarmKind::DoorLeftOpen, "门未关 door closed again"),
            proven(model, gateway),
        ];
        Self { chapters }
    }

    /// Everything happened.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.chapters.iter().all(|chapter| chapter.happened)
    }
}

fn first(model: &DeskModel, kind: AlarmKind) -> Option<&AlarmView> {
    model.alarms_of(kind).into_iter().map(|(_, alarm)| alarm).min_by_key(|alarm| alarm.alarm.since)
}

fn received(model: &DeskModel, kind: AlarmKind, title: &'static str) -> Chapter {
    let latency = first(model, kind).and_then(|alarm| alarm.latency_ms);
    let detail = latency.map_or_else(|| "not received".to_owned(), |ms| format!("{ms} ms from sensed to the desk"));
    Chapter { title, happened: latency.is_some(), detail }
}

fn ended(model: &DeskModel, kind: AlarmKind, title: &'static str) -> Chapter {
    let over_at = first(model, kind).and_then(|alarm| alarm.over_at);
    let detail = match (over_at, first(model, kind)) {
        (Some(at), _) => format!("over at {}", at.strftime("%H:%M:%SZ")),
        (None, Some(alarm)) => format!("still {}", alarm.alarm.condition),
        (None, None) => "not received".to_owned(),
    };
    Chapter { title, happened: over_at.is_some(), detail }
}

fn parked(model: &DeskModel) -> Chapter {
    let title = "机动车乱停放 parked vehicles";
    let alarms = model.alarms_of(AlarmKind::IllegalParking);
    let genuine: Vec<&str> = alarms
        .iter()
        .flat_map(|(_, alarm)| alarm.pictures.values())
        .filter(|picture| picture.genuine == Some(true))
        .filter_map(|picture| picture.path.as_deref())
        .collect();
    let happened = !alarms.is_empty() && genuine.len() >= alarms.len();
    let detail = match genuine.first() {
        Some(path) => format!("{} alarm(s), {} picture(s), as {path}", alarms.len(), genuine.len()),
        None => format!("{} alarm(s), no picture yet", alarms.len()),
    };
    Chapter { title, happened, detail }
}

fn proven(model: &DeskModel, gateway: &Slug) -> Chapter {
    let title = "无遗漏 nothing missing, chain whole";
    match model.proof(gateway) {
        Some(proof) => {
            let detail = format!(
                "events 1..{}, {} missing, {} duplicate(s), {} chain link(s) checked",
                proof.last.unwrap_or(0),
                proof.missing.len(),
                proof.duplicates,
                proof.chain_links
            );
            Chapter { title, happened: proof.holds() && proof.received > 0, detail }
        }
        None => Chapter { title, happened: false, detail: "the gateway was not heard".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_one_the_node_understands() {
        let text = script(true, true);
        let steps = gengfu_node_linux::Script::parse(&text).unwrap();
        assert_eq!(steps.steps().len(), 4 * REPEATS as usize);
    }

    #[test]
    fn nothing_happened_on_an_empty_desk() {
        let site = Slug::new("demo").unwrap();
        let story = Story::of(&DeskModel::new(site.clone()), &site);
        assert!(story.chapters.iter().all(|chapter| !chapter.happened && !chapter.detail.is_empty()));
    }
}
