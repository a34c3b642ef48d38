//! The engine under everything: trees of bytes, one transaction at a time, on disk when `commit` returns. The only file naming sled.
//!
//! What sled 0.34.7 needs from us: `flush` is no fsync, so the files are synced here; damaged files make it panic, so every call is
//! caught and the store says `Damaged`; values beyond some kilobytes become files nobody syncs, so they are synced here; a batch over
//! several trees tears, so only transactions write what belongs together.
//!
//! Must not know: what is in the trees.

pub(crate) mod choice;
pub(crate) mod chunked_values;
pub(crate) mod copy;
pub(crate) mod data_folder;
pub(crate) mod folder_swap;
pub(crate) mod journal;
pub(crate) mod ledger;
pub(crate) mod messages;
pub(crate) mod meta;
pub(crate) mod raw;
pub(crate) mod records;
pub(crate) mod second;
pub(crate) mod segments;
pub(crate) mod spare;
pub(crate) mod whole_file;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use parking_lot::Mutex;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use sled::{Db, IVec, Transactional, Tree as SledTree};

use crate::store::engine::second::{Second, Values};
use crate::store::error::Error;
use crate::store::keys::{Key, Tree, is_kept_twice};
use crate::tasks;

/// One write of a transaction; `None` removes. Only the first four trees take part in transactions.
#[derive(Debug)]
pub struct Write {
    /// Where.
    pub tree: Tree,
    /// Under which key.
    pub key: Vec<u8>,
    /// What.
    pub value: Option<Vec<u8>>,
}

impl Write {
    /// The write that puts a value of one chunk.
    pub fn new(key: Key<'_>, value: Vec<u8>) -> Self {
        Self { tree: key.tree(), key: key.bytes(), value: Some(value) }
    }

    /// The write that removes such a value.
    pub fn removal(key: Key<'_>) -> Self {
        Self { tree: key.tree(), key: key.bytes(), value: None }
    }
}

/// A value, shared with the engine's cache.
#[derive(Debug, Clone)]
pub struct Value(IVec);

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The engine, open.
pub struct Engine {
    dir: PathBuf,
    db: Db,
    trees: [SledTree; 6],
    file: File,
    synced_blobs: Mutex<HashSet<OsString>>,
    second: Mutex<Option<Second>>,
    failed: AtomicBool,
}

/// How long a store that this very process just let go of may take to unlock: the engine's last threads drop it.
const UNLOCK_TRIES: u32 = 100;
/// And where the folder's last user was this process itself, so that nobody else is to be told of: a busy machine takes its time.
const OWN_UNLOCK_TRIES: u32 = 3_000;
const UNLOCK_PAUSE: Duration = Duration::from_millis(20);

