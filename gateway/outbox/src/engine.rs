//! The index below the store: an ordered map of small values, in sled or on a simulated disk. Owns the difference between
//! the two; refuses everything else. A crash leaves single changes in the order in which they were made, up to some point at or
//! after the last sync.

use std::ops::Bound;

use crate::{OutboxError, disk::Sled, sim, watch::Watch};

/// What keeps the index.
pub(crate) enum Engine {
    Sled(Sled),
    Simulated(sim::Handle),
}

impl Engine {
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, OutboxError> {
        match self {
            Engine::Sled(sled) => sled.db().get(key).map_err(not_read),
            Engine::Simulated(disk) => disk.get(key),
        }
    }

    /// Makes one change.
    pub fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), OutboxError> {
        match (self, value) {
            (Engine::Sled(sled), Some(value)) => sled.db().insert(key, value).map(drop).map_err(not_applied),
            (Engine::Sled(sled), None) => sled.db().remove(key).map(drop).map_err(not_applied),
            (Engine::Simulated(disk), value) => disk.write(key, value),
        }
    }

    /// Up to `limit` keys and values from a bound on, in order.
    pub fn some_from(&self, from: &Bound<Vec<u8>>, limit: usize) -> Result<Vec<(sled::IVec, sled::IVec)>, OutboxError> {
        match self {
            Engine::Sled(sled) => sled
                .db()
                .range((from.clone(), Bound::Unbounded))
                .take(limit)
                .collect::<Result<_, _>>()
                .map_err(not_read),
            Engine::Simulated(disk) => disk.some_from(from, limit),
        }
    }

    /// Makes every change so far survive a power cut.
    pub fn sync(&self, watch: &Watch) -> Result<(), OutboxError> {
        match self {
            Engine::Sled(sled) => sled.sync(watch),
            Engine::Simulated(disk) => disk.sync(),
        }
    }
}

fn not_read(source: sled::Error) -> OutboxError {
    OutboxError::Store { doing: "read", source }
}

fn not_applied(source: sled::Error) -> OutboxError {
    OutboxError::Store { doing: "write the index", source }
}
