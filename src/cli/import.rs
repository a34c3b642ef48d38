//! `killstream import`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use tokio::runtime::Handle;

use crate::cli::api::Api;
use crate::cli::target::Target;
use crate::cli::{block_on, progress};
use crate::ingest::archive;
use crate::ingest::import::{self, Batch, Report};
use crate::store::{self, Store};
use crate::{tasks, wire};

/// Lines of documents, as the API takes them.
const NDJSON: &str = "application/x-ndjson";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files or folders.
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

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let files = archive::files(&arguments.paths)?;
    let total = files.iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    let bar = progress::bytes(total, "import");
    let report = match arguments.target.server {
        Some(_) => block_on(into_server(files, &arguments, &bar))?,
        None if arguments.refused => import::refused(open(&arguments)?.as_ref())?,
        None => into_folder(files, &arguments, &bar)?,
    };
    bar.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn into_folder(files: Vec<PathBuf>, arguments: &Arguments, bar: &ProgressBar) -> anyhow::Result<Report> {
    let store = open(arguments)?;
    let report = import::run(files, |batch| {
        bar.inc(batch.read_bytes);
        import::into_store(&store, &batch.documents, arguments.prefer_incoming)
    });
    Ok(report?)
}

fn open(arguments: &Arguments) -> anyhow::Result<Arc<Store>> {
    let dir = arguments.target.folder.data_dir.clone();
    Ok(Store::open(store::Config { dir, encode: wire::killmail::encode, ..store::Config::default() })?)
}

async fn into_server(files: Vec<PathBuf>, arguments: &Arguments, bar: &ProgressBar) -> anyhow::Result<Report> {
    let api = Arc::new(Api::open(&arguments.target).await?);
    let path = format!("/api/v1/killmails?prefer_incoming={}", arguments.prefer_incoming);
    let (handle, bar) = (Handle::current(), bar.clone());
    let work = move || {
        import::run(files, |batch| {
            bar.inc(batch.read_bytes);
            handle.block_on(send(&api, &path, batch)).map_err(Sending)
        })
    };
    Ok(tasks::blocking("import", work).await??)
}

async fn send(api: &Api, path: &str, batch: Batch) -> anyhow::Result<Report> {
    if batch.documents.is_empty() {
        return Ok(Report::default());
    }
    let lines: Vec<Vec<u8>> = batch.documents.iter().map(|document| one_line(document)).collect();
    let answer = api.ask("POST", path, NDJSON, Bytes::from(lines.join(&b'\n'))).await?;
    serde_json::from_value(answer).context("the server's answer is no report")
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
    println!("refused  {}", report.refused.values().sum::<u64>());
    for (reason, count) in &report.refused {
        println!("  {reason} {count}");
    }
}
