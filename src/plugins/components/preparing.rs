//! Components that are compiled in the background, because their code is not kept.
//!
//! Must not know: who waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::plugin::error::Failed;
use crate::plugins::components::draft::{check_unchanged, failed};
use crate::plugins::components::{Components, Held, Known, Missing, Order};
use crate::plugins::manifest::Version;
use crate::store::error::StoreError;
use crate::tasks;

/// Where the machine did not do what compiling takes, it is tried again after this, then after longer pauses.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// What crashes or takes too much so often again is taken to do so always.
const TRIES_MAX: u32 = 4;

/// A component to be compiled, nobody knows for whom.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// SHA-256 of its bytes, hex.
    pub digest: String,
    /// How many they are.
    pub size_bytes: usize,
    /// How often it was tried.
    pub tries: u32,
}

/// Those of one lane of the builder, first come, first served.
#[derive(Debug, Default)]
pub struct Queue {
    wanted: Mutex<VecDeque<Wanted>>,
    more: Notify,
}

impl Components {
    /// Has it compiled, after those that are wanted already.
    pub fn want(&self, wanted: Wanted) {
        let is_small = wanted.size_bytes <= self.engine.config().compile_small_bytes;
        let queue = if is_small { &self.small } else { &self.large };
        queue.wanted.lock().push_back(wanted);
        queue.more.notify_one();
    }

    /// Compiles what is not kept of these, and what is asked for later, until the server stops.
    pub fn prepare(self: &Arc<Self>, versions: Vec<Version>) {
        for queue in [&self.small, &self.large] {
            let (components, queue) = (Arc::downgrade(self), Arc::clone(queue));
            drop(tasks::spawn("plugin-prepare", async move {
                loop {
                    let next = queue.wanted.lock().pop_front();
                    let Some(wanted) = next else {
                        queue.more.notified().await;
                        continue;
                    };
                    let Some(components) = components.upgrade() else { return };
                    tokio::select! {
                        () = components.make(wanted) => {}
                        // The compiler ends with who waits for it.
                        () = components.closed() => return,
                    }
                }
            }));
        }
        let components = Arc::downgrade(self);
        tasks::aside(move || {
            for version in versions {
                match components.upgrade() {
                    Some(components) if !*components.closing.borrow() => {
                        components.check(&version.digest, version.size_bytes)
                    }
                    _ => return,
                }
            }
        });
    }

    /// Has it compiled if its code is not kept. It is not loaded: who uses it does that.
    fn check(&self, digest: &str, size_bytes: usize) {
        if self.known.lock().contains_key(digest) {
            return;
        }
        match self.compiled(digest) {
            Ok(true) => {}
            Ok(false) => {
                if let Err(Missing::Store(error)) = self.get(digest, size_bytes) {
                    tracing::error!("the component {digest} cannot be read: {error}");
                }
            }
            Err(error) => tracing::error!("what was compiled of {digest} cannot be read: {error}"),
        }
    }

    /// Whether its compiled code is kept and can be used. Reads all of it.
    fn compiled(&self, digest: &str) -> Result<bool, StoreError> {
        let Some((sealed, _)) = self.sealed(digest)? else { return Ok(false) };
        Ok(self.store.verify_code(digest, &self.compiler, sealed)?.is_some())
    }

    async fn make(self: &Arc<Self>, wanted: Wanted) {
        let digest = wanted.digest.clone();
        if !self.is_preparing(&digest) {
            // Removed, or uploaded anew.
            return;
        }
        let known = match self.remake(&digest, wanted.size_bytes).await {
            Ok(held) => {
                self.classes.lock().insert(digest.clone(), held.class);
                // Where there is no memory for it now, who uses it loads it.
                held.component.map(Known::loaded)
            }
            Err(Failed::Refused(refusal)) if refusal.is_certain() || wanted.tries >= TRIES_MAX => {
                tracing::error!("the component {digest} can no longer run: {refusal}");
                Some(Known::Unusable(refusal))
            }
            Err(failed) => return self.again(wanted, &failed),
        };
        let mut all = self.known.lock();
        let is_wanted = matches!(all.get(&digest), Some(Known::Preparing));
        let is_gone = !all.contains_key(&digest);
        if is_wanted {
            all.remove(&digest);
            all.extend(known.map(|known| (digest.clone(), known)));
        }
        drop(all);
        let removed = || self.claims.unless_claimed(&digest, || self.store.remove_code(&digest));
        if is_gone && let Err(error) = removed() {
            tracing::warn!("what was compiled of {digest} could not be removed: {error}");
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn is_preparing(&self, digest: &str) -> bool {
        matches!(self.known.lock().get(digest), Some(Known::Preparing))
    }

    /// Tries it again later, each time after a longer pause: a busy or full machine is no fault of the
    /// component. Its readers go on waiting.
    fn again(self: &Arc<Self>, wanted: Wanted, failed: &Failed) {
        let pause = AFTER_FAILURE * 3_u32.saturating_pow(wanted.tries.min(TRIES_MAX));
        tracing::error!(
            "the component {} could not be compiled and is tried again in {} s: {failed}",
            wanted.digest,
            pause.as_secs()
        );
        let components = Arc::downgrade(self);
        drop(tasks::spawn("plugin-prepare-again", async move {
            sleep(pause).await;
            if let Some(components) = components.upgrade() {
                components.want(Wanted { tries: wanted.tries.saturating_add(1), ..wanted });
            }
        }));
    }

    async fn remake(self: &Arc<Self>, digest: &str, size_bytes: usize) -> Result<Held, Failed> {
        let (store, wanted) = (Arc::clone(&self.store), digest.to_owned());
        let read = tasks::blocking("plugin-check", move || -> Result<_, Failed> {
            let bytes = store.read_component(&wanted).map_err(failed)?;
            check_unchanged(&wanted, &bytes.ok_or_else(|| Failed::Failed("its file is gone".to_owned()))?)?;
            store
                .component_file(&wanted)
                .map_err(failed)?
                .ok_or_else(|| Failed::Failed("its file is gone".to_owned()))
        });
        let file = read.await.map_err(|lost| Failed::Failed(lost.to_string()))??;
        let order = Order { file: &file, digest, size_bytes, probe: false, urgent: false, progress: &|_| {} };
        self.build(order).await.map(|(held, _)| held)
    }
}
