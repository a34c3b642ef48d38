//! Fills the log from files: reads ahead on a thread of its own, hands over batches, adds up what became of
//! them.
//!
//! Must not know: whether a batch goes into a store here or over HTTP to a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::{Deserialize, Serialize};

use crate::domain::entry::Origin;
use crate::ingest::files::archive::{self, Found};
use crate::ingest::files::file_list::Unreadable;
use crate::ingest::package::{self, Rule};
use crate::store::incoming::{AgeRule, Appended, ZkbRule};
use crate::store::refused::list::Refused;
use crate::store::{Store, error};
use crate::{clock, tasks};

/// Documents in one batch: large enough that one sync to disk serves many, small enough that readers are not
/// held up.
pub const BATCH_DOCUMENTS: usize = 500;
/// Bytes of documents in one batch, but for one document that alone has more.
pub const BATCH_BYTES: usize = 4 << 20;
const BATCHES_AHEAD: usize = 2;
const NAME: &str = "import";

/// What became of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Killmails we did not have.
    pub new: u64,
    /// Killmails we had that learned something.
    pub revised: u64,
    /// Killmails we had.
    pub known: u64,
    /// Killmails we have with another body; not stored.
    pub conflict: u64,
    /// Documents that are no killmail, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Killmails that are only named and whose bodies are being fetched; only a server does that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fetching: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Report {
    /// Adds another one to it.
    pub fn add(&mut self, other: Self) {
        self.new += other.new;
        self.revised += other.revised;
        self.known += other.known;
        self.conflict += other.conflict;
        self.fetching += other.fetching;
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }

    /// Documents understood, whether they were news or not.
    #[must_use]
    pub const fn understood(&self) -> u64 {
        self.new + self.revised + self.known + self.conflict + self.fetching
    }

    /// Documents refused, whatever the reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// An import that did not get to its end. What was reported before is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    /// No thread could be started.
    #[error("cannot start the reader of the import: {0}")]
    Thread(#[from] std::io::Error),
    /// A batch was not taken.
    #[error(transparent)]
    Sink(E),
}

/// Documents on their way, as they stand in the files.
#[derive(Debug, Default)]
pub struct Batch {
    /// The documents.
    pub documents: Vec<Vec<u8>>,
    /// Bytes of the files on disk read up to here, since the last batch.
    pub read_bytes: u64,
    bytes: usize,
}

/// Reads all files and hands batch after batch to `sink`, and what could not be read to `tell`, on a thread
/// of its own.
///
/// # Errors
/// `sink` failed.
pub fn run<E: std::error::Error>(
    files: Vec<PathBuf>,
    tell: impl Fn(&Unreadable) + Send + 'static,
    mut sink: impl FnMut(Batch) -> Result<Report, E>,
) -> Result<Report, Error<E>> {
    let (sender, batches): (SyncSender<Batch>, Receiver<Batch>) = sync_channel(BATCHES_AHEAD);
    let reader = tasks::thread("import", move || read(&files, &tell, &sender))?;
    let mut report = Report::default();
    for batch in batches {
        report.add(sink(batch).map_err(Error::Sink)?);
    }
    match reader.join() {
        Ok(()) => Ok(report),
        Err(_) => Err(std::io::Error::other("it panicked").into()),
    }
}

fn read(files: &[PathBuf], tell: &dyn Fn(&Unreadable), sender: &SyncSender<Batch>) {
    let read_bytes = std::cell::Cell::new(0);
    let mut batch = Batch::default();
    let send = |batch: &mut Batch| {
        let mut full = std::mem::take(batch);
        full.read_bytes = read_bytes.take();
        sender.send(full).map_err(|_| ())
    };
    for file in files {
        let answer =
            archive::documents(file, &|bytes| read_bytes.set(read_bytes.get() + bytes), &mut |found| {
                match found {
                    Found::Document(document) => {
                        // A server refuses what is too long as a whole.
                        if batch.bytes + document.len() > BATCH_BYTES && !batch.documents.is_empty() {
                            send(&mut batch)?;
                        }
                        batch.bytes += document.len();
                        batch.documents.push(document.to_vec());
                        if batch.documents.len() >= BATCH_DOCUMENTS || batch.bytes >= BATCH_BYTES {
                            send(&mut batch)
                        } else {
                            Ok(())
                        }
                    }
                    Found::Unreadable(unreadable) => {
                        tell(&unreadable);
                        Ok(())
                    }
                }
            });
        // Nobody takes any more.
        if answer.is_err() {
            return;
        }
    }
    let _ = send(&mut batch);
}

