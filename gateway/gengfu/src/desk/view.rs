//! The desk on a terminal: alarms, devices, gateways, the proof, the last events; drawn several times a second.
//!
//! Owns the picture and the few keys. It reads the model and never changes it: an acknowledgement goes out as an order and comes
//! back as an event of the gateway, which owns the condition.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, KeyCode, KeyEventKind, KeyModifiers};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::Presence;
use gengfu_contract::words::{AlarmKind, Condition, Lane};
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::{AlarmOrder, Order};
use super::model::{AlarmView, DeskEvent, DeskModel};
use super::plain;
use crate::clock::Clock;

/// Drawn this often.
const REDRAW: Duration = Duration::from_millis(150);
/// Lines of the last events kept.
const TICKER_LINES: usize = 200;

/// What the view is joined to.
pub struct ViewParts {
    /// What the desk knows.
    pub model: Arc<Mutex<DeskModel>>,
    /// What happens.
    pub events: mpsc::Receiver<DeskEvent>,
    /// Where orders go. When it is full the key does nothing; it can be pressed again.
    pub orders: mpsc::Sender<Order>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ends the view; the view cancels it when the person leaves.
    pub shutdown: CancellationToken,
}

/// Shows the desk until `q`, Ctrl-C or shutdown. The terminal is restored in every case, also when this panics.
///
/// # Errors
/// When the terminal cannot be used.
pub async fn run(mut parts: ViewParts) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let mut ticker = VecDeque::new();
    let shown = show(&mut terminal, &mut parts, &mut ticker).await;
    ratatui::restore();
    parts.shutdown.cancel();
    shown
}

async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    parts: &mut ViewParts,
    ticker: &mut VecDeque<String>,
) -> std::io::Result<()> {
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ended = false;
    loop {
        tokio::select! {
            () = parts.shutdown.cancelled() => return Ok(()),
            event = parts.events.recv(), if !ended => match event {
                Some(event) => tick(ticker, parts.clock.now(), &event),
                None => ended = true,
            },
            _ = redraw.tick() => {
                if keys(parts)? {
                    return Ok(());
                }
                let model = parts.model.lock().unwrap_or_else(PoisonError::into_inner);
                terminal.draw(|frame| draw(frame, &model, ticker, parts.clock.now()))?;
            }
        }
    }
}

fn tick(ticker: &mut VecDeque<String>, now: Timestamp, event: &DeskEvent) {
    let Some(line) = plain::line(event) else { return };
    if ticker.len() == TICKER_LINES {
        ticker.pop_front();
    }
    ticker.push_back(format!("{}  {line}", now.strftime("%H:%M:%S")));
}

/// Handles the keys pressed since the last time; true when the person wants to leave.
fn keys(parts: &ViewParts) -> std::io::Result<bool> {
    while crossterm::event::poll(Duration::ZERO)? {
        let TerminalEvent::Key(key) = crossterm::event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
            KeyCode::Char(key @ ('a' | 'r')) => {
                let model = parts.model.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(order) = order_for(&model, key) {
                    // Full: the person presses again.
                    let _full = parts.orders.try_send(order);
                }
            }
            _ => {}
        }
    }
    Ok(false)
}

/// `a` acknowledges the most urgent alarm that nobody has acknowledged, `r` resets the most urgent one that waits for it.
fn order_for(model: &DeskModel, key: char) -> Option<Order> {
    let wanted = |alarm: &AlarmView| match key {
        'a' => matches!(alarm.alarm.condition, Condition::ActiveUnack | Condition::ClearedUnack),
        _ => alarm.alarm.condition == Condition::ClearedLatched,
    };
    let (gateway, alarm) = model.open_alarms().into_iter().find(|(_, alarm)| wanted(alarm))?;
    let order =
        AlarmOrder { gateway: gateway.clone(), alarm_id: alarm.alarm.alarm_id.clone(), operator: "desk".into() };
    Some(if key == 'a' { Order::Ack(order) } else { Order::Reset(order) })
}

