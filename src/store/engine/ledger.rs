//! The ledger: a small file outside the engine that records which killmail each revision changed and how far the
//! log went.
//!
//! The files of the engine still contain older values of revised records. If damage destroys the newest one,
//! they may not show that it existed. The ledger does, so that no older value is mistaken for the newest. It
//! also shows when the engine silently lost its end. It is written after each commit and not synced: it is never
//! ahead of the engine; after a power failure it may be behind, and the next start completes it.
//!
//! ```text
//! magic 4 | version u32 | epoch u64 | head u64 | rev u64 | horizon u64 (0: nothing was deleted) | crc32 u32, zeros up to 64
//! then 16 bytes for each revision, from the first one: rev u64 | killmail id u32 | crc32 u32
//! ```
//!
//! Must not know: what a revision changed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;

use crate::domain::id::{Epoch, Seq};
use crate::store::engine::meta::Numbers;
use crate::store::engine::{Engine, chunked_values, records};
use crate::store::error::StoreError;
use crate::store::format::log_entry::Revised;
use crate::store::format::varint::{Cursor, Malformed};
use crate::store::keys::Key;
use crate::store::whole_file;

const NAME: &str = "ledger";
const MAGIC: [u8; 4] = *b"KSLG";
/// Raise the schema number (`engine/meta`) together with it.
const VERSION: u32 = 1;
const MARK_BYTES: usize = 64;
const SLOT_BYTES: usize = 16;

/// How far the store was at the last commit that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub epoch: Epoch,
    pub head: Seq,
    pub rev: u64,
    /// Entries up to this number were deleted on purpose.
    pub horizon: Seq,
}

/// The intact contents of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub mark: Option<Mark>,
    /// The killmail that each revision changed, from revision 1; `None` where its slot is empty or damaged.
    pub revised: Vec<Option<u32>>,
}

impl Contents {
    /// The newest recorded revision. A slot is written after its commit and before the mark, so it counts even
    /// if the mark is behind.
    pub fn rev(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.rev).max(self.revised.len() as u64)
    }

    /// The newest revision of each revised killmail.
    pub fn newest_revisions(&self) -> HashMap<u32, u64> {
        (1..).zip(&self.revised).filter_map(|(rev, id)| id.map(|id| (id, rev))).collect()
    }
}

#[derive(Debug)]
pub struct Ledger {
    file: File,
    mark: Mark,
}

/// The ledger of a data folder.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Reads a ledger; a missing one is empty.
pub fn read(dir: &Path) -> io::Result<Contents> {
    let bytes = match fs::read(path(dir)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(error) => return Err(error),
    };
    let mark = read_mark(&bytes).ok();
    let (slots, _) = bytes.get(MARK_BYTES..).unwrap_or_default().as_chunks::<SLOT_BYTES>();
    let mut revised: Vec<Option<u32>> = (1..).zip(slots).map(|(rev, bytes)| read_slot(rev, bytes)).collect();
    while revised.last() == Some(&None) {
        revised.pop();
    }
    Ok(Contents { mark, revised })
}

/// Writes a new ledger; it is on disk when this returns.
pub fn write(dir: &Path, mark: Mark, revised: &[Option<u32>]) -> io::Result<()> {
    let slots = (1..).zip(revised).map(|(rev, id)| id.map_or([0; SLOT_BYTES], |id| slot_bytes(rev, id)));
    let bytes: Vec<u8> = mark_bytes(&mark).into_iter().chain(slots.flatten()).collect();
    whole_file::write(&path(dir), &bytes)
}

