//! `killstream import`: reads killmails from files into a data folder or a running server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use tokio::runtime::Handle;

use crate::cli::api::Api;
use crate::cli::target::Target;
use crate::cli::{block_on, progress};
use crate::ingest::files::file_list::{FileList, Unreadable};
use crate::ingest::files::import::{self, Batch, Report};
use crate::store::{self, Store};
use crate::wire::read::reason::Reason;
use crate::{http, tasks, wire};

/// The content type of a batch: one document per line.
const NDJSON: &str = "application/x-ndjson";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files or folders; use /dev/stdin to read from a pipe
    #[arg(required_unless_present = "refused", value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Import the stored refused documents again
    #[arg(long, conflicts_with_all = ["paths", "server"])]
    refused: bool,
    #[command(flatten)]
    target: Target,
    /// Let newer zkb values replace stored ones
    #[arg(long)]
    prefer_incoming: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Every document was refused, or no file could be read.
#[derive(Debug, thiserror::Error)]
#[error("nothing was imported")]
struct NothingImported;

/// A path given on the command line cannot be read, though others were imported.
#[derive(Debug, thiserror::Error)]
#[error("a path given on the command line cannot be read; see above")]
struct UnreadableArgument;

/// Prints counts to stdout and what was skipped to stderr. Fails if nothing was imported although there was
/// input, or if a path given on the command line cannot be read.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let FileList { files, unreadable } = FileList::find(&arguments.paths);
    let total = files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    let bar = progress::bytes(total, "import");
    let skipped = SkippedFiles { bar: bar.clone(), count: Arc::default() };
    unreadable.iter().for_each(|one| skipped.report(one));
    let is_argument_unreadable = unreadable.iter().any(|one| one.is_named);
    let report = match arguments.target.server {
        Some(_) => block_on(into_server(files, &arguments, &skipped))?,
        None if arguments.refused => {
            arguments.target.folder.require_store()?;
            import::retry_refused(open(&arguments)?.as_ref())?
        }
        // A mistyped name must not create a store.
        None if files.is_empty() => Report::default(),
        None => into_folder(files, &arguments, &skipped)?,
    };
    bar.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    let unreadable = skipped.count.load(Ordering::Relaxed);
    if let Some(summary) = summary(&report, unreadable) {
        eprintln!("killstream: {summary}");
    }
    if report.accepted() == 0 && (report.refused() > 0 || unreadable > 0) {
        return Err(NothingImported.into());
    }
    if is_argument_unreadable { Err(UnreadableArgument.into()) } else { Ok(()) }
}

/// Reports and counts files that cannot be read.
#[derive(Clone)]
struct SkippedFiles {
    bar: ProgressBar,
    count: Arc<AtomicU64>,
}

impl SkippedFiles {
    fn report(&self, unreadable: &Unreadable) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| eprintln!("killstream: {unreadable}"));
    }
}

/// One line about what was not imported; `None` if everything was.
fn summary(report: &Report, unreadable: u64) -> Option<String> {
    let mut parts = vec![];
    let (refused, all) = (report.refused(), report.refused() + report.accepted());
    if refused > 0 {
        let reasons: Vec<String> =
            report.refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        parts.push(format!("refused {refused} of {all} documents: {}", reasons.join(", ")));
    }
    if unreadable > 0 {
        parts.push(format!("files that could not be read: {unreadable}"));
    }
    if all == 0 && unreadable == 0 {
        parts.push("no documents found".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn into_folder(files: Vec<PathBuf>, arguments: &Arguments, skipped: &SkippedFiles) -> anyhow::Result<Report> {
    let store = open(arguments)?;
    let (bar, skipped) = (skipped.bar.clone(), skipped.clone());
    let report = import::run(
        files,
        move |unreadable| skipped.report(unreadable),
        |batch| {
            bar.inc(batch.read_bytes);
            import::store_batch(&store, &batch.documents, arguments.prefer_incoming)
        },
    );
    Ok(report?)
}

fn open(arguments: &Arguments) -> anyhow::Result<Arc<Store>> {
    let dir = arguments.target.folder.data_dir.clone();
    let config = store::config::Config { dir, ..store::config::Config::default() };
    Ok(Store::open(config, wire::killmail::encode)?)
}

async fn into_server(
    files: Vec<PathBuf>,
    arguments: &Arguments,
    skipped: &SkippedFiles,
) -> anyhow::Result<Report> {
    let api = Arc::new(Api::open(&arguments.target).await?);
    let path = format!("/api/v1/killmails?prefer_incoming={}", arguments.prefer_incoming);
    let (handle, bar, skipped) = (Handle::current(), skipped.bar.clone(), skipped.clone());
    let work = move || {
        import::run(
            files,
            move |unreadable| skipped.report(unreadable),
            |batch| {
                bar.inc(batch.read_bytes);
                handle.block_on(send(&api, &path, batch)).map_err(SendError)
            },
        )
    };
    Ok(tasks::blocking("import", work).await??)
}

async fn send(api: &Api, path: &str, batch: Batch) -> anyhow::Result<Report> {
    if batch.documents.is_empty() {
        return Ok(Report::default());
    }
    // Batches end before a document this large, so it is alone in its own. Skip it, as an import into a folder
    // does, instead of failing.
    let body_max_bytes = http::config::Config::default().body_max_bytes;
    if batch.documents.iter().any(|document| document.len() as u64 > body_max_bytes) {
        let refused = BTreeMap::from([(Reason::TooLarge.word().to_owned(), 1)]);
        return Ok(Report { refused, ..Report::default() });
    }
    let lines: Vec<Vec<u8>> = batch.documents.iter().map(|document| one_line(document)).collect();
    let mut response = api.request("POST", path, NDJSON, Bytes::from(lines.join(&b'\n'))).await?;
    serde_json::from_value(response["data"].take()).context("the server's response is not a report")
}

/// The document on one line: in JSON a raw newline is only ever whitespace between tokens.
fn one_line(document: &[u8]) -> Vec<u8> {
    document.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// A batch could not be sent, or the server refused it.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct SendError(anyhow::Error);

fn print(report: &Report) {
    println!("new      {}", report.new);
    println!("revised  {}", report.revised);
    println!("known    {}", report.known);
    println!("conflict {}", report.conflict);
    if report.fetching > 0 {
        println!("fetching {}", report.fetching);
    }
    println!("refused  {}", report.refused());
    for (reason, count) in &report.refused {
        println!("  {reason} {count}");
    }
}