/// Draws the desk. `ticker` holds the last lines, newest at the end.
pub fn draw(frame: &mut Frame<'_>, model: &DeskModel, ticker: &VecDeque<String>, now: Timestamp) {
    let gateways = u16::try_from(model.gateways().len()).unwrap_or(u16::MAX).clamp(1, 8);
    let [top, middle, proofs, bottom, help] = Layout::vertical([
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(gateways + 2),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_alarms(frame, top, model, now);
    draw_devices(frame, middle, model, now);
    draw_gateways(frame, proofs, model);
    let room = usize::from(bottom.height.saturating_sub(2));
    let last = ticker.iter().skip(ticker.len().saturating_sub(room)).map(|line| Line::raw(line.as_str()));
    frame.render_widget(Paragraph::new(last.collect::<Vec<_>>()).block(Block::bordered().title("事件 events")), bottom);
    let (malformed, _) = model.malformed();
    let text = format!(" a 确认 acknowledge   r 复位 reset   q 退出 quit   ({malformed} malformed messages)");
    frame.render_widget(Line::styled(text, Style::new().add_modifier(Modifier::DIM)), help);
}

fn draw_alarms(frame: &mut Frame<'_>, area: Rect, model: &DeskModel, now: Timestamp) {
    let mut alarms = model.open_alarms();
    let mut over: Vec<_> = AlarmKind::ALL.iter().flat_map(|kind| model.alarms_of(*kind)).collect();
    over.retain(|(_, alarm)| alarm.over_at.is_some());
    over.sort_by_key(|(_, alarm)| std::cmp::Reverse(alarm.over_at));
    alarms.extend(over);
    let rows = alarms.into_iter().map(|(gateway, alarm)| alarm_row(gateway, alarm, now));
    let widths = [
        Constraint::Length(28),
        Constraint::Length(16),
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(40),
    ];
    let header = Row::new(["报警 alarm", "状态 condition", "地点 place", "已持续 for", "时延 latency", "图片 picture"])
        .style(Style::new().add_modifier(Modifier::BOLD));
    let title = picture_folder(model)
        .map_or_else(|| "报警 alarms".to_owned(), |f| format!("报警 alarms · 图片 pictures in {f}"));
    frame.render_widget(Table::new(rows, widths).header(header).block(Block::bordered().title(title)), area);
}

/// The table has room for names; its title says the folder.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Where the pictures shown lie.
fn picture_folder(model: &DeskModel) -> Option<String> {
    let mut alarms = AlarmKind::ALL.iter().flat_map(|kind| model.alarms_of(*kind));
    let path = alarms.find_map(|(_, alarm)| alarm.pictures.values().find_map(|picture| picture.path.clone()))?;
    Some(path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned()))
}

fn alarm_row<'a>(gateway: &Slug, alarm: &'a AlarmView, now: Timestamp) -> Row<'a> {
    let data = &alarm.alarm;
    let place =
        data.location.as_ref().and_then(|l| l.text.clone()).unwrap_or_else(|| format!("{gateway}/{}", data.device));
    let until = alarm.over_at.unwrap_or(now);
    let lasted = until.duration_since(data.since).as_secs().max(0);
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
    let style = if alarm.over_at.is_some() {
        Style::new().add_modifier(Modifier::DIM)
    } else {
        match (data.kind.lane(), data.condition) {
            (Lane::Fire | Lane::Emergency, Condition::ActiveUnack) => {
                Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD)
            }
            (Lane::Fire | Lane::Emergency, _) => Style::new().fg(Color::Red),
            (_, Condition::ActiveUnack) => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
            _ => Style::new().fg(Color::Yellow),
        }
    };
    Row::new([
        format!("{} {}", data.title.zh, data.title.en),
        data.condition.to_string(),
        place,
        format!("{}:{:02}", lasted / 60, lasted % 60),
        latency,
        picture.unwrap_or_default(),
    ])
    .style(style)
}

