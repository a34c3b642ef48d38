//! Motion: killmails come in through one writer, readers take them out, the bell wakes those concerned.
//!
//! A reader is a subscription and a place in the log. No queue stands between the log and a reader: a slow one reads later.
//!
//! Must not know: SSE, channels, webhooks, HTTP.

pub mod channel_counters;
pub mod event;
pub mod fallback_status;
pub mod filters;
pub mod history;
#[cfg(test)]
mod history_cost;
#[cfg(test)]
mod history_law;
pub mod manifest;
pub mod newest;
pub mod newest_preload;
pub mod pace;
pub mod plugin_history;
pub mod plugin_quota;
pub mod plugins;
pub mod preload;
pub mod reader;
pub mod registry;
pub mod scrub;
pub mod silence;
pub mod source_status;
pub mod space;
pub mod start;
pub mod subscription_plugin;
pub mod unreadable;
pub mod usual_rate;
pub mod wakeups;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::clock::now_ms;
use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::domain::span::Span;
use crate::domain::subscription::Subscription;
use crate::feed::channel_counters::ChannelCounters;
use crate::feed::fallback_status::FallbackStatus;
use crate::feed::filters::Filters;
use crate::feed::plugin_quota::{Limits, PluginQuota};
use crate::feed::plugins::Plugins;
use crate::feed::reader::Reader;
use crate::feed::registry::Registry;
use crate::feed::source_status::SourceStatus;
use crate::feed::start::Start;
use crate::feed::unreadable::{Found, Unreadable};
use crate::feed::wakeups::Wakeups;
use crate::feed::writer::{Parts, Writer};
use crate::store::incoming::{Appended, Checkpoint, Incoming};
use crate::store::{self, Store};
use crate::tasks;

/// How readers move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A reader looks for news after this long even if the bell was not heard, milliseconds.
    pub tick_ms: u64,
    /// Killmails a reader takes from the log at once.
    pub page_max: usize,
    /// Bytes of JSON a reader takes from the log at once: what a client that does not read can hold up.
    pub page_bytes: usize,
    /// Killmails of a page that goes through a plugin: smaller, so that live pages get their turn.
    pub judged_page_max: usize,
    /// Log entries looked at for one page.
    pub scan_max: usize,
    /// A preload of more killmails than this is refused.
    pub preload_max_killmails: u64,
    /// Killmails in one batch of a preload; on channels, in one interval where the client names no `delivery_batch_size`.
    pub batch_max: usize,
    /// Bytes of one batch of a preload, a line as it is sent; a larger killmail makes a batch of its own.
    pub batch_bytes: u64,
    /// Pause between batches of a preload, milliseconds; on channels, the interval where the client names none.
    pub batch_pause_ms: u64,
    /// Pauses are shortened so that a preload ends within this, milliseconds.
    pub preload_within_ms: u64,
    /// Killmails one history request may have judged by a plugin.
    pub judged_max: usize,
    /// CPU time one history request may spend in a plugin, milliseconds; where judges are busy it ends after five times as long.
    pub judged_ms: u64,
    /// Requests for history judged by a plugin under way at a time (32); more are refused with 503, since each may spend as much as that.
    pub judged_requests_max: usize,
    /// Such requests of one client address (8).
    pub judged_requests_per_address_max: usize,
    /// Pages of history read from the disk at once (32); more wait, and what else is read does not wait for them.
    pub history_reads_max: usize,
    /// Batches waiting for the writer; whoever brings more waits.
    pub writer_queue: usize,
    /// Bytes the filters of all open streams and channels may take together; equal lists of ids count once.
    pub filters_max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tick_ms: 10_000,
            page_max: 64,
            page_bytes: 32 * 1024,
            judged_page_max: 64,
            scan_max: 65_536,
            preload_max_killmails: 100_000,
            batch_max: 50,
            batch_bytes: 512 * 1024,
            batch_pause_ms: 100,
            preload_within_ms: 30_000,
            judged_max: 20_000,
            judged_ms: 2_000,
            judged_requests_max: 32,
            judged_requests_per_address_max: 8,
            history_reads_max: 32,
            writer_queue: 64,
            filters_max_bytes: 256 << 20,
        }
    }
}