impl Engine {
    /// Opens the engine's folder, making it if it is missing.
    ///
    /// # Errors
    /// `InUse` if another process has it, `Damaged` if the engine cannot make sense of it.
    pub fn open(data_dir: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let dir = data_dir.join("store");
        folder_swap::finish(data_dir).map_err(Error::io("finish a compaction in", data_dir))?;
        data_folder::make(data_dir).map_err(Error::io("make", data_dir))?;
        fs::create_dir_all(&dir).map_err(Error::io("make", &dir))?;
        let config = sled::Config::new().path(&dir).cache_capacity(cache_bytes).flush_every_ms(None).use_compression(false);
        let folder = data_dir.to_owned();
        let opened = tasks::thread("store open", move || tasks::caught(|| open_trees(&folder, &config)));
        let opened = opened.map_err(Error::io("start a thread to open", &dir))?;
        let damaged = |what: String| damaged(data_dir, what);
        let (db, trees) = match opened.join().flatten() {
            Err(_) => return Err(damaged("the engine gave up while opening it".to_owned())),
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
                return Err(Error::InUse { pid: pid_in(data_dir) });
            }
            Ok(Err(sled::Error::Io(source))) => return Err(Error::Io { what: "open", path: dir, source }),
            Ok(Err(error)) => return Err(damaged(words(&error))),
            Ok(Ok(opened)) => opened,
        };
        let db_path = dir.join("db");
        let file = File::open(&db_path).map_err(Error::io("open", &db_path))?;
        let pid_path = data_dir.join("pid");
        fs::write(&pid_path, std::process::id().to_string()).map_err(Error::io("write", &pid_path))?;
        Ok(Self {
            dir: data_dir.to_owned(),
            db,
            trees,
            file,
            synced_blobs: Mutex::default(),
            second: Mutex::default(),
            failed: AtomicBool::new(false),
        })
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The value under a key.
    pub fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.guard("read", || self.tree(tree).get(key))?.map(Value))
    }

    /// Keys and values from a key on, ascending.
    pub fn scan(&self, tree: Tree, from: &[u8]) -> impl DoubleEndedIterator<Item = Result<(Value, Value), Error>> {
        let mut pairs = self.tree(tree).range(from.to_vec()..);
        Scan { engine: self, next: move |back: bool| if back { pairs.next_back() } else { pairs.next() } }
    }

    /// Writes all or nothing, and returns when it is on disk.
    pub fn commit(&self, writes: Vec<Write>) -> Result<(), Error> {
        let noted: Vec<_> =
            writes.iter().filter(|w| is_kept_twice(w.tree, &w.key)).map(|w| (w.tree, w.key.clone(), w.value.clone())).collect();
        let writes: Vec<(usize, IVec, Option<IVec>)> =
            writes.into_iter().map(|w| (w.tree as usize, w.key.into(), w.value.map(IVec::from))).collect();
        let [records, log, revisions, meta, ..] = &self.trees;
        self.guard("write", || {
            (records, log, revisions, meta).transaction(|(r, l, v, m)| apply(&[r, l, v, m], &writes)).map_err(|error| match error {
                TransactionError::Abort(error) | TransactionError::Storage(error) => error,
            })
        })?;
        self.sync()?;
        noted.iter().for_each(|(tree, key, value)| self.note(*tree, key, value.as_deref()));
        Ok(())
    }

    /// From now on small values are kept a second time, beside the engine; those there are at once.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_second(&self) -> Result<(), Error> {
        let mut values = Values::new();
        for tree in [Tree::Plugins, Tree::Meta] {
            for pair in self.scan(tree, &[]) {
                let (key, value) = pair?;
                if is_kept_twice(tree, &key) {
                    values.insert((tree, key.to_vec()), value.to_vec());
                }
            }
        }
        let second = Second::make(&self.dir, values).map_err(Error::io("write a second copy of small values in", &self.dir))?;
        *self.second.lock() = Some(second);
        Ok(())
    }

    fn note(&self, tree: Tree, key: &[u8], value: Option<&[u8]>) {
        if is_kept_twice(tree, key)
            && let Some(second) = self.second.lock().as_mut()
        {
            second.note(tree, key, value);
        }
    }

    /// Writes one value; it is on disk after the next `commit` or `sync`.
    pub fn put(&self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.guard("write", || self.tree(tree).insert(key, value))?;
        self.note(tree, key, Some(value));
        Ok(())
    }

    /// Removes one value.
    pub fn remove(&self, tree: Tree, key: &[u8]) -> Result<(), Error> {
        self.guard("write", || self.tree(tree).remove(key))?;
        self.note(tree, key, None);
        Ok(())
    }

    /// Returns when everything written so far is on disk.
    pub fn sync(&self) -> Result<(), Error> {
        self.guard("flush", || self.db.flush())?;
        let store = self.dir.join("store");
        self.file.sync_data().map_err(Error::io("sync", store.join("db")))?;
        self.sync_blobs(&store.join("blobs"))
    }

    /// Length of the engine's main file, bytes: the largest there is.
    ///
    /// # Errors
    /// The file system.
    pub fn file_bytes(&self) -> Result<u64, Error> {
        self.file.metadata().map(|meta| meta.len()).map_err(Error::io("look at", self.dir.join("store").join("db")))
    }

    /// Size of the engine's files, bytes.
    pub fn size_bytes(&self) -> u64 {
        size_bytes(&self.dir)
    }

    /// `Damaged`, with the command that mends it.
    pub fn damaged(&self, what: impl Into<String>) -> Error {
        damaged(&self.dir, what.into())
    }

    fn tree(&self, tree: Tree) -> &SledTree {
        &self.trees[tree as usize]
    }

    /// Blob files are written once and never changed, so each is synced once.
    fn sync_blobs(&self, dir: &Path) -> Result<(), Error> {
        let mut synced = self.synced_blobs.lock();
        let mut fresh = false;
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let name = entry.map_err(Error::io("list", dir))?.file_name();
            if synced.contains(&name) {
                continue;
            }
            let path = dir.join(&name);
            match File::open(&path).and_then(|file| file.sync_data()) {
                Ok(()) => fresh |= synced.insert(name),
                // The engine drops blobs that nothing needs any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { what: "sync", path, source }),
            }
        }
        if fresh {
            File::open(dir).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", dir))?;
        }
        Ok(())
    }

    /// Calls the engine; a panic in there is damage, and after one the engine is not called again.
    fn guard<T>(&self, what: &'static str, call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Error> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(self.damaged("the engine gave up earlier"));
        }
        match tasks::caught(call) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(sled::Error::Io(error))) => Err(Error::Engine { what, why: error.to_string() }),
            Ok(Err(error @ (sled::Error::Corruption { .. } | sled::Error::ReportableBug(_)))) => Err(self.damaged(words(&error))),
            Ok(Err(error)) => Err(Error::Engine { what, why: error.to_string() }),
            Err(_) => {
                self.failed.store(true, Ordering::Relaxed);
                Err(self.damaged(format!("the engine gave up at a {what}")))
            }
        }
    }
}

