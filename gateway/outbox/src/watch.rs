//! Watches over flushes and syncs. sled 0.34 can miss the wake-up of a waiting flush when a background write fails: the flush
//! then waits for ever for a write that will not come. Any other flush notices the failure and wakes the first. This
//! module owns one thread that does so when a flush takes longer than a second, and that measures how long the disk
//! has been silent. It refuses to decide anything: the commit returns sled's error and poisons the outbox.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(1);

/// Handle to the watching thread; the thread ends when it is dropped.
pub(crate) struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts flushes; the number is the name of each.
    flush: u64,
    /// Those under way, oldest first: a commit's, and housekeeping's beside it.
    running: BTreeMap<u64, (Instant, Option<sled::Db>)>,
    /// The thread waits without a time limit and must be woken.
    asleep: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Starts the thread. Without one (no threads left) the outbox works, only unwatched.
    pub fn start() -> Watch {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let _ = thread::Builder::new().name("outbox-watch".into()).spawn(move || watch(&theirs));
        Watch(shared)
    }

    /// No thread: a simulated disk is never late without saying so.
    pub fn none() -> Watch {
        Watch(Arc::default())
    }

    /// Runs `flush` under watch; `db` is sled when it is sled that flushes.
    pub fn over<R>(&self, db: Option<&sled::Db>, flush: impl FnOnce() -> R) -> R {
        let name = {
            let mut state = self.0.lock();
            state.flush += 1;
            let name = state.flush;
            state.running.insert(name, (now(), db.cloned()));
            // Under load the thread is never asleep, so a commit costs no wake-up.
            if state.asleep {
                self.0.wake.notify_one();
            }
            name
        };
        let result = catch_unwind(AssertUnwindSafe(flush));
        self.0.lock().running.remove(&name);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// How long a flush under way has taken, once that is longer than usual.
    pub fn stalled_ms(&self) -> Option<u64> {
        let waited = self.0.lock().running.values().next()?.0.elapsed();
        (waited >= PATIENCE).then(|| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
    }
}

#[expect(clippy::disallowed_methods, reason = "how long the disk is silent is real time; nothing stored depends on it")]
fn now() -> Instant {
    Instant::now()
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.wake.notify_one();
    }
}

fn watch(shared: &Shared) {
    let mut state = shared.lock();
    while !state.stop {
        let seen = state.flush;
        let (next, _) = shared.wake.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        state = next;
        let mut late = state.running.values().filter(|(since, _)| since.elapsed() >= PATIENCE);
        if let Some(db) = late.find_map(|(_, db)| db.clone()) {
            drop(state);
            // A failure is for who flushes to report; here only the wake-up matters.
            let _ = catch_unwind(AssertUnwindSafe(move || db.flush().is_ok()));
            state = shared.lock();
        } else if !state.stop && state.flush == seen && state.running.is_empty() {
            state.asleep = true;
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
    }
}
