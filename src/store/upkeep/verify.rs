//! Verification: reads everything in a data folder, and checks that its parts agree.
//!
//! Must not know: how damage is repaired; only which command does it.

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
use crate::store::upkeep::cross_check::CrossCheck;

/// Problems listed in a report, at most; further ones are only counted.
const LISTED_MAX: usize = 1_000;

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Killmails whose records are intact and agree with the log.
    pub killmails: u64,
    /// The number of the newest entry.
    pub head: u64,
    /// Revisions made.
    pub revisions: u64,
    /// Ranges of numbers known to be lost, first and last; they no longer count as damage.
    pub holes: Vec<(u64, u64)>,
    /// What is damaged; at most 1,000 problems.
    pub problems: Vec<Problem>,
    /// How many further problems there are.
    pub more: u64,
    /// What is unusual but harmless.
    pub notes: Vec<String>,
}

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it is.
    pub what: String,
    /// The command that repairs it.
    pub command: String,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds a problem, unless it is among the last few.
    pub(crate) fn add(&mut self, what: String, command: String) {
        if self.problems.iter().rev().take(8).any(|problem| problem.what == what) {
            return;
        }
        if self.problems.len() < LISTED_MAX {
            self.problems.push(Problem { what, command });
        } else {
            self.more += 1;
        }
    }
}

/// Verifies a data folder that no process has opened.
///
/// # Errors
/// There is no store, it is in use, a newer killstream wrote it, or the file system cannot read it. Damage is
/// not an error; it is in the report.
pub fn run(config: &Config, progress: &Progress<'_>) -> Result<Report, StoreError> {
    let dir = &config.dir;
    folder_swap::finish(dir).map_err(StoreError::io("finish a compaction in", dir))?;
    data_folder::must_hold_store(dir)?;
    let mut report = Report::default();
    match Engine::open(dir, config.cache_bytes) {
        Ok(engine) => {
            let numbers = check_engine(&engine, dir, progress, &mut report)?;
            FileCheck { engine: &engine, dir, report: &mut report }.check(numbers.as_ref());
        }
        Err(StoreError::Damaged { what, command }) => report.add(what, command),
        Err(error) => return Err(error),
    }
    if report.is_clean() {
        spare::remove(dir).map_err(StoreError::io("remove the spare copy in", dir))?;
    }
    Ok(report)
}

/// Checks the trees of an engine against each other and against the ledger of this folder, and adds damage to
/// the report. Gives the store's own numbers, if they are intact.
///
/// # Errors
/// `TooNew`.
pub(crate) fn check_engine(
    engine: &Engine,
    dir: &Path,
    progress: &Progress<'_>,
    report: &mut Report,
) -> Result<Option<Numbers>, StoreError> {
    let mut check = TreeCheck { engine, report };
    let Some((epoch, numbers)) = check.numbers()? else { return Ok(None) };
    let stored = check.report_error(meta::dictionaries(engine))?.unwrap_or_default();
    let codec = Codec::new(Dictionaries::new(stored));
    let holes = check.report_error(meta::lost_numbers(engine))?.unwrap_or_default();
    let unfilled = check.report_error(meta::numbers_without_killmail(engine))?.unwrap_or_default();
    check.report_error(FileNumbers::load(engine, numbers.head))?;
    (check.report.head, check.report.revisions) = (numbers.head, numbers.rev);
    check.report.holes.clone_from(&holes);
    let mut ledger = check
        .report_error(ledger::read(dir).map_err(StoreError::io("read", ledger::path(dir))))?
        .unwrap_or_default();
    if ledger.mark.is_some_and(|mark| mark.epoch != epoch) {
        // Of another store that was in this folder.
        ledger = Contents::default();
    }
    CrossCheck {
        engine,
        numbers,
        holes: &unfilled,
        codec: &codec,
        ledger: &ledger,
        progress,
        report: check.report,
        incomplete: false,
        newer: None,
    }
    .run()?;
    check.refused()?;
    Ok(Some(numbers))
}

struct TreeCheck<'a> {
    engine: &'a Engine,
    report: &'a mut Report,
}

