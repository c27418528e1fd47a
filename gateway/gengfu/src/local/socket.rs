//! The local socket: one JSON line asks, one JSON line answers.
//!
//! Owns the protocol between the command line and the running gateway. A question it does not understand is answered with an error, never with silence.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use gengfu_alarm::Service;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::report::{Report, Sources};
use crate::decide::{LocalOrder, LocalRequest};
use crate::link::bundle::Bundle;
use crate::link::{LinkInlets, Order};
use crate::settings::{self, Waivers};
use crate::signed::PublicKey;

/// Longest question, bytes.
const QUESTION_MAX_BYTES: u64 = 4096;
/// Questions answered at the same time; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// A person waits for the answer: a gateway that has not answered by then is stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// Everything.
    Status,
    /// The journey of one event or picture.
    Trace {
        /// Its id.
        id: String,
    },
    /// A page of the journal, for `gengfu export`.
    Journal {
        /// From this sequence on.
        from: u64,
        /// At most so many events.
        limit: usize,
    },
    /// Silence the sounders on site.
    Silence {
        /// Of this dwelling only.
        dwelling: Option<String>,
        /// For how long, seconds.
        seconds: u64,
    },
    /// Take a device out of service, or test it.
    Serve {
        /// The device.
        device: Slug,
        /// Which of both.
        service: Service,
        /// For how long, seconds.
        seconds: u64,
        /// Why.
        reason: String,
        /// Who.
        who: String,
    },
    /// Give it back.
    GiveBack {
        /// The device.
        device: Slug,
        /// Who.
        who: String,
    },
    /// Test the whole path now.
    Drill,
    /// Update a node's firmware.
    Update {
        /// The node.
        node: Slug,
        /// The signed bundle, on this machine.
        bundle: PathBuf,
    },
    /// Try a configuration.
    TryConfig {
        /// The signed bundle, on this machine.
        bundle: PathBuf,
        /// What the person at the box waives.
        waivers: Waivers,
        /// Who.
        who: String,
    },
    /// Go back to the configuration before.
    ConfigBack {
        /// Who.
        who: String,
    },
    /// Look at certificates now, and try what waits to be tried.
    ReloadIdentity,
}

/// What the socket may set in motion.
#[derive(Clone)]
pub struct Inlets {
    /// To the decider.
    pub decider: mpsc::Sender<LocalRequest>,
    /// To the nodes.
    pub nodes: LinkInlets,
    /// Files of the public keys whose firmware is trusted.
    pub firmware_keys: Vec<PathBuf>,
    /// To the keeper of the configuration; absent where bundles are not taken.
    pub settings: Option<mpsc::Sender<settings::Order>>,
    /// To the keeper of the certificate.
    pub reload_identity: Arc<Notify>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Box<Report>),
    /// To [`Query::Trace`]; `None` for an id that is not in the journal.
    Trace(Option<Box<Trace>>),
    /// To [`Query::Journal`].
    Journal(Box<super::journal::JournalPage>),
    /// To an order: it is carried out, or for [`Query::Update`] and [`Query::ReloadIdentity`] on its way.
    Ordered,
    /// The question was not understood or could not be answered.
    Error(String),
}

/// The journey of one item.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trace {
    /// Its id.
    pub id: String,
    /// Its number in the journal.
    pub sequence: Option<u64>,
    /// Lane.
    pub lane: String,
    /// "pending", "received" or "dropped".
    pub outcome: String,
    /// When it was sensed.
    pub sensed_at: Option<Timestamp>,
    /// When the rule decided (alarms).
    pub decided_at: Option<Timestamp>,
    /// When it was journaled.
    pub stored_at: Option<Timestamp>,
    /// When it was last handed to the connection.
    pub sent_at: Option<Timestamp>,
    /// When the broker acknowledged that.
    pub broker_acked_at: Option<Timestamp>,
    /// When the centre's receipt came.
    pub received_at: Option<Timestamp>,
    /// How often it was sent since the gateway's start.
    pub attempts: u32,
    /// The event as journaled.
    pub event: Value,
}

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Creating it.
    #[error("cannot listen on {path}: {source}; check the folder and its permissions")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Reaching the gateway.
    #[error(
        "no gateway answers on {path}: {source}; is it running (systemctl status gengfu)? Another socket: --socket"
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Talking to it.
    #[error("the gateway's answer on {path} was cut off: {source}")]
    Talk {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It answered something else.
    #[error("the gateway's answer is not understood: {0}; is it another version than this command?")]
    Answer(#[from] serde_json::Error),
    /// It answered that it cannot.
    #[error("{0}")]
    Refused(String),
}

/// Opens the socket; an old one that nobody serves any more is replaced.
///
/// # Errors
/// [`SocketError::Listen`].
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |source| SocketError::Listen { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(listener)
}

/// Answers until shutdown.
pub async fn serve(listener: UnixListener, sources: Sources, inlets: Inlets, shutdown: CancellationToken) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.next(), if !connections.is_empty() => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "local socket");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => connections.push(tokio::time::timeout(ANSWER_WITHIN, answer(stream, &sources, &inlets))),
                Err(error) => tracing::warn!(%error, "local socket"),
            }
        }
    }
}

