//! Law 3, prefix: wherever the process is cut off, after reopening the log is a prefix of what was published
//! and contains everything that was acknowledged, the index equals a rebuild from the log, and the checkpoint
//! never exceeds the log.
//!
//! A child process appends under a shim that records every write. A case rebuilds its folder as it was at
//! some moment, possibly in the middle of a write, and opens it.
//!
//! Must not know: which writes matter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use crate::crash::child::{self, ACKS, Plan};
use crate::crash::image::{self, Change};
use crate::crash::{Acknowledged, index_equals_a_rebuild};
use crate::laws::{Steps, cases};

/// Number of histories. Each is cut many times.
const HISTORIES: u64 = 6;
const BATCHES: u64 = 24;

/// Every write of a child process.
fn history(seed: u64) -> Vec<Change> {
    let folder = TempDir::with_prefix("killstream-history-").unwrap();
    let base = folder.path().canonicalize().unwrap();
    let (disk, unused) = (base.join("disk"), base.join("image"));
    std::fs::create_dir(&disk).unwrap();
    std::fs::create_dir(&unused).unwrap();
    let mut command = child::short_command(&disk, seed, BATCHES);
    command.env("LD_PRELOAD", image::build_shim(&base)).env("POWER_ROOT", &disk).env("POWER_IMAGE", unused);
    let output = command.env("POWER_JOURNAL", base.join("journal")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let changes = image::journal(&std::fs::read(base.join("journal")).unwrap());
    let whole = TempDir::new().unwrap();
    image::lay_out(&image::replay(&changes, None), whole.path());
    assert!(image::same_files(whole.path(), &disk), "the journal is not complete");
    changes
}

/// One cut: `at` which share of the history's changes, and how much of the write in progress was made.
fn cut(changes: &[Change], at: f64, torn: Option<f64>, steps: &Steps) {
    let at = (at * changes.len() as f64) as usize;
    let under_way = match (&changes[at], torn) {
        (change @ Change::Write { data, .. }, Some(share)) => {
            Some((change, (share * data.len() as f64) as usize))
        }
        _ => None,
    };
    let mut files = image::replay(&changes[..at], under_way);
    let mut known = Acknowledged::default();
    known.read(&files.remove(ACKS).unwrap_or_default());
    let folder = TempDir::with_prefix("killstream-cut-").unwrap();
    image::lay_out(&files, folder.path());
    let store = child::open(child::config(folder.path()))
        .unwrap_or_else(|e| panic!("cut at {at} of {}: {e}", changes.len()));
    known.check(&store, 1);
    // Opening twice is slow; a third of the cases is enough to check the index.
    let snapshots = if at.is_multiple_of(3) { index_equals_a_rebuild(&store, folder.path()) } else { 0 };

    let head = store.head().0;
    let acknowledged = known.new.len() as u64;
    steps.count("cut");
    steps.add("torn write", u64::from(under_way.is_some()));
    steps.add("nothing acknowledged yet", u64::from(acknowledged == 0));
    steps.add("written, not yet acknowledged", u64::from(head > acknowledged));
    steps.add("nothing beyond the acknowledged", u64::from(head == acknowledged && head > 0));
    steps.add("revision", known.revised.len() as u64);
    steps.add("late", (1..=head).filter(|n| Plan::is_late(*n)).count() as u64);
    steps.add("giant", (1..=head).filter(|n| Plan::is_giant(*n)).count() as u64);
    steps.add("snapshot", snapshots as u64);
}

#[test]
fn prefix() {
    static STEPS: Steps = Steps::new("prefix");
    type Histories = Mutex<HashMap<u64, Arc<Vec<Change>>>>;
    let histories: Histories = Mutex::default();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases()) });
    let torn = prop_oneof![Just(None), (0.0..1.0).prop_map(Some)];
    let tried = runner.run(&(0..HISTORIES, 0.0..1.0, torn), |(seed, at, torn)| {
        let changes =
            Arc::clone(histories.lock().unwrap().entry(seed).or_insert_with(|| Arc::new(history(seed))));
        cut(&changes, at, torn, &STEPS);
        Ok(())
    });
    tried.unwrap_or_else(|e| panic!("{e}"));
    STEPS.report(&[
        "cut",
        "torn write",
        "nothing acknowledged yet",
        "written, not yet acknowledged",
        "nothing beyond the acknowledged",
        "revision",
        "late",
        "giant",
        "snapshot",
    ]);
}

/// Files that the engine writes before and after everything else, cut at every write and within writes.
/// Nothing acknowledged depends on them, so an incomplete one is not damage.
#[test]
fn incomplete_files_of_the_engine_are_not_damage() {
    static STEPS: Steps = Steps::new("prefix, the engine's own files");
    let changes = history(0);
    let own = |c: &Change| matches!(c, Change::Write { name, .. } if name.ends_with("/conf") || name.ends_with(".generating"));
    for (n, _) in changes.iter().enumerate().filter(|(_, change)| own(change)) {
        for torn in [None, Some(0.5)] {
            cut(&changes, (n as f64 + 0.5) / changes.len() as f64, torn, &STEPS);
        }
    }
    STEPS.report(&["cut", "torn write"]);
}
