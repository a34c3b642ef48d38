//! The token of those who may write: given, or a file in the data folder that only its owner can read.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::domain::hex::hex;
use crate::store::engine::data_folder;
use crate::store::whole_file;

const NAME: &str = "token";
const RANDOM_BYTES: usize = 32;

/// Where the token of a data folder is kept.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// The token kept in the data folder; made at the first call. Tells whether it was made.
///
/// # Errors
/// The file cannot be read or written, or the system has no randomness.
pub fn of(data_dir: &Path) -> io::Result<(String, bool)> {
    let path = path(data_dir);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok((text.trim().to_owned(), false)),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let token = random()?;
    data_folder::make(data_dir)?;
    // A file that is there, and empty, may be anybody's to read: another one takes its place.
    whole_file::write_private(&path, format!("{token}\n").as_bytes())?;
    Ok((token, true))
}

/// A token nobody can guess.
///
/// # Errors
/// The system has no randomness.
pub fn random() -> io::Result<String> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(hex(&random))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("new");
        let (token, made) = of(&data_dir).unwrap();
        assert!(made);
        assert_eq!(token.len(), 64);
        assert_eq!(fs::read_to_string(path(&data_dir)).unwrap(), format!("{token}\n"));
        assert_eq!(fs::metadata(path(&data_dir)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(of(&data_dir).unwrap(), (token, false));
    }

    #[test]
    fn an_empty_token_is_made_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path()), "\n").unwrap();
        fs::set_permissions(path(folder.path()), fs::Permissions::from_mode(0o644)).unwrap();
        let (token, made) = of(folder.path()).unwrap();
        assert!(made);
        assert_eq!(fs::metadata(path(folder.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(of(folder.path()).unwrap(), (token, false));
    }
}
