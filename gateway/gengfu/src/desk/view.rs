//! The desk on a terminal: alarms, gateways with their proof, the last events, one alarm in full; drawn several times a second.
//!
//! Owns the terminal and its loop. What keys mean is in [`state`], what is drawn in [`draw`] and [`detail`]; both are pure. It reads the
//! model and never changes it: an order goes out and comes back as an answer and an event of the gateway, which owns the condition.

mod detail;
mod draw;
pub mod state;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, KeyEventKind};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::model::DeskModel;
use super::orders::Order;
use super::plain;
use super::told::DeskEvent;
use crate::clock::Clock;
pub use draw::draw;
use state::{Reaction, State};

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
    /// Where orders go. When it is full the key does nothing, and the view says so.
    pub orders: mpsc::Sender<Order>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ends the view; the view cancels it when the person leaves.
    pub shutdown: CancellationToken,
}

/// Shows the desk until Esc, `Q`, Ctrl-C or shutdown. The terminal is restored in every case, also when this panics.
///
/// # Errors
/// When the terminal cannot be used.
pub async fn run(parts: ViewParts) -> std::io::Result<()> {
    run_as(parts, State::new("desk", false)).await
}

/// As [`run`], with the operator's name and the rest as `state` says.
///
/// # Errors
/// When the terminal cannot be used.
pub async fn run_as(mut parts: ViewParts, mut state: State) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let mut ticker = VecDeque::new();
    let shown = show(&mut terminal, &mut parts, &mut state, &mut ticker).await;
    ratatui::restore();
    parts.shutdown.cancel();
    shown
}

async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    parts: &mut ViewParts,
    state: &mut State,
    ticker: &mut VecDeque<String>,
) -> std::io::Result<()> {
    let mut redraw = tokio::time::interval(REDRAW);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ended = false;
    loop {
        tokio::select! {
            () = parts.shutdown.cancelled() => return Ok(()),
            event = parts.events.recv(), if !ended => match event {
                Some(event) => {
                    state.note_of(&event);
                    tick(ticker, parts.clock.now(), &event);
                }
                None => ended = true,
            },
            _ = redraw.tick() => {
                if keys(parts, state)? {
                    return Ok(());
                }
                let model = parts.model.lock().unwrap_or_else(PoisonError::into_inner);
                terminal.draw(|frame| draw(frame, &model, state, ticker, parts.clock.now()))?;
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
fn keys(parts: &ViewParts, state: &mut State) -> std::io::Result<bool> {
    while crossterm::event::poll(Duration::ZERO)? {
        let TerminalEvent::Key(key) = crossterm::event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        let model = parts.model.lock().unwrap_or_else(PoisonError::into_inner);
        match state.key(key, &model) {
            Reaction::Leave => return Ok(true),
            Reaction::Order(order) => {
                if parts.orders.try_send(order).is_err() {
                    state.refuse("太忙，请再按一次", "busy, press again");
                }
            }
            Reaction::Nothing => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