impl TreeCheck<'_> {
    /// The value; an error goes into the report, except for `TooNew`.
    fn report_error<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ StoreError::TooNew { .. }) => Err(error),
            Err(error) => {
                report_error(self.engine, self.report, error);
                Ok(None)
            }
        }
    }

    fn numbers(&mut self) -> Result<Option<(Epoch, Numbers)>, StoreError> {
        let founded = self.report_error(meta::is_initialized(self.engine))?;
        let epoch = self.report_error(meta::epoch(self.engine))?;
        let numbers = self.report_error(meta::numbers(self.engine))?;
        if founded == Some(false) {
            report_error(self.engine, self.report, self.engine.damaged("the schema number is missing"));
        }
        Ok(epoch.zip(numbers))
    }

    fn refused(&mut self) -> Result<(), StoreError> {
        // A plugin's state has no checksum, but the engine must be able to read it.
        for tree in [Tree::Plugins, Tree::Refused] {
            for pair in self.engine.scan(tree, &[]) {
                let Some((key, value)) = self.report_error(pair)? else { break };
                let Some(number) = refused_document(&key).filter(|_| tree == Tree::Refused) else { continue };
                let document = chunked_values::join(self.engine, tree, &key, &value)
                    .and_then(|bytes| list::decode(&bytes));
                if document.is_err() {
                    let damage = self.engine.damaged(format!("refused document {number}"));
                    report_error(self.engine, self.report, damage);
                }
            }
        }
        Ok(())
    }
}

/// Checks the files beside the engine. If one is damaged, it can be made again without it.
pub(crate) struct FileCheck<'a> {
    pub engine: &'a Engine,
    /// The data folder.
    pub dir: &'a Path,
    pub report: &'a mut Report,
}

impl FileCheck<'_> {
    /// Compares the files with what the engine has.
    pub fn check(&mut self, numbers: Option<&Numbers>) {
        self.dictionaries();
        if let Some(numbers) = numbers {
            self.snapshots(numbers);
        }
        self.components();
    }

    /// Every dictionary has a file: without it, `salvage` could not decompress records.
    fn dictionaries(&mut self) {
        let Ok(stored) = meta::dictionaries(self.engine) else { return };
        let files = dictionary::read_files(self.dir).unwrap_or_default();
        for (number, _) in stored.iter().filter(|(number, bytes)| files.get(number) != Some(bytes)) {
            let what = format!(
                "dictionary {number} has no intact copy beside the store, which salvage needs; every start writes it"
            );
            self.report.add(what, format!("killstream serve --data-dir {}", self.dir.display()));
        }
    }

    fn snapshots(&mut self, numbers: &Numbers) {
        let Ok(epoch) = meta::epoch(self.engine) else { return };
        let newest = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev };
        let files = snapshot::list_files(self.dir).map_err(StoreError::io("list", self.dir));
        for path in files.unwrap_or_else(|error| self.report_error(error)) {
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

    /// The files of components are named by their digests.
    fn components(&mut self) {
        let files = copy::list_files(&self.dir.join("plugins"));
        let mut damaged = BTreeSet::new();
        for file in files.unwrap_or_else(|error| self.report_error(error)) {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let intact = fs::read(&path).is_ok_and(|bytes| {
                path.file_stem().and_then(|stem| stem.to_str()) == Some(&sha256_hex(&bytes))
            });
            if !intact {
                damaged.insert(path);
            }
        }
        for path in damaged {
            let what = format!("the plugin component {}", path.display());
            self.report.add(what, "killstream plugin upload NAME FILE (the same component)".to_owned());
        }
    }

    fn report_error<T: Default>(&mut self, error: StoreError) -> T {
        report_error(self.engine, self.report, error);
        T::default()
    }
}

/// Adds an error to the report.
pub(crate) fn report_error(engine: &Engine, report: &mut Report, error: StoreError) {
    let error =
        if matches!(error, StoreError::Damaged { .. }) { error } else { engine.damaged(error.to_string()) };
    if let StoreError::Damaged { what, command } = error {
        report.add(what, command);
    }
}
