//! The `killstream` command.

use std::process::ExitCode;

use clap::Parser;
use killstream::cli;
use tikv_jemallocator::Jemalloc;

/// The system's own keeps what a burst of requests took; this one gives it back within seconds (`benches/README.md`).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
