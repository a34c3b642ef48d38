//! Moving killmails: one writer appends them to the log, readers read them from it, wakeups tell readers when to
//! look.
//!
//! A reader is a subscription and a place in the log. There is no queue between the log and a reader: a slow reader
//! reads later.
//!
//! Must not know: how events are framed or sent.

pub mod config;
pub(crate) mod counters;
pub(crate) mod error;
pub mod event;
pub(crate) mod filters;
pub(crate) mod history;
pub(crate) mod newest;
pub(crate) mod newest_preload;
pub(crate) mod pace;
pub(crate) mod preload;
pub mod reader;
pub(crate) mod registry;
pub mod start;
pub(crate) mod subscription_plugin;
pub(crate) mod wake_terms;
pub mod wakeups;
pub(crate) mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};

use crate::clock::now_ms;
use crate::domain::id::{Epoch, Seq};
use crate::domain::skip::{DELIVERY, Skip};
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
use crate::telemetry::unreadable_members::{Found, Unreadable};

/// The log with its writer and its readers. Parts that need the store or the plugins themselves get them from
/// `server/app`.
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
    plugin_quota: Arc<PluginQuota>,
    reads: Arc<Semaphore>,
    unreadable: Arc<Unreadable>,
}

impl Feed {
    /// Starts the writer. Fields of published killmails that could not be read are counted in `unreadable`.
    ///
    /// # Errors
    /// The writer's thread could not be started.
    pub fn start(
        store: Arc<Store>,
        plugins: Arc<Plugins>,
        unreadable: Arc<Unreadable>,
        config: Config,
    ) -> std::io::Result<Arc<Self>> {
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
        Ok(Arc::new(Self {
            plugin_quota: Arc::new(PluginQuota::new(plugin_limits(&plugins, &config))),
            store,
            plugins,
            filters: Filters::new(wakeups.clone(), config.filters_max_bytes),
            reads: Arc::new(Semaphore::new(config.history_reads_max.max(1))),
            config,
            wakeups,
            registry: Registry::default(),
            writer,
            announced,
            moved,
            closing,
            counters,
            unreadable,
        }))
    }

    /// The settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The wakeups of readers.
    pub const fn wakeups(&self) -> &Arc<Wakeups> {
        &self.wakeups
    }

    /// The filters in use.
    pub const fn filters(&self) -> &Arc<Filters> {
        &self.filters
    }

    /// The open readers.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What each client address uses of plugins, over all transports.
    pub const fn plugin_quota(&self) -> &Arc<PluginQuota> {
        &self.plugin_quota
    }

    /// Reads from disk for history, at most `history_reads_max` at a time, so that other blocking work always finds a
    /// thread.
    ///
    /// # Errors
    /// The work panicked or the runtime is shutting down.
    pub async fn read<T, F>(&self, name: &'static str, work: F) -> Result<T, FeedError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| FeedError::Closing)?;
        // The permit moves into the work, which continues when its caller is gone.
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        Ok(tasks::blocking(name, work).await?)
    }

    /// The newest announced number.
    pub fn head(&self) -> Seq {
        Seq(self.announced.load(Ordering::Acquire))
    }

    /// The store's identity.
    pub fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    /// Appends a batch and announces what is new. Returns when it is durable. There is no other way into the log.
    ///
    /// # Errors
    /// The store failed, has too little space, or the server is stopping.
    pub async fn publish(
        &self,
        batch: Vec<Incoming>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Vec<Appended>, FeedError> {
        let found = Found::collect(batch.iter().map(|incoming| &incoming.killmail));
        // Only the debug log needs them.
        let is_logged = tracing::enabled!(target: DELIVERY, tracing::Level::DEBUG);
        let ids: Vec<u32> =
            batch.iter().filter(|_| is_logged).map(|incoming| incoming.killmail.killmail_id).collect();
        let appended = self.writer.publish(batch, checkpoint).await?;
        for (id, appended) in ids.into_iter().zip(&appended) {
            if matches!(appended, Appended::Known(_) | Appended::Conflict(_)) {
                tracing::debug!(target: DELIVERY, { killmail.id = id, why = %Skip::Known }, "not announced");
            }
        }
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

    /// Stops every reader: the server is stopping.
    pub fn close(&self) {
        self.closing.send_replace(true);
        self.plugins.components().close();
    }

    /// Whether [`Feed::close`] was called.
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Changes when an entry was added or revised and can be read.
    pub fn moved(&self) -> watch::Receiver<Seq> {
        self.moved.subscribe()
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }
}

/// What one client address may use of plugins.
fn plugin_limits(plugins: &Plugins, config: &Config) -> Limits {
    let plugin = plugins.engine().config();
    Limits {
        evaluators_per_address: plugin.evaluators_per_address_max,
        evaluators_total: plugin.evaluators_max,
        memory_bytes: plugins.engine().capacity().memory().max() / 2,
        requests_per_address: config.judged_requests_per_address_max,
        requests_total: config.judged_requests_max,
    }
}
