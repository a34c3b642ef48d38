//! The lock of the engine in a data folder, and the file `pid` with the process that last opened it.
//!
//! Processes in different containers can have the same pid, so the file also contains a random number of the
//! process, which shows whether this process itself was the last to open the engine.
//!
//! Must not know: what is in the engine.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use crate::store::engine::segments::db_path;
use crate::store::error::StoreError;

/// How often to retry while the engine is locked: after a store is closed, its last threads release the lock with
/// a delay.
const UNLOCK_TRIES: u32 = 100;
/// The same if this process was the last to open the engine. It is certain then that no other process has it,
/// and on a busy machine its own threads may take long.
const OWN_UNLOCK_TRIES: u32 = 3_000;
/// Pause between two tries.
pub const UNLOCK_PAUSE: Duration = Duration::from_millis(20);

/// The random number of this process as stored in the file. Without a source of randomness, no folder counts as
/// last opened by this process.
static RUN: LazyLock<Option<String>> =
    LazyLock::new(|| getrandom::u64().ok().map(|number| format!("run-{number:016x}")));

/// Locks the files of the engine against being opened until the returned file is dropped. Others can lock them
/// this way at the same time.
///
/// # Errors
/// `InUse`; the files do not exist.
pub fn lock_shared(data_dir: &Path) -> Result<File, StoreError> {
    lock_db(data_dir, File::try_lock_shared)
}

/// As [`lock_shared`], but also against other locks.
///
/// # Errors
/// As [`lock_shared`].
pub fn lock_exclusive(data_dir: &Path) -> Result<File, StoreError> {
    lock_db(data_dir, File::try_lock)
}

fn lock_db(data_dir: &Path, lock: fn(&File) -> Result<(), TryLockError>) -> Result<File, StoreError> {
    let path = db_path(data_dir);
    let db = File::open(&path).map_err(StoreError::io("open", &path))?;
    // A child process shares the lock between fork and exec.
    for _ in 0..unlock_tries(data_dir) {
        if lock(&db).is_ok() {
            return Ok(db);
        }
        sleep(UNLOCK_PAUSE);
    }
    Err(StoreError::InUse { pid: read_pid(data_dir) })
}

/// How often to try to lock the files of the engine before they count as in use.
pub fn unlock_tries(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(pid_path(data_dir)).unwrap_or_default();
    let run = text.split_whitespace().nth(1);
    if run.is_some() && run == RUN.as_deref() { OWN_UNLOCK_TRIES } else { UNLOCK_TRIES }
}

/// Records that this process has the engine open.
///
/// # Errors
/// The disk.
pub fn write_pid(data_dir: &Path) -> Result<(), StoreError> {
    let path = pid_path(data_dir);
    let text = [process::id().to_string(), RUN.clone().unwrap_or_default()].join("\n");
    fs::write(&path, text).map_err(StoreError::io("write", &path))
}

/// The process that last opened the engine; 0 if unknown.
pub fn read_pid(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(pid_path(data_dir)).unwrap_or_default();
    text.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

pub fn pid_path(data_dir: &Path) -> PathBuf {
    data_dir.join("pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_our_pid_is_not_mistaken_for_us() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((unlock_tries(dir.path()), read_pid(dir.path())), (UNLOCK_TRIES, 0));
        let pid = process::id();
        for text in [pid.to_string(), format!("{pid}\n"), format!("{pid}\nrun-0000000000000000")] {
            fs::write(pid_path(dir.path()), &text).unwrap();
            assert_eq!((unlock_tries(dir.path()), read_pid(dir.path())), (UNLOCK_TRIES, pid), "{text:?}");
        }
        write_pid(dir.path()).unwrap();
        assert_eq!((unlock_tries(dir.path()), read_pid(dir.path())), (OWN_UNLOCK_TRIES, pid));
    }
}
