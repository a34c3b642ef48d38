//! What a newer killstream wrote is refused as such: it is not damage, and nothing of it is rewritten in the
//! form of this version.
//!
//! Must not know: what a newer version looks like.

use tempfile::TempDir;

use crate::store::Store;
use crate::store::engine::journal;
use crate::store::error::StoreError;
use crate::store::format::frame;
use crate::store::keys::Tree;
use crate::store::tests::repair::{filled, silent, tamper, value};
use crate::store::tests::{config, folder, json};
use crate::store::upkeep::{compact, salvage, verify};

/// Where a log entry has its version.
const VERSION_AT: usize = 4;

/// The same log entry, in version 2.
fn with_version_2(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[VERSION_AT] = 2;
    let crc = crc32fast::hash(&bytes[VERSION_AT..]).to_le_bytes();
    bytes[..VERSION_AT].copy_from_slice(&crc);
    bytes
}

fn is_too_new<T>(result: Result<T, StoreError>, expected: &str) -> bool {
    matches!(result, Err(StoreError::TooNew { what, found: 2, known: 1 }) if what == expected)
}

/// A start, `verify` and `compact` refuse the store, whatever else is damaged.
fn expect_refused(dir: &TempDir, what: &str) {
    assert!(is_too_new(Store::open(config(dir), json), what), "opened: {what}");
    assert!(is_too_new(verify::run(&config(dir), &silent), what), "verified: {what}");
    assert!(is_too_new(compact::run(&config(dir), &silent), what), "compacted: {what}");
}

#[test]
fn a_log_entry_of_a_newer_version_is_not_damage() {
    for damaged_too in [false, true] {
        let dir = folder();
        filled(&dir);
        let key = 20u64.to_be_bytes();
        let newer = with_version_2(value(&dir, Tree::Log, &key));
        tamper(&dir, Tree::Log, &key, Some(newer.clone()));
        if damaged_too {
            tamper(&dir, Tree::Log, &5u64.to_be_bytes(), None);
        }
        expect_refused(&dir, "log entry version");
        assert_eq!(value(&dir, Tree::Log, &key), newer, "it is unchanged");
    }
}

#[test]
fn a_revision_of_a_newer_version_is_not_damage() {
    let dir = folder();
    filled(&dir);
    let key = 3u64.to_be_bytes();
    let (seq, bytes) = { value(&dir, Tree::Revisions, &key) }
        .split_first_chunk::<8>()
        .map(|(seq, bytes)| (*seq, bytes.to_vec()))
        .expect("long");
    tamper(&dir, Tree::Revisions, &key, Some([&seq[..], &with_version_2(bytes)[..]].concat()));
    assert!(is_too_new(verify::run(&config(&dir), &silent), "log entry version"));
    // Without the ledger, a start reads the revision.
    std::fs::remove_file(dir.path().join("ledger")).expect("removed");
    assert!(is_too_new(Store::open(config(&dir), json), "log entry version"));
}

#[test]
fn a_record_of_a_newer_version_is_not_damage() {
    let dir = folder();
    filled(&dir);
    let key = 20u64.to_be_bytes();
    let bytes = value(&dir, Tree::Records, &key);
    let frame = frame::open(&bytes).expect("whole");
    let newer =
        frame::seal(&frame::Header { version: 2, ..frame.header }, frame.payload).expect("small").remove(0);
    tamper(&dir, Tree::Records, &key, Some(newer));
    expect_refused(&dir, "record version");
    assert!(
        is_too_new(salvage::run(dir.path(), &config(&folder()), json, &silent), "record version"),
        "nothing of it is lost"
    );
}

#[test]
fn a_newer_schema_is_refused_by_every_command() {
    let dir = folder();
    filled(&dir);
    tamper(&dir, Tree::Meta, b"schema", Some(2u32.to_le_bytes().to_vec()));
    expect_refused(&dir, "schema");
    let new = folder();
    assert!(is_too_new(salvage::run(dir.path(), &config(&new), json, &silent), "schema"));
    assert!(journal::paths(dir.path())[1].exists());
    // Without its number, the schema is not known.
    tamper(&dir, Tree::Meta, b"schema", None);
    let report = verify::run(&config(&dir), &silent).expect("verified");
    assert_eq!(report.problems[0].what, "the schema number is missing");
}
