//! Values beyond what the engine should hold in one piece are cut: a piece of exactly the full size means
//! that another follows.
//!
//! Must not know: what the values are.

use crate::store::engine::{Engine, Value, Write};
use crate::store::error::StoreError;
use crate::store::format::frame::PART_BYTES;
use crate::store::keys::Tree;

/// The key of a piece; the first has the bare key.
pub fn key_of(key: &[u8], piece: u16) -> Vec<u8> {
    let mut out = key.to_vec();
    if piece > 0 {
        out.extend_from_slice(&piece.to_be_bytes());
    }
    out
}

/// The writes that put a value of any size.
pub fn put(tree: Tree, key: &[u8], value: &[u8]) -> Vec<Write> {
    let count = value.len() / PART_BYTES + 1;
    let piece = |n: usize| value[n * PART_BYTES..].chunks(PART_BYTES).next().unwrap_or_default().to_vec();
    (0..count).map(|n| Write { tree, key: key_of(key, n as u16), value: Some(piece(n)) }).collect()
}

/// A value of any size.
pub fn get(engine: &Engine, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    engine.get(tree, key)?.map(|first| join(engine, tree, key, &first)).transpose()
}

/// The whole value that begins with this piece.
pub fn join(engine: &Engine, tree: Tree, key: &[u8], first: &Value) -> Result<Vec<u8>, StoreError> {
    let mut whole = first.to_vec();
    let mut last = first.len();
    for piece in 1..=u16::MAX {
        if last < PART_BYTES {
            break;
        }
        let Some(next) = engine.get(tree, &key_of(key, piece))? else { break };
        last = next.len();
        whole.extend_from_slice(&next);
    }
    Ok(whole)
}
