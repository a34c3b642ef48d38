//! Tests of `batch_cache`.

use super::*;
use crate::domain::entry::{Origin, SharedEntry};
use crate::domain::id::Seq;
use crate::sample::generate::Recipe;
use crate::store::config::Config;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};

#[test]
fn the_oldest_batches_are_evicted_first() {
    let cache = BatchCache::default();
    let texts = || vec![Bytes::from_static(b"0123456789")];
    let first = cache.insert(texts(), 25);
    let second = cache.insert(texts(), 25);
    assert!(first.upgrade().is_some());
    let third = cache.insert(texts(), 25);
    assert!(first.upgrade().is_none() && second.upgrade().is_some());
    cache.remove(&second);
    cache.remove(&first);
    assert!(second.upgrade().is_none() && third.upgrade().is_some());
    let cached = cache.cached.lock();
    assert_eq!((cached.bytes, cached.batches.len()), (10, 1));
}

#[test]
fn a_batch_larger_than_the_cache_is_not_kept() {
    let cache = BatchCache::default();
    assert!(cache.insert(vec![Bytes::from_static(b"0123456789")], 5).upgrade().is_none());
    assert_eq!(cache.cached.lock().bytes, 0);
}

fn store(killmails: u32) -> (tempfile::TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dir: dir.path().to_owned(), ..Config::default() };
    let store = Store::open(config, killmail::encode).unwrap();
    let made = Recipe { killmails: killmails.into(), revised: 0.0, ..Recipe::default() }.generate();
    let incoming = made.map(|made| Incoming {
        killmail: made.killmail,
        origin: Origin::Backfill,
        received_at_ms: made.uploaded_at * 1000,
        uploaded_at: Some(made.uploaded_at),
        age: AgeRule::ByUpload,
        zkb: ZkbRule::Keep,
    });
    store.append(incoming.collect(), None).unwrap();
    (dir, store)
}

fn entries(store: &Store, count: u64) -> Vec<SharedEntry> {
    (1..=count).map(|seq| store.entry(Seq(seq)).unwrap().unwrap()).collect()
}

fn batch(store: &Store, entries: &[SharedEntry]) -> Batch {
    let kept =
        entries.iter().map(|entry| Delivered { entry: entry.clone(), annotations: Vec::new() }).collect();
    let id = EventId { epoch: store.epoch(), place: Place::Preload { head: Seq(12), after: 99 } };
    Batch { kept, number: 1, total: 1, last: true, judged: false, head: Seq(12), id }
}

/// All chunks of a batch.
async fn chunks_of(store: &Arc<Store>, format: BatchFormat, cache_bytes: usize, batch: Batch) -> Vec<Bytes> {
    let (mut all, mut extra_lines) = (Vec::new(), 0);
    for mut line in split_batch(batch, format, &mut extra_lines, &Arc::default(), cache_bytes) {
        let mut more = true;
        while more {
            let mut chunks = Chunks::default();
            more = line.write_next(store, &mut chunks).await.unwrap();
            let begun = all.len();
            all.extend(std::iter::from_fn(|| chunks.pop()));
            let bytes: usize = all[begun..].iter().map(Bytes::len).sum();
            assert!(
                bytes < STEP_BYTES + 1_024 || bytes <= EVENT_BYTES && all.len() == begun + 1,
                "{bytes} bytes were written at once"
            );
        }
    }
    all
}

fn datas(chunks: &[Bytes]) -> Vec<String> {
    let text = String::from_utf8(chunks.concat()).unwrap();
    text.split("data: ").skip(1).map(|block| block.split_once("\n\n").unwrap().0.to_owned()).collect()
}

const LONG: u64 = 1 << 20;

/// A batch written in small parts is the same text, whether its texts are cached or read again for each part.
#[tokio::test]
async fn parts_make_up_the_batch() {
    let (_dir, store) = store(60);
    let entries = entries(&store, 60);
    let list: Vec<String> =
        entries.iter().map(|entry| String::from_utf8(killmail::json(entry).to_vec()).unwrap()).collect();
    let all = list.join(",");
    assert!(all.len() > EVENT_BYTES, "{}", all.len());
    for (kind, key) in [
        (StreamKind::Basic, BatchKey::Both),
        (StreamKind::Enhanced, BatchKey::Both),
        (StreamKind::Enhanced, BatchKey::Kills),
        (StreamKind::Enhanced, BatchKey::Killmails),
    ] {
        for cache_bytes in [0, 1 << 20] {
            let format = BatchFormat { kind, key, line_max_bytes: LONG };
            let found = datas(&chunks_of(&store, format, cache_bytes, batch(&store, &entries)).await);
            let tail = r#","count":60,"batch_number":1,"total_batches":1,"last":true}"#;
            match (kind, key) {
                (StreamKind::Basic, _) => assert_eq!(found, list),
                (_, BatchKey::Both) => {
                    assert_eq!(found, [format!("{{\"kills\":[{all}],\"killmails\":[{all}]{tail}")])
                }
                (_, BatchKey::Kills) => assert_eq!(found, [format!("{{\"kills\":[{all}]{tail}")]),
                (_, BatchKey::Killmails) => assert_eq!(found, [format!("{{\"killmails\":[{all}]{tail}")]),
            }
        }
    }
}

#[tokio::test]
async fn a_short_line_is_one_chunk() {
    let (_dir, store) = store(3);
    let entries = entries(&store, 3);
    for cache_bytes in [0, 1 << 20] {
        let format = |kind| BatchFormat { kind, key: BatchKey::Both, line_max_bytes: LONG };
        assert_eq!(
            chunks_of(&store, format(StreamKind::Basic), cache_bytes, batch(&store, &entries)).await.len(),
            3
        );
        assert_eq!(
            chunks_of(&store, format(StreamKind::Enhanced), cache_bytes, batch(&store, &entries)).await.len(),
            1
        );
        assert_eq!(
            chunks_of(&store, format(StreamKind::Enhanced), cache_bytes, batch(&store, &[])).await.len(),
            1
        );
    }
}

/// Annotations make lines longer than planned: they are split again and numbered on, and each has the id of
/// the place after it.
#[tokio::test]
async fn no_line_is_longer_than_requested() {
    let (_dir, store) = store(12);
    let mut batch = batch(&store, &entries(&store, 12));
    let annotation: Arc<str> = format!("{{\"why\":\"{}\"}}", "x".repeat(10_000)).into();
    batch.kept.iter_mut().for_each(|kept| kept.annotations = vec![("p".to_owned(), Arc::clone(&annotation))]);
    let line_max_bytes = 64 << 10;
    let format = BatchFormat { kind: StreamKind::Enhanced, key: BatchKey::Both, line_max_bytes };
    let texts = chunks_of(&store, format, 1 << 20, batch).await.concat();
    let text = String::from_utf8(texts).unwrap();
    assert!(
        text.lines().all(|line| line.len() as u64 <= line_max_bytes),
        "{:?}",
        text.lines().map(str::len).collect::<Vec<_>>()
    );
    let found: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let killmails: usize = found.iter().map(|batch| batch["kills"].as_array().unwrap().len()).sum();
    assert!(found.len() > 1 && killmails == 12, "{}", found.len());
    let numbers: Vec<u64> = found.iter().map(|batch| batch["batch_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=found.len() as u64).collect::<Vec<_>>());
    assert_eq!(found.iter().filter(|batch| batch["last"] == true).count(), 1);
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert!(ids.len() == found.len() && ids.last().unwrap().ends_with(".99"), "{ids:?}");
}
