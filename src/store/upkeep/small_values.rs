//! The small values of a damaged store: plugins, refused documents, spans, checkpoints. They have no frames, so
//! the engine has to read them, from a copy and only if it opens. All but refused documents have a second copy
//! in a file beside the engine.
//!
//! Must not know: what the values mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::store::config::Config;
use crate::store::engine::second::{self, Values};
use crate::store::engine::segments::db_path;
use crate::store::engine::{Engine, copy, meta};
use crate::store::error::StoreError;
use crate::store::keys::{Tree, is_kept_twice, number_after, prefix, refused_document};
use crate::store::mirror::file_numbers::stored_entry;

/// The folder for the copy, in the new data folder.
const SCRATCH: &str = "scratch";

#[derive(Debug, Default)]
pub struct SmallValues {
    values: Values,
    /// Conflicts since the store was created.
    pub conflicts: u64,
}

/// Reads what the engine can still read, and adds a note about what it cannot.
///
/// # Errors
/// `TooNew`.
pub fn read(from: &Path, config: &Config, notes: &mut Vec<String>) -> Result<SmallValues, StoreError> {
    let scratch = config.dir.join(SCRATCH);
    let mut values = SmallValues::default();
    let read =
        copy_engine(from, &scratch).and_then(|()| values.load(&Engine::open(&scratch, config.cache_bytes)?));
    let unread = match read {
        Ok(()) => None,
        Err(error @ StoreError::TooNew { .. }) => {
            fs::remove_dir_all(&scratch).map_err(StoreError::io("remove", &scratch))?;
            return Err(error);
        }
        _ if !db_path(from).exists() => Some("the engine's main file is missing".to_owned()),
        // Without the command, which would name the copy.
        Err(StoreError::Damaged { what, .. }) => Some(what),
        Err(error) => Some(error.to_string()),
    };
    notes.extend(
        unread.map(|why| format!("refused documents could not be read, at least not all of them: {why}")),
    );
    match second::read(from) {
        Ok(copy) => values.add(copy),
        Err(error) => notes.push(format!(
            "the second copy of plugins and of how far sources were read could not be read: {error}"
        )),
    }
    if let Err(error) = fs::remove_dir_all(&scratch) {
        notes.push(format!("cannot remove {}: {error}", scratch.display()));
    }
    Ok(values)
}

impl SmallValues {
    fn load(&mut self, engine: &Engine) -> Result<(), StoreError> {
        // Values of a newer schema must not be read. A damaged schema number says nothing about the other
        // values.
        if let Err(error @ StoreError::TooNew { .. }) = meta::is_initialized(engine) {
            return Err(error);
        }
        for tree in [Tree::Plugins, Tree::Meta, Tree::Refused] {
            for pair in engine.scan(tree, &[]) {
                let (key, value) = pair?;
                if tree == Tree::Refused || is_kept_twice(tree, &key) {
                    self.values.insert((tree, key.to_vec()), value.to_vec());
                }
            }
        }
        self.conflicts = meta::numbers(engine)?.conflicts;
        Ok(())
    }

    /// Adds the second copy. It replaces what the engine has, which damage may have set back.
    fn add(&mut self, copy: Values) {
        self.values.extend(copy);
    }

    /// The numbers of spans, ascending.
    pub fn spans(&self) -> impl Iterator<Item = u64> {
        self.values.keys().filter(|(tree, _)| *tree == Tree::Meta).filter_map(|(_, key)| span_number(key))
    }

    /// Writes all values to the new store, except for spans and files beyond its head. Counts them by kind.
    pub fn write(&self, engine: &Engine, head: u64) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for ((tree, key), value) in &self.values {
            let span = if *tree == Tree::Meta { span_number(key) } else { None };
            let file = if *tree == Tree::Meta { stored_entry(key, value) } else { None };
            if span.is_some_and(|number| number > head) || file.is_some_and(|entry| entry > head + 1) {
                continue;
            }
            engine.put(*tree, key, value)?;
            if *tree == Tree::Refused && refused_document(key).is_none() {
                continue;
            }
            let name = match (tree, span) {
                (Tree::Meta, Some(_)) => "spans",
                (Tree::Meta, None) if key.starts_with(prefix::REVISION_NOTICE) => "notices",
                (Tree::Meta, None) if file.is_some() => "file numbers",
                (Tree::Meta, None) if key.starts_with(prefix::WEBHOOK) => "webhooks",
                (Tree::Meta, None) if key.starts_with(prefix::WEBHOOK_STATE) => continue,
                (Tree::Meta, None) if key.starts_with(prefix::WEBHOOK_ATTEMPT) => continue,
                (Tree::Meta, None) => "checkpoints",
                (tree, _) => tree.name(),
            };
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        engine.sync()?;
        Ok(counts)
    }
}

fn span_number(key: &[u8]) -> Option<u64> {
    number_after(prefix::SPAN, key)
}

fn copy_engine(from: &Path, to: &Path) -> Result<(), StoreError> {
    let (from, to) = (from.join("store"), to.join("store"));
    for part in ["", "blobs"] {
        let (from, to) = (from.join(part), to.join(part));
        fs::create_dir_all(&to).map_err(StoreError::io("make", &to))?;
        for file in copy::list_files(&from)? {
            copy::file(&file.path(), &to.join(file.file_name()))?;
        }
    }
    Ok(())
}
