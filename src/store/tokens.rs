//! The list of tokens that were given out, in a file beside the store that only its owner can read.
//!
//! Must not know: what a token is, or what it lets do; the list is bytes here.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::store::{Error, Store};

/// The file's name in the data folder.
pub const NAME: &str = "tokens";

impl Store {
    /// The list as it was put last; `None` if there never was one.
    ///
    /// # Errors
    /// The file system.
    pub fn tokens(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = path(self.disk.dir());
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { what: "read", path, source }),
        }
    }

    /// Keeps the list; on disk, whole, when this returns.
    ///
    /// # Errors
    /// The file system.
    pub fn put_tokens(&self, bytes: &[u8]) -> Result<(), Error> {
        let path = path(self.disk.dir());
        write(&path, bytes).map_err(Error::io("write", &path))
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // One that was left behind may have had other rights.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
