//! Documents nobody could read, kept as they came: the newest 10,000 of them, 64 MiB at most, counted by reason for ever.
//!
//! Must not know: why a document is refused; reasons are words here.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::disk::{Disk, Tree};
use crate::store::frame::PART_BYTES;
use crate::store::{Error, Store, pieces};

/// Documents kept.
const KEPT_MAX: usize = 10_000;
/// And their bytes together.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// A document is cut here, bytes: it is kept to be looked at.
const RAW_MAX: usize = 4 << 20;
/// Counts stand under keys with this first byte, documents under their number (whose first byte is 0 for ages).
const COUNT_MARK: u8 = 0xFF;

/// A document that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, one word of a closed set.
    pub reason: String,
    /// Its killmail id, as far as it could be read.
    pub killmail_id: Option<u64>,
    /// Who brought it.
    pub source: String,
    /// The document as it came.
    pub raw: Bytes,
    /// When, unix milliseconds.
    pub at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct RefusedV1 {
    reason: String,
    killmail_id: Option<u64>,
    source: String,
    at_ms: i64,
}

/// What is kept, by number.
#[derive(Debug, Default)]
pub struct Ring {
    next: u64,
    kept: VecDeque<(u64, usize)>,
    bytes: usize,
    counts: BTreeMap<String, u64>,
}

impl Ring {
    /// Documents ever refused.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Reads what is kept.
    pub fn load(disk: &Disk) -> Result<Self, Error> {
        let mut ring = Self::default();
        for pair in disk.scan(Tree::Refused, &[]) {
            let (key, value) = pair?;
            if let Some(reason) = key.strip_prefix(&[COUNT_MARK]) {
                let count = value.as_array().copied().map_or(0, u64::from_le_bytes);
                ring.counts.insert(String::from_utf8_lossy(reason).into_owned(), count);
            } else if let Some(number) = number_of(&key) {
                ring.kept.push_back((number, value.len()));
                ring.bytes += value.len();
                ring.next = number + 1;
            } else if let Some(last) = ring.kept.back_mut() {
                last.1 += value.len();
                ring.bytes += value.len();
            }
        }
        Ok(ring)
    }
}

impl Store {
    /// Keeps a refused document. It is on disk after the next append.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn refuse(&self, refused: &Refused) -> Result<(), Error> {
        self.check_space()?;
        let value = encode(refused)?;
        let mut ring = self.refused.lock();
        let number = ring.next;
        for write in pieces::put(Tree::Refused, &number.to_be_bytes(), &value) {
            self.disk.put(Tree::Refused, &write.key, &write.value.unwrap_or_default())?;
        }
        ring.next += 1;
        ring.kept.push_back((number, value.len()));
        ring.bytes += value.len();
        let count = ring.counts.entry(refused.reason.clone()).or_default();
        *count += 1;
        let key = [&[COUNT_MARK], refused.reason.as_bytes()].concat();
        self.disk.put(Tree::Refused, &key, &count.to_le_bytes())?;
        while ring.kept.len() > KEPT_MAX || ring.bytes > KEPT_BYTES_MAX {
            let Some((number, bytes)) = ring.kept.pop_front() else { break };
            ring.bytes -= bytes;
            self.remove_refused(number, bytes)?;
        }
        Ok(())
    }

    /// Takes documents off the list, by their numbers: what became of them is known by now. They stay counted. On disk when it returns.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_refused(&self, numbers: &[u64]) -> Result<(), Error> {
        if numbers.is_empty() {
            return Ok(());
        }
        let mut ring = self.refused.lock();
        let gone: Vec<(u64, usize)> = ring.kept.iter().filter(|(number, _)| numbers.contains(number)).copied().collect();
        for (number, bytes) in gone {
            self.remove_refused(number, bytes)?;
            ring.kept.retain(|(kept, _)| *kept != number);
            ring.bytes -= bytes;
        }
        drop(ring);
        self.disk.sync()
    }

    fn remove_refused(&self, number: u64, bytes: usize) -> Result<(), Error> {
        for piece in 0..=(bytes / PART_BYTES) as u16 {
            self.disk.remove(Tree::Refused, &pieces::key_of(&number.to_be_bytes(), piece))?;
        }
        Ok(())
    }

    /// How many documents were ever refused, by reason.
    #[must_use]
    pub fn refused_counts(&self) -> BTreeMap<String, u64> {
        self.refused.lock().counts.clone()
    }

    /// The newest refused documents, newest first.
    ///
    /// # Errors
    /// The disk.
    pub fn refused(&self, limit: usize) -> Result<Vec<Refused>, Error> {
        Ok(self.refused_numbered(limit)?.into_iter().map(|(_, refused)| refused).collect())
    }

    /// The same, each with its number on the list.
    ///
    /// # Errors
    /// The disk.
    pub fn refused_numbered(&self, limit: usize) -> Result<Vec<(u64, Refused)>, Error> {
        let numbers: Vec<u64> = self.refused.lock().kept.iter().rev().take(limit).map(|(number, _)| *number).collect();
        let read = |number: u64| Some((number, pieces::get(&self.disk, Tree::Refused, &number.to_be_bytes()).transpose()?));
        numbers.into_iter().filter_map(read).map(|(number, value)| Ok((number, decode(&value?)?))).collect()
    }
}

/// The number of the document that begins under a key; counts have none, nor have further pieces.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    key.as_array().filter(|key: &&[u8; 8]| key[0] != COUNT_MARK).copied().map(u64::from_be_bytes)
}

fn encode(refused: &Refused) -> Result<Vec<u8>, Error> {
    let head = RefusedV1 {
        reason: refused.reason.clone(),
        killmail_id: refused.killmail_id,
        source: refused.source.clone(),
        at_ms: refused.at_ms,
    };
    let head = rmp_serde::to_vec_named(&head).map_err(|e| Error::Engine { what: "encode a refused document", why: e.to_string() })?;
    let raw = zstd::bulk::compress(&refused.raw[..refused.raw.len().min(RAW_MAX)], 3);
    let raw = raw.map_err(|e| Error::Engine { what: "compress a refused document", why: e.to_string() })?;
    Ok([&(head.len() as u32).to_le_bytes(), &head[..], &raw[..]].concat())
}

/// A document, read back.
pub(crate) fn decode(value: &[u8]) -> Result<Refused, Error> {
    let bad = |why: &str| Error::Engine { what: "read a refused document", why: why.to_owned() };
    let (length, rest) = value.split_first_chunk::<4>().ok_or_else(|| bad("it ends too early"))?;
    let (head, raw) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(|| bad("it ends too early"))?;
    let head: RefusedV1 = rmp_serde::from_slice(head).map_err(|e| bad(&e.to_string()))?;
    let raw = zstd::bulk::decompress(raw, RAW_MAX).map_err(|e| bad(&e.to_string()))?;
    Ok(Refused { reason: head.reason, killmail_id: head.killmail_id, source: head.source, raw: raw.into(), at_ms: head.at_ms })
}
