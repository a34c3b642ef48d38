//! Atomic replacement of files: whenever the process ends, either the old or the new file is there, complete.
//!
//! Must not know: what is in the files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file; on disk under its name when this returns.
///
/// # Errors
/// The file system.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    replace(path, &temporary, File::create(&temporary)?, bytes)
}

/// As [`write()`], for a file that only its owner may read.
///
/// # Errors
/// The file system.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // A file left over from a crash may have other permissions.
    file.set_permissions(Permissions::from_mode(0o600))?;
    replace(path, &temporary, file, bytes)
}

fn replace(path: &Path, temporary: &Path, mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    rename_synced(path, temporary, &file)
}

/// Syncs a file written under a temporary name and renames it to `path`; on disk when this returns.
///
/// # Errors
/// The file system.
pub fn rename_synced(path: &Path, temporary: &Path, file: &File) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