async fn answer(stream: UnixStream, sources: &Sources, inlets: &Inlets) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read).take(QUESTION_MAX_BYTES).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(Query::Status) => Answer::Status(Box::new(sources.report())),
        Ok(Query::Trace { id }) => match sources.outbox.trace(&id) {
            Ok(trace) => Answer::Trace(trace.map(|record| Box::new(trace_of(id, record)))),
            Err(error) => Answer::Error(error.to_string()),
        },
        Ok(Query::Journal { from, limit }) => match super::journal::page(&sources.outbox, from, limit) {
            Ok(page) => Answer::Journal(Box::new(page)),
            Err(error) => Answer::Error(error.to_string()),
        },
        Ok(Query::Silence { dwelling, seconds }) => {
            order(inlets, LocalOrder::Silence { dwelling, lasts: Duration::from_secs(seconds) }).await
        }
        Ok(Query::Serve { device, service, seconds, reason, who }) => {
            order(inlets, LocalOrder::Serve { device, service, lasts: Duration::from_secs(seconds), reason, who }).await
        }
        Ok(Query::GiveBack { device, who }) => order(inlets, LocalOrder::GiveBack { device, who }).await,
        Ok(Query::Drill) => order(inlets, LocalOrder::Drill).await,
        Ok(Query::TryConfig { bundle, waivers, who }) => {
            let read = std::fs::read(&bundle);
            match read {
                Ok(bundle) => change(inlets, |answer| settings::Order::Try { bundle, waivers, who, answer }).await,
                Err(error) => Answer::Error(format!(
                    "{}: {error}; copy it where the gateway's user can read it",
                    bundle.display()
                )),
            }
        }
        Ok(Query::ConfigBack { who }) => change(inlets, |answer| settings::Order::Back { who, answer }).await,
        Ok(Query::ReloadIdentity) => {
            inlets.reload_identity.notify_one();
            Answer::Ordered
        }
        Ok(Query::Update { node, bundle }) => match update(inlets, &node, &bundle).await {
            Ok(()) => Answer::Ordered,
            Err(why) => Answer::Error(why),
        },
        Err(error) => Answer::Error(format!("question not understood: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Hands an order to the decider; its answer comes when the order is durable.
async fn order(inlets: &Inlets, order: LocalOrder) -> Answer {
    let (answer, answered) = oneshot::channel();
    if let Err(error) = inlets.decider.try_send(LocalRequest { order, answer }) {
        return Answer::Error(format!("the gateway does not take the order now: {error}; try again"));
    }
    match answered.await {
        Ok(Ok(())) => Answer::Ordered,
        Ok(Err(why)) => Answer::Error(why.en),
        Err(_) => Answer::Error("the gateway is stopping; try again when it runs".into()),
    }
}

/// Hands a change to the keeper of the configuration; its answer comes when the change is on the disk.
async fn change(inlets: &Inlets, order: impl FnOnce(oneshot::Sender<Result<(), Text>>) -> settings::Order) -> Answer {
    let Some(settings) = &inlets.settings else {
        return Answer::Error("bundles are not taken here: set [config] trusted, then restart the gateway".into());
    };
    let (answer, answered) = oneshot::channel();
    if let Err(error) = settings.try_send(order(answer)) {
        return Answer::Error(format!("the gateway does not take it now: {error}; try again"));
    }
    match answered.await {
        Ok(Ok(())) => Answer::Ordered,
        Ok(Err(why)) => Answer::Error(why.en),
        Err(_) => Answer::Error("the gateway is stopping; try again when it runs".into()),
    }
}

/// Checks a bundle as a release's receiver must, and hands it to the node's link.
async fn update(inlets: &Inlets, node: &Slug, bundle: &Path) -> Result<(), String> {
    if inlets.firmware_keys.is_empty() {
        return Err("no key is trusted to sign firmware: set [firmware] trusted in the configuration".into());
    }
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let key = |path: &PathBuf| PublicKey::read(path).map_err(|error| error.to_string());
    let keys = inlets.firmware_keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    let parsed = Bundle::from_bytes(&read(bundle)?).map_err(|error| format!("{}: {error}", bundle.display()))?;
    let verified = parsed.verify(&keys).map_err(|error| format!("{}: {error}", bundle.display()))?;
    let answer = inlets.nodes.order(node, Order::Update(Arc::new(verified))).map_err(|refusal| refusal.to_string())?;
    answer.await.map_err(|_| "the node's port has ended".to_owned())?.map_err(|refusal| refusal.to_string())
}

fn trace_of(id: String, record: gengfu_outbox::TraceRecord) -> Trace {
    let event: Value = serde_json::from_slice(&record.bytes).unwrap_or(Value::Null);
    let at = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let in_event = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).and_then(|t| t.parse().ok());
    Trace {
        id,
        sequence: record.sequence,
        lane: record.lane.to_string(),
        outcome: format!("{:?}", record.outcome).to_lowercase(),
        sensed_at: in_event("/time"),
        decided_at: in_event("/data/decided_at"),
        stored_at: at(Some(record.appended_at_ms)),
        sent_at: at(record.sent_at_ms),
        broker_acked_at: at(record.broker_acked_at_ms),
        received_at: at(record.received_at_ms),
        attempts: record.attempts,
        event,
    }
}

/// Asks a running gateway.
///
/// # Errors
/// [`SocketError`]: no gateway there, or its answer is not understood.
pub async fn ask(path: &Path, query: &Query) -> Result<Answer, SocketError> {
    let connect = |source| SocketError::Connect { path: path.to_owned(), source };
    let talk = |source| SocketError::Talk { path: path.to_owned(), source };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
    let mut stream = UnixStream::connect(path).await.map_err(connect)?;
    let mut question = serde_json::to_vec(query)?;
    question.push(b'\n');
    stream.write_all(&question).await.map_err(talk)?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    let read = tokio::time::timeout(2 * ANSWER_WITHIN, reader.read_to_string(&mut line));
    read.await.map_err(|_| talk(late()))?.map_err(talk)?;
    match serde_json::from_str(&line)? {
        Answer::Error(text) => Err(SocketError::Refused(text)),
        answer => Ok(answer),
    }
}
