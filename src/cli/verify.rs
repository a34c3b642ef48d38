//! `killstream verify`.

use clap::Args;

use crate::cli::target::Folder;
use crate::cli::{Damage, progress};
use crate::store::upkeep::verify::{self, Report};
use crate::store::{self, Store};
use crate::wire::killmail::encode;

/// Problems printed without `--json`.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Also print the digest of all killmails: the SHA-256 of the response of `GET /api/v1/export`, which is
    /// the same for equal stores
    #[arg(long)]
    digest: bool,
}

/// Checks everything in a data folder. Fails with [`Damage`], and so exit code 3, if anything is damaged.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bars = progress::Bars::default();
    let config = store::config::Config { dir: arguments.folder.data_dir, ..store::config::Config::default() };
    let report = verify::run(&config, &|step| bars.show(step))?;
    bars.clear();
    let digest = if arguments.digest && report.is_clean() {
        Some(Store::open(config, encode)?.digest()?.0)
    } else {
        None
    };
    if arguments.json {
        let mut json = serde_json::to_value(&report)?;
        if let Some(digest) = digest {
            json["digest"] = digest.into();
        }
        println!("{json}");
    } else {
        print(&report, digest.as_deref());
    }
    if report.is_clean() { Ok(()) } else { Err(Damage.into()) }
}

fn print(report: &Report, digest: Option<&str>) {
    println!("killmails {}", report.killmails);
    if let Some(digest) = digest {
        println!("digest    {digest}");
    }
    println!("head      {}", report.head);
    println!("revisions {}", report.revisions);
    for (first, last) in &report.holes {
        println!("hole      {first} to {last}");
    }
    for note in &report.notes {
        println!("note      {note}");
    }
    for problem in report.problems.iter().take(SHOWN_MAX) {
        println!("damaged   {}; repair it with `{}`", problem.what, problem.command);
    }
    let more = report.problems.len().saturating_sub(SHOWN_MAX) as u64 + report.more;
    if more > 0 {
        println!("damaged   {more} more; --json lists them all");
    }
    println!("{}", if report.is_clean() { "clean" } else { "DAMAGED" });
}
