//! The task of one Modbus line.
//!
//! Owns the open line, the request under way, reopening, and the batch on its way to the decider. Refuses to wait for the disk while the
//! line could be asked, and to give a line up: whatever goes wrong is a state with a remedy and another try.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client, Context};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_modbus::{Error, Request as Pdu, Response};
use tokio_util::sync::CancellationToken;

use super::decode::Data;
use super::poller::{Answer, Next, Poller, Request};
use super::port;
use crate::clock::Clock;
use crate::link::LinkBatch;
use crate::sensors::handover::{Handover, show};
use crate::sensors::plan::LinePlan;
use crate::sensors::profile::Function;
use crate::sensors::stats::Problem;
use crate::sensors::{Moment, SensorStats, config::Way};

/// First and longest wait before a line is opened again.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The schedule is looked at this often at least; it lets a clock that only tests move be seen.
const TICK: Duration = Duration::from_millis(250);

/// What a step of the line came to.
enum Done {
    /// Opening.
    Opened(Result<Context, Problem>),
    /// Asking. No context: the line must be opened anew before the next request.
    Asked(Option<Context>, Request, Result<Answer, Problem>),
}

type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Serves one line until `stop`. `saved` is the value stored under [`crate::sensors::cursor_key`] of the line's name. When `observed` is full it keeps its observations
/// and goes on polling; when it is closed nobody judges any more, and it ends.
pub async fn run(
    plan: LinePlan,
    saved: Option<Vec<u8>>,
    clock: Arc<dyn Clock>,
    observed: mpsc::Sender<LinkBatch>,
    status: watch::Sender<SensorStats>,
    stop: CancellationToken,
) {
    let poller = Poller::new(plan, saved.as_deref(), Moment::of(clock.as_ref()));
    let mut line = Line {
        poller,
        clock,
        context: None,
        step: None,
        handover: Handover::default(),
        wake_at: Instant::now(),
        retry: RETRY_FIRST,
        is_lost: true,
    };
    loop {
        line.begin();
        show(&mut line.poller, &status);
        let has_batch = line.handover.is_due(&line.poller);
        tokio::select! {
            () = stop.cancelled() => break,
            done = step(&mut line.step) => line.on_done(done),
            stored = line.handover.answered() => line.handover.settle(&mut line.poller, stored),
            permit = observed.reserve(), if has_batch => match permit {
                Ok(permit) => line.handover.give(&mut line.poller, permit),
                Err(_) => break,
            },
            () = sleep_until(line.wake_at), if line.step.is_none() => {}
        }
    }
    show(&mut line.poller, &status);
}

struct Line {
    poller: Poller,
    clock: Arc<dyn Clock>,
    /// The open line, while nobody asks.
    context: Option<Context>,
    step: Option<Step>,
    handover: Handover,
    wake_at: Instant,
    retry: Duration,
    /// Not open since it was lost, or since the start. A line that is only opened anew after a bad answer was never away.
    is_lost: bool,
}

async fn step(step: &mut Option<Step>) -> Done {
    match step {
        Some(step) => step.await,
        None => std::future::pending().await,
    }
}

impl Line {
    /// Starts what is due, if nothing is under way.
    fn begin(&mut self) {
        if self.step.is_some() {
            return;
        }
        let plan = self.poller.plan();
        let Some(context) = self.context.take() else {
            if Instant::now() >= self.wake_at {
                let way = plan.way.clone();
                self.step = Some(Box::pin(async move { Done::Opened(port::open(&way).await) }));
            }
            return;
        };
        let at = Moment::of(self.clock.as_ref());
        match self.poller.next(at) {
            Next::Read(request) => {
                let (limit, is_tcp) = (plan.timeout, matches!(plan.way, Way::Tcp { .. }));
                self.step = Some(Box::pin(ask(context, request, limit, is_tcp)));
            }
            Next::Wait(until) => {
                let wait = Duration::try_from(until - at.uptime).unwrap_or_default();
                self.wake_at = Instant::now() + wait.min(TICK);
                self.context = Some(context);
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        self.step = None;
        let at = Moment::of(self.clock.as_ref());
        match done {
            Done::Opened(Ok(context)) => {
                self.context = Some(context);
                if std::mem::replace(&mut self.is_lost, false) {
                    self.poller.line_opened(at);
                }
            }
            Done::Opened(Err(problem)) => self.lose(at, &problem),
            Done::Asked(context, request, Ok(answer)) => {
                if matches!(answer, Answer::Data(_)) {
                    self.retry = RETRY_FIRST;
                }
                self.context = context;
                self.wake_at = Instant::now();
                self.poller.on_answer(at, &request, answer);
            }
            Done::Asked(_, _, Err(problem)) => self.lose(at, &problem),
        }
    }

    /// Sets when the line is opened again: later each time, and never all lines of a gateway at once.
    fn lose(&mut self, at: Moment, problem: &Problem) {
        self.is_lost = true;
        self.poller.line_lost(at, problem);
        self.wake_at = Instant::now() + self.retry.mul_f64(rand::rng().random_range(0.75..1.25));
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

async fn ask(mut context: Context, request: Request, limit: Duration, is_tcp: bool) -> Done {
    context.set_slave(Slave(request.address));
    let (first, count) = (request.first, request.count);
    let pdu = match request.function {
        Function::Coils => Pdu::ReadCoils(first, count),
        Function::DiscreteInputs => Pdu::ReadDiscreteInputs(first, count),
        Function::HoldingRegisters => Pdu::ReadHoldingRegisters(first, count),
        Function::InputRegisters => Pdu::ReadInputRegisters(first, count),
    };
    match timeout(limit, context.call(pdu)).await {
        // A TCP answer that comes late would meet the next request's number: a new connection has none on the way.
        Err(_) => Done::Asked((!is_tcp).then_some(context), request, Ok(Answer::Silent)),
        Ok(Ok(Ok(response))) => {
            let answer = match response {
                Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => Answer::Data(Data::Bits(bits)),
                Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) => {
                    Answer::Data(Data::Words(words))
                }
                _ => Answer::Garbled("an answer to another question".into()),
            };
            Done::Asked(Some(context), request, Ok(answer))
        }
        Ok(Ok(Err(exception))) => Done::Asked(Some(context), request, Ok(Answer::Exception(exception.into()))),
        // After an error in a frame the codec holds a rest that would garble the next one too: begin anew.
        Ok(Err(Error::Protocol(error))) => Done::Asked(None, request, Ok(Answer::Garbled(short(&error.to_string())))),
        Ok(Err(Error::Transport(error))) => {
            let is_garbled = matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
            );
            if is_garbled {
                Done::Asked(None, request, Ok(Answer::Garbled(short(&error.to_string()))))
            } else {
                tracing::info!(%error, "the line hung up");
                Done::Asked(None, request, Err(Problem::HungUp))
            }
        }
    }
}

/// An error may quote a whole answer.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
