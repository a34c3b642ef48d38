//! The `killstream` command.

use std::process::ExitCode;

use clap::Parser;
use killstream::cli;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
