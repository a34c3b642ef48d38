//! The storage engine: trees of keys and values, one transaction at a time, on disk when `commit` returns. The
//! only file that names sled.
//!
//! sled 0.34.7 has some properties that are handled here. `flush` does not call fsync, so the files are synced
//! here. Damaged files make it panic, so every call is wrapped and a panic becomes `Damaged`. Values beyond some
//! kilobytes become files that it does not sync, so they are synced here. A batch over several trees is not
//! atomic, so values that belong together are written only in transactions.
//!
//! Must not know: what is in the trees.

pub(crate) mod choice;
pub(crate) mod chunked_values;
pub(crate) mod copy;
pub(crate) mod data_folder;
pub(crate) mod folder_swap;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod lock;
pub(crate) mod messages;
pub(crate) mod meta;
pub(crate) mod raw;
pub(crate) mod records;
pub(crate) mod repair;
pub(crate) mod second;
pub(crate) mod segments;
pub(crate) mod spare;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;

use parking_lot::Mutex;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use sled::{Db, IVec, Transactional, Tree as SledTree};

use crate::store::engine::second::SecondCopy;
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, is_kept_twice};
use crate::tasks;

/// The engine's name, with which its log targets and the names of its threads begin.
pub const NAME: &str = "sled";

/// One write of a transaction, in any tree but `Refused`.
#[derive(Debug, Clone)]
pub struct Write {
    pub tree: Tree,
    pub key: Vec<u8>,
    /// `None` removes the key.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// Stores a value that fits into one chunk.
    pub fn new(key: Key<'_>, value: Vec<u8>) -> Self {
        Self { tree: key.tree(), key: key.bytes(), value: Some(value) }
    }

    /// Removes a value that fits into one chunk.
    pub fn removal(key: Key<'_>) -> Self {
        Self { tree: key.tree(), key: key.bytes(), value: None }
    }
}

/// A write in the types of sled, whose clones share memory: a transaction may run several times.
struct SledWrite {
    tree: Tree,
    key: IVec,
    value: Option<IVec>,
}

impl From<Write> for SledWrite {
    fn from(write: Write) -> Self {
        Self { tree: write.tree, key: write.key.into(), value: write.value.map(IVec::from) }
    }
}

/// A value that shares its memory with the cache of the engine.
#[derive(Debug, Clone)]
pub struct Value(IVec);

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

pub struct Engine {
    dir: PathBuf,
    db: Db,
    trees: [SledTree; 6],
    /// The log file of the engine, open for syncing.
    file: File,
    /// Names of the files in `blobs` that were synced.
    synced_blobs: Mutex<HashSet<OsString>>,
    /// `None` until [`Engine::start_second_copy`].
    second_copy: Mutex<Option<SecondCopy>>,
    /// Set after a panic in the engine: its state is unknown then.
    failed: AtomicBool,
}

