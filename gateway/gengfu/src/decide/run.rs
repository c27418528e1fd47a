//! The decider's thread.
//!
//! Owns the loop that collects what has arrived into one batch. It has a thread of its own because a sync blocks; nothing else runs on it.
//! Sensors come first: a batch is filled from the links, then from commands, then from cameras, and cameras that outrun it shed frames.

use std::sync::Arc;
use std::time::Duration;

use gengfu_alarm::observation::Observation;
use gengfu_alarm::output::NeedStill;
use gengfu_alarm::{Rejected, Service, Shelf, Terms, Want};
use gengfu_contract::command::Reply;
use gengfu_contract::event::AlarmData;
use gengfu_contract::slug::Slug;
use gengfu_contract::state::DeviceState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Decider, DrillStatus, Errand, Input, LocalRequest, Order};
use crate::clock::{Clock, StepWatch};
use crate::evidence::Pictures;
use crate::link::LinkBatch;
use crate::uplink::{CommandRequest, UplinkStatus};

/// Most link batches per sync: enough for a building's burst, few enough that the first does not wait for the last.
const LINKS_PER_BATCH: usize = 64;
const COMMANDS_PER_BATCH: usize = 32;
const SCENES_PER_BATCH: usize = 32;
/// Timers are looked at this often; it bounds their lateness, and lets simulated clocks jump.
const TICK: Duration = Duration::from_millis(200);

/// What the decider is joined to.
pub struct Channels {
    /// From the serial links.
    pub links: mpsc::Receiver<LinkBatch>,
    /// From the uplink.
    pub commands: mpsc::Receiver<CommandRequest>,
    /// From cameras and from what the gateway sees of itself.
    pub seen: mpsc::Receiver<Observation>,
    /// From somebody who stands at the box.
    pub local: mpsc::Receiver<LocalRequest>,
    /// Last words on commands that were accepted, from whoever carried them out.
    pub answered: mpsc::Receiver<Reply>,
    /// To the cameras.
    pub stills: mpsc::Sender<NeedStill>,
    /// Where pictures are kept, and ended when they are nobody's evidence.
    pub pictures: Pictures,
    /// To the uplink.
    pub replies: mpsc::Sender<Reply>,
    /// To the nodes, with the command that asks for it.
    pub orders: mpsc::Sender<(String, Order)>,
    /// To whoever does what neither rules nor nodes do, with the command that asks for it; `None`: nobody does, and
    /// [`super::Wiring`] says so.
    pub errands: Option<mpsc::Sender<(String, Errand)>>,
    /// What shall sound and shine on site.
    pub wanted: watch::Sender<Vec<Want>>,
    /// Wakes the uplink after a commit.
    pub stored: Arc<Notify>,
    /// Wakes [`super::keep_in_order`].
    pub housekeeping: Arc<Notify>,
    /// For `status`.
    pub status: watch::Sender<DecideStatus>,
    /// How the uplink is: whether the centre is there.
    pub uplink: watch::Receiver<UplinkStatus>,
}

/// What `status` shows of the decider.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DecideStatus {
    /// Number of this start.
    pub boot: u64,
    /// Since when, absent until ready.
    pub started_at: Option<Timestamp>,
    /// Alarms that are open.
    pub alarms: Vec<AlarmData>,
    /// Devices.
    pub devices: Vec<DeviceState>,
    /// What people decided, and how tests of the path went.
    pub standing: Standing,
    /// What sounds and shines on site.
    #[serde(skip)]
    pub wanted: Vec<Want>,
    /// Batches made durable.
    pub batches: u64,
    /// Inputs judged.
    pub inputs: u64,
}

/// What does not count now, what was rejected, and the drills.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// What the centre has shelved.
    pub shelved: Vec<(Shelf, Terms)>,
    /// Devices out of service or being tested.
    pub services: Vec<(Slug, Service, Terms)>,
    /// How often alarms were rejected by the centre, and why.
    pub rejected: Vec<Rejected>,
    /// Tests of the whole path.
    pub drills: DrillStatus,
}

