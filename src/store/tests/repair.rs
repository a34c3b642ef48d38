//! Repairing a store: what `verify` notices, what `salvage` recovers, and that a compaction may be cut off at any
//! step.
//!
//! Must not know: the command line.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use memchr::memmem;
use tempfile::TempDir;

use crate::domain::entry::Origin;
use crate::domain::id::{Epoch, Seq};
use crate::domain::killmail::Attacker;
use crate::store::Store;
use crate::store::config::Config;
use crate::store::engine::choice::choose;
use crate::store::engine::ledger::{self, Contents, Mark};
use crate::store::engine::raw::Raw;
use crate::store::engine::segments::db_path;
use crate::store::engine::{Engine, Write, chunked_values, copy, folder_swap, journal, spare};
use crate::store::error::StoreError;
use crate::store::format::frame::{self, Header};
use crate::store::incoming::Checkpoint;
use crate::store::keys::Tree;
use crate::store::progress::Step;
use crate::store::refused::list::Refused;
use crate::store::tests::{config, folder, incoming, json, killmail, open, valued};
use crate::store::upkeep::verify::{self, Report};
use crate::store::upkeep::{compact, salvage};

pub fn silent(_: Step) {}

/// Fifty killmails, every third revised, with everything else that a store can contain.
pub fn filled(dir: &TempDir) -> Epoch {
    let store = open(dir);
    store
        .append(
            (1..=50).map(killmail).map(incoming).collect(),
            Some(Checkpoint { source: "r2z2".to_owned(), bytes: vec![7] }),
        )
        .expect("kept");
    store
        .append((1..=50).step_by(3).map(|id| incoming(valued(id, f64::from(id)))).collect(), None)
        .expect("revised");
    store.put_plugin("gatecamp", b"state").expect("kept");
    // Their counts have keys of any length.
    for reason in (1..=12).map(|letters| "no_body_at_all"[..letters].to_owned()) {
        let raw = Bytes::from_static(b"{}");
        store
            .add_refused(&Refused { reason, killmail_id: None, source: "test".to_owned(), raw, at_ms: 1 })
            .expect("kept");
    }
    fs::write(dir.path().join("token"), "secret\n").expect("written");
    store.epoch()
}

pub fn expect_all(dir: &Path, epoch: Option<Epoch>) -> Epoch {
    let store = Store::open(Config { dir: dir.to_owned(), min_free_bytes: 0, ..Config::default() }, json)
        .expect("opens");
    assert_eq!((store.head(), store.count(), store.stats().revised), (Seq(50), 50, 17));
    for id in 1..=50 {
        let expected = if id % 3 == 1 { valued(id, f64::from(id)) } else { killmail(id) };
        let entry = store.killmail(id).expect("read").expect("kept");
        assert_eq!((entry.seq, &entry.killmail), (Seq(u64::from(id)), &expected));
    }
    assert_eq!(store.checkpoint("r2z2").expect("read"), Some(vec![7]));
    assert_eq!(store.plugins().expect("read").len(), 1);
    assert_eq!((store.refused(100).expect("read").len(), store.refused_counts().len()), (12, 12));
    assert!(epoch.is_none_or(|epoch| epoch == store.epoch()));
    store.epoch()
}

pub fn report(dir: &TempDir) -> Report {
    verify::run(&config(dir), &silent).expect("verified")
}

pub fn problems(dir: &TempDir) -> Vec<String> {
    report(dir).problems.into_iter().map(|problem| problem.what).collect()
}

#[test]
fn an_intact_store_is_clean() {
    let dir = folder();
    assert!(matches!(verify::run(&config(&dir), &silent), Err(StoreError::NoStore { .. })));
    filled(&dir);
    let report = report(&dir);
    assert_eq!((report.problems, report.killmails, report.head, report.revisions), (Vec::new(), 50, 50, 17));
    assert!(!spare::path(dir.path()).exists());
}

/// Changes the engine's trees while the store is closed.
pub fn tamper(dir: &TempDir, tree: Tree, key: &[u8], value: Option<Vec<u8>>) {
    let engine = Engine::open(dir.path(), 1 << 20).expect("opens");
    engine.commit(vec![Write { tree, key: key.to_vec(), value }]).expect("written");
}

