//! The real uplink without a network and without a runtime's time.
//!
//! Owns the seam below [`super::connection`]: a [`Line`] on which the session hands over what it wants to say and is told what a broker of a simulation says, and
//! [`SimUplink`], which runs the uplink's own code up to where it waits. Refuses to be a broker, to wait, and to read a clock: whoever simulates calls
//! [`SimUplink::poll`] whenever something may have changed, and time is an argument. For tests only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::connection::{Lost, Message, NotTaken, Signal, Subscription};
use super::mqtt::{Attempts, Next, Pump};
use super::options::{BrokerConfig, SessionOptions};
use super::{UplinkConfig, UplinkParts};
use crate::config::Protocol;

/// Something the session handed to its connection.
#[derive(Debug)]
pub(crate) enum Handed {
    Publish(Message),
    Subscribe(Vec<Subscription>),
    Unsubscribe(String),
    Disconnect,
}

/// What lies between a session and the broker.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Which broker was dialled.
    pub host: String,
    pub protocol: Protocol,
    /// What the broker says when the connection breaks.
    pub will: Option<Message>,
    /// Handed over and not yet written.
    pub handed: VecDeque<Handed>,
    /// Arrived and not yet taken.
    pub signals: VecDeque<Signal>,
    /// How it ended; told after the last signal.
    pub lost: Option<Lost>,
    room: usize,
}

/// One connection; the session and the simulation hold an end each.
#[derive(Debug, Clone)]
pub(crate) struct Line(Arc<Mutex<Wire>>);

impl Line {
    pub fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session has thrown its end away.
    pub fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// As [`super::connection::Connection::next`]. Wakes nobody: the simulation polls.
    pub async fn next(&self) -> Result<Signal, Lost> {
        std::future::poll_fn(|_| {
            let mut wire = self.wire();
            match (wire.signals.pop_front(), &wire.lost) {
                (Some(signal), _) => Poll::Ready(Ok(signal)),
                (None, Some(lost)) => Poll::Ready(Err(lost.clone())),
                (None, None) => Poll::Pending,
            }
        })
        .await
    }

    /// Takes a place in the bounded channel to the client.
    pub fn hand(&self, handed: Handed) -> Result<(), NotTaken> {
        let mut wire = self.wire();
        if wire.handed.len() >= wire.room {
            return Err(NotTaken);
        }
        wire.handed.push_back(handed);
        Ok(())
    }
}

thread_local! {
    /// Lines that were dialled and not yet answered; `None` while this thread simulates nothing.
    static DIALLED: RefCell<Option<VecDeque<Line>>> = const { RefCell::new(None) };
    /// Nothing ever runs on it: the session's sleeps want one to exist.
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

/// From here on every connection of this thread is a line of the simulation.
pub(crate) fn begin() {
    DIALLED.with_borrow_mut(|dialled| *dialled = Some(VecDeque::new()));
}

/// The next line that was dialled.
pub(crate) fn dialled() -> Option<Line> {
    DIALLED.with_borrow_mut(|dialled| dialled.as_mut()?.pop_front())
}

pub(super) fn dial(broker: &BrokerConfig, session: &SessionOptions) -> Option<Line> {
    DIALLED.with_borrow_mut(|dialled| {
        let dialled = dialled.as_mut()?;
        let line = Line(Arc::new(Mutex::new(Wire {
            host: broker.host.clone(),
            protocol: broker.protocol,
            will: session.will.clone(),
            handed: VecDeque::new(),
            signals: VecDeque::new(),
            lost: None,
            room: session.channel_messages,
        })));
        dialled.push_back(line.clone());
        Some(line)
    })
}

type Turn = Pin<Box<dyn Future<Output = (Pump, Attempts, Next)>>>;

/// The uplink's task, run by hand: as [`super::run`] does it, with pauses in simulated time.
pub(crate) struct SimUplink {
    turn: Turn,
    /// Between two connections.
    resting: Option<(Pump, Attempts, Duration)>,
}

impl SimUplink {
    pub fn new(config: UplinkConfig, parts: UplinkParts) -> Self {
        let pump = Pump::new(config, parts);
        let attempts = Attempts::new(&pump);
        Self { turn: turn(pump, attempts), resting: None }
    }

    /// Does what can be done at `uptime` and with what has arrived.
    pub fn poll(&mut self, uptime: Duration) {
        RUNTIME.with(|runtime| {
            let _inside = runtime.enter();
            self.poll_inside(uptime);
        });
    }

    fn poll_inside(&mut self, uptime: Duration) {
        loop {
            if let Some((pump, _, until)) = &mut self.resting {
                while let Ok(reply) = pump.parts.replies.try_recv() {
                    pump.take_reply(Some(reply));
                }
                if uptime < *until {
                    return;
                }
            }
            if let Some((pump, attempts, _)) = self.resting.take() {
                self.turn = turn(pump, attempts);
            }
            let Poll::Ready((pump, attempts, next)) = self.turn.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            else {
                return;
            };
            let until = match next {
                Next::After(pause) => uptime + pause,
                Next::AtOnce => uptime,
                Next::Stop => Duration::MAX,
            };
            self.resting = Some((pump, attempts, until));
        }
    }

    /// When a pause between two connections is over.
    pub fn again_at(&self) -> Option<Duration> {
        self.resting.as_ref().map(|(_, _, until)| *until)
    }
}

fn turn(mut pump: Pump, mut attempts: Attempts) -> Turn {
    Box::pin(async move {
        let next = attempts.one(&mut pump).await;
        (pump, attempts, next)
    })
}
