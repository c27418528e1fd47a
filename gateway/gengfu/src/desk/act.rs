//! One order without a live view: give it, wait for the gateway's answer, say what it was. For scripts, tests and quick hands.
//!
//! Owns a short connection of its own, beside the desk that may be running, and the search for the gateway when only an alarm or a device
//! was named: their retained topics say whose they are. A command has one id however often the connection must be made anew, so the gateway
//! does it once. It refuses to call something done that was not answered.

use std::path::PathBuf;
use std::time::Duration;

use gengfu_contract::chain;
use gengfu_contract::command::{Outcome, Receipt, Reply, SnapshotData};
use gengfu_contract::evidence::EvidenceJoiner;
use gengfu_contract::query::ReplyJoiner;
use gengfu_contract::slug::Slug;
use gengfu_contract::topic::{ROOT, Topics, Up, parse_up};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evidence;
use super::model::Picture;
use super::orders::Action;
use super::outgoing::{command_message, json};
use crate::clock::Clock;
use crate::uplink::connection::{Arrived, Connection, Lost, Signal, Subscription};
use crate::uplink::options::SessionOptions;
use crate::uplink::{BrokerConfig, OpenError};

/// Wait before connecting again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Largest picture taken.
const PICTURE_BYTES_MAX: usize = 64 << 20;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Act {
    /// Which broker, and as whom. The client id must be nobody else's.
    pub broker: BrokerConfig,
    /// The site.
    pub site: Slug,
    /// For whom; absent to find out by the alarm or the device.
    pub gateway: Option<Slug>,
    /// Who orders it.
    pub operator: String,
    /// What.
    pub action: Action,
    /// Id of the command, nobody else's.
    pub cmd_id: String,
    /// How long to wait for the answer.
    pub within: Duration,
    /// Where the picture of a snapshot is written.
    pub evidence_dir: PathBuf,
}

/// What the gateway answered.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Who.
    pub gateway: Slug,
    /// Id of the command.
    pub cmd_id: String,
    /// Its verb.
    pub verb: &'static str,
    /// What became of it. `accepted` when nothing more came in time.
    pub outcome: Outcome,
    /// The last reply; its `data` is left out when `items` has it.
    pub reply: Reply,
    /// What a query was answered with, all parts together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<Value>>,
    /// Where the picture of a snapshot was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Its bytes hash to what the reply names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_genuine: Option<bool>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// An option or certificate.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The broker does not let us.
    #[error("the broker refuses ({0}); allow this user what the centre is allowed, see config/broker/acl")]
    Refused(String),
    /// Nobody knows the alarm or device.
    #[error("no gateway of this site has {0}; name the gateway with --gateway, or check the name with `gengfu desk`")]
    Unknown(String),
    /// Nothing came.
    #[error(
        "gateway {gateway} did not answer within {within_s} s; it may still do it until the command expires. Is it online? {last}"
    )]
    NoAnswer {
        /// Who.
        gateway: Slug,
        /// How long it was waited.
        within_s: u64,
        /// The last fault of the connection, if any.
        last: String,
    },
    /// No connection in time.
    #[error("no connection to the broker within {within_s} s: {last}")]
    Offline {
        /// How long it was tried.
        within_s: u64,
        /// The last fault.
        last: String,
    },
    /// A picture that cannot be written.
    #[error("cannot write the picture into {0}: {1}")]
    Picture(PathBuf, std::io::Error),
}

struct Doing<'a> {
    act: &'a Act,
    clock: &'a dyn Clock,
    gateway: Option<Slug>,
    is_connected: bool,
    is_sent: bool,
    reply: Option<Reply>,
    items: ReplyJoiner,
    all: Option<Vec<Value>>,
    parts: EvidenceJoiner,
    /// Path and SHA-256 of the picture.
    picture: Option<(String, String)>,
    last: String,
}

