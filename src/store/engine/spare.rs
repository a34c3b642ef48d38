//! A spare copy of what the engine might wipe out as it opens, for as long as it opens: what it takes for
//! torn it fills with zeros, and where something is damaged that would be all that is left of good records.
//! `salvage` reads the spare, too.
//!
//! The engine reads its log on from where it stood when it last opened. What it takes for torn: the end from
//! the first broken message on; a whole batch that reaches beyond that message; everything it reads, if the
//! first segment of the end is not there; a segment whose header is broken; and one of which it could use
//! nothing, for instance as its first message is broken.
//!
//! One file: whole segments as they stand in the engine's main file, then the values that had files of their
//! own. Normally that is one or two megabytes, gone again as soon as the store stands.
//!
//! Must not know: what is in the files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::store::engine::messages;
use crate::store::engine::segments::{
    SEGMENT_BYTES, Segment, blobs_path, db_path, headers, last_opened, read_up_to,
};
use crate::store::whole_file;

/// Where the spare of a data folder is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("spare")
}

/// Copies what the engine might change as it opens. A spare that is there stays: since it was made the store
/// never stood.
pub fn save(data_dir: &Path) -> io::Result<()> {
    let spare = path(data_dir);
    let Some(db) = missing_is_none(File::open(db_path(data_dir)))?.filter(|_| !spare.exists()) else {
        return Ok(());
    };
    let (places, from) = endangered(data_dir, &db)?;
    let unfinished = spare.with_extension("new");
    let mut out = BufWriter::new(File::create(&unfinished)?);
    for at in places {
        out.write_all(&read(&db, at)?)?;
    }
    for entry in missing_is_none(fs::read_dir(blobs_path(data_dir)))?.into_iter().flatten() {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u64>().ok())
            .is_some_and(|written| written >= from)
        {
            io::copy(&mut File::open(entry.path())?, &mut out)?;
        }
    }
    // On disk before the engine touches anything: a loss of power while it opens must leave one or the other.
    whole_file::rename_synced(&spare, &unfinished, &out.into_inner().map_err(io::IntoInnerError::into_error)?)
}

/// Where the segments stand that might be wiped out, and the place in time from which on everything might be.
fn endangered(data_dir: &Path, db: &File) -> io::Result<(Vec<u64>, u64)> {
    let begin = |written: u64| written / SEGMENT_BYTES * SEGMENT_BYTES;
    let since = begin(last_opened(data_dir)?);
    let headers = headers(db)?;
    let log: Vec<Segment> = headers
        .iter()
        .filter_map(|(_, segment)| *segment)
        .filter(|segment| segment.written >= since)
        .collect();
    let end = log.iter().map(|segment| begin(segment.stable)).fold(since, u64::max);
    let mut from = if log.iter().any(|segment| segment.written == end) { end } else { since };
    let mut places = Vec::new();
    for segment in log.iter().filter(|segment| segment.written < end) {
        let bytes = read(db, segment.at)?;
        if messages::last_batch_end(&bytes).is_some_and(|last| last >= end) {
            from = from.min(segment.written);
        }
        places.extend((!messages::are_whole(&bytes, segment.written)).then_some(segment.at));
    }
    for (at, _) in headers.iter().filter(|(_, segment)| segment.is_none()) {
        places.extend(read(db, *at)?.iter().any(|byte| *byte != 0).then_some(*at));
    }
    places.extend(log.iter().filter(|segment| segment.written >= from).map(|segment| segment.at));
    places.sort_unstable();
    places.dedup();
    Ok((places, from))
}

fn read(db: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    read_up_to(db, &mut bytes, at)?;
    Ok(bytes)
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
