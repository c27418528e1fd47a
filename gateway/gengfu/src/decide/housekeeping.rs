//! The outbox's housekeeping, on a thread of its own: no alarm waits for it.
//!
//! Owns when it is done: soon after the decider saw that it is due. Refuses to decide what becomes of a disk that fails at it: that poisons the
//! outbox, and the decider recovers it.

use std::sync::Arc;

use gengfu_outbox::{Health, Outbox};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Keeps the outbox in order whenever `due`, until `shutdown` is cancelled. Blocks on the disk: give it a thread of its own.
pub async fn keep_in_order(outbox: Outbox, due: Arc<Notify>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = due.notified() => {}
        }
        while !shutdown.is_cancelled() && !matches!(outbox.health(), Health::Poisoned { .. }) {
            match outbox.upkeep() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => tracing::error!(%error, "the outbox cannot be kept in order"),
            }
        }
    }
}