pub fn value(dir: &TempDir, tree: Tree, key: &[u8]) -> Vec<u8> {
    Engine::open(dir.path(), 1 << 20).expect("opens").get(tree, key).expect("read").expect("there").to_vec()
}

#[test]
fn verify_lists_what_is_damaged() {
    let record = |id: u64| id.to_be_bytes();
    type Tampering = fn(&TempDir);
    let cases: [(Tampering, &str); 7] = [
        (
            |dir| tamper(dir, Tree::Records, &5u64.to_be_bytes(), None),
            "the record of killmail 5, number 5, is missing",
        ),
        (
            |dir| tamper(dir, Tree::Records, &5u64.to_be_bytes(), Some(vec![1, 2, 3])),
            "the record of killmail 5",
        ),
        (|dir| tamper(dir, Tree::Log, &9u64.to_be_bytes(), None), "log entries 9 to 9 are missing"),
        (|dir| tamper(dir, Tree::Log, &50u64.to_be_bytes(), None), "log entries 50 to 50 are missing"),
        (|dir| tamper(dir, Tree::Revisions, &3u64.to_be_bytes(), None), "revisions 3 to 3 are missing"),
        (|dir| tamper(dir, Tree::Meta, b"numbers", None), "the store's own numbers are missing"),
        (
            |dir| {
                let other = value(dir, Tree::Log, &8u64.to_be_bytes());
                tamper(dir, Tree::Log, &9u64.to_be_bytes(), Some(other));
            },
            "killmail 8 has two numbers, 8 and 9",
        ),
    ];
    for (tampering, expected) in cases {
        let dir = folder();
        filled(&dir);
        tampering(&dir);
        let found = problems(&dir);
        assert!(found.iter().any(|what| what == expected), "{expected}: {found:?}");
    }
    let dir = folder();
    filled(&dir);
    let old = {
        let other = folder();
        open(&other).append((1..=50).map(killmail).map(incoming).collect(), None).expect("kept");
        value(&other, Tree::Records, &record(4))
    };
    tamper(&dir, Tree::Records, &record(4), Some(old));
    assert_eq!(
        problems(&dir),
        ["the record of killmail 4 is number 4 revision 0, the log says number 4 revision 2"]
    );
    assert!(
        matches!(Store::open(config(&dir), json), Err(StoreError::Damaged { what, .. }) if what == "revision 2 of killmail 4 is gone, 0 is there")
    );
}

