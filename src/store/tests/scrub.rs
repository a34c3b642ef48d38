//! Scrubbing finds damage in an open store, logs it once, and forgets it once the record is intact again.
//!
//! Must not know: when records are read.

use crate::domain::id::Seq;
use crate::store::keys::Tree;
use crate::store::tests::{folder, incoming, killmail, open};

#[test]
fn scrubbing_finds_damaged_records() {
    let dir = folder();
    let store = open(&dir);
    store.append((1..=20).map(killmail).map(incoming).collect(), None).unwrap();
    let all = || {
        let mut place = Some(Seq::ZERO);
        let mut rounds = 0;
        while let Some(after) = place {
            place = store.scrub(after, 7);
            rounds += 1;
        }
        (rounds, store.stats().damaged)
    };
    assert_eq!(all(), (3, 0));
    assert_eq!(store.stats().scrubbed, 20);
    let key = 5_u64.to_be_bytes();
    let whole = store.engine.get(Tree::Records, &key).unwrap().expect("a record").to_vec();
    let mut broken = whole.clone();
    *broken.last_mut().unwrap() ^= 1;
    store.engine.put(Tree::Records, &key, &broken).unwrap();
    let other = store.engine.get(Tree::Records, &9_u64.to_be_bytes()).unwrap().expect("a record").to_vec();
    store.engine.put(Tree::Records, &8_u64.to_be_bytes(), &other).unwrap();
    assert_eq!(
        (all(), all()),
        ((3, 2), (3, 2)),
        "one record is broken, one belongs to another killmail; each counts once"
    );
    store.engine.put(Tree::Records, &key, &whole).unwrap();
    assert_eq!(all(), (3, 1));
}
