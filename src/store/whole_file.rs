//! Files that are replaced as a whole: whatever moment the process ends at, the old one or the new one is
//! there.
//!
//! Must not know: what is in them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file; on disk under its name when it returns.
///
/// # Errors
/// The file system.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    replace(path, &temporary, File::create(&temporary)?, bytes)
}

/// The same, for a file that only its owner may read.
///
/// # Errors
/// The file system.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // One that was left behind may have had other rights.
    file.set_permissions(Permissions::from_mode(0o600))?;
    replace(path, &temporary, file, bytes)
}

fn replace(path: &Path, temporary: &Path, mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    take_place(path, temporary, &file)
}

/// A file written under another name takes its place; on disk when it returns.
///
/// # Errors
/// The file system.
pub fn take_place(path: &Path, temporary: &Path, file: &File) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
