//! Builds components in the background if their compiled code is not kept.
//!
//! Must not know: who waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::plugin::error::BuildError;
use crate::plugins::components::code_draft::{build_error_from, check_unchanged};
use crate::plugins::components::kept_component::KeptComponent;
use crate::plugins::components::{BuildOrder, CacheEntry, Components, LoadError};
use crate::plugins::manifest::Version;
use crate::store::error::StoreError;
use crate::tasks;

/// Pause before a build is retried that failed because of the machine; later pauses are longer.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A build that crashed or exceeded a limit of the compiler this often is not retried any more.
const TRIES_MAX: u32 = 4;

/// A component to be built in the background.
#[derive(Debug, Clone)]
pub struct PendingBuild {
    /// SHA-256 of its bytes, hex.
    pub digest: String,
    pub size_bytes: usize,
    /// Failed builds so far.
    pub tries: u32,
}

/// The pending builds of one size, first come, first served.
#[derive(Debug, Default)]
pub struct Queue {
    pending: Mutex<VecDeque<PendingBuild>>,
    more: Notify,
}

impl Components {
    /// Queues a build behind those already pending.
    pub fn enqueue(&self, pending: PendingBuild) {
        let is_small = pending.size_bytes <= self.engine.config().compile_small_bytes;
        let queue = if is_small { &self.small } else { &self.large };
        queue.pending.lock().push_back(pending);
        queue.more.notify_one();
    }

    /// Builds those of `versions` whose compiled code is not kept, and whatever is queued later, until the
    /// server stops.
    pub fn prepare(self: &Arc<Self>, versions: Vec<Version>) {
        for queue in [&self.small, &self.large] {
            let (components, queue) = (Arc::downgrade(self), Arc::clone(queue));
            drop(tasks::spawn("plugin-prepare", async move {
                loop {
                    let next = queue.pending.lock().pop_front();
                    let Some(pending) = next else {
                        queue.more.notified().await;
                        continue;
                    };
                    let Some(components) = components.upgrade() else { return };
                    tokio::select! {
                        () = components.build_pending(pending) => {}
                        // Dropping the build ends the compiling process.
                        () = components.closed() => return,
                    }
                }
            }));
        }
        let components = Arc::downgrade(self);
        tasks::run_detached(move || {
            for version in versions {
                match components.upgrade() {
                    Some(components) if !*components.closing.borrow() => {
                        components.enqueue_if_not_compiled(&version.digest, version.size_bytes)
                    }
                    _ => return,
                }
            }
        });
    }

    /// Queues a build if the compiled code is not kept. It does not load the component; the first user does.
    fn enqueue_if_not_compiled(&self, digest: &str, size_bytes: usize) {
        if self.cache.lock().contains_key(digest) {
            return;
        }
        match self.is_compiled(digest) {
            Ok(true) => {}
            Ok(false) => {
                if let Err(LoadError::Store(error)) = self.get_blocking(digest, size_bytes) {
                    tracing::error!("the component {digest} cannot be read: {error}");
                }
            }
            Err(error) => tracing::error!("the compiled code of {digest} cannot be read: {error}"),
        }
    }

    /// Whether usable compiled code is kept. Reads all of it.
    fn is_compiled(&self, digest: &str) -> Result<bool, StoreError> {
        let Some((sealed, _)) = self.read_sealed(digest)? else { return Ok(false) };
        Ok(self.store.verify_code(digest, &self.compiler, sealed)?.is_some())
    }

    async fn build_pending(self: &Arc<Self>, pending: PendingBuild) {
        let digest = pending.digest.clone();
        if !self.is_preparing(&digest) {
            // The plugin was deleted, or uploaded again.
            return;
        }
        let entry = match self.rebuild(&digest, pending.size_bytes).await {
            Ok(kept) => {
                self.classes.lock().insert(digest.clone(), kept.class);
                // If there is not enough memory now, the first user loads it.
                kept.component.map(CacheEntry::loaded)
            }
            Err(BuildError::Refused(refusal)) if refusal.is_permanent() || pending.tries >= TRIES_MAX => {
                tracing::error!("the component {digest} can no longer run: {refusal}");
                Some(CacheEntry::Unusable(refusal))
            }
            Err(failed) => return self.retry_later(pending, &failed),
        };
        let mut cache = self.cache.lock();
        let is_wanted = matches!(cache.get(&digest), Some(CacheEntry::Preparing));
        let is_gone = !cache.contains_key(&digest);
        if is_wanted {
            cache.remove(&digest);
            cache.extend(entry.map(|entry| (digest.clone(), entry)));
        }
        drop(cache);
        let removed = || self.claims.unless_claimed(&digest, || self.store.remove_code(&digest));
        if is_gone && let Err(error) = removed() {
            tracing::warn!("the compiled code of {digest} could not be removed: {error}");
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn is_preparing(&self, digest: &str) -> bool {
        matches!(self.cache.lock().get(digest), Some(CacheEntry::Preparing))
    }

    /// Retries later, with a longer pause each time: a busy or full machine is not the component's fault. Its
    /// readers go on waiting.
    fn retry_later(self: &Arc<Self>, pending: PendingBuild, failed: &BuildError) {
        let pause = AFTER_FAILURE * 3_u32.saturating_pow(pending.tries.min(TRIES_MAX));
        tracing::error!(
            "the component {} could not be compiled; it is tried again in {} s: {failed}",
            pending.digest,
            pause.as_secs()
        );
        let components = Arc::downgrade(self);
        drop(tasks::spawn("plugin-prepare-again", async move {
            sleep(pause).await;
            if let Some(components) = components.upgrade() {
                components.enqueue(PendingBuild { tries: pending.tries.saturating_add(1), ..pending });
            }
        }));
    }

    async fn rebuild(self: &Arc<Self>, digest: &str, size_bytes: usize) -> Result<KeptComponent, BuildError> {
        let (store, pending) = (Arc::clone(&self.store), digest.to_owned());
        let read = tasks::blocking("plugin-check", move || -> Result<_, BuildError> {
            let bytes = store.read_component(&pending).map_err(build_error_from)?;
            check_unchanged(
                &pending,
                &bytes.ok_or_else(|| BuildError::Internal("its file is gone".to_owned()))?,
            )?;
            store
                .component_file(&pending)
                .map_err(build_error_from)?
                .ok_or_else(|| BuildError::Internal("its file is gone".to_owned()))
        });
        let file = read.await.map_err(|lost| BuildError::Internal(lost.to_string()))??;
        let order =
            BuildOrder { file: &file, digest, size_bytes, probe: false, urgent: false, progress: &|_| {} };
        self.build(order).await.map(|(kept, _)| kept)
    }
}
