//! One alarm in full: what it is and why, its three states apart, its way here with times, its pictures, what was ordered and answered.
//!
//! Owns the picture of the second screen. Pure. Condition, case and delivery are three machines with three owners, so they stand on three
//! lines and are never made into one word.

use gengfu_contract::slug::Slug;
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::super::model::AlarmView;
use super::draw::lasted;
use super::state::{State, outcome, stage_of};

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    gateway: &Slug,
    alarm: &AlarmView,
    state: &State,
    now: Timestamp,
) {
    let lines = lines(gateway, alarm, state, now);
    let title =
        format!("{}  {}", state.language.say(&alarm.alarm.title.zh, &alarm.alarm.title.en), alarm.alarm.alarm_id);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).block(Block::bordered().title(title));
    frame.render_widget(text, area);
}

fn lines(gateway: &Slug, alarm: &AlarmView, state: &State, now: Timestamp) -> Vec<Line<'static>> {
    let (data, language) = (&alarm.alarm, state.language);
    let say = |zh: &str, en: &str| language.say(zh, en);
    let mut lines = Vec::new();
    let mut row = |label: String, text: String| {
        let label = Span::styled(format!("{label}  "), Style::new().add_modifier(Modifier::BOLD));
        lines.push(Line::from(vec![label, Span::raw(text)]));
    };
    let place = data.location.as_ref().and_then(|l| l.text.clone()).unwrap_or_default();
    let until = alarm.over_at.unwrap_or(now);
    let age = lasted(until.duration_since(data.since).as_secs());
    row(say("何处", "where"), format!("{gateway}/{} {place}", data.device));
    row(
        say("自", "since"),
        format!("{} ({age}), rev {}, ↑{}", data.since.strftime("%F %TZ"), data.rev, data.escalation),
    );
    let cap = &data.cap;
    row("CAP".into(), format!("{} {} {} {} {}", cap.status, cap.urgency, cap.severity, cap.certainty, cap.category));
    let side = data.side.as_ref().map(|side| {
        format!(
            "  {} {} {} ({}, {})",
            side.state,
            say("至", "until"),
            side.until.strftime("%T Z"),
            side.reason,
            side.who
        )
    });
    row(say("状态", "condition"), format!("{}{}", data.condition, side.unwrap_or_default()));
    row(say("案件", "case"), case(alarm, &say));
    row(say("送达", "delivery"), delivery(alarm, &say));
    let why = &data.explanation;
    row(say("为何", "why"), format!("{} [{}]", language.say(&why.text.zh, &why.text.en), why.rule));
    let inputs: Vec<_> = why.inputs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    row(String::new(), inputs.join("  "));
    row(say("时序", "stages"), stages(alarm, &say));
    for (n, picture) in &alarm.pictures {
        let place = match (&picture.path, picture.genuine) {
            (Some(path), Some(true)) => format!("{path} ({})", say("哈希一致", "hash ok")),
            (Some(path), _) => format!("{path} ({})", say("哈希不符", "HASH DIFFERS")),
            (None, _) => say("尚未收到", "not here yet"),
        };
        row(format!("{} {n}", say("图片", "picture")), format!("{place}  {}", picture.reference.caption));
    }
    for order in &alarm.orders {
        let (word, why) = match &order.answer {
            Some((answer, why)) => (outcome(language, *answer), why.as_ref().map(|w| language.say(&w.zh, &w.en))),
            None => (say("等待答复", "no answer yet"), None),
        };
        let label = Span::styled(format!("{}  ", order.at.strftime("%T")), Style::new().fg(Color::DarkGray));
        let text = format!("{} ({}) → {word} {}", order.what, order.operator, why.unwrap_or_default());
        lines.push(Line::from(vec![label, Span::raw(text)]));
    }
    lines
}

fn case(alarm: &AlarmView, say: &impl Fn(&str, &str) -> String) -> String {
    let Some(stage) = stage_of(alarm) else { return say("未立案", "none") };
    let known = alarm.alarm.case.as_ref();
    let due =
        known.and_then(|case| case.due_at).map(|due| format!("  {} {}", say("限", "due"), due.strftime("%F %TZ")));
    let id = known.map(|case| format!("  {}", case.case_id)).unwrap_or_default();
    format!("{stage}{id}{}", due.unwrap_or_default())
}

fn delivery(alarm: &AlarmView, say: &impl Fn(&str, &str) -> String) -> String {
    let late = if alarm.historical { say("（补传）", " (sent late)") } else { String::new() };
    let latency = alarm.latency_ms.map(|ms| format!("{ms} ms")).unwrap_or_default();
    match (alarm.stages.arrived_at, alarm.stages.receipt_at) {
        (_, Some(_)) => format!("RECEIVED {latency}{late}  #{}", alarm.sequence),
        (Some(_), None) => {
            format!("{} {latency}{late}  #{}", say("已到达，回执未发", "arrived, receipt not sent"), alarm.sequence)
        }
        (None, None) => say("只见保留快照", "only its retained snapshot was seen"),
    }
}

/// Each stage with its time, and how long after the one before.
fn stages(alarm: &AlarmView, say: &impl Fn(&str, &str) -> String) -> String {
    let mut text = String::new();
    let mut before: Option<Timestamp> = None;
    for (zh, en, at) in alarm.stages.list() {
        let name = say(zh, en);
        let told = match (at, before) {
            (None, _) => format!("{name} -"),
            (Some(at), None) => format!("{name} {}", at.strftime("%H:%M:%S%.3f")),
            (Some(at), Some(before)) => format!("{name} +{} ms", at.duration_since(before).as_millis()),
        };
        if !text.is_empty() {
            text.push_str(" → ");
        }
        text.push_str(&told);
        before = at.or(before);
    }
    text
}
