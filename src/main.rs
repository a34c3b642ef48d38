//! The `killstream` command.

use std::process::ExitCode;

use clap::Parser;
use killstream::cli;

/// Uses less CPU time and memory than the system's allocator (see `benches/README.md`), but needs `make` to build.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
