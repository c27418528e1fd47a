//! The lists: alarms by lane with their age, gateways with presence and proof, devices, the last events, the keys.
//!
//! Owns the picture of the first screen. Pure: model and state in, cells out. It draws no more rows than there is room for, so that a
//! thousand gateways cost no more than ten.

use std::collections::VecDeque;

use gengfu_contract::slug::Slug;
use gengfu_contract::words::{Condition, Lane};
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::super::findings::Finding;
use super::super::gateway::GatewayView;
use super::super::model::{AlarmView, DeskModel};
use super::super::presence::There;
use super::detail;
use super::state::{Language, Question, State, rows, stage_of};

/// Draws the desk. `ticker` holds the last lines, newest at the end.
pub fn draw(frame: &mut Frame<'_>, model: &DeskModel, state: &State, ticker: &VecDeque<String>, now: Timestamp) {
    let gateways = u16::try_from(model.gateways().len()).unwrap_or(u16::MAX).clamp(1, 6);
    let [main, proofs, bottom, note, help] = Layout::vertical([
        Constraint::Fill(5),
        Constraint::Length(gateways + 2),
        Constraint::Fill(2),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    match state.alarm(model).filter(|_| state.is_detail) {
        Some((gateway, alarm)) => detail::draw(frame, main, gateway, alarm, state, now),
        None => {
            let [alarms, devices] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(main);
            draw_alarms(frame, alarms, model, state, now);
            draw_devices(frame, devices, model, state.language, now);
        }
    }
    draw_gateways(frame, proofs, model, state.language, now);
    let room = usize::from(bottom.height.saturating_sub(2));
    let last = ticker.iter().skip(ticker.len().saturating_sub(room)).map(|line| Line::raw(line.as_str()));
    let title = state.language.say("事件", "events");
    frame.render_widget(Paragraph::new(last.collect::<Vec<_>>()).block(Block::bordered().title(title)), bottom);
    frame.render_widget(note_line(state), note);
    let (malformed, _) = model.malformed();
    let text = format!(" {}  ({malformed} malformed)", help_text(state));
    frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::DIM)), help);
}

fn note_line(state: &State) -> Line<'static> {
    let say = |zh: &str, en: &str| state.language.say(zh, en);
    match &state.question {
        Some(Question::Shelve(text)) => {
            let ask = say("搁置多久、为何（如 2h 施工）：", "shelve for how long and why (as in 2h roadworks): ");
            Line::from(vec![Span::raw(format!(" {ask}")), Span::raw(format!("{text}▏"))])
        }
        Some(Question::Why(stage)) => {
            let reasons = gengfu_contract::case::RejectReason::ALL.iter().enumerate();
            let list: Vec<_> = reasons.map(|(n, reason)| format!("{} {reason}", n + 1)).collect();
            Line::raw(format!(" {stage} {}: {}", say("原因", "why"), list.join("  ")))
        }
        Some(Question::Query) => Line::raw(format!(
            " {}: h {}  d {}  a {}  j {}",
            say("查询", "query"),
            say("住户活动", "homes"),
            say("设备", "devices"),
            say("报警", "alarms"),
            say("补取缺失日志", "fetch what is missing of the journal"),
        )),
        None => Line::styled(format!(" {}", state.note), Style::new().fg(Color::Cyan)),
    }
}

fn help_text(state: &State) -> String {
    let keys = [
        ("⏎", "详情", "details"),
        ("a", "确认", "ack"),
        ("f", "立案", "file"),
        ("d", "派遣", "dispatch"),
        ("n", "下一步", "next"),
        ("c", "结案", "close"),
        ("r", "不立案", "reject"),
        ("b", "退回", "return"),
        ("s/u", "搁置/恢复", "shelve/un"),
        ("R", "复位", "reset"),
        ("p", "抓拍", "snapshot"),
        ("q", "查询", "query"),
        (
            "m",
            if state.holds_receipts { "回执:手动" } else { "回执:自动" },
            if state.holds_receipts { "receipts held" } else { "receipts auto" },
        ),
        ("e", "发回执", "receipt"),
        ("l", "语言", "language"),
        ("Esc", "退出", "leave"),
    ];
    // All in two languages would not fit a line; the letters are the same.
    let short = if state.language == Language::Chinese { Language::Chinese } else { Language::English };
    keys.map(|(key, zh, en)| format!("{key} {}", short.say(zh, en))).join("  ")
}

