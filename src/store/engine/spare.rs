//! The spare: a copy of the segments that the engine might overwrite while it opens, kept only until the store is
//! open. The engine fills everything it considers torn with zeros. After damage, these segments may contain the
//! only copy of intact records, so `salvage` reads the spare, too.
//!
//! When it opens, the engine reads its log from the position where it stopped the last time. It considers torn:
//! the end of the log, from the first damaged message on; a whole batch that extends beyond that message;
//! everything it reads, if the first segment of the end is missing; a segment with a damaged header; and a
//! segment of which it can use nothing, for example because its first message is damaged.
//!
//! The spare is one file: segments as they are in the engine's log file, then the values that have their own
//! files. It is usually one or two megabytes.
//!
//! Must not know: what is in the files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::store::engine::messages;
use crate::store::engine::segments::{
    SEGMENT_BYTES, Segment, blobs_path, db_path, read_headers, read_up_to, replay_start,
};
use crate::store::whole_file;

/// The spare of a data folder.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("spare")
}

/// Copies what the engine might overwrite while it opens. An existing spare is kept: the store could not be opened
/// since it was written.
pub fn save(data_dir: &Path) -> io::Result<()> {
    let spare = path(data_dir);
    let Some(db) = missing_is_none(File::open(db_path(data_dir)))?.filter(|_| !spare.exists()) else {
        return Ok(());
    };
    let Endangered { offsets, from } = find_endangered(data_dir, &db)?;
    let unfinished = spare.with_extension("new");
    let mut out = BufWriter::new(File::create(&unfinished)?);
    for at in offsets {
        out.write_all(&read_segment(&db, at)?)?;
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
    // It must be on disk before the engine changes anything, in case of a power failure while it opens.
    whole_file::rename_synced(&spare, &unfinished, &out.into_inner().map_err(io::IntoInnerError::into_error)?)
}

/// What the engine might overwrite.
struct Endangered {
    /// Offsets of segments.
    offsets: Vec<u64>,
    /// Everything from this log position on, including values with their own files.
    from: u64,
}

fn find_endangered(data_dir: &Path, db: &File) -> io::Result<Endangered> {
    let begin = |written: u64| written / SEGMENT_BYTES * SEGMENT_BYTES;
    let since = begin(replay_start(data_dir)?);
    let headers = read_headers(db)?;
    let log: Vec<Segment> = headers
        .iter()
        .filter_map(|(_, segment)| *segment)
        .filter(|segment| segment.written >= since)
        .collect();
    let end = log.iter().map(|segment| begin(segment.stable)).fold(since, u64::max);
    let mut from = if log.iter().any(|segment| segment.written == end) { end } else { since };
    let mut offsets = Vec::new();
    for segment in log.iter().filter(|segment| segment.written < end) {
        let bytes = read_segment(db, segment.at)?;
        if messages::last_batch_end(&bytes).is_some_and(|last| last >= end) {
            from = from.min(segment.written);
        }
        offsets.extend((!messages::are_intact(&bytes, segment.written)).then_some(segment.at));
    }
    for (at, _) in headers.iter().filter(|(_, segment)| segment.is_none()) {
        offsets.extend(read_segment(db, *at)?.iter().any(|byte| *byte != 0).then_some(*at));
    }
    offsets.extend(log.iter().filter(|segment| segment.written >= from).map(|segment| segment.at));
    offsets.sort_unstable();
    offsets.dedup();
    Ok(Endangered { offsets, from })
}

fn read_segment(db: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    read_up_to(db, &mut bytes, at)?;
    Ok(bytes)
}

/// Removes the spare once the store is open.
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
