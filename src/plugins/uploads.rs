//! Uploads in progress: each is scanned, compiled and tried in turn, then saved under its plugin's name. The
//! client waits, or comes back later and asks.
//!
//! Must not know: how uploads come in, or how long a client waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::domain::hex::hex;
use crate::plugin::build::QueuedUpload;
use crate::plugin::build::protocol::Stage;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugins::Plugins;
use crate::plugins::components::BuildOrder;
use crate::plugins::components::kept_component::KeptComponent;
use crate::plugins::error::PluginsError;
use crate::plugins::upload::{CheckedUpload, UploadOptions, Uploaded};
use crate::store::plugins::compiled::UploadFile;
use crate::tasks;

/// Uploads that can still be asked about after they ended.
const REMEMBERED_MAX: usize = 100;

/// Where an upload stands.
#[derive(Debug, Clone)]
pub enum UploadState {
    /// It is queued, being compiled or being tried.
    InProgress(Stage),
    /// It was saved.
    Accepted(Uploaded),
    /// It was refused, or the server failed.
    Refused(Arc<PluginsError>),
}

#[derive(Debug)]
pub struct Uploads {
    plugins: Arc<Plugins>,
    small: Arc<AtomicUsize>,
    large: Arc<AtomicUsize>,
    jobs: Mutex<VecDeque<Arc<UploadJob>>>,
}

#[derive(Debug)]
struct UploadJob {
    id: String,
    /// The plugin's name.
    name: String,
    state: watch::Sender<UploadState>,
    /// Set when the client went away before it was told to come back later.
    given_up: watch::Sender<bool>,
}

/// A slot for one upload; given back on drop.
#[derive(Debug)]
pub struct UploadSlot {
    name: String,
    in_progress: Arc<AtomicUsize>,
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        self.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Uploads {
    /// No uploads yet.
    #[must_use]
    pub fn new(plugins: Arc<Plugins>) -> Self {
        Self { plugins, small: Arc::default(), large: Arc::default(), jobs: Mutex::default() }
    }

    /// Reserves a slot for an upload of `bytes` bytes (`None`: the client does not say), before any of it is
    /// read.
    ///
    /// # Errors
    /// The name is not valid, there are too many names, or too many uploads are in progress.
    pub fn reserve(&self, name: &str, bytes: Option<u64>) -> Result<UploadSlot, PluginsError> {
        self.plugins.check_can_upload(name)?;
        let config = self.plugins.engine().config();
        let is_small = bytes.is_some_and(|bytes| bytes <= config.compile_small_bytes as u64);
        // Small ones are done quickly; large ones leave some slots to them.
        let max = if is_small { config.uploads_max } else { config.uploads_max - config.uploads_max / 4 };
        let in_progress = if is_small { &self.small } else { &self.large };
        let one_more = |now: usize| (now < max).then_some(now + 1);
        if in_progress.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Err(PluginsError::TooManyUploads { max });
        }
        Ok(UploadSlot { name: name.to_owned(), in_progress: Arc::clone(in_progress) })
    }

    /// Starts to process an upload. It is given up if the answer is dropped before [`UploadWait::detach`] is
    /// called.
    #[must_use]
    pub fn start(&self, slot: UploadSlot, file: UploadFile, options: UploadOptions) -> UploadWait {
        // It joins the queue now, so that later uploads stay behind it, whatever has to be looked up first.
        let size = file.size_bytes().unwrap_or_default() as u64;
        let (queued, position) = self.plugins.engine().builder().join_queue(size);
        let job = Arc::new(UploadJob {
            id: random_id(),
            name: slot.name.clone(),
            state: watch::Sender::new(UploadState::InProgress(Stage::Queued { position })),
            given_up: watch::Sender::new(false),
        });
        self.remember(&job);
        let (plugins, working) = (Arc::clone(&self.plugins), Arc::clone(&job));
        let task = tasks::spawn("plugin-upload", async move {
            let ending = EndOnDrop(Arc::clone(&working));
            let outcome = tokio::select! {
                outcome = process(&plugins, &working, NewUpload { file, queued, options }) => outcome,
                () = plugins.components().closed() => Err(PluginsError::GivenUp),
            };
            working.state.send_replace(match outcome {
                Ok(uploaded) => UploadState::Accepted(uploaded),
                Err(error) => UploadState::Refused(Arc::new(error)),
            });
            drop((ending, slot));
        });
        UploadWait { job, task: Some(task) }
    }

    fn remember(&self, job: &Arc<UploadJob>) {
        let mut jobs = self.jobs.lock();
        jobs.push_back(Arc::clone(job));
        let has_ended = |job: &Arc<UploadJob>| !matches!(*job.state.borrow(), UploadState::InProgress(_));
        if jobs.len() > REMEMBERED_MAX
            && let Some(oldest) = jobs.iter().position(has_ended)
        {
            jobs.remove(oldest);
        }
    }

    /// The plugin's name and the state of an upload; `None` if it is not known, or ended long ago.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<(String, UploadState)> {
        let jobs = self.jobs.lock();
        let job = jobs.iter().find(|job| job.id == id)?;
        Some((job.name.clone(), job.state.borrow().clone()))
    }
}

