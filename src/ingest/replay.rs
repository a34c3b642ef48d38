//! Plays files back as if they happened now, at any speed, with their own times or shifted to the present.
//! Killmails arrive when they happened, documents of recordings when they arrived.
//!
//! Must not know: who stores the killmails; what happens to them.

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

/// Documents delivered at once if several are due.
const BATCH_MAX: usize = 100;
/// Documents read ahead.
const AHEAD_MAX: usize = 256;

/// The longest wait: anything later never arrives, but must not overflow the clock.
const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

const NAME: &str = "replay";

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Files or folders, played in this order.
    pub paths: Vec<PathBuf>,
    /// How many times faster than real time; 0: as fast as possible.
    pub speed: f64,
    /// Whether all times are shifted so that the first killmail happens now.
    pub rebase: bool,
}

/// Why a replay could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Files(#[from] Unreadable),
    #[error("cannot start the thread that reads the files: {0}")]
    Thread(#[from] std::io::Error),
}

/// A parsed document.
#[derive(Debug)]
struct Parsed {
    /// When it arrived, unix milliseconds, if that was recorded.
    arrived_ms: Option<i64>,
    content: Result<Incoming, Box<Refused>>,
}

impl Parsed {
    /// When it arrives in the time of the recording, unix milliseconds; `None`: at once.
    fn at_ms(&self) -> Option<i64> {
        self.arrived_ms.or_else(|| {
            self.content.as_ref().ok().map(|incoming| incoming.killmail.time.saturating_mul(1_000))
        })
    }
}

/// When the replay started, and the recorded time (unix milliseconds) that corresponds to it.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: Instant,
    recorded_ms: i64,
}

/// A replay in progress.
#[derive(Debug)]
pub struct Replay {
    config: Config,
    documents: mpsc::Receiver<Parsed>,
    /// Received from the reader, not yet due.
    waiting: Option<Parsed>,
    /// Set by the first document.
    start: Option<Start>,
    /// Added to all times, seconds.
    shift_secs: i64,
}

impl Replay {
    /// Starts to read ahead.
    ///
    /// # Errors
    /// A file does not exist, or the thread cannot be started.
    pub fn new(config: Config) -> Result<Self, Error> {
        let FileList { files, unreadable } = FileList::find(&config.paths);
        for unreadable in unreadable {
            if unreadable.is_named {
                return Err(unreadable.into());
            }
            tracing::error!("the replay continues without a file: {unreadable}");
        }
        let (sender, documents) = mpsc::channel(AHEAD_MAX);
        let age = if config.rebase { AgeRule::ByUpload } else { AgeRule::Zero };
        let rule = Rule { origin: Origin::Live, age, zkb: ZkbRule::IfNewer };
        tasks::thread("replay", move || read_files(&files, rule, &sender))?;
        Ok(Self { config, documents, waiting: None, start: None, shift_secs: 0 })
    }

    /// Waits for the next documents that are due; `None` at the end.
    pub async fn next(&mut self) -> Option<Arrival> {
        let mut arrival = Arrival::default();
        while arrival.killmails.len() + arrival.refused.len() < BATCH_MAX {
            let parsed = match self.waiting.take() {
                Some(parsed) => parsed,
                None => {
                    match self.receive(arrival.killmails.is_empty() && arrival.refused.is_empty()).await {
                        Some(parsed) => parsed,
                        None => break,
                    }
                }
            };
            let due = parsed.at_ms().map(|at_ms| self.due(at_ms)).filter(|due| *due > Instant::now());
            if let Some(due) = due {
                if !arrival.killmails.is_empty() || !arrival.refused.is_empty() {
                    self.waiting = Some(parsed);
                    break;
                }
                tokio::time::sleep_until(due).await;
            }
            match parsed.content {
                Ok(incoming) => arrival.killmails.push(self.shifted(incoming)),
                Err(refused) => arrival.refused.push(*refused),
            }
        }
        (!arrival.killmails.is_empty() || !arrival.refused.is_empty()).then_some(arrival)
    }

    async fn receive(&mut self, wait: bool) -> Option<Parsed> {
        if wait { self.documents.recv().await } else { self.documents.try_recv().ok() }
    }

    /// When a document of this time is due. The first one defines the start.
    fn due(&mut self, at_ms: i64) -> Instant {
        let start = *self.start.get_or_insert_with(|| {
            if self.config.rebase {
                self.shift_secs = (clock::now_ms() - at_ms).div_euclid(1_000);
            }
            Start { at: Instant::now(), recorded_ms: at_ms }
        });
        let after_secs = at_ms.saturating_sub(start.recorded_ms).max(0) as f64 / 1_000.0 / self.config.speed;
        let after = if self.config.speed > 0.0 {
            Duration::try_from_secs_f64(after_secs).unwrap_or(WAIT_MAX)
        } else {
            Duration::ZERO
        };
        start.at + after.min(WAIT_MAX)
    }

    fn shifted(&self, mut incoming: Incoming) -> Incoming {
        incoming.received_at_ms = clock::now_ms();
        incoming.killmail.time += self.shift_secs;
        incoming.uploaded_at = incoming.uploaded_at.map(|at| at.saturating_add(self.shift_secs));
        incoming
    }
}

fn read_files(files: &[PathBuf], rule: Rule, sender: &mpsc::Sender<Parsed>) {
    for file in files {
        let done = archive::read_documents(file, &|_| {}, &mut |found| {
            let document = match found {
                Found::Document(document) => document,
                Found::Unreadable(unreadable) => {
                    tracing::error!("the replay continues without it: {unreadable}");
                    return Ok(());
                }
            };
            let recorded = record::parse_line(document);
            let bytes = recorded.as_ref().map_or(document, record::RecordedDocument::document);
            let content = package::parse_document(bytes, rule, NAME, clock::now_ms());
            sender
                .blocking_send(Parsed { arrived_ms: recorded.map(|line| line.received_at_ms), content })
                .map_err(|_| ())
        });
        // The receiver has gone: the server is stopping.
        if done.is_err() {
            return;
        }
    }
}