/// What a caller can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::error::Error),
    /// The plugin cannot judge for this subscription.
    #[error(transparent)]
    Plugin(#[from] plugins::Error),
    /// The preload asked for is too large.
    #[error("the preload selects {count} killmails, more than preload_max_killmails {max}")]
    PreloadTooLarge {
        /// The limit.
        max: u64,
        /// What was selected.
        count: u64,
    },
    /// There is no room for another filter.
    #[error(transparent)]
    Filters(#[from] filters::Full),
    /// The server is stopping.
    #[error("the server is stopping")]
    Closing,
    /// Work was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
}

/// The counters of motion.
#[derive(Debug, Default)]
pub struct Counters {
    /// Killmails announced to readers.
    pub announced: AtomicU64,
    /// Readers woken by the bell.
    pub rung: AtomicU64,
    /// Killmail events handed to doors by live parts.
    pub delivered: AtomicU64,
    /// Killmails handed to doors by preloads.
    pub preloaded: AtomicU64,
    /// Pages taken from the log.
    pub pages: AtomicU64,
    /// Faults of plugins that readers saw.
    pub faults: AtomicU64,
}

/// The log in motion.
pub struct Feed {
    store: Arc<Store>,
    plugins: Arc<Plugins>,
    config: Config,
    wakeups: Arc<Wakeups>,
    filters: Arc<Filters>,
    registry: Registry,
    writer: Writer,
    announced: Arc<AtomicU64>,
    moved: watch::Sender<Seq>,
    closing: watch::Sender<bool>,
    counters: Arc<Counters>,
    source_status: Arc<SourceStatus>,
    channel_counters: ChannelCounters,
    fallback_status: FallbackStatus,
    plugin_quota: Arc<PluginQuota>,
    reads: Arc<Semaphore>,
    unreadable: Unreadable,
}

impl Feed {
    /// Starts the writer.
    ///
    /// # Errors
    /// The writer's thread could not be started.
    pub fn start(store: Arc<Store>, plugins: Arc<Plugins>, config: Config) -> std::io::Result<Arc<Self>> {
        let announced = Arc::new(AtomicU64::new(store.head().0));
        let wakeups = Arc::new(Wakeups::default());
        let counters = Arc::new(Counters::default());
        let (moved, _) = watch::channel(store.head());
        let parts = Parts {
            store: store.clone(),
            wakeups: wakeups.clone(),
            announced: announced.clone(),
            moved: moved.clone(),
            counters: counters.clone(),
        };
        let writer = Writer::start(parts, config.writer_queue)?;
        let (closing, _) = watch::channel(false);
        let source_status = Arc::new(SourceStatus::default());
        Ok(Arc::new(Self {
            store,
            plugins,
            filters: Filters::new(wakeups.clone(), config.filters_max_bytes),
            reads: Arc::new(Semaphore::new(config.history_reads_max.max(1))),
            config,
            wakeups,
            registry: Registry::default(),
            channel_counters: ChannelCounters::default(),
            plugin_quota: Arc::default(),
            writer,
            announced,
            moved,
            closing,
            counters,
            source_status,
            fallback_status: FallbackStatus::default(),
            unreadable: Unreadable::default(),
        }))
    }

    /// The store under this feed.
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The plugins readers can use.
    pub const fn plugins(&self) -> &Arc<Plugins> {
        &self.plugins
    }

    /// How readers move.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The bell.
    pub const fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    /// The filters in use.
    pub const fn filters(&self) -> &Arc<Filters> {
        &self.filters
    }

    /// Who reads.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The counters of motion.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How the sources are doing.
    pub const fn source_status(&self) -> &Arc<SourceStatus> {
        &self.source_status
    }

    /// Which addresses have which plugins at work, over every door.
    pub const fn plugin_quota(&self) -> &Arc<PluginQuota> {
        &self.plugin_quota
    }

    /// How much one caller may have plugins do.
    pub fn judging(&self) -> Limits {
        let plugin = self.plugins.engine().config();
        Limits {
            judges: plugin.evaluators_per_address_max,
            judges_in_all: plugin.evaluators_max,
            memory_bytes: self.plugins.engine().capacity().memory().max() / 2,
            requests: self.config.judged_requests_per_address_max,
            requests_in_all: self.config.judged_requests_max,
        }
    }

    /// Reads the disk for history, after those that came before: however many ask, other work off the event loop finds its threads.
    ///
    /// # Errors
    /// The work panicked or the runtime is shutting down.
    pub async fn read<T, F>(&self, name: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| Error::Closing)?;
        // The turn goes with the work, which goes on when nobody waits for it any more.
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        Ok(tasks::blocking(name, work).await?)
    }

    /// What went over standing connections.
    pub const fn channel_counters(&self) -> &ChannelCounters {
        &self.channel_counters
    }

    /// How the other sources are doing.
    pub const fn fallback_status(&self) -> &FallbackStatus {
        &self.fallback_status
    }

    /// Which members of killmails could not be read.
    pub const fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// The newest number readers may see.
    pub fn head(&self) -> Seq {
        Seq(self.announced.load(Ordering::Acquire))
    }

    /// The identity of the store.
    pub fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    /// The id of the newest place.
    pub fn head_id(&self) -> EventId {
        EventId { epoch: self.epoch(), place: Place::Live(self.head()) }
    }

    /// The one way in: appends a batch and announces what is new. Returns when it is durable.
    ///
    /// # Errors
    /// The store failed, has too little space, or the server is stopping.
    pub async fn publish(&self, batch: Vec<Incoming>, checkpoint: Option<Checkpoint>) -> Result<Vec<Appended>, Error> {
        let found = Found::among(batch.iter().map(|incoming| &incoming.killmail));
        let appended = self.writer.publish(batch, checkpoint).await?;
        self.unreadable.note(&found, now_ms());
        Ok(appended)
    }

    /// Tells all readers, open ones now and others when they pass it, that killmails were put in from archives. Returns when it is durable.
    ///
    /// # Errors
    /// As [`Feed::publish`].
    pub async fn publish_span(&self, span: Span, checkpoint: Option<Checkpoint>) -> Result<(), Error> {
        self.writer.publish_span(span, checkpoint).await
    }

    /// Opens a reader.
    ///
    /// # Errors
    /// The plugin is unknown or refuses its configuration, the preload is too large, the store failed, the server is stopping.
    pub async fn open(self: &Arc<Self>, subscription: Subscription, start: Start) -> Result<Reader, Error> {
        if *self.closing.borrow() {
            return Err(Error::Closing);
        }
        Reader::open(self.clone(), subscription, start).await
    }

    /// Tells every reader that the server is stopping.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.plugins.components().close();
    }

    /// Whether [`Feed::close`] was called.
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Changes whenever an entry is new or revised, after it can be read.
    pub fn moved(&self) -> watch::Receiver<Seq> {
        self.moved.subscribe()
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}
