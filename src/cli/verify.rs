//! `killstream verify`.

use clap::Args;

use crate::cli::target::Folder;
use crate::cli::{Damage, progress};
use crate::store::verify::Report;
use crate::store::{self, verify};

/// Problems shown to people.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Reads everything in a data folder; exit code 3 if something is damaged.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bars = progress::Bars::default();
    let config = store::Config { dir: arguments.folder.data_dir, ..store::Config::default() };
    let report = verify::run(&config, &|step| bars.show(step))?;
    bars.clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    if report.is_clean() { Ok(()) } else { Err(Damage.into()) }
}

fn print(report: &Report) {
    println!("killmails {}", report.killmails);
    println!("head      {}", report.head);
    println!("revisions {}", report.revisions);
    for (first, last) in &report.holes {
        println!("hole      {first} to {last}");
    }
    for note in &report.notes {
        println!("note      {note}");
    }
    for problem in report.problems.iter().take(SHOWN_MAX) {
        println!("damaged   {}; mend it with `{}`", problem.what, problem.command);
    }
    let more = report.problems.len().saturating_sub(SHOWN_MAX) as u64 + report.more;
    if more > 0 {
        println!("damaged   {more} more; --json names them");
    }
    println!("{}", if report.is_clean() { "clean" } else { "DAMAGED" });
}
