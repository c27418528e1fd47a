//! The gateway's side: a store as an outage leaves it, and the real uplink over it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gengfu::clock::{Clock, SystemClock};
use gengfu::config::Protocol;
use gengfu::decide::events::Author;
use gengfu::decide::lane_of;
use gengfu::uplink::copies::event_copy;
use gengfu::uplink::{self, Board, BrokerConfig, Identity, UplinkConfig, UplinkParts, UplinkStatus};
use gengfu_alarm::observation::{Observation, What};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use gengfu_outbox::{Lane, Options, Outbox};
use hil_tests::Result;
use hil_tests::desk::slug;
use jiff::SignedDuration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::centre::Centre;
use crate::{PATIENCE, WINDOW, fail};

/// Events in one commit.
const BATCH: usize = 500;
/// Everything here is from an outage of hours.
const AN_HOUR: SignedDuration = SignedDuration::from_hours(1);

/// How long it took.
pub struct Took {
    /// Until the centre had the last.
    pub arrived: Duration,
    /// Until the last receipt was settled.
    pub received: Duration,
}

fn names() -> Result<(Slug, Slug)> {
    Ok((slug("bench")?, slug("drain")?))
}

fn open(dir: &Path) -> Result<Outbox> {
    let mut options = Options::new(dir.join("outbox"));
    options.bounds = options.bounds.with(Lane::Telemetry, 10_000_000);
    Outbox::open(options).map_err(|e| fail("open the store")(&e))
}

/// Stores door events of the last hours, and gives the bytes that will be sent for each.
pub fn store(dir: &Path, count: usize) -> Result<Vec<Vec<u8>>> {
    let fail = fail("store a backlog");
    let outbox = open(dir)?;
    let (site, gateway) = names()?;
    let author = Author::new(&site, &gateway);
    let now = SystemClock.now();
    let mut bodies = Vec::with_capacity(count);
    for first in (0..count).step_by(BATCH) {
        let mut batch = outbox.batch();
        for n in first..count.min(first + BATCH) {
            let at = now - AN_HOUR - SignedDuration::from_millis(100 * i64::try_from(count - n).unwrap_or(0));
            let what = What::Door { open: n % 2 == 0, repaired: false };
            let device = slug(&format!("door-{}", n % 40))?;
            let seen = Observation { device, sensed_at: at, clock: ClockQuality::Synced, origin: None, what };
            let Some(draft) = author.observed(at, &batch.position(), &seen) else { continue };
            let id = draft.id.clone();
            batch
                .append(lane_of(draft.lane), &id, at.as_millisecond(), |place| {
                    let bytes = author.journal(at, &place, draft);
                    bodies.push(event_copy(&bytes, now, 1, Duration::from_secs(30)).body);
                    bytes
                })
                .map_err(|e| fail(&e))?;
        }
        batch.commit().map_err(|e| fail(&e))?;
    }
    Ok(bodies)
}

/// Lets the backlog leave.
pub fn drain(dir: &Path, port: u16, events: usize) -> Result<Took> {
    let outbox = open(dir)?;
    let centre = Centre::start(port, events, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| fail("start the uplink's runtime")(&e))?;
    let (site, gateway) = names()?;
    let broker = BrokerConfig::new("127.0.0.1", port, Protocol::Mqtt5, "drain");
    let mut config = UplinkConfig::new(broker, Identity { site, gateway, boot: 1, version: "bench".into() });
    config.limits.window = usize::from(WINDOW);
    // A backlog leaves through the whole window: no place is kept for an alarm that will not come here.
    config.limits.life_safety_reserve = 0;
    config.limits.backlog_per_s = 0;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (commands, _commands) = mpsc::channel(16);
    let (_replies, replies) = mpsc::channel(16);
    let (status, mut shown) = watch::channel(UplinkStatus::starting(&config.broker, clock.now()));
    let shutdown = CancellationToken::new();
    let parts = UplinkParts {
        outbox: outbox.clone(),
        board: Board::new(),
        clock,
        wake: Arc::new(Notify::new()),
        commands,
        replies,
        status,
        shutdown: shutdown.clone(),
    };
    let began = Instant::now();
    let task = runtime.spawn(uplink::run(config, parts));
    let settled = runtime.block_on(async {
        let empty = |_: &UplinkStatus| outbox.waiting().iter().all(|n| *n == 0) && is_settled(&outbox);
        tokio::time::timeout(PATIENCE, shown.wait_for(empty)).await.map(|status| status.map(|_| Instant::now()))
    });
    let settled = settled.map_err(|e| fail("await the last receipt")(&e))?.map_err(|e| fail("read the status")(&e))?;
    let arrived = centre.done()?;
    shutdown.cancel();
    let ended = runtime.block_on(task).map_err(|e| fail("end the uplink")(&e))?;
    ended.map_err(|e| fail("run the uplink")(&e))?;
    Ok(Took { arrived: arrived.duration_since(began), received: settled.duration_since(began) })
}

fn is_settled(outbox: &Outbox) -> bool {
    outbox.stats().lanes.iter().all(|lane| lane.pending == 0)
}