impl Engine {
    /// Opens the engine of a data folder; creates it if it does not exist.
    ///
    /// # Errors
    /// `InUse` if another process has it open, `Damaged` if the engine cannot read it; the file system.
    pub fn open(data_dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let dir = data_dir.join("store");
        folder_swap::finish(data_dir).map_err(StoreError::io("finish a compaction in", data_dir))?;
        data_folder::make(data_dir).map_err(StoreError::io("make", data_dir))?;
        fs::create_dir_all(&dir).map_err(StoreError::io("make", &dir))?;
        let config = sled::Config::new()
            .path(&dir)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .use_compression(false);
        let folder = data_dir.to_owned();
        let opened = tasks::thread("store open", move || tasks::catch_panic(|| open_trees(&folder, &config)));
        let opened = opened.map_err(StoreError::io("start a thread to open", &dir))?;
        let damaged = |what: String| damaged(data_dir, what);
        let (db, trees) = match opened.join().flatten() {
            Err(_) => return Err(damaged("the engine panicked while opening it".to_owned())),
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
                return Err(StoreError::InUse { pid: lock::read_pid(data_dir) });
            }
            Ok(Err(sled::Error::Io(source))) => {
                return Err(StoreError::Io { what: "open", path: dir, source });
            }
            Ok(Err(error)) => return Err(damaged(describe(&error))),
            Ok(Ok(opened)) => opened,
        };
        let db_path = dir.join("db");
        let file = File::open(&db_path).map_err(StoreError::io("open", &db_path))?;
        lock::write_pid(data_dir)?;
        Ok(Self {
            dir: data_dir.to_owned(),
            db,
            trees,
            file,
            synced_blobs: Mutex::default(),
            second_copy: Mutex::default(),
            failed: AtomicBool::new(false),
        })
    }

    /// The data folder, not that of the engine in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Value>, StoreError> {
        Ok(self.guard("read", || self.tree(tree).get(key))?.map(Value))
    }

    /// Keys and values from a key on, ascending; reversible.
    pub fn scan(
        &self,
        tree: Tree,
        from: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(Value, Value), StoreError>> {
        let mut pairs = self.tree(tree).range(from.to_vec()..);
        Scan { engine: self, next: move |back: bool| if back { pairs.next_back() } else { pairs.next() } }
    }

    /// Writes everything or nothing; it is on disk when this returns.
    pub fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let small: Vec<Write> =
            writes.iter().filter(|write| is_kept_twice(write.tree, &write.key)).cloned().collect();
        let writes: Vec<SledWrite> = writes.into_iter().map(SledWrite::from).collect();
        let [records, log, revisions, meta, plugins, _] = &self.trees;
        self.guard("write", || {
            let trees = (records, log, revisions, meta, plugins);
            trees
                .transaction(|(r, l, v, m, p)| apply(&[r, l, v, m, p], &writes))
                .map_err(|error| match error {
                    TransactionError::Abort(error) | TransactionError::Storage(error) => error,
                })
        })?;
        self.sync()?;
        small.iter().for_each(|write| self.copy_small_value(write.tree, &write.key, write.value.as_deref()));
        Ok(())
    }

    /// Writes the second copy of all small values. From now on it is updated with each write.
    ///
    /// # Errors
    /// The disk.
    pub fn start_second_copy(&self) -> Result<(), StoreError> {
        let copy = SecondCopy::create(&self.dir, &self.seal_small_values()?);
        *self.second_copy.lock() =
            Some(copy.map_err(StoreError::io("write a second copy of small values in", &self.dir))?);
        Ok(())
    }

    /// The content of a new second copy.
    fn seal_small_values(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        for tree in [Tree::Plugins, Tree::Meta] {
            for pair in self.scan(tree, &[]) {
                let (key, value) = pair?;
                if is_kept_twice(tree, &key) {
                    bytes.extend(second::seal(tree, &key, Some(&value)));
                }
            }
        }
        Ok(bytes)
    }

    /// Updates the second copy. A failure is only logged, because the engine has the value.
    fn copy_small_value(&self, tree: Tree, key: &[u8], value: Option<&[u8]>) {
        if !is_kept_twice(tree, key) {
            return;
        }
        let mut copy = self.second_copy.lock();
        let Some(copy) = copy.as_mut() else { return };
        let written = if copy.add(&second::seal(tree, key, value)) {
            Ok(())
        } else {
            self.seal_small_values()
                .and_then(|bytes| copy.rewrite(&bytes).map_err(StoreError::io("write", &self.dir)))
        };
        if let Err(error) = written {
            tracing::warn!("cannot write the second copy of a small value: {error}");
        }
    }

    /// Writes one value; it is on disk after the next `commit` or `sync`.
    pub fn put(&self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.guard("write", || self.tree(tree).insert(key, value))?;
        self.copy_small_value(tree, key, Some(value));
        Ok(())
    }

    /// Removes one value; on disk after the next `commit` or `sync`.
    pub fn remove(&self, tree: Tree, key: &[u8]) -> Result<(), StoreError> {
        self.guard("write", || self.tree(tree).remove(key))?;
        self.copy_small_value(tree, key, None);
        Ok(())
    }

    /// Everything written before is on disk when this returns.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.guard("flush", || self.db.flush())?;
        let store = self.dir.join("store");
        self.file.sync_data().map_err(StoreError::io("sync", store.join("db")))?;
        self.sync_blobs(&store.join("blobs"))
    }

    /// Length of the engine's log file in bytes. It is the largest file of the store.
    ///
    /// # Errors
    /// The file system.
    pub fn file_bytes(&self) -> Result<u64, StoreError> {
        self.file
            .metadata()
            .map(|meta| meta.len())
            .map_err(StoreError::io("look at", self.dir.join("store").join("db")))
    }

    /// Total size of the engine's files, bytes.
    pub fn size_bytes(&self) -> u64 {
        size_bytes(&self.dir)
    }

    /// The error for damage in this store.
    pub fn damaged(&self, what: impl Into<String>) -> StoreError {
        damaged(&self.dir, what.into())
    }

    fn tree(&self, tree: Tree) -> &SledTree {
        &self.trees[tree as usize]
    }

    /// Syncs new files in `blobs`. They are written once and never changed, so each is synced once.
    fn sync_blobs(&self, dir: &Path) -> Result<(), StoreError> {
        let mut synced = self.synced_blobs.lock();
        let mut before = mem::take(&mut *synced);
        let mut has_new = false;
        for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
            let name = entry.map_err(StoreError::io("list", dir))?.file_name();
            if before.remove(&name) {
                synced.insert(name);
                continue;
            }
            let path = dir.join(&name);
            match File::open(&path).and_then(|file| file.sync_data()) {
                Ok(()) => has_new |= synced.insert(name),
                // The engine removes files that are not needed any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StoreError::Io { what: "sync", path, source }),
            }
        }
        if has_new {
            File::open(dir).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", dir))?;
        }
        Ok(())
    }

    /// Calls the engine. A panic in it is reported as damage, and after one the engine is not called again.
    fn guard<T>(
        &self,
        what: &'static str,
        call: impl FnOnce() -> Result<T, sled::Error>,
    ) -> Result<T, StoreError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(self.damaged("the engine panicked earlier"));
        }
        match tasks::catch_panic(call) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(sled::Error::Io(error))) => Err(StoreError::Engine { what, why: error.to_string() }),
            Ok(Err(error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)))) => {
                Err(self.damaged(describe(&error)))
            }
            Ok(Err(error)) => Err(StoreError::Engine { what, why: error.to_string() }),
            Err(_) => {
                self.failed.store(true, Ordering::Relaxed);
                Err(self.damaged(format!("the engine panicked during a {what}")))
            }
        }
    }
}

