//! The files beside the engine: what a start creates again or removes, what `verify` reports about them, and
//! that `compact` and `salvage` need none of them.
//!
//! Must not know: the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::domain::hex::sha256_hex;
use crate::store::Store;
use crate::store::config::Config;
use crate::store::engine::{Engine, folder_swap, journal, lock};
use crate::store::error::StoreError;
use crate::store::format::dictionary::{CURRENT, EMBEDDED, file_name};
use crate::store::incoming::Checkpoint;
use crate::store::index::snapshot;
use crate::store::keys::Tree;
use crate::store::tests::repair::{expect_all, filled, problems, report, silent, tamper};
use crate::store::tests::{config, folder, json, open};
use crate::store::upkeep::{compact, salvage};

/// Bytes of a snapshot's header that its checksum covers.
const CHECKED_BYTES: usize = 36;

/// Makes a snapshot of the store, and gives its path.
fn with_snapshot(dir: &TempDir) -> PathBuf {
    let store = Store::open(Config { snapshot_every: 1, ..config(dir) }, json).expect("opens");
    store.append(Vec::new(), Some(Checkpoint { source: "r2z2".to_owned(), bytes: vec![7] })).expect("kept");
    drop(store);
    snapshot::list_files(dir.path()).expect("listed").remove(0)
}

/// Changes a byte of a snapshot's header, as if another version had written it: the checksum is valid.
fn rewrite(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] = bytes[at].wrapping_add(7);
    let crc = crc32fast::hash(&bytes[..CHECKED_BYTES]).to_le_bytes();
    bytes[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&crc);
    fs::write(path, bytes).expect("written");
}

fn dictionary_path(dir: &TempDir) -> PathBuf {
    dir.path().join(file_name(CURRENT, EMBEDDED))
}

#[test]
fn a_snapshot_of_another_version_is_not_damage() {
    let dir = folder();
    let epoch = filled(&dir);
    // The version, and the static facts.
    for at in [4, 33] {
        rewrite(&with_snapshot(&dir), at);
        let report = report(&dir);
        assert_eq!(report.problems, [], "byte {at}");
        assert!(
            matches!(&report.notes[..], [note] if note.contains("the next snapshot replaces it")),
            "{:?}",
            report.notes
        );
        expect_all(dir.path(), Some(epoch));
    }
    // A snapshot of another store is not damage either; a damaged one is.
    rewrite(&with_snapshot(&dir), 9);
    assert!(matches!(&report(&dir).notes[..], [note] if note.contains("of another store")));
    for at in [5, 30, 200] {
        let path = with_snapshot(&dir);
        let mut bytes = fs::read(&path).expect("read");
        bytes[at] ^= 1;
        fs::write(&path, bytes).expect("written");
        let problems = report(&dir).problems;
        assert!(
            matches!(&problems[..], [problem] if problem.command == format!("rm {}", path.display())),
            "byte {at}: {problems:?}"
        );
        expect_all(dir.path(), Some(epoch));
        fs::remove_file(path).expect("removed");
    }
}

#[test]
fn a_compaction_needs_no_files_beside_the_engine() {
    // A small store, which is opened as a copy, and a large one.
    for waste in [8 << 20, 80 << 20] {
        let dir = folder();
        let epoch = filled(&dir);
        let snapshot = with_snapshot(&dir);
        fs::write(&snapshot, "damaged").expect("written");
        let component = dir.path().join("plugins").join(format!("{}.wasm", "ab".repeat(32)));
        fs::create_dir_all(component.parent().expect("a folder")).expect("made");
        fs::write(component, "damaged").expect("written");
        fs::remove_file(dictionary_path(&dir)).expect("removed");
        fs::File::create(dir.path().join("store/waste")).and_then(|file| file.set_len(waste)).expect("made");
        let compacted = compact::run(&config(&dir), &silent).expect("compacted");
        assert!(compacted.before_bytes > waste && compacted.after_bytes < waste, "{compacted:?}");
        // They are reported as by `verify`.
        let commands: Vec<&str> = compacted.problems.iter().map(|problem| problem.command.as_str()).collect();
        let serve = format!("killstream serve --data-dir {}", dir.path().display());
        let rm = format!("rm {}", snapshot.display());
        assert_eq!(commands, [&serve, &rm, "killstream plugin upload NAME FILE (the same component)"]);
        assert_eq!(report(&dir).problems, compacted.problems);
        expect_all(dir.path(), Some(epoch));
    }
}

#[test]
fn damaged_trees_stop_a_compaction_with_the_command_for_this_store() {
    for waste in [8 << 20, 80 << 20] {
        let dir = folder();
        filled(&dir);
        tamper(&dir, Tree::Log, &9u64.to_be_bytes(), None);
        fs::File::create(dir.path().join("store/waste")).and_then(|file| file.set_len(waste)).expect("made");
        let Err(StoreError::Damaged { what, command }) = compact::run(&config(&dir), &silent) else {
            panic!("compacted")
        };
        assert_eq!(
            (what.as_str(), command),
            ("log entries 9 to 9 are missing", format!("killstream salvage {} NEWDIR", dir.path().display()))
        );
        assert!(!folder_swap::copy_dir(dir.path()).exists() && !folder_swap::twin_dir(dir.path()).exists());
    }
}

