//! The way of a line's or broker's observations to the decider.
//!
//! Owns the batch on its way and what its answer means. Refuses to wait for the disk: while one batch is on its way the line is asked and the broker
//! listened to as before.

use gengfu_alarm::observation::Observation;
use gengfu_contract::slug::Slug;
use tokio::sync::{mpsc, oneshot, watch};

use super::{SensorStats, cursor_key};
use crate::link::LinkBatch;

/// What has observations to hand over: a line's poller, a broker's inbox.
pub trait Source {
    /// The device name of the line or broker.
    fn name(&self) -> &Slug;
    /// Whether a batch can be taken.
    fn has_batch(&self) -> bool;
    /// The next observations, and what is to be stored with them under [`cursor_key`].
    fn take_batch(&mut self) -> Option<(Vec<Observation>, Vec<u8>)>;
    /// The batch is durable.
    fn committed(&mut self);
    /// The disk refused the batch; it is handed over again.
    fn failed(&mut self);
    /// What a technician sees.
    fn stats(&mut self) -> &SensorStats;
}

/// The batch on its way, if there is one.
#[derive(Debug, Default)]
pub struct Handover {
    pending: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Handover {
    /// Whether the decider should be given a batch now.
    #[must_use]
    pub fn is_due(&self, source: &impl Source) -> bool {
        self.pending.is_none() && source.has_batch()
    }

    /// Gives the next batch.
    pub fn give(&mut self, source: &mut impl Source, permit: mpsc::Permit<'_, LinkBatch>) {
        let key = cursor_key(source.name());
        if let Some((observations, told)) = source.take_batch() {
            let (done, pending) = oneshot::channel();
            self.pending = Some(pending);
            permit.send(LinkBatch { observations, cursor: (key, told), done });
        }
    }

    /// The decider's answer to the batch on its way; never, where there is none. Cancelling it loses nothing.
    pub async fn answered(&mut self) -> Result<(), String> {
        match &mut self.pending {
            Some(done) => done.await.unwrap_or_else(|_| Err("the decider gave no answer".into())),
            None => std::future::pending().await,
        }
    }

    /// Takes that answer.
    pub fn settle(&mut self, source: &mut impl Source, stored: Result<(), String>) {
        self.pending = None;
        match stored {
            Ok(()) => source.committed(),
            Err(why) => {
                tracing::error!(name = %source.name(), %why, "not stored, so not acknowledged; it is handed over again");
                source.failed();
            }
        }
    }
}

/// Shows a source's figures when they have changed.
pub fn show(source: &mut impl Source, status: &watch::Sender<SensorStats>) {
    let stats = source.stats();
    status.send_if_modified(|shown| {
        let is_news = shown != stats;
        if is_news {
            shown.clone_from(stats);
        }
        is_news
    });
}
