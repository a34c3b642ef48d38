//! A spare copy of the end of the engine's files, for as long as it opens them: what looks torn at the end it fills with zeros, and
//! where the end is damaged that would be all that is left of good records. `salvage` reads the spare, too.
//!
//! Normally that is one or two megabytes, gone again as soon as the store stands.
//!
//! Must not know: what is in the files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::segments::{SEGMENT_BYTES, blobs_path, db_path, read_up_to, segments};

const NAME: &str = "spare";
const UNFINISHED: &str = "spare.new";

/// Where the spare of a data folder is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}

/// Copies what the engine might change as it opens. A spare that is there stays: since it was made the store never stood.
pub fn save(data_dir: &Path) -> io::Result<()> {
    let (spare, unfinished) = (path(data_dir), data_dir.join(UNFINISHED));
    let Some(db) = missing_is_none(File::open(db_path(data_dir)))? else { return Ok(()) };
    if spare.exists() {
        return Ok(());
    }
    missing_is_none(fs::remove_dir_all(&unfinished))?;
    let segments = segments(&db)?;
    let Some(stable) = segments.iter().map(|segment| segment.stable).max() else { return Ok(()) };
    let from = stable / SEGMENT_BYTES * SEGMENT_BYTES;
    fs::create_dir(&unfinished)?;
    for segment in segments.iter().filter(|segment| segment.written >= from) {
        let mut bytes = vec![0; SEGMENT_BYTES as usize];
        let length = read_up_to(&db, &mut bytes, segment.at)?;
        fs::write(unfinished.join(format!("{:020}", segment.written)), &bytes[..length])?;
    }
    for entry in missing_is_none(fs::read_dir(blobs_path(data_dir)))?.into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()).is_some_and(|written| written >= from) {
            let to = unfinished.join(format!("blob-{}", entry.file_name().display()));
            fs::hard_link(entry.path(), &to).or_else(|_| fs::copy(entry.path(), &to).map(|_| ()))?;
        }
    }
    fs::rename(unfinished, spare)
}

/// Removes the spare: the store stands.
pub fn remove(data_dir: &Path) -> io::Result<()> {
    missing_is_none(fs::remove_dir_all(path(data_dir))).map(|_| ())
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