/// Takes a batch straight into a store. With `prefer_incoming` newer zkb values replace stored ones.
///
/// # Errors
/// The store failed; nothing of the batch is kept then, or all of a first part.
pub fn into_store(
    store: &Store,
    batch: &[Vec<u8>],
    prefer_incoming: bool,
) -> Result<Report, error::StoreError> {
    let zkb = if prefer_incoming { ZkbRule::IfNewer } else { ZkbRule::Keep };
    let (report, _) =
        take(store, batch.iter().map(Vec::as_slice), zkb, &|refused| store.add_refused(refused))?;
    Ok(report)
}

/// Tries the refused documents a store keeps once more. Those taken now leave the list; those refused again
/// stay on it and are counted.
///
/// # Errors
/// The store failed.
pub fn refused(store: &Store) -> Result<Report, error::StoreError> {
    let mut report = Report::default();
    // Newest first there; the oldest first here, as they came.
    let mut kept = store.refused_numbered(usize::MAX)?;
    kept.reverse();
    for batch in kept.chunks(BATCH_DOCUMENTS) {
        let (some, taken) =
            take(store, batch.iter().map(|(_, refused)| &refused.raw[..]), ZkbRule::Keep, &|_| Ok(()))?;
        report.add(some);
        let numbers: Vec<u64> = taken.into_iter().map(|at| batch[at].0).collect();
        store.remove_refused(&numbers)?;
    }
    Ok(report)
}

/// The report, and which documents of the batch are in the store now, by their place in it.
fn take<'a>(
    store: &Store,
    batch: impl Iterator<Item = &'a [u8]>,
    zkb: ZkbRule,
    refuse: &dyn Fn(&Refused) -> Result<(), error::StoreError>,
) -> Result<(Report, Vec<usize>), error::StoreError> {
    let rule = Rule { origin: Origin::Backfill, age: AgeRule::ByUpload, zkb };
    let now_ms = clock::now_ms();
    let mut report = Report::default();
    let (mut killmails, mut places) = (Vec::new(), Vec::new());
    for (at, document) in batch.enumerate() {
        match package::take(document, rule, NAME, now_ms) {
            Ok(incoming) => {
                killmails.push(incoming);
                places.push(at);
            }
            Err(refused) => {
                *report.refused.entry(refused.reason.clone()).or_default() += 1;
                refuse(&refused)?;
            }
        }
    }
    let appended = store.append(killmails, None)?;
    let taken = places
        .into_iter()
        .zip(&appended)
        .filter(|(_, one)| !matches!(one, Appended::Conflict(_)))
        .map(|(at, _)| at)
        .collect();
    for appended in appended {
        match appended {
            Appended::New(_) => report.new += 1,
            Appended::Revised(_) => report.revised += 1,
            Appended::Known(_) => report.known += 1,
            Appended::Conflict(_) => report.conflict += 1,
        }
    }
    Ok((report, taken))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs;

    use super::*;
    use crate::ingest::files::file_list::FileList;

    #[test]
    fn files_come_in_batches_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..1_200).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        fs::write(folder.path().join("a.ndjson"), &lines).unwrap();
        fs::write(folder.path().join("b.json"), "{\"n\":1200}").unwrap();
        let (mut sizes, mut documents, mut bytes) = (vec![], vec![], 0);
        let files = FileList::of(&[folder.path().to_owned()]).files;
        let report = run::<Infallible>(
            files,
            |one| panic!("{one}"),
            |batch| {
                sizes.push(batch.documents.len());
                bytes += batch.read_bytes;
                documents.extend(batch.documents);
                Ok(Report { new: 1, ..Report::default() })
            },
        );
        assert_eq!(report.unwrap().new, 3);
        assert_eq!(sizes, [500, 500, 201]);
        assert_eq!(documents[1_200], b"{\"n\":1200}");
        assert_eq!(bytes, lines.len() as u64 + 10);
    }

    #[test]
    fn a_failing_sink_ends_the_import() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "{}\n".repeat(10_000)).unwrap();
        let files = FileList::of(&[folder.path().to_owned()]).files;
        let answer = run(files, |one| panic!("{one}"), |_| Err(std::fmt::Error));
        assert!(matches!(answer, Err(Error::Sink(_))));
    }
}