fn draw_alarms(frame: &mut Frame<'_>, area: Rect, model: &DeskModel, state: &State, now: Timestamp) {
    let language = state.language;
    let chosen = state.alarm(model).map(|(gateway, alarm)| (gateway, alarm.alarm.alarm_id.as_str()));
    let rows = rows(model);
    let room = usize::from(area.height.saturating_sub(3)).max(1);
    let at = rows.iter().position(|(g, a)| Some((*g, a.alarm.alarm_id.as_str())) == chosen).unwrap_or(0);
    let from = at.saturating_sub(room - 1);
    let drawn = rows.iter().skip(from).take(room).map(|(gateway, alarm)| {
        let row = alarm_row(gateway, alarm, language, now);
        let is_chosen = Some((*gateway, alarm.alarm.alarm_id.as_str())) == chosen;
        if is_chosen { row.style(row_style(alarm).add_modifier(Modifier::REVERSED)) } else { row }
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Length(28),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(34),
    ];
    let header = [
        ("通道", "lane"),
        ("报警", "alarm"),
        ("状态", "condition"),
        ("案件", "case"),
        ("地点", "place"),
        ("已持续", "for"),
        ("时延", "latency"),
        ("图片", "picture"),
    ];
    let header = Row::new(header.map(|(zh, en)| language.say(zh, en))).style(Style::new().add_modifier(Modifier::BOLD));
    let open = model.open_alarms().len();
    let folder = picture_folder(&rows).map(|f| format!(" · {} {f}", language.say("图片", "pictures in")));
    let title = format!("{} ({open}){}", language.say("报警", "alarms"), folder.unwrap_or_default());
    frame.render_widget(Table::new(drawn, widths).header(header).block(Block::bordered().title(title)), area);
}

/// The table has room for names; its title says the folder.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Where the pictures shown lie.
fn picture_folder(rows: &[(&Slug, &AlarmView)]) -> Option<String> {
    let path = rows.iter().find_map(|(_, alarm)| alarm.pictures.values().find_map(|picture| picture.path.clone()))?;
    Some(path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned()))
}

/// How long, as people say it.
pub(super) fn lasted(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 3600 => format!("{}:{:02}", s / 60, s % 60),
        s => format!("{}h{:02}", s / 3600, s % 3600 / 60),
    }
}

fn row_style(alarm: &AlarmView) -> Style {
    if alarm.over_at.is_some() {
        return Style::new().add_modifier(Modifier::DIM);
    }
    if alarm.alarm.side.is_some() {
        return Style::new().fg(Color::DarkGray);
    }
    match (alarm.alarm.kind.lane(), alarm.alarm.condition) {
        (Lane::Fire | Lane::Emergency, Condition::ActiveUnack) => {
            Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD)
        }
        (Lane::Fire | Lane::Emergency, _) => Style::new().fg(Color::Red),
        (_, Condition::ActiveUnack) => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
        _ => Style::new().fg(Color::Yellow),
    }
}

fn alarm_row<'a>(gateway: &Slug, alarm: &'a AlarmView, language: Language, now: Timestamp) -> Row<'a> {
    let data = &alarm.alarm;
    let place =
        data.location.as_ref().and_then(|l| l.text.clone()).unwrap_or_else(|| format!("{gateway}/{}", data.device));
    let until = alarm.over_at.unwrap_or(now);
    let latency = match (alarm.latency_ms, alarm.historical) {
        (Some(ms), true) => format!("{ms} ms 补"),
        (Some(ms), false) => format!("{ms} ms"),
        (None, _) => "-".to_owned(),
    };
    let picture = alarm.pictures.values().next_back().map(|picture| match (&picture.path, picture.genuine) {
        (Some(path), Some(true)) => file_name(path).to_owned(),
        (Some(path), _) => format!("{} (?)", file_name(path)),
        (None, _) => "…".to_owned(),
    });
    let escalated = if data.escalation > 0 { format!(" ↑{}", data.escalation) } else { String::new() };
    let side = data.side.as_ref().map(|side| format!("/{}", side.state)).unwrap_or_default();
    Row::new([
        data.kind.lane().to_string(),
        format!("{}{escalated}", language.say(&data.title.zh, &data.title.en)),
        format!("{}{side}", data.condition),
        stage_of(alarm).map_or_else(|| "-".to_owned(), |stage| stage.to_string()),
        place,
        lasted(until.duration_since(data.since).as_secs()),
        latency,
        picture.unwrap_or_default(),
    ])
    .style(row_style(alarm))
}

