//! The command line: its commands, and the exit codes (0 success, 1 failure, 2 usage, 3 damaged store).

mod api;
mod backup;
mod compact;
mod config_file;
mod demo;
mod export;
mod import;
mod log;
mod plugin;
mod progress;
mod query;
mod record;
mod salvage;
mod serve;
mod target;
mod token;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigErrors;
use crate::ingest::files::import as import_files;
use crate::plugin::build::child::{self, TrialInput};
use crate::server::{self, app};
use crate::store::engine;
use crate::wire::killmail;
use crate::{store, tasks};

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const DAMAGED: u8 = 3;

/// Stores, searches and streams every EVE Online killmail.
#[derive(Debug, Parser)]
#[command(name = "killstream", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: follow the feed, store killmails, answer queries and stream.
    Serve(serve::Arguments),
    /// Run a temporary server with a bundled sample of real killmails, some of which arrive live.
    Demo(demo::Arguments),
    /// Record what a source sends, with its timing, to play back with `serve --replay FILE`.
    Record(record::Arguments),
    /// Import killmails from files or folders: NDJSON, JSON or day files, alone or in tar or zip archives,
    /// compressed (.gz, .bz2, .xz, .zst) or not.
    Import(import::Arguments),
    /// Export all killmails as NDJSON, oldest first.
    Export(export::Arguments),
    /// Query the history: `killstream query system_ids=30000142 limit=3`.
    Query(query::Arguments),
    /// List, upload, promote and delete plugins.
    Plugin(plugin::Arguments),
    /// Print the admin token; create, list and revoke other tokens.
    Token(token::Arguments),
    /// Check everything in a data folder; exits with 3 if anything is damaged.
    Verify(verify::Arguments),
    /// Copy everything that is intact in a damaged store into a new one.
    Salvage(salvage::Arguments),
    /// Shrink the store's files.
    Compact(compact::Arguments),
    /// Copy the store into a folder that a server can be started on.
    Backup(backup::Arguments),
    /// Compile an uploaded plugin. The server starts this and talks to it over stdin and stdout.
    #[command(hide = true)]
    CompilePlugin,
}

/// The store that was checked is damaged; the report is on stdout.
#[derive(Debug, thiserror::Error)]
#[error("the store is damaged")]
struct Damage;

/// An argument that clap accepted is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Runs the command. Errors go to stderr.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    if matches!(arguments.command, Command::CompilePlugin) {
        return child::run(|| TrialInput { sample: app::probe_killmails(), json: killmail::json });
    }
    let is_long_running =
        matches!(arguments.command, Command::Serve(_) | Command::Demo(_) | Command::Record(_));
    log::start(if is_long_running { "info" } else { "warn" });
    tasks::silence_caught_panics(engine::NAME);
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Record(arguments) => record::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Query(arguments) => query::run(arguments),
        Command::Plugin(arguments) => plugin::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Salvage(arguments) => salvage::run(arguments),
        Command::Compact(arguments) => compact::run(arguments),
        Command::Backup(arguments) => backup::run(arguments),
        Command::CompilePlugin => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("killstream: {}", describe(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The error and its causes in one line. Most errors name their cause themselves; it is not repeated.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigErrors>() || error.is::<UsageError>() {
        return USAGE;
    }
    if error.is::<Damage>() {
        return DAMAGED;
    }
    let store = match error.downcast_ref() {
        Some(server::Error::Store(error)) => Some(error),
        _ => match error.downcast_ref() {
            Some(import_files::Error::Sink(error)) => Some(error),
            _ => error.downcast_ref(),
        },
    };
    if matches!(store, Some(store::error::StoreError::Damaged { .. })) { DAMAGED } else { FAILURE }
}

/// Runs a future to completion on a new runtime.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // A blocking task that never ends must not keep the process alive.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn damage_has_its_exit_code_wherever_it_was_found() {
        let damaged = || store::error::StoreError::Damaged { what: "x".to_owned(), command: "y".to_owned() };
        assert_eq!(exit_code(&damaged().into()), DAMAGED);
        assert_eq!(exit_code(&server::Error::Store(damaged()).into()), DAMAGED);
        assert_eq!(exit_code(&import_files::Error::Sink(damaged()).into()), DAMAGED);
        assert_eq!(exit_code(&store::error::StoreError::InUse { pid: 1 }.into()), FAILURE);
        assert_eq!(exit_code(&ConfigErrors(vec![]).into()), USAGE);
        assert_eq!(exit_code(&UsageError(String::new()).into()), USAGE);
    }

    #[test]
    fn a_cause_is_named_once() {
        let taken = || std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let listen = server::Error::Token { data_dir: "x".to_owned(), source: taken() };
        assert_eq!(describe(&listen.into()), format!("cannot read or create the token in x: {}", taken()));
        assert_eq!(
            describe(&anyhow::Error::from(taken()).context("cannot read y")),
            format!("cannot read y: {}", taken())
        );
    }

    #[test]
    fn the_arguments_are_valid() {
        Arguments::command().debug_assert();
    }
}
