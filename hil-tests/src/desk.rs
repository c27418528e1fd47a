//! The dispatch centre of a scenario: the reference desk (`gengfu::desk`) on a thread of its own, with its journal on disk. It owns the
//! desk's life and gives what it took for judging; it refuses to judge. It lives in the test's process, so it survives every fault
//! that a scenario makes, and what stands in its journal did arrive.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gengfu::clock::SystemClock;
use gengfu::config::Protocol;
use gengfu::desk::client::AlarmOrder;
use gengfu::desk::journal::{Line, Reader};
use gengfu::desk::{self, Action, DeskConfig, DeskEvent, DeskModel, DeskParts, GatewayOrder, Order};
use gengfu::uplink::BrokerConfig;
use gengfu_contract::slug::Slug;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Result, RigError};

/// Lines the desk may tell before they are collected; a collector that only appends never lets it fill.
const EVENTS_MAX: usize = 4096;

/// A running desk. Dropping it ends it.
pub struct Desk {
    model: Arc<Mutex<DeskModel>>,
    events: Arc<Mutex<Vec<DeskEvent>>>,
    orders: mpsc::Sender<Order>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
    journal: PathBuf,
    gateway: Slug,
}

impl Desk {
    /// Starts a desk for `site` at the broker on this loopback `port`; journal and pictures lie in `dir`. It acknowledges and resets
    /// only on orders.
    ///
    /// # Errors
    /// When its thread cannot start. A broker that is not there is no error: it connects for ever.
    pub fn start(dir: &Path, port: u16, protocol: Protocol, site: &Slug, gateway: &Slug, name: &str) -> Result<Self> {
        let doing = "start the desk";
        let model = Arc::new(Mutex::new(DeskModel::new(site.clone())));
        let events = Arc::new(Mutex::new(Vec::new()));
        let shutdown = CancellationToken::new();
        let (told, mut lines) = mpsc::channel(EVENTS_MAX);
        let (orders, ordered) = mpsc::channel(64);
        let journal = dir.join(format!("{name}.jsonl"));
        let mut broker = BrokerConfig::new("127.0.0.1", port, protocol, format!("hil-{name}"));
        broker.keep_alive = Duration::from_secs(5);
        let config = DeskConfig {
            journal: Some(journal.clone()),
            ..DeskConfig::new(broker, site.clone(), slug(name)?, dir.join(format!("{name}-pictures")))
        };
        let parts = DeskParts {
            model: model.clone(),
            events: told,
            orders: ordered,
            clock: Arc::new(SystemClock),
            shutdown: shutdown.clone(),
        };
        let kept = events.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| RigError::failed(doing, e))?;
        let run = move || {
            runtime.block_on(async {
                let collect = async {
                    while let Some(line) = lines.recv().await {
                        lock(&kept).push(line);
                    }
                };
                let (ended, ()) = tokio::join!(desk::run(config, parts), collect);
                if let Err(error) = ended {
                    eprintln!("the desk ended: {error}");
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("desk".into()).spawn(run).map_err(|e| RigError::failed(doing, e))?;
        let gateway = gateway.clone();
        Ok(Self { model, events, orders, shutdown, thread: Some(thread), journal, gateway })
    }

    /// What the desk knows. Do not hold it for long: the desk waits for it.
    pub fn model(&self) -> MutexGuard<'_, DeskModel> {
        lock(&self.model)
    }

    /// Everything the desk has told so far, in order.
    #[must_use]
    pub fn told(&self) -> Vec<DeskEvent> {
        lock(&self.events).clone()
    }

    /// The desk's journal: every event once, in the order of arrival.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn journal(&self) -> Result<Vec<Line>> {
        let failed = |why: &dyn std::fmt::Display| RigError::failed(format!("read {}", self.journal.display()), why);
        let mut reader = Reader::open(&self.journal).map_err(|e| failed(&e))?;
        let mut lines = Vec::new();
        // The last line may be half written at this moment.
        while let Some(record) = reader.next_record().map_err(|e| failed(&e))? {
            lines.extend(record.into_line());
        }
        Ok(lines)
    }

    /// Where the journal is, for `gengfu desk report`.
    #[must_use]
    pub fn journal_path(&self) -> &Path {
        &self.journal
    }

    /// A person orders something of the gateway.
    ///
    /// # Errors
    /// When the desk has ended.
    pub fn give(&self, operator: &str, action: Action) -> Result<()> {
        let order = GatewayOrder { gateway: self.gateway.clone(), operator: operator.to_owned(), action };
        self.order(Order::Give(order))
    }

    /// A person acknowledges an alarm.
    ///
    /// # Errors
    /// When the desk has ended.
    pub fn acknowledge(&self, alarm_id: &str, operator: &str) -> Result<()> {
        self.order(Order::Ack(self.about(alarm_id, operator)))
    }

    /// A person resets a latched alarm.
    ///
    /// # Errors
    /// When the desk has ended.
    pub fn reset(&self, alarm_id: &str, operator: &str) -> Result<()> {
        self.order(Order::Reset(self.about(alarm_id, operator)))
    }

    fn about(&self, alarm_id: &str, operator: &str) -> AlarmOrder {
        AlarmOrder { gateway: self.gateway.clone(), alarm_id: alarm_id.to_owned(), operator: operator.to_owned() }
    }

    fn order(&self, order: Order) -> Result<()> {
        self.orders.blocking_send(order).map_err(|e| RigError::failed("give the desk an order", e))
    }

    /// Ends it in order: it says that it goes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            // A desk that panicked has printed why; the scenario misses its events.
            let _ = thread.join();
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.end();
    }
}

/// A name of the contract.
///
/// # Errors
/// When it is none.
pub fn slug(name: &str) -> Result<Slug> {
    Slug::new(name).map_err(|e| RigError::failed(format!("use the name {name:?}"), e))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
