//! Values of any size, split into chunks that the engine can hold: a chunk of exactly the full size means that
//! another one follows.
//!
//! Must not know: what the values are.

use crate::store::engine::{Engine, Value, Write};
use crate::store::error::StoreError;
use crate::store::format::frame::PART_BYTES;
use crate::store::keys::{Key, Tree};

/// The key of a chunk; the first one has the plain key.
pub fn chunk_key(key: &[u8], chunk: u16) -> Vec<u8> {
    let mut out = key.to_vec();
    if chunk > 0 {
        out.extend_from_slice(&chunk.to_be_bytes());
    }
    out
}

/// The writes that store a value.
pub fn writes(key: Key<'_>, value: &[u8]) -> Vec<Write> {
    let (tree, key) = (key.tree(), key.bytes());
    let count = value.len() / PART_BYTES + 1;
    let chunk = |n: usize| value[n * PART_BYTES..].chunks(PART_BYTES).next().unwrap_or_default().to_vec();
    (0..count).map(|n| Write { tree, key: chunk_key(&key, n as u16), value: Some(chunk(n)) }).collect()
}

/// The writes that replace a value by another one: chunks of a longer previous value are removed.
pub fn replacement(engine: &Engine, key: Key<'_>, value: &[u8]) -> Result<Vec<Write>, StoreError> {
    let mut writes = removals(engine, key.tree(), &key.bytes())?;
    let put = self::writes(key, value);
    writes.retain(|removal| put.iter().all(|write| write.key != removal.key));
    writes.extend(put);
    Ok(writes)
}

/// The writes that remove every key of a tree with this beginning: a value with all of its chunks, or several values.
pub fn removals(engine: &Engine, tree: Tree, first: &[u8]) -> Result<Vec<Write>, StoreError> {
    let mut removals = Vec::new();
    for pair in engine.scan(tree, first) {
        let (key, _) = pair?;
        if !key.starts_with(first) {
            break;
        }
        removals.push(Write { tree, key: key.to_vec(), value: None });
    }
    Ok(removals)
}

pub fn read(engine: &Engine, key: Key<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let (tree, key) = (key.tree(), key.bytes());
    engine.get(tree, &key)?.map(|first| join(engine, tree, &key, &first)).transpose()
}

/// The whole value whose first chunk is `first`.
pub fn join(engine: &Engine, tree: Tree, key: &[u8], first: &Value) -> Result<Vec<u8>, StoreError> {
    let mut whole = first.to_vec();
    let mut last = first.len();
    for chunk in 1..=u16::MAX {
        if last < PART_BYTES {
            break;
        }
        let Some(next) = engine.get(tree, &chunk_key(key, chunk))? else { break };
        last = next.len();
        whole.extend_from_slice(&next);
    }
    Ok(whole)
}
