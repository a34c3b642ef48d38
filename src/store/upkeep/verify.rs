//! Verification: everything there is in a data folder is read, and each part is held against the others.
//!
//! Must not know: how damage is mended; only which command does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::domain::hex::sha256_hex;
use crate::domain::id::{Epoch, Seq};
use crate::store::config::Config;
use crate::store::engine::ledger::{self, Contents};
use crate::store::engine::meta::{self, Numbers};
use crate::store::engine::{Engine, chunked_values, copy, data_folder, folder_swap, spare};
use crate::store::error::StoreError;
use crate::store::format::dictionary::{self, Dictionaries};
use crate::store::format::record::Codec;
use crate::store::index::snapshot::{self, Mark, Usability};
use crate::store::keys::{Tree, refused_document};
use crate::store::mirror::file_numbers::FileNumbers;
use crate::store::progress::Progress;
use crate::store::refused::list;
use crate::store::upkeep::check::Check;

/// Problems named one by one; more are only counted.
const NAMED_MAX: usize = 1_000;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Killmails whose records are whole and agree with the log.
    pub killmails: u64,
    /// The greatest number given out.
    pub head: u64,
    /// Revisions made.
    pub revisions: u64,
    /// Ranges of numbers known to be lost, first and last; they are no damage any more.
    pub holes: Vec<(u64, u64)>,
    /// What is damaged, at most 1,000 of them.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: u64,
    /// What is odd but does no harm.
    pub notes: Vec<String>,
}

/// Something damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it is.
    pub what: String,
    /// The command that mends it.
    pub command: String,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds a problem.
    pub(crate) fn add(&mut self, what: String, command: String) {
        if self.problems.iter().rev().take(8).any(|problem| problem.what == what) {
            return;
        }
        if self.problems.len() < NAMED_MAX {
            self.problems.push(Problem { what, command });
        } else {
            self.more += 1;
        }
    }
}

/// Reads everything in a data folder that nobody has open.
///
/// # Errors
/// There is no store, it is in use, a newer killstream wrote it, or the file system does not let it be read.
/// Damage is no error.
pub fn run(config: &Config, progress: &Progress<'_>) -> Result<Report, StoreError> {
    let dir = &config.dir;
    folder_swap::finish(dir).map_err(StoreError::io("finish a compaction in", dir))?;
    data_folder::must_hold_store(dir)?;
    let mut report = Report::default();
    match Engine::open(dir, config.cache_bytes) {
        Ok(engine) => {
            let numbers = examine(&engine, dir, progress, &mut report)?;
            Beside { engine: &engine, dir, report: &mut report }.examine(numbers.as_ref());
        }
        Err(StoreError::Damaged { what, command }) => report.add(what, command),
        Err(error) => return Err(error),
    }
    if report.is_clean() {
        spare::remove(dir).map_err(StoreError::io("remove the spare in", dir))?;
    }
    Ok(report)
}

/// Holds the trees of an engine against each other and against the ledger of this folder; the store's own
/// numbers, if they are whole. What is damaged goes into the report.
///
/// # Errors
/// `TooNew`.
pub(crate) fn examine(
    engine: &Engine,
    dir: &Path,
    progress: &Progress<'_>,
    report: &mut Report,
) -> Result<Option<Numbers>, StoreError> {
    let mut trees = Trees { engine, report };
    let Some((epoch, numbers)) = trees.numbers()? else { return Ok(None) };
    let known = trees.tell(meta::dictionaries(engine))?.unwrap_or_default();
    let codec = Codec::new(Dictionaries::new(known));
    let holes = trees.tell(meta::lost_numbers(engine))?.unwrap_or_default();
    let unfilled = trees.tell(meta::numbers_without_killmail(engine))?.unwrap_or_default();
    trees.tell(FileNumbers::read(engine, numbers.head))?;
    (trees.report.head, trees.report.revisions) = (numbers.head, numbers.rev);
    trees.report.holes.clone_from(&holes);
    let mut contents =
        trees.tell(ledger::read(dir).map_err(StoreError::io("read", ledger::path(dir))))?.unwrap_or_default();
    if contents.mark.is_some_and(|mark| mark.epoch != epoch) {
        // Of a store that stood here before.
        contents = Contents::default();
    }
    Check {
        engine,
        numbers,
        holes: &unfilled,
        codec: &codec,
        ledger: &contents,
        progress,
        report: trees.report,
        cut: false,
        newer: None,
    }
    .all()?;
    trees.refused()?;
    Ok(Some(numbers))
}

