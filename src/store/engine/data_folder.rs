//! Data folders: creates one that only its owner can enter, checks whether a folder is one, and removes what an
//! interrupted backup or compaction left in it.
//!
//! Must not know: what is in the files.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::store::engine::{folder_swap, journal, segments, spare};
use crate::store::error::StoreError;

/// Access for the owner only: killmails are public, but tokens and plugins are not.
const MODE: u32 = 0o700;

/// Creates a data folder and its parents. An existing one keeps its permissions.
///
/// # Errors
/// The file system.
pub fn make(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(MODE).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        result => result,
    }
}

/// Checks that a folder contains a store.
///
/// # Errors
/// `NoStore`; the file system.
pub fn must_hold_store(dir: &Path) -> Result<(), StoreError> {
    must_hold_one_of(dir, &[segments::db_path(dir), folder_swap::before_path(dir)])
}

/// Checks that a folder contains a file from which killmails may be recovered: a store, the journal or the
/// spare.
///
/// # Errors
/// `NoStore`; the file system.
pub fn must_hold_killmails(dir: &Path) -> Result<(), StoreError> {
    let [older, newer] = journal::paths(dir);
    must_hold_one_of(
        dir,
        &[segments::db_path(dir), folder_swap::before_path(dir), newer, older, spare::path(dir)],
    )
}

fn must_hold_one_of(dir: &Path, paths: &[PathBuf]) -> Result<(), StoreError> {
    for path in paths {
        match fs::metadata(path) {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(source) => return Err(StoreError::Io { what: "open", path: path.clone(), source }),
        }
    }
    Err(StoreError::NoStore { dir: dir.to_owned() })
}

/// Removes the files of a process that ended during a backup.
pub fn remove_unfinished_backup(data_dir: &Path) -> Result<(), StoreError> {
    remove(&backup_dir(data_dir))
}

/// Removes the files of a process that ended during a compaction. The caller must hold the lock of the engine,
/// because a running compaction holds it, too.
pub fn remove_unfinished_compaction(data_dir: &Path) -> Result<(), StoreError> {
    [folder_swap::twin_dir(data_dir), folder_swap::copy_dir(data_dir)].iter().try_for_each(|dir| remove(dir))
}

/// Removes a folder and everything in it, if it exists.
fn remove(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(StoreError::Io { what: "remove", path: dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The folder of a backup while it is downloaded.
pub fn backup_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("backup.aside")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_folder_is_private_and_an_old_one_keeps_its_mode() {
        let base = tempfile::tempdir().unwrap();
        let mode = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        let dir = base.path().join("above/data");
        make(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        make(&dir).unwrap();
        assert_eq!(mode(&dir), 0o750);
        fs::write(base.path().join("file"), "").unwrap();
        assert!(make(&base.path().join("file")).is_err());
    }

    #[test]
    fn a_folder_without_a_store_is_rejected() {
        let base = tempfile::tempdir().unwrap();
        for dir in [base.path().to_owned(), base.path().join("nowhere")] {
            let error = must_hold_store(&dir).unwrap_err();
            assert!(matches!(&error, StoreError::NoStore { dir: named } if *named == dir), "{error}");
            assert!(matches!(must_hold_killmails(&dir), Err(StoreError::NoStore { .. })));
        }
        fs::create_dir(base.path().join("store")).unwrap();
        fs::write(base.path().join("store/db"), "").unwrap();
        must_hold_store(base.path()).unwrap();
    }
}