#[test]
fn an_engine_that_lost_its_end_is_damaged() {
    let dir = folder();
    let epoch = filled(&dir);
    let contents = ledger::read(dir.path()).expect("read");
    let mark = contents.mark.expect("marked");
    assert_eq!(
        (mark, contents.newest_revisions().len()),
        (Mark { epoch, head: Seq(50), rev: 17, horizon: Seq::ZERO }, 17)
    );
    ledger::write(dir.path(), Mark { head: Seq(52), ..mark }, &contents.revised).expect("written");
    assert!(
        matches!(Store::open(config(&dir), json), Err(StoreError::Damaged { what, .. }) if what == "log entries 51 to 52 were kept and are gone")
    );
    assert!(problems(&dir)[0].contains("52"));
    // A ledger that is behind, torn or missing is completed.
    for bytes in
        [None, Some(Vec::new()), Some(fs::read(ledger::path(dir.path())).expect("read")[..100].to_vec())]
    {
        match bytes {
            None => fs::remove_file(ledger::path(dir.path())).expect("removed"),
            Some(bytes) => {
                fs::write(ledger::path(dir.path()), bytes.get(64..).unwrap_or_default()).expect("written")
            }
        }
        expect_all(dir.path(), Some(epoch));
        assert_eq!(ledger::read(dir.path()).expect("read"), contents);
    }
    // Slots are written after their commit: one beyond the last revision counts, whether or not the mark is
    // intact.
    let revised: Vec<Option<u32>> = contents.revised.iter().copied().chain([Some(9)]).collect();
    for mark_too in [true, false] {
        ledger::write(dir.path(), mark, &revised).expect("written");
        if !mark_too {
            let mut bytes = fs::read(ledger::path(dir.path())).expect("read");
            bytes[20] ^= 1;
            fs::write(ledger::path(dir.path()), bytes).expect("written");
        }
        let opened = Store::open(config(&dir), json);
        assert!(
            matches!(&opened, Err(StoreError::Damaged { what, .. }) if what == "revisions 18 to 18 were stored and are missing"),
            "{mark_too}"
        );
        assert!(problems(&dir)[0].contains("revision 18"));
    }
    // The ledger of another store in the same folder does not count.
    ledger::write(dir.path(), Mark { epoch: Epoch(epoch.0 ^ 1), ..mark }, &revised).expect("written");
    assert_eq!(problems(&dir), Vec::<String>::new());
    expect_all(dir.path(), Some(epoch));
    // Without the engine the ledger still shows that there was a store, even without its mark.
    ledger::write(dir.path(), Mark { head: Seq::ZERO, rev: 0, ..mark }, &revised).expect("written");
    fs::remove_dir_all(dir.path().join("store")).expect("removed");
    assert!(matches!(Store::open(config(&dir), json), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_compaction_may_be_cut_off_at_any_step() {
    type Cut = fn(&TempDir);
    let copied: Cut = |dir| {
        let from = Engine::open(dir.path(), 1 << 20).expect("opens");
        let to = Engine::open(&folder_swap::copy_dir(dir.path()), 1 << 20).expect("opens");
        copy::trees(&from, &to, &silent).expect("copied");
    };
    let half: Cut = |dir| fs::create_dir_all(folder_swap::copy_dir(dir.path()).join("store")).expect("made");
    let steps: [&[Cut]; 6] = [
        &[half],
        &[copied],
        &[copied, |dir| folder_swap::move_aside(dir.path()).expect("aside")],
        &[
            copied,
            |dir| folder_swap::move_aside(dir.path()).expect("aside"),
            |dir| folder_swap::move_in_place(dir.path()).expect("in place"),
        ],
        &[
            copied,
            |dir| folder_swap::move_aside(dir.path()).expect("aside"),
            |dir| folder_swap::move_in_place(dir.path()).expect("in place"),
            |dir| fs::remove_file(dir.path().join("store.before-compact/db")).expect("removed"),
        ],
        &[
            copied,
            |dir| folder_swap::move_aside(dir.path()).expect("aside"),
            |dir| fs::remove_dir_all(folder_swap::copy_dir(dir.path())).expect("removed"),
        ],
    ];
    for steps in steps {
        let dir = folder();
        let epoch = filled(&dir);
        for step in steps {
            step(&dir);
        }
        expect_all(dir.path(), Some(epoch));
        let compacted = compact::run(&config(&dir), &silent).expect("compacted");
        assert!(compacted.before_bytes > 0 && compacted.after_bytes > 0);
        expect_all(dir.path(), Some(epoch));
        assert_eq!(
            (problems(&dir), fs::read_to_string(dir.path().join("token")).expect("kept")),
            (Vec::new(), "secret\n".to_owned())
        );
        assert!(
            !folder_swap::copy_dir(dir.path()).exists() && !dir.path().join("store.before-compact").exists()
        );
    }
}

#[test]
fn compaction_frees_space_in_small_and_large_stores() {
    // A file that the engine does not know takes the place of unused space.
    for waste in [8 << 20, 80 << 20] {
        let dir = folder();
        let epoch = filled(&dir);
        let file = fs::File::create(dir.path().join("store/waste")).expect("made");
        file.set_len(waste).expect("made longer");
        let compacted = compact::run(&config(&dir), &silent).expect("compacted");
        assert!(compacted.before_bytes > waste && compacted.after_bytes < waste, "{compacted:?}");
        assert!(!dir.path().join("store/waste").exists() && !spare::path(dir.path()).exists());
        expect_all(dir.path(), Some(epoch));
        assert_eq!(problems(&dir), Vec::<String>::new());
    }
}

#[test]
fn a_damaged_store_is_not_compacted() {
    let dir = folder();
    filled(&dir);
    tamper(&dir, Tree::Log, &9u64.to_be_bytes(), None);
    assert!(matches!(compact::run(&config(&dir), &silent), Err(StoreError::Damaged { .. })));
    assert!(!problems(&dir).is_empty());
}

#[test]
fn a_restored_backup_gets_a_new_epoch() {
    let (dir, to) = (folder(), folder());
    let epoch = filled(&dir);
    let store = open(&dir);
    let backup = store.backup(to.path(), &silent).expect("backed up");
    assert_eq!((backup.killmails, backup.head), (50, 50));
    assert!(store.backup(to.path(), &silent).is_err(), "over another backup");
    assert!(!to.path().join("pid").exists(), "no process has opened it");
    drop(store);
    let restored = expect_all(to.path(), None);
    assert_ne!(restored, epoch);
    expect_all(to.path(), Some(restored));
    expect_all(dir.path(), Some(epoch));
    assert_eq!((problems(&to), to.path().join("token").exists()), (Vec::new(), false));
}

#[test]
fn salvage_recovers_what_is_intact() {
    let (dir, new) = (folder(), folder());
    let epoch = filled(&dir);
    let losses = salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    assert_eq!((losses.killmails, losses.head, losses.lost, losses.holes), (50, 50, 0, Vec::new()));
    assert_ne!(expect_all(new.path(), None), epoch);
    assert_eq!(
        (problems(&new), fs::read_to_string(new.path().join("token")).expect("kept")),
        (Vec::new(), "secret\n".to_owned())
    );
    assert!(salvage::run(dir.path(), &config(&new), json, &silent).is_err(), "into a store");
    let store = open(&dir);
    assert!(matches!(
        salvage::run(dir.path(), &config(&folder()), json, &silent),
        Err(StoreError::InUse { .. })
    ));
    drop(store);
}

/// Destroys every frame of a killmail's revision, in all files.
fn destroy(dir: &TempDir, killmail_id: u64, rev: u64) {
    for path in
        [db_path(dir.path())].into_iter().chain(journal::paths(dir.path())).filter(|path| path.exists())
    {
        let mut bytes = fs::read(&path).expect("read");
        let found: Vec<usize> = frame::find(&bytes)
            .filter(|(_, frame)| frame.header.killmail_id == killmail_id && frame.header.rev == rev)
            .map(|(at, frame)| at + frame.bytes() - 1)
            .collect();
        found.into_iter().for_each(|at| bytes[at] ^= 1);
        fs::write(path, bytes).expect("written");
    }
}

#[test]
fn an_older_revision_does_not_replace_a_lost_one() {
    for ledger_too in [false, true] {
        let (dir, new) = (folder(), folder());
        filled(&dir);
        destroy(&dir, 7, 3);
        destroy(&dir, 8, 0);
        if ledger_too {
            // The log entries still show it.
            fs::remove_file(ledger::path(dir.path())).expect("removed");
        }
        let losses = salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
        assert_eq!(
            (losses.killmails, losses.lost, losses.holes, losses.stale),
            (48, 2, vec![(7, 8)], vec![7])
        );
        let store = open(&new);
        assert_eq!(
            (store.killmail(7).expect("read").is_none(), store.killmail(8).expect("read").is_none()),
            (true, true)
        );
        assert_eq!((store.head(), store.count()), (Seq(50), 48));
        // A lost killmail may come again.
        store.append(vec![incoming(valued(7, 7.0)), incoming(killmail(51))], None).expect("appended");
        assert_eq!((store.seq_of(7), store.seq_of(51)), (Some(Seq(51)), Some(Seq(52))));
        assert_eq!(store.killmail(7).expect("read").expect("kept").killmail, valued(7, 7.0));
        drop(store);
        assert_eq!(report(&new).problems, []);
        assert_eq!(open(&new).killmail(7).expect("read").expect("kept").killmail, valued(7, 7.0));
    }
}

#[test]
fn what_was_never_committed_is_not_recovered() {
    let header = |killmail_id: u64, seq: u64, rev: u64, raw_bytes: u32| Header {
        killmail_id,
        version: 1,
        dictionary: 1,
        seq: Seq(seq),
        rev,
        received_at_ms: 0,
        uploaded_at: None,
        origin: Origin::Live,
        age_secs: 0,
        raw_bytes,
    };
    let chosen = |frames: &[Header], contents: &Contents| {
        let dir = folder();
        fs::create_dir(dir.path().join("store")).expect("made");
        fs::write(db_path(dir.path()), []).expect("written");
        let bytes: Vec<u8> =
            frames.iter().flat_map(|header| frame::seal(header, b"x").expect("small").remove(0)).collect();
        fs::write(&journal::paths(dir.path())[0], bytes).expect("written");
        let choice = choose(&Raw::scan(dir.path(), &silent).expect("scanned"), contents);
        let all: Vec<_> =
            choice.chosen.iter().map(|version| (version.killmail_id, version.seq.0, version.rev)).collect();
        (all, choice.unfinished)
    };
    let ledger = |revised: Vec<Option<u32>>| Contents { mark: None, revised };
    // The process died while it assigned number 2 to killmail 11; then killmail 12 got the number.
    let frames = [header(10, 1, 0, 1), header(11, 2, 0, 1), header(12, 2, 0, 1)];
    assert_eq!(chosen(&frames, &Contents::default()), (vec![(10, 1, 0), (12, 2, 0)], 1));
    // The same with revision 1: the ledger decides, and without one the last written frame.
    let frames = [header(10, 1, 0, 1), header(12, 2, 0, 1), header(10, 1, 1, 2), header(12, 2, 1, 2)];
    assert_eq!(chosen(&frames, &ledger(vec![Some(10)])), (vec![(10, 1, 1), (12, 2, 0)], 1));
    assert_eq!(chosen(&frames, &Contents::default()), (vec![(10, 1, 0), (12, 2, 1)], 1));
    // A revision that was written again after the process had died.
    let frames = [header(10, 1, 1, 3), header(10, 1, 1, 2)];
    assert_eq!(chosen(&frames, &Contents::default()).1, 1);
    // What was removed on purpose.
    let mark = Some(Mark { epoch: Epoch(1), head: Seq(2), rev: 0, horizon: Seq(1) });
    let frames = [header(10, 1, 0, 1), header(12, 2, 0, 1)];
    assert_eq!(chosen(&frames, &Contents { mark, revised: Vec::new() }), (vec![(12, 2, 0)], 0));
}

#[test]
fn a_giant_killmail_is_salvaged_completely_or_not_at_all() {
    let (dir, new) = (folder(), folder());
    let mut large = valued(4, 1e9);
    large.attackers = (0..40_000u32)
        .map(|n| Attacker {
            character_id: Some(2_000_000_000u32.wrapping_add(n.wrapping_mul(50_021))),
            damage_done: i64::from(n) * 7919 % 10_007,
            ..Attacker::default()
        })
        .collect();
    open(&dir).append(vec![incoming(killmail(3)), incoming(large.clone())], None).expect("appended");
    let parts = Engine::open(dir.path(), 1 << 20)
        .expect("opens")
        .get(Tree::Records, &chunked_values::chunk_key(&4u64.to_be_bytes(), 1))
        .expect("read");
    assert!(parts.is_some(), "the killmail is too small for this test");
    salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    assert_eq!(open(&new).killmail(4).expect("read").expect("kept").killmail, large);
    let (bytes, path) = (fs::read(&journal::paths(dir.path())[1]).expect("read"), db_path(dir.path()));
    let second = frame::find(&bytes).nth(2).expect("a second part").0;
    let piece = bytes[second + 100..second + 200].to_vec();
    for path in [path].into_iter().chain(
        fs::read_dir(dir.path().join("store/blobs")).expect("listed").map(|e| e.expect("listed").path()),
    ) {
        let mut bytes = fs::read(&path).expect("read");
        let found: Vec<usize> = memmem::find_iter(&bytes, &piece).collect();
        found.into_iter().for_each(|at| bytes[at] ^= 1);
        fs::write(path, bytes).expect("written");
    }
    fs::remove_file(&journal::paths(dir.path())[1]).expect("removed");
    spare::remove(dir.path()).expect("removed");
    let new = folder();
    let losses = salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    assert_eq!((losses.killmails, losses.holes), (1, vec![(2, 2)]));
    assert_eq!(open(&new).count(), 1);
}
