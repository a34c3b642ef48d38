//! A spare copy of the end of the engine's files, for as long as it opens them: what looks torn at the end it fills with zeros, and
//! where the end is damaged that would be all that is left of good records. `salvage` reads the spare, too.
//!
//! One file: whole segments as they stand in the engine's main file, then the values that had files of their own. Normally that is one or
//! two megabytes, gone again as soon as the store stands.
//!
//! Must not know: what is in the files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::store::segments::{SEGMENT_BYTES, blobs_path, db_path, read_up_to, segments};

/// Where the spare of a data folder is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("spare")
}

/// Copies what the engine might change as it opens. A spare that is there stays: since it was made the store never stood.
pub fn save(data_dir: &Path) -> io::Result<()> {
    let spare = path(data_dir);
    let Some(db) = missing_is_none(File::open(db_path(data_dir)))?.filter(|_| !spare.exists()) else { return Ok(()) };
    let segments = segments(&db)?;
    let Some(stable) = segments.iter().map(|segment| segment.stable).max() else { return Ok(()) };
    let from = stable / SEGMENT_BYTES * SEGMENT_BYTES;
    let unfinished = spare.with_extension("new");
    let mut out = BufWriter::new(File::create(&unfinished)?);
    for segment in segments.iter().filter(|segment| segment.written >= from) {
        let mut bytes = vec![0; SEGMENT_BYTES as usize];
        read_up_to(&db, &mut bytes, segment.at)?;
        out.write_all(&bytes)?;
    }
    for entry in missing_is_none(fs::read_dir(blobs_path(data_dir)))?.into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()).is_some_and(|written| written >= from) {
            io::copy(&mut File::open(entry.path())?, &mut out)?;
        }
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    fs::rename(unfinished, spare)
}

/// Removes the spare: the store stands.
pub fn remove(data_dir: &Path) -> io::Result<()> {
    missing_is_none(fs::remove_file(path(data_dir))).map(|_| ())
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
