//! What the engine erases when it opens a damaged store is in the spare copy.
//!
//! Must not know: how the spare copy finds what is in danger.

use std::fs;
use std::path::Path;

use crate::store::Store;
use crate::store::engine::segments::{SEGMENT_BYTES, db_path};
use crate::store::engine::{journal, spare};
use crate::store::error::StoreError;
use crate::store::tests::{config, folder, incoming, json, killmail, open, valued};
use crate::store::upkeep::salvage;

const KILLMAILS: u32 = 4_000;
const BATCH: u32 = 1_000;

/// A store of several segments, all written since it was opened, in batches longer than a segment; then many
/// killmails are revised.
fn filled() -> tempfile::TempDir {
    let dir = folder();
    let store = open(&dir);
    let batch = |from: u32, value: f64| {
        store
            .append((from..from + BATCH).map(|id| incoming(valued(id, value))).collect(), None)
            .expect("kept");
    };
    (1..=KILLMAILS).step_by(BATCH as usize).for_each(|from| batch(from, 1e6));
    batch(KILLMAILS / 2, 1e9);
    drop(store);
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed").map(|entry| entry.expect("listed")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// Flips a bit in the main file of a copy without a journal, opens the copy and salvages it. Returns whether the
/// open failed.
fn damage_and_salvage(pristine: &Path, at: u64) -> bool {
    let (dir, new) = (folder(), folder());
    copy(pristine, dir.path());
    journal::remove(dir.path()).expect("removed");
    let mut bytes = fs::read(db_path(dir.path())).expect("read");
    bytes[usize::try_from(at).expect("small")] ^= 4;
    fs::write(db_path(dir.path()), bytes).expect("written");
    let refused = match Store::open(config(&dir), json) {
        Err(StoreError::Damaged { .. }) => true,
        opened => {
            drop(opened.expect("opens"));
            false
        }
    };
    let losses = salvage::run(dir.path(), &config(&new), json, &|_| {}).expect("salvaged");
    assert!(losses.lost <= 1, "byte {} of segment {}: {losses:?}", at % SEGMENT_BYTES, at / SEGMENT_BYTES);
    let store = open(&new);
    for id in KILLMAILS / 2..KILLMAILS / 2 + BATCH {
        let kept = store.killmail(id).expect("read");
        assert!(kept.is_none_or(|entry| entry.killmail == valued(id, 1e9)), "{id} has its old revision");
    }
    refused
}

/// The positions of the headers of all segments.
fn headers(dir: &Path) -> impl Iterator<Item = u64> {
    let length = fs::metadata(db_path(dir)).expect("there").len();
    (0..length.div_ceil(SEGMENT_BYTES)).map(|segment| segment * SEGMENT_BYTES + 6)
}

#[test]
fn a_flipped_bit_costs_one_killmail_wherever_it_is() {
    let pristine = filled();
    assert!(headers(pristine.path()).count() > 4, "too few segments to prove anything");
    // In the header, in the first message, and between many messages; the last segment is shorter than that.
    let places = headers(pristine.path()).flat_map(|at| [at, at + 24, at + SEGMENT_BYTES / 3]);
    let length = fs::metadata(db_path(pristine.path())).expect("there").len();
    let refused = places.filter(|at| *at < length && damage_and_salvage(pristine.path(), *at)).count();
    assert!(refused > 3, "the engine refused only {refused} copies");
    assert!(!spare::path(pristine.path()).exists());
    // After a start the engine reads from its last segment on, which a damaged header hides.
    open(&pristine).append(vec![incoming(killmail(KILLMAILS + 1))], None).expect("kept");
    for at in headers(pristine.path()) {
        damage_and_salvage(pristine.path(), at);
    }
}
