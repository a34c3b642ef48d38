//! Motion: killmails come in through one writer, readers take them out, the bell wakes those concerned.
//!
//! A reader is a subscription and a place in the log. No queue stands between the log and a reader: a slow
//! one reads later.
//!
//! Must not know: SSE, channels, webhooks, HTTP.

pub mod body_requests;
pub mod config;
pub mod counters;
pub mod error;
pub mod event;
pub mod filters;
pub mod history;
pub mod newest;
pub mod newest_preload;
pub mod pace;
pub mod preload;
pub mod reader;
pub mod registry;
pub mod scrub;
pub mod silence;
pub mod space;
pub mod start;
pub mod subscription_plugin;
pub mod wake_terms;
pub mod wakeups;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};

use crate::clock::now_ms;
use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::domain::span::Span;
use crate::feed::config::Config;
use crate::feed::counters::Counters;
use crate::feed::error::FeedError;
use crate::feed::filters::Filters;
use crate::feed::registry::Registry;
use crate::feed::wakeups::Wakeups;
use crate::feed::writer::{Parts, Writer};
use crate::plugins::Plugins;
use crate::plugins::plugin_quota::{Limits, PluginQuota};
use crate::store::Store;
use crate::store::incoming::{Appended, Checkpoint, Incoming};
use crate::tasks;
use crate::telemetry::channel_counters::ChannelCounters;
use crate::telemetry::fallback_status::FallbackStatus;
use crate::telemetry::source_status::SourceStatus;
use crate::telemetry::unreadable_members::{Found, Unreadable};

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

    /// Reads the disk for history, after those that came before: however many ask, other work off the event
    /// loop finds its threads.
    ///
    /// # Errors
    /// The work panicked or the runtime is shutting down.
    pub async fn read<T, F>(&self, name: &'static str, work: F) -> Result<T, FeedError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| FeedError::Closing)?;
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
    pub async fn publish(
        &self,
        batch: Vec<Incoming>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Vec<Appended>, FeedError> {
        let found = Found::collect(batch.iter().map(|incoming| &incoming.killmail));
        let appended = self.writer.publish(batch, checkpoint).await?;
        self.unreadable.note(&found, now_ms());
        Ok(appended)
    }

    /// Tells all readers, open ones now and others when they pass it, that killmails were put in from
    /// archives. Returns when it is durable.
    ///
    /// # Errors
    /// As [`Feed::publish`].
    pub async fn publish_span(&self, span: Span, checkpoint: Option<Checkpoint>) -> Result<(), FeedError> {
        self.writer.publish_span(span, checkpoint).await
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
