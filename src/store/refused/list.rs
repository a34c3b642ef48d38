//! Documents that could not be read, stored as they came: the newest 10,000 of them, at most 64 MiB. Counts by
//! reason are never removed. Documents that could be killmails are kept apart from the rest: however much
//! else is refused, they are evicted only by others that could be killmails.
//!
//! Must not know: why a document is refused; reasons are words here.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use memchr::memmem;
use serde::{Deserialize, Serialize};

use crate::store::engine::Engine;
use crate::store::error::StoreError;
use crate::store::keys::{Tree, prefix, refused_document};

/// Documents stored, at most.
const KEPT_MAX: usize = 10_000;
/// Their size together, bytes, at most.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// A longer document is cut to this, bytes: it is stored for people to look at.
const RAW_MAX: usize = 4 << 20;

/// A refused document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why it was refused: one word of a closed set.
    pub reason: String,
    /// Its killmail id, if that could be read.
    pub killmail_id: Option<u64>,
    /// The source it came from.
    pub source: String,
    /// The document as it came.
    pub raw: Bytes,
    /// When it was refused, unix milliseconds.
    pub at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct RefusedV1 {
    reason: String,
    killmail_id: Option<u64>,
    source: String,
    at_ms: i64,
    /// Whether it could be a killmail. Missing in older entries, which are treated as if they could.
    #[serde(default)]
    could_be_killmail: Option<bool>,
}

/// Whether a document could be a killmail that is damaged or of an unknown form: it has an id and a hash, or an
/// id, a time and a victim. Searches the bytes, since the document may not be JSON.
#[must_use]
pub fn could_be_killmail(raw: &[u8], killmail_id: Option<u64>) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| memmem::find(raw, name.as_bytes()).is_some());
    let has_id = killmail_id.is_some() || has(&["\"killmail_id\"", "\"killID\"", "\"kill_id\""]);
    let has_hash = has(&["\"hash\"", "\"killmail_hash\""]);
    let has_time = has(&["\"killmail_time\"", "\"killTime\"", "\"kill_time\""]);
    has_id && (has_hash || (has_time && has(&["\"victim\""]))) || has(&["/killmails/"])
}

/// A stored document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptDocument {
    pub number: u64,
    /// Its size on disk.
    pub bytes: usize,
}

/// The stored documents, without their contents.
#[derive(Debug, Default)]
pub(crate) struct RefusedList {
    /// The number of the next document.
    pub next: u64,
    /// Documents that could be killmails, ascending by number.
    pub killmails: VecDeque<KeptDocument>,
    /// All others, ascending by number.
    pub others: VecDeque<KeptDocument>,
    /// Size of all documents together.
    pub bytes: usize,
    /// Documents refused since the store was created, by reason.
    pub counts: BTreeMap<String, u64>,
}

impl RefusedList {
    /// Documents refused since the store was created.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn load(engine: &Engine) -> Result<Self, StoreError> {
        let mut list = Self::default();
        let mut is_killmail = true;
        for pair in engine.scan(Tree::Refused, &[]) {
            let (key, value) = pair?;
            if let Some(reason) = key.strip_prefix(prefix::REFUSED_COUNT) {
                let count = value.as_array().copied().map_or(0, u64::from_le_bytes);
                list.counts.insert(String::from_utf8_lossy(reason).into_owned(), count);
            } else if let Some(number) = refused_document(&key) {
                is_killmail =
                    head_of(&value).ok().and_then(|(head, _)| head.could_be_killmail).unwrap_or(true);
                list.add(KeptDocument { number, bytes: value.len() }, is_killmail);
            } else if let Some(last) = list.documents(is_killmail).back_mut() {
                // A further chunk of the document before.
                last.bytes += value.len();
                list.bytes += value.len();
            }
        }
        Ok(list)
    }

    pub fn documents(&mut self, is_killmail: bool) -> &mut VecDeque<KeptDocument> {
        if is_killmail { &mut self.killmails } else { &mut self.others }
    }

    pub fn add(&mut self, document: KeptDocument, is_killmail: bool) {
        self.documents(is_killmail).push_back(document);
        self.bytes += document.bytes;
        self.next = document.number + 1;
    }

    /// Removes one document if the list is over its limits: the oldest that could not be a killmail, or the
    /// oldest.
    pub fn evict(&mut self) -> Option<KeptDocument> {
        if self.killmails.len() + self.others.len() <= KEPT_MAX && self.bytes <= KEPT_BYTES_MAX {
            return None;
        }
        let evicted = self.others.pop_front().or_else(|| self.killmails.pop_front())?;
        self.bytes -= evicted.bytes;
        Some(evicted)
    }
}