fn draw_devices(frame: &mut Frame<'_>, area: Rect, model: &DeskModel, language: Language, now: Timestamp) {
    let devices = model.gateways().iter().flat_map(|(name, view)| view.devices.values().map(move |d| (name, d)));
    let room = usize::from(area.height.saturating_sub(3));
    // Those in trouble first.
    let (trouble, well): (Vec<_>, Vec<_>) = devices.partition(|(_, device)| !device.troubles.is_empty());
    let count = trouble.len() + well.len();
    let rows = trouble.into_iter().chain(well).take(room).map(|(gateway, device)| {
        let heard = device.last_heard_at.map_or_else(
            || language.say("从未", "never"),
            |at| format!("{} s", now.duration_since(at).as_secs().max(0)),
        );
        let titles = device.troubles.iter().map(|kind| kind.title());
        let troubles: Vec<_> = titles.map(|title| language.say(&title.zh, &title.en)).collect();
        let style = if troubles.is_empty() { Style::new() } else { Style::new().fg(Color::Yellow) };
        let name = format!("{gateway}/{}", device.device);
        Row::new([name, device.class.clone(), device.state.clone(), heard, troubles.join(" ")]).style(style)
    });
    let widths = [
        Constraint::Length(34),
        Constraint::Length(10),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Fill(1),
    ];
    let header = [("设备", "device"), ("类", "class"), ("状态", "state"), ("上次", "heard"), ("故障", "trouble")]
        .map(|(zh, en)| language.say(zh, en));
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    let title = format!("{} ({count})", language.say("设备", "devices"));
    frame.render_widget(Table::new(rows, widths).header(header).block(Block::bordered().title(title)), area);
}

/// Gateways of which there is something to say come first; the title counts them all.
fn draw_gateways(frame: &mut Frame<'_>, area: Rect, model: &DeskModel, language: Language, now: Timestamp) {
    let room = usize::from(area.height.saturating_sub(2));
    let rank = |view: &GatewayView| {
        let is_faulty = view.told.1.iter().any(Finding::is_fault);
        (!is_faulty, matches!(view.told.0, Some(There::Online)), view.told.1.is_empty())
    };
    let mut all: Vec<(&Slug, &GatewayView)> = model.gateways().iter().collect();
    all.sort_by_key(|(_, view)| rank(view));
    let faulty = all.iter().filter(|(_, view)| !rank(view).0).count();
    let away = all.iter().filter(|(_, view)| !rank(view).1).count();
    let lines: Vec<Line<'_>> =
        all.iter().take(room).map(|(name, view)| gateway_line(name, view, model, language, now)).collect();
    let title = format!(
        "{} ({}; {} {away}; {} {faulty})",
        language.say("网关与证明", "gateways and proof"),
        all.len(),
        language.say("不在线", "not online"),
        language.say("有问题", "with findings"),
    );
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

fn gateway_line<'a>(
    name: &'a Slug,
    view: &'a GatewayView,
    model: &DeskModel,
    language: Language,
    now: Timestamp,
) -> Line<'a> {
    let (there, since) = model.presence(name, now);
    let color = match there {
        There::Online => Color::Green,
        There::Updating => Color::Yellow,
        There::Offline | There::Silent => Color::Red,
        There::Unknown => Color::DarkGray,
    };
    let word = there.text();
    let since = since.filter(|_| there != There::Online).map(|since| lasted(now.duration_since(since).as_secs()));
    let said = format!("{name} {} {}  ", language.say(&word.zh, &word.en), since.unwrap_or_default());
    let mut spans = vec![Span::styled(said, Style::new().fg(color))];
    let proof = view.sequences.proof();
    let is_whole = !view.told.1.iter().any(Finding::is_fault);
    let color = if is_whole { Color::Green } else { Color::Red };
    spans.push(Span::styled(proof.to_string(), Style::new().fg(color)));
    if let Some(finding) = view.told.1.first() {
        let text = finding.text();
        spans.push(Span::raw(format!("  {}", language.say(&text.zh, &text.en))));
    }
    Line::from(spans)
}