/// Gives the order and waits for its answer.
///
/// # Errors
/// [`ActError`] when there is no answer. A refusal is an answer.
pub async fn act(act: &Act, clock: &dyn Clock) -> Result<Answer, ActError> {
    let mut doing = Doing {
        act,
        clock,
        gateway: act.gateway.clone(),
        is_connected: false,
        is_sent: false,
        reply: None,
        items: ReplyJoiner::default(),
        all: None,
        parts: EvidenceJoiner::new(PICTURE_BYTES_MAX),
        picture: None,
        last: String::new(),
    };
    let within_s = act.within.as_secs();
    // The broker is tried until it answers; a wrong option is told at once.
    Connection::open(&act.broker, &session())?;
    let answered = tokio::time::timeout(act.within, doing.until_answered()).await;
    if let Ok(Err(fault)) = answered {
        return Err(fault);
    }
    let Doing { gateway, reply, all, picture, last, is_connected, .. } = doing;
    let Some(gateway) = gateway else {
        let what = act.action.alarm_id().map_or_else(|| act.action.about(), |id| format!("alarm {id}"));
        return Err(if is_connected { ActError::Unknown(what) } else { ActError::Offline { within_s, last } });
    };
    let Some(mut reply) = reply else {
        return Err(if is_connected {
            ActError::NoAnswer { gateway, within_s, last }
        } else {
            ActError::Offline { within_s, last }
        });
    };
    if all.is_some() {
        reply.data = None;
    }
    let named = reply.data.as_ref().and_then(|data| SnapshotData::deserialize(data).ok());
    let (picture, hash) = picture.unzip();
    let is_genuine = named.zip(hash).map(|(named, hash)| named.sha256.eq_ignore_ascii_case(&hash));
    let verb = act.action.command(&act.operator, Timestamp::UNIX_EPOCH).verb();
    Ok(Answer {
        gateway,
        cmd_id: act.cmd_id.clone(),
        verb,
        outcome: reply.outcome,
        reply,
        items: all,
        picture,
        is_genuine,
    })
}

fn session() -> SessionOptions {
    SessionOptions {
        session_expiry: Duration::ZERO,
        will: None,
        on_wire_max: 16,
        channel_messages: 16,
        incoming_bytes_max: 16 << 20,
    }
}