/// Makes sure that an upload ends, even if the task that processes it is aborted or panics.
struct EndOnDrop(Arc<UploadJob>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let is_open = matches!(state, UploadState::InProgress(_));
            if is_open {
                *state = UploadState::Refused(Arc::new(PluginsError::GivenUp));
            }
            is_open
        });
    }
}

/// A client's wait for its upload.
#[derive(Debug)]
pub struct UploadWait {
    job: Arc<UploadJob>,
    task: Option<JoinHandle<()>>,
}

impl UploadWait {
    /// Waits at most `at_most` until it has ended; the state it has then.
    pub async fn wait(&mut self, at_most: Duration) -> UploadState {
        let mut state = self.job.state.subscribe();
        let has_ended = |state: &UploadState| !matches!(state, UploadState::InProgress(_));
        // Whether the wait timed out does not matter: the state says it.
        drop(timeout(at_most, state.wait_for(has_ended)).await);
        self.job.state.borrow().clone()
    }

    /// Stops waiting and lets the upload go on. Returns its id, to ask about it later.
    #[must_use]
    pub fn detach(mut self) -> String {
        self.task = None;
        self.job.id.clone()
    }
}

impl Drop for UploadWait {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.job.given_up.send_replace(true);
            // The compiling process it started ends with it.
            task.abort();
        }
    }
}

/// An upload that has its place in the queue.
struct NewUpload {
    file: UploadFile,
    queued: QueuedUpload,
    options: UploadOptions,
}

async fn process(
    plugins: &Arc<Plugins>,
    job: &Arc<UploadJob>,
    upload: NewUpload,
) -> Result<Uploaded, PluginsError> {
    let NewUpload { file, queued, options } = upload;
    let file = Arc::new(file);
    let hashed = Arc::clone(&file);
    let (digest, size_bytes) = tasks::blocking("plugin-digest", move || {
        Ok::<_, PluginsError>((hashed.digest()?, hashed.size_bytes()?))
    })
    .await??;
    let (shared, wanted, name) = (Arc::clone(plugins), digest.clone(), job.name.clone());
    let known = tasks::blocking("plugin-known", move || {
        (shared.components().claim(&wanted), shared.find_kept(&name, &wanted))
    });
    // With the claim, a failure here does not remove what an equal upload has compiled.
    let (claim, known) = known.await?;
    let (component, tried) = match known {
        Some((kept, version)) if version.probed || !plugins.needs_trial(&job.name, &digest, options) => {
            drop(queued);
            (kept, TrialReport { probed: version.probed, warnings: version.warnings })
        }
        _ => {
            let build = UploadBuild { file: &file, digest: &digest, size_bytes, options };
            match compile_and_try(plugins, job, queued, build).await {
                Ok(built) => built,
                Err(error) => {
                    // It may have been compiled, though it could not be loaded.
                    drop(claim);
                    let plugins = Arc::clone(plugins);
                    tasks::blocking("plugin-discard", move || plugins.discard(&digest)).await?;
                    return Err(error);
                }
            }
        }
    };
    let (plugins, job) = (Arc::clone(plugins), Arc::clone(job));
    tasks::blocking("plugin-accept", move || {
        let checked = CheckedUpload { file: &file, component, tried, options };
        let accepted = plugins.accept(&job.name, checked, || !*job.given_up.borrow());
        drop(claim);
        if accepted.is_err() {
            // Nobody needs what was compiled of it, unless it is known under another name.
            plugins.discard(&digest);
        }
        accepted
    })
    .await?
}

/// What is needed to compile and try an upload.
struct UploadBuild<'a> {
    file: &'a Arc<UploadFile>,
    /// SHA-256 of the file, hex.
    digest: &'a str,
    size_bytes: usize,
    options: UploadOptions,
}

async fn compile_and_try(
    plugins: &Arc<Plugins>,
    job: &UploadJob,
    queued: QueuedUpload,
    build: UploadBuild<'_>,
) -> Result<(KeptComponent, TrialReport), PluginsError> {
    let UploadBuild { file, digest, size_bytes, options } = build;
    let probe = plugins.needs_trial(&job.name, digest, options);
    let engine = plugins.engine();
    if engine.config().compile_here {
        let (plugins, file) = (Arc::clone(plugins), Arc::clone(file));
        let (component, tried) =
            tasks::blocking("plugin-compile", move || plugins.compile_here(&file, probe)).await??;
        return Ok((component.into(), tried));
    }
    let progress = |stage| drop(job.state.send_replace(UploadState::InProgress(stage)));
    let about = engine.builder().scan(queued, file.path(), &progress).await?;
    // What can never be loaded need not be compiled.
    engine.admit(&about)?;
    let order =
        BuildOrder { file: file.path(), digest, size_bytes, probe, urgent: true, progress: &progress };
    Ok(plugins.components().build(order).await?)
}

/// 16 random hex digits.
fn random_id() -> String {
    let mut bytes = [0_u8; 8];
    // Without randomness ids can be guessed, which does no harm: an upload's state is not secret.
    let _ = getrandom::fill(&mut bytes);
    hex(&bytes)
}