struct Trees<'a> {
    engine: &'a Engine,
    report: &'a mut Report,
}

impl Trees<'_> {
    /// The value; or the problem goes into the report.
    fn tell<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ StoreError::TooNew { .. }) => Err(error),
            Err(error) => {
                tell(self.engine, self.report, error);
                Ok(None)
            }
        }
    }

    fn numbers(&mut self) -> Result<Option<(Epoch, Numbers)>, StoreError> {
        let founded = self.tell(meta::is_initialized(self.engine))?;
        let epoch = self.tell(meta::epoch(self.engine))?;
        let numbers = self.tell(meta::numbers(self.engine))?;
        if founded == Some(false) {
            tell(self.engine, self.report, self.engine.damaged("the schema number is missing"));
        }
        Ok(epoch.zip(numbers))
    }

    fn refused(&mut self) -> Result<(), StoreError> {
        // Nothing tells whether a plugin's state is whole, but the engine must be able to read it.
        for tree in [Tree::Plugins, Tree::Refused] {
            for pair in self.engine.scan(tree, &[]) {
                let Some((key, value)) = self.tell(pair)? else { break };
                let Some(number) = refused_document(&key).filter(|_| tree == Tree::Refused) else { continue };
                let whole = chunked_values::join(self.engine, tree, &key, &value)
                    .and_then(|bytes| list::decode(&bytes));
                if whole.is_err() {
                    tell(self.engine, self.report, self.engine.damaged(format!("refused document {number}")));
                }
            }
        }
        Ok(())
    }
}

/// What stands beside an engine; all of it can be had without the damaged file.
pub(crate) struct Beside<'a> {
    pub engine: &'a Engine,
    /// The data folder.
    pub dir: &'a Path,
    pub report: &'a mut Report,
}

impl Beside<'_> {
    /// Holds it against what the engine has.
    pub fn examine(&mut self, numbers: Option<&Numbers>) {
        self.dictionaries();
        if let Some(numbers) = numbers {
            self.snapshots(numbers);
        }
        self.components();
    }

    /// Every dictionary has a file, without which `salvage` could not read what is compressed with it.
    fn dictionaries(&mut self) {
        let Ok(known) = meta::dictionaries(self.engine) else { return };
        let files = dictionary::read_files(self.dir).unwrap_or_default();
        for (number, _) in known.iter().filter(|(number, bytes)| files.get(number) != Some(bytes)) {
            let what = format!(
                "dictionary {number} has no whole copy beside the store, which salvage needs; every start writes it"
            );
            self.report.add(what, format!("killstream serve --data-dir {}", self.dir.display()));
        }
    }

    fn snapshots(&mut self, numbers: &Numbers) {
        let Ok(epoch) = meta::epoch(self.engine) else { return };
        let newest = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev };
        let files = snapshot::list_files(self.dir).map_err(StoreError::io("list", self.dir));
        for path in files.unwrap_or_else(|error| self.tell(error)) {
            let mut note = |what: &str| self.report.notes.push(format!("{} {what}", path.display()));
            match snapshot::check(&path, &newest) {
                Ok(Usability::Usable) => {}
                Ok(Usability::Outdated) => {
                    note("is a snapshot of another version of killstream; the next snapshot replaces it")
                }
                Ok(Usability::Foreign) => note("is a snapshot of another store"),
                Err(_) => self
                    .report
                    .add(format!("the snapshot {}", path.display()), format!("rm {}", path.display())),
            }
        }
    }

    /// The plugins' components are named by their digests.
    fn components(&mut self) {
        let files = copy::list_files(&self.dir.join("plugins"));
        let mut damaged = BTreeSet::new();
        for file in files.unwrap_or_else(|error| self.tell(error)) {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let whole = fs::read(&path).is_ok_and(|bytes| {
                path.file_stem().and_then(|stem| stem.to_str()) == Some(&sha256_hex(&bytes))
            });
            if !whole {
                damaged.insert(path);
            }
        }
        for path in damaged {
            let what = format!("the plugin component {}", path.display());
            self.report.add(what, "killstream plugin put (the component once more)".to_owned());
        }
    }

    fn tell<T: Default>(&mut self, error: StoreError) -> T {
        tell(self.engine, self.report, error);
        T::default()
    }
}

/// Puts an error of the store into the report.
pub(crate) fn tell(engine: &Engine, report: &mut Report, error: StoreError) {
    let error =
        if matches!(error, StoreError::Damaged { .. }) { error } else { engine.damaged(error.to_string()) };
    if let StoreError::Damaged { what, command } = error {
        report.add(what, command);
    }
}