struct Scan<'a, F> {
    engine: &'a Engine,
    next: F,
}

impl<F: FnMut(bool) -> Option<sled::Result<(IVec, IVec)>>> Scan<'_, F> {
    fn step(&mut self, back: bool) -> Option<Result<(Value, Value), Error>> {
        let pair = self.engine.guard("read", || (self.next)(back).transpose()).transpose()?;
        Some(pair.map(|(key, value)| (Value(key), Value(value))))
    }
}

impl<F: FnMut(bool) -> Option<sled::Result<(IVec, IVec)>>> Iterator for Scan<'_, F> {
    type Item = Result<(Value, Value), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl<F: FnMut(bool) -> Option<sled::Result<(IVec, IVec)>>> DoubleEndedIterator for Scan<'_, F> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

fn apply(trees: &[&TransactionalTree; 4], writes: &[(usize, IVec, Option<IVec>)]) -> Result<(), ConflictableTransactionError<sled::Error>> {
    for (tree, key, value) in writes {
        match value {
            Some(value) => trees[*tree].insert(key.clone(), value.clone())?,
            None => trees[*tree].remove(key.clone())?,
        };
    }
    Ok(())
}

fn open_trees(data_dir: &Path, config: &sled::Config) -> sled::Result<(Db, [SledTree; 6])> {
    let mut tries = 0;
    let most = unlock_tries(data_dir);
    let db = loop {
        tidy(data_dir)?;
        match config.open() {
            Err(sled::Error::Io(error)) if tries < most && error.to_string().contains("could not acquire lock") => {
                tries += 1;
                sleep(UNLOCK_PAUSE);
            }
            other => break other?,
        }
    };
    let [a, b, c, d, e, f] = Tree::NAMES.map(|name| db.open_tree(name));
    let trees = [a?, b?, c?, d?, e?, f?];
    Ok((db, trees))
}

/// Takes away what a process that was killed left half-written of the engine's own, and what the engine would stumble over: a
/// snapshot under way (it looks for those under another name than it gives them), and settings beside which nothing was stored yet.
/// What it might change is copied first.
fn tidy(data_dir: &Path) -> io::Result<()> {
    let store = &data_dir.join("store");
    let gone = |result: io::Result<()>| result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) });
    let nothing_stored = match File::open(store.join("db")) {
        // In use: whoever holds it is writing those very files.
        Ok(db) if db.try_lock().is_err() => return Ok(()),
        Ok(db) => db.metadata()?.len() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if nothing_stored {
        gone(fs::remove_file(store.join("conf")))?;
    }
    if let Err(error) = spare::save(data_dir) {
        tracing::warn!("cannot make a spare copy of the end of the store: {error}");
    }
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            gone(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// Keeps others from opening the engine's files of this data folder until the answer is dropped; changes nothing there.
///
/// # Errors
/// `InUse`, or there are none.
pub fn hold(data_dir: &Path) -> Result<File, Error> {
    let path = data_dir.join("store").join("db");
    let db = File::open(&path).map_err(Error::io("open", &path))?;
    // A process just started by this one has the lock, too, until it becomes another program.
    for _ in 0..unlock_tries(data_dir) {
        if db.try_lock_shared().is_ok() {
            return Ok(db);
        }
        sleep(UNLOCK_PAUSE);
    }
    Err(Error::InUse { pid: pid_in(data_dir) })
}

/// Size of the engine's files in a data folder, bytes; opening them makes them larger.
pub fn size_bytes(data_dir: &Path) -> u64 {
    let store = data_dir.join("store");
    let files = [store.clone(), store.join("blobs")].into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file()).map(|meta| meta.len()).sum()
}

fn unlock_tries(data_dir: &Path) -> u32 {
    if pid_in(data_dir) == std::process::id() { OWN_UNLOCK_TRIES } else { UNLOCK_TRIES }
}

/// The engine speaks to those who make it.
fn words(error: &sled::Error) -> String {
    match error {
        sled::Error::Corruption { .. } => "the engine met damaged data".to_owned(),
        sled::Error::ReportableBug(_) => "the engine does not understand what it reads".to_owned(),
        other => other.to_string(),
    }
}

/// `Damaged`, with the command that mends the store of this folder.
pub fn damaged(dir: &Path, what: String) -> Error {
    Error::Damaged { what, command: format!("killstream salvage {} NEWDIR", dir.display()) }
}

fn pid_in(dir: &Path) -> u32 {
    fs::read_to_string(dir.join("pid")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
