//! The admin token, kept in a file in the data folder that only its owner can read.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::domain::hex::hex;
use crate::store::engine::data_folder;
use crate::store::whole_file;

const NAME: &str = "token";
const RANDOM_BYTES: usize = 32;

/// The file that holds the token of a data folder.
#[must_use]
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Reads the token of the data folder, or creates one. Returns whether it was created.
///
/// # Errors
/// The file cannot be read or written, or the system has no random bytes.
pub fn read_or_create(data_dir: &Path) -> io::Result<(String, bool)> {
    let path = path(data_dir);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok((text.trim().to_owned(), false)),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let token = random()?;
    data_folder::make(data_dir)?;
    // An existing empty file may be readable by others, so it is replaced, not written to.
    whole_file::write_private(&path, format!("{token}\n").as_bytes())?;
    Ok((token, true))
}

/// Creates a random token of 256 bits, in hex.
///
/// # Errors
/// The system has no random bytes.
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
    fn the_token_is_created_once_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("new");
        let (token, is_new) = read_or_create(&data_dir).unwrap();
        assert!(is_new);
        assert_eq!(token.len(), 64);
        assert_eq!(fs::read_to_string(path(&data_dir)).unwrap(), format!("{token}\n"));
        assert_eq!(fs::metadata(path(&data_dir)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(read_or_create(&data_dir).unwrap(), (token, false));
    }

    #[test]
    fn an_empty_token_file_is_replaced_by_a_private_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path()), "\n").unwrap();
        fs::set_permissions(path(folder.path()), fs::Permissions::from_mode(0o644)).unwrap();
        let (token, is_new) = read_or_create(folder.path()).unwrap();
        assert!(is_new);
        assert_eq!(fs::metadata(path(folder.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_create(folder.path()).unwrap(), (token, false));
    }
}