impl Doing<'_> {
    async fn until_answered(&mut self) -> Result<(), ActError> {
        loop {
            match self.connection().await? {
                Ok(()) => return Ok(()),
                Err(lost) => self.last = lost.to_string(),
            }
            // Not answered on that connection: the same command goes again, and is done once.
            self.is_sent = false;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn connection(&mut self) -> Result<Result<(), Lost>, ActError> {
        let mut connection = Connection::open(&self.act.broker, &session())?;
        loop {
            let signal = match connection.next().await {
                Ok(signal) => signal,
                Err(lost) => return Ok(Err(lost)),
            };
            match signal {
                Signal::Connected { .. } => {
                    self.is_connected = true;
                    if connection.subscribe(&self.subscriptions()).is_err() {
                        return Ok(Err(Lost::new("the MQTT client takes no more messages", "try again")));
                    }
                }
                Signal::Subscribed(refusals) => {
                    if let Some(reason) = refusals.into_iter().flatten().next() {
                        return Err(ActError::Refused(reason));
                    }
                    self.send(&connection);
                }
                Signal::Acked { refusal: Some(reason), .. } => return Err(ActError::Refused(reason.text)),
                Signal::Message(arrived) => {
                    self.take(&arrived).await?;
                    self.send(&connection);
                }
                _ => {}
            }
            if self.is_answered() {
                self.leave(&mut connection).await;
                return Ok(Ok(()));
            }
        }
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let cmd_id = &self.act.cmd_id;
        let whose = match (&self.gateway, &self.act.action) {
            (Some(_), _) => None,
            (None, action) => action.alarm_id().map(|id| format!("alarm/{id}")).or_else(|| device(action)),
        };
        let below = [format!("reply/{cmd_id}"), format!("evidence/{cmd_id}/+"), format!("evidence/{cmd_id}/+/+/+")];
        let filter = |below: String| format!("{ROOT}/{}/+/{below}", self.act.site);
        let filters = below.into_iter().chain(whose).map(filter);
        filters.map(|filter| Subscription { filter, not_own: false, at_most_once: false }).collect()
    }

    /// Sends the command, once a connection and as soon as it is known to whom.
    fn send(&mut self, connection: &Connection) {
        let Some(gateway) = self.gateway.as_ref().filter(|_| !self.is_sent) else { return };
        let command = self.act.action.command(&self.act.operator, self.clock.now());
        let message = command_message(&self.act.site, gateway, &self.act.cmd_id, &command);
        self.is_sent = connection.publish(message).is_ok();
    }

    async fn take(&mut self, arrived: &Arrived) -> Result<(), ActError> {
        let Some((gateway, up)) = parse_up(&self.act.site, &arrived.topic) else { return Ok(()) };
        match up {
            Up::Alarm(_) | Up::Device(_) if !arrived.payload.is_empty() && self.gateway.is_none() => {
                self.gateway = Some(gateway);
            }
            Up::Reply(id) if id == self.act.cmd_id && self.gateway.as_ref() == Some(&gateway) => {
                let Ok(reply) = serde_json::from_slice::<Reply>(&arrived.payload) else { return Ok(()) };
                if let Ok(Some(items)) = self.items.take(&reply) {
                    self.all = Some(items);
                }
                self.reply = Some(reply);
            }
            Up::Evidence(id, n) if id == self.act.cmd_id => self.picture(gateway, n, &arrived.payload).await?,
            Up::EvidencePart { id, n, part, parts } if id == self.act.cmd_id => {
                if let Ok(Some(whole)) = self.parts.take(&id, n, part, parts, &arrived.payload) {
                    self.picture(gateway, n, &whole).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn picture(&mut self, gateway: Slug, n: u32, bytes: &[u8]) -> Result<(), ActError> {
        let folder = &self.act.evidence_dir;
        std::fs::create_dir_all(folder).map_err(|fault| ActError::Picture(folder.clone(), fault))?;
        let (alarm_id, sha256) = (self.act.cmd_id.clone(), hex::encode(chain::hash(bytes)));
        let hash = sha256.clone();
        let picture = Picture { gateway, alarm_id, n, sha256, bytes: bytes.to_vec() };
        let path = evidence::write(folder, &picture).await.map_err(|fault| ActError::Picture(folder.clone(), fault))?;
        self.picture = Some((path, hash));
        Ok(())
    }

    /// Done, refused or in conflict; with all of its parts, and its picture.
    fn is_answered(&self) -> bool {
        let Some(reply) = self.reply.as_ref().filter(|reply| reply.outcome != Outcome::Accepted) else { return false };
        match (&self.act.action, reply.outcome) {
            (Action::Query { .. }, Outcome::Done) => self.all.is_some(),
            (Action::Snapshot { .. }, Outcome::Done) => self.picture.is_some(),
            _ => true,
        }
    }

    /// Receives the picture, in case no desk runs that does, and goes.
    async fn leave(&mut self, connection: &mut Connection) {
        if let (Some(_), Some(gateway)) = (&self.picture, &self.gateway) {
            let body = Receipt { ids: vec![format!("{}/1", self.act.cmd_id)], received_at: self.clock.now() };
            let topic = Topics::new(&self.act.site, gateway).command("receipt", &format!("{}-r", self.act.cmd_id));
            // Lost with the connection, it is only sent once more.
            let _sent = connection.publish(json(topic, &body));
        }
        if connection.disconnect().is_ok() {
            let gone = async { while !matches!(connection.next().await, Ok(Signal::Disconnected) | Err(_)) {} };
            let _left = tokio::time::timeout(Duration::from_secs(1), gone).await;
        }
    }
}

/// The retained topic that says which gateway a device belongs to.
fn device(action: &Action) -> Option<String> {
    let device = match action {
        Action::Shelve { device, .. }
        | Action::Unshelve { device, .. }
        | Action::Sounder { device, .. }
        | Action::Test { device } => device,
        Action::Snapshot { camera } => camera,
        Action::Visit { door, .. } => door,
        Action::Query { devices, .. } => devices.first()?,
        Action::Ack { .. } | Action::Reset { .. } | Action::Case(_) | Action::Config { .. } => return None,
    };
    Some(format!("device/{device}"))
}
