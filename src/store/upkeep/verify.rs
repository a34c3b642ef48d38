//! Verification: everything there is in a data folder is read, and each part is held against the others.
//!
//! Must not know: how damage is mended; only which command does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::domain::id::Seq;
use crate::store::config::Config;
use crate::store::engine::meta::{self, Numbers};
use crate::store::engine::{Engine, chunked_values, copy, data_folder, folder_swap, ledger, spare};
use crate::store::error::Error;
use crate::store::format::dictionary::{self, Dictionaries};
use crate::store::format::record::Codec;
use crate::store::index::snapshot::{self, Mark};
use crate::store::keys::{Tree, refused_document};
use crate::store::mirror::file_numbers::FileNumbers;
use crate::store::plugins::digest_of;
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
/// There is no store, it is in use, a newer killstream wrote it, or the file system does not let it be read. Damage is no error.
pub fn run(config: &Config, progress: &Progress<'_>) -> Result<Report, Error> {
    let dir = &config.dir;
    folder_swap::finish(dir).map_err(Error::io("finish a compaction in", dir))?;
    data_folder::must_hold_store(dir)?;
    let mut report = Report::default();
    match Engine::open(dir, config.cache_bytes) {
        Ok(engine) => examine(&engine, dir, progress, &mut report),
        Err(Error::Damaged { what, command }) => report.add(what, command),
        Err(error) => return Err(error),
    }
    if report.is_clean() {
        spare::remove(dir).map_err(Error::io("remove the spare in", dir))?;
    }
    Ok(report)
}

/// Holds what an engine has against itself and against what stands beside it in this folder.
pub(crate) fn examine(engine: &Engine, dir: &Path, progress: &Progress<'_>, report: &mut Report) {
    let mut examination = Examination { engine, dir, report };
    let Some(numbers) = examination.numbers() else { return };
    let codec = examination.codec();
    let holes = examination.tell(meta::lost(engine)).unwrap_or_default();
    let unfilled = examination.tell(meta::unfilled(engine)).unwrap_or_default();
    examination.tell(FileNumbers::read(engine, numbers.head));
    (examination.report.head, examination.report.revisions) = (numbers.head, numbers.rev);
    examination.report.holes.clone_from(&holes);
    let contents = ledger::read(dir).map_err(Error::io("read", ledger::path(dir)));
    let contents = examination.tell(contents).unwrap_or_default();
    Check { engine, numbers, holes: &unfilled, codec: &codec, ledger: &contents, progress, report: examination.report, cut: false }.all();
    examination.small();
    examination.snapshots(&numbers);
    examination.components();
}

struct Examination<'a> {
    engine: &'a Engine,
    dir: &'a Path,
    report: &'a mut Report,
}

impl Examination<'_> {
    /// The value; or the problem goes into the report.
    fn tell<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| tell(self.engine, self.report, error)).ok()
    }

    fn numbers(&mut self) -> Option<Numbers> {
        let epoch = meta::epoch(self.engine);
        self.tell(epoch)?;
        let numbers = meta::numbers(self.engine);
        self.tell(numbers)
    }

    fn codec(&mut self) -> Codec {
        let known = meta::dictionaries(self.engine);
        let known = self.tell(known).unwrap_or_default();
        let files = dictionary::files(self.dir).unwrap_or_default();
        for (number, bytes) in &known {
            if files.get(number) != Some(bytes) {
                let what = format!("dictionary {number} has no whole copy beside the store; salvage would miss it");
                self.report.add(what, format!("killstream backup --data-dir {} NEWDIR", self.dir.display()));
            }
        }
        Codec::new(Dictionaries::new(known))
    }

    /// Plugins and refused documents.
    fn small(&mut self) {
        for tree in [Tree::Plugins, Tree::Refused] {
            for pair in self.engine.scan(tree, &[]) {
                let Ok((key, value)) = pair.map_err(|error| tell(self.engine, self.report, error)) else { break };
                let Some(number) = refused_document(&key).filter(|_| tree == Tree::Refused) else { continue };
                let whole = chunked_values::join(self.engine, tree, &key, &value).and_then(|bytes| list::decode(&bytes));
                if whole.is_err() {
                    tell(self.engine, self.report, self.engine.damaged(format!("refused document {number}")));
                }
            }
        }
    }

    fn snapshots(&mut self, numbers: &Numbers) {
        let Ok(epoch) = meta::epoch(self.engine) else { return };
        let newest = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev };
        let files = snapshot::files(self.dir).map_err(Error::io("list", self.dir));
        for path in self.tell(files).unwrap_or_default() {
            match snapshot::whole(&path, &newest) {
                Ok(true) => {}
                Ok(false) => self.report.notes.push(format!("{} is a snapshot of another store", path.display())),
                Err(_) => self.report.add(format!("the snapshot {}", path.display()), format!("rm {}", path.display())),
            }
        }
    }

    /// The plugins' components are named by their digests.
    fn components(&mut self) {
        let files = copy::files(&self.dir.join("plugins"));
        let mut damaged = BTreeSet::new();
        for file in self.tell(files).unwrap_or_default() {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "wasm") {
                continue;
            }
            let whole = fs::read(&path).is_ok_and(|bytes| path.file_stem().and_then(|stem| stem.to_str()) == Some(&digest_of(&bytes)));
            if !whole {
                damaged.insert(path);
            }
        }
        for path in damaged {
            let what = format!("the plugin component {}", path.display());
            self.report.add(what, "killstream plugin put (the component once more)".to_owned());
        }
    }
}

/// Puts an error of the store into the report.
pub(crate) fn tell(engine: &Engine, report: &mut Report, error: Error) {
    let error = if matches!(error, Error::Damaged { .. }) { error } else { engine.damaged(error.to_string()) };
    if let Error::Damaged { what, command } = error {
        report.add(what, command);
    }
}
