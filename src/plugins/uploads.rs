//! Uploads on their way: looked through, compiled and tried one after another, then kept under their names.
//! Who uploads waits, or comes back and asks.
//!
//! Must not know: how uploads come in, or how long anybody waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::domain::hex::hex;
use crate::plugin::build::Entered;
use crate::plugin::build::order::Stage;
use crate::plugin::judging::repeatability_trial::TrialReport;
use crate::plugins::components::{Held, Order};
use crate::plugins::upload::{Accepted, Upload, Uploaded};
use crate::plugins::{Error, Plugins};
use crate::store::plugins::compiled::UploadFile;
use crate::tasks;

/// How many uploads that came to their end can still be asked about.
const REMEMBERED_MAX: usize = 100;

/// Where an upload stands.
#[derive(Debug, Clone)]
pub enum Standing {
    /// On its way.
    At(Stage),
    /// Kept.
    Accepted(Uploaded),
    /// Refused, or we failed.
    Refused(Arc<Error>),
}

/// All uploads.
#[derive(Debug)]
pub struct Uploads {
    plugins: Arc<Plugins>,
    small: Arc<AtomicUsize>,
    large: Arc<AtomicUsize>,
    known: Mutex<VecDeque<(String, Arc<Job>)>>,
}

#[derive(Debug)]
struct Job {
    name: String,
    standing: watch::Sender<Standing>,
    /// Set when the client went away before it was told to wait.
    given_up: watch::Sender<bool>,
}

/// Room for one upload; given back on drop.
#[derive(Debug)]
pub struct Room {
    name: String,
    on_their_way: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.on_their_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Uploads {
    /// None yet.
    #[must_use]
    pub fn new(plugins: Arc<Plugins>) -> Self {
        Self { plugins, small: Arc::default(), large: Arc::default(), known: Mutex::default() }
    }

    /// Room for an upload of so many bytes (`None`: it does not say) under this name, before anything of it
    /// is read.
    ///
    /// # Errors
    /// Not a name, too many names, or too many uploads on their way.
    pub fn enter(&self, name: &str, bytes: Option<u64>) -> Result<Room, Error> {
        self.plugins.admit(name)?;
        let config = self.plugins.engine().config();
        let is_small = bytes.is_some_and(|bytes| bytes <= config.compile_small_bytes as u64);
        // Small ones are through in no time; large ones leave some room for them.
        let max = if is_small { config.uploads_max } else { config.uploads_max - config.uploads_max / 4 };
        let on_their_way = if is_small { &self.small } else { &self.large };
        let room = |now: usize| (now < max).then_some(now + 1);
        if on_their_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return Err(Error::TooManyUploads { max });
        }
        Ok(Room { name: name.to_owned(), on_their_way: Arc::clone(on_their_way) })
    }

    /// Takes an upload in. It is given up if the answer is dropped before [`Waiting::leave`] was called.
    #[must_use]
    pub fn start(&self, room: Room, file: UploadFile, how: Upload) -> Waiting {
        // Its place is taken now, so that those that come later stand behind it, whatever has to be looked up
        // first.
        let size = file.size_bytes().unwrap_or_default() as u64;
        let (entered, position) = self.plugins.engine().builder().enter(size);
        let standing = watch::Sender::new(Standing::At(Stage::Queued { position }));
        let job = Arc::new(Job { name: room.name.clone(), standing, given_up: watch::Sender::new(false) });
        let id = random_name();
        let mut known = self.known.lock();
        known.push_back((id.clone(), Arc::clone(&job)));
        let is_over = |job: &Job| !matches!(*job.standing.borrow(), Standing::At(_));
        if known.len() > REMEMBERED_MAX
            && let Some(oldest) = known.iter().position(|(_, job)| is_over(job))
        {
            known.remove(oldest);
        }
        drop(known);
        let (plugins, working) = (Arc::clone(&self.plugins), Arc::clone(&job));
        let task = tasks::spawn("plugin-upload", async move {
            let ending = Ending(Arc::clone(&working));
            let taken = tokio::select! {
                taken = take_in(&plugins, &working, (file, entered), how) => taken,
                () = plugins.components().closed() => Err(Error::GivenUp),
            };
            working.standing.send_replace(match taken {
                Ok(uploaded) => Standing::Accepted(uploaded),
                Err(error) => Standing::Refused(Arc::new(error)),
            });
            drop((ending, room));
        });
        Waiting { id, job, task: Some(task) }
    }

