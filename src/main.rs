//! The `killstream` command.

use std::process::ExitCode;

use clap::Parser;
use killstream::cli;

/// Needs less CPU and less memory than the system's (`benches/README.md`), and `make` where it is built.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
