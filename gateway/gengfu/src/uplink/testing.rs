//! Events and times for the tests of this module. Owns nothing of the product.

use gengfu_contract::chain;
use gengfu_contract::event::{Event, EventType};
use gengfu_contract::words::Lane;
use gengfu_outbox::{Options, Outbox};
use jiff::Timestamp;

/// A second of simulated time.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// A small event.
pub(crate) fn event(sequence: u64, id: &str, lane: Lane, time: Timestamp) -> Event {
    Event {
        specversion: "1.0".into(),
        id: id.into(),
        source: "/gengfu/s/g".into(),
        event_type: EventType::DeviceObserved,
        subject: "door-1".into(),
        time,
        datacontenttype: "application/json".into(),
        sequence,
        recordedtime: time,
        prevhash: hex::encode(chain::GENESIS),
        lane,
        senttime: None,
        historical: None,
        attempt: None,
        data: serde_json::json!({"device": "door-1", "what": "door.opened", "clock": "synced"}),
        extra: std::collections::BTreeMap::new(),
    }
}

/// The outbox's name of a lane.
pub(crate) fn outbox_lane(lane: Lane) -> gengfu_outbox::Lane {
    let index = Lane::ALL.iter().position(|l| *l == lane).unwrap();
    gengfu_outbox::Lane::ALL[index]
}

/// An outbox in a folder of its own.
pub(crate) fn outbox() -> (tempfile::TempDir, Outbox) {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(Options::new(dir.path().join("outbox"))).unwrap();
    (dir, outbox)
}

/// Journals an event sensed at `time`.
pub(crate) fn journal(outbox: &Outbox, id: &str, lane: Lane, time: Timestamp) {
    let mut batch = outbox.batch();
    batch
        .append(outbox_lane(lane), id, time.as_millisecond(), |position| {
            let mut event = event(position.sequence, id, lane, time);
            event.prevhash = hex::encode(position.prev_hash);
            chain::canonical(&event).unwrap()
        })
        .unwrap();
    batch.commit().unwrap();
}
