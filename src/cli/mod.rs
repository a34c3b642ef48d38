//! The command line: what there is to call, and what exit codes mean (0 ok, 1 failure, 2 usage, 3 damaged
//! store).

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
use crate::plugin::build::child::{self, Trial};
use crate::server::{self, app};
use crate::wire::killmail;
use crate::{store, tasks};

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const DAMAGED: u8 = 3;

/// Every EVE Online killmail, kept, found and streamed.
#[derive(Debug, Parser)]
#[command(name = "killstream", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: follow the feed, keep killmails, answer and stream.
    Serve(serve::Arguments),
    /// Try everything now: a temporary store, a bundled sample of real killmails, a few of them live.
    Demo(demo::Arguments),
    /// Write down what a source sends, with its timing; `serve --replay FILE` plays it back.
    Record(record::Arguments),
    /// Fill the log from files or folders: NDJSON, JSON, raw days; .zst, .gz, .bz2, .xz; tar (EVE Ref) and
    /// zip archives.
    Import(import::Arguments),
    /// Write every killmail as a line of JSON, oldest first.
    Export(export::Arguments),
    /// Ask history: `killstream query system_ids=30000142 limit=3`.
    Query(query::Arguments),
    /// List, upload, promote and delete plugins.
    Plugin(plugin::Arguments),
    /// Show the token that writing needs.
    Token(token::Arguments),
    /// Read everything in a data folder and say what is damaged; exit code 3 if anything is.
    Verify(verify::Arguments),
    /// Write a new store of what is intact in a damaged one.
    Salvage(salvage::Arguments),
    /// Make the store's files as small as they can be.
    Compact(compact::Arguments),
    /// Copy the store into a folder from which a server can be started.
    Backup(backup::Arguments),
    /// Compile an upload: started by the server, which talks to it over its standard streams.
    #[command(hide = true)]
    CompilePlugin,
}

/// A store was looked at and is damaged; its report is on stdout.
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
        return child::run(|| Trial { sample: app::trial(), json: killmail::json });
    }
    let serves = matches!(arguments.command, Command::Serve(_) | Command::Demo(_) | Command::Record(_));
    log::start(if serves { "info" } else { "warn" });
    tasks::silence_caught_panics();
    let answer = match arguments.command {
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
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("killstream: {}", sentence(&error));
            ExitCode::from(code(&error))
        }
    }
}

/// An error and its causes in one sentence. Most name their cause themselves, and nothing is told twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        }
    }
    told
}

/// The exit code an error stands for.
fn code(error: &anyhow::Error) -> u8 {
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

/// Runs asynchronous work to its end.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = runtime.block_on(work);
    // Work that does not end must not keep the process.
    runtime.shutdown_background();
    answer
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn damage_is_told_apart_wherever_it_was_met() {
        let damaged = || store::error::StoreError::Damaged { what: "x".to_owned(), command: "y".to_owned() };
        assert_eq!(code(&damaged().into()), DAMAGED);
        assert_eq!(code(&server::Error::Store(damaged()).into()), DAMAGED);
        assert_eq!(code(&import_files::Error::Sink(damaged()).into()), DAMAGED);
        assert_eq!(code(&store::error::StoreError::InUse { pid: 1 }.into()), FAILURE);
        assert_eq!(code(&ConfigErrors(vec![]).into()), USAGE);
        assert_eq!(code(&UsageError(String::new()).into()), USAGE);
    }

    #[test]
    fn a_cause_is_told_once() {
        let taken = || std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let listen = server::Error::Token { data_dir: "x".to_owned(), source: taken() };
        assert_eq!(sentence(&listen.into()), format!("cannot read or make the token in x: {}", taken()));
        assert_eq!(
            sentence(&anyhow::Error::from(taken()).context("cannot read y")),
            format!("cannot read y: {}", taken())
        );
    }

    #[test]
    fn the_arguments_are_sound() {
        Arguments::command().debug_assert();
    }
}