struct Scan<'a, F> {
    engine: &'a Engine,
    next: F,
}

impl<F: FnMut(bool) -> Option<sled::Result<(IVec, IVec)>>> Scan<'_, F> {
    fn step(&mut self, back: bool) -> Option<Result<(Value, Value), StoreError>> {
        let pair = self.engine.guard("read", || (self.next)(back).transpose()).transpose()?;
        Some(pair.map(|(key, value)| (Value(key), Value(value))))
    }
}

impl<F: FnMut(bool) -> Option<sled::Result<(IVec, IVec)>>> Iterator for Scan<'_, F> {
    type Item = Result<(Value, Value), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl<F: FnMut(bool) -> Option<sled::Result<(IVec, IVec)>>> DoubleEndedIterator for Scan<'_, F> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

fn apply(
    trees: &[&TransactionalTree; 5],
    writes: &[SledWrite],
) -> Result<(), ConflictableTransactionError<sled::Error>> {
    for write in writes {
        let (tree, key) = (trees[write.tree as usize], write.key.clone());
        match &write.value {
            Some(value) => tree.insert(key, value.clone())?,
            None => tree.remove(key)?,
        };
    }
    Ok(())
}

fn open_trees(data_dir: &Path, config: &sled::Config) -> sled::Result<(Db, [SledTree; 6])> {
    let mut retries = 0;
    let max_retries = lock::unlock_tries(data_dir);
    let db = loop {
        prepare_to_open(data_dir)?;
        match config.open() {
            Err(sled::Error::Io(error))
                if retries < max_retries && error.to_string().contains("could not acquire lock") =>
            {
                retries += 1;
                sleep(lock::UNLOCK_PAUSE);
            }
            other => break other?,
        }
    };
    let [a, b, c, d, e, f] = Tree::NAMES.map(|name| db.open_tree(name));
    let trees = [a?, b?, c?, d?, e?, f?];
    Ok((db, trees))
}

