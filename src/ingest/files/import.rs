//! Imports files: reads ahead on its own thread, hands over batches, and adds up the results.
//!
//! Must not know: whether a batch goes to a local store or over HTTP to a server.

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

/// Documents in one batch: enough to share one sync to disk, few enough not to hold up readers.
pub const BATCH_DOCUMENTS: usize = 500;
/// Bytes of documents in one batch, unless a single document is larger.
pub const BATCH_BYTES: usize = 4 << 20;
const BATCHES_AHEAD: usize = 2;
const NAME: &str = "import";

/// The results of an import.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Killmails that were not stored before.
    pub new: u64,
    /// Stored killmails to which something was added.
    pub revised: u64,
    /// Stored killmails to which nothing was added.
    pub known: u64,
    /// Killmails that are stored with another body; these were not stored.
    pub conflict: u64,
    /// Documents that are not killmails, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Killmails that were only named and whose bodies are now being fetched; only by a server.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fetching: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Report {
    /// Adds the results of another batch.
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

    /// Documents that could be read, whether new or not.
    #[must_use]
    pub const fn accepted(&self) -> u64 {
        self.new + self.revised + self.known + self.conflict + self.fetching
    }

    /// Documents refused for any reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// Why an import ended early. The batches reported before are stored.
#[derive(Debug, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    #[error("cannot start the thread that reads the files: {0}")]
    Thread(#[from] std::io::Error),
    /// A batch could not be handed over.
    #[error(transparent)]
    Sink(E),
}

/// Documents as they are in the files.
#[derive(Debug, Default)]
pub struct Batch {
    pub documents: Vec<Vec<u8>>,
    /// Bytes of the files on disk read since the last batch.
    pub read_bytes: u64,
    bytes: usize,
}

/// Reads all files and passes batches to `sink`. What cannot be read is passed to `report_unreadable`, on the
/// reading thread.
///
/// # Errors
/// `sink` failed.
pub fn run<E: std::error::Error>(
    files: Vec<PathBuf>,
    report_unreadable: impl Fn(&Unreadable) + Send + 'static,
    mut sink: impl FnMut(Batch) -> Result<Report, E>,
) -> Result<Report, Error<E>> {
    let (sender, batches): (SyncSender<Batch>, Receiver<Batch>) = sync_channel(BATCHES_AHEAD);
    let reader = tasks::thread("import", move || read(&files, &report_unreadable, &sender))?;
    let mut report = Report::default();
    for batch in batches {
        report.add(sink(batch).map_err(Error::Sink)?);
    }
    match reader.join() {
        Ok(()) => Ok(report),
        Err(_) => Err(std::io::Error::other("it panicked").into()),
    }
}

fn read(files: &[PathBuf], report_unreadable: &dyn Fn(&Unreadable), sender: &SyncSender<Batch>) {
    let read_bytes = std::cell::Cell::new(0);
    let mut batch = Batch::default();
    let send = |batch: &mut Batch| {
        let mut full = std::mem::take(batch);
        full.read_bytes = read_bytes.take();
        sender.send(full).map_err(|_| ())
    };
    for file in files {
        let done =
            archive::read_documents(file, &|bytes| read_bytes.set(read_bytes.get() + bytes), &mut |found| {
                match found {
                    Found::Document(document) => {
                        // A server refuses a request body that is too long.
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
                        report_unreadable(&unreadable);
                        Ok(())
                    }
                }
            });
        // The receiver has gone.
        if done.is_err() {
            return;
        }
    }
    let _ = send(&mut batch);
}

/// Stores a batch. With `prefer_incoming` newer zkb values replace stored ones.
///
/// # Errors
/// The store failed. Then nothing of the batch is stored, or only its first part.
pub fn store_batch(
    store: &Store,
    batch: &[Vec<u8>],
    prefer_incoming: bool,
) -> Result<Report, error::StoreError> {
    let zkb = if prefer_incoming { ZkbRule::IfNewer } else { ZkbRule::Keep };
    let (report, _) =
        append(store, batch.iter().map(Vec::as_slice), zkb, &|refused| store.add_refused(refused))?;
    Ok(report)
}

/// Retries the refused documents of a store. Those accepted now are removed from the list; those refused
/// again stay on it and are counted.
///
/// # Errors
/// The store failed.
pub fn retry_refused(store: &Store) -> Result<Report, error::StoreError> {
    let mut report = Report::default();
    // The list is newest first; they are retried in the order of arrival.
    let mut refused = store.refused_numbered(usize::MAX)?;
    refused.reverse();
    for batch in refused.chunks(BATCH_DOCUMENTS) {
        let (part, accepted) =
            append(store, batch.iter().map(|(_, refused)| &refused.raw[..]), ZkbRule::Keep, &|_| Ok(()))?;
        report.add(part);
        let numbers: Vec<u64> = accepted.into_iter().map(|at| batch[at].0).collect();
        store.remove_refused(&numbers)?;
    }
    Ok(report)
}

/// Appends the killmails of a batch; returns the report and the indexes of the documents that are stored now.
fn append<'a>(
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
        match package::parse_document(document, rule, NAME, now_ms) {
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
    let stored = places
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
    Ok((report, stored))
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
        let files = FileList::find(&[folder.path().to_owned()]).files;
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
        let files = FileList::find(&[folder.path().to_owned()]).files;
        let answer = run(files, |one| panic!("{one}"), |_| Err(std::fmt::Error));
        assert!(matches!(answer, Err(Error::Sink(_))));
    }
}
