//! `killstream import`.

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

/// Lines of documents, as the API takes them.
const NDJSON: &str = "application/x-ndjson";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files or folders; `/dev/stdin` reads what is piped in.
    #[arg(required_unless_present = "refused", value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Try the documents that were refused and kept once more.
    #[arg(long, conflicts_with_all = ["paths", "server"])]
    refused: bool,
    #[command(flatten)]
    target: Target,
    /// Let newer zkb values replace stored ones.
    #[arg(long)]
    prefer_incoming: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Every document that could be had was refused, or there was none to be had.
#[derive(Debug, thiserror::Error)]
#[error("nothing was taken in")]
struct NothingTaken;

/// A name on the command line leads to no file, whatever else was taken in.
#[derive(Debug, thiserror::Error)]
#[error("a path named on the command line cannot be read; see above")]
struct Misnamed;

/// Counts go to stdout, what was left out to stderr. Fails where nothing was taken in though there was
/// something, and for names on the command line that lead nowhere.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let FileList { files, unreadable } = FileList::of(&arguments.paths);
    let total = files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    let bar = progress::bytes(total, "import");
    let left_out = LeftOut { bar: bar.clone(), count: Arc::default() };
    unreadable.iter().for_each(|one| left_out.tell(one));
    let is_misnamed = unreadable.iter().any(|one| one.is_named);
    let report = match arguments.target.server {
        Some(_) => block_on(into_server(files, &arguments, &left_out))?,
        None if arguments.refused => {
            arguments.target.folder.existing()?;
            import::refused(open(&arguments)?.as_ref())?
        }
        // A mistyped name makes no store.
        None if files.is_empty() => Report::default(),
        None => into_folder(files, &arguments, &left_out)?,
    };
    bar.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    let unreadable = left_out.count.load(Ordering::Relaxed);
    if let Some(summary) = summary(&report, unreadable) {
        eprintln!("killstream: {summary}");
    }
    if report.understood() == 0 && (report.refused() > 0 || unreadable > 0) {
        return Err(NothingTaken.into());
    }
    if is_misnamed { Err(Misnamed.into()) } else { Ok(()) }
}

/// Where files that cannot be read are told.
#[derive(Clone)]
struct LeftOut {
    bar: ProgressBar,
    count: Arc<AtomicU64>,
}

impl LeftOut {
    fn tell(&self, unreadable: &Unreadable) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| eprintln!("killstream: {unreadable}"));
    }
}

/// One line about what was not taken in; none where all was.
fn summary(report: &Report, unreadable: u64) -> Option<String> {
    let mut parts = vec![];
    let (refused, all) = (report.refused(), report.refused() + report.understood());
    if refused > 0 {
        let reasons: Vec<String> =
            report.refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        parts.push(format!("refused {refused} of {all} documents: {}", reasons.join(", ")));
    }
    if unreadable > 0 {
        parts.push(format!("files that could not be read: {unreadable}"));
    }
    if all == 0 && unreadable == 0 {
        parts.push("there were no documents".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn into_folder(files: Vec<PathBuf>, arguments: &Arguments, left_out: &LeftOut) -> anyhow::Result<Report> {
    let store = open(arguments)?;
    let (bar, left_out) = (left_out.bar.clone(), left_out.clone());
    let report = import::run(
        files,
        move |unreadable| left_out.tell(unreadable),
        |batch| {
            bar.inc(batch.read_bytes);
            import::into_store(&store, &batch.documents, arguments.prefer_incoming)
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
    left_out: &LeftOut,
) -> anyhow::Result<Report> {
    let api = Arc::new(Api::open(&arguments.target).await?);
    let path = format!("/api/v1/killmails?prefer_incoming={}", arguments.prefer_incoming);
    let (handle, bar, left_out) = (Handle::current(), left_out.bar.clone(), left_out.clone());
    let work = move || {
        import::run(
            files,
            move |unreadable| left_out.tell(unreadable),
            |batch| {
                bar.inc(batch.read_bytes);
                handle.block_on(send(&api, &path, batch)).map_err(Sending)
            },
        )
    };
    Ok(tasks::blocking("import", work).await??)
}

async fn send(api: &Api, path: &str, batch: Batch) -> anyhow::Result<Report> {
    if batch.documents.is_empty() {
        return Ok(Report::default());
    }
    // A document so long stands alone, for batches end before it; as in a folder, it does not end the import.
    let body_max_bytes = http::config::Config::default().body_max_bytes;
    if batch.documents.iter().any(|document| document.len() as u64 > body_max_bytes) {
        let refused = BTreeMap::from([(Reason::TooLarge.word().to_owned(), 1)]);
        return Ok(Report { refused, ..Report::default() });
    }
    let lines: Vec<Vec<u8>> = batch.documents.iter().map(|document| one_line(document)).collect();
    let mut answer = api.ask("POST", path, NDJSON, Bytes::from(lines.join(&b'\n'))).await?;
    serde_json::from_value(answer["data"].take()).context("the server's answer is not a report")
}

/// A document on one line: a newline inside of JSON stands between tokens, never in a text.
fn one_line(document: &[u8]) -> Vec<u8> {
    document.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// What the server said against a batch.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Sending(anyhow::Error);

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