/// Writes the spare, and removes files of a killed process that would keep the engine from opening: an unfinished
/// snapshot of its own (it searches for those under another name than it gives them), and settings
/// without any data.
fn prepare_to_open(data_dir: &Path) -> io::Result<()> {
    let store = &data_dir.join("store");
    let ignore_missing = |result: io::Result<()>| {
        result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    };
    let is_empty = match File::open(store.join("db")) {
        // In use: another process is writing these files.
        Ok(db) if db.try_lock().is_err() => return Ok(()),
        Ok(db) => db.metadata()?.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_empty {
        ignore_missing(fs::remove_file(store.join("conf")))?;
    }
    if let Err(error) = spare::save(data_dir) {
        tracing::warn!("cannot write a spare copy of the end of the store: {error}");
    }
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            ignore_missing(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// Total size of the engine's files in a data folder, bytes. Opening the engine makes them larger.
pub fn size_bytes(data_dir: &Path) -> u64 {
    let store = data_dir.join("store");
    let files = [store.clone(), store.join("blobs")]
        .into_iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .flatten();
    files.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum()
}

/// Replaces messages of sled that address its own developers.
fn describe(error: &sled::Error) -> String {
    match error {
        sled::Error::Corruption { .. } => "the engine found damaged data".to_owned(),
        sled::Error::ReportableBug(_) => "the engine cannot interpret its data".to_owned(),
        other => other.to_string(),
    }
}

/// The error for damage in the store of a data folder, with the command that repairs it.
pub fn damaged(dir: &Path, what: String) -> StoreError {
    StoreError::Damaged { what, command: format!("killstream salvage {} NEWDIR", dir.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), 1 << 20).unwrap();
        (dir, engine)
    }

    #[test]
    fn removed_blobs_are_forgotten() {
        let (dir, engine) = engine();
        let blob = |number: u32| dir.path().join("store/blobs").join(number.to_string());
        for number in 0..20 {
            fs::write(blob(number), "x").unwrap();
            engine.sync().unwrap();
            fs::remove_file(blob(number)).unwrap();
        }
        fs::write(blob(20), "x").unwrap();
        engine.sync().unwrap();
        assert_eq!(*engine.synced_blobs.lock(), HashSet::from([OsString::from("20")]));
    }

    #[test]
    fn the_second_copy_is_rewritten_with_the_values_of_the_engine() {
        let (dir, engine) = engine();
        engine.start_second_copy().unwrap();
        engine.put(Tree::Plugins, b"gone\0", b"was there").unwrap();
        // Bypasses the second copy.
        engine.tree(Tree::Plugins).remove(b"gone\0").unwrap();
        engine.tree(Tree::Plugins).insert(b"quiet\0", b"state").unwrap();
        for n in 0..200_u32 {
            engine.put(Tree::Meta, b"checkpoint/x", &n.to_le_bytes().repeat(10_000)).unwrap();
        }
        let kept = second::read(dir.path()).unwrap();
        let expected = [
            ((Tree::Meta, b"checkpoint/x".to_vec()), 199_u32.to_le_bytes().repeat(10_000)),
            ((Tree::Plugins, b"quiet\0".to_vec()), b"state".to_vec()),
        ];
        assert_eq!(kept, expected.into());
        assert!(fs::metadata(dir.path().join("small")).unwrap().len() < 5 << 20);
    }

    #[test]
    fn plugins_take_part_in_transactions() {
        let (_dir, engine) = engine();
        let write = |tree: Tree| Write { tree, key: b"checkpoint/x".to_vec(), value: Some(b"1".to_vec()) };
        engine.commit(vec![write(Tree::Plugins), write(Tree::Meta)]).unwrap();
        for tree in [Tree::Plugins, Tree::Meta] {
            assert_eq!(engine.get(tree, b"checkpoint/x").unwrap().as_deref(), Some(&b"1"[..]));
        }
    }
}
