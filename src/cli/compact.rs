//! `killstream compact`.

use clap::Args;

use crate::cli::progress;
use crate::cli::target::Folder;
use crate::store;
use crate::store::upkeep::compact;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Rewrites the store's files to their minimum size.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bars = progress::Bars::default();
    let config = store::config::Config { dir: arguments.folder.data_dir, ..store::config::Config::default() };
    let compacted = compact::run(&config, &|step| bars.show(step))?;
    bars.clear();
    if arguments.json {
        println!("{}", serde_json::to_string(&compacted)?);
    } else if compacted.after_bytes >= compacted.before_bytes {
        println!(
            "{} bytes; compacting would not make the store smaller, so it was left unchanged",
            compacted.before_bytes
        );
    } else {
        println!("{} bytes before, {} after", compacted.before_bytes, compacted.after_bytes);
    }
    for problem in compacted.problems.iter().filter(|_| !arguments.json) {
        println!("damaged   {}; repair it with `{}`", problem.what, problem.command);
    }
    Ok(())
}
