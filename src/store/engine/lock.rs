//! Who has the engine of a data folder open: its lock, and the file `pid` that names the process.
//!
//! In a container every server may be number 1, so the file also holds a random number of the process: only
//! that tells whether the folder's last user was this very process.
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

/// How long a store that this very process just let go of may take to unlock: the engine's last threads drop
/// it.
const UNLOCK_TRIES: u32 = 100;
/// And where the folder's last user was this process itself, so that nobody else is to be told of: a busy
/// machine takes its time.
const OWN_UNLOCK_TRIES: u32 = 3_000;
/// Between two tries.
pub const UNLOCK_PAUSE: Duration = Duration::from_millis(20);

/// The random number of this process, as a word. Without randomness no folder counts as this process's own.
static RUN: LazyLock<Option<String>> =
    LazyLock::new(|| getrandom::u64().ok().map(|number| format!("run-{number:016x}")));

/// Keeps others from opening the engine's files of this data folder until the answer is dropped; changes
/// nothing there.
///
/// # Errors
/// `InUse`, or there are none.
pub fn hold(data_dir: &Path) -> Result<File, StoreError> {
    locked(data_dir, File::try_lock_shared)
}

/// The same, and keeps others from holding them, too.
///
/// # Errors
/// As `hold`.
pub fn hold_alone(data_dir: &Path) -> Result<File, StoreError> {
    locked(data_dir, File::try_lock)
}

fn locked(data_dir: &Path, lock: fn(&File) -> Result<(), TryLockError>) -> Result<File, StoreError> {
    let path = db_path(data_dir);
    let db = File::open(&path).map_err(StoreError::io("open", &path))?;
    // A process just started by this one has the lock, too, until it becomes another program.
    for _ in 0..unlock_tries(data_dir) {
        if lock(&db).is_ok() {
            return Ok(db);
        }
        sleep(UNLOCK_PAUSE);
    }
    Err(StoreError::InUse { pid: pid_in(data_dir) })
}

/// How often to try to lock the engine's files before they count as in use.
pub fn unlock_tries(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(pid_path(data_dir)).unwrap_or_default();
    let run = text.split_whitespace().nth(1);
    if run.is_some() && run == RUN.as_deref() { OWN_UNLOCK_TRIES } else { UNLOCK_TRIES }
}

/// Names this process as the one that has the engine open.
///
/// # Errors
/// The disk.
pub fn write_pid(data_dir: &Path) -> Result<(), StoreError> {
    let path = pid_path(data_dir);
    let text = [process::id().to_string(), RUN.clone().unwrap_or_default()].join("\n");
    fs::write(&path, text).map_err(StoreError::io("write", &path))
}

/// The process that opened the engine last; 0 if that is not known.
pub fn pid_in(data_dir: &Path) -> u32 {
    let text = fs::read_to_string(pid_path(data_dir)).unwrap_or_default();
    text.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

/// The file that names the process.
pub fn pid_path(data_dir: &Path) -> PathBuf {
    data_dir.join("pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_our_number_is_not_taken_for_us() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((unlock_tries(dir.path()), pid_in(dir.path())), (UNLOCK_TRIES, 0));
        let ours = process::id();
        for text in [ours.to_string(), format!("{ours}\n"), format!("{ours}\nrun-0000000000000000")] {
            fs::write(pid_path(dir.path()), &text).unwrap();
            assert_eq!((unlock_tries(dir.path()), pid_in(dir.path())), (UNLOCK_TRIES, ours), "{text:?}");
        }
        write_pid(dir.path()).unwrap();
        assert_eq!((unlock_tries(dir.path()), pid_in(dir.path())), (OWN_UNLOCK_TRIES, ours));
    }
}
