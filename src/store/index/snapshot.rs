//! Snapshots of the index, `idx-<head>.snap`, so that a start need not read the whole log. The newest two are
//! kept.
//!
//! ```text
//! magic 4 | version u32 | epoch u64 | head u64 | rev u64 | terms u32 | crc32 u32, then sections: length u64 | bytes | crc32 u32
//! sections: rows (32 bytes each), 256 shards of terms, labels, flags
//! ```
//! A snapshot is copied one shard at a time while the store is in use, so it may contain some of what came after
//! `head` and `rev`. That is harmless: a start replays everything after those two, and inserting the same entry
//! twice changes nothing.
//!
//! Must not know: the log.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use parking_lot::RwLock;

use crate::domain::id::{Epoch, Seq};
use crate::domain::term::{Dimension, Term};
use crate::store::format::varint::{Cursor, Malformed, put_varint};
use crate::store::index::postings::Postings;
use crate::store::index::resident::Resident;
use crate::store::index::rows::Row;
use crate::store::index::{Flag, Index, SHARDS};
use crate::store::whole_file;
use crate::universe;

const MAGIC: [u8; 4] = *b"KSIX";
/// 2: rows have a flag for undated killmails.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 40;
const ROW_BYTES: u64 = 32;
/// Rows copied under one read lock.
const ROWS_STEP: u64 = 4096;
/// A section with a greater length is damaged.
const SECTION_MAX: u64 = 16 << 30;
const KEPT: usize = 2;

/// How far a snapshot goes: every entry up to `head` and every revision up to `rev` of the store with this
/// `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub epoch: Epoch,
    pub head: Seq,
    pub rev: u64,
}

/// Checksum of everything but the log that the postings depend on. A snapshot stores the dimension of a term by
/// its position in `Dimension::ALL`: with another list, the postings would be incomplete or mean something else.
/// Constellations, regions and ship groups come from static facts.
static TERMS: LazyLock<u32> =
    LazyLock::new(|| checksum_of_terms(Dimension::ALL.iter().map(|dimension| dimension.word())));

pub fn checksum_of_terms<'a>(dimensions: impl Iterator<Item = &'a str>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for word in dimensions {
        crc.update(word.as_bytes());
        crc.update(&[0]);
    }
    for system in universe::systems() {
        [system.id, system.constellation_id, system.region_id]
            .iter()
            .for_each(|id| crc.update(&id.to_le_bytes()));
    }
    for (id, _) in universe::types() {
        [id, universe::group_of(id).unwrap_or(0)].iter().for_each(|id| crc.update(&id.to_le_bytes()));
    }
    crc.finalize()
}

/// Writes the snapshot and removes all but the newest two.
pub fn write(dir: &Path, memory: &RwLock<Resident>, mark: &Mark) -> io::Result<()> {
    let path = dir.join(format!("idx-{:020}.snap", mark.head.0));
    let temporary = path.with_extension("new");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
    out.write_all(&header(mark))?;
    write_rows(&mut out, memory, mark.head)?;
    for shard in 0..SHARDS {
        let mut bytes = Vec::new();
        for (term, postings) in memory.read().index.shard(shard) {
            bytes.push(term.dimension as u8);
            bytes.extend_from_slice(&term.id.to_le_bytes());
            postings.encode(&mut bytes);
        }
        write_section(&mut out, &bytes)?;
    }
    let mut labels = Vec::new();
    for (label, postings) in memory.read().index.labels() {
        put_varint(&mut labels, label.len() as u32);
        labels.extend_from_slice(label.as_bytes());
        postings.encode(&mut labels);
    }
    write_section(&mut out, &labels)?;
    let mut flags = Vec::new();
    [Flag::Npc, Flag::Solo, Flag::Awox]
        .into_iter()
        .for_each(|flag| memory.read().index.flagged(flag).encode(&mut flags));
    write_section(&mut out, &flags)?;
    whole_file::rename_synced(&path, &temporary, &out.into_inner().map_err(io::IntoInnerError::into_error)?)?;
    list_files(dir)?.into_iter().skip(KEPT).try_for_each(fs::remove_file)
}

/// Loads the newest usable snapshot that is not ahead of the store, whose state is `current`.
pub fn load_newest(dir: &Path, current: &Mark) -> Option<(Index, Mark)> {
    let files = list_files(dir).ok()?;
    files.into_iter().find_map(|path| match read_file(&path, current) {
        Ok(loaded) => Some(loaded),
        Err(why) => {
            tracing::warn!("cannot use the snapshot {}: {why}", path.display());
            None
        }
    })
}

/// Whether a start can use a snapshot that is not damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usability {
    Usable,
    /// Another release wrote it, with another layout, other dimensions or other static facts. The next snapshot
    /// replaces it.
    Outdated,
    /// It belongs to another store, or is ahead of this one.
    Foreign,
}

/// Checks a snapshot against the state of the store.
///
/// # Errors
/// It is damaged, or cannot be read.
pub fn check(path: &Path, current: &Mark) -> io::Result<Usability> {
    let mut bytes = [0; HEADER_BYTES];
    File::open(path)?.read_exact(&mut bytes)?;
    let (fields, crc) = bytes.split_at(HEADER_BYTES - 4);
    if !fields.starts_with(&MAGIC) || crc32fast::hash(fields).to_le_bytes() != crc {
        return Err(damaged(Malformed));
    }
    let mark = read_mark(&bytes).map_err(damaged)?;
    // The layout of another version is unknown, so nothing more can be checked.
    if bytes[..] != header(&mark) {
        return Ok(Usability::Outdated);
    }
    if !is_covered(&mark, current) {
        return Ok(Usability::Foreign);
    }
    read_file(path, current).map(|_| Usability::Usable)
}