pub(crate) fn encode(refused: &Refused) -> Result<Vec<u8>, StoreError> {
    let head = RefusedV1 {
        reason: refused.reason.clone(),
        killmail_id: refused.killmail_id,
        source: refused.source.clone(),
        at_ms: refused.at_ms,
        could_be_killmail: Some(could_be_killmail(&refused.raw, refused.killmail_id)),
    };
    let head = rmp_serde::to_vec_named(&head)
        .map_err(|e| StoreError::Engine { what: "encode a refused document", why: e.to_string() })?;
    let raw = zstd::bulk::compress(&refused.raw[..refused.raw.len().min(RAW_MAX)], 3);
    let raw =
        raw.map_err(|e| StoreError::Engine { what: "compress a refused document", why: e.to_string() })?;
    Ok([&(head.len() as u32).to_le_bytes(), &head[..], &raw[..]].concat())
}

/// Splits a stored value into what is noted about the document and the compressed document. In a first chunk
/// alone, only the former is sure to be complete.
fn head_of(value: &[u8]) -> Result<(RefusedV1, &[u8]), StoreError> {
    let bad = |why: &str| StoreError::Engine { what: "read a refused document", why: why.to_owned() };
    let (length, rest) = value.split_first_chunk::<4>().ok_or_else(|| bad("it ends too early"))?;
    let (head, raw) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or_else(|| bad("it ends too early"))?;
    Ok((rmp_serde::from_slice(head).map_err(|e| bad(&e.to_string()))?, raw))
}

pub(crate) fn decode(value: &[u8]) -> Result<Refused, StoreError> {
    let (head, raw) = head_of(value)?;
    let bad = |e: std::io::Error| StoreError::Engine { what: "read a refused document", why: e.to_string() };
    let raw = zstd::bulk::decompress(raw, RAW_MAX).map_err(bad)?;
    Ok(Refused {
        reason: head.reason,
        killmail_id: head.killmail_id,
        source: head.source,
        raw: raw.into(),
        at_ms: head.at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_killmail_is_distinguished() {
        for (raw, id) in [
            (r#"{"killmail_id":1,"zkb":{"hash":"ab"}}"#, None),
            (r#"{"killID": 5, "killTime": "x", "victim": {"cut"#, None),
            (r#"{"killmail_time":"x","victim":5}"#, Some(7)),
            (r#"{"url":"https://esi.evetech.net/killmails/1/ab"}"#, None),
        ] {
            assert!(could_be_killmail(raw.as_bytes(), id), "{raw}");
        }
        for (raw, id) in [
            ("a line of text", None),
            (r#"{"killmail_id":3}"#, Some(3)),
            (r#"{"hash":"ab","victim":1}"#, None),
            ("", None),
        ] {
            assert!(!could_be_killmail(raw.as_bytes(), id), "{raw}");
        }
    }

    #[test]
    fn entries_of_older_versions_are_read() {
        #[derive(Serialize)]
        struct Before {
            reason: String,
            killmail_id: Option<u64>,
            source: String,
            at_ms: i64,
        }
        let before =
            Before { reason: "once".to_owned(), killmail_id: Some(5), source: "r2z2".to_owned(), at_ms: 7 };
        let head = rmp_serde::to_vec_named(&before).unwrap();
        let value =
            [&(head.len() as u32).to_le_bytes(), &head[..], &zstd::bulk::compress(b"{}", 3).unwrap()[..]]
                .concat();
        assert_eq!(head_of(&value).unwrap().0.could_be_killmail, None);
        assert_eq!(decode(&value).unwrap().raw, Bytes::from_static(b"{}"));
    }

    #[test]
    fn other_documents_never_evict_what_could_be_a_killmail() {
        let mut list = RefusedList::default();
        let document = |number, bytes| KeptDocument { number, bytes };
        for number in 0..3 {
            list.add(document(number, 10), true);
        }
        for number in 3..20_000 {
            list.add(document(number, 10), false);
            while list.evict().is_some() {}
        }
        assert_eq!((list.killmails.len(), list.others.len()), (3, KEPT_MAX - 3));
        for number in 20_000..40_000 {
            list.add(document(number, 10), true);
            while list.evict().is_some() {}
        }
        assert_eq!(
            (list.killmails.len(), list.others.len(), list.killmails[0].number),
            (KEPT_MAX, 0, 30_000)
        );
        list.add(document(40_000, KEPT_BYTES_MAX - 10), true);
        while list.evict().is_some() {}
        assert_eq!((list.killmails.len(), list.bytes), (2, KEPT_BYTES_MAX));
    }
}
