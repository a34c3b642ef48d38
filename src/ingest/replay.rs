//! Files played as if they happened now, at any speed, with their own times or moved to the present.
//! Killmails come when they happened, recordings as they came.
//!
//! Must not know: who keeps the killmails; what happens to them.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::entry::Origin;
use crate::ingest::arrival::Arrival;
use crate::ingest::files::archive::{self, Found};
use crate::ingest::files::file_list::{FileList, Unreadable};
use crate::ingest::package::{self, Rule};
use crate::ingest::record;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::refused::list::Refused;
use crate::{clock, tasks};

/// Killmails handed over at once where several are due.
const BATCH_MAX: usize = 100;
/// Killmails read ahead.
const AHEAD_MAX: usize = 256;

/// What lies further ahead than this never comes, whatever the clock can count.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

const NAME: &str = "replay";

/// What is replayed, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Files or folders, in this order.
    pub paths: Vec<PathBuf>,
    /// How many times faster than it happened; 0: as fast as it goes.
    pub speed: f64,
    /// Whether one constant is added to all times so that the first killmail happens now.
    pub rebase: bool,
}

/// A replay could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there.
    #[error(transparent)]
    Files(#[from] Unreadable),
    /// No thread could be started.
    #[error("cannot start the reader of the replay: {0}")]
    Thread(#[from] std::io::Error),
}

/// A document, understood.
#[derive(Debug)]
struct Taken {
    /// When it came, unix milliseconds, where that was recorded.
    came_ms: Option<i64>,
    what: Result<Incoming, Box<Refused>>,
}

impl Taken {
    /// When it is to come, unix milliseconds of its own time; `None`: at once.
    fn at_ms(&self) -> Option<i64> {
        self.came_ms
            .or_else(|| self.what.as_ref().ok().map(|incoming| incoming.killmail.time.saturating_mul(1_000)))
    }
}

/// A running replay.
#[derive(Debug)]
pub struct Replay {
    config: Config,
    documents: mpsc::Receiver<Taken>,
    /// Taken from the channel, not yet due.
    waiting: Option<Taken>,
    /// When it began, and the time that was then, unix milliseconds.
    begun: Option<(Instant, i64)>,
    /// Added to every time, seconds.
    shift_secs: i64,
}

impl Replay {
    /// Starts reading ahead.
    ///
    /// # Errors
    /// A file is not there, or no thread can be started.
    pub fn new(config: Config) -> Result<Self, Error> {
        let FileList { files, unreadable } = FileList::of(&config.paths);
        for unreadable in unreadable {
            if unreadable.is_named {
                return Err(unreadable.into());
            }
            tracing::error!("the replay goes on without a file: {unreadable}");
        }
        let (sender, documents) = mpsc::channel(AHEAD_MAX);
        let age = if config.rebase { AgeRule::ByUpload } else { AgeRule::Zero };
        let rule = Rule { origin: Origin::Live, age, zkb: ZkbRule::IfNewer };
        tasks::thread("replay", move || read(&files, rule, &sender))?;
        Ok(Self { config, documents, waiting: None, begun: None, shift_secs: 0 })
    }

    /// What is due next, when it is due; `None` at the end.
    pub async fn next(&mut self) -> Option<Arrival> {
        let mut arrival = Arrival::default();
        while arrival.killmails.len() + arrival.refused.len() < BATCH_MAX {
            let taken = match self.waiting.take() {
                Some(taken) => taken,
                None => match self.more(arrival.killmails.is_empty() && arrival.refused.is_empty()).await {
                    Some(taken) => taken,
                    None => break,
                },
            };
            let due = taken.at_ms().map(|at_ms| self.due(at_ms)).filter(|due| *due > Instant::now());
            if let Some(due) = due {
                if !arrival.killmails.is_empty() || !arrival.refused.is_empty() {
                    self.waiting = Some(taken);
                    break;
                }
                tokio::time::sleep_until(due).await;
            }
            match taken.what {
                Ok(incoming) => arrival.killmails.push(self.moved(incoming)),
                Err(refused) => arrival.refused.push(*refused),
            }
        }
        (!arrival.killmails.is_empty() || !arrival.refused.is_empty()).then_some(arrival)
    }

    async fn more(&mut self, wait: bool) -> Option<Taken> {
        if wait { self.documents.recv().await } else { self.documents.try_recv().ok() }
    }

    /// When what belongs to this time is due; the first one sets the clock.
    fn due(&mut self, at_ms: i64) -> Instant {
        let (begun, first_ms) = *self.begun.get_or_insert_with(|| {
            if self.config.rebase {
                self.shift_secs = (clock::now_ms() - at_ms).div_euclid(1_000);
            }
            (Instant::now(), at_ms)
        });
        let after_secs = at_ms.saturating_sub(first_ms).max(0) as f64 / 1_000.0 / self.config.speed;
        let after = if self.config.speed > 0.0 {
            Duration::try_from_secs_f64(after_secs).unwrap_or(FAR)
        } else {
            Duration::ZERO
        };
        begun + after.min(FAR)
    }

    fn moved(&self, mut incoming: Incoming) -> Incoming {
        incoming.received_at_ms = clock::now_ms();
        incoming.killmail.time += self.shift_secs;
        incoming.uploaded_at = incoming.uploaded_at.map(|at| at.saturating_add(self.shift_secs));
        incoming
    }
}

fn read(files: &[PathBuf], rule: Rule, sender: &mpsc::Sender<Taken>) {
    for file in files {
        let answer = archive::documents(file, &|_| {}, &mut |found| {
            let document = match found {
                Found::Document(document) => document,
                Found::Unreadable(unreadable) => {
                    tracing::error!("the replay goes on without it: {unreadable}");
                    return Ok(());
                }
            };
            let recorded = record::read(document);
            let bytes = recorded.as_ref().map_or(document, record::RecordedDocument::document);
            let what = package::take(bytes, rule, NAME, clock::now_ms());
            sender
                .blocking_send(Taken { came_ms: recorded.map(|line| line.received_at_ms), what })
                .map_err(|_| ())
        });
        // Nobody listens any more: the server stops.
        if answer.is_err() {
            return;
        }
    }
}