/// Decides until `shutdown` is cancelled, and finishes the batch it is in. Blocks on the disk: give it a thread of its own.
pub async fn run(mut decider: Decider, mut channels: Channels, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
    decider.wakes(channels.stored.clone());
    let mut status = DecideStatus { boot: decider.boot(), started_at: Some(clock.now()), ..DecideStatus::default() };
    publish(clock.now(), &decider, &channels, &mut status);
    let mut steps = StepWatch::new(clock.as_ref());
    while let Some(first) = next(&mut channels, &shutdown).await {
        if decider.is_housekeeping_due() {
            channels.housekeeping.notify_one();
        }
        let mut inputs: Vec<Input> = first.into_iter().collect();
        fill(&mut channels, &mut inputs);
        if let Some(step) = steps.look(clock.as_ref()) {
            decider.clock_stepped(step);
        }
        decider.centre_is_away(channels.uplink.borrow().centre_is_away());
        let now = clock.now();
        if inputs.is_empty() && decider.next_due().is_none_or(|due| now < due) {
            continue;
        }
        status.inputs += inputs.len() as u64;
        status.batches += 1;
        let effects = decider.process(now, clock.quality(), inputs);
        for still in effects.stills {
            // A full channel means cameras are stuck: the rule's deadline raises the alarm without a picture.
            if channels.stills.try_send(still).is_err() {
                metrics::counter!("gengfu_stills_shed_total").increment(1);
            }
        }
        for discard in &effects.discards {
            channels.pictures.discard(&discard.alarm_id);
        }
        status.wanted.clone_from(&effects.wanted);
        channels.wanted.send_if_modified(|shown| {
            let is_news = *shown != effects.wanted;
            *shown = effects.wanted;
            is_news
        });
        // The centre has "accepted" and waits for the last word; when none comes it repeats the command.
        for order in effects.orders {
            if let Err(error) = channels.orders.try_send(order) {
                tracing::warn!(%error, "an order for a node is not passed on");
                decider.not_passed_on(&error.into_inner().0);
            }
        }
        for errand in effects.errands {
            let Some(errands) = &channels.errands else { continue };
            if let Err(error) = errands.try_send(errand) {
                tracing::warn!(%error, "an errand of the centre is not passed on");
                decider.not_passed_on(&error.into_inner().0);
            }
        }
        for reply in effects.replies {
            if let Err(error) = channels.replies.try_send(reply) {
                tracing::warn!(%error, "an answer to the centre is not sent; the centre repeats the command");
            }
        }
        publish(now, &decider, &channels, &mut status);
    }
}

/// Waits for something to do: an input, a tick (`Some(None)`), or the end (`None`).
async fn next(channels: &mut Channels, shutdown: &CancellationToken) -> Option<Option<Input>> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        Some(batch) = channels.links.recv() => Some(Some(Input::Link(batch))),
        Some(request) = channels.commands.recv() => Some(Some(Input::Command(request))),
        Some(reply) = channels.answered.recv() => Some(Some(Input::Answered(reply))),
        Some(request) = channels.local.recv() => Some(Some(Input::Local(request))),
        Some(seen) = channels.seen.recv() => Some(Some(Input::Seen(seen))),
        () = tokio::time::sleep(TICK) => Some(None),
    }
}

fn fill(channels: &mut Channels, inputs: &mut Vec<Input>) {
    let links = std::iter::from_fn(|| channels.links.try_recv().ok()).take(LINKS_PER_BATCH).map(Input::Link);
    inputs.extend(links);
    let commands =
        std::iter::from_fn(|| channels.commands.try_recv().ok()).take(COMMANDS_PER_BATCH).map(Input::Command);
    inputs.extend(commands);
    let answered =
        std::iter::from_fn(|| channels.answered.try_recv().ok()).take(COMMANDS_PER_BATCH).map(Input::Answered);
    inputs.extend(answered);
    let seen = std::iter::from_fn(|| channels.seen.try_recv().ok()).take(SCENES_PER_BATCH).map(Input::Seen);
    inputs.extend(seen);
    metrics::gauge!("gengfu_decide_batch_inputs").set(u32::try_from(inputs.len()).unwrap_or(u32::MAX));
}

fn publish(now: Timestamp, decider: &Decider, channels: &Channels, status: &mut DecideStatus) {
    status.standing = decider.standing(now);
    status.alarms = decider.open_alarms();
    status.devices = decider.devices();
    channels.status.send_replace(status.clone());
}