impl Ledger {
    /// Opens the ledger of an open store and adds what is missing in it. Also returns the newest revision of each
    /// revised killmail.
    ///
    /// # Errors
    /// `Damaged` if the ledger records more than the store contains.
    pub fn open(
        engine: &Engine,
        epoch: Epoch,
        numbers: &Numbers,
    ) -> Result<(Self, HashMap<u32, u64>), StoreError> {
        let at = path(engine.dir());
        let mut found = read(engine.dir()).map_err(StoreError::io("read", &at))?;
        if found.mark.is_some_and(|mark| mark.epoch != epoch) {
            // It belongs to an earlier store of this folder.
            found = Contents::default();
        }
        let lost = |what, from: u64, to: u64| {
            engine.damaged(format!("{what} {from} to {to} were stored and are missing"))
        };
        let head = found.mark.map_or(0, |mark| mark.head.0);
        if head > numbers.head {
            return Err(lost("log entries", numbers.head + 1, head));
        }
        let rev = found.rev();
        if rev > numbers.rev {
            return Err(lost("revisions", numbers.rev + 1, rev));
        }
        let horizon = found.mark.map_or(Seq::ZERO, |mark| mark.horizon);
        let mark = Mark { epoch, head: Seq(numbers.head), rev: numbers.rev, horizon };
        let filled = fill_missing(engine, &mut found.revised, numbers.rev)?;
        if filled || found.mark != Some(mark) {
            write(engine.dir(), mark, &found.revised).map_err(StoreError::io("write", &at))?;
        }
        let file = File::options().write(true).open(&at).map_err(StoreError::io("open", &at))?;
        Ok((Self { file, mark }, found.newest_revisions()))
    }

    /// Records a commit: the numbers of the store, and its revisions with their killmails. A failure is only
    /// logged, because the next start adds what is missing.
    pub fn record(&mut self, numbers: &Numbers, revised: impl Iterator<Item = Revised>) {
        let written = revised.into_iter().try_for_each(|Revised { killmail_id, rev }| {
            self.file.write_all_at(&slot_bytes(rev, killmail_id), slot_at(rev))
        });
        self.mark = Mark { head: Seq(numbers.head), rev: numbers.rev, ..self.mark };
        let written = written.and_then(|()| self.file.write_all_at(&mark_bytes(&self.mark), 0));
        if let Err(error) = written {
            tracing::warn!("cannot write to the ledger: {error}");
        }
    }
}

/// Looks up the killmails of revisions that the ledger lacks. Returns whether it lacked any.
fn fill_missing(engine: &Engine, revised: &mut Vec<Option<u32>>, last: u64) -> Result<bool, StoreError> {
    let mut changed = revised.len() as u64 != last;
    revised.resize(usize::try_from(last).unwrap_or(usize::MAX), None);
    for (rev, id) in (1u64..).zip(revised).filter(|(_, id)| id.is_none()) {
        let Some(value) = chunked_values::read(engine, Key::Revision(rev))? else { continue };
        let old = records::decode_log_entry(engine, value.get(8..).unwrap_or_default(), || {
            format!("revision {rev}")
        })?;
        *id = Some(old.facts.killmail_id);
        changed = true;
    }
    Ok(changed)
}

const fn slot_at(rev: u64) -> u64 {
    MARK_BYTES as u64 + (rev - 1) * SLOT_BYTES as u64
}

fn mark_bytes(mark: &Mark) -> [u8; MARK_BYTES] {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    [mark.epoch.0, mark.head.0, mark.rev, mark.horizon.0]
        .iter()
        .for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    let mut bytes = [0; MARK_BYTES];
    bytes[..out.len()].copy_from_slice(&out);
    bytes
}

fn read_mark(bytes: &[u8]) -> Result<Mark, Malformed> {
    let mut cursor = Cursor::new(bytes);
    if cursor.bytes(4)? != MAGIC || cursor.u32()? != VERSION {
        return Err(Malformed);
    }
    let mark = Mark {
        epoch: Epoch(cursor.u64()?),
        head: Seq(cursor.u64()?),
        rev: cursor.u64()?,
        horizon: Seq(cursor.u64()?),
    };
    if bytes.get(..MARK_BYTES) == Some(&mark_bytes(&mark)[..]) { Ok(mark) } else { Err(Malformed) }
}

fn slot_bytes(rev: u64, killmail_id: u32) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    out[..8].copy_from_slice(&rev.to_le_bytes());
    out[8..12].copy_from_slice(&killmail_id.to_le_bytes());
    let crc = crc32fast::hash(&out[..12]).to_le_bytes();
    out[12..].copy_from_slice(&crc);
    out
}

/// The killmail in the slot of a revision; `None` if the slot is damaged or belongs to another revision.
fn read_slot(rev: u64, bytes: &[u8; SLOT_BYTES]) -> Option<u32> {
    let mut cursor = Cursor::new(bytes);
    let (_, killmail_id) = (cursor.u64().ok()?, cursor.u32().ok()?);
    (slot_bytes(rev, killmail_id) == *bytes).then_some(killmail_id)
}