/// Removes the files of a process that ended while it wrote a snapshot. Must not run while one is written.
pub fn remove_unfinished(dir: &Path) -> io::Result<()> {
    files_ending(dir, ".new")?.into_iter().try_for_each(fs::remove_file)
}

/// The snapshots of a data folder, newest first.
pub fn list_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    files_ending(dir, ".snap")
}

fn files_ending(dir: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("idx-") && name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

fn header(mark: &Mark) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    [mark.epoch.0, mark.head.0, mark.rev].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    out.extend_from_slice(&TERMS.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

fn write_rows(out: &mut impl Write, memory: &RwLock<Resident>, head: Seq) -> io::Result<()> {
    let mut crc = crc32fast::Hasher::new();
    out.write_all(&(head.0 * ROW_BYTES).to_le_bytes())?;
    for first in (1..=head.0).step_by(ROWS_STEP as usize) {
        let rows: Vec<Row> = {
            let memory = memory.read();
            let last = head.0.min(first + ROWS_STEP - 1);
            (first..=last).map(|seq| memory.index.rows.get(Seq(seq)).copied().unwrap_or(Row::HOLE)).collect()
        };
        let bytes: Vec<u8> = rows.into_iter().flat_map(Row::to_bytes).collect();
        crc.update(&bytes);
        out.write_all(&bytes)?;
    }
    out.write_all(&crc.finalize().to_le_bytes())
}

fn write_section(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)?;
    out.write_all(&crc32fast::hash(bytes).to_le_bytes())
}

fn read_file(path: &Path, current: &Mark) -> io::Result<(Index, Mark)> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact(&mut bytes)?;
    let mark = read_mark(&bytes)
        .ok()
        .filter(|mark| is_covered(mark, current) && bytes[..] == header(mark))
        .ok_or_else(|| io::Error::other("it is of another store, another version, or damaged"))?;
    let mut index = Index::default();
    let rows = read_section(&mut file)?;
    let (rows, []) = rows.as_chunks::<{ ROW_BYTES as usize }>() else { return Err(damaged(Malformed)) };
    for (seq, row) in (1..).zip(rows) {
        index.restore_row(Seq(seq), Row::from_bytes(row));
    }
    if index.head() != mark.head {
        return Err(damaged(Malformed));
    }
    for _ in 0..SHARDS {
        index.restore_terms(decode_terms(&read_section(&mut file)?).map_err(damaged)?);
    }
    let labels = decode_labels(&read_section(&mut file)?).map_err(damaged)?;
    let flags = read_section(&mut file)?;
    let mut flags = Cursor::new(&flags);
    let mut flag = || Postings::decode(&mut flags).map_err(damaged);
    index.restore_labels(labels, [flag()?, flag()?, flag()?]);
    Ok((index, mark))
}

fn read_mark(bytes: &[u8; HEADER_BYTES]) -> Result<Mark, Malformed> {
    let mut cursor = Cursor::new(&bytes[MAGIC.len() + 4..]);
    Ok(Mark { epoch: Epoch(cursor.u64()?), head: Seq(cursor.u64()?), rev: cursor.u64()? })
}

/// Whether a snapshot belongs to this store and contains nothing that the store does not.
fn is_covered(mark: &Mark, current: &Mark) -> bool {
    mark.epoch == current.epoch && mark.head <= current.head && mark.rev <= current.rev
}

fn read_section(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut number = [0; 8];
    file.read_exact(&mut number)?;
    let length = u64::from_le_bytes(number);
    let mut bytes = Vec::new();
    if length > SECTION_MAX || file.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(damaged(Malformed));
    }
    let mut crc = [0; 4];
    file.read_exact(&mut crc)?;
    if crc32fast::hash(&bytes).to_le_bytes() == crc { Ok(bytes) } else { Err(damaged(Malformed)) }
}

fn decode_terms(bytes: &[u8]) -> Result<Vec<(Term, Postings)>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let mut found = Vec::new();
    while cursor.remaining() > 0 {
        let dimension = *Dimension::ALL.get(usize::from(cursor.u8()?)).ok_or(Malformed)?;
        found.push((Term { dimension, id: cursor.u32()? }, Postings::decode(&mut cursor)?));
    }
    Ok(found)
}

fn decode_labels(bytes: &[u8]) -> Result<Vec<(String, Postings)>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let mut found = Vec::new();
    while cursor.remaining() > 0 {
        let length = cursor.varint()? as usize;
        let label = String::from_utf8(cursor.bytes(length)?.to_vec()).map_err(|_| Malformed)?;
        found.push((label, Postings::decode(&mut cursor)?));
    }
    Ok(found)
}

fn damaged(_: Malformed) -> io::Error {
    io::Error::other("it is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_of_dimensions_makes_snapshots_outdated() {
        let words: Vec<&str> = Dimension::ALL.iter().map(|dimension| dimension.word()).collect();
        let checksum = |words: &[&str]| checksum_of_terms(words.iter().copied());
        assert_eq!(checksum(&words), *TERMS);
        assert_ne!(checksum(&words[1..]), *TERMS);
        assert_ne!(checksum(&[&words[..], &["final_blow_ship"]].concat()), *TERMS, "a new one");
        let mut swapped = words.clone();
        swapped.swap(0, 1);
        assert_ne!(checksum(&swapped), *TERMS, "another order");
    }
}