fn draw_devices(frame: &mut Frame<'_>, area: Rect, model: &DeskModel, now: Timestamp) {
    let devices = model.gateways().iter().flat_map(|(name, view)| view.devices.values().map(move |d| (name, d)));
    let rows = devices.map(|(gateway, device)| {
        let heard = device
            .last_heard_at
            .map_or_else(|| "从未 never".to_owned(), |at| format!("{} s", now.duration_since(at).as_secs().max(0)));
        let troubles: Vec<_> = device.troubles.iter().map(|kind| kind.title().zh).collect();
        let style = if troubles.is_empty() { Style::new() } else { Style::new().fg(Color::Yellow) };
        Row::new([
            format!("{gateway}/{}", device.device),
            device.class.clone(),
            device.state.clone(),
            heard,
            troubles.join(" "),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Length(34),
        Constraint::Length(10),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Fill(1),
    ];
    let header = Row::new(["设备 device", "类 class", "状态 state", "上次 heard", "故障 trouble"])
        .style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(rows, widths).header(header).block(Block::bordered().title("设备 devices")), area);
}

fn draw_gateways(frame: &mut Frame<'_>, area: Rect, model: &DeskModel) {
    let lines = model.gateways().iter().map(|(name, view)| {
        let (word, color) = match view.status.as_ref().map(|status| status.state) {
            Some(Presence::Online) => ("在线 online", Color::Green),
            Some(Presence::Updating) => ("升级 updating", Color::Yellow),
            Some(Presence::Offline) => ("离线 offline", Color::Red),
            None => ("未知 unknown", Color::DarkGray),
        };
        let proof = view.sequences.proof();
        let proof_color = if proof.holds() { Color::Green } else { Color::Red };
        Line::from(vec![
            Span::styled(format!("{name} {word}  "), Style::new().fg(color)),
            Span::styled(proof.to_string(), Style::new().fg(proof_color)),
        ])
    });
    let lines: Vec<_> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("网关与证明 gateways and proof")), area);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{alarm, at};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(model: &DeskModel, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let ticker = VecDeque::from(["08:00:00  a line".to_owned()]);
        terminal.draw(|frame| draw(frame, model, &ticker, at(90))).unwrap();
        let buffer = terminal.backend().buffer();
        // A wide character fills two cells, the second of which is blank.
        buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect::<String>().replace(' ', "")
    }

    fn model_with(events: &[gengfu_contract::event::Event]) -> DeskModel {
        let mut model = DeskModel::new(Slug::new("s").unwrap());
        for event in events {
            model.take("gengfu/v1/s/g/event", &serde_json::to_vec(event).unwrap(), at(1));
        }
        model
    }

    #[test]
    fn a_person_sees_the_alarm_its_latency_its_place_and_the_proof() {
        let model = model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None)]);
        let screen = screen(&model, 140, 40);
        for part in [
            "烟雾报警Smokealarm",
            "ACTIVE_UNACK",
            "g/device-1",
            "1000ms",
            "1:30",
            "received1…1,nothingmissing,chainok",
            "aline",
        ] {
            assert!(screen.contains(part), "{part} in {screen}");
        }
    }

    #[test]
    fn the_smallest_terminal_is_drawn_without_a_panic() {
        let model = model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::Normal, None)]);
        for (width, height) in [(1, 1), (10, 3), (40, 10), (300, 100)] {
            screen(&model, width, height);
        }
    }

    #[test]
    fn keys_order_what_the_most_urgent_alarm_needs() {
        let raised = model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None)]);
        assert!(matches!(order_for(&raised, 'a'), Some(Order::Ack(order)) if order.alarm_id == "01ALARM"));
        assert_eq!(order_for(&raised, 'r'), None);
        let latched = model_with(&[alarm(1, 1, AlarmKind::Smoke, Condition::ClearedLatched, None)]);
        assert!(matches!(order_for(&latched, 'r'), Some(Order::Reset(_))));
        assert_eq!(order_for(&latched, 'a'), None);
    }
}
