//! What the desk tells: one value per happening, for the person watching and, one JSON object a line, for programs.
//!
//! Owns the stable form of `gengfu desk --json` (see `docs/desk.md`): members are added, never renamed or removed. It refuses to
//! decide what is worth telling; [`super::model`] does.

use gengfu_contract::command::Reply;
use gengfu_contract::event::{AlarmData, EventType};
use gengfu_contract::slug::Slug;
use gengfu_contract::state::{GatewayStatus, Statement};
use jiff::Timestamp;
use serde::Serialize;

use super::findings::Finding;
use super::presence::There;
use super::sequence::Arrival;

/// A line for the person watching, and for `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DeskEvent {
    /// The desk is connected to the broker.
    Connected {
        /// `host:port`.
        broker: String,
    },
    /// The desk is not.
    Disconnected {
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A gateway said how it is.
    Gateway {
        /// Which.
        gateway: Slug,
        /// What it said.
        status: GatewayStatus,
    },
    /// The desk's judgement whether a gateway is there has changed.
    Presence {
        /// Which.
        gateway: Slug,
        /// Is it there.
        there: There,
        /// Since when that is so; absent when nothing is known.
        since: Option<Timestamp>,
    },
    /// A gateway stated its journal.
    Statement {
        /// Whose.
        gateway: Slug,
        /// What it said.
        statement: Statement,
    },
    /// The desk's judgement whether everything of a gateway is here has changed.
    Proof {
        /// Whose.
        gateway: Slug,
        /// Nothing is wrong (it may be that something is still on its way).
        is_whole: bool,
        /// Distinct events received.
        received: u64,
        /// The highest of them.
        last: Option<u64>,
        /// What there is to say; empty when everything is here.
        findings: Vec<Finding>,
    },
    /// A transition of an alarm.
    Alarm {
        /// Whose.
        gateway: Slug,
        /// Which event.
        id: String,
        /// Its number.
        sequence: u64,
        /// What happened.
        what: EventType,
        /// The alarm after it.
        alarm: Box<AlarmData>,
        /// From sensed to this desk.
        latency_ms: i64,
        /// Sent late, from the store.
        historical: bool,
        /// New, duplicate or conflict.
        arrival: Arrival,
    },
    /// Any other event.
    Observed {
        /// Whose.
        gateway: Slug,
        /// Which event.
        id: String,
        /// Its number.
        sequence: u64,
        /// What happened.
        what: EventType,
        /// Whom it is about.
        subject: String,
        /// As in "door.opened", for devices.
        detail: Option<String>,
        /// From sensed to this desk.
        latency_ms: i64,
        /// New, duplicate or conflict.
        arrival: Arrival,
    },
    /// A picture arrived.
    Picture {
        /// Whose.
        gateway: Slug,
        /// Of which alarm, or for which `snapshot` command.
        alarm_id: String,
        /// Which.
        n: u32,
        /// Where the desk wrote it.
        path: String,
        /// It is the one the event (or the reply) named; absent when that is not here yet.
        genuine: Option<bool>,
    },
    /// A gateway answered a command.
    Reply {
        /// Whose.
        gateway: Slug,
        /// The answer.
        reply: Reply,
        /// The verb of the command, if this desk gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        verb: Option<String>,
        /// What that command was about.
        #[serde(skip_serializing_if = "Option::is_none")]
        about: Option<String>,
    },
    /// A receipt or another command went out.
    Sent {
        /// To whom.
        gateway: Slug,
        /// The verb.
        verb: String,
        /// How many ids, which alarm, which device.
        about: String,
    },
    /// Something that is not of this contract, or that the desk could not store.
    Fault {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}