#[test]
fn a_compaction_leaves_the_folders_of_another_one_alone() {
    let dir = folder();
    filled(&dir);
    let other = Engine::open(dir.path(), 1 << 20).expect("opens");
    // As if another process had it.
    fs::write(lock::pid_path(dir.path()), "1").expect("written");
    let folders = [folder_swap::copy_dir(dir.path()), folder_swap::twin_dir(dir.path())];
    folders.iter().for_each(|folder| fs::create_dir(folder).expect("made"));
    assert!(matches!(compact::run(&config(&dir), &silent), Err(StoreError::InUse { pid: 1 })));
    assert!(folders.iter().all(|folder| folder.exists()));
    drop(other);
}

#[test]
fn a_start_writes_dictionaries_whose_file_is_missing() {
    let dir = folder();
    let epoch = filled(&dir);
    let damage: [fn(PathBuf); 2] =
        [|path| fs::remove_file(path).expect("removed"), |path| fs::write(path, "damaged").expect("written")];
    for damage in damage {
        damage(dictionary_path(&dir));
        let problems = report(&dir).problems;
        assert_eq!(problems[0].command, format!("killstream serve --data-dir {}", dir.path().display()));
        // Follow the advice.
        expect_all(dir.path(), Some(epoch));
        assert_eq!(fs::read(dictionary_path(&dir)).expect("there"), EMBEDDED);
        assert_eq!(report(&dir).problems, []);
    }
}

#[test]
fn a_start_removes_what_was_left_unfinished() {
    let dir = folder();
    let epoch = filled(&dir);
    let folders = [folder_swap::copy_dir(dir.path()), folder_swap::twin_dir(dir.path())];
    for folder in &folders {
        fs::create_dir_all(folder.join("store")).expect("made");
        fs::write(folder.join("store/db"), "cut").expect("written");
    }
    let snapshot = dir.path().join("idx-00000000000000000049.new");
    fs::write(&snapshot, "cut").expect("written");
    expect_all(dir.path(), Some(epoch));
    assert!(!snapshot.exists() && folders.iter().all(|folder| !folder.exists()));
}

#[test]
fn salvage_works_without_the_engine() {
    let (dir, new) = (folder(), folder());
    filled(&dir);
    fs::remove_dir_all(dir.path().join("store")).expect("removed");
    let losses = salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    assert_eq!((losses.killmails, losses.lost, losses.carried.get("plugins")), (50, 0, Some(&1)));
    assert!(
        matches!(&losses.notes[..], [note] if note.contains("the engine's main file is missing")),
        "{:?}",
        losses.notes
    );
    assert_eq!(open(&new).count(), 50);
    assert_eq!(problems(&new), Vec::<String>::new());
    assert!(!dir.path().join("store").exists(), "the damaged store is only read");
    journal::remove(dir.path()).expect("removed");
    assert!(matches!(
        salvage::run(dir.path(), &config(&folder()), json, &silent),
        Err(StoreError::NoStore { .. })
    ));
}

#[test]
fn salvage_finds_a_store_that_a_compaction_set_aside() {
    let (dir, new) = (folder(), folder());
    filled(&dir);
    journal::remove(dir.path()).expect("removed");
    folder_swap::move_aside(dir.path()).expect("aside");
    let losses = salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    assert_eq!((losses.killmails, losses.notes), (50, Vec::new()));
    expect_all(new.path(), None);
}

#[test]
fn no_note_of_salvage_names_a_folder_that_is_gone() {
    let (dir, new) = (folder(), folder());
    filled(&dir);
    tamper(&dir, Tree::Meta, b"numbers", None);
    let losses = salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    let [note] = &losses.notes[..] else { panic!("{:?}", losses.notes) };
    assert!(note.ends_with(": the store's own numbers are missing"), "{note}");
}

#[test]
fn a_salvaged_plugin_folder_is_private() {
    let (dir, new, copy) = (folder(), folder(), folder());
    filled(&dir);
    let component = dir.path().join("plugins").join(format!("{}.wasm", sha256_hex(b"\0asm")));
    fs::create_dir_all(component.parent().expect("a folder")).expect("made");
    fs::write(component, b"\0asm").expect("written");
    salvage::run(dir.path(), &config(&new), json, &silent).expect("salvaged");
    open(&dir).backup(copy.path(), &silent).expect("copied");
    for dir in [new, copy] {
        assert_eq!(
            fs::metadata(dir.path().join("plugins")).expect("there").permissions().mode() & 0o777,
            0o700
        );
    }
}