    /// Where an upload stands, and under which name it came.
    #[must_use]
    pub fn standing(&self, id: &str) -> Option<(String, Standing)> {
        let known = self.known.lock();
        let (_, job) = known.iter().find(|(known, _)| known == id)?;
        Some((job.name.clone(), job.standing.borrow().clone()))
    }
}

/// Sees to it that an upload comes to an end, whatever became of the task that took it in.
struct Ending(Arc<Job>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.standing.send_if_modified(|standing| {
            let is_open = matches!(standing, Standing::At(_));
            if is_open {
                *standing = Standing::Refused(Arc::new(Error::GivenUp));
            }
            is_open
        });
    }
}

/// A client's wait for its upload.
#[derive(Debug)]
pub struct Waiting {
    id: String,
    job: Arc<Job>,
    task: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Waits until it came to its end, at most so long.
    pub async fn done(&mut self, at_most: Duration) -> Standing {
        let mut standing = self.job.standing.subscribe();
        // Nobody listens to how it ended: the place itself tells.
        drop(timeout(at_most, standing.wait_for(|standing| !matches!(standing, Standing::At(_)))).await);
        self.job.standing.borrow().clone()
    }

    /// Goes away; it is taken in all the same. Its id, to ask about it.
    #[must_use]
    pub fn leave(mut self) -> String {
        self.task = None;
        self.id.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.job.given_up.send_replace(true);
            // What it started ends with it.
            task.abort();
        }
    }
}

async fn take_in(
    plugins: &Arc<Plugins>,
    job: &Arc<Job>,
    (file, entered): (UploadFile, Entered),
    how: Upload,
) -> Result<Uploaded, Error> {
    let file = Arc::new(file);
    let hashed = Arc::clone(&file);
    let (digest, size_bytes) =
        tasks::blocking("plugin-digest", move || Ok::<_, Error>((hashed.digest()?, hashed.size_bytes()?)))
            .await??;
    let (asked, wanted, name) = (Arc::clone(plugins), digest.clone(), job.name.clone());
    let known = tasks::blocking("plugin-known", move || {
        (asked.components().claim(&wanted), asked.known(&name, &wanted))
    });
    // What fails here must not take from an equal upload what was compiled of it.
    let (claim, known) = known.await?;
    let made = match known {
        Some((held, version)) if version.probed || !plugins.is_tried(&job.name, &digest, how) => {
            drop(entered);
            (held, TrialReport { probed: version.probed, warnings: version.warnings })
        }
        _ => {
            match make(plugins, job, (&file, entered), (&digest, size_bytes), how).await {
                Ok(made) => made,
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
        let (held, tried) = made;
        let accepted = Accepted { file: &file, held, tried, how };
        let kept = plugins.accept(&job.name, accepted, || !*job.given_up.borrow());
        drop(claim);
        if kept.is_err() {
            // What was compiled of it is of no use to anybody, unless it is known under another name.
            plugins.discard(&digest);
        }
        kept
    })
    .await?
}

/// Compiles and tries an upload: what is kept of it, and what came of its trial.
async fn make(
    plugins: &Arc<Plugins>,
    job: &Job,
    (file, entered): (&Arc<UploadFile>, Entered),
    (digest, size_bytes): (&str, usize),
    how: Upload,
) -> Result<(Held, TrialReport), Error> {
    let probe = plugins.is_tried(&job.name, digest, how);
    let engine = plugins.engine();
    if engine.config().compile_here {
        let (plugins, file) = (Arc::clone(plugins), Arc::clone(file));
        let (component, tried) =
            tasks::blocking("plugin-compile", move || plugins.compile_here(&file, probe)).await??;
        return Ok((component.into(), tried));
    }
    let progress = |stage| drop(job.standing.send_replace(Standing::At(stage)));
    let about = engine.builder().scan(entered, file.path(), &progress).await?;
    // What can never be loaded need not be compiled.
    engine.admit(&about)?;
    let order = Order { file: file.path(), digest, size_bytes, probe, urgent: true, progress: &progress };
    Ok(plugins.components().build(order).await?)
}

/// 16 random hex digits.
fn random_name() -> String {
    let mut bytes = [0_u8; 8];
    // Without randomness, names are guessed; nothing is kept from anybody by them.
    let _ = getrandom::fill(&mut bytes);
    hex(&bytes)
}
