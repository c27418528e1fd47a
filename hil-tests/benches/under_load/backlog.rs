//! A backlog as an outage leaves it: events journaled by the decider's own author, in the gateway's own store.

use std::fs;
use std::path::Path;

use gengfu::decide::events::Author;
use gengfu::decide::lane_of;
use gengfu_alarm::observation::{Observation, What};
use gengfu_contract::event::ClockQuality;
use gengfu_outbox::{Lane, Options, Outbox};
use hil_tests::desk::slug;
use hil_tests::site::{GATEWAY, SITE};
use hil_tests::{Result, RigError};
use jiff::{SignedDuration, Timestamp};

/// Events in one commit.
const BATCH: usize = 500;

/// Stores `count` door events of the last hours in `data_dir`.
pub fn store(data_dir: &Path, count: usize) -> Result<()> {
    let fail = |e: &dyn std::fmt::Display| RigError::failed("store a backlog", e);
    fs::create_dir_all(data_dir).map_err(|e| fail(&e))?;
    let mut options = Options::new(data_dir.join("outbox"));
    options.bounds = options.bounds.with(Lane::Telemetry, 1_000_000);
    let outbox = Outbox::open(options).map_err(|e| fail(&e))?;
    let author = Author::new(&slug(SITE)?, &slug(GATEWAY)?);
    let now = Timestamp::try_from(crate::now()).map_err(|e| fail(&e))?;
    let device = slug("door-1")?;
    for first in (0..count).step_by(BATCH) {
        let mut batch = outbox.batch();
        for n in first..count.min(first + BATCH) {
            let at = now - SignedDuration::from_millis(100 * i64::try_from(count - n).unwrap_or(0));
            let what = What::Door { open: n % 2 == 0, repaired: false };
            let seen =
                Observation { device: device.clone(), sensed_at: at, clock: ClockQuality::Synced, origin: None, what };
            let Some(draft) = author.observed(at, &batch.position(), &seen) else { continue };
            let id = draft.id.clone();
            batch
                .append(lane_of(draft.lane), &id, at.as_millisecond(), |place| author.journal(at, &place, draft))
                .map_err(|e| fail(&e))?;
        }
        batch.commit().map_err(|e| fail(&e))?;
    }
    Ok(())
}
